//! Multicast DNS responder for one HAP accessory: RFC 6762, RFC 6763, HAP R2 §6.4.
//!
//! Probes, announces, answers, renames and says goodbye, on every interface and in both address
//! families by itself: each pair is a link with its own timers. It caches nothing, because
//! an accessory asks nothing but its probes. Another responder may share the port: unicast packets
//! then reach only one of the two, so probes ask for multicast answers unless told otherwise, and a
//! question for a unicast answer gets a multicast one, too.

mod link;
mod records;

use crate::time::{Duration, Instant, earliest};
use crate::wire::dns::{self, Emitter, Message, Section};
use core::net::{IpAddr, SocketAddr};
use heapless::Vec;
use link::{Known, Link, Reply};
use records::{Kind, Kinds, Owner, Records};

pub use records::{Label, Service, Txt, host_label, instance_label};

/// The UDP port of multicast DNS.
pub const PORT: u16 = 5353;
/// Room that holds every packet this responder sends, and no more than an unfragmented datagram on
/// the smallest link IPv6 allows (1280 bytes) without its headers.
pub const PACKET_BYTES: usize = 1232;
/// Interfaces served at a time; one more is not advertised on.
pub const INTERFACES: usize = 4;
/// Addresses advertised per interface; more are left out.
pub const ADDRESSES: usize = 8;

/// The kernel's index of a network interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceId(pub u32);

/// An address of an interface and how many of its bits name the subnet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the subnet prefix in bits.
    pub prefix: u8,
}

impl Address {
    /// Whether `other` is on this address's subnet.
    pub fn is_on_link(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(self.prefix.min(32))).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(self.prefix.min(128))).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4, group 224.0.0.251.
    V4,
    /// IPv6, group ff02::fb.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Where a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// To the group of the family, port [`PORT`].
    Multicast,
    /// To one peer.
    Unicast(SocketAddr),
}

/// A packet to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The interface it leaves through.
    pub interface: InterfaceId,
    /// The socket it leaves through.
    pub family: Family,
    /// Where it goes.
    pub to: To,
    /// Bytes written to the buffer.
    pub len: usize,
}

/// What the rest of the accessory must know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Another accessory on the link holds the name: this is the new one, and the Name characteristic
    /// must agree with it (HAP R2 §6.4).
    Renamed {
        /// The new instance name.
        instance: Label,
    },
    /// Another host holds the host name. Nobody but the log needs to know.
    HostRenamed {
        /// The new first label of the host name.
        host: Label,
    },
}

/// The responder.
pub struct Responder {
    service: Service,
    /// What was advertised before the last change: our own packets come back by loopback and may be
    /// read after the change; they are no conflict.
    previous: Option<Service>,
    links: Vec<Link, { 2 * INTERFACES }>,
    jitter: Jitter,
    unicast_probes: bool,
    announce_at: Option<Instant>,
    conflicts: Conflicts,
    renamed: bool,
    host_renamed: bool,
}

const _: () = assert!(size_of::<Responder>() <= 6 * 1024);

impl Responder {
    /// A responder that does nothing until it has an interface. `seed` spreads its delays: any number
    /// that differs between accessories.
    pub fn new(service: Service, seed: u32) -> Self {
        Responder {
            service,
            previous: None,
            links: Vec::new(),
            jitter: Jitter(seed | 1),
            unicast_probes: false,
            announce_at: None,
            conflicts: Conflicts::default(),
            renamed: false,
            host_renamed: false,
        }
    }

    /// Sets the QU bit in probes (RFC 6762 §8.1): right only when no other responder shares the port.
    pub fn set_unicast_probes(&mut self, on: bool) {
        self.unicast_probes = on;
    }

    /// What is advertised, with the names as they are now.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Whether the names are established on at least one interface.
    pub fn is_announced(&self) -> bool {
        self.links.iter().any(Link::is_announced)
    }

    /// Advertises something else (another identity after a factory reset), from the first probe on.
    /// Say [`Responder::goodbye`] first and let it be sent.
    pub fn replace(&mut self, service: Service, now: Instant) {
        self.service = service;
        self.previous = None;
        self.announce_at = None;
        self.probe_again(now, Duration::ZERO);
    }

    /// The addresses an interface has now. A new interface is probed on; a changed one is announced on.
    pub fn set_addresses(&mut self, interface: InterfaceId, addresses: &[Address], now: Instant) {
        for family in [Family::V4, Family::V6] {
            let speaks = addresses.iter().any(|a| Family::of(a.ip) == family);
            let known = self.links.iter_mut().find(|l| l.interface == interface && l.family == family);
            match known {
                Some(link) if speaks => link.set_addresses(addresses, now),
                Some(_) => self.links.retain(|l| l.interface != interface || l.family != family),
                None if speaks => {
                    let first = now + self.jitter.up_to(PROBE_DELAY_MS);
                    // A full table means more interfaces than INTERFACES: not advertised on.
                    let _ = self.links.push(Link::new(interface, family, addresses, first));
                }
                None => {}
            }
        }
    }

