//! The real kytx on the kernel's own ext4, xfs and btrfs, whose power is cut: at appends to the journal and at any
//! system call, by the file system's shutdown and by a disk that loses what it had not flushed.
//!
//! Home, state directory, cube data, metadata and the stand-in of the product are all on the disk. What was on it
//! before the upgrade is synced before it begins, as is what the stand-in's store acknowledges: it stands in for a
//! database. Nothing is asserted of what the product's scripts write into a home besides.
//!
//! It needs root, loop devices, `/dev/fuse` and the three programs that make file systems. Where one is missing the
//! layer counts as not run, and with `CI` set it fails.

#![allow(clippy::disallowed_methods, reason = "it works on test machines and disks of its own")]
#![allow(
    clippy::print_stdout,
    reason = "a run of many minutes says its seed, its counts, and each violation at once"
)]

#[path = "power/cache.rs"]
mod cache;
#[path = "power/disk.rs"]
mod disk;
#[path = "power/field.rs"]
mod field;
#[path = "power/look.rs"]
mod look;
#[path = "power/moments.rs"]
mod moments;
#[path = "power/namespace.rs"]
mod namespace;
mod support;
#[path = "power/worker.rs"]
mod worker;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use disk::{Cut, FileSystem};
use moments::Share;
use support::census::{Cell, Census, exhaustive, seed};
use worker::{Found, Job};

/// Not a test: this binary, started again as the server of a disk.
#[test]
fn a_disk_is_served() {
    cache::serve_if_asked();
}

/// Not a test: this binary, started again in namespaces of its own.
#[test]
fn a_job_is_done() {
    let Some(job) = namespace::job() else { return };
    disk::bring_up_loopback().unwrap();
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Over the directory, where nobody else sees it.
    rustix::mount::mount("kytx", dir, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let dir = &dir.join(std::env::var(MARK).unwrap_or_default());
    std::fs::create_dir_all(dir).unwrap();
    let found = worker::work(&serde_json::from_str(&job).unwrap(), dir);
    namespace::tell(&serde_json::to_string(&found).unwrap());
}

/// I11 and I7: wherever the power went, going on reaches the new release and going back reaches the old one, whole, and
/// nothing is lost that had been acknowledged.
#[test]
fn i11_i7_after_a_power_cut_an_upgrade_ends_new_or_old_and_keeps_its_promises() {
    let seed = seed();
    if is_missing(seed) {
        return;
    }
    let mut layers: BTreeMap<&str, Found> = BTreeMap::new();
    for (job, found) in all_done(jobs(seed)) {
        let name = job.file_system.name();
        let layer = layers.entry(name).or_insert_with(|| Found {
            census: Census::new(&format!("power: {name}"), seed),
            violations: Vec::new(),
            planned: Vec::new(),
        });
        layer.census.add(&found.census);
        let cut = if job.cut == Cut::Shutdown { "cuts by shutdown" } else { "cuts of a volatile cache" };
        *layer.census.figures.entry(cut.to_owned()).or_default() += found.census.totals().0;
        layer.violations.extend(found.violations);
        layer.planned = found.planned;
    }
    for layer in layers.values() {
        layer.census.publish();
    }
    let violations: Vec<_> = layers.values().flat_map(|layer| layer.violations.clone()).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    for (name, layer) in &layers {
        let met = |(phase, step, window): &&(String, String, String)| {
            let is_it = |cell: &Cell| (&cell.phase, &cell.step, &cell.window) == (phase, step, window);
            layer.census.cells.keys().any(is_it)
        };
        let missed: Vec<_> = layer.planned.iter().filter(|cell| !met(cell)).collect();
        assert!(!layer.planned.is_empty() && missed.is_empty(), "{name}: no cut met {missed:?}");
        let least = if *name == "btrfs" { 50 } else { 100 };
        assert!(layer.census.totals().0 >= least, "{name}: too few cuts");
    }
}

/// The grid would notice a kytx that forgets to sync: with every sync left out on each file system, and with those of
/// directories left out on btrfs, where they show.
#[cfg(target_arch = "x86_64")]
#[test]
fn syncs_left_out_are_noticed() {
    use support::killer::Swallowed;
    let seed = seed();
    if is_missing(seed) {
        return;
    }
    let without =
        |file_system, cut, syncs| Job { syncs_left_out: Some(syncs), ..Job::new(file_system, cut, seed) };
    let jobs = vec![
        without(FileSystem::Ext4, Cut::Shutdown, Swallowed::All),
        without(FileSystem::Xfs, Cut::Shutdown, Swallowed::All),
        without(FileSystem::Btrfs, Cut::VolatileCache, Swallowed::All),
        without(FileSystem::Btrfs, Cut::VolatileCache, Swallowed::OfDirectories),
        // The same cuts of kytx as it is.
        without(FileSystem::Btrfs, Cut::VolatileCache, Swallowed::None),
    ];
    for (job, found) in all_done(jobs) {
        let is_noticed = !found.violations.is_empty();
        let is_planted = job.syncs_left_out != Some(Swallowed::None);
        assert_eq!(is_noticed, is_planted, "{job:?}: {}", found.violations.join("\n\n"));
    }
}

/// The variable that a test run and all that it starts have in their environment.
const MARK: &str = "KYTX_POWER_MARK";

/// A test run that is killed takes its processes, its mounts, its loop devices and its files with it.
#[test]
fn a_killed_run_leaves_nothing() {
    if is_missing(seed()) {
        return;
    }
    let mark = format!("kytx-power-{}", std::process::id());
    let mut run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "i11_i7_after_a_power_cut_an_upgrade_ends_new_or_old_and_keeps_its_promises"])
        .env(MARK, &mark)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut processes = Vec::new();
    support::wait_until("disks are in use, and kytx and the service run on one", || {
        processes = namespace::marked(MARK, &mark);
        marked_loops(&mark) >= 1 && processes.len() >= 7
    });
    run.kill().unwrap();
    run.wait().unwrap();
    support::wait_until("nothing is left", || {
        marked_loops(&mark) == 0
            && namespace::marked(MARK, &mark).is_empty()
            && processes.iter().all(|process| namespace::started(process.0) != Some(process.1))
    });
    // What was mounted there was never here.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&mark) && !mounts.contains(env!("CARGO_TARGET_TMPDIR")), "{mounts}");
    assert!(!std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(&mark).exists());
}

