//! The page as text: HTML with its style, and a script without which everything but zooming works. Pure.
//!
//! Times become parts of a hundred of the track's width, so the page is as wide as whoever looks at it wants.

use std::fmt::{self, Write as _};

use super::Material;
use super::lanes::{Bar, Content, Group, Strip, findings, groups, length_ms, seconds};
use crate::campaign::words::line_of;

/// Labels of the axis at most.
const LABELS_MAX: u64 = 14;
/// Milliseconds between two labels of the axis.
const LABEL_STEPS_MS: [u64; 14] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000,
    1_800_000, 3_600_000, 14_400_000,
];
/// Of a hundred parts of a strip's height: for the highest column, and for a count that is small beside it but not none.
const STRIP_HEIGHT: u64 = 84;
const STRIP_HEIGHT_MIN: u64 = 8;

/// The page of a run.
pub fn page(material: &Material) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut text, material);
    text
}

fn write_page(out: &mut String, material: &Material) -> fmt::Result {
    let report = &material.report;
    let title = format!("chaos run, seed {}: {}", report.seed, report.verdict);
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>",
        escape(&title),
        include_str!("style.css"),
    )?;
    head(out, material)?;
    found(out, material)?;
    let length = length_ms(material);
    out.push_str(
        "<p class=\"keys\"><span class=\"zoom\"><button data-zoom=\"2\">zoom in</button> \
         <button data-zoom=\"0.5\">zoom out</button> <button data-zoom=\"0\">all</button> or Ctrl and the wheel. </span>",
    );
    legend(out)?;
    out.push_str("</p>\n");
    let step = label_step(length);
    writeln!(
        out,
        "<div class=\"scroll\"><div class=\"run\" data-length=\"{length}\" style=\"--grid:{:.4}%\">\n<div class=\"cursor\"></div>",
        part(step, length)
    )?;
    moments(out, material, length)?;
    axis(out, step, length)?;
    for group in groups(material) {
        write_group(out, &group, length)?;
    }
    axis(out, step, length)?;
    out.push_str("</div></div>\n");
    tables(out, material)?;
    writeln!(
        out,
        "<div class=\"about\">Point at something to read what it is.</div>\n<script>\n{}</script>\n</body>\n</html>",
        include_str!("script.js")
    )
}

fn head(out: &mut String, material: &Material) -> fmt::Result {
    let (plan, report) = (&material.plan, &material.report);
    let workloads: Vec<String> = plan
        .workloads
        .iter()
        .map(|workload| format!("{workload:?}").to_lowercase())
        .collect();
    let installed: u64 = report.faults.values().map(|kind| kind.installed).sum();
    let planned: u64 = report.faults.values().map(|kind| kind.planned).sum();
    writeln!(
        out,
        "<h1>chaos run, seed {} <span class=\"verdict {verdict}\">{verdict}</span></h1>\n\
         <p>{installed} of {planned} planned faults were installed in a run of {}; {} changes of leader, {} checkpoints, attempt {} of the \
         sequence job. Workloads: {}. Program under test: {}. Plan {}.</p>",
        report.seed,
        seconds(report.length_ms),
        report.leader_changes,
        report.checkpoints,
        report.attempts,
        escape(&workloads.join(", ")),
        escape(&report.version),
        escape(&report.plan),
        verdict = escape(&report.verdict),
    )
}

