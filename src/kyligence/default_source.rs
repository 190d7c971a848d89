//! The default data source of a project that has several, chosen over REST after an upgrade from release 2 to 3.
//!
//! The manual lets the operator choose it in the web interface, once: it cannot be changed later. That the choice is the
//! project's own property `kylin.source.default`, written by `PUT /projects`, is inferred (reference 16.3). So it is looked
//! up before, nothing but this one property is changed, and it is read back after.

use std::fmt;

use serde_json::{Value, json};

use super::rest::{Rest, RestError};

/// The property by which a project says its choice.
pub const CHOSEN: &str = "kylin.source.default";

/// Projects that are read at most.
const PROJECTS_MAX: usize = 20_000;

/// A source that can be a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Hive.
    Hive,
    /// Kafka.
    Kafka,
}

impl Source {
    /// By the word for it. RDBMS, above all, cannot be a default.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "hive" => Some(Self::Hive),
            "kafka" => Some(Self::Kafka),
            _ => None,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Hive => "0",
            Self::Kafka => "1",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hive => "hive",
            Self::Kafka => "kafka",
        })
    }
}

/// What became of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// It was made now, and read back.
    Now,
    /// It had been made before.
    Before,
}

/// Why a choice was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The service could not be asked.
    #[error(transparent)]
    Rest(#[from] RestError),
    /// The service does not know the project.
    #[error("the service has no project `{project}`, or none for this user to see")]
    NoProject {
        /// Its name.
        project: String,
    },
    /// It has another default source, which cannot be changed.
    #[error("the project `{project}` has chosen already (`{CHOSEN}={code}`), and a choice cannot be changed")]
    Other {
        /// Its name.
        project: String,
        /// What it has.
        code: String,
    },
    /// The service said yes, and the project says another thing.
    #[error("the service accepted the choice for `{project}`, and does not have it: `{CHOSEN}` is {found}")]
    NotKept {
        /// Its name.
        project: String,
        /// What was read back.
        found: String,
    },
}

/// Chooses, once. Restartable: a choice that was made is found.
pub fn choose(rest: &Rest, name: &str, source: Source) -> Result<Chosen, ChooseError> {
    let before = project(rest, name)?;
    match choice(&before) {
        Some(code) if code == source.code() => return Ok(Chosen::Before),
        Some(code) => return Err(ChooseError::Other { project: name.to_owned(), code }),
        None => {}
    }
    let mut wanted = before;
    let own =
        wanted.as_object_mut().map(|fields| fields.entry("override_kylin_properties").or_insert(Value::Null));
    let own = own.ok_or(RestError::Shape { missing: "project's fields" })?;
    if own.is_null() {
        *own = json!({});
    }
    let own = own.as_object_mut().ok_or(RestError::Shape { missing: "project's own properties" })?;
    own.insert(CHOSEN.to_owned(), source.code().into());
    rest.put("/projects", &json!({ "formerProjectName": name, "projectDescData": wanted.to_string() }))?;
    let found = choice(&project(rest, name)?);
    if found.as_deref() == Some(source.code()) {
        return Ok(Chosen::Now);
    }
    let found = found.map_or_else(|| "not set".to_owned(), |code| format!("`{code}`"));
    Err(ChooseError::NotKept { project: name.to_owned(), found })
}

fn project(rest: &Rest, name: &str) -> Result<Value, ChooseError> {
    let all = rest.all("/projects", "projects", PROJECTS_MAX)?;
    let found = all.into_iter().find(|project| project.get("name").and_then(Value::as_str) == Some(name));
    found.ok_or_else(|| ChooseError::NoProject { project: name.to_owned() })
}

fn choice(project: &Value) -> Option<String> {
    match project.get("override_kylin_properties")?.get(CHOSEN)? {
        Value::String(code) if code.is_empty() => None,
        Value::String(code) => Some(code.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}
