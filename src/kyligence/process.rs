//! Which processes belong to a home, established by looking at `/proc`.
//!
//! A pid file proves nothing: after a restart of the machine its number may be a stranger's, and the product's own
//! `stop` would kill that stranger. `ps | grep` matches editors and the upgrader itself. Here a process belongs to a
//! home if what it runs says so: its command line, its working directory, its program or its `KYLIN_HOME`.
//!
//! Processes vanish while one looks; whatever cannot be read any more is gone. What may not be read (another user's
//! process) is counted, so that nobody takes "none found" for "none there".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::effect::fs::{Fs, read_file};
use crate::raw_path::RawPath;

/// Files of a home that hold process ids, one or several a file.
const PID_FILES: [&str; 6] =
    ["pid", "kgid", "grafana/pid", "spark_client_pid", "streaming_receiver_pid", "child_process"];

/// A pid file holds a few numbers.
const PID_FILE_LIMIT_BYTES: u64 = 64 << 10;

/// What a process does for its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is the server.
    Service,
    /// The server or its scripts started it, and stop it: a Spark driver, the guardian.
    Child,
    /// A script or Java program of the product at work: a metadata tool, a start under way.
    Tool,
    /// A bystander: an editor, a shell that stands in the directory.
    Other,
}

/// A process of a home. Number and start time together name it: numbers are used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeProcess {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_ticks: u64,
    /// What it does.
    pub role: Role,
    /// How it is known to belong to the home.
    pub known_by: String,
    /// Its command line as it may be shown: cut, and without secrets.
    pub command: String,
}

/// A pid file of the home that names a stranger, or nobody who lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StalePidFile {
    /// The file, relative to the home.
    pub file: RawPath,
    /// The living strangers that it names. Empty if it names nobody who lives.
    pub strangers: Vec<u32>,
    /// The home's own processes that it names beside them.
    pub ours: Vec<u32>,
}

/// What a look at the machine found about a home.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// The home's processes, by number.
    pub found: Vec<HomeProcess>,
    /// Pid files that name none of them.
    pub stale: Vec<StalePidFile>,
    /// How many living processes could not be looked at.
    pub hidden: usize,
}

impl Processes {
    /// The server processes.
    pub fn services(&self) -> impl Iterator<Item = &HomeProcess> {
        self.found.iter().filter(|process| process.role == Role::Service)
    }

    /// Whether the server runs.
    pub fn service_runs(&self) -> bool {
        self.services().next().is_some()
    }
}

