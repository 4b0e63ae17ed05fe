//! The records of one HAP accessory: made when asked for, never stored (HAP R2 §6.4, RFC 6763).

use super::Address;
use crate::wire::dns::{self, CLASS_IN, CLASS_TOP_BIT, Emitter, Section};
use crate::wire::{Full, Writer};
use core::net::IpAddr;
use heapless::String;

/// A label of a name.
pub type Label = String<{ dns::LABEL_BYTES }>;

/// Service type, RFC 6763 §4.1.2.
const SERVICE: [&[u8]; 3] = [b"_hap", b"_tcp", b"local"];
/// Enumeration of service types, RFC 6763 §9.
const SERVICES: [&[u8]; 4] = [b"_services", b"_dns-sd", b"_udp", b"local"];

/// Lifetime of records that bear the host name (RFC 6762 §10).
const HOST_TTL_S: u32 = 120;
/// Lifetime of all others.
const OTHER_TTL_S: u32 = 4500;
/// Upper limit for legacy answers (RFC 6762 §6.7).
const LEGACY_TTL_S: u32 = 10;

/// What a controller reads before it connects (HAP R2 §6.4, table 6-7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txt {
    /// `c#`: configuration number, 1…65535.
    pub config_number: u16,
    /// `id`: `XX:XX:XX:XX:XX:XX`.
    pub device_id: String<17>,
    /// `md`: the text of the Model characteristic.
    pub model: String<64>,
    /// `sf`: bit 0 not paired, bit 1 not configured for Wi-Fi, bit 2 a problem was detected.
    pub status_flags: u8,
    /// `ci`: accessory category, 17 IP camera, 18 video doorbell.
    pub category: u8,
    /// `sh`: base64 of the setup hash.
    pub setup_hash: String<8>,
}

impl Txt {
    /// Writes the record data: one length-prefixed `key=value` each (RFC 6763 §6.1).
    pub fn emit(&self, w: &mut Writer<'_>) {
        use core::fmt::Arguments;
        let mut pair = |text: Arguments<'_>| {
            let mut line = String::<96>::new();
            // Cannot overflow: the longest is `md=` and 64 bytes.
            if core::fmt::Write::write_fmt(&mut line, text).is_ok() {
                w.u8(line.len() as u8);
                w.bytes(line.as_bytes());
            }
        };
        pair(format_args!("c#={}", self.config_number));
        // No MFi coprocessor, no software token: anything else makes iOS ask for a certificate.
        pair(format_args!("ff=0"));
        pair(format_args!("id={}", self.device_id));
        pair(format_args!("md={}", self.model));
        pair(format_args!("pv=1.1"));
        pair(format_args!("s#=1"));
        pair(format_args!("sf={}", self.status_flags));
        pair(format_args!("ci={}", self.category));
        pair(format_args!("sh={}", self.setup_hash));
    }
}

/// What is advertised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Instance name, see [`instance_label`].
    pub instance: Label,
    /// First label of the host name, see [`host_label`].
    pub host: Label,
    /// TCP port of the HAP listener.
    pub port: u16,
    /// The TXT record.
    pub txt: Txt,
}

/// `name`, a blank and the last four hex digits of `device_id`: unique on the link, and a person
/// recognises it. The name is cut at a character when all would exceed 63 bytes (RFC 6763 §4.1.1).
pub fn instance_label(name: &str, device_id: &str) -> Label {
    let mut digits = String::<5>::new();
    let _ = digits.push(' ');
    hex_digits(device_id).skip(8).take(4).for_each(|c| drop(digits.push(c)));
    with_suffix(name, &digits)
}

/// The host label of an accessory: of the device id, so that it never collides with the host name
/// the firmware's own responder holds.
pub fn host_label(device_id: &str) -> Label {
    let mut label = Label::new();
    let _ = label.push_str("hksvd-");
    hex_digits(device_id).skip(2).take(10).for_each(|c| drop(label.push(c)));
    label
}

fn hex_digits(device_id: &str) -> impl Iterator<Item = char> {
    device_id.chars().filter(char::is_ascii_hexdigit)
}

