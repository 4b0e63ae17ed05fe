//! What controllers may write.

use super::{Caller, State, TLV_MAX};
use crate::hap::accessory::{Effect, Refusal};
use crate::hap::camera_tlv::{DataStreamAnswer, SelectedRecording, parse_data_stream_setup};
use crate::hap::database::Field;
use crate::hap::settings::{SELECTION_MAX, Selection, Settings, Sound};
use crate::hap::types::Status;
use crate::wire::base64;
use crate::wire::json::Value;

impl State {
    /// Writes a field. Permissions are checked before. An unchanged value is taken and nothing
    /// follows from it. Returns the value of the write response where there is one.
    ///
    /// # Errors
    /// The status when the value is not one the field can take, or not now.
    pub fn write(
        &mut self,
        field: Field,
        value: &Value<'_>,
        caller: &mut Caller<'_>,
    ) -> Result<Option<DataStreamAnswer>, Status> {
        match field {
            Field::Identify => {
                if value.truth().ok_or(Status::InvalidValue)? {
                    self.effect(Effect::Identify);
                }
            }
            Field::StreamActive(stream) => {
                self.switch(field, value, caller, |s| &mut s.stream_active[stream as usize])?;
            }
            Field::MicrophoneMute => self.switch(field, value, caller, |s| &mut s.microphone.mute)?,
            Field::SpeakerMute => self.switch(field, value, caller, |s| &mut s.speaker.mute)?,
            Field::MicrophoneVolume => self.volume(field, value, caller, |s| &mut s.microphone)?,
            Field::SpeakerVolume => self.volume(field, value, caller, |s| &mut s.speaker)?,
            Field::EventSnapshotsActive => self.switch(field, value, caller, |s| &mut s.event_snapshots)?,
            Field::HomeKitCameraActive => {
                let before = self.stored.settings.camera_active;
                self.switch(field, value, caller, |s| &mut s.camera_active)?;
                if self.stored.settings.camera_active != before {
                    // A consequence: the writer did not write this one, so it is told, too.
                    self.changed(Field::StatusActive, None);
                }
            }
            Field::PeriodicSnapshotsActive => self.switch(field, value, caller, |s| &mut s.periodic_snapshots)?,
            Field::CameraOperatingModeIndicator => self.switch(field, value, caller, |s| &mut s.indicator)?,
            Field::NightVision => self.switch(field, value, caller, |s| &mut s.night_vision)?,
            Field::ChimeMute => self.switch(field, value, caller, |s| &mut s.chime_mute)?,
            Field::RecordingActive => self.switch(field, value, caller, |s| &mut s.recording_active)?,
            Field::RecordingAudioActive => self.switch(field, value, caller, |s| &mut s.recording_audio)?,
            Field::SelectedCameraRecordingConfiguration => self.select(field, value, caller)?,
            Field::SetupEndpoints(stream) => self.set_up_endpoints(stream, value, caller)?,
            Field::SelectedRtpStreamConfiguration(stream) => self.select_stream(stream, value, caller)?,
            Field::SetupDataStreamTransport => return self.set_up_data_stream(value, caller).map(Some),
            Field::Manufacturer
            | Field::Model
            | Field::Name
            | Field::SerialNumber
            | Field::FirmwareRevision
            | Field::ProtocolVersion
            | Field::StreamingStatus(_)
            | Field::SupportedVideoStreamConfiguration(_)
            | Field::SupportedAudioStreamConfiguration(_)
            | Field::SupportedRtpConfiguration(_)
            | Field::MotionDetected
            | Field::StatusActive
            | Field::ManuallyDisabled
            | Field::SupportedCameraRecordingConfiguration
            | Field::SupportedVideoRecordingConfiguration
            | Field::SupportedAudioRecordingConfiguration
            | Field::SupportedDataStreamTransportConfiguration
            | Field::DataStreamVersion
            | Field::ProgrammableSwitchEvent => return Err(Status::ReadOnly),
        }
        Ok(None)
    }

    fn switch(
        &mut self,
        field: Field,
        value: &Value<'_>,
        caller: &Caller<'_>,
        slot: impl FnOnce(&mut Settings) -> &mut bool,
    ) -> Result<(), Status> {
        let on = value.truth().ok_or(Status::InvalidValue)?;
        let slot = slot(&mut self.stored.settings);
        if core::mem::replace(slot, on) != on {
            self.written(field, caller);
        }
        Ok(())
    }

    fn volume(
        &mut self,
        field: Field,
        value: &Value<'_>,
        caller: &Caller<'_>,
        slot: impl FnOnce(&mut Settings) -> &mut Sound,
    ) -> Result<(), Status> {
        let volume = value.unsigned().filter(|volume| *volume <= 100).ok_or(Status::InvalidValue)? as u8;
        let slot = slot(&mut self.stored.settings);
        if core::mem::replace(&mut slot.volume, volume) != volume {
            self.written(field, caller);
        }
        Ok(())
    }

    fn select(&mut self, field: Field, value: &Value<'_>, caller: &Caller<'_>) -> Result<(), Status> {
        let mut buf = [0; SELECTION_MAX];
        let tlv = tlv(value, &mut buf)?;
        let parsed = SelectedRecording::parse(tlv).map_err(|_| Status::InvalidValue)?;
        if self.stored.settings.selection.as_ref().is_some_and(|selection| selection.raw == tlv) {
            return Ok(());
        }
        let raw = heapless::Vec::from_slice(tlv).map_err(|_| Status::InvalidValue)?;
        self.stored.settings.selection = Some(Selection { raw, parsed, offer: self.offer_hash() });
        self.written(field, caller);
        Ok(())
    }

    /// A setting was changed by a controller.
    fn written(&mut self, field: Field, caller: &Caller<'_>) {
        self.unsaved = true;
        self.changed(field, Some(caller.connection));
        self.settle();
    }

    fn set_up_data_stream(&mut self, value: &Value<'_>, caller: &mut Caller<'_>) -> Result<DataStreamAnswer, Status> {
        let mut buf = [0; TLV_MAX];
        let controller_salt = parse_data_stream_setup(tlv(value, &mut buf)?).map_err(|_| Status::InvalidValue)?;
        let (answer, later) = match caller.data_streams.prepare(caller.connection, caller.shared, &controller_salt) {
            Ok((port, salt)) => {
                (DataStreamAnswer::Ready { port, salt: Some(salt) }, DataStreamAnswer::Ready { port, salt: None })
            }
            Err(Refusal::Busy) => (DataStreamAnswer::Busy, DataStreamAnswer::Busy),
            Err(Refusal::Error) => (DataStreamAnswer::Error, DataStreamAnswer::Error),
        };
        self.data_stream = Some(later);
        Ok(answer)
    }
}

/// The TLV8 in a written value.
pub(super) fn tlv<'b>(value: &Value<'_>, buf: &'b mut [u8]) -> Result<&'b [u8], Status> {
    let text = value.text().ok_or(Status::InvalidValue)?;
    base64::decode(text, buf).map_err(|_| Status::InvalidValue)
}
