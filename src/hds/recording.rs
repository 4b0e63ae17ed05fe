//! One recording: the initialization segment, the fragments that the prebuffer held, then live ones,
//! until somebody ends it (HomeKit Data Stream, data event and ending).
//!
//! `tests/hds_hub.rs` plays it against a hub in virtual time.

use super::frame::HEADER_BYTES;
use super::message::{self, CHUNK_BYTES, Chunk, FRAME_BYTES};
use super::report::{Cause, Report};
use super::{Desk, Permission, Selected, SessionId};
use crate::media::{AudioChoice, Fragment, Gone, Reader, ReaderOptions, Start};
use crate::time::{Duration, Instant, earliest};
use crate::wire::{Full, Writer};

/// How long the encoder may take to tell its parameters: a hub waits about 5 s for the first bytes.
pub const START_LIMIT: Duration = Duration::from_secs(5);
/// Between two fragments. A backlog that is sent in one go makes hubs close the stream.
pub const PACING: Duration = Duration::from_millis(150);
/// The longest recording: some hubs never close.
pub const RECORDING_CAP: Duration = Duration::from_secs(180);
/// How long the hub may take to acknowledge the end of a stream.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(12);
/// An encoder that gives no access unit for this long is dead. A hub that gets no fragment for 8 s gives up by itself,
/// and a fragment may have been nearly whole.
pub const ENCODER_LIMIT: Duration = Duration::from_secs(5);
/// An open that comes later than this after the motion is not the answer to it.
const MOTION_MEMORY: Duration = Duration::from_secs(8);

/// A stream that a hub has opened. It holds a position in the prebuffer, never bytes.
pub(super) struct Recording {
    session: SessionId,
    pub(super) stream_id: i64,
    opened: Instant,
    selected: Selected,
    audio: AudioChoice,
    phase: Phase,
    /// `dataSequenceNumber` of the segment that leaves next.
    sequence: u32,
    not_before: Option<Instant>,
    encoder: Watch,
}

enum Phase {
    /// The encoder's parameters are not known yet, so there is no init segment.
    Starting,
    /// `segment` is the fragment that is leaving.
    Streaming { reader: Reader, segment: Option<Segment> },
    /// The encoder is dead: what it left behind leaves as the last fragment.
    Draining { reader: Reader, segment: Option<Segment> },
    /// The end of the stream was sent: nothing may follow.
    Ended { until: Instant },
}

struct Segment {
    fragment: Fragment,
    sent: usize,
    chunks: u32,
}

/// Whether new access units arrive.
struct Watch {
    newest: u64,
    since: Instant,
}

/// What [`Recording::poll_chunk`] has put into the frame.
pub(super) struct Payload {
    /// Its length.
    pub bytes: usize,
    /// What it completes, for the log.
    pub report: Option<Report>,
}

impl Recording {
    /// Opens a stream. What is recorded and with which sound is settled here and holds to its end.
    pub(super) fn new(session: SessionId, stream_id: i64, selected: Selected, now: Instant, desk: &Desk<'_>) -> Self {
        let prebuffer_ms = selected.prebuffer_ms.saturating_add(late_ms(&selected, now, desk));
        Recording {
            session,
            stream_id,
            opened: now,
            selected: Selected { prebuffer_ms, ..selected },
            audio: audio(desk.permission),
            phase: Phase::Starting,
            sequence: 1,
            not_before: None,
            encoder: Watch { newest: newest(desk), since: now },
        }
    }

    /// Complete fragments that have left.
    pub(super) fn fragments(&self) -> u32 {
        self.sequence.saturating_sub(2)
    }

    pub(super) fn duration(&self, now: Instant) -> Duration {
        now - self.opened
    }

