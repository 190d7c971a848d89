//! The stand-in in the place of a real product: a copy of a customer's home, and of a package, with this program's
//! scripts instead of the product's, a store and a port of their own. For `kytx rehearse`.

#![allow(clippy::disallowed_methods, reason = "it changes copies, not customers' homes")]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::knobs::{Knob, Knobs};
use super::package::{Layout, scripts, server_xml};
use super::scenario::free_port;
use super::store::{Store, StoreContent};
use crate::digest::Digest;

/// The metadata identifier of the stand-in's store.
const IDENTIFIER: &str = "kylin_metadata";

/// What a running service and its killed scripts leave in a home. In a copy it would name the real one's processes,
/// which the stand-in's scripts would then stop.
const RUNTIME: [&str; 5] = ["pid", "kgid", "LOCK", "child_process", "bin/kg-start.lock"];

/// What stands in for a product: a store, a working directory, a port, and the scripts that know them.
#[derive(Debug)]
pub struct StandIn {
    root: PathBuf,
    layout: Layout,
    program: PathBuf,
    knobs: Knobs,
    store: Store,
    port: u16,
}

impl StandIn {
    /// Makes store and working directory in `root`, as a release of this version would have left them. `program` is
    /// kytx, which has the service in it.
    pub fn create(root: &Path, layout: Layout, version: &str, program: PathBuf) -> io::Result<Self> {
        let knobs = Knobs::at(root.join("standin.knobs"));
        let dir = root.join("metadata");
        knobs.set(Knob::CallLog, root.join("calls.log").display())?;
        knobs.set(Knob::ServiceProgram, program.display())?;
        knobs.set(Knob::MetadataDir, dir.display())?;
        let store = Store::at(dir, root.join("hdfs/kylin").join(IDENTIFIER));
        store.fill(layout, version)?;
        fs::create_dir_all(root.join("tmp"))?;
        Ok(Self { root: root.to_owned(), layout, program, knobs, store, port: free_port()? })
    }

    /// Puts the stand-in's scripts in place of the product's in a tree, and its port in place of the tree's.
    pub fn replace_scripts(&self, tree: &Path) -> io::Result<()> {
        for (path, text) in scripts(self.layout) {
            replace(&tree.join(path), text, 0o755)?;
        }
        replace(&tree.join("bin/standin.knobs"), &format!("{}\n", self.knobs.path().display()), 0o644)?;
        if self.layout == Layout::Ke3 {
            let path = tree.join("tomcat/conf/server.xml");
            // Different where it was different before, so that whoever compares it with another decides the same.
            let was = fs::read(&path).map_or_else(|_| String::new(), |bytes| Digest::of(&bytes).to_string());
            replace(&path, &format!("{}<!-- {was} -->\n", server_xml(self.port)), 0o644)?;
        }
        Ok(())
    }

    /// Points a copied home to the stand-in's data, and forgets the processes of the home that it is a copy of.
    pub fn redirect(&self, home: &Path) -> io::Result<()> {
        for name in RUNTIME {
            match fs::remove_file(home.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let path = home.join("conf/kylin.properties.override");
        let mut text = fs::read(&path).unwrap_or_default();
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let working = self.root.join("hdfs/kylin");
        text.extend_from_slice(
            format!(
                "kylin.metadata.url={IDENTIFIER}@jdbc,url=jdbc:mysql:///rehearsal\n\
                 kylin.env.hdfs-working-dir=file://{}\nkap.guardian.enabled=false\n",
                working.display()
            )
            .as_bytes(),
        );
        if self.layout == Layout::Ke4 {
            text.extend_from_slice(
                format!("server.port={}\nkylin.server.https.enable=false\n", self.port).as_bytes(),
            );
        }
        // Written over, not replaced: what leads to it stays as the operator made it.
        fs::write(path, text)
    }

    /// The port that was chosen for the service.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The working directory with the cube data.
    pub fn working_dir(&self) -> PathBuf {
        self.root.join("hdfs/kylin")
    }

    /// The metadata but for what every start of the product rewrites (reference 22.6).
    pub fn metadata(&self) -> io::Result<StoreContent> {
        let mut content = self.store.content()?;
        content.retain(|path, _| !path.contains("user"));
        Ok(content)
    }

    /// Starts the service of a copied home, as an operator does.
    pub fn start(&self, home: &Path) -> io::Result<ExitStatus> {
        let mut command = Command::new(home.join("bin/kylin.sh"));
        command.arg("start").env("KYLIN_HOME", home);
        self.run_logged(command)
    }

    /// Runs kytx on a copied home. Its output goes to `rehearsal.log`.
    pub fn run_kytx(&self, words: &[std::ffi::OsString]) -> io::Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        command.args(words).env_remove("KYLIN_HOME");
        self.run_logged(command)
    }

    fn run_logged(&self, mut command: Command) -> io::Result<ExitStatus> {
        use std::io::Write as _;
        let mut log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        writeln!(log, "$ {command:?}")?;
        command
            .current_dir(&self.root)
            .env("TMPDIR", self.root.join("tmp"))
            .env_remove("KYLIN_CONF")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?);
        let status = command.status()?;
        writeln!(log, "= {status}")?;
        Ok(status)
    }

    /// What was run, and what it said.
    pub fn log(&self) -> PathBuf {
        self.root.join("rehearsal.log")
    }
}

/// Puts a file in the place of whatever is there.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
