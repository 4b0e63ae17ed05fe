//! Whether `memory_kb` holds what recordings want.

use crate::config::{AudioCodec, AudioSource, Config, keys};
use crate::media::Budget;

/// Bitrate that the memory is divided by until the stream is seen, in kbit/s.
pub const VIDEO_KBPS: u32 = 2_000;
/// As [`VIDEO_KBPS`], for the sound.
const AUDIO_KBPS: u32 = 64;

/// In seconds: a prebuffer of 4 s, what of a GOP lies before it, and the time that a hub takes to open. Less makes
/// recordings begin late.
const WANTED_S: u32 = 6;

/// The sizes of the rings.
pub fn budget(config: &Config) -> Budget {
    divided(config, config.memory_kb)
}

/// Largest access unit of the small stream, in bytes.
const LIVE_ACCESS_UNIT: usize = 64 * 1024;

/// Whether there is a small stream, or may be one: what is found by itself mostly has one.
fn is_small_wanted(config: &Config) -> bool {
    config.video.live_source.is_some() || config.video.source.is_none()
}

/// The sizes for `video.live_source`, when there is one: a GOP of a small stream.
pub fn live_budget(config: &Config) -> Option<Budget> {
    if !is_small_wanted(config) {
        return None;
    }
    let bytes = live_kb(config, config.memory_kb) as usize * 1024;
    let video_bytes = bytes.saturating_sub(LIVE_ACCESS_UNIT + Budget::INDEX_BYTES).max(32 * 1024);
    Some(Budget { video_bytes, audio_bytes: 0, access_unit_bytes: LIVE_ACCESS_UNIT })
}

/// What of `memory_kb` goes to `video.live_source`.
fn live_kb(config: &Config, memory_kb: u32) -> u32 {
    if is_small_wanted(config) { (memory_kb / 8).min(384) } else { 0 }
}

fn divided(config: &Config, memory_kb: u32) -> Budget {
    let memory_kb = memory_kb - live_kb(config, memory_kb);
    let audio_kbps = match (&config.audio.source, config.audio.codec) {
        (AudioSource::None, _) => 0,
        // Heard, not recorded.
        (AudioSource::Fifo(_), AudioCodec::L16) => 0,
        _ => AUDIO_KBPS,
    };
    Budget::from_memory(memory_kb, VIDEO_KBPS, audio_kbps)
}

/// The least `memory_kb` that is enough for video of this bitrate, when any is.
pub fn least(config: &Config, video_kbps: u32) -> Option<u32> {
    let is_enough = |memory_kb| divided(config, memory_kb).seconds_held(video_kbps) >= WANTED_S;
    let (mut least, mut most) = keys::MEMORY_KB;
    while least < most {
        let middle = least.midpoint(most);
        (least, most) = if is_enough(middle) { (least, middle) } else { (middle + 1, most) };
    }
    is_enough(least).then_some(least)
}

/// What a person should know when the rings are too small for video of this bitrate.
pub fn shortage(config: &Config, video_kbps: u32) -> Option<String> {
    let seconds = budget(config).seconds_held(video_kbps);
    if seconds >= WANTED_S {
        return None;
    }
    let advice = match least(config, video_kbps) {
        Some(least) => format!("set it to {least} or lower the bitrate"),
        None => "lower the bitrate".into(),
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
    fn the_small_stream_takes_its_part() {
        let demo = || Some(crate::config::VideoSource::Demo);
        let mut config = Config::default();
        // What is found by itself mostly has one.
        assert!(live_budget(&config).is_some());
        config.video.source = demo();
        assert_eq!(live_budget(&config), None);
        let all = budget(&config).video_bytes;
        config.video.live_source = demo();
        let live = live_budget(&config).expect("a second ring");
        // A GOP of 4 s at 400 kbit/s.
        assert!(live.video_bytes > 200_000, "{live:?}");
        assert!(all - budget(&config).video_bytes >= live.video_bytes + live.access_unit_bytes);
        config.memory_kb = keys::MEMORY_KB.0;
        assert!(live_budget(&config).expect("a small one").video_bytes >= 32 * 1024);
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
        assert_eq!(said, "memory_kb holds 0 s at 1000000 kbit/s, recordings want 6 s: lower the bitrate");
    }
}
