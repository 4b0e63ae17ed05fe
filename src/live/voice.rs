//! The sound of one live view: Opus packets of exactly the negotiated packet time.

use super::microphone::Sound;
use crate::time::Pts90k;
use crate::wire::{Writer, opus};

#[cfg(feature = "opus")]
use super::{opus::Encoder, resample::Resampler};

/// Off by more than this (50 ms) from where the sound so far ends, the source has left something out: what waits for
/// the rest of a packet is dropped, and the time starts anew.
const JUMP_90K: u64 = 4_500;

/// Bytes of frames that may wait for the rest of their packet.
const WAITING_BYTES: usize = 640;

/// Frames that may wait: 60 ms of 10 ms each, twice.
const WAITING_FRAMES: usize = 12;

/// A packet that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoicePacket {
    /// Its bytes.
    pub len: usize,
    /// What its RTP timestamp advances by: samples at the negotiated rate, always those of one packet time.
    pub samples: u32,
    /// Time of its first sample.
    pub pts_90k: Pts90k,
}

/// Makes packets. Everything it needs is claimed by [`Voice::new`] and by the first sound of another rate.
pub struct Voice {
    rate_hz: u32,
    packet_ms: u32,
    /// Time of what waits.
    pts_90k: Pts90k,
    waiting: Waiting,
    passing: Passing,
    #[cfg(feature = "opus")]
    encoding: Encoding,
    unfit: u32,
}

/// Of which kind the sound is that waits for the rest of its packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Silence {
        duration_90k: u32,
    },
    Opus,
    #[cfg(feature = "opus")]
    Pcm,
}

impl Voice {
    /// For a negotiated clock of `rate_hz` (8,000, 16,000 or 24,000), packets of 20, 30, 40 or 60 ms, and a bitrate
    /// that the encoder keeps to on average.
    pub fn new(rate_hz: u32, packet_ms: u32, bitrate_kbps: u32) -> Self {
        let packet_ms = packet_ms.clamp(10, 60) / 10 * 10;
        #[cfg(not(feature = "opus"))]
        let _ = bitrate_kbps;
        Voice {
            rate_hz,
            packet_ms,
            pts_90k: 0,
            waiting: Waiting::Nothing,
            passing: Passing::default(),
            #[cfg(feature = "opus")]
            encoding: Encoding::new(rate_hz, packet_ms, bitrate_kbps),
            unfit: 0,
        }
    }

    /// Opus packets that could not be passed on: their frames do not add up to the negotiated packet time.
    pub fn unfit(&self) -> u32 {
        self.unfit
    }

    /// Whether packets like this one can be passed on as they are.
    pub fn passes(&self, packet: &[u8]) -> bool {
        opus::Packet::parse(packet).is_ok_and(|packet| self.fits(&packet))
    }

    fn fits(&self, packet: &opus::Packet<'_>) -> bool {
        let bytes: usize = packet.frames.iter().map(|frame| frame.len()).sum();
        (self.packet_ms * 1_000).is_multiple_of(packet.toc.frame_us())
            && bytes <= WAITING_BYTES
            && packet.frames.len() <= WAITING_FRAMES
    }

    /// Takes in a piece of sound; then [`Voice::poll_packet`] is to be called until it says `None`.
    pub fn push(&mut self, sound: &Sound<'_>) {
        match *sound {
            Sound::Silence { duration_90k, pts_90k } => {
                let held = match self.waiting {
                    Waiting::Silence { duration_90k } => duration_90k,
                    _ => 0,
                };
                let held = if self.follow(pts_90k, held, Waiting::Silence { duration_90k: 0 }) { held } else { 0 };
                self.waiting = Waiting::Silence { duration_90k: held.saturating_add(duration_90k) };
            }
            Sound::Opus { packet, pts_90k } => {
                let Ok(packet) = opus::Packet::parse(packet) else { return };
                if !self.fits(&packet) {
                    self.unfit = self.unfit.wrapping_add(1);
                    return;
                }
                let held = self.passing.duration_us() * 9 / 100;
                if !self.follow(pts_90k, held, Waiting::Opus) || !self.passing.takes(&packet) {
                    self.pts_90k = pts_90k;
                    self.passing = Passing::default();
                }
                self.passing.push(&packet);
                self.waiting = Waiting::Opus;
            }
            #[cfg(feature = "opus")]
            Sound::Pcm { pcm, rate_hz, pts_90k } => {
                let held = self.encoding.held_90k();
                if !self.follow(pts_90k, held, Waiting::Pcm) {
                    self.encoding.held = 0;
                }
                self.encoding.push(pcm, rate_hz);
                self.waiting = Waiting::Pcm;
            }
            #[cfg(not(feature = "opus"))]
            Sound::Pcm { .. } => {}
        }
    }

