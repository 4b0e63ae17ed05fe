//! Stand-ins for libunwind on MIPS, where it would be 45 kB of a program that has nothing to unwind: panics
//! abort, and `scripts/build-camera` leaves the unwind tables out. The standard library still asks for a
//! backtrace when a panic is reported and `RUST_BACKTRACE` is set: it gets an empty one. (Other targets have
//! the room; on ARM every C object asks for libunwind, too.)
//!
//! The names and types are those of the Itanium C++ ABI, "Exception Handling" §1.

use core::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`.
const END_OF_STACK: c_int = 5;

/// Visits no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Defines calls that would need a frame, which [`_Unwind_Backtrace`] never hands out.
macro_rules! of_a_frame {
    ($($name:ident),*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(_frame: *mut c_void, _second: usize, _third: usize) -> usize {
            0
        }
    )*};
}

of_a_frame!(
    _Unwind_GetIP,
    _Unwind_GetIPInfo,
    _Unwind_GetCFA,
    _Unwind_GetRegionStart,
    _Unwind_GetLanguageSpecificData,
    _Unwind_GetTextRelBase,
    _Unwind_GetDataRelBase,
    _Unwind_SetGR,
    _Unwind_SetIP,
    _Unwind_FindEnclosingFunction
);
