//! What scripts may rely on: the options, the JSON, the lines on standard output, the exit codes.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;

use support::commands::{begin, metadata, on_home, on_upgrade, state_dir, status, step_state, text, version};
use support::snapshot::{Snapshot, assert_same_tree};
use support::{Machine, Ran, options};

use kytx::testbed::Knob;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}:\n{}", ran.stdout))
}

/// Checks that an object has exactly these fields, of these types: `s`tring, `n`umber, `b`ool, `a`rray, `o`bject,
/// nul`l`, or one of several.
#[track_caller]
fn has_fields(object: &Value, fields: &[(&str, &str)]) {
    let object = object.as_object().expect("an object");
    let mut names: Vec<&str> = object.keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, types) in fields {
        let found = match &object[*name] {
            Value::Null => 'l',
            Value::Bool(_) => 'b',
            Value::Number(_) => 'n',
            Value::String(_) => 's',
            Value::Array(_) => 'a',
            Value::Object(_) => 'o',
        };
        assert!(types.contains(found), "`{name}` is {}", object[*name]);
    }
}

const STATUS: [(&str, &str); 12] = [
    ("schema", "s"),
    ("transaction", "s"),
    ("phase", "s"),
    ("outcome", "ls"),
    ("home", "s"),
    ("old_version", "s"),
    ("new_version", "s"),
    ("sentence", "s"),
    ("steps", "a"),
    ("next", "a"),
    ("holder", "lo"),
    ("journal", "o"),
];

/// `status --json`, checked.
#[track_caller]
fn checked_status(machine: &Machine, phase: &str, outcome: Option<&str>, next: &[&str]) -> Value {
    let status = status(machine);
    has_fields(&status, &STATUS);
    assert_eq!(status["schema"], "kytx.status.v1");
    assert_eq!(status["phase"], phase);
    assert_eq!(status["outcome"].as_str(), outcome);
    assert_eq!(status["home"], text(&machine.real_home));
    assert_eq!(status["old_version"], machine.options.old_version.as_str());
    assert_eq!(status["new_version"], machine.options.new_version.as_str());
    let home = text(&machine.real_home);
    let commands: Vec<String> = next.iter().map(|command| format!("kytx {command} {home}")).collect();
    assert_eq!(status["next"], serde_json::json!(commands));
    for (number, step) in status["steps"].as_array().unwrap().iter().enumerate() {
        has_fields(step, &[("id", "n"), ("name", "s"), ("stage", "s"), ("sentence", "s"), ("state", "s")]);
        assert_eq!(step["id"], number);
        assert!(["apply", "cleanup"].contains(&step["stage"].as_str().unwrap()));
    }
    has_fields(&status["journal"], &[("records", "n"), ("store", "s"), ("twin", "s")]);
    assert_eq!(
        (&status["journal"]["store"], &status["journal"]["twin"]),
        (&"present".into(), &"whole".into())
    );
    status
}

#[track_caller]
fn states(status: &Value, expected: &[(&str, &str)]) {
    for (step, state) in expected {
        assert_eq!(step_state(status, step), *state, "{step}");
    }
}

#[test]
fn status_tells_every_phase() {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &["--stop-before", "stop-service"]).expect_code(4);
    let status = checked_status(&machine, "applying", None, &["resume", "abort"]);
    states(
        &status,
        &[
            ("stage-tree", "done"),
            ("carry-customisations", "done"),
            ("stop-service", "pending"),
            ("discard-old-tree", "pending"),
        ],
    );
    let listed = on_home(&machine, "status", &[]).expect_code(0);
    for step in status["steps"].as_array().unwrap() {
        assert!(listed.stdout.contains(step["name"].as_str().unwrap()), "{}", listed.stdout);
    }
    on_home(&machine, "commit", &["--yes"]).explains(8, &["cannot commit", "kytx resume"]);
    on_home(&machine, "resume", &[]).expect_code(0);
    let status = checked_status(&machine, "applied", None, &["commit", "abort"]);
    states(&status, &[("start-service", "done"), ("archive-tree", "done"), ("discard-archive", "pending")]);
    let ran = on_home(&machine, "resume", &[]).expect_code(0);
    assert!(ran.stdout.contains("not yet committed"));

    machine.knobs.set(Knob::RestoreMode, "half").unwrap();
    on_home(&machine, "abort", &["--yes"]).expect_code(4);
    let status = checked_status(&machine, "aborting", None, &["resume"]);
    states(
        &status,
        &[
            ("start-service", "undone"),
            ("exchange-trees", "undone"),
            ("hand-over-data", "undoing"),
            ("stop-service", "done"),
        ],
    );
    on_home(&machine, "commit", &["--yes"]).explains(8, &["cannot commit"]);
    machine.knobs.set(Knob::RestoreMode, "ok").unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    let status = checked_status(&machine, "ended", Some("aborted"), &[]);
    states(&status, &[("stage-tree", "undone"), ("discard-old-tree", "pending")]);
}

