//! The only way to speak: results to standard output, everything else to standard error.
//!
//! A reader that has gone away (a closed pipe, a full disk behind a redirection) must not end an upgrade, so errors of
//! writing are passed over.

use std::io::{self, BufRead, IsTerminal, Write};

/// Prints a line of the command's result.
pub fn result(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Prints a line for the person who watches.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether a person watches.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Why an answer was none.
pub const ONLY_YES: &str =
    "only `y`, `Y` and `yes` are yes; anything else, an empty answer and the end of input are no";

/// Asks a yes-or-no question. Only `y`, `Y` and `yes` are yes; an empty answer and the end of input are no.
pub fn ask(question: &str) -> bool {
    let _ = write!(io::stderr().lock(), "{question} (y/N) > ");
    let mut answer = String::new();
    if !io::stdin().lock().read_line(&mut answer).is_ok_and(|length| length > 0) {
        tell("");
        return false;
    }
    is_yes(&answer)
}

/// Asks until one of the answers is given, by its letter or its word; the answer's place, or `None` at the end of
/// input.
pub fn choose(question: &str, answers: &[(&str, &str)]) -> Option<usize> {
    loop {
        let _ = write!(io::stderr().lock(), "{question} > ");
        let mut answer = String::new();
        if !io::stdin().lock().read_line(&mut answer).is_ok_and(|length| length > 0) {
            tell("");
            return None;
        }
        let answer = answer.trim();
        let found = answers.iter().position(|(letter, word)| answer == *letter || answer == *word);
        if found.is_some() {
            return found;
        }
    }
}

/// Whether the result is read by a person, who may be shown colours.
pub fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

/// A count of bytes for people.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_yes() {
        for yes in ["y\n", "Y\n", "yes\n", " yes \n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "ye\n", "yep\n", "true\n", "1\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
