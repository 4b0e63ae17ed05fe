//! One data stream connection: which prepared session it is, hello, and the recording that a hub
//! opens, acknowledges and closes over it (HomeKit Data Stream, messages).
//!
//! `tests/hds_hub.rs` plays it against a hub in virtual time.

use super::frame;
use super::message::{self, Message, NAME_MAX, Reason, SMALL_FRAME_BYTES, Status};
use super::recording::Recording;
use super::report::{Cause, Disconnect, Report, Words};
use super::slot::DEAD_AFTER;
use super::{ConnectionId, Desk, SessionId};
use crate::crypto::aead::{OpenKey, SealKey};
use crate::time::{Duration, Instant, earliest};
use crate::wire::Writer;

/// How long a connection may take to say hello.
pub const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// The longest frame that is taken from a hub; what hubs send stays below 300 bytes.
pub const RECEIVE_BYTES: usize = 4096;
/// While this many answers wait to be sent no further message is looked at.
const ANSWERS_BEFORE_PAUSE: usize = 4;
/// While this many reports wait, messages that cannot be understood are not told any more.
const REPORTS_OF_NONSENSE: usize = 4;

/// A connection of a hub. After every `handle_*` call [`Session::poll_transmit`] until `None`, then
/// [`Session::poll_report`] until `None`, then look at [`Session::is_closed`] and
/// [`Session::poll_timeout`].
pub struct Session {
    id: SessionId,
    phase: Phase,
    recording: Option<Recording>,
    received: [u8; RECEIVE_BYTES],
    received_bytes: usize,
    answers: heapless::Deque<Answer, { ANSWERS_BEFORE_PAUSE + 4 }>,
    reports: heapless::Deque<Report, 16>,
    /// Bytes of the frame handed out last that the socket has not taken yet.
    outstanding: usize,
    last_write: Instant,
}

/// Eight of them belong to the budget.
const _: () = assert!(size_of::<Session>() <= 8 * 1024);

enum Phase {
    AwaitHello {
        until: Instant,
    },
    Open(Keys),
    /// Says what is left to say, then closes.
    Closing(Keys, Disconnect),
    Closed,
}

struct Keys {
    connection: ConnectionId,
    seal: SealKey,
    open: OpenKey,
}

enum Answer {
    Hello { id: i64 },
    Open { id: i64, reason: Reason },
    Refused { id: i64, protocol: Name, topic: Name, status: Status },
    Close { stream_id: i64, reason: Reason },
}

type Name = heapless::String<NAME_MAX>;

/// What a message asks for, free of the buffer it came in.
enum Request {
    Answer(Answer),
    Open { id: i64, stream_id: i64, is_recording: bool, reason: Words },
    Ack { stream_id: i64 },
    Close { stream_id: i64, reason: Reason },
    Nothing,
}

impl Session {
    /// A connection that was just accepted.
    pub fn new(id: SessionId, now: Instant) -> Self {
        Session {
            id,
            phase: Phase::AwaitHello { until: now + HELLO_LIMIT },
            recording: None,
            received: [0; RECEIVE_BYTES],
            received_bytes: 0,
            answers: heapless::Deque::new(),
            reports: heapless::Deque::new(),
            outstanding: 0,
            last_write: now,
        }
    }

    /// The number it was made with.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The HAP connection that had prepared it, known once hello has come.
    pub fn hap_connection(&self) -> Option<ConnectionId> {
        match &self.phase {
            Phase::Open(keys) | Phase::Closing(keys, _) => Some(keys.connection),
            Phase::AwaitHello { .. } | Phase::Closed => None,
        }
    }

    /// Whether it holds, or held until another took it, the recording slot.
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Room that the next [`Session::poll_transmit`] needs: the one large frame buffer is lent to the
    /// connection that records, until all of its last frame is written. When another one takes the slot,
    /// any call to this one gives up a half-written frame, and its connection with it.
    pub fn frame_bytes(&self) -> usize {
        if self.is_recording() { message::FRAME_BYTES } else { SMALL_FRAME_BYTES }
    }

