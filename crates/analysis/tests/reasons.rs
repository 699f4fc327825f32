//! Property tests of the reasons for all connections: they are those that `explain` gives for each pair.
//!
//! `PALISADE_CASES` sets the number of random clusters for each test.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use palisade_analysis::{
    ConnectionEnd, Connections, ConnectionsOptions, EdgeLabels, FoldSelection, GroupBy, Reasoner, explain,
};
use palisade_policy::{Cluster, Direction, Endpoint, Family, Traffic, Verdict, walk::Decider};
use palisade_testkit::{Shape, endpoints};
use support::{cases, hold};

/// The deciders of one direction, as text.
type Deciders = BTreeSet<String>;

fn deciders<'a>(all: impl Iterator<Item = &'a Decider>) -> Deciders {
    all.map(|decider| format!("{decider:?}")).collect()
}

/// What `explain` gives for the traffic between two endpoints: for denied traffic only what denies it.
fn explained(
    cluster: &Cluster,
    source: &Endpoint,
    target: &Endpoint,
    traffic: &Traffic,
    verdict: Verdict,
) -> [Deciders; 2] {
    let explanation = explain(cluster, source, target, false, traffic);
    let of = |direction| {
        let sides = explanation.parts.iter().map(|part| match direction {
            Direction::Egress => &part.egress,
            Direction::Ingress => &part.ingress,
        });
        deciders(sides.filter(|(own, _)| *own == verdict).map(|(_, decider)| decider))
    };
    [of(Direction::Egress), of(Direction::Ingress)]
}

fn agrees(cluster: &Cluster, denied: bool) -> Result<(), String> {
    let options = ConnectionsOptions { group_by: GroupBy::Pod, only_denied: denied, ..Default::default() };
    let answer = Connections::new(cluster, &options);
    let reasoner = Reasoner::new(cluster, &answer, denied);
    let selection = FoldSelection { labels: Some(&reasoner as &dyn EdgeLabels), ..FoldSelection::default() };
    let folded = answer.folded(&selection);
    let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
    let mut by_end: BTreeMap<(usize, Family), Endpoint> = BTreeMap::new();
    for endpoint in endpoints(cluster) {
        let holds = |number: &usize| match &endpoint {
            Endpoint::Pod { key, .. } => answer.end(*number).holds_pod(key),
            Endpoint::External(address) => answer.end(*number).holds_external(*address),
            Endpoint::Node { .. } => false,
        };
        if let Some(end) = (0..answer.ends().len()).find(holds) {
            by_end.entry((end, Family::of(endpoint.address()))).or_insert(endpoint);
        }
    }
    for edge in &folded.edges {
        let reasons = reasoner.reasons(edge.label);
        let given = [deciders(reasons.egress.iter()), deciders(reasons.ingress.iter())];
        for (from, to, families) in folded.pairs(edge) {
            let mut expected = [Deciders::new(), Deciders::new()];
            // The addresses of an external end may have different reasons, and not all are among the endpoints.
            let mut is_complete = true;
            for family in Family::BOTH.into_iter().filter(|f| families.contains(*f)) {
                let (Some(source), Some(target)) = (by_end.get(&(from, family)), by_end.get(&(to, family)))
                else {
                    is_complete = false;
                    continue;
                };
                let found = explained(cluster, source, target, edge.traffic, verdict);
                expected.iter_mut().zip(found).for_each(|(all, own)| all.extend(own));
            }
            let external =
                [from, to].iter().any(|end| matches!(answer.end(*end), ConnectionEnd::External(_)));
            is_complete &= !external;
            let missing = expected.iter().zip(&given).any(|(expected, given)| !expected.is_subset(given));
            if missing || (is_complete && expected != given) {
                return Err(format!(
                    "{} to {}, {}: expected {expected:#?}, given {given:#?}",
                    answer.end(from),
                    answer.end(to),
                    edge.traffic
                ));
            }
        }
    }
    // Labels only divide edges further.
    let plain = answer.folded(&FoldSelection::default());
    let count = |folded: &palisade_analysis::FoldedConnections<'_>| -> usize {
        folded.edges.iter().map(|edge| folded.count(edge)).sum()
    };
    if count(&plain) != count(&folded) {
        return Err("labels change the number of pairs".to_owned());
    }
    Ok(())
}

#[test]
fn reasons_are_those_of_each_pair() {
    for denied in [false, true] {
        hold(cases(60), &Shape::strange(), |cluster, _| agrees(cluster, denied));
        hold(cases(60), &Shape::tiered(), |cluster, _| agrees(cluster, denied));
    }
}

/// What folded edges say, with their reasons.
fn with_reasons(answer: &Connections, reasoner: &Reasoner<'_>) -> Vec<String> {
    let selection = FoldSelection { labels: Some(reasoner as &dyn EdgeLabels), ..FoldSelection::default() };
    let folded = answer.folded(&selection);
    let edges = folded.edges.iter();
    edges
        .map(|edge| {
            let (from, to) = (&folded.sets[edge.from], &folded.sets[edge.to]);
            format!("{from:?} {to:?} {:?} {} {:?}", edge.families, edge.traffic, reasoner.reasons(edge.label))
        })
        .collect()
}

fn shares(cluster: &Cluster, other: &Cluster) -> Result<(), String> {
    let answers = |cluster| {
        [false, true].map(|only_denied| {
            let options = ConnectionsOptions { only_denied, ..ConnectionsOptions::default() };
            Connections::new(cluster, &options)
        })
    };
    let ([allowed, denied], [of_other, _]) = (answers(cluster), answers(other));
    let first = Reasoner::new(cluster, &allowed, false);
    // Of another cluster, whose numbers mean other pods and peers.
    let foreign = Reasoner::new(other, &of_other, false);
    with_reasons(&allowed, &first);
    with_reasons(&of_other, &foreign);
    for direction in Direction::BOTH {
        let alone = with_reasons(&denied, &Reasoner::of_side(cluster, &denied, direction));
        for known in [&first, &foreign] {
            let sharing = Reasoner::of_side(cluster, &denied, direction).sharing(known);
            if with_reasons(&denied, &sharing) != alone {
                return Err(format!("{direction}: other reasons with the walks of another answer"));
            }
        }
    }
    Ok(())
}

#[test]
fn sharing_walks_changes_no_reason() {
    let before = std::cell::RefCell::new(Cluster::default());
    hold(cases(60), &Shape::strange(), |cluster, _| {
        let result = shares(cluster, &before.borrow());
        before.replace(cluster.clone());
        result
    });
}
