//! Sockets that the standard library cannot make: media wants a large buffer, multicast DNS needs to
//! know through which interface a packet came and to choose the one it leaves through (ip(7), ipv6(7)),
//! and the list of interfaces comes from rtnetlink(7).

use core::mem::{self, MaybeUninit};
use libc::{c_int, c_void, socklen_t};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A datagram and what the kernel says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes written to the buffer; what did not fit is lost.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Index of the interface it came through, 0 when the kernel did not say.
    pub interface: u32,
    /// Whether it was sent to a group.
    pub multicast: bool,
}

/// `struct in6_pktinfo` of RFC 3542 §6; the `libc` crate does not have it for every target.
#[repr(C)]
#[derive(Clone, Copy)]
struct In6Pktinfo {
    address: [u8; 16],
    interface: u32,
}

const _: () = assert!(size_of::<In6Pktinfo>() == 20);
const _: () = assert!(size_of::<libc::in_pktinfo>() == 12);
const _: () = assert!(size_of::<libc::ip_mreqn>() == 12);
const _: () = assert!(size_of::<libc::ipv6_mreq>() == 20);
const _: () = assert!(size_of::<libc::sockaddr_nl>() == 12);
const _: () = assert!(size_of::<libc::sockaddr_in>() == 16);
const _: () = assert!(size_of::<libc::sockaddr_in6>() == 28);
const _: () = assert!(size_of::<libc::sockaddr_storage>() == 128);

/// Room for one control message, aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control([u8; 64]);

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());
// SAFETY: CMSG_SPACE only computes.
const _: () = assert!(unsafe { libc::CMSG_SPACE(size_of::<In6Pktinfo>() as u32) } <= 64);

/// A UDP socket for multicast DNS on all interfaces of one family (RFC 6762 §3, §11, §15.1). It shares
/// its port with other responders: both reuse options are set before the port is taken, as they do.
///
/// # Errors
/// When the family is not there or somebody holds the port without sharing it.
pub fn open_multicast(local: SocketAddr) -> io::Result<UdpSocket> {
    let v4 = local.is_ipv4();
    let socket = open(if v4 { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_DGRAM, 0)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
    // Linux 3.9 and later.
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1)?;
    if v4 {
        let level = libc::IPPROTO_IP;
        set(&socket, level, libc::IP_MULTICAST_TTL, &255)?;
        set(&socket, level, libc::IP_TTL, &255)?;
        set(&socket, level, libc::IP_MULTICAST_LOOP, &1)?;
        set(&socket, level, libc::IP_PKTINFO, &1)?;
        // Only the groups joined by this socket, not those of every program: a courtesy that a kernel (or an
        // emulated one) may lack, since other groups carry no mDNS.
        let _ = set(&socket, level, libc::IP_MULTICAST_ALL, &0);
    } else {
        let level = libc::IPPROTO_IPV6;
        set(&socket, level, libc::IPV6_V6ONLY, &1)?;
        set(&socket, level, libc::IPV6_MULTICAST_HOPS, &255)?;
        set(&socket, level, libc::IPV6_UNICAST_HOPS, &255)?;
        set(&socket, level, libc::IPV6_MULTICAST_LOOP, &1)?;
        set(&socket, level, libc::IPV6_RECVPKTINFO, &1)?;
    }
    let (address, length) = to_kernel(local);
    // SAFETY: `address` is a socket address of at least `length` initialized bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(UdpSocket::from(socket))
}

/// A UDP socket for media on `local`, whose port 0 means any. The kernel may hold so many bytes of what is sent
/// on it, if it agrees: the packets of a key frame come faster than Wi-Fi takes them.
///
/// # Errors
/// When the address is not one of this host, or the port is taken.
pub fn open_media(local: SocketAddr, send_buffer_bytes: u32) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let bytes = send_buffer_bytes.min(i32::MAX as u32) as c_int;
    // Past the limit of the system where we may, else up to it. With less, packets are lost; that is all.
    if set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_err() {
        let _ = set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes);
    }
    Ok(socket)
}

/// Joins `group` on an interface.
///
/// # Errors
/// `AddrInUse` when it was joined before; others when the interface does not do multicast.
pub fn join(socket: &UdpSocket, group: IpAddr, interface: u32) -> io::Result<()> {
    membership(socket, group, interface, libc::IP_ADD_MEMBERSHIP, libc::IPV6_ADD_MEMBERSHIP)
}

