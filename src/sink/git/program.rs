//! Runs git: without a shell, in an environment of our own, and never longer than its time.
//!
//! Secrets do not pass through here: git asks a script of ours, which reads the token's file. What
//! is said of the token's file is its path.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::config::GitSettings;
use crate::sink::child::{self, Ending, Pipes};
use crate::sink::git::site::{Protocol, Site};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Answers git's two questions; its only argument is the question.
const ASKPASS: &str = "#!/bin/sh
case $1 in
Username*) printf '%s\\n' \"$INTENTD_GIT_USERNAME\" ;;
*) exec cat -- \"$INTENTD_GIT_TOKEN_FILE\" ;;
esac
";

/// Never asks anybody anything; takes key and known hosts from the settings.
const SSH: &str = "#!/bin/sh
set -- -o BatchMode=yes \"$@\"
[ -z \"$INTENTD_SSH_KEY\" ] || set -- -o IdentitiesOnly=yes -i \"$INTENTD_SSH_KEY\" \"$@\"
[ -z \"$INTENTD_KNOWN_HOSTS\" ] ||
    set -- -o \"UserKnownHostsFile=\\\"$INTENTD_KNOWN_HOSTS\\\"\" \"$@\"
exec \"$INTENTD_SSH\" \"$@\"
";

/// Settings of every call. They are given as arguments and not in a file, because a file would also
/// hold for the programs of a remote on this machine: its hooks have to run, its data to be synced.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    // The clone can always be fetched again; what lasts is the remote.
    "core.fsync=none",
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
    "init.defaultBranch=main",
    // Whoever we are sent to would be asked for, and given, the token.
    "http.followRedirects=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "core.quotePath=false",
];

/// How a call of git failed.
#[derive(Debug)]
pub enum Trouble {
    /// It could not be started.
    Start(io::Error),
    /// It had not ended in time and was killed.
    Hung { after: Duration },
    /// It was killed by somebody else, or wrote without end.
    Broken(String),
    /// It ended with an error.
    Failed { stdout: String, stderr: String },
}

/// The git program with all that it is run with.
#[derive(Debug)]
pub struct Program {
    name: String,
    /// The sink's own directory, below the state directory.
    dir: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    settings: Vec<String>,
    timeout: Duration,
    scripts: Vec<(&'static str, &'static str)>,
    /// The config file of the caller, for what does not come as an argument.
    config: String,
}

impl Program {
    pub fn new(site: &Site, settings: &GitSettings, dir: &Path) -> Self {
        let mut environment: Vec<(&str, OsString)> = vec![
            ("PATH", PATH.into()),
            ("HOME", dir.into()),
            // What it says is read by us, in English.
            ("LC_ALL", "C".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", dir.join("config").into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_NO_REPLACE_OBJECTS", "1".into()),
            ("GIT_ALLOW_PROTOCOL", site.protocol.name().into()),
            ("SSH_ASKPASS_REQUIRE", "never".into()),
        ];
        let mut scripts = Vec::new();
        let mut config = String::new();
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default().into_os_string();
        match site.protocol {
            Protocol::Ssh => {
                scripts.push(("ssh", SSH));
                environment.push(("GIT_SSH", dir.join("ssh").into()));
                environment.push(("GIT_SSH_VARIANT", "ssh".into()));
                environment.push(("INTENTD_SSH", settings.ssh_program.clone().into()));
                environment.push(("INTENTD_SSH_KEY", path(&settings.ssh_key)));
                environment.push(("INTENTD_KNOWN_HOSTS", path(&settings.known_hosts)));
            }
            Protocol::Https | Protocol::Http => {
                if let Some(ca) = &settings.ca_file {
                    environment.push(("GIT_SSL_CAINFO", ca.into()));
                }
                if let Some(token) = &settings.token_file {
                    scripts.push(("askpass", ASKPASS));
                    environment.push(("GIT_ASKPASS", dir.join("askpass").into()));
                    environment.push(("INTENTD_GIT_USERNAME", settings.username.clone().into()));
                    environment.push(("INTENTD_GIT_TOKEN_FILE", token.into()));
                }
            }
            // A repository of another user's is refused unless it is named: this one was.
            Protocol::File => {
                let path = site.remote.strip_prefix("file://").unwrap_or(&site.remote);
                let quoted = path.replace('\\', "\\\\").replace('"', "\\\"");
                config = format!("[safe]\n\tdirectory = \"{quoted}\"\n");
            }
        }
        let mut given: Vec<String> = SETTINGS.iter().map(|text| (*text).to_owned()).collect();
        if let Some(key) = &settings.signing_key {
            given.push(format!("user.signingKey={key}"));
            given.push(format!("gpg.format={}", settings.signing_format));
            // Keys of GnuPG lie in the home directory of the service's user, and not in ours.
            let home = std::env::var_os("GNUPGHOME").or_else(|| {
                Some(Path::new(&std::env::var_os("HOME")?).join(".gnupg").into_os_string())
            });
            environment.extend(home.map(|home| ("GNUPGHOME", home)));
        }
        Program {
            name: settings.program.clone(),
            dir: dir.to_owned(),
            environment,
            settings: given,
            timeout: settings.timeout,
            scripts,
            config,
        }
    }

    /// The sink's own directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the directory and the scripts, where they are not there as they should be.
    pub fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let config = [("config", self.config.as_str(), 0o600)];
        let scripts = self.scripts.iter().map(|(name, text)| (*name, *text, 0o700));
        for (name, text, mode) in config.into_iter().chain(scripts) {
            let path = self.dir.join(name);
            if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
                continue;
            }
            let temporary = self.dir.join(format!("{name}.tmp"));
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(mode);
            options.open(&temporary)?.write_all(text.as_bytes())?;
            fs::rename(&temporary, &path)?;
        }
        Ok(())
    }

    /// Runs git with these arguments and gives what it printed, up to a limit.
    pub fn run(
        &self,
        arguments: &[&str],
        input: &[u8],
        bytes_max: usize,
        due: Instant,
    ) -> Result<Vec<u8>, Trouble> {
        let started = Instant::now();
        let due = due.min(started + self.timeout);
        let mut command = Command::new(&self.name);
        command.current_dir(&self.dir).env_clear().envs(self.environment.iter().cloned());
        command.args(self.settings.iter().flat_map(|setting| ["-c", setting])).args(arguments);
        let pipes = Pipes { input, capture_bytes_max: Some(bytes_max) };
        let ended = child::run(command, due, pipes).map_err(Trouble::Start)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match ended.ending {
            Ending::Exited { code: 0, .. } => Ok(ended.stdout),
            Ending::Exited { .. } => {
                Err(Trouble::Failed { stdout: text(&ended.stdout), stderr: text(&ended.stderr) })
            }
            Ending::Killed { signal, .. } => {
                Err(Trouble::Broken(format!("was killed by {signal}")))
            }
            Ending::TimedOut { .. } => Err(Trouble::Hung { after: due - started }),
            Ending::TooLong { .. } => {
                Err(Trouble::Broken(format!("gave more than {bytes_max} bytes")))
            }
        }
    }
}
