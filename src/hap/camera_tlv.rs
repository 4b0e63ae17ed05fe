//! What the camera offers for live view and recording, what a hub selected for recording, and the
//! set-up of a data stream: characteristics 114, 115, 116, 130, 131, 205, 206, 207 and 209 (HAP R2 §11 for
//! the stream ones; the recording ones follow the same layout).
//!
//! Members of a list that have the same tag are kept apart by an item `00 00`.

use crate::wire::aac::RECORDING_RATES_HZ;
use crate::wire::tlv8::{self, Value};
use crate::wire::{Malformed, Writer};

/// H.264 profile; the numbers are those of HAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Profile {
    /// Constrained baseline.
    Baseline = 0,
    /// Main.
    Main = 1,
    /// High.
    High = 2,
}

/// H.264 level; the numbers are those of HAP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Level {
    /// 3.1
    L3_1 = 0,
    /// 3.2
    L3_2 = 1,
    /// 4.0
    L4_0 = 2,
}

/// A picture size with its highest frame rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Frames per second at most.
    pub fps: u8,
}

const fn size(width: u16, height: u16, fps: u8) -> Size {
    Size { width, height, fps }
}

/// What video is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoOffer<'a> {
    /// Profiles.
    pub profiles: &'a [Profile],
    /// Levels.
    pub levels: &'a [Level],
    /// Sizes.
    pub sizes: &'a [Size],
}

/// One audio codec: its number (the tables of 115 and 207 differ), and the codes of its rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioOffer<'a> {
    /// The codec's number.
    pub codec: u8,
    /// Codes of the sample rates, see [`stream_rate_code`] and [`recording_rate_code`].
    pub rates: &'a [u8],
}

/// Opus in the table of characteristic 115.
pub const STREAM_OPUS: u8 = 3;
/// AAC-ELD in the table of characteristic 115.
pub const STREAM_AAC_ELD: u8 = 2;
/// AAC-LC in the table of characteristic 207, which is not that of 115.
pub const RECORDING_AAC_LC: u8 = 0;
/// AAC-ELD in the table of characteristic 207.
pub const RECORDING_AAC_ELD: u8 = 1;

/// At which sample rates live view has sound: always Opus. There is no offer of nothing, because live
/// view does not start without an audio codec, even with a camera that has no microphone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LiveAudioOffer {
    /// 16 and 24 kHz: what controllers expect.
    #[default]
    Both,
    /// 16 kHz.
    Only16kHz,
    /// 24 kHz.
    Only24kHz,
}

impl LiveAudioOffer {
    /// The codes of the rates in 115 and 117, see [`stream_rate_code`].
    pub const fn rates(self) -> &'static [u8] {
        match self {
            LiveAudioOffer::Both => &[1, 2],
            LiveAudioOffer::Only16kHz => &[1],
            LiveAudioOffer::Only24kHz => &[2],
        }
    }
}

/// Everything the camera offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Video of live view.
    pub stream_video: VideoOffer<'static>,
    /// Sound of live view.
    pub stream_audio: LiveAudioOffer,
    /// Recording.
    pub recording_video: VideoOffer<'static>,
    /// The one sample rate that the audio source delivers, in Hz: what is recorded is what comes.
    pub recording_audio_rate_hz: u32,
    /// Media held before a trigger, in milliseconds.
    pub prebuffer_ms: u32,
    /// Length of a fragment, in milliseconds.
    pub fragment_ms: u32,
    /// A doorbell press is a trigger, too.
    pub doorbell: bool,
}

