//! ChaCha20-Poly1305 (RFC 8439 §2.8) with the two kinds of nonce that HAP uses: a counter for records
//! and data stream frames, a label for the messages of pairing.

use super::Key;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes a tag takes behind the text.
pub const TAG: usize = 16;

/// Seals one direction of a session. The nonce of message *n* is *n*, from 0 (HAP R2 §6.5.2).
#[derive(Debug)]
pub struct SealKey {
    key: Key,
    count: u64,
}

impl SealKey {
    /// Starts to count at 0.
    pub fn new(key: &Key) -> Self {
        SealKey { key: key.clone(), count: 0 }
    }

    /// Encrypts `text` in place and returns its tag. `aad` is authenticated along with it.
    pub fn seal(&mut self, aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
        let tag = seal(&self.key, &self.count.to_le_bytes(), aad, text);
        self.count += 1;
        tag
    }
}

/// Opens one direction of a session, counting as the peer's [`SealKey`] does.
#[derive(Debug)]
pub struct OpenKey {
    key: Key,
    count: u64,
}

impl OpenKey {
    /// Starts to count at 0.
    pub fn new(key: &Key) -> Self {
        OpenKey { key: key.clone(), count: 0 }
    }

    /// Decrypts in place and returns the text without its tag. `None`: not what the peer sealed next;
    /// the counter stays and the buffer holds nothing of use.
    pub fn open<'a>(&mut self, aad: &[u8], text_and_tag: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let text = open(&self.key, &self.count.to_le_bytes(), aad, text_and_tag)?;
        self.count += 1;
        Some(text)
    }

    /// As [`OpenKey::open`] but never counts: whether this key is the one at all. A failure destroys
    /// the buffer, so the caller tries on a copy.
    pub fn try_open<'a>(&self, aad: &[u8], text_and_tag: &'a mut [u8]) -> Option<&'a mut [u8]> {
        open(&self.key, &self.count.to_le_bytes(), aad, text_and_tag)
    }
}

/// Encrypts `text` in place under the nonce `label` ("PS-Msg06" and the like), without additional
/// data, and returns its tag (HAP R2 §5.6, §5.7).
pub fn seal_labelled(key: &Key, label: &[u8; 8], text: &mut [u8]) -> [u8; TAG] {
    seal(key, label, &[], text)
}

/// Reverses [`seal_labelled`] in place; `None` when the tag does not match.
pub fn open_labelled<'a>(key: &Key, label: &[u8; 8], text_and_tag: &'a mut [u8]) -> Option<&'a mut [u8]> {
    open(key, label, &[], text_and_tag)
}

/// The schedule of ChaCha20 is the key itself, so building ring's key for each message costs nothing
/// that counts, and the only copy that lasts is the one that is overwritten on drop.
fn ring_key(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_bytes()).expect("the key has 32 bytes"))
}

/// HAP's nonces are 64 bits behind four zero bytes.
fn nonce(low: &[u8; 8]) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(low);
    Nonce::assume_unique_for_key(nonce)
}

fn seal(key: &Key, low: &[u8; 8], aad: &[u8], text: &mut [u8]) -> [u8; TAG] {
    let tag = ring_key(key)
        .seal_in_place_separate_tag(nonce(low), Aad::from(aad), text)
        .expect("no text in memory reaches the 256 GB of ChaCha20");
    let mut out = [0; TAG];
    out.copy_from_slice(tag.as_ref());
    out
}

fn open<'a>(key: &Key, low: &[u8; 8], aad: &[u8], text_and_tag: &'a mut [u8]) -> Option<&'a mut [u8]> {
    ring_key(key).open_in_place(nonce(low), Aad::from(aad), text_and_tag).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::fixed::{array, hex, vectors};

    #[test]
    fn seals_and_opens_the_records_of_the_vectors() {
        let session = vectors("session");
        let key = Key::new(array(&session["accessory_to_controller_key"]));
        let mut seal = SealKey::new(&key);
        let mut open = OpenKey::new(&key);
        for frame in session["frames"].as_array().unwrap().iter().filter(|f| f["direction"] == "a2c") {
            let (text, wire) = (hex(&frame["plaintext"]), hex(&frame["encrypted"]));
            let mut wire = &wire[..];
            for text in text.chunks(1024) {
                let record;
                (record, wire) = wire.split_at(2 + text.len() + TAG);
                let mut sealed = text.to_vec();
                let tag = seal.seal(&record[..2], &mut sealed);
                sealed.extend(tag);
                assert_eq!(sealed, record[2..]);
                let mut copy = sealed.clone();
                assert_eq!(open.try_open(&record[..2], &mut copy).unwrap(), text);
                assert_eq!(open.open(&record[..2], &mut sealed).unwrap(), text);
            }
            assert!(wire.is_empty());
        }
        assert_eq!(seal.count, 6);
    }

    #[test]
    fn a_bad_tag_does_not_count() {
        let key = Key::new([3; 32]);
        let mut wire = *b"hello and a tag of.";
        let tag = SealKey::new(&key).seal(b"aad", &mut wire[..3]);
        wire[3..].copy_from_slice(&tag);
        let mut open = OpenKey::new(&key);
        for broken in 0..wire.len() {
            let mut copy = wire;
            copy[broken] ^= 0x10;
            assert!(open.open(b"aad", &mut copy).is_none());
        }
        assert!(open.open(b"aae", &mut wire.clone()).is_none());
        assert!(open.open(b"aad", &mut []).is_none());
        assert!(open.open(b"aad", &mut [0; 15]).is_none());
        assert_eq!(open.open(b"aad", &mut wire.clone()).unwrap(), b"hel");
        // The same record a second time is no longer the next one.
        assert!(open.open(b"aad", &mut wire).is_none());
    }

    #[test]
    fn opens_and_seals_the_messages_of_pair_setup() {
        let setup = vectors("pair_setup");
        let key = Key::new(array(&setup["session_key"]));
        for (message, label, text) in [("m5", b"PS-Msg05", "m5_sub_tlv"), ("m6", b"PS-Msg06", "m6_sub_tlv")] {
            let (message, text) = (hex(&setup[message]), hex(&setup[text]));
            // Behind the state (3 bytes) and the header of the one other item.
            let mut sealed = message[5..].to_vec();
            let mut again = text.clone();
            let tag = seal_labelled(&key, label, &mut again);
            assert_eq!([&again[..], &tag].concat(), sealed);
            assert!(open_labelled(&key, b"PS-Msg04", &mut sealed.clone()).is_none());
            assert_eq!(open_labelled(&key, label, &mut sealed).unwrap(), text);
        }
    }
}
