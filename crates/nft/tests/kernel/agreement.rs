//! The kernel's rules, read back and evaluated, decide as the plan does.

use std::net::IpAddr;

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Hook, Kernel, LINEAR_LOOKUPS, LOG_AUDIT_EGRESS, LOG_AUDIT_INGRESS, LOG_EGRESS, LOG_INGRESS,
    reader::{Packet, Ruleset, State},
};
use palisade_policy::{Deciding, Direction, Family, NodePlan, Protocol, Verdict};
use palisade_testkit::seeds;

use crate::{
    random::{PORTS, Random, World},
    sandbox::trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("random_plans_and_deltas_agree_with_the_plan", random_plans_and_deltas),
        trial("random_plans_with_many_peer_sets_agree_with_the_plan", many_peer_sets),
    ]
}

fn random_plans_and_deltas() {
    for seed in seeds(0..120) {
        life(seed, 3 + seed as usize % 5, 4);
    }
}

/// Around the threshold of the search tree and well above it.
fn many_peer_sets() {
    for seed in seeds(1000..1030) {
        life(seed, *Random::new(seed).pick(&[LINEAR_LOOKUPS, LINEAR_LOOKUPS + 1, 24, 40, 255]), 4);
    }
}

/// Starts an enforcer with a random plan, applies random changes, and compares the kernel with the plan after each.
fn life(seed: u64, classes: usize, steps: usize) {
    let random = &mut Random::new(seed);
    let mut world = World::new(random, classes);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    agrees(&mut enforcer, &world, random, &format!("seed {seed}, start"));
    for step in 0..steps {
        world.step(random);
        let plan = world.plan();
        let delta = enforcer.programmed().delta_to(&plan);
        let commit = enforcer.commit(&delta).unwrap_or_else(|e| panic!("seed {seed}, step {step}: {e}"));
        assert!(!delta.is_empty() || commit.transactions == 0, "seed {seed}, step {step}: {commit:?}");
        assert!(commit.transactions <= 3, "seed {seed}, step {step}: {commit:?}");
        assert_eq!(*enforcer.programmed(), plan);
        let again = enforcer.commit(&delta).unwrap();
        assert_eq!(again.transactions, 0, "seed {seed}, step {step}: a delta may be applied twice");
        agrees(&mut enforcer, &world, random, &format!("seed {seed}, step {step}"));
    }
    // After all these changes, the kernel is as after a start with the last plan.
    let incremental = shape(&mut enforcer);
    enforcer.remove().unwrap();
    assert!(Ruleset::read(enforcer.kernel()).unwrap().is_none(), "seed {seed}: the table remains");
    let (mut fresh, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    assert_eq!(incremental, shape(&mut fresh), "seed {seed}");
    fresh.remove().unwrap();
}

/// Returns the content of the table without the transaction number.
pub(crate) fn shape(enforcer: &mut Enforcer) -> Ruleset {
    let mut ruleset = Ruleset::read(enforcer.kernel()).unwrap().expect("the table");
    ruleset.sets.remove("generation");
    ruleset
}

/// Compares kernel and plan for random flows and edge cases.
pub(crate) fn agrees(enforcer: &mut Enforcer, world: &World, random: &mut Random, what: &str) {
    let ruleset = Ruleset::read(enforcer.kernel()).unwrap().expect("the table");
    let plan = enforcer.programmed();
    let addresses = world.interesting();
    for _ in 0..400 {
        let source = *random.pick(&addresses);
        let destination = *random.pick(&addresses);
        if Family::of(source) != Family::of(destination) {
            continue;
        }
        let (protocol, port) = traffic(random);
        let hook = *random.pick(&Hook::POLICY);
        check(&ruleset, plan, Packet { hook, ..Packet::new(source, destination, protocol, port) }, what);
    }
}

fn traffic(random: &mut Random) -> (Protocol, u16) {
    let port = if random.chance(50) { *random.pick(&PORTS) } else { random.below(21_100) as u16 };
    match random.below(8) {
        0 | 1 => (Protocol::Udp, port),
        2 => (Protocol::Sctp, port),
        // Echo requests, GRE and an unassigned protocol.
        3 => (
            *random.pick(&[
                Protocol::Other(1),
                Protocol::Other(58),
                Protocol::Other(47),
                Protocol::Other(255),
            ]),
            128,
        ),
        _ => (Protocol::Tcp, port),
    }
}

fn check(ruleset: &Ruleset, plan: &NodePlan, packet: Packet, what: &str) {
    let (allowed, by) = expected(plan, &packet);
    let evaluation = ruleset.evaluate(&packet).unwrap_or_else(|e| panic!("{what}: {packet:?}: {e}"));
    assert_eq!(evaluation.verdict, allowed, "{what}: {packet:?}");
    assert_eq!(evaluation.logged.as_deref(), by, "{what}: {packet:?}");
    let audited = allowed.is_allow() && by.is_some();
    assert_eq!(evaluation.audited, audited, "{what}: {packet:?}");
    // Per direction, by enforced policies and by all: up to LINEAR_LOOKUPS lookups on two levels for pods and two for
    // ranges, and the ports.
    assert!(evaluation.lookups <= 2 * (8 * LINEAR_LOOKUPS + 6), "{what}: {evaluation:?}");
    let reply = Packet { state: State::Established, ..packet };
    let evaluation = ruleset.evaluate(&reply).unwrap();
    assert_eq!((evaluation.verdict, evaluation.logged), (Verdict::Allow, None), "{what}: {reply:?}");
    // An error about a connection, or a connection that another one announced, which no policy allows by that.
    let related = Packet { state: State::Related, ..packet };
    let is_error = packet.protocol == Protocol::Other(if packet.source.is_ipv4() { 1 } else { 58 });
    let verdict = ruleset.evaluate(&related).unwrap().verdict;
    assert_eq!(verdict, if is_error { Verdict::Allow } else { allowed }, "{what}: {related:?}");
    let untracked = Packet { state: State::Untracked, ..packet };
    assert_eq!(ruleset.evaluate(&untracked).unwrap().verdict, allowed, "{what}: {untracked:?}");
}

/// Returns the plan's verdict and the log prefix of the denial, or of the denial if every policy were enforced. Link-scoped traffic is denied while a local pod is isolated.
fn expected(plan: &NodePlan, packet: &Packet) -> (Verdict, Option<&'static str>) {
    if packet.is_link_scoped() && !(plan.ingress.is_empty() && plan.egress.is_empty()) {
        return (Verdict::Deny, Some(LOG_INGRESS));
    }
    let (source, destination): (IpAddr, IpAddr) = (packet.source, packet.destination);
    let decide = |d| plan.decide(d, source, destination, packet.protocol, packet.port);
    if decide(Direction::Egress) == Verdict::Deny {
        return (Verdict::Deny, Some(LOG_EGRESS));
    }
    if packet.hook == Hook::Forward && decide(Direction::Ingress) == Verdict::Deny {
        return (Verdict::Deny, Some(LOG_INGRESS));
    }
    let would_deny = |d| {
        plan.decide_by(Deciding::All, d, source, destination, packet.protocol, packet.port) == Verdict::Deny
    };
    if would_deny(Direction::Egress) {
        return (Verdict::Allow, Some(LOG_AUDIT_EGRESS));
    }
    if packet.hook == Hook::Forward && would_deny(Direction::Ingress) {
        return (Verdict::Allow, Some(LOG_AUDIT_INGRESS));
    }
    (Verdict::Allow, None)
}
