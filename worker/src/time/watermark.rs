//! The watermark of a task from the watermarks of its input channels.
//!
//! The combined watermark is the least watermark of the channels that take part. A channel takes no part while it is
//! idle, nor after its end of data. While nothing takes part because all the rest is idle, the greatest watermark of
//! the idle channels holds: so it does not matter in which order they became idle. Once all have ended it is
//! [`WATERMARK_END`].
//!
//! What must stay true: the combined watermark never goes back, and it never passes a channel that takes part, except
//! that a channel which was idle may be behind when it returns. Then the combined watermark waits for it.

use super::{WATERMARK_END, WATERMARK_NONE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Active,
    Idle,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    watermark: i64,
    status: Status,
}

/// Combines the watermarks of a task's input channels. Pure; all times are milliseconds.
#[derive(Clone, Debug)]
pub struct WatermarkValve {
    channels: Vec<Channel>,
    combined: i64,
}

impl WatermarkValve {
    /// A valve for that many channels, all active and without a watermark.
    pub fn new(channels: usize) -> Self {
        let fresh = Channel {
            watermark: WATERMARK_NONE,
            status: Status::Active,
        };
        Self {
            channels: vec![fresh; channels],
            combined: WATERMARK_NONE,
        }
    }

    /// The highest combined watermark so far; [`WATERMARK_NONE`] before the first.
    pub fn combined(&self) -> i64 {
        self.combined
    }

    /// Whether no channel is active and at least one is idle: the task is then idle for those after it.
    pub fn is_idle(&self) -> bool {
        let idle = |channel: &Channel| channel.status == Status::Idle;
        let active = |channel: &Channel| channel.status == Status::Active;
        self.channels.iter().any(idle) && !self.channels.iter().any(active)
    }

    /// Whether every channel has ended.
    pub fn is_ended(&self) -> bool {
        self.channels
            .iter()
            .all(|channel| channel.status == Status::Ended)
    }

    /// A channel's watermark rose. One that is lower than the channel's last is ignored. A watermark alone does not
    /// make an idle channel active. Returns the combined watermark if it rose.
    pub fn on_watermark(&mut self, channel: usize, watermark_ms: i64) -> Option<i64> {
        let channel = &mut self.channels[channel];
        channel.watermark = channel.watermark.max(watermark_ms);
        self.combine()
    }

    /// A channel says that it has nothing to send for the time being. Returns the combined watermark if it rose.
    pub fn on_idle(&mut self, channel: usize) -> Option<i64> {
        self.change(channel, Status::Idle)
    }

    /// A channel that was idle has data again.
    pub fn on_active(&mut self, channel: usize) -> Option<i64> {
        self.change(channel, Status::Active)
    }

    /// A channel has sent its last row. Returns the combined watermark if it rose.
    pub fn on_end_of_data(&mut self, channel: usize) -> Option<i64> {
        self.change(channel, Status::Ended)
    }

    fn change(&mut self, channel: usize, status: Status) -> Option<i64> {
        let channel = &mut self.channels[channel];
        if channel.status != Status::Ended {
            channel.status = status;
        }
        self.combine()
    }

    fn combine(&mut self) -> Option<i64> {
        let of = |status: Status| {
            let channels = self.channels.iter().filter(move |c| c.status == status);
            channels.map(|channel| channel.watermark)
        };
        let combined = of(Status::Active)
            .min()
            .or_else(|| of(Status::Idle).max())
            .unwrap_or(WATERMARK_END);
        (combined > self.combined).then(|| {
            self.combined = combined;
            combined
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_slowest_channel_holds_the_watermark() {
        let mut valve = WatermarkValve::new(2);
        assert_eq!(valve.on_watermark(0, 10), None);
        assert_eq!(valve.on_watermark(1, 7), Some(7));
        assert_eq!(valve.on_watermark(1, 9), Some(9));
        assert_eq!(valve.on_watermark(1, 8), None);
        assert_eq!(valve.on_watermark(1, 30), Some(10));
    }

    #[test]
    fn an_idle_channel_holds_nothing_and_is_waited_for_when_it_returns() {
        let mut valve = WatermarkValve::new(2);
        valve.on_watermark(0, 10);
        assert_eq!(valve.on_idle(1), Some(10));
        assert!(!valve.is_idle());
        assert_eq!(valve.on_active(1), None);
        assert_eq!(valve.on_watermark(0, 20), None);
        assert_eq!(valve.on_watermark(1, 15), Some(15));
        valve.on_idle(1);
        assert_eq!(valve.on_idle(0), None);
        assert!(valve.is_idle());
    }

    #[test]
    fn an_idle_channel_is_not_an_ended_one() {
        let mut valve = WatermarkValve::new(2);
        valve.on_watermark(0, 10);
        assert_eq!(valve.on_idle(0), None);
        assert_eq!(valve.on_end_of_data(1), Some(10));
        assert!(valve.is_idle());
        assert_eq!(valve.on_end_of_data(0), Some(WATERMARK_END));
        assert!(valve.is_ended() && !valve.is_idle());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Watermark(usize, i64),
        Idle(usize),
        Active(usize),
        End(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let channel = 0..3usize;
        let step = prop_oneof![
            6 => (channel.clone(), -5i64..50).prop_map(|(c, w)| Step::Watermark(c, w)),
            2 => channel.clone().prop_map(Step::Idle),
            2 => channel.clone().prop_map(Step::Active),
            1 => channel.prop_map(Step::End),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_never_passes_a_channel_that_takes_part(steps in steps()) {
            let mut valve = WatermarkValve::new(3);
            for step in steps {
                let before = valve.combined();
                let rose = match step {
                    Step::Watermark(c, w) => valve.on_watermark(c, w),
                    Step::Idle(c) => valve.on_idle(c),
                    Step::Active(c) => valve.on_active(c),
                    Step::End(c) => valve.on_end_of_data(c),
                };
                match rose {
                    Some(new) => prop_assert!(new > before && new == valve.combined()),
                    None => prop_assert_eq!(valve.combined(), before),
                }
                if rose.is_some() {
                    for channel in &valve.channels {
                        prop_assert!(channel.status != Status::Active || channel.watermark >= valve.combined);
                    }
                }
                prop_assert_eq!(valve.is_ended(), valve.combined() == WATERMARK_END);
            }
        }

        #[test]
        fn the_order_in_which_channels_fall_idle_does_not_matter(
            watermarks in prop::array::uniform3(0i64..100), order in Just([0usize, 1, 2]).prop_shuffle()
        ) {
            let mut valve = WatermarkValve::new(3);
            for (channel, watermark) in watermarks.into_iter().enumerate() {
                valve.on_watermark(channel, watermark);
            }
            for channel in order {
                valve.on_idle(channel);
            }
            prop_assert_eq!(valve.combined(), watermarks.into_iter().max().unwrap_or_default());
        }
    }
}
