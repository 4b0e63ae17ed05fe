//! Access units from RTP packets (RFC 6184): single NAL units, STAP-A and FU-A, what packetization-mode 0
//! and 1 have (§6.2, §6.3).

use super::Loss;
use crate::time::Instant;
use crate::wire::base64;
use crate::wire::h264::{AnnexB, Nal, NalType};
use crate::wire::rtp::Packet;

/// Room for the parameter sets of a description.
const SETS_BYTES: usize = 256;

/// NAL units whose places are kept: parameter sets and eight slices. The rest is searched for.
const INDEXED: usize = 16;

const START_CODE: [u8; 4] = [0, 0, 0, 1];

const STAP_A: NalType = NalType(24);
const FU_A: NalType = NalType(28);

/// One access unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picture<'a> {
    /// NAL units with start codes.
    pub annexb: AnnexB<'a>,
    /// It is an IDR picture.
    pub key: bool,
    /// When its first packet came.
    pub arrival: Instant,
}

/// Puts access units together, in one buffer that is also the largest access unit.
///
/// An access unit ends with the marker (RFC 6184 §5.1) or where another timestamp begins. The first that is handed
/// out is an IDR picture; so is the first after anything was lost.
pub struct Pictures {
    buffer: Box<[u8]>,
    len: usize,
    starts: heapless::Vec<u32, INDEXED>,
    /// The first start code that `starts` has no room for.
    unindexed: Option<usize>,
    /// SPS and PPS of the description, with start codes.
    sets: heapless::Vec<u8, SETS_BYTES>,
    /// The stream has brought parameter sets of its own.
    in_band: bool,
    /// Stream, number of the packet to come, time of the access unit in the buffer.
    expected: Option<(u32, u16)>,
    timestamp: u32,
    arrival: Instant,
    /// The access unit holds a slice; an IDR slice.
    picture: bool,
    key: bool,
    /// Something of it is missing.
    broken: bool,
    /// A NAL unit has begun in a packet and not ended.
    fragmented: bool,
    /// It is whole and can be taken.
    complete: bool,
    /// It was taken, and the buffer begins anew.
    taken: bool,
    /// The server sets the marker before an access unit has ended.
    marker_lies: bool,
    /// An IDR picture was handed out and nothing lost since.
    synchronised: bool,
}

impl Pictures {
    /// Claims a buffer for access units of up to `bytes`.
    pub fn new(bytes: usize) -> Self {
        Pictures {
            buffer: vec![0; bytes].into_boxed_slice(),
            len: 0,
            starts: heapless::Vec::new(),
            unindexed: None,
            sets: heapless::Vec::new(),
            in_band: false,
            expected: None,
            timestamp: 0,
            arrival: Instant::ZERO,
            picture: false,
            key: false,
            broken: false,
            fragmented: false,
            complete: false,
            taken: false,
            marker_lies: false,
            synchronised: false,
        }
    }

    /// Another stream begins, described by `sprop` (`sprop-parameter-sets`, §8.1): NAL units in Base64, between commas.
    pub fn restart(&mut self, sprop: Option<&str>) {
        self.clear();
        (self.in_band, self.expected, self.marker_lies, self.synchronised) = (false, None, false, false);
        self.sets.clear();
        for text in sprop.unwrap_or_default().split(',') {
            let mut room = [0; SETS_BYTES];
            let Ok(decoded) = base64::decode(text, &mut room) else { continue };
            if let Some(nal) = Nal::new(decoded).filter(|nal| is_set(nal.nal_type())) {
                let before = self.sets.len();
                let fits = self.sets.extend_from_slice(&START_CODE).and(self.sets.extend_from_slice(nal.bytes()));
                if fits.is_err() {
                    self.sets.truncate(before);
                }
            }
        }
    }

    /// Whether the access unit in the buffer ends where `packet` begins: then it is to be [taken](Pictures::take)
    /// before the packet is [handled](Pictures::handle_packet).
    pub fn ends_before(&mut self, packet: &Packet<'_>) -> bool {
        let header = packet.header;
        let follows = self.expected == Some((header.ssrc, header.sequence));
        // What is missing may have been the rest of this picture.
        self.complete |= self.picture && !self.taken && follows && header.timestamp != self.timestamp;
        self.complete
    }

