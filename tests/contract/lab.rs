//! A scratch machine with one transaction on it, driven by the real engine over an accident-prone file system.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kytx::digest::Digest;
use kytx::effect::fs::{Attrs, Fs, Timestamp};
use kytx::effect::os::OsFs;
use kytx::effect::shell::{Call, Ran, Shell};
use kytx::engine::{Control, DriveError, Event, How, Rest, drive, record};
use kytx::hadoop::local::LocalHdfs;
use kytx::journal::{Journal, JournalError};
use kytx::mutate::{Machine, Progress};
use kytx::state_dir::StateDir;
use kytx::txn::{AbortReason, Header, Lsn, Mutation, Record, Stage, Step, Txn, TxnId, plan_digest};

use crate::fault_fs::FaultFs;
use crate::support::snapshot::Snapshot;

/// A journal that is only in memory: what a crash leaves of it is up to the test.
#[derive(Default)]
pub struct Journaled(pub Vec<Record>);

impl Journal for Journaled {
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        self.0.push(record.clone());
        Ok(Lsn(self.0.len() as u64))
    }
}

/// Nobody looks on.
pub struct Silent;

impl Progress for Silent {
    fn bytes(&self, _: u64) {}
    fn total(&self, _: u64) {}
    fn say(&self, _: &str) {}
}

/// No program may be run.
pub struct NoShell;

impl Shell for NoShell {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        panic!("`{}` was run", call.label);
    }
}

/// A scratch machine.
pub struct Lab {
    root: PathBuf,
    /// Holds the scratch directory, unless it is somebody else's.
    scratch: Option<tempfile::TempDir>,
    /// The state directory.
    pub state: StateDir,
    /// The steps of the transaction under test.
    pub steps: Vec<Step>,
    /// Names that no comparison looks at.
    pub ignored: Vec<String>,
    /// The records so far.
    pub journal: Journaled,
    /// What runs programs.
    pub shell: Box<dyn Shell>,
    /// Where processes are looked for.
    pub proc_root: PathBuf,
    /// How the steps of the last drive got through.
    pub hows: Mutex<Vec<How>>,
}

/// The transaction's name.
pub const TXN: &str = "0123456789abcdef";

impl Lab {
    /// An empty machine with a state directory for the home `opt/home`.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kytx-").tempdir().unwrap();
        let root = dir.path().to_owned();
        for name in ["opt", "proc"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let mut lab = Self::over(&root, &root.join("opt/home"));
        lab.proc_root = root.join("proc");
        lab.scratch = Some(dir);
        lab
    }

    /// A transaction on a home of a machine that is there.
    pub fn over(root: &Path, home: &Path) -> Self {
        let state = StateDir::default_for(home);
        state.prepare(&OsFs).unwrap();
        Self {
            root: root.to_owned(),
            scratch: None,
            state,
            steps: Vec::new(),
            ignored: ["steps", "plan"].map(|name| format!("opt/.kytx/home/{name}")).to_vec(),
            journal: Journaled::default(),
            shell: Box::new(NoShell),
            proc_root: PathBuf::from("/proc"),
            hows: Mutex::default(),
        }
    }

    /// The scratch directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A path in it as a `file:` path.
    pub fn uri(&self, path: &str) -> String {
        format!("file://{}", self.at(path).display())
    }

    /// Writes a file, with a time of its own, and whatever directories it needs.
    pub fn file(&self, path: &str, content: &str, mode: u32) {
        let full = self.at(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(&full, content).unwrap();
        fs::set_permissions(&full, fs::Permissions::from_mode(mode)).unwrap();
        let mtime = Some(Timestamp { s: 1_500_000_000 + content.len() as i64, ns: 123_456_789 });
        OsFs.set_attrs(&full, &Attrs { mtime, ..Attrs::default() }).unwrap();
    }

    /// Makes a symbolic link.
    pub fn link(&self, path: &str, target: &str) {
        symlink(target, self.at(path)).unwrap();
        let mtime = Some(Timestamp { s: 1_400_000_000, ns: 1 });
        OsFs.set_attrs(&self.at(path), &Attrs { mtime, ..Attrs::default() }).unwrap();
    }

    /// Adds a step.
    pub fn step(&mut self, name: &str, stage: Stage, mutation: Mutation) {
        self.steps.push(Step { name: name.to_owned(), stage, mutation });
    }

    /// Everything there is, but for what is ignored and for times that every change of a list of names sets.
    pub fn look(&self) -> Snapshot {
        let ignored: Vec<&str> = self.ignored.iter().map(String::as_str).collect();
        Snapshot::take(self.root(), &ignored).without_dir_times()
    }

    /// Writes the plan.
    pub fn seal(&mut self) {
        let header = Header {
            txn: TxnId(TXN.to_owned()),
            kytx: "0.1.0".to_owned(),
            began_unix_s: 0,
            home: self.at("opt/home").into(),
            old_version: "1".to_owned(),
            new_version: "2".to_owned(),
            package: "package".into(),
            user: "kylin".to_owned(),
            host: "node1".to_owned(),
        };
        self.journal.0 = vec![Record::Begin(header)];
        self.journal.0.extend(self.steps.iter().cloned().map(Record::Planned));
        let sealed = Record::Sealed { steps: self.steps.len() as u16, plan: plan_digest(&self.steps) };
        self.journal.0.push(sealed);
    }

    /// The transaction, as the journal tells it.
    pub fn txn(&self) -> Txn {
        Txn::replay(&self.journal.0).unwrap().unwrap()
    }

    /// Adds a record as a command does.
    pub fn append(&mut self, next: &Record) {
        let mut txn = self.txn();
        record(&mut txn, &mut self.journal, next).unwrap();
    }

    /// Turns round.
    pub fn abort(&mut self) {
        self.append(&Record::Abort { reason: AbortReason::Operator });
    }

    /// Takes the last record back, as if the crash had come just before it.
    pub fn forget_last(&mut self, times: usize) {
        let left = self.journal.0.len() - times;
        self.journal.0.truncate(left);
    }

    /// A new process takes the transaction up and drives it until it rests.
    pub fn drive(&mut self, fs: &FaultFs) -> Result<Rest, DriveError> {
        let mut txn = self.txn();
        let hdfs = LocalHdfs::new(fs);
        let never = || false;
        let mut machine = Machine::new(fs, &*self.shell, &hdfs, &self.state, &Silent, &never);
        machine.proc_root.clone_from(&self.proc_root);
        // One thread: the order of calls is then the same in every run.
        machine.threads = 1;
        let hows = &self.hows;
        hows.lock().unwrap().clear();
        let mut watch = |_: &Txn, event: &Event| {
            if let Event::Finished { how, .. } = event {
                hows.lock().unwrap().push(*how);
            }
        };
        let mut control = Control { stop_before: None, stop_requested: &never, watch: &mut watch };
        drive(&mut txn, &mut self.journal, &mut machine, &mut control)
    }

    /// Works on the machine without the engine.
    pub fn with_machine<T>(&self, fs: &FaultFs, work: impl FnOnce(&mut Machine<'_>) -> T) -> T {
        let hdfs = LocalHdfs::new(fs);
        let never = || false;
        let mut machine = Machine::new(fs, &*self.shell, &hdfs, &self.state, &Silent, &never);
        machine.proc_root.clone_from(&self.proc_root);
        machine.threads = 1;
        work(&mut machine)
    }

    /// The inputs of the first step, once its intent is there.
    pub fn inputs(&self) -> Option<Digest> {
        self.txn().inputs(kytx::txn::StepId(0))
    }
}