    /// Whether sound of this kind goes on where `held_90k` of it end. If so the time follows that of the source, which
    /// has another clock, slowly; if not it starts at `pts_90k`.
    fn follow(&mut self, pts_90k: Pts90k, held_90k: u32, kind: Waiting) -> bool {
        let end = self.pts_90k + u64::from(held_90k);
        let same = core::mem::discriminant(&self.waiting) == core::mem::discriminant(&kind);
        if !same || end.abs_diff(pts_90k) > JUMP_90K {
            self.pts_90k = pts_90k;
            return false;
        }
        let off = pts_90k as i64 - end as i64;
        self.pts_90k = self.pts_90k.saturating_add_signed(off / 8);
        true
    }

    /// Writes the next packet that is whole.
    pub fn poll_packet(&mut self, out: &mut [u8]) -> Option<VoicePacket> {
        let packet_90k = self.packet_ms * 90;
        let len = match &mut self.waiting {
            Waiting::Nothing => None,
            Waiting::Silence { duration_90k } if *duration_90k >= packet_90k => {
                *duration_90k -= packet_90k;
                let mut w = Writer::new(out);
                opus::put_silence(&mut w, self.packet_ms);
                w.finish().ok().map(|bytes| bytes.len())
            }
            Waiting::Silence { .. } => None,
            Waiting::Opus => self.passing.take(self.packet_ms * 1_000, out),
            #[cfg(feature = "opus")]
            Waiting::Pcm => self.encoding.take(out),
        }?;
        let packet = VoicePacket { len, samples: self.rate_hz / 1_000 * self.packet_ms, pts_90k: self.pts_90k };
        self.pts_90k += u64::from(packet_90k);
        Some(packet)
    }
}

/// Opus frames of one kind that wait until they fill a packet.
struct Passing {
    toc: Option<opus::Toc>,
    bytes: [u8; 2 * WAITING_BYTES],
    lengths: heapless::Vec<u16, { 2 * WAITING_FRAMES }>,
}

impl Default for Passing {
    fn default() -> Self {
        Passing { toc: None, bytes: [0; _], lengths: heapless::Vec::new() }
    }
}

impl Passing {
    fn duration_us(&self) -> u32 {
        self.toc.map_or(0, |toc| toc.frame_us() * self.lengths.len() as u32)
    }

    fn held(&self) -> usize {
        self.lengths.iter().map(|&len| usize::from(len)).sum()
    }

    /// Whether the packet's frames can stand in one packet with those that wait.
    fn takes(&self, packet: &opus::Packet<'_>) -> bool {
        let bytes: usize = packet.frames.iter().map(|frame| frame.len()).sum();
        self.toc.is_none_or(|toc| toc.kind() == packet.toc.kind())
            && self.held() + bytes <= self.bytes.len()
            && self.lengths.len() + packet.frames.len() <= self.lengths.capacity()
    }

    /// `takes` has said yes.
    fn push(&mut self, packet: &opus::Packet<'_>) {
        self.toc = Some(packet.toc);
        let mut at = self.held();
        for frame in &packet.frames {
            let Some(room) = self.bytes.get_mut(at..at + frame.len()) else { return };
            if self.lengths.push(frame.len() as u16).is_err() {
                return;
            }
            room.copy_from_slice(frame);
            at += frame.len();
        }
    }

