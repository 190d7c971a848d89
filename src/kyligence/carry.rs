//! What an operator owns in a home, as a table: one row a kind of entry, and what a careful upgrade does with it.
//!
//! The product's script asks `diff -qr` for the entries that only the old home has, at top level only. So it carries
//! process ids and loses dot files, key stores and drivers. Here every path of the old home has a row; the table is
//! applied by `survey`.

use serde::{Deserialize, Serialize};

use super::home::Layout;
use crate::digest::Digest;
use crate::raw_path::RawPath;

/// What is carried from the old home into the spare tree, and what the operator must be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryList {
    /// What to carry, sorted by target. No item's target lies below another's, `Link` items apart.
    pub items: Vec<CarryItem>,
    /// What the preview says beside it.
    pub notes: Vec<Note>,
}

/// One entry to carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryItem {
    /// Where it is, relative to the old home.
    pub from: RawPath,
    /// Where it goes, relative to the spare tree. Directories above it may have to be made. What the new release has
    /// there is replaced; where that is a directory, `how` is `Link` and both are merged.
    pub to: RawPath,
    /// How.
    pub how: How,
    /// The digest of the source as it was planned. `None` for what a live service goes on writing.
    pub expected: Option<Digest>,
    /// Why it is carried, for the preview.
    pub why: String,
}

/// How an entry is carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A copy of the file, link or whole tree, with attributes.
    Copy,
    /// A tree of hard links, made after the stop from what `from` then holds, which may be nothing. A file that has
    /// the target's name already stays. For big trees to which files are only added.
    Link,
    /// A file with this content and the source's attributes. The content is in the survey's `contents`.
    Edited {
        /// Plain blake3 of the content.
        content: Digest,
    },
    /// A symbolic link with this target.
    Symlink {
        /// Where it points.
        target: RawPath,
    },
}

/// Something that the preview says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What kind of thing it is.
    pub kind: NoteKind,
    /// What it is about, relative to the old home.
    pub path: RawPath,
    /// A sentence without its full stop.
    pub text: String,
    /// The values in it that must be carried over by hand, as far as they can be told. Secrets are masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<ByHand>,
}

/// A value that somebody must carry over by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// Its key.
    pub key: String,
    /// Its value in the old home.
    pub old: Option<String>,
    /// Its value in the new release.
    pub new: Option<String>,
}

/// What kind of note it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// The operator must do it again by hand in the new release.
    Redo,
    /// It is carried, and the operator should have a look at it.
    Carried,
    /// It is left behind, and survives in the old tree and its archive only.
    Left,
    /// A carried file names an absolute path.
    Mention,
}

/// A part of the product with settings and a version of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// `spark/`.
    Spark,
    /// `tomcat/`.
    Tomcat,
}

/// What is done with an entry of the old home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// The new release's wins; what only the old home has is reported.
    New,
    /// The old one is carried, unless the old package shows that nobody changed it.
    Carry,
    /// Likewise, and reported.
    CarryReported,
    /// Carried if the operator changed it. Where the old package is not known the new one stays and it is reported.
    CarryIfChanged,
    /// Carried if only the old home has it and the old package did not bring it.
    CarryAdded,
    /// Likewise, but only reported where the old package is not known: these names hold versions, and two versions of
    /// one library must not meet.
    CarryAddedIfKnown,
    /// Carried if changed and if the component is the same in both releases; else to be redone by hand.
    CarryIfSame(Component),
    /// The licence: carried unless the new release needs another one.
    Licence,
    /// The choice of the profile: carried as a relative link.
    Profile,
    /// Job configuration: a link into the profile stays one, anything else is carried.
    JobConfig,
    /// Merged key by key.
    Properties,
    /// Never carried: it means nothing in another release, or the product makes it again.
    Leave,
    /// Left behind, and its size reported.
    LeaveMeasured,
    /// Linked under the same name.
    Link,
    /// Linked apart, under `logs/before-<old version>`: logs are evidence, and must not mix.
    LinkAside,
    /// A bundled service that may hold data: reported, to be moved by hand.
    Bundled,
    /// Changed by hand in the past, to be repeated by hand if it was.
    RedoIfChanged,
    /// The operator's own, if the new release does not have it: carried and reported.
    Operator,
}

/// One row: a pattern, and what is done with what matches. `*` stands for any characters within a component, a final
/// `/**` for the entry itself and everything below.
struct Row {
    layout: Option<Layout>,
    pattern: &'static str,
    treatment: Treatment,
    why: &'static str,
}

const fn row(pattern: &'static str, treatment: Treatment, why: &'static str) -> Row {
    Row { layout: None, pattern, treatment, why }
}

const fn tomcat(pattern: &'static str, treatment: Treatment, why: &'static str) -> Row {
    Row { layout: Some(Layout::Tomcat), pattern, treatment, why }
}

const fn server(pattern: &'static str, treatment: Treatment, why: &'static str) -> Row {
    Row { layout: Some(Layout::Server), pattern, treatment, why }
}

