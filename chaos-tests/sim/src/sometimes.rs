//! What has to happen at least once in a batch of seeds. A fault that never strikes, or strikes only where it does no harm,
//! would show nothing: whoever reads "all clean" wants to know of what.

use std::collections::BTreeMap;

use flott_node::Failpoint;

/// Seeds of a batch from which on all of it is due.
const DUE_FROM_SEEDS: u64 = 100;

/// Steps at which so few die that a batch may do without it: each once in the first 300 seeds.
const RARE: [Failpoint; 2] = [Failpoint::CommitMiddle, Failpoint::CommitEnds];

/// A process has died at that step of a checkpoint.
pub fn died_at(point: Failpoint) -> &'static str {
    match point {
        Failpoint::BeforeFlush => "died before a flush",
        Failpoint::Flushed => "died after a flush",
        Failpoint::Linked => "died after the files of a snapshot were linked",
        Failpoint::UploadBegins => "died before an upload",
        Failpoint::UploadEnds => "died after an upload",
        Failpoint::BeforeAck => "died before an ack",
        Failpoint::CommitBegins => "died before a commit",
        Failpoint::CommitMiddle => "died in the middle of a commit",
        Failpoint::CommitEnds => "died after a commit",
        Failpoint::MetadataBegins => "died before _metadata was written",
        Failpoint::MetadataEnds => "died after _metadata was written",
        Failpoint::BeforeCompletion => "died before CompleteCheckpoint was proposed",
        Failpoint::Completed => "died after a checkpoint was completed",
        Failpoint::BeforeAnnouncement => "died before a checkpoint was announced",
        Failpoint::BeforeDeletion => "died before retired files were deleted",
        Failpoint::BetweenDeletions => "died between two deletions",
        Failpoint::BeforeForgetting => "died before deleted files were forgotten",
    }
}

/// What so few seeds bring about that only so large a batch has to have seen it.
const RARELY: [&str; 4] = [
    "a message of a deposed leader was refused",
    "a removed member ended",
    "operator: member replaced",
    "operator: member removed",
];
const RARELY_DUE_FROM_SEEDS: u64 = 2000;

/// Those of a group of JobManagers.
pub const OF_RAFT_GROUPS: &[&str] = &[
    "a leader was elected",
    "a leader was replaced with entries in flight",
    "a decision of a deposed leader was refused",
    "a log was cut",
    "a log was purged",
    "a snapshot was installed",
    "a snapshot was made or installed",
    "a membership became joint",
    "a member ended because of its disk",
    "a removed member ended",
    "a process ended in a file operation",
    "power failed with something not synced",
    "operator: leadership handed over",
    "operator: member promoted",
    "operator: member replaced",
    "operator: member removed",
];

/// Those of whole clusters, beside the steps at which somebody died.
pub const OF_CLUSTERS: &[&str] = &[
    "a leader was elected",
    "a leader was replaced with a checkpoint pending",
    "a message of a deposed leader was refused",
    "an ack came too late",
    "a job ran on under another leader without a restart",
    "held acks were sent again",
    "a rename was repeated",
    "an attempt began from a checkpoint",
    "an attempt began from a savepoint",
    "a job changed its parallelism",
    "a checkpoint completed",
    "a checkpoint was given up",
    "a checkpoint had rows in flight",
    "a table was uploaded early",
    "a savepoint completed",
    "retired files were forgotten",
    "user: stopped",
    "user: canceled",
    "user: rescaled",
    "user: savepoint taken",
    "a job finished",
    "a job was canceled",
    "store: an answer was lost",
    "store: a request was refused",
    "power failed with something not synced",
];

/// What is due in a batch of so many seeds, and did not happen.
pub fn missing(counts: &BTreeMap<String, u64>, of_clusters: bool, seeds: u64) -> Vec<&'static str> {
    let due: Vec<&str> = if of_clusters {
        let steps = Failpoint::OF_TASK_MANAGERS.into_iter();
        let steps = steps.chain(Failpoint::OF_THE_LEADER);
        let steps = steps.filter(|step| !RARE.contains(step)).map(died_at);
        OF_CLUSTERS.iter().copied().chain(steps).collect()
    } else {
        OF_RAFT_GROUPS.to_vec()
    };
    let happened = |what: &&str| counts.get(*what).is_some_and(|times| *times > 0);
    let is_due = |what: &&str| match RARELY.contains(what) {
        true => seeds >= RARELY_DUE_FROM_SEEDS,
        false => seeds >= DUE_FROM_SEEDS,
    };
    let due = due.into_iter().filter(is_due);
    due.filter(|what| !happened(what)).collect()
}
