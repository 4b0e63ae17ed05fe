//! Opus packets from the outside (RFC 6716 §3): which frames one holds and how long they last, several packets
//! joined into one, and silence. What is inside a frame is the codec's business.

use super::{Malformed, Writer};
use heapless::Vec;

/// Most frames in a packet: 120 ms of 2.5 ms each (RFC 6716 §3.2.5, R5).
pub const MAX_FRAMES: usize = 48;
/// Longest frame (RFC 6716 §3.2.1).
pub const MAX_FRAME_BYTES: usize = 1275;
/// Longest packet (RFC 6716 §3.2.5, R5).
pub const MAX_PACKET_US: u32 = 120_000;

/// The first byte of a packet (RFC 6716 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Toc(u8);

impl Toc {
    /// Duration of one frame in microseconds: 2,500 to 60,000 (RFC 6716 Table 2).
    pub fn frame_us(self) -> u32 {
        let config = self.0 >> 3;
        match (config, config & 3) {
            (0..12, 3) => 60_000,
            (0..12, step) => 10_000 << step,
            (12..16, step) => 10_000 << (step & 1),
            (_, step) => 2_500 << step,
        }
    }

    /// Mode, bandwidth, frame duration and channels, without the number of frames: packets whose kinds are equal can
    /// be joined.
    pub fn kind(self) -> u8 {
        self.0 & !3
    }
}

/// A packet whose framing is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The first byte.
    pub toc: Toc,
    /// Its frames in the order of time; an empty one was not sent (DTX).
    pub frames: Vec<&'a [u8], MAX_FRAMES>,
}

impl<'a> Packet<'a> {
    /// Takes a packet apart (RFC 6716 §3.2), padding left out.
    ///
    /// # Errors
    /// What breaks one of the rules R1 to R7 of RFC 6716 §3.4.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (&first, rest) = bytes.split_first().ok_or(Malformed("an Opus packet of no bytes"))?;
        let mut packet = Packet { toc: Toc(first), frames: Vec::new() };
        match first & 3 {
            0 => packet.add(rest)?,
            1 => {
                if rest.len() % 2 != 0 {
                    return Err(Malformed("two equal Opus frames in an odd number of bytes"));
                }
                let (one, two) = rest.split_at(rest.len() / 2);
                packet.add(one)?;
                packet.add(two)?;
            }
            2 => {
                let (length, rest) = length(rest)?;
                let (one, two) = rest.split_at_checked(length).ok_or(TOO_SHORT)?;
                packet.add(one)?;
                packet.add(two)?;
            }
            _ => packet.add_many(rest)?,
        }
        Ok(packet)
    }

    /// How long it lasts, in microseconds.
    pub fn duration_us(&self) -> u32 {
        self.toc.frame_us() * self.frames.len() as u32
    }

    fn add(&mut self, frame: &'a [u8]) -> Result<(), Malformed> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(Malformed("an Opus frame of more than 1275 bytes"));
        }
        self.frames.push(frame).map_err(|_| Malformed("more than 48 Opus frames"))
    }

    /// A packet of code 3 (RFC 6716 §3.2.5).
    fn add_many(&mut self, rest: &'a [u8]) -> Result<(), Malformed> {
        let (&counts, mut rest) = rest.split_first().ok_or(TOO_SHORT)?;
        let count = usize::from(counts & 0x3f);
        if count == 0 || self.toc.frame_us() * count as u32 > MAX_PACKET_US {
            return Err(Malformed("an Opus packet of no frame or more than 120 ms"));
        }
        if counts & 0x40 != 0 {
            let mut padding = 0;
            loop {
                let (&byte, behind) = rest.split_first().ok_or(TOO_SHORT)?;
                rest = behind;
                padding += usize::from(byte).min(254);
                if byte < 255 {
                    break;
                }
            }
            let kept = rest.len().checked_sub(padding).ok_or(TOO_SHORT)?;
            rest = &rest[..kept];
        }
        if counts & 0x80 == 0 {
            if rest.len() % count != 0 {
                return Err(Malformed("Opus frames of unequal length that were said to be equal"));
            }
            let each = rest.len() / count;
            for n in 0..count {
                self.add(&rest[n * each..(n + 1) * each])?;
            }
            return Ok(());
        }
        let mut lengths = [0; MAX_FRAMES];
        for place in lengths.iter_mut().take(count - 1) {
            (*place, rest) = length(rest)?;
        }
        for length in lengths.into_iter().take(count - 1) {
            let (frame, behind) = rest.split_at_checked(length).ok_or(TOO_SHORT)?;
            self.add(frame)?;
            rest = behind;
        }
        self.add(rest)
    }
}

