//! The sockets of one live view, and the loop around it: a port for video, a port for audio, RTP and RTCP
//! on each (RFC 5761).
//!
//! Nobody waits for a viewer: what the kernel does not take at once is lost, as it would be on the way.

use super::netlink::{Interface, Interfaces, Netlink};
use super::runtime::{Fd, Signal, now, or, sleep_until_some, yield_now};
use crate::sys::net;
use crate::time::Instant;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};

/// Held by the kernel until the network takes it: with the doubling, a large key frame.
const SEND_BUFFER: u32 = 512 * 1024;

/// No datagram is larger than what an Ethernet carries; of a longer one the tag cannot be right.
pub const DATAGRAM_BYTES: usize = 1_500;

/// Datagrams in a row before anybody else gets a turn.
const BURST: u32 = 16;

/// The two sockets of a live view.
pub struct Ports([Fd<UdpSocket>; 2]);

/// Where the media of a live view is awaited, and where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoints {
    /// Our address for both ports.
    pub local: IpAddr,
    /// Our ports: video, audio.
    pub ports: [u16; 2],
    /// Where the controller receives: video, audio.
    pub remote: [SocketAddr; 2],
}

impl Ports {
    /// Opens two ports on the interface that a HAP connection came through: `hap` is our end of it, `to` is
    /// where the controller wants its media. When the two are of different families, another address of the
    /// same interface is taken.
    ///
    /// # Errors
    /// When the controller names no host, the interface has no address of that family, or no port is free.
    pub fn open(hap: SocketAddr, to: IpAddr, ports: [u16; 2]) -> Result<(Self, Endpoints)> {
        if to.is_unspecified() || to.is_multicast() || to != to.to_canonical() || ports.contains(&0) {
            return Err(Error::new(ErrorKind::InvalidInput, "the controller names no address that media can go to"));
        }
        let local = canonical(hap);
        let mut scope = scope(local);
        let local = if local.is_ipv4() == to.is_ipv4() && !(is_link_local(to) && scope == 0) {
            local
        } else {
            let mut interfaces = Interfaces::new();
            Netlink::open()?.read(&mut interfaces)?;
            let interface = interfaces.iter().find(|i| i.addresses.iter().any(|a| a.ip == local.ip()));
            let wrong = || Error::new(ErrorKind::AddrNotAvailable, "no address of the family the controller asks for");
            let interface = interface.ok_or_else(wrong)?;
            scope = interface.id.0;
            beside(local, to, interface).ok_or_else(wrong)?
        };
        let open = || Fd::new(net::open_media(local, SEND_BUFFER)?);
        let sockets = [open()?, open()?];
        let [video, audio] = [sockets[0].get().local_addr()?.port(), sockets[1].get().local_addr()?.port()];
        let remote = ports.map(|port| match to {
            IpAddr::V4(_) => SocketAddr::new(to, port),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, if is_link_local(to) { scope } else { 0 }).into(),
        });
        Ok((Ports(sockets), Endpoints { local: local.ip(), ports: [video, audio], remote }))
    }
}

/// IPv4 as IPv4, although the listener takes both; any port.
fn canonical(hap: SocketAddr) -> SocketAddr {
    match (hap.ip().to_canonical(), hap) {
        (IpAddr::V6(v6), SocketAddr::V6(whole)) => SocketAddrV6::new(v6, 0, 0, whole.scope_id()).into(),
        (ip, _) => SocketAddr::new(ip, 0),
    }
}

fn scope(address: SocketAddr) -> u32 {
    if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The address of `interface` to send to `to` from: the one there is already when it fits, else the first of the
/// right family and reach.
fn beside(local: SocketAddr, to: IpAddr, interface: &Interface) -> Option<SocketAddr> {
    if local.is_ipv4() == to.is_ipv4() {
        return Some(local);
    }
    let own = interface.addresses.iter().map(|a| a.ip).filter(|ip| ip.is_ipv4() == to.is_ipv4());
    let best = own.min_by_key(|ip| is_link_local(*ip) != is_link_local(to))?;
    Some(match best {
        IpAddr::V6(v6) if is_link_local(best) => SocketAddrV6::new(v6, 0, 0, interface.id.0).into(),
        ip => SocketAddr::new(ip, 0),
    })
}

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// 0: from the port of video, 1: from that of audio.
    pub port: usize,
    /// Where to.
    pub to: SocketAddr,
    /// Its length.
    pub len: usize,
}

