//! One controller's connection: bytes in, responses and events out.
