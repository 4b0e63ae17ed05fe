//! Everything together: the only place that knows all the others.
//!
//! [`run`] claims the memory, opens the sockets and starts the fixed set of tasks; `shared` is what
//! they share; `effects` does what the accessory asks for. One file for each kind of task.

mod advertise;
mod buttons;
mod clip;
mod control;
mod controllers;
mod effects;
mod encoder;
mod feed;
mod finding;
mod live;
mod load;
pub mod memory;
mod picture;
mod shared;
mod sound;
mod states;
mod streams;

use crate::config::{AudioSource, Config, MotionMode, RaptorStream, SpeakerSink, VideoSource};
use crate::control::{qr, server, socket};
use crate::hds::{Disconnect, FRAME_BYTES, Prepared, Slot};
use crate::io::command::Commands;
use crate::io::loan::Home;
use crate::io::random::{self, SystemRandom};
use crate::io::runtime::{Executor, Fd, Signal, now, or, sleep_until, sleep_until_some, yield_now};
use crate::io::worker::Worker;
use crate::io::{self};
use crate::mdns::Responder;
use crate::media::{Budget, Prebuffer};
use crate::motion::{Mode, Sensor};
use crate::source::file::{self, Format};
pub use crate::source::root;
use crate::source::{Sink, demo, fifo, find, raptor, rtp_unix, rtsp, v4l2, yi};
use crate::store::{Contents, Store};
use crate::sys;
use crate::time::{Duration, earliest};
use crate::trace::{Cause, Event, Repeats};
use control::Control;
use feed::Feed;
use memory::VIDEO_KBPS;
use shared::{Shared, Stop};
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

/// What to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checked configuration, without anything that this version cannot do.
    pub config: Config,
    /// The file it came from; `None` for `hksvd demo`.
    pub config_path: Option<std::path::PathBuf>,
    /// A person is watching: say how to end it.
    pub demo: bool,
    /// The arguments that begin all this anew, after a factory reset.
    pub again: Vec<std::ffi::OsString>,
}

/// A camera that has just booted is given this long to gather entropy for its identity.
const SEEDING: Duration = Duration::from_secs(20);

/// Serves in the foreground until SIGTERM.
pub fn run(options: Options) -> ExitCode {
    // Before any other thread: they inherit what is blocked.
    let signals = match sys::signals::termination().and_then(Fd::new) {
        Ok(signals) => signals,
        Err(e) => return fail(format!("signals cannot be read: {e}")),
    };
    let executor = Executor::default();
    let again = options.again.clone();
    let end = executor.block_on(serve(options, executor.clone(), signals));
    match end {
        Ok(Stop::Terminate) => ExitCode::SUCCESS,
        Ok(Stop::Reset) => {
            // A new life in the same process: nothing of the old one can be left over.
            // The file may have been replaced since; then what is there now is meant, if anything is.
            let program = std::env::current_exe().ok().filter(|path| path.exists());
            let program = program.unwrap_or_else(|| "/proc/self/exe".into());
            let error = sys::spawn::replace(&program, &again);
            fail(format!("cannot start anew after the reset: {error}"))
        }
        Err(why) => fail(why),
    }
}

fn fail(why: String) -> ExitCode {
    log::error!("{why}");
    ExitCode::FAILURE
}

/// Everything of [`run`] that may wait.
async fn serve(options: Options, executor: Executor, signals: Fd<std::fs::File>) -> Result<Stop, String> {
    let (store, contents) = Store::open(&options.config.state_dir.0).map_err(|e| e.to_string())?;
    if contents.is_new() {
        let seeded = async {
            or(async { random::seeded().await.unwrap_or(()) }, sleep_until(now() + SEEDING)).await;
            None
        };
        if let Some(how) = or(async { Some(terminated(&signals).await) }, seeded).await {
            return Ok(how);
        }
    }
    let (shared, _control_file) = bring_up(options, executor, store, contents)?;
    let how = or(terminated(&signals), stopped(&shared)).await;
    shut_down(&shared).await;
    shared.places.borrow().iter().for_each(|place| place.remove());
    if how == Stop::Reset {
        log::info!("reset: all pairings are forgotten, the camera gets a new identity");
    }
    Ok(how)
}

