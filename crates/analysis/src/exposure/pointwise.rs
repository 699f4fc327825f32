//! The algebra of sets of pods, covers and coverage, compared with looking at each pod.
//!
//! The pods are few: for each label and each address those that the sets below can tell apart, in the namespaces that exist and
//! in new ones. What is said of sets is true if it is true of these.

use std::{collections::BTreeSet, sync::Arc};

use palisade_policy::{
    Action, Cluster, Direction, IpBlock, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch, Peer,
    PeerEntry, Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch, PortSet, Protocol, Requirement, Rule,
    Selector, Test, Tier, Traffic,
};
use palisade_testkit::{Rng, running_pod, seeds};

use super::{
    cover::{Cover, Piece},
    coverage::{Coverage, RulePart},
    pod_set::{PodSet, World},
    pod_traffic::PodTraffic,
};

/// A pod that may exist, in a namespace with such labels.
struct Point {
    namespace: Labels,
    labels: Labels,
    address: std::net::IpAddr,
}

/// Namespaces `a` and `b` exist, and `c` has different labels in two clusters.
fn clusters() -> [Cluster; 2] {
    let namespace = |name: &str, env: Option<&str>| {
        let labels = env.into_iter().map(|env| ("env", env)).collect::<Labels>();
        Namespace::new(name, &labels)
    };
    ["p", "q"].map(|env| {
        let mut cluster = Cluster::default();
        for namespace in [namespace("a", Some("p")), namespace("b", None), namespace("c", Some(env))] {
            cluster.namespaces.insert(namespace.name.clone(), namespace);
        }
        cluster
    })
}

const ADDRESSES: [&str; 8] =
    ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.1", "fd00::1", "2001:db8::1"];

/// All pods that are told apart. `limited`: only with addresses of 10.0.0.0/30.
fn points(limited: bool) -> Vec<Point> {
    let labels = |pairs: &[(&str, Option<&str>)]| {
        pairs.iter().filter_map(|(key, value)| Some((*key, (*value)?))).collect::<Labels>()
    };
    let namespace = |name, env| labels(&[(NAMESPACE_NAME_LABEL, Some(name)), ("env", env)]);
    let mut namespaces = vec![namespace("a", Some("p")), namespace("b", None)];
    for name in ["new", "other"] {
        namespaces.extend([None, Some("p"), Some("q"), Some("r")].map(|env| namespace(name, env)));
    }
    let mut out = Vec::new();
    for namespace in &namespaces {
        for app in [None, Some("x"), Some("y"), Some("z")] {
            for tier in [None, Some("x"), Some("z")] {
                for address in &ADDRESSES[..if limited { 4 } else { 8 }] {
                    out.push(Point {
                        namespace: namespace.clone(),
                        labels: labels(&[("app", app), ("tier", tier)]),
                        address: address.parse().expect("an address"),
                    });
                }
            }
        }
    }
    out
}

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

fn is_in(set: &PodSet, at: &Point) -> bool {
    let addresses = set.addresses.as_ref();
    set.namespaces.contains(&at.namespace)
        && set.pods.contains(&at.labels)
        && addresses.is_none_or(|ranges| ranges.iter().any(|range| range.contains(at.address)))
}

fn pick<'a, T>(rng: &mut Rng, all: &'a [T]) -> &'a T {
    &all[rng.usize(..all.len())]
}

fn requirement(rng: &mut Rng, key: &str, values: &[&str]) -> Requirement {
    let some = (0..=rng.usize(..2)).map(|_| Name::from(*pick(rng, values))).collect::<BTreeSet<_>>();
    let test = match rng.usize(..6) {
        0 => Test::Exists,
        1 => Test::DoesNotExist,
        2 => Test::NotIn(some),
        _ => Test::In(some),
    };
    Requirement { key: key.into(), test }
}

fn choice(rng: &mut Rng) -> PodMatch {
    const NAMES: [&str; 4] = ["a", "b", "c", "new"];
    let namespaces = if rng.bool() {
        NamespaceMatch::Named((*pick(rng, &NAMES)).into())
    } else {
        let count = rng.usize(..3);
        NamespaceMatch::Selected(Selector::new((0..count).map(|_| match rng.bool() {
            true => requirement(rng, NAMESPACE_NAME_LABEL, &NAMES),
            false => requirement(rng, "env", &["p", "q"]),
        })))
    };
    let count = rng.usize(..3);
    let pods = Selector::new((0..count).map(|_| match rng.usize(..3) {
        0 => requirement(rng, "tier", &["x"]),
        _ => requirement(rng, "app", &["x", "y"]),
    }));
    PodMatch { namespaces, pods }
}

