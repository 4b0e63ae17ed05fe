//! The ring `audio`: one frame or packet in each slot.

use super::clock::Clock;
use super::ring::{Found, Ring};
use crate::media::g711::{from_alaw, from_ulaw};
use crate::source::{Sink, Track, Trouble};
use crate::time::{Duration, Instant};
use crate::wire::raptor::{Codec, Header};
use std::path::Path;

/// Between two attempts to open, and two looks whether the path still leads to this ring.
const RETRY: Duration = Duration::from_secs(1);

/// The streamer's programs start one after another: a word is due later.
const MISSING_AFTER: u8 = 15;

/// An AAC frame of one channel has 768 bytes at most (ISO/IEC 14496-3 §4.5.3), an Opus packet of one frame 1,276, and
/// 20 ms of PCM at 48 kHz 1,920.
const FRAME_BYTES: usize = 2_048;

/// Samples in a frame: 20 ms at 48 kHz are 960.
const FRAME_SAMPLES: usize = FRAME_BYTES / 2;

/// AAC-LC among the audio object types.
const LC: u8 = 2;

/// The sound that belongs to a stream.
pub struct Sound {
    ring: Option<Ring>,
    clock: Clock,
    buffer: Box<[u8; FRAME_BYTES]>,
    pcm: Box<[i16; FRAME_SAMPLES]>,
    look_at: Instant,
    missing: u8,
    /// What was told, not to be told again: codec and profile.
    told: Option<(Codec, u8)>,
}

impl Sound {
    /// Nothing is opened yet.
    pub fn new() -> Self {
        Sound {
            ring: None,
            clock: Clock::default(),
            buffer: Box::new([0; FRAME_BYTES]),
            pcm: Box::new([0; FRAME_SAMPLES]),
            look_at: Instant::ZERO,
            missing: 0,
            told: None,
        }
    }

    fn open(&mut self, root: &Path, now: Instant, sink: &mut dyn Sink) {
        self.look_at = now + RETRY;
        match Ring::open(root, "audio") {
            Ok(ring) => {
                self.ring = Some(ring);
                self.clock = Clock::default();
                self.missing = 0;
            }
            Err(error) => {
                self.missing = self.missing.saturating_add(1);
                if self.missing == MISSING_AFTER {
                    log::warn!("raptor: no sound: rss_ring_audio: {error}");
                    sink.trouble(Track::Audio, Trouble::Missing);
                }
            }
        }
    }

    /// Takes what is there; it is small, and never more than the ring holds.
    pub fn take_all(&mut self, root: &Path, now: Instant, sink: &mut dyn Sink) {
        if now >= self.look_at {
            if self.ring.as_ref().is_some_and(Ring::is_replaced) {
                self.ring = None;
            }
            self.look_at = now + RETRY;
            if self.ring.is_none() {
                self.open(root, now, sink);
            }
        }
        loop {
            let Some(ring) = &mut self.ring else { return };
            let slot = match ring.poll() {
                Found::Frame(slot) => slot,
                Found::Nothing => return,
                Found::Lost => continue,
                Found::Replaced => {
                    self.ring = None;
                    self.look_at = now;
                    return;
                }
            };
            let header = *ring.header();
            let frame = self.buffer.get_mut(..slot.length as usize).filter(|frame| !frame.is_empty());
            let Some(frame) = frame.filter(|_| is_known(&header)) else {
                ring.skip();
                self.unusable(header.codec, header.profile, sink);
                continue;
            };
            let Found::Frame(slot) = ring.copy(&slot, frame) else { continue };
            let arrival = self.clock.arrival(slot.timestamp_us, now);
            // The streamer has one microphone.
            match header.codec {
                Codec::AAC => sink.aac(frame, header.rate, 1, arrival),
                Codec::OPUS => sink.opus(frame, arrival),
                codec => sink.l16(to_pcm(codec, frame, &mut self.pcm[..]), header.rate, arrival),
            }
            if header.codec != Codec::AAC {
                self.unrecordable(header.codec);
            }
        }
    }

    /// Says how recordings would get sound, too.
    fn unrecordable(&mut self, codec: Codec) {
        let what = (codec, 0);
        if self.told.replace(what) != Some(what) {
            let name = codec.sound();
            log::warn!(
                "raptor: the sound is {name}, recordings need AAC: `raptorctl rad set-codec aac`, or codec = aac in \
                 /etc/raptor.conf"
            );
        }
    }

    fn unusable(&mut self, codec: Codec, profile: u8, sink: &mut dyn Sink) {
        let what = (codec, profile);
        if self.told.replace(what) == Some(what) {
            return;
        }
        match codec {
            Codec::AAC if profile == LC => log::warn!("raptor: a frame of sound is too large"),
            Codec::AAC => log::warn!("raptor: the sound is HE-AAC, recordings need AAC-LC"),
            _ => log::warn!("raptor: sound {} cannot be used: `raptorctl rad set-codec aac`", codec.sound()),
        }
        sink.trouble(Track::Audio, Trouble::Garbage);
    }
}

/// Whether somebody can make use of such sound.
fn is_known(header: &Header) -> bool {
    match header.codec {
        Codec::AAC => header.profile == LC,
        Codec::OPUS => true,
        // A rate that has no divisor with ours would make a resampler of some megabytes.
        Codec::L16 | Codec::PCMU | Codec::PCMA => {
            (8_000..=48_000).contains(&header.rate) && header.rate.is_multiple_of(50)
        }
        _ => false,
    }
}

/// Reads G.711, where a byte is a sample, or else L16.
fn to_pcm<'p>(codec: Codec, frame: &[u8], pcm: &'p mut [i16]) -> &'p [i16] {
    let count = match codec {
        Codec::PCMU | Codec::PCMA => {
            let from = if codec == Codec::PCMU { from_ulaw } else { from_alaw };
            pcm.iter_mut().zip(frame).map(|(sample, byte)| *sample = from(*byte)).count()
        }
        _ => pcm.iter_mut().zip(frame.as_chunks().0).map(|(sample, two)| *sample = i16::from_be_bytes(*two)).count(),
    };
    pcm.get(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcm_is_read_as_its_codec_says() {
        let mut pcm = [7; 4];
        assert_eq!(to_pcm(Codec::L16, b"\x01\x02\xff\xfe\x80", &mut pcm), [0x0102, -2]);
        assert_eq!(to_pcm(Codec::PCMU, b"\x00\xff\x80", &mut pcm), [-32_124, 0, 32_124]);
        assert_eq!(to_pcm(Codec::PCMA, b"\x2a\xd5", &mut pcm), [-32_256, 8]);
        // No more than there is room for.
        assert_eq!(to_pcm(Codec::PCMA, &[0xd5; 9], &mut pcm), [8; 4]);
    }

    #[test]
    fn rates_of_no_use_are_not_taken() {
        let mut bytes = [0; crate::wire::raptor::HEADER_BYTES];
        for (at, word) in [(12, 4), (28, Codec::L16.0), (52, crate::wire::raptor::MAGIC_VALUE), (56, 4)] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let header = Header::parse(&bytes).unwrap();
        for rate in [8_000, 11_050, 16_000, 44_100, 48_000] {
            assert!(is_known(&Header { rate, ..header }), "{rate}");
        }
        for rate in [0, 7_950, 11_025, 15_999, 47_981, 48_050, u32::MAX] {
            assert!(!is_known(&Header { rate, ..header }), "{rate}");
        }
    }
}
