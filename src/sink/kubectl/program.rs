//! Runs kubectl: without a shell, in an environment of its needs alone, and never longer than its
//! time.
//!
//! Secrets do not pass through here: kubectl reads them from the files that its kubeconfig names, or
//! asks the credential plugin that this names. Its arguments hold paths and names.

use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::config::KubectlSettings;
use crate::sink::child::{self, Ending, Pipes};
use crate::sink::kubectl::saying::Trouble;

/// What is handed on: where programs, files and credentials are, and how the network is reached. A
/// credential plugin that needs more is given it by `env` in the kubeconfig.
const HANDED_ON: &[&str] = &[
    "PATH",
    "HOME",
    "KUBECONFIG",
    "KUBECACHEDIR",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// For a service that was started without one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kubectl program with all that it is run with.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    environment: Vec<(&'static str, OsString)>,
    /// Before the verb of every call.
    access: Vec<OsString>,
    timeout: Duration,
}

impl Program {
    /// `cache` is where discovery is kept when the environment does not say.
    pub fn new(settings: &KubectlSettings, cache: Option<PathBuf>) -> Self {
        let mut environment: Vec<(&str, OsString)> =
            HANDED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        let defaults = [("PATH", Some(PATH.into())), ("KUBECACHEDIR", cache.map(OsString::from))];
        for (name, value) in defaults {
            let Some(value) = value else { continue };
            if environment.iter().all(|(there, _)| *there != name) {
                environment.push((name, value));
            }
        }
        // What it says is read by us, in English.
        environment.push(("LC_ALL", "C".into()));
        let mut access = Vec::new();
        // In one argument with their names: a value is never taken for an option.
        let mut option = |name: &str, value: OsString| {
            let mut argument = OsString::from(name);
            argument.push(value);
            access.push(argument);
        };
        if let Some(path) = &settings.access.kubeconfig {
            option("--kubeconfig=", path.into());
        }
        if let Some(context) = &settings.access.context {
            option("--context=", context.into());
        }
        Program { name: settings.program.clone(), environment, access, timeout: settings.timeout }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.name);
        command.env_clear().envs(self.environment.iter().cloned());
        command.args(&self.access).args(arguments);
        command
    }

    /// Runs kubectl with these arguments and gives what it printed, up to a limit.
    ///
    /// # Errors
    ///
    /// It did not run to a good end; whether a write has had its effect, the trouble knows.
    pub fn run(
        &self,
        arguments: &[&str],
        bytes_max: usize,
        due: Instant,
    ) -> Result<Vec<u8>, Trouble> {
        let started = Instant::now();
        let due = due.min(started + self.timeout);
        let pipes = Pipes { input: b"", capture_bytes_max: Some(bytes_max) };
        let ended = child::run(self.command(arguments), due, pipes)
            .map_err(|error| self.unstarted(&error))?;
        match ended.ending {
            Ending::Exited { code: 0, .. } => Ok(ended.stdout),
            Ending::Exited { code, .. } => Err(Trouble::of_stderr(&ended.stderr, code)),
            Ending::Killed { signal, .. } => {
                Err(Trouble::Unknown(format!("kubectl was killed by {signal}")))
            }
            Ending::TimedOut { said } => {
                let after = (due - started).as_secs_f64();
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(Trouble::Unknown(format!(
                    "kubectl had not ended after {after:.1} s and was killed{said}"
                )))
            }
            Ending::TooLong { .. } => {
                Err(Trouble::Unknown(format!("kubectl gave more than {bytes_max} bytes")))
            }
        }
    }

    /// Runs kubectl and hears what it prints until it ends, `due` comes, the listener has heard
    /// enough, or `hangup` becomes readable.
    pub fn listen(
        &self,
        arguments: &[&str],
        due: Instant,
        hangup: BorrowedFd<'_>,
        heard: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        child::listen(self.command(arguments), due, hangup, heard).map(|_| ())
    }

    fn unstarted(&self, error: &io::Error) -> Trouble {
        Trouble::Nothing(format!("`{}` cannot be run: {error}", self.name))
    }
}
