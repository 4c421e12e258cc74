//! The changes of a range, in order, each once, whichever members die meanwhile.
//!
//! The stream of one member is followed until it breaks; then another one is asked for what comes after the last
//! revision that was told whole. Changes of a revision are handed out only when the member has said that the revision is
//! complete: so a break in the middle of one repeats nothing.

use std::collections::VecDeque;
use std::time::Duration;

use flott_proto::wire::key_value_client::KeyValueClient;
use flott_proto::wire::kv_event::Change;
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::{KvEvent, KvKeys, KvWatchRequest, KvWatchResponse};
use tonic::{Code, Request, Status, Streaming};

use super::session::{Next, Route, channel, describe};
use super::{KvError, Session, Space};
use crate::known_cluster::{Stranger, Strangers};

/// The largest message of a watch: the changes of one revision at least.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a watcher hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// The changes up to a revision; none: only a sign that nothing has changed up to it.
    Changes { revision: u64, events: Vec<KvEvent> },
    /// Changes are missing, for they are no longer held. Read the range anew, and watch from behind what was read.
    Resync,
}

/// A watch. It holds no more than what a member has sent and nobody has taken.
#[derive(Debug)]
pub struct Watch {
    session: Session,
    namespace: String,
    keys: KvKeys,
    cursor: Cursor,
    route: Route,
    stream: Option<(String, Streaming<KvWatchResponse>)>,
    /// Since when nobody answers.
    searching: Option<Duration>,
    strangers: Strangers,
    last: String,
}

impl Watch {
    pub(super) fn new(space: &Space, keys: KvKeys, from: u64) -> Self {
        let session = space.session().clone();
        Self {
            route: Route::new(session.members().to_vec()),
            namespace: space.namespace().to_owned(),
            session,
            keys,
            cursor: Cursor::new(from),
            stream: None,
            searching: None,
            strangers: Strangers::default(),
            last: String::new(),
        }
    }

    /// The next that is heard. Fails when no member answers for as long as the session is patient, or when the watch is
    /// refused. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Result<Watched, KvError> {
        loop {
            if let Some((address, stream)) = &mut self.stream {
                match stream.message().await {
                    Ok(Some(response)) => {
                        self.route.on_answer(address);
                        match self.cursor.on_response(response) {
                            Some(Watched::Resync) => {
                                self.stream = None;
                                return Ok(Watched::Resync);
                            }
                            Some(watched) => return Ok(watched),
                            None => continue,
                        }
                    }
                    Ok(None) => self.on_broken("the member ended the watch".to_owned()),
                    Err(status) => self.on_status(&status)?,
                }
            }
            self.connect().await?;
        }
    }

    async fn connect(&mut self) -> Result<(), KvError> {
        let patience = self.session.options().patience;
        while self.stream.is_none() {
            let now = self.session.clock().monotonic();
            let since = *self.searching.get_or_insert(now);
            let left = patience.saturating_sub(now.saturating_sub(since));
            if left.is_zero() {
                let last = self.last.clone();
                return Err(KvError::Unavailable { patience, last });
            }
            match self.route.next() {
                Next::Pause(pause) => self.session.clock().sleep(pause.min(left)).await,
                Next::Ask(address) => self.open(address).await?,
            }
        }
        Ok(())
    }

    async fn open(&mut self, address: String) -> Result<(), KvError> {
        let options = self.session.options().clone();
        let opening = async {
            let channel = channel(&address, &options)
                .await
                .map_err(Status::unavailable)?;
            let mut client =
                KeyValueClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut request = Request::new(KvWatchRequest {
                namespace: self.namespace.clone(),
                keys: Some(self.keys.clone()),
                start_revision: self.cursor.next_revision(),
            });
            options.cluster.name_in(request.metadata_mut());
            let answered = client.watch(request).await;
            options.cluster.check(match &answered {
                Ok(opened) => opened.metadata(),
                Err(status) => status.metadata(),
            })?;
            let opened = answered?;
            options.cluster.learn_from(opened.metadata());
            Ok::<_, Status>(opened.into_inner())
        };
        let limit = options.connect_timeout * 2;
        let opened = tokio::time::timeout(limit, opening).await;
        match opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer"))) {
            Ok(stream) => {
                self.stream = Some((address, stream));
                self.searching = None;
                self.strangers.forget();
            }
            Err(status) => {
                let (stranger, why) = (Stranger::behind(&status), describe(&address, &status));
                self.last = self.strangers.note(&address, stranger, why);
                self.route.on_unreachable(&address);
                refusal(&status)?;
            }
        }
        Ok(())
    }

    fn on_status(&mut self, status: &Status) -> Result<(), KvError> {
        refusal(status)?;
        self.on_broken(status.message().to_owned());
        Ok(())
    }

    fn on_broken(&mut self, why: String) {
        if let Some((address, _)) = self.stream.take() {
            self.route.on_unreachable(&address);
            self.last = format!("{address}: {why}");
        }
        self.cursor.on_break();
    }
}

