//! `reply-rule`: finds rules for the ports from which clients connect.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::PortMatch;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL036",
    name: "reply-rule",
    level: Level::Note,
    what: "Finds rules for the ports from which clients connect.",
    why: "Policies are stateful: replies of an allowed connection are allowed. A rule for the high ports, as stateless firewalls need it for replies, opens new connections to all of them instead.",
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
  policyTypes: [Egress]
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 1024
      endPort: 65535
      protocol: TCP
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

/// The first ports of ranges from which clients connect: RFC 6056, Linux, IANA.
const EPHEMERAL: [u16; 3] = [1024, 32_768, 49_152];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, _, rule) in cx.allowing() {
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Numbers { first, last, .. } = &entry.port else { continue };
            if EPHEMERAL.contains(first) && *last >= 60_999 {
                let message = format!(
                    "{first} to {last} are the ports from which clients connect: replies need no rule, and this one opens new connections"
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}
