//! Stopping, starting and asking, on a machine with a clock of its own.

#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::io::{Read as _, Write as _};

use std::path::PathBuf;

use super::*;
use crate::effect::os::OsFs;
use crate::kyligence::process::Role;

fn ran(code: i32) -> Ran {
    Ran {
        code: Some(code),
        signal: None,
        timed_out: false,
        stdout: "Kylin is starting\nlast words\n".to_owned(),
        stderr: String::new(),
        took: Duration::from_secs(1),
    }
}

fn process(pid: u32, role: Role) -> HomeProcess {
    HomeProcess { pid, start_ticks: 1, role, known_by: "test".into(), command: "java".into() }
}

/// A machine with a clock of its own. Scripts change what a look finds at a later second.
struct Machine {
    dir: tempfile::TempDir,
    now_s: Cell<u64>,
    /// From which second on who runs.
    timeline: RefCell<Vec<(u64, Vec<HomeProcess>)>>,
    stale: RefCell<Vec<StalePidFile>>,
    calls: RefCell<Vec<Call>>,
    /// The pid file as the last script found it.
    pid_at_call: RefCell<Option<String>>,
    on_call: (i32, Vec<(u64, Vec<HomeProcess>)>),
    ready_at_s: u64,
    interrupted_at_s: u64,
}

impl Shell for Machine {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        self.calls.borrow_mut().push(call.clone());
        *self.pid_at_call.borrow_mut() = std::fs::read_to_string(self.home().join("pid")).ok();
        let later = self.on_call.1.iter().map(|(s, who)| (self.now_s.get() + s, who.clone()));
        self.timeline.borrow_mut().extend(later);
        Ok(ran(self.on_call.0))
    }
}

