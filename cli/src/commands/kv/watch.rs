//! `flott kv watch`: a line for each change, until Ctrl-C.

use flott_proto::wire::{KvKeys, KvRange};

use super::shapes::{Entry, Event};
use super::space;
use crate::args::kv::WatchArgs;
use crate::kv::{Space, Watch, Watched, keys};
use crate::{Error, output};

pub(super) async fn run(arguments: &WatchArgs) -> Result<(), Error> {
    let space = space(&arguments.namespace)?;
    let keys = if arguments.prefix {
        keys::prefix(arguments.key.clone())
    } else {
        keys::one(arguments.key.clone())
    };
    let mut watch = space.watch(keys.clone(), arguments.from).await?;
    loop {
        let lines = match watch.next().await? {
            Watched::Changes { events, .. } => events.iter().filter_map(Event::of).collect(),
            Watched::Resync => {
                let (present, rest) = resync(&space, &keys).await?;
                watch = rest;
                present
            }
        };
        if !print(&lines) {
            return Ok(());
        }
    }
}

/// What there is, and the watch from behind it.
async fn resync(space: &Space, keys: &KvKeys) -> Result<(Vec<Event>, Watch), Error> {
    let range = KvRange {
        keys: Some(keys.clone()),
        ..KvRange::default()
    };
    let present = space.list(range).await?;
    let revision = present.header.revision;
    // What has changed while the list was read comes as a change.
    let settled = present.value.entries.iter();
    let settled = settled.filter(|entry| entry.mod_revision <= revision);
    let mut lines = vec![Event::Resync { revision }];
    lines.extend(settled.map(|entry| Event::Put(Entry::of(entry, false))));
    Ok((lines, space.watch(keys.clone(), Some(revision + 1)).await?))
}

/// Whether anybody reads them.
fn print(lines: &[Event]) -> bool {
    let text = |line| serde_json::to_string(line).unwrap_or_else(|error| error.to_string());
    lines.iter().all(|line| output::is_read(&text(line)))
}
