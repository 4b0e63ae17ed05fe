//! The figures of `GET /status`, and how a person reads them.

use crate::wire::json::read::{self, Event, Next};
use crate::wire::json::{Quoted, Value};
use std::fmt::{self, Write};

/// Everything that the daemon says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// The accessory's name.
    pub name: String,
    /// `unpaired`, `off`, `idle`, `armed`, `live` or `recording`.
    pub state: &'static str,
    /// Whether there is a pairing.
    pub paired: bool,
    /// How many pairings there are.
    pub pairings: u32,
    /// Verified connections of controllers.
    pub controllers: u32,
    /// Whether HomeKit has the camera switched on.
    pub camera_active: bool,
    /// Whether a controller has armed recording.
    pub recording_armed: bool,
    /// The recording.
    pub recording: Recording,
    /// Live views that run.
    pub live_sessions: u32,
    /// One entry for each of them.
    pub live: Vec<Live>,
    /// Data streams of hubs.
    pub data_streams: u32,
    /// What is held for the seconds before the motion.
    pub prebuffer: Prebuffer,
    /// Access units since start.
    pub frames: u32,
    /// Bytes of media since start.
    pub bytes: u64,
    /// Times that the prebuffer took a frame back before a reader had it.
    pub evictions: u32,
    /// Times that the stream was lost and taken up again at a key frame.
    pub resyncs: u32,
    /// Motion.
    pub motion: Motion,
    /// The stream.
    pub source: Source,
    /// Time since start.
    pub uptime_s: u32,
    /// Resident memory of the process.
    pub rss_kb: u32,
    /// Threads of the process.
    pub threads: u32,
    /// What a person should do something about.
    pub warnings: Vec<String>,
}

/// The one recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// Whether a hub takes one now.
    pub active: bool,
    /// The hub's stream id.
    pub stream: u32,
    /// Fragments that were sent.
    pub fragments: u32,
    /// Time since it was opened.
    pub since_s: u32,
    /// The hub's pairing identifier.
    pub hub: String,
}

/// A live view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// Where the video goes.
    pub to: String,
    /// The controller's pairing identifier.
    pub controller: String,
    /// Width of the picture that is sent.
    pub width: u32,
    /// Height of the picture that is sent.
    pub height: u32,
    /// `opus 24000 Hz`, `none` without sound.
    pub audio: String,
    /// Packets that were sent.
    pub packets: u32,
    /// Part of them that the controller missed of late.
    pub lost_percent: f32,
    /// Bit rate since the start.
    pub bitrate_kbps: u32,
    /// Time since it was started.
    pub since_s: u32,
}

/// The prebuffer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prebuffer {
    /// Seconds held.
    pub held_s: f32,
    /// Seconds that fit at the present bit rate.
    pub capacity_s: f32,
    /// Bytes held.
    pub bytes: u32,
}

/// Motion.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Motion {
    /// Now.
    pub on: bool,
    /// `motion.mode`.
    pub mode: &'static str,
    /// What the detector takes for a quiet picture, in octaves of bytes.
    pub baseline: f32,
    /// How far above it the picture is, in parts of what starts motion.
    pub level: f32,
    /// The level that starts motion.
    pub threshold: f32,
}

/// The stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Source {
    /// `video.source`, without passwords.
    pub spec: String,
    /// `waiting`, `running`, `stalled` or `lost`.
    pub state: &'static str,
    /// Picture width.
    pub width: u32,
    /// Picture height.
    pub height: u32,
    /// Measured frame rate.
    pub fps: f32,
    /// Measured bit rate of the video.
    pub bitrate_kbps: u32,
    /// Time between the last two key frames.
    pub gop_s: f32,
    /// Codec and rate of the sound, `none` without.
    pub audio: String,
}

/// A JSON object that is being written: one call for each key, in order.
struct Object<'o>(&'o mut String);

impl Object<'_> {
    /// `write` adds the keys.
    fn of(out: &mut String, write: impl FnOnce(&mut Object<'_>)) {
        out.push('{');
        write(&mut Object(out));
        out.push('}');
    }

    fn key(&mut self, key: &str) -> &mut String {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{key}\":");
        self.0
    }

    /// What is JSON as it is printed: numbers and truth values.
    fn plain(&mut self, key: &str, value: &dyn fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.key(key), "{value}");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.plain(key, &Quoted(text));
    }

    fn number(&mut self, key: &str, number: u32) {
        self.plain(key, &number);
    }

    fn decimal(&mut self, key: &str, number: f32) {
        self.plain(key, &Decimal::<3>(number));
    }

    fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) {
        Object::of(self.key(key), write);
    }
}

