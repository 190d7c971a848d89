//! What kytx refuses, and how: the exit code, what failed and why, in what state the machine is, what to type, and
//! nothing changed.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use support::commands::{
    begin, begin_words, finish, metadata, on_home, on_upgrade, outside, spawn, state_dir, status, step_state,
    text, typed, version,
};
use support::snapshot::{Snapshot, assert_same_tree};
use support::{Machine, Ran, options, wait_until};

use kytx::testbed::{Knob, Scenario};

// ---------------------------------------------------------------------------------------------- the old home

#[test]
fn what_is_no_home_is_refused() {
    let machine = Machine::new(&options());
    let before = outside(&machine);
    let file = machine.home.join("VERSION");
    let nothing = machine.home.with_file_name("nothing");
    let downloads = machine.root.join("downloads");
    let cases = [
        (text(&nothing), "does not exist"),
        ("nowhere/at/all", "cannot find"),
        (text(&downloads), "is no home of this product"),
        (text(&file), "is no directory"),
        ("/", "cannot be a home"),
        ("opt/kyligence/../../hdfs", "is no home of this product"),
    ];
    for (home, why) in cases {
        for command in ["begin", "plan", "check"] {
            let mut words = vec![command, home, "--package", text(&machine.package)];
            words.extend((command == "begin").then_some("--silent"));
            machine.run(&words).explains(3, &[why, "Nothing was changed."]);
        }
        // Not even a state directory for what is no home.
        assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));
    }
}

#[test]
fn a_package_in_the_home_or_around_it_is_refused() {
    let machine = Machine::new(&options());
    let inside = machine.home.join("package.tar.gz");
    fs::copy(&machine.package, &inside).unwrap();
    let before = outside(&machine);
    for package in [inside.as_path(), machine.home.parent().unwrap(), &machine.home] {
        let words = ["begin", text(&machine.home), "--package", text(package), "--silent"];
        machine.run(&words).explains(3, &["lie inside one another", "Nothing was changed."]);
        assert_same_tree(&before, &outside(&machine));
    }
}

#[test]
fn a_relative_linked_home_keeps_its_link() {
    let mut options = options();
    options.home_link = true;
    let machine = Machine::new(&options);
    machine.start();
    let words = ["begin", "opt/kyligence", "--package", text(&machine.package), "--silent"];
    machine.run(&words).expect_code(0);
    assert_eq!(fs::read_link(&machine.home).unwrap(), Path::new("kyligence-old"));
    assert!(fs::symlink_metadata(&machine.real_home).unwrap().is_dir());
    assert!(version(&machine).contains("3.4.5"));
    assert!(state_dir(&machine).ends_with(".kytx/kyligence-old"));
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(fs::read_link(&machine.home).unwrap(), Path::new("kyligence-old"));
    assert!(version(&machine).contains("3.4.2"));
    assert!(machine.is_ready());
}

// ---------------------------------------------------------------------------------------------- the package

/// A member that is added to a package.
struct Extra<'a> {
    name: &'a str,
    kind: EntryType,
    link: &'a str,
    content: &'a [u8],
}

impl Extra<'_> {
    fn header(&self) -> Header {
        let mut header = Header::new_ustar();
        // Set by bytes: the crate refuses the very names that are wanted here.
        let old = header.as_old_mut();
        old.name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        old.linkname[..self.link.len()].copy_from_slice(self.link.as_bytes());
        header.set_entry_type(self.kind);
        header.set_mode(0o644);
        header.set_size(self.content.len() as u64);
        header.set_cksum();
        header
    }
}

