//! The architecture as law, over the source text and the dependency list.

#![allow(clippy::disallowed_methods, reason = "a test may ask cargo")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The ceiling for the code of one file, without its tests.
const LINES_MAX: usize = 500;

/// One source file: its path below `src/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The code before the test module, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The first part of the path below `src/`, without its extension.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(ROOT).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "the sources are found");
    found
}

/// Whether `word` stands in `text` as a whole identifier or path.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(word)
        .any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + word.len()..].chars().next()))
}

/// Where a word stands in code outside the allowed files.
fn strays(word: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut strays = Vec::new();
    for source in sources().iter().filter(|source| !allowed(&source.path)) {
        for line in source.code().filter(|line| has_word(line, word)) {
            strays.push(format!("{}: {}", source.path, line.trim()));
        }
    }
    strays
}

fn none(strays: &[String]) {
    assert!(strays.is_empty(), "\n{}", strays.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let outside = |path: &str| !path.starts_with("txn/");
    let words = [
        "std::fs",
        "std::io",
        "std::process",
        "std::time",
        "std::env",
        "std::net",
        "std::thread",
        "sled",
        "bincode",
        "rustix",
        "crate::effect",
        "crate::journal",
        "crate::engine",
        "crate::mutate",
        "crate::backup",
        "unsafe",
        "Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
    ];
    for word in words {
        none(&strays(word, outside));
    }
    // What it may use of this crate and of others, said the other way round.
    for source in sources().iter().filter(|source| !outside(&source.path)) {
        for line in source.code().map(str::trim).filter(|line| line.starts_with("use ")) {
            let path = line.trim_start_matches("use ");
            let welcome = [
                "super::",
                "crate::digest::",
                "crate::raw_path::",
                "core::",
                "std::fmt",
                "std::sync::Arc",
                "serde::",
            ];
            assert!(welcome.iter().any(|start| path.starts_with(start)), "{}: {line}", source.path);
        }
    }
}

#[test]
fn each_dangerous_dependency_has_one_file() {
    let module =
        |line: &str| line.contains("mod sled") || line.contains("self::sled") || line.contains("sled::");
    let sled: Vec<_> = strays("sled", |path| path == "journal/sled.rs")
        .into_iter()
        .filter(|stray| !(stray.starts_with("journal/mod.rs") && module(stray)))
        // The module of that name, not the crate.
        .filter(|stray| !stray.contains("super::sled") && !stray.contains("crate::journal::sled"))
        // A variable of that name is no use of the crate.
        .filter(|stray| stray.contains("sled::") || stray.contains("use sled") || stray.contains("extern"))
        .filter(|stray| !outside_strings(stray, "sled").is_empty())
        .collect();
    none(&sled);
    let bincode: Vec<_> = strays("bincode", |path| path == "journal/codec.rs")
        .into_iter()
        .filter(|stray| !outside_strings(stray, "bincode").is_empty())
        .collect();
    none(&bincode);
    // The stand-in of the product runs its own scripts, on machines of its own making.
    let may_run = |path: &str| {
        path.starts_with("effect/shell") || path == "effect/env_script.rs" || path.starts_with("testbed/")
    };
    none(&strays("std::process::Command", may_run));
    none(&strays("Command::new", may_run));
}

/// The parts of a line outside string literals that hold the word.
fn outside_strings<'a>(line: &'a str, word: &str) -> Vec<&'a str> {
    line.split('"').step_by(2).filter(|part| has_word(part, word)).collect()
}

#[test]
fn every_source_is_short_ascii_and_finished() {
    // In pieces, so that this file does not hold them.
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let stubs = [concat!("todo", "!"), concat!("unimple", "mented!")];
    for source in sources() {
        let path = &source.path;
        assert!(source.text.is_ascii(), "{path} is not ASCII");
        let lines = source.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines before its tests");
        for word in unfinished {
            assert!(!has_word(&source.text, word), "{path} holds `{word}`");
        }
        for word in stubs {
            assert!(!source.text.contains(word), "{path} holds `{word}`");
        }
        assert!(source.text.starts_with("//!"), "{path} does not say what it is for");
    }
}

