//! Filesystems that are small, break or are broken on purpose; unmounted when dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted filesystem of a row's own.
pub struct Disk {
    dir: tempfile::TempDir,
    /// Below which the image lies, where there is one.
    backing: Option<Box<Disk>>,
}

impl Disk {
    /// A filesystem in memory; the options are those of tmpfs.
    pub fn memory(options: &str) -> Option<Disk> {
        let disk = Disk { dir: tempfile::tempdir().unwrap(), backing: None };
        done("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &disk.shown()]).then_some(disk)
    }

    /// An ext4 of 64 MiB whose image lies in memory that has room for `backing` only.
    pub fn ext4(backing: &str) -> Option<Disk> {
        let backing = Disk::memory(&format!("size={backing}"))?;
        let image = backing.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).unwrap();
        // Journal and tables have their room at once, so that only data can find none.
        let eager = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        let image = image.to_string_lossy();
        let made =
            done("mkfs.ext4", &["-q", "-F", "-N", "2048", "-J", "size=4", "-E", eager, &image]);
        let disk = Disk { dir: tempfile::tempdir().unwrap(), backing: Some(Box::new(backing)) };
        (made && disk.mount()).then_some(disk)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Changes the options of the mount; `false` when the kernel does not let us.
    pub fn remount(&self, options: &str) -> bool {
        done("mount", &["-o", &format!("remount,{options}"), &self.shown()])
    }

    /// Unmounts and mounts again, as after a reboot: what is on no disk is lost. The image gets
    /// room for all it can hold.
    pub fn reboot(&self) {
        assert!(done("umount", &[&self.shown()]), "nothing uses the filesystem any more");
        let backing = self.backing.as_ref().expect("it lies in an image");
        assert!(backing.remount("size=128m"), "memory can be had");
        assert!(self.mount(), "the journal is replayed");
    }

    fn mount(&self) -> bool {
        let backing = self.backing.as_ref().expect("it lies in an image");
        let image = backing.path().join("image");
        done("mount", &["-o", "loop", &image.to_string_lossy(), &self.shown()])
    }

    fn shown(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Before the image below it, which is dropped after this.
        done("umount", &["-l", &self.shown()]);
    }
}

/// Fills a filesystem to its last byte and gives the file that does it.
pub fn fill(below: &Path) -> PathBuf {
    use std::io::Write;
    let path = below.join("ballast");
    let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
    while file.write_all(&[0; 65536]).is_ok() {}
    while file.write_all(&[0; 512]).is_ok() {}
    path
}

/// Takes all inodes and gives the directory that has them.
pub fn fill_with_names(below: &Path) -> PathBuf {
    let path = below.join("ballast");
    let _ = std::fs::create_dir(&path);
    let mut n = 0;
    while std::fs::File::create(path.join(n.to_string())).is_ok() {
        n += 1;
    }
    path
}

/// Whether a command did what it should.
pub fn done(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}
