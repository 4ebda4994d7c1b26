//! Text with holes, cut out of what the library wrote for values that stand for others.
//!
//! Invariant: a filled form is, byte for byte, what the library would have written; a property test
//! holds `krm` to it.

/// The text around the holes: one part more than there are holes.
#[derive(Debug)]
pub struct Form {
    parts: Vec<String>,
}

impl Form {
    /// Cuts `holes` out of `text`, in which each stands once and in this order.
    pub fn new(text: &str, holes: &[&str]) -> Self {
        let mut rest = text;
        let mut parts = Vec::with_capacity(holes.len() + 1);
        for hole in holes {
            let (before, after) = rest.split_once(hole).expect("the text was made with the hole");
            parts.push(before.to_owned());
            rest = after;
        }
        parts.push(rest.to_owned());
        Form { parts }
    }

    /// The text with these values in its holes.
    pub fn fill(&self, values: &[&str]) -> String {
        let bytes = self.parts.iter().map(String::len).chain(values.iter().map(|v| v.len())).sum();
        let mut text = String::with_capacity(bytes);
        let mut values = values.iter();
        for part in &self.parts {
            text.push_str(part);
            if let Some(value) = values.next() {
                text.push_str(value);
            }
        }
        text
    }
}

/// What some version of YAML takes for something else than a string, although it is letters only.
const RESERVED: [&str; 12] =
    ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];

/// Whether YAML takes a string of checked names as it stands. Says no when in doubt.
pub fn is_plain(text: &str) -> bool {
    let letter_first = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b' ';
    letter_first
        && text.bytes().all(harmless)
        && !text.ends_with(' ')
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_into_the_holes_in_their_order() {
        let form = Form::new("a: ONE\nb: TWO\n", &["ONE", "TWO"]);
        assert_eq!(form.fill(&["x", ""]), "a: x\nb: \n");
    }

    #[test]
    fn a_string_in_doubt_is_not_plain() {
        for text in ["web-1", "nf", "Scale Deployment a in namespace b to 1 replica"] {
            assert!(is_plain(text), "{text}");
        }
        for text in ["", "1", "1e3", "-a", "a ", "a: b", "a #b", "NaN", "on", "é"] {
            assert!(!is_plain(text), "{text}");
        }
    }
}
