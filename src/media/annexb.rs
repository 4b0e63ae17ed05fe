//! Access units from an H.264 byte stream that is cut anywhere: a FIFO, a file.

use crate::time::Instant;
use crate::wire::h264::{AnnexB, Nal, NalType, find_start_code};

/// What went wrong in the stream, counted since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AnnexBCounters {
    /// Access units handed out.
    pub units: u32,
    /// Access units that did not fit the buffer.
    pub oversized: u32,
    /// Stretches of bytes that are no H.264.
    pub garbage: u32,
    /// Video parameter sets of H.265: the encoder speaks that.
    pub h265: u32,
    /// Access units that broke off: a writer that went away or paused too long.
    pub torn: u32,
    /// Access units dropped because the IDR before them was missing.
    pub awaiting_key: u32,
}

/// One access unit as it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unit<'a> {
    /// NAL units with start codes, and where those are.
    pub annexb: AnnexB<'a>,
    /// It is an IDR picture.
    pub key: bool,
    /// When its beginning was read.
    pub arrival: Instant,
}

/// Cuts a byte stream into access units, in one buffer that is also the largest access unit.
///
/// An access unit ends where the next one begins (ITU-T H.264 §7.4.1.2.3): at a delimiter, an SPS, a
/// PPS, an SEI, or a slice with first_mb_in_slice 0, after a slice. That costs the time of one frame,
/// unless the source sees that the encoder pauses and calls [`Assembler::flush`].
///
/// The first access unit handed out is an IDR picture; so is the first after anything was lost.
pub struct Assembler {
    buffer: Box<[u8]>,
    len: usize,
    /// Bytes at the front that were handed out and are still to be removed.
    taken: usize,
    /// Up to here the search for start codes has come.
    scanned: usize,
    /// The start codes of the unit at the front, so that nobody has to search for them again.
    starts: heapless::Vec<u32, INDEXED>,
    /// The first start code that `starts` has no room for.
    unindexed: Option<usize>,
    /// A NAL unit of the unit at the front was seen.
    entered: bool,
    /// The unit at the front holds a slice.
    picture: bool,
    key: bool,
    /// The unit at the front is not whole.
    broken: bool,
    /// It holds what no encoder writes.
    senseless: bool,
    /// H.265 was seen, and no key frame of H.264 since.
    h265: bool,
    /// An IDR picture was handed out and nothing lost since.
    synchronised: bool,
    /// When the unit at the front began.
    began: Instant,
    /// When the last bytes came.
    latest: Instant,
    counters: AnnexBCounters,
}

/// Zero byte, start code, NAL header and the first byte of a slice header.
const LOOKAHEAD: usize = 5;

/// The NAL unit header of a video parameter set of H.265 (ITU-T H.265 §7.3.1.2: type 32, layer 0). In H.264 the type
/// would be 0, which no encoder writes.
const VPS: [u8; 2] = [0x40, 0x01];

/// NAL units of an access unit whose places are kept: parameter sets and eight slices. The rest is
/// searched for again.
const INDEXED: usize = 16;

impl Assembler {
    /// Claims a buffer for access units of up to `bytes`.
    pub fn new(bytes: usize) -> Self {
        Assembler {
            buffer: vec![0; bytes.max(64)].into_boxed_slice(),
            len: 0,
            taken: 0,
            scanned: 0,
            starts: heapless::Vec::new(),
            unindexed: None,
            entered: false,
            picture: false,
            key: false,
            broken: true,
            senseless: false,
            h265: false,
            synchronised: false,
            began: Instant::ZERO,
            latest: Instant::ZERO,
            counters: AnnexBCounters::default(),
        }
    }

    /// Where the next bytes belong; never empty.
    pub fn receive_buffer(&mut self) -> &mut [u8] {
        self.remove_taken();
        if self.len == self.buffer.len() {
            if self.broken {
                self.counters.garbage = self.counters.garbage.saturating_add(1);
            } else {
                self.counters.oversized = self.counters.oversized.saturating_add(1);
            }
            self.lose(self.len);
        }
        &mut self.buffer[self.len..]
    }

