//! What a disk may hold after a power cut, rebuilt from a trace of `tests/shims/record_io.c`.
//!
//! Of each file: everything up to its last finished sync, and after that any intermediate version of each sector or
//! page that was written since. Of each folder: every name up to its last finished sync, and after that the names that
//! were changed up to some moment.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Repeatable choices.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap()
    }
}

/// One thing the process did.
pub enum Record {
    Create(u64, String),
    Write(u64, u64, Vec<u8>),
    Resize(u64, u64),
    SyncBegins(u64, u64),
    SyncEnds(u64),
    Rename(String, String),
    Unlink(String),
    MakeFolder(u64, String),
}

/// Everything it did, in order.
pub fn read_trace(path: &Path) -> Vec<Record> {
    let bytes = fs::read(path).unwrap();
    let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
    // A process that was ended in the middle of a record leaves a part of one.
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((record, after)) = after.split_at_checked(length) else { break };
        rest = after;
        let (kind, body) = record.split_first().unwrap();
        let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        records.push(match kind {
            b'C' => Record::Create(number(0), text(&body[8..])),
            b'W' => Record::Write(number(0), number(8), body[16..].to_vec()),
            b'T' => Record::Resize(number(0), number(8)),
            b'B' => Record::SyncBegins(number(0), number(8)),
            b'E' => Record::SyncEnds(number(8)),
            b'R' => {
                let (old, new) = body.split_at(body.iter().position(|b| *b == 0).unwrap());
                Record::Rename(text(old), text(&new[1..]))
            }
            b'U' | b'D' => Record::Unlink(text(body)),
            b'M' => Record::MakeFolder(number(0), text(&body[8..])),
            other => panic!("a record of kind {other}"),
        });
    }
    records
}

const ROOT: usize = 0;

#[derive(Default, Clone)]
struct Object {
    folder: bool,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// How many of its changes are in `durable`.
    settled: usize,
}

#[derive(Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Size(u64),
}

type Name = (usize, String);

enum Naming {
    Link(Name, usize),
    Unlink(Name),
    Rename(Name, Name),
}

impl Naming {
    fn folder(&self) -> usize {
        match self {
            Self::Link((folder, _), _) | Self::Unlink((folder, _)) | Self::Rename(_, (folder, _)) => *folder,
        }
    }

    fn apply(&self, names: &mut HashMap<Name, usize>) {
        match self {
            Self::Link(name, object) => {
                names.insert(name.clone(), *object);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(object) = names.remove(from) {
                    names.insert(to.clone(), object);
                }
            }
        }
    }
}

/// A disk at a moment: what it is bound to hold, and what it may.
pub struct Disk {
    objects: Vec<Object>,
    by_inode: HashMap<u64, usize>,
    /// Names as the process sees them.
    live: HashMap<Name, usize>,
    /// Names at the beginning.
    base: HashMap<Name, usize>,
    /// Changes of names since; whether each is durable.
    namings: Vec<(Naming, bool)>,
    /// Syncs under way: the object, how many of its changes and how many namings they cover.
    syncs: HashMap<u64, (usize, usize, usize)>,
}

impl Disk {
    /// A disk with nothing in its root, which has this inode.
    pub fn empty(root: u64) -> Self {
        Self {
            objects: vec![Object { folder: true, ..Object::default() }],
            by_inode: HashMap::from([(root, ROOT)]),
            live: HashMap::new(),
            base: HashMap::new(),
            namings: Vec::new(),
            syncs: HashMap::new(),
        }
    }

    /// A disk that durably holds what is in `root` now.
    pub fn holding(root: &Path) -> Self {
        let mut disk = Self::empty(fs::metadata(root).unwrap().ino());
        disk.hold(root, ROOT);
        disk.base = disk.live.clone();
        disk
    }

