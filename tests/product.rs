//! kytx and a product that is real where it can be: the metadata tool of Kylin 3.1.3 over a directory and over a `MariaDB`,
//! Tomcat 7, and Kylin's own server. The parts come from `testbed/product/real`; `tests/run` brings them up.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks into test machines")]

mod product {
    pub mod bed;
    pub mod java;
    pub mod procedure;
    pub mod site;
    pub mod store;
}
mod support;

use std::fs;
use std::time::Instant;

use kytx::effect::os::OsFs;
use kytx::kyligence::home::Home;
use kytx::kyligence::properties::Properties;

use product::bed::Bed;
use product::java::{Java, Reading, generate, is_read_in_two_ways};
use product::procedure::{Before, Killed, assert_same_entries};
use product::site::{Plan, Product, Site};
use product::store::{Kind, LARGE, files};
use support::census::{exhaustive, seed};
use support::random::Random;

/// The bed, for a test that takes too long for a share of the run.
fn find_if_exhaustive(test: &str) -> Option<Bed> {
    if exhaustive() {
        return Bed::find(test);
    }
    println!("SKIPPED {test}: only with KYTX_EXHAUSTIVE=1");
    None
}

#[test]
fn the_tool_says_and_returns_what_the_original_does() {
    let Some(bed) = Bed::find("the_tool_says_and_returns_what_the_original_does") else { return };
    for store in [Kind::Directory, Kind::Database] {
        let site = Site::new(&bed, Plan::new(Product::Ke, store));
        site.fill();
        let entries = site.entries();
        assert_eq!(entries.len(), 3 + 40 + 6, "{store:?} {:?}", entries.keys());
        let ran = site.script("metastore.sh", &["backup"]).expect_code(0);
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix("Metadata backed up to "));
        let dir = std::path::PathBuf::from(line.unwrap_or_else(|| panic!("{ran:?}")));
        let mut backup = files(&dir);
        assert!(backup.remove("/UUID").is_some(), "it has a name of its own");
        assert_eq!(backup, entries, "content and times");

        // One level below a folder, sorted; what is no folder, or holds no entry, is nothing.
        let list = |folder: &str| site.script("metastore.sh", &["list", folder]).expect_code(0).stdout;
        assert!(
            list("/").ends_with("\n[/UUID, /dict, /execute, /execute_output, /project]\n"),
            "{}",
            list("/")
        );
        let projects = "[/project/finance.json, /project/sales.json, /project/web.json]";
        assert_eq!(list("/project"), format!("Starting list /project\n{projects}\n"));
        assert_eq!(list("/dict"), "Starting list /dict\n[/dict/DB.T]\n");
        for nothing in ["/UUID", "/nothing"] {
            assert_eq!(list(nothing), format!("Starting list {nothing}\nnull\n"));
        }

        // What is not in a backup stays: a restore lays over.
        site.script("metastore.sh", &["remove", "/project/web.json"]).expect_code(0);
        let dir = dir.to_str().unwrap();
        let ran = site.script("metastore.sh", &["restore", dir]).expect_code(0);
        assert!(ran.stdout.contains(&format!("Metadata restored from {dir}")), "{}", ran.stdout);
        assert_eq!(site.entries(), entries);
        site.script("metastore.sh", &["reset"]).expect_code(0);
        assert!(site.entries().is_empty(), "{:?}", site.entries());
        site.script("metastore.sh", &["restore", dir]).expect_code(0);
        assert_eq!(site.entries(), entries);

        // Codes that say nothing.
        let ran = site.script("metastore.sh", &["restore"]).expect_code(0);
        assert!(!ran.stdout.contains("Metadata restored from"), "{}", ran.stdout);
        let empty = site.root.join("empty");
        fs::create_dir(&empty).unwrap();
        site.script("metastore.sh", &["restore", empty.to_str().unwrap()]).expect_code(0);
        assert_eq!(files(&empty).into_keys().collect::<Vec<_>>(), ["/UUID"]);
        site.script("metastore.sh", &["restore", "/no/such/directory"]).expect_code(1);
        site.knobs("JAVA=/no/such/java\n");
        let ran = site.script("metastore.sh", &["backup"]).expect_code(0);
        assert!(ran.stdout.contains("metadata store backed up to"), "{}", ran.stdout);
        assert!(!ran.stdout.contains("Metadata backed up to"), "{}", ran.stdout);
        assert_eq!(site.entries(), entries);
    }
}

