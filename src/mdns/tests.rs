use super::records::tests::txt;
use super::*;
use crate::wire::dns::{CLASS_IN, CLASS_TOP_BIT, Message, Record, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_PTR, TYPE_SRV};
use std::vec::Vec;

const LAN: InterfaceId = InterfaceId(3);
const SERVICE: &[&[u8]] = &[b"_hap", b"_tcp", b"local"];
const SERVICES: &[&[u8]] = &[b"_services", b"_dns-sd", b"_udp", b"local"];
const INSTANCE: &[&[u8]] = &[b"Garden 5E6F", b"_hap", b"_tcp", b"local"];
const HOST: &[&[u8]] = &[b"hksvd-2B3C4D5E6F", b"local"];
const QU: u16 = CLASS_IN | CLASS_TOP_BIT;

fn service() -> Service {
    let id = txt().device_id;
    Service { instance: instance_label("Garden", &id), host: host_label(&id), port: 51826, txt: txt() }
}

fn address(text: &str) -> Address {
    let (ip, prefix) = text.split_once('/').unwrap();
    Address { ip: ip.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn ms(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

struct Sent {
    at_ms: u64,
    transmit: Transmit,
    bytes: Vec<u8>,
}

impl Sent {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn records(&self) -> Vec<Record<'_>> {
        Message::parse(&self.bytes).unwrap().records().collect()
    }

    fn types(&self, section: Section) -> Vec<u16> {
        self.records().iter().filter(|r| r.section == section).map(|r| r.rtype).collect()
    }

    fn is_probe(&self) -> bool {
        !self.message().header.is_response()
    }
}

/// A responder and its clock.
struct Bench {
    responder: Responder,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Bench { responder: Responder::new(service(), 99), now_ms: 0 }
    }

    fn with(addresses: &[&str]) -> Self {
        let mut bench = Bench::new();
        let addresses: Vec<_> = addresses.iter().map(|a| address(a)).collect();
        bench.responder.set_addresses(LAN, &addresses, ms(0));
        bench
    }

    /// On one IPv4 network, all announcements done and a second passed.
    fn announced() -> Self {
        let mut bench = Bench::with(&["192.0.2.7/24"]);
        bench.run_to(302_000);
        assert!(bench.responder.is_announced());
        bench
    }

    fn drain(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let mut out = [0; PACKET_BYTES];
        while let Some(transmit) = self.responder.poll_transmit(ms(self.now_ms), &mut out) {
            sent.push(Sent { at_ms: self.now_ms, transmit, bytes: out[..transmit.len].to_vec() });
            assert!(sent.len() < 20, "does not end");
        }
        sent
    }

    /// Everything sent until then, timers fired when they are due and not before.
    fn run_to(&mut self, end_ms: u64) -> Vec<Sent> {
        let mut sent = self.drain();
        let mut steps = 0;
        while let Some(due) = self.responder.poll_timeout().filter(|due| *due <= ms(end_ms)) {
            self.now_ms = self.now_ms.max(due.as_micros().div_ceil(1000));
            self.responder.handle_timeout(ms(self.now_ms));
            sent.extend(self.drain());
            steps += 1;
            assert!(steps < 1000, "spins");
        }
        self.now_ms = end_ms;
        sent
    }

    fn run(&mut self, for_ms: u64) -> Vec<Sent> {
        self.run_to(self.now_ms + for_ms)
    }

    fn hear(&mut self, from: &str, multicast: bool, bytes: &[u8]) {
        self.responder.handle_packet(from.parse().unwrap(), LAN, multicast, bytes, ms(self.now_ms));
    }

    /// A multicast question, and what is sent within two seconds.
    fn ask(&mut self, name: &[&[u8]], qtype: u16, class: u16) -> Vec<Sent> {
        self.hear("192.0.2.9:5353", true, &query(name, qtype, class));
        self.run(2000)
    }
}

fn packet<R>(id: u16, flags: u16, fill: impl FnOnce(&mut Emitter<'_>) -> R) -> Vec<u8> {
    let mut out = vec![0; 1400];
    let mut e = Emitter::new(&mut out, id, flags);
    fill(&mut e);
    let len = e.finish();
    out.truncate(len);
    out
}

fn query(name: &[&[u8]], qtype: u16, class: u16) -> Vec<u8> {
    packet(0, 0, |e| e.question(name, qtype, class))
}

fn put_srv(e: &mut Emitter<'_>, section: Section, instance: &[&[u8]], port: u16, host: &[&[u8]], ttl_s: u32) {
    e.record(section, instance, TYPE_SRV, QU, ttl_s, |e| {
        e.writer().bytes(&[0; 4]);
        e.writer().u16_be(port);
        e.name(host);
    });
}

/// Somebody else's claim to our instance name.
fn foreign_srv(ttl_s: u32) -> Vec<u8> {
    packet(0, 0x8400, |e| put_srv(e, Section::Answer, INSTANCE, 1, &[b"other", b"local"], ttl_s))
}

fn foreign_a() -> Vec<u8> {
    packet(0, 0x8400, |e| e.record(Section::Answer, HOST, TYPE_A, QU, 120, |e| e.writer().bytes(&[192, 0, 2, 99])))
}

#[test]
fn probes_three_times_then_announces() {
    let mut bench = Bench::with(&["192.0.2.7/24", "2001:db8::7/64", "fe80::7/64"]);
    let sent = bench.run_to(20_000);
    for family in [Family::V4, Family::V6] {
        let sent: Vec<_> = sent.iter().filter(|s| s.transmit.family == family).collect();
        assert!(sent.iter().all(|s| s.transmit.to == To::Multicast && s.transmit.interface == LAN));
        let first = sent[0].at_ms;
        assert!(first <= 250);
        let times: Vec<_> = sent.iter().map(|s| s.at_ms - first).collect();
        assert_eq!(times, [0, 250, 500, 750, 1750, 3750, 7750]);
        for probe in &sent[..3] {
            assert!(probe.is_probe());
            let message = probe.message();
            let questions: Vec<_> = message.questions().collect();
            assert!(questions[0].name.is(INSTANCE) && questions[1].name.is(HOST));
            assert!(questions.iter().all(|q| q.qtype == TYPE_ANY && q.class == CLASS_IN && !q.unicast));
            assert_eq!(probe.types(Section::Authority), [33, 16, 1, 28, 28]);
            assert!(probe.records().iter().all(|r| !r.cache_flush));
        }
        for announcement in &sent[3..] {
            assert_eq!(announcement.message().header.flags, 0x8400);
            assert_eq!(announcement.types(Section::Answer), [12, 12, 33, 16, 1, 28, 28]);
        }
    }
}

#[test]
fn announcements_carry_lifetimes_and_cache_flush() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    let sent = bench.run_to(2_000);
    let records = sent[3].records();
    let row = |r: &Record<'_>| (r.rtype, r.ttl_s, r.cache_flush, r.section);
    use Section::*;
    assert_eq!(
        records.iter().map(row).collect::<Vec<_>>(),
        [
            (12, 4500, false, Answer),
            (12, 4500, false, Answer),
            (33, 120, true, Answer),
            (16, 4500, true, Answer),
            (1, 120, true, Answer),
            (47, 120, true, Additional),
        ]
    );
    assert!(records[0].name.is(SERVICE) && records[0].rdata_name(0).unwrap().is(INSTANCE));
    assert!(records[1].name.is(SERVICES) && records[1].rdata_name(0).unwrap().is(SERVICE));
    assert_eq!(records[2].rdata()[..6], [0, 0, 0, 0, 0xca, 0x72]);
    assert!(records[2].rdata_name(6).unwrap().is(HOST));
    assert_eq!(records[4].rdata(), [192, 0, 2, 7]);
    // NSEC of the host: itself, window 0, one byte, bit 1 = A.
    assert!(records[5].rdata().ends_with(&[0, 1, 0x40]));
}

#[test]
fn announcements_repeat_for_minutes() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    let first = bench.run_to(2_000)[3].at_ms;
    let later: Vec<_> = bench.run_to(3_600_000).iter().map(|s| s.at_ms - first).collect();
    assert_eq!(later, [3_000, 7_000, 30_000, 120_000, 300_000]);
    assert_eq!(bench.responder.poll_timeout(), None);
}

