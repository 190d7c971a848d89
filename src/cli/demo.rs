//! `kytx demo`: placeholder module body follows.
use super::error::CommandError;
use super::exit::Exit;
use std::path::PathBuf;
pub fn run(_: Option<PathBuf>, _: bool) -> Result<Exit, CommandError> {
    Ok(Exit::Done)
}
