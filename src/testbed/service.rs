//! The stand-in's service: what `kylin.sh start` leaves in the background.
//!
//! It is a process of its own with `KYLIN_HOME` in its environment, reads `VERSION` once as the real one does,
//! changes the metadata as the real one does when it starts, and answers HTTP on the home's port of the loopback
//! interface. It stays in the process group of its starter, as the real one does.

#![allow(
    clippy::disallowed_methods,
    reason = "it stands in for the product, and changes what the product changes"
)]

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use super::knobs::{Knob, Settings};
use super::package::Layout;
use super::store::{Store, major_of};
use super::wire::{Answer, Request};

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its arguments are wrong.
    #[error("usage: standin-service --home HOME --knobs FILE [--check-port]")]
    Usage,
    /// The home is not as it must be.
    #[error("cannot use the home `{home}`: {what}")]
    Home {
        /// The home.
        home: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The port is taken.
    #[error("cannot listen on port {port}")]
    Port {
        /// The port.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot run the stand-in's service")]
    Io(#[from] io::Error),
}

/// Runs the service until TERM ends it. The arguments are those after the command's own name. With `--check-port` it
/// only says whether the port is free.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), ServiceError> {
    let (home, knobs, check_only) = parse(args)?;
    let service = Service::load(home, knobs)?;
    let listener = TcpListener::bind(("127.0.0.1", service.port))
        .map_err(|source| ServiceError::Port { port: service.port, source })?;
    if check_only {
        return Ok(());
    }
    // Before anything else runs, so that an early TERM is not lost.
    let mut signals = Signals::new([SIGTERM])?;
    let service = Arc::new(service);
    service.log("Starting")?;
    let acceptor = Arc::clone(&service);
    std::thread::spawn(move || acceptor.accept(&listener));
    let starter = Arc::clone(&service);
    std::thread::spawn(move || starter.become_ready());
    signals.forever().next();
    let settings = Settings::read(&service.knobs, &service.version)?;
    std::thread::sleep(Duration::from_millis(settings.number(Knob::TermIgnoredMs)));
    Ok(())
}

struct Service {
    home: PathBuf,
    knobs: PathBuf,
    /// The first line of `VERSION` at the start: a swap of trees under a running service does not change it.
    product: String,
    version: String,
    port: u16,
    layout: Layout,
    store: Store,
    ready: AtomicBool,
}

impl Service {
    fn load(home: PathBuf, knobs: PathBuf) -> Result<Self, ServiceError> {
        let wrong = |what| ServiceError::Home { home: home.clone(), what };
        let product =
            fs::read_to_string(home.join("VERSION"))?.lines().next().unwrap_or_default().trim().to_owned();
        let version =
            product.split_whitespace().last().ok_or_else(|| wrong("its VERSION is empty"))?.to_owned();
        let port = port_of(&home)?.ok_or_else(|| wrong("it names no port"))?;
        let settings = Settings::read(&knobs, &version)?;
        let url = property(&home, "kylin.metadata.url")?;
        let first = url.split(',').next().unwrap_or_default();
        let (identifier, dir) = match first.rsplit_once('@') {
            Some((identifier, _)) => (identifier.to_owned(), settings.text(Knob::MetadataDir).to_owned()),
            None => ("kylin_metadata".to_owned(), first.to_owned()),
        };
        if dir.is_empty() {
            return Err(wrong("it names no metadata store"));
        }
        let working = property(&home, "kylin.env.hdfs-working-dir")?;
        let local = Some(settings.text(Knob::WorkingDir)).filter(|local| !local.is_empty());
        let working = local.unwrap_or(working.trim_start_matches("file://"));
        let working = Path::new(working).join(identifier);
        let store = Store::at(dir, working);
        let layout = if home.join("server").is_dir() { Layout::Ke4 } else { Layout::Ke3 };
        Ok(Self { layout, home, knobs, product, version, port, store, ready: AtomicBool::new(false) })
    }

    fn settings(&self) -> Settings {
        Settings::read(&self.knobs, &self.version).unwrap_or_default()
    }

    fn log(&self, what: &str) -> io::Result<()> {
        fs::create_dir_all(self.home.join("logs"))?;
        let mut log = OpenOptions::new().create(true).append(true).open(self.home.join("logs/kylin.log"))?;
        writeln!(log, "2026-03-14 01:02:03,004 INFO  [main] : {what} {}", self.version)
    }

    fn become_ready(&self) {
        let started = Instant::now();
        let settings = self.settings();
        if settings.text(Knob::Migrates) == "fails" {
            let _ = self.log(
                "Upgrade failed. Please try to run bin/kylin.sh \
                 io.kyligence.kap.tool.migration.ProjectDictionaryMigrationCLI FIX to fix.",
            );
            return;
        }
        if self.change_metadata(&settings).is_err() {
            // As the real one: it stays up and never gets ready; the log tells.
            let _ = self.log("ERROR cannot change the metadata,");
            return;
        }
        let delay = Duration::from_millis(settings.number(Knob::ReadyAfterMs));
        std::thread::sleep(delay.saturating_sub(started.elapsed()));
        self.ready.store(true, Ordering::Release);
        let _ = self.log("Segments have been upgraded successfully.");
    }

    /// Every start rewrites the user groups. The first start of a major version rewrites an entry, adds entries and
    /// changes cube data, all of which the old version does not understand.
    fn change_metadata(&self, settings: &Settings) -> io::Result<()> {
        let groups = match self.layout {
            Layout::Ke3 => "user_group",
            Layout::Ke4 => "_global/user_group/ALL_USERS",
        };
        let text = json!({"groups": ["ALL_USERS", "ROLE_ADMIN"], "by": self.version}).to_string();
        self.store.put(groups, text.as_bytes())?;
        if self.layout == Layout::Ke3 {
            self.store.put("user/ANALYST", br#"{"username":"ANALYST"}"#)?;
        }
        let schema = major_of(&self.version);
        let seen =
            fs::read_to_string(self.store.dir().join(Store::schema_path(self.layout))).unwrap_or_default();
        match settings.text(Knob::Migrates) {
            "never" => {}
            "always" => self.migrate(&schema, settings)?,
            _ if seen == schema => {}
            _ => self.migrate(&schema, settings)?,
        }
        self.keep(settings)
    }

    /// Makes what the store has been given survive a power cut, if it is one that does.
    fn keep(&self, settings: &Settings) -> io::Result<()> {
        if settings.text(Knob::StoreSyncs) == "1" { self.store.sync() } else { Ok(()) }
    }

    fn migrate(&self, schema: &str, settings: &Settings) -> io::Result<()> {
        let (added, rewritten) = match self.layout {
            Layout::Ke3 => ("scheduler/upgrade.json", "cube/sales_cube.json"),
            Layout::Ke4 => ("_global/upgrade/1.json", "sales/model_desc/1c.json"),
        };
        let text = json!({"name": "sales_cube", "status": "READY", "by": schema}).to_string();
        self.store.put(rewritten, text.as_bytes())?;
        self.store.put(added, json!({"upgraded_to": schema}).to_string().as_bytes())?;
        let cube = self.store.working().join("parquet/sales_cube");
        fs::create_dir_all(&cube)?;
        fs::write(cube.join("0.parquet"), format!("rewritten by {schema}"))?;
        fs::write(cube.join("1.parquet"), format!("added by {schema}"))?;
        // By this the next start knows that nothing is left to be done: so the rest must be there.
        self.keep(settings)?;
        self.store.put(Store::schema_path(self.layout), schema.as_bytes())
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for connection in listener.incoming().flatten() {
            let service = Arc::clone(self);
            // An answer that cannot be sent is the client's loss.
            std::thread::spawn(move || drop(service.serve(connection)));
        }
    }

    fn serve(&self, mut connection: TcpStream) -> io::Result<()> {
        let settings = self.settings();
        if settings.text(Knob::HttpMode) == "drop" {
            return Ok(());
        }
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = Request::read(&connection)?;
        let answer = match settings.text(Knob::HttpMode) {
            "login-page" => Answer::html(200, "<html><form action=\"/kylin/login\">Log in</form></html>"),
            "never" => Answer::html(503, "<html>Service Unavailable</html>"),
            _ if !self.ready.load(Ordering::Acquire) => Answer::html(503, "<html>Service Unavailable</html>"),
            _ => self.answer(&request, &settings)?,
        };
        answer.write(&mut connection)
    }

    fn answer(&self, request: &Request, settings: &Settings) -> io::Result<Answer> {
        let is_ke4 = self.layout == Layout::Ke4;
        let path = request.path.split('?').next().unwrap_or_default();
        let is_open = matches!(
            path,
            "/kylin/" | "/kylin/index.html" | "/kylin/api/health" | "/kylin/api/admin/version"
        );
        if !is_open && request.authorization.is_empty() {
            return Ok(Answer { location: "/kylin/login", ..Answer::html(302, "") });
        }
        // ADMIN and KYLIN.
        if !is_open && request.authorization != "Basic QURNSU46S1lMSU4=" {
            return Ok(Answer::html(401, "<html>Unauthorized</html>"));
        }
        Ok(match path {
            "/kylin/" | "/kylin/index.html" => {
                Answer::html(200, "<html><title>Kyligence Enterprise</title></html>")
            }
            "/kylin/api/health" if is_ke4 => Answer::json(&json!({"status": "UP", "components": {}})),
            "/kylin/api/admin/version" if !is_ke4 => {
                // The commit is read at each request, so that a swap under a running service shows.
                let commit = fs::read_to_string(self.home.join("commit_SHA1")).unwrap_or_default();
                let commit = commit.lines().next().unwrap_or_default();
                self.envelope(
                    request,
                    &json!({"kylin.version": self.product, "kylin.version.commitId": commit}),
                )
            }
            "/kylin/api/projects" if request.method == "PUT" && !is_ke4 => self.change_project(request)?,
            "/kylin/api/projects" => self.envelope(request, &self.projects()?),
            "/kylin/api/user/authentication" => {
                self.envelope(request, &json!({"userDetails": {"username": "ADMIN"}}))
            }
            "/kylin/api/cubes" if !is_ke4 => {
                let cubes = self.entries("cube/")?;
                let size = cubes.len();
                if self.is_bare() {
                    self.envelope(request, &cubes.into())
                } else {
                    self.envelope(request, &json!({"cubes": cubes, "size": size}))
                }
            }
            "/kylin/api/query" => self.envelope(request, &self.query(settings)?),
            _ if request.method == "PUT" => self.cancel(request, path)?,
            "/kylin/api/jobs" if self.is_bare() => {
                let offset = request.path.split("offset=").nth(1).and_then(|text| text.parse().ok());
                let jobs: Vec<Value> = self.jobs()?.into_iter().skip(offset.unwrap_or(0)).collect();
                self.envelope(request, &jobs.into())
            }
            "/kylin/api/jobs" => {
                let jobs = self.jobs()?;
                self.envelope(
                    request,
                    &json!({"size": jobs.len(), "total_size": jobs.len(), "jobs": jobs, "value": jobs}),
                )
            }
            _ => Answer::html(404, "<html>Not Found</html>"),
        })
    }

    /// Kyligence wraps its answers; Kylin does not, and refuses to be asked for Kyligence's form.
    fn envelope(&self, request: &Request, data: &Value) -> Answer {
        if !self.is_bare() {
            Answer::json(&json!({"code": "000", "data": data, "msg": ""}))
        } else if request.accept.contains("vnd.apache.kylin") {
            Answer::html(406, "<html>Not Acceptable</html>")
        } else {
            Answer::json(data)
        }
    }

    /// Kylin before 5.
    fn is_bare(&self) -> bool {
        self.layout == Layout::Ke3 && !self.product.starts_with("Ky") && !self.product.starts_with("KAP")
    }

    /// Replaces a project's description, in the form of KE 3 and Kylin 3.
    fn change_project(&self, request: &Request) -> io::Result<Answer> {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let wanted =
            body["projectDescData"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let (Some(name), Some(wanted)) = (body["formerProjectName"].as_str(), wanted) else {
            return Ok(Answer::html(400, "<html>Bad Request</html>"));
        };
        let path = format!("project/{name}.json");
        if name.contains('/') || !self.store.content()?.contains_key(&path) {
            return Ok(Answer::html(404, "<html>Not Found</html>"));
        }
        self.store.put(&path, wanted.to_string().as_bytes())?;
        Ok(self.envelope(request, &wanted))
    }

    /// Discards a job, in the form of KE 3 and Kylin 3.
    fn cancel(&self, request: &Request, path: &str) -> io::Result<Answer> {
        let id = path.strip_prefix("/kylin/api/jobs/").and_then(|tail| tail.strip_suffix("/cancel"));
        let Some(id) = id.filter(|id| !id.contains('/')) else {
            return Ok(Answer::html(404, "<html></html>"));
        };
        self.store.put(
            &format!("execute_output/{id}"),
            json!({"uuid": id, "status": "DISCARDED"}).to_string().as_bytes(),
        )?;
        Ok(self.envelope(request, &json!({"uuid": id, "job_status": "DISCARDED"})))
    }

    fn projects(&self) -> io::Result<Value> {
        let folder = match self.layout {
            Layout::Ke3 => "project/",
            Layout::Ke4 => "_global/project/",
        };
        Ok(self.entries(folder)?.into())
    }

    /// The entries of a folder of the store that are JSON.
    fn entries(&self, folder: &str) -> io::Result<Vec<Value>> {
        let content = self.store.content()?;
        let found = content
            .iter()
            .filter(|(path, _)| path.starts_with(folder))
            .filter_map(|(_, bytes)| serde_json::from_slice::<Value>(bytes.as_deref()?).ok());
        Ok(found.collect())
    }

    /// Answers any statement with the names of the projects. Two releases give rows in another order, as a query
    /// without an order may.
    fn query(&self, settings: &Settings) -> io::Result<Value> {
        let mode = settings.text(Knob::HttpMode);
        if mode == "query-fails" {
            return Ok(
                json!({"isException": true, "exceptionMessage": "Table 'ORDERS' not found", "results": null}),
            );
        }
        let projects = self.projects()?;
        let names = projects.as_array().into_iter().flatten().filter_map(|project| project["name"].as_str());
        let mut rows: Vec<Value> = names.map(|name| json!([name, "1"])).collect();
        if self.version.bytes().map(usize::from).sum::<usize>() % 2 == 1 {
            rows.reverse();
        }
        if mode == "other-rows" {
            rows.push(json!(["a row more", "1"]));
        }
        Ok(json!({"isException": false, "results": rows, "columnMetas": [], "duration": 5}))
    }

    /// The jobs that are not finished.
    fn jobs(&self) -> io::Result<Vec<Value>> {
        let content = self.store.content()?;
        let outputs = content.iter().filter(|(path, _)| match self.layout {
            Layout::Ke3 => path.starts_with("execute_output/"),
            Layout::Ke4 => path.contains("/execute/"),
        });
        let jobs = outputs.filter_map(|(path, bytes)| {
            let value: Value = serde_json::from_slice(bytes.as_deref()?).ok()?;
            let status = value["output"]["status"].as_str().or(value["status"].as_str())?.to_owned();
            let finished = ["SUCCEED", "DISCARDED", "SUICIDAL"].contains(&status.as_str());
            (!finished).then(|| json!({"uuid": path.rsplit('/').next(), "job_status": status}))
        });
        Ok(jobs.collect())
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(PathBuf, PathBuf, bool), ServiceError> {
    let (mut home, mut knobs, mut check_only) = (None, None, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--home") => home = args.next(),
            Some("--knobs") => knobs = args.next(),
            Some("--check-port") => check_only = true,
            // What the real server would be told, and is known by.
            Some("-jar") => drop(args.next()),
            _ if arg.as_encoded_bytes().starts_with(b"-Dcatalina.base=") => {}
            _ => return Err(ServiceError::Usage),
        }
    }
    match (home, knobs) {
        (Some(home), Some(knobs)) => Ok((home.into(), knobs.into(), check_only)),
        _ => Err(ServiceError::Usage),
    }
}

/// The port of a home: the HTTP connector of its Tomcat, or `server.port`.
fn port_of(home: &Path) -> io::Result<Option<u16>> {
    match fs::read_to_string(home.join("tomcat/conf/server.xml")) {
        Ok(text) => Ok(text
            .lines()
            .find(|line| line.contains("<Connector") && line.contains("protocol=\"HTTP/1.1\""))
            .and_then(|line| line.split("port=\"").nth(1)?.split('"').next()?.parse().ok())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(property(home, "server.port")?.parse().ok())
        }
        Err(error) => Err(error),
    }
}

/// The effective value of a property, for the plain `key=value` lines that the stand-in's homes hold.
fn property(home: &Path, key: &str) -> io::Result<String> {
    let mut found = String::new();
    for name in ["conf/kylin.properties", "conf/kylin.properties.override"] {
        let text = match fs::read_to_string(home.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for line in text.lines() {
            if let Some((name, value)) = line.split_once('=')
                && name.trim() == key
            {
                value.trim().clone_into(&mut found);
            }
        }
    }
    Ok(found)
}