fn with_suffix(name: &str, suffix: &str) -> Label {
    let mut label = Label::new();
    for c in name.chars() {
        if label.len() + c.len_utf8() + suffix.len() > dns::LABEL_BYTES || label.push(c).is_err() {
            break;
        }
    }
    let _ = label.push_str(suffix);
    label
}

/// The next instance name to try: `Name`, `Name (2)`, `Name (3)` (RFC 6762 §9, appendix D of RFC 6763).
pub(super) fn next_instance(label: &str) -> Label {
    numbered(label, " (", ")")
}

/// The next host label to try: `name`, `name-2`, `name-3` (RFC 6762 §9).
pub(super) fn next_host(label: &str) -> Label {
    // The device id is all digits now and then; it follows the label's first hyphen and is not a number.
    match label.matches('-').count() {
        0 | 1 => with_suffix(label, "-2"),
        _ => numbered(label, "-", ""),
    }
}

fn numbered(label: &str, open: &str, close: &str) -> Label {
    let counted = label.strip_suffix(close).and_then(|counted| {
        let before = counted.trim_end_matches(|c: char| c.is_ascii_digit());
        let number: u16 = counted.strip_prefix(before)?.parse().ok()?;
        Some((before.strip_suffix(open)?, number))
    });
    let (stem, number) = counted.map_or((label, 2), |(stem, number)| (stem, number.saturating_add(1)));
    let mut suffix = String::<16>::new();
    let _ = core::fmt::Write::write_fmt(&mut suffix, format_args!("{open}{number}{close}"));
    with_suffix(stem, &suffix)
}

/// The names that are ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Services,
    Service,
    Instance,
    Host,
}

impl Owner {
    pub(super) const ALL: [Owner; 4] = [Owner::Services, Owner::Service, Owner::Instance, Owner::Host];

    /// Whether nobody else on the link may have it.
    pub(super) fn is_unique(self) -> bool {
        matches!(self, Owner::Instance | Owner::Host)
    }
}

/// The record sets that are ours; an address set is all addresses of its family on the interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// The shared PTRs come first: goodbye is said in this order.
    ServicePtr,
    ServicesPtr,
    Srv,
    Txt,
    A,
    Aaaa,
    InstanceNsec,
    HostNsec,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::ServicePtr,
        Kind::ServicesPtr,
        Kind::Srv,
        Kind::Txt,
        Kind::A,
        Kind::Aaaa,
        Kind::InstanceNsec,
        Kind::HostNsec,
    ];

    pub(super) fn owner(self) -> Owner {
        match self {
            Kind::ServicePtr => Owner::Service,
            Kind::ServicesPtr => Owner::Services,
            Kind::Srv | Kind::Txt | Kind::InstanceNsec => Owner::Instance,
            Kind::A | Kind::Aaaa | Kind::HostNsec => Owner::Host,
        }
    }

    pub(super) fn rtype(self) -> u16 {
        match self {
            Kind::ServicePtr | Kind::ServicesPtr => dns::TYPE_PTR,
            Kind::Srv => dns::TYPE_SRV,
            Kind::Txt => dns::TYPE_TXT,
            Kind::A => dns::TYPE_A,
            Kind::Aaaa => dns::TYPE_AAAA,
            Kind::InstanceNsec | Kind::HostNsec => dns::TYPE_NSEC,
        }
    }

    pub(super) fn ttl_s(self) -> u32 {
        match self {
            Kind::ServicePtr | Kind::ServicesPtr | Kind::Txt | Kind::InstanceNsec => OTHER_TTL_S,
            Kind::Srv | Kind::A | Kind::Aaaa | Kind::HostNsec => HOST_TTL_S,
        }
    }
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const NONE: Kinds = Kinds(0);

    pub(super) fn of(kinds: &[Kind]) -> Kinds {
        Kinds(kinds.iter().fold(0, |set, kind| set | 1 << *kind as u8))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    pub(super) fn with(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    pub(super) fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

/// How a record is dressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// A multicast DNS response.
    Plain,
    /// TTL 0 (RFC 6762 §10.1).
    Goodbye,
    /// For a resolver that knows only unicast DNS (RFC 6762 §6.7).
    Legacy,
    /// Proposed in a probe: no cache-flush bit (RFC 6762 §10.2).
    Proposed,
}

/// The records as they are on one interface.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub service: &'a Service,
    pub addresses: &'a [Address],
}

