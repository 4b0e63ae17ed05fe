//! The executor, and the facade over the reactor.
//!
//! One thread, one [`Executor`]. Timers, descriptors and [`Signal`]s are all that a task may wait
//! for; a future may be dropped at every await point, so what must survive lives in the core types.
//!
//! An executor of our own because of what it does not do: no copy of its code for each kind of task (130 kB with
//! async-executor), no queue that takes from the heap, and no locks against other threads, which wake nobody here.

pub use super::reactor::Sleep;
use super::reactor::{self, Registered};
use crate::sys::epoll::Direction;
use crate::time::Instant;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

pub use futures_lite::future::or;
/// Lets the other tasks run: whoever always finds something to read or to accept must not starve them.
pub use futures_lite::future::yield_now;

/// The moment it is now, on the monotonic clock, counted from the first call in this process.
pub fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    Instant::from_micros(START.get_or_init(std::time::Instant::now).elapsed().as_micros() as u64)
}

/// The wall clock: seconds and nanoseconds since 1970, as far as this camera knows. For peers that want to be
/// told; nothing here depends on it.
pub fn unix_time() -> (u64, u32) {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

/// Waits until `when`; at once when that is past.
pub fn sleep_until(when: Instant) -> Sleep {
    sleep_until_some(Some(when))
}

/// Waits until `when`, for ever when there is none.
pub fn sleep_until_some(when: Option<Instant>) -> Sleep {
    Sleep::until(when)
}

/// A descriptor that can be waited for, on the thread that registered it. The wrapped value is in
/// non-blocking mode.
pub struct Fd<T: AsFd>(Registered<T>);

impl<T: AsFd> Fd<T> {
    /// Registers `io` and sets it non-blocking.
    ///
    /// # Errors
    /// When the kernel refuses to poll this kind of descriptor (regular files, for one).
    pub fn new(io: T) -> std::io::Result<Self> {
        Registered::new(io).map(Fd)
    }

    /// The wrapped value.
    pub fn get(&self) -> &T {
        self.0.get()
    }

    /// Does `op` when the descriptor is readable, again after each `WouldBlock`, which none but the kernel
    /// may say: nobody reads until it tells of a change.
    pub fn when_readable<R>(
        &self,
        op: impl FnMut(&T) -> std::io::Result<R>,
    ) -> impl Future<Output = std::io::Result<R>> {
        self.0.retry(Direction::Read, op)
    }

    /// Does `op` when the descriptor is writable, again after each `WouldBlock`.
    pub fn when_writable<R>(
        &self,
        op: impl FnMut(&T) -> std::io::Result<R>,
    ) -> impl Future<Output = std::io::Result<R>> {
        self.0.retry(Direction::Write, op)
    }

    /// Waits until something can be read, reading nothing.
    pub fn readable(&self) -> impl Future<Output = std::io::Result<()>> {
        self.when_readable(|io: &T| {
            if reactor::is_readable(io.as_fd()) { Ok(()) } else { Err(std::io::ErrorKind::WouldBlock.into()) }
        })
    }
}

impl<T: AsFd> Fd<T>
where
    for<'a> &'a T: std::io::Read + std::io::Write,
{
    /// Reads what is there into `buf`; 0 is the end of the stream.
    pub fn read(&self, buf: &mut [u8]) -> impl Future<Output = std::io::Result<usize>> {
        self.when_readable(|mut io| std::io::Read::read(&mut io, buf))
    }

    /// [`Fd::read`] of a pipe: without the second read that does nothing but find it empty.
    ///
    /// A pipe gives all it has, or as much as is asked for, under one lock; so after less than that it was
    /// empty. Whatever is written later is a change that is told: each write wakes those who wait up to
    /// Linux 5.4 and from 5.14 on, each write into an empty pipe in between. The end is told once, though,
    /// maybe together with the last bytes; after that every read asks.
    pub async fn read_pipe(&self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.read(buf).await?;
        if read < buf.len() {
            self.0.set_drained();
        }
        Ok(read)
    }

    /// The next read asks the kernel, told or not.
    pub fn look_again(&self) {
        self.0.look_again();
    }

    /// Whether to wake this thread when there is something to read; if not, who reads has to
    /// [look](Fd::look_again) by himself. That the other side has gone is always told.
    ///
    /// # Errors
    /// None that is known of a registered descriptor.
    pub fn listen(&self, listen: bool) -> std::io::Result<()> {
        self.0.listen(listen)
    }

    /// Writes some of `buf` and says how much.
    pub fn write(&self, buf: &[u8]) -> impl Future<Output = std::io::Result<usize>> {
        self.when_writable(|mut io| std::io::Write::write(&mut io, buf))
    }
}

/// "Look again": a counter and the tasks that wait for it to move. Carries no data, because the data
/// is in the shared state; several notifications before a look are one.
#[derive(Default)]
pub struct Signal {
    count: Cell<u32>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// The count to hand to [`Signal::changed`]: taken *before* looking at the state.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// Wakes everybody who waits.
    pub fn notify(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        // Wakers are taken out one at a time: waking may run code that waits again.
        while let Some(waker) = self.take_one() {
            waker.wake();
        }
    }

    fn take_one(&self) -> Option<Waker> {
        self.waiting.borrow_mut().pop()
    }

    /// Waits until the count is no longer `seen`.
    pub fn changed(&self, seen: u32) -> Changed<'_> {
        Changed { signal: self, seen, waker: None }
    }
}

