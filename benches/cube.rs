//! Cube data on HDFS: what the stop waits for, as ratios in one run.
//!
//! `cargo bench --bench cube` needs a running bed (`testbed/hadoop/up DIR`, then source `DIR/env`). It upgrades over a tree
//! of small files, once with a copy by DistCp and once with a snapshot, and prints the time of the final pass on an
//! unchanged tree against that of the first copy, the time of the snapshot at a tenth of the files and at all of them, and
//! how many programs of Hadoop, each a Java, were started between the stop of the service and its start.
//! `KYTX_BENCH_FILES` is the number of files, 2000 if it is not set.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it measures, and prints what it finds")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kytx::testbed::{Options, Scenario};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const KYTX: &str = env!("CARGO_BIN_EXE_kytx");
/// Bytes of a file. Small, as the time is that of names and not of content.
const FILE_BYTES: usize = 1024;

fn main() -> Result<()> {
    if std::env::var_os("HADOOP_BED_DIR").is_none() {
        println!("NOT RUN: no Hadoop (testbed/hadoop/up DIR, then source DIR/env)");
        return Ok(());
    }
    let files: usize =
        std::env::var("KYTX_BENCH_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(2000);
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cube-{}", std::process::id()));
    let few = Bench::new(&scratch.join("few"), files / 10)?;
    let (few_s, _) = few.snapshot()?;
    few.end()?;
    let all = Bench::new(&scratch.join("all"), files)?;
    let copied = all.copy()?;
    let (all_s, programs) = all.snapshot()?;
    all.end()?;
    println!(
        "{files} files, by DistCp: first copy {:.1} s, final pass {:.1} s",
        copied.first_s, copied.last_s
    );
    println!("  final pass / first copy: {:.2}", copied.last_s / copied.first_s);
    println!("  of it the job {:.1} s, the rest listing and checksums of both trees", copied.job_s);
    println!("  programs of Hadoop between stop and start: {}", copied.programs);
    println!("by snapshot: step {few_s:.1} s with {} files, {all_s:.1} s with {files}", files / 10);
    println!("  all / a tenth: {:.2}", all_s / few_s);
    println!("  programs of Hadoop between stop and start: {programs}");
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// What was measured of a copy.
struct Copied {
    first_s: f64,
    last_s: f64,
    job_s: f64,
    programs: usize,
}

struct Bench {
    machine: Scenario,
    working_dir: String,
}

impl Bench {
    /// A machine whose cube data are this many files on the bed.
    fn new(dir: &Path, files: usize) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let working_dir = format!("/kytx-bench/{}-{name}/kylin", std::process::id());
        let mut options = Options::new(KYTX).major();
        options.cluster = Some(working_dir.clone());
        let machine = Scenario::build(dir, &options)?;
        let tree = dir.join("kylin_metadata");
        for number in 0..files {
            let segment = tree.join(format!("parquet/segment-{}", number / 100));
            std::fs::create_dir_all(&segment)?;
            let content: Vec<u8> = (0..FILE_BYTES).map(|at| (at * 7 + number) as u8).collect();
            std::fs::write(segment.join(format!("{number}.parquet")), content)?;
        }
        hadoop("hadoop", &["fs", "-mkdir", "-p", &working_dir])?;
        hadoop("hadoop", &["fs", "-put", "-t", "8", text(&tree)?, &working_dir])?;
        hadoop("hdfs", &["dfsadmin", "-allowSnapshot", &format!("{working_dir}/kylin_metadata")])?;
        machine.run_script("kylin.sh", &["start"])?;
        Ok(Self { machine, working_dir })
    }

    /// An upgrade with a copy, and back. Nothing changes between the two passes.
    fn copy(&self) -> Result<Copied> {
        let first = self.begin(&["--cube-backup", "distcp", "--stop-before", "stop-service"], 4)?;
        let last = self.kytx(&["resume", text(&self.machine.home)?], 0)?;
        let (programs, job_s) = self.downtime("-resume.log")?;
        let copied = Copied {
            first_s: step_seconds(&first, "copy-cube-data-early")?,
            last_s: step_seconds(&last, "copy-cube-data")?,
            job_s,
            programs,
        };
        self.kytx(&["abort", text(&self.machine.home)?, "--yes"], 0)?;
        Ok(copied)
    }

    /// An upgrade with a snapshot, and back: the seconds of its step, and the programs in the downtime.
    fn snapshot(&self) -> Result<(f64, usize)> {
        let begun = self.begin(&["--cube-backup", "snapshot"], 0)?;
        let (programs, _) = self.downtime("-begin.log")?;
        self.kytx(&["abort", text(&self.machine.home)?, "--yes"], 0)?;
        Ok((step_seconds(&begun, "snapshot-cube-data")?, programs))
    }

    fn begin(&self, more: &[&str], code: i32) -> Result<Output> {
        let (home, package) = (text(&self.machine.home)?, text(&self.machine.package)?);
        let words = ["begin", home, "--package", package, "--silent", "--archive", "none"];
        self.kytx(&[&words, more].concat(), code)
    }

    fn kytx(&self, words: &[&str], code: i32) -> Result<Output> {
        let begun = Instant::now();
        let output = Command::new(KYTX)
            .args(words)
            .env("JAVA_HOME", &self.machine.java_home)
            .stdin(Stdio::null())
            .output()?;
        if output.status.code() != Some(code) {
            return Err(format!("kytx {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let took: Duration = begun.elapsed();
        println!("kytx {}: {:.1} s", words[0], took.as_secs_f64());
        Ok(output)
    }

    /// The programs of Hadoop between stop and start in the newest log of this name, and the seconds of their jobs.
    fn downtime(&self, log: &str) -> Result<(usize, f64)> {
        let home = &self.machine.real_home;
        let place = home.parent().ok_or("a home has a parent")?.join(".kytx");
        let dir = place.join(home.file_name().ok_or("a home has a name")?).join("log");
        let logs = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
        let newest = logs
            .filter(|path| path.to_string_lossy().ends_with(log))
            .max_by_key(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
            .ok_or("there is no log")?;
        let text = std::fs::read_to_string(newest)?;
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("| $ ")).collect();
        let at = |word: &str| lines.iter().position(|line| line.contains(word)).ok_or(word.to_owned());
        let downtime = &lines[at("kylin.sh stop")?..at("kylin.sh start")?];
        let programs = ["| $ hadoop ", "| $ hdfs ", "| $ yarn "];
        let count = downtime.iter().filter(|line| programs.iter().any(|name| line.contains(name))).count();
        Ok((count, job_seconds(&text)))
    }

    fn end(self) -> Result<()> {
        self.machine.end_services()?;
        let top = self.working_dir.trim_end_matches("/kylin").to_owned();
        hadoop("hadoop", &["fs", "-rm", "-r", "-skipTrash", &top])
    }
}

/// Seconds of what ended last of `hadoop distcp`, from its line in a log: `... exit code 0 after 12.3 s`.
fn job_seconds(log: &str) -> f64 {
    let mut lines = log.lines().skip_while(|line| !line.contains("$ hadoop distcp"));
    let ended = lines.find_map(|line| line.split("exit code 0 after ").nth(1));
    ended.and_then(|rest| rest.split(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}

fn hadoop(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "a scratch path is UTF-8".into())
}

/// The seconds of a step, from its line.
fn step_seconds(output: &Output, step: &str) -> Result<f64> {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains(&format!("] {step}: done"))).ok_or("no such step")?;
    Ok(line.rsplit(", ").next().and_then(|end| end.strip_suffix(" s")).ok_or("no time")?.parse()?)
}
