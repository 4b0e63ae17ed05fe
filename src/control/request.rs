//! One HTTP request of the control interface: bytes in, a [`Call`] or a [`Refusal`] out.

use crate::config::Level;
use crate::crypto::equal;
use crate::wire::json::Value;
use crate::wire::json::read::read_fields;

/// Largest request, head and body together.
pub const LARGEST: usize = 8 * 1024;
/// Longest clip in seconds.
pub const CLIP_S: u16 = 600;

/// What the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `GET /status`
    Status {
        /// For a person's eye instead of JSON: the client asked for `text/plain`.
        text: bool,
    },
    /// `POST /motion`
    MotionOn,
    /// `DELETE /motion`
    MotionOff,
    /// `POST /doorbell`
    Ring,
    /// `POST /privacy` and `DELETE /privacy`
    Privacy(bool),
    /// `GET /snapshot`
    Snapshot,
    /// `PUT /log`
    Log(Level),
    /// `GET /qr`
    Qr,
    /// `POST /identify`
    Identify,
    /// `GET /clip`
    Clip {
        /// How long, counted from where it begins.
        seconds: u16,
    },
    /// `POST /reset`
    Reset,
    /// `GET /events`
    Events {
        /// Begin with those that are still kept.
        history: bool,
    },
}

/// An HTTP status and a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status code.
    pub status: u16,
    /// What is wrong and what to do.
    pub text: String,
    /// Methods for the `Allow` field of a 405.
    pub allow: &'static str,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), allow: "" }
    }
}

/// Seconds of a clip when the client does not say.
const CLIP_DEFAULT_S: u16 = 10;

/// Reads the request that has arrived so far; `Ok(None)` when it is not complete yet. With `token` the
/// client has to present it (RFC 6750 §2.1).
///
/// # Errors
/// What to answer before the connection is closed.
pub fn parse(bytes: &[u8], token: Option<&[u8]>) -> Result<Option<Call>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; 48];
    let mut head = httparse::Request::new(&mut fields);
    let head_len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() >= LARGEST => return Err(too_large()),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "more than 48 header fields")),
        Err(_) => return Err(Refusal::new(400, "not an HTTP/1.1 request")),
    };
    let (method, target) = (head.method.unwrap_or(""), head.path.unwrap_or(""));
    let field = |name: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value.trim_ascii())
    };
    match token {
        Some(token) => authorise(field("Authorization"), token)?,
        // A browser on this machine would send any page's POST to the loopback address.
        None if field("Origin").is_some() => {
            return Err(Refusal::new(403, "a web page may not call this: set control.token and send it"));
        }
        None => {}
    }
    if field("Transfer-Encoding").is_some() {
        return Err(Refusal::new(411, "send the body with a Content-Length"));
    }
    let mut lengths = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("Content-Length"));
    let body_len = match (lengths.next(), lengths.next()) {
        (None, _) => 0,
        (Some(length), None) => number(length.value.trim_ascii())?,
        (Some(_), Some(_)) => return Err(Refusal::new(400, "two Content-Length fields")),
    };
    if body_len > LARGEST - head_len.min(LARGEST) {
        return Err(too_large());
    }
    let accepts_text = field("Accept").is_some_and(|value| value.starts_with(b"text/plain"));
    // Routed before the body is here: what nobody serves needs no body.
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let route = route(method, path)?;
    match bytes.get(head_len..head_len + body_len) {
        None => Ok(None),
        Some(body) => call(route, query, accepts_text, body).map(Some),
    }
}

fn too_large() -> Refusal {
    Refusal::new(413, "the request is longer than 8 KiB")
}

fn number(digits: &[u8]) -> Result<usize, Refusal> {
    let number = core::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).ok_or_else(|| Refusal::new(400, "Content-Length is not a number"))
}

fn authorise(presented: Option<&[u8]>, token: &[u8]) -> Result<(), Refusal> {
    let presented = presented.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest.trim_ascii_start())
    });
    match presented {
        Some(presented) if equal(presented, token) => Ok(()),
        _ => Err(Refusal::new(401, "send the field Authorization: Bearer with control.token")),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Status,
    MotionOn,
    MotionOff,
    Ring,
    Privacy(bool),
    Snapshot,
    Log,
    Qr,
    Identify,
    Clip,
    Reset,
    Events,
}

