//! Packages of the product, as it ships them: what is in one, and writing it as an archive or as a tree.

#![allow(clippy::disallowed_methods, reason = "it builds test machines, not customers'")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::content::{Content, Seed, Stream};

/// The two layouts of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// KE 3 and Kylin 3: `tomcat/`, `ext/`, profiles.
    Ke3,
    /// KE 4 and Kylin 5: `server/`, `lib/ext/`.
    Ke4,
}

/// Which of the two releases of an upgrade: what one changes of the other's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The one that is replaced.
    Old,
    /// The one that replaces it.
    New,
}

/// A release of the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The layout of its home.
    pub layout: Layout,
    /// The words before the version in `VERSION`: `Kyligence Enterprise`, `Apache kylin`.
    pub product: String,
    /// The version.
    pub version: String,
    /// Which of the two it is.
    pub age: Age,
}

/// How much a package holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// What is needed, and no more: about 60 entries and 30 KB, for tests that kill at every one.
    Tiny,
    /// 60 MB in 1,500 files.
    Medium,
    /// 1.2 GB in 10,500 files.
    Large,
}

impl Size {
    /// Bytes and files that fill the package up.
    pub(super) fn filling(self) -> (u64, u64) {
        match self {
            Self::Tiny => (0, 0),
            Self::Medium => (60_000_000, 1_500),
            Self::Large => (1_200_000_000, 10_500),
        }
    }
}

/// One entry of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A directory.
    Dir,
    /// A file, and its mode.
    File(u32, Content),
    /// A symbolic link, and where it points.
    Link(String),
}

/// A package: one top directory and what is in it.
#[derive(Clone, Debug)]
pub struct Package {
    /// The top directory, which is also the archive's name without `.tar.gz`.
    pub name: String,
    /// The release that is in it.
    pub release: Release,
    /// Path below the top directory, and what it is; every directory before what is in it.
    pub members: Vec<(String, Member)>,
    /// The directories among the members.
    dirs: BTreeSet<String>,
}

/// The product's scripts, by their place in a home.
pub(super) fn scripts(layout: Layout) -> [(&'static str, &'static str); 5] {
    macro_rules! product {
        ($name:literal) => {
            include_str!(concat!("../../testbed/product/", $name))
        };
    }
    let (kylin, metastore) = match layout {
        Layout::Ke3 => (product!("ke3/kylin.sh"), product!("ke3/metastore.sh")),
        Layout::Ke4 => (product!("ke4/kylin.sh"), product!("ke4/metastore.sh")),
    };
    [
        ("bin/kylin.sh", kylin),
        ("bin/metastore.sh", metastore),
        ("bin/get-properties.sh", product!("get-properties.sh")),
        ("bin/upgrade.sh", product!("upgrade.sh")),
        ("bin/standin.sh", product!("standin.sh")),
    ]
}

impl Package {
    /// The package of a release. `knobs` is the file that its scripts look their knobs up in.
    pub fn new(release: &Release, size: Size, knobs: &Path, seed: Seed) -> Self {
        let Release { layout, version, .. } = release;
        let mut package = Self {
            name: if release.product.starts_with("Apache") {
                format!("apache-kylin-{version}-bin")
            } else {
                format!("Kyligence-Enterprise-{version}")
            },
            release: release.clone(),
            members: Vec::new(),
            dirs: BTreeSet::new(),
        };
        let seed = seed.of(version);
        package.add_identity(seed);
        for (path, text) in scripts(*layout) {
            package.add_file(path, 0o755, Content::text(text));
        }
        package.add_file("bin/standin.knobs", 0o644, Content::text(format!("{}\n", knobs.display())));
        match layout {
            Layout::Ke3 => package.add_ke3(seed),
            Layout::Ke4 => package.add_ke4(seed),
        }
        package.add_filling(size, seed);
        package
    }

