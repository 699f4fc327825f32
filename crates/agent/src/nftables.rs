//! The real data plane: nftables and connection tracking of a network namespace.

mod lister;
mod new_pods;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use palisade_nft::{
    Commit, Enforcer, EnforcerOptions, ExistingTable, Feature, Kernel, NodeLinks, Verification, conntrack,
    cut_off, drift, drops, new_pods::NewPods,
};
use palisade_policy::{Delta, Direction, Name, NodePlan, ObjectKey};

use crate::{
    DataPlane, DataPlaneError, FiveTuple, Programmed, ReviewScope, RevocationSummary, TrackedConnection,
    links::{LinkMonitor, host_addresses},
};
use lister::Lister;

/// Programs the kernel through [`palisade_nft`].
///
/// Must be used in one network namespace: the sockets belong to that of [`NftDataPlane::open`], but the node's
/// addresses are read in that of the calling thread.
#[derive(Debug)]
pub struct NftDataPlane {
    options: EnforcerOptions,
    state: State,
    empty: NodePlan,
    lister: Lister,
    /// `None` until their notifications can be read.
    links: Option<LinkMonitor>,
    /// Pods that have just started, and those that the run before has left.
    new_pods: NewPods,
    left_new_pods: BTreeSet<IpAddr>,
    /// Whether the node's pods may be closed because of a restart of the node ([`palisade_nft::close_node`]).
    may_be_closed: bool,
    /// An error about the links that the next call of [`NftDataPlane::refresh_links`] returns.
    link_error: Option<DataPlaneError>,
}

#[derive(Debug)]
enum State {
    Idle(Option<Kernel>),
    Programmed(Box<Enforcer>),
}

const LISTING: &str = "listing connections";
const WATCHING_LINKS: &str = "watching the node's links";
const READING_LINKS: &str = "reading the node's links";
const PROGRAMMING_LINKS: &str = "programming the rules for the node's links";

fn failed<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl FnOnce(E) -> DataPlaneError {
    move |e| DataPlaneError { doing, source: Box::new(e) }
}

impl NftDataPlane {
    /// Opens the kernel's interfaces in the calling thread's network namespace. Changes nothing yet.
    ///
    /// # Errors
    /// If the kernel has no nftables, or the caller may not use it.
    pub fn open() -> Result<Self, DataPlaneError> {
        Self::open_with(EnforcerOptions::default())
    }

    /// [`NftDataPlane::open`] with other options.
    ///
    /// # Errors
    /// As [`NftDataPlane::open`].
    pub fn open_with(options: EnforcerOptions) -> Result<Self, DataPlaneError> {
        let kernel = Kernel::open().map_err(failed("opening the kernel's nftables"))?;
        let (links, link_error) = match LinkMonitor::open(options.source_check) {
            Ok(links) => (Some(links), None),
            Err(error) => (None, Some(failed(WATCHING_LINKS)(error))),
        };
        let lister = Lister::start().map_err(failed(LISTING))?;
        let (state, empty) = (State::Idle(Some(kernel)), NodePlan::default());
        Ok(Self {
            options,
            state,
            empty,
            lister,
            links,
            new_pods: NewPods::default(),
            left_new_pods: BTreeSet::new(),
            may_be_closed: true,
            link_error,
        })
    }

    /// What a previous run had left in the kernel. `None` before [`DataPlane::start`] has succeeded.
    #[must_use]
    pub fn existing_table(&self) -> Option<ExistingTable> {
        match &self.state {
            State::Idle(_) => None,
            State::Programmed(enforcer) => Some(enforcer.existing_table()),
        }
    }

    /// Requested features that this kernel lacks. Enforcement continues without them.
    #[must_use]
    pub fn missing_features(&self) -> Vec<MissingFeature> {
        let State::Programmed(enforcer) = &self.state else { return Vec::new() };
        enforcer.missing_features().map(MissingFeature::of).collect()
    }

