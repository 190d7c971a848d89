//! A whole machine in a scratch directory: an old home in use, a new package, a metadata store, cube data, knobs.

#![allow(clippy::disallowed_methods, reason = "it builds test machines, not customers'")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::content::Seed;
use super::customise::{Site, customise, make_nasty};
use super::knobs::{Knob, Knobs};
use super::package::{Age, Layout, Package, Release, Size};
use super::store::{Store, write_below};

/// How the home names its metadata store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataUrl {
    /// By its directory.
    Directory,
    /// As a database, with a password that must be shown to nobody: [`Scenario::PASSWORD`].
    Jdbc,
}

/// What makes the old home nasty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one of many independent switches")]
pub struct Nasty {
    /// Names that are not UTF-8, that hold blanks, newlines, pattern characters, a leading dash.
    pub names: bool,
    /// Symbolic links of every kind, an absolute profile link, hard links.
    pub links: bool,
    /// A sparse file, an extended attribute, a setuid file of another owner, a read-only directory.
    pub attributes: bool,
    /// A FIFO and a socket in `logs`.
    pub special: bool,
    /// A pid file that names no process.
    pub stale_pid: bool,
    /// A lock that a killed start has left.
    pub lock: bool,
}

impl Nasty {
    /// Everything that an upgrade must cope with, and no more: not the lock, which prevents every start.
    pub const ALL: Self =
        Self { names: true, links: true, attributes: true, special: true, stale_pid: true, lock: false };
}

/// What to build.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one of many independent switches")]
pub struct Options {
    /// The layout of both versions.
    pub layout: Layout,
    /// The words before the version in both `VERSION` files.
    pub product: String,
    /// The version of the old home.
    pub old_version: String,
    /// The version of the new package.
    pub new_version: String,
    /// How much either holds.
    pub size: Size,
    /// How the home names its metadata store.
    pub url: MetadataUrl,
    /// What makes the home nasty.
    pub nasty: Nasty,
    /// The operator's path of the home is a symbolic link to it.
    pub home_link: bool,
    /// There is a blank in the home's path.
    pub blank: bool,
    /// Another instance has its data in the same working directory.
    pub neighbour: bool,
    /// The working directory on a cluster that the home names. What the stand-in itself keeps in one stays local.
    pub cluster: Option<String>,
    /// The new package exists as an unpacked directory, too.
    pub package_dir: bool,
    /// The old package is still there, as an archive.
    pub old_package: bool,
    /// What the contents are made from.
    pub seed: Seed,
    /// The program with the stand-in's service in it: kytx.
    pub service_program: PathBuf,
}

impl Options {
    /// A minor upgrade of a small KE 3 with nothing nasty in it.
    pub fn new(service_program: impl Into<PathBuf>) -> Self {
        Self {
            layout: Layout::Ke3,
            product: "Kyligence Enterprise".to_owned(),
            old_version: "3.4.2.2028-GA".to_owned(),
            new_version: "3.4.5.2118-GA".to_owned(),
            size: Size::Tiny,
            url: MetadataUrl::Jdbc,
            nasty: Nasty::default(),
            home_link: false,
            blank: false,
            neighbour: false,
            cluster: None,
            package_dir: false,
            old_package: false,
            seed: Seed(1),
            service_program: service_program.into(),
        }
    }

    /// The same as a major upgrade, from 3.3.
    #[must_use]
    pub fn major(mut self) -> Self {
        "3.3.3.2028-GA".clone_into(&mut self.old_version);
        self
    }

    /// The same as an upgrade of Apache Kylin 3, which writes its name otherwise and does not wrap its answers.
    #[must_use]
    pub fn kylin3(mut self) -> Self {
        "Apache kylin".clone_into(&mut self.product);
        "3.1.2".clone_into(&mut self.old_version);
        "3.1.3".clone_into(&mut self.new_version);
        self
    }

    /// The same as an upgrade of KE 4.
    #[must_use]
    pub fn ke4(mut self) -> Self {
        self.layout = Layout::Ke4;
        "4.5.6.0".clone_into(&mut self.old_version);
        "4.5.7.0".clone_into(&mut self.new_version);
        self
    }
}

/// A call of one of the product's scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// The script's name.
    pub script: String,
    /// Its arguments, with blanks between them.
    pub args: String,
    /// The home it worked on.
    pub home: PathBuf,
    /// The directory it was called in.
    pub cwd: PathBuf,
}

