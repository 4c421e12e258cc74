//! A network of its own for each process of a cluster: namespaces with one interface each, joined by a switch in this
//! process. Needs root; see [`missing`].
//!
//! ```text
//!  chaos ── ctPID-254, 10.77.X.254 ─┐                    ┌─ eth0 10.77.X.1   (namespace chaos-PID-jobmanager-1)
//!  clients, object store            ├── Switch, seeded ──┼─ eth0 10.77.X.2   (namespace chaos-PID-jobmanager-2)
//!                                   ┘   in user space    └─ eth0 10.77.X.101 (namespace chaos-PID-taskmanager-1)
//! ```
//!
//! - [`switch`]: what becomes of a frame. Pure. [`traffic`]: carries frames. [`tap`]: the interfaces' other ends.
//!   [`names`]: of namespaces and interfaces, and their removal.
//!
//! The kernel has no netem here, and needs none: below its own TCP, frames are cut, late, lost, doubled and overtaken by what
//! this process decides. What must stay true: nothing but the ends of this network can be reached by it, for its cables are in
//! this process alone; and nothing of it outlives this process but names, which the journal of the run knows
//! ([`crate::campaign::undo`]).

pub mod names;
pub mod switch;
pub mod tap;
pub mod traffic;

use std::fmt::Write;
use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_chaos_basis::random::Random;
use flott_node::{OnFailure, SharedClock, Tasks};
use rustix::process::geteuid;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

use self::switch::{Switch, Tally, hardware_address};
use self::tap::Tap;
use self::traffic::{Event, MAILBOX_FRAMES, Traffic};
use super::Node;
use super::rules::{End, Rules};
use crate::cluster::probe::lacking;
use crate::cluster::room::{command, feed};

/// The harness's number: the last that a machine can have.
const HARNESS: u8 = 254;
/// JobManagers have the numbers below, TaskManagers those above.
const TASKMANAGERS_FROM: u8 = 100;
/// For the tasks that carry frames to end.
const END_BOUND: Duration = Duration::from_secs(5);

/// What this machine lacks for such a network; `None` if it has everything.
pub async fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("network namespaces with devices of ours need root".to_owned());
    }
    let tun = OpenOptions::new().read(true).write(true).open(tap::DEVICE);
    if let Err(error) = tun {
        return Some(format!("{}: {error}", tap::DEVICE));
    }
    let script = "type ip nsenter ss >&2 && unshare --net true";
    let mut probe = Command::new("sh");
    probe.args(["-c", script]);
    lacking(&mut probe, |why| {
        format!("{why} (needed: ip, nsenter, ss, and the right to make network namespaces)")
    })
    .await
}

/// The network, laid.
#[derive(Debug)]
pub struct Lan {
    /// What is done to frames of a pair.
    pub rules: Rules,
    /// Third number of all addresses.
    subnet: u8,
    events: mpsc::Sender<Event>,
    tally: watch::Receiver<Tally>,
    tasks: Tasks,
}

impl Lan {
    /// A network with the harness in it and nobody else. `random` decides what becomes of frames under rules.
    pub async fn lay(random: Random, clock: SharedClock) -> anyhow::Result<Self> {
        let (events, mailbox) = mpsc::channel(MAILBOX_FRAMES);
        let (tell, tally) = watch::channel(Tally::default());
        let rules = Rules::default();
        let tasks = Tasks::default();
        let traffic = Traffic {
            switch: Switch::new(random),
            events: mailbox,
            rules: rules.watch(),
            tally: tell,
            clock,
        };
        tasks.spawn("switch", OnFailure::Log, traffic.run(tasks.clone()));
        let lan = Self {
            rules,
            subnet: free_subnet().await?,
            events,
            tally,
            tasks,
        };
        let interface = names::interface(std::process::id(), HARNESS);
        let tap = Tap::open(&interface)?;
        let batch = lan.batch_of(HARNESS, &interface);
        feed("ip", ["-batch", "-"], &batch).await?;
        lan.join(End::Harness, HARNESS, tap).await?;
        Ok(lan)
    }

    /// Where the harness is reached from within the network.
    pub fn harness(&self) -> Ipv4Addr {
        self.address_of(HARNESS)
    }

    /// Makes the namespace of a process that is to be; its address.
    pub async fn connect(&self, node: Node) -> anyhow::Result<Ipv4Addr> {
        let host = host_of(node)?;
        let pid = std::process::id();
        let (namespace, interface) = (names::namespace(pid, node), names::interface(pid, host));
        command("ip", ["netns", "add", &namespace]).await?;
        let tap = Tap::open(&interface)?;
        let moved = [
            "link", "set", "dev", &interface, "netns", &namespace, "name", "eth0",
        ];
        command("ip", moved).await?;
        let batch = format!("link set lo up\n{}", self.batch_of(host, "eth0"));
        feed("ip", ["-n", &namespace, "-batch", "-"], &batch).await?;
        self.join(node.into(), host, tap).await?;
        Ok(self.address_of(host))
    }

