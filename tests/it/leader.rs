//! One leads; the other waits, and a leader that lost the lead is harmless.

// A producer that is slow, and a kill at a random moment, are made of time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::process::Command;
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
fn many_starts_at_once_have_one_leader_at_a_time_and_an_epoch_each() {
    let site = Site::new();
    let mut daemons: Vec<_> = (0..4).map(|_| site.launch(&[])).collect();
    let mut epochs = Vec::new();
    while !daemons.is_empty() {
        let count = |what| daemons.iter().filter(|daemon| daemon.has_logged(what)).count();
        let waiting = daemons.len() - 1;
        wait_until("one leader", || count("ready") == 1 && count("standby") >= waiting);
        let seq = epochs.len() + 1;
        site.drop_file(&format!("intent-{seq}.json"), &scaling("web", seq as u64));
        epochs.push(site.wait_for_records(seq)[seq - 1]["epoch"].as_u64());
        let leader = daemons.iter().position(|daemon| daemon.has_logged("ready")).unwrap();
        daemons.swap_remove(leader).kill();
    }
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
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
fn a_leader_that_is_overtaken_amid_its_work_leaves_every_file_its_one_outcome() {
    const FILES: usize = 60;
    for (part, count) in [("work", 1), ("processed", 15)] {
        let site = Site::new();
        let mut stale = site.start();
        for index in 0..FILES {
            let text = scaling(&format!("t{}", index % 7), 1 + index as u64);
            site.drop_file(&format!("intent-{index:02}.json"), &text);
        }
        wait_until(part, || {
            site.names(part).len() >= count || site.names("processed").len() == FILES
        });
        stale.signal(libc::SIGSTOP);
        let archived = site.names("processed").len();
        std::fs::remove_file(site.root().join("state/leader.lock")).unwrap();
        let mut leader = site.launch(&[]);
        wait_until("the second one to lead or to end", || {
            leader.has_logged("ready") || leader.has_ended()
        });
        if leader.has_ended() {
            // The first one was stopped while it held the ledger or the packages: the second one
            // has to refuse, and leads when the first one has noticed that it lost its lock.
            assert_eq!(leader.wait_code(), 74, "{:#?}", leader.log());
            println!("it was stopped amid a write");
            stale.signal(libc::SIGCONT);
            assert_eq!(stale.wait_code(), 74, "{:#?}", stale.log());
            leader = site.start();
        }
        wait_until("an empty inbox", || site.names("inbox").is_empty());
        let history = site.wait_for_records(FILES);
        if !stale.has_ended() {
            stale.signal(libc::SIGCONT);
            assert_eq!(stale.wait_code(), 74, "{:#?}", stale.log());
        }

        println!("stopped with {archived} of {FILES} archived");
        assert_eq!(site.history(), history, "the ledger is as the new leader left it");
        let files: BTreeSet<_> = history.iter().map(|it| it["file"].as_str().unwrap()).collect();
        assert_eq!((files.len(), history.len()), (FILES, FILES), "one record for each file");
        assert_eq!(site.names("processed").len(), FILES);
        assert_eq!((site.names("work"), site.names("status").len()), (vec![], FILES));
        for target in 0..7 {
            let target = format!("t{target}");
            let last =
                history.iter().rfind(|it| it["intent"]["target"] == target.as_str()).unwrap();
            assert_eq!(site.replicas(&target), last["intent"]["replicas"].as_u64(), "{target}");
        }
    }
}

#[test]
fn a_standby_leads_by_the_configuration_that_it_was_last_told_to_read() {
    let site = Site::new();
    let first = site.start();
    let second = site.launch(&[]);
    second.wait_for_message("standby");
    site.configure("[policy]\ndenied_namespace = []\n");
    second.signal(libc::SIGHUP);
    second.wait_for_message("configuration not reloaded: the old one stays in force");
    site.configure("[policy]\ndenied_namespaces = [\"default\"]\n");
    second.signal(libc::SIGHUP);
    second.wait_for_message("configuration reloaded");
    first.kill();
    second.wait_for_message("ready");
    site.drop_file("intent-a.json", &scaling("web", 2));
    assert_eq!(site.wait_for_records(1)[0]["code"], "POLICY");
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
    std::fs::remove_dir(&lock).unwrap();
    assert!(Command::new("mkfifo").arg(&lock).status().unwrap().success());
    assert_eq!(site.launch(&[]).wait_code(), 74);
    let finished = site.run(&["batch"]);
    assert_eq!(finished.code, Some(74), "broken is not busy: {}", finished.stderr);
    std::fs::remove_file(&lock).unwrap();
    assert_eq!(site.start().stop().0, Some(0));
}

#[test]
fn a_ledger_that_is_gone_or_older_is_refused_until_it_is_accepted() {
    let site = Site::new();
    let state = site.root().join("state");
    site.start().stop();
    let copy = site.root().join("copy");
    std::fs::create_dir(&copy).unwrap();
    // The directory of requests is no part of the ledger, and made when it is missing.
    for name in names(&state).into_iter().filter(|name| state.join(name).is_file()) {
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