/// Leaves `group` on an interface.
///
/// # Errors
/// When it was not joined or the interface is gone.
pub fn leave(socket: &UdpSocket, group: IpAddr, interface: u32) -> io::Result<()> {
    membership(socket, group, interface, libc::IP_DROP_MEMBERSHIP, libc::IPV6_DROP_MEMBERSHIP)
}

fn membership(socket: &UdpSocket, group: IpAddr, interface: u32, v4: c_int, v6: c_int) -> io::Result<()> {
    match group {
        IpAddr::V4(group) => {
            let request = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: u32::from_ne_bytes(group.octets()) },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: interface as c_int,
            };
            set(socket, libc::IPPROTO_IP, v4, &request)
        }
        IpAddr::V6(group) => {
            let request = libc::ipv6_mreq {
                ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
                ipv6mr_interface: interface as _,
            };
            set(socket, libc::IPPROTO_IPV6, v6, &request)
        }
    }
}

/// Reads one datagram of a socket made by [`open_multicast`].
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: all bytes zero is a valid `msghdr`: null pointers and zero lengths.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: every pointer in `message` is to a live local (or to `buf`) of the length beside it.
    let len = check_len(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) })?;
    // SAFETY: it was zeroed, and all bytes zero is a valid `sockaddr_storage`.
    let from = from_kernel(&unsafe { address.assume_init() })?;
    let (mut interface, mut multicast) = (0, false);
    // SAFETY: `message` was filled in by the kernel and its control buffer is alive and aligned.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: a pointer from CMSG_FIRSTHDR or CMSG_NXTHDR is null or to a whole header in `control`.
    while let Some(cmsg) = unsafe { header.as_ref() } {
        // SAFETY: the data of a header that the kernel wrote; only its address is taken here.
        let body: *const u8 = unsafe { libc::CMSG_DATA(header) };
        match (cmsg.cmsg_level, cmsg.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts a whole `in_pktinfo` there (ip(7)), possibly unaligned.
                let info = unsafe { body.cast::<libc::in_pktinfo>().read_unaligned() };
                interface = info.ipi_ifindex as u32;
                multicast = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).is_multicast();
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel puts a whole `in6_pktinfo` there (RFC 3542 §6.1), possibly unaligned.
                let info = unsafe { body.cast::<In6Pktinfo>().read_unaligned() };
                interface = info.interface;
                multicast = Ipv6Addr::from(info.address).is_multicast();
            }
            _ => {}
        }
        // SAFETY: `header` is a header inside the control buffer of `message`.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Received { len, from, interface, multicast })
}

/// Sends one datagram through an interface. `source` is one of its addresses; unspecified, the kernel
/// chooses: for IPv4 that may be one of another interface, which peers take for off-link.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send(socket: &UdpSocket, interface: u32, source: IpAddr, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let (mut address, length) = to_kernel(to);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all bytes zero is a valid `msghdr`: null pointers and zero lengths.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    match to {
        SocketAddr::V4(_) => {
            let source = if let IpAddr::V4(v4) = source { u32::from_ne_bytes(v4.octets()) } else { 0 };
            let info = libc::in_pktinfo {
                ipi_ifindex: interface as c_int,
                ipi_spec_dst: libc::in_addr { s_addr: source },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            attach(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        SocketAddr::V6(_) => {
            let address = if let IpAddr::V6(v6) = source { v6.octets() } else { [0; 16] };
            let info = In6Pktinfo { address, interface };
            attach(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
    // SAFETY: every pointer in `message` is to a live local (or to `bytes`, which sendmsg only reads) of
    // the length beside it.
    check_len(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) })?;
    Ok(())
}

/// Makes `info` the one control message. `message.msg_control` must point to a live [`Control`].
fn attach<T>(message: &mut libc::msghdr, level: c_int, kind: c_int, info: T) {
    const { assert!(size_of::<T>() <= size_of::<In6Pktinfo>()) };
    let length = size_of::<T>() as u32;
    // SAFETY: CMSG_SPACE only computes.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as _;
    // SAFETY: the callers point `msg_control` to a zeroed `Control`: aligned, and large enough for a
    // header and any `T` up to `In6Pktinfo` (asserted above), so the first header is inside and its data
    // has room for `info`; no alignment of the data is assumed.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const *message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(length) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(info);
    }
}

/// A socket to rtnetlink(7), subscribed to `groups` (`RTMGRP_…`), to be read and written as a file. It
/// does not block: the kernel has the next part of a dump ready before the call that asks for it returns.
///
/// # Errors
/// When the kernel has no netlink or no descriptor is free.
pub fn open_route_netlink(groups: u32) -> io::Result<File> {
    let socket = open(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::NETLINK_ROUTE)?;
    // SAFETY: all bytes zero is a valid `sockaddr_nl`.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as _;
    address.nl_groups = groups;
    let length = size_of::<libc::sockaddr_nl>() as socklen_t;
    // SAFETY: `address` is a socket address of `length` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(File::from(socket))
}

fn open(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    check(fd)?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T: Copy>(socket: &impl AsRawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as socklen_t;
    // SAFETY: `value` is `length` readable bytes; the kernel copies them and checks that it is enough.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, core::ptr::from_ref(value).cast::<c_void>(), length)
    })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn to_kernel(address: SocketAddr) -> (libc::sockaddr_storage, socklen_t) {
    // SAFETY: all bytes zero is a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let at = &raw mut storage;
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is larger than and aligned for every socket address.
            unsafe { at.cast::<libc::sockaddr_in>().write(raw) };
            (storage, size_of::<libc::sockaddr_in>() as socklen_t)
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_in6>().write(raw) };
            (storage, size_of::<libc::sockaddr_in6>() as socklen_t)
        }
    }
}

