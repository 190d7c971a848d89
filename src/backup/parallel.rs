//! Two shapes of work by several threads: independent items, and a stream whose results are wanted in order.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Works through independent items, in the given order where that matters for balance, and returns the results in
/// that order. The first error ends the rest. One thread or none means: here.
pub fn fan_out<I: Sync, T: Send, E: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return Ok(done) };
            match work(item) {
                Ok(result) => done.push((place, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let parts: Vec<_> = thread::scope(|scope| {
        // This thread is one of them, so the work gets done where no other can be had.
        let others: Vec<_> =
            (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, run).ok()).collect();
        let mut parts = vec![run()];
        let join = |other: thread::ScopedJoinHandle<'_, _>| {
            other.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        parts.extend(others.into_iter().map(join));
        parts
    });
    let mut results = Vec::with_capacity(items.len());
    for part in parts {
        results.extend(part?);
    }
    results.sort_unstable_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Streams jobs from `produce` (a thread of its own) through `work` (several) to `consume` (this thread), which sees
/// them in the order they were put.
///
/// The jobs of `pool` are all there ever are: they go round, with the buffers they own, so that memory stays bounded
/// and pages once touched are used again. An error on either side winds the other down, and so does a thread that
/// cannot be had.
pub fn ordered<J: Send, T, E: Send + From<io::Error>>(
    threads: usize,
    pool: Vec<J>,
    produce: impl FnOnce(&mut Feeder<J>) -> Result<(), E> + Send,
    work: impl Fn(&mut J) + Sync,
    consume: impl FnOnce(&mut Ordered<J>) -> Result<T, E>,
) -> Result<T, E> {
    let (free_in, free_out) = channel();
    let (queue_in, queue_out) = sync_channel(pool.len());
    let (done_in, done_out) = channel();
    for job in pool {
        free_in.send(job).expect("BUG: the receiver is in this function");
    }
    let queue_out = Mutex::new(queue_out);
    thread::scope(|scope| {
        // Owned here, so that everything hangs up when the consumer returns, whichever way.
        let queue_out = &queue_out;
        let work = &work;
        for number in 0..threads.max(1) {
            let done_in = done_in.clone();
            let worker = move || {
                loop {
                    let taken = queue_out.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((place, mut job)) = taken else { return };
                    // A job that vanished with its thread would leave the other threads waiting for ever.
                    let worked = catch_unwind(AssertUnwindSafe(|| work(&mut job)));
                    if done_in.send(worked.map(|()| (place, job))).is_err() {
                        return;
                    }
                }
            };
            match thread::Builder::new().spawn_scoped(scope, worker) {
                // One is enough.
                Err(error) if number == 0 => return Err(error.into()),
                _ => {}
            }
        }
        drop(done_in);
        // Last: where it cannot be had, its end of the queue goes, and with it the workers.
        let producer = thread::Builder::new()
            .spawn_scoped(scope, move || produce(&mut Feeder { free: free_out, queue: queue_in, next: 0 }))?;
        let mut results = Ordered { done: done_out, free: free_in, early: BTreeMap::new(), next: 0 };
        let outcome = consume(&mut results);
        drop(results);
        let made = producer.join().unwrap_or_else(|panic| resume_unwind(panic));
        // Where both failed, the producer failed first: it only ever fails on its own account.
        made.and(outcome)
    })
}

/// The producer's end.
pub struct Feeder<J> {
    free: Receiver<J>,
    queue: SyncSender<(u64, J)>,
    next: u64,
}

impl<J> Feeder<J> {
    /// Waits for a free job. `None` if the consumer has given up: produce no more.
    pub fn take(&mut self) -> Option<J> {
        self.free.recv().ok()
    }

    /// Hands a job on.
    pub fn put(&mut self, job: J) {
        // It cannot be handed on if the consumer has given up; the next `take` says so.
        if self.queue.send((self.next, job)).is_ok() {
            self.next += 1;
        }
    }
}

/// The consumer's end.
pub struct Ordered<J> {
    done: Receiver<Result<(u64, J), Box<dyn Any + Send>>>,
    free: Sender<J>,
    early: BTreeMap<u64, J>,
    next: u64,
}

impl<J> Ordered<J> {
    /// Waits for the next job in order. `None` at the end.
    pub fn take_next(&mut self) -> Option<J> {
        loop {
            if let Some(job) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(job);
            }
            let (place, job) = self.done.recv().ok()?.unwrap_or_else(|panic| resume_unwind(panic));
            self.early.insert(place, job);
        }
    }

    /// Gives a job back for the producer to fill again.
    pub fn recycle(&self, job: J) {
        // A producer that has finished needs no more.
        let _ = self.free.send(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 3] {
            let doubled = fan_out(threads, &items, |item| Ok::<_, ()>(item * 2)).unwrap();
            assert!(doubled.iter().zip(&items).all(|(double, item)| *double == item * 2));
            let failed = fan_out(threads, &items, |item| if *item == 500 { Err(*item) } else { Ok(()) });
            assert_eq!(failed, Err(500));
        }
    }

    fn run(threads: usize, fail_producer: bool, fail_consumer: bool) -> io::Result<Vec<u64>> {
        ordered(
            threads,
            vec![0_u64; 3],
            |feeder| {
                for number in 0..100 {
                    if fail_producer && number == 50 {
                        return Err(io::Error::other("producer"));
                    }
                    let Some(_) = feeder.take() else { return Ok(()) };
                    feeder.put(number);
                }
                Ok(())
            },
            |job| *job *= 2,
            |results| {
                let mut seen = Vec::new();
                while let Some(job) = results.take_next() {
                    seen.push(job);
                    results.recycle(job);
                    if fail_consumer && seen.len() == 10 {
                        return Err(io::Error::other("consumer"));
                    }
                }
                Ok(seen)
            },
        )
    }

    fn told(threads: usize, fail_producer: bool, fail_consumer: bool) -> Result<Vec<u64>, String> {
        run(threads, fail_producer, fail_consumer).map_err(|error| error.to_string())
    }

    #[test]
    fn a_panic_in_one_thread_reaches_the_caller() {
        let outcome = catch_unwind(|| {
            ordered(
                2,
                vec![(); 4],
                |feeder| {
                    while feeder.take().is_some() {
                        feeder.put(());
                    }
                    Ok::<_, io::Error>(())
                },
                |()| panic!("BUG: on purpose"),
                |results| {
                    while results.take_next().is_some() {
                        results.recycle(());
                    }
                    Ok(())
                },
            )
        });
        assert!(outcome.is_err());
    }

    #[test]
    fn a_stream_keeps_its_order_and_either_side_can_end_it() {
        for threads in [1, 2, 5] {
            assert_eq!(told(threads, false, false), Ok((0..100).map(|number| number * 2).collect()));
            assert_eq!(told(threads, true, false), Err("producer".to_owned()));
            assert_eq!(told(threads, false, true), Err("consumer".to_owned()));
        }
    }
}
