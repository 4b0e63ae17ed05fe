//! Where things come from and go to: sources, sinks, pins and commands of the configuration.

use super::values::{Text, must_be, path};
use crate::wire::evdev::key_code;
use crate::wire::yi::{Kind, Layout};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// One of the streams of the firmware's streamer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaptorStream {
    /// Full size.
    Main,
    /// The small one.
    Sub,
}

/// An RTSP or HTTP address, which may carry a password: `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The whole address, password included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Url {
    const EXPECTED: &'static str = "an address http://…";
    fn parse(text: &str) -> Result<Self, String> {
        url(text, &["http://", "https://"]).ok_or_else(|| must_be(Self::EXPECTED))
    }
}

fn url(text: &str, schemes: &[&str]) -> Option<Url> {
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme))?;
    let fits = !rest.is_empty() && !rest.starts_with('/') && text.len() <= 1024;
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Url(text.into()))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let authority = rest.find('/').unwrap_or(rest.len());
        match rest[..authority].rfind('@') {
            Some(at) => write!(f, "{scheme}://…{}", &rest[at..]),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A server on this machine, as a [`Url`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loopback<'a> {
    /// `user:password`, as it stands in the address.
    pub login: Option<&'a str>,
    /// TCP port of 127.0.0.1.
    pub port: u16,
    /// Path and query.
    pub target: &'a str,
}

/// An RTSP server, as a [`Url`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server<'a> {
    /// `user:password`, as it stands in the address.
    pub login: Option<&'a str>,
    /// Host and port as they stand in the address.
    pub host: &'a str,
    /// The host.
    pub address: Ipv4Addr,
    /// TCP port.
    pub port: u16,
    /// Path and query.
    pub target: &'a str,
}

/// What stands behind `rtsp://`: login, host with port, and target.
fn parts(rest: &str) -> (Option<&str>, &str, &str) {
    let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A password may have any character but "/".
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    (login, host, target)
}

impl Url {
    /// The address in parts, when it is one of `rtsp://` and of this machine or an IPv4 address: there is nobody
    /// here to ask for names.
    pub fn server(&self) -> Option<Server<'_>> {
        let (login, host, target) = parts(self.0.strip_prefix("rtsp://")?);
        let (name, port) =
            host.split_once(':').map_or(Some((host, 554)), |(name, port)| Some((name, port.parse().ok()?)))?;
        let address = if name == "localhost" { Ipv4Addr::LOCALHOST } else { name.parse().ok()? };
        Some(Server { login, host, address, port, target })
    }

    /// The address in parts, when it is one of `http://` and this machine.
    pub fn loopback(&self) -> Option<Loopback<'_>> {
        let (login, host, target) = parts(self.0.strip_prefix("http://")?);
        let port = match host.strip_prefix("127.0.0.1")? {
            "" => 80,
            more => more.strip_prefix(':')?.parse().ok()?,
        };
        Some(Loopback { login, port, target: if target.is_empty() { "/" } else { target } })
    }
}

/// Where the video comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoSource {
    /// The clip that is built in.
    Demo,
    /// A FIFO that somebody writes Annex-B H.264 into.
    Fifo(PathBuf),
    /// An Annex-B file, in real time and looped.
    File(PathBuf),
    /// A V4L2 device that delivers H.264.
    V4l2(PathBuf),
    /// The firmware's streamer, through its shared memory.
    Raptor(RaptorStream),
    /// An RTSP server.
    Rtsp(Url),
    /// A Unix socket for us to bind, whose datagrams are RTP packets.
    RtpUnix(PathBuf),
    /// A FIFO of the firmware yi-hack.
    YiFifo(PathBuf),
    /// The frame buffer of a Yi camera's own program.
    Yi(Layout, Kind),
}

/// The path behind `prefix`, when the text begins so.
fn path_after(text: &str, prefix: &str) -> Option<PathBuf> {
    text.strip_prefix(prefix).and_then(|rest| path(rest).ok())
}

fn yi(text: &str) -> Option<VideoSource> {
    let rest = text.strip_prefix("yi:")?;
    let (model, kind) = rest.strip_suffix(":low").map_or((rest, Kind::High), |model| (model, Kind::Low));
    Some(VideoSource::Yi(Layout::of(model)?, kind))
}

impl VideoSource {
    /// An RTSP server on this machine or at an IPv4 address.
    pub fn rtsp(address: &str) -> Option<Self> {
        url(address, &["rtsp://"]).filter(|url| url.server().is_some()).map(VideoSource::Rtsp)
    }
}

