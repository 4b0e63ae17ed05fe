//! HomeKit Secure Video on the camera itself.
//!
//! The layers, from the bytes up (README, "Architecture"):
//!
//! * [`wire`] knows byte offsets: it parses and emits slices and keeps no state.
//! * [`crypto`] opens, seals, derives and signs.
//! * [`hap`], [`hds`], [`live`], [`media`], [`mdns`], [`motion`] and [`rtsp`] know what comes next: state machines that
//!   take bytes, time and randomness as arguments and return bytes and effects.
//! * [`source`], [`io`], [`store`] and [`control`] touch sockets, files and clocks.
//! * [`daemon`] knows everything; [`supervise`] starts it again; [`sys`] holds all `unsafe`.
//!
//! `tests/layers.rs` keeps the direction of the arrows.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod control;
pub mod crypto;
pub mod daemon;
pub mod hap;
pub mod hds;
pub mod io;
pub mod live;
pub mod mdns;
pub mod media;
pub mod motion;
pub mod rtsp;
pub mod source;
pub mod store;
pub mod supervise;
#[allow(unsafe_code)]
pub mod sys;
pub mod time;
pub mod trace;
pub mod wire;
