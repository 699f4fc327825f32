//! Parts of rules that other rules make superfluous.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap},
};

use palisade_policy::{
    Cluster, Deciding, Direction, LabelSet, LabelValues, Name, NamespaceMatch, Origin, Peer, Policy,
    PolicyKey, PortEntry, Rule, Tier,
};

use super::{
    cover::{Cover, Piece},
    pod_set::{PodSet, World},
    pod_traffic::{PodTraffic, Ports},
};

/// A part of a rule that has no effect, because other rules match everything that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoveredPart {
    /// The direction of the rule.
    pub direction: Direction,
    /// The index of the rule.
    pub rule: usize,
    /// The part.
    pub part: RulePart,
    /// The rules that cover it: one if that is enough, else all that may match some of it.
    pub by: Vec<RuleAt>,
}

/// A part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RulePart {
    /// All of it.
    Whole,
    /// The peer with this index.
    Peer(usize),
    /// The port with this index.
    Port(usize),
}

/// A rule, by its policy and its index there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleAt {
    /// The policy.
    pub policy: PolicyKey,
    /// The index of the rule in the policy's rules of the direction.
    pub index: usize,
    /// Its origin.
    pub origin: Option<Origin>,
}

/// The label, which no object can have, that tells the ends of connections that are no pods: nodes and addresses outside
/// the cluster. Pods don't have it, so a rule for every end covers a rule for pods, and not the reverse.
const KIND: &str = "?";

/// What a rule matches among the ends of all kinds, with the rule.
struct Region<'c> {
    at: RuleAt,
    rule: &'c Rule,
    pieces: Vec<Piece>,
}

/// The policies of a cluster, and what each selects: found once for all policies whose coverage is asked for.
pub(crate) struct Coverage<'c> {
    cluster: &'c Cluster,
    world: World,
    subjects: OnceCell<Subjects<'c>>,
}

/// Policies by what they select, so that a policy is compared only with those that may select all of its pods.
#[derive(Default)]
struct Subjects<'c> {
    /// In the order of their keys. Policies that can't select any pod are left out.
    all: Vec<(&'c Policy, PodSet)>,
    /// Places in `all`, by the namespace that a policy selects pods of (`None`: several) and one of the values of the first
    /// label that it requires to have one of some values (`None`: it requires none).
    places: HashMap<SubjectKey, Vec<usize>>,
}

type SubjectKey = (Option<Name>, Option<(Name, Name)>);

impl<'c> Subjects<'c> {
    fn new(cluster: &'c Cluster, world: &World) -> Self {
        let mut out = Self::default();
        for policy in cluster.deciding(Deciding::Enforced) {
            let Some(set) = PodSet::of(&policy.subject).and_then(|set| world.normal(set)) else { continue };
            let namespace = match &policy.subject.namespaces {
                NamespaceMatch::Named(name) => Some(name.clone()),
                NamespaceMatch::Selected(_) => None,
            };
            let mut add = |label| {
                out.places.entry((namespace.clone(), label)).or_default().push(out.all.len());
            };
            match required(&set).next() {
                Some((key, values)) => {
                    values.iter().for_each(|value| add(Some((key.clone(), value.clone()))));
                }
                None => add(None),
            }
            out.all.push((policy, set));
        }
        out
    }

    /// Returns the policies among which are all that select every pod that `policy` can select, which is `own`, in the
    /// order of their keys.
    fn candidates(&self, policy: &Policy, own: &PodSet) -> Vec<&(&'c Policy, PodSet)> {
        // What requires a label to have one of some values contains only sets that require one of these.
        let labels = required(own).filter_map(|(key, values)| Some((key.clone(), values.first()?.clone())));
        let labels: Vec<_> = labels.map(Some).chain([None]).collect();
        let namespace = match &policy.subject.namespaces {
            NamespaceMatch::Named(name) => Some(name),
            NamespaceMatch::Selected(_) => None,
        };
        let mut found: Vec<usize> = Vec::new();
        match namespace {
            Some(name) => {
                for namespace in [Some(name.clone()), None] {
                    for label in &labels {
                        found.extend(
                            self.places.get(&(namespace.clone(), label.clone())).into_iter().flatten(),
                        );
                    }
                }
            }
            // A selector may select a single namespace, too.
            None => found.extend(0..self.all.len()),
        }
        found.sort_unstable();
        found.into_iter().map(|at| &self.all[at]).collect()
    }
}

/// Iterates over the labels of pods that a set requires to have one of some values.
fn required(set: &PodSet) -> impl Iterator<Item = (&Name, &BTreeSet<Name>)> {
    set.pods.iter().filter_map(|(key, values)| match values {
        LabelValues::OneOf(values) => Some((key, values)),
        _ => None,
    })
}

