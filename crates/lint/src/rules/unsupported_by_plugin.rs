//! `unsupported-by-plugin`: finds what the network plugin of the cluster ignores.

use crate::{context::Context, finding::Found, level::Level, plugin::Plugin, rule::LintRule};
use palisade_policy::{Family, IpBlock, Origin, Peer, Policy, PortMatch, Tier};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL053",
    name: "unsupported-by-plugin",
    level: Level::Note,
    what: "Finds what the network plugin that --plugin names ignores. Without --plugin, it finds nothing.",
    why: "The API server accepts every valid policy, whatever the plugin makes of it. Flannel enforces no policies; Weave Net neither endPort nor port names nor cluster-wide policies; with Cilium, an ipBlock never matches pods and nodes; the Amazon VPC CNI enforces policies for one IP family. The example is one for --plugin weave. That a plugin is not among these does not mean that it enforces everything. Where Palisade runs beside the plugin, it enforces what is found here.",
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
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      endPort: 8089
      protocol: TCP
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
    let Some(plugin) = cx.plugin else { return Vec::new() };
    let mut out = Vec::new();
    for policy in cx.policies() {
        if let Some(message) = whole(plugin, policy) {
            out.push(Found::of(&policy.key, policy.origin.as_ref(), message));
        }
    }
    for (policy, _, rule) in cx.rules().filter(|(policy, ..)| whole(plugin, policy).is_none()) {
        let mut found = |origin: &Option<Origin>, message: Option<String>| {
            out.extend(message.map(|message| Found::of(&policy.key, origin.as_ref(), message)));
        };
        for entry in rule.ports.iter().flatten() {
            found(&entry.origin, port(plugin, &entry.port));
        }
        for entry in rule.peers.iter().flatten() {
            let Peer::Block(of) = &entry.peer else { continue };
            found(&entry.origin, block(cx, plugin, of));
        }
    }
    out
}

/// Says that a policy is ignored as a whole.
fn whole(plugin: Plugin, policy: &Policy) -> Option<String> {
    match plugin {
        Plugin::Flannel => {
            Some(format!("{plugin} enforces no policies: without another program, everything is allowed"))
        }
        Plugin::Weave if policy.tier != Tier::Developer => {
            Some(format!("{plugin} ignores cluster-wide policies"))
        }
        _ => None,
    }
}

fn port(plugin: Plugin, port: &PortMatch) -> Option<String> {
    match (plugin, port) {
        (Plugin::Weave, PortMatch::Numbers { protocol, first, last }) if first != last => {
            Some(format!("{plugin} ignores endPort: only {protocol} {first} is allowed"))
        }
        (Plugin::Weave, PortMatch::Named { name, .. }) => {
            Some(format!("{plugin} doesn't resolve port names: its policy controller fails on `{name}`"))
        }
        _ => None,
    }
}

fn block(cx: &Context<'_>, plugin: Plugin, block: &IpBlock) -> Option<String> {
    match plugin {
        Plugin::Cilium => {
            // One address is rarely that of a pod, and the internet is not.
            let is_wide =
                block.cidr.prefix_len() > 0 && block.cidr.prefix_len() < block.cidr.max_prefix_len();
            let message =
                format!("with {plugin}, {} never matches pods and nodes, only other addresses", block.cidr);
            is_wide.then_some(message)
        }
        Plugin::AwsVpcCni => {
            let (family, has_v4) =
                (Family::of_net(&block.cidr), cx.loaded.cluster.addressing.has(Family::V4));
            let own = if has_v4 { Family::V4 } else { Family::V6 };
            (family != own).then(|| {
                format!(
                    "{plugin} enforces policies for {own} only in such a cluster: {} has no effect",
                    block.cidr
                )
            })
        }
        _ => None,
    }
}
