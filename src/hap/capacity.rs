//! Who has to go when all connections are taken (HAP R2 §6.2.3).

use super::ConnectionId;
use crate::time::{Duration, Instant};

/// Connections that are served at once. Sixteen verified ones always find room, because the other
/// four can be held by nobody but connections that never verified or were idle for a minute.
pub const MAX_CONNECTIONS: usize = 20;

/// A verified connection is left alone unless it was silent for this long.
const VERIFIED_IDLE: Duration = Duration::from_secs(60);

/// What the choice looks at.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Whose seat it is.
    pub connection: ConnectionId,
    /// Whether pair-verify is done.
    pub verified: bool,
    /// When the last bytes came from the controller.
    pub idle_since: Instant,
    /// Whether a live stream or a recording depends on it.
    pub busy: bool,
}

/// The connection to close so that a new one fits: the longest idle one that never verified, else
/// the longest idle verified one above one minute; never one that carries a stream or a recording.
/// `None`: the new connection is refused.
pub fn victim(seats: impl Iterator<Item = Seat>, now: Instant) -> Option<ConnectionId> {
    seats
        .filter(|s| !s.busy && (!s.verified || now - s.idle_since > VERIFIED_IDLE))
        .min_by_key(|s| (s.verified, s.idle_since))
        .map(|s| s.connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(connection: ConnectionId, verified: bool, idle_since_s: u64, busy: bool) -> Seat {
        Seat { connection, verified, idle_since: Instant::from_micros(idle_since_s * 1_000_000), busy }
    }

    const NOW: Instant = Instant::from_micros(1_000_000_000);

    #[test]
    fn those_who_never_verified_go_first() {
        let seats = [seat(1, true, 0, false), seat(2, false, 999, false), seat(3, false, 998, false)];
        assert_eq!(victim(seats.into_iter(), NOW), Some(3));
    }

    #[test]
    fn then_the_longest_idle_of_the_verified() {
        let seats = [seat(1, true, 950, false), seat(2, true, 100, false), seat(3, true, 90, true)];
        assert_eq!(victim(seats.into_iter(), NOW), Some(2));
    }

    #[test]
    fn nobody_goes_who_was_heard_within_a_minute_or_is_busy() {
        let seats = [seat(1, true, 940, false), seat(2, true, 0, true)];
        assert_eq!(victim(seats.into_iter(), NOW), None);
    }
}
