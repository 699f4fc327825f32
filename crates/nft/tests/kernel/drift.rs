//! Changes of the table by other programs are detected and repaired.

use std::{process::Command, time::Duration};

use libtest_mimic::Trial;
use palisade_nft::{
    Enforcer, Kernel,
    drift::{Drift, Watcher},
};

use crate::{
    agreement::{agrees, shape},
    random::{Random, World},
    sandbox::{trial, trial_with_nft},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_with_nft("changes_by_other_programs_are_detected_and_repaired", noticed),
        trial("own_transactions_are_not_reported", own),
    ]
}

fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status();
    assert!(
        status.expect("the nft program (package nftables) acts as another program").success(),
        "{command}"
    );
}

/// Returns what the watcher reports within this time.
fn reported(watcher: &mut Watcher, patience: Duration) -> Vec<Drift> {
    let mut out = Vec::new();
    if watcher.wait(patience).unwrap() {
        while let Some(drift) = watcher.read().unwrap() {
            out.push(drift);
        }
    }
    out
}

fn noticed() {
    let random = &mut Random::new(3);
    let mut world = World::new(random, 20);
    while world.plan().ingress.is_empty() {
        world.step(random);
    }
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    let whole = shape(&mut enforcer);
    let mut watcher = Watcher::open(enforcer.kernel()).unwrap();
    for (words, first) in [
        ("flush ruleset", "removal of"),
        ("delete table inet palisade", "removal of"),
        ("flush chain inet palisade forward", "removal of a rule of chain forward"),
        ("flush map inet palisade ingress4", "elements out of set ingress4"),
        ("add rule inet palisade forward accept", "a rule of chain forward"),
        ("add table inet palisade { set more { type mark; }; }", "set more"),
    ] {
        nft(words);
        let drifts = reported(&mut watcher, Duration::from_secs(20));
        let Some(Drift::Changed { first: what, by, .. }) = drifts.first() else {
            panic!("{words}: {drifts:?}")
        };
        let removes = words == "flush ruleset" || words.starts_with("delete table");
        assert_eq!(drifts[0].is_gone(), removes, "{words}");
        if removes {
            // Without reading the table.
            assert_eq!(enforcer.recreate().unwrap().transactions, 1);
            assert_eq!(shape(&mut enforcer), whole, "{words}");
            enforcer.recreate().unwrap();
            assert_eq!(shape(&mut enforcer), whole, "{words}: recreated although it exists");
            nft(words);
            reported(&mut watcher, Duration::from_secs(20));
        }
        assert!(what.contains(first), "{words}: {what}");
        assert_eq!(by.name.as_deref(), Some("nft"), "{words}");
        assert!(by.process.is_some() && drifts[0].to_string().contains("nft (process "), "{}", drifts[0]);
        assert_ne!(shape_or_none(&mut enforcer), Some(whole.clone()), "{words}");
        enforcer.repair().unwrap();
        assert_eq!(shape(&mut enforcer), whole, "{words}");
        agrees(&mut enforcer, &world, random, words);
        assert_eq!(
            reported(&mut watcher, Duration::from_millis(50)),
            [],
            "{words}: the repair is not reported"
        );
    }
    // Changes of other tables are not reported.
    nft("add table inet other");
    nft("add table ip palisade");
    assert_eq!(reported(&mut watcher, Duration::from_millis(100)), []);
    enforcer.remove().unwrap();
}

fn shape_or_none(enforcer: &mut Enforcer) -> Option<palisade_nft::reader::Ruleset> {
    let mut ruleset = palisade_nft::reader::Ruleset::read(enforcer.kernel()).unwrap()?;
    ruleset.sets.remove("generation");
    Some(ruleset)
}

fn own() {
    let random = &mut Random::new(4);
    let mut world = World::new(random, 20);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    let mut watcher = Watcher::open(enforcer.kernel()).unwrap();
    for _ in 0..50 {
        world.step(random);
        let delta = enforcer.programmed().delta_to(&world.plan());
        enforcer.commit(&delta).unwrap();
    }
    enforcer.repair().unwrap();
    assert_eq!(reported(&mut watcher, Duration::from_millis(100)), []);
    // A second agent is another program.
    let (mut second, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    let drifts = reported(&mut watcher, Duration::from_secs(20));
    assert!(matches!(drifts[..], [Drift::Changed { .. }]), "{drifts:?}");
    assert!(!enforcer.is_in_sync().unwrap());
    second.remove().unwrap();
}
