//! A lock that ends with the process, however that ends.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// Takes the file's exclusive lock (`flock(2)`) without waiting. It lasts until the file is closed.
///
/// # Errors
/// `WouldBlock` when somebody else holds it.
pub fn exclusive(file: &File) -> Result<()> {
    // SAFETY: flock takes no pointer, and the descriptor stays open for the call because `file` is borrowed.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let path = std::env::temp_dir().join(format!("hksvd-lock-{}", std::process::id()));
        let first = File::create(&path).expect("file");
        let second = File::open(&path).expect("file");
        exclusive(&first).expect("free");
        assert_eq!(exclusive(&second).map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
        drop(first);
        exclusive(&second).expect("free again");
        std::fs::remove_file(&path).expect("clean");
    }
}
