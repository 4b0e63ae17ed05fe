//! What has happened: counters, and the last 64 events with their sequence numbers.
//!
//! A camera keeps 64 KiB of log and has no debugger; these events are what `hksvd events` and
//! `hksvd status` show. Nothing here allocates, so the media path may use it.

use crate::time::{Duration, Instant};
use std::fmt;

/// Who or what caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The detector on the encoded stream.
    Detector,
    /// `motion.mode` continuous.
    Continuous,
    /// The control interface.
    Control,
    /// The doorbell's button.
    Button,
    /// A controller, by HomeKit.
    Controller,
    /// The hold time is over.
    Hold,
    /// The source has stopped.
    Source,
}

/// Something that has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The daemon serves.
    Ready,
    /// Motion began.
    MotionOn {
        /// Who saw it.
        cause: Cause,
    },
    /// Motion ended.
    MotionOff {
        /// Why.
        cause: Cause,
    },
    /// The bell was rung.
    Ring {
        /// By whom.
        cause: Cause,
    },
    /// Somebody asked the camera to identify itself.
    Identify {
        /// Who.
        cause: Cause,
    },
    /// A pairing was added.
    PairingAdded {
        /// How many there are now.
        pairings: u8,
    },
    /// A pairing was removed.
    PairingRemoved {
        /// How many there are now.
        pairings: u8,
    },
    /// Somebody gave a wrong setup code.
    PairingFailed {
        /// Failures since the last success.
        tries: u8,
    },
    /// A controller has proved who it is.
    ControllerConnected {
        /// How many are connected now.
        connected: u8,
    },
    /// A verified connection is closed.
    ControllerClosed {
        /// How many are connected now.
        connected: u8,
    },
    /// A hub's data stream is up.
    DataStreamConnected,
    /// A hub's data stream is closed.
    DataStreamClosed,
    /// A hub opened the recording.
    RecordingOpened {
        /// The hub's stream id.
        stream: u32,
        /// Milliseconds of prebuffer that it gets.
        prebuffer_ms: u32,
    },
    /// A fragment is with the hub; number 1 is the init segment.
    Fragment {
        /// The hub's stream id.
        stream: u32,
        /// Its number within the stream.
        number: u32,
        /// Its size.
        bytes: u32,
    },
    /// The recording is over.
    RecordingClosed {
        /// The hub's stream id.
        stream: u32,
        /// HDS reason, 0 is a normal end.
        reason: u8,
        /// Fragments that were sent.
        fragments: u32,
    },
    /// A hub read too slowly and lost its recording.
    HubLagged {
        /// The hub's stream id.
        stream: u32,
    },
    /// A controller watches.
    LiveStarted {
        /// Which of the live views.
        view: u8,
        /// Picture width.
        width: u16,
        /// Picture height.
        height: u16,
    },
    /// A controller watches no longer.
    LiveEnded {
        /// Which of the live views.
        view: u8,
        /// Why, in a word or two.
        cause: &'static str,
    },
    /// Recording was armed or disarmed by a controller.
    RecordingArmed {
        /// Armed now.
        on: bool,
    },
    /// The camera was switched on or off by a controller.
    CameraActive {
        /// On now.
        on: bool,
    },
    /// The stream has begun, or is back.
    SourceRunning {
        /// Picture width.
        width: u16,
        /// Picture height.
        height: u16,
    },
    /// The stream is gone.
    SourceLost,
    /// Something in the stream was unusable up to the next key frame.
    SourceResync,
    /// The store could not write.
    StoreFailed,
    /// Back to the state of the factory.
    Reset,
}

impl Event {
    /// How many kinds there are.
    pub const KINDS: usize = 25;

