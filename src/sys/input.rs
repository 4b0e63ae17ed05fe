//! Keys of input devices (linux/input.h) and lines of GPIO character devices (linux/gpio.h).

use super::ioc::{READ, WRITE, ioc};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::time::Duration;

/// Codes of keys are less.
const KEYS: usize = 0x300;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;
/// One bit a key, in words of the kernel.
type Keys = [libc::c_ulong; KEYS / WORD_BITS];

/// `EVIOCGBIT(EV_KEY, …)`: the keys that a device has.
const HAS: u32 = ioc(READ, b'E', 0x21, size_of::<Keys>());
/// `EVIOCGKEY(…)`: those that are down.
const DOWN: u32 = ioc(READ, b'E', 0x18, size_of::<Keys>());
/// `EVIOCSCLOCKID`, from Linux 3.4 on.
const CLOCK: u32 = ioc(WRITE, b'E', 0xa0, size_of::<libc::c_int>());

/// Calls `ioctl` with a request that reads and writes no more than one `T`.
fn request<T: Copy>(device: BorrowedFd<'_>, number: u32, argument: &mut T) -> Result<()> {
    assert!(number >> 16 & 0x1fff == size_of::<T>() as u32);
    // SAFETY: the number says how many bytes the kernel reads or writes, and `argument` has as many; each `T` here
    // is made of integers. A device of another kind refuses the number.
    match unsafe { libc::ioctl(device.as_raw_fd(), number as _, core::ptr::from_mut(argument)) } {
        0.. => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

fn key_bit(device: BorrowedFd<'_>, number: u32, code: u16) -> Result<bool> {
    let mut keys: Keys = [0; KEYS / WORD_BITS];
    request(device, number, &mut keys)?;
    let code = usize::from(code);
    Ok(keys.get(code / WORD_BITS).is_some_and(|word| word >> (code % WORD_BITS) & 1 == 1))
}

/// Whether the input device has this key.
///
/// # Errors
/// When it is no input device.
pub fn has_key(device: BorrowedFd<'_>, code: u16) -> Result<bool> {
    key_bit(device, HAS, code)
}

/// Whether this key of the input device is down.
///
/// # Errors
/// As [`has_key`].
pub fn is_key_down(device: BorrowedFd<'_>, code: u16) -> Result<bool> {
    key_bit(device, DOWN, code)
}

/// Has the input device stamp its events with the time that does not jump.
///
/// # Errors
/// As [`has_key`].
pub fn stamp_monotonic(device: BorrowedFd<'_>) -> Result<()> {
    request(device, CLOCK, &mut { libc::CLOCK_MONOTONIC as libc::c_int })
}

/// How long ago an event was that a device has stamped so.
pub fn age(stamp: Duration) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, and this is one.
    let known = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } == 0;
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    if known { now.saturating_sub(stamp) } else { Duration::ZERO }
}

/// `struct gpio_v2_line_request`, from Linux 5.10 on; all zero but what is named.
#[repr(C)]
#[derive(Clone, Copy)]
struct LineRequest {
    offsets: [u32; 64],
    consumer: [u8; 32],
    /// Alignment is 8 also where that of `u64` is less (`__aligned_u64`); nothing here needs more than 4.
    flags: [u32; 2],
    attributes: [u32; 66],
    lines: u32,
    event_buffer_size: u32,
    padding: [u32; 5],
    fd: i32,
}

/// `struct gpioevent_request`, from Linux 4.8 on.
#[repr(C)]
#[derive(Clone, Copy)]
struct EventRequest {
    offset: u32,
    handle_flags: u32,
    event_flags: u32,
    consumer: [u8; 32],
    fd: i32,
}

/// `GPIO_V2_GET_LINE_IOCTL`
const GET_LINE: u32 = ioc(READ | WRITE, 0xb4, 7, size_of::<LineRequest>());
/// `GPIO_V2_LINE_GET_VALUES_IOCTL`, of two `__aligned_u64`: bits and mask.
const GET_VALUES: u32 = ioc(READ | WRITE, 0xb4, 0x0e, 16);
/// `GPIO_GET_LINEEVENT_IOCTL`
const GET_LINE_EVENT: u32 = ioc(READ | WRITE, 0xb4, 4, size_of::<EventRequest>());
/// `GPIOHANDLE_GET_LINE_VALUES_IOCTL`, of 64 bytes.
const GET_HANDLE_VALUES: u32 = ioc(READ | WRITE, 0xb4, 8, 64);

// The sizes and numbers that C has on 32-bit MIPS and ARM and on 64-bit machines; the direction "both" looks
// alike on all, "read" does not.
const _: () = {
    assert!(size_of::<Keys>() == 96 && size_of::<LineRequest>() == 592 && size_of::<EventRequest>() == 48);
    assert!(core::mem::offset_of!(LineRequest, lines) == 560 && core::mem::offset_of!(LineRequest, fd) == 588);
    assert!(GET_LINE == 0xc250_b407 && GET_VALUES == 0xc010_b40e);
    assert!(GET_LINE_EVENT == 0xc030_b404 && GET_HANDLE_VALUES == 0xc040_b408);
    assert!(HAS == if cfg!(target_arch = "mips") { 0x4060_4521 } else { 0x8060_4521 });
    assert!(CLOCK == if cfg!(target_arch = "mips") { 0x8004_45a0 } else { 0x4004_45a0 });
    assert!(DOWN == if cfg!(target_arch = "mips") { 0x4060_4518 } else { 0x8060_4518 });
};

