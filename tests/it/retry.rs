//! `retry`: parked intents go back to pending, with the history kept, whoever leads.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Daemon, Site, scaling, wait_until};

/// A site with two sinks: `package`, and one that fails for good until [`Mendable::mend`].
struct Mendable {
    site: Site,
    works: PathBuf,
}

impl Mendable {
    fn new() -> Self {
        let site = Site::new();
        let works = site.root().join("works");
        // The file's name says which intents fail: those named `sick-*` until they are mended.
        let script =
            format!("case $(cat \"$0\") in *'\"target\":\"sick'*) test -e {works:?};; esac");
        let command = json!(["sh", "-c", script, "{intent}"]);
        site.configure(&format!(
            "sink = [\"package\", \"emit\"]\n[retry]\nbudget = \"0s\"\n[sinks.emit]\ntype = \"exec\"\n\
             command = {command}\n"
        ));
        Mendable { site, works }
    }

    fn mend(&self) {
        std::fs::write(&self.works, "").unwrap();
    }

    fn break_again(&self) {
        std::fs::remove_file(&self.works).unwrap();
    }

    /// Parks intents on these targets, by a batch that ends.
    fn park(&self, drops: &[(&str, &str, u64)]) {
        for (name, target, replicas) in drops {
            self.site.drop_file(name, &scaling(target, *replicas));
        }
        let finished = self.site.run(&["batch", "-q"]);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    }

    fn outcomes(&self) -> Vec<String> {
        let outcome = |record: Value| record["outcome"].as_str().unwrap().to_owned();
        self.site.history().into_iter().map(outcome).collect()
    }

    fn status(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.site.spool().join("status").join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Nothing is left of requests.
    #[track_caller]
    fn no_requests(&self) {
        let left = crate::support::names(&self.site.state().join("requests"));
        assert_eq!(left, Vec::<String>::new());
    }
}

#[track_caller]
fn retried(site: &Site, args: &[&str], code: i32, stdout: &str) {
    let finished = site.run(&[&["retry"], args].concat());
    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (Some(code), stdout),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_retried_intent_is_pending_again_and_the_next_run_delivers_it_with_its_history_kept() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 3)]);
    assert_eq!(site.names("failed"), ["intent-a.json", "intent-a.json.reason.json"]);
    let parked = site.history().remove(0);
    let finished = site.run(&["retry", "1"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.stdout, "intent 1: pending again (was parked: COMMAND_FAILED)\n");
    let said = "intentd: nobody leads: the next `run` or `batch` delivers what is pending again\n";
    assert_eq!(finished.stderr, said);
    assert_eq!(site.names("failed"), Vec::<String>::new());
    assert_eq!(site.names("work").len(), 1);
    mendable.no_requests();
    let pending = mendable.status("intent-a.json.1.json");
    assert_eq!((&pending["outcome"], &pending["status"]), (&"pending".into(), &"pending".into()));

    mendable.mend();
    let daemon = site.start();
    wait_until("the document in the archive", || site.names("processed") == ["intent-a.json"]);
    assert_eq!(daemon.stop().0, Some(0));
    let record = site.history().remove(0);
    assert_eq!(record["outcome"], "delivered");
    for key in ["seq", "file", "digest", "received_at", "epoch", "intent"] {
        assert_eq!(record[key], parked[key], "{key}");
    }
    // What `package` had confirmed is not delivered again; the other one's tries begin anew.
    assert_eq!(record["receipts"][0], parked["receipts"][0]);
    assert_eq!(record["receipts"][1]["attempts"], 1);
    let earlier = &record["earlier"];
    assert_eq!(earlier.as_array().unwrap().len(), 1);
    for key in ["outcome", "code", "message", "finished_at", "receipts"] {
        assert_eq!(earlier[0][key], parked[key], "{key}");
    }
    assert!(earlier[0]["retried_at"].as_str() >= parked["finished_at"].as_str());
    assert_eq!(mendable.status("intent-a.json.1.json")["earlier"], *earlier);
    assert_eq!((site.names("work"), site.names("failed")), (vec![], vec![]));
    retried(site, &["1"], 1, "intent 1: not retried: it is delivered\n");
}

