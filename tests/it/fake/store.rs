//! The objects of a cluster, their one rising resourceVersion, and what happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::controllers::Controllers;
use super::fields::{self, Conflict, Owner, Writer};
use super::resource::{self, Resource};

/// What a slow watcher may lag behind; some thousand deliveries with three events each.
const EVENTS_MAX: usize = 20_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub group: String,
    pub resource: String,
    /// Empty for what has none.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        let [group, resource, namespace, name] =
            [group, resource, namespace, name].map(str::to_owned);
        Key { group, resource, namespace, name }
    }
}

struct Object {
    /// Without `managedFields`.
    value: Value,
    owners: Vec<Owner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    Added,
    Modified,
    Deleted,
    /// Nothing; watchers that want bookmarks are told the current version.
    Bookmark,
    /// All running watches end with an ERROR event.
    Expired,
}

#[derive(Clone)]
pub struct Event {
    pub happened: Happened,
    pub key: Key,
    pub version: u64,
    pub object: Arc<Value>,
    /// As it was before, for selectors that it no longer meets.
    pub before: Option<Arc<Value>>,
}

/// How a create or an update is written down.
#[derive(Clone, Debug)]
pub struct Write {
    pub writer: Writer,
    /// Only the result is wanted (`dryRun=All`).
    pub dry: bool,
}

