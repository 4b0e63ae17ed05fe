//! The bitrate of an encoder behind a node, while it streams: through a descriptor of its own.

use super::device::{CODEC, Device, Node};
use crate::source::encoder::{Order, Settings};
use crate::sys::v4l2::{Control, QueryControl, Request};
use std::io::{ErrorKind, Result};
use std::path::Path;

/// V4L2_CID_MPEG_VIDEO_BITRATE, in bits a second; the mean where the bitrate varies.
const BITRATE: u32 = CODEC + 207;

/// Has one node's encoder do something.
#[derive(Default)]
pub struct Bitrate {
    /// What was asked for last, and what the driver made of it: it has bounds and steps.
    made: Option<(u32, u32)>,
}

impl Bitrate {
    /// Opens the node once more and carries the order out. The settings, when it was to look: 0 is what the encoder does
    /// not say or cannot change. Its GOP is chosen when the stream starts.
    ///
    /// # Errors
    /// The driver's.
    pub fn carry_out(&mut self, path: &Path, order: Order) -> Result<Option<Settings>> {
        self.order(&Node::open(path)?, order)
    }

    /// As [`Bitrate::carry_out`], of a device that is open.
    pub(super) fn order(&mut self, device: &dyn Device, order: Order) -> Result<Option<Settings>> {
        match order {
            Order::Look => {
                let bitrate_bps = match value(device) {
                    // No control of this name, or none at all.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => 0,
                    Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => 0,
                    value => value?,
                };
                let asked = self.made.filter(|(_, made)| *made == bitrate_bps).map(|(asked, _)| asked);
                Ok(Some(Settings { bitrate_bps: asked.unwrap_or(bitrate_bps), gop: 0, fps: 0 }))
            }
            Order::Bitrate(bps) => {
                let mut there = QueryControl { id: BITRATE, ..Default::default() };
                device.call(Request::QueryControl(&mut there))?;
                let wanted = i32::try_from(bps).unwrap_or(i32::MAX);
                let wanted = wanted.min(there.maximum).max(there.minimum);
                device.call(Request::SetControl(&mut Control { id: BITRATE, value: wanted }))?;
                self.made = Some((bps, value(device)?));
                Ok(None)
            }
            Order::Gop(_) => Ok(None),
        }
    }
}

fn value(device: &dyn Device) -> Result<u32> {
    let mut control = Control { id: BITRATE, value: 0 };
    device.call(Request::GetControl(&mut control))?;
    Ok(u32::try_from(control.value).unwrap_or_default())
}
