//! Telephone sound: eight bits a sample (ITU-T G.711), as linear PCM.

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

#[cfg(test)]
mod tests {
    use super::*;

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
