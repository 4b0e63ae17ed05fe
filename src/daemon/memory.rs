//! Whether `memory_kb` holds what recordings want.

use crate::config::{AudioSource, Config, keys};
use crate::media::Budget;

/// Bitrate that the memory is divided by until the stream is seen, in kbit/s.
pub const VIDEO_KBPS: u32 = 2_000;
/// As [`VIDEO_KBPS`], for the sound.
const AUDIO_KBPS: u32 = 64;

/// Prebuffer and one fragment, in seconds: less makes recordings begin late.
const WANTED_S: u32 = 8;

/// The sizes of the rings.
pub fn budget(config: &Config) -> Budget {
    divided(config, config.memory_kb)
}

fn divided(config: &Config, memory_kb: u32) -> Budget {
    let audio_kbps = if config.audio.source == AudioSource::None { 0 } else { AUDIO_KBPS };
    Budget::from_memory(memory_kb, VIDEO_KBPS, audio_kbps)
}

/// What a person should know when the rings are too small for video of this bitrate.
pub fn shortage(config: &Config, video_kbps: u32) -> Option<String> {
    let seconds = budget(config).seconds_held(video_kbps);
    if seconds >= WANTED_S {
        return None;
    }
    let is_enough = |memory_kb| divided(config, memory_kb).seconds_held(video_kbps) >= WANTED_S;
    let (mut least, mut most) = keys::MEMORY_KB;
    while least < most {
        let middle = least.midpoint(most);
        (least, most) = if is_enough(middle) { (least, middle) } else { (middle + 1, most) };
    }
    let advice = match is_enough(least) {
        true => format!("set it to {least} or lower the bitrate"),
        false => "lower the bitrate".into(),
    };
    Some(format!("memory_kb holds {seconds} s at {video_kbps} kbit/s, recordings want {WANTED_S} s: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(memory_kb: u32) -> Config {
        Config { memory_kb, ..Config::default() }
    }

    #[test]
    fn the_default_is_enough_for_what_is_assumed() {
        assert_eq!(shortage(&Config::default(), VIDEO_KBPS), None);
    }

    #[test]
    fn the_advice_is_enough_and_not_more() {
        for kbps in [500, VIDEO_KBPS, 6_000] {
            let said = shortage(&with(keys::MEMORY_KB.0), kbps).expect("too small");
            let advice = said.split("set it to ").nth(1).and_then(|rest| rest.split(' ').next()).expect("advice");
            let advice: u32 = advice.parse().expect("a number");
            assert_eq!(shortage(&with(advice), kbps), None);
            assert!(shortage(&with(advice - 1), kbps).is_some(), "{said}");
        }
        let said = shortage(&with(1_024), 1_000_000).expect("nothing is enough");
        assert_eq!(said, "memory_kb holds 0 s at 1000000 kbit/s, recordings want 8 s: lower the bitrate");
    }
}