use Component::{Spark, Tomcat};
use Treatment::{
    Bundled, Carry, CarryAdded, CarryAddedIfKnown, CarryIfChanged, CarryIfSame, CarryReported, JobConfig,
    Leave, LeaveMeasured, Licence, Link, LinkAside, New, Operator, Profile, Properties, RedoIfChanged,
};

/// The table; the first row that matches counts.
const TABLE: &[Row] = &[
    row("VERSION", Leave, "identity of the build"),
    row("commit_SHA1", Leave, "identity of the build"),
    row("CHANGELOG.md", Leave, "identity of the build"),
    row("NOTICE", Leave, "identity of the build"),
    row("LICENSE", Licence, "product licence"),
    // Process ids and locks: a stale pid in the new home makes `kylin.sh stop` kill a stranger.
    row("pid", Leave, "process id"),
    row("kgid", Leave, "process id"),
    row("grafana/pid", Leave, "process id"),
    row("spark_client_pid", Leave, "process id"),
    row("streaming_receiver_pid", Leave, "process id"),
    row("child_process", Leave, "process ids"),
    row("LOCK", Leave, "start lock"),
    row("bin/kg-start.lock", Leave, "start lock"),
    row("appid", Leave, "Spark application id"),
    row("work/**", Leave, "Spark work"),
    row("tmp/**", Leave, "scratch"),
    row("bin/cached-*.sh", Leave, "class path cache of this release"),
    row("bin/check-env-bypass", Leave, "a new release must be checked"),
    row("logrotate/**", Leave, "made again at start"),
    // With these markers the new Spark would keep jars that do not fit this Hadoop.
    row("spark_backup/**", Leave, "marker of replaced jars"),
    row("spark/spark_hdp_version", Leave, "marker of replaced jars"),
    row("spark/jars/replace-jars-bypass", Leave, "marker of replaced jars"),
    row("kybot_dump/**", LeaveMeasured, "dump"),
    row("diag_dump/**", LeaveMeasured, "dump"),
    row("diagnosis_dump/**", LeaveMeasured, "dump"),
    row("meta_fetch/**", LeaveMeasured, "dump"),
    row("meta_backups/**", Link, "metadata backups"),
    row("logs/**", LinkAside, "logs of the previous release"),
    row("conf/kylin.properties", Properties, "configuration, merged key by key"),
    row("conf/kylin.properties.override", Carry, "the operator's own settings"),
    row("conf/fairscheduler.xml", Leave, "written at each start"),
    row("conf/*.template", New, "shipped sample"),
    row("conf/profile", Profile, "choice of the profile"),
    row("conf/profile*/kylin_*.xml", CarryReported, "job configuration"),
    row("conf/profile*/kylin-kafka-*.xml", CarryReported, "job configuration"),
    row("conf/profile*/**", CarryIfChanged, "profile"),
    row("conf/kylin_*.xml", JobConfig, "job configuration"),
    row("conf/kylin-kafka-*.xml", JobConfig, "job configuration"),
    row("conf/setenv.sh", CarryReported, "JVM options; compare with the new release's"),
    row("conf/setenv-tool.sh", CarryReported, "JVM options; compare with the new release's"),
    row("conf/*log4j*", CarryIfChanged, "logging"),
    row("conf/krb5.conf", Carry, "Kerberos"),
    row("conf/*.keytab", Carry, "Kerberos"),
    row("conf/jaas.conf", Carry, "Kerberos"),
    row("conf/*.jks", Carry, "TLS"),
    row("conf/userctrl.acl", Carry, "operator's file"),
    row("conf/kybot-client.properties", Carry, "operator's file"),
    row("conf/mapred-site.xml", Carry, "operator's file"),
    row("conf/hive-site.xml", Carry, "operator's file"),
    row("conf/**", CarryReported, "operator's configuration"),
    row("ext/**", CarryAdded, "user jar or JDBC driver"),
    row("lib/ext/**", CarryAdded, "user jar or JDBC driver"),
    row("spark/jars/**", CarryAddedIfKnown, "added to Spark"),
    row("spark/conf/*.template", New, "shipped sample"),
    row("spark/conf/**", CarryIfSame(Spark), "Spark settings"),
    tomcat("tomcat/webapps/kylin/**", Leave, "unpacked again at start"),
    tomcat("tomcat/logs/**", Leave, "runtime files"),
    tomcat("tomcat/temp/**", Leave, "runtime files"),
    tomcat("tomcat/work/**", Leave, "runtime files"),
    tomcat("tomcat/conf/**", CarryIfSame(Tomcat), "Tomcat settings"),
    tomcat("tomcat/context.xml", CarryIfSame(Tomcat), "Tomcat settings"),
    tomcat("tomcat/lib/**", CarryAdded, "added to Tomcat"),
    tomcat("tomcat/**", New, "server"),
    tomcat("bin/setenv.sh", RedoIfChanged, "JVM options at their old place; put them into conf/setenv.sh"),
    server("server/.keystore", Carry, "TLS key store"),
    server("server/**", New, "server"),
    server("hadoop_conf/**", Carry, "Hadoop client configuration"),
    server("write_hadoop_conf/**", Carry, "Hadoop client configuration"),
    server("hadoop_conf_override/**", Carry, "Hadoop client configuration"),
    row("hadoop-conf/**", Carry, "Hadoop client configuration"),
    row("grafana/**", Bundled, "bundled service"),
    row("influxdb/**", Bundled, "bundled service"),
    row("postgresql/**", Bundled, "bundled service"),
    row("bin/**", New, "scripts"),
    row("sbin/**", New, "scripts"),
    row("lib/**", New, "product jars"),
    row("tool/**", New, "tools"),
    row("spark/**", New, "Spark"),
    row("kybot/**", New, "extras"),
    row("sample_cube/**", New, "extras"),
    row("samples/**", New, "extras"),
    row("sample_project/**", New, "extras"),
    row("mr-lib/**", New, "extras"),
];