/// A whole upgrade, a project made in the new release, and the whole way back, killed all along.
fn upgrade_and_abort(bed: &Bed, plan: Plan, layer: &str) {
    let site = Site::new(bed, plan);
    site.fill();
    site.start();
    let before = Before::of(&site);
    let working_dir = site.property("kylin.env.hdfs-working-dir");
    assert_eq!(working_dir, format!("file://{}", site.store.working().parent().unwrap().display()));
    let mut killed = Killed::new(&site, layer);
    killed.upgrade(&[]);
    assert_eq!(site.property("kylin.env.hdfs-working-dir"), working_dir, "as Kylin reads it in the new home");
    assert_same_entries(&before.entries, &site.entries());
    assert!(site.version().contains("3.1.3"), "{}", site.version());
    assert_eq!(site.projects(), before.projects);
    site.assert_no_password_is_kept();
    site.make_project("made_in_the_new_release");
    site.script("metastore.sh", &["remove", &format!("/{LARGE}")]).expect_code(0);
    assert!(site.projects().contains(&"made_in_the_new_release".to_owned()));
    killed.abort();
    before.assert_back(&site);
    site.assert_no_password_is_kept();
    killed.publish();
}

#[test]
fn i3_an_upgrade_of_ke_with_its_metadata_in_a_database_survives_kills_both_ways() {
    let test = "i3_an_upgrade_of_ke_with_its_metadata_in_a_database_survives_kills_both_ways";
    let Some(bed) = Bed::find(test) else { return };
    upgrade_and_abort(&bed, Plan::new(Product::Ke, Kind::Database), "real metadata tool, MariaDB");
}

#[test]
fn i3_an_upgrade_of_kylin_with_its_metadata_in_a_directory_survives_kills_both_ways() {
    let test = "i3_an_upgrade_of_kylin_with_its_metadata_in_a_directory_survives_kills_both_ways";
    let Some(bed) = Bed::find(test) else { return };
    upgrade_and_abort(&bed, Plan::new(Product::Kylin, Kind::Directory), "real metadata tool, directory");
}

// ------------------------------------------------------------------------------------- what a metadata command may do

/// Reference 22.1: a large entry whose file is not found is deleted from the live store, and the backup reports success.
#[test]
fn a_backup_that_would_destroy_the_live_store_is_refused() {
    let Some(bed) = Bed::find("a_backup_that_would_destroy_the_live_store_is_refused") else { return };
    let site = Site::new(&bed, Plan::new(Product::Ke, Kind::Database));
    site.fill();
    let large = format!("/{LARGE}");
    assert!(site.store.large().join(LARGE).exists(), "the content is outside of the database");

    // The instance's folder was moved away: the tool is not even asked.
    let working = site.store.working().to_owned();
    let aside = working.with_file_name("moved");
    fs::rename(&working, &aside).unwrap();
    let ran = site.kytx(&site.begin_words_with_word()).expect_code(3);
    for words in
        ["BLOCK P17: the metadata store cannot be reached: the working directory", working.to_str().unwrap()]
    {
        assert!(ran.stderr.contains(words), "no `{words}`: {}", ran.stderr);
    }
    assert!(site.store.has_row(&bed, &large), "nothing was deleted");
    fs::rename(&aside, &working).unwrap();

    // One file is gone, which nobody can see from outside: the tool says that all is well.
    let file = site.store.large().join(LARGE);
    let kept = site.root.join("kept");
    fs::rename(&file, &kept).unwrap();
    let ran = site.script("metastore.sh", &["backup"]).expect_code(0);
    assert!(
        ran.stdout.contains("Metadata backed up to") && !ran.stdout.contains("Failed to copy"),
        "{ran:?}"
    );
    assert!(!site.store.has_row(&bed, &large), "and it has deleted the entry");

    // The same under kytx, which does not believe it, and names the entry.
    fs::rename(&kept, &file).unwrap();
    let seed = site.root.join("again");
    product::store::seed(&seed, 0);
    site.script("metastore.sh", &["restore", seed.to_str().unwrap()]).expect_code(0);
    fs::remove_file(&file).unwrap();
    let ran = site.kytx(&site.begin_words_with_word());
    let ran = ran.explains(4, &["has deleted entries from the live store", &large, "kytx abort"]);
    assert!(!ran.stderr.contains(product::bed::PASSWORD), "no password is shown");
    site.run("abort", &["--yes"]).expect_code(0);
}

