//! Clusters: several homes with one metadata store and one working directory, each with its own port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::commands::{metadata, text};
use super::support::killer::{Counted, Outcome, Victims, run_killed_after};
use super::support::random::Random;
use super::support::snapshot::Snapshot;
use super::support::{Machine, Ran, options, wait_until};
use kytx::testbed::StoreContent;

/// A machine whose home is the first of several.
struct Cluster {
    machine: Machine,
    homes: Vec<(PathBuf, u16)>,
}

impl Cluster {
    fn new(nodes: usize) -> Self {
        let machine = Machine::new(&options().major());
        let mut homes = vec![(machine.real_home.clone(), machine.port)];
        for number in 2..=nodes {
            let home = machine.real_home.with_file_name(format!("node{number}"));
            let copied = Command::new("cp").arg("-a").arg(&machine.real_home).arg(&home).status().unwrap();
            assert!(copied.success());
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let xml = home.join("tomcat/conf/server.xml");
            let text = fs::read_to_string(&xml).unwrap();
            fs::write(&xml, text.replace(&machine.port.to_string(), &port.to_string())).unwrap();
            homes.push((home, port));
        }
        let list: Vec<String> = homes.iter().map(|(_, port)| format!("localhost:{port}")).collect();
        for (home, _) in &homes {
            let over = home.join("conf/kylin.properties.override");
            let text = fs::read_to_string(&over).unwrap();
            fs::write(&over, format!("{text}kylin.server.cluster-servers={}\n", list.join(","))).unwrap();
        }
        Self { machine, homes }
    }

    fn kytx(&self, command: &str, node: usize, more: &[&str]) -> Ran {
        self.machine.run(&self.words(command, node, more))
    }

    fn words<'a>(&'a self, command: &'a str, node: usize, more: &[&'a str]) -> Vec<&'a str> {
        [&[command, text(&self.homes[node].0)], more].concat()
    }

    fn begin_words(&self, node: usize, role: &'static str) -> Vec<&str> {
        let package = text(&self.machine.package);
        self.words("begin", node, &["--package", package, "--silent", "--role", role])
    }

    fn begin(&self, node: usize, role: &'static str) -> Ran {
        self.machine.run(&self.begin_words(node, role))
    }

    fn script(&self, node: usize, word: &str) {
        let home = &self.homes[node].0;
        let mut command = Command::new("sh");
        command
            .arg(home.join("bin/kylin.sh"))
            .arg(word)
            .env("KYLIN_HOME", home)
            .current_dir(&self.machine.root);
        command.env("JAVA_HOME", &self.machine.java_home);
        Ran::of(&mut command).expect_code(0);
        if word == "start" {
            wait_until("the node answers", || self.answers(node));
        }
    }

    fn answers(&self, node: usize) -> bool {
        TcpStream::connect(("127.0.0.1", self.homes[node].1)).is_ok()
    }

    fn version(&self, node: usize) -> String {
        fs::read_to_string(self.homes[node].0.join("VERSION")).unwrap()
    }

    fn all_are(&self, version: &str) -> bool {
        (0..self.homes.len()).all(|node| self.version(node).contains(version))
    }

    /// Everything that must be as it was: the trees, but for what runs write, and the store.
    fn state(&self) -> (Vec<Snapshot>, StoreContent) {
        let trees = self.homes.iter().map(|(home, _)| settled(home)).collect();
        (trees, metadata(&self.machine))
    }
}

fn settled(home: &Path) -> Snapshot {
    Snapshot::take(
        home,
        &["logs", "meta_backups", "pid", "tomcat", "bin", "logrotate", "conf/fairscheduler.xml"],
    )
}

#[test]
fn three_nodes_go_in_their_order_and_come_back_in_the_opposite_one() {
    let cluster = Cluster::new(3);
    let before = cluster.state();
    for node in 0..3 {
        cluster.script(node, "start");
    }
    // While others answer there is no backup that holds everything.
    cluster
        .begin(0, "primary")
        .explains(3, &["other instances of the cluster take connections", "kylin.sh stop"]);
    cluster.begin(1, "secondary").explains(3, &["no node has begun as the primary"]);
    for node in 0..3 {
        cluster.script(node, "stop");
    }
    let stopped =
        cluster.words("begin", 0, &["--package", text(&cluster.machine.package), "--silent", "--role"]);
    let before_backup = [&stopped[..], &["primary", "--stop-before", "back-up-metadata"]].concat();
    cluster.machine.run(&before_backup).expect_code(4);
    cluster.begin(1, "secondary").explains(3, &["its backups are not proven"]);
    cluster.kytx("resume", 0, &["--stop-before", "exchange-trees"]).expect_code(4);
    // Backed up and not started: the second node changes its home and waits with its start.
    let waiting = cluster.begin(1, "secondary").expect_code(4);
    assert!(
        waiting.stderr.contains("the primary node has not started the new release"),
        "{}",
        waiting.stderr
    );
    assert!(cluster.version(1).contains("3.4.5") && !cluster.answers(1));
    let steps = cluster.kytx("status", 1, &[]).expect_code(0).stdout;
    assert!(!steps.contains("back-up-metadata") && !steps.contains("hand-over-data"), "{steps}");
    cluster.kytx("resume", 1, &[]).expect_code(4);
    cluster.kytx("resume", 0, &[]).expect_code(0);
    cluster.kytx("resume", 1, &[]).expect_code(0);
    cluster.begin(2, "secondary").expect_code(0);
    assert!(cluster.all_are("3.4.5") && (0..3).all(|node| cluster.answers(node)));
    assert_ne!(cluster.state().1, before.1, "the primary's start has migrated");
    // A second primary would back up what the first has changed.
    cluster.kytx("abort", 2, &["--yes"]).expect_code(0);
    cluster.begin(2, "primary").explains(3, &["is the primary node of an open upgrade already"]);

    let early = cluster.kytx("abort", 0, &["--yes"]).explains(3, &["in the opposite order", "node2"]);
    assert!(!early.stderr.contains("node3"), "{}", early.stderr);
    let told = cluster.kytx("abort", 1, &["--dry-run"]).expect_code(0).stdout;
    assert!(told.contains("the primary node's; this node did not touch them"), "{told}");
    cluster.kytx("abort", 1, &["--yes"]).expect_code(0);
    cluster.kytx("abort", 0, &["--yes"]).expect_code(0);
    assert!(cluster.all_are("3.3.3") && (0..3).all(|node| !cluster.answers(node)));
    assert_eq!(cluster.state(), before);
}

