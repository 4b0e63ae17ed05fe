//! Where the sources deliver: the time line, the prebuffer, the motion sensor.

use super::shared::Shared;
use super::sound::{self, Heard};
use super::{effects, memory};
use crate::config::{AudioCodec, AudioSource};
use crate::control::status::Decimal;
use crate::io::runtime::now;
use crate::media::clock::{AudioClock, VideoClock};
use crate::media::{AccessUnit, AudioParameters, Budget};
use crate::motion::Meter;
use crate::source::file::Format;
use crate::source::rtp_unix::Places;
use crate::source::{Sink, Track, Trouble};
use crate::time::{Duration, Instant, Pts90k};
use crate::trace::{Cause, Event, Repeats};
use crate::wire::aac::FRAME_SAMPLES;
use crate::wire::h264::AnnexB;
use crate::wire::opus;
use std::rc::Rc;

/// What is known of the sources.
#[derive(Default)]
pub struct Figures {
    /// When the last picture came.
    pub last_picture: Option<Instant>,
    /// Frames a second, by the video clock.
    pub fps: u32,
    /// Losses up to the next IDR picture, writers that went away among them.
    pub resyncs: u32,
    /// Sound that only live views can use: what it is, and its rate in Hz.
    pub live_sound: Option<(&'static str, u32)>,
    /// What a person should know, shown by `hksvd status`.
    pub warnings: Vec<String>,
}

/// A source counts as stalled when it gave no picture for this long.
pub const STALLED: Duration = Duration::from_secs(2);

/// Above this a hub may give up before the first fragment is whole.
const LONG_GOP: Duration = Duration::from_millis(5_000);

/// The sink of one source.
pub struct Feed {
    shared: Rc<Shared>,
    /// Of `video.live_source`: for live view alone, without motion and sound.
    live: bool,
    budget: Budget,
    video_clock: VideoClock,
    /// Its sound is wanted.
    hears: bool,
    audio_clock: Option<(Frames, AudioClock)>,
    meter: Meter,
    epoch: Option<u32>,
    pictures: u32,
    told_gop: bool,
    told_memory: bool,
    /// One for each kind: a flood of garbage brings several that take turns.
    troubles: [Repeats<Trouble>; Trouble::KINDS],
    /// Lines about parameters that were printed.
    told_parameters: u8,
}

/// What the frames of a sound are like.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Frames {
    samples: u32,
    rate_hz: u32,
}

/// A kind of trouble that goes on is told again after this time.
const TROUBLE_AGAIN: Duration = Duration::from_secs(60);

/// Changes of parameters that a person should hear of; a source that changes them all the time is for
/// those who debug it.
const PARAMETERS_TOLD: u8 = 8;

/// Warnings that `hksvd status` shows.
const WARNINGS_MAX: usize = 8;

impl Feed {
    /// A sink for a source that is about to begin.
    pub fn new(shared: Rc<Shared>, budget: Budget) -> Self {
        let fps = u32::from(shared.config.video.fps);
        let hears = shared.config.audio.source != AudioSource::None;
        Feed {
            shared,
            live: false,
            budget,
            video_clock: VideoClock::new(Some(fps)),
            hears,
            audio_clock: None,
            meter: Meter::new(),
            epoch: None,
            pictures: 0,
            told_gop: false,
            told_memory: false,
            troubles: [const { Repeats::every(TROUBLE_AGAIN) }; Trouble::KINDS],
            told_parameters: 0,
        }
    }

    /// A sink for the small stream.
    pub fn live(shared: Rc<Shared>, budget: Budget) -> Self {
        Feed { live: true, hears: false, ..Feed::new(shared, budget) }
    }

    /// For pictures alone: the sound comes from elsewhere.
    pub fn without_sound(self) -> Self {
        Feed { hears: false, ..self }
    }

    /// The largest picture that it takes.
    pub fn access_unit_bytes(&self) -> usize {
        self.budget.access_unit_bytes
    }

    /// What it delivers into.
    pub fn shared(&self) -> Rc<Shared> {
        self.shared.clone()
    }

    /// Where the camera's own things are looked for.
    pub fn root(&self) -> std::path::PathBuf {
        self.shared.root.clone()
    }

    /// Where sources note the sockets that they bind.
    pub fn places(&self) -> Places {
        self.shared.places.clone()
    }

    /// What the FIFO or file of `audio.source` has in it.
    pub fn sound_format(&self) -> Format {
        let audio = &self.shared.config.audio;
        match audio.codec {
            AudioCodec::L16 => Format::Pcm { rate_hz: audio.rate_hz },
            // Opus is refused when the configuration is checked.
            AudioCodec::Aac | AudioCodec::Opus => Format::Adts,
        }
    }

    /// The frame rate to expect.
    pub fn fps(&self) -> u32 {
        self.shared.config.video.fps.into()
    }

