//! Who gets the lock, who holds it, and when it is free again.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use kytx::effect::lock::{Holder, LockError, RunLock, live_holder, start_ticks};
use kytx::effect::os::{OsFs, host_name};
use kytx::effect::shell::orphan_lock_held;
use kytx::testbed::Knob;

use crate::counted::count;
use crate::support::commands::{begin, begin_words, finish, on_home, spawn, state_dir, status};
use crate::support::{Machine, PATIENCE, options};
use crate::{BEGINS, Gate};

/// What one taker of one round came to: its own name, or the name that it was told.
type Answer = Result<String, Option<String>>;

/// I8: a thousand rounds of the lock itself, which is what starters contend for; rounds of whole processes are in
/// `i8_of_sixteen_begins_at_once_one_wins_and_the_others_name_it`.
#[test]
fn i8_of_sixteen_takers_at_once_one_wins_a_thousand_times_over() {
    const ROUNDS: usize = 1_000;
    // In memory, where there is such a place: the lock is the kernel's, and a thousand names need no disk.
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let (lock, sidecar) = (dir.path().join("lock"), dir.path().join("holder.json"));
    let (start, all_know) = (Barrier::new(BEGINS), Barrier::new(BEGINS));
    let take = |round: usize, number: usize| -> Answer {
        if number == 0 {
            // All rounds are of one process, so the name of the last winner would be that of one that lives.
            let _ = fs::remove_file(&sidecar);
        }
        start.wait();
        let begun = Instant::now();
        let command = format!("taker {number} of round {round}");
        let taken = RunLock::take(&OsFs, &lock, &sidecar, &command);
        assert!(begun.elapsed() < PATIENCE, "round {round}: an answer within bounds");
        // The winner holds it until everybody has an answer.
        all_know.wait();
        match taken {
            Ok(held) => {
                drop(held);
                Ok(command)
            }
            Err(LockError::Held(named)) => Err(named.map(|named| named.command)),
            Err(other) => panic!("round {round}: {other}"),
        }
    };
    let answers: Vec<Vec<Answer>> = thread::scope(|scope| {
        let takers: Vec<_> = (0..BEGINS)
            .map(|number| {
                let take = &take;
                scope.spawn(move || (0..ROUNDS).map(|round| take(round, number)).collect::<Vec<_>>())
            })
            .collect();
        takers.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    for round in 0..ROUNDS {
        let of_round: Vec<&Answer> = answers.iter().map(|taker| &taker[round]).collect();
        let winners: Vec<&String> = of_round.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {of_round:?}");
        let told =
            |answer: &&Answer| answer.as_ref().err().is_none_or(|told| told.as_ref() == Some(winners[0]));
        assert!(of_round.iter().all(told), "round {round}: {of_round:?}");
    }
    count(&[("rounds of the lock alone", ROUNDS as u64)]);
}

/// I8: killed, a holder lets go at once; the script that it left holds the other lock, and only that.
#[test]
fn i8_a_killed_holder_lets_go_at_once_and_its_orphan_holds_the_other_lock() {
    let machine = Machine::new(&options());
    machine.start();
    let gate = Gate::close(&machine, Knob::BackupGate, "gate");
    let mut killed = spawn(&machine, &begin_words(&machine, &[]));
    gate.wait_until_reached();
    let state = state_dir(&machine);
    let (lock, sidecar) = (state.join("lock"), state.join("holder.json"));
    match RunLock::take(&OsFs, &lock, &sidecar, "a test") {
        Err(LockError::Held(Some(named))) => assert_eq!(named.pid, killed.id()),
        other => panic!("{other:?}"),
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The first try, with no waiting: and nobody is named any more.
    assert_eq!(live_holder(&OsFs, &sidecar), None);
    let held = RunLock::take(&OsFs, &lock, &sidecar, "a test").unwrap();
    assert!(orphan_lock_held(&state.join("child")).unwrap());
    // Whoever holds it is named, and kytx gives way.
    on_home(&machine, "resume", &[]).explains(7, &["a test", &format!("process {}", std::process::id())]);
    drop(held);
    gate.open();
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(!orphan_lock_held(&state.join("child")).unwrap());
}

/// What an earlier process left beside the lock names nobody: it is gone, or its number is another's now.
#[test]
fn i8_a_stale_name_beside_the_lock_keeps_nobody_out() {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &["--stop-before", "stop-service"]).expect_code(4);
    let state = state_dir(&machine);
    let me = std::process::id();
    let name = |pid: u32, start_ticks: u64, host: String| Holder {
        pid,
        start_ticks,
        host,
        user: "somebody".to_owned(),
        command: "kytx begin".to_owned(),
        since_unix_s: 1,
    };
    let mine = start_ticks(me).unwrap();
    let outdated = [
        // No process has this number: the kernel's limit is 2^22.
        name(4_194_305, 1, host_name()),
        name(me, mine - 1, host_name()),
        name(me, mine, "another-host".to_owned()),
    ];
    for holder in &outdated {
        fs::write(state.join("holder.json"), serde_json::to_vec(holder).unwrap()).unwrap();
        assert!(status(&machine)["holder"].is_null(), "{holder:?}");
        on_home(&machine, "resume", &["--stop-before", "stop-service"]).expect_code(4);
    }
    for text in ["", "{", "null"] {
        fs::write(state.join("holder.json"), text).unwrap();
        assert!(status(&machine)["holder"].is_null(), "{text:?}");
        on_home(&machine, "resume", &["--stop-before", "stop-service"]).expect_code(4);
    }
    // Held, and nobody is named: the loser says so within bounds, and does nothing.
    let held = RunLock::take(&OsFs, &state.join("lock"), &state.join("holder.json"), "a test").unwrap();
    fs::write(state.join("holder.json"), serde_json::to_vec(&outdated[1]).unwrap()).unwrap();
    on_home(&machine, "resume", &[]).explains(7, &["it has not said yet who it is"]);
    drop(held);
    let resumed = spawn(&machine, &["resume", machine.home.to_str().unwrap()]);
    assert_eq!(finish(resumed).code, 0);
}