pub struct Store {
    pub resources: Vec<Resource>,
    pub controllers: Controllers,
    objects: BTreeMap<Key, Object>,
    version: u64,
    events: VecDeque<Event>,
    /// How many events are no longer in `events`.
    dropped: u64,
    /// Watches from a version below have to list again.
    oldest: u64,
    uids: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            resources: resource::all(),
            controllers: Controllers::default(),
            objects: BTreeMap::new(),
            // A real server has made its own objects before anybody asks.
            version: 100,
            events: VecDeque::new(),
            dropped: 0,
            oldest: 100,
            uids: 0,
        }
    }
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Watches from before this have to list again.
    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    pub fn forget_history(&mut self) {
        self.oldest = self.version;
    }

    pub fn resource(&self, group: &str, name: &str) -> Option<Resource> {
        self.resources.iter().find(|it| it.is(group, name)).cloned()
    }

    /// The resource whose objects say this of themselves.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let is = |it: &&Resource| it.api_version() == api_version && it.kind == kind;
        self.resources.iter().find(is).cloned()
    }

    /// An object as the server shows it.
    pub fn get(&self, key: &Key) -> Option<Value> {
        self.objects.get(key).map(|object| shown(&object.value, &object.owners))
    }

    pub fn owners(&self, key: &Key) -> Vec<Owner> {
        self.objects.get(key).map(|object| object.owners.clone()).unwrap_or_default()
    }

    /// All of a resource, in one namespace or in all, in order of namespace and name.
    pub fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<(Key, Value)> {
        let wanted = |key: &&Key| {
            key.group == group
                && key.resource == resource
                && (namespace.is_empty() || key.namespace == namespace)
        };
        let keys = self.objects.keys().filter(wanted);
        keys.filter_map(|key| Some((key.clone(), self.get(key)?))).collect()
    }

    /// Makes an object; the caller has checked that there is none.
    pub fn create(
        &mut self,
        resource: &Resource,
        key: &Key,
        mut value: Value,
        write: &Write,
    ) -> Value {
        self.uids += 1;
        let metadata = &mut value["metadata"];
        metadata["name"] = json!(key.name);
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012x}", self.uids));
        metadata["creationTimestamp"] = json!(now());
        if resource.generations {
            metadata["generation"] = json!(1);
        }
        remove(metadata, "managedFields");
        remove(metadata, "resourceVersion");
        let mut owners = Vec::new();
        fields::updated(&mut owners, &Value::Null, &value, &write.writer, &now());
        if write.dry {
            return shown(&value, &owners);
        }
        self.store(Happened::Added, key, value, owners, None)
    }

    /// Replaces an object by `new`, unless nothing differs.
    pub fn update(&mut self, key: &Key, new: Value, write: &Write) -> Value {
        let mut owners = self.owners(key);
        let old = self.plain(key);
        fields::updated(&mut owners, &old, &new, &write.writer, &now());
        self.replace(key, old, new, owners, write.dry)
    }

    /// What stands in the way of applying a configuration without force.
    pub fn conflicts(&self, key: &Key, applied: &Value, writer: &Writer) -> Vec<Conflict> {
        fields::conflicts(&self.owners(key), &self.plain(key), applied, writer)
    }

    /// Applies a configuration server-side, by force; `finish` completes the result.
    pub fn apply(
        &mut self,
        key: &Key,
        applied: &Value,
        write: &Write,
        finish: impl FnOnce(&mut Value),
    ) -> Value {
        let mut owners = self.owners(key);
        let old = self.plain(key);
        let mut new = fields::apply(&mut owners, &old, applied, &write.writer, &now());
        finish(&mut new);
        self.replace(key, old, new, owners, write.dry)
    }

    /// Takes an object away at once.
    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        let object = self.objects.remove(key)?;
        self.version += 1;
        let mut value = object.value;
        let before = Arc::new(shown(&value, &object.owners));
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = shown(&value, &object.owners);
        self.record(Happened::Deleted, key, last.clone(), Some(before));
        Some(last)
    }

    /// Marks an object as being deleted, held by a finalizer.
    pub fn terminate(&mut self, key: &Key) -> Option<Value> {
        self.objects.get(key)?;
        let old = self.plain(key);
        let mut new = old.clone();
        let metadata = &mut new["metadata"];
        metadata["deletionTimestamp"] = json!(now());
        metadata["deletionGracePeriodSeconds"] = json!(0);
        metadata["finalizers"] = json!(["example.com/hold"]);
        if let Some(generation) = metadata["generation"].as_u64() {
            metadata["generation"] = json!(generation + 1);
        }
        let owners = self.owners(key);
        Some(self.replace(key, old, new, owners, false))
    }

    /// The events from a position on, and the position behind them.
    pub fn events_from(&self, position: u64) -> (Vec<Event>, u64) {
        let skip = position.saturating_sub(self.dropped) as usize;
        (self.events.iter().skip(skip).cloned().collect(), self.position())
    }

    /// Behind the newest event.
    pub fn position(&self) -> u64 {
        self.dropped + self.events.len() as u64
    }

    /// The position of the first event after a version.
    pub fn position_after(&self, version: u64) -> u64 {
        let before = self.events.iter().take_while(|event| event.version <= version).count();
        self.dropped + before as u64
    }

    /// Tells all watches something that is about no object.
    pub fn announce(&mut self, happened: Happened) {
        self.record(happened, &Key::new("", "", "", ""), Value::Null, None);
    }

    fn plain(&self, key: &Key) -> Value {
        self.objects.get(key).map(|object| object.value.clone()).unwrap_or(Value::Null)
    }

    fn replace(
        &mut self,
        key: &Key,
        old: Value,
        mut new: Value,
        owners: Vec<Owner>,
        dry: bool,
    ) -> Value {
        let counts = old["metadata"]["generation"].as_u64();
        remove(&mut new["metadata"], "managedFields");
        for kept in ["uid", "creationTimestamp", "resourceVersion"] {
            new["metadata"][kept] = old["metadata"][kept].clone();
        }
        if let Some(generation) = counts
            && old["spec"] != new["spec"]
        {
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if dry {
            return shown(&new, &owners);
        }
        let before = shown(&old, &self.owners(key));
        if shown(&new, &owners) == before {
            return before;
        }
        self.store(Happened::Modified, key, new, owners, Some(Arc::new(before)))
    }

    fn store(
        &mut self,
        happened: Happened,
        key: &Key,
        mut value: Value,
        owners: Vec<Owner>,
        before: Option<Arc<Value>>,
    ) -> Value {
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = shown(&value, &owners);
        self.objects.insert(key.clone(), Object { value, owners });
        self.record(happened, key, object.clone(), before);
        object
    }

    fn record(&mut self, happened: Happened, key: &Key, object: Value, before: Option<Arc<Value>>) {
        let (version, object) = (self.version, Arc::new(object));
        self.events.push_back(Event { happened, key: key.clone(), version, object, before });
        if self.events.len() > EVENTS_MAX
            && let Some(event) = self.events.pop_front()
        {
            self.dropped += 1;
            self.oldest = self.oldest.max(event.version);
        }
    }
}

fn shown(value: &Value, owners: &[Owner]) -> Value {
    let mut value = value.clone();
    if !owners.is_empty() {
        value["metadata"]["managedFields"] = fields::view(owners);
    }
    value
}

pub fn remove(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(key);
    }
}

/// The time as objects carry it: UTC, in seconds.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
