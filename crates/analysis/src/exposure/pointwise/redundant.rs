//! Coverage: parts of rules that other rules match.

use std::{collections::BTreeSet, sync::Arc};

use palisade_policy::{
    Action, Direction, Labels, NAMESPACE_NAME_LABEL, NamespaceMatch, Peer, PeerEntry, PodMatch, Policy,
    PolicyKey, PortEntry, PortMatch, Protocol, Rule, Selector, Tier,
};
use palisade_testkit::{Rng, seeds};

use super::{
    super::coverage::{Coverage, RulePart},
    ADDRESSES, Point, block, choice, clusters, pick, points,
};

/// As [`points`], for the first cluster alone: its namespace `c` has one set of labels.
fn points_of_one() -> Vec<Point> {
    let mut out = points(false);
    let namespace: Labels = [(NAMESPACE_NAME_LABEL, "c"), ("env", "p")].into_iter().collect();
    let of_c = out.iter().filter(|at| at.namespace.get(NAMESPACE_NAME_LABEL) == Some("a"));
    let of_c: Vec<Point> = of_c
        .map(|at| Point { namespace: namespace.clone(), labels: at.labels.clone(), address: at.address })
        .collect();
    out.extend(of_c);
    out
}

/// Returns a rule of the ends outside and the pods that the sets tell apart.
fn rule(rng: &mut Rng) -> Rule {
    let peer = |rng: &mut Rng| match rng.usize(..4) {
        0 => Peer::Block(block(rng)),
        _ => Peer::Pods(choice(rng)),
    };
    let port = |rng: &mut Rng| {
        let protocol = *pick(rng, &[Protocol::Tcp, Protocol::Udp]);
        let first = rng.u16(1..3);
        PortMatch::Numbers { protocol, first, last: first.max(rng.u16(1..3)) }
    };
    let peers = (rng.usize(..6) > 0).then(|| {
        (0..rng.usize(1..4)).map(|_| PeerEntry { peer: peer(rng), origin: None }).collect::<Vec<_>>()
    });
    let ports = (rng.usize(..4) > 0)
        .then(|| (0..rng.usize(1..4)).map(|_| PortEntry { port: port(rng), origin: None }).collect());
    Rule { name: None, action: Action::Accept, peers, ports, origin: None }
}

/// An end: a pod, or an address outside.
enum At<'p> {
    Pod(&'p Point),
    Outside(std::net::IpAddr),
}

/// Which ends and which ports a rule matches.
fn matched(rule: &Rule, ends: &[At<'_>]) -> [Vec<bool>; 2] {
    let is_peer = |peer: &Peer, at: &At<'_>| match (peer, at) {
        (Peer::Block(block), At::Pod(Point { address, .. }) | At::Outside(address)) => {
            block.contains(*address)
        }
        (Peer::Pods(choice), At::Pod(at)) => {
            let name = at.namespace.get(NAMESPACE_NAME_LABEL).unwrap_or_default();
            choice.matches(name, Some(&at.namespace), &at.labels)
        }
        _ => false,
    };
    let is_end =
        |at: &At<'_>| rule.peers.as_ref().is_none_or(|all| all.iter().any(|entry| is_peer(&entry.peer, at)));
    let asked = [Protocol::Tcp, Protocol::Udp].map(|protocol| [1, 2, 3].map(|port| (protocol, port)));
    let is_port = |(protocol, port): &(Protocol, u16)| {
        let holds = |entry: &PortEntry| entry.port.traffic(None).contains(*protocol, *port);
        rule.ports.as_ref().is_none_or(|all| all.iter().any(holds))
    };
    [ends.iter().map(is_end).collect(), asked.concat().iter().map(is_port).collect()]
}

