//! The thread that works on the kernel.

mod answers;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use palisade_api::Reporter;
use palisade_nft::{Left, Options, drops};
use palisade_policy::{Change, Cluster, Direction, Name, ObjectKey};

use super::{
    DaemonError, Explain, Health, Inbox, Parts,
    inbox::{Asked, Waiting},
    ledger::Ledger,
    outside, own_name,
};
use crate::{
    NftDataPlane, NodeAgent, Report,
    config::Config,
    drops::Drops,
    lock::Lock,
    metrics::{Metrics, ResultLabel},
    words,
};

/// It looks up so often, whatever happens.
const TICK: Duration = Duration::from_secs(1);
/// How often those who are cut off are named again, and a first snapshot that doesn't come.
const REMIND: Duration = Duration::from_secs(30);
/// How often the number of the kernel's table is looked at, should nobody tell of changes by others.
const LOOK: Duration = Duration::from_secs(10);
/// Mending takes a whole listing: not more often than so, whatever others do.
const MEND: Duration = Duration::from_secs(2);

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
    lock: Arc<Lock>,
    cut_off: Vec<(Direction, IpAddr)>,
    generation: u64,
    /// Whether the node's name was looked for among those of the cluster.
    knows_itself: Option<bool>,
    /// Whether somebody else touched the table since it was mended.
    drifted: Option<String>,
    mended: Option<Instant>,
    looked: Instant,
    reminded: Instant,
    /// How much of what the kernel lacks was told.
    lacking: usize,
    /// When open connections may be looked through that wait for it.
    review_due: Option<Instant>,
    tally: drops::Tally,
    /// Drops that the kernel had counted at the last look, and those of them that nobody told of, by direction.
    counted: BTreeMap<Direction, (u64, u64)>,
}

impl Worker {
    pub(super) fn new(
        config: &Config,
        parts: &Parts,
        plane: NftDataPlane,
        explain: Explain,
        lock: Arc<Lock>,
    ) -> Self {
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
            lock,
            cut_off: Vec::new(),
            generation: 0,
            knows_itself: None,
            drifted: None,
            mended: None,
            looked: Instant::now(),
            reminded: Instant::now(),
            lacking: 0,
            review_due: None,
            tally: drops::Tally::default(),
            counted: BTreeMap::new(),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(&mut self) {
        loop {
            let due = self.review_due.map(|at| at.saturating_duration_since(Instant::now()));
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
            snapshot, changes, received, watches, findings, drops, more_drops, asked, drift, ..
        } = waiting;
        self.ledger.watches(watches);
        self.ledger.findings(findings);
        let was_waiting = self.agent.reconciler().is_waiting();
        if let Some(cluster) = snapshot {
            self.snapshot(*cluster, received.filter(|_| !was_waiting));
        }
        if !changes.is_empty() {
            self.changes(changes, received);
        }
        if !drops.is_empty() || more_drops > 0 {
            self.drops.take(drops, more_drops, self.agent.reconciler(), &self.metrics);
        }
        if drift.is_some() {
            self.drifted = drift;
        }
        for Asked { ask, reply } in asked {
            // Who asked may have gone.
            _ = reply.send(self.answer(ask));
        }
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
            self.tell_what_was_left();
            self.watch_the_kernel();
        }
    }

