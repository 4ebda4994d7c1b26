//! What kinds of object a server knows.

use serde_json::{Value, json};

/// One served resource.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    /// Plural, as in paths.
    pub name: String,
    pub kind: String,
    pub short: Vec<String>,
    pub namespaced: bool,
    /// Whether `spec.replicas` can be read and written as `/scale`.
    pub scale: bool,
    /// Whether a controller makes true what its objects want.
    pub rolls_out: bool,
    /// Whether it counts generations of its spec.
    pub generations: bool,
    /// Of a CustomResourceDefinition; those validate and complain in other words.
    pub custom: bool,
    /// The `openAPIV3Schema` of a custom one: `type`, `required`, `properties`, `minimum`.
    pub schema: Value,
}

impl Resource {
    /// A custom resource, as if its definition had been applied.
    pub fn custom(group: &str, version: &str, name: &str, kind: &str) -> Self {
        Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            short: Vec::new(),
            namespaced: true,
            scale: false,
            rolls_out: false,
            generations: true,
            custom: true,
            schema: Value::Null,
        }
    }

    pub fn with_scale(mut self) -> Self {
        self.scale = true;
        self
    }

    /// Has its objects rolled out as workloads are: it has an operator.
    pub fn with_operator(mut self) -> Self {
        self.rolls_out = true;
        self
    }

    pub fn with_schema(mut self, schema: Value) -> Self {
        self.schema = schema;
        self
    }

    pub fn cluster_scoped(mut self) -> Self {
        self.namespaced = false;
        self
    }

    fn built_in(group: &str, version: &str, name: &str, kind: &str, short: &str) -> Self {
        let mut it = Resource::custom(group, version, name, kind);
        it.custom = false;
        it.short = vec![short.to_owned()];
        it
    }

    /// `apps/v1`, or `v1` in the group without a name.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    pub fn is(&self, group: &str, name: &str) -> bool {
        self.group == group && self.name == name
    }

    /// Its lines in the discovery of its version.
    pub fn discovery(&self) -> Vec<Value> {
        let verbs =
            ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let mut it = json!({
            "name": self.name, "singularName": self.kind.to_lowercase(),
            "namespaced": self.namespaced, "kind": self.kind, "verbs": verbs,
        });
        if self.short.iter().any(|name| !name.is_empty()) {
            it["shortNames"] = json!(self.short);
        }
        let part = |part: &str| {
            json!({
                "name": format!("{}/{part}", self.name), "singularName": "",
                "namespaced": self.namespaced, "kind": self.kind,
                "verbs": ["get", "patch", "update"],
            })
        };
        let mut all = vec![it];
        if self.scale {
            let mut scale = part("scale");
            scale["kind"] = json!("Scale");
            scale["group"] = json!("autoscaling");
            scale["version"] = json!("v1");
            all.push(scale);
        }
        all.push(part("status"));
        all
    }
}

/// What every server has, and NetworkIntents, whose definition a site is expected to apply.
pub fn all() -> Vec<Resource> {
    let mut autoscalers = Resource::built_in(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        "hpa",
    );
    autoscalers.generations = false;
    let mut namespaces = Resource::built_in("", "v1", "namespaces", "Namespace", "ns");
    namespaces.generations = false;
    let mut intents =
        Resource::custom("intent.nephoran.com", "v1alpha1", "networkintents", "NetworkIntent");
    intents.short = vec!["ni".to_owned()];
    vec![
        namespaces.cluster_scoped(),
        Resource::built_in("apps", "v1", "deployments", "Deployment", "deploy")
            .with_scale()
            .with_operator(),
        Resource::built_in("apps", "v1", "statefulsets", "StatefulSet", "sts")
            .with_scale()
            .with_operator(),
        autoscalers,
        intents,
    ]
}