/// Reference 22.2 and 22.3: the tool's Java dies in the middle, and the script says that all is well.
#[test]
fn a_tool_that_dies_half_way_is_noticed_and_its_work_done_again() {
    let Some(bed) = Bed::find("a_tool_that_dies_half_way_is_noticed_and_its_work_done_again") else { return };
    let mut plan = Plan::new(Product::Ke, Kind::Database);
    plan.entries = 600;
    let site = Site::new(&bed, plan);
    site.fill();
    site.start();
    let before = Before::of(&site);

    site.knobs("KILL_JAVA=backup\n");
    let ran = site.kytx(&site.begin_words()).explains(4, &["the line `Metadata backed up to ` is missing"]);
    assert_eq!(site.struck().as_deref(), Some("backup"), "{ran:?}");
    site.run("resume", &[]).expect_code(0);
    site.make_project("made_in_the_new_release");

    site.knobs("KILL_JAVA=reset\n");
    site.run("abort", &["--yes"]).explains(4, &["`metastore.sh reset` failed"]);
    assert_eq!(site.struck().as_deref(), Some("reset"));
    site.knobs("KILL_JAVA=restore\n");
    site.run("resume", &[]).explains(4, &["`metastore.sh restore` failed"]);
    assert_eq!(site.struck().as_deref(), Some("restore"));
    // The database refuses everybody: both commands say so by their code, and nothing is lost.
    site.store.lock(&bed, "lock");
    site.run("resume", &[]).explains(4, &["`metastore.sh reset` failed (exit code 1)"]);
    site.store.lock(&bed, "unlock");
    site.run("resume", &[]).expect_code(0);
    before.assert_back(&site);
}

// --------------------------------------------------------------------------------------------- what a service may do

#[test]
fn an_unfinished_job_of_the_real_store_is_found_over_rest_and_after_the_stop() {
    let test = "an_unfinished_job_of_the_real_store_is_found_over_rest_and_after_the_stop";
    let Some(bed) = Bed::find(test) else { return };
    for product in [Product::Ke, Product::Kylin] {
        let site = Site::new(&bed, Plan::new(product, Kind::Directory));
        site.fill();
        let failed = site.root.join("failed/execute_output");
        fs::create_dir_all(&failed).unwrap();
        let id = "6f1e3c2a-0000-4000-8000-000000000007";
        let output = format!(r#"{{"uuid":"{id}","status":"ERROR","content":"it failed","info":{{}}}}"#);
        fs::write(failed.join(id), output).unwrap();
        site.script("metastore.sh", &["restore", site.root.join("failed").to_str().unwrap()]).expect_code(0);
        site.start();
        let before = Before::of(&site);
        let begin = site.begin_words();
        let ran = site.kytx(&begin).expect_code(3);
        assert!(ran.stderr.contains(&format!("{id} `BUILD 7` (ERROR)")), "{}", ran.stderr);
        // An operator's word is believed until the store is asked: after the stop.
        fs::remove_file(site.home.join("logs/kylin.log")).unwrap();
        let ran = site.kytx(&site.begin_words_with_word()).expect_code(3);
        assert!(ran.stderr.contains(id), "{}", ran.stderr);
        before.assert_back(&site);
        site.kytx(&[&begin[..], &["--discard-jobs"]].concat()).expect_code(0);
        assert!(site.version().contains("3.1.3"));
    }
}

#[test]
fn a_service_that_answers_nonsense_is_not_believed() {
    let Some(bed) = Bed::find("a_service_that_answers_nonsense_is_not_believed") else { return };
    let site = Site::new(&bed, Plan::new(Product::Ke, Kind::Directory));
    site.fill();
    site.start();
    let before = Before::of(&site);
    for (knobs, words) in [
        ("HTTP=503\n", "HTTP status 503"),
        ("HTTP=page\n", "a page instead of data"),
        ("HTTP=cut\n", "no answer on port"),
    ] {
        site.knobs(knobs);
        let ran = site.kytx(&site.begin_words()).expect_code(3);
        assert!(ran.stderr.contains(words), "no `{words}`: {}", ran.stderr);
    }
    site.knobs("");
    before.assert_back(&site);
}

#[test]
fn a_new_release_that_does_not_come_up_is_taken_back() {
    let Some(bed) = Bed::find("a_new_release_that_does_not_come_up_is_taken_back") else { return };
    let mut site = Site::new(&bed, Plan::new(Product::Ke, Kind::Database));
    "15".clone_into(&mut site.start_timeout_s);
    site.fill();
    site.start();
    let before = Before::of(&site);
    // It does not start at all.
    site.knobs("START_FAIL='the environment is not fit'\n");
    site.kytx(&site.begin_words()).explains(4, &["left no service running", "the environment is not fit"]);
    // It starts late, says so late, and never becomes ready.
    site.knobs("START_LATE=1 PID_LATE=1\nREADY_MS=-1\n");
    site.run("abort", &["--yes"]).explains(4, &["did not answer on port", "HTTP status 503"]);
    site.knobs("PID_STAYS=1\n");
    site.run("resume", &[]).expect_code(0);
    before.assert_back(&site);
}

/// A stop that says that it stopped, removes its pid file, ends with 0 and has told nobody anything.
#[test]
fn a_stop_that_lies_is_not_believed() {
    let Some(bed) = Bed::find("a_stop_that_lies_is_not_believed") else { return };
    let site = Site::new(&bed, Plan::new(Product::Ke, Kind::Directory));
    site.fill();
    site.start();
    let before = Before::of(&site);
    let pid: i32 = fs::read_to_string(site.home.join("pid")).unwrap().trim().parse().unwrap();
    site.knobs("STOP_LIES=1\n");
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| site.kytx(&site.begin_words()));
        support::wait_until("the script has said that it stopped", || {
            !site.home.join("pid").exists() || begun.is_finished()
        });
        assert!(support::is_alive(pid) && !begun.is_finished(), "the process lives");
        assert!(!site.home.join("meta_backups").exists(), "nothing is backed up under a service that runs");
        // Somebody else ends it at last: kytx has looked all the time, and goes on.
        let process = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        begun.join().unwrap().expect_code(0);
    });
    site.knobs("");
    assert!(site.version().contains("3.1.3"));
    site.run("abort", &["--yes"]).expect_code(0);
    before.assert_back(&site);
}