#[test]
fn the_running_leader_carries_it_out_at_once_each_time() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 3), ("intent-b.json", "well", 2)]);
    let daemon = site.start();
    let again = "intent 1: pending again (was parked: COMMAND_FAILED)\n";
    // It fails again, and its document is back in `failed/`: the second request waits for its archive.
    retried(site, &["1"], 0, again);
    wait_until("a second reason", || site.names("failed").len() == 2);
    mendable.mend();
    retried(site, &["1"], 0, again);
    wait_until("the document in the archive", || site.names("processed").len() == 2);
    let record = site.history().remove(0);
    assert_eq!((&record["outcome"], &record["epoch"]), (&"delivered".into(), &1.into()));
    assert_eq!(record["earlier"].as_array().unwrap().len(), 2);
    mendable.no_requests();
    assert!(daemon.has_logged("retried: the intent is pending again"));
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!((site.names("work"), site.names("failed")), (vec![], vec![]));
}

#[test]
fn all_that_are_parked_are_retried_in_their_order() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    for (index, target) in ["sick-a", "sick-b", "well", "sick-a"].iter().enumerate() {
        let code = if *target == "well" { 0 } else { 1 };
        site.drop_file(&format!("intent-{index}.json"), &scaling(target, index as u64 + 1));
        assert_eq!(site.run(&["batch", "-q"]).code, Some(code));
    }
    assert_eq!(mendable.outcomes(), ["parked", "parked", "delivered", "parked"]);
    mendable.mend();
    // The newest intent of `sick-a` has reached `package`: what is older stays parked.
    let finished = site.run(&["retry", "--parked", "-o", "jsonl"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let told: Vec<_> = finished.jsonl();
    let of = |index: usize| (told[index]["seq"].as_u64(), told[index]["retried"].as_bool());
    assert_eq!(
        [of(0), of(1), of(2)],
        [(Some(1), Some(false)), (Some(2), Some(true)), (Some(4), Some(true))]
    );
    assert_eq!(
        told[0]["message"],
        "not retried: intent 4, which is newer, was delivered on its target"
    );
    assert_eq!(told[1]["code"], "COMMAND_FAILED");
    assert_eq!(site.run(&["batch", "-q"]).code, Some(0));
    assert_eq!(mendable.outcomes(), ["parked", "delivered", "delivered", "delivered"]);
    assert_eq!(site.replicas("sick-a"), Some(4));
}

#[test]
fn what_may_not_be_retried_is_refused_and_the_others_are_retried() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 1), ("intent-b.json", "well", 1)]);
    site.drop_file("intent-c.json", "{\"intent_type\":");
    assert_eq!(site.run(&["batch", "-q"]).code, Some(1));
    let expected = "\
intent 1: pending again (was parked: COMMAND_FAILED)
intent 2: not retried: it is delivered
intent 3: not retried: it was rejected; mend the file and drop it again
intent 18446744073709551615: not retried: there is no such intent
";
    retried(site, &["18446744073709551615", "2", "1", "3", "1"], 1, expected);
    retried(site, &["1", "-o", "name"], 1, "");
    retried(site, &["1"], 1, "intent 1: not retried: it is pending already\n");
    retried(site, &["--parked"], 0, "");
    for wrong in [&["retry"][..], &["retry", "--parked", "1"], &["retry", "one"]] {
        assert_eq!(site.run(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_newer_intent_that_is_pending_on_the_target_is_not_overtaken() {
    // One sink alone, so that nothing of a parked intent has reached its target.
    let site = Site::new();
    let works = site.root().join("works");
    let record = site.root().join("record");
    let script = format!("test -e {works:?} && cat \"$0\" >>{record:?}");
    site.configure(&format!(
        "sink = [\"emit\"]\n[retry]\nbudget = \"0s\"\n[sinks.emit]\ntype = \"exec\"\ncommand = {}\n",
        json!(["sh", "-c", script, "{intent}"])
    ));
    for replicas in [1, 2, 3] {
        site.drop_file(&format!("intent-{replicas}.json"), &scaling("web", replicas));
        assert_eq!(site.run(&["batch", "-q"]).code, Some(1));
    }
    retried(&site, &["2"], 0, "intent 2: pending again (was parked: COMMAND_FAILED)\n");
    let refused = "intent 1: not retried: intent 2, which is newer, is pending on its target\n\
                   intent 3: pending again (was parked: COMMAND_FAILED)\n";
    retried(&site, &["1", "3"], 1, refused);
    std::fs::write(&works, "").unwrap();
    // What was taken back may have had an effect, so the newer one does not supersede the older one.
    site.drop_file("intent-4.json", &scaling("web", 4));
    assert_eq!(site.run(&["batch", "-q"]).code, Some(0));
    let effects = std::fs::read_to_string(&record).unwrap();
    let replicas: Vec<u64> = serde_json::Deserializer::from_str(&effects)
        .into_iter::<Value>()
        .map(|intent| intent.unwrap()["replicas"].as_u64().unwrap())
        .collect();
    assert_eq!(replicas, [2, 3, 4]);
    retried(
        &site,
        &["1"],
        1,
        "intent 1: not retried: intent 4, which is newer, was delivered on its target\n",
    );
}

#[test]
fn an_operand_of_batch_is_retried_without_a_file() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    let path = site.root().join("some.json");
    std::fs::write(&path, scaling("sick", 3)).unwrap();
    assert_eq!(site.run(&["batch", "-q", path.to_str().unwrap()]).code, Some(1));
    retried(site, &["1"], 0, "intent 1: pending again (was parked: COMMAND_FAILED)\n");
    mendable.mend();
    assert_eq!(site.run(&["batch", "-q"]).code, Some(0));
    assert_eq!(mendable.outcomes(), ["delivered"]);
    assert_eq!((site.names("processed"), site.names("failed")), (vec![], vec![]));
}

#[test]
fn a_file_of_somebody_else_under_the_archived_name_stays_where_it_is() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 3)]);
    std::fs::write(site.spool().join("failed/intent-a.json"), "mended by hand").unwrap();
    retried(site, &["1"], 0, "intent 1: pending again (was parked: COMMAND_FAILED)\n");
    mendable.mend();
    assert_eq!(site.run(&["batch", "-q"]).code, Some(0));
    assert_eq!(mendable.outcomes(), ["delivered"]);
    assert_eq!(site.names("failed"), ["intent-a.json"]);
}

