//! Edits that close a gap of a question that should be allowed.

use std::{collections::BTreeSet, sync::Arc};

use palisade_policy::{
    Action, Cluster, Direction, Endpoint, NamespaceMatch, ObjectKey, PodMatch, Policy, PolicyKey, Tier,
    walk::{Decider, PolicyStep, RuleStep},
};

use super::{
    action::{Edit, RuleEdit},
    gap::Gap,
    select::Selectors,
};
use crate::shape::cidrs;

/// The last priority of a ClusterNetworkPolicy that the API admits.
const LAST_PRIORITY: i32 = 1000;

/// Returns candidates, unverified: edits of policies that select no more pods than the gap, and a new policy. A policy
/// that selects more pods comes last; one that has no rules is never edited, because it is there to deny.
pub(crate) fn candidates(selectors: Selectors<'_>, gap: &Gap<'_>) -> Vec<Edit> {
    let query = Candidates { selectors, gap };
    let mut deciders = gap.walk.parts.iter().filter(|part| !part.verdict.is_allow());
    match deciders.next().map(|part| &part.decider) {
        Some(Decider::Isolated(_)) => query.additions(),
        // Ingress peers of cluster-wide policies are pods (SEMANTICS C7).
        Some(Decider::Rule(_)) if gap.direction == Direction::Ingress && gap.other_pods().is_empty() => {
            Vec::new()
        }
        Some(Decider::Rule(rule)) => {
            // Insert before the denying rule, since the first matching rule decides (SEMANTICS C21).
            let accept = gap.rule(selectors, Action::Accept, &rule.policy.namespace);
            let inserted = query.edit(&rule.policy, RuleEdit::AddRule { at: rule.index, rule: accept });
            query.earlier_policy(&rule.policy).into_iter().chain([inserted]).collect()
        }
        _ => Vec::new(),
    }
}

struct Candidates<'a> {
    selectors: Selectors<'a>,
    gap: &'a Gap<'a>,
}

impl Candidates<'_> {
    /// For each isolating policy: adds the ports to rules that match the peer, the peers to rules that match the ports,
    /// or a rule.
    fn additions(&self) -> Vec<Edit> {
        let mut out = vec![self.new_policy()];
        let isolating = self.gap.walk.policies.iter().filter(|step| step.tier == Tier::Developer);
        let mut rest = Vec::new();
        for step in isolating.filter(|step| !step.rules.is_empty()) {
            let list = if self.is_dedicated(step) { &mut out } else { &mut rest };
            list.extend(step.rules.iter().filter_map(|rule| self.extended(&step.policy, rule)));
            let rule = self.gap.rule(self.selectors, Action::Accept, &step.policy.namespace);
            list.push(self.edit(&step.policy, RuleEdit::AddRule { at: step.rules.len(), rule }));
        }
        out.append(&mut rest);
        out
    }

    /// Adds what a rule lacks, if it has one half of what is needed.
    fn extended(&self, policy: &PolicyKey, step: &RuleStep) -> Option<Edit> {
        let rule = step.rule.index;
        if step.peer_matches {
            let ports = step.ports.as_ref().and(self.gap.ports())?;
            return Some(self.edit(policy, RuleEdit::AddPorts { rule, ports }));
        }
        let matches_all = self.gap.traffic.difference(&step.holds).is_none();
        let peers = || self.gap.peers(self.selectors, &policy.namespace);
        matches_all.then(|| self.edit(policy, RuleEdit::AddPeers { rule, peers: peers() }))
    }

    /// Returns whether a policy selects only the pods of the gap, and would select no others tomorrow.
    fn is_dedicated(&self, step: &PolicyStep) -> bool {
        is_dedicated(self.selectors.cluster, &step.policy, &self.gap.subjects)
    }

    /// Returns a NetworkPolicy that selects the pods of the gap and allows its traffic.
    fn new_policy(&self) -> Edit {
        let namespace = self.gap.subjects.first().map_or_else(|| "".into(), |key| key.namespace.clone());
        let subject = PodMatch {
            namespaces: NamespaceMatch::Named(namespace.clone()),
            pods: self.selectors.of(&self.gap.subjects),
        };
        let rules = Some(vec![self.gap.rule(self.selectors, Action::Accept, &namespace)]);
        let key = |name: &str| PolicyKey::network_policy(namespace.clone(), name);
        let (ingress, egress) = self.directed(rules);
        let key = free_key(self.selectors.cluster, self.gap, "allow", key);
        let policy = Policy {
            key,
            tier: Tier::Developer,
            priority: 0,
            subject,
            ingress,
            egress,
            mode: None,
            origin: None,
        };
        Edit::NewPolicy(Arc::new(policy))
    }

    /// Returns a cluster-wide policy that is evaluated before a denying one and accepts the traffic of the gap. `None` if
    /// none can precede it.
    fn earlier_policy(&self, denying: &PolicyKey) -> Option<Edit> {
        let denying = self.selectors.cluster.policies.get(denying)?;
        // The BaselineAdminNetworkPolicy comes after all of them.
        let priority = denying.priority.checked_sub(1).filter(|p| *p >= 0)?.min(LAST_PRIORITY);
        let subject = self.selectors.pods(&self.gap.subjects, "")?;
        let rules = Some(vec![self.gap.rule(self.selectors, Action::Accept, "")]);
        let (ingress, egress) = self.directed(rules);
        let key = free_key(self.selectors.cluster, self.gap, "allow", cluster_wide_key);
        let tier = denying.tier;
        // Rules of one priority in different policies have no defined order.
        let taken = self
            .selectors
            .cluster
            .policies
            .values()
            .any(|p| p.tier == tier && p.priority == priority && &*p.key.kind == "ClusterNetworkPolicy");
        let policy = Policy { key, tier, priority, subject, ingress, egress, mode: None, origin: None };
        (!taken && tier != Tier::Developer).then(|| Edit::NewPolicy(Arc::new(policy)))
    }

    fn directed<T>(&self, rules: Option<T>) -> (Option<T>, Option<T>) {
        if self.gap.direction == Direction::Ingress { (rules, None) } else { (None, rules) }
    }

    fn edit(&self, policy: &PolicyKey, action: RuleEdit) -> Edit {
        let origin = self.selectors.cluster.policies.get(policy).and_then(|p| p.origin.clone());
        Edit::Rules { policy: policy.clone(), origin, direction: self.gap.direction, action }
    }
}

