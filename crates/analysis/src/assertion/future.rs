//! Pods that may exist: the parts of their sets that could break an assertion, each with a pod that stands for it.
//!
//! The policies that select a pod decide what it may send and receive, up to the peers. So the sets are divided by these
//! policies first. Within a part, a denial breaks where a rule of the other side accepts, which is a set, too; an allowance
//! breaks where no rule accepts.

use std::collections::{BTreeMap, BTreeSet};

use palisade_policy::{Cluster, Deciding, Direction, Endpoint, Name, Pod, Policy, Protocol, Rule};

use super::{
    AssertedEnds, Expectation,
    pairs::{Pair, PairSide, Scene, classes},
    witness::Witnesses,
};
use crate::exposure::{
    PodSet, PodTraffic,
    cover::Cover,
    pod_set::{Overflow, World},
    pod_traffic::Ports,
    symbolic,
};

/// The most parts into which policies divide a side.
const MOST_PARTS: usize = 10_000;

/// The most pairs with pods that may exist.
const MOST_PAIRS: usize = 4_000;

/// The number of a made pod's named port, if all ports are asked about.
const USUAL_PORT: u16 = 8080;

/// What has to be judged.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) pairs: Vec<Pair>,
    /// Whether this is not all.
    pub(super) overflow: bool,
}

/// Pods that may exist and that the same policies select.
struct Part<'c> {
    set: PodSet,
    policies: Vec<&'c Policy>,
}

/// Returns the pairs with pods that may exist, which are added to `witnesses`.
pub(super) fn candidates(
    cluster: &Cluster,
    scene: &Scene<'_>,
    world: &World,
    witnesses: &mut Witnesses,
) -> Candidates {
    let policies = cluster.policies.values();
    let rules = policies.flat_map(|p| Direction::BOTH.into_iter().filter_map(|d| p.rules(d)).flatten());
    let rules: Vec<&Rule> = rules.collect();
    let mut search = Search {
        cluster,
        scene,
        world,
        witnesses,
        ports: Ports::new(None, rules.iter().copied()),
        covers: BTreeMap::new(),
        made: BTreeMap::new(),
        pairs: Vec::new(),
    };
    let overflow = search.run().is_err();
    Candidates { pairs: search.pairs, overflow }
}

/// The covers of the policies, by direction.
type Covers = BTreeMap<(Direction, Vec<*const Policy>), Cover>;

struct Search<'c, 'a> {
    cluster: &'c Cluster,
    scene: &'a Scene<'a>,
    world: &'a World,
    witnesses: &'a mut Witnesses,
    /// The ports of destinations that may exist.
    ports: Ports<'c>,
    covers: Covers,
    made: BTreeMap<(PodSet, bool), Vec<Endpoint>>,
    pairs: Vec<Pair>,
}

