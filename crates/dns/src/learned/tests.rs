use palisade_policy::{Cluster, DomainPattern};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

fn pod(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn address(last: u8) -> IpAddr {
    [198, 51, 100, last].into()
}

fn patterns() -> Patterns {
    ["a.io", "*.b.io"].map(DomainPattern::new).into_iter().collect()
}

fn learn(learned: &mut LearnedNames, of: &str, last: &[u8], ttl: u32, now: Seconds) -> Outcome {
    let addresses: Vec<_> = last.iter().map(|last| (address(*last), ttl)).collect();
    learned.learn(&name(of), &pod("web"), &addresses, (&patterns(), &Learnable::default()), now)
}

/// Returns the addresses that a compiler holds after the changes.
fn held(cluster: &mut Cluster, learned: &mut LearnedNames) -> Vec<String> {
    for change in learned.take_changes() {
        cluster.apply(change);
    }
    let all = cluster.learned.values().flat_map(|l| l.addresses.iter().map(|a| format!("{} {a}", l.name)));
    all.collect()
}

#[test]
fn an_address_stays_for_its_time_the_grace_period_and_its_connections() {
    let (mut learned, mut cluster) = (LearnedNames::new(LearnLimits::default()), Cluster::default());
    assert!(learn(&mut learned, "a.io", &[1], 60, 1000).changed);
    assert!(learn(&mut learned, "x.b.io", &[2], 0, 1000).changed, "a wildcard has the name");
    assert!(!learn(&mut learned, "b.io", &[3], 60, 1000).changed, "no rule has the name");
    assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.1", "x.b.io 198.51.100.2"]);
    // The shortest time to live is 5 s, and the grace period 30 s.
    assert_eq!(learned.next_expiry(), Some(1035));
    learned.expire(1034, |_| false);
    assert!(learned.take_changes().is_empty());
    learned.expire(1035, |_| false);
    assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.1"]);
    assert!(!learn(&mut learned, "a.io", &[1], 60, 1080).changed, "only its time restarts");
    learned.expire(1100, |_| false);
    assert_eq!(learned.names(), 1);
    learned.expire(1170, |used| used == address(1));
    assert_eq!((learned.names(), learned.next_expiry()), (1, Some(1200)));
    learned.expire(1200, |_| false);
    assert!(held(&mut cluster, &mut learned).is_empty());
    assert_eq!(learned, LearnedNames::new(LearnLimits::default()), "nothing is left over");
}

#[test]
fn addresses_within_the_cluster_are_refused_and_the_others_learned() {
    let mut learned = LearnedNames::new(LearnLimits::default());
    let private: IpAddr = [10, 0, 0, 1].into();
    let rules = (&patterns(), &Learnable::default());
    let outcome = learned.learn(&name("a.io"), &pod("web"), &[(private, 9), (address(1), 9)], rules, 0);
    assert_eq!(outcome.refused, [(private, NotLearnable::Private)]);
    assert!(outcome.changed && learned.addresses() == 1);
}

#[test]
fn every_number_is_bounded_and_an_older_address_makes_room() {
    let limits = LearnLimits {
        addresses_of_name: 2,
        names: 3,
        addresses: 5,
        names_of_pod: 2,
        ..LearnLimits::default()
    };
    let mut learned = LearnedNames::new(limits);
    learn(&mut learned, "a.io", &[1], 10, 0);
    let outcome = learn(&mut learned, "a.io", &[2, 3], 60, 0);
    assert!(outcome.changed && outcome.over_limit);
    let mut cluster = Cluster::default();
    assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.2", "a.io 198.51.100.3"]);
    assert!(learn(&mut learned, "1.b.io", &[1], 60, 0).changed);
    let outcome = learn(&mut learned, "2.b.io", &[1], 60, 0);
    assert_eq!((outcome.changed, outcome.over_limit), (false, true), "a third name of the pod");
    let rules = (&patterns(), &Learnable::default());
    let mut other =
        |of: &str, last| learned.learn(&name(of), &pod("db"), &[(address(last), 60)], rules, 0).changed;
    assert!(other("3.b.io", 1) && !other("4.b.io", 1), "a fourth name");
    assert!(other("3.b.io", 2) && !other("1.b.io", 2), "a sixth address");
    assert_eq!((learned.names(), learned.addresses()), (3, 5));
}

/// The owner of a zone answers with as many addresses as fit, each time others. A search for each that makes room took 100 times as long.
#[test]
fn the_cost_of_an_answer_follows_its_size_also_if_all_others_make_room() {
    let rules = (&patterns(), &Learnable::default());
    let answer = |n: u32| -> Vec<(IpAddr, u32)> {
        (0..1_000).map(|i| (std::net::Ipv4Addr::from(0x0800_0000 + n * 1_000 + i).into(), 600)).collect()
    };
    let known = |learned: &LearnedNames| -> Vec<IpAddr> {
        learned.names[&name("a.io")].addresses.keys().copied().collect()
    };
    let addresses = |answer: &[(IpAddr, u32)]| answer.iter().map(|(a, _)| *a).collect::<Vec<IpAddr>>();
    let mut learned = LearnedNames::new(LearnLimits::default());
    let mut learn = |answer: &[(IpAddr, u32)], now| {
        let begin = std::time::Instant::now();
        let outcome = learned.learn(&name("a.io"), &pod("web"), answer, rules, now);
        let time = begin.elapsed();
        assert_eq!(known(&learned), addresses(answer));
        (time, outcome)
    };
    let (first, outcome) = learn(&answer(0), 0);
    assert_eq!((outcome.changed, outcome.over_limit), (true, false));
    let again = (1..20).map(|n| {
        let (time, outcome) = learn(&answer(n), n.into());
        assert_eq!((outcome.changed, outcome.over_limit), (true, true));
        time
    });
    // The least that it takes: others use the processor too.
    let again = again.min().unwrap();
    assert!(again < 20 * first, "{again:?} after {first:?}");
    // What an answer repeats doesn't make room for the rest of it.
    let mixed = [&answer(19)[..500], &answer(20)[..500]].concat();
    learn(&mixed, 200);
}

/// Pods of one namespace that ask for as much as they can, with times of a week, keep those of no other from learning.
#[test]
fn a_namespace_that_fills_the_limits_makes_room_for_others() {
    let limits = LearnLimits { names: 6, addresses: 10, addresses_of_name: 4, ..LearnLimits::default() };
    let (mut learned, mut cluster) = (LearnedNames::new(limits), Cluster::default());
    let mut asks = |namespace: &str, of: &str, last: &[u8], ttl| {
        let addresses: Vec<_> = last.iter().map(|last| (address(*last), ttl)).collect();
        let pod = ObjectKey::new(namespace, format!("{namespace}-{of}"));
        learned.learn(&name(of), &pod, &addresses, (&patterns(), &Learnable::default()), 0);
        let mut known: BTreeMap<Name, (usize, usize)> = BTreeMap::new();
        for (_, of_name) in learned.iter() {
            let count = known.entry(of_name.first.namespace.clone()).or_default();
            (count.0, count.1) = (count.0 + 1, count.1 + of_name.addresses.len());
        }
        let all = (learned.names(), learned.addresses());
        assert_eq!(known.values().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1)), all);
        assert!(all.0 <= 6 && all.1 <= 10, "{all:?}");
        let _ = held(&mut cluster, &mut learned);
        [known.get("red").copied().unwrap_or_default(), known.get("blue").copied().unwrap_or_default()]
    };
    for n in 0..9u8 {
        asks("red", &format!("{n}.b.io"), &[n], 604_800);
    }
    assert_eq!(asks("red", "0.b.io", &[20, 21, 22, 23, 24], 604_800), [(6, 9), (0, 0)]);
    assert_eq!(asks("red", "1.b.io", &[30, 31, 32], 604_800), [(6, 10), (0, 0)], "both limits");
    assert_eq!(asks("blue", "a.io", &[40], 5), [(5, 6), (1, 1)], "a name with its four addresses makes room");
    for n in 0..9u8 {
        asks("blue", &format!("x{n}.b.io"), &[50 + n, 60 + n, 70 + n], 5);
    }
    let [red, blue] = asks("blue", "a.io", &[40], 5);
    assert!(red.0 >= 2 && blue.0 >= 3 && blue.1 >= 4, "{red:?}, {blue:?}");
    // Neither takes from the other for ever: what is full for both stays as it is.
    let before = asks("red", "0.b.io", &[20], 604_800);
    for n in 0..50u8 {
        asks(if n % 2 == 0 { "red" } else { "blue" }, &format!("y{n}.b.io"), &[100 + n], 60);
    }
    let after = asks("blue", "a.io", &[40], 5);
    assert!(after[0].0 >= 2 && after[1].0 >= 2, "{before:?}, {after:?}");
}

