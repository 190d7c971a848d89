//! What the operator must be told when a call failed, and when kytx may go on without a word.

use crate::scene::{Job, Scene, is_full};
use crate::support::injector::{Fault, Injector};
use crate::support::tracer::Ended;

/// The exit codes of a run in which a call failed: refused and nothing changed, stopped part-way, journal unusable.
const CODES: [i32; 3] = [3, 4, 9];

/// What is wrong with how the command ended.
pub fn wrong(job: &Job, ended: &Ended, injector: &Injector) -> Vec<String> {
    let mut wrong = Vec::new();
    for word in ["panicked", "BUG:"] {
        if ended.stderr.contains(word) {
            wrong.push(format!("it says `{word}`"));
        }
    }
    if ended.code == 0 {
        let is_fine = may_go_on(job, injector) || is_told_at_rest(job, ended);
        wrong.extend((!is_fine).then(|| "the failure was passed over".to_owned()));
        return wrong;
    }
    if must_go_on(job) {
        wrong.push("it did not go on".to_owned());
    }
    if job.scene == Scene::Verify && ended.code == 6 {
        // The backup cannot be read: a finding, which names it.
        return wrong;
    }
    if !CODES.contains(&ended.code) {
        wrong.push(format!("exit code {}", ended.code));
    }
    let mut from = 0;
    for part in ["kytx: ", "\n  why:   ", "\n  state: ", "\n  type:  "] {
        match ended.stderr[from..].find(part) {
            Some(at) => from += at + part.len(),
            None => wrong.push(format!("no `{}` in the message", part.trim())),
        }
    }
    if let (Fault::Errno(errno), true) = (job.accident.fault, injector.failures > 0)
        && !ended.stderr.contains(&format!("(os error {errno})"))
        && !(is_misnamed_by_sled(job) && ended.stderr.contains("(os error 17)"))
        && !(is_hidden_by_sled(job) && ended.stderr.contains("the store does not read as its copy did"))
    {
        wrong.push("the message does not name the error".to_owned());
    }
    wrong
}

/// sled takes a page that it cannot read for one that is not there, and has no error to name. That records are missing
/// is found by comparing them with what its copy held.
fn is_hidden_by_sled(job: &Job) -> bool {
    let site = &job.accident.site;
    site.call == "pread64" && site.on == "state/journal/db"
}

/// Nor for a directory that it cannot look at: it makes it then, and says that it exists.
fn is_misnamed_by_sled(job: &Job) -> bool {
    let site = &job.accident.site;
    site.call == "statx" && site.on.starts_with("state/journal/")
}

/// Whether the failure is none for kytx: an old kernel, fewer bytes than asked for, an interruption.
fn must_go_on(job: &Job) -> bool {
    matches!(job.accident.fault, Fault::Short | Fault::Errno(libc::ENOSYS | libc::EINVAL | libc::EINTR))
}

/// Whether kytx may end well although the call failed.
fn may_go_on(job: &Job, injector: &Injector) -> bool {
    let site = &job.accident.site;
    // An opening that finds no room sets the ballast free, and begins anew.
    let has_ballast = injector.in_opening && is_full(job.accident.fault);
    let is_of_journal = site.on.starts_with("state/journal") || site.on == "state/";
    must_go_on(job)
        || (has_ballast && is_of_journal)
        || SPARED.iter().any(|(call, on, phase)| {
            matches(call, site.call) && matches(on, &site.on) && matches(phase, &site.standing.phase)
        })
}

/// Whether nothing was begun yet, or all was done already, and what could not be looked at is among the words; or it is
/// only the other nodes of a cluster that are not told.
fn is_told_at_rest(job: &Job, ended: &Ended) -> bool {
    let site = &job.accident.site;
    let is_at_rest = ["none", "applied", "ended"].contains(&site.standing.phase.as_str());
    let Fault::Errno(errno) = job.accident.fault else { return false };
    let words = format!("(os error {errno})");
    (is_at_rest || site.on == "state/plan/cluster.json")
        && [&ended.stdout, &ended.stderr].iter().any(|text| text.contains(&words))
}

/// Calls whose failure harms nothing: by call, what it is on, and the phase; a star stands for any ending.
const SPARED: [(&str, &str, &str); 21] = [
    // Asked for again at once; held already, and nobody else can take it; or let go by the next command.
    ("*", "cube lock", "*"),
    // What was found by the first pass, to be quick: without it everything is compared again.
    ("*", "state/plan/carry.json.seen", "*"),
    // For people, and as a precaution.
    ("*", "state/holder.json*", "*"),
    ("*", "state/ballast*", "*"),
    ("*", "state/log/*", "*"),
    // A look at how much room there is, to make the ballast anew.
    ("statfs", "state/*", "*"),
    // Other people's processes, which may be gone by the time they are looked at.
    ("*", "proc", "*"),
    ("*", "sys", "*"),
    // One of many questions to a service until it answers.
    ("socket", "-", "*"),
    ("socketpair", "-", "*"),
    // The name of a user, for people.
    ("open*", "etc", "*"),
    // A thread more, which work is the faster for.
    ("clone3", "-", "*"),
    // What may hold passwords is told, and removed by the next run.
    ("*", "state/plan", "ended"),
    ("unlink*", "state/plan/content-N", "ended"),
    // A last look at what is left for the operator.
    ("newfstatat", "opt/kyligence.backup.tar.gz", "ended"),
    ("newfstatat", "state/backup/*", "ended"),
    // The length of a file that is being read, to make room for its content.
    ("statx", "home/*", "applied"),
    // Opened once more, with a directory that can be looked at.
    ("statx", "state/journal/blobs", "*"),
    // A snapshot that sled has replaced: the next opening passes it over.
    ("unlink", "state/journal/snap.N", "*"),
    ("unlink", "state/journal.copy/snap.N", "*"),
    // sled's own sync when it is closed: every record was synced before.
    ("fsync", "state/journal/db", "applied"),
];

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == pattern,
    }
}
