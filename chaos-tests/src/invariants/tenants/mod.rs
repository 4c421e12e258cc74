//! A tenant neither sees nor changes what is another's, whatever it does, and is held to its quota.
//!
//! Two namespaces use keys of the same names. One is well-behaved ([`Tenant::Steady`]) and asks at a fixed rate; the other
//! ([`Tenant::Noisy`]) does its worst at times. Judged from what both were told.
//!
//! - *Invisible, unchanged*: the registers of the steady one are linearizable, though the noisy one writes and deletes the
//!   same names. Neither finds a value or a job of the other's. Nobody ends the steady one's job.
//! - *Quotas*: what a namespace uses is never above its quota, and what is beyond a limit is refused, saying so.
//! - *For the other's sake*: the steady one is never refused because of what the noisy one uses or sends.
//!
//! How long the steady one waits is a figure ([`figures`]), never a violation.

pub mod figures;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::jobs::Seen;
use super::linearizable::{self, Limits, Report};
use crate::history::History;
use crate::report::Finding;
use crate::target::client::is_terminal;
use figures::Figures;

/// With fewer answers to the steady tenant at rest, or under abuse, its figures say little.
const ANSWERED_MIN: u64 = 50;
/// With fewer requests that were carried out, the noisy tenant was not noisy.
const NOISE_MIN: u64 = 200;

/// Whose something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tenant {
    /// Asks for little, at a fixed rate.
    Steady,
    /// Does what a bad tenant does, as fast as it can.
    Noisy,
}

impl Tenant {
    #[expect(missing_docs, reason = "its name says it")]
    pub const ALL: [Self; 2] = [Self::Steady, Self::Noisy];

    /// In the names of its namespace and its jobs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Noisy => "noisy",
        }
    }

    /// Whether it wrote that value: the noisy one writes its name, the steady one numbers.
    pub fn wrote(self, value: &[u8]) -> bool {
        match self {
            Self::Steady => !value.is_empty() && value.iter().all(u8::is_ascii_digit),
            Self::Noisy => value.starts_with(Self::Noisy.word().as_bytes()),
        }
    }

    /// Whether it submitted a job of that name.
    pub fn submitted(self, name: &str) -> bool {
        name.contains(&format!("-{}-", self.word()))
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was carried out.
    Done,
    /// It was not: in the system's words.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// What a namespace uses, or may use; then 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the quota")]
pub struct Amounts {
    pub jobs: u64,
    pub slots: u64,
    pub kv_bytes: u64,
    pub checkpoint_bytes: u64,
}

impl Amounts {
    fn named(self) -> [(&'static str, u64); 4] {
        [
            ("jobs", self.jobs),
            ("slots", self.slots),
            ("kv_bytes", self.kv_bytes),
            ("checkpoint_bytes", self.checkpoint_bytes),
        ]
    }
}

/// Something that a tenant did, or saw. Times are since the run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "see each")]
pub enum Event {
    /// The steady tenant asked for a key, or set one.
    Asked {
        /// When it was its turn: if the one before took long, it was asked later.
        due_us: u64,
        ended_us: u64,
        answer: Answer,
    },
    /// The noisy tenant was noisy: how many of its requests were carried out, and how many were not, and why.
    Abused {
        from_ms: u64,
        until_ms: u64,
        done: BTreeMap<String, u64>,
        refused: BTreeMap<String, u64>,
    },
    /// Something beyond a limit was asked for. The refusal has to say `says`.
    Beyond {
        what: String,
        says: String,
        at_ms: u64,
        answer: Answer,
    },
    /// A tenant saw what is not its own.
    Foreign {
        tenant: Tenant,
        at_ms: u64,
        what: String,
    },
    /// What a tenant uses, and may use.
    Used {
        tenant: Tenant,
        at_ms: u64,
        used: Amounts,
        quota: Amounts,
    },
    /// A tenant's jobs.
    Listed {
        tenant: Tenant,
        at_ms: u64,
        jobs: Vec<Seen>,
    },
    /// How far the steady tenant's job is: completed checkpoints, and its attempt.
    Progress {
        at_ms: u64,
        checkpoint: u64,
        attempt: u64,
    },
}

/// Everything that both tenants left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy {
    #[expect(missing_docs, reason = "its name says it")]
    pub events: Vec<Event>,
    /// Of the steady tenant's registers; nanoseconds since the run began.
    pub history: History,
}

impl Tenancy {
    /// Judges the steady tenant's registers, which takes its time.
    pub fn registers(&self) -> Report {
        linearizable::check(&self.history, Limits::default())
    }
}

/// What must not be; `registers` are judged.
pub fn check(tenancy: &Tenancy, registers: &Report) -> Vec<Finding> {
    let mut violations = Vec::new();
    violations.extend(registers.findings(0).map(|found| Finding {
        what: format!("of the steady tenant: {}", found.what),
        ..found
    }));
    let mut quotas: BTreeMap<Tenant, Amounts> = BTreeMap::new();
    let mut steady_jobs: BTreeMap<&str, &str> = BTreeMap::new();
    for event in &tenancy.events {
        match event {
            Event::Asked {
                ended_us,
                answer: Answer::Refused(why),
                ..
            } if is_for_anothers_sake(why) => {
                let what = format!("the steady tenant was refused for another's sake: {why}");
                violations.push(Finding::at(ended_us / 1_000, what));
            }
            Event::Asked { .. } | Event::Abused { .. } | Event::Progress { .. } => {}
            Event::Beyond {
                what,
                at_ms,
                answer: Answer::Done,
                ..
            } => violations.push(Finding::at(*at_ms, format!("{what} was not refused"))),
            Event::Beyond { .. } => {}
            Event::Foreign {
                tenant,
                at_ms,
                what,
            } => {
                let what = format!("the {} tenant saw {what}", tenant.word());
                violations.push(Finding::at(*at_ms, what));
            }
            Event::Used {
                tenant,
                at_ms,
                used,
                quota,
            } => {
                quotas.insert(*tenant, *quota);
                violations.extend(above(*tenant, *at_ms, *used, *quota));
            }
            Event::Listed {
                tenant,
                at_ms,
                jobs,
            } => {
                let quota = quotas.get(tenant).copied().unwrap_or_default();
                violations.extend(listed(*tenant, *at_ms, jobs, quota));
                if *tenant == Tenant::Steady {
                    violations.extend(kept(&mut steady_jobs, *at_ms, jobs));
                }
            }
        }
    }
    violations
}

/// Refusals that a tenant within its quota must never meet, however much another asks for. That nobody leads, or that a
/// member is behind, is no such refusal.
fn is_for_anothers_sake(why: &str) -> bool {
    let reasons = ["Invalid", "NoNamespace", "NoLease"];
    let words = ["its quota is", "too many"];
    reasons.iter().any(|reason| why.starts_with(reason))
        || words.iter().any(|word| why.contains(word))
}

/// What is used above the quota. One that is lowered is another matter, and not done here.
fn above(tenant: Tenant, at_ms: u64, used: Amounts, quota: Amounts) -> Vec<Finding> {
    let pairs = used.named().into_iter().zip(quota.named());
    let above = pairs.filter(|((_, used), (_, quota))| *quota != 0 && used > quota);
    above
        .map(|((name, used), (_, quota))| {
            let tenant = tenant.word();
            let what = format!("the {tenant} tenant uses {used} {name}, and may use {quota}");
            Finding::at(at_ms, what)
        })
        .collect()
}

fn listed(tenant: Tenant, at_ms: u64, jobs: &[Seen], quota: Amounts) -> Vec<Finding> {
    let word = tenant.word();
    let foreign = jobs.iter().filter(|job| !tenant.submitted(&job.name));
    let mut found: Vec<Finding> = foreign
        .map(|job| {
            let what = format!("the {word} tenant's list has job {} ({})", job.name, job.id);
            Finding::at(at_ms, what)
        })
        .collect();
    let live = jobs.iter().filter(|job| !is_terminal(&job.state)).count() as u64;
    if quota.jobs != 0 && live > quota.jobs {
        let what = format!(
            "the {word} tenant has {live} jobs that have not ended, and may have {}",
            quota.jobs
        );
        found.push(Finding::at(at_ms, what));
    }
    found
}

/// The steady tenant's jobs, by id with their state, stay, and nobody ends them.
fn kept<'a>(known: &mut BTreeMap<&'a str, &'a str>, at_ms: u64, jobs: &'a [Seen]) -> Vec<Finding> {
    let mut found = Vec::new();
    known.retain(|id, state| {
        let is_there = jobs.iter().any(|job| job.id == *id);
        if !is_there {
            let what = format!("the steady tenant's job {id}, which was {state}, is gone");
            found.push(Finding::at(at_ms, what));
        }
        is_there
    });
    for job in jobs {
        let before = known.insert(&job.id, &job.state);
        if is_terminal(&job.state) && before != Some(&job.state) {
            let what = format!(
                "the steady tenant's job {} is {}, and nobody asked for it",
                job.id, job.state
            );
            found.push(Finding::at(at_ms, what));
        }
    }
    found
}

