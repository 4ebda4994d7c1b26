//! POST, PATCH and DELETE, on objects and on their `/scale`.

use serde_json::{Value, json};

use super::controllers;
use super::fields::{Conflict, Writer};
use super::http::{Request, Response};
use super::kube::{Context, Target, named};
use super::resource::Resource;
use super::status::{self, Cause};
use super::store::{Key, Store, Write};
use super::validate::{self, Strictness};

const MANAGER_BYTES_MAX: usize = 128;

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// An answer that ends the handling early; boxed, as it is large and rare.
type Refused = Box<Response>;

struct Options {
    manager: String,
    dry: bool,
    force: bool,
    strictness: Strictness,
}

impl Options {
    /// The options of a write; `kind` is the type that messages name.
    fn parse(request: &Request, kind: &str, context: &mut Context) -> Result<Self, Refused> {
        let invalid =
            |cause: Cause| Err(Box::new(status::invalid(kind, "meta.k8s.io", "", &[cause])));
        let apply = request.content_type() == APPLY;
        let manager = request.param("fieldManager").unwrap_or("");
        // kubectl scale sends none; its requests are its own affair.
        if manager.is_empty() && !request.user_agent().starts_with("kubectl") {
            context.violations.push(format!("a write without fieldManager: {}", request.line()));
        }
        if let Some(value) = request.param("dryRun").filter(|it| *it != "All") {
            let message = format!("Unsupported value: [{value:?}]: supported values: \"All\"");
            return invalid(Cause::new("FieldValueNotSupported", "dryRun", &message));
        }
        if apply && manager.is_empty() {
            let message = "Required value: is required for apply patch";
            return invalid(Cause::new("FieldValueRequired", "fieldManager", message));
        }
        if !apply && request.flag("force") {
            let message = "Forbidden: may not be specified for non-apply patch";
            return invalid(Cause::new("FieldValueForbidden", "force", message));
        }
        if manager.len() > MANAGER_BYTES_MAX {
            let message = format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes");
            return invalid(Cause::new("FieldValueTooLong", "fieldManager", &message));
        }
        let strictness = match request.param("fieldValidation").unwrap_or("") {
            "Strict" => Strictness::Strict,
            "" | "Warn" | "Ignore" => Strictness::Lenient,
            other => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                );
                return invalid(Cause::new("FieldValueNotSupported", "fieldValidation", &message));
            }
        };
        // Who does not say a name is called by the first word of its user agent.
        let manager = match manager {
            "" => request.user_agent().split('/').next().unwrap_or("unknown"),
            manager => manager,
        };
        let (manager, dry) = (manager.to_owned(), request.param("dryRun").is_some());
        Ok(Options { manager, dry, force: request.flag("force"), strictness })
    }
}

