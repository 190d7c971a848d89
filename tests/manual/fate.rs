//! A machine that is upgraded by the manual, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kytx::testbed::StoreContent;

use crate::limited::run_limited;
use crate::renewed::Renewed;
use crate::sieve::{self, Blow, Run};
use crate::support::options;

/// The parts of the procedure, as the script tells them.
pub const PARTS: [&str; 8] =
    ["stop", "back up metadata", "unpack", "carry", "archive", "delete", "move", "start"];

/// What becomes of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The new release, as the procedure makes it undisturbed, and it runs.
    New,
    /// The old release, as it was, and it runs.
    Old,
    /// One of them, whole, and its service does not answer.
    Down,
    /// There is no home, or nothing in it that could be started.
    NoInstallation,
    /// A part of one release.
    HalfUnpacked,
    /// Parts of both releases.
    Mixed,
    /// A whole release without all that the operator owns.
    LostConfiguration,
    /// A whole release whose metadata are not what they were.
    LostMetadata,
}

impl Fate {
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "fine: new",
            Self::Old => "fine: old",
            Self::Down => "whole, but down",
            Self::NoInstallation => "no installation",
            Self::HalfUnpacked => "half-unpacked",
            Self::Mixed => "mixed",
            Self::LostConfiguration => "lost configuration",
            Self::LostMetadata => "lost metadata",
        }
    }

    pub fn is_fine(self) -> bool {
        matches!(self, Self::New | Self::Old)
    }
}

/// Files by their path below a home, with their content; what the product itself writes is left out.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A machine of which is known what it was, and what the procedure makes of it.
pub struct Yard {
    machine: Renewed,
    old: Files,
    new: Files,
    metadata: StoreContent,
    /// What only the one release brings, or brings otherwise.
    of_old: Files,
    of_new: Files,
}

impl Yard {
    pub fn new(parent: &Path) -> Self {
        let mut options = options();
        options.package_dir = true;
        options.old_package = true;
        let machine = Renewed::new(parent, &options);
        let unpacked = tempfile::tempdir_in(parent).unwrap();
        let archive = machine.old_package.as_ref().expect("it was asked for");
        let tar = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(unpacked.path()).status();
        assert!(tar.unwrap().success());
        let top = fs::read_dir(unpacked.path()).unwrap().next().unwrap().unwrap().path();
        let (old_package, new_package) = (files(&top), files(machine.package_dir.as_ref().unwrap()));
        let but = |mine: &Files, theirs: &Files| {
            let only = mine.iter().filter(|(path, content)| theirs.get(*path) != Some(content));
            only.map(|(path, content)| (path.clone(), content.clone())).collect()
        };
        let mut yard = Self {
            of_old: but(&old_package, &new_package),
            of_new: but(&new_package, &old_package),
            old: Files::new(),
            new: Files::new(),
            metadata: StoreContent::new(),
            machine,
        };
        yard.machine.renew();
        yard.old = files(&yard.machine.real_home);
        yard.metadata = yard.metadata();
        let run = yard.killed(None);
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
        yard.new = files(&yard.machine.real_home);
        assert_eq!(yard.fate(), Fate::New, "undisturbed");
        assert_eq!(yard.roll_back(), Fate::Old, "rolled back undisturbed");
        yard
    }

    /// The procedure from the beginning, perhaps killed.
    pub fn killed(&self, blow: Option<Blow>) -> Run {
        self.machine.renew();
        let run = sieve::run(self.upgrade(), blow);
        if blow.is_none() {
            self.wait_for_the_service();
        }
        run
    }

    /// The operator runs it again.
    pub fn rerun(&self) -> Fate {
        let _ = run_limited(self.upgrade());
        self.fate()
    }

    /// The operator rolls back.
    pub fn roll_back(&self) -> Fate {
        let _ = run_limited(self.script("rollback.sh"));
        self.fate()
    }

