//! One frame of a data stream: four bytes of header, the sealed payload, its tag (HomeKit Data Stream,
//! frame).
//!
//! ```text
//! byte 0      type 01
//! bytes 1-3   payload length, big-endian, at most FFFFF; the tag is not counted
//! payload     ChaCha20-Poly1305, AAD = bytes 0-3, nonce = counter of the direction from 0
//! 16 bytes    tag
//! ```

use crate::crypto::aead::{OpenKey, SealKey};
use crate::wire::Malformed;

/// Bytes in front of the payload.
pub const HEADER_BYTES: usize = 4;
/// Bytes behind the payload.
pub const TAG_BYTES: usize = 16;
/// What a frame takes beside its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// The longest payload of the protocol.
pub const PAYLOAD_MAX: usize = 0xf_ffff;

const TYPE: u8 = 1;

/// The length of the whole frame that `received` begins with, header and tag included. `None`: too
/// short to tell.
///
/// # Errors
/// Another type or a length above the limit: whatever follows cannot be understood.
pub fn length(received: &[u8]) -> Result<Option<usize>, Malformed> {
    match received {
        [] => Ok(None),
        [TYPE, rest @ ..] => {
            let Some(&[a, b, c]) = rest.first_chunk() else { return Ok(None) };
            let payload = u32::from_be_bytes([0, a, b, c]) as usize;
            if payload > PAYLOAD_MAX {
                return Err(Malformed("a frame longer than FFFFF bytes"));
            }
            Ok(Some(payload + OVERHEAD_BYTES))
        }
        _ => Err(Malformed("a frame of unknown type")),
    }
}

/// Seals what the caller has put into `out` at [`HEADER_BYTES`], `payload` bytes long, in place, and
/// returns the length of the frame. `None` when the tag does not fit or the payload is too long; then
/// nothing is counted.
pub fn seal(key: &mut SealKey, out: &mut [u8], payload: usize) -> Option<usize> {
    if payload > PAYLOAD_MAX || out.len() < payload + OVERHEAD_BYTES {
        return None;
    }
    let (header, rest) = out.split_first_chunk_mut::<HEADER_BYTES>()?;
    *header = (payload as u32).to_be_bytes();
    header[0] = TYPE;
    let (text, rest) = rest.split_at_mut_checked(payload)?;
    let tag = key.seal(header, text);
    rest.first_chunk_mut::<TAG_BYTES>()?.copy_from_slice(&tag);
    Some(payload + OVERHEAD_BYTES)
}

/// Opens one whole frame in place and returns its payload. `None`: the tag is wrong; the counter stays.
pub fn open<'a>(key: &mut OpenKey, frame: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (header, rest) = frame.split_first_chunk_mut::<HEADER_BYTES>()?;
    key.open(header, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Key;
    use crate::hds::vectors::{unhex, vectors};

    fn key(name: &str) -> Key {
        Key::new(unhex(&vectors()["keys"][name]).try_into().unwrap())
    }

    #[test]
    fn golden_frames_are_sealed_and_opened() {
        let v = vectors();
        let session = v["session"].as_array().unwrap();
        let (mut seal_key, mut open_key) = (SealKey::new(&key("a2c_key")), OpenKey::new(&key("c2a_key")));
        let mut seen = 0;
        for message in session.iter().filter(|m| m["direction"] == "c2a") {
            let (payload, mut wire) = (unhex(&message["payload"]), unhex(&message["frame"]));
            assert_eq!(length(&wire), Ok(Some(wire.len())));
            assert_eq!(open(&mut open_key, &mut wire).unwrap(), payload, "{}", message["name"]);
            seen += 1;
        }
        // The frames up to the two that the vectors give as digests; those are sealed in `message`.
        for message in session.iter().filter(|m| m["direction"] == "a2c").take(3) {
            let (payload, wire) = (unhex(&message["payload"]), unhex(&message["frame"]));
            let mut out = vec![0; payload.len() + OVERHEAD_BYTES];
            out[HEADER_BYTES..][..payload.len()].copy_from_slice(&payload);
            assert_eq!(seal(&mut seal_key, &mut out, payload.len()), Some(wire.len()));
            assert_eq!(out, wire, "{}", message["name"]);
            seen += 1;
        }
        assert_eq!(seen, 7);
    }

    #[test]
    fn golden_bad_frames_are_refused() {
        let v = vectors();
        let mut bad = v["bad_frames"].as_array().unwrap().iter().map(|f| unhex(&f["hex"]));
        let (mut wrong_tag, too_long, unknown) = (bad.next().unwrap(), bad.next().unwrap(), bad.next().unwrap());
        assert!(length(&too_long).is_err());
        assert!(length(&unknown).is_err());
        let mut open_key = OpenKey::new(&key("c2a_key"));
        assert_eq!(open(&mut open_key, &mut wrong_tag), None);
        // The counter did not move: the right frame still opens.
        let mut right = unhex(&v["session"][0]["frame"]);
        assert!(open(&mut open_key, &mut right).is_some());
    }

    #[test]
    fn a_header_may_arrive_byte_by_byte() {
        assert_eq!(length(&[]), Ok(None));
        assert_eq!(length(&[1, 0xf, 0xff]), Ok(None));
        assert_eq!(length(&[1, 0xf, 0xff, 0xff]), Ok(Some(PAYLOAD_MAX + OVERHEAD_BYTES)));
    }

    #[test]
    fn what_does_not_fit_is_neither_sealed_nor_counted() {
        let mut seal_key = SealKey::new(&key("a2c_key"));
        assert_eq!(seal(&mut seal_key, &mut [0; 23], 4), None);
        assert_eq!(seal(&mut seal_key, &mut [], 0), None);
        let mut long = vec![0; PAYLOAD_MAX + 1 + OVERHEAD_BYTES];
        assert_eq!(seal(&mut seal_key, &mut long, PAYLOAD_MAX + 1), None);
        let mut out = [0; 24];
        assert_eq!(seal(&mut seal_key, &mut out, 4), Some(24));
        assert_eq!(open(&mut OpenKey::new(&key("a2c_key")), &mut out).unwrap(), [0; 4]);
        assert_eq!(open(&mut OpenKey::new(&key("a2c_key")), &mut [1, 0, 0]), None);
    }
}
