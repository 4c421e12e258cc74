//! First inventories, for the usual ways to run a cluster. Pure; to be read, and changed where a cluster is another.

use std::net::IpAddr;

use super::inventory::{Host, Inventory};
use crate::target::Node;

/// Between the tries of `ssh` to connect; beyond that the fault is not done.
const SSH: [&str; 5] = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"];
/// Prints the number of the only process of Flott that the shell sees.
const ONLY_FLOTT: &str = "pgrep -x flott";

/// Machines that are reached by `ssh`, where systemd runs Flott.
#[derive(Clone, Debug)]
pub struct Systemd {
    /// For `ssh`, with what the others see it by.
    pub jobmanagers: Vec<(String, Vec<IpAddr>)>,
    #[expect(missing_docs, reason = "likewise")]
    pub taskmanagers: Vec<(String, Vec<IpAddr>)>,
    /// Of all JobManagers.
    pub port: u16,
    /// Units of JobManagers and of TaskManagers.
    pub units: [String; 2],
    /// Whether the login is not root, and may become it.
    pub sudo: bool,
    #[expect(missing_docs, reason = "of each TaskManager")]
    pub slots: u32,
}

impl Systemd {
    #[expect(missing_docs, reason = "its name says it")]
    pub fn inventory(&self) -> Inventory {
        let host = |node: Node, (login, addresses): &(String, Vec<IpAddr>), unit: &str| {
            let mut shell: Vec<String> = SSH.map(str::to_owned).to_vec();
            shell.push(login.clone());
            let become_root: &[&str] = if self.sudo { &["sudo", "-n"] } else { &[] };
            shell.extend(
                [become_root, &["sh", "-s"]]
                    .concat()
                    .into_iter()
                    .map(str::to_owned),
            );
            let name = name_in(login);
            Host {
                node,
                known_as: node
                    .is_jobmanager()
                    .then(|| format!("{}:{}", bracketed(name), self.port)),
                addresses: addresses.clone(),
                shell,
                pid: format!("systemctl show --property MainPID --value {unit}"),
                // Units that were killed too often are not started any more, unless that is forgotten.
                start: Some(format!(
                    "systemctl reset-failed {unit}; systemctl start {unit}"
                )),
            }
        };
        let [of_jobmanagers, of_taskmanagers] = &self.units;
        let jobmanagers = (1..).map(Node::Jobmanager).zip(&self.jobmanagers);
        let taskmanagers = (1..).map(Node::Taskmanager).zip(&self.taskmanagers);
        Inventory {
            slots: self.slots,
            hosts: jobmanagers
                .map(|(node, machine)| host(node, machine, of_jobmanagers))
                .chain(taskmanagers.map(|(node, machine)| host(node, machine, of_taskmanagers)))
                .collect(),
        }
    }
}

/// The machine of `user@machine`.
pub fn name_in(login: &str) -> &str {
    login.rsplit_once('@').map_or(login, |(_, name)| name)
}

/// As it stands before a port.
fn bracketed(name: &str) -> String {
    match name.contains(':') {
        true => format!("[{name}]"),
        false => name.to_owned(),
    }
}

/// Pods of two StatefulSets, with a container beside Flott that shares its processes and its network.
#[derive(Clone, Debug)]
pub struct Pods {
    #[expect(missing_docs, reason = "its name says it")]
    pub namespace: String,
    /// The StatefulSets of JobManagers and of TaskManagers.
    pub sets: [String; 2],
    #[expect(missing_docs, reason = "how many")]
    pub jobmanagers: u32,
    #[expect(missing_docs, reason = "how many")]
    pub taskmanagers: u32,
    /// The address by which the cluster knows the JobManager in `{pod}`.
    pub known_as: String,
    /// The one beside Flott.
    pub container: String,
    #[expect(missing_docs, reason = "of each TaskManager")]
    pub slots: u32,
}

impl Pods {
    #[expect(missing_docs, reason = "its name says it")]
    pub fn inventory(&self) -> Inventory {
        let host = |node: Node, pod: String| {
            let shell = [
                "kubectl",
                "exec",
                "-i",
                "-n",
                &self.namespace,
                &pod,
                "-c",
                &self.container,
                "--",
                "sh",
                "-s",
            ];
            Host {
                node,
                known_as: node
                    .is_jobmanager()
                    .then(|| self.known_as.replace("{pod}", &pod)),
                // A pod knows its own, and may have another tomorrow.
                addresses: Vec::new(),
                shell: shell.map(str::to_owned).to_vec(),
                pid: ONLY_FLOTT.to_owned(),
                // The kubelet does.
                start: None,
            }
        };
        let [of_jobmanagers, of_taskmanagers] = &self.sets;
        let jobmanagers = (0..self.jobmanagers).map(|number| {
            let pod = format!("{of_jobmanagers}-{number}");
            host(Node::Jobmanager(number + 1), pod)
        });
        let taskmanagers = (0..self.taskmanagers).map(|number| {
            let pod = format!("{of_taskmanagers}-{number}");
            host(Node::Taskmanager(number + 1), pod)
        });
        Inventory {
            slots: self.slots,
            hosts: jobmanagers.chain(taskmanagers).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_an_inventory_that_can_be_read() {
        let systemd = Systemd {
            jobmanagers: vec![(
                "root@10.0.0.1".to_owned(),
                vec!["10.0.0.1".parse().unwrap()],
            )],
            taskmanagers: vec![("worker".to_owned(), vec!["10.0.0.4".parse().unwrap()])],
            port: 6123,
            units: ["flott-jobmanager", "flott-taskmanager"].map(str::to_owned),
            sudo: true,
            slots: 2,
        };
        let pods = Pods {
            namespace: "flott".to_owned(),
            sets: ["flott-jobmanager", "flott-taskmanager"].map(str::to_owned),
            jobmanagers: 3,
            taskmanagers: 2,
            known_as: "{pod}.flott-jobmanager:6123".to_owned(),
            container: "chaos".to_owned(),
            slots: 2,
        };
        for inventory in [systemd.inventory(), pods.inventory()] {
            let read = Inventory::parse(&inventory.text().unwrap()).unwrap();
            assert_eq!(read, inventory);
        }
        let hosts = systemd.inventory().hosts;
        assert_eq!(hosts[0].known_as.as_deref(), Some("10.0.0.1:6123"));
        assert_eq!(hosts[1].shell[5..], ["worker", "sudo", "-n", "sh", "-s"]);
        assert!(hosts[1].pid.ends_with("flott-taskmanager"));
        let hosts = pods.inventory().hosts;
        assert_eq!(
            hosts[2].known_as.as_deref(),
            Some("flott-jobmanager-2.flott-jobmanager:6123")
        );
        assert_eq!(
            hosts[3].shell.join(" "),
            "kubectl exec -i -n flott flott-taskmanager-0 -c chaos -- sh -s"
        );
        assert_eq!(
            (name_in("a@b"), bracketed("fd00::1").as_str()),
            ("b", "[fd00::1]")
        );
    }
}
