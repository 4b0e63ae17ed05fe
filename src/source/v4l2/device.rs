//! A device node, and what is asked of it before it streams.

use crate::sys::shm::Mapping;
use crate::sys::v4l2::{
    self, Buffer, CAP_DEVICE_CAPS, CAP_STREAMING, CAP_TIME_PER_FRAME, CAP_VIDEO_CAPTURE, CAPTURE, CONTROL_DISABLED,
    Capability, Control, Format, FormatDescription, FrameInterval, FrameSize, MMAP, QueryControl, Request,
    RequestBuffers, StreamParameters,
};
use std::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What calls are made of: a node, or a script in the tests.
pub trait Device {
    /// Makes a call.
    ///
    /// # Errors
    /// The driver's.
    fn call(&self, request: Request<'_>) -> Result<()>;

    /// Maps the next buffer.
    ///
    /// # Errors
    /// When it cannot be mapped.
    fn map(&mut self, offset: u32, length: u32) -> Result<()>;

    /// Copies the beginning of a buffer; `false` when there is not so much in it.
    fn copy(&self, index: u32, out: &mut [u8]) -> bool;
}

/// An open device node with its buffers.
pub struct Node {
    file: File,
    buffers: Vec<Mapping>,
}

impl Node {
    /// Opens it; whether it is one of V4L2 turns out later.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Node { file, buffers: Vec::new() })
    }
}

impl Node {
    /// The same open node, to wait for it.
    ///
    /// # Errors
    /// When the process has too many descriptors.
    pub fn file(&self) -> Result<File> {
        self.file.try_clone()
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Device for Node {
    fn call(&self, request: Request<'_>) -> Result<()> {
        v4l2::call(self.as_fd(), request)
    }

    fn map(&mut self, offset: u32, length: u32) -> Result<()> {
        self.buffers.push(Mapping::new(&self.file, offset.into(), length as usize, false)?);
        Ok(())
    }

    fn copy(&self, index: u32, out: &mut [u8]) -> bool {
        self.buffers.get(index as usize).is_some_and(|buffer| buffer.copy(0, out))
    }
}

/// The four letters of a format.
pub const fn fourcc(letters: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*letters)
}

/// H.264 with start codes.
pub const H264: u32 = fourcc(b"H264");
/// Pictures by themselves: as a stream of them, or one by one.
pub const JPEG: [u32; 2] = [fourcc(b"MJPG"), fourcc(b"JPEG")];

/// No more than these are asked for, whatever a driver says.
const FORMATS: u32 = 32;
const SIZES: u32 = 32;

/// What recordings may have (HAP's list of resolutions), and what is chosen where a device leaves the choice.
const LARGEST: (u32, u32) = (1920, 1080);

/// At 30 pictures a second 0.1 s may pass before we look. They belong to the kernel and are as large as the largest
/// picture.
const BUFFERS: u32 = 4;

/// No driver gives more (VIDEO_MAX_FRAME).
const BUFFERS_MAX: u32 = 32;

fn refused(kind: ErrorKind, text: impl Into<String>) -> Error {
    Error::new(kind, text.into())
}

/// The error of a call as a person can use it.
fn failed(what: &str, error: &Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EBUSY) => refused(ErrorKind::ResourceBusy, "busy: a node streams to one program and in one format"),
        Some(libc::ENODEV | libc::ENXIO) => refused(ErrorKind::NotFound, "unplugged"),
        _ => refused(error.kind(), format!("{what}: {error}")),
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    // It ends up in a log.
    bytes[..end].iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '?' }).collect()
}

/// A size, and the most pictures a second in it; 0 where the device does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Pictures a second.
    pub fps: u32,
}

/// What a node offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The driver's name.
    pub driver: String,
    /// The device's name.
    pub card: String,
    /// Where it is plugged in.
    pub bus: String,
    /// Four letters each.
    pub formats: Vec<u32>,
    /// Of H.264, if that is among the formats.
    pub sizes: Vec<Size>,
}

impl Offer {
    /// Whether it can be a source of video.
    pub fn has_h264(&self) -> bool {
        self.formats.contains(&H264)
    }

    /// Whether it can be a source of still pictures.
    pub fn has_jpeg(&self) -> bool {
        JPEG.iter().any(|format| self.formats.contains(format))
    }

