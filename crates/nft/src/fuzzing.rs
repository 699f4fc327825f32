//! Entry points for the fuzz targets (`fuzz/`), for what has no public one. Not part of the API: compiled with `--cfg fuzzing` only.

/// Reads a datagram of nflog messages, as [`crate::drops`] does.
///
/// # Panics
/// If a value that was read contradicts itself.
pub fn drops(data: &[u8]) {
    crate::drops::fuzz(data);
}

/// Reads a datagram of notifications about nftables, as [`crate::drift`] does.
///
/// # Panics
/// If a value that was read contradicts itself.
pub fn notifications(data: &[u8]) {
    crate::drift::fuzz(data);
}

/// Reads a datagram of queued packets, as [`crate::packet_queue`] does.
///
/// # Panics
/// If a value that was read contradicts itself.
pub fn queued_packets(data: &[u8]) {
    crate::packet_queue::fuzz(data);
}
