//! Functions from pods to traffic, as lists of sets of pods with traffic.

use super::{
    pod_set::{Overflow, PodSet, World},
    pod_traffic::PodTraffic,
};

/// The most pieces of a cover. Policies that people write need a few for each rule; only many denying rules over many
/// different labels need more.
const MOST_PIECES: usize = 3_000;

/// A set of pods, each of which gets this traffic, and perhaps more by other pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) set: PodSet,
    pub(crate) traffic: PodTraffic,
}

/// A function from pods to traffic: a pod gets the traffic of all pieces that contain it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cover(Vec<Piece>);

impl Cover {
    /// Every pod gets this traffic.
    pub(crate) fn everywhere(traffic: PodTraffic) -> Self {
        Self(vec![Piece { set: PodSet::default(), traffic }])
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Adds a piece, unless larger pieces have its traffic. `O(pieces)`.
    pub(crate) fn add(&mut self, piece: Piece, world: &World) -> Result<(), Overflow> {
        world.spend(2 * self.0.len())?;
        if piece.traffic.is_none() {
            return Ok(());
        }
        if let Some(same) = self.0.iter_mut().find(|p| p.set == piece.set) {
            same.traffic = same.traffic.union(&piece.traffic);
            return Ok(());
        }
        let larger = self.0.iter().filter(|p| piece.set.is_within(&p.set));
        if larger.fold(piece.traffic.clone(), |left, p| left.difference(&p.traffic)).is_none() {
            return Ok(());
        }
        self.0.retain(|p| !(p.traffic.is_subset(&piece.traffic) && p.set.is_within(&piece.set)));
        if self.0.len() == MOST_PIECES {
            return Err(Overflow);
        }
        self.0.push(piece);
        Ok(())
    }

    pub(crate) fn add_all(&mut self, other: Self, world: &World) -> Result<(), Overflow> {
        other.0.into_iter().try_for_each(|piece| self.add(piece, world))
    }

    /// Returns what pods get by both covers.
    pub(crate) fn intersection(&self, other: &Self, world: &World) -> Result<Self, Overflow> {
        let mut out = Self::default();
        world.spend(self.0.len() * other.0.len())?;
        for own in &self.0 {
            for piece in &other.0 {
                let traffic = own.traffic.intersection(&piece.traffic);
                if traffic.is_none() {
                    continue;
                }
                if let Some(set) = world.intersection(&own.set, &piece.set) {
                    out.add(Piece { set, traffic }, world)?;
                }
            }
        }
        Ok(out)
    }

    /// Returns what pods get by this cover and not by `piece`.
    pub(crate) fn without(self, piece: &Piece, world: &World) -> Result<Self, Overflow> {
        let mut out = Self::default();
        world.spend(self.0.len())?;
        for own in self.0 {
            let both = own.traffic.intersection(&piece.traffic);
            if both.is_none() || world.intersection(&own.set, &piece.set).is_none() {
                out.add(own, world)?;
                continue;
            }
            for set in world.largest_outside(&own.set, &piece.set) {
                out.add(Piece { set, traffic: own.traffic.clone() }, world)?;
            }
            out.add(Piece { traffic: own.traffic.difference(&both), set: own.set }, world)?;
        }
        Ok(out)
    }

    /// Returns what pods get by this cover and not by `other`.
    pub(crate) fn difference(&self, other: &Self, world: &World) -> Result<Self, Overflow> {
        // Nearly all pieces of two covers that are compared are in both.
        world.spend(self.0.len() * other.0.len())?;
        let mut left = Self::default();
        for Piece { set, traffic } in &self.0 {
            let larger = other.0.iter().filter(|p| set.is_within(&p.set));
            let traffic = larger.fold(traffic.clone(), |left, p| left.difference(&p.traffic));
            left.add(Piece { set: set.clone(), traffic }, world)?;
        }
        other.0.iter().try_fold(left, |left, piece| left.without(piece, world))
    }

    /// Returns the traffic that every pod of `set` gets, out of `all`.
    pub(crate) fn guaranteed(
        &self,
        set: &PodSet,
        all: &PodTraffic,
        world: &World,
    ) -> Result<PodTraffic, Overflow> {
        world.spend(self.0.len())?;
        let mut rest = all.clone();
        let mut partial = Vec::new();
        for piece in &self.0 {
            if set.is_within(&piece.set) {
                rest = rest.difference(&piece.traffic);
            } else if world.intersection(set, &piece.set).is_some() {
                partial.push(piece);
            }
        }
        // A search for pods that miss some of the rest. Each part of the set is divided by the next piece into disjoint
        // parts; the part outside of all pieces, which misses everything, is usually found first.
        let mut missing = PodTraffic::default();
        let mut parts = vec![(0, set.clone(), rest)];
        while let Some((next, part, left)) = parts.pop() {
            world.spend(1)?;
            if left.is_subset(&missing) {
                continue;
            }
            let dividing = partial[next..].iter().enumerate().find_map(|(i, piece)| {
                let shared = !left.intersection(&piece.traffic).is_none();
                let inside = if shared { world.intersection(&part, &piece.set) } else { None };
                inside.map(|inside| (next + i, inside))
            });
            let Some((at, inside)) = dividing else {
                missing = missing.union(&left);
                continue;
            };
            world.spend(at + 1 - next)?;
            let piece = partial[at];
            let outside = world.disjoint_outside(&part, &piece.set);
            parts.push((at + 1, inside, left.difference(&piece.traffic)));
            parts.extend(outside.into_iter().map(|set| (at + 1, set, left.clone())));
        }
        Ok(all.difference(&missing))
    }

    /// Returns pods of `set` that don't get all of `asked`; `None` if every pod gets it.
    pub(crate) fn uncovered(
        &self,
        set: &PodSet,
        asked: &PodTraffic,
        world: &World,
    ) -> Result<Option<PodSet>, Overflow> {
        world.spend(self.0.len())?;
        let touching = |piece: &&Piece| world.intersection(set, &piece.set).is_some();
        let pieces: Vec<&Piece> = self.0.iter().filter(touching).collect();
        let mut parts = vec![(0, set.clone(), asked.clone())];
        while let Some((next, part, left)) = parts.pop() {
            world.spend(1)?;
            if left.is_none() {
                continue;
            }
            let dividing = pieces[next..].iter().enumerate().find_map(|(i, piece)| {
                let shared = !left.intersection(&piece.traffic).is_none();
                let inside = if shared { world.intersection(&part, &piece.set) } else { None };
                inside.map(|inside| (next + i, inside))
            });
            let Some((at, inside)) = dividing else { return Ok(Some(part)) };
            world.spend(at + 1 - next)?;
            let piece = pieces[at];
            parts.push((at + 1, inside, left.difference(&piece.traffic)));
            let outside = world.disjoint_outside(&part, &piece.set);
            parts.extend(outside.into_iter().map(|set| (at + 1, set, left.clone())));
        }
        Ok(None)
    }

    /// Returns the traffic that some pod of `set` gets.
    pub(crate) fn possible(&self, set: &PodSet, world: &World) -> PodTraffic {
        let touching = self.0.iter().filter(|p| world.intersection(set, &p.set).is_some());
        touching.fold(PodTraffic::default(), |sum, p| sum.union(&p.traffic))
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Cluster, LabelSet, LabelValues, Name, PortSet, Protocol, Traffic};

    use super::*;

    fn traffic(port: u16) -> PodTraffic {
        PodTraffic {
            numbers: Traffic::of(Protocol::Tcp, PortSet::range(port, port)),
            ..PodTraffic::default()
        }
    }

    fn app(values: LabelValues) -> PodSet {
        PodSet { pods: LabelSet::with_one(&"app".into(), values), ..PodSet::default() }
    }

    fn piece(name: &str, port: u16) -> Piece {
        Piece { set: app(LabelValues::OneOf([Name::from(name)].into())), traffic: traffic(port) }
    }

    /// Some pods miss one port, and the others another, so nothing is guaranteed.
    #[test]
    fn what_different_pods_miss_is_not_guaranteed() {
        let world = World::new(&[&Cluster::default()], None);
        let mut cover = Cover::default();
        cover.add(piece("x", 1), &world).expect("few pieces");
        let others = app(LabelValues::NoneOf { values: [Name::from("x")].into(), absent: true });
        cover.add(Piece { set: others, traffic: traffic(2) }, &world).expect("few pieces");
        let both = traffic(1).union(&traffic(2));
        assert_eq!(cover.guaranteed(&PodSet::default(), &both, &world), Ok(PodTraffic::default()));
    }

    #[test]
    fn pieces_and_comparisons_are_limited() {
        let world = World::new(&[&Cluster::default()], None);
        for (known, expected) in [(MOST_PIECES - 1, Ok(())), (MOST_PIECES, Err(Overflow))] {
            let mut cover = Cover(vec![piece("x", 1); known]);
            assert_eq!(cover.add(piece("y", 2), &world), expected);
        }
        // Each addition compares with all pieces, until the budget of the answer is spent.
        let mut cover = Cover(vec![piece("x", 1); MOST_PIECES - 1]);
        let added = (0..10_000).take_while(|_| cover.add(piece("x", 1), &world).is_ok()).count();
        assert!((600..700).contains(&added), "{added}");
        world.renew();
        assert_eq!(cover.add(piece("x", 1), &world), Ok(()));
    }
}
