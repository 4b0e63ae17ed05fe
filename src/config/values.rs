//! The values that may stand in the configuration: a value that exists has been checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A value that is written as text.
pub(super) trait Text: Sized {
    /// What belongs there, to follow "expected".
    const EXPECTED: &'static str;
    /// The value, or why the text is none. The text itself is not repeated: it may be a secret.
    fn parse(text: &str) -> Result<Self, String>;
}

/// The sentence about a text that is none of them.
#[cold]
pub(super) fn must_be(expected: &str) -> String {
    format!("must be {expected}")
}

/// The accessory's name: 1 to 58 bytes, so that the network's copy with four digits behind it still
/// fits a DNS label (RFC 1035 §2.3.4), without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The checked name, or why it is none.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Name {
    const EXPECTED: &'static str = "a text";
    fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=58).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control);
        fits.then(|| Name(text.into()))
            .ok_or_else(|| "must be 1 to 58 bytes, no control characters, no space at the ends".into())
    }
}

/// A setup code `XXX-XX-XXX` that HomeKit allows (HAP R2 §4.2.1.2). `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SetupCode([u8; 10]);

impl SetupCode {
    /// The checked code, or why it is none.
    ///
    /// # Errors
    /// A sentence for a person, without the code.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    /// The ten characters with their dashes.
    pub fn as_str(&self) -> &str {
        // Only digits and dashes get in.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The ten characters as bytes.
    pub fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }
}

impl Text for SetupCode {
    const EXPECTED: &'static str = "a setup code XXX-XX-XXX of eight digits";
    fn parse(text: &str) -> Result<Self, String> {
        let shape = || must_be(Self::EXPECTED);
        let code: [u8; 10] = text.as_bytes().try_into().map_err(|_| shape())?;
        let well_formed = code.iter().enumerate().all(|(at, byte)| match at {
            3 | 6 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        if !well_formed {
            return Err(shape());
        }
        let mut digits = code.iter().filter(|byte| **byte != b'-');
        let one_digit = digits.all(|digit| *digit == code[0]);
        if one_digit || matches!(&code, b"123-45-678" | b"876-54-321") {
            return Err("HomeKit forbids this setup code because it is too easy to guess".into());
        }
        Ok(SetupCode(code))
    }
}

impl fmt::Debug for SetupCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupCode(…)")
    }
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl Text for FilePath {
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Result<Self, String> {
        path(text).map(FilePath)
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() || text.contains('\0') || text.len() > 4096 {
        true => Err("must be a path".into()),
        false => Ok(text.into()),
    }
}

/// The path of a Unix socket: `sun_path` holds 107 bytes, and one is needed to put it in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPath(pub PathBuf);

impl SocketPath {
    /// The checked path, or why it is none.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl Text for SocketPath {
    const EXPECTED: &'static str = "the path of a socket";
    fn parse(text: &str) -> Result<Self, String> {
        match text.len() > 106 {
            true => Err("must be at most 106 bytes, more does not fit a socket's address".into()),
            false => path(text).map(SocketPath),
        }
    }
}

/// A log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(pub log::LevelFilter);

impl Level {
    /// The level of that name.
    pub fn named(text: &str) -> Option<Self> {
        text.parse().ok().map(Level)
    }
}

impl Text for Level {
    const EXPECTED: &'static str = "a log level: off, error, warn, info, debug, trace";
    fn parse(text: &str) -> Result<Self, String> {
        Level::named(text).ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// The name of a network interface: 1 to 15 bytes, as the kernel's `IFNAMSIZ` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface(pub String);

impl Text for Interface {
    const EXPECTED: &'static str = "the name of a network interface";
    fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        fits.then(|| Interface(text.into())).ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// An address and port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_loopback(self) -> bool {
        match self.0.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        }
    }
}

impl Text for Listen {
    const EXPECTED: &'static str = "an address with a port, as \"127.0.0.1:8071\"";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Listen).map_err(|_| must_be(Self::EXPECTED))
    }
}

/// The token of the control interface. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token as it stands in the request.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Text for Token {
    const EXPECTED: &'static str = "a token of 8 to 128 visible ASCII characters";
    fn parse(text: &str) -> Result<Self, String> {
        let fits = (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Token(text.into())).ok_or_else(|| must_be(Self::EXPECTED))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_codes_that_homekit_forbids() {
        for digit in 0..=9 {
            let d = digit.to_string();
            let code = format!("{}-{}-{}", d.repeat(3), d.repeat(2), d.repeat(3));
            assert!(SetupCode::new(&code).is_err(), "{code}");
        }
        for wrong in
            ["123-45-678", "876-54-321", "", "03145154", "031-45-15", "031-45-1545", "031_45_154", "٠31-45-154"]
        {
            assert!(SetupCode::new(wrong).is_err(), "{wrong}");
        }
        for right in ["031-45-154", "000-00-001", "111-11-112", "123-45-679"] {
            assert_eq!(SetupCode::new(right).expect(right).as_str(), right);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let code = SetupCode::new("031-45-154").expect("legal");
        assert!(!format!("{code:?}").contains("031"));
        let token = Token::parse("abcdefgh").expect("legal");
        assert!(!format!("{token:?}").contains("abc"));
    }
}
