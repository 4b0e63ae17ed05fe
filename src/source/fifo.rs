//! `fifo:PATH`: an encoder that writes its byte stream into a FIFO. There are no timestamps in it, the
//! writer comes and goes, and some make the FIFO anew each time.

use super::{Sink, Track, Trouble, Troubles};
use crate::io::runtime::{Fd, Signal, now, or, sleep_until, sleep_until_some, yield_now};
use crate::media::{adts, annexb, l16};
use crate::time::{Duration, Instant};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A picture is taken for whole when nothing has come for so long. While pictures come, the next one
/// says where it ends; this is for the last one before a rest. Shorter, and a writer that the kernel
/// lets wait in the middle of a picture loses it, and with it all until the next IDR.
const PAUSE: Duration = Duration::from_millis(250);

/// Nothing for so long is worth a word, and a look whether the path still leads to this FIFO.
const STALL: Duration = Duration::from_secs(2);

/// Between two attempts to open.
const RETRY: Duration = Duration::from_millis(200);

/// Sound does not wait longer than this for a picture.
const LOOK: Duration = Duration::from_millis(100);

/// Reads Annex B H.264 for ever. Ends only when the path leads to something that is no FIFO.
pub async fn video(path: &Path, access_unit_bytes: usize, sink: &mut dyn Sink) -> io::Error {
    read(path, Track::Video, &mut Pictures::new(access_unit_bytes), None, sink).await
}

/// Reads ADTS AAC for ever, as [`video`]. To wake up is what costs most, so sound waits for `pictures` to
/// fire; while somebody `is_awaiting` it, or no pictures come, it is read at once.
pub async fn audio(path: &Path, pictures: &Signal, is_awaiting: &dyn Fn() -> bool, sink: &mut dyn Sink) -> io::Error {
    read(path, Track::Audio, &mut Sound::default(), Some(&InStep::new(pictures, is_awaiting)), sink).await
}

/// Reads S16LE of one channel at `rate_hz` for ever, as [`video`]: only live views have a use for it.
pub async fn pcm(path: &Path, rate_hz: u32, sink: &mut dyn Sink) -> io::Error {
    read(path, Track::Audio, &mut Pcm { assembler: l16::Assembler::new(rate_hz), rate_hz }, None, sink).await
}

/// What makes media out of the bytes.
pub(super) trait Stream {
    fn receive_buffer(&mut self) -> &mut [u8];
    fn received(&mut self, n: usize, now: Instant, sink: &mut dyn Sink, troubles: &mut Troubles);
    fn paused(&mut self, sink: &mut dyn Sink);
    fn reset(&mut self);
}

/// Whenever the thread is awake for a picture.
struct InStep<'a> {
    pictures: &'a Signal,
    is_awaiting: &'a dyn Fn() -> bool,
    /// No picture has come for [`LOOK`].
    alone: Cell<bool>,
    /// The kernel wakes us for sound.
    listening: Cell<bool>,
    looked: Cell<Instant>,
    /// What the last look found came at some time since the one before: in the middle, on average, and the
    /// clock averages.
    came: Cell<Instant>,
}

impl<'a> InStep<'a> {
    fn new(pictures: &'a Signal, is_awaiting: &'a dyn Fn() -> bool) -> Self {
        let (looked, came) = (Cell::new(now()), Cell::new(now()));
        InStep { pictures, is_awaiting, alone: Cell::new(true), listening: Cell::new(true), looked, came }
    }

    /// What is there, and when it came.
    async fn read(&self, fd: &Fd<File>, buffer: &mut [u8]) -> io::Result<(usize, Instant)> {
        loop {
            let seen = self.pictures.count();
            let at_once = self.alone.get() || (self.is_awaiting)();
            if self.listening.replace(at_once) != at_once {
                fd.listen(at_once)?;
            }
            let read = async { Some(fd.read_pipe(buffer).await) };
            let look = async {
                self.pictures.changed(seen).await;
                self.alone.set(false);
                None
            };
            let alone = async {
                sleep_until_some((!at_once).then(|| now() + LOOK)).await;
                self.alone.set(true);
                None
            };
            if let Some(read) = or(read, or(look, alone)).await {
                return Ok((read?, if at_once { now() } else { self.came.get() }));
            }
            let now = now();
            let before = self.looked.replace(now);
            self.came.set(if at_once { now } else { before + (now - before) / 2 });
            if !at_once {
                fd.look_again();
            }
        }
    }
}

