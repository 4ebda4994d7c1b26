//! The package sink: what readers, operators and other processes see of it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use intentd::model::Code;
use intentd::sink::package::Package;
use intentd::sink::{Answer, Context, Fatal, Fence, Retry, Sink, Waker};
use tempfile::TempDir;

use super::{
    Fencing, Job, PATIENCE, Steps, Subject, deliver, deliver_by, done, failed, holds_the_contract,
    job, job_in,
};

const NAME: &str = "scale-ran-a-a";

struct Bench {
    dir: TempDir,
    sink: Package,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sink = open(&dir.path().join("packages"));
        Bench { dir, sink }
    }

    fn packages(&self) -> PathBuf {
        self.dir.path().join("packages")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.packages().join(name)
    }

    fn deliver(&mut self, jobs: &[&Job]) -> Vec<Answer> {
        deliver(&mut self.sink, jobs)
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.path(".intentd")).unwrap().count()
    }
}

fn open(dir: &Path) -> Package {
    Package::open("package".to_owned(), dir).unwrap()
}

#[test]
fn two_hands_deliver_at_the_same_time_and_keep_out_of_each_others_way() {
    let Bench { dir, sink } = Bench::new();
    let packages = dir.path().join("packages");
    let second = sink.second_hand().expect("the package sink has two");
    let names = |hand: usize| (0..40).map(move |number| format!("hand-{hand}-{number}"));
    let hands: [(usize, Box<dyn Sink>); 2] = [(0, Box::new(sink)), (1, second)];
    thread::scope(|scope| {
        for (hand, mut sink) in hands {
            scope.spawn(move || {
                for round in 1..=3 {
                    let jobs: Vec<Job> = names(hand).map(|name| job(&name, round)).collect();
                    let answers = deliver(&mut *sink, &jobs.iter().collect::<Vec<_>>());
                    answers.iter().for_each(|answer| assert!(!done(answer).unchanged));
                }
            });
        }
    });
    for name in names(0).chain(names(1)) {
        let path = packages.join(format!("scale-ran-a-{name}/deployment.yaml"));
        let text = fs::read_to_string(path);
        assert!(text.unwrap().contains("replicas: 3\n"), "{name}");
    }
}

/// Every visible file with its text, staging left out.
fn visible(packages: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for package in fs::read_dir(packages).unwrap().map(|entry| entry.unwrap().path()) {
        if package.file_name().unwrap() == ".intentd" {
            continue;
        }
        for file in fs::read_dir(package).unwrap().map(|entry| entry.unwrap().path()) {
            all.push(format!("{}: {}", file.display(), fs::read_to_string(&file).unwrap()));
        }
    }
    all.sort();
    all
}

/// Asserts that the package of `job` stands there, byte for byte.
#[track_caller]
fn assert_stands(packages: &Path, job: &Job) {
    for file in &job.package.files {
        let path = packages.join(&job.package.name).join(file.name);
        assert_eq!(fs::read_to_string(path).unwrap(), file.text);
    }
}

/// A fence that does something at the moment between staging and publishing.
struct Meddling<F>(F);

impl<F: Fn()> Fence for Meddling<F> {
    fn check(&self) -> Result<(), Fatal> {
        (self.0)();
        Ok(())
    }
}

fn deliver_meddled(sink: &mut Package, job: &Job, meddle: impl Fn()) -> Answer {
    let (journal, waker): (_, Waker) = (Steps::default(), Arc::new(|_| {}));
    let fence = Meddling(meddle);
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    sink.deliver(&[job.delivery()], &context).unwrap().remove(0)
}

#[test]
fn a_package_directory_holds_the_contract() {
    holds_the_contract("package", || {
        let Bench { dir, sink } = Bench::new();
        let packages = dir.path().join("packages");
        let locked = packages.clone();
        Subject {
            sink: Box::new(sink),
            visible: Box::new(move || {
                let _kept = &dir;
                visible(&packages)
            }),
            stall: Box::new(move || {
                let held = File::open(&locked).unwrap();
                held.lock().unwrap();
                Box::new(held)
            }),
        }
    });
}

