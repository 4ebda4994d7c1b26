//! Operands of `batch`: any name, links followed, originals left alone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Instant;

use crossbeam_channel::{after, at, select};

use crate::batch::Room;
use crate::intake;
use crate::limits::IN_FLIGHT_MAX;
use crate::model::{Code, FileName, Mode, Rejection};
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::take::{Held, Stage};
use crate::pipeline::{Error, Event, ToLedger, now};
use crate::processor::Submission;

/// One document that was named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The standard input.
    Stdin,
    /// A file, under the name that it is recorded by.
    File { file: FileName, path: PathBuf },
}

impl Operand {
    /// How it is called in records.
    pub fn file(&self) -> FileName {
        match self {
            Operand::Stdin => FileName::new("-"),
            Operand::File { file, .. } => file.clone(),
        }
    }

    /// Reads it once, at most one byte more than the limit.
    pub fn read(&self, size_bytes_max: u64) -> Result<Vec<u8>, Rejection> {
        let mut bytes = Vec::new();
        let read = match self {
            Operand::Stdin => io::stdin().take(size_bytes_max + 1).read_to_end(&mut bytes),
            Operand::File { path, .. } => File::open(path).and_then(|file| {
                // With room for all and one more, one call reads it and one sees the end.
                bytes.reserve_exact(file.metadata()?.len().min(size_bytes_max) as usize + 1);
                file.take(size_bytes_max + 1).read_to_end(&mut bytes)
            }),
        };
        if let Err(error) = read {
            return Err(Rejection::of_file(
                Code::Unreadable,
                format!("it cannot be read: {error}"),
            ));
        }
        match intake::oversize(bytes.len() as u64, size_bytes_max) {
            Some(rejection) => Err(rejection),
            None => Ok(bytes),
        }
    }
}

/// Delivers copies of the operands, after what an earlier leader left.
pub fn run(
    stage: &Stage,
    operands: Vec<Operand>,
    mut held: VecDeque<Held>,
    beat: &Beat,
) -> Result<(), Error> {
    let _ = stage.events.send(Event::Ready);
    while !held.is_empty() {
        let group = stage.held_group(&mut held, Instant::now());
        stage.submit(group, Mode::Run, &mut held)?;
        if let Some(due) = held.iter().map(|held| held.due).min() {
            let waited = beat.idle(|| {
                select! {
                    recv(stage.stopped) -> _ => false,
                    recv(at(due)) -> _ => true,
                }
            });
            if !waited {
                return Ok(());
            }
        }
    }
    let mut operands = operands.into_iter().peekable();
    while operands.peek().is_some() && !stage.is_stopped() {
        if !submit_some(stage, &mut operands) && !wait_for_room(stage, beat) {
            break;
        }
    }
    Ok(())
}

/// Submits the next operands, as many as there is room for; `false` when there was none.
fn submit_some(stage: &Stage, operands: &mut impl Iterator<Item = Operand>) -> bool {
    let rules = stage.live.rules();
    // How large an operand is shows only when it is read: each counts with the most it may have,
    // so that a group is as small as it needs to be for memory.
    let most = rules.size_bytes_max as usize;
    let mut room = Room::default();
    let mut files = Vec::new();
    let mut documents = Vec::new();
    let mut tokens = Vec::new();
    while room.takes(0) {
        let Some(token) = stage.window.admit(most, IN_FLIGHT_MAX) else { break };
        let Some(operand) = operands.next() else { break };
        let read = operand.read(rules.size_bytes_max);
        drop(token);
        tokens.push(stage.window.force(read.as_ref().map_or(0, Vec::len)));
        files.push(operand.file());
        documents.push(read);
    }
    let submissions: Vec<Submission> = stage
        .intake
        .judge(&rules, documents)
        .into_iter()
        .zip(files)
        .zip(tokens)
        .map(|((judged, file), token)| {
            Submission::new(file, None, judged, None, Mode::Batch, now(), token)
        })
        .collect();
    let some = !submissions.is_empty();
    if some {
        let _ = stage.to_ledger.send(ToLedger::Accept(submissions));
    }
    some
}

/// Waits until something was let go; `false` when told to stop.
fn wait_for_room(stage: &Stage, beat: &Beat) -> bool {
    beat.idle(|| {
        select! {
            recv(stage.stopped) -> _ => false,
            recv(stage.window.freed()) -> _ => true,
            // The message may have been taken for an earlier one: look again in any case.
            recv(after(std::time::Duration::from_millis(100))) -> _ => true,
        }
    })
}
