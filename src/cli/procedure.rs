//! What the preconditions of the manual's procedure are judged by: gathered side by side, and nothing is touched.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use super::args::UpgradeArgs;
use super::beside::beside;
use super::inquiry::{inquire, on_path};
use super::jobs::credentials;
use super::ticket;
use crate::effect::fs::{Fs, Kind, read_end, read_file, stat_opt};
use crate::effect::lock::user_name;
use crate::effect::os::OsFs;
use crate::effect::shell::ending;
use crate::hadoop::local::LocalHdfs;
use crate::hadoop::{Hdfs as _, scheme};
use crate::kyligence::home::{Home, Layout, Package};
use crate::kyligence::jobs::{LogCounts, newest_counts, unfinished};
use crate::kyligence::metadata_url::{MetadataUrl, StoreKind};
use crate::kyligence::preflight::procedure::{Jobs, Licence, Procedure, StoreSeen, Tried};
use crate::kyligence::preflight::watchdogs::{CronText, Watchdogs};
use crate::kyligence::process::Processes;
use crate::kyligence::rest::{Credentials, Rest};
use crate::kyligence::version::Generation;
use crate::raw_path::RawPath;

/// How long a program may take that asks nobody else.
const LOCAL_LIMIT: Duration = Duration::from_secs(30);

/// How long a program may take that asks the cluster.
const CLUSTER_LIMIT: Duration = Duration::from_mins(2);

/// How long the metadata store's host may take to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The end of the service's log that is searched. The scheduler counts every half minute.
const LOG_END_BYTES: u64 = 4 << 20;

/// The longest crontab that is read.
const CRONTAB_LIMIT_BYTES: u64 = 1 << 20;

/// The files and directories of the machine's crontabs. Those of users can be read by root alone.
const CRONTABS: [&str; 4] = ["/etc/crontab", "/etc/cron.d", "/var/spool/cron/crontabs", "/var/spool/cron"];

/// Gathers the facts.
pub fn gather(args: &UpgradeArgs, home: &Home, package: &Package, processes: &Processes) -> Procedure {
    let credentials = credentials(&args.jobs);
    let ask = || ask_for_jobs(home, credentials.clone(), processes);
    let find_watchdogs = || watchdogs(home, args.which.home.as_deref(), processes);
    let try_programs = || programs(home);
    let ask_for_ticket = || ticket::seen(home);
    let try_store = || working_dir(home).unwrap_or_else(|| store(&home.metadata_url()));
    let (asked, watchdogs, programs, ticket, store) = std::thread::scope(|scope| {
        let asked = beside(scope, &ask);
        let watchdogs = beside(scope, &find_watchdogs);
        let programs = beside(scope, &try_programs);
        let ticket = beside(scope, &ask_for_ticket);
        let store = beside(scope, &try_store);
        (asked.result(), watchdogs.result(), programs.result(), ticket.result(), store.result())
    });
    Procedure {
        old: home.identity.clone(),
        new: package.identity.clone(),
        jobs: Jobs {
            service_runs: processes.service_runs(),
            asked,
            log: log_counts(&home.path),
            word: args.jobs.jobs_finished,
        },
        watchdogs,
        grafana: named_by(home, "grafana/pid", processes),
        transformers: home.property("kylin.query.transformers").map(str::to_owned),
        programs,
        ticket,
        licence: Licence { given: args.licence.is_some(), installed: has_licence(&home.path) },
        store,
    }
}

fn ask_for_jobs(
    home: &Home,
    credentials: Result<Option<Credentials>, String>,
    processes: &Processes,
) -> Option<Result<crate::kyligence::jobs::Asked, String>> {
    let credentials = match credentials {
        Ok(Some(credentials)) => credentials,
        Ok(None) => return None,
        Err(why) => return Some(Err(why)),
    };
    if !processes.service_runs() {
        return Some(Err("it does not run".to_owned()));
    }
    Some(unfinished(&Rest::of(home, credentials)).map_err(|error| error.to_string()))
}