    /// Whether the socket is to be closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Where the next bytes of the socket belong. Empty while answers wait to be sent: then read
    /// nothing.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        &mut self.received[self.received_bytes..]
    }

    /// `n` bytes were read into the receive buffer.
    pub fn handle_received(&mut self, n: usize, now: Instant, desk: &mut Desk<'_>) {
        self.received_bytes = (self.received_bytes + n).min(RECEIVE_BYTES);
        self.read_frames(now, desk);
    }

    /// The socket took `n` bytes of the frame that was handed out last.
    pub fn handle_transmitted(&mut self, n: usize, now: Instant, desk: &mut Desk<'_>) {
        self.outstanding = self.outstanding.saturating_sub(n);
        if n > 0 {
            self.last_write = now;
            desk.slot.written(self.id, now);
        }
        self.give_way(now, desk);
    }

    /// The connection is over, whoever wants it so. The slot is free after this; [`Disconnect::Shutdown`]
    /// still tells the hub that its recording is cancelled, anything else closes at once.
    pub fn handle_disconnected(&mut self, why: Disconnect, now: Instant, desk: &mut Desk<'_>) {
        if why == Disconnect::Shutdown && self.outstanding == 0 {
            self.end(Cause::Shutdown, now, desk);
            match core::mem::replace(&mut self.phase, Phase::Closed) {
                Phase::Open(keys) => self.phase = Phase::Closing(keys, why),
                Phase::AwaitHello { .. } => self.report(Report::Disconnected(why)),
                phase @ (Phase::Closing(..) | Phase::Closed) => self.phase = phase,
            }
        } else {
            self.close(why, now, desk);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, desk: &mut Desk<'_>) {
        self.give_way(now, desk);
        if self.blocked_at().is_some_and(|at| at <= now) {
            return self.close(Disconnect::Blocked, now, desk);
        }
        if let Phase::AwaitHello { until } = self.phase
            && until <= now
        {
            return self.close(Disconnect::NoHello, now, desk);
        }
        if let Some(recording) = &mut self.recording
            && let Err(cause) = recording.handle_timeout(now, desk)
        {
            self.end(cause, now, desk);
        }
    }

    /// When to call [`Session::handle_timeout`] and [`Session::poll_transmit`] at the latest. While
    /// [`Session::is_recording`] new media, a new permission and a new holder of the slot are reasons, too.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let hello = if let Phase::AwaitHello { until } = self.phase { Some(until) } else { None };
        let recording = self.recording.as_ref().and_then(Recording::poll_timeout);
        earliest(hello, earliest(self.blocked_at(), recording))
    }

    /// The next frame for the socket, sealed in `out`; its length. The whole frame has to be written
    /// and told by [`Session::handle_transmitted`] before there is another one.
    pub fn poll_transmit(&mut self, now: Instant, desk: &mut Desk<'_>, out: &mut [u8]) -> Option<usize> {
        self.give_way(now, desk);
        if self.outstanding > 0 {
            return None;
        }
        loop {
            if let Some(answer) = self.answers.front() {
                let payload = answer.put(out.get_mut(frame::HEADER_BYTES..)?)?;
                let sent = self.seal(now, out, payload)?;
                self.answers.pop_front();
                return Some(sent);
            }
            if let Phase::Closing(_, why) = self.phase {
                self.close(why, now, desk);
            }
            self.read_frames(now, desk);
            if !self.answers.is_empty() {
                continue;
            }
            match self.recording.as_mut()?.poll_chunk(now, desk, out) {
                Ok(payload) => {
                    let payload = payload?;
                    payload.report.into_iter().for_each(|report| self.report(report));
                    let ended = self.recording.as_ref().and_then(|recording| recording.end_of_stream(now));
                    ended.into_iter().for_each(|report| self.report(report));
                    return self.seal(now, out, payload.bytes);
                }
                Err(cause) => self.end(cause, now, desk),
            }
        }
    }

    /// What has happened since the last call, for the log.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// The next hub waits for the frame buffer: a frame that is half written in it cannot be finished,
    /// and no other can follow it on this connection.
    fn give_way(&mut self, now: Instant, desk: &mut Desk<'_>) {
        if self.outstanding > 0 && self.is_recording() && !desk.slot.is_held_by(self.id) {
            self.end(Cause::TakenOver, now, desk);
            self.close(Disconnect::Evicted, now, desk);
        }
    }

    fn blocked_at(&self) -> Option<Instant> {
        (self.outstanding > 0).then(|| self.last_write + DEAD_AFTER)
    }

    fn report(&mut self, report: Report) {
        // A flood of nonsense must not crowd out what the shell acts on.
        if matches!(report, Report::Malformed(_)) && self.reports.len() >= REPORTS_OF_NONSENSE {
            return;
        }
        let fits = self.reports.push_back(report).is_ok();
        debug_assert!(fits);
    }

    fn answer(&mut self, answer: Answer) {
        // One answer a message, one close a stream: the queue has room for more than can come between
        // two looks at ANSWERS_BEFORE_PAUSE.
        let fits = self.answers.push_back(answer).is_ok();
        debug_assert!(fits);
    }

    fn seal(&mut self, now: Instant, out: &mut [u8], payload: usize) -> Option<usize> {
        let (Phase::Open(keys) | Phase::Closing(keys, _)) = &mut self.phase else { return None };
        let n = frame::seal(&mut keys.seal, out, payload)?;
        self.outstanding = n;
        self.last_write = now;
        Some(n)
    }

    /// The only way a recording ends: the slot is freed, the hub told if it does not know.
    fn end(&mut self, cause: Cause, now: Instant, desk: &mut Desk<'_>) {
        let Some(recording) = self.recording.take() else { return };
        desk.slot.free(self.id);
        if let Some(reason) = cause.told() {
            self.answer(Answer::Close { stream_id: recording.stream_id, reason });
        }
        self.report(Report::Closed {
            stream_id: recording.stream_id,
            cause,
            fragments: recording.fragments(),
            seconds: recording.duration(now).as_secs() as u32,
        });
    }

    /// The only way a connection ends.
    fn close(&mut self, why: Disconnect, now: Instant, desk: &mut Desk<'_>) {
        if self.is_closed() {
            return;
        }
        self.end(if why == Disconnect::Blocked { Cause::Blocked } else { Cause::Disconnected }, now, desk);
        self.phase = Phase::Closed;
        self.answers.clear();
        self.outstanding = 0;
        self.received_bytes = 0;
        self.report(Report::Disconnected(why));
    }

    /// Takes whole frames from the receive buffer while there is room for their answers.
    fn read_frames(&mut self, now: Instant, desk: &mut Desk<'_>) {
        while self.answers.len() < ANSWERS_BEFORE_PAUSE {
            let frame_bytes = match frame::length(&self.received[..self.received_bytes]) {
                Ok(Some(bytes)) if bytes > RECEIVE_BYTES => {
                    return self.close(Disconnect::LongFrame { bytes }, now, desk);
                }
                Ok(Some(bytes)) if bytes <= self.received_bytes => bytes,
                Ok(_) => return,
                Err(_) => return self.close(Disconnect::BadFrame, now, desk),
            };
            match self.read_frame(frame_bytes, now, desk) {
                Ok(request) => self.act(request, now, desk),
                Err(why) => return self.close(why, now, desk),
            }
            self.received.copy_within(frame_bytes..self.received_bytes, 0);
            self.received_bytes -= frame_bytes;
        }
    }

    fn read_frame(&mut self, frame_bytes: usize, now: Instant, desk: &mut Desk<'_>) -> Result<Request, Disconnect> {
        let frame = &mut self.received[..frame_bytes];
        if let Phase::AwaitHello { .. } = self.phase {
            let claimed = desk.prepared.claim(now, frame).ok_or(Disconnect::UnknownKey)?;
            let mut keys = Keys { connection: claimed.connection, seal: claimed.seal, open: claimed.open };
            let payload = frame::open(&mut keys.open, frame).ok_or(Disconnect::UnknownKey)?;
            let Ok(Message::Hello { id }) = message::parse(payload) else { return Err(Disconnect::NotHello) };
            let connection = keys.connection;
            self.phase = Phase::Open(keys);
            self.report(Report::Hello { connection });
            return Ok(Request::Answer(Answer::Hello { id }));
        }
        // While it closes nothing new begins, and nothing needs to be read.
        let Phase::Open(keys) = &mut self.phase else { return Ok(Request::Nothing) };
        let payload = frame::open(&mut keys.open, frame).ok_or(Disconnect::BadTag)?;
        match message::parse(payload) {
            Ok(message) => Ok(Request::of(message)),
            Err(malformed) => {
                self.report(Report::Malformed(malformed.0));
                Ok(Request::Nothing)
            }
        }
    }

    fn act(&mut self, request: Request, now: Instant, desk: &mut Desk<'_>) {
        let is_mine = |recording: &Option<Recording>, id| recording.as_ref().is_some_and(|r| r.stream_id == id);
        match request {
            Request::Answer(answer) => self.answer(answer),
            Request::Open { id, stream_id, is_recording, reason } => {
                match self.open(stream_id, is_recording, &reason, now, desk) {
                    Ok(report) => {
                        self.report(report);
                        self.answer(Answer::Open { id, reason: Reason::NORMAL });
                    }
                    Err(reason) => {
                        self.report(Report::Refused { stream_id, reason });
                        self.answer(Answer::Open { id, reason });
                    }
                }
            }
            Request::Ack { stream_id } => {
                if is_mine(&self.recording, stream_id) && self.recording.as_ref().is_some_and(Recording::is_ended) {
                    self.end(Cause::Acknowledged, now, desk);
                }
            }
            Request::Close { stream_id, reason } => {
                if is_mine(&self.recording, stream_id) {
                    self.end(Cause::Hub(reason), now, desk);
                }
            }
            Request::Nothing => {}
        }
    }

    /// The rules of opening, in their order.
    fn open(
        &mut self,
        stream_id: i64,
        is_recording: bool,
        reason: &Words,
        now: Instant,
        desk: &mut Desk<'_>,
    ) -> Result<Report, Reason> {
        let permission = desk.permission;
        if !is_recording {
            return Err(Reason::UNEXPECTED_FAILURE);
        }
        if !permission.recording_active || !permission.camera_active {
            return Err(Reason::NOT_ALLOWED);
        }
        if desk.slot.is_busy(now) {
            return Err(Reason::BUSY);
        }
        let selected = permission.selected.ok_or(Reason::INVALID_CONFIGURATION)?;
        let takeover = desk.slot.holder().is_some() || self.recording.is_some();
        // A hub that opens anew over the same connection knows that the old stream is over.
        self.end(Cause::Acknowledged, now, desk);
        desk.slot.take(self.id, now);
        self.recording = Some(Recording::new(self.id, stream_id, selected, now, desk));
        Ok(Report::Open { stream_id, reason: reason.clone(), takeover })
    }
}

