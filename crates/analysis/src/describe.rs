//! Describes a workload: its connections, the policies that apply to it, and its exposure.

mod namespace;
mod policy;

use std::collections::{BTreeSet, HashMap};

use palisade_policy::{
    Action, Cluster, Direction, Family, ObjectKey, Origin, PolicyKey, Tier, Traffic,
    walk::{PolicyStep, Walk},
};

use crate::{
    connections::Connections,
    controller::ControllerRoutes,
    end::ConnectionEnd,
    exposure::{Exposure, ExposureOptions, Subject, exposure},
    families::Families,
    judge::{AddressQuestion, Judge, Questions},
    query::{ConnectionsOptions, EndFilter},
    representative::Representatives,
};

pub use namespace::{Crossing, NamespaceDescription, NamespacePolicy, UndecidedPairs, describe_namespace};
pub use policy::{
    CoveredWhat, IdleFinder, IdlePart, IdleReason, PodAddress, PolicyDescription, describe_policy,
    workloads_of,
};

/// The description of some pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// One description for each set of equivalent pods, sorted. A workload has several if its pods are not equivalent.
    pub parts: Vec<PodsDescription>,
}

/// The description of equivalent pods of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsDescription {
    /// The pods.
    pub end: ConnectionEnd,
    /// Egress and ingress.
    pub sides: [Side; 2],
}

/// The connections of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The direction.
    pub direction: Direction,
    /// Whether NetworkPolicies isolate the pods in this direction.
    pub isolated: bool,
    /// The policies that apply, in the order of evaluation.
    pub policies: Vec<PolicyEffect>,
    /// The ends that the pods can reach, or that can reach them, by the policies of both ends. Sorted by end.
    pub peers: Vec<PeerTraffic>,
    /// The same for traffic that is allowed for some possible values of unknown addresses and denied for others.
    pub undecided: Vec<PeerTraffic>,
    /// The rules that ask for these addresses, sorted.
    pub questions: Vec<AddressQuestion>,
    /// The traffic that routes forward to these pods and policies deny.
    pub blocked: Vec<BlockedForwarding>,
    /// The traffic that is allowed with addresses of the public internet, by IP family. A family is absent if no such
    /// address can be at the other end.
    pub internet: Vec<InternetTraffic>,
    /// The traffic that the policies of these pods allow with pods, whether they exist or not.
    pub exposure: Exposure,
}

/// The traffic that is allowed with addresses of the public internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternetTraffic {
    /// The IP family.
    pub family: Family,
    /// The traffic that is allowed with all of them.
    pub all: Traffic,
    /// The traffic that is allowed with at least one of them.
    pub some: Traffic,
}

/// The traffic that is allowed with one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTraffic {
    /// The other end.
    pub end: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
    /// The routes, if the end is a [`ConnectionEnd::IngressController`]: indexes into [`ControllerRoutes::routes`].
    pub through: Vec<usize>,
}

/// Traffic that routes require and policies deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedForwarding {
    /// The IP families.
    pub families: Families,
    /// The traffic.
    pub traffic: Traffic,
    /// The routes: indexes into [`ControllerRoutes::routes`].
    pub through: Vec<usize>,
}

/// The effect of a policy on these pods in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEffect {
    /// The policy.
    pub policy: PolicyKey,
    /// Its tier. NetworkPolicies isolate the pods.
    pub tier: Tier,
    /// The position of the policy.
    pub origin: Option<Origin>,
    /// The effects of its rules on connections with the other ends, sorted by end.
    pub effects: Vec<Effect>,
}

/// The effect of a policy's rules with the same action on connections with one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The other end.
    pub end: ConnectionEnd,
    /// The IP families.
    pub families: Families,
    /// The action.
    pub action: Action,
    /// The traffic that the rules match.
    pub matches: Traffic,
    /// The part of it that no other policy of the tier matches with the same action.
    pub alone: Traffic,
}

/// Describes these pods, by workload. Pods that are not running are left out, since no policy applies to them.
/// `O(connections + ends × policies)`.
#[must_use]
pub fn describe(
    cluster: &Cluster,
    pods: &BTreeSet<ObjectKey>,
    controller_routes: &ControllerRoutes,
) -> Description {
    let filter = || Some(EndFilter { pods: pods.clone(), ..EndFilter::default() });
    let options = ConnectionsOptions {
        nodes: true,
        controller_routes: controller_routes.clone(),
        ..ConnectionsOptions::default()
    };
    let sent = Connections::new(cluster, &ConnectionsOptions { from: filter(), ..options.clone() });
    let received = Connections::new(cluster, &ConnectionsOptions { to: filter(), ..options });
    let describer = Describer {
        cluster,
        representatives: Representatives::new(cluster),
        judge: Judge::new(cluster),
        answers: [&sent, &received],
    };
    let parts = sent.ends().enumerate().filter(|(_, end)| pods.iter().any(|pod| end.holds_pod(pod)));
    Description { parts: parts.map(|(at, end)| describer.part(at, end)).collect() }
}

