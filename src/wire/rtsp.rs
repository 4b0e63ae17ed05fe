//! RTSP messages (RFC 2326) as a client reads them, with the media that come on the same connection
//! (§10.12).

use super::Malformed;

/// The longest head that is waited for.
const HEAD_MAX: usize = 8 * 1024;

/// The longest body that is waited for: descriptions have a few hundred bytes.
const BODY_MAX: usize = 32 * 1024;

/// The longest thing that [`Frame::parse`] waits for, bytes: a client's buffer must hold it.
pub const FRAME_MAX: usize = 4 + 0xffff;

const _: () = assert!(HEAD_MAX + BODY_MAX <= FRAME_MAX);

/// What a server sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// RTP or RTCP (§10.12).
    Interleaved {
        /// As agreed on in the answer to SETUP.
        channel: u8,
        /// One packet.
        packet: &'a [u8],
    },
    /// The answer to a request.
    Response {
        /// Three digits, 200 when all is well.
        status: u16,
        /// Its fields.
        head: Head<'a>,
        /// The description, or nothing.
        body: &'a [u8],
    },
    /// The server wants something itself.
    Request {
        /// Its fields.
        head: Head<'a>,
    },
}

impl Frame<'_> {
    /// Reads what stands at the front of `bytes`, and how many of them it takes; `None`: it is not complete.
    ///
    /// # Errors
    /// Neither RTSP nor `$`, a length that is no number, or a head or body that is too long.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
        // Some servers put an empty line behind a body.
        let empty = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let rest = bytes.get(empty..).unwrap_or_default();
        if rest.first() == Some(&b'$') {
            let Some(&[_, channel, high, low]) = rest.first_chunk::<4>() else { return Ok(None) };
            let end = 4 + usize::from(u16::from_be_bytes([high, low]));
            return Ok(rest.get(4..end).map(|packet| (Frame::Interleaved { channel, packet }, empty + end)));
        }
        // What can still become a message is waited for.
        if rest.first().is_some_and(|b| !b.is_ascii_uppercase()) || empty > HEAD_MAX {
            return Err(Malformed("neither RTSP nor media"));
        }
        let searched = &rest[..rest.len().min(HEAD_MAX)];
        // Who speaks something else may never send an empty line.
        let line = searched.split(|&b| b == b'\r').next().unwrap_or_default();
        let response = line.strip_prefix(b"RTSP/1.0 ");
        if response.is_none() && line.len() < searched.len() && !line.ends_with(b" RTSP/1.0") {
            return Err(Malformed("neither RTSP nor media"));
        }
        let Some(end) = searched.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if searched.len() < HEAD_MAX { Ok(None) } else { Err(Malformed("a head without end")) };
        };
        let head = Head(rest[..end].get(line.len()..).unwrap_or_default());
        let length = match head.field("Content-Length") {
            None => 0,
            Some(text) => text.parse().map_err(|_| Malformed("a length that is no number"))?,
        };
        if length > BODY_MAX {
            return Err(Malformed("a body that is too long"));
        }
        let Some(body) = rest.get(end + 4..end + 4 + length) else { return Ok(None) };
        let taken = empty + end + 4 + length;
        if let Some(status) = response {
            let digits = status.get(..3).and_then(|digits| core::str::from_utf8(digits).ok());
            let status = digits.and_then(|d| d.parse().ok()).ok_or(Malformed("no status"))?;
            return Ok(Some((Frame::Response { status, head, body }, taken)));
        }
        Ok(Some((Frame::Request { head }, taken)))
    }
}

/// The fields of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    /// The values of all fields of that name, as far as they are text.
    pub fn fields(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.split(|&b| b == b'\n').filter_map(move |line| {
            let (field, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?.trim_ascii();
            if field.eq_ignore_ascii_case(name.as_bytes()) { core::str::from_utf8(value).ok() } else { None }
        })
    }

    /// The value of the first field of that name.
    pub fn field(self, name: &str) -> Option<&'a str> {
        self.fields(name).next()
    }
}

