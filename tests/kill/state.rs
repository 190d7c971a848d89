//! One crash state: somebody is killed at a call of a command, the operator types `resume` or `abort`, and the machine is
//! judged.

use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use crate::limited::{run_limited, text_of};
use crate::sieve::{self, Blow, Counted, Held, Victims};
use crate::site::{Scene, Site, Standing};
use crate::support::{PATIENCE, Ran};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accident {
    /// kytx alone; its whole process group at every other call, which is the same as long as scripts lead their own.
    Kytx,
    /// kytx and all that it started, at a call of a script.
    Tree,
    /// A script or one of its children, at a call of it, while kytx lives.
    Script,
}

impl Accident {
    /// Its name in the census.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kytx => "SIGKILL",
            Self::Tree => "SIGKILL, scripts too",
            Self::Script => "SIGKILL of a script",
        }
    }

    fn blow(self, at: u64) -> Blow {
        let (counted, victims) = match self {
            Self::Kytx if at.is_multiple_of(2) => (Counted::All, Victims::Group),
            Self::Kytx => (Counted::All, Victims::Program),
            Self::Tree => (Counted::Scripts, Victims::Tree),
            Self::Script => (Counted::Scripts, Victims::Caller),
        };
        Blow { counted, at, victims }
    }
}

/// What is typed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Resume,
    Abort,
}

impl Way {
    fn command(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Abort => "abort",
        }
    }
}

/// What is to be explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    /// Which of the machines.
    pub kind: usize,
    pub scene: Scene,
    pub accident: Accident,
    pub at: u64,
    pub way: Way,
    /// The call at which the recovery is killed too, together with what it started or not.
    pub again: Option<(u64, bool)>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Where the transaction stood after each kill. None if the run was over before.
    pub standings: Vec<Standing>,
    /// `killed`, or the exit code.
    pub seen: String,
    /// What the way led to.
    pub end: String,
    /// Whether the recovery had to wait for a script that had outlived kytx.
    pub waited: bool,
    pub stuck: bool,
    pub violations: Vec<String>,
}

/// Explores it.
pub fn explore(site: &Site, job: &Job) -> Found {
    site.renew();
    let mut found = Found::default();
    let run = sieve::run(site.set(job.scene), Some(job.accident.blow(job.at)));
    if !run.struck {
        if run.code != 0 {
            found
                .violations
                .push(format!("undisturbed, exit code {}:\n{}{}", run.code, run.stdout, run.stderr));
        }
        return found;
    }
    let is_alive = job.accident == Accident::Script;
    found.seen = if is_alive { run.code.to_string() } else { "killed".to_owned() };
    // A script that dies is told of and the upgrade stays open, unless the script had done its work, by looking.
    let expected: &[i32] = if is_alive { &[0, 4] } else { &[-libc::SIGKILL] };
    if !expected.contains(&run.code) {
        found.violations.push(format!("exit code {}:\n{}{}", run.code, run.stdout, run.stderr));
    }
    let standing = site.standing();
    if is_alive && run.code == 0 {
        let at_rest = ["applied", "ended"].contains(&standing.phase.as_str());
        if !at_rest {
            found.violations.push(format!("exit code 0, and it is {}", standing.phase));
        }
    }
    found.standings.push(standing);
    if run.is_service_dead && run.code == 0 {
        // It had answered, and the upgrade was done. Whoever operates it starts it again.
        site.revive();
    }
    look(site, run.held.is_some(), &mut found);
    if let Some(held) = run.held {
        found.waited = true;
        wait_for_the_orphan(site, job.way, held, &mut found);
    } else if let Some((at, with_scripts)) = job.again {
        let (counted, victims) =
            if with_scripts { (Counted::Scripts, Victims::Tree) } else { (Counted::All, Victims::Program) };
        let again = sieve::run(site.command(job.way.command()), Some(Blow { counted, at, victims }));
        if again.struck {
            found.standings.push(site.standing());
            look(site, again.held.is_some(), &mut found);
            drop(again.held);
        }
    }
    recover(site, job, &mut found);
    found
}

/// `status` and `log` answer, and change nothing.
fn look(site: &Site, is_held: bool, found: &mut Found) {
    let before = site.state_snapshot();
    for command in ["status", "log"] {
        let ran = site.run(command);
        if ![0, 8].contains(&ran.code) {
            found.violations.push(format!("`{command}` exits {}: {}", ran.code, ran.stderr));
        }
    }
    if let (Some(before), Some(after), false) = (before, site.state_snapshot(), !is_held && runs_on(site)) {
        let lines = before.diff(&after);
        if !lines.is_empty() {
            found.violations.push(format!("looking changed the state directory:\n  {}", lines.join("\n  ")));
        }
    }
}