enum Read {
    Bytes(usize, Instant),
    WriterGone,
    Silence,
}

/// Made once for all streams, 2 kB on MIPS each. Without a step it reads as soon as something is there.
async fn read(
    path: &Path,
    track: Track,
    stream: &mut dyn Stream,
    step: Option<&InStep<'_>>,
    sink: &mut dyn Sink,
) -> io::Error {
    let mut troubles = Troubles::new(track, format!("fifo:{}", path.display()));
    let mut held: Option<Fd<File>> = None;
    loop {
        // The next descriptor is there before the old one goes, so that no writer finds a FIFO without reader.
        held = match open(path) {
            Ok(fd) => Some(fd),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return error,
            Err(_) => {
                drop(held.take());
                troubles.report(Trouble::Missing, sink);
                sleep_until(now() + RETRY).await;
                continue;
            }
        };
        let Some(fd) = &held else { continue };
        if wait_for_writer(fd, path).await {
            // A descriptor that is new wakes up for all that comes.
            if let Some(step) = step {
                step.listening.set(true);
            }
            read_until_gone(fd, path, stream, step, sink, &mut troubles).await;
            stream.reset();
        }
        // A writer that opens and closes in a loop must not make this one spin.
        sleep_until(now() + RETRY).await;
    }
}

fn open(path: &Path) -> io::Result<Fd<File>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        let text = format!("{} is not a FIFO; for a file use file:PATH", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Fd::new(file)
}

/// Whether what the path leads to was unlinked or made anew since it was opened.
pub(super) fn is_replaced(held: &File, path: &Path) -> bool {
    match (held.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) != (there.dev(), there.ino()),
        _ => true,
    }
}

/// Reading now would say "end" as long as no writer has ever come; waiting says when one has. `false`
/// when the path leads elsewhere by now.
async fn wait_for_writer(fd: &Fd<File>, path: &Path) -> bool {
    loop {
        let readable = or(async { Some(fd.readable().await) }, async {
            sleep_until(now() + STALL).await;
            None
        });
        match readable.await {
            Some(result) => return result.is_ok(),
            None if is_replaced(fd.get(), path) => return false,
            None => {}
        }
    }
}

async fn read_until_gone(
    fd: &Fd<File>,
    path: &Path,
    stream: &mut dyn Stream,
    step: Option<&InStep<'_>>,
    sink: &mut dyn Sink,
    troubles: &mut Troubles,
) {
    let mut wait = PAUSE;
    loop {
        let buffer = stream.receive_buffer();
        let outcome = or(
            async {
                let read = match step {
                    Some(step) => step.read(fd, buffer).await,
                    None => fd.read_pipe(buffer).await.map(|n| (n, now())),
                };
                match read {
                    Ok((n, came)) if n > 0 => Read::Bytes(n, came),
                    _ => Read::WriterGone,
                }
            },
            async {
                sleep_until(now() + wait).await;
                Read::Silence
            },
        );
        match outcome.await {
            Read::Bytes(n, came) => {
                stream.received(n, came, sink, troubles);
                wait = PAUSE;
            }
            Read::WriterGone => return troubles.report(Trouble::WriterGone, sink),
            Read::Silence if wait == PAUSE => {
                stream.paused(sink);
                wait = STALL;
            }
            Read::Silence => {
                troubles.report(Trouble::Stalled, sink);
                if is_replaced(fd.get(), path) {
                    return;
                }
            }
        }
        yield_now().await;
    }
}

/// Annex B, cut anywhere.
pub(super) struct Pictures {
    assembler: annexb::Assembler,
    told: annexb::AnnexBCounters,
}

impl Pictures {
    /// For access units of up to so many bytes.
    pub(super) fn new(access_unit_bytes: usize) -> Self {
        Pictures { assembler: annexb::Assembler::new(access_unit_bytes), told: Default::default() }
    }
}

impl Stream for Pictures {
    fn receive_buffer(&mut self) -> &mut [u8] {
        self.assembler.receive_buffer()
    }

