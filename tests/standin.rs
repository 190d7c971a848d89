//! The stand-in does what was observed of the real product, nastiness by nastiness, under every shell that is here.

#![allow(clippy::disallowed_methods, reason = "a test's own directory")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kytx::testbed::{Knob, Layout, MetadataUrl, Nasty, Options, Scenario};
use support::snapshot::{Snapshot, assert_same_tree};
use support::{ADMIN, Machine, Ran, is_alive, options, wait_until};

/// The shells of this machine, each once: `sh` is always there, and on many machines it is one of the others.
fn shells() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let find = |name| std::env::split_paths(&path).find_map(|dir| fs::canonicalize(dir.join(name)).ok());
    let found: BTreeSet<PathBuf> = ["sh", "bash", "dash"].into_iter().filter_map(find).collect();
    found.into_iter().collect()
}

/// The directory that a backup named, from its output.
fn backup_dir(ran: &Ran) -> PathBuf {
    let line = ran.stdout.lines().find_map(|line| line.strip_prefix("Starting backup to "));
    PathBuf::from(line.expect("the script names the directory"))
}

/// The entries of a backup or a store on disk, `UUID` left out.
fn entries(dir: &Path) -> BTreeSet<String> {
    let snapshot = Snapshot::take(dir, &["UUID"]);
    let files = snapshot.paths().filter(|path| dir.join(path).is_file());
    files.map(|path| path.to_str().unwrap().to_owned()).collect()
}

fn ke4() -> Options {
    options().ke4()
}

#[test]
fn ke3_starts_answers_and_stops() {
    for shell in shells() {
        let machine = Machine::new(&options());
        machine.script_in(&shell, "kylin.sh", &["stop"]).expect_code(1);
        let ran = machine.script_in(&shell, "kylin.sh", &["start"]).expect_code(0);
        assert!(ran.stdout.starts_with("A new Kylin instance is started by "), "{}", ran.stdout);
        wait_until("the service is ready", || machine.is_ready());
        let again = machine.script_in(&shell, "kylin.sh", &["start"]).expect_code(1);
        assert_eq!(again.stdout, "Kylin is running, stop it first\n");

        let pid = machine.pid();
        assert_eq!(machine.processes().unwrap(), [pid]);
        let cwd = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        assert_eq!(cwd, Path::new("/dev/null"), "it must hold nothing of its starter's");
        for litter in [
            "bin/cached-hive-dependency.sh",
            "conf/fairscheduler.xml",
            "logrotate/cron",
            "tomcat/webapps/kylin/WEB-INF/web.xml",
            "logs/kylin.out",
        ] {
            assert!(machine.home.join(litter).exists(), "{litter}");
        }
        assert!(!machine.home.join("LOCK").exists());

        let ran = machine.script_in(&shell, "kylin.sh", &["stop"]).expect_code(0);
        assert_eq!(ran.stdout, format!("Stopping Kylin: {pid}\nKylin with pid {pid} has been stopped.\n"));
        assert!(!is_alive(pid) && !machine.home.join("pid").exists());
        let ran = machine.script_in(&shell, "kylin.sh", &["stop"]).expect_code(1);
        assert_eq!(ran.stdout, "Kylin is not running\n");
    }
}

