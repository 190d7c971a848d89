//! One upgrade an instance, whatever home and host it is typed on: the lock beside the cube data.

use std::fs;

use super::bed::{Parent, Site, USER, admin, bed, names_in};
use crate::support::Ran;
use crate::support::census::exhaustive;

/// The first step of every plan: what stops before it has touched nothing.
const FIRST: [&str; 4] = ["--cube-backup", "none", "--stop-before", "stage-tree"];

fn words(site: &Site) -> Vec<String> {
    site.begin_words(&FIRST)
}

fn lock_dir(site: &Site) -> String {
    format!("{}/_kytx/lock/kylin_metadata", site.working_dir)
}

#[track_caller]
fn assert_refused(ran: Ran, holder: &Site, more: &[&str]) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let home = holder.machine.home.to_str().unwrap().to_owned();
    let mut words = vec!["open elsewhere", &home, &host, "process ", "at step `"];
    words.extend(more);
    let _ = ran.explains(7, &words);
}

#[track_caller]
fn assert_let_go(site: &Site) {
    assert!(!names_in(&site.working_dir).contains(&"_kytx".to_owned()), "nothing of the lock is left");
}

#[test]
fn i8_of_four_homes_on_one_cluster_that_begin_together_one_upgrades() {
    let Some(_bed) = bed("i8_of_four_homes_on_one_cluster_that_begin_together_one_upgrades") else { return };
    let first = Site::new(USER, Parent::Own);
    let others = [first.beside(), first.beside(), first.beside()];
    let sites: Vec<&Site> = std::iter::once(&first).chain(&others).collect();
    for round in 0..if exhaustive() { 20 } else { 2 } {
        let begun: Vec<_> = sites
            .iter()
            .map(|site| site.spawn(&words(site).iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        let rans: Vec<Ran> =
            begun.into_iter().map(|child| Ran::from(child.wait_with_output().unwrap())).collect();
        let owners: Vec<usize> = (0..4).filter(|at| rans[*at].code == 4).collect();
        assert_eq!(owners.len(), 1, "round {round}: {rans:#?}");
        let owner = sites[owners[0]];
        for ran in rans.into_iter().enumerate().filter(|(at, _)| *at != owners[0]).map(|(_, ran)| ran) {
            assert_refused(ran, owner, &["Nothing was changed: the upgrade was not begun."]);
        }
        owner.run("abort", &["--yes"]).expect_code(0);
        assert_let_go(&first);
    }
}

#[test]
fn i8_a_killed_upgrade_keeps_the_lock_until_its_own_resume_or_abort_has_ended_it() {
    let Some(_bed) = bed("i8_a_killed_upgrade_keeps_the_lock_until_its_own_resume_or_abort_has_ended_it")
    else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let stranger = site.beside();
    let begin = words(&site);
    let begin: Vec<&str> = begin.iter().map(String::as_str).collect();
    let home = site.machine.home.to_str().unwrap().to_owned();
    let resume = ["resume", &home, "--stop-before", "stage-tree"];
    // Before the lock: nobody has it, and the transaction is open.
    site.killed_at(&begin, "instead -mv *LOCK");
    assert_eq!(names_in(&lock_dir(&site)).len(), 1, "a claim binds nobody");
    stranger.begin(&FIRST).expect_code(4);
    assert_refused(site.run("resume", &resume[2..]), &stranger, &[]);
    // It began nothing, so it needs no lock to go back; a claim of its own goes with the stranger's end.
    site.run("abort", &["--yes"]).expect_code(0);
    stranger.run("abort", &["--yes"]).expect_code(0);
    // At the lock, and at each name of a later run.
    site.killed_at(&begin, "after -mv *LOCK");
    assert_refused(stranger.begin(&FIRST), &site, &["its process is gone"]);
    site.killed_at(&resume, "instead -mv *LOCK.2");
    assert_refused(stranger.begin(&FIRST), &site, &[]);
    site.killed_at(&resume, "after -mv *LOCK.2");
    site.kytx(&resume).output().map(Ran::from).unwrap().expect_code(4);
    let names = names_in(&lock_dir(&site));
    assert!(["LOCK", "LOCK.2", "LOCK.3"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    // A run of the same transaction on another host may be alive, for all that is known here.
    let there = admin("hadoop", &["fs", "-cat", &format!("{}/LOCK.3", lock_dir(&site))]);
    let mut run: serde_json::Value = serde_json::from_str(&there).unwrap();
    run["host"] = "elsewhere".into();
    run["epoch"] = 4.into();
    let file = site.machine.root.join("LOCK.4");
    fs::write(&file, run.to_string() + "\n").unwrap();
    let elsewhere = format!("{}/LOCK.4", lock_dir(&site));
    admin("hadoop", &["fs", "-put", file.to_str().unwrap(), &elsewhere]);
    site.run("resume", &resume[2..]).explains(7, &["on elsewhere", "hadoop fs -rm"]);
    admin("hadoop", &["fs", "-rm", &elsewhere]);
    // Killed when all is over but the lock.
    site.killed_at(&["abort", &home, "--yes"], "instead fs -rm -f -skipTrash *LOCK");
    // Its journal says so, on this host: then it is in nobody's way.
    stranger.begin(&FIRST).expect_code(4);
    stranger.run("abort", &["--yes"]).expect_code(0);
    assert_let_go(&site);
}
