//! The check of senders on bridges: what pods may send, by port.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, EnforcerOptions, Hook, Kernel, Mac, NodeLinks, PortOwner, SourceCheck,
    reader::{Arrival, Packet, Ruleset},
};
use palisade_policy::{NodePlan, Protocol, Verdict};

use crate::{node_links::CHECKS, sandbox::trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("frames_are_dropped_by_port_and_source", sources),
        trial("advertisements_are_dropped_by_port_and_target", advertisements),
        trial("frames_are_dropped_by_port_and_hardware_address", hardware),
        trial("sources_that_are_allowed_pass_unless_they_are_anothers", allowed),
        trial("sources_that_one_pod_may_use_pass_by_its_port_only", allowed_to_one),
        trial("a_pod_on_a_bridge_changes_its_own_elements_only", cost),
        trial("without_the_source_check_the_bridge_table_has_nothing_of_it", off),
    ]
}

/// The ports of two pods, one whose pod is not known, one that is not checked, and one of another host.
const POD: u32 = 70;
const OTHER: u32 = 71;
const UNBOUND: u32 = 72;
const UNCHECKED: u32 = 73;
const UPLINK: u32 = 74;

const POD_MAC: Mac = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: Mac = [2, 0, 0, 0, 0, 2];
const BRIDGE_MAC: Mac = [2, 0, 0, 0, 0, 3];
const NOBODYS_MAC: Mac = [2, 0, 0, 0, 0, 9];

const OWN: [&str; 2] = ["10.244.0.1", "fd00:244::1"];
const OTHERS: [&str; 2] = ["10.244.0.2", "fd00:244::2"];
/// Of a node, and of this node's interfaces.
const NODES: [&str; 6] = ["172.18.0.3", "fd12::3", "10.244.0.254", "fe80::1", "127.0.0.1", "::1"];
const NOBODYS: [&str; 3] = ["10.244.0.9", "fd00:244::9", "203.0.113.9"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owner(addresses: &[&str], hardware: Mac) -> PortOwner {
    let addresses = addresses.iter().copied().map(address).collect();
    PortOwner { addresses, hardware: Some(hardware) }
}

fn links() -> NodeLinks {
    NodeLinks {
        pod_ports: [POD, OTHER, UNBOUND, UNCHECKED].into(),
        owners: [(POD, owner(&OWN, POD_MAC)), (OTHER, owner(&OTHERS, OTHER_MAC))].into(),
        unchecked_ports: [UNCHECKED].into(),
        bridge_hardware: [BRIDGE_MAC].into(),
        host_addresses: NODES[2..].iter().copied().map(address).collect(),
        ..NodeLinks::default()
    }
}

fn plan() -> NodePlan {
    let local = OWN.iter().chain(&OTHERS).copied().map(address).collect();
    NodePlan { local, nodes: NODES[..2].iter().copied().map(address).collect(), ..NodePlan::default() }
}

fn start(source_check: SourceCheck) -> Enforcer {
    let options = EnforcerOptions { source_check, ..EnforcerOptions::default() };
    Enforcer::start_in(Kernel::open().unwrap(), options, links(), &plan()).unwrap().0
}

fn bridge(enforcer: &mut Enforcer) -> Ruleset {
    Ruleset::read_bridge(enforcer.kernel()).unwrap().unwrap()
}

fn frame(port: u32, sender: Mac, source: IpAddr) -> Packet {
    let destination = if source.is_ipv4() { "203.0.113.1" } else { "2001:db8::1" };
    let arrival = Arrival { in_interface: port, sender, ..Arrival::default() };
    Packet {
        hook: Hook::BridgePrerouting,
        arrival,
        ..Packet::new(source, address(destination), Protocol::Udp, 53)
    }
}

fn passes(ruleset: &Ruleset, packet: &Packet) -> bool {
    ruleset.evaluate(packet).unwrap().verdict == Verdict::Allow
}

/// Whose address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Pod,
    Other,
    Node,
    Nobody,
    /// Before an address is known.
    Unspecified,
    LinkLocal,
}

fn addresses() -> Vec<(Of, IpAddr)> {
    let of = |of: Of, list: &[&str]| list.iter().map(|a| (of, address(a))).collect::<Vec<_>>();
    [
        of(Of::Pod, &OWN),
        of(Of::Other, &OTHERS),
        of(Of::Node, &NODES),
        of(Of::Nobody, &NOBODYS),
        of(Of::Unspecified, &["0.0.0.0", "::"]),
        of(Of::LinkLocal, &["fe80::70", "febf::1"]),
    ]
    .concat()
}

/// The documented rule.
fn is_dropped(check: SourceCheck, port: u32, of: Of) -> bool {
    let is_own = matches!((port, of), (POD, Of::Pod) | (OTHER, Of::Other));
    let is_checked = check.is_on() && matches!(port, POD | OTHER | UNBOUND);
    let is_taken = matches!(of, Of::Pod | Of::Other | Of::Node);
    let is_bound = matches!(port, POD | OTHER);
    is_checked
        && !is_own
        && (is_taken || check == SourceCheck::Strict && is_bound && matches!(of, Of::Nobody | Of::Unspecified))
}

