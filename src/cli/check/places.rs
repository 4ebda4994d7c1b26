//! The directories: whether they are there or can be made, can be written, and lie where they should.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, fstatvfs};

use crate::cli::check::Finding;
use crate::cli::exit::Exit;
use crate::config::Config;
use crate::leader;
use crate::model::Code;
use crate::spool::{is_network, leases_work_in};

/// Room below which a busy day may end in a pause: a full window of documents, and as much again
/// for the ledger's log.
const ROOM_MIN: u64 = 64 << 20;

pub fn findings(config: &Config) -> Vec<Finding> {
    let layout = &config.layout;
    let parts = [
        ("inbox", &layout.inbox),
        ("work", &layout.work),
        ("processed", &layout.processed),
        ("failed", &layout.failed),
        ("status", &layout.status),
    ];
    let mut findings = Vec::new();
    let mut found = Vec::new();
    for (name, path) in parts.into_iter().chain([("state_dir", &config.state_dir)]) {
        match look(path) {
            Ok(place) => {
                findings.push(place.finding(name, config.allow_network_filesystem));
                found.push((name, place));
            }
            Err(message) => findings.push(Finding::failed(Exit::Storage, name, message)),
        }
    }
    findings.push(one_filesystem(&found));
    if let Some((_, work)) = found.iter().find(|(name, _)| *name == "work") {
        findings.push(leases(config.settle_lease, &work.existing));
    }
    findings.push(lock(&config.state_dir.join("leader.lock")));
    findings
}

/// The directory of a sink `package`.
pub fn packages(what: &str, dir: &Path) -> Finding {
    let found = match look(dir) {
        Ok(place) => return Finding { exit: Exit::Done, ..place.finding(what, true) }.or_away(),
        Err(message) => Finding::failed(Exit::Unreachable, what, message),
    };
    Finding { code: Some(Code::SinkUnavailable), ..found }
}

impl Finding {
    /// What keeps a directory from being used keeps its sink from being reached.
    fn or_away(self) -> Self {
        match self.state {
            crate::cli::check::State::Failed => {
                Finding { exit: Exit::Unreachable, code: Some(Code::SinkUnavailable), ..self }
            }
            _ => self,
        }
    }
}

/// A directory that can be used, or made.
struct Place {
    path: PathBuf,
    /// The path itself, or what it will be made in.
    existing: PathBuf,
    device: u64,
    network: bool,
    room: u64,
    files: u64,
}

fn look(path: &Path) -> Result<Place, String> {
    let path = std::path::absolute(path).map_err(|error| format!("its path is odd: {error}"))?;
    let existing = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    let existing = existing.unwrap_or(Path::new("/")).to_owned();
    let shown = existing.display();
    let metadata = fs::metadata(&existing).map_err(|error| format!("`{shown}`: {error}"))?;
    if !metadata.is_dir() {
        return Err(format!("`{shown}` is no directory"));
    }
    let need = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, &existing, need, AtFlags::EACCESS)
        .map_err(|error| format!("`{shown}` cannot be read and written: {error}"))?;
    let file = File::open(&existing).map_err(|error| format!("`{shown}`: {error}"))?;
    let about = fstatvfs(&file).map_err(|error| format!("`{shown}`: {error}"))?;
    if about.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(format!("`{shown}` lies on a filesystem that is mounted read-only"));
    }
    // Some filesystems count no files at all.
    let files = if about.f_files == 0 { u64::MAX } else { about.f_favail };
    Ok(Place {
        path,
        device: metadata.st_dev(),
        network: is_network(&file),
        room: about.f_bavail.saturating_mul(about.f_frsize),
        files,
        existing,
    })
}

impl Place {
    fn finding(&self, what: &str, network_is_fine: bool) -> Finding {
        let path = self.path.display();
        let room = format!("{} MiB are free", self.room >> 20);
        if self.network && !network_is_fine {
            let message = format!(
                "`{path}` lies on a network filesystem, where neither locks nor syncs can be relied on"
            );
            return Finding::failed(Exit::Configuration, what, message);
        }
        if self.room == 0 || self.files == 0 {
            let message = format!("`{path}` lies on a filesystem that is full");
            return Finding::failed(Exit::Storage, what, message);
        }
        if self.room < ROOM_MIN {
            return Finding::warn(what, format!("`{path}`: only {room}"));
        }
        if self.network {
            return Finding::warn(what, format!("`{path}` lies on a network filesystem; {room}"));
        }
        if self.existing != self.path {
            let above = self.existing.display();
            return Finding::ok(what, format!("`{path}` will be made in `{above}`; {room}"));
        }
        Finding::ok(what, format!("`{path}` can be used; {room}"))
    }
}

fn leases(wanted: bool, directory: &Path) -> Finding {
    let what = "leases";
    if !wanted {
        return Finding::ok(
            what,
            "not wanted (`settle.lease`); files are finished once they are quiet",
        );
    }
    match File::open(directory).is_ok_and(|directory| leases_work_in(&directory)) {
        true => Finding::ok(what, "the spool's filesystem has them"),
        false => Finding::warn(
            what,
            "the spool's filesystem has none: files are finished once they are quiet (`settle.quiet`)",
        ),
    }
}

fn one_filesystem(found: &[(&str, Place)]) -> Finding {
    let what = "one filesystem";
    let parts: Vec<_> = found.iter().filter(|(name, _)| *name != "state_dir").collect();
    let Some((_, work)) = parts.iter().find(|(name, _)| *name == "work") else {
        return Finding::warn(what, "it cannot be told without `work`");
    };
    match parts.iter().find(|(_, place)| place.device != work.device) {
        None => Finding::ok(what, "files can be moved between all parts of the spool"),
        Some((name, place)) => Finding::failed(
            Exit::Configuration,
            what,
            format!(
                "`{name}` (`{}`) lies on another one than `work` (`{}`), and files are moved between them",
                place.path.display(),
                work.path.display()
            ),
        ),
    }
}

fn lock(path: &Path) -> Finding {
    let what = "lead";
    match leader::look(path) {
        Ok(leader::Seen::Free) => Finding::ok(what, "nobody leads; a start would"),
        Ok(leader::Seen::Held(holder)) => {
            let holder = leader::Holder::shown(holder.as_ref());
            Finding::ok(what, format!("{holder} leads; a start would stand by"))
        }
        Err(error) => {
            Finding::failed(Exit::Storage, what, format!("{:#}", anyhow::Error::new(error)))
        }
    }
}
