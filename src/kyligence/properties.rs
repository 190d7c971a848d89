//! Java properties files, kept line by line.
//!
//! The syntax is that of `java.util.Properties`, decoded as UTF-8 as the product does: `key=value`, `key:value` and
//! `key value`; blanks around the key do not count; a trailing backslash continues the line; `#` and `!` start
//! comments; `\uXXXX`, `\:` and the like are escapes; the last duplicate wins. What is not changed is written back
//! byte for byte, comments, line ends and duplicates included. `${NAME}` is not expanded here.

use std::collections::BTreeMap;

use super::secrets::{mask_text, mask_value};

/// A properties file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    lines: Vec<Line>,
}

/// A logical line: one natural line, or several that are continued.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// As it stands in the file, line ends included.
    raw: Vec<u8>,
    /// What it says, unless it is blank or a comment.
    pair: Option<Pair>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    key: String,
    value: String,
    /// Length of indentation, key and separator in `raw`, if they are in the first natural line and a separator is.
    head_bytes: Option<usize>,
}

impl Properties {
    /// Reads a file. Every sequence of bytes is a properties file; bytes that are not UTF-8 read as U+FFFD and are
    /// written back unchanged.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (line, bytes) = Line::take(rest);
            lines.push(line);
            rest = &rest[bytes..];
        }
        Self { lines }
    }

    /// The file's bytes.
    pub fn render(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| line.raw.iter().copied()).collect()
    }

    /// The value of a key; the last one if it is there more than once.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs().filter(|pair| pair.key == key).last().map(|pair| pair.value.as_str())
    }

    /// The value of a property that has had several names: that of the name which comes last, by where each comes first.
    /// So reads Kylin, which renames keys in the order in which it met them.
    pub fn get_by_names(&self, names: &[&str]) -> Option<&str> {
        let first = |name: &&&str| self.lines.iter().position(|line| line.is_for(name));
        let name = names.iter().filter(|name| first(name).is_some()).max_by_key(first)?;
        self.get(name)
    }

    /// All keys with the values that count.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.pairs().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
    }

    /// The logical lines as they may be shown: a line with a secret as `key=***`.
    pub fn shown_lines(&self) -> Vec<String> {
        let show = |line: &Line| {
            let raw = String::from_utf8_lossy(&line.raw).trim_end_matches(['\n', '\r']).to_owned();
            match &line.pair {
                Some(pair) => {
                    let masked = mask_value(&pair.key, &pair.value);
                    if masked == pair.value { raw } else { format!("{}={masked}", pair.key) }
                }
                None => mask_text(&raw),
            }
        };
        self.lines.iter().map(show).collect()
    }

    /// Sets a key. The line that counts keeps its indentation, key and separator; nothing at all changes if it has the
    /// value already. A key that is not there is appended.
    pub fn set(&mut self, key: &str, value: &str) {
        let Some(index) = self.lines.iter().rposition(|line| line.is_for(key)) else {
            return self.append(key, value);
        };
        let line = &self.lines[index];
        let pair = line.pair.as_ref().expect("BUG: a line for a key has a pair");
        if pair.value == value {
            return;
        }
        let mut raw = match pair.head_bytes {
            Some(bytes) => line.raw[..bytes].to_vec(),
            None => [escape_key(key).as_bytes(), b"="].concat(),
        };
        raw.extend_from_slice(escape_value(value).as_bytes());
        raw.extend_from_slice(end_of_line(&line.raw));
        self.lines[index] = Line::take(&raw).0;
    }

    /// Appends a line for a key, whether or not it is there already.
    pub fn append(&mut self, key: &str, value: &str) {
        let text = format!("{}={}", escape_key(key), escape_value(value));
        self.append_line(&text);
    }

    /// Appends a comment of one line.
    pub fn append_comment(&mut self, text: &str) {
        self.append_line(&format!("# {}", text.replace(['\n', '\r'], " ")));
    }

    /// Removes every line for a key. Returns whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !line.is_for(key));
        self.lines.len() < before
    }

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.lines.iter().filter_map(|line| line.pair.as_ref())
    }

    fn append_line(&mut self, text: &str) {
        let end = self.line_end();
        if let Some(last) = self.lines.last_mut() {
            if end_of_line(&last.raw).is_empty() {
                last.raw.extend_from_slice(end);
            }
            // The last line asks for a continuation: a blank one ends it, or it would swallow what is appended.
            if last.is_open() && last.is_empty_pair() {
                // Such a line counts at the end of the file only.
                last.raw = [b"=", end_of_line(&last.raw)].concat();
            } else if last.is_open() {
                // Its own kind of end: `\n` behind a lone `\r` would make one end of the two.
                let own_end = end_of_line(&last.raw).to_vec();
                last.raw.extend_from_slice(&own_end);
            }
        }
        let raw = [text.as_bytes(), end].concat();
        self.lines.push(Line::take(&raw).0);
    }

    /// The line end that the file uses: that of its first line that has one.
    fn line_end(&self) -> &'static [u8] {
        match self.lines.iter().map(|line| end_of_line(&line.raw)).find(|end| !end.is_empty()) {
            Some(b"\r\n") => b"\r\n",
            Some(b"\r") => b"\r",
            _ => b"\n",
        }
    }
}

