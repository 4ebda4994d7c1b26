//! Start, signals, stop, and what systemd and scripts are told.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, PATIENCE, Site, scaling, wait_until};

#[test]
fn sigterm_under_load_finishes_what_is_accepted() {
    let site = Site::new();
    let daemon = site.start();
    for index in 0..500 {
        site.drop_file(&format!("intent-{index}.json"), &scaling(&format!("t{index}"), 2));
    }
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log:#?}");
    let history = site.history();
    assert!(history.iter().all(|record| record["outcome"] == "delivered"));
    assert_eq!(site.names("processed").len(), history.len());
    assert_eq!(site.names("inbox").len(), 500 - history.len(), "the rest waits in the inbox");
    assert_eq!(site.names("work"), Vec::<String>::new());
    let _daemon = site.start();
    assert_eq!(site.wait_for_records(500).len(), 500);
}

#[test]
fn an_idle_stop_is_quick() {
    let site = Site::new();
    let daemon = site.start();
    let start = Instant::now();
    assert_eq!(daemon.stop().0, Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_at_once() {
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let site = Site::new();
        site.configure(
            "sink = [\"exec\"]\n[sinks.exec]\ncommand = [\"sh\", \"-c\", \"exec sleep 60\", \"{intent}\"]\n\
             timeout = \"4m\"\n",
        );
        let mut daemon = site.start();
        site.drop_file("intent-a.json", &scaling("web", 2));
        wait_until("an accepted intent", || site.history().len() == 1);
        daemon.signal(signal);
        daemon.wait_for_message("stopping: finishing what is accepted");
        daemon.signal(signal);
        assert_eq!(daemon.wait_code(), code);
    }
}

#[test]
fn sighup_reloads_and_a_bad_file_changes_nothing() {
    let site = Site::new();
    let daemon = site.start();
    site.configure("[policy]\ndenied_namespaces = [\"default\"]\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_message("configuration reloaded");
    site.drop_file("intent-a.json", &scaling("web", 2));
    assert_eq!(site.wait_for_records(1)[0]["code"], "POLICY");
    site.configure("[policy]\ndenied_namespace = []\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_message("configuration not reloaded: the old one stays in force");
    // What reads the file now would be refused; the daemon goes on with what it has.
    site.configure("");
    site.drop_file("intent-b.json", &scaling("web", 2));
    assert_eq!(site.wait_for_records(2)[1]["code"], "POLICY");
}

#[test]
fn sigusr1_looks_at_once() {
    let site = Site::with_config("[watch]\npoll = true\npoll_interval = \"1h\"\n");
    let daemon = site.start();
    // The first look may come after the drop, so the second file is the one that shows it.
    site.drop_file("intent-a.json", &scaling("a", 2));
    daemon.signal(libc::SIGUSR1);
    site.wait_for_records(1);
    site.drop_file("intent-b.json", &scaling("b", 2));
    daemon.signal(libc::SIGUSR1);
    assert_eq!(site.wait_for_records(2).len(), 2);
}

#[test]
fn systemd_is_told_what_happens() {
    let site = Site::new();
    let path = site.root().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = site.command(&["run", "--log-format", "json"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::from(command);
    let mut heard = String::new();
    let mut wait_for = |what: &str| {
        let mut buffer = [0; 4096];
        while !heard.contains(what) {
            let length = socket.recv(&mut buffer).expect("a message in time");
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            heard.push('\n');
        }
    };
    wait_for("READY=1\nSTATUS=leading");
    wait_for("WATCHDOG=1");
    site.configure("nonsense = 1\n");
    daemon.signal(libc::SIGHUP);
    wait_for("RELOADING=1\nMONOTONIC_USEC=");
    wait_for("READY=1\nSTATUS=leading; the last reload was refused");
    assert_eq!(daemon.stop().0, Some(0));
    wait_for("STOPPING=1");
}

#[test]
fn a_refused_configuration_names_its_place() {
    let site = Site::with_config("[settle]\nquit = \"5s\"\n");
    let finished = site.run(&["run"]);
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("intentd.toml:4"), "{}", finished.stderr);
    assert!(finished.stderr.contains("did you mean `settle.quiet`?"), "{}", finished.stderr);
    site.configure("[settle]\nquiet = \"5h\"\n");
    assert_eq!(site.run(&["run"]).code, Some(78));
}

#[test]
fn a_spool_on_two_filesystems_is_refused() {
    use std::os::unix::fs::MetadataExt;
    let site = Site::new();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: there is no /dev/shm");
        return;
    };
    let device = |path: &std::path::Path| std::fs::metadata(path).unwrap().dev();
    if device(other.path()) == device(site.root()) {
        eprintln!("SKIPPED: /dev/shm is the filesystem of the temporary directory");
        return;
    }
    site.configure(&format!("processed = {:?}\n", other.path()));
    assert_eq!(site.run(&["run"]).code, Some(78));
}

#[test]
fn history_works_while_the_daemon_runs_hangs_and_is_dead() {
    let site = Site::new();
    let daemon = site.start();
    site.drop_file("intent-a.json", &scaling("web", 2));
    let running = site.wait_for_records(1);
    daemon.signal(libc::SIGSTOP);
    let hung = site.history();
    daemon.kill();
    let dead = site.history();
    site.start().stop();
    let stopped = site.history();
    assert!([&hung, &dead, &stopped].iter().all(|history| **history == running));
}

#[test]
fn no_log_line_carries_what_a_stranger_put_into_a_name() {
    for format in ["text", "json"] {
        let site = Site::new();
        let daemon = Daemon::from(site.command(&["run", "--log-format", format]));
        let forged = "intent-\r\n2026-01-01T00:00:00.000Z  INFO forged\u{1b}[31m\u{9b}\u{7f}.json";
        std::fs::write(site.inbox().join(forged), "{}").unwrap();
        let unknown = json!({"intent_type": "scaling", "a\u{1b}[2J": "\u{202e}\n"}).to_string();
        site.drop_file("intent-b.json", &unknown);
        site.wait_for_records(2);
        let (_, log) = daemon.stop();
        assert!(log.iter().any(|line| line.contains("BAD_NAME")), "{format}: {log:#?}");
        for line in &log {
            let raw = |char: char| char.is_control() || char == '\u{202e}';
            assert!(!line.contains(raw), "{format}: {line:?}");
            match format {
                "json" => drop(serde_json::from_str::<serde_json::Value>(line).unwrap()),
                _ => assert!(!line.starts_with("2026-01-01T00:00:00.000Z"), "{line:?}"),
            }
        }
    }
}

#[test]
fn a_lone_intent_costs_at_most_five_syncs() {
    let site = Site::new();
    let trace = site.root().join("trace");
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o"]).arg(&trace);
    let daemon = site.command(&["run", "--log-format", "json"]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: strace is not installed");
        return;
    }
    let mut daemon = Daemon::from(command);
    daemon.wait_for_message("ready");
    let syncs = || {
        let text = std::fs::read_to_string(&trace).unwrap();
        text.lines().filter(|line| line.contains("sync")).count()
    };
    let before = syncs();
    site.drop_file("intent-a.json", &scaling("web", 2));
    site.wait_for_records(1);
    let counted = syncs() - before;
    // A killed strace would leave the daemon behind: ask the daemon itself, which the lock names.
    let lock = std::fs::read_to_string(site.root().join("state/leader.lock")).unwrap();
    let holder: serde_json::Value = serde_json::from_str(&lock).unwrap();
    let pid = rustix::process::Pid::from_raw(holder["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(daemon.wait_code(), 0);
    assert!((1..=5).contains(&counted), "{counted} syncs");
}
