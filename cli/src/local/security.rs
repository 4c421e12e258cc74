//! `flott local --tls`: a CA in DIR/certs, and a certificate for each process and for the client.
//!
//! Certificates are renewed with every start of their process, so that a cluster that is started now and then goes on
//! working.

use std::collections::BTreeMap;
use std::path::Path;

use flott_node::config::options;
use flott_node::tls::authority::{Authority, Validity};
use flott_node::tls::{Files, Role, TlsError};
use flott_node::{SharedClock, Transport};

use crate::Error;

const CLUSTER: &str = "local";
/// Of the CA: longer than anybody keeps a cluster on a machine of his own.
const CA_DAYS: u32 = 3650;
const CERTIFICATE_DAYS: u32 = 365;
/// Under which a process of this machine is dialled.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

/// What makes certificates for the processes.
#[derive(Debug)]
pub(super) struct Security {
    authority: Authority,
    clock: SharedClock,
    /// The client's.
    client: Files,
}

impl Security {
    /// In that directory; made if missing.
    pub(super) fn open(dir: &Path, clock: SharedClock) -> Result<Self, Error> {
        let validity = Validity {
            now_ms: clock.now_ms(),
            days: CA_DAYS,
        };
        let authority = if dir.join("ca.pem").exists() {
            Authority::open(dir)?
        } else {
            Authority::create(dir, CLUSTER, validity)?
        };
        let client = issue(&authority, &clock, Role::Client, "local")?;
        Ok(Self {
            authority,
            clock,
            client,
        })
    }

    /// The settings of a process of that name.
    pub(super) fn settings(
        &self,
        role: Role,
        name: &str,
    ) -> Result<BTreeMap<String, String>, Error> {
        let files = issue(&self.authority, &self.clock, role, name)?;
        let path = |path: &Path| path.display().to_string();
        Ok(BTreeMap::from([
            (options::SSL_ENABLED.key().to_owned(), "true".to_owned()),
            (options::SSL_CA.key().to_owned(), path(&files.ca)),
            (options::SSL_CERT.key().to_owned(), path(&files.certificate)),
            (options::SSL_KEY.key().to_owned(), path(&files.key)),
        ]))
    }

    /// The files of a client of the cluster.
    pub(super) fn client(&self) -> &Files {
        &self.client
    }

    pub(super) fn transport(&self) -> Result<Transport, Error> {
        Ok(Transport::tls(self.client.clone())?)
    }
}

fn issue(
    authority: &Authority,
    clock: &SharedClock,
    role: Role,
    name: &str,
) -> Result<Files, TlsError> {
    let validity = Validity {
        now_ms: clock.now_ms(),
        days: CERTIFICATE_DAYS,
    };
    let hosts = match role {
        Role::Client => Vec::new(),
        Role::JobManager | Role::TaskManager => HOSTS.map(str::to_owned).to_vec(),
    };
    let issued = if authority.files(role, name).key.exists() {
        authority.renew(role, name, &hosts, validity)?
    } else {
        authority.issue(role, name, &hosts, validity)?
    };
    Ok(issued.files)
}
