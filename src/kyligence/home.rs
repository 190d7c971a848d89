//! What a home is: its layout, its release, its effective configuration and what follows from it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::metadata_url::{BadWorkingDir, MetadataUrl, WorkingDir};
use super::properties::{Properties, effective};
use super::version::{Generation, Identity, NotAVersion, Product};
use crate::backup::manifest::Manifest;
use crate::effect::fs::{Fs, Kind, read_file, stat_opt};
use crate::raw_path::RawPath;

/// The largest configuration file that kytx reads, in bytes. Real ones have tens of kilobytes.
pub const TEXT_LIMIT_BYTES: u64 = 4 << 20;

/// How many links a path may lead through, as the kernel counts.
const LINK_LIMIT: usize = 40;

/// Which server the home runs, and so where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Tomcat in `tomcat/`: KAP, Kyligence Enterprise 3, Kylin 2 and 3.
    Tomcat,
    /// A Spring Boot program in `server/`: Kyligence Enterprise 4, Kylin 5.
    Server,
}

/// What every home has.
const MARKS: [(&str, Kind); 5] = [
    ("VERSION", Kind::File),
    ("commit_SHA1", Kind::File),
    ("bin/kylin.sh", Kind::File),
    ("bin/metastore.sh", Kind::File),
    ("conf", Kind::Dir),
];

/// Names from before Kylin 2 that Kylin 3 still takes for those that it has now (`kylin-backward-compatibility.properties`
/// in its jar), of the properties that kytx itself goes by.
const OLD_NAMES: [(&str, &str); 2] = [
    ("kylin.hdfs.working.dir", "kylin.env.hdfs-working-dir"),
    ("kylin.init.tasks", "kylin.server.init-tasks"),
];

/// Why a directory is no home.
#[derive(Debug, thiserror::Error)]
pub enum NotAHome {
    /// Nothing is there.
    #[error("`{path}` does not exist")]
    Missing {
        /// The path.
        path: RawPath,
    },
    /// A file or something stranger.
    #[error("`{path}` is no directory")]
    NotADirectory {
        /// The path.
        path: RawPath,
    },
    /// A link: the tree that it points to is the home.
    #[error("`{path}` is a symbolic link; the home is what it points to")]
    Link {
        /// The path.
        path: RawPath,
    },
    /// A path from which nothing can be concluded.
    #[error("`{path}` is no absolute path")]
    Relative {
        /// The path.
        path: RawPath,
    },
    /// The root of the file system.
    #[error("`/` cannot be a home: it has no parent directory to swap it in")]
    Root,
    /// A directory without what a home has.
    #[error("`{path}` is no home of this product: it has no {}", quoted(missing))]
    Incomplete {
        /// The path.
        path: RawPath,
        /// What it has not.
        missing: Vec<String>,
    },
    /// `VERSION` says something else.
    #[error("cannot tell the release of `{path}` from its `VERSION`")]
    Version {
        /// The path.
        path: RawPath,
        /// What is wrong with the text.
        source: NotAVersion,
    },
    /// It cannot be looked at.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The path.
        path: RawPath,
        /// Why.
        source: io::Error,
    },
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", no ")
}

/// A home. `Debug` leaves the properties out, as they hold secrets.
#[derive(Clone)]
pub struct Home {
    /// Where it is.
    pub path: PathBuf,
    /// Its layout.
    pub layout: Layout,
    /// Its release.
    pub identity: Identity,
    /// Effective properties: `conf/kylin.properties` with the override on top. Holds secrets.
    pub properties: BTreeMap<String, String>,
    /// How a running service of this home is asked whether it is ready.
    pub readiness: Readiness,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home")
            .field("path", &self.path)
            .field("layout", &self.layout)
            .field("identity", &self.identity)
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// Whom to ask whether the service is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The port on this host.
    pub port: u16,
    /// The path to get.
    pub path: String,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Whether the answer must be `{"status":"UP",...}` and not just a page.
    pub health: bool,
}

