//! Suggested policies as YAML with comments.

use std::fmt::Write as _;

use palisade_analysis::suggest::{Purpose, Seen, SeenConnection, SuggestedPolicy, Suggestion};
use palisade_policy::{Direction, IpBlock, Peer, Policy, PolicyKey, Rule};
use serde_json::{Value, json};

use super::basis::{Basis, times};
use crate::{
    escape,
    explain::manifest::{self, peer, port, selector, yaml},
    reasons::port_text,
};

/// The most connections that the comment of a rule lists.
const LISTED: usize = 12;

const HEADER: &str = "\
# Written by `palisade suggest` from recorded connections. Whatever is in the records is allowed, whoever caused it: the comments
# say which connections each rule stands for. Review them before you apply the policies.

";

const HEADER_OF_NEEDS: &str = "\
# Written by `palisade suggest --from-services` from manifests: from the hosts that settings name, from routes and from monitors.
# What no manifest shows is denied. The comments say which connections each rule stands for, and what shows it.
";

/// The most lines of what is denied that the header lists.
const MOST_CLOSED: usize = 100;

/// Formats all policies. `closed` is what is denied because nothing is known about it.
pub(super) fn text(suggestion: &Suggestion, basis: Basis<'_>, closed: &[String]) -> String {
    let mut out = match basis {
        Basis::Records => HEADER.to_owned(),
        Basis::Needs(_) => header_of_needs(closed),
    };
    for (at, policy) in suggestion.policies.iter().enumerate() {
        if at > 0 {
            out.push_str("---\n");
        }
        add(policy, basis, &mut out);
    }
    out
}

fn header_of_needs(closed: &[String]) -> String {
    let mut out = HEADER_OF_NEEDS.to_owned();
    if !closed.is_empty() {
        out.push_str("#\n# Not known, and therefore not allowed:\n");
    }
    for line in closed.iter().take(MOST_CLOSED) {
        _ = writeln!(out, "# * {}", escape::plain(line));
    }
    if closed.len() > MOST_CLOSED {
        _ = writeln!(out, "# * … and {} more (-o json lists all)", closed.len() - MOST_CLOSED);
    }
    out.push('\n');
    out
}

/// Returns what a policy is there for.
pub(super) fn purpose(policy: &SuggestedPolicy, basis: Basis<'_>) -> String {
    let namespace = &policy.policy.key.namespace;
    match &policy.purpose {
        Purpose::DefaultDeny => {
            format!(
                "Pods of namespace {namespace} may connect and be connected to only where another policy allows it"
            )
        }
        Purpose::Dns { usual: false } => format!("Pods of namespace {namespace} may reach DNS"),
        Purpose::Dns { usual: true } => format!(
            "Pods of namespace {namespace} may reach DNS. The input has no DNS server, so its usual labels are selected"
        ),
        Purpose::DnsServers => "All pods of the cluster may reach the DNS servers".to_owned(),
        Purpose::Names { pods, namespace, usual } => {
            let name = pods
                .as_ref()
                .map_or_else(|| format!("Pods of namespace {namespace}"), |pods| format!("Pods of {pods}"));
            let servers =
                if *usual { "; the input has no DNS server, so its usual labels are selected" } else { "" };
            format!(
                "{name} may reach DNS, and hosts by their recorded names. Agents enforce names only with --domain-names=on{servers}"
            )
        }
        Purpose::Seen(pods) => {
            let name = pods
                .as_ref()
                .map_or_else(|| format!("the pods of namespace {namespace}"), ToString::to_string);
            let mut text = match basis {
                Basis::Records => format!("What was recorded of {name}"),
                Basis::Needs(_) => format!("What manifests show of {name}"),
            };
            if pods.is_some() && policy.policy.subject.pods.is_everything() {
                text.push_str(
                    ". These pods have no labels of their own, so all pods of the namespace are selected",
                );
            }
            text
        }
    }
}

fn add(suggested: &SuggestedPolicy, basis: Basis<'_>, out: &mut String) {
    let policy = &suggested.policy;
    _ = writeln!(out, "# {}.", escape::plain(&purpose(suggested, basis)));
    if is_cluster_wide(&policy.key) {
        add_cluster_wide_head(policy, out);
    } else {
        add_head(policy, out);
    }
    for (name, direction, rules, seen) in [
        ("ingress", Direction::Ingress, &policy.ingress, &suggested.ingress),
        ("egress", Direction::Egress, &policy.egress, &suggested.egress),
    ] {
        let Some(rules) = rules.as_ref().filter(|rules| !rules.is_empty()) else { continue };
        _ = writeln!(out, "  {name}:");
        for (rule, seen) in rules.iter().zip(seen) {
            add_comments(rule, seen, basis, out);
            add_rule(rule, &policy.key, direction, out);
        }
    }
}

fn is_cluster_wide(key: &PolicyKey) -> bool {
    key.namespace.is_empty()
}