    /// Says it once, however often the source gives reason to.
    fn warn(&self, text: String) {
        let warnings = &mut self.shared.source.borrow_mut().warnings;
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&text) {
            log::warn!(target: "media", "{text}");
            warnings.push(text);
        }
    }

    /// There is other sound than before: what was wrong with that is over.
    fn forget_sound(&self) {
        self.shared.source.borrow_mut().warnings.retain(|warning| !warning.starts_with("audio: "));
    }

    /// How loud to be about the next change of parameters.
    fn loudness(&mut self) -> log::Level {
        self.told_parameters = self.told_parameters.saturating_add(1);
        if self.told_parameters <= PARAMETERS_TOLD { log::Level::Info } else { log::Level::Debug }
    }

    /// The parameters that came with the last picture, when they are others than before.
    fn look_at_parameters(&mut self) {
        let (epoch, width, height, idc) = {
            let prebuffer = self.shared.prebuffer.borrow();
            let Some(video) = prebuffer.video() else { return };
            (video.epoch, video.width(), video.height(), video.parsed.profile_idc)
        };
        if self.epoch == Some(epoch) {
            return;
        }
        let first = self.epoch.replace(epoch).is_none();
        let changed = if first { "" } else { " (changed)" };
        log::log!(target: "media", self.loudness(), "video: {width}x{height}, H.264 profile {idc}{changed}");
        self.shared.note(Event::SourceRunning { width, height });
        if !first {
            self.shared.sensor.borrow_mut().restart();
        }
        let ratio = f32::from(width) / f32::from(height.max(1));
        if !(1.7..1.8).contains(&ratio) {
            self.warn(format!("video: {width}x{height} is not 16:9; hubs may refuse to record it"));
        }
    }

    /// Whether frames are others than before: then time begins anew.
    fn is_new_sound(&mut self, frames: Frames) -> bool {
        let is_new = self.audio_clock.as_ref().is_none_or(|(known, _)| *known != frames);
        if is_new {
            self.audio_clock = Some((frames, AudioClock::of_frames(frames.samples, frames.rate_hz)));
        }
        is_new
    }

    /// The time of a frame; `None` when it is one too many.
    fn sound_pts(&mut self, arrival: Instant) -> Option<Pts90k> {
        self.audio_clock.as_mut().and_then(|(_, clock)| clock.stamp(arrival))
    }

    /// Says, when it is news, that there is sound which recordings cannot have.
    fn look_at_live_sound(&mut self, name: &'static str, rate_hz: u32) {
        let sound = Some((name, rate_hz));
        if self.shared.source.borrow_mut().live_sound.replace((name, rate_hz)) != sound {
            log::log!(target: "media", self.loudness(), "audio: {name}, {rate_hz} Hz, for live view");
            // The source may have had another kind before.
            self.shared.prebuffer.borrow_mut().set_audio(None);
            self.forget_sound();
            self.warn(format!("audio: {name} cannot be recorded, that takes AAC-LC; silence instead"));
        }
    }

    /// Once a second or so: what the stream turns out to be.
    fn look_at_rates(&mut self) {
        let fps = self.video_clock.fps();
        self.shared.source.borrow_mut().fps = fps;
        self.shared.sensor.borrow_mut().set_fps(fps);
        if self.meter.has_b_pictures() {
            self.warn("video: B-frames are recorded in the wrong order; switch them off in the encoder".into());
        }
        let (gop, measured) = {
            let prebuffer = self.shared.prebuffer.borrow();
            (prebuffer.gop(), prebuffer.measured())
        };
        if let Some(gop) = gop.filter(|gop| *gop > LONG_GOP && !self.told_gop) {
            self.told_gop = true;
            let seconds = Decimal::<1>(gop.as_secs_f32());
            self.warn(format!(
                "video: {seconds} s between key frames; hubs give up above 5 s, set the encoder's GOP to 4 s or less"
            ));
        }
        if let Some(measured) = measured.filter(|m| m.video_kbps > 0 && !self.told_memory) {
            let seconds = self.budget.seconds_held(measured.video_kbps);
            self.told_memory = true;
            log::debug!(target: "media", "prebuffer: {seconds} s at {} kbit/s", measured.video_kbps);
            if let Some(shortage) = memory::shortage(&self.shared.config, measured.video_kbps) {
                self.warn(shortage);
            }
        }
    }
}

