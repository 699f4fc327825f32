//! Rules that use the node's links: forged sources, tunnel packets of pods, and the table for bridges.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    process::Command,
    sync::{Arc, LazyLock},
};

use ipnet::IpNet;
use libtest_mimic::Trial;
use palisade_nft::{
    Difference, Enforcer, EnforcerOptions, Hook, Kernel, NodeLinks, PortOwner, SourceCheck, drift,
    reader::{Arrival, Packet, Ruleset, State},
    text, verify,
};
use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, Protocol, Traffic, Verdict};
use palisade_testkit::seeds;

use crate::{
    agreement::shape,
    random::{Random, World},
    sandbox::{trial, trial_with_nft},
    text::{can_load, load},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("changes_of_node_links_are_programmed_incrementally", random_changes),
        trial("a_pod_and_its_interface_are_one_transaction", together),
        trial_with_nft("the_nft_program_loads_the_text_with_node_links", loads),
        trial("forged_sources_are_dropped_without_a_reverse_route", forged),
        trial("a_route_that_is_known_is_not_looked_up", known_routes),
        trial("a_source_that_is_no_address_needs_a_route_back", unspecified),
        trial("strictly_routed_pods_have_no_address_but_their_own", strictly),
        trial("sources_that_are_allowed_need_no_route_back_unless_they_are_a_pods", allowed),
        trial("routed_pods_may_use_the_sources_that_they_are_allowed", allowed_to_one),
        trial("tunnel_packets_of_pods_to_nodes_are_dropped", tunnels),
        trial("packets_between_bridge_ports_to_unknown_addresses_are_dropped", strangers),
        trial("the_bridge_table_exists_while_pods_have_bridge_ports", comes_and_goes),
        trial_with_nft("edits_of_the_bridge_table_are_reported_and_repaired", others),
        trial("probing_features_changes_nothing", tried),
    ]
}

/// All kinds of source checks.
pub(crate) const CHECKS: [SourceCheck; 3] = [SourceCheck::Off, SourceCheck::Enforce, SourceCheck::Strict];

