//! The sound of a live view: Opus packets on their way out, and the RTP time they get.

use super::VOICE_BYTES;
use crate::time::{Instant, Pts90k};
use heapless::{Deque, Vec};

/// An Opus packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Voice {
    /// RTP time, without the stream's offset.
    pub(super) ticks: u32,
    pub(super) payload: Vec<u8, VOICE_BYTES>,
}

/// Packets that wait to be sent, and the time line of the sound. It counts samples, since a receiver
/// takes every other step for a loss, and jumps only where sound is missing.
#[derive(Debug)]
pub(super) struct AudioTrack {
    rate_hz: u32,
    waiting: Deque<Voice, WAITING>,
    /// RTP time of the packet to come, and when its sound should begin.
    next: Option<(u64, Pts90k)>,
}

impl AudioTrack {
    pub(super) fn new() -> AudioTrack {
        AudioTrack { rate_hz: 16_000, waiting: Deque::new(), next: None }
    }

    /// Sets the rate of the RTP clock.
    pub(super) fn select(&mut self, rate_hz: u32) {
        self.rate_hz = rate_hz.clamp(8_000, 48_000);
    }

    /// Takes a packet of `samples` that was captured at `pts_90k`. Whether there was room: the oldest
    /// goes when nobody fetches them.
    pub(super) fn push(&mut self, payload: &[u8], samples: u32, pts_90k: Pts90k) -> bool {
        let Ok(payload) = Vec::from_slice(payload) else { return false };
        let (ticks, begins_90k) = match self.next {
            None => (self.ticks_of(pts_90k), pts_90k),
            Some((ticks, expected)) if pts_90k > expected + GAP_90K => {
                (ticks + self.ticks_of(pts_90k - expected), pts_90k)
            }
            // It follows on. What the source's clock says draws the line by a 64th of the difference, so
            // that the sender reports stay true however long it lasts.
            Some((ticks, expected)) => {
                (ticks, expected.saturating_add_signed((pts_90k as i64).wrapping_sub(expected as i64) / 64))
            }
        };
        let samples = u64::from(samples.min(self.rate_hz));
        self.next = Some((ticks + samples, begins_90k + samples * 90_000 / u64::from(self.rate_hz)));
        let had_room = !self.waiting.is_full();
        if !had_room {
            self.waiting.pop_front();
        }
        // There is room now.
        let _ = self.waiting.push_back(Voice { ticks: ticks as u32, payload });
        had_room
    }

    /// The next packet to be sent.
    pub(super) fn front(&self) -> Option<&Voice> {
        self.waiting.front()
    }

    /// It was sent.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
    }

    /// Lets go of what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// RTP time of this moment, without the stream's offset.
    pub(super) fn ticks_at(&self, now: Instant) -> u32 {
        let now_90k = now.as_90k();
        let ticks = match self.next {
            Some((ticks, at_90k)) if now_90k >= at_90k => ticks + self.ticks_of(now_90k - at_90k),
            Some((ticks, at_90k)) => ticks.saturating_sub(self.ticks_of(at_90k - now_90k)),
            None => self.ticks_of(now_90k),
        };
        ticks as u32
    }

    fn ticks_of(&self, ticks_90k: u64) -> u64 {
        ticks_90k * u64::from(self.rate_hz) / 90_000
    }
}

/// Packets that may wait: 120 ms at 20 ms each.
const WAITING: usize = 6;

/// Sound that is missing for longer than this is a gap.
const GAP_90K: u64 = 80 * 90;

#[cfg(test)]
mod tests {
    use super::*;

    fn track(rate_hz: u32) -> AudioTrack {
        let mut track = AudioTrack::new();
        track.select(rate_hz);
        track
    }

    fn push(track: &mut AudioTrack, samples: u32, pts_90k: Pts90k) -> u32 {
        assert!(track.push(&[7; 60], samples, pts_90k));
        let voice = track.front().expect("it was just pushed");
        assert_eq!(voice.payload, [7; 60]);
        let ticks = voice.ticks;
        track.pop();
        ticks
    }

    #[test]
    fn time_counts_samples_of_the_negotiated_rate() {
        let vectors = crate::crypto::fixed::vectors("srtp");
        let steps = vectors["opus"]["timestamp_step"].as_array().unwrap();
        assert!(steps.len() >= 9);
        for step in steps {
            let number = |key: &str| step[key].as_u64().unwrap();
            let mut track = track(number("rate") as u32);
            let samples = number("step") as u32;
            let packet_90k = number("ptime") * 90;
            let first = push(&mut track, samples, 1_000_000);
            for i in 1..100 {
                // Arrivals that jitter by 10 ms do not show.
                let jitter = i * 7919 % 900;
                let ticks = push(&mut track, samples, 1_000_000 + i * packet_90k + jitter);
                assert_eq!(ticks, first + samples * i as u32);
            }
        }
    }

    #[test]
    fn missing_sound_is_a_jump_and_late_sound_is_none() {
        let mut track = track(16_000);
        let first = push(&mut track, 320, 900_000);
        assert_eq!(push(&mut track, 320, 901_800), first + 320);
        // A second without sound: 16,000 samples.
        assert_eq!(push(&mut track, 320, 903_600 + 90_000), first + 640 + 16_000);
        // Back in time, even to the beginning: it follows on.
        assert_eq!(push(&mut track, 320, 900_000), first + 960 + 16_000);
        assert_eq!(push(&mut track, 320, 0), first + 1280 + 16_000);
    }

    #[test]
    fn reports_follow_a_clock_that_drifts() {
        let mut track = track(16_000);
        // A crystal that is 0.1 % slow, for ten minutes: 600 ms in the end.
        let mut last_90k = 0;
        for i in 0..30_000u64 {
            last_90k = 1_000_000 + i * 1_801_800 / 1000;
            push(&mut track, 320, last_90k);
        }
        let at_last = track.ticks_at(Instant::from_micros(last_90k * 100 / 9 + 20_000));
        let next = track.next.unwrap().0 as u32;
        assert!(at_last.abs_diff(next) < 160, "{at_last} {next}");
        // Before and behind, at the same pace.
        assert_eq!(track.ticks_at(Instant::from_micros(last_90k * 100 / 9 + 1_020_000)).abs_diff(at_last + 16_000), 0);
    }

    #[test]
    fn the_oldest_makes_room_and_what_is_too_large_is_refused() {
        let mut track = track(24_000);
        for i in 0..WAITING as u64 {
            assert!(track.push(&[i as u8], 480, 90_000 + i * 1800));
        }
        assert!(!track.push(&[99], 480, 90_000 + WAITING as u64 * 1800));
        assert_eq!(track.front().unwrap().payload, [1]);
        assert!(!track.push(&[0; VOICE_BYTES + 1], 480, 200_000));
        track.clear();
        assert!(track.front().is_none());
    }
}
