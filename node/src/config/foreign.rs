//! Settings of Flink that Flott does not have: passed over with a word of explanation, or refused where passing them
//! over would leave a user with less than was asked for.

/// What to do with a setting that only Flink has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It means nothing here; the text says why.
    Ignore(&'static str),
    /// Without it the user would be surprised; the text says what to do.
    Refuse(&'static str),
}

use Foreign::{Ignore, Refuse};

const JVM: &str =
    "there is no Java heap; keyed state is bounded by taskmanager.memory.managed.size";
const RAFT: &str = "the JobManagers form a Raft group of their own and need no ZooKeeper; list them in high-availability.jobmanager.addresses";
const ALWAYS: &str = "Flott does so always";
const KEYSTORE: &str = "keys are PEM files; name them in security.ssl.internal.cert and security.ssl.internal.key (`openssl pkcs12` takes a keystore apart)";
const TRUSTSTORE: &str = "trusted certificates are a PEM file; name it in security.ssl.internal.ca (`openssl pkcs12` takes a truststore apart)";
const RPC: &str = "Flott has its own RPC with its own limits";

/// Key, or beginning of keys if it ends with a dot, and what to do.
const TABLE: &[(&str, Foreign)] = &[
    ("jobmanager.heap.", Ignore(JVM)),
    ("taskmanager.heap.", Ignore(JVM)),
    ("jobmanager.memory.", Ignore(JVM)),
    ("taskmanager.memory.", Ignore(JVM)),
    ("env.java.", Ignore(JVM)),
    ("classloader.", Ignore("there are no Java classes to load")),
    ("high-availability", Ignore(RAFT)),
    ("high-availability.type", Ignore(RAFT)),
    ("high-availability.zookeeper.", Ignore(RAFT)),
    ("zookeeper.", Ignore(RAFT)),
    ("recovery.", Ignore(RAFT)),
    (
        "high-availability.storageDir",
        Ignore("job metadata is in the Raft log of the JobManagers"),
    ),
    (
        "jobmanager.bind-host",
        Ignore("a JobManager listens on jobmanager.rpc.address"),
    ),
    (
        "taskmanager.bind-host",
        Ignore("a TaskManager listens on taskmanager.host"),
    ),
    (
        "jobmanager.execution.failover-strategy",
        Ignore("a failure restarts the job's pipeline from its last checkpoint"),
    ),
    (
        "rest.address",
        Ignore("the HTTP port listens on rest.bind-address"),
    ),
    ("web.", Ignore("Flott's HTTP port has no such setting")),
    ("historyserver.", Ignore("Flott has no history server")),
    ("blob.", Ignore("Flott ships no jars")),
    ("akka.", Ignore(RPC)),
    ("pekko.", Ignore(RPC)),
    (
        "taskmanager.network.",
        Ignore("buffers between tasks are sized by Flott itself"),
    ),
    (
        "metrics.",
        Ignore("Prometheus metrics are served at /metrics of rest.port"),
    ),
    (
        "state.backend.",
        Ignore("Flott sizes RocksDB itself; checkpoints are always incremental"),
    ),
    ("execution.checkpointing.incremental", Ignore(ALWAYS)),
    (
        "execution.checkpointing.mode",
        Ignore("checkpoints are always exactly-once"),
    ),
    (
        "execution.checkpointing.max-concurrent-checkpoints",
        Ignore("one checkpoint is taken at a time"),
    ),
    (
        "execution.checkpointing.unaligned",
        Refuse("barriers are always aligned; remove the key"),
    ),
    (
        "execution.checkpointing.unaligned.",
        Refuse("barriers are always aligned; remove the key"),
    ),
    (
        "security.ssl.",
        Refuse(
            "TLS is one for processes and clients; set security.ssl.internal.enabled, .cert, .key and .ca",
        ),
    ),
    ("security.ssl.internal.keystore", Refuse(KEYSTORE)),
    ("security.ssl.internal.keystore-password", Refuse(KEYSTORE)),
    ("security.ssl.internal.keystore-type", Refuse(KEYSTORE)),
    ("security.ssl.internal.key-password", Refuse(KEYSTORE)),
    ("security.ssl.internal.truststore", Refuse(TRUSTSTORE)),
    (
        "security.ssl.internal.truststore-password",
        Refuse(TRUSTSTORE),
    ),
    ("security.ssl.internal.truststore-type", Refuse(TRUSTSTORE)),
    ("security.ssl.protocol", Ignore("it is always TLS 1.3")),
    (
        "security.ssl.algorithms",
        Ignore("it is always the suites of TLS 1.3"),
    ),
    (
        "security.ssl.verify-hostname",
        Ignore("host names are always checked"),
    ),
    (
        "security.ssl.rest.authentication-enabled",
        Ignore("clients of the RPC port always show a certificate, those of the HTTP port never"),
    ),
    (
        "security.kerberos.",
        Refuse("there is no Kerberos login; remove the key"),
    ),
];

/// What to do with `key`, if Flink has it and Flott does not. The longest entry that fits decides.
pub(super) fn find(key: &str) -> Option<Foreign> {
    let fits =
        |pattern: &str| pattern == key || (pattern.ends_with('.') && key.starts_with(pattern));
    let best = TABLE
        .iter()
        .filter(|(pattern, _)| fits(pattern))
        .max_by_key(|(pattern, _)| pattern.len());
    best.map(|(_, foreign)| *foreign)
}
