//! Holds the code to `journal-format.md` and to journals that were written before.

#![allow(clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kytx::effect::os::OsFs;
use kytx::journal::codec::{FRAME_HEAD_BYTES, FRAME_LIMIT_BYTES, TYPE_NUMBERS, VERSION, type_number};
use kytx::journal::{BALLAST_BYTES, Frame, Head, Journal, Store, samples, twin};
use kytx::txn::{Mutation, Record, Txn};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(root().join("journal-format.md")).unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/journal-v1").join(name)
}

fn json_lines(records: &[Record]) -> String {
    records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
}

/// The journals of format version 1, one committed and one aborted, with every record type and every mutation.
/// They are never written again: a kytx that cannot read them breaks an upgrade that is under way.
#[test]
fn i9_journals_of_version_1_are_read_for_ever() {
    let mut numbers = BTreeSet::new();
    for name in ["committed", "aborted"] {
        let expected = fs::read_to_string(fixture(name).join("records.jsonl")).unwrap();
        let bytes = fs::read(fixture(name).join("journal.log")).unwrap();
        let frames = twin::parse(&bytes).frames;
        let mut head = Head::START;
        for frame in &frames {
            let sealed = Frame::seal(head, &frame.record).unwrap();
            assert_eq!(sealed.bytes(), frame.bytes(), "this kytx writes other bytes for {}", frame.lsn);
            head = frame.head();
            numbers.insert(type_number(&frame.record));
        }
        assert_eq!(twin::bytes_of(&frames), bytes);

        // Both places, then each without the other.
        for without in [None, Some("journal"), Some("journal.log")] {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("state");
            copy_dir(&fixture(name), &dir);
            match without {
                Some("journal") => fs::remove_dir_all(dir.join("journal")).unwrap(),
                Some(file) => fs::remove_file(dir.join(file)).unwrap(),
                None => {}
            }
            let opened = Store::open(&OsFs, &dir).unwrap();
            assert_eq!(opened.repairs.len(), usize::from(without.is_some()), "{:?}", opened.repairs);
            let records: Vec<_> = opened.records.into_iter().map(|(_, record)| record).collect();
            assert_eq!(json_lines(&records), expected, "{name} without {without:?}");
            assert!(Txn::replay(&records).unwrap().is_some());
        }
    }
    assert!(numbers.into_iter().eq(TYPE_NUMBERS));
}

/// Writes the fixtures of a version that has none yet: `cargo test --test format -- --ignored`.
#[test]
#[ignore = "writes into the source tree, and only what is missing"]
fn write_missing_fixtures() {
    for (name, records) in [("committed", samples::committed()), ("aborted", samples::aborted())] {
        let dir = fixture(name);
        if dir.exists() {
            continue;
        }
        fs::create_dir_all(&dir).unwrap();
        let mut store = Store::create(&OsFs, &dir, &records[0]).unwrap();
        for record in &records[1..] {
            store.append(record).unwrap();
        }
        drop(store);
        fs::remove_file(dir.join("ballast")).unwrap();
        fs::write(dir.join("records.jsonl"), json_lines(&records)).unwrap();
    }
}

#[test]
fn the_document_names_every_record_and_every_mutation_with_its_number() {
    let text = document();
    for record in samples::records() {
        let row = format!("| {} | `{}` |", type_number(&record), record.kind());
        assert!(text.contains(&row), "journal-format.md lacks the row `{row}`");
    }
    let mut seen = BTreeSet::new();
    for step in samples::steps() {
        let (number, name) = variant(&step.mutation);
        seen.insert(number);
        let row = format!("| {number} | `{name}` |");
        assert!(text.contains(&row), "journal-format.md lacks the row `{row}`");
    }
    let rows =
        text.lines().filter(|line| line.starts_with("| ") && line.contains("<!-- mutation -->")).count();
    assert_eq!(rows, seen.len(), "the document's mutations and the samples' differ in number");
    assert!(seen.iter().copied().eq(0..seen.len() as u32), "{seen:?}");
}

/// A mutation's number as it stands in the payload, and its name in text.
fn variant(mutation: &Mutation) -> (u32, String) {
    let step =
        kytx::txn::Step { name: String::new(), stage: kytx::txn::Stage::Apply, mutation: mutation.clone() };
    let frame = Frame::seal(Head::START, &Record::Planned(step)).unwrap();
    // The record's variant, an empty name, the stage; then the mutation's variant.
    let at = FRAME_HEAD_BYTES + 4 + 8 + 4;
    let number = u32::from_le_bytes(frame.bytes()[at..at + 4].try_into().unwrap());
    let json = serde_json::to_value(mutation).unwrap();
    (number, json.as_object().unwrap().keys().next().unwrap().clone())
}

#[test]
fn the_document_names_the_fields_of_every_record_and_mutation() {
    let text = document();
    for record in samples::records() {
        let json = serde_json::to_value(&record).unwrap();
        let mut names = BTreeSet::new();
        field_names(&json, &mut names);
        for name in names {
            assert!(text.contains(&format!("`{name}`")), "journal-format.md never mentions `{name}`");
        }
    }
}

fn field_names(json: &serde_json::Value, names: &mut BTreeSet<String>) {
    if let Some(object) = json.as_object() {
        for (name, value) in object {
            names.insert(name.clone());
            field_names(value, names);
        }
    }
}

#[test]
fn i10_the_document_states_the_limits_of_the_code() {
    let text = document();
    for fact in [
        format!("format version {VERSION}"),
        format!("{FRAME_LIMIT_BYTES} bytes"),
        format!("{FRAME_HEAD_BYTES} bytes"),
        format!("{BALLAST_BYTES} bytes"),
    ] {
        assert!(text.contains(&fact), "journal-format.md never says `{fact}`");
    }
    for number in 1..=12 {
        assert!(text.contains(&format!("**I{number} ")), "journal-format.md lacks I{number}");
    }
}

