//! A client of the control socket: one blocking HTTP/1.1 request a connection.

use super::Failure;
use crate::wire::json::read::read_fields;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The daemon behind a socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// `Accept` field.
    pub accept: &'a str,
    /// Body, empty for none.
    pub body: &'a str,
    /// How long the daemon may be silent; `None`: for ever.
    pub patience: Option<Duration>,
}

impl<'a> Request<'a> {
    /// A request without a body; the daemon itself gives up after 25 s.
    pub fn new(method: &'a str, target: &'a str) -> Self {
        Request { method, target, accept: "*/*", body: "", patience: Some(Duration::from_secs(30)) }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listens.
    NotRunning(Failure),
    /// Anything else.
    Failed(Failure),
}

impl From<NoAnswer> for Failure {
    fn from(reason: NoAnswer) -> Failure {
        match reason {
            NoAnswer::NotRunning(failure) | NoAnswer::Failed(failure) => failure,
        }
    }
}

impl Client {
    /// A client of the daemon at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Client { socket }
    }

    /// Sends the request and returns the body of a 200.
    ///
    /// # Errors
    /// Nobody listens, or the daemon refuses: then in its words.
    pub fn ask(&self, request: Request<'_>) -> std::result::Result<Body, NoAnswer> {
        let place = self.socket.display();
        let stream = UnixStream::connect(&self.socket).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => NoAnswer::NotRunning(Failure::run(format!(
                "no daemon answers at {place}: start hksvd, or name its socket with --socket"
            ))),
            ErrorKind::PermissionDenied => NoAnswer::Failed(Failure::run(format!(
                "{place} belongs to another user: try as the user that runs hksvd"
            ))),
            _ => NoAnswer::Failed(Failure::run(format!("{place}: {error}"))),
        })?;
        let failed = |error: Error| {
            NoAnswer::Failed(Failure::run(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("{place}: the daemon does not answer in time"),
                ErrorKind::UnexpectedEof => format!("{place}: the daemon hung up before it had answered"),
                _ => format!("{place}: {error}"),
            }))
        };
        let (status, mut body) = exchange(stream, request).map_err(failed)?;
        if status == 200 {
            return Ok(body);
        }
        let text = body.text(4_096).map_err(failed)?;
        Err(NoAnswer::Failed(Failure::run(refusal(status, &text))))
    }
}

fn refusal(status: u16, body: &str) -> String {
    let mut error = None;
    let read = read_fields(body.as_bytes(), &["error"], &mut |_, value| {
        error = value.text().map(String::from);
        Ok(())
    });
    match (read, error) {
        (Ok(()), Some(error)) => error,
        _ => format!("the daemon refuses with status {status}"),
    }
}

fn exchange(stream: UnixStream, request: Request<'_>) -> Result<(u16, Body)> {
    stream.set_read_timeout(request.patience)?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let Request { method, target, accept, body, .. } = request;
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: hksvd\r\nAccept: {accept}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    (&stream).write_all(text.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let before = head.len();
        reader.by_ref().take(8_192).read_until(b'\n', &mut head)?;
        if head.len() == before {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if head.len() > 8_192 {
            return Err(Error::new(ErrorKind::InvalidData, "this is not hksvd"));
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let strange = || Error::new(ErrorKind::InvalidData, "this is not hksvd");
    if !matches!(response.parse(&head), Ok(httparse::Status::Complete(_))) {
        return Err(strange());
    }
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| core::str::from_utf8(field.value).ok())
    };
    let left = match field("Transfer-Encoding") {
        Some("chunked") => Left::Chunk(None),
        Some(_) => return Err(strange()),
        None => Left::Bytes(field("Content-Length").and_then(|text| text.parse().ok()).ok_or_else(strange)?),
    };
    Ok((response.code.ok_or_else(strange)?, Body { reader, left }))
}

/// The body of an answer. A body that breaks off is an error, never an end.
#[derive(Debug)]
pub struct Body {
    reader: BufReader<UnixStream>,
    left: Left,
}

#[derive(Debug)]
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of this chunk; `None` before the first. RFC 9112 §7.1
    Chunk(Option<u64>),
    End,
}

