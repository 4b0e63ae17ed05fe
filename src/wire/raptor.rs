//! The rings in shared memory that the streamer Raptor (RSS) publishes its streams in, version 4 of them, and the ring
//! for its loudspeaker: a page with the header, slots, then the bytes of the frames. All numbers are little-endian,
//! "atomic" ones are aligned. (`rss_ring_header_t` and `rss_ring_slot_t` of raptor-ipc's rss_ipc.h)

use super::{Malformed, Writer};

/// Bytes of the header that mean something.
pub const HEADER_BYTES: usize = 192;
/// Where the slots begin.
pub const SLOTS_AT: u32 = 4096;
/// From slot to slot.
pub const SLOT_BYTES: u32 = 32;
/// More slots than this no ring has.
pub const SLOTS_MAX: u32 = 64;
/// The version whose layout this is.
pub const VERSION: u32 = 4;

/// The header's place for the sequence of the newest frame, 64 bits.
pub const WRITE_SEQ: u32 = 0;
/// The lower half again, stored later: the word that readers wait for. It counts on when the writer goes.
pub const FUTEX_SEQ: u32 = 8;
/// Where the writer's next frame goes. It moves on before a frame is written, whose slot shows nothing of it until then.
pub const DATA_HEAD: u32 = 20;
/// Written when all the rest is there.
pub const MAGIC: u32 = 52;
/// Counts how often the ring was made in the same place.
pub const INCARNATION: u32 = 60;
/// A reader stores 1 and gets a key frame.
pub const IDR_REQUEST: u32 = 64;
/// Readers whose frames are made for them alone.
pub const READER_COUNT: u32 = 68;
/// Who they are: process numbers, 0 where a place is free.
pub const READER_PIDS: u32 = 72;
/// Places for them.
pub const READERS_MAX: u32 = 4;

/// What [`MAGIC`] is.
pub const MAGIC_VALUE: u32 = 0x5253_5352;
/// The sequence of a slot that is being written.
pub const BUSY: u64 = u64::MAX;

const REFERENCES: u32 = 1;
const BUFFERS: usize = 8;

/// What is in a ring of video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Codec(pub u32);

impl Codec {
    /// Video: H.264.
    pub const H264: Codec = Codec(0);
    /// Video: H.265.
    pub const H265: Codec = Codec(1);
    /// Sound: μ-law (ITU-T G.711).
    pub const PCMU: Codec = Codec(0);
    /// Sound: A-law (ITU-T G.711).
    pub const PCMA: Codec = Codec(8);
    /// Sound: 16-bit PCM in network byte order (RFC 3551 §4.5.11).
    pub const L16: Codec = Codec(11);
    /// Sound: raw AAC frames.
    pub const AAC: Codec = Codec(97);
    /// Sound: Opus packets.
    pub const OPUS: Codec = Codec(111);

    /// The name of a codec of sound.
    pub fn sound(self) -> &'static str {
        match self {
            Codec::PCMU | Codec::PCMA => "G.711",
            Codec::L16 => "L16",
            Codec::AAC => "AAC",
            Codec::OPUS => "Opus",
            _ => "of an unknown kind",
        }
    }
}

/// The header as far as readers need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The lower half of the newest frame's sequence; 0: none yet.
    pub newest: u32,
    /// Readers were woken without a frame, as the writer does when it goes.
    pub is_left: bool,
    /// A power of two.
    pub slots: u32,
    /// Bytes of frames behind the slots.
    pub data_bytes: u32,
    /// Behind the newest frame, or the one that is being written: see [`DATA_HEAD`].
    pub data_head: u32,
    /// What is in it.
    pub codec: Codec,
    /// Frames or samples a second.
    pub rate: u32,
    /// H.264: profile_idc; AAC: the audio object type.
    pub profile: u8,
    /// Odd while codec, rate and profile change; another number afterwards.
    pub generation: u16,
    /// See [`INCARNATION`].
    pub incarnation: u32,
    /// The frames are not in here but in the encoder's memory.
    pub encoder: Option<Encoder>,
}

/// The encoder's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoder {
    /// How much of it.
    pub bytes: u32,
    /// Where it begins in the device.
    pub offset: u32,
    /// Another number when it has moved.
    pub generation: u8,
    /// How often each of its buffers was filled.
    pub filled: [u32; BUFFERS],
}

/// Why a header is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It is being written.
    NotReady,
    /// It has another layout.
    Version(u32),
    /// It contradicts itself.
    Malformed(Malformed),
}