impl<'c> Coverage<'c> {
    /// Prepares for questions about policies of a cluster. `O(namespaces)`; the first question costs `O(policies)` more.
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, world: World::new(&[cluster], None), subjects: OnceCell::new() }
    }

    /// Returns the policies whose rules count before or beside those of a policy, for all pods that it can select.
    pub(super) fn others(&self, policy: &Policy, direction: Direction) -> Vec<&'c Policy> {
        let Some(own) = PodSet::of(&policy.subject).and_then(|set| self.world.normal(set)) else {
            return Vec::new();
        };
        let counts = |(other, set): &&(&Policy, PodSet)| {
            other.key != policy.key
                && other.tier == policy.tier
                && other.rules(direction).is_some()
                && (policy.tier == Tier::Developer || Policy::precedence(other, policy).is_lt())
                && self.world.is_subset(&own, set)
        };
        let subjects = self.subjects.get_or_init(|| Subjects::new(self.cluster, &self.world));
        let candidates = subjects.candidates(policy, &own).into_iter();
        candidates.filter(counts).map(|(other, _)| *other).collect()
    }

    /// Returns the parts of a policy's rules that do nothing because of other rules: of the same policy, or of policies that
    /// apply to all pods that the policy can select. In a cluster-wide tier only rules count that come before. If two
    /// rules are equal, the later one does nothing. `O(rules²)`.
    pub(crate) fn of(&self, policy: &Policy, direction: Direction) -> Vec<CoveredPart> {
        match policy.rules(direction) {
            Some(own) => covered(policy, own, &self.others(policy, direction), direction, &self.world),
            None => Vec::new(),
        }
    }
}

fn covered(
    policy: &Policy,
    own: &[Rule],
    others: &[&Policy],
    direction: Direction,
    world: &World,
) -> Vec<CoveredPart> {
    let all_rules = own.iter().chain(others.iter().filter_map(|p| p.rules(direction)).flatten());
    let ports = Ports::new(None, all_rules);
    let of = |policy: &Policy, rules: &'_ [Rule]| -> Vec<RuleAt> {
        let at = |(index, rule): (usize, &Rule)| RuleAt {
            policy: policy.key.clone(),
            index,
            origin: rule.origin.clone(),
        };
        rules.iter().enumerate().map(at).collect()
    };
    let region = |(at, rule)| Region { at, rule, pieces: pieces(rule, &ports, world) };
    let foreign: Vec<Region<'_>> = others
        .iter()
        .flat_map(|other| {
            let rules = other.rules(direction).unwrap_or_default();
            of(other, rules).into_iter().zip(rules)
        })
        .map(region)
        .collect();
    let mut left: Vec<Region<'_>> = of(policy, own).into_iter().zip(own).map(region).collect();
    let mut found = Vec::new();
    // From the last rule, so that of equal rules the first remains.
    for index in (0..own.len()).rev() {
        let subject = left.remove(index);
        let before = if policy.tier == Tier::Developer { left.len() } else { index };
        let covering: Vec<&Region<'_>> = foreign.iter().chain(&left[..before]).collect();
        let checker = Checker { ports: &ports, world, covering: &covering };
        match checker.covering(&subject.pieces) {
            Some(by) => found.push(CoveredPart { direction, rule: index, part: RulePart::Whole, by }),
            None => {
                found.extend(checker.parts(&subject, direction, index));
                left.insert(index, subject);
            }
        }
    }
    found.reverse();
    found
}

fn pieces(rule: &Rule, ports: &Ports<'_>, world: &World) -> Vec<Piece> {
    let traffic = ports.of(rule);
    match &rule.peers {
        None => vec![Piece { set: PodSet::default(), traffic }],
        Some(peers) => {
            let sets = peers.iter().filter_map(|entry| set_of(&entry.peer, world));
            sets.map(|set| Piece { set, traffic: traffic.clone() }).collect()
        }
    }
}

fn set_of(peer: &Peer, world: &World) -> Option<PodSet> {
    let kind = |values| LabelSet::with_one(&KIND.into(), values);
    let set = match peer {
        Peer::Pods(choice) => {
            let set = PodSet::of(choice)?;
            PodSet { namespaces: set.namespaces.intersection(&kind(LabelValues::Absent))?, ..set }
        }
        Peer::Nodes(selector) => PodSet {
            namespaces: kind(LabelValues::OneOf(BTreeSet::from(["node".into()]))),
            pods: LabelSet::of(selector)?,
            addresses: None,
        },
        Peer::Block(block) => PodSet::of_block(block)?,
        // What will be learned for it isn't known: only the same name, or a rule for every address, covers it.
        Peer::DomainName(pattern) => PodSet {
            namespaces: kind(LabelValues::OneOf(BTreeSet::from(["domain name".into()]))),
            pods: LabelSet::with_one(
                &KIND.into(),
                LabelValues::OneOf(BTreeSet::from([pattern.to_string().into()])),
            ),
            addresses: None,
        },
    };
    world.normal(set)
}

