//! The ring `audio`: one frame or packet in each slot.

use super::clock::Clock;
use super::ring::{Found, Ring};
use crate::source::{Sink, Track, Trouble};
use crate::time::{Duration, Instant};
use crate::wire::raptor::Codec;
use std::path::Path;

/// Between two attempts to open, and two looks whether the path still leads to this ring.
const RETRY: Duration = Duration::from_secs(1);

/// The streamer's programs start one after another: a word is due later.
const MISSING_AFTER: u8 = 15;

/// An AAC frame of one channel has 768 bytes at most (ISO/IEC 14496-3 §4.5.3), 20 ms of PCM at 16 kHz 640.
const FRAME_BYTES: usize = 2_048;

/// AAC-LC among the audio object types.
const LC: u8 = 2;

/// The sound that belongs to a stream.
pub struct Sound {
    ring: Option<Ring>,
    clock: Clock,
    buffer: Box<[u8; FRAME_BYTES]>,
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
            look_at: Instant::ZERO,
            missing: 0,
            told: None,
        }
    }

    fn open(&mut self, root: &Path, now: Instant, sink: &mut impl Sink) {
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
    pub fn take_all(&mut self, root: &Path, now: Instant, sink: &mut impl Sink) {
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
            let Some(frame) = frame.filter(|_| (header.codec, header.profile) == (Codec::AAC, LC)) else {
                ring.skip();
                self.unusable(header.codec, header.profile, sink);
                continue;
            };
            if let Found::Frame(slot) = ring.copy(&slot, frame) {
                // The streamer has one microphone.
                sink.aac(frame, header.rate, 1, self.clock.arrival(slot.timestamp_us, now));
            }
        }
    }

    fn unusable(&mut self, codec: Codec, profile: u8, sink: &mut impl Sink) {
        let what = (codec, profile);
        if self.told.replace(what) == Some(what) {
            return;
        }
        match codec {
            Codec::AAC if profile == LC => log::warn!("raptor: a frame of sound is too large"),
            Codec::AAC => log::warn!("raptor: the sound is HE-AAC, recordings need AAC-LC"),
            _ => log::warn!(
                "raptor: the sound is {}, recordings need AAC: `raptorctl rad set-codec aac`, or codec = aac in \
                 /etc/raptor.conf",
                codec.sound()
            ),
        }
        sink.trouble(Track::Audio, Trouble::Garbage);
    }
}