impl Offer {
    /// The offer that home hubs are known to take: two 16:9 sizes at 30 fps for recording (other
    /// sizes, lower rates and bitrates in the offer end in "error updating this setting"), and for
    /// live view also the small sizes of remote viewers and of the watch.
    pub const fn new(recording_audio_rate_hz: u32, doorbell: bool) -> Self {
        const SIZES: &[Size] =
            &[size(1920, 1080, 30), size(1280, 720, 30), size(640, 360, 30), size(480, 270, 30), size(320, 240, 15)];
        const RECORDING_SIZES: &[Size] = &[size(1280, 720, 30), size(1920, 1080, 30)];
        const MAIN: &[Profile] = &[Profile::Main];
        // Many encoders are set to High, and what is sent should not be above what was offered.
        const MAIN_OR_HIGH: &[Profile] = &[Profile::Main, Profile::High];
        const LEVELS: &[Level] = &[Level::L4_0];
        Offer {
            stream_video: VideoOffer { profiles: MAIN, levels: LEVELS, sizes: SIZES },
            stream_audio: LiveAudioOffer::Both,
            recording_video: VideoOffer { profiles: MAIN_OR_HIGH, levels: LEVELS, sizes: RECORDING_SIZES },
            recording_audio_rate_hz,
            prebuffer_ms: 4000,
            fragment_ms: 4000,
            doorbell,
        }
    }

    /// Appends the value of 114, SupportedVideoStreamConfiguration.
    pub fn put_stream_video(&self, w: &mut Writer<'_>) {
        put_video(w, &self.stream_video, true);
    }

    /// Appends the value of 115, SupportedAudioStreamConfiguration: Opus, no comfort noise.
    pub fn put_stream_audio(&self, w: &mut Writer<'_>) {
        put_audio(w, &[AudioOffer { codec: STREAM_OPUS, rates: self.stream_audio.rates() }]);
        tlv8::put_u8(w, 0x02, 0);
    }

    /// Appends the value of 116, SupportedRTPConfiguration: AES_CM_128_HMAC_SHA1_80.
    pub fn put_rtp(&self, w: &mut Writer<'_>) {
        tlv8::put_u8(w, 0x02, 0);
    }

    /// Appends the value of 130, SupportedDataStreamTransportConfiguration: HDS over TCP.
    pub fn put_data_stream(&self, w: &mut Writer<'_>) {
        tlv8::nested(w, 0x01, |w| tlv8::put_u8(w, 0x01, 0));
    }

    /// Appends the value of 205, SupportedCameraRecordingConfiguration.
    pub fn put_recording(&self, w: &mut Writer<'_>) {
        tlv8::put_u32(w, 0x01, self.prebuffer_ms);
        tlv8::put_u64(w, 0x02, if self.doorbell { TRIGGER_MOTION | TRIGGER_DOORBELL } else { TRIGGER_MOTION });
        tlv8::nested(w, 0x03, |w| {
            tlv8::put_u8(w, 0x01, 0);
            tlv8::nested(w, 0x02, |w| tlv8::put_u32(w, 0x01, self.fragment_ms));
        });
    }

    /// Appends the value of 206, SupportedVideoRecordingConfiguration.
    pub fn put_recording_video(&self, w: &mut Writer<'_>) {
        put_video(w, &self.recording_video, false);
    }

    /// Appends the value of 207, SupportedAudioRecordingConfiguration: AAC-LC at the source's rate.
    pub fn put_recording_audio(&self, w: &mut Writer<'_>) {
        let code = recording_rate_code(self.recording_audio_rate_hz).unwrap_or(RECORDING_RATE_CODE_16K);
        put_audio(w, &[AudioOffer { codec: RECORDING_AAC_LC, rates: &[code] }]);
    }
}

/// Bit of the event trigger options: motion.
pub const TRIGGER_MOTION: u64 = 1;
/// Bit of the event trigger options: doorbell press.
pub const TRIGGER_DOORBELL: u64 = 2;

const RECORDING_RATE_CODE_16K: u8 = 1;

/// The code of a sample rate in 207 and 209; `None` for rates that cannot be recorded.
pub fn recording_rate_code(rate_hz: u32) -> Option<u8> {
    RECORDING_RATES_HZ.iter().position(|&rate| rate == rate_hz).map(|code| code as u8)
}

/// The code of a sample rate in 115 and 117.
pub fn stream_rate_code(rate_hz: u32) -> Option<u8> {
    [8_000, 16_000, 24_000].iter().position(|&rate| rate == rate_hz).map(|code| code as u8)
}

/// Puts each member, with a separator between two.
fn put_list<'a, T>(w: &mut Writer<'a>, members: &[T], mut put: impl FnMut(&mut Writer<'a>, &T)) {
    for (n, member) in members.iter().enumerate() {
        if n > 0 {
            tlv8::separator(w, 0);
        }
        put(w, member);
    }
}

