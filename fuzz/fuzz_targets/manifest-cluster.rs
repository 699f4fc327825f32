//! Objects of the API server, as `palisade` loads them for a question.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::manifest::load_cluster(data));
