//! Which cluster a client speaks with.
//!
//! In plain text nothing tells who listens at an address: while a JobManager is down, one of another cluster may take its
//! port. So a client remembers the first cluster whose answer it believed (or is told from the outset which one to speak
//! with), and names it in every further request. A JobManager of another cluster refuses those, and to the client it is
//! like one that does not answer: it goes on to its other addresses.
//!
//! What must stay true: what is known never changes, so nothing that a client was told is ever mixed with the word of
//! another cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use flott_proto::header;
use flott_proto::ids::ClusterId;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// The cluster that a client speaks with, once it is known. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct KnownCluster(Arc<OnceLock<ClusterId>>);

/// Another cluster answers than the one that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is cluster {found}, not {known}")]
pub struct Stranger {
    /// The cluster that answers.
    pub found: ClusterId,
    /// The client's.
    pub known: ClusterId,
}

impl KnownCluster {
    /// The cluster's id, if it is known.
    pub fn id(&self) -> Option<&ClusterId> {
        self.0.get()
    }

    /// From now on this cluster and no other, unless one is known already.
    pub fn learn(&self, cluster: ClusterId) {
        // The first one counts, also of two answers at once.
        let _ = self.0.set(cluster);
    }

    /// The same with the cluster that gave this answer. For answers that the client goes by.
    pub fn learn_from(&self, answer: &MetadataMap) {
        if let Some(cluster) = named_in(answer) {
            self.learn(cluster);
        }
    }

    /// Names the cluster in a request, if it is known.
    pub fn name_in(&self, request: &mut MetadataMap) {
        let known = self.id().and_then(|known| known.as_str().parse().ok());
        if let Some(known) = known {
            request.insert(header::CLUSTER_ID, known);
        }
    }

    /// Whether an answer, or a refusal, is not from this cluster. One that names no cluster is not suspected: its sender
    /// belongs to none yet, or knows nothing of the header.
    pub fn check(&self, answer: &MetadataMap) -> Result<(), Stranger> {
        match (named_in(answer), self.id()) {
            (Some(found), Some(known)) if found != *known => {
                let known = known.clone();
                Err(Stranger { found, known })
            }
            _ => Ok(()),
        }
    }
}

impl From<Option<ClusterId>> for KnownCluster {
    fn from(cluster: Option<ClusterId>) -> Self {
        let known = Self::default();
        if let Some(cluster) = cluster {
            known.learn(cluster);
        }
        known
    }
}

fn named_in(answer: &MetadataMap) -> Option<ClusterId> {
    let named = answer.get(header::CLUSTER_ID)?;
    named.to_str().ok()?.parse().ok()
}

impl Stranger {
    /// For a person: where it was met, and what to do.
    fn at(&self, address: &str) -> String {
        let found = &self.found;
        format!(
            "at {address} {self}: correct the addresses, or if {found} is meant, start anew or name it (--cluster-id)"
        )
    }

    /// The one that [`Status::from`] was made of.
    pub(crate) fn behind(status: &Status) -> Option<&Self> {
        std::error::Error::source(status)?.downcast_ref()
    }
}

impl From<Stranger> for Status {
    /// As if nobody had answered: other members may.
    fn from(stranger: Stranger) -> Self {
        let mut status = Self::unavailable(stranger.to_string());
        status.set_source(Arc::new(stranger));
        status
    }
}

/// Where a search for a member that answers has met other clusters. A later failure at another address does not hide them.
#[derive(Debug, Default)]
pub(crate) struct Strangers(BTreeMap<String, Stranger>);

impl Strangers {
    /// The member at `address` was asked in vain: what a person should know of the search so far. `why`: in words, if it
    /// was no stranger.
    pub(crate) fn note(
        &mut self,
        address: &str,
        stranger: Option<&Stranger>,
        why: String,
    ) -> String {
        let mut words: Vec<String> = match stranger {
            Some(stranger) => {
                self.0.insert(address.to_owned(), stranger.clone());
                Vec::new()
            }
            None => {
                self.0.remove(address);
                vec![why]
            }
        };
        words.extend(
            self.0
                .iter()
                .map(|(address, stranger)| stranger.at(address)),
        );
        words.join("; ")
    }

    /// Somebody answered: the search is over.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ClusterId {
        text.parse().unwrap()
    }

    fn from(cluster: &str) -> MetadataMap {
        let mut answer = MetadataMap::new();
        answer.insert(header::CLUSTER_ID, cluster.parse().unwrap());
        answer
    }

    #[test]
    fn the_first_cluster_is_remembered_and_named_from_then_on() {
        let known = KnownCluster::default();
        let mut request = MetadataMap::new();
        known.name_in(&mut request);
        assert!(request.is_empty(), "nothing is known yet");
        known.learn_from(&MetadataMap::new());
        assert_eq!(known.id(), None);
        known.learn_from(&from("a"));
        known.clone().learn_from(&from("b"));
        assert_eq!(known.id(), Some(&id("a")));
        known.name_in(&mut request);
        assert_eq!(request.get(header::CLUSTER_ID).unwrap(), "a");
    }

    #[test]
    fn only_an_answer_that_names_another_cluster_is_a_strangers() {
        let nobody = KnownCluster::default();
        assert!(nobody.check(&from("b")).is_ok());
        let known = KnownCluster::from(Some(id("a")));
        assert!(known.check(&from("a")).is_ok());
        assert!(known.check(&from("no id")).is_ok());
        assert!(known.check(&MetadataMap::new()).is_ok());
        let stranger = known.check(&from("b")).unwrap_err();
        assert_eq!(stranger.to_string(), "is cluster b, not a");
        let status = Status::from(stranger.clone());
        assert_eq!(Stranger::behind(&status), Some(&stranger));
    }

    #[test]
    fn a_later_failure_does_not_hide_another_cluster() {
        let known = KnownCluster::from(Some(id("a")));
        let stranger = known.check(&from("b")).unwrap_err();
        let mut strangers = Strangers::default();
        let text = strangers.note("h1:1", Some(&stranger), String::new());
        assert!(text.starts_with("at h1:1 is cluster b, not a: "), "{text}");
        let text = strangers.note("h2:1", None, "h2:1: connection refused".to_owned());
        for part in ["h2:1: connection refused; ", "at h1:1 is cluster b, not a"] {
            assert!(text.contains(part), "{text}");
        }
        // It is gone: whoever answers there now is asked for itself.
        let text = strangers.note("h1:1", None, "h1:1: connection refused".to_owned());
        assert_eq!(text, "h1:1: connection refused");
    }
}