#[test]
fn another_release_than_the_primarys_is_refused_and_a_final_one_is_followed() {
    let cluster = Cluster::new(2);
    cluster.begin(0, "primary").expect_code(0);
    // The same version, built otherwise.
    let dir = cluster.machine.root.join("other");
    fs::create_dir(&dir).unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(&cluster.machine.package).arg("-C").arg(&dir).status();
    assert!(unpacked.unwrap().success());
    let other =
        dir.join(cluster.machine.package.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz"));
    fs::write(other.join("CHANGELOG.md"), "another build").unwrap();
    let words = cluster.words("begin", 1, &["--package", text(&other), "--silent", "--role", "secondary"]);
    cluster.machine.run(&words).explains(3, &["two releases must not run on one metadata store"]);
    cluster.kytx("commit", 0, &["--yes"]).expect_code(0);
    cluster.begin(1, "secondary").expect_code(0);
    cluster.kytx("commit", 1, &["--yes"]).expect_code(0);
    assert!(cluster.all_are("3.4.5"));
}

#[test]
fn the_primary_is_made_final_last_or_for_a_reason_that_is_kept() {
    let cluster = Cluster::new(2);
    cluster.begin(0, "primary").expect_code(0);
    cluster.begin(1, "secondary").expect_code(0);
    let commit = |more: &[&str]| cluster.kytx("commit", 0, &[&["--yes"], more].concat());
    let refused = commit(&[]).explains(3, &["C2: ", "node2", "kytx commit", "--override C2=REASON"]);
    assert!(!refused.stderr.contains("A commit deletes"), "{}", refused.stderr);
    for wrong in ["C2=", "C2", "P3=why"] {
        commit(&["--override", wrong]).expect_code(2);
    }
    commit(&["--keep", "discard-archive", "--override", "C2=node 2 burnt down"]).expect_code(0);
    let root = cluster.machine.working_dir.join("_kytx");
    let dir = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let dir = dir.into_iter().find(|path| path.to_str().unwrap().contains("cluster-")).unwrap();
    let kept = fs::read_dir(dir).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    assert_eq!(kept.filter(|node| node.contains("\"committed_early\": \"node 2 burnt down\"")).count(), 1);
    cluster.kytx("commit", 1, &["--yes"]).expect_code(0);
    assert!(cluster.all_are("3.4.5"));
}

#[test]
fn nodes_that_are_killed_go_on_and_come_back() {
    const SEED: u64 = 20_261_124;
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    let cluster = Cluster::new(3);
    let before = cluster.state();
    // The primary forward, a secondary forward, the primary on its way back: each at a moment of its own.
    let killed = |words: &[&str], limit: u64, random: &mut Random| {
        let n = random.up_to(limit);
        let traced = run_killed_after(cluster.machine.kytx(words), 0, n, Counted::Own, Victims::Program);
        println!("{words:?} at change {n}: {:?}", traced.outcome);
        assert_eq!(traced.outcome, Outcome::Killed);
    };
    let opened = |node: usize| {
        let ran = cluster.kytx("resume", node, &[]);
        // Killed before its plan was sealed: nothing was touched, and it is begun anew.
        let is_old = cluster.version(node).contains("3.3.3");
        if is_old { cluster.begin(node, if node == 0 { "primary" } else { "secondary" }) } else { ran }
    };
    killed(&cluster.begin_words(0, "primary"), 400, &mut random);
    opened(0).expect_code(0);
    killed(&cluster.begin_words(1, "secondary"), 250, &mut random);
    opened(1).expect_code(0);
    cluster.begin(2, "secondary").expect_code(0);
    assert!(cluster.all_are("3.4.5"));
    for node in [2, 1] {
        cluster.kytx("abort", node, &["--yes"]).expect_code(0);
    }
    killed(&cluster.words("abort", 0, &["--yes"]), 40, &mut random);
    cluster.kytx("resume", 0, &[]).expect_code(0);
    if cluster.version(0).contains("3.4.5") {
        // Killed before the turn back was recorded: the upgrade stands.
        cluster.kytx("abort", 0, &["--yes"]).expect_code(0);
    }
    assert!(cluster.all_are("3.3.3"));
    assert_eq!(cluster.state(), before);
}