impl Status {
    /// The body of `GET /status`.
    pub fn json(&self) -> String {
        let mut out = String::new();
        Object::of(&mut out, |o| {
            o.text("version", self.version);
            o.text("name", &self.name);
            o.text("state", self.state);
            o.plain("paired", &self.paired);
            o.number("pairings", self.pairings);
            o.number("controllers", self.controllers);
            o.plain("camera_active", &self.camera_active);
            o.plain("recording_armed", &self.recording_armed);
            o.object("recording", |o| {
                o.plain("active", &self.recording.active);
                o.number("stream", self.recording.stream);
                o.number("fragments", self.recording.fragments);
                o.number("since_s", self.recording.since_s);
                o.text("hub", &self.recording.hub);
            });
            o.number("live_sessions", self.live_sessions);
            let out = o.key("live");
            out.push('[');
            for (n, live) in self.live.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                Object::of(out, |o| {
                    o.text("to", &live.to);
                    o.text("controller", &live.controller);
                    o.number("width", live.width);
                    o.number("height", live.height);
                    o.text("audio", &live.audio);
                    o.number("packets", live.packets);
                    o.decimal("lost_percent", live.lost_percent);
                    o.number("bitrate_kbps", live.bitrate_kbps);
                    o.number("since_s", live.since_s);
                });
            }
            out.push(']');
            o.number("data_streams", self.data_streams);
            o.object("prebuffer", |o| {
                o.decimal("held_s", self.prebuffer.held_s);
                o.decimal("capacity_s", self.prebuffer.capacity_s);
                o.number("bytes", self.prebuffer.bytes);
            });
            o.number("frames", self.frames);
            o.plain("bytes", &self.bytes);
            o.number("evictions", self.evictions);
            o.number("resyncs", self.resyncs);
            o.object("motion", |o| {
                o.plain("on", &self.motion.on);
                o.text("mode", self.motion.mode);
                o.decimal("baseline", self.motion.baseline);
                o.decimal("level", self.motion.level);
                o.decimal("threshold", self.motion.threshold);
            });
            o.object("source", |o| {
                o.text("spec", &self.source.spec);
                o.text("state", self.source.state);
                o.number("width", self.source.width);
                o.number("height", self.source.height);
                o.decimal("fps", self.source.fps);
                o.number("bitrate_kbps", self.source.bitrate_kbps);
                o.decimal("gop_s", self.source.gop_s);
                o.text("audio", &self.source.audio);
            });
            o.number("uptime_s", self.uptime_s);
            o.number("rss_kb", self.rss_kb);
            o.number("threads", self.threads);
            let out = o.key("warnings");
            out.push('[');
            for (n, warning) in self.warnings.iter().enumerate() {
                let _ = write!(out, "{}{}", if n > 0 { "," } else { "" }, Quoted(warning));
            }
            out.push(']');
        });
        out
    }
}

/// Tells `found` each warning of a [`Status`] in JSON.
///
/// # Errors
/// When it is none.
pub fn warnings(json: &str, found: &mut dyn FnMut(&str)) -> Result<(), read::Error> {
    let mut depth = 0;
    read::read(json.as_bytes(), &mut |event| {
        match event {
            Event::Object | Event::Array => depth += 1,
            Event::End => depth -= 1,
            Event::Key("warnings") => {}
            Event::Key(_) => return Ok(Next::Over),
            Event::Value(value) if depth == 2 => value.text().into_iter().for_each(&mut *found),
            Event::Value(_) | Event::Null => {}
        }
        Ok(Next::Into)
    })
}

/// Tells `found` each key of `source` in a [`Status`] in JSON, with its value.
///
/// # Errors
/// When it is none.
pub fn source(json: &str, found: &mut dyn FnMut(&str, &Value<'_>)) -> Result<(), read::Error> {
    let (mut depth, mut name) = (0, String::new());
    read::read(json.as_bytes(), &mut |event| {
        match event {
            Event::Object => depth += 1,
            Event::End => depth -= 1,
            Event::Key(key) if depth == 2 => name = key.into(),
            Event::Key("source") => {}
            Event::Value(value) if depth == 2 => found(&name, &value),
            Event::Key(_) | Event::Array => return Ok(Next::Over),
            Event::Value(_) | Event::Null => {}
        }
        Ok(Next::Into)
    })
}

/// A time as people say it: `3 d 4 h`, `12 min 5 s`.
struct Span(u32);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s @ 0..60 => write!(f, "{s} s"),
            s @ 60..3_600 => write!(f, "{} min {} s", s / 60, s % 60),
            s @ 3_600..86_400 => write!(f, "{} h {} min", s / 3_600, s / 60 % 60),
            s => write!(f, "{} d {} h", s / 86_400, s / 3_600 % 24),
        }
    }
}

