//! A stand-in for the program of Yi's cameras with Allwinner processors: another process that writes its frame buffer as
//! it is documented. It shares nothing with the reader. The tests run it by starting their own program again.

use crate::feeder::{access_units, adts_frames};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// 1280x720, 480 pictures with an IDR picture every 30; and its sound.
pub const LARGE: &[u8] = include_bytes!("../../src/source/demo/video.h264");
pub const AUDIO: &[u8] = include_bytes!("../../src/source/demo/audio.aac");
/// 320x180, 30 pictures with an IDR picture every 15.
pub const SMALL: &[u8] = include_bytes!("../media/small.h264");

const ROOT: &str = "YI_STAND_IN_ROOT";
const ORDER: &str = "YI_STAND_IN_ORDER";

/// The process, seen by a test. It goes with the test.
pub struct StandIn {
    child: Child,
    pub root: PathBuf,
}

impl StandIn {
    /// Starts it with a root of its own. The order: bytes of a frame's header, where frames begin, bytes of the buffer,
    /// frames of `units` or of single `nals`, milliseconds from picture to picture (0: bursts).
    pub fn start(name: &str, order: &str) -> Self {
        let root = PathBuf::from(format!("/dev/shm/hksvd-yi-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("dev/shm")).expect("a folder");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["the_other_process", "--exact", "--ignored"])
            .env(ROOT, &root)
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        StandIn { child, root }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// The other process.
pub fn serve() {
    let (Some(root), Ok(order)) = (std::env::var_os(ROOT), std::env::var(ORDER)) else { return };
    std::thread::spawn(|| {
        // Whoever started it is gone.
        std::io::stdin().lines().for_each(drop);
        std::process::exit(0);
    });
    let words: Vec<&str> = order.split(' ').collect();
    let number = |n: usize| words[n].parse::<u64>().expect("a number");
    let path = PathBuf::from(root).join("dev/shm/fshare_frame_buf");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("the buffer");
    file.set_len(number(2)).expect("room");
    let mut writer = Writer {
        file,
        header: number(0) as usize,
        offset: number(1),
        circle: number(2) - number(1),
        by_nal: words[3] == "nals",
        counter: 0,
        streams: [0; 3],
        frames: VecDeque::new(),
        start: 0,
        length: 0,
        begun: Instant::now(),
    };
    let (large, small, sound) = (access_units(LARGE), access_units(SMALL), adts_frames(AUDIO));
    let pause = Duration::from_millis(number(4));
    for n in 0.. {
        writer.picture(0x0400, &large[n % large.len()]);
        writer.picture(0x0800, &small[n % small.len()]);
        if n % 2 == 0 {
            let sound = &sound[n / 2 % sound.len()];
            writer.frame(0x0100, 2, &[], sound);
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        } else if n % 100 >= 40 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Writer {
    file: File,
    header: usize,
    offset: u64,
    circle: u64,
    by_nal: bool,
    counter: u32,
    streams: [u16; 3],
    /// Bytes of the frames that are there, the oldest first.
    frames: VecDeque<u64>,
    start: u64,
    length: u64,
    begun: Instant,
}

impl Writer {
    fn picture(&mut self, stream: u16, unit: &[u8]) {
        let number = usize::from(stream == 0x0800);
        let is_start = |at: &usize| unit[*at..].starts_with(&[0, 0, 1]);
        let mut starts: Vec<usize> = (0..unit.len() - 3).filter(is_start).collect();
        if !self.by_nal {
            starts.truncate(1);
        }
        for (i, at) in starts.iter().enumerate() {
            // The zero byte in front of a start code belongs to it.
            let begin = |at: usize| if at > 0 && unit[at - 1] == 0 { at - 1 } else { at };
            let end = starts.get(i + 1).map_or(unit.len(), |at| begin(*at));
            let bytes = &unit[if i == 0 { 0 } else { begin(*at) }..end];
            let has_sps = bytes.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7);
            match has_sps {
                true => self.frame(stream | 0x0002, number, &[0xee; 6], bytes),
                false => self.frame(stream, number, &[], bytes),
            }
        }
    }

    fn frame(&mut self, kind: u16, stream: usize, before: &[u8], payload: &[u8]) {
        self.counter += 1;
        self.streams[stream] = self.streams[stream].wrapping_add(1);
        let length = (before.len() + payload.len()) as u32;
        let mut bytes = [length, self.counter, 0xffff_ffff].map(u32::to_le_bytes).concat();
        if self.header >= 26 {
            bytes.extend([0xff; 4]);
        }
        bytes.extend((self.begun.elapsed().as_millis() as u32).wrapping_add(u32::MAX - 500).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(self.streams[stream].to_le_bytes());
        bytes.resize(self.header, 0xff);
        bytes.extend(before);
        bytes.extend(payload);

        self.word(0, 1);
        while self.circle - self.length < bytes.len() as u64 {
            let oldest = self.frames.pop_front().expect("a frame larger than the buffer");
            self.start = (self.start + oldest) % self.circle;
            self.length -= oldest;
        }
        self.word(4, self.length);
        self.word(16, self.start);
        // Slowly, so that others can look at half of it.
        let mut at = (self.start + self.length) % self.circle;
        for piece in bytes.chunks(5_000) {
            let (head, tail) = piece.split_at(piece.len().min((self.circle - at) as usize));
            self.file.write_all_at(head, self.offset + at).expect("written");
            self.file.write_all_at(tail, self.offset).expect("written");
            at = (at + piece.len() as u64) % self.circle;
            std::thread::yield_now();
        }
        self.frames.push_back(bytes.len() as u64);
        self.length += bytes.len() as u64;
        self.word(4, self.length);
        self.word(12, at);
        self.word(0, 0);
    }

    fn word(&self, at: u64, value: u64) {
        self.file.write_all_at(&(value as u32).to_le_bytes(), at).expect("written");
    }
}
