//! The rows of both harnesses: how many states of which kind.

use super::calls::ROOM;
use super::disk::Kind::{Ext4, Xfs};
use super::ground::Layout::{self, Memory, One, Three};
use super::point::Fault::{self, Cut, CutFlushed, Kill};
use super::sweep::Sweep;
use crate::report::{Options, Row, Tally};
use crate::workload::Load;

pub fn kills() -> Vec<Row> {
    vec![
        Row { id: "A1", what: "killed before and after each call", run: killed },
        Row {
            id: "A1.hands",
            what: "killed at any call, both hands of the package sink at work",
            run: |options| hands("kill", "A1.hands", Memory, Kill, options),
        },
        Row {
            id: "A6",
            what: "killed, and again during the recovery",
            run: |options| chains("kill", "A6", Memory, &[Kill], 2, options),
        },
        Row {
            id: "A7",
            what: "killed five times in a row",
            run: |options| chains("kill", "A7", Memory, &[Kill], 5, options),
        },
    ]
}

pub fn cuts() -> Vec<Row> {
    vec![
        Row {
            id: "A2",
            what: "one ext4, nothing flushed",
            run: |options| cut("A2", One(Ext4), Cut, options),
        },
        Row {
            id: "A3",
            what: "one ext4, journal flushed",
            run: |options| cut("A3", One(Ext4), CutFlushed, options),
        },
        Row {
            id: "A4.2",
            what: "three ext4, nothing flushed",
            run: |options| cut("A4.2", Three(Ext4), Cut, options),
        },
        Row {
            id: "A4.1",
            what: "three ext4, journals flushed",
            run: |options| cut("A4.1", Three(Ext4), CutFlushed, options),
        },
        Row {
            id: "A4.hands",
            what: "three ext4, nothing flushed, both hands of the package sink at work",
            run: |options| hands("cut", "A4.hands", Three(Ext4), Cut, options),
        },
        Row {
            id: "A3.hands",
            what: "one ext4, journal flushed, both hands of the package sink at work",
            run: |options| hands("cut", "A3.hands", One(Ext4), CutFlushed, options),
        },
        Row {
            id: "A2.room",
            what: "one ext4, nothing flushed, as room is made in the ledger's log",
            run: |options| room("A2.room", One(Ext4), Cut, options),
        },
        Row {
            id: "A3.room",
            what: "one ext4, journal flushed, as room is made in the ledger's log",
            run: |options| room("A3.room", One(Ext4), CutFlushed, options),
        },
        Row {
            id: "A5.room",
            what: "one XFS, journal flushed, as room is made in the ledger's log",
            run: |options| room("A5.room", One(Xfs), CutFlushed, options),
        },
        Row {
            id: "A5.2",
            what: "one XFS, nothing flushed",
            run: |options| cut("A5.2", One(Xfs), Cut, options),
        },
        Row {
            id: "A5.1",
            what: "one XFS, journal flushed",
            run: |options| cut("A5.1", One(Xfs), CutFlushed, options),
        },
        Row {
            id: "A5.3",
            what: "three XFS, nothing flushed",
            run: |options| cut("A5.3", Three(Xfs), Cut, options),
        },
        Row {
            id: "A6.1",
            what: "crashed, and again during the recovery, one ext4",
            run: |options| chains("cut", "A6.1", One(Ext4), &[Cut, CutFlushed, Kill], 2, options),
        },
        Row {
            id: "A6.3",
            what: "crashed, and again during the recovery, three ext4",
            run: |options| chains("cut", "A6.3", Three(Ext4), &[Cut, CutFlushed, Kill], 2, options),
        },
        Row {
            id: "A7.3",
            what: "five crashes in a row, three ext4",
            run: |options| chains("cut", "A7.3", Three(Ext4), &[Cut, CutFlushed, Kill], 5, options),
        },
    ]
}

fn killed(options: &Options) -> Tally {
    let rounds = if options.full { 25 } else { 1 };
    Sweep::of("kill", "A1", Memory).every(options, Kill, rounds)
}

fn cut(row: &'static str, layout: Layout, fault: Fault, options: &Options) -> Tally {
    let sweep = Sweep::of("cut", row, layout);
    match (options.full, layout) {
        (true, One(Xfs) | Three(Xfs)) => sweep.every(options, fault, 1),
        (true, _) => sweep.every(options, fault, 4),
        (false, One(Xfs) | Three(Xfs)) => sweep.sample(options, fault, 20),
        (false, _) => sweep.sample(options, fault, 60),
    }
}

fn room(row: &'static str, layout: Layout, fault: Fault, options: &Options) -> Tally {
    let sweep = Sweep { only: Some(ROOM), ..Sweep::of("cut", row, layout) };
    sweep.each(options, fault, if options.full { 200 } else { 8 })
}

fn hands(
    harness: &'static str,
    row: &'static str,
    layout: Layout,
    fault: Fault,
    options: &Options,
) -> Tally {
    let sweep = Sweep { load: Load::Backlog, ..Sweep::of(harness, row, layout) };
    if options.full { sweep.every(options, fault, 4) } else { sweep.sample(options, fault, 100) }
}

fn chains(
    harness: &'static str,
    row: &'static str,
    layout: Layout,
    faults: &[Fault],
    length: usize,
    options: &Options,
) -> Tally {
    let count = match (options.full, length) {
        (true, 2) => 2000,
        (true, _) => 500,
        (false, 2) => 50,
        (false, _) => 10,
    };
    Sweep::of(harness, row, layout).chains(options, faults, length, count)
}
