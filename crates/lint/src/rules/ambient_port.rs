//! `ambient-port`: finds rules that restrict ports of pods in Istio's ambient mode without the port of its tunnel.

use crate::finding::{Fix, TextEdit};
use crate::{
    context::{Class, Context},
    finding::Found,
    fix::flow_before,
    level::Level,
    rule::LintRule,
};
use palisade_policy::{Direction, Labels, Policy, PortSet, Protocol, Rule, Tier, Traffic};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL066",
    name: "ambient-port",
    level: Level::Warning,
    what: "Finds ingress rules that restrict the ports of pods in Istio's ambient mode without TCP 15008.",
    why: "In ambient mode, connections between pods of the mesh reach a pod in a tunnel to its TCP port 15008, whatever the port of the application. Policies see that port, so a rule without it denies all clients in the mesh.",
    fix: Some("Adds TCP 15008 to the ports of the rule."),
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = concat!(
    r#"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
"#,
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

const GOOD: &str = concat!(
    r#"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
"#,
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
    - port: 15008
      protocol: TCP
    - port: 8080
      protocol: TCP
"#
);

/// The port of the tunnel: HBONE_PORT of ztunnel.
const TUNNEL: u16 = 15008;
/// The label of namespaces and pods that selects the mode.
const MODE: &str = "istio.io/dataplane-mode";

fn check(cx: &Context<'_>) -> Vec<Found> {
    let in_mode = |class: &&Class<'_>| {
        let namespace = cx.loaded.cluster.namespaces.get(class.namespace);
        is_ambient(class.labels, namespace.map(|n| &n.labels))
    };
    let ambient: Vec<&Class<'_>> = cx.all_classes().filter(in_mode).collect();
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.rules() {
        if direction != Direction::Ingress || policy.tier != Tier::Developer || admits_tunnel(rule) {
            continue;
        }
        let mut selected = ambient.iter().filter(|class| cx.selects(policy, class));
        let closed = selected.any(|class| {
            let profile = cx.profile(class);
            let mut rules = cx.in_profile(&profile).filter(|p| p.tier == Tier::Developer).flat_map(of);
            !rules.any(|other| admits_tunnel(other) && (other.peers.is_none() || same_peers(other, rule)))
        });
        if closed {
            let message = format!(
                "the pods are in Istio's ambient mode, where connections of the mesh arrive on TCP {TUNNEL}, which the rule doesn't allow"
            );
            let found = Found::of(&policy.key, rule.origin.as_ref(), message);
            out.push(found.with_fix(fix(cx, rule)));
        }
    }
    out
}

fn of(policy: &Policy) -> &[Rule] {
    policy.rules(Direction::Ingress).unwrap_or_default()
}

fn is_ambient(pod: &Labels, namespace: Option<&Labels>) -> bool {
    let mode = pod.get(MODE).or_else(|| namespace?.get(MODE));
    mode == Some("ambient")
}

fn admits_tunnel(rule: &Rule) -> bool {
    let tunnel = Traffic::of(Protocol::Tcp, PortSet::range(TUNNEL, TUNNEL));
    let admits = |entry: &palisade_policy::PortEntry| tunnel.difference(&entry.port.traffic(None)).is_none();
    rule.ports.as_ref().is_none_or(|ports| ports.iter().any(admits))
}

fn same_peers(a: &Rule, b: &Rule) -> bool {
    let peers =
        |rule: &Rule| rule.peers.as_ref().map(|all| all.iter().map(|e| e.peer.clone()).collect::<Vec<_>>());
    peers(a) == peers(b)
}

/// Inserts a list item before the first port, in the style of the list.
fn fix(cx: &Context<'_>, rule: &Rule) -> Option<Fix> {
    let first = rule.ports.as_ref()?.first()?.origin.as_ref()?;
    let lines = *cx.lines.get(&*first.file)?;
    let at = lines.offset(first)?;
    let is_flow = lines.text.get(..at)?.trim_end().ends_with('[');
    let text = if is_flow {
        let yaml = format!("{{port: {TUNNEL}, protocol: TCP}}");
        let json = format!("{{\"port\": {TUNNEL}, \"protocol\": \"TCP\"}}");
        flow_before(lines, at, [&yaml, &json])
    } else {
        let before = lines.before(at);
        let indentation = before.strip_suffix("- ").filter(|rest| rest.chars().all(|c| c == ' '))?;
        format!("port: {TUNNEL}\n{indentation}  protocol: TCP\n{indentation}- ")
    };
    Some(Fix {
        text: format!("allow TCP {TUNNEL}"),
        edits: vec![TextEdit { file: first.file.clone(), range: at..at, text }],
    })
}
