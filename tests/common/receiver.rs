//! A controller that watches: decrypts, reorders, puts pictures together and reports, by the RFCs alone.

use hksvd::live::Medium;
use hksvd::live::srtp::{MasterKey, Opener, Sealer};
use hksvd::time::{Duration, Instant};
use std::collections::BTreeMap;

/// A picture of which every packet came, in order.
pub struct Picture {
    pub arrived: Instant,
    pub timestamp: u32,
    /// Parameter sets and slices.
    pub nals: Vec<Vec<u8>>,
    /// An IDR picture, or one behind which nothing is missing back to one.
    pub decodable: bool,
}

/// Statistics of one stream as RFC 3550 A.3 and A.8 want them.
#[derive(Default)]
struct Arrivals {
    first: u64,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    transit: Option<i64>,
    jitter_16: i64,
    last_sr: Option<(u32, Instant)>,
}

pub struct Viewer {
    openers: [Opener; 2],
    sealers: [Sealer; 2],
    /// Of what it sends.
    pub ssrc: u32,
    streams: [Arrivals; 2],
    ssrc_of: [u32; 2],
    /// Video packets by extended sequence number that wait for those before them, and when they came.
    waiting: BTreeMap<u64, (Instant, Vec<u8>)>,
    next: Option<u64>,
    nals: Vec<Vec<u8>>,
    fragment: Vec<u8>,
    /// Packets are missing in front of the next one.
    gap: bool,
    /// Of the picture in hand everything came.
    whole: bool,
    timestamp: Option<u32>,
    intact: bool,
    pub pictures: Vec<Picture>,
    /// RTP time and payload of the sound.
    pub voice: Vec<(u32, Vec<u8>)>,
    /// When a key frame was asked for.
    pub plis: Vec<Instant>,
    /// Wall clock and RTP time of the sender reports.
    pub reports: [Vec<(u64, u32)>; 2],
    pub byes: [usize; 2],
    /// Packets that were there before, or were nobody's.
    pub refused: usize,
    /// Packets that never came.
    pub holes: usize,
    pub blocks_sent: usize,
}

impl Viewer {
    /// Hears what is sent with `ours`, and sends with `theirs`.
    pub fn new(ours: [&MasterKey; 2], theirs: [&MasterKey; 2], ssrc_of: [u32; 2]) -> Viewer {
        Viewer {
            openers: ours.map(Opener::new),
            sealers: theirs.map(Sealer::new),
            ssrc: 0x0bad_f00d,
            streams: Default::default(),
            ssrc_of,
            waiting: BTreeMap::new(),
            next: None,
            nals: Vec::new(),
            fragment: Vec::new(),
            gap: false,
            whole: false,
            timestamp: None,
            intact: false,
            pictures: Vec::new(),
            voice: Vec::new(),
            plis: Vec::new(),
            reports: Default::default(),
            byes: [0; 2],
            refused: 0,
            holes: 0,
            blocks_sent: 0,
        }
    }

    /// A datagram came in.
    pub fn receive(&mut self, medium: Medium, mut bytes: Vec<u8>, now: Instant) {
        let m = medium as usize;
        let rtcp = (192..=223).contains(&bytes[1]);
        let opened = if rtcp { self.openers[m].open_rtcp(&mut bytes) } else { self.openers[m].open_rtp(&mut bytes) };
        let Some(opened) = opened.map(<[u8]>::to_vec) else {
            self.refused += 1;
            return;
        };
        if rtcp {
            return self.read_rtcp(m, &opened, now);
        }
        assert_eq!(opened[0], 0x80, "version 2, nothing else");
        assert_eq!(u32::from_be_bytes(opened[8..12].try_into().unwrap()), self.ssrc_of[m]);
        let sequence = u16::from_be_bytes([opened[2], opened[3]]);
        let timestamp = u32::from_be_bytes(opened[4..8].try_into().unwrap());
        let extended = self.streams[m].count(sequence, timestamp, if m == 0 { 90_000 } else { 16_000 }, now);
        match medium {
            Medium::Audio => {
                assert_eq!(opened[1] & 0x7f, 110);
                self.voice.push((timestamp, opened[12..].to_vec()));
            }
            Medium::Video => {
                assert_eq!(opened[1] & 0x7f, 99);
                self.waiting.insert(extended, (now, opened));
                self.take(now);
            }
        }
    }

