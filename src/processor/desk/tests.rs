//! The desk with scripted sinks: time is counted in seconds from its start.

use super::*;
use crate::model::{Earlier, FileName, Intent, Mode, Record};
use crate::processor::Window;

const BUDGET: u64 = 60;

const NOTHING: [u64; 0] = [];

const BREAKER: breaker::Policy = breaker::Policy {
    window: 4,
    failures_percent: 50,
    pause: Duration::from_secs(10),
    pause_max: Duration::from_secs(40),
};

/// A desk, its settings, and a window that holds everything.
struct Bench {
    desk: Desk,
    settings: Settings,
    window: Window,
    start: Instant,
    admitted: u64,
}

impl Bench {
    fn new(sinks: &[&str]) -> Self {
        let capacity =
            |name: &&str| Capacity { name: (*name).to_owned(), batch_max: 4, hands: 1, rate: None };
        let retry = retry::Policy {
            budget: Duration::from_secs(BUDGET),
            first: Duration::from_secs(4),
            max: Duration::from_secs(4),
        };
        Bench {
            desk: Desk::new(sinks.iter().map(capacity)),
            settings: Settings {
                compose: compose::Settings::default(),
                retry,
                breaker: BREAKER,
                outages_count: false,
            },
            window: Window::default(),
            start: Instant::now(),
            admitted: 0,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// Admits a scaling intent on `target`.
    fn admit(&mut self, target: &str) -> Seq {
        self.admitted += 1;
        self.admit_as(Seq(self.admitted), target, Vec::new(), false)
    }

    /// Admits an intent that was accepted before, with what the ledger has of it.
    fn admit_as(&mut self, seq: Seq, target: &str, progress: Vec<Progress>, resumed: bool) -> Seq {
        let item = self.item(seq, target, progress, resumed);
        self.desk.admit(item);
        seq
    }

    fn item(&self, seq: Seq, target: &str, progress: Vec<Progress>, resumed: bool) -> Item {
        let value = serde_json::json!({
            "intent_type": "scaling", "target": target, "namespace": "default", "replicas": 3,
        });
        let intent: Intent = serde_json::from_value(value.clone()).unwrap();
        let document = value.to_string().into_bytes();
        let record = Record {
            seq,
            file: FileName::new("intent-a.json"),
            digest: None,
            source: None,
            received_at: Timestamp { unix_ms: 0 },
            finished_at: None,
            epoch: 1,
            mode: Mode::Run,
            intent: None,
            outcome: Outcome::Pending,
            code: None,
            message: None,
            violations: Vec::new(),
            superseded_by: None,
            receipts: Vec::new(),
            end_to_end_seconds: None,
            earlier: Vec::new(),
        };
        Item {
            record: Box::new(record),
            claim: None,
            key: Arc::new(intent.key()),
            intent: Arc::new(intent),
            token: self.window.force(document.len()),
            document: document.into(),
            progress,
            resumed,
        }
    }

    /// What goes out to a sink now.
    fn batch(&mut self, lane: usize, seconds: u64) -> Vec<Job> {
        let now = self.at(seconds);
        self.desk.next_batch(lane, &self.settings, now)
    }

    fn answer(&mut self, lane: usize, answers: Vec<(Seq, Answer)>, seconds: u64) {
        self.answer_with_steps(lane, answers, SeqMap::default(), seconds);
    }

    fn answer_with_steps(
        &mut self,
        lane: usize,
        answers: Vec<(Seq, Answer)>,
        steps: SeqMap<Step>,
        seconds: u64,
    ) {
        let now = self.at(seconds);
        let answered = Answered { lane, answers, steps };
        self.desk.answered(answered, &self.settings, now, || u64::MAX);
    }
}

fn failed(code: Code) -> Answer {
    Answer::Failed(Fault { code, message: "it is away".to_owned(), retry: Retry::Later })
}

#[test]
fn a_failed_delivery_keeps_the_step_that_was_journalled_last() {
    let mut bench = Bench::new(&["slow"]);
    let seq = bench.admit("web");
    for (seconds, step) in [(0, "drafted"), (10, "proposed")] {
        assert_eq!(bench.batch(0, seconds).len(), 1);
        let journalled = SeqMap::from_iter([(seq, Step(step.to_owned()))]);
        let answers = vec![(seq, failed(Code::SinkUnavailable))];
        bench.answer_with_steps(0, answers, journalled, seconds);
        let kept = bench.desk.take_progress();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].step.as_deref(), Some(step), "nothing older is written over it");
    }
    // A call that journals nothing changes nothing.
    bench.batch(0, 20);
    bench.answer(0, vec![(seq, failed(Code::SinkUnavailable))], 20);
    assert_eq!(bench.desk.take_progress()[0].step.as_deref(), Some("proposed"));
    assert_eq!(bench.batch(0, 30)[0].step.as_deref(), Some("proposed"));
}

