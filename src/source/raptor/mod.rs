//! `raptor:main` and `raptor:sub`: the streamer Raptor (RSS), Thingino's own, through its rings in shared memory. It
//! costs one copy of each frame and no protocol.

pub(super) mod clock;
mod control;
mod jpeg;
mod ring;
mod sound;
mod speaker;

use super::{Sink, Track, Trouble, Troubles};
use crate::config::RaptorStream;
use crate::io::runtime::{now, or, sleep_until, yield_now};
use crate::time::{Duration, Instant};
use crate::wire::h264::{AnnexB, NalType};
use crate::wire::raptor::{Codec, Slot};
use clock::Clock;
pub use control::carry_out;
pub use jpeg::picture;
use ring::{Found, Ring, Waiter};
use sound::Sound;
pub use speaker::SpeakerRing;
use std::io::{Error, ErrorKind};
use std::path::Path;

/// Nothing for so long is worth a word, and a look whether the path still leads to this ring.
const STALL: Duration = Duration::from_secs(2);

/// Between two attempts to open.
const RETRY: Duration = Duration::from_millis(250);

/// Sound comes with the pictures, and when there are none, this often. Its ring holds two seconds.
const SOUND: Duration = Duration::from_millis(100);

fn name(stream: RaptorStream) -> &'static str {
    match stream {
        RaptorStream::Main => "main",
        RaptorStream::Sub => "sub",
    }
}

/// What a stream is.
///
/// # Errors
/// `NotFound` when its ring is not there (yet), `Unsupported` when it has another version.
pub fn codec(root: &Path, stream: RaptorStream) -> std::io::Result<Codec> {
    let path = ring::folder(root).join(["rss_ring_", name(stream)].concat());
    ring::open_file(&path).map(|(_, header)| header.codec)
}

/// Asks the encoder of a stream for a key frame.
pub fn request_key_frame(root: &Path, stream: RaptorStream) {
    let path = ring::folder(root).join(["rss_ring_", name(stream)].concat());
    if let Ok((file, _)) = ring::open_file(&path) {
        ring::request_key_frame(&file);
    }
}

/// Reads a stream for ever, and the sound if it is wanted. Ends only when the ring has a version that is not known.
pub async fn play(
    root: &Path,
    stream: RaptorStream,
    with_sound: bool,
    access_unit_bytes: usize,
    sink: &mut dyn Sink,
) -> Error {
    let name = name(stream);
    // Perhaps we were killed in the middle of a picture.
    jpeg::bury(root);
    let mut sound = with_sound.then(Sound::new);
    let mut pictures = Pictures {
        buffer: vec![0; access_unit_bytes].into_boxed_slice(),
        clock: Clock::default(),
        wait_for_key: true,
        told_codec: None,
        troubles: Troubles::new(Track::Video, format!("raptor:{name}")),
    };
    loop {
        let opened = Ring::open(root, name).and_then(|ring| Ok((Waiter::start(&ring)?, ring)));
        match opened {
            Ok((waiter, mut ring)) => {
                pictures.reset(&ring);
                while pictures.take_all(&mut ring, sink).await {
                    if let Some(sound) = &mut sound {
                        sound.take_all(root, now(), sink);
                    }
                    if !pictures.wait(&waiter, &ring, root, sound.as_mut(), sink).await {
                        break;
                    }
                }
                pictures.troubles.report(Trouble::WriterGone, sink);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidData) => return error,
            Err(_) => pictures.troubles.report(Trouble::Missing, sink),
        }
        sleep_until(now() + RETRY).await;
    }
}

struct Pictures {
    buffer: Box<[u8]>,
    clock: Clock,
    wait_for_key: bool,
    told_codec: Option<Codec>,
    troubles: Troubles,
}

impl Pictures {
    /// Another ring: another encoder, perhaps.
    fn reset(&mut self, ring: &Ring) {
        self.clock = Clock::default();
        self.wait_for_key = true;
        ring.request_key_frame();
    }

