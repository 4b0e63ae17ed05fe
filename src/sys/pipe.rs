//! The other end of a pipe.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether a write of a line would go through now. It would not when the reader of a pipe or socket has
/// gone (it fails), nor when the reader or a terminal has stopped taking anything (it waits).
pub fn has_room(writer: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: writer.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one pollfd, as the count says, and the call does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & libc::POLLOUT != 0 && poll.revents & (libc::POLLERR | libc::POLLNVAL) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_without_a_reader_is_noticed() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        assert!(has_room(writer.as_fd()));
        drop(reader);
        assert!(!has_room(writer.as_fd()));
        let file = std::fs::File::options().write(true).open("/dev/null").expect("there");
        assert!(has_room(file.as_fd()));
    }

    #[test]
    fn a_full_pipe_is_noticed() {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        let mut written = 0;
        while has_room(writer.as_fd()) {
            written += writer.write(&[0; 1024]).expect("does not wait");
            assert!(written < 16 << 20, "it never fills");
        }
        reader.read_exact(&mut vec![0; written]).expect("all of it");
        assert!(has_room(writer.as_fd()));
    }
}
