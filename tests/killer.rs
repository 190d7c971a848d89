//! The tests' own tools are tested: killing at a counted system call, telling trees apart, counting.

#![allow(clippy::disallowed_methods, reason = "a test's own directory")]

#[path = "kill/sieve.rs"]
mod sieve;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::census::{Cell, Census};
use support::killer::{
    Counted, Interference, Moment, Outcome, Swallowed, Traced, Victims, run_interfered, run_killed_at,
};
use support::snapshot::{Snapshot, assert_same_tree};

fn files_in(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn shell(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir);
    command
}

#[test]
fn the_nth_call_never_happens_and_all_before_it_do() {
    const SCRIPT: &str = "echo told; for n in 1 2 3 4 5; do : > file$n; done; exit 3";
    for n in 1..=5 {
        let dir = tempfile::tempdir().unwrap();
        let traced = run_killed_at(shell(dir.path(), SCRIPT), n, Counted::Own, Victims::Program);
        assert_eq!((traced.outcome, traced.stdout.as_str()), (Outcome::Killed, "told\n"));
        assert_eq!(files_in(dir.path()) as u64, n - 1);
    }
    for n in [0, 6] {
        let dir = tempfile::tempdir().unwrap();
        let traced = run_killed_at(shell(dir.path(), SCRIPT), n, Counted::Own, Victims::Program);
        assert_eq!(traced.outcome, Outcome::Finished { count: 5, code: 3 });
        assert_eq!(files_in(dir.path()), 5);
    }
}

fn interfered(dir: &Path, script: &str, moment: Moment, swallowed: Swallowed) -> (Traced, Option<usize>) {
    let (tell, told) = std::sync::mpsc::channel();
    let seen = dir.to_owned();
    let interference = Interference {
        moment,
        counted: Counted::Descendants,
        victims: Victims::Descendants,
        swallowed,
        accident: Box::new(move || tell.send(files_in(&seen)).unwrap()),
    };
    (run_interfered(shell(dir, script), interference), told.try_recv().ok())
}

