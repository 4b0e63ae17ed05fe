//! HomeKit Data Stream and the recordings that a home hub takes over it: state machines without
//! sockets, files or clocks.
//!
//! A hub writes the data stream set-up over HAP ([`Prepared`]), connects by TCP ([`Session`]) and opens
//! a recording, for which there is one [`Slot`]. What all connections share is lent to each call as a
//! [`Desk`].

pub mod frame;
pub mod message;
pub mod prepared;
pub mod recording;
pub mod report;
pub mod session;
pub mod slot;

pub use message::{FRAME_BYTES, Reason, SMALL_FRAME_BYTES};
pub use prepared::{Busy, Prepared};
pub use report::{Cause, Disconnect, Report};
pub use session::Session;
pub use slot::Slot;

use crate::media::Prebuffer;
use crate::time::Instant;

/// The number that the shell gives to a HAP connection. A data stream lives no longer than the HAP
/// connection that prepared it.
pub type ConnectionId = u32;

/// The number that the shell gives to a data stream connection; no two that live have the same.
pub type SessionId = u32;

/// What the controllers have allowed and selected, as far as recordings need to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Permission {
    /// Active of the recording management service.
    pub recording_active: bool,
    /// HomeKitCameraActive and not ManuallyDisabled.
    pub camera_active: bool,
    /// RecordingAudioActive: without it no sound leaves the camera. What holds at open holds for the
    /// whole recording.
    pub audio_active: bool,
    /// From the configuration: a silent track instead of no track while `audio_active` is off.
    pub silent_track: bool,
    /// The selected recording configuration; `None`: the hub has not written one.
    pub selected: Option<Selected>,
}

/// The part of the selected recording configuration that shapes what is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selected {
    /// Fragment length in milliseconds.
    pub fragment_ms: u32,
    /// Media before the motion in milliseconds.
    pub prebuffer_ms: u32,
    /// Rate of the audio track in Hz.
    pub audio_rate_hz: u32,
}

/// What all data streams share, lent for one call.
pub struct Desk<'a> {
    /// Data streams that wait for their TCP connection.
    pub prepared: &'a mut Prepared,
    /// The one recording.
    pub slot: &'a mut Slot,
    /// The media to record.
    pub prebuffer: &'a Prebuffer,
    /// What may be recorded.
    pub permission: &'a Permission,
    /// Since when there is motion, if there is.
    pub motion_since: Option<Instant>,
}

#[cfg(test)]
pub(crate) mod vectors {
    //! The golden vectors of the data stream.
    use serde_json::Value;

    pub fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/hds.json")).unwrap()
    }

    pub fn unhex(v: &Value) -> Vec<u8> {
        let digits = v.as_str().unwrap();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }
}
