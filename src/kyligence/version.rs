//! What a release is: its product, its version, and which release may follow which.
//!
//! Facts from the product: `VERSION` holds product words and then the version; the last field is the version, as one
//! edition has a word more than the others; the first two numbers are the major version; a suffix behind the first
//! `-` is only a label, unless it marks a snapshot.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose release it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// Kyligence Analytics Platform, the name before 3.0.
    Kap,
    /// Kyligence Enterprise; early builds of 4 call themselves Newten.
    KyligenceEnterprise,
    /// Apache Kylin.
    Kylin,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kap => "Kyligence Analytics Platform",
            Self::KyligenceEnterprise => "Kyligence Enterprise",
            Self::Kylin => "Apache Kylin",
        })
    }
}

/// Releases whose metadata can follow each other in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generation {
    /// Kyligence Analytics Platform 2.
    Kap2,
    /// Kyligence Enterprise 3.
    Ke3,
    /// Kyligence Enterprise 4.
    Ke4,
    /// Apache Kylin 2 and 3.
    Kylin3,
    /// Apache Kylin 5.
    Kylin5,
}

/// A version, as the product's own version class reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Major, minor, revision, internal; 0 where missing.
    pub numbers: [u64; 4],
    /// What follows the first `-`: a label such as `GA-mapr`.
    pub suffix: Option<String>,
    /// As it is written.
    pub text: String,
}

/// A text that is no version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAVersion {
    /// Neither words nor numbers.
    #[error("it holds no line with a product and a version")]
    Empty,
    /// The last field has no two leading numbers.
    #[error("`{text}` is no version: two numbers were expected, as in `3.4`")]
    Malformed {
        /// The field.
        text: String,
    },
    /// Words that no product uses.
    #[error("`{text}` names no product that kytx knows")]
    UnknownProduct {
        /// The line.
        text: String,
    },
}

impl Version {
    /// Reads `major.minor.revision.internal-suffix`; revision and internal may be missing.
    pub fn parse(text: &str) -> Result<Self, NotAVersion> {
        let malformed = || NotAVersion::Malformed { text: text.to_owned() };
        let (digits, suffix) = match text.split_once('-') {
            Some((digits, suffix)) => (digits, Some(suffix.to_owned())),
            None => (text, None),
        };
        let mut numbers = [0; 4];
        for (index, part) in digits.split('.').enumerate() {
            match part.parse::<u64>() {
                Ok(number) if index < 4 && part.bytes().all(|b| b.is_ascii_digit()) => {
                    numbers[index] = number;
                }
                // Builds such as `4.5.x_Beta.36` have words from the third part on.
                _ if index >= 2 => break,
                _ => return Err(malformed()),
            }
        }
        if digits.split('.').count() < 2 {
            return Err(malformed());
        }
        Ok(Self { numbers, suffix, text: text.to_owned() })
    }

    /// Major and minor: together what the manual calls the major version.
    pub fn line(&self) -> (u64, u64) {
        (self.numbers[0], self.numbers[1])
    }

    /// Whether it was built before the release whose first three numbers it has.
    pub fn is_snapshot(&self) -> bool {
        // Kylin 5 puts a time stamp in the fourth place of a snapshot; real fourth numbers have at most five digits.
        self.numbers[3] > 100_000_000
            || self.suffix.as_ref().is_some_and(|s| s.to_ascii_uppercase().contains("SNAPSHOT"))
    }

    /// The order of releases: by the four numbers, a snapshot before its release. Labels do not count.
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |v: &Self| ([v.numbers[0], v.numbers[1], v.numbers[2]], !v.is_snapshot(), v.numbers[3]);
        key(self).cmp(&key(other))
    }

    /// The Hadoop flavour that the suffix names, in lower case: `mapr` in `GA-mapr`.
    pub fn flavour(&self) -> Option<String> {
        flavour_in(self.suffix.as_deref()?)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The Hadoop flavour in a package's name, in lower case: `fi` in `Kyligence-Enterprise-3.2.2.2022-GA-fi.tar.gz`.
pub fn flavour_in(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".tar.gz").or(name.strip_suffix(".tgz")).unwrap_or(&name);
    name.split('-')
        .find(|word| {
            matches!(*word, "fi" | "mapr" | "tdh")
                || ["cdh", "hbase", "hadoop", "hdp"].iter().any(|stem| {
                    word.strip_prefix(stem).is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_digit()))
                })
        })
        .map(str::to_owned)
}

/// Who a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its product.
    pub product: Product,
    /// Its version.
    pub version: Version,
    /// The commit it was built from, if `commit_SHA1` says so.
    pub commit: Option<String>,
    /// Its Hadoop flavour, if version or package name say so.
    pub flavour: Option<String>,
}

