//! Which established connections a change may deny (SEMANTICS G-3: they are re-evaluated, and revoked if denied).

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Delta, Direction, NodePlan, PolicyTableId};

use crate::{FiveTuple, TrackedConnection};

/// Returns addresses such that every connection that `before` allowed and `after` may deny has one of them at an end.
/// `delta` is the difference of the two plans. Addresses for which the change only allows more are not included.
///
/// If peers are allowed less, returns those peers or the local addresses concerned, whichever are fewer: a peer pod
/// that is deleted or relabeled is one address, however many local pods it could reach.
///
/// `O(delta × tables)`; reads no connections.
#[must_use]
pub fn restricted(before: &NodePlan, after: &NodePlan, delta: &Delta) -> BTreeSet<IpAddr> {
    // Addresses that are newly isolated or have another table.
    let isolated = delta.ingress.set.keys().chain(delta.egress.set.keys());
    let mut found: BTreeSet<IpAddr> = isolated.chain(delta.hairpin.set.keys()).copied().collect();
    let with_table = |tables: &BTreeSet<PolicyTableId>| -> BTreeSet<IpAddr> {
        let dispatch = after.ingress.iter().chain(&after.egress);
        dispatch.filter(|(_, table)| tables.contains(table)).map(|(address, _)| *address).collect()
    };
    // Tables with other rules.
    found.extend(with_table(&delta.tables_set.keys().copied().collect()));
    // Tables whose peer sets changed, if a peer is allowed less.
    let (mut tables, mut peers) = (BTreeSet::new(), BTreeSet::new());
    for (peer_set, change) in &delta.members {
        for (id, table) in after.tables.iter().filter(|(_, table)| table.exact.contains_key(peer_set)) {
            let Some(old) = before.tables.get(id) else { continue };
            let is_restricted =
                |peer: &IpAddr| !before.row(old, *peer).difference(after.row(table, *peer)).is_none();
            let restricted: Vec<IpAddr> =
                change.added.iter().chain(&change.removed).copied().filter(is_restricted).collect();
            if !restricted.is_empty() {
                tables.insert(*id);
            }
            peers.extend(restricted);
        }
    }
    let local = with_table(&tables);
    found.extend(if peers.len() < local.len() { peers } else { local });
    found
}

/// The node as an end of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether traffic from its pods to it passes regardless of egress policies (SEMANTICS G-5).
    pub is_exempt: bool,
}

/// Whether the plan allows an established connection. Policies don't apply to traffic from the node to its own pods (SEMANTICS A39,
/// G-5).
#[must_use]
pub fn is_allowed(plan: &NodePlan, host: &Host, connection: &FiveTuple) -> bool {
    let FiveTuple { source, destination, protocol, port, .. } = connection;
    let allows = |direction| plan.decide(direction, *source, *destination, *protocol, *port).is_allow();
    let to_exempt_host = host.is_exempt && host.addresses.contains(destination);
    (to_exempt_host || allows(Direction::Egress))
        && (host.addresses.contains(source) || allows(Direction::Ingress))
}

