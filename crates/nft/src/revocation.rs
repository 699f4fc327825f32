//! Connections that stay cut, whatever becomes of their entries: see [`crate::base::revoked`] for the rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::libc::{ENFILE, ENOENT};
use palisade_policy::Family;

use crate::{
    Enforcer, Error, Kernel,
    base::BaseSets,
    conntrack::{self, Connection, FiveTuple, OPENER_COMMENT, REMEMBERED_MOST, Revocation},
    kernel::now,
    program::{Phases, add, chunks},
    reader::{Attributes, user_data},
    ruleset::{Element, HasPorts, Message, Set, TABLE},
    send::send,
};

/// How many revoked connections are remembered, of all and of one opener: one pod must not use up what keeps the
/// connections of others cut.
const MOST: usize = REMEMBERED_MOST as usize / 2;
const MOST_OF_ONE: usize = MOST / 8;

/// How many connections are remembered and then cut at once: none waits long for those before it.
const AT_ONCE: usize = 2000;

/// How often the memory is compared with the kernel's sets, whose elements expire.
const REREAD: Duration = Duration::from_secs(3600);

/// What became of connections that were to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Those that were still there.
    pub cut: usize,
    /// Those that could not be remembered, because too many are. They are cut as long as their entries carry our
    /// label; a TCP connection whose entry goes is judged by its ports.
    pub not_remembered: usize,
}

/// The revoked connections that the kernel's sets hold as far as we know, each from its opener to its answerer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    tuples: BTreeSet<FiveTuple>,
    by_opener: HashMap<IpAddr, usize>,
    read: Option<Instant>,
}

impl Remembered {
    /// Reads the kernel's sets; without our table there are none.
    pub(crate) fn read(kernel: &mut Kernel, sets: &BaseSets) -> Result<Self, Error> {
        let mut out = Self { read: Some(now()), ..Self::default() };
        for (family, has_ports) in kinds() {
            let set = sets.revoked(family, has_ports);
            match listed(kernel, set, family) {
                Err(e) if e.os_error() == Some(ENOENT) => {}
                listed => listed?.into_iter().for_each(|tuple| out.insert(tuple)),
            }
        }
        Ok(out)
    }

    pub(crate) fn len(&self) -> usize {
        self.tuples.len()
    }

    pub(crate) fn tuples(&self) -> impl Iterator<Item = FiveTuple> {
        self.tuples.iter().copied()
    }

