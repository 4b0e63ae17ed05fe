//! The verbs of the command line.

pub mod args;
pub mod board;
mod calls;
pub mod check;
mod client;
mod logging;
mod measure;
mod trace_file;

use crate::config::{Config, DEFAULT_PATH, FilePath, Name, SetupCode, SocketPath, VideoSource, keys};
use crate::daemon;
use crate::supervise::{self, Role};
use args::{Args, Command};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a verb was not done: a line for standard error and an exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// 1 failed at run time, 2 wrong arguments or configuration, 0 nobody listens any more.
    pub code: u8,
    /// What, where, what to do. Empty when all is said.
    pub text: String,
}

impl Failure {
    /// Failed at run time.
    pub fn run(text: impl Into<String>) -> Self {
        Failure { code: 1, text: format!("hksvd: {}", text.into()) }
    }

    /// Wrong arguments.
    pub fn usage(text: impl Into<String>) -> Self {
        Failure { code: 2, text: format!("hksvd: {}", text.into()) }
    }

    /// Wrong configuration: the line begins with the file's name, as editors expect it.
    pub fn config(text: impl Into<String>) -> Self {
        Failure { code: 2, text: text.into() }
    }

    /// Failed, and everything is said already.
    pub fn silent(code: u8) -> Self {
        Failure { code, text: String::new() }
    }
}

/// Runs the verb that the arguments name and returns its exit code.
pub fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(failure) => {
            if !failure.text.is_empty() {
                // Nobody reads standard error: then nobody can be told.
                let _ = writeln!(std::io::stderr(), "{}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch() -> Result<ExitCode, Failure> {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Do(args)) => args,
        Ok(Command::Help(text)) => return print(&text).map(|()| ExitCode::SUCCESS),
        Err(failure) => return Err(failure),
    };
    match args.verb.name {
        "run" => return run(&args),
        "demo" => return demo(&args),
        "check" => check::run(&args),
        "qr" => calls::qr(&args),
        "status" => calls::status(&args),
        "log" => calls::log(&args),
        "identify" => calls::post(&args, "/identify"),
        "ring" => calls::post(&args, "/doorbell"),
        "motion" if args.operand(0) == "trace" => trace_file::run(&args),
        "motion" => calls::motion(&args),
        "privacy" => calls::on_or_off(&args, "/privacy"),
        "events" => calls::events(&args),
        "snapshot" => calls::snapshot(&args),
        "clip" => calls::clip(&args),
        "reset" => calls::reset(&args),
        "print-config" if args.has("schema") => print(&keys::schema()),
        "print-config" => print(&keys::text()),
        _ => print(concat!("hksvd ", env!("CARGO_PKG_VERSION"), "\n")),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Prints and flushes. A reader that has gone ends the program quietly, as `head` expects.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::silent(0),
        _ => Failure::run(format!("standard output: {error}")),
    })
}

fn config_path(args: &Args) -> PathBuf {
    args.path("config").unwrap_or_else(|| DEFAULT_PATH.into())
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    if args.has("supervise") {
        // Before anything else is done: the parent keeps what this process has by now.
        match supervise::run().map_err(|error| Failure::run(format!("--supervise: {error}")))? {
            Role::Daemon => {}
            Role::Parent(code) => return Ok(ExitCode::from(code)),
        }
    }
    let path = config_path(args);
    let (config, unbuilt) = Config::load(&path).map_err(|problem| Failure::config(problem.to_string()))?;
    if let Some(problem) = unbuilt.first() {
        return Err(Failure::config(problem.to_string()));
    }
    if config.video.source == Some(VideoSource::Demo) {
        has_clip()?;
    }
    if let Some(finding) = check::memory(config.memory_kb).filter(|finding| finding.level == check::Level::Missing) {
        return Err(Failure::run(format!("{}: {}", path.display(), finding.text)));
    }
    // Without --supervise: whoever starts anew in the same process has the same parent.
    let again = vec!["run".into(), "--config".into(), path.clone().into()];
    logging::start(config.log.0);
    if args.has("supervise") {
        supervise::offer_to_oom_killer();
    }
    Ok(daemon::run(daemon::Options { config, config_path: Some(path), demo: false, again }))
}

fn demo(args: &Args) -> Result<ExitCode, Failure> {
    has_clip()?;
    let wrong = |option: &str, text: String| Failure::usage(format!("--{option} {text}"));
    let state_dir = match args.path("state-dir") {
        Some(dir) if dir.as_os_str().is_empty() => return Err(wrong("state-dir", "must be a path".into())),
        Some(dir) => dir,
        None => demo_dir(),
    };
    let socket = state_dir.join("hksvd.sock");
    let socket = socket.to_str().ok_or_else(|| wrong("state-dir", "must be UTF-8".into()))?;
    let socket =
        SocketPath::new(socket).map_err(|text| wrong("state-dir", format!("is too long: the socket {text}")))?;
    let mut config = Config {
        // Short and plain: it passes the checks of `Name`.
        name: Name::new("hksvd Demo").expect("a legal name"),
        state_dir: FilePath(state_dir),
        ..Config::default()
    };
    config.control.socket = socket;
    config.video.source = Some(VideoSource::Demo);
    config.hap.mdns = !args.has("no-mdns");
    if let Some(port) = args.number("port", 0, u32::from(u16::MAX))? {
        config.hap.port = port as u16;
    }
    if let Some(code) = args.text("setup-code")? {
        config.setup_code = Some(SetupCode::new(code).map_err(|text| wrong("setup-code", text))?);
    }
    let again = std::env::args_os().skip(1).collect();
    logging::start(config.log.0);
    Ok(daemon::run(daemon::Options { config, config_path: None, demo: true, again }))
}

fn has_clip() -> Result<(), Failure> {
    match cfg!(feature = "demo") {
        true => Ok(()),
        false => Err(Failure::usage("this build leaves the built-in clip out: set video.source and use `hksvd run`")),
    }
}

/// Where a demo keeps its pairings: they should last, or every start means pairing again.
fn demo_dir() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("hksvd-demo")
}

/// Reads a whole file.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::run(format!("{}: {error}", path.display())))
}
