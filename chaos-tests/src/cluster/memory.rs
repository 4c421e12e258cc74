//! Little memory for one process: a group of the kernel's (cgroup) that has nobody else in it.
//!
//! ```text
//! ground ─► make ─► admit ─► relieve, every moment ─► dissolve: no limit, the process back home, the group gone
//! ```
//!
//! What a process has is not counted in the group that it comes into; what it takes from then on is, pages of files that it
//! reads and writes among it. Beyond the limit pages of files are taken back. If that is not enough, whoever wants more waits
//! up to two seconds each time by `memory.high` of version 2 of the kernel's groups. By `memory.limit_in_bytes` of version 1,
//! where the kernel's killer is switched off, only those wait who touch memory that they have been given: until
//! [`Group::relieve`] has moved the limit. A call to the kernel that needs memory of it fails there.
//!
//! What must stay true: nobody is killed for want of memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Begins the names of all groups of ours.
const PREFIX: &str = "flott-chaos-";

/// Which of the kernel's groups count memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The file with the limit, and what it says where there is none.
    fn limit(self) -> (&'static str, &'static str) {
        match self {
            Self::One => ("memory.limit_in_bytes", "-1"),
            Self::Two => ("memory.high", "max"),
        }
    }

    /// The file with what is used, and what pages of files are called in `memory.stat`.
    fn used(self) -> (&'static str, &'static str) {
        match self {
            Self::One => ("memory.usage_in_bytes", "cache"),
            Self::Two => ("memory.current", "file"),
        }
    }
}

/// Where a group for a process may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    version: Version,
    parent: PathBuf,
    /// The group that the process is in, and comes back to.
    home: PathBuf,
}

/// The ground of a process; why there is none.
pub fn ground(pid: i32) -> Result<Ground, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let ground = find(
        &read("/proc/mounts")?,
        &read(&format!("/proc/{pid}/cgroup"))?,
    )?;
    if ground.version == Version::Two {
        let path = ground.parent.join("cgroup.subtree_control");
        let handed_on = fs::read_to_string(&path).unwrap_or_default();
        if !handed_on.split_whitespace().any(|name| name == "memory") {
            let place = ground.parent.display();
            return Err(format!("memory is not counted for groups in {place}"));
        }
    }
    Ok(ground)
}

/// From what `/proc/mounts` says, and `/proc/PID/cgroup`.
fn find(mounts: &str, groups: &str) -> Result<Ground, String> {
    let has_memory = |names: &str| names.split(',').any(|name| name == "memory");
    let mount_of = |version: Version| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (at, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let is_it = match version {
                Version::One => kind == "cgroup" && has_memory(options),
                Version::Two => kind == "cgroup2",
            };
            is_it.then(|| PathBuf::from(at))
        })
    };
    let group_of = |version: Version| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let is_it = match version {
                Version::One => has_memory(names),
                Version::Two => names.is_empty(),
            };
            is_it.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    for version in [Version::One, Version::Two] {
        let (Some(mount), Some(group)) = (mount_of(version), group_of(version)) else {
            continue;
        };
        let home = mount.join(&group);
        if group
            .rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with(PREFIX))
        {
            return Err("the same is being done to it already".to_owned());
        }
        let parent = match version {
            Version::One => home.clone(),
            // Groups that have processes have no groups in them, but for the root.
            Version::Two if group.is_empty() => home.clone(),
            Version::Two => home.parent().unwrap_or(&mount).to_owned(),
        };
        return Ok(Ground {
            version,
            parent,
            home,
        });
    }
    Err("this machine's kernel counts no memory of groups of processes".to_owned())
}

impl Ground {
    /// The group that is to be made for the process that was born then.
    pub fn group(&self, pid: i32, born: u64) -> PathBuf {
        self.parent.join(format!("{PREFIX}{pid}-{born}"))
    }

    #[expect(missing_docs, reason = "see the field")]
    pub fn home(&self) -> &Path {
        &self.home
    }
}

/// A group that was made.
#[derive(Debug)]
pub struct Group {
    version: Version,
    path: PathBuf,
    /// Beyond what cannot be taken back.
    room: u64,
    limit: u64,
}

impl Group {
    /// Makes it; it must not be there yet. Whoever is in it has so much room, until it is relieved.
    pub fn make(ground: &Ground, path: &Path, room: u64) -> io::Result<Self> {
        fs::create_dir(path)?;
        let group = Self {
            version: ground.version,
            path: path.to_owned(),
            room,
            limit: room,
        };
        if group.version == Version::One {
            // Whoever finds no memory waits or is refused, instead of being killed.
            group.write("memory.oom_control", 1)?;
        }
        group.write(group.version.limit().0, group.limit)?;
        Ok(group)
    }

