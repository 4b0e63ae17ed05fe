//! RTP packets (RFC 3550 §5.1): the header we send, any header that a peer may send.

use super::{Malformed, Writer};

/// Bytes of a header without contributing sources and extension, the only one we send.
pub const HEADER_BYTES: usize = 12;

/// Version 2, no padding, no extension, no contributing sources.
const VERSION_2: u8 = 0x80;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;

/// What both sides of a stream have to know of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The last packet of an access unit (RFC 6184 §5.1).
    pub marker: bool,
    /// As negotiated, 0..=127.
    pub payload_type: u8,
    /// Counts packets, wraps.
    pub sequence: u16,
    /// Ticks of the clock of the payload type, from a random offset, wraps.
    pub timestamp: u32,
    /// Who sends the stream.
    pub ssrc: u32,
}

impl Header {
    /// Emits the [`HEADER_BYTES`]; the payload follows.
    pub fn put(&self, w: &mut Writer<'_>) {
        w.u8(VERSION_2);
        w.u8(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        w.u16_be(self.sequence);
        w.u32_be(self.timestamp);
        w.u32_be(self.ssrc);
    }

    /// Reads the header at the start of `bytes`, and how many bytes it takes with contributing sources and extension.
    /// What follows may still be encrypted, and with it the count of padding bytes.
    ///
    /// # Errors
    /// Another version than 2, or less than the header announces.
    pub fn parse(bytes: &[u8]) -> Result<(Header, usize), Malformed> {
        let Some(&[b0, b1, q0, q1, t0, t1, t2, t3, s0, s1, s2, s3]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Malformed("an RTP header has twelve bytes"));
        };
        if b0 >> 6 != 2 {
            return Err(Malformed("not RTP version 2"));
        }
        let mut len = HEADER_BYTES + 4 * usize::from(b0 & 0x0f);
        if b0 & EXTENSION != 0 {
            let Some(&[_, _, l0, l1]) = bytes.get(len..).and_then(|rest| rest.first_chunk::<4>()) else {
                return Err(Malformed("an RTP extension that is not there"));
            };
            len += 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        }
        if len > bytes.len() {
            return Err(Malformed("an RTP header longer than its packet"));
        }
        let header = Header {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([q0, q1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
        };
        Ok((header, len))
    }
}

/// A packet in the clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The fixed part of the header.
    pub header: Header,
    /// What lies between header and padding; may be empty.
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// Reads a packet. Contributing sources, extension and padding are skipped.
    ///
    /// # Errors
    /// Another version than 2, less than the header announces, or more padding than there is payload.
    pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
        let (header, len) = Header::parse(bytes)?;
        let mut payload = bytes.get(len..).unwrap_or_default();
        if bytes.first().is_some_and(|b| b & PADDING != 0) {
            // The last byte counts itself (RFC 3550 §5.1).
            let padding = usize::from(payload.last().copied().unwrap_or(0));
            payload = match payload.len().checked_sub(padding) {
                Some(kept) if padding > 0 => &payload[..kept],
                _ => return Err(Malformed("RTP padding of no length, or longer than the payload")),
            };
        }
        Ok(Packet { header, payload })
    }
}

