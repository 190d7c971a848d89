//! The lines that the product's own script leaves in the logs of the new home (`--audit`), for those who look for them
//! there.
//!
//! They are carried into the new tree like every other file. So they are seen once the new tree is in place and not
//! before, and an abort takes them back with it.

use std::time::Duration;

use super::inquiry::{inquire, on_path};
use crate::digest::Digest;
use crate::effect::lock::user_name;
use crate::kyligence::carry::{CarryItem, How};
use crate::raw_path::RawPath;

/// How long `date` may take.
const DATE_LIMIT: Duration = Duration::from_secs(10);

/// The two files: what they are called in the home, and what they hold.
pub fn files(began_unix_s: u64, lines: &[String]) -> [(String, Vec<u8>); 2] {
    let time = local_time(began_unix_s);
    let (user, start) = (user_name(), &time);
    let entry = |operation: &str, end: &str| {
        format!("{time} INFO : [Operation: {operation}] user:{user}, upgrade time:{start}{end}\n")
    };
    let security = entry("upgrade", "") + &entry("upgrade result", ", success:true");
    let name = format!("logs/upgrade-{}.log", time.replace(['-', ' ', ':'], "_"));
    let log = lines.join("\n") + "\n";
    [("logs/security.log".to_owned(), security.into_bytes()), (name, log.into_bytes())]
}

/// An item that puts a new file into the new tree, with the attributes of a file that every home has.
pub fn item(to: &str, content: &[u8], expected: Digest) -> CarryItem {
    CarryItem {
        from: "VERSION".into(),
        to: RawPath::from(to),
        how: How::Edited { content: Digest::of(content) },
        expected: Some(expected),
        why: "the upgrade in the new home's logs (`--audit`)".to_owned(),
    }
}

/// What the log of the upgrade says.
pub fn log_lines(draft: &Header<'_>) -> Vec<String> {
    let mut lines = vec![
        format!(
            "Upgrade of {} from {} to {} by kytx {}",
            draft.home,
            draft.old,
            draft.new,
            env!("CARGO_PKG_VERSION")
        ),
        format!("Package: {}", draft.package),
        format!("Transaction: {}", draft.txn),
    ];
    lines.extend(draft.archive.map(|archive| format!("Backup location:{archive}")));
    lines
}

/// What the log's first lines name.
pub struct Header<'a> {
    /// The home.
    pub home: &'a RawPath,
    /// The old release.
    pub old: &'a str,
    /// The new one.
    pub new: &'a str,
    /// The package.
    pub package: &'a RawPath,
    /// The transaction.
    pub txn: &'a str,
    /// The archive of the old home, if there will be one.
    pub archive: Option<&'a RawPath>,
}

/// `YYYY-MM-DD HH:MM:SS` in local time, which only the system's own programs know; in UTC where they do not say.
fn local_time(unix_s: u64) -> String {
    let by_date = on_path("date").and_then(|date| {
        let ran = inquire(&date, &["-d", &format!("@{unix_s}"), "+%Y-%m-%d %H:%M:%S"], DATE_LIMIT).ok()?;
        let text = ran.stdout.trim().to_owned();
        (ran.code == Some(0) && text.len() == 19).then_some(text)
    });
    by_date.unwrap_or_else(|| utc(unix_s))
}

/// The civil date of a second, counted in eras of 400 years from March.
fn utc(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (date, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_date() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(utc(951_868_800), "2000-03-01 00:00:00");
        assert_eq!(utc(1_773_450_123), "2026-03-14 01:02:03");
    }
}
