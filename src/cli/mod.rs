//! Words: arguments, questions, progress, messages, exit codes.

mod abort;
mod args;
mod begin;
mod check;
mod claim;
mod cluster_lock;
mod commit;
mod cube;
mod demo;
mod doomed;
mod draft;
mod driving;
mod error;
mod exit;
mod facts;
mod inquiry;
mod jobs;
mod log;
mod place;
mod plan;
mod procedure;
mod progress;
mod rehearse;
mod resume;
mod scratch;
mod session;
mod standing;
mod status;
mod terminal;
mod verify;
mod verify_cluster;

use std::process::ExitCode;

use clap::Parser;

pub use exit::Exit;

use args::{Cli, Command};
use error::CommandError;

/// Runs the program: reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with code 0, anything else to standard error with code 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.print();
            error.exit.into()
        }
    }
}

fn run(command: Command) -> Result<Exit, CommandError> {
    match command {
        Command::Plan { upgrade, out, json } => plan::run(&upgrade, out.as_deref(), json),
        Command::Check { upgrade, json } => check::run(&upgrade, json),
        Command::Begin {
            upgrade,
            silent,
            plan,
            stop_before,
            on_failure,
            on_unfinished_jobs,
            discard_jobs,
            wait_for_jobs,
        } => {
            let settle = jobs::Settle { discard: discard_jobs, wait_s: wait_for_jobs, silent };
            let turn = driving::Turn { on_failure, on_unfinished_jobs };
            begin::run(&upgrade, &begin::Options { silent, plan, stop_before, turn, settle })
        }
        Command::Resume { which, stop_before, on_failure, on_unfinished_jobs } => {
            let turn = driving::Turn { on_failure, on_unfinished_jobs };
            resume::run(&which, stop_before.as_deref(), turn)
        }
        Command::Abort { which, yes, dry_run } => abort::run(&which, yes, dry_run),
        Command::Commit { which, yes, keep } => commit::run(&which, yes, &keep),
        Command::Verify { which, level, json } => verify::run(&which, level, json),
        Command::Status { which, json } => status::run(&which, json),
        Command::Log { which, json } => log::run(&which, json),
        Command::Demo { dir, keep } => demo::run(dir, keep),
        Command::Rehearse { upgrade, dir, plan, kills, seed, keep, json } => {
            rehearse::run(&upgrade, &rehearse::Options { dir, plan, kills, seed, keep, json })
        }
        Command::StandinService { args } => crate::testbed::service::run(args)
            .map(|()| Exit::Done)
            .map_err(|error| CommandError::new(Exit::Fault, "the stand-in's service failed").because(&error)),
    }
}
