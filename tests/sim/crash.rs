//! What a power cut may leave: the two disk models, and the choices within them.
//!
//! A crash point is a place in the log of changes. What was forced to the medium before it is there; of the other
//! changes, those *pending*, each choice keeps some. Every choice here is one that the model allows.
//!
//! *strict* takes the words of POSIX and of the assumptions A1 to A4 in `journal-format.md`, and nothing more:
//!
//! * `fsync` of a file keeps its bytes, its length and its attributes, and no name.
//! * `fsync` of a directory keeps its names and its own attributes, and of what it names only what cannot be opened
//!   and thus has no `fsync`: symbolic links and FIFOs.
//! * A name that is kept may lead to a file of no length, or of the full length with zeros; bytes that are kept may
//!   have no name.
//! * A rename is one act (A3). Between two directories it is kept for certain only once both are synced.
//! * Everything else is kept or lost by itself, in any order; only changes of one name, or of the names of one inode,
//!   stay in order, so that no directory ever has two names.
//! * A write is cut at sectors of 512 or blocks of 4096 bytes, or keeps any of them; the rest reads as before, or as
//!   zeros past the old end (A4).
//!
//! *ordered* is ext4 with `data=ordered` and delayed allocation (Linux, `Documentation/filesystems/ext4`):
//!
//! * Names and attributes go through one journal: what is kept of them is a beginning of the log.
//! * Bytes reach the medium on their own time, after the name or before it, a file's in order, a length never before
//!   the bytes that it covers: so a file may be short or empty, and never has zeros that nobody wrote.
//! * Any `fsync` commits the journal up to the last change of that inode, or all of it if the file has bytes pending.
//!
//! In both, `syncfs` keeps everything, and the product's database commits by itself.

use std::collections::BTreeSet;

use kytx::effect::fs::Kind;

use crate::disk::{Image, Ino, Op};
use crate::sim_fs::Logged;

/// How a disk keeps what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// Nothing but what was synced is sure.
    Strict,
    /// ext4, `data=ordered`.
    Ordered,
}

impl Model {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Strict, Self::Ordered];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Ordered => "ordered",
        }
    }
}

/// How many sectors or blocks of one write are told apart.
const UNITS_MAX: u64 = 64;

/// What becomes of one pending change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Kept,
    /// Of a write: the units of so many bytes whose bit is set, and the whole length or only what they need.
    Torn {
        unit_bytes: u64,
        mask: u64,
        whole_length: bool,
    },
}

/// A disk on its way through a log.
#[derive(Clone)]
pub struct Walk<'a> {
    model: Model,
    log: &'a [Logged],
    /// How many entries of the log are behind it.
    pub at: usize,
    /// What is sure.
    durable: Image,
    /// What is not, by place in the log.
    pending: Vec<usize>,
    /// Directories that were synced while a change of names between two was pending.
    half_synced: BTreeSet<(usize, Ino)>,
    /// How many records are acknowledged.
    pub acknowledged: usize,
}

impl<'a> Walk<'a> {
    /// Before the first change.
    pub fn new(model: Model, base: &Image, log: &'a [Logged], acknowledged: usize) -> Self {
        let (pending, half_synced) = (Vec::new(), BTreeSet::new());
        Self { model, log, at: 0, durable: base.clone(), pending, half_synced, acknowledged }
    }

    /// Goes past one more entry of the log. Returns whether a crash there can leave anything new.
    pub fn step(&mut self) -> bool {
        let index = self.at;
        self.at += 1;
        match &self.log[index].0 {
            Op::Acknowledged(count) => self.acknowledged = *count,
            op @ (Op::Make(..) | Op::Commit(_)) => self.durable.apply(op, self.log[index].1),
            Op::Names(..) | Op::Write(..) | Op::Len(..) | Op::Attrs(..) | Op::Xattr(..) => {
                self.pending.push(index);
            }
            Op::SyncAll => self.force(|_, _| true),
            Op::SyncFile(ino) => self.sync(*ino, false),
            Op::SyncDir(ino) => self.sync(*ino, true),
        }
        !matches!(self.log[index].0, Op::Make(..))
    }

