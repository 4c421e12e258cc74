//! Replays the corpus, then makes inputs of it.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bolero::{TargetLocation, Test};
use bolero_engine::Input;
use bolero_engine::driver;
use bolero_engine::input::Bytes;
use bolero_engine::panic::{self, PanicError};

use crate::allocations;
use crate::gather::{Gathering, files, save};
use crate::mutate::mutate;
use crate::outcome::outcome_of;
use crate::random::Random;

/// Inputs of an ordinary test: a second or less in a debug build, for most targets.
const INPUTS: usize = 3000;

/// Of an input that is made of nothing.
const RANDOM_BYTES_MAX: usize = 512;

/// What a call may take whatever its input is.
const ALLOCATED_BYTES_MAX: usize = 4 << 20;

/// And for each byte of its input: a decoded value takes more room than an encoded one.
const ALLOCATED_BYTES_PER_BYTE: usize = 256;

/// What is cut out of an input that is to be kept: a try for each byte would take too long.
const CUT_BYTES_MIN: usize = 8;

/// What inputs are made of, and how many.
#[derive(Clone, Debug)]
pub struct Seeds {
    seeds: Vec<Vec<u8>>,
    words: Vec<String>,
    inputs: usize,
    allocated_bytes_max: usize,
}

impl Seeds {
    /// None: inputs are random, and what is in the corpus.
    pub fn none() -> Self {
        Self {
            seeds: Vec::new(),
            words: Vec::new(),
            inputs: INPUTS,
            allocated_bytes_max: ALLOCATED_BYTES_MAX,
        }
    }

    /// Inputs as they should be.
    pub fn of<S: Into<Vec<u8>>>(seeds: impl IntoIterator<Item = S>) -> Self {
        Self {
            seeds: seeds.into_iter().map(Into::into).collect(),
            ..Self::none()
        }
    }

    /// Words that are put into inputs.
    #[must_use]
    pub fn words<'a>(mut self, words: impl IntoIterator<Item = &'a str>) -> Self {
        self.words = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// So many inputs in an ordinary test, where each takes long.
    #[must_use]
    pub fn inputs(mut self, inputs: usize) -> Self {
        self.inputs = inputs;
        self
    }

    /// What a call may take for a small input, where that is more than usual.
    #[must_use]
    pub fn allocating(mut self, bytes_max: usize) -> Self {
        self.allocated_bytes_max = bytes_max;
        self
    }
}

/// What [`crate::check`] makes.
#[derive(Debug)]
pub struct Target(pub(crate) Engine);

impl Target {
    /// Tests each input.
    pub fn for_each(self, test: impl FnMut(&[u8])) {
        bolero::Engine::run(self.0, OfBytes(test), driver::Options::default());
    }

    /// The same for values that are made of the bytes.
    pub fn of_values(
        self,
    ) -> bolero::TestTarget<bolero::ByteSliceGenerator, Engine, bolero::BorrowedInput> {
        bolero::TestTarget::<_, Engine, _>::new(self.0)
    }
}

/// A test that may refer to anything: after a panic nothing is looked at any more.
struct OfBytes<F>(F);

impl<F: FnMut(&[u8])> Test for OfBytes<F> {
    type Value = Vec<u8>;

    fn test<T: Input<Result<bool, PanicError>>>(
        &mut self,
        input: &mut T,
    ) -> Result<bool, PanicError> {
        input.with_slice(&mut |bytes| {
            panic::catch(AssertUnwindSafe(|| {
                (self.0)(bytes);
                Ok(true)
            }))
        })
    }

    fn generate_value<T: Input<Self::Value>>(&self, input: &mut T) -> Self::Value {
        input.with_slice(&mut |bytes| bytes.to_vec())
    }
}

/// Of one target.
#[derive(Debug)]
pub struct Engine {
    location: TargetLocation,
    seeds: Seeds,
}

impl Engine {
    pub(crate) fn new(location: TargetLocation, seeds: Seeds) -> Self {
        Self { location, seeds }
    }

    fn directory(&self) -> PathBuf {
        self.location.work_dir().expect("the source file is there")
    }
}

impl<T: Test> bolero::Engine<T> for Engine {
    type Output = ();

