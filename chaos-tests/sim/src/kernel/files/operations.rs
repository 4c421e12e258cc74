//! What the operations of a process on its files meet, and what becomes of its disk when it ends.

use std::fs::{self, File};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libc::c_int;

use super::{Change, Entry, Open, Outcome};
use crate::kernel::Kernel;
use crate::kernel::hosts::HostId;

impl Kernel {
    /// What a file operation of the running process meets; none if it is not for a simulated disk.
    fn on_disk(&mut self, host: Option<HostId>) -> Option<Outcome> {
        if self.is_dead() {
            return Some(Outcome::Fail(libc::EIO));
        }
        let host = host?;
        self.trace.add("file", &[host as u64]);
        // Who works on the files of another machine dies on its own.
        let own = self.current.unwrap_or(host);
        let dies = &mut self.hosts[own].dies_in_file_operation;
        if let Some((left, death)) = dies {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let death = death.clone();
                *dies = None;
                self.trace.count("a process ended in a file operation");
                self.end_current(death);
                // The operation may have been carried out nevertheless.
                return self
                    .chance
                    .permille(500)
                    .then_some(Outcome::Fail(libc::EIO));
            }
        }
        None
    }

    fn host_of_fd(&self, fd: c_int) -> Option<HostId> {
        self.files.open.get(&fd).map(|open| open.host)
    }

    pub(in crate::kernel) fn before_open(&mut self, path: &Path, flags: c_int) -> Outcome {
        let Some(host) = self.files.host_of(path) else {
            return Outcome::Go;
        };
        if flags & libc::O_CREAT == 0 {
            return match self.is_dead() {
                true => Outcome::Fail(libc::EIO),
                false => Outcome::Go,
            };
        }
        if let Some(outcome) = self.on_disk(Some(host)) {
            return outcome;
        }
        let exists = path.exists();
        if exists && flags & libc::O_EXCL != 0 {
            return Outcome::Fail(libc::EEXIST);
        }
        if !exists {
            self.files.note(path, Entry::Made(path.to_owned()));
        }
        Outcome::Go
    }

    pub(in crate::kernel) fn after_open(&mut self, path: &Path, fd: c_int) {
        let Some(host) = self.files.host_of(path) else {
            return;
        };
        let Ok(metadata) = fs::metadata(format!("/proc/self/fd/{fd}")) else {
            return;
        };
        let open = Open {
            host,
            path: path.to_owned(),
            inode: metadata.ino(),
            is_directory: metadata.is_dir(),
        };
        self.files.open.insert(fd, open);
    }

    pub(in crate::kernel) fn before_write(
        &mut self,
        fd: c_int,
        offset: Option<u64>,
        bytes: &[u8],
    ) -> Outcome {
        let Some(host) = self.host_of_fd(fd) else {
            return Outcome::Go;
        };
        if self.hosts[host].disk_is_full {
            self.trace.count("write on a full disk");
            return Outcome::Fail(libc::ENOSPC);
        }
        let outcome = self.on_disk(Some(host));
        if let Some(outcome) = outcome {
            return outcome;
        }
        let offset = offset.unwrap_or_else(|| position(fd));
        let change = Change::Write {
            offset,
            bytes: bytes.to_vec(),
        };
        match self.files.change(fd, change) {
            Ok(()) => Outcome::Go,
            Err(_) => Outcome::Fail(libc::EIO),
        }
    }

    pub(in crate::kernel) fn before_set_len(&mut self, fd: c_int, length: u64) -> Outcome {
        let Some(host) = self.host_of_fd(fd) else {
            return Outcome::Go;
        };
        if let Some(outcome) = self.on_disk(Some(host)) {
            return outcome;
        }
        match self.files.change(fd, Change::SetLength(length)) {
            Ok(()) => Outcome::Go,
            Err(_) => Outcome::Fail(libc::EIO),
        }
    }

    pub(in crate::kernel) fn on_sync(&mut self, fd: c_int) -> Outcome {
        let Some(host) = self.host_of_fd(fd) else {
            return Outcome::Go;
        };
        if let Some(outcome) = self.on_disk(Some(host)) {
            return outcome;
        }
        let fails = self.hosts[host].sync_fails_permille;
        if fails > 0 && self.chance.permille(fails) {
            self.trace.count("sync failed");
            self.files.lose(fd);
            return Outcome::Fail(libc::EIO);
        }
        if self.hosts[host].death.is_none() {
            self.files.make_durable(fd);
            stamp(fd, self.hosts[host].clock.wall(self.now));
        }
        Outcome::Go
    }

    pub(in crate::kernel) fn before_rename(&mut self, from: &Path, to: &Path) -> Outcome {
        let Some(host) = self.files.host_of(from) else {
            return Outcome::Go;
        };
        if let Some(outcome) = self.on_disk(Some(host)) {
            return outcome;
        }
        let replaced = to.is_file().then(|| self.files.keep());
        let linked = replaced
            .as_ref()
            .map_or(Ok(()), |kept| fs::hard_link(to, kept));
        if linked.is_err() {
            return Outcome::Fail(libc::EIO);
        }
        let entry = Entry::Renamed {
            from: from.to_owned(),
            to: to.to_owned(),
            replaced,
        };
        self.files.note(to, entry);
        Outcome::Go
    }

    pub(in crate::kernel) fn before_unlink(&mut self, path: &Path) -> Outcome {
        let Some(host) = self.files.host_of(path) else {
            return Outcome::Go;
        };
        if let Some(outcome) = self.on_disk(Some(host)) {
            return outcome;
        }
        if !path.is_file() {
            return Outcome::Go;
        }
        let kept = self.files.keep();
        if fs::hard_link(path, &kept).is_err() {
            return Outcome::Fail(libc::EIO);
        }
        let entry = Entry::Removed {
            path: path.to_owned(),
            kept,
        };
        self.files.note(path, entry);
        Outcome::Go
    }

    pub(in crate::kernel) fn before_mkdir(&mut self, path: &Path) -> Outcome {
        let Some(host) = self.files.host_of(path) else {
            return Outcome::Go;
        };
        if let Some(outcome) = self.on_disk(Some(host)) {
            return outcome;
        }
        if !path.exists() && path.parent().is_some_and(Path::exists) {
            self.files.note(path, Entry::MadeDirectory(path.to_owned()));
        }
        Outcome::Go
    }

    /// The process of that host has ended: its files are closed and, if the power failed, what the disk has of them.
    pub fn take_files_from(&mut self, host: HostId, power_failed: bool) {
        self.files.release(host);
        if !power_failed {
            return;
        }
        let lost = self.files.fail_power(host);
        let lost = lost.expect("a file system in memory does as it is told");
        self.trace.add("power failed", &[host as u64, lost]);
        self.trace.count("power failed");
        if lost > 0 {
            self.trace.count("power failed with something not synced");
        }
    }

    /// That host gets another, empty disk.
    pub fn replace_disk(&mut self, host: HostId) {
        let own = self.files.directory(host);
        self.files.dirty.retain(|_, dirty| dirty.host != host);
        self.files
            .entries
            .retain(|directory, _| !directory.starts_with(&own));
        // It may have had none.
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(&own).expect("a file system in memory does as it is told");
    }
}

#[expect(unsafe_code, reason = "a call to the system")]
fn position(fd: c_int) -> u64 {
    // SAFETY: it has no pointers.
    let at = unsafe { libc::lseek64(fd, 0, libc::SEEK_CUR) };
    u64::try_from(at).unwrap_or(0)
}

/// Files are as old as the simulation says.
fn stamp(fd: c_int, wall: u64) {
    #[expect(unsafe_code, reason = "the descriptor is borrowed for one call")]
    // SAFETY: it is given back below, unclosed.
    let file = unsafe { File::from_raw_fd(fd) };
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(wall);
    // Only read by people, in the status of a member.
    let _ = file.set_modified(time);
    let _ = file.into_raw_fd();
}