#[test]
fn what_was_found_is_told_and_stays() {
    // The service does not run: stopping it is found done, and an abort does not start it.
    let machine = Machine::new(&options());
    begin(&machine, &["--no-start"]).expect_code(0);
    let status = checked_status(&machine, "applied", None, &["commit", "abort"]);
    states(&status, &[("stop-service", "found"), ("exchange-trees", "done")]);
    assert!(!status["steps"].to_string().contains("start-service"));
    assert!(!machine.is_ready());
    assert!(version(&machine).contains("3.4.5"));
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(!machine.is_ready());
    assert!(version(&machine).contains("3.4.2"));
}

#[test]
fn standard_output_holds_results_and_the_last_line_says_what_follows() {
    let machine = Machine::new(&options());
    machine.start();
    let ran = begin(&machine, &[]).expect_code(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let home = text(&machine.real_home);
    // Before them: the service, what must not be done, what is to be done by hand.
    assert!(lines[0].starts_with("Service in order: ") && lines[1].starts_with("Until the commit"));
    let lines = &lines[lines.len() - 3..];
    assert_eq!(lines[0], format!("Backup location:{home}.backup.tar.gz"));
    let numbers: Vec<f64> = lines[1].split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(lines[1].starts_with("Downtime: ") && numbers.len() == 3, "{}", lines[1]);
    assert!(numbers[1] <= numbers[0] + 0.06 && numbers[2] <= numbers[0] + 0.06, "{}", lines[1]);
    assert!(lines[2].contains("upgraded from 3.4.2.2028-GA to 3.4.5.2118-GA and not yet committed"));
    assert!(
        lines[2].ends_with(&format!("Then: `kytx commit {home}` or `kytx abort {home}`.")),
        "{}",
        lines[2]
    );
    let ran = on_home(&machine, "commit", &["--yes"]).expect_code(0);
    assert!(ran.stdout.contains("is committed") && ran.stdout.contains("Freed "), "{}", ran.stdout);
    checked_status(&machine, "ended", Some("committed"), &[]);
}

#[test]
fn plan_check_verify_and_log_have_their_json() {
    let machine = Machine::new(&options().major());
    machine.start();
    let before = Snapshot::take(&machine.root, &[]);
    let plan = json(&on_upgrade(&machine, "plan", &["--json"]).expect_code(0));
    has_fields(
        &plan,
        &[
            ("schema", "s"),
            ("header", "o"),
            ("kind", "s"),
            ("steps", "a"),
            ("plan", "s"),
            ("carry", "o"),
            ("properties", "a"),
            ("findings", "a"),
            ("remarks", "a"),
        ],
    );
    assert_eq!((&plan["schema"], &plan["kind"]), (&"kytx.plan.v1".into(), &"major".into()));
    let check = json(&on_upgrade(&machine, "check", &["--json"]).expect_code(0));
    has_fields(
        &check,
        &[
            ("schema", "s"),
            ("home", "s"),
            ("old_version", "s"),
            ("new_version", "s"),
            ("blocked", "b"),
            ("findings", "a"),
        ],
    );
    assert_eq!((&check["schema"], &check["blocked"]), (&"kytx.check.v1".into(), &false.into()));
    for finding in check["findings"].as_array().unwrap() {
        has_fields(
            finding,
            &[
                ("id", "s"),
                ("severity", "s"),
                ("certain", "s"),
                ("overridable", "b"),
                ("what", "s"),
                ("fix", "s"),
            ],
        );
    }
    let words = ["check", text(&machine.home), "--package", text(&machine.package)];
    on_upgrade(&machine, "plan", &[]).expect_code(0);
    machine.run(&words).expect_code(0);
    // `plan` and `check` leave no trace.
    assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));

    begin(&machine, &[]).expect_code(0);
    let planned: Vec<&Value> = plan["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    let done = status(&machine);
    let names: Vec<&Value> = done["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(planned, names);
    for (level, flag) in
        [("standard", None), ("quick", Some("--quick")), ("deep", Some("--deep")), ("drill", Some("--drill"))]
    {
        let mut more = vec!["--json"];
        more.extend(flag);
        let verified = json(&on_home(&machine, "verify", &more).expect_code(0));
        has_fields(&verified, &[("schema", "s"), ("level", "s"), ("damaged", "b"), ("backups", "a")]);
        assert_eq!((&verified["schema"], &verified["level"]), (&"kytx.verify.v1".into(), &level.into()));
        let backups = verified["backups"].as_array().unwrap();
        assert!(backups.len() >= 3, "archive, metadata, cube data: {verified}");
        for backup in backups {
            has_fields(backup, &[("backup", "s"), ("findings", "a")]);
        }
    }
    let log = on_home(&machine, "log", &["--json"]).expect_code(0);
    let records: Vec<Value> = log.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record["lsn"], number + 1);
        assert_eq!(record["chain"].as_str().unwrap().len(), 64);
        assert!(record["record"].is_string());
    }
    assert_eq!(
        (&records[0]["record"], &records[0]["home"]),
        (&"begin".into(), &text(&machine.real_home).into())
    );
    assert_eq!(done["journal"]["records"], records.len());
    assert_eq!(on_home(&machine, "log", &[]).expect_code(0).stdout.lines().count(), records.len());

    let archive = format!("{}.backup.tar.gz", text(&machine.real_home));
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let verified = json(&on_home(&machine, "verify", &["--json"]).expect_code(6));
    assert_eq!(verified["damaged"], true);
}

