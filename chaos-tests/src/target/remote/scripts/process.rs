//! Scripts that end, stop and start a process.

use super::{Fault, Lease, quoted, whole};
use crate::target::remote::inventory::Host;

/// Somebody's process, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    #[expect(missing_docs, reason = "its number, while it lives")]
    pub pid: i32,
    /// When it was born, in ticks since its machine started.
    pub born: u64,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has no say.
    Kill,
    /// It is asked to, and killed if it does not.
    Terminate,
}

/// Finds `$pid` and `$born` by the command of its owner. Else `$none` says why: 1, it does not run; 2, nobody knows.
pub(super) fn look(host: &Host) -> String {
    format!(
        r#"look() {{
  pid= born= none='it does not run'
  out=$(sh -c {} 2>&1)
  set -- $out
  case "$*" in
    '' | 0) return 1 ;;
    1) none='the command for its number says 1, which is the first process of all'; return 2 ;;
    *[!0-9]*) none="the command for its number says: $*"; return 2 ;;
  esac
  pid=$1
  born "$pid" || return 1
  ! over "$pid" "$born"
}}
"#,
        quoted(&host.pid)
    )
}

/// Which process it is now.
pub fn find(host: &Host) -> String {
    whole(&format!(
        "{}look || skip \"$none\"\nvalue pid \"$pid\"\nvalue born \"$born\"\nfinish\n",
        look(host)
    ))
}

/// Stops that process, if it still is the one; the proof is its state.
pub fn pause(host: &Host, process: Process, lease: Lease) -> Fault {
    let Process { pid, born } = process;
    let lift = format!("lift() {{ over {pid} {born} || kill -CONT {pid}; }}\n");
    let body = format!(
        r#"{}look || quit "$none"
[ "$pid $born" = '{pid} {born}' ] || quit 'it is another process by now'
try kill -STOP "$pid"
tries=0
while ! over {pid} {born} && [ "$tries" -le 50 ]; do
  case "$state" in T | t) finish "state $state" ;; esac
  tries=$((tries + 1))
  nap
done
lift
quit "SIGSTOP left it in state $state"
"#,
        look(host)
    );
    let undo = format!(
        r#"if over {pid} {born}; then
  how='its process is gone'
else
  how="woken, it was in state $state"
  case "$state" in T | t) ;; *) value gone yes ;; esac
  out=$(kill -CONT {pid} 2>&1) || unclear "kill: $out"
fi
"#
    );
    Fault::armed(lease, &lift, &body, &undo)
}

/// Ends the process, whichever it is now, and waits until it is gone, which is the proof. Undone is that by whoever starts it
/// again: the command of its owner, or a supervisor, for whom is waited.
pub fn end(host: &Host, how: End, lease: Lease) -> Fault {
    let asked = match how {
        End::Kill => "",
        End::Terminate => {
            r#"try kill -TERM "$pid"
tries=0
until over "$pid" "$old" || [ "$tries" -ge 200 ]; do
  tries=$((tries + 1))
  nap
done
over "$pid" "$old" && finish 'it has ended'
"#
        }
    };
    let body = format!(
        r#"lift() {{ :; }}
look || quit "$none"
old=$born
{asked}try kill -KILL "$pid"
tries=0
until over "$pid" "$old"; do
  tries=$((tries + 1))
  [ "$tries" -le 100 ] || unclear "process $pid is still there after SIGKILL"
  nap
done
finish "process $pid is gone"
"#
    );
    Fault::armed(lease, &look(host), &body, &start(host))
}

/// Starts the process if it does not run, and waits until it does.
fn start(host: &Host) -> String {
    let waited_for = match &host.start {
        None => "no supervisor has started it",
        Some(_) => "its command has said",
    };
    let started = match &host.start {
        None => String::new(),
        Some(command) => format!(
            r#"look
case $? in
  1)
    log=$(mktemp) || unclear 'mktemp fails'
    sh -c {} >"$log" 2>&1 </dev/null
    said=$(tail -n 3 "$log")
    rm -f "$log"
    ;;
  2) unclear "$none" ;;
esac
"#,
            quoted(command)
        ),
    };
    format!(
        r#"{started}tries=0
until look; do
  tries=$((tries + 1))
  [ "$tries" -le 50 ] || unclear "$none; {waited_for} $said"
  nap
done
how="it runs as process $pid"
"#
    )
}