/// A machine. Whoever builds it ends its services with [`Scenario::end_services`]; nothing is done on drop.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it was built from.
    pub options: Options,
    /// The scratch directory that holds everything below.
    pub root: PathBuf,
    /// The home as the operator names it: a symbolic link, if that was asked for.
    pub home: PathBuf,
    /// The home itself.
    pub real_home: PathBuf,
    /// The new package's archive.
    pub package: PathBuf,
    /// The new package, unpacked, if that was asked for.
    pub package_dir: Option<PathBuf>,
    /// The old package's archive, if that was asked for.
    pub old_package: Option<PathBuf>,
    /// The metadata store and the cube data.
    pub store: Store,
    /// The working directory, which may hold other instances' data as well.
    pub working_dir: PathBuf,
    /// The stand-in's knobs.
    pub knobs: Knobs,
    /// The port that the service of the home listens on.
    pub port: u16,
    /// A stand-in for a JDK 8 of 64 bits, for `JAVA_HOME`.
    pub java_home: PathBuf,
}

impl Scenario {
    /// The password in the metadata URL of [`MetadataUrl::Jdbc`].
    pub const PASSWORD: &str = "Pa55-w0rd-of-the-store";

    /// The metadata identifier.
    const IDENTIFIER: &str = "kylin_metadata";

    /// Builds a machine in a directory that exists. The service is not started.
    pub fn build(root: &Path, options: &Options) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        let knobs = Knobs::at(root.join("standin.knobs"));
        let store_dir = root.join("metadata");
        knobs.set(Knob::CallLog, root.join("calls.log").display())?;
        knobs.set(Knob::ServiceProgram, options.service_program.display())?;
        if options.url == MetadataUrl::Jdbc {
            knobs.set(Knob::MetadataDir, store_dir.display())?;
        }
        let working_dir = root.join("hdfs/kylin");
        if options.cluster.is_some() {
            knobs.set(Knob::WorkingDir, working_dir.display())?;
        }
        let store = Store::at(store_dir, working_dir.join(Self::IDENTIFIER));
        store.fill(options.layout, &options.old_version)?;
        if options.neighbour {
            write_below(&working_dir.join("other_instance/parquet/0.parquet"), b"not ours")?;
        }
        let mut scenario = Self {
            options: options.clone(),
            home: PathBuf::new(),
            real_home: PathBuf::new(),
            package: PathBuf::new(),
            package_dir: None,
            old_package: None,
            store,
            working_dir,
            knobs,
            port: free_port()?,
            java_home: root.join("jdk"),
            root,
        };
        scenario.build_home()?;
        scenario.build_packages()?;
        let java = scenario.java_home.join("bin/java");
        write_below(&java, JAVA.as_bytes())?;
        fs::set_permissions(java, fs::Permissions::from_mode(0o755))?;
        Ok(scenario)
    }

    /// Runs one of the home's scripts to its end, as an operator does at a shell: with `KYLIN_HOME` set.
    pub fn run_script(&self, script: &str, args: &[&str]) -> io::Result<Output> {
        Command::new(self.home.join("bin").join(script))
            .args(args)
            .env("KYLIN_HOME", self.script_home())
            .env("JAVA_HOME", &self.java_home)
            .env_remove("KYLIN_CONF")
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .output()
    }

    /// The home as its scripts want it spelled: KE 4 compares it with the physical path.
    pub fn script_home(&self) -> &Path {
        if self.options.layout == Layout::Ke4 { &self.real_home } else { &self.home }
    }

    /// Every call of the product's scripts so far, in order.
    pub fn calls(&self) -> io::Result<Vec<Called>> {
        let text = match fs::read(self.root.join("calls.log")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let calls = lines.map(|line| {
            let mut fields = line.split(|byte| *byte == b'\t');
            let mut next = || fields.next().unwrap_or_default();
            Called { script: lossy(next()), args: lossy(next()), home: path(next()), cwd: path(next()) }
        });
        Ok(calls.collect())
    }

    /// The processes that run for a home of this machine.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        processes_below(&self.root)
    }

    /// Kills whatever runs for a home of this machine, and waits until it is gone.
    pub fn end_services(&self) -> io::Result<()> {
        end_processes_below(&self.root)
    }

    fn metadata_url(&self) -> String {
        match self.options.url {
            MetadataUrl::Directory => self.store.dir().display().to_string(),
            MetadataUrl::Jdbc => format!(
                "{}@jdbc,url=jdbc:mysql:///kylin,username=kylin,password={},maxActive=10,maxIdle=10",
                Self::IDENTIFIER,
                Self::PASSWORD
            ),
        }
    }

    fn package_of(&self, age: Age) -> Package {
        let options = &self.options;
        let version = match age {
            Age::Old => options.old_version.clone(),
            Age::New => options.new_version.clone(),
        };
        let release = Release { layout: options.layout, product: options.product.clone(), version, age };
        Package::new(&release, options.size, self.knobs.path(), options.seed)
    }

    fn build_home(&mut self) -> io::Result<()> {
        let parent = self.root.join(if self.options.blank { "opt with blank" } else { "opt" });
        fs::create_dir_all(&parent)?;
        self.real_home = parent.join(if self.options.home_link { "kyligence-old" } else { "kyligence" });
        self.home = parent.join("kyligence");
        if self.options.home_link {
            std::os::unix::fs::symlink("kyligence-old", &self.home)?;
        }
        self.package_of(Age::Old).write_tree(&self.real_home)?;
        let site = Site {
            layout: self.options.layout,
            metadata_url: &self.metadata_url(),
            working_dir: &self
                .options
                .cluster
                .clone()
                .unwrap_or_else(|| format!("file://{}", self.working_dir.display())),
            port: self.port,
            log_bytes: self.options.size.filling().0 / 25,
            seed: self.options.seed,
        };
        customise(&self.real_home, &site)?;
        make_nasty(&self.real_home, self.options.layout, self.options.nasty)
    }

    fn build_packages(&mut self) -> io::Result<()> {
        let dir = self.root.join("downloads");
        fs::create_dir(&dir)?;
        let new = self.package_of(Age::New);
        self.package = dir.join(format!("{}.tar.gz", new.name));
        new.write_archive(&self.package)?;
        if self.options.package_dir {
            let unpacked = dir.join(&new.name);
            new.write_tree(&unpacked)?;
            self.package_dir = Some(unpacked);
        }
        if self.options.old_package {
            let old = self.package_of(Age::Old);
            let archive = dir.join(format!("{}.tar.gz", old.name));
            old.write_archive(&archive)?;
            self.old_package = Some(archive);
        }
        Ok(())
    }
}

