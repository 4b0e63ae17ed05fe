//! Media time from arrival times. A byte stream carries no timestamps, and what the scheduler of a
//! small camera does to arrivals must not be seen in a recording.

use crate::time::{Instant, Pts90k};
use crate::wire::aac::FRAME_SAMPLES;

/// Fractions of a tick of 90 kHz.
const FRACTION: i64 = 256;

/// Off by more than this (1 s), video time jumps to the arrival: the source has stalled.
const VIDEO_JUMP: i64 = 90_000 * FRACTION;

/// Frame intervals that can be real: 120 to 1 frames a second.
const INTERVALS: core::ops::RangeInclusive<i64> = 750 * FRACTION..=90_000 * FRACTION;

/// Pictures after which the loop narrows down.
const SETTLED: u32 = 32;

/// Pictures after which it narrows down once more: the rate is known, what is left is jitter.
const LOCKED: u32 = 256;

/// The time line of the video: a phase-locked loop of second order over the arrivals. Each picture is
/// one measured interval after the one before, pulled to its arrival by a small part of the
/// difference; so jitter is averaged out, and pictures that come in a burst are spread. Times never go
/// back.
pub struct VideoClock {
    /// Time of the newest picture, in fractions of a tick.
    latest: Option<i64>,
    /// When it arrived.
    arrival: i64,
    /// From picture to picture, in fractions of a tick.
    interval: i64,
    pictures: u32,
}

impl VideoClock {
    /// A clock that expects `fps` pictures a second, 20 when nothing is known, until it has measured.
    pub fn new(fps: Option<u32>) -> Self {
        let interval = 90_000 * FRACTION / i64::from(fps.unwrap_or(20).clamp(1, 120));
        // A hint is as good as the first measurements.
        let pictures = if fps.is_some() { SETTLED / 2 } else { 0 };
        VideoClock { latest: None, arrival: 0, interval, pictures }
    }

    /// The time of a picture that arrived at `arrival`, which may not go back.
    pub fn stamp(&mut self, arrival: Instant) -> Pts90k {
        let arrival = arrival.as_90k() as i64 * FRACTION;
        let since = arrival - core::mem::replace(&mut self.arrival, arrival);
        let Some(latest) = self.latest else {
            self.latest = Some(arrival);
            return (arrival / FRACTION) as u64;
        };
        let expected = latest + self.interval;
        let off = arrival - expected;
        // Part of the difference that goes into the time, and into the interval: critically damped.
        if off.abs() > 2 * self.interval {
            // Far off the line: the encoder has another rate now, or was held up.
            self.pictures = self.pictures.min(SETTLED);
        }
        let (phase, rate) = match self.pictures {
            0..SETTLED => (4, 32),
            SETTLED..LOCKED => (8, 256),
            LOCKED.. => (24, 2304),
        };
        self.pictures = self.pictures.saturating_add(1);
        let time = if off > VIDEO_JUMP {
            arrival
        } else {
            // More pictures than time has passed for: it must not run away from the sound.
            let runs_away = off < -VIDEO_JUMP;
            // One late picture says little about the rate: it counts as one interval at most. A flood says nothing.
            let is_flood = runs_away && since < *INTERVALS.start() / 2;
            let told = if is_flood { 0 } else { off.clamp(-self.interval, self.interval) };
            self.interval = (self.interval + told / rate).clamp(*INTERVALS.start(), *INTERVALS.end());
            (expected + off / phase).max(latest + if runs_away { FRACTION } else { self.interval / 4 })
        };
        self.latest = Some(time);
        (time / FRACTION) as u64
    }

    /// The measured time from picture to picture in ticks of 90 kHz.
    pub fn interval_90k(&self) -> u32 {
        (self.interval / FRACTION) as u32
    }

    /// The measured frame rate, rounded.
    pub fn fps(&self) -> u32 {
        ((90_000 * FRACTION + self.interval / 2) / self.interval) as u32
    }
}

/// Off by more than this (200 ms), audio time jumps.
const AUDIO_JUMP: i64 = 18_000 * FRACTION;

/// The time line of the audio: it advances by the samples of a frame, and is slewed to the arrivals,
/// the origin of the video's time line too, by half a per cent at most, which nobody hears.
pub struct AudioClock {
    latest: Option<i64>,
    frame: i64,
}

