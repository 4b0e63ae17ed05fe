//! Answers of HTTP servers (RFC 9112), as far as a client needs them that asks for one file.

use super::Malformed;
use core::fmt;
use core::ops::Range;

/// A head longer than this comes from no camera.
const HEAD_MAX: usize = 8 * 1024;

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoBody {
    /// The server has answered with another status than 200.
    Status(u16),
    /// The body is longer than asked for.
    TooLarge,
    /// This is not HTTP, or breaks off.
    Malformed(Malformed),
}

impl fmt::Display for NoBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoBody::Status(status @ (401 | 403)) => write!(f, "the server answers {status}: it wants a login"),
            NoBody::Status(status) => write!(f, "the server answers {status}"),
            NoBody::TooLarge => f.write_str("the answer is too large"),
            NoBody::Malformed(Malformed(what)) => write!(f, "the answer is not HTTP: {what}"),
        }
    }
}

impl From<Malformed> for NoBody {
    fn from(malformed: Malformed) -> Self {
        NoBody::Malformed(malformed)
    }
}

/// How the length of a body is told (RFC 9112 §6.3).
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

/// Finds the body in what has come so far, of at most `most` bytes; `None` when more is to come. With
/// `closed` nothing more will. The pieces of a chunked body are moved together, so that a complete answer
/// must not be looked at again.
///
/// # Errors
/// [`NoBody`].
pub fn body(bytes: &mut [u8], closed: bool, most: usize) -> Result<Option<Range<usize>>, NoBody> {
    let early = Malformed("it ends before its end");
    let searched = &bytes[..bytes.len().min(HEAD_MAX)];
    let Some(head_bytes) = searched.windows(4).position(|four| four == b"\r\n\r\n") else {
        return match (closed, bytes.len() < HEAD_MAX) {
            (false, true) => Ok(None),
            (true, true) => Err(early.into()),
            (_, false) => Err(Malformed("its head has no end").into()),
        };
    };
    let length = length(&bytes[..head_bytes])?;
    let start = head_bytes + 4;
    let there = bytes.len() - start;
    match length {
        Length::Known(length) if length > most => Err(NoBody::TooLarge),
        Length::Known(length) if length <= there => Ok(Some(start..start + length)),
        Length::UntilClose if there > most => Err(NoBody::TooLarge),
        Length::UntilClose if closed => Ok(Some(start..bytes.len())),
        Length::Chunked => match find_end(&bytes[start..], most)? {
            None if closed => Err(early.into()),
            None => Ok(None),
            Some(length) => {
                join(&mut bytes[start..]);
                Ok(Some(start..start + length))
            }
        },
        Length::Known(_) if closed => Err(early.into()),
        Length::Known(_) | Length::UntilClose => Ok(None),
    }
}

fn length(head: &[u8]) -> Result<Length, NoBody> {
    let mut lines = head.split(|&b| b == b'\n');
    let status = lines.next().unwrap_or_default();
    let code = status.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..5)).and_then(|code| match code {
        [b' ', digits @ ..] => number(digits, 10),
        _ => None,
    });
    match code {
        Some(200) => {}
        // Three digits.
        Some(other) => return Err(NoBody::Status(other as u16)),
        None => return Err(Malformed("no status").into()),
    }
    let mut length = Length::UntilClose;
    for line in lines {
        let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"Transfer-Encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("an unknown transfer encoding").into());
            }
            length = Length::Chunked;
        } else if name.eq_ignore_ascii_case(b"Content-Length") && !matches!(length, Length::Chunked) {
            length = Length::Known(number(value, 10).ok_or(Malformed("a length that is no number"))?);
        }
    }
    Ok(length)
}

/// A number; one that is too large is the largest.
fn number(digits: &[u8], base: u32) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    let digit = |b: &u8| char::from(*b).to_digit(base);
    digits.iter().try_fold(0, |n: usize, b| Some(n.saturating_mul(base as usize).saturating_add(digit(b)? as usize)))
}

/// One chunk (RFC 9112 §7.1): where it starts and how long it is; `None` when its line is not complete.
fn chunk(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    const LINE_MAX: usize = 256;
    let Some(end) = bytes.iter().take(LINE_MAX).position(|&b| b == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(Malformed("a chunk without its length")) };
    };
    let digits = bytes[..end].split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    Ok(Some((end + 1, number(digits, 16).ok_or(Malformed("a chunk without its length"))?)))
}

