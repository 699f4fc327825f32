//! What the kernel sends over netlink.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_nft::{
    Enforcer, EnforcerOptions, Hook, NodeLinks, conntrack,
    drops::Counters,
    fuzzing,
    reader::{Arrival, Packet, Ruleset, State},
    survey::Survey,
    verify,
};
use palisade_policy::{Compiler, NodePlan, Protocol};

use crate::kernel::{Behavior, kernel};

/// Dumps of nf_tables: tables, chains, rules, sets, elements. Everything that reads them is run, on a kernel that holds what the bytes
/// list: the reader and its evaluation of packets, the survey, the counters, the comparison with a plan, and the way from what was
/// found to a plan.
pub fn dump(data: &[u8]) {
    let mut kernel = kernel(data, Behavior::Holds);
    _ = Survey::read(&mut kernel);
    _ = Counters::read(&mut kernel);
    if let Ok(Some(ruleset)) = Ruleset::read(&mut kernel) {
        for packet in packets() {
            _ = ruleset.evaluate(&packet);
        }
    }
    let plan = plan();
    if let Ok(verification) = verify(&mut kernel, &EnforcerOptions::default(), &NodeLinks::default(), &plan) {
        for difference in &verification.differences {
            assert!(!difference.to_string().is_empty());
        }
    }
    if let Ok((mut enforcer, _)) = Enforcer::start(kernel, &plan) {
        assert_eq!(*enforcer.programmed(), plan);
        _ = enforcer.repair();
    }
}

fn packets() -> impl Iterator<Item = Packet> {
    let ends: [(IpAddr, IpAddr); 2] = [
        ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
    ];
    ends.into_iter().flat_map(|(source, destination)| {
        [(Hook::Forward, State::New, Protocol::Tcp), (Hook::Input, State::Established, Protocol::Udp)].map(
            |(hook, state, protocol)| Packet {
                hook,
                source,
                destination,
                protocol,
                port: 80,
                state,
                labels: [0; 16],
                arrival: Arrival::default(),
            },
        )
    })
}

/// A small plan with a bit of everything, the one from which the seeds were recorded.
pub fn plan() -> NodePlan {
    const MANIFEST: &str = include_str!("../plan.yaml");
    let input = palisade_manifest::Input::Text { name: "plan.yaml".to_owned(), text: MANIFEST.to_owned() };
    let loaded = palisade_manifest::load(&[input], &palisade_manifest::LoadOptions::default());
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    Compiler::from_cluster("n1".into(), &loaded.cluster).plan().clone()
}

/// Replies of any kind to dumps, single requests and transactions: lost, repeated, out of order, cut off, errors with and without an
/// extended acknowledgement.
pub fn replies(data: &[u8]) {
    let Some((what, data)) = data.split_first() else { return };
    let mut kernel = kernel(data, Behavior::Recites);
    let error = match what % 5 {
        0 => Ruleset::read(&mut kernel).err(),
        1 => Enforcer::start(kernel, &plan()).err(),
        2 => palisade_nft::remove(&mut kernel).err(),
        3 => Survey::read(&mut kernel).err(),
        _ => conntrack::list(&mut kernel, &ends()).err(),
    };
    if let Some(error) = error {
        assert!(!error.to_string().is_empty());
    }
}

fn ends() -> BTreeSet<IpAddr> {
    [IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])].into()
}

/// Entries of connection tracking. An entry that is listed has one of the ends that were asked for, and can be named to the kernel again.
pub fn entries(data: &[u8]) {
    let mut kernel = kernel(data, Behavior::Holds);
    let ends = ends();
    let Ok(entries) = conntrack::list(&mut kernel, &ends) else { return };
    for entry in &entries {
        assert!(
            ends.contains(&entry.source) || ends.contains(&entry.destination),
            "{entry} was not asked for"
        );
        _ = conntrack::revoke(&mut kernel, entry);
        _ = conntrack::restore(&mut kernel, entry);
    }
    if let Ok(revoked) = conntrack::list_revoked(&mut kernel) {
        assert!(revoked.iter().all(conntrack::ConntrackEntry::is_revoked));
    }
}

/// Packets that the kernel logs.
pub fn drops(data: &[u8]) {
    fuzzing::drops(data);
}

/// The kernel's notifications about changes of nftables.
pub fn notifications(data: &[u8]) {
    fuzzing::notifications(data);
}

/// Packets that wait for a verdict, and the resets that take their place.
pub fn queued_packets(data: &[u8]) {
    fuzzing::queued_packets(data);
}
