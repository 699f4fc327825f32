//! Tests of the enforcer against a real kernel, each in a new network namespace.
//!
//! The process enters a user namespace before its first thread starts. So the tests need no privileges, and the limits of
//! an unprivileged process apply (no `SO_SNDBUFFORCE`).
//!
//! The tests that also need the program `nft` are in the target `kernel-nft`, which `cargo test --workspace` passes over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Whether this target has the tests that need `nft`, or the others.
const WITH_NFT: bool = false;

include!("targets.rs");
