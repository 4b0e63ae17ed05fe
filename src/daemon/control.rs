//! What the control interface asks for.

use super::clip::Clip;
use super::picture::Want;
use super::shared::Shared;
use super::{advertise, controllers, effects, feed, live, picture};
use crate::control::events::EventLines;
use crate::control::{Answer, Call, Daemon, Media, Qr, Status, status};
use crate::hap::press::Press;
use crate::io::runtime::now;
use crate::media::{Budget, Measured};
use crate::motion::Mode;
use crate::sys::proc;
use crate::trace::Cause;
use std::rc::Rc;

/// Why there is nothing to see.
const OFF: &str = "the camera is switched off in Apple Home, by its switch or by `hksvd privacy on`";

/// The daemon as the control server sees it.
pub struct Control {
    /// What all tasks share.
    pub shared: Rc<Shared>,
    /// The sizes of the rings.
    pub budget: Budget,
}

impl Daemon for Control {
    fn status(&self) -> Status {
        let shared = &*self.shared;
        let accessory = shared.accessory.borrow();
        let prebuffer = shared.prebuffer.borrow();
        let figures = shared.source.borrow();
        let permission = accessory.state.recording_permission();
        let running = shared.running.get();
        let (counters, measured) = (prebuffer.counters(), prebuffer.measured());
        let kbps = measured.map_or(0, |m| m.video_kbps);
        let live = live::status(shared);
        let state = if !accessory.is_paired() {
            "unpaired"
        } else if accessory.state.manually_disabled() {
            "privacy"
        } else if !accessory.state.camera_active() {
            "off"
        } else if running.is_some() {
            "recording"
        } else if !live.is_empty() {
            "live"
        } else if permission.armed() {
            "armed"
        } else {
            "idle"
        };
        let hub = running.and_then(|r| r.connection).and_then(|id| controllers::find(shared, id));
        Status {
            version: env!("CARGO_PKG_VERSION"),
            name: accessory.state.information().name.as_str().into(),
            state,
            paired: accessory.is_paired(),
            pairings: accessory.pairings.len() as u32,
            controllers: controllers::verified_count(shared).into(),
            camera_active: accessory.state.camera_active(),
            recording_armed: permission.armed(),
            recording: status::Recording {
                active: running.is_some(),
                stream: running.map_or(0, |r| r.stream),
                fragments: running.map_or(0, |r| r.fragments),
                since_s: running.map_or(0, |r| (now() - r.since).as_secs() as u32),
                hub: hub.map(|hub| hub.name()).unwrap_or_default(),
            },
            live_sessions: live.len() as u32,
            live,
            data_streams: shared.streams.borrow().len() as u32,
            prebuffer: status::Prebuffer {
                held_s: prebuffer.held().as_secs_f32(),
                capacity_s: measured.map_or(0.0, |m| self.capacity_s(m)),
                bytes: prebuffer.bytes_held() as u32,
            },
            frames: counters.frames,
            bytes: counters.bytes,
            evictions: counters.evictions,
            resyncs: figures.resyncs,
            motion: self.motion(),
            source: status::Source {
                spec: shared.playing.borrow()[0].as_ref().map(|s| s.to_string()).unwrap_or_default(),
                state: match figures.last_picture {
                    None => "waiting",
                    Some(t) if now() - t > feed::STALLED => "stalled",
                    Some(_) => "running",
                },
                width: prebuffer.video().map_or(0, |v| v.width().into()),
                height: prebuffer.video().map_or(0, |v| v.height().into()),
                fps: measured.map_or(figures.fps as f32, |m| m.frames_per_1000_s as f32 / 1000.0),
                bitrate_kbps: kbps,
                gop_s: prebuffer.gop().map_or(0.0, |gop| gop.as_secs_f32()),
                audio: match (prebuffer.audio(), figures.live_sound) {
                    (Some(audio), _) => format!("AAC-LC {} Hz", audio.rate_hz),
                    (None, Some((name, rate_hz))) => format!("{name} {rate_hz} Hz, live view alone"),
                    (None, None) => "none".into(),
                },
            },
            uptime_s: (now() - shared.started).as_secs() as u32,
            rss_kb: proc::rss_kb(),
            threads: proc::threads(),
            warnings: figures.warnings.clone(),
        }
    }

    fn call(&self, call: Call) -> Answer {
        let shared = &self.shared;
        match call {
            Call::MotionOn => {
                if shared.sensor.borrow().mode() == Mode::Off {
                    return Answer::Refused(409, "motion.mode is \"off\"".into());
                }
                if !shared.accessory.borrow().state.camera_active() {
                    return Answer::Refused(409, OFF.into());
                }
                self.set_motion(true)
            }
            Call::MotionOff => self.set_motion(false),
            Call::Ring => {
                if !shared.config.doorbell.present {
                    return Answer::Refused(409, "not a doorbell: set \"doorbell\": true in the configuration".into());
                }
                shared.ring(Cause::Control, Press::Single);
                Answer::Done
            }
            Call::Privacy(on) => {
                shared.accessory.borrow_mut().state.set_privacy(on);
                effects::run(shared);
                Answer::Done
            }
            Call::Snapshot => {
                if !shared.accessory.borrow().state.camera_active() {
                    return Answer::Refused(409, OFF.into());
                }
                let shared = shared.clone();
                Answer::Later(Box::pin(async move { Answer::Jpeg(picture::take(&shared, Want::default()).await) }))
            }
            Call::Qr => {
                let accessory = shared.accessory.borrow();
                let qr = Qr {
                    setup_uri: advertise::setup_payload(&accessory).as_str().into(),
                    setup_code: accessory.identity.setup_code.as_str().into(),
                    paired: accessory.is_paired(),
                };
                Answer::Json(qr.json().into_bytes())
            }
            Call::Identify => {
                effects::identify(shared, Cause::Control);
                Answer::Done
            }
            Call::Clip { seconds } => {
                if !shared.accessory.borrow().state.camera_active() {
                    return Answer::Refused(409, OFF.into());
                }
                match Clip::start(shared, seconds) {
                    Ok(clip) => Answer::Stream(Media::Mp4, Box::new(clip)),
                    Err(why) => Answer::Refused(503, why.to_string()),
                }
            }
            Call::Reset => shared.reset().map_or_else(|why| Answer::Refused(500, why.to_string()), |()| Answer::Done),
            Call::Events { history } => {
                let lines = EventLines::new(shared.trace.clone(), shared.trace_changed.clone(), history);
                Answer::Stream(Media::Lines, Box::new(lines))
            }
            // The server answers these itself.
            Call::Status { .. } | Call::Log(_) => Answer::Done,
        }
    }
}

impl Control {
    fn set_motion(&self, on: bool) -> Answer {
        let change = self.shared.sensor.borrow_mut().handle_api(on, None, now());
        self.shared.motion(change, Cause::Control);
        Answer::Done
    }

    /// What the ring holds at this rate: it runs out of bytes or, in a quiet picture, of entries.
    fn capacity_s(&self, measured: Measured) -> f32 {
        let entries_s = Budget::ENTRIES as f32 * 1000.0 / measured.frames_per_1000_s.max(1) as f32;
        entries_s.min(self.budget.seconds_held(measured.video_kbps) as f32)
    }

    fn motion(&self) -> status::Motion {
        let sensor = self.shared.sensor.borrow();
        let seen = sensor.detector().last();
        status::Motion {
            on: sensor.is_on(),
            mode: self.shared.config.motion.mode.as_str(),
            baseline: seen.baseline as f32 / 256.0,
            level: seen.level_percent as f32 / 100.0,
            threshold: 1.0,
        }
    }
}
