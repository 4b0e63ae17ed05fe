//! The HomeKit Accessory Protocol over IP: pairing, the encrypted session, the accessory's database.

pub mod accessory;
pub mod camera_tlv;
pub mod capacity;
pub mod characteristics;
pub mod connection;
pub mod database;
pub mod events;
mod outcome;
pub mod pairing;
pub mod press;
pub mod record;
pub mod reply;
pub mod resource;
mod routes;
pub mod settings;
pub mod setup_code;
pub mod state;
pub mod stream_tlv;
pub mod types;

/// Which TCP connection something belongs to. Never given out twice while anything remembers it.
pub type ConnectionId = u32;