impl Records<'_> {
    /// Calls `f` with the labels of a name.
    pub(super) fn with_name<R>(&self, owner: Owner, f: impl FnOnce(&[&[u8]]) -> R) -> R {
        match owner {
            Owner::Services => f(&SERVICES),
            Owner::Service => f(&SERVICE),
            Owner::Instance => f(&[self.service.instance.as_bytes(), SERVICE[0], SERVICE[1], SERVICE[2]]),
            Owner::Host => f(&[self.service.host.as_bytes(), b"local"]),
        }
    }

    /// Which of our names this is.
    pub(super) fn owner_of(&self, name: dns::Name<'_>) -> Option<Owner> {
        Owner::ALL.into_iter().find(|owner| self.with_name(*owner, |labels| name.is(labels)))
    }

    /// The record sets that exist here.
    pub(super) fn existing(&self) -> Kinds {
        let has = |v4| self.addresses.iter().any(|a| a.ip.is_ipv4() == v4);
        let absent = |v4, kind| if has(v4) { Kinds::NONE } else { Kinds::of(&[kind]) };
        Kinds(0xff).without(absent(true, Kind::A)).without(absent(false, Kind::Aaaa))
    }

    /// What answers a question (RFC 6762 §6): the sets of that name and type, or, when a name that is
    /// ours alone does not have that type, the NSEC that says so (§6.1).
    pub(super) fn answers(&self, question: &dns::Question<'_>) -> Option<(Owner, Kinds)> {
        if !matches!(question.class, CLASS_IN | dns::CLASS_ANY) {
            return None;
        }
        let owner = self.owner_of(question.name)?;
        let mine = self.existing().iter().filter(|kind| kind.owner() == owner);
        let wanted = mine.filter(|kind| match question.qtype {
            dns::TYPE_ANY => kind.rtype() != dns::TYPE_NSEC,
            qtype => kind.rtype() == qtype,
        });
        let mut kinds = wanted.fold(Kinds::NONE, |set, kind| set.with(Kinds::of(&[kind])));
        if kinds.is_empty() {
            kinds = match owner {
                Owner::Instance => Kinds::of(&[Kind::InstanceNsec]),
                Owner::Host => Kinds::of(&[Kind::HostNsec]),
                _ => return None,
            };
        }
        Some((owner, kinds))
    }

    /// What a querier will ask for next (RFC 6763 §12).
    pub(super) fn additional(&self, answers: Kinds) -> Kinds {
        let mut more = Kinds::NONE;
        if answers.has(Kind::ServicePtr) {
            more = more.with(Kinds::of(&[Kind::Srv, Kind::Txt, Kind::A, Kind::Aaaa]));
        }
        if answers.has(Kind::Srv) || answers.has(Kind::A) || answers.has(Kind::Aaaa) {
            more = more.with(Kinds::of(&[Kind::A, Kind::Aaaa]));
        }
        // Says that the other address family need not be asked for.
        let all = more.with(answers);
        let absent = Kinds::of(&[Kind::A, Kind::Aaaa]).without(self.existing());
        if !absent.is_empty() && (all.has(Kind::A) || all.has(Kind::Aaaa)) {
            more = more.with(Kinds::of(&[Kind::HostNsec]));
        }
        Kinds(more.0 & self.existing().0).without(answers)
    }

    /// Appends one record set; whether all of it fit.
    pub(super) fn emit(&self, e: &mut Emitter<'_>, section: Section, kind: Kind, form: Form) -> bool {
        let class = match form {
            Form::Plain | Form::Goodbye if kind.owner().is_unique() => CLASS_IN | CLASS_TOP_BIT,
            _ => CLASS_IN,
        };
        let ttl_s = match form {
            Form::Goodbye => 0,
            Form::Legacy => kind.ttl_s().min(LEGACY_TTL_S),
            Form::Plain | Form::Proposed => kind.ttl_s(),
        };
        self.with_name(kind.owner(), |name| {
            let mut one = |rdata: &dyn Fn(&mut Emitter<'_>)| e.record(section, name, kind.rtype(), class, ttl_s, rdata);
            match kind {
                Kind::ServicePtr => one(&|e| self.with_name(Owner::Instance, |labels| e.name(labels))),
                Kind::ServicesPtr => one(&|e| e.name(&SERVICE)),
                Kind::Srv => one(&|e| {
                    self.emit_srv_head(e.writer());
                    self.with_name(Owner::Host, |host| match form {
                        Form::Legacy => e.whole_name(host),
                        _ => e.name(host),
                    });
                }),
                Kind::Txt => one(&|e| self.service.txt.emit(e.writer())),
                Kind::A | Kind::Aaaa => self.addresses_of(kind).all(|ip| one(&|e| emit_address(e.writer(), ip))),
                Kind::InstanceNsec | Kind::HostNsec => one(&|e| {
                    e.name(name);
                    let bitmap = self.type_bitmap(kind.owner());
                    // RFC 4034 §4.1.2: window 0 up to the last byte that is not zero.
                    let length = bitmap.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
                    e.writer().bytes(&[0, length as u8]);
                    e.writer().bytes(&bitmap[..length]);
                }),
            }
        })
    }

    fn emit_srv_head(&self, w: &mut Writer<'_>) {
        // Priority and weight do not matter with one host.
        w.u32_be(0);
        w.u16_be(self.service.port);
    }

    fn addresses_of(&self, kind: Kind) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|a| a.ip).filter(move |ip| ip.is_ipv4() == (kind == Kind::A))
    }

    /// RFC 6762 §6.1: the types a name has, below 256, NSEC itself left out.
    fn type_bitmap(&self, owner: Owner) -> [u8; 6] {
        let mut bitmap = [0; 6];
        for kind in self.existing().iter().filter(|k| k.owner() == owner && k.rtype() != dns::TYPE_NSEC) {
            let rtype = kind.rtype();
            bitmap[usize::from(rtype / 8)] |= 0x80 >> (rtype % 8);
        }
        bitmap
    }

    /// Calls `f` with each record data of a set, names expanded: what RFC 6762 §8.2 compares and §7.1
    /// and §9 call the same.
    pub(super) fn each_rdata(&self, kind: Kind, mut f: impl FnMut(&[u8])) {
        let mut one = |emit: &dyn Fn(&mut Writer<'_>)| {
            let mut buf = [0; RDATA_BYTES];
            let mut w = Writer::new(&mut buf);
            emit(&mut w);
            match w.finish() {
                Ok(rdata) => f(rdata),
                Err(Full) => debug_assert!(false, "record data of {kind:?} exceeds {RDATA_BYTES} bytes"),
            }
        };
        let whole_name = |w: &mut Writer<'_>, owner| {
            self.with_name(owner, |labels| {
                for label in labels {
                    w.u8(label.len() as u8);
                    w.bytes(label);
                }
                w.u8(0);
            });
        };
        match kind {
            Kind::ServicePtr => one(&|w| whole_name(w, Owner::Instance)),
            Kind::ServicesPtr => one(&|w| whole_name(w, Owner::Service)),
            Kind::Srv => one(&|w| {
                self.emit_srv_head(w);
                whole_name(w, Owner::Host);
            }),
            Kind::Txt => one(&|w| self.service.txt.emit(w)),
            Kind::A | Kind::Aaaa => self.addresses_of(kind).for_each(|ip| one(&|w| emit_address(w, ip))),
            Kind::InstanceNsec | Kind::HostNsec => {}
        }
    }

    /// Whether a record's data is one of a set of ours. Names compare without case.
    pub(super) fn is_ours(&self, kind: Kind, record: &dns::Record<'_>) -> bool {
        let mut buf = [0; RDATA_BYTES];
        let mut w = Writer::new(&mut buf);
        record.expand_rdata(&mut w);
        // What is longer than anything of ours is not ours.
        let Ok(theirs) = w.finish() else { return false };
        let mut same = false;
        self.each_rdata(kind, |ours| {
            same |= match kind {
                Kind::ServicePtr | Kind::ServicesPtr => ours.eq_ignore_ascii_case(theirs),
                Kind::Srv => match (ours.split_at_checked(6), theirs.split_at_checked(6)) {
                    (Some((head, host)), Some((head_2, host_2))) => head == head_2 && host.eq_ignore_ascii_case(host_2),
                    _ => false,
                },
                _ => ours == &*theirs,
            }
        });
        same
    }
}

