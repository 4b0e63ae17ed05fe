//! Waiting for many descriptors at once (epoll, in Linux since 2.6.9).

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Something can be read, or the other side is gone.
    Read,
    /// Something can be written, or would fail at once.
    Write,
}

/// The kernel's list of descriptors.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// Something has happened to the descriptor with this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// The number it was added with.
    pub number: usize,
    /// A read will not block.
    pub read: bool,
    /// A write will not block.
    pub write: bool,
    /// The other side has gone.
    pub hung_up: bool,
}

/// Events taken at a time; the rest comes with the next call.
const EVENTS: usize = 32;

/// Changes of every kind, once each.
const EVERYTHING: libc::c_int = libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

impl Epoll {
    /// An empty list.
    ///
    /// # Errors
    /// When the process has too many descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor that comes back belongs to nobody else.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Tells of every *change* to readable and to writable under `number`, and of what is so already
    /// (EPOLLET): one call for the life of a descriptor, instead of one for each wait.
    ///
    /// # Errors
    /// When this kind of descriptor cannot be waited for (regular files).
    pub fn add(&self, fd: BorrowedFd<'_>, number: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, number, EVERYTHING)
    }

    /// Tells of urgent data and of errors alone, for as long as there are: a value of sysfs can always be read,
    /// and has urgent data when it has changed since it was read last (Documentation/filesystems/sysfs.txt).
    ///
    /// # Errors
    /// As [`Epoll::add`].
    pub fn add_urgent(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, 0, libc::EPOLLPRI | libc::EPOLLERR)
    }

    /// Whether to tell all of this number from now on, with what is so already, or errors and hang-ups
    /// alone, which cannot be left out.
    ///
    /// # Errors
    /// When it was not added.
    pub fn modify(&self, fd: BorrowedFd<'_>, number: usize, everything: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, number, if everything { EVERYTHING } else { libc::EPOLLET })
    }

    fn control(&self, what: libc::c_int, fd: BorrowedFd<'_>, number: usize, events: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: number as u64 };
        // SAFETY: both descriptors are open as long as they are borrowed; `event` outlives the call.
        match unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd.as_raw_fd(), &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes a descriptor off the list.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // Kernels before 2.6.9 want an event here, later ones ignore it.
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: as in `add`. It can fail only for a descriptor that is not on the list.
        unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), &raw mut event) };
    }

    /// Waits for events until `timeout` (`None`: for ever) is over, rounded up to a millisecond, and
    /// hands them to `each`. A signal ends the wait early.
    pub fn wait(&self, timeout: Option<Duration>, mut each: impl FnMut(Event)) {
        let ms = timeout.map_or(-1, |t| (t.as_micros() as u64).div_ceil(1000).min(i32::MAX as u64) as libc::c_int);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: `events` has room for as many as are asked for and outlives the call.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as libc::c_int, ms) };
        for event in events.iter().take(usize::try_from(n).unwrap_or(0)) {
            let gone = event.events & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0;
            let has = |mask: libc::c_int| event.events & mask as u32 != 0;
            each(Event {
                number: event.u64 as usize,
                read: gone || has(libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP),
                write: gone || has(libc::EPOLLOUT),
                hung_up: gone,
            });
        }
    }
}

/// Readable while one of its descriptors has something to tell.
impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the descriptor is ready in this direction at this moment.
pub fn is_ready(fd: BorrowedFd<'_>, direction: Direction) -> bool {
    let events = match direction {
        Direction::Read => libc::POLLIN | libc::POLLPRI,
        Direction::Write => libc::POLLOUT,
    };
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: the pointer is to one pollfd, as the count says, and the call does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

/// Makes reads and writes of the open file fail with `WouldBlock` instead of waiting.
///
/// # Errors
/// When the kernel refuses.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is open as long as it is borrowed.
    let done = unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn now(epoll: &Epoll) -> Vec<Event> {
        let mut events = Vec::new();
        epoll.wait(Some(Duration::ZERO), |event| events.push(event));
        events
    }

    #[test]
    fn a_change_is_told_once_and_what_is_there_already_is_one() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let epoll = Epoll::new().unwrap();
        writer.write_all(b"x").unwrap();
        epoll.add(reader.as_fd(), 7).unwrap();
        assert_eq!(now(&epoll), [Event { number: 7, read: true, write: false, hung_up: false }]);
        assert_eq!(now(&epoll), []);
        assert!(is_ready(reader.as_fd(), Direction::Read));
        writer.write_all(b"y").unwrap();
        assert_eq!(now(&epoll).len(), 1);
        reader.read_exact(&mut [0; 2]).unwrap();
        assert!(!is_ready(reader.as_fd(), Direction::Read));
        drop(writer);
        // The end can be read, and errors come from both directions.
        assert_eq!(now(&epoll), [Event { number: 7, read: true, write: true, hung_up: true }]);
        epoll.remove(reader.as_fd());
        assert_eq!(now(&epoll), []);
    }

    #[test]
    fn what_can_always_be_read_is_not_urgent() {
        // As a value of sysfs: always readable, urgent after a change, which is a mount here.
        let mounts = std::fs::File::open("/proc/self/mounts").unwrap();
        assert!(is_ready(mounts.as_fd(), Direction::Read));
        let urgent = Epoll::new().unwrap();
        urgent.add_urgent(mounts.as_fd()).unwrap();
        assert_eq!(now(&urgent), []);
        let outer = Epoll::new().unwrap();
        outer.add(urgent.as_fd(), 7).unwrap();
        assert_eq!(now(&outer), [], "it would spin");
    }

    #[test]
    fn a_wait_ends_in_time() {
        let began = std::time::Instant::now();
        Epoll::new().unwrap().wait(Some(Duration::from_micros(2100)), |event| panic!("{event:?}"));
        assert!(began.elapsed() >= std::time::Duration::from_millis(3), "rounded up");
    }

    #[test]
    fn a_regular_file_cannot_be_waited_for() {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(Epoll::new().unwrap().add(file.as_fd(), 0).is_err());
    }

    #[test]
    fn a_read_that_would_wait_fails() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        set_nonblocking(reader.as_fd()).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(is_ready(writer.as_fd(), Direction::Write));
    }
}
