//! Plans that deny everything that a question asks about.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use palisade_policy::{
    Action, Cluster, Direction, Endpoint, IpBlock, NamespaceMatch, Peer, PodMatch, Policy, PolicyKey,
    PortMatch, PortSet, Requirement, Selector, Test, Tier, Traffic, Verdict,
    walk::{Decider, RuleStep},
};

use super::{
    action::{Edit, RuleEdit},
    allow::{cluster_wide_key, free_key},
    apply::applied,
    gap::{Gap, gap},
    plan::{Plan, sorted},
    question::Question,
    select::{DeclaredWorkloads, Selectors},
};

/// The most rules that one plan edits.
const MAX_EDITS: usize = 32;

/// How a rule is prevented from allowing what is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Remove the matching peers, or else the matching ports.
    RemoveEntries,
    /// Except the other end from the matching peers.
    NarrowPeers,
    /// Except the asked ports from the matching ranges.
    NarrowPorts,
    /// Remove the rule.
    RemoveRule,
}

/// Returns plans that deny everything that a question asks about, in either direction, the best first: one that changes
/// nothing else, then the smallest. Empty if it is denied, or if nothing can deny it (SEMANTICS A39, A41).
///
/// Costs some dozen computations of all connections at most.
#[must_use]
pub fn to_deny(cluster: &Cluster, question: &Question, workloads: &DeclaredWorkloads) -> Vec<Plan> {
    if question.has_verdict(cluster, Verdict::Deny) {
        return Vec::new();
    }
    let search = Search { question, workloads };
    let mut found = Vec::new();
    for direction in Direction::BOTH {
        for style in [Style::RemoveEntries, Style::NarrowPeers, Style::NarrowPorts, Style::RemoveRule] {
            found.extend(search.edited(cluster, direction, style));
        }
        found.extend(search.denied_by_new_policies(cluster, direction, Search::cluster_wide));
        found.extend(search.denied_by_new_policies(cluster, direction, Search::isolating));
    }
    found.retain(|edits: &Vec<Edit>| {
        let edited = edits.iter().fold(cluster.clone(), |cluster, edit| applied(&cluster, edit));
        question.has_verdict(&edited, Verdict::Deny)
    });
    sorted(cluster, found.into_iter().map(|edits| (edits, false)).collect(), &question.asked())
}

struct Search<'a> {
    question: &'a Question,
    workloads: &'a DeclaredWorkloads,
}

/// A rule that allows some of what is asked about.
struct Allowing<'a> {
    policy: PolicyKey,
    step: RuleStep,
    gap: Gap<'a>,
}

