//! One controller's connection: bytes in, one request at a time, responses and events out.
//!
//! The shell reads into [`Connection::receive_buffer`], calls a `handle_*` for whatever happened, then
//! [`Connection::poll_transmit`] until it gives nothing, and waits for bytes, for
//! [`Connection::poll_timeout`], or for [`super::accessory::Effect::Notify`]. What a request needs
//! from outside (an exponentiation, a stored file, a picture) is asked for by an effect; the response
//! waits for the answer, and with it every request behind it.

use super::ConnectionId;
use super::accessory::{Accessory, Effect, Surroundings};
use super::characteristics::Timed;
use super::events::Subscriptions;
use super::outcome::{Outcome, Then};
use super::pairing::{ControllerId, Verify};
use super::record::{self, MAX_TEXT, OVERHEAD, Opener, Sealer};
use super::reply::Reply;
use super::types::Status;
use crate::crypto::{SharedSecret, srp};
use crate::time::{Duration, Instant};
use crate::wire::http::{self, BodyLength, Head};
use std::rc::Rc;

/// Room for a head at its limits and the record that completes it.
pub const RECEIVE_BYTES: usize = http::REQUEST_LINE_MAX + http::HEADERS_MAX + MAX_TEXT + OVERHEAD;
/// Room for the longest request: what a large buffer holds.
const LARGE_BYTES: usize = RECEIVE_BYTES + http::BODY_MAX + 2048;
/// Large buffers of all connections together.
const LARGE_BUFFERS_MAX: u8 = 2;
/// Least room that [`Connection::poll_transmit`] needs: one full record.
pub const TRANSMIT_BYTES_MIN: usize = MAX_TEXT + OVERHEAD;
/// A picture that takes longer is given up; Home has no patience for more.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(8);

/// The connection is of no use any more: close it at once, send nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Close(pub record::Broken);

impl core::fmt::Display for Close {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// One controller's connection.
pub struct Connection {
    id: ConnectionId,
    /// Text up to `text`, then what was received of the next record, up to `filled`.
    rx: Vec<u8>,
    text: usize,
    filled: usize,
    /// `rx` is one of the large buffers.
    large: bool,
    /// There is text that was not looked at: behind the request that was served last, or come since.
    backlog: bool,
    phase: Phase,
    activity: Activity,
    pub(super) subscriptions: Subscriptions,
    pub(super) timed: Option<Timed>,
    /// Close when what is to be sent was sent.
    closing: bool,
    heard: Instant,
}

/// What twenty of them cost besides their buffers.
const _: () = assert!(size_of::<Connection>() <= 1024);

/// In the clear before pair-verify, sealed after it.
enum Phase {
    Plain(Verify),
    Secure(Box<Secure>),
}

/// What a verified connection knows.
pub(super) struct Secure {
    pub controller: ControllerId,
    pub shared: SharedSecret,
    opener: Opener,
    sealer: Sealer,
}

/// What the connection is at: one request at a time.
enum Activity {
    Idle,
    /// Sending. `plain`: not sealed, although the connection is: M4 of pair-verify.
    Sending {
        reply: Reply,
        plain: bool,
    },
    /// An exponentiation of pair-setup is under way.
    Computing,
    /// The reply is ready and waits for `left` files.
    Storing {
        reply: Reply,
        left: u8,
        failed: bool,
        then: Then,
    },
    /// A picture is being taken.
    Snapshot {
        until: Instant,
    },
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(id: ConnectionId, now: Instant) -> Self {
        Connection {
            id,
            rx: vec![0; RECEIVE_BYTES],
            text: 0,
            filled: 0,
            large: false,
            backlog: false,
            phase: Phase::Plain(Verify::new()),
            activity: Activity::Idle,
            subscriptions: Subscriptions::default(),
            timed: None,
            closing: false,
            heard: now,
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whether pair-verify is done.
    pub fn is_verified(&self) -> bool {
        matches!(self.phase, Phase::Secure(_))
    }

    /// The controller, once it is verified.
    pub fn controller(&self) -> Option<&[u8]> {
        self.secure().map(|secure| &secure.controller[..])
    }

    pub(super) fn secure(&self) -> Option<&Secure> {
        match &self.phase {
            Phase::Plain(_) => None,
            Phase::Secure(secure) => Some(secure),
        }
    }

    /// When something was received last.
    pub fn idle_since(&self) -> Instant {
        self.heard
    }

    /// Whether to close the connection now: everything was sent.
    pub fn should_close(&self) -> bool {
        self.closing && matches!(self.activity, Activity::Idle)
    }

    /// Ends the connection once the request at hand is answered: the pairing was removed, or the
    /// daemon shuts down. Ask [`Connection::poll_transmit`], then [`Connection::should_close`].
    pub fn finish(&mut self) {
        self.closing = true;
    }

    /// Where to receive into. Empty while requests wait that were not served yet: read again after
    /// the next transmission.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        &mut self.rx[self.filled..]
    }

    /// `n` bytes were received into the buffer.
    ///
    /// # Errors
    /// When the controller cannot be understood any more.
    pub fn handle_received(&mut self, n: usize, acc: &mut Accessory, s: &mut Surroundings<'_>) -> Result<(), Close> {
        self.heard = s.now;
        if self.closing {
            // Nothing more is answered, but the peer may go on sending until it sees the end.
            return Ok(());
        }
        self.filled = (self.filled + n).min(self.rx.len());
        self.open()?;
        self.serve(acc, s)
    }

    /// Time has passed.
    ///
    /// # Errors
    /// As [`Connection::handle_received`]: requests that waited are served from here.
    pub fn handle_timeout(&mut self, acc: &mut Accessory, s: &mut Surroundings<'_>) -> Result<(), Close> {
        if let Activity::Snapshot { until } = self.activity
            && s.now >= until
        {
            self.send(Reply::status(207, Status::TimedOut));
        }
        self.serve(acc, s)
    }

    /// When to call [`Connection::handle_timeout`], and after it [`Connection::poll_transmit`]. A moment in
    /// the past means now: a request that came with the one before it waits to be served.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.activity {
            Activity::Idle if self.backlog && !self.closing => Some(Instant::ZERO),
            Activity::Idle => self.subscriptions.due(),
            Activity::Snapshot { until } => Some(until),
            _ => None,
        }
    }

