//! The documents are true. The README's transcripts are run in order against one test machine: every command is really
//! typed, and what it printed is compared with what the README shows.
//!
//! A fenced block whose language is `console` is a transcript: lines that begin with `$ ` are typed (a backslash at the
//! end continues them), the lines after them are what the command prints on both outputs, and `[exit 4]` ends the output
//! of one that did not succeed. One line `...` stands for any number of lines. In the README the test machine's scratch
//! directory is `/`, its user `kylin`, its host `node1`. A word after `console` says more: `killed-while-starting`
//! kills kytx while the product's script starts the service, and `on-a-fresh-machine` begins anew.
//!
//! What differs from run to run (names of transactions, digests, process ids, times, sizes) is left out of the
//! comparison. `KYTX_BLESS=1 cargo test --test readme` writes the README anew.

#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "it touches test machines only, and the README on request"
)]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kytx::effect::shell::orphan_lock_held;
use kytx::testbed::Knob;
use support::{Machine, kytx_binary, options, wait_until};

/// What the README calls the machine's directories.
const DIRS: [&str; 4] = ["/opt", "/downloads", "/hdfs", "/metadata"];

/// Stands for lines that are left out.
const ELISION: &str = "...";

/// One command of a transcript and what it printed.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    /// As the README shows it, with its continuation lines.
    shown: Vec<String>,
    printed: Vec<String>,
}

/// What the word after `console` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Ordinary,
    KilledWhileStarting,
    FreshMachine,
}

/// A transcript and where its lines are in the README.
#[derive(Debug, PartialEq, Eq)]
struct Transcript {
    first_line: usize,
    after_line: usize,
    setting: Setting,
    typed: Vec<Typed>,
}

#[test]
fn the_transcripts_of_the_readme_are_true() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let transcripts = parse(&text);
    assert!(transcripts.len() >= 10, "every command has a transcript");
    let mut bench = Bench::new();
    let mut wrong = Vec::new();
    let mut ran: Vec<(Transcript, Vec<String>)> = Vec::new();
    for transcript in transcripts {
        if transcript.setting == Setting::FreshMachine {
            bench = Bench::new();
        }
        let killed = transcript.setting == Setting::KilledWhileStarting;
        let mut lines = Vec::new();
        for typed in &transcript.typed {
            let printed = abridged(bench.run(&typed.shown, killed), &typed.printed);
            wrong.extend(difference(typed, &printed));
            lines.extend(typed.shown.iter().cloned());
            lines.extend(printed);
        }
        ran.push((transcript, lines));
    }
    if std::env::var_os("KYTX_BLESS").is_some() && !wrong.is_empty() {
        let mut blessed: Vec<String> = text.lines().map(str::to_owned).collect();
        // From the end, so that the places of the blocks before stay.
        for (transcript, lines) in ran.into_iter().rev() {
            blessed.splice(transcript.first_line..transcript.after_line, lines);
        }
        fs::write(&path, blessed.join("\n") + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "README.md is not true (KYTX_BLESS=1 rewrites it):\n{}", wrong.join("\n"));
}

