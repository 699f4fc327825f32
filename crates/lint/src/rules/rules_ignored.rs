//! `rules-ignored`: finds rules in a direction that policyTypes leaves out.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, PolicyKey, Rule};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL002",
    name: "rules-ignored",
    level: Level::Error,
    what: "Finds rules in a direction that policyTypes leaves out.",
    why: "The API server accepts these rules, and nothing applies them: the policy does not isolate its pods in that direction, so everything is allowed there.",
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
  egress:
  - to:
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
  policyTypes: [Ingress, Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: web
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let of_direction = |((key, direction), rules): (&(PolicyKey, Direction), &Vec<Rule>)| {
        let (own, end) = match direction {
            Direction::Ingress => ("Ingress", "enters"),
            Direction::Egress => ("Egress", "leaves"),
        };
        let count = rules.len();
        let message = format!(
            "policyTypes has no {own}, so {count} {} ignored, and the policy doesn't restrict what {end} its pods",
            if count == 1 { "rule is" } else { "rules are" },
        );
        Found::of(key, rules.first()?.origin.as_ref(), message).into()
    };
    cx.loaded.ignored_rules.iter().filter_map(of_direction).collect()
}
