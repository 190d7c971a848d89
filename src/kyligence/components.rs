//! Which Spark and which Tomcat a home or a package brings.
//!
//! Their settings are carried only where the new release brings the same: Spark by its whole version, which names the
//! vendor's own build, Tomcat by its major version, within which `server.xml` and `context.xml` keep their meaning.

use super::carry::Component;
use super::jar::member;
use super::properties::Properties;
use crate::backup::manifest::Entry;

/// The file in Tomcat's library that says its version, and what it is in.
pub const CATALINA_JAR: &str = "tomcat/lib/catalina.jar";
const SERVER_INFO: &str = "org/apache/catalina/util/ServerInfo.properties";

/// What a component's version may be told by, as far as it is there.
#[derive(Clone, Debug, Default)]
pub struct Marks<'a> {
    /// `spark/RELEASE`.
    pub spark_release: Option<Vec<u8>>,
    /// The files in `spark/jars`.
    pub spark_jars: Vec<&'a Entry>,
    /// `tomcat/lib/catalina.jar`.
    pub catalina: Option<Vec<u8>>,
    /// `tomcat/RELEASE-NOTES`.
    pub tomcat_notes: Option<Vec<u8>>,
}

impl Marks<'_> {
    /// The version of a component. `None` if nothing tells it, or two marks disagree: of a component that was half
    /// replaced by hand nothing is known.
    pub fn version(&self, component: Component) -> Option<String> {
        let told = match component {
            Component::Spark => [
                self.spark_release.as_deref().and_then(|text| after(text, "Spark ")),
                self.spark_jars.iter().find_map(|entry| spark_core(entry.path.file_name())),
            ],
            Component::Tomcat => [
                self.catalina.as_deref().and_then(server_number),
                self.tomcat_notes.as_deref().and_then(|text| after(text, "Apache Tomcat Version ")),
            ],
        };
        match told {
            [Some(a), Some(b)] if !same(component, &a, &b) => None,
            [Some(version), _] | [None, Some(version)] => Some(version),
            [None, None] => None,
        }
    }
}

/// Whether settings of the one may go to the other.
pub fn same(component: Component, old: &str, new: &str) -> bool {
    match component {
        Component::Spark => old == new,
        Component::Tomcat => major(old) == major(new),
    }
}

/// The first number.
pub fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

/// The word behind a mark: `Spark 2.4.7-kylin-r2 built for Hadoop 2.7.3`.
fn after(text: &[u8], mark: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let (_, tail) = text.split_once(mark)?;
    let word = tail.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

/// The version in the name of Spark's core library: `spark-core_2.11-2.4.7.jar`.
fn spark_core(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let version = name.strip_prefix("spark-core_")?.strip_suffix(".jar")?.split_once('-')?.1;
    Some(version.to_owned())
}

fn server_number(jar: &[u8]) -> Option<String> {
    let info = Properties::parse(&member(jar, SERVER_INFO)?);
    info.get("server.number").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::jar::tests::jar;
    use super::*;

    fn notes(version: &str) -> Vec<u8> {
        format!("==\n  Apache Tomcat Version {version}\n  Release Notes\n").into_bytes()
    }

    #[test]
    fn tomcat_is_told_by_its_library_or_its_notes() {
        let catalina = |text: &str| Some(jar(&[("x", b""), (SERVER_INFO, text.as_bytes())]));
        let version = |marks: &Marks<'_>| marks.version(Component::Tomcat);
        let by_jar = Marks { catalina: catalina("server.number=7.0.100.0\n"), ..Marks::default() };
        assert_eq!(version(&by_jar).as_deref(), Some("7.0.100.0"));
        let both = Marks { tomcat_notes: Some(notes("7.0.100")), ..by_jar.clone() };
        assert_eq!(version(&both).as_deref(), Some("7.0.100.0"));
        let torn = Marks { tomcat_notes: Some(notes("8.5.51")), ..by_jar };
        assert_eq!(version(&torn), None, "half replaced");
        let by_notes = Marks {
            catalina: Some(b"noise".to_vec()),
            tomcat_notes: Some(notes("8.5.51")),
            ..Marks::default()
        };
        assert_eq!(version(&by_notes).as_deref(), Some("8.5.51"));
        assert!(
            same(Component::Tomcat, "7.0.85", "7.0.100.0") && !same(Component::Tomcat, "7.0.85", "8.5.1")
        );
    }

    #[test]
    fn spark_is_told_by_its_release_file() {
        let marks = |text: &str| Marks { spark_release: Some(text.as_bytes().to_vec()), ..Marks::default() };
        let release = marks("Spark 2.2.1-kylin-r6 built for Hadoop 2.7.3\nBuild flags: x\n");
        assert_eq!(release.version(Component::Spark).as_deref(), Some("2.2.1-kylin-r6"));
        assert_eq!(marks("Spark of some kind").version(Component::Spark), None);
        assert!(!same(Component::Spark, "2.2.1-kylin-r6", "2.2.1-kylin-r7"));
        assert_eq!(spark_core(b"spark-core_2.11-2.2.1-kylin-r7.jar").as_deref(), Some("2.2.1-kylin-r7"));
    }
}
