//! A disk that is full for real, and a file system that becomes read-only, in the middle of a command.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::census::{Cell, Census, exhaustive};
use crate::support::injector::Standing;
use crate::support::killer::is_change;
use crate::support::random::Random;
use crate::support::tracer::{Call, Counted, Ended, Then, Watcher, trace};
use crate::support::verdict::Judged;
use crate::support::volume::{Volume, fail_read_only, fill, own_mounts};
use crate::support::{Machine, options};

/// Room for the home, what an upgrade makes of it, and what the preconditions ask for.
const VOLUME_BYTES: u64 = 256 << 20;

const LIMIT: Duration = Duration::from_mins(2);

/// What happens at a counted call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Happens {
    Nothing,
    Full,
    ReadOnly,
}

/// Counts the calls that change something, and has something happen right before one of them.
struct At {
    n: u64,
    count: u64,
    happens: Happens,
    volume: PathBuf,
    state: PathBuf,
    standing: Option<Standing>,
}

impl Watcher for At {
    fn entry(&mut self, call: &Call) -> Then {
        if is_change(call) {
            self.count += 1;
            if self.count == self.n {
                self.standing = Some(Standing::read(&self.state));
                match self.happens {
                    Happens::Nothing => {}
                    Happens::Full => fill(&self.volume),
                    Happens::ReadOnly => fail_read_only(&self.volume).unwrap(),
                }
            }
        }
        Then::Happen
    }
}

/// A machine whose home and state directory are on a volume. The volume goes first.
struct Bed {
    volume: Volume,
    judged: Judged,
}

impl Bed {
    fn new(of: Happens) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("kytx-").tempdir().unwrap();
        let at = dir.path().join("opt");
        fs::create_dir(&at).unwrap();
        let volume = match of {
            Happens::ReadOnly => Volume::ext4(&at, &dir.path().join("image"), VOLUME_BYTES)?,
            Happens::Nothing | Happens::Full => Volume::tmpfs(&at, VOLUME_BYTES)?,
        };
        let mut judged = Judged::of(Machine::of(dir, &options().major()));
        judged.run(&judged.begin_words(&[])).expect_code(0);
        judged.note_new();
        judged.run(&judged.words(&["abort", "--yes"])).expect_code(0);
        let _ = judged.not_old();
        Ok(Self { volume, judged })
    }

    fn opt(&self) -> PathBuf {
        self.judged.machine.root.join("opt")
    }

    fn run_until(&self, words: &[String], n: u64, happens: Happens) -> (Ended, At) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let state = self.judged.state();
        let at = At { n, count: 0, happens, volume: self.opt(), state, standing: None };
        trace(self.judged.machine.kytx(&words), Counted::Own, Some(LIMIT), at)
    }

    /// How many calls of an undisturbed upgrade and of an undisturbed way back change something.
    fn measure(&self) -> (u64, u64) {
        let count = |words: &[String]| {
            let (ended, at) = self.run_until(words, 0, Happens::Nothing);
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            at.count
        };
        let measured = (count(&self.judged.begin_words(&[])), count(&self.judged.words(&["abort", "--yes"])));
        let _ = self.judged.not_old();
        measured
    }

    /// What a reboot brings back: the file system, and the service if it is not kytx's to start it.
    fn reboot(&self) {
        self.judged.machine.end_services().unwrap();
        self.volume.renew().unwrap();
        let ran = self.judged.run(&self.judged.words(&["status", "--json"]));
        let state = |name: &str| {
            let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            let steps = status["steps"].as_array().cloned().unwrap_or_default();
            let found = steps.iter().find(|step| step["name"] == name);
            found.map_or_else(|| "pending".to_owned(), |step| step["state"].as_str().unwrap().to_owned())
        };
        let is_open = ran.code == 0;
        let old_runs = !is_open || ["pending", "undone"].contains(&state("stop-service").as_str());
        let new_runs = is_open && state("start-service") == "done";
        if old_runs || new_runs {
            self.judged.machine.start();
        }
    }
}

/// What is counted and found.
struct Tally {
    census: Census,
    violations: Vec<String>,
}

