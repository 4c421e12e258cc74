//! Handshakes over loopback: who is let in, who is not, and what each side hears of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::authority::{Authority, Issued, Validity};
use super::{Connection, Files, Peer, Protocol, Role, TlsError, Transport, Whom};
use crate::clock::ManualClock;
use crate::config::Configuration;
use crate::{SharedClock, SystemClock, Tasks};

const PATIENCE: Duration = Duration::from_secs(20);

fn validity(days: u32) -> Validity {
    let now_ms = SystemClock::shared().now_ms();
    Validity { now_ms, days }
}

/// A CA in a directory that goes with it.
struct Ca {
    _dir: TempDir,
    authority: Authority,
}

impl Ca {
    fn of(cluster: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), cluster, validity(1)).unwrap();
        Self {
            _dir: dir,
            authority,
        }
    }

    fn issue(&self, role: Role, name: &str, host: &str) -> Issued {
        let hosts = [host.to_owned()];
        self.authority
            .issue(role, name, &hosts, validity(1))
            .unwrap()
    }

    fn transport(&self, role: Role, name: &str) -> Transport {
        Transport::tls(self.issue(role, name, "127.0.0.1").files).unwrap()
    }
}

/// What the two sides make of a connection. The client also sends a byte and waits for it to come back, since only then
/// it knows what the server thinks of its certificate.
async fn meet(
    client: &Transport,
    server: &Transport,
    whom: Whom,
) -> (io::Result<Connection>, io::Result<Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let protocol = match whom {
        Whom::TaskManager => Protocol::Data,
        Whom::JobManager | Whom::Member => Protocol::Http2,
    };
    let serving = async {
        let (stream, _) = listener.accept().await?;
        let mut connection = server.accept(stream, protocol).await?;
        let byte = connection.read_u8().await?;
        connection.write_u8(byte).await?;
        connection.flush().await?;
        Ok(connection)
    };
    let dialling = async {
        let mut connection = client.connect(&address, whom).await?;
        connection.write_u8(7).await?;
        connection.flush().await?;
        connection.read_u8().await?;
        Ok(connection)
    };
    let both = async { tokio::join!(dialling, serving) };
    tokio::time::timeout(PATIENCE, both).await.unwrap()
}

fn text<T>(result: io::Result<T>) -> String {
    result.err().map(|error| error.to_string()).unwrap()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = Ca::of("c");
    let (server, client) = (
        ca.transport(Role::JobManager, "127.0.0.1"),
        ca.transport(Role::Client, "ada"),
    );
    let (client, server) = meet(&client, &server, Whom::JobManager).await;
    let named = |connection: io::Result<Connection>| {
        connection.unwrap().peer().identity().unwrap().to_string()
    };
    assert_eq!(named(client), "flott://c/jobmanager/127.0.0.1");
    assert_eq!(named(server), "flott://c/client/ada");
}

#[tokio::test]
async fn without_tls_nobody_has_a_name() {
    let plain = Transport::loopback();
    let (client, server) = meet(&plain, &plain, Whom::Member).await;
    assert_eq!(client.unwrap().peer(), &Peer::PlainText);
    assert_eq!(server.unwrap().peer(), &Peer::PlainText);
}

#[tokio::test]
async fn whoever_is_not_meant_is_told_why_on_the_side_that_notices() {
    let (ca, other) = (Ca::of("c"), Ca::of("c"));
    let member = |ca: &Ca, name: &str| ca.transport(Role::JobManager, name);
    let server = member(&ca, "127.0.0.1");
    let client = ca.transport(Role::Client, "ada");
    let foreign = other.transport(Role::Client, "eve");
    let elsewhere = Transport::tls(ca.issue(Role::JobManager, "h9", "h9").files).unwrap();

    let (told, noticed) = meet(&foreign, &server, Whom::JobManager).await;
    // It trusts another CA, so it is the first to notice.
    assert!(text(told).contains("not issued by a CA in"));
    assert!(text(noticed).contains("UnknownCA"));

    // One that trusts our CA, and shows a certificate of another.
    let ours = ca.issue(Role::Client, "half", "x").files;
    let theirs = other.issue(Role::Client, "half", "x").files;
    let dir = tempfile::tempdir().unwrap();
    let both = dir.path().join("ca.pem");
    let pems = [&ours.ca, &theirs.ca].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&both, pems.concat()).unwrap();
    let half = Transport::tls(Files { ca: both, ..theirs }).unwrap();
    let (told, noticed) = meet(&half, &server, Whom::JobManager).await;
    let told = text(told);
    assert!(
        told.contains("refuses the certificate of this process"),
        "{told}"
    );
    let noticed = text(noticed);
    assert!(noticed.contains("not issued by a CA in"), "{noticed}");

    let (told, _) = meet(&client, &elsewhere, Whom::JobManager).await;
    let told = text(told);
    assert!(told.contains("127.0.0.1") && told.contains("h9"), "{told}");

    let (told, _) = meet(
        &client,
        &ca.transport(Role::TaskManager, "tm"),
        Whom::JobManager,
    )
    .await;
    let told = text(told);
    assert!(told.contains("that of flott://c/taskmanager/tm"), "{told}");

    let (told, _) = meet(&server, &member(&ca, "127.0.0.1:1"), Whom::Member).await;
    let told = text(told);
    assert!(told.contains("flott://c/jobmanager/127.0.0.1:1"), "{told}");
}

