//! Every invariant of `journal-format.md` is cited in the code and named by a test.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Whether a comment line cites the invariant, not one whose number merely begins alike.
fn cites(line: &str, number: u32) -> bool {
    let Some((_, comment)) = line.split_once("//") else { return false };
    let name = format!("I{number}");
    comment.match_indices(&name).any(|(at, _)| {
        let alone = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        alone(comment[..at].chars().next_back()) && alone(comment[at + name.len()..].chars().next())
    })
}

fn names_a_test(text: &str, number: u32) -> bool {
    let name = format!("fn i{number}_");
    let mut attributed = false;
    for line in text.lines().map(str::trim) {
        if attributed && line.starts_with(&name) {
            return true;
        }
        attributed = line.starts_with("#[test]") || (attributed && line.starts_with("#["));
    }
    false
}

#[test]
fn every_invariant_is_cited_in_the_code() {
    let sources = sources("src");
    let missing: Vec<_> = (1..=12)
        .filter(|number| !sources.iter().any(|(_, text)| text.lines().any(|line| cites(line, *number))))
        .map(|number| format!("I{number}"))
        .collect();
    assert!(missing.is_empty(), "not cited in src/: {}", missing.join(", "));
}

#[test]
fn every_invariant_has_a_test_of_its_name() {
    let mut all = sources("src");
    all.extend(sources("tests"));
    let missing: Vec<_> = (1..=12)
        .filter(|number| !all.iter().any(|(_, text)| names_a_test(text, *number)))
        .map(|number| format!("i{number}_"))
        .collect();
    assert!(missing.is_empty(), "no test begins with: {}", missing.join(", "));
}

#[test]
fn a_citation_is_told_from_a_longer_number() {
    assert!(cites("    // I1: the plan first", 1) && cites("/// A step (I2).", 2));
    assert!(!cites("// I11 and I12", 1) && !cites("let I1 = 0;", 1));
    assert!(names_a_test("#[test]\n#[ignore]\nfn i4_order() {", 4) && !names_a_test("fn i4_order() {", 4));
}
