//! What is said to a shell on somebody's machine. Pure: each is a text, to be read before it is said.
//!
//! ```text
//! {                                    one compound command: read to its end before any of it is done, so of a script
//!   what scripts have in common        that arrives in part nothing is; and nothing in it takes the rest for its input
//!   arm: a sleeper that undoes it      in a session of its own: it outlives the shell, the harness and the network
//!   the fault, and the proof of it
//! } </dev/null                         answers: `chaos value NAME …`, then `chaos done …`, `skip …` or `unclear …`
//! ```
//!
//! - [`process`]: killing, stopping, starting. [`packets`]: cuts, and connections that break. [`lines`]: late, thin and lossy
//!   lines. [`load`]: busy processors. [`probe`]: what a machine has.
//!
//! POSIX `sh` and what dash and busybox have. What must stay true: an undo may come twice, late, or without its fault, and then
//! does nothing; it says `done` only if nothing of the fault is left; and the sleeper's is the same text as everybody's.

pub mod lines;
pub mod load;
pub mod packets;
pub mod probe;
pub mod process;

use std::fmt;
use std::time::Duration;

/// After a fault's time to live, the machine leaves it to the harness and its watchdog for so long.
pub const GRACE: Duration = Duration::from_secs(30);

/// What all scripts know.
const COMMON: &str = r#"LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
set -f
# Answers, each on one line.
say() { set -- $*; printf 'chaos %s\n' "$*"; }
value() { say value "$@"; }
finish() { say done "$@"; exit 0; }
skip() { say skip "$@"; exit 0; }
unclear() { say unclear "$@"; exit 0; }
nap() { sleep 0.1 2>/dev/null || sleep 1; }
# Nothing was done, and nothing is to be undone.
quit() { rm -rf "$dir"; skip "$@"; }
# Quits, and undoes what was begun, unless the command succeeds.
try() {
  reason=$("$@" 2>&1) && return
  lift
  quit "$1: $reason"
}
# Finds $born, $state and $threads of process $1. False: it is gone.
born() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  set -- ${stat##*\)}
  [ $# -ge 20 ] || return 1
  state=$1 threads=${18} born=${20}
}
# Whether nothing is left of process $1 that was born at $2.
over() {
  born "$1" && [ "$born" = "$2" ] || return 0
  [ "$state" = Z ] && [ "$threads" -le 1 ]
}
"#;

/// Names a fault on one machine, for ever: in directories, chains and queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Among those of the run.
    pub number: u32,
    /// When the run began, in milliseconds since 1970.
    pub run_ms: i64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chaos-{}-{:x}", self.number, self.run_ms)
    }
}

/// A fault's name, and how long it lives.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    #[expect(missing_docs, reason = "its name says it")]
    pub token: Token,
    /// Then whoever applied it undoes it.
    pub lives: Duration,
    /// So much later the machine does. [`GRACE`]
    pub grace: Duration,
}

/// A fault on one machine, and what undoes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Applies it, once its undo is armed.
    pub apply: String,
    /// Undoes it, whoever says it, and however often.
    pub undo: String,
}

impl Fault {
    /// `body` applies it; `undo` undoes it, sets `how`, and names the value `gone` if there was nothing to undo. Both know what
    /// `known` defines.
    fn armed(lease: Lease, known: &str, body: &str, undo: &str) -> Self {
        // Where it is known that the fault is under way.
        let place = format!("dir=/tmp/flott-{}\n", lease.token);
        let undo = format!("{place}{known}{undo}rm -rf \"$dir\"\nfinish $how\n");
        let arm = arm(lease.lives + lease.grace, &undo);
        Self {
            apply: whole(&format!("{place}{arm}{known}{body}")),
            undo: whole(&undo),
        }
    }
}

/// Has somebody undo it in the end. The file says that it is still to be undone; without it, whoever wakes does nothing.
fn arm(after: Duration, undo: &str) -> String {
    // What it says goes nowhere.
    let sleeper = format!(
        ": >\"$1/armed\"\nsleep {}\n[ -e \"$1/armed\" ] || exit 0\n{COMMON}{undo}",
        after.as_secs().max(1)
    );
    format!(
        r#"out=$(mkdir -m 700 "$dir" 2>&1) || skip "its undo cannot be armed: $out"
detach=$(command -v setsid || command -v nohup) || quit 'its undo cannot be armed: there is no setsid and no nohup'
"$detach" sh -c {} sh "$dir" >/dev/null 2>&1 </dev/null &
tries=0
until [ -e "$dir/armed" ]; do
  tries=$((tries + 1))
  [ "$tries" -le 50 ] || quit 'its undo cannot be armed: the sleeper did not start'
  nap
done
"#,
        quoted(&sleeper)
    )
}

/// A script, with what all have in common.
fn whole(body: &str) -> String {
    format!("{{\n{COMMON}{body}}} </dev/null\n")
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
