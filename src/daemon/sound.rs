//! Sound of live views: from the microphone to those who watch, and from those who talk to the loudspeaker.

use super::live;
use super::shared::Shared;
use crate::hap::settings::Sound as Setting;
use crate::io::runtime::now;
use crate::live::microphone::Microphone;
use crate::time::{Instant, Pts90k};

/// While somebody is heard, the microphone is turned down to this part: it hears the loudspeaker, too.
const DUCKED: u8 = 4;

/// A frame of the microphone, as the source delivers it.
pub enum Heard<'a> {
    /// AAC-LC without a header.
    Aac {
        /// The frame.
        raw_frame: &'a [u8],
        /// Samples a second.
        rate_hz: u32,
        /// Channels.
        channels: u8,
    },
    /// Samples of one channel.
    L16 {
        /// The samples.
        pcm: &'a [i16],
        /// How many are a second.
        rate_hz: u32,
    },
    /// A well-formed Opus packet.
    Opus {
        /// The packet.
        packet: &'a [u8],
    },
}

/// A frame of the microphone: decoded once, for all who watch.
pub fn hear(shared: &Shared, heard: Heard<'_>, pts_90k: Pts90k) {
    // What comes as Opus can be passed on by any build.
    let is_of_use = Microphone::DECODES || matches!(heard, Heard::Opus { .. });
    if !is_of_use || !live::is_anybody_listening(shared) {
        return;
    }
    let mut microphone = shared.microphone.borrow_mut();
    let microphone = microphone.get_or_insert_default();
    let [Setting { mute, volume }, _] = shared.sounds.get();
    microphone.set_muted(mute);
    microphone.set_volume(if shared.talk.is_heard(now()) { volume / DUCKED } else { volume });
    let sound = match heard {
        Heard::Aac { raw_frame, rate_hz, channels } => microphone.push_aac(raw_frame, rate_hz, channels, pts_90k),
        Heard::L16 { pcm, rate_hz } => microphone.push_l16(pcm, rate_hz, pts_90k),
        Heard::Opus { packet } => {
            let Some(sound) = microphone.push_opus(packet, live::passes_on(shared, packet), pts_90k) else { return };
            sound
        }
    };
    live::send_sound(shared, &sound);
}

/// Mute or volume may have changed.
pub fn update(shared: &Shared) {
    let sounds = {
        let state = &shared.accessory.borrow().state;
        [state.microphone(), state.speaker()]
    };
    shared.sounds.set(sounds);
    shared.talk.set(sounds[1]);
}

/// The last one has gone: decoders are large.
pub fn rest(shared: &Shared) {
    *shared.microphone.borrow_mut() = None;
    shared.talk.rest();
}

#[cfg(feature = "opus")]
pub use talk::{Talk, play};

#[cfg(feature = "opus")]
mod talk {
    use super::{Instant, Setting, Shared};
    use crate::config::{SpeakerSink, VideoSource};
    use crate::io::runtime::{Signal, now, or, sleep_until_some};
    use crate::live::jitter::Jitter;
    use crate::live::{Session, ViewId};
    use crate::source::rtsp;
    use crate::source::speaker::Speaker;
    use crate::time::Duration;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    /// Samples below this are silence: controllers may send it all the time, and a muted loudspeaker gives it.
    const AUDIBLE: u16 = 64;
    /// Between two words the microphone stays turned down.
    const BETWEEN_WORDS: Duration = Duration::from_millis(500);

    /// What somebody says, on its way to the loudspeaker. One talks at a time: the first.
    #[derive(Default)]
    pub struct Talk {
        jitter: RefCell<Option<Jitter>>,
        talker: Cell<Option<ViewId>>,
        /// When there was something to be heard last.
        heard: Cell<Option<Instant>>,
        changed: Signal,
    }

    impl Talk {
        /// Claims what it takes, for a sink of this rate.
        pub fn prepare(&self, rate_hz: u32, setting: Setting) {
            if self.jitter.borrow().is_none() {
                *self.jitter.borrow_mut() = Some(Jitter::new(rate_hz));
            }
            self.set(setting);
        }

        /// Mute and volume.
        pub fn set(&self, setting: Setting) {
            if let Some(jitter) = &mut *self.jitter.borrow_mut() {
                jitter.set_muted(setting.mute);
                jitter.set_volume(setting.volume);
            }
        }

        /// Nobody is there any more.
        pub fn rest(&self) {
            *self.jitter.borrow_mut() = None;
            self.changed.notify();
        }

        /// Whether the loudspeaker can be heard.
        pub fn is_heard(&self, now: Instant) -> bool {
            self.heard.get().is_some_and(|heard| now - heard < BETWEEN_WORDS)
        }