/// Room for the longest record data, expanded.
pub(super) const RDATA_BYTES: usize = 384;

fn emit_address(w: &mut Writer<'_>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => w.bytes(&ip.octets()),
        IpAddr::V6(ip) => w.bytes(&ip.octets()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn txt() -> Txt {
        let text = |s: &str| s.try_into().unwrap();
        Txt {
            config_number: 1,
            device_id: "1A:2B:3C:4D:5E:6F".try_into().unwrap(),
            model: text("hksvd"),
            status_flags: 1,
            category: 17,
            setup_hash: "CVFzcA==".try_into().unwrap(),
        }
    }

    #[test]
    fn txt_is_the_golden_record_data() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/setup.json")).unwrap();
        let golden = vectors["txt_example"]["rdata"].as_str().unwrap();
        let mut buf = [0; 256];
        let mut w = Writer::new(&mut buf);
        txt().emit(&mut w);
        let hex: std::string::String = w.written().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn the_longest_txt_fits() {
        let long = Txt {
            config_number: u16::MAX,
            model: "x".repeat(64).as_str().try_into().unwrap(),
            status_flags: 255,
            category: 255,
            ..txt()
        };
        let mut buf = [0; RDATA_BYTES];
        let mut w = Writer::new(&mut buf);
        long.emit(&mut w);
        let (mut rest, mut keys) = (w.written(), Vec::new());
        while let Some((length, more)) = rest.split_first() {
            let (line, more) = more.split_at(usize::from(*length));
            keys.push(std::string::String::from_utf8_lossy(&line[..2]).into_owned());
            rest = more;
        }
        assert_eq!(keys, ["c#", "ff", "id", "md", "pv", "s#", "sf", "ci", "sh"]);
        assert!(w.written().windows(68).any(|s| s.starts_with(b"\x43md=") && s[4..].iter().all(|b| *b == b'x')));
    }

    #[test]
    fn labels_come_from_name_and_device_id() {
        assert_eq!(instance_label("Garden", "1A:2B:3C:4D:5E:6F"), "Garden 5E6F");
        assert_eq!(host_label("1A:2B:3C:4D:5E:6F"), "hksvd-2B3C4D5E6F");
        let long = instance_label(&"ü".repeat(40), "1A:2B:3C:4D:5E:6F");
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("ü 5E6F"));
    }

    #[test]
    fn renaming_counts_up_and_stays_short() {
        assert_eq!(next_instance("Garden 5E6F"), "Garden 5E6F (2)");
        assert_eq!(next_instance("Garden 5E6F (2)"), "Garden 5E6F (3)");
        assert_eq!(next_instance("Garden (old)"), "Garden (old) (2)");
        for none in ["(2)", "Garden ()", "Garden(2)", "Garden (2", "Garden (+2)", "Garden (65536)"] {
            assert_eq!(next_instance(none), format!("{none} (2)").as_str());
        }
        assert_eq!(next_host("hksvd-2B3C4D5E6F"), "hksvd-2B3C4D5E6F-2");
        assert_eq!(next_host("hksvd-1234567890"), "hksvd-1234567890-2");
        assert_eq!(next_host("hksvd-2B3C4D5E6F-9"), "hksvd-2B3C4D5E6F-10");
        let long = next_instance(&"ü".repeat(31));
        assert!(long.len() <= 63 && long.ends_with("ü (2)"));
    }
}
