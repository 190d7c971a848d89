//! The grid of failures: notes the sites of every command, chooses, tries, counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use kytx::testbed::Options;

use crate::choice::{all, share, sites_in_both_modes};
use crate::scene::{Found, Job, Scene, Stage, Way};
use crate::support::census::{Cell, Census, exhaustive};
use crate::support::injector::{Accident, Fault, Injector, Site};
use crate::support::options;
use crate::support::random::Random;

/// What was found before, and must not come back. The format is that of `Job::line`.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// How often a long run says how far it is, in states, and leaves its count.
const PROGRESS_EVERY: u64 = 100;

/// In memory where that can be: what is tried does not depend on the disk.
pub fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Tries all or a share of them; returns the count, and what was wrong.
pub fn run(layer: &str, seed: u64) -> (Census, Vec<String>) {
    println!("KYTX_SEED={seed}");
    let options = options().major();
    let sites = note_sites(&options);
    let mut random = Random::new(seed);
    let every = all(&sites, &mut random);
    let possible = every.len();
    let mut jobs = regressions(&sites);
    jobs.extend(match std::env::var("KYTX_EXHAUSTIVE").as_deref() {
        Ok("2") => every,
        Ok("1") => sites_in_both_modes(every),
        _ => share(every),
    });
    if let Ok(pattern) = std::env::var("KYTX_FAULT") {
        jobs.retain(|job| job.line().contains(&pattern));
    }
    println!("{} sites, {possible} states possible, {} to explore", sites.len(), jobs.len());
    let count = jobs.len() as u64;
    let mut census = Census::new(layer, seed);
    census.figures.insert("sites".to_owned(), sites.len() as u64);
    census.figures.insert("states possible".to_owned(), possible as u64);
    let tally = Mutex::new(Tally { census, violations: Vec::new(), passed_over: BTreeMap::new(), count });
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| work(&options, &jobs, &tally));
        }
    });
    let tally = tally.into_inner().expect("no worker died");
    if std::env::var_os("KYTX_FAULT").is_some() || exhaustive() {
        for (what, count) in &tally.passed_over {
            println!("passed over: {count:4} {what}");
        }
    }
    (tally.census, tally.violations)
}

struct Tally {
    census: Census,
    violations: Vec<String>,
    /// Failures after which kytx went on, for whoever judges whether it may.
    passed_over: BTreeMap<String, u64>,
    count: u64,
}

fn work(options: &Options, jobs: &Mutex<Vec<Job>>, tally: &Mutex<Tally>) {
    let begun = Instant::now();
    let mut stage = Stage::new(&scratch(), options);
    let limit =
        std::env::var("KYTX_MINUTES").ok().and_then(|text| text.parse().ok()).map(Duration::from_mins);
    while let Some(job) = take(jobs, stage.applied) {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            return;
        }
        let found = stage.perform(&job);
        // A machine that shows a violation says nothing about the next state, and a commit is final.
        if !found.violations.is_empty() || job.scene == Scene::Commit {
            stage = Stage::new(&scratch(), options);
        }
        tally.lock().expect("no worker died").add(&job, &found, begun);
    }
}

/// The next job, if there is one that begins where the machine is.
fn take(jobs: &Mutex<Vec<Job>>, applied: bool) -> Option<Job> {
    let mut jobs = jobs.lock().expect("no worker died");
    let fits = |job: &Job| applied == job.scene.is_of_applied();
    let at = jobs.iter().take(200).position(fits).unwrap_or(0);
    (!jobs.is_empty()).then(|| jobs.remove(at))
}

impl Tally {
    fn add(&mut self, job: &Job, found: &Found, begun: Instant) {
        let figures = &mut self.census.figures;
        let done = figures.entry("tried".to_owned()).or_default();
        *done += 1;
        let done = *done;
        for violation in &found.violations {
            println!("{violation}\n");
        }
        self.violations.extend(found.violations.iter().cloned());
        let Some(standing) = &found.struck else {
            *figures.entry("sites not met again".to_owned()).or_default() += 1;
            return;
        };
        let phase = if standing.phase == "none" { "planning".to_owned() } else { standing.phase.clone() };
        let cell = Cell {
            phase,
            step: standing.step.clone(),
            window: standing.window.clone(),
            accident: job.accident.name(),
        };
        let counts = self.census.at(&cell);
        counts.states += 1;
        *counts.seen.entry(format!("exit {}", found.code)).or_default() += 1;
        let after = match job.way {
            Way::Resume => &mut counts.after_resume,
            Way::Abort => &mut counts.after_abort,
        };
        *after.entry(found.ended.clone()).or_default() += 1;
        counts.violations += u64::from(!found.violations.is_empty());
        counts.stuck += u64::from(found.stuck);
        if found.code == 0 {
            let site = &job.accident.site;
            let what = format!("{} {} {} ({})", job.accident.name(), site.call, site.on, standing.step);
            *self.passed_over.entry(what).or_default() += 1;
        }
        if done.is_multiple_of(PROGRESS_EVERY) {
            println!(
                "{done} of {} states, {} violations, {} s",
                self.count,
                self.violations.len(),
                begun.elapsed().as_secs()
            );
            if exhaustive() {
                self.census.publish();
            }
        }
    }
}

/// Runs each command undisturbed, and notes at which sites it can fail.
fn note_sites(options: &Options) -> BTreeMap<(Scene, Site), u64> {
    let mut stage = Stage::new(&scratch(), options);
    let mut sites = BTreeMap::new();
    let mut before: BTreeSet<Site> = BTreeSet::new();
    for scene in Scene::ALL {
        stage.set(scene);
        let noting = Injector::noting(&stage.judged.machine.root, &stage.judged.state());
        let (ended, noted) = stage.traced(&stage.words(scene), noting);
        assert_eq!(ended.code, 0, "{scene:?}: {}", ended.stderr);
        stage.applied = matches!(scene, Scene::Begin | Scene::Resume | Scene::Verify);
        for (site, count) in noted.sites {
            // What a resumed upgrade does as one that was begun does is met there.
            if before.insert(site.clone()) {
                sites.insert((scene, site), count);
            }
        }
    }
    sites
}

fn regressions(sites: &BTreeMap<(Scene, Site), u64>) -> Vec<Job> {
    let lines = REGRESSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse(line, sites).unwrap_or_else(|| panic!("no such site: {line}"))).collect()
}

fn parse(line: &str, sites: &BTreeMap<(Scene, Site), u64>) -> Option<Job> {
    let words: Vec<&str> = line.split("; ").collect();
    let [scene, phase, step, window, call, on, occurrence, fault, mode, way] = words[..] else { return None };
    let ((scene, site), _) = sites.iter().find(|((its, site), _)| {
        let standing = &site.standing;
        (its.name(), site.call, site.on.as_str()) == (scene, call, on)
            && (standing.phase.as_str(), standing.step.as_str(), standing.window.as_str())
                == (phase, step, window)
    })?;
    let fault = Fault::ALL.into_iter().find(|known| known.name() == fault)?;
    let accident = Accident {
        site: site.clone(),
        occurrence: occurrence.parse().ok()?,
        fault,
        lasting: mode == "for good",
    };
    Some(Job { scene: *scene, accident, way: if way == "Abort" { Way::Abort } else { Way::Resume } })
}
