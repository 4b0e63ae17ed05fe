//! What the streamers' own settings files say about their RTSP servers.
//!
//! Bytes in, values out. They are written by others' web pages and by hand, so whatever cannot be read leaves what
//! the streamer would take by itself.

use super::snapshot::Streamer;
use crate::wire::json::Value;
use crate::wire::json::read::{self, Event, Next};
use core::fmt::Write;

/// The largest file that is read, in bytes.
pub const LARGEST: u64 = 64 * 1024;

/// An RTSP server on this camera.
#[derive(Clone, PartialEq, Eq)]
pub struct Rtsp {
    port: String,
    name: String,
    password: String,
    paths: [String; 2],
}

/// Names of the settings, in the order of [`Rtsp`]'s.
type Keys = [&'static str; 5];
const NAME: usize = 1;
const PASSWORD: usize = 2;

impl Streamer {
    /// Its settings, from the root of the file system.
    pub const fn settings_file(self) -> &'static str {
        match self {
            Streamer::Raptor => "etc/raptor.conf",
            Streamer::Prudynt => "etc/prudynt.json",
            Streamer::Timps => "etc/timps.conf",
            Streamer::Majestic => "etc/majestic.yaml",
        }
    }

    const fn keys(self) -> Keys {
        match self {
            Streamer::Raptor => {
                ["rtsp.port", "rtsp.username", "rtsp.password", "rtsp.endpoint_main", "rtsp.endpoint_sub"]
            }
            Streamer::Prudynt => {
                ["rtsp.port", "rtsp.username", "rtsp.password", "stream0.rtsp_endpoint", "stream1.rtsp_endpoint"]
            }
            Streamer::Timps => ["rtsp.port", "rtsp.user", "rtsp.pass", "video0.rtsp_path", "video1.rtsp_path"],
            // Its login is the system's.
            Streamer::Majestic => ["rtsp.port", "", "", "", ""],
        }
    }
}

impl Rtsp {
    /// What holds where nothing is set in a settings file, or where there is none.
    fn defaults(streamer: Option<Streamer>, is_set: bool) -> Self {
        let (login, paths) = match streamer {
            Some(Streamer::Majestic) => (["root", "12345"], ["stream=0", "stream=1"]),
            // Thingino's settings name other paths.
            Some(Streamer::Raptor) if is_set => ([""; 2], ["stream0", "stream1"]),
            Some(Streamer::Timps) if is_set => ([""; 2], ["ch0", "ch1"]),
            _ => (["thingino"; 2], ["ch0", "ch1"]),
        };
        let [name, password] = login.map(String::from);
        Rtsp { port: "554".into(), name, password, paths: paths.map(String::from) }
    }

    /// What the settings of `streamer` say, and its defaults for what they leave out. No file, no text: all defaults.
    pub fn read(streamer: Option<Streamer>, file: Option<&[u8]>) -> Self {
        let text = file.and_then(|file| core::str::from_utf8(file).ok());
        let mut rtsp = Rtsp::defaults(streamer, text.is_some());
        if let (Some(streamer), Some(text)) = (streamer, text) {
            let Rtsp { port, name, password, paths: [main, sub] } = &mut rtsp;
            let mut values = [port, name, password, main, sub];
            let mut take = |key: &str, value: &str| {
                let at = streamer.keys().into_iter().position(|known| !known.is_empty() && known == key);
                let Some(to) = at.and_then(|at| values.get_mut(at)) else { return };
                match at {
                    Some(NAME | PASSWORD) => **to = value.into(),
                    // No port and no path is none that is meant.
                    _ if value.is_empty() => {}
                    _ => **to = value.trim_start_matches('/').into(),
                }
            };
            match streamer {
                Streamer::Prudynt => nested(text, &mut take),
                Streamer::Raptor | Streamer::Timps | Streamer::Majestic => lines(text, &mut take),
            }
        }
        rtsp
    }

    /// The address of the main stream (0) or of the small one (1), login and all.
    pub fn address(&self, stream: usize) -> String {
        let mut address = String::from("rtsp://");
        if !self.name.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(address, "{}:{}@", self.name, self.password);
        }
        let path = self.paths.get(stream).map_or("", String::as_str);
        let _ = write!(address, "127.0.0.1:{}/{path}", self.port);
        address
    }
}

/// Lines `key = value` below `[section]`, `section.key = value`, or `key: value`, indented below `section:`.
fn lines(text: &str, take: &mut dyn FnMut(&str, &str)) {
    let mut section = "";
    for line in text.lines() {
        let said = line.split_once(" #").map_or(line, |(said, _)| said);
        let plain = said.trim();
        if plain.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = plain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let Some((key, value)) = plain.split_once(['=', ':']) else { continue };
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() && plain.ends_with(':') && !said.starts_with([' ', '\t']) {
            section = key;
            continue;
        }
        let quoted = ['"', '\''].into_iter().find_map(|mark| value.strip_prefix(mark)?.strip_suffix(mark));
        let value = quoted.unwrap_or(value);
        match section {
            "" => take(key, value),
            section => take(&[section, ".", key].concat(), value),
        }
    }
}

