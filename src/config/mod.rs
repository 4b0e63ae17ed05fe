//! The configuration: JSON in, checked types out. Nothing reads the file after start.
//!
//! [`keys`] holds names, defaults and descriptions, [`values`] and [`sources`] the types that a value can have.

pub mod keys;
mod place;
mod read;
pub mod sources;
pub mod values;

use crate::wire::json;
use place::Place;
use read::Reading;
pub use sources::*;
use std::fmt;
use std::path::{Path, PathBuf};
pub use values::*;

/// Where the configuration lies when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/hksvd.json";
/// Where the control socket lies when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hksvd.sock";

/// A file longer than this is no configuration.
const LARGEST: u64 = 64 * 1024;

/// Everything that can be configured; [`keys::KEYS`] describes each field. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `name`
    pub name: Name,
    /// `setup_code`; `None`: drawn once and kept in the store
    pub setup_code: Option<SetupCode>,
    /// `state_dir`
    pub state_dir: FilePath,
    /// `log`
    pub log: Level,
    /// `hap.…`
    pub hap: Hap,
    /// `control.…`
    pub control: Control,
    /// `memory_kb`
    pub memory_kb: u32,
    /// `video.…`
    pub video: Video,
    /// `audio.…`
    pub audio: Audio,
    /// `snapshot.…`
    pub snapshot: Snapshot,
    /// `speaker.…`
    pub speaker: Speaker,
    /// `motion.…`
    pub motion: Motion,
    /// `doorbell` or `doorbell.…`
    pub doorbell: Doorbell,
    /// `chime.…`
    pub chime: Chime,
    /// `privacy.…`
    pub privacy: Privacy,
    /// `led.…`
    pub led: Led,
    /// `hooks.…`
    pub hooks: Hooks,
}

/// HomeKit's network side.
#[derive(Debug, Clone, PartialEq)]
pub struct Hap {
    /// `hap.port`; 0: any free one
    pub port: u16,
    /// `hap.interfaces`; empty: all but loopback
    pub interfaces: Vec<Interface>,
    /// `hap.mdns`
    pub mdns: bool,
}

/// The control interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// `control.socket`
    pub socket: SocketPath,
    /// `control.listen`
    pub listen: Option<Listen>,
    /// `control.token`
    pub token: Option<Token>,
}

/// The video stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    /// `video.live_source`
    pub live_source: Option<VideoSource>,
    /// `video.source`; `None`: look for what the camera has
    pub source: Option<VideoSource>,
    /// `video.fps`
    pub fps: u8,
    /// `video.pacing_percent`
    pub pacing_percent: u8,
}

/// The sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// `audio.source`
    pub source: AudioSource,
    /// `audio.codec`
    pub codec: AudioCodec,
    /// `audio.rate_hz`
    pub rate_hz: u32,
    /// `audio.silent_track`
    pub silent_track: bool,
}

/// Still pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// `snapshot.source`
    pub source: SnapshotSource,
}

/// Talk-back.
#[derive(Debug, Clone, PartialEq)]
pub struct Speaker {
    /// `speaker.sink`
    pub sink: SpeakerSink,
    /// `speaker.rate_hz`
    pub rate_hz: u32,
}

impl Speaker {
    /// The rate that the sink takes: a back channel has its own.
    pub fn sink_rate_hz(&self) -> u32 {
        if self.sink == SpeakerSink::Rtsp { crate::rtsp::talk::RATE_HZ } else { self.rate_hz }
    }
}

/// Motion.
#[derive(Debug, Clone, PartialEq)]
pub struct Motion {
    /// `motion.mode`
    pub mode: MotionMode,
    /// `motion.sensitivity`
    pub sensitivity: u8,
    /// `motion.hold_s`
    pub hold_s: u16,
    /// `motion.onvif_url`
    pub onvif_url: Option<Url>,
}

/// The bell.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Doorbell {
    /// Whether this camera is a video doorbell.
    pub present: bool,
    /// `doorbell.button`
    pub button: Option<Button>,
    /// `doorbell.presses`: tell double and long ones from single ones.
    pub all_presses: bool,
    /// `doorbell.reset_s`; 0: never.
    pub reset_s: u8,
}

