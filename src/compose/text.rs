//! Writes JSON and YAML so that every reader gets the same text back.
//!
//! JSON is compact and ASCII: kpt rewrites or refuses several characters beyond it. YAML has no
//! block scalars, because go-yaml refuses some of them, and each string that any YAML version takes
//! for something else is quoted.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Compact JSON, every non-ASCII character and DEL as `\uXXXX`.
pub fn json(value: &impl Serialize) -> String {
    let mut bytes = Vec::with_capacity(512);
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Ascii))
        .expect("plain data with string keys becomes JSON, and a Vec takes all bytes");
    String::from_utf8(bytes).expect("the formatter writes ASCII")
}

/// One YAML document that ends in a newline.
pub fn yaml(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = String::with_capacity(1024);
    serde_saphyr::to_fmt_writer_with_options(&mut text, value, options)
        .expect("plain data becomes YAML, and a String takes all text");
    text
}

struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|byte| byte >= 0x7f) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let char =
                rest[at..].chars().next().expect("all before is ASCII, so a character starts here");
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + char.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_ascii_and_reads_back_equal() {
        let hostile = "a\"\\\n\t\u{7f}\u{80}\u{85}é\u{2028}\u{feff}\u{ffff}😀</script>";
        let text = json(&hostile);
        assert_eq!(
            text,
            r#""a\"\\\n\t\u007f\u0080\u0085\u00e9\u2028\ufeff\uffff\ud83d\ude00</script>""#
        );
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }
}
