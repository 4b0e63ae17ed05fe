//! Calls of Video4Linux (Linux Media Userspace API, "Video for Linux API"): the structures as kernels have had them
//! since 3.10, and the numbers of the calls.
//!
//! A buffer's time is two `long`s here, whatever `time_t` the C library has: that is what kernels before 5.6 know, and
//! later ones take it still.

use super::ioc::{READ, WRITE, ioc};
use core::ffi::{c_int, c_long, c_ulong, c_void};
use core::mem::size_of;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The number of a call with this argument; `direction` is from the kernel's point of view.
const fn video<T>(direction: u32, number: u8) -> u32 {
    ioc(direction, b'V', number, size_of::<T>())
}

const BOTH: u32 = READ | WRITE;

/// One plane of pixels, or a stream of a camera: the only kind of buffers used here.
pub const CAPTURE: u32 = 1;
/// Buffers are the kernel's, mapped.
pub const MMAP: u32 = 1;

/// A device that captures in one plane.
pub const CAP_VIDEO_CAPTURE: u32 = 1;
/// Buffers can be queued.
pub const CAP_STREAMING: u32 = 0x0400_0000;
/// [`Capability::device_caps`] is valid.
pub const CAP_DEVICE_CAPS: u32 = 0x8000_0000;
/// The frame rate can be set ([`StreamParameters::capability`]).
pub const CAP_TIME_PER_FRAME: u32 = 0x1000;
/// What is in the buffer is not whole.
pub const FLAG_ERROR: u32 = 0x40;
/// Which clock a buffer's time is of.
pub const FLAG_TIMESTAMP: u32 = 0xe000;
/// The monotonic one.
pub const FLAG_TIMESTAMP_MONOTONIC: u32 = 0x2000;
/// There is no such control at the moment ([`QueryControl::flags`]).
pub const CONTROL_DISABLED: u32 = 1;

/// struct v4l2_capability.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Capability {
    /// The driver's name, ended by a zero.
    pub driver: [u8; 16],
    /// The device's name.
    pub card: [u8; 32],
    /// Where it is plugged in.
    pub bus: [u8; 32],
    /// Of the kernel.
    pub version: u32,
    /// Of the device as a whole.
    pub capabilities: u32,
    /// Of this node.
    pub device_caps: u32,
    /// Zeros.
    pub reserved: [u32; 3],
}

/// struct v4l2_fmtdesc.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FormatDescription {
    /// Which one is asked for, from 0 on.
    pub index: u32,
    /// [`CAPTURE`].
    pub kind: u32,
    /// Compressed, emulated.
    pub flags: u32,
    /// For people.
    pub description: [u8; 32],
    /// Four letters.
    pub pixel_format: u32,
    /// Zeros.
    pub reserved: [u32; 4],
}

/// struct v4l2_format with struct v4l2_pix_format in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Format {
    /// [`CAPTURE`].
    pub kind: u32,
    /// Another member of the union has pointers in it.
    pub aligned: [c_ulong; 0],
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Four letters.
    pub pixel_format: u32,
    /// 0: whatever it is.
    pub field: u32,
    /// Of raw pictures.
    pub bytes_per_line: u32,
    /// The largest picture.
    pub size_image: u32,
    /// Zeros.
    pub rest: [u32; 44],
}

impl Default for Format {
    fn default() -> Self {
        Format {
            kind: CAPTURE,
            aligned: [],
            width: 0,
            height: 0,
            pixel_format: 0,
            field: 0,
            bytes_per_line: 0,
            size_image: 0,
            rest: [0; 44],
        }
    }
}

/// struct v4l2_frmsizeenum.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FrameSize {
    /// Which one is asked for, from 0 on.
    pub index: u32,
    /// Of this format.
    pub pixel_format: u32,
    /// 1: one size; else a range.
    pub kind: u32,
    /// Width and height, or for a range: least width, most, step, least height, most, step.
    pub sizes: [u32; 6],
    /// Zeros.
    pub reserved: [u32; 2],
}

/// struct v4l2_frmivalenum.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FrameInterval {
    /// Which one is asked for, from 0 on.
    pub index: u32,
    /// Of this format.
    pub pixel_format: u32,
    /// In this size.
    pub width: u32,
    /// In this size.
    pub height: u32,
    /// 1: one interval; else a range.
    pub kind: u32,
    /// Seconds as a fraction, or for a range: least, most, step.
    pub intervals: [u32; 6],
    /// Zeros.
    pub reserved: [u32; 2],
}

