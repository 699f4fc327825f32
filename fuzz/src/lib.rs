//! The fuzz targets. Each target is a function here and a file of a few lines in `fuzz_targets/`.
//!
//! A target uses the same entry point as the product, and checks more than the absence of panics: printed values can be
//! read back, two decoders agree, a value is within its bounds. libFuzzer checks time and memory (`fuzz/run`).

pub mod agent;
pub mod api;
pub mod dns;
mod kernel;
pub mod manifest;
pub mod nft;