/// Writes a package anew: `edit` gives a file another content or leaves it out, `extra` comes at the end.
fn repack(
    machine: &Machine,
    name: &str,
    edit: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>,
    extra: &[Extra<'_>],
) -> PathBuf {
    let mut source = tar::Archive::new(GzDecoder::new(File::open(&machine.package).unwrap()));
    let path = machine.root.join("downloads").join(name);
    let mut target = Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::best()));
    for entry in source.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let member = entry.path().unwrap().to_str().unwrap().to_owned();
        let below = member.split_once('/').map(|(_, below)| below.to_owned()).unwrap_or_default();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if header.entry_type() == EntryType::Regular {
            let Some(edited) = edit(&below, content) else { continue };
            header.set_size(edited.len() as u64);
            header.set_cksum();
            target.append(&header, edited.as_slice()).unwrap();
        } else {
            target.append(&header, content.as_slice()).unwrap();
        }
    }
    for member in extra {
        target.append(&member.header(), member.content).unwrap();
    }
    target.into_inner().unwrap().finish().unwrap();
    path
}

fn top(machine: &Machine) -> String {
    let name = machine.package.file_name().unwrap().to_str().unwrap();
    name.trim_end_matches(".tar.gz").to_owned()
}

#[track_caller]
fn refuses_package(machine: &Machine, package: &Path, why: &str) {
    let before = outside(machine);
    let words = ["begin", text(&machine.home), "--package", text(package), "--silent"];
    machine.run(&words).explains(3, &[why, "Nothing was changed."]);
    assert_same_tree(&before, &outside(machine));
}

#[allow(clippy::unnecessary_wraps, reason = "another edit may leave a file out")]
fn as_is(_: &str, content: Vec<u8>) -> Option<Vec<u8>> {
    Some(content)
}

#[test]
fn a_package_that_cannot_be_read_is_refused() {
    let machine = Machine::new(&options());
    let downloads = machine.root.join("downloads");
    refuses_package(&machine, &downloads.join("nothing.tar.gz"), "No such file");
    let whole = fs::read(&machine.package).unwrap();
    let cut = downloads.join("cut.tar.gz");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    refuses_package(&machine, &cut, "cut off");
    let text_file = downloads.join("text.tar.gz");
    fs::write(&text_file, "not a package\n").unwrap();
    refuses_package(&machine, &text_file, "not a gzip file");
    let empty = downloads.join("empty.tar.gz");
    fs::write(&empty, "").unwrap();
    refuses_package(&machine, &empty, "package");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let spoilt = downloads.join("spoilt.tar.gz");
    fs::write(&spoilt, &damaged).unwrap();
    refuses_package(&machine, &spoilt, "package");
}

#[test]
fn a_hostile_package_is_refused() {
    type Case<'a> = (&'a str, String, EntryType, &'a str, &'a [u8], &'a str);
    let machine = Machine::new(&options());
    let top = top(&machine);
    let below = |name: &str| format!("{top}/{name}");
    let zeros = vec![0; 64 << 20];
    let file = EntryType::Regular;
    let cases: Vec<Case<'_>> = vec![
        ("two-tops", "other/file".into(), file, "", b"x", "two top entries"),
        ("absolute", "/tmp/evil".into(), file, "", b"x", "absolute name"),
        ("parent", below("../../evil"), file, "", b"x", "`..` in its name"),
        ("symlink", below("evil"), EntryType::Symlink, "../../../etc", b"", "leaves the tree"),
        ("symlink-absolute", below("evil"), EntryType::Symlink, "/etc/passwd", b"", "leaves the tree"),
        ("hard-link", below("evil"), EntryType::Link, "/etc/passwd", b"", "leaves the tree"),
        ("device", below("evil"), EntryType::Char, "", b"", "device"),
        ("fifo", below("evil"), EntryType::Fifo, "", b"", "is a"),
        ("twice", below("VERSION"), file, "", b"x", "is there twice"),
        ("bomb", below("bomb"), file, "", &zeros, "times its length"),
    ];
    for (name, member, kind, link, content, why) in cases {
        let extra = Extra { name: &member, kind, link, content };
        let package = repack(&machine, &format!("{name}.tar.gz"), as_is, &[extra]);
        refuses_package(&machine, &package, why);
    }
}

