//! Feeds decoders with what they do not expect: a decoder of bytes that cross a boundary may refuse anything, but it must not
//! panic, and must not allocate what a length that lies asks for.
//!
//! ```text
//! #[test]
//! fn any_bytes_are_a_frame_or_refused() {
//!     flott_decoders::check!(Seeds::of([encoded()])).for_each(|bytes: &[u8]| {
//!         if let Ok(frame) = told(decode(bytes)) {
//!             assert_eq!(encode(&frame), bytes);
//!         }
//!     });
//! }
//! ```
//!
//! It is a target of `bolero`. As an ordinary test it replays the corpus that is checked in
//! (`__fuzz__/<target>/corpus/` beside the source file) and then a fixed number of inputs that `mutate` makes of corpus
//! and seeds; the random numbers are those of the target's name, so each run is the same. Beyond that:
//!
//! - `FLOTT_FUZZ_SECONDS=60` goes on for so long with other numbers (`make fuzz`).
//! - `FLOTT_FUZZ_GATHER=1` adds to the corpus what becomes of no other input. What becomes of one, the target says by [`told`]
//!   and [`kind`].
//! - `FLOTT_FUZZ_SAVE_SEEDS=1` writes the seeds into the corpus.
//! - `cargo bolero test TARGET` lets a coverage-guided engine take over.
//!
//! An input that fails is written to `__fuzz__/<target>/crashes/`, and replayed from there until it is deleted, or moved into the
//! corpus once it is mended.
//!
//! - `engine`: what runs. `allocations`: how much one call takes. `mutate`, `random`: other inputs from given ones.
//!   `outcome`: what became of an input. `gather`: which are kept.

mod allocations;
mod engine;
mod gather;
mod mutate;
mod outcome;
mod random;

pub use bolero;
pub use engine::{Engine, Seeds, Target};
pub use outcome::{kind, told};

/// A target named like the test that it stands in, to be continued with `.for_each(…)`; or with `.of_values()`, and then as
/// `bolero::check!()` is, for values that are made of the bytes.
#[macro_export]
macro_rules! check {
    ($seeds:expr) => {{
        let location = $crate::bolero::TargetLocation {
            package_name: env!("CARGO_PKG_NAME"),
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            module_path: module_path!(),
            file: file!(),
            line: line!(),
            item_path: $crate::bolero::__item_path__!(),
            test_name: None,
        };
        if !location.should_run() {
            return;
        }
        $crate::target(location, $seeds)
    }};
}

#[doc(hidden)]
pub fn target(location: bolero::TargetLocation, seeds: Seeds) -> Target {
    Target(Engine::new(location, seeds))
}

#[cfg(test)]
mod tests;
