//! Where talk-back goes: a FIFO, an OSS device, the input of a command. Each takes 16-bit samples of one channel,
//! lower byte first. An RTSP server gets them through a [`Line`].
//!
//! A sink that takes nothing, or is not there, costs what should have been heard and nothing else.

use super::raptor::SpeakerRing;
use super::rtsp::Line;
use crate::config::SpeakerSink;
use crate::io::command::{Commands, Feeding};
use crate::sys::dsp;
use crate::time::{Duration, Instant};
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

/// Between two attempts to open.
const RETRY: Duration = Duration::from_secs(1);

/// As long as that when somebody else talks, unless our own talk is over before.
const TAKEN: Duration = Duration::from_secs(30);

/// Samples that are written at once: less than a pipe takes in one piece or not at all (pipe(7)), so that no sample is
/// ever torn.
const PIECE: usize = 1_024;

enum Open {
    File(File),
    Command(Feeding),
    Ring(SpeakerRing),
}

/// The loudspeaker.
pub struct Speaker {
    sink: SpeakerSink,
    rate_hz: u32,
    commands: Commands,
    /// To the RTSP server, when that is the sink.
    line: Option<Rc<Line>>,
    open: Option<Open>,
    retry_at: Instant,
    is_told: bool,
}

impl Speaker {
    /// Nothing is opened before there is something to say.
    pub fn new(sink: SpeakerSink, rate_hz: u32, commands: Commands) -> Self {
        let line = (sink == SpeakerSink::Rtsp).then(Rc::default);
        Speaker { sink, rate_hz, commands, line, open: None, retry_at: Instant::ZERO, is_told: false }
    }

    /// What an RTSP server is to be [told](super::rtsp::talk).
    pub fn line(&self) -> Option<Rc<Line>> {
        self.line.clone()
    }

