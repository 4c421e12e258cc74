//! People who work with the cluster: one keeps a job running, with other parallelisms, savepoints, and successors that go on
//! from where it was stopped; another one submits jobs and cancels them.
//!
//! They ask any JobManager and follow its hints, and ask again until they know. What became of a job they see in the
//! replicated state, as one who looks at the right moment would.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flott_chaos_basis::random::Random;
use flott_coordinator::core::{ClusterState, Job as Decided, JobStatus};
use flott_proto::wire::job_manager_client::JobManagerClient;
use flott_proto::wire::{
    CancelJobRequest, CollectOrphansRequest, RescaleJobRequest, StopJobRequest, SubmitJobRequest,
    TriggerSavepointRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::job::{self, Job};
use super::plan::{MEMBERS, Plan};
use crate::callers;
use crate::kernel::{MILLISECOND, count, with};
use crate::raft_group::member;

/// How long one JobManager may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long somebody waits for what takes a checkpoint.
const LONG_PATIENCE: Duration = Duration::from_secs(8);
/// How often somebody asks before they give up. Submissions and cancellations are not given up.
const TRIES_MAX: u32 = 6;
/// Numbers of the jobs that are canceled.
const VICTIMS_FROM: u32 = 1000;

/// What users and the run know of each other.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Known>>);

/// See [`Shared`].
#[derive(Debug, Default)]
pub struct Known {
    /// The newest state that was seen anywhere.
    pub state: Option<Arc<ClusterState>>,
    /// No new wishes: everything is to come to its end.
    pub is_quiet: bool,
    /// The job that was to be kept running has read everything.
    pub has_finished: bool,
    /// The one who cancels has nothing left.
    pub has_canceled: bool,
    /// Acknowledged submissions.
    pub submitted: Vec<String>,
    /// Each job's orphans were collected.
    pub has_collected: bool,
}

impl Shared {
    /// What is known.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self, id: &str) -> Option<Arc<Decided>> {
        let state = self.known().state.clone()?;
        let jobs = state.jobs.values();
        jobs.into_iter().find(|job| job.id.as_str() == id).cloned()
    }
}

/// Something that somebody wants.
#[derive(Clone, Debug)]
enum Wish {
    Submit(Box<SubmitJobRequest>),
    Cancel(String),
    Rescale(String, u32),
    Savepoint(String, String),
    Stop(String, String),
    Collect(String),
}