#[test]
fn a_package_that_does_not_follow_is_refused() {
    let machine = Machine::new(&options());
    let with_version = |name: &str, line: &str| {
        let edit = |path: &str, content| {
            Some(if path == "VERSION" { format!("{line}\n").into_bytes() } else { content })
        };
        repack(&machine, &format!("{name}.tar.gz"), edit, &[])
    };
    let without =
        repack(&machine, "without.tar.gz", |path, content| (path != "VERSION").then_some(content), &[]);
    refuses_package(&machine, &without, "`VERSION`");
    for (name, line, why) in [
        ("older", "Kyligence Enterprise 3.4.1.2000-GA", "3.4.1"),
        ("equal", "Kyligence Enterprise 3.4.2.2028-GA", "--reinstall"),
        ("generation", "Kyligence Enterprise 4.5.7.0", "4.5.7"),
        ("product", "Apache kylin 3.1.3", "ylin"),
        ("nonsense", "something", "VERSION"),
    ] {
        refuses_package(&machine, &with_version(name, line), why);
    }
    let equal = with_version("equal", "Kyligence Enterprise 3.4.2.2028-GA");
    let words = ["plan", text(&machine.home), "--package", text(&equal), "--reinstall", "--json"];
    let plan: serde_json::Value = serde_json::from_str(&machine.run(&words).expect_code(0).stdout).unwrap();
    assert_eq!(plan["kind"], "reinstall");
}

// ---------------------------------------------------------------------------------------------- places

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

fn chown_all(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            chown_all(&entry.unwrap().path(), uid);
        }
    }
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// kytx as somebody who is not root: the test's own user, or another one if that is root.
fn as_ordinary_user(machine: &Machine, words: &[&str]) -> Ran {
    let mut command = machine.kytx(words);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ran::of(&mut command)
}

#[test]
fn a_parent_where_nothing_can_be_made_is_refused() {
    let machine = Machine::new(&options());
    if is_root() {
        chown_all(&machine.root, NOBODY);
    }
    let opt = machine.home.parent().unwrap();
    fs::set_permissions(opt, fs::Permissions::from_mode(0o555)).unwrap();
    let before = outside(&machine);
    as_ordinary_user(&machine, &begin_words(&machine, &[])).explains(3, &["cannot make the state directory"]);
    assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));
    let words = ["check", text(&machine.home), "--package", text(&machine.package)];
    let checked = as_ordinary_user(&machine, &words).expect_code(3);
    assert!(checked.stdout.contains("BLOCK P11"), "{}", checked.stdout);
    let elsewhere = machine.root.join("state");
    let words = begin_words(&machine, &["--state-dir", text(&elsewhere)]);
    as_ordinary_user(&machine, &words).explains(3, &["nothing can be created"]);
    assert_same_tree(&before, &Snapshot::take(&machine.root, &["state"]));
}

#[test]
fn a_home_of_another_user_is_refused() {
    if !is_root() {
        // Only root can give a file away.
        return;
    }
    let machine = Machine::new(&options());
    chown_all(&machine.root, NOBODY);
    chown_all(&machine.real_home, 12_345);
    // Readable for everybody, so that the owner is all that speaks against it.
    fs::set_permissions(machine.home.join("conf/user.keytab"), fs::Permissions::from_mode(0o444)).unwrap();
    let before = outside(&machine);
    as_ordinary_user(&machine, &begin_words(&machine, &[])).explains(3, &["belongs to user 12345"]);
    assert_same_tree(&before, &outside(&machine));
}

#[test]
fn a_state_directory_that_cannot_do_its_work_is_refused() {
    let machine = Machine::new(&options());
    let before = Snapshot::take(&machine.root, &[]);
    let inside = machine.home.join("state");
    begin(&machine, &["--state-dir", text(&inside)]).explains(3, &["lies inside the home"]);
    let around = machine.home.parent().unwrap();
    begin(&machine, &["--state-dir", text(around)]).explains(3, &["lies inside the state directory"]);
    let shm = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    if device(shm).is_ok_and(|shm| shm != device(&machine.root).unwrap()) {
        let other = shm.join(format!("kytx-test-{}", std::process::id()));
        begin(&machine, &["--state-dir", text(&other)]).explains(3, &["another file system"]);
        assert!(!other.exists());
    }
    assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));
}