/// The machine on which the README plays, and `kytx` on its path.
struct Bench {
    machine: Machine,
    path: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let machine = Machine::new(&options().major());
        machine.start();
        let path = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(kytx_binary(), path.path().join("kytx")).unwrap();
        Self { machine, path }
    }

    /// Types a command, and returns the lines it printed, as the README shows them.
    fn run(&self, shown: &[String], killed: bool) -> Vec<String> {
        let gate = self.machine.root.join("start.gate");
        if killed {
            self.machine.knobs.set(Knob::StartGate, gate.display()).unwrap();
        }
        let out_path = self.path.path().join("out");
        let out = fs::File::create(&out_path).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &self.typed(shown)])
            .current_dir(&self.machine.root)
            .env_clear()
            .env("PATH", self.search_path())
            .env("HOME", &self.machine.root)
            .env("KYLIN_HOME", &self.machine.home)
            .env("JAVA_HOME", &self.machine.java_home)
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        if killed {
            let reached = PathBuf::from(format!("{}.reached", gate.display()));
            wait_until("the product's script starts the service", || reached.exists());
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        if killed {
            fs::write(&gate, "").unwrap();
            // Whether `resume` still has to wait for the script that is left would depend on time.
            let lock = self.machine.root.join("opt/.kytx/kyligence/child");
            wait_until("the script that kytx left has ended", || !orphan_lock_held(&lock).unwrap());
            self.machine.knobs.unset(Knob::StartGate).unwrap();
        }
        let text = fs::read(&out_path).unwrap();
        let text = self.pretty(&String::from_utf8_lossy(&text));
        let mut lines: Vec<String> = without_strangers(text.lines().map(str::to_owned).collect());
        match (status.code(), status.signal()) {
            (Some(0), _) => {}
            (Some(code), _) => lines.push(format!("[exit {code}]")),
            (None, signal) => lines.push(format!("[killed by signal {}]", signal.unwrap_or_default())),
        }
        lines
    }

    /// The command for this machine. `exec`, so that a signal reaches kytx and not a shell.
    fn typed(&self, shown: &[String]) -> String {
        let root = self.machine.root.to_str().unwrap();
        let mut command = shown.join("\n").trim_start_matches("$ ").to_owned();
        for dir in DIRS {
            command = command.replace(&format!(" {dir}/"), &format!(" {root}{dir}/"));
            command = command.replace(&format!(" {dir}\n"), &format!(" {root}{dir}\n"));
            if let Some(start) = command.strip_suffix(&format!(" {dir}")) {
                command = format!("{start} {root}{dir}");
            }
            if let Some(rest) = command.strip_prefix(&format!("{dir}/")) {
                command = format!("{root}{dir}/{rest}");
            }
        }
        if command.starts_with("kytx ") { format!("exec {command}") } else { command }
    }

    fn search_path(&self) -> std::ffi::OsString {
        let mut path = self.path.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// As the README has it.
    fn pretty(&self, text: &str) -> String {
        let user = kytx::effect::lock::user_name();
        let host = kytx::effect::os::host_name();
        text.replace(self.machine.root.to_str().unwrap(), "")
            .replace(&format!("{user} on {host}"), "kylin on node1")
    }
}

fn parse(text: &str) -> Vec<Transcript> {
    let lines: Vec<&str> = text.lines().collect();
    let mut transcripts = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let Some(info) = lines[at].strip_prefix("```console") else {
            at += 1;
            continue;
        };
        let first_line = at + 1;
        let length = lines[first_line..].iter().position(|line| *line == "```").expect("the block ends");
        let after_line = first_line + length;
        let typed = typed_in(&lines[first_line..after_line]);
        let setting = match info.trim() {
            "" => Setting::Ordinary,
            "killed-while-starting" => Setting::KilledWhileStarting,
            "on-a-fresh-machine" => Setting::FreshMachine,
            other => panic!("line {at}: nothing is known of `{other}`"),
        };
        transcripts.push(Transcript { first_line, after_line, setting, typed });
        at = after_line + 1;
    }
    transcripts
}

fn typed_in(lines: &[&str]) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    let mut continues = false;
    for line in lines.iter().map(|line| (*line).to_owned()) {
        let ends_open = line.ends_with('\\');
        if continues {
            all.last_mut().unwrap().shown.push(line);
            continues = ends_open;
        } else if line.starts_with("$ ") {
            all.push(Typed { shown: vec![line], printed: Vec::new() });
            continues = ends_open;
        } else {
            all.last_mut().expect("a transcript begins with a command").printed.push(line);
        }
    }
    all
}

/// Without the note on processes that kytx may not look into: whether there are any depends on the machine.
fn without_strangers(mut lines: Vec<String>) -> Vec<String> {
    while let Some(at) = lines.iter().position(|line| line.contains("processes of other users")) {
        lines.drain(at..(at + 2).min(lines.len()));
    }
    lines
}

/// As much of what was printed as the README shows, if it leaves lines out.
fn abridged(mut printed: Vec<String>, shown: &[String]) -> Vec<String> {
    if let Some(head) = shown.iter().position(|line| line == ELISION) {
        let tail = shown.len() - head - 1;
        if head + tail <= printed.len() {
            printed.splice(head..printed.len() - tail, [ELISION.to_owned()]);
        }
    }
    printed
}

/// What differs between what the README shows and what was printed, as text.
fn difference(typed: &Typed, printed: &[String]) -> Option<String> {
    let shown: Vec<String> = typed.printed.iter().map(|line| steady(line)).collect();
    let real: Vec<String> = printed.iter().map(|line| steady(line)).collect();
    if shown == real {
        return None;
    }
    let same = shown.iter().zip(&real).take_while(|(a, b)| a == b).count();
    let mut lines = typed.shown.clone();
    lines.push(format!("  ({same} lines are the same)"));
    lines.extend(shown[same..].iter().map(|line| format!("- {line}")));
    lines.extend(real[same..].iter().map(|line| format!("+ {line}")));
    Some(lines.join("\n"))
}