/// Opens and starts everything; with the file that goes when the daemon does. Not inlined: a stack frame above 32 KiB
/// costs two more instructions for each access on MIPS.
#[inline(never)]
fn bring_up(
    options: Options,
    executor: Executor,
    store: Store,
    contents: Contents,
) -> Result<(Rc<Shared>, socket::SocketFile), String> {
    let Options { mut config, demo, .. } = options;
    states::resolve_night_vision(&mut config, &root());
    let accessory = load::accessory(&config, &store, &contents, &mut SystemRandom::new())?;
    drop(contents);

    let sockets = Sockets::open(&config)?;
    let port = sockets.hap_port;
    let budget = memory::budget(&config);
    log::info!(
        "memory: {} KiB of prebuffer, {} s at {VIDEO_KBPS} kbit/s",
        (budget.video_bytes + budget.audio_bytes) / 1024,
        budget.seconds_held(VIDEO_KBPS)
    );
    if let Some(shortage) = memory::shortage(&config, VIDEO_KBPS).filter(|_| config.video.source.is_some()) {
        log::warn!("{shortage} (assumed until it is measured)");
    }
    let mut seed = [0; 4];
    crate::crypto::Random::fill(&mut SystemRandom::new(), &mut seed);
    let responder =
        Responder::new(advertise::service(&accessory, config.name.as_str(), port), u32::from_le_bytes(seed));
    let sensor = Sensor::new(
        mode(config.motion.mode),
        config.video.fps.into(),
        config.motion.sensitivity,
        config.motion.hold_s.into(),
        now(),
    );
    let known_pairings = accessory.pairings.len() as u8;
    let camera_active = accessory.state.camera_active();
    let sounds = [accessory.state.microphone(), accessory.state.speaker()];
    let shared = Rc::new(Shared {
        executor: executor.clone(),
        started: now(),
        accessory: RefCell::new(accessory),
        prebuffer: RefCell::new(Prebuffer::new(budget)),
        small: memory::live_budget(&config).map(|budget| RefCell::new(Prebuffer::new(budget))),
        sensor: RefCell::new(sensor),
        motion_since: Cell::new(None),
        reopen_at: Cell::new(None),
        prepared: RefCell::new(Prepared::new()),
        slot: RefCell::new(Slot::new()),
        running: Cell::new(None),
        data_stream_port: sockets.data_stream_port,
        chunk: Home::new(FRAME_BYTES),
        clips: Cell::new(0),
        accessory_changed: Signal::default(),
        media_changed: Signal::default(),
        sensor_changed: Signal::default(),
        trace: Rc::default(),
        trace_changed: Rc::default(),
        worker: Worker::start().map_err(|e| format!("no worker thread: {e}"))?,
        store: Arc::new(store),
        store_failed: Cell::new(false),
        known_pairings: Cell::new(known_pairings),
        responder: Rc::new(RefCell::new(responder)),
        responder_changed: Rc::default(),
        controllers: RefCell::default(),
        streams: RefCell::default(),
        views: RefCell::default(),
        lingering: Cell::default(),
        microphone: RefCell::default(),
        sounds: Cell::new(sounds),
        talk: Default::default(),
        places: Default::default(),
        source: RefCell::default(),
        pictures: picture::Pictures::default(),
        commands: Commands::new(executor.clone()).map_err(|e| format!("/dev/null: {e}"))?,
        states_changed: Signal::default(),
        key_frame_wanted: Signal::default(),
        playing_changed: Signal::default(),
        playing: RefCell::new([config.video.source.clone(), config.video.live_source.clone()]),
        source_restarts: Default::default(),
        encoders_changed: Default::default(),
        ending: Cell::default(),
        root: root(),
        rang: Signal::default(),
        stop: Cell::new(None),
        stop_changed: Signal::default(),
        config,
    });
    if !camera_active {
        // Off before anything was on: no change. A camera that is on begins with its first timer.
        shared.sensor.borrow_mut().handle_camera_active(false, now());
    }
    shared.retain();
    shared.accessory.borrow_mut().prepare_setup(&mut SystemRandom::new());
    effects::run(&shared);

    executor.spawn(effects::finish(shared.clone()));
    executor.spawn(controllers::serve(shared.clone(), sockets.hap));
    executor.spawn(streams::serve(shared.clone(), sockets.data_streams));
    executor.spawn(watch_motion(shared.clone()));
    start_control(&shared, budget, sockets.control, sockets.control_tcp)?;
    start_sources(&shared, budget);
    // Before the hooks: a switch that is on has nobody look at the first either.
    buttons::start(&shared);
    states::start(&shared);
    encoder::start(&shared);
    #[cfg(feature = "opus")]
    executor.spawn(sound::play(shared.clone()));
    if shared.config.hap.mdns {
        let names = shared.config.hap.interfaces.iter().map(|i| i.0.clone()).collect();
        let selection = io::mdns::Selection { names, ipv4_only: sockets.ipv4_only };
        executor.spawn(io::mdns::run(shared.responder.clone(), shared.responder_changed.clone(), selection));
        executor.spawn(advertise::follow(shared.clone()));
    }
    welcome(&shared, port, demo);
    shared.note(Event::Ready);
    Ok((shared, sockets.control_file))
}

