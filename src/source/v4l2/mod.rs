//! `v4l2:DEVICE`: an encoder behind a device node, or a loopback device that a streamer writes into. One buffer is one
//! access unit.

mod bitrate;
mod device;
#[cfg(test)]
mod tests;

use super::fifo::{Pictures, Stream as _};
use super::raptor::clock::Clock;
use super::{Sink, Track, Trouble, Troubles, snapshot};
use crate::io::runtime::{Fd, Signal, now, or, sleep_until, yield_now};
use crate::time::{Duration, Instant};
use crate::trace::Repeats;
use crate::wire::h264::AnnexB;
pub use bitrate::Bitrate;
use device::{Device, JPEG, Node, Stream, Taken};
pub use device::{H264, Offer, Size, fourcc, offers};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Nothing for so long, and the stream is started anew: some drivers stop without a word.
const STALL: Duration = Duration::from_secs(2);

/// And from the start to the first picture: there are encoders that load their firmware then.
const FIRST: Duration = Duration::from_secs(10);

/// Between two attempts to open: doubled each time, up to the second.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// Between two requests for a key frame.
const KEY_FRAME_PAUSE: Duration = Duration::from_secs(1);

/// A number that jumps means a lost picture, if so many have counted without a jump. There are devices that count
/// something else.
const STEADY: u32 = 8;

/// The first picture of a stream of them may be torn.
const PICTURES_TRIED: u32 = 8;

/// Without a word of the kernel for so long, the device is asked.
const LOOK: Duration = Duration::from_millis(300);

/// A node that streams, until it is dropped.
pub struct Capture {
    node: Node,
    stream: Stream,
    /// What wakes us. Drivers (v4l2loopback; videobuf2 before 5.11) do not remember who waits when he asks while
    /// something is there, or while they do not stream: there is none until the device has nothing.
    told: Option<Fd<File>>,
}

impl Capture {
    /// Opens the node and makes it stream in the first of `formats` that it has.
    ///
    /// # Errors
    /// One line for a person.
    pub fn open(path: &Path, formats: &[u32], fps: u32) -> Result<Self> {
        let mut node = Node::open(path)?;
        let stream = device::start(&mut node, formats, fps)?;
        Ok(Capture { node, stream, told: None })
    }

    /// The size in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.stream.width, self.stream.height)
    }

    /// The most that a buffer holds.
    pub fn largest(&self) -> usize {
        self.stream.length as usize
    }

    /// Waits for the next buffer and puts what is in it into `out`: so many bytes, if they fit and are whole.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn read(&mut self, out: &mut [u8]) -> Result<Option<usize>> {
        let taken = self.take(out).await?;
        Ok((taken.fits && !taken.broken).then_some(taken.length))
    }

    async fn take(&mut self, out: &mut [u8]) -> Result<Taken> {
        loop {
            if let Some(told) = &self.told {
                let ready = async { Some(told.when_readable(|_| device::take(&self.node, &self.stream, out)).await) };
                let late = async {
                    sleep_until(now() + LOOK).await;
                    None
                };
                if let Some(result) = or(ready, late).await {
                    return result;
                }
            }
            match device::take(&self.node, &self.stream, out) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.told.is_none() {
                        self.told = Some(Fd::new(self.node.file()?)?);
                    }
                }
                result => {
                    // There was something, and nobody has said so.
                    self.told = None;
                    return result;
                }
            }
        }
    }
}

/// Reads H.264 for ever: opens the device again whenever its stream is over. Asks it for a key frame when one is
/// `wanted`.
pub async fn play(path: &Path, fps: u32, access_unit_bytes: usize, wanted: &Signal, sink: &mut dyn Sink) -> Error {
    let name = format!("v4l2:{}", path.display());
    let mut player = Player::new(&name, access_unit_bytes);
    let mut failures = Repeats::default();
    let mut told = None;
    let mut pause = RETRY[0];
    loop {
        player.begin();
        let error = match Capture::open(path, &[H264], fps) {
            Ok(mut capture) => {
                if told.as_ref() != Some(&capture.stream.name) {
                    log::info!("{name}: {}", capture.stream.name);
                    told = Some(capture.stream.name.clone());
                }
                player.play(&mut capture, wanted, sink).await
            }
            Err(error) => error,
        };
        if player.has_picture {
            pause = RETRY[0];
        }
        sink.trouble(Track::Video, if player.has_seen { Trouble::WriterGone } else { Trouble::Missing });
        failures.note(now(), error.to_string(), |error, repeated| {
            log::warn!("{name}: {error}{repeated}; trying again");
        });
        sleep_until(now() + pause).await;
        pause = (pause * 2).min(RETRY[1]);
    }
}

struct Player {
    pictures: Pictures,
    clock: Clock,
    troubles: Troubles,
    /// The last number, and how many have come in a row.
    sequence: Option<(u32, u32)>,
    asked: Option<Instant>,
    /// A buffer, since the device was opened.
    has_seen: bool,
    /// And a picture in it.
    has_picture: bool,
}

impl Player {
    fn new(name: &str, access_unit_bytes: usize) -> Self {
        Player {
            pictures: Pictures::new(access_unit_bytes),
            clock: Clock::default(),
            troubles: Troubles::new(Track::Video, name.to_owned()),
            sequence: None,
            asked: None,
            has_seen: false,
            has_picture: false,
        }
    }

