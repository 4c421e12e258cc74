//! Killing a process of a cluster at an exact place in its code: see [`flott_node::failpoint`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use flott_node::Failpoint;

use super::Cluster;
use super::processes::is_alive;

/// Where the processes of the cluster in `directory` look for points that are armed.
pub(super) fn directory(directory: &Path) -> PathBuf {
    directory.join("failpoints")
}

impl Cluster {
    /// Arms the point and waits until a process has died there; its pid.
    pub async fn until_death_at(
        &self,
        point: Failpoint,
        deadline: Duration,
    ) -> anyhow::Result<i32> {
        ensure!(
            cfg!(debug_assertions),
            "a release build passes by its failpoints"
        );
        let directory = directory(&self.directory);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(point.name()), b"")?;
        let victim = || async { victim(&directory, point) };
        let what = format!("a death at {point:?}");
        let is_dead = |pid: &i32| !is_alive(*pid);
        self.until(&what, deadline, victim, is_dead).await
    }
}

/// The process that came by the point last, and killed itself there.
fn victim(directory: &Path, point: Failpoint) -> anyhow::Result<i32> {
    let prefix = format!("{}.", point.name());
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) {
            return Ok(pid.parse()?);
        }
    }
    None.context("nobody has come by")
}