#[test]
fn unchanged_needs_equal_bytes_and_an_equal_last_digest() {
    let mut bench = Bench::new();
    let mut wanted = job("a", 3);
    let inode = |bench: &Bench| fs::metadata(bench.path(NAME)).unwrap().ino();
    let answers = bench.deliver(&[&wanted]);
    assert_eq!(done(&answers[0]).location, bench.path(NAME).to_str().unwrap());
    assert!(!done(&answers[0]).unchanged);
    let first = inode(&bench);
    assert!(!done(&bench.deliver(&[&wanted])[0]).unchanged, "nobody has finished it yet");
    wanted.last = Some(wanted.package.digest);
    assert!(done(&bench.deliver(&[&wanted])[0]).unchanged);
    assert_eq!(inode(&bench), first, "equal bytes are never written again");
    let mut other = job("a", 5);
    other.last = wanted.last;
    assert!(!done(&bench.deliver(&[&other])[0]).unchanged);
    assert_stands(&bench.packages(), &other);
    assert!(!done(&bench.deliver(&[&wanted])[0]).unchanged, "the bytes differ");
    assert_stands(&bench.packages(), &wanted);
    fs::write(bench.path(NAME).join("deployment.yaml"), "edited").unwrap();
    assert!(!done(&bench.deliver(&[&wanted])[0]).unchanged, "what was edited is put right");
    assert_stands(&bench.packages(), &wanted);
}

#[test]
fn a_status_in_the_kptfile_is_no_difference_and_further_files_are_carried_on() {
    let mut bench = Bench::new();
    let mut three = job("a", 3);
    bench.deliver(&[&three]);
    let package = bench.path(NAME);
    let kptfile = fs::read_to_string(package.join("Kptfile")).unwrap();
    let rendered = format!("{kptfile}status:\n  conditions:\n  - type: Rendered\n");
    fs::write(package.join("Kptfile"), &rendered).unwrap();
    fs::write(package.join("resourcegroup.yaml"), "theirs").unwrap();
    fs::set_permissions(package.join("resourcegroup.yaml"), fs::Permissions::from_mode(0o600))
        .unwrap();
    three.last = Some(three.package.digest);
    assert!(done(&bench.deliver(&[&three])[0]).unchanged);
    assert_eq!(fs::read_to_string(package.join("Kptfile")).unwrap(), rendered);

    for replicas in [5, 6, 7] {
        bench.deliver(&[&job("a", replicas)]);
        assert_stands(&bench.packages(), &job("a", replicas));
        assert_eq!(fs::read_to_string(package.join("resourcegroup.yaml")).unwrap(), "theirs");
        let mode = fs::metadata(package.join("resourcegroup.yaml")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&package).unwrap().count(), 4);
    }
}

