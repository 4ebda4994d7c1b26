//! The directories in staging: where packages are made ready, and where replaced ones retire.
//!
//! A replaced directory is kept for ten seconds, since a reader may still be in it, and is then used
//! again for a later package: its files are overwritten in place, so that replacing packages
//! allocates and frees no inode. A directory that another process left here is never used again,
//! only deleted: its owner may be stopped, and would write into what we publish.
//!
//! Invariant: nothing in here is visible, and no inode that is visible is written to.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File as FsFile;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, linkat, mkdirat, openat, openat2,
    unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::compose::File;
use crate::fault;
use crate::sink::package::standing::Ours;
use crate::sink::package::tree::{DIR_MODE, FILE_MODE, names, open_dir};

/// How long a reader may take for one package.
pub const RETIREMENT: Duration = Duration::from_secs(10);

/// Ripe directories kept for reuse (some 16 MiB of disk); more are deleted.
const KEPT_MAX: usize = 1_024;

/// Directories in retirement: ten seconds at twice the rate that one disk can sync.
const RETIRED_MAX: usize = 131_072;

/// Directories deleted in one call: each costs some 50 us, and a delivery must not feel it.
const DELETED_MAX: usize = 4;

/// Leftovers of other processes that are remembered at once.
const LEFTOVERS_MAX: usize = 1_024;

/// Names in one package directory: what `standing` lets pass, and our own.
const ENTRIES_MAX: usize = 512;

/// Who numbers slots side by side, so that no two have the same name.
const HANDS: u64 = 2;

/// A directory in staging that no other process uses.
#[derive(Debug)]
pub struct Slot {
    number: u64,
    pub name: String,
}

/// All directories in staging.
#[derive(Debug)]
pub struct Slots {
    /// Makes names distinct from those of every other process.
    token: String,
    next: u64,
    /// Files that were just made had their modes without our help: looked at anew for each batch,
    /// since the umask is ours but a default ACL of the directory is not.
    modes_hold: bool,
    /// Ours, soonest first.
    retired: VecDeque<Retired>,
    leftovers: Leftovers,
}

#[derive(Debug)]
struct Retired {
    number: u64,
    free_at: Instant,
}

#[derive(Debug)]
enum Leftovers {
    /// Nobody has looked yet: only who delivers leads, and may delete.
    Unseen,
    /// Other slots of this process see to them.
    OfAnother,
    Seen {
        names: Vec<CString>,
        more: bool,
        free_at: Instant,
    },
}

impl Slots {
    pub fn new() -> Self {
        Slots {
            token: uuid::Uuid::now_v7().simple().to_string(),
            next: 0,
            modes_hold: false,
            retired: VecDeque::new(),
            leftovers: Leftovers::Unseen,
        }
    }

    /// Slots beside these in the same place: neither takes the other's for leftovers, and leftovers
    /// are left to the first.
    pub fn beside(&self) -> Self {
        Slots {
            token: self.token.clone(),
            next: self.next + 1,
            modes_hold: false,
            retired: VecDeque::new(),
            leftovers: Leftovers::OfAnother,
        }
    }

    /// The same, with nothing in them, for a directory that came in the place of the old one.
    pub fn emptied(&self) -> Self {
        let leftovers = match self.leftovers {
            Leftovers::OfAnother => Leftovers::OfAnother,
            Leftovers::Unseen | Leftovers::Seen { .. } => Leftovers::Unseen,
        };
        Slots { leftovers, next: self.next, ..self.beside() }
    }

