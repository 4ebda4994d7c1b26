//! Files that are not what a producer should drop: links, FIFOs, giants, empty ones, odd names.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::check::Expect;
use crate::drops::scene::{Scene, intent, memory_peak, shown};
use crate::report::{Options, Row, Tally};
use crate::support::wait_until;

/// The largest document, unless configured otherwise.
const LARGEST: usize = 1 << 20;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "C2",
            what: "FIFOs, sockets, devices and directories named as intents",
            run: specials,
        },
        Row { id: "C3", what: "a second name that stays, and one that goes", run: links },
        Row { id: "C4", what: "1 TiB sparse, at the limit, past it, growing", run: sizes },
        Row { id: "C5", what: "empty and blank files, and such as are filled later", run: blanks },
        Row { id: "C10", what: "files deleted as soon as they are there", run: vanishing },
        Row { id: "C11", what: "names that would break out of a log or a command", run: names },
        Row { id: "C12", what: "names that are left alone", run: ignored },
        Row { id: "C23", what: "times of 1970, 2038, 2106 and of the future", run: times },
        Row { id: "C24", what: "files that may not be read", run: unreadable },
    ]
}

fn specials(_: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    let mut sockets = Vec::new();
    let mut refused = Vec::new();
    for index in 0..25 {
        let name = |kind| format!("intent-{kind}-{index}.json");
        let at = |kind| scene.at_inbox(name(kind));
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).unwrap();
        sockets.push(UnixListener::bind(at("socket")).unwrap());
        std::fs::create_dir(at("directory")).unwrap();
        refused.extend([name("fifo"), name("socket")]);
        // Only root makes devices.
        let null = makedev(1, 3);
        if mknodat(CWD, at("device"), FileType::CharacterDevice, mode, null).is_ok() {
            refused.push(name("device"));
        }
    }
    for name in refused {
        scene.fired += 1;
        scene.log.dropped(&name, "", Expect::Rejected("NOT_A_FILE"));
    }
    scene.drop("intent-good.json", &intent("good", 2, "good"), Expect::Admitted);
    // The good one is behind all of them; whoever opened a FIFO to wait for a writer would hang.
    wait_until("everything but the directories", || {
        scene.site.names("status").len() == scene.log.drops.len()
            && scene.site.names("work").is_empty()
    });
    let left = scene.site.names("inbox");
    let mut tally = Tally::default();
    tally.require(left.len() == 25, || format!("not only the directories are left: {left:?}"));
    for name in left {
        scene.fired += 1;
        std::fs::remove_dir(scene.at_inbox(name)).unwrap();
    }
    tally.add(scene.verdict(), "specials");
    tally
}

