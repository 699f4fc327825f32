//! Edge cases of plans, and the cost of evaluating a packet.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Hook, Kernel, LINEAR_LOOKUPS,
    reader::{Arrival, Evaluation, Packet, Ruleset, State},
};
use palisade_policy::{
    AddressSet, Direction, Family, IpRange, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId,
    PortSet, Protocol, Traffic, Verdict, address::from_number,
};

use crate::sandbox::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("ranges_hold_at_the_ends_of_the_address_space", range_edges),
        trial("the_cost_of_a_packet_stays_flat_as_peer_sets_grow", flat_cost),
        trial("discovery_passes_and_revoked_packets_do_not", before_the_policies),
        trial("a_hundred_thousand_ranges_are_programmed", many_ranges),
        trial("port_sets_of_every_size_are_programmed", port_sets),
        trial("the_first_member_of_a_family_joins_an_existing_set", first_of_a_family),
    ]
}

const TABLE: PolicyTableId = PolicyTableId([1; 16]);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn http() -> Traffic {
    Traffic::of(Protocol::Tcp, PortSet::range(80, 80))
}

/// Two local pods, one per family, with the same ingress table.
fn plan(exact: Vec<(PeerSet, Traffic)>, ranges: Vec<(PeerSet, Traffic)>, rest: Traffic) -> NodePlan {
    let mut plan = NodePlan::default();
    let mut table =
        PolicyTable { direction: Direction::Ingress, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest };
    for (n, (group, row)) in exact.into_iter().chain(ranges).enumerate() {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let rows = if matches!(group, PeerSet::Addresses(_)) { &mut table.exact } else { &mut table.ranges };
        rows.insert(PeerSetId(id), row);
        plan.peer_sets.insert(PeerSetId(id), group);
    }
    plan.tables.insert(TABLE, table);
    plan.ingress = [address("10.0.0.1"), address("fd00::1")].map(|a| (a, TABLE)).into();
    plan
}

fn to_pod(source: IpAddr, protocol: Protocol, port: u16) -> Packet {
    let destination = if source.is_ipv4() { address("10.0.0.1") } else { address("fd00::1") };
    Packet::new(source, destination, protocol, port)
}

fn start(plan: &NodePlan) -> (Enforcer, Ruleset) {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), plan).unwrap();
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    (enforcer, ruleset)
}

fn range_edges() {
    let range = |a: &str, b: &str| IpRange { first: address(a), last: address(b) };
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for ranges in [
        vec![range("0.0.0.0", "255.255.255.255"), range("::", last)],
        vec![
            range("0.0.0.0", "0.0.0.0"),
            range("255.255.255.255", "255.255.255.255"),
            range("::", "::"),
            range(last, last),
        ],
        // Adjacent ranges, a range of a single address, and a gap of one.
        vec![
            range("1.0.0.0", "1.0.0.9"),
            range("1.0.0.10", "1.0.0.10"),
            range("1.0.0.11", "1.0.0.19"),
            range("1.0.0.21", "255.255.255.255"),
        ],
        vec![range("::1", "::ff"), range("::100", "::ffff"), range("::1:1", "ffff::")],
    ] {
        let plan = plan(Vec::new(), vec![(PeerSet::Ranges(ranges.clone()), http())], Traffic::none());
        let (mut enforcer, ruleset) = start(&plan);
        let mut allowed = 0;
        for edge in ranges.iter().flat_map(|r| [r.first, r.last]) {
            let number = palisade_policy::address::to_number(edge);
            for near in [number.saturating_sub(1), number, number.saturating_add(1)] {
                let source = from_number(Family::of(edge), near);
                let expected = plan.decide(
                    Direction::Ingress,
                    source,
                    to_pod(source, Protocol::Tcp, 80).destination,
                    Protocol::Tcp,
                    80,
                );
                let evaluation = ruleset.evaluate(&to_pod(source, Protocol::Tcp, 80)).unwrap();
                assert_eq!(evaluation.verdict, expected, "{source} and {ranges:?}");
                allowed += usize::from(expected == Verdict::Allow);
            }
        }
        assert!(allowed > 0);
        enforcer.remove().unwrap();
    }
}

/// Peer sets of one pod each, each with a different port.
fn groups(count: usize) -> Vec<(PeerSet, Traffic)> {
    (0..count)
        .map(|n| {
            let pod = from_number(Family::V4, 0x0a01_0000 + n as u128);
            let port = 1000 + n as u16;
            (PeerSet::Addresses([pod].into()), Traffic::of(Protocol::Tcp, PortSet::range(port, port)))
        })
        .collect()
}

fn flat_cost() {
    let judge = |count: usize, stranger: bool| -> Vec<Evaluation> {
        let (mut enforcer, ruleset) = start(&plan(groups(count), Vec::new(), Traffic::none()));
        assert_eq!(
            ruleset.chains.keys().any(|name| name.starts_with("find_")),
            count > LINEAR_LOOKUPS,
            "{count}"
        );
        let out = (0..if stranger { 1 } else { count }).map(|n| {
            let source =
                from_number(Family::V4, if stranger { 0xc000_0201 } else { 0x0a01_0000 + n as u128 });
            let packet = to_pod(source, Protocol::Tcp, 1000 + n as u16);
            let evaluation = ruleset.evaluate(&packet).unwrap();
            assert_eq!(evaluation.verdict == Verdict::Allow, !stranger, "{count} peer sets, {packet:?}");
            evaluation
        });
        let out = out.collect();
        enforcer.remove().unwrap();
        out
    };
    let most = |count, stranger| judge(count, stranger).iter().map(|j| j.lookups).max().unwrap();
    // Besides the peer sets: the source by interface and by address, the pair, and two dispatch maps.
    assert_eq!(most(LINEAR_LOOKUPS, false), LINEAR_LOOKUPS + 5);
    assert!(most(LINEAR_LOOKUPS + 1, false) < LINEAR_LOOKUPS + 5);
    for count in [40, 256, 257, 1000] {
        let levels = if count <= LINEAR_LOOKUPS * LINEAR_LOOKUPS { 2 } else { 3 };
        assert!(most(count, false) <= levels * LINEAR_LOOKUPS + 5, "{count}");
        // Whether an end of what is denied is a local pod, which has a share of the log.
        assert!(most(count, true) <= LINEAR_LOOKUPS + 7, "{count}");
    }
}

