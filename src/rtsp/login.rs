//! Logging in: Digest with MD5 (RFC 2617 §3.2, RFC 7616 §3.4) and Basic (RFC 7617), as RTSP has them (RFC 2326 §D.1).

use crate::crypto::md5;
use crate::wire::rtsp::{Head, challenge_parameter};
use crate::wire::{Writer, base64};
use core::fmt::Write;

/// A name, a password, and what the server wants to see of them.
pub struct Login {
    /// `name:password`; nothing when the address has none.
    text: Option<String>,
    challenge: Option<Challenge>,
    /// The answer to it was taken: another challenge means that it is too old. If `stale` says so or not: a server that
    /// says it of each answer would be asked for ever.
    accepted: bool,
    /// Of our own, with qop.
    cnonce: u32,
    /// Requests with the same nonce.
    count: u32,
}

enum Challenge {
    Basic,
    Digest { realm: String, nonce: String, opaque: Option<String>, qop: bool },
}

/// Why a challenge cannot be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The address has no name and password.
    Missing,
    /// They are wrong.
    Wrong,
    /// The server wants something other than Digest with MD5 or Basic.
    Unknown,
}

impl Login {
    /// With `name:password` as it stands in the address.
    pub fn new(text: Option<&str>, cnonce: u32) -> Self {
        Login { text: text.map(String::from), challenge: None, accepted: false, cnonce, count: 0 }
    }

    /// Another connection: nothing was asked yet.
    pub fn restart(&mut self) {
        (self.challenge, self.accepted) = (None, false);
    }

    /// Takes in any other answer.
    pub fn handle_accepted(&mut self) {
        self.accepted = true;
    }

    /// Takes in the answer 401.
    ///
    /// # Errors
    /// There is no use in asking again.
    pub fn handle_challenge(&mut self, head: Head<'_>) -> Result<(), Refused> {
        if self.text.is_none() {
            return Err(Refused::Missing);
        }
        let mut found = None;
        for field in head.fields("WWW-Authenticate") {
            let parameter = |name| challenge_parameter(field, name);
            let scheme = field.split(' ').next().unwrap_or_default();
            if scheme.eq_ignore_ascii_case("Basic") && found.is_none() {
                found = Some(Challenge::Basic);
            }
            let md5 = parameter("algorithm").is_none_or(|name| name.eq_ignore_ascii_case("MD5"));
            if scheme.eq_ignore_ascii_case("Digest") && md5 {
                let (Some(realm), Some(nonce)) = (parameter("realm"), parameter("nonce")) else { continue };
                found = Some(Challenge::Digest {
                    realm: realm.into(),
                    nonce: nonce.into(),
                    opaque: parameter("opaque").map(String::from),
                    qop: parameter("qop").is_some_and(|all| all.split(',').any(|qop| qop.trim() == "auth")),
                });
            }
        }
        let challenge = found.ok_or(Refused::Unknown)?;
        let accepted = core::mem::take(&mut self.accepted);
        if self.challenge.is_some() && !accepted {
            return Err(Refused::Wrong);
        }
        (self.challenge, self.count) = (Some(challenge), 0);
        Ok(())
    }

