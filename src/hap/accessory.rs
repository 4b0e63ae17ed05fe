//! What all connections of the accessory share, and what they ask of the shell.

use super::ConnectionId;
use super::camera_tlv::LiveAudioOffer;
use super::database::Features;
use super::pairing::{Context, ControllerId, Identity, Pairings, Setup};
use super::settings::StoredCamera;
use super::state::State;
use super::stream_tlv::{SelectedStream, SetupAnswer, SetupRequest};
use crate::crypto::srp;
use crate::crypto::{Random, SharedSecret};
use crate::time::Instant;

/// The longest text of a name, model or serial number (HAP R2 §9: maxLen 64).
pub const TEXT_MAX: usize = 64;

/// The names of the accessory: its AccessoryInformation service (HAP R2 §8.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Information {
    /// What Home shows first, and the name it is advertised under.
    pub name: heapless::String<TEXT_MAX>,
    /// Who made it.
    pub manufacturer: heapless::String<TEXT_MAX>,
    /// Which kind it is; also `md` of the TXT record.
    pub model: heapless::String<TEXT_MAX>,
    /// Unique and the same for ever.
    pub serial_number: heapless::String<TEXT_MAX>,
    /// `x[.y[.z]]`, digits only.
    pub firmware_revision: heapless::String<TEXT_MAX>,
}

impl Information {
    /// Texts as they may be published: cut at 64 bytes, the revision without its suffix. An empty name
    /// or model and a serial number of less than two characters are not allowed (HAP R2 §9) and get a
    /// stand-in.
    pub fn new(name: &str, manufacturer: &str, model: &str, serial_number: &str, firmware_revision: &str) -> Self {
        let serial_number = if serial_number.len() < 2 { "00" } else { serial_number };
        Information {
            name: bounded(name, "Camera"),
            manufacturer: bounded(manufacturer, "hksvd"),
            model: bounded(model, "hksvd"),
            serial_number: bounded(serial_number, "00"),
            firmware_revision: revision(firmware_revision),
        }
    }

    pub(super) fn set_name(&mut self, name: &str) {
        self.name = bounded(name, "Camera");
    }
}

/// As much of the text as fits, at a character's border.
fn bounded(text: &str, otherwise: &str) -> heapless::String<TEXT_MAX> {
    let text = if text.is_empty() { otherwise } else { text };
    let mut out = heapless::String::new();
    // Stops at the first character that does not fit.
    let _ = text.chars().try_for_each(|c| out.push(c));
    out
}

/// Up to three numbers with dots between them at the start of `text`: anything behind them, as in
/// `1.2.3-g5`, makes controllers refuse the accessory.
fn revision(text: &str) -> heapless::String<TEXT_MAX> {
    let mut out = heapless::String::<TEXT_MAX>::new();
    for (n, part) in text.trim_start_matches('v').split('.').take(3).enumerate() {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Ok(number) = part[..digits].parse::<u32>() else { break };
        // Three numbers of ten digits fit.
        let _ = core::fmt::write(&mut out, format_args!("{}{number}", if n > 0 { "." } else { "" }));
        if digits < part.len() {
            break;
        }
    }
    if out.is_empty() { bounded("0", "0") } else { out }
}

/// What a camera is made of, as the configuration says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessoryConfig {
    /// Its names.
    pub information: Information,
    /// What it has.
    pub features: Features,
    /// Sample rate of its microphone in Hz, until the stream itself is seen.
    pub audio_rate_hz: u32,
    /// At which rates live view can have sound.
    pub live_audio: LiveAudioOffer,
}

/// A file of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// [`Identity`]; only a factory reset changes it.
    Identity,
    /// [`Pairings`]
    Pairings,
    /// The count of tries in [`Setup`].
    Tries,
    /// [`State::to_store`]
    Camera,
}