    fn read_rtcp(&mut self, m: usize, compound: &[u8], now: Instant) {
        let mut rest = compound;
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let len = 4 + 4 * usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            let packet;
            (packet, rest) = rest.split_at(len);
            kinds.push(packet[1]);
            match packet[1] {
                200 => {
                    let ntp = u64::from_be_bytes(packet[8..16].try_into().unwrap());
                    self.reports[m].push((ntp, u32::from_be_bytes(packet[16..20].try_into().unwrap())));
                    self.streams[m].last_sr = Some(((ntp >> 16) as u32, now));
                }
                202 => assert_eq!(packet[8], 1, "CNAME"),
                203 => self.byes[m] += 1,
                other => panic!("RTCP packet type {other}"),
            }
        }
        assert_eq!(kinds[..2], [200, 202], "a compound packet begins with SR and SDES");
    }

    /// Takes packets in order; one that does not come within 60 ms is given up.
    fn take(&mut self, now: Instant) {
        while let Some((&sequence, (arrived, _))) = self.waiting.first_key_value() {
            // The first that comes may not be the first that was sent.
            let expected = self.next.unwrap_or(sequence);
            let patient = now - *arrived < Duration::from_millis(60);
            if (sequence > expected || self.next.is_none()) && patient {
                return;
            }
            let (_, packet) = self.waiting.pop_first().unwrap().1;
            if sequence < expected {
                continue;
            }
            if sequence > expected {
                self.holes += (sequence - expected) as usize;
                self.gap = true;
                self.intact = false;
            }
            self.next = Some(sequence + 1);
            self.depacketise(&packet, now);
        }
    }

    fn depacketise(&mut self, packet: &[u8], now: Instant) {
        let timestamp = u32::from_be_bytes(packet[4..8].try_into().unwrap());
        let kind = packet[12] & 0x1f;
        if self.timestamp != Some(timestamp) {
            let back = self.timestamp.is_some_and(|before| (timestamp.wrapping_sub(before) as i32) < 0);
            assert!(!back, "RTP time never goes back");
            self.nals.clear();
            self.fragment.clear();
            // Behind a hole only parameter sets are surely the beginning of a picture.
            self.whole = kind == 24 || self.timestamp.is_some() && !self.gap;
        } else if self.gap {
            self.whole = false;
        }
        self.gap = false;
        self.timestamp = Some(timestamp);
        let payload = &packet[12..];
        match kind {
            24 => {
                let mut rest = &payload[1..];
                while let [a, b, tail @ ..] = rest {
                    let (nal, after) = tail.split_at(usize::from(u16::from_be_bytes([*a, *b])));
                    self.nals.push(nal.to_vec());
                    rest = after;
                }
            }
            28 => {
                if payload[1] & 0x80 != 0 {
                    self.fragment = vec![payload[0] & 0xe0 | payload[1] & 0x1f];
                }
                self.fragment.extend(&payload[2..]);
                if payload[1] & 0x40 != 0 {
                    self.nals.push(std::mem::take(&mut self.fragment));
                }
            }
            _ => self.nals.push(payload.to_vec()),
        }
        if packet[1] & 0x80 == 0 {
            return;
        }
        let nals = std::mem::take(&mut self.nals);
        if !self.whole || nals.is_empty() {
            return;
        }
        let has = |kind: u8| nals.iter().any(|nal| nal[0] & 0x1f == kind);
        if has(5) {
            self.intact = has(7) && has(8);
        }
        self.pictures.push(Picture { arrived: now, timestamp, nals, decodable: self.intact });
    }

    /// Whether it has to wait for a key frame.
    pub fn is_stuck(&self) -> bool {
        !self.intact
    }

    /// What it has to say every half second, and when it wants a key frame.
    pub fn report(&mut self, medium: Medium, now: Instant) -> Vec<u8> {
        let m = medium as usize;
        self.take(now);
        let mut packet = vec![0x81, 201, 0, 7];
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(self.streams[m].block(self.ssrc_of[m], now));
        self.blocks_sent += 1;
        if medium == Medium::Video && self.is_stuck() && self.next.is_some() {
            packet.extend([0x81, 206, 0, 2]);
            packet.extend(self.ssrc.to_be_bytes());
            packet.extend(self.ssrc_of[0].to_be_bytes());
            self.plis.push(now);
        }
        let len = packet.len();
        packet.resize(len + 14, 0);
        self.sealers[m].seal_rtcp(&mut packet, len).unwrap();
        packet
    }

    /// Packets of the stream that are missing so far.
    pub fn lost(&self, medium: Medium) -> u64 {
        let stream = &self.streams[medium as usize];
        stream.highest + 1 - stream.first - stream.received
    }
}

impl Arrivals {
    /// The sequence number with its wraps.
    fn count(&mut self, sequence: u16, timestamp: u32, rate: i64, now: Instant) -> u64 {
        let extended = if self.received == 0 {
            (self.first, self.highest) = (u64::from(sequence) + 0x10000, u64::from(sequence) + 0x10000);
            self.first
        } else {
            let step = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
            self.highest.saturating_add_signed(step)
        };
        self.received += 1;
        self.first = self.first.min(extended);
        self.highest = self.highest.max(extended);
        let arrival = now.as_micros() as i64 * rate / 1_000_000;
        let transit = i64::from((arrival as u32).wrapping_sub(timestamp) as i32);
        if let Some(before) = self.transit.replace(transit) {
            self.jitter_16 += (transit - before).abs() - ((self.jitter_16 + 8) >> 4);
        }
        extended
    }

    fn block(&mut self, ssrc: u32, now: Instant) -> Vec<u8> {
        let expected = if self.received == 0 { 0 } else { self.highest + 1 - self.first };
        let lost = expected.saturating_sub(self.received);
        let (fresh, came) = (expected - self.expected_before, self.received - self.received_before);
        (self.expected_before, self.received_before) = (expected, self.received);
        let fraction = (fresh.saturating_sub(came) * 256).checked_div(fresh).unwrap_or(0);
        let (last_sr, delay) =
            self.last_sr.map_or((0, 0), |(sr, at)| (sr, ((now - at).as_micros() as u64 * 65_536 / 1_000_000) as u32));
        let mut block = ssrc.to_be_bytes().to_vec();
        block.extend(((fraction.min(255) as u32) << 24 | lost as u32 & 0x00ff_ffff).to_be_bytes());
        block.extend(((self.highest & 0xffff_ffff) as u32).to_be_bytes());
        block.extend(((self.jitter_16 >> 4) as u32).to_be_bytes());
        block.extend(last_sr.to_be_bytes());
        block.extend(delay.to_be_bytes());
        block
    }
}
