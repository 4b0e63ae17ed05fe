//! The microphone: whatever the source delivers becomes sound for the live views, with the mute and the volume of
//! the Microphone service (HAP R2 §8.27) applied once for all of them.

use crate::time::Pts90k;
use crate::wire::aac::FRAME_SAMPLES;
use crate::wire::opus;

#[cfg(feature = "opus")]
use super::aac_decoder::AacDecoder;
#[cfg(feature = "opus")]
use super::opus::Decoder;

/// A piece of sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sound<'a> {
    /// One channel of 16-bit samples.
    Pcm {
        /// The samples.
        pcm: &'a [i16],
        /// Their rate in Hz.
        rate_hz: u32,
        /// Time of the first.
        pts_90k: Pts90k,
    },
    /// A well-formed Opus packet, to be passed on as it is.
    Opus {
        /// The packet.
        packet: &'a [u8],
        /// Time of its first sample.
        pts_90k: Pts90k,
    },
    /// Nothing to be heard.
    Silence {
        /// How long.
        duration_90k: u32,
        /// Its start.
        pts_90k: Pts90k,
    },
}

/// Samples that [`Microphone::push_l16`] takes at once: 60 ms at 48 kHz.
pub const MAX_PCM: usize = 2_880;

/// Turns the frames of a source into [`Sound`]. A muted microphone gives [`Sound::Silence`] of the same length, and
/// so does a frame that cannot be decoded: what is sent has no holes.
pub struct Microphone {
    muted: bool,
    volume_percent: u8,
    pcm: Box<[i16]>,
    #[cfg(feature = "opus")]
    aac: Option<AacDecoder>,
    #[cfg(feature = "opus")]
    opus: Option<Decoder>,
    undecodable: u32,
}

impl Default for Microphone {
    fn default() -> Self {
        Microphone {
            muted: false,
            volume_percent: 100,
            pcm: vec![0; MAX_PCM].into_boxed_slice(),
            #[cfg(feature = "opus")]
            aac: None,
            #[cfg(feature = "opus")]
            opus: None,
            undecodable: 0,
        }
    }
}

impl Microphone {
    /// The rate of the PCM that an Opus source is decoded to, in Hz.
    pub const OPUS_RATE_HZ: u32 = 24_000;

    /// Whether this build can make sound for a live view out of AAC.
    pub const DECODES: bool = cfg!(feature = "opus");

    /// Mute.
    pub fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Volume, 0 to 100; 100 is the source as it comes.
    pub fn set_volume(&mut self, percent: u8) {
        self.volume_percent = percent.min(100);
    }

    /// Frames that were no AAC-LC or no Opus, since the start.
    pub fn undecodable(&self) -> u32 {
        self.undecodable
    }

    fn is_silent(&self) -> bool {
        self.muted || self.volume_percent == 0
    }

    /// A raw AAC-LC frame. The first one, and one of another rate or with other channels, claims a decoder's memory.
    pub fn push_aac(&mut self, raw: &[u8], rate_hz: u32, channels: u8, pts_90k: Pts90k) -> Sound<'_> {
        let silence = Sound::Silence { duration_90k: FRAME_SAMPLES * 90_000 / rate_hz.max(1), pts_90k };
        #[cfg(feature = "opus")]
        if !self.is_silent() {
            if self.aac.as_ref().is_none_or(|aac| (aac.rate_hz(), aac.channels()) != (rate_hz, channels)) {
                self.aac = AacDecoder::new(rate_hz, channels);
            }
            let Some(decoded) = self.aac.as_mut().and_then(|aac| aac.decode(raw)) else {
                self.undecodable = self.undecodable.wrapping_add(1);
                return silence;
            };
            return Sound::Pcm { pcm: scaled(decoded, self.volume_percent, &mut self.pcm), rate_hz, pts_90k };
        }
        #[cfg(not(feature = "opus"))]
        let _ = (raw, channels);
        silence
    }

    /// Up to [`MAX_PCM`] samples of one channel; what is more is left out.
    pub fn push_l16(&mut self, pcm: &[i16], rate_hz: u32, pts_90k: Pts90k) -> Sound<'_> {
        if self.is_silent() {
            let duration_90k = (pcm.len() as u64 * 90_000 / u64::from(rate_hz.max(1))) as u32;
            return Sound::Silence { duration_90k, pts_90k };
        }
        Sound::Pcm { pcm: scaled(pcm, self.volume_percent, &mut self.pcm), rate_hz, pts_90k }
    }

    /// An Opus packet; `None` when it is none. It is passed on as it is when `pass` and the volume is 100, else decoded,
    /// which the first time claims a decoder's memory. A build without decoder always passes on.
    pub fn push_opus<'a>(&'a mut self, packet: &'a [u8], pass: bool, pts_90k: Pts90k) -> Option<Sound<'a>> {
        let Ok(parsed) = opus::Packet::parse(packet) else {
            self.undecodable = self.undecodable.wrapping_add(1);
            return None;
        };
        if self.is_silent() {
            return Some(Sound::Silence { duration_90k: parsed.duration_us() * 9 / 100, pts_90k });
        }
        #[cfg(feature = "opus")]
        if !pass || self.volume_percent < 100 {
            let decoder = self.opus.get_or_insert_with(|| Decoder::new(Self::OPUS_RATE_HZ));
            let Some(samples) = decoder.decode(packet, &mut self.pcm) else {
                self.undecodable = self.undecodable.wrapping_add(1);
                return None;
            };
            let pcm = &mut self.pcm[..samples];
            scale(pcm, self.volume_percent);
            return Some(Sound::Pcm { pcm, rate_hz: Self::OPUS_RATE_HZ, pts_90k });
        }
        #[cfg(not(feature = "opus"))]
        let _ = pass;
        Some(Sound::Opus { packet, pts_90k })
    }
}

