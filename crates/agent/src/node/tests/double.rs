//! A kernel for the agent's tests. It holds rules of its own, which may differ from what the agent believes: it refuses what
//! a test tells it to refuse, takes half of a change, can't be read, and is edited by others. Its clock is the test's.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use palisade_policy::{Delta, Direction, NodePlan, PeerSet, PolicyTable, PolicyTableId, Protocol, Traffic};

use crate::{Connection, DataPlane, DataPlaneError, FiveTuple, Programmed, Revoked};

/// What the kernel refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mood {
    /// Every transaction on our table: it belongs to another program.
    pub(super) owned: bool,
    /// Changes of more than so many objects and elements: memory is short.
    pub(super) limit: Option<usize>,
    /// Changes are cut in two, and the second half is refused.
    pub(super) torn: bool,
    /// To list anything: others change their tables all the time.
    pub(super) unreadable: bool,
    /// To cut pods off in a table of their own.
    pub(super) no_cut_off: bool,
}

/// What the kernel holds. It outlives the agent.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Our table; none if there is none.
    pub(super) table: Option<NodePlan>,
    /// The addresses that are cut off in a table of their own.
    pub(super) cut_off: BTreeSet<(Direction, IpAddr)>,
    pub(super) mood: Mood,
    /// Whether others edited something since it was last read.
    pub(super) edited: bool,
}

impl Held {
    /// What happens to a packet that begins a connection, in one direction.
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

    /// Somebody else does something to our tables.
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

/// An agent's way to the kernel.
pub(super) struct Double {
    kernel: Arc<Mutex<Held>>,
    /// What this agent believes is in the kernel.
    pub(super) programmed: NodePlan,
    torn: bool,
    /// Whether the next transactions are refused, whatever they are.
    pub(super) refuse: VecDeque<bool>,
    /// What was sent: `start`, `commit`, `cut off`.
    pub(super) sent: Vec<&'static str>,
    pub(super) connections: BTreeMap<u8, Connection>,
    pub(super) remembered: BTreeSet<FiveTuple>,
    pub(super) asked: Vec<BTreeSet<IpAddr>>,
    pub(super) refuse_revocations: usize,
    /// In milliseconds.
    pub(super) now: Arc<AtomicU64>,
    pub(super) listing_takes: u64,
}

impl Double {
    pub(super) fn new(kernel: Arc<Mutex<Held>>, now: Arc<AtomicU64>) -> Self {
        Self {
            kernel,
            now,
            programmed: NodePlan::default(),
            torn: false,
            refuse: VecDeque::new(),
            sent: Vec::new(),
            connections: BTreeMap::new(),
            remembered: BTreeSet::new(),
            asked: Vec::new(),
            refuse_revocations: 0,
            listing_takes: 0,
        }
    }

    pub(super) fn kernel(&self) -> MutexGuard<'_, Held> {
        self.kernel.lock().unwrap()
    }

    pub(super) fn clock(&self) -> impl Fn() -> Duration + Send + 'static {
        let now = self.now.clone();
        move || Duration::from_millis(now.load(Ordering::Relaxed))
    }

    /// One change of our table, as the kernel takes it: whole, half, or not at all.
    fn transact(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        if self.refuse.pop_front().unwrap_or(false) {
            return Err(refused("no buffer space"));
        }
        let mut kernel = self.kernel.lock().unwrap();
        let mood = kernel.mood;
        if mood.owned {
            return Err(refused("the table belongs to another program"));
        }
        if mood.limit.is_some_and(|limit| size(delta) > limit) {
            return Err(refused("cannot allocate memory"));
        }
        let Some(table) = &mut kernel.table else { return Err(refused("no such table")) };
        if !fits(delta, table) {
            return Err(refused("no such element"));
        }
        if mood.torn && size(delta) > 1 {
            table.apply(&first_half(delta));
            self.torn = true;
            return Err(refused("the first part can't be taken back"));
        }
        table.apply(delta);
        Ok(Programmed { transactions: 1, elements: size(delta), generation: 0 })
    }

    fn read(&self) -> Result<Option<NodePlan>, DataPlaneError> {
        let mut kernel = self.kernel();
        if kernel.mood.unreadable {
            return Err(refused("the tables changed during each attempt to read them"));
        }
        kernel.edited = false;
        Ok(kernel.table.clone())
    }
}

