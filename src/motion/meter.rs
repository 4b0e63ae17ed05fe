//! From access units as the encoder wrote them to what the detector counts.

use super::AccessUnit;
use crate::wire::h264::slice::{SliceHeader, SliceType};
use crate::wire::h264::{Nal, NalType, Nals, Pps, Sps};

/// Reads size, kind and QP of access units. Keeps the parameter sets it has met, as slice headers cannot be read
/// without; one that cannot be read leaves the one before it in force.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    sps: Option<Sps>,
    /// Encoders on cameras have one; some write a second for intra pictures.
    pps: heapless::Vec<Pps, 4>,
}

impl Meter {
    /// A meter that has met no parameter sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Measures one access unit in Annex B; `None` when it has no slice. Its parameter sets are kept.
    pub fn measure(&mut self, annexb: &[u8]) -> Option<AccessUnit> {
        let mut unit: Option<AccessUnit> = None;
        for nal in Nals::new(annexb) {
            self.handle(nal, &mut unit);
        }
        unit
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

    fn first_slice(&self, nal: Nal<'_>, bytes: u32) -> AccessUnit {
        let idr = nal.nal_type() == NalType::IDR;
        match SliceHeader::parse(nal) {
            Ok(header) => AccessUnit { key: idr || header.slice_type != SliceType::P, bytes, qp: self.qp(&header) },
            Err(_) => AccessUnit { key: idr, bytes, qp: None },
        }
    }

    fn qp(&self, header: &SliceHeader<'_>) -> Option<u8> {
        let pps = self.pps.iter().find(|pps| pps.id == header.pps_id)?;
        let sps = self.sps.as_ref().filter(|sps| sps.id == pps.sps_id)?;
        header.qp(sps, pps).ok()
    }
}
