//! Property tests of the reasons for all connections: they are those that `explain` gives for each pair.
//!
//! `PALISADE_CASES` sets the number of random clusters for each test.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use palisade_analysis::{
    ConnectionEnd, Connections, ConnectionsOptions, EdgeLabels, FoldSelection, GroupBy, NodeAddresses,
    Reasoner, explain,
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

/// Which endpoints have the addresses of each end, by family: of a pod one, of other ends all.
type ByEnd = BTreeMap<(usize, Family), Vec<Endpoint>>;

fn by_end(cluster: &Cluster, answer: &Connections) -> ByEnd {
    let mut found = ByEnd::new();
    for endpoint in endpoints(cluster) {
        for number in 0..answer.ends().len() {
            let end = answer.end(number);
            let (holds, alone) = match &endpoint {
                Endpoint::Pod { key, .. } => (end.holds_pod(key), true),
                Endpoint::External(address) => (end.holds_external(*address), false),
                Endpoint::Node { name, address } => match end {
                    ConnectionEnd::OwnNode(nodes) | ConnectionEnd::Nodes(nodes) => {
                        let is = |n: &NodeAddresses| n.name == *name && n.addresses.contains(address);
                        (nodes.iter().any(is), false)
                    }
                    _ => (false, false),
                },
            };
            let known = found.entry((number, Family::of(endpoint.address()))).or_default();
            if holds && (!alone || known.is_empty()) {
                known.push(endpoint.clone());
            }
        }
    }
    found
}

/// Returns the pairs of endpoints that two ends describe: between a node and a pod on it only if the source is the pod's
/// own node.
fn pairs_of<'a>(
    cluster: &'a Cluster,
    answer: &'a Connections,
    by_end: &'a ByEnd,
    [from, to]: [usize; 2],
    family: Family,
) -> Vec<(&'a Endpoint, &'a Endpoint)> {
    let of = |end| by_end.get(&(end, family)).into_iter().flatten();
    let own = matches!(answer.end(from), ConnectionEnd::OwnNode(_));
    let fits = |source: &Endpoint, target: &Endpoint| match (source, target) {
        (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) => {
            (cluster.pods.get(key).is_some_and(|pod| pod.node.as_ref() == Some(name))) == own
        }
        _ => true,
    };
    of(from)
        .flat_map(|source| of(to).map(move |target| (source, target)))
        .filter(|(source, target)| fits(source, target))
        .collect()
}

fn agrees(cluster: &Cluster, denied: bool) -> Result<(), String> {
    let options =
        ConnectionsOptions { group_by: GroupBy::Pod, only_denied: denied, nodes: true, ..Default::default() };
    let answer = Connections::new(cluster, &options);
    let reasoner = Reasoner::new(cluster, &answer, denied);
    let selection = FoldSelection { labels: Some(&reasoner as &dyn EdgeLabels), ..FoldSelection::default() };
    let folded = answer.folded(&selection);
    let verdict = if denied { Verdict::Deny } else { Verdict::Allow };
    let by_end = by_end(cluster, &answer);
    for edge in &folded.edges {
        let reasons = reasoner.reasons(edge.label);
        let given = [deciders(reasons.egress.iter()), deciders(reasons.ingress.iter())];
        for (from, to, families) in folded.pairs(edge) {
            let mut expected = [Deciders::new(), Deciders::new()];
            // The addresses of an external end may have different reasons, and not all are among the endpoints.
            let mut is_complete = true;
            for family in Family::BOTH.into_iter().filter(|f| families.contains(*f)) {
                let pairs = pairs_of(cluster, &answer, &by_end, [from, to], family);
                is_complete &= !pairs.is_empty();
                for (source, target) in pairs {
                    let found = explained(cluster, source, target, edge.traffic, verdict);
                    expected.iter_mut().zip(found).for_each(|(all, own)| all.extend(own));
                }
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
        hold(cases(60), &Shape::with_domain_names(), |cluster, _| agrees(cluster, denied));
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
