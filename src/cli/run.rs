//! `run`: the daemon.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use sd_notify::NotifyState;
use tracing::{error, info, warn};

use crate::cli::exit::Exit;
use crate::cli::supervise::{Next, Supervisor};
use crate::cli::{load, setup};
use crate::config::{Loaded, Overrides};
use crate::leader::{Attempt, Holder, Lock};
use crate::pipeline::signals::{self, Signal};
use crate::pipeline::{self, Claimant, Event, Live, Until};
use crate::telemetry::{self, Log};

pub fn run(overrides: &Overrides) -> Result<Exit> {
    setup::harden()?;
    let loaded = load(overrides)?;
    let config = &loaded.config;
    let log = telemetry::init(&config.log_level, &config.log_format)
        .map_err(|source| setup::refused("set up the log", source.into()))?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let live = setup::live(config, false)?;
    let (events, heard) = pipeline::events();
    signals::listen(events.clone())?;
    let claimant = setup::claimant(config)?;
    let mut reloader = Reloader { overrides, loaded: loaded.clone(), live, log };
    let Some(lock) = wait_for_lock(&claimant, &mut reloader, &events, &heard)? else {
        return Ok(Exit::Done);
    };
    let leadership = claimant.lead(lock)?;
    info!(epoch = leadership.lead.epoch, version = env!("CARGO_PKG_VERSION"), "leading");
    let source = setup::inbox(config, Until::Stopped);
    let options = setup::options(config, &leadership, None);
    say_how_files_settle(options.leases);
    let live = Arc::clone(&reloader.live);
    let running = pipeline::start(leadership, source, live, options, &events)?;
    let supervisor = Supervisor::new(running, reloader.loaded.config.drain);
    Daemon { reloader, supervisor }.run(&heard)
}

struct Daemon<'a> {
    reloader: Reloader<'a>,
    supervisor: Supervisor,
}

impl Daemon<'_> {
    fn run(mut self, heard: &Receiver<Event>) -> Result<Exit> {
        // Twice in the time that systemd waits, so that one late answer is no death sentence.
        let watchdog = sd_notify::watchdog_enabled().map(|interval| interval / 2);
        let mut next_beat = watchdog.map(|every| Instant::now() + every);
        loop {
            let due = [next_beat, self.supervisor.deadline()].into_iter().flatten().min();
            let event = match due {
                Some(due) => heard.recv_deadline(due),
                None => heard.recv().map_err(RecvTimeoutError::from),
            };
            match event {
                Ok(event) => {
                    let draining = matches!(event, Event::Signal(Signal::Drain));
                    match self.supervisor.hear(event, false)? {
                        Next::End => break,
                        Next::Ready => {
                            info!("ready");
                            notify(&[NotifyState::Ready, NotifyState::Status("leading")]);
                        }
                        Next::Reload => {
                            self.reloader.reload("leading");
                            self.supervisor.set_drain(self.reloader.loaded.config.drain);
                        }
                        Next::Go | Next::StillWritten(_) => {}
                    }
                    if draining {
                        notify(&[NotifyState::Stopping, NotifyState::Status("finishing")]);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if self.supervisor.deadline().is_some_and(|deadline| deadline <= now) {
                self.supervisor.give_up()?;
                break;
            }
            if let (Some(every), Some(at)) = (watchdog, next_beat)
                && at <= now
            {
                self.beat();
                next_beat = Some(now + every);
            }
        }
        info!("stopped");
        Ok(Exit::Done)
    }

    /// Tells systemd that we get on, unless a stage does not.
    fn beat(&self) {
        let stuck = self.supervisor.heartbeats.stuck();
        if stuck.is_empty() {
            notify(&[NotifyState::Watchdog]);
        } else {
            error!(stages = stuck.join(","), "no progress; not telling the watchdog otherwise");
        }
    }
}

/// Reads the configuration again, for a leader and for a standby alike.
struct Reloader<'a> {
    overrides: &'a Overrides,
    loaded: Loaded,
    live: Arc<Live>,
    log: Log,
}

impl Reloader<'_> {
    /// Puts a new configuration in force, all of it that can be, or nothing; `role` is what systemd
    /// shows afterwards.
    fn reload(&mut self, role: &str) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        let status = match self.try_reload() {
            Ok(()) => role.to_owned(),
            Err(error) => {
                let chain = format!("{error:#}");
                error!(error = chain, "configuration not reloaded: the old one stays in force");
                format!("{role}; the last reload was refused")
            }
        };
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    fn try_reload(&mut self) -> Result<()> {
        let newer = load(self.overrides)?;
        let (rules, settings) = (setup::rules(&newer.config)?, setup::settings(&newer.config)?);
        self.log.set_level(&newer.config.log_level).context("use `log_level`")?;
        self.live.swap(rules, settings);
        let waiting = self.loaded.changes_for_a_restart(&newer);
        if !waiting.is_empty() {
            warn!(keys = waiting.join(","), "these changes need a restart");
        }
        self.loaded = newer;
        info!("configuration reloaded");
        Ok(())
    }
}

/// Takes the lock, or stands by until it is ours; `None` when told to stop meanwhile.
fn wait_for_lock(
    claimant: &Claimant,
    reloader: &mut Reloader<'_>,
    events: &Sender<Event>,
    heard: &Receiver<Event>,
) -> Result<Option<Lock>> {
    let holder = match claimant.attempt(pipeline::now())? {
        Attempt::Held(lock) => return Ok(Some(lock)),
        Attempt::Busy(holder) => holder,
    };
    info!(holder = Holder::shown(holder.as_ref()), "standby");
    notify(&[NotifyState::Ready, NotifyState::Status("standing by")]);
    let (path, locked) = (claimant.lock_path(), events.clone());
    // Waits in the kernel; it ends with the lock or with the process.
    std::thread::Builder::new()
        .name("standby".to_owned())
        .spawn(move || locked.send(Event::Locked(Lock::wait(&path))))
        .context("start thread `standby`")?;
    let watchdog = sd_notify::watchdog_enabled().map(|interval| interval / 2);
    loop {
        let event = match watchdog {
            Some(every) => heard.recv_timeout(every),
            None => heard.recv().map_err(RecvTimeoutError::from),
        };
        match event {
            Ok(Event::Locked(file)) => {
                let taken = file
                    .and_then(|file| Lock::waited(file, &claimant.lock_path(), pipeline::now()));
                return Ok(Some(taken.map_err(pipeline::Error::Lock)?));
            }
            Ok(Event::Signal(Signal::Drain)) => {
                notify(&[NotifyState::Stopping]);
                info!("stopped");
                return Ok(None);
            }
            Ok(Event::Signal(Signal::Reload)) => reloader.reload("standing by"),
            // There is nothing to look at.
            Ok(_) => {}
            Err(_) => notify(&[NotifyState::Watchdog]),
        }
    }
}

fn say_how_files_settle(leases: bool) {
    let may_ask = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::LEASE));
    match (leases, may_ask) {
        (true, true) => info!(settle = "lease", "the kernel says when a file is finished"),
        (true, false) => info!(
            settle = "lease for own files, quiescence for others",
            "without CAP_LEASE a producer's file is finished once it is quiet"
        ),
        (false, _) => info!(settle = "quiescence", "a file is finished once it is quiet"),
    }
}

/// Tells systemd, if it listens; nothing depends on it.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        let _ = writeln!(io::stderr(), "intentd: systemd cannot be told: {error}");
    }
}