    fn received(&mut self, n: usize, now: Instant, sink: &mut dyn Sink, troubles: &mut Troubles) {
        self.assembler.handle_received(n, now);
        while let Some(unit) = self.assembler.poll_unit() {
            sink.access_unit(unit.annexb, unit.key, unit.arrival);
        }
        let (seen, told) = (self.assembler.counters(), self.told);
        for (seen, told, trouble) in [
            (seen.garbage, told.garbage, Trouble::Garbage),
            (seen.h265, told.h265, Trouble::H265),
            (seen.torn, told.torn, Trouble::Torn),
            (seen.oversized, told.oversized, Trouble::Oversized),
        ] {
            if seen != told {
                troubles.report(trouble, sink);
            }
        }
        self.told = seen;
    }

    fn paused(&mut self, sink: &mut dyn Sink) {
        if let Some(unit) = self.assembler.flush() {
            sink.access_unit(unit.annexb, unit.key, unit.arrival);
        }
    }

    fn reset(&mut self) {
        self.assembler.reset();
        self.told = self.assembler.counters();
    }
}

#[derive(Default)]
pub(super) struct Sound {
    assembler: adts::Assembler,
    told: u32,
}

impl Stream for Sound {
    fn receive_buffer(&mut self) -> &mut [u8] {
        self.assembler.receive_buffer()
    }

    fn received(&mut self, n: usize, now: Instant, sink: &mut dyn Sink, troubles: &mut Troubles) {
        self.assembler.handle_received(n, now);
        while let Some(frame) = self.assembler.poll_frame() {
            sink.aac(frame.raw, frame.rate_hz, frame.channels, frame.arrival);
        }
        if self.assembler.garbage() != self.told {
            self.told = self.assembler.garbage();
            troubles.report(Trouble::Garbage, sink);
        }
    }

    fn paused(&mut self, _: &mut dyn Sink) {}

    fn reset(&mut self) {
        self.assembler.reset();
    }
}

struct Pcm {
    assembler: l16::Assembler,
    rate_hz: u32,
}

impl Stream for Pcm {
    fn receive_buffer(&mut self) -> &mut [u8] {
        self.assembler.receive_buffer()
    }

    fn received(&mut self, n: usize, now: Instant, sink: &mut dyn Sink, _: &mut Troubles) {
        self.assembler.handle_received(n, now);
        while let Some(frame) = self.assembler.poll_frame() {
            sink.l16(frame.pcm, self.rate_hz, frame.arrival);
        }
    }

    /// Who rests for so long begins anew: a shell may keep the FIFO open for one recorder after another, and one that
    /// was ended in the middle of a sample must not make noise of all that follows.
    fn paused(&mut self, _: &mut dyn Sink) {
        self.assembler.reset();
    }

