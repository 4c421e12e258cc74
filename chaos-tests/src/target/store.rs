//! An object store of our own that can be broken: the S3 server of the storage tests, when this program was built with it
//! (feature `object-store`).

use std::time::Duration;

/// What is done to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Connections break.
    Outage,
    /// 503, and nothing is done.
    Refusal,
    /// Answers are late.
    Slow(Duration),
}

#[cfg(feature = "object-store")]
mod real {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex, PoisonError};

    use flott_node::testing::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY};

    use super::Trouble;

    /// Whether there can be one.
    pub const AVAILABLE: bool = true;

    /// A running store.
    #[derive(Debug)]
    pub struct Store {
        server: S3Server,
        troubles: Arc<Mutex<(u64, BTreeMap<u64, Trouble>)>>,
    }

    impl Store {
        /// With nothing in it, and nothing wrong, on that address of this machine.
        pub async fn start(host: IpAddr) -> anyhow::Result<Self> {
            let troubles: Arc<Mutex<(u64, BTreeMap<u64, Trouble>)>> = Arc::default();
            let server = S3Server::start_on(host).await;
            let planned = Arc::clone(&troubles);
            server.plan(move |_| {
                let troubles = planned.lock().unwrap_or_else(PoisonError::into_inner);
                let worst = troubles.1.values().min_by_key(|trouble| match trouble {
                    Trouble::Outage => 0,
                    Trouble::Refusal => 1,
                    Trouble::Slow(_) => 2,
                })?;
                Some(match *worst {
                    Trouble::Outage => Fault::Reset,
                    Trouble::Refusal => Fault::Status(503),
                    Trouble::Slow(late) => Fault::Slow(late),
                })
            });
            Ok(Self { server, troubles })
        }

        /// What processes need to reach it.
        pub fn environment(&self) -> Vec<(String, String)> {
            let variables = [
                ("AWS_ENDPOINT", self.server.url()),
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ];
            variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        }

        /// Where checkpoints go.
        pub fn url(&self) -> String {
            format!("s3://{BUCKET}/chaos")
        }

        /// From now on; the number by which it is lifted.
        pub fn begin(&self, trouble: Trouble) -> u64 {
            let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.0 += 1;
            let number = troubles.0;
            troubles.1.insert(number, trouble);
            number
        }

        /// No longer.
        pub fn lift(&self, number: u64) {
            let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.1.remove(&number);
        }
    }
}

#[cfg(not(feature = "object-store"))]
mod absent {
    use std::net::IpAddr;

    use super::Trouble;

    /// Whether there can be one.
    pub const AVAILABLE: bool = false;

    /// There is none in this build.
    #[derive(Debug)]
    pub enum Store {}

    impl Store {
        /// Says that there is none.
        pub async fn start(_host: IpAddr) -> anyhow::Result<Self> {
            anyhow::bail!("this program was built without its object store (feature object-store)")
        }

        #[expect(missing_docs, reason = "never called")]
        pub fn environment(&self) -> Vec<(String, String)> {
            match *self {}
        }

        #[expect(missing_docs, reason = "never called")]
        pub fn url(&self) -> String {
            match *self {}
        }

        #[expect(missing_docs, reason = "never called")]
        pub fn begin(&self, _trouble: Trouble) -> u64 {
            match *self {}
        }

        #[expect(missing_docs, reason = "never called")]
        pub fn lift(&self, _number: u64) {
            match *self {}
        }
    }
}

#[cfg(not(feature = "object-store"))]
pub use absent::{AVAILABLE, Store};
#[cfg(feature = "object-store")]
pub use real::{AVAILABLE, Store};
