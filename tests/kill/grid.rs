//! Which crash states there are, which of them are explored, and by whom.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kytx::testbed::Options;

use crate::moments::Windows;
use crate::sieve;
use crate::site::{Scene, Site, Standing};
use crate::state::{Accident, Found, Job, Way, explore};
use crate::support::census::{Cell, Census};
use crate::support::options;
use crate::support::random::Random;

/// A machine that is upgraded.
pub struct Kind {
    pub name: &'static str,
    pub options: Options,
}

/// The machines: the smallest that have every mutation.
pub fn kinds() -> [Kind; 3] {
    [
        Kind { name: "minor", options: options() },
        Kind { name: "major", options: options().major() },
        Kind { name: "KE 4", options: options().ke4() },
    ]
}

/// An undisturbed command.
pub struct Measured {
    pub kind: usize,
    pub scene: Scene,
    /// Everybody's calls, cut where kytx wrote a record.
    pub windows: Windows,
    /// How many of them scripts made.
    pub scripts: u64,
}

/// Runs every command undisturbed. Returns the windows that there are as well.
pub fn measure(scratch: &Path) -> (Vec<Measured>, BTreeSet<(usize, [String; 3])>) {
    let (mut measured, mut windows) = (Vec::new(), BTreeSet::new());
    for (kind, Kind { options, .. }) in kinds().iter().enumerate() {
        let site = Site::new(scratch, options);
        windows.extend(site.windows.iter().map(|standing| (kind, key(standing))));
        let steps = site.windows.len() / 2 - site.undoable();
        for scene in Scene::ALL {
            site.renew();
            let run = sieve::run(site.set(scene), None);
            assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
            let mut cuts: Vec<u64> = (1..)
                .zip(&run.calls)
                .filter(|(_, call)| call.by_program && call.is_record)
                .map(|(number, _)| number)
                .collect();
            if scene == Scene::Begin {
                // Begin and the steps planned: nothing happens between them.
                cuts.drain(..=steps);
            }
            let scripts = run.calls.iter().filter(|call| !call.by_program).count() as u64;
            let name = kinds()[kind].name;
            println!("{name}: {scene:?} makes {} calls, {scripts} of them in scripts", run.calls.len());
            measured.push(Measured {
                kind,
                scene,
                windows: Windows::new(&cuts, run.calls.len() as u64),
                scripts,
            });
        }
    }
    (measured, windows)
}

fn key(standing: &Standing) -> [String; 3] {
    [standing.phase.clone(), standing.step.clone(), standing.window.clone()]
}

/// Who is killed while a command runs. A resumed upgrade runs the same scripts as a begun one.
fn accidents(scene: Scene) -> &'static [Accident] {
    match scene {
        Scene::Begin | Scene::Abort => &[Accident::Kytx, Accident::Tree, Accident::Script],
        Scene::Resume | Scene::Commit => &[Accident::Kytx],
    }
}

/// Every crash state, both ways: the first half in which each is met goes one way, the second the other.
pub fn all(measured: &[Measured], random: &mut Random, seconds: u64) -> Vec<Job> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for Measured { kind, scene, windows, scripts } in measured {
        for &accident in accidents(*scene) {
            let calls = if accident == Accident::Kytx { windows.calls() } else { *scripts };
            for at in 1..=calls {
                let way = if random.up_to(2) == 1 { Way::Resume } else { Way::Abort };
                let other = if way == Way::Resume { Way::Abort } else { Way::Resume };
                let again = again(random, seconds);
                let job = Job { kind: *kind, scene: *scene, accident, at, way, again };
                first.push(job);
                second.push(Job { way: other, again: None, ..job });
            }
        }
    }
    random.shuffle(&mut first);
    random.shuffle(&mut second);
    first.extend(second);
    first
}

/// A share of them, in which every window of every command is met.
pub fn share(measured: &[Measured], random: &mut Random) -> Vec<Job> {
    let mut jobs = Vec::new();
    for Measured { kind, scene, windows, scripts } in measured {
        for &accident in accidents(*scene) {
            let moments = if accident == Accident::Kytx {
                // Two thirds are spread over the windows.
                windows.choose(windows.count() * 7 / 4, random)
            } else {
                Windows::new(&[], *scripts).choose(20, random)
            };
            for (number, at) in moments.into_iter().enumerate() {
                let way = if number % 2 == 0 { Way::Resume } else { Way::Abort };
                let again = again(random, 5);
                jobs.push(Job { kind: *kind, scene: *scene, accident, at, way, again });
            }
        }
    }
    random.shuffle(&mut jobs);
    jobs
}

