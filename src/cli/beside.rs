//! Work side by side, where threads can be had.

use std::panic::resume_unwind;
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// A piece of work that was asked for.
pub struct Beside<'scope, T> {
    thread: Option<ScopedJoinHandle<'scope, T>>,
    work: &'scope (dyn Fn() -> T + Sync),
}

/// Begins a piece of work in a thread of its own. Where none can be had (a limit on processes, a machine in need), it is
/// done when its result is asked for: a check is slower then, and says the same.
pub fn beside<'scope, T: Send>(
    scope: &'scope Scope<'scope, '_>,
    work: &'scope (dyn Fn() -> T + Sync),
) -> Beside<'scope, T> {
    Beside { thread: Builder::new().spawn_scoped(scope, work).ok(), work }
}

impl<T> Beside<'_, T> {
    /// What came of it.
    pub fn result(self) -> T {
        match self.thread {
            Some(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            None => (self.work)(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_with_a_thread_and_without() {
        let work = || 7;
        assert_eq!(std::thread::scope(|scope| beside(scope, &work).result()), 7);
        assert_eq!(Beside { thread: None, work: &work }.result(), 7);
    }
}
