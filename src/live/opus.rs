//! Opus itself: the one file that names the codec's crate.
//!
//! The codec allocates at construction only: some 300 kB for an encoder, 180 kB for a decoder.

use crate::wire::opus::Packet;
use opus_rs::{Application, OpusDecoder, OpusEncoder};

/// Work for the encoder, 0 to 10. From 0 to 3 is what a camera's processor can do beside its other work; 1 needs 6 %
/// fewer bits than 0 for a third more work, and 3 gains nothing on speech for twice of it.
const COMPLEXITY: i32 = 1;

/// Rates of Opus, in Hz (RFC 6716 §2).
const RATES_HZ: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Up to here SILK alone codes the sound, in integers: cameras have no floating-point unit. All that their microphones
/// hear is below its 8 kHz.
const ENCODED_HZ: u32 = 16_000;

/// The lowest rate of Opus that is not below `rate_hz`, or the highest.
fn rate_near(rate_hz: u32) -> u32 {
    RATES_HZ.into_iter().find(|rate| *rate >= rate_hz).unwrap_or(48_000)
}

/// Mono speech, variable bitrate, every frame sent.
pub struct Encoder {
    inner: Option<OpusEncoder>,
    rate_hz: u32,
}

impl Encoder {
    /// The encoder's rate for a clock of `rate_hz`. It may be lower: a packet says by itself what it holds.
    pub fn rate_near(rate_hz: u32) -> u32 {
        rate_near(rate_hz.min(ENCODED_HZ))
    }

    /// For PCM of [`Encoder::rate_near`] and an average of `bitrate_kbps`, 8 to 64.
    pub fn new(rate_hz: u32, bitrate_kbps: u32) -> Self {
        let rate_hz = Self::rate_near(rate_hz);
        let mut inner = OpusEncoder::new(rate_hz as i32, 1, Application::Voip).ok();
        if let Some(inner) = &mut inner {
            inner.bitrate_bps = bitrate_kbps.clamp(8, 64) as i32 * 1_000;
            inner.complexity = COMPLEXITY;
            inner.use_cbr = false;
        }
        Encoder { inner, rate_hz }
    }

    /// Encodes a frame of 10, 20, 40 or 60 ms into one packet and returns its length; `None` for other lengths or
    /// when `out` is too small.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Option<usize> {
        let step = (self.rate_hz / 100) as usize;
        if !matches!(pcm.len() / step, 1 | 2 | 4 | 6) || !pcm.len().is_multiple_of(step) {
            return None;
        }
        self.inner.as_mut()?.encode_i16(pcm, pcm.len(), out).ok()
    }
}

/// Decodes packets of any mode to mono.
pub struct Decoder {
    inner: Option<OpusDecoder>,
    rate_hz: u32,
    /// What the decoder gives: 120 ms.
    decoded: Box<[f32]>,
}

impl Decoder {
    /// The decoder's rate for a sink of `rate_hz`.
    pub fn rate_near(rate_hz: u32) -> u32 {
        rate_near(rate_hz)
    }

    /// To PCM of one of Opus's rates.
    pub fn new(rate_hz: u32) -> Self {
        let rate_hz = rate_near(rate_hz);
        let decoded = vec![0.0; rate_hz as usize / 1_000 * 120].into_boxed_slice();
        Decoder { inner: OpusDecoder::new(rate_hz as i32, 1).ok(), rate_hz, decoded }
    }

    /// Decodes a packet and returns the number of samples; `None` when it is none, or `out` too small.
    pub fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize> {
        let us = Packet::parse(packet).ok()?.duration_us();
        let samples = (u64::from(self.rate_hz) * u64::from(us) / 1_000_000) as usize;
        self.run(packet, out.get_mut(..samples)?)
    }

    /// Fills `out`, a multiple of 10 ms and at most 120, with what may have been in packets that are lost.
    pub fn conceal(&mut self, out: &mut [i16]) -> Option<usize> {
        self.run(&[], out)
    }

