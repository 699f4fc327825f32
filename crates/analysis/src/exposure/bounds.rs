//! What can be said when there are too many sets to tell apart: bounds.

use std::collections::BTreeMap;

use palisade_policy::{Action, Direction, Policy, Tier};

use super::{
    cover::Piece,
    pod_set::{PodSet, World},
    pod_traffic::{PodTraffic, Ports},
    row::{ExposureRow, Reached},
    symbolic::region,
};

/// Returns what pods get at least and at most, by rule: the rows are the pods that an accepting rule selects. `profile`
/// are the policies that select the subject, in order of precedence. `O(rules²)`.
pub(super) fn rows(
    profile: &[&Policy],
    direction: Direction,
    ports: &Ports<'_>,
    world: &World,
) -> (Reached, Vec<ExposureRow>) {
    let isolated = profile.iter().any(|p| p.tier == Tier::Developer);
    let mut rules: Vec<(Tier, Action, Vec<Piece>)> = Vec::new();
    for policy in profile {
        let own = policy.rules(direction).unwrap_or_default().iter();
        rules.extend(own.map(|rule| (policy.tier, rule.action, region(rule, ports, world))));
    }
    let most = if isolated {
        let accepting = rules.iter().filter(|(_, action, _)| *action == Action::Accept);
        let pieces = accepting.flat_map(|(_, _, pieces)| pieces);
        pieces.fold(PodTraffic::default(), |sum, p| sum.union(&p.traffic))
    } else {
        ports.all()
    };
    let least = |tier: Tier, piece: &Piece| {
        let before = rules.iter().filter(|(t, action, _)| *action != Action::Accept && *t <= tier);
        let touching = |p: &&Piece| world.intersection(&p.set, &piece.set).is_some();
        let refused = before.flat_map(|(_, _, pieces)| pieces).filter(touching);
        let left = refused.fold(piece.traffic.clone(), |left, p| left.difference(&p.traffic));
        if tier == Tier::Baseline && isolated { PodTraffic::default() } else { left }
    };
    let mut found: BTreeMap<PodSet, PodTraffic> = BTreeMap::new();
    for (tier, action, pieces) in &rules {
        for piece in pieces.iter().filter(|_| *action == Action::Accept) {
            let traffic = found.entry(piece.set.clone()).or_default();
            *traffic = traffic.union(&least(*tier, piece));
        }
    }
    let rows = found.into_iter().map(|(set, all)| {
        let reached = Reached { all, some: most.clone() };
        ExposureRow { set, exists: false, reached, more: Vec::new() }
    });
    (Reached { all: PodTraffic::default(), some: most.clone() }, rows.collect())
}
