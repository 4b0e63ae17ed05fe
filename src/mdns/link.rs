//! One interface and address family: what is to be sent there, and when.

use super::records::{Form, Kind, Kinds, Owner, RDATA_BYTES, Records, Service};
use super::{ADDRESSES, Address, Emitter, Family, InterfaceId, To, Transmit};
use crate::time::{Duration, Instant, earliest};
use crate::wire::Writer;
use crate::wire::dns::{self, CLASS_IN, CLASS_TOP_BIT, Message, Section};
use core::cmp::Ordering;
use core::net::{IpAddr, SocketAddr};
use heapless::{Deque, Vec};

/// See the module.
pub(super) struct Link {
    pub(super) interface: InterfaceId,
    pub(super) family: Family,
    pub(super) addresses: Vec<Address, ADDRESSES>,
    phase: Phase,
    /// When each set was last sent to the group.
    multicast_at: [Option<Instant>; Kind::ALL.len()],
    pending: Pending,
    replies: Deque<Reply, 4>,
    /// What the next packet to the group answers.
    ready: Kinds,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// RFC 6762 §8.1.
    Probing { sent: u8, next: Instant, ready: bool },
    /// RFC 6762 §8.3. `next` and `burst` are the announcements after a change, `late` those that
    /// repeat the first for who was not there to hear it.
    Announced { since: Instant, next: Option<Instant>, burst: u8, late: u8 },
    /// RFC 6762 §10.1.
    Leaving,
    /// Goodbye was said.
    Silent,
}

/// Answers to the group that wait for their time.
#[derive(Default)]
struct Pending {
    answers: Kinds,
    /// Those of them that answer a probe.
    defend: Kinds,
    due: Option<Instant>,
    asker: Asker,
}

/// Who waits for the answers: only a single asker's further known answers may take some away.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Asker {
    #[default]
    Nobody,
    One(IpAddr),
    Several,
}

/// An answer to one peer.
pub(super) struct Reply {
    to: SocketAddr,
    id: u16,
    legacy: bool,
    pub(super) questions: Vec<(Owner, u16), 4>,
    pub(super) answers: Kinds,
}

impl Reply {
    pub(super) fn new(to: SocketAddr, id: u16, legacy: bool) -> Self {
        Reply { to, id, legacy, questions: Vec::new(), answers: Kinds::NONE }
    }
}

impl Link {
    /// A link whose first probe is sent at `first`.
    pub(super) fn new(interface: InterfaceId, family: Family, addresses: &[Address], first: Instant) -> Self {
        Link {
            interface,
            family,
            addresses: addresses.iter().copied().take(ADDRESSES).collect(),
            phase: Phase::Probing { sent: 0, next: first, ready: false },
            multicast_at: [None; Kind::ALL.len()],
            pending: Pending::default(),
            replies: Deque::new(),
            ready: Kinds::NONE,
        }
    }