#[test]
fn the_rest_interface_answers_as_observed() {
    let machine = Machine::new(&options());
    machine.start();
    let version = machine.ask("/kylin/api/admin/version", "").unwrap();
    assert!(version.body.contains("Kyligence Enterprise 3.4.2.2028-GA"), "{}", version.body);
    // Read once: a swap under a running service does not change it.
    fs::write(machine.home.join("VERSION"), "Kyligence Enterprise 9.9.9\n").unwrap();
    assert_eq!(machine.ask("/kylin/api/admin/version", "").unwrap().body, version.body);

    let anonymous = machine.ask("/kylin/api/projects", "").unwrap();
    assert_eq!(anonymous.status, 302);
    assert!(anonymous.head.contains("Location: /kylin/login"));
    let wrong = machine.ask("/kylin/api/projects", "Authorization: Basic bm8=\r\n").unwrap();
    assert_eq!((wrong.status, wrong.body.starts_with("<html>")), (401, true));
    let projects: serde_json::Value =
        serde_json::from_str(&machine.ask("/kylin/api/projects", ADMIN).unwrap().body).unwrap();
    assert_eq!(projects["code"], "000");
    let names: Vec<_> = projects["data"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["sales", "web"]);

    let jobs = |machine: &Machine| -> serde_json::Value {
        let answer = machine.ask("/kylin/api/jobs?timeFilter=5", ADMIN).unwrap();
        serde_json::from_str(&answer.body).unwrap()
    };
    assert_eq!(jobs(&machine)["data"]["size"], 0);
    machine.store.put("execute_output/6f1e3c2a", br#"{"status":"ERROR"}"#).unwrap();
    assert_eq!(jobs(&machine)["data"]["jobs"][0]["job_status"], "ERROR");
}

#[test]
fn kylin_3_answers_bare_and_refuses_the_form_of_kyligence() {
    let machine = Machine::new(&options().kylin3());
    machine.start();
    let plain = format!("{ADMIN}Accept: application/json\r\n");
    let projects: serde_json::Value =
        serde_json::from_str(&machine.ask("/kylin/api/projects", &plain).unwrap().body).unwrap();
    assert_eq!(projects[0]["name"], "sales");
    let v2 = format!("{ADMIN}Accept: application/vnd.apache.kylin-v2+json\r\n");
    assert_eq!(machine.ask("/kylin/api/projects", &v2).unwrap().status, 406);
}

#[test]
fn the_new_release_changes_a_default_adds_a_key_and_drops_one() {
    for base in [options(), options().major(), ke4()] {
        let machine = Machine::new(&Options { package_dir: true, old_package: true, ..base });
        let read = |home: &Path| fs::read_to_string(home.join("conf/kylin.properties")).unwrap();
        let (old, new) = (read(&machine.home), read(machine.package_dir.as_ref().unwrap()));
        for (line, in_old, in_new) in [
            ("kylin.job.max-concurrent-jobs=10\n", true, false),
            ("kylin.job.max-concurrent-jobs=20\n", false, true),
            ("kylin.query.old-planner=true\n", true, false),
            ("kylin.query.new-planner=true\n", false, true),
            ("kylin.engine.spark-conf.spark.executor.memory=16G\n", true, false),
            ("kylin.operator.own-key=own\n", true, false),
        ] {
            assert_eq!((old.contains(line), new.contains(line)), (in_old, in_new), "{line}");
        }
    }
}

#[test]
fn http_is_as_unfriendly_as_asked() {
    let machine = Machine::new(&options());
    machine.knobs.set(Knob::HttpMode, "never").unwrap();
    machine.script("kylin.sh", &["start"]).expect_code(0);
    wait_until("the service answers", || machine.ask("/kylin/", "").is_some());
    assert_eq!(machine.ask("/kylin/", "").unwrap().status, 503);
    machine.knobs.set(Knob::HttpMode, "drop").unwrap();
    assert!(machine.ask("/kylin/", "").is_none());
    machine.knobs.set(Knob::HttpMode, "login-page").unwrap();
    let page = machine.ask("/kylin/api/projects", "").unwrap();
    assert_eq!((page.status, page.body.starts_with("<html>")), (200, true));
    machine.knobs.set(Knob::HttpMode, "ok").unwrap();
    wait_until("the service is ready", || machine.is_ready());
}

#[test]
fn a_service_that_is_slow_is_503_until_it_is_ready() {
    let machine = Machine::new(&options());
    machine.knobs.set(Knob::ReadyAfterMs, 3_600_000).unwrap();
    machine.script("kylin.sh", &["start"]).expect_code(0);
    wait_until("the service answers", || machine.ask("/kylin/", "").is_some());
    assert_eq!(machine.ask("/kylin/", "").unwrap().status, 503);
    // Another home's knob may differ: the new release is slow and the old one is not.
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    machine.knobs.of_version(&machine.options.old_version).set(Knob::ReadyAfterMs, 1).unwrap();
    machine.start();
}

#[test]
fn a_start_that_fails_or_is_killed() {
    let machine = Machine::new(&options());
    machine.knobs.set(Knob::StartMode, "fail").unwrap();
    machine.script("kylin.sh", &["start"]).expect_code(1);
    assert!(!machine.home.join("LOCK").exists() && machine.processes().unwrap().is_empty());
    machine.knobs.set(Knob::StartMode, "nothing").unwrap();
    machine.script("kylin.sh", &["start"]).expect_code(0);
    assert!(machine.processes().unwrap().is_empty());
    machine.knobs.set(Knob::StartMode, "ok").unwrap();

    machine.knobs.set(Knob::LockStays, 1).unwrap();
    machine.start();
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    let ran = machine.script("kylin.sh", &["start"]).expect_code(1);
    assert_eq!(ran.stdout, "Kylin is starting, wait for it\n");
    fs::remove_file(machine.home.join("LOCK")).unwrap();
    machine.knobs.unset(Knob::LockStays).unwrap();

    // At the gate: TERM says 0 with nothing started; KILL leaves the lock.
    let gate = machine.root.join("gate");
    machine.knobs.set(Knob::StartGate, gate.display()).unwrap();
    for (signal, code, lock) in [("TERM", 0, false), ("KILL", -9, true)] {
        let mut start = Command::new("sh");
        start.arg(machine.home.join("bin/kylin.sh")).arg("start").env("KYLIN_HOME", &machine.home);
        let child = start.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the start is at its gate", || machine.root.join("gate.reached").exists());
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        Ran::from(child.wait_with_output().unwrap()).expect_code(code);
        assert_eq!(machine.home.join("LOCK").exists(), lock);
        assert!(!machine.home.join("pid").exists());
        fs::remove_file(machine.root.join("gate.reached")).unwrap();
    }

    machine.end_services().unwrap();
    fs::remove_file(machine.home.join("LOCK")).unwrap();
    machine.knobs.set(Knob::ServiceProgram, "").unwrap();
    let ran = machine.script("kylin.sh", &["start"]).expect_code(1);
    assert!(ran.stdout.contains("SERVICE_PROGRAM"), "{}", ran.stdout);
}

#[test]
fn a_port_that_is_taken_stops_the_start() {
    for options in [options(), ke4()] {
        let machine = Machine::new(&options);
        let _taken = std::net::TcpListener::bind(("127.0.0.1", machine.port)).unwrap();
        let ran = machine.script("kylin.sh", &["start"]).expect_code(1);
        assert!(ran.stdout.to_lowercase().contains("port"), "{}", ran.stdout);
    }
}

#[test]
fn a_pid_file_that_is_late_or_stale() {
    let machine = Machine::new(&options());
    machine.knobs.set(Knob::PidLateMs, 3_600_000).unwrap();
    machine.script("kylin.sh", &["start"]).expect_code(0);
    wait_until("the service is ready", || machine.is_ready());
    assert!(!machine.home.join("pid").exists(), "running, and no pid file");
    machine.end_services().unwrap();
    machine.knobs.set(Knob::PidLateMs, 1).unwrap();
    machine.script("kylin.sh", &["start"]).expect_code(0);
    wait_until("the pid file is there", || machine.home.join("pid").exists());
    wait_until("the service is ready", || machine.is_ready());

    machine.knobs.set(Knob::StopKeepsPid, 1).unwrap();
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    let ran = machine.script("kylin.sh", &["stop"]).expect_code(1);
    assert!(ran.stdout.ends_with("Kylin is not running\n"));
    assert!(machine.home.join("pid").exists(), "a stale file stays");
}

#[test]
fn a_stop_that_fails_lies_or_kills() {
    let machine = Machine::new(&options());
    let pid = machine.start();
    machine.knobs.set(Knob::StopMode, "fail").unwrap();
    machine.script("kylin.sh", &["stop"]).expect_code(1);
    assert!(is_alive(pid) && machine.home.join("pid").exists());

    machine.knobs.set(Knob::TermIgnoredMs, 3_600_000).unwrap();
    machine.knobs.set(Knob::StopMode, "lies").unwrap();
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    assert!(is_alive(pid) && !machine.home.join("pid").exists(), "0, and the process lives");

    fs::write(machine.home.join("pid"), format!("{pid}\n")).unwrap();
    machine.knobs.set(Knob::StopMode, "ok").unwrap();
    machine.knobs.set(Knob::StopWaitMs, 40).unwrap();
    machine.knobs.set(Knob::StopTakesMs, 1).unwrap();
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    assert!(!is_alive(pid), "what ignores TERM is killed in the end");
}

#[test]
fn stop_waits_at_its_gate_and_kills_an_innocent() {
    let machine = Machine::new(&options());
    let mut innocent = Command::new("sleep").arg("3600").spawn().unwrap();
    fs::write(machine.home.join("pid"), format!("{}\n", innocent.id())).unwrap();
    let gate = machine.root.join("gate");
    machine.knobs.set(Knob::StopGate, gate.display()).unwrap();
    fs::write(&gate, "").unwrap();
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    assert!(machine.root.join("gate.reached").exists());
    assert!(!innocent.wait().unwrap().success());
}

#[test]
fn a_guardian_brings_the_service_back() {
    let machine = Machine::new(&options());
    let path = machine.home.join("conf/kylin.properties.override");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}kap.guardian.enabled=true\n")).unwrap();
    let pid = machine.start();
    Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap();
    wait_until("another process runs", || {
        fs::read_to_string(machine.home.join("pid"))
            .is_ok_and(|text| text.trim().parse().is_ok_and(|now: i32| now != pid && is_alive(now)))
    });
    wait_until("the service is ready", || machine.is_ready());
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    wait_until("the guardian is gone, too", || machine.processes().unwrap().is_empty());
}

