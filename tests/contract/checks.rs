//! The contract that every mutation keeps, as checks on one case each, and the macro that makes tests of them.

use kytx::engine::{DriveError, How, Rest, Task, World};
use kytx::txn::{Direction, Observed, Outcome, Phase, Stage, StepId};

use crate::fault_fs::{Accident, FaultFs, Lacking};
use crate::lab::Lab;
use crate::support::snapshot::{Snapshot, assert_same_tree};

/// No sweep is longer; one that is has a mutation that never ends in it.
const CALLS_MAX: usize = 2_000;

/// Something foreign: its name, how it comes about once `intended` or before, and a word of what is said about it.
pub struct Foreign {
    /// Whether it comes after the intent.
    pub intended: bool,
    /// How it comes about.
    pub make: fn(&Lab),
    /// A word of what is said.
    pub says: &'static str,
}

/// One mutation in a machine made for it.
pub struct Case {
    /// Builds the machine, in the state before.
    pub build: fn() -> Lab,
    /// What kernel and file system cannot do.
    pub lacking: Lacking,
    /// Whether a probe can tell that it was applied.
    pub observable: bool,
    /// Names that undoing leaves behind: they harm nobody, or the undo of an earlier step takes them.
    pub leaves: &'static [&'static str],
    /// What is foreign to it.
    pub foreign: &'static [Foreign],
}

impl Case {
    fn fs(&self, accident: Accident) -> FaultFs {
        FaultFs::new(accident, self.lacking)
    }

    fn sound(&self) -> FaultFs {
        self.fs(Accident::None)
    }

    fn lab(&self) -> Lab {
        (self.build)()
    }

