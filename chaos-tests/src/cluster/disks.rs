//! Disks that can lose their power: a file system of its own for each member, in a file, over a loop device.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the log is what a power cut is to ext4: what was synced is there after mounting
//! again, what was not is gone, and nothing can be written in between. A killed process is no substitute: what it wrote
//! stays in the page cache whether or not it was synced.
//!
//! The ioctl is issued by perl: it is not in any safe Rust interface, and `perl-base` is part of every Debian system.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::probe::lacking;
use super::room;

/// Room for the log, its snapshots, and RocksDB's own files.
const BYTES: u64 = 512 << 20;

/// One disk, mounted.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mounted_at: PathBuf,
}

/// Why loop devices cannot be used here; `None` if they can.
pub async fn missing() -> Option<String> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: Vec<&str> = map.split_whitespace().collect();
    if ids.first() != Some(&"0") || ids.get(1) != Some(&"0") {
        return Some("loop devices need root".to_owned());
    }
    let mut probe = Command::new("losetup");
    probe.arg("-f");
    lacking(&mut probe, |why| format!("no loop device: {why}")).await
}

impl Disk {
    /// Makes a file system in `image` and mounts it at `mounted_at`. Both vanish with the room.
    pub async fn make(image: &Path, mounted_at: &Path) -> anyhow::Result<Self> {
        ensure!(
            room::is_inside(),
            "disks are mounted only inside of a room, never on the machine itself"
        );
        std::fs::create_dir_all(mounted_at)?;
        std::fs::File::create(image)
            .and_then(|file| file.set_len(BYTES))
            .with_context(|| format!("cannot make {}", image.display()))?;
        let image = image.to_owned();
        room::command("mkfs.ext4", [Path::new("-q"), Path::new("-F"), &image]).await?;
        let disk = Self {
            image,
            mounted_at: mounted_at.to_owned(),
        };
        disk.mount().await?;
        Ok(disk)
    }

    async fn mount(&self) -> anyhow::Result<()> {
        let options = [Path::new("-o"), Path::new("loop")];
        let what = [self.image.as_path(), self.mounted_at.as_path()];
        room::command("mount", options.into_iter().chain(what)).await
    }

    /// Everything that is written until now survives.
    pub async fn sync(&self) -> anyhow::Result<()> {
        room::command("sync", [Path::new("-f"), &self.mounted_at]).await
    }

    /// Puts the power on again: what was synced is there. No process may use the disk.
    pub async fn repower(&self) -> anyhow::Result<()> {
        room::command("umount", [&self.mounted_at]).await?;
        self.mount().await
    }
}

/// Cuts the power of these disks, as near to the same moment as possible.
pub async fn cut_power(disks: &[&Disk]) -> anyhow::Result<()> {
    // EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32); 2 is EXT4_GOING_FLAGS_NOLOGFLUSH.
    let script = "my @disks = map { open(my $disk, '<', $_) or die \"$_: $!\\n\"; $disk } @ARGV; \
                  my $flags = pack('L', 2); \
                  for my $disk (@disks) { ioctl($disk, 0x8004587d, $flags) or die \"shutdown: $!\\n\" }";
    let mut arguments = vec!["-e".into(), script.into()];
    arguments.extend(
        disks
            .iter()
            .map(|disk| disk.mounted_at.as_os_str().to_owned()),
    );
    room::command("perl", arguments).await
}

/// Builds a library that makes `fsync` and its kin do nothing in a process that preloads it: to show that a missing sync
/// is found.
pub async fn build_no_sync(directory: &Path) -> anyhow::Result<PathBuf> {
    const SOURCE: &str = "#include <sys/types.h>\n\
        int fsync(int fd) { (void)fd; return 0; }\n\
        int fdatasync(int fd) { (void)fd; return 0; }\n\
        int sync_file_range(int fd, off_t from, off_t bytes, unsigned flags) {\n\
          (void)fd; (void)from; (void)bytes; (void)flags; return 0;\n}\n";
    let library = directory.join("no_sync.so");
    let arguments = ["-shared", "-fPIC", "-x", "c", "-", "-o"];
    let arguments = arguments.iter().map(Path::new).chain([library.as_path()]);
    room::feed("cc", arguments, SOURCE).await?;
    Ok(library)
}
