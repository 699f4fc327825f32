//! Requests to the agent's metrics and health listener.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::agent::http(data));
