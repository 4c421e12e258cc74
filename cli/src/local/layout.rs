//! The directory of a local cluster: who has which files and ports.
//!
//! Ports of JobManagers are chosen once and kept in `local.json`, for the members of a Raft group know each other by
//! address. All ports are below the range from which the kernel takes ports for outgoing connections: a client that
//! retries a port in that range whose server is down can connect to itself, and then holds the port.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ProcessInfo, Role};
use crate::Error;

const PORT_FIRST: u32 = 15_000;
/// Linux hands out 32768 to 60999 for outgoing connections.
const PORT_END: u32 = 32_000;

/// What is kept about the JobManagers, in `local.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Members {
    pub(super) jobmanagers: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) node_id: u64,
    pub(super) rpc_port: u16,
    pub(super) http_port: u16,
}

impl Member {
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }
}

/// The directory, locked against a second cluster in it.
#[derive(Debug)]
pub(super) struct Layout {
    dir: PathBuf,
    _lock: File,
}

impl Layout {
    /// Makes and locks the directory.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(Error::file("cannot make the directory", dir))?;
        let dir = dir
            .canonicalize()
            .map_err(Error::file("cannot resolve", dir))?;
        let path = dir.join("local.lock");
        let lock = File::create(&path).map_err(Error::file("cannot make", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let text = format!(
                    "another `flott local` runs in {}; stop it or choose another --dir",
                    dir.display()
                );
                Err(Error::Local(text))
            }
            Err(TryLockError::Error(error)) => Err(Error::file("cannot lock", path)(error)),
        }
    }

    /// The members of the cluster in this directory. On the first start `count` of them (0: three) are made up; later
    /// the count must agree.
    pub(super) fn members(&self, count: u32) -> Result<Members, Error> {
        let path = self.dir.join("local.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let members = Members::choose(if count == 0 { 3 } else { count })?;
                write_atomically(
                    &path,
                    &serde_json::to_vec_pretty(&members).unwrap_or_default(),
                )?;
                return Ok(members);
            }
            Err(error) => return Err(Error::file("cannot read", path)(error)),
        };
        let members: Members = serde_json::from_slice(&text)
            .map_err(|error| Error::Local(format!("{} is damaged: {error}", path.display())))?;
        if count != 0 && members.jobmanagers.len() != count as usize {
            return Err(Error::Local(format!(
                "{} holds a cluster of {} JobManagers, not {count}; leave out --jobmanagers or choose another --dir",
                self.dir.display(),
                members.jobmanagers.len()
            )));
        }
        Ok(members)
    }

    /// The directory of a process; made if missing.
    pub(super) fn process(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(Error::file("cannot make the directory", &dir))?;
        Ok(dir)
    }

    pub(super) fn certificates(&self) -> PathBuf {
        self.dir.join("certs")
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.dir.join("checkpoints")
    }

    pub(super) fn savepoints(&self) -> PathBuf {
        self.dir.join("savepoints")
    }

    /// Writes `cluster.json`; a reader sees the old or the new one whole.
    pub(super) fn write_cluster(&self, processes: &[ProcessInfo]) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(&cluster_json(processes)).unwrap_or_default();
        write_atomically(&self.dir.join("cluster.json"), &text)
    }

    pub(super) fn remove_cluster(&self) {
        // A stale file would name processes that are gone; a missing one is no harm.
        let _ = std::fs::remove_file(self.dir.join("cluster.json"));
    }
}

/// The processes that run, by role. A JobManager's id is a number, a TaskManager's is text.
fn cluster_json(processes: &[ProcessInfo]) -> serde_json::Value {
    let of = |role: Role| -> Vec<_> {
        let members = processes.iter().filter(|process| process.role == role);
        let entry = |process: &ProcessInfo| {
            let id = match process.role {
                Role::JobManager => json!(process.node_id),
                Role::TaskManager => json!(process.id),
            };
            json!({
                "id": id, "pid": process.pid, "address": process.address,
                "http": process.http, "name": process.name, "log": process.log,
            })
        };
        members.map(entry).collect()
    };
    json!({ "jobmanagers": of(Role::JobManager), "taskmanagers": of(Role::TaskManager) })
}