impl Machine {
    fn new(running: Vec<HomeProcess>, on_call: (i32, Vec<(u64, Vec<HomeProcess>)>)) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            now_s: Cell::new(0),
            timeline: RefCell::new(vec![(0, running)]),
            stale: RefCell::default(),
            calls: RefCell::default(),
            pid_at_call: RefCell::default(),
            on_call,
            ready_at_s: 0,
            interrupted_at_s: u64::MAX,
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn with<T>(&self, work: impl FnOnce(&mut ServiceTools<'_>) -> T) -> T {
        let look = || {
            let now_s = self.now_s.get();
            let timeline = self.timeline.borrow();
            let found = timeline.iter().rfind(|(s, _)| *s <= now_s).map(|(_, who)| who.clone());
            let stale =
                self.stale.borrow().iter().filter(|s| self.home().join(&s.file).exists()).cloned().collect();
            Ok(Processes { found: found.unwrap_or_default(), stale, hidden: 0 })
        };
        let mut waited = Duration::ZERO;
        let mut wait = |time: Duration| {
            // The clock shows whole seconds; waits are shorter.
            waited += time;
            self.now_s.set(self.now_s.get() + waited.as_secs());
            waited -= Duration::from_secs(waited.as_secs());
            if self.now_s.get() >= self.interrupted_at_s { Err(Stopped) } else { Ok(()) }
        };
        let http = |_: &Readiness| match self.now_s.get() {
            now_s if now_s < self.ready_at_s => Answer::Nothing("connection refused".into()),
            _ => Answer::Http { status: 200, body: r#"{"status":"UP"}"#.into() },
        };
        work(&mut ServiceTools {
            shell: self,
            fs: &OsFs,
            look: &look,
            wait: &mut wait,
            http: &http,
            progress: &mut |_, _| {},
        })
    }

    fn stop(&self) -> Result<(), ServiceError> {
        self.with(|tools| stop(tools, &self.home(), Duration::from_mins(1)))
    }

    fn start(&self) -> Result<(), ServiceError> {
        self.with(|tools| start(tools, &self.home(), &health(), Duration::from_mins(1)))
    }
}

fn health() -> Readiness {
    Readiness { port: 7070, path: "/kylin/api/health".into(), tls: false, health: true }
}

const SECONDS_TO_DIE: u64 = 20;

#[test]
fn stop_waits_for_the_processes_whatever_the_code() {
    for code in [0, 1] {
        let machine = Machine::new(vec![process(7, Role::Service)], (code, vec![(SECONDS_TO_DIE, vec![])]));
        machine.stop().unwrap();
        assert_eq!(machine.now_s.get(), SECONDS_TO_DIE);
        let call = &machine.calls.borrow()[0];
        assert_eq!(
            (call.label.as_str(), &call.program),
            ("kylin.sh stop", &machine.home().join("bin/kylin.sh"))
        );
        assert_eq!(call.set[&OsString::from("KYLIN_HOME")], machine.home().into_os_string());
        assert!(call.unset.contains(&"KYLIN_CONF".into()) && !call.unset.contains(&"JAVA_HOME".into()));
    }
}

#[test]
fn stop_names_who_is_left() {
    let machine = Machine::new(vec![process(7, Role::Service)], (0, vec![]));
    let error = machine.stop().unwrap_err().to_string();
    assert!(error.contains("still runs 60 s after") && error.ends_with("process 7"), "{error}");
}

#[test]
fn a_stranger_in_the_pid_file_is_never_given_to_the_script() {
    let machine = Machine::new(vec![], (0, vec![]));
    std::fs::write(machine.home().join("pid"), "4242").unwrap();
    machine.stale.borrow_mut().push(StalePidFile { file: "pid".into(), strangers: vec![4242], ours: vec![] });
    machine.stop().unwrap();
    assert!(machine.calls.borrow().is_empty());
    assert!(!machine.home().join("pid").exists());
}

#[test]
fn a_server_without_its_pid_file_is_named_to_the_script() {
    let machine = Machine::new(vec![process(7, Role::Service)], (0, vec![(1, vec![])]));
    std::fs::write(machine.home().join("pid"), "7\n4242").unwrap();
    machine.stale.borrow_mut().push(StalePidFile {
        file: "pid".into(),
        strangers: vec![4242],
        ours: vec![7],
    });
    machine.stop().unwrap();
    assert_eq!(machine.pid_at_call.borrow().as_deref(), Some("7\n"));
    assert!(!machine.home().join("pid").exists());
}

#[test]
fn start_waits_for_process_and_answer() {
    let started = (0, vec![(0, vec![]), (3, vec![process(8, Role::Service)])]);
    let mut machine = Machine::new(vec![], started);
    machine.ready_at_s = 30;
    std::fs::write(machine.home().join("LOCK"), "").unwrap();
    machine.start().unwrap();
    assert_eq!(machine.now_s.get(), 30);
    assert!(!machine.home().join("LOCK").exists(), "the lock of a killed start blocks every later one");
}

#[test]
fn a_running_service_is_not_started_again() {
    let machine = Machine::new(vec![process(7, Role::Service)], (1, vec![]));
    machine.start().unwrap();
    assert!(machine.calls.borrow().is_empty());
}

#[test]
fn a_lock_of_a_start_that_died_after_its_server_ran_goes() {
    let machine = Machine::new(vec![process(7, Role::Service)], (0, vec![]));
    std::fs::write(machine.home().join("LOCK"), "").unwrap();
    machine.start().unwrap();
    assert!(!machine.home().join("LOCK").exists());
    // A script is at work beside the server.
    let machine = Machine::new(vec![process(7, Role::Service), process(8, Role::Tool)], (0, vec![]));
    std::fs::write(machine.home().join("LOCK"), "").unwrap();
    machine.start().unwrap();
    assert!(machine.home().join("LOCK").exists());
}

#[test]
fn a_lock_of_a_living_start_stays() {
    let machine = Machine::new(vec![process(7, Role::Tool)], (0, vec![]));
    std::fs::write(machine.home().join("LOCK"), "").unwrap();
    assert!(matches!(machine.start(), Err(ServiceError::Busy { .. })));
    assert!(machine.home().join("LOCK").exists());
}

#[test]
fn a_bystander_holds_nothing_up() {
    let shell = || process(5, Role::Other);
    let machine = Machine::new(vec![shell(), process(7, Role::Service)], (0, vec![(2, vec![shell()])]));
    machine.stop().unwrap();
    let machine = Machine::new(vec![shell()], (0, vec![(0, vec![shell(), process(8, Role::Service)])]));
    machine.start().unwrap();
}

#[test]
fn each_way_of_not_starting_is_told_apart() {
    let error = Machine::new(vec![], (1, vec![])).start().unwrap_err();
    assert!(matches!(error, ServiceError::NotStarted { .. }));
    assert!(error.to_string().ends_with("(exit code 1): last words"), "{error}");
    // A start that was ended by SIGTERM exits 0 and has started nothing.
    assert!(matches!(Machine::new(vec![], (0, vec![])).start(), Err(ServiceError::NotStarted { .. })));

    let mut dies = Machine::new(vec![], (0, vec![(0, vec![process(8, Role::Service)]), (5, vec![])]));
    dies.ready_at_s = 30;
    assert!(matches!(dies.start(), Err(ServiceError::Died { after_s: 5, .. })));

    let mut mute = Machine::new(vec![], (0, vec![(0, vec![process(8, Role::Service)])]));
    mute.ready_at_s = u64::MAX;
    let error = mute.start().unwrap_err().to_string();
    assert!(error.contains("port 7070 within 60 s (last: connection refused)"), "{error}");

    mute.interrupted_at_s = 70;
    mute.timeline.borrow_mut().truncate(1);
    assert!(matches!(mute.start(), Err(ServiceError::Interrupted { .. })));
}

#[test]
fn only_a_real_health_report_is_ready() {
    let http = |status, body: &str| Answer::Http { status, body: body.to_owned() };
    let page = Readiness { health: false, ..health() };
    assert!(judge_answer(&health(), &http(200, r#"{"status":"UP","components":{}}"#)).is_ok());
    assert!(judge_answer(&health(), &http(200, r#"{"status":"DOWN"}"#)).is_err());
    assert!(judge_answer(&health(), &http(200, "<html>login</html>")).is_err());
    assert!(judge_answer(&health(), &http(503, r#"{"status":"UP"}"#)).is_err());
    assert!(judge_answer(&page, &http(200, "<html>")).is_ok());
    assert!(judge_answer(&page, &http(302, "")).is_err());
    assert!(judge_answer(&page, &Answer::Nothing("refused".into())).is_err());
}

#[test]
fn asking_speaks_real_http_and_follows_no_redirect() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        for head in ["200 OK", "302 Found\r\nLocation: /login", "503 Busy"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /kylin/api/health HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}").unwrap();
        }
    });
    let readiness = Readiness { port, ..health() };
    for status in [200, 302, 503] {
        assert_eq!(ask(&readiness), Answer::Http { status, body: "{}".into() });
    }
    server.join().unwrap();
    assert!(matches!(ask(&readiness), Answer::Nothing(_)), "the port is closed again");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = Readiness { port: listener.local_addr().unwrap().port(), tls: true, ..health() };
    assert_eq!(ask(&tls), Answer::Listens);
}
