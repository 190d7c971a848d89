//! Several kytx on one home, and kytx asked to stop. Whoever must be caught at work is held at one of the stand-in's
//! gates: a script that waits for a file.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it looks into test machines, and says what was explored"
)]

#[path = "concurrency/counted.rs"]
mod counted;
#[path = "concurrency/lookers.rs"]
mod lookers;
#[path = "concurrency/one_home.rs"]
mod one_home;
#[path = "concurrency/starters.rs"]
mod starters;
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;

use counted::count;
use kytx::testbed::Knob;
use rustix::process::{Pid, Signal, kill_process};
use support::census::exhaustive;
use support::killer::{Counted, Outcome, Victims, run_killed_at};
use support::product::WRITTEN;
use support::snapshot::{Snapshot, assert_same_tree};
use support::{Machine, Ran, is_alive, options, wait_until};

fn command(machine: &Machine, words: &[&str]) -> Command {
    let mut args = words.to_vec();
    args.push(machine.home.to_str().unwrap());
    machine.kytx(&args)
}

fn begin(machine: &Machine) -> Command {
    command(machine, &["begin", "--silent", "--package", machine.package.to_str().unwrap()])
}

fn run(machine: &Machine, words: &[&str]) -> Ran {
    Ran::of(&mut command(machine, words))
}

/// A kytx with its output kept.
fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A gate at which one of the stand-in's scripts is held.
struct Gate {
    path: PathBuf,
}

impl Gate {
    fn close(machine: &Machine, knob: Knob, name: &str) -> Self {
        let path = machine.root.join(name);
        machine.knobs.set(knob, path.display()).unwrap();
        Self { path }
    }

    fn is_reached(&self) -> bool {
        self.path.with_extension("reached").exists()
    }

    fn wait_until_reached(&self) {
        wait_until("the script is at its gate", || self.is_reached());
    }

    fn open(&self) {
        fs::write(&self.path, "").unwrap();
    }

    /// As if nobody had come by.
    fn close_again(&self) {
        fs::remove_file(&self.path).unwrap();
        fs::remove_file(self.path.with_extension("reached")).unwrap();
    }
}

/// How many start at once.
const BEGINS: usize = 16;

