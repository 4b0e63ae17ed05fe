//! Sources as the configuration names them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `video.source` of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VideoSpec {
    /// `demo`: the built-in clip.
    Demo,
    /// `fifo:PATH`: an Annex B byte stream from a FIFO.
    Fifo(PathBuf),
    /// `file:PATH`: an Annex B file in real time, again and again.
    File(PathBuf),
}

/// `audio.source` of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AudioSpec {
    /// `auto`: what belongs to the video source.
    Auto,
    /// `none`: there is no microphone.
    None,
    /// `fifo:PATH`: ADTS AAC from a FIFO.
    Fifo(PathBuf),
    /// `file:PATH`: an ADTS AAC file beside a video that is a file, too.
    File(PathBuf),
}

/// A source that is none; the text names it and what would be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

/// Sources that later versions know.
const NOT_YET: [&str; 3] = ["v4l2:", "raptor:", "rtsp://"];

fn unknown(text: &str, known: &str) -> SpecError {
    SpecError(match NOT_YET.iter().find(|scheme| text.starts_with(**scheme)) {
        Some(scheme) => format!("the source {scheme} is not built yet in this version; use {known}"),
        None => format!("unknown source \"{text}\"; use {known}"),
    })
}

fn path(text: &str, scheme: &str) -> Option<Result<PathBuf, SpecError>> {
    let path = text.strip_prefix(scheme)?;
    Some(if path.is_empty() { Err(SpecError(format!("{scheme} needs a path"))) } else { Ok(path.into()) })
}

impl FromStr for VideoSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match (text, path(text, "fifo:"), path(text, "file:")) {
            ("demo", ..) => Ok(VideoSpec::Demo),
            (_, Some(path), _) => path.map(VideoSpec::Fifo),
            (_, _, Some(path)) => path.map(VideoSpec::File),
            _ => Err(unknown(text, "demo, fifo:PATH or file:PATH")),
        }
    }
}

impl FromStr for AudioSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match (text, path(text, "fifo:"), path(text, "file:")) {
            ("auto", ..) => Ok(AudioSpec::Auto),
            ("none", ..) => Ok(AudioSpec::None),
            (_, Some(path), _) => path.map(AudioSpec::Fifo),
            (_, _, Some(path)) => path.map(AudioSpec::File),
            _ => Err(unknown(text, "auto, none, fifo:PATH or file:PATH")),
        }
    }
}

impl fmt::Display for VideoSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VideoSpec::Demo => f.write_str("demo"),
            VideoSpec::Fifo(path) => write!(f, "fifo:{}", path.display()),
            VideoSpec::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Display for AudioSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AudioSpec::Auto => f.write_str("auto"),
            AudioSpec::None => f.write_str("none"),
            AudioSpec::Fifo(path) => write!(f, "fifo:{}", path.display()),
            AudioSpec::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_written() {
        for text in ["demo", "fifo:/tmp/h264", "file:clip with spaces.h264"] {
            assert_eq!(text.parse::<VideoSpec>().unwrap().to_string(), text);
        }
        for text in ["auto", "none", "fifo:/tmp/aac", "file:clip.aac"] {
            assert_eq!(text.parse::<AudioSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        for text in ["v4l2:/dev/video0", "raptor:main", "rtsp://127.0.0.1/main"] {
            let error = text.parse::<VideoSpec>().unwrap_err().to_string();
            assert!(error.contains("is not built yet in this version"), "{error}");
        }
        assert_eq!("fifo:".parse::<VideoSpec>().unwrap_err().to_string(), "fifo: needs a path");
        let error = "/tmp/x".parse::<VideoSpec>().unwrap_err().to_string();
        assert_eq!(error, "unknown source \"/tmp/x\"; use demo, fifo:PATH or file:PATH");
        assert!("demo".parse::<AudioSpec>().is_err());
        assert!("".parse::<VideoSpec>().is_err());
    }
}
