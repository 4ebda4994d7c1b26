//! Turns an intent into a kpt package: a pure function of the document and the site's settings.
//!
//! - `scaling`: a Deployment that holds nothing but `replicas`, to be merged into the live one.
//! - `deployment`: a whole Deployment, from the site's template or around the site's image.
//! - `configuration`: a ConfigMap `<target>-configuration` in the namespace, whose one value
//!   `configuration.json` says what the intent wants of the target (target, replicas,
//!   target_resources, nephio_context) and nothing of who asked or when, so that a reader in the
//!   cluster sees a change only when the wish changes.
//!
//! Each has a `Kptfile` and an `intent.yaml` beside it, both `local-config`.
//!
//! Invariant: no time, seq, epoch or host enters a package, so the same document under the same
//! settings gives the same bytes, and a repeated delivery changes nothing. Every byte is ASCII as
//! long as the settings are, and `kpt fn render` leaves it as it is.

pub mod edit;
mod form;
mod krm;
mod name;
mod template;
mod text;

use serde::Deserialize;

use crate::model::{Code, Digest, Intent, IntentType, Rejection, TargetKey};

pub use name::package_name;
pub use template::check_template;

/// The file that makes a directory a kpt package.
pub const KPTFILE: &str = "Kptfile";

/// The file that makes a package ours, and says for which target.
pub const INTENT_FILE: &str = "intent.yaml";

/// What the site adds to the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Image of the one container of a `deployment` package.
    pub deployment_image: Option<String>,
    /// Text of a site's Deployment template; wins over `deployment_image`.
    pub deployment_template: Option<String>,
}

/// A directory of files, ready to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// A DNS-1123 label, stable per target.
    pub name: String,
    pub key: TargetKey,
    /// Sorted by name; never empty.
    pub files: Vec<File>,
    /// Over names and bytes of all files.
    pub digest: Digest,
}

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: &'static str,
    pub text: String,
}

impl File {
    /// Whether it is for the cluster, and not only about the package.
    pub fn is_resource(&self) -> bool {
        self.name != KPTFILE && self.name != INTENT_FILE
    }
}

/// What is wrong with a site's Deployment template.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("parse the deployment template as one YAML document")]
    Parse { source: Box<serde_saphyr::Error> },
    #[error("the deployment template has no `{field}` that reads {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error("the deployment template holds the character U+{code:04X}, which kpt rewrites")]
    Character { code: u32 },
}

/// Composes the package of an intent that the schema has accepted.
///
/// # Errors
///
/// The intent is to be parked with this code: `NO_TEMPLATE` when a deployment intent meets a site
/// that names neither an image nor a usable template.
pub fn compose(intent: &Intent, settings: &Settings) -> Result<Package, Rejection> {
    let key = intent.key();
    let name = package_name(&key);
    let mut files = Vec::with_capacity(3);
    files.push(File { name: KPTFILE, text: krm::kptfile(&name, intent) });
    files.push(match intent.intent_type {
        IntentType::Scaling => File { name: "deployment.yaml", text: krm::scaling(intent) },
        IntentType::Deployment => {
            File { name: "deployment.yaml", text: deployment(intent, settings)? }
        }
        IntentType::Configuration => {
            File { name: "configuration.yaml", text: krm::configuration(intent) }
        }
    });
    files.push(File { name: INTENT_FILE, text: krm::intent(intent) });
    let parts = files.iter().flat_map(|file| [file.name.as_bytes(), file.text.as_bytes()]);
    let digest = Digest::of_parts(parts);
    Ok(Package { name, key, files, digest })
}

fn deployment(intent: &Intent, settings: &Settings) -> Result<String, Rejection> {
    if let Some(text) = &settings.deployment_template {
        return template::fill(text, intent).map_err(|error| {
            Rejection::of_file(Code::NoTemplate, format!("{error}; mend the site's template"))
        });
    }
    match &settings.deployment_image {
        Some(image) => Ok(krm::deployment(intent, image)),
        None => Err(Rejection::of_file(
            Code::NoTemplate,
            format!(
                "deployment of {} needs an image: set `compose.deployment_image` or \
                 `compose.deployment_template`, then retry",
                intent.key()
            ),
        )),
    }
}

/// Reads back for which target an `intent.yaml` stands; `None` if its text is not of our form.
pub fn read_key(intent_yaml: &str) -> Option<TargetKey> {
    #[derive(Deserialize)]
    struct ConfigMap {
        kind: String,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "intent.json")]
        intent: String,
    }
    #[derive(Deserialize)]
    struct Key {
        intent_type: IntentType,
        namespace: String,
        target: String,
    }
    let map: ConfigMap = serde_saphyr::from_str(intent_yaml).ok()?;
    if map.kind != "ConfigMap" {
        return None;
    }
    let Key { intent_type, namespace, target } = serde_json::from_str(&map.data.intent).ok()?;
    Some(TargetKey { intent_type, namespace, target })
}

/// Whether two Kptfiles say the same but for their `status`, which kpt writes.
pub fn same_kptfile(one: &str, other: &str) -> bool {
    let without_status = |text: &str| {
        let mut value: serde_json::Value = serde_saphyr::from_str(text).ok()?;
        value.as_object_mut()?.remove("status");
        Some(value)
    };
    one == other || without_status(one).is_some_and(|value| Some(value) == without_status(other))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn document(text: &str) -> Intent {
        serde_json::from_str(text).expect("the test's document is an intent")
    }

    #[test]
    fn the_key_of_an_intent_file_reads_back_and_other_files_have_none() {
        let intent = document(
            r#"{"intent_type":"scaling","target":"nf-sim","namespace":"ran-a","replicas":5}"#,
        );
        let package = compose(&intent, &Settings::default()).unwrap();
        assert_eq!(read_key(&package.files[2].text), Some(intent.key()));
        for text in [
            "",
            "kind: ConfigMap\n",
            "kind: Secret\ndata:\n  intent.json: '{}'\n",
            "kind: ConfigMap\ndata:\n  intent.json: '{}'\n",
            "kind: ConfigMap\ndata:\n  intent.json: '[1]'\n",
            "\u{0}",
        ] {
            assert_eq!(read_key(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_kptfile_is_compared_without_its_status() {
        let ours = "apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata:\n  name: a\n";
        let rendered = format!("{ours}status:\n  conditions:\n  - type: Rendered\n");
        assert!(same_kptfile(&rendered, ours));
        assert!(!same_kptfile(&rendered.replace("name: a", "name: b"), ours));
        assert!(!same_kptfile("{", ours));
    }

    #[test]
    fn a_deployment_without_image_and_template_is_parked() {
        let intent =
            document(r#"{"intent_type":"deployment","target":"a","namespace":"b","replicas":1}"#);
        let rejection = compose(&intent, &Settings::default()).unwrap_err();
        assert_eq!(rejection.code, Code::NoTemplate);
        assert_eq!(
            rejection.message,
            "deployment of b/a needs an image: set `compose.deployment_image` or \
             `compose.deployment_template`, then retry"
        );
    }
}
