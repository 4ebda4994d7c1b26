//! What kustomizations and Kptfiles among the files set for a manifest from outside.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compose::edit::Files;

/// What is set for one manifest from outside.
#[derive(Debug, Default)]
pub struct Overlay {
    /// Every namespace that something gives it.
    pub namespaces: BTreeSet<String>,
    /// The first kustomization that counts the replicas itself.
    pub counts_replicas: Option<String>,
}

/// Collects what applies to the workload `name` in the file `path`.
pub fn of(path: &str, name: &str, files: &Files) -> Overlay {
    let mut overlay = Overlay::default();
    for (file, text) in files.iter().filter(|(file, _)| is_kptfile(file)) {
        if inside(path, directory(file)) {
            overlay.namespaces.extend(set_namespace(text));
        }
    }
    let kustomizations: Vec<(&str, Value)> = files
        .iter()
        .filter(|(file, _)| is_kustomization(file))
        .filter_map(|(file, text)| Some((file.as_str(), serde_saphyr::from_str(text).ok()?)))
        .collect();
    // What reaches the file, directly or through another kustomization's directory; each is added
    // once, so this ends.
    let mut reached = vec![path.to_owned()];
    let mut used = BTreeSet::new();
    let mut at = 0;
    while at < reached.len() {
        for (file, kustomization) in &kustomizations {
            let home = directory(file);
            if used.contains(file) || !lists(kustomization, home, &reached[at]) {
                continue;
            }
            used.insert(*file);
            reached.push(home.to_owned());
            let namespace = kustomization["namespace"].as_str().map(str::to_owned);
            overlay.namespaces.extend(namespace);
            let counts = kustomization["replicas"].as_array().into_iter().flatten();
            if counts.into_iter().any(|count| count["name"] == name) {
                overlay.counts_replicas.get_or_insert_with(|| (*file).to_owned());
            }
        }
        at += 1;
    }
    overlay
}

/// Whether a file only sets things for others.
pub fn is_setting(path: &str) -> bool {
    is_kustomization(path) || is_kptfile(path)
}

fn is_kustomization(path: &str) -> bool {
    matches!(leaf(path), "kustomization.yaml" | "kustomization.yml" | "Kustomization")
}

fn is_kptfile(path: &str) -> bool {
    leaf(path) == crate::compose::KPTFILE
}

fn leaf(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, leaf)| leaf)
}

/// The directory of a file; empty for the top.
fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn inside(path: &str, directory: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a kustomization in `home` names that file or directory.
fn lists(kustomization: &Value, home: &str, wanted: &str) -> bool {
    let lists = ["resources", "bases", "components"].map(|key| kustomization[key].as_array());
    let mut entries = lists.into_iter().flatten().flatten().filter_map(Value::as_str);
    entries.any(|entry| resolved(home, entry).as_deref() == Some(wanted))
}

/// The path that a relative one means from a directory; none if it leads out of the repository.
fn resolved(home: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = home.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The namespaces that a Kptfile's pipeline sets.
fn set_namespace(kptfile: &str) -> Vec<String> {
    let kptfile: Value = serde_saphyr::from_str(kptfile).unwrap_or_default();
    let mutators = kptfile["pipeline"]["mutators"].as_array().into_iter().flatten();
    mutators
        .filter(|mutator| mutator["image"].as_str().is_some_and(|it| it.contains("set-namespace")))
        .filter_map(|mutator| mutator["configMap"]["namespace"].as_str().map(str::to_owned))
        .collect()
}
