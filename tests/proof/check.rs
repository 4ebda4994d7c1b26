//! Decides whether anything was lost: from what producers did and from what is there in the end.
//!
//! It knows only what the contract promises to the outside: records, directories and packages. The
//! invariants are those of README's guarantees: one final outcome for each finished file, nothing
//! that was told is taken back, order per target, rising epochs, packages that are a function of the
//! newest effective document, an archive that shows the records, and nothing left over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Site, names};

/// One file that a producer finished, or tried to.
#[derive(Clone, Debug)]
pub struct Dropped {
    pub file: String,
    pub bytes: Vec<u8>,
    pub expect: Expect,
    /// It was complete and on the disk before any fault: it must have its outcome.
    pub durable: bool,
    /// It was named on the command line of `batch`, which archives no document.
    pub operand: bool,
}

/// What has to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any outcome but rejected.
    Admitted,
    /// Rejected with this code.
    Rejected(&'static str),
    /// Any outcome: the fault may have changed what the file says.
    Any,
}

/// What is known from outside about a run.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub drops: Vec<Dropped>,
    /// Final records that somebody was told while the run went on, as JSON objects with at least
    /// `seq`, `file`, `outcome` and `code`.
    pub told: Vec<Value>,
    /// What an effect recorder saw, in its order, by `correlation_id`; absent where there was none.
    pub effects: Option<Vec<String>>,
    /// Status files that were looked at already.
    shown: BTreeSet<String>,
}

impl Log {
    /// Notes a finished file.
    pub fn dropped(&mut self, file: &str, bytes: impl Into<Vec<u8>>, expect: Expect) {
        let bytes = bytes.into();
        self.drops.push(Dropped {
            file: file.to_owned(),
            bytes,
            expect,
            durable: true,
            operand: false,
        });
    }

    /// Notes all status files that are there now: whoever looks at them has been told.
    pub fn told_by_status(&mut self, site: &Site) {
        for name in site.names("status") {
            if self.shown.contains(&name) {
                continue;
            }
            let Ok(text) = std::fs::read(site.spool().join("status").join(&name)) else { continue };
            if let Ok(status) = serde_json::from_slice(&text) {
                self.told.push(status);
                self.shown.insert(name);
            }
        }
    }

    /// Notes the records that a `batch -o jsonl` printed; the last line may be torn by a kill.
    pub fn told_by_output(&mut self, stdout: &str) {
        let records = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        self.told.extend(records.filter_map(|line| serde_json::from_str(line).ok()));
    }
}

/// Every violated invariant of a site at rest, one sentence each; none is what is hoped for.
///
/// The site has to be at rest: everything that was dropped has been taken, nothing runs.
pub fn check(site: &Site, log: &Log) -> Vec<String> {
    let history = site.run(&["history", "-o", "jsonl"]);
    if history.code != Some(0) {
        return vec![format!("history ends with {:?}: {}", history.code, history.stderr)];
    }
    let records: Vec<Record> = history.jsonl().into_iter().map(Record).collect();
    let mut found = Vec::new();
    sequence(&records, &mut found);
    drops(&records, log, &mut found);
    told(&records, log, &mut found);
    superseded(&records, &mut found);
    effects(&records, log, &mut found);
    archive(site, &records, log, &mut found);
    packages(site, &records, log, &mut found);
    found
}

/// A record of the ledger, by the names of the contract.
struct Record(Value);

impl Record {
    fn seq(&self) -> u64 {
        self.0["seq"].as_u64().unwrap_or_default()
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn target(&self) -> (String, String, String) {
        let part = |key: &str| self.0["intent"][key].as_str().unwrap_or_default().to_owned();
        (part("intent_type"), part("namespace"), part("target"))
    }

    fn is_effective(&self) -> bool {
        matches!(self.text("outcome"), "delivered" | "unchanged")
    }

    fn is_success(&self) -> bool {
        self.is_effective() || self.text("outcome") == "superseded"
    }
}

fn sequence(records: &[Record], found: &mut Vec<String>) {
    for pair in records.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        if a.seq() >= b.seq() {
            found.push(format!("seq {} is followed by {}", a.seq(), b.seq()));
        }
        if a.0["epoch"].as_u64() > b.0["epoch"].as_u64() {
            found.push(format!("the epoch of seq {} is above that of {}", a.seq(), b.seq()));
        }
    }
    for record in records {
        if record.text("outcome") == "pending" || record.text("outcome").is_empty() {
            found.push(format!("seq {} has no outcome: {}", record.seq(), record.0));
        }
    }
}

