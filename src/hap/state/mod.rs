//! The live values of the camera: one `read`, one `write`, and what follows from a change.
//!
//! Every value that has events carries a counter of its changes and who wrote last. Connections
//! compare the counters with those they have told, so there is no queue of events to overflow.

mod live;
mod write;

use super::ConnectionId;
use super::accessory::{AccessoryConfig, DataStreams, Effect, Information, LiveViews, Stored};
use super::camera_tlv::{DataStreamAnswer, LiveAudioOffer, Offer, SelectedRecording, recording_rate_code};
use super::database::{self, Features, Field, PLACES, Stream};
use super::pairing::ControllerId;
use super::press::Press;
use super::settings::{Settings, Sound, StoredCamera};
use super::types::Status;
use crate::crypto::{SharedSecret, sha512};
use crate::wire::Writer;
use crate::wire::json;
use core::fmt::Write as _;
use std::collections::VecDeque;

/// What may be recorded now, for whoever sends media.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordingPermission {
    /// Recording is switched on.
    pub recording_active: bool,
    /// The camera is on: neither switched off in Home nor at the camera.
    pub camera_active: bool,
    /// What the hub selected.
    pub selected: Option<SelectedRecording>,
    /// Sound may leave the camera.
    pub audio_active: bool,
}

impl RecordingPermission {
    /// Whether all of it is there: the prebuffer may hold media.
    pub fn armed(&self) -> bool {
        self.recording_active && self.camera_active && self.selected.is_some()
    }
}

/// How often a value has changed, and by whom last; `None` for a change that no controller wrote.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Change {
    pub count: u32,
    pub writer: Option<ConnectionId>,
}

/// Presses of a button that nobody was told of yet, at most.
pub(super) const PRESSES_MAX: usize = 3;

/// Who writes, and what a write may reach.
pub struct Caller<'a> {
    /// The connection.
    pub connection: ConnectionId,
    /// The controller at its other end.
    pub controller: &'a ControllerId,
    /// The secret of its pair-verify.
    pub shared: &'a SharedSecret,
    /// Prepares data streams.
    pub data_streams: &'a mut dyn DataStreams,
    /// Sets up live views.
    pub live_views: &'a mut dyn LiveViews,
}

/// The live values.
pub struct State {
    information: Information,
    features: Features,
    offer: Offer,
    stored: StoredCamera,
    /// The settings changed since [`State::take_unsaved`] was asked.
    unsaved: bool,
    /// Motion as the camera sees it; reported only while the camera is on.
    motion: bool,
    /// The switch at the camera is on.
    switched_off: bool,
    /// The last presses of the button, the newest at the end.
    presses: [Press; PRESSES_MAX],
    live: live::Views,
    data_stream: Option<DataStreamAnswer>,
    changes: [Change; PLACES],
    /// What the shell was told last; nothing before the start.
    told: Option<Told>,
    effects: VecDeque<Effect>,
}

/// What follows from the settings.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    camera_active: bool,
    armed: bool,
    streaming: bool,
    motion: bool,
    status_led: bool,
    night_vision: bool,
    sound: [Sound; 2],
}

impl State {
    /// The state of a camera: `stored` is what the store kept, nothing at the first start. A stored
    /// selection that was made from another offer is dropped, and the configuration number rises when
    /// the database is another one than before.
    pub fn new(config: &AccessoryConfig, stored: Option<StoredCamera>) -> Self {
        let first = stored.is_none();
        let stored = stored.unwrap_or_else(|| StoredCamera {
            configuration_number: 1,
            database: 0,
            audio_rate_hz: None,
            privacy: false,
            settings: Settings::default(),
        });
        // What was seen last is a better guess than the configuration: `c#` stays as it is.
        let rate_hz = stored.audio_rate_hz.unwrap_or(config.audio_rate_hz);
        let mut state = State {
            information: config.information.clone(),
            features: config.features,
            offer: Offer { stream_audio: config.live_audio, ..Offer::new(rate_hz, config.features.doorbell) },
            stored,
            unsaved: false,
            motion: false,
            switched_off: false,
            presses: [Press::Single; PRESSES_MAX],
            live: live::Views::default(),
            data_stream: None,
            changes: [Change::default(); PLACES],
            told: None,
            effects: VecDeque::new(),
        };
        if first {
            state.stored.database = state.database_hash();
            state.save();
        }
        state.offer_changed();
        state.settle();
        state
    }

    /// What the camera has.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What the camera offers.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// What controllers set.
    pub fn settings(&self) -> &Settings {
        &self.stored.settings
    }

    /// The names of the accessory.
    pub fn information(&self) -> &Information {
        &self.information
    }

    /// `c#` of the TXT record.
    pub fn configuration_number(&self) -> u16 {
        self.stored.configuration_number
    }

