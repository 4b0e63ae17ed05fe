//! Signals as something to read: no handler runs in the middle of anything.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Blocks SIGTERM, SIGINT and SIGHUP for this thread and all that it starts later, and returns a
/// descriptor that becomes readable when one of them is sent (signalfd, in Linux since 2.6.22).
///
/// A signal that whoever started this process has it ignore stays ignored: `nohup hksvd run &` outlives
/// its telnet session. Once blocked such a signal would be delivered all the same (signal(7)).
///
/// # Errors
/// When the kernel refuses.
pub fn termination() -> io::Result<File> {
    // SAFETY: `set` is initialised by sigemptyset before it is read; the calls take pointers to it
    // that live as long as they run.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
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
