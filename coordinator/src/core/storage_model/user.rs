//! What people do: submit, take savepoints, cancel, dismiss, clean up; and what happens to their data.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_proto::ids::{JobId, Namespace};
use flott_proto::paths;
use flott_proto::wire::{self, command::Decision};

use super::super::records::vertices_to_wire;
use super::super::testing::graph;
use super::super::{JobStatus, Response};
use super::Model;
use super::objects::{CHECKPOINTS, Metadata, SAVEPOINTS, object};

/// Jobs at a time that have not ended.
const ACTIVE_MAX: usize = 3;
/// Jobs that are remembered: a look at each costs time.
const JOBS_MAX: usize = 8;
/// Objects that are damaged at once.
const DAMAGED_MAX: usize = 4;

impl Model {
    fn jobs(&self, wanted: impl Fn(JobStatus) -> bool) -> Vec<JobId> {
        let jobs = self.state.jobs.values().filter(|job| wanted(job.status));
        jobs.map(|job| job.id.clone()).collect()
    }

    fn may_submit(&self) -> bool {
        let active = self.jobs(|status| !status.is_terminal()).len() + self.submissions.len();
        active < ACTIVE_MAX && self.state.jobs.len() + self.submissions.len() < JOBS_MAX
    }

    /// A submission is prepared: what it is to start from has been read.
    pub(super) fn prepare_submission(&mut self) -> Option<String> {
        if !self.may_submit() {
            return None;
        }
        let from = if self.random.percent(60) {
            self.random.pick(self.starts())
        } else {
            None
        };
        let restore = from.as_ref().map(|from| self.metadata_to_wire(from));
        let savepoint = from
            .as_ref()
            .and_then(|from| from.savepoint_directory.clone());
        let claimed = savepoint.filter(|_| self.random.percent(30));
        self.submitted_ever += 1;
        // As generated ids, those of one afternoon begin alike.
        let id = format!("{:032x}", self.submitted_ever);
        let retained = (1 + self.random.below(3)).to_string();
        let tolerable = self.random.below(3).to_string();
        let settings = [
            ("execution.checkpointing.interval", "100 ms"),
            ("execution.checkpointing.timeout", "1500 ms"),
            ("execution.checkpointing.dir", CHECKPOINTS),
            ("execution.checkpointing.num-retained", &retained),
            (
                "execution.checkpointing.tolerable-failed-checkpoints",
                &tolerable,
            ),
            ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
            ("restart-strategy.exponential-delay.max-backoff", "50 ms"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.submissions.push(wire::SubmitJob {
            namespace: Namespace::DEFAULT.into(),
            job_id: id.clone(),
            graph: Some((&graph(1 + self.random.below(2) as u32)).into()),
            configuration: BTreeMap::from(settings),
            restore_root: restore
                .as_ref()
                .map_or_else(String::new, |from| from.root.clone()),
            claimed_directory: claimed.unwrap_or_default(),
            restore,
            graph_object: None,
        });
        let from = from.map(|from| format!("{} of {}", from.checkpoint, from.job));
        Some(format!("{id} is to start from {from:?}"))
    }

    /// What a job may be submitted to start from: every checkpoint that is found, and savepoints that have been reported.
    fn starts(&self) -> Vec<Arc<Metadata>> {
        let found = self.objects.metadata();
        let reported = |directory: &String| {
            self.savepoints.contains_key(directory) || self.claimed.contains(directory)
        };
        found
            .filter(|(_, metadata)| metadata.savepoint_directory.iter().all(reported))
            .map(|(_, metadata)| Arc::clone(metadata))
            .collect()
    }

    fn metadata_to_wire(&self, from: &Arc<Metadata>) -> wire::CheckpointMetadata {
        let parallelism = |uid: &str| {
            let of_vertex = from.subtasks.keys().filter(|it| it.vertex.as_str() == uid);
            of_vertex.count() as u32
        };
        let (kind, root) = match &from.savepoint_directory {
            Some(directory) => (wire::CheckpointKind::Savepoint, directory.as_str()),
            None => (wire::CheckpointKind::Checkpoint, CHECKPOINTS),
        };
        wire::CheckpointMetadata {
            version: 1,
            cluster_id: self.settings.cluster.to_string(),
            namespace: Namespace::DEFAULT.into(),
            job_id: from.job.to_string(),
            checkpoint_id: from.checkpoint.0,
            kind: kind.into(),
            vertices: vertices_to_wire(&from.subtasks, parallelism),
            root: root.to_owned(),
            ..Default::default()
        }
    }

    pub(super) fn submit(&mut self) -> Option<String> {
        if self.submissions.is_empty() {
            return None;
        }
        let at = self.random.below(self.submissions.len());
        let submit = self.submissions.swap_remove(at);
        // What was read long ago is not submitted. Between reading a savepoint and proposing the job there are milliseconds,
        // in which a whole deletion after a claim is not modelled: the job would fail and name the file.
        if submit.restore_root.starts_with(SAVEPOINTS)
            && !self
                .objects
                .has(&object(&submit.restore_root, paths::METADATA))
        {
            return Some(format!("{} finds its savepoint gone", submit.job_id));
        }
        let (id, restores) = (submit.job_id.clone(), submit.restore.is_some());
        let claimed = submit.claimed_directory.clone();
        let response = self.apply(self.leader.epoch, Decision::SubmitJob(submit));
        match (&response, restores) {
            (Response::Applied, true) => self.saw("job starts from another's checkpoint"),
            (Response::Refused(_), true) => self.saw("start from a checkpoint refused"),
            _ => {}
        }
        if response == Response::Applied && !claimed.is_empty() {
            self.savepoints.remove(&claimed);
            self.claimed.insert(claimed);
            self.saw("claim");
        }
        Some(format!("{id} is submitted: {response:?}"))
    }

    pub(super) fn request_savepoint(&mut self) -> Option<String> {
        let job = self
            .random
            .pick(self.jobs(|status| status == JobStatus::Running))?;
        self.requests += 1;
        let stop = self.random.percent(25);
        let request = wire::RequestSavepoint {
            namespace: Namespace::DEFAULT.into(),
            job_id: job.to_string(),
            request_id: self.requests.to_string(),
            target_directory: SAVEPOINTS.into(),
            stop,
            ..Default::default()
        };
        self.apply(self.leader.epoch, Decision::RequestSavepoint(request));
        Some(format!("savepoint of {job}, stop: {stop}"))
    }

    pub(super) fn rescale(&mut self) -> Option<String> {
        let job = self
            .random
            .pick(self.jobs(|status| !status.is_terminal() && !status.is_ending()))?;
        let rescale = wire::RescaleJob {
            namespace: Namespace::DEFAULT.into(),
            job_id: job.to_string(),
            parallelism: 1 + self.random.below(3) as u32,
        };
        let what = format!("{job} is to run at parallelism {}", rescale.parallelism);
        self.apply(self.leader.epoch, Decision::RescaleJob(rescale));
        Some(what)
    }

    pub(super) fn cancel(&mut self) -> Option<String> {
        let job = self
            .random
            .pick(self.jobs(|status| !status.is_terminal()))?;
        self.cancel_job(&job);
        Some(format!("{job} is cancelled"))
    }

    pub(super) fn cancel_job(&mut self, job: &JobId) {
        let cancel = wire::CancelJob {
            namespace: Namespace::DEFAULT.into(),
            job_id: job.to_string(),
        };
        self.apply(self.leader.epoch, Decision::CancelJob(cancel));
    }

    pub(super) fn end_input(&mut self) -> Option<String> {
        let job = self
            .random
            .pick(self.jobs(|status| status == JobStatus::Running))?;
        self.end_input_of(&job);
        Some(format!("the input of {job} ends"))
    }

    pub(super) fn dismiss(&mut self) -> Option<String> {
        let job = self.random.pick(self.jobs(JobStatus::is_terminal))?;
        let dismiss = wire::DismissJob {
            namespace: Namespace::DEFAULT.into(),
            job_id: job.to_string(),
        };
        let response = self.apply(self.leader.epoch, Decision::DismissJob(dismiss));
        Some(format!("{job} is dismissed: {response:?}"))
    }

    /// Somebody has the orphans of a job deleted; whoever is asked may have been deposed meanwhile.
    pub(super) fn clean_up(&mut self) -> Option<String> {
        let job = self.random.pick(self.state.jobs.keys().cloned())?;
        let stale = self.deposed.iter().map(|deposed| deposed.state.clone());
        let state = self
            .random
            .pick(stale.chain([self.state.clone()]).collect::<Vec<_>>())?;
        self.begin_collecting(state, &job);
        Some(format!("the orphans of {job} are looked for"))
    }

    /// A file of a retained checkpoint becomes unreadable.
    pub(super) fn damage(&mut self) -> Option<String> {
        if self.damaged.len() >= DAMAGED_MAX {
            return None;
        }
        let retained = self
            .state
            .jobs
            .values()
            .flat_map(|job| &job.checkpoints.retained);
        let path = self
            .random
            .pick(retained.flat_map(|it| it.paths()).map(str::to_owned))?;
        self.damaged.insert(path.clone());
        Some(format!("{path} is damaged"))
    }
}
