//! The inbox itself renamed, replaced, mounted over or unmounted under the daemon.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::check::Expect;
use crate::drops::scene::{Scene, intent};
use crate::report::{Options, Row, Tally};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "C15",
            what: "the inbox renamed, removed and made anew, replaced by a link",
            run: moved,
        },
        Row {
            id: "C16",
            what: "a filesystem mounted over the inbox and taken away",
            run: overmounted,
        },
        Row { id: "C16-bd", what: "an inbox bound from elsewhere is refused", run: bound },
        Row {
            id: "C16-um",
            what: "the filesystem of the spool unmounted lazily and mounted again",
            run: unmounted,
        },
    ]
}

const LOST: &str = "the inbox is not where it was";
const BACK: &str = "the inbox is back";

/// Mounts that this row has made, taken away in the reverse order when dropped.
#[derive(Default)]
struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// Runs `mount`, whose last argument is the place; `false` where that is not allowed.
    fn mount(&mut self, args: &[&str], at: &Path) -> bool {
        let output = Command::new("mount").args(args).arg(at).output();
        let is_done = output.is_ok_and(|output| output.status.success());
        if is_done {
            self.0.push(at.to_owned());
        }
        is_done
    }

    fn unmount(&mut self, at: &Path) {
        let index = self.0.iter().rposition(|known| known == at).expect("it was mounted here");
        self.0.remove(index);
        assert!(Command::new("umount").arg("-l").arg(at).status().unwrap().success());
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        while let Some(at) = self.0.pop() {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
    }
}

/// How often the daemon has said so.
fn said(scene: &Scene, message: &str) -> usize {
    let message = format!("\"message\":\"{message}\"");
    scene.daemon().log().iter().filter(|line| line.contains(&message)).count()
}

fn good(scene: &mut Scene, name: &str) {
    let name = format!("intent-{name}.json");
    scene.drop(&name, &intent("web", 2, &name), Expect::Admitted);
}

/// Something that happens to the inbox, by name, and how often it has happened before.
type Way = (&'static str, fn(&mut Scene, usize));

fn moved(options: &Options) -> Tally {
    let repeats = if options.full { 20 } else { 2 };
    let ways: [Way; 3] = [("renamed", renamed), ("remade", remade), ("linked", linked)];
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let running = ways.map(|(what, way)| {
            scope.spawn(move || {
                let mut scene = Scene::new("");
                scene.start();
                good(&mut scene, "first");
                for index in 0..repeats {
                    way(&mut scene, index);
                    scene.fired += 1;
                    good(&mut scene, &format!("after-{index}"));
                    scene.rest();
                }
                (what, scene.verdict())
            })
        });
        for part in running {
            let (what, part) = part.join().unwrap();
            tally.add(part, what);
        }
    });
    tally
}

/// Moved away, with a file that is put into it meanwhile, and back.
fn renamed(scene: &mut Scene, index: usize) {
    let (inbox, aside) = (scene.site.inbox(), scene.site.root().join("aside"));
    std::fs::rename(&inbox, &aside).unwrap();
    wait_until("its loss", || said(scene, LOST) > index);
    let name = format!("intent-meanwhile-{index}.json");
    let text = intent("web", 3, &name);
    std::fs::write(aside.join(".tmp"), &text).unwrap();
    std::fs::rename(aside.join(".tmp"), aside.join(&name)).unwrap();
    scene.log.dropped(&name, text, Expect::Admitted);
    std::fs::rename(&aside, &inbox).unwrap();
}

/// Removed and made again, quicker than the daemon looks.
fn remade(scene: &mut Scene, index: usize) {
    scene.rest();
    let inbox = scene.site.inbox();
    std::fs::remove_dir(&inbox).unwrap();
    std::fs::create_dir(&inbox).unwrap();
    // A file that arrives before the new directory is watched.
    good(scene, &format!("early-{index}"));
    wait_until("its return", || said(scene, BACK) > index);
}

