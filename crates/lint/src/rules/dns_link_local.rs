//! `dns-link-local`: finds policies that allow DNS to the DNS servers, where a cache on each node answers instead.

use std::collections::HashSet;

use crate::resolvers::{LINK_LOCAL, Resolvers, names_dns, shown_at};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::Protocol;

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL065",
    name: "dns-link-local",
    level: Level::Warning,
    what: "Finds policies that allow DNS to the DNS servers and not to NodeLocal DNS, which is in use.",
    why: "With NodeLocal DNS, pods ask a cache on their node at 169.254.20.10, which no selector matches: policies have to allow the address. It is recognized by its pods, with the label k8s-app: node-local-dns. The resolver of a cloud at 169.254.169.254 leaves no trace in manifests and is not recognized.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

macro_rules! node_local {
    () => {
        "\
apiVersion: v1
kind: Pod
metadata: {name: node-local-dns, namespace: kube-system, labels: {k8s-app: node-local-dns}}
spec:
  hostNetwork: true
  containers: [{name: main, image: example}]
---
"
    };
}

const BAD: &str = concat!(
    shop!(),
    dns!(),
    node_local!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
    ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
"#
);

const GOOD: &str = concat!(
    shop!(),
    dns!(),
    node_local!(),
    r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
      podSelector:
        matchLabels:
          k8s-app: kube-dns
    - ipBlock: {cidr: 169.254.20.10/32}
    ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
"#
);

fn check(cx: &Context<'_>) -> Vec<Found> {
    let resolvers = Resolvers::new(cx);
    if !resolvers.node_local {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut shown = HashSet::new();
    for profile in resolvers.isolated_clients(cx) {
        if Resolvers::reach_node_local(cx, &profile, Protocol::Udp)
            || !resolvers.reach_server(cx, &profile, Protocol::Udp)
        {
            continue;
        }
        if let Some(policy) = shown_at(cx, &profile, names_dns)
            && shown.insert(&policy.key)
        {
            let message = format!(
                "the pods may ask the DNS servers, but NodeLocal DNS is in use and answers at {LINK_LOCAL}, which no rule allows"
            );
            out.push(Found::of(&policy.key, policy.origin.as_ref(), message));
        }
    }
    out
}
