//! The Unix socket's place in the file system.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A listening socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: another daemon may have put its own in this place since.
    own: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.own) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, for the owner alone (mode 0600). A socket that nobody listens on is replaced.
///
/// # Errors
/// `AddrInUse` when a daemon answers there, `AlreadyExists` when something else is in the way.
pub fn listen(path: &Path) -> Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(Error::new(ErrorKind::AlreadyExists, "something else than a socket is in the way"));
        }
        // A full backlog answers WouldBlock: that daemon lives, too.
        Ok(_) if !matches!(probe(path), Err(error) if error.kind() == ErrorKind::ConnectionRefused) => {
            return Err(Error::new(ErrorKind::AddrInUse, "another hksvd answers here; stop it first"));
        }
        _ => {}
    }
    // Bound beside its place and moved there: nobody finds it with the wrong mode, or not at all.
    let mut beside = path.as_os_str().to_os_string();
    beside.push("~");
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let own = std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&beside, path))
        .and_then(|()| std::fs::metadata(path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        })?;
    Ok((listener, SocketFile { path: path.into(), own: (own.dev(), own.ino()) }))
}

/// Connects and hangs up: whether somebody listens at `path`.
///
/// # Errors
/// `NotFound` and `ConnectionRefused` say that nobody does.
pub fn probe(path: &Path) -> Result<()> {
    UnixStream::connect(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("hksvd-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let path = place("stale");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists() && probe(&path).is_err());
        let (_listener, file) = listen(&path).expect("replaced");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(probe(&path).is_ok());
        assert_eq!(listen(&path).expect_err("live").kind(), ErrorKind::AddrInUse);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let path = place("other");
        std::fs::write(&path, b"precious").expect("written");
        assert_eq!(listen(&path).expect_err("a file").kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("there"), b"precious");
        std::fs::remove_file(&path).expect("removed");
        let (_first, file) = listen(&path).expect("free");
        std::fs::remove_file(&path).expect("removed");
        let second = UnixListener::bind(&path).expect("bound");
        drop(file);
        assert!(path.exists());
        drop(second);
        std::fs::remove_file(&path).expect("removed");
    }
}