fn scaled<'a>(from: &[i16], percent: u8, to: &'a mut [i16]) -> &'a [i16] {
    let len = from.len().min(to.len());
    let to = &mut to[..len];
    to.copy_from_slice(&from[..len]);
    scale(to, percent);
    to
}

/// Quieter, never louder.
pub(super) fn scale(pcm: &mut [i16], percent: u8) {
    if percent < 100 {
        let factor = i32::from(percent) * 256 / 100;
        pcm.iter_mut().for_each(|sample| *sample = ((i32::from(*sample) * factor) >> 8) as i16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::aac::{SILENT_MONO, SILENT_STEREO};

    #[test]
    fn mute_keeps_the_length() {
        let mut microphone = Microphone::default();
        microphone.set_muted(true);
        assert_eq!(microphone.push_aac(&SILENT_MONO, 16_000, 1, 7), Sound::Silence { duration_90k: 5_760, pts_90k: 7 });
        assert_eq!(microphone.push_l16(&[1; 320], 16_000, 7), Sound::Silence { duration_90k: 1_800, pts_90k: 7 });
        let packet = b"\x4b\x03abc";
        assert_eq!(microphone.push_opus(packet, true, 7), Some(Sound::Silence { duration_90k: 5_400, pts_90k: 7 }));
        microphone.set_muted(false);
        assert_eq!(microphone.push_opus(packet, true, 7), Some(Sound::Opus { packet, pts_90k: 7 }));
        microphone.set_volume(0);
        assert!(matches!(microphone.push_l16(&[1; 320], 16_000, 7), Sound::Silence { .. }));
    }

    #[test]
    fn volume_scales() {
        let mut microphone = Microphone::default();
        for (percent, want) in [(100, [1_000, -1_000]), (50, [500, -500]), (200, [1_000, -1_000])] {
            microphone.set_volume(percent);
            let sound = microphone.push_l16(&[1_000, -1_000], 16_000, 0);
            assert_eq!(sound, Sound::Pcm { pcm: &want, rate_hz: 16_000, pts_90k: 0 });
        }
    }

    #[test]
    fn what_is_broken_leaves_no_hole() {
        let mut microphone = Microphone::default();
        assert!(matches!(
            microphone.push_aac(&SILENT_STEREO, 16_000, 1, 0),
            Sound::Silence { duration_90k: 5_760, .. }
        ));
        assert!(matches!(microphone.push_aac(&[], 0, 9, 0), Sound::Silence { .. }));
        assert_eq!(microphone.push_opus(&[], true, 0), None);
        assert!(microphone.undecodable() > 0);
        assert!(matches!(microphone.push_l16(&[5; 10_000], 48_000, 0), Sound::Pcm { pcm, .. } if pcm.len() == MAX_PCM));
    }

    #[test]
    #[cfg(feature = "opus")]
    fn opus_is_decoded_when_it_cannot_be_passed_on() {
        use super::super::opus::Encoder;
        use super::super::resample::tests::{amplitude, tone};
        let mut encoder = Encoder::new(16_000, 24);
        let mut microphone = Microphone::default();
        microphone.set_volume(50);
        let (mut packet, mut heard) = ([0; 400], Vec::new());
        for input in tone(440.0, 16_000, 16_000).chunks(320) {
            let len = encoder.encode(input, &mut packet).unwrap();
            match microphone.push_opus(&packet[..len], true, 0) {
                Some(Sound::Pcm { pcm, rate_hz: 24_000, .. }) => heard.extend_from_slice(pcm),
                other => panic!("{other:?}"),
            }
        }
        let level = amplitude(&heard[12_000..14_400], 440.0, 24_000);
        assert!((3_500.0..6_500.0).contains(&level), "{level}");
    }
}
