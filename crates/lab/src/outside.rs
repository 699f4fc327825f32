//! Outside addresses: for every CIDR in a policy one inside it, one in each exception, and the neighbors on both sides.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use palisade_policy::{Cluster, Family, IpBlock, IpRange, Peer, address};

use crate::options::LayoutOptions;

/// The outside addresses of every lab. They are from the documentation ranges (RFC 5737, RFC 3849), which no network uses.
pub const ALWAYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))];

/// The maximum number of outside addresses of each family. Each is probed from and to every pod; more would make a lab slow
/// and find little.
pub const MAX_PER_FAMILY: usize = 24;

/// Returns whether a host on a network can have this address.
pub(crate) fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first != 0 && first != 127 && first < 224 && !a.is_link_local()
        }
        // The segment 0 holds the unspecified, the loopback and the IPv4-mapped addresses.
        IpAddr::V6(a) => a.segments()[0] != 0 && !a.is_multicast() && !a.is_unicast_link_local(),
    }
}

/// The chosen outside addresses, and what was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideAddresses {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// What was left out, as text for the user.
    pub note: Option<String>,
}

/// Chooses the outside addresses: those of every lab, those in `options`, then those around the CIDRs of the policies. None of
/// them is in `used`.
#[must_use]
pub fn addresses(cluster: &Cluster, options: &LayoutOptions, used: &BTreeSet<IpAddr>) -> OutsideAddresses {
    let mut addresses = Vec::new();
    let mut left_out = 0;
    for family in options.families.all() {
        let mut chosen: Vec<IpAddr> = Vec::new();
        for address in ALWAYS.iter().chain(&options.outside) {
            let fits = Family::of(*address) == *family && is_usable(*address) && !used.contains(address);
            if fits && !chosen.contains(address) {
                chosen.push(*address);
            }
        }
        for address in blocks(cluster)
            .into_iter()
            .flat_map(|b| addresses_around(b, &|a| is_usable(a) && !used.contains(&a)))
        {
            if Family::of(address) != *family || chosen.contains(&address) {
                continue;
            }
            if chosen.len() < MAX_PER_FAMILY {
                chosen.push(address);
            } else {
                left_out += 1;
            }
        }
        addresses.extend(chosen);
    }
    let note = (left_out > 0).then(|| {
        format!("{left_out} outside addresses around the CIDRs of the policies are left out: at most {MAX_PER_FAMILY} of each family")
    });
    OutsideAddresses { addresses, note }
}

fn blocks(cluster: &Cluster) -> BTreeSet<&IpBlock> {
    let rules = cluster.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress).flatten());
    rules
        .flat_map(|r| r.peers.iter().flatten())
        .filter_map(|p| match &p.peer {
            Peer::Block(block) => Some(block),
            Peer::Pods(_) | Peer::Nodes(_) | Peer::DomainName(_) => None,
        })
        .collect()
}

/// Returns one address in the block, one in each exception, and the ones just before and just after the block, as far as
/// `is_free` accepts them.
fn addresses_around(block: &IpBlock, is_free: &dyn Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let outer = IpRange::of_net(&block.cidr);
    let inside = candidates(&block.cidr).find(|a| block.contains(*a) && is_free(*a));
    let excepted =
        block.except.iter().filter_map(|e| candidates(e).find(|a| block.cidr.contains(a) && is_free(*a)));
    let family = Family::of(outer.first);
    let number = address::to_number;
    let before = number(outer.first).checked_sub(1).map(|n| address::from_number(family, n));
    let after = (number(outer.last) < address::max_number(family))
        .then(|| address::from_number(family, number(outer.last) + 1));
    let beyond = before.into_iter().chain(after).filter(|a| is_free(*a));
    inside.into_iter().chain(excepted).chain(beyond).collect()
}

