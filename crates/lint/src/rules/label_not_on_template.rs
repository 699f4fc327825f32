//! `label-not-on-template`: finds selectors that match the labels of a workload's object and not those of its pods.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use crate::{matching::misses, miss::Miss};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL054",
    name: "label-not-on-template",
    level: Level::Warning,
    what: "Finds selectors that match the labels of a workload's object and not those of its pods.",
    why: "Policies match pods, whose labels are those of the pod template. Those of a CronJob's jobTemplate are on its Jobs only. As it is, the selector matches nothing.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop, labels: {tier: cart}}
spec:
  selector: {matchLabels: {run: basket}}
  template:
    metadata: {labels: {run: basket}}
    spec: {containers: [{name: main, image: example}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      tier: cart
  policyTypes: [Ingress]
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop, labels: {tier: cart}}
spec:
  selector: {matchLabels: {run: basket}}
  template:
    metadata: {labels: {run: basket}}
    spec: {containers: [{name: main, image: example}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      run: basket
  policyTypes: [Ingress]
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (selecting, miss) in misses(cx) {
        let Miss::Template(workload) = miss else { continue };
        let pods = &selecting.choice().pods;
        let labels = pods.requirements().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let message =
            format!("{workload} has the labels {labels} and its pods don't, {}", selecting.consequence());
        out.push(selecting.found(cx, pods.requirements().first(), message));
    }
    out
}
