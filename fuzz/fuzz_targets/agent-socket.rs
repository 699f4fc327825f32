//! Requests over the agent's socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::agent::socket(data));
