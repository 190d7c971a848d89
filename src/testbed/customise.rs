//! What an operator does to a home over the years: everything that an upgrade has to carry, leave, or ask about.

#![allow(clippy::disallowed_methods, reason = "it builds test machines, not customers'")]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use rustix::io::Errno;

use super::content::{Content, Seed};
use super::package::{Layout, server_xml};
use super::scenario::Nasty;
use super::store::write_below;

/// What a home's own configuration says.
pub(super) struct Site<'a> {
    pub(super) layout: Layout,
    pub(super) metadata_url: &'a str,
    pub(super) working_dir: &'a str,
    pub(super) port: u16,
    pub(super) log_bytes: u64,
    pub(super) seed: Seed,
}

/// Makes a freshly unpacked home into one that has been in use.
pub(super) fn customise(home: &Path, site: &Site<'_>) -> io::Result<()> {
    let write = |path: &str, text: &str| write_below(&home.join(path), text.as_bytes());
    set_properties(
        &home.join("conf/kylin.properties"),
        &[
            ("kylin.metadata.url", site.metadata_url),
            ("kylin.env.hdfs-working-dir", site.working_dir),
            ("kylin.engine.spark-conf.spark.executor.memory", "16G"),
        ],
    )?;
    let mut over =
        "# Ours\nkylin.query.cache-enabled = false\nkylin.server.external-acl-password=s3cret-acl\n"
            .to_owned();
    if site.layout == Layout::Ke4 {
        over = format!("{over}server.port={}\n", site.port);
    }
    write("conf/kylin.properties.override", &over)?;
    write("conf/user.keytab", "\u{5}\u{2}keytab")?;
    fs::set_permissions(home.join("conf/user.keytab"), fs::Permissions::from_mode(0o400))?;
    write("conf/.operator", "a dot file that nobody must lose\n")?;
    append(&home.join("conf/setenv.sh"), "export KYLIN_JVM_SETTINGS=\"-Xms4g -Xmx16g\"\n")?;
    write("LICENSE", "====\nKyligence Enterprise\nLicence of the customer\n====\n")?;
    write("site-scripts/check.sh", "#!/bin/sh\nexit 0\n")?;
    write("logs/kylin.log", &job_line())?;
    if site.log_bytes > 0 {
        for number in 1..=4 {
            let seed = site.seed.of(&number.to_string());
            let old_log = Content::Prose { seed, bytes: site.log_bytes / 4 };
            old_log.write_to(&mut File::create(home.join(format!("logs/kylin.log.{number}")))?)?;
        }
    }
    write("meta_backups/meta_2020_01_01_00_00_00/UUID", "an older backup, and an empty one")?;
    // As old as it says: nobody has to wait for a second to go by before the next backup can have another name.
    File::open(home.join("meta_backups"))?.set_modified(UNIX_EPOCH + Duration::from_hours(438_288))?;
    match site.layout {
        Layout::Ke3 => {
            write("ext/mysql-connector-java-5.1.41.jar", "the operator's driver")?;
            write("tomcat/conf/server.xml", &server_xml(site.port))
        }
        Layout::Ke4 => {
            write("lib/ext/mysql-connector-java-5.1.41.jar", "the operator's driver")?;
            write("server/.keystore", "the operator's key store")?;
            write("hadoop_conf/core-site.xml", "<configuration/>\n")
        }
    }
}

/// Adds what makes a home nasty.
pub(super) fn make_nasty(home: &Path, layout: Layout, nasty: Nasty) -> io::Result<()> {
    if nasty.names {
        add_names(home)?;
    }
    if nasty.links {
        add_links(home, layout)?;
    }
    if nasty.attributes {
        add_attributes(home)?;
    }
    if nasty.special {
        let fifo = home.join("logs/pipe");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        bind_socket(&home.join("logs/socket"))?;
    }
    if nasty.stale_pid {
        // A number that no process can have: the kernel's limit is 2^22.
        fs::write(home.join("pid"), "4194305\n")?;
    }
    if nasty.lock {
        fs::write(home.join("LOCK"), "")?;
    }
    Ok(())
}

