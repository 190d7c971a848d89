//! `kytx resume`: goes on with an interrupted upgrade, abort or commit.

use super::args::{JobsArgs, OnUnhealthy, WhichArgs};
use super::claim;
use super::driving::{self, Driving, Turn};
use super::error::CommandError;
use super::exit::Exit;
use super::jobs::credentials;
use super::service_check::Checkup;
use super::session::Session;
use super::sources;
use super::standing;
use crate::mutate::RestoreHow;
use crate::txn::Phase;

/// How to go on.
pub struct Options {
    /// Stop before this step.
    pub stop_before: Option<String>,
    /// When to turn round by itself.
    pub turn: Turn,
    /// Who looks at the service after its start.
    pub who: JobsArgs,
    /// How the metadata are restored, where an abort goes on.
    pub restore: RestoreHow,
    /// Whether the default data sources that were given to `begin` are to be set.
    pub set_default_source: bool,
}

/// Runs the command.
pub fn run(which: &WhichArgs, options: &Options) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    let mut session = Session::open(&place, "resume")?;
    // Nobody's password outlives a run: it is given again, or what needs a user is not looked at.
    let checkup = Checkup { credentials: credentials(&options.who), on_unhealthy: OnUnhealthy::Stop };
    let exit = match session.txn.phase() {
        Phase::Ended(_) if session.ended_now() => return Ok(driving::ended(&session.txn)),
        Phase::Ended(_) => {
            return Err(CommandError::new(Exit::NotOpen, "nothing is open")
                .why("the last upgrade has ended")
                .state(standing::sentence(&session.txn))
                .hint(place.command("status")));
        }
        Phase::Applied => {
            driving::applied(&session.txn, &place, None);
            Exit::Done
        }
        Phase::Planning | Phase::Applying | Phase::Aborting | Phase::Committing => {
            session.tell();
            let stop_before = options.stop_before.as_deref();
            let how = Driving {
                command: "resume",
                stop_before,
                turn: options.turn,
                checkup: Some(&checkup),
                restore: options.restore,
            };
            driving::run(&mut session, &place, &how)?
        }
    };
    if exit == Exit::Done && options.set_default_source && session.txn.phase() == Phase::Applied {
        sources::set(&session.txn, &place, &checkup.credentials)?;
    }
    Ok(exit)
}