impl Home {
    /// Recognises the home at an absolute path that is no link: resolve links first.
    pub fn recognise(fs: &dyn Fs, path: &Path) -> Result<Self, NotAHome> {
        look_at_root(fs, path)?;
        let unreadable = |name: &str| {
            let path = RawPath::from(path.join(name));
            move |source| NotAHome::Unreadable { path, source }
        };
        let mut missing = Vec::new();
        for (name, kind) in MARKS {
            if kind_through_links(fs, &path.join(name)).map_err(unreadable(name))? != Some(kind) {
                missing.push(name.to_owned());
            }
        }
        let has = |name: &str| -> Result<bool, NotAHome> {
            let kind = kind_through_links(fs, &path.join(name)).map_err(unreadable(name))?;
            Ok(kind == Some(Kind::Dir))
        };
        let servers = (has("tomcat")?, has("server")?);
        let read = |name: &str| -> Result<Option<Vec<u8>>, NotAHome> {
            read_through_links(fs, &path.join(name)).map_err(unreadable(name))
        };
        if !missing.is_empty() {
            return Err(NotAHome::Incomplete { path: path.into(), missing });
        }
        let identity = Identity::parse(&read("VERSION")?.unwrap_or_default())
            .map_err(|source| NotAHome::Version { path: path.into(), source })?
            .with_commit(&read("commit_SHA1")?.unwrap_or_default());
        let layout = layout_of(servers, &identity).ok_or_else(|| NotAHome::Incomplete {
            path: path.into(),
            missing: vec!["tomcat".to_owned(), "server".to_owned()],
        })?;
        let files = [read("conf/kylin.properties")?, read("conf/kylin.properties.override")?]
            .map(|bytes| Properties::parse(&bytes.unwrap_or_default()));
        let mut properties = effective(&files);
        if layout == Layout::Tomcat {
            // Each file by itself: an old name in the later one still wins.
            for (old, new) in OLD_NAMES {
                if let Some(value) = files.iter().rev().find_map(|file| file.get_by_names(&[old, new])) {
                    properties.insert(new.to_owned(), value.to_owned());
                }
            }
        }
        let server_xml = read("tomcat/conf/server.xml")?.unwrap_or_default();
        let readiness = readiness(layout, &properties, &server_xml);
        Ok(Self { path: path.to_owned(), layout, identity, properties, readiness })
    }

    /// The value of a property that is set and not blank.
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Where the metadata are.
    pub fn metadata_url(&self) -> MetadataUrl {
        let default = match self.layout {
            Layout::Tomcat => "kylin_metadata@hbase",
            Layout::Server => "kylin_metadata@jdbc",
        };
        MetadataUrl::parse(self.property("kylin.metadata.url").unwrap_or(default))
    }

    /// Where the cube data are.
    pub fn working_dir(&self) -> Result<WorkingDir, BadWorkingDir> {
        let dir = self.property("kylin.env.hdfs-working-dir").unwrap_or("/kylin");
        WorkingDir::new(dir, &self.metadata_url(), self.layout)
    }
}

/// A package that may not be unpacked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its layout.
    pub layout: Layout,
    /// Its release.
    pub identity: Identity,
    /// Whether a script is missing that packages of this release have: a sign of a cut or foreign package.
    pub lacks_upgrade_script: bool,
}

impl Package {
    /// Recognises a package from its listing and the texts of `VERSION` and `commit_SHA1`, paths relative to its top
    /// directory. `name` is the package's or its top directory's name, and only used in messages and for the flavour.
    pub fn recognise(
        name: &RawPath,
        texts: &BTreeMap<RawPath, Vec<u8>>,
        listing: &Manifest,
    ) -> Result<Self, NotAHome> {
        let kinds: BTreeMap<&RawPath, Kind> =
            listing.entries.iter().map(|entry| (&entry.path, entry.kind)).collect();
        let has = |path: &str, kind| kinds.get(&RawPath::from(path)) == Some(&kind);
        let missing: Vec<String> = MARKS
            .into_iter()
            .filter(|(path, kind)| !has(path, *kind))
            .map(|(path, _)| path.to_owned())
            .collect();
        if !missing.is_empty() {
            return Err(NotAHome::Incomplete { path: name.clone(), missing });
        }
        let text = |path: &str| texts.get(&RawPath::from(path)).map(Vec::as_slice).unwrap_or_default();
        let identity = Identity::parse(text("VERSION"))
            .map_err(|source| NotAHome::Version { path: name.clone(), source })?
            .with_commit(text("commit_SHA1"))
            .with_package_name(&String::from_utf8_lossy(name.file_name()));
        let servers = (has("tomcat", Kind::Dir), has("server", Kind::Dir));
        let layout = layout_of(servers, &identity).ok_or_else(|| NotAHome::Incomplete {
            path: name.clone(),
            missing: vec!["tomcat".to_owned(), "server".to_owned()],
        })?;
        let lacks_upgrade_script = ships_upgrade_script(&identity) && !has("bin/upgrade.sh", Kind::File);
        Ok(Self { layout, identity, lacks_upgrade_script })
    }
}

