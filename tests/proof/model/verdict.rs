//! What must hold when all has ended, and what must hold right after a power cut.

use std::collections::BTreeMap;

use intentd::ledger::Finished;
use intentd::model::{Code, FileKind, Outcome, Seq, derived};
use intentd::processor::archive;
use intentd::spool::Shelf;

use super::disk::{Dir, Text};
use super::lanes::PACKAGE;
use super::path::{dir, reason_name};
use super::world::World;

/// What was told to be delivered stands there, whatever the disk has forgotten.
pub fn after_power_cut(world: &mut World) {
    let mut lost = Vec::new();
    for ((sink, key), (seq, digest)) in &world.ledger.targets {
        let standing = world.packages.standing(key);
        let holds = standing.is_some_and(|there| there.digest == Some(*digest) || there.seq > *seq);
        if sink == PACKAGE && !holds {
            lost.push(format!("{seq} is finished and its package is gone: {standing:?}"));
        }
    }
    lost.into_iter().for_each(|text| world.violation(text));
}

/// Everything at the end.
pub fn check(world: &mut World) {
    let mut found = Vec::new();
    records(world, &mut found);
    drops(world, &mut found);
    places(world, &mut found);
    targets(world, &mut found);
    found.into_iter().for_each(|text| world.violation(text));
}

fn records(world: &World, found: &mut Vec<String>) {
    let mut names = BTreeMap::<(Dir, &[u8]), Seq>::new();
    for (seq, row) in &world.ledger.rows {
        let Some(finished) = &row.finished else {
            found.push(format!("{seq} has no outcome"));
            continue;
        };
        if world.log.acked.get(seq) != Some(&finished.outcome) {
            found.push(format!("{seq} was told as {:?}", world.log.acked.get(seq)));
        }
        if finished.outcome == Outcome::Superseded && world.log.handed.contains(seq) {
            found.push(format!("{seq} is superseded and was handed to a sink"));
        }
        for receipt in &finished.receipts {
            let calls =
                world.log.calls.get(&(*seq, receipt.sink.clone())).copied().unwrap_or_default();
            if u64::from(receipt.attempts) > calls {
                found.push(format!("{seq} claims {} attempts of {calls}", receipt.attempts));
            }
        }
        if let Some(name) = &finished.archived_as
            && let Some(other) = names.insert((dir(archive::shelf(finished.outcome)), name), *seq)
        {
            found.push(format!("{seq} and {other} are archived under one name"));
        }
    }
}

fn drops(world: &World, found: &mut Vec<String>) {
    for (index, drop) in world.drops.iter().enumerate() {
        let Some(ino) = drop.ino else { continue };
        let rows: Vec<_> = world.ledger.rows.iter().filter(|(_, row)| row.ino == ino).collect();
        if rows.len() > 1 {
            found.push(format!("drop {index} has {} records", rows.len()));
        }
        if drop.loose {
            continue;
        }
        let Some((seq, row)) = rows.first() else {
            found.push(format!("drop {index} has no record"));
            continue;
        };
        let inode = &world.disk.inodes[ino];
        let document = &world.documents[drop.document];
        let admitted = row.document.is_some();
        let whole = inode.text == Text::Whole(drop.document) && document.valid;
        let small = inode.len <= 11 << 20 && inode.kind == FileKind::Regular;
        if admitted != (whole && small) {
            let code = row.finished.as_ref().map(|finished| finished.code);
            found.push(format!("drop {index} is {code:?} as {seq}, and holds {:?}", inode.text));
        }
        if row.document.as_ref().is_some_and(|bytes| *bytes != document.bytes) {
            found.push(format!("drop {index} is {seq} with another document"));
        }
    }
}

fn places(world: &World, found: &mut Vec<String>) {
    let mut reasons = BTreeMap::new();
    for (seq, row) in &world.ledger.rows {
        let Some(Finished { outcome, archived_as: Some(planned), .. }) = &row.finished else {
            continue;
        };
        let shelf = archive::shelf(*outcome);
        let safe = row.record.file.safe();
        let spare = derived(&format!("{seq}."), safe.as_bytes(), "");
        let place = world.disk.inodes[row.ino].place();
        let name = match place {
            Some((at, name)) if *at == dir(shelf) && (name == planned || *name == spare) => name,
            _ => {
                found.push(format!("{seq} is {outcome:?} and its document is at {place:?}"));
                continue;
            }
        };
        let told = |place: (Dir, Vec<u8>)| match world.disk.at(&place) {
            // A known gap: a leader that has lost its lock may write the same text once more, which
            // nobody syncs. The ledger has it; the file beside the document is empty after a cut.
            Some(ino) if world.log.stale_and_cut => {
                let text = world.disk.inodes[ino].text;
                text == Text::Told(*seq, *outcome) || matches!(text, Text::Zeroes | Text::Blank)
            }
            Some(ino) => world.disk.inodes[ino].text == Text::Told(*seq, *outcome),
            None => false,
        };
        if shelf == Shelf::Failed {
            reasons.insert(reason_name(name), *seq);
            if !told((Dir::Failed, reason_name(name))) {
                found.push(format!("the reason beside {seq} is not its own"));
            }
        }
        if !told((Dir::Status, derived("", safe.as_bytes(), &format!(".{seq}.json")))) {
            found.push(format!("the status of {seq} is not its own"));
        }
    }
    for (name, ino) in world.disk.list(Dir::Failed) {
        if let Text::Told(seq, _) = world.disk.inodes[ino].text
            && !reasons.contains_key(name)
        {
            found.push(format!("a reason of {seq} lies beside nothing"));
        }
    }
}

fn targets(world: &World, found: &mut Vec<String>) {
    for ((sink, key), (seq, digest)) in &world.ledger.targets {
        let (there, by) = if sink == PACKAGE {
            let standing = world.packages.standing(key);
            (standing.and_then(|standing| standing.digest), standing.map(|standing| standing.seq))
        } else {
            let object = world.remote.objects.get(key);
            (object.map(|object| object.0), object.map(|object| object.1))
        };
        // A parked one may have had its effect: its answer was lost.
        let parked = |by: Seq| {
            world.ledger.rows[&by]
                .finished
                .as_ref()
                .is_some_and(|end| end.code == Code::SinkUnavailable)
        };
        if there != Some(*digest) && !by.is_some_and(|by| by > *seq && parked(by)) {
            found.push(format!("{sink} does not show {seq}, the newest of {key}, but {by:?}"));
        }
    }
}
