//! The preconditions of the manual's procedure on a machine: what brings the service back, Grafana, the row filter,
//! programs, the ticket, the licence, the metadata store.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::commands::{begin, begin_words, on_home, on_upgrade, outside, state_dir, text, version};
use support::snapshot::assert_same_tree;
use support::{Machine, Ran, options};

use kytx::testbed::MetadataUrl;

/// Programs that say what a test wants, before the machine's own on the path.
struct Programs {
    dir: tempfile::TempDir,
}

impl Programs {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn put(&self, name: &str, script: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn check(&self, machine: &Machine) -> Ran {
        let mut dirs = vec![PathBuf::from(self.dir.path())];
        dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut command = machine.kytx(&["check", text(&machine.home), "--package", text(&machine.package)]);
        command.arg("--jobs-finished").env("PATH", std::env::join_paths(dirs).unwrap());
        Ran::of(&mut command)
    }
}

fn set_property(machine: &Machine, line: &str) {
    let path = machine.home.join("conf/kylin.properties.override");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{line}\n")).unwrap();
}

#[test]
fn what_starts_the_service_again_blocks_and_is_named_with_its_fix() {
    let machine = Machine::new(&options());
    let programs = Programs::new();
    let home = text(&machine.home);
    programs.put("crontab", "echo 'no crontab for root' >&2; exit 1");
    let clean = programs.check(&machine).expect_code(0);
    assert!(!clean.stdout.contains(" P6:"), "{}", clean.stdout);
    programs.put("crontab", &format!("echo '*/2 * * * * sh {home}/bin/ke-instance-guard.sh {home}'"));
    let before = outside(&machine);
    let armed = programs.check(&machine).expect_code(3);
    assert!(armed.stdout.contains("BLOCK P6: the crontab of"), "{}", armed.stdout);
    assert!(armed.stdout.contains("crontab -e"), "{}", armed.stdout);
    assert!(!armed.stdout.contains("--override P6"), "nothing makes it harmless");
    assert_same_tree(&before, &outside(&machine));
    programs.put("crontab", &format!("echo '* * * * * /usr/sbin/logrotate {home}/logrotate/kylin'"));
    let rotation = programs.check(&machine).expect_code(0);
    assert!(rotation.stdout.contains("note P6:"), "{}", rotation.stdout);
    programs.put("crontab", "exit 7");
    let unknown = programs.check(&machine).expect_code(0);
    assert!(unknown.stdout.contains("note P6: crontabs could not be read"), "{}", unknown.stdout);
}

#[test]
fn a_guardian_is_stopped_with_the_service_and_there_is_one_after_the_start() {
    let machine = Machine::new(&options());
    set_property(&machine, "kap.guardian.enabled=true");
    machine.start();
    let kgid = || fs::read_to_string(machine.home.join("kgid")).unwrap().trim().parse::<u32>().unwrap();
    let old = kgid();
    begin(&machine, &[]).expect_code(0);
    let guardians = || {
        let of = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_guardian = |pid: &i32| of(pid).ends_with(b"kylin.sh\0guardian\0");
        machine.processes().unwrap().into_iter().filter(is_guardian).collect::<Vec<_>>()
    };
    assert_ne!(kgid(), old);
    assert_eq!(guardians(), [kgid() as i32], "one, and the one that `kgid` names");
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(guardians(), [kgid() as i32]);
    // It must not bring back what the test's end kills.
    machine.script("kylin.sh", &["stop"]).expect_code(0);
}

#[test]
fn a_running_grafana_blocks_before_anything_is_stopped() {
    let machine = Machine::new(&options().ke4());
    let pid = machine.start();
    let dir = machine.home.join("grafana");
    fs::create_dir(&dir).unwrap();
    let mut command = Command::new("sleep");
    command.arg0("grafana-server").arg("600").current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null());
    let mut grafana = command.spawn().unwrap();
    fs::write(dir.join("pid"), format!("{}\n", grafana.id())).unwrap();
    let ran = begin(&machine, &[]);
    grafana.kill().unwrap();
    grafana.wait().unwrap();
    ran.explains(3, &["BLOCK P7: Grafana runs", "Nothing was changed."]);
    assert_eq!(machine.pid(), pid);
    assert!(machine.is_ready());
}

