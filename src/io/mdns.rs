//! The loop around [`crate::mdns::Responder`]: sockets, interfaces, timers.

use crate::io::netlink::{Interface, Interfaces, Netlink};
use crate::io::runtime::{Fd, Signal, now, or, sleep_until};
use crate::mdns::{self, Family, INTERFACES, InterfaceId, PACKET_BYTES, Responder, To};
use crate::sys::net;
use crate::time::Duration;
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::rc::Rc;

/// Where to advertise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Names of interfaces (`hap.interfaces`), loopback allowed; empty: all that do multicast, are not
    /// loopback and have neighbours.
    pub names: Vec<String>,
    /// Advertise on and for IPv4 alone, because the listeners do not accept IPv6.
    pub ipv4_only: bool,
}

impl Selection {
    fn takes(&self, interface: &Interface) -> bool {
        if !self.names.is_empty() {
            return self.names.iter().any(|name| *name == interface.name.as_str());
        }
        // WireGuard and other tunnels have no link with neighbours, whatever their flags say.
        let tunnel = interface.is_point_to_point() || ["wg", "tun"].iter().any(|p| interface.name.starts_with(p));
        interface.is_multicast() && !interface.is_loopback() && !tunnel
    }
}

/// Advertises until dropped, whatever the network does: without an interface it waits for one.
/// `changed` is to be notified after each change of the responder, and tells of its events and of a
/// goodbye that was sent.
pub async fn run(responder: Rc<RefCell<Responder>>, changed: Rc<Signal>, selection: Selection) {
    loop {
        let error = match Shell::open(&selection) {
            Ok(mut shell) => {
                let ended = shell.serve(&responder, &changed).await;
                shell.forget_all(&mut responder.borrow_mut());
                ended
            }
            Err(error) => error,
        };
        log::warn!("mDNS on UDP port {} does not work: {error}; next try in {} s", mdns::PORT, RETRY.as_secs());
        sleep_until(now() + RETRY).await;
    }
}

/// Says goodbye on every interface and waits until [`run`], which must still be running, has sent it;
/// half a second at most.
pub async fn goodbye(responder: &RefCell<Responder>, changed: &Signal) {
    responder.borrow_mut().goodbye();
    changed.notify();
    let patience = now() + Duration::from_millis(500);
    loop {
        let seen = changed.count();
        if !responder.borrow().is_leaving() || now() >= patience {
            return;
        }
        or(changed.changed(seen), sleep_until(patience)).await;
    }
}

/// Time until the sockets are opened again after an error.
const RETRY: Duration = Duration::from_secs(30);
/// How often the mark of the setup portal is looked for; nothing tells when it comes and goes.
const PORTAL_LOOK: Duration = Duration::from_secs(10);
/// Thingino's mark: the camera is an access point that waits to be told its Wi-Fi.
const PORTAL_MODE: &str = "/run/portal_mode";
/// Datagrams read of one socket before anything else gets its turn.
const RECEIVE_BURST: usize = 32;
/// RFC 6762 §17.
const RECEIVE_BYTES: usize = 9000;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

struct Shell<'a> {
    selection: &'a Selection,
    v4: Fd<UdpSocket>,
    v6: Option<Fd<UdpSocket>>,
    netlink: Netlink,
    interfaces: Interfaces,
    served: heapless::Vec<InterfaceId, INTERFACES>,
    receive: Box<[u8]>,
    portal: bool,
}

impl<'a> Shell<'a> {
    fn open(selection: &'a Selection) -> io::Result<Self> {
        // Somebody who does not share the port may go away: the whole is tried again.
        let v4 = open(Ipv4Addr::UNSPECIFIED.into())?;
        let v6 = match selection.ipv4_only {
            true => None,
            // A kernel without IPv6 is nothing to complain about.
            false => open(Ipv6Addr::UNSPECIFIED.into()).map_err(|e| log::debug!("mDNS over IPv6: {e}")).ok(),
        };
        Ok(Shell {
            selection,
            v4,
            v6,
            netlink: Netlink::open()?,
            interfaces: Interfaces::new(),
            served: heapless::Vec::new(),
            receive: vec![0; RECEIVE_BYTES].into(),
            portal: false,
        })
    }