/// Options with each kind of source check, with and without sources that are allowed.
fn options(seed: u64) -> EnforcerOptions {
    let networks = ["10.244.9.0/24", "172.16.0.0/12", "fd00:244::/64", "2001:db8::7/128", "2001:db8::/35"];
    let networks = networks.map(|text| text.parse().unwrap());
    let allowed_sources = networks.into_iter().filter(|_| seed.is_multiple_of(2)).collect();
    EnforcerOptions { source_check: CHECKS[seed as usize % 3], allowed_sources, ..EnforcerOptions::default() }
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn some<T: Ord + Clone>(random: &mut Random, of: &[T]) -> BTreeSet<T> {
    of.iter().filter(|_| random.chance(50)).cloned().collect()
}

static OTHER_PODS: LazyLock<[Arc<BTreeSet<IpAddr>>; 3]> = LazyLock::new(|| {
    let of = |texts: &[&str]| Arc::new(texts.iter().map(|text| address(text)).collect());
    [of(&[]), of(&["10.244.0.3", "10.244.7.1", "fd00::2"]), of(&["10.244.7.1", "10.244.0.5", "127.0.0.1", "fd00:244::9"])]
});

fn node_links(random: &mut Random) -> NodeLinks {
    if random.chance(20) {
        return NodeLinks::default();
    }
    let pod_interfaces = some(random, &[1, 70, 71, 72]);
    let pod_ports = if random.chance(30) { Default::default() } else { some(random, &[1, 80, 81, 82]) };
    let bound: BTreeSet<u32> = pod_ports.iter().copied().filter(|_| random.chance(60)).collect();
    let owners = bound.iter().map(|port| {
        let addresses = some(random, &["10.244.0.3", "10.244.9.9", "fd00::2", "fd00:244::9"].map(address));
        let hardware = random.chance(70).then_some([2, 0, 0, 0, 0, *port as u8]);
        (*port, PortOwner { addresses, hardware })
    });
    let owners = owners.collect();
    let of_interface = |index: &u32| (*index, some(random, &["10.244.0.3", "fd00::2"].map(address)));
    let interface_owners = pod_interfaces.iter().filter(|index| **index > 1).map(of_interface).collect();
    // Of interfaces and ports; nested, and with addresses of pods.
    let networks = ["10.244.9.0/24", "10.244.9.8/29", "10.244.0.3/32", "fd00:244::/64", "fd00:244::9/128", "fd00::/16"];
    let networks = networks.map(|text| text.parse::<IpNet>().unwrap());
    let allowed_sources = some(random, &[70, 71, 80, 81]).into_iter().map(|index| (index, some(random, &networks)));
    let allowed_sources = allowed_sources.collect();
    let senders = some(random, &[(70, 1), (71, 2), (72, 1)]).into_iter().map(|(interface, n)| {
        let addresses = some(random, &["10.244.0.3", "10.244.0.1", "fd00::2", "fd00::3"].map(address));
        ((interface, [2, 0, 0, 0, 1, n]), addresses)
    });
    let senders = senders.collect();
    let routed = some(random, &["10.244.0.3", "10.244.9.9", "fd00::2", "fd00:244::9"].map(address));
    let pod_routes = routed.into_iter().map(|address| (address, *random.pick(&[70, 71]))).collect();
    NodeLinks {
        senders,
        pod_routes,
        allowed_sources,
        interface_owners,
        owners,
        unchecked_ports: some(random, &[80, 81]),
        bridge_hardware: some(random, &[[2, 1, 1, 1, 1, 1]]),
        host_addresses: some(random, &["127.0.0.1", "10.244.0.3", "fe80::1"].map(address)),
        // Some are those of a moment ago, and some are local, or of nodes.
        other_pods: Arc::clone(random.pick(&*OTHER_PODS)),
        uplinks: some(random, &[1, 2, 60, 61, 70, 71]),
        pod_bridges: pod_interfaces.iter().copied().filter(|_| random.chance(50)).collect(),
        pod_interfaces,
        pod_ports,
        tunnel_ports: if random.chance(50) { Default::default() } else { some(random, &[4789, 6081, 8472]) },
        tunnel_protocols: if random.chance(50) { Default::default() } else { some(random, &[4, 41, 47]) },
        // Some of them are addresses of nodes too.
        tunnel_peers: some(
            random,
            &["10.244.0.3", "10.244.0.5", "192.0.2.7", "fd00::2", "2001:db8::7"].map(address),
        ),
    }
}

/// A local pod on a bridge that appears with its port, and one whose node appears too.
fn together() {
    let pod = |n: u8| IpAddr::from([10, 244, 0, n]);
    let links = |ports: std::ops::Range<u8>| NodeLinks {
        pod_interfaces: [7].into(),
        pod_bridges: [7].into(),
        pod_ports: ports.clone().map(u32::from).collect(),
        owners: ports
            .map(|n| (u32::from(n), PortOwner { addresses: [pod(n)].into(), hardware: Some([2, 0, 0, 0, 0, n]) }))
            .collect(),
        ..NodeLinks::default()
    };
    let plan = |pods: std::ops::Range<u8>| NodePlan { local: pods.map(pod).collect(), ..NodePlan::default() };
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    // The first creates the table of the bridge family, the last deletes it.
    for pods in [10..11, 10..12, 11..12, 0..0] {
        let delta = enforcer.programmed().delta_to(&plan(pods.clone()));
        let commit = enforcer.commit_with_links(&delta, &links(pods.clone())).unwrap();
        assert_eq!(commit.transactions, 1, "{pods:?}: {commit:?}");
        assert_eq!(enforcer.verify().unwrap().differences, [], "{pods:?}");
        assert_eq!(bridge(&mut enforcer).is_some(), !pods.is_empty(), "{pods:?}");
    }
    // An address that is a node's no longer, and the end of a tunnel from now on.
    let tunnel = |peers: &[IpAddr]| NodeLinks {
        tunnel_ports: [8472].into(),
        tunnel_peers: peers.iter().copied().collect(),
        ..NodeLinks::default()
    };
    let nodes = |nodes: &[IpAddr]| NodePlan { nodes: nodes.iter().copied().collect(), ..NodePlan::default() };
    for (next, of) in [(nodes(&[pod(9)]), tunnel(&[])), (nodes(&[]), tunnel(&[pod(9)]))] {
        let delta = enforcer.programmed().delta_to(&next);
        enforcer.commit_with_links(&delta, &of).unwrap();
        assert_eq!(enforcer.verify().unwrap().differences, []);
    }
    enforcer.remove().unwrap();
}

fn bridge(enforcer: &mut Enforcer) -> Option<Ruleset> {
    Ruleset::read_bridge(enforcer.kernel()).unwrap()
}

fn random_changes() {
    for seed in seeds(0..25) {
        let random = &mut Random::new(seed);
        let mut world = World::new(random, 4);
        let first = node_links(random);
        let options = options(seed);
        let kernel = Kernel::open().unwrap();
        let (mut enforcer, _) = Enforcer::start_in(kernel, options.clone(), first, &world.plan()).unwrap();
        for step in 0..6 {
            let what = format!("seed {seed}, step {step}");
            if random.chance(60) {
                let next = node_links(random);
                let commit = enforcer.set_node_links(&next).unwrap();
                assert!(commit.transactions <= 1, "{what}: {commit:?}");
                assert_eq!(enforcer.set_node_links(&next).unwrap().transactions, 0, "{what}");
                assert_eq!(*enforcer.node_links(), next);
            }
            world.step(random);
            let delta = enforcer.programmed().delta_to(&world.plan());
            if random.chance(50) {
                let next = node_links(random);
                enforcer.commit_with_links(&delta, &next).unwrap();
                assert_eq!((enforcer.node_links(), enforcer.programmed()), (&next, &world.plan()), "{what}");
            } else {
                enforcer.commit(&delta).unwrap();
            }
            assert_eq!(enforcer.verify().unwrap().differences, [], "{what}");
            assert_eq!(enforcer.repair().unwrap().elements, 0, "{what}: nothing to repair");
        }
        // After all these changes, the kernel is as after a start with the last of them.
        let (inet, ports) = (shape(&mut enforcer), bridge(&mut enforcer));
        let (last, plan) = (enforcer.node_links().clone(), world.plan());
        assert_eq!(ports.is_some(), !last.pod_ports.is_empty());
        drop(enforcer);
        let kernel = Kernel::open().unwrap();
        let (mut again, commit) = Enforcer::start_in(kernel, options.clone(), last.clone(), &plan).unwrap();
        assert_eq!(commit.elements, 0, "seed {seed}: a restarted agent changes no elements");
        again.remove().unwrap();
        assert_eq!(bridge(&mut again), None, "seed {seed}: the table remains");
        let kernel = Kernel::open().unwrap();
        let (mut fresh, _) = Enforcer::start_in(kernel, options, last, &plan).unwrap();
        assert_eq!((shape(&mut fresh), bridge(&mut fresh)), (inet, ports), "seed {seed}");
        fresh.remove().unwrap();
    }
}

fn loads() {
    for seed in seeds(0..12) {
        let random = &mut Random::new(100 + seed);
        let options = options(seed);
        let (world, around, text) = loop {
            let (world, around) = (World::new(random, 4), node_links(random));
            let text = text(&world.plan(), &options, &around).unwrap();
            if can_load(&text) {
                break (world, around, text);
            }
        };
        load(&text);
        let mut kernel = Kernel::open().unwrap();
        let read =
            |kernel: &mut Kernel| (Ruleset::read(kernel).unwrap(), Ruleset::read_bridge(kernel).unwrap());
        let (loaded, listed) = (read(&mut kernel), crate::listing::list());
        assert_eq!(verify(&mut kernel, &options, &around, &world.plan()).unwrap().differences, [], "{seed}");
        palisade_nft::remove(&mut kernel).unwrap();
        let (mut enforcer, _) = Enforcer::start_in(kernel, options, around, &world.plan()).unwrap();
        assert_eq!(read(enforcer.kernel()), loaded, "seed {seed}");
        let sorted = |text: &str| {
            let mut blocks: Vec<String> =
                text.split("\n\n").map(|b| b.trim_end_matches(['}', '\n']).to_owned()).collect();
            blocks.sort();
            blocks
        };
        assert_eq!(sorted(&crate::listing::list()).len(), sorted(&listed).len(), "seed {seed}");
        enforcer.remove().unwrap();
    }
}

/// Pods whose ingress is decided by a table that allows everything.
pub(crate) fn plan(local: &[&str], isolated: &[&str]) -> NodePlan {
    let mut plan = NodePlan { local: local.iter().copied().map(address).collect(), ..NodePlan::default() };
    plan.nodes = ["172.18.0.3", "fd12::3"].map(address).into();
    if !isolated.is_empty() {
        let (direction, rest) = (Direction::Ingress, Traffic::all());
        let table = PolicyTable { direction, exact: Default::default(), ranges: Default::default(), rest };
        plan.tables.insert(PolicyTableId([1; 16]), table);
    }
    plan.ingress = isolated.iter().map(|pod| (address(pod), PolicyTableId([1; 16]))).collect();
    plan
}

pub(crate) const LOCAL: [&str; 2] = ["10.244.0.1", "fd00:244::1"];

pub(crate) fn packet(hook: Hook, source: &str, destination: &str, arrival: Arrival) -> Packet {
    Packet { hook, arrival, ..Packet::new(address(source), address(destination), Protocol::Udp, 8472) }
}

pub(crate) fn start(options: EnforcerOptions, around: NodeLinks, plan: &NodePlan) -> (Enforcer, Ruleset) {
    let (mut enforcer, _) = Enforcer::start_in(Kernel::open().unwrap(), options, around, plan).unwrap();
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    (enforcer, ruleset)
}

pub(crate) fn passes(ruleset: &Ruleset, packet: &Packet) -> bool {
    ruleset.evaluate(packet).unwrap().verdict == Verdict::Allow
}

/// Whether a packet passes in front of connection tracking, and then at its own hook.
fn arrives(ruleset: &Ruleset, packet: &Packet) -> bool {
    passes(ruleset, &Packet { hook: Hook::Prerouting, ..*packet }) && passes(ruleset, packet)
}

fn forged() {
    let around = NodeLinks { pod_interfaces: [7].into(), ..NodeLinks::default() };
    for source_check in CHECKS {
        let options = EnforcerOptions { source_check, ..EnforcerOptions::default() };
        let (mut enforcer, ruleset) = start(options, around.clone(), &plan(&LOCAL, &LOCAL));
        for (local, other, outside) in
            [(LOCAL[0], "10.244.9.9", "192.0.2.1"), (LOCAL[1], "fd00:244::9", "2001:db8::1")]
        {
            for (interface, source, destination, is_checked) in [
                (9, local, local, true),
                (9, local, outside, true),
                (7, other, local, true),
                (7, outside, local, true),
                // Routing to the node's other networks may be asymmetric on purpose.
                (9, other, local, false),
                (9, outside, local, false),
            ] {
                for has_reverse_route in [true, false] {
                    let arrival =
                        Arrival { in_interface: interface, has_reverse_route, ..Arrival::default() };
                    let forward = packet(Hook::Forward, source, destination, arrival);
                    let expected = has_reverse_route || !is_checked || !source_check.is_on();
                    assert_eq!(arrives(&ruleset, &forward), expected, "{forward:?}");
                    let input = Packet { hook: Hook::Input, ..forward };
                    assert_eq!(arrives(&ruleset, &input), expected || interface == 9, "{input:?}");
                    // The forward hook doesn't check replies.
                    let answer = Packet { state: State::Established, ..forward };
                    assert!(passes(&ruleset, &answer), "{answer:?}");
                }
            }
        }
        let arrival = Arrival { in_interface: 7, has_reverse_route: false, ..Arrival::default() };
        assert!(passes(&ruleset, &packet(Hook::Input, "fe80::7", "fe80::1", arrival)));
        enforcer.remove().unwrap();
    }
}

/// On a routed node, sources that are allowed need no route back, unless they are a pod's.
fn allowed() {
    let owners = [(7, [address(LOCAL[0])].into()), (8, [address(LOCAL[1])].into())].into();
    let around = NodeLinks { pod_interfaces: [7, 8].into(), interface_owners: owners, ..NodeLinks::default() };
    let networks = ["10.99.0.0/24", "fd99::/64"].map(|network| network.parse().unwrap());
    // The pods' own addresses as networks.
    let pods = LOCAL.map(|pod| IpNet::from(address(pod)));
    for source_check in CHECKS {
        let allowed_sources = networks.into_iter().chain(pods).collect();
        let options = EnforcerOptions { source_check, allowed_sources, ..EnforcerOptions::default() };
        let (mut enforcer, ruleset) = start(options, around.clone(), &plan(&LOCAL, &LOCAL));
        for (source, is_allowed) in [
            ("10.99.0.7", true),
            ("fd99::7", true),
            ("10.98.0.7", false),
            ("fd98::7", false),
            // Another pod's on interface 7, or a pod's without a route back.
            (LOCAL[0], false),
            (LOCAL[1], false),
        ] {
            let arrival = Arrival { in_interface: 7, has_reverse_route: false, ..Arrival::default() };
            for hook in Hook::POLICY {
                let destination = if source.contains(':') { "2001:db8::9" } else { "203.0.113.9" };
                let packet = packet(hook, source, destination, arrival);
                let expected = is_allowed || !source_check.is_on();
                assert_eq!(arrives(&ruleset, &packet), expected, "{source_check:?} {packet:?}");
            }
        }
        assert_eq!(enforcer.verify().unwrap().differences, []);
        enforcer.remove().unwrap();
    }
}

/// As [`allowed`], of one pod, while that changes.
fn allowed_to_one() {
    let owners = [(7, [address(LOCAL[0])].into()), (8, [address(LOCAL[1])].into())].into();
    let around = NodeLinks { pod_interfaces: [7, 8].into(), interface_owners: owners, ..NodeLinks::default() };
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpNet>>();
    for source_check in CHECKS {
        let options = EnforcerOptions { source_check, ..EnforcerOptions::default() };
        let (mut enforcer, _) = start(options, around.clone(), &plan(&LOCAL, &LOCAL));
        // Larger, smaller, overlapping, and none again.
        for networks in [
            parse(&["10.99.0.7/32", "fd99::/64"]),
            parse(&["10.99.0.0/24", "fd99::7/128"]),
            parse(&["10.99.0.0/25", "10.99.0.7/32", "fd98::/15", "10.244.0.1/32", "fd00:244::1/128"]),
            parse(&[]),
        ] {
            let links = NodeLinks { allowed_sources: [(7, networks.clone())].into(), ..around.clone() };
            let before = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
            let commit = enforcer.set_node_links(&links).unwrap();
            assert_eq!(commit.transactions, 1, "{networks:?}");
            let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
            assert_eq!(before.chains, ruleset.chains, "no rule depends on it");
            for interface in [7, 8] {
                for source in ["10.99.0.7", "10.99.0.200", "fd99::7", "fd99::8", "fd98::1", LOCAL[0], LOCAL[1]] {
                    let is_allowed = interface == 7
                        && !LOCAL.contains(&source)
                        && networks.iter().any(|network| network.contains(&address(source)));
                    let expected = is_allowed || !source_check.is_on();
                    let arrival =
                        Arrival { in_interface: interface, has_reverse_route: false, ..Arrival::default() };
                    for hook in Hook::POLICY {
                        let destination = if source.contains(':') { "2001:db8::9" } else { "203.0.113.9" };
                        let packet = packet(hook, source, destination, arrival);
                        assert_eq!(arrives(&ruleset, &packet), expected, "{source_check:?} {packet:?}");
                    }
                }
            }
            assert_eq!(enforcer.verify().unwrap().differences, []);
        }
        enforcer.remove().unwrap();
    }
}

/// On a routed node, an address that is reachable through a pod's interface may still be nobody's.
fn strictly() {
    let owners = [(7, LOCAL.map(address).into())].into();
    let around = NodeLinks { pod_interfaces: [7, 8].into(), interface_owners: owners, ..NodeLinks::default() };
    for source_check in CHECKS {
        for reverse_route in [true, false] {
            let options = EnforcerOptions { source_check, reverse_route, ..EnforcerOptions::default() };
            let (mut enforcer, ruleset) = start(options, around.clone(), &plan(&LOCAL, &LOCAL));
            for (interface, source, is_own) in [
                (7, LOCAL[0], true),
                (7, LOCAL[1], true),
                (7, "fe80::7", true),
                (7, "10.99.0.1", false),
                (7, "fd99::1", false),
                // An interface whose pod is not known.
                (8, "10.99.0.1", true),
            ] {
                let arrival = Arrival { in_interface: interface, ..Arrival::default() };
                for hook in Hook::POLICY {
                    let destination = if source.contains(':') { "2001:db8::9" } else { "203.0.113.9" };
                    let packet = packet(hook, source, destination, arrival);
                    let expected = is_own || source_check != SourceCheck::Strict;
                    let link_scoped = packet.is_link_scoped();
                    assert_eq!(arrives(&ruleset, &packet), expected && !link_scoped, "{source_check:?} {packet:?}");
                }
            }
            assert_eq!(enforcer.verify().unwrap().differences, []);
            enforcer.remove().unwrap();
        }
    }
}

/// A source to which a route is known to lead through the packet's interface is not looked up. Where the check is strict, it must be the
/// pod's too.
fn known_routes() {
    let owners = [(7, [address(LOCAL[0])].into())].into();
    let around = NodeLinks { pod_interfaces: [7, 8].into(), interface_owners: owners, ..NodeLinks::default() };
    let routes = |interfaces: [u32; 2]| LOCAL.map(address).into_iter().zip(interfaces).collect();
    for source_check in CHECKS {
        let options = EnforcerOptions { source_check, ..EnforcerOptions::default() };
        let first = NodeLinks { pod_routes: routes([7, 7]), ..around.clone() };
        let (mut enforcer, _) = start(options, first, &plan(&LOCAL, &LOCAL));
        for interfaces in [[7, 7], [8, 7], [7, 8]] {
            let links = NodeLinks { pod_routes: routes(interfaces), ..around.clone() };
            enforcer.set_node_links(&links).unwrap();
            let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
            for (source, interface) in LOCAL.into_iter().flat_map(|pod| [(pod, 7), (pod, 8)]) {
                let leads_back = links.pod_routes[&address(source)] == interface;
                let is_own = interface == 8 || source == LOCAL[0];
                for state in [State::New, State::Established] {
                    let arrival =
                        Arrival { in_interface: interface, has_reverse_route: false, ..Arrival::default() };
                    let destination = if source.contains(':') { "2001:db8::9" } else { "203.0.113.9" };
                    let packet = packet(Hook::Forward, source, destination, arrival);
                    let expected = match source_check {
                        SourceCheck::Off => true,
                        SourceCheck::Enforce => leads_back,
                        SourceCheck::Strict => leads_back && is_own,
                    };
                    let packet = Packet { state, ..packet };
                    assert_eq!(arrives(&ruleset, &packet), expected, "{source_check:?} {packet:?}");
                }
            }
            assert_eq!(enforcer.verify().unwrap().differences, []);
        }
        enforcer.remove().unwrap();
    }
}

/// Packets from 0.0.0.0 and :: pass in front of connection tracking, as DHCP and address detection need it, and need a route back at the forward
/// hook.
fn unspecified() {
    let around = NodeLinks { pod_interfaces: [7].into(), ..NodeLinks::default() };
    for source_check in CHECKS {
        let options = EnforcerOptions { source_check, ..EnforcerOptions::default() };
        let (mut enforcer, ruleset) = start(options, around.clone(), &plan(&LOCAL, &[]));
        for (source, destination) in [("0.0.0.0", LOCAL[0]), ("::", LOCAL[1])] {
            for hook in Hook::POLICY {
                let arrival = Arrival { in_interface: 7, has_reverse_route: false, ..Arrival::default() };
                let packet = packet(hook, source, destination, arrival);
                assert!(passes(&ruleset, &Packet { hook: Hook::Prerouting, ..packet }), "{packet:?}");
                assert_eq!(passes(&ruleset, &packet), !source_check.is_on(), "{source_check:?} {packet:?}");
            }
        }
        enforcer.remove().unwrap();
    }
}

fn tunnels() {
    let open = NodeLinks { pod_interfaces: [7].into(), ..NodeLinks::default() };
    let around = NodeLinks {
        tunnel_ports: [8472].into(),
        tunnel_protocols: [4, 47].into(),
        tunnel_peers: ["172.19.0.1"].map(address).into(),
        ..open.clone()
    };
    let (mut enforcer, without) = start(EnforcerOptions::default(), open, &plan(&LOCAL, &[]));
    enforcer.set_node_links(&around).unwrap();
    let with = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
    for (source, interface, is_pods) in
        [(LOCAL[0], 0, true), ("10.9.9.9", 7, true), ("10.9.9.9", 9, false), ("172.18.0.3", 9, false)]
    {
        let arrival = Arrival { in_interface: interface, ..Arrival::default() };
        for (destination, is_end) in [("172.18.0.3", true), ("172.19.0.1", true), ("192.0.2.1", false)] {
            for (protocol, port, is_tunnels) in [
                (Protocol::Udp, 8472, true),
                (Protocol::Udp, 8473, false),
                (Protocol::Tcp, 8472, false),
                (Protocol::Other(4), 0, true),
                (Protocol::Other(47), 0, true),
                (Protocol::Other(41), 0, false),
            ] {
                let forward =
                    Packet { protocol, port, ..packet(Hook::Forward, source, destination, arrival) };
                let input = Packet { hook: Hook::Input, ..forward };
                assert_eq!(passes(&with, &forward), !(is_pods && is_end && is_tunnels), "{forward:?}");
                assert_eq!(passes(&with, &input), !(is_pods && is_tunnels), "{input:?}");
                assert!(passes(&without, &forward) && passes(&without, &input), "no tunnels: {forward:?}");
            }
        }
    }
    let arrival = Arrival { in_interface: 7, ..Arrival::default() };
    assert!(!passes(&with, &packet(Hook::Forward, LOCAL[1], "fd12::3", arrival)));
    assert_eq!(enforcer.verify().unwrap().differences, []);
    // A node without tunnels has no endpoints either.
    assert!(!with.sets["tunnel_ends4"].elements.is_empty());
    let bare = NodeLinks { tunnel_ports: [].into(), tunnel_protocols: [].into(), ..around };
    enforcer.set_node_links(&bare).unwrap();
    assert!(shape(&mut enforcer).sets["tunnel_ends4"].elements.is_empty());
    enforcer.remove().unwrap();
}

fn strangers() {
    let around = NodeLinks {
        pod_interfaces: [6, 7].into(),
        pod_bridges: [7].into(),
        pod_ports: [70].into(),
        ..NodeLinks::default()
    };
    for isolated in [&[][..], &LOCAL[..]] {
        let (mut enforcer, ruleset) =
            start(EnforcerOptions::default(), around.clone(), &plan(&LOCAL, isolated));
        for (interface, out_interface, is_bridged) in
            [(7, 7, true), (7, 1, false), (1, 7, false), (6, 6, false)]
        {
            let arrival = Arrival { in_interface: interface, out_interface, ..Arrival::default() };
            for (source, destination, is_local) in [
                ("10.244.0.2", LOCAL[0], true),
                ("fd00:244::2", LOCAL[1], true),
                ("10.244.0.2", "203.0.113.9", false),
                ("10.244.0.2", "169.254.7.7", false),
                ("fd00:244::2", "::ffff:10.244.0.1", false),
                ("fd00:244::2", "2002:af4:1::1", false),
            ] {
                let packet = packet(Hook::Forward, source, destination, arrival);
                let expected = isolated.is_empty() || !is_bridged || is_local;
                assert_eq!(passes(&ruleset, &packet), expected, "{packet:?}");
            }
        }
        enforcer.remove().unwrap();
    }
}

fn comes_and_goes() {
    let ports = |of: &[u32]| NodeLinks { pod_ports: of.iter().copied().collect(), ..NodeLinks::default() };
    let (mut enforcer, _) = start(EnforcerOptions::default(), ports(&[]), &plan(&LOCAL, &[]));
    assert_eq!(bridge(&mut enforcer), None, "no bridge leads to pods");
    assert_eq!(enforcer.set_node_links(&ports(&[70])).unwrap().transactions, 1);
    let open = bridge(&mut enforcer).unwrap();
    assert_eq!(
        (open.chains["prerouting"].base, open.chains["forward"].base),
        (Some((0, -200, 1)), Some((2, -200, 1)))
    );
    assert!(open.chains["from_ports"].rules.is_empty(), "no pod is isolated");
    // The second port adds itself to the ports and the checked ports, and its pair.
    assert_eq!(enforcer.set_node_links(&ports(&[70, 71])).unwrap().elements, 3);
    let isolating = plan(&LOCAL, &LOCAL[..1]);
    let delta = enforcer.programmed().delta_to(&isolating);
    let commit = enforcer.commit(&delta).unwrap();
    assert_eq!(commit.transactions, 2, "new chains, then both tables at once: {commit:?}");
    assert!(!bridge(&mut enforcer).unwrap().chains["from_ports"].rules.is_empty());
    let delta = enforcer.programmed().delta_to(&plan(&LOCAL[..1], &[]));
    enforcer.commit(&delta).unwrap();
    let open = bridge(&mut enforcer).unwrap();
    assert!(open.chains["to_ports"].rules.is_empty());
    assert_eq!((open.sets["themselves4"].elements.len(), open.sets["themselves6"].elements.len()), (1, 0));
    assert_eq!(enforcer.set_node_links(&ports(&[])).unwrap().transactions, 1);
    assert_eq!(bridge(&mut enforcer), None);
    assert_eq!(enforcer.verify().unwrap().differences, []);
    enforcer.remove().unwrap();
}

fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status();
    assert!(
        status.expect("the nft program (package nftables) acts as another program").success(),
        "{command}"
    );
}

