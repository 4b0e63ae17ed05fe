//! Raw AAC frames from an ADTS byte stream that is cut anywhere.

use crate::time::Instant;
use crate::wire::aac::{ADTS_HEADER_LEN, Adts};

/// Largest ADTS frame: aac_frame_length has 13 bits (ISO/IEC 13818-7 §6.2.2).
const MAX_FRAME: usize = 8191;

/// One raw AAC frame as it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// raw_data_block, without ADTS header and CRC.
    pub raw: &'a [u8],
    /// Sampling rate in Hz.
    pub rate_hz: u32,
    /// Channels.
    pub channels: u8,
    /// When its last byte was read.
    pub arrival: Instant,
}

/// Cuts an ADTS stream into frames. A frame is handed out as soon as its last byte is in; only at the
/// start and after garbage is a second header waited for, because a syncword alone proves little.
pub struct Assembler {
    buffer: Box<[u8]>,
    len: usize,
    /// Bytes at the front that were handed out.
    taken: usize,
    synchronised: bool,
    /// Bytes passed over since the start or the last frame.
    passed: usize,
    latest: Instant,
    garbage: u32,
}

impl Default for Assembler {
    fn default() -> Self {
        Assembler {
            buffer: vec![0; MAX_FRAME + ADTS_HEADER_LEN].into_boxed_slice(),
            len: 0,
            taken: 0,
            synchronised: false,
            passed: 0,
            latest: Instant::ZERO,
            garbage: 0,
        }
    }
}