    /// The job of [`Effect::Compute`] is done.
    pub fn handle_computed(&mut self, done: srp::Done, acc: &mut Accessory, s: &mut Surroundings<'_>) {
        if !matches!(self.activity, Activity::Computing) {
            return acc.handle_prepared(done);
        }
        self.activity = Activity::Idle;
        let outcome = acc.setup_computed(self.id, done, s);
        self.settle(outcome, acc, s);
    }

    /// A file of [`Effect::Store`] is stored, or could not be. Pairings that could not be stored are
    /// refused. A switch of the camera that could not be stored is on all the same and its write
    /// succeeds: a full flash must not take the camera away from its home; the shell says it in the log.
    pub fn handle_stored(&mut self, ok: bool, acc: &mut Accessory, s: &mut Surroundings<'_>) {
        let Activity::Storing { left, failed, .. } = &mut self.activity else { return };
        *left = left.saturating_sub(1);
        *failed |= !ok;
        if *left > 0 {
            return;
        }
        let activity = core::mem::replace(&mut self.activity, Activity::Idle);
        if let Activity::Storing { reply, failed, then, .. } = activity {
            let reply = if failed {
                acc.undo(then, s).unwrap_or(reply)
            } else {
                self.closing |= acc.conclude(then, self.id, self.controller(), s);
                reply
            };
            self.send(reply);
        }
    }

    /// The picture of [`Effect::Snapshot`], or why there is none. Ignored when it comes too late, and
    /// not sent when the camera was switched off while it was taken.
    pub fn handle_snapshot(&mut self, picture: Result<Rc<[u8]>, Status>, acc: &Accessory) {
        if matches!(self.activity, Activity::Snapshot { .. }) {
            self.send(match picture {
                Ok(_) if !acc.state.streaming_allowed() => Reply::status(207, Status::NotAllowedNow),
                Ok(picture) => Reply::jpeg(picture),
                Err(status) => Reply::status(207, status),
            });
        }
    }

    /// The connection is gone: frees what it held of the accessory.
    pub fn handle_closed(&mut self, acc: &mut Accessory, s: &mut Surroundings<'_>) {
        // The change is done, whoever waited for the answer: others have to hear of it.
        if let Activity::Storing { then, .. } = core::mem::replace(&mut self.activity, Activity::Idle) {
            acc.conclude(then, self.id, self.controller(), s);
        }
        acc.setup.handle_closed(self.id);
        acc.state.forget_connection(self.id);
        self.release_large(acc);
        self.closing = true;
    }

