//! Runs a command for each intent: an emitter in conductor-loop's form, or any argument vector.
//!
//! No shell is involved. The command gets a private copy of the document under the dropped file's
//! name, the output directory, and an environment of four variables: `PATH` (fixed), `HOME`,
//! `LANG=C.UTF-8` and `INTENTD_SEQ` (the intent's number, for its logs). Exit code 0 is success; any
//! other, a signal and a timeout are faults of the world and are tried again within the retry
//! budget, because only the command knows whether the intent could ever succeed.
//!
//! Invariant: when an answer is given, no process of the command's group is left. A command runs only
//! while the scratch directory is locked and the fence holds: no new leader begins meanwhile.
//! Not here: running the child (`sink::child`).

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::model::Code;
use crate::sink::child::{self, Ending, Pipes};
use crate::sink::lock::{self, Lock};
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, Seal, Sink};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const INTENT: &str = "{intent}";
const OUT: &str = "{out}";

/// Why an exec sink cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the `command` of sink `{name}` is empty")]
    NoCommand { name: String },
    #[error("make `{path}` absolute")]
    Absolute { path: PathBuf, source: io::Error },
}

/// Runs a command for each intent.
#[derive(Debug)]
pub struct Exec {
    name: String,
    command: Vec<OsString>,
    out: PathBuf,
    timeout: Duration,
    /// Private copies of documents, below the state directory. The directory itself is never
    /// removed: it is what is locked while a command runs.
    scratch: PathBuf,
    lock: Lock,
    /// Leftovers of a killed predecessor are gone.
    swept: bool,
}

impl Exec {
    /// `command` is a program with its arguments, in which `{intent}` and `{out}` stand for the
    /// paths; where neither occurs, `-intent FILE -out DIR` is appended. `out` is created when
    /// missing. `scratch` belongs to this sink alone.
    ///
    /// # Errors
    ///
    /// The command is empty, or a path cannot be made absolute.
    pub fn new(
        name: String,
        command: &[String],
        out: &Path,
        timeout: Duration,
        scratch: &Path,
    ) -> Result<Self, Error> {
        if command.first().is_none_or(String::is_empty) {
            return Err(Error::NoCommand { name });
        }
        let mut command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let placed = |argument: &OsString| {
            argument.to_string_lossy().contains(INTENT) || argument.to_string_lossy().contains(OUT)
        };
        if !command.iter().any(placed) {
            command.extend(["-intent", INTENT, "-out", OUT].map(OsString::from));
        }
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .map_err(|source| Error::Absolute { path: path.to_owned(), source })
        };
        let (out, scratch) = (absolute(out)?, absolute(scratch)?);
        Ok(Exec { name, command, out, timeout, scratch, lock: Lock::default(), swept: false })
    }
}

impl Sink for Exec {
    fn name(&self) -> &str {
        &self.name
    }

    /// One: a command may take the whole time that a batch is given.
    fn batch_max(&self) -> usize {
        1
    }

    fn probe(&mut self) -> Result<(), Fault> {
        let program = Path::new(&self.command[0]);
        if find(program).is_none() {
            return Err(unavailable(format!(
                "the command `{}` is not an executable file on {PATH}",
                program.display()
            )));
        }
        let existing = self.out.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|error| {
                unavailable(format!("`{}` cannot be written: {error}", existing.display()))
            })
    }

    fn seal(&self, wait: Duration) -> Result<Option<Seal>, Fatal> {
        let failed = |source| Fatal::Lock { path: self.scratch.clone(), source };
        let scratch = self.open_scratch().map_err(failed)?;
        lock::seal(&scratch, &self.scratch, wait).map(Some)
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        let mut answers = Vec::with_capacity(batch.len());
        for delivery in batch {
            if Instant::now() >= context.deadline {
                answers.push(Answer::Failed(unavailable(
                    "the commands of earlier intents took all the time there was".to_owned(),
                )));
                continue;
            }
            // Nothing has happened yet: without the lock (no descriptor left, say) it is tried again.
            let locked = self
                .open_scratch()
                .and_then(|scratch| self.lock.acquire(&scratch, context.deadline));
            let why = match &locked {
                Ok(Some(_)) => None,
                Ok(None) => Some("was locked all the time".to_owned()),
                Err(error) => Some(format!("cannot be locked: {error}")),
            };
            if let Some(why) = why {
                let message = format!("`{}` {why}", self.scratch.display());
                answers.push(Answer::Failed(unavailable(message)));
                continue;
            }
            context.fence.check()?;
            answers.push(match self.run(delivery, context.deadline) {
                Ok(()) => Answer::Done(Confirmation {
                    location: self.out.display().to_string(),
                    unchanged: false,
                    further: Default::default(),
                }),
                Err(fault) => Answer::Failed(fault),
            });
        }
        Ok(answers)
    }
}

