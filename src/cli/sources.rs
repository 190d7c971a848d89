//! From release 2 to 3: projects with several data sources need a default one, which is chosen in the web interface after
//! the upgrade and cannot be changed later. kytx finds these projects in the metadata backup and reports them; it sets
//! nothing, as what it would set is documented nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::error::CommandError;
use super::place::Place;
use super::service_check::{made_backup, migrates};
use crate::effect::fs::{Fs, read_file};
use crate::effect::os::OsFs;
use crate::txn::Txn;

/// The longest entry that is read.
const ENTRY_LIMIT_BYTES: u64 = 16 << 20;

/// The side file with what the operator said. Its name has it removed at the end.
pub const CHOICES: &str = "content-sources.json";

/// The property by which a project that has chosen already is known.
const CHOSEN: &str = "kylin.source.default";

/// Reads the choices `PROJECT=hive|kafka`. Others, RDBMS above all, cannot be a default.
pub fn parse(given: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let mut choices = BTreeMap::new();
    for text in given {
        let choice = text.rsplit_once('=').filter(|(project, _)| !project.is_empty());
        match choice {
            Some((project, source @ ("hive" | "kafka"))) => {
                choices.insert(project.to_owned(), source.to_owned());
            }
            _ => {
                return Err(CommandError::usage(format!("`--default-source {text}` is no choice"))
                    .why("a default data source is `hive` or `kafka`; RDBMS cannot be one")
                    .hint("--default-source PROJECT=hive"));
            }
        }
    }
    Ok(choices)
}

/// What the operator must choose, one line a project; nothing if this is another upgrade.
pub fn lines(txn: &Txn, place: &Place) -> Vec<String> {
    let backup = Some(txn).filter(|txn| migrates(txn)).and_then(made_backup);
    let Some(backup) = backup else { return Vec::new() };
    let found = match undecided(backup.as_path()) {
        Ok(found) => found,
        Err(error) => {
            return vec![format!("Projects with several data sources could not be looked for: {error}")];
        }
    };
    if found.is_empty() {
        return Vec::new();
    }
    let path = place.state.plan().join(CHOICES);
    let choices: BTreeMap<String, String> = read_file(&OsFs, &path, ENTRY_LIMIT_BYTES)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let mut lines = vec![
        "Choose a default data source (web interface: Studio, Data Source). It cannot be changed later, and RDBMS \
         cannot be one:"
            .to_owned(),
    ];
    lines.extend(found.iter().map(|(project, sources)| {
        let codes: Vec<String> = sources.iter().map(|code| named(*code)).collect();
        let choice = choices.get(project).map_or_else(String::new, |source| format!("; you said `{source}`"));
        format!("  {project}: has {}{choice}", codes.join(", "))
    }));
    lines
}

fn named(code: i64) -> String {
    match code {
        0 => "Hive".to_owned(),
        1 | 20 | 21 => "Kafka".to_owned(),
        8 => "JDBC".to_owned(),
        16 => "RDBMS".to_owned(),
        other => format!("source {other}"),
    }
}

/// Projects whose tables are of several sources and that have chosen none.
fn undecided(backup: &Path) -> std::io::Result<BTreeMap<String, BTreeSet<i64>>> {
    let read = |folder: &str| -> std::io::Result<Vec<(String, Value)>> {
        let dir = backup.join(folder);
        let mut entries = Vec::new();
        for name in OsFs.list(&dir)? {
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            let text = read_file(&OsFs, &dir.join(&name), ENTRY_LIMIT_BYTES)?;
            let value = serde_json::from_slice(&text).map_err(std::io::Error::other)?;
            entries.push((stem.to_owned(), value));
        }
        Ok(entries)
    };
    let tables: BTreeMap<String, i64> = read("table")?
        .into_iter()
        .map(|(name, table)| (name, table.get("source_type").and_then(Value::as_i64).unwrap_or(0)))
        .collect();
    let mut found = BTreeMap::new();
    for (project, value) in read("project")? {
        if value.get("override_kylin_properties").and_then(|own| own.get(CHOSEN)).is_some() {
            continue;
        }
        let names = value.get("tables").and_then(Value::as_array).into_iter().flatten();
        // A table of this project alone goes before one of all.
        let source =
            |name: &str| tables.get(&format!("{name}--{project}")).or_else(|| tables.get(name)).copied();
        let sources: BTreeSet<i64> = names.filter_map(|name| source(name.as_str()?)).collect();
        if sources.len() > 1 {
            found.insert(project, sources);
        }
    }
    Ok(found)
}
