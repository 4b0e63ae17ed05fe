//! Commands for the shell, each in a process group of its own.
//!
//! `std::process::Command` would do, at four times the size, without the group's end in one signal and
//! with a wait that takes the number away before the group can be told to end.

use super::fork::End;
use std::cell::Cell;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// A process that was started here, and all that it has started without leaving its group.
#[derive(Debug)]
pub struct Group {
    leader: libc::pid_t,
    end: Cell<Option<End>>,
}

/// Starts `/bin/sh -c command` with these descriptors as its standard input and output; its standard
/// error is ours. It has the environment of this process, but for `variables` (`NAME=value`).
///
/// The new process has no signal blocked, and hears `SIGPIPE` as programs expect. The kernel kills it when
/// this one ends, however that ends.
///
/// # Errors
/// When there is no memory or no process left, or a text has a NUL byte in it. Whether there is a shell
/// turns out later: then it ends with code 127.
pub fn shell(
    command: &str,
    variables: &[(&str, &str)],
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> io::Result<Group> {
    let command = CString::new(command)?;
    let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), command.as_ptr(), core::ptr::null()];
    let mut texts = Vec::new();
    for (name, value) in variables {
        texts.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
    }
    for (mut text, value) in std::env::vars_os() {
        // Of two with the same name shells take the last: with a hook that has started this process anew that
        // would be what was so then.
        if variables.iter().any(|(name, _)| text == *name) {
            continue;
        }
        text.push("=");
        text.push(value);
        texts.push(CString::new(text.into_vec())?);
    }
    let environment = pointers(&texts);
    let (input, output) = (input.as_raw_fd(), output.as_raw_fd());
    // So that its end is kept for whoever asks: whoever started this process may have it ignore that.
    // SAFETY: the default action is no function of ours. `getpid` takes and changes nothing.
    let parent = unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::getpid()
    };
    // SAFETY: there may be other threads, so the child must make no call but those that signal-safety(7)
    // lists, and take no memory: that is what `become_shell` does, out of what was laid out above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => become_shell(parent, &arguments, &environment, input, output),
        leader => {
            // The child does the same: whoever comes first. The error is that it has been done.
            // SAFETY: takes no pointer.
            unsafe { libc::setpgid(leader, leader) };
            Ok(Group { leader, end: Cell::new(None) })
        }
    }
}

/// The child's part, between fork and exec.
fn become_shell(
    parent: libc::pid_t,
    arguments: &[*const libc::c_char; 4],
    environment: &[*const libc::c_char],
    input: libc::c_int,
    output: libc::c_int,
) -> ! {
    // SAFETY: all of these are async-signal-safe (prctl and setpgid are plain system calls). Both arrays
    // end with a null pointer and hold pointers to texts that end with NUL, alive in this copy of the memory.
    // The descriptors are open; Rust's start has seen to it that none of them is 0, 1 or 2.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        if libc::getppid() == parent && libc::dup2(input, 0) == 0 && libc::dup2(output, 1) == 1 {
            hear_signals();
            libc::execve(c"/bin/sh".as_ptr(), arguments.as_ptr(), environment.as_ptr());
        }
        libc::_exit(127)
    }
}

/// Replaces this process by another program with these arguments, behind the name.
///
/// Returns why that did not happen.
pub fn replace(program: &Path, arguments: &[OsString]) -> io::Error {
    let text = |bytes: &[u8]| CString::new(bytes);
    let texts: Result<Vec<_>, _> = core::iter::once(text(program.as_os_str().as_bytes()))
        .chain(arguments.iter().map(|argument| text(argument.as_bytes())))
        .collect();
    let Ok(texts) = texts else { return io::ErrorKind::InvalidInput.into() };
    let Some(name) = texts.first() else { return io::ErrorKind::InvalidInput.into() };
    let name: &CStr = name;
    hear_signals();
    // SAFETY: the array ends with a null pointer and holds pointers to texts that end with NUL; they live
    // until the call returns, which it does when it has failed only.
    unsafe { libc::execv(name.as_ptr(), pointers(&texts).as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain(core::iter::once(core::ptr::null())).collect()
}

/// Blocks no signal and ignores no closed pipe: both would outlast an exec.
fn hear_signals() {
    // SAFETY: `none` is initialised by sigemptyset before it is read; the default action is no function of
    // ours. All three are async-signal-safe.
    unsafe {
        let mut none: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, core::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

impl Group {
    /// Kills every process of the group that there still is. Nothing once [`Group::reap`] has told the end:
    /// the number may belong to somebody else then.
    pub fn kill(&self) {
        if self.end.get().is_none() {
            // SAFETY: takes no pointer. The leader has not been waited for, so the number is still its own.
            unsafe { libc::kill(-self.leader, libc::SIGKILL) };
        }
    }

    /// Whether its first process has ended. It stays a zombie, and its number taken, until [`Group::reap`].
    pub fn has_ended(&self) -> bool {
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: all bytes zero is a valid `siginfo_t`, and the call writes nothing but that one.
        // `si_pid` reads what the call has written for a child, or the zeros.
        self.end.get().is_some()
            || unsafe {
                let mut about: libc::siginfo_t = core::mem::zeroed();
                libc::waitid(libc::P_PID, self.leader as libc::id_t, &raw mut about, options) != 0
                    || about.si_pid() != 0
            }
    }

    /// How its first process has ended, without waiting; `None` as long as it lives.
    pub fn reap(&self) -> Option<End> {
        if self.end.get().is_none() {
            let mut status = 0;
            // SAFETY: the pointer is to a live integer, which the call writes.
            let pid = unsafe { libc::waitpid(self.leader, &raw mut status, libc::WNOHANG) };
            self.end.set(match pid {
                0 => None,
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => None,
                // Not our child any more: nobody can tell.
                -1 => Some(End::Exited(127)),
                _ if libc::WIFEXITED(status) => Some(End::Exited(libc::WEXITSTATUS(status) as u8)),
                _ if libc::WIFSIGNALED(status) => Some(End::Killed(libc::WTERMSIG(status))),
                _ => None,
            });
        }
        self.end.get()
    }
}
