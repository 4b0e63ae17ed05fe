//! The client of an RTSP server (RFC 2326): asks for its H.264 and sound over the one TCP connection (§10.12), logs in,
//! keeps the session alive, and makes access units and frames of what comes.
//!
//! It speaks to a streamer on the same camera, so that the time at which a packet comes is the time of what is in
//! it; sender reports are not needed, whose clock may jump by weeks there.

mod client;
pub mod login;
pub mod pictures;
pub mod sound;
pub mod talk;

pub use client::{Client, REQUEST_BYTES};

use crate::time::Instant;
use crate::wire::Malformed;
use crate::wire::h264::AnnexB;
use core::fmt;
use login::Refused;

/// What went wrong in the media; the client goes on, with pictures from the next IDR picture on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Packets are missing.
    Torn,
    /// Packets that are not what was described.
    Garbage,
    /// The same, and they are of H.265.
    H265,
    /// A picture is larger than the buffer.
    Oversized,
}

impl Loss {
    /// Whether the payload of a packet is of H.265: its parameter sets alone or together (RFC 7798 §4.4), whose header
    /// H.264 does not have.
    pub fn of_h265(payload: &[u8]) -> bool {
        matches!(payload, [0x40 | 0x60, 1, ..])
    }
}

/// What the client has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A picture. After a loss the next one is an IDR picture (`key`).
    Picture {
        /// In Annex B.
        annexb: AnnexB<'a>,
        /// It is an IDR picture.
        key: bool,
        /// When its first packet came.
        arrival: Instant,
    },
    /// One raw AAC-LC frame.
    Aac {
        /// Without header.
        raw_frame: &'a [u8],
        /// Sampling rate.
        rate_hz: u32,
        /// Channels.
        channels: u8,
        /// When its last packet came.
        arrival: Instant,
    },
    /// One Opus packet.
    Opus {
        /// As RTP carries it.
        packet: &'a [u8],
        /// When it came.
        arrival: Instant,
    },
    /// 20 ms of one channel.
    Pcm {
        /// The samples.
        pcm: &'a [i16],
        /// Sampling rate.
        rate_hz: u32,
        /// When the last of them came.
        arrival: Instant,
    },
    /// Something is missing in the video.
    VideoLoss(Loss),
    /// Sound that is not what was described.
    SoundLoss,
    /// Nothing has come for two seconds.
    Stalled,
    /// The session stands and media will come; what the server's sound is, when it is none that can be taken.
    Playing {
        /// An encoding by the name in the description, `PCMU`.
        refused_sound: Option<&'a str>,
    },
}

/// Why there is no use in this connection any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The server speaks something else.
    Malformed(Malformed),
    /// It refuses a request.
    Status {
        /// Which one.
        method: &'static str,
        /// Its answer.
        status: u16,
    },
    /// It does not let us in.
    Login(Refused),
    /// Its stream has no H.264.
    NoH264 {
        /// But H.265.
        h265: bool,
    },
    /// It has no back channel, or none that takes G.711.
    NoTalk,
    /// It has confirmed the end.
    Ended,
    /// It does not answer.
    NoAnswer,
    /// It sends no media.
    NoMedia,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Malformed(malformed) => malformed.fmt(f),
            Failure::Status { method, status: 404 } => {
                write!(f, "{method}: there is no such stream (404): see its path")
            }
            Failure::Status { method, status: 453 } => write!(f, "{method}: it has too many clients (453)"),
            Failure::Status { method, status: 461 } => write!(f, "{method}: it does not send over TCP (461)"),
            Failure::NoTalk | Failure::Status { status: 551, .. } => {
                f.write_str("it has no back channel (ONVIF) for PCMU or PCMA")
            }
            Failure::Ended => f.write_str("ended"),
            Failure::Status { method, status } => write!(f, "{method}: it answers {status}"),
            Failure::Login(Refused::Missing) => f.write_str("it wants a login: rtsp://NAME:PASSWORD@…"),
            Failure::Login(Refused::Wrong) => f.write_str("name or password are wrong"),
            Failure::Login(Refused::Unknown) => f.write_str("it wants a login other than Digest with MD5 or Basic"),
            Failure::NoH264 { h265: true } => {
                f.write_str("it sends H.265, HomeKit takes H.264: switch the encoder to H.264")
            }
            Failure::NoH264 { h265: false } => f.write_str("its stream has no H.264"),
            Failure::NoAnswer => f.write_str("it does not answer"),
            Failure::NoMedia => f.write_str("it sends no pictures"),
        }
    }
}
