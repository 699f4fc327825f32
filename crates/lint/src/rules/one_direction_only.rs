//! `one-direction-only`: finds pods that policies isolate in one direction only.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Policy, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL049",
    name: "one-direction-only",
    level: Level::Note,
    what: "Finds pods that policies isolate in one direction only.",
    why: "In the other direction, everything is allowed. That may be meant: many clusters restrict ingress only.",
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-out, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let of_namespace = cx.policies().filter(|policy| policy.tier == Tier::Developer);
    let found = of_namespace.filter_map(|policy| {
        let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|d| policy.rules(d).is_some());
        let other = if ingress && !egress { Direction::Egress } else { Direction::Ingress };
        let mut classes = cx.selected(policy).peekable();
        let open =
            classes.peek().is_some() && classes.all(|class| !isolates(cx, policy, class.labels, other));
        (ingress != egress && open).then(|| {
            let message = format!("no policy isolates its pods for {other}, where everything is allowed");
            Found::of(&policy.key, policy.origin.as_ref(), message)
        })
    });
    found.collect()
}

/// Whether a policy of the same namespace isolates pods with these labels.
fn isolates(
    cx: &Context<'_>,
    policy: &Policy,
    labels: &palisade_policy::Labels,
    direction: Direction,
) -> bool {
    let same = |other: &Policy| other.subject.namespaces == policy.subject.namespaces;
    cx.policies()
        .any(|other| same(other) && other.rules(direction).is_some() && other.subject.pods.matches(labels))
}
