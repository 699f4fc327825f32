//! What the worker says of itself: answers to questions, and the figures of the metrics.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_api::Kind;
use palisade_policy::{Cluster, Direction};
use prometheus_client::metrics::gauge::Gauge;

use super::{Worker, shortfall::Shortfall};
use crate::{
    daemon::VERSION,
    metrics::{DropLabels, KindLabel, ScopeLabel},
    socket::{Ask, Reply, Status, Verified},
    view, words,
};

impl Worker {
    pub(super) fn answer(&mut self, ask: Ask) -> Reply {
        let reconciler = self.agent.reconciler();
        let (cluster, plan) = (reconciler.cluster(), reconciler.plan());
        match ask {
            Ask::Status => Reply::Status(Box::new(self.status())),
            Ask::Pods => Reply::Pods({
                let Shortfall { cut_off, not_enforced, .. } = &self.shortfall;
                view::pods(cluster, &self.node, plan, cut_off, not_enforced)
            }),
            Ask::Profiles => Reply::Profiles(view::profiles(cluster, &self.node, plan)),
            Ask::Tables => Reply::Tables(view::tables(plan)),
            Ask::Groups => Reply::Groups(view::groups(plan)),
            Ask::Errors => Reply::Errors(self.ledger.errors()),
            Ask::Explain { source, destination, namespace } => {
                match (self.explain)(cluster, &source, &destination, &namespace) {
                    Ok(explained) => Reply::Explained(explained),
                    Err(error) => Reply::Error(error),
                }
            }
            Ask::Verify => self.verify(),
            Ask::Figures => {
                self.figures();
                Reply::Done
            }
        }
    }

    fn verify(&mut self) -> Reply {
        let behind = self.agent.reconciler().is_behind();
        match self.agent.data_plane().verify() {
            Ok(None) => {
                Reply::Error("nothing is programmed yet: the first whole snapshot is missing".to_owned())
            }
            Err(error) => Reply::Error(words::with_causes(&error)),
            Ok(Some(found)) => Reply::Verified(Verified {
                // Whoever is cut off is so on purpose, and not what the policies say all the same.
                equal: found.agrees() && !behind,
                behind,
                differences: found.differences.iter().map(ToString::to_string).collect(),
                generation: found.generation,
                chains: found.chains,
                rules: found.rules,
                sets: found.sets,
                elements: found.elements,
                flows: found.flows,
            }),
        }
    }

    fn status(&mut self) -> Status {
        let elements = self.agent.data_plane().elements();
        let named = |of: &[(Direction, IpAddr)]| of.iter().map(|(d, a)| (d.to_string(), *a)).collect();
        let reconciler = self.agent.reconciler();
        let (cluster, plan) = (reconciler.cluster(), reconciler.plan());
        let not_ready = self.not_ready();
        Status {
            version: VERSION.to_owned(),
            node: self.node.to_string(),
            source: self.source.clone(),
            pid: std::process::id(),
            uptime_seconds: self.health.uptime().as_secs(),
            ready: not_ready.is_none(),
            not_ready,
            generation: self.generation,
            policies: policies(cluster).into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            namespaces: cluster.namespaces.len(),
            nodes: cluster.nodes.len(),
            pods: cluster.pods.len(),
            local_pods: view::local(cluster, &self.node).count(),
            isolated_ingress: plan.ingress.len(),
            isolated_egress: plan.egress.len(),
            tables: plan.tables.len(),
            groups: plan.peer_sets.len(),
            elements,
            cut_off: named(&self.shortfall.cut_off),
            not_enforced: named(&self.shortfall.not_enforced),
            watches: self.ledger.watch_views(),
            unusable_objects: self.ledger.unusable(),
        }
    }

    /// Brings the figures up to date that cost something to count: when somebody looks, and not at each change.
    fn figures(&mut self) {
        let elements = self.agent.data_plane().elements();
        let reconciler = self.agent.reconciler();
        let (cluster, plan, m) = (reconciler.cluster(), reconciler.plan(), &self.metrics);
        let set = |gauge: &Gauge, n: usize| gauge.set(n as i64);
        for (kind, count) in policies(cluster) {
            set(&m.policies.get_or_create(&KindLabel { kind }), count);
        }
        set(&m.pods.get_or_create(&ScopeLabel { scope: "cluster" }), cluster.pods.len());
        set(&m.pods.get_or_create(&ScopeLabel { scope: "local" }), view::local(cluster, &self.node).count());
        set(&m.isolated_pods.get_or_create(&Direction::Ingress.into()), plan.ingress.len());
        set(&m.isolated_pods.get_or_create(&Direction::Egress.into()), plan.egress.len());
        set(&m.tables, plan.tables.len());
        set(&m.groups, plan.peer_sets.len());
        set(&m.elements, elements);
        self.count_untold_drops();
    }

    /// The kernel tells of a limited number of packets and counts them all. What was counted at the last look and has not
    /// been told until now won't be.
    fn count_untold_drops(&mut self) {
        let Some(counts) = self.agent.data_plane().count_drops(&mut self.tally) else { return };
        for (direction, now) in [(Direction::Egress, counts.egress), (Direction::Ingress, counts.ingress)] {
            let (before, untold) = self.counted.entry(direction).or_default();
            let more = before.saturating_sub(self.drops.told(direction)).saturating_sub(*untold);
            *untold += more;
            *before = now;
            self.metrics.drops.get_or_create(&DropLabels::unknown(direction)).inc_by(more);
        }
    }
}

/// Policies by kind; the kinds that a cluster may have none of are there too.
fn policies(cluster: &Cluster) -> BTreeMap<&'static str, usize> {
    let kinds = [
        Kind::NetworkPolicy,
        Kind::ClusterNetworkPolicy,
        Kind::AdminNetworkPolicy,
        Kind::BaselineAdminNetworkPolicy,
    ];
    let mut out: BTreeMap<&'static str, usize> = kinds.into_iter().map(|kind| (kind.as_str(), 0)).collect();
    for key in cluster.policies.keys() {
        if let Some(count) = out.get_mut(&*key.kind) {
            *count += 1;
        }
    }
    out
}
