//! Link-scoped traffic (broadcast, multicast, link-local addresses) is denied while any pod is isolated.

use std::net::IpAddr;

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, EnforcerOptions, Hook, Kernel, LOG_INGRESS,
    reader::{Arrival, Packet, Ruleset, State},
};
use palisade_policy::{Direction, NodePlan, PolicyTable, PolicyTableId, Protocol, Traffic, Verdict};

use crate::{agreement::shape, sandbox::{trial, trial_with_nft}};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("link_scoped_traffic_is_denied_while_pods_are_isolated", shared),
        trial("only_the_first_and_the_last_isolated_pod_change_the_link_chain", cost),
        trial_with_nft("an_older_table_without_the_link_chain_is_completed", completed),
        trial_with_nft("a_foreign_table_is_replaced_with_the_link_chain_closed", foreign),
    ]
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Pods, each isolated in one direction, whose tables allow everything, so that only the link chain denies.
fn plan(ingress: &[&str], egress: &[&str]) -> NodePlan {
    let mut plan = NodePlan::default();
    for (n, direction, pods) in [(1, Direction::Ingress, ingress), (2, Direction::Egress, egress)] {
        if pods.is_empty() {
            continue;
        }
        let table = PolicyTable {
            direction,
            exact: Default::default(),
            ranges: Default::default(),
            rest: Traffic::all(),
        };
        plan.tables.insert(PolicyTableId([n; 16]), table);
        let map = if direction == Direction::Ingress { &mut plan.ingress } else { &mut plan.egress };
        map.extend(pods.iter().map(|pod| (address(pod), PolicyTableId([n; 16]))));
    }
    plan
}

fn packet(source: &str, destination: &str) -> Packet {
    Packet::new(address(source), address(destination), Protocol::Udp, 53)
}

/// Link-scoped destinations.
const SHARED: [(&str, &str); 9] = [
    ("fe80::1", "fe80::2"),
    ("fd00::1", "fe80::2"),
    ("fe80::1", "fd00::2"),
    ("febf:ffff::1", "febf:ffff::2"),
    ("fe80::1", "ff02::1"),
    ("fd00::1", "ff05::1:3"),
    ("10.0.0.1", "224.0.0.1"),
    ("10.0.0.1", "239.255.255.255"),
    ("0.0.0.0", "255.255.255.255"),
];

/// Adjacent addresses that are not link-scoped.
const OTHERS: [(&str, &str); 5] = [
    ("fec0::1", "fec0::2"),
    ("fe7f:ffff::1", "fe7f:ffff::2"),
    ("169.254.0.1", "169.254.0.2"),
    ("223.255.255.255", "240.0.0.1"),
    ("10.0.0.1", "255.255.255.254"),
];

