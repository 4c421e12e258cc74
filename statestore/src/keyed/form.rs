//! In what form a state's entries are stored. Registered with its name: who asks for another would misread them.

use std::fmt;

/// The kinds of keyed state, by Flink's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StateKind {
    /// Values as the operator puts them, see [`super::KeyedBackend::state`].
    #[default]
    Plain = 0,
    Value = 1,
    Map = 2,
    List = 3,
    Reducing = 4,
    Aggregating = 5,
}

/// A kind, and whether its entries have the time of their last write before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) kind: StateKind,
    pub(crate) has_ttl: bool,
}

/// Set in the byte of a form with a TTL.
const TTL: u8 = 0x80;

impl Form {
    /// Its byte. Stable for ever.
    pub(super) fn to_byte(self) -> u8 {
        self.kind as u8 | if self.has_ttl { TTL } else { 0 }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let kind = match byte & !TTL {
            0 => StateKind::Plain,
            1 => StateKind::Value,
            2 => StateKind::Map,
            3 => StateKind::List,
            4 => StateKind::Reducing,
            5 => StateKind::Aggregating,
            _ => return None,
        };
        let has_ttl = byte & TTL != 0;
        Some(Self { kind, has_ttl })
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StateKind::Plain => "plain",
            StateKind::Value => "value",
            StateKind::Map => "map",
            StateKind::List => "list",
            StateKind::Reducing => "reducing",
            StateKind::Aggregating => "aggregating",
        };
        let ttl = if self.has_ttl { "with" } else { "without" };
        write!(f, "{kind} state {ttl} TTL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_one_form_or_none() {
        let forms: Vec<(u8, Form)> = (0..=u8::MAX)
            .filter_map(|byte| Some((byte, Form::from_byte(byte)?)))
            .collect();
        assert_eq!(forms.len(), 12);
        assert!(forms.iter().all(|(byte, form)| form.to_byte() == *byte));
        assert_eq!(Form::default().to_byte(), 0);
    }
}
