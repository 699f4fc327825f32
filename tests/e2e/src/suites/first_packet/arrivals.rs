//! Counts what arrives at servers, by sender: a packet whose answer is dropped has passed too.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use palisade_netns::namespace::Namespace;
use serde_json::Value;

use crate::network::{self, NODES};

/// A table in a server's network namespace that remembers who has sent to it. Neighbor discovery is no matter of policies.
const RULES: &str = "
table inet arrivals {
    set v4 { type ipv4_addr; size 65535; flags dynamic; }
    set v6 { type ipv6_addr; size 65535; flags dynamic; }
    chain arrivals {
        type filter hook prerouting priority -310;
        update @v4 { ip saddr }
        meta l4proto != ipv6-icmp update @v6 { ip6 saddr }
        icmpv6 type { echo-request, echo-reply } update @v6 { ip6 saddr }
    }
}
";
const SETS: [&str; 2] = ["v4", "v6"];

/// The counters of some servers.
pub(super) struct Arrivals {
    servers: Vec<Namespace>,
    expected: BTreeSet<IpAddr>,
}

impl Arrivals {
    /// Begins to count in these network namespaces. Packets of these senders are expected, and those of the nodes, which probe their pods.
    pub(super) fn count(servers: Vec<Namespace>, expected: &[IpAddr]) -> Result<Self> {
        servers.iter().try_for_each(|server| nft(server, &["-f", "-"], RULES).map(|_| ()))?;
        Ok(Self { servers, expected: expected.iter().copied().collect() })
    }

    /// The pods that have sent something since the last call, except for those that are expected.
    pub(super) fn take(&self) -> Result<BTreeSet<IpAddr>> {
        let mut senders = BTreeSet::new();
        for server in &self.servers {
            for set in SETS {
                let text = nft(server, &["-j", "list", "set", "inet", "arrivals", set], "")?;
                senders.extend(elements(&text)?);
                nft(server, &["flush", "set", "inet", "arrivals", set], "")?;
            }
        }
        senders.retain(|sender| is_pod(sender) && !self.expected.contains(sender));
        Ok(senders)
    }
}

/// Whether an address is of a pod: in the networks of pods the first one is the node's.
fn is_pod(address: &IpAddr) -> bool {
    (1..).zip(NODES).flat_map(|(number, _)| network::pods(number)).any(|(net, _)| match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(of)) => net.octets()[..3] == of.octets()[..3] && of.octets()[3] != 1,
        (IpAddr::V6(net), IpAddr::V6(of)) => {
            net.segments()[..4] == of.segments()[..4] && of.segments()[7] != 1
        }
        _ => false,
    })
}

fn elements(json: &str) -> Result<Vec<IpAddr>> {
    let all: Value = serde_json::from_str(json)?;
    let sets = all["nftables"].as_array().into_iter().flatten();
    let elements = sets.filter_map(|object| object["set"]["elem"].as_array()).flatten();
    let parse = |element: &Value| {
        let text = element.as_str().or_else(|| element["elem"]["val"].as_str());
        Ok(text.with_context(|| format!("an element {element}"))?.parse()?)
    };
    elements.map(parse).collect()
}

/// Runs `nft` in a network namespace.
fn nft(namespace: &Namespace, arguments: &[&str], input: &str) -> Result<String> {
    let output = namespace.run(|| {
        let mut command = Command::new("nft");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    })??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {}: {}", arguments.join(" "), errors.trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_pods_and_not_their_nodes() {
        let text = r#"{"nftables": [{"metainfo": {}}, {"set": {"name": "v4", "elem":
            ["10.244.1.7", {"elem": {"val": "10.244.2.1", "counter": {}}}, "172.30.0.11"]}}, {"set": {"name": "v6"}}]}"#;
        let found = elements(text).expect("a list");
        let pods: Vec<_> = found.iter().filter(|address| is_pod(address)).map(ToString::to_string).collect();
        assert_eq!((found.len(), pods), (3, vec!["10.244.1.7".to_owned()]));
        assert!(is_pod(&"fd00:10:244:2::1f".parse().expect("an address")));
        assert!(!is_pod(&"fd00:10:244:2::1".parse().expect("an address")));
    }
}