/// Why less was shown than was wanted.
pub fn doubts(tenancy: &Tenancy, registers: &Report, figures: &Figures) -> Vec<Finding> {
    let mut doubts = Vec::new();
    for (when, pace) in [("at rest", &figures.rest), ("under abuse", &figures.abuse)] {
        if pace.answered < ANSWERED_MIN {
            doubts.push(Finding::in_all(format!(
                "only {} requests of the steady tenant were answered {when} while no fault was under way",
                pace.answered
            )));
        }
    }
    if figures.noise < NOISE_MIN {
        doubts.push(Finding::in_all(format!(
            "only {} requests of the noisy tenant were carried out",
            figures.noise
        )));
    }
    // By what was asked for: whether it was ever refused as it has to be, and what was said instead.
    let mut refusals: BTreeMap<&str, (bool, &str)> = BTreeMap::new();
    for event in &tenancy.events {
        if let Event::Beyond {
            what, says, answer, ..
        } = event
        {
            let refusal = refusals.entry(what).or_insert((false, "nothing"));
            match answer {
                Answer::Refused(why) if why.contains(says) => refusal.0 = true,
                Answer::Refused(why) | Answer::Unknown(why) => refusal.1 = why,
                Answer::Done => {}
            }
        }
    }
    if refusals.is_empty() {
        let what = "the noisy tenant never asked for anything beyond its limits";
        doubts.push(Finding::in_all(what));
    }
    for (what, (_, instead)) in refusals.iter().filter(|(_, (clearly, _))| !clearly) {
        let what = format!("{what} was never refused in clear words; what was said: {instead}");
        doubts.push(Finding::in_all(what));
    }
    if !registers.undecided.is_empty() {
        let what = format!(
            "registers {:?} of the steady tenant were not decided",
            registers.undecided
        );
        doubts.push(Finding::in_all(what));
    }
    doubts
}

#[cfg(test)]
mod tests;