    /// The interface is gone or has lost its carrier.
    pub fn remove_interface(&mut self, interface: InterfaceId) {
        self.links.retain(|l| l.interface != interface);
    }

    /// Changes the TXT record and announces it. A new `c#` alone waits a second for more of its kind;
    /// everything else is told at once.
    pub fn set_txt(&mut self, txt: Txt, now: Instant) {
        if txt == self.service.txt {
            return;
        }
        let only_number = Txt { config_number: txt.config_number, ..self.service.txt.clone() } == txt;
        let wait = if only_number { CONFIG_NUMBER_DEBOUNCE } else { Duration::ZERO };
        self.announce_at = earliest(self.announce_at, Some(now + wait));
        self.previous = Some(self.service.clone());
        self.service.txt = txt;
    }

    /// Changes the port and announces it.
    pub fn set_port(&mut self, port: u16, now: Instant) {
        if port != self.service.port {
            self.previous = Some(self.service.clone());
            self.service.port = port;
            self.announce_at = Some(now);
        }
    }

    /// Says goodbye on every interface (RFC 6762 §10.1) and falls silent there: take the packets with
    /// [`Responder::poll_transmit`]. An interface that is set afterwards starts anew.
    pub fn goodbye(&mut self) {
        self.announce_at = None;
        self.links.iter_mut().for_each(Link::say_goodbye);
    }

    /// Whether a goodbye waits to be sent.
    pub fn is_leaving(&self) -> bool {
        self.links.iter().any(Link::is_leaving)
    }

