//! Every option that Flott reads. Names and meanings are Flink's where Flink has the option.
//!
//! The table makes the constants and the registry [`ALL`] at once, so that no option can be missing from either.

use std::path::PathBuf;
use std::time::Duration;

use super::option::{ConfigOption, OptionInfo};
use super::value::{ClaimMode, MemorySize, RestartStrategyType, Seconds, StateBackendType};

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $key:literal, $default:literal $(, also $aliases:expr)?;)*) => {
        $(
            $(#[doc = $doc])+
            pub const $name: ConfigOption<$type> =
                ConfigOption::new($key, $default, concat!($($doc),+))$(.with_aliases(&$aliases))?;
        )*

        /// All options, in the order of this file.
        pub static ALL: &[OptionInfo] = &[$($name.info()),*];
    };
}

options! {
    /// Host or address on which a JobManager listens and under which the others reach it.
    JOBMANAGER_RPC_ADDRESS: String = "jobmanager.rpc.address", "127.0.0.1", also ["jobmanager.host"];
    /// Port of a JobManager for clients, TaskManagers and other JobManagers; 0 is any free one.
    JOBMANAGER_RPC_PORT: u16 = "jobmanager.rpc.port", "6123", also ["high-availability.jobmanager.port"];
    /// All JobManagers, host:port separated by commas: where TaskManagers look for the leader. Empty: only jobmanager.rpc.address.
    JOBMANAGER_ADDRESSES: Vec<String> = "high-availability.jobmanager.addresses", "";
    /// The cluster that a JobManager must belong to; empty accepts what its data directory says.
    CLUSTER_ID: String = "high-availability.cluster-id", "", also ["zookeeper.path.namespace", "high-availability.zookeeper.path.namespace", "recovery.zookeeper.path.namespace"];
    /// Directory of a JobManager's log and snapshots. Losing it loses the member.
    RAFT_DIR: PathBuf = "high-availability.raft.dir", "./flott-data/jobmanager";
    /// Number of a JobManager in its group; 0 draws one at the first start and keeps it in the data directory.
    RAFT_NODE_ID: u64 = "high-availability.raft.node-id", "0";
    /// How often the leading JobManager lets the others know that it leads.
    RAFT_HEARTBEAT_INTERVAL: Duration = "high-availability.raft.heartbeat-interval", "50 ms";
    /// Shortest silence of the leader after which a JobManager stands for election. A round trip between JobManagers has to be shorter, or nothing is decided.
    RAFT_ELECTION_TIMEOUT_MIN: Duration = "high-availability.raft.election-timeout-min", "200 ms";
    /// Longest silence of the leader after which a JobManager stands for election.
    RAFT_ELECTION_TIMEOUT_MAX: Duration = "high-availability.raft.election-timeout-max", "400 ms";
    /// Log entries after which a snapshot is written and the log before it dropped.
    RAFT_SNAPSHOT_ENTRIES: u64 = "high-availability.raft.snapshot-entries", "50000";
    /// Bytes of log entries after which a snapshot is written, if that is sooner; a state that is larger is written less often.
    RAFT_SNAPSHOT_BYTES: MemorySize = "high-availability.raft.snapshot-bytes", "64mb";
    /// With less room on the disk of its data directory, a leading JobManager refuses new jobs and large values.
    RAFT_DISK_FREE_SOFT: MemorySize = "high-availability.raft.disk-free-soft", "256mb";
    /// With less room on the disk of its data directory, a JobManager hands leadership over and ends.
    RAFT_DISK_FREE_HARD: MemorySize = "high-availability.raft.disk-free-hard", "64mb";
    /// How long a new leader waits for TaskManagers to report what they run before it counts their tasks as lost.
    RECONNECT_GRACE: Duration = "high-availability.reconnect-grace", "3 s";
    /// Task slots of a TaskManager: how many subtasks of one vertex it can run.
    TASK_SLOTS: u32 = "taskmanager.numberOfTaskSlots", "1";
    /// Host or address under which other TaskManagers reach this one.
    TASKMANAGER_HOST: String = "taskmanager.host", "127.0.0.1", also ["taskmanager.hostname"];
    /// Port on which a TaskManager receives data from others; 0 is any free one.
    TASKMANAGER_DATA_PORT: u16 = "taskmanager.data.port", "0";
    /// Name of a TaskManager process, never used twice; empty draws one.
    TASKMANAGER_ID: String = "taskmanager.resource-id", "";
    /// Directory for working state and temporary files of a TaskManager; may be lost.
    TMP_DIRS: PathBuf = "io.tmp.dirs", "./flott-data/taskmanager", also ["taskmanager.tmp.dirs"];
    /// Memory for keyed state in one TaskManager, shared by its slots.
    MANAGED_MEMORY: MemorySize = "taskmanager.memory.managed.size", "256mb", also ["taskmanager.memory.size"];
    /// Keep the files of a job's newest checkpoints on the TaskManager's disk too, so that a restart downloads only what others had.
    LOCAL_RECOVERY: bool = "execution.state-recovery.from-local", "true", also ["state.backend.local-recovery"];
    /// Port for /livez, /readyz, /leaderz and /metrics in every process; 0 is any free one (the log names it).
    REST_PORT: u16 = "rest.port", "0", also ["rest.bind-port", "web.port", "jobmanager.web.port"];
    /// Address on which that port listens.
    REST_BIND: String = "rest.bind-address", "127.0.0.1";
    /// Encrypt all connections between processes and from clients, and check both sides' certificates (mutual TLS).
    SSL_ENABLED: bool = "security.ssl.internal.enabled", "false", also ["security.ssl.enabled"];
    /// PEM file with this process's certificate and those of intermediate CAs; with the key what Flink has in its keystore.
    SSL_CERT: String = "security.ssl.internal.cert", "";
    /// PEM file with the private key of that certificate.
    SSL_KEY: String = "security.ssl.internal.key", "";
    /// PEM file with the certificates of the CAs that are trusted: what Flink has in its truststore.
    SSL_CA: String = "security.ssl.internal.ca", "";
    /// How often those files are read again; renewed ones are used for new connections.
    SSL_RELOAD_INTERVAL: Duration = "security.ssl.internal.reload-interval", "5 s";
    /// Serve /livez, /readyz, /leaderz and /metrics over TLS, with the same certificate; clients need none for these.
    SSL_REST_ENABLED: bool = "security.ssl.rest.enabled", "false";
    /// Allow plain text beyond this machine, readable and forgeable by anybody on the way. The same as --insecure.
    INSECURE: bool = "security.insecure", "false";
    /// Name of a job that is given none on the command line.
    PIPELINE_NAME: String = "pipeline.name", "";
    /// Parallelism of a job that states none.
    PARALLELISM: u32 = "parallelism.default", "1";
    /// Key groups of a job: the limit of its parallelism. Fixed for the life of its state.
    MAX_PARALLELISM: u32 = "pipeline.max-parallelism", "128";
    /// Rows that each task which ends in a sink takes a second, so that whoever reads the output keeps up; 0 for no limit.
    SINK_ROWS_PER_SECOND: u32 = "pipeline.sink.rows-per-second", "0";
    /// Time between the starts of two checkpoints; 0 takes none.
    CHECKPOINT_INTERVAL: Duration = "execution.checkpointing.interval", "10 s";
    /// A checkpoint that takes longer is given up.
    CHECKPOINT_TIMEOUT: Duration = "execution.checkpointing.timeout", "10 min";
    /// Shortest time between the end of a checkpoint and the start of the next.
    CHECKPOINT_MIN_PAUSE: Duration = "execution.checkpointing.min-pause", "0 ms";
    /// Where keyed state is while a job runs: rocksdb keeps it on disk, hashmap in memory as long as half the managed memory holds it. Each restores what the other has saved.
    STATE_BACKEND: StateBackendType = "state.backend.type", "rocksdb", also ["state.backend"];
    /// Where checkpoints are kept: a path or a URL (file:///…, s3://bucket/…). Without it there are none.
    CHECKPOINT_DIR: String = "execution.checkpointing.dir", "", also ["state.checkpoints.dir", "state.backend.fs.checkpointdir"];
    /// Where savepoints are kept if the command names no place.
    SAVEPOINT_DIR: String = "execution.checkpointing.savepoint-dir", "", also ["state.savepoints.dir", "state.backend.fs.savepointdir", "savepoints.state.backend.fs.dir"];
    /// What becomes of the savepoint that a job starts from: NO_CLAIM leaves it to you, CLAIM lets the job delete it when it needs it no more.
    CLAIM_MODE: ClaimMode = "execution.state-recovery.claim-mode", "NO_CLAIM", also ["execution.savepoint-restore-mode"];
    /// How many completed checkpoints of a job are kept.
    NUM_RETAINED: u32 = "execution.checkpointing.num-retained", "1", also ["state.checkpoints.num-retained"];
    /// Let the barriers of a checkpoint overtake rows that wait to be processed, which are then stored with it. Savepoints never do.
    UNALIGNED_ENABLED: bool = "execution.checkpointing.unaligned.enabled", "true", also ["execution.checkpointing.unaligned"];
    /// How long barriers wait behind rows before they overtake them, from the trigger on; 0 overtakes at once.
    ALIGNED_TIMEOUT: Duration = "execution.checkpointing.aligned-checkpoint-timeout", "1 s", also ["execution.checkpointing.alignment-timeout"];
    /// How many checkpoints in a row may fail before the job fails.
    TOLERABLE_FAILED: u32 = "execution.checkpointing.tolerable-failed-checkpoints", "0";
    /// How a failed job is started again: none, fixed-delay, exponential-delay or failure-rate.
    RESTART_STRATEGY: RestartStrategyType = "restart-strategy.type", "exponential-delay", also ["restart-strategy"];
    /// fixed-delay: how often a job is started again.
    RESTART_FIXED_ATTEMPTS: u32 = "restart-strategy.fixed-delay.attempts", "1";
    /// fixed-delay: the wait before each start.
    RESTART_FIXED_DELAY: Duration = "restart-strategy.fixed-delay.delay", "1 s";
    /// exponential-delay: the wait after the first failure.
    RESTART_EXP_INITIAL: Duration = "restart-strategy.exponential-delay.initial-backoff", "100 ms";
    /// exponential-delay: the longest wait.
    RESTART_EXP_MAX: Duration = "restart-strategy.exponential-delay.max-backoff", "1 min";
    /// exponential-delay: each wait is so many times the one before.
    RESTART_EXP_MULTIPLIER: f64 = "restart-strategy.exponential-delay.backoff-multiplier", "1.5";
    /// exponential-delay: after so long without a failure the wait is the initial one again.
    RESTART_EXP_RESET: Duration = "restart-strategy.exponential-delay.reset-backoff-threshold", "1 h";
    /// exponential-delay: failures within that time after which the job fails for good.
    RESTART_EXP_ATTEMPTS: Option<u32> = "restart-strategy.exponential-delay.attempts-before-reset-backoff", "infinite";
    /// failure-rate: failures within the interval that a job survives.
    RESTART_RATE_MAX: u32 = "restart-strategy.failure-rate.max-failures-per-interval", "1";
    /// failure-rate: the interval in which failures are counted.
    RESTART_RATE_INTERVAL: Duration = "restart-strategy.failure-rate.failure-rate-interval", "1 min";
    /// failure-rate: the wait before each start.
    RESTART_RATE_DELAY: Duration = "restart-strategy.failure-rate.delay", "1 s";
    /// How long the result of a job that has ended is kept. A failed job that retains checkpoints is kept until it is dismissed.
    RESULTS_EXPIRE_AFTER: Seconds = "jobstore.expiration-time", "1 h";
    /// How many jobs that have ended a namespace keeps; the oldest make room, as under jobstore.expiration-time.
    RESULTS_MAX: Option<u32> = "jobstore.max-capacity", "infinite";
    /// How often leader and TaskManagers let each other know that they live.
    HEARTBEAT_INTERVAL: Duration = "heartbeat.interval", "500 ms";
    /// Silence after which the other is taken for dead.
    HEARTBEAT_TIMEOUT: Duration = "heartbeat.timeout", "3 s";
    /// How long tasks wait on a TaskManager for slots that other jobs hold; then they fail, and the job is started again where there are some.
    SLOT_REQUEST_TIMEOUT: Duration = "slot.request.timeout", "10 s";
    /// How long records may wait for a batch to fill before it is sent; 0 sends at once.
    BUFFER_TIMEOUT: Duration = "execution.buffer-timeout", "5 ms", also ["execution.buffer-timeout.interval"];
    /// How long a process that was asked to end may take before it ends anyway.
    SHUTDOWN_TIMEOUT: Duration = "cluster.shutdown-timeout", "10 s";
}

