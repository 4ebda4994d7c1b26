//! The house rules that a program can check, each as one function from files to complaints.
//!
//! Every rule is held against the repository by one test, and shown to bite by another. A rule that
//! is in the way is changed here, with its reason, and never worked around.

mod source;

use source::{Source, item_end, repository, rust, words};

/// Modules and their ranks (`src/ARCHITECTURE.md`): code is imported from lower ranks only.
const RANKS: [(&str, u8); 24] = [
    ("model", 0),
    ("limits", 0),
    ("sys", 0),
    ("fault", 0),
    // Counting by the limits; `sequence` fills groups with it.
    ("batch", 0),
    ("settle", 1),
    ("schema", 1),
    ("compose", 1),
    ("sequence", 1),
    ("retry", 1),
    ("breaker", 1),
    ("rate", 1),
    ("config", 2),
    ("telemetry", 2),
    ("spool", 2),
    ("watch", 3),
    ("intake", 3),
    ("ledger", 3),
    ("sink", 3),
    ("leader", 3),
    ("request", 3),
    ("processor", 4),
    ("pipeline", 5),
    ("cli", 6),
];

/// Plain constants, which the other words of rank 0 may use as well.
const FREE: &str = "limits";

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are one table: a match over a closed enum, a few lines a variant. Splitting one
/// would only hide which variant is missing.
const TABLES: [(&str, &str); 2] =
    [("src/schema/check.rs", "name"), ("src/schema/wording.rs", "words")];

/// What product code does not call: the words, where they are allowed, and what to do instead.
const BANNED_CALLS: [(&str, &[&str], &str); 11] = [
    (".unwrap()", &[], "say why it cannot fail with `expect`"),
    ("todo!", &[], "write it in the change that calls it"),
    ("unimplemented!", &[], "write it in the change that calls it"),
    ("dbg!", &[], "log with `tracing`"),
    ("println!", PRINTERS, "data is printed by `cli`, the rest is logged"),
    ("eprintln!", PRINTERS, "log with `tracing`"),
    ("print!", PRINTERS, "data is printed by `cli`, the rest is logged"),
    ("thread::sleep", &[], "wait for an event or a deadline"),
    ("unbounded(", &[], "give the channel a bound"),
    ("process::exit", &["src/main.rs", "src/cli/", "src/pipeline/"], "return an exit code"),
    ("unsafe", &["src/sys.rs"], "put the call into `sys`"),
];
const PRINTERS: &[&str] = &["src/main.rs", "src/cli/", "src/cli.rs"];

/// Words of file names that say nothing, or that say "the other one is still there".
const BANNED_NAMES: [&str; 8] =
    ["enhanced", "optimized", "helper", "helpers", "util", "utils", "manager", "v2"];

/// Notes to oneself; split so that this file does not find itself.
const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Hosts of registries and places on one machine; split for the same reason.
const PLACES: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("crates", ".io"),
    concat!("docker", ".io"),
    concat!("ghcr", ".io"),
    concat!("gcr", ".io"),
    concat!("quay", ".io"),
    concat!("registry.k8s", ".io"),
    concat!("pypi", ".org"),
];

#[test]
fn modules_import_from_lower_ranks_only() {
    hold(imports, &rust(&["src"]));
}

#[test]
fn an_import_from_the_same_or_a_higher_rank_is_found() {
    let at = |path, text| found(imports, path, text);
    assert_eq!(
        at("src/settle.rs", "\nuse crate::{model::Seq, ledger::Row};"),
        ["src/settle.rs:2: `settle` (rank 1) must not know `ledger` (rank 3)"]
    );
    assert_eq!(
        at("src/sink/git.rs", "fn f() -> crate::ledger::Row {}"),
        ["src/sink/git.rs:1: `sink` (rank 3) must not know `ledger` (rank 3)"]
    );
    assert_eq!(
        at("src/model/seq.rs", "use crate::sys;"),
        ["src/model/seq.rs:1: `model` (rank 0) must not know `sys` (rank 0)"]
    );
    assert_eq!(
        at("src/sink/a/b.rs", "use super::super::c;"),
        ["src/sink/a/b.rs:1: write the path from `crate`, so that its rank can be seen"]
    );
    assert_eq!(
        at("src/magic.rs", "use crate::model::Seq;"),
        ["src/magic.rs:1: `magic` has no rank; give it one in `RANKS`"]
    );
    assert_eq!(
        at("src/cli/mod.rs", "use crate::magic::Wand;"),
        ["src/cli/mod.rs:1: `magic` has no rank; give it one in `RANKS`"]
    );
}

