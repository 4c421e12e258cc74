//! Whose write is next: a queue for each namespace, served in turn by bytes (deficit round robin), so that a tenant
//! that writes much waits for itself and not the others for it.

use std::collections::{BTreeMap, VecDeque};

/// Bytes that a namespace may send in its turn.
const TURN_BYTES: usize = 64 << 10;
/// What waits for one namespace at most; more is refused.
const NAMESPACE_BYTES_MAX: usize = 16 << 20;
const NAMESPACE_ITEMS_MAX: usize = 16_384;
/// What waits in all.
const TOTAL_BYTES_MAX: usize = 64 << 20;
/// What an item costs beside its bytes, so that small ones count too.
const ITEM_BYTES: usize = 128;

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    /// What it may still send in this turn.
    credit: usize,
}

/// Items of many tenants.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lanes: BTreeMap<String, Lane<T>>,
    /// The namespaces with items, whose turn it is first.
    turns: VecDeque<String>,
    bytes: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Queues an item; gives it back if too much is waiting.
    pub(super) fn push(&mut self, namespace: &str, bytes: usize, item: T) -> Result<(), T> {
        let bytes = bytes + ITEM_BYTES;
        let lane = self.lanes.get(namespace);
        let full = lane.is_some_and(|lane| {
            lane.items.len() >= NAMESPACE_ITEMS_MAX || lane.bytes + bytes > NAMESPACE_BYTES_MAX
        });
        if full || self.bytes + bytes > TOTAL_BYTES_MAX {
            return Err(item);
        }
        self.bytes += bytes;
        match self.lanes.get_mut(namespace) {
            Some(lane) => {
                lane.bytes += bytes;
                lane.items.push_back((bytes, item));
            }
            None => {
                let lane = Lane {
                    items: VecDeque::from([(bytes, item)]),
                    bytes,
                    credit: TURN_BYTES,
                };
                self.lanes.insert(namespace.to_owned(), lane);
                self.turns.push_back(namespace.to_owned());
            }
        }
        Ok(())
    }

    /// Takes the next items, up to `items_max` and about `bytes_max`, in the order in which each namespace queued them.
    pub(super) fn take(&mut self, items_max: usize, bytes_max: usize) -> Vec<T> {
        let mut taken = Vec::new();
        let mut taken_bytes = 0;
        while taken.len() < items_max && taken_bytes < bytes_max {
            let Some(namespace) = self.turns.front() else {
                break;
            };
            let lane = self.lanes.get_mut(namespace);
            let lane = lane.expect("whoever has a turn has items");
            let (bytes, item) = lane.items.pop_front().expect("a lane has items");
            taken.push(item);
            taken_bytes += bytes;
            self.bytes -= bytes;
            lane.bytes -= bytes;
            lane.credit = lane.credit.saturating_sub(bytes);
            let (empty, spent) = (lane.items.is_empty(), lane.credit == 0);
            if (empty || spent)
                && let Some(namespace) = self.turns.pop_front()
            {
                if empty {
                    self.lanes.remove(&namespace);
                } else {
                    lane.credit = TURN_BYTES;
                    self.turns.push_back(namespace);
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_keeps_its_order() {
        let mut queue = FairQueue::default();
        for n in 0..100 {
            queue
                .push(if n % 3 == 0 { "a" } else { "b" }, 10, n)
                .unwrap();
        }
        let mut all = Vec::new();
        while queue.bytes > 0 {
            all.extend(queue.take(7, 1 << 20));
        }
        for rest in [0, 1] {
            let of: Vec<i32> = all
                .iter()
                .copied()
                .filter(|n| i32::from(n % 3 != 0) == rest)
                .collect();
            assert!(of.is_sorted());
        }
        assert_eq!(all.len(), 100);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_tenant_with_much_does_not_hold_up_one_with_little() {
        let mut queue = FairQueue::default();
        for n in 0..1000 {
            queue
                .push("greedy", 16 << 10, n)
                .unwrap_or_else(|_| panic!("full at {n}"));
        }
        queue.push("modest", 100, -1).unwrap();
        let taken = queue.take(1000, 2 * TURN_BYTES);
        assert!(taken.contains(&-1), "{taken:?}");
    }

    #[test]
    fn what_is_too_much_is_given_back() {
        let mut queue = FairQueue::default();
        let mut accepted = 0;
        while queue.push("a", 1 << 20, accepted).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, 15);
        assert!(
            queue.push("b", 1 << 20, 0).is_ok(),
            "others still have room"
        );
        queue.take(1, 1);
        assert!(queue.push("a", 1 << 10, 0).is_ok());
    }
}