#[tokio::test]
async fn a_ca_that_two_clusters_share_does_not_mix_them_up() {
    // All trust both: as if it were one CA.
    let (ca, other) = (Ca::of("c"), Ca::of("d"));
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("both.pem");
    let pems = [ca.authority.certificate(), other.authority.certificate()]
        .map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&bundle, pems.concat()).unwrap();
    let trusting = |files: Files| {
        Transport::tls(Files {
            ca: bundle.clone(),
            ..files
        })
        .unwrap()
    };
    let server = trusting(ca.issue(Role::JobManager, "127.0.0.1", "127.0.0.1").files);
    let client = other.issue(Role::Client, "eve", "x");
    let (told, _) = meet(&trusting(client.files), &server, Whom::JobManager).await;
    let told = text(told);
    assert!(told.contains("of another cluster than d"), "{told}");
}

#[tokio::test]
async fn plain_text_and_tls_do_not_understand_each_other_and_say_so() {
    let ca = Ca::of("c");
    let server = ca.transport(Role::JobManager, "127.0.0.1");
    let client = ca.transport(Role::Client, "ada");
    let plain = Transport::loopback();

    let (_, noticed) = meet(&plain, &server, Whom::JobManager).await;
    let noticed = text(noticed);
    assert!(
        noticed.contains("plain text to a port for TLS"),
        "{noticed}"
    );

    // A server that says what a server of HTTP/2 says.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream
    };
    let (told, _stream) = tokio::join!(client.connect(&address, Whom::JobManager), serving);
    let told = text(told);
    assert!(
        told.contains(&address) && told.contains("does not speak TLS"),
        "{told}"
    );
}

#[tokio::test]
async fn a_data_connection_is_no_grpc_connection() {
    let ca = Ca::of("c");
    let tm = ca.transport(Role::TaskManager, "tm");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        tm.accept(stream, Protocol::Http2).await
    };
    let (told, _) = tokio::join!(tm.connect(&address, Whom::TaskManager), serving);
    let told = text(told);
    assert!(told.contains("NoApplicationProtocol"), "{told}");
}

/// Somebody who says nothing does not keep others waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_hold_nobody_up() {
    let ca = Ca::of("c");
    let server = ca.transport(Role::JobManager, "127.0.0.1");
    let client = ca.transport(Role::Client, "ada");
    let (tasks, clock) = (Tasks::default(), SystemClock::shared());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut incoming = server.incoming(listener, Protocol::Http2, &tasks, &clock);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let connecting = client.connect(&address, Whom::JobManager);
    let accepted = futures::StreamExt::next(&mut incoming);
    let both = async { tokio::join!(connecting, accepted) };
    // Less than the deadline for a handshake.
    let begun = clock.monotonic();
    let (connected, accepted) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert!(connected.is_ok() && accepted.unwrap().is_ok());
    assert!(clock.monotonic() - begun < Duration::from_secs(4));
    drop((silent, incoming));
    tasks.shutdown(PATIENCE).await.unwrap();
}

fn refusal(files: Files) -> String {
    let error = Transport::tls(files).expect_err("it is of no use");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error} {}", source.unwrap_or_default())
}