/// What was found, each under the number of its mark.
fn found(out: &mut String, material: &Material) -> fmt::Result {
    let all = findings(material);
    if all.is_empty() {
        return Ok(());
    }
    out.push_str("<ol class=\"found\">\n");
    for (what, at_ms, look) in all {
        let when = at_ms.map_or("in the run as a whole".to_owned(), |at_ms| {
            format!("at {}", seconds(at_ms))
        });
        let (first, rest) = what.split_once('\n').unwrap_or((what, ""));
        write!(
            out,
            "<li class=\"{look}\"><b>{look}</b> {when}: {}",
            escape(first)
        )?;
        if !rest.is_empty() {
            write!(out, "<pre>{}</pre>", escape(rest))?;
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ol>\n");
    Ok(())
}

fn legend(out: &mut String) -> fmt::Result {
    for (look, what) in [
        ("process", "killed or stopped"),
        ("network", "cut off, slowed"),
        ("store", "object store"),
        ("operation", "an operator's doing"),
        ("machine", "clock, disk, limits"),
        ("planned", "as planned"),
        ("planned skipped", "skipped"),
        ("indeterminate", "nobody knows"),
        ("violation", "violation"),
        ("doubt", "why it is unknown"),
    ] {
        write!(
            out,
            "<span class=\"key\"><i class=\"{look}\"></i>{what}</span> "
        )?;
    }
    out.push_str("<span class=\"key\">* who led</span> ");
    let outcomes = ["acknowledged", "unknown outcome", "failed for sure"];
    for (number, what) in outcomes.iter().enumerate() {
        write!(
            out,
            "<span class=\"key\"><i class=\"count-{number}\"></i>{what}</span> "
        )?;
    }
    Ok(())
}

/// A line through all lanes at each moment of the list.
fn moments(out: &mut String, material: &Material, length: u64) -> fmt::Result {
    for (_, at_ms, look) in findings(material) {
        if let Some(at_ms) = at_ms {
            let part = part(at_ms, length) / 100.0;
            writeln!(
                out,
                "<div class=\"moment {look}\" style=\"--part:{part:.5}\"></div>"
            )?;
        }
    }
    Ok(())
}

/// The smallest distance of labels of which not too many fit.
fn label_step(length: u64) -> u64 {
    let fits = |step: &&u64| length / **step <= LABELS_MAX;
    let step = LABEL_STEPS_MS.iter().find(fits).copied();
    step.unwrap_or_else(|| (length / LABELS_MAX).max(1))
}

fn axis(out: &mut String, step: u64, length: u64) -> fmt::Result {
    out.push_str("<div class=\"lane axis\"><div class=\"name\">seconds since the run began</div><div class=\"track\">");
    for at in (0..=length / step).map(|number| number * step) {
        let left = part(at, length);
        // The last would stand outside.
        if left < 97.0 {
            write!(
                out,
                "<span style=\"left:{left:.3}%\">{}</span>",
                at as f64 / 1e3
            )?;
        }
    }
    out.push_str("</div></div>\n");
    Ok(())
}

fn write_group(out: &mut String, group: &Group, length: u64) -> fmt::Result {
    writeln!(
        out,
        "<div class=\"lane title\"><div class=\"name\">{}</div></div>",
        escape(group.title)
    )?;
    for lane in &group.lanes {
        write!(
            out,
            "<div class=\"lane\"><div class=\"name\" title=\"{}\">{}</div><div class=\"tracks\">",
            escape(&lane.about),
            escape(&lane.name)
        )?;
        match &lane.content {
            Content::Rows(rows) if rows.is_empty() => {
                out.push_str("<div class=\"track\"></div>");
            }
            Content::Rows(rows) => {
                for row in rows {
                    out.push_str("<div class=\"track\">");
                    for bar in row {
                        write_bar(out, bar, length)?;
                    }
                    out.push_str("</div>");
                }
            }
            Content::Strip(strip) => write_strip(out, strip, length)?,
        }
        out.push_str("</div></div>\n");
    }
    Ok(())
}

fn write_bar(out: &mut String, bar: &Bar, length: u64) -> fmt::Result {
    let (left, width) = (
        part(bar.from_ms, length),
        part(bar.until_ms.saturating_sub(bar.from_ms), length),
    );
    write!(
        out,
        "<div class=\"bar {}\" style=\"left:{left:.3}%;width:{width:.3}%\" title=\"{}\">{}</div>",
        bar.look,
        escape(&bar.about),
        escape(&bar.label)
    )
}

/// Three outlines on top of each other.
fn write_strip(out: &mut String, strip: &Strip, length: u64) -> fmt::Result {
    let highest = strip
        .columns
        .iter()
        .map(|counts| counts.iter().sum::<u64>());
    let highest = highest.max().unwrap_or(0).max(1);
    let mut outlines = [String::new(), String::new(), String::new()];
    let mut values = String::new();
    for (number, counts) in strip.columns.iter().enumerate() {
        let mut bottom = 100;
        for (index, count) in counts.iter().enumerate() {
            write!(values, "{}{count}", if index == 0 { ' ' } else { ',' })?;
            if *count == 0 {
                continue;
            }
            let least = if index == 0 { 1 } else { STRIP_HEIGHT_MIN };
            let height = (count * STRIP_HEIGHT / highest).max(least);
            bottom -= height;
            write!(outlines[index], "M{number} {bottom}h1v{height}h-1z")?;
        }
    }
    let width = part(strip.every_ms * strip.columns.len() as u64, length);
    write!(
        out,
        "<div class=\"track strip\" data-every=\"{}\" data-names=\"{}\" data-counts=\"{}\"><svg style=\"width:{width:.3}%\" \
         viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\">",
        strip.every_ms,
        escape(&strip.names.join(",")),
        values.trim_start(),
        strip.columns.len()
    )?;
    for (index, outline) in outlines.iter().enumerate() {
        write!(out, "<path class=\"count-{index}\" d=\"{outline}\"/>")?;
    }
    write!(
        out,
        "</svg><span class=\"most\">{highest} {}</span></div>",
        escape(&strip.unit)
    )
}

/// Everything that has a time, and the settings, to be searched in.
fn tables(out: &mut String, material: &Material) -> fmt::Result {
    out.push_str("<details><summary>All faults, in words</summary><pre>");
    for struck in &material.struck {
        writeln!(out, "{}", escape(&line_of(struck)))?;
    }
    out.push_str("</pre></details>\n<details><summary>The cluster and its settings</summary><pre>");
    let knobs = &material.plan.knobs;
    writeln!(
        out,
        "{} JobManagers, {} TaskManagers of {} slots; the sequence job reads {} records/s at parallelism {}",
        knobs.jobmanagers,
        knobs.taskmanagers,
        knobs.slots,
        knobs.records_per_second,
        knobs.parallelism
    )?;
    for (key, value) in &knobs.settings {
        writeln!(out, "{}: {}", escape(key), escape(value))?;
    }
    out.push_str("</pre></details>\n");
    Ok(())
}

/// Of a hundred parts of the track.
fn part(ms: u64, length: u64) -> f64 {
    ms as f64 / length as f64 * 100.0
}

/// Text as HTML that shows exactly it, between tags and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
