//! Our clone: a bare repository that only holds what can be fetched again.
//!
//! Commits are built from the objects alone, without index and worktree, so that a crash at any
//! moment leaves unreachable objects and perhaps a lock file, and nothing that is half. The remote
//! is the truth: where its history was rewritten, the clone follows; where the clone is damaged, it
//! is made anew.
//!
//! Invariant: only the leader calls what is here, so a lock file that is found at the start, or
//! after a call was killed, has no owner.
//! Not here: reading objects (`objects`), making and offering commits (`commits`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::model::Code;
use crate::sink::git::program::{Program, Trouble};
use crate::sink::git::saying;
use crate::sink::git::site::Site;
use crate::sink::{Fault, Retry};

/// What git says of itself fits into this.
pub const SHORT_BYTES_MAX: usize = 1 << 20;

/// All objects that one call reads, and all names that one call lists.
const OBJECTS_BYTES_MAX: usize = 64 << 20;

/// Where the fetched branch stands in the clone.
const BASE: &str = "refs/intentd/base";

/// Directories below `refs` are few; more than this is not ours.
const LOCK_DEPTH_MAX: usize = 8;

#[derive(Debug)]
pub struct Clone {
    pub program: Program,
    pub site: Site,
    repository: PathBuf,
    pub token: Option<PathBuf>,
    pub is_signed: bool,
    /// It is there, and no lock in it is stale.
    is_ready: bool,
    /// It is to be made anew.
    is_damaged: bool,
    /// It is fetched without its history.
    is_shallow: bool,
}

impl Clone {
    pub fn new(program: Program, site: Site, token: Option<PathBuf>, is_signed: bool) -> Self {
        let repository = program.dir().join("repository");
        Clone {
            program,
            site,
            repository,
            token,
            is_signed,
            is_ready: false,
            is_damaged: false,
            is_shallow: false,
        }
    }

    /// Leaves out the history, for who only looks.
    pub fn only_newest(&mut self) {
        self.is_shallow = true;
    }

