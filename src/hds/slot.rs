//! The one recording slot of the camera.

use super::SessionId;
use crate::time::{Duration, Instant};

/// How long the connection of a recording may go without a successful write before another hub may
/// take its place: after a gap in the Wi-Fi the hub opens anew while the old TCP connection is still
/// half open, and "busy" would lose the clip.
pub const DEAD_AFTER: Duration = Duration::from_secs(8);

/// Which data stream records: one camera is one recording, the first opener gets it.
#[derive(Default, Debug)]
pub struct Slot {
    holder: Option<Holder>,
}

#[derive(Debug)]
struct Holder {
    session: SessionId,
    last_write: Instant,
    /// The end of the stream was sent; nothing but the hub's word is missing.
    ended: bool,
}

impl Slot {
    /// A free slot.
    pub fn new() -> Self {
        Self::default()
    }

    /// The data stream that records.
    pub fn holder(&self) -> Option<SessionId> {
        self.holder.as_ref().map(|h| h.session)
    }

    /// Whether the recording that runs now stands in the way of another one.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.holder.as_ref().is_some_and(|h| !h.ended && now - h.last_write < DEAD_AFTER)
    }

    /// Gives the slot to `session`, whoever held it. The one that loses it finds out by
    /// [`Slot::is_held_by`].
    pub(super) fn take(&mut self, session: SessionId, now: Instant) {
        self.holder = Some(Holder { session, last_write: now, ended: false });
    }

    pub(super) fn is_held_by(&self, session: SessionId) -> bool {
        self.holder() == Some(session)
    }

    /// Frees the slot if `session` still holds it.
    pub(super) fn free(&mut self, session: SessionId) {
        if self.is_held_by(session) {
            self.holder = None;
        }
    }

    pub(super) fn written(&mut self, session: SessionId, now: Instant) {
        if let Some(holder) = self.holder.as_mut().filter(|h| h.session == session) {
            holder.last_write = now;
        }
    }

    pub(super) fn ended(&mut self, session: SessionId) {
        if let Some(holder) = self.holder.as_mut().filter(|h| h.session == session) {
            holder.ended = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn a_live_recording_is_in_the_way_and_a_dead_or_ended_one_is_not() {
        let mut slot = Slot::new();
        assert!(!slot.is_busy(at(0)));
        slot.take(1, at(0));
        assert!(slot.is_busy(at(7)) && !slot.is_busy(at(8)));
        slot.written(2, at(7));
        assert!(!slot.is_busy(at(8)), "only the holder's writes count");
        slot.written(1, at(7));
        assert!(slot.is_busy(at(14)));
        slot.ended(1);
        assert!(!slot.is_busy(at(7)));
    }

    #[test]
    fn only_the_holder_frees_it() {
        let mut slot = Slot::new();
        slot.take(1, at(0));
        slot.take(2, at(9));
        slot.free(1);
        assert!(slot.is_held_by(2) && !slot.is_held_by(1));
        slot.free(2);
        assert_eq!(slot.holder(), None);
    }
}