    fn sync(&mut self, ino: Ino, is_dir: bool) {
        match self.model {
            Model::Strict if is_dir => self.sync_dir_strictly(ino),
            Model::Strict => self.force(|_, op| data_of(op) == Some(ino) || attrs_of(op) == Some(ino)),
            Model::Ordered => {
                let has_data = self.pending.iter().any(|index| data_of(&self.log[*index].0) == Some(ino));
                let last =
                    self.pending.iter().rev().find(|index| touches(&self.log[**index].0, ino)).copied();
                let until = if has_data { Some(usize::MAX) } else { last };
                self.force(|index, op| match data_of(op) {
                    Some(of) => of == ino,
                    None => until.is_some_and(|until| index <= until),
                });
            }
        }
    }

    fn sync_dir_strictly(&mut self, dir: Ino) {
        for index in self.pending.clone() {
            if let Op::Names(puts, _) = &self.log[index].0
                && puts.iter().any(|put| put.dir == dir)
            {
                self.half_synced.insert((index, dir));
            }
        }
        let mut wanted = BTreeSet::new();
        for &index in &self.pending {
            let whole = |op: &Op| match op {
                Op::Names(puts, _) => puts.iter().all(|put| self.half_synced.contains(&(index, put.dir))),
                other => attrs_of(other) == Some(dir),
            };
            if whole(&self.log[index].0) {
                wanted.insert(index);
                self.add_causes(index, &mut wanted);
            }
        }
        self.force(|index, _| wanted.contains(&index));
        // What cannot be opened goes with its name.
        let named: BTreeSet<Ino> = self
            .durable
            .node(dir)
            .names
            .values()
            .copied()
            .filter(|ino| matches!(self.durable.node(*ino).kind, Kind::Symlink | Kind::Fifo))
            .collect();
        self.force(|_, op| attrs_of(op).is_some_and(|ino| named.contains(&ino)));
    }

    /// Earlier changes of the same names, or of the names of the same inodes.
    fn add_causes(&self, index: usize, to: &mut BTreeSet<usize>) {
        for &earlier in self.pending.iter().take_while(|earlier| **earlier < index) {
            if !to.contains(&earlier) && depends(&self.log[index].0, &self.log[earlier].0) {
                to.insert(earlier);
                self.add_causes(earlier, to);
            }
        }
    }

    fn force(&mut self, wanted: impl Fn(usize, &Op) -> bool) {
        let log = self.log;
        let durable = &mut self.durable;
        self.pending.retain(|&index| {
            let (op, time) = &log[index];
            let forced = wanted(index, op);
            if forced {
                durable.apply(op, *time);
            }
            !forced
        });
    }

    /// What the disk holds if these are the fates of the pending changes.
    pub fn build(&self, fates: &[Fate]) -> Image {
        let mut image = self.durable.clone();
        for (&index, fate) in self.pending.iter().zip(fates) {
            let (op, time) = &self.log[index];
            match (fate, op) {
                (Fate::Lost, _) => {}
                (Fate::Kept, _) => image.apply(op, *time),
                (Fate::Torn { unit_bytes, mask, whole_length }, Op::Write(ino, at, bytes)) => {
                    let end = at + bytes.len() as u64;
                    if *whole_length && image.node(*ino).content.size < end {
                        image.apply(&Op::Len(*ino, end), *time);
                    }
                    for (from, to, unit) in units(*at, end, *unit_bytes) {
                        if mask & (1 << (unit % UNITS_MAX)) != 0 {
                            let part = bytes[(from - at) as usize..(to - at) as usize].to_vec();
                            image.apply(&Op::Write(*ino, from, part.into()), *time);
                        }
                    }
                }
                (Fate::Torn { .. }, other) => unreachable!("BUG: only a write is torn, not {other:?}"),
            }
        }
        image.sweep();
        image
    }

    /// The fates of a choice, or `None` if the model has no such choice here. Choices from [`Self::regular`] on are
    /// drawn by their number.
    pub fn fates(&self, choice: usize) -> Vec<Fate> {
        match self.model {
            Model::Strict => self.strict(choice),
            Model::Ordered => self.ordered(choice),
        }
    }

