//! What the laws of this crate share.

pub(crate) use palisade_testkit::hold;

/// How many random clusters a law runs: `PALISADE_CASES`, else `default`.
pub(crate) fn cases(default: u64) -> u64 {
    match std::env::var("PALISADE_CASES") {
        Ok(text) => text.parse().expect("PALISADE_CASES must be a number"),
        Err(_) => default,
    }
}