    /// What the store keeps.
    pub fn to_store(&self) -> &StoredCamera {
        &self.stored
    }

    /// Whether motion is reported to controllers.
    pub fn motion_detected(&self) -> bool {
        self.motion && self.camera_active()
    }

    /// Whether the camera is on: neither switched off in Home nor at the camera.
    pub fn camera_active(&self) -> bool {
        self.stored.settings.camera_active && !self.manually_disabled()
    }

    /// Whether the camera is switched off at the camera itself.
    pub fn manually_disabled(&self) -> bool {
        self.switched_off || self.stored.privacy
    }

    /// Whether a live view may be set up on one of the streams.
    pub fn streaming_allowed(&self) -> bool {
        self.camera_active() && self.stored.settings.stream_active.contains(&true)
    }

    /// Mute and volume of the microphone, for what is sent of it in live view.
    pub fn microphone(&self) -> Sound {
        self.stored.settings.microphone
    }

    /// Mute and volume of the speaker.
    pub fn speaker(&self) -> Sound {
        self.stored.settings.speaker
    }

    /// What may be recorded now.
    pub fn recording_permission(&self) -> RecordingPermission {
        let settings = &self.stored.settings;
        RecordingPermission {
            recording_active: settings.recording_active,
            camera_active: self.camera_active(),
            selected: settings.selection.as_ref().map(|selection| selection.parsed),
            audio_active: settings.recording_audio,
        }
    }

    /// Motion began or ended. Reported at once; nothing is stored.
    pub fn set_motion(&mut self, motion: bool) {
        self.motion = motion;
        self.settle();
    }

    /// The button of the doorbell was pressed.
    pub fn ring(&mut self, press: Press) {
        if self.features.doorbell {
            self.presses.rotate_left(1);
            self.presses[PRESSES_MAX - 1] = press;
            self.changed(Field::ProgrammableSwitchEvent, None);
        }
    }

    /// The press that came as the `nth` from the end, of which there were [`PRESSES_MAX`] at the most.
    pub(super) fn press(&self, nth: usize) -> Press {
        self.presses[PRESSES_MAX - nth.clamp(1, PRESSES_MAX)]
    }

    /// The switch or shutter at the camera itself turned it off or on.
    pub fn set_manually_disabled(&mut self, disabled: bool) {
        let before = self.manually_disabled();
        self.switched_off = disabled;
        self.disabled_since(before);
    }

    /// Somebody at the camera wants it off, or not any more. Kept until he says otherwise; a switch that
    /// turns it off is stronger.
    pub fn set_privacy(&mut self, privacy: bool) {
        let before = self.manually_disabled();
        if core::mem::replace(&mut self.stored.privacy, privacy) != privacy {
            self.save();
        }
        self.disabled_since(before);
    }

    fn disabled_since(&mut self, before: bool) {
        if self.manually_disabled() != before {
            self.changed(Field::ManuallyDisabled, None);
            self.settle();
        }
    }

    /// The audio source was seen to deliver `rate_hz`. `false`, and nothing changed, when this rate
    /// cannot be recorded.
    pub fn set_audio_rate(&mut self, rate_hz: u32) -> bool {
        if recording_rate_code(rate_hz).is_none() {
            return false;
        }
        if self.stored.audio_rate_hz != Some(rate_hz) {
            self.stored.audio_rate_hz = Some(rate_hz);
            self.save();
        }
        if self.offer.recording_audio_rate_hz != rate_hz {
            self.offer.recording_audio_rate_hz = rate_hz;
            self.changed(Field::SupportedAudioRecordingConfiguration, None);
            self.offer_changed();
            self.settle();
        }
        true
    }

    /// Other sound is offered for live view from now on. What is known at the start belongs into
    /// [`AccessoryConfig::live_audio`]: a change is told to controllers as another database.
    pub fn set_live_audio(&mut self, offer: LiveAudioOffer) {
        self.offer.stream_audio = offer;
        self.offer_changed();
    }

    /// The name under which the accessory is advertised changed: the characteristic follows.
    pub fn set_name(&mut self, name: &str) {
        self.information.set_name(name);
    }

    /// Back to the settings of a camera that was just paired.
    pub(super) fn forget_settings(&mut self) {
        self.stored.settings = Settings::default();
        self.data_stream = None;
        self.end_all_views();
        self.unsaved = true;
        self.settle();
    }

    /// As if it had never been paired. The caller stores it.
    pub(super) fn factory_reset(&mut self) {
        self.stored.privacy = false;
        self.forget_settings();
        self.unsaved = false;
        self.stored.configuration_number = 1;
    }

    /// The connection is gone, and what it had set up.
    pub(super) fn forget_connection(&mut self, connection: ConnectionId) {
        self.end_views_of_connection(connection);
    }

