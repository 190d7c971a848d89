//! The machine: a dozen things, each absent, in part or whole, and what each mutation does to them stage by stage.
//!
//! A crash can fall between any two stages. `apply_stages` and `undo_stages` start from whatever state they are
//! given, so a restart from the middle is computed, not remembered.

use std::ops::Index;

use kytx::engine::Sight;
use kytx::txn::{CarryPass, CopyPass, Direction, Mutation, Observed};

/// A thing that a mutation may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    Live,
    Spare,
    /// Between the renames where the two trees cannot be swapped in one act.
    Hold,
    /// A tree that is being deleted.
    Aside,
    Service,
    Metadata,
    Cube,
    /// Cube data of the new release, renamed out of the way.
    CubeAside,
    CubeCopy,
    /// In the state directory.
    Backup,
    Archive,
    /// Somebody else's; no mutation is about it.
    Neighbour,
}

/// Every thing.
pub const THINGS: [Thing; 12] = [
    Thing::Live,
    Thing::Spare,
    Thing::Hold,
    Thing::Aside,
    Thing::Service,
    Thing::Metadata,
    Thing::Cube,
    Thing::CubeAside,
    Thing::CubeCopy,
    Thing::Backup,
    Thing::Archive,
    Thing::Neighbour,
];

/// The things that somebody else may put something in the place of. Metadata and cube data are left out: a look cannot
/// tell by whom they were written last.
pub const STRANGE: [Thing; 5] = [Thing::Live, Thing::Spare, Thing::Service, Thing::CubeCopy, Thing::Archive];

/// What a thing is or is becoming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    OldTree,
    NewTree,
    /// The new tree with the customisations copied.
    Carried,
    /// The new tree with the customisations current.
    Settled,
    OldRelease,
    NewRelease,
    /// Data as the old release left them.
    Old,
    /// Data after the new release has run on them.
    Changed,
    /// The bulk of the cube data, not yet consistent.
    Early,
    /// Nobody knows who made it.
    Stranger,
}

/// The state of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    Absent,
    Part(Value),
    Whole(Value),
}

use Cell::{Absent, Part, Whole};

/// The whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Machine([Cell; THINGS.len()]);

impl Index<Thing> for Machine {
    type Output = Cell;

    fn index(&self, thing: Thing) -> &Cell {
        &self.0[thing as usize]
    }
}

impl Machine {
    /// A running installation of the old release.
    pub fn running() -> Self {
        Self([Absent; THINGS.len()])
            .with(Thing::Live, Whole(Value::OldTree))
            .with(Thing::Service, Whole(Value::OldRelease))
            .with(Thing::Metadata, Whole(Value::Old))
            .with(Thing::Cube, Whole(Value::Old))
            .with(Thing::Neighbour, Whole(Value::Stranger))
    }

    /// The same with one thing in another state.
    #[must_use]
    pub fn with(mut self, thing: Thing, cell: Cell) -> Self {
        self.0[thing as usize] = cell;
        self
    }

    /// The things that differ between two machines.
    pub fn differing(self, other: Self) -> impl Iterator<Item = Thing> {
        THINGS.into_iter().filter(move |thing| self[*thing] != other[*thing])
    }

    /// Without what an undo may leave because it harms nobody: a finished archive, and the state directory.
    #[must_use]
    pub fn without_harmless(self) -> Self {
        let bare = self.with(Thing::Backup, Absent);
        if bare[Thing::Archive] == Whole(Value::OldTree) { bare.with(Thing::Archive, Absent) } else { bare }
    }
}

/// Looks, as a `World` does: `intended` says whether the step's intent is durable.
pub fn probe(machine: &Machine, mutation: &Mutation, intended: bool) -> Sight {
    let seen = observe(machine, mutation, intended);
    if seen == Observed::Foreign {
        return Sight::foreign(format!("{} meets {machine:?}", mutation.sentence()));
    }
    // What the transaction itself is going to make cannot be there yet: found, it is somebody else's. Letting it
    // pass as found would let the steps behind, whose undo is empty, write into it for good.
    let makes = matches!(
        mutation,
        Mutation::StageTree { .. }
            | Mutation::BackUpMetadata { .. }
            | Mutation::CopyCubeData { .. }
            | Mutation::ArchiveTree { .. }
    );
    if makes && !intended && seen == Observed::After {
        return Sight::foreign("it is there already");
    }
    Sight::of(seen)
}

