//! A kernel for the agent's tests. Its rules may differ from what the agent has programmed: tests make it reject changes, apply
//! them partly, fail to be read, and let other programs edit it. It uses the test's clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_policy::{
    Delta, Direction, NodePlan, ObjectKey, PeerSet, PolicyTable, PolicyTableId, Protocol, Traffic,
};

use crate::{
    DataPlane, DataPlaneError, FiveTuple, Programmed, ReviewScope, RevocationSummary, TrackedConnection,
};

/// The faults of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Every transaction on our table is rejected: it belongs to another program.
    pub(super) owned: bool,
    /// Changes of more than this many objects and elements are rejected: memory is short.
    pub(super) limit: Option<usize>,
    /// Only the first half of a change is applied, and the second is rejected.
    pub(super) partial: bool,
    /// Nothing can be listed: other programs change their tables all the time.
    pub(super) unreadable: bool,
    /// The separate cut-off table is rejected.
    pub(super) no_cut_off: bool,
}

/// The state of the kernel. It outlives the agent.
#[derive(Debug, Default)]
pub(super) struct KernelState {
    /// Our table, if it exists.
    pub(super) table: Option<NodePlan>,
    /// The addresses in the separate cut-off table.
    pub(super) cut_off: BTreeSet<(Direction, IpAddr)>,
    pub(super) faults: Faults,
    /// Whether another program has edited something since it was last read.
    pub(super) edited: bool,
}

impl KernelState {
    /// Whether the first packet of a connection passes, in one direction.
    pub(super) fn passes(
        &self,
        direction: Direction,
        (source, destination): (IpAddr, IpAddr),
        (protocol, port): (Protocol, u16),
    ) -> bool {
        let local = if direction == Direction::Ingress { destination } else { source };
        let table = self.table.as_ref();
        !self.cut_off.contains(&(direction, local))
            && table.is_none_or(|t| t.decide(direction, source, destination, protocol, port).is_allow())
    }

    /// Edits our tables as another program might.
    pub(super) fn edit(&mut self, what: u8, nth: usize) {
        self.edited = true;
        let Some(table) = &mut self.table else { return };
        fn pick<K: Clone, V>(map: &BTreeMap<K, V>, nth: usize) -> Option<K> {
            map.keys().nth(nth % map.len().max(1)).cloned()
        }
        let stranger = IpAddr::from([203, 0, 113, 99]);
        match what % 8 {
            0 => self.table = None,
            1 => drop(pick(&table.ingress, nth).map(|a| table.ingress.remove(&a))),
            2 => drop(pick(&table.egress, nth).map(|a| table.egress.remove(&a))),
            3 => (table.ingress, table.egress) = Default::default(),
            4 => {
                let id = pick(&table.tables, nth);
                if let Some(table) = id.and_then(|id| table.tables.get_mut(&id)) {
                    table.rest = Traffic::all();
                }
            }
            5 => {
                let id = pick(&table.peer_sets, nth);
                if let Some(PeerSet::Addresses(set)) = id.and_then(|id| table.peer_sets.get_mut(&id)) {
                    set.insert(stranger);
                }
            }
            6 => {
                let id = PolicyTableId([0xee; 16]);
                let (exact, ranges) = Default::default();
                let rest = Traffic::none();
                table.tables.insert(id, PolicyTable { direction: Direction::Ingress, exact, ranges, rest });
                table.ingress.insert(stranger, id);
            }
            _ => self.cut_off.clear(),
        }
    }
}

/// A data plane that programs a [`KernelState`].
pub(super) struct Double {
    kernel: Arc<Mutex<KernelState>>,
    /// The plan that was programmed.
    pub(super) programmed: NodePlan,
    /// Whether the last change was applied partly.
    is_partial: bool,
    /// For each of the next transactions, whether it is rejected.
    pub(super) reject: VecDeque<bool>,
    /// The operations so far: `start`, `commit`, `holds`, `cut off`.
    pub(super) sent: Vec<&'static str>,
    pub(super) connections: BTreeMap<u32, TrackedConnection>,
    /// Connections in the set of revoked connections.
    pub(super) revoked: BTreeSet<FiveTuple>,
    /// Whether packets are compared with revoked connections.
    pub(super) matches_revoked: bool,
    /// The addresses of each listing of connections.
    pub(super) listings: Vec<BTreeSet<IpAddr>>,
    /// The connections that the listing under way has found.
    listing: Option<Vec<(TrackedConnection, u32)>>,
    /// Whether listings don't end.
    pub(super) holds_listings: bool,
    /// How many of the next listings fail.
    pub(super) reject_listings: usize,
    /// How many of the next revocations fail.
    pub(super) reject_revocations: usize,
    /// In milliseconds.
    pub(super) now: Arc<AtomicU64>,
    /// What each call of `name_local` has told.
    pub(super) named: Vec<BTreeMap<IpAddr, ObjectKey>>,
    /// How long a listing of connections takes, in milliseconds.
    pub(super) listing_takes: u64,
}

