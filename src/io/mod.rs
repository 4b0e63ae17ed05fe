//! Socket loops around the core types.

pub mod runtime;
pub mod worker;
