//! `flott run` and `flott explain`.
//!
//! A submission carries an id of our choice, so repeating it while a leader dies is harmless. Following a job survives
//! any change of leader, and leaves the job alone when it is interrupted.

use std::time::Duration;

use flott_node::config::{Configuration, options};
use flott_node::{Clock, SystemClock};
use flott_proto::ids::JobId;
use flott_proto::job_graph::JobGraph;
use flott_proto::wire::{SubmitJobRequest, SubmitJobResponse};

use super::progress::Progress;
use super::sql::{Script, absolute_location, compile};
use super::{connect_namespace, overrides};
use crate::args::{ExplainArgs, OutputFormat, RunArgs};
use crate::client::Client;
use crate::role::StopSignals;
use crate::shapes::{DryRun, JobFate, JobRef};
use crate::{Error, output};

/// Between two looks at a job that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Where nobody watches a terminal, a line at least so often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Compiles, submits, and follows the job unless detached.
pub(crate) async fn run(arguments: &RunArgs) -> Result<(), Error> {
    let client = connect_namespace(&arguments.namespace)?;
    let settings = overrides(&arguments.namespace.cluster.overrides)?;
    let script = compile(
        &arguments.file,
        arguments.parallelism,
        arguments.name.as_deref(),
        &settings,
    )?;
    let (graph, mut configuration) = match script {
        Script::Job {
            graph,
            configuration,
        } if !arguments.explain => (graph, configuration),
        script => {
            print_script(&script);
            return Ok(());
        }
    };
    let restore_path = arguments
        .from_savepoint
        .as_deref()
        .map(|path| absolute_location(path, None))
        .transpose()?;
    if let Some(mode) = arguments.claim_mode {
        configuration.insert(options::CLAIM_MODE.key().to_owned(), mode.to_string());
    }
    let request = SubmitJobRequest {
        namespace: arguments.namespace.namespace.clone(),
        job_id: JobId::generate().to_string(),
        graph: Some((&graph).into()),
        configuration,
        restore_path: restore_path.unwrap_or_default(),
        allow_non_restored_state: arguments.allow_non_restored_state,
        dry_run: arguments.dry_run,
    };
    if arguments.dry_run {
        let outlook = client.dry_run(request).await?;
        return tell(&graph, outlook, arguments.namespace.cluster.output);
    }
    let id = client.submit(request).await?;
    let format = arguments.namespace.cluster.output;
    if arguments.detached {
        match format {
            OutputFormat::Json => output::json(&JobRef { id }),
            OutputFormat::Table => output::line(&format!("Job has been submitted with JobID {id}")),
        }
        return Ok(());
    }
    output::note(&format!("Job has been submitted with JobID {id}"));
    follow(&client, &arguments.namespace.namespace, &id, format).await
}

/// Says what a submission would lead to.
fn tell(graph: &JobGraph, outlook: SubmitJobResponse, format: OutputFormat) -> Result<(), Error> {
    let SubmitJobResponse {
        refusals, notes, ..
    } = outlook;
    let is_accepted = refusals.is_empty();
    match format {
        OutputFormat::Json => output::json(&DryRun {
            accepted: is_accepted,
            refusals,
            notes,
        }),
        OutputFormat::Table => {
            output::line(flott_sql::explain(graph).trim_end());
            output::line("");
            notes.iter().for_each(|note| output::line(note));
            let refused = |refusal: &String| output::line(&format!("refused: {refusal}"));
            refusals.iter().for_each(refused);
            if is_accepted {
                output::line("The job would be accepted.");
            }
        }
    }
    if is_accepted {
        Ok(())
    } else {
        Err(Error::Refused("the job would be refused".to_owned()))
    }
}

pub(crate) fn explain(arguments: &ExplainArgs) -> Result<(), Error> {
    let settings: Configuration = overrides(&arguments.overrides)?;
    print_script(&compile(
        &arguments.file,
        arguments.parallelism,
        None,
        &settings,
    )?);
    Ok(())
}

fn print_script(script: &Script) {
    match script {
        Script::Job { graph, .. } => output::line(flott_sql::explain(graph).trim_end()),
        Script::Explain { text } => output::line(text.trim_end()),
    }
}

/// Shows a job's progress until it has ended; its fate. Ctrl-C leaves the job alone.
async fn follow(
    client: &Client,
    namespace: &str,
    id: &str,
    format: OutputFormat,
) -> Result<(), Error> {
    let mut signals = StopSignals::listen()?;
    let mut teller = Teller::new(output::is_watched());
    let clock = SystemClock::shared();
    let ended = loop {
        let look = tokio::select! {
            look = client.describe(namespace, id) => look,
            () = signals.next() => return teller.detach(id),
        };
        match look {
            Ok(details) => {
                let progress = Progress::new(&details);
                teller.tell(&progress, &*clock);
                if progress.has_ended() {
                    break progress;
                }
            }
            // Tasks go on without a leader; so does the waiting for news.
            Err(error) if error.is_unavailable() => teller.no_news(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = signals.next() => return teller.detach(id),
        }
    };
    teller.clear();
    let fate = JobFate {
        id: id.to_owned(),
        state: ended.state.clone(),
        cause: Some(ended.last_failure)
            .filter(|cause| ended.state == "FAILED" && !cause.is_empty()),
    };
    let cause = fate
        .cause
        .as_ref()
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    match format {
        OutputFormat::Json => output::json(&fate),
        OutputFormat::Table => output::line(&format!("Job {id} {}{cause}", ended.state)),
    }
    if ended.state == "FINISHED" {
        Ok(())
    } else {
        Err(Error::JobFailed {
            id: id.to_owned(),
            state: ended.state,
        })
    }
}

/// Tells progress: one live line on a terminal, otherwise a line for each change and now and then.
#[derive(Debug)]
struct Teller {
    live: bool,
    told: Option<(Progress, Duration)>,
    silent: bool,
}

impl Teller {
    fn new(live: bool) -> Self {
        Self {
            live,
            told: None,
            silent: false,
        }
    }

    fn tell(&mut self, progress: &Progress, clock: &dyn Clock) {
        self.silent = false;
        if self.live {
            return output::live(&progress.line());
        }
        let now = clock.monotonic();
        let due = self
            .told
            .as_ref()
            .is_none_or(|(told, at)| told.is_news(progress) || now >= *at + TELL_EVERY);
        if due {
            output::note(&progress.line());
            self.told = Some((progress.clone(), now));
        }
    }

    fn no_news(&mut self, reason: &str) {
        if self.live {
            output::live(&format!("no news: {reason}"));
        } else if !self.silent {
            output::note(&format!("no news: {reason}"));
        }
        self.silent = true;
    }

    fn clear(&self) {
        if self.live {
            output::live("");
        }
    }

    fn detach(&self, id: &str) -> Result<(), Error> {
        self.clear();
        Err(Error::Detached { id: id.to_owned() })
    }
}
