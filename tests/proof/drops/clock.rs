//! Clocks that jump, run fast, or are far in the future: times are for records only.

use crate::check::Expect;
use crate::drops::scene::{Scene, intent};
use crate::report::{Options, Row, Tally};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "C26",
            what: "ten days back and ahead, 2038, a hundred times as fast",
            run: wall,
        },
        Row {
            id: "C26-mo",
            what: "the monotonic clock ahead by ten days and by years",
            run: monotonic,
        },
    ]
}

/// How a daemon is started under another clock: behind a program, or in an environment.
type Start<'a> = (Vec<&'a str>, Vec<(&'a str, &'a str)>);

/// Starts once for each clock, on one site, so that times jump between the starts, too.
fn under(starts: &[Start<'_>]) -> Tally {
    let mut scene = Scene::new("");
    for (round, (program, environment)) in starts.iter().enumerate() {
        // Some wait already, one is refused after its grace, the others come while it runs.
        for index in 0..40 {
            if index == 20 {
                scene.start_behind(program, environment);
            }
            let name = format!("intent-{round}-{index}.json");
            let text = intent(&format!("t{}", index % 20), 1 + round as u64, &name);
            scene.drop(&name, &text, Expect::Admitted);
        }
        scene.drop(&format!("intent-{round}-empty.json"), "", Expect::Rejected("EMPTY"));
        scene.rest();
        let daemon = scene.take_daemon();
        let pid = daemon.pid();
        let (code, log) = daemon.stop();
        // The library leaves these behind when a signal ends the process.
        for shared in ["faketime_shm", "sem.faketime_sem"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{shared}_{pid}"));
        }
        assert_eq!(code, Some(0), "{log:#?}");
        scene.fired += 1;
    }
    scene.start();
    scene.verdict()
}

/// The library that shows a process another wall clock. It is loaded into the daemon itself: the
/// program `faketime` would stand in front of it and take its signals.
fn library() -> Option<String> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    let files = directories.map(|path| path.join("faketime/libfaketimeMT.so.1"));
    files.filter(|path| path.exists()).find_map(|path| path.to_str().map(str::to_owned))
}

fn wall(_: &Options) -> Tally {
    let Some(library) = library() else {
        return Tally::skipped("faketime is not installed");
    };
    let clocks =
        ["-10d", "+10d", "@2038-01-19 03:14:00", "@2106-02-07 06:28:00", "+0 x100", "-10d x0.1"];
    let starts = clocks.map(|clock| {
        let environment = vec![
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME", clock),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        (vec!["env"], environment)
    });
    under(&starts)
}

fn monotonic(_: &Options) -> Tally {
    let shifted = |by: &'static str| vec!["unshare", "-T", "--monotonic", by, "--boottime", by];
    let mut probe = shifted("10");
    probe.push("true");
    let status = std::process::Command::new(probe[0]).args(&probe[1..]).output();
    if !status.is_ok_and(|output| output.status.success()) {
        return Tally::skipped("time namespaces are not allowed here");
    }
    let starts = ["864000", "315360000"].map(|by| (shifted(by), vec![]));
    under(&starts)
}