#[test]
fn an_import_from_a_lower_rank_the_own_module_or_by_a_test_is_fine() {
    let at = |path, text| found(imports, path, text);
    let none = Vec::<String>::new();
    assert_eq!(at("src/sink/git.rs", "use crate::{\n compose::{Package, File},\n sink};"), none);
    assert_eq!(at("src/model/name.rs", "use crate::limits::NAME_BYTES_MAX;"), none);
    assert_eq!(at("src/lib.rs", "pub use crate::cli::run;"), none);
    assert_eq!(
        at("src/batch.rs", "// crate::cli\n/// [`crate::cli`]\nconst X: &str = \"crate::cli\";"),
        none
    );
    assert_eq!(
        at("src/batch.rs", "#[cfg(test)]\nmod tests { use super::*; use crate::cli; }"),
        none
    );
    assert_eq!(at("src/batch.rs", "pub(crate) fn f() {}\npub(super) fn g() {}"), none);
}

#[test]
fn files_are_short() {
    hold(file_length, &rust(&["src", "tests", "benches"]));
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(
        found(file_length, "src/a.rs", &"\n".repeat(801)),
        ["src/a.rs:801: 801 lines; at most 800 fit a file"]
    );
    assert!(found(file_length, "src/a.rs", &"\n".repeat(800)).is_empty());
}

#[test]
fn functions_fit_a_screen() {
    hold(function_length, &rust(&["src", "benches"]));
}

#[test]
fn a_long_function_is_found() {
    let body = |lines: usize| {
        format!("\n/// f\nfn f<'a>(\n) -> [u8; 2] {{{}}}\nfn g();", "\n".repeat(lines))
    };
    assert_eq!(
        found(function_length, "src/a.rs", &body(69)),
        ["src/a.rs:3: `f` has 71 lines; at most 70 fit a screen"]
    );
    assert!(found(function_length, "src/a.rs", &body(68)).is_empty());
    assert!(
        found(function_length, "src/a.rs", &format!("#[cfg(test)]\nmod tests {{{}}}", body(80)))
            .is_empty()
    );
}

#[test]
fn product_code_makes_no_banned_call() {
    hold(banned_calls, &rust(&["src"]));
}

