//! Flink's kinds of state against plain collections: through checkpoints, restores, both backends and changes of parallelism.

use std::collections::BTreeMap;
use std::time::Duration;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_statestore::keyed::kinds::{
    AggregatingState, ListState, MapState, ReducingState, StateDescriptor, ValueState,
};
use flott_statestore::{Error, KeyedBackend, StateBatch, StateKey};
use proptest::prelude::*;

use crate::fixture::{IN_MEMORY, MAX_PARALLELISM, OPTIONS, Task, at, restore};
use crate::vertex::Vertex;

const TTL_MS: i64 = 10;

/// Some are the beginnings of others.
const KEYS: [&[u8]; 4] = [b"a", b"a\0", b"b", b""];
const NAMESPACES: [&[u8]; 3] = [b"", b"n", b"n\0\x01"];

/// The states of one operator: all kinds, with a TTL or without.
struct States {
    value: ValueState,
    map: MapState,
    list: ListState,
    reducing: ReducingState,
    aggregating: AggregatingState,
}

impl States {
    fn open(backend: &mut KeyedBackend, has_ttl: bool) -> Result<Self, Error> {
        let ttl = has_ttl.then_some(Duration::from_millis(TTL_MS as u64));
        let operator_uid = if has_ttl { "forgetful" } else { "op" };
        let named = |name| StateDescriptor {
            operator_uid,
            name,
            ttl,
        };
        Ok(Self {
            value: ValueState::open(backend, &named("value"))?,
            map: MapState::open(backend, &named("map"))?,
            list: ListState::open(backend, &named("list"))?,
            reducing: ReducingState::open(backend, &named("reducing"))?,
            aggregating: AggregatingState::open(backend, &named("aggregating"))?,
        })
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8),
    Clear,
    MapPut(u8, u8),
    MapRemove(u8),
    MapClear,
    ListAdd(u8),
    ListUpdate(Vec<u8>),
    ListClear,
    /// The same key often in one call.
    Reduce(Vec<u8>),
    ReducingClear,
    Aggregate(Vec<u8>),
    AggregatingClear,
}

