//! Egress by name: learns the addresses that DNS servers answer to pods that a rule with `domainNames` selects.
//!
//! ```text
//!  pod ── query ──► queue ──► Core::packet: noted ──► on its way
//!  pod ◄─ answer ◄──────────────┐
//!                               │ released after the commit
//!  server ─ answer ─► queue ──► Core::packet ── changes, packet ──► ReceiveLearned ──► NodeAgent ──► kernel
//!                                 ▲
//!       upkeep: what expires and no connection uses; the file
//! ```
//!
//! An answer is released only after its addresses are in the kernel, so that the first packet to them passes. Whatever goes wrong, an answer is
//! dropped, or an address is not learned: then policies deny it. Nothing is allowed that no answer of a trusted server contained.

mod clock;
mod core;
mod file;
mod link;
mod public;
mod servers;
mod threads;
mod warnings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use palisade_dns::{Learnable, LearnedNames, Patterns};
use palisade_nft::{
    Kernel,
    dns_table::DnsTable,
    packet_queue::{PacketQueue, Verdicts},
};
use palisade_policy::{Change, Cluster, Direction, ObjectKey, Peer, Pod, Policy};

pub use self::core::MessageCounts;
pub(crate) use self::file::NamesFile;
use self::{
    clock::Clock, core::Core, link::Link, public::PublicAddresses, servers::Servers, warnings::Warnings,
};
use crate::{Reconciler, error_chain};

/// The port of DNS.
pub(crate) const DNS_PORT: u16 = 53;

/// The pause after the queue or the table can't be had.
const RETRY: Duration = Duration::from_secs(10);
/// How often the table is looked at, in case another program changed it.
const CHECK: Duration = Duration::from_secs(2);

/// How addresses are learned.
#[derive(Clone, Debug, Default)]
pub struct NamesSettings {
    /// The trusted servers. None: those of the cluster and of the node.
    pub resolvers: BTreeSet<SocketAddr>,
    /// Whether messages pass unread where they would be dropped for the agent's sake.
    pub is_open: bool,
    /// Whether Services are read after the first snapshot, or not at all if that fails: until [`Names::know_services`], no server is
    /// trusted.
    pub awaits_services: bool,
    /// Ranges that may be learned whatever they are.
    pub allowed: Vec<IpNet>,
    /// The directory of the file of learned names. `None`: they are lost if the agent ends.
    pub state_dir: Option<PathBuf>,
}

/// What an answer of a DNS server, or time, changes about learned names.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedAnswer {
    /// The changes.
    pub changes: Vec<Change>,
    /// The packet that waits until the changes, and all before, are committed.
    pub packet: Option<u32>,
}

/// Receives what was learned. It has to commit the changes in their order and then to call [`Names::release`]. Called by the threads of
/// [`Names`], with a lock that [`Names`] needs too, so it must not block on the caller of these.
pub trait ReceiveLearned: Debug + Send + Sync {
    /// Receives an answer.
    fn receive_learned(&self, answer: LearnedAnswer);
}