    /// Ends with the error that made it useless.
    async fn serve(&mut self, responder: &RefCell<Responder>, changed: &Signal) -> io::Error {
        let mut look = true;
        loop {
            let seen = changed.count();
            self.watch_portal(responder, &mut look);
            if look && let Err(error) = self.look(responder) {
                return error;
            }
            responder.borrow_mut().handle_timeout(now());
            self.transmit(responder, changed);
            let portal_look = now() + PORTAL_LOOK;
            let due = responder.borrow().poll_timeout().map_or(portal_look, |due| due.min(portal_look));
            let timer = async {
                or(changed.changed(seen), sleep_until(due)).await;
                Ok(())
            };
            let sockets = or(self.v4.readable(), readable(self.v6.as_ref()));
            if let Err(error) = or(timer, or(sockets, self.netlink.changed())).await {
                return error;
            }
            look = self.netlink.drain();
            let had_event = responder.borrow().has_event();
            if let Err(error) = self.receive(responder) {
                return error;
            }
            if !had_event && responder.borrow().has_event() {
                changed.notify();
            }
        }
    }

    /// While the camera waits for its Wi-Fi, nobody who could see it is at home.
    fn watch_portal(&mut self, responder: &RefCell<Responder>, look: &mut bool) {
        let portal = Path::new(PORTAL_MODE).exists();
        if portal == self.portal {
            return;
        }
        self.portal = portal;
        *look = true;
        if portal {
            responder.borrow_mut().goodbye();
        }
    }

    /// Brings the responder and the memberships in line with the interfaces there are.
    fn look(&mut self, responder: &RefCell<Responder>) -> io::Result<()> {
        if self.portal {
            // The goodbye must leave before the interfaces are forgotten.
            self.send_all(responder);
            self.forget_all(&mut responder.borrow_mut());
            return Ok(());
        }
        self.netlink.read(&mut self.interfaces)?;
        let Shell { selection, v4, v6, interfaces, served, .. } = self;
        let mut responder = responder.borrow_mut();
        served.retain(|id| {
            let stays = interfaces.iter().any(|i| i.id == *id && selection.takes(i));
            if !stays {
                leave(v4, v6.as_ref(), *id);
                responder.remove_interface(*id);
            }
            stays
        });
        for interface in interfaces.iter_mut().filter(|i| selection.takes(i)) {
            let id = interface.id;
            if !served.contains(&id) {
                if served.push(id).is_err() {
                    log::debug!("mDNS: not on {}, there are {INTERFACES} others", interface.name);
                    continue;
                }
                log::debug!("mDNS on {}", interface.name);
            }
            // Again each time: a new address may be what a membership waited for.
            join(Some(v4), GROUP_V4.into(), interface);
            join(v6.as_ref(), GROUP_V6.into(), interface);
            interface.addresses.retain(|a| a.ip.is_ipv4() || v6.is_some());
            responder.set_addresses(id, &interface.addresses, now());
        }
        Ok(())
    }

    fn forget_all(&mut self, responder: &mut Responder) {
        for id in &self.served {
            leave(&self.v4, self.v6.as_ref(), *id);
            responder.remove_interface(*id);
        }
        self.served.clear();
    }

    fn transmit(&self, responder: &RefCell<Responder>, changed: &Signal) {
        let leaving = responder.borrow().is_leaving();
        self.send_all(responder);
        if leaving {
            changed.notify();
        }
    }

    fn send_all(&self, responder: &RefCell<Responder>) {
        let mut out = [0; PACKET_BYTES];
        let mut responder = responder.borrow_mut();
        while let Some(transmit) = responder.poll_transmit(now(), &mut out) {
            let id = transmit.interface;
            let (socket, group) = match transmit.family {
                Family::V4 => (Some(&self.v4), SocketAddr::new(GROUP_V4.into(), mdns::PORT)),
                Family::V6 => (self.v6.as_ref(), SocketAddrV6::new(GROUP_V6, mdns::PORT, 0, id.0).into()),
            };
            let to = match transmit.to {
                To::Multicast => group,
                To::Unicast(peer) => peer,
            };
            let Some(socket) = socket else { continue };
            // Wi-Fi is gone, the cable is out, the address is not there yet: the responder repeats itself.
            if let Err(error) =
                net::send(socket.get(), id.0, self.source(id, transmit.family), to, &out[..transmit.len])
            {
                log::debug!("mDNS to {to}: {error}");
            }
        }
    }

