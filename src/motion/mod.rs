//! Motion: whoever sees it, one state comes out.
//!
//! [`Detector`] looks at what the encoder spent on each picture, [`Meter`] reads that out of the stream, and
//! [`Sensor`] joins the detector with the other origins (a POST, a doorbell press, the clock in mode
//! `continuous`) into the one state that MotionDetected shows.

pub mod detector;
mod meter;
pub mod sensor;
pub mod trace;

pub use detector::Detector;
pub use meter::Meter;
pub use sensor::{Mode, Sensor};

/// A change of the motion state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Motion {
    /// MotionDetected becomes true.
    Start,
    /// MotionDetected becomes false.
    Stop,
}

/// What the detector is told of an access unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessUnit {
    /// Not a P picture: its size tells nothing about change.
    pub key: bool,
    /// Bytes of slice data (NAL unit types 1 and 5), without parameter sets, SEI and filler data.
    pub bytes: u32,
    /// QP of the first slice; `None` when it cannot be read.
    pub qp: Option<u8>,
}
