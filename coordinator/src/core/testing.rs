//! A cluster in microseconds, for tests of the pure core: fake TaskManagers that obey at once ([`task_manager`]), and a
//! leader that can be replaced between any two steps. [`graph`]: what its jobs compute. [`storage`]: what is written.

mod graph;
mod storage;
mod task_manager;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flott_proto::ids::{CheckpointId, JobId, Namespace, TaskId, TaskManagerId};
use flott_proto::job_graph::JobGraph;
use flott_proto::paths;
use flott_proto::wire::{self, TaskState, command::Decision, task_manager_message};
use prost::Message as _;

pub(crate) use self::graph::graph;
use self::task_manager::FakeTaskManager;

use super::checkpoint::CompletedCheckpoint;
use super::graph_object::GraphObject;
use super::lineage::Beginning;
use super::namespace::Quota;
use super::observed::{ConnectionId, Now};
use super::plan::Settings;
use super::records::vertices_to_wire;
use super::{ClusterState, Job, Observed, Response, plan};

/// Effects of a step: everything that it sets off.
pub(crate) const ALL: usize = usize::MAX;

pub(crate) struct World {
    pub state: ClusterState,
    pub observed: Observed,
    pub now: Now,
    index: u64,
    connections: u64,
    task_managers: BTreeMap<TaskManagerId, FakeTaskManager>,
    next_task_manager: u32,
    /// Whether the state is checked after each entry; a thousand jobs take too long for that.
    pub checks: bool,
    /// Of each TaskManager that is added.
    pub slots: u32,
    pub settings: Settings,
    /// Every attempt that was ever started, by job.
    pub attempts: BTreeMap<JobId, Vec<u32>>,
    /// Objects that were deleted.
    pub deleted: BTreeSet<String>,
    /// Objects that nobody can read any more.
    pub damaged: BTreeSet<String>,
    /// Objects that TaskManagers cannot read, and the leader can.
    pub misread: BTreeSet<String>,
    /// The checkpoint that each attempt was deployed with, by job.
    pub restored: BTreeMap<JobId, BTreeMap<u32, CheckpointId>>,
    /// What lies in the directories of savepoints.
    pub savepoints: BTreeMap<String, BTreeSet<String>>,
    /// Objects that were ever written, by job.
    written: BTreeMap<JobId, BTreeSet<String>>,
    /// Job graphs that are too large for the log, by path.
    graphs: BTreeMap<String, Vec<u8>>,
    pub graphs_read: u32,
    /// Every entry so far.
    pub commands: Vec<wire::Command>,
    /// What TaskManagers have said beside heartbeats.
    pub said: Vec<task_manager_message::Message>,
    /// Why jobs waited in the last step.
    pub notes: BTreeMap<JobId, String>,
    next_file: u64,
}

impl World {
    pub(crate) fn new(task_managers: u32) -> Self {
        let mut world = Self {
            state: ClusterState::default(),
            observed: Observed::empty(Duration::ZERO),
            now: Now {
                monotonic: Duration::ZERO,
                wall_ms: 1_000_000,
            },
            index: 0,
            connections: 0,
            task_managers: BTreeMap::new(),
            next_task_manager: 0,
            checks: true,
            slots: 2,
            settings: Settings {
                cluster: "c".parse().unwrap(),
                heartbeat_timeout: Duration::from_secs(3),
                reconnect_grace: Duration::from_secs(3),
                results_expire_after: Duration::from_secs(3600),
                results_max: None,
            },
            attempts: BTreeMap::new(),
            deleted: BTreeSet::new(),
            damaged: BTreeSet::new(),
            misread: BTreeSet::new(),
            restored: BTreeMap::new(),
            savepoints: BTreeMap::new(),
            written: BTreeMap::new(),
            graphs: BTreeMap::new(),
            graphs_read: 0,
            commands: Vec::new(),
            said: Vec::new(),
            notes: BTreeMap::new(),
            next_file: 0,
        };
        world.change_leader();
        for _ in 0..task_managers {
            world.add_task_manager();
        }
        world
    }