#[test]
fn documents_are_markdown() {
    const DOCUMENTS: [&str; 5] = ["adoc", "rst", "txt", "org", "html"];
    for entry in fs::read_dir(ROOT).unwrap() {
        let path = entry.unwrap().path();
        let other = path.extension().is_some_and(|extension| DOCUMENTS.iter().any(|d| extension == *d));
        assert!(!other, "`{}` is not Markdown", path.display());
    }
}

/// Which top-level modules each top-level module uses, tests left out.
fn uses(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<_> = sources.iter().map(|source| source.module().to_owned()).collect();
    let mut uses = BTreeMap::<_, BTreeSet<_>>::new();
    for source in sources.iter().filter(|source| !["lib.rs", "main.rs"].contains(&&*source.path)) {
        let neighbours = uses.entry(source.module().to_owned()).or_default();
        let code: String = source.code().collect::<Vec<_>>().join("\n");
        for (at, start) in code.match_indices("crate::") {
            let rest = &code[at + start.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap().split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            for name in names {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if modules.contains(&name) && name != source.module() {
                    neighbours.insert(name);
                }
            }
        }
    }
    uses
}

/// A path through the modules that comes back to where it began.
fn cycle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        uses: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        clear: &mut BTreeSet<String>,
    ) -> bool {
        if let Some(start) = path.iter().position(|name| name == at) {
            path.drain(..start);
            path.push(at.to_owned());
            return true;
        }
        if clear.contains(at) {
            return false;
        }
        path.push(at.to_owned());
        if uses.get(at).into_iter().flatten().any(|next| visit(next, uses, path, clear)) {
            return true;
        }
        path.pop();
        clear.insert(at.to_owned());
        false
    }
    let (mut path, mut clear) = (Vec::new(), BTreeSet::new());
    uses.keys().any(|at| visit(at, uses, &mut path, &mut clear)).then_some(path)
}

#[test]
fn modules_form_no_cycle() {
    if let Some(path) = cycle(&uses(&sources())) {
        panic!("modules use each other in a circle: {}", path.join(" > "));
    }
}

#[test]
fn a_cycle_would_be_found() {
    let edge = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect());
    let uses = BTreeMap::from([edge("a", &["b"]), edge("b", &["c", "d"]), edge("c", &[]), edge("d", &["b"])]);
    assert_eq!(cycle(&uses), Some(vec!["b".to_owned(), "d".to_owned(), "b".to_owned()]));
}

#[test]
fn a_word_is_told_from_a_part_of_one() {
    assert!(has_word("use sled::Db;", "sled") && !has_word("cobsled and sleds", "sled"));
    assert!(outside_strings(r#"f("sled")"#, "sled").is_empty());
}

/// Licences that ask for nothing but their text.
const LICENCES: [&str; 11] = [
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
];

/// Crates that must not come in, however indirectly: a TLS stack, an asynchronous runtime.
const BANNED: [&str; 7] = ["openssl", "openssl-sys", "native-tls", "tokio", "async-std", "smol", "reqwest"];

/// Crates whose version is part of the design.
const PINNED: [(&str, &str); 2] = [("bincode", "2.0.1"), ("sled", "0.34.7")];

/// Whether a licence expression can be met from the list.
fn allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" AND ").all(|all| {
        all.split(" OR ").any(|one| {
            let one = one.trim();
            LICENCES.contains(&one.split(" WITH ").next().unwrap().trim())
        })
    })
}

#[test]
fn dependencies_are_allowed_pinned_and_from_the_registry() {
    // Of other platforms' dependencies not even the sources are here.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &platform])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "the dependencies are listed");
    for package in packages {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let (name, version) = (text("name"), text("version"));
        assert!(allowed(text("license")), "{name} {version} has the licence `{}`", text("license"));
        assert!(!BANNED.contains(&name), "{name} is banned");
        let pinned = PINNED.iter().find(|(pinned, _)| *pinned == name);
        assert!(pinned.is_none_or(|(_, pin)| *pin == version), "{name} must not be {version}");
        let own = name == "kytx";
        assert!(own || text("source").starts_with("registry+"), "{name} is not from a registry");
    }
}

#[test]
fn a_licence_expression_is_read() {
    assert!(
        allowed("MIT OR GPL-3.0") && allowed("(MIT OR Apache-2.0) AND Unicode-3.0") && allowed("MIT/Zlib")
    );
    assert!(!allowed("GPL-3.0") && !allowed("MIT AND GPL-3.0") && !allowed(""));
}