    fn hold(&mut self, path: &Path, folder: usize) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let durable = if metadata.is_dir() { Vec::new() } else { fs::read(entry.path()).unwrap() };
            let object =
                self.add(metadata.ino(), Object { folder: metadata.is_dir(), durable, ..Object::default() });
            self.live.insert((folder, entry.file_name().into_string().unwrap()), object);
            if metadata.is_dir() {
                self.hold(&entry.path(), object);
            }
        }
    }

    fn add(&mut self, inode: u64, object: Object) -> usize {
        self.objects.push(object);
        self.by_inode.insert(inode, self.objects.len() - 1);
        self.objects.len() - 1
    }

    /// The folder a path is in, and its name there.
    fn name(&self, path: &str) -> Name {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let step = |folder: usize, name: &str| self.live[&(folder, name.to_owned())];
        (folders.split('/').filter(|part| !part.is_empty()).fold(ROOT, step), name.to_owned())
    }

    fn rename(&mut self, naming: Naming) {
        naming.apply(&mut self.live);
        self.namings.push((naming, false));
    }

    /// The process does this.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Create(inode, path) | Record::MakeFolder(inode, path) => {
                let folder = matches!(record, Record::MakeFolder(..));
                let object = self.add(*inode, Object { folder, ..Object::default() });
                self.rename(Naming::Link(self.name(path), object));
            }
            Record::Write(inode, offset, bytes) => {
                let object = self.by_inode[inode];
                self.objects[object].pending.push(Pending::Write(*offset, bytes.clone()));
            }
            Record::Resize(inode, size) => {
                let object = self.by_inode[inode];
                self.objects[object].pending.push(Pending::Size(*size));
            }
            Record::SyncBegins(inode, number) => {
                let object = self.by_inode[inode];
                let changes = self.objects[object].settled + self.objects[object].pending.len();
                self.syncs.insert(*number, (object, changes, self.namings.len()));
            }
            Record::SyncEnds(number) => {
                let (object, changes, namings) = self.syncs.remove(number).unwrap();
                for (naming, durable) in &mut self.namings[..namings] {
                    *durable |= naming.folder() == object;
                }
                self.objects[object].settle(changes);
            }
            Record::Rename(old, new) => self.rename(Naming::Rename(self.name(old), self.name(new))),
            Record::Unlink(path) => self.rename(Naming::Unlink(self.name(path))),
        }
    }

    /// What the process wrote into a file in the root, synced or not.
    pub fn written(&self, name: &str) -> Vec<u8> {
        let Some(object) = self.live.get(&(ROOT, name.to_owned())) else { return Vec::new() };
        let mut object = self.objects[*object].clone();
        object.settle(usize::MAX);
        object.durable
    }

    /// Writes what may be left after a power cut now into `root`.
    pub fn cut(&self, root: &Path, dice: &mut Dice) {
        let kept = match dice.below(4) {
            0 => 0,
            1 => dice.below(self.namings.len() + 1),
            _ => self.namings.len(),
        };
        let mut names = self.base.clone();
        for (n, (naming, durable)) in self.namings.iter().enumerate() {
            if *durable || n < kept {
                naming.apply(&mut names);
            }
        }
        self.write(root, ROOT, &names, dice);
    }

    fn write(&self, path: &Path, folder: usize, names: &HashMap<Name, usize>, dice: &mut Dice) {
        fs::create_dir_all(path).unwrap();
        let mut inside: Vec<_> = names.iter().filter(|((within, _), _)| *within == folder).collect();
        inside.sort();
        for ((_, name), object) in inside {
            let path = path.join(name);
            if self.objects[*object].folder {
                self.write(&path, *object, names, dice);
            } else {
                fs::write(path, self.objects[*object].after_cut(dice)).unwrap();
            }
        }
    }
}

impl Object {
    fn settle(&mut self, changes: usize) {
        let count = changes.saturating_sub(self.settled).min(self.pending.len());
        for change in self.pending.drain(..count) {
            match change {
                Pending::Write(offset, bytes) => put(&mut self.durable, offset, &bytes),
                Pending::Size(size) => self.durable.resize(usize::try_from(size).unwrap(), 0),
            }
        }
        self.settled += count;
    }

    /// Its content: of each unit some version since the last sync, chosen in one of several styles.
    fn after_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let unit = [512, 4096][dice.below(2)];
        let changes = self.pending.len();
        let (style, seed, lost) = (dice.below(5), dice.0, dice.below(64));
        // How many of the changes a unit has seen.
        let seen = |number: usize| {
            let mut dice = Dice(seed ^ (number as u64).wrapping_mul(0x00C2_B2AE_3D27_D4EB));
            match style {
                0 => 0,
                1 => changes,
                2 => dice.below(changes + 1),
                3 => dice.below(2) * changes,
                _ if number % 64 == lost => 0,
                _ => changes,
            }
        };
        let mut content = self.durable.clone();
        for (n, change) in self.pending.iter().enumerate() {
            match change {
                Pending::Size(size) => {
                    if n < seen(usize::MAX) {
                        content.resize(usize::try_from(*size).unwrap(), 0);
                    }
                }
                Pending::Write(offset, bytes) => {
                    let (mut at, end) = (*offset, offset + bytes.len() as u64);
                    while at < end {
                        let number = usize::try_from(at).unwrap() / unit;
                        let next = ((number + 1) * unit) as u64;
                        let until = next.min(end);
                        if n < seen(number) {
                            let from = usize::try_from(at - offset).unwrap();
                            put(&mut content, at, &bytes[from..usize::try_from(until - offset).unwrap()]);
                        }
                        at = until;
                    }
                }
            }
        }
        content
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}