    /// Opens a socket for notifications about changes of the table by other programs. `None` before [`DataPlane::start`] has
    /// succeeded.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn watch(&mut self) -> Result<Option<drift::Watcher>, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(None) };
        drift::Watcher::open(enforcer.kernel())
            .map(Some)
            .map_err(failed("watching for changes by other programs"))
    }

    /// Whether the kernel's table has the generation that was written last. Cheap, but misses edits that don't change the
    /// generation.
    ///
    /// # Errors
    /// If the kernel can't be read.
    pub fn is_last_generation(&mut self) -> Result<bool, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(true) };
        enforcer.is_in_sync().map_err(failed("reading the table's generation"))
    }

    /// The number of elements in all sets and maps of the table. `O(1)`.
    #[must_use]
    pub fn elements(&self) -> usize {
        match &self.state {
            State::Idle(_) => 0,
            State::Programmed(enforcer) => enforcer.elements(),
        }
    }

    /// The number of packets dropped since `tally` was created. `None` if the kernel can't be read.
    pub fn count_drops(&mut self, tally: &mut drops::Tally) -> Option<drops::Counts> {
        let State::Programmed(enforcer) = &mut self.state else { return None };
        drops::Counters::read(enforcer.kernel()).ok().map(|counters| tally.add(counters))
    }

    /// Reads the kernel and returns how it differs from the programmed plan. Changes nothing.
    ///
    /// # Errors
    /// If the kernel can't be read.
    pub fn verify(&mut self) -> Result<Option<Verification>, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(None) };
        enforcer.verify().map(Some).map_err(failed("reading the table back"))
    }

    /// Reads what has changed of the node's links, at most once a second, and updates the rules that depend on them.
    /// Local pods that come and go are handled with the commit of their change.
    ///
    /// # Errors
    /// If the links can't be read, or the kernel rejects the update, now or at the last start or commit. The rules then keep the
    /// previous links, and the next call retries.
    pub fn refresh_links(&mut self) -> Result<Option<Programmed>, DataPlaneError> {
        if let Some(error) = self.link_error.take() {
            return Err(error);
        }
        let is_due = self.links()?.is_due().map_err(failed(WATCHING_LINKS))?;
        if is_due { self.read_links(LinkMonitor::refresh) } else { Ok(None) }
    }

    /// As [`NftDataPlane::refresh_links`], but reads everything, also without a notification, and without a minimum interval.
    ///
    /// # Errors
    /// As [`NftDataPlane::refresh_links`].
    pub fn refresh_links_now(&mut self) -> Result<Option<Programmed>, DataPlaneError> {
        self.links()?;
        self.read_links(LinkMonitor::read)
    }

    fn read_links(
        &mut self,
        read: impl FnOnce(&mut LinkMonitor, &BTreeSet<IpAddr>) -> io::Result<NodeLinks>,
    ) -> Result<Option<Programmed>, DataPlaneError> {
        let (State::Programmed(enforcer), Some(links)) = (&mut self.state, &mut self.links) else {
            return Ok(None);
        };
        let node_links = read(links, &enforcer.programmed().local).map_err(failed(READING_LINKS))?;
        update_links(enforcer, links, &node_links)
    }

    /// Tells the network namespace of a pod, by which its interface is found, before its addresses are programmed.
    #[cfg(feature = "daemon")]
    pub(crate) fn name_namespace(&mut self, sandbox: &str, namespace: crate::links::NamedNamespace) {
        if let Some(links) = &mut self.links {
            links.name_namespace(sandbox, namespace);
        }
    }

    /// Forgets the network namespaces that were named for other sandboxes than these.
    #[cfg(feature = "daemon")]
    pub(crate) fn retain_namespaces(&mut self, is_kept: impl Fn(&str) -> bool) {
        if let Some(links) = &mut self.links {
            links.retain_namespaces(is_kept);
        }
    }

    /// Returns the names of the bridge ports, and with a strict source check of other interfaces, that lead to pods which are not known, by
    /// index. Their pods' source addresses are checked less strictly.
    #[must_use]
    pub fn unbound_ports(&self) -> BTreeMap<u32, String> {
        self.links.as_ref().map(|links| links.unbound().clone()).unwrap_or_default()
    }

    /// Returns the names of the bridges of local pods that pass packets past netfilter, and of those that learn hardware addresses from frames
    /// that no rule sees.
    #[must_use]
    pub fn bridge_problems(&self) -> [Vec<String>; 2] {
        self.links.as_ref().map(|links| [links.bypassing(), links.learning()]).unwrap_or_default()
    }

    /// Returns how many netlink messages were sent and received so far to read the node's links: the cost of following them.
    #[must_use]
    pub fn link_messages(&self) -> u64 {
        self.links.as_ref().map_or(0, LinkMonitor::messages)
    }

    /// Opens pods that are closed because of a restart of the node, once the plan is programmed.
    fn open_node(&mut self) -> Result<(), DataPlaneError> {
        if let (true, State::Programmed(enforcer)) = (self.may_be_closed, &mut self.state) {
            palisade_nft::open_node(enforcer.kernel())
                .map_err(failed("removing table inet palisade_closed_node"))?;
            self.may_be_closed = false;
        }
        Ok(())
    }

    /// Returns the links. Opens their sockets if that failed before.
    fn links(&mut self) -> Result<&mut LinkMonitor, DataPlaneError> {
        match &mut self.links {
            Some(links) => Ok(links),
            missing => {
                let links = LinkMonitor::open(self.options.source_check).map_err(failed(WATCHING_LINKS))?;
                Ok(missing.insert(links))
            }
        }
    }

    /// Commits a change of the plan together with the links of the local pods that it adds or removes.
    fn commit_with_links(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Programmed::default()) };
        let followed =
            self.links.as_mut().and_then(|links| links.follow(&delta.local.added, &delta.local.removed));
        let node_links = followed.and_then(|read| {
            let keep = |error| self.link_error = Some(failed(READING_LINKS)(error));
            read.map_err(keep).ok().filter(|links| enforcer.node_links() != links)
        });
        let together = node_links.map(|node_links| enforcer.commit_with_links(delta, &node_links));
        let error = match together {
            Some(Ok(commit)) => return Ok(programmed(&commit)),
            Some(Err(error)) => Some(error),
            None => None,
        };
        // Links that can't be programmed don't keep the plan from being enforced.
        let commit = enforcer.commit(delta).map_err(failed("programming a change"));
        if let Some(links) = self.links.as_mut().filter(|_| error.is_some() || commit.is_err()) {
            links.invalidate_all();
        }
        let commit = commit?;
        if let Some(error) = error {
            self.link_error = Some(failed(PROGRAMMING_LINKS)(error));
        }
        Ok(programmed(&commit))
    }

    /// Reads the kernel and repairs what differs from the programmed plan.
    ///
    /// # Errors
    /// If the kernel can't be read, or rejects the change.
    pub fn repair(&mut self) -> Result<Programmed, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Programmed::default()) };
        let repaired = enforcer.repair().map(|c| programmed(&c)).map_err(failed("repairing the table"));
        log_without_stand_in(enforcer);
        repaired
    }
}

