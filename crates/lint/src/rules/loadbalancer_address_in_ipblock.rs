//! `loadbalancer-address-in-ipblock`: finds addresses of load balancers in blocks, and node ports.

use crate::service_addresses::ServiceAddresses;
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, IpBlock, Peer, PolicyKey, PortMatch, Rule, Service};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL062",
    name: "loadbalancer-address-in-ipblock",
    level: Level::Warning,
    what: "Finds addresses of load balancers in blocks, and node ports of rules for the addresses of nodes.",
    why: "Inside the cluster, a connection to the address of a load balancer, to an external IP or to a node port is translated to a pod before policies see it, so a block with that address, or a rule for the node on that port, doesn't match it. A block of more than 256 addresses may be meant for others, so the finding is a note.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 203.0.113.9/32}
    ports:
    - port: 8080
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
---
apiVersion: networking.k8s.io/v1
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

fn check(cx: &Context<'_>) -> Vec<Found> {
    let known = ServiceAddresses::new(cx, |service| service.access.addresses().collect());
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        if direction != Direction::Egress {
            continue;
        }
        for entry in rule.peers.iter().flatten() {
            let Peer::Block(block) = &entry.peer else { continue };
            out.extend(known.within(block).map(|(address, service)| {
                let (level, message) = of_block(block, address, service);
                Found::of(&policy.key, entry.origin.as_ref(), message).at_level(level)
            }));
        }
        out.extend(node_ports(cx, &policy.key, rule));
    }
    out
}

/// The longest prefixes of blocks that have more than 256 addresses.
const WIDE: [u8; 2] = [23, 119];

fn of_block(block: &IpBlock, address: std::net::IpAddr, service: &Service) -> (Level, String) {
    let (cidr, key) = (block.cidr, &service.key);
    if cidr.prefix_len() == cidr.max_prefix_len() {
        let message = format!(
            "{address} is the load balancer or external address of Service {key}, which is translated before policies look: the peer never matches"
        );
        return (Level::Warning, message);
    }
    let is_wide = cidr.prefix_len() <= WIDE[usize::from(cidr.addr().is_ipv6())];
    let message = format!(
        "{cidr} has {address}, the load balancer or external address of Service {key}, which is translated before policies look: the peer doesn't match connections to the Service"
    );
    (if is_wide { Level::Note } else { Level::Warning }, message)
}

/// Finds node ports of a rule whose peers are addresses of nodes.
fn node_ports(cx: &Context<'_>, key: &PolicyKey, rule: &Rule) -> Vec<Found> {
    let nodes = &cx.loaded.cluster.nodes;
    let has_node = |peer: &Peer| match peer {
        Peer::Block(block) if block.cidr.prefix_len() == 0 => false,
        Peer::Block(block) => nodes.values().any(|node| node.addresses.iter().any(|a| block.contains(*a))),
        Peer::Nodes(selector) => nodes.values().any(|node| selector.matches(&node.labels)),
        Peer::Pods(_) | Peer::DomainName(_) => false,
    };
    let single = rule.ports.iter().flatten().filter_map(|entry| match &entry.port {
        PortMatch::Numbers { protocol, first, last } if first == last => Some((entry, *protocol, *first)),
        PortMatch::Numbers { .. } | PortMatch::Named { .. } => None,
    });
    let services = &cx.loaded.cluster.services;
    let found = single.filter_map(|(entry, protocol, number)| {
        let leads = |service: &&Service| {
            service.ports.iter().any(|p| p.node_port == Some(number) && p.protocol == protocol)
        };
        let service = services.values().find(leads)?;
        let message = format!(
            "{number} is a node port of Service {}, which is translated before policies look: the rule doesn't match connections to it at nodes",
            service.key
        );
        Some(Found::of(key, entry.origin.as_ref(), message))
    });
    let found: Vec<Found> = found.collect();
    let is_about_nodes = !found.is_empty() && rule.peers.iter().flatten().any(|e| has_node(&e.peer));
    if is_about_nodes { found } else { Vec::new() }
}