/// The option of that key or older key, and whether it is an older one.
pub(super) fn find(key: &str) -> Option<(&'static OptionInfo, bool)> {
    ALL.iter().find_map(|info| {
        if info.key == key {
            Some((info, false))
        } else {
            info.aliases.contains(&key).then_some((info, true))
        }
    })
}

/// The key that was probably meant, if one is near enough to be worth naming.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    /// Below this similarity (0 to 1) a guess confuses more than it helps.
    const SIMILARITY_MIN: f64 = 0.75;
    let similarity = |known: &str| {
        strsim::normalized_damerau_levenshtein(
            &key.to_ascii_lowercase(),
            &known.to_ascii_lowercase(),
        )
    };
    let best = ALL
        .iter()
        .map(|info| (similarity(info.key), info.key))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_type() {
        for info in ALL {
            assert!(
                (info.check)(info.default),
                "{} = {:?}",
                info.key,
                info.default
            );
        }
    }

    #[test]
    fn no_key_or_older_key_means_two_things() {
        let mut seen = BTreeSet::new();
        for info in ALL {
            for key in std::iter::once(&info.key).chain(info.aliases) {
                assert!(seen.insert(*key), "{key}");
            }
        }
    }

    #[test]
    fn every_option_is_explained_in_one_line() {
        for info in ALL {
            assert!(
                info.doc.trim().len() > 10 && !info.doc.contains('\n'),
                "{}",
                info.key
            );
        }
    }
}