/// Kyligence Enterprise from 3.3.1 and Kylin 5 ship `bin/upgrade.sh`.
fn ships_upgrade_script(identity: &Identity) -> bool {
    match identity.product {
        Product::KyligenceEnterprise => identity.version.numbers >= [3, 3, 1, 0],
        Product::Kylin => identity.version.numbers[0] >= 5,
        Product::Kap => false,
    }
}

fn look_at_root(fs: &dyn Fs, path: &Path) -> Result<(), NotAHome> {
    let raw = RawPath::from(path);
    if !path.is_absolute() {
        return Err(NotAHome::Relative { path: raw });
    }
    if path.parent().is_none() {
        return Err(NotAHome::Root);
    }
    match stat_opt(fs, path) {
        Ok(None) => Err(NotAHome::Missing { path: raw }),
        Ok(Some(meta)) => match meta.kind {
            Kind::Dir => Ok(()),
            Kind::Symlink => Err(NotAHome::Link { path: raw }),
            _ => Err(NotAHome::NotADirectory { path: raw }),
        },
        Err(source) => Err(NotAHome::Unreadable { path: raw, source }),
    }
}

fn layout_of((tomcat, server): (bool, bool), identity: &Identity) -> Option<Layout> {
    match (tomcat, server) {
        (true, false) => Some(Layout::Tomcat),
        (false, true) => Some(Layout::Server),
        // An operator's own directory of the other name must not change the answer.
        (true, true) => Some(match identity.generation() {
            Some(Generation::Ke4 | Generation::Kylin5) => Layout::Server,
            _ => Layout::Tomcat,
        }),
        (false, false) => None,
    }
}

/// What a path is once final links are followed; `None` if it or what it points to is not there.
fn kind_through_links(fs: &dyn Fs, path: &Path) -> io::Result<Option<Kind>> {
    let end = follow(fs, path)?;
    Ok(stat_opt(fs, &end)?.map(|meta| meta.kind).filter(|kind| *kind != Kind::Symlink))
}

