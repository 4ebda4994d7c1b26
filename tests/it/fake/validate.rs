//! What the API server checks of an object before it takes it, and what it fills in.

use serde_json::{Value, json};

use super::http::Response;
use super::resource::Resource;
use super::status::{self, Cause, Named};

type Refused = Box<Response>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// `fieldValidation=Strict`: unknown fields are refused.
    Strict,
    Lenient,
}

const AT_LEAST_ZERO: &str = "must be greater than or equal to 0";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                         characters, '-' or '.', and must start and end with an alphanumeric \
                         character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// The body of a POST.
pub fn decode(body: &[u8], resource: &Resource, strictness: Strictness) -> Result<Value, Refused> {
    let object: Value = serde_json::from_slice(body).map_err(|error| {
        let text = String::from_utf8_lossy(body);
        Box::new(status::bad_request(&format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; \
             json parse error: {} ({text})",
            resource.kind,
            syntax(&error)
        )))
    })?;
    let (kind, version) = (&object["kind"], &object["apiVersion"]);
    if *kind != resource.kind.as_str() || *version != resource.api_version().as_str() {
        let message = format!(
            "{} in version {:?} cannot be handled as a {}: {version} {kind} is something else",
            resource.kind, resource.version, resource.kind
        );
        return Err(Box::new(status::bad_request(&message)));
    }
    let unknown = unknown_field(&object, resource);
    match (unknown, strictness) {
        (Some(field), Strictness::Strict) => Err(Box::new(status::bad_request(&format!(
            "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: unknown field {field:?}",
            resource.kind, resource.version
        )))),
        _ => Ok(pruned(object, resource)),
    }
}

/// The body of a PUT of a Scale.
pub fn decode_scale(body: &[u8]) -> Result<Value, Refused> {
    let scale: Value = serde_json::from_slice(body).unwrap_or_default();
    if scale["kind"] != "Scale" || scale["apiVersion"] != "autoscaling/v1" {
        return Err(Box::new(status::bad_request("a Scale of autoscaling/v1 is wanted")));
    }
    if let Some(is) = no_int32(&scale["spec"]["replicas"]) {
        return Err(Box::new(status::bad_request(&format!(
            "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal {is} \
             into Go struct field ScaleSpec.spec.replicas of type int32"
        ))));
    }
    Ok(scale)
}

/// The body of a PATCH.
pub fn decode_patch(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Box::new(status::bad_request(&format!("error decoding patch: {}", syntax(&error))))
    })
}

fn syntax(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() }
}

/// An object that is to be created.
pub fn created(object: &Value, resource: &Resource) -> Result<(), Refused> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut causes = Vec::new();
    if !is_subdomain(name) {
        let message = format!("Invalid value: {name:?}: {SUBDOMAIN}");
        causes.push(Cause::new("FieldValueInvalid", "metadata.name", &message));
    }
    if matches!(resource.name.as_str(), "deployments" | "statefulsets") && !resource.custom {
        let spec = &object["spec"];
        if spec["selector"].is_null() {
            causes.push(Cause::new("FieldValueRequired", "spec.selector", "Required value"));
        }
        if spec["template"]["metadata"]["labels"].is_null() {
            let message = "Invalid value: null: `selector` does not match template `labels`";
            causes.push(Cause::new("FieldValueInvalid", "spec.template.metadata.labels", message));
        }
        if spec["template"]["spec"]["containers"].is_null() {
            let field = "spec.template.spec.containers";
            causes.push(Cause::new("FieldValueRequired", field, "Required value"));
        }
    }
    causes.extend(values(object, resource));
    refuse(causes, resource, name)
}

/// An object after a write.
pub fn updated(object: &Value, resource: &Resource) -> Result<(), Refused> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    refuse(values(object, resource), resource, name)
}

fn refuse(causes: Vec<Cause>, resource: &Resource, name: &str) -> Result<(), Refused> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Box::new(status::invalid(&resource.kind, &resource.group, name, &causes)))
}