/// A line without what differs from run to run.
fn steady(line: &str) -> String {
    let mut steady = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(start);
        let length = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        let (word, after) = from.split_at(length);
        let in_word = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        steady.push_str(before);
        let is_hex =
            word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        if !in_word && is_hex {
            steady.push_str("<hex>");
            rest = after;
        } else if !in_word && is_number {
            let fraction = after
                .strip_prefix('.')
                .map_or(0, |digits| 1 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
            let tail = &after[fraction..];
            let unit = [" s", " B", " KiB", " MiB", " GiB"].into_iter().find(|unit| is_unit(tail, unit));
            if let Some(unit) = unit {
                steady.push_str(if unit == " s" { "<time>" } else { "<size>" });
                rest = &tail[unit.len()..];
            } else if steady.ends_with("process ") {
                steady.push_str("<pid>");
                rest = tail;
            } else {
                steady.push_str(word);
                rest = after;
            }
        } else {
            steady.push_str(word);
            rest = after;
        }
    }
    steady + rest
}

fn is_unit(text: &str, unit: &str) -> bool {
    text.strip_prefix(unit).is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[test]
fn every_source_file_is_on_the_map_of_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut open = vec![root.join("src")];
    let (mut files, mut missing) = (0, Vec::new());
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(root.join("src")).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                open.push(path);
            } else if !name.ends_with("mod.rs") && !name.ends_with("tests.rs") {
                files += 1;
                if !map.contains(&format!("`{name}`")) {
                    missing.push(name);
                }
            }
        }
    }
    assert!(files > 50 && missing.is_empty(), "ARCHITECTURE.md, code map, lacks {missing:?}");
    let named = map.split('`').filter(|word| {
        Path::new(word).extension().is_some_and(|ending| ending == "rs") && word.contains('/')
    });
    let gone: Vec<_> =
        named.filter(|name| !root.join("src").join(name).exists() && !root.join(name).exists()).collect();
    assert!(gone.is_empty(), "ARCHITECTURE.md names {gone:?}, which is not there");
}

#[test]
fn a_transcript_is_found_and_read() {
    let text = "a\n```console\n$ kytx \\\n  log\none\n[exit 8]\n$ ls\n```\nb\n```text\n$ no\n```\n";
    let found = parse(text);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].first_line, found[0].after_line), (2, 7));
    assert_eq!(found[0].setting, Setting::Ordinary);
    assert_eq!(found[0].typed[0].shown, ["$ kytx \\", "  log"]);
    assert_eq!(found[0].typed[0].printed, ["one", "[exit 8]"]);
    assert_eq!(found[0].typed[1].printed, [""; 0]);
}

#[test]
fn an_abridged_transcript_keeps_its_two_ends() {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(abridged(lines("a b c d"), &lines("x ... y")), lines("a ... d"));
    assert_eq!(abridged(lines("a b"), &lines("x ... y")), lines("a ... b"));
    assert_eq!(abridged(lines("a"), &lines("x ... y")), lines("a"));
    assert_eq!(abridged(lines("a b"), &lines("x y")), lines("a b"));
}

#[test]
fn only_what_differs_from_run_to_run_is_left_out() {
    for (a, b) in [
        ("[3/9] stop: done, 0.1 s", "[3/9] stop: done, 12.3 s"),
        ("Freed 1.50 MiB.", "Freed 933 B."),
        ("process 17: x", "process 4711: x"),
        ("  plan: 0123456789abcdef", "  plan: fedcba9876543210"),
        ("/opt/.kytx/ke/backup/0123456789abcdef/metadata", "/opt/.kytx/ke/backup/aaaaaaaaaaaaaaaa/metadata"),
    ] {
        assert_eq!(steady(a), steady(b));
    }
    for (a, b) in [
        ("[3/9] stop: done, 0.1 s", "[4/9] stop: done, 0.1 s"),
        ("from 3.3.3.2028-GA", "from 3.3.4.2028-GA"),
        ("[exit 4]", "[exit 5]"),
        ("stage-tree", "stage-trees"),
        ("14 steps", "15 steps"),
    ] {
        assert_ne!(steady(a), steady(b));
    }
}

#[test]
fn a_lie_in_the_readme_is_found() {
    let typed =
        Typed { shown: vec!["$ kytx status".to_owned()], printed: vec!["one".to_owned(), "two".to_owned()] };
    let printed = |lines: [&str; 2]| lines.map(str::to_owned);
    assert_eq!(difference(&typed, &printed(["one", "two"])), None);
    assert!(difference(&typed, &printed(["one", "three"])).unwrap().ends_with("- two\n+ three"));
}