/// Which pods are concerned, and the release of answers: what the thread that commits to the kernel does for names.
#[derive(Debug)]
pub struct Names {
    link: Arc<Link>,
    file: Option<NamesFile>,
    /// Whether messages pass unread where they would be dropped for the agent's sake.
    is_open: bool,
    allowed: Vec<IpNet>,
    /// `None` until the queue is read.
    open: Option<Open>,
    retry: Instant,
    /// The policies with names.
    policies: Vec<Arc<Policy>>,
    servers: Servers,
    pods: BTreeMap<IpAddr, ObjectKey>,
    addresses: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
    public: PublicAddresses,
    warnings: Warnings,
    /// Whether the kernel may hold other pods than these.
    is_dirty: bool,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Open {
    kernel: Kernel,
    table: DnsTable,
    verdicts: Verdicts,
    /// When the table is looked at next.
    check: Instant,
    /// How many messages had exceeded their share then.
    over_share: u64,
}

impl Names {
    /// Reads what was learned before the last restart, and hands it to `receiver`. The queue is read from the first
    /// [`Names::tick`] on.
    #[must_use]
    pub fn new(settings: &NamesSettings, receiver: Arc<dyn ReceiveLearned>) -> Self {
        let clock = Clock::start();
        let file = settings.state_dir.as_deref().map(NamesFile::new);
        if file.is_none() {
            tracing::warn!("no state directory, learned names are lost if the agent restarts");
        }
        let known = file.as_ref().map(|file| file.read(Core::limits(), clock.now().seconds));
        let learned = match known {
            Some(Ok(mut learned)) => {
                // `dns-allow` may have been shorter since. What the cluster has is known only with the first snapshot.
                learned.retain_learnable(&Learnable::new(
                    settings.allowed.clone(),
                    BTreeSet::new(),
                    BTreeSet::new(),
                ));
                _ = learned.take_changes();
                learned
            }
            Some(Err(error)) => {
                let err = error_chain::with_causes(&error);
                tracing::warn!(err, "saved learned names unusable, pods have to resolve names again");
                LearnedNames::new(Core::limits())
            }
            None => LearnedNames::new(Core::limits()),
        };
        let is_open = settings.is_open;
        let mut core = Core::new(learned, is_open);
        let restored = core.restored();
        if !restored.is_empty() {
            // Before the first snapshot, so that connections to them are not denied in between.
            receiver.receive_learned(LearnedAnswer { changes: restored, packet: None });
        }
        let link = Arc::new(Link { core: Mutex::new(core), receiver, clock });
        Self {
            link,
            file,
            is_open,
            allowed: settings.allowed.clone(),
            open: None,
            retry: Instant::now(),
            policies: Vec::new(),
            servers: Servers::new(settings.resolvers.clone(), !settings.awaits_services),
            pods: BTreeMap::new(),
            addresses: BTreeMap::new(),
            public: PublicAddresses::default(),
            warnings: Warnings::default(),
            is_dirty: true,
            last_error: None,
        }
    }

    /// Replaces the trusted servers, from the next [`Names::follow`] of a snapshot on. None: those of the cluster and of the node.
    pub fn set_resolvers(&mut self, resolvers: BTreeSet<SocketAddr>) {
        self.servers.set(resolvers);
    }

    /// Services are known from now on.
    pub fn know_services(&mut self, reconciler: &Reconciler) {
        if self.servers.know_services() {
            self.update_servers(reconciler);
        }
    }

    /// Follows changes that are applied; `None` for a new snapshot. `O(pods and Services of the change)` if only these change, no Service
    /// has the address of a DNS server, and none of the addresses is public, else `O(policies + pods of this node + services)`.
    pub fn follow(&mut self, changes: Option<&[Change]>, reconciler: &Reconciler) {
        match changes.map(Followed::of) {
            Some(Some(followed)) => self.follow_some(&followed, reconciler),
            Some(None) | None => self.follow_all(reconciler),
        }
    }

    fn follow_some(&mut self, Followed { pods, services }: &Followed, reconciler: &Reconciler) {
        if self.policies.is_empty() || (pods.is_empty() && services.is_empty()) {
            return;
        }
        pods.iter().for_each(|key| self.follow_pod(key, reconciler));
        let known = &reconciler.cluster().services;
        if services.iter().any(|key| self.servers.depend_on(key, known.get(key))) {
            self.update_servers(reconciler);
        }
        let mut core = self.link.core();
        if !pods.is_empty() {
            core.set_pods(self.pods.clone());
        }
        let mut changes = Vec::new();
        for key in pods {
            changes.extend(self.public.follow_pod(key, reconciler, &mut core));
        }
        for key in services {
            changes.extend(self.public.follow_service(key, reconciler, &mut core));
        }
        if !changes.is_empty() {
            self.link.receiver.receive_learned(LearnedAnswer { changes, packet: None });
        }
    }

    fn update_servers(&mut self, reconciler: &Reconciler) {
        if self.servers.update(reconciler.cluster(), Instant::now()) {
            self.is_dirty = true;
            self.link.core().set_servers(self.servers.trusted());
        }
    }

