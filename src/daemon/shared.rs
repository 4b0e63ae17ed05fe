//! What the tasks share: one cell per concern, borrowed for one call and never across an await point.

use super::controllers::Controller;
use super::effects::Done;
use super::feed::STALLED;
use super::live::{self, LiveView, VIEWS};
use super::sound::Talk;
use super::streams::Stream;
use crate::config::{Config, VideoSource};
use crate::crypto::{Random, SharedSecret};
use crate::hap::accessory::{Accessory, Refusal};
use crate::hap::press::Press;
use crate::hap::settings::Sound as Setting;
use crate::hap::{self, accessory::DataStreams};
use crate::hds::prepared::PREPARED_LIFETIME;
use crate::hds::{self, Permission, Prepared, Selected, SessionId, Slot};
use crate::io::command::Commands;
use crate::io::loan::Home;
use crate::io::random::SystemRandom;
use crate::io::runtime::{Executor, Signal, now, sleep_until};
use crate::io::worker::Worker;
use crate::live::microphone::Microphone;
use crate::mdns::Responder;
use crate::media::{Prebuffer, Retention};
use crate::motion::{Motion, Sensor};
use crate::source::rtp_unix::Places;
use crate::store::Store;
use crate::time::{Duration, Instant};
use crate::trace::{Cause, Event, Trace};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// The recording that runs.
#[derive(Clone, Copy)]
pub struct Running {
    /// The data stream that carries it.
    pub session: SessionId,
    /// The hub's number for it.
    pub stream: u32,
    /// The HAP connection of the hub.
    pub connection: Option<hds::ConnectionId>,
    /// When it was opened.
    pub since: Instant,
    /// Fragments that were handed out.
    pub fragments: u32,
    /// The end was sent; nothing but the hub's word is missing.
    pub ended: bool,
}

/// Everything that more than one task touches.
pub struct Shared {
    /// The checked configuration.
    pub config: Config,
    /// Where tasks are started.
    pub executor: Executor,
    /// When the daemon started.
    pub started: Instant,
    /// The accessory as controllers see it.
    pub accessory: RefCell<Accessory>,
    /// The last seconds of media.
    pub prebuffer: RefCell<Prebuffer>,
    /// The same of `video.live_source`, when there is one: no more than the GOP that runs.
    pub small: Option<RefCell<Prebuffer>>,
    /// Motion, whoever raises it.
    pub sensor: RefCell<Sensor>,
    /// Since when there is motion.
    pub motion_since: Cell<Option<Instant>>,
    /// A recording ended that its hub did not want to end: motion is pulsed then.
    pub reopen_at: Cell<Option<Instant>>,
    /// Data streams that wait for their connection.
    pub prepared: RefCell<Prepared>,
    /// Who records.
    pub slot: RefCell<Slot>,
    /// The recording that runs.
    pub running: Cell<Option<Running>>,
    /// The port of the data streams.
    pub data_stream_port: u16,
    /// The buffer for one chunk of a recording.
    pub chunk: Home,
    /// Readers of the prebuffer besides recordings: `hksvd clip`.
    pub clips: Cell<u32>,
    /// A value of the accessory has changed.
    pub accessory_changed: Signal,
    /// Media, motion or a permission has changed.
    pub media_changed: Signal,
    /// A timer of the sensor has changed.
    pub sensor_changed: Signal,
    /// What has happened.
    pub trace: Rc<RefCell<Trace>>,
    /// Something has happened.
    pub trace_changed: Rc<Signal>,
    /// The thread for what takes long.
    pub worker: Worker<Done>,
    /// What survives a power cut.
    pub store: Arc<Store>,
    /// The store could not write the last time.
    pub store_failed: Cell<bool>,
    /// How many pairings were stored the last time.
    pub known_pairings: Cell<u8>,
    /// The mDNS responder.
    pub responder: Rc<RefCell<Responder>>,
    /// The responder has changed.
    pub responder_changed: Rc<Signal>,
    /// HAP connections.
    pub controllers: RefCell<Vec<Rc<Controller>>>,
    /// Data streams.
    pub streams: RefCell<Vec<Rc<Stream>>>,
    /// Live views, by their service.
    pub views: RefCell<[Option<Rc<LiveView>>; VIEWS]>,
    /// Ports of live views that have ended and stay open for a moment.
    pub lingering: Cell<usize>,
    /// Makes sound for live views out of what the source delivers; there as long as somebody watches.
    pub microphone: RefCell<Option<Microphone>>,
    /// Mute and volume of microphone and speaker.
    pub sounds: Cell<[Setting; 2]>,
    /// What somebody says to the camera.
    pub talk: Talk,
    /// Sockets that sources have bound.
    pub places: Places,
    /// The figures of the sources.
    pub source: RefCell<super::feed::Figures>,
    /// Still pictures.
    pub pictures: super::picture::Pictures,
    /// Commands of the configuration.
    pub commands: Commands,
    /// A state has changed that hooks or the status light follow.
    pub states_changed: Signal,
    /// Somebody wants a key frame: `hooks.keyframe` runs.
    pub key_frame_wanted: Signal,
    /// The main and the small source that are played: those of the configuration, or what was found.
    pub playing: RefCell<[Option<VideoSource>; 2]>,
    /// `playing` has changed.
    pub playing_changed: Signal,
    /// How often the source, and the small one, began anew.
    pub source_restarts: [Cell<u32>; 2],
    /// Their encoders are not set as their owner has set them.
    pub encoders_changed: [Cell<bool>; 2],
    /// The daemon is about to end: nothing is wanted any more.
    pub ending: Cell<bool>,
    /// Somebody rang.
    pub rang: Signal,
    /// The root of the file system, where the camera's own things are looked for; tests have another one.
    pub root: PathBuf,
    /// Somebody wants the daemon to stop; with `true`, to forget everything before.
    pub stop: Cell<Option<Stop>>,
    /// `stop` was set.
    pub stop_changed: Signal,
}

