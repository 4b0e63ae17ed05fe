//! Hexadecimal digits, two for a byte (RFC 4648 §8).

const LOWER: &[u8; 16] = b"0123456789abcdef";

/// Writes `bytes` to `text`, which has two bytes for each: less room takes less of them.
pub fn encode(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[LOWER[usize::from(byte >> 4)], LOWER[usize::from(byte & 15)]]);
    }
}

/// The bytes of digits of either case; `None`: they are something else, are odd, or do not fit `out`.
pub fn decode<'o>(text: &str, out: &'o mut [u8]) -> Option<&'o [u8]> {
    let pairs = text.as_bytes().chunks(2);
    let out = out.get_mut(..pairs.len())?;
    for (pair, byte) in pairs.zip(&mut *out) {
        let &[high, low] = pair else { return None };
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_there_and_back() {
        for byte in 0..=255 {
            let (mut text, mut out) = ([0; 2], [0; 1]);
            encode(&[byte], &mut text);
            let text = std::str::from_utf8(&text).unwrap();
            assert_eq!(text, format!("{byte:02x}"));
            assert_eq!(decode(text, &mut out), Some(&[byte][..]));
            assert_eq!(decode(&text.to_uppercase(), &mut out), Some(&[byte][..]));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let mut out = [0; 2];
        assert_eq!(decode("", &mut out), Some(&[][..]));
        assert_eq!(decode("12Ef", &mut out), Some(&[0x12, 0xef][..]));
        for text in ["1", "123", "1g", "g1", " 1", "+1", "0x12", "1\u{e9}", "123456"] {
            assert_eq!(decode(text, &mut out), None, "{text}");
        }
    }
}