#[test]
fn files_that_do_not_fit_are_refused_with_the_reason() {
    let (ca, other) = (Ca::of("c"), Ca::of("c"));
    let a = ca.issue(Role::JobManager, "a", "a").files;
    let b = ca.issue(Role::JobManager, "b", "b").files;
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.pem");
    std::fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let missing = dir.path().join("missing.pem");
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = a.clone();
        change(&mut files);
        refusal(files)
    };
    for (refused, reason) in [
        (
            with(&|files| files.key = b.key.clone()),
            "does not belong to the key",
        ),
        (
            with(&|files| files.ca = other.authority.certificate()),
            "not issued by a CA in",
        ),
        (
            with(&|files| files.certificate = missing.clone()),
            "cannot read",
        ),
        (
            with(&|files| files.certificate = empty.clone()),
            "no certificate in PEM",
        ),
        (
            with(&|files| files.certificate = garbage.clone()),
            "malformed",
        ),
        (with(&|files| files.ca = garbage.clone()), "not usable"),
        (
            with(&|files| files.key = empty.clone()),
            "no private key in PEM",
        ),
        (
            with(&|files| files.certificate = ca.authority.certificate()),
            "no Flott identity",
        ),
    ] {
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
}

#[test]
fn an_expired_certificate_is_refused_and_one_that_expires_is_read_right() {
    let ca = Ca::of("c");
    let past = Validity {
        now_ms: SystemClock::shared().now_ms() - 3 * 86_400_000,
        days: 1,
    };
    let expired = ca
        .authority
        .issue(Role::Client, "late", &[], past)
        .unwrap_err();
    assert!(expired.to_string().contains("expired"), "{expired}");
    let issued = ca.issue(Role::Client, "ada", "x");
    let material = super::Material::load(&issued.files).unwrap();
    assert_eq!(material.expires, issued.expires);
    assert!(material.ca_expires <= issued.expires);
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_and_nothing_is_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let ca = Ca::of("c");
    let issued = ca.issue(Role::JobManager, "h1:6123", "h1");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ca.authority.key()), 0o600);
    assert_eq!(mode(&issued.files.key), 0o600);
    assert!(issued.files.certificate.ends_with("jobmanager-h1_6123.pem"));
    let again = ca
        .authority
        .issue(Role::JobManager, "h1:6123", &[], validity(1));
    assert!(matches!(again, Err(TlsError::Exists { .. })), "{again:?}");
    let dir = ca.authority.certificate();
    let again = Authority::create(dir.parent().unwrap(), "c", validity(1));
    assert!(matches!(again, Err(TlsError::Exists { .. })), "{again:?}");
    let reopened = Authority::open(dir.parent().unwrap()).unwrap();
    assert_eq!(reopened.cluster(), "c");
    assert!(
        reopened
            .issue(Role::Client, "a b", &[], validity(1))
            .is_err()
    );
    assert!(
        reopened
            .issue(
                Role::TaskManager,
                "tm",
                &["no host".to_owned()],
                validity(1)
            )
            .is_err()
    );
}

#[test]
fn a_process_needs_a_certificate_of_its_role_and_all_three_files() {
    let ca = Ca::of("c");
    let files = ca.issue(Role::JobManager, "a", "a").files;
    let path = |path: &Path| path.display().to_string();
    let mut settings = vec![
        ("security.ssl.internal.enabled", "true".to_owned()),
        ("security.ssl.internal.ca", path(&files.ca)),
        ("security.ssl.internal.cert", path(&files.certificate)),
    ];
    let read = |settings: &[(&str, String)], role| {
        let configuration = Configuration::from_map(settings.iter().cloned()).unwrap();
        Transport::from_configuration(&configuration, role).map(|transport| transport.is_tls())
    };
    let error = read(&settings, Role::JobManager).unwrap_err();
    assert!(
        error.to_string().contains("`security.ssl.internal.key`"),
        "{error}"
    );
    settings.push(("security.ssl.internal.key", path(&files.key)));
    assert!(read(&settings, Role::JobManager).unwrap());
    let error = read(&settings, Role::TaskManager).unwrap_err();
    assert!(error.to_string().contains("is a taskmanager"), "{error}");
    assert!(!read(&[], Role::Client).unwrap());
}

