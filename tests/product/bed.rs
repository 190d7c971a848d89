//! The bed of `testbed/product/real`: whether it is there, and what the tests must know of it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The password of the database's user, which must be shown to nobody.
pub const PASSWORD: &str = "Pa55-w0rd-of-the-store";

/// What is up.
pub struct Bed {
    /// Its directory.
    pub dir: PathBuf,
    /// Where the jars are.
    pub jars: PathBuf,
    /// A Java that runs them.
    pub java: PathBuf,
    /// Our own classes.
    pub own: PathBuf,
    /// The database's port.
    pub database: u16,
    /// Its socket.
    socket: String,
    /// The port of the `ZooKeeper`.
    pub zookeeper: u16,
}

impl Bed {
    /// The bed, or word that there is none. Where the tests must not be skipped (`CI=true`) that is a failure.
    pub fn find(name: &str) -> Option<Self> {
        if std::env::var_os("PRODUCT_BED_DIR").is_none() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "`{name}` must run, and there is no PRODUCT_BED_DIR"
            );
            println!("SKIPPED {name}: no real product (testbed/product/real/up DIR, then source DIR/env)");
            return None;
        }
        let text = |of: &str| std::env::var(of).unwrap_or_else(|_| panic!("{of} is not set"));
        let port = |of: &str| text(of).parse().unwrap();
        Some(Self {
            dir: text("PRODUCT_BED_DIR").into(),
            jars: text("PRODUCT_BED_JARS").into(),
            java: text("PRODUCT_BED_JAVA").into(),
            own: text("PRODUCT_BED_OWN").into(),
            database: port("PRODUCT_BED_DB"),
            socket: text("PRODUCT_BED_SOCKET"),
            zookeeper: port("PRODUCT_BED_ZK"),
        })
    }

    /// Runs statements in the database; returns the rows, columns apart by tabs.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> Vec<String> {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "-S", &self.socket, "-u", "root", "--batch", "--skip-column-names", "-e"])
            .arg(statements)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}
