//! The rounds of a rehearsal: an upgrade of the copy is killed, resumed or aborted, compared, and undone, again and
//! again.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::Options;
use super::kills::{Dealt, Kill, Random, choose, deal, usual};
use super::look::Look;
use super::report::Report;
use crate::cli::doomed::{Asked, DOOM_FILE, Mark, take_marks};
use crate::cli::error::CommandError;
use crate::cli::exit::Exit;
use crate::cli::place::Place;
use crate::cli::progress::Meter;
use crate::cli::session::replay;
use crate::effect::fs::Fs;
use crate::effect::fs::exists;
use crate::effect::os::OsFs;
use crate::effect::signal::StopRequests;
use crate::effect::tree::{atomic_write, no_tick, parent_of, remove_tree};
use crate::journal::read;
use crate::testbed::{StandIn, processes_below};
use crate::txn::{Action, Outcome, Phase, Txn};

/// How often a step that no kill has met is tried again: threads make the number of a call differ by a few.
const TRIES: u32 = 3;

/// A copy, ready to be upgraded.
pub struct Rehearsal<'a> {
    /// The copy's place.
    pub place: &'a Place,
    /// The copy.
    pub home: &'a Path,
    /// The directory that holds everything.
    pub dir: &'a Path,
    /// What stands in for the product.
    pub stand_in: &'a StandIn,
    /// The words of `begin`.
    pub begin: Vec<OsString>,
    /// Whether kytx was asked to stop.
    pub stop: &'a StopRequests,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Killed,
    Code(i32),
}

/// What the copy must look like.
struct Looks {
    old: Look,
    new: Look,
}

/// Why a rehearsal does not go on.
enum Halt {
    /// Something is not as it must be: what the rehearsal is for.
    Wrong(String),
    /// It could not be tried.
    Fault(anyhow::Error),
    Stopped,
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Fault(error)
    }
}