fn mode(mode: MotionMode) -> Mode {
    match mode {
        MotionMode::Detect => Mode::Detect,
        MotionMode::Continuous => Mode::Continuous,
        MotionMode::Api => Mode::Api,
        // The firmware's own detectors are refused when the configuration is checked.
        MotionMode::Off | MotionMode::Firmware | MotionMode::Onvif => Mode::Off,
    }
}

/// Everything that listens.
struct Sockets {
    hap: TcpListener,
    hap_port: u16,
    data_streams: TcpListener,
    data_stream_port: u16,
    /// One of the two could not have IPv6.
    ipv4_only: bool,
    control: std::os::unix::net::UnixListener,
    control_tcp: Option<TcpListener>,
    /// Takes the file away when the daemon ends.
    control_file: socket::SocketFile,
}

impl Sockets {
    fn open(config: &Config) -> Result<Self, String> {
        let hap = listen(config.hap.port).map_err(|e| format!("no TCP port for HomeKit: {e}"))?;
        let data_streams = listen_any().map_err(|e| format!("no TCP port for data streams: {e}"))?;
        let [at, streams_at] = [&hap, &data_streams].map(TcpListener::local_addr);
        let (at, streams_at) = (at.map_err(|e| e.to_string())?, streams_at.map_err(|e| e.to_string())?);
        if config.hap.port != 0 && at.port() != config.hap.port {
            log::warn!("hap.port {} is taken; using {} for now", config.hap.port, at.port());
        }
        let path = &config.control.socket.0;
        let (control, control_file) =
            socket::listen(path).map_err(|e| format!("control.socket {}: {e}", path.display()))?;
        let control_tcp = match &config.control.listen {
            Some(listen) => Some(TcpListener::bind(listen.0).map_err(|e| format!("control.listen {}: {e}", listen.0))?),
            None => None,
        };
        Ok(Sockets {
            hap,
            hap_port: at.port(),
            data_streams,
            data_stream_port: streams_at.port(),
            ipv4_only: at.is_ipv4() || streams_at.is_ipv4(),
            control,
            control_tcp,
            control_file,
        })
    }
}

/// One port for IPv4 and IPv6: the answer to a data stream request carries no address, so a hub uses
/// the family that it has HAP on. A kernel without IPv6 gets IPv4 alone.
fn listen_on(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// The configured port; hubs come back to it before they look the camera up anew. Any port when it is
/// taken.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    listen_on(port).or_else(|_| listen_any())
}

fn listen_any() -> std::io::Result<TcpListener> {
    listen_on(0)
}

/// The next connection; `None` after an error, which is waited out.
async fn accept(listener: &Fd<TcpListener>, what: &str) -> Option<(TcpStream, SocketAddr)> {
    // A flood of connections must not keep the media waiting.
    yield_now().await;
    match listener.when_readable(|l| l.accept()).await {
        // IPv4 as IPv4, although the socket takes both.
        Ok((stream, from)) => Some((stream, SocketAddr::new(from.ip().to_canonical(), from.port()))),
        Err(e) => {
            log::debug!("{what}: {e}");
            // Out of descriptors is an error that comes at once, again and again.
            sleep_until(now() + Duration::from_millis(100)).await;
            None
        }
    }
}

