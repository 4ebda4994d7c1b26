//! The simulated producers: renames, slow writers, blank files, second links, links, rewrites.

use intentd::model::{Digest, FileKind, Intent};

use super::disk::{Dir, Text};
use super::world::{Document, World};

/// One file that a producer drops, and what may be expected of it.
#[derive(Debug)]
pub struct Drop {
    pub name: Vec<u8>,
    pub document: usize,
    len: u64,
    synced: bool,
    pub ino: Option<usize>,
    /// The producer has let go of it.
    pub done: bool,
    pub durable: bool,
    /// Anything may become of it: its producer died, waited past a grace, or had its file replaced.
    pub loose: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Outside of the inbox, whole.
    Prepare,
    RenameIn,
    LinkIn,
    Unlink,
    OpenIn(Text),
    Reopen,
    Close(Text),
    Symlink,
    Sync,
}

/// Plans all that producers will do.
pub fn plan(world: &mut World) {
    let targets = 1 + world.dice.below(4);
    let count = 3 + world.dice.below(16);
    let heavy = world.one_in(4);
    for index in 0..count {
        let document = if index > 0 && world.one_in(4) {
            world.dice.below(world.documents.len() as u64) as usize
        } else {
            let fresh = document(world, index, targets);
            world.documents.push(fresh);
            world.documents.len() - 1
        };
        let names = if world.one_in(2) { 3 } else { count };
        let name = format!("intent-{}.json", world.dice.below(names)).into_bytes();
        let len =
            if heavy { (1 + world.dice.below(12)) << 20 } else { 100 + world.dice.below(900) };
        let synced = world.one_in(2);
        let drop = Drop {
            name,
            document,
            len,
            synced,
            ino: None,
            done: false,
            durable: false,
            loose: false,
        };
        world.drops.push(drop);
        let at = world.now + world.dice.below(8_000_000) / [1, 50][world.dice.below(2) as usize];
        plan_one(world, index as usize, at);
    }
}

fn plan_one(world: &mut World, drop: usize, at: u64) {
    let whole = Text::Whole(world.drops[drop].document);
    let pause = 1 + world.dice.below(120_000);
    let mut acts = Vec::new();
    match world.dice.below(12) {
        0 => {
            acts.extend([(0, Act::OpenIn(Text::Part)), (pause, Act::Close(whole)), (1, Act::Sync)]);
        }
        1 => {
            let blank = Act::OpenIn(Text::Blank);
            let wait = world.dice.below(4_000_000);
            world.drops[drop].loose = wait > 1_500_000;
            acts.extend([(0, blank), (1, Act::Close(Text::Blank)), (wait, Act::Reopen)]);
            acts.extend([(pause, Act::Close(whole)), (1, Act::Sync)]);
        }
        2 => {
            let wait = world.dice.below(8_000_000);
            world.drops[drop].loose = wait > 4_500_000;
            acts.extend([
                (0, Act::Prepare),
                (pause, Act::LinkIn),
                (wait, Act::Unlink),
                (1, Act::Sync),
            ]);
        }
        3 => acts.extend([(0, Act::Symlink), (1, Act::Sync)]),
        4 => acts.extend([
            (0, Act::OpenIn(Text::Part)),
            (pause, Act::Close(Text::Part)),
            (1, Act::Sync),
        ]),
        _ => acts.extend([(0, Act::Prepare), (pause, Act::RenameIn), (1, Act::Sync)]),
    }
    let mut due = at;
    for (wait, act) in acts {
        due += wait;
        world.next_id += 1;
        world.acts.insert((due, world.next_id), (drop, act));
    }
}

fn document(world: &mut World, index: u64, targets: u64) -> Document {
    let kind = ["scaling", "scaling", "scaling", "deployment", "configuration"]
        [world.dice.below(5) as usize];
    let priority = if world.one_in(3) { world.dice.below(11) } else { 5 };
    let text = format!(
        r#"{{"intent_type":"{kind}","target":"t{}","namespace":"ns","replicas":{},"correlation_id":"c{index}","priority":{priority}}}"#,
        world.dice.below(targets),
        1 + world.dice.below(9),
    );
    let intent: Intent = serde_json::from_str(&text).expect("the text is an intent");
    Document {
        intent,
        digest: Digest::of(text.as_bytes()),
        bytes: text.into_bytes(),
        valid: world.dice.below(8) > 0,
        poison: world.one_in(10),
    }
}

