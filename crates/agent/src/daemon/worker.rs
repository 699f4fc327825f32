//! The worker thread, which owns the node's agent and with it the kernel.
//!
//! ```text
//!   sources                           kernel events                 requests
//!   API watch (palisade-api)          denied packets (nflog)        palisade node (socket)
//!   manifests (source::directory)     nftables notifications        metrics scrape (HTTP)
//!          │ Delivery                       │ DeniedPacket,               │ Request  ▲ Response
//!          │                                │ TableChange                 │          │
//!          │    container runtime (NRI) ── RuntimeEvent ─► (pod waits for StartOutcome) │
//!          └────────────────┬───────────────┴─────────────────────────────┘          │
//!                           ▼                                                        │
//!                    Inbox (accumulates)                                             │
//!                           │ Pending                                                │
//!                           ▼                                                        │
//!   ┌─────────────────────────────── Worker (this thread) ───────────────────────────────┐
//!   │  changes, snapshots ─► NodeAgent::apply, snapshot                                  │
//!   │  when due ───────────► NodeAgent::tick (retries, a step of the review)             │
//!   │  table changes ──────► Repairs ─► DataPlane::repair ─► NodeAgent::review_all        │
//!   └──────────┬───────────────────────────────────────────────────────────▲─────────────┘
//!              │ Input                                                     │ Report
//!              ▼                                                           │
//!        Reconciler (pure) ── Action ─► NodeAgent ── plan, delta ─► DataPlane (kernel)
//!                                           └─ review of established connections, in steps: revoke, restore
//!                                              (a thread of the data plane lists connections meanwhile)
//!
//! Each Report updates the log, Metrics, ErrorLog, Health (/readyz), Shortfall, and the Reporter (Events, conditions).
//! ```

mod cleanup;
mod closed;
mod flows;
mod links;
mod names;
mod repair;
mod report;
mod requests;
mod runtime;
mod runtime_state;
mod shortfall;
mod state;
mod table;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use palisade_api::{ObjectRef, Reporter, ResourceKind, WatchState};
use palisade_manifest::Diagnostic;
use palisade_nft::{EnforcerOptions, drops};
use palisade_policy::{Change, Cluster, Name, ObjectKey};

use super::{
    error_log::ErrorLog,
    health::Health,
    inbox::{Inbox, Pending, PendingRequest},
    kernel_events, node_name,
    over_budget::OverBudgetReports,
    overrun::Overrun,
    refused_sources::RefusedSources,
    repairs::Repairs,
    reviews::Reviews,
    shared::{Explain, Shared, Wording},
    shortfall::Shortfall,
};
use crate::{
    NftDataPlane, NodeAgent,
    config::{Config, Flows, SourceCheck},
    connections::ConnectionLog,
    drops::{DropLog, UnloggedPackets},
    error_chain,
    flows::FlowStore,
    metrics::Metrics,
    names::Names,
    state::Keeper,
};
use flows::DropRate;
use links::{BridgeReports, UnboundPorts};
use runtime_state::RuntimeState;

/// The longest time between two iterations of the worker's loop.
const TICK: Duration = Duration::from_secs(1);
/// How often pods that are cut off, or a missing first snapshot, are logged again.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);
/// How often all established connections are reviewed without a change: the kernel's set forgets revoked connections after
/// some days, and a review adds those again that still exist.
const FULL_REVIEW_INTERVAL: Duration = Duration::from_secs(3600);

