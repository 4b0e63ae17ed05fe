//! The circular buffer in shared memory that the vendor's program of Yi's cameras with Allwinner processors writes all
//! its streams into, one frame behind the other. All numbers are little-endian, nothing is aligned. (rRTSPServer of
//! yi-hack-Allwinner: `frame_header_22`, `…_24`, `…_26`, `…_28`)

use super::Malformed;

/// Bytes of the buffer's header that mean something.
pub const CONTROL_BYTES: usize = 20;
/// The longest header of a frame.
pub const HEADER_MAX: usize = 28;

/// Bytes between the header of a frame with an SPS and its first start code.
const BEFORE_SPS: u32 = 6;

/// How the firmware of a model lays its frames out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The model, in small letters.
    pub model: &'static str,
    /// Bytes of a frame's header: 22, 24, 26 or 28.
    header: u8,
}

/// Models by the length of their headers.
const MODELS: [(u8, &str); 4] = [
    (22, "y20ga y25ga y30qa"),
    (24, "y501gc"),
    (26, "r40ga q321br qg311r b091qp"),
    (28, "y21ga y211ga y213ga y291ga h30ga h51ga h52ga h60ga y28ga y29ga y623"),
];

impl Layout {
    /// That of a model, when it is known.
    pub fn of(model: &str) -> Option<Layout> {
        let known = |(header, models): &(u8, &'static str)| {
            models.split(' ').find(|known| *known == model).map(|model| Layout { model, header: *header })
        };
        MODELS.iter().find_map(known)
    }

    /// Bytes of a frame's header.
    pub const fn header_bytes(self) -> usize {
        self.header as usize
    }

    /// Where the frames begin, and where they go on behind the end of the buffer.
    pub const fn frames_at(self) -> u32 {
        if self.header.is_multiple_of(4) { 368 } else { 300 }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

/// The buffer's header: which part of the circle is frames. Places count from where the frames begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    /// The writer has it locked.
    pub locked: bool,
    /// The oldest frame.
    start: u32,
    /// Behind the newest frame.
    pub end: u32,
    /// Bytes from `start` to `end`.
    length: u32,
    /// Once around.
    circle: u32,
}

impl Control {
    /// Reads it; `file_bytes` is the size of all of the buffer.
    ///
    /// # Errors
    /// Its numbers contradict each other: it is being written, or is another thing.
    pub fn parse(bytes: &[u8], layout: Layout, file_bytes: u32) -> Result<Control, Malformed> {
        let word = |at| u32_at(bytes, at).ok_or(Malformed("frame buffer: too short"));
        let (locked, length, end, start) = (word(0)? != 0, word(4)?, word(12)?, word(16)?);
        let circle = file_bytes.saturating_sub(layout.frames_at());
        if start >= circle
            || length > circle
            || (u64::from(start) + u64::from(length)) % u64::from(circle) != u64::from(end)
        {
            return Err(Malformed("frame buffer: its ends contradict its length"));
        }
        Ok(Control { locked, start, end, length, circle })
    }

    /// The place `bytes` behind `at`.
    pub fn behind(&self, at: u32, bytes: u32) -> u32 {
        ((u64::from(at) + u64::from(bytes)) % u64::from(self.circle)) as u32
    }

    /// How many bytes of frames are there from this place on; `None` when it is not among them (any more).
    pub fn available(&self, at: u32) -> Option<u32> {
        let from = |a: u32, b: u32| if b >= a { b - a } else { b + (self.circle - a) };
        if at >= self.circle {
            return None;
        }
        let available = from(at, self.end);
        let is_among = available == 0 || from(self.start, at) + available == self.length;
        is_among.then_some(available)
    }

    /// How much of `bytes` from this place on lies in one piece.
    pub fn in_one_piece(&self, at: u32, bytes: u32) -> u32 {
        bytes.min(self.circle.saturating_sub(at))
    }
}

/// What a frame is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The large picture.
    High,
    /// The small one.
    Low,
    /// Sound: AAC in ADTS.
    Sound,
    /// Something else.
    Other,
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is of.
    pub kind: Kind,
    /// Begins a picture of H.265.
    pub is_h265: bool,
    /// When it was made, in milliseconds.
    pub time_ms: u32,
    /// Bytes of the header, and what stands between it and the payload.
    pub skip: u32,
    /// Bytes of all of it: header and payload.
    pub total: u32,
}

