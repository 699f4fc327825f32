//! Taking over a table that a previous enforcer left, or that another program changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, EnforcerOptions, Kernel, NetlinkSocket, STAND_IN_TABLE, Transport, reader::Ruleset,
};
use palisade_policy::{NodePlan, PolicyTable, Traffic};
use palisade_testkit::seeds;

use crate::{
    agreement::{agrees, shape},
    foreign_edits::message,
    random::{Random, World},
    sandbox::trial,
    scripted::kernel,
    staging::{Watch, flows},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_restart_applies_only_the_difference", restart),
        trial("a_restart_in_the_middle_of_a_staged_change_recovers", crash),
        trial("a_foreign_table_of_the_same_name_is_replaced", foreign),
        trial("other_options_replace_the_table", options),
    ]
}

fn restart() {
    for seed in seeds(0..40) {
        let random = &mut Random::new(seed);
        let mut world = World::new(random, [5, 20][seed as usize % 2]);
        let (mut first, commit) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        let (before, generation) = (shape(&mut first), commit.generation);
        drop(first);
        // The same plan: only the rules are written.
        let (mut same, commit) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        assert_eq!((commit.elements, commit.transactions), (0, 1), "seed {seed}: {commit:?}");
        assert_eq!(commit.generation, generation + 1);
        assert_eq!(shape(&mut same), before, "seed {seed}");
        drop(same);
        // Another plan.
        for _ in 0..3 {
            world.step(random);
        }
        let (mut other, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        agrees(&mut other, &world, random, &format!("seed {seed}, other plan"));
        let incremental = shape(&mut other);
        other.remove().unwrap();
        let (mut fresh, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        assert_eq!(shape(&mut fresh), incremental, "seed {seed}");
        fresh.remove().unwrap();
    }
}

/// The agent is killed after each transaction of a staged change.
fn crash() {
    let mut crashes = 0;
    for seed in seeds(0..4) {
        let random = &mut Random::new(seed);
        let world = World::new(random, 20);
        let mut next = world.clone();
        (0..20).for_each(|_| next.step(random));
        for survived in 0.. {
            let (scripted, script) = kernel();
            let (mut enforcer, _) = Enforcer::start(scripted, &world.plan()).unwrap();
            {
                let mut script = script.lock().unwrap();
                script.largest = Some(14_000);
                // From then on nothing is sent, including the rollback.
                script.cut_after = Some(script.batches + survived);
            }
            let outcome = enforcer.commit(&world.plan().delta_to(&next.plan()));
            drop(enforcer);
            let finished = outcome.is_ok();
            let (mut again, _) = Enforcer::start(Kernel::open().unwrap(), &next.plan()).unwrap();
            agrees(&mut again, &next, random, &format!("seed {seed}, {survived} transactions"));
            let recovered = shape(&mut again);
            again.remove().unwrap();
            let (mut fresh, _) = Enforcer::start(Kernel::open().unwrap(), &next.plan()).unwrap();
            assert_eq!(shape(&mut fresh), recovered, "seed {seed}, {survived} transactions");
            fresh.remove().unwrap();
            if finished {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes} crashes are too few");
}

/// Two tables of the same name with formats that the agent never used.
fn foreign() {
    let random = &mut Random::new(7);
    let world = World::new(random, 20);
    let mut limit = None;
    for _ in 0..2 {
        make_table();
        let (kernel, script) = kernel();
        script.lock().unwrap().largest = limit;
        // A copy of the table would decide otherwise.
        script.lock().unwrap().refused_table = Some(STAND_IN_TABLE);
        let observed = Ruleset::read(&mut Kernel::open().unwrap()).unwrap().unwrap();
        assert_eq!((observed.comment, observed.chains.len()), (None, 0));
        // A pod whose rules don't exist yet is closed.
        let mut closed = world.plan();
        for table in closed.tables.values_mut() {
            *table = PolicyTable {
                direction: table.direction,
                exact: BTreeMap::new(),
                ranges: BTreeMap::new(),
                rest: Traffic::none(),
            };
        }
        // It doesn't reach itself either.
        let pods = closed.ingress.keys().chain(closed.egress.keys()).chain(closed.hairpin.keys());
        closed.hairpin = pods.map(|pod| (*pod, Traffic::none())).collect();
        let watch =
            Watch { old: closed, new: world.plan(), flows: flows(&world, random), ..Watch::default() };
        let watch = Arc::new(Mutex::new(watch));
        let (watched, mut observer) = (watch.clone(), Kernel::open().unwrap());
        script.lock().unwrap().after_batch = Some(Box::new(move || {
            // Kernel features are probed first, with batches that change nothing.
            let there = Ruleset::read(&mut observer).unwrap().unwrap();
            if there.comment.is_some() {
                watched.lock().unwrap().look(&mut observer);
            }
        }));
        let (mut enforcer, commit) = Enforcer::start(kernel, &world.plan()).unwrap();
        assert_eq!(commit.transactions > 1, limit.is_some());
        script.lock().unwrap().after_batch = None;
        assert!(enforcer.take_no_stand_in().is_some());
        assert_eq!(watch.lock().unwrap().faults, [""; 0]);
        agrees(&mut enforcer, &world, random, "a foreign table replaced");
        let replaced = shape(&mut enforcer);
        enforcer.remove().unwrap();
        let (mut fresh, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        assert_eq!(shape(&mut fresh), replaced);
        fresh.remove().unwrap();
        // Then one transaction is not enough.
        limit = Some(commit.bytes - 1);
    }
}

fn options() {
    let random = &mut Random::new(8);
    let world = World::new(random, 5);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    let of_input = |ruleset: &Ruleset| {
        let chains = ruleset.chains.iter().filter(|(name, _)| name.starts_with("input"));
        chains.map(|(_, chain)| chain.rules.len()).sum::<usize>()
    };
    let with = of_input(&shape(&mut enforcer));
    let literal =
        EnforcerOptions { log_group: None, egress_to_own_node: false, ..EnforcerOptions::default() };
    let (mut enforcer, commit) =
        Enforcer::start_with(Kernel::open().unwrap(), literal.clone(), &world.plan()).unwrap();
    assert_eq!(commit.transactions, 1, "in one transaction");
    let without = shape(&mut enforcer);
    assert!(of_input(&without) < with, "no policy applies to what a pod sends to its node");
    assert_eq!(*enforcer.programmed(), world.plan());
    enforcer.remove().unwrap();
    let (mut fresh, _) = Enforcer::start_with(Kernel::open().unwrap(), literal, &world.plan()).unwrap();
    assert_eq!(shape(&mut fresh), without);
    fresh.remove().unwrap();
    assert_eq!(*fresh.programmed(), NodePlan::default());
}

/// `add table inet palisade`, without content.
fn make_table() {
    let name = [&13u16.to_ne_bytes()[..], &1u16.to_ne_bytes(), b"palisade\0\0\0\0"].concat();
    let batch = [
        message(0x10, 1, 1, 0, [0, 10], &[]),
        message(0x0a00, 0x405, 2, 1, [0, 0], &name),
        message(0x11, 1, 3, 0, [0, 10], &[]),
    ];
    let mut socket = NetlinkSocket::open().unwrap();
    socket.send(&batch.concat()).unwrap();
    assert_eq!(socket.receive(true).unwrap()[16..20], [0; 4], "table made");
}