/// Whether a script that has outlived kytx still works, and may change things while one looks.
fn runs_on(site: &Site) -> bool {
    let Ok(file) = File::open(site.state().join("child")) else { return false };
    fs2::FileExt::try_lock_exclusive(&file).is_err()
}

/// The recovery waits for the script that stands still, and changes nothing before it has ended.
fn wait_for_the_orphan(site: &Site, way: Way, held: Held, found: &mut Found) {
    const WAITS: &str = "waiting for a program that an earlier kytx started";
    const REFUSES: &str = "is being started or used by another process";
    let before = site.state_snapshot();
    let err = tempfile::tempfile().unwrap();
    let mut command = site.command(way.command());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let is_over = loop {
        if text_of(&err).contains(WAITS) {
            break false;
        }
        if child.try_wait().unwrap().is_some() || begun.elapsed() > PATIENCE {
            break true;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    };
    if is_over {
        // A script that was put in the background has let go of the orphan lock. It is found among the home's processes
        // then, and refused instead of waited for; or it was about to become the service, and the product's stop has
        // killed it by its pid file.
        let text = text_of(&err);
        if !text.contains(REFUSES) && !held.is_killed() {
            found.violations.push(format!("`{}` did not wait for the script:\n{text}", way.command()));
        }
    } else if let (Some(before), Some(after)) = (before, site.state_snapshot()) {
        let lines = before.diff(&after);
        if !lines.is_empty() {
            found.violations.push(format!("changed while a script was at work:\n  {}", lines.join("\n  ")));
        }
    }
    drop(held);
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > 2 * PATIENCE {
            found.violations.push(format!("`{}` hangs:\n{}", way.command(), text_of(&err)));
            child.kill().unwrap();
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}

/// Types what leads on, and judges what it leads to.
fn recover(site: &Site, job: &Job, found: &mut Found) {
    let way = job.way;
    let before = site.standing().phase;
    let ran = site.run(way.command());
    let (expected, codes): (&str, &[i32]) = match (before.as_str(), way) {
        ("none", _) => ("old", &[8]),
        ("planning" | "aborting", _) | ("applying" | "applied", Way::Abort) => ("old", &[0]),
        ("applying" | "applied" | "committing", Way::Resume) => ("new", &[0]),
        ("committing", Way::Abort) => ("new", &[8]),
        // Its very last record may have been cut short; whoever completes it says 0.
        ("ended", _) => (if job.scene == Scene::Commit { "new" } else { "old" }, &[0, 8]),
        other => panic!("no such phase: {other:?}"),
    };
    // The last record was in the store alone, where `status` does not look: the transaction was a record further.
    let was_further = ran.stderr.contains("had been written in one of its two places");
    let (expected, codes) = if was_further { ("", &[0, 8][..]) } else { (expected, codes) };
    expect_codes(way.command(), &ran, codes, found);
    let mut end = String::new();
    if site.standing().phase == "committing" && way == Way::Abort {
        "refused, resumed: ".clone_into(&mut end);
        expect_codes("resume", &site.run("resume"), &[0, 8], found);
    }
    if before == "none" {
        "nothing open: ".clone_into(&mut end);
    }
    judge(site, expected, &mut end, found);
    if before == "none" && found.violations.is_empty() {
        // What the killed run left must not be in the way of the next.
        expect_codes("begin", &site.run("begin"), &[0], found);
        end.push_str(", begun again: ");
        judge(site, "new", &mut end, found);
    }
    found.end = end;
}

fn expect_codes(command: &str, ran: &Ran, codes: &[i32], found: &mut Found) {
    if !codes.contains(&ran.code) {
        let text = format!("`{command}` exits {}:\n{}{}", ran.code, ran.stdout, ran.stderr);
        found.stuck = [4, 5, 7, 9].contains(&ran.code);
        found.violations.push(text);
    }
}

fn judge(site: &Site, expected: &str, end: &mut String, found: &mut Found) {
    match site.release() {
        Ok(release) => {
            end.push_str(release);
            let promised = site.promised().unwrap_or(release);
            if promised != release {
                found
                    .violations
                    .push(format!("the journal says the {promised} release, found the {release}"));
            }
            if !expected.is_empty() && release != expected {
                found.violations.push(format!("expected the {expected} release, found the {release}"));
            }
        }
        Err(wrong) => {
            end.push_str("neither");
            found.violations.extend(wrong);
        }
    }
    match site.standing().phase.as_str() {
        "applied" => {
            let verified = run_limited(site.command("verify"));
            expect_codes("verify", &verified, &[0], found);
        }
        "ended" => found.violations.extend(site.left_over()),
        "none" => {}
        phase => found.violations.push(format!("it does not come to rest: {phase}")),
    }
}