/// Adds what a change of the node's links has programmed after a commit.
fn with_links(commit: Programmed, links: Option<Programmed>) -> Programmed {
    let Some(links) = links else { return commit };
    Programmed {
        transactions: commit.transactions + links.transactions,
        elements: commit.elements + links.elements,
        generation: links.generation,
    }
}

/// Updates the rules that depend on the node's links, if the links differ.
fn update_links(
    enforcer: &mut Enforcer,
    links: &mut LinkMonitor,
    node_links: &NodeLinks,
) -> Result<Option<Programmed>, DataPlaneError> {
    if enforcer.node_links() == node_links {
        return Ok(None);
    }
    match enforcer.set_node_links(node_links) {
        Ok(commit) => Ok(Some(programmed(&commit))),
        Err(error) => {
            links.invalidate();
            Err(failed(PROGRAMMING_LINKS)(error))
        }
    }
}

/// A requested feature that the kernel lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    /// The feature, and what provides it.
    pub feature: &'static str,
    /// What is not enforced without it.
    pub consequence: &'static str,
    /// Whether it is the check of source addresses.
    pub is_source_check: bool,
}

impl MissingFeature {
    fn of(feature: Feature) -> Self {
        match feature {
            Feature::SourceCheck => Self {
                feature: "reverse path lookup in nftables of the family inet (CONFIG_NFT_FIB_INET)",
                consequence: "packets with forged source addresses are treated as packets of the pod whose address they have",
                is_source_check: true,
            },
            Feature::Bridge => Self {
                feature: "nftables of the bridge family (CONFIG_NF_TABLES_BRIDGE)",
                consequence: "frames with a VLAN tag pass between bridged pods regardless of policies",
                is_source_check: false,
            },
            Feature::Refusals => Self {
                feature: "reject in nftables of the family inet (CONFIG_NFT_REJECT_INET)",
                consequence: "packets that pods would refuse by deny: reject are dropped",
                is_source_check: false,
            },
        }
    }

