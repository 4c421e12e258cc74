//! What keyed state costs: checkpoints against the size of the state, restores, and access against plain RocksDB.
//!
//! `make bench-state` runs it. Two tasks on threads of their own, as a job at parallelism 2 has them; object storage is a
//! directory beside them, so "remote" means: copied and checked, on the same disk; `--storage s3://…` names another.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures, and prints what it found"
)]

mod task;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::state_handle::{StateFile, SubtaskState};
use flott_statestore::{BackendOptions, LocalFiles, SnapshotUploader, Source, restore};
use tokio::runtime::{Handle, Runtime};

use self::task::{Random, Task, range};

const MAX_PARALLELISM: u32 = 128;
const TASKS: u32 = 2;
const VALUE_BYTES: usize = 200;
/// Phases of writing with and without checkpoints, and how long each takes.
const PHASES: u64 = 8;
const PHASE_SECONDS: u64 = 5;
/// Keys of one write or read.
const BATCH: usize = 512;
const OPTIONS: BackendOptions = BackendOptions::rocksdb(128 << 20);

/// What is measured; see `--help`.
struct Plan {
    sizes_mb: Vec<u64>,
    /// Changed between two checkpoints, in all tasks.
    change_mb: u64,
    checkpoints: u64,
    /// Before those that count: until the loaded state has come to its steady shape.
    warmup: u64,
    interval: Duration,
    /// Tables are uploaded before a checkpoint asks for them.
    early: bool,
    directory: Option<PathBuf>,
    /// Below which each size has a directory.
    storage: Option<String>,
}

impl Plan {
    fn from_arguments() -> Self {
        let mut plan = Self {
            sizes_mb: vec![100, 1000, 4000],
            change_mb: 10,
            checkpoints: 20,
            warmup: 10,
            interval: Duration::from_secs(2),
            early: true,
            directory: None,
            storage: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| usage(&name));
            match name.as_str() {
                "--sizes-mb" => plan.sizes_mb = value().split(',').map(number).collect(),
                "--change-mb" => plan.change_mb = number(&value()),
                "--checkpoints" => plan.checkpoints = number(&value()),
                "--warmup" => plan.warmup = number(&value()),
                "--interval-ms" => plan.interval = Duration::from_millis(number(&value())),
                "--early" => plan.early = value() == "yes",
                "--directory" => plan.directory = Some(value().into()),
                "--storage" => plan.storage = Some(value()),
                // What cargo adds.
                "--bench" => {}
                other => usage(other),
            }
        }
        plan
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| usage(text))
}

fn usage(wrong: &str) -> ! {
    println!(
        "state: {wrong:?} is not understood\n  --sizes-mb 100,1000,4000  --change-mb 10  --checkpoints 20  --warmup 10  \
         --interval-ms 2000  --early yes|no  --directory DIR  --storage URL"
    );
    std::process::exit(2)
}

/// The state of all tasks goes over to `parallelism` others: milliseconds until they have opened it, and megabytes that
/// their first checkpoint uploads. Nothing is kept on this machine but what `storage` has, in whose files all of them look.
fn rescale(
    states: &mut Vec<SubtaskState>,
    last: &mut CheckpointId,
    parallelism: u32,
    dir: &Path,
    storage: &ObjectStorage,
    runtime: &Handle,
) -> (f64, f64) {
    let kept = dir.join(format!("kept-by-{parallelism}"));
    let source = Source {
        storage: storage.clone(),
        local: Some(LocalFiles::create(&kept).unwrap()),
    };
    let begun = Instant::now();
    let open = |task: u32| {
        let range = range(task, parallelism);
        let at = dir.join(format!("of-{parallelism}-{task}"));
        let restoring = restore(&at, &source, states, MAX_PARALLELISM, range, OPTIONS);
        let mut backend = runtime.block_on(restoring).unwrap();
        let writer = format!("w-{parallelism}-{task}");
        let uploader = SnapshotUploader::new(storage.clone(), writer, range);
        uploader.restored_from(*last, backend.restored_files(), false);
        Task {
            state: backend.state("op", "value").unwrap(),
            backend,
            uploader: Arc::new(uploader),
            keys: 0,
            random: Random(1),
            saved: SubtaskState::default(),
            last: *last,
        }
    };
    let mut tasks: Vec<Task> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..parallelism)
            .map(|task| scope.spawn(move || open(task)))
            .collect();
        let tasks = threads.into_iter().map(|thread| thread.join().unwrap());
        tasks.collect()
    });
    let opened = milliseconds(begun.elapsed());
    let next = last.0 + 1;
    let costs = on_all(&mut tasks, |task| task.checkpoint(next, runtime));
    *last = CheckpointId(next);
    *states = tasks.iter().map(|task| task.saved.clone()).collect();
    let uploaded: u64 = costs.iter().map(|cost| cost.uploaded_bytes).sum();
    (opened, uploaded as f64 / 1e6)
}

