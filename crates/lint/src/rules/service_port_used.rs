//! `service-port-used`: finds ports of Services where policies need the port of the pods.

use crate::{
    context::{Class, Context},
    finding::Found,
    level::Level,
    rule::LintRule,
};
use palisade_policy::{
    Direction, Name, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Rule, Service, TargetPort,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL027",
    name: "service-port-used",
    level: Level::Warning,
    what: "Finds ports of Services where policies need the port of the pods.",
    why: "A connection to a Service is translated to the port of the pod before policies see it. A rule for the port of the Service does not match it.",
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
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
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
    - port: 80
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    r#"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  clusterIP: 10.96.0.20
  selector: {app: db}
  ports: [{port: 80, targetPort: 8080}]
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
    - port: 8080
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        for entry in rule.ports.iter().flatten() {
            let destinations = cx.destinations(policy, direction, rule);
            if let PortMatch::Named { name, .. } = &entry.port {
                let has_name = |pod: &Pod| pod.ports.iter().any(|port| port.name.as_ref() == Some(name));
                if !destinations.is_empty() && !destinations.iter().any(|pod| has_name(pod)) {
                    out.extend(
                        named(cx, policy, direction, rule, name)
                            .map(|message| Found::of(&policy.key, entry.origin.as_ref(), message)),
                    );
                }
                continue;
            }
            let PortMatch::Numbers { protocol, first, last } = &entry.port else { continue };
            let declared = destinations.iter().flat_map(|pod| pod.ports.iter());
            let mut declared = declared.filter(|port| port.protocol == *protocol);
            if first != last || destinations.is_empty() || declared.any(|port| port.port == *first) {
                continue;
            }
            if let Some((service, target)) = service(cx, policy, direction, rule, (*protocol, *first)) {
                let message = format!(
                    "{first} is the port of Service {}; policies see the pod's port, which is {target}",
                    service.key
                );
                out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
            }
        }
    }
    out
}

/// Returns what is wrong with the name of a port of a Service.
fn named<'a>(
    cx: &Context<'a>,
    policy: &'a Policy,
    direction: Direction,
    rule: &'a Rule,
    name: &Name,
) -> Option<String> {
    let mut classes = destination_classes(cx, policy, direction, rule);
    let service = classes.find_map(|class| {
        cx.services_of(class)
            .find(|service| service.ports.iter().any(|port| port.name.as_ref() == Some(name)))
    })?;
    Some(format!(
        "\"{name}\" is the name of a port of Service {}; policies look for names among the ports of the containers, and none has it",
        service.key
    ))
}

/// How many label sets of destinations are looked at.
const MOST_CLASSES: usize = 1000;

/// Returns a Service in front of the destinations of a rule that has this port, if the pods have another one.
pub(super) fn service<'a>(
    cx: &Context<'a>,
    policy: &'a Policy,
    direction: Direction,
    rule: &'a Rule,
    (protocol, first): (Protocol, u16),
) -> Option<(&'a Service, u16)> {
    let mut classes = destination_classes(cx, policy, direction, rule);
    classes.find_map(|class| {
        cx.services_of(class).find_map(|service| {
            let port = service.ports.iter().find(|p| p.protocol == protocol && p.port == first)?;
            let target = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => class
                    .by_ports
                    .iter()
                    .find_map(|pod| pod.named_ports(name, Some(protocol)).next())
                    .map(|(_, n)| n),
            };
            Some((service, target.filter(|target| *target != first)?))
        })
    })
}

/// Iterates over the label sets of the destinations of a rule, as far as they are looked at.
fn destination_classes<'c, 'a: 'c>(
    cx: &'c Context<'a>,
    policy: &'c Policy,
    direction: Direction,
    rule: &'c Rule,
) -> impl Iterator<Item = &'c Class<'a>> + 'c {
    let peers = rule.peers.iter().flatten().filter_map(|entry| match &entry.peer {
        Peer::Pods(choice) => Some(choice),
        _ => None,
    });
    let choices: Vec<&PodMatch> = match direction {
        Direction::Ingress => vec![&policy.subject],
        Direction::Egress => peers.collect(),
    };
    let classes = choices.into_iter().flat_map(|choice| cx.matching(choice)).filter(|c| !c.host_network);
    classes.take(MOST_CLASSES)
}
