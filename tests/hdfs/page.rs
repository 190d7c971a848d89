//! The page "Cube data on HDFS" of `README.md`: 500 files of 300 MB, kytx killed when half of them are copied, and what its
//! commands say then. Each line of the page's transcript must be said; `...` in it stands for anything.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use rustix::process::Signal;

use super::bed::{Parent, Site, USER, admin, bed_for_all, job_progress, signal_copiers, wait_for};
use super::outcome::{assert_as_before, assert_nothing_left};

const FILES: usize = 500;
const BYTES: usize = 300_000_000 / FILES;

/// The commands of the transcript, each with the lines that it says.
fn transcript() -> Vec<(String, Vec<String>)> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let page = readme.split("\n## Cube data on HDFS\n").nth(1).unwrap();
    let block = page.split("```").nth(1).unwrap();
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines().skip(1) {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command.to_owned(), Vec::new())),
            None => commands.last_mut().unwrap().1.push(line.to_owned()),
        }
    }
    commands
}

fn is_said(line: &str, said: &str) -> bool {
    said.lines().any(|other| {
        let mut rest = other.trim();
        let parts: Vec<&str> = line.trim().split("...").collect();
        parts.iter().enumerate().all(|(at, part)| match rest.find(part) {
            Some(0) => {
                rest = &rest[part.len()..];
                true
            }
            Some(found) if at > 0 => {
                rest = &rest[found + part.len()..];
                true
            }
            _ => false,
        })
    })
}

#[track_caller]
fn assert_said(lines: &[String], said: &str) {
    for line in lines {
        assert!(is_said(line, said), "not said: `{line}` in\n{said}");
    }
}

#[test]
fn the_page_on_hdfs_is_true() {
    let Some(_bed) = bed_for_all("the_page_on_hdfs_is_true") else { return };
    let page = transcript();
    assert_eq!(page.len(), 5, "begin, status, resume, verify, abort");
    let site = Site::new(USER, Parent::Own);
    let bulk = site.machine.root.join("bulk");
    for number in 0..FILES {
        let dir = bulk.join(format!("segment-{}", number / 50));
        fs::create_dir_all(&dir).unwrap();
        let content: Vec<u8> = (0..BYTES).map(|at| (at * 7 + number) as u8).collect();
        fs::write(dir.join(format!("{number}.parquet")), content).unwrap();
    }
    let target = format!("{}/bulk", site.source());
    admin("hadoop", &["fs", "-put", "-t", "4", bulk.to_str().unwrap(), &target]);
    admin("hadoop", &["fs", "-chown", "-R", &format!("{USER}:kegrp"), &target]);
    let before = site.data();

    let words = site.begin_words(&[]);
    let mut child = site.spawn(&words.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("half of it is copied", || {
        job_progress().is_some_and(|percent| percent >= 40.0) || child.try_wait().unwrap().is_some()
    });
    // Held where it is, whatever the next commands take.
    wait_for("it is held", || signal_copiers(Signal::STOP) > 0);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(9));
    assert_said(&page[0].1, &String::from_utf8_lossy(&output.stderr));
    for (at, (command, words)) in
        [("status", &[][..]), ("resume", &[]), ("verify", &[]), ("abort", &["--yes"])].into_iter().enumerate()
    {
        if command == "abort" {
            site.change();
        }
        if command == "resume" {
            signal_copiers(Signal::CONT);
        }
        let begun = Instant::now();
        let ran = site.run(command, words).expect_code(0);
        println!("--- {command}, {:.1} s\n{}{}", begun.elapsed().as_secs_f64(), ran.stderr, ran.stdout);
        assert_said(&page[at + 1].1, &format!("{}{}", ran.stderr, ran.stdout));
    }
    let copies = site.calls().iter().filter(|call| call.contains("distcp")).count();
    assert_eq!(copies, 2, "one job before the stop, one after it");
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
}
