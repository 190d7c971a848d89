//! What an abort says before it starts; the lines of the product's script; kytx called as that script is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::support::commands::{begin, on_home, on_upgrade, outside, text, typed, version};
use super::support::snapshot::assert_same_tree;
use super::support::{Machine, Ran, options};

#[test]
fn an_abort_says_per_part_what_comes_back_and_what_is_lost_and_then_asks() {
    let machine = Machine::new(&options().major());
    machine.start();
    begin(&machine, &["--stop-before", "exchange-trees"]).expect_code(4);
    let early = on_home(&machine, "abort", &["--dry-run"]).expect_code(0).stdout;
    for line in
        ["home: 3.3.3.2028-GA is there", "untouched, as the new release was never started", "started again"]
    {
        assert!(early.contains(line), "no `{line}` in:\n{early}");
    }
    on_home(&machine, "resume", &[]).expect_code(0);
    let before = outside(&machine);
    let late = typed(&machine, &["abort", text(&machine.home)], "no\n").explains(3, &["not aborted"]);
    for line in [
        "home: 3.3.3.2028-GA comes back whole",
        "metadata: restored exactly from `",
        "lost is every project, model, cube, job, user and right",
        "lost is every segment that was built or merged since",
        "jobs that were discarded before the upgrade stay so",
    ] {
        assert!(late.stderr.contains(line), "no `{line}` in:\n{}", late.stderr);
    }
    assert_same_tree(&before, &outside(&machine));
    on_home(&machine, "abort", &["--yes"]).expect_code(0);

    begin(&machine, &["--cube-backup", "none"]).expect_code(0);
    let none = on_home(&machine, "abort", &["--dry-run"]).expect_code(0).stdout;
    assert!(none.contains("cube data: CANNOT BE UNDONE"), "{none}");
}

#[test]
fn a_minor_upgrade_of_a_home_that_was_down_says_so() {
    let machine = Machine::new(&options());
    begin(&machine, &[]).expect_code(0);
    let told = on_home(&machine, "abort", &["--dry-run"]).expect_code(0).stdout;
    assert!(told.contains("cube data: not touched"), "{told}");
    assert!(told.contains("service: was down before the upgrade, and stays down"), "{told}");
}

fn audit_log(machine: &Machine) -> Option<String> {
    let names = fs::read_dir(machine.home.join("logs")).unwrap().map(|entry| entry.unwrap().file_name());
    let name = names.filter_map(|name| name.into_string().ok()).find(|name| name.starts_with("upgrade-"))?;
    Some(fs::read_to_string(machine.home.join("logs").join(name)).unwrap())
}

#[test]
fn the_lines_of_the_products_script_are_in_the_new_homes_logs_and_go_with_an_abort() {
    let machine = Machine::new(&options());
    machine.start();
    let plan = machine.root.join("agreed.plan");
    on_upgrade(&machine, "plan", &["--audit", "--out", text(&plan)]).expect_code(0);
    begin(&machine, &["--audit", "--plan", text(&plan)]).expect_code(0);
    let security = fs::read_to_string(machine.home.join("logs/security.log")).unwrap();
    let lines: Vec<&str> = security.lines().collect();
    assert_eq!(lines.len(), 2, "{security}");
    assert!(
        lines[0].contains(" INFO : [Operation: upgrade] user:") && lines[0].contains(", upgrade time:20")
    );
    assert!(lines[1].contains("[Operation: upgrade result] user:") && lines[1].ends_with(", success:true"));
    let log = audit_log(&machine).unwrap();
    assert!(
        log.contains("\nBackup location:/") && log.contains("from 3.4.2.2028-GA to 3.4.5.2118-GA"),
        "{log}"
    );
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(!machine.home.join("logs/security.log").exists() && audit_log(&machine).is_none());
    begin(&machine, &[]).expect_code(0);
    assert!(audit_log(&machine).is_none(), "only where it was asked for");
}

/// Calls a script as an operator or another program does.
fn call(machine: &Machine, script: &std::path::Path, words: &[&str], home: Option<&str>) -> Ran {
    let mut command = Command::new(script);
    command
        .args(words)
        .env("HOME", &machine.root)
        .env("JAVA_HOME", &machine.java_home)
        .current_dir(&machine.root);
    command.env_remove("KYLIN_HOME");
    if let Some(home) = home {
        command.env("KYLIN_HOME", home);
    }
    Ran::of(&mut command)
}

#[test]
fn kytx_is_called_as_the_products_own_script_is() {
    let mut options = options();
    options.package_dir = true;
    let machine = Machine::new(&options);
    machine.start();
    let package = machine.package_dir.clone().unwrap();
    let printed = machine.run(&["wrapper", text(&package)]).expect_code(0);
    let script = machine.root.join("upgrade.sh");
    fs::write(&script, printed.stdout).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let usage = call(&machine, &script, &[], None).expect_code(1);
    assert!(usage.stderr.contains("Usage: upgrade.sh <OLD_KYLIN_HOME> [--silent]"), "{}", usage.stderr);
    call(&machine, &script, &["/nowhere"], None).expect_code(1);
    // The end of input is no yes.
    call(&machine, &script, &[text(&machine.home)], None).explains(3, &["no confirmation was given"]);
    let ran = call(&machine, &script, &["--silent", "/nowhere", text(&machine.home)], None).expect_code(0);
    assert!(ran.stdout.lines().any(|line| line.starts_with("Backup location:/")), "{}", ran.stdout);
    assert!(audit_log(&machine).is_some());
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    call(&machine, &script, &["--silent"], Some(text(&machine.home))).expect_code(0);
    assert!(version(&machine).contains(machine.options.new_version.as_str()));
    machine.run(&["wrapper", text(&machine.root)]).explains(3, &["no script can be made"]);
}
