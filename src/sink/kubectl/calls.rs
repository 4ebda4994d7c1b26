//! The calls of kubectl that there are, each with fixed arguments.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use crate::config::Workload;
use crate::fault;
use crate::sink::kubectl::Error;
use crate::sink::kubectl::program::Program;
use crate::sink::kubectl::saying::Trouble;

/// A list of all that one batch names, or of all autoscalers of a namespace.
const LIST_BYTES_MAX: usize = 64 << 20;

/// One object: etcd takes 1.5 MiB, which indented JSON may triple.
const OBJECT_BYTES_MAX: usize = 8 << 20;

/// Who we are to the server where kubectl takes a name; `kubectl scale` gives its own.
const FIELD_MANAGER: &str = "--field-manager=intentd";

const AUTOSCALERS: &str = "horizontalpodautoscalers.v2.autoscaling";

/// kubectl, and what is scaled by it.
#[derive(Debug)]
pub struct Calls {
    pub program: Program,
    /// As kubectl takes it: `deployments.v1.apps`.
    resource: String,
    /// As the server calls it: `deployments.apps`.
    shown: String,
}

impl Calls {
    pub fn new(program: Program, workload: &Workload) -> Result<Self, Error> {
        let Workload { api_version, plural, .. } = workload;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.')
                && text.bytes().next().is_none_or(plain)
        };
        if !is_name(group) || !is_name(version) || version.is_empty() || version.contains('.') {
            return Err(Error::ApiVersion);
        }
        if !is_name(plural) || plural.is_empty() || plural.contains('.') {
            return Err(Error::Plural);
        }
        let resource = format!("{plural}.{version}.{group}");
        let shown = if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") };
        Ok(Calls { program, resource, shown })
    }

    /// What the client says of itself.
    pub fn version(&self, due: Instant) -> Result<Value, Trouble> {
        let text = self.program.run(&["version", "--client", "--output=json"], 1 << 20, due)?;
        object("version", &text)
    }

    /// Has the server say who may do what: it answers anybody whom it knows, and changes nothing.
    pub fn ask_for_rights(&self, due: Instant) -> Result<(), Trouble> {
        let arguments = ["auth", "can-i", "--list", "--namespace=default"];
        self.program.run(&arguments, OBJECT_BYTES_MAX, due).map(|_| ())
    }

    /// Those of the named objects that there are, by name.
    pub fn read(
        &self,
        namespace: &str,
        names: &[&str],
        due: Instant,
    ) -> Result<HashMap<String, Value>, Trouble> {
        let namespace = format!("--namespace={namespace}");
        let mut arguments = vec!["get", &self.resource];
        arguments.extend(names);
        arguments.extend([namespace.as_str(), "--ignore-not-found", "--output=json"]);
        let text = self.program.run(&arguments, LIST_BYTES_MAX, due)?;
        if text.trim_ascii().is_empty() {
            return Ok(HashMap::new());
        }
        let mut found = object("get", &text)?;
        let objects = match found["items"].take() {
            Value::Array(items) => items,
            _ => vec![found],
        };
        let named = |object: Value| Some((object["metadata"]["name"].as_str()?.to_owned(), object));
        Ok(objects.into_iter().filter_map(named).collect())
    }

    /// The arguments that follow one object, event by event, from what it is now.
    pub fn watching(&self, namespace: &str, name: &str) -> Vec<String> {
        let namespace = format!("--namespace={namespace}");
        let options = ["--watch", "--output-watch-events", "--output=json"].map(str::to_owned);
        let named = ["get".to_owned(), self.resource.clone(), name.to_owned(), namespace];
        named.into_iter().chain(options).collect()
    }

    /// All autoscalers of a namespace.
    pub fn autoscalers(&self, namespace: &str, due: Instant) -> Result<Value, Trouble> {
        let namespace = format!("--namespace={namespace}");
        let arguments = ["get", AUTOSCALERS, &namespace, "--output=json"];
        object("get", &self.program.run(&arguments, LIST_BYTES_MAX, due)?)
    }

    /// Sets the replicas of an object that is still at this version; gives how many it has got,
    /// as far as kubectl says.
    ///
    /// A person's own defaults for kubectl (its file `kuberc`) do not apply where an option is given.
    pub fn scale(
        &self,
        namespace: &str,
        name: &str,
        to: u32,
        resource_version: &str,
        is_dry: bool,
        due: Instant,
    ) -> Result<Option<u32>, Trouble> {
        let target = format!("{}/{name}", self.resource);
        let namespace = format!("--namespace={namespace}");
        let replicas = format!("--replicas={to}");
        let version = format!("--resource-version={resource_version}");
        let dry = if is_dry { "--dry-run=server" } else { "--dry-run=none" };
        let arguments = [
            "scale",
            &target,
            &namespace,
            &replicas,
            &version,
            dry,
            "--timeout=0",
            "--output=json",
        ];
        let run = || self.program.run(&arguments, OBJECT_BYTES_MAX, due);
        let text = if is_dry { run() } else { fault::step("kubectl.scale", run) }?;
        // Its metadata is of before the write, and so are the replicas with a kubectl before 1.36.
        let printed = object("scale", &text)?;
        Ok(printed["spec"]["replicas"].as_u64().and_then(|count| u32::try_from(count).ok()))
    }

    /// Gives an autoscaler that is still at this version another minimum; gives its version then.
    pub fn floor(
        &self,
        namespace: &str,
        name: &str,
        to: u32,
        resource_version: &str,
        is_dry: bool,
        due: Instant,
    ) -> Result<String, Trouble> {
        let target = format!("{AUTOSCALERS}/{name}");
        let namespace = format!("--namespace={namespace}");
        let patch = serde_json::json!({
            "metadata": {"resourceVersion": resource_version}, "spec": {"minReplicas": to},
        });
        let patch = format!("--patch={patch}");
        let dry = if is_dry { "--dry-run=server" } else { "--dry-run=none" };
        let arguments = [
            "patch",
            &target,
            &namespace,
            "--type=merge",
            &patch,
            FIELD_MANAGER,
            dry,
            "--output=json",
        ];
        let run = || self.program.run(&arguments, OBJECT_BYTES_MAX, due);
        let text = if is_dry { run() } else { fault::step("kubectl.floor", run) }?;
        let printed = object("patch", &text)?;
        Ok(printed["metadata"]["resourceVersion"].as_str().unwrap_or(resource_version).to_owned())
    }

    /// The refusal that `--ignore-not-found` leaves out, in the server's words.
    pub fn not_found(&self, name: &str) -> Trouble {
        Trouble::not_found(&format!("{} \"{name}\" not found", self.shown))
    }
}

/// Reads what kubectl printed.
fn object(verb: &str, text: &[u8]) -> Result<Value, Trouble> {
    let read = serde_json::from_slice::<Value>(text).ok().filter(Value::is_object);
    read.ok_or_else(|| Trouble::Unknown(format!("what `kubectl {verb}` printed is no JSON object")))
}