/// A small file system in memory, gone with the value.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    /// `None` where the test may not mount.
    fn mount(bytes: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("kytx-tmpfs-").tempdir().unwrap();
        let size = format!("size={bytes}");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "kytx-test", text(dir.path())]);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self { dir })
    }

    /// Writes until nothing fits any more.
    fn fill(&self) -> PathBuf {
        let filler = self.dir.path().join("filler");
        let mut file = File::create(&filler).unwrap();
        let zeros = vec![0; 1 << 20];
        for chunk in [1 << 20, 4 << 10] {
            while file.write_all(&zeros[..chunk]).is_ok() {}
        }
        filler
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.dir.path()).output();
    }
}

#[test]
fn too_little_space_is_found_before() {
    let Some(tmpfs) = Tmpfs::mount("40m") else { return };
    let machine = Machine::within(tmpfs.dir.path(), &options());
    let before = outside(&machine);
    begin(&machine, &[]).explains(3, &["BLOCK P8", "MiB free", "Nothing was changed."]);
    assert_same_tree(&before, &outside(&machine));
    on_home(&machine, "status", &[]).explains(8, &["no upgrade is open"]);
}

#[test]
fn a_disk_that_fills_up_stops_the_upgrade_and_not_the_way_back() {
    let Some(tmpfs) = Tmpfs::mount("120m") else { return };
    let machine = Machine::within(tmpfs.dir.path(), &options());
    machine.start();
    // More than the ballast that kytx sets free on a full disk, and nothing that shrinks.
    let mut noise = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let member = format!("{}/lib/noise.jar", top(&machine));
    let extra = Extra { name: &member, kind: EntryType::Regular, link: "", content: &noise };
    let package = repack(&machine, "large.tar.gz", as_is, &[extra]);
    let home = text(&machine.home);
    let words = ["begin", home, "--package", text(&package), "--silent", "--stop-before", "stage-tree"];
    machine.run(&words).expect_code(4);
    let filler = tmpfs.fill();
    on_home(&machine, "resume", &[])
        .explains(4, &["the disk is full", "free space", "kytx resume", "kytx abort"]);
    on_home(&machine, "status", &[]).expect_code(0);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
    assert!(!state_dir(&machine).join("spare").exists());
    fs::remove_file(filler).unwrap();

    // Again, in the downtime, and freed this time.
    let gate = machine.root.join("gate");
    machine.knobs.set(Knob::BackupGate, gate.display()).unwrap();
    let child = spawn(&machine, &begin_words(&machine, &[]));
    wait_until("the backup is at its gate", || machine.root.join("gate.reached").exists());
    let filler = tmpfs.fill();
    File::create(&gate).unwrap();
    finish(child).explains(4, &["back-up-metadata", "kytx resume", "kytx abort"]);
    assert!(version(&machine).contains("3.4.2"));
    fs::remove_file(filler).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(&machine).contains("3.4.5"));
    on_home(&machine, "commit", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
}

#[test]
fn a_disk_that_fills_up_after_the_swap_leaves_the_way_back_open() {
    let Some(tmpfs) = Tmpfs::mount("120m") else { return };
    let machine = Machine::within(tmpfs.dir.path(), &options());
    let mut noise = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::write(machine.home.join("logs/kylin.log.9"), &noise).unwrap();
    machine.start();
    let before = metadata(&machine);
    begin(&machine, &["--stop-before", "archive-tree"]).expect_code(4);
    let _filler = tmpfs.fill();
    let words = ["the disk is full", "No space left", "free space", "kytx resume", "kytx abort"];
    on_home(&machine, "resume", &[]).explains(4, &words);
    assert!(!machine.real_home.with_file_name("kyligence.backup.tar.gz").exists());
    // The disk is as full as ever.
    abort_brings_back(&machine, &before);
    assert!(!state_dir(&machine).join("spare").exists());
}

// ---------------------------------------------------------------------------------------------- the service

fn of_new(machine: &Machine, knob: Knob, value: &str) {
    machine.knobs.of_version(&machine.options.new_version).set(knob, value).unwrap();
}