/// Does what a producer does next.
pub fn act(world: &mut World, index: usize, act: Act) {
    let Drop { name, document, len, synced, ino, .. } = &world.drops[index];
    let (name, whole, len, synced, ino) =
        (name.clone(), Text::Whole(*document), *len, *synced, *ino);
    let inbox = (Dir::Inbox, name.clone());
    let ns = world.wall_ns();
    world.trace(|| format!("drop {index} {}: {act:?}", String::from_utf8_lossy(&name)));
    match act {
        Act::Prepare => {
            let made = world.disk.create((Dir::Outside, index.to_string().into()), whole, len, ns);
            world.disk.inodes[made].dirty = !synced;
            world.drops[index].ino = Some(made);
        }
        Act::RenameIn | Act::LinkIn => {
            let Some(ino) = ino else { return };
            if matches!(act, Act::LinkIn) {
                if world.disk.at(&inbox).is_some() {
                    return cancel(world, index);
                }
                world.disk.inodes[ino].links = 2;
            }
            if let Some(replaced) = world.disk.put(ino, inbox) {
                loosen(world, replaced);
            }
            world.disk.inodes[ino].changed_ns = ns;
            world.drops[index].done = matches!(act, Act::RenameIn);
            world.hint(&name);
        }
        Act::Unlink => {
            let Some(ino) = ino else { return };
            world.disk.inodes[ino].links = 1;
            world.disk.inodes[ino].changed_ns = ns;
            world.drops[index].done = true;
        }
        Act::OpenIn(text) | Act::Close(text) if matches!(act, Act::OpenIn(_)) => {
            if world.disk.at(&inbox).is_some() {
                return cancel(world, index);
            }
            let made = world.disk.create(inbox, text, len, ns);
            world.disk.inodes[made].writers = 1;
            world.drops[index].ino = Some(made);
            world.hint(&name);
        }
        Act::Reopen => match ino {
            Some(ino) if world.disk.at(&inbox) == Some(ino) => world.disk.inodes[ino].writers = 1,
            // Taken as it was; the producer gives up.
            _ => cancel(world, index),
        },
        Act::OpenIn(text) | Act::Close(text) => {
            let Some(ino) = ino else { return };
            let inode = &mut world.disk.inodes[ino];
            (inode.writers, inode.text, inode.changed_ns) = (0, text, ns);
            inode.dirty = !synced;
            world.drops[index].done = text != Text::Blank;
            world.hint(&name);
        }
        Act::Symlink => {
            if world.disk.at(&inbox).is_some() {
                return cancel(world, index);
            }
            let made = world.disk.create(inbox, Text::Blank, 1, ns);
            world.disk.inodes[made].kind = FileKind::Symlink;
            world.disk.inodes[made].dirty = false;
            world.drops[index].ino = Some(made);
            world.drops[index].done = true;
            world.hint(&name);
        }
        Act::Sync => {
            if synced && ino.is_some() {
                world.disk.sync_dir(Dir::Inbox);
                world.drops[index].durable = true;
            }
        }
    }
}

fn loosen(world: &mut World, ino: usize) {
    world.drops.iter_mut().filter(|drop| drop.ino == Some(ino)).for_each(|drop| drop.loose = true);
}

/// Gives up on a drop: nothing more will be done for it.
pub fn cancel(world: &mut World, index: usize) {
    world.drops[index].loose = true;
    world.acts.retain(|_, (drop, _)| *drop != index);
    if let Some(ino) = world.drops[index].ino {
        world.disk.inodes[ino].writers = 0;
    }
}

/// A power cut ends the producers in the middle of what they do.
pub fn power_cut(world: &mut World) {
    for index in 0..world.drops.len() {
        let drop = &world.drops[index];
        if drop.ino.is_some() && !drop.done {
            cancel(world, index);
        } else if drop.done && !drop.durable {
            world.drops[index].loose = true;
        }
    }
}
