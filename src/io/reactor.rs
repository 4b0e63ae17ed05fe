//! What wakes tasks from outside: descriptors and timers, of the one thread.
//!
//! A reactor of our own because of what it does not do: no second thread that takes turns with this one
//! (two context switches and a dozen system calls for each picture), no system call to arm a timer, one
//! for the life of a descriptor, and no allocation for a wake-up.

use super::runtime::{Changed, Signal, now};
use crate::sys::epoll::{Direction, Epoll};
use crate::time::{Duration, Instant};
use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io::{ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Reactor {
    epoll: OnceCell<Epoll>,
    sources: RefCell<Slots<Rc<Source>>>,
    timers: RefCell<Slots<Timer>>,
}

struct Timer {
    when: Instant,
    /// Taken when it is due.
    waker: Option<Waker>,
}

thread_local! {
    static REACTOR: Reactor = Reactor::default();
}

/// Things with numbers that stay; numbers of what has gone are given anew.
struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots(Vec::new())
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, value: T) -> usize {
        match self.0.iter().position(Option::is_none) {
            Some(free) => {
                self.0[free] = Some(value);
                free
            }
            None => {
                self.0.push(Some(value));
                self.0.len() - 1
            }
        }
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.0.get_mut(number)?.as_mut()
    }

    fn remove(&mut self, number: usize) -> Option<T> {
        self.0.get_mut(number)?.take()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }
}

/// One descriptor: whether it may be ready, and who waits for it.
#[derive(Default)]
struct Source {
    read: Side,
    write: Side,
    /// The other side has gone, and said so for the last time.
    hung_up: Cell<bool>,
}

#[derive(Default)]
struct Side {
    /// Nothing has changed since the kernel had nothing more. Changes come to light only in [`turn`], so
    /// none can come between the two.
    drained: Cell<bool>,
    changed: Signal,
}

impl Side {
    fn wake(&self) {
        self.drained.set(false);
        self.changed.notify();
    }
}

/// A descriptor that is on the kernel's list, and comes off it when dropped.
pub(super) struct Registered<T: AsFd> {
    io: T,
    number: usize,
    source: Rc<Source>,
}

impl<T: AsFd> Registered<T> {
    /// # Errors
    /// When the kernel refuses to wait for this kind of descriptor.
    pub(super) fn new(io: T) -> Result<Self> {
        crate::sys::epoll::set_nonblocking(io.as_fd())?;
        let source = Rc::new(Source::default());
        REACTOR.with(|reactor| {
            if reactor.epoll.get().is_none() {
                let _ = reactor.epoll.set(Epoll::new()?);
            }
            let number = reactor.sources.borrow_mut().insert(source.clone());
            let added = reactor.epoll.get().map_or(Ok(()), |epoll| epoll.add(io.as_fd(), number));
            if let Err(error) = added {
                reactor.sources.borrow_mut().remove(number);
                return Err(error);
            }
            Ok(Registered { io, number, source })
        })
    }

    pub(super) fn get(&self) -> &T {
        &self.io
    }

    /// Does `op` until it is not `WouldBlock`; not at all as long as nothing has changed since the last one,
    /// also when that was somebody else's, whose future is long gone.
    pub(super) fn retry<R, F>(&self, direction: Direction, op: F) -> Retry<'_, T, F>
    where
        F: FnMut(&T) -> Result<R>,
    {
        let side = match direction {
            Direction::Read => &self.source.read,
            Direction::Write => &self.source.write,
        };
        Retry { io: &self.io, op, waiting: Waiting { side, changed: None } }
    }

    /// A read has taken all there was: the next one waits for a change, unless the last one was told.
    pub(super) fn set_drained(&self) {
        self.source.read.drained.set(!self.source.hung_up.get());
    }

    /// The next read asks the kernel.
    pub(super) fn look_again(&self) {
        self.source.read.drained.set(false);
    }

    /// Whether to be told when there is something to read. That the other side has gone is always told.
    pub(super) fn listen(&self, listen: bool) -> Result<()> {
        let modify = |epoll: &Epoll| epoll.modify(self.io.as_fd(), self.number, listen);
        REACTOR.with(|reactor| reactor.epoll.get().map_or(Ok(()), modify))
    }
}

