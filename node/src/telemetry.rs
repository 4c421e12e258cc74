//! Logs and metrics of a process.
//!
//! Log lines go to stderr through one writer thread with a bounded queue: a full pipe or a slow terminal loses lines (and
//! says how many), but never stops a heartbeat. Metrics go to one recorder per process, rendered by the HTTP port.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Log lines that may wait for stderr. At some 200 bytes a line that is 2 MB, and more than any burst of a healthy process.
const QUEUED_LINES_MAX: usize = 8192;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What can be wrong with the wish for logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "log filter {filter:?} is malformed (write e.g. `info` or `info,flott_coordinator=debug`)"
    )]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("cannot start the log writer")]
    Writer(#[source] std::io::Error),
    #[error("logging was set up before")]
    Twice,
}

/// Starts logging to stderr, once in a process. `filter` is in the notation of `tracing`'s directives.
///
/// Keep the guard until the end of `main`: dropping it waits until the queued lines are written.
pub fn init(format: LogFormat, filter: &str) -> Result<LogGuard, TelemetryError> {
    let malformed = |source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    };
    let filter = EnvFilter::try_new(filter).map_err(malformed)?;
    let (writer, guard) = LineWriter::start().map_err(TelemetryError::Writer)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(UtcMillis)
        .with_ansi(false)
        .with_writer(writer);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .try_init(),
    };
    installed.map_err(|_| TelemetryError::Twice)?;
    Ok(guard)
}

/// Times of log lines: RFC 3339, UTC, milliseconds.
struct UtcMillis;

impl FormatTime for UtcMillis {
    #[expect(
        clippy::disallowed_methods,
        reason = "log lines tell wall time even where a test drives the clock"
    )]
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        writer.write_str(&rfc3339(now))
    }
}

/// Time since the epoch as `2013-01-01T05:00:00.000Z`.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since_epoch.subsec_millis()
    )
}

/// Days since 1970-01-01 to year, month, day of the Gregorian calendar, counting years from 1 March so that the leap day
/// is the last of a year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Hands lines to the writer thread without waiting for it.
#[derive(Clone, Debug)]
struct LineWriter {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Everything before it is written when it is answered.
    Flush(SyncSender<()>),
}

impl LineWriter {
    fn start() -> std::io::Result<(Self, LogGuard)> {
        let (lines, queue) = sync_channel(QUEUED_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let seen = lost.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&queue, &seen))?;
        let guard = LogGuard {
            lines: lines.clone(),
        };
        Ok((Self { lines, lost }, guard))
    }
}

/// Writes until the process ends. An error of stderr has nowhere to be reported.
fn write_lines(queue: &Receiver<Message>, lost: &AtomicU64) {
    while let Ok(message) = queue.recv() {
        let mut stderr = std::io::stderr().lock();
        match message {
            Message::Line(line) => {
                let _ = stderr.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = stderr.flush();
                let _ = done.try_send(());
            }
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(stderr, "({lost} log lines lost: stderr was too slow)");
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(line.to_vec())) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Waits for queued log lines when dropped.
#[derive(Debug)]
pub struct LogGuard {
    lines: SyncSender<Message>,
}

impl LogGuard {
    /// Longest wait for the queued lines: the end of a process must not hang on a full pipe.
    const WAIT_MAX: Duration = Duration::from_secs(1);
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(Self::WAIT_MAX);
        }
    }
}

/// The metrics of this process.
#[derive(Clone)]
pub struct MetricsHandle {
    prometheus: Option<PrometheusHandle>,
}

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsHandle")
    }
}

impl MetricsHandle {
    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let Some(prometheus) = &self.prometheus else {
            return String::new();
        };
        prometheus.run_upkeep();
        prometheus.render()
    }
}

/// Upper bounds of all histograms, in seconds: from a fast fsync to a slow checkpoint.
const BUCKETS_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0,
];

/// The metrics of this process; the first call installs the recorder. If the program brought a recorder of its own,
/// there is nothing to render here.
pub fn metrics() -> MetricsHandle {
    static HANDLE: OnceLock<MetricsHandle> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS_SECONDS);
        let prometheus = builder
            .ok()
            .and_then(|builder| builder.install_recorder().ok());
        metrics::describe_gauge!(
            "flott_build_info",
            "1, labelled with the version of this process"
        );
        metrics::gauge!("flott_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        MetricsHandle { prometheus }
    };
    HANDLE.get_or_init(install).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_357_016_400_123, "2013-01-01T05:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(rfc3339(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn metrics_are_rendered_and_installing_twice_is_harmless() {
        let first = metrics();
        metrics::counter!("flott_test_total").increment(3);
        let text = metrics().render();
        assert!(text.contains("flott_build_info{version="), "{text}");
        assert!(text.contains("flott_test_total 3"), "{text}");
        assert_eq!(first.render().matches("# TYPE flott_build_info").count(), 1);
    }

    #[test]
    fn a_malformed_filter_is_refused_with_an_example() {
        let error = init(LogFormat::Text, "flott=loud").unwrap_err();
        assert!(
            error.to_string().contains("flott_coordinator=debug"),
            "{error}"
        );
    }

    #[test]
    fn a_full_queue_counts_the_line_and_does_not_wait() {
        let (lines, queue) = sync_channel(1);
        let mut writer = LineWriter {
            lines,
            lost: Arc::default(),
        };
        writer.write_all(b"one\n").unwrap();
        writer.write_all(b"two\n").unwrap();
        assert_eq!(writer.lost.load(Ordering::Relaxed), 1);
        drop(queue);
    }
}