    /// Writes the next bytes to send to the start of `out`, which has room for
    /// [`TRANSMIT_BYTES_MIN`], and says how many; `None` when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant, acc: &mut Accessory, out: &mut [u8]) -> Option<usize> {
        debug_assert!(out.len() >= TRANSMIT_BYTES_MIN);
        if matches!(self.activity, Activity::Idle) && !self.closing && self.is_verified() {
            let event = self.subscriptions.poll(now, self.id, &acc.state)?;
            self.send(event);
        }
        let Activity::Sending { reply, plain } = &mut self.activity else { return None };
        let written = match &mut self.phase {
            Phase::Secure(secure) if !*plain => seal(&mut secure.sealer, reply, out),
            _ => reply.take(out),
        };
        if reply.left() == 0 {
            self.activity = Activity::Idle;
        }
        (written > 0).then_some(written)
    }

    fn send(&mut self, reply: Reply) {
        self.activity = Activity::Sending { reply, plain: false };
    }

    /// Opens the records that are complete.
    fn open(&mut self) -> Result<(), Close> {
        match &mut self.phase {
            Phase::Plain(_) => self.text = self.filled,
            Phase::Secure(secure) => {
                match secure.opener.open(&mut self.rx[..self.filled], self.text) {
                    Ok(opened) => (self.text, self.filled) = (opened.text, opened.filled),
                    Err(broken) => {
                        // Not a word more, and no event, to whoever this is.
                        self.closing = true;
                        if matches!(self.activity, Activity::Sending { .. }) {
                            self.activity = Activity::Idle;
                        }
                        return Err(Close(broken));
                    }
                }
            }
        }
        Ok(())
    }

    /// Serves the next request, if it is complete and none is being answered.
    fn serve(&mut self, acc: &mut Accessory, s: &mut Surroundings<'_>) -> Result<(), Close> {
        if self.closing || !matches!(self.activity, Activity::Idle) {
            // Served once the answer at hand is out; nothing more may come that would remind us.
            self.backlog |= self.text > 0;
            return Ok(());
        }
        self.backlog = false;
        let mut rx = core::mem::take(&mut self.rx);
        let request = complete(&mut rx[..self.text]);
        let served = match request {
            Ok(Request::Complete { head, body, len }) => {
                let outcome = self.answer(&head, body, acc, s);
                Ok(Some((outcome, len)))
            }
            Ok(Request::Needs(len)) => Err(len),
            Err(refusal) => {
                self.closing = true;
                let (http, status) = match refusal {
                    http::Refusal::Malformed(_) => (400, Status::InvalidValue),
                    http::Refusal::TooLarge => (413, Status::OutOfResources),
                };
                self.send(Reply::status(http, status));
                Ok(None)
            }
        };
        self.rx = rx;
        match served {
            Ok(Some((outcome, len))) => {
                let secure = self.is_verified();
                self.settle(outcome, acc, s);
                self.consume(len, secure != self.is_verified(), acc)
            }
            Ok(None) => Ok(()),
            Err(len) => {
                self.make_room(len, acc);
                Ok(())
            }
        }
    }

    /// Forgets the first `len` bytes of text: the request that was served. After pair-verify what is
    /// behind them is sealed, although it was received before M4 was sent.
    fn consume(&mut self, len: usize, switched: bool, acc: &mut Accessory) -> Result<(), Close> {
        self.rx.copy_within(len..self.filled, 0);
        self.filled -= len;
        self.text -= len;
        if self.large && self.filled <= RECEIVE_BYTES {
            self.release_large(acc);
        }
        if switched {
            self.text = 0;
            self.open()?;
        }
        self.backlog = self.text > 0;
        Ok(())
    }

    /// Gives `rx` room for a request of `len` bytes, all of it or as much as there is.
    fn make_room(&mut self, len: usize, acc: &mut Accessory) {
        let len = len + MAX_TEXT + OVERHEAD;
        if len <= self.rx.len() {
            return;
        }
        // Nothing that is legal before pair-verify is that long.
        if len > LARGE_BYTES || self.large || !self.is_verified() {
            self.closing = true;
            return self.send(Reply::status(413, Status::OutOfResources));
        }
        if acc.large_buffers >= LARGE_BUFFERS_MAX {
            self.closing = true;
            return self.send(Reply::status(503, Status::OutOfResources));
        }
        acc.large_buffers += 1;
        self.large = true;
        let mut large = vec![0; LARGE_BYTES];
        large[..self.filled].copy_from_slice(&self.rx[..self.filled]);
        self.rx = large;
    }

    fn release_large(&mut self, acc: &mut Accessory) {
        if core::mem::take(&mut self.large) {
            acc.large_buffers = acc.large_buffers.saturating_sub(1);
            let mut small = vec![0; RECEIVE_BYTES];
            let kept = self.filled.min(small.len());
            small[..kept].copy_from_slice(&self.rx[..kept]);
            self.rx = small;
        }
    }

    fn settle(&mut self, outcome: Outcome, acc: &mut Accessory, s: &mut Surroundings<'_>) {
        match outcome {
            Outcome::Reply(reply) => self.send(reply),
            Outcome::Store { reply, files, then } => {
                for &what in files {
                    acc.state.effect(Effect::Store { connection: Some(self.id), what });
                }
                // A handful at most.
                self.activity = Activity::Storing { reply, left: files.len() as u8, failed: false, then };
            }
            Outcome::Compute(job) => {
                acc.state.effect(Effect::Compute { connection: Some(self.id), job });
                self.activity = Activity::Computing;
            }
            Outcome::Snapshot => self.activity = Activity::Snapshot { until: s.now + SNAPSHOT_LIMIT },
            Outcome::Verified { reply, controller, shared } => {
                // One step: the reply still goes out in the clear, everything after it is sealed.
                let (opener, sealer) = (Opener::new(&shared), Sealer::new(&shared));
                self.phase = Phase::Secure(Box::new(Secure { controller, shared, opener, sealer }));
                self.activity = Activity::Sending { reply, plain: true };
            }
        }
    }

    /// Answers a complete request.
    fn answer(&mut self, head: &Head<'_>, body: &[u8], acc: &mut Accessory, s: &mut Surroundings<'_>) -> Outcome {
        let endpoint = match super::routes::find(head.method, head.path) {
            Ok(endpoint) => endpoint,
            Err(unknown) => return Outcome::Reply(unknown.reply()),
        };
        match &mut self.phase {
            Phase::Plain(verify) => acc.answer_plain(endpoint, self.id, verify, body, s),
            Phase::Secure(secure) => {
                // Removed since: the pairing counts at each request, not that of pair-verify.
                let Some(pairing) = acc.pairings.find(&secure.controller) else {
                    self.closing = true;
                    return Outcome::Reply(Reply::status(470, Status::InsufficientPrivileges));
                };
                let caller = super::routes::Verified {
                    id: self.id,
                    controller: &secure.controller,
                    admin: pairing.admin,
                    shared: &secure.shared,
                    subscriptions: &mut self.subscriptions,
                    timed: &mut self.timed,
                };
                acc.answer_verified(endpoint, caller, head.query, body, s)
            }
        }
    }
}