#[test]
fn what_is_not_ours_is_a_conflict_and_stays_as_it_is() {
    type Make = fn(&Path);
    let cases: &[(&str, Make)] = &[
        ("is not a directory", |path| fs::write(path, "a file").unwrap()),
        ("is not a directory", |path| symlink("/etc", path).unwrap()),
        ("is not a directory", |path| symlink("nowhere", path).unwrap()),
        ("has no Kptfile", |path| fs::create_dir(path).unwrap()),
        ("has no Kptfile", |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("intent.yaml"), &job("a", 3).package.files[2].text).unwrap();
        }),
        ("has no intent.yaml", |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("Kptfile"), "kind: Kptfile\n").unwrap();
        }),
        ("has an intent.yaml that is not of our form", |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("Kptfile"), "kind: Kptfile\n").unwrap();
            fs::write(path.join("intent.yaml"), "kind: ConfigMap\ndata: {a: b}\n").unwrap();
        }),
        ("is the package of scaling ran/a-a", |path| ours(path, &job_in("ran", "a-a", 3))),
        ("holds `base`, which is not a regular file", |path| {
            ours(path, &job("a", 3));
            fs::create_dir(path.join("base")).unwrap();
        }),
        ("holds `deployment.yaml`, which is not a regular file", |path| {
            ours(path, &job("a", 3));
            fs::remove_file(path.join("deployment.yaml")).unwrap();
            symlink("/etc/passwd", path.join("deployment.yaml")).unwrap();
        }),
        ("holds more than 256 further files", |path| {
            ours(path, &job("a", 3));
            (0..300).for_each(|at| fs::write(path.join(format!("f{at}")), "").unwrap());
        }),
    ];
    for (what, make) in cases {
        let mut bench = Bench::new();
        make(&bench.path(NAME));
        let before = fs::symlink_metadata(bench.path(NAME)).unwrap();
        // Another target's delivery goes on beside it.
        let answers = bench.deliver(&[&job("a", 4), &job("b", 4)]);
        let message = failed(&answers[0], Code::PackageConflict, Retry::Never);
        let path = bench.path(NAME);
        assert_eq!(message, format!("`{}` {what}; move it away, then retry", path.display()));
        done(&answers[1]);
        let after = fs::symlink_metadata(bench.path(NAME)).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    }
}

fn ours(path: &Path, job: &Job) {
    fs::create_dir(path).unwrap();
    job.package.files.iter().for_each(|file| fs::write(path.join(file.name), &file.text).unwrap());
}

#[test]
fn of_two_targets_with_one_name_the_first_has_it() {
    let mut bench = Bench::new();
    let (first, second) = (job_in("ran-a", "a", 3), job_in("ran", "a-a", 4));
    assert_eq!(first.package.name, second.package.name);
    let answers = bench.deliver(&[&first, &second]);
    done(&answers[0]);
    failed(&answers[1], Code::PackageConflict, Retry::Never);
    failed(&bench.deliver(&[&second])[0], Code::PackageConflict, Retry::Never);
    assert_stands(&bench.packages(), &first);
}

#[test]
fn a_reader_never_sees_half_a_package() {
    let mut bench = Bench::new();
    let versions = [job("a", 3), job("a", 5)];
    bench.deliver(&[&versions[0]]);
    let package = bench.path(NAME);
    let stop = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = [0_u32; 2];
            while !stop.load(Ordering::Relaxed) {
                let dir = File::open(&package).unwrap();
                let text = |name: &str| {
                    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
                    let mut text = String::new();
                    File::open(path).unwrap().read_to_string(&mut text).unwrap();
                    text
                };
                let seen = versions.iter().position(|version| {
                    version.package.files.iter().all(|file| text(file.name) == file.text)
                });
                reads[seen.expect("a whole package of one version")] += 1;
            }
            reads
        });
        for at in 0..500 {
            done(&bench.deliver(&[&versions[(at + 1) % 2]])[0]);
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads.iter().all(|count| *count > 0), "{reads:?}");
}

#[test]
fn what_a_crash_left_in_staging_is_never_published() {
    let mut bench = Bench::new();
    let fallen =
        deliver_by(&mut bench.sink, &[&job("a", 3)], &Fencing::fallen(), Instant::now() + PATIENCE);
    assert!(fallen.is_err());
    assert_eq!(bench.staged(), 1, "a killed leader leaves what it had staged");
    let leftover = fs::read_dir(bench.path(".intentd")).unwrap().next().unwrap().unwrap();
    let inode = leftover.metadata().unwrap().ino();

    let mut next = open(&bench.packages());
    next.probe().unwrap();
    assert_eq!(visible(&bench.packages()), [""; 0]);
    for replicas in [4, 5, 6] {
        done(&deliver(&mut next, &[&job("a", replicas)])[0]);
        assert_ne!(fs::metadata(bench.path(NAME)).unwrap().ino(), inode);
    }
    assert!(leftover.path().exists(), "a reader of it has ten seconds");
}

