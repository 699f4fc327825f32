//! The thread that works on the kernel.

mod answers;
mod links;
mod mend;
mod overrun;
mod shortfall;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use overrun::Overrun;
use palisade_api::{ObjectRef, Reporter};
use palisade_manifest::Diagnostic;
use palisade_nft::{Left, Options, drops};
use palisade_policy::{Change, Cluster, Direction, Name, ObjectKey};
use shortfall::Shortfall;

use super::{
    DaemonError, Explain, Health, Inbox, Parts,
    inbox::{Asked, Waiting},
    ledger::Ledger,
    outside, over_budget, own_name,
    reviews::Reviews,
};
use crate::{
    NftDataPlane, NodeAgent, Report,
    config::Config,
    drops::Drops,
    metrics::{Metrics, ResultLabel},
    words,
};
use mend::Mending;

/// It looks up so often, whatever happens.
const TICK: Duration = Duration::from_secs(1);
/// How often those who are cut off are named again, and a first snapshot that doesn't come.
const REMIND: Duration = Duration::from_secs(30);
/// How often all open connections are looked at without a change: the kernel forgets revoked ones after some days, and
/// those that are still there then are remembered anew.
const RENEW: Duration = Duration::from_secs(3600);
/// How often it is tried to hear of changes by others, if that failed.
const HEAR_AGAIN: Duration = Duration::from_secs(30);

/// Everything that belongs to the node's agent.
pub(super) struct Worker {
    agent: NodeAgent<NftDataPlane>,
    node: Name,
    source: String,
    inbox: Arc<Inbox>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    reporter: Arc<OnceLock<Reporter>>,
    ledger: Ledger,
    drops: Drops,
    /// The nflog group of denied packets.
    log_group: Option<u16>,
    explain: Explain,
    shortfall: Shortfall,
    over_budget: over_budget::Told,
    generation: u64,
    /// Whether the node's name was looked for among those of the cluster.
    knows_itself: Option<bool>,
    /// Whether it was told what an earlier run had left.
    knows_what_was_left: bool,
    /// When it may be tried to listen to changes of the table by others; none: they are listened to.
    listen_at: Option<Instant>,
    overrun: Overrun,
    mending: Mending,
    reminded: Instant,
    renewed: Instant,
    /// How much of what the kernel lacks was told.
    lacking: usize,
    /// How looking through open connections fares.
    reviews: Reviews,
    /// When open connections may be looked through that wait for it.
    review_due: Option<Instant>,
    tally: drops::Tally,
    /// Drops that the kernel had counted at the last look, and those of them that nobody told of, by direction.
    counted: BTreeMap<Direction, (u64, u64)>,
}