impl AudioClock {
    /// A clock for AAC frames at `rate_hz`.
    pub fn new(rate_hz: u32) -> Self {
        Self::of_frames(FRAME_SAMPLES, rate_hz)
    }

    /// A clock for frames of `samples` at `rate_hz`.
    pub fn of_frames(samples: u32, rate_hz: u32) -> Self {
        let frame = 90_000 * FRACTION * i64::from(samples) / i64::from(rate_hz.max(1));
        AudioClock { latest: None, frame }
    }

    /// The time of a frame that arrived at `arrival`; `None` when the frame must be dropped, because it
    /// belongs to a backlog: more sound has come than time has passed.
    pub fn stamp(&mut self, arrival: Instant) -> Option<Pts90k> {
        let arrival = arrival.as_90k() as i64 * FRACTION;
        let expected = self.latest.map_or(arrival, |latest| latest + self.frame);
        let off = arrival - expected;
        if off < -AUDIO_JUMP {
            return None;
        }
        let slew = self.frame / 200;
        let time = if off > AUDIO_JUMP { arrival } else { expected + (off / 16).clamp(-slew, slew) };
        self.latest = Some(time);
        Some((time / FRACTION) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of pictures that arrive at these milliseconds.
    fn stamps(clock: &mut VideoClock, arrivals_ms: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let stamps: Vec<u64> = arrivals_ms.into_iter().map(|ms| clock.stamp(at(ms))).collect();
        assert!(stamps.windows(2).all(|w| w[0] < w[1]), "time goes back");
        stamps
    }

    #[test]
    fn finds_the_frame_rate_from_any_hint() {
        for real_ms in [33, 40, 50, 66, 100] {
            for hint in [None, Some(10), Some(15), Some(25), Some(30)] {
                let mut clock = VideoClock::new(hint);
                let stamps = stamps(&mut clock, (0..300).map(|i| i * real_ms));
                assert_eq!(u64::from(clock.fps()), (1000 + real_ms / 2) / real_ms, "{real_ms} {hint:?}");
                let late = stamps.last().unwrap().abs_diff(299 * real_ms * 90);
                assert!(late < 900, "{real_ms} {hint:?}: {late}");
            }
        }
    }

    #[test]
    fn jitter_is_averaged_out() {
        // 15 pictures a second, each up to 30 ms late.
        let mut clock = VideoClock::new(Some(15));
        let arrivals = (0..600u64).map(|i| i * 1000 / 15 + i * 7919 % 31);
        let stamps = stamps(&mut clock, arrivals);
        for pair in stamps[100..].windows(2) {
            assert!((pair[1] - pair[0]).abs_diff(6000) < 600, "{}", pair[1] - pair[0]);
        }
    }

    #[test]
    fn a_burst_is_spread() {
        // Nothing for 600 ms, then all at once.
        let mut clock = VideoClock::new(Some(20));
        let arrivals = (0..200u64).map(|i| if (100..112).contains(&i) { 112 * 50 } else { i * 50 });
        let stamps = stamps(&mut clock, arrivals);
        for (i, pair) in stamps.windows(2).enumerate().skip(50) {
            let step = pair[1] - pair[0];
            assert!((2000..=12_000).contains(&step), "{i}: {step}");
        }
        assert!(stamps[199].abs_diff(199 * 50 * 90) < 2000);
    }

    #[test]
    fn a_flood_does_not_run_away() {
        // Thousands at once, as a reader finds them that was kept away; then 20 a second.
        let mut clock = VideoClock::new(Some(20));
        let flood =
            (0..200u64).map(|i| i * 50).chain((0..5_000).map(|_| 10_000)).chain((0..400).map(|i| 10_000 + i * 50));
        let stamps = stamps(&mut clock, flood);
        let ahead = stamps[5_199] - 10_000 * 90;
        assert!((90_000..110_000).contains(&ahead), "{ahead}");
        assert!(stamps.last().unwrap().abs_diff((10_000 + 399 * 50) * 90) < 4_500, "it comes back");
        assert!((19..=21).contains(&clock.fps()), "{}", clock.fps());
    }

    #[test]
    fn another_rate_is_found_by_a_settled_clock() {
        let mut clock = VideoClock::new(Some(25));
        let arrivals = (0..1000u64).map(|i| i * 40).chain((0..400).map(|i| 1000 * 40 + i * 67));
        let stamps = stamps(&mut clock, arrivals);
        assert_eq!(clock.fps(), 15);
        assert!(stamps[1399].abs_diff((1000 * 40 + 399 * 67) * 90) < 900);
    }

    #[test]
    fn a_stall_is_a_jump() {
        let mut clock = VideoClock::new(Some(25));
        let stamps = stamps(&mut clock, (0..100u64).map(|i| i * 40 + if i >= 50 { 5000 } else { 0 }));
        assert_eq!(stamps[50], (50 * 40 + 5000) * 90);
        assert_eq!(clock.fps(), 25);
    }

    #[test]
    fn follows_a_camera_that_slows_down_at_night() {
        let mut clock = VideoClock::new(Some(25));
        let arrivals: Vec<u64> = (0..250).map(|i| i * 40).chain((0..300).map(|i| 10_000 + i * 100)).collect();
        let stamps = stamps(&mut clock, arrivals.iter().copied());
        assert_eq!(clock.fps(), 10);
        for (stamp, arrival) in stamps.iter().zip(&arrivals) {
            assert!(stamp.abs_diff(arrival * 90) < 45_000, "{stamp} {arrival}");
        }
    }

    #[test]
    fn audio_counts_samples_and_follows_slowly() {
        let mut clock = AudioClock::new(16_000);
        let mut latest = None;
        // A crystal that is 0.1 % slow, arrivals up to 40 ms late.
        for i in 0..3000u64 {
            let real_us = i * 64_064;
            let stamp = clock.stamp(Instant::from_micros(real_us + i * 7919 % 40_000)).unwrap();
            if let Some(latest) = latest {
                assert!((5760u64 - 29..=5760 + 29).contains(&(stamp - latest)), "{}", stamp - latest);
            }
            assert!(stamp.abs_diff(real_us * 9 / 100) < 5760);
            latest = Some(stamp);
        }
    }

    #[test]
    fn blocks_of_short_frames_are_spread() {
        // 20 ms each, written by the half dozen.
        let mut clock = AudioClock::of_frames(320, 16_000);
        let arrivals = (0..3_000u64).map(|i| Instant::from_micros(i / 6 * 120_000));
        let stamps: Vec<u64> = arrivals.map(|arrival| clock.stamp(arrival).unwrap()).collect();
        for (i, pair) in stamps.windows(2).enumerate() {
            assert!((pair[1] - pair[0]).abs_diff(1_800) <= 10, "{i}: {}", pair[1] - pair[0]);
        }
        assert!(stamps[2_999].abs_diff(2_999 * 1_800) < 120 * 90, "{}", stamps[2_999]);
    }

    #[test]
    fn sound_that_is_looked_for_with_the_pictures_stays_where_it_was() {
        // Every 40 to 100 ms somebody looks, and takes the middle of the time since the last look.
        for (look, rate) in [(40, 16_000), (50, 16_000), (67, 48_000), (100, 8_000)] {
            let (mut clock, look) = (AudioClock::new(rate), look * 1000);
            for i in 0..3000u64 {
                let real_us = i * 1024 * 1_000_000 / u64::from(rate);
                let arrival = real_us.div_ceil(look) * look;
                let stamp = clock.stamp(Instant::from_micros(arrival - arrival.min(look) / 2)).unwrap();
                let off_ms = (stamp as i64 - (real_us * 9 / 100) as i64) / 90;
                assert!(i < 500 || off_ms.abs() <= 15, "{look} {rate} {i}: {off_ms} ms");
            }
        }
    }

    #[test]
    fn a_pause_in_the_audio_is_a_jump_and_a_backlog_is_dropped() {
        let mut clock = AudioClock::new(16_000);
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        assert_eq!(clock.stamp(at(0)), Some(0));
        assert_eq!(clock.stamp(at(1000)), Some(90_000));
        let burst = (0..100).filter(|_| clock.stamp(at(1000)).is_some()).count();
        assert_eq!(burst, 3, "200 ms of it");
        assert!(clock.stamp(at(1300)).is_some());
    }
}
