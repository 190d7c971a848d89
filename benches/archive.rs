//! Archive, read back and unpack against `tar -zcf`, `gzip -t` and `tar -zxf`: both sides in one run, alternating,
//! medians and ratios, CPU seconds beside wall seconds.
//!
//! The home is generated: two thirds nearly incompressible, in files of jar size, the rest logs and configuration.
//! `KYTX_BENCH_MIB` (default 256) is its size, `KYTX_BENCH_ROUNDS` (default 3) how often, `KYTX_BENCH_THREADS`
//! (default 2) how wide, `KYTX_BENCH_DIR` (default: the system's) where. Both sides find the tree in the page cache;
//! our read back comes from the medium, as writing dropped the archive's pages, and `gzip -t` finds its own still there.

#![allow(clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use kytx::backup::archive;
use kytx::backup::manifest::Manifest;
use kytx::backup::package::{Limits, scan};
use kytx::backup::read_back::read_back;
use kytx::backup::unpack::unpack;
use kytx::backup::walk::Contents;
use kytx::effect::os::OsFs;
use kytx::effect::tree::no_tick;

fn main() {
    // `cargo test --benches` runs every bench binary; only `cargo bench` means it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let setting = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (size_mib, rounds) = (setting("KYTX_BENCH_MIB", 256), setting("KYTX_BENCH_ROUNDS", 3));
    let threads = setting("KYTX_BENCH_THREADS", 2);
    let base = std::env::var_os("KYTX_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(base).expect("a scratch directory");
    let dir = scratch.path();
    generate(&dir.join("home"), size_mib);
    println!("home of {size_mib} MiB, {rounds} rounds, {threads} threads; seconds: wall (CPU)");

    let mut rows: [Vec<Pair>; 3] = Default::default();
    let mut sizes = (0, 0);
    for round in 0..rounds {
        let ours = dir.join(format!("ours{round}.tar.gz"));
        let theirs = dir.join(format!("theirs{round}.tar.gz"));
        rows[0].push(Pair {
            peer: timed(|| {
                run(dir, "tar", &["-zcf", name(&theirs), "home"]);
                run(dir, "sync", &["-d", name(&theirs)]);
            }),
            ours: timed(|| archive_home(dir, &ours, threads)),
        });
        sizes = (length(&theirs), length(&ours));
        let listed = Manifest::walk(&OsFs, &dir.join("home"), Contents::Skip, 1, &no_tick).expect("a walk");
        let part = dir.join("part");
        let written =
            archive::write(&OsFs, &dir.join("home"), &listed, &"home".into(), &part, threads, &no_tick)
                .expect("an archive");
        rows[1].push(Pair {
            peer: timed(|| run(dir, "gzip", &["-t", name(&theirs)])),
            ours: timed(|| {
                read_back(&OsFs, &part, &written.index, &written.manifest, threads, &no_tick)
                    .expect("a sound archive");
            }),
        });
        let content = scan(&OsFs, &theirs, LIMITS, &|_| false, &no_tick).expect("a sound package").content;
        let (into, out) = (dir.join(format!("into{round}")), dir.join(format!("out{round}")));
        std::fs::create_dir(&out).expect("a directory");
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        rows[2].push(Pair {
            peer: timed(|| {
                let package = theirs.to_str().expect("a plain path");
                run(&out, "tar", &["-zxf", package]);
            }),
            ours: timed(|| {
                unpack(&OsFs, &theirs, &content, &into, owner, 4, &no_tick).expect("a faithful tree");
            }),
        });
    }
    report("archive, synced and hashed, vs `tar -zcf`", &rows[0]);
    report("read back, hashed, vs `gzip -t`", &rows[1]);
    report("unpack, synced and hashed, vs `tar -zxf` (not synced)", &rows[2]);
    let excess = (sizes.1 as f64 / sizes.0 as f64 - 1.0) * 100.0;
    println!("archive size: {} bytes, peer {} ({excess:+.1} %)", sizes.1, sizes.0);
    println!("peak resident memory of this process: {} MiB", peak_mib());
}

const LIMITS: Limits = Limits { unpacked_bytes: u64::MAX, entries: 1_000_000, ratio: 1030 };

#[derive(Clone, Copy)]
struct Seconds {
    wall: f64,
    cpu: f64,
}

struct Pair {
    peer: Seconds,
    ours: Seconds,
}

fn archive_home(dir: &Path, part: &Path, threads: usize) {
    let home = dir.join("home");
    let listed = Manifest::walk(&OsFs, &home, Contents::Skip, 1, &no_tick).expect("a walk");
    archive::write(&OsFs, &home, &listed, &"home".into(), part, threads, &no_tick).expect("an archive");
}

/// A generator with a fixed seed: every run works on the same bytes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn generate(home: &Path, size_mib: usize) {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for folder in ["spark/jars", "lib", "logs", "conf", "server/public"] {
        std::fs::create_dir_all(home.join(folder)).expect("a directory");
    }
    let jar_bytes = (size_mib << 20) * 2 / 3;
    let mut made = 0;
    let mut number = 0;
    while made < jar_bytes {
        let length = (64 << 10) + (noise.next() as usize % (2 << 20));
        let jar: Vec<u8> = (0..length / 8).flat_map(|_| packed_bytes(&mut noise)).collect();
        let folder = if number % 3 == 0 { "lib" } else { "spark/jars" };
        std::fs::write(home.join(folder).join(format!("part-{number}.jar")), &jar).expect("a jar");
        made += jar.len();
        number += 1;
    }
    let mut text_left = (size_mib << 20) - jar_bytes;
    while text_left > 0 {
        let length = if number % 4 == 0 { 4 << 20 } else { 2000 + noise.next() as usize % 40_000 };
        let text = log_text(&mut noise, length.min(text_left));
        let folder = ["logs", "conf", "server/public"][number % 3];
        std::fs::write(home.join(folder).join(format!("file-{number}")), &text).expect("a text");
        text_left -= text.len();
        number += 1;
    }
}

