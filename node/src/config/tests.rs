//! Properties of [`Configuration`] as its users see them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flott_decoders::Seeds;

use super::*;

fn yaml(text: &str) -> Result<Configuration, ConfigError> {
    Configuration::from_yaml(text, "config.yaml")
}

#[test]
fn defaults_hold_where_nothing_is_set() {
    let configuration = Configuration::default();
    assert_eq!(
        configuration.get(&options::JOBMANAGER_RPC_PORT).unwrap(),
        6123
    );
    assert_eq!(
        configuration.get(&options::CHECKPOINT_INTERVAL).unwrap(),
        Duration::from_secs(10)
    );
    assert_eq!(
        configuration.get(&options::MANAGED_MEMORY).unwrap(),
        MemorySize(256 << 20)
    );
    assert_eq!(
        configuration.get(&options::RESTART_STRATEGY).unwrap(),
        RestartStrategyType::ExponentialDelay
    );
    assert_eq!(
        configuration.get(&options::RESTART_EXP_ATTEMPTS).unwrap(),
        None
    );
    assert_eq!(
        configuration.get(&options::RAFT_DIR).unwrap(),
        PathBuf::from("./flott-data/jobmanager")
    );
    assert!(!configuration.is_set(&options::JOBMANAGER_RPC_PORT));
    configuration.validate().unwrap();
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let error = yaml("parallelism.default: 2\ntaskmanager:\n  numberOfTaskSlot: 4\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.yaml line 3: unknown configuration key `taskmanager.numberOfTaskSlot`; \
         did you mean `taskmanager.numberOfTaskSlots`?"
    );
    let error = yaml("colour: red\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.yaml line 1: unknown configuration key `colour`; `flott config` lists all keys"
    );
    let error = Configuration::from_overrides(["heartbeat.intervall=1 s"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "-D: unknown configuration key `heartbeat.intervall`; did you mean `heartbeat.interval`?"
    );
}

#[test]
fn an_invalid_value_is_named_with_key_origin_and_what_is_expected() {
    let configuration = yaml("\nheartbeat.interval: soon\n").unwrap();
    let expected = "config.yaml line 2: `heartbeat.interval: soon` is not valid, \
                    expected a duration such as `10 s`, `500ms`, `1 min` or `PT10S`";
    assert_eq!(
        configuration
            .get(&options::HEARTBEAT_INTERVAL)
            .unwrap_err()
            .to_string(),
        expected
    );
    assert_eq!(configuration.validate().unwrap_err().to_string(), expected);
}

#[test]
fn later_layers_win() {
    let file = yaml("parallelism.default: 2\ntaskmanager.numberOfTaskSlots: 3\n").unwrap();
    let flags = Configuration::from_overrides(["parallelism.default=4", "parallelism.default = 5"])
        .unwrap();
    let merged = file.merge(flags);
    assert_eq!(merged.get(&options::PARALLELISM).unwrap(), 5);
    assert_eq!(merged.get(&options::TASK_SLOTS).unwrap(), 3);
    let origins: Vec<_> = merged
        .iter()
        .map(|(key, _, origin)| (key, origin.to_string()))
        .collect();
    assert_eq!(
        origins,
        [
            ("parallelism.default", "-D".to_owned()),
            (
                "taskmanager.numberOfTaskSlots",
                "config.yaml line 2".to_owned()
            )
        ]
    );
}

#[test]
fn older_names_are_understood_with_a_warning() {
    let cases = [
        (
            "state.checkpoints.dir",
            "file:///c",
            "execution.checkpointing.dir",
        ),
        (
            "state.savepoints.dir",
            "file:///s",
            "execution.checkpointing.savepoint-dir",
        ),
        (
            "state.checkpoints.num-retained",
            "3",
            "execution.checkpointing.num-retained",
        ),
        ("restart-strategy", "fixed-delay", "restart-strategy.type"),
        (
            "zookeeper.path.namespace",
            "c1",
            "high-availability.cluster-id",
        ),
        ("taskmanager.tmp.dirs", "/t", "io.tmp.dirs"),
        ("web.port", "8081", "rest.port"),
    ];
    for (old, value, new) in cases {
        let configuration = yaml(&format!("{old}: {value}\n")).unwrap();
        assert_eq!(
            configuration.to_map(),
            BTreeMap::from([(new.to_owned(), value.to_owned())]),
            "{old}"
        );
        let [warning] = configuration.warnings() else {
            panic!("{old}: {:?}", configuration.warnings())
        };
        assert!(
            warning.contains(old) && warning.contains(new) && warning.contains("line 1"),
            "{warning}"
        );
    }
}

#[test]
fn a_key_under_two_names_is_an_error() {
    let error = yaml("state.checkpoints.dir: /a\nexecution.checkpointing.dir: /b\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.yaml line 2: `execution.checkpointing.dir` is set twice (first in config.yaml line 1); keep one of them"
    );
}

#[test]
fn what_only_flink_has_is_passed_over_or_refused_with_a_reason() {
    let text = "jobmanager.heap.size: 1024m\nhigh-availability: zookeeper\n\
                high-availability.zookeeper.quorum: z1:2181\nstate.backend.incremental: true\njobmanager.bind-host: 0.0.0.0\n";
    let configuration = yaml(text).unwrap();
    assert!(configuration.to_map().is_empty());
    assert_eq!(configuration.warnings().len(), 5);
    assert!(configuration.warnings()[2].contains("high-availability.jobmanager.addresses"));
    let error = yaml("security.ssl.internal.keystore: /k.jks\n").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("security.ssl.internal.cert"), "{text}");
    let error = yaml("security.ssl.rest.keystore: /k.jks\n").unwrap_err();
    assert!(error.to_string().contains("TLS is one"), "{error}");
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let error = yaml("heartbeat.interval: 5 s\n")
        .unwrap()
        .validate()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "default: `heartbeat.timeout: 3 s` must be greater than heartbeat.interval (5 s)"
    );
    let error = yaml("security.ssl.rest.enabled: true\n")
        .unwrap()
        .validate()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("security.ssl.internal.enabled: true"),
        "{text}"
    );
    let error = yaml("taskmanager.numberOfTaskSlots: 0\n")
        .unwrap()
        .validate()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.yaml line 1: `taskmanager.numberOfTaskSlots: 0` must be at least 1"
    );
}

