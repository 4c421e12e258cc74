//! How keyed state lies in the database. Stable for ever: checkpoints hold these bytes.
//!
//! ```text
//! [key group u16][state id u16, high bit 0][key, escaped][namespace]                  value
//! [key group u16][state id u16, high bit 1][time i64][key, escaped][namespace]        timer, no value
//! [0xFFFF]['f']                                                                       format, max parallelism
//! [0xFFFF]['s'][operator uid, escaped][state name]                                    state id u16, form u8 unless 0
//! [0xFFFF]['n']                                                                       numbers of list elements given away u64
//! ```
//!
//! Numbers are big-endian, the time with its sign bit flipped, so that the order of the bytes is the order of the
//! numbers. *Escaped*: each 0x00 becomes 0x00 0xFF, and 0x00 0x01 ends it; so the split from what follows is
//! unambiguous, the order of keys stays, and a prefix of the key is a prefix of its escaped form. A key group is below
//! 32,768, so nothing collides with 0xFFFF.

use std::ops::Range;

use flott_proto::key_group::{KeyGroup, KeyGroupRange};

use super::{CellKey, StateId, StateKey, Timer};

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const END: u8 = 0x01;

/// Set in the state id of timers: a state's values and its timers never meet.
const TIMERS: u16 = 0x8000;

/// The highest state id.
pub(crate) const STATE_ID_MAX: u16 = TIMERS - 1;

pub(super) const META: [u8; 2] = [0xFF, 0xFF];

/// Above every key group.
const GROUPS_END: u16 = 0x8000;

/// Bytes before what distinguishes entries of one state in one group.
const HEADER: usize = 4;

fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == ESCAPE);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&[ESCAPE, ESCAPED_ZERO]);
        out.extend_from_slice(part);
    }
}

/// Splits at the end of the escaped part.
fn split_escaped(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut key, mut rest) = (Vec::new(), bytes);
    loop {
        let zero = rest.iter().position(|byte| *byte == ESCAPE)?;
        key.extend_from_slice(&rest[..zero]);
        let after = rest.get(zero + 2..)?;
        match rest[zero + 1] {
            ESCAPED_ZERO => key.push(0),
            END => return Some((key, after)),
            _ => return None,
        }
        rest = after;
    }
}

fn push_header(out: &mut Vec<u8>, group: KeyGroup, id: u16) {
    out.extend_from_slice(&group.0.to_be_bytes());
    out.extend_from_slice(&id.to_be_bytes());
}

fn time_bytes(time_ms: i64) -> [u8; 8] {
    (time_ms as u64 ^ (1 << 63)).to_be_bytes()
}

/// Appends the key of a value.
pub(crate) fn push_value_key(out: &mut Vec<u8>, state: StateId, key: StateKey<'_>) {
    push_key_prefix(out, state, key.group, key.key);
    out.extend_from_slice(&[ESCAPE, END]);
    out.extend_from_slice(key.namespace);
}

/// Appends the key of a value that may be one of many within a namespace: then what distinguishes it follows the namespace,
/// as that follows the key.
pub(super) fn push_cell(out: &mut Vec<u8>, state: StateId, cell: CellKey<'_>) {
    let CellKey { key, within } = cell;
    let Some(within) = within else {
        return push_value_key(out, state, key);
    };
    push_key_prefix(out, state, key.group, key.key);
    out.extend_from_slice(&[ESCAPE, END]);
    push_escaped(out, key.namespace);
    out.extend_from_slice(&[ESCAPE, END]);
    out.extend_from_slice(within);
}

/// What distinguishes a value within its namespace, from the stored namespace.
pub(super) fn split_within(namespace: &[u8]) -> Option<&[u8]> {
    Some(split_escaped(namespace)?.1)
}

/// Appends what the keys of all values begin with whose key begins with `prefix`.
pub(crate) fn push_key_prefix(out: &mut Vec<u8>, state: StateId, group: KeyGroup, prefix: &[u8]) {
    push_header(out, group, state.0);
    push_escaped(out, prefix);
}

/// Appends the key of a timer.
pub(crate) fn push_timer(out: &mut Vec<u8>, state: StateId, timer: &Timer) {
    push_timers_from(out, state, timer.group, timer.time_ms);
    push_escaped(out, &timer.key);
    out.extend_from_slice(&[ESCAPE, END]);
    out.extend_from_slice(&timer.namespace);
}

/// Appends the lowest key that a timer of this time can have.
pub(crate) fn push_timers_from(out: &mut Vec<u8>, state: StateId, group: KeyGroup, time_ms: i64) {
    push_header(out, group, state.0 | TIMERS);
    out.extend_from_slice(&time_bytes(time_ms));
}

/// Beyond the timers of this time and earlier.
pub(crate) fn after_timers(state: StateId, group: KeyGroup, time_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 8);
    push_timers_from(&mut out, state, group, time_ms);
    after_prefix(&out)
}