/// A link to a directory of somebody else's, whose files must stay where they are.
fn linked(scene: &mut Scene, index: usize) {
    let (inbox, aside) = (scene.site.inbox(), scene.site.root().join("aside"));
    let foreign = scene.site.root().join("foreign");
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("intent-foreign.json"), intent("web", 9, "foreign")).unwrap();
    std::fs::rename(&inbox, &aside).unwrap();
    std::os::unix::fs::symlink(&foreign, &inbox).unwrap();
    wait_until("its loss", || said(scene, LOST) > index);
    scene.daemon().signal(libc::SIGUSR1);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert!(foreign.join("intent-foreign.json").exists(), "a link was followed");
    std::fs::remove_file(&inbox).unwrap();
    std::fs::rename(&aside, &inbox).unwrap();
}

/// Of the same filesystem, and yet nothing could ever be moved out of it.
fn bound(_: &Options) -> Tally {
    let scene = Scene::new("");
    let elsewhere = scene.site.root().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut mounts = Mounts::default();
    let text = elsewhere.display().to_string();
    if !mounts.mount(&["--bind", &text], &scene.site.inbox()) {
        return Tally::skipped("mounting is not allowed here");
    }
    let mut tally = Tally { fired: 1, ..Tally::default() };
    let mut daemon = scene.site.launch(&[]);
    let code = daemon.wait_code();
    tally.require(code == 78, || format!("it ends with {code}: {:#?}", daemon.log()));
    tally
}

fn overmounted(options: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    let inbox = scene.site.inbox();
    let mut mounts = Mounts::default();
    for index in 0..if options.full { 20 } else { 3 } {
        if !mounts.mount(&["-t", "tmpfs", "none"], &inbox) {
            return Tally::skipped("mounting is not allowed here");
        }
        wait_until("its loss", || said(&scene, LOST) > index);
        // What is dropped onto the other filesystem could not be moved: it stays there.
        let name = format!("intent-over-{index}.json");
        std::fs::write(inbox.join(&name), intent("web", 9, &name)).unwrap();
        scene.daemon().signal(libc::SIGUSR1);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(inbox.join(&name).exists(), "taken from another filesystem");
        mounts.unmount(&inbox);
        scene.fired += 1;
        good(&mut scene, &format!("after-{index}"));
        scene.rest();
    }
    scene.verdict()
}

/// The daemon cannot go on: its directories are on a mount that nobody sees any more. It has to
/// say so and end; the next one finds everything.
fn unmounted(options: &Options) -> Tally {
    let root = tempfile::tempdir().unwrap();
    let (seen, kept) = (root.path().join("seen"), root.path().join("kept"));
    for directory in [&seen, &kept] {
        std::fs::create_dir(directory).unwrap();
    }
    let mut mounts = Mounts::default();
    let bind = ["--bind".to_owned(), kept.display().to_string()];
    let bind = bind.each_ref().map(String::as_str);
    if !mounts.mount(&["-t", "tmpfs", "none"], &kept) || !mounts.mount(&bind, &seen) {
        return Tally::skipped("mounting is not allowed here");
    }
    let mut scene = Scene::at(&[&seen, root.path(), root.path()], "");
    let mut tally = Tally::default();
    for index in 0..if options.full { 20 } else { 3 } {
        scene.start();
        good(&mut scene, &format!("before-{index}"));
        scene.rest();
        mounts.unmount(&seen);
        wait_until("its loss", || said(&scene, LOST) > 0);
        scene.fired += 1;
        assert!(mounts.mount(&bind, &seen));
        good(&mut scene, &format!("meanwhile-{index}"));
        let mut daemon = scene.take_daemon();
        let code = daemon.wait_code();
        tally.require(code == 74, || format!("it ends with {code}: {:#?}", daemon.log()));
    }
    scene.start();
    tally.add(scene.verdict(), "unmounted");
    tally
}
