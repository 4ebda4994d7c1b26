//! Reads claims and judges them, many at a time, on a rayon pool of its own.
//!
//! A group is handed to the pool and waited for, so what is in flight there is one group; the
//! threads of the pool wait for nobody. A file that is merely wrong is not an error here.
//!
//! Not here: what is taken and when (`settle`, `pipeline`), what is written down (`ledger`).

use std::sync::Arc;

use rayon::prelude::*;

use crate::model::{Code, Digest, Intent, Rejection};
use crate::schema::{NameRule, Policy, Schema};
use crate::spool::{self, Claim, Content, Spool};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start {workers} reading threads")]
    Pool { workers: usize, source: rayon::ThreadPoolBuildError },
}

/// What documents and files are judged by; swapped as a whole when the configuration is reloaded.
#[derive(Debug)]
pub struct Rules {
    pub schema: Schema,
    pub policy: Policy,
    pub names: NameRule,
    /// Users who may drop files; empty means everybody who can write to the inbox.
    pub owners: Vec<u32>,
    pub size_bytes_max: u64,
}

/// A claim on its way to be judged.
#[derive(Debug)]
pub struct Taken {
    pub claim: Claim,
    pub owner: u32,
    /// What was wrong with the file as a file; it is then not read.
    pub refused: Option<Code>,
}

/// A judged document.
#[derive(Debug)]
pub struct Judged {
    /// Of the bytes that were read; absent where none were.
    pub digest: Option<Digest>,
    pub verdict: Result<Admitted, Rejection>,
}

/// A document that will be delivered.
#[derive(Debug)]
pub struct Admitted {
    pub document: Arc<[u8]>,
    pub intent: Arc<Intent>,
}

/// What came of one claim.
#[derive(Debug)]
pub enum Reading {
    Judged(Box<Judged>),
    /// It is still being written: look again.
    Unsettled,
    /// We failed, not the file: it stays claimed.
    Failed(spool::Error),
}

/// Reads and judges.
#[derive(Debug)]
pub struct Intake {
    pool: rayon::ThreadPool,
    leases: bool,
}

impl Intake {
    /// Starts the pool. `leases` says whether the kernel is asked about writers.
    ///
    /// # Errors
    ///
    /// The threads cannot be started.
    pub fn start(workers: usize, leases: bool) -> Result<Self, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|index| format!("intake-{index}"))
            .build()
            .map_err(|source| Error::Pool { workers, source })?;
        Ok(Intake { pool, leases })
    }

    /// Reads and judges a group of claims; the answers are in the same order.
    pub fn read(&self, spool: &Spool, rules: &Arc<Rules>, group: &[Taken]) -> Vec<Reading> {
        self.each(group, |taken| read(spool, rules, taken, self.leases))
    }

    /// What `work` makes of each, in order; waits for all.
    pub fn each<T: Sync, R: Send>(
        &self,
        group: &[T],
        work: impl Fn(&T) -> R + Sync + Send,
    ) -> Vec<R> {
        match group {
            // Waking the pool would cost a lone intent more than reading it.
            [one] => vec![work(one)],
            _ => self.pool.install(|| group.par_iter().map(work).collect()),
        }
    }

    /// Judges documents that were read already (operands of `batch`), in order.
    pub fn judge(&self, rules: &Arc<Rules>, group: Vec<Result<Vec<u8>, Rejection>>) -> Vec<Judged> {
        let one = |read| match read {
            Ok(bytes) => judge(rules, bytes),
            Err(rejection) => refused(rejection),
        };
        self.pool.install(|| group.into_par_iter().map(one).collect())
    }
}