    /// Takes what is there. `false` when the ring is another one now.
    async fn take_all(&mut self, ring: &mut Ring, sink: &mut dyn Sink) -> bool {
        loop {
            let found = match ring.poll() {
                Found::Frame(slot) if !self.is_h264(ring.header().codec, sink) => {
                    ring.skip();
                    self.wait_for_key = true;
                    Found::Frame(slot)
                }
                Found::Frame(slot) => match self.buffer.get_mut(..slot.length as usize) {
                    // Nothing is shown before the next key frame, so nothing is copied.
                    _ if self.wait_for_key && !slot.key => {
                        ring.skip();
                        Found::Frame(slot)
                    }
                    Some(picture) => {
                        let found = ring.copy(&slot, picture);
                        if let Found::Frame(slot) = found {
                            self.taken(&slot, sink);
                        }
                        found
                    }
                    None => {
                        ring.skip();
                        self.troubles.report(Trouble::Oversized, sink);
                        self.wait_for_key = true;
                        Found::Frame(slot)
                    }
                },
                other => other,
            };
            match found {
                Found::Frame(_) => {}
                Found::Nothing => return true,
                Found::Replaced => return false,
                Found::Lost => {
                    self.troubles.report(Trouble::Overrun, sink);
                    if !core::mem::replace(&mut self.wait_for_key, true) {
                        ring.request_key_frame();
                    }
                }
            }
            yield_now().await;
        }
    }

    fn is_h264(&mut self, codec: Codec, sink: &mut dyn Sink) -> bool {
        if codec == Codec::H264 {
            self.told_codec = None;
            return true;
        }
        if self.told_codec.replace(codec) != Some(codec) {
            let name = if codec == Codec::H265 { "H.265" } else { "not H.264" };
            log::error!(
                "{}: the stream is {name}, HomeKit takes H.264 only: set codec = h264 for it in /etc/raptor.conf",
                self.troubles.name
            );
            sink.trouble(Track::Video, Trouble::Garbage);
        }
        false
    }

    fn taken(&mut self, slot: &Slot, sink: &mut dyn Sink) {
        let picture = self.buffer.get(..slot.length as usize).unwrap_or_default();
        // Encoders pad.
        let end = picture.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        let annexb = AnnexB::new(&picture[..end]);
        let has = |kind: fn(NalType) -> bool| annexb.nals().any(|nal| kind(nal.nal_type()));
        // Whoever calls a picture a key frame is held to it.
        if slot.key && !has(|kind| kind == NalType::IDR) || !slot.key && annexb.nals().next().is_none() {
            self.wait_for_key = true;
            return self.troubles.report(Trouble::Garbage, sink);
        }
        self.wait_for_key = false;
        sink.access_unit(annexb, slot.key, self.clock.arrival(slot.timestamp_us, now()));
    }

    /// Waits for the next frame. `false` when none will come to this ring.
    async fn wait(
        &mut self,
        waiter: &Waiter,
        ring: &Ring,
        root: &Path,
        mut sound: Option<&mut Sound>,
        sink: &mut dyn Sink,
    ) -> bool {
        // A writer that goes takes the ring away a moment later.
        let mut stalled_at = now() + if ring.is_left() { RETRY } else { STALL };
        loop {
            let limit = if sound.is_some() { stalled_at.min(now() + SOUND) } else { stalled_at };
            let came = async {
                waiter.changed().await;
                true
            };
            if or(came, late(limit)).await {
                return true;
            }
            if let Some(sound) = &mut sound {
                sound.take_all(root, now(), sink);
            }
            if now() >= stalled_at {
                if ring.is_replaced() {
                    return false;
                }
                self.troubles.report(Trouble::Stalled, sink);
                stalled_at = now() + STALL;
            }
        }
    }
}

async fn late(limit: Instant) -> bool {
    sleep_until(limit).await;
    false
}