    pub(super) fn is_announced(&self) -> bool {
        matches!(self.phase, Phase::Announced { .. })
    }

    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving)
    }

    pub(super) fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing { .. })
    }

    /// Whether a source is on this link: RFC 6762 §11.
    pub(super) fn is_on_link(&self, ip: IpAddr) -> bool {
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        link_local || self.addresses.iter().any(|a| a.is_on_link(ip))
    }

    pub(super) fn set_addresses(&mut self, addresses: &[Address], now: Instant) {
        let addresses: Vec<_, ADDRESSES> = addresses.iter().copied().take(ADDRESSES).collect();
        if addresses != self.addresses {
            self.addresses = addresses;
            self.announce(now);
        }
    }

    /// Probes from the first probe on. What was to be answered is no longer known to be ours.
    pub(super) fn probe_from(&mut self, first: Instant) {
        self.phase = Phase::Probing { sent: 0, next: first, ready: false };
        self.pending = Pending::default();
        self.ready = Kinds::NONE;
        self.replies.clear();
    }

    /// Announces a change; before the first announcement there is nothing to do.
    pub(super) fn announce(&mut self, now: Instant) {
        if let Phase::Announced { next, burst, .. } = &mut self.phase {
            (*next, *burst) = (Some(now), 0);
        }
    }

    pub(super) fn say_goodbye(&mut self) {
        let leaving = matches!(self.phase, Phase::Announced { .. } | Phase::Leaving);
        self.phase = if leaving { Phase::Leaving } else { Phase::Silent };
        self.pending = Pending::default();
        self.ready = Kinds::NONE;
        self.replies.clear();
    }

    /// An answer to one peer. When too many wait, the peer asks again.
    pub(super) fn reply(&mut self, reply: Reply) {
        let _ = self.replies.push_back(reply);
    }

    /// Adds answers to those that wait for `due`, or for what was to be sent before.
    pub(super) fn answer(&mut self, answers: Kinds, asker: IpAddr, defend: bool, due: Instant) {
        if answers.is_empty() {
            return;
        }
        let pending = &mut self.pending;
        pending.answers = pending.answers.with(answers);
        if defend {
            pending.defend = pending.defend.with(answers);
        }
        pending.due = earliest(pending.due, Some(due));
        pending.asker = match pending.asker {
            Asker::Nobody => Asker::One(asker),
            one if one == Asker::One(asker) => one,
            _ => Asker::Several,
        };
    }

    /// RFC 6762 §7.2: more known answers of the one who asked.
    pub(super) fn continue_known(&mut self, from: IpAddr, known: &Known, until: Option<Instant>) {
        if self.pending.asker != Asker::One(from) {
            return;
        }
        self.pending.answers = known.unknown_of(self.pending.answers);
        if self.pending.answers.is_empty() {
            self.pending = Pending::default();
        } else if let Some(until) = until {
            self.pending.due = Some(until);
        }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Probing { next, .. } => return Some(next),
            Phase::Announced { since, next, late, .. } => {
                earliest(next, LATE_S.get(usize::from(late)).map(|s| since + Duration::from_secs(*s)))
            }
            Phase::Leaving | Phase::Silent => None,
        };
        earliest(phase, self.pending.due)
    }

    pub(super) fn handle_timeout(&mut self, service: &Service, now: Instant) {
        match &mut self.phase {
            Phase::Probing { sent: PROBES, next, .. } if *next <= now => {
                self.phase = Phase::Announced { since: now, next: Some(now), burst: 0, late: 0 };
            }
            Phase::Probing { sent, next, ready } if *next <= now => {
                *ready = true;
                *sent += 1;
                *next = now + PROBE_INTERVAL;
            }
            _ => {}
        }
        let Phase::Announced { since, next, burst, late } = &mut self.phase else { return };
        let mut due = false;
        if next.is_some_and(|next| next <= now) {
            due = true;
            *next = BURST_S.get(usize::from(*burst)).map(|s| now + Duration::from_secs(*s));
            *burst = burst.saturating_add(1);
        }
        while LATE_S.get(usize::from(*late)).is_some_and(|s| *since + Duration::from_secs(*s) <= now) {
            due = true;
            *late += 1;
        }
        if due {
            let records = Records { service, addresses: &self.addresses };
            let nsec = Kinds::of(&[Kind::InstanceNsec, Kind::HostNsec]);
            self.pending.answers = self.pending.answers.with(records.existing().without(nsec));
            self.pending.due = Some(now);
            self.pending.asker = Asker::Several;
        }
        if self.pending.due.is_some_and(|due| due <= now) {
            self.release(now);
        }
    }

    /// Moves what may be sent from `pending` to `ready`: each set at most once a second (RFC 6762 §6),
    /// in defence against a probe once in 250 ms. The rest waits for its second.
    fn release(&mut self, now: Instant) {
        let pending = core::mem::take(&mut self.pending);
        for kind in pending.answers.iter() {
            let one = Kinds::of(&[kind]);
            let interval = if pending.defend.has(kind) { DEFENCE_INTERVAL } else { RECORD_INTERVAL };
            match self.multicast_at[kind as usize].map(|last| last + interval).filter(|due| *due > now) {
                None => self.ready = self.ready.with(one),
                Some(due) => {
                    self.pending.answers = self.pending.answers.with(one);
                    self.pending.due = earliest(self.pending.due, Some(due));
                    self.pending.asker = pending.asker;
                    if pending.defend.has(kind) {
                        self.pending.defend = self.pending.defend.with(one);
                    }
                }
            }
        }
    }

    pub(super) fn poll_transmit(
        &mut self,
        service: &Service,
        unicast_probes: bool,
        now: Instant,
        out: &mut [u8],
    ) -> Option<Transmit> {
        let records = Records { service, addresses: &self.addresses };
        let (to, len) = match &mut self.phase {
            Phase::Leaving => {
                self.phase = Phase::Silent;
                let nsec = Kinds::of(&[Kind::InstanceNsec, Kind::HostNsec]);
                let mut e = Emitter::new(out, 0, RESPONSE);
                for kind in records.existing().without(nsec).iter() {
                    records.emit(&mut e, Section::Answer, kind, Form::Goodbye);
                }
                (To::Multicast, e.finish())
            }
            Phase::Probing { ready, .. } if *ready => {
                *ready = false;
                (To::Multicast, emit_probe(&records, unicast_probes, out))
            }
            _ => match self.replies.pop_front() {
                Some(reply) => (To::Unicast(reply.to), emit_reply(&records, &reply, out)),
                None if self.ready.is_empty() => return None,
                None => {
                    let mut e = Emitter::new(out, 0, RESPONSE);
                    let answers = core::mem::take(&mut self.ready);
                    for kind in answers.iter() {
                        records.emit(&mut e, Section::Answer, kind, Form::Plain);
                        self.multicast_at[kind as usize] = Some(now);
                    }
                    for kind in records.additional(answers).iter() {
                        let slot = &mut self.multicast_at[kind as usize];
                        if slot.is_none_or(|last| last + RECORD_INTERVAL <= now)
                            && records.emit(&mut e, Section::Additional, kind, Form::Plain)
                        {
                            *slot = Some(now);
                        }
                    }
                    (To::Multicast, e.finish())
                }
            },
        };
        (len > 0).then_some(Transmit { interface: self.interface, family: self.family, to, len })
    }
}