/// The content of a file, final links followed; `None` if there is none.
pub fn read_through_links(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_file(fs, &follow(fs, path)?, TEXT_LIMIT_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Where a chain of final links ends. Links in the directories before are the kernel's business.
fn follow(fs: &dyn Fs, path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINK_LIMIT {
        match stat_opt(fs, &path)? {
            Some(meta) if meta.kind == Kind::Symlink => {
                let target = fs.read_link(&path)?;
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            _ => return Ok(path),
        }
    }
    Err(io::Error::other(format!("`{}` leads through too many links", RawPath::from(path))))
}

fn readiness(layout: Layout, properties: &BTreeMap<String, String>, server_xml: &[u8]) -> Readiness {
    let get = |key: &str| properties.get(key).map(|value| value.trim());
    let number = |key: &str, default| get(key).and_then(|value| value.parse().ok()).unwrap_or(default);
    match layout {
        Layout::Tomcat => {
            let port = connector_port(&String::from_utf8_lossy(server_xml)).unwrap_or(7070);
            Readiness { port, path: "/kylin/".to_owned(), tls: false, health: false }
        }
        Layout::Server => {
            let tls = get("kylin.server.https.enable") == Some("true");
            let port =
                if tls { number("kylin.server.https.port", 7443) } else { number("server.port", 7070) };
            Readiness { port, path: "/kylin/api/health".to_owned(), tls, health: true }
        }
    }
}

/// The port of the first plain HTTP connector in Tomcat's `server.xml`, commented-out ones passed over.
fn connector_port(xml: &str) -> Option<u16> {
    let mut plain = String::with_capacity(xml.len());
    let mut rest = xml;
    while let Some((before, comment)) = rest.split_once("<!--") {
        plain.push_str(before);
        rest = comment.split_once("-->").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.split("<Connector").skip(1).find_map(|tail| {
        let element = tail.split('>').next()?;
        let attribute = |name: &str| xml_attribute(element, name);
        let is_http = attribute("protocol").is_some_and(|p| p.eq_ignore_ascii_case("HTTP/1.1"));
        let is_tls = attribute("SSLEnabled").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        (is_http && !is_tls).then(|| attribute("port")?.trim().parse().ok())?
    })
}

fn xml_attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.match_indices(name).find_map(|(at, _)| {
        if !element[..at].ends_with(|c: char| c.is_whitespace()) {
            return None;
        }
        let value = element[at + name.len()..].trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        value[1..].split(quote).next()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use crate::effect::os::OsFs;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn ke3(root: &Path) {
        write(root, "VERSION", "Kyligence Enterprise 3.4.5.2118-GA\n");
        write(root, "commit_SHA1", "0123456789abcdef0123456789abcdef01234567@KAP\n");
        write(root, "bin/kylin.sh", "");
        write(root, "bin/metastore.sh", "");
        write(root, "conf/profile_prod/kylin.properties", "kylin.env.hdfs-working-dir=/old\nb=1\n");
        write(root, "conf/kylin.properties.override", "kylin.env.hdfs-working-dir=/own/\n");
        write(
            root,
            "tomcat/conf/server.xml",
            "<Server port=\"9005\"><!-- <Connector port=\"1\" protocol=\"HTTP/1.1\"/> -->\n\
             <Connector SSLEnabled=\"true\" port=\"7443\" protocol=\"HTTP/1.1\"/>\n\
             <Connector redirectPort=\"7443\" port = '7071'\n protocol=\"HTTP/1.1\"/></Server>",
        );
        symlink("profile_prod", root.join("conf/profile")).unwrap();
        symlink("profile/kylin.properties", root.join("conf/kylin.properties")).unwrap();
    }

    #[test]
    fn a_tomcat_home_is_read_through_its_profile() {
        let dir = tempfile::tempdir().unwrap();
        ke3(dir.path());
        let home = Home::recognise(&OsFs, dir.path()).unwrap();
        assert_eq!(home.layout, Layout::Tomcat);
        assert_eq!(home.identity.to_string(), "Kyligence Enterprise 3.4.5.2118-GA");
        assert!(home.identity.commit.as_ref().unwrap().starts_with("0123"));
        assert_eq!((home.property("b"), home.readiness.port), (Some("1"), 7071));
        assert_eq!(home.working_dir().unwrap().instance.as_deref(), Some("/own/kylin_metadata"));
        assert!(!format!("{home:?}").contains("hdfs-working-dir"), "properties hold secrets");
    }

    #[test]
    fn an_old_name_of_the_working_directory_counts_as_kylin_has_it() {
        for (file, over, expected) in [
            ("kylin.hdfs.working.dir=/old", "", "/old"),
            ("kylin.hdfs.working.dir=/old\nkylin.env.hdfs-working-dir=/new", "", "/new"),
            ("kylin.env.hdfs-working-dir=/new\nkylin.hdfs.working.dir=/old", "", "/old"),
            (
                "kylin.env.hdfs-working-dir=/1\nkylin.hdfs.working.dir=/2\nkylin.env.hdfs-working-dir=/3",
                "",
                "/2",
            ),
            ("kylin.env.hdfs-working-dir=/new", "kylin.hdfs.working.dir=/old", "/old"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            ke3(dir.path());
            write(dir.path(), "conf/profile_min/kylin.properties", file);
            write(dir.path(), "conf/profile_prod/kylin.properties", file);
            write(dir.path(), "conf/kylin.properties.override", over);
            let home = Home::recognise(&OsFs, dir.path()).unwrap();
            assert_eq!(home.property("kylin.env.hdfs-working-dir"), Some(expected), "{file:?} {over:?}");
        }
    }

    #[test]
    fn a_server_home_answers_on_its_own_port() {
        let dir = tempfile::tempdir().unwrap();
        ke3(dir.path());
        std::fs::remove_dir_all(dir.path().join("tomcat")).unwrap();
        write(dir.path(), "VERSION", "Apache Kylin 5.0.0");
        write(dir.path(), "server/newten.jar", "");
        write(dir.path(), "conf/kylin.properties.override", "server.port=7171\n");
        let home = Home::recognise(&OsFs, dir.path()).unwrap();
        assert_eq!(home.layout, Layout::Server);
        let plain = Readiness { port: 7171, path: "/kylin/api/health".into(), tls: false, health: true };
        assert_eq!(home.readiness, plain);
        write(dir.path(), "conf/kylin.properties.override", "kylin.server.https.enable=true\n");
        let home = Home::recognise(&OsFs, dir.path()).unwrap();
        assert_eq!(home.readiness, Readiness { port: 7443, tls: true, ..plain });
    }

    #[test]
    fn what_is_no_home_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let refused = |path: &Path| Home::recognise(&OsFs, path).unwrap_err().to_string();
        write(root, "file", "");
        symlink("file", root.join("link")).unwrap();
        write(root, "half/VERSION", "Apache kylin 3.1.3");
        write(root, "half/conf/x", "");
        assert!(refused(&root.join("none")).contains("does not exist"));
        assert!(refused(&root.join("file")).contains("is no directory"));
        assert!(refused(&root.join("link")).contains("is a symbolic link"));
        assert!(refused(Path::new("/")).contains("cannot be a home"));
        assert!(refused(Path::new("a/b")).contains("no absolute path"));
        let half = refused(&root.join("half"));
        assert!(
            half.ends_with("it has no `commit_SHA1`, no `bin/kylin.sh`, no `bin/metastore.sh`"),
            "{half}"
        );
        ke3(&root.join("home"));
        write(&root.join("home"), "VERSION", "Something 1.2");
        assert!(refused(&root.join("home")).contains("cannot tell the release"));
        write(&root.join("home"), "VERSION", "Apache kylin 3.1.3");
        std::fs::remove_dir_all(root.join("home/tomcat")).unwrap();
        assert!(refused(&root.join("home")).contains("no `tomcat`, no `server`"));
    }

    #[test]
    fn a_loop_of_links_is_an_error_and_no_hang() {
        let dir = tempfile::tempdir().unwrap();
        ke3(dir.path());
        std::fs::remove_file(dir.path().join("conf/kylin.properties")).unwrap();
        symlink("kylin.properties", dir.path().join("conf/kylin.properties")).unwrap();
        assert!(matches!(Home::recognise(&OsFs, dir.path()), Err(NotAHome::Unreadable { .. })));
    }

    #[test]
    fn a_package_is_recognised_from_its_listing() {
        let entry = |path: &str, kind| crate::backup::manifest::Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: crate::effect::fs::Timestamp::default(),
            size: 0,
            hard_link: None,
            target: None,
            xattrs: vec![],
            content: None,
        };
        let mut listing = Manifest { entries: MARKS.iter().map(|(path, kind)| entry(path, *kind)).collect() };
        listing.entries.push(entry("tomcat", Kind::Dir));
        let texts = BTreeMap::from([(RawPath::from("VERSION"), b"Kyligence Enterprise 3.4.5\n".to_vec())]);
        let name = RawPath::from("/srv/Kyligence-Enterprise-3.4.5-GA-fi.tar.gz");
        let package = Package::recognise(&name, &texts, &listing).unwrap();
        assert_eq!((package.layout, package.lacks_upgrade_script), (Layout::Tomcat, true));
        assert_eq!(package.identity.flavour.as_deref(), Some("fi"));
        listing.entries.retain(|entry| entry.path != RawPath::from("bin/metastore.sh"));
        let error = Package::recognise(&name, &texts, &listing).unwrap_err();
        assert!(error.to_string().ends_with("no `bin/metastore.sh`"), "{error}");
    }
}
