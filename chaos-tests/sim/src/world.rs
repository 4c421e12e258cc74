//! Runs processes on simulated hosts, one step after the other.
//!
//! Each process is a runtime of its own, with everything that it consists of. It runs until it waits; then the next one
//! does, in an order that the seed decides; and once all wait, time goes on to whatever comes next. A process that is
//! killed is forgotten as it stands: none of its destructors runs, as none would.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use flott_chaos_basis::random::Random;
use tokio::runtime::{Builder, Runtime};

use crate::kernel::hosts::{Death, HostId};
use crate::kernel::{self, with};

/// The machines and what runs on them.
#[derive(Debug)]
pub struct World {
    processes: Vec<Option<Runtime>>,
    order: Random,
}

/// What one step was.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The process of this host ran, and then waited.
    Ran(HostId),
    /// It has ended.
    Died(HostId, Death),
    /// Nothing happens before that time.
    Reached,
}

impl World {
    /// As many machines as the kernel has, with nothing on them.
    pub fn new(order: Random) -> Self {
        let hosts = with(|kernel| kernel.hosts.len());
        Self {
            processes: (0..hosts).map(|_| None).collect(),
            order,
        }
    }

    /// Starts a process on that host, which must have none.
    pub fn start(&mut self, host: HostId, main: impl Future<Output = ()> + Send + 'static) {
        assert!(self.processes[host].is_none(), "host {host} has a process");
        with(|kernel| {
            let state = &mut kernel.hosts[host];
            state.life += 1;
            state.death = None;
            (state.is_up, state.has_power, state.is_paused) = (true, true, false);
            state.is_runnable = true;
            (state.deadline, state.root) = (None, None);
            state.dies_in_file_operation = None;
            kernel
                .trace
                .add("start", &[kernel.now, host as u64, u64::from(state.life)]);
            kernel.current = Some(host);
        });
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system gives a runtime its descriptors");
        runtime.spawn(main);
        with(|kernel| kernel.current = None);
        self.processes[host] = Some(runtime);
    }

    /// Has the process of that host do something beside.
    pub fn spawn(&mut self, host: HostId, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.processes[host] {
            runtime.spawn(work);
            with(|kernel| kernel.hosts[host].is_runnable = true);
        }
    }

    /// Whether a process runs, or is stopped, on that host.
    pub fn is_up(&self, host: HostId) -> bool {
        self.processes[host].is_some()
    }

    /// Ends the process of that host, if it has one.
    pub fn kill(&mut self, host: HostId, death: &Death) {
        let Some(runtime) = self.processes[host].take() else {
            return;
        };
        // Never dropped: nothing in it happens any more.
        std::mem::forget(runtime);
        with(|kernel| {
            let power_failed = *death == Death::PowerLost;
            let state = &mut kernel.hosts[host];
            (state.is_up, state.has_power) = (false, !power_failed);
            (state.is_paused, state.deadline, state.root) = (false, None, None);
            kernel
                .trace
                .add("end", &[kernel.now, host as u64, u64::from(power_failed)]);
            kernel.take_connections_from(host, power_failed);
            kernel.take_files_from(host, power_failed);
        });
    }

    /// Whatever comes next, but nothing after `until`.
    pub fn step(&mut self, until: u64) -> Step {
        loop {
            if let Some(host) = self.next_runnable() {
                return self.run(host);
            }
            let next = with(|kernel| {
                let hosts = kernel.hosts.iter().filter(|host| !host.is_paused);
                let alarm = hosts.filter_map(|host| host.deadline).min();
                let arrival = kernel.network.next_at();
                let next = alarm.into_iter().chain(arrival).min();
                next.filter(|next| *next <= until)
            });
            let Some(next) = next else {
                with(|kernel| kernel.now = kernel.now.max(until));
                return Step::Reached;
            };
            let woken = with(|kernel| {
                kernel.now = kernel.now.max(next);
                let now = kernel.now;
                for host in &mut kernel.hosts {
                    if host.deadline.is_some_and(|deadline| deadline <= now) {
                        host.is_runnable = true;
                    }
                }
                kernel.deliver()
            });
            woken.into_iter().for_each(|waker| waker.wake());
        }
    }

    fn next_runnable(&mut self) -> Option<HostId> {
        let runnable: Vec<HostId> = with(|kernel| {
            let hosts = kernel.hosts.iter().enumerate();
            hosts
                .filter(|(_, host)| host.is_up && host.is_runnable && !host.is_paused)
                .map(|(number, _)| number)
                .collect()
        });
        (!runnable.is_empty()).then(|| *self.order.pick(&runnable))
    }

    fn run(&mut self, host: HostId) -> Step {
        with(|kernel| {
            kernel.current = Some(host);
            let state = &mut kernel.hosts[host];
            (state.is_runnable, state.is_idle, state.deadline) = (false, false, None);
        });
        if let Some(runtime) = &self.processes[host] {
            runtime.block_on(UntilIdle);
        }
        let death = with(|kernel| {
            kernel.current = None;
            kernel.hosts[host].death.clone()
        });
        let Some(death) = death else {
            return Step::Ran(host);
        };
        self.kill(host, &death);
        Step::Died(host, death)
    }
}

/// Ends when the process has nothing to do until its next deadline, or until something arrives.
struct UntilIdle;

impl Future for UntilIdle {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        with(|kernel| {
            let host = kernel.current.expect("a process runs");
            let state = &mut kernel.hosts[host];
            // One that has died goes no further.
            if state.is_idle || state.death.is_some() {
                return Poll::Ready(());
            }
            state.root = Some(waker);
            Poll::Pending
        })
    }
}

/// The surroundings that processes on this thread find, from now on.
pub fn enter(surroundings: crate::environment::Surroundings) {
    flott_node::simulation::enter(Arc::new(surroundings));
}

/// Tells who looks what happens, and when.
#[expect(clippy::print_stderr, reason = "asked for by the one who looks")]
pub fn narrate(what: &str) {
    eprintln!("{:>9} ms  {what}", kernel::now() / kernel::MILLISECOND);
}

/// Whether nobody has panicked.
pub fn check_panics() -> Result<(), String> {
    match with(|kernel| kernel.panics.pop()) {
        Some(panic) => Err(format!("panic: {panic}")),
        None => Ok(()),
    }
}
