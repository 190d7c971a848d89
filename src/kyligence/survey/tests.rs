//! Whole homes surveyed, with and without the old package.

use std::collections::BTreeMap;

use super::*;
use crate::effect::fs::Timestamp;

/// A tree in memory: path to content; `-> target` is a link, a path ending in `/` a directory.
struct Fake {
    manifest: Manifest,
    texts: BTreeMap<RawPath, Vec<u8>>,
}

impl Fake {
    fn new(files: &[(&str, &str)], hashed: bool) -> Self {
        let mut kinds: BTreeMap<RawPath, (Kind, &str)> = BTreeMap::new();
        for (path, text) in files {
            for (at, _) in path.match_indices('/') {
                kinds.entry(RawPath::from(&path[..at])).or_insert((Kind::Dir, ""));
            }
            let (kind, text) = match text.strip_prefix("-> ") {
                _ if path.ends_with('/') => continue,
                Some(target) => (Kind::Symlink, target),
                None => (Kind::File, *text),
            };
            kinds.insert(RawPath::from(*path), (kind, text));
        }
        let entries = kinds
            .iter()
            .map(|(path, (kind, text))| Entry {
                path: path.clone(),
                kind: *kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Timestamp::default(),
                size: if *kind == Kind::File { text.len() as u64 } else { 0 },
                hard_link: None,
                target: (*kind == Kind::Symlink).then(|| RawPath::from(*text)),
                xattrs: vec![],
                content: (hashed && *kind == Kind::File).then(|| Digest::of(text.as_bytes())),
            })
            .collect();
        let texts = kinds
            .into_iter()
            .filter(|(_, (kind, _))| *kind == Kind::File)
            .map(|(path, (_, text))| (path, text.as_bytes().to_vec()))
            .collect();
        Self { manifest: Manifest { entries }, texts }
    }
}

struct Case<'a> {
    layout: Layout,
    versions: (&'a str, &'a str),
    old: &'a [(&'a str, &'a str)],
    new: &'a [(&'a str, &'a str)],
    base: Option<&'a [(&'a str, &'a str)]>,
}

impl Case<'_> {
    fn run(&self) -> Survey {
        let (old, new) = (Fake::new(self.old, false), Fake::new(self.new, true));
        let base = self.base.map(|files| Fake::new(files, true));
        let identity = |text: &str| Identity::parse(text.as_bytes()).unwrap();
        let (old_identity, new_identity) = (identity(self.versions.0), identity(self.versions.1));
        let read_old = |path: &RawPath| Ok(old.texts.get(path).cloned());
        let read_new = |path: &RawPath| Ok(new.texts.get(path).cloned());
        let read_base = |path: &RawPath| Ok(base.as_ref().and_then(|base| base.texts.get(path).cloned()));
        survey(&mut SurveyInput {
            layout: self.layout,
            home: &"/opt/kylin".into(),
            unpacked: Some(&"/opt/new".into()),
            old: &old_identity,
            new: &new_identity,
            old_tree: Tree { manifest: &old.manifest, read: &read_old },
            new_tree: Tree { manifest: &new.manifest, read: &read_new },
            base_tree: base.as_ref().map(|base| Tree { manifest: &base.manifest, read: &read_base }),
            top: &"Kyligence-Enterprise-new".into(),
            licence_given: false,
            renames: &Renames::default(),
            decide: &mut |_, _| Side::Ours,
            hash: &mut |path| Ok(Digest::of(&old.texts[path])),
            expect: &mut |path| Ok(Digest::of(path.as_bytes())),
        })
        .unwrap()
    }
}

fn show(survey: &Survey) -> Vec<String> {
    let how = |how: &How| match how {
        How::Copy => "copy".to_owned(),
        How::Link => "link".to_owned(),
        How::Edited { .. } => "edit".to_owned(),
        How::Symlink { target } => format!("-> {target}"),
    };
    let show = |item: &CarryItem| {
        if item.from == item.to {
            format!("{} {}", item.to, how(&item.how))
        } else {
            format!("{} from {} {}", item.to, item.from, how(&item.how))
        }
    };
    survey.list.items.iter().map(show).collect()
}

fn notes(survey: &Survey, kind: NoteKind) -> Vec<String> {
    survey.list.notes.iter().filter(|note| note.kind == kind).map(|note| note.path.to_string()).collect()
}

const KE3: (&str, &str) = ("Kyligence Enterprise 3.4.4.1-GA", "Kyligence Enterprise 3.4.5.2118-GA");