/// How many loop devices have a file in a directory with this mark.
fn marked_loops(mark: &str) -> usize {
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let file = |device: std::fs::DirEntry| std::fs::read_to_string(device.path().join("loop/backing_file"));
    devices.filter_map(|device| file(device).ok()).filter(|file| file.contains(mark)).count()
}

/// The share of a run, or with `KYTX_EXHAUSTIVE` everything, the longest first.
fn jobs(seed: u64) -> Vec<Job> {
    const ALL: usize = usize::MAX;
    let share = |records, appends, calls| Share { records, appends, calls };
    let job = |file_system, cut, begin, abort, commit| Job {
        begin,
        abort,
        commit,
        ..Job::new(file_system, cut, seed)
    };
    let (most, rest) = if exhaustive() {
        let all = [share(ALL, ALL, 160), share(ALL, ALL, 80), share(ALL, ALL, 20)];
        (all, all)
    } else {
        (
            [share(ALL, 8, 20), share(ALL, 6, 8), share(ALL, 2, 2)],
            [share(8, 8, 8), share(4, 4, 4), share(2, 1, 1)],
        )
    };
    let kinds = [
        (FileSystem::Ext4, Cut::Shutdown, most),
        (FileSystem::Xfs, Cut::Shutdown, most),
        (FileSystem::Btrfs, Cut::VolatileCache, most),
        (FileSystem::Ext4, Cut::VolatileCache, rest),
        (FileSystem::Xfs, Cut::VolatileCache, rest),
    ];
    let parts = if exhaustive() { 4 } else { 1 };
    let each = |(file_system, cut, [begin, abort, commit]): (_, _, [Share; 3])| {
        (0..parts).map(move |part| Job { part: (part, parts), ..job(file_system, cut, begin, abort, commit) })
    };
    kinds.into_iter().flat_map(each).collect()
}

/// What the tests of this process share: each worker holds one.
static CORES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// Does jobs, two at a time, and returns what each found.
fn all_done(jobs: Vec<Job>) -> Vec<(Job, Found)> {
    let queue = Mutex::new(jobs.into_iter());
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for core in &CORES {
            let (queue, found) = (&queue, &found);
            scope.spawn(move || {
                loop {
                    let _core = core.lock().unwrap_or_else(PoisonError::into_inner);
                    let Some(job) = queue.lock().unwrap().next() else { return };
                    let worker = namespace::spawn(&serde_json::to_string(&job).unwrap()).unwrap();
                    let result = namespace::result(worker).unwrap_or_else(|| panic!("{job:?} is done"));
                    found.lock().unwrap().push((job, serde_json::from_str(&result).unwrap()));
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// Whether power cannot be cut here. It is said loudly, and counts as not run.
fn is_missing(seed: u64) -> bool {
    let Some(why) = namespace::missing() else { return false };
    assert!(std::env::var_os("CI").is_none(), "power cuts are not tested: {why}");
    for name in ["ext4", "xfs", "btrfs"] {
        let mut census = Census::new(&format!("power: {name}"), seed);
        census.not_run.clone_from(&why);
        census.publish();
    }
    true
}