impl<T: AsFd> Drop for Registered<T> {
    fn drop(&mut self) {
        // The reactor is gone first when the thread ends; the kernel then forgets all by itself.
        let _ = REACTOR.try_with(|reactor| {
            if let Some(epoll) = reactor.epoll.get() {
                epoll.remove(self.io.as_fd());
            }
            reactor.sources.borrow_mut().remove(self.number);
        });
    }
}

/// Waits as long as a side is drained. By hand and apart from [`Retry`], of which there is a copy for each `op`: as
/// little as possible is copied.
struct Waiting<'a> {
    side: &'a Side,
    changed: Option<Changed<'a>>,
}

impl Waiting<'_> {
    /// Whether it has to go on; the task is then woken.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        while self.side.drained.get() {
            let signal = &self.side.changed;
            let changed = self.changed.get_or_insert_with(|| signal.changed(signal.count()));
            if Pin::new(changed).poll(cx).is_pending() {
                return true;
            }
            self.changed = None;
        }
        self.changed = None;
        false
    }

    /// Whether `op` is to be done again, after that went wrong.
    fn is_again(&self, error: &std::io::Error) -> bool {
        let kind = error.kind();
        if kind == ErrorKind::WouldBlock {
            self.side.drained.set(true);
        }
        matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
    }
}

/// The future of [`Registered::retry`].
pub(super) struct Retry<'a, T, F> {
    io: &'a T,
    op: F,
    waiting: Waiting<'a>,
}

/// Nothing in it is ever pinned.
impl<T, F> Unpin for Retry<'_, T, F> {}

impl<T, R, F: FnMut(&T) -> Result<R>> Future for Retry<'_, T, F> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<R>> {
        let this = &mut *self;
        loop {
            if this.waiting.poll(cx) {
                return Poll::Pending;
            }
            match (this.op)(this.io) {
                Err(error) if this.waiting.is_again(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// The future of a moment.
#[must_use = "nothing waits before it is polled"]
pub struct Sleep {
    when: Option<Instant>,
    number: Option<usize>,
}

impl Sleep {
    pub(super) fn until(when: Option<Instant>) -> Self {
        Sleep { when, number: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(when) = self.when else { return Poll::Pending };
        if when <= now() {
            return Poll::Ready(());
        }
        REACTOR.with(|reactor| {
            let mut timers = reactor.timers.borrow_mut();
            match self.number.and_then(|number| timers.get_mut(number)) {
                Some(Timer { waker: Some(waker), .. }) => waker.clone_from(cx.waker()),
                Some(timer) => timer.waker = Some(cx.waker().clone()),
                None => {
                    self.number = Some(timers.insert(Timer { when, waker: Some(cx.waker().clone()) }));
                }
            }
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // As in the drop of a descriptor.
            let _ = REACTOR.try_with(|reactor| reactor.timers.borrow_mut().remove(number));
        }
    }
}

/// Looks what has happened and wakes whoever waits for it; unless `at_once`, not before something has.
pub(super) fn turn(at_once: bool) {
    REACTOR.with(|reactor| {
        let timeout = if at_once { Some(Duration::ZERO) } else { until_next(reactor) };
        match reactor.epoll.get() {
            Some(epoll) => epoll.wait(timeout, |event| {
                let source = reactor.sources.borrow_mut().get_mut(event.number).cloned();
                let Some(source) = source else { return };
                if event.hung_up {
                    source.hung_up.set(true);
                }
                if event.read {
                    source.read.wake();
                }
                if event.write {
                    source.write.wake();
                }
            }),
            None => std::thread::park_timeout(timeout.unwrap_or(Duration::MAX)),
        }
        let now = now();
        // One at a time: waking may run code that waits again.
        while let Some(waker) = take_due(reactor, now) {
            waker.wake();
        }
    });
}

fn take_due(reactor: &Reactor, now: Instant) -> Option<Waker> {
    let mut timers = reactor.timers.borrow_mut();
    timers.iter_mut().filter(|timer| timer.when <= now).find_map(|timer| timer.waker.take())
}

fn until_next(reactor: &Reactor) -> Option<Duration> {
    let mut timers = reactor.timers.borrow_mut();
    let next = timers.iter_mut().filter(|timer| timer.waker.is_some()).map(|timer| timer.when).min()?;
    Some(next - now())
}

/// Whether the descriptor can be read now.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    crate::sys::epoll::is_ready(fd, Direction::Read)
}
