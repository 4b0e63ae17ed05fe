//! The cameras of Yi and their kin, as the yi-hack firmwares leave them: FIFOs on those with MStar processors
//! (`fifo+yi:PATH`), the vendor's own frame buffer on those with Allwinner's (`yi:MODEL`).

use super::fifo::{self, Pictures, Sound, Stream};
use super::file::Format;
use super::raptor::clock::Clock;
use super::{Sink, Track, Trouble, Troubles, find};
use crate::io::runtime::{now, sleep_until, yield_now};
use crate::time::Duration;
use crate::wire::yi::{CONTROL_BYTES, Control, Frame, HEADER_MAX, Kind, Layout};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The FIFO with AAC.
const AAC: &str = "aac_audio_fifo";

/// Between two attempts to open.
const RETRY: Duration = Duration::from_secs(1);

/// Nobody says when a frame is there: the buffer is looked at this often.
const LOOK: Duration = Duration::from_millis(20);

/// While the writer holds its lock, which it does for a copy.
const LOCKED: Duration = Duration::from_millis(2);

/// Looks at a locked buffer before it is read all the same: the programs that are known to work never asked.
const LOCKED_MAX: u8 = 5;

/// Looks at a place whose header does not fit before that counts as a loss: a writer may say where a frame ends before
/// it is there.
const MISFITS_MAX: u8 = 5;

/// Nothing for so long is worth a word, and the buffer is opened anew.
const STALL: Duration = Duration::from_secs(2);

/// Reads a FIFO of the firmware's `h264grabber`, as [`fifo::video`]. Ends when the camera says that the stream is
/// H.265: that is beyond the reach of the grabber.
pub async fn video(path: &Path, access_unit_bytes: usize, sink: &mut dyn Sink) -> Error {
    match codec(path) {
        Ok(()) => fifo::video(path, access_unit_bytes, sink).await,
        Err(error) => error,
    }
}

/// What the firmware says of the stream, when it says anything: `highres` or `lowres` beside the FIFO.
pub(super) fn codec(path: &Path) -> Result<()> {
    let is_low = path.file_name().is_some_and(|name| name.as_encoded_bytes().windows(3).any(|part| part == b"low"));
    let said = find::read(&path.with_file_name(if is_low { "lowres" } else { "highres" }));
    if !said.is_some_and(|said| said.starts_with(b"h265")) {
        return Ok(());
    }
    let advice = if is_low { "set it to H.264" } else { "use the small stream, h264_low_fifo" };
    Err(Error::new(ErrorKind::Unsupported, format!("{} is H.265, HomeKit takes H.264 only: {advice}", path.display())))
}

/// The sound that belongs to a FIFO with video, once there is some: AAC, which recordings want, before PCM.
pub async fn sound_beside(video: &Path, rate_hz: u32) -> (PathBuf, Format) {
    let (aac, pcm) = (video.with_file_name(AAC), video.with_file_name("audio_fifo"));
    request(&pcm);
    loop {
        if aac.exists() {
            return (aac, Format::Adts);
        }
        if pcm.exists() {
            return (pcm, Format::Pcm { rate_hz });
        }
        sleep_until(now() + RETRY).await;
    }
}

/// Returns once there is AAC beside a FIFO with PCM: whoever makes it may start later.
pub async fn aac_beside(pcm: &Path) {
    while !pcm.with_file_name(AAC).exists() {
        sleep_until(now() + RETRY).await;
    }
}

/// Asks the vendor's program to serve a FIFO. It looks when it starts.
pub fn request(fifo: &Path) {
    let mut path = fifo.as_os_str().to_owned();
    path.push(".requested");
    // Anybody may put something there, and we may write anywhere.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    if let Err(error) = File::options().create(true).append(true).custom_flags(flags).open(&path) {
        log::warn!("{}: {error}", Path::new(&path).display());
    }
}

