//! Base64 (RFC 4648 §4).

use super::{Malformed, Writer};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Digits of so many bytes, with their padding.
pub const fn length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Writes `bytes` to `text`, which has [`length`] bytes: less room takes less of them.
pub fn encode(bytes: &[u8], text: &mut [u8]) {
    for (three, four) in bytes.chunks(3).zip(text.chunks_exact_mut(4)) {
        let byte = |at| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (at, digit) in four.iter_mut().enumerate() {
            *digit = if at > three.len() { b'=' } else { DIGITS[(bits >> (18 - 6 * at) & 63) as usize] };
        }
    }
}

/// Appends `bytes`.
pub fn put(w: &mut Writer<'_>, bytes: &[u8]) {
    if let Some(room) = w.reserve(length(bytes.len())) {
        encode(bytes, room);
    }
}

/// The bytes of a text, with its padding or without.
///
/// # Errors
/// When it is not base64 or does not fit `out`.
pub fn decode<'o>(text: &str, out: &'o mut [u8]) -> Result<&'o [u8], Malformed> {
    const NOT_BASE64: Malformed = Malformed("not base64");
    let digits = text.trim_end_matches('=').as_bytes();
    let (mut bits, mut held, mut len) = (0u32, 0, 0);
    for digit in digits {
        let value = DIGITS.iter().position(|d| d == digit).ok_or(NOT_BASE64)?;
        (bits, held) = (bits << 6 | value as u32, held + 6);
        if held >= 8 {
            held -= 8;
            *out.get_mut(len).ok_or(Malformed("too much base64"))? = (bits >> held) as u8;
            len += 1;
        }
    }
    // The bits that are left over of the last byte's digits are zero; a digit alone is no byte.
    if held >= 6 || bits & ((1 << held) - 1) != 0 {
        return Err(NOT_BASE64);
    }
    Ok(&out[..len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::{BASE64, BASE64_NOPAD};

    #[test]
    fn every_length_and_byte_as_another_coder_has_it() {
        let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        for bytes in (0..bytes.len()).flat_map(|at| [&bytes[..at], &bytes[at..]]) {
            let mut text = vec![0; length(bytes.len())];
            encode(bytes, &mut text);
            let text = std::str::from_utf8(&text).unwrap();
            assert_eq!(text, BASE64.encode(bytes));
            let mut out = vec![0; bytes.len()];
            assert_eq!(decode(text, &mut out), Ok(bytes));
            assert_eq!(decode(&BASE64_NOPAD.encode(bytes), &mut out), Ok(bytes));
            if let Some((_, short)) = out.split_last_mut() {
                assert_eq!(decode(text, short), Err(Malformed("too much base64")));
            }
        }
    }

    #[test]
    fn what_another_decoder_refuses_is_refused() {
        // Every two and three characters, and each character in the place of each digit.
        let all = || (0..=127u8).map(char::from);
        let texts = all().flat_map(|a| all().map(move |b| format!("{a}{b}")));
        let texts = texts.chain(all().map(|c| c.to_string()));
        let texts = texts.chain(all().flat_map(|c| [format!("Zg{c}"), format!("Zm9{c}"), format!("Zm9v{c}YmE")]));
        let mut refused = 0;
        for text in texts {
            let want = BASE64_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok();
            let mut out = [0; 8];
            assert_eq!(decode(&text, &mut out).ok(), want.as_deref(), "{text:?}");
            refused += u32::from(want.is_none());
        }
        assert!(refused > 10_000, "{refused}");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut room = [0; 7];
        let mut w = Writer::new(&mut room);
        put(&mut w, b"foob");
        assert!(w.finish().is_err());
    }
}