#[track_caller]
fn abort_brings_back(machine: &Machine, metadata_before: &kytx::testbed::StoreContent) {
    on_home(machine, "abort", &["--yes"]).expect_code(0);
    assert!(version(machine).contains(machine.options.old_version.as_str()), "{}", version(machine));
    assert!(machine.is_ready(), "the old service runs again");
    assert_eq!(&metadata(machine), metadata_before);
}

#[test]
fn a_new_service_that_does_not_start_leaves_both_ways_open() {
    for (mode, why) in [("fail", "left no service running"), ("nothing", "left no service running")] {
        let machine = Machine::new(&options());
        machine.start();
        let before = metadata(&machine);
        of_new(&machine, Knob::StartMode, mode);
        let words = ["start-service", why, "The new release is in place", "kytx resume", "kytx abort"];
        begin(&machine, &["--start-timeout", "1"]).explains(4, &words);
        let status = status(&machine);
        assert_eq!(step_state(&status, "start-service"), "intended");
        abort_brings_back(&machine, &before);
    }
}

#[test]
fn a_new_service_that_never_answers_leaves_both_ways_open() {
    let machine = Machine::new(&options());
    machine.start();
    let before = metadata(&machine);
    of_new(&machine, Knob::HttpMode, "never");
    begin(&machine, &["--start-timeout", "1"]).explains(4, &["did not answer", "503", "kytx abort"]);
    on_home(&machine, "resume", &[]).explains(4, &["did not answer"]);
    of_new(&machine, Knob::HttpMode, "ok");
    on_home(&machine, "resume", &[]).expect_code(0);
    abort_brings_back(&machine, &before);
}

