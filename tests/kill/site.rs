//! A machine on which kytx is killed, what it must look like afterwards, and what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kytx::testbed::{Options, StoreContent};
use serde_json::Value;

use crate::moments::{Measured, Windows};
use crate::support::Machine;
use crate::support::killer::{Counted, Outcome, Traced, Victims, run_killed_after, run_killed_at};
use crate::support::snapshot::Snapshot;

/// What the product itself writes into a home whenever one of its scripts runs.
const PRODUCT: [&str; 9] = [
    "logs",
    "pid",
    "bin/cached-*.sh",
    "logrotate",
    "tomcat/webapps",
    "tomcat/logs",
    "conf/fairscheduler.xml",
    "meta_backups",
    "ext",
];

/// What is looked at in other ways, and the stand-in's own notes. Everything else on the machine is nobody's business.
const ELSEWHERE: [&str; 8] = [
    "opt/kyligence",
    "opt/.kytx",
    "opt/kyligence.backup.tar.gz",
    "opt/kyligence.*.backup.tar.gz",
    "hdfs",
    "metadata",
    "metadata.restoring.*",
    "calls.log",
];

/// Where a command is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Applied,
    Aborted,
    Committed,
}

/// What was done and found.
pub struct Tally {
    series: &'static str,
    /// Every moment at which a run was killed: what was typed, and the call.
    pub moments: BTreeSet<(String, u64)>,
    /// How many kills hit a recovery.
    pub second_kills: u64,
    /// The steps in hand when a kill came, with their phase.
    pub reached: BTreeSet<(String, String)>,
    /// The steps that there are, with each phase they can be in.
    pub planned: BTreeSet<(String, String)>,
    pub violations: Vec<String>,
}

impl Tally {
    pub fn new(series: &'static str) -> Self {
        Self {
            series,
            moments: BTreeSet::new(),
            second_kills: 0,
            reached: BTreeSet::new(),
            planned: BTreeSet::new(),
            violations: Vec::new(),
        }
    }
}

/// A machine in use.
pub struct Site {
    machine: Machine,
    counted: Counted,
    victims: Victims,
    old: Snapshot,
    outside: Snapshot,
    old_metadata: StoreContent,
    old_cube: Snapshot,
    new: Option<Look>,
    plan_length: usize,
    /// How many violations there were when it was built.
    pub violations_seen: usize,
    /// What was typed on this machine since it was last as it had been, for whoever reads of a violation.
    story: Vec<String>,
}

/// What an undisturbed upgrade makes.
struct Look {
    tree: Snapshot,
    metadata: StoreContent,
    cube: BTreeMap<PathBuf, Vec<u8>>,
}

impl Site {
    /// A machine whose service runs.
    pub fn new(options: &Options, counted: Counted, victims: Victims) -> Self {
        let machine = Machine::new(options);
        machine.start();
        Self {
            counted,
            victims,
            old: Snapshot::take(&machine.real_home, &PRODUCT),
            outside: Snapshot::take(&machine.root, &ELSEWHERE),
            old_metadata: settled(&machine),
            old_cube: cube(&machine),
            new: None,
            plan_length: 0,
            violations_seen: 0,
            story: Vec::new(),
            machine,
        }
    }

    /// Runs each command undisturbed: once upgraded and undone here, and once committed on a machine like it.
    pub fn measure(&mut self, tally: &mut Tally) -> Measured {
        let begin = self.measure_upgrade();
        let steps = self.plan(tally);
        let (cuts, calls) = self.undisturbed(&self.abort_command());
        let abort = Windows::new(&cuts, calls);
        self.check_old(tally);
        let mut other = Self::new(&self.machine.options, self.counted, self.victims);
        other.measure_upgrade();
        let (cuts, calls) = other.undisturbed(&other.commit_command());
        let commit = Windows::new(&cuts, calls);
        other.check_committed(tally);
        Measured { begin, abort, commit, steps }
    }

