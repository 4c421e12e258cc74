//! What the seed has decided before anything happens.
//!
//! Not every run has every fault: leaving some out finds what the others would hide (swarm testing, Groce et al. 2012).

use flott_chaos_basis::random::Random;

use crate::faults;
use crate::kernel::{MILLISECOND, SECOND};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed, and started again.
    Kill,
    /// A machine loses its power.
    PowerLoss,
    /// The same in the middle of some file operation.
    PowerLossInWrite,
    /// A process is killed in the middle of some file operation.
    KillInWrite,
    /// All at once.
    KillAll,
    /// All machines lose their power.
    PowerLossOfAll,
    /// A process is stopped for a while.
    Pause,
    /// A member is cut off.
    Isolate,
    /// A link works in one direction only.
    OneWay,
    /// Two halves that hear one member only.
    Bridge,
    /// A majority and a minority.
    Split,
    /// A link comes and goes.
    Flap,
    /// Links are slow, or lose much.
    BadLinks,
    /// Connections break.
    Reset,
    /// A disk is slow.
    SlowDisk,
    /// A disk answers nothing for a while.
    HungDisk,
    /// A disk is full for a while.
    FullDisk,
    /// Syncs fail.
    FailedSync,
    /// Clocks run at different speeds.
    Drift,
    /// Wall clocks jump.
    ClockJump,
    /// A member does not hear the leader and stands for election, while those that hear both are restarted at once.
    QuickRestart,
}

impl Fault {
    /// Those that are drawn from. [`Self::QuickRestart`] comes on top, so that the plans of seeds stay what they were.
    pub const ALL: [Self; 20] = [
        Self::Kill,
        Self::PowerLoss,
        Self::PowerLossInWrite,
        Self::KillInWrite,
        Self::KillAll,
        Self::PowerLossOfAll,
        Self::Pause,
        Self::Isolate,
        Self::OneWay,
        Self::Bridge,
        Self::Split,
        Self::Flap,
        Self::BadLinks,
        Self::Reset,
        Self::SlowDisk,
        Self::HungDisk,
        Self::FullDisk,
        Self::FailedSync,
        Self::Drift,
        Self::ClockJump,
    ];

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "fault: kill",
            Self::PowerLoss => "fault: power loss",
            Self::PowerLossInWrite => "fault: power loss in a write",
            Self::KillInWrite => "fault: kill in a write",
            Self::KillAll => "fault: kill all",
            Self::PowerLossOfAll => "fault: power loss of all",
            Self::Pause => "fault: pause",
            Self::Isolate => "fault: isolate",
            Self::OneWay => "fault: one way",
            Self::Bridge => "fault: bridge",
            Self::Split => "fault: split",
            Self::Flap => "fault: flap",
            Self::BadLinks => "fault: bad links",
            Self::Reset => "fault: reset",
            Self::SlowDisk => "fault: slow disk",
            Self::HungDisk => "fault: hung disk",
            Self::FullDisk => "fault: full disk",
            Self::FailedSync => "fault: failed sync",
            Self::Drift => "fault: drift",
            Self::ClockJump => "fault: clock jump",
            Self::QuickRestart => "fault: quick restart",
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
    pub members: usize,
    /// Machines beside those of the first members, for members that join.
    pub spares: usize,
    pub clients: u32,
    pub keys: u32,
    pub faults: Vec<Fault>,
    /// Between two faults, on average.
    pub fault_every: u64,
    /// Of a thousand proposals so many wait long before Raft has them.
    pub proposals_wait_permille: u64,
    /// Between two acts of the operator; none: there is none.
    pub operator_every: Option<u64>,
    /// The operator changes who is a member.
    pub changes_members: bool,
    pub safety: u64,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub snapshot_entries: u64,
    pub log_segment_bytes: usize,
    pub value_bytes: usize,
    pub latency: u64,
    pub jitter: u64,
    /// For the choices of the run itself.
    pub random: Random,
}

impl Plan {
    /// The plan of that seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x05ee_d0f7_a57e);
        let members = if random.permille(600) { 3 } else { 5 };
        let mut faults = Fault::ALL.to_vec();
        random.shuffle(&mut faults);
        faults.truncate(random.between(2, 10) as usize);
        if Random::new(seed).permille(150) {
            faults.push(Fault::QuickRestart);
        }
        // What was added later has dice of its own: other plans stay as they were.
        let mut later = Random::new(seed ^ 0x1a7e_add5);
        let proposals_wait_permille = if later.permille(250) { 30 } else { 0 };
        let (latency, jitter) = *random.pick(&faults::GOOD_LINKS);
        let (heartbeat_ms, election_ms) = *random.pick(&[(50, 200), (50, 200), (100, 400)]);
        let operates = random.permille(700);
        Self {
            seed,
            members,
            spares: 2,
            clients: random.between(3, 6) as u32,
            keys: random.between(1, 5) as u32,
            faults,
            fault_every: random.between(80, 1200) * MILLISECOND,
            proposals_wait_permille,
            operator_every: operates.then(|| random.between(300, 2000) * MILLISECOND),
            changes_members: random.permille(600),
            safety: random.between(6, 16) * SECOND,
            heartbeat_ms,
            election_ms,
            snapshot_entries: *random.pick(&[20, 50, 100, 400]),
            log_segment_bytes: *random.pick(&[8 << 10, 32 << 10, 128 << 10]),
            value_bytes: *random.pick(&[8, 8, 200, 2000]),
            latency,
            jitter,
            random,
        }
    }

    /// All machines for members.
    pub fn member_hosts(&self) -> usize {
        self.members + self.spares
    }

    /// The machine of the clients.
    pub fn client_host(&self) -> usize {
        self.member_hosts()
    }
}
