//! A stand-in for Raptor's encoder and audio program: another process that publishes into rings of shared memory as
//! the streamer is documented to, and does to them whatever it does. It is written from the layout and shares nothing
//! with the reader. The tests run it by starting their own program again.

use crate::feeder::{Clip, access_units, adts_frames};
use serde_json::{Value as Json, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// 1280x720, 480 pictures with an IDR picture every 30; and its sound.
pub const LARGE: &[u8] = include_bytes!("../../src/source/demo/video.h264");
pub const AUDIO: &[u8] = include_bytes!("../../src/source/demo/audio.aac");
/// 320x180, 30 pictures with an IDR picture every 15.
pub const SMALL: &[u8] = include_bytes!("../media/small.h264");

const ROOT: &str = "RAPTOR_STAND_IN_ROOT";

/// The process, seen by a test. It goes with the test.
pub struct StandIn {
    child: Child,
    orders: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
    pub root: PathBuf,
}

impl StandIn {
    /// Starts it with a root of its own in real shared memory.
    pub fn start(name: &str) -> Self {
        let root = PathBuf::from(format!("/dev/shm/hksvd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("dev/shm")).expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["the_other_process", "--exact", "--ignored", "--nocapture"])
            .env(ROOT, &root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (said.clone(), BufReader::new(child.stderr.take().expect("a pipe")));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        let orders = child.stdin.take().expect("a pipe");
        StandIn { child, orders, said, root }
    }

    /// Has it do something, and waits until it is done.
    pub fn order(&mut self, order: &str) {
        let done = self.count("done");
        writeln!(self.orders, "{order}").expect("it listens");
        self.wait(order, |stand_in| stand_in.count("done") > done);
    }

    /// How often it said this.
    pub fn count(&self, what: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| *line == what).count()
    }

    pub fn wait(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !so(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn shm(&self, name: &str) -> PathBuf {
        self.root.join("dev/shm").join(name)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// The other process. Orders come on standard input, one a line; see [`act`].
pub fn serve() {
    let Some(root) = std::env::var_os(ROOT).map(PathBuf::from) else { return };
    let (send, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            send.send(line).expect("it listens");
        }
        // Whoever started it is gone.
        std::process::exit(0);
    });
    act(&root, &orders);
}

fn say(what: &str) {
    eprintln!("{what}");
}

/// Shared memory, by volatile words.
struct Memory {
    at: *mut u8,
    len: usize,
}

impl Memory {
    fn map(file: &File, offset: usize, len: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), offset as _)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Memory { at: at.cast(), len }
    }

    fn u32(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.len);
        // SAFETY: inside and aligned.
        unsafe { AtomicU32::from_ptr(self.at.add(at).cast()) }
    }

    fn u8(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.len);
        // SAFETY: inside.
        unsafe { AtomicU8::from_ptr(self.at.add(at)) }
    }

    fn fill(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "{at} + {} > {}", bytes.len(), self.len);
        // SAFETY: inside.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at.add(at), bytes.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: as mapped.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// The encoder's memory: as many buffers as the header of a ring can have.
const BUFFERS: usize = 8;
const STRIDE: usize = 200_000;
/// Where they begin in the device.
const DEVICE_OFFSET: usize = 8192;

struct Ring {
    memory: Memory,
    encoder: Option<Memory>,
    slots: usize,
    data: usize,
    head: usize,
    sequence: u32,
    clip: Clip,
    at: usize,
    codec: u32,
}

/// How a frame is published.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Well,
    /// The slot is being written again already when it is announced.
    Torn,
    /// The encoder has filled the buffer again already when it is announced.
    Stale,
}

impl Ring {
    /// Makes it anew where it is, as the streamer does: the file stays, the incarnation grows.
    #[allow(clippy::too_many_arguments)]
    fn new(root: &Path, name: &str, slots: usize, data: usize, encoder: &str, codec: u32, clip: Clip) -> Self {
        let open = |path: PathBuf| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            file.expect("shared memory")
        };
        let shm = root.join("dev/shm");
        let file = open(shm.join(format!("rss_ring_{name}")));
        let behind = if encoder == "embedded" { data } else { 4096 };
        let len = 4096 + 32 * slots + behind;
        let before = file.metadata().expect("a file").len();
        let incarnation = if before >= 4096 { Memory::map(&file, 0, 4096).u32(60).load(SeqCst) } else { 0 };
        file.set_len(len as u64).expect("room");
        let memory = Memory::map(&file, 0, len);
        memory.u32(52).store(0, SeqCst);
        memory.fill(0, &[0; 52]);
        memory.fill(56, &[0; 136]);
        memory.fill(4096, &vec![0xff; 32 * slots]);
        let encoder = match encoder {
            "embedded" => None,
            "shm" => {
                let file = open(shm.join(format!("rss_enc_{name}")));
                file.set_len((BUFFERS * STRIDE) as u64).expect("room");
                Some(Memory::map(&file, 0, BUFFERS * STRIDE))
            }
            "rmem" => {
                let file = open(root.join("dev/rmem"));
                file.set_len((DEVICE_OFFSET + BUFFERS * STRIDE) as u64).expect("room");
                memory.u32(100).store(DEVICE_OFFSET as u32, SeqCst);
                Some(Memory::map(&file, DEVICE_OFFSET, BUFFERS * STRIDE))
            }
            other => panic!("{other}"),
        };
        memory.u32(12).store(slots as u32, SeqCst);
        memory.u32(16).store(behind as u32, SeqCst);
        memory.u32(28).store(codec, SeqCst);
        let rate = match (name, codec) {
            ("audio", 0 | 8) => 8_000,
            ("audio", _) => 16_000,
            _ => 25,
        };
        memory.u32(40).store(rate, SeqCst);
        memory.u32(44).store(1, SeqCst);
        memory.u8(48).store(if name == "audio" { 2 } else { 100 }, SeqCst);
        if encoder.is_some() {
            memory.u32(88).store(1, SeqCst);
            memory.u32(92).store(BUFFERS as u32, SeqCst);
            memory.u32(96).store((BUFFERS * STRIDE) as u32, SeqCst);
            memory.u32(104).store(STRIDE as u32, SeqCst);
        }
        memory.u32(56).store(4, SeqCst);
        memory.u32(60).store(incarnation + 1, SeqCst);
        memory.u32(52).store(0x5253_5352, SeqCst);
        Ring { memory, encoder, slots, data, head: 0, sequence: 0, clip, at: 0, codec }
    }

    fn is_key(&self, at: usize) -> bool {
        self.codec != 0 || self.clip[at % self.clip.len()].windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 5)
    }

    fn publish(&mut self, how: How) {
        let m = &self.memory;
        if m.u32(64).swap(0, SeqCst) != 0 {
            say("key frame requested");
            while !self.is_key(self.at) {
                self.at += 1;
            }
        }
        let key = self.is_key(self.at);
        let frame = self.clip[self.at % self.clip.len()].clone();
        self.at += 1;
        self.sequence += 1;
        let slot = 4096 + 32 * (self.sequence as usize % self.slots);
        let buffer = self.sequence as usize % BUFFERS;
        // The slot shows that it is written when the frame is there.
        let mut filled = 0;
        let offset = match &self.encoder {
            Some(encoder) => {
                filled = m.u32(108 + 4 * buffer).fetch_add(1, SeqCst) + 1;
                encoder.fill(buffer * STRIDE, &frame);
                buffer * STRIDE
            }
            None => {
                let offset = if self.head + frame.len() > self.data { 0 } else { self.head };
                self.head = offset + frame.len();
                m.u32(20).store(self.head as u32, SeqCst);
                m.fill(4096 + 32 * self.slots + offset, &frame);
                offset
            }
        };
        m.u32(slot).store(u32::MAX, SeqCst);
        m.u32(slot + 4).store(u32::MAX, SeqCst);
        m.u32(slot + 28).store(filled, SeqCst);
        m.u32(slot + 8).store(offset as u32, SeqCst);
        m.u32(slot + 12).store(frame.len() as u32, SeqCst);
        let mut clock = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: one timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut clock) };
        #[allow(clippy::unnecessary_cast)]
        let us = (clock.tv_sec as i64 * 1_000_000 + clock.tv_nsec as i64 / 1_000).to_le_bytes();
        m.fill(slot + 16, &us);
        m.fill(slot + 24, &[if key { 0x13 } else { 0x14 }, 0, u8::from(key), buffer as u8]);
        m.u32(slot + 4).store(0, SeqCst);
        m.u32(slot).store(self.sequence, SeqCst);
        match (&self.encoder, how) {
            (Some(encoder), How::Stale) => {
                m.u32(108 + 4 * buffer).fetch_add(1, SeqCst);
                encoder.fill(buffer * STRIDE, &vec![0xaa; frame.len()]);
            }
            (_, How::Torn) => {
                m.u32(slot).store(u32::MAX, SeqCst);
                m.u32(slot + 4).store(u32::MAX, SeqCst);
            }
            _ => {}
        }
        m.u32(0).store(self.sequence, SeqCst);
        m.u32(8).store(self.sequence, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        let (all, none) = (i32::MAX, std::ptr::null::<u8>());
        // SAFETY: FUTEX_WAKE looks at nothing but the address.
        unsafe { libc::syscall(libc::SYS_futex, self.memory.u32(8).as_ptr(), libc::FUTEX_WAKE, all, none, none, 0) };
    }
}

