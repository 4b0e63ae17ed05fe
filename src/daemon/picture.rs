//! Still pictures for `/resource` and `hksvd snapshot`: one is taken at a time, and serves all who ask within
//! a second.

use super::controllers;
use super::effects::Done;
use super::shared::Shared;
use crate::config::{SnapshotSource, VideoSource};
use crate::hap::ConnectionId;
use crate::hap::resource::Reason;
use crate::hap::types::Status;
use crate::io::runtime::{Signal, now, or, sleep_until};
use crate::source::snapshot::{self, FromFile, LIMIT, NoPicture};
use crate::time::{Duration, Instant};
use crate::trace::Repeats;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

/// Tiles are refreshed by every viewer: one attempt serves all who ask within this time.
const FRESH: Duration = Duration::from_secs(1);
/// A notification shows what raised it. An older picture would mislead.
const OLDEST_OF_EVENT: Duration = Duration::from_secs(10);
/// A tile says when it was refreshed, and is believed.
const OLDEST: Duration = Duration::from_secs(60);
/// How long a file is looked at again when it is older than the event, or half written.
const RENEWAL: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Streamers make their small pictures of this width unless somebody has changed it.
const SMALL_WIDTH: u32 = 640;

/// What is wanted.
#[derive(Clone, Copy, Default)]
pub struct Want {
    /// What it is for.
    pub reason: Option<Reason>,
    /// The width asked for in pixels; `None`: the best.
    pub width: Option<u32>,
}

struct Picture {
    jpeg: Rc<[u8]>,
    taken: Instant,
    /// How old it was when it was taken: files lie there for a while.
    age: Duration,
}

impl Picture {
    fn age(&self) -> Duration {
        self.age.saturating_add(now() - self.taken)
    }

    /// Whether it shows `moment`, or what came after.
    fn is_since(&self, moment: Instant) -> bool {
        self.taken >= moment && self.taken - moment >= self.age
    }
}

/// An attempt to take a picture that is over.
#[derive(Clone, Copy)]
struct Attempt {
    begun: Instant,
    ended: Instant,
    large: bool,
    good: bool,
}

/// The last picture, and how the next one comes about.
pub struct Pictures {
    last: RefCell<Option<Picture>>,
    attempt: Cell<Option<Attempt>>,
    underway: Cell<bool>,
    changed: Signal,
    small_width: Cell<u32>,
    /// The worker thread reads the file.
    reading: Cell<bool>,
    read: RefCell<Option<FromFile>>,
    read_changed: Signal,
    failures: RefCell<Repeats<String>>,
}

impl Default for Pictures {
    fn default() -> Self {
        Pictures {
            last: RefCell::default(),
            attempt: Cell::default(),
            underway: Cell::default(),
            changed: Signal::default(),
            small_width: Cell::new(SMALL_WIDTH),
            reading: Cell::default(),
            read: RefCell::default(),
            read_changed: Signal::default(),
            failures: RefCell::default(),
        }
    }
}

impl Pictures {
    /// The camera was switched off: what it has seen is nobody's business any more.
    pub fn forget(&self) {
        *self.last.borrow_mut() = None;
        self.attempt.set(None);
    }

    /// The worker thread has read the file, or not.
    pub fn handle_read(&self, result: FromFile) {
        self.reading.set(false);
        *self.read.borrow_mut() = Some(result);
        self.read_changed.notify();
    }

    /// The best that there is: never older than the reason allows. A tile takes an older one of a source
    /// that works and has none that is newer.
    fn choose(&self, reason: Option<Reason>) -> Rc<[u8]> {
        let oldest = if reason == Some(Reason::Event) { OLDEST_OF_EVENT } else { OLDEST };
        let works = reason != Some(Reason::Event) && self.attempt.get().is_some_and(|attempt| attempt.good);
        match &*self.last.borrow() {
            Some(picture) if works || picture.age() <= oldest => picture.jpeg.clone(),
            _ => snapshot::PLACEHOLDER.into(),
        }
    }
}

/// Answers the HAP connection that waits for a picture.
pub async fn answer(shared: Rc<Shared>, connection: ConnectionId, want: Want) {
    let picture = take(&shared, want).await;
    // It may have been switched off while the picture was taken.
    let allowed = shared.accessory.borrow().state.streaming_allowed();
    if let Some(controller) = controllers::find(&shared, connection) {
        controller.handle_snapshot(if allowed { Ok(picture) } else { Err(Status::NotAllowedNow) });
        shared.accessory_changed.notify();
    }
}