fn start_control(
    shared: &Rc<Shared>,
    budget: Budget,
    unix: std::os::unix::net::UnixListener,
    tcp: Option<TcpListener>,
) -> Result<(), String> {
    let control: Rc<dyn crate::control::Daemon> = Rc::new(Control { shared: shared.clone(), budget });
    let refused = |e: std::io::Error| format!("control: {e}");
    let mut listeners = vec![server::Listener::unix(unix).map_err(refused)?];
    if let Some(tcp) = tcp {
        listeners.push(server::Listener::tcp(tcp, shared.config.control.token.clone()).map_err(refused)?);
    }
    for listener in listeners {
        let listener = Rc::new(listener);
        for _ in 0..server::WORKERS {
            shared.executor.spawn(server::serve(listener.clone(), control.clone()));
        }
    }
    Ok(())
}

fn start_sources(shared: &Rc<Shared>, budget: Budget) {
    let config = &shared.config;
    if let SpeakerSink::YiFifo(path) = &config.speaker.sink {
        yi::request(path);
    }
    match config.video.source.clone() {
        Some(video) => start(shared, budget, video, config.video.live_source.clone(), &Rc::default()),
        None => shared.executor.spawn(finding::run(shared.clone(), budget)),
    }
}

/// Plays the main source with its sound, and the small one, until it is `over`.
fn start(shared: &Rc<Shared>, budget: Budget, video: VideoSource, live: Option<VideoSource>, over: &Rc<Signal>) {
    let config = &shared.config;
    *shared.playing.borrow_mut() = [Some(video.clone()), live.clone()];
    shared.playing_changed.notify();
    let audio = config.audio.source.clone();
    let sound = match (&audio, &video) {
        (AudioSource::Fifo(path), _) => Some(Heard::At(path.clone())),
        (AudioSource::Auto, VideoSource::YiFifo(video)) => Some(Heard::Beside(video.clone())),
        _ => None,
    };
    let has_own_sound = sound.is_some();
    if let Some(sound) = sound {
        until(shared, over, play_sound(sound, shared.clone(), Feed::new(shared.clone(), budget)));
    }
    let feed = Feed::new(shared.clone(), budget);
    let feed = if has_own_sound { feed.without_sound() } else { feed };
    until(shared, over, play("video.source", video, audio, feed));
    if let (Some(video), Some(budget)) = (live, memory::live_budget(config)) {
        let feed = Feed::live(shared.clone(), budget);
        until(shared, over, play("video.live_source", video, AudioSource::None, feed));
    }
}

fn until(shared: &Shared, over: &Rc<Signal>, task: impl Future<Output = ()> + 'static) {
    let (over, seen) = (over.clone(), over.count());
    // What plays is closed by being dropped.
    shared.executor.spawn(async move { or(task, over.changed(seen)).await });
}

/// The FIFO of the sound.
enum Heard {
    At(PathBuf),
    /// The one that belongs to this FIFO with video.
    Beside(PathBuf),
}

/// Plays a FIFO with sound for ever.
async fn play_sound(sound: Heard, shared: Rc<Shared>, mut feed: Feed) {
    let heard = || live::is_anybody_listening(&shared);
    loop {
        let (path, format) = match &sound {
            Heard::At(path) => (path.clone(), feed.sound_format()),
            Heard::Beside(video) => yi::sound_beside(video, shared.config.audio.rate_hz).await,
        };
        let better = async {
            match (&sound, format) {
                (Heard::Beside(_), Format::Pcm { .. }) => yi::aac_beside(&path).await,
                _ => core::future::pending().await,
            }
        };
        let play = async || match format {
            Format::Adts => fifo::audio(&path, &shared.media_changed, &heard, &mut feed).await,
            Format::Pcm { rate_hz } => fifo::pcm(&path, rate_hz, &mut feed).await,
        };
        or(keep_up("audio.source", play), better).await;
    }
}

