//! The simulated ledger: atomic commits, and the rules that no commit may break.

use std::collections::{BTreeMap, BTreeSet};

use intentd::ledger::{Changes, Finished, OpenIntent, Progress, Verdict};
use intentd::model::{Digest, Mode, Outcome, Record, Seq, TargetKey};

#[derive(Debug)]
pub struct Row {
    pub record: Record,
    pub claim: Vec<u8>,
    /// The file that the claim is.
    pub ino: usize,
    pub document: Option<Vec<u8>>,
    pub key: Option<TargetKey>,
    pub finished: Option<Finished>,
}

#[derive(Debug)]
pub struct Ledger {
    pub epoch: u64,
    next: u64,
    /// Seqs grow by this; it brings the bound on overtaking within reach of a few intents.
    pub stride: u64,
    pub rows: BTreeMap<Seq, Row>,
    pub open: BTreeSet<Seq>,
    pub deliveries: BTreeMap<(Seq, String), Progress>,
    pub targets: BTreeMap<(String, TargetKey), (Seq, Digest)>,
}

impl Ledger {
    pub fn new(stride: u64) -> Self {
        Ledger {
            epoch: 0,
            next: 1,
            stride,
            rows: BTreeMap::new(),
            open: BTreeSet::new(),
            deliveries: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// One commit; `ino_of` tells which file a claim is. Broken rules go to `violations`.
    pub fn commit(
        &mut self,
        epoch: u64,
        changes: &Changes,
        ino_of: impl Fn(&[u8]) -> Option<usize>,
        violations: &mut Vec<String>,
    ) -> Vec<Seq> {
        let mut seqs = Vec::new();
        for acceptance in &changes.accept {
            let seq = Seq(self.next);
            self.next += self.stride;
            let claim = acceptance.claim.clone().unwrap_or_default();
            let Some(ino) = ino_of(&claim) else {
                violations.push(format!("{seq} is accepted and its claim is not in work/"));
                continue;
            };
            let mut record = pending(seq, epoch, acceptance);
            let (mut document, mut key, mut finished) = (None, None, None);
            match &acceptance.verdict {
                Verdict::Admitted { document: bytes, intent, .. } => {
                    key = Some(TargetKey {
                        intent_type: intent.intent_type,
                        namespace: intent.namespace.clone(),
                        target: intent.target.clone(),
                    });
                    record.intent = Some(intent.clone());
                    document = Some(bytes.to_vec());
                }
                Verdict::Rejected { rejection, archive } => {
                    let at = acceptance.received_at;
                    finished = Some(Finished::rejected(seq, rejection, archive.as_ref(), at));
                }
            }
            self.rows.insert(seq, Row { record, claim, ino, document, key, finished });
            self.open.insert(seq);
            seqs.push(seq);
        }
        for progress in &changes.progress {
            if self.rows.get(&progress.seq).is_none_or(|row| row.finished.is_some()) {
                violations.push(format!("progress of {} after its end", progress.seq));
            }
            self.deliveries.insert((progress.seq, progress.sink.clone()), progress.clone());
        }
        for finish in &changes.finish {
            self.end(finish, violations);
        }
        for seq in &changes.archived {
            self.open.remove(seq);
        }
        seqs
    }

    fn end(&mut self, finish: &intentd::ledger::Finish, violations: &mut Vec<String>) {
        let seq = finish.seq;
        let Some(row) = self.rows.get_mut(&seq) else {
            return violations.push(format!("{seq} ends and was never accepted"));
        };
        if row.finished.is_some() {
            return violations.push(format!("{seq} ends twice"));
        }
        for (sink, key, digest) in &finish.reached {
            let before = self.targets.insert((sink.to_string(), (**key).clone()), (seq, *digest));
            let receipt = finish.finished.receipts.iter().find(|receipt| *receipt.sink == **sink);
            let same = before.is_some_and(|(_, before)| before == *digest);
            if receipt.is_some_and(|receipt| receipt.unchanged) && !same {
                violations.push(format!(
                    "{seq} is unchanged at {sink}, which was last asked for something else"
                ));
            }
            if before.is_some_and(|(before, _)| before > seq) {
                violations.push(format!("{seq} ends after a newer intent of its target at {sink}"));
            }
        }
        row.finished = Some(finish.finished.clone());
        self.deliveries.retain(|(of, _), _| *of != seq);
    }

    pub fn open_intents(&self) -> Vec<OpenIntent> {
        let open = self.open.iter().map(|seq| {
            let row = &self.rows[seq];
            let kept = self.deliveries.range((*seq, String::new())..);
            OpenIntent {
                record: row.record.clone(),
                claim: Some(row.claim.clone()),
                document: row.document.clone(),
                finished: row.finished.clone(),
                progress: kept
                    .take_while(|((of, _), _)| of == seq)
                    .map(|(_, kept)| kept.clone())
                    .collect(),
            }
        });
        open.collect()
    }
}

fn pending(seq: Seq, epoch: u64, acceptance: &intentd::ledger::Acceptance) -> Record {
    Record {
        seq,
        file: acceptance.file.clone(),
        digest: acceptance.digest,
        source: None,
        received_at: acceptance.received_at,
        finished_at: None,
        epoch,
        mode: Mode::Run,
        intent: None,
        outcome: Outcome::Pending,
        code: None,
        message: None,
        superseded_by: None,
        violations: Vec::new(),
        receipts: Vec::new(),
        end_to_end_seconds: None,
        earlier: Vec::new(),
    }
}
