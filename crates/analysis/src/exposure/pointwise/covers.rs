//! Covers: what each pod gets of them.

use std::collections::BTreeSet;

use palisade_policy::{PortSet, Protocol, Traffic};
use palisade_testkit::{Rng, seeds};

use super::{
    super::{
        cover::{Cover, Piece},
        pod_set::{PodSet, World},
        pod_traffic::PodTraffic,
    },
    Point, is_in, set, worlds,
};

/// Traffic to compare with: ports by number, and a name.
fn traffic(rng: &mut Rng) -> PodTraffic {
    let of = |protocol, port| Traffic::of(protocol, PortSet::range(port, port));
    let mut out = PodTraffic::default();
    for traffic in [of(Protocol::Tcp, 1), of(Protocol::Tcp, 2), of(Protocol::Udp, 1)] {
        if rng.bool() {
            out.numbers = out.numbers.union(&traffic);
        }
    }
    if rng.usize(..4) == 0 {
        out.named.insert(("http".into(), Protocol::Tcp));
    }
    out
}

fn all_traffic() -> PodTraffic {
    PodTraffic { numbers: Traffic::all(), named: [("http".into(), Protocol::Tcp)].into() }
}

fn gets(cover: &Cover, at: &Point) -> PodTraffic {
    let pieces = cover.pieces().iter().filter(|piece| is_in(&piece.set, at));
    pieces.fold(PodTraffic::default(), |sum, piece| sum.union(&piece.traffic))
}

/// A random cover, checked on the way: each piece adds what it says.
fn cover(rng: &mut Rng, world: &World, points: &[Point]) -> Cover {
    let mut out = Cover::default();
    for _ in 0..rng.usize(1..6) {
        let Some(set) = set(rng, world) else { continue };
        let piece = Piece { set, traffic: traffic(rng) };
        let before: Vec<PodTraffic> = points.iter().map(|at| gets(&out, at)).collect();
        out.add(piece.clone(), world).expect("few pieces");
        for (at, before) in points.iter().zip(before) {
            let own = if is_in(&piece.set, at) { piece.traffic.clone() } else { PodTraffic::default() };
            assert_eq!(gets(&out, at), before.union(&own));
        }
    }
    assert!(out.pieces().iter().all(|piece| !piece.traffic.is_none()));
    let sets: BTreeSet<&PodSet> = out.pieces().iter().map(|piece| &piece.set).collect();
    assert_eq!(sets.len(), out.pieces().len());
    out
}

#[test]
fn covers_are_what_each_pod_gets() {
    let worlds = worlds();
    for seed in seeds(0..150) {
        let rng = &mut Rng::with_seed(seed);
        let (world, points) = &worlds[rng.usize(..2)];
        world.renew();
        let (a, b) = (cover(rng, world, points), cover(rng, world, points));
        let both = a.intersection(&b, world).expect("few pieces");
        let only = a.difference(&b, world).expect("few pieces");
        let first = b.pieces().first();
        let without = first.map(|piece| (piece, a.clone().without(piece, world).expect("few pieces")));
        let mut sum = a.clone();
        sum.add_all(b.clone(), world).expect("few pieces");
        for at in points {
            let (in_a, in_b) = (gets(&a, at), gets(&b, at));
            assert_eq!(gets(&both, at), in_a.intersection(&in_b), "seed {seed}");
            assert_eq!(gets(&only, at), in_a.difference(&in_b), "seed {seed}");
            assert_eq!(gets(&sum, at), in_a.union(&in_b), "seed {seed}");
            if let Some((piece, left)) = &without {
                let gone = if is_in(&piece.set, at) { piece.traffic.clone() } else { PodTraffic::default() };
                assert_eq!(gets(left, at), in_a.difference(&gone), "seed {seed}");
            }
        }
        let Some(set) = set(rng, world) else { continue };
        let inside: Vec<PodTraffic> =
            points.iter().filter(|at| is_in(&set, at)).map(|at| gets(&a, at)).collect();
        let least = inside.iter().fold(all_traffic(), |all, own| all.intersection(own));
        let most = inside.iter().fold(PodTraffic::default(), |all, own| all.union(own));
        assert_eq!(a.guaranteed(&set, &all_traffic(), world), Ok(least.clone()), "seed {seed}: {set:?}");
        assert_eq!(a.possible(&set, world), most, "seed {seed}: {set:?}");
        let asked = traffic(rng);
        let missing = a.uncovered(&set, &asked, world).expect("few pieces");
        assert_eq!(missing.is_none(), asked.is_subset(&least), "seed {seed}: {set:?} {asked:?}");
        if let Some(part) = missing {
            let mut members = points.iter().filter(|at| is_in(&part, at)).peekable();
            assert!(members.peek().is_some(), "seed {seed}: {part:?}");
            assert!(members.all(|at| is_in(&set, at) && !asked.is_subset(&gets(&a, at))), "seed {seed}");
        }
    }
}
