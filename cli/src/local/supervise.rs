//! The running cluster: which processes there are, starting, killing and stopping them.
//!
//! Each process has one task, which owns it and notices its end. All of them report to one state; `cluster.json` is
//! written from it under a lock, so that the file never goes back to an older list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::tls::Files;
use flott_node::{OnFailure, SharedClock, Tasks};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::layout::{Layout, Members};
use super::security::Security;
use super::{LocalOptions, ProcessInfo, Role, child};
use crate::Error;

/// A process killed by SIGKILL is gone within milliseconds; beyond this it hangs in the kernel.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between a child's end and its respawn: a child that cannot start must not keep the machine busy.
const RESPAWN_PAUSE: Duration = Duration::from_millis(500);

/// A cluster of child processes. Dropping it kills them.
#[derive(Debug)]
pub struct LocalCluster {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) members: Members,
    /// None: plain text.
    pub(super) security: Option<Security>,
    pub(super) options: LocalOptions,
    pub(super) clock: SharedClock,
    /// How long a child may take to end by itself.
    pub(super) shutdown_timeout: Duration,
    tasks: Tasks,
    state: watch::Sender<State>,
    /// Held while a process is started and while `cluster.json` is written.
    turn: Mutex<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether `cluster.json` is kept: from the moment when the cluster is ready.
    published: bool,
    stopping: bool,
    slots: BTreeMap<(Role, u32), Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    running: Option<(ProcessInfo, mpsc::Sender<Signal>)>,
    /// How the process before ended.
    ended: Option<String>,
}

impl State {
    fn processes(&self) -> Vec<ProcessInfo> {
        let running = self.slots.values().filter_map(|slot| slot.running.as_ref());
        running.map(|(info, _)| info.clone()).collect()
    }

    fn running(&self, process: (Role, u32)) -> Option<&(ProcessInfo, mpsc::Sender<Signal>)> {
        self.slots.get(&process)?.running.as_ref()
    }

    /// The first process that should run and does not, and how it ended.
    pub(super) fn first_ended(&self) -> Option<(String, String)> {
        let ended = self.slots.iter().find(|(_, slot)| slot.running.is_none());
        ended.map(|((role, number), slot)| {
            (
                format!("{}-{number}", role.verb()),
                slot.ended.clone().unwrap_or_default(),
            )
        })
    }
}

