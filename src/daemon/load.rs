//! The accessory as it was before the restart, or a new one.

use crate::config::Config;
use crate::crypto::Random;
use crate::hap::accessory::{Accessory, AccessoryConfig, Information};
use crate::hap::camera_tlv::LiveAudioOffer;
use crate::hap::database::Features;
use crate::hap::pairing::{Identity, Pairings, Setup};
use crate::hap::settings::StoredCamera;
use crate::hap::setup_code::SetupCode;
use crate::store::{Contents, Held, Part, Store};
use crate::wire::{Malformed, Writer};

/// What every hksvd camera says it is.
const MODEL: &str = "hksvd";

/// Puts the accessory together from the configuration and what the store held.
///
/// # Errors
/// One line for a person. A camera that has lost its identity while somebody is, or may be, paired
/// does not turn into another one by itself: controllers would show both, and neither works.
// For the stack frame of the caller, as its own.
#[inline(never)]
pub fn accessory(
    config: &Config,
    store: &Store,
    contents: &Contents,
    random: &mut dyn Random,
) -> Result<Accessory, String> {
    let dir = store.dir().display();
    let pairings = match parsed(&contents.pairings, Pairings::parse) {
        Parsed::Absent => Pairings::new(),
        Parsed::Whole(pairings) => pairings,
        Parsed::Damaged(why) => {
            log::error!("{dir}: the list of pairings is lost ({why}): this camera can be paired anew");
            Pairings::new()
        }
    };
    let mut identity = match parsed(&contents.identity, Identity::parse) {
        Parsed::Whole(identity) => identity,
        lost => {
            if !pairings.is_empty() || contents.pairings != Held::Absent && matches!(lost, Parsed::Damaged(_)) {
                let why = if let Parsed::Damaged(why) = lost { why } else { "the file is gone".into() };
                return Err(format!(
                    "{dir}: the identity of this camera is lost ({why}), but controllers know it; \
                     restore the file \"identity\" or start anew with: hksvd reset --yes"
                ));
            }
            if let Parsed::Damaged(why) = lost {
                log::error!(
                    "{dir}: the identity of this camera is lost ({why}); nobody had paired, a new one is drawn"
                );
            }
            let identity = Identity::generate(random, None);
            let mut bytes = [0; 512];
            let mut w = Writer::new(&mut bytes);
            identity.emit(&mut w);
            let written = w.finish().map_err(|_| "the identity is too large for its file".to_string())?;
            store.write(Part::Identity, written).map_err(|e| format!("the identity cannot be stored: {e}"))?;
            identity
        }
    };
    if let Some(code) = &config.setup_code {
        identity.setup_code = SetupCode::parse(code.as_str()).map_err(|e| format!("setup_code: {e}"))?;
    }
    let setup = or_default(&contents.tries, Setup::parse, "the count of failed pairings", &dir);
    let camera = or_default(&contents.camera, |b| StoredCamera::parse(b).map(Some), "the camera's switches", &dir);
    Ok(Accessory::new(&shape(config, identity.device_id.as_str()), identity, pairings, setup, camera))
}

/// What the configuration makes of the accessory.
fn shape(config: &Config, device_id: &str) -> AccessoryConfig {
    let mut serial = heapless::String::<16>::new();
    // Twelve digits.
    let _ = device_id.chars().filter(|c| *c != ':').try_for_each(|c| serial.push(c));
    AccessoryConfig {
        information: Information::new(config.name.as_str(), "hksvd", MODEL, &serial, env!("CARGO_PKG_VERSION")),
        features: Features {
            doorbell: config.doorbell.present,
            speaker: config.speaker.sink != crate::config::SpeakerSink::None,
            status_led: config.led.status.is_some(),
            night_vision: config.hooks.night_vision.is_some(),
            chime: config.chime.output.is_some(),
            all_presses: config.doorbell.all_presses,
        },
        audio_rate_hz: config.audio.rate_hz,
        live_audio: LiveAudioOffer::Both,
    }
}

enum Parsed<T> {
    Absent,
    Whole(T),
    Damaged(String),
}

fn parsed<T>(held: &Held, parse: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Parsed<T> {
    match held {
        Held::Absent => Parsed::Absent,
        Held::Whole(bytes) => match parse(bytes) {
            Ok(value) => Parsed::Whole(value),
            Err(why) => Parsed::Damaged(why.to_string()),
        },
        Held::Damaged(aside) => Parsed::Damaged(format!("damaged, kept as {}", aside.display())),
    }
}

fn or_default<T: Default>(
    held: &Held,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    what: &str,
    dir: &dyn std::fmt::Display,
) -> T {
    match parsed(held, parse) {
        Parsed::Absent => T::default(),
        Parsed::Whole(value) => value,
        Parsed::Damaged(why) => {
            log::error!("{dir}: {what} could not be read ({why}); starting from the defaults");
            T::default()
        }
    }
}