    /// An undisturbed upgrade, and what it makes.
    pub fn measure_upgrade(&mut self) -> Windows {
        let mut cuts = self.undisturbed(&self.begin_command());
        // Begin, the steps planned, Sealed: nothing happens between them.
        let steps = self.status().expect("an upgrade is open")["steps"].as_array().unwrap().len();
        self.plan_length = steps;
        cuts.0.drain(..=steps);
        let windows = Windows::new(&cuts.0, cuts.1);
        let tree = Snapshot::take(&self.machine.real_home, &PRODUCT);
        let metadata = settled(&self.machine);
        self.new =
            Some(Look { tree, metadata, cube: files(&self.machine.working_dir.join("kylin_metadata")) });
        windows
    }

    /// The calls that wrote records, and how many calls there were.
    fn undisturbed(&self, args: &[String]) -> (Vec<u64>, u64) {
        let traced = self.trace(args, 0);
        let Outcome::Finished { count, code: 0 } = traced.outcome else { panic!("{args:?}: {traced:?}") };
        assert!(traced.twin_writes.len() >= 3, "the journal was written: {:?}", traced.twin_writes);
        (traced.twin_writes, count)
    }

    fn plan(&self, tally: &mut Tally) -> Vec<String> {
        let mut steps = Vec::new();
        let status = self.status().expect("an upgrade is open");
        for step in status["steps"].as_array().unwrap() {
            let name = step["name"].as_str().unwrap().to_owned();
            if step["stage"] == "cleanup" {
                tally.planned.insert(("committing".to_owned(), name));
            } else {
                tally.planned.insert(("applying".to_owned(), name.clone()));
                tally.planned.insert(("aborting".to_owned(), name.clone()));
                steps.push(name);
            }
        }
        steps
    }

    /// `begin`, killed at this call.
    pub fn begin(&mut self, at: u64, tally: &mut Tally) {
        let command = self.begin_command();
        self.kill(&command, at, false, tally);
        self.look(tally);
    }

    /// `begin`, and once it is through `abort`, each killed at its second call after the intent of a step: the
    /// `number`-th of `begin`, the `back`-th of `abort`.
    pub fn meet(&mut self, number: usize, back: usize, tally: &mut Tally) {
        // Begin, Sealed, the steps planned, two records for each step before; the decision to abort.
        let planned = 2 + self.plan_length;
        self.kill_within("begin", planned + 2 * number + 1, tally);
        self.go(Goal::Applied, &[], tally);
        self.check_new(tally);
        self.kill_within("abort", 1 + 2 * back + 1, tally);
        self.go(Goal::Aborted, &[], tally);
        self.check_old(tally);
    }

    fn kill_within(&mut self, command: &str, records: usize, tally: &mut Tally) {
        let args = if command == "begin" { self.begin_command() } else { self.abort_command() };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let traced = run_killed_after(self.machine.kytx(&args), records, 2, self.counted, self.victims);
        self.story.push(format!("{command} killed after record {records}: {:?}", traced.outcome));
        let calls = traced.twin_writes.last().copied().unwrap_or_default() + 2;
        match (traced.outcome, self.step_in_hand()) {
            (Outcome::Killed, Some(step)) => {
                tally.moments.insert((command.to_owned(), calls));
                tally.reached.insert(step);
            }
            other => {
                self.violation(tally, &format!("not killed within a step: {other:?}: {}", traced.stderr));
            }
        }
        self.look(tally);
    }

    /// Types what leads to a goal, killed once at each of these calls, until it is reached.
    pub fn go(&mut self, goal: Goal, kills: &[u64], tally: &mut Tally) {
        for (number, at) in kills.iter().copied().chain([0]).enumerate() {
            let Some(command) = self.next_command(goal, number) else { return };
            let is_recovery = goal == Goal::Applied || number > 0;
            self.kill(&command, at, is_recovery, tally);
            self.look(tally);
        }
        if self.next_command(goal, 0).is_some() && goal != Goal::Applied {
            self.violation(tally, &format!("it does not end {goal:?}"));
        }
    }

    /// What an operator types; nothing once the goal is reached. Where two commands do it, they take turns.
    fn next_command(&self, goal: Goal, number: usize) -> Option<Vec<String>> {
        let phase = self.phase();
        let resume = self.command(&["resume"]);
        Some(match (goal, phase.as_str()) {
            (_, "none" | "ended") | (Goal::Applied, "applied") => return None,
            (Goal::Aborted, "aborting") if number.is_multiple_of(2) => self.abort_command(),
            (Goal::Committed, "committing") if number.is_multiple_of(2) => self.commit_command(),
            (_, "planning" | "committing" | "aborting") | (Goal::Applied, "applying") => resume,
            (Goal::Aborted, "applying" | "applied") => self.abort_command(),
            (Goal::Committed, "applied") => self.commit_command(),
            other => panic!("no command leads on from {other:?}"),
        })
    }

