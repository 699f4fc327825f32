//! Peers and ports in words.

use palisade_policy::{Missing, NamespaceMatch, Peer, PodMatch, PortMatch, walk::Entry};

/// Describes a peer: `pods app=frontend in namespace shop`, `10.0.0.0/8 except 10.1.0.0/16`.
#[must_use]
pub fn describe_peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods(PodMatch { namespaces, pods }) => {
            let what = if pods.is_everything() { "every pod".to_owned() } else { format!("pods {pods}") };
            match namespaces {
                NamespaceMatch::Named(_) => format!("{what} in {namespaces}"),
                NamespaceMatch::Selected(_) => format!("{what} of {namespaces}"),
            }
        }
        Peer::Nodes(selector) if selector.is_everything() => "every node".to_owned(),
        Peer::Nodes(selector) => format!("nodes {selector}"),
        Peer::DomainName(pattern) => format!("domain name {pattern}"),
        Peer::Block(block) if block.except.is_empty() => block.cidr.to_string(),
        Peer::Block(block) => {
            let shown: Vec<String> = block.except.iter().take(4).map(ToString::to_string).collect();
            let more = block.except.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{} except {}{more}", block.cidr, shown.join(", "))
        }
    }
}

/// Describes a port match: `TCP 80`, `UDP 1-1024`, `every TCP port`, `port "web"/TCP`.
#[must_use]
pub fn describe_port(port: &PortMatch) -> String {
    match port {
        PortMatch::Numbers { protocol, first: 0, last: u16::MAX } => format!("every {protocol} port"),
        PortMatch::Numbers { protocol, first, last } if first == last => format!("{protocol} {first}"),
        PortMatch::Numbers { protocol, first, last } => format!("{protocol} {first}-{last}"),
        PortMatch::Named { protocol: Some(protocol), name } => format!("port \"{name}\"/{protocol}"),
        PortMatch::Named { protocol: None, name } => format!("port \"{name}\""),
    }
}

/// Describes a peer or a port match.
#[must_use]
pub fn describe_entry(entry: &Entry) -> String {
    match entry {
        Entry::Peer(peer) => describe_peer(peer),
        Entry::Port(port) => describe_port(port),
    }
}

/// Describes what a rule requires and a flow doesn't have: `pods app=frontend in namespace shop (or 2 other peers)`,
/// `TCP 80 or TCP 443`.
#[must_use]
pub fn describe_missing(missing: &Missing) -> String {
    match missing {
        Missing::Peer { closest: None, .. } => "any peer".to_owned(),
        Missing::Peer { closest: Some(peer), others } => {
            let others = match others {
                0 => String::new(),
                n => format!(" (or {n} other {})", if *n == 1 { "peer" } else { "peers" }),
            };
            format!("{}{others}", describe_peer(peer))
        }
        Missing::Ports(ports) => {
            let words: Vec<String> = ports.iter().take(MOST_PORTS).map(describe_port).collect();
            let more = ports.len().saturating_sub(words.len());
            let more = if more > 0 { format!(" or {more} more") } else { String::new() };
            format!("{}{more}", words.join(" or "))
        }
    }
}

/// The number of ports that are listed; the rest is counted.
const MOST_PORTS: usize = 8;

#[cfg(test)]
mod tests {
    use palisade_policy::Protocol;

    use super::*;

    #[test]
    fn a_port_name_is_quoted() {
        let named = |protocol| describe_port(&PortMatch::Named { protocol, name: "http".into() });
        assert_eq!(named(Some(Protocol::Tcp)), "port \"http\"/TCP");
        assert_eq!(named(None), "port \"http\"");
    }
}