struct Describer<'c> {
    cluster: &'c Cluster,
    representatives: Representatives<'c>,
    judge: Judge<'c>,
    /// The connections from the pods, and those to the pods.
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
        let (undecided, questions) = self.undecided(at, direction, answer);
        let policies = self.policies(at, end, direction, answer);
        let isolated = policies.iter().any(|p| p.tier == Tier::Developer);
        let internet = internet(answer, at, direction);
        let exposure = self.exposure(end, direction);
        let blocked = answer.blocked().iter().filter(|b| b.to == at && direction == Direction::Ingress);
        let blocked = blocked.map(|b| BlockedForwarding {
            families: b.families,
            traffic: b.traffic.clone(),
            through: b.through.clone(),
        });
        let blocked = blocked.collect();
        Side { direction, isolated, policies, peers, undecided, questions, blocked, internet, exposure }
    }

    /// Returns the traffic with each end that depends on unknown addresses, and the rules that ask for them.
    fn undecided(
        &self,
        at: usize,
        direction: Direction,
        answer: &Connections,
    ) -> (Vec<PeerTraffic>, Vec<AddressQuestion>) {
        let mut asking = Questions::new(self.cluster, answer);
        let (mut found, mut questions): (Vec<PeerTraffic>, Vec<AddressQuestion>) = Default::default();
        for other in 0..answer.ends().len() {
            let (from, to) = if direction == Direction::Egress { (at, other) } else { (other, at) };
            for edge in answer.undecided_between(from, to) {
                for question in asking.of(&edge) {
                    if !questions.contains(&question) {
                        questions.push(question);
                    }
                }
                let (end, through) = (answer.end(other).clone(), Vec::new());
                found.push(PeerTraffic { end, families: edge.families, traffic: edge.traffic, through });
            }
        }
        questions.sort_by_cached_key(AddressQuestion::place);
        (found, questions)
    }

    /// Returns the effects of each policy on connections with each end.
    fn policies(
        &self,
        at: usize,
        end: &ConnectionEnd,
        direction: Direction,
        answer: &Connections,
    ) -> Vec<PolicyEffect> {
        let mut found: Vec<PolicyEffect> = Vec::new();
        let mut places: HashMap<PolicyKey, usize> = HashMap::new();
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
                let placed = self.judge.placed(&source, &target, direction);
                let walks = placed.iter().map(|(source, target)| {
                    self.representatives.walk(source, target, direction, &Traffic::all())
                });
                let walks: Vec<Walk> = walks.collect();
                let Some(whole) = walks.first() else { continue };
                let mut matched = matched_in_all(&walks);
                for step in &whole.policies {
                    let place = *places.entry(step.policy.clone()).or_insert_with(|| {
                        let (policy, origin) = (step.policy.clone(), step.origin.clone());
                        found.push(PolicyEffect { policy, tier: step.tier, origin, effects: Vec::new() });
                        found.len() - 1
                    });
                    for action in ACTIONS {
                        if let Some((matches, alone)) = matched.remove(&(&step.policy, action)) {
                            let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
                            let end = peer.clone();
                            add_effect(
                                &mut found[place].effects,
                                Effect { end, families, action, matches, alone },
                            );
                        }
                    }
                }
            }
        }
        found
    }

    /// Returns what the policies of an end allow with pods that may exist. The pods of an end are equivalent.
    fn exposure(&self, end: &ConnectionEnd, direction: Direction) -> Exposure {
        let first = match end {
            ConnectionEnd::Workload(w) => w.pods.first().and_then(|name| {
                self.cluster.pods.get(&ObjectKey { namespace: w.namespace.clone(), name: name.clone() })
            }),
            _ => None,
        };
        let options = ExposureOptions::default();
        first.map_or_else(
            || Exposure::nothing(direction),
            |pod| exposure(self.cluster, &Subject::Pod(pod), direction, &options),
        )
    }
}

/// Returns what is allowed between an end and the addresses of the public internet.
fn internet(answer: &Connections, at: usize, direction: Direction) -> Vec<InternetTraffic> {
    let of_family = |family: Family| {
        let externals = answer.ends().enumerate().filter(|(_, end)| is_on_internet(end, family));
        let traffic = externals.filter_map(|(other, _)| {
            let (from, to) = if direction == Direction::Egress { (at, other) } else { (other, at) };
            let mut edges = answer.between(from, to).filter(|edge| edge.families.contains(family));
            edges.next().map(|edge| edge.traffic.clone())
        });
        let joined = |(all, some): (Traffic, Traffic), t: Traffic| (all.intersection(&t), some.union(&t));
        let first = |t: Traffic| (t.clone(), t);
        let (all, some) = traffic.fold(None, |sum, t| {
            Some(match sum {
                None => first(t),
                Some(sum) => joined(sum, t),
            })
        })?;
        Some(InternetTraffic { family, all, some })
    };
    Family::BOTH.into_iter().filter_map(of_family).collect()
}

