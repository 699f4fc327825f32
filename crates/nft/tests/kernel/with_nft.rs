//! The tests of the enforcer against a real kernel that need the program `nft`: as a second opinion about what the kernel holds,
//! and as the other program that changes it. Run by name: `cargo test -p palisade-nft --test kernel-nft`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Whether this target has the tests that need `nft`, or the others.
const WITH_NFT: bool = true;

include!("targets.rs");
