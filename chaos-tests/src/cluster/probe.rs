//! Whether this machine can do something: a command tries it.

use std::process::Stdio;

use tokio::process::Command;

/// What it lacks, made of the complaint of `command`; `None` if that succeeds.
pub async fn lacking(command: &mut Command, lacks: impl FnOnce(&str) -> String) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().await;
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(lacks(String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => {
            let program = command.as_std().get_program().display();
            Some(format!("cannot start {program}: {error}"))
        }
    }
}