fn drops(records: &[Record], log: &Log, found: &mut Vec<String>) {
    let mut unmatched: BTreeMap<(String, String), Vec<&Record>> = BTreeMap::new();
    for record in records.iter().rev() {
        let key = (record.text("file").to_owned(), record.text("digest").to_owned());
        unmatched.entry(key).or_default().push(record);
    }
    let mut doubtful = BTreeSet::new();
    for drop in &log.drops {
        let key = (drop.file.clone(), digest(&drop.bytes));
        let record = unmatched.get_mut(&key).and_then(Vec::pop);
        match (record, &drop.expect) {
            (None, _) if !drop.durable => {
                doubtful.insert(drop.file.as_str());
            }
            (None, Expect::Any) => {
                doubtful.insert(drop.file.as_str());
                if !records.iter().any(|record| record.text("file") == drop.file) {
                    found.push(format!("`{}` has no record", drop.file));
                }
            }
            (None, Expect::Rejected(code)) => {
                // What is refused unread has no digest.
                let key = (drop.file.clone(), String::new());
                match unmatched.get_mut(&key).and_then(Vec::pop) {
                    Some(record) if record.text("code") == *code => {}
                    Some(record) => found.push(format!("`{}` not {code}: {}", drop.file, record.0)),
                    None => found.push(format!("`{}` has no record", drop.file)),
                }
            }
            (None, Expect::Admitted) => found.push(format!("`{}` has no record", drop.file)),
            (Some(record), Expect::Admitted) if !record.is_success() => {
                found
                    .push(format!("`{}` was admitted and has no success: {}", drop.file, record.0));
            }
            (Some(record), Expect::Rejected(code))
                if (record.text("outcome"), record.text("code")) != ("rejected", code) =>
            {
                found.push(format!("`{}` was not rejected with {code}: {}", drop.file, record.0));
            }
            (Some(_), _) => {}
        }
    }
    for ((file, digest), rest) in &unmatched {
        // Of a file that may be half there may be a refusal; what was admitted was dropped whole.
        let may_be_half = |record: &&Record| {
            doubtful.contains(file.as_str()) && record.text("outcome") == "rejected"
        };
        if !rest.iter().all(may_be_half) {
            let known = log.drops.iter().any(|drop| drop.file == *file);
            let seqs: Vec<u64> = rest.iter().map(|record| record.seq()).collect();
            let what = if known { "one record too many" } else { "a record that nobody dropped" };
            found.push(format!("`{file}` ({digest}) has {what}: seq {seqs:?}"));
        }
    }
}

fn told(records: &[Record], log: &Log, found: &mut Vec<String>) {
    let by_seq: HashMap<u64, &Record> =
        records.iter().map(|record| (record.seq(), record)).collect();
    for told in &log.told {
        let seq = told["seq"].as_u64().unwrap_or_default();
        let Some(record) = by_seq.get(&seq) else {
            found.push(format!("what was told about seq {seq} is lost: {told}"));
            continue;
        };
        for key in ["file", "outcome", "code", "digest", "superseded_by"] {
            if told[key] != record.0[key] {
                let (now, before) = (&record.0[key], &told[key]);
                found.push(format!("seq {seq}: {key} was told as {before} and is now {now}"));
            }
        }
    }
}

fn superseded(records: &[Record], found: &mut Vec<String>) {
    let by_seq: HashMap<u64, &Record> =
        records.iter().map(|record| (record.seq(), record)).collect();
    for record in records.iter().filter(|record| record.text("outcome") == "superseded") {
        let by = record.0["superseded_by"].as_u64().unwrap_or_default();
        let newer = by_seq.get(&by);
        let fits = newer.is_some_and(|newer| {
            by > record.seq()
                && newer.target() == record.target()
                && newer.text("outcome") != "rejected"
        });
        if !fits {
            found.push(format!("seq {} is superseded by {by}, which is none", record.seq()));
        }
    }
}

