//! One workload: who may reach it and what it may reach, which policies have a part in that, and what it is exposed to.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{
    Action, Cluster, Direction, Endpoint, Family, NamespaceMatch, ObjectKey, Origin, Peer, Pod, PodMatch,
    PolicyKey, Selector, Tier, Traffic,
    walk::{PolicyStep, Walk, walk},
};

use crate::{
    classes::Classes,
    connections::Connections,
    end::ConnectionEnd,
    entrances::Entrances,
    families::Families,
    query::ConnectionsOptions,
    query::EndFilter,
    representative::Representatives,
    witness::{Witness, unheld_address},
};

/// What is to be said about some pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// One part for pods that are alike; several where a workload's pods are not. Sorted.
    pub parts: Vec<PodsDescription>,
}

/// What is to be said about pods of one workload that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsDescription {
    /// The pods.
    pub end: ConnectionEnd,
    /// Egress and ingress.
    pub sides: [Side; 2],
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Which.
    pub direction: Direction,
    /// Whether NetworkPolicies isolate the pods in this direction.
    pub isolated: bool,
    /// The policies that act, in the order in which they are asked.
    pub policies: Vec<PolicyEffect>,
    /// Who may be reached, or may reach it: both ends' policies asked. Sorted by end.
    pub peers: Vec<PeerTraffic>,
    /// What routes ask a controller to forward to these pods, and policies deny.
    pub blocked: Vec<Forwarding>,
    /// What may be exchanged with addresses of the public internet.
    pub internet: Traffic,
    /// What these pods' own policies allow with a pod of any kind: without labels, in a new namespace.
    pub any_pod: Traffic,
    /// What these pods' own policies allow with pods that rules name, where that is more or other than `any_pod`.
    pub selected_pods: Vec<SelectedPods>,
}

/// What may be exchanged with one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTraffic {
    /// The other end.
    pub end: ConnectionEnd,
    /// In which families.
    pub families: Families,
    /// What.
    pub traffic: Traffic,
    /// By which routes, if the end is an [`ConnectionEnd::IngressController`]: indexes into [`Entrances::routes`].
    pub through: Vec<usize>,
}

/// What routes ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// In which families.
    pub families: Families,
    /// What.
    pub traffic: Traffic,
    /// The routes: indexes into [`Entrances::routes`].
    pub through: Vec<usize>,
}

/// What one policy does to these pods in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEffect {
    /// Which.
    pub policy: PolicyKey,
    /// Its tier. A NetworkPolicy isolates.
    pub tier: Tier,
    /// Where it begins.
    pub origin: Option<Origin>,
    /// What its rules do with connections with the ends that there are. Sorted by end.
    pub effects: Vec<Effect>,
}

/// What a policy's rules of one action do with one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The other end.
    pub end: ConnectionEnd,
    /// In which families.
    pub families: Families,
    /// What is done.
    pub action: Action,
    /// What the rules match.
    pub matches: Traffic,
    /// What of it would be decided otherwise without this policy's rules: no other rule does the same.
    pub alone: Traffic,
}

/// Pods that a rule names, whether there are any or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedPods {
    /// In which namespaces.
    pub namespaces: NamespaceMatch,
    /// With which labels.
    pub pods: Selector,
    /// Whether there is such a pod now.
    pub exist: bool,
    /// What the described pods' own policies allow with them.
    pub traffic: Traffic,
}

/// Describes these pods, by workload. Pods that aren't live are left out: no policy acts on them.
/// `O(connections + ends × policies)`.
#[must_use]
pub fn describe(cluster: &Cluster, pods: &BTreeSet<ObjectKey>, entrances: &Entrances) -> Description {
    let filter = || Some(EndFilter { pods: pods.clone(), ..EndFilter::default() });
    let options =
        ConnectionsOptions { nodes: true, entrances: entrances.clone(), ..ConnectionsOptions::default() };
    let sent = Connections::new(cluster, &ConnectionsOptions { from: filter(), ..options.clone() });
    let received = Connections::new(cluster, &ConnectionsOptions { to: filter(), ..options });
    let describer = Describer {
        cluster,
        representatives: Representatives::new(cluster),
        classes: Classes::new(cluster, &[]),
        answers: [&sent, &received],
    };
    let parts = sent.ends().enumerate().filter(|(_, end)| pods.iter().any(|pod| end.holds_pod(pod)));
    Description { parts: parts.map(|(at, end)| describer.part(at, end)).collect() }
}