#[test]
fn the_home_is_taken_from_the_environment() {
    let machine = Machine::new(&options());
    machine.start();
    let run = |words: &[&str]| -> Ran {
        let mut command: Command = machine.kytx(words);
        Ran::of(command.env("KYLIN_HOME", &machine.home))
    };
    run(&["plan", "--package", text(&machine.package)]).expect_code(0);
    run(&["begin", "--package", text(&machine.package), "--silent"]).expect_code(0);
    run(&["status"]).expect_code(0);
    run(&["verify"]).expect_code(0);
    run(&["log"]).expect_code(0);
    run(&["abort", "--yes"]).expect_code(0);
    run(&["resume"]).expect_code(8);
}

#[test]
fn the_state_directory_may_be_elsewhere() {
    let machine = Machine::new(&options());
    machine.start();
    let dir = machine.root.join("elsewhere");
    let more = ["--state-dir", text(&dir)];
    let ran = begin(&machine, &more).expect_code(0);
    assert!(!state_dir(&machine).join("journal.log").exists());
    assert!(dir.join("journal.log").exists());
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.contains(&format!("--state-dir {}", text(&dir))), "{last}");
    // The home's own place says where it is.
    let found = on_home(&machine, "status", &[]).expect_code(0);
    assert_eq!(found, on_home(&machine, "status", &more).expect_code(0));
    // The state directory alone is enough: it knows its home.
    machine.run(&["verify", "--state-dir", text(&dir)]).expect_code(0);
    machine.run(&["abort", "--yes", "--state-dir", text(&dir)]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(&machine).contains("3.4.2"));
}

#[test]
fn the_archive_may_be_made_before_or_not_at_all() {
    let machine = Machine::new(&options());
    machine.start();
    let archive = machine.real_home.with_file_name("kyligence.backup.tar.gz");
    begin(&machine, &["--archive", "none"]).expect_code(0);
    assert!(!archive.exists());
    assert!(!status(&machine)["steps"].to_string().contains("archive"));
    on_home(&machine, "abort", &["--yes"]).expect_code(0);

    begin(&machine, &["--archive", "before", "--stop-before", "exchange-trees"]).expect_code(4);
    assert!(archive.exists());
    on_home(&machine, "verify", &["--deep"]).expect_code(0);
    on_home(&machine, "resume", &[]).expect_code(0);
    let listed = Command::new("tar").arg("-tzf").arg(&archive).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().all(|line| line.starts_with("kyligence/")), "{listed}");
    assert!(listed.contains("kyligence/conf/kylin.properties.override"));
}

