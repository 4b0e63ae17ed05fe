//! A message on its way to the controller: a response or an event.

use super::types::Status;
use crate::wire::Writer;
use crate::wire::http;
use core::fmt::Write as _;
use std::rc::Rc;

/// The longest body that is built in memory; what would be longer is answered with 503.
pub const BODY_MAX: usize = 32 * 1024;
/// The longest head.
const HEAD_MAX: usize = 160;

/// A message, and how much of it was taken.
#[derive(Debug)]
pub struct Reply {
    head: heapless::Vec<u8, HEAD_MAX>,
    body: Body,
    taken: usize,
}

#[derive(Debug)]
enum Body {
    None,
    Owned(Vec<u8>),
    Shared(Rc<[u8]>),
}

impl Reply {
    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        Reply { head: head(|w| http::put_response_head(w, status, None)), body: Body::None, taken: 0 }
    }

    /// A response that is nothing but a status: `{"status":-70410}`.
    pub fn status(http: u16, status: Status) -> Self {
        Self::json(http, 32, |w| {
            let _ = write!(w, "{{\"status\":{}}}", status.code());
        })
    }

    /// A response with a JSON body of up to `room` bytes.
    pub fn json(status: u16, room: usize, put: impl FnOnce(&mut Writer<'_>)) -> Self {
        Self::response(status, http::HAP_JSON, room, put)
    }

    /// A response with a TLV8 body.
    pub fn tlv8(body: &[u8]) -> Self {
        Self::response(200, http::PAIRING_TLV8, body.len(), |w| w.bytes(body))
    }

    /// A picture. It is not copied.
    pub fn jpeg(picture: Rc<[u8]>) -> Self {
        let head = head(|w| http::put_response_head(w, 200, Some((http::JPEG, picture.len()))));
        Reply { head, body: Body::Shared(picture), taken: 0 }
    }

    /// An event message; `None` when its body does not fit `room` bytes.
    pub fn event(room: usize, put: impl FnOnce(&mut Writer<'_>)) -> Option<Self> {
        let body = build(room, put)?;
        Some(Reply { head: head(|w| http::put_event_head(w, body.len())), body: Body::Owned(body), taken: 0 })
    }

    fn response(status: u16, kind: &str, room: usize, put: impl FnOnce(&mut Writer<'_>)) -> Self {
        match build(room, put) {
            Some(body) => {
                let head = head(|w| http::put_response_head(w, status, Some((kind, body.len()))));
                Reply { head, body: Body::Owned(body), taken: 0 }
            }
            None => Self::status(503, Status::OutOfResources),
        }
    }

    fn body(&self) -> &[u8] {
        match &self.body {
            Body::None => &[],
            Body::Owned(body) => body,
            Body::Shared(body) => body,
        }
    }

    /// Bytes that were not taken yet.
    pub fn left(&self) -> usize {
        self.head.len() + self.body().len() - self.taken
    }

    /// Copies the next bytes to `out`, as many as there are or as fit, and counts them as taken.
    pub fn take(&mut self, out: &mut [u8]) -> usize {
        let mut copied = 0;
        for (part, start) in [(&self.head[..], 0), (self.body(), self.head.len())] {
            let from = (self.taken + copied).saturating_sub(start).min(part.len());
            let n = (part.len() - from).min(out.len() - copied);
            out[copied..copied + n].copy_from_slice(&part[from..from + n]);
            copied += n;
        }
        self.taken += copied;
        copied
    }
}

fn head(put: impl FnOnce(&mut Writer<'_>)) -> heapless::Vec<u8, HEAD_MAX> {
    let mut buf = [0; HEAD_MAX];
    let mut w = Writer::new(&mut buf);
    put(&mut w);
    debug_assert!(!w.is_full());
    heapless::Vec::from_slice(w.written()).unwrap_or_default()
}

/// The body that `put` writes; `None` when it does not fit.
fn build(room: usize, put: impl FnOnce(&mut Writer<'_>)) -> Option<Vec<u8>> {
    let mut buf = vec![0; room.min(BODY_MAX)];
    let mut w = Writer::new(&mut buf);
    put(&mut w);
    let written = w.finish().ok()?.len();
    buf.truncate(written);
    buf.shrink_to_fit();
    Some(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mut reply: Reply, step: usize) -> String {
        let mut out = Vec::new();
        let mut buf = vec![0; step];
        while reply.left() > 0 {
            let n = reply.take(&mut buf);
            out.extend_from_slice(&buf[..n]);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn is_taken_in_pieces_of_any_size() {
        let whole = "HTTP/1.1 470 Connection Authorization Required\r\nContent-Type: application/hap+json\r\n\
            Content-Length: 17\r\n\r\n{\"status\":-70401}";
        for step in [1, 7, 100, 1000] {
            assert_eq!(text(Reply::status(470, Status::InsufficientPrivileges), step), whole);
        }
        assert_eq!(text(Reply::empty(204), 5), "HTTP/1.1 204 No Content\r\n\r\n");
        assert!(text(Reply::jpeg(Rc::from(*b"JPEG")), 9).ends_with("image/jpeg\r\nContent-Length: 4\r\n\r\nJPEG"));
        assert!(text(Reply::tlv8(&[6, 1, 4]), 9).ends_with("pairing+tlv8\r\nContent-Length: 3\r\n\r\n\u{6}\u{1}\u{4}"));
    }

    #[test]
    fn what_does_not_fit_is_503() {
        let reply = Reply::json(200, usize::MAX, |w| (0..BODY_MAX + 1).for_each(|_| w.u8(b'a')));
        let text = text(reply, 500);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(text.ends_with("{\"status\":-70407}"));
        assert!(Reply::event(3, |w| w.bytes(b"1234")).is_none());
    }
}
