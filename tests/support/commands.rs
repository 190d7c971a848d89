//! kytx's commands on a machine's home, and what a refusal has to say.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use kytx::testbed::StoreContent;
use serde_json::Value;

use super::snapshot::Snapshot;
use super::{Machine, Ran};

/// `kytx begin --silent` from the machine's package.
#[must_use = "assert on the code, or on the output"]
pub fn begin(machine: &Machine, more: &[&str]) -> Ran {
    machine.run(&begin_words(machine, more))
}

/// The words of `kytx begin --silent`.
pub fn begin_words<'a>(machine: &'a Machine, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["begin", text(&machine.home), "--package", text(&machine.package), "--silent"];
    words.extend(more);
    words
}

/// A command on the machine's home.
#[must_use = "assert on the code, or on the output"]
pub fn on_home(machine: &Machine, command: &str, more: &[&str]) -> Ran {
    let mut words = vec![command, text(&machine.home)];
    words.extend(more);
    machine.run(&words)
}

/// The same for `plan` and `check`, which take a package.
#[must_use = "assert on the code, or on the output"]
pub fn on_upgrade(machine: &Machine, command: &str, more: &[&str]) -> Ran {
    let mut words = vec![command, text(&machine.home), "--package", text(&machine.package)];
    words.extend(more);
    machine.run(&words)
}

/// Runs kytx with something typed to it.
#[must_use = "assert on the code, or on the output"]
pub fn typed(machine: &Machine, words: &[&str], input: &str) -> Ran {
    let mut child = machine
        .kytx(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // kytx may refuse before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// Runs kytx beside the test.
pub fn spawn(machine: &Machine, words: &[&str]) -> Child {
    machine.kytx(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for what was spawned.
#[must_use = "assert on the code, or on the output"]
pub fn finish(child: Child) -> Ran {
    child.wait_with_output().unwrap().into()
}

/// What `status --json` prints.
#[track_caller]
pub fn status(machine: &Machine) -> Value {
    serde_json::from_str(&on_home(machine, "status", &["--json"]).expect_code(0).stdout).unwrap()
}

/// The state of a step in it.
#[track_caller]
pub fn step_state(status: &Value, name: &str) -> String {
    let step = status["steps"].as_array().unwrap().iter().find(|step| step["name"] == name);
    step.unwrap_or_else(|| panic!("no step `{name}` in {status}"))["state"].as_str().unwrap().to_owned()
}

/// The default state directory.
pub fn state_dir(machine: &Machine) -> PathBuf {
    let name = machine.real_home.file_name().unwrap();
    machine.real_home.parent().unwrap().join(".kytx").join(name)
}

/// Everything of the machine but the state directory.
pub fn outside(machine: &Machine) -> Snapshot {
    Snapshot::take(&machine.root, &["opt/.kytx"])
}

/// The first line of `VERSION`.
pub fn version(machine: &Machine) -> String {
    fs::read_to_string(machine.home.join("VERSION")).unwrap().lines().next().unwrap_or_default().to_owned()
}

/// The store's content but for what every start of the product rewrites.
pub fn metadata(machine: &Machine) -> StoreContent {
    let content = machine.store.content().unwrap();
    content.into_iter().filter(|(path, _)| !path.starts_with("user")).collect()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Ran {
    /// Checks the code, that the message has its four parts in their order (what failed, why, in what state the
    /// machine is, what to type), and that it says these words.
    #[track_caller]
    pub fn explains(self, code: i32, words: &[&str]) -> Self {
        let ran = self.expect_code(code);
        let all = &ran.stderr;
        let mut from = 0;
        for part in ["kytx: ", "\n  why:   ", "\n  state: ", "\n  type:  "] {
            let at = all[from..].find(part).unwrap_or_else(|| panic!("no `{}` in:\n{all}", part.trim()));
            from += at + part.len();
        }
        for word in words {
            assert!(all.contains(word), "no `{word}` in:\n{all}");
        }
        ran
    }
}