const DUMP_BEGIN: &str = "<!-- dump: regenerated and compared by tests/format.rs -->\n```text\n";
const DUMP_END: &str = "```\n<!-- end of dump -->";

/// With `KYTX_BLESS` set, writes the dump into the document instead of comparing it.
#[test]
fn the_worked_example_is_what_kytx_writes() {
    let scratch = tempfile::tempdir().unwrap();
    let records = samples::example();
    let mut store = Store::create(&OsFs, scratch.path(), &records[0]).unwrap();
    for record in &records[1..] {
        store.append(record).unwrap();
    }
    let bytes = fs::read(scratch.path().join("journal.log")).unwrap();
    let mut dump = Dump { bytes: &bytes, at: 0, text: String::new() };
    dump.twin();
    assert_eq!(dump.at, bytes.len(), "the reader by the document leaves bytes unread");
    let expected = dump.text;

    let text = document();
    let start = text.find(DUMP_BEGIN).expect("no dump in the document") + DUMP_BEGIN.len();
    let length = text[start..].find(DUMP_END).expect("the dump has no end");
    if std::env::var_os("KYTX_BLESS").is_some() {
        let blessed = [&text[..start], &expected, &text[start + length..]].concat();
        fs::write(root().join("journal-format.md"), blessed).unwrap();
        return;
    }
    assert_eq!(&text[start..start + length], expected, "run with KYTX_BLESS=1 and read the difference");
}

/// A second reader, written from the document alone: it knows neither bincode nor the codec.
struct Dump<'a> {
    bytes: &'a [u8],
    at: usize,
    text: String,
}

impl Dump<'_> {
    fn twin(&mut self) {
        self.take(16, "magic");
        let mut previous = [0; 32];
        let mut lsn = 0;
        while self.at < self.bytes.len() {
            lsn += 1;
            previous = self.frame(lsn, previous);
        }
    }

    fn frame(&mut self, lsn: u64, previous: [u8; 32]) -> [u8; 32] {
        let length = u32::from_be_bytes(self.bytes[self.at..self.at + 4].try_into().unwrap()) as usize;
        let _ = writeln!(self.text);
        self.take(4, &format!("length of the frame: {length}"));
        let frame = &self.bytes[self.at..self.at + length];
        let end = self.at + length;
        assert_eq!(self.take(8, &format!("LSN {lsn}")), lsn.to_be_bytes());
        let version = self.take(1, "format version 1");
        let number = self.bytes[self.at + 1];
        let name = ["begin", "planned", "sealed", "intent", "done"][usize::from(number) - 1];
        let number = self.take(2, &format!("record type {number}: {name}"));
        let mut hasher = blake3::Hasher::new_derive_key("kytx 2026 journal chain v1");
        hasher
            .update(&lsn.to_be_bytes())
            .update(&previous)
            .update(&version)
            .update(&number)
            .update(&frame[43..]);
        let chain = self.take(32, "chain");
        assert_eq!(chain, hasher.finalize().as_bytes());
        self.variant(name);
        match name {
            "begin" => self.begin(),
            "planned" => self.planned(),
            "sealed" => {
                self.number(2, "steps");
                self.take(32, "plan");
            }
            _ => {
                self.number(2, "step");
                self.variant("direction: forward");
                self.take(32, if name == "intent" { "inputs" } else { "outputs" });
            }
        }
        assert_eq!(self.at, end, "{name} has another length than the document gives it");
        chain.try_into().unwrap()
    }

    fn begin(&mut self) {
        self.string("txn");
        self.string("kytx");
        self.number(8, "began_unix_s");
        for field in ["home", "old_version", "new_version", "package", "user", "host"] {
            self.string(field);
        }
        self.number(8, "how many overrides");
        for field in ["check", "reason"] {
            self.string(field);
        }
    }

    fn planned(&mut self) {
        self.string("name");
        self.variant("stage: apply");
        assert_eq!(self.variant("mutation: stop-service"), 2);
        self.string("home");
        self.number(4, "start_timeout_s");
    }

    fn variant(&mut self, meaning: &str) -> u32 {
        let index = u32::from_le_bytes(self.bytes[self.at..self.at + 4].try_into().unwrap());
        self.take(4, &format!("variant {index}, {meaning}"));
        index
    }

    fn number(&mut self, width: usize, field: &str) {
        let little = &self.bytes[self.at..self.at + width];
        let value = little.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        self.take(width, &format!("`{field}`: {value}"));
    }

    fn string(&mut self, field: &str) {
        let length = u64::from_le_bytes(self.bytes[self.at..self.at + 8].try_into().unwrap()) as usize;
        self.take(8, &format!("`{field}`: {length} bytes follow"));
        let content = String::from_utf8(self.bytes[self.at..self.at + length].to_vec()).unwrap();
        self.take(length, &format!("\"{content}\""));
    }

    /// Takes bytes and writes them down, sixteen a line, with their meaning on the first.
    fn take(&mut self, length: usize, meaning: &str) -> Vec<u8> {
        let taken = self.bytes[self.at..self.at + length].to_vec();
        for (index, line) in taken.chunks(16).enumerate() {
            let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let meaning = if index == 0 { meaning } else { "" };
            let line = format!("{:04x}  {:<47}  {meaning}", self.at + index * 16, hex.join(" "));
            let _ = writeln!(self.text, "{}", line.trim_end());
        }
        self.at += length;
        taken
    }
}