#[test]
fn every_start_changes_metadata_and_a_new_major_version_migrates_them() {
    for (base, migrates, expected) in [
        (options(), "auto", false),
        (options().major(), "auto", true),
        (options(), "always", true),
        (options().major(), "never", false),
        (ke4(), "auto", false),
    ] {
        let machine = Machine::new(&base);
        machine.knobs.set(Knob::Migrates, migrates).unwrap();
        let before = machine.store.content().unwrap();
        // As after an upgrade: the same home, the new version.
        let version = format!("Kyligence Enterprise {}\n", base.new_version);
        fs::write(machine.home.join("VERSION"), version).unwrap();
        machine.start();
        let after = machine.store.content().unwrap();
        let groups = if base.layout == Layout::Ke4 { "_global/user_group/ALL_USERS" } else { "user_group" };
        assert_ne!(before[groups], after[groups]);
        let cube =
            if base.layout == Layout::Ke4 { "sales/model_desc/1c.json" } else { "cube/sales_cube.json" };
        assert_eq!(before[cube] != after[cube], expected, "{base:?}");
        assert_eq!(machine.store.working().join("parquet/sales_cube/1.parquet").exists(), expected);
        assert_eq!(after.contains_key("scheduler/upgrade.json"), expected && base.layout == Layout::Ke3);
    }
}

