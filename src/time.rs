//! Monotonic time as a value, so that every state machine can be driven by a test.
//!
//! A camera has no clock that survives a power cut and jumps by months when NTP finds it, so nothing
//! here knows the wall clock. [`crate::io::runtime::now`] is the only
//! place that reads a clock.

use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// A moment on the monotonic clock, in microseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The start of the clock.
    pub const ZERO: Instant = Instant(0);

    /// The moment `us` microseconds after the start.
    pub const fn from_micros(us: u64) -> Self {
        Instant(us)
    }

    /// Microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, zero when `earlier` lies in the future.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This moment on the 90 kHz media time line.
    pub fn as_90k(self) -> Pts90k {
        // 90 ticks are 1000 us; 64 bits overflow after some 6,000 years.
        self.0 * 9 / 100
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(d.as_micros() as u64))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// Saturates at zero, as [`Instant::since`].
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// Media time in ticks of 1/90,000 s on the same origin as [`Instant`].
pub type Pts90k = u64;

/// The earlier of two optional moments: how the timers of a state machine are joined.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_saturate() {
        let (a, b) = (Instant::from_micros(5), Instant::from_micros(7));
        assert_eq!(a - b, Duration::ZERO);
        assert_eq!(b - a, Duration::from_micros(2));
    }

    #[test]
    fn one_second_is_90000_ticks() {
        assert_eq!(Instant::from_micros(1_000_000).as_90k(), 90_000);
        assert_eq!(Instant::from_micros(11).as_90k(), 0);
    }

    #[test]
    fn earliest_ignores_what_is_not_set() {
        let t = Instant::from_micros(3);
        assert_eq!(earliest(None, Some(t)), Some(t));
        assert_eq!(earliest(Some(t), Some(Instant::ZERO)), Some(Instant::ZERO));
        assert_eq!(earliest(None, None), None);
    }
}
