//! Live view: one controller watches, hears and talks (HAP R2 §11, RFC 3550, RFC 3711, RFC 6184).
//!
//! A [`Session`] is a position in the prebuffer and the state of two RTP streams. The bytes of a
//! picture are read from the prebuffer when a packet is made of them; there is no queue of pictures.
//! It knows no sockets: datagrams come in by [`Session::handle_datagram`] and leave by
//! [`Session::poll_transmit`].

#[cfg(feature = "opus")]
pub mod aac_decoder;
mod audio_track;
mod catch_up;
#[cfg(feature = "opus")]
pub mod jitter;
pub mod microphone;
#[cfg(feature = "opus")]
pub mod opus;
mod pacer;
mod packets;
mod replay;
#[cfg(feature = "opus")]
pub mod resample;
mod session;
mod setup;
pub mod srtp;
mod stream;
#[cfg(test)]
mod tests;
mod video_track;
pub mod voice;

pub use session::Session;
pub use setup::{AudioChoice, Begin, Keys, Setup, VideoChoice};
pub use stream::StreamFigures;

use crate::time::Duration;
use core::net::SocketAddr;

/// Which live view: the index of its stream management service.
pub type ViewId = u8;

/// The two RTP streams of a live view, each on a port of its own that it shares with its RTCP (RFC 5761).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// H.264.
    Video,
    /// Opus, in both directions.
    Audio,
}

/// Room that [`Session::poll_transmit`] needs: no datagram is longer.
pub const DATAGRAM_BYTES: usize = 1500;

/// Largest Opus packet that is taken, in either direction: 60 ms at 80 kbit/s.
pub const VOICE_BYTES: usize = 640;

/// The wall clock as RTCP tells it: seconds since 1900 in the upper 32 bits, their fraction in the lower
/// (RFC 3550 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NtpNow(pub u64);

impl NtpNow {
    /// From Unix time.
    pub fn from_unix(seconds: u64, nanos: u32) -> NtpNow {
        NtpNow(((seconds + 2_208_988_800) << 32) + (u64::from(nanos) << 32) / 1_000_000_000)
    }

    /// So much later.
    pub fn after(self, time: Duration) -> NtpNow {
        let fraction = (u64::from(time.subsec_micros()) << 32) / 1_000_000;
        NtpNow(self.0.wrapping_add(time.as_secs() << 32).wrapping_add(fraction))
    }

    /// The middle 32 bits: what a receiver repeats as LSR (RFC 3550 §6.4.1).
    fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// A datagram to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From the port of this medium.
    pub medium: Medium,
    /// To here.
    pub to: SocketAddr,
    /// So many bytes of the buffer.
    pub len: usize,
}

/// An Opus packet that the controller sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Talk<'a> {
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP time in the negotiated rate.
    pub timestamp: u32,
    /// The Opus packet.
    pub payload: &'a [u8],
}

/// What the shell should do or tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// A new IDR picture would help. Comes at most every 400 ms.
    KeyFrameWanted,
    /// The controller can take no more than this (RFC 5104 §4.2.1).
    BitrateHint {
        /// In kbit/s.
        kbps: u32,
    },
    /// The last packet of the first picture was made.
    FirstPicture {
        /// Milliseconds after the start.
        after_ms: u32,
    },
    /// Pictures were overwritten before they were sent; it goes on at the newest IDR picture.
    Lagged,
    /// It is over. Comes once; what [`Session::poll_transmit`] still has should be sent.
    Ended(Cause),
}

/// Why a live view ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The controller ended it.
    Controller,
    /// The controller said good-bye in RTCP, and nothing came after that.
    Left,
    /// Nothing came from the controller for 30 s.
    Silence,
    /// It was set up, but not started within 30 s.
    NotStarted,
    /// The HAP connection or the pairing that it belongs to is gone.
    Disconnected,
    /// The camera was switched off.
    CameraOff,
    /// The source delivers nothing any more.
    SourceGone,
    /// The program ends.
    Shutdown,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Cause::Controller => "the controller ended it",
            Cause::Left => "the controller left",
            Cause::Silence => "nothing was heard from the controller for 30 s",
            Cause::NotStarted => "it was not started within 30 s",
            Cause::Disconnected => "its HAP connection is gone",
            Cause::CameraOff => "the camera was switched off",
            Cause::SourceGone => "the source is gone",
            Cause::Shutdown => "hksvd ends",
        })
    }
}

/// What has happened in a live view.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Figures {
    /// Of the video.
    pub video: StreamFigures,
    /// Of the audio.
    pub audio: StreamFigures,
    /// Pictures of which all packets were made.
    pub pictures: u32,
    /// Key frames that the controller asked for (PLI and FIR).
    pub keys_wanted: u32,
    /// Times that pictures were overwritten before they were sent.
    pub lagged: u32,
    /// Opus packets of the talk-back.
    pub talk: u32,
    /// Packets of sound, in either direction, that were too large or for which there was no room.
    pub sound_dropped: u32,
}