    fn upgrade(&self) -> Command {
        let mut command = self.script("upgrade.sh");
        command.arg(&self.machine.package);
        command
    }

    fn script(&self, name: &str) -> Command {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manual").join(name);
        let mut command = Command::new("sh");
        command.arg(path).arg(&self.machine.home).current_dir(&self.machine.root);
        command.env("JAVA_HOME", &self.machine.java_home).env("LC_ALL", "C").env_remove("KYLIN_HOME");
        command
    }

    fn metadata(&self) -> StoreContent {
        let mut metadata = self.machine.store.content().unwrap();
        // What every start of the product rewrites.
        metadata.retain(|path, _| !path.starts_with("user"));
        metadata
    }

    /// A start returns before the service answers. One whose process is gone will never do.
    fn wait_for_the_service(&self) -> bool {
        let server = fs::read_to_string(self.machine.real_home.join("tomcat/conf/server.xml"));
        // It may have been brought back to the port of the package.
        if !server.is_ok_and(|text| text.contains(&format!("port=\"{}\"", self.machine.port))) {
            return false;
        }
        for _ in 0..2_000 {
            if self.machine.is_ready() {
                return true;
            }
            if self.machine.processes().unwrap().is_empty() {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        self.machine.is_ready()
    }

    fn fate(&self) -> Fate {
        let answers = self.wait_for_the_service();
        let home = &self.machine.real_home;
        if !home.join("bin/kylin.sh").exists() && !home.join("VERSION").exists() {
            return Fate::NoInstallation;
        }
        let now = files(home);
        let (is_old, is_new) = (now == self.old, now == self.new);
        if is_old || is_new {
            return if self.metadata() != self.metadata {
                Fate::LostMetadata
            } else if !answers {
                Fate::Down
            } else if is_old {
                Fate::Old
            } else {
                Fate::New
            };
        }
        let has =
            |those: &Files| those.iter().filter(|(path, content)| now.get(*path) == Some(content)).count();
        let (old, new) = (has(&self.of_old), has(&self.of_new));
        if old > 0 && new > 0 && !self.carries(&now) {
            return Fate::Mixed;
        }
        let whole = if new > 0 {
            new == Self::in_use(&self.of_new, &self.new)
        } else {
            old == Self::in_use(&self.of_old, &self.old)
        };
        if whole { Fate::LostConfiguration } else { Fate::HalfUnpacked }
    }

    /// How many of these files a release in use still has.
    fn in_use(those: &Files, used: &Files) -> usize {
        those.iter().filter(|(path, content)| used.get(*path) == Some(content)).count()
    }

    /// Whether everything of the old release in it is what the procedure carries over.
    fn carries(&self, now: &Files) -> bool {
        let strange: BTreeSet<&PathBuf> = now
            .iter()
            .filter(|(path, content)| {
                self.of_old.get(*path) == Some(content) && self.new.get(*path) != Some(content)
            })
            .map(|(path, _)| path)
            .collect();
        strange.is_empty()
    }
}

/// Everything but what the product's scripts write whenever they run.
fn files(home: &Path) -> Files {
    const PRODUCT: [&str; 8] = [
        "logs",
        "pid",
        "logrotate",
        "tomcat/webapps/kylin",
        "tomcat/logs",
        "meta_backups",
        "conf/fairscheduler.xml",
        "LOCK",
    ];
    let mut found = Files::new();
    collect(home, Path::new(""), &mut found);
    found.retain(|path, _| {
        let is_cache = path.starts_with("bin") && path.to_string_lossy().contains("cached-");
        !is_cache && !PRODUCT.iter().any(|own| path.starts_with(own))
    });
    found
}

fn collect(dir: &Path, below: &Path, found: &mut Files) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, below) = (entry.path(), below.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&path, &below, found);
        } else if kind.is_symlink() {
            found.insert(below, fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
        } else {
            found.insert(below, fs::read(&path).unwrap());
        }
    }
}