#[derive(Clone, Debug)]
enum Step {
    /// With a TTL or without, at a key and namespace.
    Change(bool, usize, usize, Change),
    /// Time passes.
    Advance(i64),
    Checkpoint,
    /// All since the checkpoint is lost; goes on at this parallelism, in memory or on disk.
    Restart(u32, bool),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = any::<u8>();
    let map_key = 0u8..3;
    let bytes = || prop::collection::vec(any::<u8>(), 1..4);
    prop_oneof![
        1 => byte.prop_map(Change::Put),
        1 => Just(Change::Clear),
        3 => (map_key.clone(), any::<u8>()).prop_map(|(key, value)| Change::MapPut(key, value)),
        1 => map_key.prop_map(Change::MapRemove),
        1 => Just(Change::MapClear),
        4 => any::<u8>().prop_map(Change::ListAdd),
        1 => bytes().prop_map(Change::ListUpdate),
        1 => Just(Change::ListClear),
        3 => bytes().prop_map(Change::Reduce),
        1 => Just(Change::ReducingClear),
        3 => bytes().prop_map(Change::Aggregate),
        1 => Just(Change::AggregatingClear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (any::<bool>(), 0..KEYS.len(), 0..NAMESPACES.len(), change())
            .prop_map(|(has_ttl, key, namespace, change)| Step::Change(has_ttl, key, namespace, change)),
        4 => (0i64..6).prop_map(Step::Advance),
        3 => Just(Step::Checkpoint),
        2 => (1u32..4, any::<bool>()).prop_map(|(parallelism, in_memory)| Step::Restart(parallelism, in_memory)),
    ]
}

/// What was written, and when.
type Written = (Vec<u8>, i64);

/// What one key and namespace should have of every kind.
#[derive(Clone, Debug, Default)]
struct Cell {
    value: Option<Written>,
    map: BTreeMap<u8, Written>,
    list: Vec<Written>,
    reducing: Option<Written>,
    aggregating: Option<Written>,
}

/// By whether there is a TTL, key and namespace.
type Model = BTreeMap<(bool, usize, usize), Cell>;

fn alive(has_ttl: bool, now_ms: i64, written: &Written) -> Option<Vec<u8>> {
    (!has_ttl || written.1 + TTL_MS > now_ms).then(|| written.0.clone())
}

/// The greater of two.
fn reduce(reduced: &[u8], value: &[u8]) -> Vec<u8> {
    reduced.max(value).to_vec()
}

/// An accumulator that tells in what order it was added to.
fn create() -> Vec<u8> {
    b"sum:".to_vec()
}

fn change_one(
    backend: &mut KeyedBackend,
    states: &States,
    key: StateKey<'_>,
    change: &Change,
) -> Result<(), Error> {
    let mut batch = StateBatch::new();
    match change {
        Change::Put(value) => states.value.put(&mut batch, key, &[*value]),
        Change::Clear => states.value.clear(&mut batch, key),
        Change::MapPut(map_key, value) => states.map.put(&mut batch, key, &[*map_key], &[*value]),
        Change::MapRemove(map_key) => states.map.remove(&mut batch, key, &[*map_key]),
        Change::MapClear => states.map.clear(backend, &mut batch, key)?,
        Change::ListAdd(element) => states.list.add(&mut batch, key, &[*element]),
        Change::ListUpdate(elements) => {
            states
                .list
                .update(backend, &mut batch, key, elements.chunks(1))?;
        }
        Change::ListClear => states.list.clear(backend, &mut batch, key)?,
        Change::Reduce(values) => {
            let values: Vec<_> = values.chunks(1).map(|value| (key, value)).collect();
            states.reducing.add_many(backend, &values, reduce)?;
        }
        Change::ReducingClear => states.reducing.clear(&mut batch, key),
        Change::Aggregate(values) => {
            let values: Vec<_> = values.chunks(1).map(|value| (key, value)).collect();
            let add = |accumulator: &mut Vec<u8>, value: &[u8]| accumulator.extend(value);
            (states.aggregating).add_many(backend, &values, create, add)?;
        }
        Change::AggregatingClear => states.aggregating.clear(&mut batch, key),
    }
    backend.write(batch)
}

fn change_model(cell: &mut Cell, has_ttl: bool, now_ms: i64, change: &Change) {
    let written = |value: &[u8]| (value.to_vec(), now_ms);
    let there = |slot: &Option<Written>| alive(has_ttl, now_ms, slot.as_ref()?);
    match change {
        Change::Put(value) => cell.value = Some(written(&[*value])),
        Change::Clear => cell.value = None,
        Change::MapPut(key, value) => drop(cell.map.insert(*key, written(&[*value]))),
        Change::MapRemove(key) => drop(cell.map.remove(key)),
        Change::MapClear => cell.map.clear(),
        Change::ListAdd(element) => cell.list.push(written(&[*element])),
        Change::ListUpdate(elements) => cell.list = elements.chunks(1).map(written).collect(),
        Change::ListClear => cell.list.clear(),
        Change::Reduce(values) => {
            let all = values.chunks(1).map(<[u8]>::to_vec);
            let greatest = there(&cell.reducing).into_iter().chain(all).max();
            cell.reducing = greatest.map(|value| written(&value));
        }
        Change::ReducingClear => cell.reducing = None,
        Change::Aggregate(values) => {
            let begun = there(&cell.aggregating).unwrap_or_else(create);
            cell.aggregating = Some(written(&[begun.as_slice(), values].concat()));
        }
        Change::AggregatingClear => cell.aggregating = None,
    }
}

fn check(vertex: &mut Vertex, model: &Model, now_ms: i64) {
    for (place, expected) in model {
        let (has_ttl, key, namespace) = *place;
        let key = at(KEYS[key], NAMESPACES[namespace]);
        let backend = vertex.owner(key.group);
        let states = States::open(backend, has_ttl).unwrap();
        let alive = |written: &Written| alive(has_ttl, now_ms, written);
        let value = states.value.get_many(backend, &[key]).unwrap();
        assert_eq!(
            value,
            [expected.value.as_ref().and_then(alive)],
            "{place:?}"
        );
        let map = states.map.entries(backend, key);
        let map: Vec<_> = map.collect::<Result<_, _>>().unwrap();
        let entries = expected.map.iter();
        let entries = entries.filter_map(|(key, value)| Some((vec![*key], alive(value)?)));
        assert_eq!(map, entries.collect::<Vec<_>>(), "{place:?}");
        let asked = [0u8, 1, 2].map(|map_key| [map_key]);
        let asked_keys = asked.each_ref().map(|map_key| (key, map_key.as_slice()));
        let found = states.map.get_many(backend, &asked_keys).unwrap();
        let entry = |map_key: &[u8; 1]| expected.map.get(&map_key[0]).and_then(alive);
        assert_eq!(found, asked.each_ref().map(entry), "{place:?}");
        let list = states.list.elements(backend, key);
        let list: Vec<_> = list.collect::<Result<_, _>>().unwrap();
        let elements: Vec<_> = expected.list.iter().filter_map(alive).collect();
        assert_eq!(list, elements, "{place:?}");
        let reducing = states.reducing.get_many(backend, &[key]).unwrap();
        let expected_reducing = expected.reducing.as_ref().and_then(alive);
        assert_eq!(reducing, [expected_reducing], "{place:?}");
        let aggregating = states.aggregating.get_many(backend, &[key]).unwrap();
        let expected_aggregating = expected.aggregating.as_ref().and_then(alive);
        assert_eq!(aggregating, [expected_aggregating], "{place:?}");
    }
}

async fn run(steps: Vec<Step>) {
    let mut vertex = Vertex::start("kinds").await;
    let (mut model, mut saved) = (Model::new(), Model::new());
    let mut now_ms = 1000;
    for step in steps {
        match step {
            Step::Change(has_ttl, key, namespace, change) => {
                let cell = model.entry((has_ttl, key, namespace)).or_default();
                change_model(cell, has_ttl, now_ms, &change);
                let key = at(KEYS[key], NAMESPACES[namespace]);
                let backend = vertex.owner(key.group);
                backend.advance_time(now_ms);
                let states = States::open(backend, has_ttl).unwrap();
                change_one(backend, &states, key, &change).unwrap();
            }
            Step::Advance(by) => now_ms += by,
            Step::Checkpoint => {
                vertex.checkpoint().await;
                saved = model.clone();
            }
            Step::Restart(parallelism, in_memory) => {
                vertex.options = if in_memory { IN_MEMORY } else { OPTIONS };
                vertex.restart(parallelism).await;
                model = saved.clone();
            }
        }
        for (backend, _) in &vertex.tasks {
            backend.advance_time(now_ms);
        }
        check(&mut vertex, &model, now_ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn states_hold_what_they_should(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

/// The new owner of a key numbers elements higher than all earlier owners did, however few it has numbered itself.
#[tokio::test]
async fn a_list_keeps_its_order_when_its_owner_changes() {
    let mut vertex = Vertex::start("order").await;
    let mut expected = Vec::new();
    for (round, parallelism) in [1, 3, 2, 1, 1, 4].into_iter().enumerate() {
        vertex.restart(parallelism).await;
        for number in 0..(10 - round as u8) {
            for key in KEYS {
                let key = at(key, b"");
                let backend = vertex.owner(key.group);
                let states = States::open(backend, false).unwrap();
                let mut batch = StateBatch::new();
                states.list.add(&mut batch, key, &[round as u8, number]);
                backend.write(batch).unwrap();
            }
            expected.push(vec![round as u8, number]);
        }
        vertex.checkpoint().await;
    }
    for key in KEYS {
        let key = at(key, b"");
        let backend = vertex.owner(key.group);
        let states = States::open(backend, false).unwrap();
        let list = states.list.elements(backend, key);
        assert_eq!(list.collect::<Result<Vec<_>, _>>().unwrap(), expected);
    }
}

/// Jobs of different shape number their states differently; then a restore copies, and what follows must still be in order.
#[tokio::test]
async fn a_list_keeps_its_order_when_it_is_copied() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///copied").unwrap();
    let mut saved = Vec::new();
    for subtask in 0..2 {
        let range = KeyGroupRange::of_subtask(subtask, MAX_PARALLELISM, 2);
        let dir = local.path().join(subtask.to_string());
        let mut task = Task::start(&dir, &storage, &format!("w-{subtask}"), range);
        if subtask == 1 {
            task.backend.state("another", "first").unwrap();
        }
        let states = States::open(&mut task.backend, false).unwrap();
        let mut batch = StateBatch::new();
        for key in KEYS.map(|key| at(key, b"")) {
            if range.contains(key.group) {
                (0..9u8).for_each(|number| states.list.add(&mut batch, key, &[number]));
            }
        }
        task.backend.write(batch).unwrap();
        saved.push(task.checkpoint(1).await.1);
    }
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let dir = local.path().join("both");
    let mut backend = restore(&dir, &storage, &saved, all).await.unwrap();
    assert!(backend.restored_files().is_empty(), "it was copied");
    let states = States::open(&mut backend, false).unwrap();
    for key in KEYS.map(|key| at(key, b"")) {
        let mut batch = StateBatch::new();
        states.list.add(&mut batch, key, &[9]);
        backend.write(batch).unwrap();
        let list = states.list.elements(&backend, key);
        let list: Vec<_> = list.map(|element| element.unwrap()[0]).collect();
        assert_eq!(list, (0..=9).collect::<Vec<u8>>());
    }
}

#[tokio::test]
async fn a_state_is_not_read_as_another_kind() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///another-kind").unwrap();
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let mut task = Task::start(&local.path().join("1"), &storage, "w-1", all);
    let descriptor = |ttl| StateDescriptor {
        operator_uid: "op",
        name: "seen",
        ttl,
    };
    ListState::open(&mut task.backend, &descriptor(None)).unwrap();
    let (_, saved) = task.checkpoint(1).await;
    let dir = local.path().join("2");
    let mut backend = restore(&dir, &storage, &[saved], all).await.unwrap();
    ListState::open(&mut backend, &descriptor(None)).unwrap();
    let as_map = MapState::open(&mut backend, &descriptor(None)).unwrap_err();
    assert_eq!(
        as_map.to_string(),
        "state seen of operator op is stored as list state without TTL, and asked for as map state without TTL; give the \
         operator another uid, or the state another name"
    );
    let ttl = Some(Duration::from_secs(1));
    let with_ttl = ListState::open(&mut backend, &descriptor(ttl)).unwrap_err();
    assert!(matches!(with_ttl, Error::OtherForm { .. }));
    assert!(matches!(
        backend.state("op", "seen"),
        Err(Error::OtherForm { .. })
    ));
}