/// The future of [`Signal::changed`].
pub struct Changed<'a> {
    signal: &'a Signal,
    seen: u32,
    waker: Option<Waker>,
}

impl Changed<'_> {
    fn forget(&mut self) {
        if let Some(waker) = self.waker.take() {
            let mut waiting = self.signal.waiting.borrow_mut();
            if let Some(at) = waiting.iter().position(|w| w.will_wake(&waker)) {
                waiting.swap_remove(at);
            }
        }
    }
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if self.signal.count.get() != self.seen {
            return Poll::Ready(());
        }
        self.signal.waiting.borrow_mut().push(cx.waker().clone());
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    /// Who stops waiting leaves nothing behind: connections come and go, the signal stays.
    fn drop(&mut self) {
        self.forget();
    }
}

/// The one executor of the one thread.
#[derive(Clone, Default)]
pub struct Executor(Rc<Tasks>);

/// A task without its place and its type: one type, so that what runs it is there once.
type Boxed = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct Tasks {
    places: RefCell<Vec<Option<Task>>>,
    /// Whose turn it is, so that all get theirs.
    next: Cell<usize>,
}

struct Task {
    called: Arc<Called>,
    /// Away while it runs.
    future: Option<Boxed>,
}

impl Tasks {
    fn add(&self, future: Boxed) {
        let task = Some(Task { called: Arc::default(), future: Some(future) });
        let mut places = self.places.borrow_mut();
        match places.iter().position(Option::is_none) {
            Some(free) => places[free] = task,
            None => places.push(task),
        }
    }

    /// The next task that was called, by its place.
    fn take_called(&self) -> Option<(usize, Arc<Called>, Boxed)> {
        let mut places = self.places.borrow_mut();
        let (before, from) = (0..self.next.get(), self.next.get()..places.len());
        let is_called = |place: &usize| places[*place].as_ref().is_some_and(|task| task.called.take());
        let place = from.chain(before).find(is_called)?;
        self.next.set(place + 1);
        let task = places[place].as_mut()?;
        Some((place, task.called.clone(), task.future.take()?))
    }

    /// Runs one task that was called, until it waits; `false`: there is none.
    fn run_one(&self) -> bool {
        let Some((place, called, mut future)) = self.take_called() else { return false };
        // Nothing is borrowed meanwhile: it may spawn others, and so may its drop.
        let is_done = future.as_mut().poll(&mut Context::from_waker(&called.into())).is_ready();
        let mut places = self.places.borrow_mut();
        if is_done {
            places[place] = None;
            drop(places);
            drop(future);
        } else if let Some(task) = &mut places[place] {
            task.future = Some(future);
        }
        true
    }
}

