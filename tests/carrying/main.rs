//! Carrying an operator's settings over: whose value wins, files merged by their values, keys with a new name, paths that
//! lead into the package, and what is left to be done by hand.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]

mod laws;

#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use support::commands::{begin, on_home, on_upgrade, outside, text, typed, version};
use support::snapshot::assert_same_tree;
use support::{Machine, options};

/// A machine whose two packages lie there unpacked, to be changed by a test.
struct Site {
    machine: Machine,
    old: PathBuf,
    new: PathBuf,
}

impl Site {
    fn new() -> Self {
        let mut options = options();
        options.old_package = true;
        let machine = Machine::new(&options);
        let unpack = |archive: &Path| {
            let dir = machine.root.join("unpacked");
            fs::create_dir_all(&dir).unwrap();
            tar::Archive::new(GzDecoder::new(File::open(archive).unwrap())).unpack(&dir).unwrap();
            dir.join(archive.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz"))
        };
        let old = unpack(machine.old_package.as_deref().unwrap());
        let new = unpack(&machine.package);
        Self { machine, old, new }
    }

    /// The same file in old package, home and new package.
    fn put(&self, path: &str, base: &str, ours: &str, theirs: &str) {
        for (dir, content) in [(&self.old, base), (&self.machine.real_home, ours), (&self.new, theirs)] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn words<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec![command, text(&self.machine.home), "--package", text(&self.new)];
        words.extend(["--old-package", text(&self.old)]);
        words.extend(more);
        words
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.machine.home.join(path)).unwrap()
    }
}

const JOB: &str = "<configuration>\n  <property><name>mapreduce.map.memory.mb</name><value>3072</value></property>\n  \
                   <property><name>dfs.replication</name><value>2</value></property>\n</configuration>\n";

const SERVER: &str = "<Server port=\"9005\">\n  <Connector port=\"7070\" protocol=\"HTTP/1.1\"/>\n  <Connector \
                      port=\"7443\" protocol=\"HTTPS\" keystorePass=\"changeit\"/>\n</Server>\n";

const JOB_PATH: &str = "conf/profile_prod/kylin_job_conf.xml";

#[test]
fn xml_is_merged_value_by_value_with_the_old_package_and_carried_whole_without() {
    let site = Site::new();
    let theirs = JOB.replace(">2<", ">3<").replace("<configuration>", "<configuration>\n  <!-- new -->");
    site.put(JOB_PATH, JOB, &JOB.replace("3072", "8192"), &theirs);
    let port = site.machine.port.to_string();
    let ours = SERVER.replace("7070", &port).replace("changeit", "geheim");
    let newer = SERVER.replace("<Server port=\"9005\"", "<Server port=\"9005\" address=\"localhost\"");
    site.put("tomcat/conf/server.xml", SERVER, &ours, &newer);
    let plan = site.machine.run(&site.words("plan", &["--diff"])).expect_code(0).stdout;
    for line in [
        &format!("`{JOB_PATH}`, value by value:"),
        "  mapreduce.map.memory.mb: 8192 | 3072 -> 8192 (your value is kept)",
        "  dfs.replication: 2 | 3 -> 3 (the new release's value)",
        "-  <property><name>dfs.replication</name><value>2</value></property>",
        "+  <property><name>dfs.replication</name><value>3</value></property>",
    ] {
        assert!(plan.lines().any(|found| found == line), "no `{line}` in:\n{plan}");
    }
    assert!(!plan.contains("geheim"), "{plan}");

    let words = site.words("begin", &["--silent", "--no-start"]);
    site.machine.run(&words).expect_code(0);
    assert_eq!(site.read(JOB_PATH), theirs.replace("3072", "8192"));
    assert_eq!(
        site.read("tomcat/conf/server.xml"),
        newer.replace("7070", &port).replace("changeit", "geheim")
    );
    on_home(&site.machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(site.read("tomcat/conf/server.xml"), ours);

    // Without the old package nobody can tell whose the values are: the file stays the operator's.
    let words = ["begin", text(&site.machine.home), "--package", text(&site.new), "--silent", "--no-start"];
    site.machine.run(&words).expect_code(0);
    assert_eq!(site.read(JOB_PATH), JOB.replace("3072", "8192"));
    assert_eq!(site.read("tomcat/conf/server.xml"), ours);
}

#[test]
fn another_tomcat_leaves_its_settings_to_be_redone_and_the_report_says_which() {
    let site = Site::new();
    site.put("tomcat/conf/server.xml", SERVER, &SERVER.replace("7070", "8080"), SERVER);
    fs::write(site.new.join("tomcat/RELEASE-NOTES"), "Apache Tomcat Version 8.5.51\n").unwrap();
    let ran = site.machine.run(&site.words("begin", &["--silent", "--no-start"])).expect_code(0);
    let report = [
        "To be done by hand in `",
        "  tomcat/conf/server.xml: Tomcat settings: Tomcat is 7.0.100 in the old release and 8.5.51 in the new one",
        "    Server/Connector@port: old 8080 | new 7070",
    ];
    for line in report {
        assert!(ran.stdout.contains(line), "no `{line}` in:\n{}", ran.stdout);
    }
    assert_eq!(site.read("tomcat/conf/server.xml"), SERVER);
    // Who comes later is told the same.
    let again = on_home(&site.machine, "resume", &[]);
    assert!(again.stdout.contains(report[2]), "{}\n{}", again.stdout, again.stderr);
}

fn set(path: &Path, key: &str, value: &str) {
    let text = fs::read_to_string(path).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(&format!("{key}="))).collect();
    fs::write(path, format!("{}\n{key}={value}\n", kept.join("\n"))).unwrap();
}