impl Search<'_> {
    /// Edits the rules of one direction until none allows the question. `None` if no rule is what allows it.
    fn edited(&self, cluster: &Cluster, direction: Direction, style: Style) -> Option<Vec<Edit>> {
        let (mut edited, mut edits) = (cluster.clone(), Vec::new());
        for _ in 0..MAX_EDITS {
            let Some(allowing) = self.allowing(&edited, direction)? else {
                return (!edits.is_empty()).then_some(edits);
            };
            let selectors = Selectors { cluster: &edited, workloads: self.workloads };
            let edit = allowing.prevented(selectors, style);
            let after = applied(&edited, &edit);
            if after == edited {
                return None;
            }
            edited = after;
            add_edit(&mut edits, edit);
        }
        None
    }

    /// Returns the first rule that allows some of the question; `Some(None)` if the direction denies it, and `None` if
    /// something else than a rule allows it.
    fn allowing(&self, cluster: &Cluster, direction: Direction) -> Option<Option<Allowing<'_>>> {
        for pair in &self.question.pairs {
            let walk = pair.walk(cluster, direction);
            let Some(part) = walk.parts.iter().find(|part| part.verdict.is_allow()) else { continue };
            let Decider::Rule(rule) = &part.decider else { return None };
            let step = walk.policies.iter().find(|p| p.policy == rule.policy)?.rules.get(rule.index)?.clone();
            let traffic = part.traffic.clone();
            let policy = rule.policy.clone();
            let gap = gap(cluster, self.question, direction, pair, walk, traffic);
            return Some(Some(Allowing { policy, step, gap }));
        }
        Some(None)
    }

    /// Adds policies until one direction denies the question.
    fn denied_by_new_policies(
        &self,
        cluster: &Cluster,
        direction: Direction,
        policy: fn(&Self, &Cluster, &Gap<'_>) -> Option<Policy>,
    ) -> Option<Vec<Edit>> {
        let (mut edited, mut edits) = (cluster.clone(), Vec::new());
        for _ in 0..MAX_EDITS {
            let allowed = self.question.pairs.iter().find_map(|pair| {
                let walk = pair.walk(&edited, direction);
                let allowed = walk.allowed();
                (!allowed.is_none()).then_some((pair, walk, allowed))
            });
            let Some((pair, walk, allowed)) = allowed else { return Some(edits) };
            let gap = gap(&edited, self.question, direction, pair, walk, allowed);
            let edit = Edit::NewPolicy(Arc::new(policy(self, &edited, &gap)?));
            let after = applied(&edited, &edit);
            if gap
                .pairs
                .iter()
                .any(|pair| !pair.walk(&after, direction).allowed().intersection(&gap.traffic).is_none())
            {
                return None;
            }
            edited = after;
            edits.push(edit);
        }
        None
    }

    /// Returns a cluster-wide policy that denies the traffic before all others; `None` if it can't refer to the other end
    /// (SEMANTICS C7).
    fn cluster_wide(&self, cluster: &Cluster, gap: &Gap<'_>) -> Option<Policy> {
        let selectors = Selectors { cluster, workloads: self.workloads };
        let is_pods = !gap.other_pods().is_empty();
        if gap.direction == Direction::Ingress && !is_pods {
            return None;
        }
        let subject = selectors.pods(&gap.subjects, "")?;
        let rules = Some(vec![gap.rule(selectors, Action::Deny, "")]);
        let (ingress, egress) =
            if gap.direction == Direction::Ingress { (rules, None) } else { (None, rules) };
        let key = free_key(cluster, gap, "deny", cluster_wide_key);
        Some(Policy {
            key,
            tier: Tier::Admin,
            priority: 0,
            subject,
            ingress,
            egress,
            mode: None,
            origin: None,
        })
    }

    /// Returns a NetworkPolicy without rules that isolates the pods; `None` if they are isolated.
    fn isolating(&self, cluster: &Cluster, gap: &Gap<'_>) -> Option<Policy> {
        if !gap.walk.parts.iter().any(|part| part.decider == Decider::NotIsolated) {
            return None;
        }
        let selectors = Selectors { cluster, workloads: self.workloads };
        let namespace = gap.subjects.first()?.namespace.clone();
        let subject = PodMatch {
            namespaces: NamespaceMatch::Named(namespace.clone()),
            pods: selectors.of(&gap.subjects),
        };
        let rules = Some(Vec::new());
        let (ingress, egress) =
            if gap.direction == Direction::Ingress { (rules, None) } else { (None, rules) };
        let key = free_key(cluster, gap, "deny", |name| PolicyKey::network_policy(namespace.clone(), name));
        Some(Policy {
            key,
            tier: Tier::Developer,
            priority: 0,
            subject,
            ingress,
            egress,
            mode: None,
            origin: None,
        })
    }
}

/// Appends an edit. Rules that are removed from one list one after the other are removed at once, so that their indexes are
/// those of the list as it is.
fn add_edit(edits: &mut Vec<Edit>, edit: Edit) {
    if let Edit::Rules { policy, direction, action: RuleEdit::RemoveRules(more), .. } = &edit {
        let of_list = |e: &&mut Edit| e.policy() == Some(policy) && e.direction() == Some(*direction);
        if let Some(Edit::Rules { action: RuleEdit::RemoveRules(gone), .. }) =
            edits.iter_mut().rev().find(of_list)
        {
            for index in more {
                let index = gone.iter().fold(*index, |index, before| index + usize::from(index >= *before));
                gone.insert(gone.partition_point(|other| *other < index), index);
            }
            return;
        }
    }
    edits.push(edit);
}

