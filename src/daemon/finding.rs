//! Without `video.source`: looking for the camera's stream, until there is one, and again when it has gone for good.

use super::shared::Shared;
use crate::io::runtime::{now, sleep_until};
use crate::media::Budget;
use crate::source::find::{self, Found};
use crate::time::{Duration, Instant};
use std::rc::Rc;

/// Between two looks; doubled each time. A look costs a few system calls.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Raptor's other programs may be up before its ring is.
const RING_PATIENCE: Duration = Duration::from_secs(20);

/// A source that was found has so long for its first picture before the next one has its turn; doubled each time, so
/// that the log stays short.
const PICTURE_PATIENCE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(480)];

/// A source that fell silent is waited for as long as this before everything is looked at anew.
const SILENCE: Duration = Duration::from_secs(60);

/// Looks and plays for ever.
pub async fn run(shared: Rc<Shared>, budget: Budget) {
    let begun = now();
    let mut told: Vec<String> = Vec::new();
    let (mut pause, mut patience) = (PAUSE[0], PICTURE_PATIENCE[0]);
    loop {
        let search = find::look(&shared.root).await;
        let is_early = search.ring_is_late && now() - begun < RING_PATIENCE;
        // Each line once, for as long as it stays true.
        for (verdict, text) in &search.said {
            if !told.contains(text) {
                log::info!("video.source: {}: {text}", verdict.as_str());
            }
        }
        told = search.said.into_iter().map(|(_, text)| text).collect();
        if search.found.is_empty() || is_early {
            sleep_until(now() + pause).await;
            pause = (pause * 2).min(PAUSE[1]);
            continue;
        }
        pause = PAUSE[0];
        for Found { video, live } in search.found {
            let (started, over) = (now(), Rc::default());
            let live = shared.config.video.live_source.clone().or(live);
            super::start(&shared, budget, video, live, &over);
            silence(&shared, started, patience).await;
            over.notify();
            *shared.playing.borrow_mut() = [None, None];
            if has_come(&shared, started).is_some() {
                patience = PICTURE_PATIENCE[0];
                break;
            }
            patience = (patience * 2).min(PICTURE_PATIENCE[1]);
        }
    }
}

/// When the last picture came, if one came since.
fn has_come(shared: &Shared, since: Instant) -> Option<Instant> {
    shared.source.borrow().last_picture.filter(|came| *came > since)
}

/// Waits until there have been no pictures for too long.
async fn silence(shared: &Shared, started: Instant, patience: Duration) {
    loop {
        let end = has_come(shared, started).map_or(started + patience, |came| came + SILENCE);
        if now() >= end {
            return log::warn!("video.source: no pictures; looking for another one");
        }
        sleep_until(end).await;
    }
}
