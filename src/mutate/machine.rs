//! The world that mutations act on.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::restore_metadata::RestoreHow;
use super::{act_of, stopped};
use crate::digest::Digest;
use crate::effect::fs::Fs;
use crate::effect::shell::{Attendant, Call, Ran, Shell};
use crate::effect::tree::{no_tick, remove_tree};
use crate::engine::{MutationError, Sight, Task, World};
use crate::hadoop::Hdfs;
use crate::kyligence::preflight::CheckId;
use crate::kyligence::service::Stopped;
use crate::state_dir::StateDir;

/// Told how a long piece of work gets on.
pub trait Progress: Sync {
    /// So many bytes of content went by.
    fn bytes(&self, count: u64);
    /// How many bytes the work in hand has in all, once that is known.
    fn total(&self, bytes: u64);
    /// Something worth a line.
    fn say(&self, line: &str);
}

/// How long the service was down, and whose time it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downtime {
    /// From the beginning of the stop to the answer of the started service.
    pub total: Duration,
    /// Spent in the product's scripts, or waiting for its service to go or to answer.
    pub product: Duration,
}

impl Downtime {
    /// kytx's own share.
    pub fn own(&self) -> Duration {
        self.total.saturating_sub(self.product)
    }
}

#[derive(Default)]
struct Clock {
    down_since: Option<Instant>,
    product: Duration,
    downtime: Option<Downtime>,
}

/// The machine, seen through the seams of `effect` and `hadoop`.
pub struct Machine<'a> {
    /// The file system.
    pub fs: &'a dyn Fs,
    /// Other people's programs.
    pub shell: &'a dyn Shell,
    /// The cube data's file system.
    pub hdfs: &'a dyn Hdfs,
    /// The state directory.
    pub state: &'a StateDir,
    /// Who is told how the work gets on.
    pub progress: &'a dyn Progress,
    /// Whether a stop was asked for.
    pub stop_requested: &'a (dyn Fn() -> bool + Sync),
    /// Where to look for processes: `/proc`.
    pub proc_root: PathBuf,
    /// The checks that whoever began the transaction has overridden, by their names in the journal.
    pub overridden: Vec<String>,
    /// How the metadata are restored on the way back.
    pub restore: RestoreHow,
    /// How many threads bulk work may use.
    pub threads: usize,
    clock: RefCell<Clock>,
}

impl<'a> Machine<'a> {
    /// A machine with the usual `/proc` and two threads for bulk work.
    pub fn new(
        fs: &'a dyn Fs,
        shell: &'a dyn Shell,
        hdfs: &'a dyn Hdfs,
        state: &'a StateDir,
        progress: &'a dyn Progress,
        stop_requested: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        Self {
            fs,
            shell,
            hdfs,
            state,
            progress,
            stop_requested,
            proc_root: PathBuf::from("/proc"),
            overridden: Vec::new(),
            restore: RestoreHow::Auto,
            threads: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4),
            clock: RefCell::default(),
        }
    }

    /// Whether a check was overridden when the transaction began.
    pub(super) fn has_overridden(&self, check: CheckId) -> bool {
        self.overridden.iter().any(|name| *name == format!("{check:?}"))
    }

    /// Counts bytes of content, and ends the work when a stop is asked for.
    pub(super) fn tick(&self) -> impl Fn(u64) -> io::Result<()> + Sync + use<'a> {
        let (progress, stop_requested) = (self.progress, self.stop_requested);
        move |bytes| {
            progress.bytes(bytes);
            if stop_requested() { Err(stopped()) } else { Ok(()) }
        }
    }

    /// Waits, in small pieces, and gives up as soon as a stop is asked for.
    pub(super) fn wait(&self, time: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + time;
        loop {
            if (self.stop_requested)() {
                return Err(Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Runs a piece of work whose time is the product's.
    pub(super) fn products_time<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.clock.borrow_mut().product += begun.elapsed();
        result
    }

    /// The service goes down from here.
    pub(super) fn service_goes_down(&self) {
        let mut clock = self.clock.borrow_mut();
        clock.down_since = Some(Instant::now());
        clock.product = Duration::ZERO;
    }

    /// The service answers again.
    pub(super) fn service_answers(&self) {
        let mut clock = self.clock.borrow_mut();
        if let Some(since) = clock.down_since.take() {
            clock.downtime = Some(Downtime { total: since.elapsed(), product: clock.product });
        }
    }

    /// How long the service was down, if this run saw both ends of it.
    pub fn downtime(&self) -> Option<Downtime> {
        self.clock.borrow().downtime
    }
}

/// A shell whose time is the product's.
pub(super) struct ProductShell<'m, 'a>(pub &'m Machine<'a>);

impl Shell for ProductShell<'_, '_> {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        self.0.products_time(|| self.0.shell.run(call))
    }

    fn attend(&self, call: &Call, attendant: &mut dyn Attendant) -> io::Result<Ran> {
        self.0.products_time(|| self.0.shell.attend(call, attendant))
    }
}

impl World for Machine<'_> {
    fn probe(&mut self, task: &Task<'_>) -> Result<Sight, MutationError> {
        act_of(task.mutation).probe(self, task)
    }

    fn inputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError> {
        let content = match act_of(task.mutation).inputs(self)? {
            Some(content) => content,
            None => serde_json::to_vec(task.mutation).expect("BUG: a mutation has a JSON form"),
        };
        Ok(self.state.write_inputs(self.fs, task.step, &content)?)
    }

    fn apply(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        let act = act_of(task.mutation);
        let result = act.apply(self, task);
        if let (Err(MutationError::Failed(_)), Some(part)) = (&result, act.part()) {
            // It is of no use to anybody. On a full disk it would hold the very room that the journal's next opening
            // needs, and with it every way back.
            let _ = remove_tree(self.fs, &part, &no_tick);
        }
        result
    }

    fn make_durable(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        act_of(task.mutation).make_durable(self)
    }

    fn outputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError> {
        act_of(task.mutation).outputs(self)
    }

    fn undo(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        act_of(task.mutation).undo(self, task)
    }
}
