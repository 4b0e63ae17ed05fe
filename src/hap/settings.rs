//! What controllers set and a reboot must not forget, with its form in the store.

use super::camera_tlv::SelectedRecording;
use crate::wire::tlv8::{self, Items};
use crate::wire::{Malformed, Writer};

/// The longest selection that is kept; hubs write about 90 bytes.
pub const SELECTION_MAX: usize = 256;
/// Room that [`StoredCamera::emit`] needs at most.
pub const STORED_CAMERA_MAX: usize = 512;

/// Mute and volume of a microphone or a speaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sound {
    /// Silent.
    pub mute: bool,
    /// In percent.
    pub volume: u8,
}

/// The recording configuration a hub selected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// The value as it was written: it is read back unchanged.
    pub raw: heapless::Vec<u8, SELECTION_MAX>,
    /// What it says.
    pub parsed: SelectedRecording,
    /// Hash of the offer it was selected from.
    pub offer: u64,
}

/// The switches and selections of a paired camera.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Active of each stream management service.
    pub stream_active: [bool; 2],
    /// EventSnapshotsActive
    pub event_snapshots: bool,
    /// HomeKitCameraActive
    pub camera_active: bool,
    /// PeriodicSnapshotsActive
    pub periodic_snapshots: bool,
    /// CameraOperatingModeIndicator: the status light.
    pub indicator: bool,
    /// NightVision
    pub night_vision: bool,
    /// Active of the recording management.
    pub recording_active: bool,
    /// RecordingAudioActive
    pub recording_audio: bool,
    /// The microphone.
    pub microphone: Sound,
    /// The speaker.
    pub speaker: Sound,
    /// Mute of the doorbell: its own chime is silent.
    pub chime_mute: bool,
    /// SelectedCameraRecordingConfiguration
    pub selection: Option<Selection>,
}

impl Default for Settings {
    /// Those of a camera that was just paired: it may stream, it does not record.
    fn default() -> Self {
        let sound = Sound { mute: false, volume: 100 };
        Settings {
            stream_active: [true; 2],
            event_snapshots: true,
            camera_active: true,
            periodic_snapshots: true,
            indicator: true,
            night_vision: true,
            recording_active: false,
            recording_audio: false,
            microphone: sound,
            speaker: sound,
            chime_mute: false,
            selection: None,
        }
    }
}

impl Settings {
    /// The truth values in the order of their bits in the store; new ones go to the end.
    fn switches(&mut self) -> [&mut bool; 12] {
        let [first, second] = &mut self.stream_active;
        [
            first,
            second,
            &mut self.event_snapshots,
            &mut self.camera_active,
            &mut self.periodic_snapshots,
            &mut self.indicator,
            &mut self.night_vision,
            &mut self.recording_active,
            &mut self.recording_audio,
            &mut self.microphone.mute,
            &mut self.speaker.mute,
            &mut self.chime_mute,
        ]
    }
}

/// Everything of the camera that the store keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredCamera {
    /// `c#` of the TXT record (HAP R2 §6.4).
    pub configuration_number: u16,
    /// Hash of the database that this number stands for.
    pub database: u64,
    /// The sample rate the audio source was seen to deliver, in Hz.
    pub audio_rate_hz: Option<u32>,
    /// Somebody has switched the camera off at the camera. No controller can change that, and neither can
    /// a power cut.
    pub privacy: bool,
    /// What controllers set.
    pub settings: Settings,
}

const VERSION: u8 = 1;

mod tag {
    pub const VERSION: u8 = 0x00;
    pub const CONFIGURATION_NUMBER: u8 = 0x01;
    pub const DATABASE: u8 = 0x02;
    pub const AUDIO_RATE_HZ: u8 = 0x03;
    pub const SWITCHES: u8 = 0x04;
    pub const MICROPHONE_VOLUME: u8 = 0x05;
    pub const SPEAKER_VOLUME: u8 = 0x06;
    pub const SELECTION: u8 = 0x07;
    pub const SELECTION_OFFER: u8 = 0x08;
    pub const PRIVACY: u8 = 0x09;
}

impl StoredCamera {
    /// Appends the form for the store.
    pub fn emit(&self, w: &mut Writer<'_>) {
        tlv8::put_u8(w, tag::VERSION, VERSION);
        tlv8::put_u16(w, tag::CONFIGURATION_NUMBER, self.configuration_number);
        tlv8::put_u64(w, tag::DATABASE, self.database);
        if let Some(rate_hz) = self.audio_rate_hz {
            tlv8::put_u32(w, tag::AUDIO_RATE_HZ, rate_hz);
        }
        if self.privacy {
            tlv8::put_u8(w, tag::PRIVACY, 1);
        }
        let mut settings = self.settings.clone();
        let bits = settings.switches().iter().enumerate().fold(0, |bits, (n, on)| bits | u32::from(**on) << n);
        tlv8::put_u32(w, tag::SWITCHES, bits);
        tlv8::put_u8(w, tag::MICROPHONE_VOLUME, settings.microphone.volume);
        tlv8::put_u8(w, tag::SPEAKER_VOLUME, settings.speaker.volume);
        if let Some(selection) = &settings.selection {
            tlv8::put(w, tag::SELECTION, &selection.raw);
            tlv8::put_u64(w, tag::SELECTION_OFFER, selection.offer);
        }
    }

