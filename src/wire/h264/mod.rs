//! H.264 as an encoder hands it out: NAL units in a byte stream (ITU-T H.264 §7.3.1, Annex B) and
//! what their headers say.

mod bits;
mod params;
pub mod slice;

pub use bits::Bits;
pub use params::{Pps, Sps, Timing};

use crate::wire::Writer;

/// nal_unit_type (Table 7-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NalType(pub u8);

impl NalType {
    /// A slice of a picture that is not an IDR picture.
    pub const SLICE: NalType = NalType(1);
    /// A slice of an IDR picture: decoding can start here.
    pub const IDR: NalType = NalType(5);
    /// Supplemental enhancement information.
    pub const SEI: NalType = NalType(6);
    /// Sequence parameter set.
    pub const SPS: NalType = NalType(7);
    /// Picture parameter set.
    pub const PPS: NalType = NalType(8);
    /// Access unit delimiter.
    pub const AUD: NalType = NalType(9);

    /// The type in the first byte of a NAL unit.
    pub fn of(header: u8) -> Self {
        NalType(header & 0x1f)
    }

    /// Whether the NAL unit carries picture samples (types 1 to 5): the only ones that a recording
    /// needs besides the parameter sets, which are in the `avcC`.
    pub fn is_vcl(self) -> bool {
        (1..=5).contains(&self.0)
    }
}

/// One NAL unit, header byte included, without start code and trailing zeros; never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nal<'a>(&'a [u8]);

impl<'a> Nal<'a> {
    /// `None` when there is not even a header.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.is_empty()).then_some(Nal(bytes))
    }

    /// The whole NAL unit.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// nal_unit_type.
    pub fn nal_type(self) -> NalType {
        NalType::of(self.0[0])
    }

    /// nal_ref_idc: 0 when no other picture refers to this one.
    pub fn ref_idc(self) -> u8 {
        self.0[0] >> 5 & 3
    }

    /// Whether this is a slice with first_mb_in_slice 0: a new primary picture begins. ue(v) codes 0
    /// as a single one bit, the first after the header (§7.3.3).
    pub fn starts_picture(self) -> bool {
        matches!(self.nal_type().0, 1 | 2 | 5) && self.0.get(1).is_some_and(|b| b & 0x80 != 0)
    }
}

/// A byte stream with 3- and 4-byte start codes (Annex B), and where those are as far as somebody has
/// searched already: whoever cut an access unit out of a stream knows, and the search of all its bytes
/// is what reading it costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnnexB<'a> {
    bytes: &'a [u8],
    /// Where the start codes begin, in front of `searched`.
    starts: &'a [u32],
    searched: usize,
}

impl<'a> AnnexB<'a> {
    /// Nobody has searched it.
    pub fn new(bytes: &'a [u8]) -> Self {
        AnnexB { bytes, starts: &[], searched: 0 }
    }

    /// All start codes that begin in front of `searched` are in `starts`, in order.
    pub fn indexed(bytes: &'a [u8], starts: &'a [u32], searched: usize) -> Self {
        AnnexB { bytes, starts, searched }
    }

    /// All of it.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Its NAL units.
    pub fn nals(self) -> Nals<'a> {
        let mut nals = Nals { stream: self, begin: None };
        nals.begin = nals.next_start(0).map(|at| at + 3);
        nals
    }
}

/// The NAL units of a byte stream. What stands in front of the first start code is passed over.
#[derive(Clone)]
pub struct Nals<'a> {
    stream: AnnexB<'a>,
    /// Behind the last start code that was found; `None` when there was none.
    begin: Option<usize>,
}

impl<'a> Nals<'a> {
    /// The NAL units in `stream`.
    pub fn new(stream: &'a [u8]) -> Self {
        AnnexB::new(stream).nals()
    }

    fn next_start(&mut self, from: usize) -> Option<usize> {
        let stream = &mut self.stream;
        if let Some((&at, rest)) = stream.starts.split_first() {
            stream.starts = rest;
            return Some(at as usize);
        }
        let from = from.max(stream.searched);
        find_start_code(stream.bytes.get(from..)?).map(|at| from + at)
    }
}

impl<'a> Iterator for Nals<'a> {
    type Item = Nal<'a>;

    fn next(&mut self) -> Option<Nal<'a>> {
        loop {
            let begin = self.begin?;
            let end = self.next_start(begin);
            self.begin = end.map(|at| at + 3);
            // An index that is wrong yields nothing.
            let nal = self.stream.bytes.get(begin..end.unwrap_or(self.stream.bytes.len())).unwrap_or_default();
            if let Some(nal) = Nal::new(trimmed(nal)) {
                return Some(nal);
            }
        }
    }
}

/// Where the first `00 00 01` of `bytes` begins.
pub fn find_start_code(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(1, bytes).find(|&at| at >= 2 && bytes[at - 1] == 0 && bytes[at - 2] == 0).map(|at| at - 2)
}