fn route(method: &str, path: &str) -> Result<Route, Refusal> {
    let (routes, allow): (&[(&str, Route)], &'static str) = match path {
        "/status" => (&[("GET", Route::Status)], "GET"),
        // The second names are what scripts written for go2rtc call.
        "/motion" | "/api/homekit/motion" => {
            (&[("POST", Route::MotionOn), ("DELETE", Route::MotionOff)], "POST, DELETE")
        }
        "/doorbell" | "/api/homekit/doorbell" => (&[("POST", Route::Ring)], "POST"),
        "/privacy" => (&[("POST", Route::Privacy(true)), ("DELETE", Route::Privacy(false))], "POST, DELETE"),
        "/snapshot" => (&[("GET", Route::Snapshot)], "GET"),
        "/log" => (&[("PUT", Route::Log)], "PUT"),
        "/qr" => (&[("GET", Route::Qr)], "GET"),
        "/identify" => (&[("POST", Route::Identify)], "POST"),
        "/clip" => (&[("GET", Route::Clip)], "GET"),
        "/reset" => (&[("POST", Route::Reset)], "POST"),
        "/events" => (&[("GET", Route::Events)], "GET"),
        _ => {
            let known = "/status /motion /doorbell /privacy /snapshot /log /qr /identify /clip /reset /events";
            return Err(Refusal::new(404, format!("no such path, known are {known}")));
        }
    };
    let found = routes.iter().find(|(name, _)| *name == method).map(|(_, route)| *route);
    found.ok_or_else(|| Refusal { status: 405, text: format!("this path takes {allow}"), allow })
}