impl Exec {
    fn open_scratch(&self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.scratch)?;
        File::open(&self.scratch)
    }

    fn run(&mut self, delivery: &Delivery<'_>, deadline: Instant) -> Result<(), Fault> {
        let (copy, intent) = self.place(delivery).map_err(|error| {
            unavailable(format!(
                "no copy for the command can be kept in `{}`: {error}",
                self.scratch.display()
            ))
        })?;
        let started = Instant::now();
        let due = deadline.min(started + self.timeout);
        let ended = child::run(self.command(&intent, delivery), due, Pipes::default());
        // What cannot be removed now is removed by the next start.
        let _ = fs::remove_dir_all(&copy);
        self.judge(ended.map(|ended| ended.ending), due - started)
    }

    /// Prepares the output directory and the private copy, and names the copy's directory and file.
    fn place(&mut self, delivery: &Delivery<'_>) -> io::Result<(PathBuf, PathBuf)> {
        fs::create_dir_all(&self.out)?;
        if !self.swept {
            for left in fs::read_dir(&self.scratch)? {
                fs::remove_dir_all(left?.path())?;
            }
            self.swept = true;
        }
        let dir = self.scratch.join(delivery.seq.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let path = dir.join(delivery.file);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(delivery.document)?;
        Ok((dir, path))
    }

    fn command(&self, intent: &Path, delivery: &Delivery<'_>) -> Command {
        let arguments = self.command[1..].iter().map(|text| filled(text, intent, &self.out));
        let mut command = Command::new(&self.command[0]);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", std::env::var_os("HOME").unwrap_or_else(|| "/".into()))
            .env("LANG", "C.UTF-8")
            .env("INTENTD_SEQ", delivery.seq.to_string());
        command
    }

    fn judge(&self, ending: io::Result<Ending>, given: Duration) -> Result<(), Fault> {
        let program = Path::new(&self.command[0]).display();
        let failed = |message| Fault { code: Code::CommandFailed, message, retry: Retry::Later };
        match ending {
            Ok(Ending::Exited { code: 0, .. }) => Ok(()),
            Ok(Ending::Exited { code, said }) => {
                Err(failed(format!("`{program}` ended with exit code {code}{}", tail(&said))))
            }
            Ok(Ending::Killed { signal, said }) => {
                Err(failed(format!("`{program}` was killed by {signal}{}", tail(&said))))
            }
            // Never said of a child whose output is not captured.
            Ok(Ending::TooLong { said }) => {
                Err(failed(format!("`{program}` wrote too much{}", tail(&said))))
            }
            Ok(Ending::TimedOut { said }) => Err(failed(format!(
                "`{program}` had not ended after {:.1} s and was killed{}",
                given.as_secs_f64(),
                tail(&said)
            ))),
            Err(error) => Err(unavailable(format!("`{program}` cannot be run: {error}"))),
        }
    }
}

fn tail(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

fn unavailable(message: String) -> Fault {
    Fault { code: Code::SinkUnavailable, message, retry: Retry::Later }
}

/// The argument with its placeholders replaced, in one pass: a path that itself holds a
/// placeholder stays as it is.
fn filled(argument: &OsStr, intent: &Path, out: &Path) -> OsString {
    let mut rest = argument.as_bytes();
    let mut filled = Vec::with_capacity(rest.len());
    while let Some(first) = rest.first() {
        if let Some(after) = rest.strip_prefix(INTENT.as_bytes()) {
            filled.extend_from_slice(intent.as_os_str().as_bytes());
            rest = after;
        } else if let Some(after) = rest.strip_prefix(OUT.as_bytes()) {
            filled.extend_from_slice(out.as_os_str().as_bytes());
            rest = after;
        } else {
            filled.push(*first);
            rest = &rest[1..];
        }
    }
    OsString::from_vec(filled)
}

/// The executable file that the program's name leads to.
fn find(program: &Path) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if program.as_os_str().as_bytes().contains(&b'/') {
        return Some(program.to_owned()).filter(executable);
    }
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once_and_only_they() {
        let (intent, out) = (Path::new("/s/{out}/a.json"), Path::new("/o"));
        for (argument, expected) in [
            ("{intent}", "/s/{out}/a.json"),
            ("--in={intent}:{out}", "--in=/s/{out}/a.json:/o"),
            ("{other} {", "{other} {"),
            ("", ""),
        ] {
            assert_eq!(filled(OsStr::new(argument), intent, out), OsString::from(expected));
        }
    }

    #[test]
    fn a_command_without_placeholders_is_given_conductor_loops_flags() {
        let command = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let exec = Exec::new(
                "exec".to_owned(),
                &words,
                Path::new("/o"),
                Duration::from_secs(30),
                Path::new("/s"),
            );
            exec.map(|exec| exec.command.join(OsStr::new(" ")))
        };
        assert_eq!(command(&["porch"]).unwrap(), "porch -intent {intent} -out {out}");
        assert_eq!(command(&["x", "-f{intent}"]).unwrap(), "x -f{intent}");
        assert!(matches!(command(&[]), Err(Error::NoCommand { .. })));
        assert!(matches!(command(&[""]), Err(Error::NoCommand { .. })));
    }
}
