//! Which job is meant: by its id, a unique beginning of the id, or its name.

use flott_proto::ids::JobId;
use flott_proto::wire::JobSummary;

use crate::Error;
use crate::client::Client;

/// States in which a job stays for ever.
pub(super) fn has_ended(state: &str) -> bool {
    matches!(state, "FINISHED" | "FAILED" | "CANCELED")
}

/// The id of the job that `text` means. A whole id is taken as it is, without asking.
pub(super) async fn resolve(client: &Client, namespace: &str, text: &str) -> Result<String, Error> {
    if text.parse::<JobId>().is_ok() {
        return Ok(text.to_owned());
    }
    let jobs = client.list(namespace).await?;
    find(&jobs, namespace, text)
}

fn find(jobs: &[JobSummary], namespace: &str, text: &str) -> Result<String, Error> {
    let named: Vec<_> = jobs.iter().filter(|job| job.name == text).collect();
    let mut candidates: Vec<_> = jobs
        .iter()
        .filter(|job| !text.is_empty() && job.id.starts_with(text))
        .collect();
    if candidates.is_empty() {
        candidates = named;
    }
    // Of several runs of a job the one that has not ended is meant.
    let alive: Vec<_> = candidates
        .iter()
        .filter(|job| !has_ended(&job.state))
        .copied()
        .collect();
    if alive.len() == 1 {
        candidates = alive;
    }
    match candidates.as_slice() {
        [job] => Ok(job.id.clone()),
        [] => Err(Error::NoSuchJob(format!(
            "no job in namespace {namespace} has the id or name {text:?}"
        ))),
        several => {
            let ids: Vec<_> = several
                .iter()
                .map(|job| format!("{} ({}, {})", job.id, job.name, job.state))
                .collect();
            Err(Error::NoSuchJob(format!(
                "{text:?} may mean any of {}; give more of the id",
                ids.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Vec<JobSummary> {
        let job = |id: &str, name: &str, state: &str| JobSummary {
            id: id.to_owned(),
            name: name.to_owned(),
            state: state.to_owned(),
            ..JobSummary::default()
        };
        vec![
            job("0a11", "delays", "FINISHED"),
            job("0a22", "delays", "RUNNING"),
            job("0b33", "clicks", "FAILED"),
            job("0b44", "clicks", "CANCELED"),
        ]
    }

    #[test]
    fn a_unique_prefix_or_name_finds_its_job() {
        for (text, id) in [
            ("0a1", "0a11"),
            ("0a22", "0a22"),
            ("delays", "0a22"),
            ("0a", "0a22"),
        ] {
            assert_eq!(find(&jobs(), "default", text).unwrap(), id, "{text}");
        }
    }

    #[test]
    fn what_may_mean_several_jobs_is_refused_with_their_ids() {
        let error = find(&jobs(), "default", "clicks").unwrap_err().to_string();
        assert!(error.contains("0b33") && error.contains("0b44"), "{error}");
        for text in ["", "zz"] {
            let error = find(&jobs(), "team", text).unwrap_err().to_string();
            assert!(error.contains("namespace team"), "{error}");
        }
    }
}
