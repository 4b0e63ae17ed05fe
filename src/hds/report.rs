//! What a data stream has done, for the log: values that the shell prints, one short line each.

use super::ConnectionId;
use super::message::Reason;
use core::fmt;

/// Words of the hub, cut to what a line of the log bears.
pub type Words = heapless::String<24>;

/// One line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// The first frame opened and was a hello.
    Hello {
        /// The HAP connection that had prepared the data stream.
        connection: ConnectionId,
    },
    /// The hub opened a recording.
    Open {
        /// The hub's number for it.
        stream_id: i64,
        /// The hub's words.
        reason: Words,
        /// Whether it took the place of one that was ended or dead.
        takeover: bool,
    },
    /// The hub wanted a recording and does not get it.
    Refused {
        /// The hub's number for it.
        stream_id: i64,
        /// What it is told.
        reason: Reason,
    },
    /// The initialization segment was handed out.
    Init {
        /// Its length.
        bytes: usize,
        /// How long after the open.
        after_open_ms: u32,
    },
    /// The last chunk of a fragment was handed out.
    Fragment {
        /// Its `dataSequenceNumber`; the first fragment is 2.
        sequence: u32,
        /// Its length.
        bytes: usize,
        /// What it plays.
        duration_ms: u32,
        /// Chunks it took.
        chunks: u32,
        /// Media in the prebuffer that is newer than its end.
        backlog_ms: u32,
        /// How long after the open.
        after_open_ms: u32,
    },
    /// The fragment before this ended the stream; the hub has 12 s to say so.
    EndOfStream {
        /// How long it recorded.
        seconds: u32,
        /// Whether the cap on one stream was the cause: the motion may still go on.
        capped: bool,
    },
    /// The recording is over and the slot free.
    Closed {
        /// The hub's number for it.
        stream_id: i64,
        /// Who ended it and why.
        cause: Cause,
        /// Complete fragments that were handed out.
        fragments: u32,
        /// How long it took.
        seconds: u32,
    },
    /// A message that cannot be understood; it was ignored.
    Malformed(&'static str),
    /// The connection is over.
    Disconnected(Disconnect),
}

impl Report {
    /// Whether a hub that still sees motion has to be made to open anew: the stream came to an end
    /// that the hub did not ask for. The motion sensor is pulsed when it does not within some 10 s.
    pub fn wants_reopen(&self) -> bool {
        match self {
            Report::EndOfStream { capped, .. } => *capped,
            Report::Closed { cause, .. } => matches!(
                cause,
                Cause::Lagged | Cause::EncoderRestarted | Cause::EncoderSilent | Cause::NotReady | Cause::Blocked
            ),
            _ => false,
        }
    }
}

/// Why a recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The hub sent close.
    Hub(Reason),
    /// The hub acknowledged the end of the stream.
    Acknowledged,
    /// The hub said nothing for 12 s after the end of the stream.
    NoAnswer,
    /// The camera was switched off.
    CameraOff,
    /// Recording was switched off and what was held is gone.
    RecordingOff,
    /// The hub read so slowly that the prebuffer overwrote what it wanted next.
    Lagged,
    /// The encoder has restarted or changed its parameters.
    EncoderRestarted,
    /// The encoder gave nothing for 5 s.
    EncoderSilent,
    /// The encoder had no key frame within 5 s of the open.
    NotReady,
    /// Another open took the slot.
    TakenOver,
    /// The socket took nothing for 8 s.
    Blocked,
    /// The connection went away.
    Disconnected,
    /// The daemon stops.
    Shutdown,
}

