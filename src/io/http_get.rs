//! One request to a server on this machine, and its answer.

use super::runtime::Fd;
use crate::config::Loopback;
use crate::sys::connect;
use crate::wire::base64;
use crate::wire::http_answer::{self, NoBody};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// Nobody listens, or the connection breaks.
    Unreachable(io::Error),
    /// The answer is not the file.
    Refused(NoBody),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Unreachable(error) => write!(f, "no answer: {error}"),
            Failed::Refused(why) => why.fmt(f),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Unreachable(error)
    }
}

/// Finds the body in what has come; `true`: nothing more will come. As [`http_answer::body`].
pub type FindBody = fn(&mut [u8], bool, usize) -> Result<Option<Range<usize>>, NoBody>;

/// Gets a file of at most `most` bytes (RFC 9110 §9.3.1), with Basic authentication (RFC 7617) when the
/// address has a login. There is no limit of time: drop it.
///
/// # Errors
/// [`Failed`].
pub async fn get(at: Loopback<'_>, most: usize) -> Result<Vec<u8>, Failed> {
    let mut login = String::new();
    if let Some(text) = at.login {
        let mut encoded = vec![0; base64::length(text.len())];
        base64::encode(text.as_bytes(), &mut encoded);
        login = format!("Authorization: Basic {}\r\n", String::from_utf8_lossy(&encoded));
    }
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{login}Accept: image/jpeg\r\nConnection: close\r\n\r\n",
        at.target, at.port
    );
    ask(connect::loopback(at.port)?, request.as_bytes(), false, http_answer::body, most).await
}

/// Sends a request over a connection that has been begun, and takes the body of the answer. With `end` the
/// request ends as the connection does in that direction: there are servers that wait for it, and others
/// that take it for somebody who has gone.
///
/// # Errors
/// [`Failed`].
pub async fn ask(
    connection: File,
    mut request: &[u8],
    end: bool,
    find: FindBody,
    most: usize,
) -> Result<Vec<u8>, Failed> {
    /// Read at a time; what comes with a body of the largest size besides is a head.
    const ROOM: usize = 16 * 1024;
    let stream = Fd::new(connection)?;
    stream.when_writable(|io| connect::finished(io.as_fd())).await?;
    while !request.is_empty() {
        let sent = stream.write(request).await?;
        request = request.get(sent..).unwrap_or_default();
    }
    if end {
        connect::end_request(stream.get().as_fd());
    }
    let mut answer = Vec::new();
    loop {
        let len = answer.len();
        answer.resize(len + ROOM, 0);
        let room = &mut answer[len..];
        let read = stream.when_readable(|mut io| io.read(room)).await?;
        answer.truncate(len + read);
        if let Some(body) = find(&mut answer, read == 0, most).map_err(Failed::Refused)? {
            answer.truncate(body.end);
            answer.drain(..body.start);
            return Ok(answer);
        }
        // Chunks of one byte each would make it grow without a body that does.
        if answer.len() > 2 * most + ROOM {
            return Err(Failed::Refused(NoBody::TooLarge));
        }
    }
}
