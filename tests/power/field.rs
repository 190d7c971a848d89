//! A machine on a disk whose power is cut, and what it must be afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kytx::testbed::Knob;
use rustix::mount::{MountFlags, mount};

use crate::disk::{Cut, Disk, FileSystem, copy_sparse};
use crate::look::{self, Look, Standing, names};
use crate::namespace;
use crate::support::killer::{
    Counted, Interference, Moment, Outcome, Swallowed, Traced, Victims, run_interfered,
};
use crate::support::snapshot::Snapshot;
use crate::support::{Machine, PATIENCE, options};

/// A command whose power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Command {
    Begin,
    Abort,
    Commit,
    Resume,
}

/// One power cut.
#[derive(Clone, Copy, Debug)]
pub struct Blow {
    pub command: Command,
    pub moment: Moment,
    pub counted: Counted,
    pub swallowed: Swallowed,
    /// What the disk's cache makes of it.
    pub seed: u64,
}

/// What an undisturbed run of a command does.
#[derive(Clone, Debug)]
pub struct Measure {
    /// How many records it writes.
    pub records: usize,
    /// How many of them only say what is planned: nothing happens between those.
    pub planned: usize,
    /// How many calls it makes.
    pub calls: u64,
}

/// The machine, and images of its disk in the states that cuts begin from.
pub struct Field {
    pub file_system: FileSystem,
    pub cut: Cut,
    machine: Machine,
    mountpoint: PathBuf,
    images: PathBuf,
    old: Look,
    outside: Snapshot,
    new: Option<Look>,
    /// The steps of the upgrade, each with its stage.
    steps: Vec<(String, String)>,
}

/// What was promised before a cut.
#[derive(Clone, Copy, Debug)]
pub struct Aftermath {
    /// Whether the command had said that it was done.
    pub is_done: bool,
    /// How many records the journal must have.
    pub promised: u64,
}

impl Field {
    /// Builds the machine, on a disk of its own below this directory, which is gone with the process.
    pub fn new(dir: &Path, file_system: FileSystem, cut: Cut) -> Self {
        let (mountpoint, images) = (dir.join("disk"), dir.join("images"));
        for dir in [&mountpoint, &images] {
            fs::create_dir(dir).unwrap();
        }
        // In memory: a copy of an image for each way on costs milliseconds.
        mount("kytx-images", &images, "tmpfs", MountFlags::NODEV, None).unwrap();
        let base = images.join("base");
        file_system.make(&base).unwrap();
        let disk = Disk::mount(&base, file_system, &mountpoint).unwrap();
        let machine = Machine::within(&mountpoint, &options().major());
        machine.knobs.set(Knob::StoreSyncs, 1).unwrap();
        machine.start();
        let old = Look::of(&machine);
        let outside = look::elsewhere(&machine);
        machine.script("kylin.sh", &["stop"]).expect_code(0);
        namespace::end_all(None);
        disk.unmount().unwrap();
        Self { file_system, cut, machine, mountpoint, images, old, outside, new: None, steps: Vec::new() }
    }

    /// Runs a command undisturbed. The first one is `begin`: it makes the image that the others begin from.
    pub fn measure(&mut self, command: Command, counted: Counted) -> Measure {
        let work = self.copy_of(if command == Command::Begin { "base" } else { "applied" }, "work");
        let disk = Disk::mount(&work, self.file_system, &self.mountpoint).unwrap();
        self.boot();
        let blow = Blow { command, moment: Moment::Never, counted, swallowed: Swallowed::None, seed: 0 };
        let traced = self.trace(&blow, Box::new(|| ()));
        let Outcome::Finished { count, code: 0 } = traced.outcome else {
            panic!("{command:?} undisturbed: {traced:?}")
        };
        if command == Command::Begin && self.new.is_none() {
            self.new = Some(Look::of(&self.machine));
            self.steps = self.steps_planned();
        }
        namespace::end_all(None);
        disk.unmount().unwrap();
        if command == Command::Begin {
            fs::rename(&work, self.images.join("applied")).unwrap();
        }
        // The beginning, and each step.
        let planned = if command == Command::Begin { 1 + self.steps.len() } else { 0 };
        Measure { records: traced.twin_writes.len(), planned, calls: count }
    }

