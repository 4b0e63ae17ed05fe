//! The other end of a pipe.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether a write would fail because nobody is left to read: the reader of a pipe or socket has gone,
/// or the descriptor is closed. Files and terminals always have a reader.
pub fn reader_gone(writer: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: writer.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: the pointer is to one pollfd, as the count says, and the call does not wait.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLERR | libc::POLLNVAL) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_without_a_reader_is_noticed() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        assert!(!reader_gone(writer.as_fd()));
        drop(reader);
        assert!(reader_gone(writer.as_fd()));
        let file = std::fs::File::open("/dev/null").expect("there");
        assert!(!reader_gone(file.as_fd()));
    }
}