/// What is done with an entry of the old home, and why. The path is relative to the home and not empty.
pub fn treatment(layout: Layout, path: &RawPath) -> (Treatment, &'static str) {
    TABLE
        .iter()
        .filter(|row| row.layout.is_none_or(|of| of == layout))
        .find(|row| matches(row.pattern.as_bytes(), path.as_bytes()))
        .map_or((Operator, "operator's own"), |row| (row.treatment, row.why))
}

fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if let Some(stem) = pattern.strip_suffix(b"/**") {
        let depth = stem.split(|b| *b == b'/').count() - 1;
        let mut slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let end = slashes.nth(depth).unwrap_or(path.len());
        return matches_component(stem, &path[..end]);
    }
    matches_component(pattern, path)
}

/// `*` stops at a slash.
fn matches_component(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern.first(), path.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            matches_component(&pattern[1..], path)
                || path.first().is_some_and(|b| *b != b'/') && matches_component(pattern, &path[1..])
        }
        (Some(p), Some(b)) => p == b && matches_component(&pattern[1..], &path[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_reference_has_its_row() {
        let cases = [
            ("LICENSE", Licence),
            ("bin", New),
            ("bin/cached-hive-dependency.sh", Leave),
            ("bin/own.sh", New),
            ("conf", CarryReported),
            ("conf/.hidden", CarryReported),
            ("conf/kylin.properties", Properties),
            ("conf/kylin.properties.override", Carry),
            ("conf/kylin.properties.template", New),
            ("conf/kylin_job_conf.xml", JobConfig),
            ("conf/kylin-kafka-consumer.xml", JobConfig),
            ("conf/profile", Profile),
            ("conf/profile_prod/kylin_job_conf.xml", CarryReported),
            ("conf/profile_prod/kylin.properties", CarryIfChanged),
            ("conf/kylin-server-log4j.properties", CarryIfChanged),
            ("conf/user.keytab", Carry),
            ("ext/mysql.jar", CarryAdded),
            ("lib/ext/a/b.jar", CarryAdded),
            ("lib/kylin.jar", New),
            ("spark/jars/x.jar", CarryAddedIfKnown),
            ("spark/conf/spark-env.sh", CarryIfSame(Spark)),
            ("spark/bin/spark-submit", New),
            ("tomcat/conf/server.xml", CarryIfSame(Tomcat)),
            ("tomcat/webapps/kylin/WEB-INF/x", Leave),
            ("tomcat/webapps/kylin.war", New),
            ("tomcat/lib/jedis-2.0.0.jar", CarryAdded),
            ("meta_backups", Link),
            ("meta_backups/meta_1/UUID", Link),
            ("logs/kylin.log", LinkAside),
            ("kybot_dump/x", LeaveMeasured),
            ("hadoop-conf/core-site.xml", Carry),
            ("my own/file", Operator),
            ("pid", Leave),
            ("pids", Operator),
            ("bind/x", Operator),
        ];
        for (path, expected) in cases {
            assert_eq!(treatment(Layout::Tomcat, &path.into()).0, expected, "{path}");
        }
        let server = |path: &str| treatment(Layout::Server, &path.into()).0;
        assert_eq!(server("server/.keystore"), Carry);
        assert_eq!(server("server/newten.jar"), New);
        assert_eq!(server("hadoop_conf/core-site.xml"), Carry);
        assert_eq!(server("tomcat/conf/server.xml"), Operator);
    }

    #[test]
    fn a_star_stays_within_its_component() {
        assert!(matches(b"a/*.x", b"a/b.x") && !matches(b"a/*.x", b"a/b/c.x"));
        assert!(matches(b"a*/**", b"ab") && matches(b"a*/**", b"ab/c/d") && !matches(b"a*/**", b"b/a"));
        assert!(matches(b"a/b*/c", b"a/b/c") && !matches(b"a/b*/c", b"a/b"));
    }
}