/// What stands at the start of the text.
enum Request<'a> {
    Complete {
        head: Head<'a>,
        body: &'a [u8],
        len: usize,
    },
    /// More is to come: so many bytes are needed, as far as is known.
    Needs(usize),
}

fn complete(text: &mut [u8]) -> Result<Request<'_>, http::Refusal> {
    let (at, length) = match http::parse_head(text)? {
        None => return Ok(Request::Needs(text.len())),
        Some(head) => (head.len, head.body),
    };
    let len = match length {
        BodyLength::Bytes(n) if at + n > text.len() => return Ok(Request::Needs(at + n)),
        BodyLength::Bytes(n) => at + n,
        BodyLength::Chunked => match http::find_chunked_end(&text[at..])? {
            None => return Ok(Request::Needs(text.len())),
            Some((raw, _)) => at + raw,
        },
    };
    // The head is parsed again once the body is in one piece, because joining needs it mutable.
    let (head, rest) = text.split_at_mut(at);
    let body = match length {
        BodyLength::Bytes(n) => &rest[..n],
        BodyLength::Chunked => http::join_chunks(rest)?,
    };
    match http::parse_head(head)? {
        Some(head) => Ok(Request::Complete { head, body, len }),
        None => Ok(Request::Needs(len)),
    }
}

/// Fills `out` with records: full ones, and a shorter one at the end of the message.
fn seal(sealer: &mut Sealer, reply: &mut Reply, out: &mut [u8]) -> usize {
    let mut written = 0;
    while reply.left() > 0 {
        let len = reply.left().min(MAX_TEXT);
        let Some(record) = out.get_mut(written..written + len + OVERHEAD) else { break };
        reply.take(&mut record[2..2 + len]);
        written += sealer.seal_in_place(record, len);
    }
    written
}
