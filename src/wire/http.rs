//! HTTP/1.1 as HAP speaks it (HAP R2 §6.2.3): request heads in, response and event heads out.
//!
//! Nothing here is generous with memory: a head is parsed where it lies, a chunked body is put
//! together in place.

use super::{Malformed, Writer};
use core::fmt::Write as _;

/// The longest request line that is taken: a read of more than 150 characteristics is normal.
pub const REQUEST_LINE_MAX: usize = 8 * 1024;
/// The longest header block that is taken, without the request line.
pub const HEADERS_MAX: usize = 8 * 1024;
/// The longest request body that is taken.
pub const BODY_MAX: usize = 64 * 1024;
/// The longest chunk header that is taken; extensions are legal, useless and bounded.
const CHUNK_LINE_MAX: usize = 128;
/// More header lines than any controller sends.
const HEADER_LINES_MAX: usize = 64;

/// Type of the JSON bodies of HAP.
pub const HAP_JSON: &str = "application/hap+json";
/// Type of the bodies of pair-setup, pair-verify and pairings.
pub const PAIRING_TLV8: &str = "application/pairing+tlv8";
/// Type of snapshots.
pub const JPEG: &str = "image/jpeg";

/// How long the body of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// `Content-Length`, zero when the head names none.
    Bytes(usize),
    /// `Transfer-Encoding: chunked`: see [`find_chunked_end`].
    Chunked,
}

/// The head of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head<'a> {
    /// The method, case-sensitive.
    pub method: &'a str,
    /// What stands before the `?` of the target.
    pub path: &'a str,
    /// What stands after it, empty without one.
    pub query: &'a str,
    /// How long the body is.
    pub body: BodyLength,
    /// Bytes up to the body.
    pub len: usize,
}

/// Why a request cannot be served; the connection is of no use afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// 400: not HTTP.
    Malformed(Malformed),
    /// 413: longer than the limits of this file.
    TooLarge,
}

impl From<Malformed> for Refusal {
    fn from(m: Malformed) -> Self {
        Refusal::Malformed(m)
    }
}

/// The head at the start of `bytes`; `None` when more is to come. Header names may have any case and
/// lines may end with a bare LF (RFC 9112 §2.2).
///
/// # Errors
/// When it is not HTTP/1.x, or longer than [`REQUEST_LINE_MAX`] or [`HEADERS_MAX`].
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    // The first line alone tells whether the rest is worth waiting for.
    let line = bytes.iter().take(REQUEST_LINE_MAX + 1).position(|&b| b == b'\n');
    if line.is_none() && bytes.len() > REQUEST_LINE_MAX {
        return Err(Refusal::TooLarge);
    }
    let mut lines = [httparse::EMPTY_HEADER; HEADER_LINES_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => {
            let headers = bytes.len() - line.map_or(bytes.len(), |at| at + 1);
            return if headers > HEADERS_MAX { Err(Refusal::TooLarge) } else { Ok(None) };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Malformed("not an HTTP/1.1 request").into()),
    };
    if len - line.map_or(0, |at| at + 1) > HEADERS_MAX {
        return Err(Refusal::TooLarge);
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Malformed("not an HTTP/1.1 request").into());
    };
    let body = body_length(request.headers)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Head { method, path, query, body, len }))
}

fn body_length(lines: &[httparse::Header<'_>]) -> Result<BodyLength, Refusal> {
    let mut length = None;
    let mut chunked = false;
    for line in lines {
        if line.name.eq_ignore_ascii_case("content-length") {
            let n = decimal(line.value.trim_ascii()).ok_or(Malformed("Content-Length is not a number"))?;
            if length.is_some_and(|other| other != n) {
                return Err(Malformed("two different Content-Length headers").into());
            }
            length = Some(n);
        } else if line.name.eq_ignore_ascii_case("transfer-encoding") {
            if !line.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("the only Transfer-Encoding taken is chunked").into());
            }
            chunked = true;
        }
    }
    match (chunked, length) {
        // Who sends both means to smuggle one request in another (RFC 9112 §6.3).
        (true, Some(_)) => Err(Malformed("both Content-Length and Transfer-Encoding").into()),
        (true, None) => Ok(BodyLength::Chunked),
        (false, Some(n)) if n > BODY_MAX as u64 => Err(Refusal::TooLarge),
        (false, n) => Ok(BodyLength::Bytes(n.unwrap_or(0) as usize)),
    }
}

/// Decimal digits and nothing else. Numbers that do not fit are as good as the largest that does.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

