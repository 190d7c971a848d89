//! A machine that is killed on again and again: as it was, led to where a command begins, and judged afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kytx::testbed::{Options, StoreContent};
use serde_json::Value;

use crate::limited::run_limited;
use crate::renewed::Renewed;
use crate::support::Ran;
use crate::support::product::WRITTEN;
use crate::support::snapshot::Snapshot;

/// The same for KE 4: its start notes here that the environment was checked, and makes a configuration for Hadoop.
const PRODUCT_KE4: [&str; 2] = ["bin/check-env-bypass", "hadoop_conf/core-site.xml"];

/// What is looked at in other ways, and the stand-in's own notes. Everything else on the machine is nobody's business.
const ELSEWHERE: [&str; 9] = [
    "opt/kyligence",
    "opt/.kytx",
    "opt/kyligence.backup.tar.gz",
    "opt/kyligence.*.backup.tar.gz",
    "hdfs",
    "metadata",
    "metadata.restoring.*",
    "metadata.maintenance",
    "calls.log",
];

/// A command that an operator types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    Begin,
    /// Of an upgrade that was stopped before its first step.
    Resume,
    /// Of an upgrade that is applied.
    Abort,
    /// The same.
    Commit,
}

impl Scene {
    pub const ALL: [Self; 4] = [Self::Begin, Self::Resume, Self::Abort, Self::Commit];
}

/// Where a transaction stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// `none` if there is no journal.
    pub phase: String,
    /// The step in hand; empty between steps.
    pub step: String,
    /// How far it is: `before intent`, `before outcome`; empty between steps.
    pub window: String,
}

/// A machine.
pub struct Site {
    machine: Renewed,
    product: Vec<&'static str>,
    old: Look,
    new: Look,
    outside: Snapshot,
    /// The first step of the plan.
    first: String,
    /// Each phase, step and window that there is.
    pub windows: Vec<Standing>,
}

/// A release as it is in use.
#[derive(Default)]
struct Look {
    tree: Option<Snapshot>,
    metadata: StoreContent,
    /// Without large metadata entries, which are compared as metadata, and the copy that the restore of KE 4 makes.
    cube: Option<Snapshot>,
}

impl Site {
    /// Builds it below a directory, and upgrades it once, undisturbed, to learn what an upgrade makes of it.
    pub fn new(parent: &Path, options: &Options) -> Self {
        let machine = Renewed::new(parent, options);
        let mut product = WRITTEN.to_vec();
        if options.layout == kytx::testbed::Layout::Ke4 {
            product.extend(PRODUCT_KE4);
        }
        let outside = Snapshot::take(&machine.root, &ELSEWHERE);
        let mut site = Self {
            machine,
            product,
            old: Look::default(),
            new: Look::default(),
            outside,
            first: String::new(),
            windows: Vec::new(),
        };
        site.machine.start();
        site.old = site.take();
        site.run("begin").expect_code(0);
        site.new = site.take();
        let status = site.status().expect("an upgrade is open");
        for step in status["steps"].as_array().unwrap() {
            let name = step["name"].as_str().unwrap().to_owned();
            let is_cleanup = step["stage"] == "cleanup";
            let phases: &[&str] = if is_cleanup { &["committing"] } else { &["applying", "aborting"] };
            for phase in phases {
                for window in ["before intent", "before outcome"] {
                    site.windows.push(Standing {
                        phase: (*phase).to_owned(),
                        step: name.clone(),
                        window: window.to_owned(),
                    });
                }
            }
            if site.first.is_empty() {
                site.first = name;
            }
        }
        site
    }

    /// How many steps an abort undoes.
    pub fn undoable(&self) -> usize {
        self.windows.iter().filter(|standing| standing.phase == "aborting").count() / 2
    }

    /// Makes the machine what it was, with its service running.
    pub fn renew(&self) {
        self.machine.renew();
    }

    /// Leads the machine as it was to where a command begins, and returns the command.
    pub fn set(&self, scene: Scene) -> Command {
        match scene {
            Scene::Begin => self.command("begin"),
            Scene::Resume => {
                let mut begin = self.command("begin");
                begin.args(["--stop-before", &self.first]);
                run_limited(begin).expect_code(4);
                self.command("resume")
            }
            Scene::Abort | Scene::Commit => {
                self.run("begin").expect_code(0);
                self.command(if scene == Scene::Abort { "abort" } else { "commit" })
            }
        }
    }

    /// A command, with its answers.
    pub fn command(&self, name: &str) -> Command {
        let package = self.machine.package.to_str().unwrap();
        let more: &[&str] = match name {
            "begin" => &["--package", package, "--silent"],
            "abort" | "commit" => &["--yes"],
            "verify" => &["--deep"],
            _ => &[],
        };
        let mut command = self.machine.kytx(&[name]);
        command.args(more).arg(&self.machine.home);
        command
    }

    /// Runs a command to its end.
    #[must_use = "assert on the code, or on the output"]
    pub fn run(&self, name: &str) -> Ran {
        run_limited(self.command(name))
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.machine.root.join("opt/.kytx/kyligence")
    }

    /// What is in the state directory, but for who works there, and for logs that the service still writes.
    pub fn state_snapshot(&self) -> Option<Snapshot> {
        let state = self.state();
        state.exists().then(|| Snapshot::take(&state, &["holder.json", "spare/logs"]))
    }

    fn status(&self) -> Option<Value> {
        let mut command = self.command("status");
        command.arg("--json");
        let ran = run_limited(command);
        (ran.code == 0).then(|| serde_json::from_str(&ran.stdout).unwrap())
    }

    /// Starts the service if it does not run.
    pub fn revive(&self) {
        if self.machine.processes().unwrap().is_empty() {
            self.machine.start();
        }
    }

