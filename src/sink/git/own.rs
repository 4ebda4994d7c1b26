//! Mode `own`: a directory a package, as the package sink keeps it, in the tree of a commit.
//!
//! Ours is a directory of regular files with a `Kptfile` and an `intent.yaml` of our form for the
//! same target; further regular files in it stay. Everything else is never touched.

use crate::compose::{self, INTENT_FILE, KPTFILE, Package};
use crate::sink::git::commits::Change;
use crate::sink::git::objects::Object;

/// Further files of a package; more are no package of ours.
const FURTHER_MAX: usize = 256;

/// The names of the objects that [`compare`] is to be given, in the commit `base`.
pub fn names(base: &str, dir: &str, package: &Package) -> Vec<String> {
    let above = dir.match_indices('/').map(|(at, _)| &dir[..at]);
    let mut names: Vec<String> = above.map(|dir| format!("{base}:{dir}")).collect();
    names.push(format!("{base}:{dir}"));
    names.extend(package.files.iter().map(|file| format!("{base}:{dir}/{}", file.name)));
    names
}

/// What has to be written so that the package stands there; empty if it does.
///
/// # Errors
///
/// Something else stands there; the end of a sentence that begins with the path.
pub fn compare(
    dir: &str,
    package: &Package,
    objects: &[Option<Object>],
) -> Result<Vec<Change>, String> {
    let (above, files) = objects.split_at(objects.len().saturating_sub(package.files.len()));
    let is_free = |object: &Option<Object>| object.as_ref().is_none_or(|object| object.is_tree);
    if !above.iter().all(is_free) {
        return Err("is not a directory, or below one that is not".to_owned());
    }
    if let Some(Some(tree)) = above.last() {
        look(tree, package, files)?;
    }
    let mut changes = Vec::new();
    for (file, object) in package.files.iter().zip(files) {
        let there = object.as_ref().map(|object| String::from_utf8_lossy(&object.bytes));
        let is_equal = there.is_some_and(|there| {
            there == file.text || file.name == KPTFILE && compose::same_kptfile(&there, &file.text)
        });
        if !is_equal {
            let path = format!("{dir}/{}", file.name);
            changes.push(Change { path, mode: "100644".to_owned(), text: file.text.clone() });
        }
    }
    Ok(changes)
}

/// Whether the directory that stands there is a package of ours for the same target.
fn look(tree: &Object, package: &Package, files: &[Option<Object>]) -> Result<(), String> {
    let entries = entries(&tree.bytes).ok_or("is a directory in no known form")?;
    let ours = |name: &str| package.files.iter().any(|file| file.name == name);
    let strange = entries.iter().find(|(mode, _)| !mode.starts_with("100"));
    if let Some((_, name)) = strange {
        return Err(format!("holds `{name}`, which is not a regular file"));
    }
    if entries.iter().filter(|(_, name)| !ours(name)).count() > FURTHER_MAX {
        return Err(format!("holds more than {FURTHER_MAX} further files"));
    }
    let text = |name: &str| {
        let mut files = package.files.iter().zip(files).filter(|(file, _)| file.name == name);
        let object = files.next()?.1.as_ref()?;
        Some(String::from_utf8_lossy(&object.bytes).into_owned())
    };
    if text(KPTFILE).is_none() {
        return Err("has no Kptfile".to_owned());
    }
    let intent = text(INTENT_FILE).ok_or("has no intent.yaml")?;
    match compose::read_key(&intent) {
        Some(key) if key == package.key => Ok(()),
        Some(key) => Err(format!("is the package of {} {key}", key.intent_type)),
        None => Err("has an intent.yaml that is not of our form".to_owned()),
    }
}

/// Modes and names of a tree object. Names of objects in it are as long as the repository's are:
/// 20 or 32 bytes, of which the one fits.
fn entries(tree: &[u8]) -> Option<Vec<(String, String)>> {
    [20, 32].into_iter().find_map(|length| entries_of(tree, length))
}

fn entries_of(mut tree: &[u8], length: usize) -> Option<Vec<(String, String)>> {
    let mut entries = Vec::new();
    while !tree.is_empty() {
        let end = tree.iter().position(|byte| *byte == 0)?;
        let about = String::from_utf8_lossy(&tree[..end]).into_owned();
        let (mode, name) = about.split_once(' ')?;
        if !mode.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        entries.push((mode.to_owned(), name.to_owned()));
        tree = tree.get(end + 1 + length..)?;
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_object_is_taken_apart() {
        let mut tree = Vec::new();
        for (mode, name) in [("100644", "a"), ("40000", "b c"), ("120000", "d")] {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend_from_slice(&[b' '; 20]);
        }
        let names: Vec<String> =
            entries(&tree).unwrap().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b c", "d"]);
        assert_eq!(entries(b""), Some(Vec::new()));
        assert_eq!(entries(&tree[..tree.len() - 1]), None);
    }
}