#[test]
fn unicast_probes_are_a_choice() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    bench.responder.set_unicast_probes(true);
    assert!(bench.run_to(250)[0].message().questions().all(|q| q.unicast));
}

#[test]
fn answers_nothing_while_probing() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    bench.hear("192.0.2.9:5353", true, &query(SERVICE, TYPE_PTR, QU));
    bench.hear("192.0.2.9:40000", true, &query(SERVICE, TYPE_PTR, CLASS_IN));
    assert!(bench.run_to(700).iter().all(Sent::is_probe));
}

#[test]
fn a_browse_is_answered_after_a_random_delay_with_all_that_follows() {
    let mut bench = Bench::announced();
    let asked = bench.now_ms;
    let sent = bench.ask(SERVICE, TYPE_PTR, CLASS_IN);
    assert_eq!(sent.len(), 1);
    assert!((20..=120).contains(&(sent[0].at_ms - asked)), "{}", sent[0].at_ms - asked);
    assert_eq!(sent[0].transmit.to, To::Multicast);
    assert_eq!(sent[0].types(Section::Answer), [12]);
    assert_eq!(sent[0].types(Section::Additional), [33, 16, 1, 47]);
    assert_eq!((sent[0].message().header.id, sent[0].message().header.counts[0]), (0, 0));
}

