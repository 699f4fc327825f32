//! Which connections there are.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use nix::libc::{EINVAL, EOPNOTSUPP};
use palisade_policy::Family;

use super::{
    GET,
    connection::{Connection, TUPLE_ORIGINAL, TUPLE_REPLY},
};
use crate::{Error, Kernel, encode::attributes::Attributes as Writer, reader::Attributes};

/// Up to so many IPv4 addresses are asked for one by one; more are picked out of one full listing. With 200,000
/// entries, asking for one took a quarter of the full listing's time, and for four about as much
/// (`benches/connections.rs`).
pub const FEW: usize = 3;

/// `CTA_FILTER`, and in it the flags that say what of the original or reply tuple must match.
const FILTER: u16 = 25;
const ORIGINAL_FLAGS: u16 = 1;
const REPLY_FLAGS: u16 = 2;

/// `CTA_FILTER_F_CTA_IP_SRC`: the source address.
const SOURCE: u32 = 1;

/// `CTA_TUPLE_IP`, and in it `CTA_IP_V4_SRC`.
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;

/// The connections that have one of these addresses at either end, as policies see the ends: after destination NAT and
/// before source NAT.
///
/// The kernel has no index by address: it walks all entries of the namespace, twice for each of up to [`FEW`] IPv4
/// addresses, and copies only those asked for; for more addresses, and for IPv6, once, and copies all of the family. So
/// this is `O(entries)` always, and what differs is the price of an entry that nobody asked for.
///
/// IPv6 is not asked for because the kernel compares the wrong way round there: it lists all entries but those with the
/// address (seen with Linux 6.18, in which `ctnetlink_filter_match_tuple` negates `ipv6_addr_cmp`).
pub fn list(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Vec<Connection>, Error> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        let ends: BTreeSet<IpAddr> = ends.iter().copied().filter(|a| Family::of(*a) == family).collect();
        if ends.is_empty() {
            continue;
        }
        let few = match family {
            Family::V4 if ends.len() <= FEW => ask_for_each(kernel, &ends)?,
            _ => None,
        };
        out.extend(match few {
            Some(connections) => connections,
            None => dump(kernel, family, &[], |c| ends.contains(&c.source) || ends.contains(&c.destination))?,
        });
    }
    Ok(out)
}

/// The connections that carry our revocation label. `O(entries)`.
pub fn list_revoked(kernel: &mut Kernel) -> Result<Vec<Connection>, Error> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        out.extend(dump(kernel, family, &[], Connection::is_revoked)?);
    }
    Ok(out)
}

/// None where the kernel does not take a filter. Each connection is listed once: from its source if that is asked for,
/// otherwise from its destination.
fn ask_for_each(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Option<Vec<Connection>>, Error> {
    let mut out = Vec::new();
    for end in ends {
        let IpAddr::V4(address) = end else { return Ok(None) };
        let opened = filter(TUPLE_ORIGINAL, ORIGINAL_FLAGS, *address);
        let answered = filter(TUPLE_REPLY, REPLY_FLAGS, *address);
        let is_answerer_alone = |c: &Connection| c.destination == *end && !ends.contains(&c.source);
        let found = dump(kernel, Family::V4, &opened, |c| c.source == *end)
            .and_then(|opened| Ok([opened, dump(kernel, Family::V4, &answered, is_answerer_alone)?]));
        match found {
            Ok(found) => out.extend(found.into_iter().flatten()),
            Err(e) if matches!(e.os_error(), Some(EOPNOTSUPP | EINVAL)) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    Ok(Some(out))
}

/// A request for the entries with this source address in one of their tuples.
fn filter(tuple: u16, flags: u16, source: Ipv4Addr) -> Vec<u8> {
    let mut body = Writer::default();
    body.nest(FILTER, |f| {
        // These flags are in host order.
        f.put(flags, &SOURCE.to_ne_bytes());
    });
    body.nest(tuple, |t| {
        t.nest(TUPLE_IP, |ip| {
            ip.put(IPV4_SOURCE, &source.octets());
        });
    });
    body.into_bytes()
}

/// `is_wanted` is asked even where the kernel filters: an attribute that it does not know it would ignore.
fn dump(
    kernel: &mut Kernel,
    family: Family,
    request: &[u8],
    is_wanted: impl Fn(&Connection) -> bool,
) -> Result<Vec<Connection>, Error> {
    let number = if family == Family::V4 { 2 } else { 10 };
    let listed = kernel.dump(GET, number, request, "connections", |reply| {
        Connection::parse(Attributes(reply.attributes())).filter(&is_wanted)
    });
    listed.map_err(|error| match error.os_error() {
        // nfnetlink says EINVAL to a subsystem that it doesn't know; and so do kernels that can't filter.
        Some(n @ (EINVAL | EOPNOTSUPP)) if request.is_empty() => {
            Error::NoConntrack(io::Error::from_raw_os_error(n))
        }
        _ => error,
    })
}
