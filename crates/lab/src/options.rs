//! How a lab is laid out: what the caller can choose.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Family, Protocol};

/// A protocol with ports, and a port.
pub type OpenPort = (Protocol, u16);

/// How a lab is laid out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LayoutOptions {
    /// At least so many nodes. `None`: the nodes that the cluster declares or its pods name; without any, two.
    pub nodes: Option<usize>,
    /// Pods of a node share a bridge, as with the common bridge CNIs, instead of being routed one by one.
    pub bridged: bool,
    /// The address families that pods, nodes and services have.
    pub families: Families,
    /// Addresses beyond the nodes, besides those round the CIDRs of the policies. One that somebody has is left out.
    pub outside: BTreeSet<IpAddr>,
    /// Ports that are open everywhere, besides those that policies name.
    pub ports: BTreeSet<OpenPort>,
}

/// A choice of address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    #[default]
    Dual,
}

impl Families {
    /// The families, IPv4 first.
    #[must_use]
    pub fn all(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &Family::BOTH,
        }
    }

    /// Whether `family` is one of them.
    #[must_use]
    pub fn has(self, family: Family) -> bool {
        self.all().contains(&family)
    }
}
