//! Every key of the configuration, once: what it is called, what it may hold, what it is when left out.
//!
//! `hksvd print-config`, its `--schema`, the "did you mean" of an unknown key and the README's section
//! all come from this table; a test compares it with the types of [`super::Config`].

use std::fmt::Write;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Dotted name, `section.key` or `key`.
    pub path: &'static str,
    /// What the value may be; a default of `null` allows `null`, too.
    pub kind: Kind,
    /// The default as JSON text.
    pub default: &'static str,
    /// One sentence or two for a person.
    pub description: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// Text of at most so many bytes.
    Text(u32),
    /// Text that the regular expression matches (ECMA-262, as JSON Schema has it).
    Pattern(&'static str),
    /// Text that must not be shown once it is set.
    Secret(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number within bounds, both included.
    Integer(u32, u32),
    /// One of these numbers.
    Number(&'static [u32]),
    /// `true` or `false`.
    Switch,
    /// An array of at most so many texts.
    List(u32),
}

const fn key(path: &'static str, kind: Kind, default: &'static str, description: &'static str) -> Key {
    Key { path, kind, default, description }
}

/// Bounds of `memory_kb`.
pub const MEMORY_KB: (u32, u32) = (768, 131_072);
/// Sample rates of AAC-LC that a recording can carry.
pub const RATES_HZ: &[u32] = &[8_000, 16_000, 24_000, 32_000, 44_100, 48_000];

/// A button or a switch.
const BUTTON: &str = "^(evdev:.+:(KEY_.+|[0-9]+)|sysfs:[0-9]+(:low)?|gpiochip:.+:[0-9]+(:low)?)$";
/// Something that is switched.
const OUTPUT: &str = "^(sysfs:[0-9]+(:low)?|led:[^/]+|exec:.+)$";

/// The table, in the order in which it is printed.
pub static KEYS: &[Key] = &[
    key(
        "name",
        Kind::Text(58),
        "\"Camera\"",
        "Name in Apple Home, at most 58 bytes; the network adds four digits to it.",
    ),
    key(
        "setup_code",
        Kind::Secret("^[0-9]{3}-[0-9]{2}-[0-9]{3}$"),
        "null",
        "Code to type when pairing, XXX-XX-XXX. null: drawn at random once and kept in state_dir.",
    ),
    key(
        "state_dir",
        Kind::Text(4096),
        "\"/etc/hksvd\"",
        "Folder of the identity and the pairings. Losing it means pairing again: keep it over firmware upgrades.",
    ),
    key(
        "log",
        Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "Log level at start; `hksvd log LEVEL` changes it while running.",
    ),
    key("hap.port", Kind::Integer(0, 65_535), "51826", "TCP port of HomeKit; hubs remember it. 0: any free one."),
    key(
        "hap.interfaces",
        Kind::List(8),
        "[]",
        "Network interfaces to announce on. Empty: all but loopback; naming \"lo\" is allowed.",
    ),
    key("hap.mdns", Kind::Switch, "true", "Announce the camera by mDNS. Without it no controller finds the camera."),
    key(
        "control.socket",
        Kind::Text(106),
        "\"/run/hksvd.sock\"",
        "Unix socket of the control interface, at most 106 bytes.",
    ),
    key(
        "control.listen",
        Kind::Pattern("^.+:[0-9]{1,5}$"),
        "null",
        "ADDRESS:PORT of the control interface on TCP; other than loopback it needs control.token.",
    ),
    key(
        "control.token",
        Kind::Secret("^[!-~]{8,128}$"),
        "null",
        "Token that a TCP client must send (Authorization: Bearer TOKEN): 8 to 128 visible ASCII characters.",
    ),
    key(
        "memory_kb",
        Kind::Integer(MEMORY_KB.0, MEMORY_KB.1),
        "2560",
        "Memory for rings and media buffers. 2560 hold about 8 s at 2 Mbit/s, 6 s beside a small stream.",
    ),
    key(
        "video.live_source",
        Kind::Pattern("^(demo|(fifo|fifo[+]yi|yi|file|v4l2|rtp[+]unix):.+|raptor:(main|sub)|rtsp://.+)$"),
        "null",
        "Second, smaller stream for live views of at most 640 pixels or 500 kbit/s. null: the one found, if any.",
    ),
    key(
        "video.source",
        Kind::Pattern("^(demo|(fifo|fifo[+]yi|yi|file|v4l2|rtp[+]unix):.+|raptor:(main|sub)|rtsp://.+)$"),
        "null",
        "H.264 (null: it is found): demo, fifo:, fifo+yi:, file:, v4l2: or rtp+unix:PATH, yi:MODEL, raptor:main, rtsp://...",
    ),
    key("video.fps", Kind::Integer(1, 60), "25", "Frame rate to expect until it has been measured."),
    key(
        "video.pacing_percent",
        Kind::Integer(0, 100),
        "50",
        "Part of a frame interval that the packets of a picture are spread over in live view; 0: all at once.",
    ),
    key(
        "audio.source",
        Kind::Pattern("^(auto|none|(fifo|file):.+)$"),
        "\"auto\"",
        "Where sound comes from: auto (with the video, if it has any), none, fifo:PATH, file:PATH.",
    ),
    key(
        "audio.codec",
        Kind::Choice(&["aac", "opus", "l16"]),
        "\"aac\"",
        "What the FIFO or file delivers: aac (LC, in ADTS); l16 (S16LE, one channel): for live view, not recorded.",
    ),
    key(
        "audio.rate_hz",
        Kind::Number(RATES_HZ),
        "16000",
        "Sample rate of l16; of aac the rate to offer until the stream has been seen.",
    ),
    key(
        "audio.silent_track",
        Kind::Switch,
        "false",
        "Send a silent track, not none, to a hub that has switched recording audio off.",
    ),
    key(
        "snapshot.source",
        Kind::Pattern("^(auto|(file|v4l2):.+|http://([^/]+@)?127\\.0\\.0\\.1(:[0-9]+)?(/.*)?|exec:.+)$"),
        "\"auto\"",
        "Still pictures: auto (of a known streamer), file:PATH, http://[LOGIN@]127.0.0.1..., v4l2:DEVICE, exec:COMMAND.",
    ),
    key(
        "speaker.sink",
        Kind::Pattern("^(none|raptor|rtsp|(fifo|fifo[+]yi|oss|exec):.+)$"),
        "\"none\"",
        "Where talk-back goes: none, fifo:PATH, fifo+yi:PATH, raptor, rtsp, oss:DEVICE, exec:COMMAND.",
    ),
    key(
        "speaker.rate_hz",
        Kind::Number(RATES_HZ),
        "16000",
        "Sample rate of what speaker.sink takes: 16-bit samples of one channel, lower byte first.",
    ),
    key(
        "motion.mode",
        Kind::Choice(&["detect", "continuous", "api", "firmware", "onvif", "off"]),
        "\"detect\"",
        "Who says that something moves: the stream (detect), the clock (continuous), `hksvd motion on` (api), nobody (off).",
    ),
    key("motion.sensitivity", Kind::Integer(0, 100), "50", "Sensitivity of the detector; higher sees smaller things."),
    key("motion.hold_s", Kind::Integer(1, 3_600), "10", "Seconds that motion stays on after it was last seen."),
    key("motion.onvif_url", Kind::Pattern("^https?://.+$"), "null", "Event service for motion.mode onvif."),
    key(
        "doorbell.button",
        Kind::Pattern(BUTTON),
        "null",
        "Makes it a doorbell: evdev:auto:KEY_1, evdev:DEVICE:KEY, sysfs:GPIO[:low], gpiochip:DEVICE:LINE[:low].",
    ),
    key(
        "doorbell.presses",
        Kind::Choice(&["single", "all"]),
        "\"single\"",
        "single: a press rings at once. all: double and long ones are told apart, a single one rings 0.4 s late.",
    ),
    key(
        "doorbell.reset_s",
        Kind::Integer(0, 120),
        "0",
        "Holding the button for so many seconds is a factory reset: all pairings are forgotten. 0: never.",
    ),
    key(
        "chime.output",
        Kind::Pattern(OUTPUT),
        "null",
        "Sounds when somebody rings, as led.status; adds the bell's Mute.",
    ),
    key("chime.pulse_ms", Kind::Integer(1, 5_000), "500", "How long sysfs: and led: of chime.output stay on."),
    key(
        "privacy.switch",
        Kind::Pattern(BUTTON),
        "null",
        "A switch, named as doorbell.button, that turns the camera off for HomeKit while it is on.",
    ),
    key(
        "led.status",
        Kind::Pattern(OUTPUT),
        "null",
        "Light: sysfs:GPIO[:low], led:NAME, exec:COMMAND (told HKSVD_LED 0 1, HKSVD_STATE off detect stream record).",
    ),
    key(
        "hooks.night_vision",
        Kind::Text(1024),
        "null",
        "Command (auto: the firmware's daynight), adds its switch: told HKSVD_NIGHT_VISION 0 1, HKSVD_DAYNIGHT auto day.",
    ),
    key(
        "hooks.camera_active",
        Kind::Text(1024),
        "null",
        "Command for the camera going on or off: told HKSVD_CAMERA_ACTIVE 0 1, HKSVD_PRIVACY on off.",
    ),
    key("hooks.keyframe", Kind::Text(1024), "null", "Command that makes the encoder send a key frame."),
];

impl Key {
    /// The part after the dot.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The part before the dot, empty for a key of the top level.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    fn nullable(&self) -> bool {
        self.default == "null"
    }
}

/// The key of that dotted name.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Names that may stand in `section` ("" is the top level), without repetition.
fn names(section: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS {
        let name = match (key.section() == section, section) {
            (true, _) => key.name(),
            (false, "") => key.section(),
            (false, _) => continue,
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    names
}

/// What to say about a key that nobody knows, given as its dotted name.
pub fn unknown(path: &str) -> String {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let here = names(section);
    if let Some(near) = nearest(name, here.iter().copied()) {
        return format!("unknown key, did you mean \"{near}\"?");
    }
    if let Some(elsewhere) = KEYS.iter().find(|key| key.name() == name) {
        return format!("unknown key here, did you mean \"{}\"?", elsewhere.path);
    }
    if here.is_empty() {
        return "unknown key".into();
    }
    format!("unknown key, known here: {}", here.join(", "))
}

/// The word that was probably meant: "fsp" finds "fps", "xyz" finds nothing.
pub(crate) fn nearest(word: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let allowed = word.chars().count() / 3 + 1;
    known.map(|known| (distance(word, known), known)).min().filter(|(far, _)| *far <= allowed).map(|(_, known)| known)
}

/// Edits between two words: insert, delete, replace, and swap of neighbours. Case counts for nothing.
fn distance(a: &str, b: &str) -> usize {
    // Nobody mistypes a key into something this long; the table below is quadratic.
    let a: Vec<char> = a.chars().take(40).map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().take(40).map(|c| c.to_ascii_lowercase()).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let mut least = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                least = least.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

/// The answer of `hksvd print-config`: two lines a key.
pub fn text() -> String {
    let mut out = String::new();
    for key in KEYS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:<22}{}\n    {}", key.path, key.default, key.description);
        let allowed = match &key.kind {
            Kind::Choice(words) => words.join(", "),
            Kind::Integer(least, most) => format!("{least} to {most}"),
            Kind::Number(numbers) => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
            _ => continue,
        };
        let _ = writeln!(out, "    {allowed}");
    }
    out
}

/// The answer of `hksvd print-config --schema`: JSON Schema, draft 2020-12.
pub fn schema() -> String {
    let mut out = String::from(
        "{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"title\": \"hksvd configuration\",\n  \
         \"type\": \"object\",\n  \"additionalProperties\": false,\n  \"properties\": {",
    );
    let mut section = "";
    let mut first = true;
    for key in KEYS {
        if key.section() != section {
            if !section.is_empty() {
                out.push_str("\n      }\n    }");
            }
            section = key.section();
            if !section.is_empty() {
                // The rules for properties bind objects only, so `true` passes them.
                let kind = if section == "doorbell" { "[\"boolean\", \"object\"]" } else { "\"object\"" };
                let comma = if first { "" } else { "," };
                let _ = write!(
                    out,
                    "{comma}\n    \"{section}\": {{\n      \"type\": {kind},\n      \"additionalProperties\": false,\n      \
                     \"properties\": {{"
                );
                first = true;
            }
        }
        let (comma, indent) = (if first { "" } else { "," }, if section.is_empty() { "    " } else { "        " });
        let _ = write!(out, "{comma}\n{indent}{}: {{ ", quoted(key.name()));
        rule(key, &mut out);
        let _ = write!(out, ", \"default\": {}, \"description\": {} }}", key.default, quoted(key.description));
        first = false;
    }
    if !section.is_empty() {
        out.push_str("\n      }\n    }");
    }
    out.push_str("\n  }\n}\n");
    out
}

fn rule(key: &Key, out: &mut String) {
    let kind = match key.kind {
        Kind::Text(_) | Kind::Pattern(_) | Kind::Secret(_) | Kind::Choice(_) => "string",
        Kind::Integer(..) | Kind::Number(_) => "integer",
        Kind::Switch => "boolean",
        Kind::List(_) => "array",
    };
    let _ = match key.nullable() {
        true => write!(out, "\"type\": [\"{kind}\", \"null\"]"),
        false => write!(out, "\"type\": \"{kind}\""),
    };
    let _ = match &key.kind {
        Kind::Text(most) => write!(out, ", \"minLength\": 1, \"maxLength\": {most}"),
        Kind::Pattern(pattern) | Kind::Secret(pattern) => write!(out, ", \"pattern\": {}", quoted(pattern)),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            write!(out, ", \"enum\": [{}]", words.join(", "))
        }
        Kind::Integer(least, most) => write!(out, ", \"minimum\": {least}, \"maximum\": {most}"),
        Kind::Number(numbers) => write!(out, ", \"enum\": {numbers:?}"),
        Kind::Switch => Ok(()),
        Kind::List(most) => write!(out, ", \"maxItems\": {most}, \"items\": {{ \"type\": \"string\" }}"),
    };
}

/// The text as a JSON string; the table holds ASCII without control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_schema_has_every_key_with_default_and_description() {
        let schema: Value = serde_json::from_str(&schema()).expect("the schema is JSON");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let mut count = 0;
        for key in KEYS {
            let mut place = &schema["properties"];
            if !key.section().is_empty() {
                let section = &place[key.section()];
                assert_eq!(section["additionalProperties"], false, "{}", key.path);
                place = &section["properties"];
            }
            let entry = &place[key.name()];
            assert_eq!(entry["description"], key.description, "{}", key.path);
            let default: Value = serde_json::from_str(key.default).expect(key.path);
            assert_eq!(entry.get("default"), Some(&default), "{}", key.path);
            assert!(entry["type"].is_string() || entry["type"][1] == "null", "{}", key.path);
            count += 1;
        }
        let in_schema: usize = schema["properties"]
            .as_object()
            .expect("object")
            .values()
            .map(|entry| entry["properties"].as_object().map_or(1, |keys| keys.len()))
            .sum();
        assert_eq!(count, in_schema);
        assert_eq!(schema["properties"]["doorbell"]["type"][0], "boolean");
    }

    #[test]
    fn the_text_names_every_key_and_fits_a_terminal() {
        let text = text();
        for key in KEYS {
            assert!(
                text.contains(&format!("{:<22}{}\n    {}\n", key.path, key.default, key.description)),
                "{}",
                key.path
            );
        }
        assert!(text.lines().all(|line| line.chars().count() < 120));
    }

    #[test]
    fn the_nearest_key_is_found() {
        assert_eq!(unknown("video.fsp"), "unknown key, did you mean \"fps\"?");
        assert_eq!(unknown("nmae"), "unknown key, did you mean \"name\"?");
        assert_eq!(unknown("Motion"), "unknown key, did you mean \"motion\"?");
        assert_eq!(unknown("port"), "unknown key here, did you mean \"hap.port\"?");
        assert_eq!(unknown("hap.colour"), "unknown key, known here: port, interfaces, mdns");
        assert_eq!(unknown("name.first"), "unknown key");
    }

    #[test]
    fn distances() {
        for (a, b, far) in
            [("", "abc", 3), ("fsp", "fps", 1), ("FPS", "fps", 0), ("é", "e", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }
}
