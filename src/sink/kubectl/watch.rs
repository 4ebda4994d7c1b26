//! Follows what was written, a `kubectl get --watch` each, on threads of the sink's own.
//!
//! A watch decides nothing: when it sees what was waited for it asks for another look, and that look
//! reads the object anew. So a watch that misses something, ends early or was never started costs
//! time and nothing else.
//!
//! Invariant: no watch, and no kubectl of one, outlives this.

use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::model::Seq;
use crate::sink::Waker;
use crate::sink::kubectl::program::Program;

/// Watches at a time: a kubectl each takes some 50 MiB, and what is not watched is looked at every
/// few seconds.
const WATCHES_MAX: usize = 4;

/// A watch of ours lasts no longer; servers end them after half an hour to an hour anyway.
const WATCH_MAX: Duration = Duration::from_secs(30 * 60);

/// An event is one object: etcd takes 1.5 MiB, which JSON may triple.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// Tells whether an object is worth a look.
pub type Wanted = Box<dyn Fn(&Value) -> bool + Send>;

/// All watches of a sink.
#[derive(Debug, Default)]
pub struct Watches {
    running: HashMap<Seq, Watch>,
}

#[derive(Debug)]
struct Watch {
    /// Closing it ends the watch.
    hangup: PipeWriter,
    thread: JoinHandle<()>,
}

impl Watches {
    /// Follows the object for this intent until it is as wanted; does nothing where that is followed
    /// already. `false` where it is not followed now: all watches are taken, or no thread is to be
    /// had.
    pub fn follow(
        &mut self,
        seq: Seq,
        program: &Program,
        arguments: Vec<String>,
        wanted: Wanted,
        waker: &Waker,
    ) -> bool {
        if self.running.get(&seq).is_some_and(|watch| !watch.thread.is_finished()) {
            return true;
        }
        self.running.retain(|_, watch| !watch.thread.is_finished());
        if self.running.len() >= WATCHES_MAX {
            return false;
        }
        let (program, waker) = (program.clone(), waker.clone());
        let Ok((hung_up, hangup)) = io::pipe() else { return false };
        let thread = thread::Builder::new().name(format!("watch-{seq}")).spawn(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let mut events = Events::default();
            let mut seen = false;
            let mut heard = |bytes: &[u8]| {
                let flow = events.take(bytes, &wanted);
                seen |= flow == ControlFlow::Break(true);
                if flow.is_break() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let due = Instant::now() + WATCH_MAX;
            // Why it ended is of no use here: the next look meets the same trouble and tells it.
            let _ = program.listen(&arguments, due, hung_up.as_fd(), &mut heard);
            if seen {
                waker(seq);
            }
        });
        let Ok(thread) = thread else { return false };
        self.running.insert(seq, Watch { hangup, thread });
        true
    }

    /// Ends the watch for this intent, if there is one.
    pub fn leave(&mut self, seq: Seq) {
        if let Some(watch) = self.running.remove(&seq) {
            watch.end();
        }
    }
}

impl Watch {
    fn end(self) {
        drop(self.hangup);
        // One that has panicked has told so itself, and there is nothing to be had from it.
        let _ = self.thread.join();
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for (_, watch) in self.running.drain() {
            watch.end();
        }
    }
}

/// Events as they come, cut anywhere.
#[derive(Default)]
struct Events {
    pending: Vec<u8>,
}

impl Events {
    /// Takes in some bytes; `Break(true)` once an object is as wanted or is gone, `Break(false)`
    /// where this is no stream of events.
    fn take(&mut self, bytes: &[u8], wanted: &Wanted) -> ControlFlow<bool> {
        self.pending.extend_from_slice(bytes);
        if self.pending.last() != Some(&b'\n') {
            let too_long = self.pending.len() > EVENT_BYTES_MAX;
            return if too_long { ControlFlow::Break(false) } else { ControlFlow::Continue(()) };
        }
        let mut events = serde_json::Deserializer::from_slice(&self.pending).into_iter::<Value>();
        let mut whole = 0;
        while let Some(event) = events.next() {
            match event {
                Ok(event) if event["type"] == "DELETED" || wanted(&event["object"]) => {
                    return ControlFlow::Break(true);
                }
                Ok(_) => whole = events.byte_offset(),
                Err(error) if error.is_eof() => break,
                Err(_) => return ControlFlow::Break(false),
            }
        }
        self.pending.drain(..whole);
        match self.pending.len() > EVENT_BYTES_MAX {
            true => ControlFlow::Break(false),
            false => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_wherever_they_are_cut() {
        let text = "{\"type\":\"ADDED\",\"object\":{\"n\":1}}\n\
                    {\n  \"type\": \"MODIFIED\",\n  \"object\": {\"n\": 2}\n}\n";
        let wanted: Wanted = Box::new(|object| object["n"] == 2);
        for at in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            let mut events = Events::default();
            assert_eq!(events.take(one, &wanted), ControlFlow::Continue(()), "{at}");
            assert_eq!(events.take(other, &wanted), ControlFlow::Break(true), "{at}");
        }
        let mut events = Events::default();
        let never: Wanted = Box::new(|_| false);
        assert_eq!(events.take(text.as_bytes(), &never), ControlFlow::Continue(()));
        assert!(events.pending.len() <= 1, "what was looked at is let go");
        let gone = b"{\"type\":\"DELETED\",\"object\":{}}\n";
        assert_eq!(events.take(gone, &never), ControlFlow::Break(true));
        let mut events = Events::default();
        assert_eq!(events.take(b"NAME READY\n", &never), ControlFlow::Break(false));
    }

    #[test]
    fn a_stream_without_an_end_of_a_line_is_given_up() {
        let wanted: Wanted = Box::new(|_| false);
        let mut events = Events::default();
        let mut taken = ControlFlow::Continue(());
        for _ in 0..=EVENT_BYTES_MAX >> 20 {
            taken = events.take(&vec![b' '; 1 << 20], &wanted);
        }
        assert_eq!(taken, ControlFlow::Break(false));
    }
}
