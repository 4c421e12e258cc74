//! Every object-store name, and the only place that forms one.
//!
//! Paths of checkpoints are relative to the checkpoint root (`execution.checkpointing.dir`):
//!
//! ```text
//! <cluster>/<namespace>/<job>/shared/<writer>/<seq>      state files, named once and never again
//! <cluster>/<namespace>/<job>/shared/<writer>/channels-<id>   what was on its way at an unaligned checkpoint
//! <cluster>/<namespace>/<job>/chk-<id>/_metadata         one object a completed checkpoint
//! <cluster>/<namespace>/graphs/<sha256>                  a job graph that is too large for the log, by its content
//! ```
//!
//! A savepoint is a directory of its own, in which all paths are relative to it, so that it can be moved:
//!
//! ```text
//! <target>/savepoint-<job>-<id>-<epoch>/_metadata
//! <target>/savepoint-<job>-<id>-<epoch>/<writer>/<seq>
//! ```

use crate::ids::{
    AttemptNumber, CheckpointId, ClusterId, JobId, LeaderEpoch, Namespace, SubtaskId,
};

/// The name of the object that describes a checkpoint or savepoint, in its directory.
pub const METADATA: &str = "_metadata";

/// The directory of a job.
pub fn job(cluster: &ClusterId, namespace: &Namespace, job: &JobId) -> String {
    format!("{cluster}/{namespace}/{job}")
}

/// Whether the object is one of this cluster's, and not of one that it goes on from: only its own may it delete.
pub fn is_of(cluster: &ClusterId, path: &str) -> bool {
    path.split_once('/')
        .is_some_and(|(first, _)| first == cluster.as_str())
}

/// The checkpoint whose metadata object this is, in the directory of a job; none if it is another object.
pub fn checkpoint_of_metadata(job_directory: &str, path: &str) -> Option<CheckpointId> {
    let in_job = path.strip_prefix(job_directory)?.strip_prefix("/chk-")?;
    let (id, object) = in_job.split_once('/')?;
    let id = number(id).filter(|_| object == METADATA)?;
    Some(CheckpointId(id))
}

/// The attempt that wrote this state file, in the directory of a job; none if it is another object.
pub fn attempt_of_state_file(job_directory: &str, path: &str) -> Option<AttemptNumber> {
    let in_job = path.strip_prefix(job_directory)?.strip_prefix("/shared/")?;
    let (writer, _) = in_job.split_once('/')?;
    let mut parts = writer.splitn(3, '-');
    let _epoch = number(parts.next()?)?;
    let attempt = number(parts.next()?)?.try_into().ok()?;
    parts.next().map(|_| AttemptNumber(attempt))
}

/// A number as names here have it: `+4` and `04` are somebody else's.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The directory of the job, of whatever cluster, that a path lies in; none if it lies in none.
pub fn job_of(path: &str) -> Option<&str> {
    let (end, _) = path.match_indices('/').nth(2)?;
    Some(&path[..end])
}

/// A job graph that is too large for the log; `sha256` is that of its content.
pub fn graph(cluster: &ClusterId, namespace: &Namespace, sha256: &[u8; 32]) -> String {
    let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{cluster}/{namespace}/graphs/{hex}")
}

/// The prefix under which one execution attempt of one subtask writes its state files. Never reused: an attempt number
/// rises with every restart, and the epoch tells lineages of attempt numbers apart.
pub fn writer(
    job_directory: &str,
    epoch: LeaderEpoch,
    attempt: AttemptNumber,
    subtask: &SubtaskId,
) -> String {
    format!(
        "{job_directory}/shared/{epoch}-{attempt}-{}-{}",
        subtask.vertex, subtask.subtask
    )
}

/// The `sequence`-th file of a writer.
pub fn state_file(writer: &str, sequence: u64) -> String {
    format!("{writer}/{sequence:08}")
}

/// What was on its way to or from the writer's subtask when it took its snapshot for an unaligned checkpoint.
pub fn channel_state(writer: &str, checkpoint: CheckpointId) -> String {
    format!("{writer}/channels-{checkpoint}")
}

/// The directory of a completed checkpoint.
pub fn checkpoint(job_directory: &str, checkpoint: CheckpointId) -> String {
    format!("{job_directory}/chk-{checkpoint}")
}

/// The directory of a savepoint in the directory that the user named. The epoch makes it unique where a job id was used
/// again by a restored cluster.
pub fn savepoint(
    target: &str,
    job: &JobId,
    checkpoint: CheckpointId,
    epoch: LeaderEpoch,
) -> String {
    let separator = if target.ends_with('/') { "" } else { "/" };
    format!("{target}{separator}savepoint-{job}-{checkpoint}-{epoch}")
}

/// The `sequence`-th file of a writer, in the directory of a savepoint.
pub fn savepoint_file(writer: &str, sequence: u64) -> String {
    let name = writer.rsplit('/').next().unwrap_or(writer);
    state_file(name, sequence)
}