fn values(object: &Value, resource: &Resource) -> Vec<Cause> {
    let mut causes = Vec::new();
    if resource.custom {
        check_schema(&object["spec"], &resource.schema["properties"]["spec"], "spec", &mut causes);
        if resource.scale {
            causes.extend(scale_value(&object["spec"]["replicas"]));
        }
        return causes;
    }
    let spec = &object["spec"];
    if let Some(replicas) = spec["replicas"].as_i64().filter(|it| *it < 0) {
        let message = format!("Invalid value: {replicas}: {AT_LEAST_ZERO}");
        causes.push(Cause::new("FieldValueInvalid", "spec.replicas", &message));
    }
    if let (Some(min), Some(max)) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64()) {
        if min < 1 {
            let message = format!("Invalid value: {min}: must be greater than or equal to 1");
            causes.push(Cause::new("FieldValueInvalid", "spec.minReplicas", &message));
        }
        if max < min {
            let message =
                format!("Invalid value: {max}: must be greater than or equal to `minReplicas`");
            causes.push(Cause::new("FieldValueInvalid", "spec.maxReplicas", &message));
        }
    }
    causes
}

/// What a scale subresource wants of a custom object, besides its schema.
fn scale_value(replicas: &Value) -> Option<Cause> {
    let message = match replicas {
        Value::Number(number) if number.as_i64().is_some_and(|it| it < 0) => {
            format!("Invalid value: {number}: should be a non-negative integer")
        }
        Value::String(text) => format!(
            "Invalid value: 0: .spec.replicas accessor error: {text} is of the type string, expected int64"
        ),
        _ => return None,
    };
    Some(Cause::new("FieldValueInvalid", ".spec.replicas", &message))
}

