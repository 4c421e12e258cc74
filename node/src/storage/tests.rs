//! Every kind of store keeps the same promises.

mod environment;
mod faults;

use super::*;
use crate::testing::{S3Server, SECRET_KEY, SeaweedFs};

const PART: usize = PART_BYTES as usize;

fn bytes(length: usize) -> Bytes {
    b"0123456789abcde".repeat(length / 15 + 1)[..length]
        .to_vec()
        .into()
}

/// Files of one request, of two parts, and of more.
const LENGTHS: [usize; 6] = [0, 1, 1000, PART, PART + 1, 3 * PART + 5];

#[tokio::test]
async fn an_object_that_was_linked_is_not_written_to_by_a_download() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("objects");
    let storage = ObjectStorage::open(root.to_str().unwrap()).unwrap();
    storage.put("a/one", bytes(10)).await.unwrap();
    storage.put("a/two", bytes(20)).await.unwrap();
    let local = dir.path().join("local");
    assert!(storage.link_file("a/one", &local).await);
    assert!(!storage.link_file("a/none", &dir.path().join("none")).await);
    assert_eq!(storage.get_file("a/two", &local).await.unwrap(), 20);
    assert_eq!(fs::read(&local).unwrap(), bytes(20));
    assert_eq!(storage.get("a/one").await.unwrap(), bytes(10));
    let memory = ObjectStorage::open("memory:///linked").unwrap();
    memory.put("a", bytes(1)).await.unwrap();
    assert!(!memory.link_file("a", &dir.path().join("copy")).await);
}

#[tokio::test]
async fn a_file_that_nobody_writes_to_again_becomes_an_object_by_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("objects");
    let storage = ObjectStorage::open(root.to_str().unwrap()).unwrap();
    let local = dir.path().join("local");
    fs::write(&local, bytes(PART + 1)).unwrap();
    assert!(storage.put_link("a/b/one", &local).await.unwrap());
    assert!(
        !storage.put_link("a/b/one", &local).await.unwrap(),
        "it is there"
    );
    assert!(
        !storage
            .put_link("a/two", &dir.path().join("none"))
            .await
            .unwrap()
    );
    fs::remove_file(&local).unwrap();
    assert!(storage.get("a/b/one").await.unwrap() == bytes(PART + 1));
    storage.delete("a/b/one").await.unwrap();
    assert_eq!(storage.list("").await.unwrap(), []);
    let memory = ObjectStorage::open("memory:///put-link").unwrap();
    assert!(
        !memory
            .put_link("a", &dir.path().join("copy"))
            .await
            .unwrap()
    );
}

async fn keeps_its_promises(storage: &ObjectStorage, lengths: &[usize]) {
    let local = tempfile::tempdir().unwrap();
    let (source, copy) = (local.path().join("source"), local.path().join("copy"));
    for (number, &length) in lengths.iter().enumerate() {
        let path = format!("a/b/file-{number}");
        fs::write(&source, bytes(length)).unwrap();
        let size = storage.put_file(&path, &source).await.unwrap();
        assert_eq!(size, length as u64);
        assert_eq!(storage.get_file(&path, &copy).await.unwrap(), size);
        let found = fs::read(&copy).unwrap();
        assert!(found == bytes(length), "{length} bytes");
    }
    storage.put("a/b/whole", bytes(10)).await.unwrap();
    storage.put("a/bc", bytes(3)).await.unwrap();
    assert_eq!(storage.get("a/b/whole").await.unwrap(), bytes(10));
    assert!(storage.exists("a/bc").await.unwrap());
    assert!(!storage.exists("a/b/none").await.unwrap());
    assert!(
        matches!(storage.get("a/b/none").await, Err(Error::NotFound { path }) if path == storage.url("a/b/none"))
    );
    let files = lengths.iter().enumerate();
    let mut below: Vec<_> = files
        .map(|(number, &length)| (format!("a/b/file-{number}"), length as u64))
        .collect();
    below.push(("a/b/whole".to_owned(), 10));
    assert_eq!(storage.list("a/b").await.unwrap(), below);
    assert_eq!(storage.list("").await.unwrap().len(), below.len() + 1);
    assert_eq!(storage.list("nowhere").await.unwrap(), []);
    for (path, _) in &below {
        storage.delete(path).await.unwrap();
    }
    for path in ["a/bc", "a/bc", "a/b/none"] {
        storage.delete(path).await.unwrap();
    }
    assert_eq!(storage.list("").await.unwrap(), []);
    assert!(matches!(
        storage.put("../up", bytes(1)).await,
        Err(Error::InvalidPath { .. })
    ));
}