/// A live view as the loop sees it. As with [`super::peer::Peer`], every method borrows the shared state, does one
/// thing and lets go of it.
pub trait View {
    /// A datagram came in on port 0 (video) or 1 (audio).
    fn handle_datagram(&self, port: usize, from: SocketAddr, bytes: &mut [u8], now: Instant);

    /// Puts the next datagram into `out`; called until `None` after everything that happens.
    fn poll_transmit(&self, now: Instant, out: &mut [u8]) -> Option<Datagram>;

    /// When [`View::handle_timeout`] wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// A timer is due.
    fn handle_timeout(&self, now: Instant);

    /// Fires when there may be something new to send.
    fn signal(&self) -> &Signal;

    /// The network did not take a datagram.
    fn handle_lost(&self, error: &Error);

    /// Whether it is over as soon as everything is sent.
    fn is_over(&self) -> bool;
}

/// Moves datagrams until the view is over.
pub async fn serve(ports: &Ports, view: &impl View) {
    let heard = Signal::default();
    // Each of the three keeps its place while the others move: no system call but those that find something.
    let receive = or(receive(ports, 0, view, &heard), receive(ports, 1, view, &heard));
    or(transmit(ports, view, &heard), receive).await;
}

async fn receive(Ports(sockets): &Ports, port: usize, view: &impl View, heard: &Signal) {
    let socket = &sockets[port];
    loop {
        let received = socket.when_readable(|socket| {
            let mut buffer = [0; DATAGRAM_BYTES];
            let (n, from) = socket.recv_from(&mut buffer)?;
            view.handle_datagram(port, from, &mut buffer[..n], now());
            Ok(())
        });
        if let Err(error) = received.await {
            // The network is down, or an answer that nobody listens: not the end of a view.
            log::debug!(target: "live", "receive: {error}");
        }
        heard.notify();
        yield_now().await;
    }
}

async fn transmit(ports: &Ports, view: &impl View, heard: &Signal) {
    loop {
        let seen = (view.signal().count(), heard.count());
        let mut burst = 0_u32;
        while transmit_one(ports, view) {
            burst += 1;
            if burst.is_multiple_of(BURST) {
                yield_now().await;
            }
        }
        if view.is_over() {
            return;
        }
        let look = or(view.signal().changed(seen.0), heard.changed(seen.1));
        or(look, sleep_until_some(view.poll_timeout())).await;
        if view.poll_timeout().is_some_and(|due| due <= now()) {
            view.handle_timeout(now());
        }
        yield_now().await;
    }
}