#[test]
fn each_banned_call_is_found() {
    for (call, allowed, instead) in BANNED_CALLS {
        let line = format!("fn f() {{ {} }}", spelled(call));
        assert_eq!(
            found(banned_calls, "src/spool/mod.rs", &line),
            [format!("src/spool/mod.rs:1: no `{call}` here: {instead}")]
        );
        assert!(
            found(banned_calls, "src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {line} }}"))
                .is_empty()
        );
        assert!(
            found(banned_calls, "src/a.rs", &format!("// {call}\n#![deny(unsafe_code)]"))
                .is_empty()
        );
        for place in allowed {
            let path =
                if place.ends_with('/') { format!("{place}a.rs") } else { place.to_string() };
            assert!(found(banned_calls, &path, &line).is_empty(), "{call} in {path}");
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    hold(notes, &repository());
}

#[test]
fn a_note_to_oneself_is_found() {
    for note in NOTES {
        assert_eq!(
            found(notes, "README.md", &format!("a\n{note}: b")),
            [format!("README.md:2: `{note}`: do it, or say it in an issue")]
        );
        assert!(found(notes, "README.md", &format!("{note}S, mktemp {note}{note}")).is_empty());
    }
}

#[test]
fn every_file_and_test_is_part_of_the_program() {
    hold(reachable, &rust(&["src", "tests", "benches"]));
}

#[test]
fn a_file_that_no_mod_line_names_is_found() {
    let files = [
        ("src/lib.rs", "mod a;\n// mod b;\npub mod d;"),
        ("src/a/mod.rs", "pub(crate) mod c;"),
        ("src/a/c.rs", ""),
        ("src/a/e.rs", ""),
        ("src/b.rs", ""),
        ("src/d.rs", "#[cfg(test)]\nmod tests;"),
        ("src/d/tests.rs", ""),
        ("tests/it/main.rs", "mod used;"),
        ("tests/it/used.rs", ""),
        ("tests/it/forgotten.rs", ""),
        ("tests/other.rs", ""),
        ("benches/drain.rs", ""),
    ];
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    assert_eq!(
        reachable(&sources),
        [
            "src/a/e.rs:1: no `mod e;` leads here",
            "src/b.rs:1: no `mod b;` leads here",
            "tests/it/forgotten.rs:1: no `mod forgotten;` leads here",
            "tests/other.rs:1: a second test binary; make it a module of tests/it/main.rs",
        ]
    );
}

#[test]
fn file_names_say_what_is_inside() {
    hold(names, &repository());
}

#[test]
fn a_file_name_that_says_nothing_is_found() {
    for word in BANNED_NAMES {
        assert_eq!(
            found(names, &format!("src/{word}/mod.rs"), ""),
            [format!("src/{word}/mod.rs:1: `{word}` in a name says nothing; name what it does")]
        );
        assert_eq!(found(names, &format!("examples/watch_{word}.sh"), "").len(), 1);
        assert!(found(names, &format!("src/{word}x.rs"), "").is_empty());
    }
}

#[test]
fn no_text_names_a_registry_or_a_place_on_one_machine() {
    hold(places, &repository());
}

#[test]
fn a_registry_or_a_place_on_one_machine_is_found() {
    for place in PLACES {
        let complaint = format!("a/b.md:1: `{place}` is a registry or a place on one machine");
        assert_eq!(found(places, "a/b.md", &format!("see `{place}x`")), [complaint]);
    }
    let below = format!("$spool{0}x <spool>{0} {{spool}}{0}", PLACES[0]);
    assert!(found(places, "a/b.md", &below).is_empty());
    assert!(found(places, "Cargo.lock", PLACES[2]).is_empty());
}

/// Fails with all complaints of the rule about the repository.
#[track_caller]
fn hold(rule: fn(&[Source]) -> Vec<String>, sources: &[Source]) {
    let complaints = rule(sources);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The complaints of a rule about one file.
fn found(rule: fn(&[Source]) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    rule(&[Source::new(path, text)])
}

fn imports(sources: &[Source]) -> Vec<String> {
    let rank = |module: &str| RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    let mut complaints = Vec::new();
    for source in sources {
        let Some(module) = source.module() else { continue };
        let unknown = |at, name: &str| {
            source.complaint(at, format_args!("`{name}` has no rank; give it one in `RANKS`"))
        };
        let Some(own) = rank(module) else {
            complaints.push(unknown(0, module));
            continue;
        };
        for at in words(&source.product, "super::") {
            if source.product[..at].ends_with("super::") {
                continue;
            }
            let message = "write the path from `crate`, so that its rank can be seen";
            complaints.push(source.complaint(at, message));
        }
        for at in words(&source.product, "crate::") {
            for name in heads(&source.product[at + "crate::".len()..]) {
                let allowed =
                    name == module || name == FREE || rank(&name).is_some_and(|it| it < own);
                match rank(&name) {
                    None => complaints.push(unknown(at, &name)),
                    Some(other) if !allowed => complaints.push(source.complaint(
                        at,
                        format_args!(
                            "`{module}` (rank {own}) must not know `{name}` (rank {other})"
                        ),
                    )),
                    Some(_) => {}
                }
            }
        }
    }
    complaints
}

/// The modules that a path names right behind `crate::`: one, or each of `{a::x, b::{y, z}}`.
fn heads(path: &str) -> Vec<String> {
    let head = |text: &str| {
        let text = text.trim_start();
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or("").to_owned()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![head(path)] };
    let mut heads = vec![head(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(head(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn file_length(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| {
            format!("{}:{lines}: {lines} lines; at most {FILE_LINES_MAX} fit a file", source.path)
        })
    });
    long.collect()
}

fn function_length(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for at in words(&source.product, "fn ") {
            let name = heads(&source.product[at + "fn ".len()..]).concat();
            let Some(end) = item_end(&source.product, at) else { continue };
            let lines = source.product[at..end].lines().count();
            let is_table = TABLES.contains(&(source.path.as_str(), name.as_str()));
            if lines > FUNCTION_LINES_MAX && !is_table {
                let message = format!(
                    "`{name}` has {lines} lines; at most {FUNCTION_LINES_MAX} fit a screen"
                );
                complaints.push(source.complaint(at, message));
            }
        }
    }
    complaints
}

fn banned_calls(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for (call, allowed, instead) in BANNED_CALLS {
            if allowed.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for at in words(&source.product, call) {
                let message = format_args!("no `{call}` here: {instead}");
                complaints.push(source.complaint(at, message));
            }
        }
    }
    complaints
}

/// The banned word as it would stand in code.
fn spelled(call: &str) -> String {
    match call {
        "unsafe" => "unsafe { x() }".to_owned(),
        call if call.ends_with('!') => format!("{call}(\"x\")"),
        call if call.ends_with('(') => format!("{call})"),
        call if call.ends_with("()") => format!("x{call}"),
        call => format!("std::{call}(x)"),
    }
}

fn notes(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for note in NOTES {
            for at in words(&source.text, note) {
                let message = format_args!("`{note}`: do it, or say it in an issue");
                complaints.push(source.complaint(at, message));
            }
        }
    }
    complaints
}

fn reachable(sources: &[Source]) -> Vec<String> {
    let declares = |parents: &[String], name: &str| {
        let line = format!("mod {name};");
        let within = sources.iter().filter(|source| parents.contains(&source.path));
        within.into_iter().any(|source| words(&source.code, &line).next().is_some())
    };
    let mut complaints = Vec::new();
    for source in sources {
        let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let (folder, name) = match (stem, folder.rsplit_once('/')) {
            ("mod", Some((above, name))) => (above, name),
            _ => (folder, stem),
        };
        match (folder, name) {
            ("src", "lib" | "main") | ("tests/it" | "tests/proof" | "benches/bench", "main") => {
                continue;
            }
            ("benches", _) => continue,
            ("tests", _) => {
                let message = "a second test binary; make it a module of tests/it/main.rs";
                complaints.push(source.complaint(0, message));
                continue;
            }
            _ => {}
        }
        let parents = match folder {
            "src" => vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
            "tests/it" | "tests/proof" | "benches/bench" => vec![format!("{folder}/main.rs")],
            _ => vec![format!("{folder}.rs"), format!("{folder}/mod.rs")],
        };
        if !declares(&parents, name) {
            complaints.push(source.complaint(0, format_args!("no `mod {name};` leads here")));
        }
    }
    complaints
}

fn names(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for word in source.path.split(|c: char| !c.is_ascii_alphanumeric()) {
            if BANNED_NAMES.contains(&word.to_ascii_lowercase().as_str()) {
                let message = format_args!("`{word}` in a name says nothing; name what it does");
                complaints.push(source.complaint(0, message));
            }
        }
    }
    complaints
}

fn places(sources: &[Source]) -> Vec<String> {
    // Cargo writes the address of the index into its lock files.
    let written_by_us = sources.iter().filter(|source| !source.path.ends_with("Cargo.lock"));
    let mut complaints = Vec::new();
    for source in written_by_us {
        for place in PLACES {
            for (at, _) in source.text.match_indices(place) {
                // `<spool>/x/` and `$spool/x/` are parts of a longer path.
                let before = source.text[..at].chars().next_back();
                let starts = !place.starts_with('/')
                    || before.is_none_or(|c| c.is_whitespace() || "\"'`(=:,[".contains(c));
                if starts {
                    let message = format_args!("`{place}` is a registry or a place on one machine");
                    complaints.push(source.complaint(at, message));
                }
            }
        }
    }
    complaints
}
