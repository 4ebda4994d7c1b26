//! The git sink on real repositories: bare ones in a temporary directory, reached by `file://`, and
//! by scripts that stand for `ssh` or for git itself where these are to misbehave.

mod crash;
mod editing;

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use intentd::config::GitSettings;
use intentd::model::{Code, Seq};
use intentd::sink::git::{Error, Git};
use intentd::sink::{Answer, Context, Fatal, Fence, Retry, Sink, Term, Waker};
use tempfile::TempDir;

use super::{
    Fencing, Job, PATIENCE, Steps, Subject, deliver, deliver_by, done, failed, holds_the_contract,
    job,
};

/// Says loudly that git is missing; the tests then show nothing.
pub fn git_is_missing() -> bool {
    let missing = Command::new("git").arg("--version").output().is_err();
    if missing {
        crate::compose::skipped("there is no git");
    }
    missing
}

/// Runs git as a person would, and gives what it printed.
#[track_caller]
pub fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", dir);
    command.env("GIT_CONFIG_NOSYSTEM", "1").current_dir(dir);
    command.args(["-c", "user.name=Foreign", "-c", "user.email=f@x", "-c", "core.autocrlf=false"]);
    command.args(["-c", "init.defaultBranch=main", "-c", "advice.detachedHead=false"]);
    let output = command.args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "git {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A remote with the sink's directory beside it.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// An empty remote.
    pub fn new() -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        git(bench.dir.path(), &["init", "--quiet", "--bare", "remote.git"]);
        bench
    }

    /// A remote whose branch holds these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let bench = Bench::new();
        bench.commit("Begin", files);
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn remote(&self) -> PathBuf {
        self.path("remote.git")
    }

    /// Somebody else's commit on top of the branch.
    pub fn commit(&self, subject: &str, files: &[(&str, &str)]) {
        let other = self.path("other");
        if !other.exists() {
            git(self.dir.path(), &["init", "--quiet", "other"]);
            git(&other, &["remote", "add", "origin", "../remote.git"]);
        }
        git(&other, &["fetch", "--quiet", "origin"]);
        if !git(&other, &["ls-remote", "origin", "refs/heads/main"]).is_empty() {
            git(&other, &["checkout", "--quiet", "-B", "main", "origin/main"]);
        }
        for (path, text) in files {
            fs::create_dir_all(other.join(path).parent().unwrap()).unwrap();
            fs::write(other.join(path), text).unwrap();
        }
        git(&other, &["add", "--all"]);
        git(&other, &["commit", "--quiet", "--allow-empty", "-m", subject]);
        git(&other, &["push", "--quiet", "origin", "HEAD:refs/heads/main"]);
    }

    pub fn settings(&self) -> GitSettings {
        GitSettings {
            remote: format!("file://{}", self.remote().display()),
            branch: "main".to_owned(),
            edits: false,
            path: "{package}".to_owned(),
            kind: "Deployment".to_owned(),
            author: "intentd <intentd@localhost>".to_owned(),
            program: "git".to_owned(),
            timeout: Duration::from_secs(60),
            token_file: None,
            username: "git".to_owned(),
            ca_file: None,
            ssh_program: "ssh".to_owned(),
            ssh_key: None,
            known_hosts: None,
            signing_key: None,
            signing_format: "ssh".to_owned(),
        }
    }

    pub fn sink(&self) -> Git {
        self.sink_with(|_| {})
    }

    pub fn sink_with(&self, change: impl FnOnce(&mut GitSettings)) -> Git {
        let mut settings = self.settings();
        change(&mut settings);
        Git::new("git".to_owned(), &settings, &self.path("state/git/git")).unwrap()
    }

    /// Subjects of the branch, the newest first.
    pub fn subjects(&self) -> Vec<String> {
        let log = git(&self.remote(), &["log", "--format=%s", "main"]);
        log.lines().map(str::to_owned).collect()
    }

    pub fn tip(&self) -> String {
        git(&self.remote(), &["rev-parse", "main"]).trim().to_owned()
    }

    pub fn text(&self, path: &str) -> String {
        git(&self.remote(), &["show", &format!("main:{path}")])
    }

    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn hook(&self, name: &str, text: &str) {
        self.script(&format!("remote.git/hooks/{name}"), &format!("#!/bin/sh\n{text}\n"));
    }
}