/// One chunk: where its bytes start and how many they are, counted from the start of `bytes`.
fn chunk(bytes: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
    let Some(end) = bytes.iter().take(CHUNK_LINE_MAX).position(|&b| b == b'\n') else {
        return if bytes.len() >= CHUNK_LINE_MAX { Err(Malformed("chunk header too long").into()) } else { Ok(None) };
    };
    let line = bytes[..end].split(|&b| b == b';').next().unwrap_or(&[]).trim_ascii();
    if line.is_empty() || line.len() > 8 {
        return Err(Malformed("chunk length is not a number").into());
    }
    let mut length = 0usize;
    for &b in line {
        let digit = char::from(b).to_digit(16).ok_or(Malformed("chunk length is not a number"))?;
        length = length << 4 | digit as usize;
        if length > BODY_MAX {
            return Err(Refusal::TooLarge);
        }
    }
    Ok(Some((end + 1, length)))
}

/// Length of the line end at the start of `bytes`: CRLF, or a bare LF.
fn line_end(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    match bytes {
        [b'\n', ..] => Ok(Some(1)),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [] | [b'\r'] => Ok(None),
        _ => Err(Malformed("no line end behind a chunk").into()),
    }
}

/// Where the chunked body at the start of `bytes` ends and how long it is without its framing; `None`
/// when more is to come. Trailers are skipped.
///
/// # Errors
/// When the framing is broken or the body is longer than [`BODY_MAX`].
pub fn find_chunked_end(bytes: &[u8]) -> Result<Option<(usize, usize)>, Refusal> {
    let (mut at, mut total) = (0, 0);
    loop {
        let Some((start, length)) = chunk(&bytes[at..])? else { return Ok(None) };
        at += start;
        total += length;
        if total > BODY_MAX {
            return Err(Refusal::TooLarge);
        }
        if length == 0 {
            break;
        }
        let Some(rest) = bytes.get(at + length..) else { return Ok(None) };
        let Some(end) = line_end(rest)? else { return Ok(None) };
        at += length + end;
    }
    // Trailers up to an empty line.
    let start = at;
    loop {
        let Some(end) = bytes[at..].iter().position(|&b| b == b'\n') else {
            return if bytes.len() - start > HEADERS_MAX { Err(Refusal::TooLarge) } else { Ok(None) };
        };
        let empty = bytes[at..at + end].trim_ascii().is_empty();
        at += end + 1;
        if empty {
            return Ok(Some((at, total)));
        }
    }
}

/// Moves the pieces of the chunked body at the start of `bytes` together; [`find_chunked_end`] must
/// have found it complete. Returns the body.
///
/// # Errors
/// As [`find_chunked_end`]; also when the body is not complete.
pub fn join_chunks(bytes: &mut [u8]) -> Result<&mut [u8], Refusal> {
    let (mut from, mut to) = (0, 0);
    loop {
        let (start, length) = chunk(&bytes[from..])?.ok_or(Malformed("chunked body not complete"))?;
        if length == 0 {
            return Ok(&mut bytes[..to]);
        }
        from += start;
        let rest = bytes.get(from + length..).ok_or(Malformed("chunked body not complete"))?;
        let end = line_end(rest)?.ok_or(Malformed("chunked body not complete"))?;
        bytes.copy_within(from..from + length, to);
        to += length;
        from += length + end;
    }
}

/// The query of `GET /characteristics` (HAP R2 §6.7.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CharacteristicsQuery<'a> {
    ids: &'a str,
    /// Format, unit and limits are asked for.
    pub meta: bool,
    /// The permissions are asked for.
    pub perms: bool,
    /// The type is asked for.
    pub kind: bool,
    /// Whether this connection is subscribed is asked for.
    pub ev: bool,
}

impl<'a> CharacteristicsQuery<'a> {
    /// Parses what stands behind the `?`. Unknown items are ignored.
    ///
    /// # Errors
    /// When `id` is missing or is not a list of `aid.iid`, or a flag is neither 0 nor 1.
    pub fn parse(query: &'a str) -> Result<Self, Malformed> {
        let mut parsed = CharacteristicsQuery { ids: "", meta: false, perms: false, kind: false, ev: false };
        for item in query.split('&') {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            match key {
                "id" => parsed.ids = value,
                "meta" => parsed.meta = flag(value)?,
                "perms" => parsed.perms = flag(value)?,
                "type" => parsed.kind = flag(value)?,
                "ev" => parsed.ev = flag(value)?,
                _ => {}
            }
        }
        for id in split_ids(parsed.ids) {
            aid_iid(id).ok_or(Malformed("id is not a list of aid.iid"))?;
        }
        Ok(parsed)
    }

