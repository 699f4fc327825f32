//! Answers requests, and updates the metrics that are expensive to count.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use palisade_api::ResourceKind;
use palisade_policy::{Cluster, Direction};
use prometheus_client::metrics::gauge::Gauge;

use super::Worker;
use crate::{
    ReviewState,
    config::{Flows, SourceCheck},
    daemon::{shared::VERSION, shortfall::Shortfall},
    error_chain,
    metrics::{KindLabel, ScopeLabel},
    socket::{Request, Response, ReviewView, Status, Verified},
    view,
};

impl Worker {
    pub(super) fn respond(&mut self, request: Request) -> Response {
        let reconciler = self.agent.reconciler();
        let (cluster, plan) = (reconciler.cluster(), reconciler.plan());
        match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Pods => Response::Pods({
                let Shortfall { cut_off, not_enforced, .. } = &self.shortfall;
                view::pods(cluster, &self.node, plan, cut_off, not_enforced)
            }),
            Request::Profiles => Response::Profiles(view::profiles(cluster, &self.node, plan)),
            Request::Tables => Response::Tables(view::tables(plan)),
            Request::Groups => Response::Groups(view::groups(plan)),
            Request::Errors => Response::Errors(self.errors.errors()),
            Request::Explain { source, destination, namespace } => {
                match (self.explain)(cluster, &source, &destination, &namespace) {
                    Ok(explained) => Response::Explained(explained),
                    Err(error) => Response::Error(error),
                }
            }
            Request::Verify => self.verify(),
            Request::PodIsHeld { id } => Response::PodIsHeld(self.runtime.pods.has(&id)),
            // The listener answers these without the worker.
            Request::PodAttached(_) | Request::PodDetached { .. } | Request::Flows(_) => {
                Response::Error("not a request to the worker".to_owned())
            }
            Request::UpdateMetrics => {
                self.update_metrics();
                Response::Done
            }
        }
    }

    fn verify(&mut self) -> Response {
        let behind = self.agent.reconciler().is_behind();
        match self.agent.data_plane().verify() {
            Ok(None) => {
                Response::Error("nothing is programmed yet: no complete snapshot has arrived".to_owned())
            }
            Err(error) => Response::Error(error_chain::with_causes(&error)),
            Ok(Some(found)) => Response::Verified(Verified {
                // A pod that is cut off on purpose doesn't have the rules that its policies require either.
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
        let [bypassing_bridges, _] = self.agent.data_plane().bridge_problems();
        let unbound_ports = self.agent.data_plane().unbound_ports().into_values().collect();
        self.count_losses_now();
        let source_check = self.source_check();
        let with_names = |of: &[(Direction, IpAddr)]| of.iter().map(|(d, a)| (d.to_string(), *a)).collect();
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
            mode: cluster.mode.to_string(),
            audited_policies: cluster.audited().count(),
            audited_ingress: plan.audit.ingress.len(),
            audited_egress: plan.audit.egress.len(),
            tables: plan.tables.len(),
            groups: plan.peer_sets.len(),
            elements,
            cut_off: with_names(&self.shortfall.cut_off),
            not_enforced: with_names(&self.shortfall.not_enforced),
            held_by: self.held_by(),
            source_check,
            flows: self.which_flows.as_str().to_owned(),
            flows_problem: self.flows_problem(),
            drops_last_minute: self.drop_rate.last_minute(),
            audited_last_minute: self.audit_rate.last_minute(),
            errors_last_hour: self.errors.in_last_hour(),
            unbound_ports,
            bypassing_bridges,
            watches: self.errors.watch_views(),
            unusable_objects: self.errors.unusable_objects(),
            unreviewed: self.unreviewed(),
        }
    }

    /// Why connections are not recorded, though they should be.
    fn flows_problem(&self) -> Option<String> {
        match &self.connections {
            Some(connections) => connections.seen().problem(),
            None if self.which_flows == Flows::Drops => None,
            None => Some("flow-buffer is 0, and there is neither flow-file nor otlp-endpoint".to_owned()),
        }
    }

    /// What holds pods until they are isolated.
    fn held_by(&self) -> Vec<String> {
        let holders = [("nri", &self.metrics.runtime_connected), ("cni", &self.metrics.cni_chained)];
        holders.iter().filter(|(_, gauge)| gauge.get() == 1).map(|(name, _)| (*name).to_owned()).collect()
    }

    /// How source addresses of pods are checked.
    fn source_check(&mut self) -> String {
        let missing = self.agent.data_plane().missing_features();
        let configured = match self.source_check {
            SourceCheck::Off => "off",
            _ if missing.iter().any(|missing| missing.is_source_check) => "unsupported",
            SourceCheck::Enforce => "enforce",
            SourceCheck::Strict => "strict",
        };
        configured.to_owned()
    }

    /// The review of established connections, if one is not finished.
    fn unreviewed(&self) -> Option<ReviewView> {
        let ReviewState { unreviewed_for, is_running, left } = self.agent.review_state();
        let state = match (is_running, left) {
            (false, _) => "waiting",
            (true, None) => "listing",
            (true, Some(_)) => "judging",
        };
        Some(ReviewView {
            for_milliseconds: unreviewed_for?.as_millis() as u64,
            state: state.to_owned(),
            left,
            failure: self.reviews.failure().map(str::to_owned),
        })
    }

    /// Updates the metrics that are counted at each scrape rather than at each change, because counting is expensive.
    fn update_metrics(&mut self) {
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
        set(&m.audited_pods.get_or_create(&Direction::Ingress.into()), plan.audit.ingress.len());
        set(&m.audited_pods.get_or_create(&Direction::Egress.into()), plan.audit.egress.len());
        set(&m.audited_policies, cluster.audited().count());
        set(&m.policy_tables, plan.tables.len());
        set(&m.peer_sets, plan.peer_sets.len());
        set(&m.elements, elements);
        let unreviewed = self.agent.review_state().unreviewed_for.unwrap_or_default();
        m.unreviewed.set(unreviewed.as_secs_f64());
        self.count_unlogged_drops();
    }

    /// Adds packets to the counters of dropped and audited packets that the kernel counted but didn't log: it logs a limited number. Those that
    /// were counted by the last call and have not been logged since never will be.
    pub(super) fn count_unlogged_drops(&mut self) {
        let Some(counts) = self.agent.data_plane().count_drops(&mut self.drop_tally) else { return };
        let now = Instant::now();
        self.drop_rate.add(now, counts.egress + counts.ingress);
        self.audit_rate.add(now, counts.audited_egress + counts.audited_ingress);
        let Self { drops, unlogged, flows, metrics, .. } = self;
        for (direction, audited, more) in
            unlogged.add(counts, |direction, audited| drops.received(direction, audited))
        {
            flows.lose(more);
            if more > 0 || !audited {
                metrics.count_unknown(direction, audited, more);
            }
        }
    }
}

/// The number of policies of each kind, including kinds without policies.
fn policies(cluster: &Cluster) -> BTreeMap<&'static str, usize> {
    let kinds = [
        ResourceKind::NetworkPolicy,
        ResourceKind::ClusterNetworkPolicy,
        ResourceKind::AdminNetworkPolicy,
        ResourceKind::BaselineAdminNetworkPolicy,
    ];
    let mut out: BTreeMap<&'static str, usize> = kinds.into_iter().map(|kind| (kind.as_str(), 0)).collect();
    for key in cluster.policies.keys() {
        if let Some(count) = out.get_mut(&*key.kind) {
            *count += 1;
        }
    }
    out
}
