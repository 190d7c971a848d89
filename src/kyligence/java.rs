//! What `java -version` says, and whether a release can run on it.

use serde::{Deserialize, Serialize};

/// A Java.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Java {
    /// Its major version: 8 for `1.8.0_292`, 17 for `17.0.2`.
    pub major: u32,
    /// Whether it is a 64-bit one.
    pub is_64_bit: bool,
}

impl Java {
    /// Reads what `java -version` wrote, on standard error, or `java -XshowSettings:properties -version`.
    pub fn parse(output: &str) -> Option<Self> {
        let version = output.lines().find_map(|line| line.split_once(" version \"")?.1.split('"').next())?;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let first = numbers.next()?.ok()?;
        let major = if first == 1 { numbers.next()?.ok()? } else { first };
        let text = output.to_ascii_lowercase();
        let model =
            text.lines().find_map(|line| Some(line.split_once("sun.arch.data.model")?.1.contains("64")));
        Some(Self { major, is_64_bit: model.unwrap_or_else(|| text.contains("64-bit")) })
    }
}

/// Options that every Java above 8 refuses to start with; releases on Tomcat ship them in `conf/setenv.sh` and
/// `tomcat/bin/catalina.sh`.
const FATAL_ABOVE_8: [&str; 4] =
    ["MaxPermSize", "PrintGCDateStamps", "UseGCLogFileRotation", "-Djava.endorsed.dirs"];

/// The options in a script, comments apart, that keep a Java above 8 from starting.
pub fn fatal_above_java_8(script: &str) -> Vec<&'static str> {
    let code = |line: &&str| !line.trim_start().starts_with('#');
    FATAL_ABOVE_8
        .into_iter()
        .filter(|option| script.lines().filter(code).any(|line| line.contains(option)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_age_are_read() {
        let vm = "OpenJDK 64-Bit Server VM (build 25.292-b10, mixed mode)";
        let cases = [
            (format!("openjdk version \"1.8.0_292\"\n{vm}\n"), 8, true),
            (format!("java version \"1.7.0_80\"\nJava HotSpot(TM) {vm}\n"), 7, true),
            (
                format!("Picked up _JAVA_OPTIONS: -Xmx1g\nopenjdk version \"17.0.2\" 2022-01-18\n{vm}\n"),
                17,
                true,
            ),
            (format!("openjdk version \"9-internal\"\n{vm}"), 9, true),
            ("java version \"1.8.0_1\"\nJava HotSpot(TM) Client VM (build 25)".to_owned(), 8, false),
            ("java version \"1.8.0\"\nIBM J9 VM (build 2.9, Linux amd64-64-Bit)".to_owned(), 8, true),
            ("    sun.arch.data.model = 32\njava version \"11\"\n 64-bit".to_owned(), 11, false),
        ];
        for (output, major, is_64_bit) in cases {
            assert_eq!(Java::parse(&output), Some(Java { major, is_64_bit }), "{output}");
        }
        assert_eq!(Java::parse("bash: java: command not found"), None);
    }

    #[test]
    fn fatal_options_are_found_outside_comments() {
        assert_eq!(fatal_above_java_8("# -XX:MaxPermSize=1g\nexport O=\"-Xms1g\"\n"), [""; 0]);
        assert_eq!(
            fatal_above_java_8("O=\"-XX:MaxPermSize=1g -XX:+PrintGCDateStamps\""),
            ["MaxPermSize", "PrintGCDateStamps"]
        );
    }
}
