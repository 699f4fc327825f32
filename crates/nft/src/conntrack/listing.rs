//! Lists connection-tracking entries.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use nix::libc::{EINVAL, EOPNOTSUPP};
use palisade_policy::Family;

use super::entry::ConntrackEntry;
use crate::{
    Error, Kernel,
    encode::AttributeWriter,
    reader::Attributes,
    uapi::{
        netfilter::{NFPROTO_IPV4, NFPROTO_IPV6},
        nfnetlink::{NFNL_SUBSYS_CTNETLINK, message_type},
        nfnetlink_conntrack::{
            CTA_FILTER, CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS,
            CTA_IP_V4_SRC, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, IPCTNL_MSG_CT_GET,
        },
    },
};

/// The most IPv4 addresses that are listed one by one, filtered by the kernel. For more, one full listing is filtered here.
///
/// With 200,000 entries, filtering by one address took a quarter of the time of a full listing, by four about as long
/// (`benches/connections.rs`).
pub const MAX_FILTERED: usize = 3;

/// Lists the connections with one of these addresses at either end, as policies see the ends: after destination NAT and
/// before source NAT.
///
/// The kernel has no index by address. For up to [`MAX_FILTERED`] IPv4 addresses, it walks all entries of the namespace
/// twice per address, and copies only those that match. For more addresses, and for IPv6, it walks them once, and copies
/// all of the family. So this is always `O(entries)`, but an entry that doesn't match costs less in the first case.
///
/// IPv6 is not filtered by the kernel because of a bug: it lists all entries except those with the address (seen with
/// Linux 6.18, in which `ctnetlink_filter_match_tuple` negates `ipv6_addr_cmp`).
pub fn list(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Vec<ConntrackEntry>, Error> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        let ends: BTreeSet<IpAddr> = ends.iter().copied().filter(|a| Family::of(*a) == family).collect();
        if ends.is_empty() {
            continue;
        }
        let filtered = match family {
            Family::V4 if ends.len() <= MAX_FILTERED => list_filtered(kernel, &ends)?,
            _ => None,
        };
        out.extend(match filtered {
            Some(entries) => entries,
            None => dump(kernel, family, &[], |c| ends.contains(&c.source) || ends.contains(&c.destination))?,
        });
    }
    Ok(out)
}

/// Lists the connections of [`list`] and those of [`list_revoked`], from one listing of each family. `O(entries)`.
pub fn list_with_revoked(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Vec<ConntrackEntry>, Error> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        out.extend(dump(kernel, family, &[], |c| {
            c.is_revoked() || ends.contains(&c.source) || ends.contains(&c.destination)
        })?);
    }
    Ok(out)
}

/// Lists the connections whose entries carry the revocation label. `O(entries)`.
pub fn list_revoked(kernel: &mut Kernel) -> Result<Vec<ConntrackEntry>, Error> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        out.extend(dump(kernel, family, &[], ConntrackEntry::is_revoked)?);
    }
    Ok(out)
}

/// Lists connections address by address, each connection once. `None` if the kernel doesn't support filters.
///
/// A connection is listed for its source if that is one of the ends, otherwise for its destination.
fn list_filtered(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Option<Vec<ConntrackEntry>>, Error> {
    let mut out = Vec::new();
    for end in ends {
        let IpAddr::V4(address) = end else { return Ok(None) };
        let opened = filter(CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS, *address);
        let answered = filter(CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS, *address);
        let is_answerer_alone = |c: &ConntrackEntry| c.destination == *end && !ends.contains(&c.source);
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

/// Returns a request for the entries with this source address in one of their tuples.
fn filter(tuple: u16, flags: u16, source: Ipv4Addr) -> Vec<u8> {
    let mut body = AttributeWriter::default();
    body.nest(CTA_FILTER, |f| {
        // These flags are in host byte order.
        f.put(flags, &CTA_FILTER_F_CTA_IP_SRC.to_ne_bytes());
    });
    body.nest(tuple, |t| {
        t.nest(CTA_TUPLE_IP, |ip| {
            ip.put(CTA_IP_V4_SRC, &source.octets());
        });
    });
    body.into_bytes()
}

/// Lists the entries that `matches` accepts. It is necessary even if the kernel filters, because an older kernel ignores
/// the filter attribute.
fn dump(
    kernel: &mut Kernel,
    family: Family,
    request: &[u8],
    matches: impl Fn(&ConntrackEntry) -> bool,
) -> Result<Vec<ConntrackEntry>, Error> {
    let kind = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET);
    let number = if family == Family::V4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
    let listed = kernel.dump(kind, number, request, "connections", |reply| {
        ConntrackEntry::parse(Attributes(reply.attributes())).filter(&matches)
    });
    listed.map_err(|error| match error.os_error() {
        // nfnetlink returns EINVAL for a subsystem that it doesn't know; so do kernels that can't filter.
        Some(n @ (EINVAL | EOPNOTSUPP)) if request.is_empty() => {
            Error::NoConntrack(io::Error::from_raw_os_error(n))
        }
        _ => error,
    })
}
