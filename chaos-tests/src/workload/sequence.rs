//! A job whose right result follows from a formula, however many records it reads: consecutive numbers, dealt to keys, go
//! over a hash exchange into keyed state, and through an exactly-once sink into files.
//!
//! ```text
//! record k (k = 0, 1, …): number 1000 + k, event time k ms after 1970, key (1000 + k) modulo KEYS
//! committed, for each window of a second and each key: how many numbers, the least, the greatest, their sum
//! ```
//!
//! The numbers are the ids of persons of the Nexmark source, one of which is among 50 events. So every row of the output
//! speaks of three or four records that are known in advance, and [`crate::invariants::sequence`] tells each loss, each
//! duplicate and each swap of places by reading committed files alone.

use std::path::Path;

/// The number of the first record.
pub const FIRST: u64 = 1_000;
/// Keys that the numbers are dealt to.
pub const KEYS: u64 = 256;
/// Records of one window: one a millisecond.
pub const WINDOW: u64 = 1_000;
/// Of the source's events, one in so many is a record.
const EVENTS_PER_RECORD: u64 = 50;
/// Milliseconds by which a record may be behind an earlier one. After a change of parallelism the source's lanes, which
/// were at different places, are read side by side.
const DISORDER_MS: u64 = 10_000;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Records in all; 0: without end.
    pub records: u64,
    /// 0: as fast as possible.
    pub records_per_second: u64,
}

impl Sequence {
    /// The job that commits to the directory `output`.
    pub fn sql(self, output: &Path) -> String {
        format!(
            "CREATE TABLE numbers (id BIGINT, date_time TIMESTAMP(3),
  WATERMARK FOR date_time AS date_time - INTERVAL '{}' SECOND
) WITH ('connector' = 'nexmark', 'nexmark.table-type' = 'person', 'nexmark.base-time' = '0',
  'nexmark.interval-us' = '{}', 'nexmark.events' = '{}', 'nexmark.events-per-second' = '{}');
CREATE TABLE sequences (
  window_start TIMESTAMP(3), k BIGINT, records BIGINT, least BIGINT, greatest BIGINT, total BIGINT
) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');
INSERT INTO sequences
SELECT window_start, MOD(id, {KEYS}) AS k, COUNT(*) AS records, MIN(id) AS least, MAX(id) AS greatest, SUM(id) AS total
FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(date_time), INTERVAL '{}' SECOND))
GROUP BY window_start, window_end, MOD(id, {KEYS});
",
            DISORDER_MS / 1_000,
            1_000 / EVENTS_PER_RECORD,
            self.records * EVENTS_PER_RECORD,
            self.records_per_second * EVENTS_PER_RECORD,
            output.display(),
            WINDOW / 1_000,
        )
    }
}
