//! `sensitive-port-open`: finds ports of databases and of administration that every address may reach.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, PortMatch, Protocol};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL046",
    name: "sensitive-port-open",
    level: Level::Warning,
    what: "Finds ports of databases and of administration that every address may reach.",
    why: "Ports such as 22, 2379, 3306, 5432, 6379, 9200, 10250 and 27017 give access to data or to machines. The rule allows every address to connect, also of the internet if it can reach the pods.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 0.0.0.0/0}
    ports:
    - port: 5432
      protocol: TCP
"#;

const GOOD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: networking.k8s.io/v1
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
    ports:
    - port: 5432
      protocol: TCP
"#;

/// SSH, etcd, MySQL, RDP, PostgreSQL, VNC, Redis, Elasticsearch, the kubelet, memcached, MongoDB.
const SENSITIVE: [u16; 13] =
    [22, 2379, 2380, 3306, 3389, 5432, 5900, 6379, 9200, 9300, 10_250, 11_211, 27_017];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        let whole = |peer: &Peer| matches!(peer, Peer::Block(block) if block.cidr.prefix_len() == 0 && block.except.is_empty());
        let wide = rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|entry| whole(&entry.peer)));
        if direction != Direction::Ingress || !wide {
            continue;
        }
        for entry in rule.ports.iter().flatten() {
            let PortMatch::Numbers { protocol: Protocol::Tcp, first, last } = &entry.port else { continue };
            if first == last && SENSITIVE.contains(first) {
                let message = format!("every address may connect to port {first}");
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}
