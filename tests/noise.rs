//! Whatever comes in at any door: nothing panics, everything ends, nothing that is no answer goes out.
//!
//! Inputs are good ones with damage: bytes changed, cut out, doubled, mixed with others. The seeds are
//! fixed, so a failure comes back; `HKSVD_NOISE=100 cargo test --test noise` takes a hundred times as
//! many inputs.

#[allow(dead_code)]
#[path = "common/controller.rs"]
mod controller;
#[path = "common/hub.rs"]
mod hub;
#[allow(dead_code)]
#[path = "common/world.rs"]
mod world;

use controller::{Controller, Transport, tlv};
use hksvd::crypto::SharedSecret;
use hksvd::hap::camera_tlv::{SelectedRecording, parse_data_stream_setup};
use hksvd::hap::pairing::{Identity, Pairings, Setup};
use hksvd::hap::settings::StoredCamera;
use hksvd::hap::stream_tlv::{SelectedStream, SetupRequest};
use hksvd::hds::{Desk, FRAME_BYTES, Permission, Prepared, Selected, Session, Slot, message};
use hksvd::io::random::SystemRandom;
use hksvd::mdns::{Address, InterfaceId, PACKET_BYTES, Responder, Service, Txt};
use hksvd::media::{AccessUnit, AudioChoice, AudioParameters, Budget, Prebuffer, Reader, ReaderOptions, Retention};
use hksvd::media::{Start, adts, annexb};
use hksvd::motion::Meter;
use hksvd::time::{Duration, Instant};
use hksvd::wire::json::{Prepare, Resource, Writes};
use hksvd::wire::{Writer, aac, base64, dns, h264, hdsdata, http, json, tlv8};
use hub::{Hub, Tree, map};
use serde_json::Value as Json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use world::{Client, Link, World, paired};