fn done() -> Answer {
    Answer::Done(Confirmation {
        location: "there".to_owned(),
        unchanged: false,
        further: Default::default(),
    })
}

fn seqs(jobs: &[Job]) -> Vec<u64> {
    jobs.iter().map(|job| job.seq.0).collect()
}

impl Bench {
    /// Everything that goes out to a sink now is answered at once.
    fn exchange(&mut self, lane: usize, seconds: u64, answer: &Answer) -> Vec<u64> {
        let batch = self.batch(lane, seconds);
        let answers = batch.iter().map(|job| (job.seq, answer.clone())).collect();
        if !batch.is_empty() {
            self.answer(lane, answers, seconds);
        }
        seqs(&batch)
    }

    /// A bench whose sinks have just found their targets away, with four intents that know and two
    /// that wait.
    fn cut_off(sinks: &[&str]) -> Self {
        let mut bench = Bench::new(sinks);
        for target in ["a", "b", "c", "d", "e", "f"] {
            bench.admit(target);
        }
        assert_eq!(bench.exchange(0, 0, &failed(Code::SinkUnavailable)), [1, 2, 3, 4]);
        bench
    }

    fn turns(&mut self) -> Vec<(String, Turn)> {
        self.desk.take_turned().into_iter().map(|turned| (turned.sink, turned.turn)).collect()
    }

    /// What has ended, by seq.
    fn ended(&mut self) -> Vec<(u64, Outcome, Code)> {
        let ended = self.desk.take_ended(Timestamp { unix_ms: 0 });
        let told =
            |ended: &Ended| (ended.item.record.seq.0, ended.finished.outcome, ended.finished.code);
        let mut all: Vec<_> = ended.iter().map(told).collect();
        let seqs: Vec<Seq> = ended.iter().map(|ended| ended.item.record.seq).collect();
        self.desk.committed(&seqs);
        all.sort_by_key(|(seq, ..)| *seq);
        all
    }
}

#[test]
fn a_dead_target_is_tried_by_one_intent_after_the_other_and_all_follow_in_order() {
    let mut bench = Bench::cut_off(&["git"]);
    assert_eq!(bench.turns(), [("git".to_owned(), Turn::Opened)]);
    // Their retries would be due after 4 s.
    assert_eq!(bench.batch(0, 9).len(), 0, "nothing goes out");
    assert_eq!(bench.desk.due(), Some(bench.at(10)), "until a probe may");
    let away = failed(Code::SinkUnavailable);
    assert_eq!(bench.exchange(0, 10, &away), [1]);
    assert_eq!(bench.exchange(0, 29, &away), [0; 0]);
    assert_eq!(bench.exchange(0, 30, &away), [2], "another one, in case it was its own fault");
    let pause = |seconds| Turn::Reopened { pause: Duration::from_secs(seconds) };
    assert_eq!(
        bench.turns().into_iter().map(|(_, turn)| turn).collect::<Vec<_>>(),
        [pause(20), pause(40)]
    );
    let probe = bench.batch(0, 70);
    assert_eq!(seqs(&probe), [3]);
    assert!(bench.batch(0, 71).is_empty(), "one probe at a time");
    bench.answer(0, vec![(Seq(3), done())], 72);
    assert_eq!(bench.turns(), [("git".to_owned(), Turn::Closed)]);
    assert_eq!(bench.exchange(0, 72, &done()), [1, 2, 4, 5], "in their places");
    assert_eq!(bench.exchange(0, 72, &done()), [6]);
    let ended = bench.ended();
    assert!(ended.iter().all(|(_, outcome, _)| *outcome == Outcome::Delivered), "{ended:?}");
    assert_eq!(ended.len(), 6);
    assert!(bench.desk.is_empty());
}

