//! Slots for jobs that wait, and tasks for TaskManagers that lack them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use flott_node::Mutant;
use flott_proto::ids::{SubtaskId, TaskManagerId};
use flott_proto::job_graph::JobGraph;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::paths;
use flott_proto::wire::{self, command::Decision, job_manager_message::Message};

use super::placement::Placement;
use super::slots::Slots;
use super::{Plan, Situation, Work};
use crate::core::checkpoint::CheckpointKind;
use crate::core::job::{Assignment, Job, JobStatus, Start};
use crate::core::namespace::Usage;
use crate::core::observed::UnderWay;
use crate::core::records::assignments_to_wire;
use crate::core::scheduler;

/// Proposes the next attempt of a job as soon as it may start and there are slots; otherwise says why it waits.
pub(super) fn start<'a>(
    situation: Situation<'a>,
    job: &'a Job,
    slots: &mut Slots<'a>,
    plan: &mut Plan,
) {
    if job.status == JobStatus::Restarting && situation.now.wall_ms < job.restart_at_ms {
        plan.notes.insert(
            job.id.clone(),
            "waiting for the restart strategy's delay".to_owned(),
        );
        return;
    }
    if full_graph(situation, job, plan).is_none() {
        return;
    }
    let needed = job.graph.slots_needed();
    let more = needed - Usage::of(job).slots;
    let namespace = situation.state.namespaces.get(&job.namespace);
    let promised = slots.started_in(&job.namespace);
    if let Some(lacking) = namespace.and_then(|namespace| namespace.lacks_slots(more, promised)) {
        plan.notes.insert(job.id.clone(), lacking);
        return;
    }
    let free = slots.free(&job.id);
    let before: BTreeMap<u32, TaskManagerId> = job
        .assignments
        .iter()
        .map(|(subtask, place)| (subtask.subtask, place.task_manager.clone()))
        .collect();
    let before = scheduler::heirs(&before, needed);
    let placed = match scheduler::assign(needed, &free, &before) {
        Ok(placed) => placed,
        Err(missing) => {
            let available = scheduler::slots_in(&free);
            let note = format!(
                "waiting for slots: {needed} needed, {available} free; start a TaskManager or free {missing} more"
            );
            plan.notes.insert(job.id.clone(), note);
            return;
        }
    };
    slots.take(&job.namespace, &job.id, &placed, more);
    let place = |subtask: SubtaskId| {
        let task_manager = placed[&subtask.subtask].clone();
        let data_address = situation.observed.task_managers[&task_manager]
            .data_address
            .clone();
        (
            subtask,
            Assignment {
                task_manager,
                data_address,
            },
        )
    };
    let assignments: BTreeMap<SubtaskId, Assignment> = job.subtasks().map(place).collect();
    let start = wire::StartAttempt {
        job_id: job.id.to_string(),
        attempt: job.attempt.next().0,
        assignments: assignments_to_wire(&assignments),
    };
    plan.proposals
        .push((job.id.clone(), Decision::StartAttempt(start)));
}

/// Deploys what the present attempt lacks on the TaskManagers it was assigned to. A new leader finds the tasks reported
/// and deploys nothing.
pub(super) fn complete(
    situation: Situation<'_>,
    job: &Job,
    placement: &Placement<'_>,
    plan: &mut Plan,
) {
    for (id, host) in placement.hosts() {
        let Some(task_manager) = host.connected() else {
            continue;
        };
        let missing = host.tasks().filter(|(_, view)| view.is_none());
        let missing: Vec<SubtaskId> = missing.map(|(subtask, _)| subtask.clone()).collect();
        if !missing.is_empty()
            && task_manager.told(&job.id).deployed != job.attempt
            && let Some(graph) = full_graph(situation, job, plan)
        {
            let deployment = deployment(situation, job, graph, &missing);
            plan.sends.push((id.clone(), Message::Deploy(deployment)));
        }
    }
}

/// The job's graph with its operators. If it has to be read first, that is planned and said.
fn full_graph<'a>(
    situation: Situation<'a>,
    job: &'a Job,
    plan: &mut Plan,
) -> Option<&'a Arc<JobGraph>> {
    let Some(object) = &job.graph_object else {
        return Some(&job.graph);
    };
    let loaded = situation.observed.graphs.get(&job.id);
    if let Some(Ok(graph)) = loaded {
        return Some(graph);
    }
    let note = match loaded {
        Some(Err(reason)) => format!("its job graph cannot be read, trying again: {reason}"),
        _ => format!("reading its job graph from {}", object.path),
    };
    plan.notes.insert(job.id.clone(), note);
    let work = Work::LoadGraph {
        job: job.id.clone(),
    };
    let what = || UnderWay::LoadGraph(job.id.clone());
    if !situation.observed.is_under_way(what) && !plan.works.contains(&work) {
        plan.works.push(work);
    }
    None
}

