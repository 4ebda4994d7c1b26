//! Points at which a test build dies, stops or misbehaves; nothing at all in any other build.
//!
//! With the feature `failpoints`, the variable `FAILPOINTS` holds a list as in
//! `claim.rename.before=kill@2;archive.sync=skip`: the process kills or stops itself when it comes to
//! that point for the second time, or leaves a step out whenever it comes to it (a mutant). A point may
//! be named for one thread alone, as in `sink-package-2/stage.sync=skip`. Each point that is passed is
//! appended to the file that `FAILPOINTS_TRACE` names, a line `THREAD/POINT` each. `package.batch=bound@2`
//! makes a bound smaller, so that a small workload comes to it.
//!
//! Without the feature every function here is an empty one, and the variables mean nothing.

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    #[derive(Clone, Copy, PartialEq)]
    enum Action {
        Kill,
        Stop,
        Skip,
        Bound,
    }

    struct Plan {
        /// What to do, and at which passing of the point; 0 means at each.
        actions: HashMap<String, (Action, u64)>,
        passed: Mutex<HashMap<String, u64>>,
        trace: Option<std::fs::File>,
    }

    static PLAN: LazyLock<Plan> = LazyLock::new(|| {
        let text = std::env::var("FAILPOINTS").unwrap_or_default();
        let actions = text.split(';').filter(|part| !part.is_empty()).map(parse).collect();
        let trace = std::env::var_os("FAILPOINTS_TRACE").map(|path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            file.expect("the trace of the failpoints can be written")
        });
        Plan { actions, passed: Mutex::default(), trace }
    });

    fn parse(part: &str) -> (String, (Action, u64)) {
        let (point, action) = part.split_once('=').expect("a failpoint is POINT=ACTION[@N]");
        let (action, at) = action.split_once('@').unwrap_or((action, "0"));
        let action = match action {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "skip" => Action::Skip,
            "bound" => Action::Bound,
            other => panic!("a failpoint kills, stops, skips or bounds, and does not `{other}`"),
        };
        (point.to_owned(), (action, at.parse().expect("a failpoint's count is a number")))
    }

    /// The point as this thread alone passes it.
    fn of_this_thread(point: &str) -> String {
        format!("{}/{point}", std::thread::current().name().unwrap_or_default())
    }

    /// What is planned for the point, and under which of its names.
    fn planned(point: &str) -> Option<(String, Action, u64)> {
        let names = [point.to_owned(), of_this_thread(point)];
        names.into_iter().find_map(|name| {
            let (action, at) = *PLAN.actions.get(&name)?;
            Some((name, action, at))
        })
    }

    pub fn pass(point: &str) {
        if let Some(mut trace) = PLAN.trace.as_ref() {
            let _ = trace.write_all(format!("{}\n", of_this_thread(point)).as_bytes());
        }
        let Some((name, action, at)) = planned(point) else { return };
        let mut passed = PLAN.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(name).or_default();
        *count += 1;
        if at != 0 && at != *count {
            return;
        }
        drop(passed);
        match action {
            Action::Kill => {
                kill_process(getpid(), Signal::KILL).expect("a process may signal itself");
            }
            // To this very thread: a stop that another one takes lets this one go on for a moment.
            Action::Stop => {
                signal_hook::low_level::raise(libc::SIGSTOP).expect("a thread may signal itself");
            }
            Action::Skip | Action::Bound => {}
        }
    }

    pub fn skips(point: &str) -> bool {
        planned(point).is_some_and(|(_, action, _)| action == Action::Skip)
    }

    pub fn bound(name: &str) -> Option<usize> {
        let (_, action, to) = planned(name)?;
        (action == Action::Bound).then_some(to as usize)
    }
}

/// Runs one durable step between the points `NAME.before` and `NAME.after`.
#[inline(always)]
pub fn step<T>(name: &str, run: impl FnOnce() -> T) -> T {
    #[cfg(feature = "failpoints")]
    armed::pass(&format!("{name}.before"));
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
    let done = run();
    #[cfg(feature = "failpoints")]
    armed::pass(&format!("{name}.after"));
    done
}

/// Like [`step`] for one that a mutant may leave out: a sync, a check.
#[inline(always)]
pub fn guard<E>(name: &str, run: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if is_mutant(name) { Ok(()) } else { step(name, run) }
}

/// Whether the build is the mutant of this name: always false without the feature.
#[inline(always)]
pub fn is_mutant(name: &str) -> bool {
    #[cfg(feature = "failpoints")]
    return armed::skips(name);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        false
    }
}

/// A bound that a test build may make smaller: always `bound` itself without the feature.
#[inline(always)]
pub fn bounded(name: &str, bound: usize) -> usize {
    #[cfg(feature = "failpoints")]
    return armed::bound(name).unwrap_or(bound);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        bound
    }
}
