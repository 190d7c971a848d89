//! From release 2 to 3: projects with several data sources need a default one, which is chosen in the web interface after
//! the upgrade and cannot be changed later. kytx finds these projects in the metadata backup and reports them. It sets the
//! choice over REST only where it is told to, since nobody takes it back but the restore of an abort; that is no step of
//! the transaction: the product itself says whether it was made, so it is looked up before and read back after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::service_check::{made_backup, migrates};
use super::standing;
use super::terminal::{result, tell};
use crate::effect::fs::{Fs, read_file};
use crate::effect::os::OsFs;
use crate::kyligence::default_source::{CHOSEN, Chosen, Source, choose};
use crate::kyligence::home::Home;
use crate::kyligence::rest::{Credentials, Rest};
use crate::raw_path::RawPath;
use crate::txn::{Header, Txn};

/// The longest entry that is read.
const ENTRY_LIMIT_BYTES: u64 = 16 << 20;

/// The side file with what the operator said. Its name has it removed at the end.
pub const CHOICES: &str = "content-sources.json";

/// Reads the choices `PROJECT=hive|kafka`. Others, RDBMS above all, cannot be a default.
pub fn parse(given: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let mut choices = BTreeMap::new();
    for text in given {
        let choice = text.rsplit_once('=').filter(|(project, _)| !project.is_empty());
        match choice {
            Some((project, source)) if Source::parse(source).is_some() => {
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
    let backup = migrated(txn);
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
    let choices = choices(place);
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

/// The backup from before a migration from release 2 to 3, if this is one.
fn migrated(txn: &Txn) -> Option<RawPath> {
    if migrates(txn.header()) { made_backup(txn) } else { None }
}

fn choices(place: &Place) -> BTreeMap<String, String> {
    read_file(&OsFs, &place.state.plan().join(CHOICES), ENTRY_LIMIT_BYTES)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// Says before anything is begun what setting the choices means; refuses it where there is nothing to choose.
pub fn warn(header: &Header, choices: &BTreeMap<String, String>) -> Result<(), CommandError> {
    if !migrates(header) {
        return Err(CommandError::usage(
            "`--set-default-source` is for an upgrade from release 2 to 3 alone",
        )
        .why(format!("this one is from {} to {}", header.old_version, header.new_version))
        .hint("leave it out"));
    }
    for (project, source) in choices {
        tell(&format!(
            "Once the new release is in order, the default data source of `{project}` is set to `{source}`. It cannot be \
             changed later; only an abort, which restores the metadata, takes it back."
        ));
    }
    Ok(())
}

/// Sets the choices that were given to `begin`, and reads them back.
pub fn set(txn: &Txn, place: &Place, who: &Result<Option<Credentials>, String>) -> Result<(), CommandError> {
    let refuse = |what: &str| {
        CommandError::new(Exit::Open, what)
            .state(standing::sentence(txn))
            .hint(place.command("resume --set-default-source --user NAME"))
            .hint("choose in the web interface: Studio, Data Source")
    };
    let choices = choices(place);
    let backup = migrated(txn);
    let (Some(backup), false) = (backup, choices.is_empty()) else {
        return Err(refuse("there is no default data source to set")
            .why("`begin` was given no `--default-source`, or this is no upgrade from release 2 to 3"));
    };
    let home = Home::recognise(&OsFs, txn.header().home.as_path())
        .map_err(|error| refuse("the home cannot be read").because(&error))?;
    let who = match who {
        Ok(Some(who)) => who.clone(),
        Ok(None) => return Err(refuse("the default data source was not set").why("no user was given")),
        Err(why) => return Err(refuse("the default data source was not set").why(why)),
    };
    let rest = Rest::of(&home, who);
    let open = undecided(backup.as_path())
        .map_err(|error| refuse("the projects with several data sources are not known").because(&error))?;
    for (project, word) in &choices {
        let Some(source) = Source::parse(word) else { continue };
        if !open.contains_key(project) {
            result(&format!(
                "`{project}` needs no default data source: its tables are of one, or it has chosen."
            ));
            continue;
        }
        tell(&format!(
            "Setting the default data source of `{project}` to `{source}`. It cannot be changed later."
        ));
        let done = choose(&rest, project, source).map_err(|error| {
            refuse(&format!("the default data source of `{project}` was not set")).because(&error)
        })?;
        let how = if done == Chosen::Now { "was set and read back" } else { "had been set before" };
        result(&format!("The default data source of `{project}` is `{source}`: it {how}."));
    }
    Ok(())
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