    fn begin(&mut self) {
        self.pictures.reset();
        self.clock = Clock::default();
        self.sequence = None;
        (self.has_seen, self.has_picture) = (false, false);
    }

    async fn play(&mut self, capture: &mut Capture, wanted: &Signal, sink: &mut dyn Sink) -> Error {
        // Of the last buffer: viewers without pictures ask for key frames again and again.
        let mut latest = now();
        loop {
            let (seen, patience) = (wanted.count(), self.patience());
            let take = async { Some(capture.take(self.pictures.receive_buffer()).await) };
            let asked = async {
                wanted.changed(seen).await;
                None
            };
            let late = async {
                sleep_until(latest + patience).await;
                Some(Err(ErrorKind::TimedOut.into()))
            };
            match or(take, or(asked, late)).await {
                Some(Ok(taken)) => {
                    latest = now();
                    self.taken(&capture.node, &taken, latest, sink);
                }
                Some(Err(error)) if error.kind() == ErrorKind::TimedOut => {
                    self.troubles.report(Trouble::Stalled, sink);
                    return error;
                }
                Some(Err(error)) => return error,
                None => self.force_key_frame(&capture.node, now()),
            }
            yield_now().await;
        }
    }

    /// For the next buffer.
    fn patience(&self) -> Duration {
        if self.has_picture { STALL } else { FIRST }
    }

    /// What is in the buffer of the pictures belongs to them, or is lost.
    fn taken(&mut self, device: &dyn Device, taken: &Taken, now: Instant, sink: &mut dyn Sink) {
        let lost = if taken.broken {
            Some(Trouble::Torn)
        } else if !taken.fits {
            Some(Trouble::Oversized)
        } else {
            self.is_jump(taken.sequence).then_some(Trouble::Overrun)
        };
        self.sequence = Some((taken.sequence, self.sequence.map_or(0, |(_, steps)| steps)));
        if let Some(trouble) = lost {
            self.pictures.reset();
            // A loopback begins with a buffer of its own that nobody has written.
            if self.has_seen || trouble != Trouble::Oversized {
                self.troubles.report(trouble, sink);
            }
            return self.force_key_frame(device, now);
        }
        self.has_seen = true;
        if !self.has_picture {
            let bytes = self.pictures.receive_buffer().get(..taken.length).unwrap_or_default();
            self.has_picture = AnnexB::new(bytes).nals().any(|nal| nal.nal_type().is_vcl());
        }
        let arrival = taken.timestamp_us.map_or(now, |timestamp_us| self.clock.arrival(timestamp_us, now));
        self.pictures.received(taken.length, arrival, sink, &mut self.troubles);
        // Parameter sets that come in a buffer of their own stay for the next.
        self.pictures.paused(sink);
    }

    fn is_jump(&mut self, sequence: u32) -> bool {
        let Some((last, steps)) = &mut self.sequence else { return false };
        // Some drivers do not count.
        match sequence.wrapping_sub(*last) {
            0 => false,
            1 => {
                *steps = steps.saturating_add(1);
                false
            }
            _ => core::mem::take(steps) >= STEADY,
        }
    }

    fn force_key_frame(&mut self, device: &dyn Device, now: Instant) {
        if self.asked.is_none_or(|asked| now - asked >= KEY_FRAME_PAUSE) {
            self.asked = Some(now);
            device::force_key_frame(device);
        }
    }
}

/// One JPEG picture from a node of at most `most` bytes; the node is free again afterwards. There is no limit of time:
/// drop it.
///
/// # Errors
/// One line for a person.
pub async fn picture(path: &Path, most: usize) -> Result<Vec<u8>> {
    let mut capture = Capture::open(path, &JPEG, 0)?;
    let mut jpeg = vec![0; capture.largest().min(most)];
    for _ in 0..PICTURES_TRIED {
        if let Some(length) = capture.read(&mut jpeg).await?
            && snapshot::is_jpeg(&jpeg[..length])
        {
            jpeg.truncate(length);
            return Ok(jpeg);
        }
    }
    Err(Error::new(ErrorKind::InvalidData, "no whole picture came, or none that is small enough"))
}

/// The nodes to look at in `dev` under `root`. Those of a gadget are none: with them this machine is somebody else's
/// webcam, and in old kernels whoever closes one, just to have asked what it is, ends its stream.
pub fn nodes(root: &Path) -> impl Iterator<Item = PathBuf> {
    let is_gadget = |n: &u8| {
        // The name that old kernels have for it is `gadget`; newer ones have it with a number behind it.
        let device = root.join(format!("sys/class/video4linux/video{n}/device")).canonicalize();
        device.is_ok_and(|path| path.iter().any(|name| name.as_encoded_bytes().starts_with(b"gadget")))
    };
    (0..16).filter(move |n| !is_gadget(n)).map(|n| root.join(format!("dev/video{n}")))
}

/// Where JPEG pictures of what this node shows come from: another of the [`nodes`] of the device, or this one, which
/// then must not stream.
pub fn picture_node(root: &Path, source: &Path) -> Option<PathBuf> {
    let own = offers(source).ok()?;
    let beside = |path: &PathBuf| offers(path).is_ok_and(|offer| offer.has_jpeg() && offer.is_beside(&own));
    let other = nodes(root).filter(|path| path != source).find(beside);
    other.or_else(|| own.has_jpeg().then(|| source.to_path_buf()))
}