impl Text for VideoSource {
    const EXPECTED: &'static str = "a source: demo, fifo:PATH, fifo+yi:PATH, yi:MODEL[:low], file:PATH, v4l2:DEVICE, raptor:main, raptor:sub, rtp+unix:PATH, rtsp://127.0.0.1…";
    fn parse(text: &str) -> Result<Self, String> {
        let found = match text {
            "demo" => Some(VideoSource::Demo),
            "raptor:main" => Some(VideoSource::Raptor(RaptorStream::Main)),
            "raptor:sub" => Some(VideoSource::Raptor(RaptorStream::Sub)),
            _ => path_after(text, "fifo:")
                .map(VideoSource::Fifo)
                .or_else(|| path_after(text, "file:").map(VideoSource::File))
                .or_else(|| path_after(text, "fifo+yi:").map(VideoSource::YiFifo))
                .or_else(|| yi(text))
                .or_else(|| path_after(text, "rtp+unix:").map(VideoSource::RtpUnix))
                .or_else(|| path_after(text, "v4l2:").map(VideoSource::V4l2))
                .or_else(|| VideoSource::rtsp(text)),
        };
        found.ok_or_else(|| must_be(Self::EXPECTED))
    }
}

impl fmt::Display for VideoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VideoSource::Demo => f.write_str("demo"),
            VideoSource::Fifo(path) => write!(f, "fifo:{}", path.display()),
            VideoSource::File(path) => write!(f, "file:{}", path.display()),
            VideoSource::V4l2(path) => write!(f, "v4l2:{}", path.display()),
            VideoSource::Raptor(RaptorStream::Main) => f.write_str("raptor:main"),
            VideoSource::Raptor(RaptorStream::Sub) => f.write_str("raptor:sub"),
            VideoSource::Rtsp(url) => url.fmt(f),
            VideoSource::RtpUnix(path) => write!(f, "rtp+unix:{}", path.display()),
            VideoSource::YiFifo(path) => write!(f, "fifo+yi:{}", path.display()),
            VideoSource::Yi(layout, kind) => {
                write!(f, "yi:{}{}", layout.model, if *kind == Kind::Low { ":low" } else { "" })
            }
        }
    }
}

/// Where the sound comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioSource {
    /// With the video, if it has any.
    Auto,
    /// Nowhere.
    None,
    /// A FIFO.
    Fifo(PathBuf),
    /// A file, in real time and looped.
    File(PathBuf),
}

impl Text for AudioSource {
    const EXPECTED: &'static str = "a source of sound: auto, none, fifo:PATH, file:PATH";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(AudioSource::Auto),
            "none" => Ok(AudioSource::None),
            _ => path_after(text, "fifo:")
                .map(AudioSource::Fifo)
                .or_else(|| path_after(text, "file:").map(AudioSource::File))
                .ok_or_else(|| must_be(Self::EXPECTED)),
        }
    }
}

/// What the audio source delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC-LC in ADTS.
    Aac,
    /// Opus.
    Opus,
    /// Linear PCM, 16 bits.
    L16,
}

impl Text for AudioCodec {
    const EXPECTED: &'static str = "a codec: aac, opus, l16";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "aac" => Ok(AudioCodec::Aac),
            "opus" => Ok(AudioCodec::Opus),
            "l16" => Ok(AudioCodec::L16),
            _ => Err(must_be(Self::EXPECTED)),
        }
    }
}

/// Where still pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSource {
    /// Whatever the video source offers, otherwise the built-in picture.
    Auto,
    /// A JPEG file that somebody renews.
    File(PathBuf),
    /// A server on this camera.
    Http(Url),
    /// A V4L2 device that delivers JPEG.
    V4l2(PathBuf),
    /// The output of a command.
    Exec(Command),
}

impl Text for SnapshotSource {
    const EXPECTED: &'static str =
        "a source of pictures: auto, file:PATH, http://127.0.0.1/…, v4l2:DEVICE, exec:COMMAND";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Some(SnapshotSource::Auto),
            _ => path_after(text, "file:")
                .map(SnapshotSource::File)
                .or_else(|| path_after(text, "v4l2:").map(SnapshotSource::V4l2))
                .or_else(|| command_after(text, "exec:").map(SnapshotSource::Exec))
                .or_else(|| url(text, &["http://"]).filter(|url| url.loopback().is_some()).map(SnapshotSource::Http)),
        }
        .ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// Where talk-back goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpeakerSink {
    /// No talk-back.
    None,
    /// A FIFO.
    Fifo(PathBuf),
    /// A FIFO that Yi's own program reads.
    YiFifo(PathBuf),
    /// The firmware's streamer.
    Raptor,
    /// The back channel of the video source.
    Rtsp,
    /// An OSS device.
    Oss(PathBuf),
    /// The input of a command.
    Exec(Command),
}