fn before_the_policies() {
    let (mut enforcer, ruleset) = start(&plan(Vec::new(), Vec::new(), Traffic::none()));
    let source = address("fd00::9");
    for hook in Hook::POLICY {
        for kind in 0..=255 {
            for hop_limit in [1, 64, 255] {
                let arrival = Arrival { hop_limit, ..Arrival::default() };
                let packet = Packet { hook, arrival, ..to_pod(source, Protocol::Other(58), kind) };
                let passes = ruleset.evaluate(&packet).unwrap().verdict == Verdict::Allow;
                let discovers = (133..=137).contains(&kind) && hop_limit == 255;
                assert_eq!(passes, hook == Hook::Input || discovers, "type {kind}, hop limit {hop_limit}");
            }
        }
    }
    for state in [State::New, State::Established, State::Related, State::Untracked] {
        for byte in 0..16 {
            for bit in 0..8 {
                let mut labels = [0; 16];
                labels[byte] = 1 << bit;
                // From the pod to an unknown address: not isolated for egress, so only the revocation label stops it.
                let packet = Packet {
                    source: address("10.0.0.1"),
                    destination: address("192.0.2.1"),
                    labels,
                    state,
                    ..to_pod(address("10.0.0.1"), Protocol::Tcp, 1)
                };
                let is_revocation = byte == 15 && bit == 7;
                assert_eq!(
                    ruleset.evaluate(&packet).unwrap().verdict == Verdict::Deny,
                    is_revocation,
                    "{state:?} {labels:?}"
                );
            }
        }
    }
    enforcer.remove().unwrap();
}

fn many_ranges() {
    let ranges: Vec<IpRange> = (0..100_000u128)
        .map(|n| IpRange {
            first: from_number(Family::V4, 0x1000_0000 + n * 8),
            last: from_number(Family::V4, 0x1000_0000 + n * 8 + 3),
        })
        .collect();
    let plan = plan(Vec::new(), vec![(PeerSet::Ranges(ranges), http())], Traffic::none());
    let started = Instant::now();
    let (mut enforcer, ruleset) = start(&plan);
    let took = started.elapsed();
    for n in [0, 3, 4, 7, 8, 799_995, 799_996, 800_000] {
        let source = from_number(Family::V4, 0x1000_0000 + n);
        let expected = if n % 8 < 4 && n < 800_000 { Verdict::Allow } else { Verdict::Deny };
        assert_eq!(ruleset.evaluate(&to_pod(source, Protocol::Tcp, 80)).unwrap().verdict, expected, "{n}");
    }
    enforcer.remove().unwrap();
    assert!(took.as_secs() < 60, "{took:?}");
}

fn port_sets() {
    // Rules, sets, and a set of several messages: every second port.
    for step in [30_000, 20_000, 10_000, 500, 2] {
        let ports = (1..=u16::MAX).step_by(step).fold(Vec::new(), |mut all, port| {
            all.push(port);
            all
        });
        let mut set = PortSet::none();
        if step == 2 {
            // Adding the ports one by one would be quadratic here.
            let mut level: Vec<PortSet> = ports.iter().map(|p| PortSet::range(*p, *p)).collect();
            while level.len() > 1 {
                level = level
                    .chunks(2)
                    .map(|pair| pair.iter().fold(PortSet::none(), |a, b| a.union(b)))
                    .collect();
            }
            set = level.pop().unwrap();
        } else {
            ports.iter().for_each(|p| set = set.union(&PortSet::range(*p, *p)));
        }
        let rest = Traffic::of(Protocol::Udp, set.clone());
        let (mut enforcer, ruleset) = start(&plan(Vec::new(), Vec::new(), rest));
        for port in [0, 1, 2, 3, 500, 501, 502, 10_001, 20_001, 30_001, 65_534, 65_535] {
            let evaluation = ruleset.evaluate(&to_pod(address("fd00::9"), Protocol::Udp, port)).unwrap();
            assert_eq!(evaluation.verdict == Verdict::Allow, set.contains(port), "step {step}, port {port}");
        }
        enforcer.remove().unwrap();
    }
}

fn first_of_a_family() {
    let first = plan(vec![(PeerSet::Addresses(AddressSet::default()), http())], Vec::new(), Traffic::none());
    let (mut enforcer, _) = start(&first);
    for peer in ["fd00::7", "10.0.0.7"] {
        let mut next = enforcer.programmed().clone();
        for group in next.peer_sets.values_mut() {
            if let PeerSet::Addresses(members) = group {
                members.insert(address(peer));
            }
        }
        let commit = enforcer.commit(&enforcer.programmed().delta_to(&next)).unwrap();
        // The member, and the old and new transaction number.
        assert_eq!((commit.transactions, commit.elements, commit.messages), (1, 1, 3), "{commit:?}");
        let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
        let evaluation = ruleset.evaluate(&to_pod(address(peer), Protocol::Tcp, 80)).unwrap();
        assert_eq!(evaluation.verdict, Verdict::Allow);
    }
}