/// One key that both sides changed, in the file that counts.
fn conflict(site: &Site) {
    let path = "conf/profile_prod/kylin.properties";
    for (dir, value) in [(&site.old, "1"), (&site.machine.real_home, "mine"), (&site.new, "2")] {
        set(&dir.join(path), "kylin.contested", value);
    }
}

#[test]
fn whose_value_wins_is_said_by_option_or_asked() {
    let site = Site::new();
    conflict(&site);
    let value = || {
        let text = site.read("conf/kylin.properties");
        text.lines().find_map(|line| line.strip_prefix("kylin.contested=")).map(str::to_owned).unwrap()
    };
    let begun = |more: &[&str], input: &str| {
        let ran = typed(&site.machine, &site.words("begin", &[&["--no-start"], more].concat()), input);
        let ran = ran.expect_code(0);
        let value = value();
        on_home(&site.machine, "abort", &["--yes"]).expect_code(0);
        (value, ran.stderr)
    };
    assert_eq!(begun(&["--silent"], "").0, "mine");
    assert_eq!(begun(&["--silent", "--merge", "theirs"], "").0, "2");
    let (asked, told) = begun(&["--merge", "ask"], "perhaps\nt\nyes\n");
    assert_eq!(asked, "2");
    assert!(told.contains("conf/profile_prod/kylin.properties: kylin.contested"), "{told}");
    assert!(told.contains("the old package had: 1") && told.contains("yours:               mine"), "{told}");
    assert_eq!(begun(&["--merge", "ask"], "o\nyes\n").0, "mine");

    let before = outside(&site.machine);
    let plan = site.machine.run(&site.words("plan", &["--merge", "ask"])).expect_code(0);
    assert!(
        plan.stdout.contains("kylin.contested: 1 | yours mine | new 2 (will be asked)"),
        "{}",
        plan.stdout
    );
    typed(&site.machine, &site.words("begin", &["--merge", "ask"]), "").explains(3, &["whose value wins"]);
    site.machine
        .run(&site.words("begin", &["--merge", "ask", "--silent"]))
        .explains(2, &["do not go together"]);
    // Where the old package is not known, the old value may be the operator's.
    on_upgrade(&site.machine, "plan", &["--merge", "theirs"]).expect_code(2);
    assert_same_tree(&before, &outside(&site.machine));
}

/// A jar with one member, stored.
fn jar(name: &str, content: &[u8]) -> Vec<u8> {
    let number = |value: usize, width: usize| value.to_le_bytes()[..width].to_vec();
    let fields = [
        vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        number(content.len(), 4).repeat(2),
        number(name.len(), 2),
    ];
    let fields = [fields.concat(), vec![0, 0]].concat();
    let local = [b"PK\x03\x04".to_vec(), fields.clone(), name.into(), content.to_vec()].concat();
    let entry = [b"PK\x01\x02\x14\0".to_vec(), fields, vec![0; 10], number(0, 4), name.into()].concat();
    let end = [
        b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec(),
        number(entry.len(), 4),
        number(local.len(), 4),
        vec![0, 0],
    ];
    [local, entry, end.concat()].concat()
}

#[test]
fn an_operators_value_follows_its_key_to_the_name_it_has_in_the_new_release() {
    let site = Site::new();
    let path = "conf/profile_prod/kylin.properties";
    set(&site.old.join(path), "kap.storage.old", "1");
    set(&site.machine.real_home.join(path), "kap.storage.old", "mine");
    set(&site.new.join(path), "kylin.storage.fresh", "1");
    let over = site.machine.real_home.join("conf/kylin.properties.override");
    set(&over, "kap.web.timezone", "GMT+8");
    let table = b"kap.storage.old=kylin.storage.fresh\nkap.web.=kylin.web.\n";
    let tool = format!("tool/kylin-tool-{}.jar", site.machine.options.new_version);
    fs::write(site.new.join(tool), jar("kylin-backward-compatibility.properties", table)).unwrap();
    let words = site.words("begin", &["--silent", "--no-start"]);
    let ran = site.machine.run(&words).expect_code(0);
    assert!(
        ran.stderr.contains("kylin.storage.fresh (formerly kap.storage.old): mine | 1 -> mine"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("`kap.web.timezone` is called `kylin.web.timezone`"), "{}", ran.stderr);
    let merged = site.read("conf/kylin.properties");
    assert!(merged.contains("kylin.storage.fresh=mine") && !merged.contains("kap.storage.old"), "{merged}");
    // The operator's own file is theirs.
    assert!(site.read("conf/kylin.properties.override").contains("kap.web.timezone=GMT+8"));
}

#[test]
fn configuration_that_names_the_unpack_path_blocks() {
    let machine = Machine::new(&options());
    let over = machine.real_home.join("conf/kylin.properties.override");
    let top = machine.package.file_name().unwrap().to_str().unwrap().trim_end_matches(".tar.gz").to_owned();
    set(&over, "kap.kerberos.keytab-path", &format!("/data/{top}/conf/user.keytab"));
    set(&over, "kylin.server.mode", "query");
    set(&over, "kylin.server.cluster-servers", "node1:7070,node2:7070");
    let ran = on_upgrade(&machine, "check", &[]).expect_code(3);
    assert!(
        ran.stdout.contains("BLOCK C1:") && ran.stdout.contains("kylin.properties.override`, line"),
        "{}",
        ran.stdout
    );
    let plan = on_upgrade(&machine, "plan", &[]).expect_code(3).stdout;
    assert!(
        plan.contains("means something on this host only: `kylin.server.cluster-servers=node1:7070"),
        "{plan}"
    );
    begin(&machine, &["--no-start"]).explains(3, &["C1"]);
    begin(&machine, &["--no-start", "--override", "C1=a mount of this name stays"]).expect_code(0);
    assert!(version(&machine).contains(machine.options.new_version.as_str()));
}
