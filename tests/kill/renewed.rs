//! A machine that can be made again what it was, byte for byte and time for time, under the same path.

use std::fs;
use std::net::TcpListener;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use kytx::testbed::{Layout, Options};

use crate::support::{Machine, wait_until};

/// A machine, and what it was.
pub struct Renewed {
    machine: Machine,
    pristine: tempfile::TempDir,
}

impl Renewed {
    /// Builds it below a directory. Its service does not run.
    pub fn new(parent: &Path, options: &Options) -> Self {
        let machine = Machine::within(parent, options);
        thin_out(&machine);
        let pristine = tempfile::Builder::new().prefix("kytx-").tempdir_in(parent).unwrap();
        copy(&machine.root, pristine.path());
        Self { machine, pristine }
    }

    /// Makes it what it was, with its service running.
    pub fn renew(&self) {
        self.machine.end_services().unwrap();
        // A process of several threads is a zombie before the last of them has let go of its sockets.
        let is_free = || TcpListener::bind(("127.0.0.1", self.machine.port)).is_ok();
        wait_until("the service's port is free", is_free);
        for entry in fs::read_dir(&self.machine.root).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                fs::remove_dir_all(entry.path()).unwrap();
            } else {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        copy(self.pristine.path(), &self.machine.root);
        self.machine.start();
    }
}

impl Deref for Renewed {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

/// Leaves one entry of a kind in the metadata: each more is the same calls of the product's tool once more, in every
/// backup and every restore of every run.
fn thin_out(machine: &Machine) {
    const MORE: [&str; 6] = [
        "project/web.json",
        "table/DEFAULT.CLICKS--web.json",
        "table/DEFAULT.EVENTS--web.json",
        "cube/web_cube.json",
        "cube_desc/web_cube.json",
        "model_desc/sales_model.json",
    ];
    if machine.options.layout == Layout::Ke3 {
        for entry in MORE {
            fs::remove_file(machine.store.dir().join(entry)).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success(), "`{}` is copied", from.display());
}
