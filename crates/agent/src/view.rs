//! A node's plan as values for display: the responses to `palisade node`, and the output of `--dry-run`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{
    Cluster, Deciding, Direction, Mode, Name, NodePlan, PeerSet, PeerSetId, Pod, PolicyTableId, PortSet,
    Protocol, Traffic,
};
use serde::{Deserialize, Serialize};

/// A local pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The policy table for its ingress. `None` if it is not isolated.
    pub ingress: Option<String>,
    /// The policy table for its egress. `None` if it is not isolated.
    pub egress: Option<String>,
    /// The directions in which policies in audit mode select it.
    #[serde(default)]
    pub audit: Vec<String>,
    /// The directions in which it is cut off because the kernel rejected its policies.
    pub cut_off: Vec<String>,
    /// The directions in which its policies are not enforced: the kernel also refused to cut it off.
    #[serde(default)]
    pub not_enforced: Vec<String>,
    /// The pod that owns the address instead, if several pods report it.
    pub address_owned_by: Option<String>,
}

/// Local pods that the same policies select in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileView {
    /// `ingress` or `egress`.
    pub direction: String,
    /// `enforce`, or `audit` for what would decide if no policy were in audit mode.
    #[serde(default)]
    pub mode: String,
    /// The policy table of the profile.
    pub table: String,
    /// The policies that select its pods.
    pub policies: Vec<String>,
    /// Its pods.
    pub pods: Vec<String>,
}

/// A policy table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTableView {
    /// Its id, which is part of its name in the kernel.
    pub id: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `enforce`, or `audit` for what would decide if no policy were in audit mode.
    #[serde(default)]
    pub mode: String,
    /// The number of local addresses that use it.
    pub addresses: usize,
    /// The traffic that it allows to each peer set.
    pub rows: Vec<RowView>,
    /// The traffic that it allows to all other peers.
    pub rest: String,
}

/// The traffic that a policy table allows to one peer set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowView {
    /// The id of the peer set.
    pub group: String,
    /// `pods` or `ranges`.
    pub of: String,
    /// Protocols and ports.
    pub traffic: String,
}

/// A peer set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSetView {
    /// Its id, which is part of its name in the kernel.
    pub id: String,
    /// `pods` or `ranges`.
    pub of: String,
    /// The number of policy tables that refer to it.
    pub tables: usize,
    /// Its addresses or ranges.
    pub members: Vec<String>,
}

/// A whole plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The node.
    pub node: String,
    /// Its pods.
    pub pods: Vec<PodView>,
    /// Its profiles.
    pub profiles: Vec<ProfileView>,
    /// Its policy tables.
    pub tables: Vec<PolicyTableView>,
    /// Its peer sets.
    pub groups: Vec<PeerSetView>,
}

impl PlanView {
    /// Displays `plan`, which was compiled from `cluster` for `node`. `O(pods + local pods × policies + plan)`.
    #[must_use]
    pub fn of(cluster: &Cluster, node: &Name, plan: &NodePlan) -> Self {
        Self {
            node: node.to_string(),
            pods: pods(cluster, node, plan, &[], &[]),
            profiles: profiles(cluster, node, plan),
            tables: tables(plan),
            groups: groups(plan),
        }
    }
}

/// Returns the running pods of the node.
pub(crate) fn local<'a>(cluster: &'a Cluster, node: &'a Name) -> impl Iterator<Item = &'a Pod> {
    cluster.pods.values().filter(move |pod| pod.is_running() && pod.node.as_ref() == Some(node))
}

/// Returns the local pods. `O(pods)`.
#[must_use]
pub fn pods(
    cluster: &Cluster,
    node: &Name,
    plan: &NodePlan,
    cut_off: &[(Direction, IpAddr)],
    not_enforced: &[(Direction, IpAddr)],
) -> Vec<PodView> {
    let owners = owners(cluster, node);
    let view = |pod: &Pod| {
        let owned = |address: &&IpAddr| owners.get(*address).is_none_or(|owner| owner.key == pod.key);
        let table = |dispatch: &BTreeMap<IpAddr, PolicyTableId>| {
            pod.addresses.iter().filter(owned).find_map(|a| dispatch.get(a)).map(ToString::to_string)
        };
        let among = |list: &[(Direction, IpAddr)]| {
            let is = |direction: &&Direction| pod.addresses.iter().any(|a| list.contains(&(**direction, *a)));
            Direction::BOTH.iter().filter(is).map(ToString::to_string).collect()
        };
        let other = pod.addresses.iter().find_map(|a| owners.get(a).filter(|owner| owner.key != pod.key));
        PodView {
            namespace: pod.key.namespace.to_string(),
            name: pod.key.name.to_string(),
            addresses: pod.addresses.clone(),
            ingress: table(&plan.ingress),
            egress: table(&plan.egress),
            audit: Direction::BOTH
                .iter()
                .filter(|direction| table(plan.audit.dispatch(**direction)).is_some())
                .map(ToString::to_string)
                .collect(),
            cut_off: among(cut_off),
            not_enforced: among(not_enforced),
            address_owned_by: other.map(|owner| owner.key.to_string()),
        }
    };
    local(cluster, node).map(view).collect()
}