    pub(crate) fn submit(&mut self, parallelism: u32, settings: &[(&str, &str)]) -> JobId {
        let (id, response) = self.try_submit(Namespace::DEFAULT, parallelism, settings);
        assert_eq!(response, Response::Applied);
        id
    }

    pub(crate) fn try_submit(
        &mut self,
        namespace: &str,
        parallelism: u32,
        settings: &[(&str, &str)],
    ) -> (JobId, Response) {
        self.submit_graph(namespace, graph(parallelism), None, settings)
    }

    /// Submits a job to `default` whose graph is in object storage.
    pub(crate) fn try_submit_large(&mut self, parallelism: u32) -> (JobId, Response) {
        let graph = graph(parallelism);
        let content = wire::JobGraph::from(&graph).encode_to_vec();
        let mut object = GraphObject::of(String::new(), &content);
        let cluster = self.settings.cluster.clone();
        object.path = paths::graph(&cluster, &Namespace::default(), &object.sha256);
        self.graphs.insert(object.path.clone(), content);
        let settings = [
            ("execution.checkpointing.interval", "50 ms"),
            ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
        ];
        self.submit_graph(Namespace::DEFAULT, graph.outline(), Some(object), &settings)
    }

    /// Submits a job that is to start from that checkpoint of another.
    pub(crate) fn try_submit_from(
        &mut self,
        other: &JobId,
        checkpoint: &CompletedCheckpoint,
    ) -> (JobId, Response) {
        let id = JobId::generate();
        let other = self.job(other);
        let restore = wire::CheckpointMetadata {
            version: 1,
            namespace: other.namespace.to_string(),
            job_id: other.id.to_string(),
            checkpoint_id: checkpoint.id.0,
            kind: wire::CheckpointKind::from(checkpoint.kind).into(),
            vertices: vertices_to_wire(&checkpoint.subtasks, |_| 1),
            ..Default::default()
        };
        let submit = wire::SubmitJob {
            namespace: other.namespace.to_string(),
            job_id: id.to_string(),
            graph: Some((&graph(1)).into()),
            configuration: (*other.configuration).clone(),
            restore: Some(restore),
            restore_root: "memory:///test".into(),
            ..Default::default()
        };
        let response = self.apply(Decision::SubmitJob(submit));
        (id, response)
    }

    fn submit_graph(
        &mut self,
        namespace: &str,
        graph: JobGraph,
        object: Option<GraphObject>,
        settings: &[(&str, &str)],
    ) -> (JobId, Response) {
        let id = JobId::generate();
        let mut configuration: BTreeMap<String, String> = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        configuration.insert(
            "execution.checkpointing.dir".into(),
            "memory:///test".into(),
        );
        let submit = wire::SubmitJob {
            namespace: namespace.into(),
            job_id: id.to_string(),
            graph: Some((&graph).into()),
            graph_object: object.map(|object| object.to_wire()),
            configuration,
            ..Default::default()
        };
        let response = self.apply(Decision::SubmitJob(submit));
        (id, response)
    }

    pub(crate) fn create_namespace(&mut self, name: &str, quota: Quota) {
        let create = wire::CreateNamespace {
            name: name.into(),
            quota: Some(quota.into()),
        };
        assert_eq!(
            self.apply(Decision::CreateNamespace(create)),
            Response::Applied
        );
    }

    pub(crate) fn delete_namespace(&mut self, name: &str) {
        let delete = wire::DeleteNamespace { name: name.into() };
        assert_eq!(
            self.apply(Decision::DeleteNamespace(delete)),
            Response::Applied
        );
    }

