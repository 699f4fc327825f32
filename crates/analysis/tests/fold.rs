//! Property tests of folded connections: expanded, they are the edges between pairs of ends.
//!
//! `PALISADE_CASES` sets the number of random clusters for each test.

mod support;

use std::collections::BTreeMap;

use palisade_analysis::{Connections, ConnectionsOptions, EndFilter, Families, FoldSelection, GroupBy};
use palisade_policy::{Cluster, Family, Traffic};
use palisade_testkit::{Rng, Shape};
use support::{cases, hold};

/// Everything about the traffic of a pair in one family.
type Sent<'a> = (&'a Traffic, bool, &'a [usize]);
type Pairs<'a> = BTreeMap<(usize, usize, Family), Sent<'a>>;

fn add<'a>(pairs: &mut Pairs<'a>, (from, to, families): (usize, usize, Families), sent: Sent<'a>) {
    for family in Family::BOTH.into_iter().filter(|f| families.contains(*f)) {
        let before = pairs.insert((from, to, family), sent);
        assert!(before.is_none(), "{from} to {to} twice: {before:?}, {sent:?}");
    }
}

fn expands(cluster: &Cluster, options: &ConnectionsOptions) -> Result<(), String> {
    let answer = Connections::new(cluster, options);
    for touching in [&(|_: usize| true) as &dyn Fn(usize) -> bool, &|end| end % 3 == 0] {
        let selection = FoldSelection { touching, ..FoldSelection::default() };
        let folded = answer.folded(&selection);
        let (mut flat, mut expanded, mut count) = (Pairs::new(), Pairs::new(), 0);
        for edge in answer.edges().filter(|edge| touching(edge.from) || touching(edge.to)) {
            add(&mut flat, (edge.from, edge.to, edge.families), (edge.traffic, edge.exact, edge.through));
        }
        for edge in &folded.edges {
            for pair in folded.pairs(edge) {
                add(&mut expanded, pair, (edge.traffic, edge.exact, edge.through));
                count += 1;
            }
        }
        if flat != expanded {
            return Err(format!("{options:?}:\n{flat:?}\n{expanded:?}"));
        }
        let counted: usize = folded.edges.iter().map(|edge| folded.count(edge)).sum();
        if counted != count {
            return Err(format!("{count} pairs are counted as {counted}"));
        }
        let mut sets = folded.sets.clone();
        sets.sort();
        sets.dedup();
        if sets.len() != folded.sets.len() || sets.iter().any(|set| set.is_empty() || !set.is_sorted()) {
            return Err(format!("bad sets: {sets:?}"));
        }
    }
    Ok(())
}

const ALL: [GroupBy; 4] = [GroupBy::Workload, GroupBy::Pod, GroupBy::Namespace, GroupBy::Class];

#[test]
fn folded_connections_expand_to_the_edges() {
    let holds = |cluster: &Cluster, rng: &mut Rng| {
        for group_by in ALL {
            for only_denied in [false, true] {
                let nodes = rng.bool();
                expands(cluster, &ConnectionsOptions { group_by, only_denied, nodes, ..Default::default() })?;
            }
        }
        Ok(())
    };
    hold(cases(100), &Shape::strange(), holds);
    hold(cases(100), &Shape::tiered(), holds);
    hold(cases(5), &Shape::medium(), holds);
}

#[test]
fn filtered_connections_expand_to_the_edges() {
    hold(cases(150), &Shape::tiered(), |cluster, rng| {
        let filter = |rng: &mut Rng| {
            let pods = cluster.pods.keys().filter(|_| rng.bool()).cloned().collect();
            rng.bool().then_some(EndFilter { pods, controller: true, ..EndFilter::default() })
        };
        let (from, to) = (filter(rng), filter(rng));
        for group_by in ALL {
            let (from, to, nodes) = (from.clone(), to.clone(), true);
            expands(cluster, &ConnectionsOptions { group_by, from, to, nodes, ..Default::default() })?;
        }
        Ok(())
    });
}

/// Without default denies, most pairs may connect: the folded form is far shorter.
#[test]
fn an_open_cluster_is_short() {
    let mut cluster = palisade_testkit::cluster(&mut Rng::with_seed(1), &Shape::realistic(10_000, 200));
    cluster.policies.retain(|key, _| &*key.name != "default-deny");
    let answer = Connections::new(&cluster, &ConnectionsOptions::default());
    let folded = answer.folded(&FoldSelection::default());
    let members: usize = folded.sets.iter().map(Vec::len).sum();
    let (flat, written) = (answer.edges().count(), folded.edges.len() + members);
    assert!(written * 8 < flat, "{flat} edges are written as {written} edges and members");
}