#[test]
fn a_change_between_look_and_rename_is_taken_back() {
    let mut bench = Bench::new();
    bench.deliver(&[&job("a", 3)]);
    let package = bench.path(NAME);
    let aside = bench.dir.path().join("aside");

    let answer = deliver_meddled(&mut bench.sink, &job("a", 4), || {
        fs::rename(&package, &aside).unwrap();
        fs::create_dir(&package).unwrap();
        fs::write(package.join("precious"), "theirs").unwrap();
    });
    let message = failed(&answer, Code::PackageConflict, Retry::Later);
    assert!(message.contains("was changed while it was being replaced"), "{message}");
    assert_eq!(fs::read_to_string(package.join("precious")).unwrap(), "theirs");

    fs::remove_dir_all(&package).unwrap();
    fs::rename(&aside, &package).unwrap();
    let answer = deliver_meddled(&mut bench.sink, &job("a", 4), || {
        fs::write(package.join("late"), "theirs").unwrap();
    });
    failed(&answer, Code::PackageConflict, Retry::Later);
    assert_stands(&bench.packages(), &job("a", 3));
    done(&bench.deliver(&[&job("a", 4)])[0]);
    assert_stands(&bench.packages(), &job("a", 4));
    assert_eq!(fs::read_to_string(package.join("late")).unwrap(), "theirs");

    let answer = deliver_meddled(&mut bench.sink, &job("a", 5), || {
        fs::remove_dir_all(&package).unwrap();
    });
    failed(&answer, Code::PackageConflict, Retry::Later);
    assert!(!package.exists());
    let answer = deliver_meddled(&mut bench.sink, &job("a", 5), || {
        fs::write(&package, "a file").unwrap();
    });
    failed(&answer, Code::PackageConflict, Retry::Later);
    assert_eq!(fs::read_to_string(&package).unwrap(), "a file");
}

#[test]
fn a_time_of_change_alone_does_not_keep_a_package_from_being_replaced() {
    let mut bench = Bench::new();
    bench.deliver(&[&job("a", 3)]);
    let package = bench.path(NAME);
    // XFS touches each directory that it moves, whoever moves it.
    let answer = deliver_meddled(&mut bench.sink, &job("a", 4), || {
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::open(&package).unwrap().set_modified(later).unwrap();
    });
    done(&answer);
    assert_stands(&bench.packages(), &job("a", 4));
    let answer = deliver_meddled(&mut bench.sink, &job("a", 5), || {
        fs::copy(package.join("Kptfile"), package.join("copy")).unwrap();
        fs::rename(package.join("copy"), package.join("Kptfile")).unwrap();
    });
    failed(&answer, Code::PackageConflict, Retry::Later);
    assert_stands(&bench.packages(), &job("a", 4));
}

#[test]
fn a_seal_keeps_every_other_process_from_publishing() {
    let mut bench = Bench::new();
    let next = open(&bench.packages());
    let seal = next.seal(PATIENCE).unwrap().expect("a directory can be sealed");
    let soon = Instant::now() + Duration::from_millis(100);
    let late = deliver_by(&mut bench.sink, &[&job("a", 3)], &Fencing::holds(), soon).unwrap();
    failed(&late[0], Code::SinkUnavailable, Retry::Later);
    assert_eq!(visible(&bench.packages()), [""; 0]);
    let refused = bench.sink.seal(Duration::from_millis(50));
    assert!(matches!(refused, Err(Fatal::Lock { .. })), "{refused:?}");
    drop(seal);
    done(&bench.deliver(&[&job("a", 3)])[0]);
    drop(next.seal(PATIENCE).unwrap());
}