fn deployment(
    situation: Situation<'_>,
    job: &Job,
    graph: &JobGraph,
    subtasks: &[SubtaskId],
) -> wire::DeployTasks {
    let directory = paths::job(&situation.settings.cluster, &job.namespace, &job.id);
    let task = |subtask: &SubtaskId| {
        let mut deployment = restore(job, subtask);
        deployment.vertex = subtask.vertex.to_string();
        deployment.subtask = subtask.subtask;
        deployment.writer = paths::writer(&directory, job.attempt_epoch, job.attempt, subtask);
        deployment
    };
    let mut graph = Cow::Borrowed(graph);
    if job.graph_object.is_some() {
        // What was read from storage is as it was submitted.
        graph.to_mut().take_parallelism(&job.graph);
    }
    let location = |(subtask, place): (&SubtaskId, &Assignment)| wire::TaskLocation {
        vertex: subtask.vertex.to_string(),
        subtask: subtask.subtask,
        task_manager_id: place.task_manager.to_string(),
        data_address: place.data_address.clone(),
    };
    wire::DeployTasks {
        job_id: job.id.to_string(),
        namespace: job.namespace.to_string(),
        attempt: job.attempt.0,
        graph: Some((&*graph).into()),
        configuration: (*job.configuration).clone(),
        tasks: subtasks.iter().map(task).collect(),
        locations: job.assignments.iter().map(location).collect(),
        cluster_id: situation.settings.cluster.to_string(),
    }
}

/// What a subtask starts from: its own state, or at another parallelism that of all subtasks of its vertex. Operators
/// need all of it to take their part; of the files only those with key groups of its own. What was on its way to or from an
/// earlier subtask is for those that have key groups of it, and what has no key for exactly one (the worker's
/// `channel_state` divides it).
fn restore(job: &Job, subtask: &SubtaskId) -> wire::TaskDeployment {
    let mut starts = job.starts();
    let start = match Mutant::OldestCheckpointRestored.is_planted() {
        false => starts.next(),
        true => starts.last(),
    };
    let (Some(start), Some(vertex)) = (start, job.graph.vertex(&subtask.vertex)) else {
        return wire::TaskDeployment::default();
    };
    let then = start.parallelism(&vertex.uid);
    let same = then == vertex.parallelism;
    let range =
        |index, parallelism| KeyGroupRange::of_subtask(index, vertex.max_parallelism, parallelism);
    let own = range(subtask.subtask, vertex.parallelism);
    let concerns =
        |id: &SubtaskId| id.vertex == subtask.vertex && (!same || id.subtask == subtask.subtask);
    let states = start.subtasks().iter().filter(|(id, _)| concerns(id));
    let restore = states.map(|(id, state)| {
        let mut state = state.to_wire(id.subtask);
        let known = id.subtask < then && then <= vertex.max_parallelism;
        if known && range(id.subtask, then).intersection(own).is_none() {
            let takes_over = id.subtask % vertex.parallelism == subtask.subtask;
            state
                .files
                .retain(|file| takes_over && file.kind() == wire::StateFileKind::Channels);
        }
        state
    });
    // Files that are not the job's own are nobody's base.
    let elsewhere = match start {
        Start::Submitted(point) => Some(point.root.as_str()),
        Start::Checkpoint(checkpoint) if checkpoint.kind == CheckpointKind::Savepoint => {
            Some(checkpoint.external_path.as_str())
        }
        Start::Checkpoint(_) => None,
    };
    wire::TaskDeployment {
        restore: restore.collect(),
        restore_checkpoint_id: start.id().0,
        restore_is_base: same && elsewhere.is_none(),
        restore_root: elsewhere.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flott_proto::state_handle::StateFile;

    use super::*;
    use crate::core::testing::World;

    /// With checkpoints, in which every subtask has channel state.
    fn with_channel_state(parallelism: u32) -> Job {
        let mut world = World::new(2);
        let interval = [("execution.checkpointing.interval", "50 ms")];
        let id = world.submit(parallelism, &interval);
        world.run_until("a checkpoint", |world| {
            world.job(&id).checkpoints.completed_count > 0
        });
        let mut job = world.job(&id).clone();
        let latest = job.checkpoints.retained.last_mut().unwrap();
        for (subtask, state) in &mut Arc::make_mut(latest).subtasks {
            let file = StateFile::of_channels(format!("c/n/j/shared/{subtask}/channels-1"), 1, 1);
            state.files.insert(file.path.clone(), file);
        }
        job
    }

    #[test]
    fn channel_state_is_for_those_that_may_have_rows_of_it() {
        for (from, to) in [(2, 2), (2, 4), (4, 3), (3, 1), (1, 2)] {
            let mut job = with_channel_state(from);
            job.rescale_to = Some(to);
            job.rescale(0).unwrap();
            for vertex in &job.graph.vertices {
                let range = |at, of| KeyGroupRange::of_subtask(at, vertex.max_parallelism, of);
                for subtask in 0..to {
                    let id = SubtaskId {
                        vertex: vertex.uid.clone(),
                        subtask,
                    };
                    let deployed = restore(&job, &id).restore.into_iter();
                    let has_channels = |state: &wire::SubtaskState| {
                        let mut files = state.files.iter();
                        files.any(|file| file.kind() == wire::StateFileKind::Channels)
                    };
                    let found = deployed.filter(has_channels).map(|state| state.subtask);
                    let concerned = (0..from).filter(|earlier| {
                        let overlaps = range(*earlier, from).intersection(range(subtask, to));
                        overlaps.is_some() || earlier % to == subtask
                    });
                    let (found, concerned): (BTreeSet<u32>, BTreeSet<u32>) =
                        (found.collect(), concerned.collect());
                    assert_eq!(found, concerned, "{id}, {from} to {to}");
                }
            }
        }
    }
}