/// Looks for the processes of a home.
///
/// `proc_dir` is `/proc`, or a stand-in. `names` are all paths under which the home is known: its real path and, if it
/// is reached through a link, that of the link. `own_pid` is kytx's: it and the processes above it are passed over, as
/// the operator may well stand in the home when typing the command.
pub fn scan(fs: &dyn Fs, proc_dir: &Path, names: &[&Path], own_pid: u32) -> io::Result<Processes> {
    let homes: Vec<PathBuf> = names.iter().map(|name| normalise(name)).collect();
    let mut all = BTreeMap::new();
    let mut hidden = 0;
    for name in fs.list(proc_dir)? {
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        match Seen::read(fs, &proc_dir.join(&name)) {
            Ok(Some(seen)) => {
                hidden += usize::from(seen.hidden);
                all.insert(pid, seen);
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden += 1,
            Err(error) => return Err(error),
        }
    }
    let own = ancestors(&all, own_pid);
    let home = homes.first().expect("BUG: a home has a path");
    let pid_files = read_pid_files(fs, home)?;
    let in_pid_file = |pid: u32| pid_files.iter().any(|(file, pids)| *file == "pid" && pids.contains(&pid));
    // A second kytx is the lock's business: it names the home, and may be no more than a `kytx status`.
    let own_exe = all.get(&own_pid).and_then(|seen| seen.exe.as_ref());
    let is_another_kytx = |seen: &Seen| own_exe.is_some() && seen.exe.as_ref() == own_exe;
    let mut found = Vec::new();
    for (pid, seen) in &all {
        if own.contains(pid) {
            continue;
        }
        if let Some((role, known_by)) = seen.belongs_to(fs, &homes, in_pid_file(*pid)) {
            if role == Role::Other && is_another_kytx(seen) {
                continue;
            }
            let command = seen.command();
            found.push(HomeProcess { pid: *pid, start_ticks: seen.start_ticks, role, known_by, command });
        }
    }
    mark_children(&mut found, &all, &pid_files);
    let stale = stale_pid_files(&found, &all, &pid_files);
    Ok(Processes { found, stale, hidden })
}

/// What `/proc/<pid>` says of a living process.
struct Seen {
    parent: u32,
    start_ticks: u64,
    args: Vec<Vec<u8>>,
    cwd: Option<PathBuf>,
    exe: Option<PathBuf>,
    kylin_home: Option<PathBuf>,
    /// Whether its links could not be read for want of permission.
    hidden: bool,
}

impl Seen {
    /// `None` for a process that is gone, a zombie, or a thread of the kernel.
    fn read(fs: &dyn Fs, dir: &Path) -> io::Result<Option<Self>> {
        let Some(stat) = read_gone(fs, &dir.join("stat"))? else { return Ok(None) };
        let Some((state, parent, start_ticks)) = parse_stat(&stat) else { return Ok(None) };
        if matches!(state, b'Z' | b'X' | b'x') {
            return Ok(None);
        }
        let Some(cmdline) = read_gone(fs, &dir.join("cmdline"))? else { return Ok(None) };
        if cmdline.is_empty() {
            return Ok(None);
        }
        let args = cmdline.split(|b| *b == 0).filter(|arg| !arg.is_empty()).map(<[u8]>::to_vec).collect();
        let mut hidden = false;
        let mut link = |name: &str| match fs.read_link(&dir.join(name)) {
            Ok(path) => Some(normalise(&path)),
            Err(error) => {
                hidden |= error.kind() == io::ErrorKind::PermissionDenied;
                None
            }
        };
        let (cwd, exe) = (link("cwd"), link("exe"));
        let environ = read_gone(fs, &dir.join("environ")).unwrap_or_default().unwrap_or_default();
        let kylin_home = environ
            .split(|b| *b == 0)
            .find_map(|variable| variable.strip_prefix(b"KYLIN_HOME="))
            .map(|value| normalise(Path::new(OsStr::from_bytes(value))));
        Ok(Some(Self { parent, start_ticks, args, cwd, exe, kylin_home, hidden }))
    }

    /// `named` says that the home's `pid` file names it.
    fn belongs_to(&self, fs: &dyn Fs, homes: &[PathBuf], named: bool) -> Option<(Role, String)> {
        let has_home = || homes.iter().any(|home| self.has_kylin_home(fs, home));
        if named && !self.is_shell() && has_home() {
            return Some((Role::Service, "the file `pid` and `KYLIN_HOME` in its environment".to_owned()));
        }
        homes.iter().find_map(|home| self.serves(fs, home)).map(|how| (Role::Service, how)).or_else(|| {
            let how = homes.iter().find_map(|home| self.uses(home))?;
            Some((if self.is_program() { Role::Tool } else { Role::Other }, how))
        })
    }

    /// Whether it is the home's server, and how that is known.
    fn serves(&self, fs: &dyn Fs, home: &Path) -> Option<String> {
        // The scripts write `<home>/bin/../tomcat`.
        let is_tomcat = self.args.iter().any(|arg| {
            arg.strip_prefix(b"-Dcatalina.base=").is_some_and(|base| {
                is_same_place(fs, Path::new(OsStr::from_bytes(base)), &home.join("tomcat"))
            })
        });
        if is_tomcat {
            return Some("`-Dcatalina.base` in its command line".to_owned());
        }
        let is_newten = self.args.windows(2).any(|pair| {
            pair[0] == b"-jar"
                && Path::new(OsStr::from_bytes(&pair[1])).file_name() == Some("newten.jar".as_ref())
        });
        let is_here = self.cwd.as_deref() == Some(&home.join("server"))
            || self.has_kylin_home(fs, home)
            || self.args.iter().any(|arg| mentions(arg, home));
        (is_newten && is_here).then(|| "`newten.jar` running for this home".to_owned())
    }

    /// Whether it has to do with the home, and how that is known.
    fn uses(&self, home: &Path) -> Option<String> {
        let inside = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.starts_with(home));
        // A shell that has merely exported the variable is none of the home's; a Java program with it is.
        if self.args.iter().any(|arg| mentions(arg, home)) {
            Some("its command line".to_owned())
        } else if inside(&self.cwd) {
            Some("its working directory".to_owned())
        } else if inside(&self.exe) {
            Some("its program".to_owned())
        } else if self.is_java() && self.kylin_home.as_deref() == Some(home) {
            Some("`KYLIN_HOME` in its environment".to_owned())
        } else {
            None
        }
    }

    fn has_kylin_home(&self, fs: &dyn Fs, home: &Path) -> bool {
        self.kylin_home.as_ref().is_some_and(|path| is_same_place(fs, path, home))
    }

    /// A shell that has exported `KYLIN_HOME` may have got the number of a server of before a restart.
    fn is_shell(&self) -> bool {
        self.args.first().is_some_and(|arg| arg.ends_with(b"sh"))
    }

    fn is_java(&self) -> bool {
        self.args.first().is_some_and(|arg| arg == b"java" || arg.ends_with(b"/java"))
    }

    fn is_program(&self) -> bool {
        self.is_java() || self.args.iter().any(|arg| arg.ends_with(b".sh"))
    }

    fn command(&self) -> String {
        let line = self.args.join(&b' ');
        let text = crate::kyligence::secrets::mask_text(&String::from_utf8_lossy(&line));
        text.chars().filter(|c| !c.is_control()).take(200).collect()
    }
}