    /// The kernel finds the right IPv6 source by its scope; for IPv4 it takes any that is not of
    /// loopback, even for loopback.
    fn source(&self, id: InterfaceId, family: Family) -> IpAddr {
        let interface = self.interfaces.iter().find(|i| i.id == id);
        let own = interface.and_then(|i| i.addresses.iter().find(|a| a.ip.is_ipv4()));
        match (family, own) {
            (Family::V4, Some(own)) => own.ip,
            (Family::V4, None) => Ipv4Addr::UNSPECIFIED.into(),
            (Family::V6, _) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    fn receive(&mut self, responder: &RefCell<Responder>) -> io::Result<()> {
        for socket in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            let mut failed = 0;
            for _ in 0..RECEIVE_BURST {
                match net::receive(socket.get(), &mut self.receive) {
                    Ok(received) => responder.borrow_mut().handle_packet(
                        received.from,
                        InterfaceId(received.interface),
                        received.multicast,
                        &self.receive[..received.len],
                        now(),
                    ),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        // An error that was waiting (ENETDOWN, ECONNREFUSED) is gone once told; one that
                        // stays would keep the loop busy.
                        failed += 1;
                        if failed == RECEIVE_BURST {
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn open(any: IpAddr) -> io::Result<Fd<UdpSocket>> {
    Fd::new(net::open_multicast(SocketAddr::new(any, mdns::PORT))?)
}

async fn readable(socket: Option<&Fd<UdpSocket>>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

fn join(socket: Option<&Fd<UdpSocket>>, group: IpAddr, interface: &Interface) {
    let Some(socket) = socket else { return };
    match net::join(socket.get(), group, interface.id.0) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            log::debug!("mDNS on {}: joining {group}: {error}", interface.name);
        }
        _ => {}
    }
}

fn leave(v4: &Fd<UdpSocket>, v6: Option<&Fd<UdpSocket>>, id: InterfaceId) {
    // An interface that is gone has taken its memberships along.
    for (socket, group) in [(Some(v4), IpAddr::V4(GROUP_V4)), (v6, IpAddr::V6(GROUP_V6))] {
        let _ = socket.map(|socket| net::leave(socket.get(), group, id.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_only_interfaces_with_neighbours_are_taken() {
        let (multicast, loopback, tunnel) = (libc::IFF_MULTICAST, libc::IFF_LOOPBACK, libc::IFF_POINTOPOINT);
        let takes = |names: &[&str], name, flags| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            Selection { names, ipv4_only: false }.takes(&Interface::with_flags(name, flags))
        };
        assert!(takes(&[], "wlan0", multicast));
        assert!(!takes(&[], "eth0", 0));
        assert!(!takes(&[], "lo", loopback) && !takes(&[], "lo", loopback | multicast));
        assert!(!takes(&[], "ppp0", tunnel | multicast));
        assert!(!takes(&[], "wg0", multicast) && !takes(&[], "tun1", multicast));
        assert!(takes(&["lo", "wg0"], "lo", loopback) && takes(&["lo", "wg0"], "wg0", tunnel), "named is named");
        assert!(!takes(&["lo"], "wlan0", multicast));
    }

    #[test]
    fn without_anybody_to_send_it_a_goodbye_does_not_wait_for_ever() {
        let txt = mdns::Txt {
            config_number: 1,
            device_id: heapless::String::new(),
            model: heapless::String::new(),
            status_flags: 1,
            category: 17,
            setup_hash: heapless::String::new(),
        };
        let service = mdns::Service { instance: mdns::Label::new(), host: mdns::Label::new(), port: 1, txt };
        let responder = RefCell::new(Responder::new(service, 1));
        let lo = mdns::Address { ip: Ipv4Addr::LOCALHOST.into(), prefix: 8 };
        responder.borrow_mut().set_addresses(InterfaceId(1), &[lo], crate::time::Instant::ZERO);
        // To the end of the third probe's wait.
        for ms in [300, 600, 900, 1200] {
            responder.borrow_mut().handle_timeout(crate::time::Instant::from_micros(ms * 1000));
        }
        assert!(responder.borrow().is_announced());
        let start = now();
        crate::io::runtime::Executor::default().block_on(goodbye(&responder, &Signal::default()));
        let took = now() - start;
        assert!(responder.borrow().is_leaving());
        assert!((Duration::from_millis(500)..Duration::from_secs(2)).contains(&took), "{took:?}");
    }
}
