//! Where the state directory lies, and a ledger that does not fit to its spool.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{is_root, works};
use crate::report::{Options, Tally};
use crate::support::{Site, names};

/// A filesystem in memory, unmounted in the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let args = ["-t", "tmpfs", "-o", "size=64m", "intentd-proof"];
        let mounted = Command::new("mount").args(args).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Tmpfs(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// tmpfs locks like any local filesystem; that it forgets at a reboot, the marker notices.
pub fn on_tmpfs(_: &Options) -> Tally {
    if !is_root() {
        return Tally::skipped("mounting takes root");
    }
    let mut tally = Tally::default();
    let site = Site::new();
    {
        let Some(_state) = Tmpfs::mount(&site.state()) else {
            return Tally::skipped("tmpfs cannot be mounted here");
        };
        let leader = site.start();
        let second = site.launch(&[]);
        second.wait_for_message("standby");
        works(&site, "intent-a.json", 2);
        leader.kill();
        second.wait_for_message("ready");
        works(&site, "intent-b.json", 3);
        second.kill();
    }
    // As after a reboot: state directory empty, spool as it was.
    let finished = site.run(&["batch"]);
    tally.require(finished.code == Some(74), || {
        format!("an empty state directory is taken: {:?} {}", finished.code, finished.stderr)
    });
    tally.require(finished.stderr.contains("--accept-restored-ledger"), || {
        format!("it does not say what to do: {}", finished.stderr)
    });
    tally.fired += 1;
    tally.acked += site.names("status").len() as u64;
    tally
        .notes
        .push("FUSE and network filesystems: none can be mounted here, not shown".to_owned());
    tally
}

/// A copy of the ledger of an earlier epoch is put back.
pub fn lower_epoch(_: &Options) -> Tally {
    let mut tally = Tally::default();
    let site = Site::new();
    let first = site.start();
    works(&site, "intent-a.json", 2);
    first.stop();
    let copy = site.root().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in names(&site.state()).iter().filter(|name| site.state().join(name).is_file()) {
        std::fs::copy(site.state().join(name), copy.join(name)).unwrap();
    }
    let second = site.start();
    works(&site, "intent-b.json", 3);
    second.stop();
    std::fs::remove_dir_all(site.state()).unwrap();
    std::fs::rename(&copy, site.state()).unwrap();
    for args in [&["run"][..], &["batch"]] {
        let finished = site.run(args);
        tally.require(finished.code == Some(74), || {
            format!("{args:?} ends with {:?}: {}", finished.code, finished.stderr)
        });
        tally.require(finished.stderr.contains("--accept-restored-ledger"), || {
            format!("it does not say what to do: {}", finished.stderr)
        });
        tally.fired += 1;
    }
    tally.acked += site.names("status").len() as u64;
    let finished = site.run(&["batch", "--accept-restored-ledger"]);
    tally.require(finished.code == Some(0), || format!("accepted: {}", finished.stderr));
    tally
}