#[test]
fn a_new_service_that_dies_leaves_both_ways_open() {
    let machine = Machine::new(&options());
    machine.start();
    let before = metadata(&machine);
    of_new(&machine, Knob::HttpMode, "never");
    let old_pid = machine.pid();
    let child = spawn(&machine, &begin_words(&machine, &[]));
    let new_pid = || fs::read_to_string(machine.home.join("pid")).ok()?.trim().parse::<i32>().ok();
    wait_until("the new service runs", || {
        version(&machine).contains("3.4.5")
            && new_pid().is_some_and(|pid| pid != old_pid)
            && machine.ask("/kylin/", "").is_some_and(|answer| answer.status == 503)
    });
    let pid = rustix::process::Pid::from_raw(new_pid().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let ran = finish(child).explains(4, &["start-service", "kytx abort"]);
    assert!(ran.stderr.contains("ended") || ran.stderr.contains("left no service running"), "{}", ran.stderr);
    abort_brings_back(&machine, &before);
}

#[test]
fn an_old_service_that_does_not_stop_is_left_running() {
    let machine = Machine::new(&options());
    let pid = machine.start();
    let before = metadata(&machine);
    machine.knobs.set(Knob::StopMode, "fail").unwrap();
    begin(&machine, &[])
        .explains(4, &["stop-service", "still runs", &pid.to_string(), "The old release is in place"]);
    assert!(machine.is_ready());
    abort_brings_back(&machine, &before);
    assert_eq!(machine.pid(), pid, "it was never stopped");
}

#[test]
fn a_failure_turns_round_when_asked() {
    let machine = Machine::new(&options());
    machine.start();
    let before = metadata(&machine);
    of_new(&machine, Knob::StartMode, "fail");
    let ran =
        begin(&machine, &["--on-failure", "abort"]).explains(3, &["start-service", "undoing everything"]);
    assert!(ran.stdout.contains("is as it was"), "{}", ran.stdout);
    assert!(version(&machine).contains("3.4.2"));
    assert!(machine.is_ready());
    assert_eq!(metadata(&machine), before);
    let status = status(&machine);
    assert_eq!((&status["phase"], &status["outcome"]), (&"ended".into(), &"aborted".into()));
}

// ---------------------------------------------------------------------------------------------- the metadata

#[test]
fn a_metadata_backup_that_lies_stops_the_upgrade() {
    let machine = Machine::new(&options());
    machine.start();
    let before = metadata(&machine);
    for mode in ["empty", "uuid-only", "half", "failed-copy", "killed"] {
        machine.knobs.set(Knob::BackupMode, mode).unwrap();
        begin(&machine, &[]).explains(4, &["back-up-metadata", "The old release is in place", "kytx abort"]);
        let status = status(&machine);
        assert_eq!(step_state(&status, "back-up-metadata"), "intended", "{mode}");
        assert_eq!(step_state(&status, "stop-service"), "done", "{mode}");
        assert!(!machine.is_ready(), "{mode}");
        machine.knobs.set(Knob::BackupMode, "ok").unwrap();
        abort_brings_back(&machine, &before);
    }
}

#[test]
fn a_metadata_backup_that_destroys_entries_is_noticed() {
    let machine = Machine::new(&options());
    machine.start();
    machine.knobs.set(Knob::BackupMode, "lost-markers").unwrap();
    begin(&machine, &[]).explains(4, &["back-up-metadata", "marker", "kytx abort"]);
    machine.knobs.set(Knob::BackupMode, "ok").unwrap();
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
}

#[test]
fn no_metadata_command_runs_while_the_working_directory_is_away() {
    let machine = Machine::new(&options());
    machine.start();
    let before = metadata(&machine);
    begin(&machine, &["--stop-before", "back-up-metadata"]).expect_code(4);
    let away = machine.working_dir.with_file_name("away");
    fs::rename(&machine.working_dir, &away).unwrap();
    let calls = machine.calls().unwrap().len();
    on_home(&machine, "resume", &[]).explains(4, &["no metadata command was run", "working directory"]);
    assert_eq!(machine.calls().unwrap().len(), calls);
    fs::rename(&away, &machine.working_dir).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    abort_brings_back(&machine, &before);
}

#[test]
fn a_restore_that_fails_half_way_is_finished_by_resume() {
    for mode in ["half", "killed"] {
        let machine = Machine::new(&options().major());
        machine.start();
        let before = metadata(&machine);
        begin(&machine, &[]).expect_code(0);
        machine.knobs.set(Knob::RestoreMode, mode).unwrap();
        on_home(&machine, "abort", &["--yes"])
            .explains(4, &["hand-over-data", "not complete until the restore is repeated", "kytx resume"]);
        assert_ne!(metadata(&machine), before);
        machine.knobs.set(Knob::RestoreMode, "ok").unwrap();
        on_home(&machine, "resume", &[]).expect_code(0);
        assert_eq!(metadata(&machine), before);
        assert!(machine.is_ready());
        assert!(version(&machine).contains("3.3.3"));
    }
}

// ---------------------------------------------------------------------------------------------- one at a time

#[test]
fn a_second_kytx_is_turned_away_and_status_is_not() {
    let machine = Machine::new(&options());
    machine.start();
    let gate = machine.root.join("gate");
    machine.knobs.set(Knob::StopGate, gate.display()).unwrap();
    let child = spawn(&machine, &begin_words(&machine, &[]));
    wait_until("the stop is at its gate", || machine.root.join("gate.reached").exists());
    let holder = format!("process {}", child.id());
    begin(&machine, &[]).explains(7, &[]);
    for (command, more) in [("resume", &[][..]), ("abort", &["--yes"]), ("commit", &["--yes"])] {
        let ran = on_home(&machine, command, more).explains(7, &["did nothing", "kytx status"]);
        assert!(ran.stderr.contains(&child.id().to_string()), "{holder} in:\n{}", ran.stderr);
    }
    let now = status(&machine);
    assert_eq!(now["holder"]["pid"], child.id());
    assert_eq!(step_state(&now, "stop-service"), "intended");
    File::create(&gate).unwrap();
    finish(child).expect_code(0);
    assert!(status(&machine)["holder"].is_null());
}

// ---------------------------------------------------------------------------------------------- the journal

/// Everything but what each run writes before it has read the journal.
fn state_snapshot(machine: &Machine) -> Snapshot {
    Snapshot::take(&state_dir(machine), &["lock", "holder.json", "child"])
}

#[track_caller]
fn refuses_journal(machine: &Machine, why: &str) {
    let before = (state_snapshot(machine), outside(machine));
    for (command, more) in [
        ("status", &[][..]),
        ("log", &[]),
        ("verify", &[]),
        ("resume", &[]),
        ("abort", &["--dry-run"]),
        ("abort", &["--yes"]),
        ("commit", &["--yes"]),
    ] {
        on_home(machine, command, more).explains(9, &[why, "Nothing was changed."]);
    }
    begin(machine, &[]).explains(9, &[why]);
    assert_same_tree(&before.0, &state_snapshot(machine));
    assert_same_tree(&before.1, &outside(machine));
}

#[test]
fn a_journal_of_a_newer_kytx_is_refused() {
    let machine = Machine::new(&options());
    begin(&machine, &["--stop-before", "stage-tree"]).expect_code(4);
    let twin = state_dir(&machine).join("journal.log");
    let mut bytes = fs::read(&twin).unwrap();
    // Magic, then each frame after its length of four bytes: LSN, version. The length is big-endian.
    let mut at = 16;
    let mut last = at;
    while at < bytes.len() {
        last = at;
        at += 4 + u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    assert_eq!(at, bytes.len(), "the twin is read as journal-format.md says");
    assert_eq!(bytes[last + 4 + 8], 1);
    bytes[last + 4 + 8] = 2;
    fs::write(&twin, bytes).unwrap();
    // With a store that holds the record in this version, the twin would only be damaged.
    fs::remove_dir_all(state_dir(&machine).join("journal")).unwrap();
    refuses_journal(&machine, "newer kytx");
}

#[test]
fn a_journal_that_is_damaged_in_both_places_is_refused() {
    let machine = Machine::new(&options());
    begin(&machine, &["--stop-before", "stage-tree"]).expect_code(4);
    let state = state_dir(&machine);
    for file in [state.join("journal.log"), state.join("journal/db")] {
        let mut bytes = fs::read(&file).unwrap();
        let length = bytes.len();
        for byte in &mut bytes[40..length.min(600)] {
            *byte ^= 0x55;
        }
        fs::write(&file, bytes).unwrap();
    }
    refuses_journal(&machine, "journal");
}

// ---------------------------------------------------------------------------------------------- words

#[test]
fn wrong_words_are_refused() {
    let machine = Machine::new(&options());
    let before = outside(&machine);
    machine.run(&["nonsense"]).expect_code(2);
    machine.run(&[]).expect_code(2);
    begin(&machine, &["--nonsense"]).expect_code(2);
    begin(&machine, &["--archive", "sometimes"]).expect_code(2);
    begin(&machine, &["--start-timeout", "-1"]).expect_code(2);
    begin(&machine, &["--stop-before", "nonsense"]).explains(2, &["no step `nonsense`", "kytx plan"]);
    for (text, why) in [("P99=reason", "no check `P99`"), ("P5", "no reason"), ("P5= ", "no reason")] {
        begin(&machine, &["--override", text]).explains(2, &[why, "--override"]);
    }
    for command in ["status", "log", "verify", "resume", "abort", "commit"] {
        machine.run(&[command]).explains(2, &["no home was given", "KYLIN_HOME"]);
    }
    for command in ["plan", "check", "begin"] {
        let words = [command, "--package", text(&machine.package)];
        machine.run(&words).explains(2, &["no home was given", "KYLIN_HOME"]);
        let words = [command, "--package", text(&machine.package), "--state-dir", "state"];
        machine.run(&words).explains(2, &["no home was given"]);
    }
    machine.run(&["begin", text(&machine.home)]).expect_code(2);
    assert_same_tree(&before, &outside(&machine));
}

#[test]
fn only_a_clear_yes_is_yes() {
    let machine = Machine::new(&options());
    let before = outside(&machine);
    let words =
        ["begin", text(&machine.home), "--package", text(&machine.package), "--stop-before", "stage-tree"];
    for no in ["", "\n", "n\n", "no\n", "yep\n", "true\n"] {
        typed(&machine, &words, no).explains(3, &["no confirmation", "Nothing was changed.", "--silent"]);
        assert_same_tree(&before, &outside(&machine));
        on_home(&machine, "status", &[]).expect_code(8);
    }
    for yes in ["y\n", "Y\n", "yes\n"] {
        typed(&machine, &words, yes).expect_code(4);
        let abort = ["abort", text(&machine.home)];
        typed(&machine, &abort, "").explains(3, &["not aborted", "kytx abort --yes"]);
        typed(&machine, &abort, "\n").explains(3, &["not aborted"]);
        assert_eq!(status(&machine)["phase"], "applying");
        typed(&machine, &abort, yes).expect_code(0);
    }
    begin(&machine, &["--archive", "none"]).expect_code(0);
    let commit = ["commit", text(&machine.home)];
    for no in ["", "\n", "no\n"] {
        typed(&machine, &commit, no).explains(3, &["not committed", "kytx commit --yes"]);
        assert_eq!(status(&machine)["phase"], "applied");
    }
    typed(&machine, &commit, "Y\n").expect_code(0);
}

// ---------------------------------------------------------------------------------------------- secrets

/// Files below a directory that hold one of the secrets.
fn with_secrets(dir: &Path, skip: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if skip.contains(&dir) {
        return found;
    }
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(with_secrets(&entry.path(), skip));
        } else if entry.file_type().unwrap().is_file() && holds_secret(&fs::read(entry.path()).unwrap()) {
            found.push(entry.path());
        }
    }
    found
}