    /// Takes in the next packet, which came at `arrival`; afterwards an access unit may be there to be taken.
    ///
    /// # Errors
    /// Something is missing, is not H.264, or does not fit; it goes on with the next IDR picture.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, arrival: Instant) -> Result<(), Loss> {
        let header = packet.header;
        let synchronised = self.synchronised;
        let mut result = Ok(());
        if self.expected.is_some_and(|expected| expected != (header.ssrc, header.sequence)) {
            // Between two pictures as well: nobody knows whether the next refers to the one that is missing.
            result = Err(Loss::Torn);
            self.clear();
            self.lose();
            self.broken = header.timestamp == self.timestamp;
        } else if self.taken && header.timestamp == self.timestamp && continues(packet.payload) {
            self.marker_lies = true;
            result = Err(Loss::Torn);
            self.clear();
            self.lose();
        } else if self.taken || (self.picture || self.broken) && header.timestamp != self.timestamp {
            self.clear();
        }
        self.expected = Some((header.ssrc, header.sequence.wrapping_add(1)));
        if self.len == 0 {
            self.arrival = arrival;
        }
        self.timestamp = header.timestamp;
        let mut unpacked = self.unpack(packet.payload);
        if header.marker && self.fragmented {
            unpacked = Err(Loss::Torn);
        }
        if unpacked.is_err() {
            self.lose();
            result = unpacked;
        }
        // Some set it behind parameter sets, too.
        self.complete = header.marker && self.picture && !self.marker_lies;
        // What is torn before the first IDR picture is no loss.
        result.or_else(|loss| if loss == Loss::Torn && !synchronised { Ok(()) } else { Err(loss) })
    }

    /// Whether there is an access unit to hand out, the [current](Pictures::current) one; says so once.
    pub fn take(&mut self) -> bool {
        if !core::mem::take(&mut self.complete) {
            return false;
        }
        self.taken = true;
        let whole = !self.broken && !self.fragmented;
        self.synchronised = whole && (self.synchronised || self.key);
        self.synchronised
    }

    /// The access unit that was taken.
    pub fn current(&self) -> Picture<'_> {
        let searched = self.unindexed.unwrap_or(self.len);
        let annexb = AnnexB::indexed(&self.buffer[..self.len], &self.starts, searched);
        Picture { annexb, key: self.key, arrival: self.arrival }
    }

    fn unpack(&mut self, payload: &[u8]) -> Result<(), Loss> {
        let (&first, rest) = payload.split_first().ok_or(Loss::Garbage)?;
        match NalType::of(first) {
            STAP_A => {
                let mut rest = rest;
                while let Some((size, after)) = rest.split_first_chunk::<2>() {
                    let (nal, after) = after.split_at_checked(u16::from_be_bytes(*size).into()).ok_or(Loss::Garbage)?;
                    self.begin(nal)?;
                    rest = after;
                }
                if rest.is_empty() { Ok(()) } else { Err(Loss::Garbage) }
            }
            FU_A => {
                let (&fu, rest) = rest.split_first().ok_or(Loss::Garbage)?;
                let (start, end) = (fu & 0x80 != 0, fu & 0x40 != 0);
                if start {
                    self.begin_with(first & 0xe0 | fu & 0x1f, rest)?;
                } else if self.fragmented {
                    self.append(rest)?;
                } else if !self.broken {
                    return Err(Loss::Torn);
                }
                self.fragmented = !end;
                Ok(())
            }
            NalType(1..=23) => self.begin(payload),
            _ if Loss::of_h265(payload) => Err(Loss::H265),
            // STAP-B, MTAP and FU-B are of packetization-mode 2, which cameras do not have; 0, 30 and 31 are reserved.
            _ => Err(Loss::Garbage),
        }
    }

    fn begin(&mut self, nal: &[u8]) -> Result<(), Loss> {
        match nal.split_first() {
            Some((&header, rest)) => self.begin_with(header, rest),
            // An empty unit in a STAP-A.
            None => Ok(()),
        }
    }

    /// A NAL unit begins; `rest` is what is known of it behind its header.
    fn begin_with(&mut self, header: u8, rest: &[u8]) -> Result<(), Loss> {
        if core::mem::take(&mut self.fragmented) {
            return Err(Loss::Torn);
        }
        let nal_type = NalType::of(header);
        if nal_type.is_vcl() && !self.picture {
            // first_mb_in_slice is 0, or the beginning of the picture is missing.
            if matches!(nal_type.0, 1 | 5) && rest.first().is_some_and(|b| b & 0x80 == 0) {
                return Err(Loss::Torn);
            }
            if nal_type == NalType::IDR && !self.in_band {
                self.put_sets()?;
            }
        }
        self.picture |= nal_type.is_vcl();
        self.key |= nal_type == NalType::IDR;
        self.in_band |= nal_type == NalType::SPS;
        self.note_start();
        self.append(&START_CODE)?;
        self.append(&[header])?;
        self.append(rest)
    }

    /// The parameter sets of the description, in front of an IDR picture that has none.
    fn put_sets(&mut self) -> Result<(), Loss> {
        let sets = core::mem::take(&mut self.sets);
        let mut result = Ok(());
        for nal in AnnexB::new(&sets).nals() {
            self.note_start();
            result = result.and(self.append(&START_CODE)).and(self.append(nal.bytes()));
        }
        self.sets = sets;
        result
    }

    fn note_start(&mut self) {
        // The zero byte in front belongs to the 4-byte start code.
        let at = self.len + 1;
        if self.unindexed.is_none() && self.starts.push(at as u32).is_err() {
            self.unindexed = Some(at);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Loss> {
        if self.broken {
            return Ok(());
        }
        let room = self.buffer.get_mut(self.len..self.len + bytes.len()).ok_or(Loss::Oversized)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// The access unit in the buffer is not whole.
    fn lose(&mut self) {
        self.broken = true;
        self.fragmented = false;
        self.synchronised = false;
    }

    fn clear(&mut self) {
        self.len = 0;
        self.starts.clear();
        self.unindexed = None;
        (self.picture, self.key, self.broken, self.fragmented) = (false, false, false, false);
        (self.complete, self.taken) = (false, false);
    }
}

fn is_set(nal_type: NalType) -> bool {
    matches!(nal_type, NalType::SPS | NalType::PPS)
}

/// Whether a packet goes on with a picture that has begun before: its first slice is not the first of the picture, or
/// it is not the first fragment of one.
fn continues(payload: &[u8]) -> bool {
    match payload {
        [fu, header, rest @ ..] if NalType::of(*fu) == FU_A => {
            header & 0x80 == 0 || matches!(header & 0x1f, 1 | 5) && rest.first().is_some_and(|b| b & 0x80 == 0)
        }
        [nal, slice, ..] => matches!(NalType::of(*nal).0, 1 | 5) && slice & 0x80 == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h264::Nals;
    use crate::wire::rtp::Header;

    const SPS: &[u8] = b"\x67\x42\x11";
    const PPS: &[u8] = b"\x68\xce";
    const IDR: &[u8] = b"\x65\x88\x01\x02\x03\x04";
    /// The second slice of a picture.
    const IDR_2: &[u8] = b"\x65\x44\x05";
    const P: &[u8] = b"\x41\x9a\x07";
    const SEI: &[u8] = b"\x06\x05\x01";

    /// A server: counts packets, and pictures at 25 a second.
    struct Sender {
        pictures: Pictures,
        sequence: u16,
        timestamp: u32,
        ms: u64,
        out: Vec<(Vec<Vec<u8>>, bool, u64)>,
        losses: Vec<Loss>,
    }

    impl Sender {
        fn new(bytes: usize, sprop: Option<&str>) -> Self {
            let mut pictures = Pictures::new(bytes);
            pictures.restart(sprop);
            Sender { pictures, sequence: 65_533, timestamp: u32::MAX - 7200, ms: 0, out: vec![], losses: vec![] }
        }

        fn take(&mut self) {
            if self.pictures.take() {
                let picture = self.pictures.current();
                let nals: Vec<Vec<u8>> = picture.annexb.nals().map(|nal| nal.bytes().to_vec()).collect();
                assert!(picture.annexb.nals().eq(Nals::new(picture.annexb.bytes())), "the index");
                self.out.push((nals, picture.key, picture.arrival.as_micros() / 1000));
            }
        }

        fn send(&mut self, payload: &[u8], marker: bool) {
            let (sequence, timestamp) = (self.sequence, self.timestamp);
            let packet = Packet { header: Header { marker, payload_type: 96, sequence, timestamp, ssrc: 1 }, payload };
            if self.pictures.ends_before(&packet) {
                self.take();
            }
            self.losses.extend(self.pictures.handle_packet(&packet, Instant::from_micros(self.ms * 1000)).err());
            self.take();
            self.sequence = self.sequence.wrapping_add(1);
            self.ms += 1;
        }

        fn next_picture(&mut self) {
            self.timestamp = self.timestamp.wrapping_add(3600);
        }

        /// A picture of one packet.
        fn picture(&mut self, nal: &[u8]) {
            self.send(nal, true);
            self.next_picture();
        }

        /// What came since the last call.
        fn got(&mut self) -> Vec<(Vec<Vec<u8>>, bool)> {
            self.out.drain(..).map(|(nals, key, _)| (nals, key)).collect()
        }
    }

    fn unit(nals: &[&[u8]], key: bool) -> (Vec<Vec<u8>>, bool) {
        (nals.iter().map(|nal| nal.to_vec()).collect(), key)
    }

    fn stap(nals: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0x78];
        for nal in nals {
            bytes.extend((nal.len() as u16).to_be_bytes());
            bytes.extend(*nal);
        }
        bytes
    }

    /// FU-A with `piece` bytes in each packet.
    fn fragments(nal: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let pieces: Vec<_> = nal[1..].chunks(piece).collect();
        let of = |(i, part): (usize, &&[u8])| {
            let (start, end) = (u8::from(i == 0) << 7, u8::from(i + 1 == pieces.len()) << 6);
            [&[nal[0] & 0xe0 | 28, start | end | nal[0] & 0x1f], *part].concat()
        };
        pieces.iter().enumerate().map(of).collect()
    }

    #[test]
    fn the_three_kinds_of_packets() {
        let mut s = Sender::new(100, None);
        s.send(&stap(&[SPS, PPS, SEI]), false);
        for (i, part) in fragments(IDR, 2).iter().enumerate() {
            s.send(part, i == 2);
        }
        s.next_picture();
        s.picture(P);
        s.send(SEI, false);
        s.picture(P);
        assert_eq!(s.out[0].2, 0, "its first packet");
        assert_eq!(s.out[1].2, 4);
        let want = [unit(&[SPS, PPS, SEI, IDR], true), unit(&[P], false), unit(&[SEI, P], false)];
        assert_eq!((s.got(), s.losses), (want.to_vec(), vec![]));
    }

    #[test]
    fn without_markers_the_next_time_ends_a_picture() {
        let mut s = Sender::new(100, None);
        for nals in [&[SPS, PPS, IDR, IDR_2][..], &[P], &[P]] {
            for nal in nals {
                s.send(nal, false);
            }
            s.next_picture();
        }
        assert_eq!(s.got(), [unit(&[SPS, PPS, IDR, IDR_2], true), unit(&[P], false)]);
    }

    #[test]
    fn a_marker_behind_each_unit_is_seen_through() {
        let mut s = Sender::new(100, None);
        // Behind parameter sets, with a time of their own: no picture yet.
        s.picture(SPS);
        s.picture(PPS);
        for _ in 0..3 {
            for nal in [IDR, IDR_2] {
                s.send(nal, true);
            }
            s.next_picture();
        }
        s.send(P, true);
        let want = [unit(&[SPS, PPS, IDR], true), unit(&[IDR, IDR_2], true), unit(&[IDR, IDR_2], true)];
        assert_eq!((s.got(), s.losses), (want.to_vec(), vec![Loss::Torn]));
    }

    #[test]
    fn after_a_loss_the_next_is_a_key_picture() {
        // Every packet of the second picture, and one between pictures, is lost in turn.
        let idr = fragments(IDR, 1);
        for lost in 0..idr.len() + 2 {
            let mut s = Sender::new(100, None);
            s.picture(IDR);
            for (i, part) in idr.iter().enumerate() {
                if i == lost {
                    s.sequence = s.sequence.wrapping_add(1);
                } else {
                    s.send(part, i + 1 == idr.len());
                }
            }
            s.next_picture();
            if lost == idr.len() {
                s.sequence = s.sequence.wrapping_add(3);
            }
            s.picture(P);
            s.picture(P);
            s.picture(IDR);
            s.picture(P);
            let (whole, p) = (unit(&[IDR], true), unit(&[P], false));
            let want = match lost {
                n if n < idr.len() => vec![whole.clone(), whole, p],
                n if n == idr.len() => vec![whole.clone(), whole.clone(), whole, p],
                _ => vec![whole.clone(), whole.clone(), p.clone(), p.clone(), whole, p],
            };
            assert_eq!(s.got(), want, "{lost}");
            assert_eq!(s.losses, if lost > idr.len() { vec![] } else { vec![Loss::Torn] }, "{lost}");
        }
    }

    #[test]
    fn a_picture_without_its_first_slice_is_none() {
        let mut s = Sender::new(100, None);
        s.picture(IDR);
        s.sequence = s.sequence.wrapping_add(1);
        s.picture(IDR_2);
        s.picture(IDR);
        assert_eq!(s.got(), [unit(&[IDR], true), unit(&[IDR], true)]);
        // Nor one that the connection begins with.
        let mut s = Sender::new(100, None);
        s.send(IDR_2, true);
        s.next_picture();
        s.picture(P);
        s.picture(IDR);
        assert_eq!((s.got(), s.losses), (vec![unit(&[IDR], true)], vec![]));
    }

    #[test]
    fn parameter_sets_of_the_description() {
        // SPS and PPS as above, one that is no parameter set, and what is no Base64.
        let sprop = "Z0IR,BgUB,?,aM4=,";
        let mut s = Sender::new(100, Some(sprop));
        s.send(SEI, false);
        s.picture(IDR);
        s.picture(P);
        s.picture(IDR);
        let with = unit(&[SPS, PPS, IDR], true);
        assert_eq!(s.got(), [unit(&[SEI, SPS, PPS, IDR], true), unit(&[P], false), with.clone()]);
        // As soon as the stream has its own they are those.
        s.picture(SPS);
        s.picture(IDR);
        s.picture(IDR);
        assert_eq!(s.got(), [unit(&[SPS, IDR], true), unit(&[IDR], true)]);
        // Far too many of them are as good as none.
        let long = vec!["Z0IR"; 60].join(",");
        let mut s = Sender::new(100, Some(&long));
        s.picture(IDR);
        assert!(s.got().is_empty());
        assert_eq!(s.losses, [Loss::Oversized]);
    }

    #[test]
    fn what_does_not_fit_is_lost_alone() {
        let mut s = Sender::new(20, None);
        s.picture(IDR);
        s.send(IDR, false);
        s.send(&[0x65; 30], false);
        s.send(IDR_2, true);
        s.next_picture();
        s.picture(P);
        s.picture(IDR);
        assert_eq!((s.got(), s.losses), (vec![unit(&[IDR], true); 2], vec![Loss::Oversized]));
    }

    #[test]
    fn more_units_than_places_are_kept() {
        let mut s = Sender::new(200, None);
        let mut nals = vec![SEI; 20];
        nals.push(IDR);
        for (i, nal) in nals.iter().enumerate() {
            s.send(nal, i == 20);
        }
        assert_eq!(s.got(), [unit(&nals, true)]);
    }

    #[test]
    fn garbage_is_told_and_survived() {
        let whole = stap(&[SPS, PPS]);
        let mut bad: Vec<&[u8]> = vec![b"", b"\x7c", b"\x1a\0\x01\x65", b"\x1f\0", b"\x40"];
        bad.extend((2..whole.len()).filter(|cut| ![6, 10].contains(cut)).map(|cut| &whole[..cut]));
        for payload in bad {
            let mut s = Sender::new(100, None);
            s.picture(IDR);
            s.picture(payload);
            s.picture(IDR);
            assert_eq!(s.losses, [Loss::Garbage], "{payload:x?}");
            assert_eq!(s.got().len(), 2);
        }
    }

    #[test]
    fn noise_is_read_within_its_bounds() {
        let mut noise = crate::crypto::fixed::Noise::new(9);
        let mut s = Sender::new(120, Some("Z0IR,aM4="));
        let mut pictures = 0;
        for _ in 0..50_000 {
            let mut payload = noise.bytes(40);
            if let Some(first) = payload.first_mut().filter(|b| **b & 1 == 0) {
                *first = [0x65, 0x41, 0x7c, 0x78][usize::from(*first >> 6)];
            }
            s.send(&payload, noise.below(3) == 0);
            match noise.below(8) {
                0..4 => s.next_picture(),
                4 => s.sequence = s.sequence.wrapping_add(noise.below(5) as u16),
                _ => {}
            }
            for (nals, key) in s.got() {
                pictures += 1;
                // Noise may have start codes of its own.
                assert!(!key || nals.iter().any(|nal| nal.windows(1).any(|b| b[0] & 0x1f == 5)));
            }
        }
        assert!(pictures > 500, "{pictures}");
    }
}