fn put_video(w: &mut Writer<'_>, offer: &VideoOffer<'_>, packetization: bool) {
    tlv8::nested(w, 0x01, |w| {
        tlv8::put_u8(w, 0x01, 0);
        tlv8::nested(w, 0x02, |w| {
            put_list(w, offer.profiles, |w, &p| tlv8::put_u8(w, 0x01, p as u8));
            put_list(w, offer.levels, |w, &l| tlv8::put_u8(w, 0x02, l as u8));
            if packetization {
                tlv8::put_u8(w, 0x03, 0);
            }
        });
        put_list(w, offer.sizes, |w, s| {
            tlv8::nested(w, 0x03, |w| {
                tlv8::put_u16(w, 0x01, s.width);
                tlv8::put_u16(w, 0x02, s.height);
                tlv8::put_u8(w, 0x03, s.fps);
            });
        });
    });
}

fn put_audio(w: &mut Writer<'_>, offers: &[AudioOffer<'_>]) {
    put_list(w, offers, |w, offer| {
        tlv8::nested(w, 0x01, |w| {
            tlv8::put_u8(w, 0x01, offer.codec);
            tlv8::nested(w, 0x02, |w| {
                tlv8::put_u8(w, 0x01, 1);
                tlv8::put_u8(w, 0x02, 0);
                put_list(w, offer.rates, |w, &rate| tlv8::put_u8(w, 0x03, rate));
            });
        });
    });
}

/// What a hub selected in 209, SelectedCameraRecordingConfiguration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SelectedRecording {
    /// Media wanted from before the trigger, in milliseconds.
    pub prebuffer_ms: u32,
    /// Trigger bits.
    pub triggers: u64,
    /// Length of a fragment, in milliseconds.
    pub fragment_ms: u32,
    /// H.264 profile code.
    pub profile: u8,
    /// H.264 level code.
    pub level: u8,
    /// Video bitrate in kbit/s.
    pub bitrate_kbps: u32,
    /// Key frame interval, in milliseconds.
    pub key_interval_ms: u32,
    /// Size and frame rate.
    pub size: Size,
    /// Audio sample rate.
    pub audio_rate_hz: u32,
    /// Audio channels.
    pub audio_channels: u8,
    /// Audio bitrate in kbit/s at most.
    pub audio_bitrate_kbps: u32,
}

impl SelectedRecording {
    /// Parses the value of 209.
    ///
    /// # Errors
    /// When a part is missing, or asks for another codec or container than the offer has.
    pub fn parse(tlv: &[u8]) -> Result<Self, Malformed> {
        let container = nested(tlv, 0x01, 0x03)?;
        let general = list(tlv, 0x01)?;
        only(list(general, 0x03)?, 0x01, 0, "the container is not fragmented MP4")?;
        let video = list(tlv, 0x02)?;
        only(video, 0x01, 0, "the video codec is not H.264")?;
        let h264 = list(video, 0x02)?;
        let audio = list(tlv, 0x03)?;
        only(audio, 0x01, u64::from(RECORDING_AAC_LC), "the audio codec is not AAC-LC")?;
        let aac = list(audio, 0x02)?;
        let fragment_ms = uint(container, 0x01)?;
        if fragment_ms == 0 || fragment_ms > FRAGMENT_MAX_MS {
            return Err(Malformed("a fragment of no sensible length"));
        }
        let rate: usize = uint(aac, 0x03)?;
        Ok(SelectedRecording {
            prebuffer_ms: uint(general, 0x01)?,
            triggers: uint(general, 0x02)?,
            fragment_ms,
            profile: uint(h264, 0x01)?,
            level: uint(h264, 0x02)?,
            bitrate_kbps: uint(h264, 0x03)?,
            key_interval_ms: uint(h264, 0x04)?,
            size: parse_size(list(video, 0x03)?)?,
            audio_rate_hz: *RECORDING_RATES_HZ.get(rate).ok_or(Malformed("an unknown sample rate"))?,
            audio_channels: uint(aac, 0x01)?,
            audio_bitrate_kbps: uint(aac, 0x04)?,
        })
    }
}

/// Longer fragments than this would never be complete in the prebuffer.
const FRAGMENT_MAX_MS: u32 = 60_000;

