//! Which program each process runs, where there are two: a rolling upgrade, and back. Pure.
//!
//! A build is installed for a process while it runs; it runs it from its next start on, whoever starts it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::target::Node;

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// What every process begins with, and the command line.
    pub first: PathBuf,
    /// What a rolling upgrade goes to. None: there is none.
    pub other: Option<PathBuf>,
}

/// One of the [`Programs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Build {
    #[default]
    First,
    Other,
}

/// What is installed for whom.
#[derive(Debug)]
pub(super) struct Rollout {
    programs: Programs,
    installed: BTreeMap<Node, Build>,
    /// What is being installed, and what a process begins with that comes anew.
    under_way: Build,
}

impl Rollout {
    pub(super) fn new(programs: Programs) -> Self {
        Self {
            programs,
            installed: BTreeMap::new(),
            under_way: Build::default(),
        }
    }

    /// What a process runs when it is started now.
    pub(super) fn program(&mut self, node: Node) -> &Path {
        let build = *self.installed.entry(node).or_insert(self.under_way);
        match (build, &self.programs.other) {
            (Build::Other, Some(other)) => other,
            _ => &self.programs.first,
        }
    }

    /// Installs what is under way for the next of `nodes`, in their order: `amount` of them, 0: all that lack it. If nobody
    /// lacks it, the other build is under way from now on. Who they are; nobody if there is one program only.
    pub(super) fn install_for_next(&mut self, nodes: &[Node], amount: usize) -> Vec<Node> {
        if self.programs.other.is_none() {
            return Vec::new();
        }
        let mut next = self.lacking(nodes);
        if next.is_empty() {
            self.under_way = match self.under_way {
                Build::First => Build::Other,
                Build::Other => Build::First,
            };
            next = self.lacking(nodes);
        }
        if amount > 0 {
            next.truncate(amount);
        }
        let under_way = self.under_way;
        self.installed
            .extend(next.iter().map(|node| (*node, under_way)));
        next
    }

    fn lacking(&self, nodes: &[Node]) -> Vec<Node> {
        let lacks = |node: &&Node| {
            let build = self.installed.get(node);
            build.is_some_and(|build| *build != self.under_way)
        };
        nodes.iter().filter(lacks).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_passes_through_every_mix_and_goes_back() {
        let nodes = [
            Node::Jobmanager(1),
            Node::Jobmanager(2),
            Node::Taskmanager(1),
        ];
        let mut rollout = Rollout::new(Programs {
            first: "first".into(),
            other: Some("other".into()),
        });
        let programs = |rollout: &mut Rollout, nodes: &[Node]| -> String {
            let first_letter = |node: &Node| match rollout.program(*node) == Path::new("first") {
                true => 'f',
                false => 'o',
            };
            nodes.iter().map(first_letter).collect()
        };
        assert_eq!(programs(&mut rollout, &nodes), "fff");
        for (amount, installed, mix) in [
            (1, &nodes[..1], "off"),
            (1, &nodes[1..2], "oof"),
            (2, &nodes[2..], "ooo"),
            (2, &nodes[..2], "ffo"),
            (0, &nodes[2..], "fff"),
            (0, &nodes[..], "ooo"),
        ] {
            assert_eq!(rollout.install_for_next(&nodes, amount), installed);
            assert_eq!(programs(&mut rollout, &nodes), mix);
        }
        let new = [Node::Jobmanager(3)];
        assert_eq!(programs(&mut rollout, &new), "o", "as the others by now");
    }

    #[test]
    fn without_another_program_there_is_nothing_to_install() {
        let nodes = [Node::Jobmanager(1)];
        let mut rollout = Rollout::new(Programs {
            first: "first".into(),
            other: None,
        });
        assert_eq!(rollout.program(nodes[0]), Path::new("first"));
        assert!(rollout.install_for_next(&nodes, 0).is_empty());
    }
}