/// The length of a chunked body without its framing, when it is complete. Trailers are not waited for.
fn find_end(bytes: &[u8], most: usize) -> Result<Option<usize>, NoBody> {
    let (mut at, mut total) = (0, 0);
    while let Some((start, length)) = chunk(&bytes[at..])? {
        if length == 0 {
            return Ok(Some(total));
        }
        if length > most - total {
            return Err(NoBody::TooLarge);
        }
        total += length;
        at += start + length;
        match bytes.get(at..at + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(Malformed("a chunk of another length").into()),
        }
    }
    Ok(None)
}

/// Moves the chunks together, which [`find_end`] has found complete.
fn join(bytes: &mut [u8]) {
    let (mut at, mut to) = (0, 0);
    while let Ok(Some((start, length @ 1..))) = chunk(&bytes[at..]) {
        bytes.copy_within(at + start..at + start + length, to);
        to += length;
        at += start + length + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &[u8], closed: bool) -> Result<Option<Vec<u8>>, NoBody> {
        let mut bytes = answer.to_vec();
        body(&mut bytes, closed, 16).map(|range| range.map(|range| bytes[range].to_vec()))
    }

    fn with(fields: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nServer: x\r\n{fields}\r\n{body}").into_bytes()
    }

    const CHUNKS: &str = "3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n";

    #[test]
    fn three_ways_to_tell_a_length() {
        let known = with("content-LENGTH: 3\r\n", "abcd");
        assert_eq!(read(&known, false), Ok(Some(b"abc".to_vec())));
        let chunked = with("Transfer-Encoding: Chunked\r\n", CHUNKS);
        assert_eq!(read(&chunked, false), Ok(Some(b"abc0123456789".to_vec())));
        let open = with("", "abc");
        assert_eq!((read(&open, false), read(&open, true)), (Ok(None), Ok(Some(b"abc".to_vec()))));
        let both = with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", CHUNKS);
        assert_eq!(read(&both, false), Ok(Some(b"abc0123456789".to_vec())));
        assert_eq!(read(b"HTTP/1.0 200\r\n\r\nx", true), Ok(Some(b"x".to_vec())));
    }

    #[test]
    fn an_answer_in_pieces_is_waited_for_and_one_that_ends_early_is_refused() {
        for (whole, end) in [
            (with("Content-Length: 3\r\n", "abc"), 0),
            // The empty line behind the last chunk is not waited for.
            (with("Transfer-Encoding: chunked\r\n", CHUNKS), 2),
        ] {
            for cut in 0..whole.len() - end {
                assert_eq!(read(&whole[..cut], false), Ok(None), "{cut}");
                assert!(matches!(read(&whole[..cut], true), Err(NoBody::Malformed(_))), "{cut}");
            }
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_comes() {
        for answer in [
            with("Content-Length: 17\r\n", ""),
            with("Content-Length: 99999999999999999999999\r\n", ""),
            with("Transfer-Encoding: chunked\r\n", "11\r\n"),
            with("Transfer-Encoding: chunked\r\n", "ffffffffffffffffffffffff\r\n"),
            with("Transfer-Encoding: chunked\r\n", "8\r\n01234567\r\n9\r\n"),
            with("", "01234567890123456"),
        ] {
            assert_eq!(read(&answer, false), Err(NoBody::TooLarge), "{}", String::from_utf8_lossy(&answer));
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(read(b"HTTP/1.1 404 Not Found\r\n\r\n", false), Err(NoBody::Status(404)));
        for bad in [
            &b"SSH-2.0-dropbear\r\n\r\n"[..],
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 2x0\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"\r\n\r\n",
            &with("Content-Length: -1\r\n", ""),
            &with("Content-Length:\r\n", ""),
            &with("Content-Length: 1 000\r\n", ""),
            &with("Transfer-Encoding: gzip\r\n", ""),
            &with("Transfer-Encoding: chunked\r\n", "\r\n"),
            &with("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n"),
            &with("Transfer-Encoding: chunked\r\n", &"1".repeat(300)),
            &[b'x'; HEAD_MAX],
        ] {
            assert!(matches!(read(bad, false), Err(NoBody::Malformed(_))), "{}", String::from_utf8_lossy(bad));
        }
    }
}
