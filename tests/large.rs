//! Whole upgrades of a home of real size (1.2 GB, more than 10,000 files), killed in the middle of the long steps, and
//! the manual's way back by hand. They take minutes and several gigabytes, so they run only when asked for:
//!
//! `cargo test --release --test large -- --ignored --test-threads=1`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "it looks into test machines, and says how long it took"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use kytx::backup::compare::{Ignoring, compare};
use kytx::backup::manifest::Manifest;
use kytx::backup::walk::Contents;
use kytx::effect::os::OsFs;
use kytx::effect::tree::no_tick;
use kytx::journal::read;
use kytx::testbed::Size;
use kytx::txn::{Record, StepId};
use support::{Machine, Ran, kytx_binary, options};

/// What the product itself writes into a home whenever it is started, stopped or backed up.
const PRODUCTS_OWN: [&str; 8] = [
    "bin/cached-",
    "conf/fairscheduler.xml",
    "logrotate",
    "logs",
    "meta_backups",
    "pid",
    "tomcat/webapps",
    "LOCK",
];

fn machine() -> Machine {
    let machine = Machine::new(&kytx::testbed::Options { size: Size::Large, ..options().major() });
    machine.start();
    machine
}

fn run(machine: &Machine, command: &str, more: &[&str]) -> Ran {
    let begun = Instant::now();
    let home = machine.home.to_str().unwrap();
    let ran = machine.run(&[&[command, home][..], more].concat()).expect_code(0);
    eprintln!("kytx {command} {}: {:.1} s", more.join(" "), begun.elapsed().as_secs_f64());
    for line in ran.stdout.lines().filter(|line| line.starts_with("Downtime")) {
        eprintln!("  {line}");
    }
    ran
}

fn tree(machine: &Machine) -> Manifest {
    let mut tree = Manifest::walk(&OsFs, &machine.real_home, Contents::Hash, 2, &no_tick).unwrap();
    tree.entries
        .retain(|entry| !PRODUCTS_OWN.iter().any(|own| entry.path.as_bytes().starts_with(own.as_bytes())));
    assert!(tree.entries.len() > 10_000, "{} entries", tree.entries.len());
    tree
}

#[track_caller]
fn assert_same(before: &Manifest, after: &Manifest) {
    let ignoring = Ignoring { dir_mtime: true, ..Ignoring::default() };
    let differences: Vec<_> =
        compare(before, after, ignoring).iter().map(ToString::to_string).take(20).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    eprintln!("{} entries are as they were", before.entries.len());
}

fn state(machine: &Machine) -> PathBuf {
    let home = &machine.real_home;
    home.parent().unwrap().join(".kytx").join(home.file_name().unwrap())
}

/// Whether the journal says that a step is under way.
fn is_intended(state: &Path, step: &str) -> bool {
    let Ok(view) = read(&OsFs, state) else { return false };
    let mut names = Vec::new();
    let mut last = None;
    for frame in view.frames {
        match frame.record {
            Record::Planned(planned) => names.push(planned.name),
            Record::Intent { step: StepId(id), .. } => last = Some(usize::from(id)),
            Record::Done { .. } => last = None,
            _ => {}
        }
    }
    last.is_some_and(|id| names[id] == step)
}

/// Begins, waits until the step is under way and `also` holds, and kills kytx with SIGKILL.
fn begin_and_kill(machine: &Machine, step: &str, also: impl Fn(&Path) -> bool) {
    let (home, package) = (machine.home.to_str().unwrap(), machine.package.to_str().unwrap());
    let mut child = Command::new(kytx_binary())
        .args(["begin", home, "--package", package, "--silent"])
        .env("JAVA_HOME", &machine.java_home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let state = state(machine);
    while !(is_intended(&state, step) && also(&state)) {
        assert!(child.try_wait().unwrap().is_none(), "kytx ended before `{step}` could be hit");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    eprintln!("killed in `{step}`");
}

/// Something of the step is there already.
fn under_way(machine: &Machine, step: &str) -> impl Fn(&Path) -> bool {
    // An archive that an earlier abort has left has the usual name, so it may be another one.
    let beside = machine.real_home.parent().unwrap().to_owned();
    let archive_grows = move || {
        let mut names = std::fs::read_dir(&beside).unwrap().map(|name| name.unwrap());
        names.any(|name| {
            name.file_name().to_string_lossy().ends_with(".backup.tar.gz.part")
                && name.metadata().is_ok_and(|meta| meta.len() > 50 << 20)
        })
    };
    let step = step.to_owned();
    move |state| match step.as_str() {
        "stage-tree" => state.join("spare.part").exists(),
        "archive-tree" => archive_grows(),
        _ => true,
    }
}

#[test]
#[ignore = "minutes and gigabytes"]
fn an_upgrade_is_verified_by_drill_and_committed() {
    let machine = machine();
    let package = machine.package.to_str().unwrap();
    run(&machine, "begin", &["--package", package, "--silent"]);
    run(&machine, "verify", &["--drill"]);
    run(&machine, "commit", &["--yes"]);
    assert!(machine.is_ready());
}

#[test]
#[ignore = "minutes and gigabytes"]
fn kills_in_the_long_steps_are_resumed_and_aborted() {
    let machine = machine();
    let before = tree(&machine);
    for step in ["stage-tree", "exchange-trees", "start-service", "archive-tree"] {
        begin_and_kill(&machine, step, under_way(&machine, step));
        run(&machine, "resume", &[]);
        run(&machine, "verify", &["--deep"]);
        run(&machine, "abort", &["--yes"]);
        assert_same(&before, &tree(&machine));
        begin_and_kill(&machine, step, |_| true);
        run(&machine, "abort", &["--yes"]);
        assert_same(&before, &tree(&machine));
    }
}

#[test]
#[ignore = "minutes and gigabytes"]
fn the_manuals_way_back_by_hand_restores_the_old_tree() {
    let machine = machine();
    let before = tree(&machine);
    run(&machine, "begin", &["--package", machine.package.to_str().unwrap(), "--silent"]);
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    let home = &machine.real_home;
    std::fs::remove_dir_all(home).unwrap();
    let archive = home.with_file_name("kyligence.backup.tar.gz");
    let tar =
        Command::new("tar").arg("-zxf").arg(archive).arg("-C").arg(home.parent().unwrap()).status().unwrap();
    assert!(tar.success());
    // Plain `tar -zxf` leaves out extended attributes and, for who is not root, owners.
    let mut after = tree(&machine);
    for (after, before) in after.entries.iter_mut().zip(&before.entries) {
        after.xattrs.clone_from(&before.xattrs);
    }
    assert_same(&before, &after);
}
