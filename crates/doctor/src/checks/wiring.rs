//! `wiring-routed` and `wiring-bridge`: whether pods' packets pass the forward hook, tried with packets.

use palisade_policy::Family;

use crate::{
    finding::{Outcome, chain},
    interfaces::pod_bridges,
    node::Node,
    self_test::{Path, SelfTestError, Sighting, send_packets},
};

/// The most bridges that are tested. A node has one for pods, or a few.
const MAX_BRIDGES: usize = 4;

/// Sends packets between two routed namespaces.
pub(super) fn routed(node: &Node<'_>) -> Vec<Outcome> {
    let forwards = node.forwarding().unwrap_or_default();
    let families: Vec<Family> =
        Family::BOTH.into_iter().zip(forwards).filter_map(|(family, on)| on.then_some(family)).collect();
    if families.is_empty() {
        let found = "no packets were sent: the node forwards neither IPv4 nor IPv6";
        return vec![Outcome::unknown(found, "fix `ip-forward` first")];
    }
    vec![outcome("routed pods", send_packets(&Path::Routed, &families))]
}

/// Sends packets between two ports of each bridge that connects pods.
pub(super) fn bridges(node: &Node<'_>) -> Vec<Outcome> {
    // Bridges pass IPv4 packets whether the node forwards IPv4 or not.
    let forwards_v6 = node.forwarding().is_some_and(|[_, v6]| v6);
    let families = if forwards_v6 { &Family::BOTH[..] } else { &[Family::V4] };
    let bridges = pod_bridges(node.interfaces().unwrap_or_default());
    bridges
        .iter()
        .take(MAX_BRIDGES)
        .map(|bridge| {
            let seen = send_packets(&Path::Bridged { bridge: bridge.index }, families);
            outcome(&format!("pods on bridge {}", bridge.name), seen)
        })
        .collect()
}

fn outcome(pods: &str, seen: Result<Vec<Sighting>, SelfTestError>) -> Outcome {
    let sightings = match seen {
        Ok(sightings) => sightings,
        Err(SelfTestError::Count(error @ palisade_nft::Error::NoTableOwners(_))) => {
            return Outcome::unknown(
                format!(
                    "no packets were sent, because the table that counts them could be left behind: {error}"
                ),
                "enforcement works; to see that packets pass the forward hook, try a policy that denies",
            );
        }
        Err(error) => {
            return Outcome::unknown(
                format!("cannot send packets: {}", chain(&error)),
                "run `palisade doctor` as root on the node",
            );
        }
    };
    let list = |which: &dyn Fn(&Sighting) -> bool| {
        let matching = sightings.iter().filter(|s| which(s));
        let list: Vec<String> = matching.map(|s| format!("{} {}", s.family, s.protocol)).collect();
        (!list.is_empty()).then(|| list.join(", "))
    };
    if let Some(bypassing) = list(&|s| !s.seen && s.arrived) {
        return Outcome::fail(
            format!(
                "packets between {pods} arrive without passing the forward hook ({bypassing}): policies have no effect on them"
            ),
            "see `bridge-netfilter` and `ebpf`; policies apply only to packets that pass netfilter's forward hook",
        );
    }
    if let Some(lost) = list(&|s| !s.seen) {
        return Outcome::warn(
            format!("packets between {pods} were lost before the forward hook ({lost})"),
            "look for rules in prerouting chains, reverse-path filters and bridge VLAN filters that drop unknown addresses",
        );
    }
    let all = list(&|_| true).unwrap_or_default();
    match list(&|s| !s.arrived) {
        None => Outcome::ok(format!("packets between {pods} pass the forward hook ({all})")),
        Some(dropped) => Outcome::ok(format!(
            "packets between {pods} pass the forward hook ({all}); other rules drop the test packets after it ({dropped})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Protocol;

    use super::*;
    use crate::finding::Status;

    #[test]
    fn a_kernel_without_table_owners_is_named() {
        let error = palisade_nft::Error::NoTableOwners(std::io::Error::from_raw_os_error(22));
        let Outcome { status, found, cure } = outcome("pods", Err(SelfTestError::Count(error)));
        assert_eq!(status, Status::Unknown);
        assert!(found.contains("Linux 5.12"), "{found}");
        assert!(!cure.unwrap().contains("as root"));
    }

    #[test]
    fn bypassing_fails_and_loss_warns() {
        let of = |seen, arrived| {
            let sighting = Sighting { family: Family::V4, protocol: Protocol::Udp, seen, arrived };
            outcome("pods", Ok(vec![sighting]))
        };
        assert_eq!(of(true, true).status, Status::Ok);
        assert!(of(true, false).found.contains("other rules drop"));
        assert_eq!(of(false, true).status, Status::Fail);
        assert!(of(false, true).found.contains("(IPv4 UDP)"), "{}", of(false, true).found);
        assert_eq!(of(false, false).status, Status::Warn);
    }
}
