//! A process to load the library into: it does to clock and files what it is told, a line at a time, and says what it saw.
//!
//! ```text
//! clock          ─► <wall clock> <monotonic clock>, milliseconds      sync PATH      ─► ok, or the number of the error
//! write PATH     at PATH     vectored PATH     copy PATH TO           ─► the same
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() -> io::Result<()> {
    let start = now();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["clock"] => {
                let elapsed = now().1.duration_since(start.1);
                format!("{} {}", now().0.as_millis(), elapsed.as_millis())
            }
            ["sync", path] => said(File::open(path).and_then(|file| file.sync_data())),
            ["write", path] => said(opened(path).and_then(|mut file| file.write_all(b"x"))),
            ["at", path] => said(opened(path).and_then(|file| file.write_all_at(b"x", 0))),
            ["vectored", path] => said(opened(path).and_then(|mut file| {
                let pieces = [IoSlice::new(b"x"), IoSlice::new(b"y")];
                file.write_vectored(&pieces).map(drop)
            })),
            ["copy", path, to] => said(std::fs::copy(path, to).map(drop)),
            _ => "what?".to_owned(),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn opened(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
}

fn said(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.raw_os_error().unwrap_or(-1).to_string(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "these are the clocks that are looked at"
)]
fn now() -> (Duration, Instant) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    (wall.unwrap_or_default(), Instant::now())
}