    /// Index of the kind, below [`Event::KINDS`].
    fn kind(&self) -> usize {
        match self {
            Event::Ready => 0,
            Event::MotionOn { .. } => 1,
            Event::MotionOff { .. } => 2,
            Event::Ring { .. } => 3,
            Event::Identify { .. } => 4,
            Event::PairingAdded { .. } => 5,
            Event::PairingRemoved { .. } => 6,
            Event::PairingFailed { .. } => 7,
            Event::ControllerConnected { .. } => 8,
            Event::ControllerClosed { .. } => 9,
            Event::DataStreamConnected => 10,
            Event::DataStreamClosed => 11,
            Event::RecordingOpened { .. } => 12,
            Event::Fragment { .. } => 13,
            Event::RecordingClosed { .. } => 14,
            Event::HubLagged { .. } => 15,
            Event::RecordingArmed { .. } => 16,
            Event::CameraActive { .. } => 17,
            Event::SourceRunning { .. } => 18,
            Event::SourceLost => 19,
            Event::SourceResync => 20,
            Event::StoreFailed => 21,
            Event::Reset => 22,
            Event::LiveStarted { .. } => 23,
            Event::LiveEnded { .. } => 24,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Cause {
    const fn as_str(self) -> &'static str {
        match self {
            Cause::Detector => "detector",
            Cause::Continuous => "continuous",
            Cause::Control => "control",
            Cause::Button => "button",
            Cause::Controller => "controller",
            Cause::Hold => "hold",
            Cause::Source => "source",
        }
    }
}

/// An event with its number and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Counts from 0 without a gap.
    pub seq: u32,
    /// When, on the daemon's clock.
    pub at: Instant,
    /// What.
    pub event: Event,
}

impl fmt::Display for Record {
    /// One JSON object on one line, without the line's end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at.as_micros() / 1_000;
        write!(f, "{{\"seq\":{},\"at_s\":{}.{:03},\"event\":", self.seq, ms / 1_000, ms % 1_000)?;
        let caused = |f: &mut fmt::Formatter<'_>, name: &str, cause: Cause| {
            write!(f, "\"{name}\",\"cause\":\"{}\"", cause.as_str())
        };
        match self.event {
            Event::Ready => f.write_str("\"ready\"")?,
            Event::MotionOn { cause } => caused(f, "motion_on", cause)?,
            Event::MotionOff { cause } => caused(f, "motion_off", cause)?,
            Event::Ring { cause } => caused(f, "ring", cause)?,
            Event::Identify { cause } => caused(f, "identify", cause)?,
            Event::PairingAdded { pairings } => write!(f, "\"pairing_added\",\"pairings\":{pairings}")?,
            Event::PairingRemoved { pairings } => write!(f, "\"pairing_removed\",\"pairings\":{pairings}")?,
            Event::PairingFailed { tries } => write!(f, "\"pairing_failed\",\"tries\":{tries}")?,
            Event::ControllerConnected { connected } => {
                write!(f, "\"controller_connected\",\"connected\":{connected}")?
            }
            Event::ControllerClosed { connected } => write!(f, "\"controller_closed\",\"connected\":{connected}")?,
            Event::DataStreamConnected => f.write_str("\"data_stream_connected\"")?,
            Event::DataStreamClosed => f.write_str("\"data_stream_closed\"")?,
            Event::RecordingOpened { stream, prebuffer_ms } => {
                write!(f, "\"recording_opened\",\"stream\":{stream},\"prebuffer_ms\":{prebuffer_ms}")?;
            }
            Event::Fragment { stream, number, bytes } => {
                write!(f, "\"fragment\",\"stream\":{stream},\"number\":{number},\"bytes\":{bytes}")?;
            }
            Event::RecordingClosed { stream, reason, fragments } => {
                write!(f, "\"recording_closed\",\"stream\":{stream},\"reason\":{reason},\"fragments\":{fragments}")?
            }
            Event::HubLagged { stream } => write!(f, "\"hub_lagged\",\"stream\":{stream}")?,
            Event::LiveStarted { view, width, height } => {
                write!(f, "\"live_started\",\"view\":{view},\"width\":{width},\"height\":{height}")?;
            }
            Event::LiveEnded { view, cause } => write!(f, "\"live_ended\",\"view\":{view},\"cause\":\"{cause}\"")?,
            Event::RecordingArmed { on } => write!(f, "\"recording_armed\",\"on\":{on}")?,
            Event::CameraActive { on } => write!(f, "\"camera_active\",\"on\":{on}")?,
            Event::SourceRunning { width, height } => {
                write!(f, "\"source_running\",\"width\":{width},\"height\":{height}")?;
            }
            Event::SourceLost => f.write_str("\"source_lost\"")?,
            Event::SourceResync => f.write_str("\"source_resync\"")?,
            Event::StoreFailed => f.write_str("\"store_failed\"")?,
            Event::Reset => f.write_str("\"reset\"")?,
        }
        f.write_str("}")
    }
}