fn holds_secret(bytes: &[u8]) -> bool {
    [Scenario::PASSWORD, "s3cret-acl"]
        .iter()
        .any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
}

#[track_caller]
fn tells_no_secret(ran: &Ran) {
    assert!(!holds_secret(ran.stdout.as_bytes()), "{}", ran.stdout);
    assert!(!holds_secret(ran.stderr.as_bytes()), "{}", ran.stderr);
}

#[test]
fn no_secret_is_told_or_kept() {
    for ending in ["commit", "abort"] {
        let mut options = options().major();
        options.old_package = true;
        let machine = Machine::new(&options);
        machine.start();
        let old_package = machine.old_package.clone().unwrap();
        let saved = machine.root.join("saved.json");
        let more = ["--old-package", text(&old_package)];
        for form in [&[][..], &["--json"], &["--out", text(&saved)]] {
            tells_no_secret(&on_upgrade(&machine, "plan", &[&more, form].concat()).expect_code(0));
        }
        assert!(!holds_secret(&fs::read(&saved).unwrap()));
        tells_no_secret(&begin(&machine, &more).expect_code(0));
        let state = state_dir(&machine);
        // The old tree is the operator's own, with the rights that it had. The merged file waits to be put in place.
        let found = with_secrets(&state, &[&state.join("spare")]);
        for path in &found {
            assert!(path.parent().unwrap().ends_with("plan"), "{found:?}");
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        for command in ["status", "log", "verify"] {
            for form in [&[][..], &["--json"]] {
                tells_no_secret(&on_home(&machine, command, form).expect_code(0));
            }
        }
        tells_no_secret(&on_home(&machine, ending, &["--yes"]).expect_code(0));
        assert_eq!(with_secrets(&state, &[]), Vec::<PathBuf>::new(), "after {ending}");
    }
}

#[test]
fn a_secret_that_a_refused_begin_has_left_goes_with_the_next() {
    let machine = Machine::new(&options());
    let state = state_dir(&machine);
    let plan = state.join("plan");
    fs::create_dir_all(&plan).unwrap();
    fs::write(plan.join("content-0123"), Scenario::PASSWORD).unwrap();
    let words = ["begin", text(&machine.home), "--package", text(&machine.package)];
    typed(&machine, &words, "n\n").expect_code(3);
    assert_eq!(with_secrets(&state, &[]), Vec::<PathBuf>::new());
}