    /// Emits the field that a request needs; nothing when nobody has asked.
    pub fn put(&mut self, w: &mut Writer<'_>, method: &str, uri: &str) {
        let (Some(text), Some(challenge)) = (&self.text, &self.challenge) else { return };
        w.bytes(b"Authorization: ");
        match challenge {
            Challenge::Basic => {
                w.bytes(b"Basic ");
                base64::put(w, text.as_bytes());
            }
            Challenge::Digest { realm, nonce, opaque, qop } => {
                let (name, password) = text.split_once(':').unwrap_or((text, ""));
                let (realm_bytes, nonce_bytes) = (realm.as_bytes(), nonce.as_bytes());
                let who = md5::hex(&[name.as_bytes(), b":", realm_bytes, b":", password.as_bytes()]);
                let what = md5::hex(&[method.as_bytes(), b":", uri.as_bytes()]);
                let mut numbers = [0; 22];
                let mut with_qop: &[u8] = b"";
                if *qop {
                    self.count += 1;
                    let mut w = Writer::new(&mut numbers);
                    let _ = write!(w, "{:08x}:{:08x}:auth", self.count, self.cnonce);
                    with_qop = w.finish().unwrap_or_default();
                }
                let colon: &[u8] = if *qop { b":" } else { b"" };
                let response = md5::hex(&[&who, b":", nonce_bytes, b":", with_qop, colon, &what]);
                let response = core::str::from_utf8(&response).unwrap_or_default();
                // A writer that is full says so at its end.
                let _ = write!(
                    w,
                    "Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\""
                );
                if *qop {
                    let _ = write!(w, ", qop=auth, nc={:08x}, cnonce=\"{:08x}\"", self.count, self.cnonce);
                }
                if let Some(opaque) = opaque {
                    let _ = write!(w, ", opaque=\"{opaque}\"");
                }
            }
        }
        w.bytes(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtsp::Frame;

    fn asked(login: &mut Login, fields: &str) -> Result<(), Refused> {
        let answer = format!("RTSP/1.0 401 Unauthorized\r\n{fields}\r\n\r\n");
        let Some((Frame::Response { head, .. }, _)) = Frame::parse(answer.as_bytes()).unwrap() else { panic!() };
        login.handle_challenge(head)
    }

    fn answer(login: &mut Login, method: &str, uri: &str) -> String {
        let mut room = [0; 600];
        let mut w = Writer::new(&mut room);
        login.put(&mut w, method, uri);
        String::from_utf8(w.finish().unwrap().to_vec()).unwrap()
    }

    /// The example of RFC 2617 §3.5, with the cnonce that it has.
    #[test]
    fn the_digest_of_the_rfc() {
        let mut login = Login::new(Some("Mufasa:Circle Of Life"), 0x0a4f_113b);
        assert_eq!(answer(&mut login, "GET", "/dir/index.html"), "");
        let challenge = "WWW-Authenticate: Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        asked(&mut login, challenge).unwrap();
        let said = answer(&mut login, "GET", "/dir/index.html");
        assert!(said.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{said}");
        assert!(said.contains("nc=00000001, cnonce=\"0a4f113b\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"\r\n"));
        assert!(!said.contains("Life"));
        assert!(answer(&mut login, "GET", "/").contains("nc=00000002"));
    }

    /// Without qop, as most cameras have it; the number is md5sum's.
    #[test]
    fn the_older_digest_and_basic() {
        let mut login = Login::new(Some("thingino:pa:ss"), 1);
        let both = "WWW-Authenticate: Digest realm=\"R\", nonce=\"N\"\r\nWWW-Authenticate: Basic realm=\"R\"";
        asked(&mut login, both).unwrap();
        let said = answer(&mut login, "DESCRIBE", "rtsp://127.0.0.1:554/ch0");
        assert!(said.starts_with("Authorization: Digest username=\"thingino\", realm=\"R\", nonce=\"N\", uri=\"rtsp://127.0.0.1:554/ch0\", response=\""), "{said}");
        assert!(said.contains(OLD_RESPONSE), "{said}");
        assert!(!said.contains("qop"));
        login.restart();
        asked(&mut login, "www-authenticate: basic realm=\"R\"").unwrap();
        assert_eq!(answer(&mut login, "PLAY", "x"), "Authorization: Basic dGhpbmdpbm86cGE6c3M=\r\n");
    }

    const OLD_RESPONSE: &str = "d17cc25a462592c8631e9c7ba09ab007";

    #[test]
    fn asking_again_has_an_end() {
        let digest = |more: &str| format!("WWW-Authenticate: Digest realm=\"R\", nonce=\"N\"{more}");
        let mut login = Login::new(Some("a:b"), 1);
        for again in ["", ", stale=true"] {
            assert_eq!(asked(&mut login, &digest("")), Ok(()));
            assert_eq!(asked(&mut login, &digest(again)), Err(Refused::Wrong), "the same request, twice");
            login.restart();
        }
        assert_eq!(asked(&mut login, &digest("")), Ok(()));
        // One that has let us in may have grown old without a word.
        for stale in ["", ", stale=true"] {
            login.handle_accepted();
            assert_eq!(asked(&mut login, &digest(stale)), Ok(()));
        }
        assert_eq!(asked(&mut login, &digest("")), Err(Refused::Wrong));
        let mut login = Login::new(Some("a:b"), 1);
        for unknown in [
            "CSeq: 1",
            "WWW-Authenticate: Digest realm=\"R\"",
            "WWW-Authenticate: Bearer x",
            &digest(", algorithm=SHA-256"),
        ] {
            assert_eq!(asked(&mut login, unknown), Err(Refused::Unknown), "{unknown}");
        }
        assert_eq!(asked(&mut Login::new(None, 1), &digest("")), Err(Refused::Missing));
    }
}