    #[cfg(not(fuzzing))]
    #[allow(
        clippy::print_stdout,
        reason = "whoever asked for so many seconds reads it"
    )]
    fn run(self, test: T, options: driver::Options) {
        panic::set_hook();
        panic::forward_panic(false);
        let directory = self.directory();
        let name = self.location.item_path();
        let mut corpus = files(&directory.join("corpus"));
        let crashes = files(&directory.join("crashes"));
        if setting("FLOTT_FUZZ_SAVE_SEEDS").is_some() {
            save(&directory.join("corpus"), &self.seeds.seeds);
        }
        corpus.extend(self.seeds.seeds.iter().cloned());
        let gathers = setting("FLOTT_FUZZ_GATHER").is_some();
        let mut run = Run {
            test,
            options,
            gathering: gathers.then(|| Gathering::begin(&directory.join("corpus"))),
            directory,
            allocated_bytes_max: self.seeds.allocated_bytes_max,
        };
        for input in crashes.iter().chain(&corpus) {
            let outcome = run.feed(input);
            if let Some(gathering) = &mut run.gathering {
                gathering.know(outcome);
            }
        }
        let mut random = Random::named(&name);
        for _ in 0..self.seeds.inputs {
            run.try_out(self.seeds.input(&corpus, &mut random));
        }
        if let Some(seconds) = setting("FLOTT_FUZZ_SECONDS") {
            let inputs = run.fuzz(&self.seeds, corpus, Duration::from_secs(seconds));
            println!("{name}: {inputs} inputs in {seconds} s");
        }
        if let Some(gathering) = &run.gathering {
            println!("{name}: {} inputs gathered", gathering.added);
        }
        panic::forward_panic(true);
    }

    /// Another engine of bolero's takes over, and begins with the seeds.
    #[cfg(fuzzing)]
    fn run(self, test: T, options: driver::Options) {
        save(&self.directory().join("corpus"), &self.seeds.seeds);
        bolero::DefaultEngine::new(self.location).run(test, options)
    }
}

impl Seeds {
    fn input(&self, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut input = random.pick(corpus).cloned().unwrap_or_default();
        if input.is_empty() {
            let length = random.below(RANDOM_BYTES_MAX + 1);
            input.extend((0..length).map(|_| random.next() as u8));
        }
        mutate(&mut input, corpus, &self.words, random);
        input
    }
}

struct Run<T> {
    test: T,
    options: driver::Options,
    directory: PathBuf,
    allocated_bytes_max: usize,
    /// None: nobody asked for it.
    gathering: Option<Gathering>,
}

impl<T: Test> Run<T> {
    /// Tests one input; what became of it, if a corpus is gathered.
    fn feed(&mut self, input: &[u8]) -> String {
        let Self { test, options, .. } = self;
        let mut test = || test.test(&mut Bytes::new(input, options));
        let ((tested, outcome), peak) = allocations::peak(|| match self.gathering {
            Some(_) => outcome_of(test),
            None => (test(), String::new()),
        });
        let most = self.allocated_bytes_max + input.len() * ALLOCATED_BYTES_PER_BYTE;
        let failure = match tested {
            Err(error) => error.to_string(),
            Ok(_) if peak > most => {
                format!("{peak} bytes allocated for an input of {}", input.len())
            }
            Ok(_) => return outcome,
        };
        let path = save(&self.directory.join("crashes"), [input]);
        panic::forward_panic(true);
        panic!(
            "{failure}\nThe input, of {} bytes, is in {}:\n{}",
            input.len(),
            path.display(),
            input.escape_ascii()
        );
    }

    /// Tests one input, and keeps it in the corpus if that is to be done; the input that was kept.
    fn try_out(&mut self, input: Vec<u8>) -> Option<Vec<u8>> {
        let outcome = self.feed(&input);
        if !self.gathering.as_ref()?.wants(&outcome) {
            return None;
        }
        let input = self.shorten(input, &outcome);
        let is_kept = self.gathering.as_mut()?.keep(&input, outcome);
        is_kept.then_some(input)
    }

    /// An input of fewer bytes of which the same becomes.
    fn shorten(&mut self, mut input: Vec<u8>, outcome: &str) -> Vec<u8> {
        let mut length = input.len() / 2;
        while length >= CUT_BYTES_MIN {
            let mut at = 0;
            while at + length <= input.len() {
                let shorter = [&input[..at], &input[at + length..]].concat();
                if self.feed(&shorter) == outcome {
                    input = shorter;
                } else {
                    at += length;
                }
            }
            length /= 4;
        }
        input
    }

    /// How many inputs that were. What is kept of them is mutated, too.
    #[allow(
        clippy::disallowed_methods,
        reason = "somebody asked for so many seconds, with numbers that are not those of the last time"
    )]
    fn fuzz(&mut self, seeds: &Seeds, mut corpus: Vec<Vec<u8>>, time: Duration) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut random = Random::new(since_epoch.map_or(0, |time| time.as_nanos() as u64));
        let begun = Instant::now();
        let mut inputs = 0;
        while begun.elapsed() < time {
            let kept = self.try_out(seeds.input(&corpus, &mut random));
            corpus.extend(kept);
            inputs += 1;
        }
        inputs
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "these are settings of a test, not of the product"
)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