    /// How many choices are regular: nothing, everything, all but one, one alone, one torn, each journal commit.
    pub fn regular(&self) -> usize {
        let (count, writes) = (self.pending.len(), self.writes().len());
        match self.model {
            Model::Strict => 2 + 2 * count + 2 * TEARS * writes,
            Model::Ordered => 2 * (self.metadata() + 1) + ORDERED_TEARS * writes,
        }
    }

    /// Places in `pending` of writes.
    fn writes(&self) -> Vec<usize> {
        let is_write = |place: &usize| matches!(self.log[self.pending[*place]].0, Op::Write(..));
        (0..self.pending.len()).filter(is_write).collect()
    }

    fn metadata(&self) -> usize {
        self.pending.iter().filter(|index| data_of(&self.log[**index].0).is_none()).count()
    }

    fn strict(&self, choice: usize) -> Vec<Fate> {
        let count = self.pending.len();
        let all = |fate| vec![fate; count];
        let mut fates = match choice {
            0 => all(Fate::Lost),
            1 => all(Fate::Kept),
            _ if choice < 2 + count => {
                let mut fates = all(Fate::Kept);
                fates[choice - 2] = Fate::Lost;
                fates
            }
            _ if choice < 2 + 2 * count => {
                let alone = choice - 2 - count;
                let mut wanted = BTreeSet::from([self.pending[alone]]);
                self.add_causes(self.pending[alone], &mut wanted);
                return self
                    .pending
                    .iter()
                    .map(|index| if wanted.contains(index) { Fate::Kept } else { Fate::Lost })
                    .collect();
            }
            _ if choice < self.regular() => {
                let number = choice - 2 - 2 * count;
                let writes = self.writes();
                let mut fates = all(if number.is_multiple_of(2) { Fate::Kept } else { Fate::Lost });
                let write = writes[number / 2 / TEARS];
                fates[write] = self.tear(write, number / 2 % TEARS);
                fates
            }
            drawn => {
                let mut draw = Draw(drawn as u64 ^ (self.at as u64) << 32);
                (0..count).map(|place| self.draw_fate(place, &mut draw)).collect()
            }
        };
        self.respect_causes(&mut fates);
        fates
    }

    fn draw_fate(&self, place: usize, draw: &mut Draw) -> Fate {
        let number = draw.next();
        match (number % 8, &self.log[self.pending[place]].0) {
            (0 | 1, Op::Write(..)) => Fate::Torn {
                unit_bytes: if number & 8 == 0 { 512 } else { 4096 },
                mask: draw.next() & draw.next(),
                whole_length: number & 16 == 0,
            },
            (0..4, _) => Fate::Lost,
            _ => Fate::Kept,
        }
    }

    fn tear(&self, place: usize, way: usize) -> Fate {
        let Op::Write(_, at, bytes) = &self.log[self.pending[place]].0 else { unreachable!("BUG: a write") };
        let count = |unit_bytes| units(*at, at + bytes.len() as u64, unit_bytes).count() as u64;
        let first = |units: u64| if units >= 64 { u64::MAX } else { (1 << units) - 1 };
        let torn = |unit_bytes, mask, whole_length| Fate::Torn { unit_bytes, mask, whole_length };
        match way {
            0 => torn(512, first(1), false),
            1 => torn(512, first(count(512) / 2), false),
            2 => torn(512, first(count(512) - 1), false),
            3 => torn(4096, first(count(4096) / 2), false),
            // The length without the bytes; without the first of them; without the last.
            4 => torn(512, 0, true),
            5 => torn(512, !1, true),
            _ => torn(512, first(count(512) - 1), true),
        }
    }

    /// What depends on something lost is lost.
    fn respect_causes(&self, fates: &mut [Fate]) {
        for place in 0..fates.len() {
            let op = &self.log[self.pending[place]].0;
            let orphaned = (0..place)
                .any(|cause| fates[cause] == Fate::Lost && depends(op, &self.log[self.pending[cause]].0));
            if orphaned {
                fates[place] = Fate::Lost;
            }
        }
    }

