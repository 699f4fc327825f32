//! The revoked connections in the kernel's sets: see [`crate::base::revoked`] for the rules that use them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
    time::{Duration, Instant},
};

use nix::libc::ENOENT;
use palisade_policy::Family;

use crate::{
    Error, Kernel,
    base_sets::BaseSets,
    conntrack::FiveTuple,
    reader::{Attributes, user_data},
    ruleset::{Element, HasPorts, OPENER_COMMENT, REVOKED_SET_SIZE, Set, TABLE},
    uapi::{
        nf_tables::{
            NFT_MSG_GETSETELEM, NFTA_DATA_VALUE, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS,
            NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_USERDATA,
        },
        nftables::NFTNL_UDATA_SET_ELEM_COMMENT,
    },
};

/// The most revoked connections that are remembered, in total and per opener: one pod must not use up the memory that
/// keeps the connections of others revoked.
const CAPACITY: usize = REVOKED_SET_SIZE as usize / 2;
const CAPACITY_PER_OPENER: usize = CAPACITY / 8;

/// The tuples that the kernel's sets hold according to the last reading, each from opener to answerer.
#[derive(Clone, Debug, Default)]
pub(crate) struct RevokedTuples {
    tuples: BTreeSet<FiveTuple>,
    by_opener: HashMap<IpAddr, usize>,
    read_at: Option<Instant>,
}

impl RevokedTuples {
    /// Reads the kernel's sets. They are empty if the table doesn't exist.
    pub(crate) fn read(kernel: &mut Kernel, sets: &BaseSets) -> Result<Self, Error> {
        let mut out = Self::default();
        out.mark_read();
        for (family, has_ports) in kinds() {
            let set = sets.revoked(family, has_ports);
            match read_set(kernel, set, family) {
                Err(e) if e.os_error() == Some(ENOENT) => {}
                tuples => tuples?.into_iter().for_each(|tuple| out.insert(tuple)),
            }
        }
        Ok(out)
    }

    /// Notes that the tuples equal the kernel's at this moment.
    pub(crate) fn mark_read(&mut self) {
        self.read_at = Some(Instant::now());
    }

    /// Returns whether the last reading is older than this.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.read_at.is_none_or(|at| at.elapsed() >= age)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tuples.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.tuples.len()
    }

    pub(crate) fn contains(&self, tuple: &FiveTuple) -> bool {
        self.tuples.contains(tuple)
    }

    pub(crate) fn tuples(&self) -> impl Iterator<Item = FiveTuple> {
        self.tuples.iter().copied()
    }

    /// Returns the tuples after this one, in order.
    pub(crate) fn tuples_after(&self, after: Option<&FiveTuple>) -> impl Iterator<Item = FiveTuple> {
        let begin = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        self.tuples.range((begin, Bound::Unbounded)).copied()
    }

    /// Returns the elements for these tuples by set: both orientations of each.
    pub(crate) fn elements(
        tuples: impl Iterator<Item = FiveTuple>,
    ) -> BTreeMap<(Family, HasPorts), Vec<Element>> {
        // Each orientation once: without ports, each end may have opened a connection to the other.
        let mut orientations: BTreeMap<FiveTuple, bool> = BTreeMap::new();
        for tuple in tuples {
            orientations.insert(tuple, true);
            orientations.entry(tuple.reversed()).or_insert(false);
        }
        let mut out: BTreeMap<_, Vec<Element>> = BTreeMap::new();
        for (tuple, is_opener) in orientations {
            out.entry(kind(&tuple)).or_default().push(Element::Revoked(tuple, is_opener));
        }
        out
    }

    /// Returns whether one more tuple of this opener is within the limits.
    pub(crate) fn has_room_for(&self, tuple: &FiveTuple) -> bool {
        let of_opener = self.by_opener.get(&tuple.source).copied().unwrap_or_default();
        self.tuples.len() < CAPACITY && of_opener < CAPACITY_PER_OPENER
    }

    pub(crate) fn insert(&mut self, tuple: FiveTuple) {
        if self.tuples.insert(tuple) {
            *self.by_opener.entry(tuple.source).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, tuple: &FiveTuple) {
        if self.tuples.remove(tuple)
            && let Some(count) = self.by_opener.get_mut(&tuple.source)
        {
            *count -= 1;
            if *count == 0 {
                self.by_opener.remove(&tuple.source);
            }
        }
    }
}

/// Returns the set to which a tuple belongs.
fn kind(tuple: &FiveTuple) -> (Family, HasPorts) {
    let has_ports = if tuple.protocol.has_ports() { HasPorts::Yes } else { HasPorts::No };
    (Family::of(tuple.source), has_ports)
}

fn kinds() -> impl Iterator<Item = (Family, HasPorts)> {
    Family::BOTH.into_iter().flat_map(|family| HasPorts::ALL.map(|has_ports| (family, has_ports)))
}

/// Reads the connections of one of the kernel's sets, each once.
fn read_set(kernel: &mut Kernel, set: &Set, family: Family) -> Result<BTreeSet<FiveTuple>, Error> {
    let mut found: BTreeMap<FiveTuple, bool> = BTreeMap::new();
    let filter = [(NFTA_SET_ELEM_LIST_TABLE, TABLE), (NFTA_SET_ELEM_LIST_SET, &*set.name)];
    for reply in kernel.dump_of_table(NFT_MSG_GETSETELEM, &filter)? {
        let Some(list) = Attributes(&reply).nested(NFTA_SET_ELEM_LIST_ELEMENTS) else { continue };
        for (_, element) in list {
            let element = Attributes(element);
            let key = element.nested(NFTA_SET_ELEM_KEY).and_then(|key| key.get(NFTA_DATA_VALUE));
            let Some(tuple) = key.and_then(|key| FiveTuple::from_key(family, key)) else { continue };
            let comment = element
                .get(NFTA_SET_ELEM_USERDATA)
                .and_then(|data| user_data(data, NFTNL_UDATA_SET_ELEM_COMMENT));
            found.insert(tuple, comment.as_deref() == Some(OPENER_COMMENT));
        }
    }
    let is_opener = |tuple: &FiveTuple, marked: bool| {
        let other_is_marked = found.get(&tuple.reversed()).copied().unwrap_or_default();
        let has_openers_ports = tuple.has_ports_of_opener();
        let other_has = tuple.reversed().has_ports_of_opener();
        match (marked, other_is_marked) {
            (true, _) => true,
            (false, true) => false,
            _ if has_openers_ports != other_has => has_openers_ports,
            // Another program added the element, so the orientation is arbitrary.
            _ => !found.contains_key(&tuple.reversed()) || *tuple <= tuple.reversed(),
        }
    };
    Ok(found.iter().filter(|(tuple, marked)| is_opener(tuple, **marked)).map(|(tuple, _)| *tuple).collect())
}