#[test]
fn a_backup_holds_every_entry_with_its_time_and_tells_the_password() {
    for shell in shells() {
        let machine = Machine::new(&options());
        let ran = machine.script_in(&shell, "metastore.sh", &["backup"]).expect_code(0);
        let dir = backup_dir(&ran);
        assert!(dir.starts_with(machine.home.join("meta_backups")));
        assert!(dir.file_name().unwrap().to_str().unwrap().starts_with("meta_20"));
        let tail = format!("Metadata backed up to {0}\nmetadata store backed up to {0}\n", dir.display());
        assert!(ran.stdout.ends_with(&tail), "{}", ran.stdout);
        assert!(ran.stderr.contains(Scenario::PASSWORD));
        for (path, content) in machine.store.content().unwrap() {
            assert_eq!(fs::read(dir.join(&path)).ok(), content, "{path}");
        }
        assert_eq!(entries(&dir), machine.store.content().unwrap().into_keys().collect());
        assert_eq!(fs::metadata(dir.join("UUID")).unwrap().len(), 38);
        let mtime = |path: &Path| fs::metadata(path).unwrap().mtime_nsec();
        let project = "project/sales.json";
        assert_eq!(mtime(&dir.join(project)), mtime(&machine.store.dir().join(project)));
    }
}

#[test]
fn a_backup_that_fails_says_that_it_succeeded() {
    let total = Machine::new(&options()).store.content().unwrap().len();
    for (mode, java_line, fewer_than) in [
        ("empty", false, 1),
        ("uuid-only", false, 1),
        ("half", false, total),
        ("failed-copy", false, total),
        ("lost-markers", true, total),
    ] {
        let machine = Machine::new(&options());
        machine.knobs.set(Knob::BackupMode, mode).unwrap();
        let before = machine.store.content().unwrap();
        let ran = machine.script("metastore.sh", &["backup"]).expect_code(0);
        let dir = backup_dir(&ran);
        assert!(ran.stdout.contains("\nmetadata store backed up to "), "{mode}");
        assert_eq!(ran.stdout.contains("Metadata backed up to "), java_line, "{mode}");
        assert_eq!(dir.join("UUID").exists(), mode != "empty", "{mode}");
        assert!(entries(&dir).len() < fewer_than, "{mode}");
        assert_eq!(ran.stdout.contains("Failed to copy resource"), mode == "failed-copy");
        assert_eq!(
            ran.stderr.contains("Marker exists but real file not found, delete marker"),
            mode == "lost-markers"
        );
        assert_eq!(machine.store.content().unwrap() == before, mode != "lost-markers");
    }
    let machine = Machine::new(&options());
    machine.knobs.set(Knob::BackupMode, "killed").unwrap();
    let ran = machine.script("metastore.sh", &["backup"]).expect_code(-9);
    assert!(!entries(&backup_dir(&ran)).is_empty() && !ran.stdout.contains("backed up to"));
}