    /// Writes the files, and links the further ones of the package that is to be replaced.
    ///
    /// # Errors
    ///
    /// There is no room, or no right; nothing of the attempt is left in use.
    pub fn stage(
        &mut self,
        staging: &OwnedFd,
        files: &[File],
        old: Option<&Ours>,
        now: Instant,
    ) -> io::Result<Slot> {
        if self.retired.len() >= RETIRED_MAX {
            return Err(io::Error::other("too many replaced packages are still in retirement"));
        }
        let (slot, dir) = match self.reuse(staging, now)? {
            Some((slot, dir)) => (slot, Some(dir)),
            None => (self.make(staging)?, None),
        };
        match self.fill(staging, &slot, dir, files, old) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.discard(slot, now);
                Err(error)
            }
        }
    }

    /// Fills a slot; `dir` is its directory where that was there before, and may hold anything.
    fn fill(
        &mut self,
        staging: &OwnedFd,
        slot: &Slot,
        dir: Option<OwnedFd>,
        files: &[File],
        old: Option<&Ours>,
    ) -> io::Result<()> {
        let further = old.map_or(&[][..], |old| &old.further);
        let is_new = dir.is_none();
        let dir = match dir {
            Some(dir) => dir,
            None if self.modes_hold && further.is_empty() => {
                return fill_new(staging, &slot.name, files);
            }
            None => open_dir(staging, slot.name.as_str())?,
        };
        let held = fill(&dir, files)?;
        if let Some(old) = old {
            link(&old.dir, further, &dir)?;
        }
        self.modes_hold = held && is_new;
        Ok(())
    }

    /// Takes back a slot whose directory was visible until now.
    pub fn retire(&mut self, slot: Slot, now: Instant) {
        self.retired.push_back(Retired { number: slot.number, free_at: now + RETIREMENT });
    }

    /// Takes back a slot that was never visible.
    pub fn discard(&mut self, slot: Slot, now: Instant) {
        self.retired.push_front(Retired { number: slot.number, free_at: now });
    }

    /// Deletes a few of those that nobody will use again.
    pub fn sweep(&mut self, staging: &OwnedFd, now: Instant) {
        self.modes_hold = false;
        for _ in 0..DELETED_MAX {
            let Some(name) = self.surplus(staging, now) else { return };
            if let Err(error) = fault::step("stage.delete", || delete(staging, &name)) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(slot = ?name, error, "replaced package not deleted");
            }
        }
    }

    fn surplus(&mut self, staging: &OwnedFd, now: Instant) -> Option<CString> {
        // They are in order, so that one look tells whether more than the first `KEPT_MAX` are ripe.
        if self.retired.get(KEPT_MAX).is_some_and(|retired| retired.free_at <= now) {
            let Retired { number, .. } = self.retired.pop_front()?;
            let name = self.name(number);
            return Some(CString::new(name).expect("a slot's name has no NUL"));
        }
        let prefix = self.token.as_bytes();
        let look = || names(staging, LEFTOVERS_MAX, |name| !name.to_bytes().starts_with(prefix));
        match &mut self.leftovers {
            Leftovers::Unseen => {
                let (names, more) = look().unwrap_or_default();
                self.leftovers = Leftovers::Seen { names, more, free_at: now + RETIREMENT };
                None
            }
            Leftovers::Seen { names, more, free_at } if *free_at <= now => {
                if names.is_empty() && *more {
                    (*names, *more) = look().unwrap_or_default();
                }
                names.pop()
            }
            Leftovers::Seen { .. } | Leftovers::OfAnother => None,
        }
    }

    /// A ripe directory of ours, if there is one.
    fn reuse(&mut self, staging: &OwnedFd, now: Instant) -> io::Result<Option<(Slot, OwnedFd)>> {
        while self.retired.front().is_some_and(|retired| retired.free_at <= now) {
            let Some(Retired { number, .. }) = self.retired.pop_front() else { break };
            let slot = Slot { number, name: self.name(number) };
            match open_dir(staging, slot.name.as_str()) {
                Ok(dir) if is_ours(&dir)? => return Ok(Some((slot, dir))),
                // Gone or someone else's by now: then a new one does as well.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
                Err(error) => {
                    self.discard(slot, now);
                    return Err(error.into());
                }
            }
        }
        Ok(None)
    }

    /// A new directory: empty, and nobody else's.
    fn make(&mut self, staging: &OwnedFd) -> io::Result<Slot> {
        let number = self.next;
        self.next += HANDS;
        let slot = Slot { number, name: self.name(number) };
        fault::step("stage.mkdir", || mkdirat(staging, slot.name.as_str(), DIR_MODE))?;
        Ok(slot)
    }

    fn name(&self, number: u64) -> String {
        format!("{}.{number}", self.token)
    }
}

fn is_ours(dir: &OwnedFd) -> io::Result<bool> {
    Ok(fstat(dir)?.st_uid == rustix::process::geteuid().as_raw())
}

/// Fills a directory whatever is in it, and tells whether all modes were right already.
fn fill(dir: &OwnedFd, files: &[File]) -> io::Result<bool> {
    let mut held = true;
    let about = fstat(dir)?;
    if about.st_mode & 0o777 != DIR_MODE.as_raw_mode() {
        fchmod(dir, DIR_MODE)?;
        held = false;
    }
    let kept = |name: &[u8]| files.iter().any(|file| file.name.as_bytes() == name);
    let (foreign, _) = names(dir, ENTRIES_MAX, |name| !kept(name.to_bytes()))?;
    for name in foreign {
        unlinkat(dir, &name, AtFlags::empty())?;
    }
    for file in files {
        held &= fault::step("stage.write", || write(dir, file))?;
    }
    Ok(held)
}

