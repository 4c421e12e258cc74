//! What a machine has, as its shell says: for people, and for a run to know whether it can begin.

use std::net::IpAddr;
use std::path::Path;

use super::inventory::Host;
use super::scripts::probe::ABILITIES;
use super::shell::Said;

/// What a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The user of the shell, by number. 0: root.
    pub user: String,
    /// The number of the process and its birth, or why there is none that may be struck.
    pub process: Result<String, String>,
    /// Its addresses, if it was asked.
    pub addresses: String,
    /// From where the shell comes, if by ssh.
    pub from: String,
    /// Whether it has the file that it was asked for.
    pub shares: bool,
    /// What can be done there, or why not.
    pub abilities: Vec<(&'static str, String)>,
}

impl Machine {
    /// What a probe has said.
    pub fn of(said: &Said) -> Self {
        let value = |name: &str| said.value(name).unwrap_or_default().to_owned();
        let process = said.value("process").map(str::to_owned);
        let abilities = ABILITIES.iter();
        Self {
            user: value("user"),
            process: process.ok_or_else(|| value("no-process")),
            addresses: value("addresses"),
            from: value("from"),
            shares: said.value("shares") == Some("yes"),
            abilities: abilities.map(|(name, _)| (*name, value(name))).collect(),
        }
    }

    /// By which addresses the others see the process; or what has to be mended before a run.
    pub fn seat(&self, host: &Host, shared: Option<&Path>) -> Result<Vec<IpAddr>, String> {
        if let Err(why) = &self.process {
            return Err(format!(
                "{why}; `pid` has to print the number of the process, and the shell's user may have to be root: {}",
                host.pid
            ));
        }
        if let Some(shared) = shared.filter(|_| !self.shares && !host.node.is_jobmanager()) {
            return Err(format!(
                "it does not see {}: `seq` needs a --directory that all TaskManagers have, too; or leave it out by --workloads register,jobs",
                shared.display()
            ));
        }
        self.addresses_of(host)
    }

    /// Those that its owner has named, else those that its machine says.
    fn addresses_of(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        if !host.addresses.is_empty() {
            return Ok(host.addresses.clone());
        }
        let words = self.addresses.split_whitespace();
        let parsed: Result<Vec<_>, _> = words.map(str::parse::<IpAddr>).collect();
        let mut addresses = parsed.unwrap_or_default();
        addresses.retain(|address: &IpAddr| !address.is_loopback());
        match addresses.is_empty() {
            false => Ok(addresses),
            true => Err(format!(
                "its machine says {:?} when it is asked for its addresses: name those by which the others see it, as `addresses`",
                self.addresses
            )),
        }
    }

    /// As a person reads it.
    pub fn text(&self, host: &Host) -> String {
        let user = match self.user.as_str() {
            "0" => "root".to_owned(),
            user => format!("user {user}, not root"),
        };
        let process = match &self.process {
            Ok(process) => {
                let pid = process.split_whitespace().next().unwrap_or_default();
                format!("process {pid}")
            }
            Err(why) => format!("NO PROCESS: {why}"),
        };
        let addresses = match self.addresses_of(host) {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                addresses.join(", ")
            }
            Err(why) => format!("NO ADDRESS: {why}"),
        };
        let start = match &host.start {
            Some(start) => format!("started by `{start}`"),
            None => "started by a supervisor".to_owned(),
        };
        let is_there = |(_, what): &&(&str, String)| what == "ok";
        let (has, lacks): (Vec<_>, Vec<_>) = self.abilities.iter().partition(is_there);
        let has: Vec<_> = has.iter().map(|(name, _)| *name).collect();
        let mut text = format!(
            "{process}, {user}, at {addresses}; {start}\n  has {}",
            if has.is_empty() {
                "nothing".to_owned()
            } else {
                has.join(", ")
            }
        );
        for (name, why) in lacks {
            text += &format!("\n  no {name}: {why}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::inventory::tests::host;
    use super::*;
    use crate::target::Node;

    fn machine() -> Machine {
        Machine {
            user: "0".to_owned(),
            process: Ok("17 4711".to_owned()),
            addresses: "127.0.1.1 10.0.0.4".to_owned(),
            from: String::new(),
            shares: true,
            abilities: vec![
                ("iptables", "ok".to_owned()),
                ("netem", "unknown kind".to_owned()),
            ],
        }
    }

    #[test]
    fn what_has_to_be_mended_before_a_run_is_said() {
        let [one, two] = [Node::Jobmanager(1), Node::Taskmanager(1)].map(host);
        let file = Path::new("/shared/file");
        let seat = |machine: &Machine, host: &Host| machine.seat(host, Some(file));
        let address: IpAddr = "10.0.0.4".parse().unwrap();
        assert_eq!(seat(&machine(), &two), Ok(vec![address]));
        let mut named = two.clone();
        named.addresses = vec!["127.0.0.1".parse().unwrap()];
        assert_eq!(seat(&machine(), &named).unwrap(), named.addresses);

        let alone = Machine {
            shares: false,
            ..machine()
        };
        assert!(seat(&alone, &one).is_ok());
        let gone = Machine {
            process: Err("it does not run".to_owned()),
            ..machine()
        };
        let lost = Machine {
            addresses: "hostname: not found".to_owned(),
            ..machine()
        };
        for (machine, words) in [
            (&alone, "/shared/file"),
            (&gone, "echo 0"),
            (&lost, "`addresses`"),
        ] {
            let why = seat(machine, &two).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        let text = machine().text(&two);
        for words in [
            "process 17, root, at 10.0.0.4",
            "supervisor",
            "has iptables",
            "no netem: unknown kind",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
