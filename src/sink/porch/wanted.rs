//! What one intent wants of its package, and how our revisions are told from others'.

use serde_json::{Value, json};

use crate::compose::edit::{self, Files, Wish};
use crate::compose::{self, INTENT_FILE, KPTFILE, Package};
use crate::config::{PorchPolicy, PorchSettings};
use crate::model::{Code, Digest, Intent, IntentType, Seq, TargetKey};
use crate::sink::porch::seen::{Note, Origin, Revision};
use crate::sink::{Fault, Retry};

/// Label that Porch keeps on the newest published revision of a package.
pub const LATEST: &str = "kpt.dev/latest-revision";
/// Label by which our revisions for one target are found; it names the ledger and the target.
pub const TARGET: &str = "intentd/target";
/// Annotation with the intent that a revision was made for: `<seq>@<ledger id>`.
pub const INTENT_ID: &str = "intentd/intent-id";
/// Annotation with the digest of what is wanted.
pub const DIGEST: &str = "intentd/digest";
/// Annotation with the revision that this one is a copy of.
pub const SOURCE: &str = "intentd/source";
/// Annotation with the producer's own id.
const CORRELATION_ID: &str = "intentd/correlation-id";
/// Annotation by which Nephio's approval controller takes a revision further.
pub const APPROVAL: &str = "approval.nephio.org/policy";

/// One intent, as far as its package goes.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub seq: Seq,
    pub ledger: &'a str,
    pub intent: &'a Intent,
    /// Path of the package in its repository.
    pub package: &'a str,
    pub policy: PorchPolicy,
    pub approval: Option<&'a str>,
    pub content: Content<'a>,
    /// No intent for this target has ended at this sink yet.
    pub is_first: bool,
}

/// What is to stand in the package.
#[derive(Debug)]
pub enum Content<'a> {
    /// These files, beside whatever others have put there.
    Own(&'a Package),
    /// This number in a manifest of that kind.
    Edit { kind: &'a str, key: &'a TargetKey },
}

/// How files compare with what is wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    Same,
    /// To be written, by path.
    Change(Files),
    Refused(Fault),
}

impl<'a> Wanted<'a> {
    pub fn new(
        seq: Seq,
        ledger: &'a str,
        intent: &'a Intent,
        package: &'a Package,
        settings: &'a PorchSettings,
    ) -> Self {
        let edits = settings.edit_package.as_deref();
        let (name, content) = match edits {
            Some(name) => (name, Content::Edit { kind: &settings.kind, key: &package.key }),
            None => (package.name.as_str(), Content::Own(package)),
        };
        Wanted {
            seq,
            ledger,
            intent,
            package: name,
            policy: settings.policy,
            approval: settings.approval.as_deref(),
            content,
            is_first: false,
        }
    }

    /// Why this sink does not carry out such an intent at all.
    pub fn refusal(&self, repository: &str) -> Option<Fault> {
        let refused = |code, message| Some(Fault { code, message, retry: Retry::Never });
        let what = self.intent.intent_type;
        let edits = matches!(self.content, Content::Edit { .. });
        if edits && what != IntentType::Scaling {
            let message =
                format!("the mode `edit` carries out scaling intents, and no {what} ones");
            return refused(Code::UnsupportedIntent, message);
        }
        let constraints = self.intent.constraints.as_ref()?;
        if let Some(wanted) = &constraints.porch_repository
            && wanted != repository
        {
            let message = format!(
                "`constraints.porch_repository` is `{wanted}`, and this sink writes to `{repository}`"
            );
            return refused(Code::Constraint, message);
        }
        // A package of our own has the name that follows from its target.
        if let Some(wanted) = constraints.kpt_package_name.as_ref().filter(|_| edits)
            && wanted != self.package
        {
            let message = format!(
                "`constraints.kpt_package_name` is `{wanted}`, and this sink edits `{}`",
                self.package
            );
            return refused(Code::Constraint, message);
        }
        None
    }

