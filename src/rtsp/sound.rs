//! Sound from RTP packets: AAC (RFC 3640 §3.2, §3.3.6: mode AAC-hbr, and AAC-lbr which differs in numbers), Opus
//! (RFC 7587 §4.2), linear PCM and G.711 (RFC 3551 §4.5.11, §4.5.14).

use crate::media::g711;
use crate::wire::sdp::Media;
use crate::wire::{Malformed, aac, hex};

/// The largest AAC-LC frame of two channels (ISO/IEC 14496-3 §4.5.3: 6,144 bits for each), with some room.
const FRAME_BYTES: usize = 2048;

/// AAC frames of a packet: more than a second. To find one of them takes all that are in front of it.
const FRAMES_MAX: usize = 64;

/// Samples are handed out in pieces of 20 ms, whatever a packet holds: the clock of the sound goes by equal frames.
const PIECES_PER_S: u32 = 50;

/// A piece at [`RATES_HZ`]'s end.
const PIECE: usize = (*RATES_HZ.end() / PIECES_PER_S) as usize;

/// Of samples that can be taken.
const RATES_HZ: core::ops::RangeInclusive<u32> = 8_000..=48_000;

/// Takes frames out of packets, or puts them together again.
#[derive(Default)]
pub struct Sound {
    format: Format,
    /// The frames of the packet at hand that were taken.
    taken: usize,
    frame: heapless::Vec<u8, FRAME_BYTES>,
    /// A piece of samples, and the bytes of the packet at hand that are in it and those before.
    pcm: heapless::Vec<i16, PIECE>,
    at: usize,
    /// Of the frame that has begun and comes in several packets, how long it will be.
    awaited: usize,
}

/// What a stream has in it, as the description says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Format {
    /// How it is encoded.
    pub codec: Codec,
    /// Sampling rate in Hz.
    pub rate_hz: u32,
    /// Channels.
    pub channels: u8,
    /// Of AAC, bits of the size, of the first index and of those that follow.
    size_bits: usize,
    index_bits: usize,
    delta_bits: usize,
}

/// Encodings; of those that a server offers the greatest is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Codec {
    /// G.711, A-law.
    Pcma,
    /// G.711, µ-law.
    Pcmu,
    /// Linear PCM of 16 bits.
    L16,
    /// Opus, which any build can pass on to a live view.
    Opus,
    /// AAC-LC, which alone can be recorded.
    #[default]
    Aac,
}

impl Codec {
    /// Bytes of a sample of one channel.
    fn sample_bytes(self) -> usize {
        if self == Codec::L16 { 2 } else { 1 }
    }
}

impl Format {
    /// The format of a stream that is described so; `None`: it cannot be taken.
    pub fn of(media: &Media<'_>) -> Option<Format> {
        let named = |name: &str| media.encoding.eq_ignore_ascii_case(name);
        // The payload types that need no description (RFC 3551 table 4).
        let numbered = |number: u8| media.encoding.is_empty() && media.payload_type == number;
        let is = |name: &str, number| named(name) || numbered(number);
        let (codec, hz, channels) = if named("mpeg4-generic") {
            return Format::of_aac(media);
        } else if named("opus") {
            (Codec::Opus, 48_000, media.channels)
        } else if is("PCMU", 0) {
            (Codec::Pcmu, 8_000, media.channels)
        } else if is("PCMA", 8) {
            (Codec::Pcma, 8_000, media.channels)
        } else if is("L16", 11) {
            (Codec::L16, 44_100, media.channels)
        } else if numbered(10) {
            (Codec::L16, 44_100, 2)
        } else {
            return None;
        };
        let rate_hz = if media.clock_hz == 0 { hz } else { media.clock_hz };
        let fits = RATES_HZ.contains(&rate_hz) && rate_hz.is_multiple_of(PIECES_PER_S) && (1..=2).contains(&channels);
        fits.then_some(Format { codec, rate_hz, channels, ..Format::default() })
    }