impl Identity {
    /// Reads the text of a `VERSION` file: leading blank or comment lines, `\r` and a missing final newline are fine.
    pub fn parse(version_file: &[u8]) -> Result<Self, NotAVersion> {
        let text = String::from_utf8_lossy(version_file);
        let line = text
            .split(['\n', '\r'])
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#'))
            .ok_or(NotAVersion::Empty)?;
        let (words, version) = line.rsplit_once(char::is_whitespace).ok_or_else(|| unknown_product(line))?;
        let product = product_of(words).ok_or_else(|| unknown_product(line))?;
        let version = Version::parse(version)?;
        let flavour = version.flavour();
        Ok(Self { product, version, commit: None, flavour })
    }

    /// The same with the commit from a `commit_SHA1` file.
    #[must_use]
    pub fn with_commit(mut self, commit_file: &[u8]) -> Self {
        self.commit = commit_of(commit_file);
        self
    }

    /// The same with the flavour of the package's name, unless the version has named one.
    #[must_use]
    pub fn with_package_name(mut self, name: &str) -> Self {
        self.flavour = self.flavour.or_else(|| flavour_in(name));
        self
    }

    /// Its generation; `None` for one that kytx knows nothing about, such as Kylin 4.
    pub fn generation(&self) -> Option<Generation> {
        match (self.product, self.version.numbers[0]) {
            (Product::Kap | Product::KyligenceEnterprise, 2) => Some(Generation::Kap2),
            (Product::Kap | Product::KyligenceEnterprise, 3) => Some(Generation::Ke3),
            (Product::KyligenceEnterprise, 4) => Some(Generation::Ke4),
            (Product::Kylin, 2 | 3) => Some(Generation::Kylin3),
            (Product::Kylin, 5) => Some(Generation::Kylin5),
            _ => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.product, self.version)
    }
}

fn unknown_product(line: &str) -> NotAVersion {
    NotAVersion::UnknownProduct { text: line.chars().filter(|c| !c.is_control()).take(80).collect() }
}

fn product_of(words: &str) -> Option<Product> {
    let words: Vec<String> = words.split_whitespace().map(str::to_ascii_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["apache", "kylin", ..] => Some(Product::Kylin),
        ["kyligence", "enterprise", ..] | ["newten", ..] => Some(Product::KyligenceEnterprise),
        ["kyligence", "analytics", "platform", ..] | ["kap", ..] => Some(Product::Kap),
        _ => None,
    }
}

/// The commit in a `commit_SHA1` file: the first word of 40 hexadecimal digits, alone or before an `@`. The files hold a
/// licence comment, branch names and build lines around it.
pub fn commit_of(commit_file: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(commit_file);
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '@'))
        .find(|word| word.len() == 40 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_ascii_lowercase)
}

/// How far a release is from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeKind {
    /// The first two numbers are equal: metadata stay compatible both ways.
    Minor,
    /// They differ: metadata and cube data may be changed by the new release.
    Major,
    /// The same version again.
    Reinstall,
}

/// Why a release may not follow another. `old` and `new` are product and version, as a person reads them.
#[derive(Debug, PartialEq, Eq, thiserror::Error, Clone)]
pub enum VersionRefusal {
    /// Nothing would change.
    #[error("`{new}` is the version that is already installed")]
    Same {
        /// The new release.
        new: String,
    },
    /// The new release is older.
    #[error("`{new}` is older than `{old}`: an older release cannot read what a newer one has written")]
    Downgrade {
        /// The installed release.
        old: String,
        /// The new release.
        new: String,
    },
    /// The metadata model differs.
    #[error(
        "`{old}` to `{new}` is a migration, not an upgrade in place: the metadata model is another one, and a \
         migration product of its own moves it"
    )]
    Migration {
        /// The installed release.
        old: String,
        /// The new release.
        new: String,
    },
    /// Kylin to Kyligence Enterprise.
    #[error(
        "`{old}` to `{new}` changes the product: after the copy it needs tools of its own \
         (`metastore.sh refresh-cube-signature`, a conversion of user rights, a new administrator password)"
    )]
    KylinToEnterprise {
        /// The installed release.
        old: String,
        /// The new release.
        new: String,
    },
    /// Any other change of product.
    #[error("`{new}` is another product than `{old}`")]
    OtherProduct {
        /// The installed release.
        old: String,
        /// The new release.
        new: String,
    },
    /// 4.0 to 4.1 to 4.2.
    #[error(
        "`{old}` to `{new}` needs metadata scripts step by step (4.0 to 4.1 to 4.2) that transform a backup and \
         restore it; it is no upgrade in place"
    )]
    StepwiseMigration {
        /// The installed release.
        old: String,
        /// The new release.
        new: String,
    },
    /// kytx has no knowledge of it.
    #[error("kytx knows nothing about `{release}`")]
    UnknownGeneration {
        /// The release.
        release: String,
    },
    /// Built for another Hadoop.
    #[error("the package is built for `{new}`, the installed release for `{old}`")]
    OtherFlavour {
        /// The installed release's flavour.
        old: String,
        /// The new release's flavour.
        new: String,
    },
}