/// Plays a source of video for ever.
async fn play(key: &'static str, video: VideoSource, audio: AudioSource, mut feed: Feed) {
    let place = Place {
        root: feed.root(),
        fps: feed.fps(),
        format: feed.sound_format(),
        bytes: feed.access_unit_bytes(),
        places: feed.places(),
    };
    let shared = feed.shared();
    let play = async || deliver(key, &video, &audio, &place, &shared.key_frame_wanted, &mut feed).await;
    keep_up(key, play).await;
}

/// What a source needs to know of the place where it is played.
pub struct Place {
    /// Where the camera's own things are looked for.
    pub root: PathBuf,
    /// The frame rate to expect.
    pub fps: u32,
    /// What a file with sound has in it.
    pub format: Format,
    /// The largest picture, in bytes.
    pub bytes: usize,
    /// Where sources note the sockets that they bind.
    pub places: rtp_unix::Places,
}

/// Plays a source of video until it fails; an encoder that can be asked is asked for the key frames that are wanted.
pub async fn deliver(
    key: &str,
    video: &VideoSource,
    audio: &AudioSource,
    place: &Place,
    key_frame_wanted: &Signal,
    sink: &mut dyn Sink,
) -> std::io::Error {
    let Place { root, fps, format, bytes, places } = place;
    let bytes = *bytes;
    match video {
        VideoSource::Demo => demo::play(bytes, sink).await,
        VideoSource::Fifo(path) => fifo::video(path, bytes, sink).await,
        VideoSource::File(path) => {
            let sound = match audio {
                AudioSource::File(path) => Some((path.clone(), *format)),
                AudioSource::Auto => file::audio_beside(path).map(|path| (path, Format::Adts)),
                AudioSource::Fifo(_) | AudioSource::None => None,
            };
            let sound = sound.as_ref().map(|(path, format)| (path.as_path(), *format));
            file::play(path, sound, *fps, bytes, sink).await
        }
        VideoSource::Raptor(stream) => {
            let with_sound = *audio == AudioSource::Auto;
            let mut refused = Repeats::default();
            loop {
                let error = raptor::play(root, *stream, with_sound, bytes, sink).await;
                // Its server speaks as it always did.
                let url = match find::raptor_server(root, *stream) {
                    Some(VideoSource::Rtsp(url)) if error.kind() == std::io::ErrorKind::Unsupported => url,
                    _ => return error,
                };
                refused.note(now(), error.to_string(), |error, repeated| {
                    log::warn!("{key}: refused: {error}{repeated}; taking {url}");
                });
                let server = async {
                    rtsp::play(&url, with_sound, bytes, sink).await;
                };
                or(server, ring_is_back(root, *stream)).await;
            }
        }
        VideoSource::Rtsp(url) => rtsp::play(url, *audio == AudioSource::Auto, bytes, sink).await,
        VideoSource::RtpUnix(path) => rtp_unix::play(path, bytes, places, sink).await,
        VideoSource::YiFifo(path) => yi::video(path, bytes, sink).await,
        VideoSource::Yi(layout, kind) => yi::play(root, *layout, *kind, *audio == AudioSource::Auto, bytes, sink).await,
        VideoSource::V4l2(path) => v4l2::play(path, *fps, bytes, key_frame_wanted, sink).await,
    }
}

/// Waits for a ring that can be read. Not at once: a ring that is refused and yet readable would be tried without a rest.
async fn ring_is_back(root: &Path, stream: RaptorStream) {
    loop {
        sleep_until(now() + Duration::from_secs(2)).await;
        if raptor::codec(root, stream).is_ok() {
            return;
        }
    }
}