#[test]
fn a_backup_without_java_or_store_is_empty_and_says_0() {
    for knob in [Knob::NeedsJavaHome, Knob::StoreDown] {
        let machine = Machine::new(&options());
        machine.knobs.set(knob, 1).unwrap();
        let mut command = Command::new(machine.home.join("bin/metastore.sh"));
        let ran = Ran::of(command.arg("backup").env("KYLIN_HOME", &machine.home).env_remove("JAVA_HOME"));
        assert_eq!((ran.code, fs::read_dir(backup_dir(&ran)).unwrap().count()), (0, 0), "{knob:?}");
        let reset = Command::new(machine.home.join("bin/metastore.sh"))
            .arg("reset")
            .env("KYLIN_HOME", &machine.home)
            .env_remove("JAVA_HOME")
            .output();
        assert_eq!(reset.unwrap().status.code(), Some(1), "here the code is usable");
    }
}

#[test]
fn a_backup_without_the_working_directory_destroys_entries_and_reports_success() {
    let machine = Machine::new(&options());
    fs::rename(&machine.working_dir, machine.root.join("moved")).unwrap();
    let ran = machine.script("metastore.sh", &["backup"]).expect_code(0);
    assert!(
        ran.stdout.contains("Metadata backed up to ") && ran.stdout.contains("RETRY 1 error resource /dict/")
    );
    assert!(ran.stderr.contains("Marker exists but real file not found, delete marker"));
    fs::rename(machine.root.join("moved"), &machine.working_dir).unwrap();
    let left = machine.store.content().unwrap();
    assert!(!left.keys().any(|path| path.starts_with("dict/") || path.starts_with("table_snapshot/")));
    assert!(left.contains_key("project/sales.json"));
}

#[test]
fn a_blank_in_the_path_means_no_backup() {
    let machine = Machine::new(&Options { blank: true, ..options() });
    let ran = machine.script("metastore.sh", &["backup"]).expect_code(0);
    assert!(!backup_dir(&ran).exists(), "{}", ran.stdout);
    machine.knobs.set(Knob::BlankIsFine, 1).unwrap();
    let ran = machine.script("metastore.sh", &["backup"]).expect_code(0);
    assert_eq!(entries(&backup_dir(&ran)).len(), machine.store.content().unwrap().len());
}

#[test]
fn a_restore_is_an_overlay_and_exact_after_a_reset() {
    for shell in shells() {
        let machine = Machine::new(&options());
        let before = machine.store.content().unwrap();
        let dir = backup_dir(&machine.script_in(&shell, "metastore.sh", &["backup"]).expect_code(0));
        machine.store.put("cube/added.json", b"{}").unwrap();
        machine.store.put("cube/sales_cube.json", b"changed").unwrap();
        machine.store.put("dict/DEFAULT.ORDERS/SELLER/6a1.dict", b"changed").unwrap();
        let dir = dir.to_str().unwrap();
        let ran = machine.script_in(&shell, "metastore.sh", &["restore", dir]).expect_code(0);
        assert!(ran.stdout.ends_with(&format!("Metadata restored from {dir}\n")));
        let mut expected = before.clone();
        expected.insert("cube/added.json".to_owned(), Some(b"{}".to_vec()));
        assert_eq!(machine.store.content().unwrap(), expected);

        let ran = machine.script_in(&shell, "metastore.sh", &["reset"]).expect_code(0);
        assert_eq!(ran.stdout, "");
        assert!(machine.store.content().unwrap().is_empty() && machine.store.dir().join("UUID").exists());
        let large = machine.store.working().join("resources-jdbc");
        assert!(entries(&large).is_empty(), "the large ones' files go, too");
        machine.script_in(&shell, "metastore.sh", &["restore", dir]).expect_code(0);
        assert_eq!(machine.store.content().unwrap(), before);
    }
}