pub fn create(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Response {
    try_create(request, target, resource, store, context).unwrap_or_else(|refused| *refused)
}

fn try_create(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Result<Response, Refused> {
    let options = Options::parse(request, "CreateOptions", context)?;
    if request.content_type() != "application/json" {
        context.violations.push(format!("a wrong content type: {}", request.content_type()));
        let message = "the body of the request was in an unknown format - accepted media types \
                       include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        return Err(Box::new(status::status(415, "UnsupportedMediaType", message, Value::Null)));
    }
    let object = validate::decode(&request.body, resource, options.strictness)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let named_target = Target { name, ..target.clone() };
    let it = named(&named_target, resource);
    let namespace = &target.namespace;
    let own = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
    if own != namespace {
        let message =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Box::new(status::bad_request(message)));
    }
    if resource.namespaced {
        match store.get(&Key::new("", "namespaces", "", namespace)) {
            None => {
                let it =
                    status::Named { group: "", resource: "namespaces", kind: "", name: namespace };
                return Err(Box::new(status::not_found(&it)));
            }
            Some(it_is) if it_is["status"]["phase"] == "Terminating" => {
                return Err(Box::new(status::namespace_terminating(&it, namespace)));
            }
            Some(_) => {}
        }
    }
    if let Some(refusal) = context.rules.admission("create", &resource.name, &it) {
        return Err(Box::new(refusal));
    }
    validate::created(&object, resource)?;
    let key = named_target.key();
    if store.get(&key).is_some() {
        return Err(Box::new(status::already_exists(&it)));
    }
    let writer = Writer::update(&options.manager, &resource.api_version());
    let object = store.create(resource, &key, object, &Write { writer, dry: options.dry });
    if !options.dry {
        controllers::written(store, &key);
    }
    Ok(Response::json(201, &object))
}

pub fn patch(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Response {
    try_patch(request, target, resource, store, context).unwrap_or_else(|refused| *refused)
}

fn try_patch(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Result<Response, Refused> {
    let options = Options::parse(request, "PatchOptions", context)?;
    let scale = target.subresource == "scale";
    let wanted = match request.content_type() {
        MERGE | APPLY => true,
        STRATEGIC => !resource.custom,
        _ => false,
    };
    if !wanted {
        context.violations.push(format!("a wrong content type: {}", request.content_type()));
        let message = "415: Unsupported Media Type";
        return Err(Box::new(status::status(415, "UnsupportedMediaType", message, json!({}))));
    }
    let patch = validate::decode_patch(&request.body)?;
    let act = Act { target, resource, options, patch };
    let result = match (request.content_type(), scale) {
        (APPLY, false) => act.apply(store, context)?,
        (_, false) => act.merge(store, context)?,
        (APPLY, true) => return Err(Box::new(status::not_allowed())),
        (_, true) => act.scale(store, context)?,
    };
    if !act.options.dry {
        controllers::written(store, &target.key());
    }
    let result = if scale { self::scale(&result) } else { result };
    Ok(Response::json(200, &result))
}

/// PUT of a Scale, as `kubectl scale --resource-version` does it.
pub fn replace(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Response {
    try_replace(request, target, resource, store, context).unwrap_or_else(|refused| *refused)
}

fn try_replace(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Result<Response, Refused> {
    let options = Options::parse(request, "UpdateOptions", context)?;
    let scale = validate::decode_scale(&request.body)?;
    let act = Act { target, resource, options, patch: scale };
    act.same_name(&act.patch)?;
    let new = act.rescaled(act.existing(store)?, &act.patch, store, context)?;
    if !act.options.dry {
        controllers::written(store, &target.key());
    }
    Ok(Response::json(200, &self::scale(&new)))
}

/// One patch on its way.
struct Act<'a> {
    target: &'a Target,
    resource: &'a Resource,
    options: Options,
    patch: Value,
}

impl Act<'_> {
    fn merge(&self, store: &mut Store, context: &Context) -> Result<Value, Refused> {
        let old = self.existing(store)?;
        let mut new = old.clone();
        merge(&mut new, &self.patch);
        self.same_object(&old, &new, &self.target.resource)?;
        validate::patched(&new, self.resource, self.options.strictness, &self.patch)?;
        if self.target.subresource.is_empty() && new.get("status") != old.get("status") {
            new["status"] = old["status"].clone();
        }
        validate::fill(&mut new, self.resource);
        validate::updated(&new, self.resource)?;
        self.admit(context)?;
        let writer = Writer::update(&self.options.manager, &self.resource.api_version());
        Ok(store.update(&self.target.key(), new, &self.write(writer)))
    }

    /// A patch of the Scale that an object shows of itself.
    fn scale(&self, store: &mut Store, context: &Context) -> Result<Value, Refused> {
        let old = self.existing(store)?;
        let before = self::scale(&old);
        let mut after = before.clone();
        merge(&mut after, &self.patch);
        self.same_object(&before, &after, &self.target.with_subresource())?;
        validate::scaled(&after, self.resource, self.options.strictness, &self.patch)?;
        self.rescaled(old, &after, store, context)
    }

    /// The object with the count of a Scale.
    fn rescaled(
        &self,
        old: Value,
        scale: &Value,
        store: &mut Store,
        context: &Context,
    ) -> Result<Value, Refused> {
        self.same_version(&old, scale)?;
        // What is not there is nothing, and nothing is zero.
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let mut new = old;
        new["spec"]["replicas"] = json!(replicas);
        validate::scale_range(&new, self.resource)?;
        self.admit(context)?;
        let writer = Writer::update(&self.options.manager, &self.resource.api_version());
        Ok(store.update(&self.target.key(), new, &self.write(writer.of("scale"))))
    }

    fn apply(&self, store: &mut Store, context: &Context) -> Result<Value, Refused> {
        let (patch, resource) = (&self.patch, self.resource);
        let kind = patch["kind"].as_str().unwrap_or_default();
        if kind != resource.kind || patch["apiVersion"] != resource.api_version().as_str() {
            let version = patch["apiVersion"].as_str().unwrap_or_default();
            let message = format!("invalid object type: {version}, Kind={kind}");
            return Err(Box::new(status::bad_request(&message)));
        }
        let it = named(self.target, resource);
        let Some(old) = store.get(&self.target.key()) else {
            if let Some(uid) = patch["metadata"]["uid"].as_str() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Box::new(status::conflict(&it, &why)));
            }
            self.same_name(patch)?;
            return self.apply_new(store);
        };
        validate::typed(patch, resource)?;
        let write = self.write(Writer::apply(&self.options.manager, &resource.api_version()));
        let conflicts = store.conflicts(&self.target.key(), patch, &write.writer);
        if !conflicts.is_empty() && !self.options.force {
            return Err(Box::new(conflicted(&conflicts)));
        }
        self.same_name(patch)?;
        self.same_version(&old, patch)?;
        if let Some(uid) = patch["metadata"]["uid"].as_str()
            && old["metadata"]["uid"] != uid
        {
            return Err(Box::new(validate::other_uid(&it, uid)));
        }
        let mut probe = old;
        merge(&mut probe, patch);
        validate::updated(&probe, resource)?;
        self.admit(context)?;
        let finish = |new: &mut Value| validate::fill(new, resource);
        Ok(store.apply(&self.target.key(), patch, &write, finish))
    }

    /// Applying makes what is not there, if it is whole.
    fn apply_new(&self, store: &mut Store) -> Result<Value, Refused> {
        validate::created(&self.patch, self.resource)?;
        let write = self.write(Writer::apply(&self.options.manager, &self.resource.api_version()));
        Ok(store.create(self.resource, &self.target.key(), self.patch.clone(), &write))
    }

    fn write(&self, writer: Writer) -> Write {
        Write { writer, dry: self.options.dry }
    }

    fn existing(&self, store: &Store) -> Result<Value, Refused> {
        let object = store.get(&self.target.key());
        object.ok_or_else(|| Box::new(status::not_found(&named(self.target, self.resource))))
    }

    fn admit(&self, context: &Context) -> Result<(), Refused> {
        let it = named(self.target, self.resource);
        let resource = self.target.with_subresource();
        match context.rules.admission("update", &resource, &it) {
            Some(refusal) => Err(Box::new(refusal)),
            None => Ok(()),
        }
    }

    /// Name, uid and resourceVersion of the patched object, which a patch may give as conditions.
    fn same_object(&self, old: &Value, new: &Value, resource: &str) -> Result<(), Refused> {
        self.same_name(new)?;
        let (was, is) = (&old["metadata"]["uid"], &new["metadata"]["uid"]);
        if was != is {
            let text = |uid: &Value| uid.as_str().unwrap_or_default().to_owned();
            let it = status::Named { resource, ..named(self.target, self.resource) };
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                text(is),
                text(was)
            );
            return Err(Box::new(status::conflict(&it, &why)));
        }
        self.same_version(old, new)
    }

    fn same_name(&self, new: &Value) -> Result<(), Refused> {
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        if name == self.target.name {
            return Ok(());
        }
        let message = format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            self.target.name
        );
        Err(Box::new(status::bad_request(&message)))
    }

    fn same_version(&self, old: &Value, new: &Value) -> Result<(), Refused> {
        let Some(version) = new["metadata"]["resourceVersion"].as_str() else { return Ok(()) };
        if version.parse::<u64>().is_err() {
            let message = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
            return Err(Box::new(status::internal(&message)));
        }
        if old["metadata"]["resourceVersion"] != version {
            return Err(Box::new(status::modified(&named(self.target, self.resource))));
        }
        Ok(())
    }
}

