//! Numbers of ioctl requests: `_IOC` of the kernel's asm/ioctl.h, which MIPS has packed in its own way.

/// The request has no argument.
pub const NONE: u32 = if MIPS { 1 } else { 0 };
/// The kernel fills in what the argument points to.
pub const READ: u32 = 2;
/// The kernel takes what the argument points to; `READ | WRITE` is both.
pub const WRITE: u32 = if MIPS { 4 } else { 1 };

const MIPS: bool = cfg!(any(target_arch = "mips", target_arch = "mips32r6", target_arch = "mips64"));

/// The number of request `nr` of the driver that calls itself `kind`, with an argument of `size` bytes.
///
/// Three bits of direction over thirteen of size on MIPS, two over fourteen elsewhere.
pub const fn ioc(dir: u32, kind: u8, nr: u8, size: usize) -> u32 {
    let (shift, most) = if MIPS { (29, 1 << 13) } else { (30, 1 << 14) };
    assert!(size < most);
    dir << shift | (size as u32) << 16 | (kind as u32) << 8 | nr as u32
}

// Numbers that <linux/soundcard.h> and <linux/videodev2.h> come to with the C compiler of each machine.
const _: () = {
    assert!(ioc(READ | WRITE, b'P', 2, 4) == 0xc004_5002);
    assert!(ioc(NONE, b'P', 0, 0) == if MIPS { 0x2000_5000 } else { 0x5000 });
    assert!(ioc(WRITE, b'V', 18, 4) == if MIPS { 0x8004_5612 } else { 0x4004_5612 });
    assert!(ioc(READ, b'V', 0, 104) == if MIPS { 0x4068_5600 } else { 0x8068_5600 });
};