impl Executor {
    /// Starts a task that runs until it ends by itself.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.add(Box::pin(task));
    }

    /// Runs all tasks until `main` is done.
    pub fn block_on<R>(&self, main: impl Future<Output = R>) -> R {
        let mut main = pin!(main);
        let called = Arc::new(Called::default());
        let waker = Waker::from(called.clone());
        loop {
            if called.take()
                && let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return result;
            }
            let idle = (0..ROUND).any(|_| !self.0.run_one());
            reactor::turn(!idle || called.0.load(Ordering::Relaxed));
        }
    }
}

/// Tasks that may run between two looks at the descriptors: a task that is always ready must not keep
/// the others from hearing their peers.
const ROUND: usize = 32;

/// Whether a future was woken, and is to be polled. All wakers are called on the one thread; atomic is what [`Wake`]
/// wants.
struct Called(AtomicBool);

impl Default for Called {
    /// Who is new is called.
    fn default() -> Self {
        Called(AtomicBool::new(true))
    }
}

impl Called {
    fn take(&self) -> bool {
        let called = self.0.load(Ordering::Relaxed);
        self.0.store(false, Ordering::Relaxed);
        called
    }
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn a_timer_fires() {
        let start = now();
        Executor::default().block_on(sleep_until(start + Duration::from_millis(5)));
        assert!(now() - start >= Duration::from_millis(5));
    }

    /// Lets the executor look at its descriptors.
    async fn a_moment() {
        sleep_until(now() + Duration::from_millis(2)).await;
    }