#[test]
fn a_map_survives_the_way_to_text_and_back() {
    let map = BTreeMap::from([
        (
            "execution.checkpointing.interval".to_owned(),
            "1 s".to_owned(),
        ),
        ("restart-strategy.type".to_owned(), "none".to_owned()),
    ]);
    let configuration = Configuration::from_map(&map).unwrap();
    assert_eq!(configuration.to_map(), map);
    assert_eq!(
        configuration.get(&options::RESTART_STRATEGY).unwrap(),
        RestartStrategyType::None
    );
    assert!(Configuration::from_map([("no.such.key", "1")]).is_err());
}

#[test]
fn a_flag_without_a_value_is_refused() {
    let error = Configuration::from_overrides(["parallelism.default"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "-D parallelism.default: expected key=value"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Configuration::load(std::path::Path::new("/no/such/config.yaml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the configuration file /no/such/config.yaml"
    );
}

#[test]
fn what_the_program_sets_is_read_back() {
    let mut configuration = Configuration::default();
    configuration.set(&options::RAFT_NODE_ID, 7);
    configuration.set(&options::HEARTBEAT_INTERVAL, "250 ms");
    assert_eq!(configuration.get(&options::RAFT_NODE_ID).unwrap(), 7);
    assert_eq!(
        configuration.get(&options::HEARTBEAT_INTERVAL).unwrap(),
        Duration::from_millis(250)
    );
}

#[test]
fn any_text_is_a_configuration_or_refused_with_its_place() {
    let seeds = [
        "jobmanager:\n  rpc.port: 6123\n  raft:\n    peers: [a:1, b:2]\n",
        "execution.checkpointing.interval: 10 s # often\nstate.backend.type: hashmap\n",
        "taskmanager.numberOfTaskSlots: 4\njobmanager.memory.process.size: 1600m\n",
        "? {a: &x [1, 2]}\n: *x\n---\nb: !!str |\n  text\n",
    ];
    let keys = options::ALL.iter().map(|option| option.key);
    let words = keys.chain([
        ": ", "\n  ", "- ", "{", "[", "&a ", "*a", "|\n", "\"", "'", "null", "~", "1e9 d",
    ]);
    flott_decoders::check!(Seeds::of(seeds).words(words).inputs(300)).for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        match flott_decoders::told(yaml(&text)) {
            Ok(read) => {
                let again = Configuration::from_map(&read.to_map()).unwrap();
                assert_eq!(again.to_map(), read.to_map());
                drop(read.validate());
            }
            Err(error) => assert!(error.to_string().contains("config.yaml"), "{error}"),
        }
    });
}

#[test]
fn any_text_is_a_value_or_none() {
    let seeds = [
        "10 s",
        "64mb",
        "1.5 h",
        "true",
        "exponential-delay",
        "a:1,b:2",
        "-1",
        "99999999999999999999 d",
    ];
    let words = [
        "ms",
        "min",
        "d",
        "tb",
        "18446744073709551615",
        "e308",
        "∞",
        " ",
    ];
    flott_decoders::check!(Seeds::of(seeds).words(words).inputs(500)).for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        for option in options::ALL {
            let is_value = flott_decoders::kind((option.check)(&text));
            assert_eq!(
                (option.check)(&format!(" {text} ")),
                is_value,
                "{} {text:?}",
                option.key
            );
        }
    });
}
