//! File names as producers chose them: any bytes but `/` and NUL, shown and stored safely.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use serde::{Serialize, Serializer};

use crate::limits::NAME_BYTES_MAX;
use crate::model::{Digest, is_refused};

/// The name (or, for a `batch` operand, the path) under which a document was found.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(Vec<u8>);

impl FileName {
    pub fn new(name: impl Into<Vec<u8>>) -> Self {
        FileName(name.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The part after the last `/`.
    fn base(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().unwrap_or(&self.0)
    }

    /// The last component with each byte outside `[A-Za-z0-9._-]` and each `..` turned into `_`, so
    /// that it can be stored beside others, printed and passed on without surprise.
    pub fn safe(&self) -> String {
        let safe = |byte: &u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => *byte,
            _ => b'_',
        };
        let mapped = String::from_utf8(self.base().iter().map(safe).collect());
        let mapped = mapped.expect("only ASCII is left");
        let safe = if mapped.contains("..") { mapped.replace("..", "_") } else { mapped };
        if safe == "." || safe.is_empty() { "_".to_owned() } else { safe }
    }
}

/// `<prefix><name><suffix>`, where a `name` that would take the whole past 255 bytes is cut and ends
/// in `~` and eight hex digits of its digest.
pub fn derived(prefix: &str, name: &[u8], suffix: &str) -> Vec<u8> {
    let room = NAME_BYTES_MAX - prefix.len() - suffix.len();
    let mut whole = prefix.as_bytes().to_vec();
    if name.len() <= room {
        whole.extend_from_slice(name);
    } else {
        let tail = format!("~{}", Digest::of(name).short());
        whole.extend_from_slice(&name[..room - tail.len()]);
        whole.extend_from_slice(tail.as_bytes());
    }
    whole.extend_from_slice(suffix.as_bytes());
    whole
}

/// As it stands, with `\`-escapes for what a terminal or a log must not receive: hidden characters
/// and bytes that are not UTF-8 become `\xNN`, a backslash doubles.
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if char == '\\' {
                    f.write_str("\\\\")?;
                } else if is_refused(char) {
                    let mut buffer = [0; 4];
                    let bytes = char.encode_utf8(&mut buffer).bytes();
                    bytes.into_iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
                } else {
                    write!(f, "{char}")?;
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for FileName {
    /// The original name; only bytes that are not UTF-8 become `\xNN` (JSON escapes the rest).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_safe_ones() {
        for (name, safe) in [
            (&b"intent-a.json"[..], "intent-a.json"),
            (b"intent-..-..-etc.json", "intent-_-_-etc.json"),
            (b"intent-$(id).json", "intent-__id_.json"),
            (b"intent-\n\x1b[2J.json", "intent-___2J.json"),
            (b"intent-\xff.json", "intent-_.json"),
            (b"dir/other/intent-a.json", "intent-a.json"),
            (b"-", "-"),
            (b"...", "_."),
        ] {
            assert_eq!(FileName::new(name).safe(), safe);
        }
    }

    #[test]
    fn a_shown_name_carries_no_control_character_and_a_stored_one_keeps_its_text() {
        assert_eq!(FileName::new("a\u{202e}nosj").to_string(), "a\\xe2\\x80\\xaenosj");
        let name = FileName::new(&b"a\n\x1b\\\xff\xc3\xa9"[..]);
        assert_eq!(name.to_string(), "a\\x0a\\x1b\\\\\\xff\u{e9}");
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"a\\n\\u001b\\\\\\\\xff\u{e9}\"");
    }

    #[test]
    fn a_derived_name_never_passes_the_limit_and_stays_distinct() {
        let long = [b'x'; 255];
        let cut = derived("12.", &long, ".json");
        assert_eq!(cut.len(), 255);
        assert!(cut.starts_with(b"12.xxx") && cut.ends_with(b".json"), "{cut:?}");
        assert_ne!(cut, derived("12.", &[b'y'; 255], ".json"));
        assert_eq!(derived("7.", b"a", ".reason.json"), b"7.a.reason.json");
    }
}