fn u32_at(bytes: &[u8], at: u32) -> u32 {
    let at = at as usize;
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl Header {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Refused> {
        if u32_at(bytes, MAGIC) != MAGIC_VALUE {
            return Err(Refused::NotReady);
        }
        let version = u32_at(bytes, 56);
        if version != VERSION {
            return Err(Refused::Version(version));
        }
        let slots = u32_at(bytes, 12);
        if !slots.is_power_of_two() || slots > SLOTS_MAX {
            return Err(Refused::Malformed(Malformed("its number of slots is no power of two up to 64")));
        }
        let encoder = (u32_at(bytes, 88) & REFERENCES != 0).then(|| Encoder {
            bytes: u32_at(bytes, 96),
            offset: u32_at(bytes, 100),
            generation: bytes[145],
            filled: core::array::from_fn(|i| u32_at(bytes, 108 + 4 * i as u32)),
        });
        Ok(Header {
            newest: u32_at(bytes, WRITE_SEQ),
            is_left: u32_at(bytes, FUTEX_SEQ).wrapping_sub(u32_at(bytes, WRITE_SEQ)) as i32 > 0,
            slots,
            data_bytes: u32_at(bytes, 16),
            data_head: u32_at(bytes, DATA_HEAD),
            codec: Codec(u32_at(bytes, 28)),
            rate: u32_at(bytes, 40),
            profile: bytes[48],
            generation: u16::from_le_bytes([bytes[50], bytes[51]]),
            incarnation: u32_at(bytes, INCARNATION),
            encoder,
        })
    }

    /// Bytes of the whole ring. In the encoder's case nobody reads behind the slots.
    pub fn ring_bytes(&self) -> u64 {
        let data_bytes = if self.encoder.is_some() { 0 } else { self.data_bytes };
        u64::from(self.data_at()) + u64::from(data_bytes)
    }

    /// Where the bytes of the frames begin.
    pub fn data_at(&self) -> u32 {
        SLOTS_AT + SLOT_BYTES * self.slots
    }

    /// Where the slot of a frame is.
    pub fn slot_at(&self, sequence: u32) -> u32 {
        SLOTS_AT + SLOT_BYTES * (sequence & (self.slots - 1))
    }
}

/// A frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The lower half of its sequence; `None` while it is being written.
    pub sequence: Option<u32>,
    /// From the beginning of the data, or of the encoder's memory.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// Microseconds of the streamer's clock.
    pub timestamp_us: i64,
    /// A picture that needs no other.
    pub key: bool,
    /// The encoder's buffer that it is in.
    pub buffer: u8,
    /// How often that was filled then.
    pub filled: u32,
}

impl Slot {
    /// Reads a slot: any bytes are one.
    pub fn parse(bytes: &[u8; SLOT_BYTES as usize]) -> Self {
        let [a, b] = [u32_at(bytes, 0), u32_at(bytes, 4)];
        let [c, d] = [u32_at(bytes, 16), u32_at(bytes, 20)];
        Slot {
            sequence: (a != u32::MAX || b != u32::MAX).then_some(a),
            offset: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            timestamp_us: (u64::from(c) | u64::from(d) << 32) as i64,
            key: bytes[26] != 0,
            buffer: bytes[27],
            filled: u32_at(bytes, 28),
        }
    }

    /// Whether its bytes are still those that it was published with.
    pub fn is_current(&self, encoder: &Encoder) -> bool {
        encoder.filled.get(usize::from(self.buffer)) == Some(&self.filled)
    }

    /// Whether some of its bytes are among those.
    pub fn overlaps(&self, offset: u32, length: u32) -> bool {
        let end = |offset, length| u64::from(offset) + u64::from(length);
        u64::from(offset) < end(self.offset, self.length) && u64::from(self.offset) < end(offset, length)
    }

    /// Writes a slot of a ring that has its bytes in it, without its sequence, which stands before all this.
    pub fn put(&self, w: &mut Writer<'_>) {
        for number in [self.offset, self.length, self.timestamp_us as u32, (self.timestamp_us >> 32) as u32] {
            w.u32_le(number);
        }
        w.bytes(&[0xff, 0, u8::from(self.key), self.buffer]);
        w.u32_le(self.filled);
    }
}