#[test]
fn a_question_for_what_is_ours_alone_is_answered_at_once() {
    let mut bench = Bench::announced();
    for (name, qtype, answer) in [
        (INSTANCE, TYPE_SRV, vec![33]),
        (INSTANCE, 16, vec![16]),
        (HOST, TYPE_A, vec![1]),
        (INSTANCE, TYPE_ANY, vec![33, 16]),
        (HOST, TYPE_AAAA, vec![47]),
        (INSTANCE, TYPE_A, vec![47]),
    ] {
        let asked = bench.now_ms;
        let sent = bench.ask(name, qtype, CLASS_IN);
        assert_eq!((sent.len(), sent[0].at_ms), (1, asked), "{qtype}");
        assert_eq!(sent[0].types(Section::Answer), answer);
    }
    assert_eq!(bench.ask(SERVICES, TYPE_PTR, dns::CLASS_ANY).len(), 1);
    assert!(bench.ask(SERVICE, TYPE_SRV, CLASS_IN).is_empty(), "no negative answer for what is shared");
    assert!(bench.ask(&[b"else", b"local"], TYPE_ANY, CLASS_IN).is_empty());
    assert!(bench.ask(HOST, TYPE_A, 3).is_empty(), "another class");
}

#[test]
fn names_are_recognised_without_case() {
    let mut bench = Bench::announced();
    assert_eq!(bench.ask(&[b"_HAP", b"_Tcp", b"LOCAL"], TYPE_PTR, CLASS_IN).len(), 1);
}

#[test]
fn nsec_names_the_types_there_are() {
    let mut bench = Bench::announced();
    let sent = bench.ask(INSTANCE, 13, CLASS_IN);
    // TXT is bit 16: byte 2, 0x80; SRV is bit 33: byte 4, 0x40.
    assert!(sent[0].records()[0].rdata().ends_with(&[0, 5, 0, 0, 0x80, 0, 0x40]));
    assert!(sent[0].records()[0].rdata_name(0).is_err(), "the bitmap follows the name");
}

fn browse_knowing(ttl_s: u32, instance: &[&[u8]]) -> Vec<u8> {
    packet(0, 0, |e| {
        e.question(SERVICE, TYPE_PTR, CLASS_IN);
        e.record(Section::Answer, SERVICE, TYPE_PTR, CLASS_IN, ttl_s, |e| e.name(instance));
    })
}

#[test]
fn known_answers_are_not_repeated() {
    let mut bench = Bench::announced();
    bench.hear("192.0.2.9:5353", true, &browse_knowing(2250, INSTANCE));
    assert!(bench.run(2000).is_empty());
    bench.hear("192.0.2.9:5353", true, &browse_knowing(2249, INSTANCE));
    assert_eq!(bench.run(2000).len(), 1, "less than half of its lifetime left");
    bench.hear("192.0.2.9:5353", true, &browse_knowing(4500, &[b"Other", b"_hap", b"_tcp", b"local"]));
    assert_eq!(bench.run(2000).len(), 1, "not ours");
}