/// Returns the owners of the local pods' addresses (SEMANTICS G-10). `O(pods)`.
fn owners<'a>(cluster: &'a Cluster, node: &Name) -> BTreeMap<IpAddr, &'a Pod> {
    let ours: BTreeSet<IpAddr> = local(cluster, node).flat_map(|pod| pod.addresses.iter().copied()).collect();
    let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
    for pod in cluster.pods.values().filter(|pod| pod.is_running()) {
        for address in pod.addresses.iter().filter(|a| ours.contains(*a)) {
            let owner = owners.entry(*address).or_insert(pod);
            if Pod::precedence(pod, owner).is_lt() {
                *owner = pod;
            }
        }
    }
    owners
}

/// Returns the profiles of the local pods. `O(pods + local pods × policies)`.
#[must_use]
pub fn profiles(cluster: &Cluster, node: &Name, plan: &NodePlan) -> Vec<ProfileView> {
    let owners = owners(cluster, node);
    let mut out = Vec::new();
    for (mode, direction, dispatch) in [
        (Mode::Enforce, Direction::Ingress, &plan.ingress),
        (Mode::Enforce, Direction::Egress, &plan.egress),
        (Mode::Audit, Direction::Ingress, &plan.audit.ingress),
        (Mode::Audit, Direction::Egress, &plan.audit.egress),
    ] {
        let mut by_table: BTreeMap<PolicyTableId, BTreeMap<_, &Pod>> = BTreeMap::new();
        for (address, table) in dispatch {
            if let Some(pod) = owners.get(address) {
                by_table.entry(*table).or_default().insert(&pod.key, pod);
            }
        }
        for (table, pods) in by_table {
            out.push(ProfileView {
                direction: direction.to_string(),
                mode: mode.to_string(),
                table: table.to_string(),
                // Pods with the same policy table may have different profiles with the same rules.
                policies: pods
                    .values()
                    .flat_map(|pod| policies_of(cluster, mode, pod, direction))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                pods: pods.keys().map(ToString::to_string).collect(),
            });
        }
    }
    out
}

fn policies_of(cluster: &Cluster, mode: Mode, pod: &Pod, direction: Direction) -> Vec<String> {
    let deciding = if mode == Mode::Audit { Deciding::All } else { Deciding::Enforced };
    let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    let selecting = cluster.deciding(deciding).filter(|policy| {
        policy.rules(direction).is_some() && policy.subject.matches(&pod.key.namespace, labels, &pod.labels)
    });
    selecting.map(|policy| policy.key.to_string()).collect()
}

/// Returns the policy tables of a plan.
#[must_use]
pub fn tables(plan: &NodePlan) -> Vec<PolicyTableView> {
    let rows = |rows: &BTreeMap<PeerSetId, Traffic>, of: &str| -> Vec<RowView> {
        let row = |(group, traffic): (&PeerSetId, &Traffic)| RowView {
            group: group.to_string(),
            of: of.to_owned(),
            traffic: traffic_text(traffic),
        };
        rows.iter().map(row).collect()
    };
    let view = |(id, table): (&PolicyTableId, &palisade_policy::PolicyTable)| {
        let dispatch = if table.direction == Direction::Ingress { &plan.ingress } else { &plan.egress };
        let audit = plan.audit.dispatch(table.direction);
        let users = |map: &BTreeMap<_, PolicyTableId>| map.values().filter(|t| *t == id).count();
        let mode = if users(dispatch) == 0 { Mode::Audit } else { Mode::Enforce };
        PolicyTableView {
            id: id.to_string(),
            direction: table.direction.to_string(),
            mode: mode.to_string(),
            addresses: users(dispatch) + users(audit),
            rows: [rows(&table.exact, PODS), rows(&table.ranges, RANGES)].concat(),
            rest: traffic_text(&table.rest),
        }
    };
    plan.tables.iter().map(view).collect()
}

const PODS: &str = "pods";
const RANGES: &str = "ranges";

/// Returns the peer sets of a plan.
#[must_use]
pub fn groups(plan: &NodePlan) -> Vec<PeerSetView> {
    let mut users: BTreeMap<PeerSetId, usize> = BTreeMap::new();
    for group in plan.tables.values().flat_map(|table| table.exact.keys().chain(table.ranges.keys())) {
        *users.entry(*group).or_default() += 1;
    }
    let view = |(id, group): (&PeerSetId, &PeerSet)| {
        let (of, members) = match group {
            PeerSet::Addresses(set) => (PODS, set.iter().map(|a| a.to_string()).collect()),
            PeerSet::Ranges(ranges) => (RANGES, ranges.iter().map(ToString::to_string).collect()),
        };
        PeerSetView {
            id: id.to_string(),
            of: of.to_owned(),
            tables: users.get(id).copied().unwrap_or(0),
            members,
        }
    };
    plan.peer_sets.iter().map(view).collect()
}

/// Whether a set has all ports. Port 0 doesn't count: rules can't name it.
fn has_all_ports(ports: &PortSet) -> bool {
    PortSet::range(1, u16::MAX).difference(ports).is_empty()
}

/// Formats traffic: `TCP 80,443; UDP`, `everything`, `nothing`.
fn traffic_text(traffic: &Traffic) -> String {
    let mut words = Vec::new();
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    for protocol in protocols {
        let ports = traffic.ports(protocol);
        if has_all_ports(&ports) {
            words.push(protocol.to_string());
        } else if !ports.is_empty() {
            words.push(format!("{protocol} {ports}"));
        }
    }
    if traffic.other {
        words.push("other protocols".to_owned());
    }
    let every = traffic.other && protocols.iter().all(|p| has_all_ports(&traffic.ports(*p)));
    match words.len() {
        _ if every => "everything".to_owned(),
        0 => "nothing".to_owned(),
        _ => words.join("; "),
    }
}
