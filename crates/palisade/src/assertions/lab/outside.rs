//! The outside addresses of a lab that assertions are about.
//!
//! A host that a rule names gets addresses of its own, which the nodes of the lab treat as learned: one of each part of the
//! internet that rules distinguish, as the engine judges it. What is said of the internet is not tried with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_analysis::{assertion::Assertion, regions};
use palisade_policy::{Cluster, DomainName, Endpoint, LearnedName};

use super::super::{check::TestResult, hosts};

/// The most addresses of hosts. Each is tried from every pod.
const MOST_OF_HOSTS: usize = 24;

/// The most addresses for the ends of one assertion.
const MOST_OF_AN_ASSERTION: usize = 4;

/// Returns addresses of the hosts among the destinations of assertions that rules have by name. They are none of `others`.
pub(super) fn learned(
    cluster: &Cluster,
    results: &[TestResult],
    namespace: &str,
    others: &[IpAddr],
) -> BTreeMap<DomainName, LearnedName> {
    let parts = results.iter().flat_map(|result| hosts::parts(cluster, &result.written, namespace));
    let names: BTreeSet<DomainName> = parts.filter_map(|part| part.name().cloned()).collect();
    let names: Vec<DomainName> = names.into_iter().take(MOST_OF_HOSTS).collect();
    if names.is_empty() {
        return BTreeMap::new();
    }
    let mut of_parts = regions::several_samples(cluster, names.len() + others.len());
    of_parts.truncate(MOST_OF_HOSTS / names.len());
    of_parts.iter_mut().for_each(|part| part.retain(|address| !others.contains(address)));
    let learned = names.into_iter().enumerate().map(|(at, name)| {
        let addresses = of_parts.iter().filter_map(|part| part.get(at).copied()).collect();
        (name.clone(), LearnedName { name, addresses })
    });
    learned.collect()
}

/// Returns addresses for ends outside of which `others` has none.
pub(super) fn unseen(results: &[TestResult], others: &[IpAddr]) -> BTreeSet<IpAddr> {
    let assertions = results.iter().flat_map(|result| &result.assertions);
    assertions.flat_map(|assertion| of_assertion(assertion, others)).collect()
}

fn of_assertion(assertion: &Assertion, others: &[IpAddr]) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for ends in [&assertion.from, &assertion.to] {
        let single = ends.endpoints.iter().filter_map(|end| match end {
            Endpoint::External(address) => Some(*address),
            Endpoint::Pod { .. } | Endpoint::Node { .. } => None,
        });
        let is_seen = |address: &IpAddr| ends.ranges.iter().any(|range| range.contains(*address));
        let ranges = if others.iter().any(is_seen) { &[][..] } else { &ends.ranges };
        out.extend(single.chain(ranges.iter().map(|range| range.first)).take(MOST_OF_AN_ASSERTION));
    }
    out
}
