//! The one thread that receives signals.

use crossbeam_channel::Sender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::pipeline::{Error, Event};

/// A signal, as what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish what is accepted, then end.
    Drain,
    /// Read the configuration again.
    Reload,
    /// Look at the inbox now.
    Look,
}

/// Starts to pass signals on as events. A second SIGINT or SIGTERM ends the process here and now,
/// whatever the other threads are doing: the ledger is made for that.
///
/// # Errors
///
/// The handlers cannot be installed or the thread cannot be started.
pub fn listen(events: Sender<Event>) -> Result<(), Error> {
    let name = "signals".to_owned();
    let failed = |source| Error::Thread { name: name.clone(), source };
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]).map_err(failed)?;
    let thread = move || {
        let mut draining = false;
        for signal in signals.forever() {
            let asked = match signal {
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::Look,
                end if draining => std::process::exit(128 + end),
                _ => Signal::Drain,
            };
            draining |= asked == Signal::Drain;
            if events.send(Event::Signal(asked)).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name(name.clone()).spawn(thread).map(drop).map_err(failed)
}