/// Parses a write to 131, SetupDataStreamTransport: the salt of the controller.
///
/// # Errors
/// When it is not "start HDS over TCP" with a salt of 32 bytes.
pub fn parse_data_stream_setup(tlv: &[u8]) -> Result<[u8; 32], Malformed> {
    only(tlv, 0x01, 0, "the command is not start")?;
    only(tlv, 0x02, 0, "the transport is not HDS over TCP")?;
    item(tlv, 0x03)?.array().ok_or(Malformed("the salt does not have 32 bytes"))
}

/// The answer to a write to 131.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataStreamAnswer {
    /// The controller may connect to this TCP port; the salt of the accessory is told once, in the
    /// write response.
    Ready {
        /// TCP port.
        port: u16,
        /// Salt of the accessory.
        salt: Option<[u8; 32]>,
    },
    /// It failed.
    Error,
    /// Too many are prepared already.
    Busy,
}

impl DataStreamAnswer {
    /// Appends the value.
    pub fn put(&self, w: &mut Writer<'_>) {
        match self {
            DataStreamAnswer::Ready { port, salt } => {
                tlv8::put_u8(w, 0x01, 0);
                tlv8::nested(w, 0x02, |w| tlv8::put_u16(w, 0x01, *port));
                if let Some(salt) = salt {
                    tlv8::put(w, 0x03, salt);
                }
            }
            DataStreamAnswer::Error => tlv8::put_u8(w, 0x01, 1),
            DataStreamAnswer::Busy => tlv8::put_u8(w, 0x01, 2),
        }
    }
}

/// The item `tag` of a list.
pub(super) fn item(tlv: &[u8], tag: u8) -> Result<Value<'_>, Malformed> {
    tlv8::find(tlv, tag)?.ok_or(Malformed("an item is missing"))
}

/// The list in the item `tag`. None that controllers send needs a second fragment.
pub(super) fn list(tlv: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    item(tlv, tag)?.bytes().ok_or(Malformed("a list is too long"))
}

/// The parameters (item 02) of the list `inner` in the list `outer`.
fn nested(tlv: &[u8], outer: u8, inner: u8) -> Result<&[u8], Malformed> {
    list(list(list(tlv, outer)?, inner)?, 0x02)
}

/// The integer in the item `tag`, of any width that holds it.
pub(super) fn uint<T: TryFrom<u64>>(tlv: &[u8], tag: u8) -> Result<T, Malformed> {
    let n = item(tlv, tag)?.uint().ok_or(Malformed("an item is no integer"))?;
    T::try_from(n).map_err(|_| Malformed("an integer is out of range"))
}

fn only(tlv: &[u8], tag: u8, value: u64, otherwise: &'static str) -> Result<(), Malformed> {
    if uint::<u64>(tlv, tag)? == value { Ok(()) } else { Err(Malformed(otherwise)) }
}

