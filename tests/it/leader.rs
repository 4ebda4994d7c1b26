//! One leads; the other waits, and a leader that lost the lead is harmless.

// A producer that is slow, and a kill at a random moment, are made of time.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use crate::support::{Site, names, scaling, wait_until};

#[test]
fn a_standby_takes_over_when_the_leader_is_killed() {
    let site = Site::new();
    let first = site.start();
    let second = site.launch(&[]);
    second.wait_for_message("standby");
    site.drop_file("intent-a.json", &scaling("web", 2));
    site.wait_for_records(1);
    assert!(!second.has_logged("ready"));
    let start = Instant::now();
    first.kill();
    site.drop_file("intent-b.json", &scaling("web", 3));
    wait_until("a package of the new leader", || site.replicas("web") == Some(3));
    println!("kill to the next package: {:?}", start.elapsed());
    let history = site.wait_for_records(2);
    assert!(history[1]["epoch"].as_u64() > history[0]["epoch"].as_u64());
    assert!(second.has_logged("ready"));
}

#[test]
fn many_starts_at_once_have_one_leader() {
    let site = Site::new();
    let daemons: Vec<_> = (0..4).map(|_| site.launch(&[])).collect();
    let leads = || daemons.iter().filter(|daemon| daemon.has_logged("ready")).count();
    let waits = || daemons.iter().filter(|daemon| daemon.has_logged("standby")).count();
    wait_until("one leader and three standbys", || (leads(), waits()) == (1, 3));
    site.drop_file("intent-a.json", &scaling("web", 2));
    assert_eq!(site.wait_for_records(1).len(), 1);
}

#[test]
fn a_stale_leader_changes_nothing() {
    let site = Site::new();
    let mut stale = site.start();
    site.drop_file("intent-a.json", &scaling("web", 2));
    site.wait_for_records(1);
    stale.signal(libc::SIGSTOP);
    // The lock would hold: a second leader is possible only if somebody breaks the lock file.
    std::fs::remove_file(site.root().join("state/leader.lock")).unwrap();
    let _leader = site.start();
    for index in 0..20 {
        site.drop_file(&format!("intent-b{index:02}.json"), &scaling("web", 10 + index));
    }
    site.wait_for_records(21);
    let before = (site.history(), site.replicas("web"));
    stale.signal(libc::SIGCONT);
    assert_eq!(stale.wait_code(), 74, "{:#?}", stale.log());
    assert_eq!((site.history(), site.replicas("web")), before);
}

#[test]
fn a_broken_lock_is_not_a_held_one() {
    let site = Site::new();
    std::fs::create_dir(site.root().join("state")).unwrap();
    let lock = site.root().join("state/leader.lock");
    std::os::unix::fs::symlink("/dev/null", &lock).unwrap();
    assert_eq!(site.launch(&[]).wait_code(), 74);
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    assert_eq!(site.launch(&[]).wait_code(), 74);
}

#[test]
fn a_ledger_that_is_gone_or_older_is_refused_until_it_is_accepted() {
    let site = Site::new();
    let state = site.root().join("state");
    site.start().stop();
    let copy = site.root().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in names(&state) {
        std::fs::copy(state.join(&name), copy.join(&name)).unwrap();
    }
    site.start().stop();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&copy, &state).unwrap();
    let mut refused = site.launch(&[]);
    assert_eq!(refused.wait_code(), 74);
    site.start_with(&["--accept-restored-ledger"]).stop();

    std::fs::remove_dir_all(&state).unwrap();
    assert_eq!(site.launch(&[]).wait_code(), 74, "a new ledger is another one");
    site.start_with(&["--accept-restored-ledger"]).stop();
    site.start().stop();
}

#[test]
fn a_leader_that_hangs_keeps_its_standby_out() {
    let site = Site::new();
    let first = site.start();
    let second = site.launch(&[]);
    second.wait_for_message("standby");
    first.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!second.has_logged("ready"));
    first.kill();
    second.wait_for_message("ready");
}
