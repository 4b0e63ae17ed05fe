//! What comes out of a source, seen for a few seconds: for `hksvd check`.

use crate::config::{AudioCodec, AudioSource, Config, VideoSource};
use crate::daemon::{self, Place, memory};
use crate::io::runtime::{Executor, Signal, now, or, sleep_until};
use crate::motion::Meter;
use crate::source::file::Format;
use crate::source::{Sink, Track, Trouble, fifo};
use crate::time::{Duration, Instant};
use crate::wire::h264::AnnexB;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

/// For the first picture. Some encoders make a key frame when they like.
const FIRST: Duration = Duration::from_secs(6);
/// From the first picture on: with two key frames the GOP is known.
const ENOUGH: Duration = Duration::from_secs(4);
/// The same when there is no second key frame.
const AT_MOST: Duration = Duration::from_secs(12);

/// What was seen, or what a daemon says that it sees.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Seen {
    /// Pixels; 0 when nothing has come.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `Main`, where it is known.
    pub profile: &'static str,
    /// Frames a second.
    pub fps: f32,
    /// Bitrate of the video.
    pub kbps: u32,
    /// The longest time from key frame to key frame; 0 when there was one at the most.
    pub gop_s: f32,
    /// B-frames came.
    pub has_b_frames: bool,
    /// Codec and rate of the sound, in words; empty without.
    pub sound: String,
    /// Recordings can have it.
    pub is_sound_recordable: bool,
}

/// The sink that measures.
#[derive(Default)]
struct Eye {
    meter: Meter,
    pictures: u32,
    bytes: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    last_key: Option<Instant>,
    /// In front of the latest key frame.
    bytes_of_gops: u64,
    gop: Duration,
    sound: Option<(&'static str, u32, u8)>,
}

struct Shared(Rc<RefCell<Eye>>);

impl Shared {
    fn hear(&self, codec: &'static str, rate_hz: u32, channels: u8) {
        self.0.borrow_mut().sound = Some((codec, rate_hz, channels));
    }
}

impl Sink for Shared {
    fn access_unit(&mut self, annexb: AnnexB<'_>, key: bool, arrival: Instant) {
        let mut eye = self.0.borrow_mut();
        eye.meter.measure(annexb);
        eye.first.get_or_insert(arrival);
        eye.last = Some(arrival);
        eye.pictures += 1;
        if key && let Some(before) = eye.last_key.replace(arrival) {
            eye.gop = eye.gop.max(arrival - before);
            eye.bytes_of_gops = eye.bytes;
        }
        eye.bytes += annexb.bytes().len() as u64;
    }

    fn aac(&mut self, _: &[u8], rate_hz: u32, channels: u8, _: Instant) {
        self.hear("AAC-LC", rate_hz, channels);
    }

    fn l16(&mut self, _: &[i16], rate_hz: u32, _: Instant) {
        self.hear("L16", rate_hz, 1);
    }

    fn opus(&mut self, _: &[u8], _: Instant) {
        self.hear("Opus", 48_000, 1);
    }

    /// The source itself tells the log.
    fn trouble(&mut self, _: Track, _: Trouble) {}
}

impl Eye {
    /// Of whole GOPs, if any: in four seconds, one key frame too many makes a quarter more of it.
    fn kbps(&self) -> Option<u32> {
        let whole = (self.gop > Duration::ZERO).then_some((self.bytes_of_gops, self.last_key));
        let (bytes, end) = whole.unwrap_or((self.bytes, self.last));
        Some((bytes as f32 / 125.0 / (end? - self.first?).as_secs_f32().max(0.04)) as u32)
    }