/// I8: of 16 that begin at once, one begins; all others exit 7 and name it. A thousand rounds if everything is asked for.
#[test]
fn i8_of_sixteen_begins_at_once_one_wins_and_the_others_name_it() {
    let rounds = if exhaustive() { 1_000 } else { 20 };
    let machine = Machine::new(&options());
    machine.start();
    let home = Snapshot::take(&machine.real_home, &WRITTEN);
    let gate = Gate::close(&machine, Knob::StopGate, "gate");
    for round in 0..rounds {
        let barrier = Barrier::new(BEGINS);
        let mut children: Vec<Child> = thread::scope(|scope| {
            let start = || {
                let mut begin = begin(&machine);
                barrier.wait();
                spawn(&mut begin)
            };
            let starts: Vec<_> = (0..BEGINS).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        // The winner is held before it stops the service, so that whoever comes late meets it.
        let mut is_lost = || children.iter_mut().all(|child| child.try_wait().unwrap().is_some());
        wait_until("the winner is at its gate", || gate.is_reached() || is_lost());
        if !gate.is_reached() {
            let all: Vec<_> = children.into_iter().map(ended).collect();
            panic!("round {round}: none wins: {all:#?}");
        }
        let mut winner = None;
        let mut losers = Vec::new();
        let holder = holder(&machine);
        for child in children {
            if child.id() == holder {
                winner = Some(child);
            } else {
                losers.push((child.id(), ended(child)));
            }
        }
        let winner = winner.unwrap_or_else(|| panic!("round {round}: the holder {holder} is one of them"));
        for (_, loser) in &losers {
            assert_eq!(loser.code, 7, "round {round}, holder {holder}: {losers:#?}");
            let names =
                loser.stderr.contains(&format!("process {holder}")) && loser.stderr.contains("`kytx begin");
            assert!(names, "round {round}, holder {holder}: {losers:#?}");
        }
        signal(&winner, Signal::TERM);
        gate.open();
        assert_eq!(ended(winner).code, 130, "round {round}");
        run(&machine, &["abort", "--yes"]).expect_code(0);
        assert!(machine.is_ready());
        gate.close_again();
    }
    assert_same_tree(&home, &Snapshot::take(&machine.real_home, &WRITTEN));
    count(&[("rounds", rounds)]);
}

/// The process that `status` says is at work.
fn holder(machine: &Machine) -> u32 {
    let status = run(machine, &["status", "--json"]).expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    status["holder"]["pid"].as_u64().unwrap() as u32
}

#[test]
fn what_only_reads_works_beside_a_running_kytx_and_names_it() {
    let machine = Machine::new(&options());
    machine.start();
    let gate = Gate::close(&machine, Knob::BackupGate, "gate");
    let running = spawn(&mut begin(&machine));
    gate.wait_until_reached();
    let status = run(&machine, &["status"]).expect_code(0);
    assert!(status.stdout.contains(&format!("process {}", running.id())), "{}", status.stdout);
    assert_eq!(holder(&machine), running.id());
    run(&machine, &["log"]).expect_code(0);
    run(&machine, &["verify", "--quick"]).expect_code(0);
    for writes in [&["resume"][..], &["abort", "--yes"], &["commit", "--yes"]] {
        let refused = run(&machine, writes).expect_code(7);
        assert!(refused.stderr.contains(&format!("process {}", running.id())), "{}", refused.stderr);
    }
    gate.open();
    assert_eq!(ended(running).code, 0);
    let status = run(&machine, &["status", "--json"]).expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert!(status["holder"].is_null(), "{status}");
}

/// I8: what is left of a killed kytx is waited for, since it still writes.
#[test]
fn i8_a_recovery_waits_for_the_script_of_a_killed_kytx() {
    for (knob, undo) in [(Knob::StopGate, false), (Knob::BackupGate, true), (Knob::StartGate, false)] {
        let machine = Machine::new(&options());
        machine.start();
        let home = Snapshot::take(&machine.real_home, &WRITTEN);
        let gate = Gate::close(&machine, knob, "gate");
        let mut killed = spawn(&mut begin(&machine));
        gate.wait_until_reached();
        killed.kill().unwrap();
        killed.wait().unwrap();
        run(&machine, &["status"]).expect_code(0);
        // It is still there when the recovery has said that it waits, and only then may go on.
        let mut recovery = if undo {
            spawn(&mut command(&machine, &["abort", "--yes"]))
        } else {
            spawn(&mut command(&machine, &["resume"]))
        };
        let waits = first_line_about(&mut recovery, "waiting for a program that an earlier kytx started");
        assert!(waits.contains("process "), "{waits}");
        let records = run(&machine, &["log", "--json"]).expect_code(0).stdout.lines().count();
        // A third kytx meets the second, not the orphan.
        run(&machine, &["resume"]).expect_code(7);
        assert_eq!(run(&machine, &["log", "--json"]).expect_code(0).stdout.lines().count(), records);
        assert!(recovery.try_wait().unwrap().is_none(), "it waits");
        gate.open();
        let ran = ended(recovery);
        assert_eq!(ran.code, 0, "{knob:?}: {}{}", ran.stdout, ran.stderr);
        assert!(machine.is_ready());
        assert_eq!(machine.processes().unwrap().len(), 1);
        if undo {
            assert_same_tree(&home, &Snapshot::take(&machine.real_home, &WRITTEN));
        } else {
            run(&machine, &["verify", "--deep"]).expect_code(0);
        }
    }
}

/// Reads standard error up to a line that holds this; what comes after is passed over, so that nothing blocks.
fn first_line_about(child: &mut Child, what: &str) -> String {
    use std::io::BufRead;
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut seen = Vec::new();
    let found = lines.by_ref().find(|line| {
        seen.push(line.clone());
        line.contains(what)
    });
    thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("`{what}` is not in\n{}", seen.join("\n")))
}

/// Killed with its scripts, there is nobody to wait for.
#[test]
fn i8_nothing_is_waited_for_when_the_script_was_killed_too() {
    let machine = Machine::new(&options());
    machine.start();
    // The calls of the undisturbed way to the stop; what is killed a few calls later is the script's.
    let stopped = run_killed_at(
        command(
            &machine,
            &[
                "begin",
                "--silent",
                "--stop-before",
                "back-up-metadata",
                "--package",
                machine.package.to_str().unwrap(),
            ],
        ),
        0,
        Counted::Descendants,
        Victims::Descendants,
    );
    let Outcome::Finished { count, code: 4 } = stopped.outcome else { panic!("{stopped:?}") };
    let killed = run_killed_at(
        command(&machine, &["resume"]),
        count.min(150),
        Counted::Descendants,
        Victims::Descendants,
    );
    assert_eq!(killed.outcome, Outcome::Killed, "{}", killed.stderr);
    let ran = run(&machine, &["resume"]).expect_code(0);
    assert!(!ran.stderr.contains("waiting for a program"), "{}", ran.stderr);
    assert!(machine.is_ready());
}

/// I8: the lock dies with its kytx, and the service that it started does not keep it.
#[test]
fn i8_a_service_that_kytx_started_does_not_hold_its_lock() {
    let machine = Machine::new(&options());
    machine.start();
    begin_all(&machine);
    let service = machine.pid();
    // kytx is gone, what it started runs; another gets the lock at once, and sees no orphan.
    let ran = run(&machine, &["resume"]).expect_code(0);
    assert!(!ran.stderr.contains("waiting for a program"), "{}", ran.stderr);
    let open_files: Vec<PathBuf> = fs::read_dir(format!("/proc/{service}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(machine.root.join("opt/.kytx")))
        .collect();
    assert!(open_files.is_empty(), "{open_files:?}");

    // The same with a kytx that is killed while its child lives: the script holds the orphan lock, and nothing else.
    run(&machine, &["abort", "--yes"]).expect_code(0);
    let gate = Gate::close(&machine, Knob::StartGate, "gate");
    let mut killed = spawn(&mut begin(&machine));
    gate.wait_until_reached();
    let script = machine.processes().unwrap().into_iter().find(|pid| is_script(*pid)).expect("a script runs");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let held: Vec<String> = fs::read_dir(format!("/proc/{script}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(machine.root.join("opt/.kytx")))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(".output-"))
        .collect();
    assert_eq!(held, ["child"]);
    gate.open();
    run(&machine, &["resume"]).expect_code(0);
    assert!(is_alive(machine.pid()));
}

fn begin_all(machine: &Machine) {
    Ran::of(&mut begin(machine)).expect_code(0);
}

fn is_script(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(8).any(|part| part == b"kylin.sh"))
}

/// A request to stop is answered at the next safe point, with what to type.
#[test]
fn a_signal_ends_kytx_at_a_safe_point_with_the_command_to_type() {
    for (knob, sent) in
        [(Knob::StopGate, Signal::TERM), (Knob::BackupGate, Signal::INT), (Knob::StartGate, Signal::HUP)]
    {
        let machine = Machine::new(&options());
        machine.start();
        let gate = Gate::close(&machine, knob, "gate");
        let running = spawn(&mut begin(&machine));
        gate.wait_until_reached();
        signal(&running, sent);
        gate.open();
        let ran = ended(running);
        assert_eq!(ran.code, 130, "{knob:?}: {}{}", ran.stdout, ran.stderr);
        let home = machine.home.display();
        for line in [format!("type:  kytx resume {home}"), format!("type:  kytx abort {home}")] {
            assert!(ran.stderr.contains(&line), "{knob:?}: {}", ran.stderr);
        }
        assert!(ran.stderr.contains("state:"), "{}", ran.stderr);
        run(&machine, &["resume"]).expect_code(0);
        assert!(machine.is_ready());
        assert_eq!(machine.processes().unwrap().len(), 1);
    }
}

/// The second request reaches the running script; kytx itself ends in order.
#[test]
fn a_second_signal_is_passed_on_to_the_script() {
    let machine = Machine::new(&options());
    machine.start();
    let gate = Gate::close(&machine, Knob::StartGate, "gate");
    let mut running = spawn(&mut begin(&machine));
    gate.wait_until_reached();
    // Never opened: only the signal ends the script.
    signal(&running, Signal::TERM);
    first_line_about(&mut running, "stopping at the next safe point");
    signal(&running, Signal::TERM);
    assert_eq!(running.wait().unwrap().code(), Some(130));
    assert!(machine.processes().unwrap().is_empty());
    machine.knobs.unset(Knob::StartGate).unwrap();
    run(&machine, &["resume"]).expect_code(0);
    assert!(machine.is_ready());
}