fn effects(records: &[Record], log: &Log, found: &mut Vec<String>) {
    for record in records.iter().filter(|record| record.is_effective()) {
        if record.0["receipts"].as_array().is_none_or(Vec::is_empty) {
            found.push(format!("seq {} took effect without a receipt", record.seq()));
        }
    }
    let Some(effects) = &log.effects else { return };
    let by_id: HashMap<&str, &Record> = records
        .iter()
        .filter_map(|record| Some((record.0["intent"]["correlation_id"].as_str()?, record)))
        .collect();
    let mut last: HashMap<_, u64> = HashMap::new();
    let mut seen = BTreeSet::new();
    for id in effects {
        let Some(record) = by_id.get(id.as_str()) else {
            found.push(format!("an effect of `{id}`, which has no record"));
            continue;
        };
        let (seq, target) = (record.seq(), record.target());
        seen.insert(seq);
        if last.get(&target).is_some_and(|before| *before > seq) {
            found.push(format!("{target:?}: seq {seq} took effect after {}", last[&target]));
        }
        last.insert(target, seq);
    }
    for record in records {
        let (seq, outcome) = (record.seq(), record.text("outcome"));
        if outcome == "delivered" && !seen.contains(&seq) {
            found.push(format!("seq {seq} is delivered without an effect"));
        }
        if matches!(outcome, "superseded" | "rejected") && seen.contains(&seq) {
            found.push(format!("seq {seq} is {outcome} and had an effect"));
        }
    }
}

fn archive(site: &Site, records: &[Record], log: &Log, found: &mut Vec<String>) {
    for part in ["inbox", "work"] {
        for name in site.names(part) {
            found.push(format!("left over in {part}/: {name}"));
        }
    }
    let status = site.spool().join("status");
    let all = site.names("status");
    // A derived name that is too long is cut: found by its end.
    let seq_of = |name: &str| name.strip_suffix(".json")?.rsplit('.').next()?.parse().ok();
    let by_seq: HashMap<u64, &String> =
        all.iter().filter_map(|name| Some((seq_of(name)?, name))).collect();
    let operands: BTreeSet<&str> =
        log.drops.iter().filter(|drop| drop.operand).map(|drop| drop.file.as_str()).collect();
    let mut expected = Vec::new();
    for record in records {
        let name = by_seq.get(&record.seq());
        let text = name.and_then(|name| std::fs::read(status.join(name)).ok());
        let shown: Option<Value> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(shown) = shown else {
            found.push(format!("seq {} has no whole status file", record.seq()));
            continue;
        };
        for key in ["seq", "file", "outcome", "code", "digest"] {
            if shown[key] != record.0[key] {
                let (status, ledger) = (&shown[key], &record.0[key]);
                found.push(format!(
                    "seq {}: status says {key} {status}, the ledger {ledger}",
                    record.seq()
                ));
            }
        }
        let file = record.text("file");
        if !operands.contains(file) {
            let shelf = if record.is_success() { "processed" } else { "failed" };
            expected.push((shelf, record.text("digest").to_owned()));
        }
    }
    if all.len() != records.len() {
        found.push(format!("{} status files of {} records", all.len(), records.len()));
    }
    archived(site, expected, found);
}

/// Every document lies where its outcome says, byte for byte, and each failed one has its reason.
fn archived(site: &Site, expected: Vec<(&str, String)>, found: &mut Vec<String>) {
    let mut missing: BTreeMap<(&str, String), i64> = BTreeMap::new();
    for (shelf, digest) in expected {
        *missing.entry((shelf, digest)).or_default() += 1;
    }
    for shelf in ["processed", "failed"] {
        let all: BTreeSet<String> = site.names(shelf).into_iter().collect();
        for name in &all {
            if shelf == "failed" && name.ends_with(".reason.json") {
                let document = name.trim_end_matches(".reason.json");
                if !all.contains(document) && document.len() < 200 {
                    found.push(format!("a reason without a document: failed/{name}"));
                }
                continue;
            }
            if shelf == "failed"
                && name.len() < 200
                && !all.contains(&format!("{name}.reason.json"))
            {
                found.push(format!("a failed document without a reason: {name}"));
            }
            let path = site.spool().join(shelf).join(name);
            if shelf == "failed" && !is_whole_reason(&path) {
                found.push(format!("the reason of failed/{name} is torn"));
            }
            // A record of what was not read has no digest.
            let key = |digest| (shelf, digest);
            let digest = content(&path).map(|bytes| digest(&bytes)).unwrap_or_default();
            let count = match missing.get_mut(&key(digest.clone())) {
                Some(count) => Some(count),
                None => missing.get_mut(&key(String::new())),
            };
            match count {
                Some(count) => *count -= 1,
                None => found.push(format!("{shelf}/{name} belongs to no record")),
            }
        }
    }
    for ((shelf, digest), count) in missing {
        if count != 0 {
            found.push(format!("{shelf}/ lacks {count} document(s) of {digest}"));
        }
    }
}