fn others() {
    let around = NodeLinks { pod_ports: [70].into(), ..NodeLinks::default() };
    let (mut enforcer, _) = start(EnforcerOptions::default(), around, &plan(&LOCAL, &LOCAL));
    let whole = bridge(&mut enforcer);
    let mut watcher = drift::Watcher::open(enforcer.kernel()).unwrap();
    for command in [
        "flush chain bridge palisade from_ports",
        "insert rule bridge palisade to_ports accept",
        "delete element bridge palisade pod_ports { 70 }",
        "add element bridge palisade own_ports { 70 . 71 }",
        "flush set bridge palisade themselves6",
        "add table bridge palisade { flags dormant; }",
        "add chain bridge palisade foreign",
        "delete table bridge palisade",
        "add table bridge palisade { chain forward { policy drop; }; }",
    ] {
        nft(command);
        let reported = watcher.wait(std::time::Duration::from_secs(10)).unwrap();
        assert!(reported && watcher.read().unwrap().is_some(), "{command}: nothing is reported");
        let differences = enforcer.verify().unwrap().differences;
        assert!(!differences.is_empty(), "{command}");
        if command.starts_with("delete table") {
            assert_eq!(differences, [Difference::NoTable { family: "bridge" }]);
        }
        enforcer.repair().unwrap();
        assert_eq!(bridge(&mut enforcer), whole, "{command}");
        assert_eq!(enforcer.verify().unwrap().differences, [], "{command}");
        while watcher.read().unwrap().is_some() {}
    }
    enforcer.remove().unwrap();
}

fn tried() {
    let mut kernel = Kernel::open().unwrap();
    let before = kernel.kernel_generation().unwrap();
    let around = NodeLinks { pod_ports: [70].into(), ..NodeLinks::default() };
    let (mut enforcer, commit) =
        Enforcer::start_in(kernel, EnforcerOptions::default(), around, &plan(&LOCAL, &LOCAL)).unwrap();
    assert_eq!(enforcer.missing_features().count(), 0, "this kernel has all features that the tests need");
    assert_eq!(commit.transactions, 1);
    let after = enforcer.kernel().kernel_generation().unwrap();
    assert_eq!(after, before + 1, "no other transaction took effect");
    enforcer.remove().unwrap();
}