/// What the rules of each policy with each action match, and the part of it that no other policy of its tier matches
/// with the same action. Policies whose rules match nothing are left out.
type Matched<'w> = HashMap<(&'w PolicyKey, Action), (Traffic, Traffic)>;

/// The actions, in the order of the effects of a policy.
const ACTIONS: [Action; 3] = [Action::Accept, Action::Deny, Action::Pass];

/// Returns what is matched in all walks.
fn matched_in_all(walks: &[Walk]) -> Matched<'_> {
    let mut walks = walks.iter().map(matched);
    let Some(mut certain) = walks.next() else { return Matched::new() };
    for other in walks {
        certain.retain(|key, (matches, alone)| {
            let Some((other_matches, other_alone)) = other.get(key) else { return false };
            (*matches, *alone) = (matches.intersection(other_matches), alone.intersection(other_alone));
            !matches.is_none()
        });
    }
    certain
}

/// Returns what is matched in a walk. `O(rules)`: hundreds of policies may select a pod.
fn matched(walk: &Walk) -> Matched<'_> {
    let acting = |step: &PolicyStep, action: Action| {
        let rules = step.rules.iter().filter(|rule| rule.action == action && rule.peer_matches);
        rules.fold(Traffic::none(), |sum, rule| sum.union(&rule.holds))
    };
    let mut out = Matched::new();
    for tier in [Tier::Admin, Tier::Developer, Tier::Baseline] {
        for action in ACTIONS {
            let steps = walk.policies.iter().filter(|step| step.tier == tier);
            let policies: Vec<(&PolicyKey, Traffic)> = steps
                .map(|step| (&step.policy, acting(step, action)))
                .filter(|(_, matches)| !matches.is_none())
                .collect();
            // What the policies after each one match.
            let mut after = vec![Traffic::none()];
            for (_, matches) in policies.iter().rev() {
                after.push(after[after.len() - 1].union(matches));
            }
            let mut before = Traffic::none();
            for ((policy, matches), after) in policies.into_iter().zip(after.iter().rev().skip(1)) {
                let alone = matches.difference(&before).difference(after);
                before = before.union(&matches);
                out.insert((policy, action), (matches, alone));
            }
        }
    }
    out
}

/// Adds an effect, or its family to that of an equal one.
fn add_effect(effects: &mut Vec<Effect>, new: Effect) {
    let same = |e: &&mut Effect| Effect { families: new.families, ..(**e).clone() } == new;
    match effects.iter_mut().rev().take(3).find(same) {
        Some(known) => known.families.v6 |= new.families.v6,
        None => effects.push(new),
    }
}

/// Returns whether an end has addresses of the public internet of a family.
fn is_on_internet(end: &ConnectionEnd, family: Family) -> bool {
    let ConnectionEnd::External(external) = end else { return false };
    external.family == family && external.ranges.iter().any(crate::public::has_public_address)
}

#[cfg(test)]
mod tests {
    use palisade_policy::walk::walk;
    use palisade_testkit::{Rng, Shape, cluster, endpoints, seeds};

    use super::*;

    /// What a policy's rules with an action match, and what no other policy of its tier does: each compared with each.
    fn compared(walk: &Walk, policy: &PolicyStep, action: Action) -> (Traffic, Traffic) {
        let acting = |policy: &PolicyStep| {
            let rules = policy.rules.iter().filter(|r| r.action == action && r.peer_matches);
            rules.fold(Traffic::none(), |sum, rule| sum.union(&rule.holds))
        };
        let matches = acting(policy);
        let others = walk.policies.iter().filter(|o| o.policy != policy.policy && o.tier == policy.tier);
        let alone = others.fold(matches.clone(), |left, other| left.difference(&acting(other)));
        (matches, alone)
    }

    #[test]
    fn what_policies_match_alone_is_what_no_other_matches() {
        let mut shared = 0;
        for seed in seeds(0..60) {
            let cluster = cluster(&mut Rng::with_seed(seed), &Shape::tiered());
            let ends: Vec<_> = endpoints(&cluster).into_iter().take(6).collect();
            for (source, target) in ends.iter().flat_map(|a| ends.iter().map(move |b| (a, b))) {
                for direction in Direction::BOTH {
                    let walk = walk(&cluster, source, target, false, direction, &Traffic::all());
                    let found = matched(&walk);
                    for (step, action) in walk.policies.iter().flat_map(|s| ACTIONS.map(|a| (s, a))) {
                        let (matches, alone) = compared(&walk, step, action);
                        shared += usize::from(matches != alone);
                        let expected = (!matches.is_none()).then_some((matches, alone));
                        let given = found.get(&(&step.policy, action)).cloned();
                        assert_eq!(given, expected, "seed {seed}: {} {action:?}", step.policy);
                    }
                }
            }
        }
        assert!(shared > 20, "{shared}");
    }
}