/// Writes the header of an empty ring of PCM, without the magic number, which is written last.
pub fn put_pcm_header(w: &mut Writer<'_>, slots: u32, data_bytes: u32, rate_hz: u32, incarnation: u32) {
    let numbers = [0, 0, 0, slots, data_bytes, 0, 0x10, Codec::L16.0, 0, 0, rate_hz, 1, 0, 0, VERSION, incarnation];
    for number in numbers {
        w.u32_le(number);
    }
    w.bytes(&[0; HEADER_BYTES - 64]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, 0x0102_0304);
        put(4, 1);
        put(8, 0x0102_0304);
        put(12, 32);
        put(16, 262_144);
        put(20, 4_321);
        put(28, 97);
        put(40, 16_000);
        put(44, 1);
        put(48, 0x0006_2a02);
        put(52, 0x5253_5352);
        put(56, 4);
        put(60, 9);
        put(96, 0x0010_0000);
        put(100, 0x2000);
        put(108, 77);
        put(136, 78);
        put(144, 0x0500);
        bytes
    }

    #[test]
    fn a_header_is_read_by_its_offsets() {
        let mut bytes = header();
        let read = Header::parse(&bytes).expect("a header");
        let expected = Header {
            newest: 0x0102_0304,
            is_left: false,
            slots: 32,
            data_bytes: 262_144,
            data_head: 4_321,
            codec: Codec::AAC,
            rate: 16_000,
            profile: 2,
            generation: 6,
            incarnation: 9,
            encoder: None,
        };
        assert_eq!(read, expected);
        assert_eq!((read.data_at(), read.ring_bytes()), (5_120, 267_264));
        assert_eq!((read.slot_at(32), read.slot_at(65)), (4_096, 4_128));
        // Between the two stores the frame is there already, and later there is none to wake up for.
        for (woken, is_left) in [(0x0102_0303u32, false), (0x0102_0305, true)] {
            bytes[8..12].copy_from_slice(&woken.to_le_bytes());
            let read = Header::parse(&bytes).expect("a header");
            assert_eq!((read.newest, read.is_left), (0x0102_0304, is_left));
        }
        bytes[88] = 1;
        let read = Header::parse(&bytes).expect("a header");
        let filled = [77, 0, 0, 0, 0, 0, 0, 78];
        assert_eq!(read.encoder, Some(Encoder { bytes: 0x0010_0000, offset: 0x2000, generation: 5, filled }));
        assert_eq!(read.ring_bytes(), 5_120);
    }

    #[test]
    fn other_headers_are_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = header();
            bytes[at] = value;
            Header::parse(&bytes)
        };
        assert_eq!(with(52, 0), Err(Refused::NotReady));
        assert_eq!(with(56, 3), Err(Refused::Version(3)));
        for slots in [0, 3, 33, 128] {
            assert!(matches!(with(12, slots), Err(Refused::Malformed(_))), "{slots}");
        }
        assert_eq!(Header::parse(&[0; HEADER_BYTES]), Err(Refused::NotReady));
        assert!(Header::parse(&[0xff; HEADER_BYTES]).is_err());
    }

    #[test]
    fn a_slot_is_read_by_its_offsets() {
        let mut bytes = [0; 32];
        bytes[0] = 5;
        bytes[4] = 1;
        bytes[8..12].copy_from_slice(&100u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&200u32.to_le_bytes());
        bytes[16..24].copy_from_slice(&(-3_000_000_000i64).to_le_bytes());
        bytes[24..28].copy_from_slice(&[0x13, 0, 1, 7]);
        bytes[28..].copy_from_slice(&78u32.to_le_bytes());
        let slot = Slot::parse(&bytes);
        let expected = Slot {
            sequence: Some(5),
            offset: 100,
            length: 200,
            timestamp_us: -3_000_000_000,
            key: true,
            buffer: 7,
            filled: 78,
        };
        assert_eq!(slot, expected);
        let encoder = Encoder { bytes: 0, offset: 0, generation: 0, filled: [0, 0, 0, 0, 0, 0, 0, 78] };
        assert!(slot.is_current(&encoder));
        assert!(!Slot { filled: 77, ..slot }.is_current(&encoder));
        assert!(!Slot { buffer: 8, ..slot }.is_current(&encoder), "there is no such buffer");
        bytes[..8].fill(0xff);
        assert_eq!(Slot::parse(&bytes).sequence, None);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut bytes = [0; HEADER_BYTES];
        let mut w = Writer::new(&mut bytes);
        put_pcm_header(&mut w, 16, 65_536, 16_000, 3);
        assert_eq!(w.finish().expect("it fits").len(), HEADER_BYTES);
        assert_eq!(Header::parse(&bytes), Err(Refused::NotReady));
        bytes[52..56].copy_from_slice(&MAGIC_VALUE.to_le_bytes());
        let header = Header::parse(&bytes).expect("a header");
        assert_eq!((header.slots, header.data_bytes, header.rate, header.incarnation), (16, 65_536, 16_000, 3));
        assert_eq!((header.newest, header.codec, header.encoder), (0, Codec::L16, None));
        let slot =
            Slot { sequence: Some(1), offset: 7, length: 640, timestamp_us: 1 << 40, key: true, buffer: 0, filled: 0 };
        let mut bytes = [0; 32];
        bytes[0] = 1;
        let mut w = Writer::new(&mut bytes[8..]);
        slot.put(&mut w);
        w.finish().expect("it fits");
        assert_eq!(Slot::parse(&bytes), slot);
    }
}
