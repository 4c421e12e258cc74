//! A lease that lives as long as its holder: what is bound to it ends soon after the holder does, however it ends.

use std::convert::Infallible;
use std::time::Duration;

use flott_node::OnFailure;
use flott_proto::wire::kv_failure::Reason;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{KvError, Space};

/// A lease is kept this many times within its time, so that a failover or two does no harm.
const KEPT_PER_TTL: u32 = 3;

/// Holds a lease. Dropped, it lets the lease run out; [`end`](Self::end) ends it at once.
#[derive(Debug)]
pub struct Ephemeral {
    space: Space,
    lease: u64,
    lost: watch::Receiver<Option<String>>,
    _keeping: DropGuard,
}

impl Ephemeral {
    pub(super) async fn start(space: &Space, ttl: Duration) -> Result<Self, KvError> {
        let clock = space.session().clock();
        let begun = clock.monotonic();
        let granted = space.grant_lease(0, ttl).await?.value;
        let (sender, lost) = watch::channel(None);
        let keeping = CancellationToken::new();
        let keeper = Keeper {
            space: space.clone(),
            lease: granted.lease,
            ttl: Duration::from_millis(granted.ttl_ms),
            kept: begun,
        };
        let stop = keeping.clone();
        let tasks = space.session().tasks();
        let cancelled = tasks.cancellation().clone();
        tasks.spawn("lease keeper", OnFailure::Log, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = cancelled.cancelled() => {}
                why = keeper.run() => drop(sender.send(Some(why))),
            }
            Ok::<_, Infallible>(())
        });
        Ok(Self {
            space: space.clone(),
            lease: granted.lease,
            lost,
            _keeping: keeping.drop_guard(),
        })
    }

    /// Its number, for [`KvPut::lease`](flott_proto::wire::KvPut).
    pub fn lease(&self) -> u64 {
        self.lease
    }

    /// Waits until the lease may have ended although it was to be kept; why.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "the process is ending".to_owned(),
        }
    }

    /// Ends the lease and all entries that are bound to it.
    pub async fn end(self) -> Result<(), KvError> {
        match self.space.revoke_lease(self.lease).await {
            Err(error) if !error.is(Reason::NoLease) => Err(error),
            _ => Ok(()),
        }
    }
}

struct Keeper {
    space: Space,
    lease: u64,
    ttl: Duration,
    /// When the last request was sent that is known to have kept it: the leader's time for it began later.
    kept: Duration,
}

impl Keeper {
    /// Keeps the lease for as long as it can; why it cannot.
    async fn run(mut self) -> String {
        let clock = self.space.session().clock().clone();
        let pause = self.ttl / KEPT_PER_TTL;
        loop {
            clock.sleep(pause).await;
            let begun = clock.monotonic();
            let left = (self.kept + self.ttl).saturating_sub(begun);
            match self.space.keep_lease(self.lease, left).await {
                Ok(_) => self.kept = begun,
                Err(error @ KvError::Refused { .. }) => return error.to_string(),
                Err(error) if clock.monotonic() >= self.kept + self.ttl => {
                    return format!("lease {} was not kept in time: {error}", self.lease);
                }
                Err(_) => {}
            }
        }
    }
}
