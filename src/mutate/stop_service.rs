//! Stops the service of a home.
//!
//! *Crash windows.* The script may have been started and its process killed with kytx or not; the service may be
//! half-way down. All of them look alike from here, running or not, and stopping again is harmless.
//! *Probe.* The process table, never the pid file alone. A service that does not run before the intent is found so,
//! and an abort will not start it.
//! *Apply.* `kylin.sh stop`, wait until its processes are gone. *Undo.* Start it and wait until it answers.

use std::time::Duration;

use super::{Act, Machine, product};
use crate::engine::{MutationError, Sight, Task};
use crate::kyligence::process::Role;
use crate::kyligence::service;
use crate::raw_path::RawPath;
use crate::txn::{Direction, Observed};

pub(super) struct StopService<'a> {
    pub home: &'a RawPath,
    pub start_timeout_s: u32,
}

impl Act for StopService<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let processes = product::processes(machine, self.home.as_path())?;
        if task.direction == Direction::Backward {
            // If it runs, whether it answers is for the undo to see. Children that it left behind are no service.
            let runs = processes.service_runs();
            return Ok(Sight::of(if runs { Observed::Torn } else { Observed::After }));
        }
        let up = processes.found.iter().any(|process| matches!(process.role, Role::Service | Role::Child));
        Ok(Sight::of(if up { Observed::Before } else { Observed::After }))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        machine.service_goes_down();
        let home = self.home.as_path();
        product::with_service(machine, home, |tools| service::stop(tools, home, product::STOP_LIMIT))
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        unlock(machine, self.home)
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        start_and_wait(machine, self.home, self.start_timeout_s)
    }
}

/// Of a service that is found to run: what the script that started it was killed before it could clear away.
pub(super) fn unlock(machine: &Machine<'_>, home: &RawPath) -> Result<(), MutationError> {
    product::with_service(machine, home.as_path(), |tools| service::unlock(tools, home.as_path()))
}

/// Starts the service of the home that is at a path now, unless it runs already, and waits until it answers.
pub(super) fn start_and_wait(
    machine: &Machine<'_>,
    path: &RawPath,
    limit_s: u32,
) -> Result<(), MutationError> {
    let home = product::home(machine, path)?;
    let limit = Duration::from_secs(u64::from(limit_s));
    if !product::processes(machine, &home.path)?.service_runs() {
        product::require_working_dir(machine, &home)?;
    }
    product::with_service(machine, &home.path, |tools| {
        service::start(tools, &home.path, &home.readiness, limit)
    })?;
    machine.service_answers();
    Ok(())
}
