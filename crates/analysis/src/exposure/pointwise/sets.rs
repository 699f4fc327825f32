//! Sets of pods: their intersections, differences and normal forms.

use std::collections::BTreeSet;

use palisade_policy::{
    IpBlock, NAMESPACE_NAME_LABEL, Name, NamespaceMatch, Pod, PodMatch, Requirement, Selector, Test,
};
use palisade_testkit::{Rng, running_pod, seeds};

use super::{
    super::pod_set::{PodSet, World},
    Point, choice, clusters, is_in, set, worlds,
};

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
