//! Decides every connection that was seen, by the policies that are suggested.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use palisade_policy::{Cluster, Decision, Direction, Flow, Name, Protocol, Side, Tier, reference};

use super::{Seen, SeenConnection, SeenEnd, SeenFlow, SuggestedPolicy, groups::Groups};

/// Connections that were seen and are denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedFlow {
    /// The connections.
    pub connection: SeenConnection,
    /// The directions that deny the first of them, and why.
    pub sides: Vec<(Direction, Side)>,
}

/// Returns a cluster in which the suggested policies are the only NetworkPolicies of their namespaces.
pub(super) fn with_policies(
    cluster: &Cluster,
    namespaces: &BTreeSet<Name>,
    policies: &[SuggestedPolicy],
) -> Cluster {
    let mut after = cluster.clone();
    after
        .policies
        .retain(|key, policy| policy.tier != Tier::Developer || !namespaces.contains(&key.namespace));
    for SuggestedPolicy { policy, .. } in policies {
        after.policies.insert(policy.key.clone(), Arc::new(policy.clone()));
    }
    after
}

/// Decides each flow. Returns how many are allowed, and those that are not.
pub(super) fn verify(after: &Cluster, flows: &[SeenFlow], groups: &Groups<'_>) -> (Seen, Vec<DeniedFlow>) {
    let mut allowed = Seen::default();
    let mut denied: BTreeMap<(SeenEnd, SeenEnd, Protocol, u16), DeniedFlow> = BTreeMap::new();
    let mut known: HashMap<&Flow, Option<Decision>> = HashMap::new();
    for SeenFlow { flow, from_own_node, seen, .. } in flows {
        // Nothing denies these (SEMANTICS A39). The node may not be known.
        let denial = known.entry(flow).or_insert_with(|| {
            let decision = (!from_own_node).then(|| reference::decide(after, flow));
            decision.filter(|decision| !decision.verdict().is_allow())
        });
        let Some(decision) = denial else {
            allowed.add(seen);
            continue;
        };
        let (from, to) = (groups.end(&flow.source), groups.end(&flow.destination));
        let key = (from.clone(), to.clone(), flow.protocol, flow.port);
        let one = denied.entry(key).or_insert_with(|| DeniedFlow {
            connection: SeenConnection {
                from,
                to,
                protocol: flow.protocol,
                port: flow.port,
                seen: Seen::default(),
            },
            sides: denying(decision),
        });
        one.connection.seen.add(seen);
    }
    (allowed, denied.into_values().collect())
}

fn denying(decision: &Decision) -> Vec<(Direction, Side)> {
    let sides = [(Direction::Egress, &decision.egress), (Direction::Ingress, &decision.ingress)];
    let denies = sides.into_iter().filter(|(_, side)| !side.verdict.is_allow());
    denies.map(|(direction, side)| (direction, side.clone())).collect()
}
