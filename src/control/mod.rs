//! The control interface: HTTP/1.1 with JSON on a Unix socket and, when configured, on TCP.
//!
//! [`request`] reads what a client wants, [`server`] moves the bytes, [`Daemon`] does it.

pub mod events;
pub mod qr;
pub mod request;
pub mod server;
pub mod socket;
pub mod status;

use crate::io::runtime::Signal;
use crate::time::Instant;
use crate::wire::json::Quoted;
use crate::wire::json::read::read_fields;
pub use request::Call;
pub use status::Status;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// What the server needs of the daemon.
pub trait Daemon {
    /// The figures of now.
    fn status(&self) -> Status;
    /// Does what is asked. [`Call::Status`] and [`Call::Log`] never get here.
    fn call(&self, call: Call) -> Answer;
}

/// The daemon's answer.
pub enum Answer {
    /// Done; nothing more to say.
    Done,
    /// A JSON document.
    Json(Vec<u8>),
    /// A picture.
    Jpeg(Rc<[u8]>),
    /// Not done: an HTTP status and a sentence for a person.
    Refused(u16, String),
    /// Not done yet: the client waits for it.
    Later(Pin<Box<dyn Future<Output = Answer>>>),
    /// A body that comes bit by bit.
    Stream(Media, Box<dyn Chunks>),
}

/// What a stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// One JSON object a line.
    Lines,
    /// Fragmented MP4.
    Mp4,
}

/// The producer of a streamed body. Dropped when the client goes away.
pub trait Chunks {
    /// Puts some bytes at the start of `out`.
    fn poll(&mut self, now: Instant, out: &mut [u8]) -> Chunk;
    /// Moves when a [`Chunk::Wait`] is worth another look.
    fn signal(&self) -> &Signal;
}

/// What a producer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// So many bytes, at least one.
    Some(usize),
    /// Nothing yet; look again when the signal moves, at the latest at this moment.
    Wait(Option<Instant>),
    /// That was all.
    End,
    /// It broke off: the client must not take what it has for the whole.
    Failed,
}

/// The body of `GET /qr`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Qr {
    /// `X-HM://…`
    pub setup_uri: String,
    /// `XXX-XX-XXX`
    pub setup_code: String,
    /// Whether somebody has paired: then the code is of no use until a reset.
    pub paired: bool,
}

impl Qr {
    /// The body.
    pub fn json(&self) -> String {
        let Qr { setup_uri, setup_code, paired } = self;
        format!("{{\"setup_uri\":{},\"setup_code\":{},\"paired\":{paired}}}", Quoted(setup_uri), Quoted(setup_code))
    }

    /// Reads the body; `None` when it is another one.
    pub fn parse(body: &str) -> Option<Self> {
        let mut qr = Qr::default();
        let read = read_fields(body.as_bytes(), &["setup_uri", "setup_code", "paired"], &mut |name, value| {
            let text = || value.text().map(String::from).ok_or_else(|| String::from("not a text"));
            match name {
                "setup_uri" => qr.setup_uri = text()?,
                "setup_code" => qr.setup_code = text()?,
                _ => qr.paired = value.truth() == Some(true),
            }
            Ok(())
        });
        (read.is_ok() && !qr.setup_uri.is_empty() && !qr.setup_code.is_empty()).then_some(qr)
    }
}
