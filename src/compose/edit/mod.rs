//! Changes the one scalar `spec.replicas` of one manifest among existing files, and nothing else.
//!
//! Which manifest: the document of that kind, name and namespace. One that names no namespace counts
//! where no other names it, unless a kustomization that lists its file, or a Kptfile above it, gives
//! it another namespace. Two that match are refused, and so is a value that something else owns: a
//! kpt setter, a kustomization's `replicas`. A manifest without `spec.replicas` is refused too: it
//! is left out where an autoscaler counts, and to add it would be to fight with that one.
//!
//! Invariant: read back, the new text says what the old one said, but for this one value.
//! Not here: where the files come from and go to.

mod overlay;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::Code;

use tree::{Node, Scalar};

/// Texts by path; paths have `/` and no `.` or `..`.
pub type Files = BTreeMap<String, String>;

/// What is to be changed.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `Deployment`, `StatefulSet`, or any other that counts in `spec.replicas`.
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub replicas: u32,
}

/// The file that holds the manifest, as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    pub path: String,
    /// Equal to the old text when it wants that many already.
    pub text: String,
}

/// Why nothing is changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("no manifest of {kind} {namespace}/{name} is there{}", also(unread.as_deref()))]
    NotFound { kind: String, namespace: String, name: String, unread: Option<String> },
    #[error("two manifests of {kind} {namespace}/{name} are there: {first} and {second}")]
    Ambiguous { kind: String, namespace: String, name: String, first: String, second: String },
    #[error("`spec.replicas` of {place} is owned by {owner}; change it there")]
    Owned { place: String, owner: String },
    #[error("{place} has no `spec.replicas`, as where an autoscaler counts; add it first")]
    Missing { place: String },
    #[error("`spec.replicas` of {place} {what}")]
    Form { place: String, what: String },
    #[error("changing `spec.replicas` of {place} would change more than that: {what}")]
    More { place: String, what: String },
}

impl Refusal {
    /// The code that it ends in.
    pub fn code(&self) -> Code {
        match self {
            Refusal::NotFound { .. } => Code::TargetNotFound,
            Refusal::Ambiguous { .. } => Code::TargetAmbiguous,
            Refusal::Owned { .. }
            | Refusal::Missing { .. }
            | Refusal::Form { .. }
            | Refusal::More { .. } => Code::FieldConflict,
        }
    }
}

fn also(unread: Option<&str>) -> String {
    unread.map_or(String::new(), |unread| format!("; {unread}"))
}

/// Finds the manifest and gives its file with the wanted number.
///
/// # Errors
///
/// [`Refusal`] names what is in the way.
pub fn edit(files: &Files, wish: &Wish<'_>) -> Result<Edited, Refusal> {
    let found = find(files, wish)?;
    let place = &found.place;
    let old = &files[&found.path];
    if let Some(owner) = overlay::of(&found.path, wish.name, files).counts_replicas {
        let owner = format!("`replicas` of {owner}");
        return Err(Refusal::Owned { place: place.clone(), owner });
    }
    let replicas = match found.manifest.get("spec").and_then(|spec| spec.get("replicas")) {
        None => return Err(Refusal::Missing { place: place.clone() }),
        Some(Node::Scalar(scalar)) => scalar,
        Some(_) => {
            let what = "is no number but an alias or a collection".to_owned();
            return Err(Refusal::Form { place: place.clone(), what });
        }
    };
    let place = format!("{place} (line {})", replicas.line);
    check_form(replicas, &place)?;
    if let Some(owner) = setter(old, replicas) {
        return Err(Refusal::Owned { place, owner });
    }
    let wanted = wish.replicas.to_string();
    let mut text = old.clone();
    if replicas.text != wanted {
        text.replace_range(replicas.range.clone(), &wanted);
        check_reading(old, &text, wish).map_err(|what| Refusal::More { place, what })?;
    }
    Ok(Edited { path: found.path, text })
}

/// Whether a file may hold manifests, or what matters for them.
pub fn is_looked_at(path: &str) -> bool {
    let manifest = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
    manifest || overlay::is_setting(path)
}

/// A manifest of that kind and name.
struct Candidate {
    path: String,
    /// For messages.
    place: String,
    manifest: Node,
}