/// What an archived document says; `None` for what is no document: a link, a FIFO, a sparse giant.
fn content(path: &Path) -> Option<Vec<u8>> {
    let about = std::fs::symlink_metadata(path).ok()?;
    let is_document = about.is_file() && about.len() <= 64 << 20;
    is_document.then(|| std::fs::read(path).ok())?
}

/// Whether the reason beside a failed document can be read, if its name was not cut.
fn is_whole_reason(document: &Path) -> bool {
    let name = document.file_name().unwrap_or_default().to_string_lossy();
    let reason = document.with_file_name(format!("{name}.reason.json"));
    let Ok(text) = std::fs::read(reason) else { return true };
    serde_json::from_slice::<Value>(&text)
        .is_ok_and(|reason| reason["seq"].is_u64() && reason["code"].is_string())
}

type Tree = BTreeMap<String, Vec<u8>>;

/// The packages are those of the newest effective document of each target, and no others.
fn packages(site: &Site, records: &[Record], log: &Log, found: &mut Vec<String>) {
    let to_package = |record: &&Record| {
        record.0["receipts"].as_array().is_some_and(|receipts| {
            receipts.iter().any(|receipt| receipt["sink"] == "package" && receipt["code"].is_null())
        })
    };
    let mut newest = BTreeMap::new();
    for record in records.iter().filter(to_package) {
        newest.insert(record.target(), record.text("digest"));
    }
    let documents: HashMap<String, &[u8]> =
        log.drops.iter().map(|drop| (digest(&drop.bytes), drop.bytes.as_slice())).collect();
    let mut wanted = Vec::new();
    for (target, digest) in &newest {
        match documents.get(*digest) {
            Some(document) => wanted.push(*document),
            None => found.push(format!("{target:?} has the package of a document nobody dropped")),
        }
    }
    let expected = reference(site, &wanted);
    let actual = tree(&site.packages());
    for (path, bytes) in &expected {
        match actual.get(path) {
            None => found.push(format!("packages/{path} is missing")),
            Some(there) if there != bytes => {
                found.push(format!("packages/{path} is not as composed"))
            }
            Some(_) => {}
        }
    }
    for path in actual.keys().filter(|path| !expected.contains_key(*path)) {
        found.push(format!("packages/{path} belongs to no record"));
    }
}

/// What a run without any fault makes of these documents.
fn reference(site: &Site, documents: &[&[u8]]) -> Tree {
    static KNOWN: Mutex<BTreeMap<Vec<String>, Tree>> = Mutex::new(BTreeMap::new());
    let key: Vec<String> = documents.iter().map(|document| digest(document)).collect();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if documents.is_empty() {
        return Tree::new();
    }
    known.entry(key).or_insert_with(|| composed(site, documents)).clone()
}

fn composed(site: &Site, documents: &[&[u8]]) -> Tree {
    let other = Site::with_config(&site.composition());
    let mut operands = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let path = other.root().join(format!("{index}.json"));
        std::fs::write(&path, document).unwrap();
        operands.push(path);
    }
    let mut command = other.command(&["batch", "--quiet", "--sink", "package"]);
    let output = command.args(&operands).output().expect("the binary starts");
    assert!(output.status.success(), "reference: {}", String::from_utf8_lossy(&output.stderr));
    tree(&other.packages())
}

/// All files below a directory, dot-directories left out, by their relative paths.
pub fn tree(root: &Path) -> Tree {
    let mut files = Tree::new();
    let mut open = vec![String::new()];
    while let Some(below) = open.pop() {
        for name in names(&root.join(&below)) {
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if root.join(&path).is_dir() {
                open.push(path);
            } else {
                files.insert(path.clone(), std::fs::read(root.join(&path)).unwrap_or_default());
            }
        }
    }
    files
}

/// A digest as records show it.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