    /// The pairs of aid and iid in the order asked.
    pub fn ids(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        split_ids(self.ids).filter_map(aid_iid)
    }
}

/// Splits at commas, also at percent-encoded ones.
fn split_ids(mut ids: &str) -> impl Iterator<Item = &str> {
    let mut done = false;
    core::iter::from_fn(move || {
        if done {
            return None;
        }
        let comma = ids.bytes().position(|b| b == b',' || b == b'%');
        let (id, rest) = match comma {
            Some(at) if ids.as_bytes()[at] == b',' => (&ids[..at], &ids[at + 1..]),
            Some(at) if ids[at..].get(..3).is_some_and(|code| code.eq_ignore_ascii_case("%2c")) => {
                (&ids[..at], &ids[at + 3..])
            }
            // Another escape stays in the piece, which is then no pair of numbers.
            _ => {
                done = true;
                (ids, "")
            }
        };
        ids = rest;
        Some(id)
    })
}

fn aid_iid(id: &str) -> Option<(u64, u64)> {
    let (aid, iid) = id.split_once('.')?;
    Some((decimal(aid.as_bytes())?, decimal(iid.as_bytes())?))
}

fn flag(value: &str) -> Result<bool, Malformed> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Malformed("flag is neither 0 nor 1")),
    }
}

/// The reason phrase of the statuses HAP uses (HAP R2 §6.7.1.4).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        207 => "Multi-Status",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        422 => "Unprocessable Entity",
        470 => "Connection Authorization Required",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// The head of a response. `body` is its type and length; without one there is no length either for
/// 204, and a length of zero for every other status.
pub fn put_response_head(w: &mut Writer<'_>, status: u16, body: Option<(&str, usize)>) {
    // Writer remembers an overflow by itself.
    let _ = write!(w, "HTTP/1.1 {status} {}\r\n", reason(status));
    match body {
        Some(body) => put_body_headers(w, body),
        None if status == 204 => {}
        None => w.bytes(b"Content-Length: 0\r\n"),
    }
    w.bytes(b"\r\n");
}

/// The head of an event message with a JSON body of `length` bytes (HAP R2 §6.8).
pub fn put_event_head(w: &mut Writer<'_>, length: usize) {
    w.bytes(b"EVENT/1.0 200 OK\r\n");
    put_body_headers(w, (HAP_JSON, length));
    w.bytes(b"\r\n");
}

