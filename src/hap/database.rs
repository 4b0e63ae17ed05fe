//! The accessory's services and characteristics.