    fn reset(&mut self) {
        self.assembler.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recorder;
    use super::*;
    use crate::io::runtime::Executor;
    use std::cell::RefCell;
    use std::io::Write;
    use std::path::PathBuf;
    use std::rc::Rc;

    /// A folder of its own that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("hksvd-fifo-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn fifo(&self) -> PathBuf {
            let path = self.0.join("stream");
            let _ = std::fs::remove_file(&path);
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const IDR: &[u8] = b"\0\0\0\x01\x67\x42\0\0\x01\x65\x88\x01\0";
    const P: &[u8] = b"\0\0\0\x01\x41\x9a\x01\x02";

    /// Plays `source` for as long as `script` takes. The source has its turn first: whoever opens the FIFO for writing
    /// finds a reader, and neither runs while the other does.
    fn run(source: impl Future<Output = io::Error>, script: impl Future<Output = ()>) {
        Executor::default().block_on(or(async { panic!("{}", source.await) }, script));
    }

    fn open_to_write(path: &Path) -> File {
        OpenOptions::new().write(true).open(path).unwrap()
    }

    async fn after(ms: u64) {
        sleep_until(now() + Duration::from_millis(ms)).await;
    }

    async fn until(what: &str, so: impl Fn() -> bool) {
        let end = now() + Duration::from_secs(20);
        while !so() {
            assert!(now() < end, "not seen: {what}");
            after(5).await;
        }
    }

    /// Until the source has done all that it does without waiting for a timer.
    async fn turns() {
        for _ in 0..20 {
            yield_now().await;
        }
    }

    fn count(recorder: &RefCell<Recorder>, trouble: Trouble) -> usize {
        recorder.borrow().troubles.iter().filter(|told| told.1 == trouble).count()
    }

    #[test]
    fn a_writer_comes_and_goes_and_comes_back() {
        let folder = Folder::new("video");
        let path = folder.fifo();
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let seen = || recorder.borrow().pictures.len();
        run(async { video(&path, 1000, &mut sink).await }, async {
            let mut first = open_to_write(&path);
            first.write_all(&[IDR, P, P].concat()).unwrap();
            until("the last picture without a successor", || seen() == 3).await;
            first.write_all(&P[..5]).unwrap();
            drop(first);
            until("the first one has gone", || count(&recorder, Trouble::WriterGone) == 1).await;
            let mut second = open_to_write(&path);
            // From the middle of a NAL unit.
            second.write_all(&[&IDR[8..], P, IDR, P].concat()).unwrap();
            until("the last picture", || seen() == 5).await;
            drop(second);
            until("the second one has gone", || count(&recorder, Trouble::WriterGone) == 2).await;
        });
        let recorder = recorder.borrow();
        let got: Vec<_> = recorder.pictures.iter().map(|p| (p.0, p.1)).collect();
        assert_eq!(got, [(IDR.len(), true), (P.len(), false), (P.len(), false), (IDR.len(), true), (P.len(), false)]);
        assert_eq!(recorder.troubles[0], (Track::Video, Trouble::WriterGone));
    }

    #[test]
    fn a_writer_may_rest_in_the_middle_of_a_picture() {
        // Whether the rest was short enough.
        let rests = || {
            let folder = Folder::new("rest");
            let path = folder.fifo();
            let recorder = Rc::new(RefCell::new(Recorder::default()));
            let mut sink = recorder.clone();
            let mut short = false;
            run(async { video(&path, 1000, &mut sink).await }, async {
                let mut writer = open_to_write(&path);
                let began = now();
                writer.write_all(&[IDR, &P[..P.len() - 2]].concat()).unwrap();
                after(100).await;
                writer.write_all(&[&P[P.len() - 2..], P].concat()).unwrap();
                turns().await;
                short = now() - began < PAUSE;
                if short {
                    until("the last picture", || recorder.borrow().pictures.len() == 3).await;
                    drop(writer);
                    until("it has gone", || count(&recorder, Trouble::WriterGone) == 1).await;
                }
            });
            let recorder = recorder.borrow();
            if short {
                assert_eq!(recorder.pictures.iter().map(|p| p.0).collect::<Vec<_>>(), [IDR.len(), P.len(), P.len()]);
                assert_eq!(recorder.troubles, [(Track::Video, Trouble::WriterGone)]);
            }
            short
        };
        assert!((0..10).any(|_| rests()), "100 ms never took less than {PAUSE:?}");
    }

    #[test]
    fn samples_are_whole_after_a_rest_and_with_the_next_writer() {
        let folder = Folder::new("pcm");
        let path = folder.fifo();
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        // 20 ms at 8 kHz.
        let frame = [0x12, 0x34].repeat(160);
        let heard = || recorder.borrow().pcm.len();
        run(async { pcm(&path, 8_000, &mut sink).await }, async {
            let mut first = open_to_write(&path);
            first.write_all(&[&frame[..], &frame[..99]].concat()).unwrap();
            until("the first frame", || heard() == 1).await;
            // After a rest it begins with a whole sample.
            turns().await;
            after(450).await;
            first.write_all(&frame).unwrap();
            until("the frame after the rest", || heard() == 2).await;
            first.write_all(&frame[..3]).unwrap();
            drop(first);
            until("the first one has gone", || count(&recorder, Trouble::WriterGone) == 1).await;
            let mut second = open_to_write(&path);
            second.write_all(&frame.repeat(2)).unwrap();
            until("its frames", || heard() == 4).await;
            drop(second);
            until("the second one has gone", || count(&recorder, Trouble::WriterGone) == 2).await;
        });
        let recorder = recorder.borrow();
        assert_eq!(recorder.pcm, vec![(vec![0x3412; 160], 8_000); 4]);
        assert_eq!(recorder.troubles[0], (Track::Audio, Trouble::WriterGone));
    }

    #[test]
    fn a_fifo_that_was_made_anew_is_found() {
        let folder = Folder::new("anew");
        let path = folder.fifo();
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let (pictures, awaiting) = (Signal::default(), || false);
        run(async { audio(&path, &pictures, &awaiting, &mut sink).await }, async {
            // Nobody has written into the first one yet.
            assert_eq!(folder.fifo(), path);
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(libc::O_NONBLOCK);
            let writer = RefCell::new(None);
            let opens = || writer.borrow_mut().insert(options.open(&path)).is_ok();
            until("a reader of the second one", opens).await;
            let frame = b"\xff\xf1\x60\x40\x01\x7f\xfcabcd";
            writer.take().unwrap().unwrap().write_all(&frame.repeat(3)).unwrap();
            until("the sound", || recorder.borrow().frames.len() == 3).await;
        });
        assert_eq!(recorder.borrow().frames.iter().map(|f| f.0).collect::<Vec<_>>(), [16_000; 3]);
    }

    #[test]
    fn sound_waits_for_pictures_unless_somebody_waits_for_it() {
        const FRAME: &[u8] = b"\xff\xf1\x60\x40\x01\x7f\xfcabcd";
        let folder = Folder::new("step");
        let path = folder.fifo();
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let (pictures, awaited) = (Signal::default(), Cell::new(false));
        let heard = || recorder.borrow().frames.len();
        let middle = |a: Instant, b: Instant| a + (b - a) / 2;
        run(async { audio(&path, &pictures, &|| awaited.get(), &mut sink).await }, async {
            let mut writer = open_to_write(&path);
            // Nothing to wait for.
            writer.write_all(&FRAME.repeat(2)).unwrap();
            turns().await;
            assert_eq!(heard(), 2);
            let mut rounds = 0;
            for tries in 1.. {
                let before = heard();
                let first = now();
                pictures.notify();
                turns().await;
                let first = [first, now()];
                after(10).await;
                writer.write_all(FRAME).unwrap();
                after(20).await;
                turns().await;
                // Held up for longer, it may have been read for the lack of pictures.
                let in_step = now() - first[0] < LOOK - Duration::from_millis(10);
                if in_step {
                    assert_eq!(heard(), before, "no picture yet");
                }
                let second = now();
                pictures.notify();
                turns().await;
                let second = [second, now()];
                assert_eq!(heard(), before + 1, "with the picture");
                if in_step {
                    let came = recorder.borrow().frames[before].1;
                    let [earliest, latest] = [0, 1].map(|n| middle(first[n], second[n]));
                    assert!((earliest..=latest).contains(&came), "in the middle between two looks");
                    rounds += 1;
                }
                if rounds == 3 {
                    break;
                }
                assert!(tries < 30, "30 ms never took less than {LOOK:?}");
            }
            // Pictures come no more.
            let before = heard();
            writer.write_all(FRAME).unwrap();
            until("it is read all the same", || heard() == before + 1).await;
            writer.write_all(FRAME).unwrap();
            turns().await;
            assert_eq!(heard(), before + 2, "at once");
            // They do again, and somebody watches.
            awaited.set(true);
            pictures.notify();
            turns().await;
            writer.write_all(FRAME).unwrap();
            turns().await;
            assert_eq!(heard(), before + 3);
        });
    }

    #[test]
    fn a_regular_file_is_refused_and_a_missing_one_awaited() {
        let folder = Folder::new("file");
        let path = folder.0.join("clip.h264");
        let recorder = Rc::new(RefCell::new(Recorder::default()));
        let mut sink = recorder.clone();
        let error = Executor::default().block_on(or(video(&path, 1000, &mut sink), async {
            until("it is missing", || !recorder.borrow().troubles.is_empty()).await;
            std::fs::write(&path, b"").unwrap();
            std::future::pending().await
        }));
        assert!(error.to_string().ends_with("is not a FIFO; for a file use file:PATH"), "{error}");
        assert_eq!(recorder.borrow().troubles, [(Track::Video, Trouble::Missing)]);
    }
}