/// How to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// SIGTERM or SIGINT.
    Terminate,
    /// Factory reset: forget everything, then serve anew.
    Reset,
}

/// How long a hub may take to open the next recording by itself before motion is pulsed.
const REOPEN: Duration = Duration::from_secs(10);

impl Shared {
    /// Notes an event for `hksvd events`.
    pub fn note(&self, event: Event) {
        self.trace.borrow_mut().push(now(), event);
        self.trace_changed.notify();
    }

    /// What recordings are allowed to do now.
    pub fn permission(&self) -> Permission {
        let permission = self.accessory.borrow().state.recording_permission();
        Permission {
            recording_active: permission.recording_active,
            camera_active: permission.camera_active,
            audio_active: permission.audio_active,
            silent_track: self.config.audio.silent_track,
            selected: permission.selected.map(|s| Selected {
                fragment_ms: s.fragment_ms,
                prebuffer_ms: s.prebuffer_ms,
                audio_rate_hz: s.audio_rate_hz,
            }),
        }
    }

    /// Whether a recording runs that still takes media.
    pub fn is_recording(&self) -> bool {
        self.running.get().is_some_and(|r| !r.ended)
    }

    /// Keeps as much media as the controllers allow (privacy). A recording that runs when they switch
    /// recording off may finish its fragment; one of a camera that they switch off may not. While
    /// somebody watches, what was sent may stay: else a key frame would push out the pictures before it
    /// that are still on their way.
    pub fn retain(&self) {
        let (retention, streaming) = {
            let accessory = self.accessory.borrow();
            let state = &accessory.state;
            let retention = if !state.camera_active() {
                Retention::Nothing
            } else if state.recording_permission().armed()
                || self.clips.get() > 0
                || self.is_recording()
                || live::is_watched(self, false)
            {
                Retention::Everything
            } else if state.streaming_allowed() {
                Retention::CurrentGop
            } else {
                Retention::Nothing
            };
            (retention, state.streaming_allowed())
        };
        self.prebuffer.borrow_mut().set_retention(retention);
        if let Some(small) = &self.small {
            small.borrow_mut().set_retention(match streaming {
                true if live::is_watched(self, true) => Retention::Everything,
                true => Retention::CurrentGop,
                false => Retention::Nothing,
            });
        }
        self.media_changed.notify();
    }

    /// Motion has begun or ended: tells controllers, recordings and the log.
    pub fn motion(&self, change: Option<Motion>, cause: Cause) {
        self.sensor_changed.notify();
        let Some(change) = change else { return };
        let on = change == Motion::Start;
        self.motion_since.set(on.then(now));
        self.accessory.borrow_mut().state.set_motion(on);
        log::debug!(target: "motion", "{}: {cause}", if on { "on" } else { "off" });
        self.note(if on { Event::MotionOn { cause } } else { Event::MotionOff { cause } });
        self.accessory_changed.notify();
        self.media_changed.notify();
    }

