//! The verbs that ask the running daemon.

use super::client::{Body, Client, NoAnswer, Request};
use super::{Args, Failure, print};
use crate::config::{Config, DEFAULT_PATH, DEFAULT_SOCKET, Level};
use crate::control::Qr;
use crate::control::qr::{Style, draw};
use crate::store::Store;
use std::ffi::OsStr;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket that was named, by the command line or the environment.
fn named_socket(args: &Args) -> Option<PathBuf> {
    let from_environment = || std::env::var_os("HKSVD_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from);
    args.path("socket").or_else(from_environment)
}

fn client(args: &Args) -> Client {
    Client::new(named_socket(args).unwrap_or_else(|| DEFAULT_SOCKET.into()))
}

fn text(mut body: Body) -> Result<String, Failure> {
    body.text(1 << 20).map_err(|error| broken_off(&error))
}

fn broken_off(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::UnexpectedEof => Failure::run("the daemon broke off in the middle; its log says why"),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::run("the daemon sends nothing more"),
        _ => Failure::run(error.to_string()),
    }
}

/// `status`
pub fn status(args: &Args) -> Result<(), Failure> {
    let accept = if args.has("json") { "application/json" } else { "text/plain" };
    let body = client(args).ask(Request { accept, ..Request::new("GET", "/status") })?;
    print(text(body)?.trim_end()).and_then(|()| print("\n"))
}

/// `identify`, `ring`
pub fn post(args: &Args, target: &str) -> Result<(), Failure> {
    client(args).ask(Request::new("POST", target)).map_err(Failure::from).and_then(text).map(drop)
}

/// `motion on`, `motion off`
pub fn motion(args: &Args) -> Result<(), Failure> {
    if let Some(option) = ["fps", "sensitivity", "hold"].into_iter().find(|option| args.has(option)) {
        return Err(Failure::usage(format!("--{option} belongs to `hksvd motion trace`")));
    }
    on_or_off(args, "/motion")
}

/// `motion on`, `privacy off`, …
pub fn on_or_off(args: &Args, target: &str) -> Result<(), Failure> {
    let method = match (args.operand(0), args.operands.len()) {
        ("on", 1) => "POST",
        ("off", 1) => "DELETE",
        _ => return Err(Failure::usage(format!("{0} needs on or off, see `hksvd {0} --help`", &target[1..]))),
    };
    client(args).ask(Request::new(method, target)).map_err(Failure::from).and_then(text).map(drop)
}

/// `log LEVEL`
pub fn log(args: &Args) -> Result<(), Failure> {
    let Some(level) = Level::named(args.operand(0)) else {
        return Err(Failure::usage("log needs a level: off, error, warn, info, debug, trace"));
    };
    let target = format!("/log?level={}", level.0.as_str().to_ascii_lowercase());
    client(args).ask(Request::new("PUT", &target)).map_err(Failure::from).and_then(text).map(drop)
}

/// `qr`
pub fn qr(args: &Args) -> Result<(), Failure> {
    let body = text(client(args).ask(Request::new("GET", "/qr"))?)?;
    let qr = Qr::parse(&body).ok_or_else(|| Failure::run("the daemon's answer is none"))?;
    let style = if args.has("ascii") { Style::Ascii } else { Style::Blocks };
    let picture = draw(&qr.setup_uri, style).unwrap_or_default();
    print(&format!("{picture}\nsetup code {}   {}\n", qr.setup_code, qr.setup_uri))?;
    match qr.paired {
        true => print("Already paired: the code works again after `hksvd reset`.\n"),
        false => Ok(()),
    }
}

/// `events`
pub fn events(args: &Args) -> Result<(), Failure> {
    let target = if args.has("history") { "/events?history=1" } else { "/events" };
    let mut body = client(args).ask(Request { patience: None, ..Request::new("GET", target) })?;
    let mut buffer = [0; 4_096];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            // A line comes in one piece: the daemon sends it as one chunk.
            Ok(len) => print(&String::from_utf8_lossy(&buffer[..len]))?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Failure::run("the daemon has ended"));
            }
            Err(error) => return Err(broken_off(&error)),
        }
    }
}