fn read(spool: &Spool, rules: &Rules, taken: &Taken, leases: bool) -> Reading {
    let done = |judged| Reading::Judged(Box::new(judged));
    let file = &taken.claim.file;
    if let Err(rejection) = rules.names.check(file.as_bytes()) {
        return done(refused(rejection));
    }
    if !rules.owners.is_empty() && !rules.owners.contains(&taken.owner) {
        return done(refused(unfit(Code::ForeignOwner, taken, rules)));
    }
    // A file that stayed blank is read all the same: it may have been filled since it was looked at.
    if let Some(code) = taken.refused.filter(|code| *code != Code::Empty) {
        return done(refused(unfit(code, taken, rules)));
    }
    match spool.read(&taken.claim, rules.size_bytes_max, leases) {
        Ok(Content::Whole(bytes)) => done(judge(rules, bytes)),
        Ok(Content::TooLarge) => done(refused(unfit(Code::TooLarge, taken, rules))),
        Ok(Content::Unreadable) => done(refused(unfit(Code::Unreadable, taken, rules))),
        Ok(Content::Unsettled) => Reading::Unsettled,
        Err(error) => Reading::Failed(error),
    }
}

fn judge(rules: &Rules, document: Vec<u8>) -> Judged {
    let digest = Some(Digest::of(&document));
    let verdict = rules.schema.judge(&document, &rules.policy);
    // Put here, in the pool, into what it stays in: from now on it is passed on and never copied.
    let admitted = |intent| Admitted { document: document.into(), intent: Arc::new(intent) };
    Judged { digest, verdict: verdict.map(admitted) }
}

fn refused(rejection: Rejection) -> Judged {
    Judged { digest: None, verdict: Err(rejection) }
}

/// Says what is wrong with a file that is not read.
fn unfit(code: Code, taken: &Taken, rules: &Rules) -> Rejection {
    let len = taken.claim.print.len;
    let message = match code {
        Code::TooLarge => return too_large(len, rules.size_bytes_max),
        Code::HardLink => {
            "the file has a second name, so it could change under us; unlink the other name or copy \
             the file"
                .to_owned()
        }
        Code::Symlink => "symbolic links are not followed; drop the file itself".to_owned(),
        Code::NotAFile => "this is a FIFO, socket or device; drop a regular file".to_owned(),
        Code::Unreadable => {
            "the service may not read the file; give its group read permission before you drop it"
                .to_owned()
        }
        Code::ForeignOwner => {
            format!("user {} may not drop intents here; see `intake.owners`", taken.owner)
        }
        other => other.title().to_owned(),
    };
    Rejection::of_file(code, message)
}

/// The refusal of a document that is longer than the limit, or `None` when it is not.
pub fn oversize(len: u64, size_bytes_max: u64) -> Option<Rejection> {
    (len > size_bytes_max).then(|| too_large(len, size_bytes_max))
}

fn too_large(len: u64, size_bytes_max: u64) -> Rejection {
    Rejection::of_file(
        Code::TooLarge,
        format!(
            "the file has {len} bytes and the limit is {size_bytes_max}; shorten it or raise \
             `intake.size_bytes_max`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Layout;

    #[test]
    fn a_blank_file_that_is_filled_before_its_claim_is_judged_by_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let part = |name: &str| directory.path().join(name);
        let layout = Layout {
            inbox: part("inbox"),
            work: part("work"),
            processed: part("processed"),
            failed: part("failed"),
            status: part("status"),
            marker: part("marker"),
        };
        let spool = Spool::open(&layout, true).unwrap();
        let rules = Arc::new(Rules {
            schema: Schema::builtin(),
            policy: Policy::default(),
            names: NameRule::new(&["intent-*.json".to_owned()]).unwrap(),
            owners: Vec::new(),
            size_bytes_max: 1 << 20,
        });
        let intake = Intake::start(1, true).unwrap();
        let verdict = |text: &str| {
            std::fs::write(part("work").join("1.1.intent-a.json"), text).unwrap();
            let (claim, sighting) = spool.reclaim(b"1.1.intent-a.json").unwrap().unwrap();
            let taken = Taken { claim, owner: sighting.owner, refused: Some(Code::Empty) };
            let mut readings = intake.read(&spool, &rules, &[taken]);
            match readings.remove(0) {
                Reading::Judged(judged) => judged.verdict.map(|_| ()).map_err(|found| found.code),
                other => panic!("it is settled: {other:?}"),
            }
        };
        let document = r#"{"intent_type":"scaling","target":"web","namespace":"a","replicas":3}"#;
        assert_eq!(verdict(document), Ok(()));
        assert_eq!(verdict(" \n"), Err(Code::Empty));
    }
}
