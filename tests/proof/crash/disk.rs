//! Filesystems in a file, which can lose power.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::sys::{self, Shutdown};

/// Far above what a child of another thread needs from its fork to its exec, in which it still
/// holds what is open here.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }

    /// The smallest that its mkfs makes with a journal that never fills here; sparse.
    fn bytes(self) -> u64 {
        match self {
            Kind::Ext4 => 64 << 20,
            Kind::Xfs => 300 << 20,
        }
    }

    fn make(self) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            // Nothing is initialised behind the back of a test.
            Kind::Ext4 => {
                command.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            }
            Kind::Xfs => command.args(["-q", "-f"]),
        };
        command
    }
}

/// A mounted filesystem on a loop device; unmounted and let go when dropped.
pub struct Disk {
    kind: Kind,
    device: String,
    mounted: PathBuf,
}

impl Disk {
    /// Makes an image below `directory` and mounts it there.
    ///
    /// # Errors
    ///
    /// Why that cannot be done here, for a person.
    pub fn make(kind: Kind, directory: &Path) -> Result<Self, String> {
        let image = directory.join("image");
        let mounted = directory.join("mounted");
        let failed = |what: &str, why: &dyn std::fmt::Display| format!("{what}: {why}");
        std::fs::create_dir_all(&mounted)
            .map_err(|error| failed("make the mount point", &error))?;
        std::fs::File::create(&image)
            .and_then(|image| image.set_len(kind.bytes()))
            .map_err(|error| failed("make the image", &error))?;
        output(kind.make().arg(&image))?;
        let device = output(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let disk = Disk { kind, device: device.trim().to_owned(), mounted };
        disk.mount().map_err(|error| failed("mount a loop device", &error))?;
        Ok(disk)
    }

    pub fn root(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) -> nix::Result<()> {
        let device = Path::new(&self.device);
        mount(Some(device), &self.mounted, Some(self.kind.name()), MsFlags::empty(), None::<&str>)
    }

    /// Writes everything to the disk.
    pub fn sync(&self) {
        let root = std::fs::File::open(&self.mounted).expect("it is mounted");
        rustix::fs::syncfs(root).expect("it can be synced");
    }

    /// Cuts the power.
    pub fn cut(&self, how: Shutdown) {
        sys::shut_down(&self.mounted, how).expect("ext4 and XFS can be shut down");
    }

    /// Mounts it anew, as a boot does.
    pub fn remount(&self) {
        self.unmount().expect("nobody holds it any more");
        self.mount().expect("its journal is replayed");
    }

    fn unmount(&self) -> nix::Result<()> {
        let start = Instant::now();
        loop {
            match umount2(&self.mounted, MntFlags::empty()) {
                Err(Errno::EBUSY) if start.elapsed() < BUSY => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                result => return result,
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount() == Err(Errno::EBUSY) {
            let _ = umount2(&self.mounted, MntFlags::MNT_DETACH);
        }
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Runs a command to its end; what it printed, or why it failed.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
