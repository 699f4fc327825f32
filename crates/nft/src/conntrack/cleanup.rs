//! Deletes the connections that are older than the pods that have their addresses now.

use std::{collections::BTreeSet, net::IpAddr};

use super::{ConntrackEntry, Revocation, delete, list, listing, text::ConntrackText};
use crate::{Error, Kernel, new_pods};

/// Deletes the connections that are older than the pods that start.
#[derive(Debug)]
pub struct ConnectionCleaner {
    kernel: Kernel,
    text: Option<ConntrackText>,
}

impl ConnectionCleaner {
    /// For the calling thread's network namespace, which must be that of `kernel` too.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, text: ConntrackText::open() }
    }

    /// As [`delete_older`]. If the namespace has few entries for the size of the table, it looks first whether any has one of the addresses, which
    /// takes less time than a listing: most pods have an address that no connection has.
    ///
    /// # Errors
    /// As [`delete_older`].
    pub fn delete_older(&mut self, ends: &BTreeSet<IpAddr>) -> Result<usize, Error> {
        let reads_text = !ends.is_empty() && self.text.is_some() && listing::text_is_faster(&mut self.kernel);
        match self.text.as_mut().filter(|_| reads_text).and_then(|text| text.mentions(ends)) {
            Some(false) => Ok(0),
            Some(true) | None => delete_older(&mut self.kernel, ends),
        }
    }
}

/// Deletes all connections with one of these addresses at either end, as [`list`] finds them, but those that have begun since
/// [`NewPods::add`](new_pods::NewPods::add). Returns how many were deleted.
///
/// For addresses of a pod that starts. The older connections are those of an earlier owner of the address, echoes that the kernel has answered
/// in its place, and packets to it that met no rules. Each would pass the rules as established, in at least one direction. A packet that
/// arrives after that begins a connection, to which the rules apply.
///
/// Entries with the address at a translated end alone (the address of a service, or that of a masquerading node) are kept: their packets
/// reach another pod.
///
/// `O(buckets + entries + new connections)`, as [`list`], and a request to the kernel for each connection that is deleted.
///
/// # Errors
/// If the kernel can't list connections, or refuses to delete one.
pub fn delete_older(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    let mut deleted = 0;
    let listed = list(kernel, ends)?;
    if listed.is_empty() {
        return Ok(0);
    }
    // After the listing: what has begun in between is not in it, and what is in it and has begun since the start is here.
    let since_start = new_pods::connections(kernel)?;
    let is_older = |entry: &ConntrackEntry| entry.id.as_ref().is_none_or(|id| !since_start.contains(id));
    for entry in listed.into_iter().filter(is_older) {
        deleted += usize::from(delete(kernel, &entry)? == Revocation::Deleted);
    }
    Ok(deleted)
}
