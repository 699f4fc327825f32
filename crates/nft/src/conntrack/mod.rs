//! Established connections: listing them, and revoking those that a change of policy denies.
//!
//! The order that leaves no gap: commit the new rules, then [`list`] the affected connections, re-evaluate each, and
//! [`Enforcer::revoke`](crate::Enforcer::revoke) those that are denied now. A connection that starts after the commit meets the
//! new rules, and one that started before is in the list. The exception lasts microseconds: a first packet that passed the
//! hook before the commit is listed only after it has left the kernel. Listing again a moment later covers it.
//!
//! If a later change allows a revoked connection again, [`Enforcer::restore`](crate::Enforcer::restore) it. Otherwise a peer
//! that keeps using the same pair of ports, as many UDP programs do, stays blocked as long as it keeps sending.

mod cleanup;
mod entry;
mod events;
mod five_tuple;
mod label;
mod listing;
mod text;

use nix::libc::{ENOENT, ENOSPC, EOPNOTSUPP};
use palisade_policy::Protocol;

pub use self::cleanup::{ConnectionCleaner, delete_older};
pub use self::entry::ConntrackEntry;
pub use self::events::{ConnectionEnd, ConnectionEvent, ConnectionEvents, Events};
pub use self::five_tuple::FiveTuple;
pub(crate) use self::five_tuple::{FIRST_EPHEMERAL_PORT, ICMP, ICMPV6};
pub use self::label::REVOKED;
pub(crate) use self::label::label_bytes;
pub use self::listing::{MAX_FILTERED, list, list_revoked, list_with_revoked};
pub use crate::ruleset::{REVOKED_SET_SIZE, REVOKED_TIMEOUT};
use crate::{
    Error, Kernel,
    encode::AttributeWriter,
    uapi::{
        netfilter::{NFPROTO_IPV4, NFPROTO_IPV6},
        netlink::{NLM_F_CREATE, NLM_F_EXCL},
        nf_conntrack::{IPS_ASSURED, IPS_CONFIRMED, IPS_SEEN_REPLY},
        nfnetlink::{NFNL_SUBSYS_CTNETLINK, message_type},
        nfnetlink_conntrack::{
            CTA_ID, CTA_LABELS, CTA_LABELS_MASK, CTA_STATUS, CTA_TIMEOUT, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY,
            CTA_ZONE, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW,
        },
    },
};

/// What happened to the entry of a revoked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It carries the revocation label: its next packet is dropped, in either direction.
    Labeled,
    /// It had no room for labels, because it is older than the table. An entry with the label replaced it.
    Replaced,
    /// It had no room for labels, or its packets went through a flow table, so it was deleted.
    ///
    /// Deleting alone stops nothing, because the next packet of either end may create a new entry.
    /// [`Enforcer::revoke`](crate::Enforcer::revoke) prevents that.
    Deleted,
    /// It no longer existed.
    Gone,
}

/// Revokes a connection by its entry.
pub fn revoke(kernel: &mut Kernel, entry: &ConntrackEntry) -> Result<Revocation, Error> {
    if entry.is_offloaded() {
        // No hook sees its packets while the entry exists.
        return delete(kernel, entry);
    }
    match set_label(kernel, entry, true) {
        Ok(()) => Ok(Revocation::Labeled),
        Err(e) => match e.os_error() {
            Some(ENOENT) => Ok(Revocation::Gone),
            Some(ENOSPC | EOPNOTSUPP) => replace(kernel, entry),
            _ => Err(e),
        },
    }
}

/// Deletes an entry that can't carry a label, and creates one that can if the kernel needs no other state for it: UDP
/// without address translation.
///
/// The new entry preserves which end opened the connection, even if the table is deleted and created again. A TCP entry
/// created mid-stream is recognizable without that ([`ConntrackEntry::midstream`]).
fn replace(kernel: &mut Kernel, entry: &ConntrackEntry) -> Result<Revocation, Error> {
    /// The status bits that the new entry takes over.
    const KEPT: u32 = IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED;
    let outcome = delete(kernel, entry)?;
    let is_plain = entry.protocol == Protocol::Udp && !entry.has_nat();
    let (Revocation::Deleted, true, Some(timeout)) = (outcome, is_plain, &entry.timeout) else {
        return Ok(outcome);
    };
    let mut body = names(entry);
    body.nest(CTA_TUPLE_REPLY, |t| {
        t.raw(&entry.reply);
    });
    // The kernel refuses a new entry that is not confirmed.
    body.put(CTA_TIMEOUT, timeout).number(CTA_STATUS, entry.status & KEPT | IPS_CONFIRMED);
    body.put(CTA_LABELS, &label_bytes()).put(CTA_LABELS_MASK, &label_bytes());
    match request(kernel, (IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL), entry, body, "replacement of") {
        Ok(()) => Ok(Revocation::Replaced),
        // A packet was faster (it was dropped and left no entry, unless another table accepts it), or memory is short.
        Err(e) if e.os_error().is_some() => Ok(Revocation::Deleted),
        Err(e) => Err(e),
    }
}

/// Removes the revocation label. Returns whether the entry still existed.
pub fn restore(kernel: &mut Kernel, entry: &ConntrackEntry) -> Result<bool, Error> {
    match set_label(kernel, entry, false) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.os_error(), Some(ENOENT | ENOSPC)) => Ok(false),
        Err(e) => Err(e),
    }
}

fn set_label(kernel: &mut Kernel, entry: &ConntrackEntry, revoked: bool) -> Result<(), Error> {
    let mut body = names(entry);
    // The kernel clears the bits of the mask, then flips the bits of the labels.
    let labels = if revoked { label_bytes() } else { [0; 16] };
    body.put(CTA_LABELS, &labels).put(CTA_LABELS_MASK, &label_bytes());
    request(kernel, (IPCTNL_MSG_CT_NEW, 0), entry, body, "revocation label of")
}

fn delete(kernel: &mut Kernel, entry: &ConntrackEntry) -> Result<Revocation, Error> {
    let mut body = names(entry);
    // With the id, the kernel doesn't delete a new entry with the same tuple.
    if let Some(id) = &entry.id {
        body.put(CTA_ID, id);
    }
    match request(kernel, (IPCTNL_MSG_CT_DELETE, 0), entry, body, "deletion of") {
        Ok(()) => Ok(Revocation::Deleted),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(Revocation::Gone),
        Err(e) => Err(e),
    }
}

/// Writes what identifies an entry.
fn names(entry: &ConntrackEntry) -> AttributeWriter {
    let mut body = AttributeWriter::default();
    body.nest(CTA_TUPLE_ORIG, |t| {
        t.raw(&entry.tuple);
    });
    if let Some(zone) = &entry.zone {
        body.put(CTA_ZONE, zone);
    }
    body
}

fn request(
    kernel: &mut Kernel,
    (kind, flags): (u16, u16),
    entry: &ConntrackEntry,
    body: AttributeWriter,
    action: &str,
) -> Result<(), Error> {
    let kind = message_type(NFNL_SUBSYS_CTNETLINK, kind);
    let family = if entry.source.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
    kernel.request(kind, flags, family, &body.into_bytes(), &|| format!("{action} connection {entry}"))
}