    /// `<seq>@<ledger id>`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.seq, self.ledger)
    }

    /// Where the intent's revision is worked on: the same whenever it is asked for.
    pub fn workspace(&self, round: u32) -> String {
        let ledger = Digest::of(self.ledger.as_bytes()).short();
        match round {
            0 => format!("i-{}-{ledger}", self.seq),
            lost => format!("i-{}-{ledger}-{lost}", self.seq),
        }
    }

    /// The label's value.
    pub fn target(&self) -> String {
        let TargetKey { intent_type, namespace, target } = self.intent.key();
        let parts = [self.ledger, intent_type.as_str(), &namespace, &target];
        // Sixteen digits: among millions of targets two still differ.
        Digest::of_parts(parts.map(str::as_bytes)).to_string()["sha256:".len()..][..16].to_owned()
    }

    /// Over what is wanted, so that two revisions that want the same can be told.
    pub fn digest(&self) -> String {
        match &self.content {
            Content::Own(package) => package.digest.to_string(),
            Content::Edit { kind, key } => {
                let replicas = self.intent.replicas.to_string();
                let parts = ["edit", kind, &key.namespace, &key.target, &replicas];
                Digest::of_parts(parts.map(str::as_bytes)).to_string()
            }
        }
    }

    /// How the revision is made; it names the intent where there is a place for it.
    fn origin(&self, source: Option<&str>) -> Origin {
        match source {
            Some(source) => Origin::Copy { source: source.to_owned() },
            None => {
                let (what, key, id) = (self.intent.intent_type, self.intent.key(), self.id());
                Origin::New { description: format!("{what} of {key} (intent {id})") }
            }
        }
    }

    /// By what our revisions are found and told.
    pub fn marks(&self, source: Option<&str>) -> Value {
        let mut annotations = json!({INTENT_ID: self.id(), DIGEST: self.digest()});
        if let Some(source) = source {
            annotations[SOURCE] = source.into();
        }
        if let Some(id) = &self.intent.correlation_id {
            annotations[CORRELATION_ID] = id.as_str().into();
        }
        json!({"labels": {TARGET: self.target()}, "annotations": annotations})
    }

    /// The body of the request that makes the revision.
    pub fn creation(&self, repository: &str, round: u32, source: Option<&str>) -> Value {
        let task = match self.origin(source) {
            Origin::Copy { source } => {
                json!({"type": "edit", "edit": {"sourceRef": {"name": source}}})
            }
            Origin::New { description } => {
                json!({"type": "init", "init": {"description": description}})
            }
        };
        json!({
            "apiVersion": "porch.kpt.dev/v1alpha1",
            "kind": "PackageRevision",
            "metadata": self.marks(source),
            "spec": {
                "packageName": self.package,
                "repository": repository,
                "workspaceName": self.workspace(round),
                "lifecycle": "Draft",
                "tasks": [task],
            },
        })
    }

    /// Whether that revision was made for this very intent.
    pub fn owns(&self, revision: &Revision) -> bool {
        revision.intent.as_deref() == Some(self.id().as_str())
    }

    /// Whether that revision is what our own creation has left that was cut off half-way: under our
    /// name, made the way that was noted, and without a mark of anybody's.
    pub fn began(&self, revision: &Revision, note: Option<&Note>) -> bool {
        let made = |note: &Note| self.origin(note.source.as_deref());
        revision.intent.is_none() && revision.origin.is_some() && note.map(made) == revision.origin
    }

    /// Whether that revision was made for an earlier intent, or an earlier round of this one.
    pub fn supersedes(&self, revision: &Revision) -> bool {
        let id = revision.intent.as_deref().and_then(|id| id.split_once('@'));
        id.is_some_and(|(seq, ledger)| {
            ledger == self.ledger && seq.parse::<u64>().is_ok_and(|seq| seq <= self.seq.0)
        })
    }

    /// How a package compares with what is wanted; `is_ours` when the revision was made by us, so
    /// that nobody else's package can stand there.
    pub fn plan(&self, files: &Files, is_ours: bool) -> Plan {
        match &self.content {
            Content::Own(package) => own(package, files, is_ours),
            Content::Edit { kind, key } => {
                let wish = Wish {
                    kind,
                    namespace: &key.namespace,
                    name: &key.target,
                    replicas: self.intent.replicas,
                };
                self.edit(files, &wish)
            }
        }
    }

    fn edit(&self, files: &Files, wish: &Wish<'_>) -> Plan {
        let is_looked_at = |(path, _): &(&String, &String)| edit::is_looked_at(path);
        let files: Files = files
            .iter()
            .filter(is_looked_at)
            .map(|(path, text)| (path.clone(), text.clone()))
            .collect();
        match edit::edit(&files, wish) {
            Ok(edited) if files[&edited.path] == edited.text => Plan::Same,
            Ok(edited) => Plan::Change(Files::from([(edited.path, edited.text)])),
            Err(refusal) => Plan::Refused(Fault {
                code: refusal.code(),
                message: format!("package `{}`: {refusal}", self.package),
                retry: Retry::Never,
            }),
        }
    }
}

fn own(package: &Package, files: &Files, is_ours: bool) -> Plan {
    if !is_ours && let Some(what) = stranger(package, files) {
        let message = format!("package `{}` {what}; move it away, then retry", package.name);
        return Plan::Refused(Fault { code: Code::PackageConflict, message, retry: Retry::Never });
    }
    let mut changes = Files::new();
    for file in &package.files {
        let is_equal = files.get(file.name).is_some_and(|there| {
            *there == file.text || file.name == KPTFILE && compose::same_kptfile(there, &file.text)
        });
        if !is_equal {
            changes.insert(file.name.to_owned(), file.text.clone());
        }
    }
    if changes.is_empty() { Plan::Same } else { Plan::Change(changes) }
}

/// Why a package is not ours for this target; the end of a sentence that begins with its name.
fn stranger(package: &Package, files: &Files) -> Option<String> {
    let Some(intent) = files.get(INTENT_FILE) else {
        return Some("is there already and has no intent.yaml".to_owned());
    };
    match compose::read_key(intent) {
        Some(key) if key == package.key => None,
        Some(key) => Some(format!("is the package of {} {key}", key.intent_type)),
        None => Some("has an intent.yaml that is not of our form".to_owned()),
    }
}

/// The readiness gate that is not open yet, by the Kptfile of the package.
pub fn closed_gate(files: &Files) -> Option<String> {
    let kptfile: Value = serde_saphyr::from_str(files.get(KPTFILE)?).ok()?;
    let gates = kptfile["info"]["readinessGates"].as_array()?;
    let conditions = kptfile["status"]["conditions"].as_array();
    let is_open = |gate: &str| {
        let is_it = |it: &&Value| it["type"] == gate && it["status"] == "True";
        conditions.is_some_and(|conditions| conditions.iter().any(|it| is_it(&it)))
    };
    let mut names = gates.iter().filter_map(|gate| gate["conditionType"].as_str());
    names.find(|gate| !is_open(gate)).map(str::to_owned)
}
