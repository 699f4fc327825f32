//! The algebra of sets of pods, covers and coverage, compared with looking at each pod.
//!
//! The pods are few: for each label and each address those that the sets below can tell apart, in the namespaces that exist and
//! in new ones. What is said of sets is true if it is true of these.

use std::collections::BTreeSet;

use palisade_policy::{
    Cluster, IpBlock, IpRange, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch, PodMatch,
    Requirement, Selector, Test,
};
use palisade_testkit::Rng;

use super::pod_set::{PodSet, World};

mod covers;
mod redundant;
mod sets;

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
    let net = IpRange::of_net(&"10.0.0.0/30".parse().expect("a network"));
    [
        (World::new(&[&first, &second], None), points(false)),
        (World::new(&[&first, &second], Some(&[net])), points(true)),
    ]
}
