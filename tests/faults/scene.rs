//! A command in which a call fails, and the way on from there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kytx::testbed::Options;

use crate::message;
use crate::support::Ran;
use crate::support::injector::{Accident, Fault, Injector, Standing};
use crate::support::tracer::{Counted, Ended, trace};
use crate::support::verdict::Judged;

/// Longer than any command takes, however many tests run beside it.
const LIMIT: Duration = Duration::from_mins(2);

/// Where the resumed upgrade had been stopped: everything before the downtime, and the stop, lie before it.
pub const STOPPED_BEFORE: &str = "exchange-trees";

/// The command in which a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// `begin` of an upgrade.
    Begin,
    /// `resume` of one that was stopped.
    Resume,
    /// `abort` of one that is applied.
    Abort,
    /// `verify --deep` of one that is applied.
    Verify,
    /// `commit` of one that is applied.
    Commit,
}

impl Scene {
    pub const ALL: [Self; 5] = [Self::Begin, Self::Resume, Self::Abort, Self::Verify, Self::Commit];

    /// Whether it begins with an upgrade that is applied.
    pub fn is_of_applied(self) -> bool {
        matches!(self, Self::Abort | Self::Verify | Self::Commit)
    }

    /// Its name in a list of regressions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Verify => "verify",
            Self::Commit => "commit",
        }
    }
}

/// What the operator types next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Resume,
    Abort,
}

/// What is tried.
#[derive(Clone, Debug)]
pub struct Job {
    pub scene: Scene,
    pub accident: Accident,
    pub way: Way,
}

impl Job {
    /// As a line of the list of regressions.
    pub fn line(&self) -> String {
        let Accident { site, occurrence, fault, lasting } = &self.accident;
        let Standing { phase, step, window } = &site.standing;
        let mode = if *lasting { "for good" } else { "once" };
        format!(
            "{}; {phase}; {step}; {window}; {}; {}; {occurrence}; {}; {mode}; {:?}",
            self.scene.name(),
            site.call,
            site.on,
            fault.name(),
            self.way
        )
    }
}

/// What came of a job.
#[derive(Debug, Default)]
pub struct Found {
    /// Where the accident happened; `None` if its site was not met.
    pub struck: Option<Standing>,
    /// The exit code of the command in which it happened.
    pub code: i32,
    /// What the way led to.
    pub ended: String,
    /// Whether the way did not lead on.
    pub stuck: bool,
    pub violations: Vec<String>,
}

/// A machine in use.
pub struct Stage {
    pub judged: Judged,
    /// Whether the upgrade is applied; else the machine is as it was.
    pub applied: bool,
}

impl Stage {
    /// A machine of which is known what an upgrade makes of it.
    pub fn new(parent: &Path, options: &Options) -> Self {
        let mut judged = Judged::new(parent, options);
        judged.run(&judged.begin_words(&[])).expect_code(0);
        judged.note_new();
        Self { judged, applied: true }
    }

    /// Leads an undisturbed machine to where a scene begins.
    pub fn set(&mut self, scene: Scene) {
        let judged = &self.judged;
        match (scene, self.applied) {
            (Scene::Begin | Scene::Resume, true) => {
                judged.run(&judged.words(&["abort", "--yes"])).expect_code(0);
                let _ = judged.not_old();
            }
            (Scene::Abort | Scene::Verify | Scene::Commit, false) => {
                judged.run(&judged.begin_words(&[])).expect_code(0);
            }
            _ => {}
        }
        self.applied = scene.is_of_applied();
        if scene == Scene::Resume {
            judged.run(&judged.begin_words(&["--stop-before", STOPPED_BEFORE])).expect_code(4);
        }
    }

    pub fn words(&self, scene: Scene) -> Vec<String> {
        match scene {
            Scene::Begin => self.judged.begin_words(&[]),
            Scene::Resume => self.judged.words(&["resume"]),
            Scene::Abort => self.judged.words(&["abort", "--yes"]),
            Scene::Verify => self.judged.words(&["verify", "--deep"]),
            Scene::Commit => self.judged.words(&["commit", "--yes"]),
        }
    }

