//! The layers: default, file, `conf.d/*.toml`, environment, flags; a later one wins, key by key.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::config::Error;
use crate::config::key::{KEYS, Key, SINK_KEYS, find, nearest};
use crate::config::value::{Form, Value};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "${name}"),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A value and where it comes from.
pub type Placed = (Value, Origin);

/// What is set for one sink, by key.
pub type Settings = BTreeMap<String, Placed>;

/// All values that are set, by key.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    pub values: BTreeMap<&'static str, Placed>,
    /// `[sinks.NAME]`, by name and key; `type` among them.
    pub sinks: BTreeMap<String, Settings>,
    /// Things worth saying that are no errors.
    pub warnings: Vec<String>,
}

impl Layers {
    /// The defaults that do not depend on who we are.
    pub fn defaults() -> Self {
        let mut layers = Layers::default();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            layers.values.insert(key.path, (default_of(key), Origin::Default));
        }
        layers
    }

    /// Adds what a file says.
    ///
    /// # Errors
    ///
    /// It cannot be read, is not TOML, or has a key or value that is not known.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let file = File { path, text: &text };
        let table = DeTable::parse(&text).map_err(|error| {
            let line = file.line(error.span().map_or(0, |span| span.start));
            Error::Syntax { path: path.to_owned(), line, message: error.message().to_owned() }
        })?;
        self.add_table(&file, "", table.get_ref())
    }

    /// Adds the `*.toml` files of a directory, in the order of their names and without those that
    /// begin with a dot; none if it is missing.
    ///
    /// # Errors
    ///
    /// As for [`Layers::add_file`].
    pub fn add_directory(&mut self, directory: &Path) -> Result<(), Error> {
        let failed = |source| Error::Read { path: directory.to_owned(), source };
        let mut paths = Vec::new();
        match std::fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    paths.push(entry.map_err(failed)?.path());
                }
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(source)),
        }
        // Editors keep their drafts and locks under names with a dot in front.
        let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
        paths.retain(|path| {
            path.extension().is_some_and(|extension| extension == "toml")
                && !path.file_name().is_some_and(hidden)
        });
        paths.sort();
        paths.iter().try_for_each(|path| self.add_file(path))
    }

    /// Adds the variables that begin with `INTENTD_`; an unknown one is only warned of, since it
    /// may be meant for another version.
    ///
    /// # Errors
    ///
    /// The value of a known one is wrong.
    pub fn add_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), Error> {
        let known: Vec<(String, &Key)> = KEYS.iter().map(|key| (key.variable(), key)).collect();
        for (name, text) in environment {
            if !name.starts_with("INTENTD_") || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let Some((_, key)) = known.iter().find(|(variable, _)| variable == name) else {
                let path = name["INTENTD_".len()..].to_lowercase().replace("__", ".");
                let meant = nearest(&path, &paths()).and_then(find).map(Key::variable);
                let hint = meant.map_or(String::new(), |it| format!("; did you mean `{it}`?"));
                self.warnings.push(format!("nobody reads the variable `{name}`{hint}"));
                continue;
            };
            self.set(key, text, Origin::Environment(name.clone()))?;
        }
        Ok(())
    }

    /// Adds a value of the command line.
    ///
    /// # Errors
    ///
    /// The value is wrong.
    pub fn add_flag(&mut self, path: &'static str, value: &str) -> Result<(), Error> {
        let key = find(path).expect("flags are made for keys of the table");
        self.set(key, value, Origin::Flag(key.flag.unwrap_or(path)))
    }

    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result<(), Error> {
        let value = key.form.parse(text).and_then(|value| absolute(key, value, Path::new("")));
        let value = value.map_err(|expected| Error::Value {
            key: key.path.to_owned(),
            origin: origin.clone(),
            expected,
        })?;
        self.values.insert(key.path, (value, origin));
        Ok(())
    }

    pub fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// An empty text counts as none.
    pub fn text(&self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    pub fn list(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        match self.value(key)? {
            Value::Count(number) | Value::Size(number) => Some(*number),
            _ => None,
        }
    }

    pub fn time(&self, key: &str) -> Option<Duration> {
        match self.value(key)? {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    pub fn is_set(&self, key: &str) -> bool {
        self.value(key) == Some(&Value::Flag(true))
    }

    fn value(&self, key: &str) -> Option<&Value> {
        debug_assert!(find(key).is_some(), "`{key}` is in the table");
        self.values.get(key).map(|(value, _)| value)
    }

    fn add_table(
        &mut self,
        file: &File<'_>,
        above: &str,
        table: &DeTable<'_>,
    ) -> Result<(), Error> {
        for (name, value) in table.iter() {
            let origin = file.origin(name.span().start);
            let path = match above {
                "" => name.get_ref().to_string(),
                _ => format!("{above}.{}", name.get_ref()),
            };
            if let Some(key) = find(&path) {
                let value = file.read(key, &path, value.get_ref(), &origin)?;
                self.values.insert(key.path, (value, origin));
                continue;
            }
            match value.get_ref() {
                DeValue::Table(sinks) if path == "sinks" => self.add_sinks(file, sinks)?,
                DeValue::Table(inner) if is_section(&path) => self.add_table(file, &path, inner)?,
                _ if path == "sinks" || is_section(&path) => return Err(no_table(path, origin)),
                _ => {
                    let mut known = paths();
                    if above.is_empty() {
                        known.extend(sections());
                    }
                    return Err(unknown(path, origin, &known));
                }
            }
        }
        Ok(())
    }

    fn add_sinks(&mut self, file: &File<'_>, sinks: &DeTable<'_>) -> Result<(), Error> {
        for (name, value) in sinks.iter() {
            let sink = name.get_ref().as_ref();
            let origin = file.origin(name.span().start);
            if !is_sink_name(sink) {
                let key = format!("sinks.{sink}");
                return Err(Error::Value { key, origin, expected: SINK_NAME.to_owned() });
            }
            let DeValue::Table(table) = value.get_ref() else {
                return Err(no_table(format!("sinks.{sink}"), origin));
            };
            self.add_sink(file, sink, table, origin)?;
        }
        Ok(())
    }

    fn add_sink(
        &mut self,
        file: &File<'_>,
        sink: &str,
        table: &DeTable<'_>,
        origin: Origin,
    ) -> Result<(), Error> {
        let settings = self.sinks.entry(sink.to_owned()).or_default();
        if let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == "type") {
            let origin = file.origin(key.span().start);
            let path = format!("sinks.{sink}.type");
            let kind = file.read(&TYPE_KEY, &path, value.get_ref(), &origin)?;
            settings.insert("type".to_owned(), (kind, origin));
        }
        let keys = kind_and_keys(sink, settings, &origin)?.1;
        for (name, value) in table.iter().filter(|(key, _)| key.get_ref() != "type") {
            let origin = file.origin(name.span().start);
            let path = format!("sinks.{sink}.{}", name.get_ref());
            let Some(key) = keys.iter().find(|key| key.path == name.get_ref()) else {
                let known: Vec<String> = ["type"]
                    .into_iter()
                    .chain(keys.iter().map(|key| key.path))
                    .map(|key| format!("sinks.{sink}.{key}"))
                    .collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(unknown(path, origin, &known));
            };
            let value = file.read(key, &path, value.get_ref(), &origin)?;
            settings.insert(name.get_ref().to_string(), (value, origin));
        }
        Ok(())
    }
}

/// The type of a sink, its name unless `type` says otherwise, and the keys of that type.
///
/// # Errors
///
/// There is no such type.
pub fn kind_and_keys(
    sink: &str,
    settings: &Settings,
    origin: &Origin,
) -> Result<(String, &'static [Key]), Error> {
    let (kind, origin) = match settings.get("type") {
        Some((Value::Text(kind), origin)) => (kind.as_str(), origin),
        _ => (sink, origin),
    };
    match sink_keys(kind) {
        Some(keys) => Ok((kind.to_owned(), keys)),
        None => Err(Error::SinkType {
            sink: sink.to_owned(),
            kind: kind.to_owned(),
            origin: origin.clone(),
        }),
    }
}

/// A sink's name becomes the name of a directory, and stands in records.
pub fn is_sink_name(name: &str) -> bool {
    let may_hold = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(may_hold)
}

pub const SINK_NAME: &str =
    "named with at most 64 letters, digits, `.`, `_` and `-`, and no dot in front";

/// The keys of a type of sink.
pub fn sink_keys(kind: &str) -> Option<&'static [Key]> {
    SINK_KEYS.iter().find(|(name, _)| *name == kind).map(|(_, keys)| *keys)
}