impl Tally {
    fn add(&mut self, accident: &str, ended: &Ended, at: &At, story: &Story) {
        let Some(standing) = &at.standing else { return };
        let cell = Cell {
            phase: standing.phase.replace("none", "planning"),
            step: standing.step.clone(),
            window: standing.window.clone(),
            accident: accident.to_owned(),
        };
        let counts = self.census.at(&cell);
        counts.states += 1;
        *counts.seen.entry(format!("exit {}", ended.code)).or_default() += 1;
        for (way, to) in &story.ends {
            let ends = if *way == "abort" { &mut counts.after_abort } else { &mut counts.after_resume };
            *ends.entry(to.clone()).or_default() += 1;
        }
        counts.violations += u64::from(!story.wrong.is_empty());
        counts.stuck += u64::from(story.stuck);
        if !story.wrong.is_empty() {
            let text = format!(
                "{accident} at call {} in {standing:?}: exit {}\n{}\n  then: {}\n  WRONG: {}",
                at.n,
                ended.code,
                ended.stderr,
                story.told.join("; "),
                story.wrong.join("\n         ")
            );
            println!("{text}\n");
            self.violations.push(text);
        }
    }
}

/// How it went on.
#[derive(Default)]
struct Story {
    told: Vec<String>,
    ends: BTreeMap<&'static str, String>,
    wrong: Vec<String>,
    stuck: bool,
}

impl Story {
    /// Whether the message of a command that failed has its parts.
    fn judge_message(&mut self, ended: &Ended) {
        let parts = ["kytx: ", "\n  why:   ", "\n  state: ", "\n  type:  "];
        let fine = ended.code == 0
            || ([3, 4, 9].contains(&ended.code) && parts.iter().all(|part| ended.stderr.contains(part)));
        if !fine || ended.stderr.contains("panicked") || ended.hung {
            self.wrong.push(format!("exit code {}, or a message without its parts", ended.code));
        }
    }

    /// Types a command, which has to succeed.
    fn type_in(&mut self, judged: &Judged, command: &[&str]) {
        let phase = judged.phase();
        let ran = judged.run(&judged.words(command));
        self.told.push(format!("{phase}: {} exits {}", command[0], ran.code));
        let over = ["none", "planning", "ended"].contains(&phase.as_str()) && [3, 8].contains(&ran.code);
        if ran.code != 0 && !over {
            self.stuck = true;
            self.wrong.push(format!("`{}` exits {}:\n{}", command[0], ran.code, ran.stderr));
        }
    }

    fn end(&mut self, way: &'static str, to: &str, wrong: Vec<String>) {
        self.ends.insert(way, to.to_owned());
        self.wrong.extend(wrong);
    }
}

/// How many moments of each command are met.
fn rounds(share: u64, all: u64) -> u64 {
    if exhaustive() { all } else { share }
}

/// A moment within each of so many equal parts of a run.
fn moment(calls: u64, round: u64, rounds: u64, random: &mut Random) -> u64 {
    let (from, to) = (calls * round / rounds, calls * (round + 1) / rounds);
    1 + from + random.below(to - from)
}

/// Runs a layer, where it can be run.
fn layer(name: &str, seed: u64, run: impl FnOnce(&mut Random, &mut Tally) -> Result<(), String> + Send) {
    println!("KYTX_SEED={seed}");
    let mut tally = Tally { census: Census::new(name, seed), violations: Vec::new() };
    // A thread of its own, as the mounts are a thread's.
    let ran = std::thread::scope(|scope| {
        let work = || own_mounts().and_then(|()| run(&mut Random::new(seed), &mut tally));
        scope.spawn(work).join().expect("the layer runs to its end")
    });
    if let Err(why) = ran {
        tally.census.not_run = why;
    }
    tally.census.publish();
    assert!(tally.violations.is_empty(), "{}", tally.violations.join("\n\n"));
}

