//! Defects that a simulation can plant, to show that it would find them.
//!
//! Each stands where the right thing is done, as `if Mutant::X.is_planted()`. Without the feature `simulation` that is
//! `false` at compile time, and nothing is left of it.

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// The log acknowledges what it has written and not synced.
    AcknowledgeBeforeSync,
    /// A failed sync of the log is repeated, and believed when it then succeeds.
    RetryFailedSync,
    /// Votes are not written.
    VoteNotWritten,
    /// That the log's end was cut off is not written.
    CutNotWritten,
    /// A snapshot lacks the key-value spaces.
    SnapshotWithoutKeys,
    /// A snapshot is not synced before the log that it stands for is dropped.
    SnapshotNotSynced,
    /// The names of new files are not made durable.
    DirectoryNotSynced,
    /// What a start finds in its files counts as durable, as it is read.
    ReadWithoutSync,
    /// A leader that has named a successor counts on its lease nevertheless.
    LeaseOutlivesHandOver,
    /// The leader answers reads without looking at its lease.
    ReadWithoutLease,
    /// A follower answers reads without asking the leader.
    ReadAtFollower,
    /// A voter forgets by a restart what it promised its leader.
    NoVoteHold,
    /// An old answer of a follower renews the lease of its leader.
    OldAnswersCount,
    /// The leader lets followers apply what a majority does not have yet.
    UncommittedAnnounced,
    /// A change of voters whose leader has died stays half done.
    JointNeverSettled,
    /// A leader that takes office has jobs run again that had ended.
    EndedJobRevived,
    /// Entries of a leader that was deposed are carried out.
    DeposedLeaderDecides,
    /// An ack counts for whatever checkpoint is pending, of whichever checkpoint and attempt it is.
    AnyAckCounts,
    /// A new leader takes TaskManagers for lost that have not registered with it yet.
    NoReconnectGrace,
    /// Tasks of an older attempt count as those of the present one.
    OlderAttemptAdopted,
    /// A job begins from the oldest checkpoint that is retained, or from what it was submitted with.
    OldestCheckpointRestored,
    /// Sinks hear of a completed checkpoint before its entry is applied.
    AnnouncedTooSoon,
    /// A job counts as finished before its sinks have made everything visible.
    EndedWithoutCommit,
    /// What the next checkpoint is to retire is deleted before its entry is applied.
    DeletedBeforeRetired,
    /// A TaskManager obeys a leader that was deposed.
    DeposedLeaderObeyed,
    /// Tasks of an attempt begin where those of an older one have not ended.
    TwoAttemptsAtOnce,
    /// A sink does not make visible what the checkpoint covers that it begins from.
    PreparedForgotten,
    /// A sink's files are not synced before they are acknowledged.
    OutputNotSynced,
    /// A sink makes its rows visible with its snapshot.
    CommittedWithSnapshot,
    /// The rows that a barrier overtakes are not stored with the checkpoint.
    OvertakenNotStored,
    /// A task takes its snapshot at the first barrier, and goes on with all its inputs.
    NoAlignment,
    /// Timers are forgotten by a restore.
    TimersNotRestored,
    /// A restore leaves out a key group of each tablet.
    KeyGroupLost,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::AcknowledgeBeforeSync,
        Self::RetryFailedSync,
        Self::VoteNotWritten,
        Self::CutNotWritten,
        Self::SnapshotWithoutKeys,
        Self::SnapshotNotSynced,
        Self::DirectoryNotSynced,
        Self::ReadWithoutSync,
        Self::LeaseOutlivesHandOver,
        Self::ReadWithoutLease,
        Self::ReadAtFollower,
        Self::NoVoteHold,
        Self::OldAnswersCount,
        Self::UncommittedAnnounced,
        Self::JointNeverSettled,
        Self::EndedJobRevived,
        Self::DeposedLeaderDecides,
        Self::AnyAckCounts,
        Self::NoReconnectGrace,
        Self::OlderAttemptAdopted,
        Self::OldestCheckpointRestored,
        Self::AnnouncedTooSoon,
        Self::EndedWithoutCommit,
        Self::DeletedBeforeRetired,
        Self::DeposedLeaderObeyed,
        Self::TwoAttemptsAtOnce,
        Self::PreparedForgotten,
        Self::OutputNotSynced,
        Self::CommittedWithSnapshot,
        Self::OvertakenNotStored,
        Self::NoAlignment,
        Self::TimersNotRestored,
        Self::KeyGroupLost,
    ];

    /// The one whose variant has this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mutant| format!("{mutant:?}") == name)
    }

    /// Whether this build has this defect, here and now.
    #[cfg(feature = "simulation")]
    pub fn is_planted(self) -> bool {
        crate::simulation::environment().is_some_and(|environment| environment.has(self))
    }

    /// Whether this build has this defect: no.
    #[cfg(not(feature = "simulation"))]
    #[inline(always)]
    pub const fn is_planted(self) -> bool {
        false
    }
}
