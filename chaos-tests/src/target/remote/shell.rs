//! A script, said to a shell that somebody has named, and what came back.
//!
//! The script goes to the shell's standard input, so nothing of it has to be quoted for whatever carries it. What it answers
//! stands in lines of their own ([`super::scripts`]); whatever else a login says is passed over. What must stay true: only
//! an answer counts. A shell that was cut off may have carried the script out, or not.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Of what a shell says on one stream: more is no answer to any script of ours.
const OUTPUT_MAX: u64 = 64 * 1024;
/// Of what it said, for people.
const WORDS_MAX: usize = 300;

/// What became of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It did what it was for.
    Done(Said),
    /// It did nothing: why.
    Skipped(String),
    /// Perhaps it did something: why nobody knows.
    Unclear(String),
}

/// What a script said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    values: BTreeMap<String, String>,
    /// In words, what it did.
    pub how: String,
}

impl Said {
    /// A value that it named.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The same as a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.value(name)?.parse().ok()
    }
}

/// Carries a script out by this shell, for so long at most.
pub async fn run(shell: &[String], script: &str, bound: Duration) -> Answer {
    let Some((program, arguments)) = shell.split_first() else {
        return Answer::Skipped("there is no shell".to_owned());
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // So that Ctrl-C ends the harness, and not a script in the middle.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = match child {
        Ok(child) => child,
        Err(error) => return Answer::Skipped(format!("cannot start {program}: {error}")),
    };
    match tokio::time::timeout(bound, converse(child, script)).await {
        Ok(Ok((stdout, stderr))) => understood(&stdout, &stderr),
        Ok(Err(error)) => Answer::Unclear(format!("{program}: {error}")),
        Err(_) => Answer::Unclear(format!(
            "{program} did not answer within {} s",
            bound.as_secs()
        )),
    }
}

async fn converse(mut child: Child, script: &str) -> std::io::Result<(String, String)> {
    let stdin = child.stdin.take();
    let tell = async {
        if let Some(mut stdin) = stdin {
            // One that has ended already says why in its output.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ((), stdout, stderr) = tokio::join!(tell, all_of(stdout), all_of(stderr));
    child.wait().await?;
    Ok((stdout?, stderr?))
}

async fn all_of(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_MAX).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The answer in what a shell has said.
pub(crate) fn understood(stdout: &str, stderr: &str) -> Answer {
    let mut said = Said::default();
    for line in stdout.lines() {
        let Some(line) = line.trim_end().strip_prefix("chaos ") else {
            continue;
        };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "value" => {
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                said.values.insert(name.to_owned(), value.to_owned());
            }
            "done" => {
                said.how = rest.to_owned();
                return Answer::Done(said);
            }
            "skip" => return Answer::Skipped(shortened(rest)),
            "unclear" => return Answer::Unclear(shortened(rest)),
            _ => {}
        }
    }
    let words = match stderr.trim() {
        "" => "it ended without an answer",
        words => words,
    };
    Answer::Unclear(shortened(words))
}

/// On one line, and not too long.
fn shortened(words: &str) -> String {
    let mut words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    words.truncate(words.floor_char_boundary(WORDS_MAX));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_is_an_answer() {
        let table = [
            ("chaos done\n", "", Answer::Done(Said::default())),
            (
                "Welcome!\nchaos skip  no  root\nchaos done\n",
                "",
                Answer::Skipped("no root".to_owned()),
            ),
            (
                "chaos unclear it lives\r\n",
                "",
                Answer::Unclear("it lives".to_owned()),
            ),
            (
                "chaos value pid 7\n",
                "Connection\n reset",
                Answer::Unclear("Connection reset".to_owned()),
            ),
            (
                "chaos donekey\n",
                "",
                Answer::Unclear("it ended without an answer".to_owned()),
            ),
        ];
        for (stdout, stderr, wanted) in table {
            assert_eq!(understood(stdout, stderr), wanted, "{stdout:?}");
        }
        let Answer::Done(said) = understood(
            "chaos value pid 17\nchaos value why a b\nchaos done state T\n",
            "",
        ) else {
            panic!("it was done");
        };
        assert_eq!(said.number("pid"), Some(17));
        assert_eq!(said.value("why"), Some("a b"));
        assert_eq!(
            (said.number::<i32>("why"), said.value("other")),
            (None, None)
        );
        assert_eq!(said.how, "state T");
    }

    #[tokio::test]
    async fn a_script_is_carried_out_whole_or_not_at_all_and_in_time() {
        let shell = ["sh", "-s"].map(str::to_owned);
        let bound = Duration::from_secs(20);
        let said = run(
            &shell,
            "printf 'chaos value a %s\\n' 1; echo chaos done",
            bound,
        )
        .await;
        assert!(
            matches!(&said, Answer::Done(said) if said.number("a") == Some(1)),
            "{said:?}"
        );
        // Cut off in the middle.
        let cut = run(&shell, "{\necho chaos done\n", bound).await;
        assert!(
            matches!(&cut, Answer::Unclear(why) if !why.is_empty()),
            "{cut:?}"
        );
        let late = run(&shell, "sleep 60", Duration::from_millis(50)).await;
        assert!(
            matches!(&late, Answer::Unclear(why) if why.contains("did not answer")),
            "{late:?}"
        );
        let nobody = run(&["/nowhere/sh".to_owned()], "", bound).await;
        assert!(
            matches!(&nobody, Answer::Skipped(why) if why.contains("/nowhere/sh")),
            "{nobody:?}"
        );
        assert!(matches!(run(&[], "", bound).await, Answer::Skipped(_)));
    }
}
