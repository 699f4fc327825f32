//! `namespace-without-default-deny`: finds namespaces where no policy isolates all pods.

use std::collections::BTreeMap;

use crate::context::affected;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Action, Direction, Labels, Name, NamespaceMatch, ObjectKey, Origin, Policy, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL040",
    name: "namespace-without-default-deny",
    level: Level::Note,
    what: "Finds namespaces where no policy isolates all pods, by direction.",
    why: "A pod that no policy selects is open, and so is every pod that is added later with other labels. A policy with podSelector: {} and without rules isolates all of them; a cluster-wide policy of tier Baseline that denies everything does, too. Policies of other repositories are not in the input, so this is a note.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress, Egress]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    // Namespaces with pods or policies, and the directions in which one isolates all pods.
    let mut namespaces: BTreeMap<&Name, [bool; 2]> =
        cx.all_classes().map(|class| (class.namespace, [false; 2])).collect();
    let mut first: BTreeMap<&Name, &Origin> = BTreeMap::new();
    for policy in cx.policies() {
        let NamespaceMatch::Named(name) = &policy.subject.namespaces else { continue };
        let isolated = namespaces.entry(name).or_default();
        if let Some(origin) = &policy.origin {
            first.entry(name).or_insert(origin);
        }
        if policy.subject.pods.is_everything() {
            let isolates = DIRECTIONS.map(|direction| policy.rules(direction).is_some());
            *isolated = [isolated[0] | isolates[0], isolated[1] | isolates[1]];
        }
    }
    let baseline: Vec<&Policy> = cx.policies().filter(|p| p.tier == Tier::Baseline).collect();
    let mut out = Vec::new();
    for (name, isolated) in namespaces {
        let labels = cx.loaded.cluster.namespaces.get(name).map(|n| &n.labels);
        let open = |at: usize| {
            !isolated[at] && !baseline.iter().any(|p| denies_all(p, DIRECTIONS[at], name, labels))
        };
        let directions = match [open(0), open(1)] {
            [true, true] => "ingress and egress",
            [true, false] => "ingress",
            [false, true] => "egress",
            [false, false] => continue,
        };
        let key = ObjectKey { namespace: "".into(), name: name.clone() };
        let declared = cx.loaded.origins.get(&("Namespace".into(), key));
        let own = cx
            .all_classes_of(name)
            .flat_map(|class| &class.pods)
            .find_map(|pod| cx.loaded.origins.get(&("Pod".into(), pod.key.clone())));
        out.push(Found {
            origin: declared.or_else(|| first.get(name).copied()).or(own).cloned(),
            object: Some(format!("Namespace {name}")),
            affected: affected(cx.all_classes_of(name).filter(|class| !class.host_network)),
            message: format!("no policy of the namespace isolates all of its pods for {directions}"),
            ..Found::default()
        });
    }
    out
}

/// The directions in the order of the pairs above.
const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

fn denies_all(policy: &Policy, direction: Direction, namespace: &str, labels: Option<&Labels>) -> bool {
    let rules = policy.rules(direction).unwrap_or_default();
    // Rules for all pods of all namespaces, as they are written in these APIs, leave out what is outside.
    let denies = rules.iter().any(|rule| rule.action == Action::Deny && rule.ports.is_none());
    denies
        && policy.subject.pods.is_everything()
        && policy.subject.matches(namespace, labels, &Labels::default())
}