/// Width, height and frame rate.
pub(super) fn parse_size(tlv: &[u8]) -> Result<Size, Malformed> {
    Ok(Size { width: uint(tlv, 0x01)?, height: uint(tlv, 0x02)?, fps: uint(tlv, 0x03)? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Value as Json;

    pub(in crate::hap) fn vectors() -> Json {
        serde_json::from_str(include_str!("../../tests/vectors/camera_tlv.json")).unwrap()
    }

    pub(in crate::hap) fn hex(v: &Json) -> Vec<u8> {
        crate::crypto::fixed::hex(v)
    }

    pub(in crate::hap) fn emitted(put: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut buf = [0; 1024];
        let mut w = Writer::new(&mut buf);
        put(&mut w);
        w.finish().unwrap().to_vec()
    }

    fn sizes(decoded: &Json) -> Vec<Size> {
        let number = |v: &Json| v.as_u64().unwrap();
        let list = decoded["resolutions"].as_array().unwrap();
        list.iter().map(|r| size(number(&r[0]) as u16, number(&r[1]) as u16, number(&r[2]) as u8)).collect()
    }

    fn names<T>(decoded: &Json, key: &str, of: impl Fn(&str) -> T) -> Vec<T> {
        decoded[key].as_array().unwrap().iter().map(|n| of(n.as_str().unwrap())).collect()
    }

    #[test]
    fn video_offers_of_the_vectors() {
        let all = vectors();
        for (name, stream) in [
            ("supported_video_minimal", true),
            ("supported_video_full", true),
            ("supported_video_over_255", true),
            ("recording_video_two", false),
            ("recording_video_full", false),
        ] {
            let decoded = &all[name]["decoded"];
            let profiles = names(decoded, "profiles", |p| match p {
                "baseline" => Profile::Baseline,
                "main" => Profile::Main,
                _ => Profile::High,
            });
            let levels = names(decoded, "levels", |l| match l {
                "3.1" => Level::L3_1,
                "3.2" => Level::L3_2,
                _ => Level::L4_0,
            });
            let sizes = sizes(decoded);
            let offer = VideoOffer { profiles: &profiles, levels: &levels, sizes: &sizes };
            assert_eq!(emitted(|w| put_video(w, &offer, stream)), hex(&all[name]["hex"]), "{name}");
        }
    }

    #[test]
    fn audio_offers_of_the_vectors() {
        let all = vectors();
        for (name, stream) in [
            ("supported_audio_opus_16_24", true),
            ("supported_audio_opus_single_rate", true),
            ("supported_audio_opus_and_eld", true),
            ("recording_audio_aac_lc_32k", false),
            ("recording_audio_aac_lc_16_24_32", false),
            ("recording_audio_lc_and_eld", false),
        ] {
            let codecs = all[name]["decoded"]["codecs"].as_array().unwrap();
            let rates: Vec<Vec<u8>> = codecs
                .iter()
                .map(|c| {
                    let rates = c["rates"].as_array().unwrap().iter().map(|r| r.as_u64().unwrap() as u32);
                    rates.map(|r| if stream { stream_rate_code(r) } else { recording_rate_code(r) }.unwrap()).collect()
                })
                .collect();
            let offers: Vec<AudioOffer<'_>> = codecs
                .iter()
                .zip(&rates)
                .map(|(c, rates)| {
                    let codec = match (c["codec"].as_str().unwrap(), stream) {
                        ("opus", _) => STREAM_OPUS,
                        ("aac-eld", true) => STREAM_AAC_ELD,
                        ("aac-eld", false) => RECORDING_AAC_ELD,
                        _ => RECORDING_AAC_LC,
                    };
                    AudioOffer { codec, rates }
                })
                .collect();
            let bytes = emitted(|w| {
                put_audio(w, &offers);
                if stream {
                    tlv8::put_u8(w, 0x02, 0);
                }
            });
            assert_eq!(bytes, hex(&all[name]["hex"]), "{name}");
        }
    }

    #[test]
    fn our_offer_is_made_of_the_vectors() {
        let all = vectors();
        let camera = Offer::new(32_000, false);
        let doorbell = Offer::new(16_000, true);
        let value = |name: &str| hex(&all[name]["hex"]);
        assert_eq!(emitted(|w| camera.put_recording(w)), value("recording_supported_motion"));
        assert_eq!(emitted(|w| doorbell.put_recording(w)), value("recording_supported_motion_doorbell"));
        let main = VideoOffer { profiles: &[Profile::Main], ..camera.recording_video };
        assert_eq!(emitted(|w| put_video(w, &main, false)), value("recording_video_two"));
        // Main and High as a list (01 01 01, separator, 01 01 02), then level 4.0.
        let profiles = hex(&Json::from("010101000001010202 0102".replace(' ', "")));
        assert_eq!(emitted(|w| camera.put_recording_video(w))[7..18], profiles);
        assert_eq!(emitted(|w| camera.put_recording_audio(w)), value("recording_audio_aac_lc_32k"));
        assert_eq!(emitted(|w| doorbell.put_recording_audio(w)).last(), Some(&1));
        assert_eq!(emitted(|w| camera.put_stream_audio(w)), value("supported_audio_opus_16_24"));
        assert_eq!(emitted(|w| camera.put_rtp(w)), value("supported_rtp_aes128"));
        assert_eq!(emitted(|w| camera.put_data_stream(w)), value("datastream_supported"));
    }

    #[test]
    fn selections_of_the_vectors() {
        let all = vectors();
        for name in ["recording_selected_1080p", "recording_selected_720p_16k"] {
            let selected = SelectedRecording::parse(&hex(&all[name]["hex"])).unwrap();
            let decoded = &all[name]["decoded"];
            let n = |key: &str| decoded[key].as_u64().unwrap();
            assert_eq!(u64::from(selected.prebuffer_ms), n("prebuffer_ms"));
            assert_eq!(selected.triggers, n("triggers"));
            assert_eq!(u64::from(selected.fragment_ms), n("fragment_ms"));
            assert_eq!((u64::from(selected.profile), u64::from(selected.level)), (n("profile"), n("level")));
            assert_eq!(u64::from(selected.bitrate_kbps), n("kbps"));
            assert_eq!(u64::from(selected.key_interval_ms), n("iframe_ms"));
            assert_eq!(selected.size, size(n("width") as u16, n("height") as u16, n("fps") as u8));
            assert_eq!(recording_rate_code(selected.audio_rate_hz).map(u64::from), Some(n("rate")));
            assert_eq!(u64::from(selected.audio_channels), n("channels"));
            assert_eq!(u64::from(selected.audio_bitrate_kbps), n("audio_kbps"));
        }
    }

    #[test]
    fn malformed_selections_are_refused() {
        let all = vectors();
        for (name, tlv) in all["_malformed"].as_object().unwrap() {
            assert!(SelectedRecording::parse(&hex(tlv)).is_err(), "{name}");
            assert!(parse_data_stream_setup(&hex(tlv)).is_err(), "{name}");
        }
        let good = hex(&all["recording_selected_1080p"]["hex"]);
        for cut in 0..good.len() {
            assert!(SelectedRecording::parse(&good[..cut]).is_err(), "{cut}");
        }
        // Container, fragment length, video codec, audio codec, sample rate.
        let changes = [
            (&[0x03, 0x0b, 0x01, 0x01, 0x00][..], 1),
            (&[0x01, 0x04, 0xa0, 0x0f, 0x00, 0x00, 0x02, 0x24], 0),
            (&[0x02, 0x24, 0x01, 0x01, 0x00], 1),
            (&[0x03, 0x14, 0x01, 0x01, 0x00], 1),
            (&[0x03, 0x01, 0x03, 0x04, 0x04], 0),
        ];
        for (n, (pattern, end)) in changes.into_iter().enumerate() {
            let mut bad = good.clone();
            let at = bad.windows(pattern.len()).position(|w| w == pattern).unwrap();
            match n {
                1 => bad[at + 2..at + 6].fill(0),
                4 => bad[at + 2] = 9,
                _ => bad[at + pattern.len() - end] = 7,
            }
            assert!(SelectedRecording::parse(&bad).is_err(), "change {n}");
        }
    }

    #[test]
    fn data_stream_setup_both_ways() {
        let mut write = vec![1, 1, 0, 2, 1, 0, 3, 32];
        write.extend([7; 32]);
        assert_eq!(parse_data_stream_setup(&write), Ok([7; 32]));
        assert!(parse_data_stream_setup(&write[..write.len() - 1]).is_err());
        for at in [2, 5] {
            let mut bad = write.clone();
            bad[at] = 1;
            assert!(parse_data_stream_setup(&bad).is_err());
        }
        let mut short = vec![1, 1, 0, 2, 1, 0, 3, 31];
        short.extend([7; 31]);
        assert!(parse_data_stream_setup(&short).is_err());

        let ready = DataStreamAnswer::Ready { port: 51827, salt: Some([7; 32]) };
        assert_eq!(emitted(|w| ready.put(w))[..11], [1, 1, 0, 2, 4, 1, 2, 0x73, 0xca, 3, 32]);
        let later = DataStreamAnswer::Ready { port: 51827, salt: None };
        assert_eq!(emitted(|w| later.put(w)), [1, 1, 0, 2, 4, 1, 2, 0x73, 0xca]);
        assert_eq!(emitted(|w| DataStreamAnswer::Error.put(w)), [1, 1, 1]);
        assert_eq!(emitted(|w| DataStreamAnswer::Busy.put(w)), [1, 1, 2]);
    }
}
