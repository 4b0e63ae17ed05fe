//! The encrypted records of a verified session: two bytes of length, up to 1024 bytes of text, a tag
//! (HAP R2 §6.5.2). Their borders mean nothing to the HTTP inside.

use crate::crypto::aead::{OpenKey, SealKey, TAG};
use crate::crypto::{SharedSecret, hkdf_sha512};

/// The longest text of a record.
pub const MAX_TEXT: usize = 1024;

/// Bytes a record has besides its text.
pub const OVERHEAD: usize = LENGTH + TAG;

const LENGTH: usize = 2;
const SALT: &[u8] = b"Control-Salt";

/// Opens what the controller sends.
#[derive(Debug)]
pub struct Opener(OpenKey);

/// How a receive buffer is filled: text, then the beginning of the next record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Bytes of text at the start of the buffer.
    pub text: usize,
    /// Bytes of text and of the record behind it that is not complete yet.
    pub filled: usize,
}

/// The peer cannot be understood any more: close the connection, without a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A record of no bytes or of more than 1024.
    Length(u16),
    /// The tag does not match: another key, a lost record, or a forger.
    Tag,
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Broken::Length(len) => write!(f, "encrypted record of {len} bytes, 1 to {MAX_TEXT} are allowed"),
            Broken::Tag => f.write_str("encrypted record does not match its tag"),
        }
    }
}

impl Opener {
    /// For a session with this secret.
    pub fn new(shared: &SharedSecret) -> Self {
        Opener(OpenKey::new(&hkdf_sha512(shared.as_bytes(), SALT, b"Control-Write-Encryption-Key")))
    }

    /// Opens all complete records in place. `buf` starts with `text` bytes that are open already; what
    /// was received stands behind them. The new text is moved up to the old, the rest of the input up
    /// to the text, so that the text is always in one piece.
    ///
    /// # Errors
    /// When the session is [`Broken`]; the buffer then holds nothing of use.
    ///
    /// # Panics
    /// When `text` lies outside `buf`.
    pub fn open(&mut self, buf: &mut [u8], text: usize) -> Result<Opened, Broken> {
        let (mut text, mut at) = (text, text);
        while let Some((&length, rest)) = buf[at..].split_first_chunk_mut::<LENGTH>().map(|(l, r)| (&*l, r)) {
            let len = usize::from(u16::from_le_bytes(length));
            if !(1..=MAX_TEXT).contains(&len) {
                return Err(Broken::Length(len as u16));
            }
            let Some(record) = rest.get_mut(..len + TAG) else { break };
            self.0.open(&length, record).ok_or(Broken::Tag)?;
            buf.copy_within(at + LENGTH..at + LENGTH + len, text);
            text += len;
            at += len + OVERHEAD;
        }
        let left = buf.len() - at;
        if at > text {
            buf.copy_within(at.., text);
        }
        Ok(Opened { text, filled: text + left })
    }
}

/// Seals what the accessory sends.
#[derive(Debug)]
pub struct Sealer(SealKey);

/// How far [`Sealer::seal`] got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Bytes of text that are in the records.
    pub text: usize,
    /// Bytes of records in the output.
    pub written: usize,
}

impl Sealer {
    /// For a session with this secret.
    pub fn new(shared: &SharedSecret) -> Self {
        Sealer(SealKey::new(&hkdf_sha512(shared.as_bytes(), SALT, b"Control-Read-Encryption-Key")))
    }

    /// Fills `out` with as many complete records as it has room for. All but the last of a message
    /// hold 1024 bytes, so a record is never shortened to fit: the caller comes again with the rest.
    pub fn seal(&mut self, text: &[u8], out: &mut [u8]) -> Sealed {
        let mut sealed = Sealed { text: 0, written: 0 };
        for part in text.chunks(MAX_TEXT) {
            let Some(record) = out.get_mut(sealed.written..sealed.written + part.len() + OVERHEAD) else { break };
            record[LENGTH..LENGTH + part.len()].copy_from_slice(part);
            sealed.written += self.seal_in_place(record, part.len());
            sealed.text += part.len();
        }
        sealed
    }