/// What several files say together, the later winning.
pub fn effective<'a>(files: impl IntoIterator<Item = &'a Properties>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for file in files {
        all.extend(file.to_map());
    }
    all
}

/// What fuzzing holds against this module: parsing never panics, an unchanged file is written back byte for byte, and
/// what is set is read, here and in the file written.
///
/// # Panics
/// If one of them does not hold.
pub fn fuzz_properties(bytes: &[u8]) {
    let parsed = Properties::parse(bytes);
    assert_eq!(parsed.render(), bytes, "BUG: an unchanged file differs");
    let text = String::from_utf8_lossy(bytes);
    let (key, value) = text.split_once('\n').unwrap_or((&text, "a"));
    let keys: Vec<String> = parsed.to_map().into_keys().chain([key.to_owned()]).collect();
    for key in keys {
        let mut changed = parsed.clone();
        changed.set(&key, value);
        assert_eq!(changed.get(&key), Some(value), "BUG: {key:?} was set and reads otherwise");
        let again = Properties::parse(&changed.render());
        assert_eq!(again.get(&key), Some(value), "BUG: {key:?} was written and reads otherwise");
        let mut others = (parsed.to_map(), again.to_map());
        others.0.remove(&key);
        others.1.remove(&key);
        assert_eq!(others.0, others.1, "BUG: setting {key:?} changed another key");
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\x0c')
}

/// The natural line at the front: its bytes without and with its end.
fn natural_line(bytes: &[u8]) -> (usize, usize) {
    match bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        None => (bytes.len(), bytes.len()),
        Some(at) if bytes[at..].starts_with(b"\r\n") => (at, at + 2),
        Some(at) => (at, at + 1),
    }
}

fn end_of_line(raw: &[u8]) -> &[u8] {
    let content = raw.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
    let ends = &raw[content..];
    // The last line end only: a continuation may be followed by a blank line.
    match ends {
        [.., b'\r', b'\n'] => &ends[ends.len() - 2..],
        [.., _] => &ends[ends.len() - 1..],
        [] => ends,
    }
}

fn is_continued(content: &[u8]) -> bool {
    content.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().position(|b| !is_blank(*b)).unwrap_or(bytes.len())..]
}

