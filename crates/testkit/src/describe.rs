//! A cluster as readable text for failure messages.

use std::fmt::{self, Write};

use palisade_policy::{
    Cluster, Direction, Mode, NamespaceMatch, Peer, Pod, PodMatch, Policy, PortMatch, Rule, Tier,
};

/// Returns one line for each namespace, node, pod, policy and rule.
#[must_use]
pub fn describe(cluster: &Cluster) -> String {
    struct Text<'a>(&'a Cluster);
    impl fmt::Display for Text<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, self.0)
        }
    }
    Text(cluster).to_string()
}

fn write(f: &mut fmt::Formatter<'_>, cluster: &Cluster) -> fmt::Result {
    if cluster.mode != Mode::Enforce {
        writeln!(f, "mode {}", cluster.mode)?;
    }
    for n in cluster.namespaces.values() {
        let deny = n.deny.map(|deny| format!(" deny {deny}")).unwrap_or_default();
        writeln!(f, "namespace {} {{{}}}{deny}", n.name, n.labels)?;
    }
    for n in cluster.nodes.values() {
        writeln!(f, "node {} {{{}}} {}", n.name, n.labels, list(&n.addresses, " "))?;
    }
    cluster.pods.values().try_for_each(|p| write_pod(f, p))?;
    for s in cluster.services.values() {
        writeln!(f, "service {} {}", s.key, list(&s.addresses, " "))?;
    }
    for l in cluster.learned.values() {
        writeln!(f, "learned {} {}", l.name, list(l.addresses.iter(), " "))?;
    }
    cluster.policies.values().try_for_each(|p| write_policy(f, p))
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let mut out = String::new();
    for (i, item) in items.into_iter().enumerate() {
        // Writing to a string never fails.
        let _ = write!(out, "{}{item}", if i > 0 { between } else { "" });
    }
    out
}

fn write_pod(f: &mut fmt::Formatter<'_>, pod: &Pod) -> fmt::Result {
    write!(f, "pod {} {{{}}} [{}]", pod.key, pod.labels, list(&pod.addresses, " "))?;
    write!(f, " on {} {:?} created {}", pod.node.as_deref().unwrap_or("no node"), pod.phase, pod.created)?;
    if pod.host_network {
        f.write_str(" host-network")?;
    }
    for port in pod.ports.iter() {
        write!(f, " {}={}/{}", port.name.as_deref().unwrap_or("-"), port.port, port.protocol)?;
    }
    writeln!(f)
}

fn write_policy(f: &mut fmt::Formatter<'_>, policy: &Policy) -> fmt::Result {
    write!(f, "{} ", policy.key)?;
    if let Some(mode) = policy.mode {
        write!(f, "(mode {mode}) ")?;
    }
    if policy.tier != Tier::Developer {
        write!(f, "({:?} tier, priority {}) ", policy.tier, policy.priority)?;
    }
    f.write_str("for ")?;
    write_pods(f, &policy.subject)?;
    writeln!(f)?;
    for direction in Direction::BOTH {
        let Some(rules) = policy.rules(direction) else { continue };
        if rules.is_empty() {
            writeln!(f, "  {direction}: no rule")?;
        }
        for rule in rules {
            write!(f, "  {direction}: ")?;
            write_rule(f, rule)?;
        }
    }
    Ok(())
}

fn write_rule(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    write!(f, "{:?} ", rule.action)?;
    match &rule.peers {
        None => f.write_str("any peer")?,
        Some(peers) => {
            for (i, entry) in peers.iter().enumerate() {
                f.write_str(if i > 0 { " | " } else { "" })?;
                match &entry.peer {
                    Peer::Pods(pods) => write_pods(f, pods)?,
                    Peer::Nodes(selector) => write!(f, "nodes {selector}")?,
                    Peer::DomainName(pattern) => write!(f, "{pattern}")?,
                    Peer::Block(b) if b.except.is_empty() => write!(f, "{}", b.cidr)?,
                    Peer::Block(b) => write!(f, "{} except {}", b.cidr, list(b.except.iter(), " "))?,
                }
            }
        }
    }
    match &rule.ports {
        None => writeln!(f, ", any port"),
        Some(ports) => writeln!(f, ", ports {}", list(ports.iter().map(|e| port(&e.port)), " ")),
    }
}

fn write_pods(f: &mut fmt::Formatter<'_>, pods: &PodMatch) -> fmt::Result {
    match &pods.namespaces {
        NamespaceMatch::Named(name) => write!(f, "pods {} in {name}", pods.pods),
        NamespaceMatch::Selected(selector) => write!(f, "pods {} in namespaces {selector}", pods.pods),
    }
}

fn port(port: &PortMatch) -> String {
    match port {
        PortMatch::Numbers { protocol, first, last } if first == last => format!("{first}/{protocol}"),
        PortMatch::Numbers { protocol, first, last } => format!("{first}-{last}/{protocol}"),
        PortMatch::Named { protocol: Some(protocol), name } => format!("{name}/{protocol}"),
        PortMatch::Named { protocol: None, name } => format!("{name}/any"),
    }
}