/// Returns whether a policy selects only these pods, and by more than their namespace.
pub(crate) fn is_dedicated(cluster: &Cluster, policy: &PolicyKey, pods: &BTreeSet<ObjectKey>) -> bool {
    let Some(policy) = cluster.policies.get(policy) else { return false };
    let selected = |pod: &palisade_policy::Pod| {
        let labels = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
        policy.subject.matches(&pod.key.namespace, labels, &pod.labels)
    };
    !policy.subject.pods.is_everything()
        && cluster.pods.values().filter(|pod| selected(pod)).all(|pod| pods.contains(&pod.key))
}

/// Makes the key of a ClusterNetworkPolicy.
pub(crate) fn cluster_wide_key(name: &str) -> PolicyKey {
    PolicyKey { kind: "ClusterNetworkPolicy".into(), namespace: "".into(), name: name.into() }
}

/// The longest name of a policy, less than the API allows, so that a suffix fits.
const LONGEST: usize = 240;

/// Returns the key of a new policy, named after both ends: `allow-web-to-db`.
pub(crate) fn free_key(
    cluster: &Cluster,
    gap: &Gap<'_>,
    verb: &str,
    key: impl Fn(&str) -> PolicyKey,
) -> PolicyKey {
    let first = gap.pairs.first();
    let name = |end: fn(&super::Pair) -> &Endpoint| {
        first.map_or_else(String::new, |pair| end_name(cluster, end(pair), pair))
    };
    let (source, destination) = (name(|pair| &pair.source), name(|pair| &pair.destination));
    let base: String = format!("{verb}-{source}-to-{destination}").chars().take(LONGEST).collect();
    // A pod that doesn't exist is named by its labels, with characters that a name can't have.
    let base = base.replace(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.'), "-");
    let base = base.trim_end_matches(['-', '.']);
    let direction = gap.direction.to_string();
    let names = [base.to_owned(), format!("{base}-{direction}")];
    let numbered = (2..).map(|n| format!("{base}-{direction}-{n}"));
    let mut keys = names.into_iter().chain(numbered).map(|name| key(&name));
    keys.find(|key| !cluster.policies.contains_key(key)).unwrap_or_else(|| key(base))
}

fn end_name(cluster: &Cluster, end: &Endpoint, pair: &super::Pair) -> String {
    match end {
        Endpoint::Pod { key, .. } => {
            let workload = cluster.pods.get(key).and_then(|pod| pod.workload.as_ref());
            workload.map_or(&key.name, |w| &w.name).to_string()
        }
        Endpoint::Node { name, .. } => format!("node-{name}"),
        Endpoint::External(_) if !pair.ranges.is_empty() => match cidrs(&pair.asked_ranges).first() {
            Some(net) => net.to_string().replace([':', '.', '/'], "-").trim_matches('-').to_owned(),
            None => "internet".to_owned(),
        },
        Endpoint::External(address) => {
            let text = address.to_string();
            // A label of a name begins and ends with a letter or digit: `::1` and `fe80::` don't.
            text.replace([':', '.'], "-").trim_matches('-').to_owned()
        }
    }
}
