//! What the command line understands.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace()).map(|arguments| arguments.command)
}

#[test]
fn the_definition_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn run_takes_the_flags_of_flink() {
    let line = "flott run -f job.sql -d -p 4 -s /sp -n --name x -z team -m a:1,b:2 -o json -D k=v -Dk2=v2 --timeout 5s";
    let Command::Run(run) = parse(line).unwrap() else {
        panic!("not run")
    };
    assert_eq!(
        (run.file, run.detached, run.parallelism),
        (PathBuf::from("job.sql"), true, Some(4))
    );
    assert_eq!(run.from_savepoint.as_deref(), Some("/sp"));
    assert!(run.allow_non_restored_state);
    assert_eq!(run.namespace.namespace, "team");
    let cluster = run.namespace.cluster;
    assert_eq!(cluster.jobmanager, ["a:1", "b:2"]);
    assert_eq!(cluster.output, OutputFormat::Json);
    assert_eq!(cluster.overrides.overrides, ["k=v", "k2=v2"]);
    assert_eq!(cluster.timeout, Duration::from_secs(5));
}

#[test]
fn defaults_are_those_of_the_help() {
    let Command::Local(local) = parse("flott local --dir d").unwrap() else {
        panic!("not local")
    };
    assert_eq!(
        (
            local.jobmanagers,
            local.taskmanagers,
            local.slots,
            local.respawn
        ),
        (None, 2, 2, false)
    );
    let Command::List(list) = parse("flott list").unwrap() else {
        panic!("not list")
    };
    assert_eq!(list.namespace.namespace, "default");
    assert_eq!(list.namespace.cluster.timeout, Duration::from_secs(30));
}

#[test]
fn a_client_may_name_its_cluster() {
    let Command::List(list) = parse("flott list --cluster-id prod-1").unwrap() else {
        panic!("not list")
    };
    let named = list.namespace.cluster.cluster_id;
    assert_eq!(named.as_ref().map(ClusterId::as_str), Some("prod-1"));
    for line in [
        "flott list --cluster-id a/b",
        "flott kv get k --cluster-id=",
    ] {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn the_group_is_operated_by_ids_and_addresses() {
    let line = "flott cluster members replace 3 h4:6123 --catch-up-timeout 1min -m a:1";
    let Command::Cluster(ClusterCommand::Members(MembersCommand::Replace(replace))) =
        parse(line).unwrap()
    else {
        panic!("not replace")
    };
    assert_eq!((replace.id, replace.address.as_str()), (3, "h4:6123"));
    assert_eq!(replace.catch_up_timeout, Duration::from_secs(60));
    let Command::Cluster(ClusterCommand::TransferLeader(transfer)) =
        parse("flott cluster transfer-leader").unwrap()
    else {
        panic!("not transfer-leader")
    };
    assert_eq!(transfer.id, None);
}

#[test]
fn certificates_and_what_a_client_shows_are_named_by_files() {
    let line = "flott certs issue jobmanager h1:6123 --dir d --host h1,10.0.0.1 --renew";
    let Command::Certs(certs) = parse(line).unwrap() else {
        panic!("not certs")
    };
    assert_eq!(certs.dir, PathBuf::from("d"));
    let CertsCommand::Issue(issue) = certs.command else {
        panic!("not issue")
    };
    assert_eq!(
        (issue.name.as_str(), issue.days, issue.renew),
        ("h1:6123", 365, true)
    );
    assert_eq!(issue.host, ["h1", "10.0.0.1"]);
    let line = "flott list --tls-ca a --tls-cert b --tls-key c";
    let Command::List(list) = parse(line).unwrap() else {
        panic!("not list")
    };
    let security = list.namespace.cluster.security;
    assert_eq!(security.tls_key, Some(PathBuf::from("c")));
    assert!(!security.insecure);
}

#[test]
fn recovery_is_told_of_every_member() {
    let line =
        "flott cluster recover /a /b --survivor 3=7/12 --survivor 4=7/9 --lost 5 --yes -o json";
    let Command::Cluster(ClusterCommand::Recover(recover)) = parse(line).unwrap() else {
        panic!("not recover")
    };
    let elsewhere: Vec<_> = recover
        .survivor
        .iter()
        .map(|one| (one.id, one.last.to_string()))
        .collect();
    assert_eq!(elsewhere, [(3, "7/12".to_owned()), (4, "7/9".to_owned())]);
    assert_eq!((recover.lost, recover.dirs.len()), (vec![5], 2));
    assert!(recover.yes && !recover.group.fail_lost_jobs);
    assert_eq!(recover.group.output, OutputFormat::Json);
}

#[test]
fn bad_usage_is_refused_with_exit_code_2() {
    for line in [
        "flott",
        "flott dance",
        "flott run",
        "flott run -f x -p 0",
        "flott local",
        "flott local --dir d --jobmanagers 0",
        "flott info",
        "flott list -o xml",
        "flott list --timeout soon",
        "flott cluster members promote",
        "flott cluster members remove three",
        "flott cluster members replace 3",
        "flott cluster upgrade --to 0",
        "flott certs",
        "flott certs issue admin ada",
        "flott certs issue client",
        "flott certs init --days 0",
        "flott cluster backup",
        "flott cluster restore f --dir d",
        "flott cluster restore f --address h:1",
        "flott cluster recover",
        "flott cluster recover d --survivor 3",
        "flott cluster recover d --survivor 3=7",
        "flott cluster recover d --lost three",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
