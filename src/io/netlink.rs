//! The network interfaces and their addresses, as they are and when they change: rtnetlink(7).
//!
//! An event only says "look again": the tables are then asked for as a whole, so that a lost event
//! costs nothing and there is one parser.

use crate::io::runtime::Fd;
use crate::mdns::{ADDRESSES, Address, InterfaceId};
use crate::sys::net;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network interface that is up and has a carrier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its index.
    pub id: InterfaceId,
    /// Its name.
    pub name: heapless::String<16>,
    /// The addresses that can be used: no tentative, deprecated or temporary ones.
    pub addresses: heapless::Vec<Address, ADDRESSES>,
    flags: u32,
}

impl Interface {
    /// Whether it takes part in multicast.
    pub fn is_multicast(&self) -> bool {
        self.flags & libc::IFF_MULTICAST as u32 != 0
    }

    /// Whether it leads nowhere but back.
    pub fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }

    /// Whether it is a tunnel or modem line: there is no link with neighbours behind it.
    pub fn is_point_to_point(&self) -> bool {
        self.flags & libc::IFF_POINTOPOINT as u32 != 0
    }
}

#[cfg(test)]
impl Interface {
    /// One without addresses.
    pub(crate) fn with_flags(name: &str, flags: i32) -> Self {
        let name = name.try_into().unwrap();
        Interface { id: InterfaceId(9), name, addresses: heapless::Vec::new(), flags: flags as u32 }
    }
}

/// The interfaces. More than these do not matter to a camera.
pub type Interfaces = heapless::Vec<Interface, 16>;

/// The subscription to changes, and the buffer for looking.
pub struct Netlink {
    events: Fd<File>,
    buf: Box<[u8]>,
}

impl Netlink {
    /// Subscribes to changes of links and addresses.
    ///
    /// # Errors
    /// When the kernel has no netlink.
    pub fn open() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let events = Fd::new(net::open_route_netlink(groups as u32)?)?;
        // The kernel sends at most a page or 8 KiB at a time to readers of this size.
        Ok(Netlink { events, buf: vec![0; 16 * 1024].into() })
    }

    /// Waits until something changed; [`Netlink::drain`] then makes room for the next event.
    ///
    /// # Errors
    /// When the socket can no longer be waited for.
    pub async fn changed(&self) -> io::Result<()> {
        self.events.readable().await
    }

    /// Takes the events that wait and says whether there were any.
    pub fn drain(&mut self) -> bool {
        let mut any = false;
        // ENOBUFS is news as well: events were lost.
        for _ in 0..64 {
            match self.events.get().read(&mut self.buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => any = true,
            }
        }
        any
    }

    /// Reads the interfaces that are up and running, with their addresses.
    ///
    /// # Errors
    /// When the kernel does not answer; `interfaces` is then not complete.
    pub fn read(&mut self, interfaces: &mut Interfaces) -> io::Result<()> {
        interfaces.clear();
        // A fresh socket each time: no answer to an earlier question can be in the way.
        let mut socket = net::open_route_netlink(0)?;
        dump(&mut socket, &mut self.buf, libc::RTM_GETLINK, 16, |kind, body| {
            if let Some(interface) = parse_link(kind, body) {
                // The table holds more than enough.
                let _ = interfaces.push(interface);
            }
        })?;
        dump(&mut socket, &mut self.buf, libc::RTM_GETADDR, 8, |kind, body| {
            let Some((id, address)) = parse_address(kind, body) else { return };
            if let Some(interface) = interfaces.iter_mut().find(|i| i.id == id) {
                let _ = interface.addresses.push(address);
            }
        })
    }
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Linux 3.14 and later: all flags of an address, of which `ifaddrmsg` holds only the first eight.
const IFA_FLAGS: u16 = 8;
/// An address of IPv6 privacy extensions: gone tomorrow.
const IFA_F_TEMPORARY: u8 = 0x01;
/// Duplicate address detection has found another with it.
const IFA_F_DADFAILED: u8 = 0x08;
/// Not for new connections.
const IFA_F_DEPRECATED: u8 = 0x20;
/// Duplicate address detection has not finished.
const IFA_F_TENTATIVE: u8 = 0x40;