impl Worker {
    pub(super) fn new(config: &Config, parts: &Parts, plane: NftDataPlane, explain: Explain) -> Self {
        Self {
            agent: NodeAgent::new(parts.node.clone(), plane),
            node: parts.node.clone(),
            source: config.source.to_string(),
            inbox: Arc::clone(&parts.inbox),
            health: Arc::clone(&parts.health),
            metrics: Arc::clone(&parts.metrics),
            reporter: Arc::clone(&parts.reporter),
            ledger: Ledger::new(Arc::clone(&parts.metrics)),
            drops: Drops::new(),
            log_group: Options::default().log_group.filter(|_| config.log_drops),
            explain,
            shortfall: Shortfall::default(),
            over_budget: over_budget::Told::default(),
            generation: 0,
            knows_itself: None,
            knows_what_was_left: false,
            listen_at: Some(Instant::now()),
            overrun: Overrun::default(),
            mending: Mending::new(Instant::now()),
            reminded: Instant::now(),
            renewed: Instant::now(),
            lacking: 0,
            reviews: Reviews::default(),
            review_due: None,
            tally: drops::Tally::default(),
            counted: BTreeMap::new(),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(&mut self) {
        loop {
            let due = self.review_due.into_iter().chain(self.mending.due()).min();
            let due = due.map(|at| at.saturating_duration_since(Instant::now()));
            let waiting = self.inbox.take(due.map_or(TICK, |due| due.min(TICK)));
            self.health.beat();
            if waiting.stop {
                return;
            }
            self.take_in(waiting);
            self.tick();
            self.tell_health();
        }
    }

    fn take_in(&mut self, waiting: Waiting) {
        let Waiting {
            snapshot,
            changes,
            received,
            watches,
            findings,
            drops,
            more_drops,
            asked,
            drift,
            overrun,
            ..
        } = waiting;
        self.ledger.watches(watches);
        self.overrun.is_open |= overrun;
        if let Some(drifted) = drift {
            // A change can only be programmed into a table that is there.
            self.mending.heard(drifted);
            self.mend();
        }
        let was_waiting = self.agent.reconciler().is_waiting();
        if let Some(cluster) = snapshot {
            self.snapshot(*cluster, received.filter(|_| !was_waiting));
        }
        if !changes.is_empty() {
            self.changes(changes, received);
        }
        self.findings(findings);
        if !drops.is_empty() || more_drops > 0 {
            self.drops.take(drops, more_drops, self.agent.reconciler(), &self.metrics);
        }
        for Asked { ask, reply } in asked {
            // Who asked may have gone.
            _ = reply.send(self.answer(ask));
        }
    }

    /// Takes in what is wrong with objects. A source tells of an object's change before it tells what is wrong with it, so the
    /// kernel has been given by now what the findings are about.
    fn findings(&mut self, findings: Vec<(ObjectRef, Vec<Diagnostic>)>) {
        if findings.is_empty() {
            return;
        }
        if let Some(reporter) = self.reporter.get() {
            for (object, found) in &findings {
                reporter.findings(object.clone(), found.clone());
            }
        }
        self.ledger.findings(findings);
        self.tell_programmed();
    }

    fn snapshot(&mut self, cluster: Cluster, received: Option<Instant>) {
        let is_first = self.agent.reconciler().is_waiting();
        let begin = Instant::now();
        let report = self.agent.snapshot(cluster);
        self.drops.forget();
        self.settle(report, received);
        self.look_for_itself();
        if is_first {
            let Cluster { pods, policies, .. } = self.agent.reconciler().cluster();
            tracing::info!(
                pods = pods.len(),
                policies = policies.len(),
                milliseconds = begin.elapsed().as_millis() as u64,
                "the first whole snapshot is taken in"
            );
            self.hear_drops();
        }
    }

    /// Once, when the table first stands.
    fn tell_what_was_left(&mut self) {
        if std::mem::replace(&mut self.knows_what_was_left, true) {
            return;
        }
        match self.agent.data_plane().left() {
            None => {}
            Some(Left::Nothing) => tracing::info!("the kernel had no table inet palisade: it is made"),
            Some(Left::Ours) => tracing::info!("the table of an earlier run is taken over by what differs"),
            Some(Left::Unreadable) => tracing::warn!(
                "the table inet palisade changed each time that it was read: it is replaced in one transaction"
            ),
            Some(Left::Foreign) => tracing::warn!(
                "the table inet palisade was of another version, or not ours: it is replaced in one transaction"
            ),
        }
    }

    fn changes(&mut self, changes: Vec<Change>, received: Option<Instant>) {
        self.ledger.count_changes(&changes);
        let is_node = |c: &Change| matches!(c, Change::SetNode(_) | Change::RemoveNode(_));
        let nodes = changes.iter().any(is_node);
        if changes.iter().any(|c| !matches!(c, Change::SetPod(_) | Change::RemovePod(_))) {
            self.drops.forget();
        }
        let pods = Self::pods_with_addresses(&changes);
        let report = self.agent.apply(changes);
        self.settle(report, received);
        self.tell_shared_addresses(&pods);
        if nodes {
            self.look_for_itself();
        }
    }

    /// The live pods that the changes set.
    fn pods_with_addresses(changes: &[Change]) -> Vec<(ObjectKey, IpAddr)> {
        let live = changes.iter().filter_map(|change| match change {
            Change::SetPod(pod) if pod.is_live() => Some(pod),
            _ => None,
        });
        live.flat_map(|pod| pod.addresses.iter().map(|address| (pod.key.clone(), *address))).collect()
    }

    /// Names the pods of this node that report an address together with another pod: one of them is not what policies
    /// take it for (SEMANTICS G-10).
    fn tell_shared_addresses(&mut self, pods: &[(ObjectKey, IpAddr)]) {
        let reconciler = self.agent.reconciler();
        let mut told = Vec::new();
        for (key, address) in pods {
            let Some(owner) = reconciler.owner(*address).filter(|owner| owner.key != *key) else { continue };
            let known = reconciler.cluster().pods.get(key);
            if known.into_iter().chain([owner]).any(|pod| pod.node.as_ref() == Some(&self.node)) {
                let owner = &owner.key;
                tracing::warn!(%address, pod = %key, %owner, "two pods report one address; it counts as the owner's");
                told.push(format!("{address} of {key} counts as that of {owner}"));
            }
        }
        told.into_iter().for_each(|message| self.ledger.error("address", message));
    }

    /// Takes in what an input led to.
    fn settle(&mut self, mut report: Report, received: Option<Instant>) {
        let metrics = &self.metrics;
        if !report.compile.is_zero() && received.is_some() {
            metrics.compile_duration.observe(report.compile.as_secs_f64());
        }
        let refused = report.errors.len() - usize::from(report.review_failed);
        self.review_due = report.review_due;
        if !report.commits.is_empty() || refused > 0 {
            metrics.transaction_duration.observe(report.commit.as_secs_f64());
        }
        for commit in &report.commits {
            metrics.commits.get_or_create(&ResultLabel { result: "ok" }).inc();
            self.generation = commit.generation;
            tracing::debug!(
                generation = commit.generation,
                transactions = commit.transactions,
                elements = commit.elements,
                microseconds = report.commit.as_micros() as u64,
                "programmed"
            );
        }
        metrics.generation.set(i64::try_from(self.generation).unwrap_or(i64::MAX));
        metrics.connections_revoked.inc_by(report.revoked as u64);
        metrics.connections_restored.inc_by(report.restored as u64);
        if report.revoked > 0 || report.restored > 0 {
            tracing::info!(
                cut = report.revoked,
                freed = report.restored,
                "open connections were decided anew"
            );
        }
        if report.not_remembered > 0 {
            let count = report.not_remembered;
            tracing::warn!(
                count,
                "too many revoked connections to remember them all; these stay cut only as long as connection tracking keeps their entries"
            );
            self.ledger.error("connections", format!("{count} revoked connections are not remembered"));
        }
        metrics.commits.get_or_create(&ResultLabel { result: "refused" }).inc_by(refused as u64);
        for (index, error) in report.errors.iter().enumerate() {
            let why = words::with_causes(error);
            if index < refused {
                tracing::error!(why, "the kernel was not programmed as it should be");
                self.ledger.error("commit", why);
            } else if self.reviews.failed(&why, Instant::now()) {
                tracing::error!(why, "open connections were not decided anew; it is tried again");
                self.ledger.error("connections", why);
            }
        }
        if report.review_due.is_none() && self.reviews.succeeded() {
            tracing::info!("open connections are decided anew again");
        }
        if let Some(received) = received.filter(|_| !report.commits.is_empty() && refused == 0) {
            self.metrics.apply_latency.observe(received.elapsed().as_secs_f64());
        }
        self.settle_shortfall(&mut report, refused);
        let (reconciler, reporter) = (self.agent.reconciler(), self.reporter.get());
        self.over_budget.settle(&self.node, reconciler, &self.metrics, reporter, &mut self.ledger);
    }

    /// Whether the cluster has a node of our name.
    fn look_for_itself(&mut self) {
        let cluster = self.agent.reconciler().cluster();
        let is_known = own_name::is_known(cluster, &self.node);
        if self.knows_itself == Some(is_known) {
            return;
        }
        let was_known = self.knows_itself.replace(is_known);
        if is_known && was_known == Some(false) {
            tracing::info!(node = %self.node, "the cluster has a node of this name now");
        }
        if !is_known {
            let known = own_name::warn(cluster, &self.node);
            self.ledger.error("node-name", format!("no node {} in the cluster; there is {known}", self.node));
        }
    }

    /// Begins to hear of dropped packets; once.
    fn hear_drops(&mut self) {
        if let Some(group) = self.log_group
            && let Err(error) = outside::hear_drops(group, Arc::clone(&self.inbox))
        {
            self.not_heard("drops", &error, "dropped packets are not logged");
        }
    }

    /// Begins to hear of changes by others as soon as the table stands, at the first start or later.
    fn hear_drift(&mut self) {
        if self.listen_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        let watching = match self.agent.data_plane().watch() {
            Ok(None) => return,
            Ok(Some(watcher)) => outside::hear_drift(watcher, Arc::clone(&self.inbox)),
            Err(error) => Err(error.into()),
        };
        self.tell_what_was_left();
        match watching {
            // What others did before we listened is found by a look.
            Ok(()) => self.listen_at = None,
            Err(error) => {
                self.listen_at = Some(Instant::now() + HEAR_AGAIN);
                self.not_heard(
                    "drift",
                    &error,
                    "changes of the table by others are looked for from time to time only",
                );
            }
        }
    }

    fn not_heard(&mut self, stage: &'static str, error: &DaemonError, so: &str) {
        let why = words::with_causes(error);
        tracing::warn!(why, "{so}");
        self.ledger.error(stage, why);
    }

    fn tick(&mut self) {
        let review_is_due = self.review_due.is_some_and(|at| at <= Instant::now());
        if review_is_due || self.agent.reconciler().is_behind() {
            let report = self.agent.tick();
            self.settle(report, None);
        }
        if self.renewed.elapsed() >= RENEW && !self.agent.reconciler().is_waiting() {
            self.renewed = Instant::now();
            self.agent.review_all();
            let report = self.agent.tick();
            self.settle(report, None);
        }
        self.hear_drift();
        self.look_around();
        self.look_after_overrun();
        self.mend();
        if self.reminded.elapsed() >= REMIND {
            self.reminded = Instant::now();
            if self.agent.reconciler().is_waiting() {
                tracing::warn!("still waiting for the first whole snapshot; the kernel stays as it is");
            }
            if self.is_short() {
                self.name_shortfall();
            }
        }
    }

    fn tell_health(&self) {
        let not_ready = self.not_ready();
        let was_ready = self.metrics.ready.get() == 1;
        if not_ready.is_none() && !was_ready {
            tracing::info!(generation = self.generation, "ready: the kernel holds the plan");
        }
        self.metrics.ready.set(i64::from(not_ready.is_none()));
        self.health.set(not_ready);
    }

    fn not_ready(&self) -> Option<String> {
        let reconciler = self.agent.reconciler();
        if reconciler.is_waiting() {
            Some("waiting for the first whole snapshot".to_owned())
        } else {
            let unmended = |why| {
                format!("another program changed the table inet palisade, and it can't be mended: {why}")
            };
            let unmended = self.mending.failing().map(unmended);
            let refused = reconciler.is_behind().then(|| self.refused_words());
            let words = unmended.into_iter().chain(refused).collect::<Vec<_>>().join("; ");
            Some(words).filter(|words| !words.is_empty()).or_else(|| self.reviews.not_ready())
        }
    }
}
