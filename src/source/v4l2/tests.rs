//! A device that is a script: what it answers to each call, and what it was asked.

use super::device::{Device, H264, JPEG, Offer, Size, Stream, Taken, fourcc, offer, start, take};
use super::{Bitrate, KEY_FRAME_PAUSE, Player, STEADY};
use crate::source::encoder::Order;
use crate::source::fifo::Stream as _;
use crate::source::{Recorder, Track, Trouble};
use crate::sys::v4l2::{
    Buffer, CAP_DEVICE_CAPS, CAP_STREAMING, CAP_TIME_PER_FRAME, CAP_VIDEO_CAPTURE, FLAG_ERROR,
    FLAG_TIMESTAMP_MONOTONIC, Format, Request,
};
use crate::time::{Duration, Instant};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;

const YUYV: u32 = fourcc(b"YUYV");
/// V4L2_CID_MPEG_VIDEO_…
const GOP: u32 = 0x0099_09cb;
const KEY: u32 = 0x0099_09e5;
const PROFILE: u32 = 0x0099_0a6b;
const LEVEL: u32 = 0x0099_0a67;
const BITRATE: u32 = 0x0099_09cf;

/// Identity, value, least, greatest, values that are refused.
type Setting = (u32, i32, i32, i32, Vec<i32>);

