//! Live views: the sockets behind [`live::Session`](crate::live::Session), and who has one.

use super::feed::STALLED;
use super::shared::Shared;
use super::{controllers, effects, sound, states};
use crate::config::SpeakerSink;
use crate::control::status;
use crate::hap::ConnectionId;
use crate::hap::accessory::{LiveViews, Refusal};
use crate::hap::stream_tlv::{
    Command, Endpoint, SelectedAudio, SelectedStream, SelectedVideo, SetupAnswer, SetupRequest, SrtpParameters, Suite,
};
use crate::io::random::SystemRandom;
use crate::io::runtime::{Signal, now, sleep_until, unix_time};
use crate::io::udp::{self, DATAGRAM_BYTES, Datagram, Ports};
pub use crate::live::Cause;
use crate::live::microphone::Sound;
use crate::live::srtp::MasterKey;
use crate::live::voice::Voice;
use crate::live::{AudioChoice, Begin, Medium, NtpNow, Report, Session, Setup, VOICE_BYTES, VideoChoice, ViewId};
use crate::media::Prebuffer;
use crate::time::{Duration, Instant};
use crate::trace::{Event, Repeats};
use std::cell::{Cell, RefCell};
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

/// Live views at a time: one for each stream management service.
pub const VIEWS: usize = 2;

/// Ports stay open for so long after the end: what is still under way to them would be answered with an
/// error, which may reach whoever has the controller's port by then.
const LINGER: Duration = Duration::from_secs(1);

/// Live views whose ports stay open after the end. Controllers that set up one after the other would use up
/// the descriptors.
const LINGERING: usize = 2 * VIEWS;

/// What a controller selected at the start.
#[derive(Clone, Copy)]
struct Chosen {
    since: Instant,
    audio: AudioChoice,
}

/// One live view, from its set-up on.
pub struct LiveView {
    shared: Rc<Shared>,
    id: ViewId,
    connection: ConnectionId,
    remote: SocketAddr,
    session: RefCell<Session>,
    /// It gets `video.live_source`.
    small: Cell<bool>,
    chosen: Cell<Option<Chosen>>,
    voice: RefCell<Option<Voice>>,
    is_watched: Cell<bool>,
    ended: Cell<bool>,
    /// What its controller can take, as it says meanwhile.
    hint_kbps: Cell<Option<u32>>,
    /// What the wall clock said at the set-up. It counts on from there: sound and picture would go apart
    /// when somebody sets the clock meanwhile.
    wall: (Instant, NtpNow),
    lost: RefCell<Repeats<ErrorKind>>,
}

impl LiveView {
    /// Lends the session its pictures.
    fn with<R>(&self, act: impl FnOnce(&mut Session, &Prebuffer) -> R) -> R {
        let shared = &*self.shared;
        let small = shared.small.as_ref().filter(|_| self.small.get());
        act(&mut self.session.borrow_mut(), &small.unwrap_or(&shared.prebuffer).borrow())
    }

    /// Prints what has come of it. Not to be called from [`LiveViews`]: the accessory is lent there.
    fn look(&self) {
        if self.chosen.get().is_some() && !self.is_watched.replace(true) {
            self.shared.retain();
        }
        loop {
            let Some(report) = self.session.borrow_mut().poll_report() else { return };
            self.tell(report);
        }
    }

    fn tell(&self, report: Report) {
        let (shared, n) = (&self.shared, self.id + 1);
        match report {
            Report::KeyFrameWanted => {
                log::debug!(target: "live", "{n}: a key frame is wanted");
                shared.key_frame_wanted.notify();
            }
            Report::BitrateHint { kbps } => {
                log::debug!(target: "live", "{n}: {kbps} kbit/s are enough");
                self.hint_kbps.set(Some(kbps));
            }
            Report::FirstPicture { after_ms } => log::debug!(target: "live", "{n}: first picture after {after_ms} ms"),
            Report::Lagged => log::debug!(target: "live", "{n}: pictures were overwritten before they were sent"),
            Report::Ended(cause) => {
                self.ended.set(true);
                if self.chosen.get().is_some() {
                    log::info!(target: "live", "live view {n} ended: {cause}");
                } else {
                    log::debug!(target: "live", "{n}: {cause}");
                }
                shared.note(Event::LiveEnded { view: self.id, cause: word(cause) });
                let is_current = shared.views.borrow()[usize::from(self.id)].as_ref().is_some_and(|v| same(v, self));
                let by_itself = matches!(cause, Cause::Silence | Cause::Left | Cause::NotStarted | Cause::SourceGone);
                if by_itself && is_current {
                    shared.accessory.borrow_mut().state.live_view_ended(self.id);
                    effects::run(shared);
                }
            }
        }
    }

