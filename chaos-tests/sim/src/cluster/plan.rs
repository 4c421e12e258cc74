//! What the seed has decided before anything happens.

use flott_chaos_basis::random::Random;
use flott_node::config::{Configuration, options};

use crate::faults;
use crate::kernel::hosts::HostId;
use crate::kernel::{MILLISECOND, SECOND};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A JobManager is killed, and started again.
    KillJobManager,
    /// Its machine loses its power.
    PowerLossOfJobManager,
    /// All JobManagers at once are killed, or lose their power.
    LossOfAllJobManagers,
    /// A JobManager is stopped for a while.
    PauseJobManager,
    /// A JobManager is cut off from the others.
    CutJobManagerOff,
    /// A TaskManager is killed, and another is started on its machine.
    KillTaskManager,
    /// The same in the middle of some file operation.
    KillTaskManagerInWrite,
    /// All of them, and the file server, lose their power.
    PowerLossOfAllTaskManagers,
    /// A TaskManager is stopped for a while.
    PauseTaskManager,
    /// A TaskManager is cut off from everybody.
    IsolateTaskManager,
    /// A TaskManager is heard by nobody, or hears nobody.
    OneWayTaskManager,
    /// A leader is cut off from the other JobManagers, and when another one leads, a TaskManager reaches only the former.
    MovingPartition,
    /// Connections break.
    Reset,
    /// Links of a machine are slow, or lose much.
    BadLinks,
    /// The object store refuses some requests, is carried out and not heard, or is slow.
    BadStore,
    /// A machine does not reach the object store.
    Unreachable,
    /// Clocks run at different speeds.
    Drift,
}

impl Fault {
    /// Those that hurt no TaskManager.
    pub const OF_JOBMANAGERS: [Self; 5] = [
        Self::KillJobManager,
        Self::PowerLossOfJobManager,
        Self::LossOfAllJobManagers,
        Self::PauseJobManager,
        Self::CutJobManagerOff,
    ];

    /// Those that are drawn from. [`Self::MovingPartition`] comes on top, so that the plans of seeds stay what they were.
    pub const ALL: [Self; 16] = [
        Self::KillJobManager,
        Self::PowerLossOfJobManager,
        Self::LossOfAllJobManagers,
        Self::PauseJobManager,
        Self::CutJobManagerOff,
        Self::KillTaskManager,
        Self::KillTaskManagerInWrite,
        Self::PowerLossOfAllTaskManagers,
        Self::PauseTaskManager,
        Self::IsolateTaskManager,
        Self::OneWayTaskManager,
        Self::Reset,
        Self::BadLinks,
        Self::BadStore,
        Self::Unreachable,
        Self::Drift,
    ];

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillJobManager => "fault: kill of a JobManager",
            Self::PowerLossOfJobManager => "fault: power loss of a JobManager",
            Self::LossOfAllJobManagers => "fault: loss of all JobManagers",
            Self::PauseJobManager => "fault: pause of a JobManager",
            Self::CutJobManagerOff => "fault: JobManager cut off from the others",
            Self::KillTaskManager => "fault: kill of a TaskManager",
            Self::KillTaskManagerInWrite => "fault: kill of a TaskManager in a write",
            Self::PowerLossOfAllTaskManagers => "fault: power loss of all TaskManagers",
            Self::PauseTaskManager => "fault: pause of a TaskManager",
            Self::IsolateTaskManager => "fault: isolated TaskManager",
            Self::OneWayTaskManager => "fault: TaskManager cut off one way",
            Self::MovingPartition => "fault: partition that moves",
            Self::Reset => "fault: connections reset",
            Self::BadLinks => "fault: bad links",
            Self::BadStore => "fault: bad object store",
            Self::Unreachable => "fault: object store out of reach",
            Self::Drift => "fault: drift",
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "as the names say; times in virtual nanoseconds"
)]
pub struct Plan {
    pub seed: u64,
    pub workers: usize,
    pub slots: u32,
    pub faults: Vec<Fault>,
    /// Between two faults, on average.
    pub fault_every: u64,
    /// Of a thousand processes that come by a step of a checkpoint so many die there.
    pub dies_at_step_permille: u64,
    /// Of a thousand proposals so many wait long before Raft has them.
    pub proposals_wait_permille: u64,
    /// No TaskManager is hurt, and nobody asks for another parallelism: then no task may be restarted.
    pub spares_tasks: bool,
    /// Between two wishes of a user, on average.
    pub user_every: u64,
    pub safety: u64,
    /// Of the job whose output is counted.
    pub records: u64,
    pub records_per_second: u64,
    pub parallelism: u32,
    pub checkpoint_interval_ms: u64,
    pub checkpoint_timeout_ms: u64,
    pub retained: u32,
    pub aligned_timeout_ms: u64,
    pub local_recovery: bool,
    pub in_memory: bool,
    pub snapshot_entries: u64,
    pub latency: u64,
    pub jitter: u64,
    /// For the choices of the run itself.
    pub random: Random,
}