/// Whether an object in the directory of a savepoint is a part of it, and nothing that somebody else put there.
pub fn is_of_savepoint(path: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_state_file = |(writer, sequence): (&str, &str)| {
        let mut parts = writer.splitn(3, '-');
        parts.next().is_some_and(is_number)
            && parts.next().is_some_and(is_number)
            && parts.next().is_some()
            && is_number(sequence)
    };
    path == METADATA || path.split_once('/').is_some_and(is_state_file)
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, kind};

    use super::*;

    const DIRECTORY: &str = "c1/default/0123456789abcdef0123456789abcdef";

    /// They were taken for orphans, which are deleted when somebody asks for it.
    #[test]
    fn an_object_with_a_number_in_another_form_is_not_ours() {
        for path in ["chk-+4/_metadata", "chk-04/_metadata"] {
            let path = format!("{DIRECTORY}/{path}");
            assert_eq!(checkpoint_of_metadata(DIRECTORY, &path), None, "{path}");
        }
        for writer in ["+7-2-v-3", "7-02-v-3", "7-+2-v-3"] {
            let path = format!("{DIRECTORY}/shared/{writer}/00000012");
            assert_eq!(attempt_of_state_file(DIRECTORY, &path), None, "{path}");
        }
    }

    #[test]
    fn any_text_is_the_name_of_an_object_of_ours_or_of_none() {
        let seeds = [
            format!("{DIRECTORY}/shared/7-2-window-3/00000012"),
            format!("{DIRECTORY}/chk-4/{METADATA}"),
            "7-2-window-3/00000012".to_owned(),
        ];
        let words = [
            "/",
            "-",
            "+",
            "0",
            "..",
            "18446744073709551616",
            "chk-",
            METADATA,
        ];
        flott_decoders::check!(Seeds::of(seeds).words(words)).for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if let Some(id) = kind(checkpoint_of_metadata(DIRECTORY, &text)) {
                assert_eq!(text, format!("{}/{METADATA}", checkpoint(DIRECTORY, id)));
            }
            if let Some(attempt) = kind(attempt_of_state_file(DIRECTORY, &text)) {
                assert!(text.starts_with(DIRECTORY) && text.contains(&format!("-{attempt}-")));
            }
            if let Some(job) = kind(job_of(&text)) {
                assert_eq!(job.matches('/').count(), 2);
            }
            assert!(!kind(is_of_savepoint(&text)) || text == METADATA || text.contains('/'));
        });
    }

    #[test]
    fn names_stay_as_they_are() {
        let job_id: JobId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let directory = job(&"c1".parse().unwrap(), &Namespace::default(), &job_id);
        assert_eq!(directory, "c1/default/0123456789abcdef0123456789abcdef");
        let subtask = SubtaskId {
            vertex: "window".parse().unwrap(),
            subtask: 3,
        };
        let writer = writer(&directory, LeaderEpoch(7), AttemptNumber(2), &subtask);
        assert_eq!(
            state_file(&writer, 12),
            format!("{directory}/shared/7-2-window-3/00000012")
        );
        let channels = channel_state(&writer, CheckpointId(4));
        assert_eq!(
            channels,
            format!("{directory}/shared/7-2-window-3/channels-4")
        );
        assert_eq!(
            attempt_of_state_file(&directory, &channels),
            Some(AttemptNumber(2))
        );
        assert_eq!(
            checkpoint(&directory, CheckpointId(4)),
            format!("{directory}/chk-4")
        );
        let metadata = format!("{}/{METADATA}", checkpoint(&directory, CheckpointId(4)));
        assert_eq!(
            checkpoint_of_metadata(&directory, &metadata),
            Some(CheckpointId(4))
        );
        let file = state_file(&writer, 1);
        assert_eq!(
            attempt_of_state_file(&directory, &file),
            Some(AttemptNumber(2))
        );
        assert_eq!(job_of(&file), Some(directory.as_str()));
        assert_eq!(job_of(&directory), None);
        let strange = format!("{directory}/shared/notes/1");
        for other in [&metadata, &writer, &strange, &file.replacen("c1", "c2", 1)] {
            assert_eq!(attempt_of_state_file(&directory, other), None, "{other}");
        }
        let of_another = metadata.replacen("c1", "c2", 1);
        for other in [&of_another, &state_file(&writer, 1), "", &directory] {
            assert_eq!(checkpoint_of_metadata(&directory, other), None, "{other}");
        }
        assert!(is_of(&"c1".parse().unwrap(), &metadata));
        assert!(!is_of(&"c".parse().unwrap(), &metadata));
        assert!(!is_of(&"c1".parse().unwrap(), "c1"));
        let name = format!("savepoint-{job_id}-4-7");
        for (target, expected) in [
            ("s3://b/p", format!("s3://b/p/{name}")),
            ("/", format!("/{name}")),
        ] {
            let directory = savepoint(target, &job_id, CheckpointId(4), LeaderEpoch(7));
            assert_eq!(directory, expected);
        }
        let file = savepoint_file(&writer, 12);
        assert_eq!(file, "7-2-window-3/00000012");
        assert!(is_of_savepoint(&file) && is_of_savepoint(METADATA));
        for other in [
            "notes",
            "7-2/00000012",
            "7-2-window-3/notes",
            "a-2-w-3/1",
            "x/_metadata",
        ] {
            assert!(!is_of_savepoint(other), "{other}");
        }
        assert_eq!(
            graph(&"c1".parse().unwrap(), &Namespace::default(), &[0xa5; 32]),
            format!("c1/default/graphs/{}", "a5".repeat(32))
        );
    }
}