    /// Whether a namespace of that name is there.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        let name: Namespace = name.parse().unwrap();
        self.state.namespaces.contains_key(&name)
    }

    pub(crate) fn job(&self, id: &JobId) -> &Job {
        &self.state.jobs[id]
    }

    pub(crate) fn apply(&mut self, decision: Decision) -> Response {
        self.index += 1;
        let epoch = if matches!(decision, Decision::ActivateJobManager(_)) {
            0
        } else {
            self.state.epoch.0
        };
        let command = wire::Command {
            now_ms: self.now.wall_ms,
            epoch,
            decision: Some(decision),
        };
        if let Some(Decision::StartAttempt(start)) = &command.decision {
            self.attempts
                .entry(start.job_id.parse().unwrap())
                .or_default()
                .push(start.attempt);
        }
        let response = self.state.apply(self.index, &command);
        self.commands.push(command);
        if self.checks {
            self.state.check();
        }
        response
    }

    /// Another cluster goes on from this one's state. The TaskManagers have ended their tasks, and register with it.
    pub(crate) fn found_lineage(&mut self, cluster: &str, beginning: Beginning) {
        self.index = self.state.begin_lineage(beginning).unwrap();
        self.settings.cluster = cluster.parse().unwrap();
        for task_manager in self.task_managers.values_mut() {
            *task_manager = FakeTaskManager::default();
        }
        self.change_leader();
    }

    /// The leader dies; another takes office, knows nothing, and the TaskManagers register with it.
    pub(crate) fn change_leader(&mut self) {
        let activate = wire::ActivateJobManager {
            node_id: 1,
            incarnation: "i".into(),
            address: "a:1".into(),
        };
        self.apply(Decision::ActivateJobManager(activate));
        self.observed = Observed::empty(self.now.monotonic);
        for id in self.task_managers.keys().cloned().collect::<Vec<_>>() {
            self.register(&id);
        }
    }

    pub(crate) fn add_task_manager(&mut self) {
        self.next_task_manager += 1;
        let id: TaskManagerId = format!("tm-{}", self.next_task_manager).parse().unwrap();
        self.task_managers
            .insert(id.clone(), FakeTaskManager::default());
        self.register(&id);
    }

    /// One of the TaskManagers dies without a word.
    pub(crate) fn kill_task_manager(&mut self, choice: usize) {
        let Some(id) = self
            .task_managers
            .keys()
            .nth(choice % self.task_managers.len().max(1))
            .cloned()
        else {
            return;
        };
        self.task_managers.remove(&id);
        let connection = self.observed.task_managers[&id].connection.unwrap();
        self.observed.on_disconnect(&id, connection, self.now);
    }

    fn register(&mut self, id: &TaskManagerId) {
        self.connections += 1;
        let task_manager = self.task_managers.get_mut(id).unwrap();
        task_manager.unsaid.clear();
        let register = wire::Register {
            task_manager_id: id.to_string(),
            data_address: format!("{id}:1"),
            slots: self.slots,
            tasks: task_manager
                .tasks
                .iter()
                .map(|(task, fake)| fake.report(task))
                .collect(),
            held_acks: task_manager.held_acks.clone(),
            ..Default::default()
        };
        self.observed.on_state(&self.state, self.now);
        self.observed
            .on_register(ConnectionId(self.connections), register, self.now)
            .unwrap();
    }

    /// A task of the present attempt fails.
    pub(crate) fn fail_task(&mut self, choice: usize) {
        let running = self.running_tasks();
        if !running.is_empty() {
            let (host, task) = running[choice % running.len()].clone();
            self.fail(&host, &task);
        }
    }

    /// A task of that job fails.
    pub(crate) fn fail_task_of(&mut self, job: &JobId) {
        let mut running = self.running_tasks().into_iter();
        let (host, task) = running.find(|(_, task)| task.job == *job).unwrap();
        self.fail(&host, &task);
    }

    fn fail(&mut self, host: &TaskManagerId, task: &TaskId) {
        let fake = self
            .task_managers
            .get_mut(host)
            .unwrap()
            .tasks
            .get_mut(task)
            .unwrap();
        fake.state = TaskState::Failed;
        fake.failure = "on purpose".into();
        self.say_status(host, task);
    }

    /// All input has been read.
    pub(crate) fn end_input(&mut self) {
        for (host, task) in self.running_tasks() {
            let fake = self
                .task_managers
                .get_mut(&host)
                .unwrap()
                .tasks
                .get_mut(&task)
                .unwrap();
            fake.state = TaskState::EndOfData;
            self.say_status(&host, &task);
        }
    }

    fn running_tasks(&self) -> Vec<(TaskManagerId, TaskId)> {
        let of = |(id, tm): (&TaskManagerId, &FakeTaskManager)| {
            let running = tm
                .tasks
                .iter()
                .filter(|(_, fake)| fake.state == TaskState::Running);
            running
                .map(|(task, _)| (id.clone(), task.clone()))
                .collect::<Vec<_>>()
        };
        self.task_managers.iter().flat_map(of).collect()
    }

    fn say_status(&mut self, host: &TaskManagerId, task: &TaskId) {
        let report = self.task_managers[host].tasks[task].report(task);
        let changed = wire::TaskStatusChanged {
            task: Some(report),
            retryable: true,
            lost_peer: String::new(),
        };
        self.say(host, task_manager_message::Message::TaskStatus(changed));
    }

    fn say(&mut self, host: &TaskManagerId, message: task_manager_message::Message) {
        let connection = self.observed.task_managers[host].connection.unwrap();
        if !matches!(message, task_manager_message::Message::Heartbeat(_)) {
            self.said.push(message.clone());
        }
        self.observed
            .on_message(host, connection, message, self.now)
            .unwrap();
    }

    /// One plan, carried out. Of its effects only the first `limit` happen: then the leader is cut off.
    pub(crate) fn step(&mut self, advance_ms: u64, limit: usize) {
        self.now.monotonic += Duration::from_millis(advance_ms);
        self.now.wall_ms += advance_ms as i64;
        let present: Vec<_> = self.task_managers.keys().cloned().collect();
        for id in present {
            self.say(
                &id,
                task_manager_message::Message::Heartbeat(wire::Heartbeat { tasks: vec![] }),
            );
        }
        self.observed.on_state(&self.state, self.now);
        let plan = plan(&self.state, &self.observed, &self.settings, self.now);
        let mut left = limit;
        let mut spend = || {
            left = left.saturating_sub(1);
            left > 0
        };
        for (to, message) in plan.sends {
            if spend() {
                self.observed.on_sent(&to, &message);
                self.obey(&to, message);
            }
        }
        for (job, decision) in plan.proposals {
            if spend() {
                self.propose(&job, decision);
            }
        }
        for (what, decision) in plan.chores {
            if spend() {
                assert_eq!(self.apply(decision), Response::Applied, "{what:?}");
            }
        }
        self.notes = plan.notes;
        for work in plan.works {
            if spend() {
                self.work(work);
            }
        }
    }

    /// Steps until that is so.
    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if done(self) {
                return;
            }
            self.step(10, ALL);
        }
        panic!("did not come about: {what}");
    }

    /// Carries out what the leader proposes for a job. Only what a quota limits is ever refused.
    fn propose(&mut self, job: &JobId, decision: Decision) {
        let what = format!("{decision:?}");
        let completing = match &decision {
            Decision::CompleteCheckpoint(complete) => Some(CheckpointId(complete.checkpoint_id)),
            _ => None,
        };
        match self.apply(decision) {
            Response::Refused(reason) if reason.contains("quota") => {
                if let Some(checkpoint) = completing {
                    self.observed
                        .on_completion_refused(job, checkpoint, &reason);
                }
            }
            response => assert_eq!(response, Response::Applied, "{job}: {what}"),
        }
    }
}