/// Filled in the middle of an upgrade: the way back works on the disk that is still full, and once there is room again
/// the upgrade goes on. Filled in the middle of the way back: it works when it is typed again.
pub fn full_disk(seed: u64) {
    layer("full disk", seed, |random, tally| {
        let mut bed = Bed::new(Happens::Full)?;
        let (calls, back_calls) = bed.measure();
        let rounds = rounds(10, 100);
        for round in 0..rounds {
            let n = moment(calls, round, rounds, random);
            let (ended, at) = bed.run_until(&bed.judged.begin_words(&[]), n, Happens::Full);
            let mut story = Story::default();
            story.judge_message(&ended);
            let goes_on = random.below(2) == 0;
            if goes_on {
                bed.volume.empty();
                story.type_in(&bed.judged, &["resume"]);
            }
            let is_applied = goes_on && bed.judged.phase() == "applied";
            if is_applied {
                story.end("resume", "new", bed.judged.not_new());
            } else {
                abort_on_the_full_disk(&bed, &mut story);
            }
            tally.add("full disk", &ended, &at, &story);
            if is_applied && story.wrong.is_empty() {
                let n = moment(back_calls, round, rounds, random);
                let (ended, at) = bed.run_until(&bed.judged.words(&["abort", "--yes"]), n, Happens::Full);
                story = Story::default();
                story.judge_message(&ended);
                if bed.judged.phase() == "aborting" {
                    // A server of the stand-in that found no room for its pid file is known to nobody, unlike one of
                    // the product's, and would keep the port.
                    bed.judged.machine.end_services().unwrap();
                }
                abort_on_the_full_disk(&bed, &mut story);
                tally.add("full disk", &ended, &at, &story);
            }
            bed.volume.empty();
            if !story.wrong.is_empty() {
                bed = Bed::new(Happens::Full)?;
            }
            progress("full disk", round, rounds, tally);
        }
        Ok(())
    });
}

fn abort_on_the_full_disk(bed: &Bed, story: &mut Story) {
    bed.volume.fill();
    // What released the ballast may have needed it for its message; the next one has the room.
    if bed.judged.phase() != "ended" {
        story.type_in(&bed.judged, &["abort", "--yes"]);
    }
    story.end("abort", "old", bed.judged.not_old());
}

/// Read-only from a counted call on: whatever kytx says, after a reboot both ways lead on.
pub fn read_only(seed: u64) {
    layer("read-only remount", seed, |random, tally| {
        let mut bed = Bed::new(Happens::ReadOnly)?;
        let (calls, back_calls) = bed.measure();
        let rounds = rounds(8, 60);
        for round in 0..rounds {
            sync(&bed.opt())?;
            let n = moment(calls, round, rounds, random);
            let (ended, at) = bed.run_until(&bed.judged.begin_words(&[]), n, Happens::ReadOnly);
            let mut story = Story::default();
            story.judge_message(&ended);
            bed.reboot();
            let goes_on = random.below(2) == 0;
            story.type_in(&bed.judged, if goes_on { &["resume"] } else { &["abort", "--yes"] });
            let is_applied = bed.judged.phase() == "applied";
            if is_applied {
                story.end("resume", "new", bed.judged.not_new());
            } else {
                story.end(if goes_on { "resume" } else { "abort" }, "old", bed.judged.not_old());
            }
            tally.add("read-only remount", &ended, &at, &story);
            if is_applied && story.wrong.is_empty() {
                let n = moment(back_calls, round, rounds, random);
                let (ended, at) = bed.run_until(&bed.judged.words(&["abort", "--yes"]), n, Happens::ReadOnly);
                story = Story::default();
                story.judge_message(&ended);
                bed.reboot();
                if bed.judged.phase() != "ended" {
                    story.type_in(&bed.judged, &["abort", "--yes"]);
                }
                story.end("abort", "old", bed.judged.not_old());
                tally.add("read-only remount", &ended, &at, &story);
            }
            if !story.wrong.is_empty() {
                bed = Bed::new(Happens::ReadOnly)?;
            }
            progress("read-only remount", round, rounds, tally);
        }
        Ok(())
    });
}

/// What the product left unsynced in its own home is not what is tried here.
fn sync(at: &Path) -> Result<(), String> {
    let dir = fs::File::open(at).map_err(|error| error.to_string())?;
    rustix::fs::syncfs(dir).map_err(|error| error.to_string())
}

fn progress(what: &str, round: u64, rounds: u64, tally: &Tally) {
    if exhaustive() && (round + 1).is_multiple_of(10) {
        println!("{what}: {} of {rounds} rounds, {} violations", round + 1, tally.violations.len());
        tally.census.publish();
    }
}