fn observe(machine: &Machine, mutation: &Mutation, intended: bool) -> Observed {
    use Observed::{After, Before, Foreign, Torn};
    use Value::{Carried, Early, NewTree, Old, OldRelease, OldTree, Settled};
    match mutation {
        Mutation::StageTree { .. } => match (machine[Thing::Aside], machine[Thing::Spare]) {
            (Absent, Absent) => Before,
            (_, Absent) | (Absent, Part(NewTree)) => Torn,
            (Absent, Whole(NewTree) | Part(Carried | Settled) | Whole(Carried | Settled)) => After,
            _ => Foreign,
        },
        Mutation::CarryCustomisations { pass: CarryPass::Copy, .. } => match machine[Thing::Spare] {
            Whole(NewTree) => Before,
            Part(Carried) => Torn,
            Whole(Carried | Settled) | Part(Settled) => After,
            _ => Foreign,
        },
        Mutation::CarryCustomisations { pass: CarryPass::Settle, .. } => match machine[Thing::Spare] {
            Whole(Carried) => Before,
            Part(Settled) => Torn,
            Whole(Settled) => After,
            _ => Foreign,
        },
        // Its undo starts what is live, so a tree that nobody knows is foreign here too.
        Mutation::StopService { .. } if release(machine).is_none() => Foreign,
        Mutation::StopService { .. } => match machine[Thing::Service] {
            Whole(OldRelease) => Before,
            Part(OldRelease) => Torn,
            Absent => After,
            _ => Foreign,
        },
        Mutation::BackUpMetadata { .. } => match machine[Thing::Backup] {
            Absent => Before,
            Part(Old) => Torn,
            Whole(Old) => After,
            _ => Foreign,
        },
        Mutation::CopyCubeData { pass: CopyPass::Early, .. } => match machine[Thing::CubeCopy] {
            Absent => Before,
            Part(Early) => Torn,
            Whole(Early | Old) | Part(Old) => After,
            _ => Foreign,
        },
        Mutation::CopyCubeData { pass: CopyPass::Final, .. } => match machine[Thing::CubeCopy] {
            Absent | Whole(Early) => Before,
            Part(Old) => Torn,
            Whole(Old) => After,
            _ => Foreign,
        },
        Mutation::HandOverData { .. } => {
            let known = |thing| !matches!(machine[thing], Whole(Value::Stranger));
            match known(Thing::Metadata) && known(Thing::Cube) && known(Thing::CubeCopy) {
                false => Foreign,
                // It cannot be observed whether the new release has written yet.
                true if intended => Torn,
                true => Before,
            }
        }
        Mutation::ExchangeTrees { .. } => {
            let new = |cell| matches!(cell, Whole(NewTree | Carried | Settled));
            let trees = [machine[Thing::Live], machine[Thing::Spare], machine[Thing::Hold]];
            match trees {
                [Whole(OldTree), spare, Absent] if new(spare) => Before,
                [live, Whole(OldTree), Absent] if new(live) => After,
                _ if trees.contains(&Absent)
                    && trees.contains(&Whole(OldTree))
                    && trees.into_iter().any(new) =>
                {
                    Torn
                }
                _ => Foreign,
            }
        }
        Mutation::StartService { .. } => match (machine[Thing::Service], release(machine)) {
            (Absent, Some(_)) => Before,
            (Part(at), own) if Some(at) == own => Torn,
            (Whole(at), own) if Some(at) == own => After,
            _ => Foreign,
        },
        Mutation::ArchiveTree { .. } => match machine[Thing::Archive] {
            Absent => Before,
            Part(OldTree) => Torn,
            Whole(OldTree) => After,
            _ => Foreign,
        },
        Mutation::DiscardTree { .. } => match (machine[Thing::Spare], machine[Thing::Aside]) {
            (Absent, Absent) => After,
            (Absent, _) => Torn,
            (Whole(OldTree), _) => Before,
            _ => Foreign,
        },
        Mutation::DiscardFile { .. } => match machine[Thing::Archive] {
            Absent => After,
            Whole(OldTree) => Before,
            _ => Foreign,
        },
        Mutation::SnapshotCubeData { .. }
        | Mutation::DiscardCubeData { .. }
        | Mutation::DiscardSnapshot { .. } => {
            observe_copy(machine[Thing::CubeCopy], matches!(mutation, Mutation::SnapshotCubeData { .. }))
        }
    }
}