#[test]
fn a_row_filter_that_would_be_lost_blocks() {
    let machine = Machine::new(&options().ke4());
    set_property(&machine, "kylin.query.transformers=io.kyligence.kap.query.util.ConvertToComputedColumn");
    let ran = on_upgrade(&machine, "check", &[]).expect_code(3);
    assert!(ran.stdout.contains("BLOCK P13:"), "{}", ran.stdout);
    set_property(&machine, "kylin.query.transformers=io.kyligence.kap.query.security.RowFilter");
    on_upgrade(&machine, "check", &[]).expect_code(0);
}

#[test]
fn programs_and_the_ticket_are_tried_where_the_home_needs_them() {
    let machine = Machine::new(&options());
    let programs = Programs::new();
    set_property(&machine, "kylin.env.hdfs-working-dir=hdfs://ns/kylin");
    let calls = programs.dir.path().join("calls");
    let good = format!("echo \"$0 $*\" >> {}; exit 0", calls.display());
    for name in ["hadoop", "hdfs", "hive", "klist"] {
        programs.put(name, &good);
    }
    programs.check(&machine).expect_code(0);
    let called = fs::read_to_string(&calls).unwrap();
    assert!(
        called.contains("hadoop version") && called.contains("hadoop fs -ls -d hdfs://ns/kylin"),
        "{called}"
    );
    assert!(!called.contains("klist"), "no Kerberos, no ticket");
    programs.put("hadoop", "[ \"$1\" = version ] && exit 0; echo 'Connection refused' >&2; exit 1");
    let away = programs.check(&machine).expect_code(3);
    assert!(
        away.stdout.contains("BLOCK P14: `hadoop fs -ls -d hdfs://ns/kylin` does not work"),
        "{}",
        away.stdout
    );
    assert!(away.stdout.contains("Connection refused"), "{}", away.stdout);
    programs.put("hadoop", &good);

    set_property(
        &machine,
        "kap.kerberos.enabled=true\nkap.kerberos.keytab=user.keytab\nkap.kerberos.principal=kylin@R",
    );
    programs.check(&machine).expect_code(0);
    programs.put("klist", "exit 1");
    // Without the keytab nobody but the operator can get a ticket.
    let keytab = machine.real_home.join("conf/user.keytab");
    fs::remove_file(&keytab).unwrap();
    let none = programs.check(&machine).expect_code(3);
    assert!(none.stdout.contains("BLOCK P15:"), "{}", none.stdout);
    let kinit = format!("kinit -kt {} kylin@R", text(&keytab));
    assert!(none.stdout.contains(&kinit), "{}", none.stdout);
}

#[test]
fn a_ticket_is_obtained_by_the_homes_own_keytab_before_anything_is_begun() {
    let machine = Machine::new(&options());
    let programs = Programs::new();
    let (cache, calls) = (programs.dir.path().join("cache"), programs.dir.path().join("calls"));
    programs.put("klist", &format!("[ -s {} ]", cache.display()));
    programs
        .put("kinit", &format!("echo \"$*\" >> {0}; echo ticket > {1}", calls.display(), cache.display()));
    set_property(
        &machine,
        "kap.kerberos.enabled=true\nkap.kerberos.keytab=user.keytab\nkap.kerberos.principal=kylin@R",
    );
    let with_path = |words: &[&str]| {
        let mut dirs = vec![PathBuf::from(programs.dir.path())];
        dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        Ran::of(machine.kytx(words).env("PATH", std::env::join_paths(dirs).unwrap()))
    };
    // A look changes nobody's cache.
    let looked = programs.check(&machine).expect_code(0);
    assert!(looked.stdout.contains("note P15: there is no valid Kerberos ticket yet"), "{}", looked.stdout);
    assert!(!calls.exists() && !cache.exists());
    let words = begin_words(&machine, &[]);
    let begun = with_path(&words).expect_code(0);
    let keytab = format!("{}/conf/user.keytab", text(&machine.real_home));
    assert_eq!(fs::read_to_string(&calls).unwrap(), format!("-kt {keytab} kylin@R\n"));
    assert!(begun.stderr.contains("A Kerberos ticket for `kylin@R` was obtained"), "{}", begun.stderr);
    // It ran out meanwhile: whatever goes on gets another one.
    fs::remove_file(&cache).unwrap();
    with_path(&["abort", text(&machine.home), "--yes"]).expect_code(0);
    assert_eq!(fs::read_to_string(&calls).unwrap().lines().count(), 2);
    // One that is valid is left alone.
    with_path(&words).expect_code(0);
    with_path(&["abort", text(&machine.home), "--yes"]).expect_code(0);
    assert_eq!(fs::read_to_string(&calls).unwrap().lines().count(), 2);
    // Refused by the KDC, and a program that says yes and gets nothing.
    fs::remove_file(&cache).unwrap();
    programs.put("kinit", "echo 'kinit: Preauthentication failed' >&2; exit 1");
    let before = outside(&machine);
    with_path(&words).explains(3, &["no Kerberos ticket", "Preauthentication failed", "kinit -kt"]);
    programs.put("kinit", "exit 0");
    with_path(&words).explains(3, &["finds no valid ticket"]);
    assert_same_tree(&before, &outside(&machine));
}