        /// Takes what has come in.
        pub fn take(&self, view: ViewId, session: &mut Session, now: Instant) {
            let mut jitter = self.jitter.borrow_mut();
            let Some(jitter) = &mut *jitter else { return };
            while let Some(talk) = session.poll_talk() {
                if self.talker.get().is_none_or(|talker| talker == view) {
                    self.talker.set(Some(view));
                    jitter.push(talk.sequence, talk.timestamp, talk.payload, now);
                    self.changed.notify();
                }
            }
        }

        /// Lets the loudspeaker say what is due. `None` at the end of a talk.
        fn say(&self, speaker: &mut Speaker, now: Instant) -> Option<Instant> {
            let mut jitter = self.jitter.borrow_mut();
            let mut pcm = [0; Jitter::MAX_STEP];
            while let Some(samples) = jitter.as_mut().and_then(|jitter| jitter.poll_sound(now, &mut pcm)) {
                if pcm[..samples].iter().any(|sample| sample.unsigned_abs() >= AUDIBLE) {
                    self.heard.set(Some(now));
                }
                speaker.play(&pcm[..samples], now);
            }
            let due = jitter.as_ref().and_then(Jitter::poll_timeout);
            if due.is_none() && self.talker.take().is_some() {
                speaker.rest();
            }
            due
        }
    }

    /// Serves the loudspeaker for ever.
    pub async fn play(shared: Rc<Shared>) {
        let config = &shared.config.speaker;
        if config.sink == SpeakerSink::None {
            return;
        }
        let mut speaker = Speaker::new(config.sink.clone(), config.sink_rate_hz(), shared.commands.clone());
        let line = speaker.line();
        let play = async {
            loop {
                let seen = shared.talk.changed.count();
                let due = shared.talk.say(&mut speaker, now());
                or(shared.talk.changed.changed(seen), sleep_until_some(due)).await;
            }
        };
        let Some(line) = line else { return play.await };
        let talk = async {
            loop {
                let seen = shared.playing_changed.count();
                let playing = shared.playing.borrow()[0].clone();
                let server = async {
                    match &playing {
                        Some(VideoSource::Rtsp(url)) => rtsp::talk(url, &line).await,
                        Some(_) => {
                            log::warn!("speaker.sink: the video comes from no RTSP server; what is said is lost")
                        }
                        None => {}
                    }
                    std::future::pending().await
                };
                or(server, shared.playing_changed.changed(seen)).await;
            }
        };
        or(play, talk).await;
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::io::command::Commands;
        use crate::io::runtime::Executor;
        use crate::live::opus::Encoder;

        /// Whether the microphone is turned down while packets of this sound come.
        fn is_heard(setting: Setting, sound: fn(usize) -> i16) -> bool {
            let talk = Talk::default();
            talk.prepare(16_000, setting);
            let mut speaker = Speaker::new(SpeakerSink::None, 16_000, Commands::new(Executor::default()).unwrap());
            let (mut encoder, mut packet) = (Encoder::new(16_000, 24), [0; 400]);
            let mut now = Instant::from_micros(1_000_000);
            for n in 0..25 {
                let pcm: Vec<i16> = (n * 320..(n + 1) * 320).map(sound).collect();
                let len = encoder.encode(&pcm, &mut packet).unwrap();
                talk.jitter.borrow_mut().as_mut().unwrap().push(n as u16, 0, &packet[..len], now);
                talk.say(&mut speaker, now);
                now += Duration::from_millis(20);
            }
            let is_heard = talk.is_heard(now);
            assert!(!talk.is_heard(now + Duration::from_secs(1)));
            is_heard
        }

        #[test]
        fn nothing_but_what_is_heard_turns_the_microphone_down() {
            let square = |n: usize| [8_000, -8_000][n / 20 % 2];
            assert!(is_heard(Setting { mute: false, volume: 100 }, square));
            assert!(!is_heard(Setting { mute: true, volume: 100 }, square), "a muted loudspeaker");
            assert!(!is_heard(Setting { mute: false, volume: 100 }, |_| 0), "a controller that sends silence");
        }
    }
}

/// This build has nothing that could understand what is said.
#[cfg(not(feature = "opus"))]
#[derive(Default)]
pub struct Talk;

#[cfg(not(feature = "opus"))]
impl Talk {
    /// Nothing to claim.
    pub fn prepare(&self, _: u32, _: Setting) {}

    /// Nothing to set.
    pub fn set(&self, _: Setting) {}

    /// Nothing to let go of.
    pub fn rest(&self) {}

    /// Never.
    pub fn is_heard(&self, _: Instant) -> bool {
        false
    }
}
