//! Bitrate and GOP of the encoders: lower while a hub or a viewer wants less, and as they were afterwards.

use super::live;
use super::shared::Shared;
use crate::config::{RaptorStream, VideoSource};
use crate::io::runtime::{now, or, sleep_until};
use crate::source::encoder::{Order, Rates, Want};
use crate::source::raptor;
use crate::time::Duration;
use crate::trace::Repeats;
use std::rc::Rc;

/// Between two looks at what is wanted.
const LOOK: Duration = Duration::from_secs(2);

/// Hubs give up when no fragment comes for longer, and one ends with a GOP.
const GOP_MS: u32 = 4_000;

/// Starts a task for each source whose encoder takes orders, or may be found to be one.
pub fn start(shared: &Rc<Shared>) {
    let video = &shared.config.video;
    for (source, small) in [(&video.source, false), (&video.live_source, true)] {
        if video.source.is_none() || matches!(source, Some(VideoSource::Raptor(_))) {
            shared.executor.spawn(follow(shared.clone(), small));
        }
    }
}

/// The stream that is played, if it is one of those.
fn playing(shared: &Shared, small: bool) -> Option<RaptorStream> {
    match shared.playing.borrow()[usize::from(small)] {
        Some(VideoSource::Raptor(stream)) => Some(stream),
        _ => None,
    }
}

/// What hub and viewers want of the source, or of the small one.
fn want(shared: &Shared, small: bool) -> Want {
    if shared.ending.get() || playing(shared, small).is_none() {
        return Want::default();
    }
    let recording = shared.accessory.borrow().state.recording_permission();
    if let Some(selected) = recording.selected.filter(|_| !small && (recording.armed() || shared.is_recording())) {
        // A viewer who wants less still gets what is recorded.
        let gop_ms = selected.fragment_ms.min(GOP_MS);
        return Want { bitrate_bps: Some(selected.bitrate_kbps.saturating_mul(1_000)), gop_ms: Some(gop_ms) };
    }
    Want { bitrate_bps: live::wished_kbps(shared, small).map(|kbps| kbps.saturating_mul(1_000)), gop_ms: None }
}

/// Keeps an encoder at what is wanted, for ever.
async fn follow(shared: Rc<Shared>, small: bool) {
    let mut stream = RaptorStream::Main;
    let mut rates = Rates::default();
    let mut failures = Repeats::default();
    let mut restarts = 0;
    loop {
        let seen = shared.states_changed.count();
        let restarted = shared.source_restarts[usize::from(small)].get();
        if restarted != core::mem::replace(&mut restarts, restarted) {
            rates.handle_restart(now());
        }
        if let Some(playing) = playing(&shared, small)
            && playing != core::mem::replace(&mut stream, playing)
        {
            rates = Rates::default();
        }
        if shared.ending.get() {
            rates.hurry();
        }
        let Some(order) = rates.poll(want(&shared, small), now()) else {
            shared.encoders_changed[usize::from(small)].set(rates.is_changed());
            or(shared.states_changed.changed(seen), sleep_until(now() + LOOK)).await;
            continue;
        };
        shared.encoders_changed[usize::from(small)].set(true);
        match raptor::carry_out(&shared.root, stream, order).await {
            Ok(Some(settings)) if order == Order::Look => rates.handle_settings(settings, now()),
            Ok(_) => {
                log::debug!("encoder {}: {order:?}", VideoSource::Raptor(stream));
                rates.handle_done(order);
            }
            Err(why) => {
                rates.handle_failed(now());
                failures.note(now(), why, |why, repeated| {
                    log::warn!("bitrate of {} not changed: {why}{repeated}", VideoSource::Raptor(stream));
                });
                if shared.ending.get() {
                    return shared.encoders_changed[usize::from(small)].set(false);
                }
            }
        }
    }
}