impl Line {
    /// Takes the logical line at the front, and says how many bytes it has.
    fn take(bytes: &[u8]) -> (Self, usize) {
        let (content, mut taken) = natural_line(bytes);
        let first = skip_blanks(&bytes[..content]);
        if first.is_empty() || matches!(first[0], b'#' | b'!') {
            return (Self { raw: bytes[..taken].to_vec(), pair: None }, taken);
        }
        let indent = content - first.len();
        let mut logical = first.to_vec();
        while is_continued(&logical) && taken < bytes.len() {
            logical.pop();
            let (content, whole) = natural_line(&bytes[taken..]);
            logical.extend_from_slice(skip_blanks(&bytes[taken..taken + content]));
            let blank = skip_blanks(&bytes[taken..taken + content]).is_empty();
            taken += whole;
            // A blank continuation ends the line, whatever number of backslashes stands before it.
            if blank {
                break;
            }
        }
        let unfinished = taken == bytes.len() && is_continued(&logical);
        if unfinished {
            logical.pop();
        }
        // At the end of the file Java takes a line of a backslash alone for one, with an empty key; not before `\r\n`.
        let counts = !logical.is_empty() || unfinished && !bytes.ends_with(b"\r\n");
        let pair = counts.then(|| Pair::parse(&logical, indent, first.len()));
        (Self { raw: bytes[..taken].to_vec(), pair }, taken)
    }

    fn is_for(&self, key: &str) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.key == key)
    }

    fn is_empty_pair(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.key.is_empty() && pair.value.is_empty())
    }

    /// Whether a line after this one would be taken for its continuation.
    fn is_open(&self) -> bool {
        let first = skip_blanks(&self.raw);
        if matches!(first.first(), None | Some(b'#' | b'!')) {
            return false;
        }
        let end = end_of_line(&self.raw).len();
        let content = &self.raw[..self.raw.len() - end];
        is_continued(content)
    }
}

impl Pair {
    /// `first_bytes` is how much of the logical line stands in the first natural line behind the indentation.
    fn parse(logical: &[u8], indent: usize, first_bytes: usize) -> Self {
        let mut key_bytes = 0;
        while key_bytes < logical.len() {
            match logical[key_bytes] {
                b'=' | b':' => break,
                byte if is_blank(byte) => break,
                b'\\' => key_bytes += 2,
                _ => key_bytes += 1,
            }
        }
        let key_bytes = key_bytes.min(logical.len());
        let mut tail = skip_blanks(&logical[key_bytes..]);
        if matches!(tail.first(), Some(b'=' | b':')) {
            tail = skip_blanks(&tail[1..]);
        }
        let head = logical.len() - tail.len();
        let separated = head > key_bytes && head < first_bytes;
        Self {
            key: unescape(&logical[..key_bytes]),
            value: unescape(tail),
            head_bytes: separated.then_some(indent + head),
        }
    }
}

fn unescape(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some((c, length)) = unicode_escape(tail) {
            plain.push(c);
            rest = &tail[length..];
            continue;
        }
        let mut chars = tail.chars();
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\x0c'),
            Some(c) => plain.push(c),
            None => {}
        }
        rest = chars.as_str();
    }
    plain.push_str(rest);
    plain
}