    fn ordered(&self, choice: usize) -> Vec<Fate> {
        let metadata = self.metadata();
        let (commits, torn) = (2 * (metadata + 1), ORDERED_TEARS * self.writes().len());
        let mut draw = Draw(choice as u64 ^ (self.at as u64) << 32);
        let (kept, mut data): (usize, Box<dyn FnMut(usize) -> Fate>) = if choice < commits {
            let fate = if choice.is_multiple_of(2) { Fate::Lost } else { Fate::Kept };
            (choice / 2, Box::new(move |_| fate))
        } else if choice < commits + torn {
            let number = choice - commits;
            let write = self.writes()[number / ORDERED_TEARS];
            let fate = self.page_tear(write, number % ORDERED_TEARS);
            (metadata, Box::new(move |place| if place == write { fate } else { Fate::Kept }))
        } else {
            let kept = draw.next() as usize % (metadata + 1);
            (
                kept,
                Box::new(move |place| {
                    if draw.next().is_multiple_of(3) {
                        self.page_tear(place, draw.next() as usize)
                    } else if draw.next().is_multiple_of(2) {
                        Fate::Lost
                    } else {
                        Fate::Kept
                    }
                }),
            )
        };
        let mut seen = 0;
        let mut broken: BTreeSet<Ino> = BTreeSet::new();
        (0..self.pending.len())
            .map(|place| match data_of(&self.log[self.pending[place]].0) {
                None => {
                    seen += 1;
                    if seen <= kept { Fate::Kept } else { Fate::Lost }
                }
                // In order within a file: after something lost or cut, nothing.
                Some(ino) if broken.contains(&ino) => Fate::Lost,
                Some(ino) => {
                    let fate = data(place);
                    if fate != Fate::Kept {
                        broken.insert(ino);
                    }
                    fate
                }
            })
            .collect()
    }

    /// A write cut at a page, as its pages are written out in order.
    fn page_tear(&self, place: usize, way: usize) -> Fate {
        let Op::Write(_, at, bytes) = &self.log[self.pending[place]].0 else { return Fate::Lost };
        let pages = units(*at, at + bytes.len() as u64, 4096).count() as u64;
        let keep = match way % ORDERED_TEARS {
            0 => 0,
            1 => pages / 2,
            _ => pages - 1,
        };
        Fate::Torn { unit_bytes: 4096, mask: (1_u64 << keep.min(63)) - 1, whole_length: false }
    }
}

/// How a single write is torn, in the two models.
const TEARS: usize = 7;
const ORDERED_TEARS: usize = 3;

/// The pieces of a write between boundaries of the medium.
fn units(at: u64, end: u64, unit_bytes: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let first = at / unit_bytes;
    (first..end.div_ceil(unit_bytes))
        .map(move |unit| (at.max(unit * unit_bytes), end.min((unit + 1) * unit_bytes), unit - first))
}

fn data_of(op: &Op) -> Option<Ino> {
    match op {
        Op::Write(ino, ..) | Op::Len(ino, _) => Some(*ino),
        _ => None,
    }
}

fn attrs_of(op: &Op) -> Option<Ino> {
    match op {
        Op::Attrs(ino, _) | Op::Xattr(ino, ..) => Some(*ino),
        _ => None,
    }
}

fn touches(op: &Op, ino: Ino) -> bool {
    match op {
        Op::Names(puts, moved) => puts.iter().any(|put| put.dir == ino) || moved.contains(&ino),
        other => data_of(other) == Some(ino) || attrs_of(other) == Some(ino),
    }
}

/// Whether a change of names needs an earlier one.
fn depends(later: &Op, earlier: &Op) -> bool {
    let (Op::Names(later, later_moved), Op::Names(earlier, earlier_moved)) = (later, earlier) else {
        return false;
    };
    let same_name =
        later.iter().any(|put| earlier.iter().any(|other| (other.dir, &other.name) == (put.dir, &put.name)));
    same_name || later_moved.iter().any(|ino| earlier_moved.contains(ino))
}

/// A sequence of numbers from a seed (splitmix64).
pub struct Draw(pub u64);

impl Draw {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
