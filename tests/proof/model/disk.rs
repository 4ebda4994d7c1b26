//! The simulated spool: names and contents, what of them is on the disk, and what a power cut takes.

use std::collections::BTreeMap;

use intentd::model::{FileKind, FileName, Fingerprint, Outcome, Seq, Sighting};

use crate::report::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dir {
    Outside,
    Inbox,
    Work,
    Processed,
    Failed,
    Status,
}

pub type Place = (Dir, Vec<u8>);

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Blank,
    Part,
    Whole(usize),
    /// The length survived a power cut and the bytes did not.
    Zeroes,
    /// A reason or a status.
    Told(Seq, Outcome),
}

#[derive(Debug)]
pub struct Inode {
    pub text: Text,
    pub dirty: bool,
    pub writers: u32,
    pub links: u32,
    pub kind: FileKind,
    pub len: u64,
    pub changed_ns: i128,
    /// Where it has been since its last sync, with the number of the operation; the first is durable.
    moves: Vec<(u64, Option<Place>)>,
}

impl Inode {
    pub fn place(&self) -> Option<&Place> {
        self.moves.last().and_then(|(_, place)| place.as_ref())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NotThere,
    Taken,
}

/// Renames are atomic and per file in order; of what was not synced any part may survive.
#[derive(Debug, Default)]
pub struct Disk {
    pub inodes: Vec<Inode>,
    names: BTreeMap<Place, usize>,
    operation: u64,
}

impl Disk {
    pub fn create(&mut self, place: Place, text: Text, len: u64, ns: i128) -> usize {
        let ino = self.inodes.len();
        self.inodes.push(Inode {
            text,
            dirty: true,
            writers: 0,
            links: 1,
            kind: FileKind::Regular,
            len,
            changed_ns: ns,
            moves: vec![(self.operation, None)],
        });
        self.put(ino, place);
        ino
    }

    /// Moves a file over whatever has the name; returns what it replaced.
    pub fn put(&mut self, ino: usize, place: Place) -> Option<usize> {
        self.operation += 1;
        if let Some(old) = self.inodes[ino].place().cloned() {
            self.names.remove(&old);
        }
        let replaced = self.names.insert(place.clone(), ino);
        self.inodes[ino].moves.push((self.operation, Some(place)));
        if let Some(replaced) = replaced {
            self.inodes[replaced].moves.push((self.operation, None));
        }
        replaced
    }

    pub fn rename(&mut self, from: &Place, to: Place, ns: i128) -> Result<usize, Refused> {
        let ino = self.at(from).ok_or(Refused::NotThere)?;
        if self.names.contains_key(&to) {
            return Err(Refused::Taken);
        }
        self.put(ino, to);
        self.inodes[ino].changed_ns = ns;
        Ok(ino)
    }

    pub fn at(&self, place: &Place) -> Option<usize> {
        self.names.get(place).copied()
    }

    pub fn list(&self, dir: Dir) -> impl Iterator<Item = (&Vec<u8>, usize)> {
        let names = self.names.range((dir, Vec::new())..);
        names
            .take_while(move |((in_dir, _), _)| *in_dir == dir)
            .map(|((_, name), ino)| (name, *ino))
    }

    pub fn sighting(&self, ino: usize, name: &[u8]) -> Sighting {
        let inode = &self.inodes[ino];
        Sighting {
            name: FileName::new(name),
            kind: inode.kind,
            print: Fingerprint {
                device: 1,
                inode: ino as u64,
                len: if inode.text == Text::Blank { 0 } else { inode.len },
                mtime_ns: inode.changed_ns,
                ctime_ns: inode.changed_ns,
            },
            links: inode.links,
            owner: 0,
        }
    }

    /// `fsync` of a directory: what went into it or out of it lasts.
    pub fn sync_dir(&mut self, dir: Dir) {
        for inode in &mut self.inodes {
            let touches = |place: &Option<Place>| place.as_ref().is_some_and(|(at, _)| *at == dir);
            let moves = &inode.moves;
            let last = (1..moves.len())
                .rev()
                .find(|index| touches(&moves[*index].1) || touches(&moves[*index - 1].1));
            if let Some(last) = last {
                inode.moves.drain(..last);
            }
        }
    }

    /// `syncfs`.
    pub fn sync_all(&mut self) {
        for inode in &mut self.inodes {
            inode.dirty = false;
            let last = inode.moves.len() - 1;
            inode.moves.drain(..last);
        }
    }

    /// Forgets some of what was not synced.
    pub fn power_cut(&mut self, dice: &mut Random) {
        let mut chosen: Vec<usize> = Vec::with_capacity(self.inodes.len());
        for inode in &mut self.inodes {
            inode.writers = 0;
            if std::mem::take(&mut inode.dirty) && dice.below(2) == 0 {
                inode.text = if dice.below(2) == 0 { Text::Zeroes } else { Text::Blank };
            }
            chosen.push(dice.below(inode.moves.len() as u64) as usize);
        }
        while let Some(ino) = self.contradiction(&chosen) {
            chosen[ino] += 1;
        }
        self.names.clear();
        for (ino, (inode, chosen)) in self.inodes.iter_mut().zip(chosen).enumerate() {
            inode.moves.truncate(chosen + 1);
            inode.moves.drain(..chosen);
            if let Some(place) = inode.place() {
                self.names.insert(place.clone(), ino);
            }
        }
    }

    /// A file that has to be further for the choice to be a state that a filesystem can have: one
    /// whose name another has taken since, or one that replaced another that is gone.
    fn contradiction(&self, chosen: &[usize]) -> Option<usize> {
        let mut at = BTreeMap::<&Place, (u64, usize)>::new();
        for (ino, (inode, index)) in self.inodes.iter().zip(chosen).enumerate() {
            let (operation, place) = &inode.moves[*index];
            match place {
                Some(place) => {
                    if let Some(other) = at.insert(place, (*operation, ino)) {
                        return Some(other.min((*operation, ino)).1);
                    }
                }
                None if *index > 0 => {
                    let later = |(other, index): (&Inode, &usize)| {
                        other.moves[index + 1..]
                            .iter()
                            .any(|(at, place)| at == operation && place.is_some())
                    };
                    if let Some(by) = self.inodes.iter().zip(chosen).position(later) {
                        return Some(by);
                    }
                }
                None => {}
            }
        }
        None
    }
}