fn shared() {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let empty = shape(&mut enforcer);
    for next in [
        NodePlan::default(),
        plan(&["10.0.0.9"], &[]),
        plan(&[], &["fd00::9"]),
        plan(&["10.0.0.9"], &["10.0.0.9"]),
        NodePlan::default(),
    ] {
        let delta = enforcer.programmed().delta_to(&next);
        enforcer.commit(&delta).unwrap();
        let ruleset = Ruleset::read(enforcer.kernel()).unwrap().unwrap();
        let denied = next != NodePlan::default();
        for (source, destination) in SHARED {
            let packet = packet(source, destination);
            assert!(packet.is_link_scoped(), "{packet:?}");
            let judgement = ruleset.evaluate(&packet).unwrap();
            assert_eq!(judgement.verdict == Verdict::Deny, denied, "{packet:?}");
            assert_eq!(judgement.logged.as_deref(), denied.then_some(LOG_INGRESS), "{packet:?}");
            // At the input hook: link-scoped packets to the node concern no pod.
            let to_node = Packet { hook: Hook::Input, ..packet };
            assert_eq!(ruleset.evaluate(&to_node).unwrap().verdict, Verdict::Allow, "{to_node:?}");
            // A connection between link-local addresses, and never its errors or companions, goes on past isolation.
            let replied = Packet { state: State::Established, ..packet };
            let to_link_local = matches!(packet.destination, IpAddr::V6(a) if a.is_unicast_link_local());
            let cut = ruleset.evaluate(&replied).unwrap().verdict == Verdict::Deny;
            assert_eq!(cut, denied && to_link_local, "{replied:?}");
            if packet.destination.is_ipv6() {
                for kind in 0..=255 {
                    for hop_limit in [0, 1, 2, 64, 254, 255] {
                        let arrival = Arrival { hop_limit, ..Arrival::default() };
                        let icmp = Packet { protocol: Protocol::Other(58), port: kind, arrival, ..packet };
                        let from_link = source.starts_with("fe80:") || source.starts_with("febf:");
                        let valid = matches!((kind, hop_limit), (133..=137, 255))
                            || matches!((kind, hop_limit), (130..=132 | 143, 1)) && from_link;
                        assert_eq!(icmp.is_discovery(), valid, "{icmp:?}");
                        let passes = ruleset.evaluate(&icmp).unwrap().verdict == Verdict::Allow;
                        assert_eq!(passes, !denied || valid, "{icmp:?}");
                    }
                }
            }
        }
        for (source, destination) in OTHERS {
            let packet = packet(source, destination);
            assert!(!packet.is_link_scoped(), "{packet:?}");
            assert_eq!(ruleset.evaluate(&packet).unwrap().verdict, Verdict::Allow, "{packet:?}");
        }
        assert_eq!(enforcer.verify().unwrap().differences, []);
    }
    assert_eq!(shape(&mut enforcer), empty);
    enforcer.remove().unwrap();
}

fn cost() {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let mut messages = |next: &NodePlan| {
        let delta = enforcer.programmed().delta_to(next);
        let commit = enforcer.commit(&delta).unwrap();
        assert!(commit.transactions <= 2, "{commit:?}");
        commit.messages
    };
    let [one, two] = [plan(&["10.0.0.8"], &[]), plan(&["10.0.0.8", "10.0.0.9"], &[])];
    let first = messages(&one);
    // The dispatch map, the pairs, and the old and new transaction number.
    assert_eq!(messages(&two), 4);
    assert_eq!(messages(&one), 4);
    let last = messages(&NodePlan::default());
    assert!(first > 4 && last > 4, "{first} and {last}");
}

/// A table of an agent without the link chain: the other rules, and isolated pods.
fn completed() {
    let plan = plan(&["10.0.0.9"], &[]);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let whole = shape(&mut enforcer);
    drop(enforcer);
    for chain in ["forward", "forward4", "forward6"] {
        nft(&format!("flush chain inet palisade {chain}"));
    }
    nft("delete chain inet palisade link");
    let (mut enforcer, commit) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    assert_eq!((commit.transactions, commit.elements), (1, 0), "{commit:?}");
    assert_eq!(shape(&mut enforcer), whole);
    // A chain that another program flushed is filled again.
    nft("flush chain inet palisade link");
    assert_eq!(enforcer.verify().unwrap().differences[0].kind(), "rule");
    enforcer.repair().unwrap();
    assert_eq!(shape(&mut enforcer), whole);
    enforcer.remove().unwrap();
}

fn foreign() {
    for options in
        [EnforcerOptions::default(), EnforcerOptions { log_group: None, ..EnforcerOptions::default() }]
    {
        nft("add table inet palisade { chain forward { type filter hook forward priority 0; }; }");
        let plan = plan(&["10.0.0.9"], &[]);
        let (mut enforcer, _) =
            Enforcer::start_with(Kernel::open().unwrap(), options.clone(), &plan).unwrap();
        let replaced = shape(&mut enforcer);
        assert_eq!(enforcer.verify().unwrap().differences, []);
        enforcer.remove().unwrap();
        let (mut fresh, _) = Enforcer::start_with(Kernel::open().unwrap(), options, &plan).unwrap();
        assert_eq!(shape(&mut fresh), replaced);
        fresh.remove().unwrap();
    }
}

fn nft(command: &str) {
    let status = std::process::Command::new("nft").arg(command).status();
    assert!(
        status.expect("the nft program (package nftables) acts as another program").success(),
        "{command}"
    );
}
