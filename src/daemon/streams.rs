//! Data streams: the sockets behind [`hds::Session`] and who may have one.

use super::shared::Shared;
use crate::hds::{self, Desk, Disconnect, Report, Session, SessionId};
use crate::io::loan::{Home, Loan};
use crate::io::peer::{self, Closed, End, Peer};
use crate::io::runtime::{Fd, Signal, now};
use crate::sys;
use crate::time::Instant;
use crate::trace::Event;
use std::cell::{Cell, RefCell};
use std::io::Result;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

/// Held by the kernel for a hub that does not read: with the doubling, half a second at 2 Mbit/s.
const SEND_BUFFER: u32 = 64 * 1024;

/// Data streams at a time; one of them records.
const MAX_SESSIONS: usize = 8;

/// One data stream.
pub struct Stream {
    shared: Rc<Shared>,
    id: SessionId,
    session: RefCell<Session>,
    /// For everything but the chunks of a recording, which go through the one large buffer.
    small: Home,
    heard: Cell<Instant>,
    cut: Signal,
    is_cut: Cell<bool>,
    stream_id: Cell<u32>,
}

impl Stream {
    fn new(shared: Rc<Shared>, id: SessionId) -> Rc<Self> {
        Rc::new(Stream {
            shared,
            id,
            session: RefCell::new(Session::new(id, now())),
            small: Home::new(hds::SMALL_FRAME_BYTES),
            heard: Cell::new(now()),
            cut: Signal::default(),
            is_cut: Cell::new(false),
            stream_id: Cell::new(0),
        })
    }

    /// Lends the session what all data streams share, then prints what has come of it.
    fn with<R>(&self, act: impl FnOnce(&mut Session, &mut Desk<'_>) -> R) -> R {
        let shared = &*self.shared;
        let permission = shared.permission();
        let result = {
            let (mut prepared, mut slot) = (shared.prepared.borrow_mut(), shared.slot.borrow_mut());
            let prebuffer = shared.prebuffer.borrow();
            let mut desk = Desk {
                prepared: &mut prepared,
                slot: &mut slot,
                prebuffer: &prebuffer,
                permission: &permission,
                motion_since: shared.motion_since.get(),
            };
            act(&mut self.session.borrow_mut(), &mut desk)
        };
        loop {
            let Some(report) = self.session.borrow_mut().poll_report() else { break };
            self.tell(report);
        }
        // A frame that is half written now is of no use to anybody, and holds its buffer.
        if self.session.borrow().is_closed() && !self.is_cut.replace(true) {
            self.cut.notify();
        }
        result
    }

    fn tell(&self, report: Report) {
        log::debug!(target: "hds", "{}: {report}", self.id);
        let shared = &*self.shared;
        if report.wants_reopen() {
            let is_silent = matches!(report, Report::Closed { cause: hds::Cause::EncoderSilent, .. });
            shared.want_reopen(now(), is_silent);
        }
        let stream = self.stream_id.get();
        let event = match report {
            Report::Hello { .. } => Event::DataStreamConnected,
            Report::Open { stream_id, takeover, .. } => {
                let stream = u32::try_from(stream_id).unwrap_or(0);
                self.stream_id.set(stream);
                shared.recording_opened(self.id, stream, self.session.borrow().hap_connection());
                if takeover {
                    self.make_way();
                }
                let held_ms = shared.prebuffer.borrow().held().as_millis() as u32;
                Event::RecordingOpened { stream, prebuffer_ms: held_ms }
            }
            Report::Init { bytes, .. } => Event::Fragment { stream, number: 1, bytes: bytes as u32 },
            Report::Fragment { sequence, bytes, .. } => {
                shared.fragment_sent(self.id);
                Event::Fragment { stream, number: sequence, bytes: bytes as u32 }
            }
            Report::Closed { cause, fragments, .. } => {
                shared.recording_closed(self.id);
                if cause == hds::Cause::Lagged {
                    shared.note(Event::HubLagged { stream });
                }
                let reason = match cause {
                    hds::Cause::Hub(reason) => reason.0.clamp(0, 255) as u8,
                    _ => 0,
                };
                Event::RecordingClosed { stream, reason, fragments }
            }
            Report::Disconnected(_) => Event::DataStreamClosed,
            Report::EndOfStream { .. } => return shared.recording_ended(self.id),
            Report::Refused { .. } | Report::Malformed(_) => return,
        };
        shared.note(event);
    }

    /// Lets those who recorded before find out that the slot is taken: one whose socket takes nothing
    /// would hold the buffer for chunks until it is given up.
    fn make_way(&self) {
        let recording = |other: &&Rc<Stream>| other.id != self.id && other.is_recording();
        let before: Vec<_> = self.shared.streams.borrow().iter().filter(recording).cloned().collect();
        for other in before {
            other.with(|session, desk| session.handle_timeout(now(), desk));
        }
        self.shared.media_changed.notify();
    }

    /// Ends the data stream. A shutdown still lets it say so, everything else closes it at once.
    pub fn disconnect(&self, why: Disconnect) {
        self.with(|session, desk| session.handle_disconnected(why, now(), desk));
        self.shared.media_changed.notify();
    }

    /// The HAP connection that had prepared it.
    pub fn hap_connection(&self) -> Option<hds::ConnectionId> {
        self.session.borrow().hap_connection()
    }

    /// Whether it records.
    pub fn is_recording(&self) -> bool {
        self.session.borrow().is_recording()
    }
}

impl Peer for Stream {
    fn is_full(&self) -> bool {
        self.session.borrow_mut().receive_buffer().is_empty()
    }

