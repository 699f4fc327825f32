//! Connections that are under way: listing them, and cutting those that a change of policy now denies.
//!
//! The order that leaves no gap: commit the new rules, then [`list`] the connections concerned, decide
//! each anew, and [`Enforcer::revoke`](crate::Enforcer::revoke) those now denied. What begins after the commit meets the new
//! rules; what began before is listed. (One exception, of microseconds: a first packet that passed our hook before the commit and is still on its way
//! through the kernel is listed only once it has left. Who wants to exclude it lists again a moment later.) Where a later change allows a revoked connection again,
//! [`Enforcer::restore`](crate::Enforcer::restore) it: else a peer that keeps to one pair of
//! ports, as many UDP programs do, would stay cut off as long as it keeps trying.

mod connection;
mod five_tuple;
mod label;
mod listing;

use std::time::Duration;

use nix::libc::{ENOENT, ENOSPC, EOPNOTSUPP};
use palisade_policy::Protocol;

pub use self::connection::Connection;
pub use self::five_tuple::FiveTuple;
pub(crate) use self::five_tuple::{ICMP, ICMPV6};
pub use self::label::REVOKED;
pub(crate) use self::label::label_bytes;
pub use self::listing::{FEW, list, list_revoked};
use crate::{Error, Kernel, encode::attributes::Attributes as Writer};

/// `NFNL_SUBSYS_CTNETLINK << 8`, and its messages.
const CTNETLINK: u16 = 1 << 8;
const NEW: u16 = CTNETLINK;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;

/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;

/// How long a revoked connection is remembered: as long as the kernel keeps the entry of an idle TCP connection
/// (`nf_conntrack_tcp_timeout_established`), and again for as long where the entry is still there then.
pub const REMEMBERED: Duration = Duration::from_secs(5 * 24 * 3600);

/// How many elements the kernel's set of revoked connections of a kind holds at most, two for each connection. One takes
/// about 150 bytes of kernel memory.
pub const REMEMBERED_MOST: u32 = 131_072;

/// The comment of the element that leads from the opener to the answerer.
pub(crate) const OPENER_COMMENT: &str = "opener";

/// What became of the entry of a connection that was to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It carries our label now: its next packet is dropped, in either direction.
    Labelled,
    /// It had no room for labels (it is older than our table), so it was replaced by one that carries our label.
    Replaced,
    /// It had no room for labels, or its packets went through a flow table, so it was deleted. Deleting alone cuts nothing: the
    /// next packet of either end may begin a new entry. [`Enforcer::revoke`](crate::Enforcer::revoke) sees to that.
    Deleted,
    /// It had ended by itself.
    Gone,
}

/// Cuts a connection by its entry.
pub fn revoke(kernel: &mut Kernel, connection: &Connection) -> Result<Revocation, Error> {
    if connection.is_offloaded() {
        // No hook sees its packets as long as the entry is there.
        return delete(kernel, connection);
    }
    match set_label(kernel, connection, true) {
        Ok(()) => Ok(Revocation::Labelled),
        Err(e) => match e.os_error() {
            Some(ENOENT) => Ok(Revocation::Gone),
            Some(ENOSPC | EOPNOTSUPP) => replace(kernel, connection),
            _ => Err(e),
        },
    }
}

/// Deletes an entry that can't carry a label, and makes one that can where the kernel needs nothing else to be told: UDP
/// without translation. So who opened it stays known, even if our table goes and comes back. A TCP entry that begins in
/// the middle of a connection shows that ([`Connection::midstream`]).
fn replace(kernel: &mut Kernel, connection: &Connection) -> Result<Revocation, Error> {
    let outcome = delete(kernel, connection)?;
    let is_plain = connection.protocol == Protocol::Udp && !connection.has_nat();
    let (Revocation::Deleted, true, Some(timeout)) = (outcome, is_plain, &connection.timeout) else {
        return Ok(outcome);
    };
    /// `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED`; a new entry has to be confirmed.
    const KEPT: u32 = 2 | 4 | 8;
    const CONFIRMED: u32 = 8;
    let mut body = names(connection);
    body.nest(connection::TUPLE_REPLY, |t| {
        t.raw(&connection.reply);
    });
    body.put(connection::TIMEOUT, timeout).number(connection::STATUS, connection.status & KEPT | CONFIRMED);
    body.put(connection::LABELS, &label_bytes()).put(connection::LABELS_MASK, &label_bytes());
    match request(kernel, (NEW, CREATE), connection, body, "replacement of") {
        Ok(()) => Ok(Revocation::Replaced),
        // A packet was faster (it was dropped, and began no entry, unless another table lets it pass), or the kernel is full.
        Err(e) if e.os_error().is_some() => Ok(Revocation::Deleted),
        Err(e) => Err(e),
    }
}

/// Takes a revocation by label back; says whether the connection still existed.
pub fn restore(kernel: &mut Kernel, connection: &Connection) -> Result<bool, Error> {
    match set_label(kernel, connection, false) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.os_error(), Some(ENOENT | ENOSPC)) => Ok(false),
        Err(e) => Err(e),
    }
}

fn set_label(kernel: &mut Kernel, connection: &Connection, revoked: bool) -> Result<(), Error> {
    let mut body = names(connection);
    // The kernel clears what the mask holds and then flips what the labels hold.
    let labels = if revoked { label_bytes() } else { [0; 16] };
    body.put(connection::LABELS, &labels).put(connection::LABELS_MASK, &label_bytes());
    request(kernel, (NEW, 0), connection, body, "revocation label of")
}

fn delete(kernel: &mut Kernel, connection: &Connection) -> Result<Revocation, Error> {
    let mut body = names(connection);
    // With the id, the kernel spares a new connection that has the ends of the old one.
    if let Some(id) = &connection.id {
        body.put(connection::ID, id);
    }
    match request(kernel, (DELETE, 0), connection, body, "deletion of") {
        Ok(()) => Ok(Revocation::Deleted),
        Err(e) if e.os_error() == Some(ENOENT) => Ok(Revocation::Gone),
        Err(e) => Err(e),
    }
}

fn names(connection: &Connection) -> Writer {
    let mut body = Writer::default();
    body.nest(connection::TUPLE_ORIGINAL, |t| {
        t.raw(&connection.tuple);
    });
    if let Some(zone) = &connection.zone {
        body.put(connection::ZONE, zone);
    }
    body
}

fn request(
    kernel: &mut Kernel,
    (kind, flags): (u16, u16),
    connection: &Connection,
    body: Writer,
    what: &str,
) -> Result<(), Error> {
    let family = if connection.source.is_ipv4() { 2 } else { 10 };
    kernel.request(kind, flags, family, &body.into_bytes(), &|| format!("{what} connection {connection}"))
}