/// Bytes of 7.88 bits of entropy, as jars have: gzip still finds a little, and so pays for Huffman codes on both ways.
fn packed_bytes(noise: &mut Noise) -> [u8; 8] {
    let mut bytes = noise.next().to_le_bytes();
    bytes[7] &= 0x0f;
    bytes
}

fn log_text(noise: &mut Noise, length: usize) -> Vec<u8> {
    let words =
        ["INFO", "WARN", "query", "cube", "segment", "job", "finished", "org.apache.kylin.rest", "took"];
    let mut text = Vec::with_capacity(length + 200);
    while text.len() < length {
        let stamp = noise.next();
        text.extend_from_slice(format!("2026-11-24 {:02}:{:02} ", stamp % 24, stamp % 60).as_bytes());
        for _ in 0..3 + stamp % 9 {
            let pick = noise.next();
            text.extend_from_slice(words[pick as usize % words.len()].as_bytes());
            text.extend_from_slice(format!(" {} ", pick % 100_000).as_bytes());
        }
        text.push(b'\n');
    }
    text.truncate(length);
    text
}

fn timed(work: impl FnOnce()) -> Seconds {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    work();
    Seconds { wall: began.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu }
}

/// User and system time of this process and of the children it has waited for.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the kernel's accounts");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..15].iter().map(|field| field.parse::<f64>().unwrap_or_default()).sum();
    ticks / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's accounts");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn run(dir: &Path, program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).current_dir(dir).status().expect("the peer is installed");
    assert!(status.success(), "{program} failed");
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(std::ffi::OsStr::to_str).expect("a plain name")
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).expect("a file").len()
}

fn report(what: &str, pairs: &[Pair]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |pick: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(pick).collect());
    println!(
        "{what}: {:.1}x; peer {:.2} ({:.2}), ours {:.2} ({:.2})",
        of(&|pair| pair.peer.wall / pair.ours.wall),
        of(&|pair| pair.peer.wall),
        of(&|pair| pair.peer.cpu),
        of(&|pair| pair.ours.wall),
        of(&|pair| pair.ours.cpu),
    );
}
