//! What is shown in which lane of the page, and from when to when. Pure.
//!
//! - [`members`]: who led, and what was done to whom. [`faults`]: what was planned, and what became of it. [`jobs`]: attempts
//!   and checkpoints. [`operations`]: how many ended how, second by second. [`tenants`]: one that abuses, and how another fares.
//!
//! A [`Group`] has lanes; a lane has rows of bars, or a strip of counts.

mod faults;
mod jobs;
mod members;
mod operations;
mod tenants;

use super::Material;

/// Lanes that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub struct Group {
    pub title: &'static str,
    pub lanes: Vec<Lane>,
}

/// One line of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    #[expect(missing_docs, reason = "its name says it")]
    pub name: String,
    /// What it shows, for somebody who has never seen it.
    pub about: String,
    #[expect(missing_docs, reason = "see there")]
    pub content: Content,
}

/// What a lane shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Rows of things that do not overlap; one thing may be of several bars on top of each other.
    Rows(Vec<Vec<Bar>>),
    #[expect(missing_docs, reason = "see there")]
    Strip(Strip),
}

/// Something that lasted, or happened: then both times are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    #[expect(missing_docs, reason = "milliseconds since the run began")]
    pub from_ms: u64,
    #[expect(missing_docs, reason = "likewise")]
    pub until_ms: u64,
    /// A class of the style sheet.
    pub look: &'static str,
    /// A word on it.
    pub label: String,
    /// All that is known.
    pub about: String,
}

/// Counts, column by column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strip {
    /// Milliseconds of a column; the first begins with the run.
    pub every_ms: u64,
    /// What the three numbers count; the first is what was hoped for.
    pub names: [&'static str; 3],
    /// Of what the highest column has.
    pub unit: String,
    #[expect(missing_docs, reason = "see above")]
    pub columns: Vec<[u64; 3]>,
}

/// All lanes of a run, from top to bottom.
pub fn groups(material: &Material) -> Vec<Group> {
    let group = |title, lanes| Group { title, lanes };
    let mut groups = vec![
        group("the run", overview(material)),
        group("members", members::lanes(material)),
        group("faults", faults::lanes(material)),
        group("jobs and checkpoints", jobs::lanes(material)),
        group("operations of registers", operations::lanes(material)),
        group("accounts", operations::of_accounts(material)),
        group("tenants", tenants::lanes(material)),
    ];
    groups.retain(|group| !group.lanes.is_empty());
    groups
}

/// Milliseconds that the page has to show.
pub fn length_ms(material: &Material) -> u64 {
    let ended = material.struck.iter().map(|struck| struck.until_ms);
    ended
        .chain([material.report.length_ms])
        .max()
        .unwrap_or(0)
        .max(1)
}

/// When the times of the plan begin. Of runs that did not write it down: as early as its first steps say.
fn faults_from_ms(material: &Material) -> u64 {
    let struck = material.struck.iter();
    let begins = struck.map(|struck| struck.from_ms.saturating_sub(struck.step.at_ms));
    match material.report.faults_from_ms {
        0 => begins.min().unwrap_or(0),
        known => known,
    }
}

fn overview(material: &Material) -> Vec<Lane> {
    let report = &material.report;
    let (from, length) = (faults_from_ms(material), length_ms(material));
    let until = match report.faults_ms {
        0 => length,
        lasted => from.saturating_add(lasted),
    };
    let bar = |from_ms, until_ms, look, label: &str| Bar {
        from_ms,
        until_ms,
        look,
        label: label.to_owned(),
        about: format!("{label}: {} to {}", seconds(from_ms), seconds(until_ms)),
    };
    let mut phases = vec![bar(0, from, "phase", "start and warm-up")];
    phases.push(bar(
        from,
        until,
        "phase struck",
        "faults, or as long without",
    ));
    phases.push(bar(until, length, "phase", "healed; last reads; the end"));
    phases.retain(|bar| bar.from_ms < bar.until_ms);
    let found = (1_u32..).zip(findings(material));
    let found = found.filter_map(|(number, (what, at_ms, look))| {
        let at_ms = at_ms?;
        Some(vec![Bar {
            from_ms: at_ms,
            until_ms: at_ms,
            look,
            label: number.to_string(),
            about: format!("{}: {what}", seconds(at_ms)),
        }])
    });
    let found = stack(found.collect(), length / 40);
    let mut lanes = vec![Lane {
        name: "phases".to_owned(),
        about: "what the harness did".to_owned(),
        content: Content::Rows(vec![phases]),
    }];
    if !found.is_empty() {
        lanes.push(Lane {
            name: "what was found".to_owned(),
            about: "the numbers of the list above, each at the moment when it showed".to_owned(),
            content: Content::Rows(found),
        });
    }
    lanes
}

/// Violations, then doubts: each with its moment, if it has one, and the look of its mark.
pub fn findings(material: &Material) -> Vec<(&str, Option<u64>, &'static str)> {
    let report = &material.report;
    let moment = |what: &str| {
        let mut known = report.moments.iter();
        known.find(|known| known.what == what)?.at_ms
    };
    let violations = report.violations.iter().map(|what| (what, "violation"));
    let doubts = report.doubts.iter().map(|what| (what, "doubt"));
    violations
        .chain(doubts)
        .map(|(what, look)| (what.as_str(), moment(what), look))
        .collect()
}

/// Things into as few rows as possible without overlap; each is of one bar, or of several on top of each other. Between two
/// in a row is at least `apart_ms`.
fn stack(mut things: Vec<Vec<Bar>>, apart_ms: u64) -> Vec<Vec<Bar>> {
    let from = |thing: &Vec<Bar>| thing.iter().map(|bar| bar.from_ms).min().unwrap_or(0);
    things.sort_by_key(from);
    let mut rows: Vec<(u64, Vec<Bar>)> = Vec::new();
    for thing in things {
        let begin = from(&thing);
        let end = thing.iter().map(|bar| bar.until_ms).max().unwrap_or(0);
        let free = end.max(begin.saturating_add(1)).saturating_add(apart_ms);
        match rows.iter_mut().find(|(free_from, _)| *free_from <= begin) {
            Some((free_from, row)) => {
                *free_from = free;
                row.extend(thing);
            }
            None => rows.push((free, thing)),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// A time as the lines of a run have it.
pub fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1e3)
}