/// Says which kind of upgrade leads from one release to the other, or why none does.
///
/// `reinstall` allows the same version again, and nothing else.
pub fn rule(old: &Identity, new: &Identity, reinstall: bool) -> Result<UpgradeKind, VersionRefusal> {
    let names = || (old.to_string(), new.to_string());
    let generation = |identity: &Identity| {
        identity
            .generation()
            .ok_or_else(|| VersionRefusal::UnknownGeneration { release: identity.to_string() })
    };
    let (from, to) = (generation(old)?, generation(new)?);
    if let Some(refusal) = refuse_generations(from, to, names()) {
        return Err(refusal);
    }
    if let (Some(old), Some(new)) = (&old.flavour, &new.flavour)
        && old != new
    {
        return Err(VersionRefusal::OtherFlavour { old: old.clone(), new: new.clone() });
    }
    match old.version.order(&new.version) {
        Ordering::Greater => {
            let (old, new) = names();
            return Err(VersionRefusal::Downgrade { old, new });
        }
        Ordering::Equal if reinstall => return Ok(UpgradeKind::Reinstall),
        Ordering::Equal => return Err(VersionRefusal::Same { new: new.to_string() }),
        Ordering::Less => {}
    }
    if from == Generation::Ke4 && old.version.line() < (4, 2) && old.version.line() != new.version.line() {
        let (old, new) = names();
        return Err(VersionRefusal::StepwiseMigration { old, new });
    }
    Ok(if old.version.line() == new.version.line() { UpgradeKind::Minor } else { UpgradeKind::Major })
}