    /// Logs a warning.
    #[cfg(feature = "daemon")]
    pub(crate) fn log(&self) {
        let Self { feature, consequence, .. } = self;
        tracing::warn!(feature, consequence, "kernel lacks a feature, continuing without it");
    }
}

impl NftDataPlane {
    /// Creates the table of the programmed plan again, without reading what the kernel holds.
    ///
    /// # Errors
    /// If the kernel rejects the change.
    pub fn recreate(&mut self) -> Result<Programmed, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(Programmed::default()) };
        let created = enforcer.recreate().map(|c| programmed(&c)).map_err(failed("creating the table again"));
        log_without_stand_in(enforcer);
        created
    }
}

/// Logs that a table was replaced while no copy of it decided.
fn log_without_stand_in(enforcer: &mut Enforcer) {
    let Some(refusal) = enforcer.take_no_stand_in() else { return };
    #[cfg(feature = "daemon")]
    tracing::debug!(
        err = crate::error_chain::with_causes(&refusal),
        "no copy of the table decided while it was replaced"
    );
    #[cfg(not(feature = "daemon"))]
    drop(refusal);
}

fn programmed(commit: &Commit) -> Programmed {
    Programmed {
        transactions: commit.transactions,
        elements: commit.elements,
        generation: u64::from(commit.generation),
    }
}

impl DataPlane for NftDataPlane {
    type ConntrackEntry = conntrack::ConntrackEntry;