/// What is seen of a copy or snapshot that is made in one act, or discarded.
fn observe_copy(copy: Cell, making: bool) -> Observed {
    match (copy, making) {
        (Cell::Absent, true) | (Whole(Value::Old), false) => Observed::Before,
        (Cell::Absent, false) | (Whole(Value::Old), true) => Observed::After,
        (Part(Value::Old), false) => Observed::Torn,
        _ => Observed::Foreign,
    }
}

/// The release whose tree is live.
fn release(machine: &Machine) -> Option<Value> {
    match machine[Thing::Live] {
        Whole(Value::OldTree) => Some(Value::OldRelease),
        Whole(Value::NewTree | Value::Carried | Value::Settled) => Some(Value::NewRelease),
        _ => None,
    }
}

/// The states that an act passes through, the last one included, from whatever state it starts in.
pub fn stages(machine: Machine, mutation: &Mutation, direction: Direction) -> Vec<Machine> {
    let mut walk = Walk { at: machine, stages: Vec::new() };
    match direction {
        Direction::Forward => walk.apply(mutation),
        Direction::Backward => walk.undo(mutation),
    }
    walk.stages
}

struct Walk {
    at: Machine,
    stages: Vec<Machine>,
}

impl Walk {
    fn go(&mut self, to: Machine) {
        if to != self.at {
            self.at = to;
            self.stages.push(to);
        }
    }

    fn set(&mut self, thing: Thing, cell: Cell) {
        self.go(self.at.with(thing, cell));
    }

    /// In part, then in full.
    fn make(&mut self, thing: Thing, value: Value) {
        if self.at[thing] != Whole(value) {
            self.set(thing, Part(value));
            self.set(thing, Whole(value));
        }
    }

    /// One rename.
    fn rename(&mut self, from: Thing, to: Thing) {
        self.go(self.at.with(to, self.at[from]).with(from, Absent));
    }

    /// Renamed aside, then deleted.
    fn discard_spare(&mut self) {
        if self.at[Thing::Spare] != Absent {
            self.set(Thing::Aside, Absent);
            self.rename(Thing::Spare, Thing::Aside);
        }
        if let Whole(value) = self.at[Thing::Aside] {
            self.set(Thing::Aside, Part(value));
        }
        self.set(Thing::Aside, Absent);
    }

    fn discard_copy(&mut self) {
        if let Whole(value) = self.at[Thing::CubeCopy] {
            self.set(Thing::CubeCopy, Part(value));
        }
        self.set(Thing::CubeCopy, Absent);
    }

    /// The two trees swap places by three renames, as where the kernel cannot exchange.
    fn swap(&mut self, want_old_live: bool) {
        let wanted = |cell| matches!(cell, Whole(Value::OldTree)) == want_old_live;
        if self.at[Thing::Hold] == Absent {
            if wanted(self.at[Thing::Live]) {
                return;
            }
            self.rename(Thing::Live, Thing::Hold);
        }
        match (wanted(self.at[Thing::Hold]), self.at[Thing::Live]) {
            (true, Absent) => self.rename(Thing::Hold, Thing::Live),
            (true, _) => {
                self.rename(Thing::Live, Thing::Spare);
                self.rename(Thing::Hold, Thing::Live);
            }
            (false, live) => {
                if live == Absent {
                    self.rename(Thing::Spare, Thing::Live);
                }
                self.rename(Thing::Hold, Thing::Spare);
            }
        }
    }

    /// Starts the release that is live. The new one changes metadata and cube data before it answers.
    fn start(&mut self) {
        let Some(release) = release(&self.at) else { return };
        if self.at[Thing::Service] == Whole(release) {
            return;
        }
        self.set(Thing::Service, Part(release));
        if release == Value::NewRelease && self.at[Thing::Backup] == Whole(Value::Old) {
            self.set(Thing::Metadata, Whole(Value::Changed));
            if self.at[Thing::Cube] != Absent {
                self.set(Thing::Cube, Whole(Value::Changed));
            }
        }
        self.set(Thing::Service, Whole(release));
    }

