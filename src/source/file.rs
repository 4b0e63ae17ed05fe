//! `file:PATH`: media files in real time, again and again without a jump in time.

use super::{Sink, Track, Trouble, Troubles};
use crate::io::runtime::{now, sleep_until, yield_now};
use crate::media::{adts, annexb, l16};
use crate::time::{Duration, Instant};
use crate::wire::aac::FRAME_SAMPLES;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// Pictures a second of a file when the configuration names no `video.fps`.
pub const DEFAULT_FPS: u32 = 25;

/// Behind by more than this, the schedule starts anew: the machine was suspended.
const LATE: Duration = Duration::from_secs(1);

/// What a file with sound has in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// AAC-LC in ADTS.
    Adts,
    /// S16LE of one channel.
    Pcm {
        /// Samples a second.
        rate_hz: u32,
    },
}

/// The ADTS file that belongs to a video file: the same name with the ending `aac`, if there is one.
pub fn audio_beside(video: &Path) -> Option<PathBuf> {
    let path = video.with_extension("aac");
    path.is_file().then_some(path)
}

/// Plays an Annex B file at `fps` pictures a second, and a file with its sound. Ends only with an error.
pub async fn play(
    video: &Path,
    audio: Option<(&Path, Format)>,
    fps: u32,
    access_unit_bytes: usize,
    sink: &mut dyn Sink,
) -> io::Error {
    let open = |path: &Path| {
        File::open(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    let files = open(video).and_then(|video| {
        let audio = audio.map(|(path, format)| open(path).map(|file| (file, format))).transpose()?;
        Ok((video, audio))
    });
    match files {
        Ok((file, audio)) => replay(file, audio, fps, access_unit_bytes, &video.display().to_string(), sink).await,
        Err(error) => error,
    }
}

/// Plays `video` and `audio` from their beginnings, and again when the video ends: sound that is shorter
/// leaves silence, sound that is longer is cut. Arrivals are those of the schedule, exact.
pub(super) async fn replay(
    video: impl Read + Seek,
    audio: Option<(impl Read + Seek, Format)>,
    fps: u32,
    access_unit_bytes: usize,
    name: &str,
    sink: &mut dyn Sink,
) -> io::Error {
    let mut pictures = Pictures { stream: video, assembler: annexb::Assembler::new(access_unit_bytes) };
    let mut sound = audio.map(|(stream, format)| Sound { stream, cutter: Cutter::new(format), ended: false });
    let mut troubles = Troubles::new(Track::Video, name.to_owned());
    let mut round_start = now();
    loop {
        let mut shown = 0;
        let mut sounded = Duration::ZERO;
        loop {
            let due = round_start + Duration::from_secs(1) * shown / fps.max(1);
            // All sound that begins before this picture.
            while let Some(sound) = sound.as_mut().filter(|s| !s.ended && round_start + sounded < due) {
                let at = round_start + sounded;
                sleep_until(at).await;
                match sound.play_one(at, sink) {
                    Ok(duration) => sounded += duration,
                    Err(error) => return error,
                }
            }
            sleep_until(due).await;
            if now() - due > LATE {
                round_start += now() - due;
            }
            match pictures.show_one(due, sink) {
                Ok(true) => shown += 1,
                Ok(false) => break,
                Err(error) => return error,
            }
        }
        if shown == 0 {
            let is_h265 = pictures.assembler.counters().h265 > 0;
            troubles.report(if is_h265 { Trouble::H265 } else { Trouble::Garbage }, sink);
            return io::Error::new(io::ErrorKind::InvalidData, format!("{name}: no key frame of H.264 in it"));
        }
        round_start += Duration::from_secs(1) * shown / fps.max(1);
        if let Err(error) = pictures.rewind().and_then(|()| sound.as_mut().map_or(Ok(()), Sound::rewind)) {
            return error;
        }
        yield_now().await;
    }
}

struct Pictures<S> {
    stream: S,
    assembler: annexb::Assembler,
}

impl<S: Read + Seek> Pictures<S> {
    /// Hands over the next picture; `false` at the end.
    fn show_one(&mut self, at: Instant, sink: &mut dyn Sink) -> io::Result<bool> {
        loop {
            // Two steps, because a unit borrows the assembler.
            if let Some(unit) = self.assembler.poll_unit() {
                sink.access_unit(unit.annexb, unit.key, at);
                return Ok(true);
            }
            let n = self.stream.read(self.assembler.receive_buffer())?;
            if n == 0 {
                let last = self.assembler.flush();
                return Ok(last.map(|unit| sink.access_unit(unit.annexb, unit.key, at)).is_some());
            }
            self.assembler.handle_received(n, at);
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.assembler.reset();
        self.stream.rewind()
    }
}

/// What makes frames of the bytes.
enum Cutter {
    Adts(adts::Assembler),
    Pcm(l16::Assembler, u32),
}

impl Cutter {
    fn new(format: Format) -> Self {
        match format {
            Format::Adts => Cutter::Adts(adts::Assembler::default()),
            Format::Pcm { rate_hz } => Cutter::Pcm(l16::Assembler::new(rate_hz), rate_hz),
        }
    }

    fn receive_buffer(&mut self) -> &mut [u8] {
        match self {
            Cutter::Adts(assembler) => assembler.receive_buffer(),
            Cutter::Pcm(assembler, _) => assembler.receive_buffer(),
        }
    }

    fn handle_received(&mut self, n: usize, now: Instant) {
        match self {
            Cutter::Adts(assembler) => assembler.handle_received(n, now),
            Cutter::Pcm(assembler, _) => assembler.handle_received(n, now),
        }
    }

    /// Hands over the next frame that is whole; how long it lasts.
    fn hand_over(&mut self, at: Instant, sink: &mut dyn Sink) -> Option<Duration> {
        let (samples, rate_hz) = match self {
            Cutter::Adts(assembler) => {
                let frame = assembler.poll_frame()?;
                sink.aac(frame.raw, frame.rate_hz, frame.channels, at);
                (FRAME_SAMPLES, frame.rate_hz)
            }
            Cutter::Pcm(assembler, rate_hz) => {
                let frame = assembler.poll_frame()?;
                sink.l16(frame.pcm, *rate_hz, at);
                (frame.pcm.len() as u32, *rate_hz)
            }
        };
        Some(Duration::from_secs(1) * samples / rate_hz)
    }

    fn reset(&mut self) {
        match self {
            Cutter::Adts(assembler) => assembler.reset(),
            Cutter::Pcm(assembler, _) => assembler.reset(),
        }
    }
}

struct Sound<S> {
    stream: S,
    cutter: Cutter,
    ended: bool,
}

impl<S: Read + Seek> Sound<S> {
    /// Hands over the next frame; how long it lasts, nothing at the end.
    fn play_one(&mut self, at: Instant, sink: &mut dyn Sink) -> io::Result<Duration> {
        loop {
            if let Some(duration) = self.cutter.hand_over(at, sink) {
                return Ok(duration);
            }
            let n = self.stream.read(self.cutter.receive_buffer())?;
            if n == 0 {
                self.ended = true;
                return Ok(Duration::ZERO);
            }
            self.cutter.handle_received(n, at);
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.cutter.reset();
        self.ended = false;
        self.stream.rewind()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::io::runtime::{Executor, or};
    use std::cell::RefCell;
    use std::io::Cursor;
    use std::rc::Rc;

    /// An IDR and two P pictures; two AAC frames at 48 kHz.
    const VIDEO: &[u8] = b"\0\0\0\x01\x67\x42\0\0\x01\x65\x88\x01\0\0\0\x01\x41\x9a\x01\0\0\0\x01\x41\x9b\x02";
    const AUDIO: &[u8] = b"\xff\xf1\x4c\x40\x01\x7f\xfcabcd\xff\xf1\x4c\x40\x01\x7f\xfcefgh";

    #[test]
    fn rounds_follow_each_other_without_a_jump() {
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        Executor::default().block_on(or(
            async {
                let audio = Some((Cursor::new(AUDIO), Format::Adts));
                panic!("{}", replay(Cursor::new(VIDEO), audio, 50, 1000, "test", &mut sink).await);
            },
            sleep_until(now() + Duration::from_millis(330)),
        ));
        let recorder = recorder.borrow();
        assert!(recorder.pictures.len() > 12, "{}", recorder.pictures.len());
        for (i, pair) in recorder.pictures.windows(2).enumerate() {
            assert_eq!((pair[1].2 - pair[0].2).as_micros(), 20_000);
            assert_eq!(pair[0].1, i % 3 == 0);
        }
        assert!(recorder.frames.len() >= 8);
        let start = recorder.pictures[0].2;
        assert_eq!(recorder.frames[0], (48_000, start));
        assert_eq!((recorder.frames[2].1 - start).as_micros(), 60_000, "with the second round");
        assert!(recorder.troubles.is_empty());
    }

    #[test]
    fn samples_are_played_as_they_are() {
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        // 60 ms of pictures; two frames of 20 ms at 8 kHz, and half a sample that no second round begins with.
        let pcm = [&[0x12, 0x34].repeat(320)[..], b"\x12"].concat();
        Executor::default().block_on(or(
            async {
                let audio = Some((Cursor::new(&pcm[..]), Format::Pcm { rate_hz: 8_000 }));
                panic!("{}", replay(Cursor::new(VIDEO), audio, 50, 1000, "test", &mut sink).await);
            },
            sleep_until(now() + Duration::from_millis(150)),
        ));
        let recorder = recorder.borrow();
        assert!((4..=6).contains(&recorder.pcm.len()), "{}", recorder.pcm.len());
        assert!(recorder.pcm.iter().all(|frame| *frame == (vec![0x3412; 160], 8_000)));
        assert!(recorder.frames.is_empty() && recorder.troubles.is_empty());
    }

    #[test]
    fn a_file_without_pictures_is_an_error() {
        let mut sink = Rc::new(RefCell::new(Recorder::default()));
        let none: Option<(Cursor<&[u8]>, Format)> = None;
        let error = Executor::default().block_on(replay(Cursor::new(b"text"), none, 25, 1000, "x.txt", &mut sink));
        assert_eq!(error.to_string(), "x.txt: no key frame of H.264 in it");
        let (h265, none) = (b"\0\0\x01\x40\x01\x0c\0\0\x01\x26\x01\xaf", None::<(Cursor<&[u8]>, Format)>);
        Executor::default().block_on(replay(Cursor::new(h265), none, 25, 1000, "x.h265", &mut sink));
        assert_eq!(sink.borrow().troubles.last(), Some(&(Track::Video, Trouble::H265)));
        let error = Executor::default().block_on(play(Path::new("/nowhere/x"), None, 25, 1000, &mut sink));
        assert!(error.to_string().starts_with("/nowhere/x: "), "{error}");
    }
}