impl Body {
    /// What is left of it, at most so many bytes.
    ///
    /// # Errors
    /// When it breaks off, or is no text.
    pub fn text(&mut self, at_most: usize) -> Result<String> {
        let (mut text, mut buffer) = (Vec::new(), [0; 1_024]);
        loop {
            let room = buffer.len().min(at_most - text.len());
            match self.read(&mut buffer[..room]) {
                Ok(0) => return String::from_utf8(text).map_err(|_| ErrorKind::InvalidData.into()),
                Ok(read) => text.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.reader.by_ref().take(64).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.into()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        loop {
            let left = match &mut self.left {
                Left::End | Left::Bytes(0) => return Ok(0),
                Left::Bytes(left) | Left::Chunk(Some(left @ 1..)) => left,
                Left::Chunk(chunk) => {
                    let first = chunk.is_none();
                    if !first && !self.line()?.is_empty() {
                        return Err(ErrorKind::InvalidData.into());
                    }
                    let size = u64::from_str_radix(&self.line()?, 16).map_err(|_| ErrorKind::InvalidData)?;
                    self.left = match size {
                        0 => Left::End,
                        size => Left::Chunk(Some(size)),
                    };
                    continue;
                }
            };
            let most = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
            let read = self.reader.read(&mut out[..most])?;
            if read == 0 && most > 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            *left -= read as u64;
            return Ok(read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A server that says `answer` to whatever is asked.
    fn ask(name: &str, answer: &'static str) -> std::result::Result<Result<String>, String> {
        let path = std::env::temp_dir().join(format!("hksvd-client-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = [0; 512];
            let len = stream.read(&mut request).expect("request");
            stream.write_all(answer.as_bytes()).expect("sent");
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        let answer = Client::new(path.clone()).ask(Request::new("GET", "/status"));
        let answer = answer.map_err(|reason| Failure::from(reason).text).map(|mut body| body.text(2_000));
        let request = server.join().expect("server");
        assert!(request.starts_with("GET /status HTTP/1.1\r\nHost: hksvd\r\n"), "{request}");
        std::fs::remove_file(&path).expect("removed");
        answer
    }

    #[test]
    fn a_text_is_cut_and_is_utf_8() {
        let long: &str = format!("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n{}", "a".repeat(3_000)).leak();
        assert_eq!(ask("2000", long).expect("200").expect("cut"), "a".repeat(2_000));
        let half: &str = format!("HTTP/1.1 200 OK\r\nContent-Length: 2001\r\n\r\n{}é", "a".repeat(1_999)).leak();
        assert_eq!(ask("torn", half).expect("200").expect_err("half of a character").kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn whole_answers() {
        let fixed = ask("fixed", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
        assert_eq!(fixed.expect("200").expect("whole"), "abc");
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(ask("chunked", chunked).expect("200").expect("whole"), "abc0123456789");
        let empty = ask("empty", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert_eq!(empty.expect("200").expect("whole"), "");
    }

    #[test]
    fn a_body_that_breaks_off_is_an_error() {
        for (name, answer) in [
            ("short", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc"),
            ("open", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n"),
            ("cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0004\r\nabc"),
            ("bad", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
            ("glued", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"),
        ] {
            assert!(ask(name, answer).expect("200").is_err(), "{name}");
        }
    }

    #[test]
    fn refusals_are_passed_on() {
        let said = ask("said", "HTTP/1.1 409 Conflict\r\nContent-Length: 19\r\n\r\n{\"error\":\"not now\"}");
        assert_eq!(said.expect_err("409"), "hksvd: not now");
        let unsaid = ask("unsaid", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(unsaid.expect_err("500"), "hksvd: the daemon refuses with status 500");
        for (name, strange) in [("ssh", "SSH-2.0\r\n\r\n"), ("silence", ""), ("half", "HTTP/1.1 200 OK\r\n")] {
            assert!(ask(name, strange).is_err(), "{name}");
        }
        let nobody = Client::new("/no/such/socket".into()).ask(Request::new("GET", "/"));
        assert!(matches!(nobody, Err(NoAnswer::NotRunning(_))));
    }
}