impl Text for SpeakerSink {
    const EXPECTED: &'static str = "a sink: none, fifo:PATH, fifo+yi:PATH, raptor, rtsp, oss:DEVICE, exec:COMMAND";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "none" => Some(SpeakerSink::None),
            "raptor" => Some(SpeakerSink::Raptor),
            "rtsp" => Some(SpeakerSink::Rtsp),
            _ => path_after(text, "fifo:")
                .map(SpeakerSink::Fifo)
                .or_else(|| path_after(text, "fifo+yi:").map(SpeakerSink::YiFifo))
                .or_else(|| path_after(text, "oss:").map(SpeakerSink::Oss))
                .or_else(|| command_after(text, "exec:").map(SpeakerSink::Exec)),
        }
        .ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// Who says that something moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MotionMode {
    /// The detector on the encoded stream.
    Detect,
    /// Always on.
    Continuous,
    /// The control interface only.
    Api,
    /// The firmware's own detector.
    Firmware,
    /// An ONVIF event service.
    Onvif,
    /// Nobody.
    Off,
}

impl MotionMode {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            MotionMode::Detect => "detect",
            MotionMode::Continuous => "continuous",
            MotionMode::Api => "api",
            MotionMode::Firmware => "firmware",
            MotionMode::Onvif => "onvif",
            MotionMode::Off => "off",
        }
    }
}

impl Text for MotionMode {
    const EXPECTED: &'static str = "a mode: detect, continuous, api, firmware, onvif, off";
    fn parse(text: &str) -> Result<Self, String> {
        use MotionMode::*;
        [Detect, Continuous, Api, Firmware, Onvif, Off]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// A button or a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Button {
    /// A key of an input device.
    Evdev {
        /// `/dev/input/event…`; `None`: the first that has the key.
        device: Option<PathBuf>,
        /// The kernel's code of the key.
        key: u16,
    },
    /// A GPIO by its sysfs number.
    Sysfs(Gpio),
    /// A line of a GPIO character device.
    Gpiochip {
        /// `/dev/gpiochip…`
        device: PathBuf,
        /// The line.
        line: Gpio,
    },
}

impl Text for Button {
    const EXPECTED: &'static str =
        "a button: evdev:auto:KEY_1, evdev:DEVICE:KEY_1, sysfs:GPIO[:low], gpiochip:DEVICE:LINE[:low]";
    fn parse(text: &str) -> Result<Self, String> {
        let parse = || {
            if let Some(rest) = text.strip_prefix("evdev:") {
                let (device, key) = rest.rsplit_once(':')?;
                let device = if device == "auto" { None } else { Some(path(device).ok()?) };
                return Some(Button::Evdev { device, key: key_code(key)? });
            }
            if let Some(rest) = text.strip_prefix("gpiochip:") {
                let (rest, low) = rest.strip_suffix(":low").map_or((rest, false), |rest| (rest, true));
                let (device, number) = rest.rsplit_once(':')?;
                let line = Gpio { number: number.parse().ok()?, low };
                return Some(Button::Gpiochip { device: path(device).ok()?, line });
            }
            text.strip_prefix("sysfs:").and_then(Gpio::parse).map(Button::Sysfs)
        };
        parse().ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// A general-purpose pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpio {
    /// Its number.
    pub number: u32,
    /// Whether it is active at low level.
    pub low: bool,
}

impl Gpio {
    fn parse(text: &str) -> Option<Self> {
        let (number, low) = text.strip_suffix(":low").map_or((text, false), |number| (number, true));
        Some(Gpio { number: number.parse().ok()?, low })
    }
}

/// Something that is switched on and off: a light, a chime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A GPIO by its sysfs number.
    Sysfs(Gpio),
    /// A name in `/sys/class/leds`.
    Led(String),
    /// A command.
    Exec(Command),
}

impl Text for Output {
    const EXPECTED: &'static str = "one of sysfs:GPIO[:low], led:NAME, exec:COMMAND";
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("led:").filter(|name| !name.is_empty() && !name.contains(['/', '\0'])) {
            return Ok(Output::Led(name.into()));
        }
        let gpio = text.strip_prefix("sysfs:").and_then(Gpio::parse).map(Output::Sysfs);
        gpio.or_else(|| command_after(text, "exec:").map(Output::Exec)).ok_or_else(|| must_be(Self::EXPECTED))
    }
}

/// A command line for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(pub String);

impl Text for Command {
    const EXPECTED: &'static str = "a command";
    fn parse(text: &str) -> Result<Self, String> {
        let fits = !text.trim().is_empty() && text.len() <= 1024 && !text.contains('\0');
        fits.then(|| Command(text.into())).ok_or_else(|| "must be a command of 1 to 1024 bytes".into())
    }
}