    /// A packet of `packet_us`, when so much waits.
    fn take(&mut self, packet_us: u32, out: &mut [u8]) -> Option<usize> {
        let toc = self.toc?;
        let count = (packet_us / toc.frame_us()) as usize;
        if count == 0 || self.lengths.len() < count {
            return None;
        }
        let mut frames = [&[][..]; WAITING_FRAMES];
        let (mut rest, mut used) = (&self.bytes[..], 0);
        for (place, &len) in frames.iter_mut().zip(&self.lengths).take(count) {
            (*place, rest) = rest.split_at_checked(usize::from(len))?;
            used += usize::from(len);
        }
        let mut w = Writer::new(out);
        opus::put(&mut w, toc, frames.get(..count)?.iter().copied());
        let len = w.finish().ok().map(|bytes| bytes.len());
        let held = self.held();
        self.bytes.copy_within(used..held, 0);
        self.lengths.rotate_left(count);
        self.lengths.truncate(self.lengths.len() - count);
        len
    }
}

/// PCM at the rate of the encoder that waits until it fills a packet.
#[cfg(feature = "opus")]
struct Encoding {
    encoder: Encoder,
    /// Rate of the encoder: that of the clock, where Opus has it.
    rate_hz: u32,
    resampler: (u32, Resampler),
    pcm: Box<[i16]>,
    held: usize,
    /// Samples of a frame, and frames of a packet: Opus has no frames of 30 ms.
    frame: usize,
    frames: usize,
}

#[cfg(feature = "opus")]
impl Encoding {
    /// Sound that may wait: any frame of a source, and a packet.
    const HELD_MS: u32 = 300;

    fn new(rate_hz: u32, packet_ms: u32, bitrate_kbps: u32) -> Self {
        let rate_hz = Encoder::rate_near(rate_hz);
        let frame_ms = if matches!(packet_ms, 10 | 20 | 40 | 60) { packet_ms } else { 10 };
        Encoding {
            encoder: Encoder::new(rate_hz, bitrate_kbps),
            rate_hz,
            resampler: (rate_hz, Resampler::new(rate_hz, rate_hz)),
            pcm: vec![0; (rate_hz / 1_000 * Self::HELD_MS) as usize].into_boxed_slice(),
            held: 0,
            frame: (rate_hz / 1_000 * frame_ms) as usize,
            frames: (packet_ms / frame_ms) as usize,
        }
    }

    fn held_90k(&self) -> u32 {
        (self.held as u64 * 90_000 / u64::from(self.rate_hz)) as u32
    }

    fn push(&mut self, pcm: &[i16], rate_hz: u32) {
        if self.resampler.0 != rate_hz {
            self.resampler = (rate_hz, Resampler::new(rate_hz, self.rate_hz));
        }
        let (room, held) = (&mut self.pcm, &mut self.held);
        self.resampler.1.push(pcm, |sample| {
            // Full only when nobody polls: then the newest is lost, and the time jumps by as much.
            if let Some(place) = room.get_mut(*held) {
                *place = sample;
                *held += 1;
            }
        });
    }

    fn take(&mut self, out: &mut [u8]) -> Option<usize> {
        let samples = self.frame * self.frames;
        if self.held < samples {
            return None;
        }
        let len = match self.frames {
            1 => self.encoder.encode(&self.pcm[..samples], out),
            _ => self.encode_joined(samples, out),
        };
        self.pcm.copy_within(samples..self.held, 0);
        self.held -= samples;
        len
    }

