//! A chosen system call of kytx's fails instead of happening: once, or from then on for good.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kytx::effect::os::OsFs;
use kytx::txn::{Action, Outcome, Phase, Txn};

use super::calls::{
    ALLOCATES, CHANGES, MOVES, Memory, NEWER, OPENS, READS, SPAWNS, SYNCS, Seen, WAITS, Ways, look,
};
use super::tracer::{Call, Then, Watcher};

/// Where a transaction stands, as the twin says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// `planning`, `applying`, `applied`, `aborting`, `committing` or `ended`; `none` without a journal.
    pub phase: String,
    /// The step in hand, by its name in the plan; empty between steps.
    pub step: String,
    /// `before intent` or `before outcome`; empty between steps.
    pub window: String,
}

impl Standing {
    /// Reads it.
    pub fn read(state: &Path) -> Self {
        let none = Self { phase: "none".to_owned(), ..Self::default() };
        let Ok(view) = kytx::journal::read(&OsFs, state) else { return none };
        let Ok(Some(txn)) = Txn::replay(view.frames.iter().map(|frame| &frame.record)) else { return none };
        let phase = match txn.phase() {
            Phase::Planning => "planning",
            Phase::Applying => "applying",
            Phase::Applied => "applied",
            Phase::Aborting => "aborting",
            Phase::Committing => "committing",
            Phase::Ended(Outcome::Aborted | Outcome::Committed) => "ended",
        };
        let (step, window) = match txn.next() {
            Action::Intend { step, .. } => (Some(step), "before intent"),
            Action::Drive { step, .. } => (Some(step), "before outcome"),
            Action::Append(_) | Action::Await | Action::Finish(_) => (None, ""),
        };
        let step = step.and_then(|id| txn.step(id)).map(|step| step.name.clone()).unwrap_or_default();
        Self { phase: phase.to_owned(), step, window: window.to_owned() }
    }
}

/// A place in a run at which a call can fail: which call, on what, with which step in hand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// With which step in hand.
    pub standing: Standing,
    /// The call.
    pub call: &'static str,
    /// What it is on, with what differs from run to run taken out.
    pub on: String,
    /// In which ways it can fail.
    pub ways: Ways,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// With this error number.
    Errno(i32),
    /// Half of the bytes are moved, and the program is told so.
    Short,
}

impl Fault {
    /// What can befall a call. The last ones are of old kernels and small limits.
    pub const ALL: [Self; 10] = [
        Self::Errno(libc::ENOSPC),
        Self::Errno(libc::EIO),
        Self::Errno(libc::EDQUOT),
        Self::Errno(libc::EROFS),
        Self::Errno(libc::EMFILE),
        Self::Errno(libc::EINTR),
        Self::Short,
        Self::Errno(libc::ENOSYS),
        Self::Errno(libc::EINVAL),
        Self::Errno(libc::EAGAIN),
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Errno(libc::ENOSPC) => "ENOSPC",
            Self::Errno(libc::EDQUOT) => "EDQUOT",
            Self::Errno(libc::EIO) => "EIO",
            Self::Errno(libc::EROFS) => "EROFS",
            Self::Errno(libc::EMFILE) => "EMFILE",
            Self::Errno(libc::EINTR) => "EINTR",
            Self::Errno(libc::ENOSYS) => "ENOSYS",
            Self::Errno(libc::EINVAL) => "EINVAL",
            Self::Errno(libc::EAGAIN) => "EAGAIN",
            Self::Errno(other) => panic!("BUG: error number {other} has no name here"),
            Self::Short => "short",
        }
    }

    /// The ways in which a call must be able to fail so that this can be the fault.
    pub fn ways(self) -> Ways {
        match self {
            Self::Errno(libc::ENOSPC | libc::EDQUOT) => ALLOCATES | SYNCS,
            Self::Errno(libc::EIO) => CHANGES | SYNCS | READS,
            Self::Errno(libc::EROFS) => CHANGES,
            Self::Errno(libc::EMFILE) => OPENS,
            Self::Errno(libc::EINTR) => WAITS,
            Self::Errno(libc::ENOSYS | libc::EINVAL) => NEWER,
            Self::Errno(libc::EAGAIN) => SPAWNS,
            Self::Errno(_) => 0,
            Self::Short => MOVES,
        }
    }

    /// Whether it is about the disk, and so befalls only files on it.
    fn is_of_disk(self) -> bool {
        self.ways() & (ALLOCATES | CHANGES | READS | SYNCS) != 0
    }

    fn is_full(self) -> bool {
        matches!(self, Self::Errno(libc::ENOSPC | libc::EDQUOT))
    }
}

