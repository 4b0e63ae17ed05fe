//! Formats, permissions and status codes of HAP.
