//! Still pictures: where `/resource` and `hksvd snapshot` get their JPEG from.

use super::{raptor, v4l2};
use crate::config::{Loopback, SnapshotSource};
use crate::io::command::{self, Commands, Order};
use crate::io::http_get;
use crate::io::runtime::{now, or, sleep_until};
use crate::sys::connect;
use crate::time::Duration;
use crate::wire::Malformed;
use crate::wire::http_answer::NoBody;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is answered when the camera gives no picture: 640x360, baseline JPEG.
pub static PLACEHOLDER: &[u8] = include_bytes!("placeholder.jpg");

/// The largest picture that is passed on, in bytes: Home asks for tiles, not for prints, and the
/// picture lives in the memory of a small camera while it is sent.
pub const MAX_BYTES: usize = 512 * 1024;

/// How long a picture may take. Home waits a little longer.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The part of [`LIMIT`] in which a ring gives a picture: it makes one a second.
const RING_LIMIT: Duration = Duration::from_millis(2_500);

/// Why there is no picture.
#[derive(Debug)]
pub enum NoPicture {
    /// `auto`, and nothing is known here that makes pictures.
    NoSource,
    /// The file could not be opened or read.
    Unreadable(std::io::Error),
    /// Not a regular file: reading could wait for ever.
    NoFile,
    /// It is larger than [`MAX_BYTES`].
    TooLarge,
    /// It is not a complete JPEG: perhaps it is being written just now.
    NotJpeg,
    /// It has taken longer than [`LIMIT`].
    TooLong,
    /// The server has none.
    Http(http_get::Failed),
    /// The command has printed none.
    Exec(command::Failed),
    /// The device gives none.
    Device(PathBuf, std::io::Error),
}

impl fmt::Display for NoPicture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPicture::NoSource => f.write_str("no streamer that is known"),
            NoPicture::Unreadable(e) => write!(f, "{e}"),
            NoPicture::NoFile => f.write_str("not a regular file"),
            NoPicture::TooLarge => write!(f, "larger than {} KiB", MAX_BYTES / 1024),
            NoPicture::NotJpeg => f.write_str("not a complete JPEG picture"),
            NoPicture::TooLong => write!(f, "no picture within {} s", LIMIT.as_secs()),
            NoPicture::Http(why) => why.fmt(f),
            NoPicture::Exec(why) => write!(f, "the command {why}"),
            NoPicture::Device(path, why) => write!(f, "{}: {why}", path.display()),
        }
    }
}

/// What [`read`] returns.
pub type FromFile = Result<(Vec<u8>, Duration), NoPicture>;

/// Reads the JPEG at `path`; also how long ago it was written. Blocks for as long as its file system does.
///
/// # Errors
/// [`NoPicture`] when there is none, it is too large, or it does not begin and end as JPEG does
/// (ITU-T T.81 §B.1.1.3: SOI and EOI).
pub fn read(path: &Path) -> FromFile {
    // Opening a FIFO or a device may wait, or do something. It may also be put there in between: then the
    // opening does not wait.
    let look = |there: std::fs::Metadata| if there.is_file() { Ok(there) } else { Err(NoPicture::NoFile) };
    look(path.metadata().map_err(NoPicture::Unreadable)?)?;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(NoPicture::Unreadable)?;
    let there = look(file.metadata().map_err(NoPicture::Unreadable)?)?;
    // A clock that was set back in between makes it new.
    let age = there.modified().ok().and_then(|written| written.elapsed().ok()).unwrap_or(Duration::ZERO);
    let mut jpeg = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut jpeg).map_err(NoPicture::Unreadable)?;
    Ok((checked(jpeg)?, age))
}

fn checked(jpeg: Vec<u8>) -> Result<Vec<u8>, NoPicture> {
    match jpeg.len() {
        len if len > MAX_BYTES => Err(NoPicture::TooLarge),
        _ if !is_jpeg(&jpeg) => Err(NoPicture::NotJpeg),
        _ => Ok(jpeg),
    }
}

pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    // Cameras pad the end of a picture with zeros.
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    bytes.starts_with(&[0xff, 0xd8, 0xff]) && bytes[..end].ends_with(&[0xff, 0xd9])
}

/// The width of a JPEG in pixels (ITU-T T.81 §B.2.2).
pub fn width(jpeg: &[u8]) -> Option<u32> {
    let mut rest = jpeg.get(2..)?;
    loop {
        let [0xff, marker, high, low, body @ ..] = rest else { return None };
        // SOF0 to SOF15, but DHT, JPG and DAC.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return body.get(3..5).map(|width| u32::from(width[0]) << 8 | u32::from(width[1]));
        }
        let length = usize::from(*high) << 8 | usize::from(*low);
        rest = body.get(length.checked_sub(2)?..)?;
    }
}

