//! What became of a step that several shells had a part in. Pure.

use std::collections::BTreeSet;

use crate::campaign::strike::{NOT_RUNNING, Outcome};
use crate::target::Node;
use crate::target::remote::shell::Answer;

/// What became of what one shell was told.
#[derive(Debug)]
pub(super) struct Became {
    /// Beside that process.
    pub(super) at: Node,
    /// Whom it was to strike.
    pub(super) nodes: Vec<Node>,
    pub(super) applied: Answer,
    /// None: there was nothing to undo, or it undid itself.
    pub(super) undone: Option<Answer>,
}

/// All that became of a step. `whole`: half of it is nothing.
pub(super) fn outcome_of(became: &[Became], whole: bool, leader: Option<Node>) -> Outcome {
    let mut nodes = BTreeSet::new();
    let mut skipped = None;
    let mut packets: Option<u64> = None;
    for Became {
        at,
        nodes: struck,
        applied,
        undone,
    } in became
    {
        match (applied, undone) {
            (Answer::Unclear(why), _) => return Outcome::Indeterminate(format!("{at}: {why}")),
            (_, Some(Answer::Skipped(why) | Answer::Unclear(why))) => {
                let why = format!("{at}: it may not be undone: {why}");
                return Outcome::Indeterminate(why);
            }
            (Answer::Skipped(why), _) => drop(skipped.get_or_insert(format!("{at}: {why}"))),
            (Answer::Done(said), undone) => {
                let last = match undone {
                    Some(Answer::Done(said)) => said,
                    _ => said,
                };
                if last.value("gone").is_some() {
                    let why = format!("{at}: somebody else had undone it before its time");
                    return Outcome::Indeterminate(why);
                }
                if let Some(met) = last.number::<u64>("packets") {
                    packets = Some(packets.unwrap_or(0) + met);
                }
                nodes.extend(struck.iter().copied());
            }
        }
    }
    match skipped {
        Some(why) if whole || nodes.is_empty() => Outcome::Skipped(why),
        _ if nodes.is_empty() => Outcome::skipped(NOT_RUNNING),
        _ if packets == Some(0) => Outcome::skipped("it met no packet"),
        _ => {
            let led = leader.is_some_and(|leader| nodes.contains(&leader));
            Outcome::installed(nodes.into_iter().collect(), led)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::remote::shell::Said;

    const ONE: Node = Node::Jobmanager(1);
    const TWO: Node = Node::Jobmanager(2);

    /// What a shell said, in its own lines.
    fn said(lines: &str) -> Said {
        match crate::target::remote::shell::understood(lines, "") {
            Answer::Done(said) => said,
            other => panic!("{other:?}"),
        }
    }

    fn done(lines: &str) -> Answer {
        Answer::Done(said(&format!("{lines}\nchaos done\n")))
    }

    fn became(at: Node, applied: Answer, undone: Option<Answer>) -> Became {
        let nodes = vec![at];
        Became {
            at,
            nodes,
            applied,
            undone,
        }
    }

    #[test]
    fn a_step_is_installed_only_if_every_shell_has_said_so() {
        let lost = || Answer::Unclear("connection lost".to_owned());
        let lacks = || Answer::Skipped("there is no iptables".to_owned());
        let met = |packets: u64| done(&format!("chaos value packets {packets}"));
        let gone = || done("chaos value gone yes\nchaos value packets 0");
        let fine = |at| became(at, done(""), Some(met(7)));
        let installed = |nodes: &[Node]| Outcome::installed(nodes.to_vec(), nodes.contains(&ONE));
        // What became of it; whether half of it is nothing; the outcome, or words of why not.
        let table: Vec<(Vec<Became>, bool, Result<Outcome, &str>)> = vec![
            (vec![fine(TWO), fine(ONE)], true, Ok(installed(&[ONE, TWO]))),
            (
                vec![fine(TWO), became(ONE, lacks(), None)],
                false,
                Ok(installed(&[TWO])),
            ),
            (
                vec![fine(TWO), became(ONE, lacks(), None)],
                true,
                Err("SKIPPED jobmanager-1: there is no iptables"),
            ),
            (
                vec![became(ONE, lacks(), None)],
                false,
                Err("SKIPPED jobmanager-1: there is no iptables"),
            ),
            (
                vec![fine(TWO), became(ONE, lost(), Some(gone()))],
                true,
                Err("UNCLEAR jobmanager-1: connection lost"),
            ),
            (
                vec![became(ONE, done(""), Some(lost()))],
                false,
                Err("UNCLEAR jobmanager-1: it may not be undone: connection lost"),
            ),
            (
                vec![became(ONE, done(""), Some(gone()))],
                true,
                Err("UNCLEAR jobmanager-1: somebody else had undone it"),
            ),
            (
                vec![became(ONE, done(""), Some(met(0)))],
                true,
                Err("SKIPPED it met no packet"),
            ),
            (
                vec![became(ONE, done(""), Some(met(0))), fine(TWO)],
                true,
                Ok(installed(&[ONE, TWO])),
            ),
            // One that undid itself, and one that counts nothing.
            (
                vec![became(ONE, met(0), None)],
                false,
                Err("SKIPPED it met no packet"),
            ),
            (
                vec![became(ONE, met(9), None)],
                false,
                Ok(installed(&[ONE])),
            ),
            (
                vec![became(TWO, done(""), Some(done("")))],
                false,
                Ok(installed(&[TWO])),
            ),
            (Vec::new(), false, Err("SKIPPED it does not run")),
        ];
        for (became, whole, wanted) in table {
            let words = format!("{became:?}");
            let outcome = outcome_of(&became, whole, Some(ONE));
            let told = match &outcome {
                Outcome::Skipped(why) => format!("SKIPPED {why}"),
                Outcome::Indeterminate(why) => format!("UNCLEAR {why}"),
                Outcome::Installed { .. } => String::new(),
            };
            match wanted {
                Ok(wanted) => assert_eq!(outcome, wanted, "{words}"),
                Err(wanted) => assert!(told.starts_with(wanted), "{told:?} for {words}"),
            }
        }
    }
}
