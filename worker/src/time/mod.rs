//! Event time: how far each input has come, and what that means for a task.
//!
//! - [`watermark`]: the watermark of a task from those of its inputs. Pure.
//! - [`calendar`]: civil dates and times of day as numbers since 1970, and their text. Pure.

pub mod calendar;
pub mod watermark;

/// The watermark of an input that has not said anything yet: below every other.
pub const WATERMARK_NONE: i64 = i64::MIN;

/// The watermark of an input that has ended: every window closes.
pub const WATERMARK_END: i64 = i64::MAX;