/// A job of that number in the ledger.
pub fn numbered(seq: u64, target: &str, replicas: u32) -> Job {
    Job { seq: Seq(seq), ..job(target, replicas) }
}

/// Leads under a name, and does something each time it is asked; the first time is at the start.
struct Meddling<F>(Cell<u32>, F);

impl<F: Fn(u32)> Fence for Meddling<F> {
    fn check(&self) -> Result<(), Fatal> {
        self.0.set(self.0.get() + 1);
        (self.1)(self.0.get());
        Ok(())
    }

    fn term(&self) -> Term<'_> {
        Term { ledger: "0192-aa", epoch: 7 }
    }
}

fn deliver_meddled(sink: &mut Git, jobs: &[&Job], meddle: impl Fn(u32)) -> Vec<Answer> {
    let (journal, waker): (_, Waker) = (Steps::default(), Arc::new(|_| {}));
    let fence = Meddling(Cell::new(0), meddle);
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let batch: Vec<_> = jobs.iter().map(|job| job.delivery()).collect();
    let answers = sink.deliver(&batch, &context).unwrap();
    for (seq, step) in journal.taken() {
        assert!(step.0.starts_with("{\"commit\":\""), "{seq}: {step:?}");
    }
    answers
}

#[test]
fn a_branch_of_a_remote_holds_the_contract() {
    if git_is_missing() {
        return;
    }
    holds_the_contract("git", || {
        let bench = Bench::new();
        let stall = bench.path("stall");
        bench
            .hook("pre-receive", &format!("while [ -e {} ]; do sleep 0.02; done", stall.display()));
        let remote = bench.remote();
        Subject {
            sink: Box::new(bench.sink()),
            visible: Box::new(move || {
                let _kept = &bench;
                if git(&remote, &["for-each-ref"]).is_empty() {
                    return Vec::new();
                }
                let log = git(&remote, &["log", "-p", "--format=%B", "main"]);
                log.lines().map(str::to_owned).collect()
            }),
            stall: Box::new(move || {
                fs::write(&stall, "").unwrap();
                Box::new(())
            }),
        }
    });
}

#[test]
fn a_batch_is_one_commit_with_trailers_and_what_is_there_already_is_none() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[("README.md", "theirs\n")]);
    let mut sink = bench.sink();
    sink.probe().unwrap();
    let mut jobs = [numbered(11, "a", 3), numbered(12, "b", 4)];
    jobs[0].intent.correlation_id = Some("one\nIntent-Id: 99@x".to_owned());
    let both: Vec<&Job> = jobs.iter().collect();
    let answers = deliver_meddled(&mut sink, &both, |_| {});
    let tip = bench.tip();
    for answer in &answers {
        let confirmation = done(answer);
        assert_eq!((&confirmation.location, confirmation.unchanged), (&tip, false));
        assert_eq!(confirmation.further["branch"], "main");
    }
    assert_eq!(bench.subjects(), ["Deliver 2 intents", "Begin"]);
    let about =
        git(&bench.remote(), &["log", "-n1", "--format=%an <%ae>%n%cn%n%b%(trailers)", "main"]);
    let trailers = "Intent-Id: 11@0192-aa\nIntent-Seq: 11\nCorrelation-Id: one Intent-Id: 99@x\n\
                    Intent-Id: 12@0192-aa\nIntent-Seq: 12\nIntent-Epoch: 7\n";
    let deeds = "- Scale ran-a/a to 3\n- Scale ran-a/b to 4\n";
    let head = "intentd <intentd@localhost>\nintentd\n";
    assert_eq!(about.trim(), format!("{head}{deeds}\n{trailers}{trailers}").trim());
    for job in &jobs {
        for file in &job.package.files {
            assert_eq!(bench.text(&format!("{}/{}", job.package.name, file.name)), file.text);
        }
    }
    assert_eq!(bench.text("README.md"), "theirs\n");

    let mut again = numbered(13, "a", 3);
    let answers = deliver_meddled(&mut sink, &[&again], |_| {});
    assert!(!done(&answers[0]).unchanged, "nobody has finished just this before");
    again.last = Some(again.package.digest);
    let answers = deliver_meddled(&mut sink, &[&again], |_| {});
    assert!(done(&answers[0]).unchanged);
    assert_eq!(done(&answers[0]).location, tip);
    assert_eq!(bench.tip(), tip, "no commit without a change");

    // What kpt adds to a Kptfile is no change, and what others put beside our files stays.
    let kptfile = format!("{}status: {{}}\n", bench.text("scale-ran-a-a/Kptfile"));
    let group = ("scale-ran-a-a/resourcegroup.yaml", "kind: ResourceGroup\n");
    bench.commit("Render", &[("scale-ran-a-a/Kptfile", &kptfile), group]);
    assert!(done(&deliver_meddled(&mut sink, &[&again], |_| {})[0]).unchanged);
    let answers = deliver_meddled(&mut sink, &[&numbered(14, "a", 9)], |_| {});
    assert!(!done(&answers[0]).unchanged);
    assert_eq!(bench.text(group.0), group.1);
    assert!(bench.text("scale-ran-a-a/deployment.yaml").contains("replicas: 9"));
}

