//! From the streamer's clock to ours.

use crate::time::{Duration, Instant};

/// Frames that were late by more than this were not late: the streamer's clock was set. A ring holds no more, and a
/// streamer that was held up for less loses nothing: were its frames taken for new, the sound would come apart from the
/// pictures.
const JUMP_US: i64 = 2_000_000;

/// Says when a frame would have arrived if nothing had held it up: what comes late, or several at a time, keeps the
/// distances that it was taken in.
#[derive(Default)]
pub struct Clock {
    /// From the streamer's time to ours, in microseconds.
    lag_us: Option<i64>,
    last: Instant,
}

impl Clock {
    /// The arrival of a frame with this timestamp, read at `now`. It never goes back and never is later than `now`.
    pub fn arrival(&mut self, timestamp_us: i64, now: Instant) -> Instant {
        let now_us = (now - Instant::ZERO).as_micros() as i64;
        let seen = now_us.wrapping_sub(timestamp_us);
        let lag = match self.lag_us {
            // The fastest way is the true one; the slow climb is for clocks that drift apart.
            Some(lag) if seen >= lag => match seen.checked_sub(lag) {
                Some(late) if late < JUMP_US => lag + late / 256,
                _ => seen,
            },
            _ => seen,
        };
        self.lag_us = Some(lag);
        let arrival_us = timestamp_us.wrapping_add(lag).clamp(0, now_us) as u64;
        self.last = self.last.max(Instant::ZERO + Duration::from_micros(arrival_us)).min(now);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(us)
    }

    #[test]
    fn held_up_frames_keep_their_distances() {
        let mut clock = Clock::default();
        let mut got = Vec::new();
        for (timestamp, now) in [(0, 1_000_000), (40_000, 1_040_000), (80_000, 1_200_000), (120_000, 1_200_000)] {
            got.push((clock.arrival(timestamp, at(now)) - Instant::ZERO).as_micros());
        }
        assert_eq!(got[..2], [1_000_000, 1_040_000]);
        assert!((1_080_000..1_081_000).contains(&got[2]) && got[3].abs_diff(got[2] + 40_000) < 1_000, "{got:?}");
    }

    #[test]
    fn what_was_held_up_for_long_is_where_it_belongs() {
        // Sound; nothing for 1.5 s in the middle, then all of it at once.
        let mut clock = Clock::default();
        for n in 0..200 {
            let timestamp = n * 64_000;
            let now = if (100..124).contains(&n) { 124 * 64_000 } else { timestamp };
            let arrival = (clock.arrival(timestamp as i64, at(now)) - Instant::ZERO).as_micros();
            assert!((timestamp..timestamp + 80_000).contains(&(arrival as u64)), "{n}: {arrival}");
        }
    }

    #[test]
    fn a_faster_way_is_believed_at_once_and_a_jump_too() {
        let mut clock = Clock::default();
        clock.arrival(0, at(1_100_000));
        assert_eq!(clock.arrival(40_000, at(1_110_000)), at(1_110_000));
        // The streamer's clock is set back, then far ahead; some have none.
        assert_eq!(clock.arrival(-5_000_000, at(1_150_000)), at(1_150_000));
        assert_eq!(clock.arrival(i64::MAX, at(1_190_000)), at(1_190_000));
        assert_eq!(clock.arrival(i64::MIN / 2, at(1_230_000)), at(1_230_000));
        assert_eq!(clock.arrival(0, at(1_270_000)), at(1_270_000));
        for n in 1..100 {
            let now = at(1_270_000 + n * 40_000);
            let arrival = clock.arrival(0, now);
            assert!(arrival <= now && now - arrival <= Duration::from_micros(JUMP_US as u64 + 40_000));
        }
    }

    #[test]
    fn clocks_that_drift_apart_stay_together() {
        let mut clock = Clock::default();
        let mut late = Duration::ZERO;
        for n in 0..100_000u64 {
            // 100 parts in a million.
            let now = at(n * 40_004);
            late = now - clock.arrival((n * 40_000) as i64, now);
        }
        assert!(late < Duration::from_millis(2), "{late:?}");
    }
}
