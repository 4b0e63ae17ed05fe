//! What a decoder must know before the first sample.

use crate::wire::h264::{Nal, NalType, Pps, Sps};
use crate::wire::{Malformed, aac};
use heapless::Vec;

/// One SPS or PPS NAL unit, header included. An SPS with scaling lists and HRD is about 100 bytes.
pub type ParameterSet = Vec<u8, 128>;

/// The video parameters of one epoch of the prebuffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VideoParameters {
    /// The SPS NAL unit.
    pub sps: ParameterSet,
    /// The PPS NAL units, one in nearly every stream.
    pub pps: Vec<ParameterSet, 4>,
    /// What the SPS says.
    pub parsed: Sps,
    /// Counts the changes of these parameters and the restarts of the source.
    pub epoch: u32,
}

impl VideoParameters {
    /// Width of the picture in pixels.
    pub fn width(&self) -> u16 {
        self.parsed.width
    }

    /// Height of the picture in pixels.
    pub fn height(&self) -> u16 {
        self.parsed.height
    }
}

/// The audio parameters of the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioParameters {
    /// Sampling rate in Hz.
    pub rate_hz: u32,
    /// Channels; a recording takes one.
    pub channels: u8,
}

impl AudioParameters {
    /// Whether a recording can carry this: mono at a rate that HomeKit has a code for.
    pub fn is_recordable(&self) -> bool {
        self.channels == 1 && aac::RECORDING_RATES_HZ.contains(&self.rate_hz)
    }
}

/// The parameter sets that came in, until SPS and PPS are both there.
#[derive(Default)]
pub(super) struct Collector {
    sps: Option<(ParameterSet, Sps)>,
    pps: Vec<ParameterSet, 4>,
}

impl Collector {
    /// Takes one NAL unit; whether it changed anything. Other types than SPS and PPS change nothing.
    ///
    /// # Errors
    /// A parameter set that cannot be read or does not fit. What was there stays.
    pub(super) fn push(&mut self, nal: Nal<'_>) -> Result<bool, Malformed> {
        let too_long = |_| Malformed("a parameter set is longer than 128 bytes");
        match nal.nal_type() {
            NalType::SPS => {
                if self.sps.as_ref().is_some_and(|(known, _)| known[..] == *nal.bytes()) {
                    return Ok(false);
                }
                let parsed = Sps::parse(nal.bytes())?;
                self.sps = Some((ParameterSet::from_slice(nal.bytes()).map_err(too_long)?, parsed));
                // They belong to the SPS before; those that are still right come again behind this one.
                self.pps.clear();
                Ok(true)
            }
            NalType::PPS => {
                if self.pps.iter().any(|known| known[..] == *nal.bytes()) {
                    return Ok(false);
                }
                let id = Pps::parse(nal.bytes())?.id;
                let pps = ParameterSet::from_slice(nal.bytes()).map_err(too_long)?;
                match self.pps.iter_mut().find(|known| Pps::parse(known).is_ok_and(|p| p.id == id)) {
                    Some(known) => *known = pps,
                    None => self.pps.push(pps).map_err(|_| Malformed("more than four PPS"))?,
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The parameters, when they are complete.
    pub(super) fn complete(&self, epoch: u32) -> Option<VideoParameters> {
        let (sps, parsed) = self.sps.as_ref()?;
        if self.pps.is_empty() {
            return None;
        }
        Some(VideoParameters { sps: sps.clone(), pps: self.pps.clone(), parsed: *parsed, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::h264::unhex;

    fn nal(bytes: &[u8]) -> Nal<'_> {
        Nal::new(bytes).unwrap()
    }

    #[test]
    fn a_new_sps_takes_the_old_pps_away() {
        let sps = unhex("674d4028d9020bf97011000003000100000300140f183248");
        let other = unhex("6742c01fd9005005bb011000000300100000030320f1832480");
        let pps = unhex("68ebc0e4b2");
        let mut collector = Collector::default();
        assert_eq!(collector.push(nal(&sps)), Ok(true));
        assert_eq!(collector.complete(0), None);
        assert_eq!(collector.push(nal(&pps)), Ok(true));
        assert_eq!(collector.push(nal(&sps)), Ok(false));
        assert_eq!(collector.push(nal(&pps)), Ok(false));
        let complete = collector.complete(7).unwrap();
        assert_eq!((complete.width(), complete.height(), complete.epoch), (128, 72, 7));
        assert_eq!(collector.push(nal(&other)), Ok(true));
        assert_eq!(collector.complete(8), None);
    }

    #[test]
    fn only_mono_at_the_rates_of_homekit_is_recorded() {
        let recordable = |rate_hz, channels| AudioParameters { rate_hz, channels }.is_recordable();
        assert!(aac::RECORDING_RATES_HZ.iter().all(|&rate_hz| recordable(rate_hz, 1) && !recordable(rate_hz, 2)));
        // AAC has a number for these.
        assert!([7_350, 11_025, 12_000, 22_050, 64_000, 88_200, 96_000].iter().all(|&rate_hz| !recordable(rate_hz, 1)));
    }

    #[test]
    fn broken_sets_leave_what_is_there() {
        let mut collector = Collector::default();
        collector.push(nal(&unhex("674d4028d9020bf97011000003000100000300140f183248"))).unwrap();
        collector.push(nal(&unhex("68ebc0e4b2"))).unwrap();
        let before = collector.complete(0);
        assert!(collector.push(nal(&unhex("674d40"))).is_err());
        assert!(collector.push(nal(&unhex("68"))).is_err());
        let mut long = unhex("674d4028d9020bf97011000003000100000300140f183248");
        long.resize(129, 1);
        assert!(collector.push(nal(&long)).is_err());
        assert_eq!(collector.push(nal(b"\x65\x88")), Ok(false));
        assert_eq!(collector.complete(0), before);
    }
}