    /// Writes it as an archive: the same bytes every time.
    pub fn write_archive(&self, path: &Path) -> io::Result<()> {
        // The fastest level that does not cost the archive its proportions.
        let gz = GzEncoder::new(BufWriter::new(File::create(path)?), Compression::new(1));
        let mut tar = tar::Builder::new(gz);
        self.append(&mut tar, &format!("{}/", self.name), &Member::Dir)?;
        for (path, member) in &self.members {
            self.append(&mut tar, &format!("{}/{path}", self.name), member)?;
        }
        tar.into_inner()?.finish()?.flush()
    }

    /// Unpacks it: `dir`, which must not exist, becomes its top directory.
    pub fn write_tree(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)?;
        for (path, member) in &self.members {
            let path = dir.join(path);
            match member {
                Member::Dir => fs::create_dir(&path)?,
                Member::File(mode, content) => {
                    let mut file = BufWriter::new(File::create(&path)?);
                    content.write_to(&mut file)?;
                    file.into_inner()?.set_permissions(fs::Permissions::from_mode(*mode))?;
                }
                Member::Link(target) => symlink(target, &path)?,
            }
        }
        for (path, _) in self.members.iter().rev() {
            set_mtime(&dir.join(path), self.mtime_s())?;
        }
        set_mtime(dir, self.mtime_s())
    }

    /// A property as the package ships it.
    pub fn property(&self, key: &str) -> Option<&'static str> {
        properties(self.release.age).into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn append(&self, tar: &mut tar::Builder<impl Write>, path: &str, member: &Member) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(self.mtime_s() as u64);
        header.set_username("kylin")?;
        header.set_groupname("hadoop")?;
        let (kind, mode) = match member {
            Member::Dir => (tar::EntryType::Directory, 0o755),
            Member::File(mode, _) => (tar::EntryType::Regular, *mode),
            Member::Link(_) => (tar::EntryType::Symlink, 0o777),
        };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(0);
        match member {
            Member::Dir => tar.append_data(&mut header, path, io::empty()),
            Member::Link(target) => tar.append_link(&mut header, path, target),
            Member::File(_, content) => {
                header.set_size(content.len_bytes());
                // An archive is written from a reader; content is made by writing. Members are small enough.
                tar.append_data(&mut header, path, content.to_vec().as_slice())
            }
        }
    }

    /// When it was built: fixed by the version, so that two versions differ.
    fn mtime_s(&self) -> i64 {
        1_600_000_000 + (Seed(0).of(&self.release.version).0 % 100_000_000) as i64
    }

    fn is_major_4(&self) -> bool {
        self.release.layout == Layout::Ke4
    }

    fn add_dirs(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let dir = &path[..at];
            if self.dirs.insert(dir.to_owned()) {
                self.members.push((dir.to_owned(), Member::Dir));
            }
        }
    }

    fn add_file(&mut self, path: &str, mode: u32, content: Content) {
        self.add_dirs(path);
        self.members.push((path.to_owned(), Member::File(mode, content)));
    }

    fn add_text(&mut self, path: &str, text: impl Into<String>) {
        self.add_file(path, 0o644, Content::text(text));
    }

    fn add_noise(&mut self, path: &str, seed: Seed, bytes: u64) {
        self.add_file(path, 0o644, Content::Noise { seed: seed.of(path), bytes });
    }

    fn add_link(&mut self, path: &str, target: &str) {
        self.add_dirs(path);
        self.members.push((path.to_owned(), Member::Link(target.to_owned())));
    }

    fn add_identity(&mut self, seed: Seed) {
        let version = self.release.version.clone();
        self.add_text("VERSION", format!("{} {version}\n", self.release.product));
        let hash = format!("{:016x}{:016x}{:08x}", seed.0, seed.of("a").0, seed.of("b").0 >> 32);
        self.add_text("commit_SHA1", format!("{hash}@KAP\nBuild with Linux at 2020-09-13\n"));
        self.add_text("LICENSE", "====\nKyligence Enterprise\nTrial licence of the package\n====\n");
        self.add_text("CHANGELOG.md", format!("# {version}\n\nEverything is better.\n"));
        self.add_noise(&format!("lib/kylin-jdbc-{version}.jar"), seed, 1_500);
        self.add_noise("lib/commons-lib.jar", Seed(1), 700);
        self.add_noise(&format!("tool/kylin-tool-{version}.jar"), seed, 900);
        let spark = if self.is_major_4() { "3.1.1-kylin-4.x" } else { spark_version(&version) };
        self.add_text("spark/RELEASE", format!("Spark {spark} built for Hadoop 2.7.3\n"));
        self.add_noise(&format!("spark/jars/spark-core_2.11-{spark}.jar"), Seed(2).of(spark), 1_100);
        self.add_text("spark/conf/spark-defaults.conf", "spark.eventLog.enabled true\n");
    }

    fn properties_text(&self) -> String {
        let lines = properties(self.release.age).into_iter().map(|(key, value)| format!("{key}={value}\n"));
        format!("# Shipped with {}\n\n{}", self.release.version, lines.collect::<String>())
    }

    fn add_ke3(&mut self, seed: Seed) {
        const LINKED: [&str; 5] = [
            "kylin.properties",
            "kylin_hive_conf.xml",
            "kylin_job_conf.xml",
            "kylin_job_conf_inmem.xml",
            "kylin-kafka-consumer.xml",
        ];
        for profile in ["profile_prod", "profile_min"] {
            for name in LINKED {
                let text = match name {
                    "kylin.properties" => self.properties_text(),
                    _ => format!(
                        "<configuration><!-- {profile} {} --></configuration>\n",
                        self.release.version
                    ),
                };
                self.add_text(&format!("conf/{profile}/{name}"), text);
            }
        }
        self.add_link("conf/profile", "profile_prod");
        for name in LINKED {
            self.add_link(&format!("conf/{name}"), &format!("profile/{name}"));
        }
        self.add_text("conf/setenv.sh", "export KYLIN_JVM_SETTINGS=\"-Xms1g -Xmx8g\"\n");
        self.add_text("conf/kylin-server-log4j.properties", "log4j.rootLogger=INFO,file\n");
        self.add_text("ext/README", "Put JDBC drivers here.\n");
        self.add_text("tomcat/RELEASE-NOTES", "Apache Tomcat Version 7.0.100\n");
        self.add_text("tomcat/conf/server.xml", server_xml(7070));
        self.add_text("tomcat/conf/server.xml.init", server_xml(7070));
        self.add_text("tomcat/conf/context.xml", "<Context/>\n");
        self.add_noise("tomcat/lib/catalina.jar", Seed(3), 800);
        self.add_noise("tomcat/webapps/kylin.war", seed, 2_000);
        self.add_text("sample_cube/template.csv", "id,name\n1,one\n");
    }

    fn add_ke4(&mut self, seed: Seed) {
        self.add_text("conf/kylin.properties", self.properties_text());
        self.add_text("conf/kylin.properties.template", self.properties_text());
        self.add_text("conf/setenv.sh", "export KYLIN_JVM_SETTINGS=\"-Xms1g -Xmx8g\"\n");
        self.add_text("conf/kylin-server-log4j.xml", "<Configuration/>\n");
        self.add_text("lib/ext/README", "Put JDBC drivers here.\n");
        self.add_noise("server/newten.jar", seed, 2_500);
        self.add_noise("server/jars/kylin-core.jar", seed, 900);
        self.add_text("server/public/index.html", "<html>Kyligence Enterprise</html>\n");
        self.add_file(
            "sbin/bootstrap.sh",
            0o755,
            Content::text("#!/bin/sh\nexec \"$KYLIN_HOME/bin/kylin.sh\" \"$@\"\n"),
        );
    }

    /// Fills up to a size: two thirds of the bytes do not compress, as in a package of jars.
    fn add_filling(&mut self, size: Size, seed: Seed) {
        let (bytes, files) = size.filling();
        let mut random = Stream(seed.of("filling").0);
        // One file in fifty is a big jar and they hold two thirds of the bytes; the rest share a third.
        let jars = files / 50;
        for number in 0..files {
            let spread = 50 + random.next() % 101;
            if number < jars {
                let bytes = bytes * 2 / 3 / jars * spread / 100;
                let folder = if number % 2 == 0 { "spark/jars" } else { "lib" };
                self.add_noise(&format!("{folder}/filling-{number:04}-1.{spread}.jar"), seed, bytes);
            } else {
                let bytes = bytes / 3 / (files - jars) * spread / 100;
                let path = format!("spark/python/part{:02}/module_{number:05}.py", number % 40);
                let content = Content::Prose { seed: seed.of(&path), bytes };
                self.add_file(&path, 0o644, content);
            }
        }
    }
}

