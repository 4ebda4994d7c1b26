//! The desk with scripted sinks: time is counted in seconds from its start.

use std::collections::HashMap;

use super::*;
use crate::model::{FileName, Intent, Mode, Record};
use crate::processor::Window;

const BUDGET: u64 = 60;

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
        let capacity = |name: &&str| Capacity { name: (*name).to_owned(), batch_max: 4, hands: 1 };
        let retry = retry::Policy {
            budget: Duration::from_secs(BUDGET),
            first: Duration::from_secs(4),
            max: Duration::from_secs(4),
        };
        Bench {
            desk: Desk::new(sinks.iter().map(capacity)),
            settings: Settings { compose: compose::Settings::default(), retry },
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
        let value = serde_json::json!({
            "intent_type": "scaling", "target": target, "namespace": "default", "replicas": 3,
        });
        let intent: Intent = serde_json::from_value(value.clone()).unwrap();
        let document = value.to_string().into_bytes();
        let record = Record {
            seq: Seq(self.admitted),
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
        };
        self.desk.admit(Item {
            record,
            claim: None,
            intent: Arc::new(intent),
            token: self.window.force(document.len()),
            document: document.into(),
            progress: Vec::new(),
            resumed: false,
        });
        Seq(self.admitted)
    }

    /// What goes out to a sink now.
    fn batch(&mut self, lane: usize, seconds: u64) -> Vec<Job> {
        let now = self.at(seconds);
        self.desk.next_batch(lane, &self.settings, now)
    }

    fn answer(&mut self, lane: usize, answers: Vec<(Seq, Answer)>, seconds: u64) {
        self.answer_with_steps(lane, answers, HashMap::new(), seconds);
    }

    fn answer_with_steps(
        &mut self,
        lane: usize,
        answers: Vec<(Seq, Answer)>,
        steps: HashMap<Seq, Step>,
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
        let journalled = HashMap::from([(seq, Step(step.to_owned()))]);
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