#[test]
fn names_that_rules_no_longer_have_are_forgotten() {
    let (mut learned, mut cluster) = (LearnedNames::new(LearnLimits::default()), Cluster::default());
    learn(&mut learned, "a.io", &[1], 60, 0);
    learn(&mut learned, "x.b.io", &[2], 60, 0);
    held(&mut cluster, &mut learned);
    learned.retain(&[DomainPattern::new("*.b.io")].into_iter().collect());
    assert_eq!(held(&mut cluster, &mut learned), ["x.b.io 198.51.100.2"]);
    learned.retain(&Patterns::default());
    assert!(held(&mut cluster, &mut learned).is_empty());
    assert_eq!(learned, LearnedNames::new(LearnLimits::default()));
}

#[test]
fn addresses_that_became_those_of_the_cluster_are_forgotten() {
    let (mut learned, mut cluster) = (LearnedNames::new(LearnLimits::default()), Cluster::default());
    learn(&mut learned, "a.io", &[1, 2, 3], 60, 0);
    learn(&mut learned, "x.b.io", &[2], 60, 0);
    held(&mut cluster, &mut learned);
    let mut learnable = Learnable::default();
    assert!(learnable.set(address(2), true) && !learnable.set(address(2), true));
    learned.retain_learnable(&learnable);
    assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.1", "a.io 198.51.100.3"]);
    learned.remove_address(address(1));
    learned.remove_address(address(9));
    assert_eq!(held(&mut cluster, &mut learned), ["a.io 198.51.100.3"]);
    assert!(learnable.set(address(2), false));
    assert!(learn(&mut learned, "x.b.io", &[2], 60, 0).changed);
}

