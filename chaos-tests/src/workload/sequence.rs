//! The job of [`flott_chaos_basis::sequence`] on real processes: [`crate::invariants::sequence`] tells each loss, each
//! duplicate and each swap of places by reading committed files alone. A row is of three or four records.

use flott_chaos_basis::sequence::Sequence;

/// Keys that the numbers are dealt to.
pub const KEYS: u64 = 256;
/// By so much the lanes of a source that goes on with another parallelism may be apart.
const DISORDER_S: u64 = 10;

/// So many records, at so many a second; 0: without end, and as fast as possible.
pub fn sequence(records: u64, records_per_second: u64) -> Sequence {
    Sequence {
        keys: KEYS,
        records,
        records_per_second,
        disorder_s: DISORDER_S,
    }
}