#[test]
fn a_fence_that_falls_before_the_push_keeps_the_commit_here() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    let mut sink = bench.sink();
    let soon = Instant::now() + PATIENCE;
    let fenced = deliver_by(&mut sink, &[&job("a", 3)], &Fencing::holds_for(1), soon);
    assert!(matches!(fenced, Err(Fatal::Fenced { .. })), "{fenced:?}");
    assert_eq!(bench.subjects(), ["Begin"]);
}

#[test]
fn what_is_not_ours_is_never_touched() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[("scale-ran-a-a/x.yaml", "x\n"), ("deep", "a file\n")]);
    let mut sink = bench.sink();
    let answers = deliver(&mut sink, &[&numbered(1, "a", 3), &numbered(2, "b", 3)]);
    assert_eq!(
        failed(&answers[0], Code::PackageConflict, Retry::Never),
        "`scale-ran-a-a` has no Kptfile; move it away, then retry"
    );
    done(&answers[1]);
    let mut below = bench.sink_with(|settings| settings.path = "deep/er/{package}".to_owned());
    let answers = deliver(&mut below, &[&numbered(3, "c", 3)]);
    failed(&answers[0], Code::PackageConflict, Retry::Never);
    assert_eq!(
        (bench.text("scale-ran-a-a/x.yaml"), bench.text("deep")),
        ("x\n".into(), "a file\n".into())
    );
    let mut placed =
        bench.sink_with(|settings| settings.path = "k/{namespace}/{package}".to_owned());
    done(&deliver(&mut placed, &[&numbered(4, "c", 3)])[0]);
    assert!(bench.text("k/ran-a/scale-ran-a-c/Kptfile").contains("scale-ran-a-c"));
}

#[test]
fn a_commit_that_others_push_in_between_is_built_upon() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    let mut sink = bench.sink();
    // The second question comes right before the push.
    let answers = deliver_meddled(&mut sink, &[&numbered(1, "a", 3)], |asked| {
        if asked == 2 {
            bench.commit("Theirs", &[("theirs.yaml", "x\n")]);
        }
    });
    assert_eq!(done(&answers[0]).location, bench.tip());
    assert_eq!(bench.subjects(), ["Scale ran-a/a to 3", "Theirs", "Begin"]);

    let answers = deliver_meddled(&mut sink, &[&numbered(2, "a", 4)], |asked| {
        if asked > 1 {
            bench.commit("Again", &[]);
        }
    });
    let message = failed(&answers[0], Code::SinkUnavailable, Retry::Later);
    assert!(message.contains("others were faster"), "{message}");
    assert_eq!(bench.subjects().iter().filter(|subject| *subject == "Again").count(), 8);
    assert!(bench.text("scale-ran-a-a/deployment.yaml").contains("replicas: 3"));
}