const KE3_NEW: &[(&str, &str)] = &[
    ("LICENSE", "sample"),
    ("bin/kylin.sh", "new"),
    ("conf/kylin.properties", "-> profile/kylin.properties"),
    ("conf/kylin_job_conf.xml", "-> profile/kylin_job_conf.xml"),
    ("conf/kylin_hive_conf.xml", "-> profile/kylin_hive_conf.xml"),
    ("conf/profile", "-> profile_prod"),
    ("conf/profile_min/kylin.properties", "kylin.size=small\n"),
    ("conf/profile_min/kylin_job_conf.xml", "job"),
    ("conf/profile_prod/kylin.properties", "kylin.size=big\nkylin.fresh=1\n"),
    ("conf/profile_prod/kylin_job_conf.xml", "job"),
    ("conf/setenv.sh", "new"),
    ("conf/log4j.properties", "new"),
    ("ext/README", "r"),
    ("spark/conf/spark-env.sh", "new"),
    ("spark/jars/spark-core_2.11-2.4.7.jar", ""),
    ("tomcat/RELEASE-NOTES", "  Apache Tomcat Version 8.5.51\n"),
    ("tomcat/conf/server.xml", "new"),
    ("tomcat/lib/catalina.jar", "new"),
];

#[test]
fn a_tomcat_home_without_the_old_package() {
    let survey = Case {
        layout: Layout::Tomcat,
        versions: KE3,
        old: &[
            ("LICENSE", "==== licence"),
            ("bin/cached-hive.sh", "x"),
            ("bin/kylin.sh", "old"),
            ("bin/own.sh", "x"),
            ("conf/.own", "x"),
            ("conf/kylin.properties", "-> profile/kylin.properties"),
            ("conf/kylin.properties.override", "kylin.keytab=/opt/new/conf/k\nkylin.x=/etc/hadoop/conf\n"),
            ("conf/kylin_job_conf.xml", "-> /opt/kylin/conf/profile/kylin_job_conf.xml"),
            ("conf/kylin_hive_conf.xml", "own content"),
            ("conf/profile", "-> /opt/kylin/conf/profile_min"),
            ("conf/profile_min/kylin.properties", "kylin.size=mine\n"),
            ("conf/profile_min/kylin_job_conf.xml", "my job"),
            ("conf/profile_prod/kylin.properties", "kylin.size=older\n"),
            ("conf/setenv.sh", "old"),
            ("conf/log4j.properties", "old"),
            ("conf/kylin.properties.template", "x"),
            ("conf/user.keytab", "secret"),
            ("ext/driver.jar", "x"),
            ("hadoop-conf/core-site.xml", "-> /etc/hadoop/conf/core-site.xml"),
            ("kybot_dump/dump.zip", "12345"),
            ("logs/kylin.log", "x"),
            ("LOCK", ""),
            ("meta_backups/meta_1/UUID", "x"),
            ("my own/data", "x"),
            ("pid", "1"),
            ("spark/conf/spark-env.sh", "old"),
            ("spark/jars/spark-core_2.11-2.4.1.jar", ""),
            ("spark/jars/own.jar", ""),
            ("tomcat/RELEASE-NOTES", "Apache Tomcat Version 8.5.20"),
            ("tomcat/conf/server.xml", "ports"),
            ("tomcat/lib/jedis-2.0.0.jar", "x"),
            ("tomcat/webapps/kylin/index.html", "x"),
            ("work/x", "x"),
        ],
        new: KE3_NEW,
        base: None,
    }
    .run();
    // `conf/kylin_job_conf.xml` was made absolute, but means what the new release's relative link says.
    assert_eq!(
        show(&survey),
        [
            "LICENSE copy",
            "conf/.own copy",
            "conf/kylin.properties.override copy",
            "conf/kylin_hive_conf.xml copy",
            "conf/profile -> profile_min",
            "conf/profile_min/kylin.properties edit",
            "conf/profile_min/kylin_job_conf.xml copy",
            "conf/setenv.sh copy",
            "conf/user.keytab copy",
            "ext/driver.jar copy",
            "hadoop-conf copy",
            "logs/before-3.4.4.1-GA from logs link",
            "meta_backups link",
            "my own copy",
            "tomcat/conf/server.xml copy",
            "tomcat/lib/jedis-2.0.0.jar copy",
        ]
    );
    let redo = notes(&survey, NoteKind::Redo);
    assert_eq!(
        redo,
        [
            "conf/kylin.properties.override",
            "conf/log4j.properties",
            "conf/profile_prod/kylin.properties",
            "spark/conf/spark-env.sh",
        ]
    );
    assert_eq!(notes(&survey, NoteKind::Left), ["bin", "conf", "kybot_dump", "spark/jars"]);
    assert_eq!(notes(&survey, NoteKind::Mention), ["conf/kylin.properties.override"]);
    let (_, content) = survey.contents.iter().next().unwrap();
    assert_eq!(content, b"kylin.size=mine\n");
}