    fn of_aac(media: &Media<'_>) -> Option<Format> {
        let parameter = |name| crate::wire::rtsp::parameter(media.fmtp, name);
        // The lengths of AAC-hbr (RFC 3640 §3.3.6) where the description is silent.
        let bits =
            |name, otherwise| parameter(name).map_or(Some(otherwise), |text| text.parse().ok()).filter(|n| *n <= 16);
        let (rate_hz, channels) = match parameter("config") {
            Some(config) => aac_lc(config)?,
            None => (media.clock_hz, media.channels),
        };
        Some(Format {
            codec: Codec::Aac,
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
    let bytes = hex::decode(config, &mut bytes)?;
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

    /// What it takes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Takes the next [frame](Sound::frame) or [piece](Sound::pcm) out of the packet with this payload; `None`: it has
    /// no more, and the next call is about another packet. `marker`: it ends a frame.
    ///
    /// # Errors
    /// The packet is not what was described; nothing more comes out of it.
    pub fn poll(&mut self, payload: &[u8], marker: bool) -> Option<Result<(), Malformed>> {
        let result = match self.format.codec {
            Codec::Aac => self.next(payload, marker),
            Codec::Opus if self.taken > 0 => Ok(false),
            Codec::Opus => self.whole(payload),
            Codec::L16 | Codec::Pcmu | Codec::Pcma => self.next_piece(payload),
        };
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
        (self.taken, self.at) = (0, 0);
        None
    }

    /// The frame that was taken, raw AAC or an Opus packet.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// The samples that were taken, of one channel: 20 ms.
    pub fn pcm(&self) -> &[i16] {
        &self.pcm
    }

    fn whole(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        self.frame.clear();
        let fits = !payload.is_empty() && self.frame.extend_from_slice(payload).is_ok();
        if fits { Ok(true) } else { Err(Malformed("an Opus packet of no bytes, or too many")) }
    }

    /// Whether there was another piece; what is left begins the next one.
    fn next_piece(&mut self, payload: &[u8]) -> Result<bool, Malformed> {
        let Format { codec, rate_hz, channels, .. } = self.format;
        let piece = (rate_hz / PIECES_PER_S) as usize;
        let step = codec.sample_bytes() * usize::from(channels.max(1));
        if self.taken == usize::MAX || !payload.len().is_multiple_of(step) {
            return Err(Malformed("half a sample of sound"));
        }
        if self.pcm.len() >= piece {
            self.pcm.clear();
        }
        for sample in payload.get(self.at..).unwrap_or_default().chunks_exact(step) {
            self.at += step;
            // The first channel stands for all: a camera has one microphone.
            let sample = match (codec, sample) {
                (Codec::Pcmu, [byte, ..]) => g711::from_ulaw(*byte),
                (Codec::Pcma, [byte, ..]) => g711::from_alaw(*byte),
                (_, [high, low, ..]) => i16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            // There is room up to the end of the piece.
            let _ = self.pcm.push(sample);
            if self.pcm.len() >= piece {
                return Ok(true);
            }
        }
        Ok(false)
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
            if index == FRAMES_MAX {
                return Err(Malformed("an AAC packet of too many frames"));
            }
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
    fn a_packet_of_nothing_but_headers_has_an_end() {
        let mut sound = sound();
        let out = all(&mut sound, &packet(&[0; 4090], b""), true);
        assert_eq!((out.len(), out.iter().filter(|r| r.is_ok()).count()), (65, 64));
        assert_eq!(all(&mut sound, &packet(&[1; 64], &[7; 64]), true), vec![Ok(vec![7]); 64]);
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

    /// The sound of `m=audio 0 RTP/AVP …`.
    fn other(payload_type: u8, rtpmap: &str) -> Option<Format> {
        let map = if rtpmap.is_empty() { String::new() } else { format!("a=rtpmap:{payload_type} {rtpmap}\n") };
        let sdp = format!("v=0\nm=audio 0 RTP/AVP {payload_type}\n{map}");
        Format::of(&crate::wire::sdp::media(&sdp).next().unwrap())
    }

    #[test]
    fn other_encodings_by_name_or_number() {
        let f = |payload_type, map: &str| other(payload_type, map).map(|f| (f.codec, f.rate_hz, f.channels));
        assert_eq!(f(97, "opus/48000/2"), Some((Codec::Opus, 48_000, 2)));
        assert_eq!(f(97, "L16/16000"), Some((Codec::L16, 16_000, 1)));
        assert_eq!(f(96, "l16/44100/2"), Some((Codec::L16, 44_100, 2)));
        assert_eq!(f(0, ""), Some((Codec::Pcmu, 8_000, 1)));
        assert_eq!(f(98, "pcmu/16000"), Some((Codec::Pcmu, 16_000, 1)));
        assert_eq!(f(8, "PCMA/8000"), Some((Codec::Pcma, 8_000, 1)));
        assert_eq!((f(10, ""), f(11, "")), (Some((Codec::L16, 44_100, 2)), Some((Codec::L16, 44_100, 1))));
        for (payload_type, map) in
            [(9, ""), (97, "G726-32/8000"), (97, "L16/96000"), (97, "L16/11025"), (97, "L16/8000/6"), (255, "")]
        {
            assert_eq!(f(payload_type, map), None, "{payload_type} {map}");
        }
        assert!(Codec::Aac > Codec::Opus && Codec::Opus > Codec::L16 && Codec::L16 > Codec::Pcmu);
    }

    /// The pieces of samples that come out, or the errors.
    fn pieces(sound: &mut Sound, payload: &[u8]) -> Vec<Result<Vec<i16>, Malformed>> {
        let mut out = Vec::new();
        while let Some(result) = sound.poll(payload, true) {
            out.push(result.map(|()| sound.pcm().to_vec()));
        }
        out
    }

    #[test]
    fn samples_come_in_equal_pieces() {
        let mut sound = Sound::default();
        sound.restart(other(97, "L16/8000/2").unwrap());
        let samples: Vec<u8> = (0..400i16).flat_map(|n| [n.to_be_bytes(), [0x7f; 2]]).flatten().collect();
        // Packets of any length: 20 ms are 160 samples.
        let mut all = Vec::new();
        for packet in samples.chunks(4 * 150) {
            all.extend(pieces(&mut sound, packet));
        }
        assert_eq!(all, [Ok((0..160).collect()), Ok((160..320).collect::<Vec<i16>>())]);
        // A packet that ends within a sample is left out as a whole.
        assert!(matches!(pieces(&mut sound, &samples[..602])[..], [Err(_)]));
        let rest = pieces(&mut sound, &samples);
        assert_eq!((rest.len(), rest[0].as_ref().unwrap()[..81].to_vec()), (3, (320..400).chain([0]).collect()));
        assert_eq!(pieces(&mut sound, b""), []);
    }

    #[test]
    fn telephone_sound_and_opus() {
        let mut sound = Sound::default();
        for (payload_type, byte, sample) in [(0, 0x00, -32_124), (8, 0xaa, 32_256)] {
            sound.restart(other(payload_type, "").unwrap());
            assert_eq!(pieces(&mut sound, &[byte; 320]), [Ok(vec![sample; 160]), Ok(vec![sample; 160])]);
        }
        sound.restart(other(97, "opus/48000/2").unwrap());
        for packet in [&b"\xf8\xff\xfe"[..], &[7; FRAME_BYTES]] {
            assert_eq!(all(&mut sound, packet, true), [Ok(packet.to_vec())]);
        }
        for bad in [&b""[..], &[7; FRAME_BYTES + 1]] {
            assert!(matches!(all(&mut sound, bad, true)[..], [Err(_)]));
        }
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
