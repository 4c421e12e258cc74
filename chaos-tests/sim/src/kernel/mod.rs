//! What simulated processes take for the operating system.
//!
//! A simulation is one thread. The calls by which Rust's standard library, tokio and the crates for randomness reach the
//! system are replaced in this program ([`calls`]); on a thread that has a kernel they come here, on any other they go on
//! to the system. So the code under test is the real one down to its system calls, and nothing that it can see differs
//! between two runs of the same seed: neither the time, nor a random number, nor which file operation fails.
//!
//! - [`hosts`]: machines with their clocks, and the process that runs on each.
//! - [`files`]: what a disk still has after the power has failed.
//! - [`network`]: connections, and what happens to their bytes.
//! - [`trace`]: what happened, as one number, and how often each thing did.

pub mod calls;
pub mod files;
pub mod hosts;
pub mod network;
pub mod trace;

use std::cell::RefCell;
use std::path::Path;
use std::task::Waker;

use flott_chaos_basis::random::Random;
use flott_node::Failpoint;
use flott_node::simulation::Told;

use crate::sometimes;
use files::Files;
use hosts::{Death, Host, HostId};
use network::Network;
use trace::Trace;

/// Nanoseconds of virtual time.
pub const MILLISECOND: u64 = 1_000_000;
/// The same.
pub const SECOND: u64 = 1000 * MILLISECOND;

/// All that simulated processes share.
#[derive(Debug)]
pub struct Kernel {
    /// Nanoseconds since the simulation began, by the clock that no process sees.
    pub now: u64,
    /// Whose process runs at the moment.
    pub current: Option<HostId>,
    /// The machines.
    pub hosts: Vec<Host>,
    /// What processes draw.
    entropy: Random,
    /// How long things take.
    pub chance: Random,
    /// The files of all machines.
    pub files: Files,
    /// The connections of all machines.
    pub network: Network,
    /// What has happened.
    pub trace: Trace,
    /// What panics said.
    pub panics: Vec<String>,
    /// What processes told of themselves, and nobody has looked at.
    pub told: Vec<(HostId, Told)>,
    /// Of a thousand processes that come by a step of a checkpoint so many die there.
    pub dies_at_step_permille: u64,
    /// Of a thousand proposals so many wait long before Raft has them.
    pub proposals_wait_permille: u64,
}

thread_local! {
    static KERNEL: RefCell<Option<Box<Kernel>>> = const { RefCell::new(None) };
}

/// Has this thread simulated from now on. Files lie below `directory`, each host's in one of its own.
pub fn boot(seed: u64, hosts: usize, directory: &Path) {
    let mut random = Random::new(seed);
    let kernel = Kernel {
        now: 0,
        current: None,
        hosts: (0..hosts).map(|_| Host::default()).collect(),
        entropy: random.fork(),
        chance: random.fork(),
        files: Files::new(directory, random.fork()),
        network: Network::new(random.fork()),
        trace: Trace::default(),
        panics: Vec::new(),
        told: Vec::new(),
        dies_at_step_permille: 0,
        proposals_wait_permille: 0,
    };
    KERNEL.with_borrow_mut(|slot| *slot = Some(Box::new(kernel)));
}

/// Calls `f` with this thread's kernel. Must not be called from within itself.
pub fn with<T>(f: impl FnOnce(&mut Kernel) -> T) -> T {
    attempt(f).expect("this thread has a kernel, which is not in use")
}

/// The same; none if there is no kernel, or if it is itself that calls.
pub(crate) fn attempt<T>(f: impl FnOnce(&mut Kernel) -> T) -> Option<T> {
    let called = KERNEL.try_with(|slot| {
        let mut slot = slot.try_borrow_mut().ok()?;
        slot.as_deref_mut().map(f)
    });
    called.ok().flatten()
}

/// Somebody has panicked; whether it was a simulated process.
pub fn note_panic(what: &str) -> bool {
    let what = what.to_owned();
    attempt(|kernel| {
        let where_ = kernel.current.map(|host| format!("host {host}: "));
        let noted = where_.is_some();
        let place = where_.unwrap_or_default();
        kernel.panics.push(format!("{place}{what}"));
        noted
    })
    .unwrap_or(false)
}

/// The time that no process sees.
pub fn now() -> u64 {
    with(|kernel| kernel.now)
}

/// Something happened that is worth being counted.
pub fn count(what: &'static str) {
    with(|kernel| kernel.trace.count(what));
}

impl Kernel {
    /// The host whose process runs, unless that has died in this very step: then nothing that it does has an effect.
    pub(crate) fn living(&self) -> Option<HostId> {
        self.current
            .filter(|host| self.hosts[*host].death.is_none())
    }

    /// Whether a process is running that has died already.
    pub(crate) fn is_dead(&self) -> bool {
        self.current
            .is_some_and(|host| self.hosts[host].death.is_some())
    }

    /// The running process comes by a step of a checkpoint, and may die there.
    pub(crate) fn pass(&mut self, point: Failpoint) {
        let Some(host) = self.living() else {
            return;
        };
        self.trace
            .add("step", &[self.now, host as u64, point as u64]);
        let permille = self.dies_at_step_permille;
        if permille > 0 && self.chance.permille(permille) {
            self.trace.count(sometimes::died_at(point));
            self.end_current(Death::Killed);
        }
    }

    /// The process that runs has ended, and that is why.
    pub fn end_current(&mut self, death: Death) {
        if let Some(host) = self.living() {
            let host = &mut self.hosts[host];
            host.death = Some(death);
            // Who runs it stops, also if it would go on for ever.
            if let Some(root) = host.root.take() {
                root.wake();
            }
        }
    }

    /// What the running process draws.
    pub(crate) fn fill_random(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.entropy.any().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    /// The running process waits for at most so many milliseconds; for ever if that is negative. The waker of who runs
    /// it, who is to be told.
    pub(crate) fn on_wait(&mut self, timeout_ms: i32) -> Option<Waker> {
        const LOOKS_MAX: u32 = 1_000_000;
        let host = self.current?;
        let now = self.now;
        let host = &mut self.hosts[host];
        if timeout_ms == 0 {
            host.looks += 1;
            assert!(
                host.looks < LOOKS_MAX,
                "a process runs for ever without waiting"
            );
            return None;
        }
        host.looks = 0;
        host.is_idle = true;
        host.deadline = u64::try_from(timeout_ms)
            .ok()
            .map(|ms| now + host.clock.until(ms * MILLISECOND));
        host.root.take()
    }
}
