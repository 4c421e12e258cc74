//! The elements of one channel that wait at one place, in order. Pure.
//!
//! Data is bounded by the channel's credit. Control elements need none, so a run of watermarks and changes of idleness
//! without data between them is kept as its outcome: one watermark and one idleness at most. Barriers are bounded by
//! the checkpoints in flight, and the end of data comes once.

use std::collections::VecDeque;

use flott_proto::ids::CheckpointId;

use super::{Cost, Element};

/// A channel's waiting elements with what each takes of the credit.
#[derive(Debug, Default)]
pub struct ElementQueue {
    elements: VecDeque<(Element, Cost)>,
}

impl ElementQueue {
    /// Appends; watermarks and idleness merge with those directly before.
    pub fn push(&mut self, element: Element, cost: Cost) {
        let (mut watermark, mut idle) = match element {
            Element::Watermark(time) => (Some(time), None),
            Element::Idle(idle) => (None, Some(idle)),
            other => return self.elements.push_back((other, cost)),
        };
        while let Some((last, _)) = self.elements.back() {
            match *last {
                Element::Watermark(time) => {
                    watermark = Some(watermark.map_or(time, |own| own.max(time)))
                }
                Element::Idle(before) => idle = idle.or(Some(before)),
                _ => break,
            }
            self.elements.pop_back();
        }
        let merged = [watermark.map(Element::Watermark), idle.map(Element::Idle)];
        let free = |element| (element, Cost::default());
        self.elements.extend(merged.into_iter().flatten().map(free));
    }

    /// The oldest element.
    pub fn pop(&mut self) -> Option<(Element, Cost)> {
        self.elements.pop_front()
    }

    /// Puts the oldest element back to where it was.
    pub fn put_back(&mut self, element: Element, cost: Cost) {
        self.elements.push_front((element, cost));
    }

    /// Rows and watermarks before the barrier of that checkpoint; `None` if it is not here.
    pub fn before(&self, checkpoint: CheckpointId) -> Option<Vec<Element>> {
        let is_its_barrier = |element: &Element| matches!(element, Element::Barrier(barrier) if barrier.checkpoint == checkpoint);
        let end = self.elements().position(is_its_barrier)?;
        Some(
            self.elements()
                .take(end)
                .filter(|element| element.is_stored())
                .cloned()
                .collect(),
        )
    }

    /// All elements, the oldest first.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.elements.iter().map(|(element, _)| element)
    }

    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.elements.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(mut queue: ElementQueue) -> Vec<Element> {
        std::iter::from_fn(|| queue.pop())
            .map(|(element, _)| element)
            .collect()
    }

    fn queue_of(elements: impl IntoIterator<Item = Element>) -> ElementQueue {
        let mut queue = ElementQueue::default();
        for element in elements {
            queue.push(element, Cost::default());
        }
        queue
    }

    #[test]
    fn watermarks_merge_but_never_across_what_has_a_place_in_the_stream() {
        use Element::{EndOfData, Idle, Watermark};
        let queue = queue_of([
            Watermark(1),
            Idle(true),
            Watermark(3),
            Idle(false),
            EndOfData,
            Watermark(4),
            Watermark(2),
        ]);
        assert_eq!(
            drain(queue),
            [Watermark(3), Idle(false), EndOfData, Watermark(4)]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_run_without_data_takes_at_most_two_places(run in prop::collection::vec((any::<bool>(), 0i64..100), 1..50)) {
            let element = |&(watermark, value): &(bool, i64)| {
                if watermark { Element::Watermark(value) } else { Element::Idle(value % 2 == 0) }
            };
            let out = drain(queue_of(run.iter().map(element)));
            prop_assert!(out.len() <= 2);
            let highest = run.iter().filter(|(watermark, _)| *watermark).map(|(_, time)| *time).max();
            let last_idle = run.iter().rfind(|(watermark, _)| !watermark).map(|(_, value)| value % 2 == 0);
            let expected: Vec<_> = highest.map(Element::Watermark).into_iter().chain(last_idle.map(Element::Idle)).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