/// A number of bytes as people say it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..10_000 => write!(f, "{bytes} bytes"),
            bytes @ 10_000..1_000_000 => write!(f, "{} kB", bytes / 1_000),
            bytes @ 1_000_000..1_000_000_000 => {
                write!(f, "{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
            }
            bytes => write!(f, "{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
        }
    }
}

/// A quantity with so many decimals. Ours because what the standard library prints floats with is 11 kB of
/// MIPS code, made for digits that nobody measures.
pub struct Decimal<const PLACES: u32>(pub f32);

impl<const PLACES: u32> fmt::Display for Decimal<PLACES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u32.pow(PLACES);
        // Conversion saturates; not a number becomes 0.
        let scaled = (self.0.abs() * unit as f32 + 0.5) as u32;
        let sign = if self.0 < 0.0 && scaled > 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:0width$}", scaled / unit, scaled % unit, width = PLACES as usize)
    }
}

/// A count with its noun.
struct Count(u32, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

impl fmt::Display for Status {
    /// One line a subject, for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "camera     {}: {}, hksvd {}, up {}", self.name, self.state, self.version, Span(self.uptime_s))?;
        match self.paired {
            true => writeln!(
                f,
                "pairing    {}, {} connected, {}",
                Count(self.pairings, "pairing"),
                Count(self.controllers, "controller"),
                Count(self.data_streams, "data stream")
            )?,
            false => writeln!(f, "pairing    not paired; `hksvd qr` shows the code")?,
        }
        let source = &self.source;
        match source.spec.as_str() {
            "" => write!(f, "video      looking for a source")?,
            spec => write!(f, "video      {spec} {}", source.state)?,
        }
        if source.width > 0 {
            let (fps, gop_s) = (Decimal::<1>(source.fps), Decimal::<1>(source.gop_s));
            write!(f, ", {}x{}, {fps} fps, {} kbit/s", source.width, source.height, source.bitrate_kbps)?;
            write!(f, ", key frame every {gop_s} s")?;
        }
        writeln!(f, "\naudio      {}", if source.audio.is_empty() { "none" } else { &source.audio })?;
        let held = &self.prebuffer;
        let (held_s, capacity_s) = (Decimal::<1>(held.held_s), Decimal::<1>(held.capacity_s));
        writeln!(f, "prebuffer  {held_s} s of {capacity_s} s, {}", Size(held.bytes.into()))?;
        let recording = &self.recording;
        match (recording.active, self.recording_armed, self.camera_active) {
            (true, ..) => writeln!(
                f,
                "recording  to {} for {}, {}, stream {}",
                recording.hub,
                Span(recording.since_s),
                Count(recording.fragments, "fragment"),
                recording.stream
            )?,
            (false, _, false) => writeln!(f, "recording  camera switched off in Apple Home")?,
            (false, true, true) => writeln!(f, "recording  armed, waiting for motion")?,
            (false, false, true) => writeln!(f, "recording  not switched on in Apple Home")?,
        }
        let motion = &self.motion;
        write!(f, "motion     {} ({})", if motion.on { "on" } else { "off" }, motion.mode)?;
        if motion.mode == "detect" {
            let [level, threshold, baseline] = [motion.level, motion.threshold, motion.baseline].map(Decimal::<2>);
            write!(f, ", level {level} of {threshold}, baseline {baseline}")?;
        }
        writeln!(f, "\nlive view  {}", Count(self.live_sessions, "session"))?;
        for live in &self.live {
            let lost = Decimal::<1>(live.lost_percent);
            write!(f, "           {}x{} to {} for {}, ", live.width, live.height, live.to, Span(live.since_s))?;
            write!(f, "audio {}, {}, {lost} % lost, ", live.audio, Count(live.packets, "packet"))?;
            writeln!(f, "{} kbit/s", live.bitrate_kbps)?;
        }
        write!(f, "stream     {}, {}", Count(self.frames, "frame"), Size(self.bytes))?;
        writeln!(f, ", {}, {}", Count(self.evictions, "eviction"), Count(self.resyncs, "resync"))?;
        writeln!(f, "memory     {} kB, {}", self.rss_kb, Count(self.threads, "thread"))?;
        for warning in &self.warnings {
            writeln!(f, "warning    {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_can_read_it() {
        let mut status = Status {
            version: "0.1.0",
            name: "Front Door".into(),
            state: "recording",
            paired: true,
            pairings: 3,
            controllers: 1,
            camera_active: true,
            recording_armed: true,
            recording: Recording { active: true, stream: 3, fragments: 5, since_s: 21, hub: "4D5E".into() },
            live_sessions: 1,
            live: vec![Live {
                to: "192.168.1.5:50000".into(),
                controller: "4D5E".into(),
                width: 1280,
                height: 720,
                audio: "opus 24000 Hz".into(),
                packets: 1,
                lost_percent: 1.6,
                bitrate_kbps: 1_950,
                since_s: 75,
            }],
            data_streams: 2,
            prebuffer: Prebuffer { held_s: 6.21, capacity_s: 9.0, bytes: 1_640_000 },
            frames: 120_000,
            bytes: 2_100_000_000,
            motion: Motion { on: true, mode: "detect", baseline: 11.5, level: 2.25, threshold: 2.0 },
            source: Source {
                spec: "fifo:/tmp/v".into(),
                state: "running",
                width: 1280,
                height: 720,
                fps: 15.0,
                bitrate_kbps: 1_900,
                gop_s: 2.0,
                audio: "aac 16000 Hz mono".into(),
            },
            uptime_s: 11_520,
            rss_kb: 3_900,
            threads: 3,
            warnings: vec!["key frames come every 6.0 s: set the encoder to 4 s or less".into()],
            ..Status::default()
        };
        assert_eq!(
            status.to_string(),
            "camera     Front Door: recording, hksvd 0.1.0, up 3 h 12 min\n\
             pairing    3 pairings, 1 controller connected, 2 data streams\n\
             video      fifo:/tmp/v running, 1280x720, 15.0 fps, 1900 kbit/s, key frame every 2.0 s\n\
             audio      aac 16000 Hz mono\n\
             prebuffer  6.2 s of 9.0 s, 1.6 MB\n\
             recording  to 4D5E for 21 s, 5 fragments, stream 3\n\
             motion     on (detect), level 2.25 of 2.00, baseline 11.50\n\
             live view  1 session\n\
             \x20          1280x720 to 192.168.1.5:50000 for 1 min 15 s, audio opus 24000 Hz, 1 packet, 1.6 % lost, \
             1950 kbit/s\n\
             stream     120000 frames, 2.1 GB, 0 evictions, 0 resyncs\n\
             memory     3900 kB, 3 threads\n\
             warning    key frames come every 6.0 s: set the encoder to 4 s or less\n"
        );
        (status.paired, status.recording.active, status.camera_active) = (false, false, false);
        status.source = Source { state: "waiting", ..Source::default() };
        let text = status.to_string();
        assert!(text.contains("not paired; `hksvd qr`") && text.contains("camera switched off"), "{text}");
        assert!(text.contains("\nvideo      looking for a source\naudio      none\n"), "{text}");
    }

    #[test]
    fn json_has_every_section() {
        let watched = Live { to: "[::1]:5000".into(), packets: 7, lost_percent: 0.5, ..Live::default() };
        let status = Status { live: vec![watched, Live::default()], ..Status::default() };
        let json: serde_json::Value = serde_json::from_str(&status.json()).expect("JSON");
        assert_eq!((&json["live"][0]["packets"], &json["live"][0]["lost_percent"]), (&7.into(), &0.5.into()));
        assert_eq!((&json["live"][0]["to"], json["live"].as_array().unwrap().len()), (&"[::1]:5000".into(), 2));
        for key in
            ["recording", "prebuffer", "motion", "source", "warnings", "uptime_s", "rss_kb", "threads", "evictions"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["prebuffer"]["held_s"], 0.0);
    }

    #[test]
    fn spans_and_sizes() {
        let spans = [0, 59, 60, 3_600, 90_000].map(|s| Span(s).to_string());
        assert_eq!(spans, ["0 s", "59 s", "1 min 0 s", "1 h 0 min", "1 d 1 h"]);
        let sizes = [0, 10_000, 1_000_000, 1_990_000_000].map(|bytes| Size(bytes).to_string());
        assert_eq!(sizes, ["0 bytes", "10 kB", "1.0 MB", "1.9 GB"]);
    }

    #[test]
    fn decimals_are_those_of_the_standard_library() {
        for value in [0.0, 0.04, 0.06, 0.94, 0.96, 1.0, 9.96, 14.98, 123.456, -0.3, -0.01, -12.34] {
            let expected = format!("{value:.1}");
            let expected = if expected == "-0.0" { "0.0" } else { &expected };
            assert_eq!(Decimal::<1>(value).to_string(), expected);
        }
        assert_eq!(Decimal::<2>(3.049).to_string(), "3.05");
        assert_eq!(Decimal::<2>(f32::NAN).to_string(), "0.00");
        assert_eq!(Decimal::<1>(f32::INFINITY).to_string(), "429496729.5");
    }
}