fn command_after(text: &str, prefix: &str) -> Option<Command> {
    text.strip_prefix(prefix).and_then(|rest| Command::parse(rest).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let source = VideoSource::parse("rtsp://me:p@ss@10.0.0.1/ch0@x").expect("legal");
        assert_eq!(source.to_string(), "rtsp://…@10.0.0.1/ch0@x");
        assert!(!format!("{source:?}").contains("p@ss"));
    }

    #[test]
    fn sources_are_recognised() {
        for text in [
            "demo",
            "fifo:/tmp/v",
            "file:a b",
            "v4l2:/dev/video0",
            "raptor:main",
            "raptor:sub",
            "rtsp://1.2.3.4/x",
            "fifo+yi:/tmp/h264_high_fifo",
            "yi:y20ga",
            "yi:y623:low",
            "rtp+unix:/tmp/rtpstream.sock",
        ] {
            assert_eq!(VideoSource::parse(text).expect(text).to_string(), text);
        }
        for text in [
            "",
            "Demo",
            "fifo+yi:",
            "yi:",
            "yi:low",
            "yi:y20",
            "yi:y20ga:high",
            "fifo:",
            "/tmp/v",
            "raptor:",
            "rtp+unix:",
            "rtsp://",
            "rtsp:///x",
            "rtsp://a b",
            "rtsp://h/x",
            "rtsp://1.2.3.4:x/",
            "http://1.2.3.4/",
        ] {
            assert!(VideoSource::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn buttons_and_lights_are_recognised() {
        let pin = |number, low| Gpio { number, low };
        assert_eq!(Button::parse("sysfs:17:low"), Ok(Button::Sysfs(pin(17, true))));
        assert_eq!(
            Button::parse("gpiochip:/dev/gpiochip0:4"),
            Ok(Button::Gpiochip { device: "/dev/gpiochip0".into(), line: pin(4, false) })
        );
        assert_eq!(
            Button::parse("evdev:/dev/input/event0:KEY_1"),
            Ok(Button::Evdev { device: Some("/dev/input/event0".into()), key: 2 })
        );
        assert_eq!(Button::parse("evdev:auto:148"), Ok(Button::Evdev { device: None, key: 148 }));
        for wrong in [
            "",
            "sysfs:",
            "sysfs:x",
            "evdev:/dev/input/event0",
            "evdev::KEY_1",
            "evdev:/d:KEY_",
            "evdev:/d:KEY_X",
            "gpiochip:4",
        ] {
            assert!(Button::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Output::parse("sysfs:3"), Ok(Output::Sysfs(pin(3, false))));
        assert_eq!(Output::parse("led:led_blue"), Ok(Output::Led("led_blue".into())));
        for wrong in ["exec: ", "led:", "led:../x", "led:a\0b", "sysfs:x"] {
            assert!(Output::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pictures_come_from_this_machine_only() {
        assert!(SnapshotSource::parse("http://127.0.0.1/a.jpg").is_ok());
        assert!(SnapshotSource::parse("http://127.0.0.1:8080/a.jpg").is_ok());
        for wrong in [
            "http://127.0.0.1.evil/",
            "http://10.0.0.1/",
            "https://127.0.0.1/",
            "http://127.0.0.1:80@10.0.0.1/",
            "http://me@10.0.0.1/@127.0.0.1/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:/",
            "file:",
            "exec:",
        ] {
            assert!(SnapshotSource::parse(wrong).is_err(), "{wrong}");
        }
        let server = VideoSource::parse("rtsp://me:p@s:s@localhost:8554/ch0?x=1");
        let Ok(VideoSource::Rtsp(address)) = server else { panic!("{server:?}") };
        let want = Server {
            login: Some("me:p@s:s"),
            host: "localhost:8554",
            address: Ipv4Addr::LOCALHOST,
            port: 8554,
            target: "/ch0?x=1",
        };
        assert_eq!(address.server(), Some(want));
        let parts = |text: &str| {
            let url = url(text, &["http://"]).expect(text);
            let Loopback { login, port, target } = url.loopback().expect(text);
            (login.map(String::from), port, target.to_string())
        };
        assert_eq!(parts("http://127.0.0.1"), (None, 80, "/".into()));
        assert_eq!(parts("http://127.0.0.1:8080/a?b=c@d"), (None, 8080, "/a?b=c@d".into()));
        assert_eq!(parts("http://me:p@s:s@127.0.0.1/x"), (Some("me:p@s:s".into()), 80, "/x".into()));
    }
}