/// Which call is to fail, and how.
#[derive(Clone, Debug)]
pub struct Accident {
    /// Where.
    pub site: Site,
    /// At its how manieth call, from 1 on.
    pub occurrence: u64,
    /// How.
    pub fault: Fault,
    /// Whether the cause stays: every later call that it can befall fails as well.
    pub lasting: bool,
}

impl Accident {
    /// Its name in tables.
    pub fn name(&self) -> String {
        format!("{}, {}", self.fault.name(), if self.lasting { "for good" } else { "once" })
    }
}

/// Watches a run of kytx on one machine, notes every site, and has the accident happen.
pub struct Injector {
    root: PathBuf,
    state: PathBuf,
    memory: Memory,
    accident: Option<Accident>,
    /// The fault that is there by now, and what it befell first.
    lasting: Option<(Fault, PathBuf, Ways)>,
    /// Whether the program's own work has begun: the loader's is not kytx's.
    begun: bool,
    standing: Standing,
    /// Every site met, with the number of its calls.
    pub sites: BTreeMap<Site, u64>,
    /// Where the accident happened; `None` if it never did.
    pub struck: Option<Standing>,
    /// How many calls failed.
    pub failures: u64,
    /// Room on a full disk: what was removed since it filled up.
    pub room_bytes: u64,
    /// What a removal under way will set free.
    freeing: BTreeMap<i32, u64>,
    /// The calls that were interrupted and not yet made again.
    interrupted: BTreeSet<(i32, i64, [u64; 6])>,
    /// Whether a record was written in this run.
    recorded: bool,
    /// Whether the accident happened before that: while the journal was opened.
    pub in_opening: bool,
    /// The file of which a sync has failed.
    unsynced: Option<PathBuf>,
    /// Records that were written although a sync before them had failed.
    pub after_failed_sync: Vec<String>,
    /// The last failed calls, in words.
    pub story: Vec<String>,
}

impl Injector {
    /// Nothing happens, and every site is noted.
    pub fn noting(root: &Path, state: &Path) -> Self {
        Self {
            root: root.to_owned(),
            state: state.to_owned(),
            memory: Memory::default(),
            accident: None,
            lasting: None,
            begun: false,
            standing: Standing::read(state),
            sites: BTreeMap::new(),
            struck: None,
            failures: 0,
            room_bytes: 0,
            freeing: BTreeMap::new(),
            interrupted: BTreeSet::new(),
            recorded: false,
            in_opening: false,
            unsynced: None,
            after_failed_sync: Vec::new(),
            story: Vec::new(),
        }
    }

    /// The accident happens.
    pub fn with(root: &Path, state: &Path, accident: &Accident) -> Self {
        Self { accident: Some(accident.clone()), ..Self::noting(root, state) }
    }

    /// The disk is full from the beginning, but for this room.
    pub fn full(root: &Path, state: &Path, fault: Fault, room_bytes: u64) -> Self {
        Self { lasting: Some((fault, PathBuf::new(), ALLOCATES)), room_bytes, ..Self::noting(root, state) }
    }

    /// Whether this call is to fail.
    fn befalls(&mut self, call: &Call, seen: &Seen, site: Site) -> Option<Fault> {
        if let Some((fault, path, ways)) = &self.lasting {
            let (fault, path, ways) = (*fault, path.clone(), *ways);
            return self.lasts(call, seen, fault, &path, ways).then_some(fault);
        }
        let accident = self.accident.as_ref()?;
        if self.struck.is_some() || accident.site != site || accident.occurrence != self.sites[&site] {
            return None;
        }
        let fault = accident.fault;
        if accident.lasting {
            self.lasting = Some((fault, seen.path.clone(), seen.ways));
            self.interrupted.insert((call.pid, call.number, call.args));
        }
        self.in_opening = !self.recorded;
        self.struck = Some(site.standing);
        Some(fault)
    }

