//! The unit, its drop-ins and the accounts and directories around it, judged by systemd's own tools.
//!
//! Nothing is installed and no service is started. Where a tool is missing, its test says so on
//! standard error and ends; the tool is there on every machine that would run the unit.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const NO_LEASE: &str = "no-lease.conf";
const SPOOL: &str = "spool.conf.example";
const NETWORK: &str = "network.conf.example";

/// Every combination that a site may install.
const COMBINATIONS: [&[&str]; 6] =
    [&[], &[NO_LEASE], &[SPOOL], &[NETWORK], &[NO_LEASE, SPOOL], &[NO_LEASE, SPOOL, NETWORK]];

#[test]
fn the_unit_exposes_at_most_1_2_and_0_9_without_the_lease_capability() {
    for drop_ins in COMBINATIONS {
        let threshold = if drop_ins.contains(&NO_LEASE) { 9 } else { 12 };
        let exposed = |threshold: u32| {
            let unit = Unit::with(drop_ins);
            let threshold = format!("--threshold={threshold}");
            unit.analyze(&["security", "--offline=true", "--no-pager", &threshold])
        };
        let Some(output) = exposed(threshold) else { return };
        assert!(output.status.success(), "{drop_ins:?}\n{}", said(&output));
        // The tool does judge: nothing that runs at all scores zero.
        assert!(!exposed(0).is_some_and(|output| output.status.success()));
    }
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    for drop_ins in COMBINATIONS {
        let verify = ["verify", "--recursive-errors=no"];
        let Some(output) = Unit::with(drop_ins).analyze(&verify) else { return };
        let clean = output.status.success() && said(&output).trim().is_empty();
        assert!(clean, "{drop_ins:?}\n{}", said(&output));
    }
}

#[test]
fn the_spool_drop_in_gives_the_unit_its_new_paths() {
    let shipped = |name: &str| fs::read_to_string(shipped(name)).unwrap();
    let unit = shipped("intentd.service");
    let moved = shipped("intentd.service.d/spool.conf.example");
    for key in ["RequiresMountsFor=", "ReadWritePaths="] {
        assert!(
            unit.lines().any(|line| line.starts_with(key) && line.contains("/var/spool/intentd"))
        );
        assert!(moved.lines().any(|line| line == format!("{key}/srv/intents")), "{key}");
    }
    assert!(moved.contains("ReadWritePaths=\nReadWritePaths=/srv/intents"), "the old path stays");
    assert!(moved.contains("Environment=INTENTD_SPOOL=/srv/intents"));
}

#[test]
fn producers_can_write_to_the_inbox_and_neither_list_it_nor_reach_the_ledger() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    if !is_root() {
        return skip("systemd-tmpfiles", "giving directories to other users takes root");
    }
    let at_root = format!("--root={}", root.path().display());
    for (tool, create, file) in [
        ("systemd-sysusers", None, "sysusers.d/intentd.conf"),
        ("systemd-tmpfiles", Some("--create"), "tmpfiles.d/intentd.conf"),
    ] {
        let mut command = Command::new(tool);
        command.arg(&at_root).args(create).arg(shipped(file));
        let Ok(output) = command.output() else { return skip(tool, "not installed") };
        assert!(output.status.success(), "{tool}\n{}", said(&output));
    }

    let group = fs::read_to_string(root.path().join("etc/group")).unwrap();
    let member = group.lines().find(|line| line.starts_with("intent-drop:")).unwrap();
    assert!(member.ends_with(":intentd"), "the service reads what producers drop: {member}");
    let ids = |name: &str| -> u32 {
        let line = group.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    };
    let (own, drop) = (ids("intentd"), ids("intent-drop"));
    for (path, mode, gid) in [
        ("var/spool/intentd", 0o755, own),
        ("var/spool/intentd/inbox", 0o3730, drop),
        ("var/spool/intentd/work", 0o700, own),
        ("var/spool/intentd/processed", 0o2750, drop),
        ("var/spool/intentd/failed", 0o2750, drop),
        ("var/spool/intentd/status", 0o2750, drop),
        ("var/spool/intentd/packages", 0o755, own),
        ("var/lib/intentd", 0o750, own),
        ("etc/intentd/conf.d", 0o750, own),
    ] {
        let about = fs::metadata(root.path().join(path)).unwrap();
        let mode_found = about.permissions().mode() & 0o7777;
        assert_eq!((mode_found, about.gid()), (mode, gid), "{path}: {mode_found:o}");
    }
}

/// A copy of the shipped unit that starts the binary under test.
struct Unit {
    directory: TempDir,
}

impl Unit {
    fn with(drop_ins: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(shipped("intentd.service")).unwrap();
        let installed = "ExecStart=/usr/bin/intentd ";
        assert!(text.contains(installed));
        let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_intentd"));
        fs::write(directory.path().join("intentd.service"), text.replace(installed, &built))
            .unwrap();
        let beside = directory.path().join("intentd.service.d");
        fs::create_dir(&beside).unwrap();
        for name in drop_ins {
            let active = beside.join(name.trim_end_matches(".example"));
            fs::copy(shipped(&format!("intentd.service.d/{name}")), active).unwrap();
        }
        Unit { directory }
    }

    /// `None`, and a word about it, where systemd is not installed.
    fn analyze(&self, args: &[&str]) -> Option<Output> {
        let mut command = Command::new("systemd-analyze");
        command.env("SYSTEMD_COLORS", "0").args(args);
        let output = command.arg(self.directory.path().join("intentd.service")).output().ok();
        if output.is_none() {
            skip("systemd-analyze", "not installed");
        }
        output
    }
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

fn skip(tool: &str, why: &str) {
    eprintln!("SKIPPED, {tool}: {why}");
}
