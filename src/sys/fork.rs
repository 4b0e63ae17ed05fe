//! A second process of the same program, tied to the life of the first.

use std::io;

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was there before.
    Parent(Child),
    /// The new one. The error says why it would outlive its parent.
    Child(io::Result<()>),
}

/// A child process of this one that nobody else waits for.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(u8),
    /// By a signal with this number.
    Killed(i32),
}

/// Divides this process in two. The child stays in the process group and is killed when the parent
/// ends, however that ends.
///
/// To be called before there are other threads: they would be missing in the child, with whatever they
/// had locked at that moment. (Counting them by `/proc` would count those of an emulator, too.)
///
/// # Errors
/// When this is another thread than the first, and as `fork(2)`.
pub fn fork() -> io::Result<Side> {
    // SAFETY: both take and change nothing.
    if unsafe { libc::syscall(libc::SYS_gettid) != libc::c_long::from(libc::getpid()) } {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "there are other threads already"));
    }
    // SAFETY: takes and changes nothing.
    let parent = unsafe { libc::getpid() };
    // SAFETY: there is one thread, as the caller has promised, so the child is a whole copy of this
    // process and may do all that this one may. With others it could wait for ever for a lock; memory
    // would be sound all the same, the C libraries see to that of the heap.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child(end_with(parent))),
        pid => Ok(Side::Parent(Child { pid })),
    }
}

/// Lets the kernel kill this process when its parent ends (`PR_SET_PDEATHSIG`, since Linux 2.1.57). It
/// lasts over an exec.
fn end_with(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: this option takes a signal's number and no pointer.
    let set = match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: takes and changes nothing.
    if unsafe { libc::getppid() } != parent {
        // It ended before we asked, and the signal will never come.
        std::process::exit(1);
    }
    set
}

impl Child {
    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no pointer. The process has not been waited for, so the number is still its own;
        // this cannot fail for a child of ours, and a zombie does not mind.
        let _ = unsafe { libc::kill(self.pid, signal) };
    }

    /// Its end, without waiting; `None` as long as it lives. Once it has been told, the number may belong
    /// to another process.
    ///
    /// # Errors
    /// When the kernel does not know this child.
    pub fn ended(&self) -> io::Result<Option<End>> {
        let mut status = 0;
        // SAFETY: the pointer is to a live integer, which the call writes.
        match unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } {
            -1 => Err(io::Error::last_os_error()),
            pid if pid != self.pid => Ok(None),
            _ if libc::WIFEXITED(status) => Ok(Some(End::Exited(libc::WEXITSTATUS(status) as u8))),
            _ if libc::WIFSIGNALED(status) => Ok(Some(End::Killed(libc::WTERMSIG(status)))),
            // Stopped or continued, though we have not asked for that.
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_does_not_divide_the_process() {
        let thread = std::thread::spawn(|| fork().map(drop).expect_err("not the first thread").kind());
        assert_eq!(thread.join().expect("no panic"), io::ErrorKind::ResourceBusy);
    }
}
