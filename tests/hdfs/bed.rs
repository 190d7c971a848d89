//! A machine whose cube data are on the real HDFS of `testbed/hadoop`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kytx::effect::run_log::RunLog;
use kytx::effect::shell::OsShell;
use kytx::effect::signal::StopRequests;
use kytx::hadoop::cluster::Cluster;
use kytx::hadoop::manifest::CubeManifest;
use kytx::hadoop::survey::Sums;
use kytx::raw_path::RawPath;
use rustix::process::{Pid, Signal, kill_process};

use kytx::testbed::Options;

use crate::support::{Machine, Ran, options};

/// One test at a time: a job takes all that the bed has, and what is called between stop and start is counted.
static BED: Mutex<()> = Mutex::new(());

/// Takes the bed, or says that there is none. Where the tests must not be skipped (`CI=true`) that is a failure.
pub fn bed(test: &str) -> Option<MutexGuard<'static, ()>> {
    if std::env::var_os("HADOOP_BED_DIR").is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "`{test}` must run, and there is no HADOOP_BED_DIR"
        );
        println!("SKIPPED {test}: no Hadoop (testbed/hadoop/up DIR, then source DIR/env)");
        return None;
    }
    Some(BED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The user that an ordinary site runs the product as.
pub const USER: &str = "ke";

/// How the directories on the cluster are owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The working directory is the user's: names in it can be changed.
    Own,
    /// It is somebody else's, as `/kylin` below `/` often is.
    Foreign,
}

/// A machine and its part of the cluster.
pub struct Site {
    pub machine: Machine,
    pub working_dir: String,
    pub user: &'static str,
    calls: PathBuf,
    /// Whether the working directory goes with this machine.
    is_owner: bool,
}

/// Files with names that break whatever is not careful: path below the instance's folder, bytes of content.
pub fn names() -> Vec<(&'static str, usize)> {
    vec![
        ("parquet/a b/part 1.parquet", 10),
        ("parquet/day=2026-01-01/100%25.parquet", 100),
        ("parquet/gr\u{fc}n/\u{e4}\u{6f22}.parquet", 1),
        ("parquet/[x]{y}*?.parquet", 5),
        ("parquet/empty", 0),
        // Three blocks.
        ("parquet/large.parquet", 2_500_000),
        ("dict/1.dict", 4096),
    ]
}