/// The value of a parameter in `a=b;c=d` (§12.37, §12.39).
pub fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// The value of a parameter in a challenge, `Digest realm="a, b", stale=true` (RFC 2617 §3.2.1). A
/// backslash within quotes stays what it is.
pub fn challenge_parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = challenge.split_once(' ')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, more) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if key.trim_start_matches([',', ' ', '\t']).trim_end().eq_ignore_ascii_case(name) {
            return Some(value.trim());
        }
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\ncontent-length: 3\r\nPublic: A\r\npublic:  B \r\n\r\nv=0";

    #[test]
    fn answers_requests_and_media() {
        let stream = [ANSWER, b"\r\n$\x01\0\x02ab", b"$\0\0\0", b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n"].concat();
        let (frame, first) = Frame::parse(&stream).unwrap().unwrap();
        let Frame::Response { status, head, body } = frame else { panic!("{frame:?}") };
        assert_eq!((status, body, first), (200, &b"v=0"[..], ANSWER.len()));
        assert_eq!((head.field("cseq"), head.field("CSe"), head.field("Session")), (Some("2"), None, None));
        assert_eq!(head.fields("Public").collect::<Vec<_>>(), ["A", "B"]);
        let (frame, taken) = Frame::parse(&stream[first..]).unwrap().unwrap();
        assert_eq!((frame, taken), (Frame::Interleaved { channel: 1, packet: b"ab" }, 8));
        let (frame, taken) = Frame::parse(&stream[first + 8..]).unwrap().unwrap();
        assert_eq!((frame, taken), (Frame::Interleaved { channel: 0, packet: b"" }, 4));
        let (frame, taken) = Frame::parse(&stream[first + 12..]).unwrap().unwrap();
        let Frame::Request { head } = frame else { panic!("{frame:?}") };
        assert_eq!((head.field("CSeq"), first + 12 + taken), (Some("9"), stream.len()));
    }

    #[test]
    fn what_is_cut_anywhere_is_waited_for() {
        for whole in [ANSWER, b"$\x01\0\x03abc", b"\r\nANNOUNCE rtsp://h RTSP/1.0\r\n\r\n"] {
            for cut in 0..whole.len() {
                assert_eq!(Frame::parse(&whole[..cut]), Ok(None), "{cut}");
            }
            assert_eq!(Frame::parse(whole).unwrap().unwrap().1, whole.len());
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            &b"\x80\x60\0\x01"[..],
            b"http/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"SSH-2.0-dropbear\r\n",
            b"RTSP/2.0 200 OK\r\n\r\n",
            b"RTSP/1.0 2\r\n\r\n",
            b"RTSP/1.0 abc\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 40000\r\n\r\n",
            &[b'X'; HEAD_MAX],
            &[b'\n'; HEAD_MAX + 1],
        ] {
            assert!(Frame::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        // Fields that are no text, or no fields, are as good as not there.
        let (frame, _) = Frame::parse(b"RTSP/1.0 200 OK\r\nSession: \xff\r\nSession\r\n: x\r\n\r\n").unwrap().unwrap();
        let Frame::Response { head, .. } = frame else { panic!("{frame:?}") };
        assert_eq!((head.field("Session"), head.field("")), (None, Some("x")));
    }

    #[test]
    fn noise_is_read_within_its_bounds() {
        let mut noise = crate::crypto::fixed::Noise::new(3);
        for round in 0..20_000 {
            let mut bytes = noise.bytes(80);
            if round % 2 == 0 {
                bytes.splice(0..0, *b"RTSP/1.0 200 OK\r\n");
                bytes.extend(b"\r\n\r\n");
            }
            if let Ok(Some((_, taken))) = Frame::parse(&bytes) {
                assert!(taken <= bytes.len());
            }
            let text = String::from_utf8_lossy(&bytes);
            for name in ["", "realm", "a"] {
                let _ = (parameter(&text, name), challenge_parameter(&text, name));
            }
        }
    }

    #[test]
    fn parameters() {
        let transport = "RTP/AVP/TCP;unicast; interleaved=2-3;ssrc=1A";
        assert_eq!(parameter(transport, "Interleaved"), Some("2-3"));
        assert_eq!((parameter(transport, "unicast"), parameter("", "a")), (None, None));
        let challenge = r#"Digest realm="a, nonce=b", nonce = "x=,y" ,stale=TRUE, qop="auth,auth-int", opaque="""#;
        for (name, want) in [
            ("realm", Some("a, nonce=b")),
            ("NONCE", Some("x=,y")),
            ("stale", Some("TRUE")),
            ("qop", Some("auth,auth-int")),
            ("opaque", Some("")),
            ("algorithm", None),
        ] {
            assert_eq!(challenge_parameter(challenge, name), want, "{name}");
        }
        for cut in 0..challenge.len() {
            let _ = challenge_parameter(&challenge[..cut], "opaque");
        }
        assert_eq!(challenge_parameter("Basic", "realm"), None);
        assert_eq!(challenge_parameter("Digest realm=\"open", "realm"), None);
    }
}