/// Starts a source again after it has failed; waits longer each time it fails at once, half a minute at
/// the most.
async fn keep_up(key: &str, mut play: impl AsyncFnMut() -> std::io::Error) {
    let mut pause = Duration::from_secs(1);
    let mut failures = Repeats::default();
    loop {
        let begun = now();
        let error = play().await.to_string();
        if now() - begun > Duration::from_secs(60) {
            pause = Duration::from_secs(1);
        }
        failures.note(now(), error, |error, repeated| log::error!("{key}: {error}{repeated}"));
        sleep_until(now() + pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// The timers of the motion sensor.
async fn watch_motion(shared: Rc<Shared>) {
    loop {
        let seen = shared.sensor_changed.count();
        let due = earliest(shared.sensor.borrow().poll_timeout(), shared.reopen_at.get());
        or(sleep_until_some(due), shared.sensor_changed.changed(seen)).await;
        let now = now();
        if shared.reopen_at.get().is_some_and(|t| t <= now) {
            shared.reopen_at.set(None);
            // Current hubs do not acknowledge the end of a stream: it is as good as closed then.
            if !shared.is_recording() && shared.accessory.borrow().state.recording_permission().armed() {
                let (change, cause) = match shared.delivers(now) {
                    true => (shared.sensor.borrow_mut().pulse(now), Cause::Hold),
                    // Nothing can be recorded of it.
                    false => (shared.sensor.borrow_mut().handle_api(false, None, now), Cause::Source),
                };
                shared.motion(change, cause);
            }
        }
        if shared.sensor.borrow().poll_timeout().is_some_and(|t| t <= now) {
            let delivers = shared.delivers(now);
            let change = shared.sensor.borrow_mut().handle_timeout(delivers, now);
            let cause = match shared.config.motion.mode {
                MotionMode::Continuous if delivers => Cause::Continuous,
                MotionMode::Continuous => Cause::Source,
                _ => Cause::Hold,
            };
            shared.motion(change, cause);
        }
    }
}

/// Says how to reach the camera; while nobody is paired and a person looks on, with the QR code. It is a secret: the log
/// of a camera is often sent elsewhere.
fn welcome(shared: &Shared, port: u16, demo: bool) {
    let accessory = shared.accessory.borrow();
    let name = shared.config.name.as_str();
    log::info!("\"{name}\" serves HomeKit on port {port}, {} pairings", accessory.pairings.len());
    if accessory.is_paired() {
        return;
    }
    if !demo && !std::io::stderr().is_terminal() {
        return log::info!("`hksvd qr` shows the code to pair with");
    }
    let payload = advertise::setup_payload(&accessory);
    let code = accessory.identity.setup_code.as_str();
    // To standard error like the log, but without a level in front of each row. Nobody reads it: then
    // nobody can be told.
    let mut out = std::io::stderr().lock();
    if let Some(picture) = qr::draw(&payload, qr::Style::Blocks) {
        let _ = writeln!(out, "{picture}");
    }
    let _ = writeln!(out, "Scan this with the Home app, or enter the setup code {code}");
    if demo {
        let _ = writeln!(out, "Ctrl-C ends the demo.");
    }
}

async fn terminated(signals: &Fd<std::fs::File>) -> Stop {
    let mut siginfo = [0; 128];
    // Whatever comes out of it, an error included, means that it is time to go.
    let _ = signals.when_readable(|mut f| f.read(&mut siginfo)).await;
    Stop::Terminate
}

async fn stopped(shared: &Shared) -> Stop {
    loop {
        let seen = shared.stop_changed.count();
        if let Some(how) = shared.stop.get() {
            // The client that asked for it gets its answer first.
            sleep_until(now() + Duration::from_millis(200)).await;
            return how;
        }
        shared.stop_changed.changed(seen).await;
    }
}

/// Tells everybody, and waits a moment for them to hear it: closed sockets and the goodbye are what
/// makes hubs come back at once.
async fn shut_down(shared: &Rc<Shared>) {
    log::info!("stopping");
    shared.ending.set(true);
    shared.states_changed.notify();
    streams::close_where(shared, Disconnect::Shutdown, |_| true);
    live::end_all(shared, live::Cause::Shutdown);
    for controller in shared.controllers.borrow().iter() {
        controller.finish();
    }
    if shared.config.hap.mdns {
        io::mdns::goodbye(&shared.responder, &shared.responder_changed).await;
    }
    let patience = now() + Duration::from_millis(500);
    let is_quiet = || {
        let views = shared.views.borrow();
        shared.controllers.borrow().is_empty()
            && shared.streams.borrow().is_empty()
            && views.iter().all(Option::is_none)
            && shared.encoders_changed.iter().all(|changed| !changed.get())
    };
    while now() < patience && !is_quiet() {
        sleep_until(now() + Duration::from_millis(10)).await;
    }
    states::stop(shared).await;
    shared.commands.end_all().await;
    // At the very end: somebody may ring meanwhile.
    buttons::silence(shared);
}
