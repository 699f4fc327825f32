//! Packets that wait for a verdict.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::nft::queued_packets(data));