#[test]
fn an_address_set_is_known_when_all_of_it_is() {
    let mut bench = Bench::with(&["192.0.2.7/24", "192.0.2.8/24"]);
    bench.run_to(302_000);
    let knowing = |ips: &[u8]| {
        packet(0, 0, |e| {
            e.question(HOST, TYPE_A, CLASS_IN);
            for ip in ips {
                e.record(Section::Answer, HOST, TYPE_A, CLASS_IN, 120, |e| e.writer().bytes(&[192, 0, 2, *ip]));
            }
        })
    };
    bench.hear("192.0.2.9:5353", true, &knowing(&[7]));
    assert_eq!(bench.run(2000).len(), 1);
    bench.hear("192.0.2.9:5353", true, &knowing(&[7, 8]));
    assert!(bench.run(2000).is_empty());
}

#[test]
fn known_answers_may_follow_in_another_packet() {
    let truncated = packet(0, dns::FLAG_TRUNCATED, |e| e.question(SERVICE, TYPE_PTR, CLASS_IN));
    let more = packet(0, 0, |e| {
        e.record(Section::Answer, SERVICE, TYPE_PTR, CLASS_IN, 4500, |e| e.name(INSTANCE));
    });
    let mut bench = Bench::announced();
    bench.hear("192.0.2.9:5353", true, &truncated);
    assert!(bench.run(390).is_empty());
    bench.hear("192.0.2.9:5353", true, &more);
    assert!(bench.run(2000).is_empty());
    // Without it, and with it from somebody else, the answer comes after 400 to 500 ms.
    bench.hear("192.0.2.9:5353", true, &truncated);
    bench.hear("192.0.2.10:5353", true, &more);
    let asked = bench.now_ms;
    let sent = bench.run(2000);
    assert!((400..=500).contains(&(sent[0].at_ms - asked)));
    // Two who ask: the known answers of one do not silence the answer to the other.
    bench.hear("192.0.2.9:5353", true, &truncated);
    bench.hear("192.0.2.10:5353", true, &query(SERVICE, TYPE_PTR, CLASS_IN));
    bench.hear("192.0.2.9:5353", true, &more);
    assert_eq!(bench.run(2000).len(), 1);
}

#[test]
fn a_record_is_multicast_once_a_second() {
    let mut bench = Bench::announced();
    let mut times = Vec::new();
    for _ in 0..30 {
        bench.hear("192.0.2.9:5353", true, &query(HOST, TYPE_A, CLASS_IN));
        times.extend(bench.run(100).iter().map(|s| s.at_ms));
    }
    assert_eq!(times.len(), 4);
    assert!(times.windows(2).all(|w| w[1] - w[0] >= 1000), "{times:?}");
}

#[test]
fn a_probe_for_our_name_is_refused_at_once() {
    let mut bench = Bench::announced();
    let probe = packet(0, 0, |e| {
        e.question(INSTANCE, TYPE_ANY, QU);
        put_srv(e, Section::Authority, INSTANCE, 1, &[b"other", b"local"], 120);
    });
    let to_group = |sent: Vec<Sent>| -> Vec<u64> {
        sent.iter().filter(|s| s.transmit.to == To::Multicast).map(|s| s.at_ms).collect()
    };
    let start = bench.now_ms;
    bench.hear("192.0.2.9:5353", true, &query(INSTANCE, TYPE_ANY, CLASS_IN));
    assert_eq!(to_group(bench.run(300)), [start]);
    // The records were sent just now; a probe does not wait for the second to pass.
    bench.hear("192.0.2.9:5353", true, &probe);
    let sent = bench.run(100);
    assert_eq!(sent[0].transmit.to, To::Unicast("192.0.2.9:5353".parse().unwrap()), "it has the QU bit");
    assert_eq!(to_group(sent), [start + 300]);
    // But no more than once in 250 ms.
    bench.hear("192.0.2.9:5353", true, &probe);
    assert_eq!(to_group(bench.run(2000)), [start + 550]);
}