    /// Several frames in one packet.
    fn encode_joined(&mut self, samples: usize, out: &mut [u8]) -> Option<usize> {
        let mut packet = [0; WAITING_BYTES];
        let mut joined = Passing::default();
        for frame in self.pcm[..samples].chunks_exact(self.frame) {
            let len = self.encoder.encode(frame, &mut packet)?;
            let packet = opus::Packet::parse(packet.get(..len)?).ok()?;
            if !joined.takes(&packet) {
                return None;
            }
            joined.push(&packet);
        }
        joined.take(joined.duration_us(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All packets that wait.
    fn packets(voice: &mut Voice) -> Vec<(Vec<u8>, VoicePacket)> {
        let mut room = [0; 1_400];
        core::iter::from_fn(|| voice.poll_packet(&mut room).map(|packet| (room[..packet.len].to_vec(), packet)))
            .collect()
    }

    fn duration_us(packet: &[u8]) -> u32 {
        opus::Packet::parse(packet).expect("well-formed").duration_us()
    }

    #[test]
    fn opus_passes_on_three_in_one() {
        let mut voice = Voice::new(16_000, 60, 24);
        assert!(voice.passes(b"\x48abc"));
        for (n, packet) in [&b"\x48abc"[..], b"\x48", b"\x48de", b"\x48fg"].into_iter().enumerate() {
            voice.push(&Sound::Opus { packet, pts_90k: 1_000 + 1_800 * n as u64 });
        }
        let got = packets(&mut voice);
        assert_eq!(got, [(b"\x4b\x83\x03\x00abcde".to_vec(), VoicePacket { len: 9, samples: 960, pts_90k: 1_000 })]);
        voice.push(&Sound::Opus { packet: b"\x4b\x03hij", pts_90k: 1_000 + 4 * 1_800 });
        let got = packets(&mut voice);
        assert_eq!(got.len(), 1);
        assert_eq!(&got[0].0[4..], b"fghi");
        assert_eq!(got[0].1.pts_90k, 1_000 + 3 * 1_800);
    }

    #[test]
    fn opus_passes_on_as_it_is_and_taken_apart() {
        let mut voice = Voice::new(24_000, 20, 24);
        voice.push(&Sound::Opus { packet: b"\x48abc", pts_90k: 0 });
        assert_eq!(packets(&mut voice), [(b"\x48abc".to_vec(), VoicePacket { len: 4, samples: 480, pts_90k: 0 })]);
        voice.push(&Sound::Opus { packet: b"\x4b\x03abc", pts_90k: 1_800 });
        let got: Vec<Vec<u8>> = packets(&mut voice).into_iter().map(|packet| packet.0).collect();
        assert_eq!(got, [b"\x48a", b"\x48b", b"\x48c"]);
    }

    #[test]
    fn opus_that_does_not_add_up_is_counted() {
        let mut voice = Voice::new(16_000, 20, 24);
        for packet in [&b"\x58abc"[..], b"\x50abc", &[0x48; 700]] {
            assert!(!voice.passes(packet));
            voice.push(&Sound::Opus { packet, pts_90k: 0 });
        }
        // Frames of 20 ms make no 30.
        let mut other = Voice::new(16_000, 30, 24);
        other.push(&Sound::Opus { packet: b"\x48abc", pts_90k: 0 });
        assert_eq!((voice.unfit(), other.unfit()), (3, 1));
        assert!(packets(&mut voice).is_empty() && packets(&mut other).is_empty());
    }

    #[test]
    fn another_kind_or_a_hole_starts_anew() {
        let mut voice = Voice::new(16_000, 60, 24);
        voice.push(&Sound::Opus { packet: b"\x48old", pts_90k: 0 });
        voice.push(&Sound::Opus { packet: b"\x4b\x03new", pts_90k: 90_000 });
        let got = packets(&mut voice);
        assert_eq!((got.len(), &got[0].0[4..], got[0].1.pts_90k), (1, &b"new"[..], 90_000));
        voice.push(&Sound::Opus { packet: b"\x48old", pts_90k: 95_400 });
        // Another bandwidth cannot stand in the same packet.
        voice.push(&Sound::Opus { packet: b"\x0b\x03new", pts_90k: 97_200 });
        let got = packets(&mut voice);
        assert_eq!((got.len(), &got[0].0[4..], got[0].1.pts_90k), (1, &b"new"[..], 97_200));
    }

    #[test]
    fn silence_goes_on_in_packets_of_the_right_length() {
        for ms in [20, 30, 40, 60] {
            let mut voice = Voice::new(16_000, ms, 24);
            let mut all = Vec::new();
            for n in 0..100 {
                voice.push(&Sound::Silence { duration_90k: 5_760, pts_90k: 5_760 * n });
                all.extend(packets(&mut voice));
            }
            assert_eq!(all.len() as u32, 6_400 / ms);
            for (n, (packet, voice)) in all.iter().enumerate() {
                assert_eq!(duration_us(packet), ms * 1_000);
                assert_eq!((voice.samples, voice.pts_90k), (16 * ms, n as u64 * u64::from(ms) * 90));
            }
        }
    }

    #[cfg(feature = "opus")]
    mod encoded {
        use super::super::super::opus::Decoder;
        use super::super::super::resample::tests::{strongest, tone};
        use super::*;

        /// Sends a tone through and returns the packets with what a decoder hears.
        fn sent(from_hz: u32, rate_hz: u32, ms: u32, pts_of: impl Fn(u64) -> u64) -> (Vec<VoicePacket>, Vec<i16>) {
            let mut voice = Voice::new(rate_hz, ms, 24);
            let mut decoder = Decoder::new(24_000);
            let (mut all, mut pcm) = (Vec::new(), Vec::new());
            for (n, piece) in tone(440.0, from_hz, from_hz as usize).chunks(1_024).enumerate() {
                let pts_90k = pts_of(n as u64 * 1_024 * 90_000 / u64::from(from_hz));
                voice.push(&Sound::Pcm { pcm: piece, rate_hz: from_hz, pts_90k });
                for (packet, written) in packets(&mut voice) {
                    assert_eq!(duration_us(&packet), ms * 1_000);
                    let mut out = vec![0; 24 * ms as usize];
                    decoder.decode(&packet, &mut out).expect("decodes");
                    pcm.extend(out);
                    all.push(written);
                }
            }
            (all, pcm)
        }

        #[test]
        fn a_tone_of_any_rate_comes_out_in_every_packet_time() {
            for (from_hz, rate_hz, ms) in [
                (16_000, 16_000, 20),
                (16_000, 24_000, 60),
                (8_000, 16_000, 60),
                (44_100, 16_000, 20),
                (48_000, 24_000, 30),
                (22_050, 24_000, 40),
                (8_000, 8_000, 20),
            ] {
                let (all, pcm) = sent(from_hz, rate_hz, ms, |pts| pts);
                assert_eq!(all.len() as u32, 1_000 / ms, "{from_hz} -> {rate_hz}, {ms} ms");
                for pair in all.windows(2) {
                    assert_eq!(pair[0].samples, rate_hz / 1_000 * ms);
                    assert_eq!((pair[1].pts_90k - pair[0].pts_90k).abs_diff(u64::from(ms) * 90) / 2, 0);
                }
                assert_eq!(strongest(&pcm[12_000..14_400], 24_000), 440, "{from_hz} -> {rate_hz}, {ms} ms");
            }
        }

        #[test]
        fn the_time_follows_another_clock() {
            // The source's clock is 0.1 % slow: 90 ticks in a second.
            let (all, _) = sent(16_000, 16_000, 20, |pts| pts + pts / 1_000);
            let end = all.last().unwrap().pts_90k;
            let exact = 49 * 1_800;
            assert!((exact + 30..exact + 100).contains(&end), "{end}");
        }

        #[test]
        fn a_hole_starts_anew() {
            let (all, _) = sent(16_000, 16_000, 20, |pts| if pts < 45_000 { pts } else { pts + 90_000 });
            assert!(all.windows(2).any(|pair| pair[1].pts_90k - pair[0].pts_90k > 90_000));
        }

        #[test]
        fn who_does_not_poll_loses_sound_only() {
            let mut voice = Voice::new(16_000, 20, 24);
            for n in 0..100 {
                voice.push(&Sound::Pcm { pcm: &[0; 1_024], rate_hz: 16_000, pts_90k: n * 5_760 });
            }
            assert!(packets(&mut voice).len() <= 15);
        }
    }
}
