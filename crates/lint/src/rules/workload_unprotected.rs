//! `workload-unprotected`: finds workloads that no policy isolates.

use std::collections::BTreeMap;

use crate::{
    context::Context,
    finding::{Affected, Found},
    level::Level,
    rule::LintRule,
};
use palisade_policy::{Direction, Name, ObjectKey, Pod, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL039",
    name: "workload-unprotected",
    level: Level::Note,
    what: "Finds workloads that no policy isolates, by direction.",
    why: "In a direction in which no policy isolates a pod, every connection is allowed that no cluster-wide policy denies. Policies of other repositories are not in the input, so this is a note.",
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
metadata: {name: all, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    // By namespace, kind and name, since pods of one workload may have different labels.
    let mut open: BTreeMap<(&Name, Name, Name), ([bool; 2], usize)> = BTreeMap::new();
    for class in cx.all_classes() {
        let profile = cx.profile(class);
        let is_open = |direction| {
            let mut deciding = cx.in_profile(&profile).filter(|policy| policy.tier != Tier::Admin);
            !deciding.any(|policy| policy.rules(direction).is_some())
        };
        let directions = [Direction::Ingress, Direction::Egress].map(is_open);
        if directions.contains(&true) {
            for pod in &class.pods {
                let (kind, name) = workload(pod);
                let (known, pods) = open.entry((class.namespace, kind, name)).or_default();
                *known = [known[0] | directions[0], known[1] | directions[1]];
                *pods += 1;
            }
        }
    }
    let found = open.into_iter().map(|((namespace, kind, name), ([ingress, egress], pods))| {
        let what = match (ingress, egress) {
            (true, true) => "no policy isolates its pods, so every connection from and to them is allowed",
            (true, false) => {
                "no policy isolates its pods for ingress, so every connection to them is allowed"
            }
            _ => "no policy isolates its pods for egress, so every connection from them is allowed",
        };
        let key = ObjectKey { namespace: namespace.clone(), name };
        Found {
            origin: cx.loaded.origins.get(&(kind.clone(), key.clone())).cloned(),
            object: Some(format!("{kind} {key}")),
            affected: Affected { pods, sample: vec![key.to_string()] },
            message: what.to_owned(),
            ..Found::default()
        }
    });
    found.collect()
}

fn workload(pod: &Pod) -> (Name, Name) {
    match &pod.workload {
        Some(workload) => (workload.kind.clone(), workload.name.clone()),
        None => ("Pod".into(), pod.key.name.clone()),
    }
}