/// A picture, within [`LIMIT`]; the placeholder when the camera gives none.
pub async fn take(shared: &Rc<Shared>, want: Want) -> Rc<[u8]> {
    let pictures = &shared.pictures;
    let asked = now();
    let is_event = want.reason == Some(Reason::Event);
    // Streamers have two sizes, others one.
    let large = shared.config.snapshot.source == SnapshotSource::Auto
        && want.width.is_none_or(|width| width > pictures.small_width.get());
    loop {
        let seen = pictures.changed.count();
        // A notification shows what raised it.
        let since = if is_event { shared.motion_since.get() } else { None };
        if let Some(attempt) = pictures.attempt.get()
            && (attempt.large || !large)
        {
            let shows = |since| pictures.last.borrow().as_ref().is_some_and(|picture| picture.is_since(since));
            if attempt.begun >= asked || now() - attempt.ended < FRESH && since.is_none_or(shows) {
                break;
            }
        }
        if now() - asked >= LIMIT {
            break;
        }
        if !pictures.underway.replace(true) {
            shared.executor.spawn(attempt(shared.clone(), large, since));
        }
        or(pictures.changed.changed(seen), sleep_until(asked + LIMIT)).await;
    }
    pictures.choose(want.reason)
}

/// Takes a picture and keeps it.
async fn attempt(shared: Rc<Shared>, large: bool, since: Option<Instant>) {
    let pictures = &shared.pictures;
    let begun = now();
    let playing = shared.playing.borrow()[0].clone();
    let node = match &playing {
        Some(VideoSource::V4l2(path)) => Some(path.as_path()),
        _ => None,
    };
    let fetch = async {
        match &shared.config.snapshot.source {
            SnapshotSource::File(path) => read_file(&shared, path, since).await,
            // What was taken shows the moment at which it was asked for, or one after it.
            source => snapshot::fetch(source, &shared.commands, &shared.root, node, large)
                .await
                .map(|jpeg| (jpeg, begun, Duration::ZERO)),
        }
    };
    let late = async {
        sleep_until(begun + LIMIT).await;
        Err(NoPicture::TooLong)
    };
    let result = or(fetch, late).await;
    let good = result.is_ok();
    match result {
        // Switched off in between.
        Ok(_) if !shared.accessory.borrow().state.camera_active() => {}
        Ok((jpeg, taken, age)) => {
            if let Some(width) = snapshot::width(&jpeg).filter(|_| !large) {
                pictures.small_width.set(width);
            }
            pictures.failures.borrow_mut().over(|_, _| {});
            *pictures.last.borrow_mut() = Some(Picture { jpeg: jpeg.into(), taken, age });
        }
        // Without a streamer that is known the placeholder is all there is to expect.
        Err(NoPicture::NoSource) => {}
        Err(why) => pictures.failures.borrow_mut().note(now(), why.to_string(), |why, repeated| {
            log::warn!("snapshot.source: {why}{repeated}");
        }),
    }
    pictures.attempt.set(Some(Attempt { begun, ended: now(), large, good }));
    pictures.underway.set(false);
    pictures.changed.notify();
}

/// Reads a file on the worker thread: it may lie on a card or a network share that hangs.
async fn read_file(
    shared: &Shared,
    path: &Path,
    since: Option<Instant>,
) -> Result<(Vec<u8>, Instant, Duration), NoPicture> {
    let pictures = &shared.pictures;
    let patience = now() + RENEWAL;
    // The last one hangs still: nothing is queued behind it, and nobody waits for it again.
    if pictures.reading.get() {
        return Err(NoPicture::TooLong);
    }
    loop {
        *pictures.read.borrow_mut() = None;
        pictures.reading.set(true);
        let path = path.to_path_buf();
        shared.worker.submit(Box::new(move || Done::Picture(snapshot::read(&path))));
        let result = loop {
            let seen = pictures.read_changed.count();
            if let Some(result) = pictures.read.borrow_mut().take() {
                break result;
            }
            pictures.read_changed.changed(seen).await;
        };
        let taken = now();
        let again = match &result {
            // Whoever writes it will write it again.
            Ok((_, age)) => since.is_some_and(|since| taken - since < *age),
            Err(why) => matches!(why, NoPicture::NotJpeg),
        };
        if !again || taken >= patience {
            return result.map(|(jpeg, age)| (jpeg, taken, age));
        }
        sleep_until(taken + LOOK_AGAIN).await;
    }
}