#[test]
fn unicast_answers_are_multicast_too() {
    let mut bench = Bench::announced();
    let sent = bench.ask(SERVICE, TYPE_PTR, QU);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].transmit.to, To::Unicast("192.0.2.9:5353".parse().unwrap()));
    assert_eq!(sent[0].types(Section::Answer), [12]);
    assert!(sent[0].records().iter().any(|r| r.cache_flush));
    assert_eq!(sent[1].transmit.to, To::Multicast);
    // A query sent to our address counts as one.
    bench.hear("192.0.2.9:5353", false, &query(HOST, TYPE_A, CLASS_IN));
    assert_eq!(bench.run(2000).len(), 2);
}

#[test]
fn legacy_queries_get_a_plain_dns_answer() {
    let mut bench = Bench::announced();
    let legacy = packet(0x1234, 0x0100, |e| e.question(INSTANCE, TYPE_SRV, CLASS_IN));
    bench.hear("192.0.2.9:40000", true, &legacy);
    let sent = bench.run(2000);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].transmit.to, To::Unicast("192.0.2.9:40000".parse().unwrap()));
    let message = sent[0].message();
    assert_eq!((message.header.id, message.header.flags), (0x1234, 0x8400));
    let question = message.questions().next().unwrap();
    assert!(question.name.is(INSTANCE) && question.qtype == TYPE_SRV && !question.unicast);
    assert!(message.records().all(|r| r.ttl_s <= 10 && !r.cache_flush && r.class == CLASS_IN));
    let srv = message.records().next().unwrap();
    assert!(srv.rdata().ends_with(b"\x10hksvd-2B3C4D5E6F\x05local\0"), "the target is not compressed");
}

#[test]
fn nothing_is_sent_to_who_is_not_on_the_link() {
    let mut bench = Bench::announced();
    bench.hear("198.51.100.9:40000", true, &query(SERVICE, TYPE_PTR, CLASS_IN));
    bench.hear("198.51.100.9:5353", false, &query(SERVICE, TYPE_PTR, CLASS_IN));
    assert!(bench.run(2000).is_empty());
    bench.hear("198.51.100.9:5353", true, &foreign_srv(120));
    bench.hear("192.0.2.9:40000", true, &foreign_srv(120));
    assert!(bench.responder.is_announced() && bench.run(2000).is_empty(), "not a response of this link");
    assert!(address("10.0.0.1/0").is_on_link("1.2.3.4".parse().unwrap()));
    assert!(!address("10.0.0.1/33").is_on_link("10.0.0.2".parse().unwrap()));
    assert!(!address("2001:db8::1/64").is_on_link("2001:db8:0:1::1".parse().unwrap()));
}

#[test]
fn a_name_held_by_another_is_left_to_it() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    bench.run_to(600);
    bench.hear("192.0.2.9:5353", true, &foreign_srv(120));
    let instance: Label = "Garden 5E6F (2)".try_into().unwrap();
    assert_eq!(bench.responder.poll_event(), Some(Event::Renamed { instance: instance.clone() }));
    assert_eq!(bench.responder.poll_event(), None);
    let sent = bench.run_to(3000);
    let new: &[&[u8]] = &[instance.as_bytes(), b"_hap", b"_tcp", b"local"];
    assert_eq!(sent.iter().filter(|s| s.is_probe()).count(), 3, "the new name is probed");
    assert!(sent[0].message().questions().next().unwrap().name.is(new));
    assert!(sent[3].records()[0].rdata_name(0).unwrap().is(new));
    assert_eq!(bench.responder.service().host, "hksvd-2B3C4D5E6F");
}

#[test]
fn a_host_name_held_by_another_changes_only_the_host() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    bench.run_to(600);
    bench.hear("192.0.2.9:5353", true, &foreign_a());
    assert_eq!(
        bench.responder.poll_event(),
        Some(Event::HostRenamed { host: "hksvd-2B3C4D5E6F-2".try_into().unwrap() })
    );
    assert_eq!(bench.responder.service().instance, "Garden 5E6F");
}

#[test]
fn a_conflict_after_the_announcement_is_probed_before_it_is_believed() {
    let mut bench = Bench::announced();
    bench.hear("192.0.2.9:5353", true, &foreign_srv(0));
    assert!(bench.responder.is_announced(), "a goodbye is no claim");
    bench.hear("192.0.2.9:5353", true, &foreign_srv(120));
    assert!(!bench.responder.is_announced());
    let sent = bench.run(2000);
    assert_eq!(sent.iter().filter(|s| s.is_probe()).count(), 3);
    assert!(bench.responder.is_announced());
    assert_eq!(bench.responder.poll_event(), None, "nobody defended it");
}

