//! The options of a layout.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Family, Protocol};

/// A protocol with ports, and a port.
pub type OpenPort = (Protocol, u16);

/// How a lab is laid out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LayoutOptions {
    /// The minimum number of nodes. `None`: the nodes that the cluster declares or that its pods name; two if there are none.
    pub nodes: Option<usize>,
    /// Whether the pods of a node share a bridge, as with the common bridge CNIs. Otherwise each pod has a route of its own.
    pub bridged: bool,
    /// The address families that pods, nodes and services have.
    pub families: Families,
    /// Outside addresses, in addition to those around the CIDRs of the policies. Addresses in use in the cluster are left out.
    pub outside: BTreeSet<IpAddr>,
    /// Ports that are open everywhere, in addition to those that policies name.
    pub ports: BTreeSet<OpenPort>,
}

/// A choice of address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    #[default]
    Dual,
}

impl Families {
    /// Returns the families, IPv4 first.
    #[must_use]
    pub fn all(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &Family::BOTH,
        }
    }

    /// Returns whether `family` is one of them.
    #[must_use]
    pub fn has(self, family: Family) -> bool {
        self.all().contains(&family)
    }
}
