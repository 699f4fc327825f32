//! Verification names every difference, object by object.

use palisade_testkit::seeds;
use std::process::Command;

use libtest_mimic::Trial;
use palisade_nft::{
    Difference, Enforcer, EnforcerOptions, Kernel, LINEAR_LOOKUPS, NodeLinks, Verification, verify,
};

use crate::{
    random::{Random, World},
    sandbox::{trial, trial_with_nft},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_programmed_plan_agrees_with_the_kernel", agrees),
        trial_with_nft("every_kind_of_difference_is_reported", damage),
        trial("a_plan_other_than_the_programmed_one_differs", other_plan),
    ]
}

fn agrees() {
    for seed in seeds(0..20) {
        let random = &mut Random::new(seed);
        let mut world = World::new(random, [4, LINEAR_LOOKUPS + 1, 40][seed as usize % 3]);
        let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
        for _ in 0..4 {
            world.step(random);
            let delta = enforcer.programmed().delta_to(&world.plan());
            enforcer.commit(&delta).unwrap();
            let Verification { differences, generation, chains, rules, sets, elements, flows } =
                enforcer.verify().unwrap();
            assert_eq!(differences, [], "seed {seed}");
            // And the transaction number.
            assert_eq!(enforcer.elements(), elements + 1, "seed {seed}: the same as in the kernel");
            assert!(generation.is_some() && chains >= 3 && sets >= 9 && rules >= 20, "seed {seed}");
            let plan = world.plan();
            assert!(flows > 0 || (plan.ingress.is_empty() && plan.egress.is_empty()), "seed {seed}");
        }
        let survivor = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap().0;
        assert_eq!(survivor.elements(), enforcer.elements(), "after a restart");
        enforcer.remove().unwrap();
        assert_eq!(enforcer.elements(), 0);
    }
}

fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status();
    assert!(
        status.expect("the nft program (package nftables) acts as another program").success(),
        "{command}"
    );
}

/// Returns a name in the listing with this prefix.
fn named(prefix: &str) -> String {
    let listing = crate::listing::list();
    let mut words = listing.split_whitespace().filter(|word| word.starts_with(prefix));
    words.next().unwrap_or_else(|| panic!("no {prefix}")).to_owned()
}

fn damage() {
    let random = &mut Random::new(11);
    let mut world = World::new(random, 5);
    let v4 = |a: &&std::net::IpAddr| a.is_ipv4();
    while world.plan().ingress.keys().filter(v4).count() < 2 || world.plan().peer_sets.len() < 3 {
        world.step(random);
    }
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    let (group, row) = (named("group_"), named("row_ingress_"));
    let pod = *world.plan().ingress.keys().find(v4).unwrap();
    let stranger = if group.ends_with('6') { "2001:db8::77" } else { "192.0.2.77" };
    let cases: Vec<(String, &str, String)> = vec![
        ("delete table inet palisade".into(), "no-table", "there is no table inet palisade".into()),
        ("add chain inet palisade extra".into(), "extra-chain", "chain extra is unexpected".into()),
        ("add set inet palisade more { type mark; }".into(), "extra-set", "set more is unexpected".into()),
        (format!("flush chain inet palisade {row}"), "rule", format!("of chain {row} is missing: `")),
        (
            "insert rule inet palisade forward accept".into(),
            "decision",
            "allowed by the kernel's rules".into(),
        ),
        (
            "insert rule inet palisade forward tcp dport 22 counter accept".into(),
            "rule",
            "rule 0 of chain forward is unexpected: [meta key 16, == 0x06".into(),
        ),
        (
            format!("delete element inet palisade ingress4 {{ {pod} }}"),
            "elements",
            format!("set ingress4 (IPv4 pods isolated for ingress) lacks {pod} : jump ingress_"),
        ),
        (
            format!("add element inet palisade {group} {{ {stranger} }}"),
            "elements",
            format!("has unexpected {stranger}"),
        ),
    ];
    for (command, kind, line) in cases {
        nft(&command);
        let differences = enforcer.verify().unwrap().differences;
        let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert!(differences.iter().any(|d| d.kind() == kind), "{command}: {lines:#?}");
        assert!(lines.iter().any(|l| l.contains(&line)), "{command}: no {line:?} in {lines:#?}");
        enforcer.repair().unwrap();
        assert_eq!(enforcer.verify().unwrap().differences, [], "{command}");
    }
    // Another program's table of the same name.
    nft("delete table inet palisade");
    nft(
        "add table inet palisade { chain forward { type filter hook input priority 5; policy drop; }; set self4 { type mark; }; }",
    );
    let differences = enforcer.verify().unwrap().differences;
    let has = |text: &str| differences.iter().any(|d| d.to_string().contains(text));
    for expected in [
        "belongs to another program: it has no comment",
        "chain forward is on hook 1 with priority 5 and policy drop instead of on hook 2 with priority 0 and policy accept",
        "set self4 has keys or data of another type",
        "set egress4 is missing",
        "chain input is missing",
    ] {
        assert!(has(expected), "no {expected:?} in {differences:#?}");
    }
    enforcer.repair().unwrap();
    assert!(enforcer.verify().unwrap().agrees());
    enforcer.remove().unwrap();
}

fn other_plan() {
    let random = &mut Random::new(12);
    let mut world = World::new(random, 5);
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &world.plan()).unwrap();
    let old = world.plan();
    while world.plan() == old || old.delta_to(&world.plan()).members.is_empty() {
        world.step(random);
    }
    let seen =
        verify(enforcer.kernel(), &EnforcerOptions::default(), &NodeLinks::default(), &world.plan()).unwrap();
    assert!(!seen.agrees());
    assert_eq!(
        verify(enforcer.kernel(), &EnforcerOptions::default(), &NodeLinks::default(), &old)
            .unwrap()
            .differences,
        []
    );
    let literal = EnforcerOptions { egress_to_own_node: false, ..EnforcerOptions::default() };
    let seen = verify(enforcer.kernel(), &literal, &NodeLinks::default(), &old).unwrap();
    assert!(!seen.agrees());
    let of_node = |d: &Difference| match d {
        Difference::Rule { chain, .. } => chain == "input",
        Difference::ExtraChain { chain } => ["output", "node_link", "input4", "input6"].contains(&&**chain),
        _ => false,
    };
    assert!(seen.differences.iter().all(of_node), "{:?}", seen.differences);
    enforcer.remove().unwrap();
}
