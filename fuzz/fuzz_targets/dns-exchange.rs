//! A query of a pod, and answers to it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::dns::exchange(data));
