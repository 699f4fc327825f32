//! What pods send to their own node by link-local addresses.

use std::net::IpAddr;

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, EnforcerOptions, Hook, Kernel, NodeLinks,
    reader::{Arrival, Packet, Ruleset, State},
};
use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic};

use crate::{
    node_links::{LOCAL, address, packet, passes, plan, start},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("pods_don_t_reach_their_node_by_link_local_addresses_while_pods_are_isolated_for_egress", link_local),
        trial("the_policies_of_a_pod_decide_about_its_packets_to_its_node_by_link_local_addresses", link_local_of_pods),
    ]
}

/// A plan whose pod is isolated in these directions.
fn isolated_in(directions: &[Direction]) -> NodePlan {
    let mut plan = plan(&LOCAL, &[]);
    for direction in directions {
        let id = PolicyTableId([1 + *direction as u8; 16]);
        let rest = Traffic::all();
        let (exact, ranges) = Default::default();
        plan.tables.insert(id, PolicyTable { direction: *direction, exact, ranges, rest });
        let dispatch = if *direction == Direction::Egress { &mut plan.egress } else { &mut plan.ingress };
        dispatch.insert(address(LOCAL[1]), id);
    }
    plan
}

/// Three pods on a bridge, one on an interface of its own, each with the rules of its policies.
fn link_local_of_pods() {
    /// The interfaces: a bridge and one that leads to one pod.
    const BRIDGE: u32 = 7;
    const ROUTED: u32 = 8;
    let mac = |n: u8| [2, 0, 0, 0, 0, n];
    let pod = |n: u8| IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(n)]);
    let v4 = |n: u8| IpAddr::from([10, 244, 0, n]);
    let of = |interface: u32, n: u8, addresses: &[IpAddr]| ((interface, mac(n)), addresses.iter().copied().collect());
    let around = NodeLinks {
        pod_interfaces: [BRIDGE, ROUTED].into(),
        pod_bridges: [BRIDGE].into(),
        senders: [
            of(BRIDGE, 1, &[v4(1), pod(1)]),
            of(BRIDGE, 2, &[v4(2), pod(2)]),
            of(BRIDGE, 3, &[pod(3)]),
            of(BRIDGE, 5, &[v4(5)]),
            of(BRIDGE, 6, &[v4(6)]),
            of(BRIDGE, 7, &[]),
            of(ROUTED, 4, &[v4(4), pod(4)]),
        ]
        .into(),
        ..NodeLinks::default()
    };
    // Pods 1, 4 and 6 reach UDP port 53 at any address, pod 2 nothing, and no policy selects pods 3 and 5. The last two have no IPv6 address.
    let ports = Traffic::of(Protocol::Udp, PortSet::of_ranges([(53, 53)]));
    let tables = [(1, ports), (2, Traffic::none())];
    let mut plan = NodePlan::default();
    for (n, rest) in tables {
        let (exact, ranges) = Default::default();
        plan.tables.insert(
            PolicyTableId([n; 16]),
            PolicyTable { direction: Direction::Egress, exact, ranges, rest },
        );
    }
    for n in 1..=5 {
        plan.local.extend([v4(n), pod(n)]);
    }
    for (n, table) in [(1, 1), (2, 2), (4, 1)] {
        plan.egress.extend([v4(n), pod(n)].map(|address| (address, PolicyTableId([table; 16]))));
    }
    plan.local.insert(v4(6));
    plan.egress.insert(v4(6), PolicyTableId([1; 16]));
    let (mut enforcer, ruleset) = start(EnforcerOptions::default(), around.clone(), &plan);
    let allows = |ruleset: &Ruleset, interface: u32, sender: u8, port: u16, state: State| {
        let arrival = Arrival { in_interface: interface, sender: mac(sender), ..Arrival::default() };
        let to_node = Packet::new(address("fe80::7"), address("fe80::1"), Protocol::Udp, port);
        passes(ruleset, &Packet { hook: Hook::Input, arrival, state, ..to_node })
    };
    for state in [State::New, State::Established] {
        for (interface, sender, expected) in [
            (BRIDGE, 1, [true, false]),
            (BRIDGE, 2, [false, false]),
            (BRIDGE, 3, [true, true]),
            (ROUTED, 4, [true, false]),
            (BRIDGE, 5, [true, true]),
            // No policy table is about its packets.
            (BRIDGE, 6, [false, false]),
            // A pod without any address, an unknown hardware address, and those of pods of other interfaces.
            (BRIDGE, 7, [false, false]),
            (BRIDGE, 9, [false, false]),
            (BRIDGE, 4, [false, false]),
            (ROUTED, 1, [false, false]),
            (ROUTED, 3, [false, false]),
        ] {
            let found = [53, 80].map(|port| allows(&ruleset, interface, sender, port, state));
            assert_eq!(found, expected, "{interface} {sender} {state:?}");
        }
    }
    assert_eq!(enforcer.verify().unwrap().differences, []);
    // The policies of pod 1 change, pods 2 and 6 are no longer isolated but pod 5 is, and pod 4 gets another interface in the same change.
    let mut next = plan.clone();
    for n in [1, 4] {
        next.egress.extend([v4(n), pod(n)].map(|address| (address, PolicyTableId([2; 16]))));
    }
    next.egress.retain(|address, _| ![v4(2), pod(2), v4(6)].contains(address));
    next.egress.insert(v4(5), PolicyTableId([2; 16]));
    next.tables.remove(&PolicyTableId([1; 16]));
    let mut moved = around;
    moved.senders.remove(&(ROUTED, mac(4)));
    moved.senders.extend([of(BRIDGE, 4, &[v4(4), pod(4)])]);
    let delta = enforcer.programmed().delta_to(&next);
    enforcer.commit_with_links(&delta, &moved).unwrap();
    assert_eq!(enforcer.verify().unwrap().differences, []);
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    for (sender, expected) in [(1, false), (2, true), (3, true), (4, false), (5, false), (6, true)] {
        assert_eq!(allows(&ruleset, BRIDGE, sender, 53, State::New), expected, "{sender}");
    }
    // While no pod is isolated for egress, nothing is denied.
    let delta = enforcer.programmed().delta_to(&NodePlan { local: next.local.clone(), ..NodePlan::default() });
    enforcer.commit(&delta).unwrap();
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    assert!([1, 4, 9].into_iter().all(|sender| allows(&ruleset, BRIDGE, sender, 80, State::New)));
    assert_eq!(enforcer.verify().unwrap().differences, []);
    enforcer.remove().unwrap();
}

