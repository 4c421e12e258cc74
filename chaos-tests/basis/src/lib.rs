//! What real-process tests and the simulation share: chance, and a job whose right result is known in advance;
//! and the page by which a process is told what its clock and its disk do.
//!
//! - [`control`]: that page, which the harness writes and the preload library reads.
//! - [`random`]: every choice of a run follows from its seed.
//! - [`sequence`]: a job over any number of records, and the rows that it has to commit.
//!
//! Must stay true: nothing here knows any crate of Flott's, since the real-process tests link none of the code under test.

pub mod control;
pub mod random;
pub mod sequence;