impl Members {
    fn choose(count: u32) -> Result<Self, Error> {
        let ports = free_ports(count as usize * 2, &[])?;
        let member = |(index, ports): (usize, &[u16])| Member {
            node_id: index as u64 + 1,
            rpc_port: ports[0],
            http_port: ports[1],
        };
        Ok(Self {
            jobmanagers: ports.chunks(2).enumerate().map(member).collect(),
        })
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.jobmanagers
            .iter()
            .flat_map(|member| [member.rpc_port, member.http_port])
            .collect()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.jobmanagers.iter().map(Member::address).collect()
    }
}

/// Loopback ports that nobody listens on, other than `avoid` (ports of processes that do not listen yet). Every search
/// begins elsewhere, so that clusters that start at the same time do not choose the same.
pub(super) fn free_ports(count: usize, avoid: &[u16]) -> Result<Vec<u16>, Error> {
    /// How far apart the searches of processes with neighbouring ids begin.
    const STRIDE: u32 = 128;
    static SEARCHED: AtomicU32 = AtomicU32::new(0);
    let span = PORT_END - PORT_FIRST;
    let begin = std::process::id().wrapping_mul(STRIDE);
    let mut held = Vec::new();
    for _ in 0..span {
        if held.len() == count {
            break;
        }
        let offset = begin.wrapping_add(SEARCHED.fetch_add(1, Ordering::Relaxed)) % span;
        let port = (PORT_FIRST + offset) as u16;
        if avoid.contains(&port) {
            continue;
        }
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            // Held until all are found: another process that searches at the same time finds others.
            held.push((port, listener));
        }
    }
    if held.len() < count {
        let text = format!("no {count} free loopback ports from {PORT_FIRST} to {PORT_END}");
        return Err(Error::Local(text));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

/// Whether nobody listens on that loopback port.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Writes beside the file and renames, so that no reader sees half of it.
fn write_atomically(path: &Path, text: &[u8]) -> Result<(), Error> {
    let beside = path.with_extension("json.new");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(text)?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(Error::file("cannot write", &beside))?;
    std::fs::rename(&beside, path).map_err(Error::file("cannot write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_chosen_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let first = layout.members(0).unwrap();
        assert_eq!(
            first
                .jobmanagers
                .iter()
                .map(|member| member.node_id)
                .collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let mut ports: Vec<_> = first
            .jobmanagers
            .iter()
            .flat_map(|m| [m.rpc_port, m.http_port])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
        assert!(ports.iter().all(|port| u32::from(*port) < PORT_END));
        assert_eq!(layout.members(3).unwrap(), first);
        let error = layout.members(5).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("holds a cluster of 3 JobManagers, not 5"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_serves_one_cluster_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Layout::open(dir.path()).unwrap();
        let error = Layout::open(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("another `flott local` runs"),
            "{error}"
        );
        drop(first);
        Layout::open(dir.path()).unwrap();
    }

    #[test]
    fn cluster_json_has_numbers_for_jobmanagers_and_text_for_taskmanagers() {
        let process = |role, name: &str, node_id, id: &str| ProcessInfo {
            role,
            name: name.to_owned(),
            node_id,
            id: id.to_owned(),
            pid: 7,
            address: "127.0.0.1:1".to_owned(),
            http: "127.0.0.1:2".to_owned(),
            log: PathBuf::from("/l"),
        };
        let processes = [
            process(Role::JobManager, "jobmanager-2", 2, "2"),
            process(Role::TaskManager, "taskmanager-1", 0, "tm-1-ab"),
        ];
        let json = cluster_json(&processes);
        assert_eq!(json["jobmanagers"][0]["id"], 2);
        assert_eq!(json["jobmanagers"][0]["pid"], 7);
        assert_eq!(json["jobmanagers"][0]["address"], "127.0.0.1:1");
        assert_eq!(json["taskmanagers"][0]["id"], "tm-1-ab");
    }
}
