//! Answers of netlink to requests and transactions.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::nft::replies(data));
