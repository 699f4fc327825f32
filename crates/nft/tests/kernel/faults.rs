//! Failures at every point leave the old rules active, and name what could not be programmed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use libtest_mimic::Trial;
use nix::libc::{EEXIST, ENOBUFS, ENOENT, ENOMEM, EPERM};
use palisade_nft::{Enforcer, Error, Kernel, reader::Ruleset};
use palisade_policy::{
    AddressChanges, Delta, Direction, MemberChanges, NodePlan, PeerSet, PeerSetId, PolicyTable,
    PolicyTableId, PortSet, Protocol, Traffic,
};
use palisade_testkit::seeds;

use crate::{
    agreement::{agrees, shape},
    random::{Random, World},
    sandbox::trial,
    scripted::{Fault, kernel},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_refusal_names_the_object_and_changes_nothing", refusals),
        trial("a_refusal_points_at_the_element", pointed),
        trial("interruptions_and_full_buffers_are_handled", handled),
        trial("a_failure_in_any_transaction_rolls_back_the_others", rolled_back),
        trial("the_next_commit_repairs_after_a_failed_rollback", failed_rollback),
        trial("a_table_that_another_program_deleted_is_detected_and_repaired", repaired),
        trial("contradictory_plans_are_refused_completely", contradictions),
    ]
}

/// Large enough for any chain with its rules, but much smaller than the changes of [`large_pair`].
const SMALL: usize = 14_000;

/// Like [`pair`], but the difference takes several transactions of [`SMALL`] bytes.
fn large_pair(seed: u64) -> (World, World, Delta) {
    let random = &mut Random::new(seed);
    let world = World::new(random, 20);
    let mut next = world.clone();
    for _ in 0..40 {
        next.step(random);
    }
    let delta = world.plan().delta_to(&next.plan());
    (world, next, delta)
}

/// Returns a random plan, another plan, and the difference.
fn pair(seed: u64) -> (World, World, Delta) {
    let random = &mut Random::new(seed);
    let world = World::new(random, 6);
    let mut next = world.clone();
    loop {
        next.step(random);
        let delta = world.plan().delta_to(&next.plan());
        if !delta.tables_set.is_empty() && !delta.ingress.set.is_empty() && !world.plan().peer_sets.is_empty()
        {
            return (world, next, delta);
        }
    }
}

fn refusals() {
    let pod: IpAddr = "10.244.0.3".parse().unwrap();
    let plan = isolated(pod);
    let (kernel, script) = kernel();
    let (mut enforcer, _) = Enforcer::start(kernel, &NodePlan::default()).unwrap();
    let before = shape(&mut enforcer);
    let delta = NodePlan::default().delta_to(&plan);
    // Two transactions: row chain, its rules, table chain, its rules, the number. Then the pair, the dispatch, the number.
    let mut names = Vec::new();
    for passes in [0, 1] {
        for index in 0.. {
            let fault = Fault::Refused(index, EEXIST, "the object exists");
            script.lock().unwrap().faults = (0..passes).map(|_| None).chain([Some(fault)]).collect();
            let Error::Refused { object, kernel_message, .. } = enforcer.commit(&delta).unwrap_err() else {
                panic!("message {index}");
            };
            assert_eq!(kernel_message.as_deref(), Some("the object exists"));
            let last = object.ends_with("into set generation");
            names.push(object);
            assert_eq!(*enforcer.programmed(), NodePlan::default());
            assert_eq!(shape(&mut enforcer), before);
            if last {
                break;
            }
        }
    }
    for expected in [
        "chain row_ingress_",
        "(ingress: TCP 80)",
        "rule 0 of chain row_ingress_",
        "chain ingress_01010101010101010101010101010101_4_",
        "address 10.244.0.3 into set self4",
        "for ingress of 10.244.0.3",
        "into set generation",
    ] {
        assert!(names.iter().any(|name| name.contains(expected)), "no {expected:?} in {names:#?}");
    }
    script.lock().unwrap().faults = [Some(Fault::Refused(0, EPERM, ""))].into();
    assert!(matches!(enforcer.commit(&delta), Err(Error::NoPermission(_))));
    enforcer.commit(&delta).unwrap();
    assert_eq!(*enforcer.programmed(), plan);
}

