//! The command line: verbs, their options, their help.

use super::Failure;
use crate::config::keys::nearest;
use lexopt::Arg;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;

/// A verb.
#[derive(Debug)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// Its operands as the help shows them.
    operands: &'static str,
    /// How many operands it takes at least and at most.
    count: (usize, usize),
    /// Its options.
    options: &'static [&'static str],
    /// One line.
    summary: &'static str,
    /// What else is to be said.
    more: &'static str,
}

/// An option.
struct Opt {
    name: &'static str,
    /// The value's name, empty for a switch.
    value: &'static str,
    help: &'static str,
}

const fn opt(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { name, value, help }
}

static OPTIONS: &[Opt] = &[
    opt("config", "FILE", "configuration (default /etc/hksvd.json)"),
    opt("supervise", "", "a parent process starts the daemon again after a crash"),
    opt(
        "state-dir",
        "DIR",
        "folder of identity, pairings and control socket (default: hksvd-demo in your state folder)",
    ),
    opt("port", "N", "TCP port of HomeKit (default 51826; 0: any free one)"),
    opt("setup-code", "XXX-XX-XXX", "code to type when pairing (default: drawn once)"),
    opt("no-mdns", "", "do not announce the camera"),
    opt("offline", "", "look at the configuration alone"),
    opt("socket", "PATH", "control socket of the daemon (default: HKSVD_SOCKET, or /run/hksvd.sock)"),
    opt("ascii", "", "draw with ASCII characters, twice as large"),
    opt("json", "", "every figure, for scripts"),
    opt("history", "", "begin with the last events, up to 64"),
    opt("seconds", "N", "length (default 10, at most 600)"),
    opt("fps", "N", "frame rate of the stream, 1 to 60"),
    opt("sensitivity", "N", "0 to 100 (default 50)"),
    opt("hold", "S", "seconds that motion stays on (default 10)"),
    opt("yes", "", "do not ask"),
    opt("schema", "", "as JSON Schema (draft 2020-12)"),
];

/// The verbs in the order of the help; the first is meant when none is named.
pub static VERBS: &[Verb] = &[
    Verb {
        name: "run",
        operands: "",
        count: (0, 0),
        options: &["config", "supervise"],
        summary: "serve in the foreground; also when no verb is given",
        more: "Ends on SIGTERM. The log goes to stderr. A terminal shows the QR code, too, while nobody has paired.\n\
               With --supervise a small parent process waits beside the daemon, for an init that does not:\n\
               after a crash (a signal, exit code 1) it starts it again, 1 s later at first, 60 s at most.",
    },
    Verb {
        name: "demo",
        operands: "",
        count: (0, 0),
        options: &["state-dir", "port", "setup-code", "no-mdns"],
        summary: "serve a built-in clip with sound: no camera, no configuration",
        more: "The control socket is DIR/hksvd.sock.",
    },
    Verb {
        name: "check",
        operands: "",
        count: (0, 0),
        options: &["config", "offline"],
        summary: "say what is wrong with the configuration and the camera",
        more: "Exit code: 0 all well, 1 something of the camera is missing, 2 the configuration is wrong.",
    },
    Verb {
        name: "qr",
        operands: "",
        count: (0, 0),
        options: &["socket", "ascii"],
        summary: "show the QR code to pair with",
        more: "",
    },
    Verb {
        name: "status",
        operands: "",
        count: (0, 0),
        options: &["socket", "json"],
        summary: "show what the daemon does",
        more: "",
    },
    Verb {
        name: "log",
        operands: "LEVEL",
        count: (1, 1),
        options: &["socket"],
        summary: "set the log level: off, error, warn, info, debug, trace",
        more: "Lasts until the daemon ends. At debug one recording can be followed line by line.",
    },
    Verb {
        name: "identify",
        operands: "",
        count: (0, 0),
        options: &["socket"],
        summary: "make the camera show which one it is",
        more: "",
    },
    Verb {
        name: "motion",
        operands: "on|off|trace FILE",
        count: (1, 2),
        options: &["socket", "fps", "sensitivity", "hold"],
        summary: "set motion, or replay a stream through the detector",
        more: "`motion on` lasts until `motion off` or motion.hold_s seconds after the last `motion on`.\n\
               `motion trace FILE --fps N` needs no daemon: FILE is Annex-B H.264, each line is\n\
               frame,time_s,key,bytes,baseline,level,motion",
    },
    Verb {
        name: "privacy",
        operands: "on|off",
        count: (1, 1),
        options: &["socket"],
        summary: "switch the camera off for HomeKit, at the camera",
        more: "Lasts over restarts. Only `privacy off` ends it; a switch at the camera (privacy.switch) counts beside it.",
    },
    Verb { name: "ring", operands: "", count: (0, 0), options: &["socket"], summary: "ring the doorbell", more: "" },
    Verb {
        name: "events",
        operands: "",
        count: (0, 0),
        options: &["socket", "history"],
        summary: "print events as they happen, one JSON object a line",
        more: "",
    },
    Verb {
        name: "snapshot",
        operands: "FILE",
        count: (1, 1),
        options: &["socket"],
        summary: "write a still picture; - is standard output",
        more: "",
    },
    Verb {
        name: "clip",
        operands: "FILE.mp4",
        count: (1, 1),
        options: &["socket", "seconds"],
        summary: "write what a hub would get now; - is standard output",
        more: "When recording is not armed it begins with the next key frame.",
    },
    Verb {
        name: "reset",
        operands: "",
        count: (0, 0),
        options: &["socket", "yes", "config"],
        summary: "factory reset: forget pairings, become a new camera",
        more: "Without a running daemon it resets the state_dir of the configuration.",
    },
    Verb {
        name: "print-config",
        operands: "",
        count: (0, 0),
        options: &["schema"],
        summary: "every configuration key with its default and its description",
        more: "",
    },
    Verb { name: "version", operands: "", count: (0, 0), options: &[], summary: "print the version", more: "" },
];