/// Numbers and texts in the objects of a JSON object. What comes before an error counts.
fn nested(text: &str, take: &mut dyn FnMut(&str, &str)) {
    let (mut depth, mut section, mut name) = (0, String::new(), String::new());
    let _ = read::read(text.as_bytes(), &mut |event| {
        match event {
            Event::Object if depth < 2 => depth += 1,
            Event::Object | Event::Array => return Ok(Next::Over),
            Event::End => depth -= 1,
            Event::Key(key) if depth == 1 => section = [key, "."].concat(),
            Event::Key(key) => name = [&section, key].concat(),
            Event::Value(Value::Unsigned(number)) if depth == 2 => take(&name, &number.to_string()),
            Event::Value(value) if depth == 2 => value.text().into_iter().for_each(|text| take(&name, text)),
            Event::Value(_) | Event::Null => {}
        }
        Ok(Next::Into)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(streamer: Streamer, file: &str) -> [String; 2] {
        let rtsp = Rtsp::read(Some(streamer), Some(file.as_bytes()));
        [0, 1].map(|stream| rtsp.address(stream))
    }

    const RAPTOR: &str = "# x\n[stream0]\nport = 1\n; y\n[rtsp]\n# port = 9\nport = 8554   # of ours\nusername = me\n\
                          password = p=a:s#s\nendpoint_main = ch0\n[http]\nport = 8080\nusername = other\n";
    const PRUDYNT: &str = r#"{"http":{"port":80},"audio":{"x":[1,{"port":2}]},"rtsp":{"port":8554,"auth":true,
        "username":"me","password":"p\"w","deep":{"port":3}},"stream0":{"rtsp_endpoint":"/big"},"port":4}"#;
    const TIMPS: &str = "rtsp.enabled = 1\nrtsp.port    = 8554\nrtsp.user    =\nrtsp.pass    =\nhttp.user = x\n\
                         video1.rtsp_path = /small\n";
    const MAJESTIC: &str = "system:\n  webPort: 80\nrtsp:\n  enabled: true\n  port: \"8554\"\nhttp:\n  port: 1\n";

    #[test]
    fn each_streamer_says_it_its_own_way() {
        let raptor = ["rtsp://me:p=a:s#s@127.0.0.1:8554/ch0", "rtsp://me:p=a:s#s@127.0.0.1:8554/stream1"];
        assert_eq!(addresses(Streamer::Raptor, RAPTOR), raptor);
        let prudynt = ["rtsp://me:p\"w@127.0.0.1:8554/big", "rtsp://me:p\"w@127.0.0.1:8554/ch1"];
        assert_eq!(addresses(Streamer::Prudynt, PRUDYNT), prudynt);
        let timps = ["rtsp://127.0.0.1:8554/ch0", "rtsp://127.0.0.1:8554/small"];
        assert_eq!(addresses(Streamer::Timps, TIMPS), timps);
        let majestic = ["rtsp://root:12345@127.0.0.1:8554/stream=0", "rtsp://root:12345@127.0.0.1:8554/stream=1"];
        assert_eq!(addresses(Streamer::Majestic, MAJESTIC), majestic);
    }

    #[test]
    fn what_is_not_said_is_as_the_firmware_has_it() {
        let thingino = "rtsp://thingino:thingino@127.0.0.1:554/ch0";
        for streamer in [None, Some(Streamer::Raptor), Some(Streamer::Prudynt), Some(Streamer::Timps)] {
            assert_eq!(Rtsp::read(streamer, None).address(0), thingino);
            assert_eq!(Rtsp::read(streamer, Some(b"\xff\xfe")).address(0), thingino);
        }
        assert_eq!(addresses(Streamer::Prudynt, "")[0], thingino);
        assert_eq!(addresses(Streamer::Raptor, "[rtsp]\n")[0], "rtsp://127.0.0.1:554/stream0");
        assert_eq!(addresses(Streamer::Timps, "rtsp.port=\nvideo0.rtsp_path=\n")[0], "rtsp://127.0.0.1:554/ch0");
        assert_eq!(addresses(Streamer::Majestic, "")[0], "rtsp://root:12345@127.0.0.1:554/stream=0");
    }

    #[test]
    fn anything_can_be_read() {
        let all = [
            (Streamer::Raptor, RAPTOR),
            (Streamer::Prudynt, PRUDYNT),
            (Streamer::Timps, TIMPS),
            (Streamer::Majestic, MAJESTIC),
        ];
        for (streamer, text) in all {
            for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
                assert!(addresses(streamer, &text[..end])[0].starts_with("rtsp://"), "{end}");
            }
            for nonsense in
                ["[", "]", "[]", "=", ":", "é:\n :=", "[rtsp\nport", "{\"rtsp\":[[[[", "\0", "=x", "rtsp:\n\tport:\n"]
            {
                assert!(addresses(streamer, nonsense)[0].contains(":554/"), "{nonsense}");
            }
            let deep = format!("{{\"rtsp\":{}", "{\"a\":".repeat(20_000));
            assert!(addresses(streamer, &deep)[0].contains(":554/"));
        }
        // What came before the end counts.
        assert_eq!(addresses(Streamer::Prudynt, &PRUDYNT[..PRUDYNT.len() - 10])[0].matches("8554/big").count(), 1);
    }
}