/// How many events are kept.
pub const KEPT: usize = 64;

/// The last events and a counter of each kind.
#[derive(Debug)]
pub struct Trace {
    last: [Option<Record>; KEPT],
    next: u32,
    counts: [u32; Event::KINDS],
}

impl Default for Trace {
    fn default() -> Self {
        Trace { last: [None; KEPT], next: 0, counts: [0; Event::KINDS] }
    }
}

impl Trace {
    /// Records an event and counts it.
    pub fn push(&mut self, now: Instant, event: Event) {
        let count = &mut self.counts[event.kind()];
        *count = count.saturating_add(1);
        self.last[self.next as usize % KEPT] = Some(Record { seq: self.next, at: now, event });
        self.next = self.next.wrapping_add(1);
    }

    /// How often an event of this kind has happened; what it carries does not matter.
    pub fn count(&self, like: Event) -> u32 {
        self.counts[like.kind()]
    }

    /// The number that the next event will have.
    pub fn next_seq(&self) -> u32 {
        self.next
    }

    /// The number of the oldest event that is kept.
    pub fn oldest_seq(&self) -> u32 {
        // KEPT divides 2^32, so the slots keep their order when the number wraps.
        match self.last[self.next as usize % KEPT] {
            Some(oldest) => oldest.seq,
            None => 0,
        }
    }

    /// The event of that number, if it has happened and is still kept.
    pub fn get(&self, seq: u32) -> Option<Record> {
        self.last[seq as usize % KEPT].filter(|record| record.seq == seq)
    }
}

/// Says a thing once and then counts: a message that comes again is printed again, with its count,
/// when another takes its place or some time, an hour if not said otherwise, after it was last printed.
#[derive(Debug)]
pub struct Repeats<M> {
    said: Option<(M, Instant)>,
    silent: u32,
    interval: Duration,
}

/// For the end of a line: nothing, or ` (repeated 3 times)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeated(pub u32);

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (repeated once)"),
            n => write!(f, " (repeated {n} times)"),
        }
    }
}

impl<M> Default for Repeats<M> {
    fn default() -> Self {
        Self::every(Duration::from_secs(3_600))
    }
}

impl<M> Repeats<M> {
    /// Prints a message that comes again at most once in `interval`.
    pub const fn every(interval: Duration) -> Self {
        Repeats { said: None, silent: 0, interval }
    }
}

impl<M: PartialEq> Repeats<M> {
    /// Takes note of `message` and calls `print` for each line that is due.
    pub fn note(&mut self, now: Instant, message: M, mut print: impl FnMut(&M, Repeated)) {
        match &mut self.said {
            Some((said, at)) if *said == message => {
                self.silent = self.silent.saturating_add(1);
                if now - *at >= self.interval {
                    print(said, Repeated(core::mem::take(&mut self.silent)));
                    *at = now;
                }
            }
            _ => {
                self.over(&mut print);
                print(&message, Repeated(0));
                self.said = Some((message, now));
            }
        }
    }

