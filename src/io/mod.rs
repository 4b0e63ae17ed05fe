//! Socket loops around the core types.

pub mod command;
pub mod contact;
pub mod gpio;
pub mod http_get;
pub mod loan;
pub mod mdns;
pub mod netlink;
pub mod peer;
pub mod random;
mod reactor;
pub mod runtime;
pub mod udp;
pub mod worker;
