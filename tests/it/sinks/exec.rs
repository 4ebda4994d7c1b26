//! The exec sink, with emitters that are shell scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use intentd::model::Code;
use intentd::sink::exec::Exec;
use intentd::sink::{Retry, Sink};
use tempfile::TempDir;

use super::{
    Fencing, PATIENCE, Subject, deliver, deliver_by, done, failed, holds_the_contract, job,
};

/// Far above what the emitters of these tests take.
const PATIENT: Duration = Duration::from_secs(30);

/// Copies the document into the output directory, as `porch -intent FILE -out DIR` would.
const EMITTER: &str = "\
#!/bin/sh
[ \"$1\" = -intent ] && [ \"$3\" = -out ] || { echo usage >&2; exit 2; }
[ ! -e \"$4/stall\" ] || sleep 600
cp \"$2\" \"$4/\"
";

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn sink(&self, command: &[&str], timeout: Duration) -> Exec {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let (out, scratch) = (self.path("out"), self.path("state/exec/exec"));
        Exec::new("exec".to_owned(), &command, &out, timeout, &scratch).unwrap()
    }

    fn shell(&self, script: &str) -> Exec {
        self.sink(&["sh", "-c", script, "sh", "{intent}", "{out}"], PATIENT)
    }
}

fn contents(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| format!("{}: {}", path.display(), fs::read_to_string(&path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_command_holds_the_contract() {
    let bench = Bench::new();
    let emitter = bench.script("porch", EMITTER);
    holds_the_contract("exec", || {
        let out = bench.path("out");
        let _ = fs::remove_dir_all(&out);
        let stall = out.join("stall");
        Subject {
            sink: Box::new(bench.sink(&[&emitter], PATIENT)),
            visible: Box::new(move || contents(&out)),
            stall: Box::new(move || {
                fs::write(&stall, "").unwrap();
                Box::new(())
            }),
        }
    });
}

#[test]
fn the_command_sees_its_file_its_directory_four_variables_and_no_shell() {
    let bench = Bench::new();
    let mut sink = bench.shell(
        "case $1 in /*/state/exec/exec/3/intent-a.json) ;; *) echo \"$1\" >&2; exit 9;; esac
         cp \"$1\" \"$2/document\"; env | grep -v '^_=\\|^PWD=\\|^SHLVL=' | sort > \"$2/env\"; \
         cat > \"$2/stdin\"; pwd > /dev/null; ls -l \"$1\" | cut -c1-10 > \"$2/mode\"",
    );
    let job = job("a", 3);
    let answers = deliver(&mut sink, &[&job]);
    let out = bench.path("out");
    assert_eq!(done(&answers[0]).location, out.to_str().unwrap());
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("document").as_bytes(), job.document);
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
    assert_eq!(
        read("env"),
        format!(
            "HOME={home}\nINTENTD_SEQ=3\nLANG=C.UTF-8\n\
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
    );
    assert_eq!((read("stdin"), read("mode")), (String::new(), "-rw-------\n".to_owned()));
    assert_eq!(contents(&bench.path("state/exec/exec")), [""; 0], "the copy is removed");
}

#[test]
fn a_failure_names_its_cause_and_is_tried_again() {
    let bench = Bench::new();
    #[track_caller]
    fn check(mut sink: Exec, code: Code, message: &str) {
        let answers = deliver(&mut sink, &[&job("a", 3)]);
        assert_eq!(failed(&answers[0], code, Retry::Later), message);
    }
    let failing = Code::CommandFailed;
    check(
        bench.shell("printf 'one\\ntwo\\033[1m\\n' >&2; exit 3"),
        failing,
        "`sh` ended with exit code 3: two\\u{1b}[1m",
    );
    check(bench.shell("kill -SEGV $$"), failing, "`sh` was killed by SIGSEGV");
    check(
        bench.sink(&["sh", "-c", "echo busy; sleep 600"], Duration::from_millis(200)),
        failing,
        "`sh` had not ended after 0.2 s and was killed: busy",
    );
    check(
        bench.sink(&["/nonexistent/porch"], PATIENT),
        Code::SinkUnavailable,
        "`/nonexistent/porch` cannot be run: No such file or directory (os error 2)",
    );
    let plain = bench.script("plain", "#!/bin/sh\n");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    check(
        bench.sink(&[&plain], PATIENT),
        Code::SinkUnavailable,
        &format!("`{plain}` cannot be run: Permission denied (os error 13)"),
    );
}

#[test]
fn no_process_of_the_command_is_left_at_the_deadline() {
    let bench = Bench::new();
    let mut sink =
        bench.shell("sh -c 'sleep 600; touch \"$0/late\"' \"$2\" & echo $! > \"$2/pid\"; wait");
    let due = Instant::now() + Duration::from_millis(500);
    let jobs = [job("a", 3), job("b", 4)];
    let jobs: Vec<_> = jobs.iter().collect();
    let answers = deliver_by(&mut sink, &jobs, &Fencing::holds(), due).unwrap();
    failed(&answers[0], Code::CommandFailed, Retry::Later);
    let message = failed(&answers[1], Code::SinkUnavailable, Retry::Later);
    assert_eq!(message, "the commands of earlier intents took all the time there was");
    let pid = fs::read_to_string(bench.path("out/pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let given_up = Instant::now() + PATIENCE;
    // Its new parent reaps it when it gets to it.
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < given_up, "process {pid} is alive");
        std::thread::yield_now();
    }
    assert!(!bench.path("out/late").exists());
}

#[test]
fn what_a_killed_predecessor_left_is_removed_by_the_first_delivery() {
    let bench = Bench::new();
    let leftover = bench.path("state/exec/exec/1/intent-x.json");
    fs::create_dir_all(leftover.parent().unwrap()).unwrap();
    fs::write(&leftover, "{}").unwrap();
    let mut sink = bench.shell("exit 0");
    sink.probe().unwrap();
    assert!(leftover.exists(), "who does not deliver does not clean up");
    done(&deliver(&mut sink, &[&job("a", 3)])[0]);
    assert!(!leftover.exists());
}

#[test]
fn a_probe_tells_of_a_missing_program() {
    let bench = Bench::new();
    bench.shell("exit 0").probe().unwrap();
    for program in ["nonexistent-program", "/nonexistent/program", "/tmp"] {
        let fault = bench.sink(&[program], PATIENT).probe().unwrap_err();
        assert_eq!(fault.code, Code::SinkUnavailable);
        assert!(fault.message.contains(program), "{fault:?}");
    }
}