fn pending(step: &str) -> Answer {
    Answer::Pending { step: Step(step.to_owned()), again: Duration::from_secs(30) }
}

#[test]
fn a_wake_is_heeded_whether_its_delivery_waits_or_is_out() {
    let mut bench = Bench::new(&["slow"]);
    let seq = bench.admit("web");
    assert_eq!(bench.exchange(0, 0, &pending("a")), [1]);
    assert!(bench.batch(0, 1).is_empty());
    bench.desk.wake(0, seq);
    assert_eq!(seqs(&bench.batch(0, 1)), [1], "before its time");
    bench.desk.wake(0, seq);
    bench.answer(0, vec![(seq, pending("b"))], 2);
    assert_eq!(seqs(&bench.batch(0, 2)), [1], "at once: the answer may be older than the wake");
    bench.answer(0, vec![(seq, pending("c"))], 3);
    assert!(bench.batch(0, 4).is_empty(), "one wake is one look");
    assert_eq!(bench.desk.due(), Some(bench.at(33)));
    // One that is tried again is not hurried.
    assert_eq!(seqs(&bench.batch(0, 33)), [1]);
    bench.desk.wake(0, seq);
    bench.answer(0, vec![(seq, failed(Code::FieldConflict))], 33);
    assert_eq!(bench.desk.due(), Some(bench.at(37)));
}

#[test]
fn only_answers_about_the_target_as_a_whole_count() {
    let mut bench = Bench::new(&["git"]);
    for target in ["a", "b", "c", "d"] {
        bench.admit(target);
    }
    for round in 0..3 {
        assert_eq!(bench.exchange(0, 5 * round, &failed(Code::CommandFailed)).len(), 4);
    }
    assert_eq!(bench.turns(), []);
}

#[test]
fn what_goes_on_waiting_says_nothing_of_its_target() {
    let mut bench = Bench::new(&["cluster"]);
    for target in ["a", "b", "c", "d"] {
        bench.admit(target);
    }
    let away = failed(Code::SinkUnavailable);
    let round = |bench: &mut Bench, seconds| {
        let jobs = bench.batch(0, seconds);
        let answer = |job: &Job| match job.seq.0 {
            1..=3 => Answer::Pending { step: Step("w".to_owned()), again: Duration::from_secs(1) },
            _ => away.clone(),
        };
        let answers: Vec<_> = jobs.iter().map(|job| (job.seq, answer(job))).collect();
        if !answers.is_empty() {
            bench.answer(0, answers, seconds);
        }
        seqs(&jobs)
    };
    assert_eq!(round(&mut bench, 0), [1, 2, 3, 4], "three writes are stored, and are verified");
    for seconds in 1..=12 {
        round(&mut bench, seconds);
    }
    assert_eq!(bench.turns().first().map(|(_, turn)| *turn), Some(Turn::Opened));
    // Behind it one that waits is no proof that the target is back.
    assert_eq!(round(&mut bench, 30), [1]);
    assert_eq!(bench.turns(), []);
    assert_eq!((round(&mut bench, 31), round(&mut bench, 32)), (vec![2], vec![3]));
    assert_eq!(round(&mut bench, 33), [4]);
    let reopened = Turn::Reopened { pause: Duration::from_secs(20) };
    assert_eq!(bench.turns(), [("cluster".to_owned(), reopened)]);
    assert_eq!(bench.exchange(0, 60, &done()), [1]);
    assert_eq!(bench.turns(), [("cluster".to_owned(), Turn::Closed)]);
}

#[test]
fn a_target_cannot_put_a_retry_off_for_longer_than_the_budget() {
    let mut bench = Bench::new(&["cluster"]);
    let seq = bench.admit("web");
    let busy = |least| {
        let message = "busy".to_owned();
        Answer::Failed(Fault { code: Code::SinkUnavailable, message, retry: Retry::After(least) })
    };
    bench.batch(0, 0);
    bench.answer(0, vec![(seq, busy(Duration::from_secs(7)))], 0);
    assert_eq!(bench.desk.due(), Some(bench.at(7)), "it is asked for, and there is time");
    bench.batch(0, 7);
    bench.answer(0, vec![(seq, busy(Duration::MAX))], 7);
    assert_eq!(bench.desk.due(), Some(bench.at(BUDGET)));
    assert_eq!(bench.exchange(0, BUDGET, &busy(Duration::MAX)), [1], "the last try");
    assert_eq!(bench.ended(), [(1, Outcome::Parked, Code::SinkUnavailable)]);
}

