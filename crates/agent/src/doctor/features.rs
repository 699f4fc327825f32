//! What the rules use of the kernel, tried for real: a plan that has everything is programmed and read back, in a
//! temporary network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use palisade_nft::{
    Enforcer, Feature, Kernel, Options, Surroundings,
    conntrack::{self, Revocation},
    drift::Watcher,
    drops::Reader,
};
use palisade_policy::{
    Direction, IpRange, NodePlan, PeerSet, PeerSetId, PolicyTable, PolicyTableId, PortSet, Protocol, Traffic,
};

use super::{Check, Status, in_scratch_namespace, in_words, interfaces};

const NFTABLES: &str = "nftables";
const RULES: &str = "nftables-rules";
const NFLOG: &str = "nflog";
const EVENTS: &str = "nftables-events";
const LABELS: &str = "conntrack-labels";
const SOURCES: &str = "source-check";
const FRAMES: &str = "bridge-frames";

pub(super) fn checks(out: &mut Vec<Check>) {
    match in_scratch_namespace(tried) {
        Ok(checks) => out.extend(checks),
        Err(e) => out.extend([NFTABLES, RULES, NFLOG, EVENTS, LABELS, SOURCES, FRAMES].map(|id| {
            Check::of(
                id,
                Status::Unknown,
                format!("no temporary network namespace to try it in: {e}"),
                super::kernel::cure_of_refusal(),
            )
        })),
    }
}

/// In an empty network namespace.
fn tried() -> Vec<Check> {
    let mut out = Vec::new();
    // As if a bridge led to pods, by the loopback device.
    let around = Surroundings { pod_ports: [1].into(), ..Surroundings::default() };
    let started = Kernel::open()
        .and_then(|kernel| Enforcer::start_in(kernel, Options::default(), around, &NodePlan::default()));
    let mut enforcer = match started {
        Ok((enforcer, _)) => enforcer,
        Err(e) => {
            out.push(Check::of(
                NFTABLES,
                Status::Fail,
                in_words(&e),
                "load nf_tables and nf_conntrack, or run a kernel with CONFIG_NF_TABLES_INET, CONFIG_NFT_CT and CONFIG_NF_CONNTRACK_LABELS",
            ));
            return out;
        }
    };
    out.push(Check::ok(NFTABLES, "nf_tables takes the table, its maps, sets and base chains"));
    out.push(rules(&mut enforcer));
    let group = Options::default().log_group.unwrap_or_default();
    out.push(match Reader::open(group) {
        Ok(_) => Check::ok(NFLOG, "denied packets can be logged and read"),
        Err(e) => Check::of(
            NFLOG,
            Status::Warn,
            format!("denied packets can't be told: {}", in_words(&e)),
            "load nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG); enforcement does not need it",
        ),
    });
    out.push(match Watcher::open(enforcer.kernel()) {
        Ok(_) => Check::ok(EVENTS, "changes of the rules by others can be heard"),
        Err(e) => Check::of(
            EVENTS,
            Status::Warn,
            format!("changes of the rules by others can't be heard: {}", in_words(&e)),
            "they are found at the next full comparison instead",
        ),
    });
    out.push(labels(&mut enforcer));
    let lacking: Vec<Feature> = enforcer.lacking().collect();
    out.push(if lacking.contains(&Feature::SourceCheck) {
        Check::of(
            SOURCES,
            Status::Warn,
            "the kernel does not look up reverse paths in the forward hook: a pod that forges its source address is judged \
             by the forged one",
            "run Linux 5.19 or later with CONFIG_NFT_FIB_INET, or set rp_filter=1 on pods' interfaces",
        )
    } else {
        Check::ok(SOURCES, "packets with forged source addresses can be told by the way back to the source")
    });
    out.push(if lacking.contains(&Feature::Bridge) {
        Check::of(
            FRAMES,
            Status::Warn,
            "the kernel has no nftables of the bridge family: on a bridge, frames with a VLAN tag pass whatever policies say",
            "run a kernel with CONFIG_NF_TABLES_BRIDGE; where no bridge leads to pods, nothing is missing",
        )
    } else {
        Check::ok(FRAMES, "on bridges, frames that are no plain IP can be dropped")
    });
    out
}

fn rules(enforcer: &mut Enforcer) -> Check {
    let everything = everything();
    let delta = NodePlan::default().delta_to(&everything);
    let outcome = enforcer.commit(&delta).and_then(|_| enforcer.verify());
    match outcome {
        Ok(seen) if seen.agrees() => {
            Check::ok(RULES, "every kind of rule is taken, and reads back as it was written")
        }
        Ok(seen) => Check::of(
            RULES,
            Status::Fail,
            format!(
                "the kernel makes something else of the rules: {}",
                seen.differences.first().map(ToString::to_string).unwrap_or_default()
            ),
            "report this with the kernel's version",
        ),
        Err(e) => Check::of(
            RULES,
            Status::Fail,
            in_words(&e),
            "load nft_ct, nft_log, nft_limit and nfnetlink_log, or run a kernel that has them",
        ),
    }
}

/// A plan that uses every kind of set, map and rule in both families.
fn everything() -> NodePlan {
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
    NodePlan {
        ingress: pods.map(|pod| (pod, ingress)).into(),
        egress: pods.map(|pod| (pod, egress)).into(),
        hairpin: pods.map(|pod| (pod, Traffic::of(Protocol::Tcp, PortSet::range(1, 1)))).into(),
        tables: BTreeMap::from([(ingress, table(Direction::Ingress)), (egress, table(Direction::Egress))]),
        peer_sets: BTreeMap::from([
            (members, PeerSet::Addresses(peers.into_iter().collect())),
            (ranges, PeerSet::Ranges(blocks)),
        ]),
        local: pods.into(),
        nodes: peers.into(),
    }
}

/// A connection over the loopback device is tracked, found and marked as revoked.
fn labels(enforcer: &mut Enforcer) -> Check {
    const CURE: &str = "load nf_conntrack and nf_conntrack_netlink, or run a kernel with CONFIG_NF_CT_NETLINK and CONFIG_NF_CONNTRACK_LABELS";
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let sent = interfaces::loopback_up().and_then(|()| {
        let socket = UdpSocket::bind((here, 0))?;
        socket.send_to(b"palisade", socket.local_addr()?)?;
        Ok(socket)
    });
    let socket = match sent {
        Ok(socket) => socket,
        Err(e) => {
            return Check::of(LABELS, Status::Unknown, format!("no loopback device to try it on: {e}"), CURE);
        }
    };
    let found = conntrack::list(enforcer.kernel(), &BTreeSet::from([here]));
    drop(socket);
    let revoked = found.and_then(|connections| {
        connections.first().map(|connection| conntrack::revoke(enforcer.kernel(), connection)).transpose()
    });
    match revoked {
        Ok(Some(Revocation::Labelled)) => {
            Check::ok(LABELS, "connections are tracked, and can be cut by a label")
        }
        Ok(Some(Revocation::Replaced | Revocation::Deleted | Revocation::Gone)) => Check::of(
            LABELS,
            Status::Warn,
            "connections have no room for labels: what a change denies is cut by the set of revoked connections alone",
            CURE,
        ),
        Ok(None) => Check::of(LABELS, Status::Fail, "a connection was not tracked", CURE),
        Err(e) => Check::of(LABELS, Status::Fail, in_words(&e), CURE),
    }
}