#[test]
fn a_new_licence_is_put_in_place_and_told_to_nobody() {
    let machine = Machine::new(&options());
    let file = machine.root.join("new licence");
    let before = fs::read(machine.home.join("LICENSE")).unwrap();
    on_upgrade(&machine, "check", &["--licence", text(&file)]).explains(3, &["no such file"]);
    fs::write(&file, " \n").unwrap();
    on_upgrade(&machine, "check", &["--licence", text(&file)]).explains(3, &["it is empty"]);
    let licence = "====\nKyligence Enterprise\nlicence-text-of-this-test\n====\n";
    fs::write(&file, licence).unwrap();
    let plan = on_upgrade(&machine, "plan", &["--licence", text(&file)]).expect_code(0);
    assert!(plan.stdout.contains("the licence given with `--licence`"), "{}", plan.stdout);
    let ran = begin(&machine, &["--no-start", "--licence", text(&file)]).expect_code(0);
    assert_eq!(fs::read_to_string(machine.home.join("LICENSE")).unwrap(), licence);
    let journal = fs::read(state_dir(&machine).join("journal.log")).unwrap();
    let log = on_home(&machine, "log", &["--json"]).expect_code(0).stdout;
    for told in [plan.stdout, ran.stdout, ran.stderr, log, String::from_utf8_lossy(&journal).into_owned()] {
        assert!(!told.contains("licence-text-of-this-test"));
    }
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(fs::read(machine.home.join("LICENSE")).unwrap(), before);
}

#[test]
fn from_2_to_3_without_a_new_licence_is_refused() {
    let mut options = options();
    "2.5.3".clone_into(&mut options.old_version);
    let machine = Machine::new(&options);
    fs::write(machine.home.join("VERSION"), "KAP Enterprise Plus 2.5.3\n").unwrap();
    let ran = on_upgrade(&machine, "check", &[]).expect_code(3);
    assert!(ran.stdout.contains("BLOCK P16:") && ran.stdout.contains("--licence FILE"), "{}", ran.stdout);
    assert!(ran.stdout.contains("MetadataChecker check"), "{}", ran.stdout);
    let file = machine.home.join("LICENSE");
    let ran = on_upgrade(&machine, "check", &["--licence", text(&file)]).expect_code(0);
    assert!(ran.stdout.contains("note P16:"), "{}", ran.stdout);
    assert!(version(&machine).contains("2.5.3"));
}

#[test]
fn a_store_that_takes_no_connection_blocks_and_no_metadata_command_is_run_to_know() {
    let machine = Machine::new(&options());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    set_property(
        &machine,
        &format!("kylin.metadata.url=kylin_metadata@jdbc,url=jdbc:mysql://127.0.0.1:{port}/k"),
    );
    let there = on_upgrade(&machine, "check", &[]).expect_code(0);
    assert!(!there.stdout.contains(" P17:"), "{}", there.stdout);
    drop(listener);
    let away = on_upgrade(&machine, "check", &[]).expect_code(3);
    assert!(away.stdout.contains("BLOCK P17: the metadata store cannot be reached"), "{}", away.stdout);
    assert!(machine.calls().unwrap().is_empty(), "no script of the product was called");
    let mut options = options();
    options.url = MetadataUrl::Directory;
    let machine = Machine::new(&options);
    assert!(!on_upgrade(&machine, "check", &[]).expect_code(0).stdout.contains(" P17:"));
    fs::rename(machine.store.dir(), machine.root.join("elsewhere")).unwrap();
    assert!(on_upgrade(&machine, "check", &[]).expect_code(3).stdout.contains("BLOCK P17:"));
}
