//! One change of the group at a time: the place that it takes, so that it can be seen and refuses the next.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::error::RaftError;

/// Empty, or with what is going on.
#[derive(Debug, Default)]
pub(in super::super) struct ChangeSlot(Mutex<Option<String>>);

/// The slot is taken for as long as this lives.
#[derive(Debug)]
pub(in super::super) struct ChangeGuard(Arc<ChangeSlot>);

impl ChangeSlot {
    /// Takes the slot, or refuses with what is in it. `what` reads "promoting member 4".
    pub(in super::super) fn take(self: &Arc<Self>, what: String) -> Result<ChangeGuard, RaftError> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(what) = &*slot {
            return Err(RaftError::ChangeInProgress(what.clone()));
        }
        *slot = Some(what);
        Ok(ChangeGuard(Arc::clone(self)))
    }

    /// What is going on.
    pub(in super::super) fn what(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for ChangeGuard {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_refuses_the_next_until_it_has_ended() {
        let slot = Arc::new(ChangeSlot::default());
        let first = slot.take("removing member 3".to_owned()).unwrap();
        let refused = slot.take("promoting member 4".to_owned()).unwrap_err();
        assert!(
            refused.to_string().contains("removing member 3"),
            "{refused}"
        );
        assert_eq!(slot.what().as_deref(), Some("removing member 3"));
        drop(first);
        assert_eq!(slot.what(), None);
        slot.take("promoting member 4".to_owned()).unwrap();
    }
}
