//! Patterns over namespaces and targets: `*` for any run of characters, `?` for one.

use std::fmt;
use std::str::FromStr;

use crate::schema::Error;

/// Longest pattern: a DNS-1123 label, and as many stars.
const BYTES_MAX: usize = 126;

/// A pattern for DNS-1123 labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    /// The pattern that every label matches.
    pub fn any() -> Self {
        Glob("*".to_owned())
    }

    /// Whether all of `label` matches. Takes at most as many steps as pattern and label have bytes
    /// multiplied: of several stars only the last is ever tried again.
    pub fn matches(&self, label: &str) -> bool {
        let (pattern, label) = (self.0.as_bytes(), label.as_bytes());
        let (mut p, mut l) = (0, 0);
        // The last star, and how much of the label it has taken.
        let mut star: Option<(usize, usize)> = None;
        while l < label.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, l));
                    p += 1;
                }
                Some(byte) if *byte == b'?' || *byte == label[l] => {
                    p += 1;
                    l += 1;
                }
                Some(_) | None => match &mut star {
                    None => return false,
                    Some((at, taken)) => {
                        *taken += 1;
                        (p, l) = (*at + 1, *taken);
                    }
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl FromStr for Glob {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'*' | b'?');
        if text.is_empty() || text.len() > BYTES_MAX || !text.bytes().all(allowed) {
            return Err(Error::Glob { glob: text.to_owned() });
        }
        Ok(Glob(text.to_owned()))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_take_any_run_and_question_marks_one_character() {
        for (glob, label, matches) in [
            ("*", "", true),
            ("*", "web", true),
            ("kube-*", "kube-system", true),
            ("kube-*", "kube", false),
            ("*-prod", "ran-a-prod", true),
            ("*-prod", "prod", false),
            ("ran-?", "ran-a", true),
            ("ran-?", "ran-ab", false),
            ("ran-?", "ran-", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("**", "x", true),
            ("web", "web", true),
            ("web", "webs", false),
            ("web", "we", false),
        ] {
            assert_eq!(glob.parse::<Glob>().unwrap().matches(label), matches, "{glob} {label}");
        }
    }

    #[test]
    fn a_pattern_that_no_label_could_match_is_refused() {
        for glob in ["", "Web", "a/b", "a.b", "[ab]", "{a,b}", "a b", "é", &"*".repeat(127)] {
            let error = glob.parse::<Glob>().expect_err(glob).to_string();
            assert!(error.contains("lower-case letters"), "{error}");
        }
        assert_eq!("ran-*".parse::<Glob>().unwrap().to_string(), "ran-*");
    }
}