/// The end of the log. One that cannot be read counts nothing.
fn log_counts(home: &Path) -> Option<LogCounts> {
    let path = home.join("logs/kylin.log");
    newest_counts(&read_end(&OsFs, &path, 0, LOG_END_BYTES).ok()?)
}

fn has_licence(home: &Path) -> bool {
    crate::kyligence::home::read_through_links(&OsFs, &home.join("LICENSE"))
        .ok()
        .flatten()
        .is_some_and(|text| !text.trim_ascii().is_empty())
}

/// The living processes of the home that one of its pid files names.
fn named_by(home: &Home, file: &str, processes: &Processes) -> Vec<u32> {
    let text = read_file(&OsFs, &home.path.join(file), 64 << 10).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|pid| processes.found.iter().any(|process| process.pid == *pid))
        .collect()
}

/// What brings a stopped service back, or works in the home on its own.
pub fn watchdogs(home: &Home, named: Option<&Path>, processes: &Processes) -> Watchdogs {
    let mut homes = vec![RawPath::from(home.path.as_path())];
    homes.extend(named.and_then(|named| std::path::absolute(named).ok()).map(RawPath::from));
    let version = &home.identity.version;
    // The guardian came with 3.4, and its stop with it.
    let stop_ends_guardian = match home.identity.generation() {
        Some(Generation::Ke4 | Generation::Kylin5) => true,
        Some(Generation::Ke3) => version.line() >= (3, 4),
        _ => false,
    };
    let (mut cron, mut unread) = (Vec::new(), Vec::new());
    own_crontab(&mut cron, &mut unread);
    for place in CRONTABS {
        read_crontabs(Path::new(place), &mut cron, &mut unread);
    }
    let guardian = named_by(home, "kgid", processes).first().copied();
    Watchdogs { homes, guardian, stop_ends_guardian, cron, unread }
}

fn own_crontab(cron: &mut Vec<CronText>, unread: &mut Vec<String>) {
    let place = format!("the crontab of `{}`", user_name());
    let Some(program) = on_path("crontab") else {
        // Without the program there is no such crontab to speak of.
        return;
    };
    match inquire(&program, &["-l"], LOCAL_LIMIT) {
        Ok(ran) if ran.code == Some(0) => cron.push(CronText { place, text: ran.stdout }),
        // Code 1 is that of a user without a crontab.
        Ok(ran) if ran.code == Some(1) && ran.stderr.contains("no crontab") => {}
        Ok(ran) => unread.push(format!("{place}: `crontab -l`: {}", ending(&ran))),
        Err(error) => unread.push(format!("{place}: `crontab -l`: {error}")),
    }
}

/// A crontab, or all in a directory. What is not there holds no line; what only root may read is root's to look at.
fn read_crontabs(place: &Path, cron: &mut Vec<CronText>, unread: &mut Vec<String>) {
    let files = match stat_opt(&OsFs, place) {
        Ok(Some(meta)) if meta.kind == Kind::Dir => match OsFs.list(place) {
            Ok(names) => names.into_iter().map(|name| place.join(name)).collect(),
            Err(error) => {
                unread.push(format!("`{}`: {error}", place.display()));
                return;
            }
        },
        Ok(Some(_)) => vec![place.to_owned()],
        _ => return,
    };
    for file in files {
        if !matches!(stat_opt(&OsFs, &file), Ok(Some(meta)) if meta.kind == Kind::File) {
            continue;
        }
        match read_file(&OsFs, &file, CRONTAB_LIMIT_BYTES) {
            Ok(text) => cron.push(CronText {
                place: format!("`{}`", file.display()),
                text: String::from_utf8_lossy(&text).into_owned(),
            }),
            Err(error) => unread.push(format!("`{}`: {error}", file.display())),
        }
    }
}