/// RFC 6762 §8.1 and §8.2: the questions, and in the authority section what we mean to own.
fn emit_probe(records: &Records<'_>, unicast: bool, out: &mut [u8]) -> usize {
    let mut e = Emitter::new(out, 0, 0);
    let class = if unicast { CLASS_IN | CLASS_TOP_BIT } else { CLASS_IN };
    for owner in [Owner::Instance, Owner::Host] {
        records.with_name(owner, |name| e.question(name, dns::TYPE_ANY, class));
    }
    for kind in proposed(records).iter() {
        records.emit(&mut e, Section::Authority, kind, Form::Proposed);
    }
    e.finish()
}

fn emit_reply(records: &Records<'_>, reply: &Reply, out: &mut [u8]) -> usize {
    let (id, form) = if reply.legacy { (reply.id, Form::Legacy) } else { (0, Form::Plain) };
    let mut e = Emitter::new(out, id, RESPONSE);
    if reply.legacy {
        for (owner, qtype) in &reply.questions {
            records.with_name(*owner, |name| e.question(name, *qtype, CLASS_IN));
        }
    }
    for kind in reply.answers.iter() {
        records.emit(&mut e, Section::Answer, kind, form);
    }
    for kind in records.additional(reply.answers).iter() {
        records.emit(&mut e, Section::Additional, kind, form);
    }
    e.finish()
}

fn proposed(records: &Records<'_>) -> Kinds {
    let unique = Kinds::of(&[Kind::Srv, Kind::Txt, Kind::A, Kind::Aaaa]);
    let not = Kinds::of(&Kind::ALL).without(records.existing());
    unique.without(not)
}

