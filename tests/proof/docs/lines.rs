//! Names and texts that try to forge a line of a log, a record or a table.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use intentd::model::{FileName, is_refused};
use serde_json::{Value, json};

use crate::check::{Expect, Log, check};
use crate::report::{Options, Random, Tally};
use crate::support::Site;

/// Files with names and texts of their own each.
const FILES: usize = 300;
const FILES_FULL: usize = 10_000;

/// Pieces of names: each would end a line, a string or a field somewhere, or move a cursor.
const PIECES: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\t",
    b"\x1b[2J",
    b"\x1b]0;t\x07",
    b"\x9b1m",
    b"\x7f",
    b"\x08",
    b"\"",
    b"\\",
    b"\\n",
    b"'",
    b"{",
    b"}",
    b"\",\"message\":\"forged\"",
    b"\n{\"message\":\"forged\"}",
    b"\nINFO forged",
    b" level=error",
    b"=",
    b"%s",
    b"%n",
    b"$(id)",
    b"`id`",
    b"\xff",
    b"\xc3\x28",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xae",
    b"{{.}}",
    b"<script>",
    b";",
    b"|",
    b"\xf0\x9f\x98\x80",
];

pub fn forged(options: &Options) -> Tally {
    let site = Site::new();
    let (mut log, mut tally) = (Log::default(), Tally::default());
    let mut random = Random::new(options.seed);
    let count = if options.full { FILES_FULL } else { FILES };
    for index in 0..count {
        let mut name = format!("intent-{index}-").into_bytes();
        for _ in 0..=random.below(4) {
            name.extend_from_slice(PIECES[random.below(PIECES.len() as u64) as usize]);
        }
        // Every third is well named, and hostile in what it says.
        let proper = index % 3 == 0;
        if proper {
            name = format!("intent-{index}").into_bytes();
        }
        name.extend_from_slice(b".json");
        let text = json!({
            "intent_type": "scaling", "target": format!("t{index}"), "namespace": "default",
            "replicas": 3, "reason": "a\nINFO forged\t\"}{", "correlation_id": format!("\",\"message\":\"forged{index}"),
            "constraints": {(format!("k\"}}{index}")): "\\\"message\":\"forged"},
        })
        .to_string();
        std::fs::write(site.inbox().join(OsStr::from_bytes(&name)), &text).unwrap();
        let file = json!(FileName::new(name));
        let expect = if proper { Expect::Admitted } else { Expect::Rejected("BAD_NAME") };
        log.dropped(file.as_str().unwrap(), text, expect);
        tally.fired += 1;
    }
    let run = ["batch", "-o", "jsonl", "--log-format", "json", "--log-level", "debug", "-q"];
    let batch = site.run(&run);
    tally.require(batch.code == Some(1), || format!("batch ends with {:?}", batch.code));
    log.told_by_output(&batch.stdout);
    tally.acked += log.told.len() as u64;
    tally.require(batch.stdout.lines().count() == count, || "a line of its own each".to_owned());
    logged(&batch.stderr, &mut tally);
    for output in ["table", "wide", "jsonl", "yaml", "name"] {
        let shown = site.run(&["history", "-o", output, "--limit", &count.to_string()]);
        // YAML has no escapes in plain text, and takes what only changes the direction of text.
        let refused = if output == "yaml" { char::is_control } else { is_refused };
        let stray = |char: char| char != '\n' && refused(char);
        let stray = shown.stdout.chars().find(|char| stray(*char));
        tally.require(stray.is_none(), || format!("history -o {output} prints {stray:?}"));
        if output != "yaml" {
            let lines = shown.stdout.lines().count();
            let heads = usize::from(matches!(output, "table" | "wide"));
            tally.require(lines == count + heads, || {
                format!("history -o {output} has {lines} lines of {count} records")
            });
        }
    }
    for violation in check(&site, &log) {
        tally.violation(violation);
    }
    tally
}

/// Each line of the log is one object, whose message is ours.
fn logged(stderr: &str, tally: &mut Tally) {
    let mut lines = 0;
    for line in stderr.lines() {
        lines += 1;
        let Ok(Value::Object(event)) = serde_json::from_str(line) else {
            tally.violation(format!("a line of the log is no object: {line:?}"));
            continue;
        };
        let message = event["message"].as_str().unwrap_or_default();
        tally.require(!message.is_empty() && !message.contains("forged"), || {
            format!("a message of the log is not ours: {line}")
        });
        tally.require(!line.contains(char::is_control), || {
            format!("a line of the log has a control character: {line:?}")
        });
    }
    tally.notes.push(format!("{lines} lines of log"));
}
