//! Sound devices of the Open Sound System: /dev/dsp.

use super::ioc::{READ, WRITE, ioc};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

// `_IOWR('P', n, int)` of <sys/soundcard.h>.
const SPEED: u32 = ioc(READ | WRITE, b'P', 2, 4);
const FORMAT: u32 = ioc(READ | WRITE, b'P', 5, 4);
const CHANNELS: u32 = ioc(READ | WRITE, b'P', 6, 4);
/// AFMT_S16_LE
const S16_LE: libc::c_int = 0x10;

/// Makes the device play one channel of 16-bit samples, lower byte first, at `rate_hz`.
///
/// # Errors
/// When it is no sound device, or cannot play that.
pub fn configure(device: &File, rate_hz: u32) -> io::Result<()> {
    let wanted = [(FORMAT, S16_LE), (CHANNELS, 1), (SPEED, rate_hz as libc::c_int)];
    for (request, value) in wanted {
        let mut got = value;
        // SAFETY: these requests read an int from the address and write one back (OSS 4, soundcard.h); the
        // descriptor is open as long as `device` is borrowed. Another device may know the number, but it says
        // that four bytes are read and written, too.
        if unsafe { libc::ioctl(device.as_raw_fd(), request as _, &raw mut got) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // The clock of the device need not divide exactly.
        let fits = if request == SPEED { got.abs_diff(value) <= value as u32 / 50 } else { got == value };
        if !fits {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the device cannot play 16-bit mono at this rate"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sound_device_is_told_apart() {
        assert!(configure(&File::open("/dev/null").unwrap(), 16_000).is_err());
    }
}
