//! Connections that are under way: listing them, and cutting those that a change of policy now denies.
//!
//! The order that leaves no gap: commit the new rules, then [`list`] the connections concerned, decide
//! each anew, and [`revoke`] those now denied. What begins after the commit meets the new rules; what began before is
//! listed. (One exception, of microseconds: a first packet that passed our hook before the commit and is still on its way
//! through the kernel is listed only once it has left. Who wants to exclude it lists again a moment later.) Where a later change allows a revoked connection again, [`restore`] it: else a peer that keeps to one pair of
//! ports, as many UDP programs do, would stay cut off as long as it keeps trying.

mod connection;
mod label;
mod listing;

use nix::libc::{ENOENT, ENOSPC, EOPNOTSUPP};

pub use self::connection::Connection;
pub use self::label::REVOKED;
pub(crate) use self::label::label_bytes;
pub use self::listing::{FEW, list, list_revoked};
use crate::{Error, Kernel, encode::attributes::Attributes as Writer};

/// `NFNL_SUBSYS_CTNETLINK << 8`, and its messages.
const CTNETLINK: u16 = 1 << 8;
const NEW: u16 = CTNETLINK;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;

/// What became of a connection that was to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It carries our label now: its next packet is dropped, in either direction.
    Labelled,
    /// It had no room for labels (it is older than our table), so its entry was deleted: its next packet is judged as
    /// the first of a new connection.
    Deleted,
    /// It had ended by itself.
    Gone,
}

/// Cuts a connection.
pub fn revoke(kernel: &mut Kernel, connection: &Connection) -> Result<Revocation, Error> {
    match set_label(kernel, connection, true) {
        Ok(()) => Ok(Revocation::Labelled),
        Err(e) => match e.os_error() {
            Some(ENOENT) => Ok(Revocation::Gone),
            Some(ENOSPC | EOPNOTSUPP) => delete(kernel, connection),
            _ => Err(e),
        },
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
    request(kernel, NEW, connection, body, "revocation label of")
}

fn delete(kernel: &mut Kernel, connection: &Connection) -> Result<Revocation, Error> {
    let mut body = names(connection);
    // With the id, the kernel spares a new connection that has the ends of the old one.
    if let Some(id) = &connection.id {
        body.put(connection::ID, id);
    }
    match request(kernel, DELETE, connection, body, "deletion of") {
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
    kind: u16,
    connection: &Connection,
    body: Writer,
    what: &str,
) -> Result<(), Error> {
    let family = if connection.source.is_ipv4() { 2 } else { 10 };
    kernel.request(kind, family, &body.into_bytes(), &|| format!("{what} connection {connection}"))
}