#[test]
fn a_rewritten_history_is_followed_and_a_missing_branch_is_named() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[("old", "x\n")]);
    let mut sink = bench.sink();
    done(&deliver(&mut sink, &[&numbered(1, "a", 3)])[0]);
    let other = bench.path("other");
    git(&other, &["checkout", "--quiet", "--orphan", "fresh"]);
    git(&other, &["commit", "--quiet", "-m", "Rewritten"]);
    git(&other, &["push", "--quiet", "--force", "origin", "fresh:main"]);
    done(&deliver(&mut sink, &[&numbered(2, "a", 5)])[0]);
    assert_eq!(bench.subjects(), ["Scale ran-a/a to 5", "Rewritten"]);

    let mut lost = bench.sink_with(|settings| settings.branch = "release/1".to_owned());
    let message = failed(
        &deliver(&mut lost, &[&numbered(3, "a", 6)])[0],
        Code::RepositoryNotReady,
        Retry::Later,
    );
    assert!(message.ends_with("has branches, and no `release/1`; make it first"), "{message}");
    assert_eq!(lost.probe().unwrap_err().code, Code::RepositoryNotReady);
    assert_eq!(bench.subjects().len(), 2);
}

#[test]
fn a_hook_that_declines_one_intent_does_not_hold_up_the_others() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    bench.hook(
        "pre-receive",
        "while read old new ref; do\n\
         git diff --name-only $old $new | grep -q ran-a-b/ && { echo 'b is frozen' >&2; exit 1; }\n\
         done; exit 0",
    );
    let mut sink = bench.sink();
    let jobs = [numbered(1, "a", 3), numbered(2, "b", 3), numbered(3, "c", 3)];
    let answers = deliver(&mut sink, &jobs.iter().collect::<Vec<_>>());
    done(&answers[0]);
    let message = failed(&answers[1], Code::AdmissionDenied, Retry::Never);
    assert!(
        message.ends_with("declined the push (pre-receive hook declined): b is frozen"),
        "{message}"
    );
    done(&answers[2]);
    assert_eq!(bench.subjects(), ["Scale ran-a/c to 3", "Scale ran-a/a to 3", "Begin"]);

    bench.hook(
        "pre-receive",
        "echo 'You are not allowed to push to a protected branch' >&2; exit 1",
    );
    failed(&deliver(&mut sink, &[&numbered(4, "d", 3)])[0], Code::Forbidden, Retry::Later);
}

#[test]
fn a_stale_lock_and_a_damaged_clone_are_repaired() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    done(&deliver(&mut bench.sink(), &[&numbered(1, "a", 3)])[0]);
    let clone = bench.path("state/git/git/repository");
    for lock in ["refs/intentd/base.lock", "packed-refs.lock", "config.lock", "HEAD.lock"] {
        fs::write(clone.join(lock), "").unwrap();
    }
    done(&deliver(&mut bench.sink(), &[&numbered(2, "a", 4)])[0]);
    assert!(!clone.join("refs/intentd/base.lock").exists());

    for part in ["objects", "HEAD", "config"] {
        let mut sink = bench.sink();
        let path = clone.join(part);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::write(&path, "[x").unwrap()
        }
        let seq = 10 + part.len() as u64;
        let wanted = numbered(seq, "a", seq as u32);
        // The first try may be the one that finds out.
        let answers = deliver(&mut sink, &[&wanted]);
        if let Answer::Failed(fault) = &answers[0] {
            assert_eq!(
                (fault.code, fault.retry),
                (Code::SinkUnavailable, Retry::Later),
                "{fault:?}"
            );
            done(&deliver(&mut sink, &[&wanted])[0]);
        }
    }
    assert!(bench.text("scale-ran-a-a/deployment.yaml").contains("replicas: 16"));
}

