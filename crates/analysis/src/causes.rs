//! Likely mistakes: why policies that look as if they allowed a connection don't.
//!
//! Each cause has a file with a function that looks for it in one denied direction, and a row in `CAUSES`. A finding has
//! one sentence, the position of the wrong word, and, if it is clear how to correct it, the edit. Findings are guesses
//! about what was meant; verdicts never depend on them.

mod address;
mod case;
mod default_deny;
mod host_network;
mod namespaces;
mod policy_types;
mod port_names;
mod protocols;
mod selects_nothing;
mod service_ports;
mod spelling;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{Cluster, Direction, Origin, PolicyKey, Rule, Tier};

use crate::edit::{DeclaredWorkloads, Edit, Pair, Question};

use case::Case;
pub use spelling::{digits, near};

/// A likely mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of mistake, for programs: `service-port`.
    pub code: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub text: String,
    /// The position of the wrong word.
    pub origin: Option<Origin>,
    /// The edit that corrects it, if it is clear.
    pub mend: Option<Edit>,
}

/// The rules that policies have for a direction that their `policyTypes` don't name.
pub type IgnoredRules = BTreeMap<(PolicyKey, Direction), Vec<Rule>>;

/// Everything that is known beside the question.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What manifests declare about the labels of workloads.
    pub workloads: &'a DeclaredWorkloads,
    /// The rules that policies ignore.
    pub ignored: &'a IgnoredRules,
}

/// Looks for one kind of mistake in a direction of a pair.
type Detect = fn(&Case<'_>) -> Vec<Finding>;

/// All causes, the clearest first.
const CAUSES: &[Detect] = &[
    service_ports::in_rules,
    address::of_service,
    port_names::find,
    template::of_peers,
    template::of_subjects,
    namespaces::labels,
    namespaces::other,
    spelling::of_pods,
    host_network::find,
    policy_types::find,
    selects_nothing::misspelt,
    selects_nothing::other_namespace,
    protocols::find,
    service_ports::in_question,
    address::in_exception,
];

/// Causes that only tell what is missing, for want of a mistake.
const OTHERWISE: &[Detect] = &[spelling::half, default_deny::find];

/// The most pairs of a question that are examined.
const MAX_PAIRS: usize = 32;

/// The most findings.
const MAX_FINDINGS: usize = 4;

/// Returns likely mistakes that keep a question from being allowed, the clearest first. If it is allowed because nothing
/// isolates a pod: those that keep policies from isolating it. Empty if nothing was found.
///
/// `O(pairs × policies × (rules + pods of a namespace))`, with a bound on the pairs.
#[must_use]
pub fn find(facts: Facts<'_>, question: &Question) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    for list in [CAUSES, OTHERWISE] {
        for cause in list {
            for case in cases(facts, &question.pairs) {
                out.extend(cause(&case));
            }
        }
        if !out.is_empty() {
            break;
        }
    }
    let mut seen = BTreeSet::new();
    out.retain(|finding| seen.insert((finding.text.clone(), finding.origin.clone())));
    out.truncate(MAX_FINDINGS);
    out
}

/// Returns the directions that deny a pair, or that would if a policy without effect had the effect that was meant.
fn cases<'a>(facts: Facts<'a>, pairs: &'a [Pair]) -> impl Iterator<Item = Case<'a>> {
    let of = move |pair: &'a Pair| {
        Direction::BOTH.into_iter().filter_map(move |direction| Case::new(facts, pair, direction))
    };
    pairs.iter().take(MAX_PAIRS).flat_map(of)
}

/// Returns the tier of NetworkPolicies, whose mistakes are looked for.
const fn tier() -> Tier {
    Tier::Developer
}
