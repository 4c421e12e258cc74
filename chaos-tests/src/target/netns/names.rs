//! Names of network namespaces and interfaces: with the number of the process that made them, so that runs beside each
//! other and what is left of a dead one are told apart.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::target::Node;

/// Where `ip netns` keeps names: a file each.
const DIRECTORY: &str = "/run/netns";

/// Begins the names of all namespaces of that process.
fn prefix(pid: u32) -> String {
    format!("chaos-{pid}-")
}

/// The namespace of a process of the cluster.
pub fn namespace(pid: u32, node: Node) -> String {
    format!("{}{node}", prefix(pid))
}

/// Where a namespace is entered.
pub fn path(namespace: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(namespace)
}

/// An interface, as long as it is among those of the machine. At most 13 characters, of 15 that there may be.
pub fn interface(pid: u32, host: u8) -> String {
    format!("ct{pid}-{host}")
}

/// Namespaces that are there of that process.
pub fn left_by(pid: u32) -> anyhow::Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        // Nobody has made any since the machine started.
        return Ok(Vec::new());
    };
    let prefix = prefix(pid);
    let mut left = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            left.push(name);
        }
    }
    left.sort_unstable();
    Ok(left)
}

/// Removes all namespaces of that process; how many. What still runs in one keeps it, without a name, until it ends. The
/// devices are gone already: they go with the process that held them.
pub fn remove_all(pid: u32) -> anyhow::Result<usize> {
    let left = left_by(pid)?;
    for name in &left {
        let output = Command::new("ip")
            .args(["netns", "del", name])
            .stdin(Stdio::null())
            .output()
            .context("cannot start ip")?;
        ensure!(
            output.status.success(),
            "cannot remove the network namespace {name}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_enough_and_of_one_process_alone() {
        assert_eq!(interface(4_194_304, 254).len(), 13);
        let name = namespace(12, Node::Taskmanager(3));
        assert_eq!(name, "chaos-12-taskmanager-3");
        assert!(!name.starts_with(&prefix(1)));
    }
}
