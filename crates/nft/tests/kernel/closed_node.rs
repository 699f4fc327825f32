//! The rules of a node whose pods are not known yet. Their packets are tested with the agent, on a node with pods.

use libtest_mimic::Trial;
use palisade_nft::{
    CLOSED_NODE_TABLE, ClosedPods, Enforcer, EnforcerOptions, Kernel, close_node, open_node, survey::Survey,
};
use palisade_policy::{Family, IpRange, NodePlan};

use crate::sandbox::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_node_without_rules_is_closed_and_opened", closed_and_opened),
        trial("a_node_with_rules_is_not_closed", with_rules),
    ]
}

fn range(first: &str, last: &str) -> IpRange {
    IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
}

/// The chains of the table, if it exists.
fn chains(kernel: &mut Kernel) -> Option<Vec<String>> {
    let tables = Survey::read(kernel).unwrap().tables;
    tables.into_iter().find(|(table, _)| table.name == CLOSED_NODE_TABLE).map(|(_, chains)| chains)
}

fn closed_and_opened() {
    let mut kernel = Kernel::open().unwrap();
    let exempt = EnforcerOptions { egress_to_own_node: false, ..EnforcerOptions::default() };
    // Adjacent, overlapping and equal ranges, single addresses, and the ends of the address spaces.
    let adjacent = [range("10.0.0.0", "10.0.0.255"), range("10.0.1.0", "10.0.1.255")];
    let overlapping = [range("10.0.0.0", "10.0.255.255"), range("10.0.1.0", "10.0.1.255"), range("10.0.1.7", "10.0.1.7")];
    let both = [range("255.255.255.0", "255.255.255.255"), range("fd00::", "fd00::ffff"), range("::", "::")];
    let whole = Family::BOTH.map(IpRange::whole);
    let cases: [&[IpRange]; 5] = [&adjacent, &overlapping, &both, &whole, &[]];
    for ranges in cases {
        // Each replaces the one before.
        for (options, hooks) in [(EnforcerOptions::default(), 2), (exempt.clone(), 1)] {
            assert!(close_node(&mut kernel, &options, &ClosedPods::In(ranges.to_vec())).unwrap(), "{ranges:?}");
            assert_eq!(chains(&mut kernel).unwrap().len(), hooks, "{ranges:?}");
        }
    }
    assert!(close_node(&mut kernel, &EnforcerOptions::default(), &ClosedPods::Forwarded).unwrap());
    assert_eq!(chains(&mut kernel).unwrap(), ["forward"]);
    assert!(open_node(&mut kernel).unwrap());
    assert_eq!(chains(&mut kernel), None);
    assert!(!open_node(&mut kernel).unwrap());
    // Removing the agent's rules opens the node too.
    assert!(close_node(&mut kernel, &EnforcerOptions::default(), &ClosedPods::Forwarded).unwrap());
    assert!(!palisade_nft::remove(&mut kernel).unwrap());
    assert_eq!(Survey::read(&mut kernel).unwrap().tables.len(), 0);
}

fn with_rules() {
    let (mut enforcer, _) = Enforcer::start(Kernel::open().unwrap(), &NodePlan::default()).unwrap();
    let mut kernel = Kernel::open().unwrap();
    assert!(!close_node(&mut kernel, &EnforcerOptions::default(), &ClosedPods::Forwarded).unwrap());
    assert_eq!(chains(&mut kernel), None);
    enforcer.remove().unwrap();
    assert!(close_node(&mut kernel, &EnforcerOptions::default(), &ClosedPods::Forwarded).unwrap());
    open_node(&mut kernel).unwrap();
}