/// The part of an openAPIV3Schema that definitions of ours use.
fn check_schema(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(wanted) = schema["type"].as_str() else { return };
    if value.is_null() {
        return;
    }
    let is = match value {
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Array(_) => "array",
        _ => "object",
    };
    if is != wanted && !(is == "integer" && wanted == "number") {
        let message =
            format!("Invalid value: {is:?}: {path} in body must be of type {wanted}: {is:?}");
        causes.push(Cause::new("FieldValueTypeInvalid", path, &message));
        return;
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < least
    {
        let message = format!(
            "Invalid value: {number}: {path} in body should be greater than or equal to {least}"
        );
        causes.push(Cause::new("FieldValueInvalid", path, &message));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value[name].is_null() {
            causes.push(Cause::new(
                "FieldValueRequired",
                &format!("{path}.{name}"),
                "Required value",
            ));
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        check_schema(&value[name.as_str()], schema, &format!("{path}.{name}"), causes);
    }
}

/// The object that a merge patch made: can it be read as what it is?
pub fn patched(
    new: &Value,
    resource: &Resource,
    strictness: Strictness,
    patch: &Value,
) -> Result<(), Refused> {
    if resource.custom {
        return Ok(());
    }
    let part = if resource.name == "horizontalpodautoscalers" { "minReplicas" } else { "replicas" };
    let structure = format!("{}Spec.spec.{part}", resource.kind);
    readable(new, &new["spec"][part], &structure)?;
    known(new, resource, strictness, patch)
}

/// The same of a Scale.
pub fn scaled(
    scale: &Value,
    resource: &Resource,
    strictness: Strictness,
    patch: &Value,
) -> Result<(), Refused> {
    readable(scale, &scale["spec"]["replicas"], "ScaleSpec.spec.replicas")?;
    known(scale, resource, strictness, patch)
}

fn readable(object: &Value, number: &Value, structure: &str) -> Result<(), Refused> {
    let Some(is) = no_int32(number) else { return Ok(()) };
    let why = format!("json: cannot unmarshal {is} into Go struct field {structure} of type int32");
    Err(Box::new(unreadable(object, &why)))
}

/// What a value is, where it is no int32 and not left out either.
fn no_int32(number: &Value) -> Option<String> {
    Some(match number {
        Value::Null => return None,
        Value::Number(it) if it.as_i64().is_some_and(|it| i32::try_from(it).is_ok()) => {
            return None;
        }
        Value::Number(it) => format!("number {it}"),
        Value::String(_) => "string".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    })
}

fn known(
    object: &Value,
    resource: &Resource,
    strictness: Strictness,
    patch: &Value,
) -> Result<(), Refused> {
    match unknown_field(patch, resource).filter(|_| strictness == Strictness::Strict) {
        Some(field) => {
            let why = format!("strict decoding error: unknown field {field:?}");
            Err(Box::new(unreadable(object, &why)))
        }
        None => Ok(()),
    }
}

fn unreadable(object: &Value, why: &str) -> Response {
    let text = object.to_string();
    let message = format!("Invalid value: {text:?}: {why}");
    status::invalid("", "", "", &[Cause::new("FieldValueInvalid", "patch", &message)])
}

/// The object whose Scale was patched: a built-in one is judged as a Scale.
pub fn scale_range(new: &Value, resource: &Resource) -> Result<(), Refused> {
    let replicas = new["spec"]["replicas"].as_i64().unwrap_or(0);
    if resource.custom {
        return updated(new, resource);
    }
    if replicas >= 0 {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let message = format!("Invalid value: {replicas}: {AT_LEAST_ZERO}");
    let cause = Cause::new("FieldValueInvalid", "spec.replicas", &message);
    Err(Box::new(status::invalid("Scale", "autoscaling", name, &[cause])))
}

/// What is applied has to fit the schema, or it is an error inside the server.
pub fn typed(applied: &Value, resource: &Resource) -> Result<(), Refused> {
    let failed = |what: &str| {
        let name = applied["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = applied["metadata"]["namespace"].as_str().unwrap_or_default();
        Err(Box::new(status::internal(&format!(
            "failed to create typed patch object ({namespace}/{name}; {}, Kind={}): {what}",
            resource.api_version(),
            resource.kind
        ))))
    };
    if let Some(field) = unknown_field(applied, resource) {
        return failed(&format!(".{field}: field not declared in schema"));
    }
    match &applied["spec"]["replicas"] {
        Value::Null | Value::Number(_) => Ok(()),
        Value::String(_) => failed(".spec.replicas: expected numeric (int or float), got string"),
        _ => failed(".spec.replicas: expected numeric (int or float), got something else"),
    }
}

/// The server checks the uid twice, and says so twice.
pub fn other_uid(it: &Named, uid: &str) -> Response {
    let message = format!("Invalid value: {uid:?}: field is immutable");
    let cause = || Cause::new("FieldValueInvalid", "metadata.uid", &message);
    status::invalid(it.kind, it.group, it.name, &[cause(), cause()])
}

/// Values that the server sets where none is given.
pub fn fill(object: &mut Value, resource: &Resource) {
    if resource.scale && !resource.custom && object["spec"]["replicas"].is_null() {
        object["spec"]["replicas"] = json!(1);
    }
}

/// The first field of a spec that the server does not know, as `spec.x`.
fn unknown_field(object: &Value, resource: &Resource) -> Option<String> {
    let spec = object["spec"].as_object()?;
    let known = known_fields(resource)?;
    spec.keys().find(|name| !known.contains(name)).map(|name| format!("spec.{name}"))
}

/// A custom object without what its schema does not name.
fn pruned(mut object: Value, resource: &Resource) -> Value {
    if let Some(known) = known_fields(resource).filter(|_| resource.custom)
        && let Some(spec) = object["spec"].as_object_mut()
    {
        spec.retain(|name, _| known.contains(name));
    }
    object
}

/// The names below `spec`, where they are told.
fn known_fields(resource: &Resource) -> Option<Vec<String>> {
    if resource.custom {
        let properties = resource.schema["properties"]["spec"]["properties"].as_object()?;
        return Some(properties.keys().cloned().collect());
    }
    let names: &[&str] = match resource.name.as_str() {
        "deployments" => &[
            "minReadySeconds",
            "paused",
            "progressDeadlineSeconds",
            "replicas",
            "revisionHistoryLimit",
            "selector",
            "strategy",
            "template",
        ],
        "statefulsets" => &[
            "minReadySeconds",
            "ordinals",
            "persistentVolumeClaimRetentionPolicy",
            "podManagementPolicy",
            "replicas",
            "revisionHistoryLimit",
            "selector",
            "serviceName",
            "template",
            "updateStrategy",
            "volumeClaimTemplates",
        ],
        "horizontalpodautoscalers" => {
            &["behavior", "maxReplicas", "metrics", "minReplicas", "scaleTargetRef"]
        }
        _ => return None,
    };
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        label.starts_with(plain)
            && label.ends_with(plain)
            && label.chars().all(|c| plain(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