/// Blocks with their exceptions.
const BLOCKS: [(&str, &[&str]); 7] = [
    ("10.0.0.0/30", &[]),
    ("10.0.0.0/31", &[]),
    ("10.0.0.2/32", &[]),
    ("10.0.0.0/29", &["10.0.0.1/32"]),
    ("10.0.0.0/29", &["10.0.0.0/30"]),
    ("fd00::/64", &[]),
    ("0.0.0.0/0", &[]),
];

fn block(rng: &mut Rng) -> IpBlock {
    let (cidr, except) = *pick(rng, &BLOCKS);
    let net = |text: &str| text.parse().expect("a network");
    IpBlock { cidr: net(cidr), except: except.iter().map(|text| net(text)).collect() }
}

/// A random set as covers have it; `None` if no pod can be in it.
fn set(rng: &mut Rng, world: &World) -> Option<PodSet> {
    let pods = PodSet::of(&choice(rng)).and_then(|set| world.normal(set));
    match rng.usize(..4) {
        0 => PodSet::of_block(&block(rng)).and_then(|set| world.normal(set)),
        1 => {
            let block = PodSet::of_block(&block(rng)).and_then(|set| world.normal(set))?;
            world.intersection(&pods?, &block)
        }
        _ => pods,
    }
}

fn worlds() -> [(World, Vec<Point>); 2] {
    let [first, second] = clusters();
    let net = palisade_policy::IpRange::of_net(&"10.0.0.0/30".parse().expect("a network"));
    [
        (World::new(&[&first, &second], None), points(false)),
        (World::new(&[&first, &second], Some(&[net])), points(true)),
    ]
}

#[test]
fn sets_are_what_they_contain() {
    let worlds = worlds();
    for seed in seeds(0..400) {
        let rng = &mut Rng::with_seed(seed);
        let (world, points) = &worlds[rng.usize(..2)];
        let choice = choice(rng);
        let name = |at: &Point| at.namespace.get(NAMESPACE_NAME_LABEL).unwrap_or_default().to_owned();
        let is_chosen = |at: &Point| choice.matches(&name(at), Some(&at.namespace), &at.labels);
        let normal = PodSet::of(&choice).and_then(|set| world.normal(set));
        assert_eq!(normal.is_some(), points.iter().any(is_chosen), "seed {seed}: {choice:?}");
        if let Some(set) = &normal {
            assert!(points.iter().all(|at| is_in(set, at) == is_chosen(at)), "seed {seed}: {choice:?}");
            assert_eq!(world.normal(set.clone()).as_ref(), Some(set), "seed {seed}");
            let again = PodSet::of(&set.choice()).and_then(|set| world.normal(set));
            assert_eq!(again.as_ref(), Some(set), "seed {seed}");
        }
        let (Some(a), Some(b)) = (set(rng, world), set(rng, world)) else { continue };
        let at = |test: &dyn Fn(&Point) -> bool| points.iter().map(test).collect::<Vec<bool>>();
        let (in_a, in_b) = (at(&|p| is_in(&a, p)), at(&|p| is_in(&b, p)));
        assert!(in_a.contains(&true), "seed {seed}: {a:?}");
        let both: Vec<bool> = in_a.iter().zip(&in_b).map(|(a, b)| *a && *b).collect();
        let found = world.intersection(&a, &b);
        assert_eq!(
            at(&|p| found.as_ref().is_some_and(|set| is_in(set, p))),
            both,
            "seed {seed}: {a:?} {b:?}"
        );
        assert_eq!(found.is_some(), both.contains(&true), "seed {seed}: {a:?} {b:?}");
        let subset = both == in_a;
        assert_eq!(world.is_subset(&a, &b), subset, "seed {seed}: {a:?} {b:?}");
        assert!(!a.is_within(&b) || subset, "seed {seed}: {a:?} {b:?}");
        let only: Vec<bool> = in_a.iter().zip(&in_b).map(|(a, b)| *a && !*b).collect();
        let parts = world.disjoint_outside(&a, &b);
        for (point, only) in points.iter().zip(&only) {
            let count = parts.iter().filter(|part| is_in(part, point)).count();
            assert_eq!(count, usize::from(*only), "seed {seed}: {a:?} {b:?} {parts:?}");
        }
        let largest = world.largest_outside(&a, &b);
        assert_eq!(at(&|p| largest.iter().any(|part| is_in(part, p))), only, "seed {seed}: {a:?} {b:?}");
        for part in parts.iter().filter(|part| a.is_within(part)) {
            assert_eq!(*part, a, "seed {seed}: more than the set");
        }
        let condition = a.condition(&b);
        assert_eq!(at(&|p| is_in(&a, p) && is_in(&condition, p)), both, "seed {seed}: {a:?} {b:?}");
        assert!(!a.is_within(&b) || condition == PodSet::default(), "seed {seed}: {condition:?}");
    }
}

