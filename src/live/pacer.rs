//! When the packets of a picture leave: a key frame that leaves at once overruns the queues of Wi-Fi.

use crate::time::{Duration, Instant};

/// Spreads the packets of a picture evenly over its time. What falls into the next two milliseconds
/// leaves together: a timer for each packet would cost more than it smooths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacer {
    /// When the next packet is due.
    next: Instant,
    gap: Duration,
}

impl Pacer {
    /// Nothing has been sent.
    pub(super) fn new() -> Pacer {
        Pacer { next: Instant::ZERO, gap: Duration::ZERO }
    }

    /// The next picture has `packets` packets and `time` to leave. It follows on the one before; what
    /// that had left over of its time is lost to it.
    pub(super) fn begin(&mut self, packets: u32, time: Duration, now: Instant) {
        self.next = self.next.max(now);
        self.follow(packets, time);
    }

    /// As [`Pacer::begin`], but time that was lost before, by timers that came late, is made up for.
    pub(super) fn follow(&mut self, packets: u32, time: Duration) {
        self.gap = time / packets.max(1);
    }

    /// From now on there is no time to make up for.
    pub(super) fn reset(&mut self, now: Instant) {
        self.next = now;
    }

    /// Whether the next packet may leave.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now + TICK
    }

    /// When to ask again.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// A packet has left.
    pub(super) fn sent(&mut self) {
        self.next += self.gap;
    }
}

const TICK: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    /// Sends what is due when it is, with timers that are late by `late_us`; when the packets left.
    fn run(pacer: &mut Pacer, packets: u32, start: Instant, late_us: u64) -> Vec<u64> {
        let mut now = start;
        let mut left = Vec::new();
        while left.len() < packets as usize {
            if pacer.is_due(now) {
                pacer.sent();
                left.push((now - start).as_micros() as u64);
            } else {
                now = pacer.due() + Duration::from_micros(late_us);
            }
        }
        left
    }

    #[test]
    fn a_key_frame_is_spread_over_its_time() {
        let mut pacer = Pacer::new();
        pacer.begin(80, Duration::from_millis(16), at(1_000_000));
        let left = run(&mut pacer, 80, at(1_000_000), 300);
        assert!(left.last().unwrap() <= &16_000);
        assert!(left.last().unwrap() >= &12_000);
        // No more than 2.3 ms worth of packets at once, and not a timer each.
        let burst = |at: &u64| left.iter().filter(|t| *t == at).count();
        assert!(left.iter().map(burst).max().unwrap() <= 13);
        assert!(left.iter().collect::<std::collections::BTreeSet<_>>().len() <= 8);
    }

    #[test]
    fn without_time_everything_leaves_at_once() {
        let mut pacer = Pacer::new();
        pacer.begin(80, Duration::ZERO, at(5));
        assert!(run(&mut pacer, 80, at(5), 0).iter().all(|us| *us == 0));
    }

    #[test]
    fn what_follows_makes_up_for_late_timers() {
        let mut pacer = Pacer::new();
        pacer.reset(at(0));
        let mut now = at(0);
        for _ in 0..100 {
            pacer.follow(4, Duration::from_millis(2));
            for _ in 0..4 {
                while !pacer.is_due(now) {
                    now = pacer.due() + Duration::from_millis(5);
                }
                pacer.sent();
            }
        }
        assert!((195_000..=205_000).contains(&now.as_micros()), "{now:?}");
    }
}
