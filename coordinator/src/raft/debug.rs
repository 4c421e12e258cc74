//! What this room can say for a debug bundle: where the log stands and of what kind its entries are, never what is in
//! them.

use std::fmt::{self, Write};
use std::sync::PoisonError;

use flott_proto::wire;
use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver;
use prost::Message;

use super::codec::{self, term_of};
use super::log_store::LogReader;
use super::node::RaftNode;
use super::state_machine::blocking;
use super::types::Entry;

impl RaftNode {
    /// openraft's metrics, for people.
    pub fn describe(&self) -> String {
        self.inner().raft.metrics().borrow_watched().to_string()
    }

    /// The last entries of the log, at most so many, oldest first. Empty once the node is shut down.
    pub async fn log_tail(&self, entries_max: u32) -> Vec<wire::DebugLogEntry> {
        let reader = {
            let running = self.inner().running.lock();
            let running = running.unwrap_or_else(PoisonError::into_inner);
            running.as_ref().map(|running| running.log.clone())
        };
        let Some(reader) = reader else {
            return Vec::new();
        };
        // A log that cannot be read ends the process elsewhere; here it is not known.
        blocking(move || read_tail(&reader, u64::from(entries_max)))
            .await
            .unwrap_or_default()
    }

    /// The snapshots on disk, newest first.
    pub async fn snapshot_files(&self) -> Vec<wire::DebugSnapshot> {
        let inner = self.inner();
        let (snapshots, now_ms) = (inner.reporter.snapshots.clone(), inner.clock.now_ms());
        let files = blocking(move || snapshots.files()).await;
        let show = |(file, bytes, written_at_ms): (String, u64, Option<i64>)| {
            let age_ms = written_at_ms.map(|at| now_ms.saturating_sub(at));
            wire::DebugSnapshot {
                file,
                bytes,
                age_ms: age_ms
                    .and_then(|age| u64::try_from(age).ok())
                    .unwrap_or_default(),
            }
        };
        files.unwrap_or_default().into_iter().map(show).collect()
    }
}

fn read_tail(reader: &LogReader, entries_max: u64) -> std::io::Result<Vec<wire::DebugLogEntry>> {
    let Some((first, last)) = reader.bounds() else {
        return Ok(Vec::new());
    };
    let mut next = first.max((last + 1).saturating_sub(entries_max));
    let mut described = Vec::new();
    while next <= last {
        let entries = reader.read_some(next, last + 1)?;
        let Some(end) = entries.last().map(|entry| entry.log_id.index) else {
            break;
        };
        described.extend(entries.iter().map(describe));
        next = end + 1;
    }
    Ok(described)
}

fn describe(entry: &Entry) -> wire::DebugLogEntry {
    let (kind, bytes, at_ms) = match &entry.payload {
        EntryPayload::Blank => ("Blank".to_owned(), 0, 0),
        EntryPayload::Membership(membership) => {
            let bytes = codec::membership_to_wire(membership).encoded_len();
            ("Membership".to_owned(), bytes, 0)
        }
        EntryPayload::Normal(proposal) => {
            let command = proposal.command();
            let kind = command
                .decision
                .as_ref()
                .map_or("Unknown".to_owned(), variant_name);
            (kind, proposal.bytes().len(), command.now_ms)
        }
    };
    wire::DebugLogEntry {
        term: term_of(&entry.log_id),
        index: entry.log_id.index,
        kind,
        bytes: bytes as u64,
        at_ms,
    }
}

/// The name of the variant, and nothing of its content.
fn variant_name(variant: &impl fmt::Debug) -> String {
    /// Takes text up to the first parenthesis and then refuses more, so that the content is not even formatted.
    struct Name(String);

    impl Write for Name {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            match text.split_once(['(', ' ']) {
                Some((name, _)) => {
                    self.0.push_str(name);
                    Err(fmt::Error)
                }
                None => {
                    self.0.push_str(text);
                    Ok(())
                }
            }
        }
    }

    let mut name = Name(String::new());
    // An error is how it ends.
    let _ = write!(name, "{variant:?}");
    name.0
}

#[cfg(test)]
mod tests {
    use flott_proto::wire::command::Decision;

    use super::super::types::{LogId, Proposal};
    use super::*;

    #[test]
    fn an_entry_is_described_without_its_content() {
        let cancel = wire::CancelJob {
            namespace: "private".to_owned(),
            job_id: "j".to_owned(),
        };
        let command = wire::Command {
            now_ms: 5,
            epoch: 7,
            decision: Some(Decision::CancelJob(cancel)),
        };
        let bytes = command.encoded_len() as u64;
        let entry = Entry {
            log_id: LogId::new_term_index(3, 9),
            payload: EntryPayload::Normal(Proposal::new(command)),
        };
        let expected = wire::DebugLogEntry {
            term: 3,
            index: 9,
            kind: "CancelJob".to_owned(),
            bytes,
            at_ms: 5,
        };
        assert_eq!(describe(&entry), expected);
    }
}
