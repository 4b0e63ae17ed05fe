//! Live views: there are none yet.

use crate::hap::ConnectionId;
use crate::hap::accessory::{LiveViews, Refusal};
use crate::hap::stream_tlv::{SelectedStream, SetupAnswer, SetupRequest};

/// Tells every controller that the camera cannot.
pub struct NoLiveViews;

impl LiveViews for NoLiveViews {
    fn set_up(&mut self, _: ConnectionId, _: u8, _: &SetupRequest) -> Result<SetupAnswer, Refusal> {
        Err(Refusal::Error)
    }

    fn select(&mut self, _: ConnectionId, _: u8, _: &SelectedStream) -> Result<(), Refusal> {
        Err(Refusal::Error)
    }
}