#[test]
fn a_set_of_several_constraints_is_described_by_them() {
    let [cluster, _] = clusters();
    let world = World::new(&[&cluster], None);
    let one = |labels: [(&str, &str); 1]| Selector::of_labels(labels);
    let of = |namespaces, pods| {
        let set = PodSet::of(&PodMatch { namespaces, pods }).expect("pods may match");
        world.normal(set).expect("pods may be in it")
    };
    let in_b = of(NamespaceMatch::Named("b".into()), one([("app", "x")]));
    assert_eq!(in_b.namespace(), Some(&"b".into()));
    let selected = of(NamespaceMatch::Selected(one([("env", "p")])), Selector::everything());
    assert_eq!(selected.namespace(), None);
    // What a pod of the first set needs: the constraints of the other that it doesn't imply.
    let other = of(NamespaceMatch::Selected(one([("env", "p")])), one([("app", "x")]));
    assert_eq!(selected.condition(&other).choice().pods, one([("app", "x")]));
    assert!(selected.condition(&other).namespaces.is_any());
    let names =
        Requirement { key: NAMESPACE_NAME_LABEL.into(), test: Test::In(["a", "b"].map(Name::from).into()) };
    let two = of(NamespaceMatch::Selected(Selector::new([names])), Selector::everything());
    assert_eq!(two.namespace(), None);
}

#[test]
fn equal_sets_have_one_normal_form() {
    let [(world, _), (limited, _)] = worlds();
    let block = |text: &str| {
        let block = IpBlock { cidr: text.parse().expect("a network"), except: [].into() };
        PodSet::of_block(&block).expect("addresses")
    };
    assert_eq!(limited.normal(block("10.0.0.0/29")), Some(PodSet::default()), "no pod has another address");
    assert_ne!(world.normal(block("10.0.0.0/29")), Some(PodSet::default()));
    let of = |requirements: &[(&str, Test)]| {
        let requirement = |(key, test): &(&str, Test)| Requirement { key: (*key).into(), test: test.clone() };
        let namespaces =
            NamespaceMatch::Selected(Selector::new(requirements.iter().map(requirement).collect::<Vec<_>>()));
        let set = PodSet::of(&PodMatch { namespaces, pods: Selector::everything() });
        set.and_then(|set| world.normal(set))
    };
    let names = |names: &[&str]| names.iter().copied().map(Name::from).collect::<BTreeSet<_>>();
    // The labels of a namespace are known.
    let a = (NAMESPACE_NAME_LABEL, Test::In(names(&["a"])));
    assert_eq!(of(std::slice::from_ref(&a)), of(&[a, ("env", Test::In(names(&["p"])))]));
    // Every namespace has a name.
    let others = (NAMESPACE_NAME_LABEL, Test::NotIn(names(&["a"])));
    assert_eq!(of(std::slice::from_ref(&others)), of(&[others, (NAMESPACE_NAME_LABEL, Test::Exists)]));
}

#[test]
fn pods_that_exist_are_found() {
    let [mut cluster, _] = clusters();
    for (namespace, name, app, address) in [
        ("a", "in", "x", "10.0.0.1"),
        ("a", "elsewhere", "x", "192.0.2.1"),
        ("a", "other", "y", "10.0.0.2"),
        ("b", "in-b", "x", "10.0.0.3"),
        ("unknown", "unknown", "x", "10.0.0.0"),
    ] {
        let labels = [("app", app)].into_iter().collect();
        let addresses = vec![address.parse().expect("an address")];
        cluster.pods.insert(Pod { labels, addresses, ..running_pod(namespace, name) });
    }
    cluster.pods.insert(Pod { host_network: true, ..running_pod("a", "host") });
    let existing = |set: &PodSet| {
        set.existing(&cluster).map(|pod| pod.key.name.to_string()).collect::<BTreeSet<String>>()
    };
    let is = |found: BTreeSet<String>, expected: &[&str]| {
        assert_eq!(found, expected.iter().map(ToString::to_string).collect());
    };
    let block = IpBlock { cidr: "10.0.0.0/30".parse().expect("a network"), except: [].into() };
    let addresses = PodSet::of_block(&block).expect("addresses").addresses;
    let apps = |app: &str| Selector::of_labels([("app", app)]);
    let of = |namespaces, pods| PodSet::of(&PodMatch { namespaces, pods }).expect("pods may match");
    let everywhere = || NamespaceMatch::Selected(Selector::everything());
    let in_a = of(NamespaceMatch::Named("a".into()), apps("x"));
    is(existing(&in_a), &["in", "elsewhere"]);
    is(existing(&PodSet { addresses: addresses.clone(), ..in_a }), &["in"]);
    is(
        existing(&of(NamespaceMatch::Named("a".into()), Selector::everything())),
        &["in", "elsewhere", "other"],
    );
    let everything = PodSet { addresses, ..of(everywhere(), apps("x")) };
    is(existing(&everything), &["in", "in-b", "unknown"]);
    let env = NamespaceMatch::Selected(Selector::of_labels([("env", "p")]));
    is(existing(&of(env, apps("x"))), &["in", "elsewhere"]);
}