#[test]
fn a_missing_or_hanging_program_and_a_remote_that_talks_nonsense_are_told() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    let told = |sink: &mut Git, deadline: Instant| {
        let answers = deliver_by(sink, &[&job("a", 3)], &Fencing::holds(), deadline).unwrap();
        failed(&answers[0], Code::SinkUnavailable, Retry::Later)
    };
    let later = || Instant::now() + PATIENCE;
    let mut missing = bench.sink_with(|settings| settings.program = "/nonexistent/git".to_owned());
    assert!(told(&mut missing, later()).contains("git cannot be run: No such file"));
    assert!(missing.probe().unwrap_err().message.contains("git cannot be run"));

    let hanging = bench.script("hanging", "#!/bin/sh\nsleep 600 & wait\n");
    let mut hanging = bench.sink_with(|settings| settings.program = hanging);
    let message = told(&mut hanging, Instant::now() + Duration::from_millis(200));
    assert!(message.ends_with("git had not ended after 0.2 s and was killed"), "{message}");
    let endless = bench.script("endless", "#!/bin/sh\nexec yes\n");
    let mut endless = bench.sink_with(|settings| settings.program = endless);
    assert!(told(&mut endless, later()).contains("git gave more than"));

    let garbage = bench.script("garbage", "#!/bin/sh\nhead -c 100000 /dev/urandom\necho no >&2\n");
    let mut garbage = bench.sink_with(|settings| {
        settings.remote = "git@host.invalid:a.git".to_owned();
        settings.ssh_program = garbage;
    });
    assert!(told(&mut garbage, later()).contains("cannot be fetched"));
    let refused = bench.script(
        "refused",
        "#!/bin/sh\necho 'git@h: Permission denied (publickey).' >&2\nexit 255\n",
    );
    let mut refused = bench.sink_with(|settings| {
        settings.remote = "git@host.invalid:a.git".to_owned();
        settings.ssh_program = refused;
    });
    let fault = refused.probe().unwrap_err();
    assert_eq!(fault.code, Code::Forbidden);
    assert!(fault.message.ends_with("Permission denied (publickey)."), "{fault:?}");
    let mut nowhere = bench.sink_with(|settings| settings.remote = "/nonexistent/a.git".to_owned());
    assert!(told(&mut nowhere, later()).contains("does not appear to be a git repository"));
    let mut helper = bench.settings();
    helper.remote = "ext::sh -c id".to_owned();
    let refused = Git::new("git".to_owned(), &helper, &bench.path("state"));
    assert!(matches!(refused, Err(Error::Remote)));
}

#[test]
fn a_web_server_that_is_no_git_server_or_wants_a_password_is_told() {
    let has_http = git_is_missing()
        || Path::new(git(Path::new("/"), &["--exec-path"]).trim()).join("git-remote-http").exists();
    if !has_http {
        crate::compose::skipped("this git speaks no http");
        return;
    }
    #[track_caller]
    fn check(answer: &'static str, code: Code, said: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while request.read_line(&mut line).is_ok_and(|count| count > 2) {
                    line.clear();
                }
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let bench = Bench::with(&[]);
        let mut sink = bench.sink_with(|settings| settings.remote = format!("http://{address}/a"));
        let message = failed(&deliver(&mut sink, &[&job("a", 3)])[0], code, Retry::Later);
        assert!(message.contains(said), "{message}");
    }
    let length = "Content-Length: 7\r\nConnection: close\r\n\r\nnothing";
    let answer = |status: &str| -> &'static str { format!("HTTP/1.1 {status}\r\n{length}").leak() };
    // Taken for a bare web server with an empty repository, as git has it; it takes no push.
    check(answer("200 OK"), Code::SinkUnavailable, "did not take the push");
    check(answer("500 Broken"), Code::SinkUnavailable, "returned error: 500");
    check(answer("403 No"), Code::Forbidden, "returned error: 403");
    check(
        answer("302 There\r\nLocation: http://127.0.0.1:1/"),
        Code::SinkUnavailable,
        "error: 302",
    );
    let basic = "401 Who\r\nWWW-Authenticate: Basic realm=\"x\"";
    check(answer(basic), Code::Forbidden, "could not read Username");
    check("\0\u{1}\u{2}", Code::SinkUnavailable, "cannot be fetched");
}

