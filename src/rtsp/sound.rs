//! AAC frames from RTP packets (RFC 3640 §3.2, §3.3.6: mode AAC-hbr, and AAC-lbr which differs in numbers).

use crate::wire::sdp::Media;
use crate::wire::{Malformed, aac};
use data_encoding::HEXLOWER_PERMISSIVE;

/// The largest AAC-LC frame of two channels (ISO/IEC 14496-3 §4.5.3: 6,144 bits for each), with some room.
const FRAME_BYTES: usize = 2048;

/// Takes AAC frames out of packets, or puts them together again.
#[derive(Default)]
pub struct Sound {
    format: Format,
    /// The frames of the packet at hand that were taken.
    taken: usize,
    frame: heapless::Vec<u8, FRAME_BYTES>,
    /// Of the frame that has begun and comes in several packets, how long it will be.
    awaited: usize,
}

/// How frames are packed, as the description says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Format {
    /// Sampling rate in Hz.
    pub rate_hz: u32,
    /// Channels.
    pub channels: u8,
    /// Bits of the size, of the first index and of those that follow.
    size_bits: usize,
    index_bits: usize,
    delta_bits: usize,
}

impl Format {
    /// The format of a stream that is described so; `None`: it is not AAC-LC in `mpeg4-generic`.
    pub fn of(media: &Media<'_>) -> Option<Format> {
        if !media.encoding.eq_ignore_ascii_case("mpeg4-generic") {
            return None;
        }
        let parameter = |name| crate::wire::rtsp::parameter(media.fmtp, name);
        // The lengths of AAC-hbr (RFC 3640 §3.3.6) where the description is silent.
        let bits =
            |name, otherwise| parameter(name).map_or(Some(otherwise), |text| text.parse().ok()).filter(|n| *n <= 16);
        let (rate_hz, channels) = match parameter("config") {
            Some(config) => aac_lc(config)?,
            None => (media.clock_hz, media.channels),
        };
        Some(Format {
            rate_hz,
            channels,
            size_bits: bits("sizelength", 13)?,
            index_bits: bits("indexlength", 3)?,
            delta_bits: bits("indexdeltalength", 3)?,
        })
    }
}

/// Rate and channels of an AudioSpecificConfig in hexadecimal, when it is AAC-LC (ISO/IEC 14496-3 §1.6.2.1).
fn aac_lc(config: &str) -> Option<(u32, u8)> {
    let mut bytes = [0; 32];
    let bytes = bytes.get_mut(..HEXLOWER_PERMISSIVE.decode_len(config.len()).ok()?)?;
    HEXLOWER_PERMISSIVE.decode_mut(config.as_bytes(), bytes).ok()?;
    const AAC_LC: u32 = 2;
    const EXPLICIT: u32 = 15;
    let (rate_hz, at) = match bits(bytes, 5, 4)? {
        EXPLICIT => (bits(bytes, 9, 24)?, 33),
        index => (aac::rate_hz(index as u8)?, 9),
    };
    (bits(bytes, 0, 5)? == AAC_LC).then_some((rate_hz, bits(bytes, at, 4)? as u8))
}

/// `count` bits, 32 at the most, from bit `at` on.
fn bits(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    (at..at + count).try_fold(0, |value, at| Some(value << 1 | u32::from(bytes.get(at / 8)? >> (7 - at % 8) & 1)))
}

impl Sound {
    /// Another stream begins.
    pub fn restart(&mut self, format: Format) {
        *self = Sound { format, ..Sound::default() };
    }

    /// Rate and channels.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Takes the next [frame](Sound::frame) out of the packet with this payload; `None`: it has no more, and the next
    /// call is about another packet. `marker`: it ends a frame.
    ///
    /// # Errors
    /// The packet is none of AAC; nothing more comes out of it.
    pub fn poll(&mut self, payload: &[u8], marker: bool) -> Option<Result<(), Malformed>> {
        let result = self.next(payload, marker);
        match result {
            Ok(true) => {
                self.taken += 1;
                return Some(Ok(()));
            }
            Ok(false) => {}
            // Told at the first call only; the next one finds `taken` beyond the end.
            Err(_) if self.taken == usize::MAX => {}
            Err(malformed) => {
                (self.taken, self.awaited) = (usize::MAX, 0);
                return Some(Err(malformed));
            }
        }
        self.taken = 0;
        None
    }

    /// The frame that was taken, raw.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Whether there was another frame.
    fn next(&mut self, payload: &[u8], marker: bool) -> Result<bool, Malformed> {
        const SHORT: Malformed = Malformed("an AAC packet shorter than its headers say");
        let Format { size_bits, index_bits, delta_bits, .. } = self.format;
        if self.taken == usize::MAX {
            return Err(SHORT);
        }
        let (length, rest) = payload.split_first_chunk::<2>().ok_or(SHORT)?;
        let header_bits = usize::from(u16::from_be_bytes(*length));
        let (headers, mut frames) = rest.split_at_checked(header_bits.div_ceil(8)).ok_or(SHORT)?;
        let mut at = 0;
        for index in 0..=self.taken {
            let other_bits = if index == 0 { index_bits } else { delta_bits };
            if at + size_bits + other_bits > header_bits || size_bits == 0 {
                return if index > 0 { Ok(false) } else { Err(SHORT) };
            }
            let size = bits(headers, at, size_bits).ok_or(SHORT)? as usize;
            at += size_bits + other_bits;
            if size > frames.len() && index == 0 && header_bits < 2 * (size_bits + index_bits.max(delta_bits)) {
                // The only one of the packet, and larger: each packet has a piece, and the size of the whole (§3.2.3).
                return self.join(size, frames, marker);
            }
            let frame;
            (frame, frames) = frames.split_at_checked(size).ok_or(SHORT)?;
            if index == self.taken {
                self.awaited = 0;
                self.frame.clear();
                return self.frame.extend_from_slice(frame).map(|()| true).map_err(|_| SHORT);
            }
        }
        Ok(false)
    }

