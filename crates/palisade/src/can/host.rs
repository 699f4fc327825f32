//! A host outside the cluster, and what is known about its addresses.

use std::net::IpAddr;

use palisade_analysis::regions;
use palisade_policy::{Cluster, DomainName};

/// A host outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name.
    pub(crate) name: String,
    /// What is known about its addresses.
    pub(crate) known: Known,
}

/// What is known about the addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It may have any public address.
    Nothing,
    /// This machine's resolver answered these.
    Answered(Vec<IpAddr>),
    /// Agents have learned these.
    Learned(Vec<IpAddr>),
}

impl Host {
    /// Returns a host, with the addresses that were learned for its name.
    pub(crate) fn new(cluster: &Cluster, name: &str) -> Self {
        let learned = DomainName::new(name).and_then(|name| cluster.learned.get(&name));
        let learned: Vec<IpAddr> = learned.iter().flat_map(|learned| learned.addresses.iter()).collect();
        let known = if learned.is_empty() { Known::Nothing } else { Known::Learned(learned) };
        Self { name: name.to_owned(), known }
    }

    /// Returns its addresses; `None`: it may have any public address.
    pub(crate) fn addresses(&self) -> Option<&[IpAddr]> {
        match &self.known {
            Known::Nothing => None,
            Known::Answered(addresses) | Known::Learned(addresses) => Some(addresses),
        }
    }

    /// Returns whether agents learn this address of it without `--dns-allow`: public ones.
    pub(crate) fn is_learned(&self, cluster: &Cluster, address: IpAddr) -> bool {
        let mut ranges = regions::public_ranges(cluster).into_iter();
        ranges.any(|range| range.first <= address && address <= range.last)
    }
}