/// xorshift64.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    /// One of the good inputs with up to four damages, sometimes none.
    fn damaged(&mut self, good: &[Vec<u8>]) -> Vec<u8> {
        const EDGES: [u8; 8] = [0, 1, 3, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
        let mut bytes = good[self.below(good.len())].clone();
        for _ in 0..self.below(5) {
            let at = self.below(bytes.len());
            let len = 1 + self.below(12).min(bytes.len().saturating_sub(at + 1));
            match self.below(8) {
                _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
                0 | 1 => bytes[at] = self.below(256) as u8,
                2 => bytes[at] = EDGES[self.below(EDGES.len())],
                3 => bytes[at] ^= 1 << self.below(8),
                4 => bytes.truncate(at),
                5 => drop(bytes.drain(at..at + len)),
                6 => {
                    let doubled = bytes[at..at + len].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, doubled);
                }
                _ => {
                    let other = &good[self.below(good.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend(&other[from.min(other.len())..]);
                }
            }
        }
        bytes
    }
}

fn rounds(n: usize) -> usize {
    n * std::env::var("HKSVD_NOISE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// All strings of hexadecimal digits in a file of vectors.
fn inputs(file: &str) -> Vec<Vec<u8>> {
    fn collect(v: &Json, out: &mut Vec<Vec<u8>>) {
        match v {
            Json::String(s) if s.len() >= 4 && s.len() < 4096 && s.bytes().all(|b| b.is_ascii_hexdigit()) => {
                out.push(unhex(s));
            }
            Json::Array(list) => list.iter().for_each(|v| collect(v, out)),
            Json::Object(map) => map.values().for_each(|v| collect(v, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    collect(&serde_json::from_str(file).unwrap(), &mut out);
    assert!(out.len() > 5);
    out
}

fn emitted(put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = [0; 4096];
    let mut w = Writer::new(&mut buf);
    put(&mut w);
    w.finish().unwrap().to_vec()
}

#[test]
fn tlv8_and_all_that_is_made_of_it() {
    let mut good = inputs(include_str!("vectors/tlv8.json"));
    good.extend(inputs(include_str!("vectors/camera_tlv.json")));
    good.extend(inputs(include_str!("vectors/pairings.json")));
    let identity = Identity::generate(&mut SystemRandom::new(), None);
    good.push(emitted(|w| identity.emit(w)));
    good.push(emitted(|w| Setup::new(7).emit(w)));
    good.push(tlv(&[(1, &[0]), (2, &[0]), (3, &[7; 32])]));
    let (world, ..) = paired();
    good.push(emitted(|w| world.acc.pairings.emit(w)));
    good.push(emitted(|w| world.acc.state.to_store().emit(w)));
    let mut noise = Noise(0x746c_7638);
    let mut read = [0; 8];
    for _ in 0..rounds(20_000) {
        let bytes = noise.damaged(&good);
        let mut buf = [0; 300];
        let mut total = 0;
        for item in tlv8::Items::new(&bytes) {
            let Ok(item) = item else { break };
            total += item.value.len();
            assert_eq!(item.value.copy_to(&mut buf).is_some(), item.value.len() <= buf.len());
            let _ = (item.value.uint(), item.value.bytes(), item.value.array::<32>());
        }
        assert!(total <= bytes.len());
        let parsed = [
            Identity::parse(&bytes).is_ok(),
            Pairings::parse(&bytes).is_ok_and(|p| emitted(|w| p.emit(w)).len() <= bytes.len()),
            Setup::parse(&bytes).is_ok(),
            StoredCamera::parse(&bytes).is_ok_and(|c| StoredCamera::parse(&emitted(|w| c.emit(w))) == Ok(c)),
            SelectedRecording::parse(&bytes).is_ok(),
            SetupRequest::parse(&bytes).is_ok(),
            SelectedStream::parse(&bytes).is_ok(),
            parse_data_stream_setup(&bytes).is_ok(),
        ];
        read.iter_mut().zip(parsed).for_each(|(n, ok)| *n += u32::from(ok));
    }
    assert!(read.iter().all(|n| *n > 0), "each of them is met whole now and then: {read:?}");
}

#[test]
fn http_heads_and_chunks() {
    let good: Vec<Vec<u8>> = [
        "GET /characteristics?id=1.2,1.3%2C1.4&meta=1&ev=true HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /characteristics HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: application/hap+json\r\n\r\nhello",
        "POST /pair-setup HTTP/1.1\nTransfer-Encoding: chunked\n\n5;x=y\r\nhello\r\n3\nabc\n0\r\nTrailer: 1\r\n\r\n",
        "5\r\nhello\r\nff\r\n0\r\n\r\n",
        "a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let mut noise = Noise(0x6874_7470);
    let (mut heads, mut bodies) = (0, 0);
    for _ in 0..rounds(60_000) {
        let mut bytes = noise.damaged(&good);
        if let Ok(Some(head)) = http::parse_head(&bytes) {
            heads += 1;
            assert!(head.len <= bytes.len());
            if let Ok(query) = http::CharacteristicsQuery::parse(head.query) {
                assert!(query.ids().count() <= 1 + head.query.len() / 2);
            }
        }
        if let Ok(Some((raw, total))) = http::find_chunked_end(&bytes) {
            bodies += 1;
            assert!(raw <= bytes.len());
            assert_eq!(http::join_chunks(&mut bytes).map(|body| body.len()), Ok(total));
        } else {
            let _ = http::join_chunks(&mut bytes);
        }
    }
    assert!(heads > 1000 && bodies > 1000, "{heads} {bodies}");
}

#[test]
fn json_bodies() {
    let good: Vec<Vec<u8>> = [
        r#"{"characteristics":[{"aid":1,"iid":9,"value":true,"ev":true,"authData":"x","remote":true,"r":true}],"pid":12}"#,
        r#"{"characteristics":[{"aid":1,"iid":146,"value":"AQEAAgEA\/+8="},{"aid":1,"iid":2,"value":[[{"a":1e309}]]}]}"#,
        r#"{"ttl":2500,"pid":11122333}"#,
        r#"{"aid":1,"resource-type":"image","image-width":640,"image-height":360,"reason":0}"#,
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        r#""\ud800\u0000éé"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let mut noise = Noise(0x6a73_6f6e);
    let mut read = 0;
    for _ in 0..rounds(40_000) {
        let bytes = noise.damaged(&good);
        let writes: Result<Writes<'_>, _> = json::parse(&bytes);
        for entry in writes.iter().flat_map(|w| &w.characteristics) {
            read += 1;
            let Some(value) = &entry.value else { continue };
            let _ = (value.truth(), value.unsigned());
            let mut buf = [0; 40];
            let _ = value.text().map(|text| base64::decode(text, &mut buf).is_ok());
        }
        let _ = (json::parse::<Prepare>(&bytes), json::parse::<Resource<'_>>(&bytes));
    }
    assert!(read > 1000, "{read}");
    // Depth costs neither stack nor time.
    for open in ["[", "{\"a\":", "{\"characteristics\":[{\"aid\":1,\"iid\":1,\"value\":["] {
        let deep = open.repeat(60_000 / open.len());
        assert!(json::parse::<Writes<'_>>(deep.as_bytes()).is_err());
        assert!(json::parse::<Resource<'_>>(deep.as_bytes()).is_err());
    }
}

#[test]
fn data_stream_messages() {
    let good = inputs(include_str!("vectors/hds.json"));
    let mut noise = Noise(0x6864_7300);
    let mut read = 0;
    for _ in 0..rounds(60_000) {
        let bytes = noise.damaged(&good);
        read += u32::from(message::parse(&bytes).is_ok());
        let mut reader = hdsdata::Reader::new(&bytes);
        let mut events = 0;
        while let Ok(Some(_)) = reader.next() {
            events += 1;
            assert!(events <= 2 * 4096 && reader.depth() <= 16);
        }
    }
    assert!(read > 100, "{read}");
}

fn responder() -> Responder {
    let text = |s: &str| s.try_into().unwrap();
    let txt = Txt {
        config_number: 1,
        device_id: "1A:2B:3C:4D:5E:6F".try_into().unwrap(),
        model: text("hksvd"),
        status_flags: 1,
        category: 17,
        setup_hash: "CVFzcA==".try_into().unwrap(),
    };
    let service = Service {
        instance: "Garden 5E6F".try_into().unwrap(),
        host: "hksvd-2B3C4D5E6F".try_into().unwrap(),
        port: 51826,
        txt,
    };
    let mut responder = Responder::new(service, 7);
    let address = Address { ip: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 20)), prefix: 24 };
    responder.set_addresses(InterfaceId(2), &[address], Instant::ZERO);
    responder
}

#[test]
fn multicast_dns() {
    // What the responder itself sends, and questions about it.
    let mut good = Vec::new();
    let mut source = responder();
    let mut out = [0; PACKET_BYTES];
    while let Some(now) = source.poll_timeout().filter(|now| *now < Instant::ZERO + Duration::from_secs(10)) {
        source.handle_timeout(now);
        while let Some(transmit) = source.poll_transmit(now, &mut out) {
            good.push(out[..transmit.len].to_vec());
        }
    }
    for name in ["\x0bGarden 5E6F\x04_hap\x04_tcp\x05local\0", "\x04_hap\x04_tcp\x05local\0", "\x05local\0"] {
        for qtype in [dns::TYPE_ANY, dns::TYPE_PTR, dns::TYPE_SRV] {
            let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend(name.as_bytes());
            query.extend([qtype.to_be_bytes(), [0x80, 1]].concat());
            good.push(query);
        }
    }
    assert!(good.len() > 12);

    let mut noise = Noise(0x646e_7300);
    let mut target = responder();
    let (mut now, mut sent, mut renamed) = (Instant::ZERO, 0, 0);
    let rounds = rounds(20_000);
    for _ in 0..rounds {
        let bytes = noise.damaged(&good);
        if let Ok(message) = dns::Message::parse(&bytes) {
            let mut buf = [0; 300];
            message.records().for_each(|record| record.expand_rdata(&mut Writer::new(&mut buf)));
            assert!(message.questions().all(|q| q.name.labels().count() <= 128));
        }
        let port = if noise.below(4) == 0 { 1234 } else { 5353 };
        let from = SocketAddr::from(([192, 168, 1, 20 + noise.below(3) as u8], port));
        target.handle_packet(from, InterfaceId(2), noise.below(4) != 0, &bytes, now);
        now += Duration::from_millis(noise.below(300) as u64);
        target.handle_timeout(now);
        while let Some(transmit) = target.poll_transmit(now, &mut out) {
            sent += 1;
            assert!(dns::Message::parse(&out[..transmit.len]).is_ok(), "what goes out is well-formed");
        }
        while target.poll_event().is_some() {
            renamed += 1;
        }
    }
    assert!(sent > 100 && sent < 2 * rounds && renamed > 0, "{sent} {renamed}");
    let name = target.service().instance.as_str();
    assert!(name.starts_with("Garden 5E6F (") && name.len() <= 63, "{name}");
}

/// Hundreds of questions about one name, and as many answers that the peer says it has: the time for them
/// must grow with their number, not with its square, which was 2.5 s here.
#[test]
fn a_packet_full_of_questions() {
    let mut target = responder();
    let mut out = [0; PACKET_BYTES];
    for tenth in 0..50 {
        let now = Instant::from_micros(tenth * 100_000);
        target.handle_timeout(now);
        while target.poll_transmit(now, &mut out).is_some() {}
    }
    assert!(target.is_announced());
    let (questions, answers) = (740u16, 370u16);
    let mut query = vec![0; 12];
    query[4..6].copy_from_slice(&(questions + 1).to_be_bytes());
    query[6..8].copy_from_slice(&answers.to_be_bytes());
    query.extend(b"\x0bGarden 5E6F\x04_hap\x04_tcp\x05local\0\0\xff\0\x01");
    (0..questions).for_each(|_| query.extend([0xc0, 12, 0, 255, 0, 1]));
    (0..answers).for_each(|_| query.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0x11, 0x94, 0, 0]));
    assert_eq!(dns::Message::parse(&query).map(|m| m.records().count()), Ok(370));
    let began = std::time::Instant::now();
    target.handle_packet(SocketAddr::from(([192, 168, 1, 9], 5353)), InterfaceId(2), true, &query, Instant::ZERO);
    assert!(began.elapsed() < std::time::Duration::from_millis(500), "{:?}", began.elapsed());
}

/// SPS, PPS and slices as several encoders write them.
fn nal_units() -> Vec<Vec<u8>> {
    [
        "6742c016d900c037a6a0c0c0c8000003000800000300a078b17240",
        "674d4028d9020bf97011000003000100000300140f183248",
        "67640028ac4c220601bd3506060640000003004000000503c60c8460",
        "67640016ace40301cfcb3506060640000003004000000507c50a92",
        "67f40016919640300de9a8303032000003000200000300281e2c5c90",
        "68cb8cb2",
        "68e84332c8b0",
        "68fb8cb22c",
        "65888413ffe5fea059c00ec6ff7ddde9f78e18e0c2784c41d1ff",
        "6588821ffffed907c0a5fdaa1ca8824e442be57355fbb948d1b6",
        "419a397c104107911e608c062008901d403566098049ff0e1528",
        "4100d89a384ea12ffff8e93fffffffc27199bc23f3c4c4e2a3cf",
        "0605018004",
        "09f0",
    ]
    .iter()
    .map(|nal| unhex(nal))
    .collect()
}

#[test]
fn parameter_sets_and_slice_headers() {
    let good = nal_units();
    let mut noise = Noise(0x6832_3634);
    let sps: Vec<_> = good.iter().filter_map(|nal| h264::Sps::parse(nal).ok()).collect();
    let pps: Vec<_> = good.iter().filter_map(|nal| h264::Pps::parse(nal).ok()).collect();
    assert_eq!((sps.len(), pps.len()), (5, 3));
    let mut read = [0; 3];
    for _ in 0..rounds(40_000) {
        let bytes = noise.damaged(&good);
        if let Ok(sps) = h264::Sps::parse(&bytes) {
            read[0] += 1;
            assert!(sps.width > 0 && sps.height > 0 && sps.width <= 16_384);
            let _ = (sps.may_reorder(), sps.timing.and_then(|t| t.frame_90k()));
        }
        if let Ok(pps) = h264::Pps::parse(&bytes) {
            read[1] += 1;
            assert!(pps.sps_id <= 31);
        }
        let slice = h264::Nal::new(&bytes).and_then(|nal| h264::slice::SliceHeader::parse(nal).ok());
        if let Some(slice) = slice {
            let qp = slice.qp(&sps[noise.below(sps.len())], &pps[noise.below(pps.len())]);
            assert!(qp.is_err() || qp.is_ok_and(|qp| qp <= 51));
            read[2] += u32::from(qp.is_ok());
        }
    }
    assert!(read.iter().all(|n| *n > 500), "{read:?}");
}

/// A damaged stream all the way: cut into access units, measured, kept, and read as fragments.
#[test]
fn a_damaged_stream_from_the_fifo_to_the_fragment() {
    let nals = nal_units();
    let picture =
        |parts: &[usize]| -> Vec<u8> { parts.iter().flat_map(|&n| [&[0, 0, 0, 1][..], &nals[n]].concat()).collect() };
    let good = [picture(&[13, 1, 5, 12, 8]), picture(&[10]), picture(&[13, 10, 11]), picture(&[2, 6, 9]), vec![0; 40]];
    let mut noise = Noise(0x6669_666f);
    let mut assembler = annexb::Assembler::new(2048);
    let mut meter = Meter::new();
    let mut prebuffer = Prebuffer::new(Budget { video_bytes: 20_000, audio_bytes: 2000, access_unit_bytes: 2048 });
    prebuffer.set_retention(Retention::Everything);
    prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 }));
    let options = ReaderOptions { fragment_ms: 4000, audio: AudioChoice::Live, audio_rate_hz: 16_000 };
    let mut reader: Option<Reader> = None;
    let (mut units, mut fragments, mut time_90k) = (0, 0, 0u64);
    for round in 0..rounds(20_000) {
        // Most pictures are whole, or nothing would ever be read.
        let bytes = match noise.below(4) {
            0 => noise.damaged(&good),
            _ if round % 8 == 0 => good[0].clone(),
            _ => good[1].clone(),
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let room = assembler.receive_buffer();
            let n = rest.len().min(room.len()).min(1 + noise.below(60));
            room[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            assembler.handle_received(n, Instant::from_micros(time_90k));
            while let Some(unit) = assembler.poll_unit() {
                units += 1;
                let _ = meter.measure(unit.annexb);
                // Encoders that jump, stop, and go back.
                time_90k = (time_90k + 9000).saturating_sub(if noise.below(50) == 0 { 90_000 } else { 0 });
                prebuffer.push_video(AccessUnit { annexb: unit.annexb, pts_90k: time_90k, key: unit.key });
                prebuffer.push_audio(&[1, 2, 3][..noise.below(4)], time_90k);
            }
        }
        match noise.below(400) {
            0 => assembler.reset(),
            1 => drop(assembler.flush().map(|unit| unit.annexb.bytes().len())),
            2 => prebuffer.restart(),
            3 => prebuffer.clear(),
            4 => prebuffer.set_retention(Retention::CurrentGop),
            5 => prebuffer.set_audio(Some(AudioParameters { rate_hz: 16_000, channels: 1 + noise.below(2) as u8 })),
            _ => prebuffer.set_retention(Retention::Everything),
        }
        reader = reader.or_else(|| Reader::start(&prebuffer, Start::Prebuffered { ms: 4000 }, options).ok());
        let Some(current) = &mut reader else { continue };
        match current.poll_fragment(&prebuffer) {
            Ok(None) => {}
            Ok(Some(mut fragment)) => {
                fragments += 1;
                let mut bytes = vec![0; fragment.total_bytes + 1];
                let read = current.read(&mut fragment, &prebuffer, 0, &mut bytes);
                assert_eq!(read, Ok(fragment.total_bytes), "right away, all of it is there");
                let first = hub::runs(&bytes[..fragment.total_bytes]).remove(0);
                assert!(first.first_is_sync && first.duration == fragment.duration_90k);
                assert!(emitted(|w| current.init(w)).len() < 2048);
            }
            Err(_) => reader = None,
        }
    }
    assert!(units > 5000 && fragments > 20, "{units} {fragments}");
}

#[test]
fn adts_frames() {
    let frame = |n: usize| {
        let len = n + 7;
        let mut frame = vec![0xff, 0xf1, 0x60, 0x40, (len >> 3) as u8, (len << 5) as u8 | 0x1f, 0xfc];
        frame.resize(len, 0x21);
        frame
    };
    let good = [frame(4), frame(100), [frame(9), frame(30), frame(1)].concat(), vec![0xff; 30]];
    let mut noise = Noise(0x6164_7473);
    let mut assembler = adts::Assembler::default();
    let mut frames = 0;
    for _ in 0..rounds(20_000) {
        let bytes = noise.damaged(&good);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let room = assembler.receive_buffer();
            assert!(!room.is_empty());
            let n = rest.len().min(room.len()).min(1 + noise.below(40));
            room[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            assembler.handle_received(n, Instant::ZERO);
            while let Some(frame) = assembler.poll_frame() {
                frames += 1;
                assert!(!frame.raw.is_empty() && aac::rate_index(frame.rate_hz).is_some());
            }
        }
    }
    assert!(frames > 5000, "{frames}");
}

/// Damaged requests, several in a row, in pieces of any size, before pair-verify and behind it.
#[test]
fn requests_in_a_row() {
    let request = |method: &str, target: &str, body: &[u8]| Controller::new().request(method, target, body);
    let write = |body: &str| request("PUT", "/characteristics", body.as_bytes());
    let good = [
        write(r#"{"characteristics":[{"aid":1,"iid":66,"value":5,"ev":true},{"aid":1,"iid":114,"value":0}],"pid":7}"#),
        write(r#"{"characteristics":[{"aid":1,"iid":97,"ev":true},{"aid":1,"iid":129,"value":1,"ev":true}]}"#),
        request("GET", "/characteristics?id=1.5,1.6%2C1.133,1.37&meta=1&perms=1&type=1&ev=1", b""),
        request("GET", "/accessories", b""),
        request("PUT", "/prepare", br#"{"ttl":2500,"pid":7}"#),
        request("POST", "/resource", br#"{"resource-type":"image","image-width":640,"image-height":360}"#),
        request("POST", "/pairings", &tlv(&[(6, &[1]), (0, &[5])])),
        request("POST", "/pair-setup", &tlv(&[(6, &[1]), (0, &[0])])),
        request("POST", "/pair-verify", &tlv(&[(6, &[1]), (3, &[9; 32])])),
        b"PUT /characteristics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
    ];
    let (mut world, who, mut client) = paired();
    let mut noise = Noise(0x6861_7000);
    let (mut answered, mut lost) = (0, 0);
    for round in 0..rounds(250) {
        let mut text = Vec::new();
        for _ in 0..1 + noise.below(6) {
            let whole = noise.below(3) > 0;
            text.extend(if whole { good[noise.below(good.len())].clone() } else { noise.damaged(&good) });
        }
        let mut peer = if round % 2 == 0 { Client::plain(&mut world) } else { Client::verified(&mut world, &who) };
        let mut bytes = peer.controller.seal(&text);
        if noise.below(8) == 0 {
            let at = noise.below(bytes.len());
            bytes[at] ^= 1;
        }
        for piece in bytes.chunks(1 + noise.below(700)) {
            world.receive(peer.id, piece);
            if noise.below(10) == 0 {
                world.acc.state.set_motion(noise.below(2) == 0);
                world.advance(noise.below(400) as u64);
            }
        }
        let bytes = Link(&mut world, peer.id).receive();
        // It takes every byte apart: what is neither response nor event is a panic.
        peer.controller.feed(&bytes);
        while let Some(answer) = peer.controller.take_response() {
            answered += 1;
            assert!([200, 204, 207, 400, 404, 405, 413, 422, 470, 503].contains(&answer.status()));
        }
        lost += u32::from(!world.connections.contains_key(&peer.id));
        world.close(peer.id);
    }
    assert!(answered > 300 && lost > 10, "{answered} {lost}");
    assert_eq!(client.read(&mut world, 5), "Garden Camera");
    assert!(world.connections.len() <= 2, "those that were closed are gone");
}

/// Damaged messages of pair-setup and pair-verify: whatever they hold, nobody gets in.
#[test]
fn messages_of_pairing() {
    let setup = inputs(include_str!("vectors/pair_setup.json"));
    let verify = inputs(include_str!("vectors/pair_verify.json"));
    let mut world = World::new();
    let mut noise = Noise(0x7061_6972);
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..rounds(40) {
        let mut peer = Client::plain(&mut world);
        let mut bodies = vec![("/pair-setup", tlv(&[(6, &[1]), (0, &[noise.below(2) as u8])]))];
        bodies.extend((0..4).map(|_| ("/pair-setup", noise.damaged(&setup))));
        bodies.extend((0..10).map(|_| ("/pair-verify", noise.damaged(&verify))));
        for (path, body) in bodies {
            let mut link = Link(&mut world, peer.id);
            let answer = peer.controller.exchange(&mut link, "POST", path, &body);
            *statuses.entry(answer.status()).or_insert(0) += 1;
            assert!(answer.status() != 200 || [2, 4, 6].contains(&answer.item(6).unwrap()[0]));
        }
        world.close(peer.id);
    }
    assert!(world.acc.pairings.is_empty());
    assert!(statuses.keys().eq(&[200, 400]) && statuses[&200] > 40, "{statuses:?}");
}

/// Damaged messages in frames that open, over a recording that runs.
#[test]
fn frames_of_a_hub() {
    let shared = SharedSecret::new([7; 32]);
    let picture = |key: bool| -> Vec<u8> {
        let nals = nal_units();
        let parts: &[usize] = if key { &[1, 5, 8] } else { &[10] };
        parts.iter().flat_map(|&n| [&[0, 0, 0, 1][..], &nals[n]].concat()).collect()
    };
    let good = inputs(include_str!("vectors/hds.json"));
    let mut noise = Noise(0x6875_6200);
    let mut room = vec![0; FRAME_BYTES];
    let (mut frames, mut closed) = (0, 0);
    for round in 0..rounds(100) {
        let now = Instant::from_micros(1_000_000_000);
        let (mut prepared, mut slot) = (Prepared::new(), Slot::new());
        let budget = Budget { video_bytes: 50_000, audio_bytes: 100, access_unit_bytes: 64 };
        let mut prebuffer = Prebuffer::new(budget);
        prebuffer.set_retention(Retention::Everything);
        let selected = Selected { fragment_ms: 4000, prebuffer_ms: 4000, audio_rate_hz: 16_000 };
        let permission = Permission {
            recording_active: true,
            camera_active: true,
            audio_active: round % 2 == 0,
            silent_track: false,
            selected: Some(selected),
        };
        prepared.prepare(now, 5, &shared, &[1; 32], &[2; 32]).unwrap();
        let mut hub = Hub::new(&shared, &[1; 32], &[2; 32]);
        let mut session = Session::new(1, now);
        let mut waiting = [hub.hello(), hub.open(1)].concat();
        for step in 0..200u64 {
            let now = now + Duration::from_millis(step * 100);
            prebuffer.push_video(AccessUnit {
                annexb: h264::AnnexB::new(&picture(step % 20 == 0)),
                pts_90k: now.as_90k(),
                key: step % 20 == 0,
            });
            match noise.below(6) {
                0..3 => {
                    let payload = noise.damaged(&good);
                    waiting.extend(hub.sealed(payload));
                }
                3 => {
                    let body = map([("streamId", Tree::Int(noise.below(3) as i64)), ("reason", Tree::Int(0))]);
                    waiting.extend(hub.event(["ack", "close", "data"][noise.below(3)], &body));
                }
                4 if noise.below(9) == 0 => waiting.extend(hub.open(1 + noise.below(2) as i64)),
                5 if noise.below(90) == 0 => waiting.extend([1, 0, 0, 0].repeat(10)),
                _ => {}
            }
            let mut desk = Desk {
                prepared: &mut prepared,
                slot: &mut slot,
                prebuffer: &prebuffer,
                permission: &permission,
                motion_since: None,
            };
            let buffer = session.receive_buffer();
            let n = waiting.len().min(buffer.len()).min(1 + noise.below(900));
            buffer[..n].copy_from_slice(&waiting[..n]);
            waiting.drain(..n);
            session.handle_received(n, now, &mut desk);
            session.handle_timeout(now, &mut desk);
            for sent in 0.. {
                assert!(sent < 100, "it talks without an end");
                let frame_bytes = session.frame_bytes();
                let Some(n) = session.poll_transmit(now, &mut desk, &mut room[..frame_bytes]) else { break };
                frames += 1;
                session.handle_transmitted(n, now, &mut desk);
            }
            while session.poll_report().is_some() {}
            assert!(session.poll_timeout().is_none_or(|due| due > now));
            if session.is_closed() {
                closed += 1;
                assert_eq!(slot.holder(), None);
                break;
            }
        }
    }
    assert!(frames > 500 && closed > 0, "{frames} {closed}");
}
