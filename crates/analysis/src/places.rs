//! Where an address lies among the blocks of policies: in one set of blocks, or, if it is unknown, in one of several.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use palisade_policy::{Addressing, IpRange};

use crate::{
    numbering::Numbering,
    space::{AddressSpace, BlockSet},
};

/// Identifies a set of possible block sets in [`Places`].
pub(crate) type PlaceId = u32;

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In these blocks.
    In(BlockSet),
    /// In one of several sets of blocks.
    OneOf(PlaceId),
}

/// The places of unknown addresses. Addresses with the same possible block sets share one, so that many nodes with
/// ranges of their own cost no more than the blocks that distinguish them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    sets: Numbering<Vec<BlockSet>>,
    /// The places of ranges, by their address in memory. All ranges live as long as the cluster.
    known: HashMap<usize, Place>,
}

impl Places {
    /// Returns where an address lies. `O(ranges + cuts)` for the first address with the same possible ranges.
    pub(crate) fn of(&mut self, space: &AddressSpace, addressing: &Addressing, address: IpAddr) -> Place {
        let Some(possible) = addressing.possible(address) else { return Place::In(space.set_of(address)) };
        let id = id_of(possible);
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        let sets = space.sets_in(possible);
        let place = match sets[..] {
            [set] => Place::In(set),
            _ => Place::OneOf(self.sets.number(sets)),
        };
        self.known.insert(id, place);
        place
    }

    /// Returns the number of places that are not known.
    pub(crate) fn len(&self) -> usize {
        self.sets.values().len()
    }

    /// Returns the possible block sets of a place, sorted. There are at least two, or none if nothing is possible.
    pub(crate) fn sets(&self, place: PlaceId) -> &[BlockSet] {
        self.sets.get(place)
    }
}

/// Returns a number that identifies shared ranges.
pub(crate) fn id_of(ranges: &Arc<[IpRange]>) -> usize {
    Arc::as_ptr(ranges).cast::<IpRange>() as usize
}