impl Sink for Feed {
    fn access_unit(&mut self, annexb: AnnexB<'_>, key: bool, arrival: Instant) {
        let pts_90k = self.video_clock.stamp(arrival);
        let unit = AccessUnit { annexb, pts_90k, key };
        if self.live {
            if let Some(small) = &self.shared.small {
                small.borrow_mut().push_video(unit);
            }
            return self.shared.media_changed.notify();
        }
        self.shared.prebuffer.borrow_mut().push_video(unit);
        self.shared.source.borrow_mut().last_picture = Some(arrival);
        if key {
            self.look_at_parameters();
        }
        if let Some(unit) = self.meter.measure(annexb) {
            let change = self.shared.sensor.borrow_mut().handle_access_unit(unit, now());
            if change.is_some() {
                self.shared.motion(change, Cause::Detector);
            }
        }
        // The timer of a source that falls silent.
        if key {
            self.shared.sensor_changed.notify();
        }
        self.pictures = self.pictures.wrapping_add(1);
        if self.pictures.is_multiple_of(self.video_clock.fps().max(1)) {
            self.look_at_rates();
        }
        self.shared.media_changed.notify();
    }

    fn aac(&mut self, raw_frame: &[u8], rate_hz: u32, channels: u8, arrival: Instant) {
        if !self.hears {
            return;
        }
        if self.is_new_sound(Frames { samples: FRAME_SAMPLES, rate_hz }) {
            let parameters = AudioParameters { rate_hz, channels };
            self.shared.prebuffer.borrow_mut().set_audio(Some(parameters));
            self.shared.source.borrow_mut().live_sound = None;
            self.forget_sound();
            let s = if channels == 1 { "" } else { "s" };
            log::log!(target: "media", self.loudness(), "audio: AAC-LC, {rate_hz} Hz, {channels} channel{s}");
            if parameters.is_recordable() {
                // Another rate than the one offered so far is another offer: `c#` moves.
                self.shared.accessory.borrow_mut().state.set_audio_rate(rate_hz);
                effects::run(&self.shared);
            } else {
                self.warn(format!("audio: {channels} channels at {rate_hz} Hz cannot be recorded; silence instead"));
            }
        }
        if let Some(pts_90k) = self.sound_pts(arrival) {
            self.shared.prebuffer.borrow_mut().push_audio(raw_frame, pts_90k);
            sound::hear(&self.shared, Heard::Aac { raw_frame, rate_hz, channels }, pts_90k);
        }
    }

    fn l16(&mut self, pcm: &[i16], rate_hz: u32, arrival: Instant) {
        if !self.hears || pcm.is_empty() {
            return;
        }
        if self.is_new_sound(Frames { samples: pcm.len() as u32, rate_hz }) {
            self.look_at_live_sound("L16", rate_hz);
        }
        if let Some(pts_90k) = self.sound_pts(arrival) {
            sound::hear(&self.shared, Heard::L16 { pcm, rate_hz }, pts_90k);
        }
    }

    fn opus(&mut self, packet: &[u8], arrival: Instant) {
        let Ok(parsed) = opus::Packet::parse(packet) else {
            return self.trouble(Track::Audio, Trouble::Garbage);
        };
        if !self.hears {
            return;
        }
        // RFC 7587 §4.1: whatever was sampled, time counts at 48 kHz.
        let rate_hz = 48_000;
        if self.is_new_sound(Frames { samples: parsed.duration_us() / 125 * 6, rate_hz }) {
            self.look_at_live_sound("Opus", rate_hz);
        }
        if let Some(pts_90k) = self.sound_pts(arrival) {
            sound::hear(&self.shared, Heard::Opus { packet }, pts_90k);
        }
    }

    fn trouble(&mut self, track: Track, trouble: Trouble) {
        if trouble == Trouble::WriterGone {
            let restarts = &self.shared.source_restarts[usize::from(self.live)];
            restarts.set(restarts.get().wrapping_add(1));
        }
        if self.live {
            // The source itself has told the log.
            return;
        }
        if track == Track::Video {
            self.shared.prebuffer.borrow_mut().handle_gap();
            match trouble {
                // Whoever comes next is waited for up to its first IDR picture, wherever it begins.
                Trouble::Garbage | Trouble::Torn | Trouble::Oversized | Trouble::Overrun | Trouble::WriterGone => {
                    let mut figures = self.shared.source.borrow_mut();
                    figures.resyncs = figures.resyncs.saturating_add(1);
                }
                Trouble::Missing | Trouble::Stalled | Trouble::H265 => {}
            }
        }
        let name = if track == Track::Video { "video" } else { "audio" };
        let shared = &self.shared;
        self.troubles[trouble as usize].note(now(), trouble, |trouble, repeated| {
            log::debug!(target: "media", "{name}: {trouble:?}{repeated}");
            if track == Track::Video {
                shared.note(match trouble {
                    Trouble::Garbage | Trouble::Torn | Trouble::Oversized | Trouble::Overrun => Event::SourceResync,
                    Trouble::Missing | Trouble::WriterGone | Trouble::Stalled | Trouble::H265 => Event::SourceLost,
                });
            }
        });
    }
}