    fn tell_what_was_left(&mut self) {
        match self.agent.data_plane().left() {
            None => {}
            Some(Left::Nothing) => tracing::info!("the kernel had no table inet palisade: it is made"),
            Some(Left::Ours) => tracing::info!("the table of an earlier run is taken over by what differs"),
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
    fn settle(&mut self, report: Report, received: Option<Instant>) {
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
        metrics.commits.get_or_create(&ResultLabel { result: "refused" }).inc_by(refused as u64);
        for (index, error) in report.errors.iter().enumerate() {
            let why = words::with_causes(error);
            if index < refused {
                tracing::error!(why, "the kernel was not programmed as it should be");
                self.ledger.error("commit", why);
            } else {
                tracing::error!(why, "open connections were not decided anew; it is tried again");
                self.ledger.error("connections", why);
            }
        }
        if let Some(received) = received.filter(|_| !report.commits.is_empty() && refused == 0) {
            self.metrics.apply_latency.observe(received.elapsed().as_secs_f64());
        }
        if let Some(reporter) = self.reporter.get() {
            let refusal =
                report.errors.iter().take(refused).next_back().map(|error| words::with_causes(error));
            match (self.agent.reconciler().is_behind(), refusal) {
                (false, _) => reporter.programmed(Ok(())),
                (true, Some(why)) => reporter.programmed(Err(why)),
                // Still the refusal that was told.
                (true, None) => {}
            }
        }
        self.settle_cut_off(report.cut_off);
    }

    fn settle_cut_off(&mut self, cut_off: Vec<(Direction, IpAddr)>) {
        if !cut_off.is_empty() {
            if self.cut_off != cut_off {
                self.cut_off = cut_off;
                self.name_cut_off();
            }
        } else if !self.agent.reconciler().is_behind() && !self.cut_off.is_empty() {
            self.cut_off.clear();
            tracing::info!("no pod is cut off any more: the kernel holds the whole plan");
        }
        for direction in Direction::BOTH {
            let count = self.cut_off.iter().filter(|(d, _)| *d == direction).count();
            self.metrics.cut_off_pods.get_or_create(&direction.into()).set(count as i64);
        }
    }

    fn name_cut_off(&mut self) {
        const NAMED: usize = 20;
        for (direction, address) in self.cut_off.iter().take(NAMED) {
            let pod = self.agent.reconciler().endpoint(*address);
            tracing::error!(%direction, %pod, "the pod is cut off: the kernel refused its policies");
        }
        if self.cut_off.len() > NAMED {
            tracing::error!(more = self.cut_off.len() - NAMED, "and so are more pods");
        }
        self.reminded = Instant::now();
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

    /// Begins to hear of dropped packets and of changes by others; once, after the table is made.
    fn watch_the_kernel(&mut self) {
        if let Some(group) = self.log_group
            && let Err(error) = outside::hear_drops(group, Arc::clone(&self.inbox))
        {
            self.not_heard("drops", &error, "dropped packets are not logged");
        }
        let watching = match self.agent.data_plane().watch() {
            Ok(None) => Ok(()),
            Ok(Some(watcher)) => outside::hear_drift(watcher, Arc::clone(&self.inbox)),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = watching {
            self.not_heard(
                "drift",
                &error,
                "changes of the table by others are looked for from time to time only",
            );
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
        self.lock.let_askers_go();
        self.look_around();
        self.mend();
        if self.reminded.elapsed() >= REMIND {
            self.reminded = Instant::now();
            if self.agent.reconciler().is_waiting() {
                tracing::warn!("still waiting for the first whole snapshot; the kernel stays as it is");
            }
            if !self.cut_off.is_empty() {
                self.name_cut_off();
            }
        }
    }

    /// Follows changes of the node's links.
    fn look_around(&mut self) {
        let lacking = self.agent.data_plane().lacking();
        if lacking.len() > self.lacking {
            self.lacking = lacking.len();
            lacking.iter().for_each(|what| tracing::warn!("{what}"));
        }
        match self.agent.data_plane().look_around() {
            Ok(None) => {}
            Ok(Some(done)) => {
                self.generation = done.generation;
                tracing::debug!(elements = done.elements, "the node's links changed");
            }
            Err(error) => {
                let why = words::with_causes(&error);
                tracing::error!(
                    why,
                    "forged and tunnelled packets of pods may pass: the rules do not know the node's links; it is tried again"
                );
                self.ledger.error("links", why);
            }
        }
    }

    /// Puts right what others did to the table.
    fn mend(&mut self) {
        if self.agent.reconciler().is_waiting() {
            return;
        }
        if self.drifted.is_none() && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            match self.agent.data_plane().in_step() {
                Ok(true) => {}
                Ok(false) => self.drifted = Some("the table is not the one that was written last".to_owned()),
                Err(error) => return self.not_heard("drift", &error.into(), "the table can't be looked at"),
            }
        }
        let is_due = self.mended.is_none_or(|at| at.elapsed() >= MEND);
        let Some(what) = self.drifted.take_if(|_| is_due) else { return };
        self.mended = Some(Instant::now());
        match self.agent.data_plane().repair() {
            Ok(done) if done.transactions == 0 => tracing::debug!(what, "nothing was to be mended"),
            Ok(done) => {
                self.generation = done.generation;
                tracing::error!(
                    what,
                    elements = done.elements,
                    "another program changed the table inet palisade: it is mended"
                );
                self.ledger.error("drift", what);
            }
            Err(error) => {
                let why = words::with_causes(&error);
                tracing::error!(
                    what,
                    why,
                    "another program changed the table inet palisade, and it can't be mended"
                );
                self.ledger.error("drift", format!("{what}: {why}"));
                self.drifted = Some(what);
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
        } else if reconciler.is_behind() {
            let cut = self.cut_off.len();
            Some(format!("the kernel refuses the plan; {cut} addresses are cut off"))
        } else {
            None
        }
    }
}
