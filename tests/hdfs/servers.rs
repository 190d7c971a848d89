//! Servers that go and come back under an upgrade.

use rustix::process::Signal;

use super::bed::{Parent, Site, USER, admin, bed, job_in, wait_for};
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