/// Fills a directory that was made just now, where modes come out right. It is not opened: its files are
/// reached through its name, and never through a link that somebody may have put in its place.
fn fill_new(staging: &OwnedFd, slot: &str, files: &[File]) -> io::Result<()> {
    let flags = OPEN_FILE | OFlags::CREATE | OFlags::EXCL;
    let mut path = String::with_capacity(slot.len() + 32);
    for file in files {
        path.clear();
        [slot, "/", file.name].iter().for_each(|part| path.push_str(part));
        fault::step("stage.write", || {
            let create =
                || openat2(staging, path.as_str(), flags, FILE_MODE, ResolveFlags::NO_SYMLINKS);
            FsFile::from(retry_on_intr(create)?).write_all_at(file.text.as_bytes(), 0)
        })?;
    }
    Ok(())
}

fn link(from: &OwnedFd, names: &[CString], to: &OwnedFd) -> io::Result<()> {
    for name in names {
        linkat(from, name, to, name, AtFlags::empty())?;
    }
    Ok(())
}

const OPEN_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn create(dir: &OwnedFd, name: &str) -> io::Result<FsFile> {
    let flags = OPEN_FILE | OFlags::CREATE | OFlags::EXCL;
    Ok(FsFile::from(retry_on_intr(|| openat(dir, name, flags, FILE_MODE))?))
}

/// Writes one file, over the one that is there if nobody else can hold it; tells whether its mode was
/// right already.
fn write(dir: &OwnedFd, file: &File) -> io::Result<bool> {
    let (fd, size) = match open_own(dir, file.name)? {
        Some((fd, size)) => (FsFile::from(fd), size),
        None => (create(dir, file.name)?, 0),
    };
    let mode = Mode::from_raw_mode(fstat(&fd)?.st_mode & 0o7777);
    if mode != FILE_MODE {
        fchmod(&fd, FILE_MODE)?;
    }
    fd.write_all_at(file.text.as_bytes(), 0)?;
    if size > file.text.len() as u64 {
        fd.set_len(file.text.len() as u64)?;
    }
    Ok(mode == FILE_MODE)
}

