//! RTCP (RFC 3550 §6): the reports we send, and what of a controller's reports and requests concerns a sender
//! (feedback: RFC 4585 §6, RFC 5104 §4).

use super::{Malformed, Writer};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// The feedback formats that are read; the same number means another thing in each of the two packet types.
const NACK: u8 = 1;
const TMMBR: u8 = 3;
const PLI: u8 = 1;
const FIR: u8 = 4;

/// Where we are in a stream (RFC 3550 §6.4.1); no report blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderReport {
    /// The stream.
    pub ssrc: u32,
    /// Wall clock: seconds since 1900 in the upper 32 bits, fractions of a second in the lower ones.
    pub ntp: u64,
    /// The RTP time of that same instant.
    pub rtp_timestamp: u32,
    /// Packets sent so far, wraps.
    pub packets: u32,
    /// Bytes of payload sent so far, without headers and padding, wraps.
    pub octets: u32,
}

impl SenderReport {
    /// Emits the report. First of a compound packet.
    pub fn put(&self, w: &mut Writer<'_>) {
        put_header(w, 0, SENDER_REPORT, 6);
        w.u32_be(self.ssrc);
        w.u64_be(self.ntp);
        w.u32_be(self.rtp_timestamp);
        w.u32_be(self.packets);
        w.u32_be(self.octets);
    }
}

/// Emits a source description with the CNAME, the name that ties the streams of one sender together (RFC 3550 §6.5.1).
/// A name above 255 bytes is cut.
pub fn put_cname(w: &mut Writer<'_>, ssrc: u32, cname: &str) {
    const CNAME: u8 = 1;
    let name = &cname.as_bytes()[..cname.len().min(255)];
    // The list of items ends with at least one zero, and at a multiple of four bytes.
    let item_bytes = 2 + name.len();
    let zeros = 4 - item_bytes % 4;
    put_header(w, 1, SOURCE_DESCRIPTION, 1 + ((item_bytes + zeros) / 4) as u16);
    w.u32_be(ssrc);
    w.u8(CNAME);
    w.u8(name.len() as u8);
    w.bytes(name);
    w.bytes(&[0; 4][..zeros]);
}

/// Emits the end of a stream (RFC 3550 §6.6).
pub fn put_bye(w: &mut Writer<'_>, ssrc: u32) {
    put_header(w, 1, BYE, 1);
    w.u32_be(ssrc);
}

/// Emits a receiver report without blocks: what begins a compound packet of somebody who neither sends nor received
/// (RFC 3550 §6.1).
pub fn put_empty_receiver_report(w: &mut Writer<'_>, ssrc: u32) {
    put_header(w, 0, RECEIVER_REPORT, 1);
    w.u32_be(ssrc);
}

/// Version 2, no padding; `words` of 32 bits follow the header (RFC 3550 §6.4.1).
fn put_header(w: &mut Writer<'_>, count: u8, packet_type: u8, words: u16) {
    w.u8(0x80 | count);
    w.u8(packet_type);
    w.u16_be(words);
}

/// One thing that a compound packet says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// The peer sends, too (RFC 3550 §6.4.1).
    SenderReport {
        /// Its stream.
        ssrc: u32,
        /// Its wall clock, as in [`SenderReport::ntp`].
        ntp: u64,
        /// The RTP time of that same instant.
        rtp_timestamp: u32,
    },
    /// How a stream arrives (RFC 3550 §6.4.1), from a sender or a receiver report.
    ReceiverBlock {
        /// The stream it is about: ours.
        ssrc: u32,
        /// Share of the packets lost since the last report, in 1/256.
        fraction_lost: u8,
        /// Packets lost since the start; duplicates can make it negative, which is told as 0.
        lost: u32,
        /// Highest sequence number received, wraps counted in the upper 16 bits.
        highest: u32,
        /// Jitter of the arrival, in units of the RTP clock.
        jitter: u32,
        /// The middle 32 bits of the NTP time of the last sender report received; 0: none yet.
        last_sr: u32,
        /// Time between that and this report, in 1/65536 s.
        delay: u32,
    },
    /// A picture was lost: a key frame is wanted (RFC 4585 §6.3.1).
    Pli {
        /// The stream it is about.
        media_ssrc: u32,
    },
    /// A key frame is wanted (RFC 5104 §4.3.1).
    Fir {
        /// The stream it is about.
        ssrc: u32,
        /// The same number again is the same request.
        sequence: u8,
    },
    /// Packets are missing (RFC 4585 §6.2.1).
    Nack {
        /// The stream it is about.
        media_ssrc: u32,
        /// The first that is missing.
        sequence: u16,
        /// Bit *i*: packet `sequence + i + 1` is missing, too.
        following: u16,
    },
    /// The peer can take no more than this (TMMBR, RFC 5104 §4.2.1).
    MaxBitrate {
        /// Bits per second, with the overhead of the packets.
        bps: u64,
    },
    /// A stream has ended (RFC 3550 §6.6).
    Bye {
        /// Which one.
        ssrc: u32,
    },
}