impl Assembler {
    /// Where the next bytes belong; never empty after [`Assembler::poll_frame`] said `None`.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        self.remove_taken();
        &mut self.buffer[self.len..]
    }

    /// `n` bytes were put into the [receive buffer](Assembler::receive_buffer).
    pub fn handle_received(&mut self, n: usize, now: Instant) {
        self.len = (self.len + n).min(self.buffer.len());
        self.latest = now;
    }

    /// The next frame that is whole; call until `None` after each read.
    pub fn poll_frame(&mut self) -> Option<Frame<'_>> {
        self.remove_taken();
        loop {
            if self.len < ADTS_HEADER_LEN {
                return None;
            }
            let Ok(adts) = Adts::parse(&self.buffer[..self.len]) else {
                self.pass_over_a_byte();
                continue;
            };
            let needed = adts.frame_len + if self.synchronised { 0 } else { ADTS_HEADER_LEN };
            if self.len < needed {
                return None;
            }
            if !self.synchronised && Adts::parse(&self.buffer[adts.frame_len..self.len]).is_err() {
                self.pass_over_a_byte();
                continue;
            }
            self.synchronised = true;
            self.passed = 0;
            self.taken = adts.frame_len;
            return Some(Frame {
                raw: &self.buffer[adts.header_len..adts.frame_len],
                rate_hz: adts.rate_hz,
                channels: adts.channels,
                arrival: self.latest,
            });
        }
    }

    /// Forgets what is not whole: the writer has gone away.
    pub fn reset(&mut self) {
        self.taken = 0;
        self.len = 0;
        self.synchronised = false;
        self.passed = 0;
    }

    /// Stretches of bytes that were no ADTS, since the start.
    pub fn garbage(&self) -> u32 {
        self.garbage
    }

    fn pass_over_a_byte(&mut self) {
        // Up to the next byte that may begin a syncword.
        let next = self.buffer[1..self.len].iter().position(|&b| b == 0xff).map_or(self.len, |at| at + 1);
        let before = self.passed;
        self.passed = before.saturating_add(next);
        if core::mem::take(&mut self.synchronised) {
            // Told now, not again for the same stretch.
            self.passed = 2 * MAX_FRAME;
            self.garbage = self.garbage.saturating_add(1);
        } else if before < 2 * MAX_FRAME && self.passed >= 2 * MAX_FRAME {
            // A stream may begin in the middle of a frame; this is something else.
            self.garbage = self.garbage.saturating_add(1);
        }
        self.taken = next;
        self.remove_taken();
    }

    fn remove_taken(&mut self) {
        let taken = core::mem::take(&mut self.taken);
        if taken > 0 {
            self.buffer.copy_within(taken..self.len, 0);
            self.len -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of 16 kHz mono with `raw` as content.
    fn adts(raw: &[u8]) -> Vec<u8> {
        let len = raw.len() + 7;
        let mut frame = vec![0xff, 0xf1, 0x60, 0x40, (len >> 3) as u8, (len << 5) as u8 | 0x1f, 0xfc];
        frame[3] |= (len >> 11) as u8;
        frame.extend(raw);
        frame
    }

    fn assemble(assembler: &mut Assembler, stream: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for piece in stream.chunks(step) {
            let room = assembler.receive_buffer();
            room[..piece.len()].copy_from_slice(piece);
            assembler.handle_received(piece.len(), Instant::ZERO);
            while let Some(frame) = assembler.poll_frame() {
                assert_eq!((frame.rate_hz, frame.channels), (16_000, 1));
                out.push(frame.raw.to_vec());
            }
        }
        out
    }

    #[test]
    fn frames_come_out_whole_however_they_come_in() {
        let raws: Vec<Vec<u8>> = (1..30u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        let stream: Vec<u8> = raws.iter().flat_map(|raw| adts(raw)).collect();
        for step in [1, 2, 3, 8, 100, 5000] {
            let mut assembler = Assembler::default();
            assert_eq!(assemble(&mut assembler, &stream, step), raws, "{step}");
            assert_eq!(assembler.garbage(), 0);
        }
    }

    #[test]
    fn a_frame_needs_no_successor_once_synchronised() {
        let mut assembler = Assembler::default();
        assert!(assemble(&mut assembler, &adts(b"one"), 99).is_empty());
        assert_eq!(assemble(&mut assembler, &adts(b"two"), 99).len(), 2);
        assert_eq!(assemble(&mut assembler, &adts(b"three"), 99), [b"three"]);
    }

    #[test]
    fn garbage_and_false_syncwords_are_passed_over() {
        let stream = [&b"\xff\xf1\x60\x40\x02\x7f\xfc\xffnoise"[..], &adts(b"a"), &adts(b"b"), b"\xff\xff\xffgarbage"];
        let stream = [&stream.concat()[..], &adts(b"c"), &adts(b"d"), &adts(b"e")].concat();
        let mut assembler = Assembler::default();
        assert_eq!(assemble(&mut assembler, &stream, 5), [b"a", b"b", b"c", b"d", b"e"]);
        assert_eq!(assembler.garbage(), 1);
    }

    #[test]
    fn a_stream_that_never_was_adts_is_told_once() {
        let mut assembler = Assembler::default();
        assert!(assemble(&mut assembler, &[0x55; MAX_FRAME], 300).is_empty());
        assert_eq!(assembler.garbage(), 0, "it may have begun in the middle of a frame");
        assert!(assemble(&mut assembler, &[0x55; 50_000], 300).is_empty());
        assert_eq!(assembler.garbage(), 1);
        assert_eq!(assemble(&mut assembler, &[adts(b"x"), adts(b"y")].concat(), 300).len(), 2);
        assert!(assemble(&mut assembler, &[0x55; 50_000], 300).is_empty());
        assert_eq!(assembler.garbage(), 2);
    }

    #[test]
    fn the_largest_frame_fits_and_the_buffer_never_fills() {
        let raw = vec![0x5a; MAX_FRAME - 7];
        let stream = [adts(&raw), adts(&raw), vec![0xff; 50_000], adts(b"x"), adts(b"y")].concat();
        let mut assembler = Assembler::default();
        let out = assemble(&mut assembler, &stream, 1);
        assert_eq!(out.len(), 4);
        assert_eq!(out[0], raw);
    }

    #[test]
    fn a_writer_that_goes_away_leaves_nothing_behind() {
        let mut assembler = Assembler::default();
        assemble(&mut assembler, &adts(b"half")[..9], 99);
        assembler.reset();
        assert_eq!(assemble(&mut assembler, &[adts(b"a"), adts(b"b")].concat(), 99), [b"a", b"b"]);
    }
}
