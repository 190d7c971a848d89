//! Java's own reading of properties files: one Java, asked again and again.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::bed::Bed;
use crate::support::random::Random;

/// What Java says of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its pairs.
    Pairs(BTreeMap<String, String>),
    /// It refuses the file, and the product would not start: a malformed `\uXXXX`.
    Refused,
    /// A key or value is no text that any encoding has: half of a surrogate pair.
    NoText,
}

/// A running Java.
pub struct Java {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Java {
    /// Starts it.
    pub fn start(bed: &Bed) -> Self {
        let mut child = Command::new(bed.java.join("bin/java"))
            .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(&bed.own)
            .arg("kytx.bed.PropertiesReader")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ask = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, ask, answers }
    }

    /// Reads one file.
    pub fn read(&mut self, file: &[u8]) -> Reading {
        self.ask.write_all(&u32::try_from(file.len()).unwrap().to_be_bytes()).unwrap();
        self.ask.write_all(file).unwrap();
        self.ask.flush().unwrap();
        match self.number() {
            -1 => Reading::Refused,
            -2 => Reading::NoText,
            pairs => Reading::Pairs((0..pairs).map(|_| (self.text(), self.text())).collect()),
        }
    }

    fn number(&mut self) -> i32 {
        let mut bytes = [0; 4];
        self.answers.read_exact(&mut bytes).expect("Java answers");
        i32::from_be_bytes(bytes)
    }

    fn text(&mut self) -> String {
        let mut bytes = vec![0; usize::try_from(self.number()).unwrap()];
        self.answers.read_exact(&mut bytes).expect("Java answers");
        String::from_utf8(bytes).expect("Java writes UTF-8")
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether Java 8, which the product runs on, and later ones read a file differently: a line of a backslash alone, and a
/// comment after it. Later ones take that for a comment, Java 8 for the continuation that it is.
pub fn is_read_in_two_ways(file: &[u8]) -> bool {
    let lines = file.split(|byte| matches!(byte, b'\n' | b'\r'));
    let lines: Vec<&[u8]> = lines.map(<[u8]>::trim_ascii_start).filter(|line| !line.is_empty()).collect();
    lines.windows(2).any(|pair| pair[0] == b"\\" && matches!(pair[1][0], b'#' | b'!'))
}

/// A file of pieces in which everything that the syntax knows comes next to everything else.
pub fn generate(random: &mut Random) -> Vec<u8> {
    const PIECES: [&[u8]; 44] = [
        b"a",
        b"kylin.env",
        b"b.c",
        b"value",
        b"1",
        b"=",
        b"=",
        b":",
        b" ",
        b"\t",
        b"\x0c",
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\\",
        b"\\\\",
        b"\\\n",
        b"\\\r\n",
        b"\\\r",
        b"\\ ",
        b"\\=",
        b"\\:",
        b"\\#",
        b"#",
        b"!",
        b"\\t",
        b"\\n",
        b"\\r",
        b"\\f",
        b"\\x",
        b"\\u0041",
        b"\\u00e9",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        b"\\u12",
        b"\\U0041",
        b"\xc3\xa9",
        b"\xe6\xbc\xa2",
        b"\xf0\x9f\x98\x80",
        b"\xff",
        b"\xe6\xbc",
        b"\0",
        b"\xef\xbb\xbf",
    ];
    let count = random.up_to(24);
    let mut file = Vec::new();
    for _ in 0..count {
        file.extend_from_slice(PIECES[random.up_to(PIECES.len() as u64) as usize - 1]);
    }
    file
}