impl Site {
    /// Builds both, and starts the service.
    pub fn new(user: &'static str, parent: Parent) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let site = Self::of(
            user,
            format!("/kytx-test/{}-{number}/kylin", std::process::id()),
            options().major(),
            true,
        );
        site.fill(parent);
        site.machine.start();
        site
    }

    /// Another machine with another home on the same part of the cluster. Its service does not run, and an upgrade of it is
    /// a minor one.
    pub fn beside(&self) -> Self {
        Self::of(self.user, self.working_dir.clone(), options(), false)
    }

    fn of(user: &'static str, working_dir: String, mut options: Options, is_owner: bool) -> Self {
        // Without a scheme, as the product's default is.
        options.cluster = Some(working_dir.clone());
        let machine = Machine::new(&options);
        let calls = machine.root.join("hadoop.calls");
        Self { machine, working_dir, user, calls, is_owner }
    }

    fn fill(&self, parent: Parent) {
        let tree = self.machine.root.join("upload");
        for (name, bytes) in names() {
            let path = tree.join("kylin_metadata").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content: Vec<u8> = (0..bytes).map(|at| (at * 31 + name.len()) as u8).collect();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(tree.join("kylin_metadata/empty dir")).unwrap();
        fs::create_dir_all(tree.join("other_instance")).unwrap();
        fs::write(tree.join("other_instance/theirs"), b"not ours").unwrap();
        let dir = &self.working_dir;
        admin("hadoop", &["fs", "-mkdir", "-p", dir]);
        let put = |name: &str| tree.join(name).to_str().unwrap().to_owned();
        admin("hadoop", &["fs", "-put", "-p", &put("kylin_metadata"), &put("other_instance"), dir]);
        admin("hadoop", &["fs", "-chmod", "750", &format!("{dir}/kylin_metadata")]);
        let owned = match parent {
            Parent::Own => dir.clone(),
            Parent::Foreign => format!("{dir}/kylin_metadata"),
        };
        admin("hadoop", &["fs", "-chown", "-R", &format!("{}:kegrp", self.user), &owned]);
    }

    /// The instance's folder.
    pub fn source(&self) -> String {
        format!("{}/kylin_metadata", self.working_dir)
    }

    /// kytx with these words, in an environment in which the cluster is configured.
    pub fn kytx(&self, words: &[&str]) -> Command {
        let mut command = self.machine.kytx(words);
        let bed: BTreeMap<_, _> = std::env::vars().filter(|(name, _)| name.starts_with("HADOOP_")).collect();
        command.envs(bed).env("HADOOP_BED_CALLS", &self.calls).env("HADOOP_USER_NAME", self.user);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command on the home.
    #[must_use = "assert on the code, or on the output"]
    pub fn run(&self, command: &str, more: &[&str]) -> Ran {
        let home = self.machine.home.to_str().unwrap().to_owned();
        let mut words = vec![command, &home];
        words.extend(more);
        self.kytx(&words).output().unwrap().into()
    }

    /// The words of `begin`.
    pub fn begin_words(&self, more: &[&str]) -> Vec<String> {
        let mut words: Vec<String> =
            ["begin", self.machine.home.to_str().unwrap(), "--package"].map(str::to_owned).to_vec();
        words.push(self.machine.package.to_str().unwrap().to_owned());
        words.extend(["--silent", "--archive", "none"].map(str::to_owned));
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    }

    /// Begins an upgrade.
    #[must_use = "assert on the code, or on the output"]
    pub fn begin(&self, more: &[&str]) -> Ran {
        let words = self.begin_words(more);
        self.kytx(&words.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap().into()
    }

    /// Runs kytx and has it killed at a call with these words: `instead` of it, `during` it or `after` it.
    pub fn killed_at(&self, words: &[&str], kill: &str) {
        let mut command = self.kytx(words);
        command.env("HADOOP_BED_KILL", kill).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap();
        assert_eq!(status.signal(), Some(9), "{words:?} was not killed: no call `{kill}`");
    }

    /// Runs kytx and kills it once YARN has a job in this state. The job's client lives on, and so does the job.
    pub fn killed_at_job(&self, words: &[&str], state: &str) {
        let mut child = self.spawn(words);
        wait_for(state, || job_in(state) || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "{words:?} ended before its job was {state}");
    }

    /// Runs kytx beside the test.
    pub fn spawn(&self, words: &[&str]) -> Child {
        self.kytx(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The instance's folder and the neighbour's.
    pub fn data(&self) -> (CubeManifest, CubeManifest) {
        let mut both = survey(&[&self.source(), &format!("{}/other_instance", self.working_dir)]);
        let neighbour = both.pop().unwrap();
        (both.pop().unwrap(), neighbour)
    }

    /// Does to the cube data what a new release does: deletes, overwrites, adds, changes attributes.
    pub fn change(&self) {
        let source = self.source();
        let new = self.machine.root.join("new.parquet");
        fs::write(&new, b"of the new release").unwrap();
        let new = new.to_str().unwrap();
        admin(
            "hadoop",
            &["fs", "-rm", "-r", "-skipTrash", &format!("{source}/dict"), &format!("{source}/parquet/empty")],
        );
        admin("hadoop", &["fs", "-put", "-f", new, &format!("{source}/parquet/a b/part 1.parquet")]);
        admin("hadoop", &["fs", "-put", new, &format!("{source}/parquet/new.parquet")]);
        admin("hadoop", &["fs", "-chmod", "600", &format!("{source}/parquet/large.parquet")]);
    }

    /// A word of `status --json`.
    #[track_caller]
    pub fn status(&self, word: &str) -> String {
        let ran = self.run("status", &["--json"]).expect_code(0);
        let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        status[word].as_str().unwrap_or_else(|| panic!("no `{word}` in {status}")).to_owned()
    }

    /// The programs of Hadoop that kytx has called, one line each.
    pub fn calls(&self) -> Vec<String> {
        fs::read_to_string(&self.calls).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// Runs a program of the bed as its superuser; returns what it says.
#[track_caller]
pub fn admin(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C.UTF-8").env_remove("HADOOP_USER_NAME").stdin(Stdio::null());
    command.env("HADOOP_CLIENT_OPTS", "-Dfile.encoding=UTF-8 -Dsun.jnu.encoding=UTF-8");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Looks at the cluster with kytx's own eyes, as its superuser.
pub fn with_cluster<T>(work: impl FnOnce(&Cluster<'_>) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let log = RunLog::create(dir.path(), "look").unwrap();
    let shell = OsShell::new(dir.path().join("child"), &log, str::to_owned, StopRequests::none());
    work(&Cluster::new(&shell, Path::new("/")))
}

/// What directories hold, checksums included.
pub fn survey(dirs: &[&str]) -> Vec<CubeManifest> {
    let dirs: Vec<RawPath> = dirs.iter().map(|dir| RawPath::from(*dir)).collect();
    with_cluster(|cluster| cluster.survey(&dirs, Sums::Wanted)).unwrap()
}

/// The names in a directory.
pub fn names_in(dir: &str) -> Vec<String> {
    let names = with_cluster(|cluster| cluster.names_in(&dir.into())).unwrap();
    names.iter().map(|path| String::from_utf8_lossy(path.file_name()).into_owned()).collect()
}

/// The files of blocks that the DataNode of the bed holds.
fn block_files(dir: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(block_files(path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Flips a bit in the first block of a file, as a disk does.
pub fn decay(file: &str) {
    let blocks = admin("hdfs", &["fsck", file, "-files", "-blocks"]);
    let at = blocks.find("blk_").unwrap_or_else(|| panic!("{blocks}"));
    let name = blocks[at..].split('_').take(2).collect::<Vec<_>>().join("_");
    let dir = PathBuf::from(std::env::var("HADOOP_BED_DIR").unwrap()).join("datanode");
    let block = block_files(dir).into_iter().find(|path| path.file_name().unwrap() == name.as_str()).unwrap();
    let mut bytes = fs::read(&block).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&block, bytes).unwrap();
}

/// The longest that anything here may take: a job on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_mins(10);

/// Waits, with a limit.
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes whose command line holds a text, and each of these words as a word.
fn processes_with(text: &str, words: &[&str]) -> Vec<i32> {
    let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let has = |word: &&str| line.split(|byte| *byte == 0).any(|other| other == word.as_bytes());
        (String::from_utf8_lossy(&line).contains(text) && words.iter().all(has)).then_some(pid)
    });
    found.collect()
}

/// Sends a signal to the processes of this bed that copy, and says how many there are. Stopped, they hold a job where it is.
pub fn signal_copiers(signal: Signal) -> usize {
    let bed = std::env::var("HADOOP_BED_DIR").unwrap();
    let copiers = processes_with(&bed, &["org.apache.hadoop.mapred.YarnChild"]);
    // One may have ended since.
    for pid in &copiers {
        let _ = kill_process(Pid::from_raw(*pid).unwrap(), signal);
    }
    copiers.len()
}

/// Whether YARN has a job in this state.
pub fn job_in(state: &str) -> bool {
    apps_in(state).contains("application_")
}

/// What YARN says of jobs in a state. Asked over HTTP, as a Java would be too slow to catch one.
fn apps_in(state: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(std::env::var("HADOOP_BED_RM").unwrap())?;
        write!(connection, "GET /ws/v1/cluster/apps?states={state} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

/// Kills the client of the DistCp job that runs.
pub fn kill_client() {
    let configuration = std::env::var("HADOOP_CONF_DIR").unwrap();
    // Another bed's client is none of this test's: the class path ends in the bed's own configuration.
    let clients = processes_with(&configuration, &["org.apache.hadoop.tools.DistCp", "-delete"]);
    assert_eq!(clients.len(), 1, "one client");
    kill_process(Pid::from_raw(clients[0]).unwrap(), Signal::KILL).unwrap();
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.is_owner {
            return;
        }
        // Whatever state the test died in: snapshots keep a directory from being removed.
        let source = self.source();
        let quiet = |args: &[&str]| {
            let _ = Command::new("hadoop")
                .args(args)
                .env_remove("HADOOP_USER_NAME")
                .stdin(Stdio::null())
                .output();
        };
        let listed =
            Command::new("hadoop").args(["fs", "-ls", "-C", &format!("{source}/.snapshot")]).output();
        for line in String::from_utf8_lossy(&listed.map(|ran| ran.stdout).unwrap_or_default()).lines() {
            if let Some((_, name)) = line.rsplit_once('/') {
                quiet(&["fs", "-deleteSnapshot", &source, name]);
            }
        }
        quiet(&["fs", "-rm", "-r", "-f", "-skipTrash", self.working_dir.trim_end_matches("/kylin")]);
    }
}
