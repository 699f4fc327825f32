//! Tests of `palisade agent` that need the program `nft`. Run by name: `cargo test -p palisade --test agent-nft`.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the helpers are part of the tests"
)]

mod other_programs;
#[expect(dead_code, reason = "the target `agent` uses the rest")]
mod played_runtime;
#[expect(dead_code, reason = "the target `agent` uses the rest")]
mod stage;