    /// Whether the end of the stream was sent.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Starting => Some(self.opened + START_LIMIT),
            Phase::Streaming { .. } => earliest(self.not_before, Some(self.encoder.since + ENCODER_LIMIT)),
            Phase::Draining { .. } => self.not_before,
            Phase::Ended { until } => Some(until),
        }
    }

    /// What has become of the stream without any bytes moving.
    ///
    /// # Errors
    /// The cause, when it is over.
    pub(super) fn handle_timeout(&mut self, now: Instant, desk: &Desk<'_>) -> Result<(), Cause> {
        if !desk.slot.is_held_by(self.session) {
            return Err(Cause::TakenOver);
        }
        if !desk.permission.camera_active {
            return Err(Cause::CameraOff);
        }
        if self.not_before.is_some_and(|t| t <= now) {
            self.not_before = None;
        }
        let newest = newest(desk);
        if newest != self.encoder.newest {
            self.encoder = Watch { newest, since: now };
        }
        match &mut self.phase {
            Phase::Starting if now - self.opened >= START_LIMIT => Err(Cause::NotReady),
            Phase::Ended { until } if *until <= now => Err(Cause::NoAnswer),
            Phase::Streaming { .. } if now - self.encoder.since >= ENCODER_LIMIT => {
                if let Phase::Streaming { mut reader, segment } = core::mem::replace(&mut self.phase, Phase::Starting) {
                    reader.finish();
                    self.phase = Phase::Draining { reader, segment };
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts the next data event into `out` behind the room of the frame's header, ready to be sealed
    /// where it stands. `None`: nothing is due, or `out` is smaller than [`FRAME_BYTES`].
    ///
    /// # Errors
    /// The cause, when the stream is over.
    pub(super) fn poll_chunk(
        &mut self,
        now: Instant,
        desk: &mut Desk<'_>,
        out: &mut [u8],
    ) -> Result<Option<Payload>, Cause> {
        self.handle_timeout(now, desk)?;
        if out.len() < FRAME_BYTES {
            return Ok(None);
        }
        if let Phase::Starting = self.phase {
            return Ok(self.start(now, desk, out));
        }
        let draining = matches!(self.phase, Phase::Draining { .. });
        let (Phase::Streaming { reader, segment } | Phase::Draining { reader, segment }) = &mut self.phase else {
            return Ok(None);
        };
        if segment.is_none() {
            if self.not_before.is_some() {
                return Ok(None);
            }
            let fragment = reader.poll_fragment(desk.prebuffer).map_err(|gone| cause(gone, draining, desk))?;
            *segment = fragment.map(|fragment| Segment { fragment, sent: 0, chunks: 0 });
        }
        let Some(Segment { fragment, sent, chunks }) = segment else {
            return Ok(None);
        };

        // Decided at the last moment: what is switched off while a fragment leaves ends with it.
        let capped = now - self.opened >= RECORDING_CAP;
        let ending = capped || !desk.permission.recording_active;
        let left = fragment.total_bytes.saturating_sub(*sent);
        let chunk = Chunk {
            stream_id: self.stream_id,
            sequence: self.sequence,
            number: *chunks + 1,
            bytes: left.min(CHUNK_BYTES),
            total_bytes: fragment.total_bytes,
            end_of_stream: (left <= CHUNK_BYTES).then_some(ending),
        };
        let bytes = put_chunk(&chunk, out, |room| match reader.read(fragment, desk.prebuffer, *sent, room) {
            Ok(n) if n == room.len() => Ok(()),
            // A fragment shorter than it said would break the stream for good.
            Ok(_) => Err(Gone::Overrun),
            Err(gone) => Err(gone),
        })
        .map_err(|gone| cause(gone, draining, desk))?;
        *sent += chunk.bytes;
        *chunks += 1;
        if chunk.end_of_stream.is_none() {
            return Ok(Some(Payload { bytes, report: None }));
        }

        let report = Report::Fragment {
            sequence: self.sequence,
            bytes: fragment.total_bytes,
            duration_ms: (fragment.duration_90k / 90) as u32,
            chunks: *chunks,
            backlog_ms: (newest_90k(desk).saturating_sub(fragment.end_pts_90k) / 90) as u32,
            after_open_ms: (now - self.opened).as_millis() as u32,
        };
        *segment = None;
        self.sequence += 1;
        self.not_before = Some(now + PACING);
        if ending {
            self.phase = Phase::Ended { until: now + ANSWER_LIMIT };
            desk.slot.ended(self.session);
        }
        Ok(Some(Payload { bytes, report: Some(report) }))
    }

    /// The initialization segment, as soon as the encoder's parameters are known.
    fn start(&mut self, now: Instant, desk: &Desk<'_>, out: &mut [u8]) -> Option<Payload> {
        let options = ReaderOptions {
            fragment_ms: self.selected.fragment_ms,
            audio: self.audio,
            audio_rate_hz: self.selected.audio_rate_hz,
        };
        let start = Start::Prebuffered { ms: self.selected.prebuffer_ms };
        let reader = Reader::start(desk.prebuffer, start, options).ok()?;

        // Its length has to be told in front of it, so it is written twice: about a kilobyte.
        let mut room = Writer::new(out);
        reader.init(&mut room);
        let total_bytes = room.finish().ok()?.len();
        let chunk = Chunk {
            stream_id: self.stream_id,
            sequence: self.sequence,
            number: 1,
            bytes: total_bytes,
            total_bytes,
            end_of_stream: Some(false),
        };
        let bytes = put_chunk(&chunk, out, |room| {
            let mut room = Writer::new(room);
            reader.init(&mut room);
            room.finish().map(|_| ())
        })
        .ok()?;
        self.sequence += 1;
        self.encoder.since = now;
        self.phase = Phase::Streaming { reader, segment: None };
        let after_open_ms = (now - self.opened).as_millis() as u32;
        Some(Payload { bytes, report: Some(Report::Init { bytes: total_bytes, after_open_ms }) })
    }

    /// The line for the log when the last chunk carried the end of the stream.
    pub(super) fn end_of_stream(&self, now: Instant) -> Option<Report> {
        let duration = self.duration(now);
        self.is_ended()
            .then_some(Report::EndOfStream { seconds: duration.as_secs() as u32, capped: duration >= RECORDING_CAP })
    }
}

/// One data event at the place where it is sealed; `fill` puts the bytes of the chunk between what
/// stands before and behind them. Returns the length of the payload.
fn put_chunk<E: From<Overflow>>(
    chunk: &Chunk,
    out: &mut [u8],
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<usize, E> {
    let overflow = || E::from(Overflow);
    let payload = out.get_mut(HEADER_BYTES..).ok_or_else(overflow)?;
    let mut head = Writer::new(payload);
    message::put_data_head(&mut head, chunk);
    let head_bytes = head.finish().map_err(|_| overflow())?.len();
    let room = payload.get_mut(head_bytes..head_bytes + chunk.bytes).ok_or_else(overflow)?;
    fill(room)?;
    let mut tail = Writer::new(payload.get_mut(head_bytes + chunk.bytes..).ok_or_else(overflow)?);
    message::put_data_tail(&mut tail, chunk);
    let tail_bytes = tail.finish().map_err(|_| overflow())?.len();
    Ok(head_bytes + chunk.bytes + tail_bytes)
}

/// The frame buffer is too small for a chunk; its size is checked before.
struct Overflow;

impl From<Overflow> for Gone {
    fn from(_: Overflow) -> Gone {
        Gone::Overrun
    }
}

impl From<Overflow> for Full {
    fn from(_: Overflow) -> Full {
        Full
    }
}

fn cause(gone: Gone, draining: bool, desk: &Desk<'_>) -> Cause {
    match gone {
        // What was held is overwritten when recording is switched off.
        _ if !desk.permission.recording_active => Cause::RecordingOff,
        Gone::Overrun => Cause::Lagged,
        Gone::Ended if draining => Cause::EncoderSilent,
        Gone::Ended => Cause::EncoderRestarted,
    }
}

fn audio(permission: &Permission) -> AudioChoice {
    match (permission.audio_active, permission.silent_track) {
        (true, _) => AudioChoice::Live,
        (false, true) => AudioChoice::Silent,
        (false, false) => AudioChoice::None,
    }
}

/// The hub wants the time before the motion, not before its own open: how much later the open came, as
/// far as one fragment more makes up for it.
fn late_ms(selected: &Selected, now: Instant, desk: &Desk<'_>) -> u32 {
    let late = desk.motion_since.map(|since| now - since).filter(|late| *late <= MOTION_MEMORY);
    late.map_or(0, |late| (late.as_millis() as u32).min(selected.fragment_ms))
}

fn newest(desk: &Desk<'_>) -> u64 {
    desk.prebuffer.video_numbers().end
}

fn newest_90k(desk: &Desk<'_>) -> u64 {
    let last = desk.prebuffer.video_numbers().end.checked_sub(1);
    last.and_then(|number| desk.prebuffer.video_sample(number).ok().flatten()).map_or(0, |sample| sample.pts_90k)
}
