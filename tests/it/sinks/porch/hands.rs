//! Two hands of one sink: one looks around while the other writes, and only one writes.

use crossbeam_channel::{Receiver, Sender, bounded};
use intentd::sink::{Journal, Keeping};

use super::*;

/// Meets somebody before a step is kept.
struct Meeting<'a> {
    step: &'static str,
    meet: &'a dyn Fn(),
}

impl Journal for Meeting<'_> {
    fn begin(&self, steps: &[(Seq, Step)]) -> Result<Keeping, Fatal> {
        if steps.iter().any(|(_, step)| step.0.contains(self.step)) {
            (self.meet)();
        }
        Steps::default().begin(steps)
    }
}

fn deliver_meeting(sink: &mut dyn Sink, job: &Job, journal: &Meeting<'_>) -> Answer {
    let (fence, waker): (_, Waker) = (Fencing::holds(), std::sync::Arc::new(|_| {}));
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal, waker: &waker, deadline };
    sink.deliver(&[job.delivery()], &context).unwrap().remove(0)
}

#[test]
fn one_hand_looks_around_while_the_other_writes_and_only_one_writes() {
    let bench = Bench::new();
    let mut first = bench.approving();
    let mut second = first.second_hand().expect("each target has a package of its own");
    let (looked, seen): (Sender<()>, Receiver<()>) = bounded(1);
    let (created, go): (Sender<()>, Receiver<()>) = bounded(1);
    let (web, db) = (numbered(1, "web", 3), numbered(2, "db", 4));
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            // The other one is in the middle of its cycle.
            go.recv_timeout(PATIENCE).expect("the first hand has created its revision");
            let meet = || looked.send(()).unwrap();
            deliver_meeting(&mut *second, &db, &Meeting { step: "create", meet: &meet })
        });
        let meet = || {
            created.send(()).unwrap();
            seen.recv_timeout(PATIENCE).expect("the second hand has looked around meanwhile");
        };
        done(&deliver_meeting(&mut first, &web, &Meeting { step: "write", meet: &meet }));
        done(&beside.join().unwrap());
    });
    let writes: Vec<bool> = bench
        .requests()
        .iter()
        .filter(|line| !line.starts_with("GET"))
        .map(|line| line.contains("-db."))
        .collect();
    // A creation has no name in its path; the others of `web` come first.
    let others = |of: bool| writes.iter().filter(|is_db| **is_db == of).count();
    assert_eq!((writes.len(), others(true)), (8, 3), "four writes each");
    assert_eq!(writes[5..], [true; 3], "{writes:?}");
}

#[test]
fn a_draft_that_is_published_while_others_have_their_turn_is_not_deleted() {
    let bench = Bench::new();
    let mut first = bench.sink(&bench.settings(PorchPolicy::Draft));
    let mut second = first.second_hand().expect("each target has a package of its own");
    done(&deliver_one(&mut first, &numbered(1, "db", 3)));
    bench.requests();
    let draft = "packages.scale-ran-a-db.i-1-e3b0c442";
    let (begun, go): (Sender<()>, Receiver<()>) = bounded(1);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            go.recv_timeout(PATIENCE).expect("the first hand has its turn");
            deliver_one(&mut *second, &numbered(3, "db", 5))
        });
        let meet = || {
            begun.send(()).unwrap();
            crate::support::wait_until("the second hand to have seen the draft", || {
                let lines = bench.cluster.request_lines();
                lines.iter().any(|line| line.contains("scale-ran-a-db"))
            });
            bench.porch.set_lifecycle(draft, "Published");
        };
        let web = numbered(2, "web", 3);
        done(&deliver_meeting(&mut first, &web, &Meeting { step: "write", meet: &meet }));
        done(&beside.join().unwrap());
    });
    let deleted = bench.requests().iter().any(|line| line.starts_with("DELETE"));
    assert!(!deleted, "{:?}", bench.porch.revisions());
    let db: Vec<String> =
        bench.porch.revisions().into_iter().filter(|it| it.contains("-db.")).collect();
    let next = "packages.scale-ran-a-db.i-3-e3b0c442 Draft";
    assert_eq!(db.len(), 2, "{db:?}");
    assert!(db[0].starts_with(&format!("{draft} Published")) && db[1] == next, "{db:?}");
}

#[test]
fn where_all_targets_share_a_package_there_is_one_hand() {
    let bench = Bench::new();
    let settings = bench.settings(PorchPolicy::Approve);
    let editing = PorchSettings { edit_package: Some("shared".to_owned()), ..settings };
    assert!(bench.sink(&editing).second_hand().is_none());
}
