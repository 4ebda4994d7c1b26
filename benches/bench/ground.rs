//! Where is measured: a filesystem that nothing else has used.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::{Scale, pause};

/// What the files lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// ext4 on a loop device, made anew.
    Ext4,
    Tmpfs,
    /// The temporary directory, whatever it lies on: without root there is no mounting.
    Temporary,
}

impl Medium {
    /// The media that can be had.
    pub fn all(scale: Scale) -> Vec<Medium> {
        if scale != Scale::Smoke && geteuid().is_root() {
            return vec![Medium::Ext4, Medium::Tmpfs];
        }
        vec![Medium::Temporary]
    }

    /// The disk among them.
    pub fn disk(scale: Scale) -> Medium {
        Medium::all(scale)[0]
    }

    pub fn name(self) -> &'static str {
        match self {
            Medium::Ext4 => "fresh ext4",
            Medium::Tmpfs => "tmpfs",
            Medium::Temporary => "TMPDIR, not fresh",
        }
    }
}

/// The machine, as it has to stand beside figures that belong to it.
pub fn machine() -> String {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}, load at the start {load}", release.trim())
}

/// A filesystem, or a directory, that goes when this is dropped: an unmounted image costs no deletion
/// of files, which would slow down what is measured next.
#[derive(Debug)]
pub struct Ground {
    root: PathBuf,
    mounted: bool,
    _holder: TempDir,
}

impl Ground {
    /// Room for so many intents, or as many files in the inbox.
    pub fn new(medium: Medium, intents: usize) -> Self {
        let holder = tempfile::tempdir().expect("a temporary directory");
        let root = holder.path().join("ground");
        std::fs::create_dir(&root).expect("a directory");
        match medium {
            Medium::Ext4 => mount_ext4(&holder.path().join("image"), &root, intents),
            Medium::Tmpfs => call("mount", &["-t", "tmpfs", "-o", "size=80%", "bench"], &root),
            Medium::Temporary => {}
        }
        Ground { root, mounted: medium != Medium::Temporary, _holder: holder }
    }

    pub fn path(&self) -> &Path {
        &self.root
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // A process that was killed a moment ago may still be in it.
        let mut left = 50;
        while self.mounted && left > 0 {
            let status = Command::new("umount").arg(&self.root).stderr(Stdio::null()).status();
            self.mounted = !status.is_ok_and(|status| status.success());
            left -= 1;
            if self.mounted {
                pause(Duration::from_millis(100));
            }
        }
        if self.mounted {
            eprintln!("{} cannot be unmounted", self.root.display());
        }
    }
}

/// The image is sparse. The kernel's late initialisation of inode tables is kept out of the figures.
fn mount_ext4(image: &Path, root: &Path, intents: usize) {
    let size = (intents as u64 * (48 << 10)).max(1 << 30);
    let file = std::fs::File::create_new(image).expect("an image");
    file.set_len(size).expect("a sparse file");
    call("mkfs.ext4", &["-q", "-F", "-i", "4096"], image);
    let image = image.to_str().expect("a path of ours");
    call("mount", &["-t", "ext4", "-o", "loop,noinit_itable", image], root);
}

fn call(program: &str, arguments: &[&str], last: &Path) {
    let status = Command::new(program).args(arguments).arg(last).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?} works");
}
