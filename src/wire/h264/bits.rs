//! Exp-Golomb bits of an RBSP, read straight from the NAL unit: emulation-prevention bytes are
//! stepped over on the way, so nothing is copied.

use crate::wire::Malformed;

/// Reads the bits of a NAL unit behind its header (ITU-T H.264 §7.2, §9.1). `00 00 03` reads as
/// `00 00` (§7.4.1).
#[derive(Clone)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// Bits that are not read yet, the first one on top; below them all is zero.
    word: u64,
    /// How many.
    left: u32,
    /// Zero bytes at the end of what went into `word`, at most 2.
    zeros: u32,
}

const ENDED: Malformed = Malformed("the NAL unit ends in the middle of a field");
const TOO_LONG: Malformed = Malformed("an Exp-Golomb code is longer than 32 bits");

impl<'a> Bits<'a> {
    /// A reader at the first bit of `payload`, a NAL unit without its header byte.
    pub fn new(payload: &'a [u8]) -> Self {
        Bits { bytes: payload, word: 0, left: 0, zeros: 0 }
    }

    /// Fills the word to 32 bits or more, as far as there are bytes.
    #[inline]
    fn fill(&mut self) {
        if self.left < 32 {
            self.refill();
        }
    }

    fn refill(&mut self) {
        if let Some((four, rest)) = self.bytes.split_first_chunk() {
            let four = u32::from_be_bytes(*four);
            // Without a 3 there is nothing to step over: the usual trick for "one of the bytes is zero".
            let threes = four ^ 0x0303_0303;
            if threes.wrapping_sub(0x0101_0101) & !threes & 0x8080_8080 == 0 {
                self.bytes = rest;
                self.word |= u64::from(four) << (32 - self.left);
                self.left += 32;
                self.zeros = if four == 0 { 2 } else { (four.trailing_zeros() / 8).min(2) };
                return;
            }
        }
        while self.left <= 56
            && let Some((&byte, rest)) = self.bytes.split_first()
        {
            self.bytes = rest;
            if self.zeros == 2 && byte == 3 {
                self.zeros = 0;
                continue;
            }
            self.word |= u64::from(byte) << (56 - self.left);
            self.left += 8;
            self.zeros = if byte == 0 { (self.zeros + 1).min(2) } else { 0 };
        }
    }

    /// Takes `n` (at most 32) bits off the word.
    #[inline]
    fn take(&mut self, n: u32) -> Result<u32, Malformed> {
        if n > self.left {
            return Err(ENDED);
        }
        // In two steps, as a shift by all 64 bits is none.
        let value = (self.word >> 1 >> (63 - n)) as u32;
        self.word <<= n;
        self.left -= n;
        Ok(value)
    }

    /// One bit: `u(1)`.
    ///
    /// # Errors
    /// The NAL unit has ended; so with every method here.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        Ok(self.u(1)? == 1)
    }

    /// The next `n` (at most 32) bits, most significant first: `u(n)`.
    pub fn u(&mut self, n: u32) -> Result<u32, Malformed> {
        debug_assert!(n <= 32);
        self.fill();
        self.take(n)
    }

    /// Unsigned Exp-Golomb: `ue(v)`, at most 2^32 - 2.
    pub fn ue(&mut self) -> Result<u32, Malformed> {
        self.fill();
        let zeros = self.word.leading_zeros();
        if zeros >= self.left.min(32) {
            return Err(if self.left < 32 { ENDED } else { TOO_LONG });
        }
        if zeros < 16 {
            // All of it is in the word: the zeros, the one behind them, and as many bits again.
            return Ok(self.take(2 * zeros + 1)? - 1);
        }
        self.take(zeros)?;
        // The one is on top, so this is 1 at least.
        Ok(self.u(zeros + 1)? - 1)
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

    /// One byte, then one bit, at a time.
    struct Model(Vec<bool>);

    impl Model {
        fn new(payload: &[u8]) -> Self {
            let (mut bits, mut zeros) = (Vec::new(), 0);
            for &byte in payload {
                if zeros >= 2 && byte == 3 {
                    zeros = 0;
                    continue;
                }
                zeros = if byte == 0 { zeros + 1 } else { 0 };
                bits.extend((0..8).rev().map(|bit| byte >> bit & 1 == 1));
            }
            bits.reverse();
            Model(bits)
        }

        fn u(&mut self, n: u32) -> Result<u32, Malformed> {
            (0..n).try_fold(0, |value, _| Ok(value << 1 | u32::from(self.0.pop().ok_or(ENDED)?)))
        }

        fn ue(&mut self) -> Result<u32, Malformed> {
            let mut zeros = 0;
            while self.u(1)? == 0 {
                zeros += 1;
                if zeros == 32 {
                    return Err(TOO_LONG);
                }
            }
            Ok(((1u64 << zeros) - 1) as u32 + self.u(zeros)?)
        }
    }

    #[test]
    fn words_read_as_single_bits_do() {
        let mut state = 1u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % below
        };
        for _ in 0..20_000 {
            // Mostly what the emulation prevention is about.
            let payload: Vec<u8> = (0..next(24)).map(|_| [0, 0, 0, 3, 3, 1, 0x80, 0xff][next(8)]).collect();
            let (mut bits, mut model) = (Bits::new(&payload), Model::new(&payload));
            loop {
                let (got, want) = match next(3) {
                    0 => (bits.ue(), model.ue()),
                    1 => (bits.flag().map(u32::from), model.u(1)),
                    _ => {
                        let n = next(33) as u32;
                        (bits.u(n), model.u(n))
                    }
                };
                assert_eq!(got, want, "{payload:?}");
                if got.is_err() {
                    break;
                }
            }
        }
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