/// Whether a rule matches something, and other rules match all of it.
fn is_covered(rule: &Rule, by: &[&Rule], ends: &[At<'_>]) -> bool {
    let [own_ends, own_ports] = matched(rule, ends);
    let by: Vec<_> = by.iter().map(|rule| matched(rule, ends)).collect();
    let mut pairs = (0..own_ports.len())
        .filter(|port| own_ports[*port])
        .flat_map(|port| (0..own_ends.len()).map(move |end| (end, port)))
        .filter(|(end, _)| own_ends[*end])
        .peekable();
    pairs.peek().is_some() && pairs.all(|(end, port)| by.iter().any(|[ends, ports]| ends[end] && ports[port]))
}

fn policy(name: &str, rules: Vec<Rule>) -> Policy {
    Policy {
        key: PolicyKey::network_policy("a", name),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch { namespaces: NamespaceMatch::Named("a".into()), pods: Selector::everything() },
        ingress: Some(rules),
        egress: None,
        origin: None,
    }
}

#[test]
fn covered_parts_are_those_that_other_rules_match() {
    let [mut cluster, _] = clusters();
    let points = points_of_one();
    let outside = ADDRESSES.map(|text| At::Outside(text.parse().expect("an address")));
    let ends: Vec<At<'_>> = points.iter().map(At::Pod).chain(outside).collect();
    let mut seen = [0; 3];
    for seed in seeds(0..80) {
        let rng = &mut Rng::with_seed(seed);
        let own: Vec<Rule> = (0..rng.usize(1..4)).map(|_| rule(rng)).collect();
        let other: Vec<Rule> = (0..rng.usize(..3)).map(|_| rule(rng)).collect();
        cluster.policies.clear();
        // In a cluster-wide tier only rules count that come before.
        let ordered = rng.usize(..3) == 0;
        for mut policy in [policy("other", other.clone()), policy("own", own.clone())] {
            if ordered {
                (policy.tier, policy.priority) = (Tier::Admin, cluster.policies.len() as i32);
            }
            cluster.policies.insert(policy.key.clone(), Arc::new(policy));
        }
        let subject = &cluster.policies[&PolicyKey::network_policy("a", "own")];
        let found = Coverage::new(&cluster).of(subject, Direction::Ingress);
        let is_found = |at: (usize, RulePart)| found.iter().any(|part| (part.rule, part.part) == at);
        let covered = |rule: &Rule, by: &[&Rule]| is_covered(rule, by, &ends);
        let mut left: Vec<&Rule> = own.iter().collect();
        for index in (0..own.len()).rev() {
            let own = left.remove(index);
            let before = if ordered { &left[..index] } else { &left[..] };
            let by: Vec<&Rule> = other.iter().chain(before.iter().copied()).collect();
            let whole = covered(own, &by);
            assert_eq!(
                is_found((index, RulePart::Whole)),
                whole,
                "seed {seed}, rule {index}: {own:?} {by:?}"
            );
            seen[0] += usize::from(whole);
            if whole {
                continue;
            }
            let mut reduced = own.clone();
            for peer in (0..own.peers.as_ref().map_or(0, Vec::len)).rev() {
                let mut only = own.clone();
                only.peers = own.peers.as_ref().map(|all| vec![all[peer].clone()]);
                let mut rest = reduced.clone();
                rest.peers.as_mut().map(|all| all.remove(peer));
                let expected = covered(&only, &by.iter().copied().chain([&rest]).collect::<Vec<_>>());
                assert_eq!(is_found((index, RulePart::Peer(peer))), expected, "seed {seed}: {own:?} {by:?}");
                seen[1] += usize::from(expected);
                if expected {
                    reduced = rest;
                }
            }
            for port in (0..own.ports.as_ref().map_or(0, Vec::len)).rev() {
                let only =
                    Rule { ports: own.ports.as_ref().map(|all| vec![all[port].clone()]), ..own.clone() };
                let mut rest = reduced.clone();
                rest.ports.as_mut().map(|all| all.remove(port));
                let expected = covered(&only, &by.iter().copied().chain([&rest]).collect::<Vec<_>>());
                assert_eq!(is_found((index, RulePart::Port(port))), expected, "seed {seed}: {own:?} {by:?}");
                seen[2] += usize::from(expected);
                if expected {
                    reduced = rest;
                }
            }
            left.insert(index, own);
        }
        for part in &found {
            assert!(!part.by.is_empty() && part.direction == Direction::Ingress, "seed {seed}");
            assert_eq!(part.by.iter().collect::<BTreeSet<_>>().len(), part.by.len(), "seed {seed}");
            let [own_ends, own_ports] = matched(&own[part.rule], &ends);
            for by in &part.by {
                let rules = if *by.policy.name == *"own" { &own } else { &other };
                let [by_ends, by_ports] = matched(&rules[by.index], &ends);
                let meet = |a: &[bool], b: &[bool]| a.iter().zip(b).any(|(a, b)| *a && *b);
                assert!(meet(&own_ends, &by_ends) && meet(&own_ports, &by_ports), "seed {seed}: {part:?}");
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn the_index_of_subjects_leaves_no_policy_out() {
    let [mut cluster, _] = clusters();
    let points = points_of_one();
    let (mut found, mut with_labels) = (0, 0);
    for seed in seeds(0..120) {
        let rng = &mut Rng::with_seed(seed);
        cluster.policies.clear();
        for number in 0..10 {
            let mut policy = policy(&format!("p{number}"), Vec::new());
            policy.subject = choice(rng);
            policy.tier = *pick(rng, &[Tier::Developer, Tier::Developer, Tier::Admin]);
            policy.priority = rng.i32(0..3);
            cluster.policies.insert(policy.key.clone(), Arc::new(policy));
        }
        let coverage = Coverage::new(&cluster);
        let selects = |policy: &Policy, at: &Point| {
            let name = at.namespace.get(NAMESPACE_NAME_LABEL).unwrap_or_default();
            policy.subject.matches(name, Some(&at.namespace), &at.labels)
        };
        for policy in cluster.policies.values() {
            let own: Vec<&Point> = points.iter().filter(|at| selects(policy, at)).collect();
            let counts = |other: &&Arc<Policy>| {
                other.key != policy.key
                    && other.tier == policy.tier
                    && (policy.tier == Tier::Developer || Policy::precedence(other, policy).is_lt())
                    && !own.is_empty()
                    && own.iter().all(|at| selects(other, at))
            };
            let expected: Vec<&PolicyKey> =
                cluster.policies.values().filter(counts).map(|other| &other.key).collect();
            let given = coverage.others(policy, Direction::Ingress);
            let given: Vec<&PolicyKey> = given.iter().map(|other| &other.key).collect();
            assert_eq!(given, expected, "seed {seed}: {:?}", policy.subject);
            assert!(coverage.others(policy, Direction::Egress).is_empty(), "seed {seed}");
            found += expected.len();
            with_labels += usize::from(!expected.is_empty() && !policy.subject.pods.is_everything());
        }
    }
    assert!(found > 50 && with_labels > 10, "{found}, {with_labels}");
}
