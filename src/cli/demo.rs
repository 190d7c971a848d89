//! `kytx demo`: a miniature installation, package and service in a scratch directory; a whole major upgrade, killed in
//! the middle and resumed; a second one aborted and compared byte for byte.
//!
//! Every command is run as it is shown, by the same program, in a process of its own, and the kill is a SIGKILL. The
//! demo succeeds only if every comparison holds.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::error::CommandError;
use super::exit::Exit;
use super::place::{absolute, quoted};
use super::terminal::result;
use crate::backup::compare::{Ignoring, compare};
use crate::backup::manifest::Manifest;
use crate::backup::walk::Contents;
use crate::effect::fs::{Fs, exists, read_file};
use crate::effect::os::OsFs;
use crate::effect::tree::{make_dirs, no_tick, remove_tree};
use crate::testbed::typed::Typist;
use crate::testbed::{Knob, Options, Scenario, StoreContent};

/// What the product itself writes into a home whenever it is started, stopped or backed up.
const PRODUCTS_OWN: [&str; 9] = [
    "bin/cached-",
    "conf/fairscheduler.xml",
    "ext",
    "logrotate",
    "logs",
    "meta_backups",
    "pid",
    "tomcat",
    "LOCK",
];

/// Runs the command.
pub fn run(dir: Option<PathBuf>, keep: bool) -> Result<Exit, CommandError> {
    let fault = |error: io::Error| CommandError::new(Exit::Fault, "the demo broke off").because(&error);
    let root = match dir {
        Some(dir) => absolute(&dir)?,
        None => std::env::temp_dir().join(format!("kytx-demo-{}", std::process::id())),
    };
    if exists(&OsFs, &root).map_err(fault)? && !OsFs.list(&root).map_err(fault)?.is_empty() {
        return Err(CommandError::refused(format!("`{}` is not empty", root.display())));
    }
    make_dirs(&OsFs, &root, 0o755).map_err(fault)?;
    let program = std::env::current_exe().map_err(fault)?;
    let mut ledger = Ledger { failed: 0, held: 0 };
    let shown = show(&root, &program, &mut ledger);
    if keep {
        result(&format!("Everything is left in {}", root.display()));
    } else {
        remove_tree(&OsFs, &root, &no_tick).map_err(fault)?;
    }
    shown.context("the demo broke off")?;
    let Ledger { failed, held } = ledger;
    if failed > 0 {
        return Err(CommandError::new(
            Exit::Fault,
            format!("{failed} of {} comparisons failed", failed + held),
        ));
    }
    result(&format!("All {held} comparisons held."));
    Ok(Exit::Done)
}

/// Counts comparisons.
struct Ledger {
    failed: u32,
    held: u32,
}

impl Ledger {
    fn compare(&mut self, what: &str, holds: bool, detail: &str) {
        result(&format!("  [{}] {what}", if holds { "ok" } else { "FAILED" }));
        if holds {
            self.held += 1;
        } else {
            self.failed += 1;
            result(detail);
        }
    }
}