    /// Begins a command that is to run in the namespace of `node`: as that very process, for `nsenter` becomes it.
    pub fn command(&self, node: Node, program: &Path) -> Command {
        let namespace = names::path(&names::namespace(std::process::id(), node));
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", namespace.display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Has the kernel break all connections of `node`, as one does who pulls the plug of a line that others hold; how many.
    pub async fn reset(&self, node: Node) -> anyhow::Result<usize> {
        let output = self
            .command(node, Path::new("ss"))
            .args(["--kill", "--tcp", "--numeric", "--no-header"])
            .stdin(Stdio::null())
            .output()
            .await
            .context("cannot start nsenter")?;
        // It lists what it broke.
        let listed = String::from_utf8_lossy(&output.stdout);
        Ok(listed.lines().filter(|line| !line.is_empty()).count())
    }

    /// What was done to frames until now.
    pub fn tally(&self) -> Tally {
        *self.tally.borrow()
    }

    /// Removes everything. No process may be in it any more.
    pub async fn take_down(&self) -> anyhow::Result<()> {
        let ended = self.tasks.shutdown(END_BOUND).await;
        ended.map_err(anyhow::Error::msg)?;
        names::remove_all(std::process::id()).map(drop)
    }

    async fn join(&self, end: End, host: u8, tap: Tap) -> anyhow::Result<()> {
        let tap = Arc::new(tap);
        let joined = Event::Joined(end, host, Arc::clone(&tap));
        self.events
            .send(joined)
            .await
            .ok()
            .context("the switch has ended")?;
        traffic::listen(&self.tasks, end, tap, self.events.clone());
        Ok(())
    }

    fn address_of(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, host)
    }

    /// What `ip` is told about an interface. Who is where is known for good: see [`switch`].
    fn batch_of(&self, host: u8, interface: &str) -> String {
        let own = self.address_of(host);
        let mut batch = format!(
            "link set dev {interface} address {}\naddr add {own}/24 dev {interface}\nlink set {interface} up\n",
            text_of(hardware_address(host))
        );
        for other in (1..=HARNESS).filter(|other| *other != host) {
            // Writing to a string cannot fail.
            let _ = writeln!(
                batch,
                "neigh add {} lladdr {} dev {interface} nud permanent",
                self.address_of(other),
                text_of(hardware_address(other))
            );
        }
        batch
    }
}

/// The number of the machine on which that process is.
fn host_of(node: Node) -> anyhow::Result<u8> {
    let (number, base, end) = match node {
        Node::Jobmanager(number) => (number, 0, TASKMANAGERS_FROM),
        Node::Taskmanager(number) => (number, TASKMANAGERS_FROM, HARNESS),
    };
    let host = u8::try_from(number)
        .ok()
        .and_then(|number| base.checked_add(number));
    host.filter(|host| number > 0 && *host < end)
        .with_context(|| format!("there is no address for {node} any more"))
}

fn text_of(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// The first X, from this process's number on, for which nothing of this machine is in 10.77.X.0/24.
async fn free_subnet() -> anyhow::Result<u8> {
    let begin = std::process::id() as u8;
    for offset in 0..=u8::MAX {
        let subnet = begin.wrapping_add(offset);
        let within = format!("10.77.{subnet}.0/24");
        let output = Command::new("ip")
            .args(["-4", "route", "show", "to", "root", &within])
            .stdin(Stdio::null())
            .output()
            .await
            .context("cannot start ip")?;
        ensure!(
            output.status.success(),
            "ip does not tell the machine's routes: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        if output.stdout.is_empty() {
            return Ok(subnet);
        }
    }
    anyhow::bail!("this machine has routes to all of 10.77.0.0/16: no addresses are left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_an_address_of_its_own_as_long_as_there_are_any() {
        let jobmanager = |number| host_of(Node::Jobmanager(number)).ok();
        let taskmanager = |number| host_of(Node::Taskmanager(number)).ok();
        assert_eq!([1, 99].map(jobmanager), [Some(1), Some(99)]);
        assert_eq!([1, 153].map(taskmanager), [Some(101), Some(253)]);
        for beyond in [0, 100, 256, 1_000] {
            assert_eq!(jobmanager(beyond), None, "{beyond}");
        }
        for beyond in [0, 154, 155, 1_000] {
            assert_eq!(taskmanager(beyond), None, "{beyond}");
        }
        let refused = host_of(Node::Jobmanager(100)).unwrap_err();
        assert!(refused.to_string().contains("jobmanager-100"), "{refused}");
        assert_eq!(text_of(hardware_address(254)), "02:00:00:00:00:fe");
    }
}
