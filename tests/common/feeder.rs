//! An encoder that writes into a FIFO, and does whatever encoders do to one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A stream in pieces that are written at once: access units or AAC frames.
pub type Clip = Arc<Vec<Vec<u8>>>;

enum Scene {
    Play(Clip),
    Write(Vec<u8>),
    Leave,
}

/// The writer. It goes with the test.
pub struct Feeder(Sender<Scene>);

impl Feeder {
    /// Makes the FIFO. Nobody opens it yet.
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let (scenes, next) = channel();
        std::thread::spawn(move || act(&path, interval, &next));
        Feeder(scenes)
    }

    /// Plays a clip again and again, from its beginning.
    pub fn play(&self, clip: &Clip) {
        self.0.send(Scene::Play(clip.clone())).unwrap();
    }

    /// Writes this, then nothing more; the FIFO stays open.
    pub fn write(&self, bytes: &[u8]) {
        self.0.send(Scene::Write(bytes.to_vec())).unwrap();
    }

    /// Closes the FIFO.
    pub fn leave(&self) {
        self.0.send(Scene::Leave).unwrap();
    }
}

fn act(path: &Path, interval: Duration, next: &Receiver<Scene>) {
    let mut fifo: Option<File> = None;
    let mut playing: Option<(Clip, usize)> = None;
    let mut due = Instant::now();
    loop {
        let patience = if playing.is_some() { due.saturating_duration_since(Instant::now()) } else { Duration::MAX };
        let bytes = match (next.recv_timeout(patience), &mut playing) {
            (Ok(Scene::Play(clip)), _) => {
                playing = Some((clip, 0));
                due = Instant::now();
                continue;
            }
            (Ok(Scene::Write(bytes)), _) => {
                playing = None;
                bytes
            }
            (Ok(Scene::Leave), _) => {
                (playing, fifo) = (None, None);
                continue;
            }
            (Err(RecvTimeoutError::Timeout), Some((clip, at))) => {
                due += interval;
                *at += 1;
                clip[(*at - 1) % clip.len()].clone()
            }
            (Err(_), _) => return,
        };
        // A program that has ended reads nothing more.
        if fifo.get_or_insert_with(|| open(path)).write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Opens the FIFO once somebody reads from it.
fn open(path: &Path) -> File {
    let without_waiting = |path| OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    loop {
        if let Ok(_reader_is_there) = without_waiting(path) {
            return OpenOptions::new().write(true).open(path).expect("a FIFO");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Cuts Annex B into access units: each begins with a delimiter or parameter sets behind a slice, or
/// with the first slice of a picture.
pub fn access_units(stream: &[u8]) -> Clip {
    let starts: Vec<usize> = (0..stream.len() - 4).filter(|at| stream[*at..].starts_with(&[0, 0, 1])).collect();
    let mut units: Vec<Vec<u8>> = vec![Vec::new()];
    let mut has_slice = false;
    for (i, at) in starts.iter().enumerate() {
        let (kind, first_slice) = (stream[at + 3] & 0x1f, stream[at + 4] & 0x80 != 0);
        if has_slice && (matches!(kind, 6..=9) || first_slice) {
            units.push(Vec::new());
            has_slice = false;
        }
        has_slice |= matches!(kind, 1 | 5);
        let unit = units.last_mut().unwrap();
        unit.push(0);
        let end = starts.get(i + 1).copied().unwrap_or(stream.len());
        let nal = &stream[*at..end];
        // The zero byte in front of the next start code is put there again.
        unit.extend(if end < stream.len() { nal.strip_suffix(&[0]).unwrap_or(nal) } else { nal });
    }
    Arc::new(units)
}

/// Cuts ADTS into frames.
pub fn adts_frames(mut stream: &[u8]) -> Clip {
    let mut frames = Vec::new();
    while let [0xff, _, _, a, b, c, ..] = stream {
        let length = usize::from(a & 3) << 11 | usize::from(*b) << 3 | usize::from(c >> 5);
        let (frame, rest) = stream.split_at(length);
        frames.push(frame.to_vec());
        stream = rest;
    }
    assert!(stream.is_empty());
    Arc::new(frames)
}
