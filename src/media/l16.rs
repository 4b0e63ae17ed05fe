//! Frames of linear PCM from a byte stream that is cut anywhere, in the middle of a sample, too.

use crate::time::Instant;

/// Frames a second: each lasts 20 ms.
const FRAMES_PER_S: u32 = 50;

/// Frames that are read at once.
const READ_FRAMES: usize = 4;

/// 20 ms of one channel as they came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The samples.
    pub pcm: &'a [i16],
    /// When the last of them was read.
    pub arrival: Instant,
}

/// Cuts S16LE of one channel into frames of 20 ms. Nothing in such a stream tells where a sample begins: bytes are
/// counted from the start, and from [`Assembler::reset`].
pub struct Assembler {
    bytes: Box<[u8]>,
    len: usize,
    /// Bytes at the front that were handed out.
    taken: usize,
    pcm: Box<[i16]>,
    latest: Instant,
}

impl Assembler {
    /// For samples at `rate_hz`, of which 20 ms must be a whole number; so it is for all rates of `audio.rate_hz`.
    pub fn new(rate_hz: u32) -> Self {
        let samples = (rate_hz / FRAMES_PER_S).max(1) as usize;
        Assembler {
            bytes: vec![0; READ_FRAMES * 2 * samples].into_boxed_slice(),
            len: 0,
            taken: 0,
            pcm: vec![0; samples].into_boxed_slice(),
            latest: Instant::ZERO,
        }
    }

    /// Where the next bytes belong; never empty after [`Assembler::poll_frame`] said `None`.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.taken..self.len, 0);
        self.len -= core::mem::take(&mut self.taken);
        &mut self.bytes[self.len..]
    }

    /// `n` bytes were put into the [receive buffer](Assembler::receive_buffer).
    pub fn handle_received(&mut self, n: usize, now: Instant) {
        self.len = (self.len + n).min(self.bytes.len());
        self.latest = now;
    }

    /// The next frame that is whole; call until `None` after each read.
    pub fn poll_frame(&mut self) -> Option<Frame<'_>> {
        let end = self.taken + 2 * self.pcm.len();
        let bytes = self.bytes[..self.len].get(self.taken..end)?;
        for (sample, bytes) in self.pcm.iter_mut().zip(bytes.as_chunks().0) {
            *sample = i16::from_le_bytes(*bytes);
        }
        self.taken = end;
        Some(Frame { pcm: &self.pcm, arrival: self.latest })
    }

    /// Forgets what is not whole: the writer has gone away or rests, and what comes next begins with a whole sample.
    pub fn reset(&mut self) {
        self.taken = 0;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000, 1001, … in S16LE, and the other way round.
    fn samples(count: i16) -> Vec<u8> {
        (1_000..1_000 + count).flat_map(i16::to_le_bytes).collect()
    }

    fn receive(assembler: &mut Assembler, bytes: &[u8], step: usize) -> Vec<Vec<i16>> {
        let (mut frames, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let room = assembler.receive_buffer();
            let piece;
            (piece, rest) = rest.split_at(step.min(rest.len()).min(room.len()));
            assert!(!piece.is_empty(), "there is always room");
            room[..piece.len()].copy_from_slice(piece);
            assembler.handle_received(piece.len(), Instant::ZERO);
            while let Some(frame) = assembler.poll_frame() {
                frames.push(frame.pcm.to_vec());
            }
        }
        frames
    }

    #[test]
    fn frames_come_out_whole_however_they_come_in() {
        let want: Vec<i16> = (1_000..1_000 + 1_600).collect();
        for step in [1, 2, 3, 319, 320, 321, 5_000] {
            let frames = receive(&mut Assembler::new(8_000), &samples(1_600), step);
            assert!(frames.iter().all(|frame| frame.len() == 160), "{step}");
            assert_eq!(frames.concat(), want, "{step}");
        }
        assert_eq!(receive(&mut Assembler::new(44_100), &samples(882), 99)[0].len(), 882);
    }

    #[test]
    fn the_lower_byte_comes_first() {
        let frames = receive(&mut Assembler::new(50), b"\x01\x00\xff\xff\x00\x80\xff\x7f", 3);
        assert_eq!(frames, [[1], [-1], [i16::MIN], [i16::MAX]]);
    }

    #[test]
    fn a_frame_has_the_time_of_its_last_byte() {
        let mut assembler = Assembler::new(8_000);
        assembler.receive_buffer()[..319].fill(7);
        assembler.handle_received(319, Instant::from_micros(1));
        assert_eq!(assembler.poll_frame(), None);
        assembler.handle_received(1, Instant::from_micros(2));
        assert_eq!(assembler.poll_frame().map(|frame| frame.arrival), Some(Instant::from_micros(2)));
    }

    #[test]
    fn a_new_writer_begins_with_a_whole_sample() {
        let bytes = samples(160);
        let mut assembler = Assembler::new(8_000);
        assert!(receive(&mut assembler, &bytes[..3], 9).is_empty());
        assembler.reset();
        assert_eq!(receive(&mut assembler, &bytes, 500), [(1_000..1_160).collect::<Vec<i16>>()]);
    }
}
