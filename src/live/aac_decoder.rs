//! AAC-LC to mono PCM.

use crate::wire::aac::{FRAME_SAMPLES, SILENT_MONO, SILENT_STEREO, audio_specific_config};
use symphonia_codec_aac::AacDecoder as Symphonia;
use symphonia_core::audio::{Audio, GenericAudioBufferRef};
use symphonia_core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known};
use symphonia_core::packet::PacketRef;
use symphonia_core::units::{Duration, Timestamp};

/// A decoder for one stream. Claims its memory at once: nothing is allocated for a frame.
pub struct AacDecoder {
    inner: Symphonia,
    rate_hz: u32,
    channels: u8,
    pcm: Box<[i16; FRAME_SAMPLES as usize]>,
}

impl AacDecoder {
    /// For raw AAC-LC frames of this rate, with one or two channels; `None` for anything else.
    pub fn new(rate_hz: u32, channels: u8) -> Option<Self> {
        let silence = match channels {
            1 => &SILENT_MONO[..],
            2 => &SILENT_STEREO,
            _ => return None,
        };
        let config = audio_specific_config(rate_hz, channels)?;
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(well_known::CODEC_ID_AAC).with_extra_data(Box::new(config));
        let inner = Symphonia::try_new(&parameters, &AudioDecoderOptions::default()).ok()?;
        let mut decoder = AacDecoder { inner, rate_hz, channels, pcm: Box::new([0; _]) };
        // Its tables and the state of the channels come with the first frame.
        decoder.decode(silence)?;
        Some(decoder)
    }

    /// Sampling rate in Hz.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Channels of the stream.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// The 1024 samples of a raw frame, two channels mixed into one; `None` when it is none.
    pub fn decode(&mut self, raw: &[u8]) -> Option<&[i16]> {
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::new(FRAME_SAMPLES.into()), raw);
        let Ok(GenericAudioBufferRef::F32(decoded)) = self.inner.decode_ref(&packet) else {
            return None;
        };
        let left = decoded.plane(0)?;
        if left.len() != self.pcm.len() {
            return None;
        }
        match decoded.plane(1) {
            Some(right) => {
                self.pcm.iter_mut().zip(left.iter().zip(right)).for_each(|(to, (l, r))| *to = pcm((l + r) / 2.0))
            }
            None => self.pcm.iter_mut().zip(left).for_each(|(to, l)| *to = pcm(*l)),
        }
        Some(&self.pcm[..])
    }
}

/// Saturates; what is not a number is silence.
fn pcm(sample: f32) -> i16 {
    (sample * 32_768.0) as i16
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "demo")]
    use super::super::resample::tests::strongest;
    use super::*;
    #[cfg(feature = "demo")]
    use crate::wire::aac::Adts;

    /// The raw frames of the built-in clip.
    #[cfg(feature = "demo")]
    fn clip() -> Vec<&'static [u8]> {
        let mut bytes = &include_bytes!("../source/demo/audio.aac")[..];
        core::iter::from_fn(|| {
            let adts = Adts::parse(bytes).ok()?;
            let (frame, rest) = bytes.split_at_checked(adts.frame_len)?;
            bytes = rest;
            Some(&frame[adts.header_len..])
        })
        .collect()
    }

    #[test]
    #[cfg(feature = "demo")]
    fn the_tones_of_the_clip_are_heard() {
        let mut decoder = AacDecoder::new(16_000, 1).unwrap();
        let mut pcm = Vec::new();
        for raw in clip() {
            pcm.extend(decoder.decode(raw).expect("a frame"));
        }
        for second in 0..8 {
            let middle = &pcm[second * 16_000 + 6_000..][..4_000];
            assert_eq!(strongest(middle, 16_000), 300 + 100 * second as u32, "second {second}");
        }
    }

    #[test]
    fn silence_of_one_and_of_two_channels_is_silent() {
        for (channels, silence) in [(1, &SILENT_MONO[..]), (2, &SILENT_STEREO[..])] {
            for rate_hz in [8_000, 16_000, 22_050, 44_100, 48_000, 96_000] {
                let mut decoder = AacDecoder::new(rate_hz, channels).expect("a rate of AAC");
                assert_eq!(decoder.decode(silence), Some(&[0; 1024][..]));
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        assert!(AacDecoder::new(16_000, 0).is_none());
        assert!(AacDecoder::new(16_000, 3).is_none());
        assert!(AacDecoder::new(15_999, 1).is_none());
        let mut decoder = AacDecoder::new(16_000, 1).unwrap();
        assert!(decoder.decode(&[]).is_none() || decoder.decode(&[]) == Some(&[0; 1024]));
        assert!(decoder.decode(&SILENT_STEREO).is_none());
        assert!(decoder.decode(&SILENT_MONO).is_some());
    }

    #[test]
    #[cfg(feature = "demo")]
    fn any_frame_is_answered() {
        let frames = clip();
        let mut state = 7u32;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize
        };
        let mut good = 0;
        for (rate_hz, channels) in [(16_000, 1), (44_100, 2), (48_000, 1), (8_000, 2)] {
            let mut decoder = AacDecoder::new(rate_hz, channels).unwrap();
            for round in 0..1_000 {
                let mut raw: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
                if round % 2 == 0 {
                    raw = frames[next() % frames.len()].to_vec();
                    let at = next() % raw.len();
                    raw[at] ^= 1 << (next() % 8);
                    raw.truncate(1 + next() % (2 * raw.len()));
                }
                good += usize::from(decoder.decode(&raw).is_some());
            }
        }
        assert!(good > 500, "{good}");
    }
}
