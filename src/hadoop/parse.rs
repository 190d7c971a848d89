//! What Hadoop's programs print, as data. Pure, and the only place that knows their formats.
//!
//! Nothing is decided by an exit code: a path is absent only where a program says so of that very path, and whatever a
//! program says that is not understood here is an error and never an answer.

use crate::raw_path::RawPath;

/// One line of `fs -ls`: what it says that no other command says better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The path, spelled as its root was spelled in the command.
    pub path: RawPath,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Permission bits, the sticky bit included.
    pub mode: u32,
    /// Whether it has an access list beyond them.
    pub has_acl: bool,
    /// Replication; 0 for a directory.
    pub replication: u16,
    /// Length in bytes; 0 for a directory.
    pub length: u64,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
}

/// Reads a line of `fs -ls`, `-ls -d` or `-ls -R`. `None` for anything else, the heading `Found N items` included.
///
/// The columns are padded to a common width, so only the path may begin behind a single blank; it is found by the time
/// before it, as owner, group and path may all hold blanks.
pub fn listed(line: &[u8]) -> Option<Listed> {
    let at = (0..line.len()).find(|at| is_time(&line[*at..]))?;
    let (head, path) = (std::str::from_utf8(&line[..at]).ok()?, &line[at + TIME.len()..]);
    if path.is_empty() {
        return None;
    }
    let (head, length) = head.trim_end().rsplit_once(' ')?;
    let (permission, rest) = head.split_once(' ')?;
    let (replication, who) = rest.trim_start().split_once(' ')?;
    let (owner, group) = who.trim().split_once(' ')?;
    let (kind, mode, has_acl) = mode_of(permission)?;
    Some(Listed {
        path: RawPath::new(path),
        is_dir: kind == 'd',
        mode,
        has_acl,
        replication: if replication == "-" { 0 } else { replication.parse().ok()? },
        length: length.parse().ok()?,
        owner: owner.to_owned(),
        group: group.trim_start().to_owned(),
    })
}

/// The shape of the time in a listing: digits where it has digits.
const TIME: &[u8] = b" 0000-00-00 00:00 ";

fn is_time(text: &[u8]) -> bool {
    text.len() >= TIME.len()
        && TIME.iter().zip(text).all(|(shape, byte)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => other == byte,
        })
}

fn mode_of(text: &str) -> Option<(char, u32, bool)> {
    let (text, has_acl) = text.strip_suffix('+').map_or((text, false), |text| (text, true));
    let mut letters = text.chars();
    let kind = letters.next().filter(|kind| matches!(kind, 'd' | '-'))?;
    let bits: Vec<char> = letters.collect();
    if bits.len() != 9 {
        return None;
    }
    let mut mode = 0;
    for (at, letter) in bits.iter().enumerate() {
        let bit = 1 << (8 - at);
        mode |= match letter {
            '-' => 0,
            'r' if at % 3 == 0 => bit,
            'w' if at % 3 == 1 => bit,
            'x' if at % 3 == 2 => bit,
            't' if at == 8 => bit | 0o1000,
            'T' if at == 8 => 0o1000,
            _ => return None,
        };
    }
    Some((kind, mode, has_acl))
}

/// The format that [`stated`] reads, for `fs -stat`: in both old and new releases.
pub const STAT_FORMAT: &str = "%Y\t%o\t%u\t%g";

/// One line of `fs -stat` in [`STAT_FORMAT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Modification time in milliseconds since 1970-01-01 UTC.
    pub mtime_ms: u64,
    /// Block size in bytes.
    pub block_bytes: u64,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
}

/// Reads a line of `fs -stat`.
pub fn stated(line: &[u8]) -> Option<Stated> {
    let text = std::str::from_utf8(line).ok()?;
    let mut fields = text.split('\t');
    let mut next = || fields.next();
    let stated = Stated {
        mtime_ms: next()?.parse().ok()?,
        block_bytes: next()?.parse().ok()?,
        owner: next()?.to_owned(),
        group: next()?.to_owned(),
    };
    fields.next().is_none().then_some(stated)
}

