//! Mode `edit`: changes `spec.replicas` in a manifest that is there already.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::compose::edit::{self, Files, Refusal, Wish};
use crate::model::{Code, IntentType};
use crate::sink::git::clone::Clone;
use crate::sink::git::commits::Change;
use crate::sink::git::objects::Entry;
use crate::sink::{Delivery, Fault, Retry};

/// Files that are looked at; more mean that `path` is to be narrower.
const FILES_MAX: usize = 20_000;

/// A larger file holds no manifest that people write.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of all files that are looked at: half of what one call gives.
const FILES_BYTES_MAX: u64 = 32 << 20;

/// The files of one commit, with the edits that were made so far.
#[derive(Debug, Default)]
pub struct Existing {
    /// By where they were looked for.
    places: BTreeMap<String, Files>,
    modes: BTreeMap<String, String>,
    /// What edits of earlier deliveries gave.
    edited: BTreeMap<String, String>,
}

impl Existing {
    /// What has to be written for the delivery; empty if it stands there.
    pub fn plan(
        &mut self,
        clone: &mut Clone,
        base: Option<&str>,
        kind: &str,
        delivery: &Delivery<'_>,
        due: Instant,
    ) -> Result<Vec<Change>, Fault> {
        if delivery.intent.intent_type != IntentType::Scaling {
            let what = delivery.intent.intent_type;
            let message =
                format!("the mode `edit` carries out scaling intents, and no {what} ones");
            return Err(Fault { code: Code::UnsupportedIntent, message, retry: Retry::Never });
        }
        let place = clone.site.path(delivery.package);
        if let (Some(base), false) = (base, self.places.contains_key(&place)) {
            let files = self.read(clone, base, &place, due)?;
            self.places.insert(place.clone(), files);
        }
        let wish = Wish {
            kind,
            namespace: &delivery.intent.namespace,
            name: &delivery.intent.target,
            replicas: delivery.intent.replicas,
        };
        let files = self.places.entry(place.clone()).or_default();
        for (path, text) in &self.edited {
            if let Some(there) = files.get_mut(path) {
                there.clone_from(text);
            }
        }
        let branch = clone.site.branch.clone();
        let edited =
            edit::edit(files, &wish).map_err(|refusal| refused(&refusal, &place, &branch))?;
        if files[&edited.path] == edited.text {
            return Ok(Vec::new());
        }
        self.edited.insert(edited.path.clone(), edited.text.clone());
        let mode = self.modes.get(&edited.path).cloned().unwrap_or_else(|| "100644".to_owned());
        Ok(vec![Change { path: edited.path, mode, text: edited.text }])
    }

    fn read(
        &mut self,
        clone: &mut Clone,
        base: &str,
        place: &str,
        due: Instant,
    ) -> Result<Files, Fault> {
        let mut entries = clone.list(base, place, due)?;
        entries.retain(|entry| edit::is_looked_at(&entry.path) && entry.size <= FILE_BYTES_MAX);
        let bytes: u64 = entries.iter().map(|entry| entry.size).sum();
        if entries.len() > FILES_MAX || bytes > FILES_BYTES_MAX {
            let message = format!(
                "more than {FILES_MAX} manifests or {} MiB are below `{place}`; set `path` to a \
                 narrower place",
                FILES_BYTES_MAX >> 20
            );
            return Err(Fault { code: Code::RepositoryNotReady, message, retry: Retry::Never });
        }
        let names: Vec<String> = entries.iter().map(|entry| entry.object.clone()).collect();
        let objects = clone.read(&names, due)?;
        let mut files = Files::new();
        for (Entry { path, mode, .. }, object) in entries.into_iter().zip(objects) {
            // Not UTF-8 is not YAML either.
            let text = object.and_then(|object| String::from_utf8(object.bytes).ok());
            if let Some(text) = text {
                self.modes.insert(path.clone(), mode);
                files.insert(path, text);
            }
        }
        Ok(files)
    }
}

fn refused(refusal: &Refusal, place: &str, branch: &str) -> Fault {
    let place = if place.is_empty() { "." } else { place };
    let message = format!("branch `{branch}`, path `{place}`: {refusal}");
    Fault { code: refusal.code(), message, retry: Retry::Never }
}
