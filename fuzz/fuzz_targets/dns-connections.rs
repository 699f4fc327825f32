//! TCP connections of pods to DNS servers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::dns::connections(data));