/// Resident memory of this process, in megabytes.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1e3
}

/// `work` on each task, each on a thread of its own.
fn on_all<T: Send>(tasks: &mut [Task], work: impl Fn(&mut Task) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = tasks
            .iter_mut()
            .map(|task| scope.spawn(|| work(task)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = ((sorted.len() - 1) as f64 * q).round() as usize;
    sorted[at]
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn main() {
    let plan = Plan::from_arguments();
    let runtime = Runtime::new().unwrap();
    let place = match &plan.directory {
        Some(directory) => tempfile::tempdir_in(directory).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    println!(
        "{TASKS} tasks, values of {VALUE_BYTES} B, {} MB changed between checkpoints, {} checkpoints, {:?} apart\n",
        plan.change_mb, plan.checkpoints, plan.interval
    );
    println!(
        "| state MB | loaded keys/s | upload ms p50 / max | uploaded MB mean (times the change) | pause ms p50 / p99 | \
         restore ms local / remote | 2 to 4 to 3 to 1 tasks: ms (MB uploaded then) | \
         reads/s | writes with 1 s checkpoints / without | resident MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for size_mb in &plan.sizes_mb {
        let dir = place.path().join(size_mb.to_string());
        size(&plan, *size_mb, &dir, runtime.handle());
        std::fs::remove_dir_all(&dir).unwrap();
    }
    access(&place.path().join("access"), runtime.handle());
}

/// One line of the table.
fn size(plan: &Plan, size_mb: u64, dir: &Path, runtime: &Handle) {
    std::fs::create_dir(dir).unwrap();
    let root = match &plan.storage {
        Some(url) => format!("{url}/{size_mb}"),
        None => dir.join("storage").display().to_string(),
    };
    let storage = ObjectStorage::open(&root).unwrap();
    let local = LocalFiles::create(&dir.join("kept")).unwrap();
    let keys = size_mb * 1_000_000 / VALUE_BYTES as u64 / u64::from(TASKS);
    let mut tasks: Vec<Task> = (0..TASKS)
        .map(|task| Task::new(dir, &storage, &local, task, keys))
        .collect();
    let begun = Instant::now();
    if plan.early {
        tasks.iter().for_each(|task| task.upload_early(runtime));
    }
    on_all(&mut tasks, Task::load);
    let loaded = (keys * u64::from(TASKS)) as f64 / begun.elapsed().as_secs_f64();
    let checkpoint =
        |tasks: &mut [Task], id: u64| on_all(tasks, |task| task.checkpoint(id, runtime));
    checkpoint(&mut tasks, 1);

    let changes = plan.change_mb * 1_000_000 / VALUE_BYTES as u64 / u64::from(TASKS);
    let (mut uploads, mut pauses, mut bytes) = (Vec::new(), Vec::new(), 0);
    for round in 0..plan.warmup + plan.checkpoints {
        let begun = Instant::now();
        // In ten steps, as changes come in.
        for step in 1..=10u32 {
            on_all(&mut tasks, |task| task.change(changes / 10));
            std::thread::sleep((plan.interval * step / 10).saturating_sub(begun.elapsed()));
        }
        let costs = checkpoint(&mut tasks, 2 + round);
        if round >= plan.warmup {
            let slowest = costs.iter().map(|cost| milliseconds(cost.upload));
            uploads.push(slowest.fold(0.0, f64::max));
            pauses.extend(costs.iter().map(|cost| milliseconds(cost.pause)));
            bytes += costs.iter().map(|cost| cost.uploaded_bytes).sum::<u64>();
        }
    }
    let (uploads, pauses) = (sorted(uploads), sorted(pauses));
    let mean_mb = bytes as f64 / plan.checkpoints as f64 / 1e6;
    let resident = resident_mb();
    let reads: f64 = on_all(&mut tasks, |task| task.reads(PHASE_SECONDS))
        .iter()
        .sum();
    let mut states: Vec<SubtaskState> = tasks.iter().map(|task| task.saved.clone()).collect();
    let restored = |name: &str, local: Option<&LocalFiles>| {
        let source = Source {
            storage: storage.clone(),
            local: local.cloned(),
        };
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for task in 0..TASKS {
                let (source, states) = (&source, &states);
                let at = dir.join(format!("{name}-{task}"));
                let range = range(task, TASKS);
                let of = move || {
                    let own = std::slice::from_ref(&states[task as usize]);
                    let restoring = restore(&at, source, own, MAX_PARALLELISM, range, OPTIONS);
                    drop(runtime.block_on(restoring).unwrap());
                };
                scope.spawn(of);
            }
        });
        milliseconds(begun.elapsed())
    };
    let here = restored("local", Some(&local));
    let remote = restored("remote", None);

    let next = 3 + plan.warmup + plan.checkpoints;
    // In turns: what a phase leaves to be compacted is paid for by the next.
    let (mut with, mut without) = (0.0, 0.0);
    for turn in 0..PHASES {
        let first = matches!(turn % 4, 1 | 2).then_some(next + 100 * turn);
        let written = on_all(&mut tasks, |task| {
            task.writes(PHASE_SECONDS, first, runtime)
        });
        let written: f64 = written.iter().sum();
        match first {
            Some(_) => with += written,
            None => without += written,
        }
    }
    let saved = states.clone();
    let total: u64 = saved
        .iter()
        .flat_map(|state| state.files.values())
        .map(|file: &StateFile| file.size)
        .sum();
    drop(tasks);
    let mut last = CheckpointId(2 + plan.warmup + plan.checkpoints);
    let rescaled = [4, 3, 1].map(|parallelism| {
        let (opened, uploaded) =
            rescale(&mut states, &mut last, parallelism, dir, &storage, runtime);
        format!("{opened:.0} ({uploaded:.2})")
    });
    println!(
        "| {size_mb} ({} on disk) | {loaded:.0} | {:.0} / {:.0} | {mean_mb:.1} ({:.2}) | {:.1} / {:.1} | \
         {here:.0} / {remote:.0} | {} | {reads:.0} | {:.2} | {resident:.0} |",
        total / 1_000_000,
        quantile(&uploads, 0.5),
        quantile(&uploads, 1.0),
        mean_mb / plan.change_mb as f64,
        quantile(&pauses, 0.5),
        quantile(&pauses, 0.99),
        rescaled.join(", "),
        with / without,
    );
}

/// Batches against a loop of single calls of the library beneath, with the same data and the same memory.
fn access(dir: &Path, runtime: &Handle) {
    const KEYS: u64 = 500_000;
    std::fs::create_dir_all(dir).unwrap();
    let storage = ObjectStorage::open("memory:///bench-state").unwrap();
    let local = LocalFiles::create(&dir.join("kept")).unwrap();
    let mut task = Task::new(dir, &storage, &local, 0, KEYS);
    task.load();
    let ours_put = task.writes(5, None, runtime);
    let ours_get = task.reads(5);

    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let db = rocksdb::DB::open(&options, dir.join("plain")).unwrap();
    let mut unlogged = rocksdb::WriteOptions::default();
    unlogged.disable_wal(true);
    let (mut random, mut value) = (Random(7), [0; VALUE_BYTES]);
    for number in 0..KEYS {
        random.fill(&mut value);
        db.put_opt(number.to_be_bytes(), value, &unlogged).unwrap();
    }
    let plain_put = rate(|count| {
        for _ in 0..BATCH {
            random.fill(&mut value);
            let key = (random.next() % KEYS).to_be_bytes();
            db.put_opt(key, value, &unlogged).unwrap();
        }
        *count += BATCH as u64;
    });
    let plain_get = rate(|count| {
        for _ in 0..BATCH {
            let key = (random.next() % KEYS).to_be_bytes();
            *count += u64::from(db.get(key).unwrap().is_some());
        }
    });
    println!(
        "\n| {KEYS} keys, one task | keys/s in batches of {BATCH} | plain RocksDB, one by one | ratio |"
    );
    println!("|---|---|---|---|");
    for (what, ours, plain) in [("put", ours_put, plain_put), ("get", ours_get, plain_get)] {
        println!("| {what} | {ours:.0} | {plain:.0} | {:.2} |", ours / plain);
    }
}

/// How much `step` counts in a second.
fn rate(mut step: impl FnMut(&mut u64)) -> f64 {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(5) {
        step(&mut count);
    }
    count as f64 / begun.elapsed().as_secs_f64()
}
