//! Everything `unsafe`: calls into the kernel that the standard library does not make.

pub mod connect;
pub mod disk;
pub mod dsp;
pub mod epoll;
pub mod fork;
pub mod input;
pub mod ioc;
pub mod lock;
#[cfg(all(target_env = "musl", target_arch = "mips"))]
mod name;
pub mod net;
pub mod pipe;
pub mod proc;
pub mod shm;
pub mod signals;
pub mod spawn;
pub mod tcp;
#[cfg(all(panic = "abort", target_arch = "mips"))]
mod unwind;
pub mod v4l2;