#[test]
fn time_behind_the_breaker_is_not_taken_from_the_budget() {
    let mut bench = Bench::cut_off(&["git"]);
    let probe = bench.batch(0, 1000);
    assert_eq!((probe[0].seq, probe[0].spent_ms), (Seq(1), 0));
    bench.answer(0, vec![(Seq(1), failed(Code::CommandFailed))], 1000);
    assert_eq!(bench.turns().last().unwrap().1, Turn::Closed, "the target has answered");
    assert_eq!(bench.ended(), [], "nothing was given up");
    // From here on the clock goes on.
    let spent: Vec<u64> = bench.batch(0, 1030).iter().map(|job| job.spent_ms).collect();
    assert_eq!(spent, [30_000; 4]);
    let away = failed(Code::CommandFailed);
    let answers = [1, 2, 3, 4].map(|seq| (Seq(seq), away.clone())).to_vec();
    bench.answer(0, answers, 1000 + BUDGET);
    let parked = |seq| (seq, Outcome::Parked, Code::CommandFailed);
    assert_eq!(bench.ended(), [1, 2, 3, 4].map(parked));
}

#[test]
fn where_the_command_has_to_end_the_clock_goes_on_for_all_that_wait() {
    let mut bench = Bench::cut_off(&["git"]);
    bench.settings.outages_count = true;
    assert!(bench.batch(0, 1).is_empty());
    assert_eq!(bench.exchange(0, 10, &failed(Code::SinkUnavailable)), [1]);
    assert!(bench.batch(0, BUDGET - 1).iter().all(|job| job.seq == Seq(2)));
    bench.answer(0, vec![(Seq(2), failed(Code::SinkUnavailable))], BUDGET - 1);
    assert!(bench.batch(0, BUDGET - 1).is_empty());
    assert_eq!(bench.desk.due(), Some(bench.at(BUDGET)));
    assert!(bench.batch(0, BUDGET).is_empty());
    let parked = |seq| (seq, Outcome::Parked, Code::SinkUnavailable);
    assert_eq!(bench.ended(), [1, 2, 3, 4].map(parked));
    // These came onto the clock a second later, without ever being tried.
    assert!(bench.batch(0, BUDGET + 1).is_empty());
    let ended = bench.desk.take_ended(Timestamp { unix_ms: 0 });
    let receipts: Vec<_> = ended.iter().flat_map(|ended| &ended.finished.receipts).collect();
    assert_eq!(receipts.len(), 2);
    for receipt in receipts {
        assert_eq!((receipt.attempts, receipt.message.as_deref()), (0, Some("it is away")));
    }
    assert_eq!(bench.desk.len(), 0, "nothing has been left behind");
}

#[test]
fn one_dead_sink_holds_up_no_other_and_the_stop_waits_for_neither() {
    let mut bench = Bench::cut_off(&["git", "package"]);
    assert_eq!(bench.exchange(1, 1, &done()), [1, 2, 3, 4]);
    assert_eq!(bench.exchange(1, 1, &done()), [5, 6]);
    assert!(bench.batch(0, 2).is_empty() && bench.batch(1, 2).is_empty());
    assert!(!bench.desk.is_empty());
    assert!(bench.desk.is_resting(), "what is left waits for the target");
    bench.admit("g");
    assert!(!bench.desk.is_resting(), "the other sink can take this one");
    assert_eq!(bench.exchange(1, 3, &done()), [7]);
    bench.batch(0, 3);
    assert!(bench.desk.is_resting());
}

#[test]
fn what_waits_behind_the_breaker_unstarted_can_still_be_superseded() {
    let mut bench = Bench::cut_off(&["git"]);
    bench.admit("f");
    assert_eq!(bench.ended(), [(6, Outcome::Superseded, Code::Superseded)]);
}

