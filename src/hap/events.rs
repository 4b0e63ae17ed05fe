//! Which characteristics a connection is subscribed to, and what it was told of them (HAP R2 §6.8).

use super::ConnectionId;
use super::database::{self, Field, PLACES, Place};
use super::reply::Reply;
use super::state::{PRESSES_MAX, State};
use crate::time::{Duration, Instant};
use crate::wire::Writer;
use core::fmt::Write as _;

/// How long changes are collected for one message.
pub const COALESCE: Duration = Duration::from_millis(250);
/// Room for the entries of one message: all characteristics with events, and two long TLV8 values.
const EVENT_MAX: usize = 4096;

/// The subscriptions of one connection.
#[derive(Debug)]
pub struct Subscriptions {
    /// A bit for each place of the database.
    places: u64,
    /// The change that was told last, by place.
    told: [u32; PLACES],
    /// When what was collected is sent.
    due: Option<Instant>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Subscriptions { places: 0, told: [0; PLACES], due: None }
    }
}

/// Hubs open a recording on these, and presses are worth nothing late (HAP R2 §6.8: no delay).
fn is_urgent(field: Field) -> bool {
    matches!(field, Field::MotionDetected | Field::ProgrammableSwitchEvent)
}

impl Subscriptions {
    /// Whether there is a subscription to the characteristic at `place`.
    pub fn contains(&self, place: Place) -> bool {
        self.places >> place & 1 == 1
    }

    /// Subscribes or unsubscribes. What changed before is not told.
    pub(super) fn set(&mut self, place: Place, on: bool, state: &State) {
        if on && !self.contains(place) {
            self.told[place] = state.changes()[place].count;
        }
        self.places = self.places & !(1 << place) | u64::from(on) << place;
    }

    /// When what was collected is sent.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The next event message for the connection `me`. It is never told what it wrote itself.
    pub(super) fn poll(&mut self, now: Instant, me: ConnectionId, state: &State) -> Option<Reply> {
        let mut collected = 0u64;
        for place in (0..PLACES).filter(|&place| self.places >> place & 1 == 1) {
            let change = state.changes()[place];
            let untold = change.count.wrapping_sub(self.told[place]);
            let Some(c) = database::at(place).filter(|_| untold > 0) else { continue };
            if change.writer == Some(me) {
                self.told[place] = change.count;
            } else if is_urgent(c.field) {
                return Some(self.urgent(place, c.field, untold, state));
            } else {
                collected |= 1 << place;
            }
        }
        if collected == 0 {
            self.due = None;
            return None;
        }
        if *self.due.get_or_insert(now + COALESCE) > now {
            return None;
        }
        self.due = None;
        let places = (0..PLACES).filter(|&place| collected >> place & 1 == 1);
        for place in places.clone() {
            self.told[place] = state.changes()[place].count;
        }
        let mut entries = 0;
        let reply = Reply::event(EVENT_MAX, |w| {
            w.bytes(b"{\"characteristics\":[");
            for c in places.filter_map(database::at) {
                let at = w.len();
                put_entry(w, entries > 0, c.iid);
                match state.read(c.field, me, w) {
                    Ok(()) => {
                        w.u8(b'}');
                        entries += 1;
                    }
                    // What cannot be read has no value to tell: a selection that was dropped.
                    Err(_) => w.truncate(at),
                }
            }
            w.bytes(b"]}");
        });
        reply.filter(|_| entries > 0)
    }

    /// A message of its own for each change: a motion that ended and began again is two messages,
    /// whatever the order in which a controller applies the entries of one.
    fn urgent(&mut self, place: Place, field: Field, untold: u32, state: &State) -> Reply {
        let untold = match field {
            // Every change is a turn, so the last ones are known without having been kept.
            Field::MotionDetected if untold > 3 => 2 + untold % 2,
            Field::MotionDetected => untold,
            _ => untold.min(PRESSES_MAX as u32),
        };
        self.told[place] = state.changes()[place].count.wrapping_sub(untold - 1);
        let iid = database::at(place).map_or(0, |c| c.iid);
        let value = match field {
            Field::MotionDetected => u8::from(state.motion_detected() ^ (untold % 2 == 0)),
            _ => state.press(untold as usize) as u8,
        };
        let put = |w: &mut Writer<'_>| {
            w.bytes(b"{\"characteristics\":[");
            put_entry(w, false, iid);
            let _ = write!(w, "{value}}}]}}");
        };
        Reply::event(EVENT_MAX, put).expect("one entry fits")
    }
}

fn put_entry(w: &mut Writer<'_>, more: bool, iid: u16) {
    let _ = write!(w, "{}{{\"aid\":1,\"iid\":{iid},\"value\":", if more { "," } else { "" });
}