/// What a compound packet says, in order. What does not concern us is skipped; something malformed is the last item.
/// A packet that begins with neither sender nor receiver report is fine (RFC 5506 §3).
#[derive(Clone, Debug)]
pub struct Items<'a> {
    /// The packets that come after the current one.
    packets: &'a [u8],
    /// The entries of the current packet that are still to be told.
    entries: Entries<'a>,
}

/// A list of entries of one size, and what they are.
#[derive(Clone, Copy, Debug)]
enum Entries<'a> {
    Blocks(&'a [u8]),
    Firs(&'a [u8]),
    Nacks { media_ssrc: u32, rest: &'a [u8] },
    MaxBitrates(&'a [u8]),
    Byes(&'a [u8]),
}

/// No entries.
const NONE: Entries<'_> = Entries::Byes(&[]);

impl<'a> Items<'a> {
    /// The items of the datagram `compound`, decrypted.
    pub fn new(compound: &'a [u8]) -> Self {
        Items { packets: compound, entries: NONE }
    }

    /// The next entry of the current packet; `None` at its end. What is left over, less than an entry, is ignored: it
    /// was checked before where it matters.
    fn next_entry(&mut self) -> Option<Item> {
        match &mut self.entries {
            Entries::Blocks(rest) => {
                let b = take::<24>(rest)?;
                // 24 bits with sign.
                let lost = (word(b, 4) << 8) as i32 >> 8;
                Some(Item::ReceiverBlock {
                    ssrc: word(b, 0),
                    fraction_lost: b[4],
                    lost: lost.max(0) as u32,
                    highest: word(b, 8),
                    jitter: word(b, 12),
                    last_sr: word(b, 16),
                    delay: word(b, 20),
                })
            }
            Entries::Firs(rest) => {
                let b = take::<8>(rest)?;
                Some(Item::Fir { ssrc: word(b, 0), sequence: b[4] })
            }
            Entries::Nacks { media_ssrc, rest } => {
                let b = take::<4>(rest)?;
                let pair = word(b, 0);
                Some(Item::Nack { media_ssrc: *media_ssrc, sequence: (pair >> 16) as u16, following: pair as u16 })
            }
            Entries::MaxBitrates(rest) => {
                let b = take::<8>(rest)?;
                // Exponent 6 bits, mantissa 17 bits, overhead 9 bits.
                let (exponent, mantissa) = (b[4] >> 2, u64::from(word(b, 4) >> 9 & 0x1_ffff));
                let bps = if mantissa.leading_zeros() >= u32::from(exponent) { mantissa << exponent } else { u64::MAX };
                Some(Item::MaxBitrate { bps })
            }
            Entries::Byes(rest) => take::<4>(rest).map(|b| Item::Bye { ssrc: word(b, 0) }),
        }
    }

    /// Opens the next packet: its own item if it has one, and its entries to come.
    fn next_packet(&mut self) -> Result<Option<Item>, Malformed> {
        let Some(&[b0, packet_type, l0, l1]) = self.packets.first_chunk::<4>() else {
            return Err(Malformed("an RTCP header has four bytes"));
        };
        if b0 >> 6 != 2 {
            return Err(Malformed("not RTCP version 2"));
        }
        let len = 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        let Some((packet, rest)) = self.packets.split_at_checked(len) else {
            return Err(Malformed("an RTCP packet longer than its datagram"));
        };
        self.packets = rest;
        let mut body = &packet[4..];
        if b0 & 0x20 != 0 {
            // The last byte counts the padding, itself included (RFC 3550 §6.4.1).
            let padding = usize::from(body.last().copied().unwrap_or(0));
            body = match body.len().checked_sub(padding) {
                Some(kept) if padding > 0 => &body[..kept],
                _ => return Err(Malformed("RTCP padding of no length, or longer than the packet")),
            };
        }
        let count = usize::from(b0 & 0x1f);
        const SHORT: Malformed = Malformed("an RTCP packet shorter than its type demands");
        match (packet_type, b0 & 0x1f) {
            (SENDER_REPORT, _) => {
                let b = take::<24>(&mut body).ok_or(SHORT)?;
                self.entries = Entries::Blocks(body.get(..24 * count).ok_or(SHORT)?);
                let ntp = u64::from(word(b, 4)) << 32 | u64::from(word(b, 8));
                return Ok(Some(Item::SenderReport { ssrc: word(b, 0), ntp, rtp_timestamp: word(b, 12) }));
            }
            (RECEIVER_REPORT, _) => {
                take::<4>(&mut body).ok_or(SHORT)?;
                self.entries = Entries::Blocks(body.get(..24 * count).ok_or(SHORT)?);
            }
            (BYE, _) => self.entries = Entries::Byes(body.get(..4 * count).ok_or(SHORT)?),
            (TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK, format) => {
                // Sender, then the stream it is about: 0 where each entry names one.
                let b = take::<8>(&mut body).ok_or(SHORT)?;
                let media_ssrc = word(b, 4);
                let (entries, entry_bytes) = match (packet_type, format) {
                    (PAYLOAD_FEEDBACK, PLI) => return Ok(Some(Item::Pli { media_ssrc })),
                    (PAYLOAD_FEEDBACK, FIR) => (Entries::Firs(body), 8),
                    (TRANSPORT_FEEDBACK, NACK) => (Entries::Nacks { media_ssrc, rest: body }, 4),
                    (TRANSPORT_FEEDBACK, TMMBR) => (Entries::MaxBitrates(body), 8),
                    _ => return Ok(None),
                };
                if body.is_empty() || body.len() % entry_bytes != 0 {
                    return Err(SHORT);
                }
                self.entries = entries;
            }
            // Source descriptions, APP, extended reports.
            _ => {}
        }
        Ok(None)
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Item, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.next_entry() {
                return Some(Ok(item));
            }
            if self.packets.is_empty() {
                return None;
            }
            match self.next_packet() {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(malformed) => {
                    *self = Items::new(&[]);
                    return Some(Err(malformed));
                }
            }
        }
    }
}

/// Splits the first `N` bytes off.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(first)
}

/// The 32 bits at `at`, which is a number in this file, below the size of the entry.
fn word<const N: usize>(b: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{Noise, hex, vectors};

    const OURS: u32 = 0x1a2b_3c4d;
    const NTP: u64 = 0xedc3_4f40_8000_0000;

    fn plain(name: &str) -> Vec<u8> {
        let v = vectors("srtp");
        hex(&v["srtcp"].as_array().unwrap().iter().find(|p| p["name"] == name).expect(name)["plain"])
    }

    fn all_plain() -> Vec<Vec<u8>> {
        vectors("srtp")["srtcp"].as_array().unwrap().iter().map(|p| hex(&p["plain"])).collect()
    }

    fn items(bytes: &[u8]) -> Vec<Item> {
        Items::new(bytes).map(Result::unwrap).collect()
    }

    fn emitted(emit: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut room = [0; 400];
        let mut w = Writer::new(&mut room);
        emit(&mut w);
        w.finish().unwrap().to_vec()
    }

    fn report() -> SenderReport {
        SenderReport { ssrc: OURS, ntp: NTP, rtp_timestamp: 93_000, packets: 2, octets: 1205 }
    }

    #[test]
    fn writes_the_packets_of_the_vectors() {
        assert_eq!(emitted(|w| report().put(w)), plain("SR"));
        let described = emitted(|w| {
            report().put(w);
            put_cname(w, OURS, "hksvd");
        });
        assert_eq!(described, plain("SR + SDES compound"));
        let ended = emitted(|w| {
            report().put(w);
            put_bye(w, OURS);
        });
        assert_eq!(ended, plain("SR + BYE"));
        assert_eq!(emitted(|w| put_empty_receiver_report(w, OURS)), [0x80, 201, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d]);
    }

    #[test]
    fn a_name_ends_with_a_zero_at_a_word() {
        for n in 0..300 {
            let bytes = emitted(|w| put_cname(w, OURS, &"n".repeat(n)));
            let told = 4 + 4 * usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            assert_eq!((bytes.len(), bytes.len() % 4), (told, 0));
            assert_eq!(usize::from(bytes[9]), n.min(255));
            assert_eq!(bytes[10..].iter().filter(|b| **b == b'n').count(), n.min(255));
            assert_eq!(bytes.last(), Some(&0));
            assert!(bytes.len() - 10 - n.min(255) <= 4);
            assert_eq!(items(&bytes), []);
        }
    }

    #[test]
    fn reads_the_packets_of_the_vectors() {
        let sent = Item::SenderReport { ssrc: OURS, ntp: NTP, rtp_timestamp: 93_000 };
        let received = Item::ReceiverBlock {
            ssrc: OURS,
            fraction_lost: 0,
            lost: 0,
            highest: 1001,
            jitter: 12,
            last_sr: 0x9a40_8000,
            delay: 0x8000,
        };
        for (name, want) in [
            ("SR", vec![sent]),
            ("SR + SDES compound", vec![sent]),
            ("SR + BYE", vec![sent, Item::Bye { ssrc: OURS }]),
            ("RR from controller", vec![received]),
            ("RR + PLI", vec![received, Item::Pli { media_ssrc: OURS }]),
            ("RR + FIR", vec![received, Item::Fir { ssrc: OURS, sequence: 5 }]),
            ("RR + generic NACK", vec![received, Item::Nack { media_ssrc: OURS, sequence: 1001, following: 3 }]),
            ("RR + TMMBR", vec![received, Item::MaxBitrate { bps: 132_000 }]),
        ] {
            assert_eq!(items(&plain(name)), want, "{name}");
        }
    }

    #[test]
    fn tells_every_entry_of_a_packet() {
        let block = &plain("RR from controller")[8..];
        let mut bytes = vec![0x82, 201, 0, 13, 1, 1, 1, 1];
        bytes.extend([block, block].concat());
        // Two requests in one packet, then an end of two streams with a reason that is not read.
        bytes.extend([0x84, 206, 0, 6, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
        bytes.extend([0x82, 203, 0, 3, 0, 0, 0, 3, 0, 0, 0, 4, 2, b'n', b'o', 0]);
        let told = items(&bytes);
        assert_eq!(told[0], told[1]);
        let rest = [
            Item::Fir { ssrc: 7, sequence: 1 },
            Item::Fir { ssrc: 8, sequence: 2 },
            Item::Bye { ssrc: 3 },
            Item::Bye { ssrc: 4 },
        ];
        assert_eq!(told[2..], rest);
    }

    #[test]
    fn skips_what_does_not_concern_a_sender() {
        // APP, an extended report, feedback of unknown formats, an empty receiver report
        let bytes = [
            [0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'],
            [0x80, 207, 0, 2, 0, 0, 0, 1, 9, 9, 9, 9],
            [0x84, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
            [0x8f, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
            [0x80, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
        ];
        assert_eq!(items(&bytes.concat()), []);
        assert_eq!(items(&[]), []);
    }

    #[test]
    fn numbers_at_their_limits() {
        let mut rr = plain("RR from controller");
        let lost = |rr: &[u8]| match items(rr)[..] {
            [Item::ReceiverBlock { fraction_lost, lost, .. }] => (fraction_lost, lost),
            ref other => panic!("{other:?}"),
        };
        rr[12..16].copy_from_slice(&[200, 0x7f, 0xff, 0xff]);
        assert_eq!(lost(&rr), (200, 0x7f_ffff));
        rr[12..16].copy_from_slice(&[0, 0xff, 0xff, 0xff]);
        assert_eq!(lost(&rr), (0, 0));
        let bitrate = |word: u32| {
            let mut bytes = vec![0x83, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
            bytes.extend(word.to_be_bytes());
            items(&bytes)
        };
        for (word, bps) in [
            (0, 0),
            (0x1ff, 0),
            (1 << 9, 1),
            (0x1_ffff << 9, 0x1_ffff),
            (63 << 26 | 1 << 9, 1 << 63),
            (63 << 26 | 2 << 9, u64::MAX),
            (47 << 26 | 0x1_ffff << 9, 0x1_ffff << 47),
            (48 << 26 | 0x1_ffff << 9, u64::MAX),
            (63 << 26, 0),
        ] {
            assert_eq!(bitrate(word), [Item::MaxBitrate { bps }], "{word:#x}");
        }
    }

    #[test]
    fn padding_is_taken_off() {
        let mut bytes = plain("RR + PLI");
        let pli = bytes.len() - 12;
        bytes[pli] |= 0x20;
        bytes[pli + 3] += 1;
        bytes.extend([0, 0, 0, 4]);
        assert_eq!(items(&bytes), items(&plain("RR + PLI")));
        for padding in [0, 5, 16, 255] {
            *bytes.last_mut().unwrap() = padding;
            // 5 and 16 leave less than a PLI has.
            assert!(Items::new(&bytes).any(|item| item.is_err()), "{padding}");
        }
        assert!(Items::new(&[0xa0, 201, 0, 0]).next().unwrap().is_err());
    }

    #[test]
    fn every_truncation_is_malformed_except_between_packets() {
        for bytes in all_plain() {
            let mut ends = vec![0];
            while *ends.last().unwrap() < bytes.len() {
                let at = *ends.last().unwrap();
                ends.push(at + 4 + 4 * usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])));
            }
            for n in 0..bytes.len() {
                let mut told = Items::new(&bytes[..n]);
                let malformed = told.by_ref().filter(Result::is_err).count();
                assert_eq!(malformed, usize::from(!ends.contains(&n)), "{n} bytes");
                assert!(told.next().is_none());
            }
        }
    }

    #[test]
    fn packets_that_announce_more_than_they_hold_are_malformed() {
        for bytes in [
            &[0x81, 200, 0, 6][..],
            &[0x80, 200, 0, 0],
            &[0x80, 201, 0, 0],
            &[0x81, 201, 0, 1, 0, 0, 0, 1],
            &[0x81, 203, 0, 0],
            &[0x81, 206, 0, 1, 0, 0, 0, 1],
            // Feedback without entries, and with half of one.
            &[0x84, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0],
            &[0x84, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0x83, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0],
            &[0x40, 201, 0, 1, 0, 0, 0, 1],
            &[0x80, 201, 0xff, 0xff, 0, 0, 0, 1],
        ] {
            assert!(matches!(Items::new(bytes).collect::<Vec<_>>()[..], [Err(_)]), "{bytes:?}");
        }
    }

    #[test]
    fn noise_ends() {
        let mut noise = Noise::new(2);
        let (mut told, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = noise.bytes(120);
            // A header that fits, so that the types behind it are reached.
            if let Some(header) = bytes.first_chunk_mut::<4>() {
                let words = noise.below(14) as u8;
                *header = [0x80 | header[0] & 0x3f, 200 + header[1] % 8, 0, words];
            }
            let limit = bytes.len() / 4 + 1;
            for (i, item) in Items::new(&bytes).enumerate() {
                assert!(i < limit);
                match item {
                    Ok(_) => told += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(told > 1000 && refused > 1000, "{told} {refused}");
    }
}
