//! Values of the configuration: what a key takes, and how it is read from a file or from text.

use std::fmt;
use std::time::Duration;

use toml::de::DeValue;
use tracing_subscriber::filter::EnvFilter;

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Text,
    Path,
    Flag,
    List,
    Count {
        min: u64,
        max: u64,
    },
    /// With a unit: `250ms`, `5s`, `15m`, `1h`.
    Time {
        min_ms: u64,
        max_ms: u64,
    },
    /// With a unit: `512B`, `64KiB`, `1MiB`.
    Size {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    /// A log level, or a filter with levels by module.
    Level,
    /// Tables of replica bounds.
    Bounds,
}

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Flag(bool),
    List(Vec<String>),
    Count(u64),
    Time(Duration),
    Size(u64),
    Bounds(Vec<Bound>),
}

/// One entry of `policy.bounds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub namespace: String,
    pub target: String,
    pub min: Option<u32>,
    pub max: Option<u32>,
}

/// As many replicas as the schema of intents allows.
pub const REPLICAS: Form = Form::Count { min: 1, max: 100 };

impl Form {
    /// Reads a value of a file. The error says what is expected, for a person.
    pub fn read(self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self, value) {
            (Form::Text, DeValue::String(text)) => Ok(Value::Text(text.to_string())),
            (Form::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Form::List, DeValue::Array(items)) => items
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .map(Value::List)
                .ok_or_else(|| self.expected()),
            (Form::Count { .. }, DeValue::Integer(number)) => {
                self.count(u64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            (
                Form::Path | Form::Time { .. } | Form::Size { .. } | Form::Choice(_) | Form::Level,
                DeValue::String(text),
            ) => self.parse(text),
            (Form::Bounds, DeValue::Array(items)) => items
                .iter()
                .map(|item| bound(item.get_ref()))
                .collect::<Result<_, _>>()
                .map(Value::Bounds),
            _ => Err(self.expected()),
        }
    }

    /// Reads a value of the environment or the command line.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let expected = || self.expected();
        match self {
            Form::Text => Ok(Value::Text(text.to_owned())),
            Form::Path if text.is_empty() => Err(expected()),
            Form::Path => Ok(Value::Text(text.to_owned())),
            Form::Flag => text.parse().map(Value::Flag).map_err(|_| expected()),
            Form::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(Value::List(items.map(str::to_owned).collect()))
            }
            Form::Count { .. } => self.count(text.parse().ok()),
            Form::Time { min_ms, max_ms } => {
                const UNITS: &[(&str, u64)] =
                    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
                let ms = with_unit(text, UNITS).filter(|ms| (min_ms..=max_ms).contains(ms));
                ms.map(|ms| Value::Time(Duration::from_millis(ms))).ok_or_else(expected)
            }
            Form::Size { min, max } => {
                const UNITS: &[(&str, u64)] =
                    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
                let bytes = with_unit(text, UNITS).filter(|bytes| (min..=max).contains(bytes));
                bytes.map(Value::Size).ok_or_else(expected)
            }
            Form::Choice(choices) => match choices.contains(&text) {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(expected()),
            },
            Form::Level => match text.split(',').all(is_directive) {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(expected()),
            },
            Form::Bounds => Err("set in a file, where it can be a list of tables".to_owned()),
        }
    }

    fn count(self, number: Option<u64>) -> Result<Value, String> {
        match (self, number) {
            (Form::Count { min, max }, Some(number)) if (min..=max).contains(&number) => {
                Ok(Value::Count(number))
            }
            _ => Err(self.expected()),
        }
    }

    /// What a person is told to write.
    pub fn expected(self) -> String {
        match self {
            Form::Text => "a string".to_owned(),
            Form::Path => "a path".to_owned(),
            Form::Flag => "`true` or `false`".to_owned(),
            Form::List => "a list of strings".to_owned(),
            Form::Count { min, max } => format!("a whole number from {min} to {max}"),
            Form::Time { min_ms, max_ms } => {
                let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
                format!("a time with a unit, from {} to {}", shown_time(min), shown_time(max))
            }
            Form::Size { min, max } => {
                format!("a size with a unit, from {} to {}", shown_size(min), shown_size(max))
            }
            Form::Choice(choices) => format!("one of {}", choices.join(", ")),
            Form::Level => format!("{}, or a filter such as intentd=debug", LEVELS.join(", ")),
            Form::Bounds => {
                "a list of tables with `namespace`, `target`, `min` and `max`".to_owned()
            }
        }
    }
}