impl Double {
    pub(super) fn new(kernel: Arc<Mutex<KernelState>>, now: Arc<AtomicU64>) -> Self {
        Self {
            kernel,
            now,
            programmed: NodePlan::default(),
            is_partial: false,
            reject: VecDeque::new(),
            sent: Vec::new(),
            connections: BTreeMap::new(),
            revoked: BTreeSet::new(),
            matches_revoked: true,
            listings: Vec::new(),
            listing: None,
            holds_listings: false,
            reject_listings: 0,
            reject_revocations: 0,
            named: Vec::new(),
            listing_takes: 0,
        }
    }

    pub(super) fn kernel(&self) -> MutexGuard<'_, KernelState> {
        self.kernel.lock().unwrap()
    }

    pub(super) fn clock(&self) -> impl Fn() -> Duration + Send + 'static {
        let now = self.now.clone();
        move || Duration::from_millis(now.load(Ordering::Relaxed))
    }

    /// Applies one change of our table as a whole, partly, or not at all.
    fn transact(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        if self.reject.pop_front().unwrap_or(false) {
            return Err(rejected("no buffer space"));
        }
        let mut kernel = self.kernel.lock().unwrap();
        let faults = kernel.faults;
        if faults.owned {
            return Err(rejected("the table belongs to another program"));
        }
        if faults.limit.is_some_and(|limit| size(delta) > limit) {
            return Err(rejected("cannot allocate memory"));
        }
        let Some(table) = &mut kernel.table else { return Err(rejected("no such table")) };
        if !fits(delta, table) {
            return Err(rejected("no such element"));
        }
        if faults.partial && size(delta) > 1 {
            table.apply(&first_half(delta));
            self.is_partial = true;
            return Err(rejected("the first part can't be rolled back"));
        }
        table.apply(delta);
        Ok(Programmed { transactions: 1, elements: size(delta), generation: 0 })
    }

    fn read(&self) -> Result<Option<NodePlan>, DataPlaneError> {
        let mut kernel = self.kernel();
        if kernel.faults.unreadable {
            return Err(rejected("the tables changed during each attempt to read them"));
        }
        kernel.edited = false;
        Ok(kernel.table.clone())
    }
}

fn rejected(why: &'static str) -> DataPlaneError {
    DataPlaneError { doing: "a transaction", source: why.into() }
}

/// The number of objects and elements in a delta.
fn size(delta: &Delta) -> usize {
    let members = delta.members.values().map(|m| m.added.len() + m.removed.len()).sum::<usize>();
    let groups = delta.peer_sets_added.values().map(|group| match group {
        PeerSet::Addresses(set) => 1 + set.len(),
        PeerSet::Ranges(ranges) => 1 + ranges.len(),
    });
    let audit = &delta.audit;
    let dispatch =
        [&delta.ingress, &delta.egress, &audit.ingress, &audit.egress].map(|d| d.set.len() + d.removed.len());
    let hairpin =
        [&delta.hairpin, &audit.hairpin].map(|h| h.set.len() + h.removed.len()).iter().sum::<usize>();
    members + groups.sum::<usize>() + dispatch.iter().sum::<usize>() + hairpin + delta.tables_set.len()
}

/// Whether everything that a delta removes exists.
fn fits(delta: &Delta, table: &NodePlan) -> bool {
    let members = delta.members.iter().all(|(id, change)| match table.peer_sets.get(id) {
        Some(PeerSet::Addresses(set)) => change.removed.iter().all(|a| set.contains(a)),
        _ => false,
    });
    members
        && delta.ingress.removed.iter().all(|a| table.ingress.contains_key(a))
        && delta.egress.removed.iter().all(|a| table.egress.contains_key(a))
        && delta.hairpin.removed.iter().all(|a| table.hairpin.contains_key(a))
        && delta.tables_removed.iter().all(|id| table.tables.contains_key(id))
        && delta.peer_sets_removed.iter().all(|id| table.peer_sets.contains_key(id))
}

/// The first stage of a staged change, and half of the dispatch.
fn first_half(delta: &Delta) -> Delta {
    let half = |dispatch: &BTreeMap<IpAddr, PolicyTableId>| {
        dispatch.iter().take(dispatch.len() / 2).map(|(a, t)| (*a, *t)).collect()
    };
    let mut first = Delta {
        peer_sets_added: delta.peer_sets_added.clone(),
        tables_set: delta.tables_set.clone(),
        members: delta.members.clone(),
        ..Delta::default()
    };
    first.members.values_mut().for_each(|change| change.removed.clear());
    first.ingress.set = half(&delta.ingress.set);
    first.egress.set = half(&delta.egress.set);
    first
}