/// The state of the worker thread.
pub(super) struct Worker {
    agent: NodeAgent<NftDataPlane>,
    node: Name,
    source: String,
    inbox: Arc<Inbox>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    reporter: Arc<OnceLock<Reporter>>,
    errors: ErrorLog,
    drops: DropLog,
    flows: Arc<FlowStore>,
    which_flows: Flows,
    /// Makes records of connections, if these are wanted.
    connections: Option<ConnectionLog>,
    /// When dropped packets that the kernel did not log were last counted.
    drops_counted: Instant,
    /// The nflog group of denied packets.
    log_group: Option<u16>,
    explain: Explain,
    shortfall: Shortfall,
    over_budget: OverBudgetReports,
    refused_sources: RefusedSources,
    /// The last generation of the table that was written.
    generation: u64,
    /// Whether the cluster has this node. `None` before the first snapshot.
    node_is_known: Option<bool>,
    /// Whether the log says what a previous run had left in the kernel.
    has_logged_takeover: bool,
    /// When to open the socket for nftables notifications. `None` once it is open.
    watch_at: Option<Instant>,
    overrun: Overrun,
    repairs: Repairs,
    /// When the last reminder was logged.
    reminded: Instant,
    /// When the last full review of established connections was requested.
    fully_reviewed: Instant,
    /// How many of the features that the kernel lacks have been logged.
    missing_features: usize,
    unbound_ports: UnboundPorts,
    bridges: BridgeReports,
    reviews: Reviews,
    /// When the pending review of established connections may begin.
    review_due: Option<Instant>,
    /// Learns addresses of names, if that is wanted.
    names: Option<Names>,
    /// Keeps what outlives a restart of the node, if that is wanted.
    state: Option<Keeper>,
    drop_tally: drops::Tally,
    drop_rate: DropRate,
    /// The same for first packets of connections that passed because of audit mode.
    audit_rate: DropRate,
    source_check: SourceCheck,
    runtime: RuntimeState,
    unlogged: UnloggedPackets,
}

impl Worker {
    pub(super) fn new(
        config: &Config,
        shared: &Shared,
        plane: NftDataPlane,
        explain: Explain,
        wording: Wording,
    ) -> Self {
        let connections = flows::connection_log(config, shared, &wording);
        let drops = DropLog::new(shared.node.clone(), Arc::clone(&shared.flows), wording, Instant::now());
        Self {
            agent: NodeAgent::in_mode(shared.node.clone(), plane, config.mode.into())
                .denying_by(config.deny.into()),
            node: shared.node.clone(),
            source: config.source.to_string(),
            inbox: Arc::clone(&shared.inbox),
            health: Arc::clone(&shared.health),
            metrics: Arc::clone(&shared.metrics),
            reporter: Arc::clone(&shared.reporter),
            errors: ErrorLog::new(Arc::clone(&shared.metrics)),
            drops,
            flows: Arc::clone(&shared.flows),
            which_flows: config.flows,
            connections,
            drops_counted: Instant::now(),
            log_group: EnforcerOptions::default().log_group.filter(|_| config.log_drops),
            explain,
            shortfall: Shortfall::default(),
            over_budget: OverBudgetReports::default(),
            refused_sources: RefusedSources::default(),
            generation: 0,
            node_is_known: None,
            has_logged_takeover: false,
            watch_at: Some(Instant::now()),
            overrun: Overrun::default(),
            repairs: Repairs::new(Instant::now()),
            reminded: Instant::now(),
            fully_reviewed: Instant::now(),
            missing_features: 0,
            unbound_ports: UnboundPorts::default(),
            bridges: BridgeReports::default(),
            reviews: Reviews::default(),
            review_due: None,
            names: names::wanted(config, &shared.inbox),
            state: None,
            drop_tally: drops::Tally::default(),
            drop_rate: DropRate::default(),
            audit_rate: DropRate::default(),
            source_check: config.source_check,
            runtime: RuntimeState::new(config, &shared.node, &shared.inbox),
            unlogged: UnloggedPackets::default(),
        }
    }

    /// Processes inputs until the inbox is stopped.
    pub(super) fn run(&mut self) {
        loop {
            let due = self.review_due.into_iter().chain(self.repairs.due()).chain(self.runtime.due());
            let due = due.chain(self.connections.as_ref().and_then(ConnectionLog::due)).min();
            let due = due.map(|at| at.saturating_duration_since(Instant::now()));
            let pending = self.inbox.take(due.map_or(TICK, |due| due.min(TICK)));
            self.health.beat();
            if pending.stop {
                self.log_unreviewed();
                self.save_names();
                return;
            }
            self.process(pending);
            self.answer_starts();
            self.tick();
            self.update_health();
        }
    }

    /// Logs that established connections are not all reviewed. A review ends between two steps: the next agent reviews all connections at
    /// its start.
    fn log_unreviewed(&self) {
        if let Some(since) = self.agent.review_state().unreviewed_for {
            tracing::info!(
                since_ms = since.as_millis() as u64,
                "stopped before all established connections were re-evaluated, the next agent re-evaluates them"
            );
        }
    }

