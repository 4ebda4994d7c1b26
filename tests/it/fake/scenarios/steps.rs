//! The requests, in the order in which they are sent.

use super::super::client::{APPLY, JSON, MERGE};
use super::super::workload;

/// One request. In paths and bodies `{NS}` is the namespace, `{RV}` the version that the last
/// answer had, `{UID}` the uid of the last object; see also [`SHORT`].
pub struct Step {
    pub method: &'static str,
    pub path: String,
    pub body: Option<(&'static str, String)>,
    /// Waits for the rollout of a workload before, so that nobody else writes to it.
    pub settled: &'static str,
    /// As an ordinary user, instead of the administrator.
    pub ordinary: bool,
}

/// What would be repeated in each line of a list.
const SHORT: [(&str, &str); 8] = [
    ("{D}", "/apis/apps/v1/namespaces/{NS}/deployments"),
    ("{S}", "/apis/apps/v1/namespaces/{NS}/statefulsets"),
    ("{H}", "/apis/autoscaling/v2/namespaces/{NS}/horizontalpodautoscalers"),
    ("{G}", "/apis/it.intentd.example/v1/namespaces/{NS}/gadgets"),
    ("{DEPLOYMENT}", r#""apiVersion":"apps/v1","kind":"Deployment""#),
    ("{GADGET}", r#""apiVersion":"it.intentd.example/v1","kind":"Gadget""#),
    ("{REVIEW}", r#""apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview""#),
    ("{WEB}", r#""metadata":{"name":"web","namespace":"{NS}"}"#),
];

pub fn step(method: &'static str, path: &str, body: Option<(&'static str, &str)>) -> Step {
    let long = |text: &str| SHORT.iter().fold(text.to_owned(), |it, (s, l)| it.replace(s, l));
    let body = body.map(|(kind, body)| (kind, long(body)));
    Step { method, path: long(path), body, settled: "", ordinary: false }
}

pub fn get(path: &str) -> Step {
    step("GET", path, None)
}

pub fn delete(path: &str) -> Step {
    step("DELETE", path, None)
}

pub fn post(path: &str, body: &str) -> Step {
    step("POST", path, Some((JSON, body)))
}

pub fn merge(path: &str, body: &str) -> Step {
    step("PATCH", path, Some((MERGE, body)))
}

pub fn put(path: &str, metadata: &str, replicas: &str) -> Step {
    let body = format!(
        r#"{{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{{{metadata},"namespace":"{{NS}}"}},"spec":{{"replicas":{replicas}}}}}"#
    );
    step("PUT", path, Some((JSON, &body)))
}

pub fn apply(path: &str, body: &str) -> Step {
    step("PATCH", path, Some((APPLY, body)))
}

/// The step, once the controllers are done with a workload.
pub fn once(settled: &'static str, step: Step) -> Step {
    Step { settled, ..step }
}

pub fn created(kind: &str, name: &str, replicas: u32) -> Step {
    let plural = if kind == "Deployment" { "{D}" } else { "{S}" };
    let body = workload(kind, "{NS}", name, replicas).to_string();
    post(&format!("{plural}?fieldManager=owner"), &body)
}

/// `/scale`, and replicas of workloads.
pub fn scaling() -> Vec<Step> {
    const SCALE: &str = "{D}/web/scale?fieldManager=intentd";
    const DB: &str = "{S}/db/scale?fieldManager=intentd";
    vec![
        created("Deployment", "web", 2),
        created("Deployment", "web", 2),
        created("StatefulSet", "db", 1),
        once("deployments/web", get("{D}/web")),
        get("{D}/web/scale"),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":3}}"#),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":4}}"#),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"abc"},"spec":{"replicas":4}}"#),
        merge(SCALE, r#"{"metadata":{"uid":"{UID}"},"spec":{"replicas":3}}"#),
        merge(
            SCALE,
            r#"{"metadata":{"uid":"11111111-8c1f-5c8a-8899-833a467f7bd1"},"spec":{"replicas":4}}"#,
        ),
        merge(SCALE, r#"{"metadata":{"name":"other"},"spec":{"replicas":4}}"#),
        merge(SCALE, r#"{"spec":{"replicas":-1}}"#),
        merge(SCALE, r#"{"spec":{"replicas":"4"}}"#),
        merge(SCALE, r#"{"spec":{"replicas":3.5}}"#),
        merge(SCALE, r#"{"spec":{"replicas":3000000000}}"#),
        merge(SCALE, r#"{"spec":{"replicas":true}}"#),
        merge(SCALE, r#"{"spec":{"replicsa":4}}"#),
        merge(
            "{D}/web/scale?fieldManager=intentd&fieldValidation=Strict",
            r#"{"spec":{"replicsa":4}}"#,
        ),
        merge(
            "{D}/web/scale?fieldManager=intentd&fieldValidation=Maybe",
            r#"{"spec":{"replicas":4}}"#,
        ),
        merge("{D}/web/scale?fieldManager=intentd&dryRun=All", r#"{"spec":{"replicas":9}}"#),
        merge("{D}/web/scale?fieldManager=intentd&dryRun=Some", r#"{"spec":{"replicas":9}}"#),
        merge("{D}/web/scale?fieldManager=intentd&force=true", r#"{"spec":{"replicas":9}}"#),
        merge(SCALE, r#"{"spec":{"replicas":3}"#),
        post(SCALE, "{}"),
        step("PATCH", SCALE, Some((JSON, "{}"))),
        once("deployments/web", get("{D}/web/scale")),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":3}}"#),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":null}}"#),
        once("deployments/web", get("{D}/web/scale")),
        get("{D}/web"),
        merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":null}}"#),
        merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":-4}}"#),
        merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":"4"}}"#),
        merge(
            "{D}/web?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":4}}"#,
        ),
        get("{D}/none"),
        get("{D}/none/scale"),
        merge("{D}/none/scale?fieldManager=intentd", r#"{"spec":{"replicas":3}}"#),
        merge("{S}/none/scale?fieldManager=intentd", r#"{"spec":{"replicas":3}}"#),
        merge(
            "/apis/apps/v1/namespaces/nowhere/deployments/web/scale?fieldManager=intentd",
            r#"{"spec":{"replicas":3}}"#,
        ),
        get("/apis/apps/v1/namespaces/nowhere/deployments"),
        once("statefulsets/db", get("{S}/db/scale")),
        merge(
            "{S}/db/scale?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":2}}"#,
        ),
        merge("{S}/db/scale?fieldManager=intentd", r#"{"spec":{"replicas":-2}}"#),
        once("statefulsets/db", get("{S}/db")),
        once("statefulsets/db", get("{S}/db/scale")),
        put(DB, r#""name":"db","resourceVersion":"{RV}""#, "3"),
        put(DB, r#""name":"db","resourceVersion":"1""#, "4"),
        put(DB, r#""name":"db""#, "4"),
        put(DB, r#""name":"other""#, "5"),
        put(DB, r#""name":"db""#, "-5"),
        put(DB, r#""name":"db""#, "\"5\""),
        put("{S}/none/scale?fieldManager=intentd", r#""name":"none""#, "5"),
        delete("{D}/none"),
    ]
}

/// Server-side apply of replicas.
pub fn applying() -> Vec<Step> {
    let with = |name: &str, replicas: &str, more: &str| {
        format!(
            r#"{{{{DEPLOYMENT}},"metadata":{{"name":"{name}"{more}}},"spec":{{"replicas":{replicas}}}}}"#
        )
    };
    let of = |manager: &str, more: &str, body: String| {
        apply(&format!("{{D}}/web?fieldManager={manager}{more}"), &body)
    };
    let web = |replicas: &str| with("web", replicas, "");
    let uid = r#","uid":"11111111-8c1f-5c8a-8899-833a467f7bd1""#;
    vec![
        created("Deployment", "web", 2),
        of("a", "", web("3")),
        of("a", "", web("2")),
        of("b", "", web("3")),
        of("a", "&force=true&dryRun=All", web("5")),
        once("deployments/web", get("{D}/web")),
        of("a", "&force=true", web("3")),
        of("b", "", web("3")),
        of("c", "", web("4")),
        of("c", "&force=true", web("4")),
        merge("{D}/web/scale?fieldManager=s", r#"{"spec":{"replicas":5}}"#),
        of("c", "", web("6")),
        apply("{D}/web", &web("6")),
        of("c", "", with("other", "6", "")),
        of("c", "&force=true&fieldValidation=Strict", web("3").replace("replicas", "replicsa")),
        of("c", "&force=true", web("\"3\"")),
        of("c", "&force=true", web("-1")),
        of("c", "&force=true", with("web", "4", uid)),
        of("c", "&force=true", with("web", "4", r#","resourceVersion":"1""#)),
        of("c", "&force=true", r#"{"apiVersion":"apps/v1","metadata":{"name":"web"}}"#.to_owned()),
        apply("{D}/none?fieldManager=c", &with("none", "4", "")),
        apply("{D}/none?fieldManager=c", &with("none", "4", uid)),
        of("c", "&force=true", web("6")),
        of("c", "", r#"{{DEPLOYMENT},"metadata":{"name":"web"}}"#.to_owned()),
        once("deployments/web", get("{D}/web")),
    ]
}

/// Discovery, custom resources, autoscalers, lists and watches.
pub fn objects() -> Vec<Step> {
    const CREATE: &str = "{G}?fieldManager=intentd";
    const GADGET: &str = r#"{{GADGET},"metadata":{"name":"g"},"spec":{"replicas":2,"note":"x"}}"#;
    let other = |name: &str, spec: &str| {
        format!(r#"{{{{GADGET}},"metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
    };
    let absent = "/apis/absent.intentd.example/v1/namespaces/{NS}/networkintents";
    vec![
        get("/version"),
        get("/apis/apps/v1"),
        get("/apis/apps"),
        get("/apis/autoscaling/v2"),
        get("/apis/it.intentd.example/v1"),
        get("/apis/absent.intentd.example/v1"),
        get("/nothing"),
        get("/apis/apps/v1/namespaces/{NS}/deploymentz/web"),
        get("/apis/apps/v1/namespaces/{NS}/deployments/web/scales"),
        post(absent, GADGET),
        post("{G}?fieldManager=intentd&dryRun=All", GADGET),
        get("{G}/g"),
        post(CREATE, GADGET),
        post(CREATE, GADGET),
        post("{G}?fieldManager=intentd&dryRun=All", GADGET),
        get("{G}/g"),
        post("/apis/it.intentd.example/v1/namespaces/nowhere/gadgets?fieldManager=intentd", GADGET),
        post(
            CREATE,
            r#"{{GADGET},"metadata":{"name":"g","namespace":"other"},"spec":{"replicas":2}}"#,
        ),
        post(CREATE, &other("A_b", r#"{"replicas":2}"#)),
        post(CREATE, &other("h", r#"{"replicas":"2"}"#)),
        post(CREATE, &other("h", r#"{"replicas":-2}"#)),
        post(CREATE, &other("h", r#"{"note":"x"}"#)),
        post(CREATE, &other("h", r#"{"replicas":2,"more":1}"#)),
        post(
            "{G}?fieldManager=intentd&fieldValidation=Strict",
            &other("i", r#"{"replicas":2,"more":1}"#),
        ),
        post(CREATE, "{"),
        step("POST", CREATE, Some(("text/plain", GADGET))),
        get("{G}/g/scale"),
        merge(
            "{G}/g/scale?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":3}}"#,
        ),
        merge(
            "{G}/g/scale?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":4}}"#,
        ),
        merge("{G}/g/scale?fieldManager=intentd", r#"{"spec":{"replicas":-4}}"#),
        merge("{G}/g/scale?fieldManager=intentd", r#"{"spec":{"replicas":"4"}}"#),
        get("{G}/g"),
        get("{G}"),
        get("{G}?fieldSelector=metadata.name%3Dg"),
        get("{G}?labelSelector=a%3D%3D%3Db"),
        get("{D}?fieldSelector=spec.replicas%3D3"),
        get("{H}"),
        post(
            "{H}?fieldManager=intentd",
            r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"absent"},"minReplicas":1,"maxReplicas":4}}"#,
        ),
        merge("{H}/h?fieldManager=intentd", r#"{"spec":{"minReplicas":3}}"#),
        merge("{H}/h?fieldManager=intentd", r#"{"spec":{"minReplicas":5}}"#),
        merge(
            "{H}/h?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"1"},"spec":{"minReplicas":2}}"#,
        ),
        merge("{H}/none?fieldManager=intentd", r#"{"spec":{"minReplicas":2}}"#),
        get("{H}"),
        get("/api/v1/namespaces/{NS}"),
        get("/api/v1/namespaces/nowhere"),
        get("{G}?watch=1&resourceVersion=abc"),
        get("{G}?watch=1&resourceVersion=1&timeoutSeconds=1"),
        get("{G}?watch=1&sendInitialEvents=true"),
        get("{G}?watch=1&timeoutSeconds=1"),
        get("{G}/g"),
        merge("{G}/g?fieldManager=intentd", r#"{"spec":{"note":"y"}}"#),
        delete("{G}/g"),
        get("{G}?watch=1&resourceVersion={RV}&timeoutSeconds=1"),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            r#"{{REVIEW},"spec":{"resourceAttributes":{"namespace":"{NS}","verb":"get","group":"apps","resource":"deployments"}}}"#,
        ),
    ]
}

/// What somebody without any rights is told.
pub fn forbidden() -> Vec<Step> {
    let mut steps = vec![
        get("{D}/web"),
        get("{D}"),
        get("{D}?watch=true"),
        get("{D}?fieldSelector=metadata.name%3Dweb"),
        get("{D}/web/scale"),
        merge("{D}/web/scale?fieldManager=intentd", r#"{"spec":{"replicas":3}}"#),
        post("{D}?fieldManager=intentd", "{}"),
        get("{H}"),
        get("/apis/autoscaling/v2/horizontalpodautoscalers"),
        get("/api/v1/namespaces/{NS}"),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            r#"{{REVIEW},"spec":{"resourceAttributes":{"namespace":"{NS}","verb":"patch","group":"apps","resource":"deployments","subresource":"scale"}}}"#,
        ),
    ];
    for step in &mut steps {
        step.ordinary = true;
    }
    steps
}
