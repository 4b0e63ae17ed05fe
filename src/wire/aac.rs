//! AAC-LC as cameras hand it out: ADTS frames (ISO/IEC 13818-7 §6.2, ISO/IEC 14496-3 §1.A.2) and the
//! AudioSpecificConfig that an MP4 file carries instead (ISO/IEC 14496-3 §1.6.2.1).

use super::Malformed;

/// PCM samples per channel in an AAC-LC frame.
pub const FRAME_SAMPLES: u32 = 1024;

/// One mono AAC-LC frame of silence, valid at every sampling rate: a single channel element whose
/// max_sfb is 0, so it holds no spectral data that a rate could scale (ISO/IEC 14496-3 §4.4.2.1).
pub const SILENT_MONO: [u8; 4] = [0x01, 0x18, 0x20, 0x07];

/// The same for two channels: a channel pair element without common window, both of its channels as above.
pub const SILENT_STEREO: [u8; 7] = [0x20, 0x8c, 0x10, 0x02, 0x30, 0x40, 0x0e];

/// Length of an ADTS header without CRC.
pub const ADTS_HEADER_LEN: usize = 7;

/// samplingFrequencyIndex (ISO/IEC 14496-3 Table 1.18), in Hz.
const RATES_HZ: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// The rates that HomeKit records, in Hz, each at the place of its code in characteristics 207 and 209.
pub const RECORDING_RATES_HZ: [u32; 6] = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000];

/// The samplingFrequencyIndex of a rate.
pub fn rate_index(rate_hz: u32) -> Option<u8> {
    RATES_HZ.iter().position(|&r| r == rate_hz).map(|i| i as u8)
}

/// The rate of a samplingFrequencyIndex, in Hz.
pub fn rate_hz(index: u8) -> Option<u32> {
    RATES_HZ.get(usize::from(index)).copied()
}

/// AudioSpecificConfig of AAC-LC; `None` for a rate without index or more than seven channels.
pub fn audio_specific_config(rate_hz: u32, channels: u8) -> Option<[u8; 2]> {
    const AAC_LC: u16 = 2;
    if !(1..=7).contains(&channels) {
        return None;
    }
    let index = u16::from(rate_index(rate_hz)?);
    Some((AAC_LC << 11 | index << 7 | u16::from(channels) << 3).to_be_bytes())
}

/// An ADTS header: adts_fixed_header and adts_variable_header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adts {
    /// Sampling rate in Hz.
    pub rate_hz: u32,
    /// channel_configuration, 1..=7.
    pub channels: u8,
    /// Bytes in front of the raw frame: 7, or 9 with CRC.
    pub header_len: usize,
    /// Bytes of header and raw frame together; more than `header_len`.
    pub frame_len: usize,
}

impl Adts {
    /// Reads the header at the start of `bytes`, at least [`ADTS_HEADER_LEN`] of them.
    ///
    /// # Errors
    /// No syncword, not AAC-LC, a reserved rate, channels that are described in the frame, more than
    /// one raw data block (no camera does that), or a length below the header's.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(&[b0, b1, b2, b3, b4, b5, b6]) = bytes.first_chunk::<ADTS_HEADER_LEN>() else {
            return Err(Malformed("an ADTS header has seven bytes"));
        };
        // syncword 12, ID 1, layer 2 (always 0), protection_absent 1
        if b0 != 0xff || b1 & 0xf6 != 0xf0 {
            return Err(Malformed("no ADTS syncword"));
        }
        const LC: u8 = 1;
        if b2 >> 6 != LC {
            return Err(Malformed("not AAC-LC"));
        }
        let rate_hz = *RATES_HZ.get(usize::from(b2 >> 2 & 15)).ok_or(Malformed("reserved sampling rate"))?;
        let channels = (b2 & 1) << 2 | b3 >> 6;
        if channels == 0 {
            return Err(Malformed("the channel configuration is not in the header"));
        }
        if b6 & 3 != 0 {
            return Err(Malformed("more than one raw data block in an ADTS frame"));
        }
        let header_len = if b1 & 1 == 1 { ADTS_HEADER_LEN } else { ADTS_HEADER_LEN + 2 };
        let frame_len = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
        if frame_len <= header_len {
            return Err(Malformed("an ADTS frame shorter than its header"));
        }
        Ok(Adts { rate_hz, channels, header_len, frame_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ffmpeg writes it: 16 kHz, mono, no CRC, 11 bytes.
    const HEADER: [u8; 7] = [0xff, 0xf1, 0x60, 0x40, 0x01, 0x7f, 0xfc];

    #[test]
    fn reads_what_ffmpeg_writes() {
        let adts = Adts::parse(&HEADER).unwrap();
        assert_eq!(adts, Adts { rate_hz: 16_000, channels: 1, header_len: 7, frame_len: 11 });
        let mut with_crc = HEADER;
        with_crc[1] = 0xf0;
        assert_eq!(Adts::parse(&with_crc).unwrap().header_len, 9);
    }

    #[test]
    fn audio_specific_configs_of_the_four_recording_rates() {
        for (rate, want) in [(16_000, 0x1408), (24_000, 0x1308), (32_000, 0x1288), (48_000, 0x1188)] {
            assert_eq!(audio_specific_config(rate, 1), Some(u16::to_be_bytes(want)));
        }
        assert_eq!(audio_specific_config(44_100, 2), Some([0x12, 0x10]));
        assert_eq!(audio_specific_config(44_000, 1), None);
        assert_eq!(audio_specific_config(16_000, 0), None);
        assert_eq!(audio_specific_config(16_000, 8), None);
    }

    #[test]
    fn every_broken_header_is_refused() {
        for n in 0..HEADER.len() {
            assert!(Adts::parse(&HEADER[..n]).is_err());
        }
        // (byte, value): no sync, a layer, AAC main, HE profile 2, reserved rate, no channels, two blocks
        for (at, value) in [(0, 0xfe), (1, 0xe1), (1, 0xf3), (2, 0x20), (2, 0xa0), (2, 0x7c), (3, 0x00), (6, 0xfd)] {
            let mut broken = HEADER;
            broken[at] = value;
            assert!(Adts::parse(&broken).is_err(), "byte {at} = {value:02x}");
        }
        let mut short = HEADER;
        (short[4], short[5]) = (0, 0xff);
        assert_eq!(Adts::parse(&short).unwrap_err().0, "an ADTS frame shorter than its header");
    }
}