#[test]
fn plain_text_listens_beyond_this_machine_only_if_that_is_said() {
    let (here, mapped, everywhere, other) = (
        "127.0.0.1:1".parse().unwrap(),
        "[::ffff:127.0.0.1]:1".parse().unwrap(),
        "0.0.0.0:1".parse().unwrap(),
        "10.0.0.1:1".parse().unwrap(),
    );
    let key = "jobmanager.rpc.address";
    for address in [here, mapped] {
        Transport::loopback().check_listener(address, key).unwrap();
    }
    for address in [everywhere, other] {
        let refused = Transport::loopback().check_listener(address, key);
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains(key) && refused.contains("--insecure"),
            "{refused}"
        );
        Transport::insecure().check_listener(address, key).unwrap();
    }
    let ca = Ca::of("c");
    let tls = ca.transport(Role::JobManager, "a");
    tls.check_listener(other, key).unwrap();
    tls.check_own_host("127.0.0.1", key).unwrap();
    let refused = tls.check_own_host("h9", key).unwrap_err().to_string();
    assert!(refused.contains("--host h9"), "{refused}");
    assert!(
        tls.without_tls()
            .check_listener(other, "rest.bind-address")
            .is_err()
    );
}

#[tokio::test]
async fn renewed_files_are_used_for_new_connections_and_bad_ones_are_not() {
    let ca = Ca::of("c");
    let issued = ca.issue(Role::JobManager, "127.0.0.1", "127.0.0.1");
    let server = Transport::tls(issued.files.clone()).unwrap();
    let client = ca.transport(Role::Client, "ada");
    let (before, at_server) = meet(&client, &server, Whom::JobManager).await;
    let (mut before, mut at_server) = (before.unwrap(), at_server.unwrap());
    assert!(!server.reload().unwrap(), "nothing has changed");

    // Half of it, then garbage, then somebody else's: nothing of it is taken.
    let good = std::fs::read(&issued.files.certificate).unwrap();
    let other = ca.issue(Role::JobManager, "other", "127.0.0.1").files;
    let stranger = Ca::of("c");
    let foreign = stranger
        .issue(Role::JobManager, "127.0.0.1", "127.0.0.1")
        .files;
    let read = |path: &Path| std::fs::read(path).unwrap();
    for bad in [
        good[..good.len() / 2].to_vec(),
        b"x".to_vec(),
        read(&foreign.certificate),
    ] {
        std::fs::write(&issued.files.certificate, bad).unwrap();
        server.reload().unwrap_err();
        meet(&client, &server, Whom::JobManager).await.0.unwrap();
    }
    std::fs::write(&issued.files.certificate, read(&other.certificate)).unwrap();
    let key = read(&issued.files.key);
    std::fs::write(&issued.files.key, read(&other.key)).unwrap();
    let refused = server.reload().unwrap_err();
    assert!(
        matches!(refused, TlsError::OtherIdentity { .. }),
        "{refused}"
    );
    std::fs::write(&issued.files.key, key).unwrap();

    let hosts = ["127.0.0.1".to_owned()];
    let renewed = ca
        .authority
        .renew(Role::JobManager, "127.0.0.1", &hosts, validity(2))
        .unwrap();
    assert!(server.reload().unwrap());
    assert!(renewed.expires > issued.expires);
    meet(&client, &server, Whom::JobManager).await.0.unwrap();

    // What stands goes on.
    before.write_u8(9).await.unwrap();
    before.flush().await.unwrap();
    assert_eq!(at_server.read_u8().await.unwrap(), 9);
}

/// The file is looked at when the time has come, without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_takes_renewed_certificates_up_by_itself() {
    let ca = Ca::of("c");
    let issued = ca.issue(Role::Client, "ada", "x");
    let transport = Transport::tls(issued.files).unwrap();
    let clock = ManualClock::new(SystemClock::shared().now_ms());
    let shared: SharedClock = std::sync::Arc::new(clock.clone());
    let tasks = Tasks::default();
    transport.watch(Duration::from_secs(5), &tasks, &shared);
    let renewed = ca
        .authority
        .renew(Role::Client, "ada", &[], validity(3))
        .unwrap();
    let super::Mode::Tls(tls) = &transport.0 else {
        panic!("no TLS")
    };
    let taken = async {
        while tls.current.load().expires != renewed.expires {
            clock.advance(Duration::from_secs(5));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
    tasks.shutdown(PATIENCE).await.unwrap();
}