/// Whether there was something to send.
fn transmit_one(Ports(sockets): &Ports, view: &impl View) -> bool {
    let mut out = [0; DATAGRAM_BYTES];
    let Some(Datagram { port, to, len }) = view.poll_transmit(now(), &mut out) else { return false };
    if let Err(error) = sockets[port].get().send_to(&out[..len], to) {
        view.handle_lost(&error);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Executor, sleep_until};
    use crate::mdns::{Address, InterfaceId};
    use crate::time::Duration;
    use std::cell::{Cell, RefCell};
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn the_address_is_that_of_the_connection() {
        let hap = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), 51826);
        let (_, endpoints) = Ports::open(hap, Ipv4Addr::LOCALHOST.into(), [5000, 5001]).unwrap();
        assert_eq!(endpoints.local, Ipv4Addr::LOCALHOST);
        assert!(endpoints.ports[0] > 0 && endpoints.ports[0] != endpoints.ports[1]);
        assert_eq!(endpoints.remote, ["127.0.0.1:5000", "127.0.0.1:5001"].map(|a| a.parse().unwrap()));
    }

    #[test]
    fn another_family_is_found_on_the_same_interface() {
        let hap = "[::1]:51826".parse().unwrap();
        // A host may be without IPv6.
        if let Ok((_, endpoints)) = Ports::open(hap, Ipv4Addr::LOCALHOST.into(), [5000, 5001]) {
            assert_eq!(endpoints.local, Ipv4Addr::LOCALHOST);
        }
        let mut interface = Interface::with_flags("wlan0", 0);
        for ip in ["192.0.2.7", "fe80::7", "2001:db8::7"] {
            interface.addresses.push(Address { ip: ip.parse().unwrap(), prefix: 64 }).unwrap();
        }
        let v4: SocketAddr = "192.0.2.7:0".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::7]:0".parse().unwrap();
        let find = |local, to: &str| beside(local, to.parse().unwrap(), &interface).unwrap().to_string();
        assert_eq!(find(v4, "2001:db8::9"), "[2001:db8::7]:0");
        assert_eq!(find(v4, "fe80::9"), format!("[fe80::7%{}]:0", InterfaceId(9).0));
        assert_eq!(find(v6, "192.0.2.9"), "192.0.2.7:0");
        assert_eq!(find(v6, "fe80::9"), "[2001:db8::7]:0");
        interface.addresses.truncate(1);
        assert!(beside(v4, "2001:db8::9".parse().unwrap(), &interface).is_none());
    }

    #[test]
    fn media_goes_to_hosts_only() {
        let hap = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        for to in ["0.0.0.0", "224.0.0.1", "::", "ff02::1", "::ffff:127.0.0.1"] {
            assert!(Ports::open(hap, to.parse().unwrap(), [5000, 5001]).is_err(), "{to}");
        }
        assert!(Ports::open(hap, Ipv4Addr::LOCALHOST.into(), [0, 5001]).is_err());
        // No loopback leads there, and this one has no address of IPv6 that does.
        let v6 = SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), 1);
        assert!(Ports::open(v6, Ipv4Addr::LOCALHOST.into(), [5000, 5001]).is_err());
    }

    /// Answers each datagram with as many as its first byte says, and is over at 0.
    struct Echo {
        to: [SocketAddr; 2],
        owed: RefCell<Vec<usize>>,
        over: Cell<bool>,
        ticks: Cell<u32>,
        signal: Signal,
    }

    impl View for Echo {
        fn handle_datagram(&self, port: usize, from: SocketAddr, bytes: &mut [u8], _: Instant) {
            assert_eq!(from, self.to[port]);
            self.over.set(bytes[0] == 0);
            self.owed.borrow_mut().extend((0..bytes[0]).map(|_| port));
        }
        fn poll_transmit(&self, _: Instant, out: &mut [u8]) -> Option<Datagram> {
            let port = self.owed.borrow_mut().pop()?;
            out[..3].copy_from_slice(b"hey");
            Some(Datagram { port, to: self.to[port], len: 3 })
        }
        fn poll_timeout(&self) -> Option<Instant> {
            Some(Instant::from_micros(u64::from(self.ticks.get()) * 10_000))
        }
        fn handle_timeout(&self, _: Instant) {
            self.ticks.set(self.ticks.get() + 1);
        }
        fn signal(&self) -> &Signal {
            &self.signal
        }
        fn handle_lost(&self, error: &Error) {
            panic!("{error}");
        }
        fn is_over(&self) -> bool {
            self.over.get()
        }
    }

    #[test]
    fn what_comes_in_is_answered_from_the_same_port() {
        let peers = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let [video, audio] = [0, 1].map(|i: usize| peers[i].local_addr().unwrap().port());
        let hap = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let (ports, endpoints) = Ports::open(hap, Ipv4Addr::LOCALHOST.into(), [video, audio]).unwrap();
        let ours = endpoints.ports.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let (owed, signal) = (RefCell::default(), Signal::default());
        let echo = Echo { to: endpoints.remote, owed, over: Cell::new(false), ticks: Cell::new(0), signal };
        let thread = std::thread::spawn(move || {
            for (port, peer) in peers.iter().enumerate() {
                peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                // More than a burst.
                peer.send_to(&[40], ours[port]).unwrap();
                for _ in 0..40 {
                    let mut buffer = [0; 8];
                    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (3, ours[port]));
                }
            }
            std::thread::sleep(Duration::from_millis(50));
            peers[0].send_to(&[0], ours[0]).unwrap();
        });
        let late = async {
            sleep_until(now() + Duration::from_secs(5)).await;
            panic!("it does not end");
        };
        Executor::default().block_on(or(serve(&ports, &echo), late));
        thread.join().unwrap();
        assert!(echo.ticks.get() > 2, "timers go on");
        drop(ports);
        UdpSocket::bind(ours[0]).expect("the port is free again");
    }
}
