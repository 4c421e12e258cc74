//! The file that names the processes of somebody's cluster: YAML, of which JSON is a part.
//!
//! ```yaml
//! slots: 4
//! hosts:
//!   - node: jobmanager-1
//!     known-as: 10.0.0.1:6123
//!     addresses: [10.0.0.1]
//!     shell: [ssh, -o, BatchMode=yes, root@10.0.0.1, sh, -s]
//!     pid: systemctl show --property MainPID --value flott-jobmanager
//!     start: systemctl start flott-jobmanager
//! ```
//!
//! An error names the place and what to write there instead. What must stay true: an inventory that was read has every
//! process once, numbered from 1 without gaps, as plans count them.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::target::Node;

/// As many as a plan can have.
const JOBMANAGERS_MAX: usize = 9;
const TASKMANAGERS_MAX: usize = 16;
/// Likewise.
const SLOTS_MAX: u32 = 64;

/// All processes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Of each TaskManager: no job of a plan takes more.
    pub slots: u32,
    /// JobManagers first, by their numbers.
    pub hosts: Vec<Host>,
}

/// A process, and the shell beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    #[expect(missing_docs, reason = "its name says it")]
    pub node: Node,
    /// Of a JobManager: the address by which the cluster knows it.
    pub known_as: Option<String>,
    /// By which the others see it. None: its machine is asked.
    pub addresses: Vec<IpAddr>,
    /// A program and its arguments that carry out a script from standard input, on the machine of the process.
    pub shell: Vec<String>,
    /// Prints the process's number there, and nothing or 0 if it does not run.
    pub pid: String,
    /// Starts it there. None: somebody does, as soon as it has ended.
    pub start: Option<String>,
}

/// As it is in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    #[serde(default = "one_slot")]
    slots: u32,
    hosts: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    node: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    known_as: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    shell: Vec<String>,
    pid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<String>,
}

fn one_slot() -> u32 {
    1
}

impl Inventory {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// What the text says.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        ensure!(
            !text.trim().is_empty(),
            "it is empty: `chaos hosts` prints what belongs there"
        );
        let file: File = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            let place =
                place.map(|place| format!("line {}, column {}: ", place.line(), place.column()));
            let words = error.without_snippet().to_string();
            let first = words.lines().next().unwrap_or("malformed");
            let first = first.trim_start_matches("error: ");
            anyhow::anyhow!("{}{first}", place.unwrap_or_default())
        })?;
        ensure!(
            (1..=SLOTS_MAX).contains(&file.slots),
            "slots: {} instead of 1 to {SLOTS_MAX}, the slots of each TaskManager",
            file.slots
        );
        let mut hosts = Vec::new();
        for entry in file.hosts {
            let name = entry.node.clone();
            hosts.push(host(entry).with_context(|| format!("hosts, {name}"))?);
        }
        hosts.sort_by_key(|host| host.node);
        check_numbers(&hosts)?;
        let known: Vec<_> = hosts
            .iter()
            .filter_map(|host| host.known_as.as_ref())
            .collect();
        for (index, address) in known.iter().enumerate() {
            ensure!(
                !known[..index].contains(address),
                "two JobManagers are known as {address}: each needs the address of its own"
            );
        }
        Ok(Self {
            slots: file.slots,
            hosts,
        })
    }

    /// As a file.
    pub fn text(&self) -> anyhow::Result<String> {
        let entry = |host: &Host| Entry {
            node: host.node.to_string(),
            known_as: host.known_as.clone(),
            addresses: host.addresses.iter().map(ToString::to_string).collect(),
            shell: host.shell.clone(),
            pid: host.pid.clone(),
            start: host.start.clone(),
        };
        let file = File {
            slots: self.slots,
            hosts: self.hosts.iter().map(entry).collect(),
        };
        Ok(serde_json::to_string_pretty(&file)?)
    }

    /// The addresses by which the cluster knows its JobManagers.
    pub fn jobmanagers(&self) -> Vec<String> {
        let hosts = self.hosts.iter();
        hosts.filter_map(|host| host.known_as.clone()).collect()
    }

    /// How many TaskManagers there are.
    pub fn taskmanagers(&self) -> usize {
        let hosts = self.hosts.iter();
        hosts.filter(|host| !host.node.is_jobmanager()).count()
    }
}

fn host(entry: Entry) -> anyhow::Result<Host> {
    let Some(node) = Node::named(&entry.node) else {
        bail!("node: write jobmanager-1, taskmanager-2 and so on");
    };
    let known_as = match (node.is_jobmanager(), entry.known_as) {
        (true, Some(address)) => {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            ensure!(
                matches!(port, Some(Ok(1..))),
                "known-as: {address:?} instead of HOST:PORT, as `flott cluster members list` shows it"
            );
            Some(address)
        }
        (true, None) => {
            bail!("known-as is missing: HOST:PORT, as `flott cluster members list` shows it")
        }
        (false, None) => None,
        (false, Some(_)) => bail!("known-as: only JobManagers have it; leave it out"),
    };
    let parse = |address: &String| {
        let parsed = address.parse::<IpAddr>();
        parsed.with_context(|| {
            format!("addresses: {address:?} is no IP address; names are not looked up")
        })
    };
    let addresses = entry.addresses.iter().map(parse);
    let program = entry.shell.first();
    ensure!(
        program.is_some_and(|program| !program.is_empty()),
        "shell: write a program and its arguments, such as [ssh, HOST, sh, -s]"
    );
    ensure!(
        !entry.pid.trim().is_empty(),
        "pid: write a command that prints the number of the process, such as `pgrep -x flott`"
    );
    ensure!(
        entry
            .start
            .as_ref()
            .is_none_or(|start| !start.trim().is_empty()),
        "start: write a command, or leave it out if a supervisor starts the process again"
    );
    Ok(Host {
        node,
        known_as,
        addresses: addresses.collect::<anyhow::Result<_>>()?,
        shell: entry.shell,
        pid: entry.pid,
        start: entry.start,
    })
}

