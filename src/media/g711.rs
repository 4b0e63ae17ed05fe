//! Telephone sound: eight bits a sample (ITU-T G.711), from and to linear PCM.

/// A sample of μ-law (PCMU): 14 bits of it are true (ITU-T G.711 table 2).
pub fn from_ulaw(byte: u8) -> i16 {
    let bits = !byte;
    let magnitude = (((i16::from(bits & 15) << 3) + 132) << (bits >> 4 & 7)) - 132;
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// A sample of A-law (PCMA): 13 bits of it are true (ITU-T G.711 table 1).
pub fn from_alaw(byte: u8) -> i16 {
    // Every other bit is sent the other way round.
    let bits = byte ^ 0x55;
    let step = (i16::from(bits & 15) << 4) + 8;
    let magnitude = match bits >> 4 & 7 {
        0 => step,
        segment => (step + 256) << (segment - 1),
    };
    if bits & 0x80 != 0 { magnitude } else { -magnitude }
}

/// A sample as μ-law (ITU-T G.711 table 2).
pub fn to_ulaw(sample: i16) -> u8 {
    // 132 makes each segment begin at a power of two.
    let magnitude = (sample.unsigned_abs().min(32_635) + 132) as u32;
    let segment = magnitude.ilog2() - 7;
    let bits = (segment << 4 | magnitude >> (segment + 3) & 15) as u8;
    !(if sample < 0 { bits | 0x80 } else { bits })
}

/// A sample as A-law (ITU-T G.711 table 1).
pub fn to_alaw(sample: i16) -> u8 {
    // -1 belongs to the step from 0 to -16.
    let magnitude = (if sample < 0 { !sample } else { sample }) as u32;
    let segment = (magnitude | 0x80).ilog2() - 7;
    let bits = (segment << 4 | magnitude >> (segment.max(1) + 3) & 15) as u8;
    (if sample < 0 { bits } else { bits | 0x80 }) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code but the second zero comes back, and what is between two values becomes one of them.
    #[test]
    fn what_is_written_is_near() {
        for (encode, decode) in [(to_ulaw as fn(i16) -> u8, from_ulaw as fn(u8) -> i16), (to_alaw, from_alaw)] {
            for byte in 0..=255 {
                assert_eq!(decode(encode(decode(byte))), decode(byte), "{byte:#x}");
            }
            let mut before = i16::MIN;
            for sample in i16::MIN..=i16::MAX {
                let value = decode(encode(sample));
                let off = i32::from(value).abs_diff(sample.into());
                assert!(value >= before && off <= 8 + u32::from(sample.unsigned_abs()) / 32, "{sample} {value}");
                before = value;
            }
        }
        assert_eq!((to_ulaw(0), to_alaw(0)), (0xff, 0xd5));
    }

    /// The sum of all values, each weighed by its place: another decoder's table has the same.
    fn sum(decode: fn(u8) -> i16) -> i32 {
        (0..=255).map(|byte| (i32::from(byte) + 1) * i32::from(decode(byte))).sum()
    }

    #[test]
    fn mu_law_is_read_by_its_table() {
        let values = [
            (0x00, -32_124),
            (0x01, -31_100),
            (0x0f, -16_764),
            (0x10, -15_996),
            (0x6f, -132),
            (0x70, -120),
            (0x7e, -8),
            (0x7f, 0),
            (0xff, 0),
            (0x80, 32_124),
            (0x8f, 16_764),
            (0xaa, 5_372),
        ];
        for (byte, value) in values {
            assert_eq!(from_ulaw(byte), value, "{byte:#x}");
        }
        assert_eq!(sum(from_ulaw), 98_107_392);
    }

    #[test]
    fn a_law_is_read_by_its_table() {
        let values = [
            (0x2a, -32_256),
            (0xaa, 32_256),
            (0x55, -8),
            (0xd5, 8),
            (0x54, -24),
            (0x00, -5_504),
            (0x0f, -6_784),
            (0x6f, -1_696),
            (0x80, 5_504),
            (0xff, 848),
        ];
        for (byte, value) in values {
            assert_eq!(from_alaw(byte), value, "{byte:#x}");
        }
        assert_eq!(sum(from_alaw), 100_139_008);
    }
}