#[test]
fn a_directory_that_was_put_in_place_of_the_first_is_followed() {
    let mut bench = Bench::new();
    bench.deliver(&[&job("a", 3)]);
    fs::remove_dir_all(bench.packages()).unwrap();
    let fault = bench.sink.probe().unwrap_err();
    assert_eq!((fault.code, fault.retry), (Code::SinkUnavailable, Retry::Later));
    assert!(!bench.packages().exists(), "a probe changes nothing");
    done(&bench.deliver(&[&job("a", 3)])[0]);
    assert_stands(&bench.packages(), &job("a", 3));
}

#[test]
fn everyone_can_read_a_package_whatever_the_umask() {
    const CHILD: &str = "INTENTD_TEST_PACKAGES";
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    if let Some(packages) = std::env::var_os(CHILD) {
        let mut sink = open(Path::new(&packages));
        done(&deliver(&mut sink, &[&job("a", 3)])[0]);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let packages = dir.path().join("packages");
    for umask in ["0077", "0000", "0777"] {
        let _ = fs::remove_dir_all(&packages);
        let child = Command::new("sh")
            .args(["-c", "umask $1; exec \"$0\" --exact $2"])
            .arg(std::env::current_exe().unwrap())
            .args([umask, "sinks::package::everyone_can_read_a_package_whatever_the_umask"])
            .env(CHILD, &packages)
            .output()
            .unwrap();
        if umask == "0777" && !child.status.success() {
            // Without root's rights nobody can enter the directories that are made on the way.
            continue;
        }
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        assert_eq!(mode(&packages), 0o755, "umask {umask}");
        assert_eq!(mode(&packages.join(NAME)), 0o755, "umask {umask}");
        for file in ["Kptfile", "deployment.yaml", "intent.yaml"] {
            assert_eq!(mode(&packages.join(NAME).join(file)), 0o644, "umask {umask}");
        }
    }
    assert_eq!(mode(&packages.join(".intentd")) & 0o077, 0);
}

#[test]
fn a_full_disk_is_a_fault_of_the_world_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "intentd-test"])
        .arg(dir.path())
        .output()
        .is_ok_and(|done| done.status.success());
    if !mounted {
        crate::compose::skipped("a small filesystem cannot be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let packages = dir.path().join("packages");
        let mut sink = open(&packages);
        done(&deliver(&mut sink, &[&job("a", 3)])[0]);
        let filler = dir.path().join("filler");
        let _ = fs::write(&filler, vec![0; 1 << 20]);
        let message =
            failed(&deliver(&mut sink, &[&job("a", 4)])[0], Code::SinkUnavailable, Retry::Later);
        assert!(message.contains("No space left"), "{message}");
        assert!(sink.probe().unwrap_err().message.contains("full"));
        assert_stands(&packages, &job("a", 3));
        fs::remove_file(&filler).unwrap();
        done(&deliver(&mut sink, &[&job("a", 4)])[0]);
        assert_stands(&packages, &job("a", 4));
    });
    let unmounted = Command::new("umount").arg("-l").arg(dir.path()).status();
    assert!(unmounted.unwrap().success());
    outcome.unwrap();
}

#[test]
fn kpt_leaves_a_delivered_package_as_it_is() {
    if !crate::compose::have("kpt") {
        return;
    }
    let mut bench = Bench::new();
    let jobs = [job("a", 3), job("b", 4)];
    bench.deliver(&[&jobs[0], &jobs[1]]);
    bench.deliver(&[&job("a", 9)]);
    let jobs = [job("a", 9), job("b", 4)];
    for mut job in jobs {
        let package = [job.package.clone()];
        Command::new("kpt")
            .args(["fn", "render"])
            .arg(bench.path(&job.package.name))
            .output()
            .unwrap();
        assert_stands(&bench.packages(), &job);
        job.last = Some(package[0].digest);
        assert!(done(&bench.deliver(&[&job])[0]).unchanged);
    }
}