/// Whether a datagram on a port that carries both is RTCP: the second byte tells (RFC 5761 §4).
pub fn is_rtcp(bytes: &[u8]) -> bool {
    matches!(bytes.get(1), Some(192..=223))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{hex, vectors};

    fn plain_packets() -> Vec<Vec<u8>> {
        vectors("srtp")["rtp"].as_array().unwrap().iter().map(|p| hex(&p["plain"])).collect()
    }

    fn emitted(header: &Header, payload: &[u8]) -> Vec<u8> {
        let mut room = [0; 2000];
        let mut w = Writer::new(&mut room);
        header.put(&mut w);
        w.bytes(payload);
        w.finish().unwrap().to_vec()
    }

    #[test]
    fn reads_and_writes_the_packets_of_the_vectors() {
        let first = Packet::parse(&plain_packets()[0]).unwrap().header;
        let want = Header { marker: true, payload_type: 99, sequence: 1000, timestamp: 90_000, ssrc: 0x1a2b_3c4d };
        assert_eq!(first, want);
        for bytes in plain_packets() {
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!(packet.payload, &bytes[12..]);
            assert_eq!(emitted(&packet.header, packet.payload), bytes);
        }
    }

    #[test]
    fn a_payload_type_never_spills_into_the_marker() {
        let header = Header { marker: false, payload_type: 0xff, sequence: 0, timestamp: 0, ssrc: 0 };
        assert_eq!(emitted(&header, b"")[1], 0x7f);
    }

    #[test]
    fn skips_sources_extension_and_padding() {
        let mut bytes = hex(&vectors("srtp")["rtp"][0]["plain"]);
        let payload = bytes.split_off(12);
        bytes[0] = 0x80 | PADDING | EXTENSION | 2;
        bytes.extend([0xaa; 8]);
        bytes.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        bytes.extend(&payload);
        bytes.extend([0, 0, 3]);
        assert_eq!(Packet::parse(&bytes).unwrap().payload, payload);
        assert_eq!(Header::parse(&bytes).unwrap().1, 28);
        // Only the payload and its padding can be cut: all of the header has to be there.
        for n in 0..28 {
            assert!(Packet::parse(&bytes[..n]).is_err(), "{n}");
        }
        for (padding, fine) in [(0, false), (1, true), (8, true), (9, false), (255, false)] {
            *bytes.last_mut().unwrap() = padding;
            assert_eq!(Packet::parse(&bytes).is_ok(), fine, "{padding}");
        }
        // The whole payload is padding, or there is not even room for its count.
        *bytes.last_mut().unwrap() = 8;
        assert_eq!(Packet::parse(&bytes).unwrap().payload, b"");
        assert!(Packet::parse(&bytes[..28]).is_err());
    }

    #[test]
    fn refuses_truncated_packets_and_other_versions() {
        for bytes in plain_packets() {
            for n in 0..bytes.len() {
                assert_eq!(Packet::parse(&bytes[..n]).is_ok(), n >= 12, "{n}");
            }
            // An Opus frame without header begins with a byte of another "version".
            assert!(Packet::parse(&bytes[12..]).is_err() || bytes[12] >> 6 == 2);
        }
        for version in [0, 0x40, 0xc0] {
            assert_eq!(Packet::parse(&[version; 40]), Err(Malformed("not RTP version 2")));
        }
        let mut extended = [0x90; 16];
        (extended[14], extended[15]) = (0xff, 0xff);
        assert!(Packet::parse(&extended).is_err());
    }

    #[test]
    fn noise_is_read_within_its_bounds() {
        let mut noise = crate::crypto::fixed::Noise::new(1);
        let mut read = 0;
        for _ in 0..20_000 {
            let mut bytes = noise.bytes(64);
            if let Some(b) = bytes.first_mut().filter(|b| **b & 1 == 0) {
                *b = *b & 0x3f | 0x80;
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                assert!(packet.payload.len() + HEADER_BYTES <= bytes.len());
                read += 1;
            }
        }
        assert!(read > 1000, "{read}");
    }

    #[test]
    fn tells_rtcp_from_rtp_by_the_second_byte() {
        let demux = &vectors("srtp")["demux"];
        let all = |name: &str| demux[name].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8).collect();
        let (rtcp, rtp): (Vec<u8>, Vec<u8>) = (all("rtcp_second_bytes"), all("rtp_second_bytes"));
        assert!(rtcp.len() > 5 && rtp.len() > 3);
        assert!(rtcp.iter().all(|b| is_rtcp(&[0x80, *b])));
        assert!(rtp.iter().all(|b| !is_rtcp(&[0x80, *b])));
        for (byte, want) in [(191, false), (192, true), (223, true), (224, false)] {
            assert_eq!(is_rtcp(&[0x80, byte]), want);
        }
        assert!(!is_rtcp(&[]) && !is_rtcp(&[200]));
    }
}