#[test]
fn many_conflicts_slow_the_probing_down() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    for _ in 0..14 {
        let service = bench.responder.service().clone();
        let claim = packet(0, 0x8400, |e| {
            put_srv(e, Section::Answer, &[service.instance.as_bytes(), b"_hap", b"_tcp", b"local"], 1, HOST, 120)
        });
        bench.hear("192.0.2.9:5353", true, &claim);
        assert!(bench.responder.poll_timeout().unwrap() - ms(bench.now_ms) <= Duration::from_millis(250));
    }
    assert_eq!(bench.responder.service().instance, "Garden 5E6F (15)");
    let claim = packet(0, 0x8400, |e| {
        put_srv(e, Section::Answer, &[b"Garden 5E6F (15)", b"_hap", b"_tcp", b"local"], 1, HOST, 120)
    });
    bench.hear("192.0.2.9:5353", true, &claim);
    assert!(bench.responder.poll_timeout().unwrap() - ms(bench.now_ms) >= Duration::from_secs(5));
}

fn probe_with_port(port: u16) -> Vec<u8> {
    packet(0, 0, |e| {
        e.question(INSTANCE, TYPE_ANY, QU);
        let mut buf = [0; 384];
        let mut w = crate::wire::Writer::new(&mut buf);
        txt().emit(&mut w);
        // In the wrong order: the comparison sorts.
        put_srv(e, Section::Authority, INSTANCE, port, HOST, 120);
        e.record(Section::Authority, INSTANCE, 16, CLASS_IN, 4500, |e| e.writer().bytes(w.written()));
    })
}

#[test]
fn of_two_who_probe_the_lower_waits_a_second() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    bench.run_to(300);
    bench.hear("192.0.2.9:5353", true, &probe_with_port(51825));
    bench.hear("192.0.2.9:5353", true, &probe_with_port(51826));
    assert!(bench.responder.poll_timeout().unwrap() <= ms(550), "ours is later, or the same");
    bench.hear("192.0.2.9:5353", true, &probe_with_port(51827));
    assert_eq!(bench.responder.poll_timeout(), Some(ms(1300)));
    assert_eq!(bench.run_to(5000).iter().filter(|s| s.is_probe()).count(), 3);
    assert_eq!(bench.responder.poll_event(), None);
}

#[test]
fn a_long_proposal_is_compared_by_its_start() {
    for (first, wins) in [(0, true), (0xff, false)] {
        let probe = packet(0, 0, |e| {
            e.question(INSTANCE, TYPE_ANY, QU);
            e.record(Section::Authority, INSTANCE, 16, CLASS_IN, 4500, |e| {
                e.writer().u8(first);
                e.writer().bytes(&[b'x'; 999]);
            });
        });
        let mut bench = Bench::with(&["192.0.2.7/24"]);
        bench.run_to(300);
        bench.hear("192.0.2.9:5353", true, &probe);
        assert_eq!(bench.responder.poll_timeout().unwrap() < ms(1000), wins);
    }
}

#[test]
fn no_change_of_one_byte_of_what_is_heard_panics() {
    let browse = browse_knowing(4500, INSTANCE);
    for good in [browse, probe_with_port(51827), foreign_srv(120), foreign_a()] {
        for end_ms in [300, 302_000] {
            let mut bench = Bench::with(&["192.0.2.7/24"]);
            bench.run_to(end_ms);
            for at in 0..good.len() {
                for value in [0, 0x3f, 0x80, 0xc0, 0xff] {
                    let mut bytes = good.clone();
                    bytes[at] = value;
                    bench.hear("192.0.2.9:5353", true, &bytes);
                    bench.hear("192.0.2.9:999", false, &bytes);
                    bench.run(1);
                }
            }
        }
    }
}