struct Checker<'a> {
    ports: &'a Ports<'a>,
    world: &'a World,
    /// The rules that count, in order.
    covering: &'a [&'a Region<'a>],
}

impl Checker<'_> {
    /// Returns the rules that match everything that is matched by these pieces; `None` if there are none, or if this
    /// can't be decided.
    fn covering(&self, pieces: &[Piece]) -> Option<Vec<RuleAt>> {
        if pieces.iter().all(|p| p.traffic.is_none()) {
            return None;
        }
        let single = self.covering.iter().find(|region| self.cover(pieces, &[region]));
        if let Some(region) = single {
            return Some(vec![region.at.clone()]);
        }
        let touches = |region: &&&Region<'_>| {
            let touches = |own: &Piece, other: &Piece| {
                !own.traffic.intersection(&other.traffic).is_none()
                    && self.world.intersection(&own.set, &other.set).is_some()
            };
            region.pieces.iter().any(|other| pieces.iter().any(|own| touches(own, other)))
        };
        let touching: Vec<&Region<'_>> = self.covering.iter().filter(touches).copied().collect();
        let together = touching.len() > 1 && self.cover(pieces, &touching);
        together.then(|| touching.iter().map(|region| region.at.clone()).collect())
    }

    fn cover(&self, pieces: &[Piece], regions: &[&Region<'_>]) -> bool {
        self.world.renew();
        let mut cover = Cover::default();
        for piece in regions.iter().flat_map(|region| &region.pieces) {
            if cover.add(piece.clone(), self.world).is_err() {
                return false;
            }
        }
        pieces.iter().all(|piece| {
            let got: Result<PodTraffic, _> = cover.guaranteed(&piece.set, &piece.traffic, self.world);
            got.is_ok_and(|got| got == piece.traffic)
        })
    }

    /// Returns the peers and ports of a rule that other peers and ports of the rule, or other rules, make superfluous.
    fn parts(&self, subject: &Region<'_>, direction: Direction, index: usize) -> Vec<CoveredPart> {
        let rule = subject.rule;
        let mut found = Vec::new();
        let count = rule.peers.as_ref().map_or(0, Vec::len);
        let mut reduced = rule.clone();
        for peer in (0..count).rev() {
            let only = Rule { peers: Self::only(rule.peers.as_deref(), peer), ..rule.clone() };
            let rest = reduced.peers.as_mut().map(|all| all.remove(peer));
            let by = self.covering_with(&pieces(&only, self.ports, self.world), &reduced, &subject.at);
            match by {
                Some(by) => {
                    found.push(CoveredPart { direction, rule: index, part: RulePart::Peer(peer), by });
                }
                None => {
                    if let (Some(all), Some(entry)) = (reduced.peers.as_mut(), rest) {
                        all.insert(peer, entry);
                    }
                }
            }
        }
        let count = rule.ports.as_ref().map_or(0, Vec::len);
        for port in (0..count).rev() {
            let only: Option<Vec<PortEntry>> = Self::only(rule.ports.as_deref(), port);
            let only = Rule { ports: only, ..rule.clone() };
            let rest = reduced.ports.as_mut().map(|all| all.remove(port));
            let by = self.covering_with(&pieces(&only, self.ports, self.world), &reduced, &subject.at);
            match by {
                Some(by) => {
                    found.push(CoveredPart { direction, rule: index, part: RulePart::Port(port), by });
                }
                None => {
                    if let (Some(all), Some(entry)) = (reduced.ports.as_mut(), rest) {
                        all.insert(port, entry);
                    }
                }
            }
        }
        found
    }

    fn only<T: Clone>(all: Option<&[T]>, at: usize) -> Option<Vec<T>> {
        Some(vec![all?.get(at)?.clone()])
    }

    /// As [`Self::covering`], with the rest of the rule.
    fn covering_with(&self, own: &[Piece], rest: &Rule, at: &RuleAt) -> Option<Vec<RuleAt>> {
        let rest = Region { at: at.clone(), rule: rest, pieces: pieces(rest, self.ports, self.world) };
        let mut covering: Vec<&Region<'_>> = vec![&rest];
        covering.extend(self.covering);
        Checker { covering: &covering, ports: self.ports, world: self.world }.covering(own)
    }
}
