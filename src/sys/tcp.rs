//! Options of TCP sockets that the standard library does not set.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

/// Lets the kernel find out that a silent peer is gone: first probe after 60 s of silence, then three
/// at 20 s. A hub holds its socket for days and says nothing on it, so silence alone means nothing.
///
/// # Errors
/// When the kernel does not know an option.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 20)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)
}

/// Bounds what the kernel holds for a peer that does not read, in bytes (it doubles the number for its
/// own use). Without this it grows to megabytes, of which a camera has few, and a hub that has stopped
/// reading is noticed only when that is full.
///
/// # Errors
/// When the kernel does not know the option.
pub fn bound_send_buffer(stream: &TcpStream, bytes: u32) -> io::Result<()> {
    set(stream, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes.min(i32::MAX as u32) as libc::c_int)
}

fn set(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the descriptor is
    // open as long as `stream` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_the_options() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        keep_alive(&stream).unwrap();
        bound_send_buffer(&stream, 65_536).unwrap();
        assert!(set(&stream, libc::IPPROTO_TCP, 9999, 1).is_err());
    }
}