/// As it stands in the file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Value::Text(text) => f.write_str(&quoted(text)),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Count(number) => write!(f, "{number}"),
            Value::Time(time) => write!(f, "\"{}\"", shown_time(*time)),
            Value::Size(bytes) => write!(f, "\"{}\"", shown_size(*bytes)),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::Bounds(bounds) => {
                let one = |bound: &Bound| {
                    let mut parts = vec![
                        format!("namespace = {}", quoted(&bound.namespace)),
                        format!("target = {}", quoted(&bound.target)),
                    ];
                    parts.extend(bound.min.map(|min| format!("min = {min}")));
                    parts.extend(bound.max.map(|max| format!("max = {max}")));
                    format!("{{ {} }}", parts.join(", "))
                };
                write!(f, "[{}]", bounds.iter().map(one).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];

/// A bare word has to be a level: the filter would take a misspelt one as the name of a module and
/// silence all others.
fn is_directive(text: &str) -> bool {
    LEVELS.contains(&text) || (text.contains('=') && EnvFilter::try_new(text).is_ok())
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn shown_time(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        _ if ms == 0 => "0s".to_owned(),
        _ if ms.is_multiple_of(86_400_000) => format!("{}d", ms / 86_400_000),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

fn shown_size(bytes: u64) -> String {
    match bytes {
        _ if bytes != 0 && bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes != 0 && bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

fn bound(value: &DeValue<'_>) -> Result<Bound, String> {
    let expected = || Form::Bounds.expected();
    let table = value.as_table().ok_or_else(expected)?;
    let mut bound =
        Bound { namespace: "*".to_owned(), target: "*".to_owned(), min: None, max: None };
    for (name, value) in table.iter() {
        let (name, value) = (name.get_ref().as_ref(), value.get_ref());
        let wrong = |what: String| format!("{}; `{name}` has to be {what}", expected());
        let text = || match Form::Text.read(value) {
            Ok(Value::Text(text)) => Ok(text),
            _ => Err(wrong(Form::Text.expected())),
        };
        let count = || match REPLICAS.read(value) {
            Ok(Value::Count(number)) => Ok(Some(number as u32)),
            _ => Err(wrong(REPLICAS.expected())),
        };
        match name {
            "namespace" => bound.namespace = text()?,
            "target" => bound.target = text()?,
            "min" => bound.min = count()?,
            "max" => bound.max = count()?,
            other => return Err(format!("{}; it has no `{other}`", expected())),
        }
    }
    match (bound.min, bound.max) {
        (Some(min), Some(max)) if min > max => {
            Err(format!("{}, `min` not above `max`", expected()))
        }
        _ => Ok(bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Form = Form::Time { min_ms: 10, max_ms: 3_600_000 };
    const SIZE: Form = Form::Size { min: 1, max: 8 << 20 };

    #[test]
    fn units_are_required_and_ranges_are_kept() {
        let time = |ms| Ok(Value::Time(Duration::from_millis(ms)));
        assert_eq!(TIME.parse("250ms"), time(250));
        assert_eq!(TIME.parse("15m"), time(900_000));
        assert_eq!(SIZE.parse("64KiB"), Ok(Value::Size(65_536)));
        for wrong in
            ["250", "", "ms", "-1s", "1.5s", "9ms", "2h", "99999999999999999999h", "1 s", "1y"]
        {
            let expected = "a time with a unit, from 10ms to 1h".to_owned();
            assert_eq!(TIME.parse(wrong), Err(expected), "{wrong}");
        }
        assert!(SIZE.parse("9MiB").is_err() && SIZE.parse("1MB").is_err());
    }

    #[test]
    fn a_level_is_a_known_word_or_a_filter_and_never_a_misspelt_word() {
        for right in ["info", "off", "intentd=debug", "warn,intentd::ledger=trace"] {
            assert_eq!(Form::Level.parse(right), Ok(Value::Text(right.to_owned())));
        }
        for wrong in ["", "inof", "intentd", "intentd=inof", "info,", "info, debug"] {
            assert_eq!(Form::Level.parse(wrong), Err(Form::Level.expected()), "{wrong}");
        }
    }

    #[test]
    fn a_whole_number_of_a_file_may_be_written_in_any_base() {
        for (text, number) in [("16", 16), ("0x10", 16), ("0b1_0000", 16), ("1_0", 10)] {
            let document = format!("value = {text}");
            let table = toml::de::DeTable::parse(&document).unwrap();
            let value = table.get_ref().get("value").unwrap().get_ref();
            assert_eq!(REPLICAS.read(value), Ok(Value::Count(number)), "{text}");
        }
    }

    #[test]
    fn a_value_is_shown_as_it_would_be_written() {
        for (form, text) in [(TIME, "90s"), (TIME, "15m"), (SIZE, "1MiB"), (SIZE, "1000B")] {
            assert_eq!(form.parse(text).unwrap().to_string(), format!("\"{text}\""));
        }
        let list = Value::List(vec!["a\"b".into(), "c".into()]);
        assert_eq!(list.to_string(), "['a\"b', \"c\"]");
    }
}