/// The processes that run for a home below this directory: those with such a `KYLIN_HOME`. A process of another user,
/// which cannot be looked into, is none of them.
pub fn processes_below(root: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // Gone in between, or not ours to read. A zombie's environment reads as empty.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let is_ours = environment.split(|byte| *byte == 0).any(|variable| {
            variable
                .strip_prefix(b"KYLIN_HOME=")
                .is_some_and(|home| Path::new(OsStr::from_bytes(home)).starts_with(root))
        });
        if is_ours && pid.cast_unsigned() != std::process::id() {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Kills them, and waits until they are gone.
pub fn end_processes_below(root: &Path) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    // An exec takes no time to speak of, and a program may have wiped its command line for good.
    const EXEC_PATIENCE: Duration = Duration::from_secs(1);
    let start = Instant::now();
    loop {
        let processes = processes_below(root)?;
        if processes.is_empty() && (start.elapsed() > EXEC_PATIENCE || !somebody_executes()?) {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let what = format!("the processes {processes:?} do not end");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        for pid in processes.into_iter().filter_map(Pid::from_raw) {
            // Gone in between is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::yield_now();
    }
}

/// Whether a process is in the middle of its exec: it has neither environment nor command line, and may turn out to be
/// anybody's. A thread of the kernel has no program either, and a zombie none any more.
fn somebody_executes() -> io::Result<bool> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_empty = |name| fs::read(path.join(name)).is_ok_and(|content| content.is_empty());
        if is_empty("environ") && is_empty("cmdline") && fs::read_link(path.join("exe")).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says what the real one says when it is asked for its version.
const JAVA: &str = r#"#!/bin/sh
{
    echo '    sun.arch.data.model = 64'
    echo 'openjdk version "1.8.0_382"'
    echo 'OpenJDK Runtime Environment (build 1.8.0_382-b05)'
    echo 'OpenJDK 64-Bit Server VM (build 25.382-b05, mixed mode)'
} >&2
"#;

/// A port that nothing listens on at this moment, below those that the kernel gives to outgoing connections: one of
/// them could take the port between now and the start of the service.
pub(super) fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Scenarios of one process never meet; those of two processes start far apart.
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..1_000 {
        let port = 10_000 + (start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port between 10000 and 30000"))
}