    /// Whether a cause that stays befalls this call, too.
    fn lasts(&mut self, call: &Call, seen: &Seen, fault: Fault, path: &Path, ways: Ways) -> bool {
        if seen.ways & fault.ways() == 0 || (fault.is_of_disk() && !seen.path.starts_with(&self.root)) {
            return false;
        }
        match fault {
            Fault::Errno(libc::ENOSPC | libc::EDQUOT) => self.no_room(call, seen),
            // A bad spot stays bad for whoever reads it; a disk that does not write does not write anything.
            Fault::Errno(libc::EIO) if ways & (CHANGES | SYNCS) == 0 => {
                seen.path == path && seen.ways & READS != 0
            }
            Fault::Errno(libc::EIO) => seen.ways & (CHANGES | SYNCS) != 0,
            Fault::Errno(libc::EINTR) => {
                // A conversation that is cut off at every call never ends; the caller asks anew.
                if !seen.path.starts_with(&self.root) {
                    return false;
                }
                // Every call is interrupted, and its repetition goes through.
                let this = (call.pid, call.number, call.args);
                let is_new = self.interrupted.insert(this);
                if !is_new {
                    self.interrupted.remove(&this);
                }
                is_new
            }
            Fault::Errno(libc::ENOSYS | libc::EINVAL) => {
                self.accident.as_ref().is_some_and(|accident| accident.site.call == seen.name)
            }
            Fault::Errno(_) | Fault::Short => true,
        }
    }

    /// Whether the room is too small for what the call needs; takes it if it is not. Names need a block of their own,
    /// content is never compressed, and what is overwritten is written anew: a disk harder than most.
    fn no_room(&mut self, call: &Call, seen: &Seen) -> bool {
        if seen.ways & ALLOCATES == 0 {
            return false;
        }
        let needed = match (seen.count_argument, seen.name) {
            (Some(argument), _) => call.args[argument],
            (None, "mkdir" | "mkdirat" | "symlink" | "symlinkat" | "mknodat" | "open" | "openat") => 4096,
            _ => 0,
        };
        let too_small = needed > self.room_bytes;
        if !too_small {
            self.room_bytes -= needed;
        }
        too_small
    }

    /// What the call will set free on a full disk.
    fn note_freeing(&mut self, call: &Call, seen: &Seen) {
        let frees = match seen.name {
            "unlink" | "unlinkat" | "rename" | "renameat" => fs::symlink_metadata(&seen.path)
                .map_or(0, |meta| if meta.nlink() == 1 { meta.blocks() * 512 } else { 0 }),
            "rmdir" => 4096,
            _ => return,
        };
        self.freeing.insert(call.pid, frees);
    }

    fn fail(&mut self, call: &Call, seen: &Seen, fault: Fault, spared: bool) -> Then {
        let then = match fault {
            Fault::Errno(errno) => Then::Fail(errno),
            Fault::Short => {
                let argument = seen.count_argument.expect("BUG: only what moves bytes can be short");
                let count = call.args[argument];
                if count < 2 {
                    return Then::Happen;
                }
                Then::With(argument, count / 2)
            }
        };
        self.failures += 1;
        if self.story.len() < 20 {
            self.story.push(format!("{} `{}`: {}", seen.name, seen.path.display(), fault.name()));
        }
        // Before the first record, what wanted room is opened again from the beginning when there is some.
        let loses = matches!(fault, Fault::Errno(libc::EIO)) || (fault.is_full() && self.recorded);
        if seen.ways & SYNCS != 0 && loses && !spared {
            self.unsynced = Some(seen.path.clone());
        }
        then
    }
}

/// What kytx makes for people or as a precaution, and goes on without; and the lock that other homes look at, which it
/// goes on without once it is held.
fn is_spared(class: &str) -> bool {
    ["state/ballast", "state/holder.json", "cube lock"].iter().any(|spared| class.starts_with(spared))
}