impl LocalCluster {
    pub(super) fn new(
        layout: Layout,
        members: Members,
        security: Option<Security>,
        options: LocalOptions,
        shutdown_timeout: Duration,
        clock: SharedClock,
    ) -> Self {
        let shared = Shared {
            layout,
            members,
            security,
            options,
            clock,
            shutdown_timeout,
            tasks: Tasks::default(),
            state: watch::Sender::default(),
            turn: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Where the JobManagers listen, `host:port` each, whether they run or not.
    pub fn jobmanager_addresses(&self) -> Vec<String> {
        self.shared.members.addresses()
    }

    /// With TLS: what a client shows.
    pub fn client_files(&self) -> Option<&Files> {
        self.shared.security.as_ref().map(Security::client)
    }

    /// The processes that run now, JobManagers first.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        self.shared.state.borrow().processes()
    }

    /// Ends a process by SIGKILL, and waits until it is gone.
    pub async fn kill(&self, name: &str) -> Result<(), Error> {
        let process = self.process(name)?;
        self.signal(name, Signal::KILL).await?;
        self.shared.await_end(&[process], KILL_WAIT_MAX).await;
        Ok(())
    }

    /// Sends a signal, such as `STOP` and `CONT`. An error if no such process runs.
    pub async fn signal(&self, name: &str, signal: Signal) -> Result<(), Error> {
        let process = self.process(name)?;
        let signals = self
            .shared
            .state
            .borrow()
            .running(process)
            .map(|(_, signals)| signals.clone());
        match signals {
            Some(signals) => {
                // An error means that it has just ended.
                let _ = signals.send(signal).await;
                Ok(())
            }
            None => Err(Error::Local(format!("{name} does not run"))),
        }
    }

    /// Starts a process that has ended, with its identity and files; a TaskManager registers under a new id.
    pub fn start_process(&self, name: &str) -> Result<ProcessInfo, Error> {
        self.shared.start(self.process(name)?)
    }

    /// Starts one more TaskManager; its name.
    pub fn add_taskmanager(&self) -> Result<String, Error> {
        let last = {
            let state = self.shared.state.borrow();
            let numbers = state
                .slots
                .keys()
                .filter(|(role, _)| *role == Role::TaskManager);
            numbers.map(|(_, number)| *number).max().unwrap_or(0)
        };
        self.shared
            .start((Role::TaskManager, last + 1))
            .map(|info| info.name)
    }

    /// Ends all processes in order: JobManagers first, so that the end of the TaskManagers is not taken for a failure.
    /// What does not end by itself is killed.
    pub async fn stop(&self) {
        let shared = &self.shared;
        shared.state.send_modify(|state| state.stopping = true);
        for role in [Role::JobManager, Role::TaskManager] {
            let processes = self
                .processes()
                .into_iter()
                .filter(|process| process.role == role);
            let names: Vec<_> = processes.map(|process| process.name).collect();
            let numbers: Vec<_> = names
                .iter()
                .filter_map(|name| self.process(name).ok())
                .collect();
            for name in &names {
                // An error means that it has ended by itself.
                let _ = self.signal(name, Signal::TERM).await;
            }
            // The child's own limit comes first, so that its log says what did not end.
            if !shared
                .await_end(&numbers, shared.shutdown_timeout + Duration::from_secs(2))
                .await
            {
                for name in &names {
                    let _ = self.signal(name, Signal::KILL).await;
                }
                shared.await_end(&numbers, KILL_WAIT_MAX).await;
            }
        }
        let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        shared.state.send_modify(|state| state.published = false);
        shared.layout.remove_cluster();
    }

    /// From `jobmanager-2` to its role and number.
    fn process(&self, name: &str) -> Result<(Role, u32), Error> {
        let parts = name
            .rsplit_once('-')
            .and_then(|(verb, number)| Some((verb, number.parse().ok()?)));
        match parts {
            Some(("jobmanager", number)) if number > 0 => Ok((Role::JobManager, number)),
            Some(("taskmanager", number)) if number > 0 => Ok((Role::TaskManager, number)),
            _ => Err(Error::Local(format!(
                "{name:?} is not a process name such as `jobmanager-1`"
            ))),
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.shared.state.send_modify(|state| {
            state.stopping = true;
            for slot in state.slots.values() {
                if let Some((_, signals)) = &slot.running {
                    // Full or closed: the process is being killed or gone, and its pipe closes in any case.
                    let _ = signals.try_send(Signal::KILL);
                }
            }
        });
    }
}

impl Shared {
    /// Starts a process that does not run, and the task that owns it.
    pub(super) fn start(self: &Arc<Self>, process: (Role, u32)) -> Result<ProcessInfo, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((info, _)) = self.state.borrow().running(process) {
            return Err(Error::Local(format!(
                "{} runs already as process {}",
                info.name, info.pid
            )));
        }
        let started = child::start(
            process.0,
            process.1,
            &self.layout,
            &self.members,
            self.security.as_ref(),
            &self.options,
        )?;
        let (info, signals) = (started.info, started.signals);
        info!(
            name = info.name,
            pid = info.pid,
            address = info.address,
            "process started"
        );
        self.state.send_modify(|state| {
            state.slots.entry(process).or_default().running = Some((info.clone(), signals));
        });
        let shared = self.clone();
        self.tasks.spawn("process", OnFailure::Log, async move {
            let ended = match started.owner.run().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("lost sight of it: {error}"),
            };
            shared.on_ended(process, ended).await
        });
        self.write_file()?;
        Ok(info)
    }

    /// A process is gone: tell, and start it again if that is wanted.
    async fn on_ended(self: &Arc<Self>, process: (Role, u32), ended: String) -> Result<(), Error> {
        {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.state.send_modify(|state| {
                let slot = state.slots.entry(process).or_default();
                if let Some((info, _)) = slot.running.take() {
                    if state.stopping {
                        info!(name = info.name, pid = info.pid, ended, "process stopped");
                    } else {
                        warn!(name = info.name, pid = info.pid, ended, "process ended");
                    }
                }
                slot.ended = Some(ended);
            });
            self.write_file()?;
        }
        if self.options.respawn {
            self.clock.sleep(RESPAWN_PAUSE).await;
            let wanted = {
                let state = self.state.borrow();
                !state.stopping && state.running(process).is_none()
            };
            if wanted {
                self.start(process)?;
            }
        }
        Ok(())
    }

    /// Waits until these processes have ended, at most for `limit`; whether they have.
    async fn await_end(&self, processes: &[(Role, u32)], limit: Duration) -> bool {
        let pids: Vec<_> = {
            let state = self.state.borrow();
            processes
                .iter()
                .filter_map(|process| Some((*process, state.running(*process)?.0.pid)))
                .collect()
        };
        let still = |state: &State, process, pid| {
            state
                .running(process)
                .is_some_and(|(info, _)| info.pid == pid)
        };
        let mut states = self.state.subscribe();
        let ended = states.wait_for(|state| {
            !pids
                .iter()
                .any(|(process, pid)| still(state, *process, *pid))
        });
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    /// From now on `cluster.json` says what runs.
    pub(super) fn publish(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.send_modify(|state| state.published = true);
        self.write_file()
    }

    /// What is known at this moment.
    pub(super) fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    /// Under the turn.
    fn write_file(&self) -> Result<(), Error> {
        let processes = {
            let state = self.state.borrow();
            if !state.published {
                return Ok(());
            }
            state.processes()
        };
        self.layout.write_cluster(&processes)
    }
}
