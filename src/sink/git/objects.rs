//! Reads what a commit of the clone holds, many objects a call.

use std::time::Instant;

use crate::sink::Fault;
use crate::sink::git::clone::Clone;

/// Commits in which our own trailers are looked for: a crash is followed by a look soon.
const COMMITS_LOOKED_AT: usize = 1000;

/// An object of the repository.
#[derive(Debug)]
pub struct Object {
    pub is_tree: bool,
    pub bytes: Vec<u8>,
}

/// A file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub mode: String,
    pub object: String,
    pub size: u64,
    pub path: String,
}

/// A commit with the intents that its trailers name.
#[derive(Debug)]
pub struct Commit {
    pub id: String,
    pub intents: Vec<String>,
}

impl Clone {
    /// The objects of that name each, none for one that is not there.
    pub fn read(&mut self, names: &[String], due: Instant) -> Result<Vec<Option<Object>>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut input = names.join("\n").into_bytes();
        input.push(b'\n');
        let output = self.local(&["cat-file", "--batch"], &input, due)?;
        match objects(&output, names.len()) {
            Some(objects) => Ok(objects),
            None => Err(self.damaged("gave objects in no known form")),
        }
    }

    /// All regular files below a path of a commit, or the file itself; empty for the whole tree.
    pub fn list(&mut self, base: &str, path: &str, due: Instant) -> Result<Vec<Entry>, Fault> {
        let mut arguments = vec!["ls-tree", "-r", "-z", "-l", "--full-tree", "--", base];
        arguments.extend(Some(path).filter(|path| !path.is_empty()));
        let listed = self.local(&arguments, b"", due)?;
        Ok(listed.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    /// The last commits and the intents that they name, the newest first.
    pub fn commits(&mut self, base: &str, due: Instant) -> Result<Vec<Commit>, Fault> {
        let count = format!("-n{COMMITS_LOOKED_AT}");
        let format = "--format=%H %(trailers:key=Intent-Id,valueonly,separator=%x20)";
        let listed = self.local(&["log", &count, format, base, "--"], b"", due)?;
        let listed = String::from_utf8_lossy(&listed);
        let commits = listed.lines().filter_map(|line| {
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            let id = words.next()?.to_owned();
            Some(Commit { id, intents: words.map(str::to_owned).collect() })
        });
        Ok(commits.collect())
    }
}

/// Takes apart what `git cat-file --batch` printed.
fn objects(mut output: &[u8], count: usize) -> Option<Vec<Option<Object>>> {
    let mut objects = Vec::with_capacity(count);
    for _ in 0..count {
        let end = output.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&output[..end]).into_owned();
        output = &output[end + 1..];
        if line.ends_with(" missing") {
            objects.push(None);
            continue;
        }
        let mut words = line.split(' ').skip(1);
        let (kind, size) = (words.next()?, words.next()?.parse::<usize>().ok()?);
        let bytes = output.get(..size)?.to_vec();
        output = output.get(size + 1..)?;
        objects.push(Some(Object { is_tree: kind == "tree", bytes }));
    }
    Some(objects)
}

/// A regular file of `git ls-tree -l`.
fn entry(line: &[u8]) -> Option<Entry> {
    let (about, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let mut words = about.split_ascii_whitespace();
    let (mode, _, object, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let size = size.parse().ok()?;
    mode.starts_with("100").then(|| Entry {
        mode: mode.to_owned(),
        object: object.to_owned(),
        size,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_prints_is_taken_apart_and_nothing_else_is() {
        let output = b"a:b missing\n0a tree 2\nxy\n0b blob 3\na\nb\n0c blob 0\n\n";
        let read = objects(output, 4).unwrap();
        assert!(read[0].is_none());
        assert!(read[1].as_ref().unwrap().is_tree);
        assert_eq!(read[2].as_ref().unwrap().bytes, b"a\nb");
        assert_eq!(read[3].as_ref().unwrap().bytes, b"");
        for broken in [&b"0a blob 9\nxy\n"[..], b"0a blob\n", b"0a", b""] {
            assert!(objects(broken, 1).is_none());
        }
        let file = entry(b"100755 blob 0a      12\ta b/\xc3\xa9").unwrap();
        assert_eq!(
            (file.mode.as_str(), file.size, file.path.as_str()),
            ("100755", 12, "a b/\u{e9}")
        );
        for other in
            [&b"120000 blob 0a 1\ta"[..], b"160000 commit 0a -\ta", b"100644 blob 0a 1\t\xff", b""]
        {
            assert!(entry(other).is_none());
        }
    }
}