/// What is heard of the bell.
#[derive(Debug, Clone, PartialEq)]
pub struct Chime {
    /// `chime.output`
    pub output: Option<Output>,
    /// `chime.pulse_ms`
    pub pulse_ms: u16,
}

/// Off at the camera.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Privacy {
    /// `privacy.switch`
    pub switch: Option<Button>,
}

/// The lights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Led {
    /// `led.status`
    pub status: Option<Output>,
}

/// Commands to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hooks {
    /// `hooks.night_vision`
    pub night_vision: Option<Command>,
    /// `hooks.camera_active`
    pub camera_active: Option<Command>,
    /// `hooks.keyframe`
    pub keyframe: Option<Command>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            // Short and plain: it passes the checks of `Name`.
            name: Name::new("Camera").expect("a legal name"),
            setup_code: None,
            state_dir: FilePath("/etc/hksvd".into()),
            log: Level(log::LevelFilter::Info),
            hap: Hap::default(),
            control: Control::default(),
            memory_kb: 2_560,
            video: Video::default(),
            audio: Audio::default(),
            snapshot: Snapshot::default(),
            speaker: Speaker::default(),
            motion: Motion::default(),
            doorbell: Doorbell::default(),
            chime: Chime::default(),
            privacy: Privacy::default(),
            led: Led::default(),
            hooks: Hooks::default(),
        }
    }
}

impl Default for Hap {
    fn default() -> Self {
        Hap { port: 51_826, interfaces: Vec::new(), mdns: true }
    }
}

impl Default for Control {
    fn default() -> Self {
        Control { socket: SocketPath(DEFAULT_SOCKET.into()), listen: None, token: None }
    }
}

impl Default for Video {
    fn default() -> Self {
        Video { live_source: None, source: None, fps: 25, pacing_percent: 50 }
    }
}

impl Default for Audio {
    fn default() -> Self {
        Audio { source: AudioSource::Auto, codec: AudioCodec::Aac, rate_hz: 16_000, silent_track: false }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot { source: SnapshotSource::Auto }
    }
}

impl Default for Speaker {
    fn default() -> Self {
        Speaker { sink: SpeakerSink::None, rate_hz: 16_000 }
    }
}

impl Default for Chime {
    fn default() -> Self {
        Chime { output: None, pulse_ms: 500 }
    }
}

impl Default for Motion {
    fn default() -> Self {
        Motion { mode: MotionMode::Detect, sensitivity: 50, hold_s: 10, onvif_url: None }
    }
}

/// What is wrong with a configuration, and where: `FILE:12:15: video.fsp: unknown key, …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    path: Option<PathBuf>,
    place: Option<Place>,
    text: String,
}

impl Problem {
    fn at(place: Place, text: impl Into<String>) -> Self {
        Problem { path: None, place: Some(place), text: text.into() }
    }

    fn of_file(path: &Path, text: impl Into<String>) -> Self {
        Problem { path: Some(path.into()), place: None, text: text.into() }
    }

    fn within(mut self, path: &Path) -> Self {
        self.path = Some(path.into());
        self
    }

