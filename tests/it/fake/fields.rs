//! Who owns which field: `metadata.managedFields`, and the conflicts of server-side apply.
//!
//! Lists are owned whole here; the API server goes into those with keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

pub type Path = Vec<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Apply,
    Update,
}

/// Who writes, as the entry in `managedFields` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    /// Empty for the main resource.
    pub subresource: String,
}

impl Writer {
    pub fn update(manager: &str, api_version: &str) -> Self {
        Writer {
            manager: manager.to_owned(),
            operation: Operation::Update,
            api_version: api_version.to_owned(),
            subresource: String::new(),
        }
    }

    pub fn apply(manager: &str, api_version: &str) -> Self {
        Writer { operation: Operation::Apply, ..Writer::update(manager, api_version) }
    }

    pub fn of(self, subresource: &str) -> Self {
        Writer { subresource: subresource.to_owned(), ..self }
    }

    /// As a conflict names it: the version only for those that did not apply.
    fn text(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

/// One entry of `managedFields`.
#[derive(Clone, Debug)]
pub struct Owner {
    pub writer: Writer,
    /// Of the last change; the API server notes none for scaling, and for joining others.
    pub time: Option<String>,
    pub fields: BTreeSet<Path>,
}

/// A field that another owner holds at another value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    pub with: String,
    /// `.spec.replicas`
    pub field: String,
}

/// The fields of an object that can be owned, each with its value.
pub fn leaves(object: &Value) -> BTreeMap<Path, &Value> {
    let mut found = BTreeMap::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for part in ["annotations", "finalizers", "labels", "ownerReferences"] {
                    if let Some(value) = value.get(part) {
                        collect(vec![key.clone(), part.to_owned()], value, &mut found);
                    }
                }
            }
            _ => collect(vec![key.clone()], value, &mut found),
        }
    }
    found
}

fn collect<'a>(path: Path, value: &'a Value, found: &mut BTreeMap<Path, &'a Value>) {
    match value.as_object() {
        Some(parts) if !parts.is_empty() => {
            for (key, value) in parts {
                let mut deeper = path.clone();
                deeper.push(key.clone());
                collect(deeper, value, found);
            }
        }
        _ => {
            found.insert(path, value);
        }
    }
}

/// Gives what a write changed to its writer, and takes it from all others.
pub fn updated(owners: &mut Vec<Owner>, old: &Value, new: &Value, writer: &Writer, time: &str) {
    let (old, new) = (leaves(old), leaves(new));
    let mut changed: BTreeSet<Path> = new
        .iter()
        .filter(|(path, value)| old.get(*path) != Some(value))
        .map(|(path, _)| path.clone())
        .collect();
    for owner in owners.iter_mut() {
        owner.fields.retain(|path| !changed.contains(path) && new.contains_key(path));
    }
    if writer.subresource == "scale" {
        // A Scale leaves out zero, so nobody owns it.
        changed.retain(|path| new.get(path) != Some(&&json!(0)));
    }
    if !changed.is_empty() {
        let owner = own(owners, writer);
        owner.fields.extend(changed);
        owner.time = (writer.subresource != "scale").then(|| time.to_owned());
    }
    owners.retain(|owner| !owner.fields.is_empty());
}

/// What stands in the way of applying `applied` on `live` without force, by owner.
pub fn conflicts(
    owners: &[Owner],
    live: &Value,
    applied: &Value,
    writer: &Writer,
) -> Vec<Conflict> {
    let (live, applied) = (leaves(live), leaves(applied));
    let mut found = Vec::new();
    for owner in owners.iter().filter(|owner| owner.writer != *writer) {
        for (path, value) in &applied {
            if owner.fields.contains(path) && live.get(path) != Some(value) {
                let field = path.iter().map(|part| format!(".{part}")).collect();
                found.push(Conflict { with: owner.writer.text(), field });
            }
        }
    }
    found.sort();
    found
}

/// The object after applying: `applied` over `live`, without what the writer applied before, does
/// not any more, and shares with nobody.
pub fn apply(
    owners: &mut Vec<Owner>,
    live: &Value,
    applied: &Value,
    writer: &Writer,
    time: &str,
) -> Value {
    let fields: BTreeSet<Path> = leaves(applied).into_keys().collect();
    let before = owners.iter().find(|owner| owner.writer == *writer);
    let before = before.map(|owner| owner.fields.clone()).unwrap_or_default();
    let mut merged = live.clone();
    for path in before.difference(&fields) {
        let shared = owners.iter().any(|it| it.writer != *writer && it.fields.contains(path));
        if !shared {
            remove(&mut merged, path);
        }
    }
    for (path, value) in leaves(applied) {
        set(&mut merged, &path, value.clone());
    }
    // Whoever holds another value has lost it by force.
    let (was, now) = (leaves(live), leaves(&merged));
    for owner in owners.iter_mut().filter(|owner| owner.writer != *writer) {
        owner.fields.retain(|path| now.contains_key(path) && (was.get(path) == now.get(path)));
    }
    let changed = *live != merged;
    if changed || before != fields {
        let owner = own(owners, writer);
        owner.fields = fields;
        owner.time = changed.then(|| time.to_owned());
    }
    owners.retain(|owner| !owner.fields.is_empty());
    merged
}

fn own<'a>(owners: &'a mut Vec<Owner>, writer: &Writer) -> &'a mut Owner {
    let at = owners.iter().position(|owner| owner.writer == *writer).unwrap_or_else(|| {
        owners.push(Owner { writer: writer.clone(), time: None, fields: BTreeSet::new() });
        owners.len() - 1
    });
    &mut owners[at]
}

fn set(object: &mut Value, path: &[String], value: Value) {
    match path {
        [] => *object = value,
        [first, rest @ ..] => {
            if !object.is_object() {
                *object = json!({});
            }
            set(&mut object[first.as_str()], rest, value);
        }
    }
}

fn remove(object: &mut Value, path: &[String]) {
    let Some((last, above)) = path.split_last() else { return };
    let parent = above.iter().try_fold(object, |it, part| it.get_mut(part.as_str()));
    if let Some(parent) = parent.and_then(Value::as_object_mut) {
        parent.remove(last);
    }
}

/// `metadata.managedFields`: who applied stands first, then by time and by name.
pub fn view(owners: &[Owner]) -> Value {
    let mut sorted: Vec<&Owner> = owners.iter().collect();
    sorted
        .sort_by_key(|it| (it.writer.operation == Operation::Update, &it.time, &it.writer.manager));
    let entry = |owner: &&Owner| {
        let mut fields = json!({});
        for path in &owner.fields {
            let path: Path = path.iter().map(|part| format!("f:{part}")).collect();
            set(&mut fields, &path, json!({}));
        }
        let Writer { manager, operation, api_version, subresource } = &owner.writer;
        let mut entry = json!({
            "manager": manager, "operation": format!("{operation:?}"), "apiVersion": api_version,
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        });
        if let Some(time) = &owner.time {
            entry["time"] = json!(time);
        }
        if !subresource.is_empty() {
            entry["subresource"] = json!(subresource);
        }
        entry
    };
    sorted.iter().map(entry).collect()
}
