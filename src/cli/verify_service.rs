//! `kytx verify --service`: looks at the service that runs, level by level.

use serde_json::json;

use super::args::{JobsArgs, WhichArgs};
use super::claim;
use super::error::CommandError;
use super::exit::Exit;
use super::jobs::credentials;
use super::service_check::{check, is_bad, lines, reminder};
use super::session;
use super::terminal::result;
use crate::effect::os::OsFs;
use crate::journal::read;
use crate::txn::{Phase, Txn};

/// Runs the command.
pub fn run(which: &WhichArgs, who: &JobsArgs, as_json: bool) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    // Without an upgrade there is nothing to compare with, and the rest can be looked at all the same.
    let txn: Option<Txn> = match read(&OsFs, place.state.root()) {
        Ok(view) => Some(session::replay(view.records(), &place)?),
        Err(_) => None,
    };
    let txn = txn.filter(|txn| !matches!(txn.phase(), Phase::Ended(_)));
    let home = txn
        .as_ref()
        .map(|txn| txn.header().home.as_path().to_owned())
        .or_else(|| place.home.clone())
        .ok_or_else(|| CommandError::usage("no home was given").hint("kytx verify HOME --service"))?;
    let credentials = credentials(who);
    let checks = check(&place, &home, txn.as_ref(), &credentials)?;
    if as_json {
        let report = json!({ "schema": "kytx.service.v1", "bad": is_bad(&checks), "levels": checks });
        result(&serde_json::to_string_pretty(&report).expect("BUG: plain data has a JSON form"));
    } else {
        for line in lines(&checks) {
            result(&line);
        }
        if txn.is_some() {
            for line in reminder(&home, which.home.as_deref()) {
                result(&line);
            }
        }
    }
    Ok(if is_bad(&checks) { Exit::Damaged } else { Exit::Done })
}
