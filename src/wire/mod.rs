//! Formats: slices in, slices out. Nothing here keeps state.

pub mod aac;
pub mod base64;
pub mod dns;
pub mod evdev;
pub mod h264;
pub mod hdsdata;
pub mod hex;
pub mod http;
pub mod http_answer;
pub mod json;
pub mod opus;
pub mod qr;
pub mod raptor;
pub mod raptor_control;
pub mod rtcp;
pub mod rtp;
pub mod rtsp;
pub mod sdp;
pub mod tlv8;
pub mod writer;
pub mod yi;

pub use writer::{Full, Writer};

/// Input that does not have the shape its format demands; the text says which rule it broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}