    /// What the machine is like once what the undo leaves is gone.
    fn look_undone(&self, lab: &Lab) -> Snapshot {
        for name in self.leaves {
            let path = lab.at(name);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
        lab.look()
    }

    fn is_cleanup(lab: &Lab) -> bool {
        lab.steps[0].stage == Stage::Cleanup
    }

    #[track_caller]
    fn go_on(&self, lab: &mut Lab) -> Rest {
        lab.drive(&self.sound()).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Drives forward to the end, without an accident.
    #[track_caller]
    fn apply(&self, lab: &mut Lab) {
        let wanted = if Self::is_cleanup(lab) { Rest::Ended(Outcome::Committed) } else { Rest::Applied };
        assert_eq!(self.go_on(lab), wanted);
    }

    /// Drives backward to the end, without an accident.
    #[track_caller]
    fn undo(&self, lab: &mut Lab) {
        if lab.txn().phase() != Phase::Aborting {
            lab.abort();
        }
        assert_eq!(self.go_on(lab), Rest::Ended(Outcome::Aborted));
    }

    /// What the machine is like before and after, from a run without an accident, and how many calls that took.
    fn reference(&self) -> (Snapshot, Snapshot, usize) {
        let before = self.look_undone(&self.lab());
        let mut lab = self.lab();
        let fs = self.sound();
        lab.drive(&fs).unwrap_or_else(|error| panic!("{}", chain(&error)));
        (before, lab.look(), fs.made().len())
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// From before to after; twice is once.
pub fn applies(case: &Case) {
    let (_, after, calls) = case.reference();
    assert!(calls > 0);
    let mut lab = case.lab();
    case.apply(&mut lab);
    assert_eq!(*lab.hows.lock().unwrap(), [How::Performed]);
    assert_same_tree(&after, &lab.look());
    // The crash came between the effect and its outcome.
    let records = if Case::is_cleanup(&lab) { 2 } else { 1 };
    lab.forget_last(records);
    case.apply(&mut lab);
    let how = if case.observable { How::AlreadyDone } else { How::Performed };
    assert_eq!(*lab.hows.lock().unwrap(), [how]);
    assert_same_tree(&after, &lab.look());
}

/// From after to before; twice is once.
pub fn undoes(case: &Case) {
    let (before, ..) = case.reference();
    let mut lab = case.lab();
    case.apply(&mut lab);
    case.undo(&mut lab);
    assert_same_tree(&before, &case.look_undone(&lab));
    lab.forget_last(2);
    case.undo(&mut lab);
    assert_same_tree(&before, &case.look_undone(&lab));
}

/// Dead at every call of the apply: resumed, it ends in after; aborted, in before; dead once more while it is
/// resumed, likewise.
pub fn apply_is_restartable(case: &Case) {
    let (before, after, calls) = case.reference();
    for at in 0..CALLS_MAX {
        let mut lab = case.lab();
        let fs = case.fs(Accident::DeadFrom(at));
        let ran = lab.drive(&fs);
        if fs.prevented().is_empty() {
            assert!(ran.is_ok() && at >= calls, "{at} of {calls}");
            return;
        }
        assert!(ran.is_err(), "call {at}, {:?}, failed and nobody noticed", fs.prevented()[0]);
        let again = case.fs(Accident::DeadFrom((at * 5 + 3) % calls));
        let _ = lab.drive(&again);
        let aborts = at % 2 == 0;
        if !aborts || Case::is_cleanup(&lab) {
            case.apply_named(&mut lab, at);
            assert_tree(&after, &lab.look(), at);
        }
        if !Case::is_cleanup(&lab) {
            case.undo(&mut lab);
            assert_tree(&before, &case.look_undone(&lab), at);

            let mut lab = case.lab();
            let _ = lab.drive(&case.fs(Accident::DeadFrom(at)));
            case.undo(&mut lab);
            assert_tree(&before, &case.look_undone(&lab), at);
        }
        let mut lab = case.lab();
        let _ = lab.drive(&case.fs(Accident::DeadFrom(at)));
        case.apply_named(&mut lab, at);
        assert_tree(&after, &lab.look(), at);
    }
    panic!("more than {CALLS_MAX} calls");
}

impl Case {
    #[track_caller]
    fn apply_named(&self, lab: &mut Lab, at: usize) {
        if lab.txn().phase() == Phase::Applied || matches!(lab.txn().phase(), Phase::Ended(_)) {
            return;
        }
        if let Err(error) = lab.drive(&self.sound()) {
            panic!("after a crash at call {at}: {}", chain(&error));
        }
    }
}

#[track_caller]
fn assert_tree(wanted: &Snapshot, found: &Snapshot, at: usize) {
    let lines = wanted.diff(found);
    assert!(lines.is_empty(), "after a crash at call {at}:\n{}", lines.join("\n"));
}

/// Dead at every call of the undo: taken up again, it ends in before.
pub fn undo_is_restartable(case: &Case) {
    let (before, ..) = case.reference();
    for at in 0..CALLS_MAX {
        let mut lab = case.lab();
        case.apply(&mut lab);
        lab.abort();
        let fs = case.fs(Accident::DeadFrom(at));
        let ran = lab.drive(&fs);
        if fs.prevented().is_empty() {
            assert_eq!(ran.unwrap(), Rest::Ended(Outcome::Aborted));
            return;
        }
        assert!(ran.is_err(), "call {at}, {:?}, failed and nobody noticed", fs.prevented()[0]);
        let _ = lab.drive(&case.fs(Accident::DeadFrom(at / 2)));
        if lab.txn().phase() == Phase::Aborting {
            case.undo(&mut lab);
        }
        assert_tree(&before, &case.look_undone(&lab), at);
    }
    panic!("more than {CALLS_MAX} calls");
}

/// A full disk or a bad medium at every call, once: it is told, and the next attempt succeeds.
pub fn errors_are_told_and_got_over(case: &Case) {
    let (before, after, calls) = case.reference();
    for at in 0..calls {
        let mut lab = case.lab();
        let fs = case.fs(Accident::Error(at, if at % 2 == 0 { 28 } else { 5 }));
        let ran = lab.drive(&fs);
        let failed = fs.prevented().remove(0);
        if ran.is_ok() {
            assert!(!failed.call.starts_with("sync"), "{failed:?} failed and nobody noticed");
        }
        case.apply_named(&mut lab, at);
        assert_tree(&after, &lab.look(), at);
        if Case::is_cleanup(&lab) {
            continue;
        }
        lab.abort();
        let fs = case.fs(Accident::Error(at, 5));
        let ran = lab.drive(&fs);
        if let (Ok(_), Some(failed)) = (&ran, fs.prevented().first()) {
            assert!(!failed.call.starts_with("sync"), "{failed:?} failed and nobody noticed");
        }
        if lab.txn().phase() == Phase::Aborting {
            case.undo(&mut lab);
        }
        assert_tree(&before, &case.look_undone(&lab), at);
    }
}

/// A look changes nothing, whatever state it finds.
pub fn probes_only_look(case: &Case) {
    let read_only = FaultFs::new(Accident::ReadOnly, case.lacking);
    let look_at = |lab: &Lab, wanted: &[Observed]| {
        let seen = lab.look();
        let mutation = lab.steps[0].mutation.clone();
        for direction in [Direction::Forward, Direction::Backward] {
            let inputs = lab.inputs();
            if direction == Direction::Backward && (Case::is_cleanup(lab) || inputs.is_none()) {
                continue;
            }
            let task =
                Task { step: StepId(0), mutation: &mutation, direction, inputs, furthest: Some(StepId(0)) };
            let sight = lab.with_machine(&read_only, |machine| machine.probe(&task)).unwrap();
            if direction == Direction::Forward {
                assert!(wanted.contains(&sight.seen), "{:?} is none of {wanted:?}", sight.seen);
            }
        }
        assert_same_tree(&seen, &lab.look());
    };
    let mut lab = case.lab();
    look_at(&lab, &[Observed::Before]);
    case.apply(&mut lab);
    let cleanup = Case::is_cleanup(&lab);
    lab.forget_last(if cleanup { 2 } else { 1 });
    look_at(&lab, &[if case.observable { Observed::After } else { Observed::Torn }]);
    let calls = case.reference().2;
    for at in 0..calls {
        let mut lab = case.lab();
        let _ = lab.drive(&case.fs(Accident::DeadFrom(at)));
        look_at(&lab, &[Observed::Before, Observed::Torn, Observed::After]);
    }
}

/// What nobody of this transaction made is named, and not touched.
pub fn i6_foreign_things_are_named_and_left_alone(case: &Case) {
    for foreign in case.foreign {
        let mut lab = case.lab();
        if foreign.intended {
            // The intent is the first record; the process died before it did anything.
            case.apply(&mut lab);
            lab.forget_last(1);
        }
        (foreign.make)(&lab);
        let seen = lab.look();
        match lab.drive(&case.sound()) {
            Err(DriveError::Foreign { what, .. }) => {
                assert!(what.contains(foreign.says), "`{what}` does not say `{}`", foreign.says);
            }
            other => panic!("{other:?} where `{}` is foreign", foreign.says),
        }
        assert_same_tree(&seen, &lab.look());
    }
}

/// I2: what an outcome tells is durable, also when the crash came between an effect and its sync. The step's last
/// name is given by a call that a sync of its directory must follow before the outcome, in whichever run.
pub fn i2_no_outcome_before_its_effect_is_durable(case: &Case) {
    let calls = case.reference().2;
    for at in 0..calls {
        let mut lab = case.lab();
        let dead = case.fs(Accident::DeadFrom(at));
        let _ = lab.drive(&dead);
        let resumed = case.sound();
        if lab.txn().phase() == Phase::Applied || lab.drive(&resumed).is_err() {
            continue;
        }
        let made: Vec<_> = dead
            .made()
            .into_iter()
            .filter(|made| made.performed)
            .chain(resumed.made())
            .filter(|made| !made.path.starts_with(lab.state.steps()))
            .collect();
        let mut unsynced: Vec<std::path::PathBuf> = Vec::new();
        for call in made {
            match call.call {
                "rename" | "exchange" => unsynced.push(call.path.parent().unwrap().to_owned()),
                "sync_dir" => unsynced.retain(|dir| *dir != call.path),
                "sync_fs" => unsynced.clear(),
                _ => {}
            }
        }
        // What was removed since needs no name.
        unsynced.retain(|dir| dir.exists());
        assert!(unsynced.is_empty(), "dead from call {at}, resumed, and never synced: {unsynced:?}");
    }
}

/// Makes the tests of a mutation's contract. A cleanup step, which runs only past the commit, has no undo.
macro_rules! contract {
    ($name:ident, cleanup, $case:expr) => {
        contract!(@module $name, $case, [applies, apply_is_restartable, errors_are_told_and_got_over,
            probes_only_look, i2_no_outcome_before_its_effect_is_durable,
            i6_foreign_things_are_named_and_left_alone]);
    };
    ($name:ident, apply, $case:expr) => {
        contract!(@module $name, $case, [applies, apply_is_restartable, errors_are_told_and_got_over,
            probes_only_look, i2_no_outcome_before_its_effect_is_durable,
            i6_foreign_things_are_named_and_left_alone, undoes, undo_is_restartable]);
    };
    (@module $name:ident, $case:expr, [$($check:ident),*]) => {
        mod $name {
            $(
                #[test]
                fn $check() {
                    use super::*;
                    crate::checks::$check(&$case);
                }
            )*
        }
    };
}
