//! The self-test's findings.

use palisade_agent::doctor::{Bridge, Check, Status};
use palisade_lab::wiring::{Path, Sighting, WiringError, sight};
use palisade_policy::Family;

/// A node has one bridge for pods, or a few; more would only repeat.
const BRIDGES: usize = 4;

/// Sends packets on each path that pods of this node take.
pub(super) fn checks(bridges: &[Bridge], forwards: [bool; 2]) -> Vec<Check> {
    const ROUTED: &str = "wiring-routed";
    let families: Vec<Family> =
        Family::BOTH.into_iter().zip(forwards).filter_map(|(family, on)| on.then_some(family)).collect();
    let mut out = Vec::new();
    if families.is_empty() {
        let found = "the node forwards nothing, so nothing was sent";
        out.push(Check::of(ROUTED, Status::Unknown, found, "cure `ip-forward` first"));
    } else {
        out.push(finding(ROUTED, "routed pods", sight(&Path::Routed, &families)));
    }
    // IPv4 crosses a bridge whether the node forwards or not.
    let families = if forwards[1] { &Family::BOTH[..] } else { &[Family::V4] };
    for bridge in bridges.iter().take(BRIDGES) {
        let seen = sight(&Path::Bridged { bridge: bridge.index }, families);
        out.push(finding("wiring-bridge", &format!("pods on bridge {}", bridge.name), seen));
    }
    out
}

fn finding(id: &'static str, whose: &str, seen: Result<Vec<Sighting>, WiringError>) -> Check {
    let sightings = match seen {
        Ok(sightings) => sightings,
        Err(error) => {
            let why = anyhow::Error::new(error);
            return Check::of(
                id,
                Status::Unknown,
                format!("no packets could be sent: {why:#}"),
                "run `palisade doctor` as root on the node",
            );
        }
    };
    let words = |which: &dyn Fn(&Sighting) -> bool| {
        let list: Vec<String> =
            sightings.iter().filter(|s| which(s)).map(|s| format!("{} {}", s.family, s.protocol)).collect();
        (!list.is_empty()).then(|| list.join(", "))
    };
    if let Some(past) = words(&|s| !s.seen && s.arrived) {
        return Check::of(
            id,
            Status::Fail,
            format!(
                "packets between {whose} arrive without passing the forward hook ({past}): no policy can act on them"
            ),
            "see `bridge-netfilter` and `ebpf`; policies hold only for what passes netfilter's forward hook",
        );
    }
    if let Some(lost) = words(&|s| !s.seen) {
        return Check::of(
            id,
            Status::Warn,
            format!("packets between {whose} were lost before the forward hook ({lost})"),
            "look for rules in prerouting chains, reverse-path filters and VLAN filters of the bridge that drop unknown addresses",
        );
    }
    let all = words(&|_| true).unwrap_or_default();
    match words(&|s| !s.arrived) {
        None => Check::ok(id, format!("packets between {whose} pass the forward hook ({all})")),
        Some(stopped) => Check::ok(
            id,
            format!(
                "packets between {whose} pass the forward hook ({all}); other rules stop those of the test behind it ({stopped})"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::Protocol;

    use super::*;

    #[test]
    fn what_arrives_unseen_fails_and_what_is_lost_warns() {
        let of = |seen, arrived| {
            let sighting = Sighting { family: Family::V4, protocol: Protocol::Udp, seen, arrived };
            finding("x", "pods", Ok(vec![sighting]))
        };
        assert_eq!(of(true, true).status, Status::Ok);
        assert!(of(true, false).found.contains("other rules stop"));
        assert_eq!(of(false, true).status, Status::Fail);
        assert!(of(false, true).found.contains("(IPv4 UDP)"), "{}", of(false, true).found);
        assert_eq!(of(false, false).status, Status::Warn);
    }
}
