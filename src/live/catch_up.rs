//! From the IDR picture at which a live view begins to the present, in a third of a second.
//!
//! A decoder needs every picture since an IDR picture, and a viewer wants to see the present. So the
//! pictures that are held leave as a time-lapse: their RTP times lie closer together than they were
//! captured, and each leaves at about its RTP time. To a receiver it looks like a camera with a high
//! frame rate; nothing has to be thrown away or shown late.
//!
//! ```text
//!  captured   IDR . . . . . . . . . . . start . . .|. . . .
//!                \___________________       \___   |  same time from here on
//!                                    \          \  |
//!  RTP time                            IDR.........|. . . .
//!                                      start       start + 300 ms at most
//! ```

use crate::time::{Duration, Pts90k};

/// A time-lapse, and real time after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchUp {
    /// When the IDR picture was captured.
    from_90k: Pts90k,
    /// When it is sent.
    start_90k: Pts90k,
    /// What was captured from here on has its own time.
    end_90k: Pts90k,
    /// Bytes that were held at the start.
    bytes: usize,
}

impl CatchUp {
    /// Begins at a picture captured at `from_90k`; with those since then it has `bytes`.
    pub(super) fn new(from_90k: Pts90k, now_90k: Pts90k, bytes: usize) -> CatchUp {
        // A clock that smooths may be ahead by a fraction of a picture.
        let start_90k = now_90k.max(from_90k);
        let lapse_90k = ((start_90k - from_90k) / SPEED_UP).min(LONGEST_90K);
        CatchUp { from_90k, start_90k, end_90k: start_90k + lapse_90k, bytes }
    }

    /// The RTP time of a picture, without the stream's offset.
    pub(super) fn rtp_90k(&self, pts_90k: Pts90k) -> u64 {
        if pts_90k >= self.end_90k {
            return pts_90k;
        }
        let captured_90k = pts_90k.saturating_sub(self.from_90k);
        let lapse_90k = self.end_90k - self.start_90k;
        // Below one hour times 27,000: no overflow. The divisor is not zero, since the end lies behind
        // this picture and with that behind the first.
        self.start_90k + captured_90k * lapse_90k / (self.end_90k - self.from_90k).max(1)
    }

    /// The time that a picture of `bytes` has to leave, while there are others waiting behind it. What
    /// is held takes four fifths of the lapse, since more pictures come in meanwhile; `least` when
    /// there is hardly anything to catch up with.
    pub(super) fn time_of(&self, bytes: usize, least: Duration) -> Duration {
        let lapse_us = (self.end_90k - self.start_90k) * 100 / 9;
        let all_us = (lapse_us * 4 / 5).max(least.as_micros() as u64);
        Duration::from_micros(all_us * bytes as u64 / self.bytes.max(1) as u64).min(Duration::from_micros(all_us))
    }
}

/// At least so much faster than captured.
const SPEED_UP: u64 = 4;

const LONGEST_90K: u64 = 300 * 90;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_seconds_become_300_ms_and_then_time_is_itself() {
        let start = 1_000_000;
        let catch_up = CatchUp::new(start - 4 * 90_000, start, 1_000_000);
        assert_eq!(catch_up.rtp_90k(start - 4 * 90_000), start);
        let mut last = start - 1;
        // Over the start, over the end, at 30 pictures a second with some jitter.
        for i in 0..200 {
            let pts = start - 4 * 90_000 + i * 3000 + i * 7919 % 600;
            let rtp = catch_up.rtp_90k(pts);
            assert!(rtp > last, "never back");
            assert!(rtp >= pts, "none before it was captured");
            assert!(rtp >= start && (rtp <= start + 27_000 || rtp == pts));
            last = rtp;
        }
        assert_eq!(catch_up.rtp_90k(start + 27_000), start + 27_000);
        assert_eq!(catch_up.rtp_90k(start + 27_000 - 1), start + 27_000 - 1);
    }

    #[test]
    fn a_key_frame_of_now_needs_no_catching_up() {
        for ahead in [0, 300] {
            let catch_up = CatchUp::new(5_000 + ahead, 5_000, 100);
            assert_eq!(catch_up.rtp_90k(5_000 + ahead), 5_000 + ahead);
            assert_eq!(catch_up.rtp_90k(8_000), 8_000);
            assert_eq!(catch_up.time_of(100, Duration::from_millis(16)), Duration::from_millis(16));
        }
    }

    #[test]
    fn time_is_given_by_size() {
        let catch_up = CatchUp::new(0, 4 * 90_000, 1_000_000);
        assert_eq!(catch_up.time_of(250_000, Duration::ZERO), Duration::from_millis(60));
        assert_eq!(catch_up.time_of(u32::MAX as usize, Duration::ZERO), Duration::from_millis(240));
        assert_eq!(CatchUp::new(0, 0, 0).time_of(9, Duration::ZERO), Duration::ZERO);
    }
}
