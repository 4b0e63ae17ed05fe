//! Connections to servers, on this machine mostly. The standard library's `connect` waits; a server that has stopped
//! accepting would hold everything then.

use std::fs::File;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Begins to connect to 127.0.0.1, as [`ipv4`].
///
/// # Errors
/// When nobody listens there, or no descriptor is free.
pub fn loopback(port: u16) -> io::Result<File> {
    ipv4(Ipv4Addr::LOCALHOST, port)
}

/// Begins to connect, without waiting. [`finished`] tells the rest.
///
/// # Errors
/// When there is no way to the address, nobody listens there, or no descriptor is free.
pub fn ipv4(to: Ipv4Addr, port: u16) -> io::Result<File> {
    // SAFETY: all bytes zero is a valid `sockaddr_in`.
    let mut address: libc::sockaddr_in = unsafe { mem::zeroed() };
    address.sin_family = libc::AF_INET as _;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from(to).to_be();
    connect(libc::AF_INET, &address)
}

/// Connects to a Unix socket, or not: without waiting.
///
/// # Errors
/// As [`loopback`]; `WouldBlock` when too many wait there already.
pub fn unix(path: &Path) -> io::Result<File> {
    // SAFETY: all bytes zero is a valid `sockaddr_un`.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = libc::AF_UNIX as _;
    let path = path.as_os_str().as_bytes();
    // The last byte stays 0.
    if path.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    connect(libc::AF_UNIX, &address)
}

fn connect<A>(family: libc::c_int, address: &A) -> io::Result<File> {
    // SAFETY: takes no pointers; the descriptor that comes back belongs to nobody else.
    let socket = unsafe {
        let fd = libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    let length = size_of::<A>() as libc::socklen_t;
    // SAFETY: `address` is a socket address of that length, and outlives the call.
    if unsafe { libc::connect(socket.as_raw_fd(), core::ptr::from_ref(address).cast(), length) } < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
    }
    Ok(socket)
}

/// Whether the connection has come about.
///
/// # Errors
/// `WouldBlock` as long as it has not; others when it will not.
pub fn finished(socket: BorrowedFd<'_>) -> io::Result<()> {
    if !super::epoll::is_ready(socket, super::epoll::Direction::Write) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to a live integer and its length.
    let result = unsafe {
        let value = (&raw mut error).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut length)
    };
    match (result, error) {
        (0, 0) => Ok(()),
        (0, error) => Err(io::Error::from_raw_os_error(error)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tells the server that the request ends here (TCP's FIN, or its like).
pub fn end_request(socket: BorrowedFd<'_>) {
    // SAFETY: takes no pointer. It fails when the other side has gone, which the next read tells.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    /// What a refusal is: qemu-user before 8.0 tells by SO_ERROR the number that its own machine has for it; MIPS has
    /// another one.
    pub(crate) const REFUSALS: [i32; 2] =
        [libc::ECONNREFUSED, if cfg!(target_arch = "mips") { 111 } else { libc::ECONNREFUSED }];

    fn settled(socket: &File) -> io::Result<()> {
        loop {
            match finished(socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                result => return result,
            }
        }
    }

    #[test]
    fn somebody_listens_or_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let port = listener.local_addr().expect("an address").port();
        settled(&loopback(port).expect("begun")).expect("connected");
        drop(listener);
        let refused = loopback(port).and_then(|socket| settled(&socket));
        let refused = refused.expect_err("nobody");
        assert!(refused.raw_os_error().is_some_and(|errno| REFUSALS.contains(&errno)), "{refused}");
    }

    #[test]
    fn a_unix_socket_that_nobody_accepts_on_does_not_hold() {
        let path = std::env::temp_dir().join(format!("hksvd-connect-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert_eq!(unix(&path).expect_err("nobody").kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).expect("bound");
        // SAFETY: takes no pointer.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0, "a short queue");
        let mut waiting = Vec::new();
        let full = loop {
            match unix(&path) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(full, io::ErrorKind::WouldBlock);
        settled(&waiting[0]).expect("connected");
        std::fs::remove_file(&path).expect("removed");
        assert!(unix(Path::new(&"x".repeat(108))).is_err());
    }
}