fn isolated(pod: IpAddr) -> NodePlan {
    let id = PolicyTableId([1; 16]);
    let rest = Traffic::of(Protocol::Tcp, PortSet::range(80, 80));
    let table =
        PolicyTable { direction: Direction::Ingress, exact: BTreeMap::new(), ranges: BTreeMap::new(), rest };
    NodePlan {
        ingress: BTreeMap::from([(pod, id)]),
        tables: BTreeMap::from([(id, table)]),
        ..NodePlan::default()
    }
}

/// Another program removed a member. The real kernel reports the offset of the missing element in the message.
fn pointed() {
    let members: BTreeSet<IpAddr> = (1..=9u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let mut plan = isolated([10, 0, 0, 1].into());
    let group = PeerSetId([7; 16]);
    plan.peer_sets.insert(group, PeerSet::Addresses(members.iter().copied().collect()));
    plan.tables.get_mut(&PolicyTableId([1; 16])).unwrap().exact.insert(group, Traffic::all());
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let mut others = plan.clone();
    let without = members.iter().copied().filter(|a| *a != IpAddr::from([10, 0, 0, 5])).collect();
    others.peer_sets.insert(group, PeerSet::Addresses(without));
    Enforcer::start(Kernel::open().unwrap(), &others).unwrap();
    let change = MemberChanges { removed: members, ..MemberChanges::default() };
    let error = enforcer
        .commit(&Delta { members: BTreeMap::from([(group, change)]), ..Delta::default() })
        .unwrap_err();
    let Error::Refused { object, more, .. } = &error else { panic!("{error:?}") };
    assert_eq!(object, "address 10.0.0.5 out of set group_07070707070707070707070707070707_4");
    // The transaction number differs too: two enforcers can't overwrite each other unnoticed.
    assert_eq!((error.os_error(), *more), (Some(ENOENT), 1), "{error}");
}

fn handled() {
    for seed in seeds(0..10) {
        let (world, next, delta) = pair(seed);
        let (kernel, script) = kernel();
        let (mut enforcer, _) = Enforcer::start(kernel, &world.plan()).unwrap();
        let fault = match seed % 3 {
            0 => Fault::Interrupted,
            1 => Fault::Send(ENOBUFS),
            _ => Fault::Send(ENOMEM),
        };
        script.lock().unwrap().faults = [Some(fault)].into();
        let commit = enforcer.commit(&delta).unwrap();
        assert_eq!(commit.transactions > 2, seed % 3 != 0, "{commit:?}");
        assert_eq!(*enforcer.programmed(), next.plan());
        agrees(&mut enforcer, &next, &mut Random::new(seed), &format!("seed {seed}"));
        enforcer.remove().unwrap();
    }
}

fn rolled_back() {
    for seed in seeds(0..6) {
        let (world, next, delta) = large_pair(seed);
        let (kernel, script) = kernel();
        let (mut enforcer, _) = Enforcer::start(kernel, &world.plan()).unwrap();
        let before = shape(&mut enforcer);
        // So small that many transactions are needed. Each of them fails in turn.
        script.lock().unwrap().largest = Some(SMALL);
        for failing in 0.. {
            let lost = failing % 2 == 1;
            let fault = if lost { Fault::AnswerLost } else { Fault::Refused(0, ENOENT, "gone") };
            let mut faults = vec![None; failing];
            faults.push(Some(fault));
            script.lock().unwrap().faults = faults.into();
            let outcome = enforcer.commit(&delta);
            if !script.lock().unwrap().faults.is_empty() {
                assert!(failing > 2, "seed {seed}: too few transactions");
                outcome.unwrap();
                script.lock().unwrap().faults.clear();
                break;
            }
            let error = outcome.unwrap_err();
            assert!(
                matches!((&error, lost), (Error::InvalidReply(_), true) | (Error::Refused { .. }, false)),
                "{error:?}"
            );
            assert_eq!(*enforcer.programmed(), world.plan());
            assert_eq!(shape(&mut enforcer), before, "seed {seed}, transaction {failing}");
        }
        agrees(&mut enforcer, &next, &mut Random::new(seed), &format!("seed {seed}"));
        enforcer.remove().unwrap();
    }
}

fn failed_rollback() {
    let (world, next, delta) = large_pair(3);
    let (kernel, script) = kernel();
    let (mut enforcer, _) = Enforcer::start(kernel, &world.plan()).unwrap();
    script.lock().unwrap().largest = Some(SMALL);
    // The second transaction fails, and then the first of the rollback.
    let refused = || Some(Fault::Refused(0, ENOMEM, ""));
    script.lock().unwrap().faults = [None, refused(), refused()].into();
    let error = enforcer.commit(&delta).unwrap_err();
    assert!(matches!(error, Error::RollbackFailed { .. }), "{error:?}");
    assert!(error.to_string().contains("the next commit starts with a repair"), "{error}");
    assert_eq!(error.os_error(), Some(ENOMEM));
    assert!(!enforcer.is_in_sync().unwrap());
    assert_eq!(*enforcer.programmed(), world.plan());
    enforcer.commit(&delta).unwrap();
    assert!(enforcer.is_in_sync().unwrap());
    agrees(&mut enforcer, &next, &mut Random::new(3), "after the repair");
}

fn repaired() {
    let (world, next, delta) = pair(4);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    assert!(enforcer.is_in_sync().unwrap());
    let before = shape(&mut enforcer);
    assert!(palisade_nft::remove(&mut Kernel::open().unwrap()).unwrap());
    assert!(!palisade_nft::remove(&mut Kernel::open().unwrap()).unwrap());
    assert!(!enforcer.is_in_sync().unwrap());
    let error = enforcer.commit(&delta).unwrap_err();
    assert_eq!(error.os_error(), Some(ENOENT), "{error}");
    assert_eq!(*enforcer.programmed(), world.plan());
    enforcer.repair().unwrap();
    assert_eq!(shape(&mut enforcer), before);
    enforcer.commit(&delta).unwrap();
    agrees(&mut enforcer, &next, &mut Random::new(4), "after the repair");
    // The next commit also recovers after a removal by the agent.
    enforcer.remove().unwrap();
    assert_eq!(*enforcer.programmed(), NodePlan::default());
    enforcer.commit(&NodePlan::default().delta_to(&world.plan())).unwrap();
    assert_eq!(shape(&mut enforcer), before);
}

fn contradictions() {
    let pod: IpAddr = "10.244.0.3".parse().unwrap();
    let plan = isolated(pod);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &plan).unwrap();
    let before = Ruleset::read(enforcer.kernel()).unwrap();
    let refers_to = |id| AddressChanges {
        set: BTreeMap::from([(pod, PolicyTableId([id; 16]))]),
        ..AddressChanges::default()
    };
    let no_table = Delta { ingress: refers_to(9), ..Delta::default() };
    let wrong_direction = Delta { egress: refers_to(1), ..Delta::default() };
    let removed = Delta { tables_removed: [PolicyTableId([1; 16])].into(), ..Delta::default() };
    for (delta, words) in [
        (
            no_table,
            "ingress of 10.244.0.3 refers to table 09090909090909090909090909090909, which the plan lacks",
        ),
        (
            wrong_direction,
            "egress of 10.244.0.3 refers to table 01010101010101010101010101010101, which is for the other direction",
        ),
        (
            removed,
            "ingress of 10.244.0.3 refers to table 01010101010101010101010101010101, which the plan lacks",
        ),
    ] {
        match enforcer.commit(&delta) {
            Err(Error::Plan(e)) => assert_eq!(e.to_string(), words),
            other => panic!("{other:?}"),
        }
        assert_eq!(*enforcer.programmed(), plan);
        assert_eq!(Ruleset::read(enforcer.kernel()).unwrap(), before);
    }
}
