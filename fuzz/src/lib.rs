//! What the fuzz targets do with their bytes. Each target is a function here and a file of a few lines in `fuzz_targets/`.
//!
//! A target goes through the entry point that the product uses, and checks more than that nothing panics: what is printed can be
//! read back, two decoders agree, a value is within its bounds. libFuzzer checks time and memory (`fuzz/run`).

pub mod agent;
pub mod api;
mod kernel;
pub mod manifest;
pub mod nft;
