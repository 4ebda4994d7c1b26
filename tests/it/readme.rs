//! What the README says about codes, keys and tests, held against the code.

use std::fs;
use std::path::Path;

use intentd::model::Code;

#[test]
fn the_readme_lists_every_code_as_the_code_has_it() {
    let mut table = "| code | what has happened | what to do |\n|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let cells = [code.title(), code.remedy()].map(|text| text.replace('|', "\\|"));
        table += &format!("| `{code}` | {} | {} |\n", cells[0], cells[1]);
    }
    let readme = read("README.md");
    let found = between(&readme, "<!-- codes:begin -->\n", "<!-- codes:end -->");
    assert!(found == table, "put this between the markers in README.md:\n\n{table}");
}

#[test]
fn the_readme_has_the_table_of_all_keys() {
    let table = intentd::config::markdown_table();
    let readme = read("README.md");
    let found = between(&readme, "<!-- config:begin -->\n", "<!-- config:end -->");
    assert!(found == table, "put this between the markers in README.md:\n\n{table}");
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let readme = read("README.md");
    let mut missing = Vec::new();
    let mut named = 0;
    for (at, _) in readme.match_indices("`tests/it/") {
        let reference = readme[at + 1..].split('`').next().expect("split yields at least one part");
        let Some((file, name)) = reference.split_once("::") else { continue };
        named += 1;
        let declared = format!("fn {name}(");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if !fs::read_to_string(path).is_ok_and(|text| text.contains(&declared)) {
            missing.push(reference);
        }
    }
    assert!(named > 0, "the README names no test");
    assert!(missing.is_empty(), "\nno such test:\n{}\n", missing.join("\n"));
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a readable file")
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let from = text.find(begin).expect("the begin marker") + begin.len();
    &text[from..][..text[from..].find(end).expect("the end marker")]
}
