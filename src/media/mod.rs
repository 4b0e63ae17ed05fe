//! Media between the encoder and whoever wants it: assembling access units, a time line, the
//! prebuffer, and the fragmented MP4 that a hub is sent.
//!
//! A frame is copied into the prebuffer once and out of it once. Everything in between is an index:
//! a fragment is computed when it is read, never stored.

pub mod adts;
pub mod annexb;
mod audio;
pub mod clock;
pub mod fmp4;
pub mod g711;
pub mod l16;
mod parameters;
mod prebuffer;
mod reader;
mod ring;

pub use parameters::{AudioParameters, ParameterSet, VideoParameters};
pub use prebuffer::{AccessUnit, Budget, Counters, Measured, Prebuffer, Retention};
pub use reader::{AudioChoice, Fragment, NotReady, Reader, ReaderOptions, Start};
pub use ring::Sample;

/// Why a position in the prebuffer can no longer be read. Whoever reads gets this instead of making
/// the encoder wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The reader was too slow: what it wanted next was overwritten.
    Overrun,
    /// The source has restarted or changed its parameters, and everything in front of that was read.
    Ended,
}

impl core::fmt::Display for Gone {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Gone::Overrun => "the reader is too slow: the prebuffer has overwritten what it wanted next",
            Gone::Ended => "the source has restarted or changed its parameters",
        })
    }
}

/// Media time from milliseconds.
const fn ms_to_90k(ms: u32) -> u64 {
    ms as u64 * 90
}