    /// Ends it, with a last word to the controller.
    fn end(&self, cause: Cause) {
        self.session.borrow_mut().end(cause);
        self.shared.media_changed.notify();
    }

    fn start(&self, video: &SelectedVideo, audio: &SelectedAudio) {
        let shared = &*self.shared;
        let (video, audio) = (video_choice(video), audio_choice(audio));
        self.small.set(self.wants_small(&video));
        let begin = self.begin(&video);
        self.session.borrow_mut().start(video, audio, begin, now());
        self.chosen.set(Some(Chosen { since: now(), audio }));
        *self.voice.borrow_mut() = Some(Voice::new(audio.rate_hz, audio.packet_ms.into(), audio.bitrate_kbps));
        if shared.config.speaker.sink != SpeakerSink::None {
            shared.talk.prepare(shared.config.speaker.sink_rate_hz(), shared.sounds.get()[1]);
        }
        let (width, height) = self.size();
        let (n, to, khz) = (self.id + 1, self.remote.ip(), audio.rate_hz / 1000);
        log::info!(target: "live", "live view {n}: {width}x{height} for {to}, opus {khz} kHz");
        log::debug!(
            target: "live", "{n}: asked for {}x{} at {} kbit/s, audio in packets of {} ms", video.width, video.height,
            video.bitrate_kbps, audio.packet_ms
        );
        shared.note(Event::LiveStarted { view: self.id, width, height });
    }

    fn reconfigure(&self, video: &SelectedVideo) {
        let video = video_choice(video);
        let small = self.wants_small(&video);
        self.hint_kbps.set(None);
        self.session.borrow_mut().reconfigure(video, now());
        if self.small.get() != small {
            self.switch(small, &video);
        }
    }

    /// Whoever asks for little gets the small stream, when there is one that delivers.
    fn wants_small(&self, video: &VideoChoice) -> bool {
        let wants_little = video.width <= 640 || video.bitrate_kbps <= 500;
        wants_little && self.shared.small.as_ref().is_some_and(|small| delivers(&small.borrow()))
    }

    /// Goes on with the full size when the small stream has stopped and the other has not.
    fn leave_dead_stream(&self, now: Instant) {
        let is_dead = |small: &RefCell<Prebuffer>| !is_fresh(&small.borrow());
        if !self.small.get() || !self.shared.small.as_ref().is_some_and(is_dead) || !self.shared.delivers(now) {
            return;
        }
        let Some(video) = self.session.borrow().video().copied() else { return };
        log::info!(target: "live", "live view {}: the small stream has stopped, full size instead", self.id + 1);
        self.switch(false, &video);
    }

    /// The other ring has other pictures under the same numbers.
    fn switch(&self, small: bool, video: &VideoChoice) {
        self.small.set(small);
        self.session.borrow_mut().switch_source(self.begin(video));
        // What may be held of each is another matter now, too: looked at once the accessory is back.
        self.is_watched.set(false);
    }

    /// An encoder that makes key frames when it is asked makes one for everybody who begins.
    fn begin(&self, video: &VideoChoice) -> Begin {
        let asks = states::asks_for_key_frames(&self.shared);
        if asks || video.is_remote() { Begin::FreshKey } else { Begin::FromPrebuffer }
    }

    /// The size of the picture that is sent.
    fn size(&self) -> (u16, u16) {
        self.with(|_, prebuffer| prebuffer.video().map_or((0, 0), |v| (v.width(), v.height())))
    }