/// Something for the shell to do. Ask for all of them after every call into [`super::connection`] or
/// [`Accessory`].
#[derive(Debug)]
pub enum Effect {
    /// Run the job on another thread. With a connection, give the result to its `handle_computed`, or
    /// when it is gone to [`Accessory::handle_prepared`], as without one.
    Compute {
        /// Who waits for it.
        connection: Option<ConnectionId>,
        /// The work.
        job: srp::Job,
    },
    /// Store a file durably. With a connection, tell it by `handle_stored`, once for each such effect:
    /// its answer waits for that.
    Store {
        /// Who waits for it.
        connection: Option<ConnectionId>,
        /// What.
        what: Stored,
    },
    /// A value changed: let every connection look by `poll_transmit`.
    Notify,
    /// The TXT record is another one: `c#`, `sf` or, after a factory reset, `id`. Announce it.
    TxtChanged,
    /// Finish all connections of a controller that was removed, their data streams and live views.
    CloseController {
        /// The controller.
        id: ControllerId,
        /// The connection that asked for it: it closes by itself once its answer is sent.
        except: Option<ConnectionId>,
    },
    /// The last pairing is gone: finish every connection, all data streams and live views.
    CloseAll {
        /// The connection that asked for it: it closes by itself once its answer is sent.
        except: Option<ConnectionId>,
    },
    /// Let a person see which camera this is.
    Identify,
    /// The camera was switched off or on: off ends live views and the recording, and nothing is held.
    CameraActive(bool),
    /// Everything a recording needs is there, or no longer: the prebuffer may hold media, or not.
    RecordingArmed(bool),
    /// Live views may be set up, or no longer.
    StreamingAllowed(bool),
    /// End a live view: its connection or its pairing is gone, or it is not allowed any more. Hap has
    /// forgotten it already.
    EndLiveView {
        /// On which service: 0 or 1.
        view: u8,
    },
    /// Mute or volume of microphone or speaker: see [`State::microphone`] and [`State::speaker`].
    SoundChanged,
    /// Switch the status light: it is on while the camera is, unless it was switched off. Told at the
    /// start, too.
    StatusLed(bool),
    /// Switch night vision between automatic and off. Told at the start, too.
    NightVision(bool),
    /// Take a picture and give it to `handle_snapshot` of the connection.
    Snapshot {
        /// Who waits for it.
        connection: ConnectionId,
        /// Width asked for, in pixels.
        width: u32,
        /// Height asked for, in pixels.
        height: u32,
        /// What it is for.
        reason: Option<super::resource::Reason>,
    },
}

/// Why a data stream could not be prepared, or a live view not be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// There are too many already.
    Busy,
    /// It failed: no port could be opened, or the camera cannot do what is asked.
    Error,
}

/// Prepares data streams (HDS) for controllers.
pub trait DataStreams {
    /// Prepares one for the connection whose pair-verify gave `shared`, and says on which TCP port it
    /// is awaited and with which salt of the accessory.
    ///
    /// # Errors
    /// When it cannot be prepared.
    fn prepare(
        &mut self,
        connection: ConnectionId,
        shared: &SharedSecret,
        controller_salt: &[u8; 32],
    ) -> Result<(u16, [u8; 32]), Refusal>;
}

/// Sends live views. `view` is the service that one runs on, 0 or 1. Hap sees to it that only the
/// connection that set a live view up commands it, and in an order that makes sense.
pub trait LiveViews {
    /// Sets one up: binds its ports, draws its keys, and answers with [`SetupAnswer::Ready`]; any
    /// other answer counts as [`Refusal::Error`] or, if it says so, as busy. It takes the place of
    /// whatever the service had, should that not have been ended yet. It must end by itself, and
    /// [`State::live_view_ended`] be called, if it is not started within 30 s.
    ///
    /// # Errors
    /// When it cannot be set up: the controller is told.
    fn set_up(&mut self, connection: ConnectionId, view: u8, request: &SetupRequest) -> Result<SetupAnswer, Refusal>;

    /// Carries out a command: one start, then any others, at last an end, whose result counts for
    /// nothing: the live view is over. Do not call [`State::live_view_ended`] for it.
    ///
    /// # Errors
    /// When it cannot be done: the write fails, and the live view stays as it was.
    fn select(&mut self, connection: ConnectionId, view: u8, selected: &SelectedStream) -> Result<(), Refusal>;
}