#[test]
fn a_leader_that_does_not_answer_is_named_and_the_request_withdrawn() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 3)]);
    let daemon = site.start();
    daemon.signal(libc::SIGSTOP);
    let finished = site.run(&["retry", "1", "--timeout", "200ms"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(75), ""));
    let pid = format!("the leader (pid {} on ", daemon.pid());
    assert!(finished.stderr.contains(&pid), "{}", finished.stderr);
    assert!(finished.stderr.contains("has not answered within 0.2 s"), "{}", finished.stderr);
    mendable.no_requests();
    daemon.signal(libc::SIGCONT);
    retried(site, &["1"], 0, "intent 1: pending again (was parked: COMMAND_FAILED)\n");
}

#[test]
fn what_a_killed_command_asked_for_is_carried_out_once() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 3)]);
    let leader = site.start();
    let standby = site.launch(&[]);
    standby.wait_for_message("standby");
    leader.signal(libc::SIGSTOP);
    let asking = Daemon::from(site.command(&["retry", "1"]));
    let requests = site.state().join("requests");
    wait_until("a request", || !crate::support::names(&requests).is_empty());
    asking.kill();
    // The standby touches nothing; once it leads, it carries out what was asked for.
    let left = crate::support::names(&requests);
    assert_eq!((left.len(), site.names("work").len()), (1, 0), "{left:?}");
    mendable.mend();
    leader.kill();
    wait_until("the document in the archive", || site.names("processed") == ["intent-a.json"]);
    standby.signal(libc::SIGUSR1);
    wait_until("no requests", || crate::support::names(&requests).is_empty());
    let record = site.history().remove(0);
    assert_eq!(record["outcome"], "delivered");
    assert_eq!(record["earlier"].as_array().unwrap().len(), 1);
    assert_eq!(standby.stop().0, Some(0));
}

#[test]
fn a_site_without_a_ledger_is_left_as_it_is() {
    let site = Site::new();
    let finished = site.run(&["retry", "1"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(74), ""), "{}", finished.stderr);
    assert!(!site.state().exists(), "nothing was made");
}

#[test]
fn an_intent_that_was_retried_can_be_parked_and_retried_under_its_old_name() {
    let mendable = Mendable::new();
    let site = &mendable.site;
    mendable.park(&[("intent-a.json", "sick", 3)]);
    mendable.mend();
    retried(site, &["1"], 0, "intent 1: pending again (was parked: COMMAND_FAILED)\n");
    mendable.break_again();
    // Another file of that name fails as well while the first one is on its way.
    site.drop_file("intent-a.json", &scaling("sick-too", 3));
    assert_eq!(site.run(&["batch", "-q"]).code, Some(1));
    assert_eq!(mendable.outcomes(), ["parked", "parked"]);
    assert_eq!(site.names("failed").len(), 4, "{:?}", site.names("failed"));
    mendable.mend();
    let finished = site.run(&["retry", "--parked", "-o", "name"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), "intent/1\nintent/2\n"));
    assert_eq!((site.names("failed"), site.names("work").len()), (vec![], 2));
    assert_eq!(site.run(&["batch", "-q"]).code, Some(0));
    assert_eq!(mendable.outcomes(), ["delivered", "delivered"]);
    assert_eq!(site.names("processed").len(), 2);
}