    /// Whether [`Responder::poll_event`] has something to tell.
    pub fn has_event(&self) -> bool {
        self.renamed || self.host_renamed
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.renamed) {
            return Some(Event::Renamed { instance: self.service.instance.clone() });
        }
        if core::mem::take(&mut self.host_renamed) {
            return Some(Event::HostRenamed { host: self.service.host.clone() });
        }
        None
    }

    /// When [`Responder::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.links.iter().map(Link::timeout).fold(self.announce_at, earliest)
    }

    /// Moves on what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce_at = None;
            self.links.iter_mut().for_each(|link| link.announce(now));
        }
        let service = &self.service;
        self.links.iter_mut().for_each(|link| link.handle_timeout(service, now));
    }

    /// Writes the next packet to `out`, which should hold [`PACKET_BYTES`]. Call until `None` after
    /// each `handle_…`.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let (service, unicast_probes) = (&self.service, self.unicast_probes);
        self.links.iter_mut().find_map(|link| link.poll_transmit(service, unicast_probes, now, out))
    }

    /// A packet that arrived: where from, through which interface, whether it was sent to the group.
    /// What is malformed, not of multicast DNS or not from this link is ignored.
    pub fn handle_packet(
        &mut self,
        from: SocketAddr,
        interface: InterfaceId,
        multicast: bool,
        bytes: &[u8],
        now: Instant,
    ) {
        let family = Family::of(from.ip());
        let Some(at) = self.links.iter().position(|l| l.interface == interface && l.family == family) else { return };
        let Ok(message) = Message::parse(bytes) else { return };
        if message.header.flags & dns::FLAGS_MUST_BE_ZERO != 0 {
            return;
        }
        let on_link = self.links[at].is_on_link(from.ip());
        match message.header.is_response() {
            // RFC 6762 §6: responses come from port 5353; §11: and from the link.
            true if on_link && from.port() == PORT => self.handle_response(at, &message, now),
            false if multicast || on_link => self.handle_query(at, from, multicast, on_link, &message, now),
            _ => {}
        }
    }

    /// RFC 6762 §9, and §8.1 while probing.
    fn handle_response(&mut self, at: usize, message: &Message<'_>, now: Instant) {
        let probing = self.links[at].is_probing();
        if !probing && !self.links[at].is_announced() {
            return;
        }
        let conflict = message.records().find_map(|record| self.conflict(&record, probing));
        let Some(owner) = conflict else { return };
        if probing {
            match owner {
                Owner::Host => {
                    self.service.host = records::next_host(&self.service.host);
                    self.host_renamed = true;
                }
                _ => {
                    self.service.instance = records::next_instance(&self.service.instance);
                    self.renamed = true;
                }
            }
            self.previous = None;
        }
        let wait = self.conflicts.count(now);
        self.probe_again(now, wait);
    }

    /// The name of ours that somebody else's record claims.
    fn conflict(&self, record: &dns::Record<'_>, probing: bool) -> Option<Owner> {
        let ours = Records { service: &self.service, addresses: &[] };
        let owner = ours.owner_of(record.name).filter(|owner| owner.is_unique())?;
        // A goodbye gives the name up; NSEC claims nothing that its companions do not.
        if record.ttl_s == 0 || record.class != dns::CLASS_IN || record.rtype == dns::TYPE_NSEC {
            return None;
        }
        let kind = [Kind::Srv, Kind::Txt, Kind::A, Kind::Aaaa]
            .into_iter()
            .find(|kind| kind.owner() == owner && kind.rtype() == record.rtype);
        let Some(kind) = kind else {
            // A type we do not have contradicts nothing, but the name is taken.
            return probing.then_some(owner);
        };
        // Our own packets come back, by loopback and from another interface on the same link.
        let same = |service| {
            self.links.iter().any(|link| Records { service, addresses: &link.addresses }.is_ours(kind, record))
        };
        let is_ours = same(&self.service) || self.previous.as_ref().is_some_and(same);
        (!is_ours).then_some(owner)
    }

    fn handle_query(
        &mut self,
        at: usize,
        from: SocketAddr,
        multicast: bool,
        on_link: bool,
        message: &Message<'_>,
        now: Instant,
    ) {
        let is_self = self.links.iter().any(|l| l.addresses.iter().any(|a| a.ip == from.ip()));
        let link = &mut self.links[at];
        let records = Records { service: &self.service, addresses: &link.addresses.clone() };
        let proposed = message.records().find_map(|r| {
            let owner = records.owner_of(r.name).filter(|owner| owner.is_unique())?;
            (r.section == Section::Authority).then_some(owner)
        });
        if link.is_probing() && !is_self {
            let lost = |owner| link::tie_break(&records, owner, message) == core::cmp::Ordering::Less;
            // RFC 6762 §8.2: the loser waits a second and probes again.
            if proposed.is_some() && (lost(Owner::Instance) || lost(Owner::Host)) {
                link.probe_from(now + TIE_BREAK_WAIT);
            }
        }
        if !link.is_announced() {
            return;
        }
        let known = Known::of(&records, message);
        let legacy = from.port() != PORT;
        let mut answers = Kinds::NONE;
        let mut unicast = Kinds::NONE;
        let mut all_unique = true;
        let mut reply = Reply::new(from, message.header.id, legacy);
        for question in message.questions() {
            let Some((owner, kinds)) = records.answers(&question) else { continue };
            let kinds = if proposed.is_some() { kinds } else { known.unknown_of(kinds) };
            all_unique &= owner.is_unique();
            if legacy || question.unicast || !multicast {
                unicast = unicast.with(kinds);
                // More questions than a legacy resolver asks at a time are answered, not repeated.
                let _ = reply.questions.push((owner, question.qtype));
            }
            answers = answers.with(kinds);
        }
        if !unicast.is_empty() && on_link {
            reply.answers = unicast;
            link.reply(reply);
        }
        if legacy {
            return;
        }
        let truncated = message.header.flags & dns::FLAG_TRUNCATED != 0;
        let more_known = self.jitter.between(400, 500);
        if message.header.counts[0] == 0 {
            return link.continue_known(from.ip(), &known, truncated.then_some(now + more_known));
        }
        // RFC 6762 §6 and §7.2.
        let wait = match (proposed, truncated) {
            (Some(_), _) => Duration::ZERO,
            (None, true) => more_known,
            (None, false) if all_unique => Duration::ZERO,
            (None, false) => self.jitter.between(20, 120),
        };
        link.answer(answers, from.ip(), proposed.is_some(), now + wait);
    }

    fn probe_again(&mut self, now: Instant, wait: Duration) {
        for link in &mut self.links {
            link.probe_from(now + wait + self.jitter.up_to(PROBE_DELAY_MS));
        }
    }
}

/// Spreads delays so that the accessories of a home do not speak at once (xorshift32).
struct Jitter(u32);

impl Jitter {
    fn up_to(&mut self, ms: u32) -> Duration {
        self.between(0, ms)
    }

    fn between(&mut self, from_ms: u32, to_ms: u32) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        Duration::from_millis(u64::from(from_ms + self.0 % (to_ms - from_ms + 1)))
    }
}

/// RFC 6762 §8.1: fifteen conflicts within ten seconds and it takes five seconds to the next try.
#[derive(Default)]
struct Conflicts {
    since: Instant,
    seen: u8,
}

impl Conflicts {
    fn count(&mut self, now: Instant) -> Duration {
        if now.since(self.since) > Duration::from_secs(10) {
            *self = Conflicts { since: now, seen: 0 };
        }
        self.seen = self.seen.saturating_add(1);
        if self.seen < 15 { Duration::ZERO } else { Duration::from_secs(5) }
    }
}

/// RFC 6762 §8.1: the first probe waits up to this.
const PROBE_DELAY_MS: u32 = 250;
/// RFC 6762 §8.2.
const TIE_BREAK_WAIT: Duration = Duration::from_secs(1);
/// How long a new `c#` waits for another.
const CONFIG_NUMBER_DEBOUNCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