impl Cause {
    /// What the hub is told; `None` when it ended the stream itself or cannot be reached.
    pub(super) fn told(self) -> Option<Reason> {
        match self {
            Cause::Hub(_) | Cause::Acknowledged | Cause::Blocked | Cause::Disconnected => None,
            Cause::NoAnswer | Cause::RecordingOff | Cause::TakenOver | Cause::Shutdown => Some(Reason::CANCELLED),
            Cause::CameraOff => Some(Reason::NOT_ALLOWED),
            Cause::EncoderRestarted | Cause::EncoderSilent => Some(Reason::UNEXPECTED_FAILURE),
            Cause::Lagged | Cause::NotReady => Some(Reason::TIMEOUT),
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disconnect {
    /// The hub closed it, or the network did.
    Peer,
    /// The HAP connection that had prepared it is gone.
    HapClosed,
    /// The pairing of its controller was removed.
    PairingRemoved,
    /// Another connection needs its place.
    Evicted,
    /// The daemon stops.
    Shutdown,
    /// No hello within 10 s.
    NoHello,
    /// The first frame opens under no prepared key.
    UnknownKey,
    /// The first message is not a hello.
    NotHello,
    /// A frame of unknown type or impossible length.
    BadFrame,
    /// A frame longer than any that a hub has reason to send.
    LongFrame {
        /// Its length.
        bytes: usize,
    },
    /// A frame that does not open.
    BadTag,
    /// The socket took nothing for 8 s.
    Blocked,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Hello { connection } => write!(f, "hello, prepared by hap {connection}"),
            Report::Open { stream_id, reason, takeover } => {
                write!(f, "open stream {stream_id} ({reason})")?;
                if *takeover { f.write_str(", takes over") } else { Ok(()) }
            }
            Report::Refused { stream_id, reason } => write!(f, "open stream {stream_id} refused: {reason}"),
            Report::Init { bytes, after_open_ms } => write!(f, "init {bytes} bytes, {after_open_ms} ms after open"),
            Report::Fragment { sequence, bytes, duration_ms, chunks, backlog_ms, after_open_ms } => {
                let plural = if *chunks == 1 { "" } else { "s" };
                write!(f, "fragment {sequence}: {bytes} bytes, {chunks} chunk{plural}, {duration_ms} ms, ")?;
                let tenths = |ms: u32| (ms / 1000, ms % 1000 / 100);
                let ((backlog, b), (after, a)) = (tenths(*backlog_ms), tenths(*after_open_ms));
                write!(f, "backlog {backlog}.{b} s, at {after}.{a} s")
            }
            Report::EndOfStream { seconds, capped } => {
                let why = if *capped { "longest recording" } else { "recording switched off" };
                write!(f, "end of stream after {seconds} s ({why})")
            }
            Report::Closed { stream_id, cause, fragments, seconds } => {
                write!(f, "close stream {stream_id}: {cause}; {fragments} fragments in {seconds} s")
            }
            Report::Malformed(what) => write!(f, "message ignored: {what}"),
            Report::Disconnected(why) => write!(f, "disconnect: {why}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Cause::Hub(reason) => return write!(f, "by the hub, {reason}"),
            Cause::Acknowledged => "acknowledged by the hub",
            Cause::NoAnswer => "no answer to the end of the stream",
            Cause::CameraOff => "camera off",
            Cause::RecordingOff => "recording off",
            Cause::Lagged => "hub too slow, prebuffer overrun",
            Cause::EncoderRestarted => "encoder restarted or changed",
            Cause::EncoderSilent => "encoder silent for 5 s",
            Cause::NotReady => "no key frame within 5 s",
            Cause::TakenOver => "taken over by another open",
            Cause::Blocked => "socket blocked for 8 s",
            Cause::Disconnected => "connection lost",
            Cause::Shutdown => "shutdown",
        };
        f.write_str(text)?;
        match self.told() {
            Some(reason) => write!(f, " (told {reason})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Disconnect::Peer => "by the hub",
            Disconnect::HapClosed => "its HAP connection closed",
            Disconnect::PairingRemoved => "pairing removed",
            Disconnect::Evicted => "its place is needed",
            Disconnect::Shutdown => "shutdown",
            Disconnect::NoHello => "no hello within 10 s",
            Disconnect::UnknownKey => "the first frame opens under no prepared key",
            Disconnect::NotHello => "the first message is not a hello",
            Disconnect::BadFrame => "a frame of unknown type or length",
            Disconnect::LongFrame { bytes } => return write!(f, "a frame of {bytes} bytes"),
            Disconnect::BadTag => "a frame that does not open",
            Disconnect::Blocked => "the socket took nothing for 8 s",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_a_serial_console() {
        let long = Words::try_from("reasonreasonreasonreason").unwrap();
        for report in [
            Report::Hello { connection: u32::MAX },
            Report::Open { stream_id: i64::MIN, reason: long, takeover: true },
            Report::Refused { stream_id: i64::MIN, reason: Reason::INVALID_CONFIGURATION },
            Report::Init { bytes: 262_144, after_open_ms: u32::MAX },
            Report::Fragment {
                sequence: 99_999,
                bytes: 99_999_999,
                duration_ms: 99_999,
                chunks: 999,
                backlog_ms: 999_999,
                after_open_ms: 9_999_999,
            },
            Report::EndOfStream { seconds: 180, capped: false },
            Report::Closed { stream_id: 1, cause: Cause::EncoderRestarted, fragments: 9999, seconds: 9999 },
            Report::Disconnected(Disconnect::LongFrame { bytes: usize::MAX }),
        ] {
            let line = report.to_string();
            assert!(line.len() < 100, "{} columns before the prefix: {line}", line.len());
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn a_line_says_what_happened() {
        let closed = Report::Closed { stream_id: 1, cause: Cause::Lagged, fragments: 3, seconds: 14 };
        assert_eq!(
            closed.to_string(),
            "close stream 1: hub too slow, prebuffer overrun (told 6 timeout); 3 fragments in 14 s"
        );
        assert!(closed.wants_reopen());
        let closed = Report::Closed { stream_id: 1, cause: Cause::Hub(Reason::NORMAL), fragments: 3, seconds: 14 };
        assert_eq!(closed.to_string(), "close stream 1: by the hub, 0 normal; 3 fragments in 14 s");
        assert!(!closed.wants_reopen());
    }
}