/// Whether two paths lead to one directory: by name, or because a link that kytx was not told of is in the way.
fn is_same_place(fs: &dyn Fs, a: &Path, b: &Path) -> bool {
    // The final `.` has the kernel follow a link in the last component too.
    let place = |path: &Path| fs.stat(&path.join(".")).ok().map(|meta| (meta.dev, meta.ino));
    normalise(a) == b || place(a).is_some_and(|at| place(b) == Some(at))
}

/// Whether the path, or one below it, stands in an argument: whole, after `=`, within a class path, in a shell's command.
pub(super) fn mentions(arg: &[u8], home: &Path) -> bool {
    let in_home = |byte: &u8| home.as_os_str().as_bytes().contains(byte);
    arg.split(|byte| b"=:,;'\"() ".contains(byte) && !in_home(byte))
        .filter(|word| word.starts_with(b"/"))
        .any(|word| normalise(Path::new(OsStr::from_bytes(word))).starts_with(home))
}

/// State, parent and start time from a `stat` line. The program's name stands in brackets and may hold any
/// characters, brackets too.
fn parse_stat(stat: &[u8]) -> Option<(u8, u32, u64)> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    // Fields 3, 4 and 22 of proc(5).
    Some((*fields.first()?.as_bytes().first()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// Removes `.` and `..` by name, and the kernel's mark on the path of a directory that was deleted.
fn normalise(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let path = Path::new(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)));
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// A file of a process, `None` if the process is gone.
fn read_gone(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    // ESRCH: the process ended between open and read.
    const GONE: i32 = 3;
    match read_file(fs, path, 16 << 20) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(GONE) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn ancestors(all: &BTreeMap<u32, Seen>, pid: u32) -> Vec<u32> {
    let mut line = vec![pid];
    while let Some(seen) = line.last().and_then(|pid| all.get(pid)) {
        if line.contains(&seen.parent) {
            break;
        }
        line.push(seen.parent);
    }
    line
}

/// The pid files that exist, and the numbers in them.
fn read_pid_files(fs: &dyn Fs, home: &Path) -> io::Result<Vec<(&'static str, Vec<u32>)>> {
    let mut files = Vec::new();
    for file in PID_FILES {
        match read_file(fs, &home.join(file), PID_FILE_LIMIT_BYTES) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                files.push((file, text.split_whitespace().filter_map(|word| word.parse().ok()).collect()));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// A process of the home that a pid file names, and one that descends from it or from the server, goes when the server
/// is stopped. A script that is asked for a moment looks like the one that asked: a fork of the same shell.
fn mark_children(
    found: &mut [HomeProcess],
    all: &BTreeMap<u32, Seen>,
    pid_files: &[(&'static str, Vec<u32>)],
) {
    let is_named = |pid: u32| pid_files.iter().any(|(_, pids)| pids.contains(&pid));
    let owners: Vec<u32> =
        found.iter().filter(|p| p.role == Role::Service || is_named(p.pid)).map(|p| p.pid).collect();
    for process in found.iter_mut().filter(|process| process.role != Role::Service) {
        if ancestors(all, process.pid).iter().any(|pid| owners.contains(pid)) {
            process.role = Role::Child;
        }
    }
}

fn stale_pid_files(
    found: &[HomeProcess],
    all: &BTreeMap<u32, Seen>,
    pid_files: &[(&'static str, Vec<u32>)],
) -> Vec<StalePidFile> {
    let is_ours = |pid: &u32| found.iter().any(|process| process.pid == *pid);
    let mut stale = Vec::new();
    for (file, pids) in pid_files {
        let (ours, others): (Vec<u32>, Vec<u32>) = pids.iter().partition(|pid| is_ours(pid));
        let strangers: Vec<u32> = others.into_iter().filter(|pid| all.contains_key(pid)).collect();
        // A line that names one of ours beside a stranger is as dangerous: `kylin.sh stop` ends them all.
        if !strangers.is_empty() || ours.is_empty() {
            stale.push(StalePidFile { file: (*file).into(), strangers, ours });
        }
    }
    stale
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use crate::effect::os::OsFs;
    use std::os::unix::fs::symlink;

    /// A stand-in for one process.
    pub(in crate::kyligence) fn plant(
        proc_dir: &Path,
        pid: u32,
        (state, parent): (char, u32),
        args: &[&str],
        cwd: &str,
        env: &str,
    ) {
        let dir = proc_dir.join(pid.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let zeros = "0 ".repeat(17);
        std::fs::write(
            dir.join("stat"),
            format!("{pid} (a) b( c) {state} {parent} {zeros}{} 0\n", 1000 + pid),
        )
        .unwrap();
        let cmdline: String = args.iter().flat_map(|arg| [arg, "\0"]).collect();
        std::fs::write(dir.join("cmdline"), cmdline).unwrap();
        std::fs::write(dir.join("environ"), env).unwrap();
        let _ = std::fs::remove_file(dir.join("cwd"));
        symlink(cwd, dir.join("cwd")).unwrap();
        let _ = std::fs::remove_file(dir.join("exe"));
        symlink("/usr/bin/java", dir.join("exe")).unwrap();
    }

    struct Machine {
        dir: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let machine = Self { dir: tempfile::tempdir().unwrap() };
            std::fs::create_dir_all(machine.home()).unwrap();
            std::fs::create_dir_all(machine.proc_dir()).unwrap();
            machine
        }

        fn home(&self) -> PathBuf {
            self.dir.path().join("home")
        }

        fn proc_dir(&self) -> PathBuf {
            self.dir.path().join("proc")
        }

        fn plant(&self, pid: u32, args: &[&str], cwd: &str, env: &str) {
            let home = self.home();
            let fill = |text: &str| text.replace("HOME/", &format!("{}/", home.display()));
            let args: Vec<String> = args.iter().map(|arg| fill(arg)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            plant(&self.proc_dir(), pid, ('S', 1), &args, &fill(cwd), &fill(env));
        }

        fn scan(&self) -> Processes {
            scan(&OsFs, &self.proc_dir(), &[&self.home(), Path::new("/link/to/home")], 99).unwrap()
        }

        fn roles(&self) -> Vec<(u32, Role)> {
            self.scan().found.iter().map(|process| (process.pid, process.role)).collect()
        }
    }

    #[test]
    fn servers_are_known_by_what_they_run() {
        let machine = Machine::new();
        machine.plant(10, &["java", "-Dcatalina.base=HOME/bin/../tomcat", "x"], "/", "");
        machine.plant(11, &["java", "-jar", "newten.jar"], "HOME/server", "");
        machine.plant(12, &["java", "-jar", "newten.jar"], "/other/server", "");
        machine.plant(13, &["/opt/java", "-Dcatalina.base=/link/to/home/tomcat"], "/", "");
        machine.plant(14, &["java", "-Dcatalina.base=HOME/../home2/tomcat"], "/", "");
        assert_eq!(machine.roles(), [(10, Role::Service), (11, Role::Service), (13, Role::Service)]);
        assert_eq!(machine.scan().found[0].start_ticks, 1010);
    }

    #[test]
    fn a_kytx_that_names_the_home_is_not_one_of_its_processes() {
        let machine = Machine::new();
        let exe = |pid: u32, path: &str| {
            let link = machine.proc_dir().join(pid.to_string()).join("exe");
            std::fs::remove_file(&link).unwrap();
            symlink(path, link).unwrap();
        };
        machine.plant(99, &["kytx", "begin", "HOME/"], "/", "");
        machine.plant(10, &["kytx", "status", "HOME/"], "/", "");
        machine.plant(11, &["less", "HOME/logs/kylin.log"], "/", "");
        exe(99, "/usr/bin/kytx");
        exe(10, "/usr/bin/kytx (deleted)");
        exe(11, "/usr/bin/less");
        assert_eq!(machine.roles(), [(11, Role::Other)]);
    }

    #[test]
    fn a_server_started_through_a_link_that_nobody_told_of_is_found() {
        let machine = Machine::new();
        std::fs::create_dir_all(machine.home().join("tomcat")).unwrap();
        std::fs::create_dir_all(machine.home().join("bin")).unwrap();
        let link = machine.dir.path().join("link");
        symlink(machine.home(), &link).unwrap();
        let base = format!("-Dcatalina.base={}/bin/../tomcat", link.display());
        machine.plant(10, &["java", &base], "/", "");
        let env = format!("KYLIN_HOME={}", link.display());
        machine.plant(11, &["java", "-jar", "newten.jar"], "/", &env);
        assert_eq!(machine.roles(), [(10, Role::Service), (11, Role::Service)]);
    }

    #[test]
    fn a_named_process_with_the_homes_variable_is_the_server_and_a_shell_is_not() {
        let machine = Machine::new();
        machine.plant(10, &["server", "run"], "/", "KYLIN_HOME=HOME/");
        machine.plant(11, &["-bash"], "/", "KYLIN_HOME=HOME/");
        machine.plant(12, &["server"], "/", "KYLIN_HOME=/other");
        std::fs::write(machine.home().join("pid"), "10\n11\n12\n").unwrap();
        assert_eq!(machine.roles(), [(10, Role::Service)]);
        assert_eq!(machine.scan().stale[0].strangers, [11, 12]);
    }

    #[test]
    fn anything_else_in_the_home_is_found_and_neighbours_are_not() {
        let machine = Machine::new();
        machine.plant(20, &["sh", "HOME/bin/metastore.sh", "backup"], "/", "");
        machine.plant(21, &["tail"], "HOME/logs", "");
        machine.plant(22, &["java", "Tool"], "/", "A=1\0KYLIN_HOME=HOME/\0B=2");
        machine.plant(23, &["bash"], "/", "KYLIN_HOME=HOME/");
        machine.plant(24, &["java", "-cp", "/x.jar:HOME/lib/a.jar"], "/", "");
        machine.plant(25, &["vi", "HOME/../home-old/x"], "/", "");
        machine.plant(26, &["java"], "HOME/work (deleted)", "");
        let (tool, other) = (Role::Tool, Role::Other);
        assert_eq!(machine.roles(), [(20, tool), (21, other), (22, tool), (24, tool), (26, tool)]);
        assert!(!machine.scan().service_runs());
    }

    #[test]
    fn kytx_its_parents_zombies_and_the_vanished_are_passed_over() {
        let machine = Machine::new();
        let (proc_dir, home) = (machine.proc_dir(), machine.home());
        let inside = home.to_str().unwrap();
        plant(&proc_dir, 99, ('R', 98), &["kytx", "begin", inside], inside, "");
        plant(&proc_dir, 98, ('S', 97), &["bash"], inside, "");
        plant(&proc_dir, 97, ('S', 0), &["sshd"], inside, "");
        plant(&proc_dir, 96, ('Z', 1), &["java", inside], inside, "");
        std::fs::create_dir_all(proc_dir.join("95")).unwrap();
        std::fs::create_dir_all(proc_dir.join("self")).unwrap();
        assert_eq!(machine.scan(), Processes::default());
    }

    #[test]
    fn a_pid_file_that_names_a_stranger_or_nobody_is_stale() {
        let machine = Machine::new();
        machine.plant(30, &["java", "-Dcatalina.base=HOME/tomcat"], "/", "");
        machine.plant(31, &["database"], "/", "");
        let stale = |content: &str| {
            std::fs::write(machine.home().join("pid"), content).unwrap();
            machine.scan().stale.into_iter().map(|stale| stale.strangers).collect::<Vec<_>>()
        };
        assert!(stale("30\n").is_empty());
        assert!(stale("29\n30\n").is_empty(), "a line of an earlier start beside the living one");
        assert_eq!(stale("31\n"), [vec![31]]);
        assert_eq!(stale("30\n31\n"), [vec![31]]);
        assert_eq!(stale("29"), [vec![0; 0]]);
        assert_eq!(stale(""), [vec![0; 0]]);
    }

    #[test]
    fn what_the_server_started_is_its_own() {
        let machine = Machine::new();
        machine.plant(30, &["java", "-Dcatalina.base=HOME/tomcat"], "/", "");
        plant(&machine.proc_dir(), 31, ('S', 30), &["sh"], "/", "");
        let driver = machine.home().join("spark/jars");
        plant(&machine.proc_dir(), 32, ('S', 31), &["java", "-cp", driver.to_str().unwrap()], "/", "");
        machine.plant(33, &["sh", "HOME/bin/guardian.sh"], "/", "");
        machine.plant(34, &["sh", "HOME/bin/metastore.sh"], "/", "");
        let guardian = machine.home().join("bin/guardian.sh");
        plant(&machine.proc_dir(), 35, ('S', 33), &["sh", guardian.to_str().unwrap()], "/", "");
        std::fs::write(machine.home().join("kgid"), "33").unwrap();
        let children = [(32, Role::Child), (33, Role::Child), (34, Role::Tool), (35, Role::Child)];
        let roles = [&[(30, Role::Service)][..], &children[..]].concat();
        assert_eq!(machine.roles(), roles);
    }

    #[test]
    fn the_real_proc_can_be_scanned() {
        let dir = tempfile::tempdir().unwrap();
        let seen = scan(&OsFs, Path::new("/proc"), &[dir.path()], std::process::id()).unwrap();
        assert!(seen.found.is_empty());
    }
}