#[test]
fn ssh_is_given_the_key_and_the_known_hosts_and_asks_nobody() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    let log = bench.path("arguments");
    // As a server would: runs the command, which is the last argument, on this machine.
    let fake = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\nfor last; do :; done\nexec sh -c \"$last\"\n",
        log.display()
    );
    let fake = bench.script("ssh-fake", &fake);
    let mut sink = bench.sink_with(|settings| {
        settings.remote = format!("ssh://git@host.invalid:2222{}", bench.remote().display());
        settings.ssh_program = fake;
        settings.ssh_key = Some("/keys/a key".into());
        settings.known_hosts = Some("/keys/known hosts".into());
    });
    done(&deliver(&mut sink, &[&numbered(1, "a", 3)])[0]);
    assert_eq!(bench.subjects()[0], "Scale ran-a/a to 3");
    let log = fs::read_to_string(log).unwrap();
    assert!(
        log.starts_with(
            "-o UserKnownHostsFile=\"/keys/known hosts\" -o IdentitiesOnly=yes -i /keys/a key -o \
             BatchMode=yes "
        ),
        "{log}"
    );
    assert!(log.contains("-p 2222 git@host.invalid git-receive-pack"), "{log}");
}

#[test]
fn a_token_is_read_by_git_alone_and_appears_nowhere() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::new();
    let (token, seen) = (bench.path("token"), bench.path("seen"));
    fs::write(&token, "t0p-s3cret\n").unwrap();
    // Git at its worst: asks as the real one does, and repeats the answers to everybody.
    let fake = format!(
        "#!/bin/sh\ncase \"$*\" in *' init '*) mkdir -p repository; echo x > repository/HEAD; exit 0;; esac\n\
         {{ tr '\\0' ' ' < /proc/$$/cmdline; tr '\\0' '\\n' < /proc/$$/environ; }} >> '{seen}'\n\
         user=$(\"$GIT_ASKPASS\" \"Username for 'https://host.invalid': \")\n\
         password=$(\"$GIT_ASKPASS\" \"Password for 'https://git@host.invalid': \")\n\
         echo \"remote: Access denied for $user with $password\" >&2\nexit 128\n",
        seen = seen.display()
    );
    let fake = bench.script("git-fake", &fake);
    let mut sink = bench.sink_with(|settings| {
        settings.remote = "https://host.invalid/a.git".to_owned();
        settings.program = fake;
        settings.token_file = Some(token.clone());
    });
    let answers = deliver(&mut sink, &[&job("a", 3)]);
    let message = failed(&answers[0], Code::Forbidden, Retry::Later);
    assert!(message.ends_with("remote: Access denied for git with ***"), "{message}");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains(token.to_str().unwrap()) && seen.contains("http.followRedirects=false"));
    assert!(seen.contains("GIT_ALLOW_PROTOCOL=https\n"), "{seen}");
    assert!(!seen.contains("t0p-s3cret"), "{seen}");
    let state = bench.path("state/git/git");
    for entry in fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&entry).unwrap_or_default();
        assert!(!text.contains("t0p-s3cret"), "{entry:?}");
    }
}

#[test]
fn a_commit_is_signed_when_there_is_a_key() {
    if git_is_missing() {
        return;
    }
    let bench = Bench::with(&[]);
    let key = bench.path("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()])
        .status();
    if !made.is_ok_and(|made| made.success()) {
        crate::compose::skipped("there is no ssh-keygen");
        return;
    }
    let path = key.to_str().unwrap().to_owned();
    let mut sink = bench.sink_with(|settings| settings.signing_key = Some(path));
    done(&deliver(&mut sink, &[&numbered(1, "a", 3)])[0]);
    let commit = git(&bench.remote(), &["cat-file", "commit", "main"]);
    assert!(commit.contains("gpgsig -----BEGIN SSH SIGNATURE-----"), "{commit}");
    assert!(commit.contains("author intentd <intentd@localhost>"), "{commit}");
    let mut lost =
        bench.sink_with(|settings| settings.signing_key = Some("/nonexistent".to_owned()));
    let answers = deliver(&mut lost, &[&numbered(2, "a", 4)]);
    let message = failed(&answers[0], Code::SinkUnavailable, Retry::Later);
    assert!(message.starts_with("the commit cannot be signed: "), "{message}");
}