const V2_ACTIVE_LOW: u32 = 1 << 1;
const V2_INPUT: u32 = 1 << 2;
const V2_BOTH_EDGES: u32 = 3 << 4;
const V1_INPUT: u32 = 1;
const V1_ACTIVE_LOW: u32 = 1 << 2;
const V1_BOTH_EDGES: u32 = 3;

const CONSUMER: [u8; 32] = *b"hksvd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An input line of a GPIO character device.
#[derive(Debug)]
pub struct Line {
    file: File,
    v2: bool,
    /// Whether changes can be waited for: the line has an interrupt.
    pub has_events: bool,
}

impl Line {
    /// Asks `chip` for its line of this number, by the interface of 5.10, by that of 4.8, and at last, by that of 5.10
    /// again, without an interrupt, which some lines do not have.
    ///
    /// # Errors
    /// When it is no GPIO device, has no such line, or somebody else uses it.
    pub fn open(chip: &File, number: u32, low: bool) -> Result<Self> {
        let v2 = |edges: u32| {
            let mut wanted = LineRequest {
                offsets: [0; 64],
                consumer: CONSUMER,
                flags: [0; 2],
                attributes: [0; 66],
                lines: 1,
                event_buffer_size: 0,
                padding: [0; 5],
                fd: -1,
            };
            wanted.offsets[0] = number;
            // The lower half of 64 bits.
            let flags = V2_INPUT | edges | if low { V2_ACTIVE_LOW } else { 0 };
            wanted.flags[usize::from(cfg!(target_endian = "big"))] = flags;
            request(chip.as_fd(), GET_LINE, &mut wanted)?;
            file(wanted.fd).map(|file| Line { file, v2: true, has_events: edges != 0 })
        };
        let v1 = || {
            let handle_flags = V1_INPUT | if low { V1_ACTIVE_LOW } else { 0 };
            let mut wanted =
                EventRequest { offset: number, handle_flags, event_flags: V1_BOTH_EDGES, consumer: CONSUMER, fd: -1 };
            request(chip.as_fd(), GET_LINE_EVENT, &mut wanted)?;
            file(wanted.fd).map(|file| Line { file, v2: false, has_events: true })
        };
        v2(V2_BOTH_EDGES).or_else(|first| {
            let second = match v1() {
                Ok(line) => return Ok(line),
                Err(error) => error,
            };
            // A kernel that does not know the first request says only that.
            v2(0).map_err(|_| if first.kind() == ErrorKind::InvalidInput { second } else { first })
        })
    }

    /// Whether the line is active now.
    ///
    /// # Errors
    /// When its chip is gone.
    pub fn is_active(&self) -> Result<bool> {
        if self.v2 {
            // Bits and mask, of which the lowest is that of the only line.
            let mut values = [0u64, 1];
            return request(self.file.as_fd(), GET_VALUES, &mut values).map(|()| values[0] & 1 == 1);
        }
        let mut values = [0u8; 64];
        request(self.file.as_fd(), GET_HANDLE_VALUES, &mut values).map(|()| values[0] == 1)
    }

    /// Takes one change of the line: whether it has become active, and when, in the time that does not jump. `None` by
    /// the interface of 4.8: its time is another one before 5.7, and of changes that do not fit into its queue it drops
    /// the newest, so that the last one told need not be the last that was.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; when the chip is gone.
    pub fn take_event(&self) -> Result<Option<(bool, Duration)>> {
        let mut event = [0; EVENT_BYTES];
        // 12 bytes on i386.
        let read = std::io::Read::read(&mut &self.file, &mut event[..if self.v2 { EVENT_BYTES } else { 16 }])?;
        if !self.v2 {
            return Ok(None);
        }
        change(&event[..read]).map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
    }
}

/// Of `struct gpio_v2_line_event`.
const EVENT_BYTES: usize = 48;

/// It begins with nanoseconds and with what it was: 1 is up, 2 is down, of an active-low line the other way round.
fn change(event: &[u8]) -> Option<(bool, Duration)> {
    let (nanoseconds, rest) = event.split_first_chunk()?;
    let id = u32::from_ne_bytes(*rest.first_chunk()?);
    matches!(id, 1 | 2).then_some((id == 1, Duration::from_nanos(u64::from_ne_bytes(*nanoseconds))))
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The descriptor that a request has made.
fn file(fd: i32) -> Result<File> {
    if fd < 0 {
        return Err(ErrorKind::Unsupported.into());
    }
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_device_is_told_apart() {
        let null = File::open("/dev/null").unwrap();
        assert!(has_key(null.as_fd(), 2).is_err());
        assert!(is_key_down(null.as_fd(), 2).is_err());
        assert!(stamp_monotonic(null.as_fd()).is_err());
        assert!(Line::open(&null, 0, true).is_err());
        // A FIFO knows no requests.
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(has_key(reader.as_fd(), 2).is_err());
    }

    #[test]
    fn changes_of_lines() {
        let event = |id: u32| [&5_000_000_007u64.to_ne_bytes()[..], &id.to_ne_bytes(), &[0; 36]].concat();
        assert_eq!(change(&event(1)), Some((true, Duration::new(5, 7))));
        assert_eq!(change(&event(2)), Some((false, Duration::new(5, 7))));
        for (event, len) in [(event(0), 48), (event(3), 48), (event(1), 11), (event(1), 0)] {
            assert_eq!(change(&event[..len]), None);
        }
    }

    #[test]
    fn ages_are_those_of_the_clock_that_does_not_jump() {
        // No event of the future has an age.
        assert_eq!(age(Duration::MAX), Duration::ZERO);
        let since_boot = age(Duration::ZERO);
        assert!(!since_boot.is_zero());
        std::thread::sleep(Duration::from_millis(2));
        assert!(age(since_boot) >= Duration::from_millis(2));
    }
}