    /// Whether both are nodes of one device: pictures of one show what the other shows.
    pub fn is_beside(&self, other: &Offer) -> bool {
        // Each loopback says that it is a device of its own; they are of whoever writes into them.
        self.driver == other.driver && (self.bus == other.bus || self.driver == "v4l2 loopback")
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}):", self.card, self.driver)?;
        let mut comma = "";
        for &format in self.formats.iter().filter(|&&format| format != H264) {
            write!(f, "{comma} {}", Letters(format))?;
            comma = ",";
        }
        if self.has_h264() {
            write!(f, "{comma} H264")?;
        } else if comma.is_empty() {
            f.write_str(" nothing, at the moment")?;
        }
        for Size { width, height, fps } in &self.sizes {
            write!(f, " {width}x{height}")?;
            if *fps != 0 {
                write!(f, "@{fps}")?;
            }
        }
        Ok(())
    }
}

struct Letters(u32);

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&self.0.to_le_bytes()).trim_end())
    }
}

/// What the node at this path offers. It need not be free; nothing about it is changed.
///
/// # Errors
/// One line that says why it cannot be a source: not there, no V4L2, does not capture, cannot stream.
pub fn offers(path: &Path) -> Result<Offer> {
    offer(&Node::open(path)?)
}

/// As [`offers`], of a device that is open.
pub fn offer(device: &dyn Device) -> Result<Offer> {
    let mut there = Capability::default();
    device.call(Request::Capability(&mut there)).map_err(|error| match error.raw_os_error() {
        // A driver that does not know the call should say the first. There are others (Linux,
        // Documentation/driver-api/ioctl.rst), and qemu-user before 8.1 says the last.
        Some(libc::ENOTTY | libc::EINVAL | libc::ENOSYS) => refused(ErrorKind::InvalidInput, "no V4L2 device"),
        _ => failed("VIDIOC_QUERYCAP", &error),
    })?;
    let has_node = there.capabilities & CAP_DEVICE_CAPS != 0;
    let can = if has_node { there.device_caps } else { there.capabilities };
    let (driver, card) = (text(&there.driver), text(&there.card));
    if can & CAP_VIDEO_CAPTURE == 0 {
        return Err(refused(ErrorKind::Unsupported, format!("{card} ({driver}) captures no video in this node")));
    }
    if can & CAP_STREAMING == 0 {
        return Err(refused(ErrorKind::Unsupported, format!("{card} ({driver}) cannot stream")));
    }
    let mut offer = Offer { driver, card, bus: text(&there.bus), formats: Vec::new(), sizes: Vec::new() };
    for index in 0..FORMATS {
        let mut found = FormatDescription { index, kind: CAPTURE, ..Default::default() };
        if device.call(Request::FormatDescription(&mut found)).is_err() {
            break;
        }
        if !offer.formats.contains(&found.pixel_format) {
            offer.formats.push(found.pixel_format);
        }
    }
    if offer.has_h264() {
        offer.sizes = sizes(device, H264);
    }
    Ok(offer)
}

/// The sizes of a format; of a range, the largest that is of use.
fn sizes(device: &dyn Device, pixel_format: u32) -> Vec<Size> {
    let mut sizes = Vec::new();
    for index in 0..SIZES {
        let mut found = FrameSize { index, pixel_format, ..Default::default() };
        if device.call(Request::FrameSize(&mut found)).is_err() {
            break;
        }
        let is_range = found.kind != 1;
        let [width, height] = match found.sizes {
            [width, height, ..] if !is_range => [width, height],
            [least_width, width, step, least_height, height, height_step] => {
                [within(least_width, width, step, LARGEST.0), within(least_height, height, height_step, LARGEST.1)]
            }
        };
        sizes.push(Size { width, height, fps: fastest(device, pixel_format, width, height) });
        if is_range {
            break;
        }
    }
    sizes
}

/// The largest value of a range that is not above `wanted`.
fn within(least: u32, most: u32, step: u32, wanted: u32) -> u32 {
    let most = most.min(wanted).max(least);
    most - (most - least) % step.max(1)
}

fn fastest(device: &dyn Device, pixel_format: u32, width: u32, height: u32) -> u32 {
    let mut fps = 0;
    for index in 0..SIZES {
        let mut found = FrameInterval { index, pixel_format, width, height, ..Default::default() };
        if device.call(Request::FrameInterval(&mut found)).is_err() {
            break;
        }
        let [numerator, denominator, ..] = found.intervals;
        fps = fps.max(denominator.checked_div(numerator).unwrap_or(0));
        if found.kind != 1 {
            break;
        }
    }
    fps
}