fn refused(why: &'static str) -> DataPlaneError {
    DataPlaneError { doing: "a transaction", source: why.into() }
}

/// How many objects and elements a difference has.
fn size(delta: &Delta) -> usize {
    let members = delta.members.values().map(|m| m.added.len() + m.removed.len()).sum::<usize>();
    let groups = delta.peer_sets_added.values().map(|group| match group {
        PeerSet::Addresses(set) => 1 + set.len(),
        PeerSet::Ranges(ranges) => 1 + ranges.len(),
    });
    let dispatch = [&delta.ingress, &delta.egress].map(|d| d.set.len() + d.removed.len());
    let hairpin = delta.hairpin.set.len() + delta.hairpin.removed.len();
    members + groups.sum::<usize>() + dispatch.iter().sum::<usize>() + hairpin + delta.tables_set.len()
}

/// Whether everything that a difference takes away is there.
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

/// What goes first where a change is staged, and half of what packets notice.
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
    type Entry = u8;

    fn programmed(&self) -> &NodePlan {
        &self.programmed
    }

    fn start(&mut self, plan: &NodePlan) -> Result<Programmed, DataPlaneError> {
        self.sent.push("start");
        let found = self.read()?;
        let delta = found.clone().unwrap_or_default().delta_to(plan);
        let is_new = found.is_none();
        if is_new {
            self.kernel().table = Some(NodePlan::default());
        }
        match self.transact(&delta) {
            Ok(programmed) => {
                self.programmed = plan.clone();
                self.torn = false;
                Ok(programmed)
            }
            Err(error) => {
                if is_new && !self.torn {
                    self.kernel().table = None;
                }
                Err(error)
            }
        }
    }

    fn commit(&mut self, delta: &Delta) -> Result<Programmed, DataPlaneError> {
        self.sent.push("commit");
        if self.torn {
            let back = self.programmed.clone();
            self.start(&back)?;
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
        if kernel.mood.no_cut_off {
            return Err(refused("no second table either"));
        }
        kernel.cut_off.clone_from(addresses);
        Ok(())
    }

    fn host_addresses(&self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        Ok(BTreeSet::new())
    }

    fn connections(&mut self, ends: &BTreeSet<IpAddr>) -> Result<Vec<(Connection, u8)>, DataPlaneError> {
        self.asked.push(ends.clone());
        self.now.fetch_add(self.listing_takes, Ordering::Relaxed);
        let is_concerned =
            |c: &Connection| ends.contains(&c.tuple.source) || ends.contains(&c.tuple.destination);
        let found = self.connections.iter().filter(|(_, c)| is_concerned(c));
        Ok(found.map(|(id, c)| (c.clone(), *id)).collect())
    }

    fn revoke(&mut self, connections: &[(FiveTuple, &u8)]) -> Result<Revoked, DataPlaneError> {
        for (tuple, id) in connections {
            if self.refuse_revocations > 0 {
                self.refuse_revocations -= 1;
                return Err(refused("no buffer space"));
            }
            self.connections.get_mut(id).ok_or_else(|| refused("no such connection"))?.revoked = true;
            self.remembered.insert(*tuple);
        }
        Ok(Revoked { cut: connections.len(), not_remembered: 0 })
    }

    fn restore(&mut self, tuples: &[FiveTuple], ids: &[&u8]) -> Result<(), DataPlaneError> {
        self.remembered.retain(|tuple| !tuples.contains(tuple));
        for id in ids {
            self.connections.get_mut(id).ok_or_else(|| refused("no such connection"))?.revoked = false;
        }
        Ok(())
    }

    fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        self.remembered.contains(tuple)
    }

    fn revoked(&self) -> Vec<FiveTuple> {
        self.remembered.iter().copied().collect()
    }

    fn has_revoked(&self) -> bool {
        !self.remembered.is_empty()
    }

    fn labelled(&mut self) -> Result<BTreeSet<IpAddr>, DataPlaneError> {
        Ok(self.connections.values().filter(|c| c.revoked).map(|c| c.tuple.source).collect())
    }
}
