//! The lists that `palisade` reads once for a question.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::api::listed(data));