fn add_cluster_wide_head(policy: &Policy, out: &mut String) {
    let mut object = manifest::policy(policy);
    let mut spec = object["spec"].take();
    let head = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": object["metadata"],
    });
    out.push_str(&yaml(&head));
    out.push_str("spec:\n");
    _ = writeln!(out, "  tier: Admin\n  priority: {}", policy.priority);
    add_field("subject", &spec["subject"].take(), 2, out);
}

fn add_head(policy: &Policy, out: &mut String) {
    let head = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": &*policy.key.name, "namespace": &*policy.key.namespace},
    });
    out.push_str(&yaml(&head));
    out.push_str("spec:\n");
    add_field("podSelector", &selector(&policy.subject.pods), 2, out);
    let types = [("Ingress", &policy.ingress), ("Egress", &policy.egress)];
    let types: Vec<&str> =
        types.into_iter().filter_map(|(name, rules)| rules.as_ref().map(|_| name)).collect();
    _ = writeln!(out, "  policyTypes: [{}]", types.join(", "));
}

/// Writes what a rule stands for.
fn add_comments(rule: &Rule, seen: &[SeenConnection], basis: Basis<'_>, out: &mut String) {
    for one in seen.iter().take(LISTED) {
        _ = writeln!(out, "    # {}", connection(one, basis));
    }
    if seen.len() > LISTED {
        let mut rest = Seen::default();
        seen[LISTED..].iter().for_each(|one| rest.add(&one.seen));
        let how_often = match basis {
            Basis::Records => format!(", {}", times(rest.count)),
            Basis::Needs(_) => String::new(),
        };
        _ = writeln!(out, "    # … and {} more{how_often} (-o json lists all)", seen.len() - LISTED);
    }
    for note in [
        (seen.is_empty() && !is_part(rule)).then_some(match basis {
            Basis::Records => "not recorded",
            Basis::Needs(_) => "allowed to all",
        }),
        rule.ports.is_none().then_some("All ports: a rule can't allow a protocol without ports alone"),
        is_merged(rule).then_some("The addresses are merged: others of these networks are allowed too"),
    ]
    .into_iter()
    .flatten()
    {
        _ = writeln!(out, "    # {note}");
    }
}

/// Whether a rule has names: without comments, it continues another one.
fn is_part(rule: &Rule) -> bool {
    rule.peers.iter().flatten().any(|entry| matches!(entry.peer, Peer::DomainName(_)))
}

/// Formats a connection: `shop/deployment/web → shop/deployment/db on TCP 5432, 3 times (line 7)`.
pub(super) fn connection(one: &SeenConnection, basis: Basis<'_>) -> String {
    let SeenConnection { from, to, protocol, port, seen } = one;
    let text = format!("{from} → {to} on {}{}", port_text(*protocol, *port), basis.source(seen));
    escape::plain(&text).into_owned()
}

/// Returns whether a peer of a rule is a network that was made of several addresses.
fn is_merged(rule: &Rule) -> bool {
    let is_network = |peer: &Peer| match peer {
        Peer::Block(IpBlock { cidr, .. }) => cidr.prefix_len() < cidr.max_prefix_len(),
        Peer::Pods(_) | Peer::Nodes(_) | Peer::DomainName(_) => false,
    };
    rule.peers.iter().flatten().any(|entry| is_network(&entry.peer))
}

/// Writes a rule: the peers first, as people write it.
fn add_rule(rule: &Rule, key: &PolicyKey, direction: Direction, out: &mut String) {
    let name = if direction == Direction::Ingress { "from" } else { "to" };
    let mut text = String::new();
    if let Some(name) = rule.name.as_ref().filter(|_| is_cluster_wide(key)) {
        _ = writeln!(text, "      name: {name}\n      action: Accept");
    }
    add_field(name, &peers(rule, key), 6, &mut text);
    if let Some(ports) = &rule.ports {
        let ports: Value = ports.iter().map(|entry| port(&entry.port, key)).collect();
        add_field(if is_cluster_wide(key) { "protocols" } else { "ports" }, &ports, 6, &mut text);
    }
    // The first field carries the dash of the list.
    out.push_str("    - ");
    out.push_str(text.trim_start_matches(' '));
}

/// Returns the peers of a rule. Its names are one list.
fn peers(rule: &Rule, key: &PolicyKey) -> Value {
    let (mut out, mut names) = (Vec::new(), Vec::new());
    for entry in rule.peers.iter().flatten() {
        match &entry.peer {
            Peer::DomainName(name) => names.push(name.to_string()),
            other => out.push(peer(other, key)),
        }
    }
    if !names.is_empty() {
        out.push(json!({"domainNames": names}));
    }
    out.into()
}

/// Writes a field whose value is an object or a list.
fn add_field(name: &str, value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    let text = yaml(value);
    let text = text.trim_end_matches('\n');
    if matches!(text, "{}" | "[]") {
        _ = writeln!(out, "{pad}{name}: {text}");
        return;
    }
    _ = writeln!(out, "{pad}{name}:");
    for line in text.lines() {
        _ = writeln!(out, "{pad}  {line}");
    }
}
