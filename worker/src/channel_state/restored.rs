//! The input that a task has taken over from the restored checkpoint and not yet processed. Pure.

use std::collections::VecDeque;

use crate::network::gate::CHANNEL_CREDIT;
use crate::network::{ChannelId, Cost, Element};

/// In the order in which it is processed, before anything that the channels bring.
#[derive(Debug, Default)]
pub struct Restored {
    elements: VecDeque<(ChannelId, Element)>,
    cost: Cost,
}

impl Restored {
    pub fn new(elements: Vec<(ChannelId, Element)>) -> Self {
        let mut cost = Cost::default();
        for (_, element) in &elements {
            cost += element.cost();
        }
        Self {
            elements: elements.into(),
            cost,
        }
    }

    /// The next element. A row may be of a channel that is no more.
    pub fn pop(&mut self) -> Option<(ChannelId, Element)> {
        let (channel, element) = self.elements.pop_front()?;
        self.cost -= element.cost();
        Some((channel, element))
    }

    /// Whether a task with that many channels may store it again: what is stored must not grow from failure to failure.
    pub fn may_be_stored(&self, channels: usize) -> bool {
        let channels = channels as u64;
        self.cost.rows <= channels * CHANNEL_CREDIT.rows
            && self.cost.bytes <= channels * CHANNEL_CREDIT.bytes
    }

    /// What waits in the task's channels, with what is here before it. Rows of a channel that is no more are stored as
    /// those of another along the same edge.
    pub fn before(
        &self,
        mut channels: Vec<(ChannelId, Vec<Element>)>,
    ) -> Vec<(ChannelId, Vec<Element>)> {
        let mut before = vec![Vec::new(); channels.len()];
        for (channel, element) in &self.elements {
            let mut known = channels.iter();
            let own = known.position(|(id, _)| id == channel);
            let at = own.or_else(|| channels.iter().position(|(id, _)| id.edge == channel.edge));
            before[at.expect("what is restored came along an edge into the task")]
                .push(element.clone());
        }
        for ((_, elements), mut first) in channels.iter_mut().zip(before) {
            first.append(elements);
            *elements = first;
        }
        channels
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;

    use super::*;

    fn channel(edge: u32, source: u32) -> ChannelId {
        ChannelId {
            edge,
            source,
            target: 0,
        }
    }

    fn rows(count: usize) -> Element {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; count]));
        Element::Data(RecordBatch::try_from_iter([("x", column)]).unwrap())
    }

    #[test]
    fn what_is_left_comes_first_in_its_channel_or_in_one_of_its_edge() {
        let mut restored = Restored::new(vec![
            (channel(0, 0), rows(1)),
            (channel(1, 7), rows(2)),
            (channel(1, 1), Element::Watermark(5)),
        ]);
        assert_eq!(restored.pop(), Some((channel(0, 0), rows(1))));
        let waiting = vec![
            (channel(0, 0), vec![rows(3)]),
            (channel(1, 0), vec![rows(4)]),
            (channel(1, 1), vec![]),
        ];
        let joined = vec![
            (channel(0, 0), vec![rows(3)]),
            (channel(1, 0), vec![rows(2), rows(4)]),
            (channel(1, 1), vec![Element::Watermark(5)]),
        ];
        assert_eq!(restored.before(waiting), joined);
    }

    #[test]
    fn more_than_the_credit_is_processed_before_it_is_stored_again() {
        let credit = CHANNEL_CREDIT.rows as usize;
        let elements = vec![(channel(0, 0), rows(credit)), (channel(0, 0), rows(1))];
        let mut restored = Restored::new(elements);
        assert!(restored.may_be_stored(2));
        assert!(!restored.may_be_stored(1));
        restored.pop();
        assert!(restored.may_be_stored(1));
    }
}