impl Rehearsal<'_> {
    /// Runs it to its end, or to the first thing that is wrong: after that the copy is no base for another kill.
    pub fn run(&self, options: &Options, mut report: Report) -> Result<Report, CommandError> {
        let begun = Instant::now();
        let ran = self.rounds(options, &mut report);
        report.seconds = begun.elapsed().as_secs_f64();
        match ran {
            Ok(()) => Ok(report),
            Err(Halt::Wrong(what)) => {
                report.violations.push(what);
                Ok(report)
            }
            Err(Halt::Fault(error)) => Err(error.into()),
            Err(Halt::Stopped) => Err(CommandError::new(Exit::Interrupted, "the rehearsal was stopped")
                .state("The home was not touched, and the copy is gone, if `--keep` was not given.")),
        }
    }

    fn rounds(&self, options: &Options, report: &mut Report) -> Result<(), Halt> {
        let meter = Meter::new();
        meter.start("an undisturbed upgrade, and its way back");
        let started = self.stand_in.start(self.home).context("cannot start the stand-in's service")?;
        if !started.success() {
            return Err(Halt::Fault(anyhow::anyhow!("the stand-in's service does not start: {started}")));
        }
        let (looks, forward, backward) = self.undisturbed(report)?;
        let mut random = Random(options.seed);
        let kills = options.kills.unwrap_or(usual(forward.len()));
        if (kills as usize) < forward.len() {
            report.remarks.push(format!("{} kills, as each step is met, and not {kills}", forward.len()));
        }
        let Dealt { forward: ahead, backward: back } = deal(&forward, &backward, kills, &mut random);
        let mut back = back.into_iter();
        let total = ahead.len();
        for (number, kill) in ahead.iter().enumerate() {
            meter.start(&format!("kill {} of {total}, in `{}`", number + 1, kill.step));
            // Each step first resumed, and the upgrade then undone with a kill; then aborted; and so on.
            let goes_on = (number / forward.len()).is_multiple_of(2);
            let kill_back = if goes_on { back.next() } else { None };
            self.round(kill, goes_on, kill_back.as_ref(), number, &looks, report)?;
        }
        self.meet_the_rest(&forward, &looks, &mut random, report)?;
        meter.clear();
        Ok(())
    }

    fn undisturbed(&self, report: &mut Report) -> Result<(Looks, Vec<Mark>, Vec<Mark>), Halt> {
        let old = self.look()?;
        let begun = Instant::now();
        self.must_end(&self.begin, 0, "an undisturbed begin")?;
        let took_begin = begun.elapsed().as_secs_f64();
        let forward = take_marks(&self.doom_file()).context("cannot read what begin counted")?;
        let new = self.look()?.without_link_times();
        let begun = Instant::now();
        self.must_end(&self.abort(), 0, "an undisturbed abort")?;
        report.undisturbed_s = (took_begin, begun.elapsed().as_secs_f64());
        let backward = take_marks(&self.doom_file()).context("cannot read what abort counted")?;
        for mark in &forward {
            report.step(&mark.step);
        }
        report.entries = old.entries().max(new.entries());
        let looks = Looks { old, new };
        self.check_old(&looks, "an undisturbed begin and abort", report)?;
        Ok((looks, forward, backward))
    }

    /// One kill on the way forward, and perhaps one on the way back; in the end the copy is as it was.
    fn round(
        &self,
        kill: &Kill,
        goes_on: bool,
        kill_back: Option<&Kill>,
        number: usize,
        looks: &Looks,
        report: &mut Report,
    ) -> Result<(), Halt> {
        let mut story = format!("begin killed at call {} of `{}`", kill.at, kill.step);
        let met = self.kill(&self.begin, kill, &story)?;
        if let Some(step) = &met {
            report.step(step).killed_forward += 1;
        }
        if goes_on {
            self.must_end(&self.command("resume"), 0, &format!("{story}, then resume"))?;
            self.check_new(looks, &format!("{story}, then resume"), report)?;
            if let Some(step) = &met {
                report.step(step).resumed_to_new += 1;
            }
        }
        let mut met = if goes_on { None } else { met };
        let mut finish = self.abort();
        if let Some(back) = kill_back {
            story = format!("{story}, then resume, then abort killed at call {} of `{}`", back.at, back.step);
            met = self.kill(&self.abort(), back, &story)?;
            if let Some(step) = &met {
                report.step(step).killed_back += 1;
            }
            if number % 2 == 1 {
                finish = self.command("resume");
            }
        }
        let story = format!("{story}, then {}", finish[0].to_string_lossy());
        self.must_end(&finish, 0, &story)?;
        self.check_old(looks, &story, report)?;
        if let Some(step) = &met {
            report.step(step).aborted_to_old += 1;
        }
        self.tidy().context("cannot clear what an abort leaves")?;
        Ok(())
    }

    fn meet_the_rest(
        &self,
        marks: &[Mark],
        looks: &Looks,
        random: &mut Random,
        report: &mut Report,
    ) -> Result<(), Halt> {
        for (index, mark) in marks.iter().enumerate() {
            for _ in 0..TRIES {
                if report.step(&mark.step).killed_forward == 0
                    && let Some(kill) = choose(marks, index, random)
                {
                    self.round(&kill, true, None, 0, looks, report)?;
                }
            }
            if report.step(&mark.step).killed_forward == 0 {
                return Err(Halt::Wrong(format!(
                    "no kill fell into step `{}`: it was not rehearsed",
                    mark.step
                )));
            }
        }
        Ok(())
    }

    /// Kills a command at a call. Returns the step that it was at; none if it had come to its end before.
    fn kill(&self, words: &[OsString], kill: &Kill, story: &str) -> Result<Option<String>, Halt> {
        match self.type_command(words, Some(kill))? {
            Ended::Killed => Ok(step_in_hand(&self.txn()?)),
            Ended::Code(0) => Ok(None),
            Ended::Code(code) => {
                Err(Halt::Wrong(format!("{story}: it was not killed, and exits {code}; {}", self.see_log())))
            }
        }
    }

    fn must_end(&self, words: &[OsString], code: i32, story: &str) -> Result<(), Halt> {
        match self.type_command(words, None)? {
            Ended::Code(ended) if ended == code => Ok(()),
            // Nothing was open any more: the kill came after the last record of an abort.
            Ended::Code(8) if matches!(self.txn()?.phase(), Phase::Ended(_)) => Ok(()),
            Ended::Code(ended) => Err(Halt::Wrong(format!("{story}: exits {ended}; {}", self.see_log()))),
            Ended::Killed => Err(Halt::Wrong(format!("{story}: it was killed by somebody else"))),
        }
    }

    fn type_command(&self, words: &[OsString], kill: Option<&Kill>) -> Result<Ended, Halt> {
        use std::os::unix::process::ExitStatusExt;
        if self.stop.count() > 0 {
            return Err(Halt::Stopped);
        }
        let file = self.doom_file();
        let asked = match kill {
            Some(kill) => Asked { after: kill.after.clone(), at: kill.at },
            None => Asked { after: None, at: 0 },
        };
        let asked = serde_json::to_vec(&asked).expect("BUG: plain data has a JSON form");
        atomic_write(&OsFs, &file, &asked, 0o600).context("cannot tell kytx when to die")?;
        let mut words = words.to_vec();
        words.extend(["--doom".into(), file.into()]);
        let status = self.stand_in.run_kytx(&words).context("cannot run kytx")?;
        if self.stop.count() > 0 {
            return Err(Halt::Stopped);
        }
        Ok(match (status.code(), status.signal()) {
            (None, Some(9)) => Ended::Killed,
            (code, signal) => Ended::Code(code.or(signal.map(|signal| 128 + signal)).unwrap_or(1)),
        })
    }

    fn txn(&self) -> Result<Txn, Halt> {
        let view = read(&OsFs, self.place.state.root()).context("cannot read the copy's journal")?;
        replay(view.records(), self.place).map_err(|error| Halt::Wrong(error.to_string()))
    }

    fn check_new(&self, looks: &Looks, story: &str, report: &mut Report) -> Result<(), Halt> {
        if self.txn()?.phase() != Phase::Applied {
            return Err(Halt::Wrong(format!("{story}: the upgrade is not applied")));
        }
        let found = self.look()?.without_link_times();
        compare(&looks.new, &found, "the new release", story, report)
    }

    fn check_old(&self, looks: &Looks, story: &str, report: &mut Report) -> Result<(), Halt> {
        if self.txn()?.phase() != Phase::Ended(Outcome::Aborted) {
            return Err(Halt::Wrong(format!("{story}: the upgrade is not aborted")));
        }
        if exists(&OsFs, &self.place.state.spare()).unwrap_or(true) {
            return Err(Halt::Wrong(format!("{story}: a spare tree is left")));
        }
        let running = processes_below(self.dir).context("cannot look for the service")?;
        if running.is_empty() {
            return Err(Halt::Wrong(format!("{story}: the service does not run")));
        }
        compare(&looks.old, &self.look()?, "the old release", story, report)
    }

    fn look(&self) -> Result<Look, Halt> {
        Ok(Look::take(self.home, self.stand_in).context("cannot look at the copy")?)
    }

    /// What an abort leaves to the operator, and what would fill the disk.
    fn tidy(&self) -> io::Result<()> {
        let beside = parent_of(self.home);
        for name in OsFs.list(beside)? {
            if name.to_string_lossy().ends_with(".backup.tar.gz") {
                OsFs.unlink(&beside.join(name))?;
            }
        }
        let state = &self.place.state;
        for dir in [state.backup(), state.history(), state.log()] {
            remove_tree(&OsFs, &dir, &no_tick)?;
        }
        Ok(())
    }

    fn command(&self, command: &str) -> Vec<OsString> {
        vec![command.into(), self.home.into()]
    }

    fn abort(&self) -> Vec<OsString> {
        vec!["abort".into(), self.home.into(), "--yes".into()]
    }

    fn doom_file(&self) -> std::path::PathBuf {
        self.dir.join(DOOM_FILE)
    }

    fn see_log(&self) -> String {
        format!("see `{}`", self.stand_in.log().display())
    }
}

/// The step that a killed run was at.
fn step_in_hand(txn: &Txn) -> Option<String> {
    match txn.next() {
        Action::Intend { step, .. } | Action::Drive { step, .. } => {
            txn.step(step).map(|step| step.name.clone())
        }
        _ => None,
    }
}

fn compare(expected: &Look, found: &Look, what: &str, story: &str, report: &mut Report) -> Result<(), Halt> {
    report.comparisons += 1;
    let differences = expected.differences(found);
    if differences.is_empty() {
        return Ok(());
    }
    let shown = differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
    let count = differences.len();
    Err(Halt::Wrong(format!("{story}: it is not {what}:\n  {shown}\n  ({count} differences in all)")))
}