/// The checksum of a file: path, algorithm, value. `NONE` stands for none at all, and is an error to whoever asked.
pub fn checksummed(line: &[u8]) -> Option<(RawPath, String, String)> {
    let mut fields = line.rsplitn(3, |byte| *byte == b'\t');
    let (last, middle, path) = (fields.next()?, fields.next()?, fields.next());
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
    match path {
        Some(path) => Some((RawPath::new(path), text(middle)?, text(last)?)),
        None if last == b"NONE" || last.is_empty() => {
            Some((RawPath::new(middle), "NONE".to_owned(), String::new()))
        }
        None => None,
    }
}

/// Access lists of `fs -getfacl -R`: path and entries, joined by commas.
pub fn access_lists(lines: &[Vec<u8>]) -> Vec<(RawPath, String)> {
    let mut found: Vec<(RawPath, String)> = Vec::new();
    for line in lines {
        if let Some(path) = line.strip_prefix(b"# file: ") {
            found.push((RawPath::new(path), String::new()));
        } else if !line.is_empty()
            && !line.starts_with(b"# ")
            && let Some((_, text)) = found.last_mut()
        {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(&String::from_utf8_lossy(line));
        }
    }
    found
}

/// Whether a program says on standard error that this very path is not there.
pub fn says_absent(stderr: &str, path: &RawPath) -> bool {
    let text = String::from_utf8_lossy(path.as_bytes());
    stderr.lines().any(|line| line.contains(&format!("`{text}': No such file or directory")))
}

/// What a program complains about: its first line that is no line of a log, else its last.
pub fn complaint(stderr: &str) -> String {
    let is_log = |line: &&str| {
        line.starts_with(|c: char| c.is_ascii_digit())
            || [" INFO ", " WARN ", " DEBUG ", "WARNING", "SLF4J", "\tat ", "Connecting to"]
                .iter()
                .any(|mark| line.contains(mark))
            || line.trim().is_empty()
    };
    let said = stderr.lines().find(|line| !is_log(line));
    said.or_else(|| stderr.lines().last()).unwrap_or_default().trim().to_owned()
}

/// Space and names that a directory may still take, of `fs -count -q`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The directory.
    pub path: RawPath,
    /// How many more names its quota allows; `None` if it has none.
    pub names_left: Option<i64>,
    /// How many more bytes, replicas counted, its quota allows; `None` if it has none.
    pub bytes_left: Option<i64>,
    /// Directories below it, itself included.
    pub dirs: u64,
    /// Files below it.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Reads a line of `fs -count -q`.
pub fn counted(line: &[u8]) -> Option<Counted> {
    let mut rest = line;
    let mut fields = Vec::new();
    while fields.len() < 7 {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let end = rest[start..].iter().position(|byte| *byte == b' ')? + start;
        fields.push(std::str::from_utf8(&rest[start..end]).ok()?.to_owned());
        rest = &rest[end..];
    }
    let left = |limit: &str, left: &str| -> Option<Option<i64>> {
        // The quota of the root directory is the largest number there is.
        if limit == "none" || limit == i64::MAX.to_string() {
            Some(None)
        } else {
            left.parse().ok().map(Some)
        }
    };
    Some(Counted {
        path: RawPath::new(rest.strip_prefix(b" ")?),
        names_left: left(&fields[0], &fields[1])?,
        bytes_left: left(&fields[2], &fields[3])?,
        dirs: fields[4].parse().ok()?,
        files: fields[5].parse().ok()?,
        bytes: fields[6].parse().ok()?,
    })
}

/// Bytes that are free, of `fs -df`.
pub fn free_bytes(lines: &[Vec<u8>]) -> Option<u64> {
    let line = std::str::from_utf8(lines.get(1)?).ok()?;
    // Name, size, used, available, percent; the name may be anything.
    line.split_ascii_whitespace().rev().nth(1)?.parse().ok()
}