    /// The elements for these connections, by set: both orientations of each.
    pub(crate) fn elements(
        &self,
        tuples: impl Iterator<Item = FiveTuple>,
    ) -> BTreeMap<(Family, HasPorts), Vec<Element>> {
        // Each once, whoever opened it: of two connections without ports, either end may have opened one.
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

    fn has_room_for(&self, tuple: &FiveTuple) -> bool {
        let of_one = self.by_opener.get(&tuple.source).copied().unwrap_or_default();
        self.tuples.len() < MOST && of_one < MOST_OF_ONE
    }

    fn insert(&mut self, tuple: FiveTuple) {
        if self.tuples.insert(tuple) {
            *self.by_opener.entry(tuple.source).or_default() += 1;
        }
    }

    fn remove(&mut self, tuple: &FiveTuple) {
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

impl Enforcer {
    /// Cuts connections: no packet of them passes any more in either direction, and they don't come back whatever becomes
    /// of their entries, until [`Enforcer::restore`] or for [`conntrack::REMEMBERED`]. Each is given with the
    /// orientation that is denied, which its entry may have the wrong way round. `O(connections)`.
    ///
    /// # Errors
    /// What the kernel refuses. What was not cut then can be cut by another call.
    pub fn revoke(&mut self, connections: &[(FiveTuple, &Connection)]) -> Result<Revoked, Error> {
        self.forget_what_expired();
        let mut out = Revoked::default();
        for chunk in connections.chunks(AT_ONCE) {
            // Before the entries: a packet that comes when an entry is gone has to meet the tuple.
            out.not_remembered += self.remember(chunk.iter().map(|(tuple, _)| *tuple))?;
            for (_, connection) in chunk {
                if conntrack::revoke(&mut self.kernel, connection)? != Revocation::Gone {
                    out.cut += 1;
                }
            }
        }
        Ok(out)
    }

    /// Lets revoked connections go on: forgets their tuples, and takes the label off their entries. `O(both)`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn restore(&mut self, tuples: &[FiveTuple], connections: &[&Connection]) -> Result<(), Error> {
        for connection in connections {
            conntrack::restore(&mut self.kernel, connection)?;
        }
        let mut phases = Phases::default();
        for ((family, has_ports), elements) in self.program.revoked.elements(self.to_forget(tuples)) {
            let set = self.program.sets.revoked(family, has_ports);
            // One may have expired, and removing what is not there would fail: so it is added first.
            phases.leave.extend(chunks(elements).map(|part| {
                vec![
                    Message::AddElements(set.clone(), part.clone()),
                    Message::RemoveElements(set.clone(), part),
                ]
            }));
        }
        send(&mut self.kernel, phases, &mut self.generation).1?;
        for tuple in tuples {
            self.program.revoked.remove(tuple);
        }
        Ok(())
    }

    /// The revoked connections that are remembered, from opener to answerer.
    pub fn revoked(&self) -> impl Iterator<Item = FiveTuple> {
        self.program.revoked.tuples()
    }

    /// Whether a connection is remembered as revoked, in this orientation.
    #[must_use]
    pub fn is_revoked(&self, tuple: &FiveTuple) -> bool {
        self.program.revoked.tuples.contains(tuple)
    }

    /// Those of the tuples whose elements nothing else needs: the other orientation may be revoked by itself.
    fn to_forget<'a>(&'a self, tuples: &'a [FiveTuple]) -> impl Iterator<Item = FiveTuple> + 'a {
        let restored: BTreeSet<&FiveTuple> = tuples.iter().collect();
        let is_needed = move |tuple: &FiveTuple| {
            let other = tuple.reversed();
            self.is_revoked(&other) && !restored.contains(&other)
        };
        tuples.iter().copied().filter(move |tuple| tuple.outlives_its_entry() && !is_needed(tuple))
    }

    /// Puts tuples into the kernel's sets; says how many found no room.
    fn remember(&mut self, tuples: impl Iterator<Item = FiveTuple>) -> Result<usize, Error> {
        let (mut new, mut without_room) = (BTreeSet::new(), 0);
        for tuple in tuples {
            if self.is_revoked(&tuple) || !tuple.outlives_its_entry() {
                continue;
            }
            if self.program.revoked.has_room_for(&tuple) {
                self.program.revoked.insert(tuple);
                new.insert(tuple);
            } else {
                without_room += 1;
            }
        }
        let mut phases = Phases::default();
        for ((family, has_ports), elements) in self.program.revoked.elements(new.iter().copied()) {
            phases.join.extend(add(self.program.sets.revoked(family, has_ports), elements));
        }
        let (_, outcome) = send(&mut self.kernel, phases, &mut self.generation);
        if outcome.is_err() {
            new.iter().for_each(|tuple| self.program.revoked.remove(tuple));
        }
        match outcome {
            Ok(()) => Ok(without_room),
            // Somebody else has filled the set.
            Err(e) if e.os_error() == Some(ENFILE) => Ok(without_room + new.len()),
            Err(e) => Err(e),
        }
    }

    fn forget_what_expired(&mut self) {
        let revoked = &self.program.revoked;
        if revoked.tuples.is_empty() {
            self.program.revoked.read = Some(now());
        } else if revoked.read.is_none_or(|at| at.elapsed() >= REREAD) {
            // What can't be read is kept: forgetting it would leave it cut when it is allowed again.
            if let Ok(read) = Remembered::read(&mut self.kernel, &self.program.sets) {
                self.program.revoked = read;
            }
        }
    }
}

/// Which set a connection belongs in.
fn kind(tuple: &FiveTuple) -> (Family, HasPorts) {
    let has_ports = if tuple.protocol.has_ports() { HasPorts::Yes } else { HasPorts::No };
    (Family::of(tuple.source), has_ports)
}

fn kinds() -> impl Iterator<Item = (Family, HasPorts)> {
    Family::BOTH.into_iter().flat_map(|family| HasPorts::ALL.map(|has_ports| (family, has_ports)))
}

/// The connections in one of the kernel's sets, each once.
fn listed(kernel: &mut Kernel, set: &Set, family: Family) -> Result<BTreeSet<FiveTuple>, Error> {
    /// `NFT_MSG_GETSETELEM`.
    const GETSETELEM: u16 = 13;
    let mut found: BTreeMap<FiveTuple, bool> = BTreeMap::new();
    for reply in kernel.dump_of_table(GETSETELEM, &[(1, TABLE), (2, &set.name)])? {
        let Some(list) = Attributes(&reply).nested(3) else { continue };
        for (_, element) in list {
            let element = Attributes(element);
            let key = element.nested(1).and_then(|key| key.get(1));
            let Some(tuple) = key.and_then(|key| FiveTuple::from_key(family, key)) else { continue };
            // NFTA_SET_ELEM_USERDATA
            let comment = element.get(6).and_then(|data| user_data(data, 0));
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
            // Whichever: somebody else put it there.
            _ => !found.contains_key(&tuple.reversed()) || *tuple <= tuple.reversed(),
        }
    };
    Ok(found.iter().filter(|(tuple, marked)| is_opener(tuple, **marked)).map(|(tuple, _)| *tuple).collect())
}