fn from_kernel(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let at = core::ptr::from_ref(storage);
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what the storage, which is larger and aligned for it, holds.
            let raw = unsafe { at.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { at.cast::<libc::sockaddr_in6>().read() };
            let (ip, port) = (Ipv6Addr::from(raw.sin6_addr.s6_addr), u16::from_be(raw.sin6_port));
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without a sender")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251));
    /// The loopback interface has this index on every Linux.
    const LO: u32 = 1;
    const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn addresses_survive_the_kernel_form() {
        for text in ["192.0.2.7:5353", "[2001:db8::1]:5353", "[fe80::1%3]:80"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(from_kernel(&to_kernel(address).0).unwrap(), address);
        }
        // SAFETY: all bytes zero is a valid `sockaddr_storage`.
        assert!(from_kernel(&unsafe { mem::zeroed() }).is_err());
    }

    #[test]
    fn a_multicast_comes_back_with_its_interface() {
        let first = open_multicast("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = open_multicast(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).unwrap();
        for socket in [&first, &second] {
            join(socket, GROUP, LO).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        assert_eq!(join(&first, GROUP, LO).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        send(&first, LO, Ipv4Addr::LOCALHOST.into(), SocketAddr::new(GROUP, port), b"hello").unwrap();
        let mut buf = [0; 16];
        for socket in [&first, &second] {
            let received = receive(socket, &mut buf).unwrap();
            let from = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            assert_eq!(received, Received { len: 5, from, interface: LO, multicast: true });
        }
        leave(&first, GROUP, LO).unwrap();
        assert!(leave(&first, GROUP, LO).is_err());
    }

    #[test]
    fn a_unicast_is_told_apart() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            // A host may be without IPv6.
            let Ok(socket) = open_multicast(local.parse().unwrap()) else {
                assert!(local.starts_with('['));
                continue;
            };
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let to = socket.local_addr().unwrap();
            send(&socket, LO, to.ip(), to, b"hi").unwrap();
            let received = receive(&socket, &mut [0; 16]).unwrap();
            assert_eq!(received, Received { len: 2, from: to, interface: LO, multicast: false });
        }
    }

    #[test]
    fn media_goes_both_ways_on_one_port() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = open_media(local.parse().unwrap(), 512 * 1024) else {
                assert!(local.starts_with('['), "a host may be without IPv6");
                continue;
            };
            let peer = UdpSocket::bind(local).unwrap();
            let (ours, theirs) = (socket.local_addr().unwrap(), peer.local_addr().unwrap());
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(socket.send_to(b"there", theirs).unwrap(), 5);
            assert_eq!(peer.recv_from(&mut [0; 8]).unwrap(), (5, ours));
            assert_eq!(peer.send_to(b"back", ours).unwrap(), 4);
            assert_eq!(socket.recv_from(&mut [0; 8]).unwrap(), (4, theirs));
            // Nobody else gets the port meanwhile, of no family.
            assert!(open_media(ours, 0).is_err());
        }
        assert!(open_media("192.0.2.1:0".parse().unwrap(), 0).is_err(), "an address of somebody else");
    }

    #[test]
    fn errors_come_through() {
        let socket = open_multicast("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(join(&socket, GROUP, 0x7fff_0000).is_err());
        assert!(send(&socket, 0x7fff_0000, NOWHERE, SocketAddr::new(GROUP, 9), b"x").is_err());
        socket.set_nonblocking(true).unwrap();
        assert_eq!(receive(&socket, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
