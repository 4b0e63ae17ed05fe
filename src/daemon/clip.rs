//! `hksvd clip`: what a hub would get now, as one playable file.

use super::shared::Shared;
use crate::control::{Chunk, Chunks};
use crate::io::runtime::{Signal, now};
use crate::media::{AudioChoice, Fragment, NotReady, Reader, ReaderOptions, Start};
use crate::time::{Duration, Instant};
use crate::wire::Writer;
use std::rc::Rc;

/// Fragments of a clip are as long as those of a recording that no hub has selected otherwise.
const FRAGMENT_MS: u32 = 4_000;

/// A clip that gets no further for this long breaks off: it holds one of the few streams that the control
/// interface has, and as long as it runs the prebuffer fills.
const STALLED: Duration = Duration::from_secs(30);

/// One clip.
pub struct Clip {
    reader: Reader,
    shared: Rc<Shared>,
    /// Media that is still to come, in 90 kHz.
    left_90k: u64,
    init_sent: bool,
    fragment: Option<(Fragment, usize)>,
    moved: Instant,
}

impl Clip {
    /// Begins with the prebuffer when recording is armed, else with the next key frame.
    ///
    /// # Errors
    /// When no video has come in yet.
    pub fn start(shared: &Rc<Shared>, seconds: u16) -> Result<Self, NotReady> {
        let permission = shared.permission();
        let selected = permission.selected.filter(|_| permission.recording_active && permission.camera_active);
        let prebuffer = shared.prebuffer.borrow();
        let audio = match selected {
            Some(_) if permission.audio_active => AudioChoice::Live,
            Some(_) if permission.silent_track => AudioChoice::Silent,
            Some(_) => AudioChoice::None,
            None if prebuffer.audio().is_some() => AudioChoice::Live,
            None => AudioChoice::None,
        };
        let audio_rate_hz = selected
            .map(|s| s.audio_rate_hz)
            .or_else(|| prebuffer.audio().map(|a| a.rate_hz))
            .unwrap_or(shared.config.audio.rate_hz);
        let start = selected.map_or(Start::NextKey, |s| Start::Prebuffered { ms: s.prebuffer_ms });
        let options =
            ReaderOptions { fragment_ms: selected.map_or(FRAGMENT_MS, |s| s.fragment_ms), audio, audio_rate_hz };
        let reader = Reader::start(&prebuffer, start, options)?;
        drop(prebuffer);
        shared.clips.set(shared.clips.get() + 1);
        shared.retain();
        let left_90k = u64::from(seconds) * 90_000;
        Ok(Clip { reader, shared: shared.clone(), left_90k, init_sent: false, fragment: None, moved: now() })
    }
}

impl Chunks for Clip {
    fn poll(&mut self, now: Instant, out: &mut [u8]) -> Chunk {
        if !self.init_sent {
            let mut w = Writer::new(out);
            self.reader.init(&mut w);
            let len = w.len();
            if w.is_full() {
                return Chunk::Failed;
            }
            self.init_sent = true;
            return Chunk::Some(len);
        }
        let prebuffer = self.shared.prebuffer.borrow();
        if self.fragment.is_none() {
            if self.left_90k == 0 {
                return Chunk::End;
            }
            match self.reader.poll_fragment(&prebuffer) {
                Ok(Some(fragment)) => self.fragment = Some((fragment, 0)),
                Ok(None) if now - self.moved >= STALLED => return Chunk::Failed,
                Ok(None) => return Chunk::Wait(Some(self.moved + STALLED)),
                Err(_) => return Chunk::Failed,
            }
        }
        let Some((fragment, offset)) = &mut self.fragment else { return Chunk::Failed };
        let Ok(n) = self.reader.read(fragment, &prebuffer, *offset, out) else { return Chunk::Failed };
        *offset += n;
        if *offset >= fragment.total_bytes {
            self.left_90k = self.left_90k.saturating_sub(fragment.duration_90k);
            self.fragment = None;
            self.moved = now;
        }
        if n == 0 { Chunk::Failed } else { Chunk::Some(n) }
    }

    fn signal(&self) -> &Signal {
        &self.shared.media_changed
    }
}

impl Drop for Clip {
    fn drop(&mut self) {
        self.shared.clips.set(self.shared.clips.get().saturating_sub(1));
        self.shared.retain();
    }
}
