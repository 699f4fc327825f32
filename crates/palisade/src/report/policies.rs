//! What each policy contributes.

use std::collections::HashMap;

use palisade_analysis::describe::{IdleFinder, workloads_of};
use palisade_manifest::Loaded;
use palisade_policy::{Direction, Origin};
use serde::Serialize;

use super::{
    links::{JsonLink, Links},
    sources::Sources,
};
use crate::{describe, escape, reasons::tier_word};

/// A policy, and what it contributes.
#[derive(Serialize)]
pub(super) struct JsonPolicy {
    /// `NetworkPolicy shop/web`.
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) tier: &'static str,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) directions: Vec<String>,
    /// What it does, in one sentence.
    pub(super) text: String,
    /// The workloads that it selects.
    pub(super) selects: Vec<String>,
    /// How many allowed connections its rules allow, at least in part, on the side of its pods.
    pub(super) connections: usize,
    /// How many of these no other policy allows on that side.
    pub(super) alone: usize,
    /// The parts that do nothing, and why.
    pub(super) does_nothing: Vec<String>,
    /// An index into `sources`.
    pub(super) source: Option<usize>,
}

/// Returns all policies, those without effect first.
pub(super) fn policies(
    loaded: &Loaded,
    links: &Links,
    allowed: &[JsonLink],
    sources: &mut Sources<'_>,
) -> Vec<JsonPolicy> {
    let cluster = &loaded.cluster;
    let counts = counts(links, allowed);
    let finder = IdleFinder::new(cluster);
    let mut one = |policy: &palisade_policy::Policy| {
        let name = escape::plain(&policy.key.to_string()).into_owned();
        let [connections, alone] = counts.get(&*name).copied().unwrap_or_default();
        let idle = finder.of(policy);
        let does_nothing = idle.iter().map(|part| {
            let at = part.origin.as_ref().map(|at| format!("{}: ", escape::plain(&at.to_string())));
            format!("{}{}", at.unwrap_or_default(), describe::idle_text(policy, part, cluster).text)
        });
        let directions = Direction::BOTH.into_iter().filter(|d| policy.rules(*d).is_some());
        JsonPolicy {
            namespace: (!policy.key.namespace.is_empty())
                .then(|| escape::plain(&policy.key.namespace).into_owned()),
            tier: tier_word(policy.tier),
            file: policy.origin.as_ref().map(|at| escape::plain(&at.file).into_owned()),
            line: policy.origin.as_ref().and_then(Origin::line),
            directions: directions.map(|d| d.to_string()).collect(),
            text: describe::sentence(policy),
            selects: workloads_of(cluster, &policy.subject)
                .iter()
                .map(|workload| escape::plain(&workload.to_string()).into_owned())
                .collect(),
            connections,
            alone,
            does_nothing: does_nothing.collect(),
            source: sources.at(policy.origin.as_ref()),
            name,
        }
    };
    let mut out: Vec<JsonPolicy> = cluster.policies.values().map(|policy| one(policy)).collect();
    out.sort_by_key(|policy| (!policy.selects.is_empty(), policy.does_nothing.is_empty()));
    out
}

/// Counts the connections that the rules of each policy allow, and those that no other policy of the side allows.
fn counts<'l>(links: &'l Links, allowed: &[JsonLink]) -> HashMap<&'l str, [usize; 2]> {
    let mut found: HashMap<&str, [usize; 2]> = HashMap::new();
    for link in allowed {
        let reasons = &links.reasons[link.reasons];
        for side in [&reasons.egress, &reasons.ingress] {
            let rules = || side.iter().map(|at| &links.deciders[*at]).filter(|decider| decider.rule);
            let mut names: Vec<&str> = rules().flat_map(|d| &d.policies).map(String::as_str).collect();
            names.sort_unstable();
            names.dedup();
            let alone = names.len() == 1 && rules().count() == side.len();
            for name in names {
                let counts = found.entry(name).or_default();
                counts[0] += link.pairs;
                counts[1] += if alone { link.pairs } else { 0 };
            }
        }
    }
    found
}
