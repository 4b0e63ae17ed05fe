//! Bitrate and GOP of the encoders: lower while a hub or a viewer wants less, and as they were afterwards.

use super::live;
use super::shared::Shared;
use crate::config::VideoSource;
use crate::io::runtime::{now, or, sleep_until};
use crate::source::encoder::{Order, Rates, Settings, Want};
use crate::source::raptor;
use crate::source::v4l2::Bitrate;
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
        if video.source.is_none() || source.as_ref().is_some_and(takes_orders) {
            shared.executor.spawn(follow(shared.clone(), small));
        }
    }
}

fn takes_orders(source: &VideoSource) -> bool {
    matches!(source, VideoSource::Raptor(_) | VideoSource::V4l2(_))
}

/// The stream that is played, if its encoder takes orders.
fn playing(shared: &Shared, small: bool) -> Option<VideoSource> {
    shared.playing.borrow()[usize::from(small)].clone().filter(takes_orders)
}

/// The settings, when the order was to look.
async fn carry_out(
    shared: &Shared,
    source: Option<&VideoSource>,
    bitrate: &mut Bitrate,
    order: Order,
) -> Result<Option<Settings>, String> {
    match source {
        Some(VideoSource::Raptor(stream)) => raptor::carry_out(&shared.root, *stream, order).await,
        Some(VideoSource::V4l2(path)) => bitrate.carry_out(path, order).map_err(|error| error.to_string()),
        _ => Err("it takes no orders".into()),
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
    let mut source = None;
    let (mut rates, mut bitrate) = (Rates::default(), Bitrate::default());
    let mut failures = Repeats::default();
    let mut restarts = 0;
    loop {
        let seen = shared.states_changed.count();
        let restarted = shared.source_restarts[usize::from(small)].get();
        if restarted != core::mem::replace(&mut restarts, restarted) {
            rates.handle_restart(now());
        }
        let playing = playing(&shared, small);
        if playing.is_some() && playing != source {
            (source, rates, bitrate) = (playing, Rates::default(), Bitrate::default());
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
        match carry_out(&shared, source.as_ref(), &mut bitrate, order).await {
            Ok(Some(settings)) if order == Order::Look => rates.handle_settings(settings, now()),
            Ok(_) => {
                if let Some(source) = &source {
                    log::debug!("encoder {source}: {order:?}");
                }
                rates.handle_done(order);
            }
            Err(why) => {
                rates.handle_failed(now());
                if let Some(source) = &source {
                    failures.note(now(), why, |why, repeated| {
                        log::warn!("bitrate of {source} not changed: {why}{repeated}");
                    });
                }
                if shared.ending.get() {
                    return shared.encoders_changed[usize::from(small)].set(false);
                }
            }
        }
    }
}
