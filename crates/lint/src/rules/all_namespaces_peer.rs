//! `all-namespaces-peer`: finds data stores that every pod of every namespace may reach.

use crate::{admits::ports, wide::is_every_namespace};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Peer, Pod, Policy, PortMatch, PortSet, Protocol, Rule, Traffic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL045",
    name: "all-namespaces-peer",
    level: Level::Warning,
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
    for (policy, direction, rule) in cx.allowing() {
        if direction != Direction::Ingress || !opens_data(cx, policy, rule) {
            continue;
        }
        for entry in rule.peers.iter().flatten() {
            let Peer::Pods(choice) = &entry.peer else { continue };
            if is_every_namespace(choice) && choice.pods.is_everything() {
                let message =
                    "every pod of every namespace may connect to these pods, which hold data".to_owned();
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

/// Whether an ingress rule opens the port of a data store: one that a pod declares, or one that it names.
fn opens_data(cx: &Context<'_>, policy: &Policy, rule: &Rule) -> bool {
    let data = Traffic::of(Protocol::Tcp, PortSet::of_ranges(DATA.map(|port| (port, port))));
    let mut selected = cx.selected(policy).flat_map(|class| class.by_ports.iter()).peekable();
    let declares = |pod: &Pod| {
        let declared =
            pod.ports.iter().map(|port| Traffic::of(port.protocol, PortSet::range(port.port, port.port)));
        let declared = declared.fold(Traffic::none(), |sum, one| sum.union(&one));
        // Of a pod that declares no ports, only those are known that the rule names.
        if declared.is_none() && rule.ports.is_some() { data.clone() } else { declared.intersection(&data) }
    };
    let named = rule.ports.iter().flatten().any(|entry| {
        matches!(entry.port, PortMatch::Numbers { first, last, .. } if first == last && DATA.contains(&first))
    });
    (selected.peek().is_none() && named)
        || selected.any(|pod| !ports(rule, Some(pod)).intersection(&declares(pod)).is_none())
}