#[test]
fn an_old_package_makes_the_merge_three_way() {
    let mut options = options();
    options.old_package = true;
    let machine = Machine::new(&options);
    machine.start();
    let old_package = machine.old_package.clone().unwrap();
    let properties = || fs::read_to_string(machine.home.join("conf/kylin.properties")).unwrap();
    let has = |line: &str| properties().lines().any(|found| found == line);

    begin(&machine, &["--old-package", text(&old_package)]).expect_code(0);
    // Ours stay, the release's untouched defaults move on, its removed keys go, its new keys come.
    assert!(has("kylin.engine.spark-conf.spark.executor.memory=16G"), "{}", properties());
    assert!(has("kylin.job.max-concurrent-jobs=20"), "{}", properties());
    assert!(has("kylin.query.new-planner=true"), "{}", properties());
    assert!(!properties().contains("old-planner"), "{}", properties());
    on_home(&machine, "abort", &["--yes"]).expect_code(0);

    begin(&machine, &[]).expect_code(0);
    assert!(has("kylin.job.max-concurrent-jobs=10"), "{}", properties());
    assert!(has("kylin.query.old-planner=true"), "{}", properties());
    assert!(has("kylin.query.new-planner=true"), "{}", properties());
    on_home(&machine, "commit", &["--yes"]).expect_code(0);

    let words = ["--old-package", text(&machine.package), "--reinstall"];
    on_upgrade(&machine, "plan", &words).expect_code(0);
    on_upgrade(&machine, "plan", &["--old-package", text(&old_package), "--reinstall"])
        .explains(3, &["is not the home's release"]);
}

#[test]
fn ke_4_is_upgraded_and_brought_back() {
    let machine = Machine::new(&options().ke4());
    machine.start();
    let before = metadata(&machine);
    begin(&machine, &[]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(&machine).contains("4.5.7"));
    assert_eq!(
        fs::read_to_string(machine.home.join("server/.keystore")).unwrap(),
        "the operator's key store"
    );
    on_home(&machine, "verify", &["--drill"]).expect_code(0);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(&machine).contains("4.5.6"));
    assert_eq!(metadata(&machine), before);
    begin(&machine, &[]).expect_code(0);
    on_home(&machine, "commit", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
}

#[test]
fn a_home_with_a_blank_in_its_path_is_refused_before_anything_stops() {
    let mut options = options();
    options.blank = true;
    let machine = Machine::new(&options);
    machine.knobs.set(Knob::BlankIsFine, 1).unwrap();
    let pid = machine.start();
    // A knob makes the backup work, so that kytx must see it by itself. The product's metadata tool cannot work there, and reports success all the same.
    let ignored = ["opt with blank/.kytx"];
    let before = Snapshot::take(&machine.root, &ignored);
    begin(&machine, &[]).explains(3, &["blank"]);
    assert_same_tree(&before, &Snapshot::take(&machine.root, &ignored));
    assert!(machine.is_ready());
    assert_eq!(machine.pid(), pid);
}

#[test]
fn a_state_directory_with_a_blank_in_its_path_is_refused() {
    let machine = Machine::new(&options());
    let dir = machine.root.join("my state");
    // An abort could not have the metadata restored from there.
    begin(&machine, &["--state-dir", text(&dir)]).explains(3, &["blank", "--state-dir"]);
    assert!(!dir.exists());
}

#[test]
fn a_dry_abort_says_what_it_would_do_and_does_nothing() {
    let machine = Machine::new(&options().major());
    machine.start();
    begin(&machine, &[]).expect_code(0);
    let before = Snapshot::take(&machine.root, &["calls.log"]);
    let ran = on_home(&machine, "abort", &["--dry-run"]).expect_code(0);
    let lines = ran.stdout.lines().take_while(|line| !line.starts_with("What comes back"));
    let steps: Vec<&str> = lines.skip(1).map(|line| line.trim().split_once(':').unwrap().0).collect();
    let mut reversed: Vec<String> = status(&machine)["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|step| step["stage"] == "apply")
        .map(|step| step["name"].as_str().unwrap().to_owned())
        .collect();
    reversed.reverse();
    assert_eq!(steps, reversed);
    assert_same_tree(&before, &Snapshot::take(&machine.root, &["calls.log"]));
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    on_home(&machine, "abort", &["--dry-run"]).explains(8, &["nothing is open"]);
}

#[test]
fn a_commit_keeps_what_it_is_told_to() {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &[]).expect_code(0);
    on_home(&machine, "commit", &["--yes", "--keep", "nonsense"]).explains(2, &["no step `nonsense`"]);
    on_home(&machine, "commit", &["--yes", "--keep", "stage-tree"]).explains(2, &["deletes nothing"]);
    assert_eq!(status(&machine)["phase"], "applied");
    on_home(&machine, "commit", &["--yes", "--keep", "discard-archive"]).expect_code(0);
    assert!(machine.real_home.with_file_name("kyligence.backup.tar.gz").exists());
    assert!(!state_dir(&machine).join("spare").exists());
    let status = checked_status(&machine, "ended", Some("committed"), &[]);
    states(&status, &[("discard-archive", "kept"), ("discard-old-tree", "done")]);
}

