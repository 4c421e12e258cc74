//! Places at which a test may have the process die, as by `kill -9`.
//!
//! A test creates a file of the point's name in the directory that `FLOTT_FAILPOINTS` names. The first process that comes
//! by renames it to `<point>.<pid>` and kills itself; the others go by, and so does the one that takes its place. So exactly
//! one process dies, and the test sees which, and that the point was reached at all.
//!
//! Only builds with debug assertions do this. In a release build nothing is left of it. In a simulation it is that which
//! decides who dies where.

/// A step in the life of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failpoint {
    BeforeFlush,
    Flushed,
    Linked,
    UploadBegins,
    UploadEnds,
    BeforeAck,
    CommitBegins,
    /// The rows of a file are visible, and nothing makes that durable yet.
    CommitMiddle,
    CommitEnds,
    MetadataBegins,
    MetadataEnds,
    BeforeCompletion,
    /// The entry that completes the checkpoint was applied, and nobody has heard of it.
    Completed,
    BeforeAnnouncement,
    BeforeDeletion,
    BetweenDeletions,
    BeforeForgetting,
}

impl Failpoint {
    /// Those that TaskManagers come by, in the order in which they do.
    pub const OF_TASK_MANAGERS: [Self; 9] = [
        Self::BeforeFlush,
        Self::Flushed,
        Self::Linked,
        Self::UploadBegins,
        Self::UploadEnds,
        Self::BeforeAck,
        Self::CommitBegins,
        Self::CommitMiddle,
        Self::CommitEnds,
    ];

    /// Those that the leading JobManager comes by, likewise.
    pub const OF_THE_LEADER: [Self; 8] = [
        Self::MetadataBegins,
        Self::MetadataEnds,
        Self::BeforeCompletion,
        Self::Completed,
        Self::BeforeAnnouncement,
        Self::BeforeDeletion,
        Self::BetweenDeletions,
        Self::BeforeForgetting,
    ];

    /// The variable that names the directory.
    pub const VARIABLE: &str = "FLOTT_FAILPOINTS";

    /// The name of the file that arms it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Comes by. Does not return if a test has armed this point.
    pub fn pass(self) {
        #[cfg(feature = "simulation")]
        if let Some(environment) = crate::simulation::environment() {
            environment.passes(self);
            return;
        }
        #[cfg(debug_assertions)]
        self.die_if_armed();
    }

    #[cfg(debug_assertions)]
    fn die_if_armed(self) {
        use rustix::process::{Signal, getpid, kill_process};
        // No setting: it must not be found among those, and a program that users run does not have it.
        let Some(directory) = std::env::var_os(Self::VARIABLE) else {
            return;
        };
        let armed = std::path::Path::new(&directory).join(self.name());
        let passed = armed.with_extension(std::process::id().to_string());
        if std::fs::rename(armed, passed).is_ok() {
            // Nothing catches this signal, so it cannot fail.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
