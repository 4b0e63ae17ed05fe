//! `hksvd check`: what is wrong with the configuration, and what of the camera is missing.

use super::client::{Client, Request};
use super::measure::{Seen, measure};
use super::{Args, Failure, config_path, print};
use crate::config::keys::MEMORY_KB;
use crate::config::{AudioSource, Config, RaptorStream, SnapshotSource, SpeakerSink, Url, VideoSource};
use crate::control::status::{self, Decimal};
use crate::daemon;
use crate::io::runtime::{Executor, now, sleep_until};
use crate::source::find::{self, Verdict};
use crate::source::raptor;
use crate::source::v4l2::{self, Offer};
use crate::time::Duration;
use crate::wire::json::Value;
use std::fmt::Write;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Fine,
    /// What a look for a source brought.
    Looked(Verdict),
    /// It works, but not as well as it should.
    Warning,
    /// Something that the camera should have is not there.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What, where, and what to do.
    pub text: String,
}

fn fine(text: impl Into<String>) -> Finding {
    Finding { level: Level::Fine, text: text.into() }
}

fn warning(text: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, text: text.into() }
}

fn missing(text: impl Into<String>) -> Finding {
    Finding { level: Level::Missing, text: text.into() }
}

/// Room that the four files of the store need, twice over.
const STORE_KB: u64 = 64;
/// What the process needs beside `memory_kb`.
const PROCESS_KB: u64 = 1_536;

