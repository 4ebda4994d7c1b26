use proptest::prelude::*;

use super::*;

const WISH: Wish<'_> = Wish { kind: "Deployment", namespace: "ran-a", name: "nf-sim", replicas: 7 };

fn files(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

const HEAD: &str =
    "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: nf-sim\n  namespace: ran-a\n";

/// A manifest that ends in these lines.
fn manifest(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

/// Changes the one place marked `[3]` to 7, and nothing else.
#[track_caller]
fn changes(marked: &str) {
    let (old, new) = (marked.replace("[3]", "3"), marked.replace("[3]", "7"));
    assert_ne!(old, new, "there is a mark");
    let edited = edit(&files(&[("a/d.yaml", &old)]), &WISH).unwrap();
    assert_eq!(edited, Edited { path: "a/d.yaml".to_owned(), text: new.clone() });
    let again = edit(&files(&[("a/d.yaml", &new)]), &WISH).unwrap();
    assert_eq!(again.text, new, "it is there already");
}

#[track_caller]
fn refuses(given: &[(&str, &str)], message: &str) {
    assert_eq!(edit(&files(given), &WISH).unwrap_err().to_string(), message);
}

#[test]
fn one_scalar_is_changed_whatever_stands_around_it() {
    changes(&manifest("spec:\n  replicas: [3]\n"));
    changes(&manifest("spec:\n  replicas: [3]"));
    changes(&manifest("spec:\n      replicas:   [3]   # for now; replicas: 3\n"));
    changes(&manifest("spec: {replicas: [3], selector: {matchLabels: {a: \"b\"}}}\n"));
    changes(&manifest("\"spec\":\n  'replicas':\n    [3]\n"));
    changes(&manifest("spec:\n  replicas: [3]\n").replace('\n', "\r\n"));
    changes(&manifest(
        "# replicas: 3\nspec:\n  template:\n    spec:\n      replicas: 3\n    metadata:\n      \
         annotations:\n        note: |\n          spec:\n            replicas: 3\n  \
         # kpt-set: ${replicas}\n  replicas: [3]\n  other: \"replicas: 3\"\n",
    ));
    changes(&format!(
        "# é\u{1f600}\n---\nkind: Service\nmetadata: {{name: nf-sim}}\nspec: {{replicas: 3}}\n---\n{}\
         ---\n{}",
        manifest("spec:\n  replicas: [3]\n"),
        HEAD.replace("ran-a", "ran-b") + "spec:\n  replicas: 3\n",
    ));
    changes(&format!(
        "{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{{\"name\":\"nf-sim\",\
         \"namespace\":\"ran-a\"}},\n\t\"spec\":{{\"x\":[{{\"replicas\":3}}],\"replicas\":{} }}}}",
        "[3]"
    ));
    changes(&manifest("x: &x {replicas: 3}\ny: *x\nspec:\n  <<: *x\n  replicas: [3]\n"));
}

#[test]
fn what_somebody_else_owns_or_cannot_be_read_is_refused_by_name() {
    let path = "a/d.yaml";
    let refuses_line = |rest: &str, message: &str| {
        refuses(
            &[(path, &manifest(rest))],
            &format!("`spec.replicas` of a/d.yaml (line 7) {message}"),
        );
    };
    let owned = |name: &str| format!("is owned by the kpt setter `{name}`; change it there");
    refuses_line("spec:\n  replicas: 3 # kpt-set: ${replicas}\n", &owned("${replicas}"));
    refuses_line("spec:\n  replicas: 7 # kpt-set: ${a}${b}\n", &owned("${a}${b}"));
    refuses_line("spec:\n  replicas: 3 # {\"$openapi\":\"count\"}\n", &owned("count"));
    let quoted = "is quoted, or has an anchor or a tag";
    refuses_line("spec:\n  replicas: \"3\"\n", quoted);
    refuses_line("spec:\n  replicas: &r 3\n  x: *r\n", quoted);
    refuses_line("spec:\n  replicas: !!int 3\n", quoted);
    for strange in ["x", "-1", "3.0", "~", "0x3", ""] {
        let text = manifest(&format!("spec:\n  replicas: {strange}\n"));
        let refused = edit(&files(&[(path, &text)]), &WISH).unwrap_err();
        assert!(matches!(refused, Refusal::Form { .. }), "{strange}: {refused}");
    }
    refuses(
        &[(path, &manifest("x: &r 3\nspec:\n  replicas: *r\n"))],
        "`spec.replicas` of a/d.yaml is no number but an alias or a collection",
    );
    let missing = "a/d.yaml has no `spec.replicas`, as where an autoscaler counts; add it first";
    refuses(&[(path, &manifest("spec:\n  paused: true\n"))], missing);
    refuses(&[(path, HEAD)], missing);
    refuses(
        &[(path, &manifest("spec: &s\n  replicas: 3\nother: *s\n"))],
        "changing `spec.replicas` of a/d.yaml (line 7) would change more than that: another value \
         follows it",
    );
    let twice = manifest("spec:\n  replicas: 3\n  replicas: 4\n");
    let refused = edit(&files(&[(path, &twice)]), &WISH).unwrap_err();
    assert!(matches!(refused, Refusal::More { .. }), "{refused}");
}

#[test]
fn none_or_two_of_that_kind_name_and_namespace_are_refused() {
    let one = manifest("spec:\n  replicas: 3\n");
    let none = "no manifest of Deployment ran-a/nf-sim is there";
    refuses(&[], none);
    for (from, to) in [
        ("kind: Deployment", "kind: StatefulSet"),
        ("name: nf-sim", "name: nf-sim-2"),
        ("namespace: ran-a", "namespace: ran-b"),
        ("apps/v1", "example.org/v1"),
    ] {
        refuses(&[("a.yaml", &one.replace(from, to))], none);
    }
    refuses(
        &[("a.yaml", &one), ("b/c.yml", &format!("a: 1\n---\n{one}"))],
        "two manifests of Deployment ran-a/nf-sim are there: a.yaml and b/c.yml (document 2)",
    );
    let bare = one.replace("  namespace: ran-a\n", "");
    refuses(
        &[("a.yaml", &bare), ("b.yaml", &bare)],
        "two manifests of Deployment ran-a/nf-sim are there: a.yaml and b.yaml",
    );
    let told = edit(&files(&[("a.yaml", "{{ nf-sim }")]), &WISH).unwrap_err().to_string();
    assert!(told.starts_with(&format!("{none}; a.yaml names it, but is not YAML: ")), "{told}");
    let deep = format!("{}nf-sim{}", "[".repeat(100), "]".repeat(100));
    let told = edit(&files(&[("a.yaml", &deep)]), &WISH).unwrap_err().to_string();
    assert_eq!(told, format!("{none}; a.yaml names it, but is nested more than 64 deep"));
    let other = Wish { kind: "Rollout", ..WISH };
    let rollout = one.replace("Deployment", "Rollout").replace("apps/v1", "argoproj.io/v1");
    assert!(edit(&files(&[("a.yaml", &rollout)]), &other).is_ok());
}

#[test]
fn an_absent_namespace_counts_where_nothing_gives_another() {
    let explicit = manifest("spec:\n  replicas: 3\n");
    let bare = explicit.replace("  namespace: ran-a\n", "");
    let path = |given: &[(&str, &str)]| edit(&files(given), &WISH).map(|edited| edited.path);
    let found = |path: &str| Ok(path.to_owned());
    assert_eq!(path(&[("base/d.yaml", &bare)]), found("base/d.yaml"));
    assert_eq!(path(&[("a.yaml", &bare), ("b.yaml", &explicit)]), found("b.yaml"));
    let kustomization =
        |namespace: &str, entry: &str| format!("namespace: {namespace}\nresources: [{entry}]\n");
    let base = ("base/d.yaml", bare.as_str());
    let list = ("base/kustomization.yaml", "resources:\n- d.yaml\n");
    let prod = kustomization("ran-a", "../../base");
    let dev = kustomization("ran-b", "../../base");
    let prod = ("overlays/prod/kustomization.yaml", prod.as_str());
    let dev = ("overlays/dev/kustomization.yaml", dev.as_str());
    assert_eq!(path(&[base, list, prod]), found("base/d.yaml"));
    assert!(matches!(path(&[base, list, prod, dev]), Err(Refusal::NotFound { .. })));
    assert!(matches!(path(&[base, list, dev]), Err(Refusal::NotFound { .. })));
    let kptfile = "pipeline:\n  mutators:\n  - image: x/set-namespace:v0.4\n    configMap:\n      \
                   namespace: ran-b\n";
    assert!(matches!(path(&[base, ("base/Kptfile", kptfile)]), Err(Refusal::NotFound { .. })));
    assert_eq!(path(&[base, ("other/Kptfile", kptfile)]), found("base/d.yaml"));
    let counts = "resources: [d.yaml]\nreplicas: [{name: nf-sim, count: 3}]\n";
    refuses(
        &[base, ("base/kustomization.yaml", counts)],
        "`spec.replicas` of base/d.yaml is owned by `replicas` of base/kustomization.yaml; change it \
         there",
    );
}

fn noise() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("# replicas: 3".to_owned()),
        Just(String::new()),
        "[a-z]{1,6}: [0-9]{1,4}",
        "[a-z]{1,6}: \"re[a-zé ]{0,8}: 3\"",
        Just("template:\n    spec:\n      replicas: 3".to_owned()),
        "[a-z]{1,6}: \\|\n    replicas: [0-9]",
        "[a-z]{1,6}: [{]replicas: 3, x: [\\[]1, 2[\\]][}]",
    ];
    proptest::collection::vec(line, 0..5)
        .prop_map(|lines| lines.iter().map(|line| format!("  {line}\n")).collect())
}