impl Frame {
    /// Reads a header of this layout.
    ///
    /// # Errors
    /// When it is too short, or says that nothing follows it.
    pub fn parse(bytes: &[u8], layout: Layout) -> Result<Frame, Malformed> {
        const LOW: u16 = 0x0800;
        const HIGH: u16 = 0x0400;
        const AAC: u16 = 0x0100;
        const VPS: u16 = 0x0008;
        const SPS: u16 = 0x0002;
        // The two larger ones have one more number in front of the time.
        let time_at = if layout.header >= 26 { 16 } else { 12 };
        let fields = || Some((u32_at(bytes, 0)?, u32_at(bytes, time_at)?, u16_at(bytes, time_at + 4)?));
        let (length, time_ms, bits) =
            fields().filter(|_| bytes.len() >= layout.header_bytes()).ok_or(Malformed("frame: too short"))?;
        let kind = match bits {
            _ if bits & LOW != 0 => Kind::Low,
            _ if bits & HIGH != 0 => Kind::High,
            _ if bits & AAC != 0 => Kind::Sound,
            _ => Kind::Other,
        };
        let is_picture = matches!(kind, Kind::High | Kind::Low);
        let before = if is_picture && bits & SPS != 0 { BEFORE_SPS } else { 0 };
        let header = u32::from(layout.header);
        let total = length.checked_add(header).filter(|_| length > before).ok_or(Malformed("frame: its length"))?;
        Ok(Frame { kind, is_h265: is_picture && bits & VPS != 0, time_ms, skip: header + before, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(words: [u32; 5]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn layout(header: u8) -> Layout {
        Layout { model: "test", header }
    }

    #[test]
    fn models_have_their_layouts() {
        for (model, header, frames_at) in
            [("y20ga", 22, 300), ("y501gc", 24, 368), ("b091qp", 26, 300), ("y21ga", 28, 368), ("y623", 28, 368)]
        {
            let layout = Layout::of(model).expect(model);
            assert_eq!((layout.model, layout.header_bytes(), layout.frames_at()), (model, header, frames_at));
        }
        for unknown in ["", "y20", "y20ga y25ga", "Y20GA", " "] {
            assert_eq!(Layout::of(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn headers_of_all_lengths_are_read() {
        // As documented: len, counter, u1, (u2,) time, type, stream_counter, the rest.
        for (header, before_time, rest) in [(22, 4, 2), (24, 4, 4), (26, 8, 2), (28, 8, 4)] {
            let bytes = [
                &1000u32.to_le_bytes()[..],
                &7u32.to_le_bytes(),
                &vec![0xff; before_time],
                &86_400_000u32.to_le_bytes(),
                &0x0402u16.to_le_bytes(),
                &9u16.to_le_bytes(),
                &vec![0xff; rest],
            ]
            .concat();
            let skip = u32::from(header) + 6;
            let total = 1000 + u32::from(header);
            let want = Frame { kind: Kind::High, is_h265: false, time_ms: 86_400_000, skip, total };
            assert_eq!(Frame::parse(&bytes, layout(header)), Ok(want), "{header}");
            for cut in 0..bytes.len() {
                assert!(Frame::parse(&bytes[..cut], layout(header)).is_err(), "{header} {cut}");
            }
        }
    }

    #[test]
    fn the_bits_say_what_a_frame_is() {
        let frame = |length: u32, bits: u16| {
            let mut bytes = [0; 22];
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            bytes[16..18].copy_from_slice(&bits.to_le_bytes());
            Frame::parse(&bytes, layout(22))
        };
        for (bits, kind, skip, is_h265) in [
            (0x0800, Kind::Low, 22, false),
            (0x0802, Kind::Low, 28, false),
            (0x0400, Kind::High, 22, false),
            (0x0408, Kind::High, 22, true),
            (0x0100, Kind::Sound, 22, false),
            (0x0102, Kind::Sound, 22, false),
            (0x0001, Kind::Other, 22, false),
        ] {
            let frame = frame(100, bits).expect("a frame");
            assert_eq!((frame.kind, frame.skip, frame.is_h265, frame.total), (kind, skip, is_h265, 122), "{bits:x}");
        }
        assert!(frame(0, 0x0100).is_err() && frame(6, 0x0402).is_err() && frame(u32::MAX - 21, 0x0400).is_err());
        assert!(frame(1, 0x0100).is_ok() && frame(7, 0x0402).is_ok() && frame(u32::MAX - 22, 0x0400).is_ok());
    }

    #[test]
    fn the_circle_is_closed_at_every_byte() {
        // A circle of 10.
        for start in 0..10 {
            for length in 0..=10 {
                let end = (start + length) % 10;
                let there = control([0, length, 99, end, start]);
                let control = Control::parse(&there, layout(22), 310).expect("consistent");
                for n in 0..10 {
                    let at = control.behind(start, n);
                    // A full circle ends where it begins: nobody waits for a frame there.
                    let want = if at == end { Some(0) } else { (n <= length).then(|| length - n) };
                    assert_eq!(control.available(at), want, "{start} {length} {n}");
                    let piece = control.in_one_piece(at, length);
                    assert!(at + piece <= 10 && (piece == length || at + piece == 10));
                }
                assert_eq!(control.available(10), None);
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let parse = |words, file_bytes| Control::parse(&control(words), layout(22), file_bytes).is_ok();
        assert!(parse([0, 5, 0, 5, 0], 310) && parse([1, 5, 0, 3, 8], 310));
        for words in [
            [0, 5, 0, 4, 0],
            [0, 11, 0, 1, 0],
            [0, 0, 0, 10, 10],
            [0, 5, 0, 10, 5],
            [0, u32::MAX, 0, 0, 1],
            [0, 2, 0, u32::MAX, u32::MAX],
        ] {
            assert!(!parse(words, 310), "{words:?}");
        }
        for file_bytes in [0, 299, 300] {
            assert!(!parse([0; 5], file_bytes), "{file_bytes}");
        }
        assert!(Control::parse(&control([0; 5])[..19], layout(22), 310).is_err());
    }
}