/// What was typed.
#[derive(Debug)]
pub struct Args {
    /// The verb.
    pub verb: &'static Verb,
    /// What stands behind it.
    pub operands: Vec<OsString>,
    given: Vec<(&'static str, OsString)>,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// A verb.
    Do(Args),
    /// Show this text.
    Help(String),
}

fn verb(word: &OsStr) -> Result<&'static Verb, Failure> {
    let word = word.to_string_lossy();
    VERBS.iter().find(|verb| verb.name == word).ok_or_else(|| {
        let near = nearest(&word, VERBS.iter().map(|verb| verb.name));
        let hint = near.map_or("`hksvd --help` lists them".into(), |near| format!("did you mean \"{near}\"?"));
        Failure::usage(format!("unknown verb \"{}\", {hint}", word.escape_debug()))
    })
}

/// Reads the command line, program name left out.
///
/// # Errors
/// One line about the first thing that is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut words: Vec<OsString> = Vec::new();
    let mut given: Vec<(&'static str, OsString)> = Vec::new();
    let (mut help, mut version) = (false, false);
    while let Some(arg) = parser.next().map_err(|error| Failure::usage(error.to_string()))? {
        let option = match arg {
            Arg::Short('h') | Arg::Long("help") => {
                help = true;
                continue;
            }
            Arg::Short('V') | Arg::Long("version") => {
                version = true;
                continue;
            }
            Arg::Value(word) => {
                words.push(word);
                continue;
            }
            Arg::Short(letter) => return Err(Failure::usage(format!("unknown option -{letter}, see `hksvd --help`"))),
            Arg::Long(name) => OPTIONS.iter().find(|option| option.name == name).ok_or_else(|| {
                let near = nearest(name, OPTIONS.iter().map(|option| option.name));
                let hint = near.map_or("see `hksvd --help`".into(), |near| format!("did you mean --{near}?"));
                Failure::usage(format!("unknown option --{}, {hint}", name.escape_debug()))
            })?,
        };
        if given.iter().any(|(name, _)| *name == option.name) {
            return Err(Failure::usage(format!("--{} stands there twice", option.name)));
        }
        let value = match option.value {
            "" => OsString::new(),
            what => parser.value().map_err(|_| Failure::usage(format!("--{} needs a value: {what}", option.name)))?,
        };
        given.push((option.name, value));
    }
    let mut words = words.into_iter();
    let first = words.next();
    if first.as_deref() == Some(OsStr::new("help")) {
        return Ok(Command::Help(match words.next() {
            Some(word) => verb_help(verb(&word)?),
            None => general_help(),
        }));
    }
    let named = first.as_deref().map(verb).transpose()?;
    if help {
        return Ok(Command::Help(named.map_or_else(general_help, verb_help)));
    }
    let verb = match version {
        true => verb(OsStr::new("version"))?,
        false => named.unwrap_or(&VERBS[0]),
    };
    if let Some((name, _)) = given.iter().find(|(name, _)| !verb.options.contains(name)) {
        return Err(Failure::usage(format!("{} takes no --{name}, see `hksvd {} --help`", verb.name, verb.name)));
    }
    let operands: Vec<OsString> = words.collect();
    if operands.len() < verb.count.0 {
        return Err(Failure::usage(format!("{} needs {}, see `hksvd {} --help`", verb.name, verb.operands, verb.name)));
    }
    if let Some(extra) = operands.get(verb.count.1) {
        let extra = extra.to_string_lossy();
        return Err(Failure::usage(format!("{}: unexpected \"{}\"", verb.name, extra.escape_debug())));
    }
    Ok(Command::Do(Args { verb, operands, given }))
}