#[test]
fn a_restore_judges_badly_and_fails_half_way() {
    let machine = Machine::new(&options());
    let before = machine.store.content().unwrap();
    machine.script("metastore.sh", &["restore"]).expect_code(0);
    machine.script("metastore.sh", &["restore", "/nowhere/at/all"]).expect_code(1);
    let empty = machine.root.join("empty");
    fs::create_dir(&empty).unwrap();
    let ran = machine.script("metastore.sh", &["restore", empty.to_str().unwrap()]).expect_code(0);
    assert!(ran.stdout.contains("Metadata restored from ") && empty.join("UUID").exists());

    let dir = backup_dir(&machine.script("metastore.sh", &["backup"]).expect_code(0));
    let dir = dir.to_str().unwrap();
    for (mode, code) in [("half", 1), ("killed", -9)] {
        machine.knobs.set(Knob::RestoreMode, mode).unwrap();
        machine.script("metastore.sh", &["reset"]).expect_code(0);
        machine.script("metastore.sh", &["restore", dir]).expect_code(code);
        let left = machine.store.content().unwrap().len();
        assert!(left > 0 && left < before.len(), "{mode}: {left}");
    }
    machine.knobs.set(Knob::RestoreMode, "ok").unwrap();
    machine.script("metastore.sh", &["restore", dir]).expect_code(0);
    assert_eq!(machine.store.content().unwrap(), before, "both are cured by doing it again");
    fs::rename(&machine.working_dir, machine.root.join("moved")).unwrap();
    machine.script("metastore.sh", &["restore", dir]).expect_code(1);
}

#[test]
fn the_metadata_tool_waits_at_its_gates() {
    for (knob, args) in
        [(Knob::BackupGate, "backup"), (Knob::ResetGate, "reset"), (Knob::RestoreGate, "restore")]
    {
        let machine = Machine::new(&options());
        let dir = backup_dir(&machine.script("metastore.sh", &["backup"]).expect_code(0));
        let gate = machine.root.join("gate");
        machine.knobs.set(knob, gate.display()).unwrap();
        let mut command = Command::new(machine.home.join("bin/metastore.sh"));
        command.arg(args).args((args == "restore").then_some(&dir)).env("KYLIN_HOME", &machine.home);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("it is at the gate", || machine.root.join("gate.reached").exists());
        assert!(child.try_wait().unwrap().is_none(), "{args}");
        fs::write(&gate, "").unwrap();
        assert!(child.wait().unwrap().success(), "{args}");
    }
}

#[test]
fn the_store_is_listed_shown_and_thinned_out() {
    let machine = Machine::new(&options());
    let list = |path| machine.script("metastore.sh", &["list", path]).expect_code(0).stdout;
    assert_eq!(list("/project"), "Starting list /project\n[/project/sales.json, /project/web.json]\n");
    assert!(list("/").contains("\n[/UUID, /cube, /cube_desc, /dict, "), "{}", list("/"));
    assert_eq!(list("/dict"), "Starting list /dict\n[/dict/DEFAULT.ORDERS]\n");
    // An entry has nothing below it, and what holds none is no folder.
    fs::create_dir_all(machine.store.dir().join("hollow/deeper")).unwrap();
    assert!(!list("/").contains("hollow"), "{}", list("/"));
    for nothing in ["/nothing", "/user_group", "/hollow"] {
        assert_eq!(list(nothing), format!("Starting list {nothing}\nnull\n"));
    }
    machine.knobs.set(Knob::StoreDown, 1).unwrap();
    machine.script("metastore.sh", &["list", "/"]).expect_code(1);
    machine.knobs.unset(Knob::StoreDown).unwrap();
    let cat = machine.script("metastore.sh", &["cat", "/user/ADMIN"]).expect_code(0);
    assert!(cat.stdout.contains("ROLE_ADMIN"));
    let large =
        machine.script("metastore.sh", &["cat", "/table_snapshot/ORDERS/9b2.snapshot"]).expect_code(0);
    assert!(large.stdout.starts_with("a snapshot"), "{}", large.stdout);
    machine.script("metastore.sh", &["remove", "/user/ADMIN"]).expect_code(0);
    assert!(!machine.store.content().unwrap().contains_key("user/ADMIN"));
}

