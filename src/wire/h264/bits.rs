//! Exp-Golomb bits of an RBSP, read straight from the NAL unit: emulation-prevention bytes are
//! stepped over on the way, so nothing is copied.

use crate::wire::Malformed;

/// Reads the bits of a NAL unit behind its header (ITU-T H.264 §7.2, §9.1). `00 00 03` reads as
/// `00 00` (§7.4.1).
#[derive(Clone)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// Zero bytes that came directly before `bytes`.
    zeros: u8,
    current: u8,
    /// Bits of `current` that are not read yet.
    left: u8,
}

const ENDED: Malformed = Malformed("the NAL unit ends in the middle of a field");

impl<'a> Bits<'a> {
    /// A reader at the first bit of `payload`, a NAL unit without its header byte.
    pub fn new(payload: &'a [u8]) -> Self {
        Bits { bytes: payload, zeros: 0, current: 0, left: 0 }
    }

    fn next_byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.bytes.split_first().ok_or(ENDED)?;
        self.bytes = rest;
        if self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            return self.next_byte_plain();
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Ok(byte)
    }

    fn next_byte_plain(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.bytes.split_first().ok_or(ENDED)?;
        self.bytes = rest;
        self.zeros = (byte == 0).into();
        Ok(byte)
    }

    /// One bit: `u(1)`.
    ///
    /// # Errors
    /// The NAL unit has ended; so with every method here.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        if self.left == 0 {
            self.current = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Ok(self.current >> self.left & 1 == 1)
    }

    /// The next `n` (at most 32) bits, most significant first: `u(n)`.
    pub fn u(&mut self, n: u32) -> Result<u32, Malformed> {
        debug_assert!(n <= 32);
        let mut value = 0;
        for _ in 0..n {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    /// Unsigned Exp-Golomb: `ue(v)`, at most 2^32 - 2.
    pub fn ue(&mut self) -> Result<u32, Malformed> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(Malformed("an Exp-Golomb code is longer than 32 bits"));
            }
        }
        let suffix = self.u(zeros)?;
        Ok(((1u64 << zeros) - 1) as u32 + suffix)
    }

    /// Signed Exp-Golomb: `se(v)` (§9.1.1).
    pub fn se(&mut self) -> Result<i32, Malformed> {
        let code = self.ue()?;
        let half = (code / 2 + code % 2) as i32;
        Ok(if code % 2 == 1 { half } else { -half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_table_9_2() {
        // 1, 010, 011, 00100, 00101 = 0, 1, 2, 3, 4
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        for want in 0..5 {
            assert_eq!(bits.ue(), Ok(want));
        }
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        for want in [0, 1, -1, 2, -2] {
            assert_eq!(bits.se(), Ok(want));
        }
    }

    #[test]
    fn emulation_prevention_is_stepped_over() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3]);
        let read: Vec<u32> = core::iter::from_fn(|| bits.u(8).ok()).collect();
        assert_eq!(read, [0, 0, 1, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn the_end_and_endless_zeros_are_errors() {
        assert_eq!(Bits::new(&[]).flag(), Err(ENDED));
        assert_eq!(Bits::new(&[0, 0]).ue(), Err(ENDED));
        assert!(Bits::new(&[0, 0, 3, 0, 0, 3, 0, 0xff, 0xff, 0xff]).ue().is_err());
        assert_eq!(Bits::new(&[0xff]).u(9), Err(ENDED));
        let longest = [0, 0, 3, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Bits::new(&longest).ue(), Ok(u32::MAX - 1));
        assert_eq!(Bits::new(&longest).se(), Ok(-i32::MAX));
    }
}