    fn process(&mut self, pending: Pending) {
        let Pending {
            snapshot,
            changes,
            received,
            watches,
            findings,
            denied_packets,
            uncollected_packets,
            connections,
            learned,
            runtime,
            requests,
            table_change,
            lost_notifications,
            ..
        } = pending;
        let services_are_watched = watches.contains(&(ResourceKind::Service, WatchState::Watching));
        self.errors.set_watch_states(watches);
        if lost_notifications {
            self.overrun.record();
        }
        if let Some(change) = table_change {
            // Before the changes, which can only be programmed if the table exists.
            self.repairs.add(change);
            self.repair_table();
        }
        if !learned.is_empty() {
            // Before a snapshot, so that the first plan has what was learned before a restart.
            self.apply_learned(&learned);
        }
        let was_waiting = self.agent.reconciler().is_waiting();
        if let Some(mut cluster) = snapshot {
            self.runtime.pods.api_snapshot(&mut cluster);
            self.apply_snapshot(*cluster, received.filter(|_| !was_waiting));
        }
        if !changes.is_empty() {
            self.apply_changes(changes, received);
        }
        self.follow_watch_of_services(services_are_watched);
        if !runtime.is_empty() {
            self.process_runtime(runtime);
        }
        self.process_findings(findings);
        if !denied_packets.is_empty() || uncollected_packets > 0 {
            self.drops.record(
                denied_packets,
                uncollected_packets,
                (self.agent.reconciler(), self.generation),
                &self.metrics,
                Instant::now(),
            );
        }
        if let Some(log) = self.connections.as_mut().filter(|_| connections) {
            log.note();
        }
        for PendingRequest { request, respond } in requests {
            // The client may be gone.
            _ = respond.send(self.respond(request));
        }
    }

    /// Reports findings about objects. A source delivers an object's change before its findings, so the kernel has received
    /// the change by now.
    fn process_findings(&mut self, mut findings: Vec<(ObjectRef, Vec<Diagnostic>)>) {
        if findings.is_empty() {
            return;
        }
        if self.names.is_some() {
            findings.iter_mut().for_each(|(_, found)| found.retain(|finding| !names::is_solved(finding)));
        }
        if let Some(reporter) = self.reporter.get() {
            for (object, found) in &findings {
                reporter.findings(object.clone(), found.clone());
            }
        }
        self.errors.set_findings(findings);
        self.report_programmed();
    }

    fn apply_snapshot(&mut self, cluster: Cluster, received: Option<Instant>) {
        let is_first = self.agent.reconciler().is_waiting();
        let begin = Instant::now();
        let report = self.agent.snapshot(cluster);
        self.forget_all_flows();
        self.apply_report(report, received);
        self.follow_names(None);
        self.check_node_name();
        if is_first {
            let Cluster { pods, policies, .. } = self.agent.reconciler().cluster();
            tracing::info!(
                pods = pods.len(),
                policies = policies.len(),
                duration_ms = begin.elapsed().as_millis() as u64,
                "processed the first snapshot"
            );
            self.read_denied_packets();
            self.read_connections();
        }
    }

    fn apply_changes(&mut self, changes: Vec<Change>, received: Option<Instant>) {
        self.errors.count_changes(&changes);
        let is_node = |c: &Change| matches!(c, Change::SetNode(_) | Change::RemoveNode(_));
        let has_nodes = changes.iter().any(is_node);
        self.forget_policies_of_flows(&changes);
        let changes: Vec<Change> =
            changes.into_iter().map(|change| self.runtime.pods.api_change(change)).collect();
        let addresses = pod_addresses(&changes);
        let changed = self.forget_flows_of(&changes);
        let for_names = self.names.is_some().then(|| changes.clone());
        let report = self.agent.apply(changes);
        self.follow_local_pods(&changed);
        self.apply_report(report, received);
        if let Some(changes) = for_names {
            self.follow_names(Some(&changes));
        }
        self.log_shared_addresses(&addresses);
        if has_nodes {
            self.check_node_name();
        }
    }

