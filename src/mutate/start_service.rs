//! Starts the service of a home and waits until it answers.
//!
//! *Crash windows.* The script may have been killed and left `LOCK` behind, the server may be coming up with kytx gone:
//! the process table tells, and a lock without a process is removed before the next start.
//! *Probe.* The process table and one question over HTTP. A server that runs before the intent was started by somebody
//! else, from a home that was just swapped in: foreign.
//! *Apply.* `kylin.sh start`, then ask until it answers. *Undo.* `kylin.sh stop`.

use super::{Act, Machine, product, stop_service};
use crate::engine::{MutationError, Sight, Task};
use crate::kyligence::process::Role;
use crate::kyligence::service::{self, ask, judge_answer};
use crate::raw_path::RawPath;
use crate::txn::{Direction, Observed};

pub(super) struct StartService<'a> {
    pub home: &'a RawPath,
    pub start_timeout_s: u32,
}

impl Act for StartService<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let processes = product::processes(machine, self.home.as_path())?;
        if task.inputs.is_none() {
            return Ok(match processes.services().next() {
                None => Sight::of(Observed::Before),
                Some(service) => Sight::foreign(format!(
                    "the service of `{}` runs (process {}), and kytx did not start it",
                    self.home, service.pid
                )),
            });
        }
        if !processes.service_runs() {
            // A start that is under way too: a script forks the server, and that fork, which holds no lock any more, is
            // the script's own process until it becomes the server.
            let left = processes.found.iter().any(|process| process.role != Role::Other);
            return Ok(Sight::of(if left { Observed::Torn } else { Observed::Before }));
        }
        if task.direction == Direction::Backward {
            return Ok(Sight::of(Observed::After));
        }
        let readiness = product::home(machine, self.home)?.readiness;
        let answers = judge_answer(&readiness, &ask(&readiness)).is_ok();
        Ok(Sight::of(if answers { Observed::After } else { Observed::Torn }))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        stop_service::start_and_wait(machine, self.home, self.start_timeout_s)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        stop_service::unlock(machine, self.home)
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        machine.service_goes_down();
        let home = self.home.as_path();
        product::with_service(machine, home, |tools| service::stop(tools, home, product::STOP_LIMIT))
    }
}