/// `snapshot FILE`
pub fn snapshot(args: &Args) -> Result<(), Failure> {
    let body = client(args).ask(Request::new("GET", "/snapshot"))?;
    save(body, &args.operands[0])
}

/// `clip FILE.mp4`
pub fn clip(args: &Args) -> Result<(), Failure> {
    let seconds = args.number("seconds", 1, u32::from(crate::control::request::CLIP_S))?.unwrap_or(10);
    let target = format!("/clip?seconds={seconds}");
    // Not armed, it begins with the next key frame; some encoders take 10 s to the next.
    let patience = Some(Duration::from_secs(60));
    let body = client(args).ask(Request { patience, ..Request::new("GET", &target) })?;
    save(body, &args.operands[0])
}

/// Writes the body to `file`, whole or not at all.
fn save(mut body: Body, file: &OsStr) -> Result<(), Failure> {
    let path = Path::new(file);
    if file == "-" || path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        // Standard output, a FIFO or a device: nothing to rename.
        let mut out: Box<dyn Write> = match file == "-" {
            true => Box::new(std::io::stdout().lock()),
            false => Box::new(std::fs::File::create(path).map_err(|error| at(path, &error))?),
        };
        return copy(&mut body, &mut out, path);
    }
    let mut part = file.to_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = (|| {
        let mut out = std::fs::File::create(&part).map_err(|error| at(&part, &error))?;
        copy(&mut body, &mut out, &part)?;
        std::fs::rename(&part, path).map_err(|error| at(path, &error))
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn copy(body: &mut Body, out: &mut dyn Write, path: &Path) -> Result<(), Failure> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return out.flush().map_err(|error| at(path, &error)),
            Ok(len) => out.write_all(&buffer[..len]).map_err(|error| at(path, &error))?,
            Err(error) => return Err(broken_off(&error)),
        }
    }
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::run(format!("{}: {error}", path.display()))
}

/// `reset`: by the daemon, or without one in its folder.
pub fn reset(args: &Args) -> Result<(), Failure> {
    if !args.has("yes") {
        ask_first()?;
    }
    let path = args.path("config");
    let load = |path: &Path| Config::load(path).map_err(|problem| Failure::config(problem.to_string()));
    // Whoever names a configuration means the daemon that runs with it.
    let configured = path.as_deref().map(load).transpose()?;
    let socket = named_socket(args).or_else(|| configured.as_ref().map(|(config, _)| config.control.socket.0.clone()));
    let client = Client::new(socket.unwrap_or_else(|| DEFAULT_SOCKET.into()));
    match client.ask(Request::new("POST", "/reset")) {
        Ok(body) => return text(body).map(drop),
        Err(NoAnswer::Failed(failure)) => return Err(failure),
        // A demo or another camera's daemon was named and is not there: its folder is not ours to guess.
        Err(NoAnswer::NotRunning(failure)) if path.is_none() && named_socket(args).is_some() => return Err(failure),
        Err(NoAnswer::NotRunning(_)) => {}
    }
    let (config, _) = match configured {
        Some(configured) => configured,
        None => load(Path::new(DEFAULT_PATH))?,
    };
    let dir = &config.state_dir.0;
    if !dir.exists() {
        return Ok(());
    }
    let (store, _) = Store::open(dir).map_err(|error| Failure::run(error.to_string()))?;
    store.reset().map_err(|error| Failure::run(error.to_string()))
}

fn ask_first() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("reset forgets every pairing: say --yes when nobody can be asked"));
    }
    eprint!("Forget every pairing and become a new camera? Type yes: ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && answer.trim() == "yes" {
        true => Ok(()),
        false => Err(Failure::run("nothing was reset")),
    }
}