/// Spark moves with the second number of the version, as the manual's example does.
fn spark_version(version: &str) -> &'static str {
    let minor = version.split('.').nth(1).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if minor < 4 { "2.2.1-kylin-r6" } else { "2.2.1-kylin-r7" }
}

/// The shipped properties. Between two releases a default changes, a key appears and a key goes.
fn properties(age: Age) -> Vec<(&'static str, &'static str)> {
    let newer = age == Age::New;
    let mut all = vec![
        ("kylin.metadata.url", "kylin_metadata@hbase"),
        ("kylin.env.hdfs-working-dir", "/kylin"),
        ("kylin.server.mode", "all"),
        ("kylin.query.cache-enabled", "true"),
        ("kylin.job.max-concurrent-jobs", if newer { "20" } else { "10" }),
        ("kylin.engine.spark-conf.spark.executor.memory", "4G"),
    ];
    all.push(if newer { ("kylin.query.new-planner", "true") } else { ("kylin.query.old-planner", "true") });
    all
}

/// Tomcat's configuration with a port.
pub(super) fn server_xml(port: u16) -> String {
    format!(
        "<?xml version='1.0' encoding='utf-8'?>\n<Server port=\"-1\" shutdown=\"SHUTDOWN\">\n  \
         <Service name=\"Catalina\">\n    <Connector port=\"{port}\" protocol=\"HTTP/1.1\" \
         connectionTimeout=\"20000\"/>\n  </Service>\n</Server>\n"
    )
}

