//! Which files of the inbox are intents by their name, and which names are proper.
//!
//! A file whose name matches a pattern is *taken*, and gets an outcome; whether the rest of the
//! name, the id, is proper is judged afterwards, so that a bad name is reported and not overlooked.

use crate::model::{Code, FileName, Rejection};
use crate::schema::Error;

/// Endings of files that are still being written, or are an editor's own.
const UNFINISHED: [&[u8]; 4] = [b".tmp", b"~", b".swp", b".part"];

/// The patterns for names, such as `intent-*.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRule {
    patterns: Vec<Pattern>,
}

/// What stands before and behind the id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    prefix: String,
    suffix: String,
}

impl NameRule {
    /// # Errors
    ///
    /// There is no pattern, or one does not hold exactly one `*` among letters, digits, `.`, `_`
    /// and `-`.
    pub fn new(patterns: &[String]) -> Result<Self, Error> {
        if patterns.is_empty() {
            return Err(Error::NoPattern);
        }
        let patterns = patterns.iter().map(|pattern| Pattern::new(pattern));
        Ok(NameRule { patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Whether a file of that name is an intent, well named or not.
    pub fn takes(&self, name: &[u8]) -> bool {
        !name.starts_with(b".")
            && !UNFINISHED.iter().any(|ending| name.ends_with(ending))
            && self.patterns.iter().any(|pattern| pattern.id(name).is_some())
    }

    /// Judges the name of a taken file.
    ///
    /// # Errors
    ///
    /// The name has no id, one with characters outside `[A-Za-z0-9._-]`, or `..` somewhere.
    pub fn check(&self, name: &[u8]) -> Result<(), Rejection> {
        let climbs = name.windows(2).any(|pair| pair == b"..");
        let mut ids = self.patterns.iter().filter_map(|pattern| pattern.id(name));
        if !climbs && ids.any(|id| !id.is_empty() && id.iter().all(|byte| is_plain(*byte))) {
            return Ok(());
        }
        let forms: Vec<String> = self.patterns.iter().map(Pattern::form).collect();
        let message = format!(
            "the name `{}` is not of the form {}, with an id of letters, digits, `.`, `_` and `-`, \
             and no `..`; drop the file again under such a name",
            FileName::new(name),
            forms.join(" or ")
        );
        Err(Rejection::of_file(Code::BadName, message))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, Error> {
        let refused = || Error::Pattern { pattern: text.to_owned() };
        let (prefix, suffix) = text.split_once('*').ok_or_else(refused)?;
        // A second star is not plain either; a pattern of dot-files would never match.
        if !prefix.bytes().chain(suffix.bytes()).all(is_plain) || prefix.starts_with('.') {
            return Err(refused());
        }
        Ok(Pattern { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }

    /// The part of the name that stands for the star.
    fn id<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        name.strip_prefix(self.prefix.as_bytes())?.strip_suffix(self.suffix.as_bytes())
    }

    fn form(&self) -> String {
        format!("`{}<id>{}`", self.prefix, self.suffix)
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> NameRule {
        NameRule::new(&["intent-*.json", "*.intent.json"].map(str::to_owned)).unwrap()
    }

    #[test]
    fn a_name_is_taken_by_its_pattern_and_judged_by_its_id() {
        let long = [&b"intent-"[..], &[b'x'; 243], b".json"].concat();
        for (name, taken, proper) in [
            (&b"intent-a.json"[..], true, true),
            (b"a.intent.json", true, true),
            (b"intent-CON.json", true, true),
            (b"intent-A_b.c-1.json", true, true),
            (&long, true, true),
            (b"intent-.json", true, false),
            (b"intent-..json", true, false),
            (b"intent-a..b.json", true, false),
            (b"a..intent.json", true, false),
            (b"intent-a b.json", true, false),
            (b"intent-\n.json", true, false),
            (b"intent-\xff.json", true, false),
            (b"intent-\xc3\xa9.json", true, false),
            (b"intent-a~.json", true, false),
            (b".intent.json", false, false),
            (b".intent-a.json", false, false),
            (b"intent-a.json~", false, false),
            (b"intent-a.json.tmp", false, false),
            (b"intent-a.json.part", false, false),
            (b"intent-a.json.swp", false, false),
            (b"intent-a", false, false),
            (b"intent-", false, false),
            (b"config.yaml", false, false),
            (b"Intent-a.json", false, false),
        ] {
            let shown = FileName::new(name);
            assert_eq!(rule().takes(name), taken, "{shown}");
            assert_eq!(rule().check(name).is_ok(), proper, "{shown}");
        }
    }

    #[test]
    fn a_bad_name_is_answered_with_the_patterns_and_without_raw_controls() {
        let rejection = rule().check(b"intent-\x1b.json").unwrap_err();
        assert_eq!(rejection.code, Code::BadName);
        assert_eq!(
            rejection.message,
            "the name `intent-\\x1b.json` is not of the form `intent-<id>.json` or \
             `<id>.intent.json`, with an id of letters, digits, `.`, `_` and `-`, and no `..`; drop \
             the file again under such a name"
        );
    }

    #[test]
    fn a_pattern_with_no_star_two_stars_or_odd_characters_is_refused() {
        for pattern in ["intent.json", "*-*.json", "a/*.json", "intent ?*.json", ".*.json", ""] {
            assert!(NameRule::new(&[pattern.to_owned()]).is_err(), "{pattern}");
        }
        assert!(NameRule::new(&[]).is_err());
    }
}