/// Returns addresses of a CIDR to try, in this order: the first sixteen, the middle, the last, the network's own.
fn candidates(net: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let range = IpRange::of_net(net);
    let family = Family::of(range.first);
    let (first, last) = (address::to_number(range.first), address::to_number(range.last));
    // The network's own address is last because routers refuse it more often than others.
    let low = (1..=16).map(move |i| first.saturating_add(i));
    let more = [first + (last - first) / 2, last.saturating_sub(1), last, first];
    low.chain(more).filter(move |n| (first..=last).contains(n)).map(move |n| address::from_number(family, n))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use palisade_policy::{
        Action, Change, NamespaceMatch, PeerEntry, PodMatch, Policy, PolicyKey, Rule, Selector, Tier,
    };

    use super::*;
    use crate::options::Families;

    fn of(families: Families) -> LayoutOptions {
        LayoutOptions { families, ..LayoutOptions::default() }
    }

    #[test]
    fn addresses_in_the_options_are_first_unless_they_are_in_use() {
        let parse = |a: &&str| a.parse().unwrap();
        let outside = ["203.0.113.9", "10.0.0.1", "198.51.100.7", "fd00::9"].iter().map(parse).collect();
        let used = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let chosen = addresses(&cluster(&[]), &LayoutOptions { outside, ..of(Families::V4) }, &used);
        assert_eq!(strings(&chosen), ["198.51.100.7", "203.0.113.9"]);
    }

    fn cluster(blocks: &[(&str, &[&str])]) -> Cluster {
        let peers = blocks
            .iter()
            .map(|(cidr, except)| PeerEntry {
                peer: Peer::Block(IpBlock {
                    cidr: cidr.parse().unwrap(),
                    except: except.iter().map(|e| e.parse().unwrap()).collect(),
                }),
                origin: None,
            })
            .collect();
        let mut c = Cluster::default();
        c.apply(Change::SetPolicy(Arc::new(Policy {
            key: PolicyKey::network_policy("x", "p"),
            tier: Tier::Developer,
            priority: 0,
            mode: None,
            subject: PodMatch { namespaces: NamespaceMatch::Named("x".into()), pods: Selector::everything() },
            ingress: None,
            egress: Some(vec![Rule {
                name: None,
                action: Action::Accept,
                peers: Some(peers),
                ports: None,
                origin: None,
            }]),
            origin: None,
        })));
        c
    }

    fn strings(chosen: &OutsideAddresses) -> Vec<String> {
        chosen.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_block_gives_an_address_inside_one_excepted_and_both_neighbors() {
        let used = BTreeSet::from(["192.168.1.1".parse().unwrap()]);
        let c = cluster(&[("192.168.1.0/24", &["192.168.1.0/28"])]);
        let chosen = addresses(&c, &LayoutOptions::default(), &used);
        // 192.168.1.1 to .15 are excepted and .1 is in use.
        let want =
            ["198.51.100.7", "192.168.1.16", "192.168.1.2", "192.168.0.255", "192.168.2.0", "2001:db8::7"];
        assert_eq!(strings(&chosen), want);
        assert_eq!(chosen.note, None);
    }

    #[test]
    fn the_whole_address_space_has_no_neighbors_and_a_single_address_does() {
        let c = cluster(&[("0.0.0.0/0", &[]), ("::/0", &[]), ("203.0.113.9/32", &[])]);
        let v4 = strings(&addresses(&c, &of(Families::V4), &BTreeSet::new()));
        assert_eq!(
            v4,
            ["198.51.100.7", "127.255.255.255", "203.0.113.9", "203.0.113.8", "203.0.113.10"][..]
                .iter()
                .filter(|a| !a.starts_with("127"))
                .map(|s| (*s).to_owned())
                .collect::<Vec<_>>()
        );
        assert!(addresses(&c, &of(Families::V6), &BTreeSet::new()).addresses.len() <= 2);
    }

    #[test]
    fn a_note_counts_what_is_left_out() {
        let nets: Vec<String> = (0..40).map(|i| format!("10.{i}.0.0/24")).collect();
        let blocks: Vec<(&str, &[&str])> = nets.iter().map(|n| (&**n, &[][..])).collect();
        let chosen = addresses(&cluster(&blocks), &of(Families::V4), &BTreeSet::new());
        assert_eq!(chosen.addresses.len(), MAX_PER_FAMILY);
        assert!(chosen.note.unwrap().contains("left out"));
    }
}