#[test]
fn our_own_packets_are_no_conflict() {
    let mut bench = Bench::with(&["192.0.2.7/24", "fe80::7/64"]);
    for _ in 0..40 {
        let end_ms = bench.now_ms + 100;
        for sent in bench.run_to(end_ms) {
            let from = if sent.transmit.family == Family::V4 { "192.0.2.7:5353" } else { "[fe80::7]:5353" };
            bench.hear(from, true, &sent.bytes);
        }
    }
    assert!(bench.responder.is_announced());
    assert_eq!(bench.responder.poll_event(), None);
    // Nor is one that was under way while the record changed.
    let old = bench.ask(INSTANCE, TYPE_ANY, CLASS_IN).remove(0).bytes;
    bench.responder.set_txt(Txt { status_flags: 0, ..txt() }, ms(bench.now_ms));
    bench.hear("192.0.2.7:5353", true, &old);
    assert!(bench.responder.is_announced());
}

#[test]
fn two_interfaces_on_one_network_do_not_fight() {
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    let second = InterfaceId(4);
    bench.responder.set_addresses(second, &[address("192.0.2.8/24")], ms(0));
    for _ in 0..60 {
        for sent in bench.run(50) {
            let (other, from) =
                if sent.transmit.interface == LAN { (second, "192.0.2.7:5353") } else { (LAN, "192.0.2.8:5353") };
            let now = ms(bench.now_ms);
            bench.responder.handle_packet(from.parse().unwrap(), other, true, &sent.bytes, now);
        }
    }
    assert!(bench.responder.is_announced());
    assert_eq!(bench.responder.poll_event(), None);
}

#[test]
fn goodbye_takes_every_record_back_pointers_first() {
    let mut bench = Bench::announced();
    bench.responder.goodbye();
    assert!(bench.responder.is_leaving());
    let sent = bench.run(10_000);
    assert!(!bench.responder.is_leaving());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].types(Section::Answer), [12, 12, 33, 16, 1]);
    assert!(sent[0].records().iter().all(|r| r.ttl_s == 0));
    assert!(bench.ask(SERVICE, TYPE_PTR, QU).is_empty(), "silent");
    assert_eq!(bench.responder.poll_timeout(), None);
    // Who never announced has nothing to take back.
    let mut bench = Bench::with(&["192.0.2.7/24"]);
    bench.run_to(300);
    bench.responder.goodbye();
    assert!(bench.run(10_000).is_empty());
}

#[test]
fn another_identity_starts_with_a_probe() {
    let mut bench = Bench::announced();
    bench.responder.goodbye();
    bench.run(10);
    let id = "AA:BB:CC:DD:EE:FF";
    let new = Service { instance: instance_label("Garden", id), host: host_label(id), ..service() };
    bench.responder.replace(new, ms(bench.now_ms));
    let sent = bench.run(2000);
    assert!(sent[0].is_probe());
    assert!(sent[3].records()[0].rdata_name(0).unwrap().is(&[b"Garden EEFF", b"_hap", b"_tcp", b"local"]));
}

#[test]
fn a_change_of_txt_is_announced_at_once_and_again() {
    let mut bench = Bench::announced();
    let start = bench.now_ms;
    bench.responder.set_txt(txt(), ms(start));
    assert!(bench.run(10_000).is_empty(), "no change");
    let start = bench.now_ms;
    bench.responder.set_txt(Txt { status_flags: 0, ..txt() }, ms(start));
    let sent = bench.run(60_000);
    assert_eq!(sent.iter().map(|s| s.at_ms - start).collect::<Vec<_>>(), [0, 1000, 3000, 7000]);
    let txt = sent[0].records().into_iter().find(|r| r.rtype == 16).unwrap();
    assert!(txt.cache_flush && txt.rdata().windows(5).any(|s| s == b"\x04sf=0"));
}

#[test]
fn new_configuration_numbers_are_collected_for_a_second() {
    let mut bench = Bench::announced();
    let start = bench.now_ms;
    for config_number in 2..7 {
        bench.responder.set_txt(Txt { config_number, ..txt() }, ms(bench.now_ms));
        bench.run(100);
    }
    let sent = bench.run(5000);
    assert_eq!(sent[0].at_ms - start, 1000);
    assert!(sent[0].bytes.windows(5).any(|s| s == b"\x04c#=6"));
}

