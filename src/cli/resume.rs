//! `kytx resume`: goes on with an interrupted upgrade, abort or commit.

use super::args::{OnUnhealthy, WhichArgs};
use super::claim;
use super::driving::{self, Driving, Turn};
use super::error::CommandError;
use super::exit::Exit;
use super::service_check::Checkup;
use super::session::Session;
use super::standing;
use crate::txn::Phase;

/// Runs the command.
pub fn run(which: &WhichArgs, stop_before: Option<&str>, turn: Turn) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    let mut session = Session::open(&place, "resume")?;
    match session.txn.phase() {
        Phase::Ended(_) if session.ended_now() => Ok(driving::ended(&session.txn)),
        Phase::Ended(_) => Err(CommandError::new(Exit::NotOpen, "nothing is open")
            .why("the last upgrade has ended")
            .state(standing::sentence(&session.txn))
            .hint(place.command("status"))),
        Phase::Applied => {
            driving::applied(&session.txn, &place, None);
            Ok(Exit::Done)
        }
        Phase::Planning | Phase::Applying | Phase::Aborting | Phase::Committing => {
            session.tell();
            // Nobody's password outlives a run: what needs a user is asked by `kytx verify --service`.
            let checkup = Checkup { credentials: Ok(None), on_unhealthy: OnUnhealthy::Stop };
            let how = Driving { command: "resume", stop_before, turn, checkup: Some(&checkup) };
            driving::run(&mut session, &place, &how)
        }
    }
}
