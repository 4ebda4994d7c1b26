//! A crash, or a lost answer, before and after a write: it happens once, and is told as what it is.

use std::fs;

use intentd::model::Code;
use intentd::sink::{Answer, Retry, Step};

use super::fake::Bench;
use super::{deliver, deliver_kept, done, failed, job};
use crate::support::{Site, scaling, wait_until};

/// The step that was kept before the write was announced to anybody.
fn announced(bench: &Bench) -> Step {
    bench.hook("[ $verb != scale ] || kill -9 $$");
    let (answer, steps) = deliver_kept(&mut bench.sink(), &job("a", 3));
    assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
    bench.hook("");
    steps.into_iter().next().expect("kept before the write")
}

fn scales(bench: &Bench) -> usize {
    bench.calls().iter().filter(|call| call.starts_with("scale")).count()
}

#[test]
fn after_a_crash_before_the_write_it_is_made_and_after_one_behind_it_it_is_not_repeated() {
    let bench = Bench::with(&[("a", 1)]);
    let mut job = job("a", 3);
    job.step = Some(announced(&bench));
    assert_eq!(bench.visible(), ["ran-a.a 1"]);
    let answers = deliver(&mut bench.sink(), &[&job]);
    assert!(!done(&answers[0]).unchanged);
    assert_eq!((bench.visible(), scales(&bench)), (vec!["ran-a.a 3".to_owned()], 2));

    // As if the process had died before it heard of the write's end.
    let answers = deliver(&mut bench.sink(), &[&job]);
    assert!(!done(&answers[0]).unchanged, "it was this intent that wrote");
    assert_eq!(scales(&bench), 2);

    job.step = Some(Step("{\"step\":\"of a later version\"}".to_owned()));
    assert!(done(&deliver(&mut bench.sink(), &[&job])[0]).unchanged, "as good as none");
}

#[test]
fn a_write_whose_answer_was_lost_is_looked_for_and_not_repeated() {
    let bench = Bench::with(&[("a", 1)]);
    bench.write("after", "[ $verb != scale ] || kill -9 $$\n");
    let mut sink = bench.sink();
    let mut wanted = job("a", 3);
    let (answer, steps) = deliver_kept(&mut sink, &wanted);
    let message = failed(&answer, Code::SinkUnavailable, Retry::Later);
    assert_eq!(message, "cannot scale deployments/ran-a/a: kubectl was killed by SIGKILL");
    assert_eq!(bench.visible(), ["ran-a.a 3"]);
    wanted.step = steps.into_iter().next_back();
    assert!(!done(&deliver(&mut sink, &[&wanted])[0]).unchanged);
    assert_eq!(scales(&bench), 1);
}

/// Kills the daemon while kubectl is in the middle of a write, before or after its effect.
#[track_caller]
fn killed_in(point: &str) {
    let bench = Bench::with(&[]);
    bench.put("default", "a", 1);
    let (entered, go) = (bench.path("entered"), bench.path("go"));
    bench.write(
        point,
        &format!(
            "if [ $verb = scale ] && [ ! -e {go} ]; then touch {entered}; sleep 600; fi\n",
            go = go.display(),
            entered = entered.display()
        ),
    );
    let program = bench.program();
    let site = Site::with_config(&format!(
        "sink = [\"kubectl\"]\n[sinks.kubectl]\nprogram = \"{program}\"\n"
    ));
    let daemon = site.start();
    site.drop_file("intent-a.json", &scaling("a", 3));
    wait_until("kubectl to be in the write", || entered.exists());
    daemon.kill();
    wait_until("kubectl to be gone as well", || bench.running().is_empty());
    fs::write(&go, "").unwrap();

    let daemon = site.start();
    let records = site.wait_for_records(1);
    assert_eq!(records[0]["outcome"], "delivered", "{records:?}");
    let receipt = &records[0]["receipts"][0];
    assert_eq!(receipt["unchanged"], false, "{receipt}");
    assert_eq!(receipt["resource_version"], "2", "written once: {receipt}");
    assert_eq!(bench.visible(), ["default.a 3"]);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_daemon_that_is_killed_takes_kubectl_with_it_and_the_write_is_made_once() {
    killed_in("hook");
    killed_in("after");
}