impl Watcher for Injector {
    fn entry(&mut self, call: &Call) -> Then {
        let Some(mut seen) = look(&mut self.memory, call) else { return Then::Happen };
        self.begun |= seen.path.starts_with(&self.root);
        if !self.begun {
            return Then::Happen;
        }
        let mut on = class(&seen.path, &self.root, &self.state);
        // No step is in hand: the directory is made or removed, and its name synced, for what the lock lies in.
        let is_about_lock = seen.path.ends_with("_kytx") || seen.ways & SYNCS != 0;
        if on == "cube data" && is_about_lock && self.standing.window != "before outcome" {
            "cube lock".clone_into(&mut on);
        }
        let spared = is_spared(&on);
        // Where the program's words go is the test's.
        if on == "outside" {
            return Then::Happen;
        }
        // sled takes an interruption for an error, and local file systems interrupt nothing that is about their files.
        let is_store = ["state/journal/", "state/journal.copy", "state/journal.new"];
        if on == "state/journal" || is_store.iter().any(|store| on.starts_with(store)) {
            seen.ways &= !WAITS;
        }
        let is_journal = on.starts_with("state/journal.log");
        // A record is in both places; what sled writes when it is closed is of earlier ones.
        let writes = seen.ways & (MOVES | CHANGES) == MOVES | CHANGES;
        if let (true, true, Some(path)) = (is_journal, writes, &self.unsynced) {
            let text = format!("{} on `{on}` after a failed sync of `{}`", seen.name, path.display());
            self.after_failed_sync.push(text);
        }
        let site = Site { standing: self.standing.clone(), call: seen.name, on, ways: seen.ways };
        *self.sites.entry(site.clone()).or_default() += 1;
        if let Some(fault) = self.befalls(call, &seen, site) {
            return self.fail(call, &seen, fault, spared);
        }
        self.note_freeing(call, &seen);
        Then::Happen
    }

    fn exit(&mut self, call: &Call, value: i64) {
        if let (Some(bytes), true) = (self.freeing.remove(&call.pid), value == 0) {
            let is_full = self.lasting.as_ref().is_some_and(|(fault, ..)| fault.is_full());
            self.room_bytes += if is_full { bytes } else { 0 };
        }
        if value >= 0
            && let Some(seen) = look(&mut self.memory, call)
            && seen.ways & CHANGES != 0
            && seen.path.file_name().is_some_and(|name| name == kytx::journal::twin::FILE_NAME)
        {
            self.standing = Standing::read(&self.state);
            self.recorded |= seen.ways & MOVES != 0;
        }
    }
}

/// What a path is, with what differs from run to run taken out.
pub fn class(path: &Path, root: &Path, state: &Path) -> String {
    let text = path.to_string_lossy();
    if let Ok(rest) = path.strip_prefix(state) {
        return format!("state/{}", shape(rest));
    }
    if let Ok(rest) = path.strip_prefix(root) {
        let mut names = rest.iter().map(|name| name.to_string_lossy().into_owned());
        return match (names.next().as_deref(), names.next()) {
            (Some("opt"), Some(name)) if name == "kyligence" => {
                format!("home{}", if rest.iter().count() > 2 { "/*" } else { "" })
            }
            (Some("opt"), Some(name)) => format!("opt/{}", plain(&name)),
            (Some("hdfs"), Some(_)) if rest.iter().any(|name| name == "lock") => "cube lock".to_owned(),
            (Some("hdfs"), Some(_)) => {
                let copies = rest.to_string_lossy().contains(".kytx");
                format!("cube data{}", if copies { " copy" } else { "" })
            }
            (Some(name), _) => plain(name),
            (None, _) => "root".to_owned(),
        };
    }
    let known =
        [("/proc", "proc"), ("/sys", "sys"), ("/etc", "etc"), ("socket:", "socket"), ("pipe:", "pipe")];
    match known.iter().find(|(start, _)| text.starts_with(start)) {
        Some((_, name)) => (*name).to_owned(),
        None if text.is_empty() => "-".to_owned(),
        None if text.ends_with(" (deleted)") || text.starts_with("/dev/") => "outside".to_owned(),
        None => "elsewhere".to_owned(),
    }
}

/// A path below the state directory: the trees in it as one, everything else by name.
fn shape(rest: &Path) -> String {
    let names: Vec<String> = rest.iter().map(|name| plain(&name.to_string_lossy())).collect();
    match names.as_slice() {
        [] => String::new(),
        [tree, _, ..] if tree.starts_with("spare") || tree == "backup" || tree == "history" => {
            format!("{tree}/*")
        }
        [dir, _] if dir == "log" => "log/*".to_owned(),
        [dir, name] if dir == "plan" && name.starts_with("content-") => {
            let part = Path::new(name).extension().is_some_and(|extension| extension == "part");
            format!("plan/content-N{}", if part { ".part" } else { "" })
        }
        names => names.join("/"),
    }
}

/// A name without its numbers.
fn plain(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("snap.") {
        return format!("snap.N{}", if rest.contains(".generating") { ".generating" } else { "" });
    }
    let mut shown = String::new();
    let mut last = false;
    for c in name.chars() {
        let digit = c.is_ascii_digit();
        if !digit {
            shown.push(c);
        } else if !last {
            shown.push('N');
        }
        last = digit;
    }
    shown
}