    fn run(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize> {
        let decoded = self.decoded.get_mut(..out.len())?;
        let samples = self.inner.as_mut()?.decode(packet, decoded.len(), decoded).ok()?;
        if samples == 0 || samples != out.len() {
            return None;
        }
        // Saturates; what is not a number is silence.
        out.iter_mut().zip(decoded).for_each(|(to, sample)| *to = (*sample * 32_768.0) as i16);
        Some(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::super::resample::tests::{amplitude, strongest, tone};
    use super::*;

    const KBPS: u32 = 24;

    #[test]
    fn a_tone_keeps_its_frequency_and_level() {
        for rate_hz in [8_000, 12_000, 16_000] {
            for frame_ms in [10, 20, 40, 60] {
                let mut encoder = Encoder::new(rate_hz, KBPS);
                let mut decoder = Decoder::new(rate_hz);
                let frame = rate_hz as usize / 1_000 * frame_ms;
                let (mut packet, mut pcm) = ([0; 1275], Vec::new());
                for input in tone(440.0, rate_hz, rate_hz as usize).chunks_exact(frame) {
                    let len = encoder.encode(input, &mut packet).expect("a frame that Opus has");
                    assert_eq!(Packet::parse(&packet[..len]).unwrap().duration_us(), frame_ms as u32 * 1_000);
                    let mut out = vec![0; frame];
                    assert_eq!(decoder.decode(&packet[..len], &mut out), Some(frame));
                    pcm.extend(out);
                }
                let middle = &pcm[pcm.len() / 2..pcm.len() / 2 + rate_hz as usize / 10];
                assert_eq!(strongest(middle, rate_hz), 440, "{rate_hz} Hz, {frame_ms} ms");
                let level = amplitude(middle, 440.0, rate_hz);
                assert!((7_000.0..13_000.0).contains(&level), "{rate_hz} Hz, {frame_ms} ms: {level}");
            }
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut encoder = Encoder::new(16_000, KBPS);
        let mut packet = [0; 1275];
        assert_eq!(encoder.encode(&[0; 319], &mut packet), None);
        assert_eq!(encoder.encode(&[0; 480], &mut packet), None);
        let len = encoder.encode(&[0; 320], &mut packet).unwrap();
        let mut decoder = Decoder::new(16_000);
        assert_eq!(decoder.decode(&packet[..len], &mut [0; 319]), None);
        assert_eq!(decoder.decode(&[], &mut [0; 960]), None);
        assert_eq!(decoder.decode(&[0x4b], &mut [0; 960]), None);
        assert_eq!(decoder.decode(&packet[..len], &mut [0; 960]), Some(320));
    }

    #[test]
    fn what_is_lost_is_made_up() {
        let mut encoder = Encoder::new(16_000, KBPS);
        let mut decoder = Decoder::new(16_000);
        let (mut packet, mut out) = ([0; 1275], [0; 320]);
        for input in tone(440.0, 16_000, 16_000).chunks_exact(320) {
            let len = encoder.encode(input, &mut packet).unwrap();
            decoder.decode(&packet[..len], &mut out).unwrap();
        }
        assert_eq!(decoder.conceal(&mut out), Some(320));
        assert!(out.iter().any(|s| s.abs() > 1_000), "{out:?}");
        assert_eq!(Decoder::new(16_000).conceal(&mut out), Some(320));
        assert!(out.iter().all(|&s| s == 0));
    }

    #[test]
    fn silence_is_silent_in_every_packet_time() {
        for ms in [10, 20, 30, 40, 60] {
            let mut room = [0; 64];
            let mut w = crate::wire::Writer::new(&mut room);
            crate::wire::opus::put_silence(&mut w, ms);
            let packet = w.finish().unwrap();
            let mut out = vec![1; 24 * ms as usize];
            assert_eq!(Decoder::new(24_000).decode(packet, &mut out), Some(out.len()));
            assert!(out.iter().all(|s| s.abs() < 2));
        }
    }

    #[test]
    fn any_packet_is_answered() {
        let mut state = 7u32;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize
        };
        let mut encoder = Encoder::new(16_000, KBPS);
        let mut decoder = Decoder::new(16_000);
        let (mut packet, mut out) = ([0; 1275], [0; 1_920]);
        let sound = tone(440.0, 16_000, 320);
        let mut good = 0;
        for round in 0..3_000 {
            let len = match round % 3 {
                // Noise of every mode, a packet with broken bits, and one that was lost.
                0 => {
                    let len = 1 + next() % 200;
                    packet[..len].fill_with(|| next() as u8);
                    len
                }
                1 => {
                    let len = encoder.encode(&sound, &mut packet).unwrap();
                    packet[next() % len] ^= 1 << (next() % 8);
                    len - next() % 2
                }
                _ => {
                    assert!(decoder.conceal(&mut out[..160 * (1 + next() % 6)]).is_some());
                    continue;
                }
            };
            good += usize::from(decoder.decode(&packet[..len], &mut out).is_some());
        }
        assert!(good > 1_000, "{good}");
    }
}
