//! The tests of `palisade doctor` that need the program `nft`. Run by name: `cargo test -p palisade --test doctor-nft`.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

/// Whether this target has the tests that need `nft`, or the others.
const WITH_NFT: bool = true;

include!("targets.rs");
