//! `timeline.html`: a run on one page, for somebody who has to find out what happened.
//!
//! ```text
//! plan.json, report.json, faults.jsonl, leaders.jsonl,     lanes::groups      page::page
//! jobs.jsonl, checkpoints.jsonl, history.jsonl          ─►  what is where  ─►  HTML
//! ```
//!
//! - [`lanes`]: what is shown in which lane, and from when to when. [`page`]: as text.
//!
//! Both are pure. The page is made from the files alone, at the end of a run as by `chaos timeline` later, so that each run
//! that still has its files has a page. It is one file: no script, style or font comes from elsewhere. What must stay true:
//! nothing that a process said reaches the page unescaped.

pub mod lanes;
pub mod page;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::judge::Report;
use super::leftovers::{read_bank, read_history, read_json, read_lines, read_tenancy};
use super::observe::Led;
use super::plan::{Plan, Workload};
use super::strike::Struck;
use crate::history::Operation;
use crate::invariants::bank;
use crate::invariants::checkpoint_log::Listed;
use crate::invariants::jobs;
use crate::invariants::tenants::Event;

/// The file in the directory of a run.
pub const FILE: &str = "timeline.html";

/// What a run has left of what happened. Times are milliseconds since the run began, but for `operations`, which say their
/// own ([`Report::registers_begin_ms`]).
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the files of a run")]
pub struct Material {
    pub plan: Plan,
    pub report: Report,
    pub struck: Vec<Struck>,
    pub led: Vec<Led>,
    pub jobs: Vec<jobs::Event>,
    pub checkpoints: Vec<Listed>,
    pub operations: Vec<Operation>,
    pub tenants: Vec<Event>,
    pub bank: Vec<bank::Event>,
}

impl Material {
    /// Reads the files in the directory of a run. An error names the file, and the line.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let at = |name: &str| directory.join(name);
        let plan: Plan = read_json(&at("plan.json"))?;
        let complaints = plan.complaints();
        ensure!(
            complaints.is_empty(),
            "nobody carried out {}: {}",
            at("plan.json").display(),
            complaints.join("; ")
        );
        Ok(Self {
            report: read_json(&at("report.json"))?,
            struck: read_lines(&at("faults.jsonl"))?,
            led: read_lines(&at("leaders.jsonl"))?,
            jobs: read_lines(&at("jobs.jsonl"))?,
            checkpoints: read_lines(&at("checkpoints.jsonl"))?,
            tenants: read_tenancy(directory)?.events,
            bank: match plan.workloads.contains(&Workload::Bank) {
                true => read_bank(directory)?,
                false => Vec::new(),
            },
            operations: read_history(&at("history.jsonl"))?.operations,
            plan,
        })
    }
}

/// Makes the page of a run that has ended; where it is.
pub fn write(directory: &Path) -> anyhow::Result<PathBuf> {
    let path = directory.join(FILE);
    let page = page::page(&Material::read(directory)?);
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests;