/// The file of that name with its size, if it is a regular one of ours with this one name; any
/// other is unlinked.
fn open_own(dir: &OwnedFd, name: &str) -> io::Result<Option<(OwnedFd, u64)>> {
    match retry_on_intr(|| openat(dir, name, OPEN_FILE, Mode::empty())) {
        Ok(fd) => {
            let about = fstat(&fd)?;
            let regular = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
            let own = about.st_uid == rustix::process::geteuid().as_raw();
            if regular && own && about.st_nlink == 1 {
                return Ok(Some((fd, u64::try_from(about.st_size).unwrap_or(0))));
            }
        }
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO | Errno::ACCESS | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    unlinkat(dir, name, AtFlags::empty())?;
    Ok(None)
}

fn delete(staging: &OwnedFd, name: &CString) -> Result<(), Errno> {
    let dir = match open_dir(staging, name) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlinkat(staging, name, AtFlags::empty()),
        Err(error) => return Err(error),
    };
    for entry in names(&dir, ENTRIES_MAX, |_| true)?.0 {
        unlinkat(&dir, &entry, AtFlags::empty())?;
    }
    unlinkat(staging, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::sink::package::tree::Tree;

    struct Bench {
        dir: tempfile::TempDir,
        tree: Tree,
        slots: Slots,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::open(dir.path()).unwrap();
            Bench { dir, tree, slots: Slots::new(), start: Instant::now() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(".intentd").join(name)
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn stage(&mut self, text: &str, seconds: f64) -> Slot {
            let files = [File { name: "Kptfile", text: text.to_owned() }];
            self.slots.stage(&self.tree.staging, &files, None, self.at(seconds)).unwrap()
        }

        fn sweep(&mut self, seconds: f64) -> usize {
            self.slots.sweep(&self.tree.staging, self.at(seconds));
            fs::read_dir(self.path("")).unwrap().count()
        }
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn a_retired_directory_is_used_again_after_ten_seconds_and_allocates_nothing() {
        let mut bench = Bench::new();
        let first = bench.stage("a longer text", 0.0);
        let name = first.name.clone();
        let kptfile = bench.path(&name).join("Kptfile");
        let inodes = (inode(&bench.path(&name)), inode(&kptfile));
        fs::write(bench.path(&name).join("further"), "").unwrap();
        bench.slots.retire(first, bench.at(1.0));

        let other = bench.stage("other", 10.9);
        assert_ne!(other.name, name);
        assert_eq!(fs::read_to_string(&kptfile).unwrap(), "a longer text");
        let again = bench.stage("short", 11.0);
        assert_eq!(again.name, name);
        assert_eq!(fs::read_to_string(&kptfile).unwrap(), "short");
        assert_eq!((inode(&bench.path(&name)), inode(&kptfile)), inodes);
        assert_eq!(fs::read_dir(bench.path(&name)).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_another_name_elsewhere_is_never_written_to() {
        let mut bench = Bench::new();
        let slot = bench.stage("old", 0.0);
        let kept = bench.dir.path().join("kept");
        fs::hard_link(bench.path(&slot.name).join("Kptfile"), &kept).unwrap();
        bench.slots.retire(slot, bench.at(0.0));
        let slot = bench.stage("new", 10.0);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "old");
        assert_eq!(fs::read_to_string(bench.path(&slot.name).join("Kptfile")).unwrap(), "new");
    }

    #[test]
    fn a_slot_that_was_never_visible_is_free_at_once_and_one_that_is_gone_is_replaced() {
        let mut bench = Bench::new();
        let slot = bench.stage("a", 0.0);
        let name = slot.name.clone();
        bench.slots.discard(slot, bench.at(0.0));
        let slot = bench.stage("b", 0.0);
        assert_eq!(slot.name, name);
        fs::remove_dir_all(bench.path(&name)).unwrap();
        bench.slots.discard(slot, bench.at(0.0));
        assert_ne!(bench.stage("c", 0.0).name, name);
    }

    #[test]
    fn modes_are_mended_in_every_batch_whatever_masks_them() {
        use std::os::unix::fs::PermissionsExt;
        let mut bench = Bench::new();
        let modes = |bench: &Bench, slot: &Slot| {
            let path = bench.path(&slot.name);
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            (mode(&path), mode(&path.join("Kptfile")))
        };
        for _ in 0..3 {
            bench.sweep(0.0);
            for _ in 0..3 {
                let slot = bench.stage("a", 0.0);
                assert_eq!(modes(&bench, &slot), (0o755, 0o644));
            }
        }
    }

    #[test]
    fn slots_side_by_side_have_names_of_their_own_and_leave_each_other_alone() {
        let mut bench = Bench::new();
        let one = bench.stage("one", 0.0);
        let beside = bench.slots.beside();
        let first = std::mem::replace(&mut bench.slots, beside);
        let other = bench.stage("other", 0.0);
        assert_ne!(one.name, other.name);
        bench.sweep(0.0);
        assert_eq!(bench.sweep(20.0), 2);
        bench.slots = first;
        bench.sweep(20.0);
        assert_eq!(bench.sweep(40.0), 2);
        assert_ne!(bench.stage("third", 40.0).name, other.name);
    }

    #[test]
    fn leftovers_of_others_are_deleted_a_few_at_a_time_after_ten_seconds() {
        let mut bench = Bench::new();
        for at in 0..6 {
            fs::create_dir(bench.path(&format!("other.{at}"))).unwrap();
            fs::write(bench.path(&format!("other.{at}")).join("Kptfile"), "").unwrap();
        }
        fs::write(bench.path("stray"), "").unwrap();
        let own = bench.stage("own", 0.0);
        assert_eq!(bench.sweep(0.0), 8);
        assert_eq!(bench.sweep(9.9), 8, "a reader has ten seconds");
        assert_eq!(bench.sweep(10.0), 8 - DELETED_MAX);
        assert_eq!(bench.sweep(10.0), 1);
        assert!(bench.path(&own.name).exists());
    }

    #[test]
    fn ripe_directories_beyond_the_pool_are_deleted() {
        let mut bench = Bench::new();
        for _ in 0..KEPT_MAX + 3 {
            let slot = bench.stage("a", 0.0);
            bench.slots.retire(slot, bench.at(0.0));
        }
        assert_eq!(bench.sweep(9.9), KEPT_MAX + 3);
        assert_eq!(bench.sweep(10.0), KEPT_MAX);
        assert_eq!(bench.sweep(99.0), KEPT_MAX);
    }
}