fn sources() {
    for check in CHECKS {
        let mut enforcer = start(check);
        let ruleset = bridge(&mut enforcer);
        for (port, mac) in
            [(POD, POD_MAC), (OTHER, OTHER_MAC), (UNBOUND, NOBODYS_MAC), (UNCHECKED, NOBODYS_MAC), (UPLINK, NOBODYS_MAC)]
        {
            for (of, source) in addresses() {
                let packet = frame(port, mac, source);
                assert_eq!(!passes(&ruleset, &packet), is_dropped(check, port, of), "{check:?} {packet:?}");
                // A client of DHCP, and discovery before there is an address: to many.
                let dhcp = Packet { port: 67, ..packet };
                let report = Packet { protocol: Protocol::Other(58), port: 143, ..packet };
                for (one, to_many) in [(dhcp, "255.255.255.255"), (report, "ff02::16")] {
                    let (many, dropped) =
                        (Packet { destination: address(to_many), ..one }, is_dropped(check, port, of));
                    assert_eq!(!passes(&ruleset, &one), dropped, "{check:?} {one:?}");
                    if source.is_ipv4() == many.destination.is_ipv4() {
                        let dropped = dropped && of != Of::Unspecified;
                        assert_eq!(!passes(&ruleset, &many), dropped, "{check:?} {many:?}");
                    }
                }
            }
        }
        assert_eq!(enforcer.verify().unwrap().differences, []);
        enforcer.remove().unwrap();
    }
}

fn advertisements() {
    for check in CHECKS {
        let mut enforcer = start(check);
        let ruleset = bridge(&mut enforcer);
        for (port, mac) in [(POD, POD_MAC), (UNBOUND, NOBODYS_MAC), (UPLINK, NOBODYS_MAC)] {
            for (of, target) in addresses() {
                let IpAddr::V6(target) = target else { continue };
                // With a source that is the pod's own, or one that any pod may have.
                let source = address(if port == POD { OWN[1] } else { "fd00:9::9" });
                let message = |kind: u16, source: IpAddr| {
                    let packet = frame(port, mac, source);
                    let arrival = Arrival { target, ..packet.arrival };
                    Packet { protocol: Protocol::Other(58), port: kind, arrival, ..packet }
                };
                let dropped = is_dropped(check, port, of);
                let advertisement = message(136, source);
                assert_eq!(!passes(&ruleset, &advertisement), dropped, "{check:?} {advertisement:?}");
                let probe = Packet {
                    destination: address("ff02::1:ff00:1"),
                    ..message(135, Ipv6Addr::UNSPECIFIED.into())
                };
                assert_eq!(!passes(&ruleset, &probe), dropped, "{check:?} {probe:?}");
                // Anybody may ask for anybody's address.
                let question = message(135, source);
                assert!(passes(&ruleset, &question), "{check:?} {question:?}");
                for kind in [134, 137] {
                    let router = message(kind, source);
                    let is_dropped = check.is_on() && port == POD;
                    assert_eq!(!passes(&ruleset, &router), is_dropped, "{check:?} {router:?}");
                }
            }
        }
        enforcer.remove().unwrap();
    }
}

fn hardware() {
    for check in CHECKS {
        let mut enforcer = start(check);
        let ruleset = bridge(&mut enforcer);
        for (port, own) in [(POD, Some(POD_MAC)), (OTHER, Some(OTHER_MAC)), (UNBOUND, None), (UPLINK, None)] {
            for mac in [POD_MAC, OTHER_MAC, BRIDGE_MAC, NOBODYS_MAC] {
                let source = address(match port {
                    POD => OWN[0],
                    OTHER => OTHERS[0],
                    _ => NOBODYS[0],
                });
                let packet = frame(port, mac, source);
                let dropped = check.is_on()
                    && port != UPLINK
                    && own != Some(mac)
                    && (mac != NOBODYS_MAC || check == SourceCheck::Strict && own.is_some());
                assert_eq!(!passes(&ruleset, &packet), dropped, "{check:?} {packet:?}");
            }
        }
        enforcer.remove().unwrap();
    }
}

/// Networks that have addresses of pods and nodes too: these stay theirs.
fn allowed() {
    let networks = ["10.244.0.0/24", "fd00:244::/64", "203.0.113.9/32", "172.18.0.0/16"];
    let networks: BTreeSet<IpNet> = networks.map(|network| network.parse().unwrap()).into();
    for source_check in CHECKS {
        let options =
            EnforcerOptions { source_check, allowed_sources: networks.clone(), ..EnforcerOptions::default() };
        let (mut enforcer, _) =
            Enforcer::start_in(Kernel::open().unwrap(), options, links(), &plan()).unwrap();
        let ruleset = bridge(&mut enforcer);
        let more = [(Of::Nobody, address("203.0.113.10")), (Of::Nobody, address("fd00:245::9"))];
        for (of, source) in addresses().into_iter().chain(more) {
            let is_allowed = of == Of::Nobody && networks.iter().any(|network| network.contains(&source));
            let dropped = is_dropped(source_check, POD, of) && !is_allowed;
            let packet = frame(POD, POD_MAC, source);
            assert_eq!(!passes(&ruleset, &packet), dropped, "{source_check:?} {packet:?}");
            let IpAddr::V6(target) = source else { continue };
            let packet = frame(POD, POD_MAC, address(OWN[1]));
            let arrival = Arrival { target, ..packet.arrival };
            let advertisement = Packet { protocol: Protocol::Other(58), port: 136, arrival, ..packet };
            assert_eq!(!passes(&ruleset, &advertisement), dropped, "{source_check:?} {advertisement:?}");
        }
        assert_eq!(enforcer.verify().unwrap().differences, []);
        enforcer.remove().unwrap();
    }
}

