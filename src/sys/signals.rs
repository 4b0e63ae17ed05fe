//! Signals as something to read: no handler runs in the middle of anything.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// What asks the program to end.
const TERMINATION: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks SIGTERM, SIGINT and SIGHUP for this thread and all that it starts later, and returns a
/// descriptor that becomes readable when one of them is sent (signalfd, in Linux since 2.6.22).
///
/// A signal that whoever started this process has it ignore stays ignored: `nohup hksvd run &` outlives
/// its telnet session. Once blocked such a signal would be delivered all the same (signal(7)).
///
/// # Errors
/// When the kernel refuses.
pub fn termination() -> io::Result<File> {
    open(&TERMINATION)
}

/// What the parent of another process reads: the signals of [`termination`], and the ends of its child.
pub struct Supervision(File);

/// What has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The child has ended, or been stopped or continued.
    Child,
    /// SIGTERM, SIGINT or SIGHUP, by its number.
    Terminate(i32),
}

impl Supervision {
    /// Blocks these signals. Whoever started this process may have it ignore its children: then the
    /// kernel would not keep how they end, so that is undone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start() -> io::Result<Self> {
        // SAFETY: the default action is no function of ours.
        if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let [term, int, hup] = TERMINATION;
        open(&[term, int, hup, libc::SIGCHLD]).map(Supervision)
    }

    /// Waits for the next signal, at most so long; `None` when none has come, and now and then before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wait(&self, at_most: Option<Duration>) -> io::Result<Option<Notice>> {
        // Rounded up: a wait that ends too early would be followed by another of no length.
        let at_most = at_most.map_or(-1, |limit| (limit.as_micros() as u64).div_ceil(1_000).min(60_000) as libc::c_int);
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one pollfd, as the count says.
        if unsafe { libc::poll(&raw mut poll, 1, at_most) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
        }
        // A `signalfd_siginfo` begins with the number.
        let mut siginfo = [0; 128];
        match (&self.0).read(&mut siginfo) {
            Ok(_) => {
                let [a, b, c, d, ..] = siginfo;
                Ok(Some(match i32::from_ne_bytes([a, b, c, d]) {
                    libc::SIGCHLD => Notice::Child,
                    signal => Notice::Terminate(signal),
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The child's part: it hears of its own children again, as a program expects. The signals of
    /// [`termination`] stay blocked: whichever came already waits for whoever reads them.
    pub fn leave(self) {
        // SAFETY: `set` is initialised by sigemptyset before it is read; unblocking a signal whose action
        // is the default one, to ignore it, has no other effect.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        }
    }
}

fn open(signals: &[libc::c_int]) -> io::Result<File> {
    // SAFETY: `set` is initialised by sigemptyset before it is read; the calls take pointers to it
    // that live as long as they run.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            if !is_ignored(signal) {
                libc::sigaddset(&raw mut set, signal);
            }
        }
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all bytes zero is a valid `sigaction`; the call only writes to it, and changes nothing
    // because there is no new action.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// The name of a signal that ends programs; their numbers differ between processors.
pub fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        _ => return None,
    })
}
