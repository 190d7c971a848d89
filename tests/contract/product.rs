//! The mutations that run the product's scripts, against the stand-in: scripts that fail, kytx dead around each of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kytx::effect::os::OsFs;
use kytx::effect::run_log::RunLog;
use kytx::effect::shell::{Call, OsShell, Ran, Shell};
use kytx::effect::signal::StopRequests;
use kytx::effect::tree::{copy_tree, no_tick};
use kytx::engine::{DriveError, How, Rest, Task, World};
use kytx::kyligence::service::script_call;
use kytx::mutate::metadata_manifest_path;
use kytx::testbed::{Knob, StoreContent};
use kytx::txn::{CopyPass, CubeCopy, Direction, Mutation, Observed, Outcome, Phase, Stage, StepId};

use crate::checks::chain;
use crate::fault_fs::{Accident, FaultFs, Lacking};
use crate::lab::{Lab, TXN};
use crate::support::snapshot::{Snapshot, assert_same_tree};
use crate::support::{Machine, options};

/// What happens around a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    Nothing,
    /// kytx dies before this script is run, counted from 0.
    DeadBefore(usize),
    /// kytx dies after this script has run.
    DeadAfter(usize),
}

/// The scripts, with kytx dying around one of them.
struct Scripts {
    log: RunLog,
    child: PathBuf,
    java_home: PathBuf,
    around: Rc<Cell<Around>>,
    calls: Rc<Cell<usize>>,
    recorded: Rc<RefCell<Option<Recorded>>>,
}

/// What `metastore.sh backup` said and wrote once, for sweeps in which it would be run a hundred times.
struct Recorded {
    ran: Ran,
    copy: PathBuf,
    dir: PathBuf,
    /// What it listed, by the call.
    listed: RefCell<BTreeMap<String, Ran>>,
}

impl Shell for Scripts {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        let number = self.calls.replace(self.calls.get() + 1);
        let dead = || Err(io::Error::other("the process is gone"));
        let (before, after) = match self.around.get() {
            Around::Nothing => (false, false),
            Around::DeadBefore(from) => (number >= from, false),
            Around::DeadAfter(from) => (number > from, number == from),
        };
        if before {
            return dead();
        }
        if call.label == "metastore.sh backup"
            && let Some(recorded) = &*self.recorded.borrow()
        {
            fs::create_dir_all(recorded.dir.parent().unwrap()).unwrap();
            copy_tree(&OsFs, &recorded.copy, &recorded.dir, &no_tick)?;
            return if after { dead() } else { Ok(recorded.ran.clone()) };
        }
        let recorded = self.recorded.borrow();
        let known = recorded.as_ref().and_then(|recorded| recorded.listed.borrow().get(&call.label).cloned());
        if let Some(ran) = known {
            return if after { dead() } else { Ok(ran) };
        }
        let mut call = call.clone();
        call.set.insert("JAVA_HOME".into(), self.java_home.clone().into());
        let ran =
            OsShell::new(self.child.clone(), &self.log, str::to_owned, StopRequests::none()).run(&call)?;
        if let Some(recorded) = &*recorded
            && call.label.starts_with("metastore.sh list")
        {
            recorded.listed.borrow_mut().insert(call.label.clone(), ran.clone());
        }
        if after { dead() } else { Ok(ran) }
    }
}

/// A machine with a home in use, and a transaction on it.
struct Bench {
    machine: Machine,
    lab: Lab,
    around: Rc<Cell<Around>>,
    calls: Rc<Cell<usize>>,
    recorded: Rc<RefCell<Option<Recorded>>>,
}

impl Bench {
    fn new() -> Self {
        let machine = Machine::new(&options().major());
        let mut lab = Lab::over(&machine.root, &machine.real_home);
        let (around, calls) = (Rc::new(Cell::new(Around::Nothing)), Rc::default());
        let recorded: Rc<RefCell<Option<Recorded>>> = Rc::default();
        lab.shell = Box::new(Scripts {
            log: RunLog::create(&lab.state.log(), "test").unwrap(),
            child: lab.state.child(),
            java_home: machine.java_home.clone(),
            around: Rc::clone(&around),
            calls: Rc::clone(&calls),
            recorded: Rc::clone(&recorded),
        });
        Self { machine, lab, around, calls, recorded }
    }

