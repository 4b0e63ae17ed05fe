//! HomeKit Data Stream and the recordings that a home hub takes over it: state machines without
//! sockets, files or clocks.

pub mod frame;
pub mod message;
pub mod prepared;

pub use prepared::{Busy, Prepared};

/// The number that the shell gives to a HAP connection. A data stream lives no longer than the HAP
/// connection that prepared it.
pub type ConnectionId = u32;

#[cfg(test)]
pub(crate) mod vectors {
    //! The golden vectors of the data stream.
    use serde_json::Value;

    pub fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/hds.json")).unwrap()
    }

    pub fn unhex(v: &Value) -> Vec<u8> {
        let digits = v.as_str().unwrap();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }
}