impl Allowing<'_> {
    /// Returns an edit after which the rule doesn't allow the traffic; the rule is removed if the style does not apply.
    fn prevented(&self, selectors: Selectors<'_>, style: Style) -> Edit {
        let action = match style {
            Style::RemoveEntries => self.without_entries(),
            Style::NarrowPeers => self.narrow_peer(selectors),
            Style::NarrowPorts => self.narrow_port(),
            Style::RemoveRule => None,
        };
        let origin = selectors.cluster.policies.get(&self.policy).and_then(|p| p.origin.clone());
        let action = action.unwrap_or(RuleEdit::RemoveRules(vec![self.step.rule.index]));
        let (policy, direction) = (self.policy.clone(), self.gap.direction);
        Edit::Rules { policy, origin, direction, action }
    }

    fn without_entries(&self) -> Option<RuleEdit> {
        let rule = self.step.rule.index;
        let some = |entries: &Option<Vec<palisade_policy::walk::EntryStep>>| {
            let entries = entries.as_ref()?;
            let gone: Vec<usize> = (0..entries.len()).filter(|i| entries[*i].matches).collect();
            (!gone.is_empty() && gone.len() < entries.len()).then_some(gone)
        };
        some(&self.step.peers)
            .map(|gone| RuleEdit::RemovePeers { rule, gone })
            .or_else(|| some(&self.step.ports).map(|gone| RuleEdit::RemovePorts { rule, gone }))
    }

    fn narrow_peer(&self, selectors: Selectors<'_>) -> Option<RuleEdit> {
        use palisade_policy::walk::Entry;
        let entries = self.step.peers.as_ref()?;
        let (index, entry) = entries.iter().enumerate().find(|(_, entry)| entry.matches)?;
        let Entry::Peer(peer) = &entry.entry else { return None };
        let peer = match peer {
            Peer::Pods(choice) => Peer::Pods(self.without_pods(choice, selectors)?),
            // Cluster-wide policies have no exceptions.
            Peer::Block(block) if !self.policy.namespace.is_empty() => {
                Peer::Block(self.without_address(block)?)
            }
            Peer::Block(_) | Peer::Nodes(_) | Peer::DomainName(_) => return None,
        };
        Some(RuleEdit::ReplacePeer { rule: self.step.rule.index, index, peer })
    }

    /// Excepts the pods of the other end by one label that tells them apart.
    fn without_pods(&self, choice: &PodMatch, selectors: Selectors<'_>) -> Option<PodMatch> {
        let pods = self.gap.other_pods();
        let selector = selectors.of(&pods);
        let (key, values) = selector.requirements().iter().find_map(|r| match &r.test {
            Test::In(values) => Some((r.key.clone(), values.clone())),
            _ => None,
        })?;
        // A peer that already names the label would get contradictory requirements: removing the rule says it better.
        if choice.pods.requirements().iter().any(|r| r.key == key && matches!(r.test, Test::In(_))) {
            return None;
        }
        let more = Requirement { key, test: Test::NotIn(values) };
        let pods = Selector::new(choice.pods.requirements().iter().cloned().chain([more]));
        Some(PodMatch { namespaces: choice.namespaces.clone(), pods })
    }

    fn without_address(&self, block: &IpBlock) -> Option<IpBlock> {
        let addresses: BTreeSet<IpNet> = self
            .gap
            .pairs
            .iter()
            .filter(|pair| pair.ranges.is_empty())
            .map(|pair| pair.other(self.gap.direction))
            .filter(|end| matches!(end, Endpoint::External(_)))
            .map(|end| IpNet::from(end.address()))
            .filter(|net| block.cidr.contains(net) && block.cidr != *net)
            .collect();
        let except: BTreeSet<IpNet> = block.except.iter().copied().chain(addresses.iter().copied()).collect();
        (!addresses.is_empty()).then(|| IpBlock { cidr: block.cidr, except: except.into_iter().collect() })
    }

    fn narrow_port(&self) -> Option<RuleEdit> {
        use palisade_policy::walk::Entry;
        let entries = self.step.ports.as_ref()?;
        let (index, entry) = entries.iter().enumerate().find(|(_, entry)| entry.matches)?;
        let Entry::Port(PortMatch::Numbers { protocol, first, last }) = &entry.entry else { return None };
        let own = PortSet::range((*first).max(1), *last);
        let asked = self.gap.traffic.ports(*protocol);
        let left = Traffic::of(*protocol, own).difference(&Traffic::of(*protocol, asked));
        let ports: Vec<PortMatch> = left
            .ports(*protocol)
            .ranges()
            .iter()
            .map(|&(first, last)| PortMatch::Numbers { protocol: *protocol, first, last })
            .collect();
        (!ports.is_empty()).then_some(RuleEdit::ReplacePort { rule: self.step.rule.index, index, ports })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_one_list_are_removed_at_once() {
        let removed = |policy: &str, index| Edit::Rules {
            policy: PolicyKey::network_policy("shop", policy),
            origin: None,
            direction: Direction::Egress,
            action: RuleEdit::RemoveRules(vec![index]),
        };
        let mut edits = Vec::new();
        // Of the rules 0 to 5: first 2, then 0, then 1 (at 0 by now), then 4 (at 1 by now).
        for (policy, index) in [("a", 2), ("b", 0), ("a", 0), ("a", 0), ("a", 1)] {
            add_edit(&mut edits, removed(policy, index));
        }
        let indexes = |edit: &Edit| match edit {
            Edit::Rules { action: RuleEdit::RemoveRules(gone), .. } => gone.clone(),
            _ => Vec::new(),
        };
        assert_eq!(edits.iter().map(indexes).collect::<Vec<_>>(), [vec![0, 1, 2, 4], vec![0]]);
    }
}