    /// The doorbell's button was pressed.
    pub fn ring(&self, cause: Cause, press: Press) {
        log::info!(target: "doorbell", "{cause}, {}", match press {
            Press::Single => "one press",
            Press::Double => "two presses",
            Press::Long => "a long press",
        });
        self.accessory.borrow_mut().state.ring(press);
        self.note(Event::Ring { cause });
        self.accessory_changed.notify();
        self.rang.notify();
        // Hubs are offered the doorbell as a trigger and select motion only.
        let change = self.sensor.borrow_mut().handle_ring(now());
        self.motion(change, cause);
    }

    /// Forgets everything and starts anew.
    ///
    /// # Errors
    /// When it cannot be forgotten.
    pub fn reset(&self) -> Result<(), crate::store::Error> {
        // Two fsyncs on this thread: the daemon is about to end anyway.
        self.store.reset()?;
        self.stop(Stop::Reset);
        Ok(())
    }

    /// A hub opened a recording.
    pub fn recording_opened(&self, session: SessionId, stream: u32, connection: Option<hds::ConnectionId>) {
        self.running.set(Some(Running { session, stream, connection, since: now(), fragments: 0, ended: false }));
        self.reopen_at.set(None);
        self.sensor.borrow_mut().handle_recording(true, now());
        self.sensor_changed.notify();
    }

    /// A fragment was handed out.
    pub fn fragment_sent(&self, session: SessionId) {
        if let Some(running) = self.running.get().filter(|r| r.session == session) {
            self.running.set(Some(Running { fragments: running.fragments + 1, ..running }));
        }
    }

    /// The last fragment was handed out.
    pub fn recording_ended(&self, session: SessionId) {
        if let Some(running) = self.running.get().filter(|r| r.session == session) {
            self.running.set(Some(Running { ended: true, ..running }));
            self.retain();
        }
    }

    /// The recording of this data stream is over.
    pub fn recording_closed(&self, session: SessionId) {
        if self.running.get().is_some_and(|r| r.session == session) {
            self.running.set(None);
            self.sensor.borrow_mut().handle_recording(false, now());
            self.sensor_changed.notify();
            self.retain();
        }
    }

    /// A recording ended early: unless a hub opens the next one soon, motion falls and rises again. Without a source
    /// it falls and stays down, `at_once` when that is known already.
    pub fn want_reopen(&self, now: Instant, at_once: bool) {
        self.reopen_at.set(Some(if at_once { now } else { now + REOPEN }));
        self.sensor_changed.notify();
    }

    /// Whether pictures come.
    pub fn delivers(&self, now: Instant) -> bool {
        self.source.borrow().last_picture.is_some_and(|last| now - last < STALLED)
    }

    /// Asks the main task to stop.
    pub fn stop(&self, how: Stop) {
        self.stop.set(Some(how));
        self.stop_changed.notify();
    }
}

/// Prepares data streams on behalf of a HAP connection.
pub struct Preparing<'a>(pub &'a Rc<Shared>);

impl DataStreams for Preparing<'_> {
    fn prepare(
        &mut self,
        connection: hap::ConnectionId,
        shared: &SharedSecret,
        controller_salt: &[u8; 32],
    ) -> Result<(u16, [u8; 32]), Refusal> {
        let mut accessory_salt = [0; 32];
        SystemRandom::new().fill(&mut accessory_salt);
        let prepared =
            self.0.prepared.borrow_mut().prepare(now(), connection, shared, controller_salt, &accessory_salt);
        match prepared {
            Ok(()) => {
                log::debug!(target: "hap", "{connection}: data stream prepared (131)");
                // Its keys do not stay in memory when nobody comes. There are eight at the most.
                let shared = self.0.clone();
                self.0.executor.spawn(async move {
                    sleep_until(now() + PREPARED_LIFETIME).await;
                    shared.prepared.borrow_mut().handle_timeout(now());
                });
                Ok((self.0.data_stream_port, accessory_salt))
            }
            Err(hds::Busy) => Err(Refusal::Busy),
        }
    }
}
