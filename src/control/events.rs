//! `GET /events`: the trace, one JSON line an event, for as long as the client listens.

use super::{Chunk, Chunks};
use crate::io::runtime::Signal;
use crate::time::Instant;
use crate::trace::Trace;
use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

/// One listener.
pub struct EventLines {
    trace: Rc<RefCell<Trace>>,
    changed: Rc<Signal>,
    next: u32,
}

impl EventLines {
    /// Listens from now on, or from the oldest event that is kept. `changed` is notified after each
    /// [`Trace::push`].
    pub fn new(trace: Rc<RefCell<Trace>>, changed: Rc<Signal>, history: bool) -> Self {
        let next = match history {
            true => trace.borrow().oldest_seq(),
            false => trace.borrow().next_seq(),
        };
        EventLines { trace, changed, next }
    }
}

impl Chunks for EventLines {
    fn poll(&mut self, _now: Instant, out: &mut [u8]) -> Chunk {
        let trace = self.trace.borrow();
        let (oldest, next) = (trace.oldest_seq(), trace.next_seq());
        if self.next == next {
            return Chunk::Wait(None);
        }
        let mut line = String::new();
        // Numbers wrap: what is older than the oldest lies further behind than all that are kept.
        let missed = oldest.wrapping_sub(self.next);
        if missed < u32::MAX / 2 && missed > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(line, "{{\"event\":\"missed\",\"count\":{missed}}}");
            self.next = oldest;
        } else if let Some(record) = trace.get(self.next) {
            let _ = writeln!(line, "{record}");
            self.next = self.next.wrapping_add(1);
        } else {
            return Chunk::Failed;
        }
        match out.get_mut(..line.len()) {
            Some(out) => {
                out.copy_from_slice(line.as_bytes());
                Chunk::Some(line.len())
            }
            None => Chunk::Failed,
        }
    }

    fn signal(&self) -> &Signal {
        &self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;

    fn lines(events: &mut EventLines) -> Vec<String> {
        let (mut out, mut lines) = ([0; 256], Vec::new());
        loop {
            match events.poll(Instant::ZERO, &mut out) {
                Chunk::Some(n) => lines.push(String::from_utf8(out[..n].to_vec()).expect("text")),
                Chunk::Wait(None) => return lines,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_listener_gets_each_event_once() {
        let (trace, changed) = (Rc::new(RefCell::new(Trace::default())), Rc::new(Signal::default()));
        trace.borrow_mut().push(Instant::ZERO, Event::Ready);
        let mut new = EventLines::new(trace.clone(), changed.clone(), false);
        let mut all = EventLines::new(trace.clone(), changed, true);
        assert!(lines(&mut new).is_empty());
        assert_eq!(lines(&mut all), ["{\"seq\":0,\"at_s\":0.000,\"event\":\"ready\"}\n"]);
        trace.borrow_mut().push(Instant::ZERO, Event::SourceLost);
        assert_eq!(lines(&mut new), ["{\"seq\":1,\"at_s\":0.000,\"event\":\"source_lost\"}\n"]);
        assert!(lines(&mut new).is_empty());
        for _ in 0..70 {
            trace.borrow_mut().push(Instant::ZERO, Event::SourceResync);
        }
        let seen = lines(&mut new);
        assert_eq!(seen[0], "{\"event\":\"missed\",\"count\":6}\n");
        assert_eq!(seen.len(), 65);
    }

    #[test]
    fn a_line_that_does_not_fit_fails() {
        let trace = Rc::new(RefCell::new(Trace::default()));
        trace.borrow_mut().push(Instant::ZERO, Event::Ready);
        let mut events = EventLines::new(trace, Rc::default(), true);
        assert_eq!(events.poll(Instant::ZERO, &mut [0; 8]), Chunk::Failed);
    }
}
