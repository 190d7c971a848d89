//! The operator's own queries: answered by the old release before the stop, and by the new one after its start.
//!
//! A file holds statements, each ending with `;` at the end of a line, after a line `-- project: NAME` that says where
//! they are asked. Answers are compared as multisets of rows: without an order of its own a query may give its rows in
//! any. Of an answer only its size and a digest are kept, as rows are the operator's business.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rest::Rest;
use super::secrets::mask_text;
use crate::digest::Digest;

/// Rows that are asked for. Which rows a longer answer is cut to is chance.
const ROWS_MAX: usize = 10_000;

/// How much of a statement is repeated.
const QUOTED_CHARS: usize = 80;

/// A statement and where it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The project.
    pub project: String,
    /// The statement, without its semicolon.
    pub sql: String,
}

impl Statement {
    /// Its beginning, for messages.
    pub fn shown(&self) -> String {
        let line: String = self.sql.split_whitespace().collect::<Vec<_>>().join(" ");
        mask_text(&line).chars().take(QUOTED_CHARS).collect()
    }
}

/// An answer, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What was asked.
    pub statement: Statement,
    /// How many rows came.
    pub rows: usize,
    /// The digest of the rows, sorted.
    pub digest: Digest,
}

/// Reads a file of statements.
pub fn parse(text: &str) -> Result<Vec<Statement>, String> {
    let (mut project, mut statements, mut sql) = (None, Vec::new(), String::new());
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if let Some(name) = line.trim_start().strip_prefix("-- project:") {
            if !sql.trim().is_empty() {
                return Err(format!("line {}: the statement before it has no `;`", number + 1));
            }
            project = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
            continue;
        }
        if line.trim_start().starts_with("--") && sql.trim().is_empty() {
            continue;
        }
        sql.push_str(line.strip_suffix(';').unwrap_or(line));
        sql.push('\n');
        if line.ends_with(';') {
            let project = project
                .clone()
                .ok_or_else(|| format!("line {}: no `-- project: NAME` stands before it", number + 1))?;
            statements.push(Statement { project, sql: std::mem::take(&mut sql).trim().to_owned() });
        }
    }
    if !sql.trim().is_empty() {
        return Err("the last statement has no `;`".to_owned());
    }
    match statements.iter().find(|statement| statement.sql.is_empty()) {
        Some(_) => Err("a statement is empty".to_owned()),
        None if statements.is_empty() => Err("there is no statement in it".to_owned()),
        None => Ok(statements),
    }
}

/// Asks one.
pub fn answer(rest: &Rest, statement: &Statement) -> Result<Recorded, String> {
    let body = json!({
        "sql": statement.sql,
        "project": statement.project,
        "offset": 0,
        "limit": ROWS_MAX,
        "acceptPartial": false,
    });
    let answer = rest.post("/query", &body).map_err(|error| error.to_string())?;
    record(statement, &answer)
}

fn record(statement: &Statement, answer: &Value) -> Result<Recorded, String> {
    if answer.get("isException").and_then(Value::as_bool) == Some(true) {
        let message = answer.get("exceptionMessage").and_then(Value::as_str).unwrap_or("it does not say why");
        return Err(format!("it fails: {}", mask_text(message.lines().next().unwrap_or_default())));
    }
    let rows = answer.get("results").and_then(Value::as_array).ok_or("the answer has no `results`")?;
    if rows.len() >= ROWS_MAX {
        return Err(format!("it has {ROWS_MAX} rows or more, of which only a part can be compared"));
    }
    let mut texts: Vec<String> = rows.iter().map(Value::to_string).collect();
    texts.sort_unstable();
    let digest = Digest::of_value("kytx 2026 query answer v1", &texts);
    Ok(Recorded { statement: statement.clone(), rows: rows.len(), digest })
}

/// What differs between two answers to one statement.
pub fn difference(before: &Recorded, now: &Recorded) -> Option<String> {
    if before.rows != now.rows {
        return Some(format!("{} rows before the upgrade, {} now", before.rows, now.rows));
    }
    (before.digest != now.digest).then(|| format!("{} rows as before, with other values", now.rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_a_project_and_an_end() {
        let text = "-- our queries\n-- project: sales\nselect a\n  from b;\n\nselect 1;\n-- project: web\nselect ';';\n";
        let statements = parse(text).unwrap();
        let shown: Vec<_> = statements.iter().map(|s| (s.project.as_str(), s.shown())).collect();
        assert_eq!(
            shown,
            [("sales", "select a from b".into()), ("sales", "select 1".into()), ("web", "select ';'".into())]
        );
        for bad in
            ["", "select 1;", "-- project: x\nselect 1", "-- project: x\n;\n", "-- project:\nselect 1;"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("-- project: x\nselect 1\n-- project: y\nselect 2;").is_err());
    }

    #[test]
    fn answers_are_compared_as_multisets() {
        let statement = Statement { project: "p".into(), sql: "s".into() };
        let of = |rows: Value| record(&statement, &json!({"results": rows, "isException": false})).unwrap();
        let before = of(json!([["1", "a"], ["2", "b"], ["2", "b"]]));
        assert_eq!(difference(&before, &of(json!([["2", "b"], ["1", "a"], ["2", "b"]]))), None);
        let other = difference(&before, &of(json!([["2", "b"], ["1", "a"], ["1", "a"]]))).unwrap();
        assert!(other.contains("other values"), "{other}");
        assert!(difference(&before, &of(json!([]))).unwrap().contains("3 rows before"));
        let failed = record(&statement, &json!({"isException": true, "exceptionMessage": "no table\nat x"}));
        assert_eq!(failed.unwrap_err(), "it fails: no table");
        assert!(record(&statement, &json!({})).is_err());
        let many: Vec<_> = (0..ROWS_MAX).map(|n| json!([n.to_string()])).collect();
        assert!(record(&statement, &json!({"results": many})).is_err());
    }
}