    /// `n` bytes were put into the [receive buffer](Assembler::receive_buffer).
    pub fn handle_received(&mut self, n: usize, now: Instant) {
        if self.len == 0 {
            self.began = now;
        }
        self.len = (self.len + n).min(self.buffer.len());
        self.latest = now;
    }

    /// The next access unit that is whole; call until `None` after each read.
    pub fn poll_unit(&mut self) -> Option<Unit<'_>> {
        loop {
            self.remove_taken();
            let end = self.next_boundary()?;
            let (key, arrival, whole) = (self.key, self.began, self.picture && !self.broken);
            if whole && self.admits(key) {
                self.begin_unit(end);
                return Some(Unit { annexb: self.annexb(end, end), key, arrival });
            }
            self.begin_unit(end);
        }
    }

    /// The access unit at the front, taken for whole because nothing has come for a while (the encoder
    /// has written a picture and waits for the next) or at the end of a file. If the rest of it comes
    /// all the same, it counts as torn and the next IDR starts anew.
    pub fn flush(&mut self) -> Option<Unit<'_>> {
        self.remove_taken();
        if self.broken || !self.picture || !self.admits(self.key) {
            return None;
        }
        let (end, key, arrival) = (self.len, self.key, self.began);
        self.begin_unit(end);
        // The last few bytes may hold a start code that could not be judged.
        Some(Unit { annexb: self.annexb(end, self.scanned), key, arrival })
    }

    /// Forgets what is not whole: the writer has gone away. The next IDR starts anew.
    pub fn reset(&mut self) {
        self.remove_taken();
        if self.len > 0 && !self.broken {
            self.counters.torn = self.counters.torn.saturating_add(1);
        }
        self.len = 0;
        self.lose(0);
    }

    /// What has happened since the start.
    pub fn counters(&self) -> AnnexBCounters {
        self.counters
    }

    /// The unit that ends at `end` and was searched up to `searched`.
    fn annexb(&self, end: usize, searched: usize) -> AnnexB<'_> {
        AnnexB::indexed(&self.buffer[..end], &self.starts, self.unindexed.unwrap_or(searched))
    }

    /// Whether the unit may go out: from an IDR on.
    fn admits(&mut self, key: bool) -> bool {
        self.synchronised |= key;
        self.h265 &= !key;
        if self.synchronised {
            self.counters.units = self.counters.units.wrapping_add(1);
        } else {
            self.counters.awaiting_key = self.counters.awaiting_key.saturating_add(1);
        }
        self.synchronised
    }

    /// The unit at the front ends at `end`; the next one is new.
    fn begin_unit(&mut self, end: usize) {
        self.taken = end;
        self.entered = false;
        self.senseless = false;
        self.picture = false;
        self.key = false;
        self.broken = false;
        self.began = self.latest;
    }

    /// Drops the first `bytes` and what follows up to the next boundary.
    fn lose(&mut self, bytes: usize) {
        // A start code may have begun in the last bytes.
        let keep = bytes.min(LOOKAHEAD - 1);
        self.buffer.copy_within(bytes - keep..self.len, 0);
        self.len -= bytes - keep;
        self.scanned = 0;
        self.entered = false;
        self.senseless = false;
        self.picture = false;
        self.key = false;
        self.broken = true;
        self.synchronised = false;
    }

    fn remove_taken(&mut self) {
        let taken = core::mem::take(&mut self.taken);
        if taken > 0 {
            self.buffer.copy_within(taken..self.len, 0);
            self.len -= taken;
            self.scanned = self.scanned.saturating_sub(taken);
        }
    }

    /// Looks at the NAL units that have come in, up to the first that begins another access unit;
    /// where that begins.
    fn next_boundary(&mut self) -> Option<usize> {
        loop {
            let fresh = &self.buffer[self.scanned..self.len];
            let Some(at) = find_start_code(fresh).map(|at| self.scanned + at) else {
                self.scanned = self.len.saturating_sub(2).max(self.scanned);
                return None;
            };
            // A NAL header and the first byte of a slice header must be there to judge it.
            let Some(nal) = self.buffer[..self.len].get(at + 3..at + 5).and_then(Nal::new) else {
                self.scanned = at;
                return None;
            };
            let (nal_type, header, starts_picture) = (nal.nal_type(), nal.bytes()[0], nal.starts_picture());
            let is_vps = nal.bytes() == VPS;
            let begins = match nal_type {
                NalType::AUD | NalType::SPS | NalType::PPS | NalType::SEI | NalType(14..=18) => true,
                _ => starts_picture,
            };
            // The zero byte of a 4-byte start code belongs to what follows.
            let end = at - usize::from(at > 0 && self.buffer[at - 1] == 0);
            if !self.entered && !self.broken && self.buffer[..end].iter().any(|&b| b != 0) {
                // The rest of a unit that was flushed too early.
                self.counters.torn = self.counters.torn.saturating_add(1);
                self.lose_synchronisation();
            }
            if begins && (self.picture || self.broken) {
                // Seen again as the first NAL unit of the next access unit.
                self.scanned = at;
                return Some(end);
            }
            let headless = nal_type.is_vcl() && !self.picture && !starts_picture;
            self.scanned = at + 3;
            self.note_start(at);
            if is_vps {
                self.h265 = true;
                self.counters.h265 = self.counters.h265.saturating_add(1);
            }
            self.enter(nal_type, header, headless);
        }
    }

    fn note_start(&mut self, at: usize) {
        if !self.entered {
            self.starts.clear();
            self.unindexed = None;
        }
        if self.unindexed.is_none() && self.starts.push(at as u32).is_err() {
            self.unindexed = Some(at);
        }
    }

    /// Takes note of a NAL unit of the unit at the front; `headless`: a slice whose picture did not
    /// begin in this unit.
    fn enter(&mut self, nal_type: NalType, header: u8, headless: bool) {
        const FORBIDDEN_ZERO_BIT: u8 = 0x80;
        let senseless = header & FORBIDDEN_ZERO_BIT != 0 || nal_type == NalType(0) || nal_type.0 >= 24;
        if senseless && !self.senseless {
            self.senseless = true;
            self.counters.garbage = self.counters.garbage.saturating_add(u32::from(!self.h265));
        }
        if headless && !self.broken {
            self.counters.torn = self.counters.torn.saturating_add(1);
        }
        if senseless || headless {
            self.lose_synchronisation();
        }
        self.entered = true;
        self.picture |= nal_type.is_vcl();
        self.key |= nal_type == NalType::IDR;
    }

    fn lose_synchronisation(&mut self) {
        self.broken = true;
        self.synchronised = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUD: &[u8] = b"\0\0\0\x01\x09\xf0";
    const SETS: &[u8] = b"\0\0\0\x01\x67\x4d\x40\x28\0\0\x01\x68\xeb\xc0";

    /// Access units of an encoder: IDR with parameter sets and two slices, then P pictures with an SEI.
    fn units() -> Vec<Vec<u8>> {
        let idr = [AUD, SETS, b"\0\0\0\x01\x65\x88\x11\x22\x33\0\0\x01\x65\x44\x55\x66"].concat();
        let p = [AUD, b"\0\0\x01\x06\x05\x01\0\x80\0\0\x01\x41\x9a\x77\x88\x99\xaa\0\0\x01\x41\x44\x02"].concat();
        let tail = b"\0\0\x01\x41\x9b\x01\x02\x03".to_vec();
        vec![idr.clone(), p.clone(), tail, idr, p]
    }

    /// What comes out when `stream` comes in pieces of `step` bytes, one per millisecond.
    fn assemble(assembler: &mut Assembler, stream: &[u8], step: usize) -> Vec<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        for (i, piece) in stream.chunks(step).enumerate() {
            let mut piece = piece;
            while !piece.is_empty() {
                let room = assembler.receive_buffer();
                let n = piece.len().min(room.len());
                room[..n].copy_from_slice(&piece[..n]);
                piece = &piece[n..];
                assembler.handle_received(n, Instant::from_micros(i as u64 * 1000));
                while let Some(unit) = assembler.poll_unit() {
                    assert!(unit.annexb.nals().eq(crate::wire::h264::Nals::new(unit.annexb.bytes())), "the index");
                    out.push((unit.annexb.bytes().to_vec(), unit.key));
                }
            }
        }
        out
    }

    fn slices(unit: &[u8]) -> Vec<u8> {
        crate::wire::h264::Nals::new(unit).filter(|n| n.nal_type().is_vcl()).flat_map(|n| n.bytes().to_vec()).collect()
    }

    #[test]
    fn h265_is_known_by_its_name() {
        // VPS, SPS, PPS, IDR_W_RADL, TRAIL_R, TRAIL_N, as far as headers go.
        let h265 = [0x40, 0x42, 0x44, 0x26, 0x02, 0x00].map(|header| [0, 0, 0, 1, header, 1, 0xd0, 0x55]).concat();
        let mut assembler = Assembler::new(1000);
        assert_eq!(assemble(&mut assembler, &h265.repeat(50), 7), []);
        let counters = assembler.counters();
        assert_eq!((counters.h265, counters.garbage, counters.oversized, counters.units), (50, 0, 0, 0));
        // Somebody sets the encoder to H.264, and then to something else.
        let out = assemble(&mut assembler, &[&units().concat()[..], b"\0\0\x01\xff\xff\xff", AUD].concat(), 7);
        assert_eq!(out.len(), 4, "the last has the rubbish in it");
        assert_eq!((assembler.counters().h265, assembler.counters().garbage), (50, 1));
    }

    #[test]
    fn reads_that_end_anywhere_change_nothing() {
        let stream = units().concat();
        for step in 1..stream.len() {
            let mut assembler = Assembler::new(256);
            let mut out = assemble(&mut assembler, &stream, step);
            out.extend(assembler.flush().map(|u| (u.annexb.bytes().to_vec(), u.key)));
            let got: Vec<_> = out.iter().map(|(unit, key)| (slices(unit), *key)).collect();
            let want: Vec<_> = units().iter().map(|u| (slices(u), u.windows(2).any(|w| w == b"\x65\x88"))).collect();
            assert_eq!(got, want, "pieces of {step}");
            assert_eq!(assembler.counters(), AnnexBCounters { units: 5, ..Default::default() });
        }
    }

    #[test]
    fn a_start_in_the_middle_waits_for_an_idr() {
        let stream = units().concat();
        let idrs = units()[0].len() + units()[1].len() + units()[2].len();
        for start in 9..idrs {
            let mut assembler = Assembler::new(256);
            let out = assemble(&mut assembler, &stream[start..], 7);
            assert_eq!(
                out.first().map(|(unit, key)| (slices(unit), *key)),
                Some((slices(&units()[3]), true)),
                "{start}"
            );
        }
    }

    #[test]
    fn a_unit_larger_than_the_buffer_is_lost_up_to_the_next_idr() {
        let huge = [b"\0\0\0\x01\x65\x88".to_vec(), vec![0x55; 1000]].concat();
        let stream = [units()[0].clone(), huge, units()[1].clone(), units()[3].clone(), units()[4].clone()].concat();
        for step in [1, 10, 64, 2000] {
            let mut assembler = Assembler::new(128);
            let out = assemble(&mut assembler, &stream, step);
            assert_eq!(out.iter().map(|(_, key)| *key).collect::<Vec<_>>(), [true, true], "{step}");
            let counters = assembler.counters();
            assert_eq!((counters.oversized, counters.awaiting_key), (1, 1), "{step}");
        }
    }

    #[test]
    fn garbage_is_passed_over() {
        let mut state = 7u32;
        let noise: Vec<u8> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let stream = [&units().concat()[..], &noise, b"\0\0\x01\xff\xff\xff", &units().concat(), AUD].concat();
        let mut assembler = Assembler::new(256);
        let out = assemble(&mut assembler, &stream, 100);
        let whole: Vec<_> = units().iter().map(|u| slices(u)).collect();
        let got: Vec<_> = out.iter().map(|(u, _)| slices(u)).collect();
        assert_eq!(got[..4], whole[..4]);
        assert_eq!(got[got.len() - 5..], whole[..]);
    }

    #[test]
    fn a_stream_that_was_never_h264_is_counted() {
        let mut assembler = Assembler::new(256);
        // H.265: VPS, SPS, PPS, IDR.
        let hevc = b"\0\0\0\x01\x40\x01\x0c\0\0\0\x01\x42\x01\x01\0\0\0\x01\x44\x01\xc0\0\0\0\x01\x26\x01\xaf";
        assert!(assemble(&mut assembler, &hevc.repeat(20), 50).is_empty());
        assert!(assembler.counters().h265 > 0);
        let mut assembler = Assembler::new(256);
        assert!(assemble(&mut assembler, &[0x55; 1000], 50).is_empty());
        assert!(assembler.counters().garbage > 0);
    }

    #[test]
    fn a_pause_ends_a_unit() {
        let mut assembler = Assembler::new(256);
        let units = units();
        assert!(assemble(&mut assembler, &units[0], 1000).is_empty());
        assert_eq!(assembler.flush().map(|u| u.key), Some(true));
        assert_eq!(assembler.flush(), None);
        assert!(assemble(&mut assembler, &units[1], 1000).is_empty());
        assert_eq!(assembler.flush().map(|u| slices(u.annexb.bytes())), Some(slices(&units[1])));
        assert_eq!(assembler.counters().torn, 0);
    }

    #[test]
    fn a_pause_within_a_unit_costs_up_to_the_next_idr() {
        let units = units();
        let stream = [&units[2][..], &units[3], AUD].concat();
        // In the second slice, and between the slices.
        for cut in [units[0].len() - 2, units[0].len() - 6] {
            let mut assembler = Assembler::new(256);
            assert!(assemble(&mut assembler, &units[0][..cut], 1000).is_empty());
            assert!(assembler.flush().is_some());
            let rest = [&units[0][cut..], &stream].concat();
            let out = assemble(&mut assembler, &rest, 1000);
            assert_eq!(out.iter().map(|(u, _)| slices(u)).collect::<Vec<_>>(), [slices(&units[3])], "cut at {cut}");
            assert_eq!((assembler.counters().torn, assembler.counters().awaiting_key), (1, 1));
        }
    }

    #[test]
    fn a_writer_that_goes_away_leaves_nothing_behind() {
        let units = units();
        let mut assembler = Assembler::new(256);
        assemble(&mut assembler, &units[0][..20], 1000);
        assembler.reset();
        assert_eq!(assembler.flush(), None);
        let out = assemble(&mut assembler, &[&units[1][..], &units[3], AUD].concat(), 1000);
        assert_eq!(out.len(), 1);
        assert!(out[0].1);
    }

    #[test]
    fn the_arrival_is_that_of_the_beginning() {
        let mut assembler = Assembler::new(256);
        let mut at = 0;
        for unit in &units() {
            let room = assembler.receive_buffer();
            room[..unit.len()].copy_from_slice(unit);
            assembler.handle_received(unit.len(), Instant::from_micros(at * 1000));
            while let Some(unit) = assembler.poll_unit() {
                assert_eq!(unit.arrival, Instant::from_micros((at - 40) * 1000));
            }
            at += 40;
        }
    }
}