const PICTURE: Duration = Duration::from_millis(33);

/// When the next is due. What was not published in time never is, as with a camera: several at once would lap a reader
/// that is no slower than the other process.
fn next(due: Instant, step: Duration) -> Instant {
    (due + step).max(Instant::now())
}

/// What the ring `audio` has in this codec, and how long each slot lasts.
pub fn sound(codec: u32) -> (Vec<Vec<u8>>, Duration) {
    let frames = match codec {
        97 => {
            let frames = adts_frames(AUDIO).iter().map(|frame| frame[7..].to_vec()).collect();
            return (frames, Duration::from_millis(64));
        }
        // 320 samples in network byte order.
        11 => vec![(0..320i16).flat_map(|n| (n * 100 - 16_000).to_be_bytes()).collect()],
        // Packets of one frame of 20 ms, with their number inside.
        111 => (0..250u8).map(|n| vec![0x08, n, 0xa5, !n]).collect(),
        _ => vec![(0..160).collect()],
    };
    (frames, Duration::from_millis(20))
}

/// Bitrate and GOP of main and sub.
type Channels = Arc<Mutex<[[usize; 2]; 2]>>;

/// One request on the control socket: 16 bits of length, high byte first, and JSON; the answer likewise.
fn obey(mut peer: UnixStream, channels: &Channels) {
    let mut length = [0; 2];
    if peer.read_exact(&mut length).is_err() {
        return;
    }
    let mut json = vec![0; usize::from(u16::from_be_bytes(length))];
    peer.read_exact(&mut json).expect("the request");
    let request: Json = serde_json::from_slice(&json).expect("JSON");
    let mut channels = channels.lock().unwrap();
    let answer = match request["cmd"].as_str().expect("a command") {
        "status" => {
            let stream = |n: usize| {
                let [bitrate, gop] = channels[n];
                json!({"chn": n, "w": 1280, "h": 720, "codec": "h264", "bitrate": bitrate, "avg_bitrate": bitrate - 7,
                       "gop": gop, "fps": 25, "stream_id": n, "available": true})
            };
            json!({"status": "ok", "streams": [stream(0), stream(1)]})
        }
        command @ ("set-bitrate" | "set-gop") => {
            let number = |key: &str| request[key].as_u64().expect("a number") as usize;
            channels[number("channel")][usize::from(command == "set-gop")] = number("value");
            say(&format!("{command} {} {}", number("channel"), number("value")));
            json!({"status": "ok"})
        }
        _ => json!({"status": "error", "reason": "unknown command"}),
    };
    let answer = answer.to_string();
    let bytes = [&(answer.len() as u16).to_be_bytes(), answer.as_bytes()].concat();
    // In two pieces, as a network may cut it anywhere.
    let (one, two) = bytes.split_at(1);
    for piece in [one, two] {
        peer.write_all(piece).expect("taken");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Obeys:
/// `main KIND SLOTS DATA CLIP CODEC`: makes the ring `main` and publishes into it 30 times a second; KIND is
///   `embedded`, `shm` or `rmem`, CLIP is `large` or `small`;
/// `audio CODEC`; `jpeg`: rings with sound and with stills, the latter for readers only;
/// `sub`: the same for the small stream;
/// `control BITRATE GOP`: answers on the encoder's control socket, of two channels that are set to this, and says what it
///   is told to set; `set CHANNEL BITRATE`: somebody else sets it;
/// `pause`, `go`; `burst N`: so many pictures without a rest; `torn`, `stale`: one picture of that kind;
/// `again`: the ring is taken away and made anew in another file, `vanish`: taken away by its writer,
///   who goes;
/// `moved`: the encoder gets other memory; `version N`: says that it has another layout; `cut`: no file is left of it.
fn act(root: &Path, orders: &Receiver<String>) {
    let mut sound_step = Duration::from_secs(1);
    let (mut main, mut sub): (Option<Ring>, Option<Ring>) = (None, None);
    let (mut audio, mut jpeg): (Option<Ring>, Option<Ring>) = (None, None);
    let channels: Channels = Arc::default();
    let mut made: Vec<String> = Vec::new();
    let mut paused = false;
    let mut demand = 0;
    let (mut picture_at, mut sound_at) = (Instant::now(), Instant::now());
    let ring = root.join("dev/shm/rss_ring_main");
    loop {
        let order = match orders.recv_timeout(picture_at.min(sound_at).saturating_duration_since(Instant::now())) {
            Ok(order) => order,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if picture_at <= Instant::now() {
                    picture_at = next(picture_at, PICTURE);
                    for video in [&mut main, &mut sub] {
                        if let Some(video) = video.as_mut().filter(|_| !paused) {
                            video.publish(How::Well);
                        }
                    }
                    if let Some(jpeg) = &mut jpeg {
                        let now = jpeg.memory.u32(68).load(SeqCst);
                        if now != demand {
                            demand = now;
                            say(&format!("readers: {demand}"));
                        }
                        if demand > 0 {
                            jpeg.publish(How::Well);
                        }
                    }
                }
                if sound_at <= Instant::now() {
                    sound_at = next(sound_at, sound_step);
                    if let Some(audio) = audio.as_mut().filter(|_| !paused) {
                        audio.publish(How::Well);
                    }
                }
                continue;
            }
        };
        let mut words: Vec<String> = order.split(' ').map(String::from).collect();
        let number = |words: &[String], n: usize| words[n].parse::<usize>().expect("a number");
        if words[0] == "again" {
            std::fs::remove_file(&ring).expect("it was there");
            words = made.clone();
        }
        match &*words[0] {
            name @ ("main" | "sub") => {
                let clip = access_units(if words[4] == "large" { LARGE } else { SMALL });
                let (slots, data, codec) = (number(&words, 2), number(&words, 3), number(&words, 5) as u32);
                let ring = Some(Ring::new(root, name, slots, data, &words[1], codec, clip));
                if name == "main" {
                    (main, made) = (ring, words.clone());
                } else {
                    sub = ring;
                }
            }
            "control" => {
                *channels.lock().unwrap() = [[number(&words, 1), number(&words, 2)]; 2];
                let folder = root.join("var/run/rss");
                std::fs::create_dir_all(&folder).expect("a folder");
                let _ = std::fs::remove_file(folder.join("rvd.sock"));
                let listener = UnixListener::bind(folder.join("rvd.sock")).expect("a socket");
                let channels = channels.clone();
                std::thread::spawn(move || listener.incoming().for_each(|peer| obey(peer.expect("a peer"), &channels)));
            }
            "set" => channels.lock().unwrap()[number(&words, 1)][0] = number(&words, 2),
            "audio" => {
                let codec = number(&words, 1) as u32;
                let (frames, step) = sound(codec);
                sound_step = step;
                audio = Some(Ring::new(root, "audio", 32, 131_072, "embedded", codec, Arc::new(frames)));
            }
            "jpeg" => {
                let still = [&[0xff, 0xd8, 0xff, 0xe0][..], b"from the ring", &[0xff, 0xd9]].concat();
                jpeg = Some(Ring::new(root, "jpeg0", 4, 65_536, "embedded", 2, Arc::new(vec![still])));
            }
            "pause" => paused = true,
            "go" => paused = false,
            "burst" => (0..number(&words, 1)).for_each(|_| main.as_mut().expect("main").publish(How::Well)),
            "torn" => main.as_mut().expect("main").publish(How::Torn),
            "stale" => main.as_mut().expect("main").publish(How::Stale),
            "vanish" => {
                if let Some(main) = main.take() {
                    main.memory.u32(8).fetch_add(1, SeqCst);
                    main.wake();
                    std::thread::sleep(Duration::from_millis(20));
                }
                std::fs::remove_file(&ring).expect("it was there");
            }
            "moved" => {
                let path = root.join("dev/shm/rss_enc_main");
                std::fs::remove_file(&path).expect("it was there");
                let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
                let file = file.expect("made anew");
                file.set_len((BUFFERS * STRIDE) as u64).expect("room");
                let main = main.as_mut().expect("main");
                main.encoder = Some(Memory::map(&file, 0, BUFFERS * STRIDE));
                main.memory.u8(145).fetch_add(1, SeqCst);
            }
            "version" => {
                let main = main.as_ref().expect("main");
                main.memory.u32(56).store(number(&words, 1) as u32, SeqCst);
            }
            "cut" => {
                main = None;
                OpenOptions::new().write(true).open(&ring).expect("there").set_len(0).expect("cut");
            }
            other => panic!("{other}"),
        }
        (picture_at, sound_at) = (Instant::now(), Instant::now());
        say("done");
    }
}
