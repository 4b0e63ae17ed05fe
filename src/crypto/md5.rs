//! MD5 (RFC 1321), for the one protocol that still asks for it: the logins of RTSP servers (RFC 2617). It
//! protects nothing else. Own, because a crate unrolls it for a speed that nobody needs.

/// floor(2^32 * |sin(i + 1)|) (§3.4).
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The digest of all parts, one after the other, as 32 hexadecimal digits.
pub fn hex(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let (mut block, mut filled, mut bits) = ([0; 64], 0, 0u64);
    for &byte in parts.iter().copied().flatten() {
        block[filled] = byte;
        (filled, bits) = (filled + 1, bits + 8);
        if filled == block.len() {
            add(&mut digest, &block);
            filled = 0;
        }
    }
    // A one bit, zeros, and the length (§3.1, §3.2).
    block[filled] = 0x80;
    block[filled + 1..].fill(0);
    if filled >= 56 {
        add(&mut digest, &block);
        block.fill(0);
    }
    block[56..].copy_from_slice(&bits.to_le_bytes());
    add(&mut digest, &block);
    let mut text = [0; 32];
    let bytes = digest.map(u32::to_le_bytes);
    crate::wire::hex::encode(bytes.as_flattened(), &mut text);
    text
}

fn add(digest: &mut [u32; 4], block: &[u8; 64]) {
    let [mut a, mut b, mut c, mut d] = *digest;
    for i in 0..64 {
        let (mixed, word) = match i / 16 {
            0 => (b & c | !b & d, i),
            1 => (d & b | !d & c, (5 * i + 1) % 16),
            2 => (b ^ c ^ d, (3 * i + 5) % 16),
            _ => (c ^ (b | !d), 7 * i % 16),
        };
        let at = 4 * word;
        let word = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let sum = a.wrapping_add(mixed).wrapping_add(SINES[i]).wrapping_add(word);
        (a, b, c, d) = (d, b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4])), b, c);
    }
    for (word, more) in digest.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parts: &[&[u8]]) -> String {
        String::from_utf8(hex(parts).to_vec()).unwrap()
    }

    /// RFC 1321 §A.5.
    #[test]
    fn digests_of_the_rfc() {
        for (input, want) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
            (&"1234567890".repeat(8), "57edf4a22be3c955ac49da2e2107b67a"),
        ] {
            assert_eq!(text(&[input.as_bytes()]), want, "{input}");
            // Cut anywhere it is the same.
            for cut in 0..input.len() {
                assert_eq!(text(&[&input.as_bytes()[..cut], b"", &input.as_bytes()[cut..]]), want);
            }
        }
    }

    /// Around the place where the length no longer fits the block; as md5sum prints them.
    #[test]
    fn every_length_of_the_last_block() {
        for (count, want) in [
            (55, "ef1772b6dff9a122358552954ad0df65"),
            (56, "3b0c8ac703f828b04c6c197006d17218"),
            (63, "b06521f39153d618550606be297466d5"),
            (64, "014842d480b571495a4a0363793f7367"),
            (119, "8a7bd0732ed6a28ce75f6dabc90e1613"),
        ] {
            assert_eq!(text(&[&vec![b'a'; count]]), want, "{count}");
        }
    }
}
