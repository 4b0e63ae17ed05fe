//! The live values of the characteristics.
