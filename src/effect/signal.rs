//! Requests to stop: Ctrl-C, SIGTERM, SIGHUP, SIGQUIT.
//!
//! The first only sets a flag, read between actions and in copy loops: kytx finishes what it is at and stops at a safe
//! point. SIGKILL is the tested case; signals are a courtesy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// How many requests to stop have come.
#[derive(Clone, Debug, Default)]
pub struct StopRequests(Arc<AtomicUsize>);

impl StopRequests {
    /// Never asked to stop.
    pub fn none() -> Self {
        Self::default()
    }

    /// Listens to the signals from now on; `told` is called with the count at each.
    pub fn listen(told: impl Fn(usize) + Send + 'static) -> io::Result<Self> {
        let requests = Self::default();
        let counted = requests.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        std::thread::Builder::new().spawn(move || {
            for _ in signals.forever() {
                told(counted.add());
            }
        })?;
        Ok(requests)
    }

    /// Adds a request and returns how many there are now.
    pub fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