/// The value that the table gives a key by default.
pub fn default_of(key: &Key) -> Value {
    let text = format!("value = {}", key.default);
    let table = DeTable::parse(&text).expect("defaults are TOML, as a test shows");
    let value = table.get_ref().iter().next().expect("there is one key").1;
    key.form.read(value.get_ref()).expect("defaults have their form, as a test shows")
}

/// Variables with our prefix that are no keys.
const OTHER_VARIABLES: &[&str] = &["INTENTD_CONFIG"];

const TYPE_KEY: Key = Key {
    path: "type",
    form: Form::Text,
    default: "",
    flag: None,
    live: false,
    about: "kind of the sink; default its name",
};

/// All keys.
fn paths() -> Vec<&'static str> {
    KEYS.iter().map(|key| key.path).collect()
}

/// All tables.
fn sections() -> Vec<&'static str> {
    let above = KEYS.iter().filter_map(|key| Some(key.path.rsplit_once('.')?.0));
    above.chain(["sinks"]).collect()
}

fn is_section(path: &str) -> bool {
    sections().contains(&path)
}

fn no_table(key: String, origin: Origin) -> Error {
    Error::Value { key, origin, expected: "a table".to_owned() }
}

fn unknown(key: String, origin: Origin, known: &[&str]) -> Error {
    let nearest = nearest(&key, known).map(str::to_owned);
    Error::Unknown { key, origin, nearest }
}

/// Relative paths are meant from where they were written.
fn absolute(key: &Key, value: Value, from: &Path) -> Result<Value, String> {
    match (key.form, value) {
        (Form::Path, Value::Text(text)) => {
            let path = std::path::absolute(from.join(&text)).map_err(|error| {
                format!("an absolute path, as the working directory is unknown ({error})")
            })?;
            // Never changed silently into a path to somewhere else.
            let path = path.into_os_string().into_string();
            path.map(Value::Text).map_err(|_| "below directories with names in UTF-8".to_owned())
        }
        (_, value) => Ok(value),
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line(at) }
    }

    fn read(
        &self,
        key: &Key,
        path: &str,
        value: &DeValue<'_>,
        origin: &Origin,
    ) -> Result<Value, Error> {
        let from = self.path.parent().unwrap_or(Path::new(""));
        let value = key.form.read(value).and_then(|value| absolute(key, value, from));
        value.map_err(|expected| Error::Value {
            key: path.to_owned(),
            origin: origin.clone(),
            expected,
        })
    }
}
