//! `nftables-rules`: whether the kernel accepts a plan with every kind of rule, and lists it as written.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_nft::Enforcer;
use palisade_policy::{
    AuditPlan, Direction, IpRange, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet,
    Protocol, Traffic,
};

use crate::finding::{Outcome, chain};

pub(super) fn check(enforcer: &mut Enforcer) -> Outcome {
    let delta = NodePlan::default().delta_to(&plan_with_everything());
    let verified = enforcer.commit(&delta).and_then(|_| enforcer.verify());
    match verified {
        Ok(verification) if verification.agrees() => {
            Outcome::ok("every kind of rule is accepted, and listed as written")
        }
        Ok(verification) => Outcome::fail(
            format!(
                "the kernel lists other rules than were written: {}",
                verification.differences.first().map(ToString::to_string).unwrap_or_default()
            ),
            "report this with the kernel's version",
        ),
        Err(e) => Outcome::fail(
            chain(&e),
            "load nft_ct, nft_log, nft_limit and nfnetlink_log, or run a kernel that has them",
        ),
    }
}

/// Returns a plan that uses every kind of set, map and rule in both families.
fn plan_with_everything() -> NodePlan {
    let v6 = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let pods = [IpAddr::from([10, 0, 0, 1]), v6(1)];
    let peers = [IpAddr::from([10, 0, 0, 2]), v6(2)];
    let (members, ranges) = (PeerSetId([1; 16]), PeerSetId([2; 16]));
    let blocks = vec![
        IpRange { first: [192, 0, 2, 0].into(), last: [192, 0, 2, 255].into() },
        IpRange { first: v6(0x100), last: v6(0x1ff) },
    ];
    let many =
        (0u16..6).fold(PortSet::none(), |all, n| all.union(&PortSet::range(1000 + n * 10, 1003 + n * 10)));
    let table = |direction| PolicyTable {
        direction,
        exact: BTreeMap::from([(members, Traffic::of(Protocol::Tcp, PortSet::range(80, 90)))]),
        ranges: BTreeMap::from([(ranges, Traffic::of(Protocol::Udp, many.clone()))]),
        rest: Traffic::of(Protocol::Other(47), PortSet::all()),
    };
    let (ingress, egress) = (PolicyTableId([1; 16]), PolicyTableId([2; 16]));
    let hairpin: BTreeMap<_, _> =
        pods.map(|pod| (pod, Traffic::of(Protocol::Tcp, PortSet::range(1, 1)))).into();
    let [to_ingress, to_egress] = [ingress, egress].map(|table| pods.map(|pod| (pod, table)).into());
    NodePlan {
        audit: AuditPlan {
            ingress: BTreeMap::clone(&to_ingress),
            egress: BTreeMap::clone(&to_egress),
            hairpin: hairpin.clone(),
        },
        ingress: to_ingress,
        egress: to_egress,
        hairpin,
        tables: BTreeMap::from([(ingress, table(Direction::Ingress)), (egress, table(Direction::Egress))]),
        peer_sets: BTreeMap::from([
            (members, PeerSet::Addresses(peers.into_iter().collect())),
            (ranges, PeerSet::Ranges(blocks)),
        ]),
        local: pods.into(),
        nodes: peers.into(),
        refusing: pods.into(),
    }
}