/// The verb: prints one line a finding.
pub fn run(args: &Args) -> Result<(), Failure> {
    let path = config_path(args);
    let (config, unbuilt) = Config::load(&path).map_err(|problem| Failure::config(problem.to_string()))?;
    if !unbuilt.is_empty() {
        let lines: Vec<String> = unbuilt.iter().map(ToString::to_string).collect();
        return Err(Failure::config(lines.join("\n")));
    }
    let is_there = if path.exists() { "" } else { " is not there: all keys have their defaults" };
    let mut findings = vec![fine(format!("configuration {}{is_there}", path.display()))];
    let mut proposal = None;
    if !args.has("offline") {
        proposal = camera(&config, &mut findings);
    }
    let mut out = String::new();
    for finding in &findings {
        let word = match finding.level {
            Level::Fine => "ok",
            Level::Looked(verdict) => verdict.as_str(),
            Level::Warning => "warning",
            Level::Missing => "missing",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{word:<8} {}", finding.text);
    }
    if let Some(proposal) = proposal {
        let _ = writeln!(out, "proposed for {}, beside what is set there:\n{proposal}", path.display());
    }
    print(&out)?;
    match findings.iter().any(|finding| matches!(finding.level, Level::Missing | Level::Warning)) {
        true => Err(Failure::silent(1)),
        false => Ok(()),
    }
}

/// Looks at everything that the configuration needs of this camera; what should be set, when that is known.
pub fn camera(config: &Config, findings: &mut Vec<Finding>) -> Option<String> {
    findings.extend(super::board::preset().map(fine));
    let status = status_when_measured(LOOK_AGAIN, &mut || status_of_daemon(&config.control.socket.0));
    let taken = source(config, status.as_deref(), findings);
    if let Some((seen, _)) = &taken {
        judge(seen, config, findings);
    }
    match &config.video.live_source {
        Some(VideoSource::Fifo(path) | VideoSource::YiFifo(path)) => findings.push(fifo("video.live_source", path)),
        Some(VideoSource::Yi(..)) => findings.push(yi("video.live_source")),
        Some(VideoSource::File(path)) => findings.push(file("video.live_source", path)),
        Some(VideoSource::Rtsp(url)) => findings.push(rtsp("video.live_source", url)),
        Some(VideoSource::Raptor(stream)) => findings.push(ring("video.live_source", *stream)),
        Some(VideoSource::V4l2(path)) => findings.push(node("video.live_source", path, Offer::has_h264, "H.264")),
        _ => {}
    }
    match &config.audio.source {
        AudioSource::Auto | AudioSource::None => {}
        AudioSource::Fifo(path) => findings.push(fifo("audio.source", path)),
        AudioSource::File(path) => findings.push(file("audio.source", path)),
    }
    match &config.snapshot.source {
        SnapshotSource::File(path) => findings.push(file("snapshot.source", path)),
        SnapshotSource::V4l2(path) => findings.push(node("snapshot.source", path, Offer::has_jpeg, "JPEG")),
        _ => {}
    }
    findings.push(state_dir(&config.state_dir.0));
    let running = status.is_some();
    findings.extend(daemon(&config.control.socket.0, status.as_deref()));
    findings.extend(port("hap.port", config.hap.port, running));
    if let Some(listen) = config.control.listen {
        findings.extend(port("control.listen", listen.0.port(), running));
    }
    for interface in &config.hap.interfaces {
        if !Path::new("/sys/class/net").join(&interface.0).exists() {
            findings.push(missing(format!("hap.interfaces: there is no interface {}", interface.0)));
        }
    }
    // What runs already has its memory.
    if !running {
        findings.extend(memory(config.memory_kb));
    }
    taken.map(|(seen, video)| proposal(config, &seen, &video))
}

/// What is seen of the main stream, and which one it is.
fn source(config: &Config, status: Option<&str>, findings: &mut Vec<Finding>) -> Option<(Seen, String)> {
    let root = daemon::root();
    if let Some(configured) = &config.video.source {
        let there = match configured {
            VideoSource::Fifo(path) | VideoSource::YiFifo(path) => fifo("video.source", path),
            VideoSource::Yi(..) => yi("video.source"),
            VideoSource::File(path) => file("video.source", path),
            VideoSource::Demo if cfg!(feature = "demo") => fine("video.source: the built-in clip"),
            VideoSource::Demo => missing("video.source: this build has no built-in clip: name another source"),
            VideoSource::Rtsp(url) => rtsp("video.source", url),
            VideoSource::Raptor(stream) => ring("video.source", *stream),
            VideoSource::RtpUnix(path) => fine(format!("video.source: bound at {} when hksvd runs", path.display())),
            VideoSource::V4l2(path) => node("video.source", path, Offer::has_h264, "H.264"),
        };
        let is_there = there.level != Level::Missing;
        findings.push(there);
        // A FIFO has one reader, and what runs has seen more than a look can.
        if let Some(status) = status {
            return running(status, findings);
        }
        let seen = match configured {
            VideoSource::Demo => return None,
            _ if is_there => look_at(config, &root, configured, findings),
            _ => None,
        };
        if seen.is_some() {
            return seen;
        }
    }
    let search = Executor::default().block_on(find::look(&root));
    findings.extend(search.said.into_iter().map(|(verdict, text)| Finding { level: Level::Looked(verdict), text }));
    if config.video.source.is_some() {
        if !search.found.is_empty() {
            findings.push(missing("video.source: leave it out, and what was found is taken"));
        }
        return None;
    }
    if let Some(status) = status {
        return running(status, findings);
    }
    let seen = search.found.iter().find_map(|found| look_at(config, &root, &found.video, findings));
    if seen.is_none() {
        findings.push(missing("video.source: not set, and nothing was found that gives H.264: name one"));
    }
    seen
}

/// Plays a source for a few seconds.
fn look_at(config: &Config, root: &Path, video: &VideoSource, findings: &mut Vec<Finding>) -> Option<(Seen, String)> {
    let (seen, mut said) = measure(config, root, video);
    if seen.is_none() && said.is_empty() {
        said.push(format!("{video}: no pictures come"));
    }
    let level = match (&seen, &config.video.source) {
        (Some(_), _) => Level::Warning,
        (None, Some(_)) => Level::Missing,
        (None, None) => Level::Looked(Verdict::Refused),
    };
    // It is not tried again here.
    let text = |said: String| said.strip_suffix("; trying again").unwrap_or(&said).into();
    findings.extend(said.into_iter().map(|said| Finding { level, text: text(said) }));
    Some((seen?, video.to_string()))
}

/// What the daemon sees, and where.
fn seen_in(status: &str) -> (Seen, String) {
    let (mut seen, mut video) = (Seen::default(), String::new());
    // What cannot be read is nothing.
    let _ = status::source(status, &mut |key, value| {
        let whole = value.unsigned().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let broken = if let Value::Float(number) = value { *number as f32 } else { whole as f32 };
        match key {
            "spec" => video = value.text().unwrap_or_default().into(),
            "width" => seen.width = whole,
            "height" => seen.height = whole,
            "bitrate_kbps" => seen.kbps = whole,
            "fps" => seen.fps = broken,
            "gop_s" => seen.gop_s = broken,
            "audio" => {
                seen.sound = value.text().filter(|sound| *sound != "none").unwrap_or_default().into();
                seen.is_sound_recordable = seen.sound.starts_with("AAC") && !seen.sound.contains("alone");
            }
            _ => {}
        }
    });
    (seen, video)
}

/// What the daemon sees.
fn running(status: &str, findings: &mut Vec<Finding>) -> Option<(Seen, String)> {
    let (seen, video) = seen_in(status);
    if seen.width == 0 {
        findings.push(missing("video.source: the daemon that is running has no pictures yet"));
        return None;
    }
    Some((seen, video))
}

/// Above this, hubs wait long for a fragment.
const LONG_GOP_S: f32 = 4.05;

/// Says what is seen, and what is wrong with it.
fn judge(seen: &Seen, config: &Config, findings: &mut Vec<Finding>) {
    let Seen { width, height, kbps, gop_s, profile, .. } = *seen;
    let space = if profile.is_empty() { "" } else { " " };
    let (fps, gop) = (Decimal::<1>(seen.fps), Decimal::<1>(gop_s));
    let every = if gop_s > 0.0 { format!("a key frame every {gop} s") } else { "a single key frame".into() };
    findings
        .push(fine(format!("video: H.264{space}{profile}, {width}x{height}, {fps} frames/s, {kbps} kbit/s, {every}")));
    let mut warn = |is_so: bool, text: String| {
        if is_so {
            findings.push(warning(text));
        }
    };
    warn(seen.has_b_frames, "video: B-frames are recorded in the wrong order: switch them off in the encoder".into());
    let is_long = gop_s > LONG_GOP_S || gop_s == 0.0 && !profile.is_empty();
    warn(is_long, "video: key frames are rare: set the encoder's GOP to 4 s or less, or recordings begin late".into());
    let ratio = width as f32 / height.max(1) as f32;
    warn(!(1.7..1.8).contains(&ratio), format!("video: {width}x{height} is not 16:9: hubs may refuse to record it"));
    warn(width > 1920 || height > 1080, format!("video: {width}x{height} is more than 1920x1080: set a smaller size"));
    warn(width % 2 + height % 2 > 0, format!("video: {width}x{height}: width and height must be even"));
    if let Some(shortage) = daemon::memory::shortage(config, kbps) {
        warn(true, shortage);
    }
    if config.audio.source == AudioSource::None {
        return;
    }
    let sound = &seen.sound;
    if sound.is_empty() {
        warn(true, "audio: none came: switch the streamer's sound on as AAC, or set audio.source to \"none\"".into());
    } else {
        let text = "audio: recordings take AAC-LC of one channel and get silence: set the streamer's sound to that";
        warn(!seen.is_sound_recordable, text.into());
        findings.push(fine(format!("audio: {sound}")));
    }
}

/// What should be set beside what is: JSON. The source is not in it: it is set already or found again, and its
/// address may have a password.
fn proposal(config: &Config, seen: &Seen, video: &str) -> String {
    let mut keys = Vec::new();
    let is_short = daemon::memory::shortage(config, seen.kbps).is_some();
    if let Some(least) = daemon::memory::least(config, seen.kbps).filter(|_| is_short) {
        keys.push(format!("  \"memory_kb\": {least}"));
    }
    let fps = (seen.fps + 0.5) as u32;
    if fps != u32::from(config.video.fps) && (1..=60).contains(&fps) {
        keys.push(format!("  \"video\": {{ \"fps\": {fps} }}"));
    }
    if video.starts_with("raptor:") && config.speaker.sink == SpeakerSink::None && cfg!(feature = "opus") {
        keys.push("  \"speaker\": { \"sink\": \"raptor\" }".into());
    }
    if keys.is_empty() { "{}".into() } else { format!("{{\n{}\n}}", keys.join(",\n")) }
}

fn ring(key: &str, stream: RaptorStream) -> Finding {
    let name = VideoSource::Raptor(stream);
    match raptor::codec(&daemon::root(), stream) {
        Ok(_) => fine(format!("{key}: {name}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            missing(format!("{key}: {name}: there is no ring in /dev/shm: does Raptor run?"))
        }
        // Its server may be taken.
        Err(error) => warning(format!("{key}: {error}")),
    }
}

fn fifo(key: &str, path: &Path) -> Finding {
    let place = path.display();
    match path.metadata() {
        Ok(there) if there.file_type().is_fifo() => fine(format!("{key}: FIFO {place}")),
        Ok(_) => missing(format!("{key}: {place} is not a FIFO: remove it and make one with mkfifo")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            missing(format!("{key}: there is no {place}: make it with mkfifo"))
        }
        Err(error) => missing(format!("{key}: {place}: {error}")),
    }
}

fn yi(key: &str) -> Finding {
    file(key, &daemon::root().join(find::FRAME_BUFFER))
}

fn file(key: &str, path: &Path) -> Finding {
    let place = path.display();
    let opened = std::fs::File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(there) if there.is_file() && there.len() > 0 => fine(format!("{key}: file {place}")),
        Ok(there) if there.is_file() => missing(format!("{key}: {place} is empty")),
        Ok(_) => missing(format!("{key}: {place} is not a file")),
        Err(error) => missing(format!("{key}: {place}: {error}")),
    }
}

fn rtsp(key: &str, url: &Url) -> Finding {
    const PATIENCE: Duration = Duration::from_secs(3);
    let server = url.server().map(|server| SocketAddr::from((server.address, server.port)));
    match server.map(|server| TcpStream::connect_timeout(&server, PATIENCE)) {
        Some(Ok(_)) => fine(format!("{key}: somebody listens at {url}")),
        Some(Err(error)) => missing(format!("{key}: {url}: {error}: does the streamer run, with RTSP switched on?")),
        None => missing(format!("{key}: {url} is no address")),
    }
}

fn node(key: &str, path: &Path, has: fn(&Offer) -> bool, wanted: &str) -> Finding {
    let place = path.display();
    match v4l2::offers(path) {
        Ok(offer) if has(&offer) => fine(format!("{key}: {place}: {offer}")),
        Ok(offer) => missing(format!("{key}: {place} has no {wanted}, but {offer}")),
        Err(error) => missing(format!("{key}: {place}: {error}")),
    }
}

fn state_dir(dir: &Path) -> Finding {
    let place = dir.display();
    // The folder is made at the first start; until then the one around it has to do.
    let Some(there) = dir.ancestors().find(|dir| dir.exists() && !dir.as_os_str().is_empty()) else {
        return fine(format!("state_dir: {place} will be made"));
    };
    let probe = there.join(format!(".hksvd-check-{}", std::process::id()));
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    let _ = std::fs::remove_file(&probe);
    if let Err(error) = written {
        return missing(format!("state_dir: cannot write to {}: {error}", there.display()));
    }
    match crate::sys::disk::free_kb(there) {
        Ok(free) if free < STORE_KB => missing(format!("state_dir: {place} has {free} kB left, {STORE_KB} are needed")),
        Ok(free) if there == dir => fine(format!("state_dir: {place}, {free} kB left")),
        Ok(free) => fine(format!("state_dir: {place} will be made, {free} kB left")),
        Err(error) => missing(format!("state_dir: {place}: {error}")),
    }
}

/// Between two looks at a daemon that has just begun, and how many.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOKS: u32 = 12;

/// What a daemon says of itself once it has measured its pictures, or after as long as that takes.
fn status_when_measured(pause: Duration, ask: &mut dyn FnMut() -> Option<String>) -> Option<String> {
    let mut status = ask();
    for _ in 1..LOOKS {
        let Some(text) = &status else { break };
        let (seen, _) = seen_in(text);
        if seen.kbps > 0 && seen.fps > 0.0 && seen.gop_s > 0.0 {
            break;
        }
        Executor::default().block_on(sleep_until(now() + pause));
        let Some(text) = ask() else { break };
        status = Some(text);
    }
    status
}

/// What the daemon says of itself, if one runs.
fn status_of_daemon(socket: &Path) -> Option<String> {
    let mut body = Client::new(socket.into()).ask(Request::new("GET", "/status")).ok()?;
    // What cannot be read has nothing to say.
    Some(body.text(1 << 20).unwrap_or_default())
}

/// Whether the daemon runs, and what it warns of.
fn daemon(socket: &Path, status: Option<&str>) -> Vec<Finding> {
    let place = socket.display();
    let Some(status) = status else {
        let dir = socket.parent().filter(|dir| !dir.as_os_str().is_empty());
        return match dir.is_none_or(Path::is_dir) {
            true => vec![fine(format!("control.socket: {place}, no daemon is running"))],
            false => vec![missing(format!("control.socket: there is no folder for {place}"))],
        };
    };
    let mut findings = vec![fine(format!("control.socket: a daemon is running at {place}"))];
    let _ = status::warnings(status, &mut |warning| findings.push(missing(warning.to_owned())));
    findings
}

fn port(key: &str, port: u16, running: bool) -> Option<Finding> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) if port == 0 => None,
        Ok(_) => Some(fine(format!("{key}: port {port} is free"))),
        Err(error) if error.kind() == ErrorKind::AddrInUse && running => None,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Some(missing(format!("{key}: another program uses port {port}: stop it, or choose another port")))
        }
        Err(error) => Some(missing(format!("{key}: port {port}: {error}"))),
    }
}