    /// The trouble is over: prints what is still to be said, and starts anew.
    pub fn over(&mut self, mut print: impl FnMut(&M, Repeated)) {
        if let Some((said, _)) = self.said.take()
            && self.silent > 0
        {
            print(&said, Repeated(self.silent));
        }
        self.silent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn the_last_64_are_kept() {
        let mut trace = Trace::default();
        assert_eq!((trace.oldest_seq(), trace.next_seq(), trace.get(0)), (0, 0, None));
        for n in 0..100u32 {
            trace.push(at_s(u64::from(n)), Event::HubLagged { stream: n });
        }
        assert_eq!((trace.oldest_seq(), trace.next_seq()), (36, 100));
        assert_eq!(trace.get(35), None);
        assert_eq!(trace.get(100), None);
        assert_eq!(trace.get(99).map(|record| record.event), Some(Event::HubLagged { stream: 99 }));
        assert_eq!(trace.count(Event::HubLagged { stream: 0 }), 100);
        assert_eq!(trace.count(Event::SourceLost), 0);
    }

    #[test]
    fn every_event_is_a_json_object_of_its_own_name() {
        let cause = Cause::Hold;
        let events = [
            Event::Ready,
            Event::MotionOn { cause: Cause::Detector },
            Event::MotionOff { cause },
            Event::Ring { cause: Cause::Button },
            Event::Identify { cause: Cause::Controller },
            Event::PairingAdded { pairings: 1 },
            Event::PairingRemoved { pairings: 0 },
            Event::PairingFailed { tries: 3 },
            Event::ControllerConnected { connected: 2 },
            Event::ControllerClosed { connected: 1 },
            Event::DataStreamConnected,
            Event::DataStreamClosed,
            Event::RecordingOpened { stream: 3, prebuffer_ms: 4_000 },
            Event::Fragment { stream: 3, number: 2, bytes: 1_000_000 },
            Event::RecordingClosed { stream: 3, reason: 6, fragments: 5 },
            Event::HubLagged { stream: 3 },
            Event::RecordingArmed { on: true },
            Event::CameraActive { on: false },
            Event::SourceRunning { width: 1280, height: 720 },
            Event::SourceLost,
            Event::SourceResync,
            Event::StoreFailed,
            Event::Reset,
            Event::LiveStarted { view: 1, width: 1280, height: 720 },
            Event::LiveEnded { view: 1, cause: "silence" },
        ];
        let mut names = Vec::new();
        for (seq, event) in events.into_iter().enumerate() {
            let line = Record { seq: seq as u32, at: Instant::from_micros(1_234_567), event }.to_string();
            let json: serde_json::Value = serde_json::from_str(&line).expect(&line);
            assert_eq!((json["seq"].as_u64(), json["at_s"].as_f64()), (Some(seq as u64), Some(1.234)));
            names.push(json["event"].as_str().expect("a name").to_string());
            assert!(event.kind() < Event::KINDS && !line.contains('\n'));
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), events.len());
    }

    #[test]
    fn repeats_are_counted() {
        let lines = std::cell::RefCell::new(Vec::new());
        let print = |message: &&str, repeated: Repeated| lines.borrow_mut().push(format!("{message}{repeated}"));
        let mut repeats = Repeats::default();
        repeats.note(at_s(0), "lost", print);
        repeats.note(at_s(1), "lost", print);
        repeats.note(at_s(2), "lost", print);
        assert_eq!(*lines.borrow(), ["lost"]);
        repeats.note(at_s(3_600), "lost", print);
        repeats.note(at_s(3_700), "lost", print);
        repeats.note(at_s(3_800), "garbage", print);
        repeats.over(print);
        repeats.note(at_s(3_900), "garbage", print);
        assert_eq!(*lines.borrow(), ["lost", "lost (repeated 3 times)", "lost (repeated once)", "garbage", "garbage"]);
    }
}
