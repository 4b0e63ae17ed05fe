//! SRP-6a, the accessory's side.