    /// Parses what [`StoredCamera::emit`] made. What is unknown is ignored, what is missing has its
    /// default: an older hksvd may meet the file of a newer one.
    ///
    /// # Errors
    /// When it is no such file, or a value is out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut stored = StoredCamera {
            configuration_number: 0,
            database: 0,
            audio_rate_hz: None,
            privacy: false,
            settings: Settings::default(),
        };
        let (mut version, mut raw, mut offer) = (0, None, 0);
        for item in Items::new(bytes) {
            let item = item?;
            let number = item.value.uint();
            let number = || number.ok_or(Malformed("an item is no integer"));
            let settings = &mut stored.settings;
            match item.tag {
                tag::VERSION => version = number()?,
                tag::CONFIGURATION_NUMBER => stored.configuration_number = narrow(number()?)?,
                tag::DATABASE => stored.database = number()?,
                tag::AUDIO_RATE_HZ => stored.audio_rate_hz = Some(narrow(number()?)?),
                tag::SWITCHES => {
                    let bits = number()?;
                    settings.switches().into_iter().enumerate().for_each(|(n, on)| *on = bits >> n & 1 == 1);
                }
                tag::MICROPHONE_VOLUME => settings.microphone.volume = percent(number()?)?,
                tag::SPEAKER_VOLUME => settings.speaker.volume = percent(number()?)?,
                tag::SELECTION => {
                    let mut bytes = heapless::Vec::<u8, SELECTION_MAX>::new();
                    bytes.resize(item.value.len(), 0).map_err(|_| Malformed("the selection is too long"))?;
                    item.value.copy_to(&mut bytes);
                    raw = Some(bytes);
                }
                tag::SELECTION_OFFER => offer = number()?,
                tag::PRIVACY => stored.privacy = number()? != 0,
                _ => {}
            }
        }
        if version != u64::from(VERSION) || stored.configuration_number == 0 {
            return Err(Malformed("not the camera state of this program"));
        }
        if let Some(raw) = raw {
            let parsed = SelectedRecording::parse(&raw)?;
            stored.settings.selection = Some(Selection { raw, parsed, offer });
        }
        Ok(stored)
    }
}

fn narrow<T: TryFrom<u64>>(n: u64) -> Result<T, Malformed> {
    T::try_from(n).map_err(|_| Malformed("an integer is out of range"))
}

fn percent(n: u64) -> Result<u8, Malformed> {
    if n <= 100 { narrow(n) } else { Err(Malformed("a volume above 100")) }
}

#[cfg(test)]
mod tests {
    use super::super::camera_tlv::tests::{hex, vectors};
    use super::*;

    fn stored() -> StoredCamera {
        let raw = hex(&vectors()["recording_selected_1080p"]["hex"]);
        let mut settings = Settings {
            selection: Some(Selection {
                parsed: SelectedRecording::parse(&raw).unwrap(),
                raw: heapless::Vec::from_slice(&raw).unwrap(),
                offer: 0x0123_4567_89ab_cdef,
            }),
            ..Settings::default()
        };
        settings.speaker.volume = 7;
        StoredCamera {
            configuration_number: 65535,
            database: u64::MAX,
            audio_rate_hz: Some(16_000),
            privacy: true,
            settings,
        }
    }

    fn emitted(stored: &StoredCamera) -> Vec<u8> {
        let mut buf = [0; STORED_CAMERA_MAX];
        let mut w = Writer::new(&mut buf);
        stored.emit(&mut w);
        w.finish().unwrap().to_vec()
    }

    #[test]
    fn comes_back_as_it_was_with_each_switch_on_its_own() {
        let mut stored = stored();
        for n in 0..stored.settings.switches().len() {
            for (other, on) in stored.settings.switches().into_iter().enumerate() {
                *on = other == n;
            }
            assert_eq!(StoredCamera::parse(&emitted(&stored)).as_ref(), Ok(&stored));
        }
        stored.settings.selection = None;
        stored.audio_rate_hz = None;
        stored.privacy = false;
        assert_eq!(StoredCamera::parse(&emitted(&stored)), Ok(stored));
    }

    #[test]
    fn the_longest_selection_fits_the_room() {
        let mut stored = stored();
        let selection = stored.settings.selection.as_mut().unwrap();
        // An unknown item behind it.
        let fill = SELECTION_MAX - selection.raw.len() - 2;
        selection.raw.extend_from_slice(&[0x7f, fill as u8]).unwrap();
        selection.raw.resize(SELECTION_MAX, 0).unwrap();
        assert_eq!(StoredCamera::parse(&emitted(&stored)), Ok(stored));
    }

    #[test]
    fn half_a_file_is_refused() {
        let whole = emitted(&stored());
        let intact = (0..whole.len()).filter(|&cut| StoredCamera::parse(&whole[..cut]).is_ok()).count();
        // Cuts between two items leave a shorter list; the checksum of the store sees those.
        assert!(intact <= 9, "{intact}");
        assert!(StoredCamera::parse(&[]).is_err());
        assert!(StoredCamera::parse(b"{\"json\":1}").is_err());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in [
            &[0, 1, 2, 1, 1, 1][..],
            &[0, 1, 1, 1, 1, 0],
            &[0, 1, 1, 1, 4, 1, 1, 1, 1],
            &[0, 1, 1, 1, 1, 1, 5, 1, 101],
            &[0, 1, 1, 1, 1, 1, 7, 2, 1, 0],
            &[0, 1, 1, 1, 1, 1, 4, 0],
        ] {
            assert!(StoredCamera::parse(bad).is_err(), "{bad:?}");
        }
        assert!(StoredCamera::parse(&[0, 1, 1, 1, 1, 1, 0x70, 1, 1]).is_ok());
    }
}