#[test]
fn a_change_of_port_or_address_is_announced() {
    let mut bench = Bench::announced();
    bench.responder.set_port(4000, ms(bench.now_ms));
    assert_eq!(bench.run(20_000).len(), 4);
    bench.responder.set_addresses(LAN, &[address("192.0.2.7/24")], ms(bench.now_ms));
    assert!(bench.run(20_000).is_empty(), "the same");
    bench.responder.set_addresses(LAN, &[address("192.0.2.20/24")], ms(bench.now_ms));
    let sent = bench.run(20_000);
    assert_eq!(sent.len(), 4);
    assert!(!sent[0].is_probe());
    assert!(sent[0].records().iter().any(|r| r.rdata() == [192, 0, 2, 20]));
}

#[test]
fn interfaces_come_and_go() {
    let mut bench = Bench::announced();
    bench.responder.remove_interface(LAN);
    assert_eq!(bench.responder.poll_timeout(), None);
    assert!(bench.ask(SERVICE, TYPE_PTR, CLASS_IN).is_empty());
    bench.responder.set_addresses(LAN, &[address("192.0.2.7/24")], ms(bench.now_ms));
    assert!(bench.run(2000)[0].is_probe());
    // The IPv4 address goes, IPv6 stays.
    bench.responder.set_addresses(LAN, &[address("fe80::7/64")], ms(bench.now_ms));
    assert!(bench.run(5000).iter().all(|s| s.transmit.family == Family::V6));
    // More interfaces than there is room for.
    for n in 10..20 {
        bench.responder.set_addresses(InterfaceId(n), &[address("192.0.2.7/24")], ms(bench.now_ms));
    }
    bench.run(2000);
}

#[test]
fn the_largest_packets_fit() {
    let mut bench = Bench::new();
    let long = Service {
        instance: instance_label(&"ü".repeat(60), "1A:2B:3C:4D:5E:6F"),
        host: "h".repeat(63).as_str().try_into().unwrap(),
        port: 1,
        txt: Txt {
            config_number: u16::MAX,
            model: "m".repeat(64).as_str().try_into().unwrap(),
            status_flags: 255,
            category: 255,
            ..txt()
        },
    };
    bench.responder = Responder::new(long, 1);
    let addresses: Vec<_> =
        (1..=12).map(|n| address(&if n < 2 { "192.0.2.1/24".into() } else { format!("fe80::{n}/64") })).collect();
    bench.responder.set_addresses(LAN, &addresses, ms(0));
    let sent = bench.run_to(2000);
    assert_eq!(sent[0].types(Section::Authority).len(), 2 + ADDRESSES);
    assert_eq!(sent.last().unwrap().types(Section::Answer).len(), 4 + ADDRESSES);
    bench.hear("192.0.2.9:40000", true, &query(SERVICE, TYPE_PTR, CLASS_IN));
    let legacy = bench.run(100);
    assert_eq!(legacy[0].records().len(), 3 + ADDRESSES);
}

#[test]
fn a_short_buffer_is_no_disaster() {
    for room in 0..200 {
        let mut bench = Bench::with(&["192.0.2.7/24"]);
        let mut out = vec![0; room];
        for step in 0..12 {
            bench.responder.handle_timeout(ms(step * 250));
            let mut n = 0;
            while let Some(t) = bench.responder.poll_transmit(ms(step * 250), &mut out) {
                assert!(Message::parse(&out[..t.len]).is_ok());
                n += 1;
                assert!(n < 10);
            }
        }
    }
}

#[test]
fn garbage_changes_nothing() {
    let mut bench = Bench::announced();
    let good = foreign_srv(120);
    for cut in 0..good.len() {
        bench.hear("192.0.2.9:5353", true, &good[..cut]);
    }
    for byte in 0..=255 {
        bench.hear("192.0.2.9:5353", true, &[byte; 600]);
    }
    let bad_opcode = packet(0, 0x8c00, |e| put_srv(e, Section::Answer, INSTANCE, 1, HOST, 120));
    bench.hear("192.0.2.9:5353", true, &bad_opcode);
    let bad_code = packet(0, 0x8403, |e| put_srv(e, Section::Answer, INSTANCE, 1, HOST, 120));
    bench.hear("192.0.2.9:5353", true, &bad_code);
    assert!(bench.responder.is_announced());
    assert!(bench.run(2000).is_empty());
    // Sanity: unharmed, the same packet does something.
    bench.hear("192.0.2.9:5353", true, &good);
    assert!(!bench.responder.is_announced());
}