/// Of pods that are not known, whatever the policies allow: such an address identifies none.
fn link_local() {
    use Direction::{Egress, Ingress};
    let around = NodeLinks { pod_interfaces: [7].into(), ..NodeLinks::default() };
    let arrival = |in_interface| Arrival { in_interface, ..Arrival::default() };
    for egress_to_own_node in [true, false] {
        let options = EnforcerOptions { egress_to_own_node, ..EnforcerOptions::default() };
        let (mut enforcer, _) = start(options.clone(), around.clone(), &isolated_in(&[]));
        let steps: [&[Direction]; 6] = [&[], &[Ingress], &[Egress, Ingress], &[Egress], &[Ingress], &[]];
        for directions in steps {
            let delta = enforcer.programmed().delta_to(&isolated_in(directions));
            enforcer.commit(&delta).unwrap();
            let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
            let denied = egress_to_own_node && directions.contains(&Egress);
            for destination in ["fe80::1", "fd00:244::ffff"] {
                let from_pod = packet(Hook::Input, "fe80::7", destination, arrival(7));
                for state in [State::New, State::Established] {
                    let from_pod = Packet { state, ..from_pod };
                    assert_eq!(!passes(&ruleset, &from_pod), denied, "{directions:?} {from_pod:?}");
                }
                // A router, a DHCP server or a routing peer of the node.
                let from_others = packet(Hook::Input, "fe80::7", destination, arrival(9));
                assert!(passes(&ruleset, &from_others), "{directions:?} {from_others:?}");
                let arrival = Arrival { hop_limit: 255, ..from_pod.arrival };
                let question = Packet { protocol: Protocol::Other(58), port: 135, arrival, ..from_pod };
                assert!(passes(&ruleset, &question), "{directions:?} {question:?}");
                // Advertisements of routers and redirects: a node may take them from others, but not from pods.
                for kind in [134, 137] {
                    let message = Packet { port: kind, ..question };
                    assert!(!passes(&ruleset, &message), "{directions:?} {message:?}");
                    let arrival = Arrival { in_interface: 9, ..message.arrival };
                    assert!(passes(&ruleset, &Packet { arrival, ..message }), "{directions:?} {message:?}");
                }
            }
            assert_eq!(enforcer.verify().unwrap().differences, [], "{directions:?}");
            // Another agent finds the chains as they are.
            let (mut again, commit) =
                Enforcer::start_in(Kernel::open().unwrap(), options.clone(), around.clone(), enforcer.programmed()).unwrap();
            assert_eq!(commit.elements, 0, "{directions:?}");
            assert_eq!(again.verify().unwrap().differences, [], "{directions:?}");
            enforcer = again;
        }
        enforcer.remove().unwrap();
    }
}