fn put_body_headers(w: &mut Writer<'_>, (kind, length): (&str, usize)) {
    let _ = write!(w, "Content-Type: {kind}\r\nContent-Length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head<'_> {
        parse_head(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_get_with_a_query() {
        let text = "GET /characteristics?id=1.2 HTTP/1.1\r\nHost: x\r\n\r\nrest";
        let h = head(text);
        assert_eq!((h.method, h.path, h.query), ("GET", "/characteristics", "id=1.2"));
        assert_eq!(h.body, BodyLength::Bytes(0));
        assert_eq!(&text[h.len..], "rest");
    }

    #[test]
    fn names_of_any_case_and_bare_line_feeds() {
        let h = head("PUT /x HTTP/1.1\ncOnTeNt-LeNgTh: 12\n\n");
        assert_eq!(h.body, BodyLength::Bytes(12));
        assert_eq!(head("POST / HTTP/1.1\r\nTRANSFER-encoding: Chunked\r\n\r\n").body, BodyLength::Chunked);
    }

    #[test]
    fn every_cut_of_a_head_asks_for_more() {
        let text = "PUT /characteristics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(parse_head(&text.as_bytes()[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for text in [
            "\x16\x03\x01\x00\x00",
            "GET / HTTP/9.9\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert!(matches!(parse_head(text.as_bytes()), Err(Refusal::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn the_limits_hold() {
        let line = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(n));
        assert!(parse_head(line(REQUEST_LINE_MAX - 20).as_bytes()).unwrap().is_some());
        assert_eq!(parse_head(line(REQUEST_LINE_MAX).as_bytes()), Err(Refusal::TooLarge));
        assert_eq!(parse_head("a".repeat(REQUEST_LINE_MAX + 1).as_bytes()), Err(Refusal::TooLarge));

        let headers = |n: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(n));
        assert!(parse_head(headers(HEADERS_MAX - 20).as_bytes()).unwrap().is_some());
        assert_eq!(parse_head(headers(HEADERS_MAX).as_bytes()), Err(Refusal::TooLarge));
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(HEADERS_MAX));
        assert_eq!(parse_head(endless.as_bytes()), Err(Refusal::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADER_LINES_MAX + 1));
        assert_eq!(parse_head(many.as_bytes()), Err(Refusal::TooLarge));

        let body = |n: &str| format!("PUT / HTTP/1.1\r\nContent-Length: {n}\r\n\r\n");
        assert_eq!(head(&body("65536")).body, BodyLength::Bytes(BODY_MAX));
        assert_eq!(parse_head(body("65537").as_bytes()), Err(Refusal::TooLarge));
        assert_eq!(parse_head(body("99999999999999999999999").as_bytes()), Err(Refusal::TooLarge));
    }

    #[test]
    fn chunks_are_put_together() {
        let wire = b"4;name=value\r\nWiki\r\n5\npedia\n0\r\nTrailer: 1\r\n\r\nNEXT";
        let end = wire.len() - 4;
        assert_eq!(find_chunked_end(wire), Ok(Some((end, 9))));
        for cut in 0..end {
            assert_eq!(find_chunked_end(&wire[..cut]), Ok(None), "{cut}");
        }
        let mut copy = wire.to_vec();
        assert_eq!(join_chunks(&mut copy).unwrap(), b"Wikipedia");
        assert!(join_chunks(&mut wire[..10].to_vec()).is_err());
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in [&b"x\r\n"[..], b"\r\n", b"-1\r\n", b"1\r\nab\r\n", b"123456789\r\n", &[b'0'; 200]] {
            assert!(matches!(find_chunked_end(wire), Err(Refusal::Malformed(_))), "{wire:?}");
        }
        assert_eq!(find_chunked_end(b"fffff\r\n"), Err(Refusal::TooLarge));
        let mut two = Vec::new();
        for _ in 0..2 {
            two.extend_from_slice(b"ffff\r\n");
            two.extend(core::iter::repeat_n(b'a', 0xffff));
            two.extend_from_slice(b"\r\n");
        }
        assert_eq!(find_chunked_end(&two), Err(Refusal::TooLarge));
        let mut trailer = b"0\r\n".to_vec();
        trailer.extend([b'a'; HEADERS_MAX + 1]);
        assert_eq!(find_chunked_end(&trailer), Err(Refusal::TooLarge));
    }

    #[test]
    fn reads_ids_and_flags() {
        let q = CharacteristicsQuery::parse("meta=1&id=1.9,1.10%2C2.3%2c1.4&ev=true&perms=0&other=x").unwrap();
        assert!(q.ids().eq([(1, 9), (1, 10), (2, 3), (1, 4)]));
        assert_eq!((q.meta, q.perms, q.kind, q.ev), (true, false, false, true));
        assert!(CharacteristicsQuery::parse("type=1&id=1.1").unwrap().kind);
    }

    #[test]
    fn bad_queries_are_refused() {
        for query in [
            "",
            "id=",
            "id",
            "id=1",
            "id=1.",
            "id=.1",
            "id=1.2,",
            "id=,1.2",
            "id=1.-2",
            "id=1.2%2",
            "id=a.b",
            "id=1.2%2d1.3",
            "id=1.2&meta=2",
            "id=1.2&ev=",
            "meta=1",
            "id=1.2é",
        ] {
            assert!(CharacteristicsQuery::parse(query).is_err(), "{query:?}");
        }
    }

    #[test]
    fn heads_of_answers() {
        let text = |put: &dyn Fn(&mut Writer<'_>)| {
            let mut buf = [0; 200];
            let mut w = Writer::new(&mut buf);
            put(&mut w);
            String::from_utf8(w.finish().unwrap().to_vec()).unwrap()
        };
        assert_eq!(text(&|w| put_response_head(w, 204, None)), "HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(
            text(&|w| put_response_head(w, 405, None)),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            text(&|w| put_response_head(w, 470, Some((HAP_JSON, 17)))),
            "HTTP/1.1 470 Connection Authorization Required\r\nContent-Type: application/hap+json\r\nContent-Length: 17\r\n\r\n"
        );
        assert_eq!(
            text(&|w| put_event_head(w, 50)),
            "EVENT/1.0 200 OK\r\nContent-Type: application/hap+json\r\nContent-Length: 50\r\n\r\n"
        );
    }
}