    fn from_json(text: &str, error: json::read::Error) -> Self {
        let place = place::token_before(text, error.line, error.column);
        if error.is_data {
            return Problem::at(place, error.text);
        }
        // The parser's own place: the token before it is the one that was still right.
        let place = Place { line: error.line, column: error.column.max(1), ..place };
        Problem::at(place, format!("not JSON: {}", error.text))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}:", path.display())?;
        }
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        if self.path.is_some() || self.place.is_some() {
            f.write_str(" ")?;
        }
        if let Some(Place { key, .. }) = &self.place
            && !key.is_empty()
        {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

impl Config {
    /// Reads a configuration from its text, which a person then can serve with, provided that
    /// [`Config::unbuilt`] has nothing to say.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut reading = Reading::default();
        json::read::read(text.as_bytes(), &mut |event| reading.handle(event))
            .map_err(|error| Problem::from_json(text, error))?;
        let config = reading.config;
        if let Some(listen) = config.control.listen
            && !listen.is_loopback()
            && config.control.token.is_none()
        {
            let place = place::value_of(text, "control.listen");
            return Err(Problem::at(place, "others can reach this address: set control.token, or listen on 127.0.0.1"));
        }
        Ok(config)
    }

    /// Reads the configuration file, with everything in it that this version cannot do yet.
    ///
    /// # Errors
    /// One line for a person: the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<(Self, Vec<Problem>), Problem> {
        let text = read(path)?;
        let config = Config::parse(&text).map_err(|problem| problem.within(path))?;
        let unbuilt = config.unbuilt(&text).into_iter().map(|problem| problem.within(path)).collect();
        Ok((config, unbuilt))
    }

    /// What the configuration asks for and this version cannot do yet: one problem each. `text` is
    /// what was parsed, for the places.
    pub fn unbuilt(&self, text: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut later = |key: &str, what: &str| {
            let problem = format!("{what} comes with a later version of hksvd");
            problems.push(Problem::at(place::value_of(text, key), problem));
        };
        match &self.speaker.sink {
            SpeakerSink::None => {}
            _ if !cfg!(feature = "opus") => later("speaker.sink", "talk-back without the feature \"opus\""),
            _ => {}
        }
        match self.motion.mode {
            MotionMode::Firmware => later("motion.mode", "\"firmware\""),
            MotionMode::Onvif => later("motion.mode", "\"onvif\""),
            MotionMode::Detect | MotionMode::Continuous | MotionMode::Api | MotionMode::Off => {}
        }
        if matches!(self.audio.source, AudioSource::File(_))
            && !matches!(self.video.source, None | Some(VideoSource::File(_)))
        {
            let why = "a file with sound is played with a file: of video.source only: use a FIFO, or auto";
            problems.push(Problem::at(place::value_of(text, "audio.source"), why));
        }
        if self.audio.codec == AudioCodec::Opus {
            let why = "nothing says where an Opus packet ends in a FIFO or a file: deliver AAC-LC in ADTS";
            problems.push(Problem::at(place::value_of(text, "audio.codec"), why));
        }
        let has_back_channel = matches!(self.video.source, None | Some(VideoSource::Rtsp(_)));
        if self.speaker.sink == SpeakerSink::Rtsp && !has_back_channel {
            let why = "rtsp is the back channel of video.source, which is no rtsp://…";
            problems.push(Problem::at(place::value_of(text, "speaker.sink"), why));
        }
        problems
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    use std::io::Read;
    // Everything has a default, and the source is found.
    if path == Path::new(DEFAULT_PATH) && !path.exists() {
        return Ok("{}".into());
    }
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Problem::of_file(
            path,
            "no such file: write one (`hksvd print-config` shows every key), or try `hksvd demo`",
        ),
        _ => Problem::of_file(path, format!("cannot read the configuration: {error}")),
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Problem::of_file(path, "longer than 64 KiB, not a configuration"));
    }
    String::from_utf8(bytes).map_err(|_| Problem::of_file(path, "not UTF-8 text: save it as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Config::parse(text).expect_err(text).to_string()
    }

    /// The configuration that the key table describes as the default.
    fn defaults_of_the_table() -> String {
        let mut sections: Vec<(&str, Vec<String>)> = Vec::new();
        let mut top = Vec::new();
        for key in keys::KEYS {
            let entry = format!("\"{}\": {}", key.name(), key.default);
            match sections.last_mut() {
                _ if key.section().is_empty() => top.push(entry),
                Some((section, entries)) if *section == key.section() => entries.push(entry),
                _ => sections.push((key.section(), vec![entry])),
            }
        }
        top.extend(sections.iter().map(|(name, entries)| format!("\"{name}\": {{ {} }}", entries.join(", "))));
        format!("{{ {} }}", top.join(",\n"))
    }

    #[test]
    fn the_table_and_the_types_agree_on_defaults() {
        assert_eq!(Config::parse(&defaults_of_the_table()), Ok(Config::default()));
        assert_eq!(Config::parse("{}"), Ok(Config::default()));
    }

    /// For each key a value that is not its default.
    const OTHERS: &[(&str, &str)] = &[
        ("name", "\"Door\""),
        ("setup_code", "\"031-45-154\""),
        ("state_dir", "\"/x\""),
        ("log", "\"warn\""),
        ("hap.port", "7"),
        ("hap.interfaces", "[\"lo\", \"eth0\"]"),
        ("hap.mdns", "false"),
        ("control.socket", "\"/x\""),
        ("control.listen", "\"127.0.0.1:7\""),
        ("control.token", "\"12345678\""),
        ("memory_kb", "1000"),
        ("video.live_source", "\"raptor:sub\""),
        ("video.source", "\"demo\""),
        ("video.fps", "7"),
        ("video.pacing_percent", "7"),
        ("audio.source", "\"none\""),
        ("audio.codec", "\"opus\""),
        ("audio.rate_hz", "8000"),
        ("audio.silent_track", "true"),
        ("snapshot.source", "\"file:x\""),
        ("speaker.sink", "\"raptor\""),
        ("speaker.rate_hz", "8000"),
        ("motion.mode", "\"api\""),
        ("motion.sensitivity", "7"),
        ("motion.hold_s", "7"),
        ("motion.onvif_url", "\"http://x\""),
        ("doorbell.button", "\"sysfs:1\""),
        ("doorbell.presses", "\"all\""),
        ("doorbell.reset_s", "7"),
        ("chime.output", "\"sysfs:1\""),
        ("chime.pulse_ms", "7"),
        ("privacy.switch", "\"sysfs:1\""),
        ("led.status", "\"sysfs:1\""),
        ("hooks.night_vision", "\"x\""),
        ("hooks.camera_active", "\"x\""),
        ("hooks.keyframe", "\"x\""),
    ];

    fn with(path: &str, value: &str) -> String {
        match path.split_once('.') {
            Some((section, name)) => format!("{{\"{section}\": {{\"{name}\": {value}}}}}"),
            None => format!("{{\"{path}\": {value}}}"),
        }
    }

    #[test]
    fn every_key_of_the_table_sets_a_value_of_its_own() {
        let paths: Vec<&str> = OTHERS.iter().map(|(path, _)| *path).collect();
        let table: Vec<&str> = keys::KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths, table);
        let mut configs = vec![Config::default()];
        for (path, value) in OTHERS {
            let config = Config::parse(&with(path, value)).expect(path);
            assert!(!configs.contains(&config), "{path}");
            configs.push(config);
        }
        assert!(format!("{:?}", configs[1]).contains("name: Name(\"Door\")"));
        assert_eq!(configs[6].hap.interfaces, ["lo", "eth0"].map(|name| Interface(name.into())));
    }

    #[test]
    fn values_of_another_type_are_refused_for_every_key() {
        for key in keys::KEYS {
            let others: &[&str] = match key.kind {
                keys::Kind::Switch => &["1", "\"x\"", "[]", "{}", "null"],
                keys::Kind::List(_) => &["1", "\"x\"", "true", "{}", "null", "[1]", "[[]]", "[null]"],
                keys::Kind::Integer(..) | keys::Kind::Number(_) => &["true", "\"x\"", "[]", "{}", "null", "1.5"],
                _ => &["true", "1", "[]", "{}"],
            };
            for other in others {
                let said = refused(&with(key.path, other));
                assert!(said.contains(&format!("{}: wrong type, expected ", key.path)), "{said}");
            }
            if matches!(key.kind, keys::Kind::Text(_) | keys::Kind::Pattern(_) | keys::Kind::Choice(_)) {
                let nullable = Config::parse(&with(key.path, "null")).is_ok();
                assert_eq!(nullable, key.default == "null", "{}", key.path);
            }
        }
        let nine = format!("[{}]", ["\"lo\""; 9].join(", "));
        assert!(refused(&with("hap.interfaces", &nine)).ends_with("hap.interfaces: must be at most 8 names"));
    }

    #[test]
    fn bounds_of_the_table_are_the_bounds_of_the_types() {
        for key in keys::KEYS {
            let keys::Kind::Integer(least, most) = key.kind else { continue };
            for (value, fits) in [
                (i64::from(least), true),
                (i64::from(most), true),
                (i64::from(least) - 1, false),
                (i64::from(most) + 1, false),
            ] {
                assert_eq!(Config::parse(&with(key.path, &value.to_string())).is_ok(), fits, "{} {value}", key.path);
            }
        }
    }

    #[test]
    fn errors_name_line_column_and_key() {
        let text = "{\n  \"name\": \"Door\",\n  \"video\": { \"fsp\": 25 }\n}";
        assert_eq!(refused(text), "3:14: video.fsp: unknown key, did you mean \"fps\"?");
        let text = "{\n  \"video\": {\n    \"fps\": 0\n  }\n}";
        assert_eq!(refused(text), "3:12: video.fps: must be a whole number from 1 to 60");
        assert_eq!(refused("{\"name\": 5}"), "1:10: name: wrong type, expected a text");
        assert_eq!(refused("{\"name\": {\"a\":1}}"), "1:2: name: wrong type, expected a text");
        assert_eq!(refused("{\"hap\": 5}"), "1:9: hap: wrong type, expected an object");
        assert_eq!(refused("{\"hap\":{\"port\":1,\"port\":2}}"), "1:18: hap.port: stands here a second time");
        assert_eq!(refused("{\"hap\":{\"mdns\":\"yes\"}}"), "1:16: hap.mdns: wrong type, expected true or false");
        assert_eq!(
            refused("{\"hap\":{\"interfaces\":[\"eth0\", \"a/b\"]}}"),
            "1:31: hap.interfaces: must be the name of a network interface"
        );
        assert_eq!(
            refused("{\"hap\":{\"port\":51826.5}}"),
            "1:16: hap.port: wrong type, expected a whole number from 0 to 65535"
        );
        assert_eq!(refused("{\"doorbell\":7}"), "1:13: doorbell: wrong type, expected true, false or an object");
        assert_eq!(
            refused("{\"doorbell\":{\"buton\":1}}"),
            "1:14: doorbell.buton: unknown key, did you mean \"button\"?"
        );
        assert_eq!(
            refused("{\"audio\":{\"rate_hz\":11025}}"),
            "1:21: audio.rate_hz: must be one of 8000, 16000, 24000, 32000, 44100, 48000"
        );
        assert_eq!(
            refused("{\"speaker\":{\"rate_hz\":11025}}"),
            "1:23: speaker.rate_hz: must be one of 8000, 16000, 24000, 32000, 44100, 48000"
        );
    }

    #[test]
    fn broken_json_is_said_at_its_place() {
        assert!(refused("").starts_with("1:1: not JSON: EOF"), "{}", refused(""));
        let said = refused("{\n  \"name\": \"x\"\n  \"log\": \"info\"\n}");
        assert!(said.starts_with("3:3: ") && said.contains("not JSON: expected `,` or `}`"), "{said}");
        assert!(refused("{} x").contains("trailing characters"));
        assert!(refused(&"[".repeat(500)).contains("wrong type"));
        assert!(refused(&format!("{{\"name\":{}", "[".repeat(500))).contains("name"));
        for end in 0..200 {
            // Every prefix of a real file is refused without a panic.
            let whole = defaults_of_the_table();
            assert!(Config::parse(&whole[..end]).is_err());
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        for text in [
            "{\"setup_code\": 3145154}",
            "{\"setup_code\": \"031-45-15\"}",
            "{\"control\":{\"token\":\"s3c\"}}",
            "{\"control\":{\"token\": 3145154}}",
            "{\"video\":{\"source\":\"rtps://a:s3c@h/\"}}",
        ] {
            let said = refused(text);
            assert!(!said.contains("314") && !said.contains("031") && !said.contains("s3c"), "{said}");
        }
        let text = "{\"setup_code\":\"031-45-154\",\"control\":{\"token\":\"topsecret\"}}";
        let shown = format!("{:?}", Config::parse(text).expect("legal"));
        assert!(!shown.contains("031-45") && !shown.contains("topsecret"), "{shown}");
    }

    #[test]
    fn a_doorbell_is_said_in_two_ways() {
        let doorbell = |text: &str| Config::parse(text).expect(text).doorbell;
        assert_eq!(doorbell("{\"doorbell\": true}"), Doorbell { present: true, ..Doorbell::default() });
        assert!(!doorbell("{\"doorbell\": false}").present);
        assert!(!doorbell("{\"doorbell\": {}}").present);
        assert!(!doorbell("{\"doorbell\": {\"button\": null}}").present);
        let with_button = doorbell("{\"doorbell\": {\"button\": \"sysfs:17\"}}");
        assert!(with_button.present && with_button.button.is_some());
    }

    #[test]
    fn an_open_control_port_needs_a_token() {
        assert!(Config::parse("{\"control\":{\"listen\":\"127.0.0.1:8071\"}}").is_ok());
        assert!(Config::parse("{\"control\":{\"listen\":\"[::1]:8071\"}}").is_ok());
        assert!(Config::parse("{\"control\":{\"listen\":\"0.0.0.0:80\",\"token\":\"12345678\"}}").is_ok());
        assert_eq!(
            refused("{\"control\":{\"listen\":\"0.0.0.0:80\"}}"),
            "1:22: control.listen: others can reach this address: set control.token, or listen on 127.0.0.1"
        );
        assert!(Config::parse("{\"control\":{\"listen\":\"[::ffff:127.0.0.1]:1\"}}").is_err());
    }

    #[test]
    fn what_is_not_built_yet_is_said() {
        let unbuilt = |text: &str| {
            let config = Config::parse(text).expect(text);
            config.unbuilt(text).iter().map(Problem::to_string).collect::<Vec<_>>()
        };
        assert!(unbuilt("{\"video\":{\"source\":\"demo\"}}").is_empty());
        assert!(unbuilt("{\"video\":{\"source\":\"fifo:/tmp/v\"},\"audio\":{\"source\":\"fifo:/tmp/a\"}}").is_empty());
        assert_eq!(
            unbuilt("{\"video\":{\"source\":\"demo\"},\"motion\":{\"mode\":\"firmware\"}}"),
            ["1:45: motion.mode: \"firmware\" comes with a later version of hksvd"]
        );
        assert!(unbuilt("{}").is_empty());
        assert_eq!(
            unbuilt("{\"audio\":{\"source\":\"file:/a\"},\"video\":{\"source\":\"demo\"}}"),
            ["1:20: audio.source: a file with sound is played with a file: of video.source only: use a FIFO, or auto"]
        );
        assert!(unbuilt("{\"audio\":{\"source\":\"file:/a\"},\"video\":{\"source\":\"file:/v\"}}").is_empty());
        assert!(unbuilt("{\"audio\":{\"codec\":\"l16\",\"source\":\"fifo:/tmp/a\",\"rate_hz\":8000}}").is_empty());
        assert_eq!(
            unbuilt("{\"audio\":{\"codec\":\"opus\"}}"),
            ["1:19: audio.codec: nothing says where an Opus packet ends in a FIFO or a file: deliver AAC-LC in ADTS"]
        );
        let everything = "{\"video\":{\"source\":\"v4l2:/dev/video0\",\"live_source\":\"raptor:sub\"},
            \"audio\":{\"codec\":\"opus\"},\"snapshot\":{\"source\":\"exec:x\"},\"speaker\":{\"sink\":\"rtsp\"},
            \"motion\":{\"mode\":\"onvif\"},\"doorbell\":{\"button\":\"sysfs:1\"},\"led\":{\"status\":\"sysfs:1\"},
            \"hooks\":{\"night_vision\":\"a\",\"camera_active\":\"b\",\"keyframe\":\"c\"}}";
        // Cameras have no Opus, and so no talk-back: one problem more.
        let talk_back = usize::from(!cfg!(feature = "opus"));
        let talk = "{\"speaker\":{\"sink\":\"rtsp\"},\"video\":{\"source\":\"rtsp://127.0.0.1/ch0\"}}";
        assert_eq!(unbuilt(talk).len(), talk_back);
        // Video, pictures, buttons, lights and hooks are there.
        let problems = unbuilt(everything);
        assert_eq!(problems.len(), 3 + talk_back, "{problems:?}");
    }

    #[test]
    fn any_text_is_answered() {
        // A small generator, so that a failure comes again.
        let mut state = 1u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        let whole: Vec<char> = defaults_of_the_table().chars().collect();
        let pieces = ['{', '}', '[', ']', '"', '\\', ',', ':', '0', 'é', '\n', '\u{1f514}'];
        for _ in 0..3_000 {
            let mut text = whole.clone();
            for _ in 0..1 + next() % 3 {
                let at = next() % text.len();
                text[at] = pieces[next() % pieces.len()];
            }
            let text: String = text.into_iter().collect();
            if let Err(problem) = Config::parse(&text) {
                assert!(!problem.to_string().contains('\n'), "{problem}");
            }
        }
    }
}