    fn kill(&mut self, command: &[String], at: u64, is_recovery: bool, tally: &mut Tally) {
        let traced = self.trace(command, at);
        self.story.push(format!("{} killed at {at}: {:?}", command[0], traced.outcome));
        match traced.outcome {
            Outcome::Killed => {
                tally.moments.insert((command[0].clone(), at));
                tally.second_kills += u64::from(is_recovery);
                if let Some(step) = self.step_in_hand() {
                    self.story.push(format!("  in {step:?}"));
                    tally.reached.insert(step);
                }
            }
            Outcome::Finished { code: 0, .. } => {}
            Outcome::Finished { code, .. } => {
                self.violation(tally, &format!("exit code {code}:\n{}{}", traced.stdout, traced.stderr));
            }
        }
    }

    fn trace(&self, args: &[String], at: u64) -> Traced {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run_killed_at(self.machine.kytx(&args), at, self.counted, self.victims)
    }

    fn begin_command(&self) -> Vec<String> {
        let package = self.machine.package.to_str().unwrap();
        self.command(&["begin", "--package", package, "--silent"])
    }

    fn abort_command(&self) -> Vec<String> {
        self.command(&["abort", "--yes"])
    }

    fn commit_command(&self) -> Vec<String> {
        self.command(&["commit", "--yes"])
    }

    fn command(&self, words: &[&str]) -> Vec<String> {
        words.iter().copied().chain([self.machine.home.to_str().unwrap()]).map(str::to_owned).collect()
    }

    /// Whether there is something to undo.
    pub fn is_open(&self) -> bool {
        !["none", "ended"].contains(&self.phase().as_str())
    }

    fn phase(&self) -> String {
        self.status().map_or("none".to_owned(), |status| status["phase"].as_str().unwrap().to_owned())
    }

    /// `None` if there is no journal.
    fn status(&self) -> Option<Value> {
        let home = self.machine.home.to_str().unwrap();
        let ran = self.machine.run(&["status", home, "--json"]);
        (ran.code == 0).then(|| serde_json::from_str(&ran.stdout).unwrap())
    }

    /// The step that a killed run was at, and its phase.
    fn step_in_hand(&self) -> Option<(String, String)> {
        let status = self.status()?;
        let phase = status["phase"].as_str()?.to_owned();
        let mut steps: Vec<&Value> = status["steps"].as_array()?.iter().collect();
        let (stage, at): (_, &[&str]) = match phase.as_str() {
            "applying" => ("apply", &["pending", "intended"]),
            "aborting" => ("apply", &["intended", "done", "undoing"]),
            "committing" => ("cleanup", &["pending", "intended"]),
            _ => return None,
        };
        if phase == "aborting" {
            steps.reverse();
        }
        let found = steps.iter().find(|step| {
            step["stage"] == stage && at.contains(&step["state"].as_str().unwrap_or_default())
        })?;
        Some((phase, found["name"].as_str()?.to_owned()))
    }

    /// `status` and `log` after a kill: they answer, and change nothing.
    fn look(&mut self, tally: &mut Tally) {
        let state = self.machine.root.join("opt/.kytx");
        let take = || state.exists().then(|| Snapshot::take(&state, &[]));
        let before = take();
        for command in ["status", "log"] {
            let ran = self.machine.run(&[command, self.machine.home.to_str().unwrap()]);
            if ![0, 8].contains(&ran.code) {
                self.violation(tally, &format!("`{command}` exits {}: {}", ran.code, ran.stderr));
            }
        }
        if let (Some(before), Some(after)) = (before, take()) {
            self.differences("looking changed the state directory", &before.diff(&after), tally);
        }
    }

    /// The upgraded machine, still open.
    pub fn check_new(&mut self, tally: &mut Tally) {
        self.check_upgraded(tally);
        let ran = self.machine.run(&["verify", "--deep", self.machine.home.to_str().unwrap()]);
        if ran.code != 0 {
            self.violation(tally, &format!("verify --deep: {}\n{}{}", ran.code, ran.stdout, ran.stderr));
        }
    }

