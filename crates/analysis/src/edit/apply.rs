//! Applies edits to a cluster.

use std::sync::Arc;

use palisade_policy::{Cluster, Direction, PeerEntry, Pod, Policy, PortEntry, Rule, Workload};

use super::action::{Edit, RuleEdit};

/// Returns the cluster with edits applied in order.
#[must_use]
pub fn applied_all(cluster: &Cluster, edits: &[Edit]) -> Cluster {
    edits.iter().fold(cluster.clone(), |cluster, edit| applied(&cluster, edit))
}

/// Returns the cluster with an edit applied. An edit of an unknown object does nothing.
#[must_use]
pub fn applied(cluster: &Cluster, edit: &Edit) -> Cluster {
    let mut out = cluster.clone();
    match edit {
        Edit::NewPolicy(policy) => drop(out.policies.insert(policy.key.clone(), policy.clone())),
        Edit::Labels { namespace, workload, labels } => {
            let pods: Vec<Pod> =
                out.pods.in_namespace(namespace).filter(|p| is_of(p, workload)).cloned().collect();
            for mut pod in pods {
                pod.labels = labels.iter().fold(pod.labels, |all, (key, value)| all.with(key, value));
                out.pods.insert(pod);
            }
        }
        Edit::Subject { policy, selector, .. } => {
            if let Some(policy) = out.policies.get_mut(policy).map(Arc::make_mut) {
                policy.subject.pods = selector.clone();
            }
        }
        Edit::Direction { policy, direction, rules, .. } => {
            if let Some(policy) = out.policies.get_mut(policy).map(Arc::make_mut) {
                *rules_of(policy, *direction) = rules.clone();
            }
        }
        Edit::Rules { policy, direction, action, .. } => {
            if let Some(policy) = out.policies.get_mut(policy).map(Arc::make_mut) {
                edit_rules(rules_of(policy, *direction), action);
            }
        }
    }
    out
}

/// Returns whether a pod belongs to a workload, or is the bare pod itself.
pub(crate) fn is_of(pod: &Pod, workload: &Workload) -> bool {
    match &pod.workload {
        Some(own) => own == workload,
        None => &*workload.kind == "Pod" && pod.key.name == workload.name,
    }
}

fn rules_of(policy: &mut Policy, direction: Direction) -> &mut Vec<Rule> {
    match direction {
        Direction::Ingress => policy.ingress.get_or_insert_default(),
        Direction::Egress => policy.egress.get_or_insert_default(),
    }
}

fn edit_rules(rules: &mut Vec<Rule>, action: &RuleEdit) {
    let peer = |peer: &palisade_policy::Peer| PeerEntry { peer: peer.clone(), origin: None };
    let port = |port: &palisade_policy::PortMatch| PortEntry { port: port.clone(), origin: None };
    match action {
        RuleEdit::AddRule { at, rule } => rules.insert((*at).min(rules.len()), rule.clone()),
        RuleEdit::AddPeers { rule, peers } => {
            if let Some(list) = rules.get_mut(*rule).and_then(|r| r.peers.as_mut()) {
                list.extend(peers.iter().map(peer));
            }
        }
        RuleEdit::AddPorts { rule, ports } => {
            if let Some(list) = rules.get_mut(*rule).and_then(|r| r.ports.as_mut()) {
                list.extend(ports.iter().map(port));
            }
        }
        RuleEdit::ReplacePeer { rule, index, peer } => {
            let list = rules.get_mut(*rule).and_then(|r| r.peers.as_mut());
            if let Some(entry) = list.and_then(|list| list.get_mut(*index)) {
                entry.peer = peer.clone();
            }
        }
        RuleEdit::ReplacePort { rule, index, ports } => {
            let list = rules.get_mut(*rule).and_then(|r| r.ports.as_mut());
            if let Some(list) = list.filter(|list| *index < list.len()) {
                let origin = list[*index].origin.clone();
                let new = ports.iter().map(|p| PortEntry { port: p.clone(), origin: origin.clone() });
                list.splice(*index..=*index, new);
            }
        }
        RuleEdit::RemovePeers { rule, gone } => {
            if let Some(list) = rules.get_mut(*rule).and_then(|r| r.peers.as_mut()) {
                remove(list, gone);
            }
        }
        RuleEdit::RemovePorts { rule, gone } => {
            if let Some(list) = rules.get_mut(*rule).and_then(|r| r.ports.as_mut()) {
                remove(list, gone);
            }
        }
        RuleEdit::RemoveRules(gone) => remove(rules, gone),
    }
}

fn remove<T>(list: &mut Vec<T>, gone: &[usize]) {
    let mut index = 0;
    list.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}