fn refuse_generations(
    from: Generation,
    to: Generation,
    (old, new): (String, String),
) -> Option<VersionRefusal> {
    use Generation::{Kap2, Ke3, Ke4, Kylin3, Kylin5};
    match (from, to) {
        (Kap2, Kap2 | Ke3) | (Ke3, Ke3) | (Ke4, Ke4) | (Kylin3, Kylin3) | (Kylin5, Kylin5) => None,
        (Ke3, Kap2) | (Ke4, Kap2 | Ke3) | (Kylin5, Kylin3) => Some(VersionRefusal::Downgrade { old, new }),
        (Kap2 | Ke3, Ke4) | (Kylin3, Kylin5) => Some(VersionRefusal::Migration { old, new }),
        (Kylin3 | Kylin5, Kap2 | Ke3 | Ke4) => Some(VersionRefusal::KylinToEnterprise { old, new }),
        (Kap2 | Ke3 | Ke4, Kylin3 | Kylin5) => Some(VersionRefusal::OtherProduct { old, new }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(line: &str) -> Identity {
        Identity::parse(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    #[test]
    fn every_shape_of_the_version_file_is_read() {
        use Product::{Kap, KyligenceEnterprise as Ke, Kylin};
        let cases = [
            ("KAP Enterprise Plus 2.5.3-GA", Kap, [2, 5, 3, 0]),
            ("KAP Enterprise 2.5.3", Kap, [2, 5, 3, 0]),
            ("Kyligence Enterprise 3.4.5.2118-GA\n", Ke, [3, 4, 5, 2118]),
            ("\n# built\r\nKyligence Enterprise 4.5.6.0\r\n", Ke, [4, 5, 6, 0]),
            ("Newten 4.0.1", Ke, [4, 0, 1, 0]),
            ("Apache kylin 3.1.3", Kylin, [3, 1, 3, 0]),
            ("Apache Kylin 5.0.0.20230829110000", Kylin, [5, 0, 0, 20_230_829_110_000]),
            ("Kyligence Enterprise 4.5.x_Beta.36", Ke, [4, 5, 0, 0]),
        ];
        for (text, product, numbers) in cases {
            let read = identity(text);
            assert_eq!((read.product, read.version.numbers), (product, numbers), "{text:?}");
        }
        assert_eq!(Identity::parse(b""), Err(NotAVersion::Empty));
        assert!(matches!(Identity::parse(b"3.1.3"), Err(NotAVersion::UnknownProduct { .. })));
        assert!(matches!(Identity::parse(b"Some Product 3.1"), Err(NotAVersion::UnknownProduct { .. })));
        for bad in ["Apache Kylin x.1", "Apache Kylin 3", "Apache Kylin +3.1", "Apache Kylin -"] {
            assert!(matches!(Identity::parse(bad.as_bytes()), Err(NotAVersion::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn the_commit_is_found_in_every_shape() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        for text in [
            format!("#\n# Licensed to the Apache Software Foundation\n#\n\n{sha}\n"),
            format!("{sha}@kylin5\npackage.timestamp:2023\nos: Linux\n"),
            format!("{sha}@KAP\nBuild with ci at Mon\n"),
        ] {
            assert_eq!(commit_of(text.as_bytes()).as_deref(), Some(sha));
        }
        assert_eq!(commit_of(b"0123@KAP"), None);
    }

    #[test]
    fn flavours_are_found_in_suffix_and_package_name() {
        let cases = [
            ("Kyligence-Enterprise-3.2.2.2028-GA-mapr.tar.gz", Some("mapr")),
            ("Kyligence-Enterprise-3.2.2.2022-GA-fi", Some("fi")),
            ("kap-plus-2.5.3-hbase1.x", Some("hbase1.x")),
            ("apache-kylin-3.1.3-bin-cdh57.tar.gz", Some("cdh57")),
            ("apache-kylin-3.1.3-bin.tar.gz", None),
            ("my-hadoop-package-3.1", None),
        ];
        for (name, flavour) in cases {
            assert_eq!(flavour_in(name).as_deref(), flavour, "{name}");
        }
    }

    #[test]
    fn which_release_may_follow_which() {
        use UpgradeKind::{Major, Minor};
        let allowed = [
            ("Kyligence Enterprise 3.2.1", "Kyligence Enterprise 3.2.2.2028-GA", Minor),
            ("Kyligence Enterprise 3.1.3", "Kyligence Enterprise 3.2.2", Major),
            ("Kyligence Enterprise 3.4.5.9-GA", "Kyligence Enterprise 3.4.5.10-GA", Minor),
            ("KAP Enterprise Plus 2.5.3", "Kyligence Enterprise 3.0.1", Major),
            ("Apache kylin 3.0.2", "Apache kylin 3.1.3", Major),
            ("Apache kylin 3.1.3-SNAPSHOT", "Apache kylin 3.1.3", Minor),
            ("Apache Kylin 5.0.0.20230829110000", "Apache Kylin 5.0.0", Minor),
            ("Kyligence Enterprise 4.2.0", "Kyligence Enterprise 4.5.6.0", Major),
            ("Kyligence Enterprise 4.1.3", "Kyligence Enterprise 4.1.4", Minor),
        ];
        for (old, new, kind) in allowed {
            assert_eq!(rule(&identity(old), &identity(new), false), Ok(kind), "{old} -> {new}");
        }
        let refused = [
            ("Kyligence Enterprise 3.2.2", "Kyligence Enterprise 3.2.1", "older"),
            ("Kyligence Enterprise 4.5.6", "Kyligence Enterprise 3.4.5", "older"),
            ("Kyligence Enterprise 3.4.5", "Kyligence Enterprise 4.5.6", "migration"),
            ("KAP Enterprise 2.5.3", "Kyligence Enterprise 4.5.6", "migration"),
            ("Apache kylin 3.1.3", "Apache Kylin 5.0.0", "migration"),
            ("Apache kylin 3.1.3", "Kyligence Enterprise 3.4.5", "refresh-cube-signature"),
            ("Kyligence Enterprise 3.4.5", "Apache kylin 3.5.0", "another product"),
            ("Kyligence Enterprise 4.0.1", "Kyligence Enterprise 4.2.0", "step by step"),
            ("Apache kylin 3.1.3", "Apache Kylin 4.0.0", "knows nothing"),
            ("Kyligence Enterprise 3.2.1-GA-fi", "Kyligence Enterprise 3.2.2-GA-mapr", "built for `mapr`"),
            ("Apache kylin 3.1.3", "Apache kylin 3.1.3", "already installed"),
        ];
        for (old, new, words) in refused {
            let refusal = rule(&identity(old), &identity(new), false).expect_err(old);
            assert!(refusal.to_string().contains(words), "{old} -> {new}: {refusal}");
        }
    }

    #[test]
    fn reinstall_allows_the_same_version_and_nothing_else() {
        let same = identity("Kyligence Enterprise 3.4.5.2118-GA");
        let older = identity("Kyligence Enterprise 3.4.4");
        assert_eq!(rule(&same, &same, true), Ok(UpgradeKind::Reinstall));
        assert!(matches!(rule(&same, &older, true), Err(VersionRefusal::Downgrade { .. })));
    }
}
