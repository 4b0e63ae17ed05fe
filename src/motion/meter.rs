//! From access units as the encoder wrote them to what the detector counts.

use super::AccessUnit;
use crate::wire::h264::slice::{SliceHeader, SliceType};
use crate::wire::h264::{AnnexB, Nal, NalType, Pps, Sps};

/// Reads size, kind and QP of access units. Keeps the parameter sets it has met, as slice headers cannot be read
/// without; one that cannot be read leaves the one before it in force.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    sps: Option<Sps>,
    /// Encoders on cameras have one; some write a second for intra pictures.
    pps: heapless::Vec<Pps, 4>,
    b_pictures: bool,
}

impl Meter {
    /// A meter that has met no parameter sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Measures one access unit; `None` when it has no slice. Its parameter sets are kept.
    pub fn measure(&mut self, annexb: AnnexB<'_>) -> Option<AccessUnit> {
        let mut unit: Option<AccessUnit> = None;
        for nal in annexb.nals() {
            self.handle(nal, &mut unit);
        }
        unit
    }

    /// Whether a B picture has come: then pictures are shown in another order than they come in.
    pub fn has_b_pictures(&self) -> bool {
        self.b_pictures
    }

    /// The parameters of the stream, once they have come.
    pub fn sps(&self) -> Option<&Sps> {
        self.sps.as_ref()
    }

    /// Adds one NAL unit to the access unit that is being measured.
    pub(super) fn handle(&mut self, nal: Nal<'_>, unit: &mut Option<AccessUnit>) {
        match nal.nal_type() {
            NalType::SPS => self.sps = Sps::parse(nal.bytes()).ok().or(self.sps),
            NalType::PPS => {
                if let Ok(pps) = Pps::parse(nal.bytes()) {
                    self.keep(pps);
                }
            }
            NalType::SLICE | NalType::IDR => {
                let bytes = u32::try_from(nal.bytes().len()).unwrap_or(u32::MAX);
                match unit {
                    Some(unit) => unit.bytes = unit.bytes.saturating_add(bytes),
                    None => *unit = Some(self.first_slice(nal, bytes)),
                }
            }
            // SEI, delimiters and filler data are not activity.
            _ => {}
        }
    }

    fn keep(&mut self, pps: Pps) {
        match self.pps.iter_mut().find(|kept| kept.id == pps.id) {
            Some(kept) => *kept = pps,
            None => {
                if self.pps.is_full() {
                    self.pps.remove(0);
                }
                let _ = self.pps.push(pps);
            }
        }
    }

    fn first_slice(&mut self, nal: Nal<'_>, bytes: u32) -> AccessUnit {
        let idr = nal.nal_type() == NalType::IDR;
        match SliceHeader::parse(nal) {
            Ok(header) => {
                self.b_pictures |= header.slice_type == SliceType::B;
                AccessUnit { key: idr || header.slice_type != SliceType::P, bytes, qp: self.qp(&header) }
            }
            Err(_) => AccessUnit { key: idr, bytes, qp: None },
        }
    }

    fn qp(&self, header: &SliceHeader<'_>) -> Option<u8> {
        let pps = self.pps.iter().find(|pps| pps.id == header.pps_id)?;
        let sps = self.sps.as_ref().filter(|sps| sps.id == pps.sps_id)?;
        header.qp(sps, pps).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[
        0x67, 0x42, 0xc0, 0x16, 0xd9, 0x00, 0xc0, 0x37, 0xa6, 0xa0, 0xc0, 0xc0, 0xc8, 0x00, 0x00, 0x03, 0x00, 0x08,
        0x00, 0x00, 0x03, 0x00, 0xa0, 0x78, 0xb1, 0x72, 0x40,
    ];
    const PPS: &[u8] = &[0x68, 0xcb, 0x8c, 0xb2];
    /// QP 22.
    const IDR: &[u8] = &[0x65, 0x88, 0x84, 0x13, 0xff, 0xe5, 0xfe, 0xa0, 0x59, 0xc0];
    /// QP 24.
    const P: &[u8] = &[0x41, 0x9a, 0x38, 0x5e, 0x05, 0x17, 0x89, 0xc0, 0x81, 0x84];
    /// first_mb_in_slice 432, QP 28.
    const P_SECOND: &[u8] = &[0x41, 0x00, 0xd8, 0x9a, 0x38, 0x4e, 0xa1, 0x2f, 0xff];
    const SEI: &[u8] = &[0x06, 0x05, 0x10, 0x11, 0x80];
    const FILLER: &[u8] = &[0x0c, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80];

    fn annexb(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
    }

    #[test]
    fn counts_the_slices_and_nothing_else() {
        let mut meter = Meter::new();
        let idr = meter.measure(AnnexB::new(&annexb(&[&[9, 0x10], SPS, PPS, SEI, IDR, FILLER])));
        assert_eq!(idr, Some(AccessUnit { key: true, bytes: 10, qp: Some(22) }));
        let p = meter.measure(AnnexB::new(&annexb(&[SEI, P, P_SECOND, FILLER])));
        assert_eq!(p, Some(AccessUnit { key: false, bytes: 19, qp: Some(24) }));
        assert_eq!(meter.measure(AnnexB::new(&annexb(&[SEI, FILLER]))), None);
        assert_eq!(meter.measure(AnnexB::new(&[])), None);
    }

    #[test]
    fn without_its_parameter_sets_there_is_no_qp() {
        let mut meter = Meter::new();
        let unread = Some(AccessUnit { key: false, bytes: 10, qp: None });
        assert_eq!(meter.measure(AnnexB::new(&annexb(&[P]))), unread);
        assert_eq!(meter.measure(AnnexB::new(&annexb(&[PPS, P]))), unread);
        assert_eq!(
            meter.measure(AnnexB::new(&annexb(&[SPS, P]))),
            Some(AccessUnit { key: false, bytes: 10, qp: Some(24) })
        );
        // Damaged ones do not replace those in force.
        assert_eq!(meter.measure(AnnexB::new(&annexb(&[&SPS[..4], &PPS[..2], P]))).unwrap().qp, Some(24));
    }

    #[test]
    fn a_picture_that_is_not_p_is_left_out() {
        let mut meter = Meter::new();
        meter.measure(AnnexB::new(&annexb(&[SPS, PPS])));
        // slice_type 7 (I) and 6 (B) in a NAL unit of type 1: 1 0001000 ..., 1 00111 ...
        assert!(meter.measure(AnnexB::new(&annexb(&[&[0x41, 0x88, 0x84, 0x13, 0xff]]))).unwrap().key);
        assert!(!meter.has_b_pictures());
        assert!(meter.measure(AnnexB::new(&annexb(&[&[0x01, 0x9e, 0x84, 0x13, 0xff]]))).unwrap().key);
        assert!(meter.has_b_pictures());
        // A header without an end.
        let cut = AccessUnit { key: false, bytes: 1, qp: None };
        assert_eq!(meter.measure(AnnexB::new(&annexb(&[&[0x41]]))), Some(cut));
    }

    #[test]
    fn the_latest_parameter_sets_are_kept() {
        let mut meter = Meter::new();
        for id in 0..9 {
            meter.keep(Pps { id, ..Pps::parse(PPS).unwrap() });
        }
        let ids: Vec<u8> = meter.pps.iter().map(|pps| pps.id).collect();
        assert_eq!(ids, [5, 6, 7, 8]);
    }
}
