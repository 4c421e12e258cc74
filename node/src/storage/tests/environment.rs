//! What S3 is told by the environment of a process.

use super::*;
use crate::testing::{ACCESS_KEY, BUCKET};

/// For the test below, which runs it in a process of its own: an environment belongs to a whole process.
#[tokio::test]
#[ignore = "needs a server that its environment names"]
async fn the_store_of_this_environment_keeps_the_promises() {
    let storage = ObjectStorage::open(&format!("s3://{BUCKET}")).unwrap();
    keeps_its_promises(&storage, &[1000]).await;
}

/// Whether the test above succeeds in this environment, and what it says.
async fn in_environment(variables: &[(&str, &str)]) -> (bool, String) {
    let name = "the_store_of_this_environment_keeps_the_promises";
    let test = format!("storage::tests::environment::{name}");
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &test])
        .env_remove("SSL_CERT_FILE")
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("1 test"), "it is not there: {said}");
    (output.status.success(), said)
}

#[tokio::test]
async fn endpoint_credentials_and_certificates_come_from_the_environment() {
    let server = S3Server::start_with_tls().await;
    let certificate = server.certificate_file();
    let variables = [
        ("AWS_ENDPOINT", server.url()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("SSL_CERT_FILE", certificate.to_str().unwrap()),
    ];
    let (works, said) = in_environment(&variables).await;
    assert!(works, "{said}");
    // An authority that nobody vouches for is not believed.
    let (works, said) = in_environment(&variables[..3]).await;
    assert!(!works && said.contains("UnknownIssuer"), "{said}");
}
