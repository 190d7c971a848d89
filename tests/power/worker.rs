//! A share of one grid: cuts, and from each both ways on.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::disk::{Cut, FileSystem};
use crate::field::{Aftermath, Blow, Command, Field, Measure};
use crate::look::Standing;
use crate::moments::{Share, choose};
use crate::support::census::{Cell, Census, Counts};
use crate::support::killer::{Counted, Moment, Swallowed};
use crate::support::random::Random;

/// What a worker does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub file_system: FileSystem,
    pub cut: Cut,
    pub seed: u64,
    pub begin: Share,
    pub abort: Share,
    pub commit: Share,
    /// Which of the chosen cuts are this worker's: the `part`-th of so many.
    pub part: (usize, usize),
    /// Instead of the shares, some late cuts of an upgrade that runs with these syncs left out.
    pub syncs_left_out: Option<Swallowed>,
}

impl Job {
    /// No cuts.
    pub fn new(file_system: FileSystem, cut: Cut, seed: u64) -> Self {
        let (begin, abort, commit) = (Share::NONE, Share::NONE, Share::NONE);
        Self { file_system, cut, seed, begin, abort, commit, part: (0, 1), syncs_left_out: None }
    }
}

/// What a worker found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    pub census: Census,
    /// What was wrong, each with what repeats it.
    pub violations: Vec<String>,
    /// The phase, step and window of each cell that there is.
    pub planned: Vec<(String, String, String)>,
}

/// Does a job.
pub fn work(job: &Job, dir: &Path) -> Found {
    let clock = Instant::now();
    let mut field = Field::new(dir, job.file_system, job.cut);
    let mut random = Random::new(job.seed);
    let begin = field.measure(Command::Begin, Counted::Own);
    let layer = format!("power: {}", job.file_system.name());
    let found =
        Found { census: Census::new(&layer, job.seed), violations: Vec::new(), planned: field.planned() };
    let mut shift = Shift { field, job, found };
    if let Some(swallowed) = job.syncs_left_out {
        for blow in late_blows(swallowed, &begin) {
            shift.blow("base", &blow, &mut random);
            // One is enough to be noticed.
            if !shift.found.violations.is_empty() {
                break;
            }
        }
        return shift.found;
    }
    let mut blows = Vec::new();
    for (command, share) in
        [(Command::Begin, job.begin), (Command::Abort, job.abort), (Command::Commit, job.commit)]
    {
        let own = if command == Command::Begin {
            begin.clone()
        } else {
            shift.field.measure(command, Counted::Own)
        };
        let all = shift.field.measure(command, Counted::Descendants);
        blows.extend(choose(command, &own, &all, share, &mut random));
    }
    let (part, parts) = job.part;
    for blow in blows.iter().skip(part).step_by(parts) {
        let from = if blow.command == Command::Begin { "base" } else { "applied" };
        shift.blow(from, blow, &mut random);
    }
    let cuts = shift.found.census.totals().0;
    println!("{layer} ({:?}): {cuts} cuts in {} s", job.cut, clock.elapsed().as_secs());
    shift.found
}

/// Cuts that a missing sync cannot survive: after the end of an upgrade, and when the outcome of one of its last steps
/// was just recorded.
fn late_blows(swallowed: Swallowed, begin: &Measure) -> Vec<Blow> {
    let late = (0..8).map(|back| Moment::Call { records: begin.records - back, n: 2 });
    let moments = std::iter::once(Moment::Never).chain(late);
    let blow =
        |(moment, seed)| Blow { command: Command::Begin, moment, counted: Counted::Own, swallowed, seed };
    moments.zip(1..).map(blow).collect()
}

struct Shift<'a> {
    field: Field,
    job: &'a Job,
    found: Found,
}

