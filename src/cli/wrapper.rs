//! `kytx wrapper`: prints a script that is called as the product's own `upgrade.sh` and lets kytx do the work.
//!
//! `upgrade.sh <OLD_KYLIN_HOME> [--silent]`: any other argument than `--silent` is the old home, the last one wins;
//! without one `KYLIN_HOME` is meant. A program that drives the script finds the line `Backup location:` as before.

use std::path::Path;

use super::error::CommandError;
use super::exit::Exit;
use super::place::{absolute, quoted};
use super::terminal::result;
use crate::effect::os::OsFs;
use crate::kyligence::home::Home;
use crate::raw_path::RawPath;

/// Runs the command.
pub fn run(new_home: &Path) -> Result<Exit, CommandError> {
    let path = absolute(new_home)?;
    let show = RawPath::from(path.as_path());
    let refuse = || {
        CommandError::refused(format!("no script can be made for `{show}`"))
            .hint("kytx wrapper NEW_HOME, with the directory that the new package was unpacked to")
    };
    let home = Home::recognise(&OsFs, &path).map_err(|error| refuse().because(&error))?;
    let program = std::env::current_exe()
        .map_err(|error| refuse().why("it cannot be said where kytx is").because(&error))?;
    let (Some(_), Some(_)) = (path.to_str(), program.to_str()) else {
        return Err(refuse().why("a script cannot name a path that is not UTF-8"));
    };
    result(&script(&quoted(program.as_os_str()), &quoted(path.as_os_str()), &home.identity.version.text));
    Ok(Exit::Done)
}

fn script(program: &str, package: &str, version: &str) -> String {
    format!(
        r#"#!/bin/sh
# Upgrades to {version} with kytx, called as `upgrade.sh <OLD_KYLIN_HOME> [--silent]`. Made by `kytx wrapper`.
old=${{KYLIN_HOME:-}}
silent=
for word in "$@"; do
    case $word in
        --silent) silent=--silent ;;
        *) old=$word ;;
    esac
done
if [ -z "$old" ] || [ ! -d "$old" ]; then
    echo "Usage: $(basename "$0") <OLD_KYLIN_HOME> [--silent]" >&2
    exit 1
fi
# `--` keeps a home whose name begins with `-` from being an option.
exec {program} begin --package {package} --audit $silent -- "$old""#
    )
}
