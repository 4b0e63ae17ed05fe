//! The TLV8 values of the camera's configurations and selections.
