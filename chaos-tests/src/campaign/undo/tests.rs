use std::process::Stdio;

use flott_node::SystemClock;
use tokio::process::Command;

use super::*;

#[tokio::test]
async fn what_is_begun_is_pending_until_it_is_done_or_healed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
    let begin = |what| {
        journal
            .begin(what, Duration::from_secs(5), Undo::EndsWithHarness)
            .unwrap()
    };
    let first = begin("a");
    begin("b");
    journal.done(first).unwrap();
    // The harness died in the middle of a line.
    let mut file = OpenOptions::new()
        .append(true)
        .open(journal.path())
        .unwrap();
    file.write_all(b"{\"beg").unwrap();
    let open = pending(journal.path()).unwrap();
    assert_eq!(
        open.iter()
            .map(|entry| entry.what.as_str())
            .collect::<Vec<_>>(),
        ["b"]
    );
    file.write_all(b"\n").unwrap();

    assert!(healed(&journal, 0).await.is_empty(), "it has not expired");
    assert_eq!(healed(&journal, i64::MAX).await.len(), 1);
    assert!(pending(journal.path()).unwrap().is_empty());
    assert!(healed(&journal, i64::MAX).await.is_empty(), "nothing twice");
}

/// What was done, where nothing is left.
async fn healed(journal: &Journal, before_ms: i64) -> Vec<String> {
    let healed = heal(journal.path(), before_ms).await.unwrap();
    assert!(healed.left.is_empty(), "{healed:?}");
    healed.done
}

#[tokio::test]
async fn a_lever_is_released_and_a_page_that_is_gone_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
    let page = Control::create(&directory.path().join("page"), directory.path()).unwrap();
    let gone = directory.path().join("gone");
    for (path, lever) in [(page.path(), Lever::Full), (gone.as_path(), Lever::Hung)] {
        let page = path.to_owned();
        let lever = lever as usize;
        journal
            .begin(
                "disk",
                Duration::from_secs(5),
                Undo::Release { page, lever },
            )
            .unwrap();
    }
    page.press(Lever::Full, i64::MAX, 0, 1).unwrap();
    let done = healed(&journal, i64::MAX).await;
    assert_eq!(done, ["disk: undone", "disk: its page is gone"]);
    assert!(!page.is_on(Lever::Full).unwrap());
}

#[tokio::test]
async fn what_lasts_as_long_as_the_run_is_undone_only_when_that_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
    // No process has this number, so none has namespaces.
    let (pid, born) = (i32::MAX, 1);
    let undo = Undo::RemoveNamespaces { pid, born };
    journal.begin_for_the_run("namespaces", undo).unwrap();
    let far_off_ms = SystemClock::shared().now_ms() + 1_000_000_000_000;
    assert!(healed(&journal, far_off_ms).await.is_empty());
    assert_eq!(harness(journal.path()).unwrap(), None);
    let done = healed(&journal, i64::MAX).await;
    assert_eq!(done, ["namespaces: there were none"]);

    let own = i32::try_from(std::process::id()).unwrap();
    let born = processes::born(own).unwrap();
    let begin = |born| {
        let undo = Undo::RemoveNamespaces { pid: own, born };
        journal.begin_for_the_run("namespaces", undo).unwrap();
    };
    begin(born + 1);
    assert_eq!(harness(journal.path()).unwrap(), None);
    let done = healed(&journal, i64::MAX).await;
    assert!(done[0].contains("left alone"), "{done:?}");
    begin(born);
    assert_eq!(harness(journal.path()).unwrap(), Some(own));
}

#[tokio::test]
async fn a_stopped_process_is_woken_and_its_successor_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let born = processes::born(pid).unwrap();
    for born in [born, born + 1] {
        journal
            .begin(
                "pause cat",
                Duration::from_secs(5),
                Undo::Wake { pid, born },
            )
            .unwrap();
    }
    processes::stop(pid).unwrap();
    let done = healed(&journal, i64::MAX).await;
    assert_eq!(done, ["pause cat: woken", "pause cat: its process is gone"]);
    // It is awake: it notices the end of its input.
    drop(child.stdin.take());
    assert!(child.wait().await.unwrap().success());
}
#[tokio::test]
async fn what_a_machine_of_others_does_not_undo_stays_to_be_undone() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::create(directory.path(), SystemClock::shared()).unwrap();
    for (what, script) in [
        ("cut a", "echo chaos done nothing of it is left"),
        ("cut b", "echo chaos unclear no lock"),
        ("cut c", "exit 255"),
    ] {
        let undo = Undo::Remote {
            shell: ["sh", "-s"].map(str::to_owned).to_vec(),
            script: script.to_owned(),
        };
        journal.begin(what, Duration::from_secs(5), undo).unwrap();
    }
    let healed = heal(journal.path(), i64::MAX).await.unwrap();
    assert_eq!(healed.done, ["cut a: nothing of it is left"]);
    assert_eq!(healed.left[0], "cut b: no lock");
    let left = pending(journal.path()).unwrap().into_iter();
    assert_eq!(
        left.map(|entry| entry.what).collect::<Vec<_>>(),
        ["cut b", "cut c"]
    );
}