    /// Says this now; what the sink does not take at once is dropped.
    pub fn play(&mut self, pcm: &[i16], now: Instant) {
        if let Some(line) = &self.line {
            return line.say(pcm);
        }
        for piece in pcm.chunks(PIECE) {
            if !self.is_open(now) {
                return;
            }
            let mut bytes = [0; 2 * PIECE];
            for (to, sample) in bytes.chunks_exact_mut(2).zip(piece) {
                to.copy_from_slice(&sample.to_le_bytes());
            }
            let written = match &mut self.open {
                Some(Open::File(file)) => file.write(&bytes[..2 * piece.len()]),
                Some(Open::Command(feeding)) => feeding.write(&bytes[..2 * piece.len()]),
                Some(Open::Ring(ring)) => ring.write(&bytes[..2 * piece.len()]),
                None => return,
            };
            match written {
                Ok(_) => self.is_told = false,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.open = None;
                    self.failed(&error, now);
                }
            }
        }
    }

    /// Nobody talks any more: others may have the device, and the command sees the end of its input. A FIFO stays
    /// open: its reader waits for what comes next.
    pub fn rest(&mut self) {
        if let Some(line) = &self.line {
            line.hang_up();
        }
        if !matches!(self.sink, SpeakerSink::Fifo(_) | SpeakerSink::YiFifo(_)) {
            self.open = None;
        }
        self.retry_at = Instant::ZERO;
    }

    fn is_open(&mut self, now: Instant) -> bool {
        if self.open.is_none() && now >= self.retry_at {
            match self.open() {
                Ok(open) => self.open = Some(open),
                Err(error) => self.failed(&error, now),
            }
        }
        self.open.is_some()
    }

    fn open(&self) -> Result<Open> {
        match &self.sink {
            SpeakerSink::Fifo(path) | SpeakerSink::YiFifo(path) => writable(path).map(Open::File),
            SpeakerSink::Oss(path) => {
                let device = writable(path)?;
                dsp::configure(&device, self.rate_hz)?;
                Ok(Open::File(device))
            }
            SpeakerSink::Exec(command) => {
                let mut rate = heapless::String::<10>::new();
                // No number of 32 bits is longer.
                let _ = core::fmt::write(&mut rate, format_args!("{}", self.rate_hz));
                let feeding = self.commands.feed(&command.0, &[("HKSVD_RATE_HZ", &rate)]);
                feeding.map(Open::Command).map_err(|failed| Error::other(failed.to_string()))
            }
            SpeakerSink::Raptor => SpeakerRing::open(&super::root(), self.rate_hz).map(Open::Ring),
            // Nothing is played into the one, and the other has its line.
            SpeakerSink::None | SpeakerSink::Rtsp => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Says it once: a reader that is not there may come, or not.
    fn failed(&mut self, error: &Error, now: Instant) {
        // Another program has taken Raptor's loudspeaker over. It is not to be taken back in the middle of a word.
        let is_taken = self.sink == SpeakerSink::Raptor && error.kind() == ErrorKind::BrokenPipe;
        self.retry_at = now + if is_taken { TAKEN } else { RETRY };
        if !core::mem::replace(&mut self.is_told, true) {
            match error.raw_os_error() {
                Some(libc::ENXIO) => log::warn!("speaker.sink: nobody reads it; what is said is lost"),
                _ => log::warn!("speaker.sink: {error}; what is said is lost"),
            }
        }
    }
}

/// Opens what must be there already, without waiting for a reader.
fn writable(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Command;
    use crate::io::runtime::{Executor, now, sleep_until};
    use std::io::Read;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hksvd-speaker-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn commands() -> Commands {
        Commands::new(Executor::default()).unwrap()
    }

    fn at_s(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn a_reader_comes_and_goes_and_comes_back() {
        let folder = Folder::new("fifo");
        let path = folder.0.join("fifo");
        let mut speaker = Speaker::new(SpeakerSink::Fifo(path.clone()), 16_000, commands());
        speaker.play(&[1; 320], at_s(0));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        // There is nobody, and nothing waits for anybody.
        speaker.play(&[1; 320], at_s(2));
        let read = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut reader = read();
        speaker.play(&[1; 320], at_s(2));
        assert_eq!(reader.read(&mut [0; 1000]).unwrap(), 0, "not tried again so soon");
        speaker.play(&[-2, 0x1234], at_s(3));
        let mut bytes = [0; 1000];
        assert_eq!(reader.read(&mut bytes).unwrap(), 4);
        assert_eq!(bytes[..4], [0xfe, 0xff, 0x34, 0x12]);
        // It does not read: a pipe's worth is taken, in whole pieces, and the rest dropped.
        for _ in 0..1_000 {
            speaker.play(&[7; 320], at_s(4));
        }
        let mut total = 0;
        while let Ok(n @ 1..) = reader.read(&mut bytes) {
            assert!(bytes[..n].chunks(2).all(|sample| sample == [7, 0]) && n % 2 == 0);
            total += n;
        }
        assert!(total >= 640 && total % 640 == 0 && total < 640_000, "{total}");
        drop(reader);
        speaker.play(&[1; 320], at_s(5));
        let mut reader = read();
        speaker.rest();
        speaker.play(&[9; 320], at_s(5));
        assert_eq!(reader.read(&mut bytes).unwrap(), 640);
        // It is still there when the next one talks.
        speaker.rest();
        assert_eq!(reader.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_command_gets_it_and_the_end() {
        let folder = Folder::new("exec");
        let path = folder.0.join("said");
        let executor = Executor::default();
        let commands = Commands::new(executor.clone()).unwrap();
        let command = format!("cat > {}.part; echo $HKSVD_RATE_HZ >> {0}.part; mv {0}.part {0}", path.display());
        let sink = SpeakerSink::Exec(Command(command));
        let mut speaker = Speaker::new(sink, 8_000, commands);
        executor.block_on(async {
            speaker.play(&[0x4142; 2], now());
            speaker.rest();
            let end = now() + Duration::from_secs(5);
            while !path.exists() {
                assert!(now() < end);
                sleep_until(now() + Duration::from_millis(10)).await;
            }
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"BABA8000\n");
    }

    #[test]
    fn what_is_no_sound_device_costs_nothing() {
        let mut speaker = Speaker::new(SpeakerSink::Oss("/dev/null".into()), 16_000, commands());
        speaker.play(&[1; 5_000], at_s(1));
        assert!(speaker.open.is_none());
    }
}