    fn programmed(&self) -> &NodePlan {
        match &self.state {
            State::Idle(_) => &self.empty,
            State::Programmed(enforcer) => enforcer.programmed(),
        }
    }

    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError> {
        let kernel = match &mut self.state {
            State::Idle(kernel) => kernel.take(),
            State::Programmed(enforcer) => {
                let commit = enforcer.reconcile(plan).map_err(failed("programming the node's plan again"))?;
                log_without_stand_in(enforcer);
                self.open_node()?;
                // Local addresses may differ from those that were programmed.
                let links = self.refresh_links_now().unwrap_or_else(|error| {
                    self.link_error = Some(error);
                    None
                });
                return Ok(with_links(programmed(&commit), links));
            }
        };
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => Kernel::open().map_err(failed("opening the kernel's nftables"))?,
        };
        // Enforcement continues without the links: rules by address work.
        let read = self.links.as_mut().map_or_else(|| Ok(NodeLinks::default()), |l| l.read(&plan.local));
        let node_links = read.unwrap_or_else(|error| {
            self.link_error = Some(failed(READING_LINKS)(error));
            NodeLinks::default()
        });
        let (mut enforcer, commit) = Enforcer::start_in(kernel, self.options.clone(), node_links, plan)
            .map_err(failed("programming the node's plan"))?;
        log_without_stand_in(&mut enforcer);
        (self.new_pods, self.left_new_pods) = new_pods::left(&mut enforcer);
        self.state = State::Programmed(Box::new(enforcer));
        self.open_node()?;
        Ok(programmed(&commit))
    }

    fn name_local(&mut self, names: &BTreeMap<IpAddr, ObjectKey>) {
        if let Some(links) = &mut self.links {
            links.name_local(names);
        }
    }

    fn set_unchecked_namespaces(&mut self, namespaces: BTreeSet<Name>) {
        if let Some(links) = &mut self.links {
            links.set_unchecked_namespaces(namespaces);
        }
    }

    fn set_allowed_sources(&mut self, sources: &BTreeMap<ObjectKey, BTreeSet<IpNet>>) {
        if let Some(links) = &mut self.links {
            links.set_allowed_sources(sources);
        }
    }

    fn wants_other_pods(&self) -> bool {
        self.links.as_ref().is_some_and(LinkMonitor::wants_other_pods)
    }

    fn set_other_pods(&mut self, addresses: &Arc<BTreeSet<IpAddr>>) {
        if let Some(links) = &mut self.links {
            links.set_other_pods(addresses);
        }
    }

    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        match &mut self.state {
            State::Idle(_) => {
                // The start failed. Nothing is programmed, so the delta is a whole plan.
                let mut plan = NodePlan::default();
                plan.apply(delta);
                self.start(&plan)
            }
            State::Programmed(_) => self.commit_with_links(delta),
        }
    }

    fn holds(&mut self) -> Result<bool, DataPlaneError> {
        // A table that a previous run left counts as unknown.
        let State::Programmed(enforcer) = &mut self.state else { return Ok(false) };
        match enforcer.verify() {
            Ok(found) => Ok(found.agrees()),
            // Other programs' transactions may keep a full listing from ever being consistent. The generation is one element. It
            // shows whether exactly our changes are there; the kernel notifies about changes by other programs.
            Err(_) => enforcer.is_in_sync().map_err(failed("reading the table's generation")),
        }
    }

    fn cut_off(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError> {
        let doing = failed("cutting pods off in table inet palisade_cut_off");
        match &mut self.state {
            State::Programmed(enforcer) => {
                let options = enforcer.options().clone();
                cut_off::cut_off(enforcer.kernel(), &options, addresses).map_err(doing)
            }
            State::Idle(_) => {
                let mut kernel = Kernel::open().map_err(failed("opening the kernel's nftables"))?;
                cut_off::cut_off(&mut kernel, &self.options, addresses).map_err(doing)
            }
        }
    }

    fn cut_off_also(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError> {
        let doing = failed("cutting further pods off in table inet palisade_cut_off");
        match &mut self.state {
            State::Programmed(enforcer) => {
                let options = enforcer.options().clone();
                cut_off::add(enforcer.kernel(), &options, addresses).map_err(doing)
            }
            State::Idle(_) => {
                let mut kernel = Kernel::open().map_err(failed("opening the kernel's nftables"))?;
                cut_off::add(&mut kernel, &self.options, addresses).map_err(doing)
            }
        }
    }

    fn exempts_own_node(&self) -> bool {
        !self.options.egress_to_own_node
    }

    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        host_addresses().map_err(failed("reading the node's addresses"))
    }

    fn begin_listing(&mut self, scope: &ReviewScope) -> Result<(), DataPlaneError> {
        if self.lister.begin(scope.clone()).is_ok() {
            return Ok(());
        }
        // The thread has ended: a listing panicked.
        self.lister = Lister::start().map_err(failed(LISTING))?;
        self.lister.begin(scope.clone()).map_err(failed(LISTING))
    }

    fn listed(&mut self) -> Option<Result<Vec<(TrackedConnection, Self::ConntrackEntry)>, DataPlaneError>> {
        let entries = match self.lister.listed()? {
            Ok(entries) => entries,
            Err(error) => return Some(Err(failed(LISTING)(error))),
        };
        let with_view = entries.into_iter().map(|entry| {
            let view = TrackedConnection {
                tuple: FiveTuple::from(&entry),
                revoked: entry.is_revoked(),
                midstream: entry.midstream,
            };
            (view, entry)
        });
        Some(Ok(with_view.collect()))
    }

    fn revoke(
        &mut self,
        connections: &[(FiveTuple, &Self::ConntrackEntry)],
    ) -> Result<RevocationSummary, DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(RevocationSummary::default()) };
        enforcer.revoke(connections).map_err(failed("revoking connections"))
    }

    fn none_revoked(&mut self) -> Result<(), DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(()) };
        enforcer.none_revoked().map_err(failed("leaving out the rules for revoked connections"))
    }

    fn restore(
        &mut self,
        tuples: &[FiveTuple],
        entries: &[&Self::ConntrackEntry],
    ) -> Result<(), DataPlaneError> {
        let State::Programmed(enforcer) = &mut self.state else { return Ok(()) };
        enforcer.restore(tuples, entries).map_err(failed("restoring connections"))
    }

    fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        matches!(&self.state, State::Programmed(enforcer) if enforcer.is_revoked(tuple))
    }

    fn revoked(&self) -> Vec<FiveTuple> {
        match &self.state {
            State::Idle(_) => Vec::new(),
            State::Programmed(enforcer) => enforcer.revoked().collect(),
        }
    }

    fn revoked_after(&self, after: Option<&FiveTuple>, count: usize) -> Vec<FiveTuple> {
        match &self.state {
            State::Idle(_) => Vec::new(),
            State::Programmed(enforcer) => enforcer.revoked_after(after, count).collect(),
        }
    }

    fn has_revoked(&self) -> bool {
        matches!(&self.state, State::Programmed(enforcer) if enforcer.has_revoked())
    }
}