/// struct v4l2_streamparm with struct v4l2_captureparm in it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StreamParameters {
    /// [`CAPTURE`].
    pub kind: u32,
    /// [`CAP_TIME_PER_FRAME`].
    pub capability: u32,
    /// For still pictures.
    pub mode: u32,
    /// Seconds of a frame: numerator.
    pub numerator: u32,
    /// Denominator.
    pub denominator: u32,
    /// Zeros.
    pub rest: [u32; 46],
}

impl Default for StreamParameters {
    fn default() -> Self {
        StreamParameters { kind: CAPTURE, capability: 0, mode: 0, numerator: 0, denominator: 0, rest: [0; 46] }
    }
}

/// struct v4l2_queryctrl.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct QueryControl {
    /// V4L2_CID_…
    pub id: u32,
    /// Integer, menu, button…
    pub kind: u32,
    /// For people.
    pub name: [u8; 32],
    /// The least value.
    pub minimum: i32,
    /// The greatest.
    pub maximum: i32,
    /// From one to the next.
    pub step: i32,
    /// Of the driver.
    pub default: i32,
    /// [`CONTROL_DISABLED`].
    pub flags: u32,
    /// Zeros.
    pub reserved: [u32; 2],
}

/// struct v4l2_control.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Control {
    /// V4L2_CID_…
    pub id: u32,
    /// What it is, or shall be.
    pub value: i32,
}

/// struct v4l2_requestbuffers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RequestBuffers {
    /// Wanted; then there.
    pub count: u32,
    /// [`CAPTURE`].
    pub kind: u32,
    /// [`MMAP`].
    pub memory: u32,
    /// Zeros.
    pub reserved: [u32; 2],
}

/// struct v4l2_buffer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    /// Which one.
    pub index: u32,
    /// [`CAPTURE`].
    pub kind: u32,
    /// So much is in it.
    pub bytes_used: u32,
    /// `FLAG_…`
    pub flags: u32,
    /// Interlaced or not.
    pub field: u32,
    /// Seconds, microseconds.
    pub timestamp: [c_long; 2],
    /// Not used.
    pub timecode: [u32; 4],
    /// Counted by the driver.
    pub sequence: u32,
    /// [`MMAP`].
    pub memory: u32,
    /// Where to map it, in its first four bytes: a union with pointers.
    pub place: c_ulong,
    /// So much fits in.
    pub length: u32,
    /// Zeros.
    pub reserved: [u32; 2],
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer {
            index: 0,
            kind: CAPTURE,
            bytes_used: 0,
            flags: 0,
            field: 0,
            timestamp: [0; 2],
            timecode: [0; 4],
            sequence: 0,
            memory: MMAP,
            place: 0,
            length: 0,
            reserved: [0; 2],
        }
    }
}

