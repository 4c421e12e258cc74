//! Jobs: submitted above the quota, canceled, and submitted again; and attempts at another tenant's.

use super::super::{NOISY_JOBS, SCRIPT, script};
use super::{Abuse, Tally};
use crate::cluster::Answer as Said;
use crate::invariants::tenants::{Answer, Tenant};
use crate::target::client::is_terminal;

impl Abuse {
    /// Submits jobs until one is refused, cancels all, and begins again.
    pub(super) async fn submit(self) {
        let namespace = self.tenants.namespace(Tenant::Noisy);
        let file = script(&self.tenants.directory, &namespace);
        let (Ok(()), Some(path)) = (std::fs::write(&file, SCRIPT), file.to_str()) else {
            return;
        };
        let mut ids: Vec<String> = Vec::new();
        let mut number = 0_u64;
        while !self.over.is_cancelled() {
            number += 1;
            let name = format!("{namespace}-{}-{number}", self.tenants.now_ms());
            let arguments = [
                "run", "-d", "-f", path, "--name", &name, "-p", "1", "-z", &namespace, "-o", "json",
            ];
            let says = "jobs that have not ended";
            let answer = match self.tenants.client.ask(&arguments).await {
                Ok(said) => {
                    ids.extend(id_in(&said));
                    understood(&said, says)
                }
                Err(error) => Answer::Unknown(format!("{error:#}")),
            };
            let is_above = ids.len() > NOISY_JOBS;
            self.counted("submit", &answer);
            if is_above || matches!(answer, Answer::Refused(_)) {
                self.went_beyond("one job more than the quota", says, answer.clone());
            }
            if answer != Answer::Done || is_above {
                for id in ids.drain(..) {
                    let canceled = self
                        .tenants
                        .client
                        .ask(&["cancel", "-z", &namespace, &id])
                        .await;
                    let done = canceled.is_ok_and(|said| said.code == Some(0));
                    let which = if done { Tally::DONE } else { Tally::REFUSED };
                    self.tally.count(which, "cancel");
                }
            }
        }
    }

    /// Goes for the steady tenant's job, from its own namespace.
    pub(super) async fn trespass(self) {
        let namespace = self.tenants.namespace(Tenant::Noisy);
        let says = "there is no job";
        let verbs = ["cancel", "info", "savepoint", "checkpoints"];
        for verb in verbs.into_iter().cycle() {
            let arguments = [verb, "-z", &namespace, &self.tenants.job];
            let answer = tokio::select! { biased;
                () = self.over.cancelled() => return,
                answer = self.tenants.client.ask(&arguments) => answer,
            };
            let answer = match answer {
                Ok(said) => understood(&said, says),
                Err(error) => Answer::Unknown(format!("{error:#}")),
            };
            self.counted("trespass", &answer);
            self.went_beyond(&format!("{verb} of another tenant's job"), says, answer);
        }
    }

    /// Cancels all jobs of the noisy tenant. What cannot be done now is done the next time.
    pub(super) async fn leave_no_job(&self) {
        let namespace = self.tenants.namespace(Tenant::Noisy);
        let client = &self.tenants.client;
        if let Ok(listed) = client.json(&["list", "-z", &namespace]).await {
            for job in listed["jobs"].as_array().into_iter().flatten() {
                let state = job["state"].as_str().unwrap_or_default();
                if let (Some(id), false) = (job["id"].as_str(), is_terminal(state)) {
                    // See above.
                    let _ = client.ask(&["cancel", "-z", &namespace, id]).await;
                }
            }
        }
    }
}

/// The id of a job that was accepted.
fn id_in(said: &Said) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
    answer["id"].as_str().map(str::to_owned)
}

/// What the command line's answer means for a request that has to be refused with `says`. Any other failure may be that of a
/// cluster that cannot be reached.
fn understood(said: &Said, says: &str) -> Answer {
    match said.code {
        Some(0) => Answer::Done,
        _ if said.stderr.contains(says) => Answer::Refused(said.stderr.trim().to_owned()),
        _ => Answer::Unknown(said.stderr.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_other_words_may_be_an_unreachable_cluster() {
        let said = |code, stderr: &str| Said {
            code: Some(code),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        let says = "there is no job";
        assert_eq!(understood(&said(0, ""), says), Answer::Done);
        let clear = understood(&said(1, "error: there is no job a in namespace b\n"), says);
        assert!(matches!(clear, Answer::Refused(_)), "{clear:?}");
        let unclear = understood(&said(1, "error: nobody leads"), says);
        assert!(matches!(unclear, Answer::Unknown(_)), "{unclear:?}");
    }
}
