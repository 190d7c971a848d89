//! Whole upgrades of unusual homes, each killed at moments that a seed chooses, on the way there and on the way back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::support::commands::{begin_words, metadata, on_home, on_upgrade, text, version};
use super::support::killer::{Counted, Victims, run_killed_after};
use super::support::random::Random;
use super::support::{Machine, Ran, options};
use kytx::testbed::{Knob, Nasty, Options};

const SEED: u64 = 20_261_125;

/// Runs kytx and kills it at the n-th change.
fn killed(machine: &Machine, words: &[&str], n: u64) {
    let traced = run_killed_after(machine.kytx(words), 0, n, Counted::Own, Victims::Program);
    println!("{} at change {n}: {:?}", words[0], traced.outcome);
}

/// Three kills on the way there and three on the way back; `words` begin the upgrade.
fn through_six_kills(machine: &Machine, words: &[&str]) {
    let mut random = Random::new(SEED);
    println!("seed {SEED}");
    let before = metadata(machine);
    let old = version(machine);
    machine.start();
    killed(machine, words, 60 + random.up_to(300));
    for limit in [80, 200] {
        killed(machine, &["resume", text(&machine.home)], random.up_to(limit));
    }
    let mut resumed = on_home(machine, "resume", &[]);
    if version(machine) == old {
        // Killed before the plan was sealed: nothing was begun.
        resumed = machine.run(words);
    }
    resumed.expect_code(0);
    assert!(version(machine).contains(machine.options.new_version.as_str()) && machine.is_ready());
    assert_ne!(metadata(machine), before, "the first start migrates");
    killed(machine, &["abort", text(&machine.home), "--yes"], random.up_to(20));
    for limit in [15, 30] {
        killed(machine, &["resume", text(&machine.home)], random.up_to(limit));
    }
    let _ = on_home(machine, "abort", &["--yes"]);
    let _ = on_home(machine, "resume", &[]);
    assert_eq!(version(machine), old);
    assert!(machine.is_ready());
    assert_eq!(metadata(machine), before);
}

pub(super) fn kap_2() -> Machine {
    let mut options = options();
    "2.5.3".clone_into(&mut options.old_version);
    "KAP Enterprise Plus".clone_into(&mut options.product);
    let machine = Machine::new(&options);
    fs::write(machine.root.join("licence"), "====\nKyligence Enterprise\nof release 3\n====\n").unwrap();
    machine
}

/// The package of release 3 as its vendor names it.
pub(super) fn of_release_3(machine: &Machine) -> std::path::PathBuf {
    let dir = machine.root.join("unpacked");
    fs::create_dir_all(&dir).unwrap();
    let file = fs::File::open(&machine.package).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(&dir).unwrap();
    let name = machine.package.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz");
    let package = dir.join(name);
    fs::write(package.join("VERSION"), format!("Kyligence Enterprise {}\n", machine.options.new_version))
        .unwrap();
    package
}

#[test]
fn kap_2_becomes_ke_3_and_comes_back_through_six_kills() {
    let machine = kap_2();
    let package = of_release_3(&machine);
    let licence = machine.root.join("licence");
    let words =
        ["begin", text(&machine.home), "--package", text(&package), "--silent", "--licence", text(&licence)];
    through_six_kills(&machine, &words);
}

#[test]
fn a_symlinked_home_with_names_of_any_bytes_comes_through_six_kills() {
    let options =
        Options { home_link: true, nasty: Nasty { lock: false, ..Nasty::ALL }, ..options().major() };
    let machine = Machine::new(&options);
    through_six_kills(&machine, &begin_words(&machine, &[]));
}

#[test]
fn projects_with_several_sources_are_reported_after_the_migration() {
    let machine = kap_2();
    let package = of_release_3(&machine);
    let licence = machine.root.join("licence");
    machine.start();
    let words = ["begin", text(&machine.home), "--package", text(&package), "--silent"];
    let more = ["--licence", text(&licence), "--default-source", "web=kafka"];
    machine
        .run(&[&words[..], &["--licence", text(&licence), "--default-source", "web=rdbms"]].concat())
        .explains(2, &["RDBMS cannot be one"]);
    let ran = machine.run(&[&words[..], &more].concat()).expect_code(0);
    assert!(ran.stdout.contains("Choose a default data source"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  web: has Hive, Kafka; you said `kafka`"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("  sales: has"), "{}", ran.stdout);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);

    // A migration that fails ends the wait, which has no end of its own here.
    let new = machine.knobs.of_version(&machine.options.new_version);
    new.set(Knob::Migrates, "fails").unwrap();
    let failed = machine.run(&[&words[..], &more].concat());
    failed
        .explains(4, &["could not migrate the metadata", "ProjectDictionaryMigrationCLI FIX", "kytx abort"]);
    new.unset(Knob::Migrates).unwrap();
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(version(&machine).contains("2.5.3") && machine.is_ready());
}

#[test]
fn a_script_makes_the_environment_in_which_programs_are_found() {
    let machine = Machine::new(&options());
    let over = machine.real_home.join("conf/kylin.properties.override");
    let settings = fs::read_to_string(&over).unwrap();
    fs::write(&over, format!("{settings}kap.kerberos.enabled=true\nkap.kerberos.platform=FI\n")).unwrap();
    on_upgrade(&machine, "check", &[]).expect_code(3);
    let client = machine.root.join("client");
    fs::create_dir(&client).unwrap();
    fs::write(client.join("klist"), "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(client.join("klist"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = machine.root.join("bigdata_env");
    fs::write(&script, format!("echo welcome\nexport PATH={}:$PATH\n", text(&client))).unwrap();
    let found: Ran =
        on_upgrade(&machine, "check", &["--env-script", text(&script), "--jobs-finished"]).expect_code(0);
    assert!(!found.stdout.contains("welcome") && found.stderr.contains("welcome"), "{}", found.stdout);
    fs::write(&script, "false\n").unwrap();
    let failed = on_upgrade(&machine, "check", &["--env-script", text(&script)]).expect_code(3);
    assert!(failed.stderr.contains("the environment script failed"), "{}", failed.stderr);
}
