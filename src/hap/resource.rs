//! `POST /resource`: may this snapshot be taken? (HAP R2 §11.5)

use super::settings::Settings;
use super::state::State;
use super::types::Status;
use crate::wire::json::{self, Resource, Value};

/// What a snapshot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A tile is refreshed.
    Periodic,
    /// A notification gets a picture.
    Event,
}

/// A snapshot that may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Width asked for, in pixels.
    pub width: u32,
    /// Height asked for, in pixels.
    pub height: u32,
    /// What it is for; old controllers do not say.
    pub reason: Option<Reason>,
}

/// Why it may not, with the HTTP status that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// HTTP status.
    pub http: u16,
    /// HAP status in the body.
    pub status: Status,
}

/// The size of a tile, for who asks for none.
const DEFAULT_SIZE: (u32, u32) = (640, 360);

/// Checks a request: the state of the camera first, then the two switches, then the request itself.
///
/// # Errors
/// When the snapshot may not be taken.
pub fn handle(body: &[u8], state: &State) -> Result<Snapshot, Refused> {
    if !state.streaming_allowed() {
        return Err(Refused { http: 207, status: Status::NotAllowedNow });
    }
    let invalid = Refused { http: 400, status: Status::InvalidValue };
    let resource: Option<Resource<'_>> = json::parse(body).ok();
    let reason = match resource.as_ref().and_then(|resource| resource.reason) {
        None => None,
        Some(0) => Some(Reason::Periodic),
        Some(1) => Some(Reason::Event),
        Some(_) => return Err(invalid),
    };
    permitted(state.settings(), reason).map_err(|status| Refused { http: 207, status })?;
    let resource = resource.ok_or(invalid)?;
    if resource.kind.as_ref().and_then(Value::text) != Some("image") {
        return Err(invalid);
    }
    if resource.aid.is_some_and(|aid| aid != 1) {
        return Err(Refused { http: 404, status: Status::DoesNotExist });
    }
    let side = |asked: Option<u32>, otherwise| asked.filter(|pixels| *pixels > 0).unwrap_or(otherwise);
    Ok(Snapshot { width: side(resource.width, DEFAULT_SIZE.0), height: side(resource.height, DEFAULT_SIZE.1), reason })
}

fn permitted(settings: &Settings, reason: Option<Reason>) -> Result<(), Status> {
    for (active, for_it) in [(settings.event_snapshots, Reason::Event), (settings.periodic_snapshots, Reason::Periodic)]
    {
        match reason {
            None if !active => return Err(Status::InsufficientPrivileges),
            Some(reason) if reason == for_it && !active => return Err(Status::NotAllowedNow),
            _ => {}
        }
    }
    Ok(())
}