    /// Logs pods of this node that report the same address as another pod: policies take one of them for the other
    /// (SEMANTICS G-10).
    fn log_shared_addresses(&mut self, addresses: &[(ObjectKey, IpAddr)]) {
        let reconciler = self.agent.reconciler();
        let mut messages = Vec::new();
        for (key, address) in addresses {
            let Some(owner) = reconciler.owner(*address).filter(|owner| owner.key != *key) else { continue };
            let known = reconciler.cluster().pods.get(key);
            if known.into_iter().chain([owner]).any(|pod| pod.node.as_ref() == Some(&self.node)) {
                let owner = &owner.key;
                tracing::warn!(pod = %key, %address, %owner, "pod reports the address of another pod");
                messages.push(format!("{address} of {key} is treated as the address of {owner}"));
            }
        }
        messages.into_iter().for_each(|message| self.errors.record("address", message));
    }

    /// Checks whether the cluster has this node, and logs when that changes.
    fn check_node_name(&mut self) {
        let cluster = self.agent.reconciler().cluster();
        let is_known = node_name::is_known(cluster, &self.node);
        if self.node_is_known == Some(is_known) {
            return;
        }
        let was_known = self.node_is_known.replace(is_known);
        if is_known && was_known == Some(false) {
            tracing::info!(node = %self.node, "node found in the cluster");
        }
        if !is_known {
            let known = node_name::warn_unknown(cluster, &self.node);
            self.errors
                .record("node-name", format!("no node {} in the cluster; known nodes: {known}", self.node));
        }
    }

    /// Starts to read denied packets. Called once.
    fn read_denied_packets(&mut self) {
        if let Some(group) = self.log_group
            && let Err(error) = kernel_events::read_denied_packets(group, Arc::clone(&self.inbox))
        {
            let err = error_chain::with_causes(&error);
            tracing::warn!(err, "cannot read denied packets, they are not logged");
            self.errors.record("drops", err);
        }
    }

    fn tick(&mut self) {
        let review_is_due = self.review_due.is_some_and(|at| at <= Instant::now());
        if review_is_due || self.agent.reconciler().is_behind() {
            let report = self.agent.tick();
            // Most steps of a review change nothing else.
            if report.is_intermediate() {
                self.review_due = report.review_due;
            } else {
                self.apply_report(report, None);
            }
            self.open_closed();
        }
        if self.fully_reviewed.elapsed() >= FULL_REVIEW_INTERVAL && !self.agent.reconciler().is_waiting() {
            self.fully_reviewed = Instant::now();
            self.agent.review_all();
            let report = self.agent.tick();
            self.apply_report(report, None);
        }
        self.drops.tick(Instant::now());
        self.record_connections();
        self.count_losses();
        self.watch_table();
        self.follow_links();
        self.compare_after_overrun();
        self.repair_table();
        self.keep_names();
        self.keep_state();
        self.tidy_new_pods();
        if self.reminded.elapsed() >= REMINDER_INTERVAL {
            self.reminded = Instant::now();
            if self.agent.reconciler().is_waiting() {
                tracing::warn!("still waiting for the first snapshot, the kernel stays unchanged");
            }
            if !self.shortfall.is_empty() {
                self.log_shortfall();
            }
        }
    }

    fn update_health(&self) {
        let not_ready = self.not_ready();
        let was_ready = self.metrics.ready.get() == 1;
        if not_ready.is_none() && !was_ready {
            tracing::info!(generation = self.generation, "agent is ready, the kernel holds the plan");
        }
        self.metrics.ready.set(i64::from(not_ready.is_none()));
        self.health.set_not_ready(not_ready);
    }

    /// Why the agent is not ready, if it isn't.
    fn not_ready(&self) -> Option<String> {
        let reconciler = self.agent.reconciler();
        if reconciler.is_waiting() {
            return Some("waiting for the first snapshot".to_owned());
        }
        let repair = self.repairs.failure().map(|err| {
            format!("another program changed table inet palisade, which can't be repaired: {err}")
        });
        let rejection = reconciler.is_behind().then(|| self.shortfall.not_ready());
        let text = repair.into_iter().chain(rejection).collect::<Vec<_>>().join("; ");
        Some(text).filter(|text| !text.is_empty()).or_else(|| self.reviews.not_ready())
    }
}

/// The addresses of running pods that the changes set.
fn pod_addresses(changes: &[Change]) -> Vec<(ObjectKey, IpAddr)> {
    let running = changes.iter().filter_map(|change| match change {
        Change::SetPod(pod) if pod.is_running() => Some(pod),
        _ => None,
    });
    running.flat_map(|pod| pod.addresses.iter().map(|address| (pod.key.clone(), *address))).collect()
}