/// Programs that the product's scripts need where the home uses a cluster. One in local directories needs none.
fn programs(home: &Home) -> Vec<Tried> {
    let shared = match home.working_dir() {
        Ok(dir) => dir.shared,
        Err(_) => return Vec::new(),
    };
    if scheme(&RawPath::from(shared.as_str())) == Some("file") {
        return Vec::new();
    }
    let mut tried = vec![
        try_program("hadoop", &["version"], LOCAL_LIMIT, true),
        try_program("hdfs", &["version"], LOCAL_LIMIT, true),
    ];
    if home.layout == Layout::Tomcat {
        let result = on_path("hive").map(drop).ok_or_else(|| "it is not on the PATH".to_owned());
        tried.push(Tried { name: "hive", how: "hive".to_owned(), needed: false, result });
    }
    if tried.iter().all(|program| program.result.is_ok() || !program.needed) {
        tried.push(try_program("hadoop", &["fs", "-ls", "-d", &shared], CLUSTER_LIMIT, true));
    }
    tried
}

fn try_program(name: &'static str, args: &[&str], limit: Duration, needed: bool) -> Tried {
    let how = [&[name], args].concat().join(" ");
    let result = match on_path(name) {
        None => Err("it is not on the PATH".to_owned()),
        Some(program) => match inquire(&program, args, limit) {
            Ok(ran) if ran.code == Some(0) && !ran.timed_out => Ok(()),
            Ok(ran) => {
                let said = ran.stderr.lines().last().unwrap_or_default();
                Err(format!("{} {said}", ending(&ran)).trim_end().to_owned())
            }
            Err(error) => Err(error.to_string()),
        },
    };
    Tried { name, how, needed, result }
}

/// Whether a local working directory is away, or this instance's folder in it: no metadata command may be run then, as
/// it would delete the entries whose content lies there (reference 22.1). Programs look at one on a cluster.
fn working_dir(home: &Home) -> Option<StoreSeen> {
    let dirs = home.working_dir().ok()?;
    let away = |dir: String| {
        let path = RawPath::from(dir.as_str());
        let hdfs = LocalHdfs::new(&OsFs);
        let error = (scheme(&path) == Some("file")).then(|| hdfs.reach(&path).err()).flatten()?;
        Some(StoreSeen::Away { why: format!("the working directory `{path}` of its large entries: {error}") })
    };
    [Some(dirs.shared), dirs.instance].into_iter().flatten().find_map(away)
}

/// Looks at the metadata store without a command of the product's.
fn store(url: &MetadataUrl) -> StoreSeen {
    let unknown = |why: &str| StoreSeen::Unknown { why: why.to_owned() };
    match &url.kind {
        StoreKind::Directory => match stat_opt(&OsFs, Path::new(&url.identifier)) {
            Ok(Some(_)) => StoreSeen::There,
            Ok(None) => StoreSeen::Away { why: format!("there is no `{}`", url.identifier) },
            Err(error) => StoreSeen::Away { why: format!("`{}`: {error}", url.identifier) },
        },
        StoreKind::Jdbc => match url.database_hosts() {
            hosts if hosts.is_empty() => unknown("its URL names no host and port that kytx understands"),
            hosts => connect(&hosts),
        },
        StoreKind::Hbase => unknown("only the product's own tools ask HBase"),
        StoreKind::Hdfs | StoreKind::Other(_) => unknown("only the product's own tools ask such a store"),
    }
}

/// One host of several that takes connections is enough.
fn connect(hosts: &[(String, u16)]) -> StoreSeen {
    let mut why = Vec::new();
    for (host, port) in hosts {
        let addresses = match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                why.push(format!("`{host}`: {error}"));
                continue;
            }
        };
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                Ok(_) => return StoreSeen::There,
                Err(error) => why.push(format!("{address}: {error}")),
            }
        }
    }
    StoreSeen::Away { why: why.join("; ") }
}
