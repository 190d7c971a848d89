//! Which failures are tried: each site in each way it can fail, or a share of them that meets every step.

use std::collections::{BTreeMap, BTreeSet};

use crate::scene::{Job, Scene, Way};
use crate::support::injector::{Accident, Fault, Site};
use crate::support::random::Random;

/// Every job that the sites give, in an order of the seed's.
pub fn all(sites: &BTreeMap<(Scene, Site), u64>, random: &mut Random) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut kernels = BTreeSet::new();
    for ((scene, site), count) in sites {
        for fault in Fault::ALL.into_iter().filter(|fault| can_befall(*fault, site)) {
            for lasting in [false, true] {
                // The kernel lacks a call for good, wherever it is made.
                if is_of_kernel(fault) && (!lasting || !kernels.insert((*scene, site.call, fault))) {
                    continue;
                }
                // Lasting, the first call says most; once, any may be the one.
                let occurrence = if lasting { 1 } else { 1 + random.below(*count) };
                let way = if random.below(2) == 0 { Way::Resume } else { Way::Abort };
                let accident = Accident { site: site.clone(), occurrence, fault, lasting };
                jobs.push(Job { scene: *scene, accident, way });
            }
        }
    }
    random.shuffle(&mut jobs);
    jobs
}

/// Of them each site twice, once and for good, by an error that the seed chooses.
pub fn sites_in_both_modes(mut jobs: Vec<Job>) -> Vec<Job> {
    let mut met = BTreeSet::new();
    jobs.retain(|job| {
        let Accident { site, fault, lasting, .. } = &job.accident;
        is_of_kernel(*fault) || met.insert((job.scene, site.clone(), *lasting))
    });
    jobs
}

/// A share of them in which every step meets every fault, both once and for good.
pub fn share(jobs: Vec<Job>) -> Vec<Job> {
    let mut chosen = BTreeMap::new();
    for job in jobs {
        let Accident { site, fault, lasting, .. } = &job.accident;
        // Between the steps of a command: its journal, its planning.
        let place = if site.standing.step.is_empty() {
            format!("{} {}", job.scene.name(), site.standing.phase)
        } else {
            site.standing.step.clone()
        };
        let key = if is_of_kernel(*fault) {
            (site.call.to_owned(), *fault, true)
        } else {
            (place, *fault, *lasting)
        };
        chosen.entry(key).or_insert(job);
    }
    chosen.into_values().collect()
}

fn is_of_kernel(fault: Fault) -> bool {
    matches!(fault, Fault::Errno(libc::ENOSYS | libc::EINVAL))
}

fn can_befall(fault: Fault, site: &Site) -> bool {
    if site.ways & fault.ways() == 0 {
        return false;
    }
    let of_disk = ["state/", "home", "opt", "cube data", "cube lock", "downloads", "root"]
        .iter()
        .any(|start| site.on.starts_with(start));
    match fault {
        // Of what is newer, what a file system may refuse; the rest is there or not.
        Fault::Errno(libc::EINVAL) => {
            ["renameat2", "syncfs", "copy_file_range", "fadvise64"].contains(&site.call)
        }
        Fault::Errno(libc::EMFILE | libc::ENOSYS | libc::EAGAIN) => true,
        Fault::Errno(libc::EINTR) => of_disk || ["-", "socket", "pipe"].contains(&site.on.as_str()),
        _ => of_disk,
    }
}
