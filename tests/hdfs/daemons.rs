//! The daemons of the bed, one by one: killed, frozen, brought up again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn bed_dir() -> String {
    std::env::var("HADOOP_BED_DIR").unwrap()
}

fn script(name: &str, args: &[&str]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testbed/hadoop").join(name);
    let output = Command::new(path)
        .args(args)
        .env("HADOOP_BED_JARS", std::env::var("HADOOP_BED_JARS").unwrap())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whatever a test does to the daemons, all of them serve again when this goes.
pub struct Daemons;

impl Daemons {
    /// Kills one at once.
    pub fn kill(name: &str) {
        script("down", &["--kill", &bed_dir(), name]);
    }

    /// Brings one up again, and waits until it serves.
    pub fn up(names: &[&str]) {
        let dir = bed_dir();
        let mut args = vec![dir.as_str()];
        args.extend(names);
        script("up", &args);
    }

    /// Sends one a signal.
    pub fn signal(name: &str, signal: Signal) {
        let text = fs::read_to_string(PathBuf::from(bed_dir()).join("pid").join(name)).unwrap();
        let pid: i32 = text.split(' ').next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for name in ["namenode", "datanode", "resourcemanager", "nodemanager"] {
            let path = PathBuf::from(bed_dir()).join("pid").join(name);
            let text = fs::read_to_string(path).unwrap_or_default();
            let pid = text.split(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            // A frozen one that was already dead takes no signal.
            let _ = pid.map(|pid| kill_process(pid, Signal::CONT));
        }
        let _ = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testbed/hadoop/up"))
            .arg(bed_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = Command::new("hdfs").args(["dfsadmin", "-safemode", "leave"]).stdin(Stdio::null()).output();
    }
}
