//! A machine on which something goes wrong, and the verdict on what it comes to: the new release or the old one, byte
//! for byte, and nothing else touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kytx::testbed::{Options, StoreContent};
use serde_json::Value;

use super::commands::{begin_words, metadata, state_dir, text};
use super::product::WRITTEN;
use super::snapshot::Snapshot;
use super::{Machine, Ran};

/// What is looked at in other ways, and the stand-in's own notes. Everything else on the machine is nobody's business.
const ELSEWHERE: [&str; 11] = [
    "image",
    "opt/kyligence",
    "opt/.kytx",
    "opt/kyligence.backup.tar.gz",
    "opt/kyligence.*.backup.tar.gz",
    "opt/filler",
    "opt/lost+found",
    "hdfs",
    "metadata",
    "metadata.restoring.*",
    "calls.log",
];

/// A machine whose old release runs, and what it must look like in the end.
pub struct Judged {
    /// The machine.
    pub machine: Machine,
    old: Snapshot,
    outside: Snapshot,
    old_metadata: StoreContent,
    old_cube: Snapshot,
    new: Option<Look>,
}

/// What an undisturbed upgrade makes.
struct Look {
    tree: Snapshot,
    metadata: StoreContent,
    cube: BTreeMap<PathBuf, Vec<u8>>,
}

impl Judged {
    /// A machine below `parent` whose service runs.
    pub fn new(parent: &Path, options: &Options) -> Self {
        Self::of(Machine::within(parent, options))
    }

    /// Takes a machine as it is, and starts its service.
    pub fn of(machine: Machine) -> Self {
        machine.start();
        Self {
            old: Snapshot::take(&machine.real_home, &WRITTEN),
            outside: Snapshot::take(&machine.root, &ELSEWHERE),
            old_metadata: metadata(&machine),
            old_cube: cube(&machine),
            new: None,
            machine,
        }
    }

    /// Notes what the machine is now as what an upgrade has to make of it.
    pub fn note_new(&mut self) {
        let tree = Snapshot::take(&self.machine.real_home, &WRITTEN);
        let cube = files(&self.machine.working_dir.join("kylin_metadata"));
        self.new = Some(Look { tree, metadata: metadata(&self.machine), cube });
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        state_dir(&self.machine)
    }

    /// The words of `begin`.
    pub fn begin_words(&self, more: &[&str]) -> Vec<String> {
        begin_words(&self.machine, more).into_iter().map(str::to_owned).collect()
    }

    /// The words of a command on the home.
    pub fn words(&self, command: &[&str]) -> Vec<String> {
        command.iter().copied().chain([text(&self.machine.home)]).map(str::to_owned).collect()
    }

    /// Runs a command undisturbed.
    pub fn run(&self, words: &[String]) -> Ran {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.machine.run(&words)
    }

    /// `none` if there is no journal.
    pub fn phase(&self) -> String {
        let ran = self.run(&self.words(&["status", "--json"]));
        let status: Option<Value> = (ran.code == 0).then(|| serde_json::from_str(&ran.stdout).unwrap());
        status.map_or("none".to_owned(), |status| status["phase"].as_str().unwrap().to_owned())
    }

    /// Everything in which the machine is not the upgraded one, still open.
    pub fn not_new(&self) -> Vec<String> {
        let new = self.new.as_ref().expect("what is new was noted");
        let tree = Snapshot::take(&self.machine.real_home, &WRITTEN);
        let mut wrong = told("the new tree", &new.tree.diff_but_dir_times(&tree));
        wrong.extend(unless("the new metadata", new.metadata == metadata(&self.machine)));
        let cube = files(&self.machine.working_dir.join("kylin_metadata"));
        wrong.extend(unless("the new cube data", new.cube == cube));
        wrong.extend(self.wrong_around());
        wrong
    }

    /// Everything in which the machine is not as it was. An abort leaves the archive to the operator, who clears it
    /// away here.
    pub fn not_old(&self) -> Vec<String> {
        let tree = Snapshot::take(&self.machine.real_home, &WRITTEN);
        let mut wrong = told("the old tree", &self.old.diff(&tree));
        wrong.extend(unless("the old metadata", self.old_metadata == metadata(&self.machine)));
        wrong.extend(told("the old cube data", &self.old_cube.diff(&cube(&self.machine))));
        wrong.extend(self.wrong_around());
        wrong.extend(self.left_in_data());
        wrong.extend(unless("no spare tree", !self.state().join("spare").exists()));
        let opt = self.machine.root.join("opt");
        for name in names(&opt).into_iter().filter(|name| name.ends_with(".backup.tar.gz")) {
            fs::remove_file(opt.join(name)).unwrap();
        }
        wrong
    }

    /// Everything in which the machine is not the upgraded one with nothing left of the way back.
    pub fn not_committed(&self) -> Vec<String> {
        let mut wrong = self.not_new();
        wrong.extend(self.left_in_data());
        let left: Vec<String> = names(&self.machine.root.join("opt"))
            .into_iter()
            .filter(|name| ![".kytx", "kyligence", "lost+found"].contains(&name.as_str()))
            .collect();
        wrong.extend(told("left beside the home", &left));
        let state = self.state();
        let known = ["backup", "ballast", "child", "holder.json", "journal", "journal.log", "lock", "log"];
        let known = [&known[..], &["history", "plan", "steps"]].concat();
        let strange: Vec<String> =
            names(&state).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        wrong.extend(told("left in the state directory", &strange));
        wrong
    }

    /// What holds in every end: one service that answers, and nothing else on the machine touched.
    fn wrong_around(&self) -> Vec<String> {
        let mut wrong = unless("the service answers", self.machine.is_ready());
        let processes = self.machine.processes().unwrap();
        wrong.extend(unless(&format!("one process of the product, not {processes:?}"), processes.len() == 1));
        let outside = Snapshot::take(&self.machine.root, &ELSEWHERE);
        wrong.extend(told("elsewhere", &self.outside.diff(&outside)));
        wrong
    }

    fn left_in_data(&self) -> Vec<String> {
        let names = names(&self.machine.working_dir);
        unless(&format!("a clean working directory, not {names:?}"), names == ["kylin_metadata"])
    }
}

fn unless(what: &str, holds: bool) -> Vec<String> {
    if holds { Vec::new() } else { vec![format!("expected: {what}")] }
}

fn told(what: &str, lines: &[String]) -> Vec<String> {
    if lines.is_empty() { Vec::new() } else { vec![format!("{what}:\n  {}", lines.join("\n  "))] }
}

/// The cube data. Large metadata entries are files there too, which a restore of the product writes anew; they are
/// compared as metadata.
fn cube(machine: &Machine) -> Snapshot {
    Snapshot::take(&machine.working_dir.join("kylin_metadata"), &["resources-jdbc"])
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in names(dir) {
        let path = dir.join(name);
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
