//! What the demo shows while it runs: a block of lines that is painted over in place on a terminal, and a line for each
//! event elsewhere. Rendering is pure; writing is one small type.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::sample::Sample;
use crate::commands::progress::thousands;

/// One state of the display.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) title: String,
    pub(crate) at: Duration,
    pub(crate) rows: u64,
    pub(crate) total_rows: u64,
    /// Rows a second over the last moments.
    pub(crate) rate: f64,
    pub(crate) leader: String,
    pub(crate) jobmanagers: String,
    pub(crate) job: String,
    pub(crate) taskmanagers: String,
    pub(crate) checkpoints: String,
}

/// Events that stay visible below the live lines.
const EVENTS_SHOWN: usize = 10;
const BAR_WIDTH: u64 = 30;
/// How often a display that cannot be painted over repeats the state.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

impl Frame {
    /// The display of `sample`; `members` is how many JobManagers there should be.
    pub(crate) fn of(
        title: &str,
        sample: &Sample,
        members: usize,
        rows: u64,
        total_rows: u64,
        rate: f64,
    ) -> Self {
        let leader = match sample.leadership() {
            Some(status) => format!(
                "{} ({})  epoch {}  term {}",
                status.leader, status.leader_address, status.epoch, status.term
            ),
            None => "nobody: electing".to_owned(),
        };
        let mut tasks: BTreeMap<&str, u32> = BTreeMap::new();
        for task in sample
            .job
            .iter()
            .flat_map(|job| &job.vertices)
            .flat_map(|vertex| &vertex.tasks)
        {
            *tasks.entry(&task.task_manager).or_default() +=
                u32::from(matches!(task.state.as_str(), "RUNNING" | "END_OF_DATA"));
        }
        let tasks: Vec<_> = tasks
            .iter()
            .map(|(name, count)| format!("{name}: {count} tasks"))
            .collect();
        let job = match sample
            .job
            .as_ref()
            .and_then(|job| job.summary.as_ref().map(|summary| (job, summary)))
        {
            Some((job, summary)) => {
                format!(
                    "{}  attempt {}  restarts {}  {}",
                    summary.state, summary.attempt, summary.restarts, job.status_text
                )
            }
            None => "not known while nobody leads".to_owned(),
        };
        Self {
            title: title.to_owned(),
            at: sample.at,
            rows,
            total_rows,
            rate,
            leader,
            jobmanagers: format!("{} of {members} answer", sample.members.len()),
            job,
            taskmanagers: if tasks.is_empty() {
                "-".to_owned()
            } else {
                tasks.join("   ")
            },
            checkpoints: checkpoints(sample),
        }
    }

    /// The lines of this frame, without line ends.
    fn lines(&self) -> Vec<String> {
        let filled = (BAR_WIDTH * self.rows)
            .checked_div(self.total_rows)
            .unwrap_or(0)
            .min(BAR_WIDTH);
        let bar: String = (0..BAR_WIDTH)
            .map(|cell| if cell < filled { '█' } else { '░' })
            .collect();
        let (rows, total) = (thousands(self.rows), thousands(self.total_rows));
        vec![
            format!("{}  {}", self.title, clock(self.at)),
            format!(
                "  rows         {bar} {rows} of {total}   {:.0} rows/s",
                self.rate
            ),
            format!("  leader       {}   {}", self.leader, self.jobmanagers),
            format!("  job          {}", self.job),
            format!("  tasks        {}", self.taskmanagers),
            format!("  checkpoints  {}", self.checkpoints),
        ]
    }

    fn one_line(&self) -> String {
        let (rows, total) = (thousands(self.rows), thousands(self.total_rows));
        format!(
            "{rows} of {total} rows, leader {}, job {}, checkpoints {}",
            self.leader,
            self.job.trim_end(),
            self.checkpoints
        )
    }
}

fn checkpoints(sample: &Sample) -> String {
    let Some(job) = &sample.job else {
        return "-".to_owned();
    };
    let mut text = format!(
        "{} completed, {} failed",
        job.completed_checkpoints, job.failed_checkpoints
    );
    if let Some(last) = sample
        .checkpoints
        .iter()
        .find(|checkpoint| checkpoint.status == "COMPLETED")
    {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            ", last #{}: {} ms, {} of {} uploaded",
            last.id,
            last.duration_ms,
            bytes(last.uploaded_bytes),
            bytes(last.size_bytes)
        );
    }
    text
}

