//! The answers to the agent's lists and watches.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::api::watched(data));
