//! Still pictures for `/resource` and `hksvd snapshot`: one at a time, kept for a second.

use super::controllers;
use super::effects::Done;
use super::shared::Shared;
use crate::config::SnapshotSource;
use crate::hap::ConnectionId;
use crate::hap::resource::Reason;
use crate::io::runtime::now;
use crate::source::snapshot::{self, NoPicture};
use crate::time::{Duration, Instant};
use std::rc::Rc;

/// Tiles are refreshed by every viewer: one picture serves all who ask within this time.
const FRESH: Duration = Duration::from_secs(1);

/// Answers the HAP connection that waits for a picture.
pub async fn answer(shared: Rc<Shared>, connection: ConnectionId, reason: Option<Reason>) {
    // A notification shows what raised it: a picture from before the motion is of no use.
    let not_before = (reason == Some(Reason::Event)).then(|| shared.motion_since.get()).flatten();
    let picture = take(&shared, not_before).await;
    if let Some(controller) = controllers::find(&shared, connection) {
        controller.handle_snapshot(Ok(picture));
        shared.accessory_changed.notify();
    }
}

/// A picture that is not older than a second and not from before `not_before`; the placeholder when
/// the camera gives none.
pub async fn take(shared: &Shared, not_before: Option<Instant>) -> Rc<[u8]> {
    let SnapshotSource::File(path) = &shared.config.snapshot.source else { return snapshot::PLACEHOLDER.into() };
    loop {
        let seen = shared.picture_changed.count();
        if let Some((taken, picture)) = &*shared.picture.borrow()
            && now() - *taken < FRESH
            && not_before.is_none_or(|t| *taken >= t)
        {
            return picture.clone();
        }
        if !shared.picture_pending.replace(true) {
            let path = path.clone();
            // A file may lie on a card or a network share that hangs: not on this thread.
            shared.worker.submit(Box::new(move || Done::Picture(snapshot::read(&path))));
        }
        shared.picture_changed.changed(seen).await;
    }
}

/// The worker thread has read the file, or not.
pub fn taken(shared: &Shared, result: Result<Vec<u8>, NoPicture>) {
    shared.picture_pending.set(false);
    let picture = match result {
        Ok(jpeg) => {
            shared.picture_failed.set(false);
            jpeg.into()
        }
        Err(why) => {
            if !shared.picture_failed.replace(true) {
                log::warn!("snapshot.source: {why}; a placeholder is shown");
            }
            snapshot::PLACEHOLDER.into()
        }
    };
    *shared.picture.borrow_mut() = Some((now(), picture));
    shared.picture_changed.notify();
}
