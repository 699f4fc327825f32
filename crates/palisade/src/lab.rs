//! Placeholder until the library has landed.