/// The way back by what differs, with the real tool on both stores: names, content and times.
#[test]
fn the_real_store_comes_back_by_what_differs() {
    let Some(bed) = Bed::find("the_real_store_comes_back_by_what_differs") else { return };
    for store in [Kind::Directory, Kind::Database] {
        let site = Site::new(&bed, Plan::new(Product::Ke, store));
        site.fill();
        site.start();
        let before = Before::of(&site);
        site.kytx(&site.begin_words()).expect_code(0);
        site.make_project("made_in_the_new_release");
        site.script("metastore.sh", &["remove", &format!("/{LARGE}")]).expect_code(0);
        let changed = site.root.join("changed/project");
        fs::create_dir_all(&changed).unwrap();
        fs::write(changed.join("web.json"), r#"{"name":"web","uuid":"web-0"}"#).unwrap();
        site.script("metastore.sh", &["restore", site.root.join("changed").to_str().unwrap()]).expect_code(0);
        let ran = site.run("abort", &["--yes", "--restore", "difference"]).expect_code(0);
        assert!(ran.stderr.contains("are put back and 1 removed"), "{store:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("did not do"), "{store:?}: {}", ran.stderr);
        before.assert_back(&site);
    }
}

// ------------------------------------------------------------------------------------------------- Kylin's own server

/// What the server answers to a statement.
#[track_caller]
fn query(site: &Site<'_>, sql: &str) -> serde_json::Value {
    let body = serde_json::json!({"sql": sql, "project": "sales", "limit": 10}).to_string();
    let answer = site.ask("POST", "/kylin/api/query", &body).expect("the server answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(value["isException"], false, "{value}");
    value["results"].clone()
}

/// The same with Kylin's own server classes, which takes minutes.
#[test]
fn i3_an_upgrade_of_kylins_own_server_survives_kills_both_ways() {
    let test = "i3_an_upgrade_of_kylins_own_server_survives_kills_both_ways";
    let Some(bed) = find_if_exhaustive(test) else { return };
    upgrade_and_abort(&bed, Plan::new(Product::KylinServer, Kind::Database), "real server, MariaDB");
}

#[test]
fn kylins_own_server_is_upgraded_and_comes_back() {
    let Some(bed) = Bed::find("kylins_own_server_is_upgraded_and_comes_back") else { return };
    let site = Site::new(&bed, Plan::new(Product::KylinServer, Kind::Database));
    site.fill();
    site.start();
    let before = Before::of(&site);
    assert_eq!(before.projects, ["finance", "sales", "web"]);
    let rows = serde_json::json!([["42"]]);
    assert_eq!(query(&site, "select 6 * 7"), rows);
    site.kytx(&site.begin_words()).expect_code(0);
    assert!(site.version().contains("3.1.3"), "{}", site.version());
    site.make_project("made_in_the_new_release");
    assert_eq!(site.projects(), ["finance", "made_in_the_new_release", "sales", "web"]);
    site.run("abort", &["--yes"]).expect_code(0);
    before.assert_back(&site);
    assert_eq!(query(&site, "select 6 * 7"), rows);
}

// --------------------------------------------------------------------------------------------------------------- size

/// Does something and says how long it took.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    println!("{what}: {:.1} s", begun.elapsed().as_secs_f64());
    done
}

/// A home of real jars and a store of fifty thousand entries: a quarter of an hour, so only when everything is asked for.
#[test]
fn a_large_home_and_a_large_store_are_upgraded_and_come_back() {
    let test = "a_large_home_and_a_large_store_are_upgraded_and_come_back";
    let Some(bed) = find_if_exhaustive(test) else { return };
    assert!(bed.jars.join("spark.complete").exists(), "bring the bed up with its part `spark`");
    let plan = Plan { entries: 25_000, jars_inside: true, ..Plan::new(Product::KylinServer, Kind::Database) };
    let site = Site::new(&bed, plan);
    // The tool holds a whole restore in its memory.
    site.knobs("TOOL_MEMORY=3000m SERVER_MEMORY=1000m\n");
    timed("a restore into the empty store", || site.fill());
    timed("a start", || site.start());
    let before = Before::of(&site);
    println!("{} entries", before.entries.len());
    assert!(before.entries.len() > 50_000);
    let ran = timed("begin", || site.kytx(&site.begin_words()).expect_code(0));
    println!("{}", ran.stderr);
    site.make_project("made_in_the_new_release");
    let ran = timed("abort", || site.run("abort", &["--yes"]).expect_code(0));
    println!("{}", ran.stderr);
    before.assert_back(&site);
}

// ------------------------------------------------------------------------------------------------------ its own words

/// kytx goes by the configuration that Kylin goes by: two files, names of long ago, keys that are there twice.
#[test]
fn a_home_is_read_as_kylin_reads_it() {
    let Some(bed) = Bed::find("a_home_is_read_as_kylin_reads_it") else { return };
    let site = Site::new(&bed, Plan::new(Product::Kylin, Kind::Directory));
    let (new, old) = ("kylin.env.hdfs-working-dir", "kylin.hdfs.working.dir");
    for (file, over) in [
        (String::new(), String::new()),
        (format!("{new} = /a b \n"), String::new()),
        (format!("{new}=/a\n {new} : /tw\\u006f\n"), String::new()),
        (format!("{new}=/a\n"), format!("{new}=/b\\\n   c\n")),
        (format!("{old}=/a\n"), String::new()),
        (format!("{old}=/a\n{new}=/b\n"), String::new()),
        (format!("{new}=/a\n{old}=/b\n"), String::new()),
        (format!("{new}=/a\n{old}=/b\n{new}=/c\n"), String::new()),
        (format!("{old}=/a\n{new}=/b\n{old}=/c\n"), String::new()),
        (format!("{new}=/a\n"), format!("{old}=/b\n")),
        (format!("{old}=/a\n{new}=/b\n"), format!("{old}=/c\n")),
        (format!("{new}=/a\n{old}=/b\n"), format!("{new}=/c\n")),
    ] {
        let url = format!("kylin.metadata.url={}\n", site.store.url(&bed));
        fs::write(site.home.join("conf/kylin.properties"), url + &file).unwrap();
        fs::write(site.home.join("conf/kylin.properties.override"), &over).unwrap();
        let home = Home::recognise(&OsFs, &site.home).unwrap();
        let ours = home.property(new).unwrap_or("/kylin");
        assert_eq!(ours, site.property(new), "{file:?} and {over:?}");
    }
}

/// kytx reads properties files as Java does, whatever is in them.
#[test]
fn properties_are_read_as_java_reads_them() {
    let Some(bed) = Bed::find("properties_are_read_as_java_reads_them") else { return };
    println!("KYTX_SEED={}", seed());
    let mut random = Random::new(seed());
    let mut java = Java::start(&bed);
    let (mut compared, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    for _ in 0..if exhaustive() { 500_000 } else { 20_000 } {
        let file = generate(&mut random);
        match java.read(&file) {
            Reading::Pairs(_) if is_read_in_two_ways(&file) => {}
            Reading::Pairs(pairs) => {
                compared += 1;
                let ours = Properties::parse(&file).to_map();
                if ours != pairs {
                    wrong.push(format!("`{}`: Java {pairs:?}, kytx {ours:?}", file.escape_ascii()));
                }
            }
            Reading::Refused => refused += 1,
            Reading::NoText => {}
        }
    }
    println!("properties files compared with Java: {compared}; refused by Java: {refused}");
    wrong.sort_by_key(|line: &String| (line.len(), line.clone()));
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{} differ, the shortest:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(60)].join("\n")
    );
    assert!(compared > refused && refused > 0, "the generator makes both kinds of file");
}