#[test]
fn a_retried_document_of_an_older_leader_is_no_stray_however_often_the_inbox_is_listed() {
    // Carried out by the leader, and where nobody leads.
    for leads in [true, false] {
        let site = Site::new();
        let works = site.root().join("works");
        let tries = site.root().join("tries");
        let script = format!("echo >>{tries:?}; test -e {works:?}");
        let configuration = |budget: &str| {
            format!(
                "sink = [\"emit\"]\n[watch]\nrescan = \"1s\"\n[retry]\nbudget = \"{budget}\"\n\
                 max = \"300ms\"\n[sinks.emit]\ntype = \"exec\"\ncommand = {}\n",
                json!(["sh", "-c", script])
            )
        };
        site.configure(&configuration("0s"));
        site.drop_file("intent-a.json", &scaling("sick", 3));
        assert_eq!(site.run(&["batch", "-q"]).code, Some(1));
        site.configure(&configuration("5m"));
        let again = "intent 1: pending again (was parked: COMMAND_FAILED)\n";
        if !leads {
            retried(&site, &["1"], 0, again);
        }
        let daemon = site.start();
        if leads {
            retried(&site, &["1"], 0, again);
        }
        assert_eq!(site.names("work").len(), 1, "the claim of an older epoch");
        // The tries go on for longer than a rescan takes to come.
        let tried = || std::fs::read_to_string(&tries).map_or(0, |text| text.lines().count());
        let before = tried();
        wait_until("some more tries", || tried() > before + 12);
        for target in ["b", "c"] {
            site.drop_file(&format!("intent-{target}.json"), &scaling(target, 1));
        }
        std::fs::write(&works, "").unwrap();
        wait_until("the documents in the archive", || site.names("processed").len() == 3);
        assert!(!daemon.has_logged("taking up the claim of a leader that was overtaken"));
        assert_eq!(daemon.stop().0, Some(0));
        let seqs: Vec<_> = site.history().iter().map(|it| it["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [1, 2, 3], "leads: {leads}");
        assert_eq!(site.names("work"), Vec::<String>::new());
    }
}

#[test]
fn what_a_sink_confirmed_is_delivered_again_where_a_newer_parked_intent_has_been_since() {
    let site = Site::new();
    let (works, effects) = (site.root().join("works"), site.root().join("effects"));
    // The first sink has an effect and fails all the same for 5; the second one fails until mended.
    let first = format!("cat \"$0\" >>{effects:?}; ! grep -q '\"replicas\":5' \"$0\"");
    let second = format!("test -e {works:?}");
    let of = |script: &str| json!(["sh", "-c", script, "{intent}"]);
    site.configure(&format!(
        "sink = [\"first\", \"second\"]\n[retry]\nbudget = \"0s\"\n\
         [sinks.first]\ntype = \"exec\"\ncommand = {}\n\
         [sinks.second]\ntype = \"exec\"\ncommand = {}\n",
        of(&first),
        of(&second)
    ));
    for replicas in [3, 5] {
        site.drop_file(&format!("intent-{replicas}.json"), &scaling("web", replicas));
        assert_eq!(site.run(&["batch", "-q"]).code, Some(1));
    }
    std::fs::write(&works, "").unwrap();
    retried(&site, &["1"], 0, "intent 1: pending again (was parked: COMMAND_FAILED)\n");
    assert_eq!(site.run(&["batch", "-q"]).code, Some(0));
    let effects = std::fs::read_to_string(&effects).unwrap();
    let replicas: Vec<u64> = serde_json::Deserializer::from_str(&effects)
        .into_iter::<Value>()
        .map(|intent| intent.unwrap()["replicas"].as_u64().unwrap())
        .collect();
    assert_eq!(replicas, [3, 5, 3], "delivered means that it is there now");
    assert_eq!(site.history()[0]["outcome"], "delivered");
}