/// Another share of the commands in whose windows these are. Runs differ by a few calls, so that a kill can fall beside
/// a window of few calls.
pub fn share_for(missed: &[(usize, [String; 3])], measured: &[Measured], random: &mut Random) -> Vec<Job> {
    let is_wanted = |job: &Job| {
        let phase = match job.scene {
            Scene::Begin | Scene::Resume => "applying",
            Scene::Abort => "aborting",
            Scene::Commit => "committing",
        };
        job.accident == Accident::Kytx
            && missed.iter().any(|(kind, place)| *kind == job.kind && place[0] == phase)
    };
    let mut jobs = share(measured, random);
    jobs.retain(is_wanted);
    jobs
}

/// In one of so many states the recovery is killed as well. Most are short.
fn again(random: &mut Random, one_in: u64) -> Option<(u64, bool)> {
    let is_chosen = random.up_to(one_in) == 1;
    let (at, with_scripts) = (random.up_to(400), random.up_to(3) == 1);
    is_chosen.then_some((if with_scripts { at.div_ceil(4) } else { at }, with_scripts))
}

/// What the workers share.
pub struct Grid {
    pub census: Census,
    pub violations: Vec<String>,
    /// The windows that a kill fell into.
    pub met: BTreeSet<(usize, [String; 3])>,
    begun: Instant,
}

impl Grid {
    pub fn new(seed: u64) -> Self {
        let census = Census::new("kill grid", seed);
        Self { census, violations: Vec::new(), met: BTreeSet::new(), begun: Instant::now() }
    }

    /// Explores them, and tells how far it is after every `tell_every` of them.
    pub fn explore(&mut self, jobs: &[Job], workers: usize, scratch: &Path, tell_every: usize) {
        *self.census.figures.entry("runs planned".to_owned()).or_default() += jobs.len() as u64;
        let next = AtomicUsize::new(0);
        let shared = Mutex::new(&mut *self);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let mut sites: Vec<Option<Site>> = kinds().iter().map(|_| None).collect();
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let site = &mut sites[job.kind];
                        let site = site.get_or_insert_with(|| Site::new(scratch, &kinds()[job.kind].options));
                        let found = explore(site, job);
                        let mut grid = shared.lock().unwrap();
                        grid.count(job, &found);
                        let done = grid.census.figures.get("runs").copied().unwrap_or_default();
                        if tell_every != 0 && done.is_multiple_of(tell_every as u64) {
                            println!("{done} of {} runs, {} s", jobs.len(), grid.begun.elapsed().as_secs());
                            grid.census.publish();
                        }
                    }
                });
            }
        });
    }

    fn count(&mut self, job: &Job, found: &Found) {
        let mut figure = |name: &str, by: usize| {
            *self.census.figures.entry(name.to_owned()).or_default() += by as u64;
        };
        figure("runs", 1);
        figure("kill points", found.standings.len());
        figure("second kills", found.standings.len().saturating_sub(1));
        figure("recoveries that waited for a script", usize::from(found.waited));
        figure("runs over before their kill", usize::from(found.standings.is_empty()));
        for standing in &found.standings {
            self.met.insert((job.kind, key(standing)));
            let counts = self.census.at(&Cell {
                phase: phase(standing),
                step: standing.step.clone(),
                window: standing.window.clone(),
                accident: job.accident.name().to_owned(),
            });
            counts.states += 1;
        }
        let last = found.standings.last().cloned().unwrap_or_default();
        if !found.standings.is_empty() || !found.violations.is_empty() {
            let counts = self.census.at(&Cell {
                phase: phase(&last),
                step: last.step,
                window: last.window,
                accident: job.accident.name().to_owned(),
            });
            *counts.seen.entry(found.seen.clone()).or_default() += 1;
            let after =
                if job.way == Way::Resume { &mut counts.after_resume } else { &mut counts.after_abort };
            *after.entry(found.end.clone()).or_default() += 1;
            counts.stuck += u64::from(found.stuck);
            counts.violations += u64::from(!found.violations.is_empty());
        }
        if !found.violations.is_empty() {
            let kind = kinds()[job.kind].name;
            let text = format!(
                "{kind}: {job:?} (KYTX_SEED={})\n  stood at {:?}\n  {}",
                self.census.seed,
                found.standings,
                found.violations.join("\n  ")
            );
            println!("{text}\n");
            self.violations.push(text);
        }
    }
}

/// As the census calls it: before there is a journal, it is planned.
fn phase(standing: &Standing) -> String {
    if standing.phase == "none" { "planning".to_owned() } else { standing.phase.clone() }
}
