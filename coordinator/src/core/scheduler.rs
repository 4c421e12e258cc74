//! Which TaskManager runs which subtask. A pure solver: problem in, solution out.
//!
//! A slot holds the subtasks of one index, of all vertices of a job (slot sharing). Goals, in this order:
//!
//! - **A** never more slots of a TaskManager than it has free;
//! - **B** all or nothing: a job starts whole or waits;
//! - **C** a subtask returns to the TaskManager it ran on before, where its files are;
//! - **D** the rest spreads evenly: the TaskManager with the most free slots first, then by id.

use std::collections::BTreeMap;

use flott_proto::ids::TaskManagerId;

/// The TaskManager for each subtask index `0..slots_needed`.
///
/// `free` are the free slots of each TaskManager; `before` is where an index ran last, if anywhere.
/// Fails with the number of slots that are missing.
pub fn assign(
    slots_needed: u32,
    free: &BTreeMap<TaskManagerId, u32>,
    before: &BTreeMap<u32, TaskManagerId>,
) -> Result<BTreeMap<u32, TaskManagerId>, u32> {
    let available = slots_in(free);
    if available < slots_needed {
        return Err(slots_needed - available);
    }
    let mut free = free.clone();
    let mut placed = BTreeMap::new();
    for (index, task_manager) in before.range(..slots_needed) {
        if let Some(slots) = free.get_mut(task_manager).filter(|slots| **slots > 0) {
            *slots -= 1;
            placed.insert(*index, task_manager.clone());
        }
    }
    for index in 0..slots_needed {
        if placed.contains_key(&index) {
            continue;
        }
        let most = free
            .iter()
            .max_by(|(a_id, a), (b_id, b)| a.cmp(b).then(b_id.cmp(a_id)));
        let chosen = most
            .map(|(id, _)| id.clone())
            .expect("there are enough slots");
        *free.get_mut(&chosen).expect("it was just found") -= 1;
        placed.insert(index, chosen);
    }
    assert_eq!(placed.len() as u32, slots_needed);
    Ok(placed)
}

/// How many that is in all. Each number is the word of a TaskManager.
pub fn slots_in(free: &BTreeMap<TaskManagerId, u32>) -> u32 {
    let slots = free.values().copied();
    slots.fold(0, u32::saturating_add)
}

/// Where each index of another parallelism comes from. Of the indexes between which the work of an earlier one is divided,
/// the first inherits its place, so that its files are there already; the others are free to spread.
pub fn heirs(
    before: &BTreeMap<u32, TaskManagerId>,
    slots_needed: u32,
) -> BTreeMap<u32, TaskManagerId> {
    let earlier = before.len() as u64;
    let ancestor = |index: u32| (u64::from(index) * earlier / u64::from(slots_needed)) as u32;
    let first = |index: &u32| *index == 0 || ancestor(*index - 1) != ancestor(*index);
    (0..slots_needed)
        .filter(first)
        .filter_map(|index| Some((index, before.get(&ancestor(index))?.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u32) -> TaskManagerId {
        format!("tm-{n}").parse().unwrap()
    }

    #[test]
    fn more_slots_than_can_be_counted_are_enough() {
        let free = BTreeMap::from([(id(1), u32::MAX), (id(2), u32::MAX)]);
        assert_eq!(assign(3, &free, &BTreeMap::new()).unwrap().len(), 3);
    }

    proptest! {
        #[test]
        fn fits_whole_sticks_and_never_overfills(
            slots in prop::collection::vec(0u32..5, 0..6),
            needed in 0u32..12,
            ran_on in prop::collection::btree_map(0u32..12, 0u32..8, 0..12),
        ) {
            let free: BTreeMap<_, _> = slots.iter().enumerate().map(|(n, slots)| (id(n as u32), *slots)).collect();
            let before: BTreeMap<_, _> = ran_on.iter().map(|(index, n)| (*index, id(*n))).collect();
            let total: u32 = slots.iter().sum();
            match assign(needed, &free, &before) {
                Err(missing) => prop_assert_eq!(missing, needed - total),
                Ok(placed) => {
                    prop_assert!(placed.keys().copied().eq(0..needed));
                    for (task_manager, slots) in &free {
                        let used = placed.values().filter(|placed| *placed == task_manager).count() as u32;
                        prop_assert!(used <= *slots);
                        let wanted = before.range(..needed).filter(|(_, before)| *before == task_manager);
                        let returned = wanted.clone().filter(|(index, _)| placed[index] == *task_manager).count();
                        prop_assert_eq!(returned, wanted.count().min(*slots as usize), "goal C");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_of_those_that_divide_the_work_inherits_the_place() {
        let places = |indexes: &[(u32, u32)]| -> BTreeMap<u32, TaskManagerId> {
            indexes
                .iter()
                .map(|(index, tm)| (*index, id(*tm)))
                .collect()
        };
        let two = places(&[(0, 1), (1, 2)]);
        assert_eq!(heirs(&two, 2), two);
        assert_eq!(heirs(&two, 4), places(&[(0, 1), (2, 2)]));
        assert_eq!(heirs(&two, 3), places(&[(0, 1), (2, 2)]));
        assert_eq!(heirs(&two, 1), places(&[(0, 1)]));
        let four = places(&[(0, 1), (1, 2), (2, 3), (3, 4)]);
        assert_eq!(heirs(&four, 2), places(&[(0, 1), (1, 3)]));
        assert_eq!(heirs(&BTreeMap::new(), 2), BTreeMap::new());
    }

    #[test]
    fn spreads_evenly() {
        let free = BTreeMap::from([(id(1), 2), (id(2), 2)]);
        let placed = assign(2, &free, &BTreeMap::new()).unwrap();
        assert_eq!(placed, BTreeMap::from([(0, id(1)), (1, id(2))]));
    }
}