fn dump(
    socket: &mut File,
    buf: &mut [u8],
    request: u16,
    body: usize,
    mut each: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let mut ask = [0; HEADER + 16];
    let length = HEADER + body;
    ask[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
    ask[4..6].copy_from_slice(&request.to_ne_bytes());
    ask[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    socket.write_all(&ask[..length])?;
    loop {
        let length = socket.read(buf)?;
        for (kind, body) in Messages(&buf[..length]) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let error = u32_at(body, 0).unwrap_or(0) as i32;
                    return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
                }
                _ => each(kind, body),
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The messages in one read: type and body. Ends at the first that is malformed.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32_at(self.0, 0)? as usize;
        let kind = u16_at(self.0, 4)?;
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// The attributes behind a fixed header: type and value. Ends at the first that is malformed.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)?;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// `struct ifinfomsg` and its attributes; `None` when the link is down.
fn parse_link(kind: u16, body: &[u8]) -> Option<Interface> {
    let (id, flags) = (InterfaceId(u32_at(body, 4)?), u32_at(body, 8)?);
    let usable = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
    if kind != libc::RTM_NEWLINK || flags & usable != usable {
        return None;
    }
    let name = Attributes(body.get(16..)?).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?.1;
    let name = core::str::from_utf8(name.split(|b| *b == 0).next()?).ok()?;
    Some(Interface { id, name: name.try_into().ok()?, addresses: heapless::Vec::new(), flags })
}

/// `struct ifaddrmsg` and its attributes; `None` when the address cannot be used.
fn parse_address(kind: u16, body: &[u8]) -> Option<(InterfaceId, Address)> {
    let (&prefix, &flags, id) = (body.get(1)?, body.get(2)?, InterfaceId(u32_at(body, 4)?));
    if kind != libc::RTM_NEWADDR {
        return None;
    }
    let (mut local, mut address, mut flags) = (None, None, flags);
    for (kind, value) in Attributes(body.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => address = ip(value),
            // Only its low byte holds flags of interest.
            IFA_FLAGS => flags = u32_at(value, 0)? as u8,
            _ => {}
        }
    }
    let no = match i32::from(*body.first()?) {
        libc::AF_INET6 => IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE,
        // For IPv4 the lowest bit says "secondary", which is nothing bad.
        _ => 0,
    };
    // On a line between two points IFA_ADDRESS is the other end.
    let ip = local.or(address).filter(|_| flags & no == 0)?;
    Some((id, Address { ip, prefix }))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there() {
        let mut interfaces = Interfaces::new();
        let mut netlink = Netlink::open().unwrap();
        netlink.read(&mut interfaces).unwrap();
        let lo = interfaces.iter().find(|i| i.name == "lo").unwrap();
        assert!(lo.is_loopback() && !lo.is_point_to_point());
        assert!(lo.addresses.contains(&Address { ip: Ipv4Addr::LOCALHOST.into(), prefix: 8 }));
        // Twice, for the buffer is used again.
        let before = interfaces.clone();
        netlink.read(&mut interfaces).unwrap();
        assert_eq!(interfaces, before);
        assert!(!netlink.drain());
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(flags: i32, name: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 0, 1, 0];
        body.extend(7_u32.to_ne_bytes());
        body.extend((flags as u32).to_ne_bytes());
        body.extend([0; 4]);
        body.extend(attribute(99, b"odd"));
        body.extend(attribute(libc::IFLA_IFNAME, name));
        body
    }

    #[test]
    fn links_that_are_down_are_left_out() {
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        let wlan = parse_link(libc::RTM_NEWLINK, &link(up | libc::IFF_MULTICAST, b"wlan0\0")).unwrap();
        assert_eq!((wlan.id, wlan.name.as_str()), (InterfaceId(7), "wlan0"));
        assert!(wlan.is_multicast() && !wlan.is_loopback());
        assert!(parse_link(libc::RTM_NEWLINK, &link(libc::IFF_UP, b"wlan0\0")).is_none());
        assert!(parse_link(libc::RTM_DELLINK, &link(up, b"wlan0\0")).is_none());
        assert!(parse_link(libc::RTM_NEWLINK, &link(up, b"a name that is too long\0")).is_none());
        assert!(parse_link(libc::RTM_NEWLINK, &link(up, &[0xff, 0])).is_none());
    }

    fn addr(family: i32, flags: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![family as u8, 24, flags, 0];
        body.extend(7_u32.to_ne_bytes());
        body.extend(attributes.concat());
        body
    }

    #[test]
    fn addresses_that_cannot_be_used_are_left_out() {
        let parse = |body: &[u8]| parse_address(libc::RTM_NEWADDR, body).map(|(_, a)| a.ip.to_string());
        let (peer, own) = (attribute(libc::IFA_ADDRESS, &[10, 0, 0, 1]), attribute(libc::IFA_LOCAL, &[10, 0, 0, 2]));
        assert_eq!(parse(&addr(libc::AF_INET, 0, &[peer.clone(), own])).unwrap(), "10.0.0.2");
        assert_eq!(parse(&addr(libc::AF_INET, 1, &[peer])).unwrap(), "10.0.0.1", "secondary");
        let six = attribute(libc::IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets());
        assert_eq!(parse(&addr(libc::AF_INET6, 0x80, core::slice::from_ref(&six))).unwrap(), "::1");
        assert!(parse(&addr(libc::AF_INET6, IFA_F_TENTATIVE, core::slice::from_ref(&six))).is_none());
        let flags = attribute(IFA_FLAGS, &0x101_u32.to_ne_bytes());
        assert!(parse(&addr(libc::AF_INET6, 0, &[six, flags])).is_none(), "temporary, in the wide flags");
        assert!(parse(&addr(libc::AF_INET, 0, &[attribute(libc::IFA_ADDRESS, &[1; 5])])).is_none());
    }

    #[test]
    fn cut_and_impossible_messages_end_the_walk() {
        let whole = link(libc::IFF_UP | libc::IFF_RUNNING, b"eth0\0");
        for cut in 0..whole.len() - 4 {
            let _ = parse_link(libc::RTM_NEWLINK, &whole[..cut]);
            let _ = parse_address(libc::RTM_NEWADDR, &whole[..cut]);
        }
        for length in [0_u32, 1, 15, 17, u32::MAX, u32::MAX - 3] {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages(&bytes).count(), 0, "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = [0; 8];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes(&bytes).count(), 0, "{length}");
        }
        let mut two = [0; 36];
        two[0] = 18;
        two[20] = 16;
        assert_eq!(Messages(&two).map(|(_, body)| body.len()).collect::<Vec<_>>(), [2, 0]);
    }
}