/// What a connection needs from outside.
pub struct Surroundings<'a> {
    /// The time.
    pub now: Instant,
    /// Randomness.
    pub random: &'a mut dyn Random,
    /// The data streams.
    pub data_streams: &'a mut dyn DataStreams,
    /// The live views.
    pub live_views: &'a mut dyn LiveViews,
}

/// The accessory: all that its connections share.
pub struct Accessory {
    /// Who it is.
    pub identity: Identity,
    /// Who may open sessions.
    pub pairings: Pairings,
    /// The pair-setup, one at a time.
    pub setup: Setup,
    /// The live values.
    pub state: State,
    /// Changes of the pairings, so that a failed store puts back only its own.
    pub(super) pairings_epoch: u32,
    /// Large request buffers that are in use.
    pub(super) large_buffers: u8,
}

impl Accessory {
    /// The accessory; `camera` is what the store kept of it.
    pub fn new(
        config: &AccessoryConfig,
        identity: Identity,
        pairings: Pairings,
        setup: Setup,
        camera: Option<StoredCamera>,
    ) -> Self {
        let state = State::new(config, camera);
        Accessory { identity, pairings, setup, state, pairings_epoch: 0, large_buffers: 0 }
    }

    /// The next thing to do for the shell.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.state.poll_effect()
    }

    /// Whether somebody is paired: `sf` of the TXT record is 0 then.
    pub fn is_paired(&self) -> bool {
        !self.pairings.is_empty()
    }

    /// The category of the accessory, `ci` of the TXT record (HAP R2 §13).
    pub fn category(&self) -> u8 {
        const IP_CAMERA: u8 = 17;
        const VIDEO_DOORBELL: u8 = 18;
        if self.state.features().doorbell { VIDEO_DOORBELL } else { IP_CAMERA }
    }

    /// Begins what the first pair-setup will need, so that it is answered at once. Call it at start.
    pub fn prepare_setup(&mut self, random: &mut dyn Random) {
        let mut context = Context { identity: &self.identity, pairings: &mut self.pairings, random };
        if let Some(job) = self.setup.prepare(&mut context) {
            self.state.effect(Effect::Compute { connection: None, job });
        }
    }

    /// Factory reset: everything is forgotten, and the accessory is another one from now on.
    pub fn factory_reset(&mut self, identity: Identity, random: &mut dyn Random) {
        self.identity = identity;
        self.pairings.clear();
        self.pairings_epoch = self.pairings_epoch.wrapping_add(1);
        self.setup.reset();
        self.state.factory_reset();
        for what in [Stored::Identity, Stored::Pairings, Stored::Tries, Stored::Camera] {
            self.state.effect(Effect::Store { connection: None, what });
        }
        self.state.effect(Effect::CloseAll { except: None });
        self.state.effect(Effect::TxtChanged);
        self.prepare_setup(random);
    }

    /// Takes the result of a job that no connection waits for.
    pub fn handle_prepared(&mut self, done: srp::Done) {
        self.setup.handle_prepared(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_numbers() {
        for (text, expected) in [
            ("1.2.3", "1.2.3"),
            ("1.2.3-g5", "1.2.3"),
            ("v0.1.0", "0.1.0"),
            ("1.2-rc1.7", "1.2"),
            ("2", "2"),
            ("1.2.3.4", "1.2.3"),
            ("1..2", "1"),
            ("99999999999.1", "0"),
            ("master", "0"),
            ("", "0"),
            ("01.002.3", "1.2.3"),
        ] {
            assert_eq!(revision(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_never_empty_and_never_too_long() {
        let information = Information::new("", "", "", "7", "");
        assert_eq!((&*information.name, &*information.model, &*information.serial_number), ("Camera", "hksvd", "00"));
        let long = Information::new(&"é".repeat(40), "m", "m", "s1", "1");
        assert_eq!(long.name, "é".repeat(32).as_str());
    }
}
