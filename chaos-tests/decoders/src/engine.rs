//! Replays the corpus, then makes inputs of it.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bolero::{TargetLocation, Test};
use bolero_engine::Input;
use bolero_engine::driver;
use bolero_engine::input::Bytes;
use bolero_engine::panic::{self, PanicError};

use crate::allocations;
use crate::mutate::mutate;
use crate::random::Random;

/// Inputs of an ordinary test: a second or less in a debug build, for most targets.
const INPUTS: usize = 3000;

/// Of an input that is made of nothing.
const RANDOM_BYTES_MAX: usize = 512;

/// What a call may take whatever its input is.
const ALLOCATED_BYTES_MAX: usize = 4 << 20;

/// And for each byte of its input: a decoded value takes more room than an encoded one.
const ALLOCATED_BYTES_PER_BYTE: usize = 256;

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
        let mut run = Run {
            test,
            options,
            directory,
            allocated_bytes_max: self.seeds.allocated_bytes_max,
        };
        for input in crashes.iter().chain(&corpus) {
            run.feed(input);
        }
        let mut random = Random::named(&name);
        for _ in 0..self.seeds.inputs {
            run.feed(&self.seeds.input(&corpus, &mut random));
        }
        if let Some(seconds) = setting("FLOTT_FUZZ_SECONDS") {
            let inputs = run.fuzz(&self.seeds, &corpus, Duration::from_secs(seconds));
            println!("{name}: {inputs} inputs in {seconds} s");
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
}

impl<T: Test> Run<T> {
    fn feed(&mut self, input: &[u8]) {
        let Self { test, options, .. } = self;
        let (outcome, peak) = allocations::peak(|| test.test(&mut Bytes::new(input, options)));
        let most = self.allocated_bytes_max + input.len() * ALLOCATED_BYTES_PER_BYTE;
        let failure = match outcome {
            Err(error) => error.to_string(),
            Ok(_) if peak > most => {
                format!("{peak} bytes allocated for an input of {}", input.len())
            }
            Ok(_) => return,
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

    /// How many inputs that were.
    #[allow(
        clippy::disallowed_methods,
        reason = "somebody asked for so many seconds, with numbers that are not those of the last time"
    )]
    fn fuzz(&mut self, seeds: &Seeds, corpus: &[Vec<u8>], time: Duration) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut random = Random::new(since_epoch.map_or(0, |time| time.as_nanos() as u64));
        let begun = Instant::now();
        let mut inputs = 0;
        while begun.elapsed() < time {
            self.feed(&seeds.input(corpus, &mut random));
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

/// What is in a directory, in the order of the names.
fn files(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| fs::read(path).expect("an input can be read");
    paths.iter().map(read).collect()
}

/// Writes each input to a file that is named by its content; where the last one is.
fn save(directory: &Path, inputs: impl IntoIterator<Item = impl AsRef<[u8]>>) -> PathBuf {
    fs::create_dir_all(directory).expect("inputs can be saved");
    let mut path = directory.to_owned();
    for input in inputs {
        let input = input.as_ref();
        let name = Random::named(&String::from_utf8_lossy(input)).next();
        path = directory.join(format!("{name:016x}"));
        fs::write(&path, input).expect("inputs can be saved");
    }
    path
}