/// Traffic to compare with: ports by number, and a name.
fn traffic(rng: &mut Rng) -> PodTraffic {
    let of = |protocol, port| Traffic::of(protocol, PortSet::range(port, port));
    let mut out = PodTraffic::default();
    for traffic in [of(Protocol::Tcp, 1), of(Protocol::Tcp, 2), of(Protocol::Udp, 1)] {
        if rng.bool() {
            out.numbers = out.numbers.union(&traffic);
        }
    }
    if rng.usize(..4) == 0 {
        out.named.insert(("http".into(), Protocol::Tcp));
    }
    out
}

fn all_traffic() -> PodTraffic {
    PodTraffic { numbers: Traffic::all(), named: [("http".into(), Protocol::Tcp)].into() }
}

fn gets(cover: &Cover, at: &Point) -> PodTraffic {
    let pieces = cover.pieces().iter().filter(|piece| is_in(&piece.set, at));
    pieces.fold(PodTraffic::default(), |sum, piece| sum.union(&piece.traffic))
}

/// A random cover, checked on the way: each piece adds what it says.
fn cover(rng: &mut Rng, world: &World, points: &[Point]) -> Cover {
    let mut out = Cover::default();
    for _ in 0..rng.usize(1..6) {
        let Some(set) = set(rng, world) else { continue };
        let piece = Piece { set, traffic: traffic(rng) };
        let before: Vec<PodTraffic> = points.iter().map(|at| gets(&out, at)).collect();
        out.add(piece.clone(), world).expect("few pieces");
        for (at, before) in points.iter().zip(before) {
            let own = if is_in(&piece.set, at) { piece.traffic.clone() } else { PodTraffic::default() };
            assert_eq!(gets(&out, at), before.union(&own));
        }
    }
    assert!(out.pieces().iter().all(|piece| !piece.traffic.is_none()));
    let sets: BTreeSet<&PodSet> = out.pieces().iter().map(|piece| &piece.set).collect();
    assert_eq!(sets.len(), out.pieces().len());
    out
}

#[test]
fn covers_are_what_each_pod_gets() {
    let worlds = worlds();
    for seed in seeds(0..150) {
        let rng = &mut Rng::with_seed(seed);
        let (world, points) = &worlds[rng.usize(..2)];
        world.renew();
        let (a, b) = (cover(rng, world, points), cover(rng, world, points));
        let both = a.intersection(&b, world).expect("few pieces");
        let only = a.difference(&b, world).expect("few pieces");
        let first = b.pieces().first();
        let without = first.map(|piece| (piece, a.clone().without(piece, world).expect("few pieces")));
        let mut sum = a.clone();
        sum.add_all(b.clone(), world).expect("few pieces");
        for at in points {
            let (in_a, in_b) = (gets(&a, at), gets(&b, at));
            assert_eq!(gets(&both, at), in_a.intersection(&in_b), "seed {seed}");
            assert_eq!(gets(&only, at), in_a.difference(&in_b), "seed {seed}");
            assert_eq!(gets(&sum, at), in_a.union(&in_b), "seed {seed}");
            if let Some((piece, left)) = &without {
                let gone = if is_in(&piece.set, at) { piece.traffic.clone() } else { PodTraffic::default() };
                assert_eq!(gets(left, at), in_a.difference(&gone), "seed {seed}");
            }
        }
        let Some(set) = set(rng, world) else { continue };
        let inside: Vec<PodTraffic> =
            points.iter().filter(|at| is_in(&set, at)).map(|at| gets(&a, at)).collect();
        let least = inside.iter().fold(all_traffic(), |all, own| all.intersection(own));
        let most = inside.iter().fold(PodTraffic::default(), |all, own| all.union(own));
        assert_eq!(a.guaranteed(&set, &all_traffic(), world), Ok(least.clone()), "seed {seed}: {set:?}");
        assert_eq!(a.possible(&set, world), most, "seed {seed}: {set:?}");
        let asked = traffic(rng);
        let missing = a.uncovered(&set, &asked, world).expect("few pieces");
        assert_eq!(missing.is_none(), asked.is_subset(&least), "seed {seed}: {set:?} {asked:?}");
        if let Some(part) = missing {
            let mut members = points.iter().filter(|at| is_in(&part, at)).peekable();
            assert!(members.peek().is_some(), "seed {seed}: {part:?}");
            assert!(members.all(|at| is_in(&set, at) && !asked.is_subset(&gets(&a, at))), "seed {seed}");
        }
    }
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