proptest! {
    #[test]
    fn every_other_byte_stays(
        before in noise(), after in noise(), old in 0_u32..200, wanted in 1_u32..101,
        comment in "( # [a-z:{}é]{0,9})?", crlf: bool, document: bool,
    ) {
        let text = |count: u32| {
            let separator = if document { "---\nkind: Other # nf-sim\n---\n" } else { "" };
            let text = format!(
                "{separator}{HEAD}spec:\n{before}  replicas: {count}{comment}\n{after}status: {{}}\n"
            );
            if crlf { text.replace('\n', "\r\n") } else { text }
        };
        let wish = Wish { replicas: wanted, ..WISH };
        match edit(&files(&[("d.yaml", &text(old))]), &wish) {
            Ok(edited) => prop_assert_eq!(edited.text, text(wanted)),
            // A key that came twice.
            Err(Refusal::More { what, .. }) => prop_assert!(what.contains("uplicate"), "{what}"),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }

    #[test]
    fn no_text_makes_it_panic_or_change_more_than_a_number(text in "(nf-sim|replicas|spec|[ -~]|\n|: |  |é){0,60}") {
        let whole = format!("{HEAD}spec:\n  replicas: 3\n{text}");
        if let Ok(edited) = edit(&files(&[("d.yaml", &whole)]), &WISH) {
            prop_assert_eq!(edited.text, whole.replacen("replicas: 3", "replicas: 7", 1));
        }
    }
}

#[test]
fn comments_anywhere_are_kept_and_in_nobodys_way() {
    changes(&format!("# The simulator.\n{}", manifest("spec:\n  replicas: [3]\n")));
    changes(&manifest("spec:\n  # Of all sites.\n  replicas: [3] # at night\n  template: {}\n"));
    let rest = "spec:\n  list: # of\n  - a # first\n  # last\n  - b\n  replicas: [3]\n# end\n";
    changes(&manifest(rest).replace("name: nf-sim\n", "name: nf-sim # not the website\n"));
    changes(&manifest("spec: # {\n  {replicas: # of\n    [3], # }\n    a: b}\n"));
}