    /// Cuts the power during a command that begins from an image, and leaves the disk as the image `cut`. Returns what
    /// was promised by then.
    pub fn cut(&self, from: &str, blow: &Blow) -> Result<Aftermath, String> {
        let work = self.copy_of(from, "work");
        let after = self.images.join("cut");
        let disk = Disk::mount_to_cut(&work, self.file_system, &self.mountpoint, self.cut, &after).unwrap();
        let server = disk.server();
        // A machine in the middle of an upgrade was just switched on again.
        if blow.command != Command::Resume && from != "cut" {
            self.boot();
        }
        let before = self.standing().records;
        rustix::fs::syncfs(fs::File::open(&self.mountpoint).unwrap()).unwrap();
        let traced = self.trace(blow, disk.cutter(blow.seed).unwrap());
        let is_cut = traced.outcome == Outcome::Killed;
        if !is_cut {
            disk.cutter(blow.seed).unwrap()();
        }
        namespace::end_all(server);
        disk.unmount_cut(&after).unwrap();
        match traced.outcome {
            Outcome::Finished { code, .. } if code != 0 => {
                Err(format!("exit code {code}:\n{}{}", traced.stdout, traced.stderr))
            }
            _ => Ok(Aftermath {
                is_done: !is_cut,
                promised: before + durable_records(blow, &traced, before == 0),
            }),
        }
    }

    /// Does something with a copy of the disk that the last cut left, mounted as after a boot.
    pub fn after_cut<T>(&self, go_on: impl FnOnce(&Self) -> T) -> Result<T, String> {
        let work = self.copy_of("cut", "recovering");
        let disk = Disk::mount(&work, self.file_system, &self.mountpoint)
            .map_err(|error| format!("{} does not mount: {error}", self.file_system.name()))?;
        let answer = go_on(self);
        namespace::end_all(None);
        disk.unmount().unwrap();
        fs::remove_file(work).unwrap();
        Ok(answer)
    }

    /// kytx with a command on the home; its code and its output.
    pub fn type_command(&self, words: &[&str]) -> (i32, String) {
        let mut words = words.to_vec();
        words.push(self.machine.home.to_str().unwrap());
        let ran = self.machine.run(&words);
        (ran.code, format!("`{}` exits {}:\n{}{}", words[0], ran.code, ran.stdout, ran.stderr))
    }