    fn status(&self, chosen: Chosen) -> status::Live {
        let figures = self.session.borrow().figures();
        let (width, height) = self.size();
        let elapsed = now() - chosen.since;
        let controller = controllers::find(&self.shared, self.connection);
        let octets = u64::from(figures.video.octets) + u64::from(figures.audio.octets);
        status::Live {
            to: self.remote.to_string(),
            controller: controller.map(|c| c.name()).unwrap_or_default(),
            width: width.into(),
            height: height.into(),
            audio: match figures.audio.packets {
                0 => "none".into(),
                _ => format!("opus {} Hz", chosen.audio.rate_hz),
            },
            packets: figures.video.packets.wrapping_add(figures.audio.packets),
            lost_percent: f32::from(figures.video.fraction_lost) / 2.56,
            bitrate_kbps: (octets * 8 / (elapsed.as_millis() as u64).max(1)) as u32,
            since_s: elapsed.as_secs() as u32,
        }
    }
}

/// Whether there is a key frame to begin with, and its source has not fallen silent since.
fn delivers(small: &Prebuffer) -> bool {
    small.newest_key().is_some() && is_fresh(small)
}

fn is_fresh(small: &Prebuffer) -> bool {
    let newest = small.video_numbers().end.checked_sub(1).and_then(|number| small.video_sample(number).ok()?);
    let captured = newest.map(|picture| Instant::from_micros(picture.pts_90k * 100 / 9));
    captured.is_some_and(|captured| now() - captured < STALLED)
}

fn same(view: &Rc<LiveView>, other: &LiveView) -> bool {
    std::ptr::eq(&**view, other)
}

/// For `hksvd events`.
fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Controller => "controller",
        Cause::Left => "left",
        Cause::Silence => "silence",
        Cause::NotStarted => "not started",
        Cause::Disconnected => "disconnected",
        Cause::CameraOff => "camera off",
        Cause::SourceGone => "source gone",
        Cause::Shutdown => "shutdown",
    }
}

fn video_choice(video: &SelectedVideo) -> VideoChoice {
    VideoChoice {
        payload_type: video.rtp.payload_type,
        ssrc: video.rtp.ssrc,
        bitrate_kbps: video.rtp.bitrate_kbps,
        rtcp_interval_ms: video.rtp.rtcp_interval_ms,
        mtu: video.rtp.mtu,
        width: video.size.width,
        height: video.size.height,
        fps: video.size.fps,
    }
}

fn audio_choice(audio: &SelectedAudio) -> AudioChoice {
    AudioChoice {
        payload_type: audio.rtp.payload_type,
        ssrc: audio.rtp.ssrc,
        // Nothing else is offered.
        rate_hz: if audio.rate_code == 2 { 24_000 } else { 16_000 },
        packet_ms: audio.packet_ms,
        rtcp_interval_ms: audio.rtp.rtcp_interval_ms,
        bitrate_kbps: audio.rtp.bitrate_kbps,
    }
}

impl udp::View for LiveView {
    fn handle_datagram(&self, port: usize, from: SocketAddr, bytes: &mut [u8], now: Instant) {
        let medium = if port == 0 { Medium::Video } else { Medium::Audio };
        {
            let mut session = self.session.borrow_mut();
            session.handle_datagram(medium, from, bytes, now);
            #[cfg(feature = "opus")]
            if medium == Medium::Audio {
                self.shared.talk.take(self.id, &mut session, now);
            }
        }
        self.look();
    }

    fn poll_transmit(&self, now: Instant, out: &mut [u8]) -> Option<Datagram> {
        let (then, wall) = self.wall;
        let wall = wall.after(now - then);
        self.leave_dead_stream(now);
        let transmit = self.with(|session, prebuffer| session.poll_transmit(now, wall, prebuffer, out));
        if transmit.is_none() {
            self.look();
        }
        transmit.map(|t| Datagram { port: usize::from(t.medium == Medium::Audio), to: t.to, len: t.len })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.session.borrow().poll_timeout()
    }

    fn handle_timeout(&self, now: Instant) {
        self.session.borrow_mut().handle_timeout(now);
        self.look();
    }

    fn signal(&self) -> &Signal {
        &self.shared.media_changed
    }