    /// Makes a record of the `len` bytes of text that stand in `record` behind two free bytes, and
    /// returns its size. For a message that is written record by record.
    ///
    /// # Panics
    /// When `len` is 0 or above 1024, or `record` has no room for [`OVERHEAD`] and the text.
    pub fn seal_in_place(&mut self, record: &mut [u8], len: usize) -> usize {
        assert!((1..=MAX_TEXT).contains(&len), "a record has 1 to 1024 bytes of text");
        let length = (len as u16).to_le_bytes();
        record[..LENGTH].copy_from_slice(&length);
        let tag = self.0.seal(&length, &mut record[LENGTH..LENGTH + len]);
        record[LENGTH + len..OVERHEAD + len].copy_from_slice(&tag);
        OVERHEAD + len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{array, hex, vectors};

    fn shared() -> SharedSecret {
        SharedSecret::new(array(&vectors("session")["shared_secret"]))
    }

    /// Text and records of one direction of the vectors, all frames one after the other.
    fn stream(direction: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let frames = vectors("session")["frames"].as_array().unwrap().clone();
        let frames = frames.iter().filter(|f| f["direction"] == direction);
        frames.map(|f| (hex(&f["plaintext"]), hex(&f["encrypted"]))).collect()
    }

    /// An opener with the keys of the other direction, for which there are more vectors.
    fn opener_of_controller() -> Opener {
        Opener(OpenKey::new(&hkdf_sha512(shared().as_bytes(), SALT, b"Control-Read-Encryption-Key")))
    }

    #[test]
    fn opens_the_request_of_the_vectors() {
        let (text, mut records) = stream("c2a").remove(0);
        let opened = Opener::new(&shared()).open(&mut records, 0).unwrap();
        assert_eq!(opened, Opened { text: text.len(), filled: text.len() });
        assert_eq!(records[..opened.text], text);
    }

    #[test]
    fn seals_the_messages_of_the_vectors() {
        let mut sealer = Sealer::new(&shared());
        for (text, records) in stream("a2c") {
            let mut out = [0; 4096];
            let sealed = sealer.seal(&text, &mut out);
            assert_eq!(sealed, Sealed { text: text.len(), written: records.len() });
            assert_eq!(out[..sealed.written], records);
        }
    }

    #[test]
    fn a_record_is_never_shortened_to_fit() {
        let (first, (text, records)) = (stream("a2c").remove(0).0, stream("a2c").remove(1));
        for (room, fits) in
            [(0, 0), (19, 0), (1041, 0), (1042, 1024), (2083, 1024), (2084, 2048), (2748, 2048), (2749, 2695)]
        {
            let mut sealer = Sealer::new(&shared());
            let mut out = [0; 4096];
            sealer.seal(&first, &mut out);
            let sealed = sealer.seal(&text, &mut out[..room]);
            assert_eq!(sealed.text, fits, "{room}");
            // No counter was spent on what did not fit.
            let rest = sealer.seal(&text[fits..], &mut out[sealed.written..]);
            assert_eq!(out[..sealed.written + rest.written], records, "{room}");
        }
    }

    #[test]
    fn text_is_in_one_piece_however_it_arrives() {
        let frames = stream("a2c");
        let text: Vec<u8> = frames.iter().flat_map(|f| f.0.clone()).collect();
        let wire: Vec<u8> = frames.iter().flat_map(|f| f.1.clone()).collect();
        for step in [1, 2, 3, 7, 100, 1041, 1042, 1043, 2000, wire.len()] {
            let mut opener = opener_of_controller();
            let mut buf = vec![0; wire.len()];
            let mut at = Opened { text: 0, filled: 0 };
            for part in wire.chunks(step) {
                buf[at.filled..at.filled + part.len()].copy_from_slice(part);
                at = opener.open(&mut buf[..at.filled + part.len()], at.text).unwrap();
                assert!(at.filled - at.text < MAX_TEXT + OVERHEAD);
            }
            assert_eq!(at, Opened { text: text.len(), filled: text.len() }, "{step}");
            assert_eq!(buf[..at.text], text, "{step}");
        }
    }

    #[test]
    fn lengths_out_of_range_are_the_end() {
        for (length, expected) in [([0, 0], 0), ([1, 4], 1025), ([255, 255], 65535)] {
            // Told at once, without waiting for what the length promises.
            assert_eq!(Opener::new(&shared()).open(&mut length.clone(), 0), Err(Broken::Length(expected)));
        }
        assert_eq!(Opener::new(&shared()).open(&mut [1], 0), Ok(Opened { text: 0, filled: 1 }));
        assert_eq!(Opener::new(&shared()).open(&mut [0, 4], 0), Ok(Opened { text: 0, filled: 2 }));
        assert_eq!(Opener::new(&shared()).open(&mut [], 0), Ok(Opened { text: 0, filled: 0 }));
    }

    #[test]
    fn a_changed_or_repeated_record_is_the_end() {
        let (text, records) = stream("c2a").remove(0);
        for broken in 2..records.len() {
            let mut copy = records.clone();
            copy[broken] ^= 1;
            assert_eq!(Opener::new(&shared()).open(&mut copy, 0), Err(Broken::Tag));
        }
        let mut twice = [&records[..], &records].concat();
        assert_eq!(Opener::new(&shared()).open(&mut twice, 0), Err(Broken::Tag));
        // The failure did not count: the next record still opens.
        let mut opener = Opener::new(&shared());
        let mut copy = records.clone();
        copy[9] ^= 1;
        assert!(opener.open(&mut copy, 0).is_err());
        assert_eq!(opener.open(&mut records.clone(), 0).unwrap().text, text.len());
    }
}
