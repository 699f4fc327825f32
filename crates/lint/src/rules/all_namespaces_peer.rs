//! `all-namespaces-peer`: finds data stores that every pod of every namespace may reach.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, NamespaceMatch, Peer};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL045",
    name: "all-namespaces-peer",
    level: Level::Note,
    what: "Finds data stores that every pod of every namespace may reach.",
    why: "An empty namespaceSelector selects all namespaces, also those that will be made. For pods with the port of a data store that is rarely meant.",
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
    - namespaceSelector: {}
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

/// PostgreSQL, MySQL, Redis, MongoDB, Elasticsearch, Cassandra, etcd, memcached, Kafka.
const DATA: [u16; 9] = [5432, 3306, 6379, 27_017, 9200, 9042, 2379, 11_211, 9092];

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        let pods = cx.destinations(policy, direction, rule);
        let holds_data = pods.iter().flat_map(|pod| pod.ports.iter()).any(|port| DATA.contains(&port.port));
        if direction != Direction::Ingress || !holds_data {
            continue;
        }
        for entry in rule.peers.iter().flatten() {
            let Peer::Pods(choice) = &entry.peer else { continue };
            let everywhere = matches!(&choice.namespaces, NamespaceMatch::Selected(s) if s.is_everything());
            if everywhere && choice.pods.is_everything() {
                let message =
                    "every pod of every namespace may connect to these pods, which hold data".to_owned();
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}