impl Args {
    /// Whether the switch is there.
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// The option's value as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.into())
    }

    /// The option's value as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        let value = self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value);
        let text = value.map(|value| value.to_str().ok_or_else(|| Failure::usage(format!("--{name} is not UTF-8"))));
        text.transpose()
    }

    /// The option's value as a number within bounds, both included.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, Failure> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| Failure::usage(format!("--{name} must be a number from {least} to {most}")))
    }

    /// The operand as text, empty when there is none.
    pub fn operand(&self, at: usize) -> &str {
        self.operands.get(at).and_then(|word| word.to_str()).unwrap_or("")
    }
}

fn general_help() -> String {
    let mut out = String::from("HomeKit Secure Video on the camera itself.\n\nUsage: hksvd [VERB] [OPTIONS]\n\n");
    for verb in VERBS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {:<28}{}", format!("{} {}", verb.name, verb.operands), verb.summary);
    }
    out.push_str("\n`hksvd VERB --help` says more. Exit code: 0 done, 1 failed, 2 wrong arguments or configuration.\n");
    out
}

fn verb_help(verb: &'static Verb) -> String {
    let mut out = format!("Usage: hksvd {}", verb.name);
    if !verb.operands.is_empty() {
        let _ = write!(out, " {}", verb.operands);
    }
    let options = || OPTIONS.iter().filter(|option| verb.options.contains(&option.name));
    for option in options() {
        let space = if option.value.is_empty() { "" } else { " " };
        let _ = write!(out, " [--{}{space}{}]", option.name, option.value);
    }
    let _ = write!(out, "\n\n{}.\n", verb.summary);
    if !verb.more.is_empty() {
        let _ = writeln!(out, "{}", verb.more);
    }
    if !verb.options.is_empty() {
        out.push('\n');
    }
    for option in options() {
        let _ = writeln!(out, "  {:<26}{}", format!("--{} {}", option.name, option.value), option.help);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Args, String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Command::Do(args)) => Ok(args),
            Ok(Command::Help(text)) => Err(format!("help: {text}")),
            Err(failure) => {
                assert_eq!(failure.code, 2);
                Err(failure.text.replacen("hksvd: ", "", 1))
            }
        }
    }

    #[test]
    fn the_socket_may_stand_before_or_after_the_verb() {
        for line in ["--socket /s status --json", "status --json --socket /s", "status --socket=/s --json"] {
            let args = args(line).expect(line);
            assert_eq!((args.verb.name, args.path("socket"), args.has("json")), ("status", Some("/s".into()), true));
        }
    }

    #[test]
    fn no_verb_is_run() {
        assert_eq!(args("").expect("run").verb.name, "run");
        let args = args("--config /c").expect("run");
        assert_eq!((args.verb.name, args.path("config")), ("run", Some("/c".into())));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (line, said) in [
            ("staus", "unknown verb \"staus\", did you mean \"status\"?"),
            ("frobnicate", "unknown verb \"frobnicate\", `hksvd --help` lists them"),
            ("run --conifg x", "unknown option --conifg, did you mean --config?"),
            ("run -x", "unknown option -x, see `hksvd --help`"),
            ("status --config x", "status takes no --config, see `hksvd status --help`"),
            ("run --config", "--config needs a value: FILE"),
            ("run --config a --config b", "--config stands there twice"),
            ("snapshot", "snapshot needs FILE, see `hksvd snapshot --help`"),
            ("ring ring", "ring: unexpected \"ring\""),
        ] {
            assert_eq!(args(line).expect_err(line), said);
        }
        assert!(args("status --json=1").is_err());
        let args = args("clip x --seconds 601").expect("parsed");
        assert_eq!(
            args.number("seconds", 1, 600).expect_err("601").text,
            "hksvd: --seconds must be a number from 1 to 600"
        );
    }

    #[test]
    fn every_level_has_help() {
        for verb in VERBS {
            for line in [format!("{} --help", verb.name), format!("-h {}", verb.name), format!("help {}", verb.name)] {
                let help = args(&line).expect_err("help");
                assert!(help.starts_with(&format!("help: Usage: hksvd {}", verb.name)), "{help}");
                assert!(help.lines().all(|line| line.chars().count() < 120), "{help}");
            }
            for option in verb.options {
                assert!(OPTIONS.iter().any(|known| known.name == *option), "{option}");
            }
        }
        let help = args("--help").expect_err("help");
        assert!(VERBS.iter().all(|verb| help.contains(&format!("\n  {} ", verb.name))), "{help}");
    }
}
