//! Shared code of this crate's tests.

pub(crate) use palisade_testkit::hold;

/// The number of random clusters for each test: `PALISADE_CASES`, or `default`.
pub(crate) fn cases(default: u64) -> u64 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => default,
    }
}