/// What no other member would answer differently.
fn refusal(status: &Status) -> Result<(), KvError> {
    let reason = match status.code() {
        Code::InvalidArgument => Reason::Invalid,
        Code::NotFound => Reason::NoNamespace,
        _ => return Ok(()),
    };
    let message = status.message().to_owned();
    Err(KvError::Refused { reason, message })
}

/// How far a watch has come. Pure.
#[derive(Debug)]
struct Cursor {
    /// Everything before this revision has been handed out, or was not asked for.
    next: u64,
    /// Changes of revisions that are not complete yet.
    held: VecDeque<KvEvent>,
}

impl Cursor {
    fn new(from: u64) -> Self {
        let held = VecDeque::new();
        Self { next: from, held }
    }

    fn next_revision(&self) -> u64 {
        self.next
    }

    /// What can be handed out now.
    fn on_response(&mut self, response: KvWatchResponse) -> Option<Watched> {
        if response.resync {
            self.held.clear();
            return Some(Watched::Resync);
        }
        // What was told before the break, should the member begin too early.
        let new = response
            .events
            .into_iter()
            .filter(|event| revision(event) >= self.next);
        self.held.extend(new);
        if response.revision < self.next {
            return None;
        }
        let complete = |event: &KvEvent| revision(event) <= response.revision;
        let count = self.held.iter().take_while(|event| complete(event)).count();
        self.next = response.revision + 1;
        Some(Watched::Changes {
            revision: response.revision,
            events: self.held.drain(..count).collect(),
        })
    }

    fn on_break(&mut self) {
        self.held.clear();
    }
}

fn revision(event: &KvEvent) -> u64 {
    match &event.change {
        Some(Change::Put(entry)) => entry.mod_revision,
        Some(Change::Gone(gone)) => gone.revision,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use flott_proto::wire::KvGone;

    use super::*;

    fn event(revision: u64) -> KvEvent {
        let gone = KvGone {
            revision,
            ..KvGone::default()
        };
        KvEvent {
            change: Some(Change::Gone(gone)),
        }
    }

    fn told(revision: u64, events: &[u64]) -> KvWatchResponse {
        KvWatchResponse {
            revision,
            events: events.iter().map(|revision| event(*revision)).collect(),
            resync: false,
        }
    }

    fn changes(revision: u64, events: &[u64]) -> Option<Watched> {
        let events = events.iter().map(|revision| event(*revision)).collect();
        Some(Watched::Changes { revision, events })
    }

    #[test]
    fn a_break_in_the_middle_of_a_revision_repeats_nothing() {
        let mut cursor = Cursor::new(5);
        assert_eq!(cursor.on_response(told(6, &[5, 6, 7])), changes(6, &[5, 6]));
        cursor.on_break();
        assert_eq!(cursor.next_revision(), 7);
        assert_eq!(cursor.on_response(told(7, &[7, 7])), changes(7, &[7, 7]));
    }

    #[test]
    fn a_revision_in_several_messages_is_handed_out_whole() {
        let mut cursor = Cursor::new(1);
        assert_eq!(cursor.on_response(told(0, &[1])), None);
        assert_eq!(cursor.on_response(told(1, &[1])), changes(1, &[1, 1]));
    }

    #[test]
    fn what_was_told_before_is_not_told_again() {
        let mut cursor = Cursor::new(4);
        assert_eq!(
            cursor.on_response(told(3, &[2, 3])),
            None,
            "a member that lags behind"
        );
        assert_eq!(cursor.on_response(told(5, &[3, 4, 5])), changes(5, &[4, 5]));
    }

    #[test]
    fn a_sign_of_life_moves_on_without_changes() {
        let mut cursor = Cursor::new(1);
        assert_eq!(cursor.on_response(told(9, &[])), changes(9, &[]));
        assert_eq!(cursor.next_revision(), 10);
    }

    #[test]
    fn a_resync_is_told() {
        let resync = KvWatchResponse {
            resync: true,
            ..KvWatchResponse::default()
        };
        assert_eq!(Cursor::new(1).on_response(resync), Some(Watched::Resync));
    }
}