    fn follow_all(&mut self, reconciler: &Reconciler) {
        let cluster = reconciler.cluster();
        let has_names = |policy: &&Arc<Policy>| {
            let rules = policy.rules(Direction::Egress).unwrap_or_default();
            let mut peers = rules.iter().filter_map(|rule| rule.peers.as_ref()).flatten();
            peers.any(|entry| matches!(entry.peer, Peer::DomainName(_)))
        };
        self.policies = cluster.policies.values().filter(has_names).cloned().collect();
        self.is_dirty |= self.servers.update(cluster, Instant::now());
        let before = std::mem::take(&mut self.pods);
        self.addresses.clear();
        if !self.policies.is_empty() {
            reconciler.plan().local.iter().for_each(|address| self.follow_address(*address, reconciler));
        }
        self.is_dirty |= before != self.pods;
        self.public = PublicAddresses::of(cluster);
        let learnable = learnable_beside(cluster, self.allowed.clone(), self.public.addresses());
        let mut core = self.link.core();
        core.set_pods(self.pods.clone());
        let changes = core.set_rules((Patterns::of(cluster), learnable), self.servers.trusted());
        if !changes.is_empty() {
            self.link.receiver.receive_learned(LearnedAnswer { changes, packet: None });
        }
    }

    fn follow_pod(&mut self, key: &ObjectKey, reconciler: &Reconciler) {
        let mut addresses = self.addresses.remove(key).unwrap_or_default();
        if let Some(pod) = reconciler.cluster().pods.get(key) {
            addresses.extend(&pod.addresses);
        }
        for address in addresses {
            let before = self.pods.remove(&address);
            self.follow_address(address, reconciler);
            self.is_dirty |= before.is_some() != self.pods.contains_key(&address);
        }
    }

    fn follow_address(&mut self, address: IpAddr, reconciler: &Reconciler) {
        let is_here = |pod: &&Pod| pod.node.as_ref() == Some(reconciler.node());
        let Some(pod) = reconciler.owner(address).filter(is_here) else { return };
        let namespace = reconciler.cluster().namespaces.get(&pod.key.namespace);
        let selects = |policy: &Arc<Policy>| {
            policy.subject.matches(&pod.key.namespace, namespace.map(|n| &n.labels), &pod.labels)
        };
        if self.policies.iter().any(selects) {
            self.pods.insert(address, pod.key.clone());
            self.addresses.entry(pod.key.clone()).or_default().insert(address);
        }
    }

    /// Releases answers whose addresses are committed. If the kernel refused, they are dropped, or with `dns-fail: open` released.
    pub fn release(&mut self, answers: &[LearnedAnswer], is_current: bool) {
        let accept = is_current || self.is_open;
        if let Some(open) = &self.open {
            for packet in answers.iter().filter_map(|answer| answer.packet) {
                if let Err(error) = open.verdicts.decide(packet, accept) {
                    let err = error_chain::with_causes(&error);
                    tracing::warn!(err, "cannot release a DNS answer, its pod has to resolve the name again");
                }
            }
        }
        let mut core = self.link.core();
        answers.iter().filter_map(|answer| answer.packet).for_each(|packet| core.release(packet, accept));
        core.settle(answers.len(), is_current);
    }

    /// Tells whether the kernel holds the plan. While it doesn't, the messages are dropped.
    pub fn set_current(&self, is_current: bool) {
        self.link.core().settle(0, is_current);
    }

    /// Reads the queue and programs the table, if that is due. Returns an error that is new.
    pub fn tick(&mut self, reconciler: &Reconciler) -> Option<String> {
        if self.servers.is_due(Instant::now()) {
            self.update_servers(reconciler);
        }
        self.check_table();
        let is_due = self.open.is_none() || self.is_dirty;
        if !is_due || self.retry > Instant::now() {
            return None;
        }
        match self.program() {
            Ok(()) => {
                self.is_dirty = false;
                self.last_error = None;
                None
            }
            Err(error) => {
                self.retry = Instant::now() + RETRY;
                let err = error_chain::with_causes(&error);
                let is_new = self.last_error.as_ref() != Some(&err);
                self.last_error = Some(err.clone());
                is_new.then_some(err)
            }
        }
    }

