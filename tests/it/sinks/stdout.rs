//! The stdout sink.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use intentd::model::Code;
use intentd::sink::Retry;
use intentd::sink::stdout::{Format, Stdout};
use serde_json::Value;

use super::{Subject, deliver, done, failed, holds_the_contract, job};

fn read(mut file: &File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn pipe() -> (File, File) {
    let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    (File::from(reader), File::from(writer))
}

/// Fills a pipe, so that nothing more can be written until somebody reads.
fn fill(mut writer: &File) {
    rustix::io::ioctl_fionbio(writer, true).unwrap();
    let stopped = loop {
        if let Err(error) = writer.write(&[b'x'; 4096]) {
            break error;
        }
    };
    assert_eq!(stopped.kind(), io::ErrorKind::WouldBlock);
    rustix::io::ioctl_fionbio(writer, false).unwrap();
}

#[test]
fn standard_output_holds_the_contract() {
    holds_the_contract("stdout", || {
        let (reader, writer) = pipe();
        let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let from = reader.try_clone().unwrap();
        rustix::io::ioctl_fionbio(&from, true).unwrap();
        let to = writer.try_clone().unwrap();
        Subject {
            sink: Box::new(Stdout::new("stdout".to_owned(), Format::Yaml, writer)),
            // A reader that applies what it reads: the same document again changes nothing.
            visible: Box::new(move || {
                let mut bytes = Vec::new();
                let _ = (&from).read_to_end(&mut bytes);
                let text = String::from_utf8(bytes).unwrap();
                seen.borrow_mut().extend(text.split("---\n").map(str::to_owned));
                seen.borrow_mut().remove("");
                seen.borrow().iter().cloned().collect()
            }),
            stall: Box::new(move || {
                fill(&to);
                Box::new(reader.try_clone().unwrap())
            }),
        }
    });
}

#[track_caller]
fn check(format: Format, expected: &str) {
    let file = tempfile::tempfile().unwrap();
    let mut sink = Stdout::new("stdout".to_owned(), format, file.try_clone().unwrap());
    let answers = deliver(&mut sink, &[&job("a", 3), &job("b", 4)]);
    assert_eq!(
        answers.iter().map(|answer| done(answer).location.as_str()).collect::<Vec<_>>(),
        ["-", "-"]
    );
    assert_eq!(read(&file), expected);
}

#[test]
fn resources_are_printed_as_documents_or_lines_and_nothing_else_is() {
    let document = |name: &str, replicas: u32| {
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  \
             namespace: ran-a\n  annotations:\n    \
             client.lifecycle.config.k8s.io/deletion: detach\nspec:\n  replicas: {replicas}\n"
        )
    };
    check(Format::Yaml, &format!("{}{}", document("a", 3), document("b", 4)));
    let line = |name: &str, replicas: u32| {
        let annotations = "{\"client.lifecycle.config.k8s.io/deletion\":\"detach\"}";
        format!(
            "{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{{\
             \"annotations\":{annotations},\"name\":\"{name}\",\"namespace\":\"ran-a\"}},\
             \"spec\":{{\"replicas\":{replicas}}}}}\n"
        )
    };
    check(Format::Json, &format!("{}{}", line("a", 3), line("b", 4)));
    for line in line("a", 3).lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[test]
fn a_reader_that_left_is_told_and_not_tried_again() {
    let (reader, writer) = pipe();
    drop(reader);
    let mut sink = Stdout::new("stdout".to_owned(), Format::Yaml, writer);
    let answers = deliver(&mut sink, &[&job("a", 3)]);
    let message = failed(&answers[0], Code::SinkUnavailable, Retry::Never);
    assert_eq!(message, "nobody reads standard output any more");
}

#[test]
fn a_full_disk_is_tried_again() {
    if !Path::new("/dev/full").exists() {
        crate::compose::skipped("there is no /dev/full");
        return;
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut sink = Stdout::new("stdout".to_owned(), Format::Yaml, full);
    let answers = deliver(&mut sink, &[&job("a", 3)]);
    let message = failed(&answers[0], Code::SinkUnavailable, Retry::Later);
    assert!(message.starts_with("standard output cannot be written: "), "{message}");
}
