//! Live view: what is sent to, and taken from, a controller that watches.

mod replay;
pub mod srtp;
