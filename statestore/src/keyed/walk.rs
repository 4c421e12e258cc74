//! Reading entries in order, from where they are.

use std::iter::Peekable;

use super::changes::Range;
use crate::error::Error;
use crate::rocks::{Cursor, Entry};

/// A walk over a range of stored keys, in order: what is in memory goes before what a database has.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    /// `None` if memory has everything.
    stored: Option<Cursor<'a>>,
    /// `None` if memory has nothing.
    changed: Option<Peekable<Range<'a>>>,
}

impl<'a> Walk<'a> {
    /// Over two views of one range of keys.
    pub(super) fn new(stored: Option<Cursor<'a>>, changed: Option<Range<'a>>) -> Self {
        Self {
            stored,
            changed: changed.map(Iterator::peekable),
        }
    }

    /// The next key and value; `None` at the end of the range, and from then on.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        while let Some((changed, _)) = self.changed.as_mut().and_then(Peekable::peek) {
            if let Some(cursor) = &mut self.stored {
                let stored = cursor.peek()?.map(|(key, _)| key.cmp(changed));
                match stored {
                    Some(std::cmp::Ordering::Less) => break,
                    Some(std::cmp::Ordering::Equal) => drop(cursor.next()?),
                    Some(std::cmp::Ordering::Greater) | None => {}
                }
            }
            if let Some((key, Some(value))) = self.changed.as_mut().and_then(Iterator::next) {
                return Ok(Some((key, value)));
            }
        }
        match &mut self.stored {
            Some(cursor) => cursor.next(),
            None => Ok(None),
        }
    }
}
