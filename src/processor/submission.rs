//! A judged document on its way into the ledger.

use std::sync::Arc;

use crate::intake::{Admitted, Judged};
use crate::ledger::{Acceptance, ArchivePlan, Finished, Verdict};
use crate::model::{FileName, Intent, IntentSummary, Mode, Outcome, Record, Seq, Timestamp};
use crate::processor::{Item, Token, archive};

/// What `record` writes down, and what it needs to pass the intent on.
#[derive(Debug)]
pub struct Submission {
    acceptance: Option<Acceptance>,
    intent: Option<Arc<Intent>>,
    bytes: usize,
    token: Token,
}

/// What an accepted submission turns into.
#[derive(Debug)]
pub enum Admission {
    Item(Item),
    /// Rejected: finished with its acceptance.
    Refused(archive::Request),
}

impl Submission {
    /// `archive` is the plan for a rejected file that has to be moved; operands have no claim.
    pub fn new(
        file: FileName,
        claim: Option<Vec<u8>>,
        judged: Judged,
        archive: Option<ArchivePlan>,
        mode: Mode,
        received_at: Timestamp,
        token: Token,
    ) -> Self {
        let (verdict, intent, bytes) = match judged.verdict {
            Ok(Admitted { document, intent }) => {
                let summary = IntentSummary::from(&*intent);
                let source = intent.source.map(|source| source.as_str().to_owned());
                let bytes = document.len();
                (Verdict::Admitted { document, intent: summary, source }, Some(intent), bytes)
            }
            Err(rejection) => (Verdict::Rejected { rejection, archive }, None, 0),
        };
        let acceptance =
            Acceptance { file, claim, mode, received_at, digest: judged.digest, verdict };
        Submission { acceptance: Some(acceptance), intent, bytes, token }
    }

    /// Bytes of the document that go into the ledger.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn take_acceptance(&mut self) -> Acceptance {
        self.acceptance.take().expect("a submission is committed once")
    }

    /// Passes on what has been accepted as `seq`.
    pub fn admit(self, acceptance: Acceptance, seq: Seq, epoch: u64) -> Admission {
        let Acceptance { file, claim, mode, received_at, digest, verdict } = acceptance;
        let mut record = Box::new(Record {
            seq,
            file,
            digest,
            source: None,
            received_at,
            finished_at: None,
            epoch,
            mode,
            intent: None,
            outcome: Outcome::Pending,
            code: None,
            message: None,
            superseded_by: None,
            violations: Vec::new(),
            receipts: Vec::new(),
            end_to_end_seconds: None,
            earlier: Vec::new(),
        });
        match (verdict, self.intent) {
            (Verdict::Admitted { document, intent: summary, source }, Some(intent)) => {
                record.intent = Some(summary);
                record.source = source;
                let mut token = self.token;
                token.rest();
                Admission::Item(Item {
                    record,
                    claim,
                    key: Arc::new(intent.key()),
                    intent,
                    document,
                    progress: Vec::new(),
                    resumed: false,
                    token,
                })
            }
            (Verdict::Rejected { rejection, archive }, _) => {
                let finished = Finished::rejected(seq, &rejection, archive.as_ref(), received_at);
                Admission::Refused(archive::request(record, claim, finished, self.token))
            }
            (Verdict::Admitted { .. }, None) => {
                unreachable!("an admitted document comes with its intent")
            }
        }
    }
}
