//! What simulated processes find in the place of threads, sockets and their own end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flott_node::Failpoint;
use flott_node::mutant::Mutant;
use flott_node::simulation::{Connecting, Environment, Incoming, Stream, Told};
use futures::StreamExt;
use object_store::ObjectStore;

use crate::kernel::hosts::Death;
use crate::kernel::{MILLISECOND, SECOND, network, with};
use crate::object_store::Store;

/// Long enough for another leader to be elected meanwhile, and for the first to be elected again.
const PROPOSAL_WAITS: (u64, u64) = (50 * MILLISECOND, 3 * SECOND);

/// The surroundings of all processes of this thread.
#[derive(Debug)]
pub struct Surroundings {
    mutants: BTreeSet<Mutant>,
    log_segment_bytes: usize,
    store: Store,
}

impl Surroundings {
    /// With these defects in every process.
    pub fn new(
        mutants: impl IntoIterator<Item = Mutant>,
        log_segment_bytes: usize,
        store: Store,
    ) -> Self {
        Self {
            mutants: mutants.into_iter().collect(),
            log_segment_bytes,
            store,
        }
    }
}

impl Environment for Surroundings {
    fn connect(&self, address: &str) -> Connecting {
        let connecting = network::connect(address.to_owned());
        Box::pin(async move {
            let stream: Box<dyn Stream> = Box::new(connecting.await?);
            Ok(stream)
        })
    }

    fn listen(&self, address: &str) -> Incoming {
        let incoming = network::listen(address);
        incoming
            .map(|stream| Box::new(stream) as Box<dyn Stream>)
            .boxed()
    }

    fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.store.clone())
    }

    fn blocking_takes(&self) -> Duration {
        with(|kernel| Duration::from_nanos(kernel.chance.between(100_000, 5 * MILLISECOND)))
    }

    fn log_write_takes(&self) -> Duration {
        with(|kernel| {
            let Some(host) = kernel.current else {
                return Duration::ZERO;
            };
            let host = &kernel.hosts[host];
            let hangs = host.disk_hangs_until.saturating_sub(kernel.now);
            let takes = kernel.chance.between(host.disk.least, host.disk.most);
            Duration::from_nanos(hangs + takes)
        })
    }

    fn proposal_waits(&self) -> Duration {
        with(|kernel| {
            let permille = kernel.proposals_wait_permille;
            if permille == 0 || !kernel.chance.permille(permille) {
                return Duration::ZERO;
            }
            Duration::from_nanos(kernel.chance.between(PROPOSAL_WAITS.0, PROPOSAL_WAITS.1))
        })
    }

    fn disk_space(&self) -> (u64, u64) {
        with(|kernel| {
            let free = kernel
                .current
                .map_or(0, |host| kernel.hosts[host].disk_free);
            (free, 100 << 30)
        })
    }

    fn log_segment_bytes(&self) -> usize {
        self.log_segment_bytes
    }

    fn passes(&self, point: Failpoint) {
        with(|kernel| kernel.pass(point));
    }

    fn tells(&self, told: Told) {
        with(|kernel| {
            if let Some(host) = kernel.living() {
                kernel.told.push((host, told));
            }
        });
    }

    fn exit(&self, code: i32) {
        with(|kernel| kernel.end_current(Death::Exited(format!("exit code {code}"))));
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.mutants.contains(&mutant)
    }
}