/// Without trailing_zero_8bits and the zero_byte of a 4-byte start code behind it: a NAL unit never
/// ends with a zero byte (§7.4.1).
fn trimmed(nal: &[u8]) -> &[u8] {
    let length = nal.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    &nal[..length]
}

/// The length of what [`put_length_prefixed`] writes for this access unit.
pub fn length_prefixed_len(annexb: AnnexB<'_>) -> usize {
    annexb.nals().filter(|nal| nal.nal_type().is_vcl()).map(|nal| 4 + nal.bytes().len()).sum()
}

/// Writes the slices of an Annex B access unit with 4-byte lengths instead of start codes
/// (ISO/IEC 14496-15 §5.3.3). Delimiters, parameter sets (they are in the `avcC`), SEI and filler
/// data stay behind.
pub fn put_length_prefixed(annexb: AnnexB<'_>, w: &mut Writer<'_>) {
    for nal in annexb.nals().filter(|nal| nal.nal_type().is_vcl()) {
        w.u32_be(nal.bytes().len() as u32);
        w.bytes(nal.bytes());
    }
}

/// Bytes from hexadecimal text.
#[cfg(test)]
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nals(stream: &[u8]) -> Vec<&[u8]> {
        Nals::new(stream).map(Nal::bytes).collect()
    }

    #[test]
    fn start_codes_of_both_lengths_and_trailing_zeros() {
        let stream = b"junk\0\0\0\x01\x67\x11\0\0\x01\x68\x22\x00\x33\0\0\0\0\x01\x65\x88\0\0\0";
        assert_eq!(nals(stream), [&b"\x67\x11"[..], b"\x68\x22\0\x33", b"\x65\x88"]);
    }

    #[test]
    fn nothing_and_empty_units_yield_nothing() {
        for stream in [&b""[..], b"\0", b"\0\0", b"\0\0\x01", b"\0\0\x01\0\0\x01\0\0", b"no start code"] {
            assert!(nals(stream).is_empty(), "{stream:?}");
        }
        assert_eq!(Nal::new(&[]), None);
    }

    #[test]
    fn an_index_changes_nothing_however_far_it_reaches() {
        let stream = b"junk\0\0\0\x01\x67\x11\0\0\x01\x68\x22\x00\x33\0\0\0\0\x01\x65\x88\0\0\0\0\x01\x41";
        let all: Vec<u32> =
            (0..stream.len()).filter(|&at| stream[at..].starts_with(b"\0\0\x01")).map(|at| at as u32).collect();
        assert_eq!(all.len(), 4);
        for searched in 0..=stream.len() {
            let known = all.partition_point(|&at| (at as usize) < searched);
            let indexed = AnnexB::indexed(stream, &all[..known], searched);
            assert!(indexed.nals().eq(Nals::new(stream)), "searched up to {searched}");
        }
        // What was searched is not searched again.
        assert_eq!(AnnexB::indexed(stream, &[], stream.len()).nals().count(), 0);
        // A wrong index does no harm.
        assert!(AnnexB::indexed(stream, &[900, 3, 4], 0).nals().count() < 5);
    }

    #[test]
    fn a_start_code_is_found_at_every_offset() {
        for offset in 0..9 {
            for filler in [0x00, 0x01, 0x02, 0xff] {
                let mut stream = vec![filler; offset];
                stream.extend(b"\0\0\x01\x65");
                let simple = stream.windows(3).position(|w| w == [0, 0, 1]);
                assert_eq!(find_start_code(&stream), simple, "{stream:?}");
            }
        }
    }

    #[test]
    fn the_header_says_type_and_reference() {
        let idr = Nal::new(b"\x65\x88").unwrap();
        assert_eq!((idr.nal_type(), idr.ref_idc()), (NalType::IDR, 3));
        assert!(idr.starts_picture());
        // first_mb_in_slice is not 0.
        assert!(!Nal::new(b"\x41\x5a").unwrap().starts_picture());
        assert!(!Nal::new(b"\x41").unwrap().starts_picture());
        assert!(!Nal::new(b"\x67\x88").unwrap().starts_picture());
    }

    #[test]
    fn start_codes_become_lengths_and_only_slices_stay() {
        let unit = b"\0\0\0\x01\x09\xf0\0\0\0\x01\x67\x01\0\0\x01\x68\x02\0\0\x01\x06\x05\0\0\x01\x65\xaa\xbb\0\0\x01\x65\x1c\0\0\x01\x0c\xff";
        let unit = AnnexB::new(unit);
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        put_length_prefixed(unit, &mut w);
        assert_eq!(w.written(), b"\0\0\0\x03\x65\xaa\xbb\0\0\0\x02\x65\x1c");
        assert_eq!(length_prefixed_len(unit), w.len());
    }
}
