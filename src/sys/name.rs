//! A stand-in for musl's `pthread_setname_np` on MIPS. musl's takes other threads' names, too, and prints a path
//! for that: nothing else in the program needs `snprintf`, which is 13 kB with its floating-point numbers. The
//! standard library names the thread that calls, and no other.

use core::ffi::{c_char, c_int, c_void};

/// `pthread_setname_np(3)` for the calling thread.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(_thread: *mut c_void, name: *const c_char) -> c_int {
    // SAFETY: the caller gives a name that ends with a zero byte; the kernel takes 15 bytes of it.
    match unsafe { libc::prctl(libc::PR_SET_NAME, name) } {
        0 => 0,
        _ => libc::EINVAL,
    }
}
