//! Servers that go and come back under an upgrade.

use rustix::process::Signal;

use super::bed::{Parent, Site, USER, admin, bed, bed_for_all, job_in, wait_for};
use super::daemons::Daemons;
use super::outcome::{assert_as_before, assert_nothing_left};
use crate::support::Ran;

/// Goes on until the upgrade has come where it is to come: a failed step stops, and the operator resumes.
#[track_caller]
fn resumed(site: &Site, first: Ran, more: &[&str], done: impl Fn(&Ran) -> bool) -> Ran {
    let mut ran = first;
    for _ in 0..3 {
        if done(&ran) {
            return ran;
        }
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        ran = site.run("resume", more);
    }
    panic!("it gets nowhere: {}", ran.stderr);
}

fn finished(ran: &Ran) -> bool {
    ran.code == 0
}

fn stopped_as_asked(ran: &Ran) -> bool {
    ran.code == 4 && ran.stdout.contains("as asked")
}

fn calls_of(site: &Site, words: &str) -> usize {
    site.calls().iter().filter(|call| call.contains(words)).count()
}

fn safe_mode(change: &str) {
    admin("hdfs", &["dfsadmin", "-safemode", change]);
}

/// The ResourceManager dies while a job runs; the way on meets a cluster in safe mode; the NameNode freezes and then dies
/// while another job runs; the way back meets safe mode, and then a cluster without its DataNode.
#[test]
fn i3_servers_that_die_under_an_upgrade_cost_an_attempt_and_nothing_else() {
    let Some(_bed) = bed("i3_servers_that_die_under_an_upgrade_cost_an_attempt_and_nothing_else") else {
        return;
    };
    let _all_serve_afterwards = Daemons;
    let site = Site::new(USER, Parent::Own);
    let before = site.data();
    let words = site.begin_words(&["--stop-before", "stop-service"]);
    let child = site.spawn(&words.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("a job runs", || job_in("RUNNING"));
    Daemons::kill("resourcemanager");
    Daemons::up(&["resourcemanager"]);
    let ran = Ran::from(child.wait_with_output().unwrap());
    resumed(&site, ran, &["--stop-before", "stop-service"], stopped_as_asked);

    safe_mode("enter");
    site.run("resume", &["--stop-before", "copy-cube-data"]).expect_code(4);
    site.run("resume", &[]).explains(4, &["safe mode"]);
    safe_mode("leave");
    let home = site.machine.home.to_str().unwrap().to_owned();
    let child = site.spawn(&["resume", &home]);
    wait_for("a job runs", || job_in("RUNNING"));
    Daemons::signal("namenode", Signal::STOP);
    std::thread::sleep(std::time::Duration::from_secs(5));
    Daemons::signal("namenode", Signal::CONT);
    Daemons::kill("namenode");
    Daemons::up(&["namenode", "datanode"]);
    let ran = Ran::from(child.wait_with_output().unwrap());
    resumed(&site, ran, &[], finished);
    site.run("verify", &[]).expect_code(0);
    site.change();

    safe_mode("enter");
    site.run("abort", &["--yes"]).explains(4, &["safe mode"]);
    safe_mode("leave");
    let child = site.spawn(&["resume", &home]);
    Daemons::kill("datanode");
    Daemons::up(&["datanode"]);
    resumed(&site, Ran::from(child.wait_with_output().unwrap()), &[], finished);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
}

/// A restore that a dying server cuts short is begun again, and by a job that puts content back in place as well.
#[test]
fn i3_servers_that_die_under_a_restore_cost_an_attempt_and_nothing_else() {
    let Some(_bed) = bed_for_all("i3_servers_that_die_under_a_restore_cost_an_attempt_and_nothing_else")
    else {
        return;
    };
    let _all_serve_afterwards = Daemons;
    let site = Site::new(USER, Parent::Own);
    admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    let before = site.data();
    site.begin(&["--cube-backup", "snapshot"]).expect_code(0);
    site.change();
    let home = site.machine.home.to_str().unwrap().to_owned();
    for (round, daemon) in ["namenode", "resourcemanager", "datanode"].into_iter().enumerate() {
        let words: &[&str] = if round == 0 { &["abort", &home, "--yes"] } else { &["resume", &home] };
        let jobs = calls_of(&site, "distcp");
        let mut child = site.spawn(words);
        let ended = |child: &mut std::process::Child| child.try_wait().unwrap().is_some();
        wait_for("a job runs", || {
            (calls_of(&site, "distcp") > jobs && job_in("RUNNING")) || ended(&mut child)
        });
        Daemons::kill(daemon);
        Daemons::up(&["namenode", "datanode", "resourcemanager"]);
        let ran = Ran::from(child.wait_with_output().unwrap());
        if ran.code == 0 {
            break;
        }
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        site.change_more();
    }
    if site.status("phase") != "ended" {
        let ran = site.run("resume", &[]);
        resumed(&site, ran, &[], finished);
    }
    let after = site.data();
    assert_eq!(before.0.content_root(), after.0.content_root());
    assert_nothing_left(&site);
}
