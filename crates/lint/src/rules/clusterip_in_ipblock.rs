//! `clusterip-in-ipblock`: finds addresses of Services in blocks.

use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Family, IpBlock, IpRange, Peer, Service, address::to_number};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL028",
    name: "clusterip-in-ipblock",
    level: Level::Warning,
    what: "Finds addresses of Services in blocks.",
    why: "A connection to the cluster IP of a Service is translated to a pod before policies see it, so a block with that address never matches.",
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
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock: {cidr: 10.96.0.20/32}
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
    let known = Known::new(cx);
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        for entry in rule.peers.iter().flatten().filter(|_| direction == Direction::Egress) {
            let Peer::Block(block) = &entry.peer else { continue };
            let Some(service) = known.within(block) else { continue };
            let (cidr, key) = (block.cidr, &service.key);
            let message = if cidr.prefix_len() == cidr.max_prefix_len() {
                format!(
                    "{} is the cluster IP of Service {key}, which is translated before policies look: the peer never matches",
                    cidr.addr()
                )
            } else {
                format!(
                    "{cidr} has the cluster IP of Service {key} and no address of a pod or node that is known: cluster IPs are translated before policies look, so the peer doesn't match connections to Services"
                )
            };
            out.push(Found::of(&policy.key, entry.origin.as_ref(), message));
        }
    }
    out
}

/// The addresses of the input: those of Services, and those that a block may be meant for beside them.
struct Known<'a> {
    services: BTreeMap<(Family, u128), &'a Service>,
    others: BTreeSet<(Family, u128)>,
    ranges: Vec<IpRange>,
}

impl<'a> Known<'a> {
    fn new(cx: &Context<'a>) -> Self {
        let cluster = &cx.loaded.cluster;
        let at = |address: &IpAddr| (Family::of(*address), to_number(*address));
        let services = cluster.services.values();
        let of_nodes = cluster.nodes.values().flat_map(|node| node.addresses.iter());
        let pods = cluster.pods.values().flat_map(|pod| pod.addresses.iter());
        let of_pods = pods.filter(|address| !cluster.addressing.is_placeholder(**address));
        Self {
            services: services.flat_map(|s| s.addresses.iter().map(move |a| (at(a), s))).collect(),
            others: of_nodes.chain(of_pods).map(at).collect(),
            ranges: cluster.nodes.values().flat_map(|n| n.pod_cidrs.iter().map(IpRange::of_net)).collect(),
        }
    }

    /// Returns a Service whose address a block has, if it is that address, or a network that seems to be that of Services.
    fn within(&self, block: &IpBlock) -> Option<&'a Service> {
        // The largest that Kubernetes allows are /12 and /108; wider blocks have other things, too.
        let widest = if block.cidr.addr().is_ipv4() { 12 } else { 108 };
        if block.cidr.prefix_len() < widest {
            return None;
        }
        let family = Family::of_net(&block.cidr);
        block.ranges().iter().find_map(|range| {
            let keys = (family, to_number(range.first))..=(family, to_number(range.last));
            let (_, service) = self.services.range(keys.clone()).next()?;
            let has_others = self.others.range(keys).next().is_some()
                || self.ranges.iter().any(|pods| range.contains(pods.first) || pods.contains(range.first));
            (!has_others).then_some(*service)
        })
    }
}