    /// Whether the settings changed since the last call: they must be stored before the controller
    /// is told that its write was done.
    pub(super) fn take_unsaved(&mut self) -> bool {
        core::mem::take(&mut self.unsaved)
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(super) fn changes(&self) -> &[Change; PLACES] {
        &self.changes
    }

    fn changed(&mut self, field: Field, writer: Option<ConnectionId>) {
        let change = &mut self.changes[database::place(field)];
        change.count = change.count.wrapping_add(1);
        change.writer = writer;
        if !self.effects.iter().any(|effect| matches!(effect, Effect::Notify)) {
            self.effect(Effect::Notify);
        }
    }

    fn save(&mut self) {
        self.effect(Effect::Store { connection: None, what: Stored::Camera });
    }

    /// Tells what follows from the settings, where it is not what was told last. At the start that is
    /// what the shell does not take for granted: a camera that is off, a recording that is armed, live
    /// views that are not allowed, and in any case how light and night vision shall be.
    fn settle(&mut self) {
        let settings = &self.stored.settings;
        let now = Told {
            camera_active: self.camera_active(),
            armed: self.recording_permission().armed(),
            streaming: self.streaming_allowed(),
            motion: self.motion_detected(),
            status_led: settings.indicator && self.camera_active(),
            night_vision: settings.night_vision,
            sound: [settings.microphone, settings.speaker],
        };
        let start = Told { camera_active: true, armed: false, streaming: true, motion: false, ..now };
        let first = self.told.is_none();
        let before = self.told.replace(now).unwrap_or(start);
        if now.motion != before.motion {
            self.changed(Field::MotionDetected, None);
        }
        if now.camera_active != before.camera_active {
            self.effect(Effect::CameraActive(now.camera_active));
        }
        if now.armed != before.armed {
            self.effect(Effect::RecordingArmed(now.armed));
        }
        if now.streaming != before.streaming {
            self.effect(Effect::StreamingAllowed(now.streaming));
        }
        if first || now.status_led != before.status_led {
            self.effect(Effect::StatusLed(now.status_led));
        }
        if first || now.night_vision != before.night_vision {
            self.effect(Effect::NightVision(now.night_vision));
        }
        if now.sound != before.sound {
            self.effect(Effect::SoundChanged);
        }
        self.end_views_not_allowed();
    }

    fn stream_allowed(&self, stream: Stream) -> bool {
        self.camera_active() && self.stored.settings.stream_active[stream as usize]
    }

    /// Compares the offer and the database with those that were stored.
    fn offer_changed(&mut self) {
        let offer = self.offer_hash();
        let settings = &mut self.stored.settings;
        if settings.selection.take_if(|selection| selection.offer != offer).is_some() {
            self.changed(Field::SelectedCameraRecordingConfiguration, None);
            self.save();
        }
        let database = self.database_hash();
        if self.stored.database != database {
            self.stored.database = database;
            // HAP R2 §6.4: from 65535 to 1, never to 0.
            self.stored.configuration_number = self.stored.configuration_number.checked_add(1).unwrap_or(1);
            self.save();
            self.effect(Effect::TxtChanged);
        }
    }

    /// Hash of the recording offer: 205, 206 and 207.
    fn offer_hash(&self) -> u64 {
        let mut buf = [0; 512];
        let mut w = Writer::new(&mut buf);
        self.offer.put_recording(&mut w);
        self.offer.put_recording_video(&mut w);
        self.offer.put_recording_audio(&mut w);
        hash(w.written())
    }

    /// Hash of what controllers keep of `/accessories`: everything but the values, and the values of
    /// the Supported… characteristics and of FirmwareRevision, which they keep, too.
    fn database_hash(&self) -> u64 {
        let mut buf = [0; 4096];
        let mut w = Writer::new(&mut buf);
        let _ = write!(w, "{}", self.information.firmware_revision);
        self.offer.put_stream_video(&mut w);
        self.offer.put_stream_audio(&mut w);
        self.offer.put_rtp(&mut w);
        self.offer.put_data_stream(&mut w);
        w.u64_be(self.offer_hash());
        for service in database::SERVICES.iter().filter(|s| self.features.have(s.when)) {
            w.u16_be(service.iid);
            w.u16_be(service.kind.0);
            w.u8(u8::from(service.primary));
            service.linked.iter().for_each(|iid| w.u16_be(*iid));
            for c in service.characteristics.iter().filter(|c| self.features.have(c.when)) {
                w.u16_be(c.iid);
                w.u16_be(c.kind.0);
                w.bytes(c.format.name().as_bytes());
                c.perms.put(&mut w);
                let (min, max) = c.range.unwrap_or((0, 0));
                w.bytes(&[min, max, u8::from(c.unit.is_some())]);
                w.bytes(self.features.valid(c));
            }
        }
        debug_assert!(!w.is_full());
        hash(w.written())
    }

    /// Appends the JSON value of a field, as `connection` sees it.
    ///
    /// # Errors
    /// The status when it cannot be read now.
    pub fn read(&self, field: Field, connection: ConnectionId, w: &mut Writer<'_>) -> Result<(), Status> {
        let settings = &self.stored.settings;
        let (offer, information) = (&self.offer, &self.information);
        match field {
            Field::Identify => return Err(Status::WriteOnly),
            Field::Manufacturer => json::put_string(w, &information.manufacturer),
            Field::Model => json::put_string(w, &information.model),
            Field::Name => json::put_string(w, &information.name),
            Field::SerialNumber => json::put_string(w, &information.serial_number),
            Field::FirmwareRevision => json::put_string(w, &information.firmware_revision),
            Field::ProtocolVersion => json::put_string(w, "1.1.0"),
            Field::StreamingStatus(stream) => put_tlv(w, |w| self.streaming_status(stream).put(w)),
            Field::SupportedVideoStreamConfiguration(_) => put_tlv(w, |w| offer.put_stream_video(w)),
            Field::SupportedAudioStreamConfiguration(_) => put_tlv(w, |w| offer.put_stream_audio(w)),
            Field::SupportedRtpConfiguration(_) => put_tlv(w, |w| offer.put_rtp(w)),
            Field::SetupEndpoints(stream) => put_tlv(w, |w| self.put_setup_answer(stream, connection, w)),
            Field::SelectedRtpStreamConfiguration(stream) => put_tlv(w, |w| self.put_selected_stream(stream, w)),
            Field::StreamActive(stream) => put_truth(w, settings.stream_active[stream as usize]),
            Field::MicrophoneMute => put_truth(w, settings.microphone.mute),
            Field::MicrophoneVolume => put_number(w, settings.microphone.volume),
            Field::SpeakerMute => put_truth(w, settings.speaker.mute),
            Field::SpeakerVolume => put_number(w, settings.speaker.volume),
            Field::MotionDetected => put_truth(w, self.motion_detected()),
            Field::StatusActive => put_truth(w, settings.camera_active),
            Field::EventSnapshotsActive => put_truth(w, settings.event_snapshots),
            Field::HomeKitCameraActive => put_truth(w, settings.camera_active),
            Field::PeriodicSnapshotsActive => put_truth(w, settings.periodic_snapshots),
            Field::CameraOperatingModeIndicator => put_truth(w, settings.indicator),
            Field::NightVision => put_truth(w, settings.night_vision),
            Field::ManuallyDisabled => put_truth(w, self.manually_disabled()),
            Field::ChimeMute => put_truth(w, settings.chime_mute),
            Field::RecordingActive => put_truth(w, settings.recording_active),
            Field::SupportedCameraRecordingConfiguration => put_tlv(w, |w| offer.put_recording(w)),
            Field::SupportedVideoRecordingConfiguration => put_tlv(w, |w| offer.put_recording_video(w)),
            Field::SupportedAudioRecordingConfiguration => put_tlv(w, |w| offer.put_recording_audio(w)),
            Field::SelectedCameraRecordingConfiguration => match &settings.selection {
                Some(selection) => json::put_base64(w, &selection.raw),
                None => return Err(Status::UnableToCommunicate),
            },
            Field::RecordingAudioActive => put_truth(w, settings.recording_audio),
            Field::SupportedDataStreamTransportConfiguration => put_tlv(w, |w| offer.put_data_stream(w)),
            Field::SetupDataStreamTransport => put_tlv(w, |w| {
                if let Some(answer) = &self.data_stream {
                    answer.put(w);
                }
            }),
            Field::DataStreamVersion => json::put_string(w, "1.0"),
            // It has no state: only events tell of it.
            Field::ProgrammableSwitchEvent => w.bytes(b"null"),
        }
        Ok(())
    }
}

/// Longest TLV8 a controller writes: SetupEndpoints with two IPv6 addresses and AES-256 keys is less.
const TLV_MAX: usize = 512;

pub(super) fn put_tlv(w: &mut Writer<'_>, put: impl FnOnce(&mut Writer<'_>)) {
    let mut buf = [0; TLV_MAX];
    let mut tlv = Writer::new(&mut buf);
    put(&mut tlv);
    debug_assert!(!tlv.is_full());
    json::put_base64(w, tlv.written());
}

fn put_truth(w: &mut Writer<'_>, truth: bool) {
    w.u8(if truth { b'1' } else { b'0' });
}

fn put_number(w: &mut Writer<'_>, n: u8) {
    let _ = write!(w, "{n}");
}

/// The first eight bytes of SHA-512: changes are found with it, nobody is kept out.
fn hash(bytes: &[u8]) -> u64 {
    let digest = sha512(&[bytes]);
    digest[..8].iter().fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
