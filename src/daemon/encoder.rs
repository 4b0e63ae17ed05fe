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

/// An encoder, and what was made of its settings.
#[derive(Default)]
struct Followed {
    source: Option<VideoSource>,
    rates: Rates,
    bitrate: Bitrate,
}

impl Followed {
    /// Goes over to the stream that is played. `true`: later, when all is put back that was changed of the one before.
    fn is_leaving(&mut self, playing: Option<VideoSource>) -> bool {
        if playing.is_none() || playing == self.source {
            return false;
        }
        if self.rates.is_changed() {
            self.rates.hurry();
            return true;
        }
        *self = Followed { source: playing, ..Followed::default() };
        false
    }

    /// The settings, when the order was to look.
    async fn carry_out(&mut self, shared: &Shared, order: Order) -> Result<Option<Settings>, String> {
        match &self.source {
            Some(VideoSource::Raptor(stream)) => raptor::carry_out(&shared.root, *stream, order).await,
            Some(VideoSource::V4l2(path)) => self.bitrate.carry_out(path, order).map_err(|error| error.to_string()),
            _ => Err("it takes no orders".into()),
        }
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
    let mut encoder = Followed::default();
    let mut failures = Repeats::default();
    let mut restarts = 0;
    loop {
        let seen = shared.states_changed.count();
        let restarted = shared.source_restarts[usize::from(small)].get();
        if restarted != core::mem::replace(&mut restarts, restarted) {
            encoder.rates.handle_restart(now());
        }
        let is_leaving = encoder.is_leaving(playing(&shared, small));
        if shared.ending.get() {
            encoder.rates.hurry();
        }
        let want = if is_leaving { Want::default() } else { want(&shared, small) };
        let Some(order) = encoder.rates.poll(want, now()) else {
            shared.encoders_changed[usize::from(small)].set(encoder.rates.is_changed());
            or(shared.states_changed.changed(seen), sleep_until(now() + LOOK)).await;
            continue;
        };
        shared.encoders_changed[usize::from(small)].set(true);
        match encoder.carry_out(&shared, order).await {
            Ok(Some(settings)) if order == Order::Look => encoder.rates.handle_settings(settings, now()),
            Ok(_) => {
                if let Some(source) = &encoder.source {
                    log::debug!("encoder {source}: {order:?}");
                }
                encoder.rates.handle_done(order);
            }
            Err(why) => {
                encoder.rates.handle_failed(now());
                if let Some(source) = &encoder.source {
                    failures.note(now(), why, |why, repeated| {
                        log::warn!("bitrate of {source} not changed: {why}{repeated}");
                    });
                }
                if is_leaving {
                    // It is gone, and with it what was changed.
                    encoder = Followed::default();
                }
                if shared.ending.get() {
                    return shared.encoders_changed[usize::from(small)].set(false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RaptorStream;

    #[test]
    fn an_encoder_is_left_as_it_was_found() {
        let [first, second] =
            [VideoSource::Raptor(RaptorStream::Main), VideoSource::V4l2("/dev/video3".into())].map(Some);
        let mut encoder = Followed::default();
        assert!(!encoder.is_leaving(None) && !encoder.is_leaving(first.clone()));
        assert_eq!(encoder.source, first);
        let want = Want { bitrate_bps: Some(1_000_000), gop_ms: None };
        let mut there = Settings { bitrate_bps: 3_000_000, gop: 50, fps: 25 };
        let mut obey = |encoder: &mut Followed, want| {
            let order = encoder.rates.poll(want, now()).expect("an order");
            match order {
                Order::Look => encoder.rates.handle_settings(there, now()),
                Order::Bitrate(bps) => there.bitrate_bps = bps,
                Order::Gop(gop) => there.gop = gop,
            }
            encoder.rates.handle_done(order);
            there.bitrate_bps
        };
        assert_eq!([obey(&mut encoder, want), obey(&mut encoder, want)], [3_000_000, 1_000_000]);
        assert!(encoder.rates.poll(want, now()).is_none());
        // It is silent for a while, and then there is another one.
        assert!(!encoder.is_leaving(None));
        for bitrate_bps in [1_000_000, 3_000_000] {
            assert!(encoder.is_leaving(second.clone()));
            assert_eq!(encoder.source, first);
            assert_eq!(obey(&mut encoder, Want::default()), bitrate_bps);
        }
        assert!(!encoder.is_leaving(second.clone()));
        assert_eq!(encoder.source, second);
    }
}
