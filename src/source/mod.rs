//! Adapters: one file for each way in which media comes into the house. They read bytes, cut them into
//! access units and AAC frames, and hand those to a [`Sink`] with the time at which they came.

pub mod demo;
pub mod encoder;
pub mod fifo;
pub mod file;
pub mod find;
pub mod raptor;
pub mod rtp_unix;
pub mod rtsp;
pub mod settings;
pub mod snapshot;
pub mod speaker;
pub mod v4l2;
pub mod yi;

use crate::time::Instant;
use crate::wire::h264::AnnexB;
use std::path::PathBuf;

/// The root of the file system, where the camera's own things are looked for; tests have another one.
pub fn root() -> PathBuf {
    std::env::var_os("HKSVD_ROOT").unwrap_or_else(|| "/".into()).into()
}

/// What takes in media. All calls are made from the one thread, between two awaits.
pub trait Sink {
    /// A picture in Annex B. After a loss the next one is an IDR picture (`key`).
    fn access_unit(&mut self, annexb: AnnexB<'_>, key: bool, arrival: Instant);

    /// One raw AAC-LC frame.
    fn aac(&mut self, raw_frame: &[u8], rate_hz: u32, channels: u8, arrival: Instant);

    /// Samples of one channel, 60 ms at the most. Only live view can use them.
    fn l16(&mut self, pcm: &[i16], rate_hz: u32, arrival: Instant);

    /// One Opus packet, as RTP carries it (RFC 7587 §4.2). Only live view can use it.
    fn opus(&mut self, packet: &[u8], arrival: Instant);

    /// Something is wrong with a source. Comes each time, for counting; the source itself has put the
    /// first of each kind into the log.
    fn trouble(&mut self, track: Track, trouble: Trouble);
}

/// Which stream is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Track {
    /// H.264.
    Video,
    /// AAC, or whatever else the sound is.
    Audio,
}

/// What can be wrong with a source. The source goes on by itself with the next IDR picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It cannot be opened (yet).
    Missing,
    /// The writer of the FIFO has gone away.
    WriterGone,
    /// Nothing has come for two seconds, although a writer is there.
    Stalled,
    /// Bytes that are not what they should be.
    Garbage,
    /// A picture broke off.
    Torn,
    /// A picture is larger than the buffer.
    Oversized,
    /// Pictures were written over before they could be read.
    Overrun,
    /// The encoder is set to H.265.
    H265,
}

impl Trouble {
    /// How many there are.
    pub const KINDS: usize = 8;

    /// One line for the log.
    fn text(self, track: Track) -> &'static str {
        match (self, track) {
            (Trouble::Missing, _) => "cannot be opened; waiting for it",
            (Trouble::WriterGone, _) => "its writer has gone away; waiting for the next",
            (Trouble::Stalled, _) => "its writer is silent",
            (Trouble::Garbage, Track::Video) => "not H.264; waiting for the next key frame",
            (Trouble::Garbage, Track::Audio) => "not AAC-LC in ADTS; waiting for the next frame",
            (Trouble::Torn, _) => "a picture broke off; waiting for the next key frame",
            (Trouble::Oversized, _) => "a picture is too large; raise memory_kb or lower the bitrate",
            (Trouble::Overrun, _) => "too slow: pictures were lost; waiting for the next key frame",
            (Trouble::H265, _) => {
                "H.265, and HomeKit takes H.264 only: set the encoder to H.264, or name another stream"
            }
        }
    }
}

/// Tells the sink of every trouble and the log of the first of each kind.
struct Troubles {
    track: Track,
    name: String,
    told: u8,
}

impl Troubles {
    fn new(track: Track, name: String) -> Self {
        Troubles { track, name, told: 0 }
    }

    fn report(&mut self, trouble: Trouble, sink: &mut dyn Sink) {
        sink.trouble(self.track, trouble);
        let bit = 1 << trouble as u8;
        if self.told & bit == 0 {
            self.told |= bit;
            log::warn!("{}: {}", self.name, trouble.text(self.track));
        }
    }
}

/// A sink for tests: what came, in short.
#[cfg(test)]
#[derive(Default)]
struct Recorder {
    /// Length, key, arrival.
    pictures: Vec<(usize, bool, Instant)>,
    /// Rate and arrival.
    frames: Vec<(u32, Instant)>,
    /// Samples and rate.
    pcm: Vec<(Vec<i16>, u32)>,
    troubles: Vec<(Track, Trouble)>,
}

#[cfg(test)]
impl Sink for std::rc::Rc<std::cell::RefCell<Recorder>> {
    fn access_unit(&mut self, annexb: AnnexB<'_>, key: bool, arrival: Instant) {
        self.borrow_mut().pictures.push((annexb.bytes().len(), key, arrival));
    }

    fn aac(&mut self, _: &[u8], rate_hz: u32, _: u8, arrival: Instant) {
        self.borrow_mut().frames.push((rate_hz, arrival));
    }

    fn l16(&mut self, pcm: &[i16], rate_hz: u32, _: Instant) {
        self.borrow_mut().pcm.push((pcm.to_vec(), rate_hz));
    }

    fn opus(&mut self, _: &[u8], _: Instant) {}

    fn trouble(&mut self, track: Track, trouble: Trouble) {
        self.borrow_mut().troubles.push((track, trouble));
    }
}
