//! Snapshot requests.