/// The line from which the job check learns that all jobs are finished.
fn job_line() -> String {
    "2026-03-14 01:02:03,004 INFO  [JobFetcher-42] threadpool.DefaultFetcherRunner:94 : Job Fetcher: 0 running, \
     0 scheduled, 0 actual running, 0 stopped, 0 ready, 0 waiting, 1 succeed, 0 error, 0 discarded\n"
        .to_owned()
}

/// Edits values where they stand, through whatever links lead to the file, as an editor does.
fn set_properties(path: &Path, values: &[(&str, &str)]) -> io::Result<()> {
    let mut text = String::new();
    for line in fs::read_to_string(path)?.lines() {
        let key = line.split('=').next().unwrap_or_default();
        match values.iter().find(|(name, _)| *name == key) {
            Some((name, value)) => text.extend([name, "=", value, "\n"]),
            None => text.extend([line, "\n"]),
        }
    }
    text.push_str("kylin.operator.own-key=own\n");
    fs::write(path, text)
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn add_names(home: &Path) -> io::Result<()> {
    let dir = home.join("-own [dir]+*");
    fs::create_dir(&dir)?;
    let names: [&[u8]; 6] =
        [b"with blank", b"new\nline", b"-leading", b"+[]*?", b"latin-\xe9\xff", b"back\\slash'\"$HOME"];
    for name in names {
        write_below(&dir.join(OsStr::from_bytes(name)), name)?;
    }
    write_below(&home.join("conf/with blank.xml"), b"<a/>")?;
    write_below(&home.join("conf").join(OsStr::from_bytes(b"caf\xe9.properties")), b"a=b")
}

fn add_links(home: &Path, layout: Layout) -> io::Result<()> {
    let data = home.join("site-data");
    fs::create_dir(&data)?;
    write_below(&data.join("one"), b"one content, two names")?;
    fs::hard_link(data.join("one"), data.join("two"))?;
    // A hard link across two customised places.
    fs::hard_link(data.join("one"), home.join("site-scripts/one"))?;
    symlink("one", data.join("inside"))?;
    symlink("nowhere/at/all", data.join("dangling"))?;
    symlink("/etc/hosts", data.join("absolute"))?;
    symlink(".", data.join("loop"))?;
    if layout == Layout::Ke3 {
        // As the manual has it done: absolute, and another choice than the shipped one. The site's settings go along.
        let effective = home.join("conf/profile_prod/kylin.properties");
        fs::copy(effective, home.join("conf/profile_min/kylin.properties"))?;
        fs::remove_file(home.join("conf/profile"))?;
        symlink(home.join("conf/profile_min"), home.join("conf/profile"))?;
    }
    Ok(())
}

fn add_attributes(home: &Path) -> io::Result<()> {
    let dir = home.join("site-attributes");
    let mut sparse = {
        fs::create_dir(&dir)?;
        File::create(dir.join("sparse"))?
    };
    sparse.seek(SeekFrom::Start(4 << 20))?;
    sparse.write_all(b"after a hole")?;
    sparse.set_len(8 << 20)?;
    write_below(&dir.join("setuid"), b"#!/bin/sh\n")?;
    let xattr = dir.join("xattr");
    write_below(&xattr, b"with an attribute")?;
    match setxattr(&xattr, "user.kytx.origin", b"site\0binary", XattrFlags::empty()) {
        Err(Errno::NOTSUP | Errno::NOSYS) | Ok(()) => {}
        Err(errno) => return Err(errno.into()),
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.join("setuid"), Some(12_345), Some(23_456))?;
    }
    // After the owner, whose change clears it.
    fs::set_permissions(dir.join("setuid"), fs::Permissions::from_mode(0o4755))?;
    write_below(&dir.join("read-only/f"), b"in a directory that cannot be written")?;
    fs::set_permissions(dir.join("read-only"), fs::Permissions::from_mode(0o555))
}

/// Binds through a short name of the directory, as a socket's path must fit into 108 bytes.
fn bind_socket(path: &Path) -> io::Result<()> {
    let dir = File::open(path.parent().expect("BUG: a socket lies in a directory"))?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
    UnixListener::bind(short.join(path.file_name().expect("BUG: a socket has a name"))).map(drop)
}