/// A device that streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// What it is, for a person.
    pub name: String,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// How many buffers are in use.
    pub buffers: u32,
    /// The size of the largest.
    pub length: u32,
}

/// Makes the device stream in the first of `formats` that it has, at `fps` pictures a second where that can be set (0:
/// leave it), with the encoder's settings as recordings need them.
///
/// # Errors
/// One line for a person.
pub fn start(device: &mut dyn Device, formats: &[u32], fps: u32) -> Result<Stream> {
    let offer = offer(device)?;
    let Some(&pixel_format) = formats.iter().find(|format| offer.formats.contains(format)) else {
        let wanted = formats.first().copied().unwrap_or_default();
        return Err(refused(ErrorKind::Unsupported, format!("no {}, but {offer}", Letters(wanted))));
    };
    let (width, height) = choose_format(device, pixel_format)?;
    if fps != 0 {
        choose_rate(device, fps);
        choose_controls(device, fps);
    }
    let (buffers, length) = claim_buffers(device)?;
    device.call(Request::On(&mut (CAPTURE as _))).map_err(|error| failed("VIDIOC_STREAMON", &error))?;
    let name = format!("{} ({}), {} {width}x{height}", offer.card, offer.driver, Letters(pixel_format));
    Ok(Stream { name, width, height, buffers, length })
}

/// Leaves the size as somebody has set it up, where it is in this format already.
fn choose_format(device: &dyn Device, pixel_format: u32) -> Result<(u32, u32)> {
    let mut format = Format::default();
    // A device that cannot say what is set may still be set.
    let known = device.call(Request::GetFormat(&mut format)).is_ok();
    let of_use = |width, height| (1..=LARGEST.0).contains(&width) && (1..=LARGEST.1).contains(&height);
    if !known || format.pixel_format != pixel_format || !of_use(format.width, format.height) {
        let sizes = sizes(device, pixel_format);
        let fitting = sizes.iter().filter(|size| of_use(size.width, size.height));
        let best = fitting.max_by_key(|size| size.width * size.height);
        let (width, height) = best.map_or(LARGEST, |best| (best.width, best.height));
        format = Format { width, height, pixel_format, ..Format::default() };
    }
    device.call(Request::SetFormat(&mut format)).map_err(|error| failed("VIDIOC_S_FMT", &error))?;
    if format.pixel_format != pixel_format {
        let text = format!("it was asked for {} and gives {}", Letters(pixel_format), Letters(format.pixel_format));
        return Err(refused(ErrorKind::Unsupported, text));
    }
    Ok((format.width, format.height))
}

fn choose_rate(device: &dyn Device, fps: u32) {
    let mut rate = StreamParameters::default();
    let known = device.call(Request::GetParameters(&mut rate)).is_ok();
    if !known || rate.capability & CAP_TIME_PER_FRAME == 0 || rate.numerator.checked_mul(fps) == Some(rate.denominator)
    {
        return;
    }
    (rate.numerator, rate.denominator) = (1, fps);
    if let Err(error) = device.call(Request::SetParameters(&mut rate)) {
        log::debug!("VIDIOC_S_PARM: {error}");
    }
}

/// V4L2_CID_CODEC_BASE.
pub const CODEC: u32 = 0x0099_0900;
const FORCE_KEY_FRAME: u32 = CODEC + 229;