fn show(root: &Path, program: &Path, ledger: &mut Ledger) -> anyhow::Result<()> {
    for (name, play) in
        [("committed", committed as fn(&Stage<'_>, &mut Ledger) -> anyhow::Result<()>), ("aborted", aborted)]
    {
        let dir = root.join(name);
        make_dirs(&OsFs, &dir, 0o755)?;
        let machine = Scenario::build(&dir, &Options::new(program).major())
            .with_context(|| format!("cannot build a machine in `{}`", dir.display()))?;
        let stage = Stage { typist: Typist::new(program.to_owned(), &machine), machine: &machine };
        stage.start()?;
        let played = play(&stage, ledger);
        machine.end_services()?;
        played?;
        result("");
    }
    Ok(())
}

/// A machine and somebody who types.
struct Stage<'a> {
    typist: Typist<'a>,
    machine: &'a Scenario,
}

impl Stage<'_> {
    fn start(&self) -> io::Result<()> {
        let home = self.machine.home.display();
        result(&format!("# A home in use, its service, its metadata store and its cube data: {home}"));
        result(&format!("$ {home}/bin/kylin.sh start"));
        self.machine.run_script("kylin.sh", &["start"])?;
        Ok(())
    }

    fn show(args: &[&str]) {
        let words: Vec<String> = args.iter().map(|word| quoted(word.as_ref())).collect();
        result(&format!("$ kytx {}", words.join(" ")));
    }

    fn type_command(&self, args: &[&str], ledger: &mut Ledger) -> io::Result<()> {
        Self::show(args);
        let code = self.typist.run(args)?;
        ledger.compare(
            &format!("`kytx {}` exits 0", args[0]),
            code == Some(0),
            &format!("it exited {code:?}"),
        );
        Ok(())
    }

    fn home(&self) -> &str {
        self.machine.home.to_str().expect("BUG: a scratch path is UTF-8")
    }

    fn package(&self) -> &str {
        self.machine.package.to_str().expect("BUG: a scratch path is UTF-8")
    }

    fn version(&self) -> io::Result<String> {
        let text = read_file(&OsFs, &self.machine.home.join("VERSION"), 1 << 10)?;
        Ok(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The home but for what the product itself writes.
    fn tree(&self) -> io::Result<Manifest> {
        let mut tree = Manifest::walk(&OsFs, &self.machine.real_home, Contents::Hash, 2, &no_tick)
            .map_err(io::Error::other)?;
        tree.entries.retain(|entry| {
            !PRODUCTS_OWN.iter().any(|own| entry.path.as_bytes().starts_with(own.as_bytes()))
        });
        Ok(tree)
    }

    fn cube(&self) -> io::Result<Manifest> {
        let mut tree = Manifest::walk(&OsFs, &self.machine.working_dir, Contents::Hash, 2, &no_tick)
            .map_err(io::Error::other)?;
        // Large metadata entries are files there too; the product's restore writes them anew.
        tree.entries.retain(|entry| !entry.path.to_string().contains("/resources-jdbc"));
        Ok(tree)
    }

    /// The metadata but for what every start of the product rewrites (reference 22.6).
    fn metadata(&self) -> io::Result<StoreContent> {
        let mut content = self.machine.store.content()?;
        content.retain(|path, _| !path.contains("user"));
        Ok(content)
    }
}

fn committed(stage: &Stage<'_>, ledger: &mut Ledger) -> anyhow::Result<()> {
    let (home, package) = (stage.home(), stage.package());
    let old = stage.version()?;
    let own = read_file(&OsFs, &stage.machine.home.join("conf/kylin.properties.override"), 1 << 20)?;
    let begin = ["begin", home, "--package", package, "--silent"];
    result("# A major upgrade, killed while the new release is being started");
    stage.type_command(&["check", home, "--package", package], ledger)?;
    let gate = stage.machine.root.join("gate");
    stage
        .machine
        .knobs
        .of_version(&stage.machine.options.new_version)
        .set(Knob::StartGate, gate.display())?;
    Stage::show(&begin);
    let pid = stage.typist.kill_when(&begin, &gate.with_extension("reached"))?;
    result(&format!("$ kill -9 {pid}"));
    drop(OsFs.create(&gate, 0o600)?);
    stage.type_command(&["status", home], ledger)?;
    stage.type_command(&["resume", home], ledger)?;
    for args in [vec!["verify", home], vec!["verify", home, "--drill"]] {
        stage.type_command(&args, ledger)?;
    }
    stage.type_command(&["commit", home, "--yes"], ledger)?;
    let new = stage.version()?;
    ledger.compare("the new release is in place", new != old, &new);
    let carried = read_file(&OsFs, &stage.machine.home.join("conf/kylin.properties.override"), 1 << 20)?;
    ledger.compare("the operator's own settings are as they were", carried == own, "they differ");
    ledger.compare("the service runs", !stage.machine.processes()?.is_empty(), "it does not");
    let spare = stage.machine.root.join(".kytx");
    result(&format!("# What is left of the upgrade: its log, in {}", spare.display()));
    Ok(stage.type_command(&["log", home], ledger)?)
}

fn aborted(stage: &Stage<'_>, ledger: &mut Ledger) -> anyhow::Result<()> {
    let (home, package) = (stage.home(), stage.package());
    let (tree, cube, metadata) = (stage.tree()?, stage.cube()?, stage.metadata()?);
    result("# The same upgrade, aborted after the new release has changed metadata and cube data");
    stage.type_command(&["begin", home, "--package", package, "--silent"], ledger)?;
    let changed = stage.metadata()? != metadata;
    ledger.compare("the new release has changed the metadata", changed, "it has not");
    stage.type_command(&["abort", home, "--dry-run"], ledger)?;
    stage.type_command(&["abort", home, "--yes"], ledger)?;
    let differences = |before: &Manifest, after: &Manifest| {
        let ignoring = Ignoring { dir_mtime: true, ..Ignoring::default() };
        compare(before, after, ignoring).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let differing = differences(&tree, &stage.tree()?);
    ledger.compare(
        &format!("the home is as it was, byte for byte ({} entries)", tree.entries.len()),
        differing.is_empty(),
        &differing,
    );
    let differing = differences(&cube, &stage.cube()?);
    ledger.compare(
        &format!("the cube data are as they were ({} entries)", cube.entries.len()),
        differing.is_empty(),
        &differing,
    );
    ledger.compare(
        &format!("the metadata are as they were ({} entries)", metadata.len()),
        stage.metadata()? == metadata,
        "they differ",
    );
    ledger.compare("the service runs", !stage.machine.processes()?.is_empty(), "it does not");
    Ok(())
}