impl<'c> Search<'c, '_> {
    fn run(&mut self) -> Result<(), Overflow> {
        let sources = self.parts(&self.scene.from.pods, Direction::Egress)?;
        let destinations = self.parts(&self.scene.to.pods, Direction::Ingress)?;
        for source in &sources {
            self.world.renew();
            for destination in &destinations {
                self.between(source, destination)?;
            }
        }
        for (parts, direction) in [(&sources, Direction::Egress), (&destinations, Direction::Ingress)] {
            let others = if direction == Direction::Egress { self.scene.to } else { self.scene.from };
            self.world.renew();
            self.with_existing(parts, direction, others)?;
        }
        Ok(())
    }

    /// Divides sets by the policies that select their pods.
    fn parts(&self, sets: &[PodSet], direction: Direction) -> Result<Vec<Part<'c>>, Overflow> {
        let normal = sets.iter().filter_map(|set| self.world.normal(set.clone()));
        let mut parts: Vec<Part<'c>> = normal.map(|set| Part { set, policies: Vec::new() }).collect();
        for policy in self.cluster.deciding(Deciding::Enforced).filter(|p| p.rules(direction).is_some()) {
            let selected = PodSet::of(&policy.subject).and_then(|set| self.world.normal(set));
            let Some(selected) = selected else { continue };
            self.world.spend(parts.len())?;
            let mut divided = Vec::with_capacity(parts.len());
            for part in parts {
                let Some(inside) = self.world.intersection(&part.set, &selected) else {
                    divided.push(part);
                    continue;
                };
                for set in self.world.disjoint_outside(&part.set, &selected) {
                    divided.push(Part { set, policies: part.policies.clone() });
                }
                let mut policies = part.policies;
                policies.push(policy);
                divided.push(Part { set: inside, policies });
            }
            parts = divided;
            if parts.len() > MOST_PARTS {
                return Err(Overflow);
            }
        }
        for part in &mut parts {
            part.policies.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
        }
        Ok(parts)
    }

    /// Returns what the policies of a part allow with pods that may exist.
    fn cover(&mut self, policies: &[&'c Policy], direction: Direction) -> Result<Cover, Overflow> {
        let key = (direction, policies.iter().map(|p| std::ptr::from_ref(*p)).collect::<Vec<_>>());
        if let Some(known) = self.covers.get(&key) {
            return Ok(known.clone());
        }
        let cover = symbolic::allowed(policies, direction, &self.ports, self.world)?;
        self.covers.insert(key, cover.clone());
        Ok(cover)
    }

    /// Adds pairs of pods that may exist.
    fn between(&mut self, source: &Part<'c>, destination: &Part<'c>) -> Result<(), Overflow> {
        let sent = self.cover(&source.policies, Direction::Egress)?;
        let received = self.cover(&destination.policies, Direction::Ingress)?;
        if self.scene.expect == Expectation::Allow {
            let asked = self.scene.asked.certain();
            if let Some(missing) = sent.uncovered(&destination.set, &asked, self.world)? {
                self.add(&source.set, &missing)?;
            }
            if let Some(missing) = received.uncovered(&source.set, &asked, self.world)? {
                self.add(&missing, &destination.set)?;
            }
            return Ok(());
        }
        let asked = self.scene.asked.possible(&self.ports.all().named);
        for to in sent.pieces() {
            let traffic = to.traffic.intersection(&asked);
            if traffic.is_none() {
                continue;
            }
            let Some(reached) = self.world.intersection(&destination.set, &to.set) else { continue };
            self.world.spend(received.pieces().len())?;
            for from in received.pieces().iter().filter(|from| meets(&from.traffic, &traffic)) {
                if let Some(allowed) = self.world.intersection(&source.set, &from.set) {
                    self.add(&allowed, &reached)?;
                }
            }
        }
        Ok(())
    }

    /// Adds pairs of two pods that may exist.
    fn add(&mut self, from: &PodSet, to: &PodSet) -> Result<(), Overflow> {
        let source = self.make(from, false)?;
        for named in self.variants() {
            let destination = self.make(to, named)?;
            self.push(PairSide::Ends(source.clone()), PairSide::Ends(destination))?;
        }
        Ok(())
    }

    fn push(&mut self, from: PairSide, to: PairSide) -> Result<(), Overflow> {
        if self.pairs.len() >= MOST_PAIRS {
            return Err(Overflow);
        }
        self.pairs.push(Pair { from, to });
        Ok(())
    }

    /// Whether pods are made with port names: a destination may or may not name its ports as rules do.
    fn variants(&self) -> Vec<bool> {
        let named = !self.port_names().is_empty();
        match (named, self.scene.expect, self.scene.asked.names.is_empty()) {
            (false, ..) | (_, Expectation::Allow, true) => vec![false],
            (true, Expectation::Allow, false) => vec![true],
            (true, ..) => vec![false, true],
        }
    }

    /// Returns the named ports of a made destination: what is asked by name; and for a denial, the names of rules at a number
    /// that is asked about.
    fn port_names(&self) -> Vec<(Name, Protocol, u16)> {
        let asked = self.scene.asked;
        let number = |protocol: Protocol| {
            let ports = asked.numbers.ports(protocol);
            let usual = ports.contains(USUAL_PORT).then_some(USUAL_PORT);
            usual.or_else(|| ports.ranges().first().map(|(first, _)| (*first).max(1)))
        };
        // No rule is likely to mention this number, so only rules with the name match it.
        let mut out: BTreeSet<(Name, Protocol, u16)> = asked
            .names
            .iter()
            .zip(61_001..)
            .map(|((name, protocol), free)| (name.clone(), *protocol, number(*protocol).unwrap_or(free)))
            .collect();
        if self.scene.expect != Expectation::Allow {
            let rules = self.ports.all().named.into_iter().filter(|name| !asked.names.contains(name));
            out.extend(rules.filter_map(|(name, protocol)| Some((name, protocol, number(protocol)?))));
        }
        out.into_iter().collect()
    }

    /// Makes a pod of a set, once.
    fn make(&mut self, set: &PodSet, named: bool) -> Result<Vec<Endpoint>, Overflow> {
        let key = (set.clone(), named);
        if let Some(known) = self.made.get(&key) {
            return Ok(known.clone());
        }
        let ports = if named { self.port_names() } else { Vec::new() };
        let ends = self.witnesses.make(set, &ports).ok_or(Overflow)?;
        self.made.insert(key, ends.clone());
        Ok(ends)
    }

    /// Adds pairs of pods that may exist with ends that exist. `direction` is that of the pods.
    fn with_existing(
        &mut self,
        parts: &[Part<'c>],
        direction: Direction,
        others: &AssertedEnds,
    ) -> Result<(), Overflow> {
        let variants = if direction == Direction::Egress { vec![false] } else { self.variants() };
        let mut sides: Vec<(PairSide, Option<&'c Pod>)> = Vec::new();
        for ends in classes(self.cluster, &others.endpoints) {
            let pod = match ends.first() {
                Some(Endpoint::Pod { key, .. }) => self.cluster.pods.get(key),
                _ => None,
            };
            sides.push((PairSide::Ends(ends), pod));
        }
        if !others.ranges.is_empty() {
            sides.push((PairSide::Outside(others.ranges.clone()), None));
        }
        for (side, pod) in sides {
            for part in parts {
                for set in self.deciding(part, direction, pod)? {
                    for named in &variants {
                        let made = PairSide::Ends(self.make(&set, *named)?);
                        match direction {
                            Direction::Egress => self.push(made, side.clone())?,
                            Direction::Ingress => self.push(side.clone(), made)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the sets of a part of which one pod each has to be judged with an end that exists: for a pod, those that its
    /// policies distinguish.
    fn deciding(
        &self,
        part: &Part<'c>,
        direction: Direction,
        pod: Option<&'c Pod>,
    ) -> Result<Vec<PodSet>, Overflow> {
        let Some(pod) = pod else { return Ok(vec![part.set.clone()]) };
        let opposite = if direction == Direction::Egress { Direction::Ingress } else { Direction::Egress };
        let labels = self.cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
        let applies = |p: &&Policy| {
            p.rules(opposite).is_some() && p.subject.matches(&pod.key.namespace, labels, &pod.labels)
        };
        let mut policies: Vec<&Policy> =
            self.cluster.deciding(Deciding::Enforced).map(|p| &**p).filter(applies).collect();
        policies.sort_by(|a, b| a.tier.cmp(&b.tier).then_with(|| Policy::precedence(a, b)));
        // Ports are those of the destination.
        let own;
        let ports = if opposite == Direction::Ingress {
            own = Ports::new(Some(pod), std::iter::empty());
            &own
        } else {
            &self.ports
        };
        let cover = symbolic::allowed(&policies, opposite, ports, self.world)?;
        if self.scene.expect == Expectation::Allow {
            let asked = if opposite == Direction::Ingress {
                PodTraffic { numbers: self.scene.asked.to(Some(pod)), named: BTreeSet::new() }
            } else {
                self.scene.asked.certain()
            };
            let missing = cover.uncovered(&part.set, &asked, self.world)?;
            return Ok(std::iter::once(part.set.clone()).chain(missing).collect());
        }
        let pieces = cover.pieces().iter().filter_map(|piece| self.world.intersection(&part.set, &piece.set));
        Ok(pieces.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

fn meets(a: &PodTraffic, b: &PodTraffic) -> bool {
    !a.intersection(b).is_none()
}
