//! Whoever may read the ledger can do so, whatever the daemon does.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::report::{Options, Tally};
use crate::support::{Finished, Site, scaling};

/// The reading group, and a user who is nobody but for it.
const GROUP: u32 = 64_999;
const READER: u32 = 64_998;

/// `history` of another user of the reading group equals that of the owner.
pub fn another_user(_: &Options) -> Tally {
    if !rustix::process::geteuid().is_root() {
        return Tally::skipped("becoming another user takes root");
    }
    let mut tally = Tally::default();
    let site = Site::new();
    // The state directory as the service has it: of the reading group, which may not write.
    std::fs::create_dir(site.state()).unwrap();
    open_to_group(site.root(), 0o750);
    open_to_group(&site.state(), 0o2750);
    std::os::unix::fs::chown(site.root().join("intentd.toml"), None, Some(GROUP)).unwrap();
    let daemon = site.start();
    site.drop_file("intent-a.json", &scaling("web", 2));
    let expected = site.wait_for_records(1);
    let mut look = |when: &str| {
        let shown = history(&site, GROUP);
        tally.fired += 1;
        tally.acked += 1;
        tally.require(shown.code == Some(0) && shown.jsonl() == expected, || {
            format!("{when}: {:?} {}", shown.code, shown.stderr)
        });
    };
    look("running");
    daemon.signal(libc::SIGSTOP);
    look("hung");
    daemon.signal(libc::SIGCONT);
    daemon.kill();
    look("killed");
    site.start().stop();
    look("stopped");
    let stranger = history(&site, READER);
    tally.require(stranger.code != Some(0), || "a stranger reads the ledger".to_owned());
    tally
}

fn open_to_group(path: &Path, mode: u32) {
    std::os::unix::fs::chown(path, None, Some(GROUP)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn history(site: &Site, group: u32) -> Finished {
    let mut command = site.command(&["history", "-o", "jsonl"]);
    // Setting the user drops the supplementary groups as well.
    command.uid(READER).gid(group);
    Finished::from(command.output().expect("the binary starts"))
}