    /// Which release the journal says is there: at rest it must be right.
    pub fn promised(&self) -> Option<&'static str> {
        let status = self.status()?;
        match (status["phase"].as_str()?, status["outcome"].as_str()) {
            ("applied", _) | ("ended", Some("committed")) => Some("new"),
            ("ended", Some("aborted")) => Some("old"),
            _ => None,
        }
    }

    /// Where the transaction stands.
    pub fn standing(&self) -> Standing {
        let Some(status) = self.status() else {
            return Standing { phase: "none".to_owned(), ..Standing::default() };
        };
        let phase = status["phase"].as_str().unwrap().to_owned();
        // The states in which a step is not yet through, and of them that in which its intent is there.
        let (stage, open, intended): (_, &[&str], _) = match phase.as_str() {
            "applying" => ("apply", &["pending", "intended"], "intended"),
            "aborting" => ("apply", &["intended", "done", "undoing"], "undoing"),
            "committing" => ("cleanup", &["pending", "intended"], "intended"),
            _ => return Standing { phase, ..Standing::default() },
        };
        let mut steps: Vec<&Value> = status["steps"].as_array().unwrap().iter().collect();
        if phase == "aborting" {
            steps.reverse();
        }
        let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
        let in_hand =
            steps.iter().find(|step| step["stage"] == stage && open.contains(&text(step, "state").as_str()));
        let Some(step) = in_hand else { return Standing { phase, ..Standing::default() } };
        let before = if text(step, "state") == intended { "before outcome" } else { "before intent" };
        Standing { phase, step: text(step, "name"), window: before.to_owned() }
    }

    /// Which release the machine is in, `new` or `old`, or else everything that is wrong: the tree with all attributes,
    /// the metadata, the cube data, the processes, and the rest of the machine.
    pub fn release(&self) -> Result<&'static str, Vec<String>> {
        let now = self.take();
        let is_old = self.is_old();
        let (name, expected) = if is_old { ("old", &self.old) } else { ("new", &self.new) };
        let differences = |theirs: &Option<Snapshot>, ours: &Option<Snapshot>| {
            let (theirs, ours) = (theirs.as_ref().unwrap(), ours.as_ref().unwrap());
            // The product writes into directories of the new tree when it starts.
            if is_old { theirs.diff(ours) } else { theirs.diff_but_dir_times(ours) }
        };
        let mut wrong = told(&format!("the {name} tree"), &differences(&expected.tree, &now.tree));
        wrong.extend(unless("its metadata", expected.metadata == now.metadata));
        wrong.extend(told("its cube data", &differences(&expected.cube, &now.cube)));
        wrong.extend(unless("the service answers", self.machine.is_ready()));
        let processes = self.machine.processes().unwrap();
        wrong.extend(unless(&format!("one process of the product, not {processes:?}"), processes.len() == 1));
        let outside = Snapshot::take(&self.machine.root, &ELSEWHERE);
        wrong.extend(told("elsewhere", &self.outside.diff(&outside)));
        let maintenance = self.machine.root.join("metadata.maintenance").exists();
        wrong.extend(unless("maintenance mode is off", !maintenance));
        if wrong.is_empty() { Ok(name) } else { Err(wrong) }
    }

    /// Everything that is left of a transaction that has ended.
    pub fn left_over(&self) -> Vec<String> {
        let working = names(&self.machine.working_dir);
        let is_clean = working == ["kylin_metadata"];
        let mut wrong = unless(&format!("a clean working directory, not {working:?}"), is_clean);
        let known = ["backup", "ballast", "child", "holder.json", "journal", "journal.log", "lock", "log"];
        let known = [&known[..], &["history", "plan", "steps"]].concat();
        let state = names(&self.state());
        let strange: Vec<String> = state.into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        wrong.extend(told("left in the state directory", &strange));
        if !self.is_old() {
            // After a commit there is no way back, nor anything that was kept for it.
            let left = names(&self.machine.root.join("opt"));
            wrong.extend(unless(&format!("no archive in {left:?}"), left == [".kytx", "kyligence"]));
            let backups = self.state().join("backup");
            let copies: Vec<String> = names(&backups)
                .into_iter()
                .flat_map(|dir| names(&backups.join(dir)))
                .filter(|name| name.starts_with("metadata") && name != "metadata.manifest")
                .collect();
            wrong.extend(told("copies of metadata", &copies));
        }
        wrong
    }

    fn is_old(&self) -> bool {
        let version = fs::read_to_string(self.machine.real_home.join("VERSION")).unwrap_or_default();
        version.trim_end().ends_with(&self.machine.options.old_version)
    }

    fn take(&self) -> Look {
        let mut metadata = self.machine.store.content().unwrap();
        // What every start of the product rewrites (reference 22.6).
        metadata.retain(|path, _| !path.starts_with("user") && !path.starts_with("_global/user_group"));
        let data = self.machine.working_dir.join("kylin_metadata");
        let mut cube = Snapshot::take(&data, &["resources-jdbc", "_backup"]);
        if !self.is_old() {
            // What a new major release changes in them has the time of its start.
            cube = cube.without_file_times();
        }
        Look {
            tree: Some(Snapshot::take(&self.machine.real_home, &self.product)),
            metadata,
            cube: Some(cube),
        }
    }
}

fn unless(what: &str, holds: bool) -> Vec<String> {
    if holds { Vec::new() } else { vec![format!("expected: {what}")] }
}

fn told(what: &str, lines: &[String]) -> Vec<String> {
    if lines.is_empty() { Vec::new() } else { vec![format!("{what}:\n  {}", lines.join("\n  "))] }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