    /// From now on what the process takes is counted.
    pub fn admit(&self, pid: i32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// How often somebody had to wait, or had pages taken back.
    pub fn times(&self) -> io::Result<u64> {
        let parsed = match self.version {
            Version::One => self.read("memory.failcnt")?.trim().parse().ok(),
            Version::Two => named(&self.read("memory.events")?, "high"),
        };
        parsed.ok_or_else(|| io::Error::other("the kernel says no number"))
    }

    /// Gives it the same room again, beyond what it has by now and what cannot be taken back.
    pub fn relieve(&mut self) -> io::Result<()> {
        let (used, files) = self.version.used();
        let used: u64 = self.read(used)?.trim().parse().unwrap_or(0);
        let files = named(&self.read("memory.stat")?, files).unwrap_or(0);
        let limit = used.saturating_sub(files).saturating_add(self.room);
        if limit > self.limit {
            self.write(self.version.limit().0, limit)?;
            self.limit = limit;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.path.join(name))
    }

    fn write(&self, name: &str, number: u64) -> io::Result<()> {
        fs::write(self.path.join(name), number.to_string())
    }
}

/// The number behind a name, in lines of one name and one number.
fn named(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(found, _)| *found == name)?;
    number.trim().parse().ok()
}

/// No limit any more, whoever is in the group comes home, and the group is gone.
pub fn dissolve(group: &Path, home: &Path) -> anyhow::Result<()> {
    let dissolve = || {
        for (name, none) in [Version::One, Version::Two].map(Version::limit) {
            let path = group.join(name);
            if path.exists() {
                fs::write(path, none)?;
            }
        }
        for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
            // It may have ended in this very moment.
            let _ = fs::write(home.join("cgroup.procs"), pid);
        }
        fs::remove_dir(group)
    };
    dissolve().with_context(|| format!("cannot dissolve {}", group.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::cluster::processes;

    const MOUNTS_1: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
";
    const MOUNTS_2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";

    #[test]
    fn a_group_is_made_within_the_own_one_or_beside_it() {
        let at = |version, parent: &str, home: &str| {
            Ok(Ground {
                version,
                parent: parent.into(),
                home: home.into(),
            })
        };
        let memory = "/sys/fs/cgroup/memory/a/b";
        assert_eq!(
            find(MOUNTS_1, "4:cpu:/\n3:memory:/a/b\n0::/\n"),
            at(Version::One, memory, memory)
        );
        assert_eq!(
            find(MOUNTS_2, "0::/user.slice/x.scope\n"),
            at(
                Version::Two,
                "/sys/fs/cgroup/user.slice",
                "/sys/fs/cgroup/user.slice/x.scope"
            )
        );
        let root = "/sys/fs/cgroup/";
        assert_eq!(find(MOUNTS_2, "0::/\n"), at(Version::Two, root, root));
        let own = format!("3:memory:/a/{PREFIX}7-1\n");
        for (mounts, groups, why) in [
            (MOUNTS_1, own.as_str(), "already"),
            ("", "0::/\n", "no memory"),
            (MOUNTS_2, "3:memory:/a\n", "no memory"),
        ] {
            assert!(find(mounts, groups).unwrap_err().contains(why), "{groups}");
        }
        let events = "low 0\nhigh 12\nmax 3\n";
        assert_eq!(named(events, "high"), Some(12));
        assert_eq!(named(events, "oom"), None);
    }

    /// Shows nothing where no groups can be made.
    #[test]
    fn whoever_takes_more_is_held_up_and_not_killed_and_comes_home() {
        let own = i32::try_from(std::process::id()).unwrap();
        let Ok(ground) = ground(own) else { return };
        let path = ground.group(own, 0);
        let Ok(mut group) = Group::make(&ground, &path, 1 << 20) else {
            return;
        };
        // It takes 32 MiB once it is told to.
        let mut child = Command::new("sh")
            .args([
                "-c",
                "read line; head -c 33554432 /dev/zero | tail -c 33554432 | wc -c",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        group.admit(pid).unwrap();
        assert!(super::ground(pid).unwrap_err().contains("already"));
        drop(child.stdin.take());
        let ended = (0..10_000_000).find(|_| {
            if group.times().unwrap() > 0 {
                group.relieve().unwrap();
            }
            !processes::is_alive(pid)
        });
        assert!(ended.is_some(), "it went on, and to its end");
        let output = child.wait_with_output().unwrap();
        assert!(group.times().unwrap() > 0, "it was held up");
        assert_eq!(output.status.signal(), None, "it was not killed");
        if group.version == Version::Two {
            assert_eq!(output.stdout.trim_ascii(), b"33554432");
        }
        dissolve(&path, ground.home()).unwrap();
        assert!(!path.exists());
    }
}