const TOO_SHORT: Malformed = Malformed("an Opus packet shorter than its frames");

/// A frame's length: one byte, or two from 252 on (RFC 6716 §3.2.1).
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    match bytes {
        [first @ 0..252, rest @ ..] => Ok((usize::from(*first), rest)),
        [first, second, rest @ ..] => Ok((usize::from(*second) * 4 + usize::from(*first), rest)),
        _ => Err(TOO_SHORT),
    }
}

/// Writes one packet that holds `frames`, all of the kind `toc` says: code 0 for a single frame, else code 3 with
/// lengths. The caller keeps to 120 ms and to frames that a packet can hold.
pub fn put<'a>(w: &mut Writer<'_>, toc: Toc, frames: impl ExactSizeIterator<Item = &'a [u8]> + Clone) {
    let count = frames.len();
    if count == 1 {
        w.u8(toc.kind());
    } else {
        w.u8(toc.kind() | 3);
        w.u8(0x80 | count.min(MAX_FRAMES) as u8);
        for frame in frames.clone().take(count.saturating_sub(1)) {
            match frame.len() {
                short @ 0..252 => w.u8(short as u8),
                long => {
                    let first = 252 + long % 4;
                    w.u8(first as u8);
                    w.u8(((long - first) / 4) as u8);
                }
            }
        }
    }
    frames.for_each(|frame| w.bytes(frame));
}

/// A mono frame of digital silence: CELT, whose first bit says so (RFC 6716 §4.3).
const SILENCE: [u8; 2] = [0xff, 0xfe];

