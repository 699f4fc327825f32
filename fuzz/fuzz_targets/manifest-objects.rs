//! Objects of the API server, as the agent decodes them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::manifest::objects(data));
