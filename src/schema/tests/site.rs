//! What tightens the schema: the document's own constraints, a site's policy, a site's schema.

use serde_json::json;

use super::{check, codes, judge, plus, with};
use crate::model::Code;
use crate::schema::{Glob, Policy, ReplicaBound, Schema};

#[test]
fn constraints_and_policy_are_enforced_and_reported_together() {
    check(plus(r#""constraints":{"max_replicas":2}"#), &["CONSTRAINT /replicas 1:74"]);
    check(plus(r#""constraints":{"min_replicas":4}"#), &["CONSTRAINT /replicas 1:74"]);
    check(
        plus(r#""constraints":{"min_replicas":3,"max_replicas":2}"#),
        &["CONSTRAINT /replicas 1:74", "CONSTRAINT /constraints/min_replicas 1:106"],
    );
    check(
        plus(r#""constraints":{"allowed_namespaces":["other"]}"#),
        &["CONSTRAINT /namespace 1:53"],
    );
    check(plus(r#""constraints":{"allowed_namespaces":[]}"#), &["CONSTRAINT /namespace 1:53"]);
    assert!(judge(plus(r#""constraints":{"allowed_namespaces":["other","default"]}"#)).is_ok());
    for namespace in ["kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(codes(with(json!({"namespace": namespace}))), [Code::Policy]);
    }
    let text = with(json!({"namespace": "kube-system", "constraints": {"max_replicas": 1}}));
    assert_eq!(codes(text), [Code::Policy, Code::Constraint]);
}

#[test]
fn a_site_policy_tightens_by_globs_and_bounds() {
    let glob = |text: &str| text.parse::<Glob>().unwrap();
    let policy = Policy {
        allowed_namespaces: vec![glob("ran-*"), glob("core")],
        denied_namespaces: vec![glob("ran-test")],
        allowed_targets: Vec::new(),
        denied_targets: vec![glob("*-db")],
        replicas_min: Some(2),
        replicas_max: Some(50),
        replica_bounds: vec![ReplicaBound {
            namespace: glob("ran-*"),
            target: glob("du-?"),
            min: None,
            max: Some(8),
        }],
    };
    let schema = Schema::builtin();
    for (namespace, target, replicas, pointers) in [
        ("ran-a", "web", 3, &[][..]),
        ("core", "du-1", 50, &[]),
        ("default", "web", 3, &["/namespace"]),
        ("ran-test", "web", 3, &["/namespace"]),
        ("ran-a", "user-db", 3, &["/target"]),
        ("ran-a", "web", 1, &["/replicas"]),
        ("ran-a", "web", 51, &["/replicas"]),
        ("ran-a", "du-1", 9, &["/replicas"]),
        ("ran-a", "du-1", 51, &["/replicas", "/replicas"]),
        ("ran-a", "du-10", 9, &[]),
        ("x", "user-db", 51, &["/namespace", "/target", "/replicas"]),
    ] {
        // The order of keys in the text decides the order of what is reported.
        let text = format!(
            r#"{{"namespace":"{namespace}","target":"{target}","replicas":{replicas},"intent_type":"scaling"}}"#
        );
        let found: Vec<String> = match schema.judge(text.as_bytes(), &policy) {
            Ok(_) => Vec::new(),
            Err(rejection) => rejection
                .violations
                .iter()
                .map(|violation| {
                    assert_eq!(violation.code, Code::Policy);
                    violation.pointer.clone().unwrap()
                })
                .collect(),
        };
        assert_eq!(found, pointers, "{text}");
    }
}

#[test]
fn a_site_schema_tightens_ours_and_never_loosens_it() {
    let site = r#"{"properties":{"replicas":{"maximum":10},"reason":{"pattern":"^INC-[0-9]+$"},
        "source":{"const":"user"},"target":false},
        "required":["reason"],"not":{"required":["priority"]},"additionalProperties":true}"#;
    let schema = Schema::with_site(site).unwrap();
    let places = |fields| {
        let rejection = schema.judge(with(fields).as_bytes(), &Policy::default()).unwrap_err();
        let violations = rejection.violations.into_iter();
        violations.map(|v| (v.code, v.pointer.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(
        places(json!({"replicas": 11, "reason": "x", "source": "test", "priority": 1})),
        [
            (Code::SchemaRule, String::new()),
            (Code::SchemaPattern, "/reason".to_owned()),
            (Code::SchemaMaximum, "/replicas".to_owned()),
            (Code::SchemaEnum, "/source".to_owned()),
            (Code::SchemaRule, "/target".to_owned()),
        ]
    );
    let both = places(json!({"replicas": 101, "x": 1}));
    let maxima = both.iter().filter(|(code, _)| *code == Code::SchemaMaximum).count();
    assert_eq!(maxima, 2, "{both:?}");
    assert!(both.contains(&(Code::SchemaUnknownField, "/x".to_owned())), "{both:?}");
}

#[test]
fn a_site_schema_that_cannot_be_used_is_refused_when_it_is_read() {
    for site in [
        "{",
        "5",
        r#"{"type":"integr"}"#,
        r#"{"$ref":"http://127.0.0.1:9/schema.json"}"#,
        r#"{"$ref":"file:///etc/passwd"}"#,
        r#"{"$schema":"http://127.0.0.1:9/meta"}"#,
        r#"{"properties":{"target":{"pattern":"(?=a)b"}}}"#,
        r#"{"properties":{"target":{"format":"no-such-format"}}}"#,
    ] {
        assert!(Schema::with_site(site).is_err(), "{site}");
    }
}
