//! Words: arguments, questions, progress, messages, exit codes.

mod abort;
mod args;
mod audit;
mod begin;
mod beside;
mod by_hand;
mod check;
mod claim;
mod cleaning;
mod cluster;
mod cluster_lock;
mod commit;
mod cube;
mod demo;
mod diff;
mod doomed;
mod draft;
mod driving;
mod error;
mod exit;
mod facts;
mod inquiry;
mod jobs;
mod log;
mod losses;
mod merging;
mod packages;
mod place;
mod plan;
mod procedure;
mod progress;
mod rehearse;
mod resume;
mod scratch;
mod service_check;
mod session;
mod sources;
mod standing;
mod status;
mod terminal;
mod ticket;
mod verify;
mod verify_cluster;
mod verify_service;
mod wrapper;

use std::process::ExitCode;

use clap::Parser;

pub use exit::Exit;

use crate::effect::env_script;
use args::{Cli, Command, JobsArgs};
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
    if let Some(error) = run_env_script(&cli.command) {
        error.print();
        return error.exit.into();
    }
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.print();
            error.exit.into()
        }
    }
}

/// Becomes the same command in the environment of `--env-script`, once. Returns only if that failed.
fn run_env_script(command: &Command) -> Option<CommandError> {
    let script = command.which()?.env_script.as_deref()?;
    let done = std::env::var_os(env_script::MARK);
    let refuse = |cause: &std::io::Error| {
        CommandError::refused(format!("cannot run the script `{}`", script.display()))
            .because(cause)
            .hint("--env-script FILE, with a script for bash that ends with 0")
    };
    let path = match std::path::absolute(script) {
        Ok(path) => path,
        Err(error) => return Some(refuse(&error)),
    };
    if done.as_deref() == Some(path.as_os_str()) {
        return None;
    }
    Some(refuse(&env_script::again_after(&path, std::env::args_os().skip(1))))
}

fn run(command: Command) -> Result<Exit, CommandError> {
    match command {
        Command::Plan { upgrade, out, diff, json } => plan::run(&upgrade, &plan::Options { out, diff, json }),
        Command::Check { upgrade, json } => check::run(&upgrade, json),
        Command::Begin {
            upgrade,
            silent,
            plan,
            stop_before,
            on_failure,
            on_unfinished_jobs,
            on_unhealthy,
            discard_jobs,
            wait_for_jobs,
            set_default_source,
            clean_outdated,
        } => {
            let settle = jobs::Settle { discard: discard_jobs, wait_s: wait_for_jobs, silent };
            let turn = driving::Turn { on_failure, on_unfinished_jobs };
            let options = begin::Options {
                silent,
                plan,
                stop_before,
                turn,
                settle,
                on_unhealthy,
                set_default_source,
                clean_outdated,
            };
            begin::run(&upgrade, &options)
        }
        Command::Resume {
            which,
            stop_before,
            on_failure,
            on_unfinished_jobs,
            user,
            password_file,
            restore,
            set_default_source,
        } => {
            let turn = driving::Turn { on_failure, on_unfinished_jobs };
            let who = JobsArgs { user, password_file, jobs_finished: false };
            resume::run(
                &which,
                &resume::Options { stop_before, turn, who, restore: restore.into(), set_default_source },
            )
        }
        Command::Abort { which, yes, dry_run, restore } => abort::run(&which, yes, dry_run, restore.into()),
        Command::Commit { which, yes, keep, overrides } => commit::run(&which, yes, &keep, &overrides),
        Command::Verify { which, service: true, user, password_file, json, .. } => {
            let who = JobsArgs { user, password_file, jobs_finished: false };
            verify_service::run(&which, &who, json)
        }
        Command::Verify { which, level, json, .. } => verify::run(&which, level, json),
        Command::Wrapper { new_home } => wrapper::run(&new_home),
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