/// A streamer of the firmware that makes pictures of the main stream and of a small one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streamer {
    /// raptor, by its ring or its web server (RHD).
    Raptor,
    /// prudynt-t, by its control socket.
    Prudynt,
    /// timps: this machine needs no login.
    Timps,
    /// OpenIPC's majestic.
    Majestic,
}

const PRUDYNT: &str = "run/prudynt/prudynt.sock";

impl Streamer {
    /// The one that runs on this camera, by what it leaves in the file system under `root`.
    pub fn find(root: &Path) -> Option<Self> {
        let marks = [
            ("var/run/rss/rvd.sock", Streamer::Raptor),
            (PRUDYNT, Streamer::Prudynt),
            ("run/timps.token", Streamer::Timps),
            ("etc/majestic.yaml", Streamer::Majestic),
        ];
        marks.into_iter().find(|(mark, _)| root.join(mark).exists()).map(|(_, streamer)| streamer)
    }

    fn address(self, large: bool) -> Option<Loopback<'static>> {
        let (port, targets) = match self {
            Streamer::Raptor => (8080, ["/snap.jpg?stream=1", "/snap.jpg?stream=0"]),
            Streamer::Timps => (8880, ["/snapshot.jpg?chn=1", "/snapshot.jpg?chn=0"]),
            Streamer::Majestic => (80, ["/image.jpg?width=640&height=360", "/image.jpg?width=1280&height=720"]),
            Streamer::Prudynt => return None,
        };
        Some(Loopback { login: None, port, target: targets[usize::from(large)] })
    }

    async fn fetch(self, root: &Path, large: bool) -> Result<Vec<u8>, http_get::Failed> {
        if let Some(address) = self.address(large) {
            return http_get::get(address, MAX_BYTES).await;
        }
        let request: &[u8] = if large { b"SNAPSHOT ch=0 q=75" } else { b"SNAPSHOT ch=1 q=75" };
        http_get::ask(connect::unix(&root.join(PRUDYNT))?, request, true, prudynt_answer, MAX_BYTES).await
    }
}