struct Script {
    capabilities: u32,
    formats: Vec<u32>,
    /// Kind, and the six numbers.
    sizes: Vec<(u32, [u32; 6])>,
    interval: [u32; 6],
    format: RefCell<Format>,
    /// What is set, whatever is asked for.
    stubborn: Option<u32>,
    controls: RefCell<Vec<Setting>>,
    buffers: u32,
    /// The call that fails, and how.
    fails: Option<(&'static str, i32)>,
    /// What DQBUF gives.
    filled: RefCell<VecDeque<(Buffer, Vec<u8>)>>,
    last: RefCell<Vec<u8>>,
    mapped: Vec<(u32, u32)>,
    asked: RefCell<Vec<String>>,
}

fn camera() -> Script {
    Script {
        capabilities: CAP_VIDEO_CAPTURE | CAP_STREAMING,
        formats: vec![YUYV, H264, YUYV],
        sizes: vec![(1, [640, 360, 0, 0, 0, 0]), (1, [1920, 1080, 9, 9, 9, 9]), (1, [3840, 2160, 0, 0, 0, 0])],
        interval: [1, 30, 0, 0, 0, 0],
        format: RefCell::default(),
        stubborn: None,
        controls: RefCell::default(),
        buffers: 4,
        fails: None,
        filled: RefCell::default(),
        last: RefCell::default(),
        mapped: Vec::new(),
        asked: RefCell::default(),
    }
}

impl Script {
    fn answer(&self, name: &str) -> Result<()> {
        match self.fails {
            Some((call, errno)) if call == name => Err(Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn fill(&self, buffer: Buffer, bytes: &[u8]) {
        let buffer = Buffer { bytes_used: bytes.len() as u32, ..buffer };
        self.filled.borrow_mut().push_back((buffer, bytes.to_vec()));
    }

    fn was_asked(&self, what: &str) -> usize {
        self.asked.borrow().iter().filter(|asked| *asked == what).count()
    }
}

fn name(into: &mut [u8], name: &[u8]) {
    into[..name.len()].copy_from_slice(name);
}

fn invalid() -> Result<()> {
    Err(Error::from_raw_os_error(libc::EINVAL))
}

impl Device for Script {
    fn call(&self, request: Request<'_>) -> Result<()> {
        match request {
            Request::Capability(there) => {
                name(&mut there.driver, b"scripted");
                // No zero at its end, and a line's end within.
                there.card = *b"Camera\n of a script, 32 letters.";
                name(&mut there.bus, b"usb-1");
                (there.capabilities, there.device_caps) = (self.capabilities, CAP_VIDEO_CAPTURE | CAP_STREAMING);
                self.answer("QUERYCAP")
            }
            Request::FormatDescription(found) => match self.formats.get(found.index as usize) {
                Some(&format) => {
                    found.pixel_format = format;
                    self.answer("ENUM_FMT")
                }
                None => invalid(),
            },
            Request::FrameSize(found) => match self.sizes.get(found.index as usize) {
                Some(&(kind, sizes)) => {
                    (found.kind, found.sizes) = (kind, sizes);
                    self.answer("ENUM_FRAMESIZES")
                }
                None => invalid(),
            },
            Request::FrameInterval(found) => {
                (found.kind, found.intervals) = (1, self.interval);
                self.answer("ENUM_FRAMEINTERVALS")
            }
            Request::GetFormat(format) => {
                *format = *self.format.borrow();
                self.answer("G_FMT")
            }
            Request::SetFormat(format) => {
                format.pixel_format = self.stubborn.unwrap_or(format.pixel_format);
                *self.format.borrow_mut() = *format;
                self.answer("S_FMT")
            }
            Request::GetParameters(rate) => {
                (rate.capability, rate.numerator, rate.denominator) = (CAP_TIME_PER_FRAME, 1, 30);
                self.answer("G_PARM")
            }
            Request::SetParameters(rate) => {
                self.asked.borrow_mut().push(format!("{}/{} s", rate.numerator, rate.denominator));
                self.answer("S_PARM")
            }
            Request::QueryControl(there) => {
                match self.controls.borrow().iter().find(|control| control.0 == there.id) {
                    Some(control) => (there.minimum, there.maximum) = (control.2, control.3),
                    None => return invalid(),
                }
                self.answer("QUERYCTRL")
            }
            Request::GetControl(it) => {
                match self.controls.borrow().iter().find(|control| control.0 == it.id) {
                    Some(control) => it.value = control.1,
                    None => return invalid(),
                }
                self.answer("G_CTRL")
            }
            Request::SetControl(it) => {
                if it.id == KEY {
                    self.asked.borrow_mut().push("key frame".into());
                }
                match self.controls.borrow_mut().iter_mut().find(|control| control.0 == it.id) {
                    Some(control) if !control.4.contains(&it.value) => control.1 = it.value,
                    _ => return invalid(),
                }
                self.answer("S_CTRL")
            }
            Request::Buffers(wanted) => {
                self.asked.borrow_mut().push(format!("{} buffers", wanted.count));
                wanted.count = self.buffers;
                self.answer("REQBUFS")
            }
            Request::QueryBuffer(buffer) => {
                buffer.set_offset(buffer.index * 4096);
                buffer.length = 1000 + buffer.index;
                self.answer("QUERYBUF")
            }
            Request::Queue(buffer) => {
                self.asked.borrow_mut().push(format!("queue {}", buffer.index));
                self.answer("QBUF")
            }
            Request::Dequeue(buffer) => {
                self.answer("DQBUF")?;
                let (filled, bytes) = self.filled.borrow_mut().pop_front().ok_or(ErrorKind::WouldBlock)?;
                *buffer = filled;
                *self.last.borrow_mut() = bytes;
                Ok(())
            }
            Request::On(_) => {
                self.asked.borrow_mut().push("on".into());
                self.answer("STREAMON")
            }
        }
    }

    fn map(&mut self, offset: u32, length: u32) -> Result<()> {
        self.mapped.push((offset, length));
        self.answer("mmap")
    }

    fn copy(&self, _: u32, out: &mut [u8]) -> bool {
        let bytes = self.last.borrow();
        bytes.get(..out.len()).is_some_and(|bytes| {
            out.copy_from_slice(bytes);
            true
        })
    }
}

#[test]
fn what_is_offered_is_said_in_a_line() {
    let offer = offer(&camera()).expect("a camera");
    assert_eq!(offer.formats, [YUYV, H264]);
    assert_eq!(offer.sizes[1], Size { width: 1920, height: 1080, fps: 30 });
    assert_eq!(
        offer.to_string(),
        "Camera? of a script, 32 letters. (scripted): YUYV, H264 640x360@30 1920x1080@30 3840x2160@30"
    );
    assert!(offer.has_h264() && !offer.has_jpeg());
}

#[test]
fn a_stream_is_set_up_as_recordings_need_it() {
    let mut device = camera();
    device.controls = RefCell::new(vec![
        (GOP, 250, 1, 40, vec![]),
        // High is not among what it has.
        (PROFILE, 0, 0, 4, vec![4]),
        (LEVEL, 13, 0, 13, vec![]),
    ]);
    let stream = start(&mut device, &[H264], 25).expect("it streams");
    assert_eq!((stream.width, stream.height, stream.buffers, stream.length), (1920, 1080, 4, 1003));
    assert!(stream.name.ends_with("(scripted), H264 1920x1080"), "{}", stream.name);
    let asked = device.asked.borrow().join(", ");
    assert_eq!(asked, "1/25 s, 4 buffers, queue 0, queue 1, queue 2, queue 3, on");
    let values: Vec<i32> = device.controls.borrow().iter().map(|control| control.1).collect();
    assert_eq!(values, [40, 2, 11]);
    assert_eq!(device.mapped, [(0, 1000), (4096, 1001), (8192, 1002), (12288, 1003)]);
}

#[test]
fn what_somebody_has_set_up_stays() {
    let mut device = camera();
    *device.format.borrow_mut() = Format { width: 1280, height: 720, pixel_format: H264, ..Format::default() };
    device.controls =
        RefCell::new(vec![(GOP, 100, 1, 400, vec![]), (PROFILE, 2, 0, 4, vec![]), (LEVEL, 8, 0, 13, vec![])]);
    let stream = start(&mut device, &[H264], 30).expect("it streams");
    assert_eq!((stream.width, stream.height), (1280, 720));
    assert_eq!(device.asked.borrow()[0], "4 buffers", "30 pictures a second are what it has");
    let values: Vec<i32> = device.controls.borrow().iter().map(|control| control.1).collect();
    assert_eq!(values, [100, 2, 8]);
}

#[test]
fn the_bitrate_follows_within_what_the_encoder_can() {
    let bps = |bitrate: &mut Bitrate, device: &Script| {
        let settings = bitrate.order(device, Order::Look).expect("it says so").expect("settings");
        assert_eq!((settings.gop, settings.fps), (0, 0));
        settings.bitrate_bps
    };
    let mut bitrate = Bitrate::default();
    // A loopback has no control of an encoder, a camera has another one.
    assert_eq!(bps(&mut bitrate, &camera()), 0);
    let fails = Some(("G_CTRL", libc::ENOTTY));
    let controls = || RefCell::new(vec![(BITRATE, 3_000_000, 250_000, 8_000_000, vec![1_000_000])]);
    assert_eq!(bps(&mut bitrate, &Script { fails, controls: controls(), ..camera() }), 0);
    assert!(bitrate.order(&camera(), Order::Bitrate(1)).is_err());

    let device = Script { controls: controls(), ..camera() };
    let value = || device.controls.borrow()[0].1;
    assert_eq!(bps(&mut bitrate, &device), 3_000_000);
    for (asked, made) in [(2_000_000, 2_000_000), (150_000, 250_000), (u32::MAX, 8_000_000)] {
        assert_eq!(bitrate.order(&device, Order::Bitrate(asked)).expect("set"), None);
        // What the driver made of it is not taken for the wish of somebody else.
        assert_eq!((value(), bps(&mut bitrate, &device)), (made, asked));
    }
    device.controls.borrow_mut()[0].1 = 700_000;
    assert_eq!(bps(&mut bitrate, &device), 700_000, "this is one");
    assert!(bitrate.order(&device, Order::Bitrate(1_000_000)).is_err(), "refused by the driver");
    let unplugged = Script { fails: Some(("G_CTRL", libc::ENODEV)), controls: controls(), ..camera() };
    assert!(bitrate.order(&unplugged, Order::Look).is_err());
}

#[test]
fn a_range_of_sizes_gives_the_largest_of_use() {
    for (range, chosen) in [
        ([16, 4096, 16, 16, 2160, 8], (1920, 1080)),
        ([100, 1280, 0, 100, 720, 0], (1280, 720)),
        ([1, 4096, 100, 1, 4096, 100], (1901, 1001)),
    ] {
        let mut device = Script { sizes: vec![(3, range)], ..camera() };
        let stream = start(&mut device, &[H264], 0).expect("it streams");
        assert_eq!((stream.width, stream.height), chosen);
    }
    // A driver that does not say is asked for what is best.
    let mut device = Script { sizes: vec![], ..camera() };
    assert_eq!(start(&mut device, &[H264], 0).map(|stream| stream.width).expect("it streams"), 1920);
}

#[test]
fn a_device_that_is_of_no_use_says_why() {
    let refused = |mut device: Script| start(&mut device, &[H264], 25).map(|_| ()).unwrap_err();
    let without = refused(Script { formats: vec![YUYV, fourcc(b"HEVC")], ..camera() });
    assert_eq!(without.to_string(), "no H264, but Camera? of a script, 32 letters. (scripted): YUYV, HEVC");
    assert_eq!(without.kind(), ErrorKind::Unsupported);
    let nothing = refused(Script { formats: vec![], ..camera() });
    assert!(nothing.to_string().ends_with("(scripted): nothing, at the moment"), "{nothing}");
    let output = refused(Script { capabilities: 2 | CAP_STREAMING, ..camera() });
    assert!(output.to_string().ends_with("captures no video in this node"), "{output}");
    let files = refused(Script { capabilities: CAP_VIDEO_CAPTURE, ..camera() });
    assert!(files.to_string().ends_with("cannot stream"), "{files}");
    // The node can what the device as a whole cannot.
    assert!(start(&mut Script { capabilities: CAP_DEVICE_CAPS, ..camera() }, &[H264], 25).is_ok());
    let other = refused(Script { stubborn: Some(YUYV), ..camera() });
    assert_eq!(other.to_string(), "it was asked for H264 and gives YUYV");
    for buffers in [0, 33, u32::MAX] {
        assert_eq!(refused(Script { buffers, ..camera() }).kind(), ErrorKind::OutOfMemory);
    }
}

#[test]
fn a_call_that_fails_is_said_or_does_not_matter() {
    let failing = |call, errno| {
        let mut device =
            Script { fails: Some((call, errno)), controls: RefCell::new(vec![(GOP, 0, 0, 9, vec![])]), ..camera() };
        start(&mut device, &[H264], 25).map(|_| ()).map_err(|error| error.to_string())
    };
    for errno in [libc::ENOTTY, libc::EINVAL, libc::ENOSYS] {
        assert_eq!(failing("QUERYCAP", errno), Err("no V4L2 device".into()), "{errno}");
    }
    for call in ["S_FMT", "REQBUFS", "QUERYBUF", "QBUF", "STREAMON"] {
        assert_eq!(failing(call, libc::ENODEV), Err("unplugged".into()), "{call}");
        let busy = "busy: a node streams to one program and in one format";
        assert_eq!(failing(call, libc::EBUSY), Err(busy.into()), "{call}");
        let said = format!("VIDIOC_{call}: {}", Error::from_raw_os_error(libc::EIO));
        assert_eq!(failing(call, libc::EIO), Err(said));
    }
    assert!(failing("mmap", libc::ENOMEM).is_err());
    for call in ["ENUM_FRAMESIZES", "ENUM_FRAMEINTERVALS", "G_FMT", "G_PARM", "S_PARM", "QUERYCTRL", "G_CTRL", "S_CTRL"]
    {
        assert_eq!(failing(call, libc::EINVAL), Ok(()), "{call}");
    }
}

#[test]
fn senseless_answers_do_no_harm() {
    let mut device = camera();
    device.formats = (0..1000).map(|n: u32| n.wrapping_mul(0x0101_0101)).chain([H264]).collect();
    assert!(offer(&device).expect("an offer").formats.len() <= 32);
    device.formats = vec![H264; 1000];
    device.sizes = vec![(1, [u32::MAX; 6]); 1000];
    device.interval = [0; 6];
    let there = offer(&device).expect("an offer");
    assert_eq!((there.formats.len(), there.sizes.len(), there.sizes[0].fps), (1, 32, 0));
    assert_eq!(start(&mut device, &[H264], u32::MAX / 4).map(|stream| stream.width).ok(), Some(1920));
    device.sizes = vec![(2, [u32::MAX, 0, u32::MAX, u32::MAX, 0, 0])];
    assert!(start(&mut device, &[H264], 60).is_ok());
    device.controls = RefCell::new(vec![(GOP, i32::MAX, 9, -9, vec![]), (LEVEL, i32::MAX, 0, 0, vec![11])]);
    assert!(start(&mut device, &[H264], 60).is_ok());
}

fn stream() -> Stream {
    Stream { name: String::new(), width: 320, height: 180, buffers: 4, length: 1000 }
}

#[test]
fn a_buffer_is_copied_and_given_back() {
    let device = camera();
    let mut out = [0; 8];
    let take = |out: &mut [u8]| take(&device, &stream(), out);
    assert_eq!(take(&mut out).unwrap_err().kind(), ErrorKind::WouldBlock);
    let timestamp = [3, 7];
    device.fill(
        Buffer { index: 3, sequence: 9, timestamp, flags: FLAG_TIMESTAMP_MONOTONIC, ..Buffer::default() },
        b"12345",
    );
    let whole = Taken { length: 5, fits: true, broken: false, sequence: 9, timestamp_us: Some(3_000_007) };
    assert_eq!((take(&mut out).expect("a buffer"), &out[..6]), (whole, b"12345\0".as_slice()));
    assert_eq!(device.was_asked("queue 3"), 1);
    // A clock that is not known, and marks of the driver.
    device.fill(Buffer { index: 1, timestamp, flags: 0x4000 | FLAG_ERROR, ..Buffer::default() }, b"12345678");
    let torn = take(&mut out).expect("a buffer");
    assert!(torn.broken && torn.fits && torn.timestamp_us.is_none());
    device.fill(Buffer::default(), b"123456789");
    assert!(!take(&mut out).expect("a buffer").fits, "it is larger than ours");
    // More than the buffer has room for.
    device.filled.borrow_mut().push_back((Buffer { bytes_used: 8, ..Buffer::default() }, b"123".to_vec()));
    assert!(!take(&mut out).expect("a buffer").fits);
    assert_eq!(device.was_asked("queue 0"), 2, "all were given back");
    device.fill(Buffer { index: 4, ..Buffer::default() }, b"1");
    assert_eq!(take(&mut out).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(device.was_asked("queue 4"), 0);
    for errno in [libc::EIO, libc::EPIPE, libc::ENODEV, libc::EINVAL] {
        let device = Script { fails: Some(("DQBUF", errno)), ..camera() };
        let error = super::device::take(&device, &stream(), &mut out).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::WouldBlock);
    }
    let device = Script { fails: Some(("QBUF", libc::ENODEV)), ..camera() };
    device.fill(Buffer::default(), b"1");
    assert!(super::device::take(&device, &stream(), &mut out).is_err());
}

/// 320x180, 30 pictures with an IDR picture every 15, SPS and PPS in front of each.
const CLIP: &[u8] = include_bytes!("../../../tests/media/small.h264");

fn access_units() -> Vec<Vec<u8>> {
    let mut assembler = crate::media::annexb::Assembler::new(1 << 16);
    let (mut units, mut rest) = (Vec::new(), CLIP);
    while !rest.is_empty() {
        let room = assembler.receive_buffer();
        let n = room.len().min(rest.len());
        room[..n].copy_from_slice(&rest[..n]);
        rest = &rest[n..];
        assembler.handle_received(n, Instant::ZERO);
        while let Some(unit) = assembler.poll_unit() {
            units.push(unit.annexb.bytes().to_vec());
        }
    }
    units.extend(assembler.flush().map(|unit| unit.annexb.bytes().to_vec()));
    assert_eq!(units.len(), 30);
    units
}

/// A player with a device.
struct Rig {
    device: Script,
    player: Player,
    recorder: Rc<RefCell<Recorder>>,
    sequence: u32,
    now: Instant,
}

fn rig() -> Rig {
    let mut device = camera();
    device.controls = RefCell::new(vec![(KEY, 0, 0, 0, vec![])]);
    let now = Instant::ZERO + Duration::from_secs(60);
    let mut player = Player::new("v4l2:test", 1 << 16);
    player.begin();
    Rig { device, player, recorder: Rc::default(), sequence: 0, now }
}

impl Rig {
    fn show(&mut self, bytes: &[u8], flags: u32) {
        self.device.fill(Buffer { flags, sequence: self.sequence, ..Buffer::default() }, bytes);
        let taken = take(&self.device, &stream(), self.player.pictures.receive_buffer()).expect("a buffer");
        self.player.taken(&self.device, &taken, self.now, &mut self.recorder);
        self.sequence = self.sequence.wrapping_add(1);
        self.now += Duration::from_millis(40);
    }

    /// Whether each picture so far was a key frame.
    fn keys(&self) -> Vec<bool> {
        self.recorder.borrow().pictures.iter().map(|picture| picture.1).collect()
    }

    fn troubles(&self) -> Vec<Trouble> {
        let recorder = self.recorder.borrow();
        assert!(recorder.troubles.iter().all(|(track, _)| *track == Track::Video));
        recorder.troubles.iter().map(|(_, trouble)| *trouble).collect()
    }
}

#[test]
fn a_buffer_is_a_picture_at_once() {
    let mut rig = rig();
    for (n, unit) in access_units().iter().enumerate() {
        rig.show(unit, 0);
        assert_eq!(rig.recorder.borrow().pictures.len(), n + 1);
    }
    let keys = rig.keys();
    assert!(keys[0] && keys[15] && keys.iter().filter(|key| **key).count() == 2);
    let came: Vec<usize> = rig.recorder.borrow().pictures.iter().map(|picture| picture.0).collect();
    assert_eq!(came, access_units().iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(rig.troubles(), []);
}

#[test]
fn parameter_sets_may_come_in_a_buffer_of_their_own() {
    let mut rig = rig();
    let units = access_units();
    let slice = units[0].windows(4).rposition(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 5).expect("an IDR slice");
    let slice = slice - usize::from(units[0][slice - 1] == 0);
    rig.show(&units[0][..slice], 0);
    assert!(rig.keys().is_empty());
    rig.show(&units[0][slice..], 0);
    rig.show(&units[1], 0);
    assert_eq!(rig.keys(), [true, false]);
    assert_eq!(rig.recorder.borrow().pictures[0].0, units[0].len());
}

#[test]
fn the_first_picture_has_more_time_than_those_behind_it() {
    let mut rig = rig();
    let units = access_units();
    let parameters = &units[0][..34];
    for bytes in [b"", b"no picture".as_slice(), parameters] {
        rig.show(bytes, 0);
        assert!(!rig.player.has_picture);
        assert_eq!(rig.player.patience(), Duration::from_secs(10));
    }
    rig.show(&units[0], 0);
    rig.show(b"", 0);
    assert!(rig.player.has_picture);
    assert_eq!(rig.player.patience(), Duration::from_secs(2));
    rig.player.begin();
    assert_eq!(rig.player.patience(), Duration::from_secs(10), "it starts again");
}

#[test]
fn after_a_loss_a_key_frame_is_asked_for_and_awaited() {
    let units = access_units();
    for (flags, trouble) in [(FLAG_ERROR, Trouble::Torn), (0, Trouble::Overrun), (0, Trouble::Oversized)] {
        let mut rig = rig();
        units[..10].iter().for_each(|unit| rig.show(unit, 0));
        match trouble {
            Trouble::Overrun => rig.sequence += 3,
            Trouble::Oversized => rig.show(&vec![1; 70_000], 0),
            _ => {}
        }
        rig.show(&units[10], flags);
        assert_eq!((rig.troubles(), rig.device.was_asked("key frame")), (vec![trouble], 1));
        units[11..].iter().for_each(|unit| rig.show(unit, 0));
        let keys = rig.keys();
        assert_eq!((keys.len(), keys[10]), (25, true), "{trouble:?}");
        // Not more often than an encoder can.
        rig.show(&units[0], FLAG_ERROR);
        assert_eq!(rig.device.was_asked("key frame"), 1);
        rig.now += KEY_FRAME_PAUSE;
        rig.show(&units[0], FLAG_ERROR);
        assert_eq!(rig.device.was_asked("key frame"), 2);
    }
}

#[test]
fn numbers_that_jump_all_the_time_mean_nothing() {
    let units = access_units();
    for step in [0, 2, 1000] {
        let mut rig = rig();
        for unit in &units {
            rig.show(unit, 0);
            rig.sequence = rig.sequence.wrapping_sub(1).wrapping_add(step);
        }
        assert_eq!((rig.keys().len(), rig.troubles()), (30, vec![]), "{step}");
    }
    let mut rig = rig();
    for (n, unit) in units.iter().enumerate() {
        rig.show(unit, 0);
        rig.sequence += u32::from(n as u32 % STEADY == 5);
    }
    assert_eq!((rig.keys().len(), rig.troubles()), (30, vec![]));
    // They begin anew after the last.
    rig.sequence = u32::MAX - 20;
    rig.player.begin();
    units.iter().for_each(|unit| rig.show(unit, 0));
    assert_eq!((rig.keys().len(), rig.troubles()), (60, vec![]));
}

#[test]
fn bytes_that_are_no_h264_are_said_and_forgotten() {
    let mut rig = rig();
    for n in 0..20 {
        rig.show(&[n; 30_000], 0);
    }
    assert!(rig.keys().is_empty());
    assert!(
        rig.troubles().iter().all(|t| matches!(t, Trouble::Garbage | Trouble::Oversized)) && !rig.troubles().is_empty()
    );
    access_units().iter().for_each(|unit| rig.show(unit, 0));
    assert!(rig.keys().len() >= 15 && rig.keys()[0]);
    rig.show(&[], 0);
}

#[test]
fn the_drivers_clock_gives_the_arrival() {
    let mut rig = rig();
    let units = access_units();
    let mut show = |ms: u64, late_ms: u64, n: usize| {
        let timestamp = [(ms / 1000) as _, (ms % 1000 * 1000) as _];
        let flags = FLAG_TIMESTAMP_MONOTONIC;
        rig.device.fill(Buffer { timestamp, flags, sequence: n as u32, ..Buffer::default() }, &units[n]);
        let taken = take(&rig.device, &stream(), rig.player.pictures.receive_buffer()).expect("a buffer");
        let now = Instant::ZERO + Duration::from_millis(ms + late_ms);
        rig.player.taken(&rig.device, &taken, now, &mut rig.recorder);
    };
    // The second is read late.
    show(100_000, 5, 0);
    show(100_040, 60, 1);
    show(100_080, 20, 2);
    let arrivals: Vec<_> = rig.recorder.borrow().pictures.iter().map(|picture| picture.2).collect();
    assert_eq!(arrivals[0], Instant::ZERO + Duration::from_millis(100_005));
    for pair in arrivals.windows(2) {
        let apart = (pair[1] - pair[0]).as_micros();
        assert!((39_000..41_000).contains(&apart), "{apart}");
    }
}

#[test]
fn nodes_of_one_device_know_each_other() {
    let offer = |driver: &str, bus: &str, formats: &[u32]| Offer {
        driver: driver.into(),
        card: "x".into(),
        bus: bus.into(),
        formats: formats.into(),
        sizes: vec![],
    };
    let camera = offer("uvcvideo", "usb-1", &[H264]);
    assert!(offer("uvcvideo", "usb-1", &JPEG).is_beside(&camera) && offer("a", "b", &JPEG[1..]).has_jpeg());
    assert!(!offer("uvcvideo", "usb-2", &JPEG).is_beside(&camera));
    let loopback = offer("v4l2 loopback", "platform:v4l2loopback-000", &[H264]);
    assert!(offer("v4l2 loopback", "platform:v4l2loopback-001", &JPEG).is_beside(&loopback));
}

#[test]
fn what_is_no_device_is_said() {
    let refused = |path: &str| super::offers(path.as_ref()).unwrap_err();
    assert_eq!(refused("/nothing/video0").kind(), ErrorKind::NotFound);
    assert_eq!(refused("/dev/null").to_string(), "no V4L2 device");
}

#[test]
fn the_node_of_a_gadget_is_left_alone() {
    let root = std::env::temp_dir().join(format!("hksvd-v4l2-{}", std::process::id()));
    let devices = ["soc/13500000.otg/gadget", "soc/13500000.otg/gadget.0", "virtual/loopback", "soc/usb1/1-1/1-1:1.0"];
    for (n, device) in devices.into_iter().enumerate() {
        let class = root.join(format!("sys/class/video4linux/video{n}"));
        let device = root.join("sys/devices").join(device);
        std::fs::create_dir_all(&class).expect("a folder");
        std::fs::create_dir_all(&device).expect("a folder");
        std::os::unix::fs::symlink(device, class.join("device")).expect("a link");
    }
    let nodes: Vec<_> = super::nodes(&root).collect();
    std::fs::remove_dir_all(&root).expect("it was there");
    assert_eq!(nodes.len(), 14);
    assert_eq!(nodes[..3], [2, 3, 4].map(|n| root.join(format!("dev/video{n}"))));
}
