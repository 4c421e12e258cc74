//! A cluster that somebody else has, on machines of theirs: which processes it consists of, and a shell beside each.
//!
//! ```text
//! inventory ──open──▶ every shell is asked what its machine has ──▶ seats ──▶ scripts, through the shells
//! ```
//!
//! - [`inventory`]: the file that names them. [`presets`]: a first one, for ssh with systemd and for Kubernetes.
//! - [`scripts`]: what is said to a shell. [`shell`]: saying it, and what came back. [`probe`]: what a machine has.
//!
//! What must stay true: nothing is done to a process but to that whose number and birth were looked up in the same script by
//! the command that its owner has named; and whatever is done to a machine, the machine undoes by itself in the end.

pub mod inventory;
pub mod presets;
pub mod probe;
pub mod scripts;
pub mod shell;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;

use self::inventory::{Host, Inventory};
use self::probe::Machine;
use self::shell::Answer;
use super::Node;

/// For a script that waits for nothing but for itself.
pub const SHELL_BOUND: Duration = Duration::from_secs(20);

/// A process, and where it is.
#[derive(Clone, Debug)]
pub struct Seat {
    #[expect(missing_docs, reason = "as its owner has named it")]
    pub host: Host,
    /// By which the others see it.
    pub addresses: Vec<IpAddr>,
}

/// All processes of the cluster, JobManagers first.
#[derive(Clone, Debug)]
pub struct Remote {
    seats: Vec<Seat>,
}

impl Remote {
    /// Asks every machine what it has, at once; the cluster, or what has to be mended first.
    pub async fn open(inventory: &Inventory, shared: Option<&Path>) -> Result<Self, Vec<String>> {
        let mut seats = Vec::new();
        let mut missing = Vec::new();
        for (host, machine) in ask_all(inventory, shared).await {
            let found = machine.and_then(|machine| machine.seat(&host, shared));
            match found {
                Ok(addresses) => seats.push(Seat { host, addresses }),
                Err(why) => missing.push(format!("{}: {why}", host.node)),
            }
        }
        match missing.is_empty() {
            true => Ok(Self { seats }),
            false => Err(missing),
        }
    }

    /// The JobManager that the cluster knows by that address.
    pub fn at(&self, address: &str) -> Option<Node> {
        let mut seats = self.seats.iter();
        let found = seats.find(|seat| seat.host.known_as.as_deref() == Some(address));
        found.map(|seat| seat.host.node)
    }

    /// All processes.
    pub fn nodes(&self) -> Vec<Node> {
        self.seats.iter().map(|seat| seat.host.node).collect()
    }

    #[expect(missing_docs, reason = "its name says it")]
    pub fn jobmanagers(&self) -> Vec<Node> {
        let nodes = self.nodes().into_iter();
        nodes.filter(|node| node.is_jobmanager()).collect()
    }

    #[expect(missing_docs, reason = "its name says it")]
    pub fn taskmanagers(&self) -> Vec<Node> {
        let nodes = self.nodes().into_iter();
        nodes.filter(|node| !node.is_jobmanager()).collect()
    }

    /// Where that process is.
    pub fn seat(&self, node: Node) -> &Seat {
        let seat = self.seats.iter().find(|seat| seat.host.node == node);
        seat.expect("a node of this cluster")
    }

    /// The first process on the same machine, as far as addresses tell: it stands for the machine.
    pub fn machine(&self, node: Node) -> Node {
        let addresses = &self.seat(node).addresses;
        let shares = |seat: &&Seat| seat.addresses.iter().any(|one| addresses.contains(one));
        let first = self.seats.iter().find(shares);
        first.map_or(node, |seat| seat.host.node)
    }

    /// One process for each machine.
    pub fn machines(&self) -> Vec<Node> {
        let nodes = self.nodes().into_iter();
        nodes.filter(|node| self.machine(*node) == *node).collect()
    }

    /// Says that to the shell beside a process.
    pub async fn ask(&self, node: Node, script: &str, bound: Duration) -> Answer {
        shell::run(&self.seat(node).host.shell, script, bound).await
    }
}

/// What each machine has, or why it did not say.
pub async fn ask_all(
    inventory: &Inventory,
    shared: Option<&Path>,
) -> Vec<(Host, Result<Machine, String>)> {
    let one = async |host: &Host| {
        let script = scripts::probe::probe(host, shared);
        let machine = match shell::run(&host.shell, &script, SHELL_BOUND).await {
            Answer::Done(said) => Ok(Machine::of(&said)),
            Answer::Skipped(why) | Answer::Unclear(why) => Err(why),
        };
        (host.clone(), machine)
    };
    join_all(inventory.hosts.iter().map(one)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(node: Node, address: &str) -> Seat {
        let mut host = inventory::tests::host(node);
        host.known_as = node.is_jobmanager().then(|| format!("{address}:6123"));
        Seat {
            host,
            addresses: vec![address.parse().unwrap()],
        }
    }

    #[test]
    fn who_shares_an_address_is_on_the_same_machine() {
        let [one, two] = [1, 2].map(Node::Jobmanager);
        let [three, four] = [1, 2].map(Node::Taskmanager);
        let seats = vec![
            seat(one, "10.0.0.1"),
            seat(two, "10.0.0.2"),
            seat(three, "10.0.0.1"),
            seat(four, "10.0.0.4"),
        ];
        let remote = Remote { seats };
        assert_eq!(remote.at("10.0.0.2:6123"), Some(two));
        assert_eq!(remote.at("10.0.0.4:6123"), None);
        assert_eq!(remote.machine(three), one);
        assert_eq!(remote.machine(four), four);
        assert_eq!(remote.machines(), [one, two, four]);
    }
}
