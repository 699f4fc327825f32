//! What is known about addresses apart from those that objects report.
//!
//! Manifests rarely say which addresses pods get. Such a pod has a *placeholder* in each family of the cluster: an
//! address that identifies it and that no rule may decide by. The addresses that it may really get are known here as
//! ranges.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{Family, IpRange};

/// The IP families of a cluster, the ranges of its pods, and its placeholders. The default is a cluster of both families
/// in which every address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// The IP families of the cluster, sorted. There is at least one.
    pub families: Vec<Family>,
    /// The ranges from which pods get their addresses, canonical; empty if they are not known.
    pub pod_ranges: Vec<IpRange>,
    placeholders: BTreeMap<IpAddr, Arc<[IpRange]>>,
}

impl Default for Addressing {
    fn default() -> Self {
        Self { families: Family::BOTH.to_vec(), pod_ranges: Vec::new(), placeholders: BTreeMap::new() }
    }
}

impl Addressing {
    /// Declares an address a placeholder for one of `possible`: canonical ranges of the same family, without the
    /// addresses that other objects are known to have.
    pub fn add_placeholder(&mut self, address: IpAddr, possible: Arc<[IpRange]>) {
        self.placeholders.insert(address, possible);
    }

    /// Returns the addresses that a placeholder may stand for; `None` for a known address.
    #[must_use]
    pub fn possible(&self, address: IpAddr) -> Option<&Arc<[IpRange]>> {
        self.placeholders.get(&address)
    }

    /// Returns whether an address is a placeholder. It must not decide, and must not be shown.
    #[must_use]
    pub fn is_placeholder(&self, address: IpAddr) -> bool {
        self.placeholders.contains_key(&address)
    }

    /// Returns whether there are any placeholders.
    #[must_use]
    pub fn has_placeholders(&self) -> bool {
        !self.placeholders.is_empty()
    }

    /// Returns whether the cluster has this family.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        self.families.contains(&family)
    }
}
