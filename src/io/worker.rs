//! The one worker thread: fsync and 3072-bit exponentiations, the two things that take long.
//!
//! It owns no state: a job brings its operands and its result comes back through
//! [`Worker::finished`]. The answer to a controller waits for it, media never does.

use super::runtime::Fd;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Work that would block the media: takes its operands along and returns its result.
pub type Job<R> = Box<dyn FnOnce() -> R + Send>;

struct Queues<R> {
    jobs: Mutex<VecDeque<Job<R>>>,
    more: Condvar,
    results: Mutex<VecDeque<R>>,
}

/// The submitting side, used by the one thread that owns all state.
pub struct Worker<R> {
    queues: Arc<Queues<R>>,
    wake: Fd<UnixStream>,
}

/// Nothing that holds these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exponentiation on 3072-bit numbers keeps its tables on the stack.
const STACK_BYTES: usize = 256 * 1024;

impl<R: Send + 'static> Worker<R> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel refuses a thread or a socket pair.
    pub fn start() -> std::io::Result<Self> {
        let (wake, mut bell) = UnixStream::pair()?;
        let queues = Arc::new(Queues { jobs: Mutex::default(), more: Condvar::new(), results: Mutex::default() });
        let theirs = queues.clone();
        std::thread::Builder::new().name("worker".into()).stack_size(STACK_BYTES).spawn(move || {
            loop {
                let mut jobs = lock(&theirs.jobs);
                let job = loop {
                    match jobs.pop_front() {
                        Some(job) => break job,
                        None => jobs = theirs.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
                    }
                };
                drop(jobs);
                let result = job();
                lock(&theirs.results).push_back(result);
                // The other end is gone only when the process ends.
                if bell.write_all(&[0]).is_err() {
                    return;
                }
            }
        })?;
        Ok(Worker { queues, wake: Fd::new(wake)? })
    }

    /// Queues a job; jobs run one after another in this order.
    pub fn submit(&self, job: Job<R>) {
        lock(&self.queues.jobs).push_back(job);
        self.queues.more.notify_one();
    }

    /// The next result, when there is one.
    pub async fn finished(&self) -> R {
        loop {
            if let Some(result) = self.take() {
                return result;
            }
            let mut rings = [0; 16];
            // An error here would mean that our own socket pair broke; looking again is all there is.
            let _ = self.wake.when_readable(|mut s| s.read(&mut rings)).await;
        }
    }

    fn take(&self) -> Option<R> {
        lock(&self.queues.results).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::Executor;

    #[test]
    fn results_come_back_in_order() {
        let worker = Worker::start().unwrap();
        for n in 0..3 {
            worker.submit(Box::new(move || n * n));
        }
        let squares = Executor::default()
            .block_on(async { [worker.finished().await, worker.finished().await, worker.finished().await] });
        assert_eq!(squares, [0, 1, 4]);
    }
}
