//! `palisade doctor` on nodes of a lab, healthy ones and ones with broken wiring. `main` enters the sandbox before the first
//! thread starts; if it can't, the tests fail. Those that also need the program `nft` are in the target `doctor-nft`.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

/// Whether this target has the tests that need `nft`, or the others.
const WITH_NFT: bool = false;

include!("targets.rs");