fn call(route: Route, query: &str, accepts_text: bool, body: &[u8]) -> Result<Call, Refusal> {
    let parameter = |name: &str| {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    Ok(match route {
        Route::Status => Call::Status { text: accepts_text },
        Route::MotionOn => Call::MotionOn,
        Route::MotionOff => Call::MotionOff,
        Route::Ring => Call::Ring,
        Route::Privacy(on) => Call::Privacy(on),
        Route::Snapshot => Call::Snapshot,
        Route::Qr => Call::Qr,
        Route::Identify => Call::Identify,
        Route::Reset => Call::Reset,
        Route::Events => Call::Events { history: parameter("history").is_some_and(|value| value != "0") },
        Route::Clip => {
            let seconds = parameter("seconds").map_or(Some(CLIP_DEFAULT_S), |text| text.parse().ok());
            let seconds = seconds.filter(|seconds| (1..=CLIP_S).contains(seconds));
            let wrong = || Refusal::new(400, format!("seconds must be a number from 1 to {CLIP_S}"));
            Call::Clip { seconds: seconds.ok_or_else(wrong)? }
        }
        Route::Log => {
            let level = parameter("level").and_then(Level::named).or_else(|| level(body));
            let wrong = || Refusal::new(400, "send {\"level\": \"debug\"}, or off, error, warn, info, trace");
            Call::Log(level.ok_or_else(wrong)?)
        }
    })
}

/// `{"level": "debug"}`, or the bare word.
fn level(body: &[u8]) -> Option<Level> {
    let text = core::str::from_utf8(body).ok()?.trim();
    let mut level = Level::named(text);
    if level.is_none() {
        let named = |value: Value<'_>| value.text().and_then(Level::named).ok_or_else(|| "no level".into());
        read_fields(text.as_bytes(), &["level"], &mut |_, value| named(value).map(|named| level = Some(named))).ok()?;
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(request: &str) -> Result<Option<Call>, u16> {
        parse(request.as_bytes(), None).map_err(|refusal| refusal.status)
    }

    fn simple(line: &str) -> Result<Option<Call>, u16> {
        parsed(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    #[test]
    fn every_path_has_its_call() {
        for (line, call) in [
            ("GET /status", Call::Status { text: false }),
            ("GET /status?x=1&y", Call::Status { text: false }),
            ("POST /motion", Call::MotionOn),
            ("DELETE /motion", Call::MotionOff),
            ("POST /privacy", Call::Privacy(true)),
            ("DELETE /privacy", Call::Privacy(false)),
            ("POST /api/homekit/motion?id=front", Call::MotionOn),
            ("DELETE /api/homekit/motion", Call::MotionOff),
            ("POST /doorbell", Call::Ring),
            ("POST /api/homekit/doorbell?id=front", Call::Ring),
            ("GET /snapshot", Call::Snapshot),
            ("PUT /log?level=debug", Call::Log(Level(log::LevelFilter::Debug))),
            ("GET /qr", Call::Qr),
            ("POST /identify", Call::Identify),
            ("GET /clip", Call::Clip { seconds: 10 }),
            ("GET /clip?a=b&seconds=600", Call::Clip { seconds: 600 }),
            ("POST /reset", Call::Reset),
            ("GET /events", Call::Events { history: false }),
            ("GET /events?history=1", Call::Events { history: true }),
        ] {
            assert_eq!(simple(line), Ok(Some(call)), "{line}");
        }
        let text = "GET /status HTTP/1.1\r\naccept: text/plain\r\n\r\n";
        assert_eq!(parsed(text), Ok(Some(Call::Status { text: true })));
    }

    #[test]
    fn the_wrong_is_refused() {
        for (line, status) in [
            ("GET /", 404),
            ("GET /statusx", 404),
            ("POST /status", 405),
            ("GET /motion", 405),
            ("get /status", 405),
            ("PUT /log", 400),
            ("PUT /log?level=loud", 400),
            ("GET /clip?seconds=0", 400),
            ("GET /clip?seconds=601", 400),
            ("GET /clip?seconds=-1", 400),
            ("GET /clip?seconds=", 400),
            ("GET", 400),
        ] {
            assert_eq!(simple(line), Err(status), "{line}");
        }
        let refusal = parse(b"GET /motion HTTP/1.1\r\n\r\n", None).expect_err("405");
        assert_eq!(refusal.allow, "POST, DELETE");
        assert_eq!(parsed("\0\0\0\0 HTTP/9"), Err(400));
        assert_eq!(parsed("PUT /log HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Err(411));
        for length in ["-1", "+1", "x", "", "99999999999999999999999"] {
            assert_eq!(parsed(&format!("PUT /log HTTP/1.1\r\nContent-Length: {length}\r\n\r\n")), Err(400), "{length}");
        }
        let twice = "PUT /log HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\ndebug";
        assert_eq!(parsed(twice), Err(400));
        assert_eq!(parsed("PUT /log HTTP/1.1\r\nContent-Length: 8192\r\n\r\n"), Err(413));
        assert_eq!(parsed(&format!("GET /{}", "a".repeat(LARGEST))), Err(413));
        assert_eq!(parsed(&format!("GET /status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(49))), Err(431));
    }

    #[test]
    fn a_body_is_waited_for() {
        let whole = "PUT /log HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"level\": \"debug\"}";
        for cut in 0..whole.len() {
            assert_eq!(parsed(&whole[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(parsed(whole), Ok(Some(Call::Log(Level(log::LevelFilter::Debug)))));
        let word = "PUT /log HTTP/1.1\r\nContent-Length: 5\r\n\r\nwarn\n";
        assert_eq!(parsed(word), Ok(Some(Call::Log(Level(log::LevelFilter::Warn)))));
    }

    #[test]
    fn the_token_is_asked_for_before_anything_else() {
        let ask = |field: &str| {
            let request = format!("GET /nothing HTTP/1.1\r\n{field}\r\n\r\n");
            parse(request.as_bytes(), Some(b"opensesame")).map_err(|refusal| refusal.status)
        };
        for wrong in [
            "A: b",
            "Authorization: opensesame",
            "Authorization: Bearer",
            "Authorization: Bearer opensesam",
            "Authorization: Bearer opensesame1",
            "Authorization: Basic opensesame",
            "Authorization: Bearer opensesamE",
        ] {
            assert_eq!(ask(wrong), Err(401), "{wrong}");
        }
        assert_eq!(ask("authorization: bearer opensesame"), Err(404));
    }

    #[test]
    fn a_web_page_needs_the_token() {
        let request = b"POST /motion HTTP/1.1\r\nOrigin: http://evil\r\nAuthorization: Bearer opensesame\r\n\r\n";
        assert_eq!(parse(request, None).map_err(|refusal| refusal.status), Err(403));
        assert_eq!(parse(request, Some(b"opensesame")), Ok(Some(Call::MotionOn)));
    }

    #[test]
    fn any_bytes_are_answered() {
        // A small generator, so that a failure comes again.
        let mut state = 1u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let whole = b"PUT /log?level=x&seconds=1 HTTP/1.1\r\nContent-Length: 5\r\nAuthorization: Bearer x\r\n\r\ndebug";
        for _ in 0..20_000 {
            let mut bytes = whole.to_vec();
            for _ in 0..next() % 4 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(next() as usize % (whole.len() + 1));
            if let Err(refusal) = parse(&bytes, Some(b"x")) {
                assert!((400..500).contains(&refusal.status), "{refusal:?}");
            }
        }
    }
}