#[test]
fn the_old_package_tells_the_operators_changes_from_old_defaults() {
    let base: &[(&str, &str)] = &[
        ("bin/kylin.sh", "old"),
        ("bin/gone.sh", "old"),
        ("conf/kylin.properties", "-> profile/kylin.properties"),
        ("conf/profile", "-> profile_prod"),
        ("conf/profile_prod/kylin.properties", "kylin.a=1\nkylin.size=older\n"),
        ("conf/profile_prod/kylin_job_conf.xml", "old job"),
        ("conf/log4j.properties", "old"),
        ("conf/setenv.sh", "old"),
        ("ext/shipped.jar", "x"),
        ("spark/jars/spark-core_2.11-2.4.1.jar", ""),
        ("spark/conf/spark-env.sh", "old"),
        ("tomcat/conf/server.xml", "old"),
    ];
    let mut old = base.to_vec();
    old.retain(|(path, _)| !path.ends_with("server.xml") && !path.ends_with("prod/kylin.properties"));
    old.extend([
        ("conf/profile_prod/kylin.properties", "kylin.a=mine\nkylin.size=older\n"),
        ("tomcat/conf/server.xml", "ports"),
        ("spark/jars/own.jar", "x"),
        ("ext/own.jar", "x"),
        ("bin/own.sh", "x"),
    ]);
    let survey =
        Case { layout: Layout::Tomcat, versions: KE3, old: &old, new: KE3_NEW, base: Some(base) }.run();
    assert_eq!(
        show(&survey),
        [
            "conf/profile_prod/kylin.properties edit",
            "ext/own.jar copy",
            "logs/before-3.4.4.1-GA from logs link",
            "meta_backups link",
            "spark/jars/own.jar copy",
        ]
    );
    let (_, content) = survey.contents.iter().next().unwrap();
    assert_eq!(
        String::from_utf8_lossy(content),
        "kylin.size=big\nkylin.fresh=1\n# Kept from the previous release\nkylin.a=mine\n"
    );
    let left: Vec<_> = survey.list.notes.iter().filter(|note| note.kind == NoteKind::Left).collect();
    assert_eq!(left.len(), 1);
    assert!(left[0].text.ends_with("(added here): `bin/own.sh`"), "{}", left[0].text);
    // Tomcat's release notes are missing in the old home: its version is not known, so nothing is claimed.
    assert_eq!(notes(&survey, NoteKind::Redo), ["tomcat/conf/server.xml"]);
}

#[test]
fn a_server_home_keeps_key_store_drivers_and_hadoop_configuration() {
    let survey = Case {
        layout: Layout::Server,
        versions: ("Apache Kylin 5.0.0", "Apache Kylin 5.0.1"),
        old: &[
            ("LICENSE", "Apache 2, older"),
            ("conf/kylin.properties", "kylin.a=1\n"),
            ("hadoop_conf/core-site.xml", "x"),
            ("hadoop_conf/hive-site.xml", "x"),
            ("lib/ext/mysql.jar", "x"),
            ("lib/old.jar", "x"),
            ("server/.keystore", "x"),
            ("server/newten.jar", "old"),
            ("spark_backup/x", "x"),
        ],
        new: &[
            ("LICENSE", "Apache 2"),
            ("conf/kylin.properties", "kylin.a=1\n"),
            ("hadoop_conf/core-site.xml", "shipped"),
            ("lib/ext/README", "x"),
            ("server/newten.jar", "new"),
        ],
        base: None,
    }
    .run();
    assert_eq!(
        show(&survey),
        [
            "hadoop_conf/core-site.xml copy",
            "hadoop_conf/hive-site.xml copy",
            "lib/ext/mysql.jar copy",
            "logs/before-5.0.0 from logs link",
            "meta_backups link",
            "server/.keystore copy",
        ]
    );
    assert!(survey.changes.is_empty() && survey.contents.is_empty());
}

#[test]
fn nothing_is_carried_through_a_link_or_over_a_directory() {
    let survey = Case {
        layout: Layout::Server,
        versions: ("Apache Kylin 5.0.0", "Apache Kylin 5.0.1"),
        old: &[("conf/kylin.properties", "a=1\n"), ("hadoop_conf/x", "1"), ("conf/hive-site.xml", "1")],
        new: &[
            ("conf/kylin.properties", "a=1\n"),
            ("hadoop_conf", "-> /etc/hadoop"),
            ("conf/hive-site.xml/f", ""),
        ],
        base: None,
    }
    .run();
    assert_eq!(show(&survey), ["logs/before-5.0.0 from logs link", "meta_backups link"]);
    assert_eq!(notes(&survey, NoteKind::Redo), ["conf/hive-site.xml", "hadoop_conf/x"]);
}

#[test]
fn a_licence_is_not_carried_from_2_to_3_and_the_list_survives_json() {
    let survey = Case {
        layout: Layout::Tomcat,
        versions: ("KAP Enterprise Plus 2.5.3", "Kyligence Enterprise 3.4.5"),
        old: &[
            ("LICENSE", "old"),
            ("conf/kylin.properties", "kylin.server.init-tasks=x\nkylin.size=big\nkylin.fresh=1\n"),
        ],
        new: KE3_NEW,
        base: None,
    }
    .run();
    assert!(show(&survey).iter().all(|line| !line.starts_with("LICENSE")));
    assert!(notes(&survey, NoteKind::Redo).contains(&"LICENSE".to_owned()));
    assert!(survey.contents.is_empty(), "the one key that differed must not be carried");
    assert_eq!(notes(&survey, NoteKind::Left), ["conf/kylin.properties"]);
    let text = serde_json::to_string(&survey.list).unwrap();
    assert_eq!(serde_json::from_str::<CarryList>(&text).unwrap(), survey.list);
}
