//! The preview of merged files: what they are now in the old home, and what they will be, line by line.

use super::draft::Draft;
use super::error::CommandError;
use crate::effect::os::OsFs;
use crate::kyligence::carry::How;
use crate::kyligence::home::read_through_links;
use crate::kyligence::properties::Properties;
use crate::kyligence::secrets::{MASK, is_secret_key, mask_text};
use crate::kyligence::xml;
use crate::raw_path::RawPath;

/// Lines of what is the same around each difference.
const AROUND: usize = 2;

/// Longer files are not compared line by line: that takes a table of all pairs of lines.
const LINES_MAX: usize = 4_000;

/// The differences of every file that is carried with another content, secrets masked.
pub fn lines(draft: &Draft, coloured: bool) -> Result<Vec<String>, CommandError> {
    let mut shown = Vec::new();
    for item in &draft.carry.items {
        let How::Edited { content } = &item.how else { continue };
        let Some(new) = draft.contents.get(content) else { continue };
        // A licence is nobody's to read.
        if item.to.as_bytes() == b"LICENSE" {
            continue;
        }
        let path = draft.header.home.join(&item.from);
        let old = read_through_links(&OsFs, path.as_path()).map_err(|error| {
            CommandError::refused(format!("cannot read `{path}`"))
                .because(&error)
                .hint("run kytx as the user that owns the home, or as root")
        })?;
        shown.push(format!("--- {path}"));
        shown.push(format!("+++ {} (merged)", draft.header.home.join(&item.to)));
        let (old, new) = (show(&item.from, &old.unwrap_or_default()), show(&item.to, new));
        shown.extend(compare(&old, &new).into_iter().map(|line| colour(line, coloured)));
    }
    Ok(shown)
}

fn colour(line: String, coloured: bool) -> String {
    match (coloured, line.as_bytes().first()) {
        (true, Some(b'-')) => format!("\u{1b}[31m{line}\u{1b}[0m"),
        (true, Some(b'+')) => format!("\u{1b}[32m{line}\u{1b}[0m"),
        _ => line,
    }
}

/// A file's lines as they may be shown.
fn show(path: &RawPath, content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    if path.as_bytes().ends_with(b".xml") {
        let mut text = mask_text(&text);
        for secret in secrets_of(&String::from_utf8_lossy(content)) {
            text = text.replace(&secret, MASK);
        }
        return text.lines().map(str::to_owned).collect();
    }
    Properties::parse(content).shown_lines()
}

/// The values of properties with a name that makes them secret.
fn secrets_of(text: &str) -> Vec<String> {
    let Some(root) = xml::parse(text) else { return Vec::new() };
    let of = |property: &xml::Element| {
        let name = property.named("name").next()?;
        let value = property.named("value").next()?;
        let value = text[value.content.clone()].trim();
        (is_secret_key(&text[name.content.clone()]) && !value.is_empty()).then(|| value.to_owned())
    };
    root.children.iter().filter_map(of).collect()
}

/// The lines that differ, with a few of the same around them.
fn compare(old: &[String], new: &[String]) -> Vec<String> {
    if old.len().max(new.len()) > LINES_MAX {
        return vec!["(too long to be compared line by line)".to_owned()];
    }
    let all = script(old, new);
    let near = |at: usize| {
        all[at.saturating_sub(AROUND)..(at + AROUND + 1).min(all.len())].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut lines = Vec::new();
    let mut gap = false;
    for (at, (mark, line)) in all.iter().enumerate() {
        if near(at) {
            if gap || (lines.is_empty() && at > 0) {
                lines.push("@@".to_owned());
            }
            lines.push(format!("{mark}{line}"));
        }
        gap = !near(at) && !lines.is_empty();
    }
    lines
}

/// A shortest way from one text to the other: lines that stay, go and come, in order.
fn script<'a>(old: &'a [String], new: &'a [String]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    // How long the longest common part of the two tails is.
    let mut common = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            found.push((' ', old[i].as_str()));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
        {
            found.push(('-', old[i].as_str()));
            i += 1;
        } else {
            found.push(('+', new[j].as_str()));
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(old: &str, new: &str) -> Vec<String> {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        compare(&lines(old), &lines(new))
    }

    #[test]
    fn differences_are_shown_with_what_is_around_them() {
        let shown = compared("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n");
        assert_eq!(shown, ["@@", " 3", " 4", "-5", "+five", " 6", " 7", " 8", " 9", "+10"]);
        assert!(compared("a\nb\n", "a\nb\n").is_empty());
        assert_eq!(compared("", "a\n"), ["+a"]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let properties = "a.password : geheim\n# note\nb=1\n";
        assert_eq!(show(&"x.properties".into(), properties.as_bytes()), ["a.password=***", "# note", "b=1"]);
        let xml = "<configuration><property><name>x.password</name>\n<value>geheim</value></property></configuration>";
        assert!(!show(&"x.xml".into(), xml.as_bytes()).join("\n").contains("geheim"));
    }
}