/// What recordings need: the control, whether a value will do (the second argument is a GOP of two seconds in
/// pictures, five of which are too long for a hub), and what to try if not; 0 for the GOP.
type Rule = (u32, &'static str, fn(i32, i32) -> bool, [Option<i32>; 2]);
const RULES: [Rule; 6] = [
    (CODEC + 202, "B-frames", |value, _| value == 0, [Some(0), None]),
    (CODEC + 203, "GOP", |value, gop| (1..=gop * 2).contains(&value), [None, None]),
    (CODEC + 358, "I period", |value, gop| (1..=gop * 2).contains(&value), [None, None]),
    (CODEC + 226, "repeated headers", |value, _| value == 1, [Some(1), None]),
    // Main and High; level 4.0.
    (CODEC + 363, "H.264 profile", |value, _| value == 2 || value == 4, [Some(4), Some(2)]),
    (CODEC + 359, "H.264 level", |value, _| value <= 11, [Some(11), None]),
];

/// Quality and all the rest are as the camera's owner has set them; the bitrate, too, until somebody wants less.
fn choose_controls(device: &dyn Device, fps: u32) {
    let gop = 2 * fps as i32;
    for (id, name, will_do, values) in RULES {
        let mut there = QueryControl { id, ..Default::default() };
        let mut control = Control { id, value: 0 };
        if device.call(Request::QueryControl(&mut there)).is_err()
            || there.flags & CONTROL_DISABLED != 0
            || device.call(Request::GetControl(&mut control)).is_err()
            || will_do(control.value, gop)
        {
            continue;
        }
        let before = control.value;
        let set = |value: Option<i32>| {
            let value = value.unwrap_or(gop.clamp(there.minimum, there.maximum.max(there.minimum)));
            device.call(Request::SetControl(&mut Control { id, value })).is_ok().then_some(value)
        };
        match set(values[0]).or_else(|| values[1].and_then(|value| set(Some(value)))) {
            Some(value) => log::debug!("{name}: {value} instead of {before}"),
            None => log::warn!("{name}: {before} cannot be changed, recordings may be refused"),
        }
    }
}

/// Asks the encoder for a key frame; not every one has a control for it.
pub fn force_key_frame(device: &dyn Device) {
    if let Err(error) = device.call(Request::SetControl(&mut Control { id: FORCE_KEY_FRAME, value: 1 })) {
        log::debug!("no key frame on demand: {error}");
    }
}

fn claim_buffers(device: &mut dyn Device) -> Result<(u32, u32)> {
    let mut wanted = RequestBuffers { count: BUFFERS, kind: CAPTURE, memory: MMAP, ..Default::default() };
    device.call(Request::Buffers(&mut wanted)).map_err(|error| failed("VIDIOC_REQBUFS", &error))?;
    if wanted.count == 0 || wanted.count > BUFFERS_MAX {
        return Err(refused(ErrorKind::OutOfMemory, format!("{} buffers", wanted.count)));
    }
    let mut longest = 0;
    for index in 0..wanted.count {
        let mut buffer = Buffer { index, ..Buffer::default() };
        device.call(Request::QueryBuffer(&mut buffer)).map_err(|error| failed("VIDIOC_QUERYBUF", &error))?;
        device.map(buffer.offset(), buffer.length).map_err(|error| failed("mmap", &error))?;
        longest = longest.max(buffer.length);
        queue(device, index)?;
    }
    Ok((wanted.count, longest))
}

fn queue(device: &dyn Device, index: u32) -> Result<()> {
    let mut buffer = Buffer { index, ..Buffer::default() };
    device.call(Request::Queue(&mut buffer)).map_err(|error| failed("VIDIOC_QBUF", &error))
}

/// What a buffer had in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Bytes.
    pub length: usize,
    /// They are in the caller's buffer.
    pub fits: bool,
    /// The driver says that some are missing or wrong.
    pub broken: bool,
    /// Counted by the driver.
    pub sequence: u32,
    /// When, in microseconds of the monotonic clock, where it is known.
    pub timestamp_us: Option<i64>,
}

/// Takes what is ready, and gives the buffer back at once.
///
/// # Errors
/// `WouldBlock` when nothing is; anything else means that the stream is over.
pub fn take(device: &dyn Device, stream: &Stream, out: &mut [u8]) -> Result<Taken> {
    let mut buffer = Buffer::default();
    device.call(Request::Dequeue(&mut buffer)).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => error,
        _ => failed("VIDIOC_DQBUF", &error),
    })?;
    if buffer.index >= stream.buffers {
        return Err(refused(ErrorKind::InvalidData, "the driver gave a buffer that there is not"));
    }
    let length = buffer.bytes_used as usize;
    let fits = out.get_mut(..length).is_some_and(|out| device.copy(buffer.index, out));
    queue(device, buffer.index)?;
    let monotonic = buffer.flags & v4l2::FLAG_TIMESTAMP == v4l2::FLAG_TIMESTAMP_MONOTONIC;
    let [seconds, us] = buffer.timestamp.map(i64::from);
    Ok(Taken {
        length,
        fits,
        broken: buffer.flags & v4l2::FLAG_ERROR != 0,
        sequence: buffer.sequence,
        timestamp_us: monotonic.then(|| seconds.wrapping_mul(1_000_000).wrapping_add(us)),
    })
}
