//! `hksvd check`: what is wrong with the configuration, and what of the camera is missing.

use super::client::{Client, Request};
use super::{Args, Failure, config_path, print};
use crate::config::keys::MEMORY_KB;
use crate::config::{AudioSource, Config, SnapshotSource, Url, VideoSource};
use crate::control::status;
use crate::time::Duration;
use std::fmt::Write;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Fine,
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
    let mut findings = vec![fine(format!("configuration {}", path.display()))];
    if !args.has("offline") {
        findings.extend(camera(&config));
    }
    let mut out = String::new();
    for finding in &findings {
        let word = if finding.level == Level::Fine { "ok" } else { "missing" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{word:<8} {}", finding.text);
    }
    print(&out)?;
    match findings.iter().any(|finding| finding.level == Level::Missing) {
        true => Err(Failure::silent(1)),
        false => Ok(()),
    }
}

/// Looks at everything that the configuration needs of this camera.
pub fn camera(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = super::board::preset().map(fine).into_iter().collect();
    findings.push(match &config.video.source {
        None => missing("video.source: not set, and looking for the camera's own stream comes later: name one"),
        Some(VideoSource::Fifo(path) | VideoSource::YiFifo(path)) => fifo("video.source", path),
        Some(VideoSource::Yi(..)) => yi("video.source"),
        Some(VideoSource::File(path)) => file("video.source", path),
        Some(VideoSource::Demo) if cfg!(feature = "demo") => fine("video.source: the built-in clip"),
        Some(VideoSource::Demo) => missing("video.source: this build has no built-in clip: name another source"),
        Some(VideoSource::Rtsp(url)) => rtsp("video.source", url),
        Some(other) => missing(format!("video.source: {other} comes with a later version")),
    });
    match &config.video.live_source {
        Some(VideoSource::Fifo(path) | VideoSource::YiFifo(path)) => findings.push(fifo("video.live_source", path)),
        Some(VideoSource::Yi(..)) => findings.push(yi("video.live_source")),
        Some(VideoSource::File(path)) => findings.push(file("video.live_source", path)),
        Some(VideoSource::Rtsp(url)) => findings.push(rtsp("video.live_source", url)),
        _ => {}
    }
    match &config.audio.source {
        AudioSource::Auto | AudioSource::None => {}
        AudioSource::Fifo(path) => findings.push(fifo("audio.source", path)),
        AudioSource::File(path) => findings.push(file("audio.source", path)),
    }
    if let SnapshotSource::File(path) = &config.snapshot.source {
        findings.push(file("snapshot.source", path));
    }
    findings.push(state_dir(&config.state_dir.0));
    let (running, said) = daemon(&config.control.socket.0);
    findings.extend(said);
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
    findings
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
    file(key, Path::new("/dev/shm/fshare_frame_buf"))
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

/// Whether the daemon runs, and what it has to say.
fn daemon(socket: &Path) -> (bool, Vec<Finding>) {
    let place = socket.display();
    let Ok(body) = Client::new(socket.into()).ask(Request::new("GET", "/status")) else {
        let dir = socket.parent().filter(|dir| !dir.as_os_str().is_empty());
        return match dir.is_none_or(Path::is_dir) {
            true => (false, vec![fine(format!("control.socket: {place}, no daemon is running"))]),
            false => (false, vec![missing(format!("control.socket: there is no folder for {place}"))]),
        };
    };
    let mut text = String::new();
    // What cannot be read has no warnings.
    let _ = body.take(1 << 20).read_to_string(&mut text);
    let mut findings = vec![fine(format!("control.socket: a daemon is running at {place}"))];
    let _ = status::warnings(&text, &mut |warning| findings.push(missing(warning.to_owned())));
    (true, findings)
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
