//! Our clone: a bare repository that only holds what can be fetched again.
//!
//! Commits are built from the objects alone, without index and worktree, so that a crash at any
//! moment leaves unreachable objects and perhaps a lock file, and nothing that is half. The remote
//! is the truth: where its history was rewritten, the clone follows; where the clone is damaged, it
//! is made anew.
//!
//! Invariant: only the leader calls what is here, so a lock file that is found at the start, or
//! after a call was killed, has no owner.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::Code;
use crate::sink::git::program::{Program, Trouble};
use crate::sink::git::saying;
use crate::sink::git::site::Site;
use crate::sink::{Fault, Retry};

/// What git says of itself fits into this.
const SHORT_BYTES_MAX: usize = 1 << 20;

/// All objects that one call reads, and all names that one call lists.
const OBJECTS_BYTES_MAX: usize = 64 << 20;

/// Commits in which our own trailers are looked for: a crash is followed by a look soon.
const COMMITS_LOOKED_AT: usize = 1000;

/// Where the fetched branch stands in the clone.
const BASE: &str = "refs/intentd/base";

/// Where our last commit stands in the clone, so that it is not collected.
const NEXT: &str = "refs/intentd/next";

/// Directories below `refs` are few; more than this is not ours.
const LOCK_DEPTH_MAX: usize = 8;

/// An object of the repository.
#[derive(Debug)]
pub struct Object {
    pub is_tree: bool,
    pub bytes: Vec<u8>,
}

/// A file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub mode: String,
    pub object: String,
    pub size: u64,
    pub path: String,
}

/// A file that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub mode: String,
    pub text: String,
}

/// A commit with the intents that its trailers name.
#[derive(Debug)]
pub struct Commit {
    pub id: String,
    pub intents: Vec<String>,
}

/// How a push ended.
#[derive(Debug)]
pub enum Pushed {
    Accepted,
    /// Somebody else was first.
    Moved,
    /// A rule of the remote declined what the commit holds.
    Declined(Fault),
}

#[derive(Debug)]
pub struct Clone {
    pub program: Program,
    site: Site,
    repository: PathBuf,
    token: Option<PathBuf>,
    is_signed: bool,
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

    pub fn site(&self) -> &Site {
        &self.site
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

    /// The objects of that name each, none for one that is not there.
    pub fn read(&mut self, names: &[String], due: Instant) -> Result<Vec<Option<Object>>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut input = names.join("\n").into_bytes();
        input.push(b'\n');
        let output = self.local(&["cat-file", "--batch"], &input, due)?;
        match objects(&output, names.len()) {
            Some(objects) => Ok(objects),
            None => Err(self.damaged("gave objects in no known form")),
        }
    }