/// A size with a unit that leaves few digits.
pub(crate) fn bytes(size: u64) -> String {
    match size {
        0..10_000 => format!("{size} B"),
        10_000..10_000_000 => format!("{:.1} KB", size as f64 / 1e3),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

fn clock(at: Duration) -> String {
    format!(
        "{:02}:{:02}.{}",
        at.as_secs() / 60,
        at.as_secs() % 60,
        at.subsec_millis() / 100
    )
}

/// Writes frames and events.
#[derive(Debug)]
pub(crate) struct View<W> {
    out: W,
    /// Whether frames are painted over in place.
    live: bool,
    painted: usize,
    events: Vec<String>,
    next_plain: Duration,
}

impl<W: Write> View<W> {
    /// A view on `out`; `live` if that is a terminal.
    pub(crate) fn new(out: W, live: bool) -> Self {
        Self {
            out,
            live,
            painted: 0,
            events: Vec::new(),
            next_plain: Duration::ZERO,
        }
    }

    /// Something happened at `at`.
    pub(crate) fn event(&mut self, at: Duration, text: &str) -> io::Result<()> {
        let line = format!("{}  {text}", clock(at));
        if self.live {
            self.events.push(line);
            return Ok(());
        }
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Shows `frame`.
    pub(crate) fn show(&mut self, frame: &Frame) -> io::Result<()> {
        if !self.live {
            if frame.at >= self.next_plain {
                self.next_plain = frame.at + PLAIN_INTERVAL;
                writeln!(self.out, "{}  {}", clock(frame.at), frame.one_line())?;
            }
            return self.out.flush();
        }
        let mut lines = frame.lines();
        let first = self.events.len().saturating_sub(EVENTS_SHOWN);
        lines.extend(
            self.events[first..]
                .iter()
                .map(|event| format!("  {event}")),
        );
        // Up to the first painted line, then each line anew with its rest erased, then everything below.
        let mut text = String::new();
        if self.painted > 0 {
            let _ = write!(text, "\x1b[{}A", self.painted);
        }
        for line in &lines {
            // A line that wraps would break the count of lines to go up: the terminal's wrapping is off meanwhile.
            let _ = write!(text, "\r\x1b[?7l{line}\x1b[K\x1b[?7h\n");
        }
        text.push_str("\x1b[J");
        self.painted = lines.len();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::samples::*;
    use super::*;

    fn shown(live: bool, frames: usize) -> String {
        let mut view = View::new(Vec::new(), live);
        view.event(Duration::from_millis(1_500), "killed JobManager 1")
            .unwrap();
        for at_ms in 0..frames as u64 {
            let sample = with_checkpoint(
                with_job(led_by(at_ms * 200, 2, 3), 1, 1_000),
                4,
                "COMPLETED",
                5,
                12,
            );
            view.show(&Frame::of(
                "Flott demo",
                &sample,
                3,
                1_000,
                327_346,
                9_999.6,
            ))
            .unwrap();
        }
        String::from_utf8(view.out).unwrap()
    }

    #[test]
    fn a_terminal_is_painted_over_in_place() {
        let text = shown(true, 2);
        assert_eq!(text.matches("\x1b[7A").count(), 1, "{text}");
        for part in [
            "1,000 of 327,346",
            "10000 rows/s",
            "epoch 30",
            "tm-1: 1 tasks",
            "last #4: 12 ms",
            "00:01.5  killed",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn elsewhere_there_are_only_plain_lines() {
        let text = shown(false, 60);
        assert!(!text.contains('\x1b'));
        assert_eq!(
            text.lines().count(),
            1 + 3,
            "an event, and the state every five seconds: {text}"
        );
    }

    #[test]
    fn nobody_leading_is_said() {
        let frame = Frame::of("", &led_by(0, 0, 3), 3, 0, 0, 0.0);
        assert!(frame.lines().join("\n").contains("nobody: electing"));
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(
            [bytes(9_999), bytes(10_000), bytes(25_000_000)],
            ["9999 B", "10.0 KB", "25.0 MB"]
        );
    }
}