    fn join(&mut self, size: usize, piece: &[u8], marker: bool) -> Result<bool, Malformed> {
        const TORN: Malformed = Malformed("an AAC frame with a piece missing");
        if self.taken > 0 {
            return Ok(false);
        }
        if self.awaited != size {
            self.frame.clear();
            self.awaited = size;
        }
        if self.frame.len() + piece.len() > size || self.frame.extend_from_slice(piece).is_err() {
            return Err(TORN);
        }
        let complete = self.frame.len() == size;
        if complete || marker {
            self.awaited = 0;
        }
        if marker && !complete { Err(TORN) } else { Ok(complete) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FMTP: &str =
        "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=";

    fn format(fmtp: &str) -> Option<Format> {
        let sdp = format!("v=0\nm=audio 0 RTP/AVP 97\na=rtpmap:97 MPEG4-GENERIC/48000/2\na=fmtp:97 {fmtp}\n");
        let media = crate::wire::sdp::media(&sdp).next().unwrap();
        Format::of(&media)
    }

    fn sound() -> Sound {
        let mut sound = Sound::default();
        sound.restart(format(&format!("{FMTP}1408")).unwrap());
        sound
    }

    /// A packet of AAC-hbr; `sizes` are those of the headers.
    fn packet(sizes: &[usize], frames: &[u8]) -> Vec<u8> {
        let mut bytes = (sizes.len() as u16 * 16).to_be_bytes().to_vec();
        bytes.extend(sizes.iter().flat_map(|size| ((*size as u16) << 3).to_be_bytes()));
        bytes.extend(frames);
        bytes
    }

    fn all(sound: &mut Sound, payload: &[u8], marker: bool) -> Vec<Result<Vec<u8>, Malformed>> {
        let mut out = Vec::new();
        while let Some(result) = sound.poll(payload, marker) {
            out.push(result.map(|()| sound.frame().to_vec()));
        }
        out
    }

    #[test]
    fn what_a_description_says() {
        let f = |fmtp: &str| format(fmtp).map(|f| (f.rate_hz, f.channels, f.size_bits));
        assert_eq!(f(&format!("{FMTP}1408")), Some((16_000, 1, 13)));
        assert_eq!(f(&format!("{FMTP}1190")), Some((48_000, 2, 13)));
        // The rate in full.
        assert_eq!(f("config=17801f4008"), Some((16_000, 1, 13)));
        assert_eq!(f("mode=AAC-lbr; SizeLength=6; config=1408"), Some((16_000, 1, 6)));
        assert_eq!(f(""), Some((48_000, 2, 13)), "of the rtpmap");
        // HE-AAC, a reserved rate, what is no config.
        for bad in
            ["config=2b10", "config=1688", "config=14", "config=x", "config=140", "sizelength=99", "indexlength=-1"]
        {
            assert_eq!(f(bad), None, "{bad}");
        }
        assert_eq!(f(&format!("config={}", "00".repeat(33))), None);
    }

    #[test]
    fn one_or_several_frames_of_a_packet() {
        let mut sound = sound();
        assert_eq!(all(&mut sound, &packet(&[3], b"abc"), true), [Ok(b"abc".to_vec())]);
        let three = packet(&[1, 0, 2], b"abc");
        for _ in 0..2 {
            assert_eq!(all(&mut sound, &three, true), [Ok(b"a".to_vec()), Ok(vec![]), Ok(b"bc".to_vec())]);
        }
        // Cut anywhere it has an error, told once, and what came in front of it.
        for cut in 0..three.len() {
            let out = all(&mut sound, &three[..cut], true);
            assert_eq!(out.iter().filter(|r| r.is_err()).count(), 1, "{cut}");
            assert!(out.last().unwrap().is_err() && out.len() <= 3);
        }
        assert_eq!(all(&mut sound, &three, true).len(), 3);
    }

    #[test]
    fn a_frame_in_pieces() {
        let mut sound = sound();
        assert_eq!(all(&mut sound, &packet(&[5], b"ab"), false), []);
        assert_eq!(all(&mut sound, &packet(&[5], b"cd"), false), []);
        assert_eq!(all(&mut sound, &packet(&[5], b"e"), true), [Ok(b"abcde".to_vec())]);
        // Its end is missing, or it is none.
        assert_eq!(all(&mut sound, &packet(&[5], b"ab"), false), []);
        assert!(all(&mut sound, &packet(&[5], b"cd"), true)[0].is_err());
        assert!(all(&mut sound, &packet(&[8000], &[0; 4000]), false)[0].is_err());
        assert_eq!(all(&mut sound, &packet(&[2], b"xy"), true), [Ok(b"xy".to_vec())]);
    }

    #[test]
    fn noise_is_read_within_its_bounds() {
        let mut noise = crate::crypto::fixed::Noise::new(5);
        let mut sound = sound();
        let mut frames = 0;
        for _ in 0..20_000 {
            let mut payload = noise.bytes(60);
            if payload.len() > 1 {
                payload[0] = 0;
            }
            frames += all(&mut sound, &payload, noise.below(2) == 0).len();
        }
        assert!(frames > 100);
    }
}