impl Wish {
    fn patience(&self) -> Duration {
        match self {
            Self::Submit(_) | Self::Cancel(_) | Self::Collect(_) => PATIENCE,
            Self::Rescale(..) | Self::Savepoint(..) | Self::Stop(..) => LONG_PATIENCE,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Came {
    Done,
    Refused(String),
    Unknown,
}

/// One user.
#[derive(Debug)]
struct User {
    plan: Plan,
    shared: Shared,
    random: Random,
    channels: BTreeMap<usize, JobManagerClient<Channel>>,
    favourite: usize,
}

/// Runs the users, until their process ends.
pub async fn main(plan: Plan, kept: Job, canceled: Job, shared: Shared) {
    let mut random = plan.random.clone();
    let mut user = || User {
        plan: plan.clone(),
        shared: shared.clone(),
        random: random.fork(),
        channels: BTreeMap::new(),
        favourite: 0,
    };
    let (keeper, canceler) = (user(), user());
    futures::future::join(keeper.keep(kept), canceler.cancel(canceled)).await;
}

/// Collects what nobody needs of the jobs.
pub async fn collect(plan: Plan, shared: Shared) {
    let mut user = User {
        random: plan.random.clone(),
        plan,
        shared: shared.clone(),
        channels: BTreeMap::new(),
        favourite: 0,
    };
    let submitted = shared.known().submitted.clone();
    for id in submitted {
        user.insist(Wish::Collect(id), u32::MAX).await;
    }
    shared.known().has_collected = true;
}

impl User {
    /// Has a job read everything, whatever becomes of its predecessors.
    async fn keep(mut self, job: Job) {
        let (mut number, mut savepoint) = (0, String::new());
        loop {
            let id = job::id(number);
            self.submit(job.submission(&id, &savepoint)).await;
            match self.work_with(&id).await {
                Some(path) => (number, savepoint) = (number + 1, path),
                None => break,
            }
        }
        self.shared.known().has_finished = true;
    }

    /// Until the job has ended; if that was by a stop, the savepoint.
    async fn work_with(&mut self, id: &str) -> Option<String> {
        let mut wishes = 0;
        loop {
            let pause = self.plan.user_every / MILLISECOND;
            let pause = if self.is_quiet() { 200 } else { pause };
            self.pause(pause).await;
            let Some(job) = self.shared.job(id) else {
                continue;
            };
            if job.status.is_terminal() {
                let stopped = job.savepoint_results.last();
                let path = stopped.and_then(|result| result.outcome.clone().ok());
                let was_stopped =
                    stopped.is_some_and(|result| result.request_id.starts_with("stop"));
                if job.status == JobStatus::Finished && was_stopped {
                    count("user: stopped");
                    return path;
                }
                return None;
            }
            if self.is_quiet() {
                continue;
            }
            wishes += 1;
            let request = format!("{}-{wishes}", self.random.any());
            let most = u64::from(self.plan.slots) * (self.plan.workers as u64 - 1);
            let wish = match self.random.below(10) {
                0..4 if !self.plan.spares_tasks => {
                    Wish::Rescale(id.to_owned(), self.random.between(1, most) as u32)
                }
                4..6 => Wish::Savepoint(id.to_owned(), format!("save-{request}")),
                6 => Wish::Stop(id.to_owned(), format!("stop-{request}")),
                _ => continue,
            };
            let came = self.insist(wish.clone(), TRIES_MAX).await;
            match wish {
                Wish::Rescale(..) if came == Came::Done => count("user: rescaled"),
                Wish::Savepoint(..) if came == Came::Done => count("user: savepoint taken"),
                _ => {}
            }
        }
    }

    /// Submits jobs, and cancels them sooner or later.
    async fn cancel(mut self, job: Job) {
        let mut number = VICTIMS_FROM;
        loop {
            let pause = 2 * self.plan.user_every / MILLISECOND;
            self.pause(pause).await;
            if self.is_quiet() {
                break;
            }
            let id = job::id(number);
            number += 1;
            self.submit(job.writing_to(&id).submission(&id, "")).await;
            self.pause(pause).await;
            self.insist(Wish::Cancel(id.clone()), u32::MAX).await;
            count("user: canceled");
            while !self
                .shared
                .job(&id)
                .is_some_and(|job| job.status.is_terminal())
            {
                self.pause(500).await;
            }
        }
        self.shared.known().has_canceled = true;
    }

    fn is_quiet(&self) -> bool {
        self.shared.known().is_quiet
    }

    async fn submit(&mut self, request: SubmitJobRequest) {
        let id = request.job_id.clone();
        match self.insist(Wish::Submit(Box::new(request)), u32::MAX).await {
            Came::Done => self.shared.known().submitted.push(id),
            came => {
                let what = format!("users: the submission of {id} came to {came:?}");
                with(|kernel| kernel.panics.push(what));
            }
        }
    }

    async fn pause(&mut self, ms_max: u64) {
        callers::pause(&mut self.random, ms_max).await;
    }

    /// Asks until it is done or refused, so many times.
    async fn insist(&mut self, wish: Wish, tries: u32) -> Came {
        let mut came = Came::Unknown;
        for _ in 0..tries {
            came = self.ask(&wish).await;
            if came != Came::Unknown {
                return came;
            }
            self.pause(300).await;
        }
        came
    }

    fn channel(&mut self, host: usize) -> JobManagerClient<Channel> {
        let channels = self.channels.entry(host);
        channels
            .or_insert_with(|| JobManagerClient::new(callers::channel(host)))
            .clone()
    }

    async fn ask(&mut self, wish: &Wish) -> Came {
        let client = self.channel(self.favourite);
        let answer = tokio::time::timeout(wish.patience(), call(client, wish.clone())).await;
        let status = match answer {
            Ok(Ok(())) => return Came::Done,
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable("no answer in time"),
        };
        let leader = status.metadata().get("flott-leader-address");
        let leader = leader.and_then(|address| address.to_str().ok());
        let hinted = (0..MEMBERS).find(|host| Some(member::address(*host).as_str()) == leader);
        let any = self.random.below(MEMBERS as u64) as usize;
        self.favourite = hinted.unwrap_or(any);
        let may_pass = matches!(
            status.code(),
            Code::Unavailable
                | Code::Unknown
                | Code::Cancelled
                | Code::Internal
                | Code::DeadlineExceeded
                | Code::Aborted
        );
        match hinted.is_some() || may_pass || is_about_leadership(&status) {
            true => Came::Unknown,
            false => Came::Refused(status.message().to_owned()),
        }
    }
}

fn is_about_leadership(status: &Status) -> bool {
    let about = ["lead", "in office"];
    let mut about = about.iter();
    status.code() == Code::FailedPrecondition && about.any(|what| status.message().contains(what))
}

async fn call(mut client: JobManagerClient<Channel>, wish: Wish) -> Result<(), Status> {
    let namespace = "default".to_owned();
    match wish {
        Wish::Submit(request) => client.submit_job(*request).await.map(drop),
        Wish::Cancel(job_id) => {
            let request = CancelJobRequest { namespace, job_id };
            client.cancel_job(request).await.map(drop)
        }
        Wish::Rescale(job_id, parallelism) => {
            let request = RescaleJobRequest {
                namespace,
                job_id,
                parallelism,
            };
            client.rescale_job(request).await.map(drop)
        }
        Wish::Savepoint(job_id, request_id) => {
            let request = TriggerSavepointRequest {
                namespace,
                job_id,
                target_directory: String::new(),
                request_id,
            };
            client.trigger_savepoint(request).await.map(drop)
        }
        Wish::Stop(job_id, request_id) => {
            let request = StopJobRequest {
                namespace,
                job_id,
                target_directory: String::new(),
                drain: false,
                request_id,
            };
            client.stop_job(request).await.map(drop)
        }
        Wish::Collect(job_id) => {
            let request = CollectOrphansRequest {
                namespace,
                job_id,
                delete: true,
            };
            client
                .collect_orphans(Request::new(request))
                .await
                .map(drop)
        }
    }
}