/// The character of `uXXXX` at the front, a surrogate pair taken together, and its length in bytes.
fn unicode_escape(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| -> Option<u16> {
        let digits = text.strip_prefix('u')?.get(..4)?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let high = unit(text)?;
    let low = text[5..].strip_prefix('\\').and_then(unit);
    if let Some(low) = low
        && let Some(Ok(c)) = char::decode_utf16([high, low]).next()
        && c.len_utf16() == 2
    {
        return Some((c, 11));
    }
    Some((char::from_u32(u32::from(high)).unwrap_or(char::REPLACEMENT_CHARACTER), 5))
}

fn escape_key(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for c in key.chars() {
        if matches!(c, ' ' | '=' | ':' | '#' | '!') {
            escaped.push('\\');
        }
        push_escaped(&mut escaped, c);
    }
    escaped
}

fn escape_value(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (index, c) in value.chars().enumerate() {
        // Leading only: a blank would be skipped, and `=` or `:` be taken for the separator.
        if index == 0 && matches!(c, ' ' | '=' | ':') {
            escaped.push('\\');
        }
        push_escaped(&mut escaped, c);
    }
    escaped
}

fn push_escaped(escaped: &mut String, c: char) {
    match c {
        '\\' => escaped.push_str("\\\\"),
        '\t' => escaped.push_str("\\t"),
        '\n' => escaped.push_str("\\n"),
        '\r' => escaped.push_str("\\r"),
        '\x0c' => escaped.push_str("\\f"),
        c => escaped.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(text: &str, key: &str) -> Option<String> {
        Properties::parse(text.as_bytes()).get(key).map(str::to_owned)
    }

    #[test]
    fn java_reads_the_same() {
        let cases = [
            ("a=b", "a", "b"),
            ("  a : b ", "a", "b "),
            ("a b", "a", "b"),
            ("a\\=c=b", "a=c", "b"),
            ("a=b\\\n   c", "a", "bc"),
            ("a=b\\\\\nc=d", "a", "b\\"),
            ("a=1\na=2", "a", "2"),
            ("# a=1\n!a=2\na", "a", ""),
            ("a=\\u00fc\\ud83d\\ude00\\t.", "a", "\u{fc}\u{1f600}\t."),
            ("a=\u{fc}", "a", "\u{fc}"),
            ("a=b\\\n#c", "a", "b#c"),
            ("a=b\\\n\nc=d", "c", "d"),
            ("a=b\r\nc=d\r\n", "a", "b"),
            ("=v", "", "v"),
            ("a==b", "a", "=b"),
            ("\\", "", ""),
            ("a=b\n\\\n", "", ""),
            ("\\\n\\\r", "", ""),
        ];
        for (text, key, value) in cases {
            assert_eq!(get(text, key).as_deref(), Some(value), "{text:?}");
        }
        for text in ["# a=b\n", "\\\r\n", "\\\n \n", "\\\n  "] {
            assert!(Properties::parse(text.as_bytes()).to_map().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn setting_changes_one_line_only() {
        let mut file = Properties::parse(b"# top\r\na = 1\r\n  b:2 \\\r\n  3\r\na : 4\r\n\r\nc");
        file.set("a", "5");
        file.set("b", "2 3");
        file.set("c", " x");
        file.set("d", "y");
        let text = String::from_utf8(file.render()).unwrap();
        assert_eq!(text, "# top\r\na = 1\r\n  b:2 \\\r\n  3\r\na : 5\r\n\r\nc=\\ x\r\nd=y\r\n");
    }

    #[test]
    fn a_line_that_asks_for_more_does_not_swallow_what_is_appended() {
        for open in ["a=b\\", "a=b\\\n", "\\", "a=b\\\n  c\\", "=\na\\\r", "\\\r", "\\\r\n", "a=b\n\\\n\\\n"]
        {
            let mut file = Properties::parse(open.as_bytes());
            let mut expected = file.to_map();
            file.append("k", "v");
            expected.insert("k".to_owned(), "v".to_owned());
            assert_eq!(Properties::parse(&file.render()).to_map(), expected, "{open:?}");
        }
    }

    #[test]
    fn later_files_win() {
        let files = ["a=1\nb=1", "b=2"].map(|text| Properties::parse(text.as_bytes()));
        let all = effective(&files);
        assert_eq!((all["a"].as_str(), all["b"].as_str()), ("1", "2"));
    }

    #[test]
    fn the_corpus_holds() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/properties");
        let mut files = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            fuzz_properties(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 5, "the corpus is gone");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(20_261_124),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_bytes_hold(bytes in proptest::collection::vec(proptest::sample::select(&b"ab=: \\\n\r\t#!u0d8\x0c\xfc\xc3"[..]), 0..30)) {
            fuzz_properties(&bytes);
        }

        #[test]
        fn random_bytes_hold(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            fuzz_properties(&bytes);
        }
    }
}