fn find(files: &Files, wish: &Wish<'_>) -> Result<Candidate, Refusal> {
    let (mut named, mut unnamed) = (Vec::new(), Vec::new());
    let mut unread = None;
    let shown = (wish.kind.to_owned(), wish.namespace.to_owned(), wish.name.to_owned());
    // What does not even spell the name is not read: the rest of a large repository.
    let spelling =
        |(path, text): &(&String, &String)| !overlay::is_setting(path) && text.contains(wish.name);
    for (path, text) in files.iter().filter(spelling) {
        let documents = match tree::documents(text) {
            Ok(documents) => documents,
            Err(error) => {
                unread.get_or_insert_with(|| format!("{path} names it, but {error}"));
                continue;
            }
        };
        let several = documents.len() > 1;
        for (at, manifest) in documents.into_iter().enumerate() {
            if !is_workload(&manifest, wish) {
                continue;
            }
            let place =
                if several { format!("{path} (document {})", at + 1) } else { path.clone() };
            let namespace = manifest.get("metadata").and_then(|it| it.get("namespace"));
            match namespace.map(|namespace| namespace.text()) {
                Some(Some(namespace)) if namespace == wish.namespace => &mut named,
                None if may_be_in(path, files, wish) => &mut unnamed,
                _ => continue,
            }
            .push(Candidate { path: path.clone(), place, manifest });
        }
    }
    let (kind, namespace, name) = shown;
    let matching = if named.is_empty() { unnamed } else { named };
    let mut matching = matching.into_iter();
    match (matching.next(), matching.next()) {
        (None, _) => Err(Refusal::NotFound { kind, namespace, name, unread }),
        (Some(found), None) => Ok(found),
        (Some(Candidate { place: first, .. }), Some(Candidate { place: second, .. })) => {
            Err(Refusal::Ambiguous { kind, namespace, name, first, second })
        }
    }
}

fn is_workload(manifest: &Node, wish: &Wish<'_>) -> bool {
    // Other groups have kinds of these names as well.
    let in_apps = matches!(wish.kind, "Deployment" | "StatefulSet" | "ReplicaSet");
    let group = manifest.text_of("apiVersion").and_then(|version| version.split_once('/'));
    let named = manifest.get("metadata").and_then(|metadata| metadata.text_of("name"));
    manifest.text_of("kind") == Some(wish.kind)
        && named == Some(wish.name)
        && (!in_apps || group.is_some_and(|(group, _)| group == "apps"))
}

/// Whether a manifest that names no namespace may end up in that one.
fn may_be_in(path: &str, files: &Files, wish: &Wish<'_>) -> bool {
    let given = overlay::of(path, wish.name, files).namespaces;
    given.iter().all(|namespace| namespace == wish.namespace)
}

fn check_form(replicas: &Scalar, place: &str) -> Result<(), Refusal> {
    let refused =
        |what: &str| Err(Refusal::Form { place: place.to_owned(), what: what.to_owned() });
    if !replicas.is_bare {
        return refused("is quoted, or has an anchor or a tag");
    }
    if replicas.text.is_empty() || !replicas.text.bytes().all(|byte| byte.is_ascii_digit()) {
        return refused("is no whole number");
    }
    Ok(())
}

/// The kpt setter that the comment behind the value names.
fn setter(text: &str, replicas: &Scalar) -> Option<String> {
    let rest = text[replicas.range.end..].lines().next().unwrap_or_default();
    let comment = &rest[rest.find('#')?..];
    // The second is how kpt wrote it before version 1.
    for mark in ["kpt-set:", "$openapi", "$kpt-set"] {
        if let Some(at) = comment.find(mark) {
            let name = comment[at + mark.len()..].trim_matches([' ', '\t', '"', ':', '}', '\'']);
            // A trailing brace belongs to the placeholder's own form `${name}`.
            let name = if name.starts_with("${") { format!("{name}}}") } else { name.to_owned() };
            return Some(format!("the kpt setter `{name}`"));
        }
    }
    None
}

/// Reads both texts and tells what differs besides the one value.
fn check_reading(old: &str, new: &str, wish: &Wish<'_>) -> Result<(), String> {
    let read = |text: &str| {
        serde_saphyr::from_multiple::<Value>(text)
            .map_err(|error| format!("it cannot be read back: {}", first_line(&error.to_string())))
    };
    let (mut old, new) = (read(old)?, read(new)?);
    if old.len() != new.len() {
        return Err("it would have another number of documents".to_owned());
    }
    let differing: Vec<usize> = (0..old.len()).filter(|at| old[*at] != new[*at]).collect();
    let [at] = differing[..] else {
        return Err(format!("{} documents would differ", differing.len()));
    };
    let is_it = old[at]["kind"] == wish.kind && old[at]["metadata"]["name"] == wish.name;
    // Indexing for a change would panic on anything but an object.
    if !is_it {
        return Err("another manifest would differ".to_owned());
    }
    if let Some(spec) = old[at]["spec"].as_object_mut() {
        spec.insert("replicas".to_owned(), wish.replicas.into());
    }
    if old[at] == new[at] { Ok(()) } else { Err("another value follows it".to_owned()) }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