impl Request {
    fn of(message: Message<'_>) -> Request {
        match message {
            Message::Hello { id } => Request::Answer(Answer::Hello { id }),
            Message::Open { id, stream_id, kind, target, reason } => Request::Open {
                id,
                stream_id,
                is_recording: kind == "ipcamera.recording" && target == "controller",
                reason: words(reason),
            },
            Message::Ack { stream_id, end_of_stream: true } => Request::Ack { stream_id },
            Message::Close { stream_id, reason } => Request::Close { stream_id, reason },
            Message::Refused { id, protocol, topic, status } => match (Name::try_from(protocol), Name::try_from(topic))
            {
                (Ok(protocol), Ok(topic)) => Request::Answer(Answer::Refused { id, protocol, topic, status }),
                _ => Request::Nothing,
            },
            Message::Ack { end_of_stream: false, .. } | Message::Ignored => Request::Nothing,
        }
    }
}

impl Answer {
    fn put(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = Writer::new(out);
        match self {
            Answer::Hello { id } => message::put_hello(&mut w, *id),
            Answer::Open { id, reason } => message::put_open(&mut w, *id, *reason),
            Answer::Refused { id, protocol, topic, status } => {
                message::put_refused(&mut w, protocol, topic, *id, *status);
            }
            Answer::Close { stream_id, reason } => message::put_close(&mut w, *stream_id, *reason),
        }
        w.finish().ok().map(|payload| payload.len())
    }
}

/// What of the hub's words may stand in a log: no control characters, no more than fits.
fn words(text: &str) -> Words {
    let mut words = Words::new();
    for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if words.push(c).is_err() {
            break;
        }
    }
    words
}