    /// All regular files below a path of a commit, or the file itself; empty for the whole tree.
    pub fn list(&mut self, base: &str, path: &str, due: Instant) -> Result<Vec<Entry>, Fault> {
        let mut arguments = vec!["ls-tree", "-r", "-z", "-l", "--full-tree", "--", base];
        arguments.extend(Some(path).filter(|path| !path.is_empty()));
        let listed = self.local(&arguments, b"", due)?;
        Ok(listed.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    /// The last commits and the intents that they name, the newest first.
    pub fn commits(&mut self, base: &str, due: Instant) -> Result<Vec<Commit>, Fault> {
        let count = format!("-n{COMMITS_LOOKED_AT}");
        let format = "--format=%H %(trailers:key=Intent-Id,valueonly,separator=%x20)";
        let listed = self.local(&["log", &count, format, base, "--"], b"", due)?;
        let listed = String::from_utf8_lossy(&listed);
        let commits = listed.lines().filter_map(|line| {
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            let id = words.next()?.to_owned();
            Some(Commit { id, intents: words.map(str::to_owned).collect() })
        });
        Ok(commits.collect())
    }

    /// Makes a commit of the changes on the base, and gives its name.
    pub fn commit(
        &mut self,
        base: Option<&str>,
        changes: &[Change],
        message: &str,
        due: Instant,
    ) -> Result<String, Fault> {
        let stream = stream(&self.site, base, changes, message);
        let import = ["fast-import", "--quiet", "--force", "--done"];
        let printed = self.local(&import, &stream, due)?;
        let id = String::from_utf8_lossy(&printed).trim().to_owned();
        if !is_id(&id) {
            return Err(self.damaged("made a commit without a name"));
        }
        if !self.is_signed {
            return Ok(id);
        }
        let (name, address) = (&self.site.author_name, &self.site.author_address);
        let (name, address) = (format!("user.name={name}"), format!("user.email={address}"));
        let tree = format!("{id}^{{tree}}");
        let mut sign = vec!["-c", &name, "-c", &address, "commit-tree", "-S", "-F", "-"];
        sign.extend(base.into_iter().flat_map(|base| ["-p", base]));
        sign.push(&tree);
        match self.git(&sign, message.as_bytes(), SHORT_BYTES_MAX, due) {
            Ok(printed) => Ok(String::from_utf8_lossy(&printed).trim().to_owned()),
            Err(trouble) => Err(self.fault("the commit cannot be signed", trouble)),
        }
    }

    /// Offers the commit to the remote, which takes it only on top of what it has.
    pub fn push(&mut self, commit: &str, due: Instant) -> Result<Pushed, Fault> {
        let refspec = format!("{commit}:{}", self.site.reference());
        let remote = self.site.remote.clone();
        let push = ["push", "--porcelain", "--no-verify", "--", &remote, &refspec];
        match self.git(&push, b"", SHORT_BYTES_MAX, due) {
            Ok(_) => Ok(Pushed::Accepted),
            Err(Trouble::Failed { stdout, stderr }) => match rejection(&stdout) {
                Some(reason) => self.rejected(&reason, &stderr),
                None => {
                    let trouble = Trouble::Failed { stdout, stderr };
                    Err(self.afar("did not take the push", trouble))
                }
            },
            Err(trouble) => Err(self.afar("did not take the push", trouble)),
        }
    }

    fn rejected(&self, reason: &str, stderr: &str) -> Result<Pushed, Fault> {
        // Somebody else's push was faster, or is under way.
        const MOVED: &[&str] = &["fetch first", "non-fast-forward", "failed to update ref", "lock"];
        if MOVED.iter().any(|moved| reason.contains(moved)) {
            return Ok(Pushed::Moved);
        }
        let line = saying::remote_line(stderr).unwrap_or_else(|| saying::telling(stderr));
        let said = saying::without(self.token.as_deref(), &line);
        let reason = saying::without(self.token.as_deref(), reason);
        let message =
            format!("the remote `{}` declined the push ({reason}): {said}", self.site.remote);
        // A host may keep some paths from us, a hook may judge what is in the files: it may be one of
        // the batch that stands in the way of the others.
        if saying::is_refused(&reason) || saying::is_refused(stderr) {
            let code = Code::Forbidden;
            return Ok(Pushed::Declined(Fault { code, message, retry: Retry::Later }));
        }
        if reason.contains("declined") || reason.contains("prohibited") {
            let code = Code::AdmissionDenied;
            return Ok(Pushed::Declined(Fault { code, message, retry: Retry::Never }));
        }
        Err(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later })
    }

    /// A call in the clone; one that is killed may leave a lock behind.
    fn git(
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
    fn local(&mut self, arguments: &[&str], input: &[u8], due: Instant) -> Result<Vec<u8>, Fault> {
        self.git(arguments, input, OBJECTS_BYTES_MAX, due).map_err(|trouble| {
            if is_about_content(&trouble) {
                self.damage();
            }
            self.fault("the clone cannot be used", trouble)
        })
    }

    fn damaged(&mut self, what: &str) -> Fault {
        self.damage();
        self.fault("the clone cannot be used", Trouble::Broken(what.to_owned()))
    }

    fn damage(&mut self) {
        (self.is_ready, self.is_damaged) = (false, true);
    }

    fn afar(&self, what: &str, trouble: Trouble) -> Fault {
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

/// What `git fast-import` reads.
fn stream(site: &Site, base: Option<&str>, changes: &[Change], message: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let who = format!("{} <{}> {now} +0000", site.author_name, site.author_address);
    let mut text = format!(
        "feature done\nfeature get-mark\ncommit {NEXT}\nmark :1\nauthor {who}\ncommitter {who}\ndata \
         {}\n{message}\n",
        message.len()
    );
    if let Some(base) = base {
        let _ = writeln!(text, "from {base}");
    }
    for Change { path, mode, text: content } in changes {
        // A path in quotes may hold everything but what the quotes themselves take.
        let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(text, "M {mode} inline \"{path}\"\ndata {}\n{content}", content.len());
    }
    text.push_str("\nget-mark :1\ndone\n");
    text.into_bytes()
}

/// Takes apart what `git cat-file --batch` printed.
fn objects(mut output: &[u8], count: usize) -> Option<Vec<Option<Object>>> {
    let mut objects = Vec::with_capacity(count);
    for _ in 0..count {
        let end = output.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&output[..end]).into_owned();
        output = &output[end + 1..];
        if line.ends_with(" missing") {
            objects.push(None);
            continue;
        }
        let mut words = line.split(' ').skip(1);
        let (kind, size) = (words.next()?, words.next()?.parse::<usize>().ok()?);
        let bytes = output.get(..size)?.to_vec();
        output = output.get(size + 1..)?;
        objects.push(Some(Object { is_tree: kind == "tree", bytes }));
    }
    Some(objects)
}

/// A regular file of `git ls-tree -l`.
fn entry(line: &[u8]) -> Option<Entry> {
    let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let mut words = about.split_ascii_whitespace();
    let (mode, _, object, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let size = size.parse().ok()?;
    mode.starts_with("100").then(|| Entry {
        mode: mode.to_owned(),
        object: object.to_owned(),
        size,
        path: path.to_owned(),
    })
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Why the one reference was not updated, as `git push --porcelain` has it in brackets.
fn rejection(porcelain: &str) -> Option<String> {
    let line = porcelain.lines().find(|line| line.starts_with('!'))?;
    let reason = line.rsplit_once(" (").map_or(line, |(_, reason)| reason);
    Some(reason.trim_end_matches(')').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_prints_is_taken_apart_and_nothing_else_is() {
        let output = b"a:b missing\n0a tree 2\nxy\n0b blob 3\na\nb\n0c blob 0\n\n";
        let read = objects(output, 4).unwrap();
        assert!(read[0].is_none());
        assert!(read[1].as_ref().unwrap().is_tree);
        assert_eq!(read[2].as_ref().unwrap().bytes, b"a\nb");
        assert_eq!(read[3].as_ref().unwrap().bytes, b"");
        for broken in [&b"0a blob 9\nxy\n"[..], b"0a blob\n", b"0a", b""] {
            assert!(objects(broken, 1).is_none());
        }
        let file = entry(b"100755 blob 0a      12\ta b/\xc3\xa9").unwrap();
        assert_eq!(
            (file.mode.as_str(), file.size, file.path.as_str()),
            ("100755", 12, "a b/\u{e9}")
        );
        for other in
            [&b"120000 blob 0a 1\ta"[..], b"160000 commit 0a -\ta", b"100644 blob 0a 1\t\xff", b""]
        {
            assert!(entry(other).is_none());
        }
        let said =
            "To /x\n!\t0a:refs/heads/main\t[remote rejected] (pre-receive hook declined)\nDone\n";
        assert_eq!(rejection(said).as_deref(), Some("pre-receive hook declined"));
        assert_eq!(rejection("To /x\n \ta:b\t1..2\nDone\n"), None);
    }
}