#[test]
fn an_accident_happens_between_the_calls_before_and_the_one_it_stops() {
    const SCRIPT: &str = ": > journal.log; echo a >> journal.log; : > b; echo c >> journal.log; : > d; : > e";
    let call = |records, n| Moment::Call { records, n };
    // Each writing opens first.
    for (moment, files, records) in [
        (Moment::TwinWrite(1), 1, ""),
        (call(1, 1), 1, "a\n"),
        (call(1, 2), 2, "a\n"),
        (Moment::TwinWrite(2), 2, "a\n"),
        (call(2, 2), 3, "a\nc\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (traced, seen) = interfered(dir.path(), SCRIPT, moment, Swallowed::None);
        assert_eq!((traced.outcome, seen), (Outcome::Killed, Some(files)), "{moment:?}");
        assert_eq!(fs::read_to_string(dir.path().join("journal.log")).unwrap(), records, "{moment:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (traced, seen) = interfered(dir.path(), SCRIPT, Moment::TwinWrite(3), Swallowed::None);
    assert!(matches!(traced.outcome, Outcome::Finished { code: 0, .. }), "{traced:?}");
    assert_eq!((seen, traced.twin_writes.len()), (None, 2));
}

/// Neither of these can be synced: success shows that nobody tried.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_sync_that_is_left_out_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let works = |path: &str, swallowed| {
        let (traced, _) = interfered(dir.path(), &format!("exec sync {path}"), Moment::Never, swallowed);
        matches!(traced.outcome, Outcome::Finished { code: 0, .. })
    };
    let with = |swallowed| [works("/dev/null", swallowed), works("/proc/self", swallowed)];
    assert_eq!(with(Swallowed::None), [false, false]);
    assert_eq!(with(Swallowed::OfDirectories), [false, true]);
    assert_eq!(with(Swallowed::All), [true, true]);
}

#[test]
fn what_the_program_starts_counts_only_if_asked() {
    const SCRIPT: &str = ": > own; mkdir made-by-child; : > own2";
    let count = |counted| {
        let dir = tempfile::tempdir().unwrap();
        let traced = run_killed_at(shell(dir.path(), SCRIPT), 0, counted, Victims::Program);
        assert_eq!(files_in(dir.path()), 3);
        traced.outcome
    };
    assert_eq!(count(Counted::Own), Outcome::Finished { count: 2, code: 0 });
    assert_eq!(count(Counted::Descendants), Outcome::Finished { count: 3, code: 0 });
}

#[test]
fn a_child_outlives_the_program_unless_it_is_killed_too() {
    // The child waits for a file that only the test makes, then tells that it lived.
    const SCRIPT: &str = "(while [ ! -e go ]; do sleep 0.01; done; mkdir lived) & echo $! > child; : > last";
    for (victims, lives) in [(Victims::Program, true), (Victims::Descendants, false)] {
        let dir = tempfile::tempdir().unwrap();
        // Calls of the program: create and write `child`, create `last`.
        let traced = run_killed_at(shell(dir.path(), SCRIPT), 3, Counted::Own, victims);
        assert_eq!(traced.outcome, Outcome::Killed);
        assert!(!dir.path().join("last").exists());
        let child = fs::read_to_string(dir.path().join("child")).unwrap().trim().parse().unwrap();
        if !lives {
            support::wait_until("the child is gone", || !support::is_alive(child));
        }
        fs::write(dir.path().join("go"), "").unwrap();
        support::wait_until("the child is gone", || !support::is_alive(child));
        assert_eq!(dir.path().join("lived").exists(), lives);
    }
}

#[test]
fn a_daemon_goes_on_when_the_tracer_is_done() {
    let machine = support::Machine::new(&support::options());
    let start = || {
        let mut command = Command::new(machine.home.join("bin/kylin.sh"));
        command.arg("start").env("KYLIN_HOME", &machine.home);
        command
    };
    let traced = run_killed_at(start(), 0, Counted::Descendants, Victims::Program);
    assert!(matches!(traced.outcome, Outcome::Finished { count: 10.., code: 0 }), "{traced:?}");
    support::wait_until("the service is ready", || machine.is_ready());
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    // Killed at its second change: the log of calls is open, and the line is not in it.
    let calls = machine.calls().unwrap().len();
    let traced = run_killed_at(start(), 2, Counted::Descendants, Victims::Descendants);
    assert_eq!(traced.outcome, Outcome::Killed);
    support::wait_until("nothing is left", || machine.processes().unwrap().is_empty());
    assert_eq!(machine.calls().unwrap().len(), calls);
}

#[test]
fn threads_are_counted_together() {
    const NAME: &str = "threads_are_counted_together";
    // This very test, run again under the tracer, is the program with the threads.
    if let Some(dir) = std::env::var_os("KYTX_TEST_THREADS_DIR") {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dir = Path::new(&dir);
                scope.spawn(move || {
                    for file in 0..5 {
                        fs::File::create(dir.join(format!("{thread}-{file}"))).unwrap();
                    }
                });
            }
        });
        return;
    }
    for n in 1..=21 {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME]).env("KYTX_TEST_THREADS_DIR", dir.path());
        let traced = run_killed_at(command, n, Counted::Own, Victims::Program);
        let expected = if n <= 20 { Outcome::Killed } else { Outcome::Finished { count: 20, code: 0 } };
        assert_eq!(traced.outcome, expected, "{}", traced.stdout);
        // Calls that other threads had entered before may have been cut off by the kill.
        let made = files_in(dir.path()) as u64;
        assert!(made < n && made + 4 >= n, "{made} files when killed at {n}");
    }
}

