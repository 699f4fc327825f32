//! `client-address-lost`: finds blocks of clients behind a Service that hides their addresses.

use crate::{
    admits,
    context::{Class, Context},
    finding::Found,
    level::Level,
    rule::LintRule,
};
use palisade_policy::{Direction, Peer, Pod, PortSet, Rule, Service, TargetPort, Traffic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL061",
    name: "client-address-lost",
    level: Level::Warning,
    what: "Finds blocks of clients behind a Service that hides their addresses.",
    why: "With externalTrafficPolicy: Cluster, a connection from outside may reach the pod with the address of a node, so a block of client addresses does not match it. externalTrafficPolicy: Local keeps the address. Only Services that lead to a port which the rule allows are considered.",
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 198.51.100.0/24}
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
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
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 198.51.100.0/24}
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let hidden = cx.behind(hides);
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        let blocks = rule.peers.iter().flatten().filter_map(|entry| match &entry.peer {
            Peer::Block(block) if block.cidr.prefix_len() != 0 => Some((entry, block)),
            _ => None,
        });
        let mut blocks = blocks.filter(|_| direction == Direction::Ingress).peekable();
        if blocks.peek().is_none() {
            continue;
        }
        let mut selected = hidden.iter().filter(|(class, _)| cx.selects(policy, class));
        let Some(service) = selected.find_map(|(class, _)| hiding(cx, rule, class)) else { continue };
        for (entry, block) in blocks {
            let message = format!(
                "Service {} has externalTrafficPolicy: Cluster, so clients in {} may arrive with the address of a node",
                service.key, block.cidr
            );
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

/// Whether connections from outside may reach the pods of a Service with the address of a node.
fn hides(service: &Service) -> bool {
    let access = &service.access;
    (access.exposed || !access.external_ips.is_empty()) && !access.external_local
}

/// Returns the first Service that hides clients from a class of pods, on a port that a rule allows.
fn hiding<'a>(cx: &Context<'a>, rule: &Rule, class: &Class<'_>) -> Option<&'a Service> {
    let leads = |service: &Service, pod: &Pod| {
        !targets(service, pod).intersection(&admits::ports(rule, Some(pod))).is_none()
    };
    cx.services_of(class).find(|s| hides(s) && class.by_ports.iter().any(|pod| leads(s, pod)))
}

/// Returns the ports of a pod to which a Service leads.
fn targets(service: &Service, pod: &Pod) -> Traffic {
    service.ports.iter().fold(Traffic::none(), |sum, port| match &port.target {
        TargetPort::Number(number) => {
            sum.union(&Traffic::of(port.protocol, PortSet::range(*number, *number)))
        }
        TargetPort::Name(name) => {
            let named = pod.named_ports(name, Some(port.protocol));
            named.fold(sum, |sum, (protocol, at)| sum.union(&Traffic::of(protocol, PortSet::range(at, at))))
        }
    })
}