    /// Makes the clone where there is none, and removes locks that nobody holds.
    pub fn prepare(&mut self, due: Instant) -> Result<(), Fault> {
        if self.is_ready && self.repository.join("HEAD").exists() {
            return Ok(());
        }
        let at = self.repository.clone();
        let failed = |error: io::Error| Fault {
            code: Code::SinkUnavailable,
            message: format!("the clone `{}` cannot be used: {error}", at.display()),
            retry: Retry::Later,
        };
        self.program.prepare().map_err(failed)?;
        if self.is_damaged {
            match fs::remove_dir_all(&at) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => self.is_damaged = false,
            }
        }
        remove_locks(&at, LOCK_DEPTH_MAX).map_err(failed)?;
        let path = at.to_string_lossy().into_owned();
        let init = ["init", "--quiet", "--bare", "--template=", "--", &path];
        match self.program.run(&init, b"", SHORT_BYTES_MAX, due) {
            Ok(_) => {
                self.is_ready = true;
                Ok(())
            }
            Err(trouble) => {
                self.is_damaged = is_about_content(&trouble);
                Err(self.fault("the clone cannot be made", trouble))
            }
        }
    }

    /// Fetches the branch and gives its commit; none where the remote is empty.
    pub fn fetch(&mut self, due: Instant) -> Result<Option<String>, Fault> {
        let refspec = format!("+{}:{BASE}", self.site.reference());
        let remote = self.site.remote.clone();
        let mut fetch = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        fetch.extend(self.is_shallow.then_some("--depth=1"));
        fetch.extend(["--", &remote, &refspec]);
        match self.git(&fetch, b"", SHORT_BYTES_MAX, due) {
            Ok(_) => {}
            Err(Trouble::Failed { stderr, .. }) if stderr.contains("couldn't find remote ref") => {
                return self.is_empty(due);
            }
            Err(trouble) => return Err(self.afar("cannot be fetched", trouble)),
        }
        let name = format!("{BASE}^{{commit}}");
        let id = self.local(&["rev-parse", "--verify", &name], b"", due)?;
        Ok(Some(String::from_utf8_lossy(&id).trim().to_owned()))
    }

    /// Looks at the remote without a clone: the branch is there, or everything is still to come.
    pub fn look(&mut self, due: Instant) -> Result<(), Fault> {
        let (remote, reference) = (self.site.remote.clone(), self.site.reference());
        let ls = ["ls-remote", "--", &remote, &reference];
        match self.program.run(&ls, b"", SHORT_BYTES_MAX, due) {
            Ok(listed) if listed.is_empty() => self.is_empty(due).map(drop),
            Ok(_) => Ok(()),
            Err(trouble) => Err(self.afar("cannot be reached", trouble)),
        }
    }

    /// None if there is no branch at all; else ours is missing.
    fn is_empty(&mut self, due: Instant) -> Result<Option<String>, Fault> {
        let remote = self.site.remote.clone();
        let ls = ["ls-remote", "--heads", "--", &remote];
        let listed = self.program.run(&ls, b"", OBJECTS_BYTES_MAX, due);
        match listed {
            Ok(listed) if listed.is_empty() => Ok(None),
            Ok(_) => Err(Fault {
                code: Code::RepositoryNotReady,
                message: format!(
                    "the remote `{remote}` has branches, and no `{}`; make it first",
                    self.site.branch
                ),
                retry: Retry::Later,
            }),
            Err(trouble) => Err(self.afar("cannot be listed", trouble)),
        }
    }

    /// A call in the clone; one that is killed may leave a lock behind.
    pub fn git(
        &mut self,
        arguments: &[&str],
        input: &[u8],
        bytes_max: usize,
        due: Instant,
    ) -> Result<Vec<u8>, Trouble> {
        let repository = format!("--git-dir={}", self.repository.display());
        let mut all = vec![repository.as_str()];
        all.extend(arguments);
        let done = self.program.run(&all, input, bytes_max, due);
        if let Err(Trouble::Hung { .. } | Trouble::Broken(_)) = done {
            self.is_ready = false;
        }
        if let Err(Trouble::Failed { stderr, .. }) = &done
            && is_damage(stderr)
        {
            self.damage();
        }
        done
    }

    /// A call that needs nothing but the clone, so that its failure tells of a damaged one.
    pub fn local(
        &mut self,
        arguments: &[&str],
        input: &[u8],
        due: Instant,
    ) -> Result<Vec<u8>, Fault> {
        self.git(arguments, input, OBJECTS_BYTES_MAX, due).map_err(|trouble| {
            if is_about_content(&trouble) {
                self.damage();
            }
            self.fault("the clone cannot be used", trouble)
        })
    }

    pub fn damaged(&mut self, what: &str) -> Fault {
        self.damage();
        self.fault("the clone cannot be used", Trouble::Broken(what.to_owned()))
    }

    fn damage(&mut self) {
        (self.is_ready, self.is_damaged) = (false, true);
    }

    pub fn afar(&self, what: &str, trouble: Trouble) -> Fault {
        self.fault(&format!("the remote `{}` {what}", self.site.remote), trouble)
    }

    pub fn fault(&self, what: &str, trouble: Trouble) -> Fault {
        saying::fault(what, trouble, self.token.as_deref())
    }
}

/// Whether a failure tells of what the clone holds, and not of a full disk or of the program.
fn is_about_content(trouble: &Trouble) -> bool {
    let no_room = "No space left on device";
    matches!(trouble, Trouble::Failed { stderr, .. } if !stderr.contains(no_room))
}

/// What git says of a clone that lacks what it should have.
fn is_damage(stderr: &str) -> bool {
    [
        "bad object",
        "corrupt",
        "is empty",
        "not a git repository: '/",
        "missing blob",
        "missing tree",
    ]
    .iter()
    .any(|said| stderr.contains(said))
}

/// Removes what says that a call is under way, in the clone but not among its objects.
fn remove_locks(dir: &Path, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if depth > 0 && name != "objects" {
                remove_locks(&path, depth - 1)?;
            }
        } else if name.as_encoded_bytes().ends_with(b".lock") || name == "gc.pid" {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