#[tokio::test]
async fn a_directory_keeps_the_promises_and_is_left_empty() {
    let local = tempfile::tempdir().unwrap();
    let root = local.path().join("made/on demand");
    let storage = ObjectStorage::open(root.to_str().unwrap()).unwrap();
    keeps_its_promises(&storage, &LENGTHS).await;
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    assert_eq!(storage.root(), root.to_str().unwrap());
    let url = url::Url::from_directory_path(&root).unwrap();
    storage.put("x", bytes(5)).await.unwrap();
    let again = ObjectStorage::open(url.as_str()).unwrap();
    assert_eq!(again.get("x").await.unwrap(), bytes(5));
    assert_eq!(again.root().trim_end_matches('/'), storage.root());
}

#[tokio::test]
async fn memory_keeps_the_promises_and_is_shared_by_name() {
    let storage = ObjectStorage::open("memory:///promises").unwrap();
    keeps_its_promises(&storage, &LENGTHS).await;
    storage.put("x", bytes(5)).await.unwrap();
    assert!(
        ObjectStorage::open("memory:///promises/")
            .unwrap()
            .exists("x")
            .await
            .unwrap()
    );
    assert!(
        !ObjectStorage::open("memory:///promised")
            .unwrap()
            .exists("x")
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn s3_keeps_the_promises_below_any_prefix() {
    let server = S3Server::start().await;
    keeps_its_promises(&server.storage(), &LENGTHS).await;
    let below = server.open("s3://checkpoints/some/prefix", SECRET_KEY);
    below.put("x", bytes(5)).await.unwrap();
    let found = server.storage().list("some").await.unwrap();
    assert_eq!(found, [("some/prefix/x".to_owned(), 5)]);
    assert_eq!(below.list("").await.unwrap(), [("x".to_owned(), 5)]);
    assert_eq!(server.orphaned_parts(), 0);
}

#[tokio::test]
async fn seaweedfs_keeps_the_promises_and_refuses_strangers() {
    let Some(server) = SeaweedFs::start().await else {
        return;
    };
    keeps_its_promises(&server.storage(), &LENGTHS).await;
    let stranger = server.open("s3://checkpoints", "another key");
    let refused = stranger.put("x", bytes(5)).await;
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    let refused = stranger.list("").await;
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    let nowhere = server.open("s3://no-such-bucket", SECRET_KEY);
    let refused = nowhere.put("x", bytes(5)).await;
    assert!(
        matches!(refused, Err(Error::InvalidRoot { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_reported_after_bounded_retries() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open(local.path().to_str().unwrap()).unwrap();
    storage.put("file", bytes(1)).await.unwrap();
    assert!(matches!(
        storage.put("file/below", bytes(1)).await,
        Err(Error::Unavailable { .. })
    ));
    let missing = local.path().join("missing");
    assert!(matches!(
        storage.put_file("x", &missing).await,
        Err(Error::Local { .. })
    ));
}

#[test]
fn roots_are_normalised_or_refused() {
    let root = |text: &str| ObjectStorage::open(text).map(|storage| storage.root().to_owned());
    assert_eq!(root("s3://bucket/a/b/").unwrap(), "s3://bucket/a/b");
    assert_eq!(root("s3a://bucket").unwrap(), "s3://bucket");
    assert_eq!(root("memory:///name/").unwrap(), "memory:///name");
    for bad in [
        "",
        "s3:///a",
        "file://host/a",
        "gs://bucket/a",
        "s3://bucket/a//b",
    ] {
        assert!(matches!(root(bad), Err(Error::InvalidRoot { .. })), "{bad}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_yet_fails_each_request_until_it_can() {
    let local = tempfile::tempdir().unwrap();
    let in_the_way = local.path().join("in the way");
    fs::write(&in_the_way, "a file").unwrap();
    let root = in_the_way.join("checkpoints");
    let storage = ObjectStorage::open(root.to_str().unwrap()).unwrap();
    assert!(storage.put("a/b", bytes(10)).await.is_err());

    fs::remove_file(&in_the_way).unwrap();
    storage.put("a/b", bytes(10)).await.unwrap();
    assert_eq!(storage.get("a/b").await.unwrap(), bytes(10));
    assert!(root.join("a/b").is_file());
    assert_eq!(storage.list("").await.unwrap(), [("a/b".to_owned(), 10)]);
    let again = ObjectStorage::open(storage.root()).unwrap();
    assert_eq!(again.list("").await.unwrap(), [("a/b".to_owned(), 10)]);
}