/// Raptor's ring of pictures costs no HTTP. Where it gives none its web server may.
async fn from_ring(root: &Path, large: bool) -> Option<Vec<u8>> {
    let late = async {
        sleep_until(now() + RING_LIMIT).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    match or(raptor::picture(root, large, MAX_BYTES), late).await {
        Ok(jpeg) => Some(jpeg),
        Err(error) => {
            log::debug!("no picture from raptor's ring: {error}");
            None
        }
    }
}

/// `OK LENGTH`, a line's end, and so many bytes; anything else is an error.
fn prudynt_answer(bytes: &mut [u8], closed: bool, most: usize) -> Result<Option<Range<usize>>, NoBody> {
    let Some(end) = bytes.iter().take(80).position(|&b| b == b'\n') else {
        return match closed || bytes.len() >= 80 {
            true => Err(Malformed("no line with OK").into()),
            false => Ok(None),
        };
    };
    let line = core::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let length = line.strip_prefix("OK ").and_then(|length| length.trim().parse::<usize>().ok());
    let length = length.ok_or(Malformed("no line with OK"))?;
    match bytes.len() - end - 1 {
        _ if length > most => Err(NoBody::TooLarge),
        there if there >= length => Ok(Some(end + 1..end + 1 + length)),
        _ if closed => Err(Malformed("it ends before its end").into()),
        _ => Ok(None),
    }
}

async fn from_node(path: PathBuf) -> Result<Vec<u8>, NoPicture> {
    v4l2::picture(&path, MAX_BYTES).await.map_err(|why| NoPicture::Device(path, why))
}

/// Takes a picture from anything but a file: the larger one, where there are two. What is on this camera is
/// looked for under `root`; `node` is the device of the video, if it comes from one. There is no limit of time but for
/// commands: drop it.
///
/// # Errors
/// [`NoPicture`].
pub async fn fetch(
    source: &SnapshotSource,
    commands: &Commands,
    root: &Path,
    node: Option<&Path>,
    large: bool,
) -> Result<Vec<u8>, NoPicture> {
    let jpeg = match source {
        SnapshotSource::V4l2(path) => from_node(path.clone()).await?,
        SnapshotSource::Auto => {
            let Some(streamer) = Streamer::find(root) else {
                let node = node.and_then(|node| v4l2::picture_node(root, node)).ok_or(NoPicture::NoSource)?;
                return from_node(node).await;
            };
            let from_ring = if streamer == Streamer::Raptor { from_ring(root, large).await } else { None };
            match from_ring {
                Some(jpeg) => jpeg,
                None => streamer.fetch(root, large).await.map_err(NoPicture::Http)?,
            }
        }
        SnapshotSource::Http(url) => {
            let address = url.loopback().ok_or(NoPicture::NoSource)?;
            http_get::get(address, MAX_BYTES).await.map_err(NoPicture::Http)?
        }
        SnapshotSource::Exec(command) => {
            let order = Order { command: &command.0, variables: &[], limit: LIMIT };
            commands.capture(order, MAX_BYTES).await.map_err(NoPicture::Exec)?
        }
        // Read by the worker thread.
        SnapshotSource::File(_) => return Err(NoPicture::NoSource),
    };
    checked(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placeholder_is_a_jpeg_of_640x360() {
        assert!(is_jpeg(PLACEHOLDER));
        // SOF0 (ITU-T T.81 §B.2.2): marker, length, precision, height, width.
        let sof0 = PLACEHOLDER.windows(9).find(|w| w[..2] == [0xff, 0xc0]).expect("a baseline frame");
        assert_eq!(sof0[5..9], [0x01, 0x68, 0x02, 0x80]);
        assert_eq!(width(PLACEHOLDER), Some(640));
    }

    #[test]
    fn a_width_is_found_or_not() {
        let sof = PLACEHOLDER.windows(2).position(|w| w == [0xff, 0xc0]).expect("a baseline frame");
        for end in 0..sof + 9 {
            assert_eq!(width(&PLACEHOLDER[..end]), None, "{end}");
        }
        assert_eq!(width(&[0xff, 0xd8, 0xff, 0xe0, 0, 1, 0xff, 0xc0]), None);
    }

    #[test]
    fn refuses_what_is_no_picture() {
        let dir = std::env::temp_dir().join(format!("hksvd-snapshot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("snap.jpg");
        assert!(matches!(read(&path), Err(NoPicture::Unreadable(_))));
        for bad in [&b""[..], b"\xff\xd8\xff", b"<html>", &PLACEHOLDER[..PLACEHOLDER.len() - 2]] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(read(&path), Err(NoPicture::NotJpeg)));
        }
        std::fs::write(&path, vec![0xff; MAX_BYTES + 1]).unwrap();
        assert!(matches!(read(&path), Err(NoPicture::TooLarge)));
        let padded = [PLACEHOLDER, &[0; 7]].concat();
        std::fs::write(&path, &padded).unwrap();
        assert_eq!(read(&path).unwrap().0, padded);
        let hour = Duration::from_secs(3_600);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() - hour).unwrap();
        let (_, age) = read(&path).unwrap();
        assert!(age >= hour && age < 2 * hour, "{age:?}");
        // Nobody writes into this FIFO: opening it as a file is opened would wait.
        let fifo = dir.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for other in [&dir, &fifo, Path::new("/dev/zero")] as [&Path; 3] {
            assert!(matches!(read(other), Err(NoPicture::NoFile)), "{}", other.display());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn streamers_are_known_by_what_they_leave() {
        let root = std::env::temp_dir().join(format!("hksvd-streamer-{}", std::process::id()));
        assert_eq!(Streamer::find(&root), None);
        // Each hides those after it.
        for (mark, streamer) in [
            ("etc/majestic.yaml", Streamer::Majestic),
            ("run/timps.token", Streamer::Timps),
            ("run/prudynt/prudynt.sock", Streamer::Prudynt),
            ("var/run/rss/rvd.sock", Streamer::Raptor),
        ] {
            let mark = root.join(mark);
            std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
            std::fs::write(&mark, "").unwrap();
            assert_eq!(Streamer::find(&root), Some(streamer));
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_prudynt_answers() {
        let find = |answer: &[u8], closed| prudynt_answer(&mut answer.to_vec(), closed, 16);
        let whole = b"OK 3\nabc";
        assert_eq!(find(whole, false), Ok(Some(5..8)));
        for end in 0..whole.len() {
            assert_eq!(find(&whole[..end], false), Ok(None));
            assert!(find(&whole[..end], true).is_err());
        }
        assert_eq!(find(b"OK 17\n", false), Err(NoBody::TooLarge));
        for bad in [&b"ERR busy\n"[..], b"OK\n", b"OK -1\n", b"OK 99999999999999999999999\n", b"\xff\n", &[b'x'; 80]] {
            assert!(matches!(find(bad, false), Err(NoBody::Malformed(_))));
        }
    }
}