    fn seen(&self) -> Option<Seen> {
        let sps = self.meter.sps()?;
        let took = (self.last? - self.first?).as_secs_f32().max(0.04);
        let sound = self.sound.map(|(codec, rate_hz, channels)| {
            let s = if channels == 1 { "" } else { "s" };
            format!("{codec}, {rate_hz} Hz, {channels} channel{s}")
        });
        Some(Seen {
            width: sps.width.into(),
            height: sps.height.into(),
            profile: match sps.profile_idc {
                66 => "Baseline",
                77 => "Main",
                100 => "High",
                _ => "another profile",
            },
            fps: self.pictures.saturating_sub(1) as f32 / took,
            kbps: self.kbps()?,
            gop_s: self.gop.as_secs_f32(),
            has_b_frames: self.meter.has_b_pictures(),
            sound: sound.unwrap_or_default(),
            is_sound_recordable: self.sound.is_some_and(|(codec, rate_hz, channels)| {
                codec == "AAC-LC" && crate::media::AudioParameters { rate_hz, channels }.is_recordable()
            }),
        })
    }
}

/// The lines that sources would put into the log.
struct Ear(Mutex<Vec<String>>);

static EAR: Ear = Ear(Mutex::new(Vec::new()));

impl Log for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.enabled(record.metadata()) && lines.len() < 8 {
            lines.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Plays a source with its sound for a few seconds: what was seen, if anything, and what there was to say.
pub fn measure(config: &Config, root: &Path, video: &VideoSource) -> (Option<Seen>, Vec<String>) {
    // It fails when it was done before.
    let _ = log::set_logger(&EAR);
    log::set_max_level(LevelFilter::Warn);
    let eye = Rc::new(RefCell::new(Eye::default()));
    let format = match config.audio.codec {
        AudioCodec::L16 => Format::Pcm { rate_hz: config.audio.rate_hz },
        AudioCodec::Aac | AudioCodec::Opus => Format::Adts,
    };
    let place = Place {
        root: root.into(),
        fps: config.video.fps.into(),
        format,
        bytes: memory::budget(config).access_unit_bytes,
        places: Default::default(),
    };
    let pictures = async {
        let error = daemon::deliver(
            "video.source",
            video,
            &config.audio.source,
            &place,
            &Signal::default(),
            &mut Shared(eye.clone()),
        )
        .await;
        log::error!("{error}");
    };
    let sound = async {
        let mut ear = Shared(eye.clone());
        if let Some((path, format)) = sound_fifo(config, video, format) {
            let error = match format {
                Format::Adts => fifo::audio(&path, &Signal::default(), &|| true, &mut ear).await,
                Format::Pcm { rate_hz } => fifo::pcm(&path, rate_hz, &mut ear).await,
            };
            log::error!("{error}");
        }
        std::future::pending().await
    };
    Executor::default().block_on(or(pictures, or(sound, enough(&eye))));
    place.places.borrow().iter().for_each(|place| place.remove());
    let said = core::mem::take(&mut *EAR.0.lock().unwrap_or_else(PoisonError::into_inner));
    (eye.borrow().seen(), said)
}

/// The FIFO that the sound comes through, when it comes through one. Nothing is asked of the firmware for it.
fn sound_fifo(config: &Config, video: &VideoSource, format: Format) -> Option<(PathBuf, Format)> {
    match (&config.audio.source, video) {
        (AudioSource::Fifo(path), _) => Some((path.clone(), format)),
        (AudioSource::Auto, VideoSource::YiFifo(video)) => {
            let pcm = Format::Pcm { rate_hz: config.audio.rate_hz };
            let beside = [("aac_audio_fifo", Format::Adts), ("audio_fifo", pcm)];
            beside
                .map(|(name, format)| (video.with_file_name(name), format))
                .into_iter()
                .find(|(path, _)| path.exists())
        }
        _ => None,
    }
}

async fn enough(eye: &RefCell<Eye>) {
    let begun = now();
    loop {
        sleep_until(now() + Duration::from_millis(100)).await;
        let eye = eye.borrow();
        let limit = match eye.first {
            None => begun + FIRST,
            Some(first) if eye.gop > Duration::ZERO => first + ENOUGH,
            Some(first) => first + AT_MOST,
        };
        if now() >= limit {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_key_frame_to_key_frame() {
        let eye = Rc::new(RefCell::new(Eye::default()));
        let mut seen = Vec::new();
        // GOPs of a second with 19,000 bytes, more than half of them in the key frame.
        for n in 0..25u64 {
            let key = n % 10 == 0;
            let mut picture = vec![0xff; if key { 10_000 } else { 1_000 }];
            picture[..5].copy_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x41 }]);
            let arrival = Instant::ZERO + Duration::from_millis(n * 100);
            Shared(eye.clone()).access_unit(AnnexB::new(&picture), key, arrival);
            seen.push(eye.borrow().kbps());
        }
        // Before there is a whole one, it is what has come.
        assert_eq!(seen[9], Some(168));
        assert!(seen[10..].iter().all(|kbps| *kbps == Some(152)), "{seen:?}");
    }
}
