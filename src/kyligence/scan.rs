//! Absolute paths in configuration files.
//!
//! The home keeps its path through an upgrade, so paths into it stay valid. The path to which the package was unpacked
//! is another matter: after the exchange nothing is there any more, so no carried file may name it.

use std::collections::BTreeSet;

/// What a file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Lines, counted from 1, that name the unpack path.
    pub unpacked: Vec<usize>,
    /// Absolute local paths outside the home, with two components at least.
    pub foreign: BTreeSet<String>,
}

/// The places that a file is searched for.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The home, whose path stays.
    pub home: &'a str,
    /// Where the package was unpacked to, if it was given unpacked.
    pub unpacked: Option<&'a str>,
    /// The name of the package's top directory: an absolute path with it leads into an unpacked package, wherever that
    /// is. `None` if the home itself has this name.
    pub top: Option<&'a str>,
}

/// Looks through a text file. Comment lines of properties files and scripts are passed over.
pub fn scan(content: &[u8], places: Places<'_>) -> Mentions {
    let Places { home, unpacked, top } = places;
    let text = String::from_utf8_lossy(content);
    let mut mentions = Mentions::default();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let in_package = |top| {
            absolute_paths(line).any(|path| path.split('/').any(|name| name == top) && !is_below(path, home))
        };
        if unpacked.is_some_and(|path| names_path(line, path)) || top.is_some_and(in_package) {
            mentions.unpacked.push(index + 1);
        }
        let foreign = absolute_paths(line).filter(|path| !is_below(path, home));
        mentions.foreign.extend(foreign.map(str::to_owned));
    }
    mentions
}

fn is_path_char(c: char) -> bool {
    c.is_alphanumeric() || "/._-+@~".contains(c)
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|tail| tail.is_empty() || tail.starts_with('/'))
}

/// Whether the path stands in the line as a whole: `/opt/new` is not in `/opt/newer`.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        before.is_none_or(|c| !is_path_char(c) || c == '/')
            && after.is_none_or(|c| c == '/' || !is_path_char(c))
    })
}

/// Paths that begin where a word begins. `hdfs://x/y` and `</tag>` hold none.
fn absolute_paths(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices('/').filter_map(|(at, _)| {
        let begins =
            line[..at].chars().next_back().is_none_or(|c| c.is_whitespace() || "=,:;\"'>(".contains(c));
        let tail = &line[at..];
        let path = &tail[..tail.find(|c| !is_path_char(c)).unwrap_or(tail.len())];
        let path = path.trim_end_matches(['/', '.']);
        (begins && !path.starts_with("//") && path.matches('/').count() >= 2).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unpack_path_is_found_as_a_whole_only() {
        let text = b"a=/opt/new\n# /opt/new\nb=/opt/newer/x\nc=file:///opt/new/conf\nd=x:/opt/new:y\n";
        let places = Places { home: "/opt/kylin", unpacked: Some("/opt/new"), top: None };
        assert_eq!(scan(text, places).unpacked, [1, 4, 5]);
        let by_name = Places { home: "/opt/kylin", unpacked: None, top: Some("newer") };
        assert_eq!(scan(text, by_name).unpacked, [3]);
    }

    #[test]
    fn foreign_paths_are_listed_and_the_homes_own_are_not() {
        let text = "keytab=/opt/kylin/conf/user.keytab\nhadoop=/etc/hadoop/conf,/opt/kylin2/x\n\
                    dir=/kylin\nu=hdfs://ns/a/b\n<value>/data/x/y</value></property>\n";
        let places = Places { home: "/opt/kylin", unpacked: None, top: None };
        let foreign = scan(text.as_bytes(), places).foreign;
        assert_eq!(
            foreign.into_iter().collect::<Vec<_>>(),
            ["/data/x/y", "/etc/hadoop/conf", "/opt/kylin2/x"]
        );
    }
}