#[test]
fn ke4_starts_answers_and_stops() {
    for shell in shells() {
        let machine = Machine::new(&ke4());
        let ran = machine.script_in(&shell, "kylin.sh", &["start"]).expect_code(0);
        assert!(ran.stdout.starts_with("Kylin is starting. It may take a while."), "{}", ran.stdout);
        wait_until("the service is ready", || machine.is_ready());
        assert!(machine.ask("/kylin/api/health", "").unwrap().body.contains(r#""status":"UP""#));
        let projects = machine.ask("/kylin/api/projects", ADMIN).unwrap().body;
        assert!(projects.contains("sales") && projects.contains("web"), "{projects}");
        assert!(machine.home.join("bin/check-env-bypass").exists());
        let pid = machine.pid();
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(cwd, machine.real_home.join("server"));
        machine.script_in(&shell, "kylin.sh", &["stop"]).expect_code(0);
        assert!(!is_alive(pid) && !machine.home.join("pid").exists());
        machine.script_in(&shell, "kylin.sh", &["stop"]).expect_code(1);
    }
}

#[test]
fn ke4_refuses_a_home_that_is_spelled_otherwise() {
    let machine = Machine::new(&Options { home_link: true, ..ke4() });
    let mut command = Command::new(machine.home.join("bin/kylin.sh"));
    let ran = Ran::of(command.arg("start").env("KYLIN_HOME", &machine.home));
    assert!(ran.code == 1 && ran.stdout.contains("doesn't set correctly"), "{ran:?}");
    let mut command = Command::new(machine.home.join("bin/kylin.sh"));
    let ran = Ran::of(command.arg("start").env_remove("KYLIN_HOME").env("KYLIN_CONF", "/etc"));
    assert!(ran.code == 1 && ran.stdout.contains("KYLIN_CONF"), "{ran:?}");
}

#[test]
fn ke4_backs_up_in_colour_and_restores_exactly() {
    let machine = Machine::new(&ke4());
    let before = machine.store.content().unwrap();
    let path = |ran: &Ran| {
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix("The metadata backup path is "));
        PathBuf::from(line.unwrap().strip_suffix('.').unwrap())
    };
    let ran = machine.script("metastore.sh", &["backup"]).expect_code(0);
    let dir = path(&ran);
    assert!(dir.starts_with(machine.home.join("meta_backups")) && dir.to_str().unwrap().ends_with("_backup"));
    assert!(ran.stdout.ends_with("\x1b[33mBackup at local disk succeed.\x1b[0m\n"));
    assert_eq!(entries(&dir), before.keys().cloned().collect());
    machine.script("metastore.sh", &["backup", "/nowhere/at/all"]).expect_code(1);

    machine.store.put("sales/model_desc/added.json", b"{}").unwrap();
    let dir = dir.to_str().unwrap();
    machine.script("metastore.sh", &["restore", dir]).expect_code(0);
    assert!(machine.store.content().unwrap().contains_key("sales/model_desc/added.json"), "an overlay");
    let ran = machine.script("metastore.sh", &["restore", dir, "--after-truncate"]).expect_code(0);
    assert!(ran.stdout.contains("Restore succeed."));
    assert_eq!(machine.store.content().unwrap(), before);
    assert!(machine.store.working().join("_backup/core_meta").is_dir());

    let maintenance = machine.root.join("metadata.maintenance");
    assert!(!maintenance.exists());
    machine.knobs.set(Knob::RestoreMode, "killed").unwrap();
    machine.script("metastore.sh", &["restore", dir, "--after-truncate"]).expect_code(-9);
    assert!(maintenance.exists(), "a kill leaves maintenance mode on");
    machine.script("kylin.sh", &["org.apache.kylin.tool.MaintainModeTool", "-off"]).expect_code(0);
    assert!(!maintenance.exists());
    let empty = machine.root.join("empty");
    fs::create_dir(&empty).unwrap();
    machine.script("metastore.sh", &["restore", empty.to_str().unwrap()]).expect_code(1);

    for (mode, says) in
        [("empty", "succeed"), ("uuid-only", "succeed"), ("half", "succeed"), ("failed-copy", "failed")]
    {
        // A directory of its own, as two backups of one second would meet.
        let root = machine.root.join(format!("backups-{mode}"));
        fs::create_dir(&root).unwrap();
        machine.knobs.set(Knob::BackupMode, mode).unwrap();
        let ran = machine.script("metastore.sh", &["backup", root.to_str().unwrap()]).expect_code(0);
        assert!(ran.stdout.contains(says), "{mode}: {}", ran.stdout);
        assert!(entries(&path(&ran)).len() < before.len());
    }
}

#[test]
fn properties_are_read_as_java_does() {
    for shell in shells() {
        let machine = Machine::new(&options());
        let path = machine.home.join("conf/kylin.properties.override");
        fs::write(&path, "# a=comment\n a : one\\\n  two\na.b c\nkylin.server.mode\t=\tjob\nlast=x=y")
            .unwrap();
        let get = |key| machine.script_in(&shell, "get-properties.sh", &[key]).expect_code(0).stdout;
        assert_eq!(get("a"), "one  two\n");
        assert_eq!(get("a.b"), "c\n");
        assert_eq!(get("last"), "x=y\n");
        assert_eq!(get("kylin.server.mode"), "job\n", "the override wins");
        assert_eq!(get("kylin.query.cache-enabled"), "true\n", "through the profile's links");
        assert_eq!(get("no.such.key"), "\n");
        machine.script_in(&shell, "get-properties.sh", &[]).expect_code(255);
        machine.knobs.set(Knob::PropertiesBroken, 1).unwrap();
        assert_eq!(get("kylin.metadata.url"), "\n");
    }
}

#[test]
fn every_call_is_logged_outside_of_the_home() {
    let machine = Machine::new(&options());
    machine.script("kylin.sh", &["stop"]).expect_code(1);
    machine.script("get-properties.sh", &["kylin.server.mode"]).expect_code(0);
    machine.script("upgrade.sh", &["--silent"]).expect_code(1);
    let calls = machine.calls().unwrap();
    let words: Vec<_> = calls.iter().map(|call| (call.script.as_str(), call.args.as_str())).collect();
    assert_eq!(
        words,
        [("kylin.sh", "stop"), ("get-properties.sh", "kylin.server.mode"), ("upgrade.sh", "--silent")]
    );
    assert!(calls.iter().all(|call| call.home == machine.home && call.cwd == machine.root));
}

#[test]
fn a_store_that_is_named_by_its_directory_works_too() {
    let machine = Machine::new(&Options { url: MetadataUrl::Directory, ..options() });
    machine.start();
    let ran = machine.script("metastore.sh", &["backup"]).expect_code(0);
    assert_eq!(entries(&backup_dir(&ran)), machine.store.content().unwrap().into_keys().collect());
    assert!(!ran.stderr.contains(Scenario::PASSWORD));
}

#[test]
fn a_nasty_home_holds_what_it_should_and_still_starts() {
    for layout in [options(), ke4()] {
        let machine = Machine::new(&Options {
            nasty: Nasty::ALL,
            home_link: true,
            neighbour: true,
            package_dir: true,
            old_package: true,
            ..layout
        });
        let home = &machine.real_home;
        assert!(fs::symlink_metadata(&machine.home).unwrap().is_symlink());
        let meta = |path: &str| fs::symlink_metadata(home.join(path)).unwrap();
        assert_eq!(meta("site-data/one").nlink(), 3);
        assert_eq!(meta("site-attributes/setuid").mode() & 0o7777, 0o4755);
        assert_eq!(meta("site-attributes/read-only").mode() & 0o777, 0o555);
        assert!(meta("site-attributes/sparse").blocks() * 512 < meta("site-attributes/sparse").len());
        assert_eq!(meta("conf/user.keytab").mode() & 0o777, 0o400);
        assert!(home.join("-own [dir]+*/new\nline").exists());
        let snapshot = Snapshot::take(home, &[]);
        assert_same_tree(&snapshot, &Snapshot::take(home, &[]));
        assert!(machine.package_dir.as_ref().unwrap().join("bin/kylin.sh").exists());
        assert!(machine.old_package.as_ref().unwrap().exists() && machine.package.exists());
        assert!(machine.working_dir.join("other_instance").exists());
        machine.start();
        machine.script("kylin.sh", &["stop"]).expect_code(0);
    }
}

#[test]
fn a_lock_left_by_a_killed_start_blocks_the_next_one() {
    let machine = Machine::new(&Options { nasty: Nasty { lock: true, ..Nasty::default() }, ..options() });
    machine.script("kylin.sh", &["start"]).expect_code(1);
}
