//! Where things lie when nobody says so: one set of places for a system service, one for a user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::Error;
use crate::config::layer::{Layers, Origin, default_of, kind_and_keys};
use crate::config::value::Value;

/// Defaults that depend on who we are.
#[derive(Debug)]
pub struct Places {
    pub config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    spool: Option<PathBuf>,
}

impl Places {
    /// A system service is what systemd has given a state directory, or what runs as root.
    pub fn of(environment: &BTreeMap<String, String>, is_root: bool) -> Self {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        // systemd separates several with colons; the first one is ours.
        let given = variable("STATE_DIRECTORY").and_then(|all| all.split(':').next());
        if is_root || given.is_some() {
            return Places {
                config: Some("/etc/intentd/intentd.toml".into()),
                state_dir: Some(given.unwrap_or("/var/lib/intentd").into()),
                spool: Some("/var/spool/intentd".into()),
            };
        }
        let below_home = |name: &str, rest: &str| {
            // The XDG specification has relative ones ignored.
            variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| variable("HOME").map(|home| Path::new(home).join(rest)))
                .map(|base| base.join("intentd"))
        };
        let state_dir = below_home("XDG_STATE_HOME", ".local/state");
        Places {
            config: below_home("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("intentd.toml")),
            spool: state_dir.as_ref().map(|dir| dir.join("spool")),
            state_dir,
        }
    }

    /// Gives every key that needs a value and has none its default, sinks included, so that what is
    /// shown is what holds.
    ///
    /// # Errors
    ///
    /// There is no place to derive one from, or a sink is of no known type.
    pub fn fill(self, layers: &mut Layers) -> Result<(), Error> {
        for (key, place) in [("state_dir", self.state_dir), ("spool", self.spool)] {
            if !layers.values.contains_key(key) {
                layers.values.insert(key, shown(&place.ok_or(Error::NoHome)?));
            }
        }
        let spool = layers.path("spool").expect("it has a value now, and paths are never empty");
        for part in ["inbox", "work", "processed", "failed", "status", "packages"] {
            layers.values.entry(part).or_insert_with(|| shown(&spool.join(part)));
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(256);
        let workers = (Value::Count(workers as u64), Origin::Default);
        layers.values.entry("intake.workers").or_insert(workers);
        fill_sinks(layers, &spool)
    }
}

fn fill_sinks(layers: &mut Layers, spool: &Path) -> Result<(), Error> {
    let origin = layers.origin("sink");
    for sink in layers.list("sink") {
        layers.sinks.entry(sink).or_default();
    }
    let packages = layers.values.get("packages").expect("it was filled before").clone();
    // `--packages` and its variable win over the file, as everywhere.
    let is_forced = matches!(packages.1, Origin::Flag(_) | Origin::Environment(_));
    for (sink, settings) in &mut layers.sinks {
        let (kind, keys) = kind_and_keys(sink, settings, &origin)?;
        for key in keys.iter().filter(|key| !key.default.is_empty()) {
            let default = (default_of(key), Origin::Default);
            settings.entry(key.path.to_owned()).or_insert(default);
        }
        match kind.as_str() {
            "package" if sink == "package" && is_forced => {
                settings.insert("dir".to_owned(), packages.clone());
            }
            "package" => {
                settings.entry("dir".to_owned()).or_insert_with(|| packages.clone());
            }
            "exec" => {
                settings.entry("dir".to_owned()).or_insert_with(|| shown(&spool.join("out")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn shown(place: &Path) -> (Value, Origin) {
    (Value::Text(place.to_string_lossy().into_owned()), Origin::Default)
}