impl Buffer {
    /// Where it is mapped from.
    pub fn offset(&self) -> u32 {
        let bytes = self.place.to_ne_bytes();
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// As a driver says it.
    #[cfg(test)]
    pub fn set_offset(&mut self, offset: u32) {
        let mut bytes = [0; size_of::<c_ulong>()];
        bytes[..4].copy_from_slice(&offset.to_ne_bytes());
        self.place = c_ulong::from_ne_bytes(bytes);
    }
}

/// One call and its argument, which the kernel changes.
pub enum Request<'a> {
    /// VIDIOC_QUERYCAP
    Capability(&'a mut Capability),
    /// VIDIOC_ENUM_FMT
    FormatDescription(&'a mut FormatDescription),
    /// VIDIOC_G_FMT
    GetFormat(&'a mut Format),
    /// VIDIOC_S_FMT
    SetFormat(&'a mut Format),
    /// VIDIOC_ENUM_FRAMESIZES
    FrameSize(&'a mut FrameSize),
    /// VIDIOC_ENUM_FRAMEINTERVALS
    FrameInterval(&'a mut FrameInterval),
    /// VIDIOC_G_PARM
    GetParameters(&'a mut StreamParameters),
    /// VIDIOC_S_PARM
    SetParameters(&'a mut StreamParameters),
    /// VIDIOC_QUERYCTRL
    QueryControl(&'a mut QueryControl),
    /// VIDIOC_G_CTRL
    GetControl(&'a mut Control),
    /// VIDIOC_S_CTRL
    SetControl(&'a mut Control),
    /// VIDIOC_REQBUFS
    Buffers(&'a mut RequestBuffers),
    /// VIDIOC_QUERYBUF
    QueryBuffer(&'a mut Buffer),
    /// VIDIOC_QBUF
    Queue(&'a mut Buffer),
    /// VIDIOC_DQBUF
    Dequeue(&'a mut Buffer),
    /// VIDIOC_STREAMON
    On(&'a mut c_int),
}

impl Request<'_> {
    /// The number of the call on this processor.
    pub const fn number(&self) -> u32 {
        match self {
            Request::Capability(_) => video::<Capability>(READ, 0),
            Request::FormatDescription(_) => video::<FormatDescription>(BOTH, 2),
            Request::GetFormat(_) => video::<Format>(BOTH, 4),
            Request::SetFormat(_) => video::<Format>(BOTH, 5),
            Request::Buffers(_) => video::<RequestBuffers>(BOTH, 8),
            Request::QueryBuffer(_) => video::<Buffer>(BOTH, 9),
            Request::Queue(_) => video::<Buffer>(BOTH, 15),
            Request::Dequeue(_) => video::<Buffer>(BOTH, 17),
            Request::On(_) => video::<c_int>(WRITE, 18),
            Request::GetParameters(_) => video::<StreamParameters>(BOTH, 21),
            Request::SetParameters(_) => video::<StreamParameters>(BOTH, 22),
            Request::GetControl(_) => video::<Control>(BOTH, 27),
            Request::SetControl(_) => video::<Control>(BOTH, 28),
            Request::QueryControl(_) => video::<QueryControl>(BOTH, 36),
            Request::FrameSize(_) => video::<FrameSize>(BOTH, 74),
            Request::FrameInterval(_) => video::<FrameInterval>(BOTH, 75),
        }
    }

    fn argument(self) -> *mut c_void {
        fn at<T>(argument: &mut T) -> *mut c_void {
            core::ptr::from_mut(argument).cast()
        }
        match self {
            Request::Capability(x) => at(x),
            Request::FormatDescription(x) => at(x),
            Request::GetFormat(x) | Request::SetFormat(x) => at(x),
            Request::Buffers(x) => at(x),
            Request::QueryBuffer(x) | Request::Queue(x) | Request::Dequeue(x) => at(x),
            Request::On(x) => at(x),
            Request::GetParameters(x) | Request::SetParameters(x) => at(x),
            Request::GetControl(x) | Request::SetControl(x) => at(x),
            Request::QueryControl(x) => at(x),
            Request::FrameSize(x) => at(x),
            Request::FrameInterval(x) => at(x),
        }
    }
}

/// Makes the call.
///
/// # Errors
/// The driver's: `WouldBlock` when there is no buffer to dequeue yet.
pub fn call(fd: BorrowedFd<'_>, request: Request<'_>) -> io::Result<()> {
    let (number, argument) = (request.number(), request.argument());
    loop {
        // SAFETY: the descriptor is open as long as it is borrowed. The argument is the structure whose size is in the
        // number, exclusively ours until the call returns, and none of its fields is a pointer that the kernel follows:
        // buffers are of the kind that the kernel maps by itself.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), number as _, argument) };
        match (result >= 0).then_some(()).ok_or_else(io::Error::last_os_error) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

// What the kernel of each processor has. Another size would be another number, and ENOTTY.
const _: () = {
    assert!(size_of::<Capability>() == 104 && size_of::<FormatDescription>() == 64);
    assert!(size_of::<FrameSize>() == 44 && size_of::<FrameInterval>() == 52 && size_of::<StreamParameters>() == 204);
    assert!(size_of::<QueryControl>() == 68 && size_of::<Control>() == 8 && size_of::<RequestBuffers>() == 20);
    let is_64_bit = cfg!(target_pointer_width = "64");
    let (format, buffer) = if is_64_bit { (208, 88) } else { (204, 68) };
    assert!(size_of::<Format>() == format && size_of::<Buffer>() == buffer);
    assert!(video::<Format>(BOTH, 5) == if is_64_bit { 0xc0d0_5605 } else { 0xc0cc_5605 });
    assert!(video::<Buffer>(BOTH, 15) == if is_64_bit { 0xc058_560f } else { 0xc044_560f });
    assert!(video::<Buffer>(BOTH, 17) == if is_64_bit { 0xc058_5611 } else { 0xc044_5611 });
};