    fn handle_lost(&self, error: &Error) {
        let n = self.id + 1;
        self.lost.borrow_mut().note(now(), error.kind(), |_, repeated| {
            log::debug!(target: "live", "{n}: {error}{repeated}");
        });
    }

    fn is_over(&self) -> bool {
        self.ended.get()
    }
}

const _: () = assert!(DATAGRAM_BYTES >= crate::live::DATAGRAM_BYTES);

async fn serve(view: Rc<LiveView>, ports: Ports) {
    udp::serve(&ports, &*view).await;
    let views = &view.shared.views;
    let slot = usize::from(view.id);
    let is_current = views.borrow()[slot].as_ref().is_some_and(|v| same(v, &view));
    if is_current {
        views.borrow_mut()[slot] = None;
        view.shared.retain();
    }
    if views.borrow().iter().all(Option::is_none) {
        sound::rest(&view.shared);
    }
    // Its keys and its memory go now.
    let shared = view.shared.clone();
    drop(view);
    let lingering = shared.lingering.get();
    if lingering < LINGERING {
        shared.lingering.set(lingering + 1);
        sleep_until(now() + LINGER).await;
        shared.lingering.set(shared.lingering.get() - 1);
    }
}

/// Sets live views up and commands them on behalf of a HAP connection.
pub struct Watching<'a>(pub &'a Rc<Shared>);

impl LiveViews for Watching<'_> {
    fn set_up(&mut self, connection: ConnectionId, view: u8, request: &SetupRequest) -> Result<SetupAnswer, Refusal> {
        let shared = self.0;
        let slot = usize::from(view);
        if slot >= VIEWS {
            return Err(Refusal::Error);
        }
        let controller = controllers::find(shared, connection).ok_or(Refusal::Error)?;
        let theirs = [&request.video, &request.audio].map(master);
        let [Some(video), Some(audio)] = theirs else { return Err(Refusal::Error) };
        let to = &request.controller;
        let (ports, at) = Ports::open(controller.local(), to.address, [to.video_port, to.audio_port]).map_err(|e| {
            log::warn!(target: "live", "no live view for {}: {e}", to.address);
            Refusal::Error
        })?;
        let setup = Setup::draw(&mut SystemRandom::new(), request.session, at.remote, video, audio);
        let answer = SetupAnswer::Ready {
            session: request.session,
            accessory: Endpoint { address: at.local, video_port: at.ports[0], audio_port: at.ports[1] },
            video: parameters(&setup.video.ours),
            audio: parameters(&setup.audio.ours),
            video_ssrc: setup.video_ssrc,
            audio_ssrc: setup.audio_ssrc,
        };
        let (seconds, nanos) = unix_time();
        let live = Rc::new(LiveView {
            shared: shared.clone(),
            id: view,
            connection,
            remote: at.remote[0],
            session: RefCell::new(Session::new(setup, shared.config.video.pacing_percent, now())),
            small: Cell::new(false),
            chosen: Cell::new(None),
            voice: RefCell::default(),
            is_watched: Cell::new(false),
            ended: Cell::new(false),
            hint_kbps: Cell::default(),
            wall: (now(), NtpNow::from_unix(seconds, nanos)),
            lost: RefCell::default(),
        });
        log::debug!(target: "live", "{}: set up for {} and {}", view + 1, at.remote[0], at.remote[1]);
        let before = shared.views.borrow_mut()[slot].replace(live.clone());
        if let Some(before) = before {
            before.end(Cause::Disconnected);
        }
        shared.executor.spawn(serve(live, ports));
        Ok(answer)
    }

    fn select(&mut self, _: ConnectionId, view: u8, selected: &SelectedStream) -> Result<(), Refusal> {
        let found = self.0.views.borrow().get(usize::from(view)).cloned().flatten();
        let view = found.filter(|view| !view.ended.get()).ok_or(Refusal::Error)?;
        match (selected.command, &selected.video, &selected.audio) {
            (Command::Start, Some(video), Some(audio)) => view.start(video, audio),
            (Command::Reconfigure, Some(video), _) => view.reconfigure(video),
            (Command::Suspend, ..) => view.session.borrow_mut().suspend(),
            (Command::Resume, ..) => view.session.borrow_mut().resume(now()),
            (Command::End, ..) => view.end(Cause::Controller),
            (Command::Start | Command::Reconfigure, ..) => return Err(Refusal::Error),
        }
        self.0.media_changed.notify();
        Ok(())
    }
}

