//! `begin --clean-outdated`: the cleaning that the manual recommends from release 2 to 3, before there is a transaction, and
//! so before every backup. What it deletes no abort brings back.

use super::error::CommandError;
use super::facts;
use super::place::Place;
use super::progress::Meter;
use super::session::with_machine;
use super::terminal::{ONLY_YES, ask, tell};
use crate::effect::signal::StopRequests;
use crate::engine::MutationError;
use crate::kyligence::cleaning::{CHECKER, CLEANERS, Cleaner, run};
use crate::kyligence::home::Home;
use crate::kyligence::version::Generation;
use crate::mutate::with_metadata;
use crate::raw_path::RawPath;

/// Lists, asks, and deletes.
pub fn clean(home: &Home, place: &Place, stop: &StopRequests, silent: bool) -> Result<(), CommandError> {
    let refuse = |what: &str| {
        CommandError::refused(what)
            .state("The upgrade was not begun. What a command before this one deleted is deleted.")
            .hint("clean up by hand, or leave `--clean-outdated` out")
    };
    let path = RawPath::from(home.path.as_path());
    if home.identity.generation() != Some(Generation::Kap2) {
        return Err(CommandError::usage("`--clean-outdated` is for an upgrade from release 2")
            .why("later releases clean up by `RoutineTool`, on their own and by their own plan")
            .hint("leave it out"));
    }
    let processes = facts::processes(home)
        .map_err(|error| refuse("whether the service runs cannot be seen").because(&error))?;
    if processes.service_runs() {
        return Err(refuse("nothing is cleaned up while the service runs")
            .why("the manual has it done after the stop, and before the backups")
            .hint(format!("{path}/bin/kylin.sh stop")));
    }
    let meter = Meter::new();
    let done = with_machine(place, "begin", stop, &meter, |machine| -> Result<bool, MutationError> {
        let call = |script: &str, words: &[&str]| -> Result<(), MutationError> {
            tell(&format!("{script} {}", words.join(" ")));
            let said = with_metadata(machine, &path, |home, tools| run(tools, &home.path, script, words))?;
            for line in said {
                tell(&format!("  {line}"));
            }
            Ok(())
        };
        call(CHECKER.script, CHECKER.lists)?;
        // Whether there is something to recover from only a person can read out of that.
        if !silent && ask("Are entries named as broken, and to be taken out?") {
            call(CHECKER.script, CHECKER.deletes)?;
        }
        for Cleaner { script, lists, .. } in CLEANERS {
            call(script, lists)?;
        }
        if !silent && !ask("Delete this? No abort brings it back.") {
            return Ok(false);
        }
        for Cleaner { script, deletes, .. } in CLEANERS {
            call(script, deletes)?;
        }
        Ok(true)
    });
    match done.map_err(|error| refuse("cannot use the state directory").because(&error))? {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::refused("not begun: nothing was to be deleted")
            .why(ONLY_YES)
            .hint("leave `--clean-outdated` out")),
        Err(error) => Err(refuse("the cleaning failed").because(&error)),
    }
}