/// What a query says its sender knows already (RFC 6762 §7.1). Found out once for all questions: a packet
/// has room for hundreds of them.
pub(super) struct Known(Kinds);

impl Known {
    /// The sets of which all is known, and will be for half of its lifetime.
    pub(super) fn of(records: &Records<'_>, message: &Message<'_>) -> Self {
        if message.header.counts[1] == 0 {
            return Known(Kinds::NONE);
        }
        let known = records.existing().iter().filter(|kind| knows(records, message, *kind));
        Known(known.fold(Kinds::NONE, |set, kind| set.with(Kinds::of(&[kind]))))
    }

    pub(super) fn unknown_of(&self, kinds: Kinds) -> Kinds {
        kinds.without(self.0)
    }
}

fn knows(records: &Records<'_>, message: &Message<'_>, kind: Kind) -> bool {
    let (mut any, mut all) = (false, true);
    records.each_rdata(kind, |ours| {
        any = true;
        all &= message.records().any(|record| {
            let alike = record.section == Section::Answer && record.rtype == kind.rtype();
            alike
                && record.ttl_s >= kind.ttl_s() / 2
                && records.with_name(kind.owner(), |name| record.name.is(name))
                && expanded(&record) == ours
        });
    });
    any && all
}

/// RFC 6762 §8.2: our proposed records of a name against somebody else's, each sorted by class, type
/// and data. `Less`: ours lose. `Equal` also when the other proposes nothing for that name.
pub(super) fn tie_break(records: &Records<'_>, owner: Owner, message: &Message<'_>) -> Ordering {
    let mut ours: Vec<Proposal, ADDRESSES> = Vec::new();
    for kind in proposed(records).iter().filter(|kind| kind.owner() == owner) {
        records.each_rdata(kind, |rdata| {
            let rdata = Vec::from_slice(rdata).unwrap_or_default();
            let _ = ours.push(Proposal { class: CLASS_IN, rtype: kind.rtype(), rdata });
        });
    }
    let mut theirs: Vec<Proposal, ADDRESSES> = Vec::new();
    for record in message.records().filter(|r| r.section == Section::Authority) {
        if records.owner_of(record.name) == Some(owner) {
            let _ = theirs.push(Proposal { class: record.class, rtype: record.rtype, rdata: expanded(&record) });
        }
    }
    if theirs.is_empty() {
        return Ordering::Equal;
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    ours.cmp(&theirs)
}

/// The order of the fields is the order of comparison.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Proposal {
    class: u16,
    rtype: u16,
    rdata: Vec<u8, RDATA_BYTES>,
}

/// Record data with its name expanded, cut where ours would have ended long before.
fn expanded(record: &dns::Record<'_>) -> Vec<u8, RDATA_BYTES> {
    if !matches!(record.rtype, dns::TYPE_PTR | dns::TYPE_SRV) {
        return record.rdata().iter().copied().take(RDATA_BYTES).collect();
    }
    let mut rdata = Vec::new();
    let _ = rdata.resize_default(RDATA_BYTES);
    let mut w = Writer::new(&mut rdata);
    record.expand_rdata(&mut w);
    let len = w.len();
    rdata.truncate(len);
    rdata
}

const RESPONSE: u16 = dns::FLAG_RESPONSE | dns::FLAG_AUTHORITATIVE;
/// RFC 6762 §8.1.
const PROBES: u8 = 3;
/// RFC 6762 §8.1.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// RFC 6762 §6.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 6762 §6, for answers to probes.
const DEFENCE_INTERVAL: Duration = Duration::from_millis(250);
/// Pauses between the announcements of a change (RFC 6762 §8.3 asks for one repetition; Wi-Fi drops
/// multicast, so there are three).
const BURST_S: [u64; 3] = [1, 2, 4];
/// Announcements this long after the first: after a power cut of the whole home the camera is up
/// before the access point and the hubs are. With the burst they stay within the eight of RFC 6762 §8.3.
const LATE_S: [u64; 3] = [30, 120, 300];