    fn program(&mut self) -> Result<(), palisade_nft::Error> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(start(&self.link, self.file.clone(), self.is_open)?),
        };
        let pods: BTreeSet<IpAddr> = self.pods.keys().copied().collect();
        open.table.set(&mut open.kernel, &pods, self.servers.trusted())
    }

    /// Looks whether another program removed rules of the table.
    fn check_table(&mut self) {
        let now = Instant::now();
        let Some(open) = self.open.as_mut().filter(|open| open.check <= now) else { return };
        open.check = now + CHECK;
        match open.table.is_intact(&mut open.kernel) {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!("another program changed table inet palisade_dns, replacing it");
                self.is_dirty = true;
            }
            Err(error) => {
                let err = error_chain::with_causes(&error);
                tracing::error!(err, "cannot check table inet palisade_dns, retrying");
            }
        }
        // The next look sees what this one could not.
        if let Ok(over) = open.table.over_share(&mut open.kernel) {
            // A table that was replaced counts from zero.
            self.link.core().counts.over_share += over.checked_sub(open.over_share).unwrap_or(over);
            open.over_share = over;
        }
    }

    /// Another program changed the agent's rules, and perhaps these.
    pub fn distrust_table(&mut self) {
        self.is_dirty = true;
        if let Some(open) = &mut self.open {
            open.table.forget();
        }
    }

    /// Takes what was counted, and returns the numbers of names and addresses. Logs what was not learned, at intervals.
    pub fn take_counts(&mut self) -> (MessageCounts, (usize, usize)) {
        let mut core = self.link.core();
        let (counts, size) = (std::mem::take(&mut core.counts), core.size());
        drop(core);
        self.warnings.add(&counts);
        self.warnings.log(Instant::now());
        (counts, size)
    }

    /// Saves the names before the process ends.
    pub fn save(&self) {
        threads::save(&self.link, self.file.as_ref());
    }
}

/// The pods and Services of changes.
#[derive(Default)]
struct Followed {
    pods: Vec<ObjectKey>,
    services: Vec<ObjectKey>,
}

impl Followed {
    /// `None` if anything else changes too.
    fn of(changes: &[Change]) -> Option<Self> {
        let mut followed = Self::default();
        for change in changes {
            match change {
                Change::SetPod(pod) => followed.pods.push(pod.key.clone()),
                Change::RemovePod(key) => followed.pods.push(key.clone()),
                Change::SetService(service) => followed.services.push(service.key.clone()),
                Change::RemoveService(key) => followed.services.push(key.clone()),
                Change::SetLearned(_) | Change::RemoveLearned(_) => {}
                _ => return None,
            }
        }
        Some(followed)
    }
}

/// Becomes the reader of the queue, and starts the threads.
fn start(link: &Arc<Link>, file: Option<NamesFile>, is_open: bool) -> Result<Open, palisade_nft::Error> {
    let (kernel, for_upkeep) = (Kernel::open()?, Kernel::open()?);
    let queue = PacketQueue::open(is_open)?;
    let verdicts = queue.verdicts();
    let failed = |source: io::Error| palisade_nft::Error::Socket { doing: "starting a thread for", source };
    let (reader, own) = (Arc::downgrade(link), verdicts.clone());
    threads::spawn("palisade-dns", move || threads::read(queue, &own, &reader)).map_err(failed)?;
    let upkeep = Arc::downgrade(link);
    threads::spawn("palisade-names", move || threads::upkeep(for_upkeep, &upkeep, file.as_ref()))
        .map_err(failed)?;
    tracing::info!("reading DNS answers for rules with domain names");
    Ok(Open { kernel, table: DnsTable::new(is_open), verdicts, check: Instant::now() + CHECK, over_share: 0 })
}

/// Returns which addresses agents learn in a cluster: not its own, nor private ones, unless they are allowed. `O(pods + nodes + services)`.
#[must_use]
pub fn learnable(cluster: &Cluster, allowed: Vec<IpNet>) -> Learnable {
    learnable_beside(cluster, allowed, PublicAddresses::of(cluster).addresses())
}

/// As [`learnable`], with the addresses of pods and Services.
fn learnable_beside(cluster: &Cluster, allowed: Vec<IpNet>, mut addresses: BTreeSet<IpAddr>) -> Learnable {
    let public = Learnable::default();
    let nodes = cluster.nodes.values();
    let ranges = nodes.clone().flat_map(|node| node.pod_cidrs.iter().copied());
    let nodes = nodes.flat_map(|node| node.addresses.iter().copied());
    addresses.extend(nodes.filter(|address| public.check(*address).is_ok()));
    // Private ones are not learned anyway.
    let ranges = ranges.filter(|range| public.check(range.addr()).is_ok()).collect();
    Learnable::new(allowed, ranges, addresses)
}

#[cfg(test)]
mod tests;