    /// Runs a command under the injector.
    pub fn traced(&self, words: &[String], injector: Injector) -> (Ended, Injector) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        trace(self.judged.machine.kytx(&words), Counted::Own, Some(LIMIT), injector)
    }

    fn injector(&self, accident: &Accident) -> Injector {
        Injector::with(&self.judged.machine.root, &self.judged.state(), accident)
    }

    /// Does a job. The machine is then as it was, or upgraded, or says nothing more if there is a violation.
    pub fn perform(&mut self, job: &Job) -> Found {
        self.set(job.scene);
        let (ended, injector) = self.traced(&self.words(job.scene), self.injector(&job.accident));
        let mut found = Found { struck: injector.struck.clone(), code: ended.code, ..Found::default() };
        let mut wrong = injector.after_failed_sync.clone();
        if ended.hung {
            wrong.push(format!("it hung for {} s", LIMIT.as_secs()));
        } else if found.struck.is_some() {
            wrong.extend(message::wrong(job, &ended, &injector));
        }
        let full = (job.accident.lasting && is_full(job.accident.fault) && found.struck.is_some())
            .then_some(injector.room_bytes);
        let way = self.lead_on(job, full);
        if job.accident.site.on.starts_with("state/journal") {
            // Kept for a person, who clears it away.
            self.clear_damaged();
        }
        found.ended = way.ended;
        found.stuck = way.stuck;
        wrong.extend(way.wrong);
        if !wrong.is_empty() {
            let text = format!(
                "{}\n  failed: {}\n  exit {} \n{}{}\n  then: {}\n  WRONG: {}",
                job.line(),
                injector.story.join("\n          "),
                ended.code,
                tail(&ended.stdout, 5),
                tail(&ended.stderr, 30),
                way.story.join("; "),
                wrong.join("\n         ")
            );
            found.violations.push(text);
        }
        found
    }

    fn clear_damaged(&self) {
        for entry in fs::read_dir(self.judged.state()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.to_string_lossy().contains(".damaged-") {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.unwrap();
            }
        }
    }

    /// Types what leads on, and checks where it leads.
    fn lead_on(&mut self, job: &Job, full: Option<u64>) -> Led {
        let mut led = Led::default();
        for attempt in 0..4 {
            let phase = self.judged.phase();
            let Some(words) = self.next(job, &phase, attempt, &mut led) else { return led };
            // The cause stays for an abort: it must work on a disk that is still full.
            let room = full.filter(|_| words[0] == "abort" && attempt == 0);
            let ran = match room {
                None => self.judged.run(&words),
                Some(room_bytes) => {
                    let judged = &self.judged;
                    let fault = job.accident.fault;
                    let full = Injector::full(&judged.machine.root, &judged.state(), fault, room_bytes);
                    let (ended, _) = self.traced(&words, full);
                    Ran { code: ended.code, stdout: ended.stdout, stderr: ended.stderr }
                }
            };
            let on = if room.is_some() { " (still full)" } else { "" };
            led.story.push(format!("{phase}: {}{on} exits {}", words[0], ran.code));
            // An abort of a plan that was never sealed, and what is over already, are refused or told so.
            let fine = ran.code == 0
                || (phase == "ended" && ran.code == 8)
                || (["none", "planning"].contains(&phase.as_str()) && [3, 8].contains(&ran.code));
            if !fine {
                led.stuck = true;
                led.wrong.push(format!(
                    "`{}`{on} exits {}:\n{}{}",
                    words[0],
                    ran.code,
                    tail(&ran.stdout, 5),
                    tail(&ran.stderr, 20)
                ));
            }
        }
        led.stuck = true;
        led.wrong.push("no command leads to an end".to_owned());
        led
    }

    /// What is typed next; `None` at an end, which is checked.
    fn next(&mut self, job: &Job, phase: &str, attempt: usize, led: &mut Led) -> Option<Vec<String>> {
        let judged = &self.judged;
        let (resume, abort) = (judged.words(&["resume"]), judged.words(&["abort", "--yes"]));
        let site = &job.accident.site;
        if phase == "ended" && attempt == 0 && (site.on == "cube lock" || site.standing.phase == "ended") {
            // What follows the last record may be undone: the next command does it, and has nothing else to do.
            return Some(resume);
        }
        let is_scene_of_upgrade = matches!(job.scene, Scene::Begin | Scene::Resume);
        let (ended, wrong) = match (phase, job.scene) {
            ("none", _) => ("nothing open", judged.not_old()),
            ("planning" | "aborting" | "applying" | "committing", _) if job.way == Way::Resume => {
                return Some(resume);
            }
            ("planning" | "aborting" | "applying", _) => return Some(abort),
            ("applied", _) if is_scene_of_upgrade && job.way == Way::Abort => return Some(abort),
            // It changes nothing, and says so when it can read again.
            ("applied", Scene::Verify) if attempt == 0 => return Some(self.words(job.scene)),
            ("applied", scene) if is_scene_of_upgrade || scene == Scene::Verify => ("new", judged.not_new()),
            // It failed before it was decided: still applied, and decided again.
            ("applied", _) if attempt == 0 && job.way == Way::Resume => {
                led.wrong.extend(judged.not_new());
                return Some(resume);
            }
            ("applied" | "committing", _) => return Some(self.words(job.scene)),
            ("ended", Scene::Commit) => ("new", judged.not_committed()),
            ("ended", _) => ("old", judged.not_old()),
            other => panic!("no command leads on from {other:?}"),
        };
        ended.clone_into(&mut led.ended);
        led.wrong.extend(wrong);
        self.applied = ended == "new";
        None
    }
}

/// Where the way led.
#[derive(Default)]
struct Led {
    ended: String,
    stuck: bool,
    wrong: Vec<String>,
    story: Vec<String>,
}

/// Whether it is a disk without room.
pub fn is_full(fault: Fault) -> bool {
    matches!(fault, Fault::Errno(libc::ENOSPC | libc::EDQUOT))
}

/// From the first thing that kytx says on; of a panic everything, of anything else the end.
fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let said = all.iter().position(|line| line.starts_with("kytx: ") || line.contains("panicked"));
    let last = &all[said.unwrap_or(all.len().saturating_sub(3))..];
    let shown: Vec<String> = last.iter().take(lines).map(|line| format!("    | {line}\n")).collect();
    shown.concat()
}
