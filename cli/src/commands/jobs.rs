//! `flott list|info|rescale|savepoint|stop|cancel|forget`.

use flott_proto::wire;

use super::connect_namespace;
use super::resolve::{has_ended, resolve};
use super::sql::absolute_location;
use crate::args::{
    JobArgs, ListArgs, NamespaceArgs, OutputFormat, RescaleArgs, SavepointArgs, StopArgs,
};
use crate::client::Client;
use crate::shapes::{Job, JobInfo, JobList, JobRef, Rescaled, SavepointRef};
use crate::{Error, output};

pub(crate) async fn list(arguments: &ListArgs) -> Result<(), Error> {
    let client = connect_namespace(&arguments.namespace)?;
    let mut jobs = client.list(&arguments.namespace.namespace).await?;
    jobs.retain(|job| !arguments.running || !has_ended(&job.state));
    let jobs: Vec<_> = jobs.into_iter().map(Job::from).collect();
    if arguments.namespace.cluster.output == OutputFormat::Json {
        output::json(&JobList { jobs });
        return Ok(());
    }
    let row = |job: Job| {
        let numbers = [job.attempt.to_string(), job.restarts.to_string()];
        [
            vec![job.id, job.name, job.state],
            numbers.to_vec(),
            vec![job.submitted_at.unwrap_or_default()],
        ]
        .concat()
    };
    let rows = jobs.into_iter().map(row).collect();
    let none = format!("no jobs in namespace {}", arguments.namespace.namespace);
    output::table(
        &["JOB", "NAME", "STATE", "ATTEMPT", "RESTARTS", "SUBMITTED"],
        rows,
        &none,
    );
    Ok(())
}

pub(crate) async fn info(arguments: &JobArgs) -> Result<(), Error> {
    let (client, id) = find(&arguments.namespace, &arguments.job).await?;
    let details = client.describe(&arguments.namespace.namespace, &id).await?;
    if arguments.namespace.cluster.output == OutputFormat::Json {
        output::json(&JobInfo::from(details));
        return Ok(());
    }
    let remarks = [
        ("status", details.status_text.clone()),
        ("last failure", details.last_failure.clone()),
    ];
    let counts = format!(
        "{} completed, {} failed",
        details.completed_checkpoints, details.failed_checkpoints
    );
    let info = JobInfo::from(details);
    output::line(&format!(
        "job {} ({}), namespace {}",
        info.id, info.name, info.namespace
    ));
    output::line(&format!(
        "state {}, attempt {}, restarts {}, checkpoints {counts}",
        info.state, info.attempt, info.restarts
    ));
    for (what, text) in remarks.iter().filter(|(_, text)| !text.is_empty()) {
        output::line(&format!("{what}: {text}"));
    }
    output::line("");
    let rows = info.vertices.iter().flat_map(|vertex| {
        vertex.tasks.iter().map(|task| {
            let place = task.taskmanager.clone().unwrap_or_else(|| "-".to_owned());
            let subtask = format!("{}/{}", task.subtask, vertex.parallelism);
            vec![
                vertex.name.clone(),
                subtask,
                task.state.clone(),
                task.attempt.to_string(),
                place,
            ]
        })
    });
    output::table(
        &["VERTEX", "SUBTASK", "STATE", "ATTEMPT", "TASKMANAGER"],
        rows.collect(),
        "no tasks",
    );
    output::line("");
    let rows = info.events.into_iter().map(|event| {
        let checkpoint = event.checkpoint.map(|id| format!("checkpoint {id}"));
        let what = [checkpoint, event.cause].into_iter().flatten();
        vec![
            event.at.unwrap_or_default(),
            event.attempt.to_string(),
            event.event,
            what.collect::<Vec<_>>().join(": "),
        ]
    });
    output::table(
        &["AT", "ATTEMPT", "EVENT", "CAUSE"],
        rows.collect(),
        "no events",
    );
    Ok(())
}

pub(crate) async fn rescale(arguments: &RescaleArgs) -> Result<(), Error> {
    let (client, id) = find(&arguments.namespace, &arguments.job).await?;
    let parallelism = arguments.parallelism;
    let attempt = client
        .rescale(&arguments.namespace.namespace, &id, parallelism)
        .await?;
    match arguments.namespace.cluster.output {
        OutputFormat::Json => output::json(&Rescaled {
            id,
            parallelism,
            attempt,
        }),
        OutputFormat::Table => output::line(&format!(
            "Job {id} runs at parallelism {parallelism} (attempt {attempt})."
        )),
    }
    Ok(())
}

pub(crate) async fn savepoint(arguments: &SavepointArgs) -> Result<(), Error> {
    let (client, id) = find(&arguments.namespace, &arguments.job).await?;
    let directory = directory(arguments.directory.as_deref())?;
    let path = client
        .savepoint(&arguments.namespace.namespace, &id, &directory)
        .await?;
    print_savepoint(&arguments.namespace, path);
    Ok(())
}

pub(crate) async fn stop(arguments: &StopArgs) -> Result<(), Error> {
    let (client, id) = find(&arguments.namespace, &arguments.job).await?;
    if arguments.namespace.cluster.output == OutputFormat::Table {
        output::line(&format!("Suspending job \"{id}\" with a savepoint."));
    }
    let request = wire::StopJobRequest {
        namespace: arguments.namespace.namespace.clone(),
        job_id: id,
        target_directory: directory(arguments.savepoint_path.as_deref())?,
        drain: arguments.drain,
        request_id: uuid::Uuid::new_v4().to_string(),
    };
    let path = client.stop(request).await?;
    print_savepoint(&arguments.namespace, path);
    Ok(())
}

pub(crate) async fn cancel(arguments: &JobArgs) -> Result<(), Error> {
    let (client, id) = find(&arguments.namespace, &arguments.job).await?;
    client.cancel(&arguments.namespace.namespace, &id).await?;
    match arguments.namespace.cluster.output {
        OutputFormat::Json => output::json(&JobRef { id }),
        OutputFormat::Table => output::line(&format!("Cancelled job {id}.")),
    }
    Ok(())
}

pub(crate) async fn forget(arguments: &JobArgs) -> Result<(), Error> {
    let (client, id) = find(&arguments.namespace, &arguments.job).await?;
    client.dismiss(&arguments.namespace.namespace, &id).await?;
    match arguments.namespace.cluster.output {
        OutputFormat::Json => output::json(&JobRef { id }),
        OutputFormat::Table => output::line(&format!("Job {id} will be forgotten.")),
    }
    Ok(())
}

/// A client, and the id of the job that is meant.
pub(super) async fn find(arguments: &NamespaceArgs, job: &str) -> Result<(Client, String), Error> {
    let client = connect_namespace(arguments)?;
    let id = resolve(&client, &arguments.namespace, job).await?;
    Ok((client, id))
}

/// Empty for the configured one. A relative path is meant from here, not from where the servers run.
fn directory(given: Option<&str>) -> Result<String, Error> {
    given.map_or(Ok(String::new()), |given| absolute_location(given, None))
}

fn print_savepoint(arguments: &NamespaceArgs, path: String) {
    match arguments.cluster.output {
        OutputFormat::Json => output::json(&SavepointRef { path }),
        OutputFormat::Table => {
            output::line(&format!("Savepoint completed. Path: {path}"));
            output::note(&format!("`flott run -f job.sql -s {path}` goes on from it"));
        }
    }
}