fn set_mtime(path: &Path, mtime_s: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: mtime_s, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(layout: Layout) -> Release {
        let (product, version) = ("Kyligence Enterprise".to_owned(), "3.2.2.2028-GA".to_owned());
        Release { layout, product, version, age: Age::New }
    }

    #[test]
    fn the_archive_is_the_same_every_time_and_holds_one_top_directory() {
        let dir = tempfile::tempdir().unwrap();
        let knobs = dir.path().join("knobs");
        for layout in [Layout::Ke3, Layout::Ke4] {
            let (a, b) = (dir.path().join("a"), dir.path().join("b"));
            let package = || Package::new(&release(layout), Size::Tiny, &knobs, Seed(1));
            package().write_archive(&a).unwrap();
            package().write_archive(&b).unwrap();
            assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&a).unwrap()));
            let paths: Vec<_> =
                archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
            assert_eq!(paths.len(), package().members.len() + 1);
            assert!(paths.iter().all(|path| path.starts_with("Kyligence-Enterprise-3.2.2.2028-GA")));
            assert!(paths.len() < 64, "{}", paths.len());
        }
    }

    #[test]
    fn sizes_are_what_they_say() {
        for (size, bytes, files) in [(Size::Medium, 60e6, 1_500), (Size::Large, 1.2e9, 10_500)] {
            let package = Package::new(&release(Layout::Ke3), size, Path::new("/k"), Seed(1));
            let mut total = 0;
            let mut noise = 0;
            for (_, member) in &package.members {
                let Member::File(_, content) = member else { continue };
                total += content.len_bytes();
                noise += if matches!(content, Content::Noise { .. }) { content.len_bytes() } else { 0 };
            }
            assert!((0.9..1.1).contains(&(total as f64 / bytes)), "{total}");
            assert!((0.6..0.72).contains(&(noise as f64 / total as f64)), "{noise} of {total}");
            assert!(package.members.len() >= files);
        }
    }
}
