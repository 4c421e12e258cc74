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
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 15] = [
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
