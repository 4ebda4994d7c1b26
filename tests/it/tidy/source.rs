//! The repository's files as the rules see them: as text, as code without comments and literals,
//! and as product code without tests.
//!
//! This is no parser. It knows just enough of the lexical grammar that a rule neither trips over a
//! string nor is fooled by a comment; line numbers stay those of the file.

use std::fs;
use std::path::Path;

/// One file of the repository.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments and literals turned into blanks.
    pub code: String,
    /// `code` with the items under `#[cfg(test)]` turned into blanks.
    pub product: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank_literals(text) } else { text.to_owned() };
        // `mod tests;` under `#[cfg(test)]` is a file or folder of its own.
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let product =
            if is_test && path.starts_with("src/") { blank_all(&code) } else { blank_tests(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, product }
    }

    /// `src/sink/git/mod.rs` belongs to the module `sink`; the crate's roots to none.
    pub fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        match below.split_once('/') {
            Some((module, _)) => Some(module),
            None if matches!(below, "lib.rs" | "main.rs") => None,
            None => below.strip_suffix(".rs"),
        }
    }

    pub fn complaint(&self, offset: usize, message: impl std::fmt::Display) -> String {
        let line = self.text[..offset].matches('\n').count() + 1;
        format!("{}:{line}: {message}", self.path)
    }
}

/// All text files of the repository, without what is built, fetched or version control's own.
pub fn repository() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The Rust files below one of the given folders.
pub fn rust(folders: &[&str]) -> Vec<Source> {
    let within = |path: &str| folders.iter().any(|folder| path.starts_with(&format!("{folder}/")));
    let mut sources = repository();
    sources.retain(|source| source.path.ends_with(".rs") && within(&source.path));
    assert!(!sources.is_empty(), "no Rust file below {folders:?}");
    sources
}

fn collect(directory: &Path, prefix: &str, into: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("a directory entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("a file type");
        if kind.is_dir() && !matches!(name.as_str(), "target" | ".git") {
            collect(&entry.path(), &format!("{path}/"), into);
        } else if kind.is_file() && path != ".git" {
            let bytes = fs::read(entry.path()).expect("a readable file");
            // What is not UTF-8 is no text, and no rule speaks of it.
            if let Ok(text) = String::from_utf8(bytes) {
                into.push(Source::new(&path, &text));
            }
        }
    }
}

/// Positions at which `word` stands in `text` and is not part of a longer identifier.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = text.as_bytes();
    let (head, tail) = (word.as_bytes().first().copied(), word.as_bytes().last().copied());
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let after = bytes.get(at + word.len());
        !(inside(head.as_ref()) && inside(before) || inside(tail.as_ref()) && inside(after))
    })
}

/// Turns everything but line breaks into blanks.
fn blank_all(code: &str) -> String {
    code.chars().map(|c| if c == '\n' { c } else { ' ' }).collect()
}

/// Turns comments, strings and characters into blanks and keeps the line breaks.
fn blank_literals(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    let mut at = 0;
    while at < code.len() {
        let end = at + literal(&text.as_bytes()[at..], at.checked_sub(1).map(|at| code[at]));
        if end == at {
            at += 1;
        } else {
            blank(&mut code[at..end]);
            at = end;
        }
    }
    String::from_utf8(code).expect("only whole literals were blanked")
}

/// Length of the comment or literal that starts here; 0 when none does.
fn literal(rest: &[u8], before: Option<u8>) -> usize {
    let find = |needle: &[u8], from: usize| {
        let hit = rest[from..].windows(needle.len()).position(|window| window == needle);
        hit.map_or(rest.len(), |at| from + at + needle.len())
    };
    match rest {
        [b'/', b'/', ..] => rest.iter().take_while(|byte| **byte != b'\n').count(),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        // A character is closed after one scalar value; a lifetime is not closed at all.
        [b'\'', ..] => {
            let close = rest.iter().skip(2).take(4).position(|byte| *byte == b'\'');
            let width = std::str::from_utf8(&rest[1..rest.len().min(6)])
                .or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]))
                .map_or(0, |text| text.chars().next().map_or(0, char::len_utf8));
            if close.is_some_and(|at| at + 1 == width) { width + 2 } else { 0 }
        }
        [b'r', next, ..] if matches!(next, b'"' | b'#') && !before.is_some_and(is_ident) => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            match rest.get(1 + hashes) {
                Some(b'"') => find(&[&b"\""[..], &b"#".repeat(hashes)].concat(), 2 + hashes),
                _ => 0,
            }
        }
        // Byte and C strings: what follows is a literal of its own.
        [b'b' | b'c', b'r', next, ..]
            if matches!(next, b'"' | b'#') && !before.is_some_and(is_ident) =>
        {
            1 + literal(&rest[1..], None)
        }
        _ => 0,
    }
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        (at, depth) = match &rest[at..] {
            [b'/', b'*', ..] => (at + 2, depth + 1),
            [b'*', b'/', ..] => (at + 2, depth - 1),
            _ => (at + 1, depth),
        };
    }
    at
}

fn blank_tests(code: &str) -> String {
    let mut product = code.as_bytes().to_vec();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let end = item_end(code, at).unwrap_or(code.len());
        blank(&mut product[at..end]);
    }
    String::from_utf8(product).expect("only whole items were blanked")
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Where the item that starts at `from` ends: behind its block, or behind its semicolon.
pub fn item_end(code: &str, from: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0usize, 0usize);
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            b';' if brackets == 0 && braces == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}