/// `hosts` are in their order.
fn check_numbers(hosts: &[Host]) -> anyhow::Result<()> {
    for (is_jobmanager, name, most) in [
        (true, "jobmanager", JOBMANAGERS_MAX),
        (false, "taskmanager", TASKMANAGERS_MAX),
    ] {
        let nodes = hosts.iter().map(|host| host.node);
        let nodes: Vec<Node> = nodes
            .filter(|node| node.is_jobmanager() == is_jobmanager)
            .collect();
        ensure!(
            (1..=most).contains(&nodes.len()),
            "hosts: {} of {name}-N instead of 1 to {most}: name every process of the cluster",
            nodes.len()
        );
        for (number, node) in (1..).zip(&nodes) {
            ensure!(
                node.to_string() == format!("{name}-{number}"),
                "hosts: {node} where {name}-{number} was expected: number them from 1, each once"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One with a shell of this machine.
    pub(crate) fn host(node: Node) -> Host {
        Host {
            node,
            known_as: node.is_jobmanager().then(|| format!("{node}:6123")),
            addresses: Vec::new(),
            shell: vec!["sh".to_owned(), "-s".to_owned()],
            pid: "echo 0".to_owned(),
            start: None,
        }
    }

    const YAML: &str = "
slots: 4
hosts:
  # In any order.
  - node: taskmanager-1
    shell: [kubectl, exec, -i, flott-taskmanager-0, --, sh, -s]
    pid: pgrep -x flott
  - node: jobmanager-1
    known-as: 10.0.0.1:6123
    addresses: [10.0.0.1, 'fd00::1']
    shell: [ssh, -o, BatchMode=yes, root@10.0.0.1, sh, -s]
    pid: systemctl show --property MainPID --value flott-jobmanager
    start: systemctl start flott-jobmanager
";

    #[test]
    fn an_inventory_is_read_and_written_as_yaml_or_json() {
        let read = Inventory::parse(YAML).unwrap();
        assert_eq!((read.slots, read.taskmanagers()), (4, 1));
        assert_eq!(read.jobmanagers(), ["10.0.0.1:6123"]);
        let [one, two] = &read.hosts[..] else {
            panic!("{read:?}");
        };
        assert_eq!(one.node, Node::Jobmanager(1));
        assert_eq!(one.addresses.len(), 2);
        assert_eq!(one.shell[3], "root@10.0.0.1");
        assert!(one.start.is_some() && two.start.is_none());
        assert!(two.addresses.is_empty() && two.known_as.is_none());
        assert_eq!(Inventory::parse(&read.text().unwrap()).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_to_write_there() {
        let table: &[(&str, &str, &[&str])] = &[
            ("slots: 4", "slots: 0", &["slots: 0", "1 to 64"]),
            ("slots: 4", "slot: 4", &["line", "slot"]),
            ("pid: pgrep -x flott", "pids: 7", &["line", "pids"]),
            ("    pid: pgrep -x flott\n", "", &["pid"]),
            ("pgrep -x flott", "' '", &["taskmanager-1", "pid:", "pgrep"]),
            (
                "known-as: 10.0.0.1:6123",
                "known-as: 10.0.0.1",
                &["jobmanager-1", "known-as", "HOST:PORT"],
            ),
            (
                "    known-as: 10.0.0.1:6123\n",
                "",
                &["jobmanager-1", "known-as is missing", "HOST:PORT"],
            ),
            (
                "10.0.0.1, 'fd00::1'",
                "db1",
                &["jobmanager-1", "addresses", "db1", "names are not"],
            ),
            (
                "[ssh, -o, BatchMode=yes, root@10.0.0.1, sh, -s]",
                "[]",
                &["jobmanager-1", "shell:", "sh, -s"],
            ),
            (
                "node: taskmanager-1",
                "node: worker-1",
                &["worker-1", "node:", "taskmanager-2"],
            ),
            (
                "node: taskmanager-1",
                "node: taskmanager-01",
                &["taskmanager-01", "node:"],
            ),
            (
                "node: taskmanager-1",
                "node: taskmanager-2",
                &["taskmanager-1 was expected", "from 1"],
            ),
            (
                "node: taskmanager-1",
                "node: jobmanager-1",
                &["jobmanager-1", "known-as is missing"],
            ),
            ("slots: 4", "slots: [", &["line"]),
            (YAML, "hosts: []", &["0 of jobmanager-N", "1 to 9"]),
            (YAML, "", &["empty", "chaos hosts"]),
        ];
        for (was, is, wanted) in table {
            let text = YAML.replace(was, is);
            assert_ne!(text, YAML, "{was} is not in it");
            let error = format!("{:#}", Inventory::parse(&text).unwrap_err());
            for words in *wanted {
                assert!(error.contains(words), "{words:?} is not said: {error}");
            }
        }
        let twice = YAML.replace(
            "node: taskmanager-1",
            "node: jobmanager-2\n    known-as: 10.0.0.1:6123",
        );
        let error = Inventory::parse(&twice).unwrap_err().to_string();
        assert!(error.contains("0 of taskmanager-N"), "{error}");
    }
}
