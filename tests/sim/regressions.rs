//! Crash states that went wrong once, kept for ever: each by what had just happened, as numbers of calls change.

use crate::crash::{Model, Walk};
use crate::disk::{Op, Put};
use crate::explore::{History, Line, SCENARIOS};
use crate::scene::TXN;

fn history(name: &str) -> History {
    let scenario = SCENARIOS.into_iter().find(|scenario| scenario.name == name).unwrap();
    History::run(scenario, Vec::new())
}

/// The places in the log right after a change of names of which this is true.
fn after(line: &Line, wanted: impl Fn(&[Put]) -> bool) -> Vec<usize> {
    let is_wanted = |at: &usize| matches!(&line.log[at - 1].0, Op::Names(puts, _) if wanted(puts));
    (1..=line.log.len()).filter(is_wanted).collect()
}

/// kytx is killed there, another goes on to its end, this way or that, and the power goes at any place after that.
fn assert_survives(history: &History, at: usize, aborts: bool) {
    let killed = history.kill(&history.line, at, aborts);
    assert!(killed.end.is_ok(), "killed at {at}: {:?}", killed.end);
    let line = killed.line.unwrap();
    let mut walk = Walk::new(Model::Strict, &line.base, &line.log, line.acknowledged);
    while walk.at < line.log.len() {
        if walk.step() && walk.at > at && matches!(line.log[walk.at - 1].0, Op::Acknowledged(_)) {
            let verdict = history.recover(&line, &history.state(&line, &walk, 0));
            assert!(verdict.end.is_ok(), "killed at {at}, cut at {}: {:?}", walk.at, verdict.end);
        }
    }
}

/// The next kytx found the directory, took it for durable, and put the copy of the cube data, or the backup, into it.
#[test]
fn i2_a_directory_that_a_killed_kytx_made_is_synced_by_the_next() {
    let history = history("upgrade");
    let made = after(&history.line, |puts| puts.iter().any(|put| put.name == TXN && put.now.is_some()));
    assert!(made.len() >= 2, "the copy's and the backup's: {made:?}");
    for at in made {
        assert_survives(&history, at, false);
    }
}

/// The next kytx synced the directory to which the copy had been renamed, and not the one from which, before it
/// deleted that: on a disk that holds a rename between two directories to be sure only then, both were gone.
#[test]
fn i7_cube_data_that_a_killed_kytx_put_back_are_sure_before_the_place_they_came_from_is_deleted() {
    let history = history("abort");
    let back = after(&history.line, |puts| {
        puts.iter().any(|put| put.name == "copy" && put.now.is_none())
            && puts.iter().any(|put| put.name == "id" && put.now.is_some())
    });
    assert_eq!(back.len(), 1, "one rename puts it back");
    assert_survives(&history, back[0], true);
}
