//! Characters that could hide or break something where they are shown.

use serde::Serialize;

/// Whether a document must not hold this character, whatever the field.
///
/// Controls, DEL and C1 break terminals and YAML, bidi and zero-width ones make a name look like
/// another, U+2028/9 end lines for some readers, noncharacters and tags are refused by others.
pub fn is_refused(char: char) -> bool {
    match char {
        ' '..='~' => false,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => true,
        '\u{2066}'..='\u{2069}' => true,
        '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{180e}' => true,
        '\u{2028}' | '\u{2029}' => true,
        '\u{fdd0}'..='\u{fdef}' | '\u{e0000}'..='\u{e007f}' => true,
        other => other as u32 & 0xfffe == 0xfffe,
    }
}

/// Compact JSON in which each such character is escaped, so that it can go to a terminal as it is
/// and reads back as it was.
pub fn printable_json(value: &impl Serialize) -> serde_json::Result<String> {
    // A record's length: growing to it from a few bytes would copy it three times.
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, value)?;
    let json = String::from_utf8(json).expect("serde_json writes UTF-8");
    Ok(printable(json))
}

/// Like [`printable_json`], for people: on several lines.
pub fn printable_json_lines(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(printable(serde_json::to_string_pretty(value)?))
}

/// In JSON text such a character, other than a newline, can only stand in a string.
fn printable(json: String) -> String {
    let hidden = |char: char| char != '\n' && is_refused(char);
    if json.is_ascii() && !json.contains('\u{7f}') || !json.contains(hidden) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if hidden(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_json_shows_hidden_characters_and_reads_back_as_it_was() {
        let hostile = "é\n\u{7f}\u{9b}1m\u{202e}\u{2028}\u{e0041}\"";
        let text = printable_json(&[hostile]).unwrap();
        assert_eq!(text, r#"["é\n\u007f\u009b1m\u202e\u2028\udb40\udc41\""]"#);
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [hostile]);
        let lines = printable_json_lines(&[hostile]).unwrap();
        assert_eq!(lines, format!("[\n  {}\n]", &text[1..text.len() - 1]));
        assert_eq!(printable_json(&"plain").unwrap(), "\"plain\"");
    }
}