impl Shift<'_> {
    /// One cut, and what becomes of it.
    fn blow(&mut self, from: &str, blow: &Blow, random: &mut Random) {
        let story = format!(
            "{} ({:?}, KYTX_SEED={}, part {:?}): {blow:?}",
            self.field.file_system.name(),
            self.job.cut,
            self.job.seed,
            self.job.part
        );
        let aftermath = match self.field.cut(from, blow) {
            Ok(aftermath) => aftermath,
            Err(text) => return self.nameless(&format!("{story}\n{text}")),
        };
        let standing = match self.field.after_cut(Field::standing) {
            Ok(standing) => standing,
            Err(text) => return self.nameless(&format!("{story}\n{text}")),
        };
        let mut counts = Counts { states: 1, ..Counts::default() };
        let seen = if aftermath.is_done { "done" } else { "killed" };
        counts.seen.insert(seen.to_owned(), 1);
        let mut wrong = broken_promises(blow.command, aftermath, &standing);
        // Every third recovery loses its power as well.
        if blow.swallowed == Swallowed::None && random.up_to(3) == 1 && standing.phase != "none" {
            let again = Blow {
                command: if random.up_to(2) == 1 { Command::Resume } else { Command::Abort },
                moment: Moment::Call { records: 0, n: random.up_to(150) },
                seed: random.bits(),
                ..*blow
            };
            wrong.extend(self.second_cut(&again, &standing));
        }
        for way in [Command::Resume, Command::Abort] {
            match self.field.after_cut(|field| go_on(field, way)) {
                Ok(end) => {
                    let ends = if way == Command::Resume {
                        &mut counts.after_resume
                    } else {
                        &mut counts.after_abort
                    };
                    *ends.entry(end.name.to_owned()).or_default() += 1;
                    counts.stuck += u64::from(end.is_stuck);
                    wrong.extend(end.wrong);
                }
                Err(text) => wrong.push(text),
            }
        }
        counts.violations = u64::from(!wrong.is_empty());
        let mut part = Census::new(&self.found.census.layer, self.job.seed);
        *part.at(&standing.cell) = counts;
        self.found.census.add(&part);
        if !wrong.is_empty() {
            self.violation(&format!("{story}\n  found {standing:?}\n  {}", wrong.join("\n  ")));
        }
    }

    fn second_cut(&mut self, again: &Blow, standing: &Standing) -> Vec<String> {
        // An abort after the commit is refused, which is no recovery.
        let is_refused =
            again.command == Command::Abort && ["committing", "ended"].contains(&standing.phase.as_str());
        let is_over = again.command == Command::Resume && standing.phase == "ended";
        if is_refused || is_over {
            return Vec::new();
        }
        *self.found.census.figures.entry("second cuts".to_owned()).or_default() += 1;
        let found = self.field.cut("cut", again).and_then(|aftermath| {
            let standing = self.field.after_cut(Field::standing)?;
            Ok(broken_promises(again.command, aftermath, &standing))
        });
        let wrong = found.unwrap_or_else(|text| vec![text]);
        wrong.into_iter().map(|text| format!("during the recovery ({again:?}): {text}")).collect()
    }

    /// A violation of which not even the place is known.
    fn nameless(&mut self, text: &str) {
        let empty = String::new;
        let cell = Cell { phase: empty(), step: empty(), window: empty(), accident: "power cut".to_owned() };
        let counts = self.found.census.at(&cell);
        counts.states += 1;
        counts.violations += 1;
        self.violation(text);
    }

    fn violation(&mut self, text: &str) {
        println!("{text}\n");
        self.found.violations.push(text.to_owned());
    }
}

/// What was acknowledged before the cut and is not there after it.
fn broken_promises(command: Command, aftermath: Aftermath, standing: &Standing) -> Vec<String> {
    let Aftermath { is_done, promised } = aftermath;
    let mut wrong = Vec::new();
    if standing.records < promised {
        wrong.push(format!("{promised} records were durable, and {} are there", standing.records));
    }
    let expected: &[&str] = match command {
        Command::Begin => &["applied"],
        Command::Abort | Command::Commit => &["ended"],
        // From a plan half written it ends, too.
        Command::Resume => &["applied", "ended"],
    };
    if is_done && !expected.contains(&standing.phase.as_str()) {
        wrong.push(format!("it had said that it was done, and is `{}`", standing.phase));
    }
    wrong
}

struct End {
    name: &'static str,
    is_stuck: bool,
    wrong: Vec<String>,
}

/// An operator goes on, one way, and the machine is looked at.
fn go_on(field: &Field, way: Command) -> End {
    let mut wrong = Vec::new();
    let before = field.standing();
    let mut words: &[&str] = if way == Command::Resume { &["resume"] } else { &["abort", "--yes"] };
    if way == Command::Abort && before.phase == "committing" {
        // There is no way back any more, and it says so.
        let (code, text) = field.type_command(words);
        wrong.extend((code != 8).then_some(text));
        words = &["resume"];
    }
    // The refused abort may have completed the last record: then it has ended.
    let was_closed = ["none", "ended"].contains(&field.standing().phase.as_str());
    let (code, text) = field.type_command(words);
    let after = field.standing();
    // Past its start, the service went down with the machine: that is told, and it is started by whoever is told.
    let is_down = code == 4
        && after.phase == "applied"
        && before.phase == "applying"
        && text.contains("kylin.sh start");
    let is_stuck = code != 0 && !(code == 8 && was_closed) && !is_down;
    wrong.extend(is_stuck.then_some(text));
    let name = match (after.phase.as_str(), after.outcome.as_str()) {
        ("applied", _) | ("ended", "committed") => "new",
        ("ended", _) => "old",
        ("none", _) => "nothing open",
        _ => "open",
    };
    match name {
        "new" if way == Command::Resume || after.outcome == "committed" => {
            wrong.extend(field.differs_from_new());
        }
        "old" => {
            wrong.extend(field.differs_from_old());
            wrong.extend(field.left_by_abort().into_iter().map(|left| format!("left by the abort: {left}")));
        }
        "nothing open" => wrong.extend(field.differs_from_old()),
        _ => wrong.push(format!("it is {after:?}")),
    }
    // A machine that is wrong already says nothing more.
    if wrong.is_empty() {
        wrong.extend(field.start().err());
    }
    if wrong.is_empty() && after.phase == "applied" {
        // The service is in order, and the way back is whole.
        for what in ["--service", "--deep"] {
            let (code, text) = field.type_command(&["verify", what]);
            wrong.extend((code != 0).then_some(text));
        }
    }
    if wrong.is_empty() && name == "nothing open" && way == Command::Resume {
        wrong.extend(field.begin_again().err());
    }
    End { name, is_stuck, wrong }
}
