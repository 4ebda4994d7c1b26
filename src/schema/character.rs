//! Tells characters that an intent may hold from those that could hide or break something.
//!
//! Invariant: what [`shown`] returns holds no refused character, so it can go to a terminal, a log
//! and a record as it is.

pub use crate::model::is_refused;

/// The first refused character; `breaks` lets `\n` and `\t` pass.
pub fn refused_in(text: &str, breaks: bool) -> Option<char> {
    // Nearly all text is printable ASCII, and this test needs no decoding.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    text.chars().find(|char| is_refused(*char) && !(breaks && matches!(char, '\n' | '\t')))
}

/// How a character is called in a message: `U+202E`.
pub fn named(char: char) -> String {
    format!("U+{:04X}", char as u32)
}

/// `text` with refused characters escaped as in JSON, cut to `chars_max` characters with an
/// ellipsis.
pub fn shown(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    let mut len = 0;
    // Where to cut if it does not fit: after what leaves room for the ellipsis.
    let mut cut = 0;
    for char in text.chars() {
        let start = out.len();
        match char {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            refused if is_refused(refused) => {
                let mut units = [0; 2];
                for unit in refused.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            other => out.push(other),
        }
        len += out[start..].chars().count();
        if len < chars_max {
            cut = out.len();
        }
        if len > chars_max {
            out.truncate(cut);
            out.push('\u{2026}');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_hidden_character_is_refused_and_ordinary_text_is_not() {
        for char in [
            '\0',
            '\u{1}',
            '\u{1f}',
            '\u{7f}',
            '\u{80}',
            '\u{9f}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2064}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fdd0}',
            '\u{fdef}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{1fffe}',
            '\u{10ffff}',
            '\u{e0000}',
            '\u{e007f}',
        ] {
            assert!(is_refused(char), "{char:?}");
        }
        for char in ['a', ' ', '~', '\u{a0}', 'é', '\u{2010}', '\u{2065}', '\u{fffd}', '😀', '語']
        {
            assert!(!is_refused(char), "{char:?}");
        }
        assert_eq!(refused_in("a\nb\tc", true), None);
        assert_eq!(refused_in("a\nb", false), Some('\n'));
        assert_eq!(refused_in("a\rb", true), Some('\r'));
    }

    #[test]
    fn shown_text_is_escaped_and_never_longer_than_asked() {
        assert_eq!(shown("a\u{202e}\n\u{1b}\u{e0001}é", 80), "a\\u202e\\n\\u001b\\udb40\\udc01é");
        assert_eq!(shown("abcdef", 6), "abcdef");
        assert_eq!(shown("abcdefg", 6), "abcde\u{2026}");
        assert_eq!(shown("abc\u{1b}", 6), "abc\u{2026}");
    }
}