/// As [`allowed`], of one pod, while that changes. Addresses of other pods and of nodes stay theirs.
fn allowed_to_one() {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpNet>>();
    for source_check in CHECKS {
        let mut enforcer = start(source_check);
        for networks in [
            parse(&["203.0.113.9/32", "fd00:244::/64"]),
            parse(&["203.0.113.0/24", "10.244.0.0/16", "172.18.0.0/16", "fd00:244::9/128"]),
            parse(&["203.0.113.0/25", "10.244.0.9/32", "fd00::/8"]),
            parse(&[]),
        ] {
            let links = NodeLinks { allowed_sources: [(POD, networks.clone())].into(), ..links() };
            let commit = enforcer.set_node_links(&links).unwrap();
            assert_eq!(commit.transactions, usize::from(source_check.is_on()), "{networks:?}");
            let ruleset = bridge(&mut enforcer);
            for (port, mac) in [(POD, POD_MAC), (OTHER, OTHER_MAC)] {
                for (of, source) in addresses() {
                    let is_in = networks.iter().any(|network| network.contains(&source));
                    let is_allowed = port == POD && of == Of::Nobody && is_in;
                    let dropped = is_dropped(source_check, port, of) && !is_allowed;
                    let packet = frame(port, mac, source);
                    assert_eq!(!passes(&ruleset, &packet), dropped, "{source_check:?} {packet:?}");
                    let IpAddr::V6(target) = source else { continue };
                    let own = if port == POD { OWN[1] } else { OTHERS[1] };
                    let packet = frame(port, mac, address(own));
                    let arrival = Arrival { target, ..packet.arrival };
                    let advertisement = Packet { protocol: Protocol::Other(58), port: 136, arrival, ..packet };
                    assert_eq!(!passes(&ruleset, &advertisement), dropped, "{source_check:?} {advertisement:?}");
                }
            }
            assert_eq!(enforcer.verify().unwrap().differences, []);
        }
        enforcer.remove().unwrap();
    }
}

/// A frame costs the same with many pods, and a pod costs elements of its own only.
fn cost() {
    let mut enforcer = start(SourceCheck::Strict);
    let mut links = links();
    for n in 0..200u32 {
        let [.., high, low] = (n + 256).to_be_bytes();
        let addresses = [IpAddr::from([10, 245, high, low])].into();
        let owner = PortOwner { addresses, hardware: Some([2, 0, 0, 1, high, low]) };
        links.pod_ports.insert(1000 + n);
        links.owners.insert(1000 + n, owner);
    }
    enforcer.set_node_links(&links).unwrap();
    let own = bridge(&mut enforcer).evaluate(&frame(POD, POD_MAC, address(OWN[0]))).unwrap();
    assert_eq!(own.verdict, Verdict::Allow);
    assert_eq!(own.lookups, 1, "{own:?}");
    let addresses = ["10.246.0.1", "fd00:246::1"].map(address).into();
    links.pod_ports.insert(5000);
    links.owners.insert(5000, PortOwner { addresses, hardware: Some([2, 0, 0, 2, 0, 0]) });
    let commit = enforcer.set_node_links(&links).unwrap();
    assert_eq!(commit.transactions, 1);
    // Two sets of ports and its pair, bound and with a hardware address, the hardware address twice, and its addresses by port, by port and
    // hardware address, and as taken: the IPv6 address also as target.
    assert_eq!(commit.elements, 3 + 2 + 2 + 6 + 2);
    assert_eq!(enforcer.verify().unwrap().differences, []);
    enforcer.remove().unwrap();
}

fn off() {
    let mut enforcer = start(SourceCheck::Off);
    let found = bridge(&mut enforcer);
    let chains: Vec<&str> = found.chains.keys().map(String::as_str).collect();
    assert_eq!(chains, ["forward", "from_ports", "prerouting", "to_ports"]);
    let sets: Vec<&str> = found.sets.keys().map(String::as_str).collect();
    assert_eq!(sets, ["own_ports", "pod_ports", "themselves4", "themselves6"]);
    enforcer.remove().unwrap();
    // An agent with another setting takes the table over.
    let mut strict = start(SourceCheck::Strict);
    let whole = bridge(&mut strict);
    drop(strict);
    let mut again = start(SourceCheck::Off);
    assert_eq!(bridge(&mut again), found);
    drop(again);
    let mut strict = start(SourceCheck::Strict);
    assert_eq!(bridge(&mut strict), whole);
    strict.remove().unwrap();
}