/// A job as `yarn application -list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// `application_<cluster>_<number>`.
    pub id: String,
    /// Its name, `distcp: ` in front of the one that was given.
    pub name: String,
    /// `ACCEPTED`, `RUNNING`, `FINISHED`, ...
    pub state: String,
    /// `UNDEFINED` until it has ended.
    pub final_state: String,
    /// How far it is, in words.
    pub progress: String,
}

impl Application {
    /// Whether it has come to its end, whatever that was.
    pub fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "FINISHED" | "FAILED" | "KILLED")
    }
}

/// The jobs of `yarn application -list`. `None` if the heading is missing: then the answer was none.
pub fn applications(stdout: &str) -> Option<Vec<Application>> {
    let mut lines = stdout.lines();
    lines.by_ref().find(|line| line.trim_start().starts_with("Application-Id"))?;
    let jobs = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        (fields.len() >= 8 && fields[0].starts_with("application_")).then(|| Application {
            id: fields[0].to_owned(),
            name: fields[1].to_owned(),
            state: fields[5].to_owned(),
            final_state: fields[6].to_owned(),
            progress: fields[7].to_owned(),
        })
    });
    Some(jobs.collect())
}

/// How much of a job is done, if a line of its client's log says so.
pub fn map_percent(line: &str) -> Option<u32> {
    let (_, tail) = line.split_once(" map ")?;
    let (percent, _) = tail.split_once("% reduce")?;
    percent.trim().parse().ok()
}

/// What `hdfs fsck` finds: `Ok` if all is healthy, else the lines that name what is not.
pub fn file_system_check(stdout: &str) -> Option<Result<(), Vec<String>>> {
    if stdout.contains("' is HEALTHY") || stdout.contains("Status: HEALTHY") {
        return Some(Ok(()));
    }
    stdout.contains("CORRUPT").then(|| {
        let names = |line: &&str| {
            line.starts_with('/')
                && (line.contains(" CORRUPT ") || line.contains("MISSING") || line.contains("block"))
        };
        Err(stdout.lines().filter(names).map(|line| line.trim().to_owned()).collect())
    })
}

/// Files that somebody has open for writing, of `hdfs fsck -openforwrite`.
pub fn open_files(stdout: &str) -> Vec<String> {
    let open = stdout.split(['\n', '\r']).filter(|line| line.contains("OPENFORWRITE"));
    open.map(|line| line.trim_start_matches('.').split(" OPENFORWRITE").next().unwrap_or_default().to_owned())
        .map(|line| cut_length(&line))
        .collect()
}

/// Cuts ` 123 bytes...` from the end of a path.
fn cut_length(line: &str) -> String {
    match line.rfind(" bytes,").and_then(|at| line[..at].rfind(' ')) {
        Some(at) => line[..at].to_owned(),
        None => line.trim().to_owned(),
    }
}

/// The directories of `hdfs lsSnapshottableDir`: those of this user, or all to a superuser.
pub fn snapshottable(stdout: &str) -> Vec<RawPath> {
    let lines = stdout.lines().filter(|line| line.starts_with('d'));
    // drwxr-xr-x 0 owner group 0 date time snapshots limit path
    lines.filter_map(|line| line.find('/').map(|at| RawPath::from(&line[at..]))).collect()
}

/// A path as an argument that no pattern is read into.
pub fn literal(path: &RawPath) -> RawPath {
    let mut bytes = Vec::with_capacity(path.as_bytes().len());
    for byte in path.as_bytes() {
        if b"*?[]{}\\".contains(byte) {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    RawPath::new(bytes)
}

/// The path of a URI without scheme and authority; a plain path as it is.
pub fn without_authority(path: &RawPath) -> RawPath {
    let bytes = path.as_bytes();
    let Some(at) = bytes.windows(3).position(|three| three == b"://") else { return path.clone() };
    let rest = &bytes[at + 3..];
    let slash = rest.iter().position(|byte| *byte == b'/');
    slash.map_or_else(|| RawPath::from("/"), |slash| RawPath::new(&rest[slash..]))
}

#[cfg(test)]
mod tests;