struct Describer<'c> {
    cluster: &'c Cluster,
    representatives: Representatives<'c>,
    classes: Classes,
    /// What the pods may send, and what they may receive.
    answers: [&'c Connections; 2],
}

impl Describer<'_> {
    fn part(&self, at: usize, end: &ConnectionEnd) -> PodsDescription {
        PodsDescription {
            end: end.clone(),
            sides: Direction::BOTH.map(|direction| self.side(at, end, direction)),
        }
    }

    fn side(&self, at: usize, end: &ConnectionEnd, direction: Direction) -> Side {
        let answer = self.answers[usize::from(direction == Direction::Ingress)];
        let mut peers = Vec::new();
        for edge in answer.edges() {
            let (own, other) = match direction {
                Direction::Egress => (edge.from, edge.to),
                Direction::Ingress => (edge.to, edge.from),
            };
            if own == at {
                let (end, traffic) = (answer.end(other).clone(), edge.traffic.clone());
                let through = edge.through.to_vec();
                peers.push(PeerTraffic { end, families: edge.families, traffic, through });
            }
        }
        let internet = peers.iter().filter(|peer| reaches_internet(&peer.end));
        let internet = internet.fold(Traffic::none(), |sum, peer| sum.union(&peer.traffic));
        let policies = self.policies(at, end, direction, answer);
        let isolated = policies.iter().any(|p| p.tier == Tier::Developer);
        let (any_pod, selected_pods) = self.hypothetical(end, direction);
        let blocked = answer.blocked().iter().filter(|b| b.to == at && direction == Direction::Ingress);
        let blocked = blocked.map(|b| Forwarding {
            families: b.families,
            traffic: b.traffic.clone(),
            through: b.through.clone(),
        });
        let blocked = blocked.collect();
        Side { direction, isolated, policies, peers, blocked, internet, any_pod, selected_pods }
    }

    /// What each policy does with each end that there is.
    fn policies(
        &self,
        at: usize,
        end: &ConnectionEnd,
        direction: Direction,
        answer: &Connections,
    ) -> Vec<PolicyEffect> {
        let mut found: Vec<PolicyEffect> = Vec::new();
        for (other, peer) in answer.ends().enumerate() {
            let (from, to) = if direction == Direction::Egress { (at, other) } else { (other, at) };
            if matches!(peer, ConnectionEnd::OwnNode(_) | ConnectionEnd::IngressController(_))
                || answer.between(from, to).next().is_none()
            {
                continue;
            }
            let (from, to) = if direction == Direction::Egress { (end, peer) } else { (peer, end) };
            for family in Family::BOTH {
                let Some((source, target)) = self.representatives.pair(from, to, family) else { continue };
                let whole = self.representatives.walk(&source, &target, direction, &Traffic::all());
                for step in &whole.policies {
                    let place = found.iter().position(|p| p.policy == step.policy).unwrap_or_else(|| {
                        let (policy, origin) = (step.policy.clone(), step.origin.clone());
                        found.push(PolicyEffect { policy, tier: step.tier, origin, effects: Vec::new() });
                        found.len() - 1
                    });
                    for action in [Action::Accept, Action::Deny, Action::Pass] {
                        if let Some((matches, alone)) = effect(&whole, step, action) {
                            let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
                            let end = peer.clone();
                            note(&mut found[place].effects, Effect { end, families, action, matches, alone });
                        }
                    }
                }
            }
        }
        found
    }

    /// What the end's own policies allow with pods that don't exist: any, and those that rules name.
    fn hypothetical(&self, end: &ConnectionEnd, direction: Direction) -> (Traffic, Vec<SelectedPods>) {
        let Some((subject, address)) = self.subject(end) else { return (Traffic::none(), Vec::new()) };
        let family = Family::of(address);
        let free = unheld_address(&self.classes.space, family);
        let own = Endpoint::Pod { key: subject.key.clone(), address };
        let allowed = |witness: &Witness| {
            let (source, target) =
                if direction == Direction::Egress { (&own, &witness.at) } else { (&witness.at, &own) };
            walk(&witness.world, source, target, false, direction, &Traffic::all()).allowed()
        };
        let any_pod = allowed(&Witness::anyone(self.cluster, subject, free));
        let mut selected = Vec::new();
        for choice in self.named_by_rules(subject, direction) {
            let Some(witness) = Witness::of(self.cluster, subject, free, &choice) else { continue };
            let traffic = allowed(&witness);
            if traffic != any_pod {
                let exist = self.cluster.pods.values().filter(|p| p.is_live()).any(|pod| {
                    let labels = self.cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
                    choice.matches(&pod.key.namespace, labels, &pod.labels)
                });
                let PodMatch { namespaces, pods } = choice;
                selected.push(SelectedPods { namespaces, pods, exist, traffic });
            }
        }
        (any_pod, selected)
    }

    /// One of the pods, with an address of it.
    fn subject(&self, end: &ConnectionEnd) -> Option<(&Pod, IpAddr)> {
        let ConnectionEnd::Workload(w) = end else { return None };
        let key = ObjectKey { namespace: w.namespace.clone(), name: w.pods.first()?.clone() };
        let pod = self.cluster.pods.get(&key)?;
        Some((pod, *pod.addresses.first()?))
    }

    /// The selections of pods that rules on a pod make; sorted.
    fn named_by_rules(&self, subject: &Pod, direction: Direction) -> BTreeSet<PodMatch> {
        let labels = self.cluster.namespaces.get(&subject.key.namespace).map(|n| &n.labels);
        let policies = self.cluster.policies.values();
        let selecting =
            policies.filter(|p| p.subject.matches(&subject.key.namespace, labels, &subject.labels));
        let rules = selecting.filter_map(|p| p.rules(direction)).flatten();
        let peers = rules.filter_map(|r| r.peers.as_ref()).flatten();
        let choices = peers.filter_map(|entry| match &entry.peer {
            Peer::Pods(choice) => Some(choice.clone()),
            Peer::Block(_) | Peer::Nodes(_) => None,
        });
        choices.collect()
    }
}