    fn stop(&mut self) {
        if let Whole(release) = self.at[Thing::Service] {
            self.set(Thing::Service, Part(release));
        }
        self.set(Thing::Service, Absent);
    }

    fn apply(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::StageTree { .. } => {
                self.set(Thing::Aside, Absent);
                if let Part(_) = self.at[Thing::Spare] {
                    self.set(Thing::Spare, Absent);
                }
                self.make(Thing::Spare, Value::NewTree);
            }
            Mutation::CarryCustomisations { pass: CarryPass::Copy, .. } => {
                self.make(Thing::Spare, Value::Carried);
            }
            Mutation::CarryCustomisations { pass: CarryPass::Settle, .. } => {
                self.make(Thing::Spare, Value::Settled);
            }
            Mutation::StopService { .. } => self.stop(),
            Mutation::BackUpMetadata { .. } => self.make(Thing::Backup, Value::Old),
            Mutation::CopyCubeData { pass: CopyPass::Early, .. } => self.make(Thing::CubeCopy, Value::Early),
            Mutation::CopyCubeData { pass: CopyPass::Final, .. } => self.make(Thing::CubeCopy, Value::Old),
            Mutation::HandOverData { .. } => {}
            Mutation::ExchangeTrees { .. } => self.swap(false),
            Mutation::StartService { .. } => self.start(),
            Mutation::ArchiveTree { .. } => self.make(Thing::Archive, Value::OldTree),
            Mutation::DiscardTree { .. } => self.discard_spare(),
            Mutation::DiscardFile { .. } => self.set(Thing::Archive, Absent),
            // In one act, unlike a copy.
            Mutation::SnapshotCubeData { .. } => self.set(Thing::CubeCopy, Whole(Value::Old)),
            Mutation::DiscardSnapshot { .. } => self.set(Thing::CubeCopy, Absent),
            Mutation::DiscardCubeData { .. } => self.discard_copy(),
        }
    }

    fn undo(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::StageTree { .. } => self.discard_spare(),
            Mutation::CarryCustomisations { .. } | Mutation::BackUpMetadata { .. } => {}
            Mutation::StopService { .. } => self.start(),
            Mutation::CopyCubeData { pass: CopyPass::Early, .. } => self.discard_copy(),
            Mutation::CopyCubeData { pass: CopyPass::Final, .. } => {}
            Mutation::HandOverData { .. } => self.take_back_data(),
            Mutation::ExchangeTrees { .. } => self.swap(true),
            Mutation::StartService { .. } => self.stop(),
            Mutation::ArchiveTree { .. } => {
                if let Part(_) = self.at[Thing::Archive] {
                    self.set(Thing::Archive, Absent);
                }
            }
            Mutation::SnapshotCubeData { .. } => self.set(Thing::CubeCopy, Absent),
            Mutation::DiscardTree { .. }
            | Mutation::DiscardFile { .. }
            | Mutation::DiscardCubeData { .. }
            | Mutation::DiscardSnapshot { .. } => {
                panic!("BUG: a cleanup step cannot be undone")
            }
        }
    }

    /// The copy is renamed back into place, never deleted first; then the metadata are emptied and restored.
    fn take_back_data(&mut self) {
        if self.at[Thing::CubeCopy] == Whole(Value::Old) {
            if self.at[Thing::Cube] != Absent {
                self.rename(Thing::Cube, Thing::CubeAside);
            }
            self.rename(Thing::CubeCopy, Thing::Cube);
        }
        self.set(Thing::CubeAside, Absent);
        if self.at[Thing::Backup] == Whole(Value::Old) {
            self.set(Thing::Metadata, Part(Value::Old));
            self.set(Thing::Metadata, Whole(Value::Old));
        }
    }
}

/// Whether a successful undo leaves the step's result where it is, to go with something else or to harm nobody.
pub fn undo_leaves_it(mutation: &Mutation) -> bool {
    matches!(
        mutation,
        Mutation::CarryCustomisations { .. }
            | Mutation::BackUpMetadata { .. }
            | Mutation::CopyCubeData { pass: CopyPass::Final, .. }
            | Mutation::HandOverData { .. }
            | Mutation::ArchiveTree { .. }
    )
}