/// Returns the orientation in which the plan denies a connection, if it does. The entry may have client and server
/// exchanged: if it was created in the middle of the connection and the ports don't identify the client, or if the
/// other orientation was revoked before. Then both orientations have to be allowed.
#[must_use]
pub fn denied(
    plan: &NodePlan,
    host: &Host,
    connection: &TrackedConnection,
    is_revoked: impl Fn(&FiveTuple) -> bool,
) -> Option<FiveTuple> {
    let tuple = connection.tuple;
    if !is_allowed(plan, host, &tuple) {
        return Some(tuple);
    }
    let reversed = tuple.reversed();
    let may_be_reversed = connection.midstream && !tuple.has_ports_of_opener();
    let is_denied = (may_be_reversed || is_revoked(&reversed)) && !is_allowed(plan, host, &reversed);
    is_denied.then_some(reversed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use palisade_policy::{PeerSet, PeerSetId, PolicyTable, PortSet, Protocol, Traffic};

    use super::*;

    const TABLE: PolicyTableId = PolicyTableId([1; 16]);
    const PEER_SET: PeerSetId = PeerSetId([2; 16]);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn plan(members: &[&str]) -> NodePlan {
        let web = Traffic::of(Protocol::Tcp, PortSet::range(80, 80));
        NodePlan {
            ingress: BTreeMap::from([(address("10.0.0.1"), TABLE)]),
            tables: BTreeMap::from([(
                TABLE,
                PolicyTable {
                    direction: Direction::Ingress,
                    exact: BTreeMap::from([(PEER_SET, web)]),
                    ranges: BTreeMap::new(),
                    rest: Traffic::none(),
                },
            )]),
            peer_sets: BTreeMap::from([(
                PEER_SET,
                PeerSet::Addresses(members.iter().map(|m| address(m)).collect()),
            )]),
            ..NodePlan::default()
        }
    }

    fn between(before: &NodePlan, after: &NodePlan) -> BTreeSet<IpAddr> {
        restricted(before, after, &before.delta_to(after))
    }

    #[test]
    fn a_peer_that_leaves_is_restricted_and_one_that_joins_is_not() {
        let (one, two) = (plan(&["10.0.0.2"]), plan(&["10.0.0.2", "10.0.0.3"]));
        assert_eq!(between(&one, &two), BTreeSet::new());
        assert_eq!(between(&two, &one), BTreeSet::from([address("10.0.0.1")]));
    }

    #[test]
    fn restricted_peers_or_local_pods_are_returned_whichever_are_fewer() {
        let with = |local: &[&str], members: &[&str]| NodePlan {
            ingress: local.iter().map(|a| (address(a), TABLE)).collect(),
            ..plan(members)
        };
        let local = ["10.0.0.1", "10.0.0.4"];
        let peers = ["10.0.0.2", "10.0.0.3", "10.0.0.5"];
        assert_eq!(
            between(&with(&local, &peers), &with(&local, &peers[1..])),
            BTreeSet::from([address("10.0.0.2")])
        );
        assert_eq!(between(&with(&local, &peers), &with(&local, &[])), BTreeSet::from(local.map(address)));
        assert_eq!(between(&with(&[], &peers), &with(&[], &[])), BTreeSet::new(), "no address has the table");
    }

    #[test]
    fn a_peer_restricted_in_two_tables_concerns_the_pods_of_both() {
        const OTHER: PolicyTableId = PolicyTableId([3; 16]);
        let with = |members: &[&str]| {
            let mut plan = plan(members);
            let table = PolicyTable {
                rest: Traffic::of(Protocol::Udp, PortSet::all()),
                ..plan.tables[&TABLE].clone()
            };
            plan.tables.insert(OTHER, table);
            plan.ingress.insert(address("10.0.0.4"), OTHER);
            plan
        };
        // Two peers, two local addresses: those of both tables.
        assert_eq!(
            between(&with(&["10.0.0.2", "10.0.0.3"]), &with(&[])),
            BTreeSet::from([address("10.0.0.1"), address("10.0.0.4")])
        );
        assert_eq!(between(&with(&["10.0.0.2"]), &with(&[])), BTreeSet::from([address("10.0.0.2")]));
    }

    #[test]
    fn isolation_restricts_and_its_end_does_not() {
        let (open, isolated) = (NodePlan::default(), plan(&[]));
        assert_eq!(between(&open, &isolated), BTreeSet::from([address("10.0.0.1")]));
        assert_eq!(between(&isolated, &open), BTreeSet::new());
    }

    #[test]
    fn connections_of_the_node_to_its_pods_are_allowed() {
        let plan = plan(&[]);
        let connection = |source: &str| FiveTuple {
            source: address(source),
            destination: address("10.0.0.1"),
            protocol: Protocol::Tcp,
            source_port: 40_000,
            port: 80,
        };
        let host = Host { addresses: BTreeSet::from([address("192.168.0.1")]), is_exempt: false };
        assert!(is_allowed(&plan, &host, &connection("192.168.0.1")), "kubelet probes");
        assert!(!is_allowed(&plan, &host, &connection("192.168.0.2")), "another node");
    }

    #[test]
    fn traffic_of_a_pod_to_its_own_node_is_egress_unless_exempt() {
        let mut plan = plan(&[]);
        plan.egress = std::mem::take(&mut plan.ingress);
        let to = |destination: &str| FiveTuple {
            source: address("10.0.0.1"),
            destination: address(destination),
            protocol: Protocol::Tcp,
            source_port: 40_000,
            port: 10250,
        };
        let mut host = Host { addresses: BTreeSet::from([address("192.168.0.1")]), is_exempt: false };
        assert!(!is_allowed(&plan, &host, &to("192.168.0.1")));
        host.is_exempt = true;
        assert!(is_allowed(&plan, &host, &to("192.168.0.1")));
        assert!(!is_allowed(&plan, &host, &to("192.168.0.2")), "another node");
    }

    /// 10.0.0.1 allows TCP 80 from 10.0.0.2 only; its egress is not isolated.
    #[test]
    fn an_entry_that_may_be_reversed_is_checked_both_ways() {
        let plan = plan(&["10.0.0.2"]);
        let host = Host::default();
        let reply = |peer: &str, source_port, port, midstream| TrackedConnection {
            tuple: FiveTuple {
                source: address("10.0.0.1"),
                destination: address(peer),
                protocol: Protocol::Tcp,
                source_port,
                port,
            },
            revoked: false,
            midstream,
        };
        let never = |_: &FiveTuple| false;
        let denied = |connection: &TrackedConnection| denied(&plan, &host, connection, never);
        let of_denied_peer = reply("10.0.0.3", 80, 40_000, true);
        assert_eq!(denied(&of_denied_peer), Some(of_denied_peer.tuple.reversed()), "tracked since a reply");
        assert_eq!(denied(&reply("10.0.0.2", 80, 40_000, true)), None, "of an allowed peer");
        assert_eq!(denied(&reply("10.0.0.3", 80, 40_000, false)), None, "tracked from its beginning");
        assert_eq!(
            denied(&reply("10.0.0.3", 40_000, 80, true)),
            None,
            "opened by the pod according to the ports"
        );
        let unclear = reply("10.0.0.3", 50_051, 40_000, true);
        assert_eq!(denied(&unclear), Some(unclear.tuple.reversed()), "the ports don't identify the client");
        let known = reply("10.0.0.3", 80, 40_000, false);
        let is_revoked = |tuple: &FiveTuple| *tuple == known.tuple.reversed();
        assert_eq!(super::denied(&plan, &host, &known, is_revoked), Some(known.tuple.reversed()));
    }
}