/// The lowest key above every key that begins with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let end = prefix.iter().rposition(|byte| *byte != 0xFF);
    let end = end.expect("every prefix begins with a key group, which is below 0xFFFF");
    let mut after = prefix[..=end].to_vec();
    after[end] += 1;
    after
}

/// The key and namespace of a value.
pub(crate) fn split_value_key(stored: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (key, namespace) = split_escaped(stored.get(HEADER..)?)?;
    Some((key, namespace.to_vec()))
}

/// A timer from its key.
pub(crate) fn split_timer(stored: &[u8]) -> Option<Timer> {
    let group = KeyGroup(u16::from_be_bytes(*stored.first_chunk()?));
    let rest = stored.get(HEADER..)?;
    let time = u64::from_be_bytes(*rest.first_chunk()?) ^ (1 << 63);
    let (key, namespace) = split_escaped(&rest[8..])?;
    Some(Timer {
        time_ms: time as i64,
        group,
        key,
        namespace: namespace.to_vec(),
    })
}

/// The group of a stored value or timer.
pub(crate) fn group_of(stored: &[u8]) -> Option<KeyGroup> {
    let group = u16::from_be_bytes(*stored.first_chunk()?);
    (group < GROUPS_END).then_some(KeyGroup(group))
}

/// The state of a stored value; none for a timer and for what is no state.
pub(super) fn state_of_value(stored: &[u8]) -> Option<StateId> {
    group_of(stored)?;
    let id = u16::from_be_bytes(*stored.get(2..)?.first_chunk()?);
    (id & TIMERS == 0).then_some(StateId(id))
}

/// Where the entries of other groups than these can be.
pub(crate) fn outside(range: KeyGroupRange) -> Vec<Range<Vec<u8>>> {
    [(0, range.first), (range.last + 1, GROUPS_END)]
        .into_iter()
        .filter(|(from, to)| from < to)
        .map(|(from, to)| group_start(from)..group_start(to))
        .collect()
}

/// The first key of a group; `from` 32,768 is beyond the last.
pub(crate) fn group_start(from: u16) -> Vec<u8> {
    from.to_be_bytes().to_vec()
}

/// Puts another state id into a stored key of a value or timer; `None` if it is neither.
pub(crate) fn with_state(
    stored: &[u8],
    id: impl FnOnce(StateId) -> Option<StateId>,
) -> Option<Vec<u8>> {
    let old = u16::from_be_bytes(*stored.get(2..)?.first_chunk()?);
    let new = id(StateId(old & !TIMERS))?;
    let mut out = stored.to_vec();
    out[2..4].copy_from_slice(&(new.0 | (old & TIMERS)).to_be_bytes());
    Some(out)
}

/// The key of the entry that says what this database is.
pub(crate) fn format_key() -> Vec<u8> {
    [&META[..], b"f"].concat()
}

/// The key under which a state's id is registered.
pub(crate) fn name_key(operator_uid: &str, name: &str) -> Vec<u8> {
    let mut out = names_prefix();
    push_escaped(&mut out, operator_uid.as_bytes());
    out.extend_from_slice(&[ESCAPE, END]);
    out.extend_from_slice(name.as_bytes());
    out
}

/// The key of the entry that says how many numbers were given to elements of lists.
pub(crate) fn numbers_key() -> Vec<u8> {
    [&META[..], b"n"].concat()
}

/// What the keys of all registered names begin with.
pub(crate) fn names_prefix() -> Vec<u8> {
    [&META[..], b"s"].concat()
}

