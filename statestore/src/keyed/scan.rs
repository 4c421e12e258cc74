//! Reading the values of one key or many in their order.

use std::path::Path;

use flott_proto::key_group::KeyGroup;

use super::walk::Walk;
use super::{CellKey, KeyedBackend, StateId, StateKey, codec, damaged};
use crate::error::Error;

/// Values of a state: key, namespace, value. Ends after the first error.
#[derive(Debug)]
pub struct Scan<'a> {
    walk: Option<Walk<'a>>,
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>, Vec<u8>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match self.walk.as_mut()?.next() {
            Ok(Some((stored, value))) => match codec::split_value_key(stored) {
                Some((key, namespace)) => return Some(Ok((key, namespace, value.to_vec()))),
                None => Some(Err(damaged(Path::new("db"), "a value"))),
            },
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        self.walk = None;
        entry
    }
}

impl KeyedBackend {
    /// Every value of the state in `group` whose key begins with `key_prefix`, in order of key and namespace, as of now.
    pub fn scan(&self, state: StateId, group: KeyGroup, key_prefix: &[u8]) -> Scan<'_> {
        let mut from = Vec::with_capacity(16 + key_prefix.len());
        codec::push_key_prefix(&mut from, state, group, key_prefix);
        self.scan_prefix(group, from)
    }

    /// Every value of exactly this key, in order of namespace: a map state's entries.
    pub fn scan_key(&self, state: StateId, group: KeyGroup, key: &[u8]) -> Scan<'_> {
        let mut from = Vec::with_capacity(16 + key.len());
        codec::push_value_key(
            &mut from,
            state,
            StateKey {
                group,
                key,
                namespace: &[],
            },
        );
        self.scan_prefix(group, from)
    }

    /// The same from behind a namespace on, if one is given: to go on where an earlier scan was left.
    pub fn scan_key_after(
        &self,
        state: StateId,
        group: KeyGroup,
        key: &[u8],
        after: Option<&[u8]>,
    ) -> Scan<'_> {
        let Some(namespace) = after else {
            return self.scan_key(state, group, key);
        };
        let mut prefix = Vec::with_capacity(16 + key.len());
        let mut at = StateKey {
            group,
            key,
            namespace: &[],
        };
        codec::push_value_key(&mut prefix, state, at);
        at.namespace = namespace;
        let mut from = Vec::with_capacity(prefix.len() + namespace.len() + 1);
        codec::push_value_key(&mut from, state, at);
        from.push(0);
        Scan {
            walk: Some(self.store.range(group, from, codec::after_prefix(&prefix))),
        }
    }

    /// Every value within a key and namespace.
    pub(super) fn scan_within(&self, state: StateId, key: StateKey<'_>) -> Scan<'_> {
        let mut from = Vec::with_capacity(16 + key.key.len() + key.namespace.len());
        codec::push_cell(&mut from, state, CellKey::within(key, &[]));
        self.scan_prefix(key.group, from)
    }

    /// What distinguishes it there, from its namespace.
    pub(super) fn split_within<'n>(&self, namespace: &'n [u8]) -> Result<&'n [u8], Error> {
        codec::split_within(namespace).ok_or_else(|| self.damaged("an element"))
    }

    fn scan_prefix(&self, group: KeyGroup, from: Vec<u8>) -> Scan<'_> {
        let to = codec::after_prefix(&from);
        Scan {
            walk: Some(self.store.range(group, from, to)),
        }
    }
}