#[test]
fn a_snapshot_sees_every_kind_of_difference() {
    let dir = tempfile::tempdir().unwrap();
    let take = || Snapshot::take(dir.path(), &["ignored*", "sub/skip"]);
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("sub")).unwrap();
    for name in ["a", "b", "c", "sub/d"] {
        fs::write(path(name), "same").unwrap();
    }
    std::os::unix::fs::symlink("a", path("link")).unwrap();
    let before = take();
    assert_eq!(before.len(), 7);
    fs::write(path("ignored-1"), "x").unwrap();
    fs::write(path("sub/skip"), "x").unwrap();
    assert_same_tree(&before, &take());

    let time = fs::metadata(path("a")).unwrap().modified().unwrap();
    fs::write(path("a"), "diff").unwrap();
    fs::File::options().write(true).open(path("a")).unwrap().set_modified(time).unwrap();
    fs::remove_file(path("b")).unwrap();
    fs::hard_link(path("c"), path("e")).unwrap();
    fs::remove_file(path("link")).unwrap();
    std::os::unix::fs::symlink("c", path("link")).unwrap();
    let lines = before.diff(&take()).join("\n");
    for expected in ["! `a`: content", "- `b`", "! `c`: link to", "+ `e`", "! `link`: target"] {
        assert!(lines.contains(expected), "{expected} in\n{lines}");
    }
}

/// What one layer counts can be read again, and added up.
#[test]
fn a_census_survives_its_file() {
    let cell = |step: &str| Cell {
        phase: "applying".to_owned(),
        step: step.to_owned(),
        window: "before outcome".to_owned(),
        accident: "SIGKILL".to_owned(),
    };
    let mut census = Census::new("kill grid", 7);
    for step in ["stage-tree", "exchange-trees", "exchange-trees"] {
        let counts = census.at(&cell(step));
        counts.states += 1;
        *counts.after_resume.entry("new".to_owned()).or_default() += 1;
    }
    let read: Census = serde_json::from_slice(&serde_json::to_vec(&census).unwrap()).unwrap();
    assert_eq!(read, census);
    let mut both = read.clone();
    both.add(&census);
    assert_eq!(both.totals(), (6, 0, 0));
    assert_eq!(both.at(&cell("exchange-trees")).after_resume["new"], 4);
}

/// What the sieve lets through unseen, the tracer that stops at every call does not: both count the same.
#[test]
fn the_sieve_stops_every_call_that_changes_something() {
    const SCRIPT: &str = "echo a > f; mkdir d; cp f d/g; ln -s f l; mv d/g h; touch -d @0 h; chmod 600 h; rm -rf d; \
                          tar -cf t f h; cat f >> h; : < f";
    let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let traced = run_killed_at(shell(one.path(), SCRIPT), 0, Counted::Descendants, Victims::Program);
    let run = sieve::run(shell(other.path(), SCRIPT), None);
    let count = run.calls.len() as u64;
    assert_eq!(traced.outcome, Outcome::Finished { count, code: 0 }, "{}", run.stderr);
    assert!(count > 12 && run.calls.iter().any(|call| call.by_program) && run.code == 0);
}

#[test]
fn the_sieve_kills_whom_it_is_told_to_and_holds_a_child_until_it_is_let_go() {
    use sieve::{Blow, Victims};
    const SCRIPT: &str = "mkdir a; mkdir b; : > own";
    let scripts = |at, victims| Some(Blow { counted: sieve::Counted::Scripts, at, victims });
    let dir = tempfile::tempdir().unwrap();
    let mut run = sieve::run(shell(dir.path(), SCRIPT), scripts(2, Victims::Program));
    assert!(run.struck && run.code == -libc::SIGKILL && files_in(dir.path()) == 1, "{run:?}");
    let held = run.held.take().expect("`mkdir b` stands still");
    drop(held);
    support::wait_until("the child goes on", || dir.path().join("b").exists());
    let dir = tempfile::tempdir().unwrap();
    let run = sieve::run(shell(dir.path(), SCRIPT), scripts(2, Victims::Caller));
    assert!(run.struck && run.code == 0 && run.held.is_none());
    assert_eq!(files_in(dir.path()), 2, "a and own, as the script does not care");
    let dir = tempfile::tempdir().unwrap();
    let run = sieve::run(shell(dir.path(), SCRIPT), scripts(2, Victims::Tree));
    assert!(run.struck && run.code == -libc::SIGKILL && files_in(dir.path()) == 1, "{run:?}");
}
