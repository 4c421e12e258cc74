//! `flott cluster status` and `flott cluster members list`: all members with their health.

use std::time::Duration;

use super::client;
use crate::args::{ClusterArgs, OutputFormat};
use crate::shapes::{ClusterStatus, Member, MemberList};
use crate::{Error, output};

const MEMBER_COLUMNS: [&str; 10] = [
    "JOBMANAGER",
    "ADDRESS",
    "ROLE",
    "HEALTH",
    "LAST LOG",
    "APPLIED",
    "LAG",
    "SNAPSHOT",
    "DISK FREE",
    "VERSION",
];

pub(super) async fn status(arguments: &ClusterArgs) -> Result<(), Error> {
    let status = ask(arguments).await?;
    match arguments.output {
        OutputFormat::Json => output::json(&status),
        OutputFormat::Table => print(status),
    }
    Ok(())
}

pub(super) async fn list(arguments: &ClusterArgs) -> Result<(), Error> {
    let list = MemberList::from(ask(arguments).await?);
    match arguments.output {
        OutputFormat::Json => output::json(&list),
        OutputFormat::Table => {
            print_members(list.members);
            print_group(
                list.feature_level,
                list.tolerated_failures,
                list.pending_change,
            );
        }
    }
    Ok(())
}

async fn ask(arguments: &ClusterArgs) -> Result<ClusterStatus, Error> {
    let status = client(arguments)?.status().await?;
    if status.pristine {
        output::note(
            "these JobManagers belong to no cluster yet; `flott cluster init -m …` makes one",
        );
    }
    Ok(ClusterStatus::from(status))
}

fn print(status: ClusterStatus) {
    let leader = status
        .leader
        .map_or("nobody at present".to_owned(), |leader| leader.to_string());
    output::line(&format!(
        "cluster {}, leader {leader}, epoch {}, term {}\n",
        status.cluster_id, status.epoch, status.term
    ));
    print_members(status.members);
    print_group(
        status.feature_level,
        status.tolerated_failures,
        status.pending_change,
    );
    output::line("");
    let taskmanagers = status.taskmanagers.into_iter().map(|tm| {
        vec![
            tm.id,
            tm.address,
            tm.slots.to_string(),
            tm.slots_free.to_string(),
        ]
    });
    output::table(
        &["TASKMANAGER", "ADDRESS", "SLOTS", "FREE"],
        taskmanagers.collect(),
        "no TaskManagers",
    );
}

fn print_members(members: Vec<Member>) {
    let rows = members.into_iter().map(row).collect();
    output::table(&MEMBER_COLUMNS, rows, "no JobManagers");
}

fn print_group(feature_level: u32, tolerated_failures: u32, pending_change: Option<String>) {
    if feature_level == 0 {
        return;
    }
    output::line(&format!(
        "\nfeature level {feature_level}; {}",
        match tolerated_failures {
            0 => "the group stops with the next voter that fails".to_owned(),
            1 => "one voter may fail".to_owned(),
            more => format!("{more} voters may fail"),
        }
    ));
    if let Some(change) = pending_change {
        output::line(&format!("under way: {change}"));
    }
}

fn row(member: Member) -> Vec<String> {
    let unknown = || "-".to_owned();
    let snapshot = match (member.snapshot_index, member.snapshot_age_ms) {
        (Some(index), Some(age)) => format!("{index} ({})", age_text(Duration::from_millis(age))),
        (Some(index), None) => index.to_string(),
        (None, _) => unknown(),
    };
    let disk = match (member.disk_free_bytes, member.disk_total_bytes) {
        (Some(free), Some(total)) => format!("{} of {}", size_text(free), size_text(total)),
        _ => unknown(),
    };
    let role = if member.role == "unreachable" && !member.voter {
        "unreachable learner".to_owned()
    } else {
        member.role
    };
    vec![
        member.id.to_string(),
        member.address,
        role,
        member.health,
        member.last_log_index.to_string(),
        member.applied_index.to_string(),
        member.lag.map_or_else(unknown, |lag| lag.to_string()),
        snapshot,
        disk,
        member.version.unwrap_or_else(unknown),
    ]
}

/// The largest unit that makes at least one of it.
fn size_text(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        Some((name, shift)) => format!("{} {name}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

/// Likewise.
fn age_text(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_the_unit_that_fits() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (79 << 30, "79 GiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size_text(bytes), text);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7200, "2 h"),
            (200_000, "2 d"),
        ] {
            assert_eq!(age_text(Duration::from_secs(seconds)), text);
        }
    }
}