    fn pipe() -> (Fd<std::fs::File>, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Fd::new(std::fs::File::from(std::os::fd::OwnedFd::from(reader))).unwrap(), writer)
    }

    #[test]
    fn nobody_asks_again_before_something_has_changed() {
        use std::io::{Read, Write};
        let (reader, mut writer) = pipe();
        let asked = Cell::new(0);
        let ask = async || {
            let read = reader.when_readable(|mut io| {
                asked.set(asked.get() + 1);
                io.read(&mut [0; 4])
            });
            or(async { read.await.unwrap() }, async {
                a_moment().await;
                0
            })
            .await
        };
        Executor::default().block_on(async {
            assert_eq!((ask().await, ask().await, ask().await), (0, 0, 0));
            assert_eq!(asked.get(), 1);
            writer.write_all(b"1").unwrap();
            assert_eq!((ask().await, asked.get()), (1, 2));
        });
    }

    #[test]
    fn what_is_written_into_a_pipe_after_a_short_read_is_told() {
        use std::io::Write;
        let (reader, mut writer) = pipe();
        let mut buffer = [0; 4];
        Executor::default().block_on(async {
            writer.write_all(b"123456").unwrap();
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 4);
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 2);
            for moments in [0, 1, 2] {
                writer.write_all(b"78").unwrap();
                for _ in 0..moments {
                    a_moment().await;
                }
                assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 2, "{moments}");
            }
            // More than one write while nobody looks, one of them after the kernel has told of the first.
            writer.write_all(b"9").unwrap();
            a_moment().await;
            writer.write_all(b"0").unwrap();
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 2);
            assert!(is_silent(&reader).await);
            writer.write_all(b"1").unwrap();
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 1);
        });
    }

    #[test]
    fn the_end_of_a_pipe_is_seen_behind_the_last_bytes_and_alone() {
        use std::io::Write;
        for told_together in [true, false] {
            let (reader, mut writer) = pipe();
            let mut buffer = [0; 4];
            Executor::default().block_on(async {
                assert!(is_silent(&reader).await);
                writer.write_all(b"12").unwrap();
                if told_together {
                    drop(writer);
                    a_moment().await;
                    assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 2);
                } else {
                    assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 2);
                    assert!(is_silent(&reader).await);
                    drop(writer);
                }
                assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 0);
            });
        }
    }

    #[test]
    fn who_does_not_listen_has_to_look_but_hears_the_end() {
        use std::io::Write;
        let (reader, mut writer) = pipe();
        let mut buffer = [0; 4];
        Executor::default().block_on(async {
            reader.listen(false).unwrap();
            assert!(is_silent(&reader).await);
            writer.write_all(b"1").unwrap();
            assert!(is_silent(&reader).await);
            reader.look_again();
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 1);
            writer.write_all(b"2").unwrap();
            reader.listen(true).unwrap();
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 1, "what is there already is told");
            reader.listen(false).unwrap();
            writer.write_all(b"34").unwrap();
            assert!(is_silent(&reader).await);
            drop(writer);
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 2);
            assert_eq!(reader.read_pipe(&mut buffer).await.unwrap(), 0);
        });
    }

    /// Whether a read of the pipe gives nothing for a while.
    async fn is_silent(reader: &Fd<std::fs::File>) -> bool {
        let read = async {
            let _ = reader.read_pipe(&mut [0; 4]).await;
            false
        };
        or(read, async {
            sleep_until(now() + Duration::from_millis(10)).await;
            true
        })
        .await
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_behind() {
        let signal = Signal::default();
        for _ in 0..100 {
            let waited = or(
                async {
                    signal.changed(signal.count()).await;
                    true
                },
                async { false },
            );
            assert!(!Executor::default().block_on(waited));
        }
        assert!(signal.waiting.borrow().is_empty());
    }

    #[test]
    fn a_signal_wakes_every_waiter_once() {
        let signal = Rc::new(Signal::default());
        let woken = Rc::new(Cell::new(0));
        let executor = Executor::default();
        for _ in 0..3 {
            let (signal, woken, seen) = (signal.clone(), woken.clone(), signal.count());
            executor.spawn(async move {
                signal.changed(seen).await;
                woken.set(woken.get() + 1);
            });
        }
        executor.block_on(async {
            yield_now().await;
            yield_now().await;
            signal.notify();
            while woken.get() < 3 {
                yield_now().await;
            }
        });
        assert_eq!(woken.get(), 3);
    }

    #[test]
    fn tasks_take_turns_and_leave_their_place_to_others() {
        let executor = Executor::default();
        let order = Rc::new(RefCell::new(Vec::new()));
        for who in 0..3 {
            let order = order.clone();
            executor.spawn(async move {
                for _ in 0..2 {
                    order.borrow_mut().push(who);
                    yield_now().await;
                }
            });
        }
        executor.block_on(async {
            while Rc::strong_count(&order) > 1 {
                yield_now().await;
            }
        });
        assert_eq!(*order.borrow(), [0, 1, 2, 0, 1, 2]);
        executor.spawn(async {});
        assert_eq!(executor.0.places.borrow().len(), 3);
    }

    /// Its drop starts another task.
    struct Heir(Executor, Rc<Cell<u32>>);

    impl Drop for Heir {
        fn drop(&mut self) {
            let count = self.1.clone();
            self.0.spawn(async move { count.set(count.get() + 1) });
        }
    }

    #[test]
    fn a_task_and_its_drop_may_start_others() {
        let executor = Executor::default();
        let count = Rc::new(Cell::new(0));
        let heir = Heir(executor.clone(), count.clone());
        let (inner, counted) = (executor.clone(), count.clone());
        executor.spawn(async move {
            let _heir = heir;
            inner.spawn(async move { counted.set(counted.get() + 10) });
            yield_now().await;
        });
        executor.block_on(async {
            while count.get() < 11 {
                yield_now().await;
            }
        });
    }

    #[test]
    fn who_is_woken_after_the_end_is_nobody() {
        let (executor, signal) = (Executor::default(), Rc::new(Signal::default()));
        let kept = Rc::new(RefCell::new(None));
        let (keep, waited) = (kept.clone(), signal.clone());
        executor.spawn(async move {
            std::future::poll_fn(|cx| {
                *keep.borrow_mut() = Some(cx.waker().clone());
                Poll::Ready(())
            })
            .await;
            waited.notify();
        });
        executor.block_on(async { signal.changed(0).await });
        kept.take().expect("a waker").wake();
        assert!(!executor.0.run_one());
    }
}
