//! A cluster over TLS: a job runs and outlives its leader, and who has no certificate is told so.

use flott_chaos_tests::cluster::{flott, flott_binary};

use crate::alone;
use crate::job::{DEADLINE, RunningJob};

#[tokio::test]
async fn over_tls_the_leaders_death_restarts_no_task_either() -> anyhow::Result<()> {
    let _alone = alone().await;
    let job = RunningJob::paced(&["--tls"]).await?;
    let leader = job.cluster.leader(DEADLINE).await?;
    job.runs_on_without(&[leader]).await?;

    // Without a certificate, with half of what TLS needs, and beyond this machine.
    let addresses = job.cluster.addresses()?;
    let ask = async |arguments: &[&str]| flott(&flott_binary()?, arguments).await;
    let answer = ask(&["list", "--timeout", "2s", "-m", &addresses]).await?;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("security"), "{answer:?}");
    let answer = ask(&["list", "--tls-ca", "/no/such", "-m", &addresses]).await?;
    assert_eq!(answer.code, Some(2), "{answer:?}");
    assert!(answer.stderr.contains("--tls-cert"), "{answer:?}");
    let answer = ask(&["list", "-m", "192.0.2.1:6123"]).await?;
    assert!(answer.stderr.contains("--insecure"), "{answer:?}");

    let ended = job.finishes_exactly().await?;
    assert_eq!(ended["restarts"].as_u64(), Some(0), "{ended:#}");
    Ok(())
}

#[tokio::test]
async fn a_jobmanager_in_plain_text_that_others_could_reach_does_not_start() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let raft = format!("high-availability.raft.dir={}", directory.path().display());
    let arguments = [
        "jobmanager",
        "-D",
        "jobmanager.rpc.address=0.0.0.0",
        "-D",
        "jobmanager.rpc.port=0",
        "-D",
        &raft,
    ];
    let answer = flott(&flott_binary()?, &arguments).await?;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(
        answer.stderr.contains("jobmanager.rpc.address") && answer.stderr.contains("--insecure"),
        "{answer:?}"
    );
    Ok(())
}

#[tokio::test]
async fn certificates_are_made_once_and_say_how_to_use_them() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let dir = directory.path().join("certs").display().to_string();
    let certs = async |arguments: &[&str]| {
        let mut all = vec!["certs", "--dir", &dir];
        all.extend(arguments);
        flott(&flott_binary()?, &all).await
    };
    let early = certs(&["issue", "client", "ada"]).await?;
    assert_eq!(early.code, Some(1), "there is no CA yet: {early:?}");
    let made = certs(&["init", "--cluster", "prod"]).await?;
    assert_eq!(made.code, Some(0), "{made:?}");
    let again = certs(&["init"]).await?;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("nothing is overwritten"), "{again:?}");

    let issued = certs(&["issue", "jobmanager", "h1:6123", "-o", "json"]).await?;
    let json: serde_json::Value = serde_json::from_str(&issued.stdout)?;
    assert_eq!(json["identity"], "flott://prod/jobmanager/h1:6123");
    assert_eq!(json["hosts"], serde_json::json!(["h1"]));
    let key = json["key"].as_str().unwrap_or_default();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    let twice = certs(&["issue", "jobmanager", "h1:6123"]).await?;
    assert_eq!(twice.code, Some(1), "{twice:?}");
    let renewed = certs(&["issue", "jobmanager", "h1:6123", "--renew"]).await?;
    assert!(
        renewed.stdout.contains("security.ssl.internal.cert: "),
        "{renewed:?}"
    );
    let nowhere = certs(&["issue", "taskmanager", "*"]).await?;
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    Ok(())
}