/// Writes a packet of silence of `packet_ms` milliseconds, a multiple of 10 and at most 120: no encoder is needed
/// for it.
pub fn put_silence(w: &mut Writer<'_>, packet_ms: u32) {
    const CELT_10_MS: Toc = Toc(0xf0);
    const CELT_20_MS: Toc = Toc(0xf8);
    let (toc, frame_ms) = if packet_ms.is_multiple_of(20) { (CELT_20_MS, 20) } else { (CELT_10_MS, 10) };
    let frames = [&SILENCE[..]; 12];
    put(w, toc, frames.iter().take((packet_ms / frame_ms) as usize).copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl FnOnce(&mut Writer<'_>)) -> std::vec::Vec<u8> {
        let mut room = [0; 8192];
        let mut w = Writer::new(&mut room);
        put(&mut w);
        w.finish().expect("it fits").to_vec()
    }

    #[test]
    fn frames_last_as_the_table_says() {
        let of = |config: u8| Toc(config << 3).frame_us();
        assert_eq!([0, 1, 2, 3].map(of), [10_000, 20_000, 40_000, 60_000]);
        assert_eq!([8, 9, 10, 11].map(of), [10_000, 20_000, 40_000, 60_000]);
        assert_eq!([12, 13, 14, 15].map(of), [10_000, 20_000, 10_000, 20_000]);
        assert_eq!([16, 17, 18, 19].map(of), [2_500, 5_000, 10_000, 20_000]);
        assert_eq!([28, 29, 30, 31].map(of), [2_500, 5_000, 10_000, 20_000]);
    }

    #[test]
    fn each_code_is_taken_apart() {
        let frames = |bytes: &[u8]| {
            Packet::parse(bytes).expect("well-formed").frames.iter().map(|f| f.to_vec()).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(frames(&[0x48]), [b"".to_vec()]);
        assert_eq!(frames(b"\x48abc"), [b"abc".to_vec()]);
        assert_eq!(frames(b"\x49abcd"), [b"ab".to_vec(), b"cd".to_vec()]);
        assert_eq!(frames(b"\x4a\x01abcd"), [b"a".to_vec(), b"bcd".to_vec()]);
        // Three equal ones; then with lengths; then with two bytes of padding.
        assert_eq!(frames(b"\x4b\x03abc"), [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(frames(b"\x4b\x83\x02\x00abc"), [b"ab".to_vec(), b"".to_vec(), b"c".to_vec()]);
        assert_eq!(frames(b"\x4b\x42\x02ab\0\0"), [b"a".to_vec(), b"b".to_vec()]);
        // A padding of 254 + 1 and its 255 bytes.
        let mut padded = b"\x4b\x41\xff\x01a".to_vec();
        padded.extend([0; 255]);
        assert_eq!(frames(&padded), [b"a".to_vec()]);
        assert_eq!(Packet::parse(b"\x4b\x03abc").unwrap().duration_us(), 60_000);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let long = [0x48; 1277];
        for bad in [
            &b""[..],
            b"\x49abc",           // R3
            b"\x4a",              // R4
            b"\x4a\xfc",          // R4: half a length
            b"\x4a\x05abcd",      // R4
            b"\x4b",              // R6, R7
            b"\x4b\x00",          // R5
            b"\x4b\x07abcdefg",   // R5: 140 ms
            b"\x5b\x03abc",       // R5: 180 ms
            b"\x4b\x03abcd",      // R6
            b"\x4b\x43\x01",      // R6: padding that is not there
            b"\x4b\x43\xff\xff",  // R6: endless padding
            b"\x4b\x83\x01\x01a", // R7
            b"\x4b\x83\x01",      // R7
            &long,                // R2
        ] {
            assert!(Packet::parse(bad).is_err(), "{bad:02x?}");
        }
        // 48 frames are the most that fit: 2.5 ms each.
        assert_eq!(Packet::parse(b"\xe3\x30").unwrap().frames.len(), 48);
        assert!(Packet::parse(b"\xe3\x31").is_err());
    }

    #[test]
    fn any_bytes_are_answered() {
        let mut state = 1u32;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let mut good = 0;
        for _ in 0..200_000 {
            let bytes: std::vec::Vec<u8> = (0..next() % 24).map(|_| next() as u8).collect();
            if let Ok(packet) = Packet::parse(&bytes) {
                good += 1;
                assert!(packet.duration_us() <= MAX_PACKET_US || bytes[0] & 3 < 3);
                assert!(packet.frames.iter().map(|f| f.len()).sum::<usize>() < bytes.len());
            }
        }
        assert!(good > 1000, "{good}");
    }

    #[test]
    fn joined_packets_come_apart_again() {
        let (a, b, c) = ([1; 5], [2; 300], [3; 7]);
        let frames = [&a[..], &b, &c];
        let bytes = written(|w| put(w, Toc(0x4a), frames.into_iter()));
        assert_eq!(bytes[..5], [0x4b, 0x83, 5, 252, 12]);
        let packet = Packet::parse(&bytes).expect("well-formed");
        assert_eq!(packet.frames, frames);
        assert_eq!(packet.duration_us(), 60_000);
        for len in [0, 1, 251, 252, 255, 256, 1019, 1020, 1275] {
            let frame = std::vec![9; len];
            let bytes = written(|w| put(w, Toc(0x48), [&frame[..], &[]].into_iter()));
            assert_eq!(Packet::parse(&bytes).expect("well-formed").frames, [&frame[..], &[]], "{len}");
        }
        assert_eq!(written(|w| put(w, Toc(0x4b), [&a[..]].into_iter())), [0x48, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn silence_lasts_as_long_as_asked() {
        for ms in [10, 20, 30, 40, 60, 100, 120] {
            let bytes = written(|w| put_silence(w, ms));
            assert_eq!(Packet::parse(&bytes).expect("well-formed").duration_us(), ms * 1000);
        }
        assert_eq!(written(|w| put_silence(w, 20)), [0xf8, 0xff, 0xfe]);
    }
}