#[test]
fn one_upgrade_follows_another() {
    let machine = Machine::new(&options());
    machine.start();
    let transaction = || status(&machine)["transaction"].as_str().unwrap().to_owned();
    let history = |name: &str| state_dir(&machine).join("history").join(name).exists();
    let archive = machine.real_home.with_file_name("kyligence.backup.tar.gz");
    // After an abort, whose archive stays and is not replaced.
    begin(&machine, &[]).expect_code(0);
    let first = transaction();
    let ran = on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(
        ran.stdout.contains(&format!("Left for you to keep or delete: {}", text(&archive))),
        "{}",
        ran.stdout
    );
    let bytes = fs::read(&archive).unwrap();
    let ran = begin(&machine, &[]).expect_code(0);
    let second = transaction();
    assert_ne!(first, second);
    assert!(history(&first) && !history(&second));
    assert_eq!(fs::read(&archive).unwrap(), bytes);
    let own = machine.real_home.with_file_name(format!("kyligence.{second}.backup.tar.gz"));
    assert!(ran.stdout.contains(&format!("Backup location:{}\n", text(&own))), "{}", ran.stdout);
    assert!(own.exists());
    on_home(&machine, "commit", &["--yes"]).expect_code(0);
    assert!(!own.exists());
    assert_eq!(fs::read(&archive).unwrap(), bytes, "only its own");
    // After a commit.
    begin(&machine, &[]).explains(3, &["--reinstall"]);
    begin(&machine, &["--reinstall"]).expect_code(0);
    assert!(history(&second));
    assert!(machine.is_ready());
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
}

#[test]
fn nothing_open_is_8() {
    let machine = Machine::new(&options());
    let before = Snapshot::take(&machine.root, &IGNORED);
    let commands =
        [("resume", None), ("abort", Some("--yes")), ("abort", Some("--dry-run")), ("commit", Some("--yes"))];
    let all = commands.into_iter().chain([("verify", None), ("status", None), ("log", None)]);
    for (command, more) in all {
        on_home(&machine, command, more.as_slice()).explains(8, &["no upgrade is open", "kytx begin"]);
    }
    assert!(!state_dir(&machine).exists());
    for ending in ["abort", "commit"] {
        begin(&machine, &["--no-start"]).expect_code(0);
        on_home(&machine, ending, &["--yes"]).expect_code(0);
        for (command, more) in commands {
            on_home(&machine, command, more.as_slice()).explains(8, &["kytx status"]);
        }
        on_home(&machine, "verify", &[]).explains(8, &["nothing to verify"]);
        on_home(&machine, "status", &[]).expect_code(0);
        on_home(&machine, "log", &[]).expect_code(0);
        if ending == "abort" {
            // The lock has come and gone in the working directory.
            let after = Snapshot::take(&machine.root, &IGNORED);
            let lines = before.diff_but_dir_times(&after);
            assert!(lines.is_empty(), "{}", lines.join("\n"));
        }
    }
}

/// What kytx leaves by its nature, and what the product's metadata tool leaves in a home.
const IGNORED: [&str; 8] = [
    "opt/.kytx",
    "opt/kyligence.backup.tar.gz",
    "opt/kyligence/bin/cached-*.sh",
    "opt/kyligence/meta_backups",
    "opt/kyligence/logs",
    "calls.log",
    "metadata",
    "hdfs/kylin/kylin_metadata/resources-jdbc",
];