/// Reads a stream of the frame buffer for ever, and the sound if it is wanted.
pub async fn play(
    root: &Path,
    layout: Layout,
    picture: Kind,
    with_sound: bool,
    access_unit_bytes: usize,
    sink: &mut dyn Sink,
) -> Error {
    let path = root.join(find::FRAME_BUFFER);
    let mut pictures = Taking::new(Track::Video, layout, Pictures::new(access_unit_bytes));
    let mut sound = with_sound.then(|| Taking::new(Track::Audio, layout, Sound::default()));
    loop {
        match Buffer::open(&path, layout) {
            Ok(mut buffer) => {
                let mut stalled_at = now() + STALL;
                loop {
                    let found = buffer.poll();
                    let taken = match &found {
                        Found::Frame(place) if place.frame.kind == picture => {
                            stalled_at = now() + STALL;
                            pictures.take(&buffer, place, sink)
                        }
                        Found::Frame(place) if place.frame.kind == Kind::Sound => {
                            sound.as_mut().is_none_or(|sound| sound.take(&buffer, place, sink))
                        }
                        Found::Frame(_) | Found::Nothing | Found::Locked => true,
                        Found::Lost => false,
                    };
                    if !taken {
                        buffer.next = None;
                        pictures.stream.reset();
                        pictures.troubles.report(Trouble::Overrun, sink);
                    }
                    match found {
                        Found::Frame(place) if taken => {
                            buffer.next = Some(place.next);
                            yield_now().await;
                            continue;
                        }
                        Found::Locked => sleep_until(now() + LOCKED).await,
                        _ => sleep_until(now() + LOOK).await,
                    }
                    if now() >= stalled_at {
                        pictures.stream.paused(sink);
                        let is_gone = fifo::is_replaced(&buffer.file, &path);
                        pictures.troubles.report(if is_gone { Trouble::WriterGone } else { Trouble::Stalled }, sink);
                        break;
                    }
                }
                // It may have another size by now.
                pictures.stream.reset();
            }
            Err(_) => pictures.troubles.report(Trouble::Missing, sink),
        }
        sleep_until(now() + RETRY).await;
    }
}

/// A stream of the buffer.
struct Taking<S> {
    stream: S,
    clock: Clock,
    troubles: Troubles,
}

impl<S: Stream> Taking<S> {
    fn new(track: Track, layout: Layout, stream: S) -> Self {
        Taking { stream, clock: Clock::default(), troubles: Troubles::new(track, ["yi:", layout.model].concat()) }
    }

    /// Takes a frame. `false` when it was written over meanwhile.
    fn take(&mut self, buffer: &Buffer, place: &Place, sink: &mut dyn Sink) -> bool {
        let frame = &place.frame;
        if frame.is_h265 {
            self.troubles.report(Trouble::H265, sink);
            return true;
        }
        let arrival = self.clock.arrival(i64::from(frame.time_ms) * 1000, now());
        let mut done = frame.skip;
        while done < frame.total {
            let room = self.stream.receive_buffer();
            let piece = room.len().min((frame.total - done) as usize);
            let Some(room) = room.get_mut(..piece) else { return false };
            if !buffer.copy(place, done, room) {
                return false;
            }
            self.stream.received(piece, arrival, sink, &mut self.troubles);
            done += piece as u32;
        }
        true
    }
}

/// A frame, and where it is.
struct Place {
    at: u32,
    /// Where the one behind it is.
    next: u32,
    frame: Frame,
    /// As it was when the frame was found.
    header: [u8; HEADER_MAX],
}

enum Found {
    Frame(Place),
    Nothing,
    /// The writer is at it.
    Locked,
    /// What was to come next was written over.
    Lost,
}

/// The frame buffer. It is read by pread(2), without the writer's lock, and looked at again after each copy: a reader
/// that took the lock and died would stop the camera.
struct Buffer {
    file: File,
    layout: Layout,
    file_bytes: u32,
    /// Where the next frame will be; the newest is waited for when it is not known.
    next: Option<u32>,
    locked: u8,
    misfits: u8,
}

impl Buffer {
    fn open(path: &Path, layout: Layout) -> Result<Self> {
        let file = find::open(path)?;
        let file_bytes = u32::try_from(file.metadata()?.len()).map_err(|_| ErrorKind::InvalidData)?;
        Ok(Buffer { file, layout, file_bytes, next: None, locked: 0, misfits: 0 })
    }