#[test]
fn a_sink_with_a_rate_is_given_no_more_and_the_desk_says_when_there_is_more() {
    let mut bench = Bench::new(&[]);
    let name = "git".to_owned();
    let capacity = Capacity { name, batch_max: 4, hands: 1, rate: Some(2) };
    bench.desk = Desk::new([capacity]);
    for target in ["a", "b", "c", "d", "e"] {
        bench.admit(target);
    }
    assert_eq!(bench.exchange(0, 0, &done()), [1, 2]);
    assert!(bench.batch(0, 0).is_empty());
    assert_eq!(bench.desk.due(), Some(bench.start + Duration::from_millis(500)));
    assert!(!bench.desk.is_resting(), "a stop waits for it");
    assert_eq!(bench.exchange(0, 1, &done()), [3, 4]);
    assert_eq!(bench.exchange(0, 9, &done()), [5]);
}

mod any_outage {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// How long the breaker was open, in seconds.
    #[derive(Default)]
    struct Shut {
        before: u64,
        since: Option<u64>,
    }

    impl Shut {
        fn turn(&mut self, open: bool, now: u64) {
            if open {
                self.since.get_or_insert(now);
            } else {
                self.before = self.all(now);
                self.since = None;
            }
        }

        fn all(&self, now: u64) -> u64 {
            self.before + self.since.map_or(0, |since| now - since)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever the answers and the pauses between them: probes go alone, order per target holds,
        /// only time in front of a closed breaker is spent, and once the target is back everything ends.
        #[test]
        fn costs_no_intent_its_place(
            targets in proptest::collection::vec(0u8..6, 1..24),
            events in proptest::collection::vec((0u8..4, 0u64..30, any::<bool>()), 0..80),
        ) {
            let mut bench = Bench::new(&["git"]);
            let mut of = BTreeMap::new();
            for target in &targets {
                let seq = bench.admit(&format!("t{target}"));
                of.insert(seq.0, *target);
            }
            let mut started = BTreeMap::new();
            let mut shut = Shut::default();
            let mut done_by_target = BTreeMap::<u8, u64>::new();
            let mut over = BTreeSet::new();
            let mut seconds = 0;
            let calm = std::iter::repeat_n((0u8, 41, false), 200);
            for (answer, pause, stay) in events.into_iter().chain(calm) {
                seconds += if stay { 0 } else { pause };
                let batch = bench.batch(0, seconds);
                prop_assert!(shut.since.is_none() || batch.len() <= breaker::PROBES);
                prop_assert!(batch.is_empty() || bench.batch(0, seconds).is_empty());
                let mut answers = Vec::new();
                for job in &batch {
                    let now = seconds - shut.all(seconds);
                    let since = *started.entry(job.seq).or_insert(now);
                    prop_assert_eq!(job.spent_ms, (now - since) * 1000);
                    let target = of[&job.seq.0];
                    prop_assert!(done_by_target.get(&target).is_none_or(|last| *last < job.seq.0));
                    let answer = match answer {
                        0 => done(),
                        1 => failed(Code::CommandFailed),
                        _ => failed(Code::SinkUnavailable),
                    };
                    answers.push((job.seq, answer));
                }
                if !batch.is_empty() {
                    bench.answer(0, answers, seconds);
                }
                for (_, turn) in bench.turns() {
                    shut.turn(turn != Turn::Closed, seconds);
                }
                for (seq, outcome, _) in bench.ended() {
                    prop_assert!(over.insert(seq), "{seq} ends once");
                    if outcome == Outcome::Delivered {
                        done_by_target.insert(of[&seq], seq);
                    }
                }
            }
            prop_assert!(bench.desk.is_empty(), "{} are stuck", bench.desk.len());
            prop_assert_eq!(over.len(), targets.len());
            // A breaker that nothing is left to probe for stands in the way of nothing new.
            bench.admit("last");
            prop_assert_eq!(bench.exchange(0, seconds + 41, &done()).len(), 1);
        }
    }
}

#[test]
fn a_retried_intent_comes_late_and_goes_before_all_that_are_newer_on_its_target() {
    let mut bench = Bench::new(&["sink"]);
    bench.admitted = 7;
    // Of another target, admitted before, and newer.
    bench.admit("db");
    bench.admit_as(Seq(3), "web", Vec::new(), true);
    bench.admit_as(Seq(5), "web", Vec::new(), true);
    let newer = bench.admit("web");
    assert!(bench.desk.take_ended(Timestamp { unix_ms: 0 }).is_empty(), "none is superseded");
    assert_eq!(
        bench.exchange(0, 0, &done()),
        [3, 8],
        "one of a target at a time, the oldest first"
    );
    for seq in [5, newer.0] {
        assert_eq!(bench.exchange(0, 1, &done()), NOTHING, "the end before it is not durable");
        let ended = bench.desk.take_ended(Timestamp { unix_ms: 0 });
        let seqs: Vec<Seq> = ended.iter().map(|ended| ended.item.record.seq).collect();
        bench.desk.committed(&seqs);
        assert_eq!(bench.exchange(0, 2, &done()), [seq]);
    }
}

#[test]
fn a_retried_intent_is_not_delivered_again_where_it_was_confirmed() {
    let mut bench = Bench::new(&["first", "second"]);
    let confirmed = Receipt {
        sink: "first".to_owned(),
        location: Some("there".to_owned()),
        unchanged: false,
        attempts: 2,
        code: None,
        message: None,
        further: Default::default(),
    };
    let kept = Progress {
        seq: Seq(3),
        sink: "first".to_owned(),
        attempts: 2,
        spent_ms: 0,
        step: None,
        receipt: Some(confirmed.clone()),
    };
    bench.admit_as(Seq(3), "web", vec![kept], true);
    assert_eq!(bench.exchange(0, 0, &done()), NOTHING);
    assert_eq!(bench.exchange(1, 0, &done()), [3]);
    let ended = bench.desk.take_ended(Timestamp { unix_ms: 0 });
    assert_eq!(ended[0].finished.receipts[0], confirmed);
    assert_eq!(ended[0].finished.outcome, Outcome::Delivered);
    assert_eq!(ended[0].finished.receipts[1].attempts, 1);
}

#[test]
fn a_retried_intent_whose_earlier_try_may_have_written_is_not_unchanged() {
    let mut bench = Bench::new(&["slow", "other"]);
    let seq = bench.admit("web");
    let given_up = || {
        let fault = Fault {
            code: Code::VerifyTimeout,
            message: "not ready".to_owned(),
            retry: Retry::Never,
        };
        Answer::Failed(fault)
    };
    bench.batch(0, 0);
    let journalled = SeqMap::from_iter([(seq, Step("written".to_owned()))]);
    bench.answer_with_steps(0, vec![(seq, given_up())], journalled, 0);
    bench.batch(1, 0);
    bench.answer(1, vec![(seq, given_up())], 0);
    let ended = bench.desk.take_ended(Timestamp { unix_ms: 0 }).remove(0);
    let receipts = ended.finished.receipts;
    let told = |receipt: &Receipt| receipt.further.get(MAY_HAVE_WRITTEN).cloned();
    assert_eq!(receipts.iter().map(told).collect::<Vec<_>>(), [Some(true.into()), None]);

    // The first sink's step may have had its effect: what it finds as wanted may be its own doing.
    let mut bench = Bench::new(&["slow", "other"]);
    let mut item = bench.item(seq, "web", Vec::new(), true);
    item.record.earlier.push(Earlier {
        outcome: Outcome::Parked,
        code: Code::VerifyTimeout,
        message: String::new(),
        finished_at: Timestamp { unix_ms: 0 },
        receipts,
        retried_at: Timestamp { unix_ms: 0 },
        archived_as: None,
    });
    bench.desk.admit(item);
    for lane in [0, 1] {
        let Answer::Done(confirmation) = done() else { unreachable!("it is done") };
        let unchanged = Answer::Done(Confirmation { unchanged: true, ..confirmation });
        assert_eq!(bench.exchange(lane, 0, &unchanged), [1]);
    }
    let ended = bench.desk.take_ended(Timestamp { unix_ms: 0 }).remove(0);
    let unchanged = |receipt: &Receipt| receipt.unchanged;
    assert_eq!(ended.finished.receipts.iter().map(unchanged).collect::<Vec<_>>(), [false, true]);
    assert_eq!(ended.finished.outcome, Outcome::Delivered);
}
