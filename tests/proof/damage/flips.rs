//! One byte changes, or the log's end is lost, while nobody looks.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use super::template::Template;
use crate::check::tree;
use crate::report::{Options, Random, Tally};
use crate::support::Finished;

/// Exit codes that are an answer; anything else is a crash.
const DONE: [Option<i32>; 2] = [Some(0), Some(1)];
const REFUSED: Option<i32> = Some(74);

/// How the damage was met.
#[derive(Default)]
struct Met {
    refused: u64,
    without_effect: u64,
    /// The last run was refused, so that it left everything but the ledger as it was.
    untouched: bool,
}

impl Met {
    fn restore(&self, template: &Template) {
        if self.untouched { template.restore_ledger() } else { template.restore() }
    }
}

/// Flips bytes all over the ledger's files, one at a time.
pub fn anywhere(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let flips = if options.full { 1000 } else { 50 };
    let mut random = Random::new(options.seed);
    for (checkpointed, files) in [(true, &["ledger.db"][..]), (false, &["ledger.db-wal"])] {
        let template = Template::make(checkpointed);
        let mut met = Met::default();
        for _ in 0..flips {
            let file = files[random.below(files.len() as u64) as usize];
            let path = template.site.state().join(file);
            met.restore(&template);
            let length = used(&path);
            let (at, mask) = (random.below(length), 1 << random.below(8));
            let torn = file == "ledger.db-wal" && at >= last_commit(&path);
            flip(&path, at, mask);
            let fault = format!("{file} byte {at} ^ {mask:#x}");
            judge(&template, &fault, torn, &mut met, &mut tally);
        }
        tally.notes.push(format!(
            "{}: {} refused, {} without effect",
            files.join(", "),
            met.refused,
            met.without_effect
        ));
    }
    tally
}

/// Cuts the write-ahead log.
pub fn cut(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let mut random = Random::new(options.seed);
    let template = Template::make(false);
    let mut met = Met::default();
    for _ in 0..if options.full { 1000 } else { 30 } {
        met.restore(&template);
        let path = template.site.state().join("ledger.db-wal");
        let length = used(&path);
        let to = random.below(length);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(to).unwrap();
        judge(&template, &format!("-wal cut to {to} of {length}"), true, &mut met, &mut tally);
    }
    tally.notes.push(format!("{} refused, {} without effect", met.refused, met.without_effect));
    tally
}

/// Room for commits is behind the log's end, as much of it as a power cut has left, also behind a last
/// commit that is torn: an ordinary end.
pub fn room(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let mut random = Random::new(options.seed);
    let template = Template::make(false);
    let mut met = Met::default();
    for round in 0..if options.full { 500 } else { 30 } {
        met.restore(&template);
        let path = template.site.state().join("ledger.db-wal");
        let log = OpenOptions::new().write(true).open(&path).unwrap();
        // A last page may end in zeros of its own.
        let end = HEADER + (used(&path) - HEADER).next_multiple_of(FRAME);
        let room = random.below(ROOM_MAX);
        let torn = round % 2 == 1;
        // What is cut and made longer again reads as zeros.
        let whole = if torn { last_commit(&path) } else { end };
        let to = whole + random.below(end - whole + 1);
        log.set_len(to).unwrap();
        log.set_len(to + room).unwrap();
        let refused = met.refused;
        let fault = format!("-wal ends at {to} of {end}, {room} zeros behind");
        judge(&template, &fault, torn, &mut met, &mut tally);
        tally.require(met.refused == refused, || format!("{fault}: refused"));
    }
    tally
}

/// The head of a write-ahead log, and a frame in it with its page.
const HEADER: u64 = 32;
const FRAME: u64 = 24 + 4096;

/// More than two stretches of room.
const ROOM_MAX: u64 = 1200 << 10;

/// The length of a ledger's file, without the room that is made ahead in a write-ahead log.
fn used(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn differs(template: &Template, shown: &[Value], torn: bool, after: bool) -> Option<String> {
    if torn { template.differs_from_earlier(shown, after) } else { template.differs(shown, after) }
}

/// Where the last commit of a write-ahead log begins, its predecessor's checksum included: damage from
/// there on cannot be told from a commit that was never acknowledged.
fn last_commit(wal: &Path) -> u64 {
    let bytes = std::fs::read(wal).unwrap();
    let page = u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let commits: Vec<usize> = (32..bytes.len().saturating_sub(page))
        .step_by(24 + page)
        .filter(|at| bytes[at + 8..at + 16] == bytes[16..24] && bytes[at + 4..at + 8] != [0; 4])
        .collect();
    commits.iter().rev().nth(1).map_or(0, |before_last| *before_last as u64)
}

fn flip(path: &Path, at: u64, mask: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at).unwrap();
}

/// Reads the damaged ledger, goes on with it, and compares with what would have been.
///
/// A log that is `torn` looks like one that a power cut tore: its last commits may be gone, and what
/// remains has to be consistent.
fn judge(template: &Template, fault: &str, torn: bool, met: &mut Met, tally: &mut Tally) {
    tally.fired += 1;
    let site = &template.site;
    let shown = site.run(&["history", "-o", "jsonl"]);
    let mut wrong = Vec::new();
    match shown.code {
        Some(0) => wrong.extend(differs(template, &shown.jsonl(), torn, false)),
        REFUSED => wrong.extend(unhelpful(&shown)),
        code => wrong.push(format!("history ends with {code:?}: {}", shown.stderr)),
    }
    // What was shown before the damage was met has to be true as well.
    if shown.code == REFUSED
        && shown.jsonl().iter().any(|record| !template.history.contains(record))
    {
        wrong.push("history showed a record that is none".to_owned());
    }
    let done = template.finish();
    let refused = shown.code == REFUSED || done.code == REFUSED;
    if done.code == REFUSED {
        wrong.extend(unhelpful(&done));
    } else if !DONE.contains(&done.code) {
        wrong.push(format!("batch ends with {:?}: {}", done.code, done.stderr));
    } else {
        tally.acked += done.jsonl().len() as u64;
        // Damage in what is only history does not keep the rest from going on.
        if !refused {
            wrong.extend(differs(template, &site.history(), torn, true));
        }
        let effects = template.effects_now();
        if !refused && effects != template.effects {
            wrong.push(format!("effects {effects:?} instead of {:?}", template.effects));
        }
    }
    if let Some(more) =
        template.effects_now().iter().find(|effect| !template.effects.contains(effect))
    {
        wrong.push(format!("an effect that was not due: {more}"));
    }
    for (path, bytes) in tree(&site.packages()) {
        let known = [&template.packages_before, &template.packages_after];
        if known.iter().all(|packages| packages.get(&path) != Some(&bytes)) {
            wrong.push(format!("packages/{path} was never due"));
        }
    }
    met.untouched = done.code == REFUSED && template.effects_now().is_empty();
    met.refused += u64::from(refused);
    met.without_effect += u64::from(!refused && wrong.is_empty());
    for text in wrong {
        let text: String = text.chars().take(400).collect();
        tally.violation(format!("{fault}: {text}"));
    }
}

/// Whether the message leaves the operator alone.
fn unhelpful(finished: &Finished) -> Option<String> {
    let helps = finished.stderr.contains("--accept-restored-ledger")
        || finished.stderr.contains("newer intentd");
    (!helps).then(|| format!("it does not say what to do: {}", finished.stderr))
}
