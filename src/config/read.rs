//! From the pieces of the JSON text to a [`Config`]: names and bounds are those of the key table, the rest is up to
//! the type of each value.

use super::values::Text;
use super::{Config, Interface};
use crate::config::keys::{self, KEYS, Key, Kind};
use crate::wire::json::Value;
use crate::wire::json::read::{Event, Next};

/// Most names that `hap.interfaces` may have.
const INTERFACES_MAX: usize = 8;

/// A configuration as far as it was read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) config: Config,
    within: Within,
    /// The key that came last.
    key: Option<&'static Key>,
    /// Keys and sections that have come.
    seen: Vec<&'static str>,
}

#[derive(Clone, Copy, Default)]
enum Within {
    #[default]
    Nothing,
    Top,
    /// The section of `key`, whose name came last at the top.
    Section(&'static str),
    List(&'static str),
}

fn wrong_type<T>(expected: &str) -> Result<T, String> {
    Err(format!("wrong type, expected {expected}"))
}

impl Reading {
    /// Takes the next piece.
    pub(super) fn handle(&mut self, event: Event<'_, '_>) -> Result<Next, String> {
        match (self.within, event) {
            (Within::Nothing, Event::Object) => self.within = Within::Top,
            (Within::Nothing, _) => return wrong_type("an object"),
            (Within::Top, Event::Key(name)) => {
                let is_it =
                    |key: &&Key| if key.section().is_empty() { key.path == name } else { key.section() == name };
                let key = KEYS.iter().find(is_it).ok_or_else(|| keys::unknown(name))?;
                self.once(if key.section().is_empty() { key.path } else { key.section() })?;
                self.key = Some(key);
            }
            (Within::Section(section), Event::Key(name)) => {
                let is_it = |key: &&Key| key.section() == section && key.name() == name;
                let key = KEYS.iter().find(is_it).ok_or_else(|| keys::unknown(&format!("{section}.{name}")))?;
                self.once(key.path)?;
                self.key = Some(key);
            }
            (Within::Section(_), Event::End) => self.within = Within::Top,
            (Within::List(section), Event::End) => self.within = Within::Section(section),
            (_, Event::End) => {}
            (Within::List(_), event) => {
                let interface: Interface = needed(&event.into_value())?;
                if self.config.hap.interfaces.len() == INTERFACES_MAX {
                    return Err(format!("must be at most {INTERFACES_MAX} names"));
                }
                self.config.hap.interfaces.push(interface);
            }
            (within, event) => {
                let Some(key) = self.key else { return Ok(Next::Over) };
                return self.value(within, key, event);
            }
        }
        Ok(Next::Into)
    }

    /// Nobody can mean a key that stands there twice.
    fn once(&mut self, name: &'static str) -> Result<(), String> {
        if self.seen.contains(&name) {
            return Err("stands here a second time".into());
        }
        self.seen.push(name);
        Ok(())
    }

    fn value(&mut self, within: Within, key: &'static Key, event: Event<'_, '_>) -> Result<Next, String> {
        match (within, key.section(), event) {
            (Within::Top, "doorbell", Event::Value(Value::Bool(present))) => self.config.doorbell.present = present,
            (Within::Top, section, Event::Object) if !section.is_empty() => self.within = Within::Section(section),
            (Within::Top, "doorbell", _) => return wrong_type("true, false or an object"),
            (Within::Top, section, _) if !section.is_empty() => return wrong_type("an object"),
            (_, section, Event::Array) if matches!(key.kind, Kind::List(_)) => self.within = Within::List(section),
            (.., event) => set(&mut self.config, key, &event.into_value())?,
        }
        Ok(Next::Into)
    }
}

/// `None` is `null`.
type Given<'a> = Option<Value<'a>>;

fn needed<T: Text>(value: &Given<'_>) -> Result<T, String> {
    T::parse(text(value, T::EXPECTED)?)
}

fn optional<T: Text>(value: &Given<'_>) -> Result<Option<T>, String> {
    if value.is_none() { Ok(None) } else { needed(value).map(Some) }
}

fn text<'v>(value: &'v Given<'_>, expected: &str) -> Result<&'v str, String> {
    match value.as_ref().and_then(Value::text) {
        Some(text) => Ok(text),
        None => wrong_type(expected),
    }
}

fn switch(value: &Given<'_>) -> Result<bool, String> {
    match value {
        Some(Value::Bool(on)) => Ok(*on),
        _ => wrong_type("true or false"),
    }
}

/// A whole number within the bounds of its key.
fn number<T: TryFrom<u32>>(key: &Key, value: &Given<'_>) -> Result<T, String> {
    T::try_from(whole(key, value)?).map_err(|_| "too large".into())
}

/// Apart from [`number`], which is made for each type of number.
fn whole(key: &Key, value: &Given<'_>) -> Result<u32, String> {
    let (range, choice) = match key.kind {
        Kind::Integer(least, most) => (least..=most, None),
        Kind::Number(choice) => (0..=u32::MAX, Some(choice)),
        _ => (0..=u32::MAX, None),
    };
    let expected = || match choice {
        Some(choice) => format!("one of {}", choice.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
        None => format!("a whole number from {} to {}", range.start(), range.end()),
    };
    let number = match value {
        Some(Value::Unsigned(number)) => u32::try_from(*number).ok(),
        Some(Value::Negative(_)) => None,
        _ => return wrong_type(&expected()),
    };
    number
        .filter(|number| range.contains(number) && choice.is_none_or(|choice| choice.contains(number)))
        .ok_or_else(|| format!("must be {}", expected()))
}

/// Sets what a key of the table is about.
fn set(config: &mut Config, key: &Key, value: &Given<'_>) -> Result<(), String> {
    match key.path {
        "name" => config.name = needed(value)?,
        "setup_code" => config.setup_code = optional(value)?,
        "state_dir" => config.state_dir = needed(value)?,
        "log" => config.log = needed(value)?,
        "hap.port" => config.hap.port = number(key, value)?,
        "hap.interfaces" => return wrong_type("an array"),
        "hap.mdns" => config.hap.mdns = switch(value)?,
        "control.socket" => config.control.socket = needed(value)?,
        "control.listen" => config.control.listen = optional(value)?,
        "control.token" => config.control.token = optional(value)?,
        "memory_kb" => config.memory_kb = number(key, value)?,
        "video.live_source" => config.video.live_source = optional(value)?,
        "video.source" => config.video.source = optional(value)?,
        "video.fps" => config.video.fps = number(key, value)?,
        "video.pacing_percent" => config.video.pacing_percent = number(key, value)?,
        "audio.source" => config.audio.source = needed(value)?,
        "audio.codec" => config.audio.codec = needed(value)?,
        "audio.rate_hz" => config.audio.rate_hz = number(key, value)?,
        "audio.silent_track" => config.audio.silent_track = switch(value)?,
        "snapshot.source" => config.snapshot.source = needed(value)?,
        "speaker.rate_hz" => config.speaker.rate_hz = number(key, value)?,
        "speaker.sink" => config.speaker.sink = needed(value)?,
        "motion.mode" => config.motion.mode = needed(value)?,
        "motion.sensitivity" => config.motion.sensitivity = number(key, value)?,
        "motion.hold_s" => config.motion.hold_s = number(key, value)?,
        "motion.onvif_url" => config.motion.onvif_url = optional(value)?,
        "doorbell.button" => {
            config.doorbell.button = optional(value)?;
            config.doorbell.present = config.doorbell.button.is_some();
        }
        "doorbell.presses" => {
            config.doorbell.all_presses = match text(value, "single or all")? {
                "single" => false,
                "all" => true,
                _ => return Err("must be single or all".into()),
            }
        }
        "doorbell.reset_s" => config.doorbell.reset_s = number(key, value)?,
        "chime.output" => config.chime.output = optional(value)?,
        "chime.pulse_ms" => config.chime.pulse_ms = number(key, value)?,
        "privacy.switch" => config.privacy.switch = optional(value)?,
        "led.status" => config.led.status = optional(value)?,
        "hooks.night_vision" => config.hooks.night_vision = optional(value)?,
        "hooks.camera_active" => config.hooks.camera_active = optional(value)?,
        "hooks.keyframe" => config.hooks.keyframe = optional(value)?,
        // A test sets every key of the table.
        _ => return Err("cannot be set".into()),
    }
    Ok(())
}