/// The operator uid and state name of a registered name.
pub(crate) fn split_name(stored: &[u8]) -> Option<(String, String)> {
    let (uid, name) = split_escaped(stored.get(META.len() + 1..)?)?;
    Some((
        String::from_utf8(uid).ok()?,
        String::from_utf8(name.to_vec()).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, kind};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0), Just(1), Just(0xFF), any::<u8>()], 0..6)
    }

    fn value_key(group: u16, state: u16, key: &[u8], namespace: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_value_key(
            &mut out,
            StateId(state),
            StateKey {
                group: KeyGroup(group),
                key,
                namespace,
            },
        );
        out
    }

    fn timer_key(state: u16, timer: &Timer) -> Vec<u8> {
        let mut out = Vec::new();
        push_timer(&mut out, StateId(state), timer);
        out
    }

    /// These bytes are in checkpoints: they never change.
    #[test]
    fn golden_vectors() {
        assert_eq!(
            value_key(0x0102, 3, b"a\0b", b"n"),
            b"\x01\x02\x00\x03a\x00\xFFb\x00\x01n"
        );
        let timer = Timer {
            time_ms: 5,
            group: KeyGroup(7),
            key: b"k".to_vec(),
            namespace: vec![0],
        };
        assert_eq!(
            timer_key(3, &timer),
            b"\x00\x07\x80\x03\x80\0\0\0\0\0\0\x05k\x00\x01\x00"
        );
        assert_eq!(format_key(), b"\xFF\xFFf");
        assert_eq!(name_key("op", "count"), b"\xFF\xFFsop\x00\x01count");
        assert_eq!(numbers_key(), b"\xFF\xFFn");
        let (group, key, namespace) = (KeyGroup(7), b"k".as_slice(), b"n\0".as_slice());
        let key = StateKey {
            group,
            key,
            namespace,
        };
        let mut cell = Vec::new();
        push_cell(&mut cell, StateId(3), CellKey::within(key, b"w\0"));
        assert_eq!(cell, b"\x00\x07\x00\x03k\x00\x01n\x00\xFF\x00\x01w\x00");
        let (_, namespace) = split_value_key(&cell).unwrap();
        assert_eq!(split_within(&namespace), Some(b"w\0".as_slice()));
    }

    #[test]
    fn any_bytes_are_a_stored_key_or_refused() {
        let timer = Timer {
            time_ms: -5,
            group: KeyGroup(7),
            key: b"a\0b".to_vec(),
            namespace: vec![0, 1],
        };
        let seeds = [
            value_key(0x0102, 3, b"a\0b", b"n"),
            timer_key(3, &timer),
            format_key(),
            name_key("op", "count"),
        ];
        flott_decoders::check!(Seeds::of(seeds)).for_each(|stored: &[u8]| {
            let number = |at: usize| u16::from_be_bytes([stored[at], stored[at + 1]]);
            if let Some((key, namespace)) = kind(split_value_key(stored)) {
                let again = value_key(number(0), number(2), &key, &namespace);
                assert_eq!(again, stored);
                let within = split_within(&namespace);
                assert!(within.is_none_or(|within| namespace.ends_with(within)));
            }
            if let Some(timer) = kind(split_timer(stored)) {
                let again = timer_key(number(2) & !TIMERS, &timer);
                assert_eq!((&again[..2], &again[4..]), (&stored[..2], &stored[4..]));
            }
            if let Some((uid, name)) = kind(split_name(stored)) {
                assert_eq!(&name_key(&uid, &name)[3..], &stored[3..]);
            }
            assert!(group_of(stored).is_none_or(|group| group.0 < GROUPS_END));
            let moved = with_state(stored, |id| StateId(id.0 ^ 1).into());
            if let Some(moved) = moved {
                assert_eq!(moved.len(), stored.len());
            }
        });
    }

    proptest! {
        #[test]
        fn keys_split_into_what_they_were_made_of(key in bytes(), namespace in bytes()) {
            let stored = value_key(5, 6, &key, &namespace);
            prop_assert_eq!(split_value_key(&stored), Some((key, namespace)));
        }

        #[test]
        fn timers_split_and_sort_as_they_should(
            a in (any::<i64>(), bytes(), bytes()), b in (any::<i64>(), bytes(), bytes())
        ) {
            let timer = |(time_ms, key, namespace): (i64, Vec<u8>, Vec<u8>)| {
                Timer { time_ms, group: KeyGroup(9), key, namespace }
            };
            let (a, b) = (timer(a), timer(b));
            prop_assert_eq!(timer_key(1, &a).cmp(&timer_key(1, &b)), a.cmp(&b));
            prop_assert_eq!(split_timer(&timer_key(1, &a)), Some(a.clone()));
            let after = after_timers(StateId(1), a.group, a.time_ms);
            prop_assert_eq!(timer_key(1, &b) < after, b.time_ms <= a.time_ms);
        }

        #[test]
        fn a_prefix_range_holds_exactly_the_keys_with_that_prefix(prefix in bytes(), key in bytes(), namespace in bytes()) {
            let mut from = Vec::new();
            push_key_prefix(&mut from, StateId(2), KeyGroup(1), &prefix);
            let stored = value_key(1, 2, &key, &namespace);
            let within = from <= stored && stored < after_prefix(&from);
            prop_assert_eq!(within, key.starts_with(&prefix));
        }

        #[test]
        fn no_two_entries_share_a_key(
            a in (0u16..3, 0u16..3, bytes(), bytes()), b in (0u16..3, 0u16..3, bytes(), bytes())
        ) {
            let stored = |(group, state, key, namespace): &(u16, u16, Vec<u8>, Vec<u8>)| {
                value_key(*group, *state, key, namespace)
            };
            prop_assert_eq!(stored(&a) == stored(&b), a == b);
        }

        #[test]
        fn damaged_keys_are_refused_not_misread(stored in vec(any::<u8>(), 0..20)) {
            if let Some(timer) = split_timer(&stored) {
                let id = u16::from_be_bytes([stored[2], stored[3]]) & !TIMERS;
                let again = timer_key(id, &timer);
                prop_assert_eq!(&again[4..], &stored[4..]);
            }
        }
    }
}
