//! `protocol-omitted`: finds ports without a protocol, which are TCP ports.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL005",
    name: "protocol-omitted",
    level: Level::Warning,
    what: "Finds ports without a protocol, which are TCP ports.",
    why: "An absent protocol means TCP. For services that use UDP, such as DNS, NTP, syslog and StatsD, that is rarely meant, and their packets are dropped. For other ports, the finding is a note. AdminNetworkPolicies and BaselineAdminNetworkPolicies have the same default; the ports of a ClusterNetworkPolicy name their protocol.",
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
  - ports:
    - port: 514
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
  - ports:
    - port: 514
      protocol: UDP
"#
);

/// Ports of services that use UDP, or UDP as well.
const UDP: [i128; 24] = [
    53, 67, 68, 69, 123, 161, 162, 500, 514, 1194, 1812, 1813, 3478, 4500, 4789, 5353, 6081, 6343, 6831,
    6832, 8125, 8472, 19_302, 51_820,
];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (written, key) in cx.written() {
        let is_admin = written.name.0 != "NetworkPolicy";
        for rule in &written.rules {
            // The other protocol may be another item.
            let other = |number| rule.ports.iter().any(|p| p.has_protocol && p.number == number);
            for port in rule.ports.iter().filter(|port| !port.has_protocol) {
                let is_udp = port.number.is_some_and(|n| UDP.contains(&n)) && !other(port.number);
                let origin = cx.origin(&written.file, port.start);
                let (level, end) = match port.number {
                    Some(n) if is_udp && is_admin => {
                        (Level::Warning, format!("so the rule doesn't match UDP port {n}"))
                    }
                    Some(n) if is_udp => (Level::Warning, format!("so UDP port {n} stays closed")),
                    _ => (Level::Note, "which is TCP".to_owned()),
                };
                let message = format!(
                    "the port has no protocol, {}{end}",
                    if is_udp { "which means TCP, " } else { "" }
                );
                out.push(Found::of(key, origin.as_ref(), message).at_level(level));
            }
        }
    }
    out
}
