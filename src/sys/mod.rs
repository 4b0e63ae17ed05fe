//! Everything `unsafe`: calls into the kernel that the standard library does not make.

pub mod net;