/// What a policy's rules of one action match, and what of it no other policy of its tier matches in the same way;
/// `None` if they match nothing.
fn effect(whole: &Walk, policy: &PolicyStep, action: Action) -> Option<(Traffic, Traffic)> {
    let acting = |policy: &PolicyStep| {
        let rules = policy.rules.iter().filter(|r| r.action == action && r.peer_matches);
        rules.fold(Traffic::none(), |sum, rule| sum.union(&rule.holds))
    };
    let matches = acting(policy);
    let others = whole.policies.iter().filter(|o| o.policy != policy.policy && o.tier == policy.tier);
    let alone = others.fold(matches.clone(), |left, other| left.difference(&acting(other)));
    (!matches.is_none()).then_some((matches, alone))
}

/// Adds an effect, or its family to that of the other one.
fn note(effects: &mut Vec<Effect>, new: Effect) {
    let same = |e: &&mut Effect| Effect { families: new.families, ..(**e).clone() } == new;
    match effects.iter_mut().rev().take(3).find(same) {
        Some(known) => known.families.v6 |= new.families.v6,
        None => effects.push(new),
    }
}

/// Whether an end has addresses of the public internet.
fn reaches_internet(end: &ConnectionEnd) -> bool {
    let ConnectionEnd::External(external) = end else { return false };
    external.ranges.iter().any(crate::public::has_public_address)
}