/// Whether the machine has the memory, if it says so. The daemon looks at this, too, before it starts:
/// what is claimed later than it is missed makes the kernel kill something.
pub fn memory(memory_kb: u32) -> Option<Finding> {
    crate::sys::proc::available_kb().map(|free| memory_of(free, memory_kb))
}

fn memory_of(free: u64, memory_kb: u32) -> Finding {
    let needed = u64::from(memory_kb) + PROCESS_KB;
    if free >= needed {
        return fine(format!("memory_kb: {needed} kB are needed, {free} kB are free"));
    }
    let fits = free.saturating_sub(PROCESS_KB);
    let least = u64::from(MEMORY_KB.0);
    let advice = match fits >= least {
        true => format!("set it to {fits} or less"),
        false => format!("{least} is the least, so other programs have to give some up"),
    };
    missing(format!(
        "memory_kb: {memory_kb} kB and {PROCESS_KB} kB beside are needed, only {free} kB are free: {advice}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_looked_at() {
        let dir = std::env::temp_dir().join(format!("hksvd-check-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("folder");
        std::fs::write(dir.join("a.h264"), b"x").expect("file");
        std::fs::write(dir.join("empty"), b"").expect("file");
        for (finding, level, part) in [
            (fifo("k", &dir.join("none")), Level::Missing, "k: there is no "),
            (fifo("k", &dir.join("a.h264")), Level::Missing, "is not a FIFO"),
            (file("k", &dir.join("a.h264")), Level::Fine, "k: file "),
            (file("k", &dir.join("empty")), Level::Missing, "is empty"),
            (file("k", &dir), Level::Missing, "is not a file"),
            (file("k", &dir.join("none")), Level::Missing, "No such file"),
            (state_dir(&dir), Level::Fine, "kB left"),
            (state_dir(&dir.join("new/er")), Level::Fine, "will be made"),
            (state_dir(&dir.join("a.h264/x")), Level::Missing, "cannot write"),
        ] {
            assert!(finding.level == level && finding.text.contains(part), "{finding:?}");
        }
        assert_eq!(std::fs::read_dir(&dir).expect("folder").count(), 2);
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    /// What Thingino's streamer makes by its own settings.
    fn stock() -> Seen {
        Seen {
            width: 1920,
            height: 1080,
            profile: "High",
            fps: 25.04,
            kbps: 1_500,
            gop_s: 1.2,
            has_b_frames: false,
            sound: "AAC-LC, 16000 Hz, 1 channel".into(),
            is_sound_recordable: true,
        }
    }

    fn judged(seen: &Seen, config: &Config) -> Vec<String> {
        let mut findings = Vec::new();
        judge(seen, config, &mut findings);
        findings.into_iter().filter(|finding| finding.level != Level::Fine).map(|finding| finding.text).collect()
    }

    #[test]
    fn a_daemon_that_has_just_begun_is_asked_again() {
        let status = |kbps: u32, fps: f32| {
            let source = format!("\"width\":640,\"height\":360,\"bitrate_kbps\":{kbps},\"fps\":{fps:?},\"gop_s\":2.0");
            format!("{{\"source\":{{{source}}}}}")
        };
        let asked = |answers: Vec<Option<String>>| {
            let mut answers = answers.into_iter().cycle();
            let mut times = 0;
            let last = status_when_measured(Duration::ZERO, &mut || {
                times += 1;
                answers.next().flatten()
            });
            (times, last.map(|last| seen_in(&last).0.kbps))
        };
        assert_eq!(asked(vec![None]), (1, None));
        assert_eq!(asked(vec![Some(status(900, 15.0))]), (1, Some(900)));
        assert_eq!(asked(vec![Some(status(0, 0.0)), Some(status(0, 15.0)), Some(status(900, 15.0))]), (3, Some(900)));
        assert_eq!(asked(vec![Some(status(0, 0.0)), None]), (2, Some(0)), "it has ended");
        assert_eq!(asked(vec![Some(status(900, 0.0))]), (LOOKS, Some(900)));
    }

    #[test]
    fn a_stream_is_judged() {
        let config = Config::default();
        let mut findings = Vec::new();
        judge(&stock(), &config, &mut findings);
        let said: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
        let video = "video: H.264 High, 1920x1080, 25.0 frames/s, 1500 kbit/s, a key frame every 1.2 s";
        assert_eq!(said, [video, "audio: AAC-LC, 16000 Hz, 1 channel"]);
        for (seen, part) in [
            (Seen { has_b_frames: true, ..stock() }, "B-frames"),
            (Seen { gop_s: 4.2, ..stock() }, "key frames are rare"),
            (Seen { gop_s: 0.0, ..stock() }, "key frames are rare"),
            (Seen { width: 1280, height: 960, ..stock() }, "is not 16:9"),
            (Seen { width: 2560, height: 1440, ..stock() }, "is more than 1920x1080"),
            (Seen { width: 853, height: 480, ..stock() }, "must be even"),
            (Seen { kbps: 3_000, ..stock() }, "memory_kb holds 4 s at 3000 kbit/s, recordings want 6 s: set it to "),
            (Seen { sound: String::new(), ..stock() }, "audio: none came"),
            (Seen { is_sound_recordable: false, ..stock() }, "recordings take AAC-LC of one channel"),
        ] {
            let said = judged(&seen, &config);
            assert!(said.len() == 1 && said[0].contains(part), "{part}: {said:?}");
        }
        let mut silent = Config::default();
        silent.audio.source = AudioSource::None;
        assert!(judged(&Seen { sound: String::new(), ..stock() }, &silent).is_empty());
    }

    #[test]
    fn what_is_proposed_is_a_configuration() {
        let config = Config::default();
        assert_eq!(proposal(&config, &stock(), "rtsp://…@127.0.0.1/ch0"), "{}");
        let large = Seen { kbps: 3_000, fps: 14.6, ..stock() };
        let text = proposal(&config, &large, "raptor:main");
        let proposed = Config::parse(&text).expect(&text);
        assert_eq!(proposed.video.fps, 15);
        assert_eq!(proposed.speaker.sink == SpeakerSink::Raptor, cfg!(feature = "opus"));
        assert!(judged(&large, &proposed).is_empty(), "{text}");
        // What no memory holds is left alone.
        let huge = proposal(&config, &Seen { kbps: 10_000_000, ..stock() }, "demo");
        assert_eq!(huge, "{}");
    }

    #[test]
    fn a_daemon_is_believed() {
        let status = r#"{"name":"x","source":{"spec":"raptor:main","state":"running","width":640,"height":360,
            "fps":25.0,"bitrate_kbps":700,"gop_s":1.200,"audio":"L16 8000 Hz, live view alone"},"warnings":["spec"]}"#;
        let mut findings = Vec::new();
        let (seen, video) = running(status, &mut findings).expect("a source");
        assert_eq!((seen.width, seen.height, seen.kbps, seen.is_sound_recordable), (640, 360, 700, false));
        assert!((seen.fps - 25.0).abs() < 0.01 && (seen.gop_s - 1.2).abs() < 0.01 && video == "raptor:main");
        for bad in ["", "{}", "[]", r#"{"source":[]}"#, r#"{"source":{"width":-1}}"#, r#"{"source":{"width":0}}"#] {
            let mut findings = Vec::new();
            assert!(running(bad, &mut findings).is_none() && findings[0].level == Level::Missing, "{bad}");
        }
    }

    #[test]
    fn a_port_in_use_is_missing_unless_it_is_ours() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let number = taken.local_addr().expect("address").port();
        assert_eq!(port("hap.port", number, false).map(|finding| finding.level), Some(Level::Missing));
        assert_eq!(port("hap.port", number, true), None);
    }

    #[test]
    fn memory_is_compared() {
        for (free, said) in [
            (4_096, "memory_kb: 4096 kB are needed, 4096 kB are free"),
            (4_095, "memory_kb: 2560 kB and 1536 kB beside are needed, only 4095 kB are free: set it to 2559 or less"),
            (2_304, "memory_kb: 2560 kB and 1536 kB beside are needed, only 2304 kB are free: set it to 768 or less"),
            (2_303, "only 2303 kB are free: 768 is the least, so other programs have to give some up"),
            (0, "only 0 kB are free: 768 is the least"),
        ] {
            let finding = memory_of(free, 2_560);
            assert_eq!(finding.level, if free >= 4_096 { Level::Fine } else { Level::Missing });
            assert!(finding.text.contains(said), "{}", finding.text);
        }
        assert_eq!(memory(0).map(|finding| finding.level), Some(Level::Fine));
        assert_eq!(memory(u32::MAX).map(|finding| finding.level), Some(Level::Missing));
    }
}
