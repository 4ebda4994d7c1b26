//! The layers: default, file, `conf.d/*.toml`, environment, flags; a later one wins, key by key.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

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

/// All values that are set, by key.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    pub values: BTreeMap<&'static str, Placed>,
    /// `[sinks.NAME]`, by name and key; `type` among them.
    pub sinks: BTreeMap<String, BTreeMap<String, Placed>>,
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

    /// Adds the `*.toml` files of a directory, in the order of their names; none if it is missing.
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
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
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
                let nearest = nearest(name, known.iter().map(|(variable, _)| variable.as_str()));
                let hint = nearest.map_or(String::new(), |it| format!("; did you mean `{it}`?"));
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
        let value = key.form.parse(text).map_err(|expected| Error::Value {
            key: key.path.to_owned(),
            origin: origin.clone(),
            expected,
        })?;
        self.values.insert(key.path, (absolute(key, value, Path::new("")), origin));
        Ok(())
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
                _ => {
                    let known = KEYS.iter().map(|key| key.path).chain(["sinks"]);
                    return Err(unknown(path, origin, known));
                }
            }
        }
        Ok(())
    }

    fn add_sinks(&mut self, file: &File<'_>, sinks: &DeTable<'_>) -> Result<(), Error> {
        for (name, value) in sinks.iter() {
            let sink = name.get_ref().to_string();
            let origin = file.origin(name.span().start);
            let DeValue::Table(table) = value.get_ref() else {
                let expected = "a table".to_owned();
                return Err(Error::Value { key: format!("sinks.{sink}"), origin, expected });
            };
            let declared = table.iter().find(|(key, _)| key.get_ref() == "type");
            let mut kind = sink.clone();
            let settings = self.sinks.entry(sink.clone()).or_default();
            if let Some((Value::Text(earlier), _)) = settings.get("type") {
                kind = earlier.clone();
            }
            if let Some((key, value)) = declared {
                let origin = file.origin(key.span().start);
                let path = format!("sinks.{sink}.type");
                let text = file.read(&TYPE_KEY, &path, value.get_ref(), &origin)?;
                if let Value::Text(text) = &text {
                    kind = text.clone();
                }
                settings.insert("type".to_owned(), (text, origin));
            }
            let keys = sink_keys(&kind).ok_or_else(|| Error::SinkType {
                sink: sink.clone(),
                kind: kind.clone(),
                origin: Some(origin.clone()),
            })?;
            for (name, value) in table.iter().filter(|(key, _)| key.get_ref() != "type") {
                let origin = file.origin(name.span().start);
                let path = format!("sinks.{sink}.{}", name.get_ref());
                let Some(key) = keys.iter().find(|key| key.path == name.get_ref()) else {
                    let known: Vec<String> =
                        keys.iter().map(|key| format!("sinks.{sink}.{}", key.path)).collect();
                    return Err(unknown(path, origin, known.iter().map(String::as_str)));
                };
                let value = file.read(key, &path, value.get_ref(), &origin)?;
                settings.insert(name.get_ref().to_string(), (value, origin));
            }
        }
        Ok(())
    }
}

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

fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown<'a>(key: String, origin: Origin, known: impl Iterator<Item = &'a str>) -> Error {
    let nearest = nearest(&key, known).map(str::to_owned);
    Error::Unknown { key, origin, nearest }
}

/// Relative paths are meant from where they were written.
fn absolute(key: &Key, value: Value, from: &Path) -> Value {
    match (key.form, value) {
        (Form::Path, Value::Text(text)) if !text.is_empty() => {
            let path = from.join(&text);
            let path = std::path::absolute(&path).unwrap_or(path);
            Value::Text(path.to_string_lossy().into_owned())
        }
        (_, value) => value,
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
        let value = key.form.read(value).map_err(|expected| Error::Value {
            key: path.to_owned(),
            origin: origin.clone(),
            expected,
        })?;
        Ok(absolute(key, value, self.path.parent().unwrap_or(Path::new(""))))
    }
}
