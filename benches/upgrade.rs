//! A whole upgrade of a home of real size, and the way back: kytx' own share of the downtime, peak memory, journal.
//!
//! `cargo bench --bench upgrade` builds a home and a package of about 1.2 GB and 60 MB in a scratch directory below
//! the target directory, and prints what issue and design ask for as ratios where there is a peer (`tar -zcf` and
//! `rm -rf` of the same home), in one run. `KYTX_BENCH_ROUNDS` repeats it.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::similar_names,
    clippy::borrow_as_ptr,
    unsafe_code,
    reason = "it measures on machines of its own, and prints what it finds"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kytx::testbed::{Options, Scenario, Size};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const KYTX: &str = env!("CARGO_BIN_EXE_kytx");

fn main() -> Result<()> {
    let rounds: usize =
        std::env::var("KYTX_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("upgrade-{}", std::process::id()));
    let mut own = Vec::new();
    for size in [Size::Medium, Size::Large] {
        for round in 0..rounds {
            let dir = scratch.join(format!("{size:?}-{round}"));
            own.push((size, measure(&dir, size)?));
            std::fs::remove_dir_all(&dir)?;
        }
    }
    let of = |wanted: Size| {
        median(own.iter().filter(|(size, _)| *size == wanted).map(|(_, time)| *time).collect())
    };
    let ratio = of(Size::Large).as_secs_f64() / of(Size::Medium).as_secs_f64();
    println!("own share of the downtime, large home / medium home: {ratio:.1}");
    std::fs::remove_dir_all(&scratch)?;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Upgrades, verifies, aborts, upgrades again, commits. Returns kytx' own share of the first downtime.
fn measure(dir: &Path, size: Size) -> Result<Duration> {
    std::fs::create_dir_all(dir)?;
    let options = Options { size, ..Options::new(KYTX).major() };
    let machine = Scenario::build(dir, &options)?;
    machine.run_script("kylin.sh", &["start"])?;
    println!("== {size:?} home");
    let run = |args: &[&str]| timed(&machine, args);

    let (home, package) = (text(&machine.home), text(&machine.package));
    let begin = ["begin", home, "--package", package, "--silent"];
    let (begun, took) = run(&begin)?;
    let own = own_share(&begun)?;
    println!(
        "begin: {:.2} s in all, kytx' own share of the downtime {:.3} s",
        took.as_secs_f64(),
        own.as_secs_f64()
    );
    let archived = step_seconds(&begun, "archive-tree")?;
    for level in [&[][..], &["--deep"], &["--drill"]] {
        let (_, took) = run(&[&["verify", home], level].concat())?;
        println!("verify {}: {:.2} s", level.first().unwrap_or(&""), took.as_secs_f64());
    }
    let (status, _) = run(&["status", home, "--json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    println!("journal: {} records up to here", status["journal"]["records"]);

    let (aborted, took) = run(&["abort", home, "--yes"])?;
    let back = own_share(&aborted)?;
    println!(
        "abort: {:.2} s in all, own share of the downtime {:.3} s",
        took.as_secs_f64(),
        back.as_secs_f64()
    );

    // The peer: what the product's own script does within the downtime.
    let peer = dir.join("peer.tar.gz");
    let begun = Instant::now();
    let tar = Command::new("tar")
        .arg("-zcf")
        .arg(&peer)
        .arg("-C")
        .arg(dir)
        .arg(relative(&machine, dir))
        .status()?;
    let peer_took = begun.elapsed();
    println!(
        "archive: `tar -zcf` {:.2} s ({tar}), kytx {archived:.2} s, read back included: {:.1}x",
        peer_took.as_secs_f64(),
        peer_took.as_secs_f64() / archived
    );
    println!(
        "own share of the downtime: {:.0}x less than `tar -zcf` alone",
        peer_took.as_secs_f64() / own.as_secs_f64()
    );

    run(&begin)?;
    let (_, took) = run(&["commit", home, "--yes"])?;
    println!("commit: {:.2} s", took.as_secs_f64());
    println!("peak resident memory of any kytx run: {} MiB", peak_kib() >> 10);
    machine.end_services()?;
    Ok(own)
}

fn relative(machine: &Scenario, dir: &Path) -> PathBuf {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    machine.real_home.strip_prefix(&dir).unwrap_or(&machine.real_home).to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a scratch path is UTF-8")
}

fn timed(machine: &Scenario, args: &[&str]) -> Result<(Output, Duration)> {
    let begun = Instant::now();
    let output = Command::new(KYTX).args(args).env("JAVA_HOME", &machine.java_home).output()?;
    let took = begun.elapsed();
    if !output.status.success() {
        return Err(format!("kytx {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok((output, took))
}

/// The number after `of which kytx `.
fn own_share(output: &Output) -> Result<Duration> {
    let text = String::from_utf8_lossy(&output.stdout);
    let number =
        text.split("of which kytx ").nth(1).and_then(|rest| rest.split(' ').next()).ok_or("no downtime")?;
    Ok(Duration::from_secs_f64(number.parse()?))
}

/// The seconds of a step, from its line.
fn step_seconds(output: &Output, step: &str) -> Result<f64> {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains(&format!("] {step}: done"))).ok_or("no such step")?;
    Ok(line.rsplit(", ").next().and_then(|end| end.strip_suffix(" s")).ok_or("no time")?.parse()?)
}

/// The largest resident size of any child so far, in KiB.
fn peak_kib() -> i64 {
    // SAFETY: `usage` is plain data that the call fills.
    unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage.ru_maxrss
    }
}