pub fn delete(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
) -> Response {
    let it = named(target, resource);
    let Some(object) = store.get(&target.key()) else { return status::not_found(&it) };
    if request.param("dryRun").is_none() {
        store.remove(&target.key());
    }
    Response::json(
        200,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": target.name, "group": target.group, "kind": target.resource,
                "uid": object["metadata"]["uid"],
            },
        }),
    )
}

/// The Scale of an object; it says nothing of a deletion that is under way.
pub fn scale(object: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        metadata[key] = object["metadata"][key].clone();
    }
    let mut spec = json!({});
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|it| *it != 0) {
        spec["replicas"] = json!(replicas);
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let labels = object["spec"]["selector"]["matchLabels"].as_object();
    if let Some(labels) = labels {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pairs = labels.iter().map(|(key, value)| format!("{key}={}", text(value)));
        status["selector"] = json!(pairs.collect::<Vec<_>>().join(","));
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec,
        "status": status,
    })
}

fn conflicted(conflicts: &[Conflict]) -> Response {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|it| {
            let message = format!("conflict with {}", it.with);
            json!({"reason": "FieldManagerConflict", "message": message, "field": it.field})
        })
        .collect();
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.with, one.field),
        several => {
            let mut message = format!("Apply failed with {} conflicts: ", several.len());
            let mut with = "";
            for it in several {
                if it.with != with {
                    let gap = if with.is_empty() { "" } else { "\n" };
                    message += &format!("{gap}conflicts with {}:", it.with);
                    with = &it.with;
                }
                message += &format!("\n- {}", it.field);
            }
            message
        }
    };
    status::status(409, "Conflict", &message, json!({"causes": causes}))
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => super::store::remove(object, key),
            value => merge(&mut object[key.as_str()], value),
        }
    }
}