proptest! {
    /// However answers and time mix, the changes lead to what is known, the bounds hold, and nothing is left over.
    #[test]
    fn changes_lead_to_what_is_known(
        steps in prop::collection::vec((0u8..4, 0u8..6, 0u32..90, 0u64..40, any::<bool>()), 0..60),
    ) {
        let limits = LearnLimits { addresses_of_name: 3, names: 3, addresses: 7, ..LearnLimits::default() };
        let (mut learned, mut cluster) = (LearnedNames::new(limits), Cluster::default());
        let mut now = 0;
        for (host, last, ttl, pause, expire) in steps {
            let pod = ObjectKey::new(["shop", "red", "blue"][usize::from(host % 3)], "web");
            let addresses = [(address(last), ttl), (address(last + 1), ttl)];
            let rules = (&patterns(), &Learnable::default());
            learned.learn(&name(&format!("{host}.b.io")), &pod, &addresses, rules, now);
            now += pause;
            if expire {
                learned.expire(now, |used| used == address(2));
                prop_assert!(learned.next_expiry().is_none_or(|next| next > now));
            }
            for change in learned.take_changes() {
                cluster.apply(change);
            }
            let mut fresh = Cluster::default();
            learned.all_changes().into_iter().for_each(|change| fresh.apply(change));
            prop_assert_eq!(&cluster, &fresh);
            let addresses: usize = cluster.learned.values().map(|l| l.addresses.len()).sum();
            prop_assert_eq!((learned.names(), learned.addresses()), (cluster.learned.len(), addresses));
            prop_assert!(learned.names() <= 3 && learned.addresses() <= 7);
            prop_assert!(cluster.learned.values().all(|l| (1..=3).contains(&l.addresses.len())));
        }
        learned.expire(now + 1_000, |_| false);
        learned.take_changes();
        prop_assert_eq!(learned, LearnedNames::new(limits));
    }
}