    /// What the journal says.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.machine)
    }

    /// The cells that a grid must meet: each step, both ways, in each window.
    pub fn planned(&self) -> Vec<(String, String, String)> {
        let mut planned = Vec::new();
        for (stage, name) in &self.steps {
            let phases: &[&str] =
                if stage == "cleanup" { &["committing"] } else { &["applying", "aborting"] };
            for phase in phases {
                for window in ["before intent", "before outcome"] {
                    planned.push(((*phase).to_owned(), name.clone(), window.to_owned()));
                }
            }
        }
        planned
    }

    /// How the machine differs from the old release, as it was.
    pub fn differs_from_old(&self) -> Vec<String> {
        let mut lines = self.old.differences(&Look::of(&self.machine));
        lines.extend(self.differs_elsewhere());
        lines
    }

    /// What an ended abort has to have cleared away.
    pub fn left_by_abort(&self) -> Vec<String> {
        let mut names = names(&self.machine.working_dir);
        names.retain(|name| name != "kylin_metadata");
        if self.machine.root.join("opt/.kytx/kyligence/spare").exists() {
            names.push("spare".to_owned());
        }
        names
    }

    /// How the machine differs from the new release, as an undisturbed upgrade leaves it.
    pub fn differs_from_new(&self) -> Vec<String> {
        let new = self.new.as_ref().expect("BUG: it is measured first");
        let mut lines = new.differences_of_another_run(&Look::of(&self.machine));
        lines.extend(self.differs_elsewhere());
        lines
    }

    /// The operator starts the service, if it is not up, and it answers.
    pub fn start(&self) -> Result<(), String> {
        if !self.machine.is_ready() {
            let ran = self.machine.script("kylin.sh", &["start"]);
            if ran.code != 0 {
                return Err(format!("the service does not start: {}{}", ran.stdout, ran.stderr));
            }
            let begun = std::time::Instant::now();
            while !self.machine.is_ready() {
                if begun.elapsed() > PATIENCE {
                    return Err("the service does not get ready".to_owned());
                }
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
        let processes = self.machine.processes().unwrap();
        (processes.len() == 1).then_some(()).ok_or(format!("{processes:?} run for the product"))
    }

    /// A whole upgrade, from a machine on which nothing is open.
    pub fn begin_again(&self) -> Result<(), String> {
        let package = self.machine.package.to_str().unwrap();
        let (code, text) = self.type_command(&["begin", "--package", package, "--silent"]);
        if code != 0 {
            return Err(text);
        }
        let lines = self.differs_from_new();
        if lines.is_empty() { Ok(()) } else { Err(format!("begun again: {}", lines.join("\n  "))) }
    }

    fn steps_planned(&self) -> Vec<(String, String)> {
        let status = look::status(&self.machine).expect("an upgrade is open");
        let text = |step: &serde_json::Value, key: &str| step[key].as_str().unwrap().to_owned();
        let steps = status["steps"].as_array().unwrap().iter();
        steps.map(|step| (text(step, "stage"), text(step, "name"))).collect()
    }

    fn differs_elsewhere(&self) -> Vec<String> {
        self.outside.diff(&look::elsewhere(&self.machine))
    }

    fn boot(&self) {
        self.machine.start();
    }

    fn trace(&self, blow: &Blow, accident: Box<dyn FnOnce() + Send>) -> Traced {
        let (home, package) = (self.machine.home.to_str().unwrap(), self.machine.package.to_str().unwrap());
        let words: &[&str] = match blow.command {
            Command::Begin => &["begin", "--package", package, "--silent", home],
            Command::Abort => &["abort", "--yes", home],
            Command::Commit => &["commit", "--yes", home],
            Command::Resume => &["resume", home],
        };
        let Blow { moment, counted, swallowed, .. } = *blow;
        let interference =
            Interference { moment, counted, victims: Victims::Descendants, swallowed, accident };
        run_interfered(self.machine.kytx(words), interference)
    }

    fn copy_of(&self, from: &str, to: &str) -> PathBuf {
        let to = self.images.join(to);
        copy_sparse(&fs::File::open(self.images.join(from)).unwrap(), &to).unwrap();
        to
    }
}

/// How many of the records that a run wrote it had synced when it was stopped.
fn durable_records(blow: &Blow, traced: &Traced, is_first_journal: bool) -> u64 {
    let written = traced.twin_writes.len() as u64;
    let stopped_at = match (traced.outcome, blow.moment) {
        (Outcome::Finished { .. }, _) => return written,
        (_, Moment::Call { records: 0, n }) => n,
        (_, Moment::Call { records, n }) => traced.twin_writes[records - 1] + n,
        _ => 0,
    };
    // A new journal is made aside, and counts once it has its name.
    if is_first_journal && written <= 1 {
        return 0;
    }
    // After the write comes its sync; when the next call is about to happen, both have. A call of somebody else's says
    // nothing.
    let is_synced = blow.counted == Counted::Own
        && traced.twin_writes.last().is_some_and(|write| stopped_at >= write + 2);
    if is_synced { written } else { written.saturating_sub(1) }
}