    fn receive(&self, read: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<usize> {
        read(self.session.borrow_mut().receive_buffer())
    }

    fn handle_received(&self, n: usize, now: Instant) -> std::result::Result<(), Closed> {
        self.heard.set(now);
        self.with(|session, desk| session.handle_received(n, now, desk));
        Ok(())
    }

    fn poll_transmit(&self, now: Instant) -> Option<Loan> {
        let is_chunk = self.session.borrow().frame_bytes() > hds::SMALL_FRAME_BYTES;
        let large = if is_chunk { self.shared.chunk.lend() } else { None };
        // While somebody else has the large buffer, answers need not wait for it.
        let mut loan = large.or_else(|| self.small.lend())?;
        let len = self.with(|session, desk| session.poll_transmit(now, desk, loan.room()))?;
        Some(loan.filled(len))
    }

    fn handle_transmitted(&self, n: usize, now: Instant) {
        self.with(|session, desk| session.handle_transmitted(n, now, desk));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.session.borrow().poll_timeout()
    }

    fn handle_timeout(&self, now: Instant) -> std::result::Result<(), Closed> {
        self.with(|session, desk| session.handle_timeout(now, desk));
        Ok(())
    }

    fn signal(&self) -> &Signal {
        &self.shared.media_changed
    }

    fn is_over(&self) -> bool {
        self.session.borrow().is_closed()
    }

    fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    fn cut(&self) -> &Signal {
        &self.cut
    }
}

/// Accepts data streams for ever.
pub async fn serve(shared: Rc<Shared>, listener: TcpListener) {
    let listener = match Fd::new(listener) {
        Ok(listener) => listener,
        Err(e) => return log::error!(target: "hds", "the kernel cannot wait for connections: {e}"),
    };
    let mut next = 1;
    loop {
        let Some((socket, from)) = super::accept(&listener, "hds").await else { continue };
        let id: SessionId = next;
        next = next.wrapping_add(1).max(1);
        if !make_room(&shared) {
            log::debug!(target: "hds", "{id}: refused {from}, all {MAX_SESSIONS} data streams are taken");
            continue;
        }
        log::debug!(target: "hds", "{id}: connect from {from}");
        let stream = Stream::new(shared.clone(), id);
        shared.streams.borrow_mut().push(stream.clone());
        shared.executor.spawn(talk(stream, socket));
    }
}

/// Closes a data stream without a recording when all places are taken: the oldest that has not said
/// hello, else the longest idle one.
fn make_room(shared: &Shared) -> bool {
    if shared.streams.borrow().len() < MAX_SESSIONS {
        return true;
    }
    let victim = {
        let streams = shared.streams.borrow();
        streams
            .iter()
            .filter(|s| !s.is_recording())
            .min_by_key(|s| (s.hap_connection().is_some(), s.heard.get()))
            .cloned()
    };
    let Some(victim) = victim else { return false };
    victim.disconnect(Disconnect::Evicted);
    shared.streams.borrow_mut().retain(|s| s.id != victim.id);
    true
}

async fn talk(stream: Rc<Stream>, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sys::tcp::keep_alive(&socket);
    let _ = sys::tcp::bound_send_buffer(&socket, SEND_BUFFER);
    if let Ok(socket) = Fd::new(socket) {
        let end = peer::talk(&socket, &*stream).await;
        if !matches!(end, End::Ours) {
            let why = if matches!(end, End::Stalled) { Disconnect::Blocked } else { Disconnect::Peer };
            stream.with(|session, desk| session.handle_disconnected(why, now(), desk));
        }
    }
    stream.shared.streams.borrow_mut().retain(|s| s.id != stream.id);
    // The large buffer may be free again, and the slot with it.
    stream.shared.media_changed.notify();
}

/// Ends the data streams that this HAP connection had prepared.
pub fn close_of(shared: &Shared, connection: hds::ConnectionId, why: Disconnect) {
    close_where(shared, why, |stream| stream.hap_connection() == Some(connection));
}

/// Ends all data streams that `which` picks.
pub fn close_where(shared: &Shared, why: Disconnect, which: impl Fn(&Stream) -> bool) {
    let streams: Vec<_> = shared.streams.borrow().iter().filter(|s| which(s)).cloned().collect();
    for stream in streams {
        stream.disconnect(why);
    }
}
