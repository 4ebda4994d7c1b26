//! Age: a lone intent, and a start, with a large ledger and a full `processed/`, against empty ones.

use std::fs::{self, File};
use std::path::Path;

use intentd::ledger::{Acceptance, Changes, Finish, Finished, Verdict, Writer};
use intentd::model::{Code, Digest, FileName, IntentSummary, Mode, Outcome, Receipt, Timestamp};
use intentd::schema::{Policy, Schema};

use crate::ground::{Ground, Medium};
use crate::site::{Site, document, file_name, wait_for};
use crate::table::{Goal, Row};
use crate::{Scale, median, pause};

/// Rows written in one commit.
const GROUP: usize = 4_096;

pub fn measure(scale: Scale) -> Vec<Row> {
    let (rows, drops) = (scale.of(50, 100_000, 1_000_000), scale.of(2, 200, 1_000));
    let medium = Medium::disk(scale);
    let ground = Ground::new(medium, rows);
    let aged = Site::new(&ground.path().join("aged"));
    age(&aged, rows);
    let fresh = Site::new(&ground.path().join("fresh"));
    rustix::fs::sync();

    let starts: Vec<f64> = (0..scale.of(1, 3, 5))
        .map(|_| {
            let daemon = aged.start(&[]);
            let ready = daemon.ready.as_secs_f64() * 1e3;
            daemon.stop();
            ready
        })
        .collect();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    // Both on one filesystem and in turn, so that its state is the same for both.
    let (one, other) = (aged.start(&[]), fresh.start(&[]));
    for index in 0..drops {
        old.push(lone(&aged, rows + index));
        new.push(lone(&fresh, rows + index));
    }
    one.stop();
    other.stop();
    vec![
        Row {
            name: format!("a lone intent, {rows} rows and files in processed/"),
            unit: "ms",
            ours: median(old),
            reference: Some((median(new), "empty")),
            goal: Goal::Most(1.05),
        },
        Row {
            name: format!("start to ready, {rows} rows"),
            unit: "ms",
            ours: median(starts),
            reference: None,
            goal: Goal::Value(200.0),
        },
    ]
}

fn lone(site: &Site, index: usize) -> f64 {
    let name = file_name(index);
    let dropped = site.drop_file(&name, &document(index));
    wait_for(&site.processed(&name));
    let taken = dropped.elapsed().as_secs_f64() * 1e3;
    pause(std::time::Duration::from_millis(2));
    taken
}

/// Writes what so many delivered intents leave.
fn age(site: &Site, rows: usize) {
    let processed = site.root.join("processed");
    fs::create_dir_all(&processed).expect("a directory");
    for index in 0..rows {
        File::create(processed.join(file_name(index))).expect("a file");
    }
    let state = site.root.join("state");
    fs::create_dir_all(&state).expect("a directory");
    write_ledger(&state.join("ledger.db"), rows);
}

fn write_ledger(path: &Path, rows: usize) {
    let mut writer = Writer::open(path).expect("a new ledger");
    writer.raise_epoch(0).expect("the lead");
    let schema = Schema::builtin();
    for from in (0..rows).step_by(GROUP) {
        let group: Vec<usize> = (from..rows.min(from + GROUP)).collect();
        let accept = group.iter().map(|index| acceptance(&schema, *index)).collect();
        let seqs = writer.commit(&Changes { accept, ..Changes::default() }).expect("a commit");
        let finish = group.iter().zip(&seqs).map(|(index, seq)| {
            let intent = schema.judge(document(*index).as_bytes(), &Policy::default());
            let key = intent.expect("the document is right").key();
            let digest = Digest::of(&index.to_le_bytes());
            let reached = vec![("package".into(), key.into(), digest)];
            Finish { seq: *seq, finished: finished(*index), reached }
        });
        let finish = finish.collect();
        let changes = Changes { finish, archived: seqs, ..Changes::default() };
        writer.commit(&changes).expect("a commit");
        writer.tidy().expect("pages copied back");
    }
    writer.close().expect("a closed ledger");
}

fn acceptance(schema: &Schema, index: usize) -> Acceptance {
    let document = document(index).into_bytes();
    let intent = schema.judge(&document, &Policy::default()).expect("the document is right");
    Acceptance {
        file: FileName::new(file_name(index)),
        claim: Some(format!("1.{index}.{}", file_name(index)).into_bytes()),
        mode: Mode::Run,
        received_at: Timestamp { unix_ms: 1_700_000_000_000 + index as i64 },
        digest: Some(Digest::of(&document)),
        verdict: Verdict::Admitted {
            intent: IntentSummary::from(&intent),
            source: intent.source.map(|source| source.as_str().to_owned()),
            document: document.into(),
        },
    }
}

fn finished(index: usize) -> Finished {
    let location = format!("/var/spool/intentd/packages/scale-ran-a-web-{index}");
    Finished {
        outcome: Outcome::Delivered,
        code: Code::Delivered,
        message: format!("delivered to package: {location}"),
        superseded_by: None,
        finished_at: Timestamp { unix_ms: 1_700_000_000_005 + index as i64 },
        archived_as: Some(file_name(index).into_bytes()),
        violations: Vec::new(),
        receipts: vec![Receipt {
            sink: "package".to_owned(),
            location: Some(location),
            unchanged: false,
            attempts: 1,
            code: None,
            message: None,
            further: Default::default(),
        }],
    }
}