impl DataPlane for Double {
    type ConntrackEntry = u32;

    fn programmed(&self) -> &NodePlan {
        &self.programmed
    }

    fn name_local(&mut self, names: &BTreeMap<IpAddr, ObjectKey>) {
        self.named.push(names.clone());
    }

    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError> {
        self.sent.push("start");
        self.matches_revoked = true;
        let found = self.read()?;
        let delta = found.clone().unwrap_or_default().delta_to(plan);
        let is_new = found.is_none();
        if is_new {
            self.kernel().table = Some(NodePlan::default());
        }
        match self.transact(&delta) {
            Ok(programmed) => {
                self.programmed = plan.clone();
                self.is_partial = false;
                Ok(programmed)
            }
            Err(error) => {
                if is_new && !self.is_partial {
                    self.kernel().table = None;
                }
                Err(error)
            }
        }
    }

    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        self.sent.push("commit");
        if self.is_partial {
            let programmed = self.programmed.clone();
            self.start(&programmed)?;
        }
        let done = self.transact(delta)?;
        self.programmed.apply(delta);
        Ok(done)
    }

    fn holds(&mut self) -> Result<bool, DataPlaneError> {
        self.sent.push("holds");
        Ok(self.read()?.as_ref() == Some(&self.programmed))
    }

    fn cut_off(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError> {
        self.sent.push("cut off");
        let mut kernel = self.kernel();
        if kernel.faults.no_cut_off {
            return Err(rejected("no second table either"));
        }
        kernel.cut_off.clone_from(addresses);
        Ok(())
    }

    fn cut_off_also(&mut self, addresses: &BTreeSet<(Direction, IpAddr)>) -> Result<(), DataPlaneError> {
        self.sent.push("cut off also");
        let mut kernel = self.kernel();
        if kernel.faults.no_cut_off {
            return Err(rejected("no second table either"));
        }
        kernel.cut_off.extend(addresses);
        Ok(())
    }

    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        Ok(BTreeSet::new())
    }

    fn begin_listing(&mut self, scope: &ReviewScope) -> Result<(), DataPlaneError> {
        assert!(self.listing.is_none(), "one listing at a time");
        self.listings.push(scope.ends.clone());
        let is_concerned = |c: &TrackedConnection| {
            let has_end = scope.ends.contains(&c.tuple.source) || scope.ends.contains(&c.tuple.destination);
            has_end || (scope.labelled && c.revoked)
        };
        let found = self.connections.iter().filter(|(_, c)| is_concerned(c));
        self.listing = Some(found.map(|(id, c)| (c.clone(), *id)).collect());
        Ok(())
    }

    fn listed(&mut self) -> Option<Result<Vec<(TrackedConnection, u32)>, DataPlaneError>> {
        if self.holds_listings {
            return None;
        }
        self.now.fetch_add(self.listing_takes, Ordering::Relaxed);
        self.listing.take().map(|listed| match self.reject_listings {
            0 => Ok(listed),
            _ => {
                self.reject_listings -= 1;
                Err(rejected("interrupted"))
            }
        })
    }

    fn revoke(&mut self, connections: &[(FiveTuple, &u32)]) -> Result<RevocationSummary, DataPlaneError> {
        for (tuple, id) in connections {
            if self.reject_revocations > 0 {
                self.reject_revocations -= 1;
                return Err(rejected("no buffer space"));
            }
            self.matches_revoked = true;
            self.revoked.insert(*tuple);
            // It may have ended since it was listed.
            if let Some(connection) = self.connections.get_mut(id) {
                connection.revoked = true;
            }
        }
        Ok(RevocationSummary { revoked: connections.len(), not_remembered: 0 })
    }

    fn none_revoked(&mut self) -> Result<(), DataPlaneError> {
        let labelled: Vec<_> = self.connections.values().filter(|c| c.revoked).collect();
        assert!(labelled.is_empty() && self.revoked.is_empty(), "{labelled:?} {:?}", self.revoked);
        self.matches_revoked = false;
        Ok(())
    }

    fn restore(&mut self, tuples: &[FiveTuple], ids: &[&u32]) -> Result<(), DataPlaneError> {
        self.revoked.retain(|tuple| !tuples.contains(tuple));
        for id in ids {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.revoked = false;
            }
        }
        Ok(())
    }

    fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        self.revoked.contains(tuple)
    }

    fn revoked(&self) -> Vec<FiveTuple> {
        self.revoked.iter().copied().collect()
    }

    fn revoked_after(&self, after: Option<&FiveTuple>, count: usize) -> Vec<FiveTuple> {
        let rest = self.revoked.iter().filter(|tuple| after.is_none_or(|after| *tuple > after));
        rest.take(count).copied().collect()
    }

    fn has_revoked(&self) -> bool {
        !self.revoked.is_empty()
    }
}