    fn control(&self) -> Option<Control> {
        let mut bytes = [0; CONTROL_BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        Control::parse(&bytes, self.layout, self.file_bytes).ok()
    }

    /// Copies what is `out.len()` long and lies at `at`, across the end of the buffer if need be.
    fn read(&self, control: &Control, at: u32, out: &mut [u8]) -> bool {
        let (head, tail) = out.split_at_mut(control.in_one_piece(at, out.len() as u32) as usize);
        let frames_at = self.layout.frames_at();
        self.file.read_exact_at(head, u64::from(frames_at) + u64::from(at)).is_ok()
            && self.file.read_exact_at(tail, frames_at.into()).is_ok()
    }

    fn frame(&self, control: &Control, at: u32) -> Option<Place> {
        let mut header = [0; HEADER_MAX];
        let bytes = header.get_mut(..self.layout.header_bytes())?;
        if !self.read(control, at, bytes) {
            return None;
        }
        let frame = Frame::parse(bytes, self.layout).ok()?;
        Some(Place { at, next: control.behind(at, frame.total), frame, header })
    }

    /// Looks for the next frame. The newest of all is left until another follows it: it may not be whole.
    fn poll(&mut self) -> Found {
        let Some(control) = self.control() else { return Found::Nothing };
        self.locked = if control.locked { self.locked + 1 } else { 0 };
        if (1..=LOCKED_MAX).contains(&self.locked) {
            return Found::Locked;
        }
        self.locked = 0;
        let at = *self.next.get_or_insert(control.end);
        let misfits = core::mem::take(&mut self.misfits);
        let Some(available) = control.available(at) else { return Found::Lost };
        if available == 0 {
            return Found::Nothing;
        }
        if let Some(place) = self.frame(&control, at) {
            match available.checked_sub(place.frame.total) {
                Some(0) => return Found::Nothing,
                // What is left of an older frame may look like a header, but not like one with another behind it.
                Some(rest) if self.frame(&control, place.next).is_some_and(|behind| behind.frame.total <= rest) => {
                    return Found::Frame(place);
                }
                _ => {}
            }
        }
        if misfits == MISFITS_MAX {
            return Found::Lost;
        }
        self.misfits = misfits + 1;
        Found::Nothing
    }

    /// Its header once nobody writes it.
    fn settled(&self) -> Option<Control> {
        (0..100).find_map(|_| self.control())
    }

    /// Copies a part of the frame that was found. `false` when the writer has come round meanwhile.
    fn copy(&self, place: &Place, from: u32, out: &mut [u8]) -> bool {
        let Some(control) = self.settled() else { return false };
        if !self.read(&control, control.behind(place.at, from), out) {
            return false;
        }
        let Some(control) = self.settled() else { return false };
        let is_there = control.available(place.at).is_some_and(|available| available >= place.frame.total);
        is_there && self.frame(&control, place.at).is_some_and(|again| again.header == place.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::{Executor, or};

    /// A buffer with room for 1000 bytes of frames, and the file behind it.
    fn buffer(name: &str) -> (Buffer, impl Fn(u32, u32)) {
        let path = std::env::temp_dir().join(format!("hksvd-yi-{name}-{}", std::process::id()));
        let layout = Layout::of("y20ga").unwrap();
        let file = File::options().write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(u64::from(layout.frames_at()) + 1000).unwrap();
        let buffer = Buffer::open(&path, layout).unwrap();
        std::fs::remove_file(path).unwrap();
        (buffer, move |at: u32, word: u32| file.write_all_at(&word.to_le_bytes(), at.into()).unwrap())
    }

    fn found(buffer: &mut Buffer) -> String {
        match buffer.poll() {
            Found::Frame(place) => format!("{} bytes at {}", place.frame.total, place.at),
            Found::Nothing => "nothing".into(),
            Found::Locked => "locked".into(),
            Found::Lost => "lost".into(),
        }
    }

    #[test]
    fn a_frame_that_is_announced_before_it_is_there_is_waited_for() {
        let (mut buffer, put) = buffer("early");
        let end = |end: u32| {
            put(4, end);
            put(12, end);
        };
        // A header has its length in front, and 22 bytes.
        let frame = |at: u32, total: u32| put(300 + at, total.wrapping_sub(22));
        assert_eq!(found(&mut buffer), "nothing");
        frame(0, u32::MAX);
        end(100);
        for _ in 0..4 {
            assert_eq!(found(&mut buffer), "nothing", "it lies as far as it has an end");
        }
        // Now it is the newest, and the one behind it is announced.
        frame(0, 100);
        for _ in 0..9 {
            assert_eq!(found(&mut buffer), "nothing");
        }
        end(200);
        assert_eq!(found(&mut buffer), "nothing");
        frame(100, 100);
        assert_eq!(found(&mut buffer), "100 bytes at 0");
        // What lies there is of an older frame: it would end within the new one.
        buffer.next = Some(100);
        frame(100, 40);
        frame(140, 61);
        assert_eq!(found(&mut buffer), "nothing");
        frame(100, 50);
        frame(150, 50);
        assert_eq!(found(&mut buffer), "50 bytes at 100");
        // It never comes.
        frame(100, 101);
        let looks: Vec<_> = (0..7).map(|_| found(&mut buffer)).collect();
        assert_eq!(looks, ["nothing", "nothing", "nothing", "nothing", "nothing", "lost", "nothing"]);
    }

    #[test]
    fn what_somebody_else_puts_there_is_neither_waited_for_nor_followed() {
        let folder = std::env::temp_dir().join(format!("hksvd-yi-put-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["a.requested", "fshare_frame_buf"] {
            assert!(std::process::Command::new("mkfifo").arg(folder.join(name)).status().unwrap().success());
        }
        std::os::unix::fs::symlink(folder.join("elsewhere"), folder.join("b.requested")).unwrap();
        let (done, is_done) = std::sync::mpsc::channel();
        let there = folder.clone();
        std::thread::spawn(move || {
            request(&there.join("a"));
            request(&there.join("b"));
            let _ = Buffer::open(&there.join("fshare_frame_buf"), Layout::of("y20ga").unwrap());
            done.send(()).unwrap();
        });
        assert!(is_done.recv_timeout(std::time::Duration::from_secs(10)).is_ok());
        assert!(!folder.join("elsewhere").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_camera_says_what_its_streams_are() {
        let folder = std::env::temp_dir().join(format!("hksvd-yi-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let says = |name: &str, what: &str| std::fs::write(folder.join(name), what).unwrap();
        let codec = |name: &str| codec(&folder.join(name)).map_err(|error| error.to_string());
        assert_eq!(codec("h264_high_fifo"), Ok(()), "nothing is known");
        says("highres", "h265\n");
        says("lowres", "h264\n");
        let refused = codec("h264_high_fifo").unwrap_err();
        assert!(
            refused.ends_with("is H.265, HomeKit takes H.264 only: use the small stream, h264_low_fifo"),
            "{refused}"
        );
        assert_eq!(codec("h264_low_fifo"), Ok(()));
        says("lowres", "h265");
        assert!(codec("h264_low_fifo").unwrap_err().ends_with("set it to H.264"));
        // Nobody writes into it, and nobody waits for that.
        std::fs::remove_file(folder.join("lowres")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(folder.join("lowres")).status().unwrap().success());
        assert_eq!(codec("h264_low_fifo"), Ok(()));

        // PCM is asked for and taken when there is no AAC.
        let sound = || Executor::default().block_on(sound_beside(&folder.join("h264_high_fifo"), 8_000));
        says("audio_fifo", "");
        assert_eq!(sound(), (folder.join("audio_fifo"), Format::Pcm { rate_hz: 8_000 }));
        assert!(folder.join("audio_fifo.requested").exists());
        let is_early = || {
            let late = async { sleep_until(now() + Duration::from_millis(20)).await };
            let aac = async { aac_beside(&folder.join("audio_fifo")).await };
            Executor::default().block_on(or(
                async {
                    aac.await;
                    false
                },
                async {
                    late.await;
                    true
                },
            ))
        };
        assert!(is_early());
        says("aac_audio_fifo", "");
        assert_eq!(sound(), (folder.join("aac_audio_fifo"), Format::Adts));
        assert!(!is_early());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
