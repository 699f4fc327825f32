//! `open-to-internet`: finds rules that admit every address to pods that nothing exposes.

use std::collections::HashSet;

use crate::{
    context::{Class, Context},
    finding::Found,
    level::Level,
    rule::LintRule,
    wide::{Exceptions, whole_families},
};
use palisade_policy::{Direction, ObjectKey, Service, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL041",
    name: "open-to-internet",
    level: Level::Warning,
    what: "Finds ingress rules that allow every source to pods with no Ingress, Gateway, exposed Service or host port in front.",
    why: "Clients outside the cluster have no way to these pods, so the rule is wider than needed: it opens them to every pod of every namespace, to nodes, and to whatever routes into the pod network. It is a note if the input exposes nothing at all, since files need not contain what does.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

macro_rules! exposed {
    () => {
        "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
"
    };
}

const BAD: &str = concat!(
    shop!(),
    exposed!(),
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
    - port: 8080
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    exposed!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Ingress]
  ingress:
  - ports:
    - port: 8080
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let exposing = Exposing::new(cx);
    let level = if exposing.any { Level::Warning } else { Level::Note };
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        if direction != Direction::Ingress || policy.tier != Tier::Developer {
            continue;
        }
        let origin = match &rule.peers {
            None => rule.origin.as_ref(),
            Some(_) => {
                let whole = whole_families(rule, Exceptions::UpToHalf);
                let Some((_, entry)) = whole.first() else { continue };
                entry.origin.as_ref()
            }
        };
        let selects_some = cx.selected(policy).next().is_some();
        if selects_some && !exposing.pods.iter().any(|class| cx.selects(policy, class)) {
            let message = "the rule allows every source to pods that nothing exposes: no Ingress, Gateway, LoadBalancer, \
                           NodePort or host port leads to them";
            out.push(Found::of(&policy.key, origin, message.to_owned()).at_level(level));
        }
    }
    out
}

/// What leads to pods from outside.
struct Exposing<'c, 'a> {
    pods: Vec<&'c Class<'a>>,
    /// Whether there is a route, or a Service that clients outside may use.
    any: bool,
}

impl<'c, 'a> Exposing<'c, 'a> {
    fn new(cx: &'c Context<'a>) -> Self {
        let backends = cx.loaded.routes.iter().flat_map(|route| &route.backends);
        let routed: HashSet<&ObjectKey> = backends.map(|backend| &backend.service).collect();
        let exposes = |service: &Service| {
            let access = &service.access;
            access.exposed || !access.external_ips.is_empty() || routed.contains(&service.key)
        };
        let mut pods: Vec<&Class<'_>> = cx.behind(exposes).into_iter().map(|(class, _)| class).collect();
        let has_host_port = |class: &&Class<'_>| {
            class.by_ports.iter().flat_map(|pod| pod.ports.iter()).any(|port| port.host_port.is_some())
        };
        pods.extend(cx.all_classes().filter(has_host_port));
        Self { pods, any: cx.loaded.cluster.services.values().any(exposes) }
    }
}