    fn check_upgraded(&mut self, tally: &mut Tally) {
        let new = self.new.take().expect("the reference was made");
        let tree = Snapshot::take(&self.machine.real_home, &PRODUCT);
        self.differences("the new tree", &new.tree.diff_but_dir_times(&tree), tally);
        self.expect("the new metadata", new.metadata == settled(&self.machine), tally);
        let cube = files(&self.machine.working_dir.join("kylin_metadata"));
        self.expect("the new cube data", new.cube == cube, tally);
        self.new = Some(new);
        self.check_around(tally);
    }

    /// The machine as it was.
    pub fn check_old(&mut self, tally: &mut Tally) {
        let tree = Snapshot::take(&self.machine.real_home, &PRODUCT);
        self.differences("the old tree", &self.old.diff(&tree), tally);
        self.expect("the old metadata", self.old_metadata == settled(&self.machine), tally);
        self.differences("the old cube data", &self.old_cube.diff(&cube(&self.machine)), tally);
        self.check_around(tally);
        self.check_clean_data(tally);
        self.expect("no spare tree", !self.state().join("spare").exists(), tally);
        // An abort leaves the archive to the operator, who clears it away here.
        for name in names(&self.machine.root.join("opt")) {
            if name.ends_with(".backup.tar.gz") {
                fs::remove_file(self.machine.root.join("opt").join(name)).unwrap();
            }
        }
        self.story.clear();
    }

    /// The upgraded machine, with nothing left of the way back.
    pub fn check_committed(&mut self, tally: &mut Tally) {
        self.check_upgraded(tally);
        self.check_clean_data(tally);
        let ran = self.machine.run(&["resume", self.machine.home.to_str().unwrap()]);
        self.expect("nothing is open", ran.code == 8, tally);
        let left = names(&self.machine.root.join("opt"));
        self.expect("no archive", left == [".kytx", "kyligence"], tally);
        let state = self.state();
        let known = ["backup", "ballast", "child", "holder.json", "journal", "journal.log", "lock", "log"];
        let known = [&known[..], &["history", "plan", "steps"]].concat();
        let strange: Vec<String> =
            names(&state).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        self.differences("left in the state directory", &strange, tally);
        let copies: Vec<String> = names(&state.join("backup"))
            .into_iter()
            .flat_map(|dir| names(&state.join("backup").join(dir)))
            .filter(|name| name.starts_with("metadata") && name != "metadata.manifest")
            .collect();
        self.differences("copies of metadata", &copies, tally);
    }

    /// What holds in both ends: one service that answers, and nothing else on the machine touched.
    fn check_around(&mut self, tally: &mut Tally) {
        self.expect("the service answers", self.machine.is_ready(), tally);
        let processes = self.machine.processes().unwrap();
        self.expect(&format!("one process of the product, not {processes:?}"), processes.len() == 1, tally);
        let outside = Snapshot::take(&self.machine.root, &ELSEWHERE);
        self.differences("elsewhere", &self.outside.diff(&outside), tally);
    }

    fn check_clean_data(&mut self, tally: &mut Tally) {
        let names = names(&self.machine.working_dir);
        self.expect(&format!("a clean working directory, not {names:?}"), names == ["kylin_metadata"], tally);
    }

    fn state(&self) -> PathBuf {
        self.machine.root.join("opt/.kytx/kyligence")
    }

    fn expect(&mut self, what: &str, holds: bool, tally: &mut Tally) {
        if !holds {
            self.violation(tally, &format!("expected: {what}"));
        }
    }

    fn differences(&mut self, what: &str, lines: &[String], tally: &mut Tally) {
        if !lines.is_empty() {
            self.violation(tally, &format!("{what}:\n  {}", lines.join("\n  ")));
        }
    }

    fn violation(&mut self, tally: &mut Tally, what: &str) {
        let text = format!("{}: {what}\nafter\n  {}", tally.series, self.story.join("\n  "));
        println!("{text}\n");
        tally.violations.push(text);
    }
}

/// The metadata, without what every start of the product rewrites (reference 22.6).
fn settled(machine: &Machine) -> StoreContent {
    let mut content = machine.store.content().unwrap();
    content.retain(|path, _| !path.starts_with("user"));
    content
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
