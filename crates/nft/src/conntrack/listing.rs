//! Lists connection-tracking entries.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
};

use nix::libc::{EINVAL, EOPNOTSUPP};

use super::{entry::ConntrackEntry, text};
use crate::{
    Error, Kernel,
    encode::AttributeWriter,
    reader::Attributes,
    uapi::{
        netfilter::{NFPROTO_IPV4, NFPROTO_IPV6},
        nfnetlink::{NFNL_SUBSYS_CTNETLINK, message_type},
        nfnetlink_conntrack::{
            CTA_FILTER, CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS,
            CTA_IP_V4_SRC, CTA_STATS_GLOBAL_ENTRIES, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY,
            IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_GET_STATS,
        },
    },
};

/// `AF_UNSPEC`: entries of every family.
const ANY_FAMILY: u8 = 0;

/// The most IPv4 addresses that are listed one by one, filtered by the kernel. For more, one full listing is filtered here.
///
/// With 200,000 entries, filtering by one address took a quarter of the time of a full listing, by four about as long
/// (`benches/connections.rs`).
pub const MAX_FILTERED: usize = 3;

/// As many empty buckets as a listing passes in the time in which it copies one entry and the agent parses it: about a microsecond.
const BUCKETS_PER_ENTRY: usize = 29;

/// The number of buckets, of all network namespaces.
const BUCKETS_FILE: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";
/// The kernel's default with 1 to 4 GB of memory, for where the number can't be read.
const USUAL_BUCKETS: usize = 65_536;

/// Lists the connections with one of these addresses at either end, as policies see the ends: after destination NAT and
/// before source NAT.
///
/// The kernel has no index by address, so this is `O(buckets + entries)` unless the namespace has no entries. If it has few for the number of
/// buckets, all are listed in one walk: then the walks take the time, and not what is copied. If it has many, and there are up to
/// [`MAX_FILTERED`] IPv4 addresses, the kernel walks the table twice per address and copies only what matches, and once more for all of
/// IPv6. For more addresses, it walks the table once and copies everything.
///
/// IPv6 is not filtered by the kernel because of a bug: it lists all entries except those with the address (seen with
/// Linux 6.18, in which `ctnetlink_filter_match_tuple` negates `ipv6_addr_cmp`).
pub fn list(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Vec<ConntrackEntry>, Error> {
    let has_end = |c: &ConntrackEntry| ends.contains(&c.source) || ends.contains(&c.destination);
    let (v4, v6): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = ends.iter().partition(|end| end.is_ipv4());
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let entries = count(kernel);
    if entries == Some(0) {
        return Ok(Vec::new());
    }
    let is_few = |entries: u32| entries as usize <= few_entries(buckets(), walks(v4.len(), !v6.is_empty()));
    if v4.len() > MAX_FILTERED || entries.is_some_and(is_few) {
        return dump(kernel, ANY_FAMILY, &[], has_end);
    }
    let mut out = match list_filtered(kernel, &v4)? {
        Some(entries) => entries,
        None => dump(kernel, NFPROTO_IPV4, &[], has_end)?,
    };
    if !v6.is_empty() {
        out.extend(dump(kernel, NFPROTO_IPV6, &[], has_end)?);
    }
    Ok(out)
}

/// Returns how often the table is walked if the kernel filters.
fn walks(v4: usize, has_v6: bool) -> usize {
    2 * v4 + usize::from(has_v6)
}

/// Returns up to how many entries one walk that copies all of them takes less time than this many walks that copy none.
fn few_entries(buckets: usize, walks: usize) -> usize {
    walks.saturating_sub(1) * buckets / BUCKETS_PER_ENTRY
}

/// Returns whether there are entries, and the kernel's text about them takes less time than a listing.
pub(super) fn text_is_faster(kernel: &mut Kernel) -> bool {
    count(kernel)
        .is_some_and(|entries| (1..=buckets() / text::BUCKETS_PER_LINE).contains(&(entries as usize)))
}

fn buckets() -> usize {
    let text = fs::read_to_string(BUCKETS_FILE).ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_BUCKETS)
}

/// Returns the number of entries of the namespace. `None` if the kernel can't tell. `O(1)`.
fn count(kernel: &mut Kernel) -> Option<u32> {
    let kind = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS);
    kernel.query(kind, "number of connections", |attributes| attributes.number(CTA_STATS_GLOBAL_ENTRIES)).ok()
}

/// Lists the connections of [`list`] and those of [`list_revoked`], in one walk of the kernel's table.
pub fn list_with_revoked(kernel: &mut Kernel, ends: &BTreeSet<IpAddr>) -> Result<Vec<ConntrackEntry>, Error> {
    dump(kernel, ANY_FAMILY, &[], |c| {
        c.is_revoked() || ends.contains(&c.source) || ends.contains(&c.destination)
    })
}

/// Lists the connections whose entries carry the revocation label. `O(entries)`.
pub fn list_revoked(kernel: &mut Kernel) -> Result<Vec<ConntrackEntry>, Error> {
    dump(kernel, ANY_FAMILY, &[], ConntrackEntry::is_revoked)
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
        let found = dump(kernel, NFPROTO_IPV4, &opened, |c| c.source == *end)
            .and_then(|opened| Ok([opened, dump(kernel, NFPROTO_IPV4, &answered, is_answerer_alone)?]));
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

/// Lists the entries of a family that `matches` accepts. The check is necessary even if the kernel filters, because an older kernel ignores
/// the filter attribute.
fn dump(
    kernel: &mut Kernel,
    family: u8,
    request: &[u8],
    matches: impl Fn(&ConntrackEntry) -> bool,
) -> Result<Vec<ConntrackEntry>, Error> {
    let kind = message_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET);
    let listed = kernel.dump(kind, family, request, "connections", |reply| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_entries_are_those_that_cost_less_than_the_walks_that_they_save() {
        assert_eq!(few_entries(262_144, walks(1, false)), 9_039);
        assert_eq!(few_entries(262_144, walks(1, true)), 18_078);
        assert_eq!(few_entries(65_536, walks(1, true)), 4_519);
        // One walk in either case, which copies less if only IPv6 is listed.
        assert_eq!(few_entries(262_144, walks(0, true)), 0);
    }
}