fn links(_: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    for index in 0..25 {
        for kind in ["stays", "goes"] {
            let first = scene.site.root().join(format!("{kind}-{index}"));
            let text = intent(&format!("t{index}"), 2, &format!("{kind}-{index}"));
            std::fs::write(&first, &text).unwrap();
            let name = format!("intent-{kind}-{index}.json");
            std::fs::hard_link(&first, scene.at_inbox(&name)).unwrap();
            let expect = match kind {
                "stays" => Expect::Rejected("HARD_LINK"),
                _ => Expect::Admitted,
            };
            scene.log.dropped(&name, text, expect);
            scene.fired += 1;
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let mut tally = Tally::default();
    let early = scene.site.names("status");
    tally.require(early.is_empty(), || format!("decided within the grace: {early:?}"));
    for index in 0..25 {
        std::fs::remove_file(scene.site.root().join(format!("goes-{index}"))).unwrap();
    }
    tally.add(scene.verdict(), "links");
    tally
}

fn sizes(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    let count = if options.full { 25 } else { 2 };
    let padded = |length: usize, id: &str| {
        let text = intent("web", 2, id);
        let spaces = length - text.len();
        text + &" ".repeat(spaces)
    };
    let before = memory_peak(scene.daemon().pid());
    for index in 0..count {
        let name = |kind| format!("intent-{kind}-{index}.json");
        let sparse = scene.at_inbox(format!(".sparse-{index}"));
        File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
        std::fs::rename(sparse, scene.at_inbox(name("sparse"))).unwrap();
        scene.log.dropped(&name("sparse"), "", Expect::Rejected("TOO_LARGE"));
        let id = format!("size-{index}");
        scene.drop(&name("largest"), &padded(LARGEST, &id), Expect::Admitted);
        let over = padded(LARGEST + 1, &id);
        scene.drop(&name("over"), &over, Expect::Rejected("TOO_LARGE"));
        // Within the limit when it is first seen, far above when its writer lets go.
        let mut growing = File::create(scene.at_inbox(name("growing"))).unwrap();
        let part = vec![b' '; LARGEST / 2];
        for _ in 0..3 {
            growing.write_all(&part).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        scene.log.dropped(&name("growing"), part.repeat(3), Expect::Rejected("TOO_LARGE"));
        scene.fired += 4;
    }
    scene.rest();
    let grown = memory_peak(scene.daemon().pid()).saturating_sub(before);
    let mut tally = scene.verdict();
    // What may be in flight at once, and as much again for what is made of it.
    let bound = 2 * intentd::limits::IN_FLIGHT_BYTES_MAX as u64;
    tally.require(grown <= bound, || format!("memory grew by {grown} bytes"));
    tally.notes.push(format!(
        "memory grew by {} KiB, the bound is {} KiB",
        grown >> 10,
        bound >> 10
    ));
    tally
}

fn blanks(_: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    for index in 0..50 {
        let text = ["", " ", "\n\t \r\n"][index % 3];
        scene.drop(&format!("intent-{index}.json"), text, Expect::Rejected("EMPTY"));
        scene.fired += 1;
        // The proper use of the grace: touch, then write.
        if index < 10 {
            File::create(scene.at_inbox(format!("intent-late-{index}.json"))).unwrap();
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    for index in 0..10 {
        let name = format!("intent-late-{index}.json");
        let text = intent("late", 2, &name);
        let mut file = OpenOptions::new().write(true).open(scene.at_inbox(&name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        drop(file);
        scene.log.dropped(&name, text, Expect::Admitted);
    }
    scene.verdict()
}

fn vanishing(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    let mut gone = 0;
    for index in 0..if options.full { 10_000 } else { 1_000 } {
        let name = format!("intent-{index}.json");
        let text = intent("web", 1 + index % 100, &name);
        scene.site.drop_file(&name, &text);
        // Every other producer takes longer to change its mind.
        for _ in 0..(index % 2) * (index % 64) {
            std::thread::yield_now();
        }
        match std::fs::remove_file(scene.at_inbox(&name)) {
            Ok(()) => {
                gone += 1;
                scene.dropped_in_vain(&name, &text);
            }
            // Claimed already: then it has its outcome.
            Err(_) => scene.log.dropped(&name, text, Expect::Admitted),
        }
    }
    scene.fired = gone;
    let mut tally = scene.verdict();
    tally.notes.push(format!("{gone} were gone before they were claimed"));
    tally
}

/// Taken by their patterns; whether each is proper is said, too.
const NAMES: [(&[u8], bool); 20] = [
    (b"intent-a\nb.json", false),
    (b"intent-\x1b]0;owned\x07.json", false),
    (b"intent-\x1b[2J.json", false),
    (b"intent-\x08\x08.json", false),
    (b"intent-\r.json", false),
    (b"intent-\xff\xfe.json", false),
    (b"intent-\xc2\x9b31m.json", false),
    (b"intent-\xe2\x80\xae.json", false),
    (b"intent-$(id).json", false),
    (b"intent-`id`.json", false),
    (b"intent-;id;.json", false),
    (b"intent-|id.json", false),
    (b"intent-%00.json", false),
    (b"intent-%s%n.json", false),
    (b"intent-{}.json", false),
    (b"intent-\\x1b.json", false),
    (b"intent-..json", false),
    (b"-rf.intent.json", true),
    (b"--config=x.intent.json", false),
    (b"intent--rf.json", true),
];

fn names(_: &Options) -> Tally {
    let mut scene = Scene::new("");
    let run = scene.site.command(&["run", "--log-format", "text", "--log-level", "debug"]);
    let daemon = crate::support::Daemon::from(run);
    wait_until("ready", || daemon.log().iter().any(|line| line.contains("ready")));
    for (index, (name, is_proper)) in NAMES.into_iter().enumerate() {
        let text = intent("web", 2, &format!("name-{index}"));
        let path = scene.at_inbox(".name");
        std::fs::write(&path, &text).unwrap();
        std::fs::rename(&path, scene.at_inbox(OsStr::from_bytes(name))).unwrap();
        let expect = if is_proper { Expect::Admitted } else { Expect::Rejected("BAD_NAME") };
        scene.log.dropped(&shown(name), text, expect);
        scene.fired += 1;
    }
    scene.rest();
    let (code, log) = daemon.stop();
    let mut tally = Tally::default();
    tally.require(code == Some(0), || format!("the daemon ends with {code:?}"));
    for line in &log {
        let is_raw = line.chars().any(|char| char.is_control() || char == '\u{202e}');
        tally.require(!is_raw, || format!("a log line is not escaped: {line:?}"));
    }
    // A name with a newline would end a line early: then one begins with no time.
    for line in log.iter().filter(|line| !line.starts_with("20")) {
        tally.violation(format!("a log line of somebody else's: {line:?}"));
    }
    scene.start();
    tally.add(scene.verdict(), "names");
    tally
}

fn ignored(_: &Options) -> Tally {
    let mut scene = Scene::new("[watch]\nrescan = \"1s\"\n");
    scene.start();
    let left = [
        ".intent-a.json",
        "intent-a.json.tmp",
        "intent-a.json~",
        "intent-a.json.swp",
        "intent-a.json.part",
        "INTENT-A.JSON",
        "intent-a",
        "a.json",
        "notes.txt",
        "intent-a.yaml",
    ];
    for name in left {
        std::fs::write(scene.at_inbox(name), intent("web", 2, name)).unwrap();
        scene.fired += 1;
    }
    // By then the inbox has been listed anew, once because of the signal and once by the clock.
    scene.daemon().signal(libc::SIGUSR1);
    std::thread::sleep(Duration::from_millis(1200));
    for index in 0..3 {
        let name = format!("intent-good-{index}.json");
        scene.drop(&name, &intent("web", 3, &name), Expect::Admitted);
    }
    wait_until("the good ones", || scene.site.names("status").len() == 3);
    let mut tally = Tally::default();
    for name in left {
        let gone = std::fs::remove_file(scene.at_inbox(name)).is_err();
        tally.require(!gone, || format!("`{name}` was not left alone"));
    }
    tally.add(scene.verdict(), "ignored");
    tally
}

fn times(_: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    let year = 31_556_952;
    let seconds =
        [0, -1, (1_i64 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 100 * year, 400 * year];
    for lease in ["", "[settle]\nlease = false\nquiet = \"50ms\"\n"] {
        if !lease.is_empty() {
            scene.take_daemon().stop();
            scene.site.configure(lease);
            scene.start();
        }
        for (index, seconds) in seconds.into_iter().enumerate() {
            let name = format!("intent-{}-{index}.json", lease.len());
            let text = intent("web", 2, &name);
            let path = scene.at_inbox(format!(".{index}"));
            std::fs::write(&path, &text).unwrap();
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
            std::fs::rename(path, scene.at_inbox(&name)).unwrap();
            scene.log.dropped(&name, text, Expect::Admitted);
            scene.fired += 1;
        }
        scene.rest();
    }
    scene.verdict()
}

/// An account that owns nothing.
const NOBODY: u32 = 65534;

fn unreadable(_: &Options) -> Tally {
    if !rustix::process::geteuid().is_root() {
        return Tally::skipped("only root can drop files that the daemon may not read");
    }
    let mut scene = Scene::new("[watch]\nrescan = \"1s\"\n");
    for directory in [scene.site.root().to_owned(), scene.site.spool(), scene.site.inbox()] {
        chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let command = as_nobody(&scene);
    scene.start_as(command);
    for index in 0..30 {
        let name = format!("intent-{index}.json");
        let path = scene.at_inbox(format!(".{index}"));
        let text = intent("web", 2, &name);
        std::fs::write(&path, &text).unwrap();
        let (owner, mode) = [(NOBODY, 0o000), (0, 0o600), (1234, 0o640)][index % 3];
        chown(&path, Some(owner), Some(owner)).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        std::fs::rename(path, scene.at_inbox(&name)).unwrap();
        scene.log.dropped(&name, text, Expect::Rejected("UNREADABLE"));
        scene.fired += 1;
    }
    scene.rest();
    // Refused once, not tried again and again: a turn of two rescans says nothing more about them.
    let before = scene.daemon().log().len();
    std::thread::sleep(Duration::from_millis(2100));
    let more = scene.daemon().log().len() - before;
    let mut tally = Tally::default();
    tally.require(more <= 1, || format!("{more} more log lines about nothing new"));
    tally.add(scene.verdict(), "unreadable");
    tally
}

/// The daemon as somebody without rights, from a place that anybody can reach.
fn as_nobody(scene: &Scene) -> Command {
    let run = scene.site.command(&["run", "--log-format", "json"]);
    let program = scene.site.root().join("intentd");
    std::fs::copy(run.get_program(), &program).unwrap();
    let mut command = Command::new::<&Path>(&program);
    command.env_clear().args(run.get_args()).uid(NOBODY).gid(NOBODY);
    command
}

/// Symbolic links of all kinds to something outside and to the inbox itself.
pub fn drop_symlinks(scene: &mut Scene, outside: &Path, count: usize) {
    std::fs::write(scene.at_inbox("notes.txt"), "left alone").unwrap();
    for index in 0..count {
        let name = format!("intent-{index}.json");
        let to = match index % 6 {
            0 => outside.to_owned(),
            1 => "notes.txt".into(),
            2 => scene.site.root().to_owned(),
            3 => name.clone().into(),
            4 => "/nowhere/at/all".into(),
            _ => "../../secret".into(),
        };
        symlink(to, scene.at_inbox(&name)).unwrap();
        scene.log.dropped(&name, "", Expect::Rejected("SYMLINK"));
        scene.fired += 1;
    }
}
