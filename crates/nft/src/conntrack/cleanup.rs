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
/// `O(buckets + entries)`, as [`list`], and up to three requests to the kernel for each connection with one of the addresses.
///
/// # Errors
/// If the kernel can't list connections, or refuses to delete one. The others are deleted.
pub fn delete_older(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<usize, Error> {
    let (mut deleted, mut failure) = (0, None);
    for entry in list(kernel, ends)? {
        match is_older(kernel, &entry, ends).and_then(|is_older| match is_older {
            true => delete(kernel, &entry),
            false => Ok(Revocation::Gone),
        }) {
            Ok(outcome) => deleted += usize::from(outcome == Revocation::Deleted),
            // The others are not kept for that.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(deleted), Err)
}

/// Whether an entry is older than any of its ends that has just started.
fn is_older(kernel: &mut Kernel, entry: &ConntrackEntry, ends: &BTreeSet<IpAddr>) -> Result<bool, Error> {
    let Some(id) = &entry.id else { return Ok(true) };
    for end in [entry.source, entry.destination] {
        if ends.contains(&end) && !new_pods::has_begun_since(kernel, end, id)? {
            return Ok(true);
        }
    }
    Ok(false)
}