/// JobManagers.
pub const MEMBERS: usize = 3;

impl Plan {
    /// The plan of that seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0c1a_57e2_f10e);
        let spares_tasks = random.permille(250);
        let mut faults = match spares_tasks {
            true => Fault::OF_JOBMANAGERS.to_vec(),
            false => Fault::ALL.to_vec(),
        };
        random.shuffle(&mut faults);
        let most = if spares_tasks { 3 } else { 6 };
        faults.truncate(random.between(1, most) as usize);
        // What was added later has dice of its own: other plans stay as they were.
        let mut later = Random::new(seed ^ 0x1a7e_add5);
        if !spares_tasks && later.permille(150) {
            faults.push(Fault::MovingPartition);
        }
        let proposals_wait_permille = if later.permille(250) { 30 } else { 0 };
        let checkpoint_timeout_ms = match later.permille(300) {
            true => later.between(200, 1000),
            false => 10_000,
        };
        let workers = random.between(2, 3) as usize;
        let slots = random.between(2, 3) as u32;
        let (latency, jitter) = *random.pick(&faults::GOOD_LINKS);
        let safety = random.between(8, 16) * SECOND;
        let records_per_second = *random.pick(&[300, 600, 1000]);
        let dies = !spares_tasks && random.permille(500);
        Self {
            seed,
            workers,
            slots,
            faults,
            fault_every: random.between(300, 3000) * MILLISECOND,
            dies_at_step_permille: if dies { random.between(2, 15) } else { 0 },
            proposals_wait_permille,
            spares_tasks,
            user_every: random.between(1500, 6000) * MILLISECOND,
            safety,
            records: records_per_second * (safety / SECOND) * random.between(5, 12) / 10,
            records_per_second,
            // One TaskManager may be away for long.
            parallelism: random.between(1, u64::from(slots)) as u32,
            checkpoint_interval_ms: *random.pick(&[100, 300, 300, 1000]),
            checkpoint_timeout_ms,
            retained: *random.pick(&[1, 1, 2, 3]),
            aligned_timeout_ms: *random.pick(&[0, 50, 1000]),
            local_recovery: random.permille(600),
            in_memory: random.permille(400),
            snapshot_entries: *random.pick(&[30, 100, 400]),
            latency,
            jitter,
            random,
        }
    }

    /// The machine of a TaskManager.
    pub fn worker_hosts(&self) -> std::ops::Range<HostId> {
        MEMBERS..MEMBERS + self.workers
    }

    /// The machine of the users.
    pub fn user_host(&self) -> HostId {
        MEMBERS + self.workers
    }

    /// The machine with the files that jobs write.
    pub fn file_server(&self) -> HostId {
        self.user_host() + 1
    }

    /// All machines.
    pub fn hosts(&self) -> usize {
        self.file_server() + 1
    }

    /// The settings of JobManagers.
    pub fn jobmanager(&self) -> Configuration {
        let mut configuration = Configuration::default();
        configuration.set(&options::RAFT_SNAPSHOT_ENTRIES, self.snapshot_entries);
        configuration.set(&options::RAFT_SNAPSHOT_BYTES, "256kb");
        configuration
    }

    /// The settings of jobs.
    pub fn job(&self) -> Configuration {
        let mut job = Configuration::default();
        job.set(&options::CHECKPOINT_DIR, "sim:///checkpoints");
        job.set(&options::SAVEPOINT_DIR, "sim:///savepoints");
        let ms = |ms: u64| format!("{ms} ms");
        job.set(
            &options::CHECKPOINT_INTERVAL,
            ms(self.checkpoint_interval_ms),
        );
        job.set(&options::CHECKPOINT_TIMEOUT, ms(self.checkpoint_timeout_ms));
        job.set(&options::ALIGNED_TIMEOUT, ms(self.aligned_timeout_ms));
        job.set(&options::NUM_RETAINED, self.retained);
        job.set(&options::TOLERABLE_FAILED, 1000);
        job.set(&options::RESTART_EXP_MAX, "1 s");
        job.set(&options::PARALLELISM, self.parallelism);
        job.set(&options::MAX_PARALLELISM, 16);
        let backend = if self.in_memory { "hashmap" } else { "rocksdb" };
        job.set(&options::STATE_BACKEND, backend);
        job
    }
}