fn master(parameters: &SrtpParameters) -> Option<MasterKey> {
    let key = parameters.key[..].try_into().ok()?;
    Some(MasterKey::new(key, parameters.salt[..].try_into().ok()?))
}

fn parameters(master: &MasterKey) -> SrtpParameters {
    let mut parameters = SrtpParameters { suite: Suite::Aes128, key: heapless::Vec::new(), salt: heapless::Vec::new() };
    // A key of 16 bytes and a salt of 14 fit.
    let _ = parameters.key.extend_from_slice(master.key());
    let _ = parameters.salt.extend_from_slice(master.salt());
    parameters
}

/// Ends the live view on this service.
pub fn end(shared: &Shared, view: u8, cause: Cause) {
    let found = shared.views.borrow().get(usize::from(view)).cloned().flatten();
    if let Some(view) = found {
        view.end(cause);
    }
}

/// Ends all of them.
pub fn end_all(shared: &Shared, cause: Cause) {
    (0..VIEWS as u8).for_each(|view| end(shared, view, cause));
}

/// Whether somebody gets pictures of the small stream, or of the other one.
pub fn is_watched(shared: &Shared, small: bool) -> bool {
    let views = shared.views.borrow();
    views.iter().flatten().any(|view| view.is_watched.get() && !view.ended.get() && view.small.get() == small)
}

/// The lowest bitrate that somebody wants who watches the small stream, or the other one.
pub fn wished_kbps(shared: &Shared, small: bool) -> Option<u32> {
    let views = shared.views.borrow();
    let watching = views.iter().flatten().filter(|view| !view.ended.get() && view.small.get() == small);
    let wishes = watching.filter_map(|view| {
        let wanted = wished(view.session.borrow().video()?);
        Some(view.hint_kbps.get().map_or(wanted, |hint| hint.min(wanted)))
    });
    wishes.min().map(in_steps)
}

/// What a controller selects is a guess: telephones at home begin with 299 kbit/s. A bit for each pixel a second is
/// given to all, until they say that it is too much.
fn wished(video: &VideoChoice) -> u32 {
    video.bitrate_kbps.max(u32::from(video.width) * u32::from(video.height) / 1_000)
}

/// A wish that moves all the time is not followed at every move.
fn in_steps(kbps: u32) -> u32 {
    kbps - if kbps > 400 { kbps % 100 } else { 0 }
}

/// Whether sound would be sent to anybody.
pub fn is_anybody_listening(shared: &Shared) -> bool {
    shared.views.borrow().iter().flatten().any(|view| !view.ended.get() && view.voice.borrow().is_some())
}

/// Whether all who listen can be sent an Opus packet as it is.
pub fn passes_on(shared: &Shared, packet: &[u8]) -> bool {
    let views = shared.views.borrow();
    let mut listening = views.iter().flatten().filter(|view| !view.ended.get());
    listening.all(|view| view.voice.borrow().as_ref().is_none_or(|voice| voice.passes(packet)))
}

/// Sends sound of the microphone to everybody who watches.
pub fn send_sound(shared: &Shared, sound: &Sound<'_>) {
    let mut packet = [0; VOICE_BYTES];
    for view in shared.views.borrow().iter().flatten() {
        if let Some(voice) = &mut *view.voice.borrow_mut() {
            voice.push(sound);
            while let Some(made) = voice.poll_packet(&mut packet) {
                view.session.borrow_mut().push_audio(&packet[..made.len], made.samples, made.pts_90k);
                shared.media_changed.notify();
            }
        }
    }
}

/// Those that were started, for the status.
pub fn status(shared: &Shared) -> Vec<status::Live> {
    let views = shared.views.borrow();
    let running = views.iter().flatten().filter(|view| !view.ended.get());
    running.filter_map(|view| Some(view.status(view.chosen.get()?))).collect()
}