    fn home(&self) -> kytx::raw_path::RawPath {
        self.machine.real_home.as_path().into()
    }

    fn backup(&self) -> PathBuf {
        self.lab.state.backup().join(TXN).join("metadata")
    }

    fn cube(&self) -> CubeCopy {
        let uri = |path: &Path| format!("file://{}", path.display()).as_str().into();
        let root = self.machine.working_dir.join("_kytx").join(TXN);
        CubeCopy { source: uri(self.machine.store.working()), root: uri(&root) }
    }

    /// Begins a transaction of one step.
    fn plan(&mut self, mutation: Mutation) {
        self.lab.steps.clear();
        self.lab.step("step", Stage::Apply, mutation);
        self.lab.seal();
    }

    fn set(&self, around: Around) {
        self.around.set(around);
        self.calls.set(0);
    }

    fn drive(&mut self, accident: Accident) -> Result<Rest, DriveError> {
        self.lab.drive(&FaultFs::new(accident, Lacking::default()))
    }

    #[track_caller]
    fn go_on(&mut self) -> Rest {
        self.set(Around::Nothing);
        self.drive(Accident::None).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    #[track_caller]
    fn apply(&mut self) {
        assert_eq!(self.go_on(), Rest::Applied);
    }

    #[track_caller]
    fn undo(&mut self) {
        if self.lab.txn().phase() != Phase::Aborting {
            self.lab.abort();
        }
        assert_eq!(self.go_on(), Rest::Ended(Outcome::Aborted));
    }

    fn hows(&self) -> Vec<How> {
        self.lab.hows.lock().unwrap().clone()
    }

    /// What a look sees, which changes nothing.
    fn probe(&self, direction: Direction) -> Observed {
        let fs = FaultFs::new(Accident::ReadOnly, Lacking::default());
        let mutation = self.lab.steps[0].mutation.clone();
        let task = Task {
            step: StepId(0),
            mutation: &mutation,
            direction,
            inputs: self.lab.inputs(),
            furthest: Some(StepId(0)),
        };
        self.lab.with_machine(&fs, |machine| machine.probe(&task)).unwrap().seen
    }

    /// Entries of the store with their content, but for what every command of the product rewrites (reference 22.6).
    fn metadata(&self) -> StoreContent {
        let mut content = self.machine.store.content().unwrap();
        content.retain(|path, _| !path.starts_with("/user") && !path.starts_with("user"));
        content
    }

    /// Names of backups have a second in them: two of one second would meet.
    fn clear_backups(&self) {
        let _ = fs::remove_dir_all(self.machine.real_home.join("meta_backups"));
        let _ = fs::remove_dir_all(self.lab.state.backup().join(TXN));
    }

    /// Lets the tool make one backup, and repeats that from then on.
    fn record_backup(&mut self) {
        let parent = self.machine.real_home.join("meta_backups");
        let _ = fs::remove_dir_all(&parent);
        let call = script_call(&self.machine.real_home, "metastore.sh", &["backup"], None);
        let ran = self.lab.shell.run(&call).unwrap();
        let dir = fs::read_dir(&parent).unwrap().next().unwrap().unwrap().path();
        let copy = self.machine.root.join("recorded");
        fs::rename(&dir, &copy).unwrap();
        *self.recorded.borrow_mut() = Some(Recorded { ran, copy, dir, listed: RefCell::default() });
    }

    fn back_up(&mut self) {
        let (home, backup) = (self.home(), self.backup().into());
        self.plan(Mutation::BackUpMetadata { home, backup });
    }
}

#[test]
fn back_up_metadata_keeps_its_contract() {
    let mut bench = Bench::new();
    let metadata = bench.metadata();
    bench.back_up();
    assert_eq!(bench.probe(Direction::Forward), Observed::Before);
    let fs = FaultFs::new(Accident::None, Lacking::default());
    assert_eq!(bench.lab.drive(&fs).unwrap(), Rest::Applied);
    let made = Snapshot::take(&bench.backup(), &[]).without_dir_times();
    assert!(made.len() > 5);
    let syncs_by_file = |fs: &FaultFs| {
        let made = fs.made();
        let file_by_file =
            made.iter().filter(|made| made.call == "sync" && made.path.starts_with(bench.lab.state.backup()));
        (file_by_file.count(), made.iter().filter(|made| made.call == "sync_fs").count())
    };
    // A small one is synced file by file: writing out everybody's dirty data would cost more.
    assert!(syncs_by_file(&fs).0 > 5 && syncs_by_file(&fs).1 == 0, "{:?}", syncs_by_file(&fs));
    // Twice is once, as its manifest and its name tell.
    bench.lab.forget_last(1);
    assert_eq!(bench.probe(Direction::Forward), Observed::After);
    bench.apply();
    assert_eq!(bench.hows(), [How::AlreadyDone]);
    // A backup harms nobody: it stays.
    bench.undo();
    assert_same_tree(&made, &Snapshot::take(&bench.backup(), &[]).without_dir_times());
    assert_eq!(bench.metadata(), metadata);
    // One that was there before is nobody's.
    bench.back_up();
    assert!(matches!(bench.drive(Accident::None), Err(DriveError::Foreign { .. })));

    // A large one is synced as a whole, and the manifest by itself.
    bench.clear_backups();
    for number in 0..300 {
        bench.machine.store.put(&format!("cube/bulk-{number}.json"), b"{}").unwrap();
    }
    bench.back_up();
    let fs = FaultFs::new(Accident::None, Lacking::default());
    bench.lab.drive(&fs).unwrap();
    let made = fs.made();
    let by_file = made
        .iter()
        .filter(|made| made.call == "sync" && made.path.starts_with(bench.lab.state.backup()))
        .count();
    assert_eq!((by_file, made.iter().filter(|made| made.call == "sync_fs").count()), (1, 2));

    // Without syncfs every file is synced by the handle that wrote it, all of them before the rename.
    bench.clear_backups();
    bench.back_up();
    let fs = FaultFs::new(Accident::None, Lacking { sync_fs: true, exchange: true });
    bench.lab.drive(&fs).unwrap();
    let calls = fs.made();
    let named = calls.iter().rposition(|made| made.call == "rename" && made.path == bench.backup()).unwrap();
    let synced = calls[..named].iter().filter(|made| made.call == "sync").count();
    let created = calls[..named].iter().filter(|made| made.call == "create").count();
    assert_eq!(synced, created);
}

#[test]
fn i11_back_up_metadata_is_restartable_at_every_call() {
    let mut bench = Bench::new();
    bench.record_backup();
    bench.back_up();
    let fs = FaultFs::new(Accident::None, Lacking::default());
    bench.lab.drive(&fs).unwrap();
    let calls = fs.made().len();
    for at in 0..calls {
        bench.clear_backups();
        bench.back_up();
        let accident = if at % 2 == 0 { Accident::DeadFrom(at) } else { Accident::Error(at, 28) };
        assert!(bench.drive(accident).is_err(), "call {at} of {calls}");
        // A later second, in which a backup of its own is made.
        let _ = fs::remove_dir_all(bench.machine.real_home.join("meta_backups"));
        bench.apply();
        assert!(
            metadata_manifest_path(&bench.backup().into()).exists() && bench.backup().join("UUID").exists()
        );
    }
    // The listings before, the backup, the listings after.
    bench.clear_backups();
    bench.back_up();
    bench.set(Around::Nothing);
    bench.drive(Accident::None).unwrap();
    let scripts = bench.calls.get();
    for at in [0, 1, scripts / 2, scripts - 4, scripts - 3, scripts - 2, scripts - 1] {
        for around in [Around::DeadBefore(at), Around::DeadAfter(at)] {
            bench.clear_backups();
            bench.back_up();
            bench.set(around);
            assert!(bench.drive(Accident::None).is_err(), "{around:?} of {scripts}");
            bench.clear_backups();
            bench.apply();
        }
    }
}

#[test]
fn a_metadata_backup_that_lies_is_refused_and_later_made() {
    let mut bench = Bench::new();
    let metadata = bench.metadata();
    for lie in ["empty", "uuid-only", "failed-copy", "killed"] {
        bench.clear_backups();
        bench.machine.knobs.set(Knob::BackupMode, lie).unwrap();
        bench.back_up();
        assert!(matches!(bench.drive(Accident::None), Err(DriveError::Failed { .. })), "{lie}");
        assert!(!bench.backup().exists(), "{lie}");
        bench.machine.knobs.unset(Knob::BackupMode).unwrap();
        bench.clear_backups();
        bench.apply();
        assert_eq!(bench.metadata(), metadata, "{lie}");
    }
}

/// Everything backed up; what follows is the step under test.
fn backed_up() -> (Bench, StoreContent, Snapshot) {
    let mut bench = Bench::new();
    let (metadata, cube_data) = (bench.metadata(), cube_of(&bench));
    bench.back_up();
    bench.apply();
    for pass in [CopyPass::Early, CopyPass::Final] {
        let cube = bench.cube();
        bench.plan(Mutation::CopyCubeData { cube, pass });
        bench.apply();
    }
    let (home, backup, cube) = (bench.home(), bench.backup().into(), Some(bench.cube()));
    bench.plan(Mutation::HandOverData { home, backup, cube, effective_from: StepId(0) });
    (bench, metadata, cube_data)
}

/// Large metadata entries are files there too, which the product's restore writes anew.
fn cube_of(bench: &Bench) -> Snapshot {
    Snapshot::take(bench.machine.store.working(), &["resources-jdbc"]).without_dir_times()
}

/// What the new release does once it may.
fn migrate(bench: &Bench) {
    bench.machine.store.put("cube/sales_cube.json", b"changed").unwrap();
    bench.machine.store.put("cube/added.json", b"added").unwrap();
    let parquet = bench.machine.store.working().join("parquet");
    fs::write(parquet.join("sales_cube/0.parquet"), "changed").unwrap();
    fs::remove_dir_all(parquet.join("web_cube")).unwrap();
}

#[track_caller]
fn assert_back(bench: &Bench, metadata: &StoreContent, cube: &Snapshot) {
    assert_eq!(bench.metadata(), *metadata);
    assert_same_tree(cube, &cube_of(bench));
}

#[test]
fn hand_over_data_keeps_its_contract() {
    let (mut bench, metadata, cube) = backed_up();
    bench.apply();
    assert_eq!(
        bench.probe(Direction::Forward),
        Observed::Torn,
        "nobody can see whether anything was changed"
    );
    bench.lab.forget_last(1);
    bench.apply();
    assert_eq!(bench.hows(), [How::Performed]);
    migrate(&bench);
    bench.undo();
    assert_back(&bench, &metadata, &cube);
    bench.lab.forget_last(2);
    bench.undo();
    assert_back(&bench, &metadata, &cube);
}

#[test]
fn i7_a_damaged_backup_is_never_restored() {
    let (mut bench, ..) = backed_up();
    bench.apply();
    migrate(&bench);
    let (changed, cube) = (bench.metadata(), cube_of(&bench));
    let copied = bench.machine.working_dir.join("_kytx").join(TXN).join("copy/parquet/web_cube/0.parquet");
    fs::write(&copied, "damaged").unwrap();
    bench.lab.abort();
    let told = bench.drive(Accident::None).unwrap_err();
    assert!(chain(&told).contains("the copy of the cube data is damaged"), "{}", chain(&told));
    assert_back(&bench, &changed, &cube);
}

#[test]
fn i11_the_way_back_is_restartable_around_every_script_and_every_call() {
    let (mut bench, ..) = backed_up();
    bench.apply();
    migrate(&bench);
    bench.lab.abort();
    bench.set(Around::Nothing);
    let fs = FaultFs::new(Accident::None, Lacking::default());
    bench.lab.drive(&fs).unwrap();
    let (calls, scripts) = (fs.made().len(), bench.calls.get());
    assert!(calls >= 6 && scripts == 2, "{calls} calls, {scripts} scripts");
    let mut accidents: Vec<(Accident, Around)> =
        (0..calls).map(|at| (Accident::DeadFrom(at), Around::Nothing)).collect();
    for script in 0..scripts {
        accidents.push((Accident::None, Around::DeadBefore(script)));
        accidents.push((Accident::None, Around::DeadAfter(script)));
    }
    for (accident, around) in accidents {
        let (mut bench, metadata, cube) = backed_up();
        bench.apply();
        migrate(&bench);
        bench.lab.abort();
        bench.set(around);
        assert!(bench.drive(accident).is_err(), "{accident:?} {around:?}");
        bench.undo();
        assert_back(&bench, &metadata, &cube);
    }
    for mode in ["half", "killed"] {
        let (mut bench, metadata, cube) = backed_up();
        bench.apply();
        migrate(&bench);
        bench.machine.knobs.set(Knob::RestoreMode, mode).unwrap();
        bench.lab.abort();
        assert!(bench.drive(Accident::None).is_err(), "{mode}");
        bench.machine.knobs.unset(Knob::RestoreMode).unwrap();
        bench.undo();
        assert_back(&bench, &metadata, &cube);
    }
}

#[test]
fn stop_and_start_keep_their_contract() {
    let mut bench = Bench::new();
    let stop = Mutation::StopService { home: bench.home(), start_timeout_s: 60 };
    let start = Mutation::StartService { home: bench.home(), start_timeout_s: 60 };
    // It does not run: found so, and an abort starts nothing.
    bench.plan(stop.clone());
    bench.apply();
    assert_eq!(bench.hows(), [How::Found]);
    bench.undo();
    assert_eq!(bench.machine.processes().unwrap(), [0; 0]);

    bench.machine.start();
    // It runs, and nobody of this transaction has started it.
    bench.plan(start.clone());
    assert!(matches!(bench.drive(Accident::None), Err(DriveError::Foreign { .. })));
    assert!(bench.machine.is_ready());

    for around in [Around::Nothing, Around::DeadBefore(0), Around::DeadAfter(0)] {
        bench.plan(stop.clone());
        bench.set(around);
        assert_eq!(bench.drive(Accident::None).is_ok(), around == Around::Nothing, "{around:?}");
        if around != Around::Nothing {
            bench.apply();
        }
        assert!(!bench.machine.is_ready(), "{around:?}");
        bench.lab.forget_last(1);
        bench.apply();
        assert_eq!(bench.hows(), [How::AlreadyDone]);
        bench.lab.abort();
        bench.set(around);
        assert_eq!(bench.drive(Accident::None).is_ok(), around == Around::Nothing, "{around:?}");
        if around != Around::Nothing {
            bench.undo();
        }
        assert!(bench.machine.is_ready(), "{around:?}");
    }
    // Undoing where nothing was done: it still runs, and goes on.
    let pid = bench.machine.pid();
    bench.plan(stop.clone());
    bench.set(Around::DeadBefore(0));
    assert!(bench.drive(Accident::None).is_err());
    bench.undo();
    assert_eq!(bench.machine.pid(), pid);

    bench.plan(stop);
    bench.apply();
    for around in [Around::Nothing, Around::DeadBefore(0), Around::DeadAfter(0)] {
        bench.plan(start.clone());
        bench.set(around);
        assert_eq!(bench.drive(Accident::None).is_ok(), around == Around::Nothing, "{around:?}");
        if around != Around::Nothing {
            bench.apply();
        }
        assert!(bench.machine.is_ready(), "{around:?}");
        bench.lab.forget_last(1);
        // The script was killed in its last act.
        let lock = bench.machine.home.join("LOCK");
        fs::write(&lock, "").unwrap();
        bench.apply();
        assert_eq!(bench.hows(), [How::AlreadyDone]);
        assert!(!lock.exists(), "it would keep the operator from starting the service");
        bench.lab.abort();
        bench.set(around);
        assert_eq!(bench.drive(Accident::None).is_ok(), around == Around::Nothing, "{around:?}");
        if around != Around::Nothing {
            bench.undo();
        }
        assert_eq!(bench.machine.processes().unwrap(), [0; 0], "{around:?}");
    }
}
